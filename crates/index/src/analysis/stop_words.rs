//! Words that say nothing by themselves.
//!
//! Those of English are our own list. Those of other languages are Snowball's, and the Turkish ones
//! of the database `PostgreSQL`, as the crate `stop-words` has them. It has lists of Arabic,
//! Romanian and Tamil too, but whence they come and on what terms is not said, so these languages have
//! none here.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::fold::spell;
use super::language::Language;

/// The words of each language that has some but for English, as they are spelled; ascending.
pub(super) static LISTS: LazyLock<BTreeMap<Language, Vec<String>>> = LazyLock::new(|| {
    let list = |language: Language| {
        let words = match language {
            Language::Arabic
            | Language::English
            | Language::None
            | Language::Romanian
            | Language::Tamil => None,
            Language::Danish
            | Language::Dutch
            | Language::Finnish
            | Language::French
            | Language::German
            | Language::Hungarian
            | Language::Italian
            | Language::Norwegian
            | Language::Portuguese
            | Language::Russian
            | Language::Spanish
            | Language::Swedish
            | Language::Turkish => stop_words::lookup(language.code()),
        };
        Some((language, spelled(words?, language)))
    };
    Language::ALL.into_iter().filter_map(list).collect()
});

/// Whether a word, spelled as its language is, is one.
pub(super) fn is_stop_word(word: &str, language: Language) -> bool {
    if language == Language::English {
        return ENGLISH.binary_search(&word).is_ok();
    }
    let list = LISTS.get(&language);
    list.is_some_and(|list| list.binary_search_by(|known| known.as_str().cmp(word)).is_ok())
}

fn spelled(words: &[&str], language: Language) -> Vec<String> {
    let spelled = |word: &&str| {
        let mut spelled = String::new();
        spell(word.trim(), language, &mut spelled);
        spelled
    };
    let mut words: Vec<String> = words.iter().map(spelled).collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// Of English: articles, pronouns, prepositions, conjunctions and auxiliary verbs. Ascending.
#[rustfmt::skip]
const ENGLISH: &[&str] = &[
    "a", "about", "after", "again", "all", "also", "am", "an", "and", "any", "are", "aren't", "as", "at",
    "be", "because", "been", "before", "being", "between", "both", "but", "by",
    "can", "can't", "cannot", "could", "couldn't",
    "did", "didn't", "do", "does", "doesn't", "doing", "don't", "during",
    "each", "every",
    "few", "for", "from", "further",
    "had", "hadn't", "has", "hasn't", "have", "haven't", "having", "he", "her", "here", "hers", "herself",
    "him", "himself", "his", "how", "however",
    "i", "i'd", "i'll", "i'm", "i've", "if", "in", "into", "is", "isn't", "it", "it's", "its", "itself",
    "just", "let's",
    "may", "me", "might", "more", "most", "must", "my", "myself",
    "no", "nor", "not",
    "of", "on", "once", "only", "or", "other", "our", "ours", "ourselves", "over", "own",
    "same", "shall", "she", "should", "shouldn't", "so", "some", "such",
    "than", "that", "that's", "the", "their", "theirs", "them", "themselves", "then", "there", "there's",
    "these", "they", "this", "those", "through", "to", "too",
    "under", "until", "up", "upon", "us",
    "very", "was", "wasn't", "we", "were", "weren't", "what", "what's", "when", "where", "which", "while",
    "who", "whom", "whose", "why", "will", "with", "within", "without", "won't", "would", "wouldn't",
    "you", "your", "yours", "yourself", "yourselves",
];
