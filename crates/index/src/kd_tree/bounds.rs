//! The least distance that the rows of a node can have from a query.
//!
//! A node may be left out only if the scorer, which computes in f32, puts every row of it beyond
//! what is kept. So a bound is what geometry gives, computed in f64, less what rounding may do:
//!
//! - A kernel's sum of `d` terms is off by at most `(d + 2) * EPSILON` times the sum of their
//!   magnitudes plus `d * MIN_POSITIVE` (the kernels' own promise, to the exact sum), as long as
//!   that sum is finite in f32. Magnitudes of a product add up to at most the product of the
//!   lengths; those of a squared difference are the sum itself. [`Bounds::new`] gives nothing for
//!   queries where the sum may be too large.
//! - What a scorer does to a sum after that (a product with an inverse norm, a difference from 1) is
//!   off by a few `EPSILON` more. `ROUNDINGS` is far above all these together.
//! - Sides of boxes, radii and cosines are rounded outwards to f32, by much more than the f64 that
//!   they were computed in is off. So is all of f64 here: sums of at most 2^16 numbers, off by
//!   `1e-11` of their magnitudes where f32 is off by `1e-7`.
//!
//! Geometry, with `x` a row (for cosine made a unit vector) and `q` the query:
//!
//! - Box, distance: no row is nearer than the box is, in the numbers it has sides for. The rest of
//!   the numbers add at least the square of the difference of their lengths from the mean.
//! - Box, product: no term is above that of the better of its two sides. The rest adds at most
//!   `q.mean` and the product of the lengths.
//! - Cosine: `2 q.x = |q|^2 + |x|^2 - |q - x|^2`, so either of the two bounds the product.
//! - Ball: `|q - x| >= |q - c| - r`, and `q.x <= q.c + |q| r`.
//! - Cap: with `a` the cosine of query and middle and `b` the least of middle and row, the angle
//!   between query and row is at least that of `a` less that of `b`, whose cosine is
//!   `a b + sqrt(1 - a^2) sqrt(1 - b^2)` where `a < b`. It grows with `a` and falls with `b`, so
//!   rounding `a` up and `b` down keeps it a bound.

use arrwdb_kernel::{Kernels, kernels};

use super::KdTree;
use crate::Metric;

/// f32 roundings of a distance, above those of a sum over the numbers of a vector.
const ROUNDINGS: f64 = 16.0;
/// What f64 may be off by, relatively.
const WIDE_ERROR: f64 = 1e-11;
/// The largest cosine distance: the scorer puts nothing beyond it.
const COSINE_MAX: f64 = 2.0;

/// Bounds for one query.
pub(super) struct Bounds<'a> {
    tree: &'a KdTree,
    query: &'a [f32],
    kernels: &'static Kernels,
    /// The length of the query.
    length: f64,
    /// The query along the sides of a box: its numbers, and how far the rest is from the mean.
    place: Vec<f64>,
    /// What a row's place along the sides is multiplied with for a product: the query's numbers,
    /// and the length of its rest.
    weights: Vec<f64>,
    /// The product of the query's rest and the mean's.
    offset: f64,
    /// What a kernel's sum is off by: a part of its magnitudes, and a number.
    relative: f64,
    absolute: f64,
}

impl<'a> Bounds<'a> {
    /// `None` if no bound would hold: sums might leave the range of f32.
    pub(super) fn new(tree: &'a KdTree, query: &'a [f32]) -> Option<Self> {
        let frame = &tree.frame;
        let length = crate::norm::sum_of_squares(query).sqrt();
        let magnitude = match tree.metric {
            Metric::Cosine | Metric::Dot => length * frame.norm_max,
            Metric::L2 => (length + frame.norm_max) * (length + frame.norm_max),
        };
        let in_range = magnitude < f64::from(f32::MAX) / 8.0;
        if !in_range || !frame.inverse_max.is_finite() {
            return None;
        }
        let mut place: Vec<f64> =
            frame.axes.iter().map(|axis| f64::from(query[*axis as usize])).collect();
        let mut weights = place.clone();
        let (mut rest, mut from_mean, mut offset) = (0.0, 0.0, 0.0);
        let mut axes = frame.axes.iter().peekable();
        for (axis, (value, mean)) in query.iter().zip(&frame.mean).enumerate() {
            if axes.next_if(|next| **next as usize == axis).is_none() {
                let (value, mean) = (f64::from(*value), f64::from(*mean));
                rest += value * value;
                from_mean += (value - mean) * (value - mean);
                offset += value * mean;
            }
        }
        place.push(from_mean.sqrt());
        weights.push(rest.sqrt());
        let terms = query.len() as f64 + ROUNDINGS;
        let relative = terms * f64::from(f32::EPSILON);
        let absolute = terms * f64::from(f32::MIN_POSITIVE);
        let kernels = kernels();
        Some(Self { tree, query, kernels, length, place, weights, offset, relative, absolute })
    }

