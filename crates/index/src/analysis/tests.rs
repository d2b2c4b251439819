use proptest::prelude::*;

use super::*;

/// The terms of an English text, with `/` after pairs and `-` after stop words.
fn terms(text: &str) -> Vec<String> {
    terms_in(Language::English, text)
}

fn terms_in(language: Language, text: &str) -> Vec<String> {
    let mut terms = Vec::new();
    Analyzer::new(language).tokens(text, |token| {
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
    let mut analyzer = Analyzer::new(Language::English);
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

/// What the lines of a file say of words of each language.
fn forms() -> impl Iterator<Item = (char, Language, Vec<&'static str>)> {
    let lines = include_str!("tests/forms.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| {
        let (sign, rest) = match line.split_at(2) {
            ("! " | "- ", rest) => (line.chars().next().unwrap(), rest),
            _ => ('=', line),
        };
        let mut words = rest.split(' ');
        let language = Language::from_code(words.next().unwrap()).unwrap();
        (sign, language, words.collect())
    })
}

#[test]
fn every_form_of_a_word_has_its_term_and_no_other_word_has() {
    let mut seen = Vec::new();
    for (sign, language, words) in forms() {
        seen.push((sign, language));
        let each = words.iter().map(|word| {
            let terms = terms_in(language, word);
            assert_eq!(terms.len(), 1, "{language} {word}");
            terms[0].clone()
        });
        let mut terms: Vec<String> = each.collect();
        match sign {
            '-' => assert!(terms.iter().all(|term| term.ends_with('-')), "{language} {terms:?}"),
            '!' => {
                terms.sort();
                terms.dedup();
                assert_eq!(terms.len(), words.len(), "{language} {words:?}");
            }
            _ => {
                let same = terms.windows(2).all(|two| two[0] == two[1]);
                assert!(same && !terms[0].ends_with('-'), "{language} {words:?}: {terms:?}");
            }
        }
    }
    for language in Language::ALL {
        for sign in ['=', '!'] {
            assert!(seen.contains(&(sign, language)), "{sign} {language}");
        }
    }
}

#[test]
fn letters_of_a_language_are_one_however_they_are_put_together() {
    for (language, text, same) in [
        (Language::German, "Bu\u{308}cher", "B\u{fc}cher"),
        (Language::Portuguese, "nac\u{327}o\u{303}es", "na\u{e7}\u{f5}es"),
        (Language::Italian, "nazio\u{300}ne", "nazi\u{f2}ne"),
        // With the accent of its stress, which is not written otherwise.
        (
            Language::Russian,
            "\u{43a}\u{43d}\u{438}\u{301}\u{433}\u{438}",
            "\u{43a}\u{43d}\u{438}\u{433}\u{430}",
        ),
        (Language::Russian, "\u{43c}\u{43e}\u{438}\u{306}", "\u{43c}\u{43e}\u{439}"),
        (Language::Turkish, "I\u{307}stanbul", "istanbul"),
        // An accent of another language.
        (Language::German, "Caf\u{e9}s", "Cafes"),
    ] {
        assert_eq!(terms_in(language, text), terms_in(language, same), "{language} {text}");
    }
}

#[test]
fn a_word_is_found_without_what_is_written_in_front_of_it() {
    let bare = |language: Language, text: &'static str| -> Vec<&'static str> {
        let mut words = Vec::new();
        Analyzer::new(language).tokens(text, |token| words.push(&text[token.bytes]));
        words
    };
    for (language, text, words) in [
        (
            Language::French,
            "L'homme, qu\u{2019}il d'aujourd'hui",
            &["homme", "il", "aujourd'hui"][..],
        ),
        (Language::French, "l'd'eau l' presqu'elle", &["eau", "l", "presqu'elle"]),
        // Beside a letter that is no ASCII.
        (
            Language::French,
            "l'\u{e9}t\u{e9} \u{e0} l\u{ff07}eau",
            &["\u{e9}t\u{e9}", "\u{e0}", "eau"],
        ),
        (Language::Italian, "dell'amico un'altra", &["amico", "altra"]),
        (Language::Dutch, "foto's zo'n", &["foto", "zo'n"]),
        (Language::Turkish, "Ankara'daki ev", &["Ankara", "ev"]),
        (Language::English, "l'homme", &["l'homme"]),
        (Language::None, "l'homme foto's", &["l'homme", "foto's"]),
    ] {
        assert_eq!(bare(language, text), words, "{language}");
    }
}

#[test]
fn languages_are_known_by_their_codes() {
    for language in Language::ALL {
        assert_eq!(Language::from_code(language.code()), Some(language));
    }
    let codes: std::collections::BTreeSet<_> = Language::ALL.map(Language::code).into();
    assert_eq!(codes.len(), Language::ALL.len());
    for code in ["", "EN", "eng", "english", "zh", "None"] {
        assert_eq!(Language::from_code(code), None, "{code}");
    }
    assert_eq!(Language::default(), Language::English);
}

#[test]
fn lists_of_words_that_say_nothing_are_there() {
    let without = [Language::Arabic, Language::None, Language::Romanian, Language::Tamil];
    for language in Language::ALL {
        let words = language != Language::English && !without.contains(&language);
        assert_eq!(stop_words::LISTS.contains_key(&language), words, "{language}");
    }
    assert!(stop_words::LISTS.values().all(|list| list.len() > 40));
}

fn language() -> impl Strategy<Value = Language> {
    prop::sample::select(Language::ALL.to_vec())
}

/// Texts of words of every language, with parts of others and with anything.
fn text() -> impl Strategy<Value = String> {
    let words: Vec<&str> = forms().flat_map(|(_sign, _language, words)| words).collect();
    let word = prop::sample::select(words);
    let part = prop_oneof![
        4 => word.prop_map(str::to_owned),
        2 => Just(" ".to_owned()),
        1 => prop::sample::select(vec!["'", "\u{2019}", "-", "\u{301}", "\u{308}", "s", "ue", "I"]).prop_map(str::to_owned),
        2 => "(\\PC|[a-zA-Z ']){0,8}",
    ];
    prop::collection::vec(part, 0..20).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn tokens_lie_on_characters_in_order_and_are_found_by_themselves(
        language in language(),
        text in prop_oneof![text(), "(\\PC|[a-zA-Z ']){0,60}"],
    ) {
        let mut analyzer = Analyzer::new(language);
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
    fn plain_texts_have_the_terms_that_they_have_among_others(
        language in language(),
        text in "([ -~]|[a-z.'_,:0-9]){0,40}",
    ) {
        let alone = terms_in(language, &text);
        let mut among = terms_in(language, &format!("{text} \u{e9}"));
        prop_assert_eq!(among.pop(), terms_in(language, "\u{e9}").pop());
        prop_assert_eq!(alone, among);
    }
}

/// What every language makes of sentences of all of them, as it was when the version was raised last:
/// postings that were kept are taken for those of today by that number alone.
#[test]
fn terms_are_those_of_the_version() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let sentences = std::fs::read_to_string(golden.join("sentences.txt")).unwrap();
    let version = format!("version {ANALYSIS_VERSION}\n");
    let mut found = version.clone();
    for language in Language::ALL {
        found.extend(["\n", language.code(), "\n"]);
        for sentence in sentences.lines() {
            let mut analyzed = Vec::new();
            Analyzer::new(language).tokens(sentence, |token| {
                let form = if token.form == token.term { "" } else { token.form };
                let stop = if token.stop { "-" } else { "" };
                analyzed.push(format!("{}{stop}/{form}", token.term));
            });
            found.push_str(&analyzed.join(" "));
            found.push('\n');
        }
    }
    let path = golden.join("terms.txt");
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    if found != kept && std::env::var_os("UPDATE").is_some() && !kept.starts_with(&version) {
        return std::fs::write(&path, found).unwrap();
    }
    let differs = found.lines().zip(kept.lines()).find(|(found, kept)| found != kept);
    assert!(
        found == kept,
        "other terms than before: raise ANALYSIS_VERSION, then UPDATE=1: {differs:?}"
    );
}
