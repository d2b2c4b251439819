//! Plain text and reStructuredText as one document, and the bytes of a file as text.

use super::read::Page;

/// How a file's bytes were read as text.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// UTF-8, or UTF-16 with a byte order mark.
    Unicode,
    /// Not valid UTF-8, so every byte was read as the Latin-1 character of its number.
    Latin1,
}

/// The text of a file, or nothing when it holds a NUL, as no text does.
///
/// UTF-8 is read exactly; a byte order mark is dropped and decides for UTF-16. Other bytes are
/// read as Latin-1, which every byte sequence is, and the caller is told.
pub(crate) fn decode(bytes: Vec<u8>) -> Option<(String, Encoding)> {
    let units = match bytes.as_slice() {
        [0xFF, 0xFE, rest @ ..] => Some((rest, u16::from_le_bytes as fn([u8; 2]) -> u16)),
        [0xFE, 0xFF, rest @ ..] => Some((rest, u16::from_be_bytes as fn([u8; 2]) -> u16)),
        _ => None,
    };
    if let Some((rest, unit)) = units {
        let wide = rest.as_chunks().0.iter().map(|pair| unit(*pair));
        let text = char::decode_utf16(wide).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER));
        return Some((text.collect(), Encoding::Unicode));
    }
    if bytes.contains(&0) {
        return None;
    }
    match String::from_utf8(bytes) {
        Ok(text) => match text.strip_prefix('\u{feff}') {
            Some(rest) => Some((rest.to_owned(), Encoding::Unicode)),
            None => Some((text, Encoding::Unicode)),
        },
        Err(error) => {
            let text = error.as_bytes().iter().map(|&byte| char::from(byte)).collect();
            Some((text, Encoding::Latin1))
        }
    }
}

/// Plain text as it is, without a title of its own.
pub(crate) fn text(source: &str) -> Page {
    Page { title: None, text: source.replace("\r\n", "\n") }
}

/// reStructuredText: the first section title, and the text without the lines that only adorn.
pub(crate) fn restructured(source: &str) -> Page {
    let lines: Vec<&str> = source.lines().collect();
    let mut title = None;
    let mut text = String::with_capacity(source.len());
    for (at, line) in lines.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| lines.get(at)).copied();
        let after = lines.get(at + 1).copied();
        if is_target(line) || (is_adornment(line) && adorns(line, before, after)) {
            continue;
        }
        if title.is_none() && after.is_some_and(|next| is_adornment(next) && underlines(next, line))
        {
            title = Some(line.trim().to_owned());
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    Page { title, text }
}

/// Whether a line is one punctuation character over and over, as section underlines are.
fn is_adornment(line: &str) -> bool {
    let line = line.trim_end();
    let mut chars = line.chars();
    let first = chars.next();
    line.len() >= 3
        && first.is_some_and(|c| c.is_ascii_punctuation())
        && chars.all(|c| Some(c) == first)
}

/// Whether an adornment is long enough to underline the line above it.
fn underlines(adornment: &str, title: &str) -> bool {
    let title = title.trim();
    !title.is_empty()
        && !is_adornment(title)
        && adornment.trim_end().chars().count() >= title.chars().count()
}

/// Whether an adornment belongs to the line above or, as an overline, to the line below.
fn adorns(line: &str, before: Option<&str>, after: Option<&str>) -> bool {
    before.is_some_and(|above| underlines(line, above))
        || after.is_some_and(|below| underlines(line, below))
}

/// Whether a line only names a place, as `.. _place:` does.
fn is_target(line: &str) -> bool {
    line.strip_prefix(".. _").is_some_and(|rest| rest.contains(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf8_is_exact_and_other_bytes_are_latin1() {
        let read = |bytes: &[u8]| decode(bytes.to_vec());
        assert_eq!(read("na\u{ef}ve".as_bytes()), Some(("na\u{ef}ve".into(), Encoding::Unicode)));
        assert_eq!(read(b"na\xefve"), Some(("na\u{ef}ve".into(), Encoding::Latin1)));
        assert_eq!(read(b"\xef\xbb\xbfx"), Some(("x".into(), Encoding::Unicode)));
        assert_eq!(
            read(b"\xff\xfex\0\x3d\xd8\x00\xde"),
            Some(("x\u{1f600}".into(), Encoding::Unicode))
        );
        assert_eq!(read(b"\xfe\xff\0x"), Some(("x".into(), Encoding::Unicode)));
        assert_eq!(read(b"\x7fELF\0\0"), None);
        assert_eq!(read(b""), Some((String::new(), Encoding::Unicode)));
    }

    #[test]
    fn the_first_section_title_is_found_with_and_without_an_overline() {
        for source in ["Title\n=====\n\nText.\n", "=====\nTitle\n=====\n\nText.\n"] {
            let page = restructured(source);
            assert_eq!(page.title.as_deref(), Some("Title"), "{source:?}");
            assert_eq!(page.text, "Title\n\nText.\n");
        }
    }

    #[test]
    fn a_transition_and_a_short_line_are_no_title() {
        let page = restructured(".. _place:\n\nSome text.\n\n----\n\nMore text here\n---\n");
        assert_eq!(page.title, None);
        assert_eq!(page.text, "\nSome text.\n\n----\n\nMore text here\n---\n");
    }
}
