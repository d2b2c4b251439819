//! The oracle: plain Rust.

use super::{BLOCK_ROWS, GROUP_BYTES, HALVES_GROUP_BYTES, interesting};
use crate::{CodeBlock, Line};

pub(crate) fn dot_block(
    query: &[i8],
    block: CodeBlock<'_>,
    line: Line,
    sums: &mut [i32; BLOCK_ROWS],
) -> u32 {
    sum(query, block.codes, sums);
    interesting(sums, block, line)
}

/// Adds up the products in plain loops.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled anew inside each instruction set's function")]
pub(super) fn sum(query: &[i8], codes: &[u8], sums: &mut [i32; BLOCK_ROWS]) {
    let (low, high) = query.split_at(query.len() / 2);
    let (low, _) = low.as_chunks::<HALVES_GROUP_BYTES>();
    let (high, _) = high.as_chunks::<HALVES_GROUP_BYTES>();
    let (groups, _) = codes.as_chunks::<GROUP_BYTES>();
    *sums = [0; BLOCK_ROWS];
    for (group, (low, high)) in groups.iter().zip(low.iter().zip(high)) {
        let (rows, _) = group.as_chunks::<HALVES_GROUP_BYTES>();
        for (sum, row) in sums.iter_mut().zip(rows) {
            for (code, (low, high)) in row.iter().zip(low.iter().zip(high)) {
                let product = i16::from(code & 15) * i16::from(*low);
                *sum += i32::from(product + i16::from(code >> 4) * i16::from(*high));
            }
        }
    }
}
