//! The oracle: plain Rust, accumulated in f64 in eight lanes and rounded once.
//!
//! A product of two f32 is exact in f64, so the only errors are those of f64 additions and the
//! last rounding. The lanes let the compiler use whatever registers the baseline CPU has.

use crate::{
    Kernels, Product, SquaredDifference, Term, codes, halves, lookup, panels, planes, spread,
};

pub(crate) static TABLE: Kernels = Kernels {
    name: "scalar",
    dot: pair::<Product>,
    l2_squared: pair::<SquaredDifference>,
    dot_rows: rows::<Product>,
    l2_squared_rows: rows::<SquaredDifference>,
    sum,
    codes: &codes::scalar::TABLE,
    planes: &planes::SCALAR,
    spread: &spread::SCALAR,
    lookup: &lookup::scalar::TABLE,
    nearest: panels::plain::nearest,
    dot_block: halves::scalar::dot_block,
    within: panels::plain::within,
};

const LANES: usize = 8;

fn pair<T: Term>(a: &[f32], b: &[f32]) -> f32 {
    let (a_chunks, a_tail) = a.as_chunks::<LANES>();
    let (b_chunks, b_tail) = b.as_chunks::<LANES>();
    let mut lanes = [0.0_f64; LANES];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += term::<T>(*a, *b);
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(a_tail).zip(b_tail) {
        *lane += term::<T>(*a, *b);
    }
    round(&lanes)
}

fn rows<T: Term>(query: &[f32], rows: &[f32], out: &mut [f32]) {
    if query.is_empty() {
        out.fill(0.0);
        return;
    }
    for (row, out) in rows.chunks_exact(query.len()).zip(out) {
        *out = pair::<T>(query, row);
    }
}

fn sum(values: &[f32]) -> f32 {
    let (chunks, tail) = values.as_chunks::<LANES>();
    let mut lanes = [0.0_f64; LANES];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(*value);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(tail) {
        *lane += f64::from(*value);
    }
    round(&lanes)
}

fn term<T: Term>(a: f32, b: f32) -> f64 {
    let (a, b) = (f64::from(a), f64::from(b));
    if T::SQUARED_DIFFERENCE { (a - b) * (a - b) } else { a * b }
}

#[expect(clippy::cast_possible_truncation, reason = "the one rounding to f32 is the result")]
fn round(lanes: &[f64; LANES]) -> f32 {
    lanes.iter().sum::<f64>() as f32
}
