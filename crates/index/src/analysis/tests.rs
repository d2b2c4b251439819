use proptest::prelude::*;

use super::*;

/// The terms of a text, with `/` after pairs and `-` after stop words.
fn terms(text: &str) -> Vec<String> {
    let mut terms = Vec::new();
    Analyzer::default().tokens(text, |token| {
        let mark = if token.stop {
            "-"
        } else if token.kind == Kind::Pair {
            "/"
        } else {
            ""
        };
        terms.push(format!("{}{mark}", token.term));
    });
    terms
}

#[test]
fn english_words_are_stemmed_and_the_empty_ones_marked() {
    assert_eq!(
        terms("The Libraries' relational databases, indexing"),
        ["the-", "librari", "relat", "databas", "index"]
    );
    assert_eq!(
        terms("don't can\u{2019}t e-mail 3.14 snake_case"),
        ["don't-", "can't-", "e", "mail", "3.14", "snake_case"]
    );
    assert_eq!(terms(" -- ... \n"), [""; 0]);
}

#[test]
fn forms_of_a_letter_are_one() {
    for (text, same) in [
        ("na\u{ef}ve", "nai\u{308}ve"),
        ("e\u{301}tude", "etude"),
        ("\u{ff26}\u{ff35}\u{ff2c}\u{ff2c}", "full"),
        ("Stra\u{df}e", "strasse"),
        ("\u{41e}\u{434}\u{438}\u{301}\u{43d}", "\u{43e}\u{434}\u{438}\u{43d}"),
        ("\u{3a3}\u{3bf}\u{3c6}\u{3cc}\u{3c2}", "\u{3c3}\u{3bf}\u{3c6}\u{3bf}\u{3c3}"),
        // With and without vowel signs, and a stretched one.
        ("\u{643}\u{650}\u{62a}\u{64e}\u{640}\u{627}\u{628}", "\u{643}\u{62a}\u{627}\u{628}"),
        ("\u{1f44d}\u{1f3fd}", "\u{1f44d}"),
        ("\u{2764}\u{fe0f}", "\u{2764}"),
    ] {
        assert_eq!(terms(text), terms(same), "{text} and {same}");
        assert_eq!(terms(text).len(), 1, "{text}");
    }
    // A vowel of Devanagari is a letter.
    assert_ne!(terms("\u{915}\u{93f}"), terms("\u{915}\u{940}"));
}

#[test]
fn scripts_without_spaces_become_pairs() {
    let tokyo = "\u{6771}\u{4eac}\u{90fd}\u{306b}";
    assert_eq!(
        terms(tokyo),
        ["\u{6771}\u{4eac}/", "\u{4eac}\u{90fd}/", "\u{90fd}\u{306b}/", "\u{306b}"]
    );
    assert_eq!(terms("\u{6771} abc\u{4eac}"), ["\u{6771}", "abc", "\u{4eac}"]);
    // A vowel belongs to its letter in Thai; syllables are pairs in Korean; half-width forms are full.
    assert_eq!(terms("\u{e27}\u{e31}\u{e2a}"), ["\u{e27}\u{e31}\u{e2a}/", "\u{e2a}"]);
    assert_eq!(terms("\u{d55c}\u{ad6d}"), ["\u{d55c}\u{ad6d}/", "\u{ad6d}"]);
    assert_eq!(terms("\u{ff76}\u{ff72}"), terms("\u{30ab}\u{30a4}"));
}

#[test]
fn emoji_are_terms_and_other_signs_are_not() {
    let family = "\u{1f469}\u{200d}\u{1f469}\u{200d}\u{1f467}";
    assert_eq!(terms(&format!("party \u{1f389}! {family} + * #")), ["parti", "\u{1f389}", family]);
}

#[test]
fn stop_words_are_in_order() {
    let mut analyzer = Analyzer::default();
    for word in ["a", "yourselves", "let's", "very", "that's"] {
        analyzer.tokens(word, |token| assert!(token.stop, "{word}"));
    }
}

#[test]
fn long_words_are_cut_at_a_character() {
    for word in ["x1".repeat(4000), "\u{e4}x".repeat(4000), "\u{915}\u{93f}".repeat(4000)] {
        let found = terms(&word);
        assert!(found.iter().all(|term| term.len() <= TERM_BYTES_MAX + 1), "{found:?}");
        assert_eq!(found, terms(&word[..word.floor_char_boundary(TERM_BYTES_MAX * 4)]));
    }
}

proptest! {
    #[test]
    fn tokens_lie_on_characters_in_order_and_are_found_by_themselves(text in "(\\PC|[a-zA-Z ']){0,60}") {
        let mut analyzer = Analyzer::default();
        let mut tokens = Vec::new();
        analyzer.tokens(&text, |token| tokens.push((token.term.to_owned(), token.bytes, token.position)));
        for (place, (term, bytes, position)) in tokens.iter().enumerate() {
            prop_assert_eq!(*position as usize, place);
            prop_assert!(!term.is_empty() && term.len() <= TERM_BYTES_MAX);
            prop_assert!(text.is_char_boundary(bytes.start) && text.is_char_boundary(bytes.end));
            let mut first = None;
            analyzer.tokens(&text[bytes.clone()], |token| {
                first.get_or_insert(token.term.to_owned());
            });
            prop_assert_eq!(first.as_ref(), Some(term), "{:?}", &text[bytes.clone()]);
        }
        prop_assert!(tokens.windows(2).all(|pair| pair[0].1.start < pair[1].1.start));
    }

    #[test]
    fn plain_texts_have_the_terms_that_they_have_among_others(text in "([ -~]|[a-z.'_,:0-9]){0,40}") {
        let alone = terms(&text);
        let mut among = terms(&format!("{text} \u{e9}"));
        prop_assert_eq!(among.pop(), Some("e".to_owned()));
        prop_assert_eq!(alone, among);
    }
}
