//! Hits grouped by documents: what a search for everything finds, grouped one by one.

use std::collections::HashMap;
use std::sync::Arc;

use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::limits::K_STREAM_MAX;
use arrwdb_engine::state::{
    ChunkId, DocumentId, Filter, IndexSpec, LibraryId, Metric, Quantization, Structure, Tuning,
};
use arrwdb_engine::{
    CANDIDATES_MAX, Content, Engine, EngineError, Fusion, GROUP_SIZE_MAX, GROUPS_MAX, Grouping,
    Hit, Mode, Preferences, PutChunk, PutDocument, Rescoring, Scoring, SearchAnswer, SearchRequest,
    WeightedSum,
};
use serde_json::{Value, json};

use crate::indexes::{library_by, small};
use crate::subject::*;

/// A document of `count` passages, each with the same word, more or less often.
fn passages(n: u8, count: u64) -> PutDocument {
    let chunk = |part: u64| PutChunk {
        text: format!(
            "{} part {part} of {n}",
            "word ".repeat(usize::from(n % 7) + usize::try_from(part % 5).unwrap())
        ),
        embedding: Some(vector(n, 1, part)),
        custom: json!({"even": part.is_multiple_of(2)}).as_object().unwrap().clone(),
        ..PutChunk::default()
    };
    let custom = json!({"third": n.is_multiple_of(3)}).as_object().unwrap().clone();
    let chunks = (0..count).map(chunk).collect();
    PutDocument { id: Some(id(n)), custom, content: Content::Chunks(chunks), ..of_text("") }
}

/// One of 400 passages that are all nearer to the query than any other.
fn crowd(n: u8) -> PutDocument {
    let near = |part: u16| {
        let mut vector = query();
        vector[0] += f32::from(part);
        PutChunk { text: "word word word".into(), embedding: Some(vector), ..PutChunk::default() }
    };
    let chunks = (0..400).map(near).collect();
    PutDocument { id: Some(id(n)), content: Content::Chunks(chunks), ..of_text("") }
}

fn query() -> Vec<f32> {
    vector(200, 3, 9).iter().map(|number| number * 40.0).collect()
}

/// Documents of 1 to 12 passages, some of them replaced or deleted, in several segments.
async fn filled(engine: &Engine, library: LibraryId) {
    for n in 0..120_u8 {
        let document = passages(n, u64::from(n) * 5 % 12 + 1);
        let written = engine.put_documents(TENANT, library, vec![document]).await.unwrap();
        written.value.into_iter().for_each(|outcome| drop(outcome.unwrap()));
        if n % 10 == 9 {
            let again = vec![passages(n - 3, 2)];
            engine.put_documents(TENANT, library, again).await.unwrap();
            engine.delete_documents(TENANT, library, vec![id(n - 7)]).await.unwrap();
        }
    }
}

async fn search(engine: &Engine, library: LibraryId, request: SearchRequest) -> SearchAnswer {
    engine.search(TENANT, library, request, None).await.unwrap()
}

type Found = Vec<(DocumentId, Vec<(ChunkId, String)>)>;

fn shown(hit: &Hit) -> (ChunkId, String) {
    (hit.chunk.id, format!("{:?} {}", hit.distance, hit.score))
}

/// What is found by everything, grouped one by one.
async fn oracle(engine: &Engine, library: LibraryId, asked: &SearchRequest) -> Found {
    let size = asked.grouping.unwrap().size;
    let tuning = Tuning { exact: asked.mode != Mode::Keyword, ..Tuning::default() };
    let k = asked.rescoring.as_ref().map_or(K_STREAM_MAX, |_rescoring| CANDIDATES_MAX);
    let all = SearchRequest { k, grouping: None, tuning, ..asked.clone() };
    let mut groups: Found = Vec::new();
    for hit in search(engine, library, all).await.hits {
        match groups.iter_mut().find(|(id, _)| *id == hit.document_id) {
            Some((_id, group)) if group.len() < size => group.push(shown(&hit)),
            Some(_) => {}
            None => groups.push((hit.document_id, vec![shown(&hit)])),
        }
    }
    groups.truncate(asked.k);
    groups
}

