//! Walking a graph towards a query.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fmt;

use arrwdb_kernel::prefetch;

use super::beam::Beam;
use super::twins::WithTwins;
use super::visited::Visited;
use super::{Hnsw, NONE};
use crate::{Allowed, RowId, Scorer, TopK};

/// Memory of a walk, to be used again.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) visited: Visited,
    pub(super) beam: Beam,
    pub(super) batch: Vec<RowId>,
    pub(super) nodes: Vec<u32>,
    pub(super) distances: Vec<f32>,
    open: BinaryHeap<Reverse<Open>>,
    /// Rows scored since the last reset.
    pub(super) scored: u64,
}

impl Scratch {
    /// Rows scored by the last walk, whether or not it came to an end.
    pub fn scored(&self) -> u64 {
        self.scored
    }
}

impl Hnsw {
    /// Offers the rows near to `scorer`'s query to `top`: the `ef` nearest that a walk finds.
    /// Returns how many rows it scored.
    pub fn search<T: Ord + Copy>(
        &self,
        scorer: &dyn Scorer,
        ef: usize,
        scratch: &mut Scratch,
        top: &mut TopK<T>,
        key: impl Fn(RowId) -> T,
    ) -> u64 {
        assert_eq!(self.rows, scorer.rows(), "a graph is over the rows that are scored");
        scratch.scored = 0;
        if self.rows == 0 {
            return 0;
        }
        let entry = self.descend(scorer, scratch);
        self.walk(scorer, entry, ef, scratch);
        for near in scratch.beam.nearest() {
            top.push(near.distance, key(RowId(near.node())));
            for twin in self.twins.of(near.node()) {
                top.push(near.distance, key(RowId(*twin)));
            }
        }
        scratch.scored
    }

    /// The row nearest to the query that going downhill through the upper layers finds.
    fn descend(&self, scorer: &dyn Scorer, scratch: &mut Scratch) -> u32 {
        let Some(first) = self.upper_rows.first() else { return self.first };
        let (mut node, mut nearest) = (0, self.score_one(scorer, *first, scratch));
        for layer in self.upper.iter().rev() {
            loop {
                scratch.batch.clear();
                let links = layer.links(node);
                let links = links.iter().take_while(|link| **link != NONE);
                scratch.batch.extend(links.map(|link| RowId(self.upper_rows[*link as usize])));
                score(scorer, scratch);
                let before = node;
                for (link, distance) in layer.links(node).iter().zip(&scratch.distances) {
                    if *distance < nearest {
                        (node, nearest) = (*link, *distance);
                    }
                }
                if node == before {
                    break;
                }
            }
        }
        self.upper_rows[node as usize]
    }

    fn score_one(&self, scorer: &dyn Scorer, row: u32, scratch: &mut Scratch) -> f32 {
        scratch.batch.clear();
        scratch.batch.push(RowId(row));
        score(scorer, scratch);
        scratch.distances[0]
    }

    /// Follows the links of the nearest rows until none of the `ef` nearest is left to follow.
    fn walk(&self, scorer: &dyn Scorer, entry: u32, ef: usize, scratch: &mut Scratch) {
        let distance = self.score_one(scorer, entry, scratch);
        scratch.beam.reset(ef);
        scratch.visited.reset(self.rows as usize);
        scratch.visited.insert(entry);
        scratch.beam.offer(distance, entry);
        while let Some(row) = scratch.beam.follow() {
            self.meet_neighbors(row, scratch);
            if let Some(next) = scratch.beam.next() {
                prefetch(self.base_links(next));
            }
            score(scorer, scratch);
            for (row, distance) in scratch.batch.iter().zip(&scratch.distances) {
                if *distance <= scratch.beam.bound() {
                    scratch.beam.offer(*distance, row.0);
                }
            }
        }
    }
}

impl Hnsw {
    /// As [`Self::search`], for the rows that are allowed. The walk goes through the others too,
    /// so that it finds what lies behind them, and keeps the `ef` nearest that are allowed.
    /// `None`, with nothing offered, once it has scored `scored_max` rows: scoring every allowed
    /// row is then the quicker way.
    pub fn search_allowed<T: Ord + Copy>(
        &self,
        scorer: &dyn Scorer,
        wanted: Wanted<'_>,
        scratch: &mut Scratch,
        top: &mut TopK<T>,
        key: impl Fn(RowId) -> T,
    ) -> Option<u64> {
        assert_eq!(self.rows, scorer.rows(), "a graph is over the rows that are scored");
        scratch.scored = 0;
        if self.rows == 0 {
            return Some(0);
        }
        let with_twins = WithTwins { twins: &self.twins, allowed: wanted.allowed };
        let allowed = if self.twins.is_empty() { wanted.allowed } else { &with_twins };
        let entry = self.descend(scorer, scratch);
        let distance = self.score_one(scorer, entry, scratch);
        scratch.visited.reset(self.rows as usize);
        scratch.visited.insert(entry);
        scratch.beam.reset(wanted.ef);
        scratch.open.clear();
        scratch.open.push(Reverse(Open { distance, row: entry }));
        if allowed.allows(RowId(entry)) {
            scratch.beam.offer(distance, entry);
        }
        while let Some(Reverse(nearest)) = scratch.open.pop() {
            if nearest.distance > scratch.beam.bound() {
                break;
            }
            if scratch.scored > wanted.scored_max {
                return None;
            }
            self.meet_neighbors(nearest.row, scratch);
            score(scorer, scratch);
            for (row, distance) in scratch.batch.iter().zip(&scratch.distances) {
                if *distance <= scratch.beam.bound() {
                    scratch.open.push(Reverse(Open { distance: *distance, row: row.0 }));
                    if allowed.allows(*row) {
                        scratch.beam.offer(*distance, row.0);
                    }
                }
            }
        }
        for near in scratch.beam.nearest() {
            let node = near.node();
            let rows = std::iter::once(node).chain(self.twins.of(node).iter().copied());
            for row in rows.map(RowId).filter(|row| wanted.allowed.allows(*row)) {
                top.push(near.distance, key(row));
            }
        }
        Some(scratch.scored)
    }

    /// Puts the neighbours of a row that were not met yet into the batch.
    #[inline]
    fn meet_neighbors(&self, row: u32, scratch: &mut Scratch) {
        scratch.batch.clear();
        for link in self.base_links(row).iter().take_while(|link| **link != NONE) {
            if scratch.visited.insert(*link) {
                scratch.batch.push(RowId(*link));
            }
        }
    }
}

/// What a walk among some of the rows looks for.
#[derive(Copy, Clone)]
pub struct Wanted<'a> {
    /// How many of the nearest allowed rows it keeps.
    pub ef: usize,
    /// The rows that may be answered.
    pub allowed: &'a dyn Allowed,
    /// How many rows it may score.
    pub scored_max: u64,
}

impl fmt::Debug for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted").field("ef", &self.ef).finish_non_exhaustive()
    }
}

/// A row whose links are still to be followed.
#[derive(Copy, Clone, Debug)]
pub(super) struct Open {
    distance: f32,
    row: u32,
}

impl Ord for Open {
    fn cmp(&self, other: &Self) -> Ordering {
        self.distance.total_cmp(&other.distance).then_with(|| self.row.cmp(&other.row))
    }
}

impl PartialOrd for Open {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Open {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Open {}

/// Scores the scratch's batch.
#[inline]
fn score(scorer: &dyn Scorer, scratch: &mut Scratch) {
    scratch.distances.resize(scratch.batch.len(), 0.0);
    scorer.score(&scratch.batch, &mut scratch.distances);
    scratch.scored += scratch.batch.len() as u64;
}
