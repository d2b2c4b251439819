//! AVX2: 16 products at a time, of bytes widened to 16 bits, so that no sum saturates.

use std::arch::x86_64::{
    __m256i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_loadu_si128, _mm_shuffle_epi32,
    _mm256_add_epi32, _mm256_and_si256, _mm256_castsi256_si128, _mm256_cmpeq_epi8,
    _mm256_cvtepi8_epi16, _mm256_cvtepu8_epi16, _mm256_extracti128_si256, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_setr_epi8, _mm256_setzero_si256,
    _mm256_shuffle_epi8, _mm256_srli_epi16, _mm256_sub_epi16,
};

use super::{CodeTable, scalar};

pub(crate) static TABLE: CodeTable = CodeTable { bytes, four_bytes, nibbles, bits, pair };

/// Bytes that fill a register once widened.
const LANES: usize = 16;

#[target_feature(enable = "avx2")]
fn bytes(codes: &[u8], query: &[i8]) -> i32 {
    let (code_registers, code_tail) = codes.as_chunks::<LANES>();
    let (query_registers, query_tail) = query.as_chunks::<LANES>();
    let mut sum = _mm256_setzero_si256();
    for (codes, query) in code_registers.iter().zip(query_registers) {
        let products = _mm256_madd_epi16(widen(codes), widen_signed(query));
        sum = _mm256_add_epi32(sum, products);
    }
    reduce(sum) + scalar::bytes(code_tail, query_tail)
}

#[target_feature(enable = "avx2")]
fn four_bytes([a, b, c, d]: [&[u8]; 4], query: &[i8]) -> [i32; 4] {
    [bytes(a, query), bytes(b, query), bytes(c, query), bytes(d, query)]
}

#[target_feature(enable = "avx2")]
fn nibbles(codes: &[u8], query: &[i8]) -> i32 {
    let (low_query, high_query) = query.split_at(codes.len());
    let (code_registers, code_tail) = codes.as_chunks::<LANES>();
    let (low_registers, low_tail) = low_query.as_chunks::<LANES>();
    let (high_registers, high_tail) = high_query.as_chunks::<LANES>();
    let mask = _mm256_set1_epi16(15);
    let mut sums = [_mm256_setzero_si256(); 2];
    for ((codes, low), high) in code_registers.iter().zip(low_registers).zip(high_registers) {
        let codes = widen(codes);
        let low_codes = _mm256_and_si256(codes, mask);
        let high_codes = _mm256_srli_epi16::<4>(codes);
        sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(low_codes, widen_signed(low)));
        sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(high_codes, widen_signed(high)));
    }
    let tail: i32 = code_tail
        .iter()
        .zip(low_tail.iter().zip(high_tail))
        .map(|(code, (low, high))| {
            i32::from(code & 15) * i32::from(*low) + i32::from(code >> 4) * i32::from(*high)
        })
        .sum();
    reduce(_mm256_add_epi32(sums[0], sums[1])) + tail
}

/// Each bit is spread over the byte of its number, which stays where it is set.
#[target_feature(enable = "avx2")]
fn bits(codes: &[u8], query: &[i8]) -> i32 {
    let (code_words, code_tail) = codes.as_chunks::<4>();
    let (query_registers, query_tail) = query.as_chunks::<32>();
    #[rustfmt::skip]
    let byte_of_lane = _mm256_setr_epi8(
        0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,
        2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3,
    );
    let bit_of_lane = _mm256_set1_epi64x(i64::from_le_bytes([1, 2, 4, 8, 16, 32, 64, 128]));
    let (ones, wide_ones) = (_mm256_set1_epi8(1), _mm256_set1_epi16(1));
    let mut sum = _mm256_setzero_si256();
    for (word, query) in code_words.iter().zip(query_registers) {
        let bytes = _mm256_set1_epi32(i32::from_le_bytes(*word));
        let bytes = _mm256_shuffle_epi8(bytes, byte_of_lane);
        let set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit_of_lane), bit_of_lane);
        let chosen = _mm256_and_si256(load_signed(query), set);
        // Two numbers of a byte fit in 16 bits.
        let pairs = _mm256_maddubs_epi16(ones, chosen);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, wide_ones));
    }
    reduce(sum) + scalar::bits(code_tail, query_tail)
}

#[target_feature(enable = "avx2")]
fn pair(a: &[u8], b: &[u8]) -> i32 {
    let (a_registers, a_tail) = a.as_chunks::<LANES>();
    let (b_registers, b_tail) = b.as_chunks::<LANES>();
    let zero = _mm256_set1_epi16(128);
    let mut sum = _mm256_setzero_si256();
    for (a, b) in a_registers.iter().zip(b_registers) {
        let (a, b) = (_mm256_sub_epi16(widen(a), zero), _mm256_sub_epi16(widen(b), zero));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
    }
    reduce(sum) + scalar::pair(a_tail, b_tail)
}

#[inline]
#[target_feature(enable = "avx2")]
fn widen(lanes: &[u8; LANES]) -> __m256i {
    // SAFETY: the reference covers the 16 bytes read; `loadu` asks for no alignment.
    _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(lanes.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2")]
fn widen_signed(lanes: &[i8; LANES]) -> __m256i {
    // SAFETY: the reference covers the 16 bytes read; `loadu` asks for no alignment.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(lanes.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_signed(lanes: &[i8; 32]) -> __m256i {
    // SAFETY: the reference covers the 32 bytes read; `loadu` asks for no alignment.
    unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn reduce(sum: __m256i) -> i32 {
    let quad = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let pair = _mm_add_epi32(quad, _mm_shuffle_epi32::<0b01_00_11_10>(quad));
    _mm_cvtsi128_si32(_mm_add_epi32(pair, _mm_shuffle_epi32::<0b10_11_00_01>(pair)))
}
