//! Product quantisation (Jegou, Douze and Schmid, "Product quantization for nearest neighbor
//! search", 2011): a code of 4 bits for each part of a row, by the [`Book`] that inverted lists use.
//!
//! A row's codes are scaled so that its product with what they stand for is right, as in
//! [`binary`](super::binary), which leaves estimates without bias. How far off they may be is not
//! kept: a scan finds candidates, and rules nothing out.
//!
//! Codes that are scanned lie in blocks of 32 rows, for instructions that look up many rows at once;
//! codes that are picked out lie row by row, and are looked up in the same tables of bytes. A sum is
//! a whole number either way, so a row has one estimate on every CPU.

use std::io;
use std::ops::Range;

use arrwdb_kernel::{
    BLOCK_ROWS, Line, PART_BYTES, PARTS_MULTIPLE, QueryTables, TableQuad, kernels, prefetch,
};

use super::frame::{Frame, own_term};
use super::{Access, CodesScorer, TERMS_BYTES, terms_of};
use crate::executor::map_runs;
use crate::ivf::blocks::{Blocks, each_bit, low_bits, set_row};
use crate::ivf::book::{Book, Encoded, SAMPLE_MAX};
use crate::ivf::reservoir::Reservoir;
use crate::ivf::sample;
use crate::pages::Pages;
use crate::scorer::score_ahead;
use crate::{
    Allowed, Executor, Malformed, Metric, RowId, Scorer, SectionReader, SectionWriter, Vectors,
};

/// The seed of the points: codes depend on the rows and what is asked for alone.
const SEED: u64 = 0xb00c;
/// Rows encoded by one task.
const ENCODE_ROWS: usize = 1024;
const _: () = assert!(ENCODE_ROWS.is_multiple_of(BLOCK_ROWS));
const BLOCK_STEP: u32 = 32;
const _: () = assert!(BLOCK_STEP as usize == BLOCK_ROWS);

/// The codes of a segment's rows.
#[derive(Debug)]
pub(crate) struct ProductCodes {
    frame: Frame,
    book: Book,
    rows: u32,
    layout: Layout,
}

#[derive(Debug)]
enum Layout {
    Blocks(Blocks),
    /// For each row its codes, two in a byte, then what is added to its estimate and what its sum
    /// is multiplied with.
    Records {
        stride: usize,
        bytes: Pages<u8>,
    },
}

impl ProductCodes {
    /// Encodes every row in so many parts, half as many as numbers if that is not said.
    /// O(rows * dims * (16 + log dims)).
    pub(crate) fn encode<V: Vectors + ?Sized>(
        metric: Metric,
        (subvectors, access): (Option<u32>, Access),
        vectors: &V,
        executor: &dyn Executor,
    ) -> Self {
        let (frame, rows) = (Frame::of(metric, vectors), vectors.rows());
        let parts = subvectors.map_or(frame.dims().div_ceil(2), |parts| parts as usize);
        let mut learned = Vec::new();
        let (mut vector, mut room) = (Vec::new(), Vec::new());
        for row in sample(rows, SAMPLE_MAX, SEED) {
            frame.row(vectors, row as usize, &mut vector, &mut room);
            learned.extend_from_slice(&vector);
        }
        let book = Book::train(frame.dims(), parts, &learned, SEED, executor);
        drop(learned);
        let encoding = Encoding { frame: &frame, book: &book, vectors };
        let layout = match access {
            Access::Scanned => encoding.blocks(executor),
            Access::Picked => encoding.records(executor),
        };
        Self { frame, book, rows, layout }
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        let codes = match &self.layout {
            Layout::Blocks(blocks) => blocks.bytes(),
            Layout::Records { bytes, .. } => bytes.bytes(),
        };
        codes + self.book.bytes() + self.frame.bytes()
    }

