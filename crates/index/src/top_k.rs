//! The k nearest of what is pushed, in the total order (distance, key).

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::{Neighbor, RowId};

/// A bounded collection of the `k` nearest candidates no farther than a threshold.
///
/// The key breaks ties between equal distances and names the candidate: a [`RowId`] within
/// one segment, (segment, row) across several. What is kept depends on the set of candidates
/// pushed and never on their order, so partial collections merge to the same answer (I2).
///
/// Memory grows with what is kept, at most `k` entries. A push costs O(log k), and O(1) for a
/// candidate beyond [`TopK::bound`].
#[derive(Clone, Debug)]
pub struct TopK<T> {
    k: usize,
    bound: f32,
    farthest_first: BinaryHeap<Candidate<T>>,
}

impl<T: Ord + Copy> TopK<T> {
    /// Keeps the `k` nearest of all candidates.
    pub fn new(k: usize) -> Self {
        Self::within(k, f32::INFINITY)
    }

    /// Keeps the `k` nearest of the candidates with `distance <= threshold`. A NaN threshold
    /// keeps none.
    pub fn within(k: usize, threshold: f32) -> Self {
        let bound = if k == 0 { f32::NAN } else { threshold };
        Self { k, bound, farthest_first: BinaryHeap::new() }
    }

    /// How many candidates are kept at most.
    pub fn k(&self) -> usize {
        self.k
    }

    /// A candidate can be kept only if `distance <= bound()`, which is the one comparison a scan
    /// needs. Falls as nearer candidates come; NaN (so that nothing compares) if nothing can be
    /// kept. A candidate at the bound itself is decided by its key.
    pub fn bound(&self) -> f32 {
        self.bound
    }

    /// Offers a candidate. Beyond the bound, or NaN, it is dropped.
    pub fn push(&mut self, distance: f32, key: T) {
        let inside = distance <= self.bound;
        if !inside {
            return;
        }
        // Adding zero turns -0 into 0, so that the two tie as they compare.
        let candidate = Candidate { distance: distance + 0.0, key };
        if self.farthest_first.len() < self.k {
            self.farthest_first.push(candidate);
        } else if let Some(mut farthest) = self.farthest_first.peek_mut()
            && candidate < *farthest
        {
            *farthest = candidate;
        }
        if self.farthest_first.len() == self.k
            && let Some(farthest) = self.farthest_first.peek()
        {
            self.bound = farthest.distance;
        }
    }

    /// As [`TopK::within`], of candidates by scores, of which more is better: keeps the `k` highest
    /// with `score >= threshold`.
    pub fn reaching(k: usize, threshold: f32) -> Self {
        Self::within(k, -threshold)
    }

    /// Offers a candidate by its score, whose negative is its distance.
    pub fn push_score(&mut self, score: f32, key: T) {
        self.push(-score, key);
    }

    /// As [`TopK::bound`]: a candidate can be kept only if `score >= score_to_reach()`.
    pub fn score_to_reach(&self) -> f32 {
        -self.bound
    }

    /// What was kept of candidates by scores, highest first, ties by key.
    pub fn into_scores(self) -> Vec<(f32, T)> {
        let sorted = self.into_sorted().into_iter();
        // From zero, so that none is -0.
        sorted.map(|(distance, key)| (0.0 - distance, key)).collect()
    }

    /// Offers everything `other` kept. Both were made with the same `k` and threshold.
    pub fn merge(&mut self, other: Self) {
        for candidate in other.farthest_first {
            self.push(candidate.distance, candidate.key);
        }
    }

    /// How many candidates are kept.
    pub fn len(&self) -> usize {
        self.farthest_first.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.farthest_first.is_empty()
    }

    /// What was kept, nearest first, ties by key.
    pub fn into_sorted(self) -> Vec<(f32, T)> {
        let sorted = self.farthest_first.into_sorted_vec();
        sorted.into_iter().map(|candidate| (candidate.distance, candidate.key)).collect()
    }
}

impl TopK<RowId> {
    /// What was kept of one segment, nearest first.
    pub fn into_neighbors(self) -> Vec<Neighbor> {
        let sorted = self.into_sorted();
        sorted.into_iter().map(|(distance, row)| Neighbor { row, distance }).collect()
    }
}

#[derive(Copy, Clone, Debug)]
struct Candidate<T> {
    distance: f32,
    key: T,
}

