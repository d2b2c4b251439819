//! Scalar codes of 8 bits that are scanned, each in two halves: all rows' upper halves are read, and
//! the lower ones of those rows that the upper do not rule out.
//!
//! The upper half of a code stands for the middle of its 16 codes. With `x'` the row of those,
//! `x - x'` is at most `scale * lost` longer than the code's own error, where `lost` is the length of
//! what the lower halves are off the middle by: known, and nearly the same for all rows. So a row is
//! ruled out if the estimate by its upper half is farther than the bound by more than
//! `weight (|q| + e_q) scale lost` and what the whole codes can be off by
//! ([`CodedQuery::reach`]): certainly, as by the whole codes.
//!
//! In memory rows lie in blocks of 32, as [`Kernels::dot_block`] reads them, and the lower halves one
//! row after the other. In a file they are what [`super::codec`] says.

use std::io;
use std::ops::Range;

use arrwdb_kernel::{BLOCK_ROWS, HALVES_GROUP_BYTES, Kernels, Line, kernels, prefetch};

use super::codec::Records;
use super::frame::{Frame, own_term};
use super::query::CodedQuery;
use super::{
    BYTE_ZERO, Bits, ENCODE_ROWS, ERROR_ROWS, Errors, ScalarCodes, TERMS_BYTES, errors_of,
    terms_of, whole,
};
use crate::executor::map_runs;
use crate::ivf::blocks::{Blocks, each_bit, low_bits};
use crate::pages::Pages;
use crate::{Allowed, Executor, Malformed, Metric, RowId, SectionReader, SectionWriter, Vectors};

/// Rows of a block.
#[expect(clippy::cast_possible_truncation, reason = "it is 32")]
const BLOCK_STEP: u32 = BLOCK_ROWS as u32;
/// Rows in a word of [`Allowed::word`].
const WORD_ROWS: u32 = u64::BITS;
/// Codes that share an upper half.
const STEPS: i32 = 16;
/// Twice what the middle of the lower halves is: 7.5.
const MIDDLE_TWICE: i32 = STEPS - 1;
/// How many blocks ahead a scan asks for memory.
const BLOCKS_AHEAD: usize = 2;
/// So many rows that the upper halves leave are looked at together: their waits for memory overlap.
const SUSPECTS: usize = 64;
const _: () = assert!(ERROR_ROWS.is_multiple_of(BLOCK_ROWS));

/// The codes of a segment's rows.
#[derive(Debug)]
pub(crate) struct HalvedCodes {
    frame: Frame,
    rows: u32,
    /// Upper halves, what each row adds to its distance, and its scale.
    blocks: Blocks,
    /// Lower halves, [`row_bytes`] for each row.
    lower: Pages<u8>,
    /// For each [`ERROR_ROWS`] rows the most that a row's code is from it, and the greatest length.
    errors: Vec<[f32; 2]>,
    /// For each block the greatest length of what the lower halves are off the middle by, in scales.
    lost: Vec<f32>,
}

impl HalvedCodes {
    /// Encodes every row. O(rows * dims * log dims).
    pub(super) fn encode<V: Vectors + ?Sized>(
        metric: Metric,
        vectors: &V,
        executor: &dyn Executor,
    ) -> Self {
        let scalar = ScalarCodes::empty(metric, Bits::Eight, vectors);
        let (own_weight, dims) = (scalar.frame.weights().0, scalar.frame.dims());
        let rows = scalar.rows as usize;
        let parts = map_runs(executor, rows, ENCODE_ROWS, &|run| {
            let (records, errors) = scalar.encode_run(vectors, run);
            let mut part = Part::new(dims, errors.len());
            part.fill(&records, own_weight);
            part.errors.extend(errors_of(&errors));
            part
        });
        let mut codes = Self::empty(scalar.frame, scalar.rows);
        for (place, part) in parts.iter().enumerate() {
            codes.set(place * ENCODE_ROWS, part);
            codes.errors.extend(&part.errors);
        }
        codes
    }

