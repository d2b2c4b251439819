//! The best rows of a segment, without scoring those that cannot be among them.
//!
//! Rows are taken in windows. In each, every term's blocks bound what it can add. Terms that could
//! not lift a row above the worst that is kept, all together, are not walked through: they are looked
//! up for rows that others found and that could still make it. This is `MaxScore` (Turtle and Flood
//! 1995) with the bounds of blocks (Ding and Suel 2011), in windows with an array of sums, as Lucene
//! runs it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use super::bm25::{Bm25, Collection, Scorer};
use super::list::{Cursor, List};
use super::postings::Postings;
use crate::{Allowed, RowId};

/// Rows of a window: their sums stay in the first cache.
const WINDOW: u32 = 4096;
const WORDS: usize = (WINDOW / u64::BITS) as usize;

/// A term of a query.
#[derive(Debug, Clone, Copy)]
pub struct Scored<'a> {
    /// The rows that have it.
    pub list: List<'a>,
    /// What it weighs, from [`Collection::weight`] and how often it is asked for.
    pub weight: f32,
}

/// What a search looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Visited {
    /// (Row, term) pairs that were read.
    pub postings: u64,
    /// Rows that were scored.
    pub rows: u64,
}

impl Visited {
    /// Adds what another search looked at.
    pub fn add(&mut self, other: Self) {
        self.postings += other.postings;
        self.rows += other.rows;
    }
}

/// The `k` rows of the highest scores; of equal ones, those of the least keys.
#[derive(Debug, Clone)]
pub struct BestRows<T> {
    k: usize,
    worst_first: BinaryHeap<Reverse<(u32, Reverse<T>)>>,
}

impl<T: Ord + Copy> BestRows<T> {
    /// Keeps so many.
    pub fn new(k: usize) -> Self {
        Self { k, worst_first: BinaryHeap::new() }
    }

    /// Offers a row.
    pub fn push(&mut self, score: u32, key: T) {
        let row = (score, Reverse(key));
        if self.worst_first.len() < self.k {
            self.worst_first.push(Reverse(row));
        } else if let Some(mut worst) = self.worst_first.peek_mut()
            && row > worst.0
        {
            *worst = Reverse(row);
        }
    }

    /// Offers all that another kept.
    pub fn merge(&mut self, other: Self) {
        for Reverse((score, Reverse(key))) in other.worst_first {
            self.push(score, key);
        }
    }

    /// The rows kept, best first.
    pub fn into_sorted(self) -> Vec<(u32, T)> {
        let sorted = self.worst_first.into_sorted_vec();
        sorted.into_iter().map(|Reverse((score, Reverse(key)))| (score, key)).collect()
    }

    /// A row whose key comes after all that were offered has to score more than this to be kept.
    fn to_beat(&self) -> Option<u32> {
        if self.k == 0 {
            return Some(u32::MAX);
        }
        let full = self.worst_first.len() == self.k;
        self.worst_first.peek().filter(|_worst| full).map(|Reverse((score, _key))| *score)
    }
}

/// What is to be found in a segment.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// What rows are ranked by.
    pub terms: &'a [Scored<'a>],
    /// How frequencies and lengths count.
    pub bm25: Bm25,
    /// What everything that is searched comes to.
    pub collection: Collection,
    /// The rows that may be found.
    pub allowed: &'a dyn Allowed,
}

impl fmt::Debug for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted").field("terms", &self.terms).finish_non_exhaustive()
    }
}

/// Offers the allowed rows of a segment that have one of the terms. `key` of a greater row is
/// greater, and than of rows that `best` was offered before. At most O(rows + postings).
pub fn search<T: Ord + Copy>(
    postings: &Postings,
    wanted: Wanted<'_>,
    best: &mut BestRows<T>,
    key: impl Fn(u32) -> T,
) -> Visited {
    let Wanted { terms, allowed, .. } = wanted;
    let scorer = Scorer::new(wanted.bm25, wanted.collection);
    let mut visited = Visited::default();
    let mut window = Window::new(postings, scorer);
    let mut walks: Vec<Walk<'_>> = terms.iter().map(|term| Walk::new(*term, &window)).collect();
    let mut start = 0;
    while let Some(next) = walks.iter().filter_map(|walk| walk.not_before(start)).min() {
        start = next / WINDOW * WINDOW;
        let Some(end) = start.checked_add(WINDOW) else { break };
        if start >= postings.rows() {
            break;
        }
        if window.begin(start, allowed) {
            window.search(&mut walks, best, &key, &mut visited);
        }
        start = end;
    }
    visited
}

