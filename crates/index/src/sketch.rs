//! What a walk over full vectors knows of a row before it reads it: few bits of each number.
//!
//! A walk spends its time waiting for rows, and of those it meets only one in four or five is near
//! enough to be kept. A sketch is small enough to lie in memory beside the links, and says of most
//! of the others that they are too far. What is kept is ordered by the vectors themselves.
//!
//! A row is centred, rotated at random, and each number rounded to one of 2, 4 or 16 steps around
//! 0, whose width is a fixed part of the row's usual number. With `v` the rounded row, the product
//! of the rotated row `x` and the query `q` is estimated by `|x|^2 / (x . v) * (v . q)`: what the
//! rounding took away is at a right angle to `x`, so the estimate is off by its product with the
//! part of `q` that is at a right angle to `x` too, which the random rotation makes as good as
//! independent (Gao and Long, "RaBitQ: quantizing high-dimensional vectors with a theoretical error
//! bound for approximate nearest neighbor search", 2024, for one bit).
//!
//! That part of a query is at most as long as the distance between them. So a row within the bound
//! of what is kept is estimated the better the nearer the bound is, and is left out wrongly only
//! where the estimate is more than [`MARGIN`] of its standard deviations too far. This is likely not
//! to happen, and not proven: a walk may miss a row that it would have kept without the sketch.

mod codec;

use std::ops::Range;

use arrwdb_kernel::{Kernels, kernels, prefetch};

use crate::codes::center;
use crate::executor::map_runs;
use crate::norm::{round, sum_of_squares};
use crate::pages::Pages;
use crate::rotation::Rotation;
use crate::{Executor, Metric, RowId, Vectors};

/// The seed of the rotation: a sketch depends on the rows alone.
const SEED: u64 = 0x5ce7;
/// Bytes of a row's factor and length, before its codes.
const TERMS_BYTES: usize = 8;
/// Bytes of a row's codes, where more bits would take more: with them, the links and all else, a
/// graph takes no more memory beside the vectors than others do without a sketch.
const CODE_BYTES_MAX: usize = 96;
/// Rows of fewer numbers are read nearly as quickly as their sketch: with 128 of them a walk was
/// measured to take as long without, with 384 about 1.4 times as long.
const DIMS_MIN: usize = 192;
/// How many standard deviations of its estimate a row has to be beyond the bound to be left out.
pub(crate) const MARGIN: f32 = 1.5;
/// The same in a walk among some of the rows. Where those near the query are not allowed, all that are
/// answered lie about as far as the bound, and [`MARGIN`] would leave out one in fifteen of them; this one
/// leaves out one in 700.
pub(crate) const MARGIN_AMONG_SOME: f32 = 3.0;
/// What sums of f32 are rounded by, with room to spare, in parts of what is summed.
const ROUNDING: f32 = 16.0 * f32::EPSILON;
/// Rows encoded by one task.
const ENCODE_ROWS: usize = 1024;

/// Bits of each number.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Bits {
    One,
    Two,
    Four,
}

impl Bits {
    /// The most that fit; `None` where rows are too short for a sketch.
    fn of_dims(dims: usize) -> Option<Self> {
        let fits = |bits: &Self| bits.code_bytes(dims) <= CODE_BYTES_MAX;
        let most = [Self::Four, Self::Two].into_iter().find(fits).unwrap_or(Self::One);
        (dims >= DIMS_MIN).then_some(most)
    }

    fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    fn code_bytes(self, dims: usize) -> usize {
        dims.div_ceil(8 / self.count())
    }

    /// What the code 0 stands for is so many steps below 0.
    fn zero(self) -> f32 {
        match self {
            Self::One => 0.5,
            Self::Two => 1.5,
            Self::Four => 7.5,
        }
    }

    /// The width of a step for normal numbers of variance 1 that loses least (Max, "Quantizing for
    /// minimum distortion", 1960).
    fn step(self) -> f32 {
        match self {
            Self::One => 1.596,
            Self::Two => 0.9957,
            Self::Four => 0.3352,
        }
    }
}

/// Sketches of a segment's rows.
#[derive(Debug)]
pub(crate) struct Sketch {
    metric: Metric,
    bits: Bits,
    dims: usize,
    center: Vec<f32>,
    rotation: Rotation,
    /// The standard deviation of an estimate, in parts of the product of the lengths.
    error: f32,
    stride: usize,
    records: Pages<u8>,
}

