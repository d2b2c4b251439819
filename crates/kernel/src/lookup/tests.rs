use proptest::collection::vec;
use proptest::prelude::*;

use super::{BLOCK_ROWS, CodeBlock, Line, PART_BYTES, PARTS_MULTIPLE, QueryTables, TableQuad};
use crate::Kernels;

/// The sums straight from the definition.
fn sums(tables: &[u8], codes: &[u8]) -> Vec<u32> {
    let code = |part: usize, row: usize| {
        let byte = codes[part * PART_BYTES + row % 16];
        usize::from(if row < 16 { byte % 16 } else { byte / 16 })
    };
    let parts = tables.len() / PART_BYTES;
    let sum = |row| {
        (0..parts).map(|part| u32::from(tables[part * PART_BYTES + code(part, row)])).sum::<u32>()
    };
    (0..BLOCK_ROWS).map(sum).collect()
}

fn quads(tables: &[u8]) -> Vec<TableQuad> {
    tables.as_chunks().0.iter().map(|quad| TableQuad(*quad)).collect()
}

fn assert_exact(tables: &[u8], codes: &[u8], terms: &[f32], line: Line) {
    let own: &[f32; BLOCK_ROWS] = terms[..BLOCK_ROWS].try_into().unwrap();
    let factor: &[f32; BLOCK_ROWS] = terms[BLOCK_ROWS..].try_into().unwrap();
    let block = CodeBlock { codes, own, factor, next: codes };
    let mut expect = [0.0; BLOCK_ROWS];
    for (row, sum) in sums(tables, codes).into_iter().enumerate() {
        let sum = f32::from(u16::try_from(sum % (1 << 16)).unwrap());
        expect[row] = (own[row] + line.base) + factor[row] * (sum * line.step + line.offset);
    }
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    for table in Kernels::supported() {
        let mut out = [f32::NAN; BLOCK_ROWS];
        let kept = table.estimate(&quads(tables), block, line, &mut out);
        assert_eq!(bits(&out), bits(&expect), "{} of {} bytes", table.name(), codes.len());
        for (row, estimate) in expect.iter().enumerate() {
            let beyond = *estimate > line.bound;
            assert_eq!(kept >> row & 1 == 0, beyond, "{} row {row}", table.name());
        }
    }
}

const PLAIN: Line = Line { step: 1.0, offset: 0.0, base: 0.0, bound: 1000.0 };

#[test]
fn k5_sums_of_lookups_are_exact_at_every_length_and_at_the_extremes() {
    let mut terms = vec![0.0; BLOCK_ROWS];
    terms.resize(2 * BLOCK_ROWS, 1.0);
    for parts in (0..80).chain([192, 256, 2048]).map(|fours| fours * PARTS_MULTIPLE) {
        for (entry, code) in [(255, 0), (255, 255), (1, 0x5a), (0, 0xff)] {
            let length = parts * PART_BYTES;
            assert_exact(&vec![entry; length], &vec![code; length], &terms, PLAIN);
        }
    }
}

#[test]
fn a_nan_is_of_interest() {
    let (own, factor) = ([f32::NAN; BLOCK_ROWS], [0.0; BLOCK_ROWS]);
    for table in Kernels::supported() {
        let block = CodeBlock { codes: &[], own: &own, factor: &factor, next: &[] };
        let line = Line { bound: f32::NEG_INFINITY, ..PLAIN };
        assert_eq!(table.estimate(&[], block, line, &mut [0.0; BLOCK_ROWS]), u32::MAX);
    }
}

