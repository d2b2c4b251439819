//! Exact search: every allowed row is scored (I3).
//!
//! Rows are taken 256 at a time. A block with many allowed rows is read as a stream and the rest
//! of it ignored; one with few has just those rows scored; one with none is not touched. A row's
//! distance is the same either way (I6).

use std::ops::Range;

use crate::{Allowed, RowId, Scorer, TopK};

/// Rows in a word of [`Allowed::word`].
const WORD_ROWS: u32 = u64::BITS;
/// Words in a block.
const WORDS: usize = 4;
/// Rows scored at a time: their distances stay in the first-level cache.
const BLOCK_ROWS: u32 = 256;
const _: () = assert!(BLOCK_ROWS as usize == WORDS * WORD_ROWS as usize);
/// A block is read as a stream if at least one row in so many is allowed: below that, fetching the
/// allowed rows one by one is quicker than reading past the others.
const STREAM_ROWS_PER_ALLOWED_MAX: u32 = 4;

/// Offers every allowed row of `rows` to `top`, under the key `key(row)`.
///
/// Ranges can be searched apart, by several threads, and their collections merged: the answer is
/// the same. Linear in the rows; needs no memory but its stack.
///
/// # Panics
/// If `rows` ends past the last row of `scorer`.
pub fn search<T: Ord + Copy>(
    scorer: &dyn Scorer,
    rows: Range<u32>,
    allowed: &dyn Allowed,
    top: &mut TopK<T>,
    key: impl Fn(RowId) -> T,
) {
    assert!(rows.end <= scorer.rows(), "rows up to {} of {}", rows.end, scorer.rows());
    let mut distances = [0.0_f32; BLOCK_ROWS as usize];
    let mut start = rows.start;
    while start < rows.end {
        let block = Block::of(start, rows.end);
        let words = block.allowed(allowed);
        let count: u32 = words.iter().map(|word| word.count_ones()).sum();
        if count == 0 {
            // Nothing to score.
        } else if count * STREAM_ROWS_PER_ALLOWED_MAX >= block.end - block.start {
            let distances = &mut distances[..(block.end - block.start) as usize];
            scorer.score_range(RowId(block.start), distances);
            for (row, distance) in (block.start..block.end).zip(distances) {
                // The distance first: it is what decides nearly always.
                if *distance <= top.bound() && block.contains(&words, row) {
                    top.push(*distance, key(RowId(row)));
                }
            }
        } else {
            let mut chosen = [RowId(0); (BLOCK_ROWS / STREAM_ROWS_PER_ALLOWED_MAX) as usize];
            let chosen = block.choose(&words, &mut chosen);
            let distances = &mut distances[..chosen.len()];
            scorer.score(chosen, distances);
            for (row, distance) in chosen.iter().zip(distances) {
                if *distance <= top.bound() {
                    top.push(*distance, key(*row));
                }
            }
        }
        start = block.end;
    }
}

/// The rows `start..end`, which lie within the 256 from `base`, a multiple of 256.
struct Block {
    base: u32,
    start: u32,
    end: u32,
}

impl Block {
    /// The block of row `start`, up to row `end` at most.
    fn of(start: u32, end: u32) -> Self {
        let base = start - start % BLOCK_ROWS;
        // The last block of all ends at the largest row number, never past it.
        Self { base, start, end: end.min(base.saturating_add(BLOCK_ROWS)) }
    }

    /// A bit for each row from `base`, set where the row is allowed and in the block.
    fn allowed(&self, allowed: &dyn Allowed) -> [u64; WORDS] {
        let mut words = [0; WORDS];
        for (word, first) in words.iter_mut().zip((self.base..).step_by(WORD_ROWS as usize)) {
            let before = self.start.saturating_sub(first);
            let within = self.end.saturating_sub(first);
            if before < WORD_ROWS && within > 0 {
                *word = allowed.word(RowId(first)) & low_bits(within) & !low_bits(before);
            }
        }
        words
    }

    fn contains(&self, words: &[u64; WORDS], row: u32) -> bool {
        let place = row - self.base;
        words[(place / WORD_ROWS) as usize] >> (place % WORD_ROWS) & 1 == 1
    }

    /// Writes the rows of set bits to the front of `rows`, ascending; there is room for them.
    fn choose<'a>(&self, words: &[u64; WORDS], rows: &'a mut [RowId]) -> &'a [RowId] {
        let mut count = 0;
        for (word, first) in words.iter().zip((self.base..).step_by(WORD_ROWS as usize)) {
            let mut word = *word;
            while word != 0 {
                rows[count] = RowId(first + word.trailing_zeros());
                count += 1;
                word &= word - 1;
            }
        }
        &rows[..count]
    }
}

/// The `count` lowest bits, all of them from 64 on.
fn low_bits(count: u32) -> u64 {
    if count < WORD_ROWS { (1 << count) - 1 } else { u64::MAX }
}

#[cfg(test)]
mod tests;
