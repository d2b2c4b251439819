use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use unicode_segmentation::UnicodeSegmentation;

use super::bm25::Scorer;
use super::*;
use crate::analysis::{Analyzer, Language};
use crate::random::hash;
use crate::{AllRows, Allowed, RowId, RowSet};

/// An index of rows that have a title and a text.
fn index(rows: &[(&str, &str)]) -> Postings {
    index_in(Language::English, rows)
}

fn index_in(language: Language, rows: &[(&str, &str)]) -> Postings {
    let mut builder = PostingsBuilder::new(language);
    for (title, text) in rows {
        builder.push(&[title, text]);
    }
    builder.finish()
}

fn read(query: &str) -> KeywordQuery {
    KeywordQuery::read(query, Operator::Or, Language::English).unwrap()
}

/// What a search finds, best first, in an index that is the whole collection.
fn found(
    postings: &Postings,
    query: &KeywordQuery,
    k: usize,
    allowed: &dyn Allowed,
) -> Vec<(u32, u32)> {
    let rows = u64::from(postings.rows());
    let collection = Collection { rows, tokens: postings.tokens() };
    let owned: Vec<OwnedList> = query
        .terms
        .iter()
        .map(|term| match &term.what {
            What::Prefix(prefix) => postings.prefix_list(prefix),
            What::Phrase(terms) => phrase_list(postings, terms),
            What::Term(_) => OwnedList::default(),
        })
        .collect();
    let mut scored = Vec::new();
    for (term, owned) in query.terms.iter().zip(&owned) {
        let list = match &term.what {
            What::Term(term) => postings.list(term),
            What::Prefix(_) | What::Phrase(_) => Some(owned.list()),
        };
        if let Some(list) = list {
            let weight = collection.weight(u64::from(list.rows())) * term.count as f32;
            scored.push(Scored { list, weight });
        }
    }
    let mut rows = RowSet::full(postings.rows());
    rows.retain(allowed);
    for clause in &query.required {
        rows.intersect(&matching(postings, clause));
    }
    for clause in &query.excluded {
        let mut others = matching(postings, clause);
        others.invert();
        rows.intersect(&others);
    }
    let mut best = BestRows::new(k);
    let wanted = Wanted { terms: &scored, bm25: Bm25::default(), collection, allowed: &rows };
    search(postings, wanted, &mut best, |row| row);
    best.into_sorted()
}

/// The rows alone, ascending.
fn rows(postings: &Postings, query: &str) -> Vec<u32> {
    let mut rows: Vec<u32> =
        found(postings, &read(query), 100, &AllRows).into_iter().map(|(_score, row)| row).collect();
    rows.sort_unstable();
    rows
}

#[test]
fn words_phrases_prefixes_and_what_is_excluded_are_found() {
    let index = index(&[
        ("Cats", "The quick brown fox jumps over the lazy dog"),
        ("", "A brown quick fox; a library of dogs"),
        ("Dogs and cats", "Libraries are quick to search"),
        ("", "To be or not to be"),
        ("last of title", "brown begins the text"),
    ]);
    for (query, expected) in [
        ("quick", &[0, 1, 2][..]),
        ("QUICKLY dogs", &[0, 1, 2]),
        ("+\"quick brown\"", &[0]),
        ("+\"brown quick\" fox", &[1]),
        ("+\"the lazy dog\"", &[0]),
        ("+\"lazy the dog\"", &[]),
        ("+\"to be or not to be\"", &[3]),
        ("to be", &[2, 3]),
        ("quick -lazy", &[1, 2]),
        ("quick -\"quick brown\"", &[1, 2]),
        ("fox +libraries", &[1, 2]),
        ("libr*", &[1, 2]),
        ("library*", &[1, 2]),
        ("begi*", &[4]),
        ("quick -libr*", &[0]),
        // A phrase is within a text.
        ("+\"title brown\"", &[]),
        ("+\"last of title\"", &[4]),
        ("cats", &[0, 2]),
        ("nowhere", &[]),
        ("-quick", &[]),
        ("", &[]),
        ("\"", &[]),
        ("\"quick", &[0, 1, 2]),
        ("* + - \"\" -- +\"\" -*", &[]),
    ] {
        assert_eq!(rows(&index, query), expected, "{query}");
    }
    // A phrase that need not be there puts the rows that have it first.
    let best = found(&index, &read("\"brown quick\""), 10, &AllRows);
    assert_eq!(best.iter().map(|(_score, row)| *row).collect::<Vec<_>>()[..1], [1]);
    assert!(best.len() > 1);
    let all = KeywordQuery::read("\"quick brown\"", Operator::And, Language::English).unwrap();
    assert_eq!(found(&index, &all, 10, &AllRows).len(), 1);
    let all = KeywordQuery::read("quick dogs brown", Operator::And, Language::English).unwrap();
    let best = found(&index, &all, 10, &AllRows);
    assert_eq!(best.into_iter().map(|(_, row)| row).collect::<BTreeSet<_>>(), [0, 1].into());
}

