//! AVX2: eight rows in a register. Two products of half a byte and one of 8 bits, and of both halves,
//! fit in 16 bits: no sum saturates.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi16, _mm256_add_epi32, _mm256_and_si256, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_setzero_si256, _mm256_srli_epi16, _mm256_storeu_si256,
};

use super::{BLOCK_ROWS, GROUP_BYTES, HALVES_GROUP_BYTES, interesting};
use crate::{CodeBlock, Line, prefetch::prefetch_line};

/// Bytes in a register.
const LANES: usize = 32;
/// Rows whose sums are in one register.
const ROWS: usize = 8;
/// Bytes in a line of the cache.
const LINE_BYTES: usize = 64;

#[target_feature(enable = "avx2")]
pub(crate) fn dot_block(
    query: &[i8],
    block: CodeBlock<'_>,
    line: Line,
    sums: &mut [i32; BLOCK_ROWS],
) -> u32 {
    let (low, high) = query.split_at(query.len() / 2);
    let (low, _) = low.as_chunks::<HALVES_GROUP_BYTES>();
    let (high, _) = high.as_chunks::<HALVES_GROUP_BYTES>();
    let (groups, _) = block.codes.as_chunks::<GROUP_BYTES>();
    let (mask, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    let mut totals = [_mm256_setzero_si256(); BLOCK_ROWS / ROWS];
    for (place, (group, (low, high))) in groups.iter().zip(low.iter().zip(high)).enumerate() {
        prefetch_line(block.next, place * GROUP_BYTES);
        prefetch_line(block.next, place * GROUP_BYTES + LINE_BYTES);
        let (low, high) = (every_row(*low), every_row(*high));
        let (registers, _) = group.as_chunks::<LANES>();
        for (total, codes) in totals.iter_mut().zip(registers) {
            let codes = load(codes);
            let low = _mm256_maddubs_epi16(_mm256_and_si256(codes, mask), low);
            let codes = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), mask);
            let high = _mm256_maddubs_epi16(codes, high);
            let both = _mm256_madd_epi16(_mm256_add_epi16(low, high), ones);
            *total = _mm256_add_epi32(*total, both);
        }
    }
    let (rows, _) = sums.as_chunks_mut::<ROWS>();
    for (rows, total) in rows.iter_mut().zip(totals) {
        // SAFETY: the reference covers the 32 bytes written; `storeu` asks for no alignment.
        unsafe { _mm256_storeu_si256(rows.as_mut_ptr().cast(), total) };
    }
    interesting(sums, block, line)
}

/// Four numbers of the query, for each row.
#[inline]
#[target_feature(enable = "avx2")]
fn every_row(numbers: [i8; HALVES_GROUP_BYTES]) -> __m256i {
    _mm256_set1_epi32(i32::from_le_bytes(numbers.map(i8::cast_unsigned)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(lanes: &[u8; LANES]) -> __m256i {
    // SAFETY: the reference covers the 32 bytes read; `loadu` asks for no alignment.
    unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
}
