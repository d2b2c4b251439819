//! Rows in few bits: scalar codes of 8 or 4 bits for each number here, in `binary` one bit for each
//! number, in `product` 4 bits for several; `scheme` is what they have in common.
//!
//! By scalar codes a row is centred, rotated, divided by a scale of its own and rounded (the scheme
//! of Aguerrebere et al., "Similarity search in the blink of an eye with compressed indices", 2023,
//! after a random rotation, which makes it as good for any data). Its code depends on the row, the
//! centre and the seed alone. The product of two codes is a whole number, so walks over codes go the
//! same way on every machine.
//!
//! With `x` the rotated row less the centre, cosine and L2 are both `w * |x - q|^2` with `w` 1/2 for
//! unit vectors and 1: `w |q|^2 + w |x|^2 - 2 w scale_x scale_q (code_x . code_q)`. A dot product is
//! `1 - q . centre - scale_x scale_q (code_x . code_q)`.

pub(crate) mod binary;
mod codec;
mod frame;
mod halved;
pub(crate) mod product;
mod query;
mod scheme;

use std::ops::Range;

use arrwdb_kernel::{Kernels, kernels, prefetch};

use crate::executor::map_runs;
use crate::norm::sum_of_squares;
use crate::pages::Pages;
use crate::scorer::{score_ahead, score_fours_ahead};
use crate::{Executor, Metric, RowId, Scorer, Vectors};

use query::CodedQuery;

pub(crate) use frame::{Frame, center, metric_number, own_term};
pub(crate) use halved::HalvedScorer;
pub use scheme::Scheme;
pub(crate) use scheme::{Access, BoundedScorer, Codes, CodesScorer};

/// Bytes of a row's scale and its own term, after its codes.
const TERMS_BYTES: usize = 8;
/// Rows that share a bound of how far their codes are from them.
const ERROR_ROWS: usize = 256;
/// Rows encoded by one task.
const ENCODE_ROWS: usize = 1024;
const _: () = assert!(ENCODE_ROWS.is_multiple_of(ERROR_ROWS));
/// What a byte holds for 0, and half a byte.
const BYTE_ZERO: i32 = 128;
const NIBBLE_ZERO: i32 = 8;

/// Bits of each number.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bits {
    /// 256 steps.
    Eight,
    /// 16 steps.
    Four,
}

impl Bits {
    /// How many: 8 or 4.
    pub const fn count(self) -> u64 {
        match self {
            Self::Eight => 8,
            Self::Four => 4,
        }
    }

    /// The codes of so many bits, where there are such.
    pub const fn of(count: u32) -> Option<Self> {
        match count {
            8 => Some(Self::Eight),
            4 => Some(Self::Four),
            _ => None,
        }
    }

    /// The largest code, either way from 0.
    fn reach(self) -> f32 {
        match self {
            Self::Eight => 127.0,
            Self::Four => 7.0,
        }
    }

    fn code_bytes(self, dims: usize) -> usize {
        match self {
            Self::Eight => dims,
            Self::Four => dims.div_ceil(2),
        }
    }
}

/// The codes of a segment's rows.
#[derive(Debug)]
pub struct ScalarCodes {
    frame: Frame,
    bits: Bits,
    rows: u32,
    stride: usize,
    records: Pages<u8>,
    /// For each [`ERROR_ROWS`] rows the most that a row's code is from it, `|x - scale_x code_x|`
    /// rounded up, and the greatest `|x|`. Kept where rows are ruled out by them; else empty.
    errors: Vec<[f32; 2]>,
}

/// Whether it is known how far rows' codes are from them.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Errors {
    /// It is: rows can be ruled out by their codes.
    Kept,
    /// It is not.
    Omitted,
}

