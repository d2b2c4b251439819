//! Events as JSON, the one form in which all ways out of the feed send them.

use std::fmt::Write as _;

use arrwdb_engine::state::{TenantId, Timestamp};

use crate::event::{Event, Value};

/// The version of the form; it grows when a member changes its meaning.
const VERSION: u64 = 1;

pub(crate) fn event(event: Event<'_>, out: &mut String) {
    out.push('{');
    member(out, "version", Value::Number(VERSION));
    member(out, "id", Value::Id(&event.position()));
    common(event, out);
    member(out, "tenant_id", Value::Id(&event.tenant()));
    key(out, "data");
    data(event, out);
    out.push('}');
}

pub(crate) fn flat(event: Event<'_>, out: &mut String) {
    out.push('{');
    event.data().visit(&mut |name, value| member(out, name, value));
    common(event, out);
    out.push('}');
}

pub(crate) fn data(event: Event<'_>, out: &mut String) {
    out.push('{');
    if event.event_type().family() == "library"
        && let Some(library) = event.library()
    {
        member(out, "library_id", Value::Id(&library));
    }
    event.data().visit(&mut |name, value| member(out, name, value));
    out.push('}');
}

/// The body of a delivery to a webhook: `id`, `type`, `created_at`, `data`, `tenant_id`, in this
/// order and without a space, which receivers of the original rely on.
pub(crate) fn delivered(event: Event<'_>, (id, name): (&uuid::Uuid, &str), out: &mut String) {
    let mut data = String::from("{");
    if let Some(library) = event.library() {
        member(&mut data, "library_id", Value::Id(&library));
    }
    event.data().visit(&mut |name, value| member(&mut data, name, value));
    data.push('}');
    let tenant = Some(event.tenant()).filter(|tenant| *tenant != TenantId::DEFAULT);
    delivered_as((id, name), event.at(), (&data, tenant), out);
}

/// As [`delivered`], of what is no event of the log.
pub(crate) fn delivered_as(
    (id, name): (&uuid::Uuid, &str),
    at: Timestamp,
    (data, tenant): (&str, Option<TenantId>),
    out: &mut String,
) {
    out.push('{');
    member(out, "id", Value::Id(id));
    member(out, "type", Value::Text(name));
    member(out, "created_at", Value::Time(at));
    member(out, "data", Value::Json(data));
    match &tenant {
        Some(tenant) => member(out, "tenant_id", Value::Id(tenant)),
        None => member(out, "tenant_id", Value::Null),
    }
    out.push('}');
}

/// What every form has.
fn common(event: Event<'_>, out: &mut String) {
    member(out, "seq", Value::Number(event.seq().get()));
    member(out, "type", Value::Text(event.event_type().name()));
    if let Some(library) = event.library() {
        member(out, "library_id", Value::Id(&library));
    }
    member(out, "timestamp", Value::Id(&Rfc3339(event.at())));
}

fn key(out: &mut String, name: &str) {
    if !out.ends_with('{') {
        out.push(',');
    }
    out.push('"');
    out.push_str(name);
    out.push_str("\":");
}

fn member(out: &mut String, name: &str, value: Value<'_>) {
    key(out, name);
    match value {
        Value::Text(text) => write_text(out, text),
        // Writing to a string does not fail.
        Value::Id(id) => write!(out, "\"{id}\"").unwrap_or_default(),
        Value::Number(number) => write!(out, "{number}").unwrap_or_default(),
        // It was checked to be one when it was submitted.
        Value::Json(json) => out.push_str(json),
        Value::Time(time) => write!(out, "\"{}\"", Rfc3339(time)).unwrap_or_default(),
        Value::Real(real) if real.is_finite() => write!(out, "{real}").unwrap_or_default(),
        Value::Distance(distance) if distance.is_finite() => {
            write!(out, "{distance}").unwrap_or_default();
        }
        Value::Distance(_) | Value::Real(_) | Value::Null => out.push_str("null"),
    }
}

/// A text in quotation marks in which nothing looks like the end of a line, to whoever cuts lines
/// as JSON does, as SSE does (a carriage return too) or as Unicode does.
fn write_text(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (at, found) in text.char_indices() {
        let needs = matches!(found, '"' | '\\' | '\0'..='\x1f' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}');
        if needs {
            out.push_str(&text[plain..at]);
            plain = at + found.len_utf8();
            match found {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                _ => write!(out, "\\u{:04x}", u32::from(found)).unwrap_or_default(),
            }
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

/// A time in UTC with microseconds.
struct Rfc3339(Timestamp);

impl std::fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = self.0.micros();
        let time = jiff::Timestamp::from_microsecond(micros).unwrap_or(if micros < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        });
        write!(f, "{time:.6}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_line_and_reads_as_it_was() {
        for text in ["", "plain", "a\"b\\c\n\r\t\u{0}\u{1f}\u{7f}\u{85}\u{2028}\u{2029}z \u{1F980}"]
        {
            let mut out = String::new();
            write_text(&mut out, text);
            let ends = "\n\r\u{b}\u{c}\u{1c}\u{1d}\u{1e}\u{85}\u{2028}\u{2029}";
            assert!(!out.contains(|found| ends.contains(found)), "{out:?}");
            assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }
    }
}
