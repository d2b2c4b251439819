//! One bit for each number, with estimates of distances that are right on average: `RaBitQ` (Gao and
//! Long, "`RaBitQ`: quantizing high-dimensional vectors with a theoretical error bound for approximate
//! nearest neighbor search", SIGMOD 2024).
//!
//! Of a row `x` in its [`Frame`] the signs `s` are kept, its square, and the factor `f` for which
//! `f s . x = |x|^2`: `f s` is then `x` and something at a right angle to it, `|f s - x|^2 =
//! d f^2 - |x|^2`. The estimate of `q . x` is `f s . q`. Over random rotations that something points
//! anywhere at a right angle to `x`, so the estimate is right on average, and off by more than
//!
//! ```text
//! CONFIDENCE * |q| * sqrt(d f^2 - |x|^2) / sqrt(d - 1)
//! ```
//!
//! about as rarely as a normal variable is off by [`CONFIDENCE`](scorer::CONFIDENCE) deviations.
//!
//! The query is rounded to codes of 8 bits (or, for signs that are scanned, its tables are), to the
//! nearest and not at random: a search then finds the same rows whenever and wherever it is made. What
//! rounding loses does not depend on the signs and is less than a fiftieth of what they lose; it is
//! counted in the bound.
//!
//! Signs that are scanned lie in blocks of 32 rows, four signs being a code that is looked up in
//! tables of the query; a block's rows share a bound of how far off their estimates may be.

mod scorer;

use std::io;
use std::ops::Range;

use arrwdb_kernel::{BLOCK_ROWS, QueryTables, kernels};

use super::frame::{Frame, own_term};
use super::{Access, Bits, CodesScorer, TERMS_BYTES, distance_of_codes, inverse};
use crate::executor::map_runs;
use crate::ivf::blocks::{Blocks, set_row};
use crate::ivf::book::Book;
use crate::norm::{round, sum_of_squares};
use crate::pages::Pages;
use crate::{Executor, Malformed, Metric, SectionReader, SectionWriter, Vectors};

use scorer::Margin;
pub(crate) use scorer::{BinaryBlockScorer, BinaryScorer};

/// Rows encoded by one task.
const ENCODE_ROWS: usize = 1024;
const _: () = assert!(ENCODE_ROWS.is_multiple_of(BLOCK_ROWS));
/// Signs of a record are kept in whole words of so many bits.
const WORD_BITS: usize = 64;
/// What a file says the bits of a number are.
const BITS: u64 = 1;

/// The signs of a segment's rows.
#[derive(Debug)]
pub(crate) struct BinaryCodes {
    frame: Frame,
    rows: u32,
    layout: Layout,
}

#[derive(Debug)]
enum Layout {
    /// For each row its signs, then its factor and its square as f32.
    Records { stride: usize, bytes: Pages<u8> },
    /// Four signs a code, and for each block the greatest of its rows' [`Sizes`].
    Blocks { book: Book, blocks: Blocks, most: Vec<Sizes> },
}

/// What the error of an estimate grows with: the squares of what is at a right angle to the row, of
/// its factor and of the row.
type Sizes = [f32; 3];

/// A row's factor and square, from its numbers in the frame.
fn terms(numbers: &[f32]) -> [f64; 2] {
    let square = sum_of_squares(numbers);
    let along: f64 = numbers.iter().map(|value| f64::from(value.abs())).sum();
    // A row at the centre has no direction.
    [if along > 0.0 { square / along } else { 0.0 }, square]
}

impl BinaryCodes {
    /// Encodes every row. O(rows * dims * log dims).
    pub(crate) fn encode<V: Vectors + ?Sized>(
        metric: Metric,
        access: Access,
        vectors: &V,
        executor: &dyn Executor,
    ) -> Self {
        Self::encode_in(Frame::of(metric, vectors), access, vectors, executor)
    }

