//! Which characters are the same to who searches.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_properties::UnicodeEmoji;

/// Appends `word` as it is compared: compatibility forms and cases are one, and so are letters with
/// and without accents in alphabets that are read without them.
pub(super) fn fold(word: &str, out: &mut String) {
    if word.is_ascii() {
        out.extend(word.bytes().map(|byte| char::from(byte.to_ascii_lowercase())));
        return;
    }
    // The mark of an emoji's presentation and of its skin are not what it is searched for.
    // Nor are signs that cannot be seen: hints for breaking lines, joining letters, directions.
    let shown = |letter: &char| {
        !matches!(
            letter,
            '\u{fe0e}' | '\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}'
            | '\u{ad}' | '\u{200b}' | '\u{200c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}' | '\u{feff}'
        )
    };
    let lower = word.chars().filter(shown).nfkc().flat_map(char::to_lowercase);
    let mut base_is_plain = true;
    let start = out.len();
    let mut accented = String::new();
    // Decomposed, so that accents stand by themselves; what is left is put together again.
    for letter in lower.nfd() {
        if is_combining_mark(letter) {
            if !base_is_plain {
                accented.push(letter);
            }
            continue;
        }
        base_is_plain = is_read_without_marks(letter);
        match letter {
            '\u{2019}' | '\u{ff07}' => accented.push('\''),
            '\u{df}' => accented.push_str("ss"),
            '\u{e6}' => accented.push_str("ae"),
            '\u{153}' => accented.push_str("oe"),
            '\u{f8}' => accented.push('o'),
            '\u{111}' | '\u{f0}' => accented.push('d'),
            '\u{142}' => accented.push('l'),
            '\u{131}' => accented.push('i'),
            '\u{fe}' => accented.push_str("th"),
            // The last sigma of a word is a sigma.
            '\u{3c2}' => accented.push('\u{3c3}'),
            // Arabic: the stretching sign; letters that are written for one another.
            '\u{640}' => {}
            '\u{629}' => accented.push('\u{647}'),
            '\u{649}' => accented.push('\u{64a}'),
            '\u{671}' => accented.push('\u{627}'),
            other => accented.push(other),
        }
    }
    out.extend(accented.nfc());
    debug_assert!(out.is_char_boundary(start), "appended");
}

/// Whether a letter is of an alphabet whose marks may be left out: Latin, Greek, Cyrillic, Hebrew,
/// Arabic. Elsewhere they are letters, such as the vowels of Devanagari.
fn is_read_without_marks(letter: char) -> bool {
    matches!(letter, '\0'..='\u{52f}' | '\u{590}'..='\u{77f}' | '\u{8a0}'..='\u{8ff}' | '\u{1e00}'..='\u{1fff}')
}

/// Whether a word is of a script that is written without spaces between words, or in which what is
/// between spaces is more than a word: Chinese, Japanese, Korean, Thai, Lao, Burmese, Khmer and
/// their like.
pub(super) fn is_unspaced(word: &str) -> bool {
    word.chars().next().is_some_and(|letter| {
        letter.is_alphanumeric()
            && matches!(letter,
                '\u{e01}'..='\u{e2f}' | '\u{e30}'..='\u{e3a}' | '\u{e40}'..='\u{e4e}'
                | '\u{e81}'..='\u{ece}' | '\u{edc}'..='\u{edf}'
                | '\u{1000}'..='\u{103f}' | '\u{1050}'..='\u{108f}'
                | '\u{1100}'..='\u{11ff}'
                | '\u{1780}'..='\u{17d3}'
                | '\u{1950}'..='\u{19df}' | '\u{1a20}'..='\u{1aad}'
                | '\u{2e80}'..='\u{2fdf}'
                | '\u{3005}'..='\u{3007}' | '\u{3021}'..='\u{3029}' | '\u{3031}'..='\u{303c}'
                | '\u{3041}'..='\u{318f}' | '\u{31a0}'..='\u{31bf}' | '\u{31f0}'..='\u{31ff}'
                | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
                | '\u{a960}'..='\u{a97f}' | '\u{ac00}'..='\u{d7ff}'
                | '\u{f900}'..='\u{faff}' | '\u{ff66}'..='\u{ffdc}'
                | '\u{20000}'..='\u{3ffff}')
    })
}

/// Whether it is a sign that is searched for as words are.
pub(super) fn is_emoji(letter: char) -> bool {
    !letter.is_ascii() && letter.is_emoji_char()
}

/// Whether it is neither searched for nor belongs to a letter.
pub(super) fn is_joint(letter: char) -> bool {
    !(letter.is_alphanumeric() || is_combining_mark(letter) || is_emoji(letter))
}
