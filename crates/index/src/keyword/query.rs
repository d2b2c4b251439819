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
//! than in front of a word or a phrase, is no more than a border between words.

use super::matching::{Clause, PhraseTerm, Prefix};
use crate::analysis::{Analyzer, Kind, Language};

/// Terms that a query may have, those that are asked for several times counted as often.
pub const TERMS_MAX: usize = 1024;

/// Beginnings of words (`begin*`) that a query may have: each costs as much as all words that begin so.
pub const PREFIXES_MAX: usize = 32;

/// Terms that a phrase may have.
pub const PHRASE_TERMS_MAX: usize = 64;

/// What quotation marks are written as.
const QUOTES: [char; 5] = ['\u{201c}', '\u{201d}', '\u{201e}', '\u{ab}', '\u{bb}'];

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
    /// Terms one behind the other; two at least.
    Phrase(Vec<PhraseTerm>),
}

impl What {
    /// What a row has that has it.
    fn clause(self) -> Clause {
        match self {
            Self::Term(term) => Clause::Phrase(vec![PhraseTerm { at: 0, term, begin: None }]),
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
    /// What its words were taken for: they are looked for in texts that were taken for the same.
    pub language: Language,
    /// What rows are ranked by; a row that has none is not found. Each once.
    pub terms: Vec<Term>,
    /// What a row has to have.
    pub required: Vec<Clause>,
    /// What it must not have.
    pub excluded: Vec<Clause>,
    /// The words themselves, without signs and without what is excluded.
    pub text: String,
    /// Terms that stand side by side, none of them a stop word: a row in which they do so as well is
    /// worth more. Each once, at most [`PAIRS_MAX`].
    pub pairs: Vec<(Box<str>, Box<str>)>,
}

/// Why a text is no query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// There are too many words.
    #[error("the query has more than {TERMS_MAX} words; ask for fewer")]
    Words,
    /// There are too many beginnings of words.
    #[error("the query has more than {PREFIXES_MAX} beginnings of words (`begin*`); ask for fewer")]
    Prefixes,
    /// There are too many words in one phrase.
    #[error("a phrase of the query has more than {PHRASE_TERMS_MAX} words; ask for fewer")]
    Phrase,
}

impl KeywordQuery {
    /// Reads a line of text of a language. O(its bytes).
    pub fn read(text: &str, operator: Operator, language: Language) -> Result<Self, QueryError> {
        let text = text.replace(QUOTES, "\"");
        let mut reading = Reading::of(language);
        let (mut rest, mut begins) = (text.as_str(), true);
        while let Some(first) = rest.chars().next() {
            let after = &rest[first.len_utf8()..];
            if first.is_whitespace() {
                (rest, begins) = (after, true);
                continue;
            }
            let wish = if begins { wish(first, after) } else { Wish::Ranked };
            if wish != Wish::Ranked {
                rest = after;
            }
            begins = false;
            if let Some((phrase, after)) = quoted(rest) {
                reading.note_text(phrase, wish);
                reading.phrase(phrase, wish)?;
                rest = after;
                continue;
            }
            let end = |letter: char| letter.is_whitespace() || letter == '"';
            let word = rest.split(end).next().unwrap_or(rest);
            reading.note_text(word, wish);
            reading.word(word, wish)?;
            // A mark that is not closed is passed over.
            let passed = if word.is_empty() { first.len_utf8() } else { word.len() };
            rest = &rest[passed..];
        }
        reading.finish(operator)
    }

    /// Whether rows have to have something, or must not.
    pub fn has_clauses(&self) -> bool {
        !(self.required.is_empty() && self.excluded.is_empty())
    }
}

/// What is between quotation marks, if the text begins with one that is closed, and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('"')?.split_once('"')
}

/// What a sign in front of a word means: nothing, unless a word or a phrase follows.
fn wish(sign: char, after: &str) -> Wish {
    let quote = after.starts_with('"');
    match sign {
        '+' if quote || after.starts_with(char::is_alphanumeric) => Wish::Required,
        // A number may be negative.
        '-' if quote || after.starts_with(char::is_alphabetic) => Wish::Excluded,
        _ => Wish::Ranked,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Ranked,
    Required,
    Excluded,
}

struct Reading {
    analyzer: Analyzer,
    query: KeywordQuery,
    /// What ranks, and whether it is a stop word.
    ranked: Vec<(What, bool)>,
    /// Terms that were asked for or excluded.
    terms: usize,
    /// Beginnings of words among them.
    prefixes: usize,
    /// The term before, where it is a plain one of text that goes on.
    before: Option<Box<str>>,
}

impl Reading {
    fn of(language: Language) -> Self {
        Self {
            analyzer: Analyzer::new(language),
            query: KeywordQuery { language, ..KeywordQuery::default() },
            ranked: Vec::new(),
            terms: 0,
            prefixes: 0,
            before: None,
        }
    }

    fn word(&mut self, word: &str, wish: Wish) -> Result<(), QueryError> {
        let begins = word.strip_suffix('*').filter(|begin| begin.ends_with(char::is_alphanumeric));
        let mut terms = self.terms_of(begins.unwrap_or(word));
        if let (Some(begin), Some(last)) = (begins, terms.last_mut())
            && last.word
        {
            last.begin = Some(self.analyzer.prefix(&begin[last.start..]).into());
            last.stop = false;
            self.prefixes += 1;
        }
        if wish != Wish::Ranked {
            let clause = clause_of(&terms)?;
            let clauses = match wish {
                Wish::Ranked | Wish::Required => &mut self.query.required,
                Wish::Excluded => &mut self.query.excluded,
            };
            clauses.extend(clause);
        }
        for found in terms {
            self.note_pair(&found, wish);
            if wish != Wish::Excluded {
                self.ranked.push((found.wanted(), found.stop));
            }
        }
        Ok(())
    }

    fn note_text(&mut self, text: &str, wish: Wish) {
        if wish != Wish::Excluded && !text.is_empty() {
            let space = if self.query.text.is_empty() { "" } else { " " };
            self.query.text.extend([space, text]);
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

    fn phrase(&mut self, text: &str, wish: Wish) -> Result<(), QueryError> {
        // It ranks as a whole.
        self.before = None;
        let terms = self.terms_of(text);
        let clause = clause_of(&terms)?;
        match wish {
            Wish::Ranked => {}
            Wish::Required => self.query.required.extend(clause.clone()),
            Wish::Excluded => self.query.excluded.extend(clause.clone()),
        }
        if wish != Wish::Excluded {
            self.ranked.extend(terms.iter().map(|found| (found.wanted(), found.stop)));
            if let (Some(Clause::Phrase(terms)), 2..) = (clause, terms.len()) {
                self.ranked.push((What::Phrase(terms), false));
            }
        }
        Ok(())
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
        let Self { mut query, mut ranked, terms, prefixes, .. } = self;
        if terms > TERMS_MAX {
            return Err(QueryError::Words);
        }
        if prefixes > PREFIXES_MAX {
            return Err(QueryError::Prefixes);
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

/// What a row has that has all of these terms, one behind the other.
fn clause_of(terms: &[Found]) -> Result<Option<Clause>, QueryError> {
    let Some(first) = terms.first() else { return Ok(None) };
    if terms.len() > PHRASE_TERMS_MAX {
        return Err(QueryError::Phrase);
    }
    if terms.len() == 1 {
        return Ok(Some(first.wanted().clause()));
    }
    let term = |found: &Found| PhraseTerm {
        at: found.position - first.position,
        term: found.term.clone(),
        begin: found.begin.clone(),
    };
    Ok(Some(Clause::Phrase(terms.iter().map(term).collect())))
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
