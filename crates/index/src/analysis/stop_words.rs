//! English words that say nothing by themselves.

/// Whether a word, folded, is one.
pub(super) fn is_stop_word(word: &str) -> bool {
    STOP_WORDS.binary_search(&word).is_ok()
}

/// Articles, pronouns, prepositions, conjunctions and auxiliary verbs. Ascending.
#[rustfmt::skip]
const STOP_WORDS: &[&str] = &[
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
