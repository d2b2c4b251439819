//! Which passages a search, a list, a count, a delete or a standing query is about.
//!
//! A filter is read from JSON in one of the shapes that users know (see [`Filter::read`]) and asked
//! in one of two ways that give the same answer: of one passage ([`Filter::passes`]), or of a
//! segment's [`Columns`](arrwdb_index::Columns), which costs what it finds instead of what there is.
//!
//! The values of a field are those of the passage's and its document's own fields and of the custom
//! metadata of both. Objects are looked into by paths (`author.name`), lists by their members. A test
//! holds where one of the values passes it; what says *not* holds where none does.

mod columns;
mod matching;
mod passage;
mod passes;
mod read;
mod select;
#[cfg(test)]
mod tests;
mod value;

use std::sync::Arc;

use arrwdb_index::analysis::folded_words;
use serde_json::Value;

pub(crate) use columns::{check_column_name, columns_named, columns_of, is_left_out};
pub use matching::{FieldValues, QueryWords};
pub use passage::Passage;
pub(crate) use select::Asked;
pub(crate) use value::{json_of, names_a_time};

use crate::limits::{STANDING_FILTER_BYTES_MAX, STANDING_FILTER_CONDITIONS_MAX};
use value::Operand;

/// What a condition takes beside its texts, about.
const CONDITION_BYTES: usize = 192;

/// What passages have to be like; none lets everything pass. A copy shares everything.
#[derive(Debug, Clone, Default)]
pub struct Filter(Option<Arc<Parsed>>);

#[derive(Debug)]
struct Parsed {
    root: Node,
    /// As it was written.
    source: Value,
    /// Bytes of that.
    source_bytes: usize,
    conditions: usize,
}

/// Why JSON is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct FilterFault {
    /// Where, as a JSON Pointer within the filter.
    pub pointer: String,
    /// What is wrong, and what would be right.
    pub detail: String,
}

/// A part of a filter.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Field(Box<str>, Test),
}

/// What one of a field's values has to be like.
#[derive(Debug, Clone, PartialEq)]
enum Test {
    /// There is one, be it null, an object or a list.
    Exists,
    /// One of these; null is also what is missing.
    OneOf(Vec<Operand>),
    /// Of the operand's kind, and on this side of it.
    Compare(Side, Operand),
    /// A text that has this one in it, or a list that has this member.
    Contains(Operand),
    /// A text that begins so.
    Prefix(Box<str>),
    /// A text that has all of these words, which are in lower case.
    Words(Vec<Box<str>>),
}

/// A side of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Filter {
    /// Whether everything passes.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// How many conditions it has.
    pub fn conditions(&self) -> usize {
        self.0.as_ref().map_or(0, |parsed| parsed.conditions)
    }

    /// What it takes in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |it| it.conditions * CONDITION_BYTES + 2 * it.source_bytes)
    }

    /// Refuses a filter that is too much for a standing query, of which there are many: every
    /// passage that is near enough is asked.
    pub fn check_standing(&self) -> Result<(), FilterFault> {
        let fault = |detail| Err(FilterFault { pointer: String::new(), detail });
        if self.conditions() > STANDING_FILTER_CONDITIONS_MAX {
            return fault(format!(
                "has {} conditions; a standing query's limit is {STANDING_FILTER_CONDITIONS_MAX}",
                self.conditions()
            ));
        }
        let bytes = self.0.as_ref().map_or(0, |parsed| parsed.source_bytes);
        if bytes > STANDING_FILTER_BYTES_MAX {
            return fault(format!(
                "takes {bytes} bytes; a standing query's limit is {STANDING_FILTER_BYTES_MAX}"
            ));
        }
        Ok(())
    }

    /// As it was written; an empty object for none.
    pub fn source(&self) -> Value {
        self.0
            .as_ref()
            .map_or_else(|| Value::Object(serde_json::Map::default()), |it| it.source.clone())
    }

    /// Whether a passage passes. O(conditions * (fields of the passage + length of texts)).
    pub fn passes(&self, passage: &Passage<'_>) -> bool {
        self.0
            .as_ref()
            .is_none_or(|parsed| passes::passes(&parsed.root, &passes::ReadPassage::of(passage)))
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_ref().map(|it| &it.source) == other.0.as_ref().map(|it| &it.source)
    }
}

/// The words of a text as the keyword search folds them, not stemmed: as Unicode divides them (UAX 29),
/// and emoji.
fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    folded_words(text)
}
