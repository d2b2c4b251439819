//! Keyword search: an inverted index over the terms of rows, ranked by BM25.
//!
//! A segment's [`Postings`] are made once from its rows' texts and never changed. What a row scores
//! depends on counts of the whole collection besides, so those are asked for first (how many live
//! rows have each term, how long they are) and given with the query: merging segments changes no
//! result. Scores are whole numbers, so that they do not depend on the order in which terms are
//! added up.
//!
//! - `query`: what is asked for, read from a line of text
//! - `postings`: the structure, an `inverted` index
//! - `build`: how it is made
//! - `forms`: which words, as they are written, a term stands for
//! - `matching`: the rows that have all of a clause's terms, in order where it is a phrase
//! - `bm25`, `search`: the best rows
//! - `highlight`: where a text has what was asked for

mod bm25;
mod build;
mod forms;
mod highlight;
mod matching;
mod postings;
mod query;
mod search;
#[cfg(test)]
mod tests;

pub use bm25::{Bm25, Collection, SCORE_UNIT, Scorer};
pub use build::PostingsBuilder;
pub use highlight::{Highlight, fragments, highlights};
pub use matching::{Clause, PhraseTerm, Prefix, matching, phrase_list, side_by_side};
pub use postings::Postings;
pub use query::{
    KeywordQuery, Operator, PAIRS_MAX, PHRASE_TERMS_MAX, PREFIXES_MAX, QueryError, TERMS_MAX, Term,
    What,
};
pub use search::{BestRows, Scored, Wanted, score_rows, search};

pub use crate::inverted::{List, OwnedList, Visited};
