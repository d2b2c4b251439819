//! The languages that texts are analysed in, and how words are written in each.

use std::fmt;
use std::ops::Range;

use rust_stemmers::Algorithm;

/// What language the words of a text are taken for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Language {
    /// Arabic.
    Arabic,
    /// Danish.
    Danish,
    /// Dutch.
    Dutch,
    /// English.
    #[default]
    English,
    /// Finnish.
    Finnish,
    /// French.
    French,
    /// German.
    German,
    /// Hungarian.
    Hungarian,
    /// Italian.
    Italian,
    /// Whole words, none of which says nothing.
    None,
    /// Norwegian.
    Norwegian,
    /// Portuguese.
    Portuguese,
    /// Romanian.
    Romanian,
    /// Russian.
    Russian,
    /// Spanish.
    Spanish,
    /// Swedish.
    Swedish,
    /// Tamil.
    Tamil,
    /// Turkish.
    Turkish,
}

/// What French words lose their vowel in, in front of another.
const FRENCH_ELISIONS: &[&str] = &[
    "c", "d", "j", "jusqu", "l", "lorsqu", "m", "n", "puisqu", "qu", "quelqu", "quoiqu", "s", "t",
];

/// What Italian words lose their vowel in, in front of another.
const ITALIAN_ELISIONS: &[&str] = &[
    "agl", "all", "c", "coll", "d", "dagl", "dall", "degl", "dell", "gl", "l", "m", "negl", "nell",
    "quell", "quest", "s", "sugl", "sull", "t", "un", "v",
];

impl Language {
    /// All of them, in the order of their codes, with none at the end. Greek is not among them: its stemmer
    /// in `rust-stemmers` 1.2 panics on real words (snowballstem/snowball#204).
    pub const ALL: [Self; 18] = [
        Self::Arabic,
        Self::Danish,
        Self::German,
        Self::English,
        Self::Spanish,
        Self::Finnish,
        Self::French,
        Self::Hungarian,
        Self::Italian,
        Self::Dutch,
        Self::Norwegian,
        Self::Portuguese,
        Self::Romanian,
        Self::Russian,
        Self::Swedish,
        Self::Tamil,
        Self::Turkish,
        Self::None,
    ];

