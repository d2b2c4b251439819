//! Vector fields: searched together, indexed, changed, and carried to another embedding model.

use std::collections::BTreeMap;

use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::{
    ChunkId, Custom, Filter, IndexSpec, LibraryId, Metric, Structure, Tuning, VectorKind,
    VectorValue,
};
use arrwdb_engine::{
    Engine, EngineError, FieldFusion, FieldValue, FieldWanted, MultiVectorAnswer,
    MultiVectorRequest, NewField, NewGeneration, NewVector, PutVector,
};
use serde_json::json;

use crate::indexes::small;
use crate::subject::*;

const FIELDS: [(&str, u32); 2] = [("image", 3), ("audio", 5)];

fn put_vector(field: &str, value: Option<VectorValue>, text: &str) -> PutVector {
    PutVector {
        id: None,
        field: field.into(),
        text: text.into(),
        value,
        picture: None,
        created_at: None,
        custom: Custom::new(),
        pointer: "/vectors/0".into(),
    }
}

fn numbers(n: u64, dimension: u32) -> Vec<f32> {
    vector(u8::try_from(n % 251).unwrap(), n, 3)[..dimension as usize].to_vec()
}

/// Documents of which some lack one of the fields.
async fn fill(engine: &Engine, library: LibraryId, count: u64) {
    let documents = (0..count).map(|n| {
        let mut put = document(0, 0);
        put.id = Some(arrwdb_engine::state::DocumentId::from_bytes(u128::from(n).to_be_bytes()));
        put.title = format!("{n}");
        put.custom.insert("part".into(), json!(n % 4));
        put.vectors.clear();
        for (at, (field, dimension)) in (0..).zip(FIELDS) {
            if n % (at + 5) != 0 {
                let value = VectorValue::Dense(numbers(n * 2 + at, dimension));
                put.vectors.push(put_vector(field, Some(value), ""));
            }
        }
        put
    });
    let written = engine.put_documents(TENANT, library, documents.collect()).await.unwrap();
    written.value.into_iter().for_each(|outcome| drop(outcome.unwrap()));
}

fn wanted(n: u64, weights: [f64; 2]) -> Vec<FieldWanted> {
    let of = |((field, dimension), weight): ((&str, u32), f64)| FieldWanted {
        field: field.into(),
        value: FieldValue::Vector(VectorValue::Dense(numbers(n, dimension))),
        weight,
        pointer: "/queries/0".into(),
    };
    FIELDS.into_iter().zip(weights).map(of).collect()
}

fn request(queries: Vec<FieldWanted>, k: usize) -> MultiVectorRequest {
    MultiVectorRequest {
        queries,
        k,
        fusion: FieldFusion::Late,
        filter: Filter::default(),
        distance_threshold: None,
        tuning: Tuning::default(),
    }
}