impl<T: Ord> Ord for Candidate<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.distance.total_cmp(&other.distance).then_with(|| self.key.cmp(&other.key))
    }
}

impl<T: Ord> PartialOrd for Candidate<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Ord> PartialEq for Candidate<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T: Ord> Eq for Candidate<T> {}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::TopK;
    use crate::{Neighbor, RowId};

    proptest! {
        #[test]
        fn i2_what_is_kept_is_the_front_of_the_sorted_list_in_any_order_of_pushes(
            // Few distinct distances, so that ties are common.
            mut candidates in vec((0_u8..6, 0_u32..50), 0..80).prop_map(|pairs| {
                pairs.into_iter().map(|(d, key)| (f32::from(d) / 2.0, key)).collect::<Vec<_>>()
            }),
            k in 0_usize..20,
            threshold in prop_oneof![
                Just(f32::INFINITY),
                (0_u8..12).prop_map(|quarters| f32::from(quarters) / 4.0),
            ],
            cut in 0_usize..80,
        ) {
            let cut = cut.min(candidates.len());
            let (mut first, mut second) = (TopK::within(k, threshold), TopK::within(k, threshold));
            for (distance, key) in &candidates[..cut] {
                first.push(*distance, *key);
            }
            for (distance, key) in &candidates[cut..] {
                second.push(*distance, *key);
            }
            first.merge(second);
            candidates.retain(|(distance, _)| *distance <= threshold);
            candidates.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            candidates.truncate(k);
            prop_assert_eq!(first.len(), candidates.len());
            prop_assert_eq!(first.into_sorted(), candidates);
        }
    }

    #[test]
    fn the_bound_is_the_threshold_until_full_and_then_the_farthest_kept() {
        let mut top = TopK::within(2, 0.9);
        assert_eq!(top.bound().to_bits(), 0.9_f32.to_bits());
        top.push(0.5, 1);
        assert_eq!(top.bound().to_bits(), 0.9_f32.to_bits());
        top.push(0.7, 2);
        assert_eq!(top.bound().to_bits(), 0.7_f32.to_bits());
        top.push(0.1, 3);
        assert_eq!(top.bound().to_bits(), 0.5_f32.to_bits());
    }

    #[test]
    fn nothing_is_kept_of_zero_or_within_nan() {
        for mut top in [TopK::new(0), TopK::within(3, f32::NAN)] {
            top.push(0.0, 1);
            top.push(f32::NEG_INFINITY, 1);
            assert!(top.bound().is_nan() && top.is_empty());
        }
    }

    #[test]
    fn nan_is_dropped_and_infinity_is_kept() {
        let mut top = TopK::new(3);
        top.push(f32::NAN, 1);
        top.push(f32::INFINITY, 2);
        assert_eq!(top.into_sorted(), [(f32::INFINITY, 2)]);
    }

    #[test]
    fn i2_the_two_zeros_tie() {
        let mut top = TopK::new(1);
        top.push(0.0, 1);
        top.push(-0.0, 2);
        assert_eq!(top.into_sorted(), [(0.0, 1)]);
    }

    #[test]
    fn i2_scores_are_kept_from_the_highest_on() {
        let mut top = TopK::reaching(2, -1.0);
        assert_eq!(top.score_to_reach().to_bits(), (-1.0_f32).to_bits());
        for (score, key) in [(-1.5, 1), (-1.0, 2), (0.0, 4), (-0.0, 3), (f32::NAN, 0)] {
            top.push_score(score, key);
        }
        assert_eq!(top.score_to_reach().abs().to_bits(), 0);
        let found = top.into_scores().into_iter().map(|(score, key)| (score.to_bits(), key));
        assert_eq!(found.collect::<Vec<_>>(), [(0, 3), (0, 4)]);
    }

    #[test]
    fn i2_neighbors_come_in_their_own_order() {
        let mut top = TopK::new(3);
        for (distance, row) in [(0.5, 2), (0.5, 1), (0.1, 9)] {
            top.push(distance, RowId(row));
        }
        let found = top.into_neighbors();
        assert!(found.is_sorted());
        assert_eq!(found[0], Neighbor { row: RowId(9), distance: 0.1 });
        assert_eq!(found[1].row, RowId(1));
    }

    #[test]
    fn a_huge_k_takes_no_memory_before_there_are_candidates() {
        let mut top = TopK::new(usize::MAX);
        top.push(1.0, 1);
        assert_eq!(top.len(), 1);
    }
}
