use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::document::{Chunk, Custom, Document, DocumentMetadata};
use crate::ids::{ChunkId, DocumentId, Seq, Timestamp};
use crate::limits::{
    COLUMNS_PER_SEGMENT_MAX, FILTER_CONDITIONS_MAX, FILTER_DEPTH_MAX, FILTER_KEY_CHARS_MAX,
    FILTER_VALUE_CHARS_MAX, FILTER_VALUES_MAX,
};
use crate::record::DocumentRecord;
use crate::segment::{MemorySegment, Segment};

fn fields(value: &Value) -> Custom {
    value.as_object().unwrap().clone()
}

fn read(source: &Value) -> Filter {
    Filter::read(source.clone()).unwrap_or_else(|fault| panic!("{source}: {fault:?}"))
}

/// 2026-01-31T12:00:00Z.
const NOON: i64 = 1_769_860_800_000_000;

fn document(n: u8, metadata: &Value, chunks: &[(&str, Value)]) -> Document {
    let chunk = |(index, (text, custom)): (usize, &(&str, Value))| Chunk {
        id: ChunkId::from_bytes([n * 16 + u8::try_from(index).unwrap(); 16]),
        text: (*text).into(),
        embedding: vec![1.0],
        created_at: Timestamp::from_micros(NOON + i64::from(n)),
        page_number: u32::try_from(index).ok().filter(|index| *index > 0),
        custom: fields(custom),
    };
    let text = |name: &str| metadata[name].as_str().map(str::to_owned);
    let tags = metadata["tags"].as_array().into_iter().flatten();
    let mut custom = fields(metadata);
    custom.retain(|name, _value| !["title", "author", "tags"].contains(&name.as_str()));
    Document {
        id: DocumentId::from_bytes([n; 16]),
        metadata: DocumentMetadata {
            title: text("title").unwrap_or_else(|| "Untitled".into()),
            author: text("author"),
            document_type: "text".into(),
            source_url: None,
            tags: tags.filter_map(|tag| tag.as_str().map(str::to_owned)).collect(),
            custom,
            created_at: Timestamp::from_micros(0),
        },
        chunks: chunks.iter().enumerate().map(chunk).collect(),
    }
}

fn segment(documents: &[Document]) -> Segment {
    let record = |document: &Document| DocumentRecord::new(document, 1).unwrap();
    let records: Vec<DocumentRecord> = documents.iter().map(record).collect();
    Segment::Memory(MemorySegment::of_records(1, Seq::new(1), records.iter()))
}

/// The rows that pass, asked of one passage after the other, and asked of columns.
fn both_ways(filter: &Filter, documents: &[Document]) -> [BTreeSet<u32>; 2] {
    let passages = documents.iter().flat_map(|document| {
        (0..).zip(&document.chunks).map(|(index, chunk)| Passage {
            document_id: document.id,
            document: &document.metadata,
            chunk,
            index,
        })
    });
    let one_by_one = (0..).zip(passages).filter(|(_row, passage)| filter.passes(passage));
    let segment = segment(documents);
    let asked = Asked { segment: &segment, executor: &arrwdb_index::Sequential };
    let all = arrwdb_index::RowSet::full(segment.rows());
    let (selected, estimate) = filter.select(asked, all).unwrap();
    assert!((0.0..=f64::from(segment.rows())).contains(&estimate));
    [one_by_one.map(|(row, _passage)| row).collect(), selected.iter().collect()]
}

/// A document of one passage, with a field of each kind.
fn sample() -> Document {
    let library = json!({
        "title": "Deep Learning", "author": "Ada", "tags": ["ml", "books"],
        "year": 1998, "big": 9_007_199_254_740_993_u64, "ratio": 0.5, "open": true,
        "gone": null, "empty": [], "bare": {},
        "published": "2024-03-05", "updated": "2024-03-05T01:00:00+01:00",
        "kinds": ["x", 2, null, ["deep"]], "days": ["2024-03-05", "never"],
        "author2": {"name": "Grace", "born": 1906, "first.last": "Grace Hopper"},
        "caf": "Caf\u{e9} OFFICE \u{1f355}", "until": "9999-12-31", "ends": "9999-12-31T23:59:59Z",
        "steps": [{"n": 1, "by": ["a"]}, {"n": 2}], "a.b": "dotted",
    });
    let chunk = (
        "Neural networks, \u{6df1}\u{5ea6}\u{5b66}\u{4e60}.",
        json!({"section": "intro", "year": 7}),
    );
    document(1, &library, &[chunk])
}

