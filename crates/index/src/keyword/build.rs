//! Making the inverted index of a segment.

use std::collections::HashMap;

use super::bm25::Impact;
use super::forms::{self, GrowingForms};
use super::postings::Postings;
use crate::analysis::{Analyzer, Language};
use crate::inverted::{Growing, Lists};

/// The longest that a row counts as.
const LENGTH_MAX: u16 = u16::MAX - 1;

/// Collects the texts of rows, in order.
#[derive(Debug)]
pub struct PostingsBuilder {
    analyzer: Analyzer,
    places: HashMap<Box<str>, u32>,
    terms: Vec<Growing>,
    /// Of each term.
    forms: Vec<GrowingForms>,
    lengths: Vec<u16>,
    tokens: u64,
    /// (term, position) of the row at hand.
    row: Vec<(u32, u32)>,
}

impl PostingsBuilder {
    /// For texts of one language.
    pub fn new(language: Language) -> Self {
        Self {
            analyzer: Analyzer::new(language),
            places: HashMap::new(),
            terms: Vec::new(),
            forms: Vec::new(),
            lengths: Vec::new(),
            tokens: 0,
            row: Vec::new(),
        }
    }

    /// Adds a row with its texts. A phrase is within one of them. O(bytes).
    pub fn push(&mut self, texts: &[&str]) {
        let Self { analyzer, places, terms, forms, row, .. } = self;
        let (mut start, mut length) = (0, 0_u64);
        for text in texts {
            let mut end = start;
            analyzer.tokens(text, |token| {
                let place = places.get(token.term).copied().unwrap_or_else(|| {
                    // As many as a segment has bytes of text at most, which are fewer.
                    let place = u32::try_from(terms.len()).unwrap_or(u32::MAX);
                    places.insert(token.term.into(), place);
                    terms.push(Growing::default());
                    forms.push(GrowingForms::default());
                    place
                });
                forms[place as usize].push(token.term, token.form);
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
            terms[same[0].0 as usize]
                .push_positions(at, same.iter().map(|(_term, position)| *position));
        }
        row.clear();
        let length = u16::try_from(length).unwrap_or(LENGTH_MAX).min(LENGTH_MAX);
        self.tokens += u64::from(length);
        self.lengths.push(length);
    }

    /// The index of all rows. O(terms log terms + postings).
    pub fn finish(self) -> Postings {
        let Self { places, terms, mut forms, lengths, tokens, .. } = self;
        let mut in_order: Vec<(Box<str>, u32)> = places.into_iter().collect();
        in_order.sort_unstable();
        let (mut lists, mut written) = (Lists::default(), Vec::new());
        let length = |row: u32| lengths.get(row as usize).copied().unwrap_or(0);
        for (term, place) in in_order {
            let growing = &terms[place as usize];
            let aside = std::mem::take(&mut forms[place as usize]).finish(&term, &mut written);
            let bounds = |block: &_| Impact::bounds(block, length);
            lists.push(term.as_bytes(), growing, aside.as_deref(), bounds);
        }
        Postings::of(&lengths, tokens, &lists, &forms::write(written))
    }
}