    /// A scorer against `query`, which for [`Metric::Cosine`] is a unit vector.
    pub(crate) fn scorer(&self, query: &[f32]) -> CodesScorer<'_> {
        let framed = self.frame.query(query);
        let (mut padded, mut tables) = (Vec::new(), QueryTables::default());
        self.book.pad(&framed.numbers, &mut padded);
        kernels().fill_tables(&padded, self.book.points(), self.book.parts(), &mut tables);
        let (rows, own) = (self.rows, framed.own);
        match &self.layout {
            Layout::Blocks(blocks) => {
                CodesScorer::ProductBlocks(ProductBlockScorer { blocks, tables, own })
            }
            Layout::Records { stride, bytes } => {
                CodesScorer::Product(ProductScorer { rows, stride: *stride, bytes, tables, own })
            }
        }
    }

    /// Writes the codes: number parts, the frame, array f32 points of the book, then array u32
    /// blocks or array u8 records.
    pub(crate) fn write(&self, out: &mut SectionWriter<'_>) -> io::Result<()> {
        out.number(self.book.parts() as u64)?;
        self.frame.write(out)?;
        out.array(self.book.points())?;
        match &self.layout {
            Layout::Blocks(blocks) => out.array(blocks.words()),
            Layout::Records { bytes, .. } => out.array(bytes),
        }
    }

    /// Reads codes of `rows` rows.
    pub(crate) fn read(
        from: &mut SectionReader<'_>,
        (subvectors, access): (Option<u32>, Access),
        metric: Metric,
        dims: usize,
        rows: u32,
    ) -> Result<Self, Malformed> {
        let wrong = from.malformed("as many parts as are asked for");
        let parts = subvectors.map_or(dims.div_ceil(2), |parts| parts as usize);
        if from.number("parts of a code")? != parts as u64 || parts == 0 || parts > dims {
            return Err(wrong);
        }
        let frame = Frame::read(from, metric, dims)?;
        let points = parts * dims.div_ceil(parts) * PART_BYTES;
        let points: &[f32] = from.array_of("points of the book", points)?;
        if !points.iter().all(|value| value.is_finite()) {
            return Err(from.malformed("finite points"));
        }
        let book = Book::new(dims, parts, points.to_vec());
        let layout = match access {
            Access::Scanned => {
                let words = (rows as usize).div_ceil(BLOCK_ROWS) * book.block_words();
                Layout::Blocks(Blocks::of(book.block_words(), from.array_of("blocks", words)?))
            }
            Access::Picked => {
                let stride = stride(&book);
                let bytes = from.array_of("codes", rows as usize * stride)?;
                Layout::Records { stride, bytes: Pages::of(bytes) }
            }
        };
        Ok(Self { frame, book, rows, layout })
    }
}

/// Bytes of a record: its codes are those of whole quads of parts.
fn stride(book: &Book) -> usize {
    book.parts().next_multiple_of(PARTS_MULTIPLE) / 2 + TERMS_BYTES
}

/// Rows on their way to codes.
struct Encoding<'a, V: ?Sized> {
    frame: &'a Frame,
    book: &'a Book,
    vectors: &'a V,
}

impl<V: Vectors + ?Sized> Encoding<'_, V> {
    fn blocks(&self, executor: &dyn Executor) -> Layout {
        let (rows, words) = (self.vectors.rows() as usize, self.book.block_words());
        let parts = map_runs(executor, rows, ENCODE_ROWS, &|run| {
            let mut part = vec![0_u32; run.len().div_ceil(BLOCK_ROWS) * words];
            self.each(run, |place, encoded, terms| {
                let block = &mut part[place / BLOCK_ROWS * words..][..words];
                set_row(block, place % BLOCK_ROWS, &encoded.codes, terms);
            });
            part
        });
        let mut blocks = Blocks::zeroed(words, rows.div_ceil(BLOCK_ROWS));
        let mut first = 0;
        for part in &parts {
            let count = part.len() / words;
            blocks.words_mut(first, count).copy_from_slice(part);
            first += count;
        }
        Layout::Blocks(blocks)
    }

    fn records(&self, executor: &dyn Executor) -> Layout {
        let (rows, stride) = (self.vectors.rows() as usize, stride(self.book));
        let parts = map_runs(executor, rows, ENCODE_ROWS, &|run| {
            let mut part = vec![0_u8; run.len() * stride];
            self.each(run, |place, encoded, [own, factor]| {
                let record = &mut part[place * stride..][..stride];
                let (codes, terms) = record.split_at_mut(stride - TERMS_BYTES);
                for (byte, pair) in codes.iter_mut().zip(encoded.codes.chunks(2)) {
                    *byte = pair[0] | pair.get(1).map_or(0, |high| high << 4);
                }
                let (first, second) = terms.split_at_mut(TERMS_BYTES / 2);
                first.copy_from_slice(&own.to_le_bytes());
                second.copy_from_slice(&factor.to_le_bytes());
            });
            part
        });
        let mut bytes = Pages::zeroed(rows * stride);
        for (part, place) in parts.iter().zip(bytes.chunks_mut(ENCODE_ROWS * stride)) {
            place.copy_from_slice(part);
        }
        Layout::Records { stride, bytes }
    }

    /// Calls `set` with each row's place in the run, its codes, and what is added to its estimate
    /// and what its sum is multiplied with.
    fn each(&self, rows: Range<usize>, mut set: impl FnMut(usize, &Encoded, [f32; 2])) {
        let (own_weight, weight) = self.frame.weights();
        let (mut vector, mut room) = (Vec::new(), Vec::new());
        let (zero, mut encoded) = (vec![0.0; self.frame.dims()], Encoded::default());
        for (place, row) in rows.enumerate() {
            self.frame.row(self.vectors, row, &mut vector, &mut room);
            self.book.encode(&vector, &zero, &mut encoded);
            let terms = [own_term(own_weight, encoded.square), -weight * encoded.factor];
            set(place, &encoded, terms);
        }
    }
}

