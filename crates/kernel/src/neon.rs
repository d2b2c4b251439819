//! NEON: four lanes, four accumulators a row, four rows at a time, tails through a zeroed array.
//!
//! Summation order (K4): register `i` of the row goes to accumulator `i mod 4` for whole groups of
//! four; the whole registers after the last group go to accumulators 0, 1, 2 in turn and the
//! partial register to accumulator 3. Then `(0 + 1) + (2 + 3)`, and halves are added until one
//! lane is left.

use std::arch::aarch64::{
    float32x4_t, vaddq_f32, vaddvq_f32, vdupq_n_f32, vfmaq_f32, vld1q_f32, vsubq_f32,
};
use std::array;

use crate::{Kernels, Product, SquaredDifference, Term};

pub(crate) static TABLE: Kernels = Kernels {
    name: "neon",
    dot: pair::<Product>,
    l2_squared: pair::<SquaredDifference>,
    dot_rows: rows::<Product>,
    l2_squared_rows: rows::<SquaredDifference>,
    sum,
};

/// Numbers in a register.
const LANES: usize = 4;
/// Numbers in a group of four registers, one for each accumulator.
const GROUP: usize = 4 * LANES;
/// Rows that share the loaded registers of the query.
const TILE: usize = 4;

type Accumulators = [float32x4_t; 4];

#[target_feature(enable = "neon")]
fn pair<T: Term>(a: &[f32], b: &[f32]) -> f32 {
    let [result] = tile::<T, 1>(a, b);
    result
}

#[target_feature(enable = "neon")]
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
#[target_feature(enable = "neon")]
fn tile<T: Term, const R: usize>(query: &[f32], rows: &[f32]) -> [f32; R] {
    let length = query.len();
    let rows: [&[f32]; R] = array::from_fn(|r| &rows[r * length..][..length]);
    let mut sums: [Accumulators; R] = [[vdupq_n_f32(0.0); 4]; R];

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
#[target_feature(enable = "neon")]
fn add_rest<T: Term>(sums: &mut Accumulators, query: &[f32], row: &[f32]) {
    let (query_whole, query_tail) = query.as_chunks::<LANES>();
    let (row_whole, row_tail) = row.as_chunks::<LANES>();
    for (sum, (query, row)) in sums.iter_mut().zip(query_whole.iter().zip(row_whole)).take(3) {
        *sum = add_term::<T>(*sum, load(query), load(row));
    }
    sums[3] = add_term::<T>(sums[3], load_tail(query_tail), load_tail(row_tail));
}

#[inline]
#[target_feature(enable = "neon")]
fn add_term<T: Term>(sum: float32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t {
    if T::SQUARED_DIFFERENCE {
        let difference = vsubq_f32(a, b);
        vfmaq_f32(sum, difference, difference)
    } else {
        vfmaq_f32(sum, a, b)
    }
}

#[target_feature(enable = "neon")]
fn sum(values: &[f32]) -> f32 {
    let (groups, rest) = values.as_chunks::<GROUP>();
    let mut sums = [vdupq_n_f32(0.0); 4];
    for group in groups {
        let group = load_group(group);
        for lane in 0..4 {
            sums[lane] = vaddq_f32(sums[lane], group[lane]);
        }
    }
    for part in rest.chunks(LANES) {
        sums[0] = vaddq_f32(sums[0], load_tail(part));
    }
    reduce(sums)
}

#[inline]
#[target_feature(enable = "neon")]
fn reduce(sums: Accumulators) -> f32 {
    let [a, b, c, d] = sums;
    let sum = vaddq_f32(vaddq_f32(a, b), vaddq_f32(c, d));
    vaddvq_f32(sum)
}

#[inline]
#[target_feature(enable = "neon")]
fn load_group(group: &[f32; GROUP]) -> Accumulators {
    let (registers, _) = group.as_chunks::<LANES>();
    [load(&registers[0]), load(&registers[1]), load(&registers[2]), load(&registers[3])]
}

#[inline]
#[target_feature(enable = "neon")]
fn load(lanes: &[f32; LANES]) -> float32x4_t {
    // SAFETY: the reference covers the four floats read; the load asks for no alignment.
    unsafe { vld1q_f32(lanes.as_ptr()) }
}

/// The first four numbers or fewer, zeros after them.
#[inline]
#[target_feature(enable = "neon")]
fn load_tail(lanes: &[f32]) -> float32x4_t {
    let mut register = [0.0; LANES];
    for (to, from) in register.iter_mut().zip(lanes) {
        *to = *from;
    }
    load(&register)
}
