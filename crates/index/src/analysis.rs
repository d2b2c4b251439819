//! How texts become the terms that they are found by.
//!
//! Words are cut at the borders of Unicode (UAX #29), folded (compatibility forms, case, accents of
//! alphabets that are read without them), and stemmed as those of one [`Language`] (Snowball), which
//! is before accents are folded that its stemmer knows. Scripts that are
//! written without spaces have no borders between words: their characters become overlapping pairs,
//! as in Lucene's CJK analysis, and the last of a run a term of its own, so that every character
//! begins a term and one alone is found as a prefix. Signs that are no letters are not terms, but for
//! emoji.
//!
//! Queries are analysed as texts are: two texts that differ only in what is folded have equal terms,
//! but for accents that are letters of the language, where another stem is found without them.

mod fold;
mod language;
mod stop_words;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rust_stemmers::Stemmer;
use unicode_normalization::char::is_combining_mark;
use unicode_segmentation::UnicodeSegmentation;

pub use language::Language;

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
    /// The word as it is written, folded but not stemmed; the term where that is no word's stem.
    pub form: &'a str,
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
    language: Language,
    stemmer: Option<Stemmer>,
    /// Where short words are among `cached`.
    places: HashMap<Box<str>, usize>,
    cached: Vec<Cached>,
    term: String,
    form: String,
    /// A word as the stemmer wants it.
    spelled: String,
}

/// What a word was analysed as.
struct Cached {
    term: Box<str>,
    /// Where it is not the term.
    form: Option<Box<str>>,
    stop: bool,
}

/// What a word is analysed as: see [`Token`].
struct Word<'a> {
    term: &'a str,
    form: &'a str,
    stop: bool,
}

impl fmt::Debug for Analyzer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Analyzer")
            .field("language", &self.language)
            .field("cached", &self.cached.len())
            .finish_non_exhaustive()
    }
}

impl Analyzer {
    /// For texts of one language.
    pub fn new(language: Language) -> Self {
        Self {
            language,
            stemmer: language.stemmer().map(Stemmer::create),
            places: HashMap::new(),
            cached: Vec::new(),
            term: String::new(),
            form: String::new(),
            spelled: String::new(),
        }
    }

    /// The language of its texts.
    pub fn language(&self) -> Language {
        self.language
    }

    /// Gives the terms of a text in order. O(bytes).
    pub fn tokens(&mut self, text: &str, mut each: impl FnMut(Token<'_>)) {
        let mut position = 0;
        if text.is_ascii() {
            // Most texts are, and their borders are found several times as fast.
            for (start, word) in text.unicode_word_indices() {
                let bare = self.language.bare(word);
                let bytes = start + bare.start..start + bare.end;
                let Word { term, form, stop } = self.word(&word[bare]);
                each(Token { term, form, position, bytes, stop, kind: Kind::Word });
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
                    let alone = parted(part);
                    bytes = bytes.start + alone.start..bytes.start + alone.end;
                }
                let part = &text[bytes.clone()];
                if !part.chars().any(|letter| letter.is_alphanumeric() || fold::is_emoji(letter)) {
                    continue;
                }
                let bare = self.language.bare(part);
                bytes = bytes.start + bare.start..bytes.start + bare.end;
                let Word { term, form, stop } = self.word(&part[bare]);
                if !term.is_empty() {
                    each(Token { term, form, position, bytes, stop, kind: Kind::Word });
                    position += 1;
                }
            }
        }
        self.end_run(text, &mut run, &mut position, &mut each);
    }

    /// The term of a word, as a query for words that begin so has it: folded, not stemmed.
    pub fn prefix(&mut self, word: &str) -> String {
        self.spelled.clear();
        fold::spell(word, self.language, &mut self.spelled);
        let mut folded = String::new();
        fold::fold(&self.spelled, &mut folded);
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
            let term = &self.term;
            each(Token { term, form: term, position: *position, bytes, stop: false, kind });
            *position += 1;
        }
        run.clear();
    }

    /// What a word is analysed as.
    fn word(&mut self, word: &str) -> Word<'_> {
        let cached = word.len() <= CACHED_WORD_BYTES_MAX;
        if let Some(place) = self.places.get(word).filter(|_place| cached) {
            let Cached { term, form, stop } = &self.cached[*place];
            return Word { term, form: form.as_deref().unwrap_or(term), stop: *stop };
        }
        self.spelled.clear();
        fold::spell(word, self.language, &mut self.spelled);
        let stop = stop_words::is_stop_word(&self.spelled, self.language);
        self.form.clear();
        fold::fold(&self.spelled, &mut self.form);
        self.term.clear();
        if let Some(stemmer) = &self.stemmer
            && is_stemmed(&self.spelled, self.language)
            && let Some(stem) = stem(stemmer, &self.spelled)
        {
            // A stemmer may leave letters with marks.
            fold::fold(&stem, &mut self.term);
        }
        if self.term.is_empty() {
            self.term.push_str(&self.form);
        }
        cut(&mut self.term);
        cut(&mut self.form);
        if cached {
            if self.cached.len() >= CACHED_WORDS_MAX {
                self.places.clear();
                self.cached.clear();
            }
            self.places.insert(word.into(), self.cached.len());
            let form = (self.form != self.term).then(|| self.form.as_str().into());
            self.cached.push(Cached { term: self.term.as_str().into(), form, stop });
        }
        Word { term: &self.term, form: &self.form, stop }
    }
}

/// The words of a text in order, folded and whole, whatever their language: as Unicode divides them, with
/// emoji among them. O(bytes).
pub fn folded_words(text: &str) -> impl Iterator<Item = String> + '_ {
    let says = |letter: char| letter.is_alphanumeric() || fold::is_emoji(letter);
    text.split_word_bounds().filter(move |word| word.chars().any(says)).filter_map(|word| {
        let mut folded = String::with_capacity(word.len());
        fold::fold(word, &mut folded);
        // Of marks alone nothing is left.
        Some(folded).filter(|folded| !folded.is_empty())
    })
}

/// The stem of a word; `None` where the stemmer panics. That of Greek does, on real words of its
/// language; one such word must not take everything else that its passage says out of the index.
fn stem<'word>(stemmer: &Stemmer, word: &'word str) -> Option<Cow<'word, str>> {
    catch_unwind(AssertUnwindSafe(|| stemmer.stem(word))).ok()
}

/// Whether a word is one of letters and apostrophes, and of a length that words have.
fn is_stemmed(word: &str, language: Language) -> bool {
    if language == Language::English {
        return word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'\'');
    }
    let is_letter =
        |letter: char| letter.is_alphabetic() || is_combining_mark(letter) || letter == '\'';
    word.len() <= TERM_BYTES_MAX && word.chars().all(is_letter)
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

/// A part of a word without what joined it to a part of another script, and the marks of that.
fn parted(part: &str) -> Range<usize> {
    let is_joint = |letter| fold::is_joint(letter) || is_combining_mark(letter);
    let kept = part.trim_start_matches(is_joint);
    let letters = kept.trim_end_matches(is_joint).len();
    let marks = kept[letters..].len() - kept[letters..].trim_start_matches(is_combining_mark).len();
    let start = part.len() - kept.len();
    start..start + letters + marks
}

/// Cuts a term that is too long.
fn cut(term: &mut String) {
    if term.len() > TERM_BYTES_MAX {
        term.truncate(term.floor_char_boundary(TERM_BYTES_MAX));
    }
}