proptest! {
    #[test]
    fn k5_estimates_have_the_bits_of_their_definition_in_every_table(
        bytes in vec((any::<u8>(), any::<u8>()), 0..9000),
        terms in vec(-4.0_f32..4.0, 2 * BLOCK_ROWS),
        numbers in (0.0_f32..0.1, -9.0_f32..9.0, -9.0_f32..9.0, -99.0_f32..99.0),
    ) {
        let length = bytes.len() / (PARTS_MULTIPLE * PART_BYTES) * (PARTS_MULTIPLE * PART_BYTES);
        let (tables, codes): (Vec<u8>, Vec<u8>) = bytes[..length].iter().copied().unzip();
        let (step, offset, base, bound) = numbers;
        assert_exact(&tables, &codes, &terms, Line { step, offset, base, bound });
    }

    #[test]
    fn k5_tables_are_the_same_everywhere_and_near_to_the_products(
        (parts, width) in prop_oneof![(1_usize..700, 1_usize..4), (1_usize..9, 1_usize..60)],
        scale in -20_i32..20,
        seed in any::<u32>(),
    ) {
        let mut state = u64::from(seed);
        let mut number = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888);
            (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
        };
        let query: Vec<f32> = (0..parts * width).map(|_| number() * 2.0_f32.powi(scale)).collect();
        let book: Vec<f32> = (0..parts * width * PART_BYTES).map(|_| number()).collect();
        let mut oracle = QueryTables::default();
        Kernels::scalar().fill_tables(&query, &book, parts, &mut oracle);
        for table in Kernels::supported() {
            let mut tables = QueryTables::default();
            table.fill_tables(&query, &book, parts, &mut tables);
            prop_assert_eq!(&tables.entries, &oracle.entries);
            prop_assert_eq!(tables.step.to_bits(), oracle.step.to_bits());
            prop_assert_eq!(tables.offset.to_bits(), oracle.offset.to_bits());
        }
        let terms: Vec<f32> = (0..parts * PART_BYTES).map(|_| number().abs()).collect();
        let codes: Vec<u8> = (0..parts).map(|part| best(part, width, (&query, &book, &terms))).collect();
        for table in Kernels::supported() {
            let mut out = vec![99; parts];
            table.encode_parts(&query, &book, &terms, &mut out);
            prop_assert_eq!(&out, &codes, "{}", table.name());
        }
        let entries: Vec<[u8; PART_BYTES]> =
            oracle.entries.iter().flat_map(|quad| quad.0.as_chunks().0).copied().collect();
        prop_assert_eq!(entries.len(), parts.next_multiple_of(PARTS_MULTIPLE));
        let most: u32 = entries.iter().map(|part| u32::from(*part.iter().max().unwrap())).sum();
        prop_assert!(most <= u32::from(super::LOOKUP_SUM_MAX));
        // Any choice of codes: the sum is near to that of the products.
        let (mut exact, mut sum) = (0.0_f64, 0_u32);
        for (part, entries) in entries.iter().take(parts).enumerate() {
            let code = (part * 7) % PART_BYTES;
            sum += u32::from(entries[code]);
            exact += (part * width..(part + 1) * width)
                .map(|place| f64::from(query[place]) * f64::from(book[place * PART_BYTES + code]))
                .sum::<f64>();
        }
        let near = f64::from(sum) * f64::from(oracle.step) + f64::from(oracle.offset);
        let error = 0.51 * f64::from(oracle.step) * parts as f64 + 1e-4 * exact.abs();
        let rounding = 1e-4 * f64::from(oracle.offset).abs();
        prop_assert!((near - exact).abs() <= error + rounding, "{near} is not {exact}");
    }
}

/// The code of a part, one product after the other.
fn best(part: usize, width: usize, (values, book, terms): (&[f32], &[f32], &[f32])) -> u8 {
    let mut best = (f32::NEG_INFINITY, 0);
    for code in 0..16_u8 {
        let mut product = -terms[part * PART_BYTES + usize::from(code)];
        for place in part * width..(part + 1) * width {
            product += values[place] * book[place * PART_BYTES + usize::from(code)];
        }
        if product > best.0 {
            best = (product, code);
        }
    }
    best.1
}

#[test]
fn a_query_of_zeros_has_tables_of_zeros() {
    let mut tables = QueryTables::default();
    crate::kernels().fill_tables(&[0.0; 6], &[1.0; 96], 3, &mut tables);
    assert_eq!(tables.entries, [TableQuad([0; 64])]);
    assert_eq!(tables.step.to_bits(), 0);
}
