//! NDJSON and CSV: one document per line or row, read with memory for one line at a time.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;

use serde_json::{Map, Number, Value};
use uuid::Uuid;

use super::item::{Item, ItemMaker, Key, Place};
use super::read::{Fields, Found, Sink, hand_over, parts};
use super::source::Source;

/// The longest line, as the server has it.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// Names a title goes by, best first.
const TITLE_NAMES: [&str; 6] = ["title", "name", "heading", "headline", "subject", "label"];

/// Names a text goes by, best first.
const TEXT_NAMES: [&str; 8] =
    ["text", "content", "body", "passage", "description", "abstract", "summary", "document"];

/// Reads NDJSON: blank lines are skipped, a bad line fails alone.
pub(crate) fn ndjson(
    source: &Source,
    maker: &ItemMaker,
    fields: &Fields,
    sink: &mut Sink<'_>,
) -> io::Result<ControlFlow<()>> {
    let mut reader = BufReader::new(File::open(&source.path)?);
    let mut line = Vec::new();
    let mut documents = 0_u64;
    for number in 1_u64.. {
        line.clear();
        let read = (&mut reader).take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line)? as u64;
        if read == 0 {
            break;
        }
        let whole = read <= LINE_BYTES_MAX || line.ends_with(b"\n");
        let skipped = if whole { 0 } else { skip_line(&mut reader)? };
        let bytes = read + skipped;
        let place = Place { path: source.path.clone(), line: Some(number) };
        let row = if whole { object(&line) } else { Err("longer than 16 MiB".to_owned()) };
        let flow = match row {
            Ok(None) => sink(Found::Bytes(bytes)),
            Ok(Some(row)) => {
                documents += 1;
                row_done(row_items(maker, fields, place, row), bytes, sink)
            }
            Err(reason) => row_done(Err(Found::Failed { place, reason }), bytes, sink),
        };
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(if documents == 0 { sink(Found::Empty) } else { ControlFlow::Continue(()) })
}

/// Reads CSV whose first row names the columns; cells may be quoted and hold line breaks.
pub(crate) fn csv(
    source: &Source,
    delimiter: u8,
    maker: &ItemMaker,
    fields: &Fields,
    sink: &mut Sink<'_>,
) -> io::Result<ControlFlow<()>> {
    let file = BufReader::new(File::open(&source.path)?);
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(file);
    let names: Vec<String> = reader.byte_headers()?.iter().map(column_name).collect();
    let mut record = csv::ByteRecord::new();
    let mut before = reader.position().byte();
    let mut documents = 0_u64;
    loop {
        let line = reader.position().line();
        let place = Place { path: source.path.clone(), line: Some(line) };
        match reader.read_byte_record(&mut record) {
            Ok(false) => break,
            Ok(true) => {}
            Err(error) if error.is_io_error() => return Err(error.into()),
            Err(error) => {
                let failed = Found::Failed { place, reason: error.to_string() };
                if sink(failed).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                continue;
            }
        }
        let bytes = reader.position().byte().saturating_sub(before);
        before = reader.position().byte();
        documents += 1;
        let row = cells(&names, &record);
        let items = if record.as_slice().len() as u64 > LINE_BYTES_MAX {
            Err(Found::Failed { place, reason: "longer than 16 MiB".to_owned() })
        } else {
            row_items(maker, fields, place, row)
        };
        let flow = row_done(items, bytes, sink);
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(if documents == 0 { sink(Found::Empty) } else { ControlFlow::Continue(()) })
}

/// Hands over what a row of `bytes` came to.
fn row_done(row: Result<Vec<Item>, Found>, bytes: u64, sink: &mut Sink<'_>) -> ControlFlow<()> {
    match row {
        Ok(items) => hand_over(items, bytes, sink),
        Err(failed) => {
            sink(failed)?;
            sink(Found::Bytes(bytes))
        }
    }
}

/// Reads to the end of the line and forgets it; the bytes read.
fn skip_line(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = reader.fill_buf()?;
        let newline = buffer.iter().position(|&byte| byte == b'\n');
        let used = newline.map_or(buffer.len(), |at| at + 1);
        reader.consume(used);
        skipped += used as u64;
        if newline.is_some() || used == 0 {
            return Ok(skipped);
        }
    }
}

