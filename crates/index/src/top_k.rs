//! The k nearest of what is pushed, in the total order (distance, key).

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A bounded collection of the `k` nearest candidates no farther than a threshold.
///
/// The key breaks ties between equal distances and names the candidate: a [`crate::RowId`] within
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