    fn encode_in<V: Vectors + ?Sized>(
        frame: Frame,
        access: Access,
        vectors: &V,
        executor: &dyn Executor,
    ) -> Self {
        let layout = match access {
            Access::Picked => records(&frame, vectors, executor),
            Access::Scanned => blocks(&frame, vectors, executor),
        };
        Self { frame, rows: vectors.rows(), layout }
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        let signs = match &self.layout {
            Layout::Records { bytes, .. } => bytes.bytes(),
            Layout::Blocks { book, blocks, most } => {
                book.bytes() + blocks.bytes() + size_of_val(most.as_slice())
            }
        };
        signs + self.frame.bytes()
    }

    /// A scorer against `query`, which for [`Metric::Cosine`] is a unit vector.
    pub(crate) fn scorer(&self, query: &[f32]) -> CodesScorer<'_> {
        let (kernels, framed) = (kernels(), self.frame.query(query));
        let dims = self.frame.dims() as f64;
        match &self.layout {
            Layout::Records { stride, bytes } => {
                let scale = kernels.largest(&framed.numbers) / Bits::Eight.reach();
                let mut codes = vec![0; self.frame.dims()];
                kernels.quantize(&framed.numbers, inverse(scale), &mut codes);
                let lost = f64::from(distance_of_codes(&framed.numbers, &codes, scale));
                let total = codes.iter().map(|code| i32::from(*code)).sum();
                codes.resize(8 * (stride - TERMS_BYTES), 0);
                let (own_weight, weight) = self.frame.weights();
                CodesScorer::Binary(BinaryScorer {
                    rows: self.rows,
                    stride: *stride,
                    bytes,
                    kernels,
                    query: codes,
                    total,
                    own: framed.own,
                    own_weight,
                    factor: -weight * scale,
                    dims,
                    margin: Margin::new(&self.frame, &framed, [lost, lost * dims.sqrt()]),
                })
            }
            Layout::Blocks { book, blocks, most } => {
                let (mut padded, mut tables) = (Vec::new(), QueryTables::default());
                book.pad(&framed.numbers, &mut padded);
                kernels.fill_tables(&padded, book.points(), book.parts(), &mut tables);
                let (half, parts) = (f64::from(tables.step) / 2.0, book.parts() as f64);
                let lost = [half * parts.sqrt(), half * parts];
                let margin = Margin::new(&self.frame, &framed, lost);
                CodesScorer::BinaryBlocks(BinaryBlockScorer {
                    blocks,
                    most,
                    kernels,
                    tables,
                    own: framed.own,
                    margin,
                })
            }
        }
    }

    /// Writes the codes: number 1 (bits), the frame, then array u8 records, or array u32 blocks and
    /// array f32 of the sizes of each.
    pub(crate) fn write(&self, out: &mut SectionWriter<'_>) -> io::Result<()> {
        out.number(BITS)?;
        self.frame.write(out)?;
        match &self.layout {
            Layout::Records { bytes, .. } => out.array(bytes),
            Layout::Blocks { blocks, most, .. } => {
                out.array(blocks.words())?;
                out.array(most.as_flattened())
            }
        }
    }

    /// Reads codes of `rows` rows.
    pub(crate) fn read(
        from: &mut SectionReader<'_>,
        access: Access,
        metric: Metric,
        dims: usize,
        rows: u32,
    ) -> Result<Self, Malformed> {
        let wrong = from.malformed("codes of 1 bit");
        if from.number("bits")? != BITS {
            return Err(wrong);
        }
        let frame = Frame::read(from, metric, dims)?;
        let rows_count = rows as usize;
        let layout = match access {
            Access::Picked => {
                let stride = stride(dims);
                let bytes: &[u8] = from.array_of("signs", rows_count * stride)?;
                if !bytes.chunks_exact(stride).all(|record| is_padded(record, dims)) {
                    return Err(from.malformed("no signs past the dimension"));
                }
                Layout::Records { stride, bytes: Pages::of(bytes) }
            }
            Access::Scanned => {
                let book = Book::of_signs(dims);
                let (words, count) = (book.block_words(), rows_count.div_ceil(BLOCK_ROWS));
                let blocks = Blocks::of(words, from.array_of("blocks of signs", count * words)?);
                let most: &[f32] = from.array_of("sizes of blocks", 3 * count)?;
                if !most.iter().all(|size| *size >= 0.0) {
                    return Err(from.malformed("sizes of rows"));
                }
                Layout::Blocks { book, blocks, most: most.as_chunks().0.to_vec() }
            }
        };
        Ok(Self { frame, rows, layout })
    }
}

