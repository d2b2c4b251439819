//! Searches of vector fields against counting by hand, through replacements, deletions and merges.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use arrwdb_state::{
    Chunk, ChunkId, Command, Custom, Document, DocumentId, DocumentMetadata, DocumentRecord,
    FieldQuery, FieldSpec, FieldVector, FieldVectors, Filter, IndexSpec, Metric, NearestInField,
    Rejection, Seq, Sequential, SparseValue, Timestamp, Tuning, VectorKind, VectorValue, View,
    normalized,
};
use proptest::prelude::*;
use serde_json::json;

const LATE: u32 = 3;

fn spec(kind: VectorKind) -> FieldSpec {
    FieldSpec {
        name: kind.name().into(),
        kind,
        dimension: if kind == VectorKind::Sparse { 1 } else { LATE },
        metric: if kind == VectorKind::Sparse { Metric::Dot } else { Metric::Cosine },
        index: IndexSpec::default(),
        model: None,
    }
}

/// Vectors of one document in one field.
type Values = Vec<VectorValue>;

fn record(n: u8, late: &Values, sparse: &Values) -> DocumentRecord {
    let time = Timestamp::from_micros(1);
    let mut custom = Custom::new();
    custom.insert("even".into(), json!(n.is_multiple_of(2)));
    let metadata = DocumentMetadata {
        title: format!("{n}"),
        author: None,
        document_type: "text".into(),
        source_url: None,
        tags: Vec::new(),
        custom,
        created_at: time,
    };
    let chunk = Chunk {
        id: ChunkId::from_bytes([n; 16]),
        text: "a text".into(),
        embedding: vec![1.0],
        created_at: time,
        page_number: None,
        custom: Custom::new(),
    };
    let of = |kind, values: &Values| FieldVectors {
        spec: spec(kind),
        vectors: (0..)
            .zip(values)
            .map(|(at, value)| FieldVector {
                id: ChunkId::from_bytes([at; 16]),
                text: String::new(),
                value: value.clone(),
                created_at: time,
                custom: Custom::new(),
            })
            .collect(),
    };
    let mut fields = vec![of(VectorKind::Late, late), of(VectorKind::Sparse, sparse)];
    fields.retain(|field| !field.vectors.is_empty());
    let id = DocumentId::from_bytes([n; 16]);
    let document = Document { id, metadata: metadata.clone(), chunks: vec![chunk] };
    DocumentRecord::new(&document, 1).unwrap().with_fields(&metadata, &fields).unwrap()
}

fn late() -> impl Strategy<Value = VectorValue> {
    let number = (-3_i8..=3).prop_map(|n| f32::from(n) + 0.25);
    let row = prop::collection::vec(number, LATE as usize);
    prop::collection::vec(row, 1..5).prop_map(VectorValue::Late)
}

fn sparse() -> impl Strategy<Value = SparseValue> {
    let value = (1_i8..6).prop_map(|n| if n == 5 { -1.5 } else { f32::from(n) / 2.0 });
    prop::collection::btree_map(0_u32..8, value, 1..5).prop_map(|entries| SparseValue {
        indices: entries.keys().copied().collect(),
        values: entries.values().copied().collect(),
    })
}

/// The cosine similarity, or a dot product, by the definition.
fn similarity(query: &VectorValue, value: &VectorValue) -> Option<f64> {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    match (query, value) {
        (VectorValue::Late(query), VectorValue::Late(rows)) => {
            let cosine = |a: &[f32], b: &[f32]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
            let best = |q: &Vec<f32>| {
                rows.iter().map(|row| cosine(q, row)).fold(f64::NEG_INFINITY, f64::max)
            };
            Some(query.iter().map(best).sum::<f64>() / query.len() as f64)
        }
        (VectorValue::Sparse(query), VectorValue::Sparse(value)) => {
            let of: BTreeMap<_, _> = value.indices.iter().zip(&value.values).collect();
            let shared = query.indices.iter().zip(&query.values);
            let products: Vec<f64> = shared
                .filter_map(|(index, value)| Some(f64::from(*value) * f64::from(**of.get(index)?)))
                .collect();
            (!products.is_empty()).then(|| products.iter().sum())
        }
        _ => None,
    }
}

/// What a search of a field finds: distances with the documents and vectors that have them.
fn found(view: &View, query: &VectorValue, k: usize, filter: &Filter) -> Vec<(f32, u8, u8)> {
    let Some(field) = view.fields().get(query.kind().name()) else { return Vec::new() };
    let part = field.view();
    let selection = (!filter.is_empty()).then(|| part.select(filter, &Sequential).unwrap());
    let units: Vec<f32>;
    let prepared;
    let query = match query {
        VectorValue::Late(rows) => {
            units = rows.iter().flat_map(|row| normalized(row).unwrap().0).collect();
            FieldQuery::Late(&units)
        }
        VectorValue::Sparse(sparse) => {
            prepared = sparse.query().unwrap();
            FieldQuery::Sparse(&prepared)
        }
        VectorValue::Dense(vector) => FieldQuery::Dense(vector),
    };
    let wanted = NearestInField {
        query,
        metric: field.spec().metric,
        index: field.spec().index,
        tuning: Tuning::default(),
        k,
        threshold: None,
        among: selection.as_ref(),
    };
    let (found, _effort) = part.nearest_in_field(wanted, &Sequential).unwrap();
    let of = |found: arrwdb_state::Found| {
        let passage = part.passage_of(found.place, false).unwrap();
        let again = part.distance_in_field(found.place, query, field.spec().metric).unwrap();
        assert_eq!(again.map(f32::to_bits), Some(found.distance.to_bits()), "I6");
        (found.distance, passage.document_id.to_bytes()[0], passage.chunk.id.to_bytes()[0])
    };
    found.into_iter().map(of).collect()
}