#[test]
fn words_phrases_and_beginnings_are_found_in_the_forms_of_a_language() {
    let index = index_in(
        Language::French,
        &[
            ("", "Les droits de l'homme et du citoyen"),
            ("", "Des hommes de droit, \u{e0} l\u{2019}\u{e9}cole"),
            ("", "L'\u{c9}cole des chevaux"),
        ],
    );
    let rows = |query: &str| -> Vec<u32> {
        let query = KeywordQuery::read(query, Operator::Or, Language::French).unwrap();
        let found = found(&index, &query, 10, &AllRows).into_iter();
        let rows: BTreeSet<u32> = found.map(|(_score, row)| row).collect();
        rows.into_iter().collect()
    };
    for (query, expected) in [
        ("homme", &[0, 1][..]),
        ("d'hommes", &[0, 1]),
        ("+\"droit de l'homme\"", &[0]),
        ("+\"droits aux hommes\"", &[]),
        ("\u{e9}coles -cheval", &[1]),
        ("ecole", &[1, 2]),
        ("l'\u{e9}co*", &[1, 2]),
        ("l\u{2019}hom*", &[0, 1]),
        // They say nothing, and are looked for where there is nothing else.
        ("des homme", &[0, 1]),
        ("du", &[0]),
    ] {
        assert_eq!(rows(query), expected, "{query}");
    }
    let query = KeywordQuery::read("l'hommes \u{e9}co*", Operator::Or, Language::French).unwrap();
    let text = "\u{c0} l\u{2019}\u{c9}cole d'un Homme";
    let shown: Vec<&str> = highlights(text, &query).into_iter().map(|at| &text[at]).collect();
    assert_eq!(shown, ["\u{c9}cole", "Homme"]);
}

#[test]
fn a_beginning_finds_words_as_they_are_written_whatever_their_stems() {
    let index = index(&[
        ("", "Organs play; one organ plays"),
        ("", "An organization, and other organizations, organized"),
        ("", "Dying under grey skies"),
        ("Running", "runs, running, and ran"),
        ("", "A generation of general generators"),
        ("Runner", "to run is to be a runner"),
    ]);
    for (query, expected) in [
        ("organ*", &[0, 1][..]),
        ("organi*", &[1]),
        ("organiza*", &[1]),
        ("dyi*", &[2]),
        // Their stems are "die" and "sky".
        ("di*", &[]),
        ("skie*", &[2]),
        ("runn*", &[3, 5]),
        ("runni*", &[3]),
        ("ra*", &[3]),
        ("generator*", &[4]),
        ("+runni* run", &[3]),
        ("run -runni*", &[5]),
        // And whatever the whole word finds.
        ("organization*", &[0, 1]),
        ("running*", &[3, 5]),
        ("play*", &[0]),
    ] {
        assert_eq!(rows(&index, query), expected, "{query}");
    }
    let shown = |text: &'static str, query: &str| -> Vec<&'static str> {
        highlights(text, &read(query)).into_iter().map(|range| &text[range]).collect()
    };
    assert_eq!(shown("Organs of organizations", "organi*"), ["organizations"]);
    assert_eq!(shown("dying and diet", "di*"), ["diet"]);
}

#[test]
fn scripts_without_spaces_are_found_by_words_and_by_characters() {
    let tokyo = "\u{6771}\u{4eac}\u{90fd}\u{306b}\u{4f4f}\u{3080}";
    let index = index(&[("", tokyo), ("", "\u{4eac}\u{90fd} \u{732b}"), ("", "\u{9ed2}\u{732b}")]);
    for (query, expected) in [
        ("\u{6771}\u{4eac}", &[0][..]),
        ("\u{4eac}\u{90fd}", &[0, 1]),
        ("\u{732b}", &[1, 2]),
        ("\u{6771}", &[0]),
        ("\u{3080}", &[0]),
        ("+\"\u{6771}\u{4eac}\u{90fd}\"", &[0]),
        ("+\"\u{4eac}\u{90fd}\u{306b}\"", &[0]),
        ("+\"\u{90fd}\u{4eac}\"", &[]),
    ] {
        assert_eq!(rows(&index, query), expected, "{query}");
    }
}

