//! Late interaction: items of several rows each, by how alike each vector of a query is to that of an
//! item's rows which is most like it (Khattab and Zaharia, "`ColBERT`: Efficient and Effective Passage
//! Search via Contextualized Late Interaction over BERT", 2020).
//!
//! `score(item) = sum over vectors of the query of the maximum over the item's rows of similarity`
//!
//! A similarity is an f32, that of cosine between -1 and 1, that of the product finite; the sum is
//! taken in f64 in the order of the query's vectors and rounded to f32 once. So a score is a function
//! of the query and the item's allowed rows alone, bit for bit, in any split (I6), and every item is
//! scored (I3).
//!
//! Rows are taken in blocks that stay in the nearest cache while every vector of the query goes past
//! them, so that each is read from memory once. A block has rows of several items where those follow
//! each other, and an item may have several blocks. Nothing is kept but a block's similarities: 4 bytes
//! for each of its rows (64 at most) and vector of the query.

use std::fmt;
use std::ops::Range;

use arrwdb_kernel::kernels;

use crate::scorer::score_of_sum;
use crate::{Allowed, RowId, TopK, Vectors};

/// Numbers of a block's rows: 16 KiB, half of the nearest cache.
const BLOCK_NUMBERS: usize = 4096;
/// Rows of a block at least, for what a call of a kernel costs.
const BLOCK_ROWS_MIN: usize = 8;
/// Rows of a block at most: one for each bit of [`Allowed::word`].
const BLOCK_ROWS_MAX: usize = u64::BITS as usize;

/// How alike two vectors are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Similarity {
    /// The cosine of their angle, -1 to 1.
    #[default]
    Cosine,
    /// Their inner product.
    Dot,
}

/// Several vectors that are asked for together.
#[derive(Debug, Clone, Copy)]
pub struct LateQuery<'a> {
    similarity: Similarity,
    dims: usize,
    vectors: &'a [f32],
}

impl<'a> LateQuery<'a> {
    /// `vectors` is row-major, a multiple of `dims` long; for [`Similarity::Cosine`] of unit vectors:
    /// see [`crate::normalized`]. A query without vectors finds nothing.
    ///
    /// # Panics
    /// If there is no dimension or the shape does not fit.
    pub fn new(similarity: Similarity, dims: usize, vectors: &'a [f32]) -> Self {
        assert!(dims > 0, "a vector has at least one dimension");
        assert!(vectors.len().is_multiple_of(dims), "shape of the query");
        Self { similarity, dims, vectors }
    }

    /// How many vectors there are.
    pub fn len(&self) -> usize {
        self.vectors.len() / self.dims
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }
}

/// Items, each of some rows that follow each other.
pub struct LateItems<'a, V: ?Sized> {
    vectors: &'a V,
    starts: &'a [u32],
}

/// Which items are to be found, and by which of their rows.
#[derive(Clone)]
pub struct LateScope<'a> {
    /// Those of these numbers; what is past the last is left out.
    pub range: Range<u32>,
    /// Of those the allowed ones, where an item's number is a row's.
    pub items: &'a dyn Allowed,
    /// The rows that count. An item that has none is not found.
    pub rows: &'a dyn Allowed,
}

impl<V: ?Sized> fmt::Debug for LateItems<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LateItems").field("starts", &self.starts).finish_non_exhaustive()
    }
}

impl fmt::Debug for LateScope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LateScope").field("range", &self.range).finish_non_exhaustive()
    }
}

impl<'a, V: Vectors + ?Sized> LateItems<'a, V> {
    /// Item `i` is rows `starts[i]..starts[i + 1]`, which may be none; there is one start more than
    /// items. `None` if a start is below the one before or past the rows. O(items).
    pub fn new(vectors: &'a V, starts: &'a [u32]) -> Option<Self> {
        let fits = starts.last().is_none_or(|end| *end <= vectors.rows());
        (starts.is_sorted() && fits).then_some(Self { vectors, starts })
    }