fn check(cases: impl IntoIterator<Item = (Value, bool)>) {
    let documents = [sample()];
    for (filter, expect) in cases {
        let read = read(&filter);
        let row = BTreeSet::from_iter(expect.then_some(0));
        assert_eq!(both_ways(&read, &documents), [row.clone(), row], "{filter}");
    }
}

#[test]
fn a_value_equals_what_is_the_same_and_lists_have_members() {
    check([
        (json!({}), true),
        (json!([]), true),
        (json!({"title": "Deep Learning", "tags": "ml", "year": 1998.0}), true),
        (json!({"title": "deep learning"}), false),
        (json!({"tags": "music"}), false),
        (json!({"year": 7}), true),
        (json!({"year": "1998"}), false),
        (json!({"open": true}), true),
        (json!({"open": 1}), false),
        (json!({"big": 9_007_199_254_740_993_u64}), true),
        (json!({"big": 9_007_199_254_740_992_u64}), false),
        (json!({"kinds": "x"}), true),
        (json!({"kinds": "deep"}), true),
        (json!({"section": "intro"}), true),
        (json!({"custom.section": "intro"}), true),
        (json!({"custom.title": "Deep Learning"}), false),
        (json!({"chunk_index": 0, "document_type": "text"}), true),
        (json!({"page_number": 0}), false),
    ]);
}

#[test]
fn what_is_missing_is_null_and_is_not_anything_else() {
    check([
        (json!({"gone": null}), true),
        (json!({"absent": null}), true),
        (json!({"year": null}), false),
        (json!({"kinds": null}), true),
        (json!({"gone": {"$exists": true}}), true),
        (json!({"empty": {"$exists": true}}), true),
        (json!({"bare": {"$exists": true}}), true),
        (json!({"author2": {"$exists": true}}), true),
        (json!({"absent": {"$exists": false}}), true),
        (json!({"absent": {"$ne": 1}}), true),
        (json!({"absent": {"$nin": [1]}}), true),
        (json!({"absent": {"$gt": 1}}), false),
        (json!({"tags": {"$ne": "ml"}}), false),
        (json!({"year": {"$ne": 1999}}), true),
    ]);
}

#[test]
fn of_a_list_of_conditions_nothing_holds_of_what_is_missing() {
    check([
        (json!([{"field": "absent", "operator": "ne", "value": 1}]), false),
        (json!([{"field": "absent", "operator": "eq", "value": null}]), false),
        (json!([{"field": "absent", "operator": "exists", "value": false}]), true),
        (json!([{"field": "year", "operator": "ne", "value": 1}]), true),
        (
            json!([{"field": "year", "operator": "in", "value": [1, 1998]},
                {"field": "title", "operator": "contains", "value": "Learn"}]),
            true,
        ),
        (json!([{"field": "tags", "operator": "contains", "value": "books"}]), true),
        (json!([{"field": "tags", "operator": "contains", "value": "book"}]), false),
    ]);
}

#[test]
fn values_of_one_kind_have_an_order_and_times_are_times() {
    check([
        (json!({"year": {"$gt": 7, "$lt": 1999}}), true),
        (json!({"year": {"$gt": 1998}}), false),
        (json!({"year": {"$gte": 1998}}), true),
        (json!({"ratio": {"$lte": 0.5}}), true),
        (json!({"ratio": {"$lt": "1"}}), false),
        (json!({"open": {"$gt": false}}), true),
        (json!({"author": {"$gt": "Ac", "$lt": "B"}}), true),
        (json!({"author": {"$lt": 5}}), false),
        (json!({"published": "2024-03-05T00:00:00Z"}), true),
        (json!({"updated": "2024-03-05"}), true),
        (json!({"published": {"$gt": "2024-03-04T23:59:59Z", "$lt": "2024-03-05T00:00:01"}}), true),
        (json!({"published": {"$gt": "2024-03-05"}}), false),
        (json!({"published": {"$gt": "2024-x"}}), false),
        (json!({"until": {"$gt": "2026-01-01"}, "ends": {"$gt": "9999-12-31"}}), true),
        (json!({"until": {"$gte": "9999-12-31T00:00:00Z", "$lt": "9999-12-31T00:00:01Z"}}), true),
        (json!({"created_at": {"$lte": "9999-12-31"}}), true),
        (json!({"published": {"$prefix": "2024-"}}), true),
        (json!({"created_at": {"$gte": "2026-01-31T12:00:00Z", "$lt": "2026-02-01"}}), true),
        (json!({"created_at": "2026-01-31T12:00:00.000001Z"}), true),
        (json!({"days": "2024-03-05T00:00:00Z"}), true),
        (json!({"days": {"$lt": "2024-03-06", "$contains": "never"}}), true),
    ]);
}

