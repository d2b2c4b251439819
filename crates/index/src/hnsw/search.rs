//! Walking a graph towards a query.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fmt;

use arrwdb_kernel::prefetch;

use super::beam::Beam;
use super::twins::WithTwins;
use super::visited::Visited;
use super::{Hnsw, NONE};
use crate::sketch::{Aim, MARGIN, MARGIN_AMONG_SOME};
use crate::{Allowed, RowId, Scorer, TopK};

/// Looking at so many sketches takes as long as scoring one row.
pub(crate) const SKETCH_GAIN: u64 = 8;

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
    /// Rows whose sketch was looked at.
    sketched: u64,
}

impl Scratch {
    /// Rows scored by the last walk, whether or not it came to an end.
    pub fn scored(&self) -> u64 {
        self.scored
    }

    /// Rows whose sketch it looked at, those that were scored then included.
    pub fn sketched(&self) -> u64 {
        self.sketched
    }
}

/// What a walk goes towards.
#[derive(Copy, Clone)]
pub struct Toward<'a> {
    /// Scores rows against the query.
    pub scorer: &'a dyn Scorer,
    /// Rules rows out before they are scored.
    pub(crate) aim: Option<&'a Aim<'a>>,
}

impl fmt::Debug for Toward<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Toward").field("aim", &self.aim).finish_non_exhaustive()
    }
}

impl Hnsw {
    /// Finds the `ef` rows nearest to the query that a walk gets to, and leaves them in the
    /// scratch.
    pub fn walk(&self, toward: Toward<'_>, ef: usize, scratch: &mut Scratch) {
        self.begin(toward, ef, scratch);
        if self.rows > 0 {
            let entry = self.descend(toward, scratch);
            self.follow(toward, entry, scratch);
        }
    }

    /// Offers the allowed rows that the last walk found, each with those that are equal to it.
    pub fn offer(&self, scratch: &Scratch, allowed: &dyn Allowed, top: &mut TopK<RowId>) {
        for near in scratch.beam.nearest() {
            let node = near.node();
            let rows = std::iter::once(node).chain(self.twins.of(node).iter().copied());
            for row in rows.map(RowId).filter(|row| allowed.allows(*row)) {
                top.push(near.distance, row);
            }
        }
    }

    fn begin(&self, toward: Toward<'_>, ef: usize, scratch: &mut Scratch) {
        assert_eq!(self.rows, toward.scorer.rows(), "a graph is over the rows that are scored");
        (scratch.scored, scratch.sketched) = (0, 0);
        scratch.beam.reset(ef);
        scratch.visited.reset(self.rows as usize);
    }

