//! How texts become the terms that they are found by.
//!
//! Words are cut at the borders of Unicode (UAX #29), folded (compatibility forms, case, accents of
//! alphabets that are read without them), and English ones stemmed (Porter 2). Scripts that are
//! written without spaces have no borders between words: their characters become overlapping pairs,
//! as in Lucene's CJK analysis, and the last of a run a term of its own, so that every character
//! begins a term and one alone is found as a prefix. Signs that are no letters are not terms, but for
//! emoji.
//!
//! Queries are analysed as texts are: two texts that differ only in what is folded have equal terms.

mod fold;
mod stop_words;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use rust_stemmers::{Algorithm, Stemmer};
use unicode_segmentation::UnicodeSegmentation;

/// Changes whenever a text may get other terms than before: structures made from terms are stamped
/// with it.
pub const ANALYSIS_VERSION: u32 = 1;

/// A term is cut after so many bytes, at a character's border.
pub const TERM_BYTES_MAX: usize = 128;

/// Words whose terms are kept for the next time that they come.
const CACHED_WORDS_MAX: usize = 1 << 16;
/// Longer words are not kept.
const CACHED_WORD_BYTES_MAX: usize = 32;

/// A term where it stands in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token<'a> {
    /// What is indexed.
    pub term: &'a str,
    /// The how-manyeth term of the text, from 0.
    pub position: u32,
    /// Where its word is in the text, on borders of characters.
    pub bytes: Range<usize>,
    /// Whether it is a word that says nothing by itself, such as "the".
    pub stop: bool,
    /// What of a text it is.
    pub kind: Kind,
}

/// What of a text a term is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A word.
    Word,
    /// Two characters of a script without spaces.
    Pair,
    /// The last character of a run, which is also in the pair before.
    End,
    /// A character that is a run by itself.
    Alone,
}

/// Turns texts into terms. It remembers words, so that one for many texts is faster than many.
pub struct Analyzer {
    stemmer: Stemmer,
    /// Where words of ASCII letters are among `cached`.
    places: HashMap<Box<str>, usize>,
    cached: Vec<(Box<str>, bool)>,
    term: String,
}

impl Default for Analyzer {
    fn default() -> Self {
        let stemmer = Stemmer::create(Algorithm::English);
        Self { stemmer, places: HashMap::new(), cached: Vec::new(), term: String::new() }
    }
}

impl fmt::Debug for Analyzer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Analyzer").field("cached", &self.cached.len()).finish_non_exhaustive()
    }
}

impl Analyzer {
    /// Gives the terms of a text in order. O(bytes).
    pub fn tokens(&mut self, text: &str, mut each: impl FnMut(Token<'_>)) {
        let mut position = 0;
        if text.is_ascii() {
            // Most texts are, and their borders are found several times as fast.
            for (start, word) in text.unicode_word_indices() {
                let bytes = start..start + word.len();
                let (term, stop) = self.term_of(word);
                each(Token { term, position, bytes, stop, kind: Kind::Word });
                position += 1;
            }
            return;
        }
        let mut run: Vec<Range<usize>> = Vec::new();
        for (start, word) in text.split_word_bound_indices() {
            let mut at = start;
            for (part, unspaced) in parts(word) {
                let mut bytes = at..at + part.len();
                at = bytes.end;
                if run.last().is_some_and(|last| !unspaced || last.end != bytes.start) {
                    self.end_run(text, &mut run, &mut position, &mut each);
                }
                if unspaced {
                    let units = part.grapheme_indices(true);
                    let unit =
                        |(at, unit): (usize, &str)| bytes.start + at..bytes.start + at + unit.len();
                    run.extend(units.map(unit));
                    continue;
                }
                if part.len() < word.len() {
                    // What joined it to the other script is no part of it.
                    let kept = part.trim_start_matches(fold::is_joint);
                    bytes.start += part.len() - kept.len();
                    bytes.end = bytes.start + kept.trim_end_matches(fold::is_joint).len();
                }
                let part = &text[bytes.clone()];
                if !part.chars().any(|letter| letter.is_alphanumeric() || fold::is_emoji(letter)) {
                    continue;
                }
                let (term, stop) = self.term_of(part);
                if !term.is_empty() {
                    each(Token { term, position, bytes, stop, kind: Kind::Word });
                    position += 1;
                }
            }
        }
        self.end_run(text, &mut run, &mut position, &mut each);
    }

    /// The term of a word, as a query for words that begin so has it: folded, not stemmed.
    pub fn prefix(word: &str) -> String {
        let mut folded = String::new();
        fold::fold(word, &mut folded);
        cut(&mut folded);
        folded
    }

    /// Gives the pairs of a run of characters.
    fn end_run(
        &mut self,
        text: &str,
        run: &mut Vec<Range<usize>>,
        position: &mut u32,
        each: &mut impl FnMut(Token<'_>),
    ) {
        for (place, unit) in run.iter().enumerate() {
            let second = run.get(place + 1);
            let bytes = unit.start..second.map_or(unit.end, |second| second.end);
            self.term.clear();
            fold::fold(&text[bytes.clone()], &mut self.term);
            cut(&mut self.term);
            if self.term.is_empty() {
                continue;
            }
            let kind = match second {
                Some(_) => Kind::Pair,
                None if place > 0 => Kind::End,
                None => Kind::Alone,
            };
            each(Token { term: &self.term, position: *position, bytes, stop: false, kind });
            *position += 1;
        }
        run.clear();
    }

    /// The term of a word, and whether it is a stop word.
    fn term_of(&mut self, word: &str) -> (&str, bool) {
        let cached = word.len() <= CACHED_WORD_BYTES_MAX && word.is_ascii();
        if let Some(place) = self.places.get(word).filter(|_place| cached) {
            let (term, stop) = &self.cached[*place];
            return (term, *stop);
        }
        self.term.clear();
        fold::fold(word, &mut self.term);
        let stop = stop_words::is_stop_word(&self.term);
        if self.term.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'\'') {
            let stemmed = self.stemmer.stem(&self.term);
            if stemmed != self.term {
                self.term = stemmed.into_owned();
            }
        }
        cut(&mut self.term);
        if cached {
            if self.cached.len() >= CACHED_WORDS_MAX {
                self.places.clear();
                self.cached.clear();
            }
            self.places.insert(word.into(), self.cached.len());
            self.cached.push((self.term.as_str().into(), stop));
        }
        (&self.term, stop)
    }
}

/// A word in parts that are of a script without spaces and parts that are not: Unicode has no border
/// between Korean and Latin letters. Usually there is one.
fn parts(word: &str) -> impl Iterator<Item = (&str, bool)> {
    let mut rest = word;
    std::iter::from_fn(move || {
        if word.is_ascii() {
            return Some((std::mem::take(&mut rest), false)).filter(|(part, _)| !part.is_empty());
        }
        let mut units = rest.grapheme_indices(true);
        let unspaced = fold::is_unspaced(units.next()?.1);
        let same = |unit: &&str| fold::is_unspaced(unit) == unspaced;
        let end = units.find(|(_at, unit)| !same(unit)).map_or(rest.len(), |(at, _unit)| at);
        let (part, after) = rest.split_at(end);
        rest = after;
        Some((part, unspaced))
    })
}

/// Cuts a term that is too long.
fn cut(term: &mut String) {
    if term.len() > TERM_BYTES_MAX {
        term.truncate(term.floor_char_boundary(TERM_BYTES_MAX));
    }
}
