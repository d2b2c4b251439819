//! What is asked for, in a line of text.
//!
//! ```text
//! words              rows that have one, ranked
//! "some words"       words, and those rows above others that have them one behind the other
//! +word +"a phrase"  rows that have it
//! -word -"a phrase"  rows that do not
//! begin*             rows that have a word that begins so
//! ```
//!
//! No text is refused for how it is written: a quotation mark that is not closed, or a sign elsewhere
//! than in front of a word, is no more than a border between words.

use super::matching::{Clause, Prefix};
use crate::analysis::{Analyzer, Kind};

/// Terms that a query may have, those that are asked for several times counted as often.
pub const TERMS_MAX: usize = 1024;

/// Pairs of terms side by side that are looked for: the first of a query.
pub const PAIRS_MAX: usize = 64;

/// Whether words need not or must all be there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Operator {
    /// One is enough.
    #[default]
    Or,
    /// All of them.
    And,
}

/// A term, all that begin in a way, or some in a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// This one.
    Term(Box<str>),
    /// All of these, as if they were one.
    Prefix(Prefix),
    /// Terms with their places, ascending; two at least.
    Phrase(Vec<(Box<str>, u32)>),
}

impl What {
    /// What a row has that has it.
    fn clause(self) -> Clause {
        match self {
            Self::Term(term) => Clause::Phrase(vec![(term, 0)]),
            Self::Prefix(prefix) => Clause::Prefix(prefix),
            Self::Phrase(terms) => Clause::Phrase(terms),
        }
    }
}

/// What ranks rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// What a row has.
    pub what: What,
    /// How often it is asked for, from 1.
    pub count: u32,
}

/// A query, analysed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeywordQuery {
    /// What rows are ranked by; a row that has none is not found. Each once.
    pub terms: Vec<Term>,
    /// What a row has to have.
    pub required: Vec<Clause>,
    /// What it must not have.
    pub excluded: Vec<Clause>,
    /// Terms that stand side by side, none of them a stop word: a row in which they do so as well is
    /// worth more. Each once, at most [`PAIRS_MAX`].
    pub pairs: Vec<(Box<str>, Box<str>)>,
}

/// Why a text is no query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the query has more than {TERMS_MAX} words; ask for fewer")]
pub struct QueryError;

impl KeywordQuery {
    /// Reads a line of text. O(its bytes).
    pub fn read(text: &str, operator: Operator) -> Result<Self, QueryError> {
        let mut reading = Reading::default();
        let mut rest = text;
        let mut after_space = true;
        while let Some(sign) = rest.chars().next() {
            let start = rest;
            let wish = match sign {
                '+' if after_space => Wish::Required,
                '-' if after_space => Wish::Excluded,
                _ => Wish::Ranked,
            };
            if wish != Wish::Ranked {
                rest = &rest[1..];
            }
            if let Some((phrase, after)) = quoted(rest) {
                reading.phrase(phrase, wish);
                rest = after;
                after_space = true;
                continue;
            }
            let end = rest.find(|letter: char| letter.is_whitespace() || letter == '"');
            let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
            reading.word(word, wish);
            let skipped = after.chars().next().map_or(0, char::len_utf8);
            after_space = true;
            rest = &after[skipped..];
            debug_assert!(rest.len() < start.len(), "it comes to an end");
        }
        reading.finish(operator)
    }

    /// Whether no row can be found.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }
}

/// What is between quotation marks, if the text begins with one that is closed, and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('"')?.split_once('"')
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Ranked,
    Required,
    Excluded,
}

#[derive(Default)]
struct Reading {
    analyzer: Analyzer,
    query: KeywordQuery,
    /// What ranks, and whether it is a stop word.
    ranked: Vec<(What, bool)>,
    /// Terms that were asked for or excluded.
    terms: usize,
    /// The term before, where it is a plain one of text that goes on.
    before: Option<Box<str>>,
}