/// A term's walk through its list.
struct Walk<'a> {
    cursor: Cursor<'a>,
    weight: f32,
    /// The full block that bounds of windows have come to.
    shallow: usize,
    /// The first and the last row behind the full blocks, and more than any of them scores.
    rest: Option<(u32, u32, u32)>,
    /// More than any row of the window scores.
    bound: u32,
}

impl<'a> Walk<'a> {
    fn new(term: Scored<'a>, window: &Window<'_>) -> Self {
        let mut cursor = Cursor::new(term.list);
        let blocks = term.list.blocks();
        let after = blocks
            .checked_sub(1)
            .map_or(0, |last| term.list.entry(last).last_row.saturating_add(1));
        let mut rest = None;
        // A few at most, whose lengths are at hand.
        if cursor.seek(after) {
            for place in cursor.at..cursor.len {
                let (row, frequency) = (cursor.rows[place], cursor.frequencies[place]);
                let score = window.score(term.weight, row, frequency);
                let (first, _last, most) = rest.unwrap_or((row, row, 0));
                rest = Some((first, row, score.max(most)));
            }
        }
        // A list without full blocks has been read whole.
        if blocks == 0 {
            cursor.at = 0;
        } else {
            cursor = Cursor::new(term.list);
        }
        Self { cursor, weight: term.weight, shallow: 0, rest, bound: 0 }
    }

    /// A row from `start` on, before which the term has none from there on; `None` if there is none.
    fn not_before(&self, start: u32) -> Option<u32> {
        let Cursor { at, len, rows, list, .. } = &self.cursor;
        if at < len && rows[len - 1] >= start {
            return Some(rows[*at].max(start));
        }
        let blocks = list.blocks();
        let block = (self.shallow..blocks).find(|block| list.entry(*block).last_row >= start);
        if let Some(block) = block {
            return Some(self.first_row_from(block).max(start));
        }
        self.rest.filter(|(_first, last, _most)| *last >= start).map(|(first, ..)| first.max(start))
    }

    /// A row before which a full block has none.
    fn first_row_from(&self, block: usize) -> u32 {
        let before = block.checked_sub(1).map(|before| self.cursor.list.entry(before).last_row);
        before.map_or(0, |before| before.saturating_add(1))
    }

    /// Bounds what rows of a window score.
    fn bound_window(&mut self, (start, end): (u32, u32), scorer: Scorer) {
        let list = self.cursor.list;
        let blocks = list.blocks();
        while self.shallow < blocks && list.entry(self.shallow).last_row < start {
            self.shallow += 1;
        }
        self.bound = 0;
        for block in self.shallow..blocks {
            if self.first_row_from(block) >= end {
                return;
            }
            self.bound = self.bound.max(scorer.bound(self.weight, list.entry(block).impact));
        }
        if let Some((first, last, most)) = self.rest
            && first < end
            && last >= start
        {
            self.bound = self.bound.max(most);
        }
    }
}

/// The sums of a window's rows.
struct Window<'a> {
    lengths: &'a [u8],
    scorer: Scorer,
    rows: u32,
    start: u32,
    sums: Box<[u32; WINDOW as usize]>,
    /// Rows that were found.
    touched: [u64; WORDS],
    allowed: [u64; WORDS],
}

impl<'a> Window<'a> {
    fn new(postings: &'a Postings, scorer: Scorer) -> Self {
        Self {
            lengths: postings.lengths(),
            scorer,
            rows: postings.rows(),
            start: 0,
            sums: Box::new([0; WINDOW as usize]),
            touched: [0; WORDS],
            allowed: [0; WORDS],
        }
    }

    /// Moves to the window from `start`; false if none of its rows is allowed.
    fn begin(&mut self, start: u32, allowed: &dyn Allowed) -> bool {
        self.start = start;
        let mut any = 0;
        for (word, first) in self.allowed.iter_mut().zip((start..).step_by(64)) {
            *word = if first < self.rows { allowed.word(RowId(first)) } else { 0 };
            any |= *word;
        }
        any != 0
    }

