//! Exact search: every allowed row is scored (I3).
//!
//! Rows are taken 256 at a time. A block with many allowed rows is read as a stream and the rest
//! of it ignored; the allowed rows of blocks with few are gathered and scored by themselves. A
//! row's distance is the same either way (I6).

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
/// allowed rows one by one was measured to be quicker than reading past the others.
const STREAM_ROWS_PER_ALLOWED_MAX: u32 = 4;

/// Offers every allowed row of `rows` to `top`, under the key `key(row)`; how many rows were scored:
/// those allowed, and where most of a block are, all of it.
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
) -> u64 {
    assert!(rows.end <= scorer.rows(), "rows up to {} of {}", rows.end, scorer.rows());
    let mut distances = [0.0_f32; BLOCK_ROWS as usize];
    let mut scattered = Scattered::new();
    let mut scored = 0;
    let mut start = rows.start;
    while start < rows.end {
        let block = Block::of(start, rows.end);
        let words = block.allowed(allowed);
        let count: u32 = words.iter().map(|word| word.count_ones()).sum();
        if count * STREAM_ROWS_PER_ALLOWED_MAX >= block.rows() {
            let distances = &mut distances[..block.rows() as usize];
            scorer.score_range(RowId(block.start), distances);
            scored += u64::from(block.rows());
            for (row, distance) in (block.start..block.end).zip(distances) {
                // The distance first: it is what decides nearly always.
                if *distance <= top.bound() && block.contains(&words, row) {
                    top.push(*distance, key(RowId(row)));
                }
            }
        } else {
            if scattered.room() < count as usize {
                scattered.search(scorer, top, &key);
            }
            block.each(&words, |row| scattered.add(row));
            scored += u64::from(count);
        }
        start = block.end;
    }
    scattered.search(scorer, top, &key);
    scored
}

/// Allowed rows of thinly allowed blocks, gathered so that many are fetched at once: one row's
/// wait for memory covers the next one's.
struct Scattered {
    rows: [RowId; BLOCK_ROWS as usize],
    count: usize,
}

impl Scattered {
    fn new() -> Self {
        Self { rows: [RowId(0); BLOCK_ROWS as usize], count: 0 }
    }

    fn room(&self) -> usize {
        self.rows.len() - self.count
    }

    fn add(&mut self, row: RowId) {
        self.rows[self.count] = row;
        self.count += 1;
    }

    /// Offers the rows gathered to `top` and forgets them.
    fn search<T: Ord + Copy>(
        &mut self,
        scorer: &dyn Scorer,
        top: &mut TopK<T>,
        key: impl Fn(RowId) -> T,
    ) {
        let mut distances = [0.0_f32; BLOCK_ROWS as usize];
        let (rows, distances) = (&self.rows[..self.count], &mut distances[..self.count]);
        scorer.score(rows, distances);
        for (row, distance) in rows.iter().zip(distances) {
            if *distance <= top.bound() {
                top.push(*distance, key(*row));
            }
        }
        self.count = 0;
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

    fn rows(&self) -> u32 {
        self.end - self.start
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

    /// Calls `visit` with the row of each set bit, ascending.
    fn each(&self, words: &[u64; WORDS], mut visit: impl FnMut(RowId)) {
        for (word, first) in words.iter().zip((self.base..).step_by(WORD_ROWS as usize)) {
            let mut word = *word;
            while word != 0 {
                visit(RowId(first + word.trailing_zeros()));
                word &= word - 1;
            }
        }
    }
}

/// The `count` lowest bits, all of them from 64 on.
fn low_bits(count: u32) -> u64 {
    if count < WORD_ROWS { (1 << count) - 1 } else { u64::MAX }
}

#[cfg(test)]
mod tests;
