//! Long text into passages, at the borders that readers see.
//!
//! - A passage is never blank and never longer than asked (Unicode scalar values).
//! - Nothing is lost but white space at the borders; order is kept.
//! - A border is the highest there is within reach: blank lines, then line ends, then sentences,
//!   then words (all by Unicode's rules), and a bare character only inside a giant word.

use text_splitter::{ChunkConfig, MarkdownSplitter, TextSplitter};

/// Passages' worth of bytes that are looked at together.
const WINDOW_PASSAGES: usize = 8;

/// The least bytes that are looked at together.
const WINDOW_BYTES_MIN: usize = 4_096;

/// What decides where a text may be cut.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum TextForm {
    /// Lines, sentences and words.
    #[default]
    Plain,
    /// Headings, lists, code blocks and so on come first, as `CommonMark` reads them.
    Markdown,
}

/// Splits plain `text` into passages of at most `target_chars` characters, filled as far as
/// borders allow. `chars_max` caps `target_chars`; less than 1 means 1. White space gives none.
///
/// Passages borrow from `text` and start and end with other than white space.
pub fn split(text: &str, target_chars: usize, chars_max: usize) -> Vec<&str> {
    split_as(TextForm::Plain, text, target_chars, chars_max)
}

/// As [`split`], at the borders of a text of that form.
pub fn split_as(form: TextForm, text: &str, target_chars: usize, chars_max: usize) -> Vec<&str> {
    let capacity = target_chars.min(chars_max).max(1);
    // The usual short text needs no look at its borders.
    if text.len() <= capacity {
        return Some(text.trim()).filter(|text| !text.is_empty()).into_iter().collect();
    }
    let config = ChunkConfig::new(capacity).with_trim(false);
    let window = capacity.saturating_mul(WINDOW_PASSAGES).max(WINDOW_BYTES_MIN);
    match form {
        TextForm::Plain => {
            let splitter = TextSplitter::new(config);
            by_window(text, window, |block| splitter.chunk_indices(block).collect())
        }
        TextForm::Markdown => {
            let splitter = MarkdownSplitter::new(config);
            by_window(text, window, |block| splitter.chunk_indices(block).collect())
        }
    }
}

