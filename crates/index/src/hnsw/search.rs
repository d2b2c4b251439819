//! Walking a graph towards a query.

use arrwdb_kernel::prefetch;

use super::beam::Beam;
use super::visited::Visited;
use super::{Hnsw, NONE};
use crate::{RowId, Scorer, TopK};

/// Memory of a walk, to be used again.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) visited: Visited,
    pub(super) beam: Beam,
    pub(super) batch: Vec<RowId>,
    pub(super) nodes: Vec<u32>,
    pub(super) distances: Vec<f32>,
    /// Rows scored since the last reset.
    pub(super) scored: u64,
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
        }
        scratch.scored
    }

    /// The row nearest to the query that going downhill through the upper layers finds.
    fn descend(&self, scorer: &dyn Scorer, scratch: &mut Scratch) -> u32 {
        let Some(first) = self.upper_rows.first() else { return 0 };
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
            scratch.batch.clear();
            for link in self.base_links(row).iter().take_while(|link| **link != NONE) {
                if scratch.visited.insert(*link) {
                    scratch.batch.push(RowId(*link));
                }
            }
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

/// Scores the scratch's batch.
#[inline]
fn score(scorer: &dyn Scorer, scratch: &mut Scratch) {
    scratch.distances.resize(scratch.batch.len(), 0.0);
    scorer.score(&scratch.batch, &mut scratch.distances);
    scratch.scored += scratch.batch.len() as u64;
}
