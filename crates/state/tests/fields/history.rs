//! Random histories of documents with metadata, and what they have by counting one by one.

use std::collections::{BTreeMap, BTreeSet};

use arrwdb_state::{
    Chunk, ChunkId, Command, Custom, Document, DocumentId, DocumentMetadata, DocumentRecord, Seq,
    Timestamp, View,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// 2026-01-31T12:00:00Z.
pub(crate) const NOON: i64 = 1_769_860_800_000_000;

#[derive(Debug, Clone)]
pub(crate) enum Step {
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

pub(crate) fn any_metadata() -> impl Strategy<Value = Value> {
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

pub(crate) fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let chunks = prop::collection::vec(any_metadata(), 1..4);
    let put = prop::collection::vec((0_u8..12, any_metadata(), chunks), 1..4).prop_map(Step::Put);
    let delete = prop::collection::vec(0_u8..12, 1..3).prop_map(Step::Delete);
    prop::collection::vec(prop_oneof![5 => put, 2 => delete, 1 => Just(Step::Merge)], 1..12)
}

fn custom(value: &Value) -> Custom {
    value.as_object().unwrap().clone()
}

pub(crate) fn document(n: u8, metadata: &Value, chunks: &[Value]) -> Document {
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
pub(crate) fn values(document: &Document, index: usize) -> BTreeMap<String, BTreeSet<String>> {
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

/// A library with what was written to it, and its documents as they have to be, each with the record
/// that added it.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) view: View,
    pub(crate) documents: Vec<(Document, Seq)>,
    seq: u64,
}

impl History {
    pub(crate) fn of(steps: &[Step]) -> Self {
        let mut history = Self { view: View::empty(1), documents: Vec::new(), seq: 0 };
        for step in steps {
            history.take(step);
        }
        history
    }

    pub(crate) fn take(&mut self, step: &Step) {
        let next = Seq::new(self.seq + 1);
        let command = match step {
            Step::Merge => {
                let merged = self.view.with_memory_merged(Seq::START, Seq::new(self.seq));
                self.view = merged.unwrap();
                return;
            }
            Step::Delete(ids) => {
                let ids: Vec<_> = ids.iter().map(|n| DocumentId::from_bytes([*n; 16])).collect();
                self.documents.retain(|(document, _born)| !ids.contains(&document.id));
                Command::Delete(ids, None)
            }
            Step::Put(batch) => {
                let mut records = Vec::new();
                for (n, metadata, chunks) in batch {
                    let document = document(*n, metadata, chunks);
                    self.documents.retain(|(old, _born)| old.id != document.id);
                    records.push(DocumentRecord::new(&document, 1).unwrap());
                    self.documents.push((document, next));
                }
                Command::Put(records, None)
            }
        };
        let decision = self.view.decide(command, Timestamp::from_micros(0), None).unwrap();
        if let Some(entry) = decision.entry {
            self.seq += 1;
            self.view = self.view.apply(next, &entry).unwrap();
        }
    }
}