/// Splits a bounded stretch of the text at a time, for the splitter's time grows faster than the
/// length of what it is given. The last passage of a stretch, whose end may be no border, is
/// split again as the beginning of the next one.
fn by_window<'text>(
    text: &'text str,
    window: usize,
    split: impl Fn(&'text str) -> Vec<(usize, &'text str)>,
) -> Vec<&'text str> {
    let mut passages = Vec::new();
    let mut rest = text;
    loop {
        let is_last = rest.len() <= window;
        let block = if is_last { rest } else { rest.split_at(rest.floor_char_boundary(window)).0 };
        let mut pieces = split(block);
        let mut next = block.len();
        if !is_last && pieces.len() > 1 {
            next = pieces.pop().map_or(next, |(at, _)| at);
        }
        let trimmed = pieces.into_iter().map(|(_, piece)| piece.trim());
        passages.extend(trimmed.filter(|piece| !piece.is_empty()));
        if is_last {
            return passages;
        }
        rest = rest.split_at(next).1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn solid(text: &str) -> String {
        text.chars().filter(|c| !c.is_whitespace()).collect()
    }

    /// The contract, for any text: nothing lost, nothing blank, nothing too long.
    fn check(form: TextForm, text: &str, target: usize, max: usize) {
        let passages = split_as(form, text, target, max);
        let longest = target.min(max).max(1);
        for passage in &passages {
            assert!(!passage.trim().is_empty(), "blank passage of {text:?}");
            assert!(passage.chars().count() <= longest, "{passage:?} is over {longest}");
            assert_eq!(passage.trim(), *passage);
        }
        assert_eq!(solid(&passages.concat()), solid(text));
        // In place and in order: between two passages lies white space only.
        let mut rest = text;
        for passage in &passages {
            let at = rest.find(passage).expect("a passage is part of the text");
            assert!(rest[..at].trim().is_empty(), "text lost before {passage:?}");
            rest = &rest[at + passage.len()..];
        }
        assert!(rest.trim().is_empty());
    }

    #[test]
    fn borders_are_the_highest_within_reach() {
        let check = |text, target, expected: &[&str]| {
            assert_eq!(split(text, target, 10_000), expected, "{target}");
        };
        check("One two. Three four.\n\nFive six.", 22, &["One two. Three four.", "Five six."]);
        check("One two. Three four. Five six.", 12, &["One two.", "Three four.", "Five six."]);
        check("alpha beta gamma", 11, &["alpha beta", "gamma"]);
        check("abcdefghij", 4, &["abcd", "efgh", "ij"]);
        check("  short  ", 1_000, &["short"]);
        check("", 10, &[]);
        check(" \n\t ", 1, &[]);
        check("ab", 0, &["a", "b"]);
    }

    #[test]
    fn the_maximum_caps_the_target() {
        assert_eq!(split("abcdef", 1_000, 3), ["abc", "def"]);
    }

    #[test]
    fn characters_are_counted_not_bytes() {
        let text = "\u{e9}".repeat(10);
        assert_eq!(split(&text, 10, 10).len(), 1);
        assert_eq!(split(&text, 5, 10).len(), 2);
    }

    #[test]
    fn markdown_is_cut_before_headings() {
        let text = "# One\n\nfirst words\n\n# Two\n\nsecond words";
        let passages = split_as(TextForm::Markdown, text, 24, 100);
        assert_eq!(passages, ["# One\n\nfirst words", "# Two\n\nsecond words"]);
    }

    #[test]
    fn a_text_without_any_border_is_split_in_linear_time() {
        // Many windows, and yet as many passages as there must be.
        let text = "x".repeat(1 << 17);
        assert_eq!(split(&text, 1_000, 10_000).len(), (1_usize << 17).div_ceil(1_000));
    }

    #[test]
    fn a_long_text_is_split_as_its_parts_are() {
        let sentence = "The ship sailed north with the evening wind. ";
        let text = sentence.repeat(2_000);
        let passages = split(&text, 1_000, 10_000);
        let (last, full) = passages.split_last().expect("passages");
        // 22 sentences of 45 characters fit, and no window's border shows.
        assert!(full.iter().all(|passage| *passage == sentence.repeat(22).trim()));
        assert!(last.ends_with("wind."));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_text_is_lost(text in any::<String>(), target in 0_usize..40, max in 0_usize..40) {
            check(TextForm::Plain, &text, target, max);
            check(TextForm::Markdown, &text, target, max);
        }

        #[test]
        fn prose_is_split_whole(
            text in "([a-zA-Z0-9\u{e4}\u{301}]{1,12}[ .,!?\r\n\u{a0}\u{3000}-]{1,3}){0,60}",
            target in 1_usize..80,
        ) {
            check(TextForm::Plain, &text, target, 10_000);
            check(TextForm::Markdown, &text, target, 10_000);
        }

        #[test]
        fn long_texts_are_split_whole(
            words in proptest::collection::vec("[a-z\u{e4}\u{4e16}]{1,30}[ .\n]{0,2}", 400..1_500),
            target in 1_usize..300,
        ) {
            check(TextForm::Plain, &words.concat(), target, 10_000);
            check(TextForm::Markdown, &words.concat(), target, 10_000);
        }

        #[test]
        fn markdown_is_split_whole(
            text in "(# |- |> |```\n|[|]|\\*\\*|`|[a-z]{1,8}| |\n|\n\n|1\\. |<b>){0,80}",
            target in 1_usize..60,
        ) {
            check(TextForm::Markdown, &text, target, 10_000);
        }
    }
}
