//! Elementwise arithmetic of the forward pass over slices of f32, written once over the vector
//! width of the CPU.
//!
//! Every function is inlined into a caller that already enabled the CPU's instructions (see
//! [`fearless_simd::Simd::vectorize`]), which is why `inline(always)` is asked for throughout.
//! Slices are multiples of [`LANES_MAX`] long, so that no width leaves a remainder.
#![expect(
    clippy::inline_always,
    reason = "vector code must be inlined into the function that enables the instructions"
)]

use fearless_simd::prelude::*;

/// The widest vector any supported CPU has, in f32 lanes.
pub(super) const LANES_MAX: usize = 16;

/// Coefficients of `2^f` for `f` in `[-0.5, 0.5]`, constant first; relative error below 2e-9.
const EXP2: [f32; 7] = [
    1.0,
    std::f32::consts::LN_2,
    0.240_226_46,
    0.055_503_286,
    0.009_618_489,
    0.001_339_993,
    0.000_153_458_11,
];

/// Numerator, in powers of `x^2`, of the odd rational function that follows the normal
/// distribution's `cdf(x) - 0.5` for `|x| <= GELU_CLAMP` to 5e-9.
const GELU_P: [f32; 6] =
    [0.398_942_26, 0.032_935_86, 0.004_627_999, 0.000_160_335_42, 6.379_076_6e-6, 2.405_028_1e-8];

/// Denominator of the same function; its constant is one.
const GELU_Q: [f32; 6] =
    [1.0, 0.249_224_19, 0.028_138_87, 0.001_836_576_6, 7.135_267e-5, 1.237_168_9e-6];

/// Beyond this the distribution is 0 or 1 to within 6e-8.
const GELU_CLAMP: f32 = 5.3;

/// Adding this to a float below 2^22 leaves its nearest integer in the low mantissa bits.
const ROUND_MAGIC: f32 = 12_582_912.0;

/// The polynomial with these coefficients, constant first, at every lane of `x`.
#[inline(always)]
fn polynomial<S: Simd>(simd: S, x: S::f32s, coefficients: &[f32]) -> S::f32s {
    let mut sum = S::f32s::splat(simd, 0.0);
    for &coefficient in coefficients.iter().rev() {
        sum = sum.mul_add(x, S::f32s::splat(simd, coefficient));
    }
    sum
}

/// `2^x` for `x <= 0`; values below -126 give 2^-126, which a sum of probabilities never sees.
#[inline(always)]
fn exp2_nonpositive<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let x = x.max(S::f32s::splat(simd, -126.0));
    let shifted = x + S::f32s::splat(simd, ROUND_MAGIC);
    let fraction = x - (shifted - S::f32s::splat(simd, ROUND_MAGIC));
    let exponent = shifted.bitcast::<S::u32s>() << 23;
    let mantissa = polynomial(simd, fraction, &EXP2).bitcast::<S::u32s>();
    (mantissa + exponent).bitcast::<S::f32s>()
}

/// Replaces each row of scores by unnormalised probabilities `2^(score - max)` and returns their
/// sum. Scores are in units of log2.
#[inline(always)]
pub(super) fn softmax_base2<S: Simd>(simd: S, row: &mut [f32]) -> f32 {
    let mut max = S::f32s::splat(simd, f32::MIN);
    for chunk in row.chunks_exact(S::f32s::LEN) {
        max = max.max(S::f32s::from_slice(simd, chunk));
    }
    let max = S::f32s::splat(simd, max.reduce_max());
    let mut sum = S::f32s::splat(simd, 0.0);
    for chunk in row.chunks_exact_mut(S::f32s::LEN) {
        let weight = exp2_nonpositive(simd, S::f32s::from_slice(simd, chunk) - max);
        weight.store_slice(chunk);
        sum += weight;
    }
    sum.reduce_sum()
}