/// Bytes of a record.
fn stride(dims: usize) -> usize {
    dims.next_multiple_of(WORD_BITS) / 8 + TERMS_BYTES
}

/// Whether a record has no sign after the last number's.
fn is_padded(record: &[u8], dims: usize) -> bool {
    let (signs, _terms) = record.split_at(record.len() - TERMS_BYTES);
    let (used, rest) = signs.split_at(dims.div_ceil(8));
    let last = if dims.is_multiple_of(8) { 0 } else { u8::MAX << (dims % 8) };
    used.last().is_none_or(|byte| byte & last == 0) && rest.iter().all(|byte| *byte == 0)
}

fn records<V: Vectors + ?Sized>(frame: &Frame, vectors: &V, executor: &dyn Executor) -> Layout {
    let (rows, stride) = (vectors.rows() as usize, stride(frame.dims()));
    let parts = map_runs(executor, rows, ENCODE_ROWS, &|run: Range<usize>| {
        let mut part = vec![0; run.len() * stride];
        let (mut vector, mut room) = (Vec::new(), Vec::new());
        for (row, record) in run.zip(part.chunks_exact_mut(stride)) {
            frame.row(vectors, row, &mut vector, &mut room);
            let (signs, ends) = record.split_at_mut(stride - TERMS_BYTES);
            for (byte, values) in signs.iter_mut().zip(vector.chunks(8)) {
                let set = |(bit, value): (usize, &f32)| u8::from(*value >= 0.0) << bit;
                *byte = values.iter().enumerate().map(set).sum();
            }
            let both = terms(&vector).map(|term| round(term).to_le_bytes());
            ends.copy_from_slice(both.as_flattened());
        }
        part
    });
    let mut bytes = Pages::zeroed(rows * stride);
    for (part, place) in parts.iter().zip(bytes.chunks_mut(ENCODE_ROWS * stride)) {
        place.copy_from_slice(part);
    }
    Layout::Records { stride, bytes }
}

fn blocks<V: Vectors + ?Sized>(frame: &Frame, vectors: &V, executor: &dyn Executor) -> Layout {
    let book = Book::of_signs(frame.dims());
    let (rows, words) = (vectors.rows() as usize, book.block_words());
    let (own_weight, weight) = frame.weights();
    let parts = map_runs(executor, rows, ENCODE_ROWS, &|run: Range<usize>| {
        let count = run.len().div_ceil(BLOCK_ROWS);
        let (mut part, mut most) = (vec![0_u32; count * words], vec![Sizes::default(); count]);
        let (mut vector, mut room, mut codes) = (Vec::new(), Vec::new(), Vec::new());
        for (place, row) in run.enumerate() {
            frame.row(vectors, row, &mut vector, &mut room);
            let [factor, square] = terms(&vector);
            book.encode_signs(&vector, &mut codes, &mut room);
            let ends = [own_term(own_weight, round(square)), -weight * round(factor)];
            let (block, place) = (place / BLOCK_ROWS, place % BLOCK_ROWS);
            set_row(&mut part[block * words..][..words], place, &codes, ends);
            let squared = factor * factor;
            let aside = (frame.dims() as f64 * squared - square).max(0.0);
            for (most, size) in most[block].iter_mut().zip([aside, squared, square]) {
                // Rounded up.
                *most = most.max(round(size * (1.0 + 1e-6)));
            }
        }
        (part, most)
    });
    let mut blocks = Blocks::zeroed(words, rows.div_ceil(BLOCK_ROWS));
    let mut all = Vec::with_capacity(rows.div_ceil(BLOCK_ROWS));
    for (part, most) in parts {
        blocks.words_mut(all.len(), most.len()).copy_from_slice(&part);
        all.extend(most);
    }
    Layout::Blocks { book, blocks, most: all }
}

#[cfg(test)]
mod tests;
