//! NEON: 8 products at a time, of bytes widened to 16 bits.

use std::arch::aarch64::{
    int16x8_t, int32x4_t, uint8x8_t, vaddq_s32, vaddvq_s32, vand_u8, vandq_s8, vcombine_u8,
    vcreate_u8, vdup_n_u8, vdupq_n_s32, vget_high_s16, vget_low_s16, vld1_s8, vld1_u8, vld1q_s8,
    vmlal_s16, vmovl_s8, vmovl_u8, vpadalq_s16, vpaddlq_s8, vreinterpretq_s8_u8,
    vreinterpretq_s16_u16, vshr_n_u8, vsubl_u8, vtstq_u8,
};

use super::{CodeTable, scalar};

pub(crate) static TABLE: CodeTable = CodeTable { bytes, four_bytes, nibbles, bits, pair };

/// Bytes that fill a register once widened.
const LANES: usize = 8;

#[target_feature(enable = "neon")]
fn bytes(codes: &[u8], query: &[i8]) -> i32 {
    let (code_registers, code_tail) = codes.as_chunks::<LANES>();
    let (query_registers, query_tail) = query.as_chunks::<LANES>();
    let mut sum = vdupq_n_s32(0);
    for (codes, query) in code_registers.iter().zip(query_registers) {
        sum = add_products(sum, load(codes), load_signed(query));
    }
    vaddvq_s32(sum) + scalar::bytes(code_tail, query_tail)
}

#[target_feature(enable = "neon")]
fn four_bytes([a, b, c, d]: [&[u8]; 4], query: &[i8]) -> [i32; 4] {
    [bytes(a, query), bytes(b, query), bytes(c, query), bytes(d, query)]
}

#[target_feature(enable = "neon")]
fn nibbles(codes: &[u8], query: &[i8]) -> i32 {
    let (low_query, high_query) = query.split_at(codes.len());
    let (code_registers, code_tail) = codes.as_chunks::<LANES>();
    let (low_registers, low_tail) = low_query.as_chunks::<LANES>();
    let (high_registers, high_tail) = high_query.as_chunks::<LANES>();
    let mut sums = [vdupq_n_s32(0); 2];
    for ((codes, low), high) in code_registers.iter().zip(low_registers).zip(high_registers) {
        let codes = load(codes);
        sums[0] = add_products(sums[0], vand_u8(codes, vdup_n_u8(15)), load_signed(low));
        sums[1] = add_products(sums[1], vshr_n_u8::<4>(codes), load_signed(high));
    }
    let tail: i32 = code_tail
        .iter()
        .zip(low_tail.iter().zip(high_tail))
        .map(|(code, (low, high))| {
            i32::from(code & 15) * i32::from(*low) + i32::from(code >> 4) * i32::from(*high)
        })
        .sum();
    vaddvq_s32(vaddq_s32(sums[0], sums[1])) + tail
}

/// Each bit is spread over the byte of its number, which stays where it is set.
#[target_feature(enable = "neon")]
fn bits(codes: &[u8], query: &[i8]) -> i32 {
    let (code_pairs, code_tail) = codes.as_chunks::<2>();
    let (query_registers, query_tail) = query.as_chunks::<16>();
    let eight = vcreate_u8(u64::from_le_bytes([1, 2, 4, 8, 16, 32, 64, 128]));
    let bit_of_lane = vcombine_u8(eight, eight);
    let mut sum = vdupq_n_s32(0);
    for ([low, high], query) in code_pairs.iter().zip(query_registers) {
        let bytes = vcombine_u8(vdup_n_u8(*low), vdup_n_u8(*high));
        let set = vreinterpretq_s8_u8(vtstq_u8(bytes, bit_of_lane));
        // SAFETY: the reference covers the 16 bytes read.
        let query = unsafe { vld1q_s8(query.as_ptr()) };
        sum = vpadalq_s16(sum, vpaddlq_s8(vandq_s8(query, set)));
    }
    vaddvq_s32(sum) + scalar::bits(code_tail, query_tail)
}

#[target_feature(enable = "neon")]
fn pair(a: &[u8], b: &[u8]) -> i32 {
    let (a_registers, a_tail) = a.as_chunks::<LANES>();
    let (b_registers, b_tail) = b.as_chunks::<LANES>();
    let mut sum = vdupq_n_s32(0);
    for (a, b) in a_registers.iter().zip(b_registers) {
        let b = vreinterpretq_s16_u16(vsubl_u8(load(b), vdup_n_u8(128)));
        let a = vreinterpretq_s16_u16(vsubl_u8(load(a), vdup_n_u8(128)));
        sum = vmlal_s16(sum, vget_low_s16(a), vget_low_s16(b));
        sum = vmlal_s16(sum, vget_high_s16(a), vget_high_s16(b));
    }
    vaddvq_s32(sum) + scalar::pair(a_tail, b_tail)
}

#[inline]
#[target_feature(enable = "neon")]
fn add_products(sum: int32x4_t, codes: uint8x8_t, query: int16x8_t) -> int32x4_t {
    let codes = vreinterpretq_s16_u16(vmovl_u8(codes));
    let sum = vmlal_s16(sum, vget_low_s16(codes), vget_low_s16(query));
    vmlal_s16(sum, vget_high_s16(codes), vget_high_s16(query))
}

#[inline]
#[target_feature(enable = "neon")]
fn load(lanes: &[u8; LANES]) -> uint8x8_t {
    // SAFETY: the reference covers the eight bytes read.
    unsafe { vld1_u8(lanes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn load_signed(lanes: &[i8; LANES]) -> int16x8_t {
    // SAFETY: the reference covers the eight bytes read.
    vmovl_s8(unsafe { vld1_s8(lanes.as_ptr()) })
}
