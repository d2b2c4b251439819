//! NEON: four lanes, four accumulators, tails through a zeroed array.
//!
//! Summation order (K4): register `i` of the row goes to accumulator `i mod 4` for whole groups of
//! four; the whole registers after the last group go to accumulators 0, 1, 2 in turn and the
//! partial register to accumulator 3. Then `(0 + 1) + (2 + 3)`, and neighbouring lanes are added
//! until one is left.

use std::arch::aarch64::{
    float32x4_t, vaddq_f32, vaddvq_f32, vdupq_n_f32, vfmaq_f32, vld1q_f32, vsubq_f32,
};

use crate::{
    Kernels, Product, SquaredDifference, Term, codes, halves, lookup, panels, planes, spread,
};

pub(crate) static TABLE: Kernels = Kernels {
    name: "neon",
    dot: pair::<Product>,
    l2_squared: pair::<SquaredDifference>,
    dot_rows: rows::<Product>,
    l2_squared_rows: rows::<SquaredDifference>,
    sum,
    codes: &codes::neon::TABLE,
    planes: &planes::neon::TABLE,
    spread: &spread::neon::TABLE,
    lookup: &lookup::neon::TABLE,
    nearest: panels::plain::nearest_neon,
    dot_block: halves::neon::dot_block,
    within: panels::plain::within_neon,
};

/// Numbers in a register.
const LANES: usize = 4;
/// Numbers in a group of four registers, one for each accumulator.
const GROUP: usize = 4 * LANES;

type Accumulators = [float32x4_t; 4];

#[target_feature(enable = "neon")]
fn pair<T: Term>(a: &[f32], b: &[f32]) -> f32 {
    let (a_groups, a_rest) = a.as_chunks::<GROUP>();
    let (b_groups, b_rest) = b.as_chunks::<GROUP>();
    let mut sums = [vdupq_n_f32(0.0); 4];
    for (a, b) in a_groups.iter().zip(b_groups) {
        sums = add_group::<T>(sums, load_group(a), load_group(b));
    }
    if !a_rest.is_empty() {
        sums = add_rest::<T>(sums, a_rest, b_rest);
    }
    reduce(sums)
}

#[target_feature(enable = "neon")]
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
#[target_feature(enable = "neon")]
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
#[target_feature(enable = "neon")]
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
        let [a, b, c, d] = load_group(group);
        sums = [
            vaddq_f32(sums[0], a),
            vaddq_f32(sums[1], b),
            vaddq_f32(sums[2], c),
            vaddq_f32(sums[3], d),
        ];
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
