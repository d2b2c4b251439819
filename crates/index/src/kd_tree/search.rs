//! Walking a tree, the most promising node first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;

use super::bounds::Bounds;
use super::{KdTree, halves};
use crate::walk::{Batch, RowSet, scan_rest};
use crate::{Query, RowId, TopK, Walk};

/// A walk may cost one part in so many of what a scan costs before it looks at what is left to see,
/// and looking may cost as much again.
const PATIENCE: u64 = 12;
/// After one part in so many of that it looks at a few leaves, evenly chosen: unless half of them can
/// be left out already, most never will be.
const FIRST_LOOK: u64 = 4;
const FIRST_LOOK_LEAVES: usize = 16;

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
        let budget = Costs::new(self).scan_row * u64::from(self.rows) / PATIENCE;
        self.search_within(query, budget, top, key)
    }

    /// Searches with a budget of its own.
    pub(super) fn search_within<T: Ord + Copy>(
        &self,
        query: Query<'_>,
        budget: u64,
        top: &mut TopK<T>,
        key: impl Fn(RowId) -> T,
    ) -> Walk {
        assert_eq!(self.rows, query.scorer.rows(), "a tree is over the rows that are scored");
        assert_eq!(self.frame.dims(), query.vector.len(), "dimension of the query");
        // Nothing can be kept within NaN.
        if self.rows == 0 || top.bound().is_nan() {
            return Walk::default();
        }
        let walker = Walker {
            tree: self,
            query,
            costs: Costs::new(self),
            budget,
            spent: 0,
            seen: Vec::new(),
            rows_seen: 0,
            scored: 0,
            top,
            key,
        };
        match Bounds::new(self, query.vector) {
            Some(bounds) => walker.walk(&bounds),
            None => walker.scan(),
        }
    }
}

/// What things take, in tenths of a nanosecond on the CPU that this was measured on, where none of
/// them is in a cache. Only how they compare matters.
#[derive(Copy, Clone)]
struct Costs {
    /// A row in a scan.
    scan_row: u64,
    /// A row of a leaf: it lies anywhere in memory.
    leaf_row: u64,
    /// A bound of a box, and of a ball.
    sides: u64,
    ball: u64,
}

impl Costs {
    fn new(tree: &KdTree) -> Self {
        let (dims, sides) = (tree.frame.dims() as u64, tree.frame.sides() as u64);
        let ball = if tree.frame.sees_all() { 0 } else { 500 + 2 * dims };
        // Rows of few numbers come from a cache, long ones from memory.
        let scan_row = 20 + dims / 4 + dims.saturating_sub(64);
        Self { scan_row, leaf_row: 150 + 4 * dims, sides: 300 + 15 * sides, ball }
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
    costs: Costs,
    /// What may be spent before the walk looks at what is left.
    budget: u64,
    spent: u64,
    /// The runs that were seen.
    seen: Vec<Range<usize>>,
    rows_seen: u64,
    scored: u64,
    top: &'a mut TopK<T>,
    key: K,
}

impl<T: Ord + Copy, K: Fn(RowId) -> T> Walker<'_, T, K> {
    fn walk(mut self, bounds: &Bounds<'_>) -> Walk {
        let root = self.open(bounds, 0, 0..self.tree.order.len());
        let mut open = BinaryHeap::from([root]);
        let mut first_look = true;
        while let Some(next) = open.pop() {
            if self.is_beyond(next.bound) {
                return self.done();
            }
            if first_look && self.spent > self.budget / FIRST_LOOK && self.top.bound().is_finite() {
                first_look = false;
                if self.is_hopeless(bounds) {
                    return self.scan();
                }
            }
            if self.spent > self.budget {
                open.push(next);
                return self.look(bounds, open.into_vec());
            }
            if next.node >= self.tree.first_leaf() {
                self.see(next.run);
                continue;
            }
            for child in self.children(bounds, &next) {
                if !self.is_beyond(child.bound) {
                    open.push(child);
                }
            }
        }
        self.done()
    }

    /// Whether few of all leaves can be left out.
    fn is_hopeless(&self, bounds: &Bounds<'_>) -> bool {
        let first_leaf = self.tree.first_leaf();
        let beyond = (0..FIRST_LOOK_LEAVES).filter(|place| {
            let leaf = place * (first_leaf + 1) / FIRST_LOOK_LEAVES;
            let bound = bounds.of_box(first_leaf + leaf).max(bounds.of_ball(leaf));
            self.is_beyond(bound)
        });
        beyond.count() < FIRST_LOOK_LEAVES / 2
    }

    /// Finds the leaves that are left, and sees them if that is cheaper than a scan.
    fn look(mut self, bounds: &Bounds<'_>, mut open: Vec<Open>) -> Walk {
        let left = u64::from(self.tree.rows) - self.rows_seen;
        let scan = left * self.costs.scan_row;
        let spent_max = self.spent.saturating_add(self.budget);
        let (mut leaves, mut rows) = (Vec::new(), 0);
        while let Some(next) = open.pop() {
            if self.is_beyond(next.bound) {
                continue;
            }
            if next.node < self.tree.first_leaf() {
                open.extend(self.children(bounds, &next));
            } else {
                rows += next.run.len() as u64;
                leaves.push(next);
            }
            if rows * self.costs.leaf_row > scan || self.spent > spent_max {
                return self.scan();
            }
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

    fn open(&mut self, bounds: &Bounds<'_>, node: usize, run: Range<usize>) -> Open {
        self.spent += self.costs.sides;
        let mut bound = bounds.of_box(node);
        let first_leaf = self.tree.first_leaf();
        if node >= first_leaf && !self.is_beyond(bound) {
            self.spent += self.costs.ball;
            bound = bound.max(bounds.of_ball(node - first_leaf));
        }
        Open { bound, node, run }
    }

    fn children(&mut self, bounds: &Bounds<'_>, parent: &Open) -> [Open; 2] {
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
        self.rows_seen += run.len() as u64;
        self.spent += run.len() as u64 * self.costs.leaf_row;
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
