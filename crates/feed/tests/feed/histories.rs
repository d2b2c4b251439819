//! Events of random histories, replayed into a map, give what the library has.

use std::collections::{BTreeMap, BTreeSet};

use arrwdb_engine::state::LibraryId;
use arrwdb_engine::{Embeddings, Engine};
use arrwdb_feed::Position;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Value;

use crate::support::*;

#[derive(Debug, Clone)]
enum Step {
    Put(Vec<(u8, usize)>),
    Delete(Vec<u8>),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec((0_u8..12, 1_usize..4), 1..5).prop_map(Step::Put),
        3 => prop::collection::vec(0_u8..14, 1..4).prop_map(Step::Delete),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..25)
}

/// Titles and chunks of documents, by id.
type Copy = BTreeMap<String, (String, BTreeSet<String>)>;

fn replay(events: &[Value]) -> Copy {
    let mut copy = Copy::new();
    let mut chunks: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for event in events {
        let data = &event["data"];
        let text = |name: &str| data[name].as_str().unwrap().to_owned();
        match event["type"].as_str().unwrap() {
            "chunk.added" => {
                assert!(chunks.entry(text("document_id")).or_default().insert(text("chunk_id")));
            }
            "chunk.deleted" => {
                assert!(chunks.get_mut(&text("document_id")).unwrap().remove(&text("chunk_id")));
            }
            kind @ ("document.added" | "document.updated") => {
                let of = chunks[&text("document_id")].clone();
                assert_eq!(data["num_chunks"], of.len());
                let before = copy.insert(text("document_id"), (text("title"), of));
                assert_eq!(before.is_some(), kind == "document.updated");
            }
            "document.deleted" => {
                let (title, of) = copy.remove(&text("document_id")).unwrap();
                assert_eq!(
                    (title, data["num_chunks"].as_u64()),
                    (text("title"), Some(of.len() as u64))
                );
                assert!(chunks[&text("document_id")].is_empty());
            }
            _ => {}
        }
    }
    copy
}

async fn library_has(engine: &Engine, library: LibraryId) -> Copy {
    let snapshot = engine.library(TENANT, library, None).await.unwrap();
    let page = snapshot.documents_at(0, 1000, Embeddings::Omitted).unwrap();
    let documents = page.documents.into_iter().map(|document| {
        let chunks = document.chunks.iter().map(|chunk| chunk.id.to_string()).collect();
        (document.id.to_string(), (document.metadata.title, chunks))
    });
    documents.collect()
}

async fn check(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = open(dir.path()).await;
    let mut feed = small_feed(&engine).await;
    let library = library(&engine).await;
    for step in steps {
        match step {
            Step::Put(documents) => {
                put(&engine, library, documents).await;
            }
            Step::Delete(ids) => {
                delete(&engine, library, &ids).await;
            }
            Step::Restart => {
                feed.close().await;
                engine.close().await.unwrap();
                engine = open(dir.path()).await;
                feed = small_feed(&engine).await;
            }
        }
    }
    let events = past(&feed, &engine, everything(), Position::START).await;
    assert_eq!(replay(&events), library_has(&engine, library).await);
    feed.close().await;
    engine.close().await.unwrap();
}

#[test]
fn events_replayed_into_a_map_are_what_the_library_has() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(ProptestConfig::with_cases(24));
    runner
        .run(&steps(), |steps| {
            runtime.block_on(check(steps));
            Ok(())
        })
        .unwrap();
}
