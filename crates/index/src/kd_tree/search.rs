//! Walking a tree, the most promising node first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;

use super::bounds::Bounds;
use super::{KdTree, halves};
use crate::walk::{Batch, RowSet, scan_rest};
use crate::{Query, RowId, TopK, Walk};

/// After one row in so many is seen, and something is known of how near the nearest are, the walk
/// looks at what is left to see.
const LOOK_ROWS_PER_SEEN: usize = 32;
/// After one row in so many it looks in any case.
const LOOK_ROWS_PER_SEEN_MIN: usize = 8;
/// If more than this part of the rows not seen yet would have to be, scanning all of them is
/// cheaper: a scan reads rows in the order in which they lie in memory.
const SCAN_SHARE: (usize, usize) = (1, 2);

impl KdTree {
    /// Offers rows to `top` under `key(row)` until no other could be kept: what is kept is what
    /// [`crate::brute_force::search`] keeps (I3), where `query.scorer` is a
    /// [`crate::VectorScorer`] of the vectors that the tree was built from, and of its metric.
    ///
    /// # Panics
    /// If the query has another dimension, or the scorer another number of rows.
    pub fn search<T: Ord + Copy>(
        &self,
        query: Query<'_>,
        top: &mut TopK<T>,
        key: impl Fn(RowId) -> T,
    ) -> Walk {
        assert_eq!(self.rows, query.scorer.rows(), "a tree is over the rows that are scored");
        assert_eq!(self.frame.dims(), query.vector.len(), "dimension of the query");
        // Nothing can be kept within NaN.
        if self.rows == 0 || top.bound().is_nan() {
            return Walk::default();
        }
        let walker =
            Walker { tree: self, query, top, key, seen: Vec::new(), rows_seen: 0, scored: 0 };
        match Bounds::new(self, query.vector) {
            Some(bounds) => walker.walk(&bounds),
            None => walker.scan(),
        }
    }
}

/// A node to be seen.
struct Open {
    bound: f64,
    node: usize,
    run: Range<usize>,
}

struct Walker<'a, T, K> {
    tree: &'a KdTree,
    query: Query<'a>,
    top: &'a mut TopK<T>,
    key: K,
    /// The runs that were seen.
    seen: Vec<Range<usize>>,
    rows_seen: usize,
    scored: u64,
}

impl<T: Ord + Copy, K: Fn(RowId) -> T> Walker<'_, T, K> {
    fn walk(mut self, bounds: &Bounds<'_>) -> Walk {
        let rows = self.tree.order.len();
        let mut open = BinaryHeap::from([self.open(bounds, 0, 0..rows)]);
        while let Some(next) = open.pop() {
            if self.is_beyond(next.bound) {
                return self.done();
            }
            if next.node >= self.tree.first_leaf() {
                self.see(next.run);
                if self.should_look(rows) {
                    return self.look(bounds, open.into_vec());
                }
            } else {
                for child in self.children(bounds, &next) {
                    if !self.is_beyond(child.bound) {
                        open.push(child);
                    }
                }
            }
        }
        self.done()
    }

    fn should_look(&self, rows: usize) -> bool {
        let enough =
            if self.top.bound().is_finite() { LOOK_ROWS_PER_SEEN } else { LOOK_ROWS_PER_SEEN_MIN };
        self.rows_seen * enough >= rows
    }

    /// Finds the leaves that are left, and sees them if that is cheaper than a scan.
    fn look(mut self, bounds: &Bounds<'_>, mut open: Vec<Open>) -> Walk {
        let left = self.tree.order.len() - self.rows_seen;
        let rows_max = left * SCAN_SHARE.0 / SCAN_SHARE.1;
        let (mut leaves, mut rows) = (Vec::new(), 0);
        while let Some(next) = open.pop() {
            if self.is_beyond(next.bound) {
                continue;
            }
            if next.node < self.tree.first_leaf() {
                open.extend(self.children(bounds, &next));
                continue;
            }
            rows += next.run.len();
            if rows > rows_max {
                return self.scan();
            }
            leaves.push(next);
        }
        leaves.sort_unstable_by(|a, b| b.cmp(a));
        for leaf in leaves {
            if self.is_beyond(leaf.bound) {
                break;
            }
            self.see(leaf.run);
        }
        self.done()
    }

    /// Whether no row at that distance or farther can be kept. At the bound itself the key decides.
    fn is_beyond(&self, distance: f64) -> bool {
        distance > f64::from(self.top.bound())
    }

    fn open(&self, bounds: &Bounds<'_>, node: usize, run: Range<usize>) -> Open {
        let mut bound = bounds.of_box(node);
        let first_leaf = self.tree.first_leaf();
        if node >= first_leaf && !self.is_beyond(bound) {
            bound = bound.max(bounds.of_ball(node - first_leaf));
        }
        Open { bound, node, run }
    }

    fn children(&self, bounds: &Bounds<'_>, parent: &Open) -> [Open; 2] {
        let [left, right] = halves(&parent.run);
        let first = 2 * parent.node + 1;
        [self.open(bounds, first, left), self.open(bounds, first + 1, right)]
    }

    /// Offers the rows of a leaf.
    fn see(&mut self, run: Range<usize>) {
        let mut batch = Batch::new();
        for row in &self.tree.order[run.clone()] {
            if self.query.allowed.allows(RowId(*row)) {
                if batch.is_full() {
                    self.scored += batch.offer(self.query.scorer, self.top, &self.key);
                }
                batch.add(RowId(*row));
            }
        }
        self.scored += batch.offer(self.query.scorer, self.top, &self.key);
        self.rows_seen += run.len();
        self.seen.push(run);
    }

    /// Offers every row that was not seen.
    fn scan(self) -> Walk {
        let mut seen = RowSet::new(self.tree.rows);
        for row in self.seen.iter().flat_map(|run| &self.tree.order[run.clone()]) {
            seen.insert(*row);
        }
        let scored = self.scored + scan_rest(self.query, &seen, self.top, &self.key);
        Walk { scored, fell_back: true }
    }

    fn done(self) -> Walk {
        Walk { scored: self.scored, fell_back: false }
    }
}

impl Ord for Open {
    /// The nearest is the greatest, for the heap.
    fn cmp(&self, other: &Self) -> Ordering {
        other.bound.total_cmp(&self.bound).then(other.node.cmp(&self.node))
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
