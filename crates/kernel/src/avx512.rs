//! AVX-512F: sixteen lanes, four accumulators a row, four rows at a time, masked tails.
//!
//! Summation order (K4): register `i` of the row goes to accumulator `i mod 4` for whole groups of
//! four; the whole registers after the last group go to accumulators 0, 1, 2 in turn and the
//! partial register to accumulator 3. Then `(0 + 1) + (2 + 3)`, and halves are added until one
//! lane is left.

use std::arch::x86_64::{
    __m128, __m512, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehl_ps, _mm_shuffle_ps,
    _mm512_add_ps, _mm512_extractf32x4_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_maskz_loadu_ps,
    _mm512_setzero_ps, _mm512_sub_ps,
};
use std::array;

use crate::{Kernels, Product, SquaredDifference, Term};

pub(crate) static TABLE: Kernels = Kernels {
    name: "avx512",
    dot: pair::<Product>,
    l2_squared: pair::<SquaredDifference>,
    dot_rows: rows::<Product>,
    l2_squared_rows: rows::<SquaredDifference>,
    sum,
};

/// Numbers in a register.
const LANES: usize = 16;
/// Numbers in a group of four registers, one for each accumulator.
const GROUP: usize = 4 * LANES;
/// Rows that share the loaded registers of the query.
const TILE: usize = 4;

type Accumulators = [__m512; 4];

#[target_feature(enable = "avx512f")]
fn pair<T: Term>(a: &[f32], b: &[f32]) -> f32 {
    let [result] = tile::<T, 1>(a, b);
    result
}

#[target_feature(enable = "avx512f")]
fn rows<T: Term>(query: &[f32], rows: &[f32], out: &mut [f32]) {
    if query.is_empty() {
        out.fill(0.0);
        return;
    }
    let (tiles, rest) = out.as_chunks_mut::<TILE>();
    let (tiled, single) = rows.split_at(tiles.len() * TILE * query.len());
    for (rows, out) in tiled.chunks_exact(TILE * query.len()).zip(tiles) {
        *out = tile::<T, TILE>(query, rows);
    }
    for (row, out) in single.chunks_exact(query.len()).zip(rest) {
        *out = pair::<T>(query, row);
    }
}

/// The terms of `R` rows, row-major, against the query, summed.
#[inline]
#[target_feature(enable = "avx512f")]
fn tile<T: Term, const R: usize>(query: &[f32], rows: &[f32]) -> [f32; R] {
    let length = query.len();
    let rows: [&[f32]; R] = array::from_fn(|r| &rows[r * length..][..length]);
    let mut sums: [Accumulators; R] = [[_mm512_setzero_ps(); 4]; R];

    let (groups, rest) = query.as_chunks::<GROUP>();
    let row_groups: [&[[f32; GROUP]]; R] = rows.map(|row| &row.as_chunks().0[..groups.len()]);
    for (i, group) in groups.iter().enumerate() {
        let query = load_group(group);
        for r in 0..R {
            let row = load_group(&row_groups[r][i]);
            for lane in 0..4 {
                sums[r][lane] = add_term::<T>(sums[r][lane], query[lane], row[lane]);
            }
        }
    }
    if !rest.is_empty() {
        for r in 0..R {
            add_rest::<T>(&mut sums[r], rest, &rows[r][length - rest.len()..]);
        }
    }
    sums.map(|sums| reduce(sums))
}

/// Adds the terms of less than one group.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_rest<T: Term>(sums: &mut Accumulators, query: &[f32], row: &[f32]) {
    let (query_whole, query_tail) = query.as_chunks::<LANES>();
    let (row_whole, row_tail) = row.as_chunks::<LANES>();
    for (sum, (query, row)) in sums.iter_mut().zip(query_whole.iter().zip(row_whole)).take(3) {
        *sum = add_term::<T>(*sum, load(query), load(row));
    }
    sums[3] = add_term::<T>(sums[3], load_tail(query_tail), load_tail(row_tail));
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
        let group = load_group(group);
        for lane in 0..4 {
            sums[lane] = _mm512_add_ps(sums[lane], group[lane]);
        }
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