impl Sketch {
    /// Sketches every row; `None` where that would bring nothing. O(rows * dims * log dims).
    pub(crate) fn encode<V: Vectors + ?Sized>(
        metric: Metric,
        vectors: &V,
        executor: &dyn Executor,
    ) -> Option<Self> {
        let (dims, rows) = (vectors.dims(), vectors.rows());
        let bits = Bits::of_dims(dims)?;
        let stride = TERMS_BYTES + bits.code_bytes(dims);
        let mut sketch = Self {
            metric,
            bits,
            dims,
            center: center(metric, vectors),
            rotation: Rotation::new(dims, SEED),
            error: 0.0,
            stride,
            records: Pages::zeroed(0),
        };
        let parts =
            map_runs(executor, rows as usize, ENCODE_ROWS, &|run| sketch.encode_run(vectors, run));
        let mut records = Pages::zeroed(rows as usize * stride);
        let mut lost = 0.0;
        for ((part, part_lost), place) in parts.iter().zip(records.chunks_mut(ENCODE_ROWS * stride))
        {
            place.copy_from_slice(part);
            lost += part_lost;
        }
        sketch.records = records;
        sketch.error = round((lost / (f64::from(rows.max(1)) * dims as f64)).sqrt());
        Some(sketch)
    }

    /// The records of some rows, and the sum of what their codes lose: the square of the part at a
    /// right angle to the row, in parts of the row's.
    fn encode_run<V: Vectors + ?Sized>(&self, vectors: &V, rows: Range<usize>) -> (Vec<u8>, f64) {
        let mut out = Vec::with_capacity(rows.len() * self.stride);
        let mut lost = 0.0;
        let (mut rotated, mut room) = (vec![0.0; self.dims], Vec::new());
        let mut codes = vec![0; self.stride - TERMS_BYTES];
        for row in rows {
            let (vector, inverse_norm) = vectors.row(RowId(u32::try_from(row).unwrap_or(u32::MAX)));
            let scale = if self.metric == Metric::Cosine { inverse_norm } else { 1.0 };
            for ((rotated, value), center) in rotated.iter_mut().zip(vector).zip(&self.center) {
                *rotated = value * scale - center;
            }
            self.rotation.apply(&mut rotated, &mut room);
            let square = sum_of_squares(&rotated);
            let [product, rounded] = self.round(&rotated, square.sqrt(), &mut codes);
            let factor = if product > 0.0 { square / product } else { 0.0 };
            if product > 0.0 && square.is_finite() {
                lost += (rounded * square / (product * product) - 1.0).max(0.0);
            }
            out.extend_from_slice(&round(factor).to_le_bytes());
            out.extend_from_slice(&round(square.sqrt()).to_le_bytes());
            out.extend_from_slice(&codes);
        }
        (out, lost)
    }

    /// Rounds a rotated row. Returns the product of what it becomes with the row and with itself.
    fn round(&self, rotated: &[f32], length: f64, codes: &mut [u8]) -> [f64; 2] {
        let usual = length / (self.dims as f64).sqrt() * f64::from(self.bits.step());
        let inverse = if usual > 0.0 { round(1.0 / usual) } else { 0.0 };
        let (bits, zero, bytes) = (self.bits.count(), self.bits.zero(), codes.len());
        codes.fill(0);
        let (mut product, mut rounded) = (0.0, 0.0);
        for (plane, part) in rotated.chunks(bytes).enumerate() {
            for (value, code) in part.iter().zip(codes.iter_mut()) {
                let steps = (value * inverse + zero).round_ties_even().clamp(0.0, 2.0 * zero);
                *code |= whole(steps) << (plane * bits);
                let steps = f64::from(steps - zero);
                product += steps * f64::from(*value);
                rounded += steps * steps;
            }
        }
        [product, rounded]
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.records.bytes() + 4 * self.center.len() + self.rotation.bytes()
    }