/// The groups of hits, which follow each other.
fn groups(hits: &[Hit]) -> Found {
    let mut groups: Found = Vec::new();
    for hit in hits {
        assert!(hit.document.is_some(), "what belongs to its document is there");
        match groups.last_mut().filter(|(id, _)| *id == hit.document_id) {
            Some((_id, group)) => group.push(shown(hit)),
            None => groups.push((hit.document_id, vec![shown(hit)])),
        }
    }
    let distinct: HashMap<_, _> = groups.iter().map(|(id, group)| (*id, group.len())).collect();
    assert_eq!(distinct.len(), groups.len(), "no document comes twice");
    groups
}

async fn check(engine: &Engine, library: LibraryId, asked: &SearchRequest) -> usize {
    let found = search(engine, library, asked.clone()).await;
    let groups = groups(&found.hits);
    assert_eq!(groups, oracle(engine, library, asked).await, "{asked:?}");
    groups.len()
}

fn grouped(k: usize, size: usize) -> SearchRequest {
    let grouping = Some(Grouping { size });
    SearchRequest { grouping, words: Some("word".into()), ..nearest(query(), k) }
}

fn filter(source: Value) -> Filter {
    Filter::read(source).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_those_of_a_search_for_everything() {
    let engine = open_with(&MemoryDisk::new(), small()).await.unwrap();
    for metric in Metric::ALL {
        let library = library_by(&engine, IndexSpec::default(), metric).await;
        assert_eq!(check(&engine, library, &grouped(3, 3)).await, 0, "nothing is there");
        filled(&engine, library).await;
        let crowds = vec![crowd(150), crowd(151)];
        engine.put_documents(TENANT, library, crowds).await.unwrap();
        let live = engine.library(TENANT, library, None).await.unwrap().stats().documents;
        for mode in [Mode::Vector, Mode::Keyword] {
            for (k, size) in [(1, 1), (2, 10), (3, 3), (10, 1), (40, 7), (GROUPS_MAX, 3)] {
                let asked = SearchRequest { mode, ..grouped(k, size) };
                let count = check(&engine, library, &asked).await;
                assert_eq!(count, k.min(usize::try_from(live).unwrap()));
                // Every third document, and every other passage of those.
                let third = filter(json!({"third": true, "even": true}));
                let few = SearchRequest { filter: third, ..asked };
                assert!(check(&engine, library, &few).await >= k.min(30));
            }
        }
        let all = search(&engine, library, nearest(query(), K_STREAM_MAX)).await.hits;
        // A few beyond the crowds.
        let far = all[850].distance;
        let near = SearchRequest { distance_threshold: far, ..grouped(80, 5) };
        assert!((3..80).contains(&check(&engine, library, &near).await));
        // Words that few have, and that none has.
        let one = SearchRequest { words: Some("119".into()), ..grouped(5, 2) };
        assert_eq!(check(&engine, library, &SearchRequest { mode: Mode::Keyword, ..one }).await, 1);
        let none = SearchRequest { words: Some("absent".into()), ..grouped(5, 2) };
        assert_eq!(
            check(&engine, library, &SearchRequest { mode: Mode::Keyword, ..none }).await,
            0
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hybrid_groups_are_those_of_the_fused_ranking() {
    let engine = open_with(&MemoryDisk::new(), small()).await.unwrap();
    let library = library_by(&engine, IndexSpec::default(), Metric::Cosine).await;
    let few = (0..20).map(|n| passages(n, u64::from(n) % 5 + 1)).collect();
    engine.put_documents(TENANT, library, few).await.unwrap();
    for fusion in [Fusion::RelativeScore, Fusion::ReciprocalRank, Fusion::Weighted] {
        for (k, size) in [(3, 2), (20, 10), (100, 1)] {
            let asked = SearchRequest { mode: Mode::Hybrid, fusion, ..grouped(k, size) };
            assert_eq!(check(&engine, library, &asked).await, k.min(20));
        }
    }
    // Beyond a crowd that is nearest and has the word besides.
    engine.put_documents(TENANT, library, vec![crowd(150), crowd(151)]).await.unwrap();
    let asked = SearchRequest { mode: Mode::Hybrid, ..grouped(15, 2) };
    let found = search(&engine, library, asked).await;
    assert_eq!(groups(&found.hits).len(), 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_scored_anew_is_grouped_by_its_new_scores() {
    let engine = open_with(&MemoryDisk::new(), small()).await.unwrap();
    let library = library_by(&engine, IndexSpec::default(), Metric::Cosine).await;
    filled(&engine, library).await;
    let hybrid = Scoring::Hybrid(Box::default());
    let length = Scoring::Each(Arc::new(WeightedSum::by_length(Preferences::default())));
    for by in [hybrid, length] {
        let all = Rescoring { by: by.clone(), candidates: Some(CANDIDATES_MAX) };
        let asked = SearchRequest { rescoring: Some(all), ..grouped(10, 3) };
        assert_eq!(check(&engine, library, &asked).await, 10);
        // As many candidates as it takes for so many documents, though fewer would be usual.
        let usual = Rescoring { by, candidates: None };
        let asked = SearchRequest { rescoring: Some(usual), ..asked };
        engine.put_documents(TENANT, library, vec![crowd(150)]).await.unwrap();
        assert_eq!(groups(&search(&engine, library, asked).await.hits).len(), 10);
        engine.delete_documents(TENANT, library, vec![id(150)]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approximate_index_gives_as_many_groups_with_the_best_passages_of_each() {
    let engine = open_with(&MemoryDisk::new(), small()).await.unwrap();
    let structures = [
        Structure::new("hnsw", &[("M", 4), ("ef_construction", 8), ("ef_search", 1)]).unwrap(),
        Structure::new("ivf", &[("n_clusters", 16), ("nprobe", 1)]).unwrap(),
    ];
    for structure in structures {
        let quantization = Quantization::None;
        let library =
            library_by(&engine, IndexSpec { structure, quantization }, Metric::Cosine).await;
        filled(&engine, library).await;
        engine.put_documents(TENANT, library, vec![crowd(150)]).await.unwrap();
        engine.optimize_index(TENANT, library).await.unwrap();
        let live = engine.library(TENANT, library, None).await.unwrap().stats().documents;
        let live = usize::try_from(live).unwrap();
        let everything = SearchRequest { k: GROUPS_MAX, ..grouped(GROUPS_MAX, 3) };
        let exact = oracle(&engine, library, &SearchRequest { k: live, ..everything }).await;
        let exact: HashMap<_, _> = exact.into_iter().collect();
        for k in [1, 10, GROUPS_MAX] {
            let found = search(&engine, library, grouped(k, 3)).await;
            let groups = groups(&found.hits);
            assert_eq!(groups.len(), k.min(live));
            for (id, group) in &groups {
                assert_eq!(group, &exact[id], "the best of its passages");
            }
            let firsts = |(id, _): &(DocumentId, Vec<_>)| {
                found.hits.iter().find(|hit| hit.document_id == *id).unwrap().distance.unwrap()
            };
            let distances: Vec<f32> = groups.iter().map(firsts).collect();
            assert!(distances.is_sorted(), "{distances:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_without_meaning_are_refused() {
    let engine = open_with(&MemoryDisk::new(), small()).await.unwrap();
    let library = library_by(&engine, IndexSpec::default(), Metric::Cosine).await;
    let mmr = Some(Rescoring { by: Scoring::Diverse { lambda: 0.5 }, candidates: None });
    for (asked, expected) in [
        (grouped(1, 0), "/group_size"),
        (grouped(1, GROUP_SIZE_MAX + 1), "/group_size"),
        (grouped(GROUPS_MAX + 1, 3), "/k"),
        (SearchRequest { rescoring: mmr, ..grouped(3, 3) }, "/group_by"),
    ] {
        let refused = engine.search(TENANT, library, asked, None).await.unwrap_err();
        let EngineError::Invalid { field, .. } = refused else { panic!("{refused}") };
        assert_eq!(field, expected);
    }
}
