//! AVX-512 with VNNI: 16 rows in a register, four products of each in one instruction.

use std::arch::x86_64::{
    __m512, __m512i, _CMP_NGT_UQ, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512,
    _mm512_cmp_ps_mask, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_si512, _mm512_srli_epi16, _mm512_storeu_si512,
};

use super::{BLOCK_ROWS, GROUP_BYTES, HALVES_GROUP_BYTES};
use crate::{CodeBlock, Line, prefetch::prefetch_line};

/// Bytes in a register, and in a line of the cache.
const LANES: usize = 64;
/// Rows whose sums are in one register.
const ROWS: usize = 16;

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
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
    let mask = _mm512_set1_epi8(15);
    let mut totals = [[_mm512_setzero_si512(); 2]; BLOCK_ROWS / ROWS];
    for (place, (group, (low, high))) in groups.iter().zip(low.iter().zip(high)).enumerate() {
        prefetch_line(block.next, place * GROUP_BYTES);
        prefetch_line(block.next, place * GROUP_BYTES + LANES);
        let (low, high) = (every_row(*low), every_row(*high));
        let (registers, _) = group.as_chunks::<LANES>();
        for (total, codes) in totals.iter_mut().zip(registers) {
            let codes = load(codes);
            total[0] = _mm512_dpbusd_epi32(total[0], _mm512_and_si512(codes, mask), low);
            let codes = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), mask);
            total[1] = _mm512_dpbusd_epi32(total[1], codes, high);
        }
    }
    let (sums, _) = sums.as_chunks_mut::<ROWS>();
    let (own, _) = block.own.as_chunks::<ROWS>();
    let (factor, _) = block.factor.as_chunks::<ROWS>();
    let mut interesting = 0;
    for (half, (sums, [low, high])) in sums.iter_mut().zip(totals).enumerate() {
        let total = _mm512_add_epi32(low, high);
        // SAFETY: the reference covers the 64 bytes written; `storeu` asks for no alignment.
        unsafe { _mm512_storeu_si512(sums.as_mut_ptr().cast(), total) };
        let product = _mm512_mul_ps(_mm512_cvtepi32_ps(total), _mm512_set1_ps(line.step));
        let product = _mm512_add_ps(product, _mm512_set1_ps(line.offset));
        let product = _mm512_mul_ps(load_floats(&factor[half]), product);
        let own = _mm512_add_ps(load_floats(&own[half]), _mm512_set1_ps(line.base));
        let estimates = _mm512_add_ps(own, product);
        let kept = _mm512_cmp_ps_mask::<_CMP_NGT_UQ>(estimates, _mm512_set1_ps(line.bound));
        interesting |= u32::from(kept) << (half * ROWS);
    }
    interesting
}

/// Four numbers of the query, for each row.
#[inline]
#[target_feature(enable = "avx512f")]
fn every_row(numbers: [i8; HALVES_GROUP_BYTES]) -> __m512i {
    _mm512_set1_epi32(i32::from_le_bytes(numbers.map(i8::cast_unsigned)))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(lanes: &[u8; LANES]) -> __m512i {
    // SAFETY: the reference covers the 64 bytes read; `loadu` asks for no alignment.
    unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_floats(lanes: &[f32; ROWS]) -> __m512 {
    // SAFETY: the reference covers the sixteen floats read; `loadu` asks for no alignment.
    unsafe { _mm512_loadu_ps(lanes.as_ptr()) }
}