    fn end(&self) -> u32 {
        (self.start + WINDOW).min(self.rows)
    }

    fn score(&self, weight: f32, row: u32, frequency: u32) -> u32 {
        let at = 2 * row as usize;
        let length = self.lengths.get(at..at + 2).and_then(|two| two.first_chunk());
        let length = u16::from_le_bytes(length.copied().unwrap_or_default());
        self.scorer.score(weight, frequency, length)
    }

    fn search<T: Ord + Copy>(
        &mut self,
        walks: &mut [Walk<'_>],
        best: &mut BestRows<T>,
        key: &impl Fn(u32) -> T,
        visited: &mut Visited,
    ) {
        for walk in walks.iter_mut() {
            walk.bound_window((self.start, self.end()), self.scorer);
        }
        walks.sort_unstable_by_key(|walk| walk.bound);
        // Those in front that cannot lift a row above what is to be beaten, all together.
        let mut looked_up = 0;
        let mut bounds = Vec::with_capacity(walks.len());
        let mut sum = 0_u32;
        for walk in walks.iter() {
            sum = sum.saturating_add(walk.bound);
            bounds.push(sum);
            looked_up += usize::from(best.to_beat().is_some_and(|beat| sum <= beat));
        }
        let (looked_up, walked) = walks.split_at_mut(looked_up);
        for walk in walked.iter_mut().filter(|walk| walk.bound > 0) {
            visited.postings += self.add_all(walk);
        }
        for (word, first) in (0..WORDS).zip((self.start..).step_by(64)) {
            let mut touched = std::mem::take(&mut self.touched[word]);
            while touched != 0 {
                let bit = touched.trailing_zeros();
                touched &= touched - 1;
                let place = word * 64 + bit as usize;
                let sum = std::mem::take(&mut self.sums[place]);
                if self.allowed[word] >> bit & 1 == 0 {
                    continue;
                }
                let row = first + bit;
                let beat = best.to_beat();
                visited.rows += 1;
                if let Some(sum) = self.looked_up(sum, row, beat, (looked_up, &bounds))
                    && beat.is_none_or(|beat| sum > beat)
                {
                    best.push(sum, key(row));
                }
            }
        }
    }

    /// Adds what a term adds to rows of the window.
    fn add_all(&mut self, walk: &mut Walk<'_>) -> u64 {
        let end = self.end();
        let mut read = 0;
        let cursor = &mut walk.cursor;
        if !cursor.seek(self.start) {
            return 0;
        }
        while cursor.load() {
            let from = cursor.at;
            let to = from + cursor.rows[from..cursor.len].partition_point(|row| *row < end);
            for place in from..to {
                let (row, frequency) = (cursor.rows[place], cursor.frequencies[place]);
                let at = (row.wrapping_sub(self.start) % WINDOW) as usize;
                self.touched[at / 64] |= 1 << (at % 64);
                let sum = &mut self.sums[at];
                let length = self.lengths.get(2 * row as usize..2 * row as usize + 2);
                let length = length.and_then(|two| two.first_chunk()).copied().unwrap_or_default();
                let length = u16::from_le_bytes(length);
                *sum = sum.saturating_add(self.scorer.score(walk.weight, frequency, length));
            }
            read += (to - from) as u64;
            cursor.at = to;
            if to < cursor.len {
                break;
            }
        }
        read
    }

    /// The sum of a row with the terms that are looked up; `None` as soon as it cannot make it.
    fn looked_up(
        &self,
        mut sum: u32,
        row: u32,
        beat: Option<u32>,
        (walks, bounds): (&mut [Walk<'_>], &[u32]),
    ) -> Option<u32> {
        for place in (0..walks.len()).rev() {
            if beat.is_some_and(|beat| sum.saturating_add(bounds[place]) <= beat) {
                return None;
            }
            let walk = &mut walks[place];
            if walk.bound > 0 && walk.cursor.seek(row) && walk.cursor.row() == row {
                let frequency = walk.cursor.frequencies[walk.cursor.at];
                sum = sum.saturating_add(self.score(walk.weight, row, frequency));
            }
        }
        Some(sum)
    }
}
