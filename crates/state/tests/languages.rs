//! Searches in several languages at once: each finds what it would find alone, whatever postings of
//! other languages are made meanwhile.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Barrier;

use arrwdb_state::{
    Bm25, Chunk, ChunkId, Command, Custom, Document, DocumentId, DocumentMetadata, DocumentRecord,
    KeywordQuery, Keywords, Language, Operator, Seq, Sequential, Timestamp, View,
};

const TEXTS: [&str; 4] = [
    "Das alte Haus am See",
    "Die H\u{e4}user der Stadt",
    "The houses of the town, the house of a lake",
    "L'histoire des maisons",
];

fn document(n: u8, text: &str) -> Document {
    let at = Timestamp::from_micros(6);
    let chunk = Chunk {
        id: ChunkId::from_bytes([n; 16]),
        text: text.into(),
        embedding: vec![1.0, f32::from(n)],
        created_at: at,
        page_number: None,
        custom: Custom::new(),
    };
    let metadata = DocumentMetadata {
        title: format!("t{n}"),
        author: None,
        document_type: "text".into(),
        source_url: None,
        tags: vec![],
        custom: Custom::new(),
        created_at: at,
    };
    Document { id: DocumentId::from_bytes([n; 16]), metadata, chunks: vec![chunk] }
}

/// A segment for each text.
fn library() -> View {
    let mut view = View::empty(2);
    for (n, text) in (1_u8..).zip(TEXTS) {
        let record = DocumentRecord::new(&document(n, text), 2).unwrap();
        let put = Command::Put(vec![record], None);
        let entry = view.decide(put, Timestamp::from_micros(9), None).unwrap().entry.unwrap();
        view = view.apply(Seq::new(n.into()), &entry).unwrap();
    }
    view
}

/// The texts that a search finds, in their order.
fn found(view: &View, query: &str, language: Language) -> Vec<usize> {
    let query = KeywordQuery::read(query, Operator::Or, language).unwrap();
    let wanted = Keywords { query: &query, k: 10, bm25: Bm25::default(), among: None };
    let (found, effort) = view.keywords(wanted, &Sequential).unwrap();
    let counted = view.matching(&query, None, &Sequential).unwrap();
    let having = view.having(&query, None, &Sequential).unwrap();
    assert_eq!(counted, found.len() as u64);
    // What is counted is of the same words as what is found.
    assert!(effort.terms.iter().map(|(_term, rows)| rows).sum::<u64>() >= counted);
    assert!(having.rows() >= counted);
    let text = |place| view.chunk_of(place, false).unwrap().chunk.text;
    let place = |text: String| TEXTS.iter().position(|known| **known == *text).unwrap();
    let mut found: Vec<usize> = found.iter().map(|found| place(text(found.place))).collect();
    found.sort_unstable();
    found
}

const ASKED: [(&str, Language, &[usize]); 6] = [
    ("h\u{e4}usern", Language::German, &[0, 1]),
    ("h\u{e4}usern", Language::None, &[]),
    ("housing", Language::English, &[2]),
    ("housing", Language::German, &[]),
    ("d'une maison", Language::French, &[3]),
    ("+haus", Language::None, &[0]),
];

#[test]
fn a_query_meets_postings_of_its_own_language() {
    let view = library();
    for _twice in 0..2 {
        for (query, language, expected) in ASKED {
            assert_eq!(found(&view, query, language), expected, "{language} {query}");
        }
    }
}

#[test]
fn searches_in_several_languages_at_once_find_what_each_finds_alone() {
    let (view, start) = (library(), Barrier::new(ASKED.len()));
    std::thread::scope(|scope| {
        for (query, language, expected) in ASKED {
            let (view, start) = (&view, &start);
            scope.spawn(move || {
                start.wait();
                for _again in 0..200 {
                    assert_eq!(found(view, query, language), expected, "{language} {query}");
                }
            });
        }
    });
}

#[test]
fn postings_of_one_language_are_kept_at_a_time() {
    let view = library();
    let mut bytes = Vec::new();
    for language in Language::ALL {
        found(&view, "haus", language);
        let kept = view.derived_bytes();
        // Asked again, nothing is made.
        found(&view, "haus", language);
        assert_eq!(view.derived_bytes(), kept, "{language}");
        bytes.push(kept);
    }
    let most = bytes.iter().max().unwrap();
    assert!(bytes.iter().all(|kept| kept * 2 > *most), "{bytes:?}");
}
