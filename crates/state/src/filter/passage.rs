//! The fields of a passage, and where their values are.

use serde_json::Value;

use super::value::{number, time};
use crate::document::{Chunk, Custom, DocumentMetadata};
use crate::ids::DocumentId;

/// A passage, as filters see it.
#[derive(Debug, Clone, Copy)]
pub struct Passage<'a> {
    /// Its document.
    pub document_id: DocumentId,
    /// What belongs to that as a whole.
    pub document: &'a DocumentMetadata,
    /// The passage.
    pub chunk: &'a Chunk,
    /// Its place in the document, from 0.
    pub index: u32,
}

/// A field's value: a scalar, borrowed from where it is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scalar<'a> {
    Null,
    /// An object, or a list with nothing in it.
    Composite,
    Bool(bool),
    Number(arrwdb_index::Number),
    Time(i64),
    Text(&'a str),
}

/// What is said of a scalar besides: whether it is one of a list.
pub(super) type Listed = bool;

/// Fields whose values are too many and too different to be kept in columns: they are read from the
/// passages themselves.
pub(super) const READ_FIELDS: [&str; 4] = ["text", "chunk_id", "document_id", DOCUMENT_OF_CHUNK];

/// The document of a chunk.
pub(super) const DOCUMENT_OF_CHUNK: &str = "source_document_id";

/// The one field whose values are times that are no texts.
pub(super) const CREATED_AT: &str = "created_at";

/// Before the name of a field of custom metadata that may have the name of another.
const CUSTOM: &str = "custom.";

/// A field that the name of a condition can mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldName<'a> {
    /// One that every passage or document has.
    Own(&'a str),
    /// A path into custom metadata.
    Custom(&'a str),
}

/// The fields that a name means: its values are those of all of them.
pub(super) fn named(name: &str) -> impl Iterator<Item = FieldName<'_>> {
    let custom = name.strip_prefix(CUSTOM).map(FieldName::Custom);
    [FieldName::Own(name), FieldName::Custom(name)].into_iter().chain(custom)
}

impl Passage<'_> {
    /// Calls `visit` with every value of a field, until it says that this is enough.
    pub(super) fn values(
        &self,
        field: FieldName<'_>,
        visit: &mut dyn FnMut(Scalar<'_>, Listed) -> bool,
    ) -> bool {
        match field {
            FieldName::Own(name) if READ_FIELDS.contains(&name) => self.read_value(name, visit),
            FieldName::Own(name) => {
                own(self, &mut |of, scalar, listed| of == name && visit(scalar, listed))
            }
            FieldName::Custom(path) => {
                let metadata = [&self.chunk.custom, &self.document.custom];
                metadata.into_iter().any(|custom| within(custom, path, false, visit))
            }
        }
    }

    fn read_value(&self, name: &str, visit: &mut dyn FnMut(Scalar<'_>, Listed) -> bool) -> bool {
        match name {
            "text" => visit(Scalar::Text(&self.chunk.text), false),
            "chunk_id" => visit(Scalar::Text(&self.chunk.id.to_string()), false),
            _document => visit(Scalar::Text(&self.document_id.to_string()), false),
        }
    }
}

/// Visits every field of a passage but those of [`READ_FIELDS`] and custom metadata: name, value,
/// whether it is one of a list.
fn own<'a>(
    passage: &Passage<'a>,
    visit: &mut dyn FnMut(&'static str, Scalar<'a>, Listed) -> bool,
) -> bool {
    own_of_document(passage.document, visit) || own_of_chunk(passage.chunk, passage.index, visit)
}

/// Those that all passages of a document have.
pub(super) fn own_of_document<'a>(
    document: &'a DocumentMetadata,
    visit: &mut dyn FnMut(&'static str, Scalar<'a>, Listed) -> bool,
) -> bool {
    let mut text = |name, text: Option<&'a str>| {
        text.is_some_and(|text| visit(name, Scalar::Text(text), false))
    };
    text("title", Some(&document.title))
        || text("author", document.author.as_deref())
        || text("document_type", Some(&document.document_type))
        || text("source_url", document.source_url.as_deref())
        || document.tags.iter().any(|tag| visit("tags", Scalar::Text(tag), true))
}

/// Those of a passage alone.
pub(super) fn own_of_chunk<'a>(
    chunk: &'a Chunk,
    index: u32,
    visit: &mut dyn FnMut(&'static str, Scalar<'a>, Listed) -> bool,
) -> bool {
    let whole = |number: u32| Scalar::Number(arrwdb_index::Number::of_u64(number.into()));
    visit(CREATED_AT, Scalar::Time(chunk.created_at.micros()), false)
        || visit("chunk_index", whole(index), false)
        || chunk.page_number.is_some_and(|page| visit("page_number", whole(page), false))
}

/// Visits the values at a path of custom metadata. A key may have dots itself.
fn within(
    object: &Custom,
    path: &str,
    listed: Listed,
    visit: &mut dyn FnMut(Scalar<'_>, Listed) -> bool,
) -> bool {
    let whole = object.get(path).is_some_and(|value| scalars(value, listed, visit));
    whole
        || path.match_indices('.').any(|(dot, _)| {
            let value = object.get(&path[..dot]);
            value.is_some_and(|value| beneath(value, &path[dot + 1..], listed, visit))
        })
}

fn beneath(
    value: &Value,
    path: &str,
    listed: Listed,
    visit: &mut dyn FnMut(Scalar<'_>, Listed) -> bool,
) -> bool {
    match value {
        Value::Object(object) => within(object, path, listed, visit),
        Value::Array(members) => members.iter().any(|member| beneath(member, path, true, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Visits what a value is: itself, or the members of a list.
pub(super) fn scalars<'a>(
    value: &'a Value,
    listed: Listed,
    visit: &mut dyn FnMut(Scalar<'a>, Listed) -> bool,
) -> bool {
    match value {
        Value::Null => visit(Scalar::Null, listed),
        Value::Bool(value) => visit(Scalar::Bool(*value), listed),
        Value::Number(value) => number(value).is_some_and(|it| visit(Scalar::Number(it), listed)),
        Value::String(text) => visit(Scalar::Text(text), listed),
        Value::Array(members) if members.is_empty() => visit(Scalar::Composite, listed),
        Value::Array(members) => members.iter().any(|member| scalars(member, true, visit)),
        Value::Object(_) => visit(Scalar::Composite, listed),
    }
}

/// The time that a scalar is or names.
pub(super) fn time_of(scalar: Scalar<'_>) -> Option<i64> {
    match scalar {
        Scalar::Time(time) => Some(time),
        Scalar::Text(text) => time(text),
        Scalar::Null | Scalar::Composite | Scalar::Bool(_) | Scalar::Number(_) => None,
    }
}
