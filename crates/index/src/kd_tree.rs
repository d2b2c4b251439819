//! A balanced tree of boxes: exact search by branch and bound (Friedman, Bentley and Finkel, "An
//! algorithm for finding best matches in logarithmic expected time", 1977).
//!
//! Each node is a run of the rows in tree order, split at the median of the number that varies most.
//! What is known of a node's rows is a box over the few numbers that vary most in the segment, with
//! the length of what is left of a row as one more side; and of a leaf also a ball around its mean,
//! or for cosine a cap of the sphere. From these follows the least distance any of the rows can
//! have, less all that rounding may have done to it: a node is left out only if every row of it is
//! farther than the bound of what is kept, so the answer is [`crate::brute_force`]'s to the bit
//! (I3). See `bounds` for the proof.
//!
//! In many dimensions rows are all about as far from each other and no bound helps. A walk that has
//! seen a small part of the rows knows how much it would have to see yet; if a scan is cheaper it
//! scans what is left.
//!
//! Nothing but the order, the boxes and the balls is stored: the runs follow from the number of rows.

mod bounds;
mod build;
mod file;
mod search;

use std::ops::Range;

use crate::Metric;

pub use build::build;

/// How a tree is built.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Rows of a leaf at most; 0 is taken as 1. Fewer leave more rows out and cost more boxes.
    pub leaf_rows: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { leaf_rows: 64 }
    }
}

/// Sides of a box but one at most: the one more is the length of what is left of a row.
const AXES_MAX: usize = 16;

/// A tree over rows `0..rows`.
#[derive(Clone, Debug, PartialEq)]
pub struct KdTree {
    metric: Metric,
    rows: u32,
    leaf_rows: u32,
    frame: Frame,
    /// The rows in tree order; ascending within a leaf.
    order: Vec<u32>,
    /// For each node, the root first and then level by level, the low sides and then the high ones.
    boxes: Vec<f32>,
    /// For each leaf the middle of its ball, or the middle direction of its cap; empty if boxes see
    /// every number.
    centers: Vec<f32>,
    /// For each leaf the radius of its ball, or the least cosine that its cap's middle has with a
    /// row; empty as `centers`.
    reaches: Vec<f32>,
}

/// What boxes are measured in, and how large the rows are. For cosine of the rows made unit vectors.
#[derive(Clone, Debug, PartialEq)]
struct Frame {
    /// The numbers of a row that boxes have sides for, ascending.
    axes: Vec<u32>,
    /// The middle that the rest of a row is measured from.
    mean: Vec<f32>,
    /// The largest length.
    length_max: f64,
    /// The largest length of the vectors as they are.
    norm_max: f64,
    /// The largest inverse norm: 1 but for cosine.
    inverse_max: f64,
}

impl Frame {
    fn dims(&self) -> usize {
        self.mean.len()
    }

    /// Numbers of a box's low sides, and of its high ones.
    fn sides(&self) -> usize {
        self.axes.len() + 1
    }

    /// Whether boxes see every number, so that balls would add nothing.
    fn sees_all(&self) -> bool {
        self.axes.len() == self.dims()
    }
}

impl KdTree {
    /// How many rows it is over.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Levels below the root: leaves are all this deep.
    pub fn depth(&self) -> u32 {
        depth(self.rows, self.leaf_rows)
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        let floats = self.boxes.len() + self.centers.len() + self.reaches.len();
        4 * (floats + self.order.len() + self.frame.mean.len() + self.frame.axes.len())
    }

    /// The first leaf's node.
    fn first_leaf(&self) -> usize {
        (1 << self.depth()) - 1
    }
}

/// The least depth at which no leaf has more than `leaf_rows` rows.
fn depth(rows: u32, leaf_rows: u32) -> u32 {
    let leaves = u64::from(rows).div_ceil(u64::from(leaf_rows.max(1)));
    leaves.max(1).next_power_of_two().ilog2()
}

/// The runs of a node's children: the halves of its own.
fn halves(run: &Range<usize>) -> [Range<usize>; 2] {
    let middle = run.start + run.len() / 2;
    [run.start..middle, middle..run.end]
}

/// The number nearest below `value`, far enough to cover the rounding of the f64 it was made in.
fn below(value: f64) -> f32 {
    nearest(value).next_down()
}

/// The same from above.
fn above(value: f64) -> f32 {
    nearest(value).next_up()
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is what is asked for")]
fn nearest(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests;