    fn empty(frame: Frame, rows: u32) -> Self {
        let (dims, count) = (frame.dims(), rows as usize);
        Self {
            blocks: Blocks::zeroed(block_words(dims), count.div_ceil(BLOCK_ROWS)),
            lower: Pages::zeroed(count * row_bytes(dims)),
            errors: Vec::new(),
            lost: Vec::new(),
            frame,
            rows,
        }
    }

    /// Puts the rows of a part where they belong, the first of which is the first of a block.
    fn set(&mut self, first: usize, part: &Part) {
        let blocks = self.blocks.words_mut(first / BLOCK_ROWS, part.lost.len());
        blocks.copy_from_slice(&part.words);
        let start = first * row_bytes(self.frame.dims());
        self.lower[start..start + part.lower.len()].copy_from_slice(&part.lower);
        self.lost.extend(&part.lost);
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.bytes()
            + self.lower.bytes()
            + self.frame.bytes()
            + size_of_val(self.errors.as_slice())
            + size_of_val(self.lost.as_slice())
    }

    /// A scorer against `query`, which for [`Metric::Cosine`] is a unit vector.
    pub(super) fn scorer(&self, query: &[f32]) -> HalvedScorer<'_> {
        let mut query = CodedQuery::new(&self.frame, query);
        let dims = query.codes.len();
        query.codes.resize(2 * row_bytes(dims), 0);
        // A row's upper half stands for `16 upper - 120.5`.
        let middle = (2 * BYTE_ZERO - MIDDLE_TWICE) as f32 / 2.0;
        let unit = query.weight * query.scale;
        let (step, offset) = (-unit * STEPS as f32, unit * middle * whole(query.sum));
        let lost = query.weight * (query.length + query.error);
        // No estimate overflows on its way.
        let most = step.abs() * (STEPS * BYTE_ZERO) as f32 * dims as f32;
        let is_finite = (most + offset.abs() + lost * middle * dims as f32).is_finite();
        HalvedScorer { codes: self, kernels: kernels(), query, step, offset, lost, is_finite }
    }

    /// Writes the codes.
    pub(super) fn write(&self, out: &mut SectionWriter<'_>) -> io::Result<()> {
        out.number(Bits::Eight.count())?;
        self.frame.write(out)?;
        let count = self.rows as usize * (self.frame.dims() + TERMS_BYTES);
        let runs = (0..self.rows).step_by(ENCODE_ROWS).map(|first| self.records(first));
        out.array_of_parts(count, runs)?;
        out.array(self.errors.as_flattened())
    }

    /// The records of [`ENCODE_ROWS`] rows from `first`.
    fn records(&self, first: u32) -> Vec<u8> {
        let (dims, own_weight) = (self.frame.dims(), self.frame.weights().0);
        let mut records = Vec::new();
        for row in (first..self.rows).take(ENCODE_ROWS) {
            let (block, lower) = (self.blocks.block(row as usize / BLOCK_ROWS, 0), self.lower(row));
            let place = row as usize % BLOCK_ROWS;
            let (groups, _) = block.codes.as_chunks::<HALVES_GROUP_BYTES>();
            let upper = groups.iter().skip(place).step_by(BLOCK_ROWS).flatten();
            let both = upper.zip(lower);
            let low = both.clone().map(|(upper, lower)| upper << 4 | lower & 15);
            let high = both.map(|(upper, lower)| upper & 0xf0 | lower >> 4);
            records.extend(low.chain(high).take(dims));
            let own = block.own[place];
            let square = if own_weight > 0.0 { own / own_weight } else { 0.0 };
            records.extend_from_slice(&block.factor[place].to_le_bytes());
            records.extend_from_slice(&square.to_le_bytes());
        }
        records
    }

    /// Reads codes of `rows` rows.
    pub(super) fn read(
        from: &mut SectionReader<'_>,
        metric: Metric,
        dims: usize,
        rows: u32,
    ) -> Result<Self, Malformed> {
        let wrong = from.malformed("codes of 8 bits");
        let Records { frame, bits, stride, bytes, errors } =
            Records::read(from, metric, Errors::Kept, dims, rows)?;
        if bits != Bits::Eight {
            return Err(wrong);
        }
        let own_weight = frame.weights().0;
        let mut codes = Self::empty(frame, rows);
        for (place, records) in bytes.chunks(ENCODE_ROWS * stride).enumerate() {
            let mut part = Part::new(dims, records.len() / stride);
            part.fill(records, own_weight);
            codes.set(place * ENCODE_ROWS, &part);
        }
        codes.errors = errors;
        Ok(codes)
    }

    #[inline]
    fn lower(&self, row: u32) -> &[u8] {
        let bytes = row_bytes(self.frame.dims());
        &self.lower[row as usize * bytes..][..bytes]
    }
}