/// `output[i] = gelu(input[i] + bias[i])`, the exact (not the tanh) form, to about 1e-6.
#[inline(always)]
pub(super) fn gelu_with_bias<S: Simd>(simd: S, input: &[f32], bias: &[f32], output: &mut [f32]) {
    let lanes = S::f32s::LEN;
    let limit = S::f32s::splat(simd, GELU_CLAMP);
    let half = S::f32s::splat(simd, 0.5);
    for ((input, bias), output) in
        input.chunks_exact(lanes).zip(bias.chunks_exact(lanes)).zip(output.chunks_exact_mut(lanes))
    {
        let x = S::f32s::from_slice(simd, input) + S::f32s::from_slice(simd, bias);
        let clamped = x.min(limit).max(-limit);
        let square = clamped * clamped;
        let ratio = polynomial(simd, square, &GELU_P) / polynomial(simd, square, &GELU_Q);
        (x * clamped.mul_add(ratio, half)).store_slice(output);
    }
}

/// `row[i] += input[i] + bias[i]`.
#[inline(always)]
pub(super) fn add_with_bias<S: Simd>(simd: S, input: &[f32], bias: &[f32], row: &mut [f32]) {
    let lanes = S::f32s::LEN;
    for ((input, bias), row) in
        input.chunks_exact(lanes).zip(bias.chunks_exact(lanes)).zip(row.chunks_exact_mut(lanes))
    {
        let sum = S::f32s::from_slice(simd, input) + S::f32s::from_slice(simd, bias);
        (S::f32s::from_slice(simd, row) + sum).store_slice(row);
    }
}

/// `output[i] = input[i] + bias[i]`.
#[inline(always)]
pub(super) fn sum_into<S: Simd>(simd: S, input: &[f32], bias: &[f32], output: &mut [f32]) {
    let lanes = S::f32s::LEN;
    for ((input, bias), output) in
        input.chunks_exact(lanes).zip(bias.chunks_exact(lanes)).zip(output.chunks_exact_mut(lanes))
    {
        (S::f32s::from_slice(simd, input) + S::f32s::from_slice(simd, bias)).store_slice(output);
    }
}

/// Scale and shift of one layer normalisation, one value per hidden dimension each.
#[derive(Debug)]
pub(super) struct LayerNorm {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

/// The model's own epsilon.
const LAYER_NORM_EPSILON: f32 = 1e-12;

/// Normalises `row` in place to mean 0 and variance 1, then scales and shifts it.
#[inline(always)]
pub(super) fn layer_norm<S: Simd>(simd: S, norm: &LayerNorm, row: &mut [f32]) {
    let lanes = S::f32s::LEN;
    let count = row.len() as f32;
    let mut sum = S::f32s::splat(simd, 0.0);
    for chunk in row.chunks_exact(lanes) {
        sum += S::f32s::from_slice(simd, chunk);
    }
    let mean = S::f32s::splat(simd, sum.reduce_sum() / count);
    let mut squares = S::f32s::splat(simd, 0.0);
    for chunk in row.chunks_exact(lanes) {
        let centred = S::f32s::from_slice(simd, chunk) - mean;
        squares = centred.mul_add(centred, squares);
    }
    let deviation = (squares.reduce_sum() / count + LAYER_NORM_EPSILON).sqrt();
    let scale = S::f32s::splat(simd, deviation.recip());
    let parameters = norm.weight.chunks_exact(lanes).zip(norm.bias.chunks_exact(lanes));
    for (chunk, (weight, bias)) in row.chunks_exact_mut(lanes).zip(parameters) {
        let centred = (S::f32s::from_slice(simd, chunk) - mean) * scale;
        let weight = S::f32s::from_slice(simd, weight);
        centred.mul_add(weight, S::f32s::from_slice(simd, bias)).store_slice(chunk);
    }
}

/// `row[i] *= factor`.
#[inline(always)]
pub(super) fn scale<S: Simd>(simd: S, factor: f32, row: &mut [f32]) {
    for chunk in row.chunks_exact_mut(S::f32s::LEN) {
        (S::f32s::from_slice(simd, chunk) * factor).store_slice(chunk);
    }
}
