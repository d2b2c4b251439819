//! The best rows of a segment by BM25.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use super::bm25::{Bm25, Collection, Impact, Scorer};
use super::postings::Postings;
use crate::Allowed;
use crate::inverted::{self, Bounds, Cursor, List, Ranking, Visited, Walk};

/// A term of a query.
#[derive(Debug, Clone, Copy)]
pub struct Scored<'a> {
    /// The rows that have it.
    pub list: List<'a>,
    /// What it weighs, from [`Collection::weight`] and how often it is asked for.
    pub weight: f32,
}

/// The `k` rows of the highest scores; of equal ones, those of the least keys.
#[derive(Debug, Clone)]
pub struct BestRows<T> {
    k: usize,
    worst_first: BinaryHeap<Reverse<(u32, Reverse<T>)>>,
}

impl<T: Ord + Copy> BestRows<T> {
    /// Keeps so many.
    pub fn new(k: usize) -> Self {
        Self { k, worst_first: BinaryHeap::new() }
    }

    /// Offers a row.
    pub fn push(&mut self, score: u32, key: T) {
        let row = (score, Reverse(key));
        if self.worst_first.len() < self.k {
            self.worst_first.push(Reverse(row));
        } else if let Some(mut worst) = self.worst_first.peek_mut()
            && row > worst.0
        {
            *worst = Reverse(row);
        }
    }

    /// Offers all that another kept.
    pub fn merge(&mut self, other: Self) {
        for Reverse((score, Reverse(key))) in other.worst_first {
            self.push(score, key);
        }
    }

    /// The rows kept, best first.
    pub fn into_sorted(self) -> Vec<(u32, T)> {
        let sorted = self.worst_first.into_sorted_vec();
        sorted.into_iter().map(|Reverse((score, Reverse(key)))| (score, key)).collect()
    }

    /// A row whose key comes after all that were offered has to score more than this to be kept.
    fn to_beat(&self) -> Option<u32> {
        if self.k == 0 {
            return Some(u32::MAX);
        }
        let full = self.worst_first.len() == self.k;
        self.worst_first.peek().filter(|_worst| full).map(|Reverse((score, _key))| *score)
    }
}

/// What is to be found in a segment.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// What rows are ranked by.
    pub terms: &'a [Scored<'a>],
    /// How frequencies and lengths count.
    pub bm25: Bm25,
    /// What everything that is searched comes to.
    pub collection: Collection,
    /// The rows that may be found.
    pub allowed: &'a dyn Allowed,
}

impl fmt::Debug for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted").field("terms", &self.terms).finish_non_exhaustive()
    }
}

/// Offers the allowed rows of a segment that have one of the terms. `key` of a greater row is
/// greater, and than of rows that `best` was offered before. At most O(rows + postings).
pub fn search<T: Ord + Copy>(
    postings: &Postings,
    wanted: Wanted<'_>,
    best: &mut BestRows<T>,
    key: impl Fn(u32) -> T,
) -> Visited {
    let scorer = Scorer::new(wanted.bm25, wanted.collection);
    let mut ranking = ByBm25 { lengths: postings.lengths(), scorer, best, key };
    let terms = wanted.terms.iter().map(|term| (term.list, term.weight));
    inverted::search(postings.rows(), terms, wanted.allowed, &mut ranking)
}

/// What [`search`] scores these rows of a segment, which ascend; 0 those that have none of the terms.
/// O(terms * (rows + blocks of their lists)).
pub fn score_rows(
    postings: &Postings,
    terms: &[Scored<'_>],
    scorer: Scorer,
    rows: &[u32],
) -> Vec<u32> {
    let mut scores = vec![0_u32; rows.len()];
    for term in terms {
        let mut cursor = Cursor::new(term.list);
        for (row, score) in rows.iter().zip(&mut scores) {
            if !cursor.seek(*row) {
                break;
            }
            if cursor.row() == *row {
                let more = scorer.score(term.weight, cursor.frequency(), postings.length(*row));
                *score = score.saturating_add(more);
            }
        }
    }
    scores
}

/// BM25 of a segment's rows.
struct ByBm25<'a, T, K> {
    /// Two bytes of each row.
    lengths: &'a [u8],
    scorer: Scorer,
    best: &'a mut BestRows<T>,
    key: K,
}

impl<T: Ord + Copy, K: Fn(u32) -> T> Ranking for ByBm25<'_, T, K> {
    type Sum = u32;

    #[inline]
    fn score(&self, weight: f32, row: u32, frequency: u32) -> u32 {
        let at = 2 * row as usize;
        let length = self.lengths.get(at..at + 2).and_then(|two| two.first_chunk());
        let length = u16::from_le_bytes(length.copied().unwrap_or_default());
        self.scorer.score(weight, frequency, length)
    }

    fn bound(&self, weight: f32, bounds: Bounds) -> u32 {
        self.scorer.bound(weight, Impact::of_bounds(bounds))
    }

    fn plus(sum: u32, more: u32) -> u32 {
        sum.saturating_add(more)
    }

    fn greater(a: u32, b: u32) -> u32 {
        a.max(b)
    }

    fn is_hopeless(&self, sum: u32, bound: u32) -> bool {
        self.best.to_beat().is_some_and(|beat| sum.saturating_add(bound) <= beat)
    }

    fn offer(&mut self, score: u32, row: u32) {
        self.best.push(score, (self.key)(row));
    }

    /// By what they can add: sums of whole numbers are the same in any order.
    fn arrange(walks: &mut [Walk<'_, u32>]) {
        walks.sort_unstable_by_key(|walk| walk.bound);
    }
}
