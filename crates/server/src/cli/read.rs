//! A file as documents: which parser reads it, and how what is too long becomes several documents.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::Path;

use serde_json::{Map, Value};

use super::item::{Item, ItemMaker, Key, Place};
use super::plain::Encoding;
use super::source::{Format, Source};
use super::{html, lines, markdown, plain};

/// The largest file that is read as one document.
pub(crate) const FILE_BYTES_MAX: u64 = 64 << 20;

/// The largest HTML file: its parser needs many times its size.
const HTML_BYTES_MAX: u64 = 16 << 20;

/// Characters of one document. The server splits a text into at most 1,000 chunks of at most
/// 1,000 characters, and chunks that end with a sentence or paragraph are shorter than that; a
/// longer text becomes several documents. It is also what a slow machine embeds well within the
/// server's time limit.
pub(crate) const PART_CHARS_MAX: usize = 100_000;

/// Passages of one document when the caller has split the text (the server's own limit).
pub(crate) const PART_TEXTS_MAX: usize = 1_000;

/// Characters of a title that was found rather than given.
const TITLE_CHARS_MAX: usize = 200;

/// The title and text of a file that is one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// The title the text itself names, if any.
    pub(crate) title: Option<String>,
    /// The text.
    pub(crate) text: String,
}

/// What reading a source comes upon.
#[derive(Debug)]
pub(crate) enum Found {
    /// A document.
    Item(Item),
    /// Bytes of the source that are done without a document of their own.
    Bytes(u64),
    /// Nothing to import in the whole file: no text in it.
    Empty,
    /// Not text, whatever its name says.
    Binary,
    /// The bytes were not UTF-8 and were read as Latin-1.
    Latin1,
    /// The file or one of its lines cannot be imported.
    Failed {
        /// Where.
        place: Place,
        /// Why.
        reason: String,
    },
}

/// Takes what is found; breaks when nobody wants more.
pub(crate) type Sink<'a> = dyn FnMut(Found) -> ControlFlow<()> + 'a;

/// Which columns or fields of a row hold the title and the text, when the usual names do not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields {
    pub(crate) title: Option<String>,
    pub(crate) text: Option<String>,
}

/// Reads `source` and hands every document of it to `sink`.
pub(crate) fn read(
    source: &Source,
    maker: &ItemMaker,
    fields: &Fields,
    sink: &mut Sink<'_>,
) -> ControlFlow<()> {
    let place = Place { path: source.path.clone(), line: None };
    let outcome = match source.format {
        Format::NdJson => lines::ndjson(source, maker, fields, sink),
        Format::Csv { delimiter } => lines::csv(source, delimiter, maker, fields, sink),
        Format::Markdown | Format::Plain | Format::Html | Format::ReStructured => {
            whole(source, maker, sink)
        }
    };
    match outcome {
        Ok(flow) => flow,
        Err(error) => sink(Found::Failed { place, reason: error.to_string() }),
    }
}

/// A file that is one document, or several when it is too long for one.
fn whole(source: &Source, maker: &ItemMaker, sink: &mut Sink<'_>) -> io::Result<ControlFlow<()>> {
    let place = Place { path: source.path.clone(), line: None };
    let limit = if source.format == Format::Html { HTML_BYTES_MAX } else { FILE_BYTES_MAX };
    let Some(bytes) = read_up_to(&source.path, limit)? else {
        let reason = format!("larger than {} MiB, the most one document is read from", limit >> 20);
        return Ok(sink(Found::Failed { place, reason }));
    };
    let Some((text, encoding)) = plain::decode(bytes) else { return Ok(sink(Found::Binary)) };
    if encoding == Encoding::Latin1 && sink(Found::Latin1).is_break() {
        return Ok(ControlFlow::Break(()));
    }
    let page = match source.format {
        Format::Markdown => markdown::page(&text),
        Format::Html if html::depth(&text) > html::DEPTH_MAX => {
            let reason = format!("more than {} elements inside one another", html::DEPTH_MAX);
            return Ok(sink(Found::Failed { place, reason }));
        }
        Format::Html => html::page(&text),
        Format::ReStructured => plain::restructured(&text),
        Format::Plain | Format::NdJson | Format::Csv { .. } => plain::text(&text),
    };
    if page.text.trim().is_empty() {
        return Ok(sink(Found::Empty));
    }
    let title = page.title.unwrap_or_else(|| file_title(&source.path));
    let mut document = Map::new();
    document.insert("title".to_owned(), Value::String(shortened(&title)));
    document.insert("text".to_owned(), Value::String(page.text.trim().to_owned()));
    let items = parts(document).into_iter().enumerate();
    let items = items.map(|(part, document)| maker.item(place.clone(), &Key::File, part, document));
    Ok(hand_over(items.collect(), source.bytes, sink))
}