/// Estimates the distances of all rows from their codes.
#[derive(Debug)]
pub(crate) struct ProductBlockScorer<'a> {
    blocks: &'a Blocks,
    tables: QueryTables,
    /// The query's own term.
    own: f32,
}

impl ProductBlockScorer<'_> {
    /// Offers the allowed ones of `rows` to `nearest`.
    pub(crate) fn scan(&self, rows: Range<u32>, allowed: &dyn Allowed, nearest: &mut Reservoir) {
        let kernels = kernels();
        let mut estimates = [0.0; BLOCK_ROWS];
        for block in rows.start / BLOCK_STEP..rows.end.div_ceil(BLOCK_STEP) {
            let first = block * BLOCK_STEP;
            let line = Line {
                step: self.tables.step,
                offset: self.tables.offset,
                base: self.own,
                bound: nearest.bound(),
            };
            let codes = self.blocks.block(block as usize, block as usize + 1);
            let near = kernels.estimate(&self.tables.entries, codes, line, &mut estimates);
            let before = low_bits(rows.start.saturating_sub(first));
            each_bit(near & low_bits(rows.end - first) & !before, |place| {
                if allowed.allows(RowId(first + place)) {
                    nearest.push(estimates[place as usize], first + place);
                }
            });
        }
    }
}

/// Estimates the distances of single rows from their codes.
#[derive(Debug)]
pub(crate) struct ProductScorer<'a> {
    rows: u32,
    stride: usize,
    bytes: &'a [u8],
    tables: QueryTables,
    /// The query's own term.
    own: f32,
}

impl ProductScorer<'_> {
    fn record(&self, row: RowId) -> &[u8] {
        &self.bytes[row.0 as usize * self.stride..][..self.stride]
    }

    #[inline]
    fn distance(&self, record: &[u8]) -> f32 {
        let (codes, terms) = record.split_at(record.len() - TERMS_BYTES);
        let (own, factor) = terms_of(terms);
        let sum = sum_of_entries(&self.tables.entries, codes) as f32;
        let line = sum * self.tables.step + self.tables.offset;
        let distance = (own + self.own) + factor * line;
        if distance.is_nan() { f32::INFINITY } else { distance }
    }
}

/// The sum of the entries that a row's codes name.
#[inline]
fn sum_of_entries(tables: &[TableQuad], codes: &[u8]) -> u32 {
    let mut sums = [0_u32; PARTS_MULTIPLE];
    let (codes, _) = codes.as_chunks::<2>();
    for (quad, codes) in tables.iter().zip(codes) {
        let (parts, _) = quad.0.as_chunks::<PART_BYTES>();
        let places = [codes[0] & 15, codes[0] >> 4, codes[1] & 15, codes[1] >> 4];
        for ((sum, part), place) in sums.iter_mut().zip(parts).zip(places) {
            *sum += u32::from(part[usize::from(place)]);
        }
    }
    sums.iter().sum()
}

impl Scorer for ProductScorer<'_> {
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

#[cfg(test)]
mod tests;