/// The JSON object of a line; nothing when the line is blank.
fn object(line: &[u8]) -> Result<Option<Map<String, Value>>, String> {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    match serde_json::from_slice(line) {
        Ok(Value::Object(row)) if is_end_of_export(&row) => Ok(None),
        Ok(Value::Object(row)) => Ok(Some(row)),
        Ok(_) => Err("not a JSON object".to_owned()),
        Err(error) => Err(format!("not JSON: {error}")),
    }
}

/// Whether a line is the server's last word on an export rather than a document of it.
fn is_end_of_export(row: &Map<String, Value>) -> bool {
    row.get("status").and_then(Value::as_str) == Some("complete")
        && row.get("total_documents").is_some_and(Value::is_u64)
        && ["title", "text", "texts", "chunks"].iter().all(|key| !row.contains_key(*key))
}

fn column_name(name: &[u8]) -> String {
    let name = name.strip_prefix(b"\xef\xbb\xbf").unwrap_or(name);
    String::from_utf8_lossy(name).trim().to_owned()
}

/// A CSV row as an object: empty cells are left out, cells that are numbers become numbers.
fn cells(names: &[String], record: &csv::ByteRecord) -> Map<String, Value> {
    let mut row = Map::new();
    for (at, cell) in record.iter().enumerate() {
        let text = match std::str::from_utf8(cell) {
            Ok(text) => text.to_owned(),
            Err(_) => cell.iter().map(|&byte| char::from(byte)).collect(),
        };
        if text.trim().is_empty() {
            continue;
        }
        let name = match names.get(at) {
            Some(name) if !name.is_empty() => name.clone(),
            Some(_) | None => format!("column_{}", at + 1),
        };
        row.insert(name, Value::String(text));
    }
    for known in ["title", "text", "author", "document_type", "source_url", "tags", "id"] {
        let key = row.keys().find(|key| key.eq_ignore_ascii_case(known)).cloned();
        if let Some(key) = key.filter(|key| key != known)
            && let Some(value) = row.remove(&key)
        {
            row.insert(known.to_owned(), value);
        }
    }
    if let Some(Value::String(tags)) = row.get("tags") {
        let tags: Vec<&str> = tags.split([',', ';', '|']).map(str::trim).collect();
        let tags: Vec<&str> = tags.into_iter().filter(|tag| !tag.is_empty()).collect();
        row.insert("tags".to_owned(), tags.into());
    }
    numbers(&mut row);
    row
}

/// The documents of one row, or how it failed.
fn row_items(
    maker: &ItemMaker,
    fields: &Fields,
    place: Place,
    row: Map<String, Value>,
) -> Result<Vec<Item>, Found> {
    let line = place.line.unwrap_or_default();
    let (key, mut document) = keyed(row, line);
    if let Err(reason) = shape(&mut document, fields) {
        return Err(Found::Failed { place, reason });
    }
    let parts = parts(document).into_iter().enumerate();
    Ok(parts.map(|(part, document)| maker.item(place.clone(), &key, part, document)).collect())
}

/// Takes the row's own id: a UUID becomes the document's id, anything else makes one and is kept
/// as `original_id`.
fn keyed(mut row: Map<String, Value>, line: u64) -> (Key, Map<String, Value>) {
    let key = match row.remove("id") {
        None | Some(Value::Null) => Key::Line(line),
        Some(id) => {
            let name = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
            if let Ok(uuid) = Uuid::parse_str(&name) {
                Key::Given(uuid)
            } else {
                row.insert("original_id".to_owned(), id);
                Key::Named(name)
            }
        }
    };
    (key, row)
}

