//! The columns of a segment: the values of its passages' fields, for filters, counts and orders.

use std::ops::Range;

use arrwdb_index::{Column, Columns, ColumnsBuilder, FieldValue};

use super::passage::{
    CREATED_AT, FieldName, READ_FIELDS, Scalar, named, own_of_chunk, own_of_document, scalars,
};
use super::value::time;
use crate::body::BodyReader;
use crate::document::Custom;
use crate::limits::{COLUMNS_PER_SEGMENT_MAX, FILTER_KEY_CHARS_MAX};
use crate::segment::{Damage, Segment};

/// What is before a path of custom metadata in the name of its column.
const CUSTOM: &str = "custom ";
/// Bytes of the longest name that a filter can have.
const PATH_BYTES_MAX: usize = CUSTOM.len() + 4 * FILTER_KEY_CHARS_MAX;

/// The fields of all passages of a segment but those that are read from the passages themselves.
/// O(bytes).
pub(crate) fn columns_of(segment: &Segment) -> Result<Columns, Damage> {
    let mut builder = Builder::default();
    for ordinal in 0..segment.documents() {
        let head = segment.head(ordinal)?;
        let body = BodyReader::new(segment.body(ordinal)?);
        let document = body.and_then(|body| body.document(head.id));
        let document = document.map_err(|error| segment.undecodable(&error))?;
        let mut own = |name: &'static str, scalar: Scalar<'_>, listed| {
            builder.own(name, (scalar, listed), head.row_range());
            false
        };
        own_of_document(&document.metadata, &mut own);
        builder.custom(&document.metadata.custom, head.row_range());
        for (index, chunk) in (0..head.rows).zip(&document.chunks) {
            let row = head.first_row + index;
            let mut own = |name: &'static str, scalar: Scalar<'_>, listed| {
                builder.own(name, (scalar, listed), row..row + 1);
                false
            };
            own_of_chunk(chunk, index, &mut own);
            builder.custom(&chunk.custom, row..row + 1);
        }
    }
    Ok(builder.columns.finish(segment.rows()))
}

/// Where a field's column is: custom metadata may have any name.
pub(super) fn column_name(field: FieldName<'_>) -> String {
    match field {
        FieldName::Own(name) => format!("own {name}"),
        FieldName::Custom(path) => format!("{CUSTOM}{path}"),
    }
}

/// The columns of a field, by all that its name means; whether times in it are times by themselves, as
/// elsewhere they are texts too.
pub(crate) fn columns_named<'a>(columns: &'a Columns, name: &str) -> Vec<(&'a Column, bool)> {
    let fields = named(name).filter_map(|field| {
        let own_times = field == FieldName::Own(CREATED_AT);
        Some((columns.field(&column_name(field))?, own_times))
    });
    fields
        .flat_map(|(field, own_times)| field.columns().map(|column| (column, own_times)))
        .collect()
}

/// Whether values of this name are in passages and in no column, since the segment has too many different
/// fields.
pub(crate) fn is_left_out(columns: &Columns, name: &str) -> bool {
    named(name).any(|field| columns.leaves_out(&column_name(field)))
}

/// Refuses the name of a field that has no column: what is wrong with it.
pub(crate) fn check_column_name(name: &str) -> Result<(), String> {
    let chars = name.chars().count();
    if !(1..=FILTER_KEY_CHARS_MAX).contains(&chars) {
        return Err(format!("must have 1 to {FILTER_KEY_CHARS_MAX} characters; it has {chars}"));
    }
    if READ_FIELDS.contains(&name) {
        return Err(format!(
            "{name} is another for every passage or document; custom metadata of this name is \
             custom.{name}"
        ));
    }
    Ok(())
}

#[derive(Default)]
struct Builder {
    columns: ColumnsBuilder,
    /// The name of the column that is added to.
    name: String,
}

impl Builder {
    fn own(&mut self, name: &'static str, scalar: (Scalar<'_>, bool), rows: Range<u32>) {
        self.name.clear();
        self.name.push_str(&column_name(FieldName::Own(name)));
        self.add(scalar, rows);
    }

    fn custom(&mut self, custom: &Custom, rows: Range<u32>) {
        self.name.clear();
        self.name.push_str(&column_name(FieldName::Custom("")));
        self.object(custom, false, &rows);
    }

    /// Adds an object's members under their paths, which begin as the name does now.
    fn object(&mut self, object: &Custom, listed: bool, rows: &Range<u32>) {
        let before = self.name.len();
        for (key, value) in object {
            // No filter can name what has a longer path, nor what lies beneath.
            if before + key.len() <= PATH_BYTES_MAX {
                self.name.push_str(key);
                self.value(value, listed, rows);
                self.name.truncate(before);
            }
        }
    }

    fn value(&mut self, value: &serde_json::Value, listed: bool, rows: &Range<u32>) {
        scalars(value, listed, &mut |scalar, listed| {
            self.add((scalar, listed), rows.clone());
            false
        });
        self.beneath(value, listed, rows);
    }

    /// Adds what is in objects, those in lists included.
    fn beneath(&mut self, value: &serde_json::Value, listed: bool, rows: &Range<u32>) {
        match value {
            serde_json::Value::Object(object) => {
                self.name.push('.');
                self.object(object, listed, rows);
                self.name.pop();
            }
            serde_json::Value::Array(members) => {
                for member in members {
                    self.beneath(member, true, rows);
                }
            }
            serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Number(_)
            | serde_json::Value::String(_) => {}
        }
    }

    fn add(&mut self, (scalar, listed): (Scalar<'_>, bool), rows: Range<u32>) {
        let Self { columns, name } = self;
        if name.starts_with(CUSTOM)
            && columns.fields() >= COLUMNS_PER_SEGMENT_MAX
            && !columns.has(name)
        {
            columns.leave_out(name);
            return;
        }
        let value = match scalar {
            Scalar::Null => FieldValue::Null,
            Scalar::Composite => FieldValue::Composite,
            Scalar::Bool(value) => FieldValue::Bool(value),
            Scalar::Number(value) => FieldValue::Number(value),
            Scalar::Time(time) => FieldValue::Time(time),
            Scalar::Text(text) => {
                columns.add_text(name, text, listed, rows.clone());
                let Some(time) = time(text) else { return };
                FieldValue::Time(time)
            }
        };
        columns.add(name, value, listed, rows);
    }
}