#[test]
fn a_sign_or_a_phrase_is_of_all_of_what_follows() {
    let index = index(&[
        ("", "Report of 2024\u{5e74}\u{306b}, e-mail servers"),
        ("", "2024 \u{4eac}\u{90fd}\u{306e}\u{5bfa}, mail of a server"),
        ("", "git commit amend; at 40 degrees"),
    ]);
    for (query, expected) in [
        ("+\"2024\u{5e74}\"", &[0][..]),
        ("+2024\u{5e74}", &[0]),
        ("2024 -\"2024\u{5e74}\"", &[1]),
        ("\u{5bfa} -\u{6771}\u{4eac}\u{90fd}", &[1]),
        ("server -e-mail", &[1]),
        ("+e-mail", &[0]),
        ("commit --amend", &[2]),
        ("degrees -40", &[2]),
        ("\"git commit\"-server", &[0, 1, 2]),
        ("+\u{201c}git commit\u{201d}", &[2]),
        ("+\u{ab}mail of\u{bb}", &[1]),
        ("+git", &[2]),
    ] {
        assert_eq!(rows(&index, query), expected, "{query}");
    }
    assert_eq!(rows(&index, "com\u{ad}mit"), [2]);
}

#[test]
fn every_row_that_has_a_word_is_found_however_little_the_word_is_worth() {
    let texts = vec![("Manual", ""); 30_100];
    let index = index(&texts);
    assert_eq!(found(&index, &read("manual"), 40_000, &AllRows).len(), texts.len());
}

#[test]
fn a_query_of_too_many_words_is_refused() {
    let many = |count: usize| (0..count).map(|n| format!("w{n}")).collect::<Vec<_>>();
    assert!(
        KeywordQuery::read(&many(TERMS_MAX).join(" "), Operator::And, Language::English).is_ok()
    );
    let too_many = many(TERMS_MAX + 1).join(" ");
    for query in [too_many.clone(), format!("-{}", many(TERMS_MAX + 1).join(" -"))] {
        assert_eq!(
            KeywordQuery::read(&query, Operator::Or, Language::English),
            Err(QueryError::Words),
            "{query:.40}"
        );
    }
    let phrase = |words: usize| format!("+\"{}\"", vec!["a"; words].join(" "));
    let begins = |n: usize, sign: &str| -> String {
        let begins: Vec<String> = (0..n).map(|n| format!("{sign}b{n}*")).collect();
        begins.join(" ")
    };
    for sign in ["", "+", "-"] {
        let read = |n| KeywordQuery::read(&begins(n, sign), Operator::Or, Language::English);
        assert!(read(PREFIXES_MAX).is_ok());
        assert_eq!(read(PREFIXES_MAX + 1), Err(QueryError::Prefixes));
    }
    // One character of a script without spaces is found as the beginning of a pair; nobody asked for that.
    let alone: Vec<String> = ('\u{6df1}'..'\u{6e70}').map(String::from).collect();
    assert!(KeywordQuery::read(&alone.join(" "), Operator::Or, Language::English).is_ok());
    assert!(KeywordQuery::read(&phrase(PHRASE_TERMS_MAX), Operator::Or, Language::English).is_ok());
    let refused =
        KeywordQuery::read(&phrase(PHRASE_TERMS_MAX + 1), Operator::Or, Language::English);
    assert_eq!(refused, Err(QueryError::Phrase));
}