    /// Its code of ISO 639-1, which never changes; `none` for none.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Arabic => "ar",
            Self::Danish => "da",
            Self::Dutch => "nl",
            Self::English => "en",
            Self::Finnish => "fi",
            Self::French => "fr",
            Self::German => "de",
            Self::Hungarian => "hu",
            Self::Italian => "it",
            Self::None => "none",
            Self::Norwegian => "no",
            Self::Portuguese => "pt",
            Self::Romanian => "ro",
            Self::Russian => "ru",
            Self::Spanish => "es",
            Self::Swedish => "sv",
            Self::Tamil => "ta",
            Self::Turkish => "tr",
        }
    }

    /// The language of a code.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.code() == code)
    }

    /// What finds the stems of its words.
    pub(super) const fn stemmer(self) -> Option<Algorithm> {
        Some(match self {
            Self::None => return None,
            Self::Arabic => Algorithm::Arabic,
            Self::Danish => Algorithm::Danish,
            Self::Dutch => Algorithm::Dutch,
            Self::English => Algorithm::English,
            Self::Finnish => Algorithm::Finnish,
            Self::French => Algorithm::French,
            Self::German => Algorithm::German,
            Self::Hungarian => Algorithm::Hungarian,
            Self::Italian => Algorithm::Italian,
            Self::Norwegian => Algorithm::Norwegian,
            Self::Portuguese => Algorithm::Portuguese,
            Self::Romanian => Algorithm::Romanian,
            Self::Russian => Algorithm::Russian,
            Self::Spanish => Algorithm::Spanish,
            Self::Swedish => Algorithm::Swedish,
            Self::Tamil => Algorithm::Tamil,
            Self::Turkish => Algorithm::Turkish,
        })
    }

    /// Its small letters that its stemmer tells from those without marks. All others are folded
    /// before a word is stemmed, so that marks of another language do not hide an ending.
    pub(super) const fn letters(self) -> &'static str {
        match self {
            Self::English | Self::None | Self::Tamil => "",
            // Alef, waw and yeh with hamza, teh marbuta, alef maksura.
            Self::Arabic => "\u{622}\u{623}\u{624}\u{625}\u{626}\u{629}\u{649}",
            Self::Danish | Self::Norwegian => "\u{e5}\u{e6}\u{f8}",
            Self::Dutch => "\u{e8}",
            Self::Finnish | Self::Swedish => "\u{e4}\u{e5}\u{f6}",
            Self::French => {
                "\u{e0}\u{e2}\u{e7}\u{e8}\u{e9}\u{ea}\u{eb}\u{ee}\u{ef}\u{f4}\u{f9}\u{fb}\u{fc}"
            }
            Self::German => "\u{e4}\u{f6}\u{fc}",
            Self::Hungarian => "\u{e1}\u{e9}\u{ed}\u{f3}\u{f6}\u{151}\u{fa}\u{fc}\u{171}",
            Self::Italian => "\u{e0}\u{e1}\u{e8}\u{e9}\u{ec}\u{ed}\u{f2}\u{f3}\u{f9}\u{fa}",
            Self::Portuguese => {
                "\u{e0}\u{e1}\u{e2}\u{e3}\u{e7}\u{e9}\u{ea}\u{ed}\u{f3}\u{f4}\u{f5}\u{fa}\u{fc}"
            }
            Self::Romanian => "\u{103}\u{e2}\u{ee}\u{15f}\u{163}",
            // Short i.
            Self::Russian => "\u{439}",
            Self::Spanish => "\u{e1}\u{e9}\u{ed}\u{f1}\u{f3}\u{fa}\u{fc}",
            // With dotless i.
            Self::Turkish => "\u{e7}\u{11f}\u{131}\u{f6}\u{15f}\u{fc}",
        }
    }

    /// The letter that its stemmer knows for a composed small one that is written for it.
    pub(super) const fn spelled(self, letter: char) -> char {
        match (self, letter) {
            // With a comma below, as it should be, and with a cedilla, as it was for long.
            (Self::Romanian, '\u{219}') => '\u{15f}',
            (Self::Romanian, '\u{21b}') => '\u{163}',
            // What became of letters that an older character set had not.
            (Self::Hungarian, '\u{f5}') => '\u{151}',
            (Self::Hungarian, '\u{fb}') => '\u{171}',
            (_, letter) => letter,
        }
    }

    /// The small letter of another, where it is not that of Unicode.
    pub(super) const fn lowered(self, letter: char) -> Option<char> {
        match (self, letter) {
            (Self::Turkish, 'I') => Some('\u{131}'),
            (Self::Turkish, '\u{130}') => Some('i'),
            _ => None,
        }
    }

    /// The part of a word that it is found by: without the article that is written as its beginning,
    /// or the ending behind an apostrophe. Never empty where the word is not.
    pub(super) fn bare(self, word: &str) -> Range<usize> {
        match self {
            Self::French => elided(word, FRENCH_ELISIONS)..word.len(),
            Self::Italian => elided(word, ITALIAN_ELISIONS)..word.len(),
            // "foto's", "Andrea's", "tv's".
            Self::Danish | Self::Dutch | Self::German | Self::Norwegian | Self::Swedish => {
                let mut bare = word;
                while let Some((before, 's' | 'S')) = split_last(bare)
                    && let Some((before, apostrophe)) = split_last(before)
                    && is_apostrophe(apostrophe)
                    && !before.is_empty()
                {
                    bare = before;
                }
                0..bare.len()
            }
            // Names keep their endings behind one.
            Self::Turkish => {
                let end =
                    word.char_indices().find(|(at, letter)| *at > 0 && is_apostrophe(*letter));
                0..end.map_or(word.len(), |(at, _letter)| at)
            }
            // The English stemmer knows of apostrophes.
            Self::Arabic
            | Self::English
            | Self::Finnish
            | Self::Hungarian
            | Self::None
            | Self::Portuguese
            | Self::Romanian
            | Self::Russian
            | Self::Spanish
            | Self::Tamil => 0..word.len(),
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// How many bytes of a word are before an apostrophe of these.
fn elided(word: &str, elisions: &[&str]) -> usize {
    let mut start = 0;
    while let Some((at, apostrophe)) =
        word[start..].char_indices().find(|(_at, letter)| is_apostrophe(*letter))
    {
        let before = &word[start..start + at];
        let after = start + at + apostrophe.len_utf8();
        let known = elisions.iter().any(|elision| before.eq_ignore_ascii_case(elision));
        if !known || after == word.len() {
            break;
        }
        start = after;
    }
    start
}

/// Whether it is what joins two words, however it is written.
fn is_apostrophe(letter: char) -> bool {
    matches!(letter, '\'' | '\u{2019}' | '\u{ff07}')
}

fn split_last(word: &str) -> Option<(&str, char)> {
    let letter = word.chars().next_back()?;
    Some((&word[..word.len() - letter.len_utf8()], letter))
}
