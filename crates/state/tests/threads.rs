//! I4: a search has the same answer on any number of threads, whatever its segments are searched by.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use arrwdb_state::{
    Chunk, ChunkId, Command, Custom, Document, DocumentId, DocumentMetadata, DocumentRecord,
    Executor, IndexFile, IndexSpec, Metric, Nearest, Quantization, Seq, Sequential, Structure,
    Timestamp, View,
};

/// Rows so long that a few thousand of them are worth two threads.
const DIMENSION: u32 = 1024;
const SEGMENTS: u8 = 3;
const ROWS: usize = 1000;

/// Two threads.
struct Two;

impl Executor for Two {
    fn width(&self) -> usize {
        2
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            scope.spawn(|| (0..tasks).rev().filter(|n| n % 2 == 1).for_each(task));
            (0..tasks).filter(|n| n % 2 == 0).for_each(task);
        });
    }
}

/// Numbers in `-1..1`.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn document(n: u8) -> Document {
    let vectors = numbers(u64::from(n), ROWS * DIMENSION as usize);
    let chunk = |(place, embedding): (u128, &[f32])| Chunk {
        id: ChunkId::from_bytes(place.to_be_bytes()),
        text: "text".into(),
        embedding: embedding.to_vec(),
        created_at: Timestamp::from_micros(7),
        page_number: None,
        custom: Custom::new(),
    };
    let metadata = DocumentMetadata {
        title: "title".into(),
        author: None,
        document_type: "text".into(),
        source_url: None,
        tags: vec![],
        custom: Custom::new(),
        created_at: Timestamp::from_micros(6),
    };
    let chunks = (0..).zip(vectors.chunks_exact(DIMENSION as usize)).map(chunk).collect();
    Document { id: DocumentId::from_bytes([n; 16]), metadata, chunks }
}

/// A segment for each document.
fn library() -> View {
    let mut view = View::empty(DIMENSION);
    for n in 1..=SEGMENTS {
        let record = DocumentRecord::new(&document(n), DIMENSION).unwrap();
        let put = Command::Put(vec![record], None);
        let entry = view.decide(put, Timestamp::from_micros(9), None).unwrap().entry.unwrap();
        view = view.apply(Seq::new(n.into()), &entry).unwrap();
    }
    assert_eq!(view.segments().len(), usize::from(SEGMENTS));
    view
}

fn indexed(view: &View, spec: IndexSpec, metric: Metric) -> View {
    let mut indexed = view.clone();
    for segment in view.segments() {
        let segment = segment.segment();
        let index = IndexFile::build(segment, DIMENSION, spec, metric, &Two).unwrap().unwrap();
        indexed = indexed.with_index(segment, Some(Arc::new(index))).unwrap();
    }
    indexed
}

#[test]
fn i4_a_scan_by_codes_finds_the_same_on_any_number_of_threads() {
    let view = library();
    let metric = Metric::L2;
    let quantizations = [
        Quantization::new("none", &[]),
        Quantization::new("scalar", &[]),
        Quantization::new("binary", &[]),
        Quantization::new("product", &[("pq_subvectors", 64), ("rerank_top_k", 10)]),
    ];
    for quantization in quantizations.map(Result::unwrap) {
        let spec = IndexSpec { structure: Structure::BruteForce, quantization };
        let indexed = indexed(&view, spec, metric);
        for seed in 0..8 {
            let query = numbers(seed + 100, DIMENSION as usize);
            let wanted = Nearest { metric, index: spec, ..Nearest::new(&query, 20) };
            let one = indexed.nearest(wanted, &Sequential).unwrap();
            let two = indexed.nearest(wanted, &Two).unwrap();
            assert_eq!(one.0, two.0, "{spec}");
            assert_eq!(one.0.len(), 20);
            // What cannot be missed may be ruled out sooner or later.
            assert!(spec.is_exact() || one.1 == two.1, "{spec}: {:?}, {:?}", one.1, two.1);
            let mut exact = wanted;
            exact.tuning.exact = true;
            let [one, two] = [&Sequential as &dyn Executor, &Two]
                .map(|executor| indexed.nearest(exact, executor).unwrap());
            assert_eq!((&one.0, one.1.walked), (&two.0, 0), "{spec}, exactly");
        }
    }
}