fn values<T: std::fmt::Debug>(of: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(of, 0..3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn s5_fields_are_searched_as_counting_by_hand_says(
        batches in prop::collection::vec(
            prop::collection::vec((0_u8..12, values(late()), values(sparse())), 1..4),
            1..10,
        ),
        dead in prop::collection::vec(0_u8..12, 0..4),
        queries in (late(), sparse()),
        k in 1_usize..12,
    ) {
        let (mut view, mut seq) = (View::empty(1), 0);
        let mut model: BTreeMap<u8, (Values, Values)> = BTreeMap::new();
        let at = Timestamp::from_micros(2);
        let mut run = |view: &View, command| {
            let entry = view.decide(command, at, None).unwrap().entry;
            seq += 1;
            entry.map_or_else(|| view.clone(), |entry| view.apply(Seq::new(seq), &entry).unwrap())
        };
        for batch in batches {
            let mut records = Vec::new();
            for (n, late, sparse) in batch {
                let sparse: Values = sparse.into_iter().map(VectorValue::Sparse).collect();
                records.push(record(n, &late, &sparse));
                model.insert(n, (late, sparse));
            }
            view = run(&view, Command::Put(records, None));
        }
        for n in dead {
            model.remove(&n);
            view = run(&view, Command::Delete(vec![DocumentId::from_bytes([n; 16])], None));
        }
        view.verify().unwrap();
        let merged = view.with_memory_merged(Seq::START, view.applied()).unwrap();
        let even = Filter::read(json!({"even": true})).unwrap();
        for query in [queries.0, VectorValue::Sparse(queries.1)] {
            for filter in [&Filter::default(), &even] {
                let mut expected: Vec<(f64, u8, u8)> = Vec::new();
                for (n, (late, sparse)) in &model {
                    let of_kind = if query.kind() == VectorKind::Late { late } else { sparse };
                    for (at, value) in (0..).zip(of_kind) {
                        let passes = filter.is_empty() || n.is_multiple_of(2);
                        let similarity = similarity(&query, value).filter(|_it| passes);
                        expected.extend(similarity.map(|it| (1.0 - it, *n, at)));
                    }
                }
                expected.sort_by(|one, other| one.0.total_cmp(&other.0));
                let found_here = found(&view, &query, k, filter);
                prop_assert_eq!(found_here.len(), expected.len().min(k));
                for ((distance, ..), (right, ..)) in found_here.iter().zip(&expected) {
                    prop_assert!((f64::from(*distance) - right).abs() < 1e-5);
                }
                let all: BTreeMap<(u8, u8), f64> =
                    expected.iter().map(|(distance, n, at)| ((*n, *at), *distance)).collect();
                for (distance, n, at) in &found_here {
                    prop_assert!((f64::from(*distance) - all[&(*n, *at)]).abs() < 1e-5);
                }
                prop_assert_eq!(found(&merged, &query, k, filter), found_here, "S5");
            }
        }
    }
}

#[test]
fn what_a_field_does_not_hold_is_refused_and_nothing_of_it_is_there() {
    let dense = |dimension: u32| FieldVectors {
        spec: FieldSpec {
            name: "image".into(),
            kind: VectorKind::Dense,
            dimension,
            ..spec(VectorKind::Late)
        },
        vectors: vec![FieldVector {
            id: ChunkId::from_bytes([1; 16]),
            text: String::new(),
            value: VectorValue::Dense(vec![1.0; dimension as usize]),
            created_at: Timestamp::from_micros(1),
            custom: Custom::new(),
        }],
    };
    let at = Timestamp::from_micros(2);
    let put = |n: u8, dimension: u32| {
        let plain = record(n, &Vec::new(), &Vec::new());
        let metadata = plain.document().unwrap().metadata;
        plain.with_fields(&metadata, &[dense(dimension)]).unwrap()
    };
    let view = View::empty(1);
    let both = view.decide(Command::Put(vec![put(1, 2), put(2, 3)], None), at, None);
    assert!(matches!(both, Err(Rejection::Field { .. })), "in one command");
    let entry = view.decide(Command::Put(vec![put(1, 2)], None), at, None).unwrap().entry.unwrap();
    let view = view.apply(Seq::new(1), &entry).unwrap();
    let other = view.decide(Command::Put(vec![put(2, 3)], None), at, None);
    assert!(matches!(other, Err(Rejection::Field { .. })), "{other:?}");
    let declared = FieldSpec { dimension: 3, ..dense(2).spec };
    let other = view.decide(Command::PutField(declared), at, None);
    assert!(matches!(other, Err(Rejection::Field { .. })), "{other:?}");
    let same = view.decide(Command::PutField(dense(2).spec), at, None).unwrap();
    assert!(same.entry.is_none(), "nothing to change");
}