#[test]
fn scores_are_those_of_the_formula() {
    let index = index(&[("", "apple apple pear"), ("", "apple"), ("", "plum cherry plum fig")]);
    let best = found(&index, &read("apple plum"), 3, &AllRows);
    let score = |tf: f64, df: f64, length: f64| {
        let weight = (1.0 + (3.0 - df + 0.5) / (df + 0.5)).ln();
        let (mean, b) = (8.0 / 3.0, 0.7);
        weight * tf / (tf + (0.5 + 0.02 * mean) * (1.0 - b + b * length / mean))
    };
    let expected =
        [(2, score(2.0, 1.0, 4.0)), (0, score(2.0, 2.0, 3.0)), (1, score(1.0, 2.0, 1.0))];
    let expected: BTreeMap<u32, f64> = expected.into_iter().collect();
    assert_eq!(best.len(), 3);
    for (counted, row) in &best {
        let score = f64::from(*counted) / f64::from(SCORE_UNIT);
        assert!((score - expected[row]).abs() < 1e-4, "row {row}: {score} and {}", expected[row]);
    }
    assert!(best.windows(2).all(|pair| pair[0].0 >= pair[1].0));
    // Asked for twice, it counts twice.
    let (once, twice) =
        (found(&index, &read("plum"), 1, &AllRows), found(&index, &read("plum plum"), 1, &AllRows));
    assert!(twice[0].0.abs_diff(2 * once[0].0) <= 1);
}

#[test]
fn terms_of_plain_text_that_stand_side_by_side_are_pairs() {
    let pairs = |query: &str| -> Vec<String> {
        let pairs = read(query).pairs;
        pairs.into_iter().map(|(first, second)| format!("{first} {second}")).collect()
    };
    assert_eq!(
        pairs("vector databases of the real-time web"),
        ["vector databas", "real time", "time web"]
    );
    assert_eq!(pairs("a -b c \"d e\" f g* h h h"), ["h h"]);
    let many: Vec<String> = (0..200).map(|n| format!("w{n}")).collect();
    assert_eq!(pairs(&many.join(" ")).len(), PAIRS_MAX);
}

#[test]
fn terms_side_by_side_are_counted_where_they_are() {
    let texts: Vec<(&str, &str)> = (0..400)
        .map(|n| match n % 5 {
            0 => ("x y", "y x x y"),
            1 => ("x", "y"),
            2 => ("", "y x"),
            3 => ("", "x of y"),
            _ => ("", "x"),
        })
        .collect();
    let index = index(&texts);
    let (x, y) = (index.list("x").unwrap(), index.list("y").unwrap());
    let asked = [0, 1, 2, 3, 4, 130, 131, 255, 399];
    let mut found = Vec::new();
    side_by_side((x, y), &asked, |place, count| found.push((asked[place], count)));
    assert_eq!(found, [(0, 2), (130, 2), (255, 2)]);
    let mut found = Vec::new();
    side_by_side((y, x), &asked, |place, count| found.push((asked[place], count)));
    assert_eq!(found, [(0, 1), (2, 1), (130, 1), (255, 1)]);
}

#[test]
fn words_that_were_found_are_shown() {
    let text = "Na\u{ef}ve readers of Libraries: \u{6771}\u{4eac}\u{90fd}!";
    let shown = |query: &str| -> Vec<&str> {
        highlights(text, &read(query)).into_iter().map(|range| &text[range]).collect()
    };
    assert_eq!(shown("naive library"), ["Na\u{ef}ve", "Libraries"]);
    assert_eq!(shown("libra* +reader"), ["readers", "Libraries"]);
    assert_eq!(shown("\"readers of libraries\""), ["readers", "Libraries"]);
    assert_eq!(shown("\u{6771}\u{4eac}\u{90fd}"), ["\u{6771}\u{4eac}\u{90fd}"]);
    assert_eq!(shown("-readers nothing"), [""; 0]);
}

/// What readers see as one character is not cut, and what touches is no longer than was asked for.
#[test]
fn fragments_end_between_characters_as_readers_see_them() {
    let thai =
        "\u{0e02}\u{0e49}\u{0e2d}\u{0e21}\u{0e39}\u{0e25}\u{0e17}\u{0e35}\u{0e48}\u{0e21}\u{0e35}"
            .repeat(9);
    let family =
        "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}\u{1f44d}\u{1f3fd} kites \u{1f1e9}\u{1f1ea}"
            .repeat(9);
    let hangul = "kites \u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af} ".repeat(9);
    let hindi = "kites \u{0915}\u{094d}\u{092f}\u{094b}\u{0902}\u{0915}\u{093f} ".repeat(9);
    for (text, query) in [
        (&thai, "\u{0e02}\u{0e49}\u{0e2d}\u{0e21}\u{0e39}\u{0e25}"),
        (&family, "kites"),
        (&family, "\u{1f44d}"),
        (&hangul, "kites"),
        (&hindi, "kites"),
        (&"\u{6570}\u{636e}\u{5e93}".repeat(300), "\u{6570}\u{636e}\u{5e93}"),
        (&"kites".repeat(300), "kiteskites*"),
    ] {
        let query = read(query);
        let found = highlights(text, &query);
        let borders: BTreeSet<usize> =
            text.grapheme_indices(true).map(|(at, _)| at).chain([text.len()]).collect();
        assert!(!found.is_empty(), "{text}");
        assert!(found.iter().all(|it| borders.contains(&it.start) && borders.contains(&it.end)));
        for fragment_chars in 20..40 {
            let style = Highlight { fragment_chars, ..Highlight::default() };
            for fragment in fragments(text, &found, &style) {
                let plain = fragment.replace("<em>", "").replace("</em>", "");
                assert!(plain.chars().count() <= fragment_chars, "{plain}");
                let cut = text
                    .match_indices(&plain)
                    .any(|(at, _)| borders.contains(&at) && borders.contains(&(at + plain.len())));
                assert!(cut && fragment.contains("<em>"), "{fragment}");
            }
        }
    }
}