#[test]
fn objects_are_looked_into_by_paths() {
    check([
        (json!({"author2.name": "Grace", "author2.born": {"$lt": 1907}}), true),
        (json!({"author2.first.last": "Grace Hopper"}), true),
        (json!({"a.b": "dotted"}), true),
        (json!({"steps.n": 2, "steps.by": "a"}), true),
        (json!({"steps.n": {"$contains": 1}}), true),
        (json!({"steps.m": {"$exists": true}}), false),
    ]);
}

#[test]
fn parts_of_texts_and_ids_are_found() {
    check([
        (json!({"title": {"$contains": "Learn"}}), true),
        (json!({"title": {"$contains": "learn"}}), false),
        (json!({"title": {"$not_contains": "learn"}}), true),
        (json!({"kinds": {"$contains": 2}}), true),
        (json!({"year": {"$contains": 1998}}), false),
        (json!({"title": {"$prefix": "Deep"}}), true),
        (json!({"tags": {"$prefix": "boo"}}), true),
        (json!({"title": {"$prefix": "Learning"}}), false),
        (json!({"title": {"$text": "LEARNING deep"}}), true),
        (json!({"title": {"$text": "learn"}}), false),
        (json!({"text": {"$text": "networks"}}), true),
        (json!({"text": {"$contains": "\u{5b66}\u{4e60}"}}), true),
        (json!({"text": {"$text": "\u{5ea6}"}}), true),
        // Composed and not, compatibility forms, emoji.
        (json!({"caf": {"$text": "cafe\u{301}"}}), true),
        (json!({"caf": {"$text": "caf\u{e9} \u{ff4f}\u{fb03}\u{ff43}\u{ff45}"}}), true),
        (json!({"caf": {"$text": "\u{1f355}"}}), true),
        (json!({"caf": {"$text": "\u{1f354}"}}), false),
        (json!({"document_id": "01010101-0101-0101-0101-010101010101"}), true),
        (json!({"source_document_id": {"$in": ["01010101010101010101010101010101", "x"]}}), true),
        (json!({"source_document_id": {"$prefix": "01010101-"}}), true),
        (json!({"document_id": {"$ne": "01010101010101010101010101010101"}}), false),
        (json!({"chunk_id": "10101010-1010-1010-1010-101010101010"}), true),
    ]);
}

#[test]
fn filters_are_combined() {
    check([
        (json!({"$or": [{"year": 1}, {"year": 7}]}), true),
        (json!({"$and": [{"year": 1998}, {"year": 7}], "open": true}), true),
        (json!({"$not": {"$or": [{"year": 7}, {"open": false}]}}), false),
        (json!({"year": {"$not": {"$gt": 1998}}}), true),
        (json!({"year": {"$in": []}}), false),
        (json!({"absent": {"$in": [null]}}), true),
    ]);
}