    /// The row nearest to the query that going downhill through the upper layers finds.
    fn descend(&self, toward: Toward<'_>, scratch: &mut Scratch) -> u32 {
        let Some(first) = self.upper_rows.first() else { return self.first };
        let (mut node, mut nearest) = (0, score_one(toward, *first, scratch));
        for layer in self.upper.iter().rev() {
            loop {
                scratch.batch.clear();
                scratch.nodes.clear();
                let links = layer.links(node).iter().take_while(|link| **link != NONE);
                scratch.nodes.extend(links);
                let row = |node: u32| RowId(self.upper_rows[node as usize]);
                scratch.batch.extend(scratch.nodes.iter().map(|link| row(*link)));
                if let Some(aim) = toward.aim {
                    scratch.batch.iter().for_each(|row| aim.prefetch(*row));
                    scratch.sketched += scratch.batch.len() as u64;
                    let limit = aim.limit(nearest, MARGIN);
                    scratch.nodes.retain(|link| !aim.is_far(row(*link), limit));
                    scratch.batch.clear();
                    scratch.batch.extend(scratch.nodes.iter().map(|link| row(*link)));
                }
                score(toward, scratch);
                let before = node;
                for (link, distance) in scratch.nodes.iter().zip(&scratch.distances) {
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

    /// Follows the links of the nearest rows until none of the `ef` nearest is left to follow.
    fn follow(&self, toward: Toward<'_>, entry: u32, scratch: &mut Scratch) {
        let distance = score_one(toward, entry, scratch);
        scratch.visited.insert(entry);
        scratch.beam.offer(distance, entry);
        while let Some(row) = scratch.beam.follow() {
            self.meet_neighbors(toward, row, scratch);
            if let Some(next) = scratch.beam.next() {
                prefetch(self.base_links(next));
            }
            leave_out_far(toward, (scratch.beam.bound(), MARGIN), scratch);
            score(toward, scratch);
            for (row, distance) in scratch.batch.iter().zip(&scratch.distances) {
                if *distance <= scratch.beam.bound() {
                    scratch.beam.offer(*distance, row.0);
                }
            }
        }
    }
}

impl Hnsw {
    /// As [`Self::walk`], for the rows that are allowed. The walk goes through the others too, so
    /// that it finds what lies behind them, and keeps the `ef` nearest that are allowed. `false`
    /// once it has scored `scored_max` rows: scoring every allowed row is then the quicker way.
    pub fn walk_allowed(
        &self,
        toward: Toward<'_>,
        wanted: Wanted<'_>,
        scratch: &mut Scratch,
    ) -> bool {
        self.begin(toward, wanted.ef, scratch);
        if self.rows == 0 {
            return true;
        }
        let with_twins = WithTwins { twins: &self.twins, allowed: wanted.allowed };
        let allowed = if self.twins.is_empty() { wanted.allowed } else { &with_twins };
        let entry = self.descend(toward, scratch);
        let distance = score_one(toward, entry, scratch);
        scratch.visited.insert(entry);
        scratch.open.clear();
        scratch.open.push(Reverse(Open { distance, row: entry }));
        if allowed.allows(RowId(entry)) {
            scratch.beam.offer(distance, entry);
        }
        while let Some(Reverse(nearest)) = scratch.open.pop() {
            if nearest.distance > scratch.beam.bound() {
                break;
            }
            if scratch.scored + scratch.sketched / SKETCH_GAIN > wanted.scored_max {
                return false;
            }
            self.meet_neighbors(toward, nearest.row, scratch);
            leave_out_far(toward, (scratch.beam.bound(), MARGIN_AMONG_SOME), scratch);
            score(toward, scratch);
            for (row, distance) in scratch.batch.iter().zip(&scratch.distances) {
                if *distance <= scratch.beam.bound() {
                    scratch.open.push(Reverse(Open { distance: *distance, row: row.0 }));
                    if allowed.allows(*row) {
                        scratch.beam.offer(*distance, row.0);
                    }
                }
            }
        }
        true
    }

    /// Puts the neighbours of a row that were not met yet into the batch, and asks for what they are
    /// looked at by.
    #[inline]
    fn meet_neighbors(&self, toward: Toward<'_>, row: u32, scratch: &mut Scratch) {
        let Scratch { visited, batch, .. } = scratch;
        let links = self.base_links(row);
        batch.resize(links.len(), RowId(0));
        let mut met = 0;
        for link in links.iter().take_while(|link| **link != NONE) {
            // Written whether or not it is new: there is no branch to be foreseen.
            batch[met] = RowId(*link);
            met += usize::from(visited.insert(*link));
        }
        batch.truncate(met);
        if let Some(aim) = toward.aim {
            for row in batch.iter() {
                aim.prefetch(*row);
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

/// Takes out of the batch what is likely beyond the bound by its sketch.
#[inline]
fn leave_out_far(toward: Toward<'_>, (bound, margin): (f32, f32), scratch: &mut Scratch) {
    let Some(aim) = toward.aim.filter(|_aim| bound < f32::INFINITY) else { return };
    scratch.sketched += scratch.batch.len() as u64;
    let limit = aim.limit(bound, margin);
    scratch.batch.retain(|row| {
        let near = !aim.is_far(*row, limit);
        if near {
            toward.scorer.prefetch(*row);
        }
        near
    });
}

/// Scores one row.
fn score_one(toward: Toward<'_>, row: u32, scratch: &mut Scratch) -> f32 {
    scratch.batch.clear();
    scratch.batch.push(RowId(row));
    score(toward, scratch);
    scratch.distances[0]
}

/// Scores the scratch's batch.
#[inline]
fn score(toward: Toward<'_>, scratch: &mut Scratch) {
    scratch.distances.resize(scratch.batch.len(), 0.0);
    toward.scorer.score(&scratch.batch, &mut scratch.distances);
    scratch.scored += scratch.batch.len() as u64;
}
