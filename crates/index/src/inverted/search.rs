//! The best rows by sums over terms, without scoring those that cannot be among them.
//!
//! Rows are taken in windows. In each, every term's blocks bound what it can add. Terms that could
//! not lift a row above the worst that is kept, all together, need not be walked through: they are
//! looked up for rows that others found and that could still make it. This is `MaxScore` (Turtle and
//! Flood, "Query evaluation: strategies and optimizations", 1995) with the bounds of blocks (Ding and
//! Suel, "Faster top-k document retrieval using block-max indexes", 2011), in windows with an array of
//! sums, as Lucene runs it.
//!
//! Where many rows are found and each term has few more, as with learned weights, whose bounds are
//! loose (Mackenzie, Trotman and Lin, "Wacky weights in learned sparse representations and the revenge
//! of score-at-a-time query evaluation", 2021), looking up was measured to take twice as long as
//! walking through all. So every window decides anew, term by term, by how many rows there are.

use super::list::{BLOCK, Bounds, Cursor, List};
use crate::{Allowed, RowId};

/// Rows of a window: their sums stay in the first cache.
const WINDOW: u32 = 4096;
/// Looking a row up takes as long as walking past so many that have the term.
const POSTINGS_PER_LOOK: u64 = 2;
const WORDS: usize = (WINDOW / u64::BITS) as usize;

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

/// How numbers of lists become scores, and where the best rows are kept.
pub(crate) trait Ranking {
    /// What is added up, from the default on.
    type Sum: Copy + Default;

    /// What a term of this weight adds to a row that has it with this number.
    fn score(&self, weight: f32, row: u32, number: u32) -> Self::Sum;

    /// As much as any row of a block can gain; never less than the default.
    fn bound(&self, weight: f32, bounds: Bounds) -> Self::Sum;

    /// Both together.
    fn plus(sum: Self::Sum, more: Self::Sum) -> Self::Sum;

    /// The greater of the two.
    fn greater(a: Self::Sum, b: Self::Sum) -> Self::Sum;

    /// Whether a row that has `sum`, and gains at most `bound`, cannot be kept, where rows that come
    /// after all others are offered.
    fn is_hopeless(&self, sum: Self::Sum, bound: Self::Sum) -> bool;

    /// Offers a row.
    fn offer(&mut self, sum: Self::Sum, row: u32);