impl Reading {
    fn word(&mut self, word: &str, wish: Wish) {
        let begins = word.strip_suffix('*').filter(|begin| begin.ends_with(char::is_alphanumeric));
        let mut terms = self.terms_of(begins.unwrap_or(word));
        if let (Some(begin), Some(last)) = (begins, terms.last_mut())
            && last.word
        {
            last.begin = Some(Analyzer::prefix(&begin[last.start..]).into());
            last.stop = false;
        }
        for found in terms {
            self.note_pair(&found, wish);
            let wanted = found.wanted();
            match wish {
                Wish::Ranked => {}
                Wish::Required => self.query.required.push(wanted.clone().clause()),
                Wish::Excluded => self.query.excluded.push(wanted.clone().clause()),
            }
            if wish != Wish::Excluded {
                self.ranked.push((wanted, found.stop));
            }
        }
    }

    /// Notes which terms stand side by side.
    fn note_pair(&mut self, found: &Found, wish: Wish) {
        let plain = wish != Wish::Excluded && !found.stop && found.begin.is_none();
        let here = plain.then(|| found.term.clone());
        let before = std::mem::replace(&mut self.before, here.clone());
        if let (Some(before), Some(here)) = (before, here)
            && self.query.pairs.len() < PAIRS_MAX
        {
            let pair = (before, here);
            if !self.query.pairs.contains(&pair) {
                self.query.pairs.push(pair);
            }
        }
    }

    fn phrase(&mut self, text: &str, wish: Wish) {
        // It ranks as a whole.
        self.before = None;
        let terms = self.terms_of(text);
        let phrase = match terms.as_slice() {
            [] => return,
            [found] => found.wanted(),
            [first, ..] => {
                let place = |found: &Found| (found.term.clone(), found.position - first.position);
                What::Phrase(terms.iter().map(place).collect())
            }
        };
        match wish {
            Wish::Ranked => {}
            Wish::Required => self.query.required.push(phrase.clone().clause()),
            Wish::Excluded => self.query.excluded.push(phrase.clone().clause()),
        }
        if wish != Wish::Excluded {
            self.ranked.extend(terms.iter().map(|found| (found.wanted(), found.stop)));
            if terms.len() > 1 {
                self.ranked.push((phrase, false));
            }
        }
    }

    /// The terms that a text is searched by.
    fn terms_of(&mut self, text: &str) -> Vec<Found> {
        let mut terms = Vec::new();
        self.analyzer.tokens(text, |token| {
            // The last character of a run is in the pair before it.
            if token.kind == Kind::End {
                return;
            }
            let term: Box<str> = token.term.into();
            terms.push(Found {
                begin: (token.kind == Kind::Alone).then(|| term.clone()),
                term,
                word: token.kind == Kind::Word,
                position: token.position,
                start: token.bytes.start,
                stop: token.stop,
            });
        });
        self.terms += terms.len();
        terms
    }

    fn finish(self, operator: Operator) -> Result<KeywordQuery, QueryError> {
        let Self { mut query, mut ranked, terms, .. } = self;
        if terms > TERMS_MAX {
            return Err(QueryError);
        }
        // Where there is nothing else, they are what is meant.
        if ranked.iter().any(|(_wanted, stop)| !stop) {
            ranked.retain(|(_wanted, stop)| !stop);
        }
        ranked.sort();
        for same in ranked.chunk_by(|a, b| a.0 == b.0) {
            let what = same[0].0.clone();
            if operator == Operator::And {
                query.required.push(what.clone().clause());
            }
            let count = u32::try_from(same.len()).unwrap_or(u32::MAX);
            query.terms.push(Term { what, count });
        }
        for clauses in [&mut query.required, &mut query.excluded] {
            clauses.sort();
            clauses.dedup();
        }
        Ok(query)
    }
}

/// A term of the text.
#[derive(Debug, Clone)]
struct Found {
    term: Box<str>,
    /// How terms begin that count as well.
    begin: Option<Box<str>>,
    /// Whether it is of a script with spaces.
    word: bool,
    position: u32,
    /// Where its word begins.
    start: usize,
    stop: bool,
}

impl Found {
    fn wanted(&self) -> What {
        let term = self.term.clone();
        match self.begin.clone() {
            Some(begin) => What::Prefix(Prefix { begin, term }),
            None => What::Term(term),
        }
    }
}
