//! The inverted index of a segment's sparse vectors.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::vector::{ENTRIES_MAX, SparseQuery, SparseVector, product};
use crate::inverted::{self, BLOCK, Bounds, Growing, Head, Layout, Lists, Ranking, Visited, Walk};
use crate::scorer::score_of_sum;
use crate::{Allowed, RowId, TopK};

/// What it is an index of, and the version of its layout.
const KIND: [u64; 2] = [u64::from_le_bytes(*b"sparse\0\0"), 2];
/// Bits of a value that its bound drops.
const DROPPED_BITS: u32 = 16;
/// More than what so many additions in f64 are wrong by, of what they add up.
const SUM_ERROR: f64 = f64::EPSILON * ENTRIES_MAX as f64;
/// More than what rounding to f32 is wrong by, of what it rounds and where that is next to nothing.
const ROUNDING_ERROR: (f64, f64) = (f32::EPSILON as f64, f32::MIN_POSITIVE as f64);

/// Collects the sparse vectors of rows, in order.
#[derive(Debug, Default)]
pub struct SparseBuilder {
    places: HashMap<u32, u32>,
    lists: Vec<Growing>,
    rows: u32,
    entries: u64,
}

impl SparseBuilder {
    /// Adds the next row, which may have no entry. O(entries).
    ///
    /// # Panics
    /// If there are 2^32 - 1 rows.
    pub fn push(&mut self, vector: SparseVector<'_>) {
        assert!(self.rows < u32::MAX, "rows are counted in 32 bits");
        for (index, value) in vector.entries() {
            let place = *self.places.entry(index).or_insert_with(|| {
                self.lists.push(Growing::default());
                // There are no more than indices.
                u32::try_from(self.lists.len() - 1).unwrap_or(u32::MAX)
            });
            // Bits of what is not zero are not 0, as the numbers of a list are not.
            self.lists[place as usize].push(self.rows, value.to_bits());
        }
        self.rows += 1;
        self.entries += vector.len() as u64;
    }

    /// The index of all rows. O(entries + indices log indices).
    pub fn finish(self) -> SparseIndex {
        let mut in_order: Vec<(u32, u32)> = self.places.into_iter().collect();
        in_order.sort_unstable();
        let mut lists = Lists::default();
        for (index, place) in in_order {
            lists.push(&term(index), &self.lists[place as usize], None, bounds);
        }
        let head = Head { kind: KIND, rows: self.rows, total: self.entries };
        SparseIndex { layout: Layout::of(head, &[], &lists, &[]) }
    }
}

/// How an index is named, so that names are in the order of indices.
fn term(index: u32) -> [u8; 4] {
    index.to_be_bytes()
}

/// The sparse vectors of a segment's rows: for each index the rows that have it, in one run of bytes.
///
/// The values are kept as they are; a block of 128 rows takes 514 bytes and those of their
/// differences, and 18 for its entry.
pub struct SparseIndex {
    layout: Layout,
}

impl fmt::Debug for SparseIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, entries) = (self.rows(), self.entries());
        let mut fields = f.debug_struct("SparseIndex");
        fields.field("rows", &rows).field("entries", &entries).finish_non_exhaustive()
    }
}

impl SparseIndex {
    /// The index that lies in `bytes`; `None` if they are none, or one of another version of the
    /// layout. Of what is inside nothing is believed: what does not hold reads as nothing. O(1).
    pub fn open(bytes: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Option<Self> {
        Some(Self { layout: Layout::open(bytes, KIND, 0)? })
    }

    /// The bytes that [`SparseIndex::open`] takes.
    pub fn as_bytes(&self) -> &[u8] {
        self.layout.as_bytes()
    }

    /// How many rows the segment has, with those that have no entry.
    pub fn rows(&self) -> u32 {
        self.layout.head.rows
    }

    /// How many entries all rows have together.
    pub fn entries(&self) -> u64 {
        self.layout.head.total
    }

    /// Offers the allowed rows that share an index with the query to `top` by their scores, under the
    /// key `key(row)`, but for those that cannot be kept ([`TopK::into_scores`] has the answer). A
    /// score is as [`SparseQuery::score`] gives it.
    ///
    /// At most O(entries of rows that have the query's indices + rows / 64), and 1 KiB of memory for
    /// each of the query's.
    pub fn search<T: Ord + Copy>(
        &self,
        query: &SparseQuery,
        allowed: &dyn Allowed,
        top: &mut TopK<T>,
        key: impl Fn(RowId) -> T,
    ) -> Visited {
        // Nothing can be kept.
        if top.bound().is_nan() {
            return Visited::default();
        }
        // Those that are added up last come first.
        let terms = query.entries().rev();
        let terms = terms.filter_map(|(index, value)| {
            let list = self.layout.find(&term(index))?.list;
            Some((list, value))
        });
        let mut ranking = ByProduct { top, key };
        inverted::search(self.rows(), terms, allowed, &mut ranking)
    }
}

/// Products with a query, highest first.
struct ByProduct<'a, T, K> {
    top: &'a mut TopK<T>,
    key: K,
}

impl<T: Ord + Copy, K: Fn(RowId) -> T> Ranking for ByProduct<'_, T, K> {
    type Sum = f64;

    #[inline]
    fn score(&self, weight: f32, _row: u32, number: u32) -> f64 {
        product(weight, f32::from_bits(number))
    }

    fn bound(&self, weight: f32, [greatest, least, _]: Bounds) -> f64 {
        let most = if weight > 0.0 { greatest } else { least };
        let most = f32::from_bits(u32::from(most) << DROPPED_BITS);
        product(weight, most).max(0.0)
    }

    #[inline]
    fn plus(sum: f64, more: f64) -> f64 {
        sum + more
    }

    fn greater(a: f64, b: f64) -> f64 {
        a.max(b)
    }

    /// What is added up is at most `bound` above what is below zero, so that the errors of its
    /// additions are at most a part of both; and the score that comes of it is rounded.
    #[inline]
    fn is_hopeless(&self, sum: f64, bound: f64) -> bool {
        let to_reach = f64::from(self.top.score_to_reach());
        let (part, least) = ROUNDING_ERROR;
        let most = sum + bound + SUM_ERROR * (sum.abs() + bound);
        most.max(f64::from(f32::MIN)) < to_reach - part * to_reach.abs() - least
    }

    fn offer(&mut self, sum: f64, row: u32) {
        self.top.push_score(score_of_sum(sum), (self.key)(RowId(row)));
    }

    /// As they are: every row's products are added up in one order.
    fn arrange(_walks: &mut [Walk<'_, f64>]) {}
}

/// The greatest and the least value of a block, in the 16 bits that count most, rounded outwards.
fn bounds(block: &[(u32, u32); BLOCK]) -> Bounds {
    let values = block.iter().map(|(_row, bits)| f32::from_bits(*bits));
    let (most, least) = values
        .fold((f32::MIN, f32::MAX), |(most, least), value| (most.max(value), least.min(value)));
    [upwards(most), upwards(-least) ^ SIGN, 0]
}

/// The sign of a value, among its 16 bits.
const SIGN: u16 = 1 << 15;

/// The 16 bits of the least such number that is not below `value`.
fn upwards(value: f32) -> u16 {
    let bits = value.to_bits();
    let kept = u16::try_from(bits >> DROPPED_BITS).unwrap_or(u16::MAX);
    // What is dropped of a negative number makes it greater.
    let dropped = bits << DROPPED_BITS != 0 && kept & SIGN == 0;
    kept + u16::from(dropped)
}
