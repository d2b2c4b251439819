//! Documents in the order of a field's values, against sorting them one by one, over random histories
//! and while documents come and go between two pages.

use arrwdb_state::{
    Command, Document, DocumentRecord, Filter, OrderBy, OrderedCursor, Passage, Seq, Sequential,
    Timestamp, View,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::history::{History, NOON, any_steps, document, values};

/// A value as documents are ordered by it.
#[derive(Debug, Clone, PartialEq, PartialOrd)]
enum Key {
    Bool(bool),
    Number(f64),
    Time(i64),
    Text(String),
}

fn key(value: &str) -> Key {
    match serde_json::from_str(value).unwrap() {
        Value::Bool(value) => Key::Bool(value),
        Value::Number(number) => Key::Number(number.as_f64().unwrap()),
        Value::String(text) => match text.as_str() {
            "2026-01-31" | "2026-01-31T00:00:00Z" => Key::Time(NOON - 12 * 3_600_000_000),
            _ => match text.strip_prefix("2026-01-31T12:00:00.") {
                Some(rest) => Key::Time(NOON + rest.trim_end_matches('Z').parse::<i64>().unwrap()),
                None => Key::Text(text),
            },
        },
        other @ (Value::Null | Value::Array(_) | Value::Object(_)) => {
            unreachable!("{other} is no single value")
        }
    }
}

/// The least or the greatest of a document's values of a field.
fn key_of(document: &Document, field: &str, descending: bool) -> Option<Key> {
    let all = (0..document.chunks.len())
        .flat_map(|index| values(document, index).remove(field).unwrap_or_default().into_iter());
    let order = |a: &Key, b: &Key| a.partial_cmp(b).unwrap();
    let keys = all.map(|value| key(&value));
    if descending { keys.max_by(order) } else { keys.min_by(order) }
}

/// The documents that pass, in their order, by number.
fn sorted(history: &History, (field, descending): (&str, bool), filter: &Filter) -> Vec<(Seq, u8)> {
    let passes = |document: &Document| {
        (0..).zip(&document.chunks).any(|(index, chunk)| {
            let (document_id, metadata) = (document.id, &document.metadata);
            filter.passes(&Passage { document_id, document: metadata, chunk, index })
        })
    };
    let mut all: Vec<_> = history
        .documents
        .iter()
        .filter(|(document, _born)| passes(document))
        .map(|(document, born)| (key_of(document, field, descending), *born, document.id))
        .collect();
    all.sort_by(|a, b| {
        let by_key = match (&a.0, &b.0) {
            (Some(a), Some(b)) if descending => b.partial_cmp(a).unwrap(),
            (Some(a), Some(b)) => a.partial_cmp(b).unwrap(),
            (a, b) => a.is_none().cmp(&b.is_none()),
        };
        by_key.then((a.1, a.2).cmp(&(b.1, b.2)))
    });
    all.into_iter().map(|(_key, born, id)| (born, id.to_bytes()[0])).collect()
}

fn page(
    view: &View,
    order: &OrderBy,
    (filter, cursor): (&Filter, Option<&OrderedCursor>),
    limit: usize,
) -> (Vec<OrderedCursor>, bool) {
    let selection = view.select(filter, &Sequential).unwrap();
    let page = view.documents_by((order, &selection), cursor, limit, &Sequential).unwrap();
    (page.documents, page.more)
}

fn numbers(documents: &[OrderedCursor]) -> Vec<(Seq, u8)> {
    documents.iter().map(|it| (it.born, it.id.to_bytes()[0])).collect()
}

fn any_filter() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!({}),
        json!({"a": {"$exists": true}}),
        json!({"chunk_index": {"$gt": 0}}),
        json!({"tags": "tag 1"}),
    ])
}

