//! What a passage's fields say to those who rank it: numbers, values that are there, words in common.
//! Fields are found by the names that filters find them by.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Test;
use super::passage::{Passage, Scalar, named};
use super::passes::holds;
use super::value::Operand;
use super::words;

/// Values that a field may have, one of which is enough.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldValues(Test);

impl FieldValues {
    /// A scalar, or a list of them; `None` for what has an object or a list within.
    pub fn read(value: &Value) -> Option<Self> {
        let operands = match value {
            Value::Array(members) => members.iter().map(Operand::of).collect(),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_) => Operand::of(value).map(|operand| vec![operand]),
        };
        operands.map(|operands| Self(Test::OneOf(operands)))
    }
}

/// The words of a query, to be found in fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryWords(BTreeSet<String>);

impl QueryWords {
    /// The words of a text, as filters divide it (UAX 29), in lower case.
    pub fn of(text: &str) -> Self {
        Self(words(text).collect())
    }

    /// The part of a text's words that are among these; 0 for a text without words.
    fn share(&self, text: &str) -> f64 {
        let (mut all, mut known) = (0_u32, 0_u32);
        for word in words(text) {
            all += 1;
            known += u32::from(self.0.contains(&word));
        }
        if all == 0 { 0.0 } else { f64::from(known) / f64::from(all) }
    }
}

impl Passage<'_> {
    /// The first number that a field has.
    pub fn number(&self, field: &str) -> Option<f64> {
        let mut found = None;
        self.visit(field, &mut |scalar| {
            if let Scalar::Number(number) = scalar {
                found = Some(number.as_f64());
            }
            found.is_some()
        });
        found
    }

    /// Whether a field has one of these values.
    pub fn has(&self, field: &str, values: &FieldValues) -> bool {
        named(field)
            .any(|name| self.values(name, &mut |scalar, listed| holds(&values.0, scalar, listed)))
    }

    /// The part of a field's words that are words of a query, from 0 to 1; of several values the best.
    pub fn share_of_words(&self, field: &str, query: &QueryWords) -> f64 {
        let mut best = 0.0_f64;
        self.visit(field, &mut |scalar| {
            let share = match scalar {
                Scalar::Text(text) => query.share(text),
                Scalar::Number(number) => query.share(&number.as_f64().to_string()),
                Scalar::Null | Scalar::Composite | Scalar::Bool(_) | Scalar::Time(_) => 0.0,
            };
            best = best.max(share);
            best >= 1.0
        });
        best
    }

    fn visit(&self, field: &str, visit: &mut dyn FnMut(Scalar<'_>) -> bool) {
        for name in named(field) {
            if self.values(name, &mut |scalar, _listed| visit(scalar)) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Chunk, Custom, DocumentMetadata};
    use crate::ids::{ChunkId, DocumentId, Timestamp};
    use serde_json::json;

    fn custom(value: &Value) -> Custom {
        value.as_object().unwrap().clone()
    }

    fn check(test: impl Fn(&Passage<'_>)) {
        let created_at = Timestamp::from_micros(0);
        let document = DocumentMetadata {
            title: "Learning to rank".into(),
            author: Some("Ada Lovelace".into()),
            document_type: "paper".into(),
            source_url: None,
            tags: vec!["machine learning".into(), "search".into()],
            custom: custom(&json!({"year": 2020, "stars": {"mean": 4.5}, "open": true})),
            created_at,
        };
        let chunk = Chunk {
            id: ChunkId::from_bytes([1; 16]),
            text: "text".into(),
            embedding: Vec::new(),
            created_at,
            page_number: Some(7),
            custom: custom(&json!({"weight": -1.5, "similarity": 3})),
        };
        let document_id = DocumentId::from_bytes([2; 16]);
        test(&Passage { document_id, document: &document, chunk: &chunk, index: 4 });
    }

    #[test]
    fn numbers_are_found_by_the_names_of_filters() {
        check(|passage| {
            for (field, number) in [
                ("year", Some(2020.0)),
                ("stars.mean", Some(4.5)),
                ("weight", Some(-1.5)),
                ("custom.similarity", Some(3.0)),
                ("page_number", Some(7.0)),
                ("chunk_index", Some(4.0)),
                ("open", None),
                ("title", None),
                ("absent", None),
            ] {
                assert_eq!(passage.number(field), number, "{field}");
            }
        });
    }

    #[test]
    fn values_match_by_equality_or_by_a_member_in_common() {
        check(|passage| {
            for (field, value, expect) in [
                ("year", json!(2020), true),
                ("year", json!(2020.0), true),
                ("year", json!("2020"), false),
                ("author", json!("Ada Lovelace"), true),
                ("author", json!("Ada"), false),
                ("tags", json!("search"), true),
                ("tags", json!(["maths", "search"]), true),
                ("tags", json!(["maths"]), false),
                ("tags", json!([]), false),
                ("open", json!([true]), true),
                ("absent", json!(1), false),
            ] {
                let values = FieldValues::read(&value).unwrap();
                assert_eq!(passage.has(field, &values), expect, "{field} {value}");
            }
        });
        assert_eq!(FieldValues::read(&json!({"a": 1})), None);
        assert_eq!(FieldValues::read(&json!([[1]])), None);
    }

    #[test]
    fn words_are_counted_of_the_field_and_of_the_best_tag() {
        check(|passage| {
            let query = QueryWords::of("RANK by machine learning in 2020, ada");
            for (field, expect) in [
                ("title", 2.0 / 3.0),
                ("author", 0.5),
                ("tags", 1.0),
                ("year", 1.0),
                ("document_type", 0.0),
                ("source_url", 0.0),
                ("absent", 0.0),
            ] {
                let share = passage.share_of_words(field, &query);
                assert!((share - expect).abs() < 1e-12, "{field}: {share}");
            }
            assert!(passage.share_of_words("title", &QueryWords::default()).abs() < 1e-12);
        });
    }
}
