//! What a row scores: BM25, in whole numbers.
//!
//! Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with the
//! weight of a term as Lucene has it, which is never negative, and without its constant factor
//! `k1 + 1`:
//!
//! `score = sum of weight * tf / (tf + k1 * (1 - b + b * length / mean length))`,
//! `weight = ln(1 + (rows - df + 0.5) / (df + 0.5))`
//!
//! `k1` grows with the mean length. In a sentence a word that comes twice says little more than one that
//! comes once, and in a page how often it comes says much: tuned by judgements, `k1` is 0.8 for the
//! passages of MS MARCO and 3.4 to 4.5 for its documents (the figures of Anserini), and in the six
//! collections of `docs/BENCHMARKS.md` that have 25 to 100 terms on average, 1.0 to 1.2 for the two of
//! short texts and 1.8 to 2.2 for the others. One number for all is wrong for most.

use crate::inverted::{BLOCK, Bounds};

/// A score of 1 as it is counted.
pub const SCORE_UNIT: u32 = 1 << 16;

/// How frequencies and lengths count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bm25 {
    /// How soon more of the same term adds little, from 0: so much for rows without terms,
    pub k1: f32,
    /// so much more for each term that rows have on average,
    pub k1_of_term: f32,
    /// and no more than this.
    pub k1_max: f32,
    /// How much longer rows count for less, 0 to 1.
    pub b: f32,
}

impl Default for Bm25 {
    /// Round numbers from the middle of what is about as good in several judged collections
    /// (`docs/BENCHMARKS.md`).
    fn default() -> Self {
        Self { k1: 0.5, k1_of_term: 0.02, k1_max: 2.4, b: 0.7 }
    }
}

/// Counts of everything that is searched, which every segment's rows are scored by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collection {
    /// Live rows.
    pub rows: u64,
    /// Terms that they have together, without stop words.
    pub tokens: u64,
}

impl Collection {
    /// The weight of a term that so many live rows have.
    pub fn weight(&self, rows: u64) -> f32 {
        let (all, having) = (self.rows as f64, rows as f64);
        let weight = (1.0 + (all - having + 0.5).max(0.0) / (having + 0.5)).ln();
        #[expect(clippy::cast_possible_truncation, reason = "at most the logarithm of a count")]
        let weight = weight as f32;
        weight
    }
}

/// [`Bm25`] in one collection.
#[derive(Debug, Clone, Copy)]
pub struct Scorer {
    base: f32,
    slope: f32,
}

impl Scorer {
    /// The formula with what it needs of the collection.
    pub fn new(bm25: Bm25, collection: Collection) -> Self {
        let mean = collection.tokens as f64 / collection.rows.max(1) as f64;
        #[expect(clippy::cast_possible_truncation, reason = "a mean of lengths")]
        let mean = mean.max(1.0) as f32;
        let k1 = (bm25.k1 + bm25.k1_of_term * mean).min(bm25.k1_max);
        Self { base: k1 * (1.0 - bm25.b), slope: k1 * bm25.b / mean }
    }

    /// What a term of this weight adds to a row of this length that has it so often, in units of
    /// [`SCORE_UNIT`]; 1 at least.
    #[inline]
    pub fn score(self, weight: f32, frequency: u32, length: u16) -> u32 {
        let frequency = frequency as f32;
        let saturated = frequency / (frequency + self.base + self.slope * f32::from(length));
        // Not negative, and what is too much is the most.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "rounded down on purpose, so that sums do not depend on their order"
        )]
        let score = (weight * saturated * SCORE_UNIT as f32) as u32;
        // A row that has a term is found, however little it is worth: 0 is what has none.
        score.max(1)
    }

    /// More than any row of a block scores: what grows with the frequency and falls with the length
    /// does so but for the last bit of a number.
    pub(super) fn bound(self, weight: f32, impact: Impact) -> u32 {
        let once = impact.once.map_or(0, |length| self.score(weight, 1, length));
        let often = impact.often.map_or(0, |(most, length)| {
            // The greatest frequency that is kept stands for all above.
            let most = if most == u16::MAX { u32::MAX } else { u32::from(most) };
            self.score(weight, most, length)
        });
        // Of the unit, and of the multiplications.
        let most = once.max(often);
        most.saturating_add(2 + most / (1 << 20))
    }
}

/// No row has the term just once.
const NONE_ONCE: u16 = u16::MAX;

/// What bounds the scores of a block's rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Impact {
    /// The length of the shortest row that has the term once.
    once: Option<u16>,
    /// The greatest frequency, and the length of the shortest row that has it more than once.
    often: Option<(u16, u16)>,
}

impl Impact {
    /// As it is kept of a block of (row, frequency), of rows that have these lengths.
    pub(super) fn bounds(block: &[(u32, u32); BLOCK], length: impl Fn(u32) -> u16) -> Bounds {
        let (mut once, mut often) = (NONE_ONCE, (0, u16::MAX));
        for (row, frequency) in block {
            let length = length(*row).min(NONE_ONCE - 1);
            if *frequency == 1 {
                once = once.min(length);
            } else {
                let many = u16::try_from(*frequency).unwrap_or(u16::MAX);
                often = (often.0.max(many), often.1.min(length));
            }
        }
        [once, often.0, often.1]
    }

    /// What was kept.
    pub(super) fn of_bounds([once, most, shortest]: Bounds) -> Self {
        Self {
            once: (once != NONE_ONCE).then_some(once),
            often: (most > 0).then_some((most, shortest)),
        }
    }
}
