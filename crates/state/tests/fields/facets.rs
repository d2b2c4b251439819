//! Counts of values against counting documents one by one, over random histories: documents that were
//! replaced and deleted, in any number of segments, with and without a filter.
use std::collections::{BTreeMap, BTreeSet};

use arrwdb_state::{
    Command, Document, DocumentRecord, Facet, FacetCounts, FacetFault, FacetValue, Filter, Passage,
    Seq, Sequential, Timestamp, View,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::history::{History, any_steps, document, values};

/// (documents, chunks) of each value of a field.
fn one_by_one(documents: &[Document], field: &str, filter: &Filter) -> Vec<(u64, u64, String)> {
    let mut counts: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for document in documents {
        let mut met = BTreeSet::new();
        for (index, chunk) in (0..).zip(&document.chunks) {
            let (document_id, metadata) = (document.id, &document.metadata);
            let passage = Passage { document_id, document: metadata, chunk, index };
            if !filter.passes(&passage) {
                continue;
            }
            let mut all = values(document, index as usize);
            for value in all.remove(field).unwrap_or_default() {
                let count = counts.entry(value.clone()).or_default();
                count.0 += u64::from(met.insert(value));
                count.1 += 1;
            }
        }
    }
    let mut counts: Vec<_> =
        counts.into_iter().map(|(value, (documents, chunks))| (documents, chunks, value)).collect();
    // Of those that as many have in any order: which comes first is looked at elsewhere.
    counts.sort_by(|a, b| (b.0, b.1, &a.2).cmp(&(a.0, a.1, &b.2)));
    counts
}

fn counted(view: &View, filter: &Filter, facet: Facet) -> FacetCounts {
    let selection = view.select(filter, &Sequential).unwrap();
    view.facets(&selection, &[facet], &Sequential).unwrap().pop().unwrap()
}

/// As [`one_by_one`] has them.
fn sorted(counts: FacetCounts) -> Vec<(u64, u64, String)> {
    let counts = counts.values.into_iter();
    let mut counts: Vec<_> =
        counts.map(|it| (it.documents, it.chunks, it.value.to_string())).collect();
    assert!(counts.is_sorted_by(|a, b| (a.0, a.1) >= (b.0, b.1)), "{counts:?}");
    counts.sort_by(|a, b| (b.0, b.1, &a.2).cmp(&(a.0, a.1, &b.2)));
    counts
}

const FIELDS: [&str; 12] = [
    "a",
    "b",
    "a.b",
    "a.b.a",
    "custom.a",
    "custom.tags",
    "tags",
    "title",
    "created_at",
    "chunk_index",
    "page_number",
    "absent",
];

proptest! {
    #[test]
    fn values_are_counted_as_one_by_one(
        steps in any_steps(),
        filter in prop::sample::select(vec![
            json!({}),
            json!({"a": {"$exists": true}}),
            json!({"chunk_index": {"$gt": 0}}),
            json!({"$not": {"b": "x"}}),
            json!({"tags": "tag 1"}),
        ]),
        limit in 1_usize..4,
    ) {
        let History { view, documents, .. } = History::of(&steps);
        let documents: Vec<Document> = documents.into_iter().map(|(document, _born)| document).collect();
        let filter = Filter::read(filter).unwrap();
        for field in FIELDS {
            let expected = one_by_one(&documents, field, &filter);
            let all = counted(&view, &filter, Facet::new(field.to_owned(), 1000).unwrap());
            prop_assert_eq!(all.others, 0);
            let few = counted(&view, &filter, Facet::new(field.to_owned(), limit).unwrap());
            prop_assert_eq!(&few.values[..], &all.values[..limit.min(all.values.len())]);
            prop_assert_eq!(few.others, (all.values.len() - few.values.len()) as u64);
            prop_assert_eq!(sorted(all), expected, "{}", field);
        }
    }
}

#[test]
fn of_values_that_as_many_have_the_least_comes_first() {
    let metadata = json!({"a": ["y", "x", 2, 10, true, false, "2026-01-31", null, {}, []]});
    let documents =
        [document(1, &metadata, &[json!({})]), document(2, &json!({"a": "y"}), &[json!({})])];
    let records = documents.map(|document| DocumentRecord::new(&document, 1).unwrap());
    let decision = View::empty(1)
        .decide(Command::Put(records.to_vec(), None), Timestamp::from_micros(0), None)
        .unwrap();
    let view = View::empty(1).apply(Seq::new(1), &decision.entry.unwrap()).unwrap();
    let facet = |limit| Facet::new("a".to_owned(), limit).unwrap();
    let all = counted(&view, &Filter::default(), facet(10));
    let value = |value: Value, documents| FacetValue { value, documents, chunks: documents };
    let rest = [json!(false), json!(true), json!(2), json!(10), json!("2026-01-31"), json!("x")];
    let rest = rest.into_iter().map(|it| value(it, 1));
    let expected: Vec<_> = std::iter::once(value(json!("y"), 2)).chain(rest).collect();
    assert_eq!(all, FacetCounts { values: expected, others: 0 });
    let few = counted(&view, &Filter::default(), facet(3));
    assert_eq!((&few.values[..], few.others), (&all.values[..3], 4));
}

#[test]
fn values_that_no_filter_takes_are_counted_and_not_shown() {
    let long = document(1, &json!({"a": ["x".repeat(1001), "\u{e4}".repeat(1000)]}), &[json!({})]);
    let record = DocumentRecord::new(&long, 1).unwrap();
    let decision = View::empty(1)
        .decide(Command::Put(vec![record], None), Timestamp::from_micros(0), None)
        .unwrap();
    let view = View::empty(1).apply(Seq::new(1), &decision.entry.unwrap()).unwrap();
    let counts = counted(&view, &Filter::default(), Facet::new("a".to_owned(), 5).unwrap());
    assert_eq!((counts.values.len(), counts.others), (1, 1));
    assert_eq!(counts.values[0].value, json!("\u{e4}".repeat(1000)));
}

#[test]
fn a_field_without_a_column_is_refused() {
    for name in ["", "text", "chunk_id", "document_id", "source_document_id"] {
        assert!(matches!(Facet::new(name.to_owned(), 1), Err(FacetFault::Field(_))), "{name}");
    }
    for limit in [0, 1001] {
        assert!(matches!(Facet::new("a".to_owned(), limit), Err(FacetFault::Limit(_))));
    }
}
