//! A body that arrives in pieces, cut into lines.
//!
//! Memory is bounded by the longest line allowed plus one piece: a longer line is dropped as it
//! arrives and reported by its number. However the body is cut into pieces, the lines are the same.

use bytes::{Bytes, BytesMut};

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
