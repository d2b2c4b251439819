//! JSON Schema, as much of it as the schema of events uses: a keyword that is not known here is an
//! error, so that nothing passes unread.

use serde_json::Value;

/// What is wrong with a value, if anything is.
pub(crate) fn fault(schema: &Value, value: &Value) -> Option<String> {
    check(schema, schema, value).err()
}

fn check(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    for (keyword, wanted) in schema.as_object().ok_or("a schema is an object")? {
        let holds = match keyword.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" => true,
            "$ref" => {
                let pointer = wanted.as_str().and_then(|text| text.strip_prefix('#'));
                let target =
                    root.pointer(pointer.unwrap_or("?")).ok_or("a reference that leads nowhere")?;
                check(root, target, value)?;
                true
            }
            "const" => value == wanted,
            "enum" => list(wanted)?.contains(value),
            "type" => wanted.as_array().map_or_else(
                || has_type(wanted, value),
                |names| names.iter().any(|name| has_type(name, value)),
            ),
            "minimum" => value.as_u64().is_none_or(|number| Some(number) >= wanted.as_u64()),
            "minProperties" => value
                .as_object()
                .is_none_or(|members| Some(members.len() as u64) >= wanted.as_u64()),
            "required" => list(wanted)?
                .iter()
                .all(|name| value.get(name.as_str().unwrap_or_default()).is_some()),
            "properties" => {
                for (name, schema) in wanted.as_object().ok_or("properties are an object")? {
                    if let Some(member) = value.get(name) {
                        check(root, schema, member).map_err(|why| format!("{name}: {why}"))?;
                    }
                }
                true
            }
            "additionalProperties" if *wanted == Value::Bool(false) => {
                let known = schema["properties"].as_object().ok_or("properties")?;
                value
                    .as_object()
                    .is_none_or(|members| members.keys().all(|name| known.contains_key(name)))
            }
            "anyOf" => list(wanted)?.iter().any(|one| check(root, one, value).is_ok()),
            "oneOf" => {
                let fits = list(wanted)?.iter().filter(|one| check(root, one, value).is_ok());
                fits.count() == 1
            }
            "pattern" => {
                let pattern = wanted.as_str().ok_or("a pattern is a text")?;
                value.as_str().is_none_or(|text| matches(pattern, text))
            }
            other => return Err(format!("the keyword {other} is not known here")),
        };
        if !holds {
            return Err(format!("{value} against {keyword} {wanted}"));
        }
    }
    Ok(())
}

fn list(value: &Value) -> Result<&Vec<Value>, String> {
    value.as_array().ok_or_else(|| format!("{value} is no list"))
}

fn has_type(name: &Value, value: &Value) -> bool {
    match name.as_str() {
        Some("object") => value.is_object(),
        Some("string") => value.is_string(),
        Some("number") => value.is_number(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        _ => false,
    }
}

/// The patterns of the schema: classes of characters with counts, plain and escaped characters, and
/// an optional group at the end.
fn matches(pattern: &str, text: &str) -> bool {
    let inner = pattern.strip_prefix('^').and_then(|rest| rest.strip_suffix('$'));
    let inner = inner.expect("a pattern of the whole text");
    if let Some(without) = inner.strip_suffix(")?") {
        let (start, group) = without.rsplit_once('(').expect("a group");
        return matches_whole(start, text) || matches_whole(&format!("{start}{group}"), text);
    }
    matches_whole(inner, text)
}

fn matches_whole(pattern: &str, text: &str) -> bool {
    let Some(first) = pattern.chars().next() else { return text.is_empty() };
    // One item and how often it may stand there.
    let (item, rest) = match first {
        '[' => pattern.split_at(pattern.find(']').expect("a class") + 1),
        '\\' => pattern.split_at(2),
        _ => pattern.split_at(first.len_utf8()),
    };
    let (least, most, rest) = match rest.chars().next() {
        Some('+') => (1, usize::MAX, &rest[1..]),
        Some('?') => (0, 1, &rest[1..]),
        Some('{') => {
            let (counts, rest) = rest[1..].split_once('}').expect("counts");
            let (least, most) = counts.split_once(',').unwrap_or((counts, counts));
            (least.parse().expect("a count"), most.parse().expect("a count"), rest)
        }
        _ => (1, 1, rest),
    };
    let fits = text.chars().take_while(|found| is_in(item, *found)).count().min(most);
    (least..=fits).rev().any(|count| {
        let end = text.char_indices().nth(count).map_or(text.len(), |(at, _)| at);
        matches_whole(rest, &text[end..])
    })
}

fn is_in(item: &str, found: char) -> bool {
    match item {
        "[0-9]" => found.is_ascii_digit(),
        "[0-9a-f]" => found.is_ascii_digit() || ('a'..='f').contains(&found),
        _ => item.trim_start_matches('\\') == found.to_string(),
    }
}
