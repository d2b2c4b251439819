//! Estimates of distances from signs, and how far off they may be.

use arrwdb_kernel::{BLOCK_ROWS, Kernels, Line, QueryTables, prefetch};

use super::super::frame::{Frame, Framed, own_term};
use super::super::{BoundedScorer, TERMS_BYTES, terms_of, whole};
use super::Sizes;
use crate::ivf::blocks::Blocks;
use crate::norm::{round, sum_of_squares};
use crate::scorer::score_ahead;
use crate::{RowId, Scorer};

/// How many deviations an estimate may be off, the paper's epsilon: it is nearer to the truth than
/// that for 94 of 100 rows, and less than 3 of 100 are nearer to the query than their bounds.
pub(crate) const CONFIDENCE: f64 = 1.9;

/// How far off a query's estimates may be.
#[derive(Debug)]
pub(super) struct Margin {
    /// The square of that for each unit of the square of what is at a right angle to the row, and of
    /// the row's factor.
    off: f64,
    lost: f64,
    /// What rounding adds, for itself and for each unit of the square of the row.
    slack: [f64; 2],
}

impl Margin {
    /// The margin of a query whose numbers were rounded: `lost` is how far off that makes its product
    /// with signs usually, and at the most.
    pub(super) fn new(frame: &Frame, query: &Framed, lost: [f64; 2]) -> Self {
        let (_, weight) = frame.weights();
        let dims = frame.dims() as f64;
        let share = CONFIDENCE / (dims - 1.0).sqrt();
        // Two errors of independent signs add up by their squares. In few dimensions neither can be
        // as large as that, and the most that they can be together is what counts.
        let (share, lost, sum) =
            if share < 1.0 { (share, CONFIDENCE * lost[0], 1.0) } else { (1.0, lost[1], 2.0) };
        let squared = |error: f64| sum * (f64::from(weight) * error).powi(2);
        let length = f64::from(query.length);
        let rounding = (dims + 64.0) * f64::from(f32::EPSILON);
        let center = sum_of_squares(frame.center());
        // Products of lengths are at most the sum of their squares.
        let sizes = 3.0 * (length * length + center) + f64::from(query.own.abs()) + 2.0;
        Self {
            off: squared(share * length),
            lost: squared(lost),
            slack: [rounding * sizes, rounding * 3.0],
        }
    }

    /// How much nearer than its estimate a row of these sizes is likely at the most.
    #[inline]
    fn of(&self, [aside, factor, square]: [f64; 3]) -> f64 {
        let likely = (self.off * aside + self.lost * factor).sqrt();
        likely + self.slack[0] + self.slack[1] * square
    }
}

/// Estimates the distances of single rows from their signs.
#[derive(Debug)]
pub(crate) struct BinaryScorer<'a> {
    pub(super) rows: u32,
    pub(super) stride: usize,
    pub(super) bytes: &'a [u8],
    pub(super) kernels: &'static Kernels,
    /// Zeros after the last number.
    pub(super) query: Vec<i8>,
    /// The sum of the query's codes.
    pub(super) total: i32,
    /// The query's own term.
    pub(super) own: f32,
    pub(super) own_weight: f32,
    pub(super) factor: f32,
    pub(super) dims: f64,
    pub(super) margin: Margin,
}

impl BinaryScorer<'_> {
    fn record(&self, row: RowId) -> &[u8] {
        &self.bytes[row.0 as usize * self.stride..][..self.stride]
    }

    #[inline]
    fn distance(&self, record: &[u8]) -> f32 {
        let (signs, terms) = record.split_at(record.len() - TERMS_BYTES);
        // Numbers with their signs: twice those that are kept, less all.
        let product = 2 * self.kernels.dot_bits(signs, &self.query) - self.total;
        let (factor, square) = terms_of(terms);
        let own = self.own + own_term(self.own_weight, square);
        let distance = own + self.factor * factor * whole(product);
        // Vectors near the end of the range of f32 overflow here: they are the farthest.
        if distance.is_nan() { f32::INFINITY } else { distance }
    }

    /// What a row of this score is likely not nearer than.
    #[inline]
    pub(crate) fn lower_bound(&self, row: RowId, score: f32) -> f32 {
        let record = self.record(row);
        let (factor, square) = terms_of(&record[record.len() - TERMS_BYTES..]);
        let (factor, square) = (f64::from(factor) * f64::from(factor), f64::from(square));
        let aside = (self.dims * factor - square).max(0.0);
        round(f64::from(score) - self.margin.of([aside, factor, square]))
    }
}

impl Scorer for BinaryScorer<'_> {
    fn rows(&self) -> u32 {
        self.rows
    }

    fn score_range(&self, first: RowId, out: &mut [f32]) {
        let records = &self.bytes[first.0 as usize * self.stride..][..out.len() * self.stride];
        for (record, out) in records.chunks_exact(self.stride).zip(out) {
            *out = self.distance(record);
        }
    }

    fn score(&self, rows: &[RowId], out: &mut [f32]) {
        let ask = |row| prefetch(self.record(row));
        score_ahead(rows, out, ask, |row| self.distance(self.record(row)));
    }
}

/// Estimates the distances of rows one after the other.
#[derive(Debug)]
pub(crate) struct BinaryBlockScorer<'a> {
    pub(super) blocks: &'a Blocks,
    pub(super) most: &'a [Sizes],
    pub(super) kernels: &'static Kernels,
    pub(super) tables: QueryTables,
    /// The query's own term.
    pub(super) own: f32,
    pub(super) margin: Margin,
}

impl BinaryBlockScorer<'_> {
    /// The estimates of a block's rows, and how much nearer they may be.
    pub(super) fn block(&self, block: usize, out: &mut [f32; BLOCK_ROWS]) -> f32 {
        let line = Line {
            step: self.tables.step,
            offset: self.tables.offset,
            base: self.own,
            bound: f32::INFINITY,
        };
        let codes = self.blocks.block(block, block + 1);
        self.kernels.estimate(&self.tables.entries, codes, line, out);
        round(self.margin.of(self.most[block].map(f64::from)))
    }
}

impl BoundedScorer for BinaryBlockScorer<'_> {
    fn lower_bounds(&self, first: RowId, out: &mut [f32]) {
        let mut estimates = [0.0; BLOCK_ROWS];
        let (mut row, mut out) = (first.0 as usize, out);
        while !out.is_empty() {
            let before = row % BLOCK_ROWS;
            let margin = self.block(row / BLOCK_ROWS, &mut estimates);
            let (bounds, rest) = out.split_at_mut(out.len().min(BLOCK_ROWS - before));
            row += bounds.len();
            for (bound, estimate) in bounds.iter_mut().zip(&estimates[before..]) {
                *bound = estimate - margin;
            }
            out = rest;
        }
    }
}
