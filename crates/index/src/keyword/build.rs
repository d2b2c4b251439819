//! Making the inverted index of a segment.

use std::collections::HashMap;

use super::dictionary::DictionaryWriter;
use super::list::{Bytes, encode, varint};
use super::postings::{Parts, Postings};
use crate::analysis::Analyzer;

/// The longest that a row counts as.
const LENGTH_MAX: u16 = u16::MAX - 1;

/// Collects the texts of rows, in order.
#[derive(Debug, Default)]
pub struct PostingsBuilder {
    analyzer: Analyzer,
    places: HashMap<Box<str>, u32>,
    terms: Vec<Growing>,
    lengths: Vec<u16>,
    tokens: u64,
    /// (term, position) of the row at hand.
    row: Vec<(u32, u32)>,
}

/// The list of a term, as it grows: in bytes, since most terms have a row or two.
#[derive(Debug, Default)]
struct Growing {
    rows: u32,
    next_row: u32,
    /// Varints of each row's difference and frequency.
    list: Vec<u8>,
    positions: Vec<u8>,
}

impl PostingsBuilder {
    /// Adds a row with its texts. A phrase is within one of them. O(bytes).
    pub fn push(&mut self, texts: &[&str]) {
        let Self { analyzer, places, terms, row, .. } = self;
        let (mut start, mut length) = (0, 0_u64);
        for text in texts {
            let mut end = start;
            analyzer.tokens(text, |token| {
                let place = places.get(token.term).copied().unwrap_or_else(|| {
                    // As many as a segment has bytes of text at most, which are fewer.
                    let place = u32::try_from(terms.len()).unwrap_or(u32::MAX);
                    places.insert(token.term.into(), place);
                    terms.push(Growing::default());
                    place
                });
                row.push((place, start + token.position));
                end = start + token.position + 1;
                length += u64::from(!token.stop);
            });
            // Nothing has the position in between.
            start = end + 1;
        }
        row.sort_unstable();
        // Rows of a segment are counted in 32 bits.
        let at = u32::try_from(self.lengths.len()).unwrap_or(u32::MAX);
        for same in row.chunk_by(|a, b| a.0 == b.0) {
            let growing = &mut terms[same[0].0 as usize];
            growing.rows += 1;
            varint(u64::from(at - growing.next_row), &mut growing.list);
            varint(same.len() as u64, &mut growing.list);
            growing.next_row = at + 1;
            let mut before = 0;
            for (_term, position) in same {
                varint(u64::from(position - before), &mut growing.positions);
                before = *position;
            }
        }
        row.clear();
        let length = u16::try_from(length).unwrap_or(LENGTH_MAX).min(LENGTH_MAX);
        self.tokens += u64::from(length);
        self.lengths.push(length);
    }

    /// The index of all rows. O(terms log terms + postings).
    pub fn finish(self) -> Postings {
        let Self { places, terms, lengths, tokens, .. } = self;
        let mut in_order: Vec<(Box<str>, u32)> = places.into_iter().collect();
        in_order.sort_unstable();
        let mut dictionary = DictionaryWriter::default();
        let (mut lists, mut positions) = (Vec::new(), Vec::new());
        let (mut rows, mut positions_at) = (Vec::new(), Vec::new());
        for (term, place) in in_order {
            let growing = &terms[place as usize];
            rows.clear();
            positions_at.clear();
            let mut list = Bytes { bytes: &growing.list, at: 0 };
            let mut of_row = Bytes { bytes: &growing.positions, at: 0 };
            let mut row = 0;
            for _ in 0..growing.rows {
                row += list.small();
                let frequency = list.small();
                rows.push((row, frequency));
                row += 1;
                positions_at.push(u32::try_from(of_row.at).unwrap_or(u32::MAX));
                for _ in 0..frequency {
                    of_row.varint();
                }
            }
            let start = lists.len();
            let length = |row: u32| lengths.get(row as usize).copied().unwrap_or(0);
            encode(&rows, Some(&positions_at), length, &mut lists);
            positions.extend(&growing.positions);
            dictionary.push(&term, growing.rows, lists.len() - start, growing.positions.len());
        }
        Postings::of(&Parts {
            lengths: &lengths,
            tokens,
            places: &dictionary.places,
            blocks: &dictionary.blocks,
            lists: &lists,
            positions: &positions,
        })
    }
}
