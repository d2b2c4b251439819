//! Which passages a standing query is about: equality of metadata.

use serde_json::Value;

use crate::document::{Chunk, Custom, DocumentMetadata};
use crate::limits::{FILTER_FIELDS_MAX, FILTER_KEY_CHARS_MAX, FILTER_VALUE_CHARS_MAX};

/// Fields and the values that they must have, all of them. A name is looked for among the custom
/// metadata of the chunk, then `page_number`, then `title`, `author`, `document_type`, `source_url`
/// and `tags` of the document, then its custom metadata; a list has the value as a member.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetadataFilter(Custom);

/// Why fields and values are no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterFault {
    /// Too many fields.
    #[error("must have at most {FILTER_FIELDS_MAX} fields; it has {fields}")]
    Fields {
        /// How many there are.
        fields: usize,
    },
    /// A name that is too long or empty.
    #[error("a field's name must have 1 to {FILTER_KEY_CHARS_MAX} characters; one has {chars}")]
    Key {
        /// How many it has.
        chars: usize,
    },
    /// A value that is no text, number, `true` or `false`, or too long.
    #[error(
        "{field:?} must be a text of at most {FILTER_VALUE_CHARS_MAX} characters, a number, true \
         or false"
    )]
    Value {
        /// Whose value.
        field: String,
    },
}

impl MetadataFilter {
    /// A filter of these fields; none lets everything pass.
    pub fn new(fields: Custom) -> Result<Self, FilterFault> {
        if fields.len() > FILTER_FIELDS_MAX {
            return Err(FilterFault::Fields { fields: fields.len() });
        }
        for (field, value) in &fields {
            let chars = field.chars().count();
            if !(1..=FILTER_KEY_CHARS_MAX).contains(&chars) {
                return Err(FilterFault::Key { chars });
            }
            let fits = match value {
                Value::String(text) => text.chars().count() <= FILTER_VALUE_CHARS_MAX,
                Value::Bool(_) | Value::Number(_) => true,
                Value::Null | Value::Array(_) | Value::Object(_) => false,
            };
            if !fits {
                return Err(FilterFault::Value { field: field.clone() });
            }
        }
        Ok(Self(fields))
    }

    /// Its fields.
    pub fn fields(&self) -> &Custom {
        &self.0
    }

    /// Whether everything passes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a chunk of a document passes.
    pub fn passes(&self, document: &DocumentMetadata, chunk: &Chunk) -> bool {
        self.0.iter().all(|(field, wanted)| has(document, chunk, field, wanted))
    }
}

fn has(document: &DocumentMetadata, chunk: &Chunk, field: &str, wanted: &Value) -> bool {
    if let Some(value) = chunk.custom.get(field) {
        return equals(value, wanted);
    }
    let is_text = |text: Option<&str>| text.is_some() && text == wanted.as_str();
    match field {
        "page_number" if chunk.page_number.is_some() => {
            chunk.page_number.map(u64::from) == wanted.as_u64()
        }
        "title" => is_text(Some(&document.title)),
        "author" if document.author.is_some() => is_text(document.author.as_deref()),
        "document_type" => is_text(Some(&document.document_type)),
        "source_url" if document.source_url.is_some() => is_text(document.source_url.as_deref()),
        "tags" if !document.tags.is_empty() => document.tags.iter().any(|tag| is_text(Some(tag))),
        custom => document.custom.get(custom).is_some_and(|value| equals(value, wanted)),
    }
}

/// Whether a value is the one that is wanted, or a list that has it. `1` and `1.0` are one number.
fn equals(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::Array(members), wanted) => members.iter().any(|member| equals(member, wanted)),
        (Value::Number(value), Value::Number(wanted)) => {
            let as_float = || {
                let (value, wanted) = (value.as_f64()?, wanted.as_f64()?);
                Some(value.total_cmp(&wanted).is_eq())
            };
            value == wanted || ((value.is_f64() || wanted.is_f64()) && as_float() == Some(true))
        }
        (value, wanted) => value == wanted,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ids::{ChunkId, Timestamp};

    fn fields(value: &Value) -> Custom {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn every_field_has_to_be_equal_and_lists_have_members() {
        let document = DocumentMetadata {
            title: "T".into(),
            author: None,
            document_type: "text".into(),
            source_url: None,
            tags: vec!["a".into(), "b".into()],
            custom: fields(
                &json!({"year": 1998, "author": "custom", "kinds": ["x", 2], "page_number": 9}),
            ),
            created_at: Timestamp::from_micros(0),
        };
        let mut chunk = Chunk {
            id: ChunkId::from_bytes([0; 16]),
            text: String::new(),
            embedding: Vec::new(),
            created_at: Timestamp::from_micros(0),
            page_number: Some(7),
            custom: fields(&json!({"section": "intro"})),
        };
        for (filter, expect) in [
            (json!({}), true),
            (json!({"title": "T", "tags": "b", "year": 1998.0}), true),
            (json!({"title": "T", "tags": "c"}), false),
            (json!({"author": "custom"}), true),
            (json!({"kinds": 2, "section": "intro", "page_number": 7}), true),
            (json!({"kinds": "2"}), false),
            (json!({"year": "1998"}), false),
            (json!({"year": true}), false),
            (json!({"absent": 1}), false),
            (json!({"title": 1}), false),
        ] {
            let read = MetadataFilter::new(fields(&filter)).unwrap();
            assert_eq!(read.passes(&document, &chunk), expect, "{filter}");
        }
        chunk.page_number = None;
        let filter = MetadataFilter::new(fields(&json!({"page_number": 9}))).unwrap();
        assert!(filter.passes(&document, &chunk), "custom metadata, where the chunk has no page");
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        let many: Custom = (0..=FILTER_FIELDS_MAX).map(|n| (n.to_string(), json!(n))).collect();
        for bad in [
            many,
            fields(&json!({"": 1})),
            fields(&json!({"a": null})),
            fields(&json!({"a": [1]})),
            fields(&json!({"a": {}})),
            fields(&json!({"a": "x".repeat(FILTER_VALUE_CHARS_MAX + 1)})),
            fields(&json!({"k".repeat(FILTER_KEY_CHARS_MAX + 1): 1})),
        ] {
            assert!(MetadataFilter::new(bad.clone()).is_err(), "{bad:?}");
        }
    }
}