    /// The least distance, as the scorer gives it, of a row in a node's box.
    pub(super) fn of_box(&self, node: usize) -> f64 {
        let sides = self.place.len();
        let (low, high) = self.tree.boxes[2 * sides * node..][..2 * sides].split_at(sides);
        match self.tree.metric {
            Metric::L2 => self.of_square(self.gap(low, high)),
            Metric::Dot => self.of_product(self.product(low, high)),
            Metric::Cosine => {
                let longest = self.tree.frame.length_max;
                let squares = self.length * self.length + longest * longest;
                let by_distance = (squares - self.gap(low, high)) / 2.0;
                self.of_product(self.product(low, high).min(by_distance))
            }
        }
    }

    /// The same of a row in a leaf's ball or cap. Nothing is known if boxes see all.
    pub(super) fn of_ball(&self, leaf: usize) -> f64 {
        let Some(reach) = self.tree.reaches.get(leaf) else { return f64::NEG_INFINITY };
        let (dims, reach) = (self.query.len(), f64::from(*reach));
        let center = &self.tree.centers[leaf * dims..][..dims];
        if self.tree.metric == Metric::L2 {
            let square = f64::from(self.kernels.l2_squared(self.query, center));
            let distance = (square * (1.0 - self.relative) - self.absolute).max(0.0).sqrt();
            let gap = (distance * (1.0 - WIDE_ERROR) - reach).max(0.0);
            return self.of_square(gap * gap);
        }
        let product = f64::from(self.kernels.dot(self.query, center));
        let longest = self.tree.frame.length_max;
        if self.tree.metric == Metric::Dot {
            // A mean is no longer than the longest row, but for its own rounding.
            let error = 2.0 * self.relative * self.length * longest + self.absolute;
            return self.of_product(product + error + self.length * reach);
        }
        // The middle is a unit vector up to rounding.
        let cosine = product + 2.0 * self.relative * self.length + self.absolute;
        self.of_product(cap(cosine, self.length, reach, longest))
    }

    /// The square of the distance from the query to a box, at most.
    fn gap(&self, low: &[f32], high: &[f32]) -> f64 {
        let mut sum = 0.0;
        for ((place, low), high) in self.place.iter().zip(low).zip(high) {
            let error = place.abs() * WIDE_ERROR;
            let gap = (f64::from(*low) - place).max(place - f64::from(*high)) - error;
            let gap = gap.max(0.0);
            sum += gap * gap;
        }
        sum
    }

    /// The largest product of the query and a row in a box, at least.
    fn product(&self, low: &[f32], high: &[f32]) -> f64 {
        let mut sum = self.offset;
        for ((weight, low), high) in self.weights.iter().zip(low).zip(high) {
            sum += (weight * f64::from(*low)).max(weight * f64::from(*high));
        }
        sum
    }

    /// The least that a scorer gives for a squared distance that is at least `square`.
    fn of_square(&self, square: f64) -> f64 {
        square * (1.0 - self.relative) - self.absolute
    }

    /// The least that a scorer gives for a product that is at most `product`.
    fn of_product(&self, product: f64) -> f64 {
        let frame = &self.tree.frame;
        let magnitude = 1.0 + self.length * frame.length_max;
        let error = 2.0 * self.relative * magnitude + self.absolute * frame.inverse_max;
        let distance = 1.0 - product - error;
        if self.tree.metric == Metric::Cosine { distance.min(COSINE_MAX) } else { distance }
    }
}

/// The largest product of a query of that length, whose product with a unit vector is at most
/// `product`, and a row no longer than `longest`, whose product with it is at least `least`.
fn cap(product: f64, length: f64, least: f64, longest: f64) -> f64 {
    if product * longest >= least * length {
        return length * longest;
    }
    let across = |whole: f64, part: f64| (whole * whole - part * part).max(0.0).sqrt();
    product * least + across(length, product) * across(longest, least)
}