async fn search(
    engine: &Engine,
    library: LibraryId,
    request: MultiVectorRequest,
) -> MultiVectorAnswer {
    engine.search_fields(TENANT, library, request, None).await.unwrap()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_best_by_several_fields_are_those_that_scoring_every_document_gives() {
    const COUNT: u64 = 700;
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let library = library(&engine).await;
    fill(&engine, library, COUNT).await;
    let part = Filter::read(json!({"part": 1})).unwrap();
    for (weights, k, filter) in [
        ([0.5, 0.5], 5, Filter::default()),
        ([1.0, 0.0], 7, Filter::default()),
        ([0.1, 3.0], 20, part.clone()),
        ([1.0, 1.0], 100, part),
    ] {
        let filtered = !filter.is_empty();
        let query = 77;
        let request = MultiVectorRequest { filter, ..request(wanted(query, weights), k) };
        let answer = search(&engine, library, request).await;
        assert!(answer.plan.complete, "{:?}", answer.plan);
        let mut expected: Vec<(f64, u64)> = Vec::new();
        for n in (0..COUNT).filter(|n| !filtered || n % 4 == 1) {
            let mut score = None;
            for ((at, (_field, dimension)), weight) in (0..).zip(FIELDS).zip(weights) {
                if n % (at + 5) != 0 {
                    let value = numbers(n * 2 + at, dimension);
                    let similarity = cosine(&value, &numbers(query, dimension));
                    score = Some(score.unwrap_or(0.0) + weight * similarity);
                }
            }
            expected.extend(score.map(|score| (score, n)));
        }
        expected.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
        expected.truncate(k);
        assert_eq!(answer.hits.len(), expected.len());
        let by_n: BTreeMap<u64, f64> = expected.iter().map(|(score, n)| (*n, *score)).collect();
        for (hit, (score, _n)) in answer.hits.iter().zip(&expected) {
            assert!((hit.score - score).abs() < 1e-5, "{} instead of {score}", hit.score);
            let n: u64 = hit.metadata.title.parse().unwrap();
            assert!(by_n.contains_key(&n) || (hit.score - expected[k - 1].0).abs() < 1e-5);
            let sum: f64 = hit.matched.iter().map(|matched| matched.weighted_score).sum();
            let breakdown: f64 = hit.breakdown.values().sum();
            assert!((hit.score - sum).abs() < 1e-9 && (hit.score - breakdown).abs() < 1e-9);
        }
    }
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_has_an_index_of_its_own_and_keeps_it_over_a_start() {
    let disk = MemoryDisk::new();
    let engine = open_with(&disk, small()).await.unwrap();
    let library = library(&engine).await;
    fill(&engine, library, 1000).await;
    let hnsw = Structure::new("hnsw", &[("M", 8), ("ef_construction", 40), ("ef_search", 40)]);
    let index = IndexSpec { structure: hnsw.unwrap(), ..IndexSpec::default() };
    let field = NewField {
        name: "audio".into(),
        kind: VectorKind::Dense,
        dimension: Some(5),
        metric: Some(Metric::Cosine),
        index: Some(index),
        model: None,
    };
    engine.put_field(TENANT, library, field.clone()).await.unwrap();
    let other = NewField { dimension: Some(6), ..field };
    let refused = engine.put_field(TENANT, library, other).await.unwrap_err();
    assert!(matches!(refused, EngineError::VectorField { .. }), "{refused}");
    // Builds what is missing, and waits for it.
    engine.rebuild_index(TENANT, library, arrwdb_engine::IndexChange::default()).await.unwrap();
    let queries = || vec![wanted(400, [1.0, 1.0]).remove(1)];
    let found = search(&engine, library, request(queries(), 10)).await;
    assert!(found.plan.fields[0].effort.walked > 0, "{:?}", found.plan);
    let exact = MultiVectorRequest {
        tuning: Tuning { exact: true, ..Tuning::default() },
        ..request(queries(), 10)
    };
    let best = search(&engine, library, exact).await;
    assert_eq!(best.plan.fields[0].effort.walked, 0);
    for (found, best) in found.hits.iter().zip(&best.hits) {
        assert!(found.score <= best.score);
    }
    let digest = engine.library(TENANT, library, None).await.unwrap().stats().digest;
    engine.close().await.unwrap();
    let engine = open_with(&disk, small()).await.unwrap();
    let again = search(&engine, library, request(queries(), 10)).await;
    assert!(again.plan.fields[0].effort.walked > 0, "read and not built anew");
    assert_eq!(engine.library(TENANT, library, None).await.unwrap().stats().digest, digest);
    engine.optimize_index(TENANT, library).await.unwrap();
    assert_eq!(engine.library(TENANT, library, None).await.unwrap().stats().digest, digest);
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_that_many_change_at_the_same_time_are_all_changed() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let library = library(&engine).await;
    let mut put = document(1, 2);
    let ids: Vec<ChunkId> = (1..8).map(|n| ChunkId::from_bytes([n; 16])).collect();
    put.vectors = ids
        .iter()
        .map(|id| {
            let value = VectorValue::Dense(vec![1.0, 2.0]);
            PutVector { id: Some(*id), ..put_vector("image", Some(value), "before") }
        })
        .collect();
    engine.put_documents(TENANT, library, vec![put]).await.unwrap();
    let tasks = ids.iter().map(|vector| {
        let (engine, vector) = (engine.clone(), *vector);
        tokio::spawn(async move {
            let new = NewVector {
                text: Some("after".into()),
                value: Some(VectorValue::Dense(vec![f32::from(vector.to_bytes()[0]), 0.5])),
                ..NewVector::default()
            };
            engine.put_vector(TENANT, library, (id(1), vector), new).await.map(drop)
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap().unwrap();
    }
    let snapshot = engine.library(TENANT, library, None).await.unwrap();
    let fields = snapshot.field_vectors(id(1)).unwrap();
    for vector in &fields[0].vectors {
        let first = f32::from(vector.id.to_bytes()[0]);
        assert_eq!(vector.value, VectorValue::Dense(vec![first, 0.5]));
        assert_eq!(vector.text, "after");
    }
    let missing = (id(1), ChunkId::from_bytes([99; 16]));
    let refused = engine.put_vector(TENANT, library, missing, NewVector::default()).await;
    assert!(matches!(refused, Err(EngineError::VectorNotFound(_))));
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn n5_fields_go_with_their_library_to_another_embedding_model() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let library = library(&engine).await;
    for n in 0..5 {
        put(&engine, library, n, 3).await;
    }
    let empty = NewField {
        name: "declared".into(),
        kind: VectorKind::Late,
        dimension: Some(4),
        metric: None,
        index: None,
        model: None,
    };
    engine.put_field(TENANT, library, empty).await.unwrap();
    let before = engine.library(TENANT, library, None).await.unwrap();
    let new = NewGeneration { embedding_dimension: Some(16), ..NewGeneration::default() };
    let pair = engine.begin_generation(TENANT, library, &new).await.unwrap().value;
    let durable = engine.durable();
    engine.carry(&pair, &mut arrwdb_engine::Load::of((0..5).map(id))).await.unwrap();
    engine.carried(&pair, durable, false).await.unwrap();
    engine.caught_up(&pair).await.unwrap();
    engine.prepare_generation(TENANT, &pair).await.unwrap();
    engine.activate_generation(TENANT, library).await.unwrap();
    let after = engine.library(TENANT, library, None).await.unwrap();
    assert_eq!(after.spec().dimension, 16);
    let names = |snapshot: &arrwdb_engine::Snapshot| {
        snapshot.fields().map(|field| field.spec().clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&after), names(&before), "those too in which there is nothing");
    for n in 0..5 {
        let vectors = after.field_vectors(id(n)).unwrap();
        assert_eq!(vectors, before.field_vectors(id(n)).unwrap(), "bit for bit");
        assert!(!vectors.is_empty());
    }
    engine.close().await.unwrap();
}