#[test]
fn bytes_that_are_no_index_do_not_panic() {
    let whole = index(&[
        ("a runs", "b c d organ"),
        ("", "b b running c organizations"),
        ("x", "y run runs"),
    ]);
    assert!(Postings::open(std::sync::Arc::new(whole.as_bytes().to_vec())).is_some());
    for at in 0..whole.as_bytes().len() {
        for flip in [1, 0x80, 0xff] {
            let mut bytes = whole.as_bytes().to_vec();
            bytes[at] ^= flip;
            if let Some(postings) = Postings::open(std::sync::Arc::new(bytes)) {
                for query in ["b", "b c y", "\"b c d\"", "b* x", "runn* organi*", "+x-ru*", "y -d"]
                {
                    found(&postings, &read(query), 3, &AllRows);
                }
            }
        }
        assert!(Postings::open(std::sync::Arc::new(whole.as_bytes()[..at].to_vec())).is_none());
    }
}

/// Every row scored by counting its terms one by one.
fn naive(texts: &[Vec<u16>], words: &[u16], allowed: &RowSet) -> Vec<(u32, u32)> {
    let having = |word: u16| texts.iter().filter(|text| text.contains(&word)).count() as u64;
    let tokens: usize = texts.iter().map(Vec::len).sum();
    let collection = Collection { rows: texts.len() as u64, tokens: tokens as u64 };
    let scorer = Scorer::new(Bm25::default(), collection);
    let mut asked: BTreeMap<u16, u32> = BTreeMap::new();
    for word in words {
        *asked.entry(*word).or_default() += 1;
    }
    let weights: Vec<(u16, f32)> = asked
        .into_iter()
        .map(|(word, count)| (word, collection.weight(having(word)) * count as f32))
        .collect();
    let mut best = Vec::new();
    for (row, text) in (0..).zip(texts).filter(|(row, _)| allowed.allows(RowId(*row))) {
        let counts = weights
            .iter()
            .map(|(wanted, weight)| (counted(text.iter().filter(|word| *word == wanted)), *weight));
        let has: Vec<(u32, f32)> = counts.filter(|(count, _)| *count > 0).collect();
        let score = has.iter().map(|(count, weight)| {
            scorer.score(*weight, *count, u16::try_from(text.len()).unwrap())
        });
        if !has.is_empty() {
            best.push((score.sum::<u32>(), row));
        }
    }
    best.sort_by_key(|(score, row)| (std::cmp::Reverse(*score), *row));
    best
}

fn counted<T>(all: impl Iterator<Item = T>) -> u32 {
    u32::try_from(all.count()).unwrap()
}

/// A word that is its own stem.
fn name(word: u16) -> String {
    format!("w{word}")
}

fn index_of(texts: &[Vec<u16>], title: &str) -> Postings {
    let mut builder = PostingsBuilder::new(Language::English);
    for text in texts {
        let text: Vec<String> = text.iter().copied().map(name).collect();
        builder.push(&[title, &text.join(" ")]);
    }
    builder.finish()
}