    /// How many items there are.
    pub fn len(&self) -> u32 {
        u32::try_from(self.starts.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Offers the items of `scope` to `top` by their scores, under the key `key(item)`
    /// ([`TopK::into_scores`] has the answer), and gives how many rows were scored.
    ///
    /// Ranges can be searched apart, by several threads, and their collections merged: the answer is
    /// the same. O(rows * vectors of the query * dims), a block of rows for each range of them that is
    /// not allowed.
    ///
    /// # Panics
    /// If the query has another dimension.
    pub fn search<T: Ord + Copy>(
        &self,
        query: LateQuery<'_>,
        scope: &LateScope<'_>,
        top: &mut TopK<T>,
        key: impl Fn(u32) -> T,
    ) -> u64 {
        // Nothing can be kept.
        if query.is_empty() || top.bound().is_nan() {
            return 0;
        }
        let mut offer = |item, score| top.push_score(score, key(item));
        let mut scoring = Scoring::new(self.vectors, query, scope.rows);
        for item in scope.range.start..scope.range.end.min(self.len()) {
            if scope.items.allows(RowId(item)) {
                scoring.add((item, self.rows(item)), &mut offer);
            }
        }
        scoring.finish(&mut offer)
    }

    /// What an item scores, the same bits as a search finds it with; `None` if none of its rows is
    /// allowed, the query has no vectors, or there is no such item.
    ///
    /// # Panics
    /// If the query has another dimension.
    pub fn score(&self, query: LateQuery<'_>, item: u32, rows: &dyn Allowed) -> Option<f32> {
        let mut found = None;
        if !query.is_empty() && item < self.len() {
            let mut scoring = Scoring::new(self.vectors, query, rows);
            scoring.add((item, self.rows(item)), &mut |_item, score| found = Some(score));
            scoring.finish(&mut |_item, score| found = Some(score));
        }
        found
    }

    fn rows(&self, item: u32) -> Range<u32> {
        self.starts[item as usize]..self.starts[item as usize + 1]
    }
}

/// The scores of items that come one after the other.
struct Scoring<'a, V: ?Sized> {
    vectors: &'a V,
    query: LateQuery<'a>,
    allowed: &'a dyn Allowed,
    block_rows: u32,
    /// The rows of the block at hand.
    block: Range<u32>,
    /// Which of them count.
    counts: u64,
    /// Of which item each of its runs of rows is, and their places in the block.
    runs: Vec<(u32, Range<usize>)>,
    /// Of each vector of the query those with the block's rows.
    similarities: Vec<f32>,
    /// The item whose rows come, and of each vector of the query the most so far.
    item: Option<u32>,
    most: Vec<f32>,
    /// Rows that were scored.
    rows: u64,
}

impl<'a, V: Vectors + ?Sized> Scoring<'a, V> {
    fn new(vectors: &'a V, query: LateQuery<'a>, allowed: &'a dyn Allowed) -> Self {
        assert_eq!(query.dims, vectors.dims(), "dimension of the query");
        let block_rows = (BLOCK_NUMBERS / query.dims).clamp(BLOCK_ROWS_MIN, BLOCK_ROWS_MAX);
        Self {
            vectors,
            query,
            allowed,
            block_rows: u32::try_from(block_rows).unwrap_or(u32::MAX),
            block: 0..0,
            counts: 0,
            runs: Vec::with_capacity(block_rows),
            similarities: vec![0.0; block_rows * query.len()],
            item: None,
            most: vec![f32::NEG_INFINITY; query.len()],
            rows: 0,
        }
    }

    /// Adds an item, and gives those before whose scores are known.
    fn add(&mut self, (item, rows): (u32, Range<u32>), offer: &mut impl FnMut(u32, f32)) {
        let mut first = rows.start;
        while first < rows.end {
            if first != self.block.end || self.block.len() >= self.block_rows as usize {
                self.flush(offer);
                self.block = first..first;
            }
            let from = self.block.len();
            let room = self.block_rows - (self.block.end - self.block.start);
            let end = rows.end.min(first.saturating_add(room));
            let counts = bits(self.allowed, first..end);
            if counts != 0 {
                self.block.end = end;
                self.counts |= counts << from;
                self.runs.push((item, from..self.block.len()));
            }
            first = end;
        }
    }