impl ScalarCodes {
    /// Encodes every row. O(rows * dims * log dims).
    pub fn encode<V: Vectors + ?Sized>(
        metric: Metric,
        bits: Bits,
        errors: Errors,
        vectors: &V,
        executor: &dyn Executor,
    ) -> Self {
        let mut codes = Self::empty(metric, bits, vectors);
        let (rows, stride) = (codes.rows, codes.stride);
        let parts =
            map_runs(executor, rows as usize, ENCODE_ROWS, &|run| codes.encode_run(vectors, run));
        let mut records = Pages::zeroed(rows as usize * stride);
        let places = records.chunks_mut(ENCODE_ROWS * stride);
        for ((part, lost), place) in parts.iter().zip(places) {
            place.copy_from_slice(part);
            if errors == Errors::Kept {
                codes.errors.extend(errors_of(lost));
            }
        }
        codes.records = records;
        codes
    }

    /// Without any row's codes.
    fn empty<V: Vectors + ?Sized>(metric: Metric, bits: Bits, vectors: &V) -> Self {
        Self {
            frame: Frame::of(metric, vectors),
            bits,
            rows: vectors.rows(),
            stride: bits.code_bytes(vectors.dims()) + TERMS_BYTES,
            records: Pages::zeroed(0),
            errors: Vec::new(),
        }
    }

    /// Whether rows can be ruled out by them.
    pub fn has_errors(&self) -> bool {
        self.errors.len() == (self.rows as usize).div_ceil(ERROR_ROWS)
    }

    /// Bits of each number.
    pub fn bits(&self) -> Bits {
        self.bits
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.records.bytes() + self.frame.bytes() + size_of_val(self.errors.as_slice())
    }

    /// A scorer against `query`, which for [`Metric::Cosine`] is a unit vector.
    pub fn scorer(&self, query: &[f32]) -> CodeScorer<'_> {
        let mut query = CodedQuery::new(&self.frame, query);
        let dims = self.frame.dims();
        let (zero, added) = match self.bits {
            Bits::Eight => (BYTE_ZERO, 0),
            // An odd dimension has one half byte that no number uses.
            Bits::Four => (NIBBLE_ZERO, 2 * self.bits.code_bytes(dims) - dims),
        };
        query.codes.extend(std::iter::repeat_n(0, added));
        CodeScorer {
            codes: self,
            kernels: kernels(),
            zero: zero * query.sum,
            factor: -query.weight * query.scale,
            query,
        }
    }

    /// The records of some rows, and how far each row's code is from it, and the row's length.
    fn encode_run<V: Vectors + ?Sized>(
        &self,
        vectors: &V,
        rows: Range<usize>,
    ) -> (Vec<u8>, Vec<[f32; 2]>) {
        let mut errors = Vec::with_capacity(rows.len());
        let mut out = Vec::with_capacity(rows.len() * self.stride);
        let (mut rotated, mut room) = (Vec::new(), Vec::new());
        let mut codes = vec![0; self.frame.dims()];
        for row in rows {
            self.frame.row(vectors, row, &mut rotated, &mut room);
            let scale = self.push_codes(&rotated, &mut codes, &mut out);
            let own = square(&rotated);
            errors.push([distance_of_codes(&rotated, &codes, scale), own.sqrt()]);
            out.extend_from_slice(&scale.to_le_bytes());
            out.extend_from_slice(&own.to_le_bytes());
        }
        (out, errors)
    }

    /// Appends the codes of a rotated row and gives their scale.
    fn push_codes(&self, rotated: &[f32], codes: &mut [i8], out: &mut Vec<u8>) -> f32 {
        let kernels = kernels();
        let reach = self.bits.reach();
        let largest = kernels.largest(rotated) / reach;
        match self.bits {
            Bits::Eight => {
                kernels.quantize(rotated, inverse(largest), codes);
                out.extend(codes.iter().map(|code| code.cast_unsigned() ^ 0x80));
                largest
            }
            Bits::Four => {
                let scale = best_scale(rotated, largest, reach, codes);
                kernels.quantize(rotated, inverse(scale), codes);
                for code in codes.iter_mut() {
                    *code = (*code).clamp(-7, 7);
                }
                let nibble = |code: &i8| (code + 8).cast_unsigned();
                let (low, high) = codes.split_at(codes.len().div_ceil(2));
                let high = high.iter().map(nibble).chain(std::iter::repeat(0));
                out.extend(low.iter().map(nibble).zip(high).map(|(low, high)| low | high << 4));
                scale
            }
        }
    }

    fn record(&self, row: RowId) -> &[u8] {
        &self.records[row.0 as usize * self.stride..][..self.stride]
    }
}

