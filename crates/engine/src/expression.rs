//! Scores by an expression of the caller's: arithmetic over the signals of a candidate.
//!
//! Why ours and no crate's:
//! `docs/adr/0018-expressions-are-computed-by-a-machine-of-our-own.md`.
//!
//! An expression is read once into a list of steps of a stack machine, which has no jumps: computing it
//! takes as many steps as it has characters at most, whatever it says. Reading recurses as deep as parts
//! stand within each other, which is bounded too.
//!
//! ```text
//! or      = and ("||" and)*                     comparisons and logic give 1 or 0
//! and     = compare ("&&" compare)*
//! compare = sum (("<" | "<=" | ">" | ">=" | "==" | "!=") sum)*
//! sum     = product (("+" | "-") product)*
//! product = sign (("*" | "/" | "%") sign)*
//! sign    = ("-" | "+" | "!") sign | power
//! power   = part ("^" sign)?                    so that -x^2 is -(x^2), and 2^3^2 is 2^9
//! part    = number | name | "{" any name "}" | function "(" or ("," or)* ")" | "(" or ")"
//! ```

mod read;

use crate::scoring::{Evidence, Scorer};
use crate::weighted_sum::Preferences;

/// Characters of an expression.
pub const EXPRESSION_CHARS_MAX: usize = 1000;
/// Parts within each other: parentheses, functions, signs, powers.
pub const EXPRESSION_DEPTH_MAX: usize = 64;
/// Names of signals and fields, each of which is read of every candidate.
pub const EXPRESSION_NAMES_MAX: usize = 32;

/// A signal of a candidate, or a number in its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Similarity,
    Distance,
    Bm25,
    Recency,
    Position,
    Length,
    AgeDays,
    ChunkIndex,
    Chars,
    Field(Box<str>),
}

impl Name {
    fn of(name: &str) -> Self {
        match name {
            "similarity" => Self::Similarity,
            "distance" => Self::Distance,
            "bm25" => Self::Bm25,
            "recency" => Self::Recency,
            "position" => Self::Position,
            "length" => Self::Length,
            "age_days" => Self::AgeDays,
            "chunk_index" => Self::ChunkIndex,
            "chars" => Self::Chars,
            field => Self::Field(field.into()),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Similarity => "similarity",
            Self::Distance => "distance",
            Self::Bm25 => "bm25",
            Self::Recency => "recency",
            Self::Position => "position",
            Self::Length => "length",
            Self::AgeDays => "age_days",
            Self::ChunkIndex => "chunk_index",
            Self::Chars => "chars",
            Self::Field(field) => field,
        }
    }

    fn value(&self, evidence: &Evidence<'_>, preferences: &Preferences) -> f64 {
        match self {
            Self::Similarity => evidence.similarity,
            Self::Distance => evidence.distance,
            Self::Bm25 => evidence.bm25,
            Self::Recency => preferences.recency(evidence),
            Self::Position => preferences.position(evidence),
            Self::Length => preferences.length(evidence),
            Self::AgeDays => evidence.age_days as f64,
            Self::ChunkIndex => f64::from(evidence.passage.index),
            Self::Chars => evidence.chars() as f64,
            Self::Field(field) => preferences.number(field, evidence),
        }
    }
}

/// A step of the machine.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Puts a number on the stack.
    Number(f64),
    /// Puts the value of a name there.
    Name(usize),
    /// Replaces the last number.
    One(fn(f64) -> f64),
    /// Replaces the last two.
    Two(fn(f64, f64) -> f64),
    /// Replaces the last three by the second of them if the first is not 0, and by the third if it is.
    Choose,
}

/// An expression that was read.
#[derive(Debug, Clone)]
pub struct Expression {
    text: String,
    names: Vec<Name>,
    steps: Vec<Step>,
    preferences: Preferences,
}

impl Expression {
    /// Reads an expression; what is wrong with it, where it is none.
    pub fn read(text: &str, preferences: Preferences) -> Result<Self, String> {
        let chars = text.chars().count();
        if chars > EXPRESSION_CHARS_MAX {
            return Err(format!("has {chars} characters; the limit is {EXPRESSION_CHARS_MAX}"));
        }
        let (steps, names) = read::read(text)?;
        let names = names.into_iter().map(Name::of).collect();
        Ok(Self { text: text.to_owned(), names, steps, preferences })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its value; `values` are those of its names.
    fn compute(&self, values: &[f64]) -> f64 {
        // What is read always finds on the stack what it needs.
        let pop = |stack: &mut Vec<f64>| stack.pop().unwrap_or(f64::NAN);
        let mut stack: Vec<f64> = Vec::with_capacity(16);
        for step in &self.steps {
            let value = match step {
                Step::Number(number) => *number,
                Step::Name(place) => values.get(*place).copied().unwrap_or(f64::NAN),
                Step::One(function) => function(pop(&mut stack)),
                Step::Two(function) => {
                    let right = pop(&mut stack);
                    function(pop(&mut stack), right)
                }
                Step::Choose => {
                    let (no, yes) = (pop(&mut stack), pop(&mut stack));
                    if holds(pop(&mut stack)) { yes } else { no }
                }
            };
            stack.push(value);
        }
        pop(&mut stack)
    }
}

impl Scorer for Expression {
    fn score(&self, evidence: &Evidence<'_>) -> f64 {
        let values: Vec<f64> =
            self.names.iter().map(|name| name.value(evidence, &self.preferences)).collect();
        self.compute(&values)
    }

    fn signals(&self, evidence: &Evidence<'_>) -> Vec<(String, f64)> {
        let named = |name: &Name| (name.text().to_owned(), name.value(evidence, &self.preferences));
        self.names.iter().map(named).collect()
    }
}

/// Whether a condition holds: it is a number other than 0.
fn holds(condition: f64) -> bool {
    condition.abs() > 0.0
}

#[cfg(test)]
mod tests;
