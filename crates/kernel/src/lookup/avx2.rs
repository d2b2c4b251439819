//! AVX2: 32 codes looked up in one instruction, of two parts and 16 rows.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_add_epi16, _mm_storeu_si128, _mm_unpackhi_epi16, _mm_unpacklo_epi16,
    _mm256_add_epi16, _mm256_and_si256, _mm256_castsi256_si128, _mm256_extracti128_si256,
    _mm256_loadu_si256, _mm256_set1_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8,
    _mm256_slli_epi16, _mm256_srli_epi16, _mm256_sub_epi16,
};

use super::{BLOCK_ROWS, CodeBlock, Line, LookupTable, QueryTables, TableQuad, scalar, tables};
use crate::prefetch::prefetch_line;

pub(crate) static TABLE: LookupTable = LookupTable { estimate, fill, encode };

/// Bytes in a register.
const LANES: usize = 32;
/// Sums in half a register.
const QUARTER: usize = BLOCK_ROWS / 4;

#[target_feature(enable = "avx2")]
fn fill(query: &[f32], book: &[f32], out: &mut QueryTables) {
    tables::fill(query, book, out);
}

#[target_feature(enable = "avx2")]
fn encode(values: &[f32], book: &[f32], terms: &[f32], out: &mut [u8]) {
    tables::encode(values, book, terms, out);
}

#[target_feature(enable = "avx2")]
fn estimate(
    tables: &[TableQuad],
    block: CodeBlock<'_>,
    line: Line,
    out: &mut [f32; BLOCK_ROWS],
) -> u32 {
    let mask = _mm256_set1_epi8(15);
    let zero = _mm256_setzero_si256();
    // Sums of pairs of bytes as 16 bits, and of their upper bytes alone.
    let (mut low, mut low_odd, mut high, mut high_odd) = (zero, zero, zero, zero);
    let tables = tables.iter().flat_map(|table| table.0.as_chunks::<LANES>().0);
    let (codes, _) = block.codes.as_chunks::<LANES>();
    for (place, (table, codes)) in tables.zip(codes).enumerate() {
        prefetch_line(block.next, place * LANES);
        let (table, codes) = (load(table), load(codes));
        let entries = _mm256_shuffle_epi8(table, _mm256_and_si256(codes, mask));
        low = _mm256_add_epi16(low, entries);
        low_odd = _mm256_add_epi16(low_odd, _mm256_srli_epi16::<8>(entries));
        let codes = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), mask);
        let entries = _mm256_shuffle_epi8(table, codes);
        high = _mm256_add_epi16(high, entries);
        high_odd = _mm256_add_epi16(high_odd, _mm256_srli_epi16::<8>(entries));
    }
    let mut sums = [0; BLOCK_ROWS];
    let (quarters, _) = sums.as_chunks_mut::<QUARTER>();
    let [first, second] = rows(low, low_odd);
    let [third, fourth] = rows(high, high_odd);
    for (quarter, sums) in quarters.iter_mut().zip([first, second, third, fourth]) {
        // SAFETY: the reference covers the 16 bytes written; `storeu` asks for no alignment.
        unsafe { _mm_storeu_si128(quarter.as_mut_ptr().cast(), sums) };
    }
    scalar::finish(&sums, block, line, out)
}

/// The sums of 16 rows, of what both halves of the registers have of them.
#[inline]
#[target_feature(enable = "avx2")]
fn rows(all: __m256i, odd: __m256i) -> [__m128i; 2] {
    let even = fold(_mm256_sub_epi16(all, _mm256_slli_epi16::<8>(odd)));
    let odd = fold(odd);
    [_mm_unpacklo_epi16(even, odd), _mm_unpackhi_epi16(even, odd)]
}

#[inline]
#[target_feature(enable = "avx2")]
fn fold(sums: __m256i) -> __m128i {
    _mm_add_epi16(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums))
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(lanes: &[u8; LANES]) -> __m256i {
    // SAFETY: the reference covers the 32 bytes read; `loadu` asks for no alignment.
    unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
}
