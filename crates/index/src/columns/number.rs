//! Numbers of JSON in one exact order.

use std::cmp::Ordering;

/// A number as JSON has them: a whole number of 64 bits, or a finite f64. Equal numbers are equal
/// however they are written, and no two different ones are: a whole number beyond 2^53 is not rounded.
#[derive(Debug, Clone, Copy)]
pub struct Number {
    /// The nearest f64, never -0.
    near: f64,
    /// What it lacks: rounding keeps the order, so that this decides among those of one `near`.
    rest: i16,
}

impl Number {
    /// An f64; `None` if it is not finite.
    pub fn of_f64(number: f64) -> Option<Self> {
        // -0 is 0.
        number.is_finite().then_some(Self { near: number + 0.0, rest: 0 })
    }

    /// A whole number.
    pub fn of_i64(number: i64) -> Self {
        Self::of_i128(number.into())
    }

    /// A whole number.
    pub fn of_u64(number: u64) -> Self {
        Self::of_i128(number.into())
    }

    fn of_i128(number: i128) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "what is lost is kept beside it")]
        let near = number as f64;
        #[expect(clippy::cast_possible_truncation, reason = "it is a whole number of 65 bits")]
        let rest = number - near as i128;
        // Two neighbours among f64 are at most 2^11 apart here.
        Self { near, rest: i16::try_from(rest).unwrap_or(0) }
    }

    /// The number, if it is a whole one of 64 bits, with a sign or without.
    pub fn as_whole(self) -> Option<i128> {
        const BEYOND: f64 = 18_446_744_073_709_551_616.0;
        if self.near.fract() != 0.0 || !(-BEYOND / 2.0..=BEYOND).contains(&self.near) {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "it is a whole number of 65 bits")]
        let whole = self.near as i128 + i128::from(self.rest);
        (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&whole).then_some(whole)
    }

    /// The nearest f64.
    pub fn as_f64(self) -> f64 {
        self.near
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        self.near.total_cmp(&other.near).then(self.rest.cmp(&other.rest))
    }
}

impl std::hash::Hash for Number {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.near.to_bits(), self.rest).hash(state);
    }
}
