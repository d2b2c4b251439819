//! AVX-512 with VNNI: 64 products of bytes in one instruction, summed in groups of four.

use std::arch::x86_64::{
    __m512i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_extract_epi32, _mm256_add_epi32,
    _mm256_castsi256_si128, _mm256_extracti128_si256, _mm512_add_epi32, _mm512_and_si512,
    _mm512_castsi512_si256, _mm512_dpbusd_epi32, _mm512_extracti64x4_epi64, _mm512_loadu_si512,
    _mm512_maskz_loadu_epi8, _mm512_maskz_mov_epi8, _mm512_reduce_add_epi32, _mm512_set1_epi8,
    _mm512_setzero_si512, _mm512_srli_epi16, _mm512_sub_epi32, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64, _mm512_xor_si512,
};

use super::{CodeTable, scalar};

pub(crate) static TABLE: CodeTable = CodeTable { bytes, four_bytes, nibbles, bits, pair };

/// Bytes in a register.
const LANES: usize = 64;

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn bytes(codes: &[u8], query: &[i8]) -> i32 {
    let (code_registers, code_tail) = codes.as_chunks::<LANES>();
    let (query_registers, query_tail) = query.as_chunks::<LANES>();
    let mut sums = [_mm512_setzero_si512(); 2];
    let (code_pairs, code_rest) = code_registers.as_chunks::<2>();
    let (query_pairs, query_rest) = query_registers.as_chunks::<2>();
    for (codes, query) in code_pairs.iter().zip(query_pairs) {
        sums[0] = _mm512_dpbusd_epi32(sums[0], load(&codes[0]), load_signed(&query[0]));
        sums[1] = _mm512_dpbusd_epi32(sums[1], load(&codes[1]), load_signed(&query[1]));
    }
    for (codes, query) in code_rest.iter().zip(query_rest) {
        sums[0] = _mm512_dpbusd_epi32(sums[0], load(codes), load_signed(query));
    }
    if !code_tail.is_empty() {
        sums[1] = _mm512_dpbusd_epi32(sums[1], load_tail(code_tail), load_signed_tail(query_tail));
    }
    _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1]))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn four_bytes(codes: [&[u8]; 4], query: &[i8]) -> [i32; 4] {
    let (query_registers, query_tail) = query.as_chunks::<LANES>();
    let [a, b, c, d] = codes.map(|codes| codes.as_chunks::<LANES>());
    let mut sums = [_mm512_setzero_si512(); 4];
    let rows = a.0.iter().zip(b.0).zip(c.0.iter().zip(d.0));
    for (query, ((a, b), (c, d))) in query_registers.iter().zip(rows) {
        let query = load_signed(query);
        sums[0] = _mm512_dpbusd_epi32(sums[0], load(a), query);
        sums[1] = _mm512_dpbusd_epi32(sums[1], load(b), query);
        sums[2] = _mm512_dpbusd_epi32(sums[2], load(c), query);
        sums[3] = _mm512_dpbusd_epi32(sums[3], load(d), query);
    }
    if !query_tail.is_empty() {
        let query = load_signed_tail(query_tail);
        sums[0] = _mm512_dpbusd_epi32(sums[0], load_tail(a.1), query);
        sums[1] = _mm512_dpbusd_epi32(sums[1], load_tail(b.1), query);
        sums[2] = _mm512_dpbusd_epi32(sums[2], load_tail(c.1), query);
        sums[3] = _mm512_dpbusd_epi32(sums[3], load_tail(d.1), query);
    }
    reduce_four(sums)
}

/// The sum of each register's lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn reduce_four([a, b, c, d]: [__m512i; 4]) -> [i32; 4] {
    // In each 128 bits, first the halves of two registers side by side, then one lane of each.
    let pairs = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (ab, cd) = (pairs(a, b), pairs(c, d));
    let each = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    let half = _mm256_add_epi32(_mm512_castsi512_si256(each), _mm512_extracti64x4_epi64::<1>(each));
    let sums = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
    [
        _mm_cvtsi128_si32(sums),
        _mm_extract_epi32::<1>(sums),
        _mm_extract_epi32::<2>(sums),
        _mm_extract_epi32::<3>(sums),
    ]
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn nibbles(codes: &[u8], query: &[i8]) -> i32 {
    let (low_query, high_query) = query.split_at(codes.len());
    let (code_registers, code_tail) = codes.as_chunks::<LANES>();
    let (low_registers, low_tail) = low_query.as_chunks::<LANES>();
    let (high_registers, high_tail) = high_query.as_chunks::<LANES>();
    let mut sums = [_mm512_setzero_si512(); 2];
    for ((codes, low), high) in code_registers.iter().zip(low_registers).zip(high_registers) {
        let [low_codes, high_codes] = halves(load(codes));
        sums[0] = _mm512_dpbusd_epi32(sums[0], low_codes, load_signed(low));
        sums[1] = _mm512_dpbusd_epi32(sums[1], high_codes, load_signed(high));
    }
    if !code_tail.is_empty() {
        let [low_codes, high_codes] = halves(load_tail(code_tail));
        sums[0] = _mm512_dpbusd_epi32(sums[0], low_codes, load_signed_tail(low_tail));
        sums[1] = _mm512_dpbusd_epi32(sums[1], high_codes, load_signed_tail(high_tail));
    }
    _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1]))
}