/// Hands items over, sharing `bytes` of the source among them.
pub(crate) fn hand_over(items: Vec<Item>, bytes: u64, sink: &mut Sink<'_>) -> ControlFlow<()> {
    let mut left = bytes;
    let mut count = items.len() as u64;
    for mut item in items {
        item.source_bytes = left / count.max(1);
        left -= item.source_bytes;
        count = count.saturating_sub(1);
        sink(Found::Item(item))?;
    }
    ControlFlow::Continue(())
}

/// The bytes of a file, or nothing when there are more than `limit`.
fn read_up_to(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

fn file_title(path: &Path) -> String {
    path.file_stem().or(path.file_name()).unwrap_or_default().to_string_lossy().into_owned()
}

fn shortened(title: &str) -> String {
    title.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(TITLE_CHARS_MAX).collect()
}

/// A document whose text or passages exceed what one document holds, as several: the second is
/// titled "title (part 2)" and so on. Everything else is repeated in each.
pub(crate) fn parts(document: Map<String, Value>) -> Vec<Map<String, Value>> {
    let pieces: Vec<(&str, Value)> = match (document.get("text"), document.get("texts")) {
        (Some(Value::String(text)), _) if text.len() > PART_CHARS_MAX => {
            split(text, PART_CHARS_MAX).into_iter().map(|part| ("text", part.into())).collect()
        }
        (_, Some(Value::Array(texts))) if texts.len() > PART_TEXTS_MAX => {
            texts.chunks(PART_TEXTS_MAX).map(|part| ("texts", part.into())).collect()
        }
        _ => return vec![document],
    };
    let title = document.get("title").and_then(Value::as_str).unwrap_or("Untitled").to_owned();
    let several = pieces.len() > 1;
    let numbered = pieces.into_iter().enumerate();
    let part = |(at, (field, piece)): (usize, (&str, Value))| {
        let mut part = document.clone();
        part.insert(field.to_owned(), piece);
        if several {
            part.insert("title".to_owned(), format!("{title} (part {})", at + 1).into());
        }
        part
    };
    numbered.map(part).collect()
}

/// `text` in pieces of at most `chars_max` characters, cut after a paragraph where one ends in the
/// last half of the piece, else after a line, else after a space, else anywhere.
fn split(text: &str, chars_max: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((end, _)) = rest.char_indices().nth(chars_max) {
        let (window, _) = rest.split_at(end);
        let cut = ["\n\n", "\n", " "]
            .iter()
            .filter_map(|gap| window.rfind(gap).map(|at| at + gap.len()))
            .find(|&at| at > window.len() / 2)
            .unwrap_or(end);
        let (piece, after) = rest.split_at(cut);
        pieces.push(piece.trim().to_owned());
        rest = after;
    }
    pieces.push(rest.trim().to_owned());
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_where_a_paragraph_ends() {
        assert_eq!(split("aaaa\n\nbb cc", 8), ["aaaa", "bb cc"]);
        assert_eq!(split("aaaaaa bbb", 8), ["aaaaaa", "bbb"]);
        assert_eq!(split("aaaaaaaaaaaaaaaaa", 8), ["aaaaaaaa", "aaaaaaaa", "a"]);
        assert_eq!(split("\u{e9}\u{e9}\u{e9}", 2), ["\u{e9}\u{e9}", "\u{e9}"]);
    }

    #[test]
    fn nothing_of_a_long_text_is_lost() {
        let words: Vec<String> = (0..100_000).map(|n| format!("word{n}")).collect();
        let document = Map::from_iter([
            ("title".to_owned(), Value::from("T")),
            ("text".to_owned(), Value::from(words.join(" "))),
            ("tags".to_owned(), Value::from(vec!["a"])),
        ]);
        let parts = parts(document);
        assert!(parts.len() > 1);
        assert_eq!(parts[1]["title"], "T (part 2)");
        assert_eq!(parts[1]["tags"], serde_json::json!(["a"]));
        let all: Vec<&str> =
            parts.iter().flat_map(|p| p["text"].as_str().unwrap().split(' ')).collect();
        assert_eq!(all, words);
    }
}
