//! AVX-512F: sixteen lanes, four accumulators, masked tails.
//!
//! Summation order (K4): register `i` of the row goes to accumulator `i mod 4` for whole groups of
//! four; the whole registers after the last group go to accumulators 0, 1, 2 in turn and the
//! partial register to accumulator 3. Then `(0 + 1) + (2 + 3)`, and halves are added until one
//! lane is left.
//!
//! Rows are read one after the other, never several side by side: the CPU's own prefetcher follows
//! one stream at the speed of memory, and taking four rows at a time was measured to halve that.
//! For the same reason there is no software prefetch, which cost a tenth.

use std::arch::x86_64::{
    __m128, __m512, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehl_ps, _mm_shuffle_ps,
    _mm512_add_ps, _mm512_extractf32x4_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_maskz_loadu_ps,
    _mm512_setzero_ps, _mm512_sub_ps,
};

use crate::{
    Kernels, Product, SquaredDifference, Term, codes, halves, lookup, panels, planes, spread,
};

pub(crate) static TABLE: Kernels = Kernels {
    name: "avx512",
    codes: &codes::avx512::TABLE,
    planes: &planes::avx512::TABLE,
    spread: &spread::avx512::TABLE,
    lookup: &lookup::avx512::TABLE,
    nearest: panels::avx512::nearest,
    dot_block: halves::avx512::dot_block,
    within: panels::avx512::within,
    ..FIRST
};

/// For the first CPUs with AVX-512, whose products of bytes are those of AVX2.
pub(crate) static TABLE_WITHOUT_VNNI: Kernels = FIRST;

const FIRST: Kernels = Kernels {
    name: "avx512f",
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
const LANES: usize = 16;
/// Numbers in a group of four registers, one for each accumulator.
const GROUP: usize = 4 * LANES;

type Accumulators = [__m512; 4];

#[target_feature(enable = "avx512f")]
fn pair<T: Term>(a: &[f32], b: &[f32]) -> f32 {
    let (a_groups, a_rest) = a.as_chunks::<GROUP>();
    let (b_groups, b_rest) = b.as_chunks::<GROUP>();
    let mut sums = [_mm512_setzero_ps(); 4];
    for (a, b) in a_groups.iter().zip(b_groups) {
        sums = add_group::<T>(sums, load_group(a), load_group(b));
    }
    if !a_rest.is_empty() {
        sums = add_rest::<T>(sums, a_rest, b_rest);
    }
    reduce(sums)
}

#[target_feature(enable = "avx512f")]
fn rows<T: Term>(query: &[f32], rows: &[f32], out: &mut [f32]) {
    match query.len() {
        0 => out.fill(0.0),
        128 => rows_of::<T, 2>(query, rows, out),
        256 => rows_of::<T, 4>(query, rows, out),
        384 => rows_of::<T, 6>(query, rows, out),
        length => {
            for (row, out) in rows.chunks_exact(length).zip(out) {
                *out = pair::<T>(query, row);
            }
        }
    }
}

/// [`rows`] of exactly `G` groups each, few enough that the query stays in registers.
#[target_feature(enable = "avx512f")]
fn rows_of<T: Term, const G: usize>(query: &[f32], rows: &[f32], out: &mut [f32]) {
    let mut query_groups = [[_mm512_setzero_ps(); 4]; G];
    for (registers, group) in query_groups.iter_mut().zip(query.as_chunks::<GROUP>().0) {
        *registers = load_group(group);
    }
    let (groups, _) = rows.as_chunks::<GROUP>();
    let (rows, _) = groups.as_chunks::<G>();
    for (row, out) in rows.iter().zip(out) {
        let mut sums = [_mm512_setzero_ps(); 4];
        for (query, row) in query_groups.iter().zip(row) {
            sums = add_group::<T>(sums, *query, load_group(row));
        }
        *out = reduce(sums);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
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
#[target_feature(enable = "avx512f")]
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
#[target_feature(enable = "avx512f")]
fn add_term<T: Term>(sum: __m512, a: __m512, b: __m512) -> __m512 {
    if T::SQUARED_DIFFERENCE {
        let difference = _mm512_sub_ps(a, b);
        _mm512_fmadd_ps(difference, difference, sum)
    } else {
        _mm512_fmadd_ps(a, b, sum)
    }
}

#[target_feature(enable = "avx512f")]
fn sum(values: &[f32]) -> f32 {
    let (groups, rest) = values.as_chunks::<GROUP>();
    let mut sums = [_mm512_setzero_ps(); 4];
    for group in groups {
        let [a, b, c, d] = load_group(group);
        sums = [
            _mm512_add_ps(sums[0], a),
            _mm512_add_ps(sums[1], b),
            _mm512_add_ps(sums[2], c),
            _mm512_add_ps(sums[3], d),
        ];
    }
    for part in rest.chunks(LANES) {
        sums[0] = _mm512_add_ps(sums[0], load_tail(part));
    }
    reduce(sums)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn reduce(sums: Accumulators) -> f32 {
    let [a, b, c, d] = sums;
    let sum = _mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d));
    let low = _mm_add_ps(_mm512_extractf32x4_ps::<0>(sum), _mm512_extractf32x4_ps::<1>(sum));
    let high = _mm_add_ps(_mm512_extractf32x4_ps::<2>(sum), _mm512_extractf32x4_ps::<3>(sum));
    reduce_quad(_mm_add_ps(low, high))
}

/// `(0 + 2) + (1 + 3)`.
#[inline]
#[target_feature(enable = "avx512f")]
fn reduce_quad(quad: __m128) -> f32 {
    let halves = _mm_add_ps(quad, _mm_movehl_ps(quad, quad));
    _mm_cvtss_f32(_mm_add_ss(halves, _mm_shuffle_ps::<1>(halves, halves)))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_group(group: &[f32; GROUP]) -> Accumulators {
    let (registers, _) = group.as_chunks::<LANES>();
    [load(&registers[0]), load(&registers[1]), load(&registers[2]), load(&registers[3])]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(lanes: &[f32; LANES]) -> __m512 {
    // SAFETY: the reference covers the sixteen floats read; `loadu` asks for no alignment.
    unsafe { _mm512_loadu_ps(lanes.as_ptr()) }
}

/// The first sixteen numbers or fewer, zeros after them.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_tail(lanes: &[f32]) -> __m512 {
    let mask = match lanes.len() {
        count @ 0..LANES => (1_u16 << count) - 1,
        _ => u16::MAX,
    };
    // SAFETY: the mask has no bit at or above `lanes.len()`, and masked lanes are not read.
    unsafe { _mm512_maskz_loadu_ps(mask, lanes.as_ptr()) }
}
