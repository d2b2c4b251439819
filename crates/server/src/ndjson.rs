//! NDJSON: a body that arrives in pieces, cut into lines, and the lines of an answer.
//!
//! Memory is bounded by the longest line allowed plus one piece: a longer line is dropped as it
//! arrives and reported by its number. However the body is cut into pieces, the lines are the same.

use std::io;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde_json::ser::Formatter;

/// Appends a value as one line, the only way in which an answer's lines are written.
pub(crate) fn write_line(
    out: &mut Vec<u8>,
    value: &impl Serialize,
) -> Result<(), serde_json::Error> {
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut *out, OneLine))?;
    out.push(b'\n');
    Ok(())
}

/// Compact JSON in which nothing looks like the end of a line. JSON allows U+0085, U+2028 and
/// U+2029 in a string as they are, but who cuts lines as Unicode does (`splitlines` of Python)
/// would cut the string in two.
#[derive(Debug)]
struct OneLine;

impl Formatter for OneLine {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        let mut rest = fragment.as_bytes();
        let mut from = 0;
        // The first bytes of the three; neither is ever within a character.
        while let Some(at) = memchr::memchr2(0xc2, 0xe2, &rest[from..]).map(|at| from + at) {
            let (escape, bytes): (&[u8], usize) = match &rest[at..] {
                [0xc2, 0x85, ..] => (b"\\u0085", 2),
                [0xe2, 0x80, 0xa8, ..] => (b"\\u2028", 3),
                [0xe2, 0x80, 0xa9, ..] => (b"\\u2029", 3),
                _ => {
                    from = at + 1;
                    continue;
                }
            };
            writer.write_all(&rest[..at])?;
            writer.write_all(escape)?;
            rest = &rest[at + bytes..];
            from = 0;
        }
        writer.write_all(rest)
    }
}

/// One line that is not blank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// From 1; blank lines count.
    pub(crate) number: u64,
    /// The line without its end.
    pub(crate) text: LineText,
}

/// What a line holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LineText {
    /// All of it.
    Whole(Bytes),
    /// More than allowed.
    TooLong,
}

/// Cuts pieces into lines.
#[derive(Debug)]
pub(crate) struct LineSplitter {
    buffer: BytesMut,
    /// Bytes of the buffer that hold no newline.
    scanned: usize,
    number: u64,
    /// The current line is too long: what comes of it is dropped.
    dropping: bool,
    bytes_max: usize,
}

impl LineSplitter {
    /// A splitter of lines of at most `bytes_max` bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), scanned: 0, number: 0, dropping: false, bytes_max }
    }

    /// Takes a piece. Lines are to be taken out before the next one comes.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next line whose end has arrived.
    pub(crate) fn next_line(&mut self) -> Option<Line> {
        loop {
            let Some(at) = memchr::memchr(b'\n', &self.buffer[self.scanned..]) else {
                self.scanned = self.buffer.len();
                if self.scanned > self.bytes_max {
                    self.dropping = true;
                    self.buffer.clear();
                    self.scanned = 0;
                }
                return None;
            };
            let mut text = self.buffer.split_to(self.scanned + at + 1);
            text.truncate(text.len() - 1);
            self.scanned = 0;
            let line = self.line(&text.freeze());
            if line.is_some() {
                return line;
            }
        }
    }

    /// The last line, if the body does not end with a newline.
    pub(crate) fn last_line(&mut self) -> Option<Line> {
        let rest = self.buffer.split().freeze();
        self.scanned = 0;
        if rest.is_empty() && !self.dropping { None } else { self.line(&rest) }
    }

    fn line(&mut self, text: &Bytes) -> Option<Line> {
        self.number += 1;
        let number = self.number;
        if std::mem::take(&mut self.dropping) || text.len() > self.bytes_max {
            return Some(Line { number, text: LineText::TooLong });
        }
        let trimmed = text.trim_ascii();
        if trimmed.is_empty() {
            return None;
        }
        Some(Line { number, text: LineText::Whole(text.slice_ref(trimmed)) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, bytes_max: usize) -> Vec<Line> {
        let mut splitter = LineSplitter::new(bytes_max);
        let mut lines = Vec::new();
        for piece in pieces {
            splitter.push(piece);
            while let Some(line) = splitter.next_line() {
                lines.push(line);
            }
            assert!(splitter.buffer.len() <= bytes_max);
        }
        lines.extend(splitter.last_line());
        lines
    }

    #[test]
    fn blank_lines_count_and_ends_are_optional() {
        let whole = |number, text: &'static str| Line {
            number,
            text: LineText::Whole(Bytes::from_static(text.as_bytes())),
        };
        assert_eq!(lines([&b"a\r\n\n  \nb"[..]], 8), [whole(1, "a"), whole(4, "b")]);
        assert_eq!(lines([&b""[..]], 8), []);
        assert_eq!(lines([&b"\n"[..]], 8), []);
    }

    #[test]
    fn a_line_that_is_too_long_is_dropped_alone() {
        let text = b"aaaaaaaaa\nb\ncccccccccc";
        let found = lines(text.chunks(3), 4);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], Line { number: 1, text: LineText::TooLong });
        assert_eq!(found[1].text, LineText::Whole(Bytes::from_static(b"b")));
        assert_eq!(found[2], Line { number: 3, text: LineText::TooLong });
    }

    #[test]
    fn no_character_of_a_line_ends_it_but_the_last() {
        let text = "a\u{85}b\u{2028}\u{2029}c\u{2027}\u{202a}\u{a0}\u{e2}\u{2028}";
        let value = serde_json::json!({ text: [text, "\n\r\u{b}\u{c}\u{1c}\u{1d}\u{1e}"] });
        let mut out = Vec::new();
        write_line(&mut out, &value).unwrap();
        let line = String::from_utf8(out).unwrap();
        let ends = "\n\r\u{b}\u{c}\u{1c}\u{1d}\u{1e}\u{85}\u{2028}\u{2029}";
        assert_eq!(line.find(|c| ends.contains(c)), Some(line.len() - 1), "{line:?}");
        assert!(
            line.contains("a\\u0085b\\u2028\\u2029c\u{2027}\u{202a}\u{a0}\u{e2}\\u2028"),
            "{line}"
        );
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), value);
    }

    proptest! {
        #[test]
        fn any_cutting_gives_the_same_lines(
            text in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b' '), Just(b'a'), Just(b'\r')], 0..80),
            cuts in proptest::collection::vec(1_usize..9, 1..40),
        ) {
            let mut pieces = Vec::new();
            let mut rest = text.as_slice();
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            prop_assert_eq!(lines(pieces, 8), lines([text.as_slice()], 8));
        }
    }
}