/// Gives a row the API's fields: a title, and exactly one of `text`, `texts` and `chunks`.
fn shape(row: &mut Map<String, Value>, fields: &Fields) -> Result<(), String> {
    let has_passages =
        ["texts", "chunks"].iter().any(|name| row.get(*name).is_some_and(|v| !v.is_null()));
    if fields.text.is_some() || (!has_passages && !row.contains_key("text")) {
        let text = match take(row, fields.text.as_deref(), &TEXT_NAMES) {
            Some(text) => text,
            None if fields.text.is_some() => return Err("the text field is missing".to_owned()),
            None => listed(row),
        };
        row.insert("text".to_owned(), Value::String(text));
    }
    if fields.title.is_some() || !row.contains_key("title") {
        let title = take(row, fields.title.as_deref(), &TITLE_NAMES);
        let title = title.unwrap_or_else(|| first_words(row));
        row.insert("title".to_owned(), Value::String(title));
    }
    let blank = row.get("text").and_then(Value::as_str).is_some_and(|text| text.trim().is_empty());
    if blank { Err("no text".to_owned()) } else { Ok(()) }
}

/// Removes and returns the field called `named`, else the first of `names` in any letter case.
fn take(row: &mut Map<String, Value>, named: Option<&str>, names: &[&str]) -> Option<String> {
    let wanted: &[&str] = match &named {
        Some(name) => std::slice::from_ref(name),
        None => names,
    };
    let key = wanted.iter().find_map(|name| {
        row.keys().find(|key| key.eq_ignore_ascii_case(name) && row.get(*key).is_some_and(is_words))
    });
    let value = row.remove(&key?.clone())?;
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

fn is_words(value: &Value) -> bool {
    value.is_string() || value.is_number()
}

/// The text of a row without a text field: every field with its name.
fn listed(row: &Map<String, Value>) -> String {
    let lines = row.iter().filter(|(_, value)| is_words(value)).map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{name}: {value}\n")
    });
    lines.collect()
}

/// A title for a row without one: how its text begins.
fn first_words(row: &Map<String, Value>) -> String {
    let text = match (row.get("text"), row.get("texts").or(row.get("chunks"))) {
        (Some(Value::String(text)), _) => text.as_str(),
        (_, Some(Value::Array(texts))) => {
            let first = texts.first();
            first.and_then(|text| text.as_str().or(text.get("text")?.as_str())).unwrap_or_default()
        }
        _ => "",
    };
    let words: Vec<&str> = text.split_whitespace().take(8).collect();
    let title: String = words.join(" ").chars().take(80).collect();
    if title.is_empty() { "Untitled".to_owned() } else { title }
}

