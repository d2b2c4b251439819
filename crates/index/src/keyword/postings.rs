//! The inverted index of one segment.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::bm25::Impact;
use super::forms::{self, Forms};
use super::matching::Prefix;
use crate::analysis::ANALYSIS_VERSION;
use crate::inverted::{Head, Layout, List, Listed, Lists, OwnedList, short};

/// Changes with the layout.
const LAYOUT_VERSION: u32 = 2;
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
    pub(super) fn of(lengths: &[u16], tokens: u64, lists: &Lists, written: &[u8]) -> Self {
        let rows = u32::try_from(lengths.len()).unwrap_or(u32::MAX);
        let head = Head { kind: KIND, rows, total: tokens };
        let of_rows: Vec<u8> = lengths.iter().flat_map(|length| length.to_le_bytes()).collect();
        Self { layout: Layout::of(head, &of_rows, lists, written) }
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
        self.layout.find(term.as_bytes()).map(|found| found.list)
    }

    /// The rows that have a word that begins so as it is written, or one of the beginning's own stem,
    /// with how often they have one. O(rows of the segment + those of the words' terms).
    pub fn prefix_list(&self, prefix: &Prefix) -> OwnedList {
        let mut frequencies = vec![0_u32; self.rows() as usize];
        for begun in self.begun(prefix) {
            begun.for_each(|row, frequency| {
                if let Some(all) = frequencies.get_mut(row as usize) {
                    *all = all.saturating_add(frequency);
                }
            });
        }
        let having = (0..).zip(frequencies).filter(|(_row, frequency)| *frequency > 0);
        OwnedList::of(&having.collect::<Vec<_>>(), |block| {
            Impact::bounds(block, |row| self.length(row))
        })
    }

    /// As [`Postings::prefix_list`], with positions. O(positions * log).
    pub(super) fn prefix_positions(&self, prefix: &Prefix) -> OwnedList {
        let mut at = Vec::new();
        for begun in self.begun(prefix) {
            begun.for_each_position(|row, position| at.push((row, position)));
        }
        at.sort_unstable();
        OwnedList::of_positions(&at, |block| Impact::bounds(block, |row| self.length(row)))
    }

    /// The terms of the words that begin so, each once.
    fn begun<'a>(&'a self, prefix: &Prefix) -> Vec<Begun<'a>> {
        let mut found: BTreeMap<u64, (Listed<'a>, Begins)> = BTreeMap::new();
        let mut note = |term: Listed<'a>, begins: Begins| {
            let (_term, noted) = found.entry(term.id).or_insert((term, Begins::Words(Vec::new())));
            noted.add(begins);
        };
        let begin = prefix.begin.as_bytes();
        self.layout.each_of_prefix(begin, |term| match term.aside {
            None => note(term, Begins::Every),
            Some(aside) => note(term, Begins::Words(Vec::from_iter(Forms::read(aside).own))),
        });
        forms::each_of_prefix(self.layout.more(), begin, |term, rank| {
            if let Some(term) = self.layout.find(term) {
                note(term, Begins::Words(vec![rank]));
            }
        });
        if let Some(term) = self.layout.find(prefix.term.as_bytes()) {
            note(term, Begins::Every);
        }
        found.into_values().filter_map(|(term, begins)| Begun::of(term, begins)).collect()
    }

    /// The lengths of rows, two bytes each.
    pub(super) fn lengths(&self) -> &[u8] {
        self.layout.of_rows()
    }
}

/// Which of a term's words begin as is wanted.
enum Begins {
    Every,
    /// By their ranks.
    Words(Vec<u32>),
}

impl Begins {
    fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Words(ranks), Self::Words(more)) => ranks.extend(more),
            (Self::Words(_), Self::Every) => *self = Self::Every,
            (Self::Every, _) => {}
        }
    }
}

/// A term of which some word begins as is wanted.
struct Begun<'a> {
    list: List<'a>,
    /// Where not every word does: the ranks of those that do, ascending.
    some: Option<(Forms<'a>, Vec<u32>)>,
}

impl<'a> Begun<'a> {
    /// `None` if no word does.
    fn of(term: Listed<'a>, begins: Begins) -> Option<Self> {
        let some = match (begins, term.aside) {
            (Begins::Words(ranks), _) if ranks.is_empty() => return None,
            (Begins::Words(mut ranks), Some(aside)) => {
                let forms = Forms::read(aside);
                ranks.sort_unstable();
                ranks.dedup();
                (ranks.len() < forms.words as usize).then_some((forms, ranks))
            }
            (Begins::Every, _) | (Begins::Words(_), None) => None,
        };
        Some(Self { list: term.list, some })
    }

    /// Gives every row with how often it has such a word. O(occurrences).
    fn for_each(&self, mut each: impl FnMut(u32, u32)) {
        let Some((forms, wanted)) = &self.some else { return self.list.for_each(each) };
        let mut ranks = forms.ranks();
        self.list.for_each(|row, frequency| {
            let of_row = ranks.by_ref().take(frequency as usize);
            let having = of_row.filter(|rank| wanted.binary_search(rank).is_ok()).count();
            if having > 0 {
                each(row, u32::try_from(having).unwrap_or(u32::MAX));
            }
        });
    }

    /// Gives every row with every position of such a word. O(occurrences).
    fn for_each_position(&self, mut each: impl FnMut(u32, u32)) {
        let Some((forms, wanted)) = &self.some else { return self.list.for_each_position(each) };
        let mut ranks = forms.ranks();
        self.list.for_each_position(|row, position| {
            if ranks.next().is_some_and(|rank| wanted.binary_search(&rank).is_ok()) {
                each(row, position);
            }
        });
    }
}
