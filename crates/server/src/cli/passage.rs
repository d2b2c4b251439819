//! A passage as a reader wants to see it: the few lines of it that answer, wrapped to the terminal,
//! with the words of the query set off.

use console::measure_text_width;

use super::terminal::{Colour, Style, harmless, paint};

/// Letters two words must share at their beginning to count as forms of one word.
const STEM_CHARS_MIN: usize = 4;

/// Letters by which two forms of one word may differ at their end.
const ENDING_CHARS_MAX: usize = 3;

/// The words of a query, for finding them in passages.
#[derive(Clone, Debug)]
pub(crate) struct QueryWords {
    words: Vec<Vec<char>>,
}

impl QueryWords {
    /// The words of `query` that tell something: those of fewer than three letters never do.
    pub(crate) fn new(query: &str) -> QueryWords {
        const COMMON: [&str; 24] = [
            "the", "and", "for", "are", "how", "what", "why", "who", "when", "where", "which",
            "that", "this", "with", "from", "into", "does", "can", "not", "was", "has", "have",
            "its", "you",
        ];
        let words = query.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase);
        let words = words.filter(|w| w.chars().count() >= 3 && !COMMON.contains(&w.as_str()));
        QueryWords { words: words.map(|word| word.chars().collect()).collect() }
    }

    /// Whether `word` is a word of the query or another form of one.
    fn has(&self, word: &str) -> bool {
        let word: Vec<char> = word.to_lowercase().chars().collect();
        self.words.iter().any(|query| {
            let shared = query.iter().zip(&word).take_while(|(a, b)| a == b).count();
            let longer = query.len().max(word.len());
            *query == word || (shared >= STEM_CHARS_MIN && longer - shared <= ENDING_CHARS_MAX)
        })
    }
}

/// At most `lines_max` lines of `text`, each at most `columns` wide: those with the most words of
/// the query, or the first ones when none has any. What is left out is marked with "...".
pub(crate) fn excerpt(
    text: &str,
    words: &QueryWords,
    columns: usize,
    lines_max: usize,
) -> Vec<String> {
    // Room for a mark on either side.
    let lines = wrapped(&harmless(text), columns.saturating_sub(8));
    let hits: Vec<usize> = lines
        .iter()
        .map(|line| pieces(line).filter(|(word, is_word)| *is_word && words.has(word)).count())
        .collect();
    let count = lines_max.min(lines.len());
    let window = |start: &usize| hits.iter().skip(*start).take(count).sum::<usize>();
    // The first of the best windows: `max_by_key` alone would take the last.
    let starts = 0..=lines.len().saturating_sub(count);
    let start = starts.rev().max_by_key(window).unwrap_or(0);
    let end = start + count;
    let mut shown: Vec<String> = lines.get(start..end).unwrap_or_default().to_vec();
    if start > 0
        && let Some(first) = shown.first_mut()
    {
        *first = format!("... {first}");
    }
    if end < lines.len()
        && let Some(last) = shown.last_mut()
    {
        last.push_str(" ...");
    }
    shown
}

/// `line` with the words of the query set off.
pub(crate) fn highlighted(line: &str, words: &QueryWords, colour: Colour) -> String {
    let piece = |(piece, is_word): (&str, bool)| {
        if is_word && words.has(piece) {
            paint(colour, Style::Match, piece)
        } else {
            piece.to_owned()
        }
    };
    pieces(line).map(piece).collect()
}

/// `text` cut to `columns`; "..." marks a cut.
pub(crate) fn clipped(text: &str, columns: usize) -> String {
    if measure_text_width(text) <= columns {
        return text.to_owned();
    }
    let head = clipped_exactly(text, columns.saturating_sub(3));
    format!("{}...", head.trim_end())
}

/// The line as words and what stands between them, in order.
fn pieces(line: &str) -> impl Iterator<Item = (&str, bool)> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let is_word = rest.chars().next()?.is_alphanumeric();
        let end = rest.find(|c: char| c.is_alphanumeric() != is_word).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some((piece, is_word))
    })
}

/// `text` as lines of at most `columns`, broken at spaces where there are any. Blank lines and
/// indentation are dropped: a passage in a list is to be compact.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(8);
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            let mut word = word.to_owned();
            if !line.is_empty()
                && measure_text_width(&line) + 1 + measure_text_width(&word) > columns
            {
                lines.push(std::mem::take(&mut line));
            }
            while measure_text_width(&word) > columns {
                let head = clipped_exactly(&word, columns);
                word = word.split_off(head.len());
                lines.push(head);
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(&word);
        }
        if !line.is_empty() {
            lines.push(line);
        }
    }
    lines
}

/// The longest beginning of `text` that fits, at least one character.
fn clipped_exactly(text: &str, columns: usize) -> String {
    let mut head = String::new();
    let mut width = 0;
    for c in text.chars() {
        width += measure_text_width(c.encode_utf8(&mut [0; 4]));
        if width > columns && !head.is_empty() {
            break;
        }
        head.push(c);
    }
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_a_word_are_found_and_other_words_are_not() {
        let words = QueryWords::new("How are Sockets closed?");
        for (word, found) in [
            ("socket", true),
            ("sockets", true),
            ("SOCKET", true),
            ("closing", true),
            ("closed", true),
            ("are", false),
            ("rocket", false),
            ("socketpair", false),
        ] {
            assert_eq!(words.has(word), found, "{word}");
        }
    }

    #[test]
    fn the_lines_with_the_words_are_shown() {
        let text = "one two\nthree four\nfive sockets\nsix seven\neight";
        let words = QueryWords::new("socket");
        assert_eq!(excerpt(text, &words, 20, 1), ["... five sockets ..."]);
        assert_eq!(excerpt(text, &QueryWords::new("zebra"), 20, 2), ["one two", "three four ..."]);
        assert_eq!(excerpt("short", &words, 20, 3), ["short"]);
        assert!(excerpt("", &words, 20, 3).is_empty());
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let text =
            "a ".repeat(50) + &"b".repeat(75) + " \u{6f22}\u{5b57}\u{6f22}\u{5b57}\u{6f22}\u{5b57}";
        for line in excerpt(&text, &QueryWords::new("bbbb"), 24, 3) {
            assert!(measure_text_width(&line) <= 24, "{line:?}");
        }
    }

    #[test]
    fn words_are_set_off_only_where_colour_is_allowed() {
        let words = QueryWords::new("socket");
        assert_eq!(highlighted("a socket, b", &words, Colour::None), "a socket, b");
        let lit = highlighted("a socket, b", &words, Colour::Ansi);
        assert_eq!(lit, "a \u{1b}[1;33msocket\u{1b}[0m, b");
    }
}
