//! Which rows of a segment have died, and when.
//!
//! A persistent structure: a copy shares its pages with the original, and marking a row copies
//! one page of [`PAGE_ROWS`] rows and the vector of page pointers.

use std::ops::Range;
use std::sync::Arc;

use arrwdb_index::{Allowed, RowId};

use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::Seq;

/// Rows of one page. A multiple of 64, so that a word of the scan lies in one page.
const PAGE_ROWS: u32 = 4096;
const PAGE_WORDS: usize = PAGE_ROWS as usize / 64;

/// A segment's dead rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tombstones {
    pages: Vec<Option<Arc<Page>>>,
    dead: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Page {
    bits: [u64; PAGE_WORDS],
    /// Runs of rows that died together, ascending by row.
    runs: Vec<Run>,
}

/// Consecutive rows that died at one sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: u32,
    pub(crate) rows: u32,
    pub(crate) died: Seq,
}

impl Tombstones {
    /// How many rows are dead.
    pub(crate) fn dead(&self) -> u32 {
        self.dead
    }

    pub(crate) fn contains(&self, row: u32) -> bool {
        self.page(row).is_some_and(|page| {
            let place = row % PAGE_ROWS;
            page.bits[(place / 64) as usize] >> (place % 64) & 1 == 1
        })
    }

    /// When `row` died; `None` while it lives. O(log runs of its page).
    pub(crate) fn died(&self, row: u32) -> Option<Seq> {
        let page = self.page(row)?;
        let after = page.runs.partition_point(|run| run.first <= row);
        let run = page.runs[..after].last()?;
        (row - run.first < run.rows).then_some(run.died)
    }

    /// Marks live rows as dead from `died` on.
    pub(crate) fn mark(&mut self, rows: Range<u32>, died: Seq) {
        let mut first = rows.start;
        while first < rows.end {
            let page = first / PAGE_ROWS;
            let end = rows.end.min((page + 1) * PAGE_ROWS);
            if self.pages.len() <= page as usize {
                self.pages.resize(page as usize + 1, None);
            }
            let page = self.pages[page as usize]
                .get_or_insert_with(|| Arc::new(Page { bits: [0; PAGE_WORDS], runs: Vec::new() }));
            Arc::make_mut(page).mark(Run { first, rows: end - first, died });
            first = end;
        }
        self.dead += rows.end - rows.start;
    }

    /// What was dead at `seq`. Pages in which nothing died since are shared. O(runs).
    pub(crate) fn at(&self, seq: Seq) -> Self {
        let page = |page: &Arc<Page>| page.at(seq);
        let pages: Vec<_> = self.pages.iter().map(|each| each.as_ref().and_then(page)).collect();
        let mut past = Self { pages, dead: 0 };
        past.dead = past.runs().map(|run| run.rows).sum();
        past
    }

    /// All dead rows, ascending; runs may break at page borders.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        self.pages.iter().flatten().flat_map(|page| page.runs.iter().copied())
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.count(self.runs().count());
        for run in self.runs() {
            out.u32(run.first);
            out.u32(run.rows);
            out.u64(run.died.get());
        }
    }

    pub(crate) fn read(from: &mut Reader<'_>, rows: u32) -> Result<Self, DecodeError> {
        let mut tombstones = Self::default();
        let mut next = 0;
        for _run in 0..from.count(16, "tombstones")? {
            let first = from.u32("first dead row")?;
            let count = from.u32("dead rows")?;
            let died = Seq::new(from.u64("sequence of death")?);
            let end = first.checked_add(count).filter(|end| first >= next && *end <= rows);
            let Some(end) = end else {
                return Err(from.error("tombstones in order and within the segment"));
            };
            tombstones.mark(first..end, died);
            next = end;
        }
        Ok(tombstones)
    }

    fn page(&self, row: u32) -> Option<&Page> {
        self.pages.get((row / PAGE_ROWS) as usize)?.as_deref()
    }
}

impl Page {
    /// What of it was dead at `seq`, if anything.
    fn at(self: &Arc<Self>, seq: Seq) -> Option<Arc<Self>> {
        if self.runs.iter().all(|run| run.died <= seq) {
            return Some(self.clone());
        }
        let mut past = Self { bits: [0; PAGE_WORDS], runs: Vec::new() };
        for run in self.runs.iter().filter(|run| run.died <= seq) {
            past.mark(*run);
        }
        (!past.runs.is_empty()).then(|| Arc::new(past))
    }

    fn mark(&mut self, run: Run) {
        for row in run.first..run.first + run.rows {
            let place = row % PAGE_ROWS;
            let word = &mut self.bits[(place / 64) as usize];
            assert!(*word >> (place % 64) & 1 == 0, "row {row} dies once");
            *word |= 1 << (place % 64);
        }
        let place = self.runs.partition_point(|other| other.first < run.first);
        self.runs.insert(place, run);
    }
}

/// The rows that live now.
impl Allowed for Tombstones {
    fn allows(&self, row: RowId) -> bool {
        !self.contains(row.0)
    }

    fn word(&self, first: RowId) -> u64 {
        match self.page(first.0) {
            Some(page) => !page.bits[(first.0 % PAGE_ROWS / 64) as usize],
            None => u64::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn tombstones_agree_with_a_map(
            marks in prop::collection::vec((0_u32..20_000, 1_u32..40), 0..60)
        ) {
            let mut model = BTreeMap::new();
            let mut tombstones = Tombstones::default();
            for (seq, (first, count)) in marks.into_iter().enumerate() {
                if (first..first + count).any(|row| model.contains_key(&row)) {
                    continue;
                }
                let before = tombstones.clone();
                let kept = before.clone();
                tombstones.mark(first..first + count, Seq::new(seq as u64));
                prop_assert_eq!(before, kept, "a copy does not change");
                model.extend((first..first + count).map(|row| (row, Seq::new(seq as u64))));
            }
            prop_assert_eq!(tombstones.dead() as usize, model.len());
            for row in 0..20_100 {
                prop_assert_eq!(tombstones.died(row), model.get(&row).copied());
                prop_assert_eq!(tombstones.allows(RowId(row)), !model.contains_key(&row));
                let word = tombstones.word(RowId(row / 64 * 64));
                prop_assert_eq!(word >> (row % 64) & 1 == 1, !model.contains_key(&row));
            }
            for seq in [0, 3, 17, 59] {
                let past = tombstones.at(Seq::new(seq));
                let dead = |row: u32| model.get(&row).is_some_and(|died| died.get() <= seq);
                prop_assert!((0..20_100).all(|row| past.contains(row) == dead(row)));
                prop_assert!((0..20_100).all(|row| past.died(row).is_some() == dead(row)));
                prop_assert_eq!(past.dead() as usize, (0..20_100).filter(|row| dead(*row)).count());
            }
            let mut out = Writer::default();
            tombstones.write(&mut out);
            let bytes = out.into_bytes();
            let read = Tombstones::read(&mut Reader::new(&bytes), 30_000).unwrap();
            prop_assert_eq!(read, tombstones);
        }
    }
}
