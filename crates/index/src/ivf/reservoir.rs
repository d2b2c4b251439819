//! The least of many estimates.

/// Keeps the `keep` least of what it is offered, by estimate and then by number, and says early
/// what cannot be among them. Order of offers does not matter to what is kept.
#[derive(Debug, Default)]
pub(crate) struct Reservoir {
    keep: usize,
    /// Estimates in the upper half, numbers in the lower.
    entries: Vec<u64>,
    bound: f32,
}

impl Reservoir {
    pub(crate) fn reset(&mut self, keep: usize) {
        self.keep = keep.max(1);
        self.entries.clear();
        self.bound = f32::INFINITY;
    }

    /// An estimate above this is not kept.
    #[inline]
    pub(crate) fn bound(&self) -> f32 {
        self.bound
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What is not a number is as far as can be: where squares overflow, its sign would be another
    /// one on other CPUs.
    #[inline]
    pub(crate) fn push(&mut self, estimate: f32, number: u32) {
        let estimate = if estimate.is_nan() { f32::INFINITY } else { estimate };
        self.entries.push(u64::from(ordered(estimate)) << 32 | u64::from(number));
        if self.entries.len() >= self.keep.saturating_mul(2).saturating_add(32) {
            self.shrink();
        }
    }

    /// The numbers kept, in no order.
    pub(crate) fn numbers(&mut self) -> impl Iterator<Item = u32> {
        if self.entries.len() > self.keep {
            self.shrink();
        }
        self.entries.iter().map(|entry| u32::try_from(entry & LOW).unwrap_or(u32::MAX))
    }

    #[cold]
    fn shrink(&mut self) {
        self.entries.select_nth_unstable(self.keep - 1);
        self.entries.truncate(self.keep);
        let last = self.entries[self.keep - 1] >> 32;
        self.bound = unordered(u32::try_from(last).unwrap_or(u32::MAX));
    }
}

const LOW: u64 = u32::MAX as u64;
const SIGN: u32 = 1 << 31;

/// Whole numbers that order as the floats do in [`f32::total_cmp`].
#[inline]
fn ordered(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

fn unordered(bits: u32) -> f32 {
    f32::from_bits(if bits & SIGN == 0 { !bits } else { bits & !SIGN })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::{Reservoir, ordered, unordered};

    proptest! {
        #[test]
        fn what_is_kept_is_the_front_of_the_sorted_list(
            estimates in vec(-50_i8..50, 0..400),
            keep in 1_usize..40,
        ) {
            let mut reservoir = Reservoir::default();
            reservoir.reset(keep);
            let mut all: Vec<(i8, u32)> = estimates.into_iter().zip(0..).collect();
            for (estimate, number) in &all {
                if f32::from(*estimate) <= reservoir.bound() {
                    reservoir.push(f32::from(*estimate), *number);
                }
            }
            let mut kept: Vec<u32> = reservoir.numbers().collect();
            all.sort_unstable();
            let mut expect: Vec<u32> = all.iter().take(keep).map(|(_, number)| *number).collect();
            kept.sort_unstable();
            expect.sort_unstable();
            prop_assert_eq!(kept, expect);
        }

        #[test]
        fn what_is_no_number_is_the_farthest_whatever_its_sign(
            negative in any::<bool>(),
            others in vec(-50_i8..50, 3..40),
        ) {
            let nan = if negative { -f32::NAN } else { f32::NAN };
            let mut reservoir = Reservoir::default();
            reservoir.reset(others.len());
            reservoir.push(nan, 1000);
            (0..).zip(&others).for_each(|(number, other)| reservoir.push((*other).into(), number));
            let kept: Vec<u32> = reservoir.numbers().collect();
            prop_assert!(kept.len() == others.len() && !kept.contains(&1000), "{kept:?}");
        }

        #[test]
        fn numbers_order_as_floats_do(a in any::<u32>(), b in any::<u32>()) {
            let (x, y) = (f32::from_bits(a), f32::from_bits(b));
            prop_assert_eq!(ordered(x).cmp(&ordered(y)), x.total_cmp(&y));
            prop_assert_eq!(unordered(ordered(x)).to_bits(), a);
        }
    }
}