/// Bytes of the half of a row's codes: those of whole groups.
fn row_bytes(dims: usize) -> usize {
    dims.div_ceil(2 * HALVES_GROUP_BYTES) * HALVES_GROUP_BYTES
}

/// Words of a block: a word for each group of a row, and two terms for each row.
fn block_words(dims: usize) -> usize {
    (row_bytes(dims) / HALVES_GROUP_BYTES + 2) * BLOCK_ROWS
}

/// Some rows on their way into memory, from the first of a block.
struct Part {
    words: Vec<u32>,
    lower: Vec<u8>,
    errors: Vec<[f32; 2]>,
    lost: Vec<f32>,
    dims: usize,
}

impl Part {
    fn new(dims: usize, rows: usize) -> Self {
        let blocks = rows.div_ceil(BLOCK_ROWS);
        Self {
            words: vec![0; blocks * block_words(dims)],
            lower: vec![0; rows * row_bytes(dims)],
            errors: Vec::new(),
            lost: vec![0.0; blocks],
            dims,
        }
    }

    fn fill(&mut self, records: &[u8], own_weight: f32) {
        let (bytes, words) = (row_bytes(self.dims), block_words(self.dims));
        let rows = records.chunks_exact(self.dims + TERMS_BYTES).zip(self.lower.chunks_mut(bytes));
        let (mut upper, mut padded) = (vec![0; bytes], vec![0; 2 * bytes]);
        for (row, (record, lower)) in rows.enumerate() {
            let (codes, terms) = record.split_at(self.dims);
            padded[..self.dims].copy_from_slice(codes);
            let (low, high) = padded.split_at(bytes);
            let halves = upper.iter_mut().zip(lower);
            for ((upper, lower), (low, high)) in halves.zip(low.iter().zip(high)) {
                *upper = low >> 4 | high & 0xf0;
                *lower = low & 15 | high << 4;
            }
            let (block, place) = (row / BLOCK_ROWS, row % BLOCK_ROWS);
            let block_words = &mut self.words[block * words..][..words];
            let (groups, _) = upper.as_chunks::<HALVES_GROUP_BYTES>();
            for (word, group) in block_words[place..].iter_mut().step_by(BLOCK_ROWS).zip(groups) {
                *word = u32::from_ne_bytes(*group);
            }
            let (scale, own) = terms_of(terms);
            let ends = &mut block_words[groups.len() * BLOCK_ROWS..];
            ends[place] = own_term(own_weight, own).to_bits();
            ends[BLOCK_ROWS + place] = scale.to_bits();
            self.lost[block] = self.lost[block].max(off_the_middle(codes));
        }
    }
}

/// The length of what the lower halves of some codes are off their middle by, rounded up.
fn off_the_middle(codes: &[u8]) -> f32 {
    let twice = |code: &u8| 2 * i32::from(code & 15) - MIDDLE_TWICE;
    let squares: i32 = codes.iter().map(twice).map(|twice| twice * twice).sum();
    super::narrow(f64::from(squares).sqrt() / 2.0 * (1.0 + 1e-6))
}

/// A query against the codes of all rows, one after the other.
#[derive(Debug)]
pub(crate) struct HalvedScorer<'a> {
    codes: &'a HalvedCodes,
    kernels: &'static Kernels,
    /// With a number for each half of a byte.
    query: CodedQuery,
    /// What one step of the upper halves' sum adds to a distance, in scales.
    step: f32,
    /// What a sum of 0 does.
    offset: f32,
    /// How much nearer a row can be for each scale that its lower halves are off the middle by.
    lost: f32,
    /// Whether `step`, `offset` and `lost` leave room for every sum.
    is_finite: bool,
}