/// Cells that are plain numbers or booleans become such, so that filters can compare them. Only
/// what prints back the same is converted: "007" stays a string.
fn numbers(row: &mut Map<String, Value>) {
    const WORDS: [&str; 7] =
        ["title", "text", "author", "document_type", "source_url", "id", "tags"];
    for (_, value) in row.iter_mut().filter(|(name, _)| !WORDS.contains(&name.as_str())) {
        let Value::String(text) = &*value else { continue };
        let whole = text.parse::<i64>().ok().filter(|n| n.to_string() == *text).map(Number::from);
        let number = whole.or_else(|| {
            let real = text.parse::<f64>().ok().filter(|n| n.to_string() == *text);
            real.and_then(Number::from_f64)
        });
        *value = match (number, text.as_str()) {
            (Some(number), _) => Value::Number(number),
            (None, "true") => Value::Bool(true),
            (None, "false") => Value::Bool(false),
            (None, _) => continue,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::cli::source::Format;

    /// Documents without ids and hashes, failures as "line: reason".
    fn found(name: &str, content: &[u8], fields: &Fields) -> (Vec<Value>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        let format = Format::of(Path::new(name)).unwrap();
        let source = Source { path: Arc::from(path), format, bytes: content.len() as u64 };
        let (mut documents, mut failures, mut bytes) = (Vec::new(), Vec::new(), 0);
        let flow =
            super::super::read::read(&source, &ItemMaker::new(Uuid::nil()), fields, &mut |found| {
                match found {
                    Found::Item(item) => {
                        bytes += item.source_bytes;
                        let mut document: Value = serde_json::from_slice(&item.line).unwrap();
                        let fields = document.as_object_mut().unwrap();
                        fields.remove("id");
                        let mut custom = fields.remove("metadata").unwrap();
                        for key in ["import_path", "import_sha256"] {
                            custom.as_object_mut().unwrap().remove(key);
                        }
                        if custom != json!({}) {
                            fields.insert("metadata".to_owned(), custom);
                        }
                        documents.push(document);
                    }
                    Found::Failed { place, reason } => {
                        failures.push(format!("{}: {reason}", place.line.unwrap_or_default()));
                    }
                    Found::Bytes(more) => bytes += more,
                    Found::Empty | Found::Binary | Found::Latin1 => {}
                }
                ControlFlow::Continue(())
            });
        assert!(flow.is_continue());
        assert!(bytes <= source.bytes, "{bytes} of {}", source.bytes);
        (documents, failures)
    }

    #[test]
    fn a_bad_line_fails_alone_and_with_its_number() {
        let (documents, failures) = found(
            "a.ndjson",
            b"{\"title\":\"A\",\"text\":\"x\",\"n\":\"1\"}\n\n{\"title\nnot json\n[1]\n{\"content\":\"y z\"}",
            &Fields::default(),
        );
        assert_eq!(
            documents,
            [json!({"title":"A","text":"x","n":"1"}), json!({"title":"y z","text":"y z"})]
        );
        let lines: Vec<_> = failures.iter().map(|f| f.split(':').next().unwrap()).collect();
        assert_eq!(lines, ["3", "4", "5"], "{failures:?}");
    }

    #[test]
    fn a_line_without_end_is_not_held() {
        let mut content = vec![b'a'; (16 << 20) + 10];
        content.extend_from_slice(b"\n{\"text\":\"x\"}\n");
        let (documents, failures) = found("a.jsonl", &content, &Fields::default());
        assert_eq!(documents, [json!({"title":"x","text":"x"})]);
        assert_eq!(failures, ["1: longer than 16 MiB"]);
    }

    #[test]
    fn columns_are_mapped_by_name_and_the_rest_is_custom() {
        let (documents, failures) = found(
            "a.csv",
            b"ID,Title,Body,Tags,year,code,ok\n7,One,\"a,\nb\",x; y,1999,007,true\n,Two,c,,,,\n",
            &Fields::default(),
        );
        assert_eq!(
            documents,
            [
                json!({"title":"One","text":"a,\nb","tags":["x","y"],"year":1999,"code":"007","ok":true,"original_id":"7"}),
                json!({"title":"Two","text":"c"}),
            ]
        );
        assert!(failures.is_empty(), "{failures:?}");
    }

    #[test]
    fn rows_without_a_text_column_are_listed_and_named_fields_win() {
        let (documents, _) = found("a.tsv", b"city\tsize\nOslo\t3\n", &Fields::default());
        assert_eq!(documents[0]["text"], "city: Oslo\nsize: 3\n");
        let fields = Fields { title: Some("city".into()), text: Some("size".into()) };
        let (documents, _) = found("a.tsv", b"city\tsize\nOslo\t3\n", &fields);
        assert_eq!(documents, [json!({"title":"Oslo","text":"3"})]);
    }

    #[test]
    fn a_line_of_an_export_is_sent_as_it_is() {
        let line = json!({
            "id": "00000000-0000-0000-0000-000000000009", "title": "A", "created_at": "x",
            "metadata": {"import_sha256": "old", "a": 1}, "chunks": [{"id": "b", "text": "one"}],
        });
        let line = format!("{line}\n{{\"status\":\"complete\",\"total_documents\":1}}\n");
        let (documents, _) = found("a.ndjson", line.as_bytes(), &Fields::default());
        assert_eq!(
            documents,
            [json!({
                "title": "A", "created_at": "x", "metadata": {"a": 1},
                "chunks": [{"id": "b", "text": "one"}],
            })],
            "with the note of an older import, which the helper takes out"
        );
    }
}