#[test]
fn what_is_no_filter_is_refused_where_it_is_wrong() {
    let deep = |n| (0..n).fold(json!({"a": 1}), |inner, _| json!({ "$not": inner }));
    let many = |n: usize| json!({"$or": (0..n).map(|n| json!({ "a": n })).collect::<Vec<_>>()});
    let values = |n: usize| json!({"a": {"$in": (0..n).collect::<Vec<_>>()}});
    let text = |n: usize| json!({"a": "x".repeat(n)});
    let name = |n: usize| json!({"k".repeat(n): 1});
    for fine in [
        deep(FILTER_DEPTH_MAX - 1),
        many(FILTER_CONDITIONS_MAX),
        values(FILTER_VALUES_MAX),
        text(FILTER_VALUE_CHARS_MAX),
        name(FILTER_KEY_CHARS_MAX),
    ] {
        assert!(Filter::read(fine.clone()).is_ok());
    }
    for (bad, pointer, detail) in [
        (json!("a"), "", "an object of fields"),
        (json!([{"field": "a", "operator": "ne"}]), "/0/value", "required"),
        (json!({"$nor": [{"a": 1}]}), "/$nor", "no operator"),
        (json!({"a": {"$regex": "x"}}), "/a/$regex", "$prefix"),
        (json!({"a": {"b": 1}}), "/a/b", "path"),
        (json!({"a": {}}), "/a", "an operator"),
        (json!({"a": [1]}), "/a", "$in"),
        (json!({"a/~": {"$in": 1}}), "/a~1~0/$in", "list"),
        (json!({"a": {"$in": [1, [2]]}}), "/a/$in/1", "a text, a number"),
        (json!({"a": {"$gt": null}}), "/a/$gt", "compared"),
        (json!({"a": {"$exists": 1}}), "/a/$exists", "true or false"),
        (json!({"a": {"$text": "?!"}}), "/a/$text", "word"),
        (json!({"a": {"$prefix": ""}}), "/a/$prefix", "not empty"),
        (json!({"a": {"$not": 1}}), "/a/$not", "operators"),
        (json!({"$and": []}), "/$and", "one filter or more"),
        (json!({"$or": [{}]}), "/$or/0", "a field or more"),
        (json!({"$not": {}}), "/$not", "a field or more"),
        (json!([{"field": "a", "operator": "like", "value": 1}]), "/0/operator", "contains"),
        (json!([{"field": "a", "operator": "$eq", "value": 1}]), "/0/operator", "eq"),
        (json!([{"field": 1, "operator": "eq", "value": 1}]), "/0/field", "text"),
        (json!([{"field": "a", "operator": "in", "value": 1}]), "/0/value", "list"),
        (json!([{"field": "a", "operator": "eq", "values": 1}]), "/0/values", "not known"),
        (json!([1]), "/0", "object"),
        (json!({"": 1}), "/", "1 to"),
        (deep(FILTER_DEPTH_MAX), "*", "limit"),
        (many(FILTER_CONDITIONS_MAX + 1), "", "limit"),
        (values(FILTER_VALUES_MAX + 1), "/a/$in", "limit"),
        (text(FILTER_VALUE_CHARS_MAX + 1), "/a", "limit"),
        (name(FILTER_KEY_CHARS_MAX + 1), "*", "1 to"),
    ] {
        let fault = Filter::read(bad.clone()).unwrap_err();
        assert!(fault.detail.contains(detail), "{fault:?} of {bad}");
        assert!(pointer == "*" || fault.pointer == pointer, "{fault:?} of {bad}");
    }
}

#[test]
fn a_filter_is_written_as_it_was_read() {
    for source in [json!({"a": {"$gte": 1}}), json!([{"field": "a", "operator": "eq", "value": 1}])]
    {
        assert_eq!(read(&source).source(), source);
        assert_eq!(read(&read(&source).source()), read(&source));
    }
    assert_eq!(read(&json!([])).source(), json!({}));
    assert!(read(&json!({})).is_empty());
}

/// Few names and few values, so that conditions meet what they are about.
fn any_name() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "a",
        "b",
        "a.b",
        "a.b.c",
        "c",
        "title",
        "author",
        "tags",
        "custom.a",
        "text",
        "chunk_index",
        "page_number",
        "created_at",
        "document_id",
        "chunk_id",
        "custom.title",
    ])
    .prop_map(str::to_owned)
}

fn any_scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|it| json!(it)),
        (0..4).prop_map(|it| json!(it)),
        (0..4).prop_map(|it| json!(f64::from(it) / 2.0)),
        prop::sample::select(vec![
            "",
            "x",
            "xy",
            "y x",
            "2024-01-01",
            "2024-01-01T00:00:00Z",
            "2024-01-02T03:00:00+03:00",
            "01010101-0101-0101-0101-010101010101",
        ])
        .prop_map(|it| json!(it)),
    ]
}

fn any_metadata() -> impl Strategy<Value = Value> {
    let value = any_scalar().prop_recursive(3, 12, 4, |inner| {
        let name = prop::sample::select(vec!["a", "b", "c", "b.c"]).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(name, inner, 0..4)
                .prop_map(|it| Value::Object(it.into_iter().collect())),
        ]
    });
    let name = prop::sample::select(vec!["a", "b", "a.b", "c", "title", "author", "tags"]);
    prop::collection::btree_map(name.prop_map(str::to_owned), value, 0..5)
        .prop_map(|it| Value::Object(it.into_iter().collect()))
}

fn any_test() -> impl Strategy<Value = Value> {
    let one = |names: &'static [&'static str], value: BoxedStrategy<Value>| {
        (prop::sample::select(names), value).prop_map(|(name, value)| json!({ name: value }))
    };
    let text = prop::sample::select(vec!["x", "2024", "y", "01010101-"]).prop_map(|it| json!(it));
    let not_null = any_scalar().prop_filter("null has no order", |it| !it.is_null());
    prop_oneof![
        one(&["$eq", "$ne", "$contains", "$not_contains"], any_scalar().boxed()),
        one(&["$gt", "$gte", "$lt", "$lte"], not_null.boxed()),
        one(&["$exists"], any::<bool>().prop_map(|it| json!(it)).boxed()),
        one(&["$prefix", "$text"], text.boxed()),
        one(
            &["$in", "$nin"],
            prop::collection::vec(any_scalar(), 0..3).prop_map(Value::Array).boxed()
        ),
    ]
}

