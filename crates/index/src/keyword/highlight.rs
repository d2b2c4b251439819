//! Where a text has what was asked for.

use std::collections::HashSet;
use std::ops::Range;

use unicode_segmentation::GraphemeCursor;

use super::query::{KeywordQuery, What};
use crate::analysis::Analyzer;

/// The words of a text that have a term that the query ranks by or begin as it asks for, ascending;
/// words that touch are one. The text is taken for one of the query's language. On borders of what
/// readers see as characters (grapheme clusters). O(bytes).
pub fn highlights(text: &str, query: &KeywordQuery) -> Vec<Range<usize>> {
    let (mut whole, mut begins) = (HashSet::new(), HashSet::new());
    for term in &query.terms {
        match &term.what {
            What::Term(term) => drop(whole.insert(&**term)),
            What::Prefix(prefix) => {
                begins.insert(&*prefix.begin);
                whole.insert(&*prefix.term);
            }
            // Its words rank as well.
            What::Phrase(_) => {}
        }
    }
    // As many looks as a word has characters, however many beginnings are asked for.
    let begun = |word: &str| {
        let ends = word.char_indices().map(|(at, letter)| at + letter.len_utf8());
        !begins.is_empty() && ends.into_iter().any(|end| begins.contains(&word[..end]))
    };
    let mut found: Vec<Range<usize>> = Vec::new();
    Analyzer::new(query.language).tokens(text, |token| {
        if !whole.contains(token.term) && !begun(token.form) {
            return;
        }
        let bytes = at_or_before(text, token.bytes.start)..at_or_after(text, token.bytes.end);
        match found.last_mut() {
            Some(last) if bytes.start <= last.end => last.end = bytes.end.max(last.end),
            _ => found.push(bytes),
        }
    });
    found
}

/// How what was found is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Highlight {
    /// Before a word that was found.
    pub before: String,
    /// After it.
    pub after: String,
    /// How many parts of the text at most.
    pub fragments: usize,
    /// How many characters each has at most, and about: it ends with a word.
    pub fragment_chars: usize,
}

impl Default for Highlight {
    fn default() -> Self {
        let (before, after) = ("<em>".to_owned(), "</em>".to_owned());
        Self { before, after, fragments: 3, fragment_chars: 160 }
    }
}

/// The parts of a text that have the most of what was found, in the order of the text, each found
/// word between the marks. O(found + bytes).
pub fn fragments(text: &str, found: &[Range<usize>], style: &Highlight) -> Vec<String> {
    // A part begins with a word that was found, and ends before one that it has no room for.
    let mut parts: Vec<&[Range<usize>]> = Vec::new();
    let mut rest = found;
    while let Some(first) = rest.first() {
        let room = forward(text, first.start, style.fragment_chars);
        let within = rest.partition_point(|word| word.end <= room).max(1);
        let (part, after) = rest.split_at(within);
        parts.push(part);
        rest = after;
    }
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|place| std::cmp::Reverse(parts[*place].len()));
    order.truncate(style.fragments);
    order.sort_unstable();
    let fragment = |place: usize| {
        // No part shows what is of another.
        let from = place.checked_sub(1).and_then(|before| parts[before].last());
        let to = parts.get(place + 1).and_then(|after| after.first());
        let room = from.map_or(0, |word| word.end)..to.map_or(text.len(), |word| word.start);
        fragment(text, (parts[place], room), style)
    };
    order.into_iter().map(fragment).collect()
}

/// A part of a text around words that were found, within `room`.
fn fragment(
    text: &str,
    (words, room): (&[Range<usize>], Range<usize>),
    style: &Highlight,
) -> String {
    let (Some(first), Some(last)) = (words.first(), words.last()) else { return String::new() };
    // Words that touch may be longer than what is to be shown; of any, one character is.
    let most = forward(text, first.start, style.fragment_chars);
    let most = if most > first.start { most } else { at_or_after(text, first.start + 1) };
    let last = last.start.min(most)..last.end.min(most);
    let shown = text[first.start..last.end].chars().count();
    let spare = style.fragment_chars.saturating_sub(shown);
    // A third of what is left in front, the rest behind; at borders of words where there are any.
    let start = backward(text, first.start, spare / 3).max(room.start);
    let start = if start == 0 { 0 } else { after_space(text, start, first.start) };
    let end = forward(text, last.end, spare - spare / 3).min(room.end);
    let end = if end == text.len() { end } else { before_space(text, last.end, end) };
    let mut out = String::with_capacity(end - start + 16 * words.len());
    let mut at = start;
    for word in words {
        let word = word.start..word.end.min(most);
        out.push_str(&text[at..word.start]);
        out.push_str(&style.before);
        out.push_str(&text[word.clone()]);
        out.push_str(&style.after);
        at = word.end;
    }
    out.push_str(&text[at..end]);
    out
}

/// So many characters behind `at`, or as many fewer as end with what readers see as one.
fn forward(text: &str, at: usize, chars: usize) -> usize {
    let end = text[at..].char_indices().nth(chars).map_or(text.len(), |(offset, _)| at + offset);
    at_or_before(text, end).max(at)
}

/// So many characters before `at`, or as many fewer as begin with what readers see as one.
fn backward(text: &str, at: usize, chars: usize) -> usize {
    let Some(nth) = chars.checked_sub(1) else { return at };
    let start = text[..at].char_indices().nth_back(nth).map_or(0, |(offset, _)| offset);
    at_or_after(text, start).min(at)
}

/// The last border of a grapheme cluster (UAX 29) up to a place.
fn at_or_before(text: &str, place: usize) -> usize {
    let place = text.floor_char_boundary(place);
    let mut cursor = GraphemeCursor::new(place, text.len(), true);
    if cursor.is_boundary(text, 0).unwrap_or(true) {
        return place;
    }
    cursor.prev_boundary(text, 0).ok().flatten().unwrap_or(0)
}

/// The first one from a place on.
fn at_or_after(text: &str, place: usize) -> usize {
    let place = text.ceil_char_boundary(place);
    let mut cursor = GraphemeCursor::new(place, text.len(), true);
    if cursor.is_boundary(text, 0).unwrap_or(true) {
        return place;
    }
    cursor.next_boundary(text, 0).ok().flatten().unwrap_or(text.len())
}

/// Where the first word from `start` on begins, before `end`; `start` where there is none.
fn after_space(text: &str, start: usize, end: usize) -> usize {
    if text[..start].ends_with(char::is_whitespace) {
        return start;
    }
    let space = text[start..end].char_indices().find(|(_, letter)| letter.is_whitespace());
    space.map_or(start, |(offset, letter)| start + offset + letter.len_utf8())
}

/// Where the last word that ends up to `end` does so, behind `start`; `end` where there is none.
fn before_space(text: &str, start: usize, end: usize) -> usize {
    if text[end..].starts_with(char::is_whitespace) {
        return end;
    }
    let space = text[start..end].char_indices().rfind(|(_, letter)| letter.is_whitespace());
    space.map_or(end, |(offset, _)| start + offset)
}