/// Rows in which small words are frequent, and some of which are long.
fn texts(rows: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Vec<u16>>> {
    (rows, any::<u64>()).prop_map(|(rows, seed)| {
        let mut drawn = 0;
        let mut below = |bound: u64| {
            drawn += 1;
            hash(seed, drawn) % bound
        };
        let text = |_row| {
            let words = if below(40) == 0 { 60 } else { below(12) };
            (0..words).map(|_word| u16::try_from(1000 / (below(1000) + 1)).unwrap()).collect()
        };
        (0..rows).map(text).collect()
    })
}

/// Words of few stems with many endings.
fn inflected() -> impl Strategy<Value = String> {
    let stem = prop::sample::select(vec![
        "organ",
        "gener",
        "d",
        "run",
        "\u{43a}\u{43d}\u{438}\u{433}",
        "c\u{f4}t",
        "talo",
        "univers",
    ]);
    let ending = prop::sample::select(vec![
        "",
        "s",
        "e",
        "\u{e9}",
        "es",
        "ing",
        "ning",
        "ization",
        "al",
        "ation",
        "ally",
        "ity",
        "ssa",
        "ista",
        "ihin",
        "lla",
        "\u{430}",
        "\u{438}",
        "\u{430}\u{43c}\u{438}",
        "ed",
        "er",
        "ers",
    ]);
    (stem, ending).prop_map(|(stem, ending)| format!("{stem}{ending}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_best_rows_are_those_that_counting_finds(
        texts in prop_oneof![texts(1..40), texts(300..1200), texts(5000..9000)],
        words in prop::collection::vec(prop_oneof![0_u16..5, 0_u16..400], 1..8),
        k in 1_usize..30,
        skipped in (0_u32..9000, 0_u32..5000),
    ) {
        let postings = index_of(&texts, "");
        let query = read(&words.iter().copied().map(name).collect::<Vec<_>>().join(" "));
        let mut allowed = RowSet::full(postings.rows());
        (skipped.0..skipped.0.saturating_add(skipped.1)).for_each(|row| allowed.remove(row));
        let mut expected = naive(&texts, &words, &allowed);
        expected.truncate(k);
        prop_assert_eq!(found(&postings, &query, k, &allowed), expected);
    }

    #[test]
    fn rows_that_are_asked_for_have_the_scores_that_counting_gives(
        texts in prop_oneof![texts(1..40), texts(300..1200)],
        words in prop::collection::vec(prop_oneof![0_u16..5, 0_u16..400], 1..8),
        asked in prop::collection::btree_set(0_u32..1200, 0..60),
    ) {
        let postings = index_of(&texts, "");
        let query = read(&words.iter().copied().map(name).collect::<Vec<_>>().join(" "));
        let asked: Vec<u32> = asked.into_iter().filter(|row| *row < postings.rows()).collect();
        let collection = Collection { rows: texts.len() as u64, tokens: postings.tokens() };
        let terms: Vec<Scored<'_>> = (query.terms.iter())
            .filter_map(|term| {
                let What::Term(text) = &term.what else { return None };
                let list = postings.list(text)?;
                let weight = collection.weight(u64::from(list.rows())) * term.count as f32;
                Some(Scored { list, weight })
            })
            .collect();
        let all: BTreeMap<u32, u32> = naive(&texts, &words, &RowSet::full(postings.rows()))
            .into_iter()
            .map(|(score, row)| (row, score))
            .collect();
        let expected: Vec<u32> =
            asked.iter().map(|row| all.get(row).copied().unwrap_or(0)).collect();
        let scorer = Scorer::new(Bm25::default(), collection);
        prop_assert_eq!(score_rows(&postings, &terms, scorer, &asked), expected);
    }

    #[test]
    fn phrases_are_found_where_their_words_follow_each_other(
        texts in texts(1..600),
        phrase in prop::collection::vec(prop_oneof![Just(1000_u16), Just(500), 0_u16..60], 2..4),
    ) {
        let postings = index_of(&texts, "title");
        let term = |(at, word): (u32, &u16)| PhraseTerm { at, term: name(*word).into(), begin: None };
        let terms = (0..).zip(&phrase).map(term);
        let found: Vec<u32> = matching(&postings, &Clause::Phrase(terms.collect())).iter().collect();
        let has = |text: &Vec<u16>| text.windows(phrase.len()).any(|window| window == phrase);
        let expected: Vec<u32> = (0..).zip(&texts).filter(|(_, text)| has(text)).map(|(row, _)| row).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_beginning_finds_exactly_the_words_that_begin_so(
        language in prop::sample::select(Language::ALL.to_vec()),
        texts in prop::collection::vec(prop::collection::vec(inflected(), 0..30), 1..200),
        word in inflected(),
        chars in 1_usize..12,
    ) {
        let begin: String = word.chars().take(chars).collect();
        let mut analyzer = Analyzer::new(language);
        let mut whole = String::new();
        analyzer.tokens(&begin, |token| whole = token.term.to_owned());
        let begin = analyzer.prefix(&begin);
        let texts: Vec<String> = texts.iter().map(|words| words.join(" ")).collect();
        let mut builder = PostingsBuilder::new(language);
        let mut expected = Vec::new();
        for (row, text) in (0..).zip(&texts) {
            builder.push(&[text]);
            let mut positions = Vec::new();
            analyzer.tokens(text, |token| {
                if token.term == whole || token.form.starts_with(&begin) {
                    positions.push((row, token.position));
                }
            });
            expected.extend(positions);
        }
        let postings = builder.finish();
        let postings = Postings::open(std::sync::Arc::new(postings.as_bytes().to_vec())).unwrap();
        let prefix = Prefix { begin: begin.into(), term: whole.into() };
        let mut found = Vec::new();
        let positions = postings.prefix_positions(&prefix);
        positions.list().for_each_position(|row, position| found.push((row, position)));
        prop_assert_eq!(&found, &expected);
        let mut counted_rows = Vec::new();
        postings.prefix_list(&prefix).list().for_each(|row, count| counted_rows.push((row, count)));
        let rows = expected.chunk_by(|a, b| a.0 == b.0);
        let expected: Vec<(u32, u32)> = rows.map(|same| (same[0].0, counted(same.iter()))).collect();
        prop_assert_eq!(counted_rows, expected);
    }

    #[test]
    fn no_text_is_refused_as_a_query_and_what_is_shown_is_whole(
        language in prop::sample::select(Language::ALL.to_vec()),
        query in prop_oneof!["\\PC{0,40}", "([a-z]{1,3}[*'\u{e0}-\u{17f} ]?){0,10}"],
        text in prop_oneof!["\\PC{0,60}", "([a-z]{1,3}['\u{e0}-\u{17f} ]?){0,20}"],
    ) {
        let query = KeywordQuery::read(&query, Operator::Or, language).unwrap();
        let index = index_in(language, &[("", &text)]);
        let found = found(&index, &query, 1, &AllRows);
        let shown = highlights(&text, &query);
        // A row that is found shows why.
        prop_assert!(found.is_empty() || !shown.is_empty());
        for range in &shown {
            prop_assert!(text.get(range.clone()).is_some_and(|word| !word.is_empty()));
        }
        prop_assert!(shown.windows(2).all(|pair| pair[0].end < pair[1].start));
        for fragment_chars in [20, 25, 2000] {
            let marks = ("\u{1}".to_owned(), "\u{2}".to_owned());
            let style = Highlight { before: marks.0, after: marks.1, fragments: 10, fragment_chars };
            let parts = fragments(&text, &shown, &style);
            prop_assert_eq!(parts.is_empty(), shown.is_empty());
            for part in parts {
                let plain: String = part.chars().filter(|it| !matches!(it, '\u{1}' | '\u{2}')).collect();
                prop_assert!(text.contains(&plain), "{:?}", part);
                prop_assert!(part.contains(['\u{1}', '\u{2}']), "{:?}", part);
            }
        }
    }
}

/// By hand: a term that two of ten rows have weighs ln(1 + 8.5 / 2.5), and k1 is 0.5 + 0.02 * 20 = 0.9;
/// where rows have 200 terms it is 2.4 and not 4.5.
#[test]
fn more_of_a_term_counts_for_more_where_rows_are_longer() {
    for (mean, length, frequency, expected) in [
        (20, 20, 1, 1.481_604_5 / (1.0 + 0.9)),
        (20, 40, 3, 1.481_604_5 * 3.0 / (3.0 + 0.9 * (0.3 + 0.7 * 2.0))),
        (200, 100, 2, 1.481_604_5 * 2.0 / (2.0 + 2.4 * (0.3 + 0.7 * 0.5))),
    ] {
        let collection = Collection { rows: 10, tokens: 10 * mean };
        let scorer = Scorer::new(Bm25::default(), collection);
        let score = f64::from(scorer.score(collection.weight(2), frequency, length));
        let off = score / f64::from(SCORE_UNIT) - expected;
        assert!(off.abs() < 1e-4, "{mean} {length} {frequency}: {off}");
    }
}