/// A row that its upper half does not rule out, and the sum of that.
type Suspect = (u32, i32);

impl HalvedScorer<'_> {
    /// Calls `decide` with those of the allowed `rows` that may be within the bound that its last
    /// call gave; the first call has none. Gives the number of codes read.
    pub(crate) fn scan(
        &self,
        rows: Range<u32>,
        allowed: &dyn Allowed,
        mut decide: impl FnMut(&[RowId]) -> f32,
    ) -> u64 {
        assert!(rows.end <= self.codes.rows, "rows up to {} of {}", rows.end, self.codes.rows);
        let (mut sums, mut read, mut near) = ([0; BLOCK_ROWS], 0, Vec::new());
        let mut suspects: Vec<Suspect> = Vec::with_capacity(SUSPECTS + BLOCK_ROWS);
        let (mut word, mut limit) = (0, f32::INFINITY);
        let mut bound = decide(&[]);
        let (start, end) = (rows.start / BLOCK_STEP, rows.end.div_ceil(BLOCK_STEP));
        for block in start..end {
            let first = block * BLOCK_STEP;
            if block == start || first.is_multiple_of(WORD_ROWS) {
                word = allowed.word(RowId(first - first % WORD_ROWS));
            }
            if block == start || (first as usize).is_multiple_of(ERROR_ROWS) {
                limit = self.limit(bound, first);
            }
            let before = low_bits(rows.start.saturating_sub(first));
            let wanted =
                low_half(word >> (first % WORD_ROWS)) & low_bits(rows.end - first) & !before;
            if wanted == 0 {
                continue;
            }
            read += u64::from(BLOCK_STEP.min(rows.end - first));
            let codes = self.codes.blocks.block(block as usize, block as usize + BLOCKS_AHEAD);
            let line = Line {
                step: self.step,
                offset: self.offset - self.lost * self.codes.lost[block as usize],
                base: self.query.own,
                bound: limit,
            };
            let left = self.kernels.dot_block(&self.query.codes, codes, line, &mut sums) & wanted;
            each_bit(left, |place| {
                prefetch(self.codes.lower(first + place));
                suspects.push((first + place, sums[place as usize]));
            });
            if suspects.len() >= SUSPECTS {
                self.near(&suspects, bound, &mut near);
                suspects.clear();
                bound = decide(&near);
                limit = self.limit(bound, first);
            }
        }
        self.near(&suspects, bound, &mut near);
        decide(&near);
        read
    }

    /// The rows of the block that begins with row `first` are too far whose estimate is above this.
    fn limit(&self, bound: f32, first: u32) -> f32 {
        let errors = self.codes.errors[first as usize / ERROR_ROWS];
        let sizes = self.query.length + errors[1];
        let room = sizes * sizes * (self.query.codes.len() + 64) as f32 * STEPS as f32;
        if self.is_finite && room.is_finite() {
            bound + self.query.reach(errors)
        } else {
            f32::INFINITY
        }
    }

    /// `near` becomes those of the suspects that their whole codes do not rule out either.
    fn near(&self, suspects: &[Suspect], bound: f32, near: &mut Vec<RowId>) {
        let factor = -self.query.weight * self.query.scale;
        near.clear();
        near.extend(suspects.iter().filter_map(|(row, upper)| {
            let lower = self.kernels.dot_nibbles(self.codes.lower(*row), &self.query.codes);
            let product = STEPS * upper + lower - BYTE_ZERO * self.query.sum;
            let block = self.codes.blocks.block(*row as usize / BLOCK_ROWS, 0);
            let place = *row as usize % BLOCK_ROWS;
            let own = self.query.own + block.own[place];
            let distance = own + factor * block.factor[place] * whole(product);
            let reach = self.query.reach(self.codes.errors[*row as usize / ERROR_ROWS]);
            let lower_bound = distance - reach;
            // What overflowed, or is not a number, rules nothing out.
            let is_far = lower_bound > bound && lower_bound.is_finite();
            (!is_far).then_some(RowId(*row))
        }));
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the rows of one block of two")]
fn low_half(word: u64) -> u32 {
    word as u32
}

#[cfg(test)]
mod tests;
