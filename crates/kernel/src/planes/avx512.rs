//! AVX-512 with VNNI: 32 products of bytes in one instruction, whatever bits of a byte they are of.
//!
//! Registers of 256 bits, since 96 bytes of codes are three of them: filling half of a larger one by
//! a mask takes longer than the product.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_add_epi32, _mm_cvtsi32_si128, _mm_cvtsi128_si32, _mm_shuffle_epi32,
    _mm256_add_epi32, _mm256_and_si256, _mm256_castsi256_si128, _mm256_dpbusd_epi32,
    _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_set1_epi8, _mm256_setzero_si256,
    _mm256_srl_epi16,
};

use super::PlaneTable;

pub(crate) static TABLE: PlaneTable = PlaneTable { quarters, eighths };

/// Bytes in a register.
const LANES: usize = 32;

#[target_feature(enable = "avx512f,avx512vl,avx512vnni")]
fn quarters(codes: &[u8], query: &[i8]) -> i32 {
    product::<4>(codes, query)
}

#[target_feature(enable = "avx512f,avx512vl,avx512vnni")]
fn eighths(codes: &[u8], query: &[i8]) -> i32 {
    product::<8>(codes, query)
}

/// Each register of codes is read once, and used for every plane.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512vnni")]
fn product<const PLANES: usize>(codes: &[u8], query: &[i8]) -> i32 {
    let (bits, bytes) = (8 / PLANES, codes.len());
    assert_eq!(query.len(), PLANES * bytes, "a number for each code");
    let lowest = _mm256_set1_epi8((u8::MAX >> (8 - bits)).cast_signed());
    let mut sums = [_mm256_setzero_si256(); 4];
    let (registers, tail) = codes.as_chunks::<LANES>();
    for (part, codes) in registers.iter().enumerate() {
        let codes = load(codes);
        for plane in 0..PLANES {
            let first = plane * bytes + part * LANES;
            // SAFETY: by the assertion above a plane has `bytes` numbers, and this is a register of
            // its codes.
            let numbers = unsafe { query.get_unchecked(first..first + LANES) };
            let codes = _mm256_and_si256(_mm256_srl_epi16(codes, shift(plane * bits)), lowest);
            sums[plane % 4] = _mm256_dpbusd_epi32(sums[plane % 4], codes, load_numbers(numbers));
        }
    }
    if !tail.is_empty() {
        // Zeros after the last, which count for nothing.
        let mut room = [0; LANES];
        room[..tail.len()].copy_from_slice(tail);
        let codes = load(&room);
        for plane in 0..PLANES {
            let mut room = [0; LANES];
            let first = plane * bytes + registers.len() * LANES;
            room[..tail.len()].copy_from_slice(&query[first..][..tail.len()]);
            let codes = _mm256_and_si256(_mm256_srl_epi16(codes, shift(plane * bits)), lowest);
            sums[plane % 4] = _mm256_dpbusd_epi32(sums[plane % 4], codes, load_numbers(&room));
        }
    }
    let [a, b, c, d] = sums;
    reduce(_mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d)))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn shift(bits: usize) -> __m128i {
    _mm_cvtsi32_si128(i32::try_from(bits).unwrap_or(0))
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(lanes: &[u8; LANES]) -> __m256i {
    // SAFETY: the reference covers the 32 bytes read; `loadu` asks for no alignment.
    unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
}

/// The first of them, as many as a register holds.
#[inline]
#[target_feature(enable = "avx2")]
fn load_numbers(lanes: &[i8]) -> __m256i {
    assert!(lanes.len() >= LANES, "a register of numbers");
    // SAFETY: there are 32 bytes by the assertion; `loadu` asks for no alignment.
    unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn reduce(sum: __m256i) -> i32 {
    let quad = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let pair = _mm_add_epi32(quad, _mm_shuffle_epi32::<0b01_00_11_10>(quad));
    _mm_cvtsi128_si32(_mm_add_epi32(pair, _mm_shuffle_epi32::<0b10_11_00_01>(pair)))
}
