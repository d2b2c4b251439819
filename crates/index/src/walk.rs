//! What a search of a structure is asked, and what it did.

use std::fmt;

use crate::brute_force;
use crate::{Allowed, RowId, Scorer, TopK};

/// What a structure that sees vectors itself is asked.
#[derive(Copy, Clone)]
pub struct Query<'a> {
    /// Scores the segment's rows against `vector`.
    pub scorer: &'a dyn Scorer,
    /// The query; for [`crate::Metric::Cosine`] a unit vector: see [`crate::normalized`].
    pub vector: &'a [f32],
    /// The rows that may be answered.
    pub allowed: &'a dyn Allowed,
}

impl fmt::Debug for Query<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query").field("dims", &self.vector.len()).finish_non_exhaustive()
    }
}

/// What a search did.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Rows scored, those that a scan read past included.
    pub scored: u64,
    /// Whether the structure was of no use and the rest of the rows was scanned.
    pub fell_back: bool,
}

/// Rows scored at a time.
const BLOCK_ROWS: usize = 256;

/// Rows gathered to be scored together, and offered in the order in which they came.
pub(crate) struct Batch {
    rows: [RowId; BLOCK_ROWS],
    count: usize,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self { rows: [RowId(0); BLOCK_ROWS], count: 0 }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.count == BLOCK_ROWS
    }

    /// Adds a row.
    ///
    /// # Panics
    /// If the batch is full.
    pub(crate) fn add(&mut self, row: RowId) {
        self.rows[self.count] = row;
        self.count += 1;
    }

    /// Offers the rows gathered to `top` and forgets them. Returns how many they were.
    pub(crate) fn offer<T: Ord + Copy>(
        &mut self,
        scorer: &dyn Scorer,
        top: &mut TopK<T>,
        key: impl Fn(RowId) -> T,
    ) -> u64 {
        let mut distances = [0.0_f32; BLOCK_ROWS];
        let (rows, distances) = (&self.rows[..self.count], &mut distances[..self.count]);
        scorer.score(rows, distances);
        for (row, distance) in rows.iter().zip(distances) {
            if *distance <= top.bound() {
                top.push(*distance, key(*row));
            }
        }
        std::mem::take(&mut self.count) as u64
    }
}

/// A set of rows, one bit each.
pub(crate) struct RowSet {
    words: Vec<u64>,
}

impl RowSet {
    /// An empty set for rows below `rows`.
    pub(crate) fn new(rows: u32) -> Self {
        Self { words: vec![0; (rows as usize).div_ceil(64)] }
    }

    /// Adds a row; whether it was new.
    #[inline]
    pub(crate) fn insert(&mut self, row: u32) -> bool {
        let (word, bit) = (&mut self.words[row as usize / 64], 1 << (row % 64));
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}

/// Whether `order` has each row below `rows` once.
pub(crate) fn is_permutation(order: &[u32], rows: u32) -> bool {
    let mut met = RowSet::new(rows);
    order.len() == rows as usize && order.iter().all(|row| *row < rows && met.insert(*row))
}

/// Scans the allowed rows that are not in `seen`. Returns how many rows there were to score.
pub(crate) fn scan_rest<T: Ord + Copy>(
    query: Query<'_>,
    seen: &RowSet,
    top: &mut TopK<T>,
    key: impl Fn(RowId) -> T,
) -> u64 {
    let unseen = Unseen { seen, allowed: query.allowed };
    let rows = query.scorer.rows();
    brute_force::search(query.scorer, 0..rows, &unseen, top, key);
    let mut scored = 0;
    for first in (0..rows).step_by(64) {
        let within = rows - first;
        let mask = if within < 64 { (1 << within) - 1 } else { u64::MAX };
        scored += u64::from((unseen.word(RowId(first)) & mask).count_ones());
    }
    scored
}

/// Allowed rows that were not seen yet.
struct Unseen<'a> {
    seen: &'a RowSet,
    allowed: &'a dyn Allowed,
}

impl Unseen<'_> {
    fn seen(&self, row: RowId) -> u64 {
        self.seen.words.get(row.0 as usize / 64).copied().unwrap_or(0)
    }
}

impl Allowed for Unseen<'_> {
    fn allows(&self, row: RowId) -> bool {
        self.seen(row) >> (row.0 % 64) & 1 == 0 && self.allowed.allows(row)
    }

    fn word(&self, first: RowId) -> u64 {
        self.allowed.word(first) & !self.seen(first)
    }
}
