//! AVX2 with FMA: eight lanes, four accumulators, masked tails.
//!
//! Summation order (K4): register `i` of the row goes to accumulator `i mod 4` for whole groups of
//! four; the whole registers after the last group go to accumulators 0, 1, 2 in turn and the
//! partial register to accumulator 3. Then `(0 + 1) + (2 + 3)`, and halves are added until one
//! lane is left. Rows are read one after the other, as in `avx512.rs` and for its reasons; sixteen
//! registers are too few to keep a query in.

use std::arch::x86_64::{
    __m128, __m256, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehl_ps, _mm_shuffle_ps,
    _mm256_add_ps, _mm256_castps256_ps128, _mm256_cmpgt_epi32, _mm256_extractf128_ps,
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_maskload_ps, _mm256_set1_epi32, _mm256_setr_epi32,
    _mm256_setzero_ps, _mm256_sub_ps,
};

use crate::{
    Kernels, Product, SquaredDifference, Term, codes, halves, lookup, panels, planes, spread,
};

pub(crate) static TABLE: Kernels = Kernels {
    name: "avx2",
    dot: pair::<Product>,
    l2_squared: pair::<SquaredDifference>,
    dot_rows: rows::<Product>,
    l2_squared_rows: rows::<SquaredDifference>,
    sum,
    codes: &codes::avx2::TABLE,
    planes: &planes::avx2::TABLE,
    spread: &spread::avx2::TABLE,
    lookup: &lookup::avx2::TABLE,
    nearest: panels::avx2::nearest,
    dot_block: halves::avx2::dot_block,
    within: panels::avx2::within,
};

/// Numbers in a register.
const LANES: usize = 8;
/// Numbers in a group of four registers, one for each accumulator.
const GROUP: usize = 4 * LANES;

type Accumulators = [__m256; 4];

#[target_feature(enable = "avx2,fma")]
fn pair<T: Term>(a: &[f32], b: &[f32]) -> f32 {
    let (a_groups, a_rest) = a.as_chunks::<GROUP>();
    let (b_groups, b_rest) = b.as_chunks::<GROUP>();
    let mut sums = [_mm256_setzero_ps(); 4];
    for (a, b) in a_groups.iter().zip(b_groups) {
        sums = add_group::<T>(sums, load_group(a), load_group(b));
    }
    if !a_rest.is_empty() {
        sums = add_rest::<T>(sums, a_rest, b_rest);
    }
    reduce(sums)
}

#[target_feature(enable = "avx2,fma")]
fn rows<T: Term>(query: &[f32], rows: &[f32], out: &mut [f32]) {
    if query.is_empty() {
        out.fill(0.0);
        return;
    }
    for (row, out) in rows.chunks_exact(query.len()).zip(out) {
        *out = pair::<T>(query, row);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_group<T: Term>(sums: Accumulators, a: Accumulators, b: Accumulators) -> Accumulators {
    [
        add_term::<T>(sums[0], a[0], b[0]),
        add_term::<T>(sums[1], a[1], b[1]),
        add_term::<T>(sums[2], a[2], b[2]),
        add_term::<T>(sums[3], a[3], b[3]),
    ]
}

/// Adds the terms of less than one group.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_rest<T: Term>(mut sums: Accumulators, a: &[f32], b: &[f32]) -> Accumulators {
    let (a_whole, a_tail) = a.as_chunks::<LANES>();
    let (b_whole, b_tail) = b.as_chunks::<LANES>();
    for (sum, (a, b)) in sums.iter_mut().zip(a_whole.iter().zip(b_whole)) {
        *sum = add_term::<T>(*sum, load(a), load(b));
    }
    sums[3] = add_term::<T>(sums[3], load_tail(a_tail), load_tail(b_tail));
    sums
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_term<T: Term>(sum: __m256, a: __m256, b: __m256) -> __m256 {
    if T::SQUARED_DIFFERENCE {
        let difference = _mm256_sub_ps(a, b);
        _mm256_fmadd_ps(difference, difference, sum)
    } else {
        _mm256_fmadd_ps(a, b, sum)
    }
}

#[target_feature(enable = "avx2,fma")]
fn sum(values: &[f32]) -> f32 {
    let (groups, rest) = values.as_chunks::<GROUP>();
    let mut sums = [_mm256_setzero_ps(); 4];
    for group in groups {
        let [a, b, c, d] = load_group(group);
        sums = [
            _mm256_add_ps(sums[0], a),
            _mm256_add_ps(sums[1], b),
            _mm256_add_ps(sums[2], c),
            _mm256_add_ps(sums[3], d),
        ];
    }
    for part in rest.chunks(LANES) {
        sums[0] = _mm256_add_ps(sums[0], load_tail(part));
    }
    reduce(sums)
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn reduce(sums: Accumulators) -> f32 {
    let [a, b, c, d] = sums;
    let sum = _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d));
    let low = _mm256_castps256_ps128(sum);
    reduce_quad(_mm_add_ps(low, _mm256_extractf128_ps::<1>(sum)))
}

/// `(0 + 2) + (1 + 3)`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn reduce_quad(quad: __m128) -> f32 {
    let halves = _mm_add_ps(quad, _mm_movehl_ps(quad, quad));
    _mm_cvtss_f32(_mm_add_ss(halves, _mm_shuffle_ps::<1>(halves, halves)))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load_group(group: &[f32; GROUP]) -> Accumulators {
    let (registers, _) = group.as_chunks::<LANES>();
    [load(&registers[0]), load(&registers[1]), load(&registers[2]), load(&registers[3])]
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load(lanes: &[f32; LANES]) -> __m256 {
    // SAFETY: the reference covers the eight floats read; `loadu` asks for no alignment.
    unsafe { _mm256_loadu_ps(lanes.as_ptr()) }
}

/// The first eight numbers or fewer, zeros after them.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn load_tail(lanes: &[f32]) -> __m256 {
    let count = i32::try_from(lanes.len()).unwrap_or(i32::MAX);
    let mask =
        _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    // SAFETY: lane `i` of the mask is set only where `i < lanes.len()`, and others are not read.
    unsafe { _mm256_maskload_ps(lanes.as_ptr(), mask) }
}