/// Scores rows by their codes: near the true distance, at a fraction of the bytes.
#[derive(Debug)]
pub struct CodeScorer<'a> {
    codes: &'a ScalarCodes,
    kernels: &'static Kernels,
    query: CodedQuery,
    /// What the codes' zero adds to every product.
    zero: i32,
    factor: f32,
}

impl CodeScorer<'_> {
    /// Whether rows can be ruled out by their codes.
    pub(crate) fn has_errors(&self) -> bool {
        self.codes.has_errors()
    }

    #[inline]
    fn distance(&self, record: &[u8]) -> f32 {
        let (codes, terms) = record.split_at(record.len() - TERMS_BYTES);
        let product = match self.codes.bits {
            Bits::Eight => self.kernels.dot_bytes(codes, &self.query.codes),
            Bits::Four => self.kernels.dot_nibbles(codes, &self.query.codes),
        };
        self.distance_of(product, terms)
    }

    /// The distances of four rows.
    #[inline]
    fn distances(&self, records: [&[u8]; 4]) -> [f32; 4] {
        if self.codes.bits == Bits::Four {
            return records.map(|record| self.distance(record));
        }
        let split = records.map(|record| record.split_at(record.len() - TERMS_BYTES));
        let products =
            self.kernels.dot_bytes_of_four(split.map(|(codes, _)| codes), &self.query.codes);
        let mut terms = split.map(|(_, terms)| terms).into_iter();
        products.map(|product| self.distance_of(product, terms.next().unwrap_or_default()))
    }

    /// What the product of a row's codes and its terms make.
    #[inline]
    fn distance_of(&self, product: i32, terms: &[u8]) -> f32 {
        let (scale, own) = terms_of(terms);
        let own = self.query.own + own_term(self.query.own_weight, own);
        let distance = own + self.factor * scale * whole(product - self.zero);
        // Vectors near the end of the range of f32 overflow here: they are the farthest.
        if distance.is_nan() { f32::INFINITY } else { distance }
    }

    /// How much nearer than its score a row of these can be.
    ///
    /// # Panics
    /// If the codes' errors are not kept.
    pub fn reach(&self, rows: Range<u32>) -> f32 {
        let blocks = rows.start as usize / ERROR_ROWS..(rows.end as usize).div_ceil(ERROR_ROWS);
        self.query.reach(largest(self.codes.errors[blocks].iter()))
    }

    /// What a row of this score is not nearer than; of codes whose errors are not kept that is not
    /// known.
    #[inline]
    pub(crate) fn lower_bound(&self, row: RowId, score: f32) -> f32 {
        let errors = self.codes.errors.get(row.0 as usize / ERROR_ROWS);
        errors.map_or(f32::NEG_INFINITY, |errors| score - self.query.reach(*errors))
    }
}

impl Scorer for CodeScorer<'_> {
    fn rows(&self) -> u32 {
        self.codes.rows
    }

    fn score_range(&self, first: RowId, out: &mut [f32]) {
        let stride = self.codes.stride;
        let records = &self.codes.records[first.0 as usize * stride..][..out.len() * stride];
        let (fours, rest) = out.as_chunks_mut::<4>();
        let (of_fours, of_rest) = records.split_at(fours.len() * 4 * stride);
        for (records, out) in of_fours.chunks_exact(4 * stride).zip(fours) {
            *out = self.distances([0, 1, 2, 3].map(|row| &records[row * stride..][..stride]));
        }
        for (record, out) in of_rest.chunks_exact(stride).zip(rest) {
            *out = self.distance(record);
        }
    }

    fn score(&self, rows: &[RowId], out: &mut [f32]) {
        let ask = |row| prefetch(self.codes.record(row));
        let four = |rows: [RowId; 4]| self.distances(rows.map(|row| self.codes.record(row)));
        score_fours_ahead(rows, out, ask, four, |row| self.distance(self.codes.record(row)));
    }
}

