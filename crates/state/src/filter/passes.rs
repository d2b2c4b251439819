//! Whether one passage passes: as it is read, without anything prepared.

use std::cell::OnceCell;
use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::passage::{FieldName, Passage, Scalar, named, time_of};
use super::value::Operand;
use super::{Node, Side, Test, words};

/// A passage with what is made of it once, however many conditions ask for it.
pub(super) struct ReadPassage<'a> {
    passage: &'a Passage<'a>,
    /// The words of its text.
    words: OnceCell<BTreeSet<String>>,
}

impl<'a> ReadPassage<'a> {
    pub(super) fn of(passage: &'a Passage<'a>) -> Self {
        Self { passage, words: OnceCell::new() }
    }

    /// Whether its text has all of these words.
    fn has_words(&self, these: &[Box<str>]) -> bool {
        let words = self.words.get_or_init(|| words(&self.passage.chunk.text).collect());
        these.iter().all(|word| words.contains(&**word))
    }
}

pub(super) fn passes(node: &Node, read: &ReadPassage<'_>) -> bool {
    match node {
        Node::All(nodes) => nodes.iter().all(|node| passes(node, read)),
        Node::Any(nodes) => nodes.iter().any(|node| passes(node, read)),
        Node::Not(node) => !passes(node, read),
        Node::Field(name, test) => {
            let mut exists = false;
            let holds = named(name).any(|field| match (field, test) {
                (FieldName::Own("text"), Test::Words(these)) => read.has_words(these),
                _other => read.passage.values(field, &mut |scalar, listed| {
                    exists = true;
                    holds(test, scalar, listed)
                }),
            });
            let missing = || matches!(test, Test::OneOf(these) if these.contains(&Operand::Null));
            holds || (!exists && missing())
        }
    }
}

/// Whether a value passes a test.
pub(super) fn holds(test: &Test, scalar: Scalar<'_>, listed: bool) -> bool {
    match test {
        Test::Exists => true,
        Test::OneOf(these) => these.iter().any(|operand| equal(scalar, operand)),
        Test::Compare(side, operand) => {
            compare(scalar, operand).is_some_and(|order| side.allows(order))
        }
        Test::Contains(member) if listed => equal(scalar, member),
        Test::Contains(part) => match (scalar, part) {
            (Scalar::Text(text), Operand::Text(part, _)) => text.contains(&**part),
            _other => false,
        },
        Test::Prefix(prefix) => {
            matches!(scalar, Scalar::Text(text) if text.starts_with(&**prefix))
        }
        Test::Words(these) => matches!(scalar, Scalar::Text(text) if has_words(text, these)),
    }
}

fn equal(scalar: Scalar<'_>, operand: &Operand) -> bool {
    match (scalar, operand) {
        (Scalar::Null, Operand::Null) => true,
        (Scalar::Bool(value), Operand::Bool(wanted)) => value == *wanted,
        (Scalar::Number(value), Operand::Number(wanted)) => value == *wanted,
        (scalar, Operand::Text(_, Some(wanted))) => time_of(scalar) == Some(*wanted),
        (Scalar::Text(value), Operand::Text(wanted, None)) => *value == **wanted,
        _other => false,
    }
}

/// How a value is to an operand of its kind.
fn compare(scalar: Scalar<'_>, operand: &Operand) -> Option<Ordering> {
    match (scalar, operand) {
        (Scalar::Bool(value), Operand::Bool(wanted)) => Some(value.cmp(wanted)),
        (Scalar::Number(value), Operand::Number(wanted)) => Some(value.cmp(wanted)),
        (scalar, Operand::Text(_, Some(wanted))) => Some(time_of(scalar)?.cmp(wanted)),
        (Scalar::Text(value), Operand::Text(wanted, None)) => Some(value.cmp(wanted)),
        _other => None,
    }
}

impl Side {
    pub(super) fn allows(self, order: Ordering) -> bool {
        match self {
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

/// Whether a text has all of these words.
pub(super) fn has_words(text: &str, these: &[Box<str>]) -> bool {
    let mut missing: Vec<&str> = these.iter().map(|word| &**word).collect();
    words(text).any(|word| {
        missing.retain(|wanted| *wanted != word);
        missing.is_empty()
    })
}
