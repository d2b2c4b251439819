//! Passages and queries in memory.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

use crate::Outcome;

/// Passages: each with its title before it, on a line of its own.
pub(crate) fn passages(path: &Path) -> Outcome<Vec<String>> {
    read(path, |title, text| format!("{title}\n{text}"))
}

/// Queries, without titles.
pub(crate) fn queries(path: &Path) -> Outcome<Vec<String>> {
    read(path, |_, text| text.to_owned())
}

/// The rows of a file of JSON lines.
fn read(path: &Path, joined: impl Fn(&str, &str) -> String) -> Outcome<Vec<String>> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut texts = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let row: Value = serde_json::from_str(&line)
            .map_err(|error| format!("{}:{}: {error}", path.display(), number + 1))?;
        let Some(text) = row["text"].as_str() else {
            return Err(format!("{}:{} has no `text`", path.display(), number + 1).into());
        };
        texts.push(joined(row["title"].as_str().unwrap_or_default(), text));
    }
    if texts.is_empty() {
        return Err(format!("{} is empty", path.display()).into());
    }
    Ok(texts)
}