    /// What rows are compared with.
    pub(crate) fn aim(&self, query: &[f32]) -> Aim<'_> {
        assert_eq!(query.len(), self.dims, "dimension of the query");
        let kernels = kernels();
        let mut rotated = query.to_vec();
        let (mut own, mut weight) = (0.0, 1.0);
        if self.metric == Metric::Dot {
            own = 1.0 - query.iter().zip(&self.center).map(|(a, b)| a * b).sum::<f32>();
        } else {
            rotated.iter_mut().zip(&self.center).for_each(|(value, center)| *value -= center);
        }
        self.rotation.apply(&mut rotated, &mut Vec::new());
        let square = round(sum_of_squares(&rotated));
        let own_weight = match self.metric {
            Metric::Cosine => 0.5,
            Metric::L2 => 1.0,
            Metric::Dot => 0.0,
        };
        if self.metric != Metric::Dot {
            own = own_weight * square;
            weight = 2.0 * own_weight;
        }
        let step = kernels.largest(&rotated) / f32::from(i8::MAX);
        let mut codes = vec![0; self.dims];
        kernels.quantize(&rotated, if step > 0.0 { 1.0 / step } else { 0.0 }, &mut codes);
        let sum: i32 = codes.iter().map(|code| i32::from(*code)).sum();
        // What is after a row's last number has the code 0, and counts for nothing here.
        codes.resize((self.stride - TERMS_BYTES) * (8 / self.bits.count()), 0);
        Aim {
            sketch: self,
            kernels,
            query: codes,
            zero: self.bits.zero() * sum as f32,
            own,
            own_weight,
            weight,
            factor: weight * step,
            square,
            length: square.sqrt(),
            // Rounding to whole steps: a twelfth of a step's square for each number, in each
            // direction.
            own_error: step * step / 12.0,
        }
    }

    fn record(&self, row: RowId) -> &[u8] {
        &self.records[row.0 as usize * self.stride..][..self.stride]
    }
}

/// A query that sketches are compared with.
#[derive(Debug)]
pub(crate) struct Aim<'a> {
    sketch: &'a Sketch,
    kernels: &'static Kernels,
    query: Vec<i8>,
    /// What the codes' zero takes from every product.
    zero: f32,
    /// The query's own term.
    own: f32,
    own_weight: f32,
    weight: f32,
    factor: f32,
    /// The rotated query's square and length.
    square: f32,
    length: f32,
    /// The variance of a product with a row of length 1 that rounding the query brings.
    own_error: f32,
}

/// What a row's sketch has to say for the row to be left out.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Limit {
    bound: f32,
    /// For each unit of a row's length, how much nearer it may be than estimated.
    reach: f32,
}

impl Aim<'_> {
    /// For rows that are of interest if their distance is at most `bound`, left out if they are
    /// `margin` standard deviations beyond.
    pub(crate) fn limit(&self, bound: f32, margin: f32) -> Limit {
        let across = match self.sketch.metric {
            Metric::Dot => self.square,
            Metric::Cosine | Metric::L2 => self.square.min(bound.max(0.0) / self.own_weight),
        };
        let variance = self.sketch.error * self.sketch.error * across + self.own_error;
        let reach = margin * self.weight * variance.sqrt() + ROUNDING * self.length;
        Limit { bound: bound + ROUNDING * (self.own.abs() + bound.abs()), reach }
    }

    /// Asks for a row's sketch, which is about to be read.
    #[inline]
    pub(crate) fn prefetch(&self, row: RowId) {
        prefetch(self.sketch.record(row));
    }

    /// Whether a row is likely beyond the bound. What overflowed, or is not a number, is not.
    #[inline]
    pub(crate) fn is_far(&self, row: RowId, limit: Limit) -> bool {
        self.guess(row).is_far(limit)
    }

    /// What a row's sketch says of its distance.
    #[inline]
    pub(crate) fn guess(&self, row: RowId) -> Guess {
        let (terms, codes) = self.sketch.record(row).split_at(TERMS_BYTES);
        let (terms, _) = terms.as_chunks::<4>();
        let (factor, length) = (f32::from_le_bytes(terms[0]), f32::from_le_bytes(terms[1]));
        let product = match self.sketch.bits {
            Bits::One => self.kernels.dot_eighths(codes, &self.query),
            Bits::Two => self.kernels.dot_quarters(codes, &self.query),
            Bits::Four => self.kernels.dot_nibbles(codes, &self.query),
        };
        let near = self.factor * factor * (product as f32 - self.zero);
        let distance = self.own - near + length * (self.own_weight * length);
        Guess { row, distance, length }
    }
}

/// About how far a row is.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Guess {
    pub(crate) row: RowId,
    pub(crate) distance: f32,
    length: f32,
}

impl Guess {
    /// Whether it is likely beyond the bound. What overflowed, or is not a number, is not.
    #[inline]
    pub(crate) fn is_far(self, limit: Limit) -> bool {
        let least = self.distance - self.length * (limit.reach + ROUNDING * self.length);
        least > limit.bound && least < f32::INFINITY
    }
}

/// A code; `steps` is a whole number from 0 to 15.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a whole number from 0 to 15, and 0 for what is not a number"
)]
fn whole(steps: f32) -> u8 {
    steps as u8
}