/// Bits are the masks of this instruction set: numbers are loaded where they are set.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn bits(codes: &[u8], query: &[i8]) -> i32 {
    let (code_words, code_tail) = codes.as_chunks::<8>();
    let (query_registers, query_tail) = query.as_chunks::<LANES>();
    let ones = _mm512_set1_epi8(1);
    let mut sums = [_mm512_setzero_si512(); 2];
    let (code_pairs, code_rest) = code_words.as_chunks::<2>();
    let (query_pairs, query_rest) = query_registers.as_chunks::<2>();
    for (codes, query) in code_pairs.iter().zip(query_pairs) {
        sums[0] = _mm512_dpbusd_epi32(sums[0], ones, load_set(codes[0], &query[0]));
        sums[1] = _mm512_dpbusd_epi32(sums[1], ones, load_set(codes[1], &query[1]));
    }
    for (codes, query) in code_rest.iter().zip(query_rest) {
        sums[0] = _mm512_dpbusd_epi32(sums[0], ones, load_set(*codes, query));
    }
    let sum = _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1]));
    sum + scalar::bits(code_tail, query_tail)
}

/// One side as signed numbers, `a - 128`; the other as it is, which adds 128 times their sum.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn pair(a: &[u8], b: &[u8]) -> i32 {
    let (a_registers, a_tail) = a.as_chunks::<LANES>();
    let (b_registers, b_tail) = b.as_chunks::<LANES>();
    let zero = _mm512_set1_epi8(i8::MIN);
    let (mut sum, mut added) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    for (a, b) in a_registers.iter().zip(b_registers) {
        let signed = _mm512_xor_si512(load(a), zero);
        sum = _mm512_dpbusd_epi32(sum, load(b), signed);
        added = _mm512_dpbusd_epi32(added, zero, signed);
    }
    if !a_tail.is_empty() {
        // What is after the tail is 0 on this side, not -128.
        let signed =
            _mm512_maskz_mov_epi8(mask(a_tail.len()), _mm512_xor_si512(load_tail(a_tail), zero));
        sum = _mm512_dpbusd_epi32(sum, load_tail(b_tail), signed);
        added = _mm512_dpbusd_epi32(added, zero, signed);
    }
    _mm512_reduce_add_epi32(_mm512_sub_epi32(sum, added))
}

/// The low and the high half of each byte, as bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn halves(codes: __m512i) -> [__m512i; 2] {
    let mask = _mm512_set1_epi8(15);
    [_mm512_and_si512(codes, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(codes), mask)]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn load(lanes: &[u8; LANES]) -> __m512i {
    // SAFETY: the reference covers the 64 bytes read; `loadu` asks for no alignment.
    unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn load_signed(lanes: &[i8; LANES]) -> __m512i {
    // SAFETY: the reference covers the 64 bytes read; `loadu` asks for no alignment.
    unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
}

/// The numbers whose bits are set, zeros between them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn load_set(set: [u8; 8], lanes: &[i8; LANES]) -> __m512i {
    // SAFETY: the reference covers the 64 bytes of which some are read.
    unsafe { _mm512_maskz_loadu_epi8(u64::from_le_bytes(set), lanes.as_ptr()) }
}

/// The first 64 bytes or fewer, zeros after them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn load_tail(lanes: &[u8]) -> __m512i {
    // SAFETY: the mask has no bit at or above `lanes.len()`, and masked lanes are not read.
    unsafe { _mm512_maskz_loadu_epi8(mask(lanes.len()), lanes.as_ptr().cast()) }
}

/// The first 64 bytes or fewer, zeros after them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn load_signed_tail(lanes: &[i8]) -> __m512i {
    // SAFETY: the mask has no bit at or above `lanes.len()`, and masked lanes are not read.
    unsafe { _mm512_maskz_loadu_epi8(mask(lanes.len()), lanes.as_ptr()) }
}

/// The lowest `count` bits.
fn mask(count: usize) -> u64 {
    if count < LANES { (1 << count) - 1 } else { u64::MAX }
}
