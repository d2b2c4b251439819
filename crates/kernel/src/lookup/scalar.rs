//! The oracle: plain Rust.

use super::{BLOCK_ROWS, CodeBlock, Line, LookupTable, PART_BYTES, TableQuad, tables};

pub(crate) static TABLE: LookupTable = LookupTable {
    estimate,
    fill: |query, book, out| tables::fill(query, book, out),
    encode: |values, book, terms, out| tables::encode(values, book, terms, out),
};

fn estimate(
    tables: &[TableQuad],
    block: CodeBlock<'_>,
    line: Line,
    out: &mut [f32; BLOCK_ROWS],
) -> u32 {
    let mut sums = [0_u16; BLOCK_ROWS];
    let tables = tables.iter().flat_map(|table| table.0.as_chunks::<PART_BYTES>().0);
    let (parts, _) = block.codes.as_chunks::<PART_BYTES>();
    let (low, high) = sums.split_at_mut(PART_BYTES);
    for (table, codes) in tables.zip(parts) {
        for ((low, high), code) in low.iter_mut().zip(high.iter_mut()).zip(codes) {
            *low = low.wrapping_add(u16::from(table[usize::from(code & 15)]));
            *high = high.wrapping_add(u16::from(table[usize::from(code >> 4)]));
        }
    }
    finish(&sums, block, line, out)
}

/// Estimates of sums.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled anew inside each instruction set's function")]
pub(super) fn finish(
    sums: &[u16; BLOCK_ROWS],
    block: CodeBlock<'_>,
    line: Line,
    out: &mut [f32; BLOCK_ROWS],
) -> u32 {
    let mut interesting = 0;
    for (row, ((out, sum), (own, factor))) in
        out.iter_mut().zip(sums).zip(block.own.iter().zip(block.factor)).enumerate()
    {
        *out = (own + line.base) + factor * (f32::from(*sum) * line.step + line.offset);
        let beyond = *out > line.bound;
        interesting |= u32::from(!beyond) << row;
    }
    interesting
}
