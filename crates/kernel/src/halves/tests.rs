use proptest::collection::vec;
use proptest::prelude::*;

use super::{BLOCK_ROWS, GROUP_BYTES, HALVES_GROUP_BYTES};
use crate::{CodeBlock, Kernels, Line};

/// The sum of a row in 64 bits, straight from the definition.
fn sum(query: &[i8], codes: &[u8], row: usize) -> i64 {
    let half = query.len() / 2;
    let number = |at: usize| {
        let (group, byte) = (at % half / HALVES_GROUP_BYTES, at % HALVES_GROUP_BYTES);
        let byte = codes[group * GROUP_BYTES + row * HALVES_GROUP_BYTES + byte];
        i64::from(if at < half { byte % 16 } else { byte / 16 })
    };
    (0..query.len()).map(|at| number(at) * i64::from(query[at])).sum()
}

fn assert_exact(query: &[i8], codes: &[u8], terms: &[f32], line: Line) {
    let own: &[f32; BLOCK_ROWS] = terms[..BLOCK_ROWS].try_into().unwrap();
    let factor: &[f32; BLOCK_ROWS] = terms[BLOCK_ROWS..].try_into().unwrap();
    let block = CodeBlock { codes, own, factor, next: codes };
    let mut expect = [0; BLOCK_ROWS];
    let mut kept = 0;
    for (row, expect) in expect.iter_mut().enumerate() {
        *expect = i32::try_from(sum(query, codes, row)).unwrap();
        let product = *expect as f32 * line.step + line.offset;
        let estimate = (own[row] + line.base) + factor[row] * product;
        kept |= if estimate > line.bound { 0 } else { 1 << row };
    }
    for table in Kernels::supported() {
        let mut sums = [i32::MIN; BLOCK_ROWS];
        let got = table.dot_block(query, block, line, &mut sums);
        assert_eq!(sums, expect, "{} of {} numbers", table.name(), query.len());
        assert_eq!(got, kept, "{} of {} numbers", table.name(), query.len());
    }
}

const PLAIN: Line = Line { step: 1.0, offset: 0.0, base: 0.0, bound: 1000.0 };

#[test]
fn k5_products_of_blocks_are_exact_at_every_length_and_at_the_extremes() {
    let mut terms = vec![0.0; BLOCK_ROWS];
    terms.resize(2 * BLOCK_ROWS, 1.0);
    for groups in (0..40).chain([48, 96, 512, 8192]) {
        for (code, query) in [(255, 127), (255, -128), (0, 127), (0x1f, -1), (0xa5, -128)] {
            let query = vec![query; groups * 2 * HALVES_GROUP_BYTES];
            assert_exact(&query, &vec![code; groups * GROUP_BYTES], &terms, PLAIN);
        }
    }
}

#[test]
fn what_is_no_number_is_of_interest() {
    let mut terms = vec![0.0; 2 * BLOCK_ROWS];
    terms[3] = f32::NAN;
    terms[5] = f32::INFINITY;
    let block = vec![0x11; GROUP_BYTES];
    assert_exact(&[1; 8], &block, &terms, Line { bound: -1.0, ..PLAIN });
    let own = terms[..BLOCK_ROWS].try_into().unwrap();
    let block = CodeBlock { codes: &block, own, factor: own, next: &[] };
    for table in Kernels::supported() {
        let mut sums = [0; BLOCK_ROWS];
        let line = Line { bound: -1.0, ..PLAIN };
        assert_eq!(table.dot_block(&[1; 8], block, line, &mut sums), 1 << 3, "{}", table.name());
        let line = Line { bound: f32::INFINITY, ..PLAIN };
        assert_eq!(table.dot_block(&[1; 8], block, line, &mut sums), u32::MAX, "{}", table.name());
    }
}

proptest! {
    #[test]
    fn k5_products_of_blocks_are_exact_for_any_codes(
        groups in vec((any::<[i8; 8]>(), any::<[[u8; 32]; 4]>()), 0..60),
        terms in vec(-2.0_f32..2.0, 2 * BLOCK_ROWS),
        bound in -1e4_f32..1e4,
        offset in -1e4_f32..1e4,
    ) {
        let low = groups.iter().flat_map(|(query, _)| query[..4].iter());
        let high = groups.iter().flat_map(|(query, _)| query[4..].iter());
        let query: Vec<i8> = low.chain(high).copied().collect();
        let codes: Vec<u8> = groups.iter().flat_map(|(_, codes)| codes.concat()).collect();
        assert_exact(&query, &codes, &terms, Line { step: 0.5, offset, base: 1.0, bound });
    }
}
