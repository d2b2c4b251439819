//! Norms of vectors, and which vectors have one.
//!
//! Inverse norms are stored beside vectors, so they must be the same bits on every machine: sums
//! are taken in f64 in one fixed order, in plain Rust, and never by a kernel.

use thiserror::Error;

use crate::Metric;

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
    /// Distances by the metric would overflow, or vanish.
    #[error(
        "by {} the norm of a vector has to be from {NORM_MIN:e} to {NORM_MAX:e}, or its distances \
         would be beyond 32-bit floats; scale the vectors",
        metric.name()
    )]
    NormForMetric {
        /// The metric.
        metric: Metric,
    },
}

/// Lengths of vectors whose products and squared differences are well within the range of f32.
const NORM_MIN: f32 = 1e-15;
const NORM_MAX: f32 = 1e18;

/// Whether distances of a vector can be told by a metric: by cosine always, by others if it is neither
/// too long nor too short. What has no norm is refused elsewhere.
pub fn check_norm(metric: Metric, vector: &[f32]) -> Result<(), VectorError> {
    let Ok(inverse_norm) = inverse_norm(vector) else { return Ok(()) };
    if metric == Metric::Cosine || (NORM_MIN..=NORM_MAX).contains(&inverse_norm.recip()) {
        return Ok(());
    }
    Err(VectorError::NormForMetric { metric })
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
pub(crate) fn sum_of_squares(v: &[f32]) -> f64 {
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
pub(crate) fn round(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::{VectorError, inverse_norm, normalized};

    proptest! {
        #[test]
        fn a_unit_vector_has_norm_one_and_the_direction_it_had(
            v in vec(any::<i16>(), 1..4097),
            scale in -24_i32..24,
        ) {
            let v: Vec<f32> =
                v.iter().map(|value| f32::from(*value) * 10.0_f32.powi(scale)).collect();
            let exact: f64 = v.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
            prop_assume!(exact > 0.0);
            let (unit, inverse) = normalized(&v).unwrap();
            prop_assert_eq!(inverse.to_bits(), inverse_norm(&v).unwrap().to_bits());
            prop_assert!((f64::from(inverse) * exact - 1.0).abs() < 1e-6);
            let norm: f64 = unit.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
            prop_assert!((norm - 1.0).abs() < 1e-6);
            for (unit, value) in unit.iter().zip(&v) {
                prop_assert!((f64::from(*unit) - f64::from(*value) / exact).abs() < 1e-7);
            }
        }
    }

    #[test]
    fn a_norm_has_the_same_bits_on_every_machine() {
        let v: Vec<f32> = (0..1000_u16).map(|i| f32::from(i * 31 % 997) / 499.0 - 1.0).collect();
        assert_eq!(inverse_norm(&v).unwrap().to_bits(), 1_029_702_718);
        assert_eq!(inverse_norm(&[3.0, 4.0]).unwrap().to_bits(), 0.2_f32.to_bits());
    }

    #[test]
    fn a_component_that_is_no_number_is_named() {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for position in 0..20 {
                let mut v = vec![f32::MAX; 20];
                v[position] = odd;
                v[19] = odd;
                assert_eq!(inverse_norm(&v), Err(VectorError::NotFinite { position }));
                assert_eq!(normalized(&v), Err(VectorError::NotFinite { position }));
            }
        }
    }

    #[test]
    fn a_vector_without_direction_is_refused() {
        for v in [&[][..], &[0.0], &[-0.0; 20]] {
            assert_eq!(inverse_norm(v), Err(VectorError::Zero));
        }
    }

    #[test]
    fn norms_are_taken_up_to_the_ends_of_the_range() {
        assert_eq!(inverse_norm(&[f32::MAX; 2]), Err(VectorError::NormOverflow));
        assert_eq!(inverse_norm(&[f32::from_bits(1)]), Err(VectorError::NormUnderflow));
        assert_eq!(inverse_norm(&[f32::MIN_POSITIVE / 8.0]), Err(VectorError::NormUnderflow));
        let (unit, inverse) = normalized(&[f32::MAX]).unwrap();
        assert!(inverse > 0.0);
        assert_eq!(unit, [1.0]);
        let (unit, inverse) = normalized(&[-f32::MIN_POSITIVE]).unwrap();
        assert!(inverse.is_finite());
        assert_eq!(unit, [-1.0]);
    }
}