impl BoundedScorer for CodeScorer<'_> {
    fn lower_bounds(&self, first: RowId, out: &mut [f32]) {
        self.score_range(first, out);
        let end = first.0.saturating_add(u32::try_from(out.len()).unwrap_or(u32::MAX));
        let reach = self.reach(first.0..end);
        for out in out {
            *out -= reach;
        }
    }
}

/// Distances between rows, for building.
pub trait Space: Sync {
    /// How many rows there are.
    fn rows(&self) -> u32;

    /// `out[i]` becomes the distance of `from` and `to[i]`; the same both ways round.
    fn distances(&self, from: RowId, to: &[RowId], out: &mut [f32]);
}

impl Space for ScalarCodes {
    fn rows(&self) -> u32 {
        self.rows
    }

    fn distances(&self, from: RowId, to: &[RowId], out: &mut [f32]) {
        let (metric, dims) = (self.frame.metric(), self.frame.dims());
        assert!(self.bits == Bits::Eight && metric != Metric::Dot, "codes that compare");
        let kernels = kernels();
        let (from_codes, from_terms) = self.record(from).split_at(dims);
        let (from_scale, from_own) = terms_of(from_terms);
        let (own_weight, weight) = self.frame.weights();
        let ask = |row| prefetch(self.record(row));
        score_ahead(to, out, ask, |row| {
            let (codes, terms) = self.record(row).split_at(dims);
            let (scale, own) = terms_of(terms);
            let product = kernels.dot_codes(from_codes, codes);
            let distance =
                own_weight * (from_own + own) - weight * (from_scale * scale) * whole(product);
            if distance.is_nan() { f32::INFINITY } else { distance }
        });
    }
}

/// The errors of each block of rows, of those of the rows.
fn errors_of(rows: &[[f32; 2]]) -> impl Iterator<Item = [f32; 2]> {
    rows.chunks(ERROR_ROWS).map(|block| largest(block.iter()))
}

fn largest<'a>(errors: impl Iterator<Item = &'a [f32; 2]>) -> [f32; 2] {
    errors.fold([0.0; 2], |most, of| [most[0].max(of[0]), most[1].max(of[1])])
}

/// How far a vector is from its codes, rounded up.
pub(crate) fn distance_of_codes(rotated: &[f32], codes: &[i8], scale: f32) -> f32 {
    let lost = |(value, code): (&f32, &i8)| {
        let lost = f64::from(*value) - f64::from(*code) * f64::from(scale);
        lost * lost
    };
    let lost: f64 = rotated.iter().zip(codes).map(lost).sum();
    narrow(lost.sqrt() * (1.0 + 1e-6))
}

/// Of some scales up to `largest`, the one whose rounding loses least.
fn best_scale(rotated: &[f32], largest: f32, reach: f32, codes: &mut [i8]) -> f32 {
    let mut loss = |scale: f32| -> f32 {
        kernels().quantize(rotated, inverse(scale), codes);
        let lost = rotated.iter().zip(codes.iter()).map(|(value, code)| {
            let lost = value - f32::from(*code).clamp(-reach, reach) * scale;
            lost * lost
        });
        lost.sum()
    };
    let scales = (8_u8..=16).map(|sixteenths| largest * f32::from(sixteenths) / 16.0);
    let losses: Vec<(f32, f32)> = scales.map(|scale| (loss(scale), scale)).collect();
    let least = losses.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
    least.map_or(largest, |(_loss, scale)| scale)
}

/// `1 / scale`, and 0 for a scale of 0: then everything is 0.
pub(crate) fn inverse(scale: f32) -> f32 {
    if scale > 0.0 { 1.0 / scale } else { 0.0 }
}

fn square(vector: &[f32]) -> f32 {
    narrow(sum_of_squares(vector))
}

#[inline]
fn terms_of(terms: &[u8]) -> (f32, f32) {
    let (terms, _) = terms.as_chunks::<4>();
    (f32::from_le_bytes(terms[0]), f32::from_le_bytes(terms[1]))
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is what is asked for")]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[inline]
fn whole(product: i32) -> f32 {
    product as f32
}
