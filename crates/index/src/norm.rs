//! Norms of vectors, and which vectors have one.
//!
//! Inverse norms are stored beside vectors, so they must be the same bits on every machine: sums
//! are taken in f64 in one fixed order, in plain Rust, and never by a kernel.

use thiserror::Error;

/// Why a vector cannot be searched by angle.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Error)]
pub enum VectorError {
    /// A component is NaN or infinite.
    #[error("component {position} is not a finite number")]
    NotFinite {
        /// The first such component, from 0.
        position: usize,
    },
    /// Every component is zero (or there is none), so there is no direction.
    #[error("the vector is zero and has no direction")]
    Zero,
    /// The norm is above the largest f32.
    #[error("the norm of the vector is too large for a 32-bit float")]
    NormOverflow,
    /// The inverse of the norm is above the largest f32.
    #[error("the norm of the vector is too small for a 32-bit float")]
    NormUnderflow,
}

/// `1 / |v|`, positive and finite, the same bits on every machine.
pub fn inverse_norm(v: &[f32]) -> Result<f32, VectorError> {
    let (_, inverse) = inverse_norms(v)?;
    Ok(inverse)
}

/// `v / |v|`, and `1 / |v|` as [`inverse_norm`] gives it, the same bits on every machine.
pub fn normalized(v: &[f32]) -> Result<(Vec<f32>, f32), VectorError> {
    let (exact, inverse) = inverse_norms(v)?;
    let unit = v.iter().map(|value| round(f64::from(*value) * exact)).collect();
    Ok((unit, inverse))
}

/// The inverse norm in f64 and rounded to f32.
fn inverse_norms(v: &[f32]) -> Result<(f64, f32), VectorError> {
    // The squares of f32 neither overflow nor vanish in f64, and so few of them cannot overflow:
    // the sum is finite exactly if every component is, and zero exactly if every one is zero.
    let sum = sum_of_squares(v);
    if !sum.is_finite() {
        let position = v.iter().position(|value| !value.is_finite()).unwrap_or(v.len());
        return Err(VectorError::NotFinite { position });
    }
    if sum <= 0.0 {
        return Err(VectorError::Zero);
    }
    let norm = sum.sqrt();
    if !round(norm).is_finite() {
        return Err(VectorError::NormOverflow);
    }
    let exact = 1.0 / norm;
    let inverse = round(exact);
    if !inverse.is_finite() {
        return Err(VectorError::NormUnderflow);
    }
    Ok((exact, inverse))
}

/// In eight lanes, added up in order: fixed, and quick on any CPU.
fn sum_of_squares(v: &[f32]) -> f64 {
    const LANES: usize = 8;
    let (chunks, tail) = v.as_chunks::<LANES>();
    let mut lanes = [0.0_f64; LANES];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(*value) * f64::from(*value);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(tail) {
        *lane += f64::from(*value) * f64::from(*value);
    }
    lanes.iter().sum()
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is what is asked for")]
fn round(value: f64) -> f32 {
    value as f32
}
