//! Which characters are the same to who searches.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_properties::UnicodeEmoji;

use super::language::Language;

/// Appends `word` as it is compared: compatibility forms and cases are one, and so are letters with
/// and without accents in alphabets that are read without them.
pub(super) fn fold(word: &str, out: &mut String) {
    write(word, Language::None, out);
}

/// Appends `word` as the stemmer of a language wants it: as [`fold`] does, but for the letters that
/// it tells apart.
pub(super) fn spell(word: &str, language: Language, out: &mut String) {
    let start = out.len();
    write(word, language, out);
    if language == Language::German {
        let spelled = german(&out[start..]);
        out.truncate(start);
        out.push_str(&spelled);
    }
}

fn write(word: &str, language: Language, out: &mut String) {
    let lowers = |letter: char| language.lowered(letter).is_some();
    if word.is_ascii() && !word.contains(lowers) {
        out.extend(word.bytes().map(|byte| char::from(byte.to_ascii_lowercase())));
        return;
    }
    let lower = |letter: char| {
        let own = language.lowered(letter);
        let unicode = own.is_none().then(|| letter.to_lowercase());
        own.into_iter().chain(unicode.into_iter().flatten())
    };
    let kept = language.letters();
    let mut base_is_plain = true;
    let mut accented = String::new();
    for letter in word.chars().filter(|letter| is_shown(*letter)).nfkc().flat_map(lower).nfc() {
        let letter = language.spelled(letter);
        if !kept.is_empty() && kept.contains(letter) {
            accented.push(letter);
            base_is_plain = true;
            continue;
        }
        // Decomposed, so that accents stand by themselves; what is left is put together again.
        for part in std::iter::once(letter).nfd() {
            if !is_combining_mark(part) {
                base_is_plain = is_read_without_marks(part);
                push_folded(part, &mut accented);
            } else if !base_is_plain {
                accented.push(part);
            }
        }
    }
    out.extend(accented.nfc());
}

/// Whether a character is more than the mark of an emoji's presentation or of its skin, which is not
/// what it is searched for, and than signs that cannot be seen: hints for breaking lines, joining
/// letters, directions.
fn is_shown(letter: char) -> bool {
    !matches!(
        letter,
        '\u{fe0e}' | '\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}'
        | '\u{ad}' | '\u{200b}' | '\u{200c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}' | '\u{feff}'
    )
}

/// Appends what a letter without marks is compared as.
fn push_folded(letter: char, out: &mut String) {
    match letter {
        '\u{2019}' | '\u{ff07}' => out.push('\''),
        '\u{df}' => out.push_str("ss"),
        '\u{e6}' => out.push_str("ae"),
        '\u{153}' => out.push_str("oe"),
        '\u{f8}' => out.push('o'),
        '\u{111}' | '\u{f0}' => out.push('d'),
        '\u{142}' => out.push('l'),
        '\u{131}' => out.push('i'),
        '\u{fe}' => out.push_str("th"),
        // The last sigma of a word is a sigma.
        '\u{3c2}' => out.push('\u{3c3}'),
        // Arabic: the stretching sign; letters that are written for one another.
        '\u{640}' => {}
        '\u{629}' => out.push('\u{647}'),
        '\u{649}' => out.push('\u{64a}'),
        '\u{671}' => out.push('\u{627}'),
        other => out.push(other),
    }
}

/// A German word with umlauts for the letters that are written where there are none: "ae", "oe", and
/// "ue" but for one behind a "q" or a vowel ("Quelle", "neue").
fn german(word: &str) -> String {
    let no_umlaut = ['q', 'a', 'e', 'i', 'o', 'u', 'y', '\u{e4}', '\u{f6}', '\u{fc}'];
    let mut out = String::with_capacity(word.len());
    let mut letters = word.chars().peekable();
    while let Some(letter) = letters.next() {
        let umlaut = match letter {
            'a' => '\u{e4}',
            'o' => '\u{f6}',
            'u' if !out.ends_with(no_umlaut) => '\u{fc}',
            other => {
                out.push(other);
                continue;
            }
        };
        let is_pair = letters.next_if_eq(&'e').is_some();
        out.push(if is_pair { umlaut } else { letter });
    }
    out
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
