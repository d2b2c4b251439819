//! What searches by keywords and hybrid ones ask for besides: the values as they are described, and
//! how they are read.

use std::borrow::Cow;

use arrwdb_engine::{Fusion, Highlight, Mode, Operator};
use serde_json::{Map, Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::json::{Read, Reader};

/// Characters of a mark before or after a word that was found.
const TAG_CHARS_MAX: usize = 64;
const FRAGMENTS_MAX: u64 = 10;
const FRAGMENT_CHARS_MIN: u64 = 20;
const FRAGMENT_CHARS_MAX: u64 = 2000;

pub(super) const MODES: [(&str, Mode); 3] =
    [("vector", Mode::Vector), ("keyword", Mode::Keyword), ("hybrid", Mode::Hybrid)];
pub(super) const OPERATORS: [(&str, Operator); 2] = [("or", Operator::Or), ("and", Operator::And)];
pub(super) const FUSIONS: [(&str, Fusion); 3] = [
    ("rrf", Fusion::ReciprocalRank),
    ("weighted", Fusion::Weighted),
    ("relative_score", Fusion::RelativeScore),
];

/// What passages are found by.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "describes a value; it is read by name")]
pub(super) enum ModeName {
    /// By their vectors.
    Vector,
    /// By words, ranked by BM25.
    Keyword,
    /// By both.
    Hybrid,
}

/// Whether one word is enough.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "describes a value; it is read by name")]
pub(super) enum OperatorName {
    /// One is.
    Or,
    /// All have to be there.
    And,
}

/// How two rankings become one.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes a value; it is read by name")]
pub(super) enum FusionName {
    /// By ranks: the sum of `1 / (60 + rank)`.
    Rrf,
    /// By scores: `1 - distance / 2`, and BM25 as a part of the best.
    Weighted,
    /// By scores: those of vectors stretched to 0 to 1 between the farthest and the nearest candidate,
    /// BM25 as a part of the best.
    RelativeScore,
}

/// How words that were found are shown, as it is described.
#[derive(Debug)]
pub(super) struct HighlightShape;

impl PartialSchema for HighlightShape {
    fn schema() -> RefOr<Schema> {
        let description = "Whether hits show the parts of their texts that have the most of the words that were \
                           found: `true`, or an object of `pre_tag` [`<em>`] and `post_tag` [`</em>`], which \
                           stand around each word (64 characters at most; texts are not escaped), `fragments` \
                           [3], how many parts at most (1 to 10), and `fragment_chars` [160], how many \
                           characters each has, about (20 to 2000).";
        ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::Boolean, Type::Object]))
            .description(Some(description))
            .examples([json!(true), json!({"pre_tag": "<b>", "post_tag": "</b>", "fragments": 1})])
            .into()
    }
}

impl ToSchema for HighlightShape {
    fn name() -> Cow<'static, str> {
        "Highlight".into()
    }
}

/// One of these, by name.
pub(super) fn read_name<T: Copy>(r: &mut Reader<'_>, names: &[(&str, T)]) -> Read<Option<T>> {
    let Some(name) = r.string()? else { return Ok(None) };
    let found = names.iter().find(|(known, _value)| *known == name);
    if found.is_none() {
        let known: Vec<&str> = names.iter().map(|(known, _value)| *known).collect();
        r.fault(format!("must be one of {}", known.join(", ")));
    }
    Ok(found.map(|(_name, value)| *value))
}

pub(super) fn read_alpha(r: &mut Reader<'_>) -> Read<Option<f64>> {
    let alpha = r.number()?;
    let within = alpha.filter(|alpha| (0.0..=1.0).contains(alpha));
    if alpha.is_some() && within.is_none() {
        r.fault("must be from 0 to 1");
    }
    Ok(within)
}

/// Whether, and how, words that were found are shown; `None` if they are not.
pub(super) fn read_highlight(r: &mut Reader<'_>) -> Read<Option<Highlight>> {
    let value = r.any()?;
    Ok(match value {
        Value::Null | Value::Bool(false) => None,
        Value::Bool(true) => Some(Highlight::default()),
        Value::Object(fields) => Some(highlight_of(r, &fields)),
        Value::Number(_) | Value::String(_) | Value::Array(_) => {
            r.fault("must be true, false or an object");
            None
        }
    })
}

fn highlight_of(r: &mut Reader<'_>, fields: &Map<String, Value>) -> Highlight {
    let usual = Highlight::default();
    let given = |name: &str| fields.get(name).filter(|value| !value.is_null());
    let mut text = |name: &str, usual: String| match given(name).map(Value::as_str) {
        None => usual,
        Some(Some(text)) if text.chars().count() <= TAG_CHARS_MAX => text.to_owned(),
        Some(_) => {
            let detail = format!("must be a text of up to {TAG_CHARS_MAX} characters");
            r.fault_beneath(&format!("/{name}"), detail);
            usual
        }
    };
    let (before, after) = (text("pre_tag", usual.before), text("post_tag", usual.after));
    let mut whole = |name: &str, usual: usize, from: u64, to: u64| {
        let within = |value: &Value| {
            let number = value.as_u64().filter(|number| (from..=to).contains(number));
            number.and_then(|number| usize::try_from(number).ok())
        };
        given(name).map_or(usual, |value| {
            within(value).unwrap_or_else(|| {
                r.fault_beneath(&format!("/{name}"), format!("must be from {from} to {to}"));
                usual
            })
        })
    };
    let fragments = whole("fragments", usual.fragments, 1, FRAGMENTS_MAX);
    let chars = (FRAGMENT_CHARS_MIN, FRAGMENT_CHARS_MAX);
    let fragment_chars = whole("fragment_chars", usual.fragment_chars, chars.0, chars.1);
    Highlight { before, after, fragments, fragment_chars }
}