fn any_field() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "a",
        "b",
        "a.b",
        "custom.a",
        "tags",
        "title",
        "created_at",
        "chunk_index",
        "page_number",
        "absent",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn pages_are_in_the_order_of_a_field(
        steps in any_steps(),
        filter in any_filter(),
        (field, descending) in (any_field(), any::<bool>()),
        limit in 1_usize..5,
    ) {
        let history = History::of(&steps);
        let filter = Filter::read(filter).unwrap();
        let order = OrderBy::new(field.to_owned(), descending).unwrap();
        let expected = sorted(&history, (field, descending), &filter);
        let (all, more) = page(&history.view, &order, (&filter, None), 1000);
        prop_assert_eq!(numbers(&all), expected.clone());
        prop_assert!(!more);
        let (mut paged, mut cursor) = (Vec::new(), None);
        loop {
            let (documents, more) = page(&history.view, &order, (&filter, cursor.as_ref()), limit);
            paged.extend(numbers(&documents));
            cursor = documents.last().cloned();
            prop_assert!(documents.len() == limit || !more);
            prop_assert_eq!(more, paged.len() < expected.len());
            if !more {
                break;
            }
        }
        prop_assert_eq!(paged, expected);
    }

    #[test]
    fn what_stays_as_it_is_comes_once_whatever_is_written_meanwhile(
        (before, meanwhile) in (any_steps(), any_steps()),
        (field, descending) in (any_field(), any::<bool>()),
        limit in 1_usize..3,
    ) {
        let mut history = History::of(&before);
        let filter = Filter::default();
        let order = OrderBy::new(field.to_owned(), descending).unwrap();
        let first = sorted(&history, (field, descending), &filter);
        let (mut paged, mut cursor, mut meanwhile) = (Vec::new(), None, meanwhile.iter());
        loop {
            let (documents, more) = page(&history.view, &order, (&filter, cursor.as_ref()), limit);
            paged.extend(numbers(&documents));
            cursor = documents.last().cloned().or(cursor);
            if !more {
                break;
            }
            if let Some(step) = meanwhile.next() {
                history.take(step);
            }
        }
        let stays = |version: &&(Seq, u8)| {
            history.documents.iter().any(|(document, born)| {
                (*born, document.id.to_bytes()[0]) == **version
            })
        };
        let stayed: Vec<_> = first.iter().filter(stays).copied().collect();
        let seen: Vec<_> = paged.iter().filter(|version| stayed.contains(version)).copied().collect();
        prop_assert_eq!(seen, stayed);
        let mut versions = paged.clone();
        versions.sort_unstable();
        versions.dedup();
        prop_assert_eq!(versions.len(), paged.len(), "no version comes twice");
    }
}

#[test]
fn long_texts_are_ordered_by_their_beginnings_and_then_as_they_came() {
    let beginning = "\u{e4}".repeat(128);
    let texts = [format!("{beginning}z"), format!("{beginning}a"), "b".to_owned(), beginning];
    let documents = (1..).zip(texts);
    let documents = documents.map(|(n, text)| document(n, &json!({ "a": text }), &[json!({})]));
    let mut view = View::empty(1);
    for (seq, document) in (1..).zip(documents) {
        let record = DocumentRecord::new(&document, 1).unwrap();
        let put = Command::Put(vec![record], None);
        let entry = view.decide(put, Timestamp::from_micros(0), None).unwrap().entry.unwrap();
        view = view.apply(Seq::new(seq), &entry).unwrap();
    }
    for (descending, expected) in [(false, [3, 1, 2, 4]), (true, [1, 2, 4, 3])] {
        let order = OrderBy::new("a".to_owned(), descending).unwrap();
        let (all, _more) = page(&view, &order, (&Filter::default(), None), 10);
        let ids: Vec<u8> = all.iter().map(|it| it.id.to_bytes()[0]).collect();
        assert_eq!(ids, expected);
        let (rest, _more) = page(&view, &order, (&Filter::default(), all.get(1)), 10);
        assert_eq!(rest, all[2..]);
    }
}
