//! NEON: 16 codes looked up in one instruction, of one part.

use std::arch::aarch64::{
    uint8x16_t, uint16x8_t, vaddw_high_u8, vaddw_u8, vandq_u8, vdupq_n_u8, vdupq_n_u16,
    vget_low_u8, vld1q_u8, vqtbl1q_u8, vshrq_n_u8, vst1q_u16,
};

use super::{
    BLOCK_ROWS, CodeBlock, Line, LookupTable, PART_BYTES, QueryTables, TableQuad, scalar, tables,
};

pub(crate) static TABLE: LookupTable = LookupTable { estimate, fill, encode };

/// Sums in a register.
const QUARTER: usize = BLOCK_ROWS / 4;

#[target_feature(enable = "neon")]
fn fill(query: &[f32], book: &[f32], out: &mut QueryTables) {
    tables::fill(query, book, out);
}

#[target_feature(enable = "neon")]
fn encode(values: &[f32], book: &[f32], terms: &[f32], out: &mut [u8]) {
    tables::encode(values, book, terms, out);
}

#[target_feature(enable = "neon")]
fn estimate(
    tables: &[TableQuad],
    block: CodeBlock<'_>,
    line: Line,
    out: &mut [f32; BLOCK_ROWS],
) -> u32 {
    let mut registers = [vdupq_n_u16(0); 4];
    let tables = tables.iter().flat_map(|table| table.0.as_chunks::<PART_BYTES>().0);
    let (codes, _) = block.codes.as_chunks::<PART_BYTES>();
    for (table, codes) in tables.zip(codes) {
        let (table, codes) = (load(table), load(codes));
        let low = vqtbl1q_u8(table, vandq_u8(codes, vdupq_n_u8(15)));
        let high = vqtbl1q_u8(table, vshrq_n_u8::<4>(codes));
        let [first, second, third, fourth] = registers;
        registers = [
            vaddw_u8(first, vget_low_u8(low)),
            vaddw_high_u8(second, low),
            vaddw_u8(third, vget_low_u8(high)),
            vaddw_high_u8(fourth, high),
        ];
    }
    let mut sums = [0; BLOCK_ROWS];
    let (quarters, _) = sums.as_chunks_mut::<QUARTER>();
    for (quarter, register) in quarters.iter_mut().zip(registers) {
        store(quarter, register);
    }
    scalar::finish(&sums, block, line, out)
}

#[inline]
#[target_feature(enable = "neon")]
fn load(lanes: &[u8; PART_BYTES]) -> uint8x16_t {
    // SAFETY: the reference covers the 16 bytes read.
    unsafe { vld1q_u8(lanes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn store(out: &mut [u16; QUARTER], sums: uint16x8_t) {
    // SAFETY: the reference covers the eight numbers written.
    unsafe { vst1q_u16(out.as_mut_ptr(), sums) };
}
