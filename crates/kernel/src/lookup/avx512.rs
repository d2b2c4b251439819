//! AVX-512BW: 64 codes looked up in one instruction, of four parts and 16 rows.

use std::arch::x86_64::{
    __m128i, __m256i, __m512, __m512i, _CMP_GE_OQ, _CMP_NGT_UQ, _mm_add_epi16, _mm_storeu_si128,
    _mm_unpackhi_epi16, _mm_unpacklo_epi16, _mm256_add_epi16, _mm256_castsi256_si128,
    _mm256_extracti128_si256, _mm256_set_m128i, _mm512_add_epi16, _mm512_add_ps, _mm512_and_si512,
    _mm512_castsi512_si256, _mm512_cmp_ps_mask, _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32,
    _mm512_cvtss_f32, _mm512_cvttps_epi32, _mm512_cvtusepi32_epi8, _mm512_extracti64x4_epi64,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_max_ps, _mm512_mul_ps, _mm512_permute_ps,
    _mm512_reduce_max_ps, _mm512_reduce_min_ps, _mm512_set1_epi8, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_shuffle_f32x4,
    _mm512_slli_epi16, _mm512_srli_epi16, _mm512_storeu_ps, _mm512_sub_epi16, _mm512_sub_ps,
};

use super::{BLOCK_ROWS, CodeBlock, Line, LookupTable, PART_BYTES, QueryTables, TableQuad, tables};
use crate::prefetch::prefetch_line;

pub(crate) static TABLE: LookupTable = LookupTable { estimate, fill, encode };

/// Bytes in a register.
const LANES: usize = 64;
/// Rows whose sums are in one register.
const HALF: usize = BLOCK_ROWS / 2;

#[target_feature(enable = "avx512f,avx512bw")]
fn fill(query: &[f32], book: &[f32], out: &mut QueryTables) {
    let (rows, _) = out.products.as_chunks_mut::<PART_BYTES>();
    let width = query.len() / rows.len().max(1);
    let (columns, _) = book.as_chunks::<PART_BYTES>();
    let mut spans = tables::Spans::default();
    for (part, row) in rows.iter_mut().enumerate() {
        let columns = &columns[part * width..][..width];
        let mut products = _mm512_setzero_ps();
        for (number, column) in query[part * width..][..width].iter().zip(columns) {
            let product = _mm512_mul_ps(_mm512_set1_ps(*number), load_floats(column));
            products = _mm512_add_ps(products, product);
        }
        let least = _mm512_reduce_min_ps(products);
        spans.add(least, _mm512_reduce_max_ps(products));
        let products = _mm512_sub_ps(products, _mm512_set1_ps(least));
        // SAFETY: the reference covers the sixteen floats written; `storeu` asks for no alignment.
        unsafe { _mm512_storeu_ps(row.as_mut_ptr(), products) };
    }
    let scale = spans.scale(rows.len());
    let entries = out.entries.iter_mut().flat_map(|quad| quad.0.as_chunks_mut::<PART_BYTES>().0);
    for (entries, row) in entries.zip(rows) {
        let scaled = _mm512_mul_ps(load_floats(row), _mm512_set1_ps(scale));
        // Cut off and not to the nearest, as `as` has it.
        let whole = _mm512_cvttps_epi32(_mm512_add_ps(scaled, _mm512_set1_ps(0.5)));
        let bytes = _mm512_cvtusepi32_epi8(whole);
        // SAFETY: the reference covers the 16 bytes written; `storeu` asks for no alignment.
        unsafe { _mm_storeu_si128(entries.as_mut_ptr().cast(), bytes) };
    }
    (out.step, out.offset) = spans.line(scale);
}

#[target_feature(enable = "avx512f,avx512bw")]
fn encode(values: &[f32], book: &[f32], terms: &[f32], out: &mut [u8]) {
    let width = values.len() / out.len().max(1);
    let (columns, _) = book.as_chunks::<PART_BYTES>();
    let (terms, _) = terms.as_chunks::<PART_BYTES>();
    for (part, (code, terms)) in out.iter_mut().zip(terms).enumerate() {
        let mut products = _mm512_sub_ps(_mm512_set1_ps(-0.0), load_floats(terms));
        let columns = &columns[part * width..][..width];
        for (number, column) in values[part * width..][..width].iter().zip(columns) {
            let product = _mm512_mul_ps(_mm512_set1_ps(*number), load_floats(column));
            products = _mm512_add_ps(products, product);
        }
        *code = first_of_most(products);
    }
}

