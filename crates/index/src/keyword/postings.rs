//! The inverted index of one segment.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::dictionary::{Dictionary, Place};
use super::list::{List, OwnedList, short};
use super::matching::Prefix;
use crate::analysis::ANALYSIS_VERSION;

/// Changes with the layout.
const LAYOUT_VERSION: u32 = 1;
/// Bytes in front: eight numbers of 64 bits.
const HEADER_BYTES: usize = 64;

/// The terms of a segment's rows, each with the rows that have it.
///
/// ```text
/// u64 layout version | u64 version of the analysis | u64 rows | u64 terms they have together
/// u64 bytes of the dictionary's places | of its blocks | of lists | of positions
/// lengths: u16 of each row | places | blocks | lists | positions
/// ```
///
/// Little-endian. A row's length is how many terms it has that are not stop words, at most 65,534.
pub struct Postings {
    bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
    rows: u32,
    tokens: u64,
    /// Where the parts are, one behind the other.
    parts: [Range<usize>; 5],
}

impl fmt::Debug for Postings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, tokens) = (self.rows, self.tokens);
        let mut fields = f.debug_struct("Postings");
        fields.field("rows", &rows).field("tokens", &tokens).finish_non_exhaustive()
    }
}

/// The parts of an index that is made.
pub(super) struct Parts<'a> {
    pub(super) lengths: &'a [u16],
    pub(super) tokens: u64,
    pub(super) places: &'a [u8],
    pub(super) blocks: &'a [u8],
    pub(super) lists: &'a [u8],
    pub(super) positions: &'a [u8],
}

impl Postings {
    pub(super) fn of(parts: &Parts<'_>) -> Self {
        let after = [parts.places, parts.blocks, parts.lists, parts.positions];
        let numbers = [u64::from(LAYOUT_VERSION), u64::from(ANALYSIS_VERSION)]
            .into_iter()
            .chain([parts.lengths.len() as u64, parts.tokens])
            .chain(after.map(|part| part.len() as u64));
        let mut bytes: Vec<u8> = numbers.flat_map(u64::to_le_bytes).collect();
        bytes.extend(parts.lengths.iter().flat_map(|length| length.to_le_bytes()));
        bytes.extend(after.into_iter().flatten());
        let ranges = ranges(parts.lengths.len(), after.map(<[u8]>::len));
        let rows = u32::try_from(parts.lengths.len()).unwrap_or(u32::MAX);
        Self { bytes: Arc::new(bytes), rows, tokens: parts.tokens, parts: ranges }
    }

    /// The index that lies in `bytes`; `None` if they are none, or one of another version of the
    /// layout or of the analysis. Of what is inside nothing is believed: what does not hold reads as
    /// nothing.
    pub fn open(bytes: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Option<Self> {
        let held = (*bytes).as_ref();
        let (numbers, _rest) = held.get(..HEADER_BYTES)?.as_chunks::<8>();
        let numbers: Vec<u64> = numbers.iter().map(|number| u64::from_le_bytes(*number)).collect();
        let [layout, analysis, rows, tokens, lens @ ..] = numbers.as_slice() else { return None };
        if (*layout, *analysis) != (u64::from(LAYOUT_VERSION), u64::from(ANALYSIS_VERSION)) {
            return None;
        }
        let rows = u32::try_from(*rows).ok()?;
        let lens: Vec<usize> = lens.iter().filter_map(|len| usize::try_from(*len).ok()).collect();
        let lens: [usize; 4] = lens.try_into().ok()?;
        let all =
            lens.iter().try_fold(HEADER_BYTES + 2 * rows as usize, |at, len| at.checked_add(*len));
        if all? != held.len() {
            return None;
        }
        let (tokens, parts) = (*tokens, ranges(rows as usize, lens));
        Some(Self { bytes, rows, tokens, parts })
    }

    /// The bytes that [`Postings::open`] takes.
    pub fn as_bytes(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }

    /// How many rows the segment has.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// How many terms all rows have together, without stop words.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// How many terms a row has, without stop words.
    pub fn length(&self, row: u32) -> u16 {
        short(self.lengths(), 2 * row as usize)
    }

    /// The rows that have a term. O(log terms).
    pub fn list(&self, term: &str) -> Option<List<'_>> {
        self.dictionary().find(term).map(|place| self.list_at(place))
    }

    /// The rows that have a word that begins so, with how often they have one. O(rows of the segment
    /// + those of the terms).
    pub fn prefix_list(&self, prefix: &Prefix) -> OwnedList {
        let mut frequencies = vec![0_u32; self.rows as usize];
        self.each_of_prefix(prefix, |list| {
            list.for_each(|row, frequency| {
                if let Some(all) = frequencies.get_mut(row as usize) {
                    *all = all.saturating_add(frequency);
                }
            });
        });
        let having = (0..).zip(frequencies).filter(|(_row, frequency)| *frequency > 0);
        OwnedList::of(&having.collect::<Vec<_>>(), |row| self.length(row))
    }

    /// As [`Postings::prefix_list`], with positions. O(positions * log).
    pub(super) fn prefix_positions(&self, prefix: &Prefix) -> OwnedList {
        let mut at = Vec::new();
        self.each_of_prefix(prefix, |list| {
            list.for_each_position(|row, position| at.push((row, position)));
        });
        at.sort_unstable();
        OwnedList::of_positions(&at, |row| self.length(row))
    }

    fn each_of_prefix(&self, prefix: &Prefix, mut each: impl FnMut(List<'_>)) {
        self.dictionary().find_prefix(&prefix.begin, |place| each(self.list_at(place)));
        if !prefix.term.starts_with(&*prefix.begin)
            && let Some(list) = self.list(&prefix.term)
        {
            each(list);
        }
    }

    /// The lengths of rows, two bytes each.
    pub(super) fn lengths(&self) -> &[u8] {
        self.part(0)
    }

    fn list_at(&self, place: Place) -> List<'_> {
        let within = |part: usize, (start, len): (u64, u64)| {
            let range =
                usize::try_from(start).ok().zip(usize::try_from(start.saturating_add(len)).ok());
            range.and_then(|(start, end)| self.part(part).get(start..end)).unwrap_or(&[])
        };
        List::new(place.rows, within(3, place.list), within(4, place.positions))
    }

    fn dictionary(&self) -> Dictionary<'_> {
        Dictionary { places: self.part(1), blocks: self.part(2) }
    }

    fn part(&self, part: usize) -> &[u8] {
        self.as_bytes().get(self.parts[part].clone()).unwrap_or(&[])
    }
}

/// Where the parts are, behind the header.
fn ranges(rows: usize, lens: [usize; 4]) -> [Range<usize>; 5] {
    let mut at = HEADER_BYTES;
    let [places, blocks, lists, positions] = lens;
    [2 * rows, places, blocks, lists, positions].map(|len| {
        let start = at;
        at += len;
        start..at
    })
}
