//! What lists are ordered by, and where their pages begin.

use std::borrow::Cow;

use arrwdb_engine::state::{DocumentId, FieldValue, Number, OrderBy, OrderedCursor, Seq};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

use super::opaque;
use crate::json::{Read, Reader};

/// What a list is ordered by, as it is described.
#[derive(Debug)]
pub(super) struct OrderShape;

impl PartialSchema for OrderShape {
    fn schema() -> RefOr<Schema> {
        let description = "What documents are ordered by: a field as filters name it, with `:desc` behind \
                           it where the greatest come first (`year:desc`), or `{\"field\", \
                           \"direction\"}` with `asc` or `desc`. Documents without a value come last.";
        ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::String, Type::Object]))
            .description(Some(description))
            .examples([json!("year:desc"), json!({"field": "author.name", "direction": "asc"})])
            .into()
    }
}

impl ToSchema for OrderShape {
    fn name() -> Cow<'static, str> {
        "OrderBy".into()
    }
}

/// Reads `field`, `field:asc` or `field:desc`.
///
/// # Errors
/// What is wrong.
pub(super) fn parse_order(text: &str) -> Result<OrderBy, String> {
    let (field, descending) = match text.rsplit_once(':') {
        Some((field, "asc")) => (field, false),
        Some((field, "desc")) => (field, true),
        // A wrong direction is no end of a field's name: nobody would see that nothing is in order.
        Some(_) => return Err("must end in :asc or :desc where it has a colon".to_owned()),
        None => (text, false),
    };
    OrderBy::new(field.to_owned(), descending)
}

/// What a list is ordered by, of a body; `None` for null.
pub(super) fn read_order(r: &mut Reader<'_>) -> Read<Option<OrderBy>> {
    let value = r.any()?;
    let (read, place) = match &value {
        Value::Null => return Ok(None),
        Value::String(text) => (parse_order(text), ""),
        Value::Object(fields) => {
            let text = |name: &str| fields.get(name).and_then(Value::as_str);
            let direction = fields.get("direction").filter(|direction| !direction.is_null());
            match (text("field"), direction.map(Value::as_str)) {
                (None, _) => (Err("must be the name of a field".to_owned()), "/field"),
                (Some(field), None | Some(Some("asc"))) => {
                    (OrderBy::new(field.to_owned(), false), "/field")
                }
                (Some(field), Some(Some("desc"))) => {
                    (OrderBy::new(field.to_owned(), true), "/field")
                }
                (Some(_), Some(_)) => (Err("must be asc or desc".to_owned()), "/direction"),
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            (Err("must be such as \"year:desc\", or {\"field\", \"direction\"}".to_owned()), "")
        }
    };
    match read {
        Ok(order) => Ok(Some(order)),
        Err(detail) => {
            r.fault_beneath(place, detail);
            Ok(None)
        }
    }
}

/// A place in an ordered list: the order that it is of, and the document that it is behind.
#[derive(Debug, Serialize, Deserialize)]
struct Place {
    field: String,
    descending: bool,
    value: Option<PlaceValue>,
    born: u64,
    id: String,
}

#[derive(Debug, Serialize, Deserialize)]
enum PlaceValue {
    Bool(bool),
    /// Digits, which say a number exactly.
    Number(String),
    Time(i64),
    Text(String),
}

/// A place in an ordered list, as its pages name it.
pub(super) fn place_text(order: &OrderBy, cursor: &OrderedCursor) -> String {
    let value = cursor.value.as_ref().and_then(|value| match value {
        FieldValue::Null | FieldValue::Composite => None,
        FieldValue::Bool(value) => Some(PlaceValue::Bool(*value)),
        FieldValue::Number(number) => {
            let whole = number.as_whole().map(|whole| whole.to_string());
            Some(PlaceValue::Number(whole.unwrap_or_else(|| number.as_f64().to_string())))
        }
        FieldValue::Time(time) => Some(PlaceValue::Time(*time)),
        FieldValue::Text(text) => Some(PlaceValue::Text(text.to_string())),
    });
    let place = Place {
        field: order.field().to_owned(),
        descending: order.is_descending(),
        value,
        born: cursor.born.get(),
        id: cursor.id.to_string(),
    };
    // Nothing of it refuses to be written.
    opaque::seal(&serde_json::to_vec(&place).unwrap_or_default())
}

/// The place that a page of a list in this order named.
pub(super) fn parse_place(order: &OrderBy, text: &str) -> Option<OrderedCursor> {
    let place: Place = serde_json::from_slice(&opaque::open(text)?).ok()?;
    if (place.field.as_str(), place.descending) != (order.field(), order.is_descending()) {
        return None;
    }
    let value = match place.value {
        None => None,
        Some(PlaceValue::Bool(value)) => Some(FieldValue::Bool(value)),
        Some(PlaceValue::Number(digits)) => Some(FieldValue::Number(number(&digits)?)),
        Some(PlaceValue::Time(time)) => Some(FieldValue::Time(time)),
        Some(PlaceValue::Text(text)) => Some(FieldValue::Text(text.into())),
    };
    let id: DocumentId = place.id.parse().ok()?;
    Some(OrderedCursor { value, born: Seq::new(place.born), id })
}

fn number(digits: &str) -> Option<Number> {
    let whole = digits.parse().map(Number::of_i64).ok();
    let whole = whole.or_else(|| digits.parse().map(Number::of_u64).ok());
    whole.or_else(|| Number::of_f64(digits.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_back_as_it_was_in_its_own_order_alone() {
        let order = parse_order("a:b:desc").unwrap();
        assert_eq!((order.field(), order.is_descending()), ("a:b", true));
        let numbers = [
            Number::of_i64(i64::MIN),
            Number::of_i64(i64::MAX),
            Number::of_u64(u64::MAX),
            Number::of_f64(0.1).unwrap(),
            Number::of_f64(1.0e300).unwrap(),
            Number::of_f64(-5.0e-324).unwrap(),
        ];
        let values = numbers.map(FieldValue::Number).into_iter();
        let others =
            [FieldValue::Bool(true), FieldValue::Time(-7), FieldValue::Text("\u{e4}\"\n".into())];
        let all = values.chain(others).map(Some).chain([None]);
        for value in all {
            let id = DocumentId::from_bytes([3; 16]);
            let cursor = OrderedCursor { value, born: Seq::new(7), id };
            let text = place_text(&order, &cursor);
            assert_eq!(parse_place(&order, &text), Some(cursor));
            for other in ["a:b:asc", "a:desc", "a:b:c:desc"] {
                assert_eq!(parse_place(&parse_order(other).unwrap(), &text), None);
            }
        }
        assert_eq!(parse_place(&order, &opaque::seal(b"{}")), None);
    }
}
