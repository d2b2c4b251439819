//! Values as filters compare them.

use arrwdb_index::{FieldValue, Number};
use serde_json::Value;

/// What values are compared with.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Null,
    Bool(bool),
    Number(Number),
    /// A text, and the time that it names if it names one.
    Text(Box<str>, Option<i64>),
}

impl Operand {
    /// `None` for an object or a list.
    pub(super) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(Self::Null),
            Value::Bool(value) => Some(Self::Bool(*value)),
            Value::Number(value) => number(value).map(Self::Number),
            Value::String(text) => Some(Self::Text(text.as_str().into(), time(text))),
            Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// The value of a column that equals it: a text that names a time equals every text that names
    /// the same one.
    pub(super) fn key(&self) -> FieldValue {
        match self {
            Self::Null => FieldValue::Null,
            Self::Bool(value) => FieldValue::Bool(*value),
            Self::Number(value) => FieldValue::Number(*value),
            Self::Text(_text, Some(time)) => FieldValue::Time(*time),
            Self::Text(text, None) => FieldValue::Text(text.clone()),
        }
    }
}

/// When times are counted from.
const EPOCH: jiff::civil::DateTime = jiff::civil::DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// A value of a column as JSON: a whole number without a point, a time as RFC 3339.
pub(crate) fn json_of(value: &FieldValue) -> Value {
    match value {
        FieldValue::Null | FieldValue::Composite => Value::Null,
        FieldValue::Bool(value) => Value::Bool(*value),
        FieldValue::Number(number) => {
            let whole = number.as_whole().and_then(serde_json::Number::from_i128);
            let number = whole.or_else(|| serde_json::Number::from_f64(number.as_f64()));
            number.map_or(Value::Null, Value::Number)
        }
        FieldValue::Time(time) => EPOCH
            .checked_add(jiff::SignedDuration::from_micros(*time))
            .map_or(Value::Null, |time| Value::String(format!("{time:.6}Z"))),
        FieldValue::Text(text) => Value::String(text.to_string()),
    }
}

/// A number of JSON.
pub(super) fn number(number: &serde_json::Number) -> Option<Number> {
    let whole = || number.as_u64().map(Number::of_u64);
    number.as_i64().map(Number::of_i64).or_else(whole).or_else(|| Number::of_f64(number.as_f64()?))
}

/// Whether a text names a time.
pub(crate) fn names_a_time(text: &str) -> bool {
    time(text).is_some()
}

/// The time that a text names, in microseconds since 1970 began: a date, or a date and a time of RFC
/// 3339; what has no zone is of UTC.
pub(super) fn time(text: &str) -> Option<i64> {
    // Most texts are none, and are told apart sooner than by a parser.
    let [a, b, c, d, b'-', ..] = text.as_bytes() else { return None };
    if ![a, b, c, d].iter().all(|digit| digit.is_ascii_digit()) || text.len() > 64 {
        return None;
    }
    let zoned = || text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond);
    // Not by way of a point in time, which ends a day before the last date there is: the end of the
    // year 9999 is what many write for "for ever".
    let civil = || {
        let bare = text.strip_suffix(['Z', 'z']).filter(|bare| bare.len() > "9999-12-31".len());
        let civil = bare.unwrap_or(text).parse::<jiff::civil::DateTime>().ok()?;
        i64::try_from(civil.duration_since(EPOCH).as_micros()).ok()
    };
    zoned().or_else(civil)
}