    /// Brings the terms of a window into order: they are added up from the last to the first, and
    /// those in front are the first that are not walked through.
    fn arrange(walks: &mut [Walk<'_, Self::Sum>]);
}

/// Offers the allowed ones of so many rows that have one of the terms, each a list and a weight,
/// ascending, but for those that cannot be kept. At most O(rows + postings).
pub(crate) fn search<'a, R: Ranking>(
    rows: u32,
    terms: impl Iterator<Item = (List<'a>, f32)>,
    allowed: &dyn Allowed,
    ranking: &mut R,
) -> Visited {
    let mut visited = Visited::default();
    let mut window = Window::new(rows);
    let mut walks: Vec<_> = terms.map(|term| Walk::new(term, ranking)).collect();
    let mut start = 0;
    while let Some(next) = walks.iter().filter_map(|walk| walk.not_before(start)).min() {
        start = next / WINDOW * WINDOW;
        if start >= rows {
            break;
        }
        if window.begin(start, allowed) {
            window.search(&mut walks, ranking, &mut visited);
        }
        let Some(end) = start.checked_add(WINDOW) else { break };
        start = end;
    }
    visited
}

/// A term's walk through its list.
pub(crate) struct Walk<'a, S> {
    cursor: Cursor<'a>,
    weight: f32,
    /// The full block that bounds of windows have come to.
    shallow: usize,
    /// The first and the last row behind the full blocks, and as much as any of them gains.
    rest: Option<(u32, u32, S)>,
    /// As much as any row of the window gains; `None` if it has no row there.
    pub(crate) bound: Option<S>,
}

impl<'a, S: Copy + Default> Walk<'a, S> {
    fn new<R: Ranking<Sum = S>>((list, weight): (List<'a>, f32), ranking: &R) -> Self {
        let mut cursor = Cursor::new(list);
        let blocks = list.blocks();
        let after =
            blocks.checked_sub(1).map_or(0, |last| list.entry(last).last_row.saturating_add(1));
        let mut rest = None;
        // A few at most.
        if cursor.seek(after) {
            for place in cursor.at..cursor.len {
                let (row, number) = (cursor.rows[place], cursor.numbers[place]);
                let score = ranking.score(weight, row, number);
                let (first, _last, most) = rest.unwrap_or((row, row, S::default()));
                rest = Some((first, row, R::greater(score, most)));
            }
        }
        // A list without full blocks has been read whole.
        if blocks == 0 {
            cursor.at = 0;
        } else {
            cursor = Cursor::new(list);
        }
        Self { cursor, weight, shallow: 0, rest, bound: None }
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

    /// How many rows with the term are between here and `end`, about and at most.
    fn postings_until(&self, end: u32) -> u64 {
        if self.bound.is_none() {
            return 0;
        }
        let blocks = self.cursor.list.blocks();
        let within = (self.shallow..blocks).take_while(|block| self.first_row_from(*block) < end);
        let rest = self.rest.is_some_and(|(first, ..)| first < end);
        (within.count() + usize::from(rest)) as u64 * BLOCK as u64
    }

    /// Bounds what rows of a window gain.
    fn bound_window<R: Ranking<Sum = S>>(&mut self, (start, end): (u32, u32), ranking: &R) {
        let list = self.cursor.list;
        let blocks = list.blocks();
        while self.shallow < blocks && list.entry(self.shallow).last_row < start {
            self.shallow += 1;
        }
        let mut most = None;
        let mut take = |bound: S| most = Some(most.map_or(bound, |most| R::greater(most, bound)));
        let within = (self.shallow..blocks).take_while(|block| self.first_row_from(*block) < end);
        within.for_each(|block| take(ranking.bound(self.weight, list.entry(block).bounds)));
        if let Some((first, last, bound)) = self.rest
            && first < end
            && last >= start
        {
            take(bound);
        }
        self.bound = most;
    }
}

/// The sums of a window's rows.
struct Window<S> {
    rows: u32,
    start: u32,
    sums: Box<[S; WINDOW as usize]>,
    /// Rows that were found.
    found: [u64; WORDS],
    allowed: [u64; WORDS],
}

impl<S: Copy + Default> Window<S> {
    fn new(rows: u32) -> Self {
        let sums = Box::new([S::default(); WINDOW as usize]);
        Self { rows, start: 0, sums, found: [0; WORDS], allowed: [0; WORDS] }
    }

    /// Moves to the window from `start`; false if none of its rows is allowed.
    fn begin(&mut self, start: u32, allowed: &dyn Allowed) -> bool {
        self.start = start;
        let mut any = 0;
        for (word, first) in self.allowed.iter_mut().zip((start..).step_by(64)) {
            let there = self.rows.saturating_sub(first);
            let mask = if there < u64::BITS { (1 << there) - 1 } else { u64::MAX };
            *word = if mask == 0 { 0 } else { allowed.word(RowId(first)) & mask };
            any |= *word;
        }
        any != 0
    }

    fn end(&self) -> u32 {
        self.start.saturating_add(WINDOW).min(self.rows)
    }

    fn search<R: Ranking<Sum = S>>(
        &mut self,
        walks: &mut [Walk<'_, S>],
        ranking: &mut R,
        visited: &mut Visited,
    ) {
        for walk in walks.iter_mut() {
            walk.bound_window((self.start, self.end()), ranking);
        }
        R::arrange(walks);
        // Those in front that cannot lift a row above what is to be beaten, all together.
        let mut looked_up = 0;
        let mut bounds = Vec::with_capacity(walks.len());
        let mut sum = S::default();
        for walk in walks.iter() {
            sum = R::plus(sum, walk.bound.unwrap_or_default());
            bounds.push(sum);
            looked_up += usize::from(ranking.is_hopeless(S::default(), sum));
        }
        let (looked_up, walked) = walks.split_at_mut(looked_up);
        for walk in walked.iter_mut().rev().filter(|walk| walk.bound.is_some()) {
            visited.postings += self.walk(walk, ranking, note);
        }
        for (found, allowed) in self.found.iter().zip(&self.allowed) {
            visited.rows += u64::from((found & allowed).count_ones());
        }
        let (walked, read) = self.walk_on(looked_up, ranking, &bounds);
        visited.postings += read;
        let rest = looked_up.len() - walked;
        let looked_up = &mut looked_up[..rest];
        self.take_each(|row, sum| {
            if let Some(sum) = with_looked_up((row, sum), ranking, (looked_up, &bounds)) {
                ranking.offer(sum, row);
            }
        });
    }

    /// Walks through those last of the terms to be looked up for which that is less work, as there
    /// are so many rows to look up; how many terms those are, and how many rows were read.
    fn walk_on<R: Ranking<Sum = S>>(
        &mut self,
        looked_up: &mut [Walk<'_, S>],
        ranking: &R,
        bounds: &[S],
    ) -> (usize, u64) {
        let (mut walked, mut read) = (0, 0);
        let end = self.end();
        let mut there: u64 = looked_up.iter().map(|walk| walk.postings_until(end)).sum();
        // Whether rows were left out. Found anew they could not be kept either, being short of what the
        // other terms add, but would have to be looked up; before, adding to all costs least.
        let mut filtered = false;
        for (walk, bound) in looked_up.iter_mut().zip(bounds).rev() {
            let postings = walk.postings_until(end);
            let mut rows = self.found();
            // Looking at the sums of so few may spare walking through so many.
            if !filtered && rows * POSTINGS_PER_LOOK > postings && rows * POSTINGS_PER_LOOK < there
            {
                rows = self.retain(|sum| !ranking.is_hopeless(sum, *bound));
                filtered = true;
            }
            if rows * POSTINGS_PER_LOOK <= postings {
                break;
            }
            walked += 1;
            there -= postings;
            if walk.bound.is_none() {
                continue;
            }
            read += if filtered {
                self.walk(walk, ranking, has)
            } else {
                self.walk(walk, ranking, note)
            };
        }
        (walked, read)
    }

    /// How many rows were found.
    fn found(&self) -> u64 {
        self.found.iter().map(|found| u64::from(found.count_ones())).sum()
    }

    /// Leaves out rows that are not allowed or whose sum `keep` does not keep; how many are left.
    fn retain(&mut self, keep: impl Fn(S) -> bool) -> u64 {
        let mut left = 0;
        for (word, allowed) in self.allowed.iter().enumerate() {
            let mut found = self.found[word];
            let mut kept = found;
            while found != 0 {
                let bit = found.trailing_zeros();
                found &= found - 1;
                let sum = &mut self.sums[word * 64 + bit as usize];
                if allowed >> bit & 1 == 0 || !keep(*sum) {
                    *sum = S::default();
                    kept &= !(1 << bit);
                }
            }
            self.found[word] = kept;
            left += u64::from(kept.count_ones());
        }
        left
    }

    /// Gives each allowed row that was found with its sum, ascending, and forgets all.
    fn take_each(&mut self, mut each: impl FnMut(u32, S)) {
        for (word, first) in (0..WORDS).zip((self.start..).step_by(64)) {
            let mut found = std::mem::take(&mut self.found[word]);
            while found != 0 {
                let bit = found.trailing_zeros();
                found &= found - 1;
                let sum = std::mem::take(&mut self.sums[word * 64 + bit as usize]);
                if self.allowed[word] >> bit & 1 == 1 {
                    each(first + bit, sum);
                }
            }
        }
    }

    /// Adds what a term adds to rows of the window; how many rows have it.
    fn walk<R: Ranking<Sum = S>>(
        &mut self,
        walk: &mut Walk<'_, S>,
        ranking: &R,
        counts: impl Fn(&mut u64, u64) -> bool,
    ) -> u64 {
        let end = self.end();
        let mut read = 0;
        let cursor = &mut walk.cursor;
        if !cursor.seek(self.start) {
            return 0;
        }
        while cursor.load() {
            let from = cursor.at;
            let to = from + cursor.rows[from..cursor.len].partition_point(|row| *row < end);
            for (row, number) in cursor.rows[from..to].iter().zip(&cursor.numbers[from..to]) {
                let at = (row.wrapping_sub(self.start) % WINDOW) as usize;
                let (word, bit) = (&mut self.found[at / 64], 1 << (at % 64));
                if counts(word, bit) {
                    let sum = &mut self.sums[at];
                    *sum = R::plus(*sum, ranking.score(walk.weight, *row, *number));
                }
            }
            read += (to - from) as u64;
            cursor.at = to;
            if to < cursor.len {
                break;
            }
        }
        read
    }
}

/// The sum of a row with the terms that are looked up; `None` as soon as it cannot be kept.
fn with_looked_up<R: Ranking>(
    (row, mut sum): (u32, R::Sum),
    ranking: &R,
    (walks, bounds): (&mut [Walk<'_, R::Sum>], &[R::Sum]),
) -> Option<R::Sum> {
    for (walk, bound) in walks.iter_mut().zip(bounds).rev() {
        if ranking.is_hopeless(sum, *bound) {
            return None;
        }
        if walk.bound.is_some() && walk.cursor.seek(row) && walk.cursor.row() == row {
            let number = walk.cursor.numbers[walk.cursor.at];
            sum = R::plus(sum, ranking.score(walk.weight, row, number));
        }
    }
    Some(sum)
}

/// Sets a bit.
fn note(word: &mut u64, bit: u64) -> bool {
    *word |= bit;
    true
}

/// Whether a bit is set.
fn has(word: &mut u64, bit: u64) -> bool {
    *word & bit != 0
}