fn any_filter() -> impl Strategy<Value = Value> {
    let of_field = (any_name(), any_test()).prop_map(|(name, test)| json!({ name: test }));
    let equality = (any_name(), any_scalar()).prop_map(|(name, value)| json!({ name: value }));
    let negated = (any_name(), any_test()).prop_map(|(name, test)| json!({ name: {"$not": test} }));
    prop_oneof![of_field, equality, negated].prop_recursive(3, 12, 3, |inner| {
        let several = || prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            several().prop_map(|it| json!({ "$and": it })),
            several().prop_map(|it| json!({ "$or": it })),
            inner.clone().prop_map(|it| json!({ "$not": it })),
        ]
    })
}

proptest! {
    #[test]
    fn s7_columns_select_what_passes_one_by_one(
        metadata in prop::collection::vec((any_metadata(), prop::collection::vec(any_metadata(), 1..4)), 1..5),
        filters in prop::collection::vec(any_filter(), 1..6),
    ) {
        let documents: Vec<Document> = (1..).zip(&metadata).map(|(n, (of_document, of_chunks))| {
            let texts = ["x", "x y, X", "nothing"].into_iter().cycle();
            let chunks: Vec<_> = texts.zip(of_chunks.iter().cloned()).collect();
            document(n, of_document, &chunks)
        }).collect();
        for filter in &filters {
            let [one_by_one, selected] = both_ways(&read(filter), &documents);
            prop_assert_eq!(one_by_one, selected, "{}", filter);
        }
    }

    #[test]
    fn no_json_breaks_the_reader(source in any_metadata(), filter in any_filter()) {
        drop(Filter::read(source.clone()));
        drop(Filter::read(json!([source, filter])));
    }
}

#[test]
fn fields_that_have_no_column_are_read_from_the_passages() {
    let many: Custom = (0..COLUMNS_PER_SEGMENT_MAX + 9)
        .map(|n| (format!("field {n}"), json!({ "of": n, "all": [n, "x"] })))
        .collect();
    let own = json!({"title": "Own", "author": "Ada"});
    let passages = [("one", json!({"last": 1})), ("two words", json!({"last": null}))];
    let documents =
        [document(1, &Value::Object(many), &passages), document(2, &own, &[("three", json!({}))])];
    let last = |path: &str| format!("field {}.{path}", COLUMNS_PER_SEGMENT_MAX + 7);
    let first = "field 0.of".to_owned();
    let segment = segment(&documents);
    assert!(is_left_out(segment.columns().unwrap(), &last("of")));
    assert!(!is_left_out(segment.columns().unwrap(), &first));
    assert!(!is_left_out(segment.columns().unwrap(), "title"));
    for (filter, rows) in [
        (json!({ first.clone(): 0 }), vec![0, 1]),
        (json!({ last("of"): {"$gt": 100} }), vec![0, 1]),
        (json!({ last("all"): {"$contains": "x"}, "last": 1 }), vec![0]),
        (json!({ last("of"): null }), vec![2]),
        (json!({"last": null}), vec![1, 2]),
        (
            json!({"$or": [{"author": "Ada"}, { last("of"): 1 }, {"text": {"$text": "words two"}}]}),
            vec![1, 2],
        ),
        (
            json!({"$not": {"$and": [{ last("of"): {"$exists": true} }, {"chunk_index": 0}]}}),
            vec![1, 2],
        ),
    ] {
        let rows = BTreeSet::from_iter(rows);
        assert_eq!(both_ways(&read(&filter), &documents), [rows.clone(), rows], "{filter}");
    }
}

#[test]
fn a_path_that_is_too_long_for_any_filter_costs_no_column() {
    let leaves: Custom = (0..1000).map(|n| (format!("leaf {n}"), json!(n))).collect();
    let long = json!({ "x".repeat(30_000): leaves, "y": {"z": 1} });
    let documents = [document(1, &long, &[("one", json!({}))])];
    let bytes = segment(&documents).columns().unwrap().bytes();
    assert!(bytes < 10_000, "{bytes} bytes of columns");
    let row = BTreeSet::from([0]);
    assert_eq!(both_ways(&read(&json!({"y.z": 1})), &documents), [row.clone(), row]);
}