    /// Gives the items whose scores were not known; how many rows were scored.
    fn finish(&mut self, offer: &mut impl FnMut(u32, f32)) -> u64 {
        self.flush(offer);
        self.end_item(offer);
        self.rows
    }

    /// Scores the block at hand and begins another.
    fn flush(&mut self, offer: &mut impl FnMut(u32, f32)) {
        if !self.block.is_empty() {
            self.score_block();
        }
        self.rows += self.block.len() as u64;
        let runs = std::mem::take(&mut self.runs);
        for (item, run) in &runs {
            if self.item != Some(*item) {
                self.end_item(offer);
                self.item = Some(*item);
            }
            let of_vectors = self.similarities.chunks_exact(self.block.len());
            for (most, similarities) in self.most.iter_mut().zip(of_vectors) {
                *most = greatest(*most, &similarities[run.clone()]);
            }
        }
        self.runs = runs;
        self.runs.clear();
        (self.block, self.counts) = (0..0, 0);
    }

    fn end_item(&mut self, offer: &mut impl FnMut(u32, f32)) {
        if let Some(item) = self.item.take() {
            let sum: f64 = self.most.iter().map(|most| f64::from(*most)).sum();
            self.most.fill(f32::NEG_INFINITY);
            offer(item, score_of_sum(sum));
        }
    }

    /// The similarities of the block's rows with every vector of the query.
    fn score_block(&mut self) {
        let (vectors, inverse_norms) = self.vectors.range(self.block.clone());
        let all = self.counts.count_ones() as usize == self.block.len();
        let of_vectors = self.similarities.chunks_exact_mut(self.block.len());
        for (vector, out) in self.query.vectors.chunks_exact(self.query.dims).zip(of_vectors) {
            kernels().dot_rows(vector, vectors, out);
            match self.query.similarity {
                Similarity::Cosine => {
                    for (similarity, inverse_norm) in out.iter_mut().zip(inverse_norms) {
                        *similarity = within(*similarity * inverse_norm, 1.0);
                    }
                }
                Similarity::Dot => {
                    for similarity in out.iter_mut() {
                        *similarity = within(*similarity, f32::MAX);
                    }
                }
            }
            if !all {
                for (place, similarity) in out.iter_mut().enumerate() {
                    if self.counts >> place & 1 == 0 {
                        *similarity = f32::NEG_INFINITY;
                    }
                }
            }
        }
    }
}

/// Which of up to 64 rows are allowed, a bit each.
fn bits(allowed: &dyn Allowed, rows: Range<u32>) -> u64 {
    let shift = rows.start % u64::BITS;
    let first = rows.start - shift;
    let mut bits = allowed.word(RowId(first)) >> shift;
    if let Some(next) = first.checked_add(u64::BITS)
        && next < rows.end
    {
        bits |= allowed.word(RowId(next)) << (u64::BITS - shift);
    }
    let count = rows.end - rows.start;
    if count < u64::BITS { bits & ((1 << count) - 1) } else { bits }
}

/// A similarity within its range: rounding may carry one just outside, a product of vectors too long
/// for f32 may be infinite, and what is no number (`max` first) is the least.
#[inline]
fn within(similarity: f32, limit: f32) -> f32 {
    similarity.max(-limit).min(limit)
}

/// The greatest of all; none is NaN. Side by side, since one after the other waits for each.
#[inline]
fn greatest(least: f32, similarities: &[f32]) -> f32 {
    const LANES: usize = 16;
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = similarities.as_chunks::<LANES>();
    let mut lanes = [least; LANES];
    for chunk in chunks {
        for (lane, similarity) in lanes.iter_mut().zip(chunk) {
            *lane = greater(*lane, *similarity);
        }
    }
    for (lane, similarity) in lanes.iter_mut().zip(rest) {
        *lane = greater(*lane, *similarity);
    }
    lanes.into_iter().fold(least, greater)
}

#[cfg(test)]
mod tests;
