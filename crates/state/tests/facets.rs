//! Counts of values against counting documents one by one, over random histories: documents that were
//! replaced and deleted, in any number of segments, with and without a filter.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use arrwdb_state::{
    Chunk, ChunkId, Command, Custom, Document, DocumentId, DocumentMetadata, DocumentRecord, Facet,
    FacetCounts, FacetFault, FacetValue, Filter, Passage, Seq, Sequential, Timestamp, View,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// 2026-01-31T12:00:00Z.
const NOON: i64 = 1_769_860_800_000_000;

#[derive(Debug, Clone)]
enum Step {
    /// (id, metadata, metadata of each chunk) of each document.
    Put(Vec<(u8, Value, Vec<Value>)>),
    Delete(Vec<u8>),
    Merge,
}

fn any_scalar() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(1.0),
        json!(1.5),
        json!(9_007_199_254_740_993_u64),
        json!("x"),
        json!("y"),
        json!("2026-01-31"),
        json!("2026-01-31T00:00:00Z"),
    ])
}

fn any_metadata() -> impl Strategy<Value = Value> {
    let name = || prop::sample::select(vec!["a", "b", "a.b", "tags"]).prop_map(str::to_owned);
    let value = any_scalar().prop_recursive(3, 10, 3, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(name(), inner, 0..3)
                .prop_map(|it| Value::Object(it.into_iter().collect())),
        ]
    });
    prop::collection::btree_map(name(), value, 0..4)
        .prop_map(|it| Value::Object(it.into_iter().collect()))
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let chunks = prop::collection::vec(any_metadata(), 1..4);
    let put = prop::collection::vec((0_u8..12, any_metadata(), chunks), 1..4).prop_map(Step::Put);
    let delete = prop::collection::vec(0_u8..12, 1..3).prop_map(Step::Delete);
    prop::collection::vec(prop_oneof![5 => put, 2 => delete, 1 => Just(Step::Merge)], 1..12)
}

fn custom(value: &Value) -> Custom {
    value.as_object().unwrap().clone()
}

fn document(n: u8, metadata: &Value, chunks: &[Value]) -> Document {
    let chunk = |(index, of_chunk): (u8, &Value)| Chunk {
        id: ChunkId::from_bytes([n * 16 + index; 16]),
        text: "text".into(),
        embedding: vec![1.0],
        created_at: Timestamp::from_micros(NOON + i64::from(n / 4)),
        page_number: Some(u32::from(index)).filter(|index| *index > 0),
        custom: custom(of_chunk),
    };
    Document {
        id: DocumentId::from_bytes([n; 16]),
        metadata: DocumentMetadata {
            title: format!("title {}", n % 3),
            author: None,
            document_type: "text".into(),
            source_url: None,
            tags: vec!["x".into(), format!("tag {}", n % 2)],
            custom: custom(metadata),
            created_at: Timestamp::from_micros(0),
        },
        chunks: (0..).zip(chunks).map(chunk).collect(),
    }
}

/// Adds every single value with its path.
fn flatten(prefix: &str, object: &Custom, all: &mut Vec<(String, Value)>) {
    fn add(path: &str, value: &Value, all: &mut Vec<(String, Value)>) {
        match value {
            Value::Null => {}
            Value::Array(members) => members.iter().for_each(|member| add(path, member, all)),
            Value::Object(object) => flatten(&format!("{path}."), object, all),
            Value::Number(number) if number.as_f64() == Some(1.0) => {
                all.push((path.to_owned(), json!(1)));
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                all.push((path.to_owned(), value.clone()));
            }
        }
    }
    for (key, value) in object {
        add(&format!("{prefix}{key}"), value, all);
    }
}

/// Every value that a passage has, by the names that it has it by.
fn values(document: &Document, index: usize) -> BTreeMap<String, BTreeSet<String>> {
    let chunk = &document.chunks[index];
    let mut own = vec![
        ("title".to_owned(), json!(document.metadata.title)),
        ("document_type".to_owned(), json!("text")),
        ("chunk_index".to_owned(), json!(index)),
    ];
    let created = format!("2026-01-31T12:00:00.{:06}Z", chunk.created_at.micros() - NOON);
    own.push(("created_at".to_owned(), json!(created)));
    own.extend(chunk.page_number.map(|page| ("page_number".to_owned(), json!(page))));
    own.extend(document.metadata.tags.iter().map(|tag| ("tags".to_owned(), json!(tag))));
    let mut all = Vec::new();
    flatten("", &document.metadata.custom, &mut all);
    flatten("", &chunk.custom, &mut all);
    let named = all.iter().map(|(path, value)| (format!("custom.{path}"), value.clone()));
    let mut by_name: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, value) in own.into_iter().chain(all.clone()).chain(named) {
        by_name.entry(name).or_default().insert(value.to_string());
    }
    by_name
}

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
        let (mut view, mut documents) = (View::empty(1), Vec::<Document>::new());
        let mut seq = 0;
        for step in &steps {
            let command = match step {
                Step::Merge => {
                    view = view.with_memory_merged(Seq::START, Seq::new(seq)).unwrap();
                    continue;
                }
                Step::Delete(ids) => {
                    let ids: Vec<_> = ids.iter().map(|n| DocumentId::from_bytes([*n; 16])).collect();
                    documents.retain(|document| !ids.contains(&document.id));
                    Command::Delete(ids, None)
                }
                Step::Put(batch) => {
                    let mut records = Vec::new();
                    for (n, metadata, chunks) in batch {
                        let document = document(*n, metadata, chunks);
                        documents.retain(|old| old.id != document.id);
                        records.push(DocumentRecord::new(&document, 1).unwrap());
                        documents.push(document);
                    }
                    Command::Put(records, None)
                }
            };
            let decision = view.decide(command, Timestamp::from_micros(0), None).unwrap();
            if let Some(entry) = decision.entry {
                seq += 1;
                view = view.apply(Seq::new(seq), &entry).unwrap();
            }
        }
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
