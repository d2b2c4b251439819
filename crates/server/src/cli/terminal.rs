//! Standard output and standard error as the commands see them.
//!
//! Answers go to `out`, remarks to `notes` (U1 of the module above). Colour is used where the
//! stream is a terminal and `NO_COLOR` is not set.

use std::fmt;
use std::io::{self, Write};

/// Whether escape codes may be written.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Escape codes are written.
    Ansi,
    /// Plain text only.
    None,
}

/// How a piece of text is set off.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Titles and figures that matter.
    Strong,
    /// What may be skipped.
    Faint,
    /// A word of the query inside a passage.
    Match,
    /// A fault.
    Bad,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Style::Strong => "1",
            Style::Faint => "2",
            Style::Match => "1;33",
            Style::Bad => "31",
        }
    }
}

/// Where a command writes.
pub struct Terminal {
    out: Box<dyn Write + Send>,
    notes: Box<dyn Write + Send>,
    colour: Colour,
    columns: usize,
    bars: bool,
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal")
            .field("colour", &self.colour)
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}

/// Columns assumed where the width is not known, as in a pipe.
const COLUMNS_UNKNOWN: usize = 100;

impl Terminal {
    /// The process's own streams. `no_color` says that `NO_COLOR` is set and not empty.
    pub fn of_process(no_color: bool) -> Terminal {
        let out = console::Term::stdout();
        let colour = if out.is_term() && !no_color { Colour::Ansi } else { Colour::None };
        let columns = out.size_checked().map_or(COLUMNS_UNKNOWN, |(_, columns)| columns.into());
        Terminal {
            out: Box::new(io::stdout()),
            notes: Box::new(io::stderr()),
            colour,
            columns,
            bars: console::Term::stderr().is_term(),
        }
    }

    /// A terminal that writes to the two given writers, without progress bars.
    pub fn new(
        out: Box<dyn Write + Send>,
        notes: Box<dyn Write + Send>,
        colour: Colour,
        columns: usize,
    ) -> Terminal {
        Terminal { out, notes, colour, columns, bars: false }
    }

    /// Whether progress bars can be drawn on standard error.
    pub(crate) fn has_bars(&self) -> bool {
        self.bars
    }

    /// Width in columns, at least 40.
    pub(crate) fn columns(&self) -> usize {
        self.columns.max(40)
    }

    /// Writes one line of the answer.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.write_all(b"\n")
    }

    /// Writes bytes of the answer as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Hands what was written to its reader.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Writes one line of remarks. A reader of remarks that has left is no reason to stop.
    pub(crate) fn note(&mut self, text: &str) {
        self.notes
            .write_all(text.as_bytes())
            .and_then(|()| self.notes.write_all(b"\n"))
            .and_then(|()| self.notes.flush())
            .ok();
    }

    /// `text` set off by `style` where colour is allowed.
    pub(crate) fn styled(&self, style: Style, text: &str) -> String {
        paint(self.colour, style, text)
    }

    /// Whether escape codes may be written.
    pub(crate) fn colour(&self) -> Colour {
        self.colour
    }
}

/// `text` set off by `style` where `colour` allows it.
pub(crate) fn paint(colour: Colour, style: Style, text: &str) -> String {
    match colour {
        Colour::Ansi => format!("\u{1b}[{}m{text}\u{1b}[0m", style.code()),
        Colour::None => text.to_owned(),
    }
}

/// `text` with every control character but the newline made visible as a space, so that nothing
/// from a document can drive the terminal.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

/// A whole number with commas between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `count` with its noun, in the plural where there is not exactly one.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (123_456, "123,456"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(counted(1, "document"), "1 document");
        assert_eq!(counted(0, "document"), "0 documents");
    }

    #[test]
    fn text_of_a_document_cannot_drive_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\tc\nd"), "a [2Jb c\nd");
    }
}