/// As `tables::first_of_most` has it, halves in the same order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn first_of_most(products: __m512) -> u8 {
    let quarters = _mm512_shuffle_f32x4::<0b11_10_11_10>(products, products);
    let most = _mm512_max_ps(products, quarters);
    let most = _mm512_max_ps(most, _mm512_shuffle_f32x4::<0b01_01_01_01>(most, most));
    let most = _mm512_max_ps(most, _mm512_permute_ps::<0b11_10_11_10>(most));
    let most = _mm512_max_ps(most, _mm512_permute_ps::<0b01_01_01_01>(most));
    let most = _mm512_set1_ps(_mm512_cvtss_f32(most));
    let found = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(products, most);
    // None is found where there is no number: the last then.
    (u32::from(found) | 1 << (PART_BYTES - 1)).trailing_zeros().to_le_bytes()[0]
}

#[target_feature(enable = "avx512f,avx512bw")]
fn estimate(
    tables: &[TableQuad],
    block: CodeBlock<'_>,
    line: Line,
    out: &mut [f32; BLOCK_ROWS],
) -> u32 {
    let mask = _mm512_set1_epi8(15);
    let zero = _mm512_setzero_si512();
    // Sums of pairs of bytes as 16 bits, and of their upper bytes alone.
    let (mut low, mut low_odd, mut high, mut high_odd) = (zero, zero, zero, zero);
    let (codes, _) = block.codes.as_chunks::<LANES>();
    for (place, (table, codes)) in tables.iter().zip(codes).enumerate() {
        prefetch_line(block.next, place * LANES);
        let (table, codes) = (load(&table.0), load(codes));
        let entries = _mm512_shuffle_epi8(table, _mm512_and_si512(codes, mask));
        low = _mm512_add_epi16(low, entries);
        low_odd = _mm512_add_epi16(low_odd, _mm512_srli_epi16::<8>(entries));
        let codes = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), mask);
        let entries = _mm512_shuffle_epi8(table, codes);
        high = _mm512_add_epi16(high, entries);
        high_odd = _mm512_add_epi16(high_odd, _mm512_srli_epi16::<8>(entries));
    }
    let sums = [rows(low, low_odd), rows(high, high_odd)];
    let (own, _) = block.own.as_chunks::<HALF>();
    let (factor, _) = block.factor.as_chunks::<HALF>();
    let (out, _) = out.as_chunks_mut::<HALF>();
    let mut interesting = 0;
    for (half, sums) in sums.into_iter().enumerate() {
        let sums = _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(sums));
        let product = _mm512_mul_ps(sums, _mm512_set1_ps(line.step));
        let product = _mm512_add_ps(product, _mm512_set1_ps(line.offset));
        let product = _mm512_mul_ps(load_floats(&factor[half]), product);
        let own = _mm512_add_ps(load_floats(&own[half]), _mm512_set1_ps(line.base));
        let estimates = _mm512_add_ps(own, product);
        let kept = _mm512_cmp_ps_mask::<_CMP_NGT_UQ>(estimates, _mm512_set1_ps(line.bound));
        interesting |= u32::from(kept) << (half * HALF);
        // SAFETY: the reference covers the sixteen floats written; `storeu` asks for no alignment.
        unsafe { _mm512_storeu_ps(out[half].as_mut_ptr(), estimates) };
    }
    interesting
}

/// The sums of 16 rows, of what each quarter of the registers has of them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn rows(all: __m512i, odd: __m512i) -> __m256i {
    let even = fold(_mm512_sub_epi16(all, _mm512_slli_epi16::<8>(odd)));
    let odd = fold(odd);
    _mm256_set_m128i(_mm_unpackhi_epi16(even, odd), _mm_unpacklo_epi16(even, odd))
}

/// The sum of the four quarters.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn fold(sums: __m512i) -> __m128i {
    let halves =
        _mm256_add_epi16(_mm512_castsi512_si256(sums), _mm512_extracti64x4_epi64::<1>(sums));
    _mm_add_epi16(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load(lanes: &[u8; LANES]) -> __m512i {
    // SAFETY: the reference covers the 64 bytes read; `loadu` asks for no alignment.
    unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_floats(lanes: &[f32; HALF]) -> __m512 {
    // SAFETY: the reference covers the sixteen floats read; `loadu` asks for no alignment.
    unsafe { _mm512_loadu_ps(lanes.as_ptr()) }
}
