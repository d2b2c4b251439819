//! The inverted index of one segment.

use std::fmt;
use std::sync::Arc;

use super::bm25::Impact;
use super::matching::Prefix;
use crate::analysis::ANALYSIS_VERSION;
use crate::inverted::{Head, Layout, List, Lists, OwnedList, short};

/// Changes with the layout.
const LAYOUT_VERSION: u32 = 1;
const KIND: [u64; 2] = [LAYOUT_VERSION as u64, ANALYSIS_VERSION as u64];

/// The terms of a segment's rows, each with the rows that have it: their numbers are how often.
///
/// A row's length is how many terms it has that are not stop words, at most 65,534: two bytes of each
/// row. What all rows have together are those terms.
pub struct Postings {
    layout: Layout,
}

impl fmt::Debug for Postings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, tokens) = (self.rows(), self.tokens());
        let mut fields = f.debug_struct("Postings");
        fields.field("rows", &rows).field("tokens", &tokens).finish_non_exhaustive()
    }
}

impl Postings {
    pub(super) fn of(lengths: &[u16], tokens: u64, lists: &Lists) -> Self {
        let rows = u32::try_from(lengths.len()).unwrap_or(u32::MAX);
        let head = Head { kind: KIND, rows, total: tokens };
        let of_rows: Vec<u8> = lengths.iter().flat_map(|length| length.to_le_bytes()).collect();
        Self { layout: Layout::of(head, &of_rows, lists) }
    }

    /// The index that lies in `bytes`; `None` if they are none, or one of another version of the
    /// layout or of the analysis. Of what is inside nothing is believed: what does not hold reads as
    /// nothing.
    pub fn open(bytes: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Option<Self> {
        Some(Self { layout: Layout::open(bytes, KIND, 2)? })
    }

    /// The bytes that [`Postings::open`] takes.
    pub fn as_bytes(&self) -> &[u8] {
        self.layout.as_bytes()
    }

    /// How many rows the segment has.
    pub fn rows(&self) -> u32 {
        self.layout.head.rows
    }

    /// How many terms all rows have together, without stop words.
    pub fn tokens(&self) -> u64 {
        self.layout.head.total
    }

    /// How many terms a row has, without stop words.
    pub fn length(&self, row: u32) -> u16 {
        short(self.lengths(), 2 * row as usize)
    }

    /// The rows that have a term. O(log terms).
    pub fn list(&self, term: &str) -> Option<List<'_>> {
        self.layout.list(term.as_bytes())
    }

    /// The rows that have a word that begins so, with how often they have one. O(rows of the segment
    /// + those of the terms).
    pub fn prefix_list(&self, prefix: &Prefix) -> OwnedList {
        let mut frequencies = vec![0_u32; self.rows() as usize];
        self.each_of_prefix(prefix, |list| {
            list.for_each(|row, frequency| {
                if let Some(all) = frequencies.get_mut(row as usize) {
                    *all = all.saturating_add(frequency);
                }
            });
        });
        let having = (0..).zip(frequencies).filter(|(_row, frequency)| *frequency > 0);
        OwnedList::of(&having.collect::<Vec<_>>(), |block| {
            Impact::bounds(block, |row| self.length(row))
        })
    }

    /// As [`Postings::prefix_list`], with positions. O(positions * log).
    pub(super) fn prefix_positions(&self, prefix: &Prefix) -> OwnedList {
        let mut at = Vec::new();
        self.each_of_prefix(prefix, |list| {
            list.for_each_position(|row, position| at.push((row, position)));
        });
        at.sort_unstable();
        OwnedList::of_positions(&at, |block| Impact::bounds(block, |row| self.length(row)))
    }

    fn each_of_prefix(&self, prefix: &Prefix, mut each: impl FnMut(List<'_>)) {
        self.layout.each_of_prefix(prefix.begin.as_bytes(), &mut each);
        if !prefix.term.starts_with(&*prefix.begin)
            && let Some(list) = self.list(&prefix.term)
        {
            each(list);
        }
    }

    /// The lengths of rows, two bytes each.
    pub(super) fn lengths(&self) -> &[u8] {
        self.layout.of_rows()
    }
}
