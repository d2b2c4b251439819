//! Order, visibility and bounds of writes: N1 to N4.

use std::time::Duration;

use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::{LibraryId, Seq};
use arrwdb_engine::{
    Content, Embeddings, EngineConfig, EngineError, LibraryPatch, PutChunk, PutDocument, Query,
    SearchRequest,
};
use futures_util::future::join_all;

use crate::merges::until;
use crate::subject::*;

#[tokio::test(flavor = "multi_thread")]
async fn n1_a_write_is_visible_to_the_next_read_and_not_before_it_is_durable() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let library = library(&engine).await;
    disk.hold_syncs();
    let writer = engine.clone();
    let write =
        tokio::spawn(
            async move { writer.put_documents(TENANT, library, vec![document(1, 0)]).await },
        );
    // The first sync that is held back may be of another file than the log.
    while engine.health().log_stats.queued_records == 0 {
        tokio::task::yield_now().await;
    }
    // Decided on a guess that is not durable: its answer waits as well.
    let deleter = engine.clone();
    let delete =
        tokio::spawn(async move { deleter.delete_documents(TENANT, library, vec![id(9)]).await });
    for _chance in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(versions(&engine, library).await[1], None);
    assert!(!write.is_finished() && !delete.is_finished());
    disk.release_syncs();
    let written = write.await.unwrap().unwrap();
    assert_eq!(written.value[0].as_ref().unwrap().id, id(1));
    assert_eq!(delete.await.unwrap().unwrap().value, [None]);
    assert_eq!(versions(&engine, library).await[1], Some(0));
    let hits =
        engine.search(TENANT, library, nearest(vector(1, 0, 0), 1), None).await.unwrap().hits;
    assert_eq!(hits[0].document_id, id(1));
    assert!(hits[0].distance.unwrap() < 1e-6);
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn n2_a_read_with_a_token_sees_the_write_it_came_from() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let library = library(&engine).await;
    let quiet = crate::subject::library(&engine).await;
    for version in 0..50 {
        let put = engine.put_documents(TENANT, library, vec![document(1, version)]);
        let seq = put.await.unwrap().seq;
        let snapshot = engine.library(TENANT, library, Some(seq)).await.unwrap();
        assert!(snapshot.seq() >= seq);
        let found = snapshot.document(id(1), Embeddings::Omitted).unwrap().unwrap();
        assert_eq!(found.chunks[0].text, text(1, version, 0));
        // A library without records up to there is there too, and does not wait.
        engine.library(TENANT, quiet, Some(seq)).await.unwrap();
    }
    let future = Seq::new(engine.durable().get() + 1);
    let mut config = config();
    config.min_seq_wait_max = Duration::from_millis(20);
    engine.close().await.unwrap();
    let engine = open_with(&disk, config).await.unwrap();
    let refused = engine.library(TENANT, library, Some(future)).await.unwrap_err();
    assert!(matches!(refused, EngineError::SeqNotReached { .. }), "{refused}");
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn n3_a_full_queue_says_so_and_loses_nothing() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let library = library(&engine).await;
    disk.hold_syncs();
    let flood = (0..4000_u64).map(|version| {
        let engine = engine.clone();
        tokio::spawn(async move {
            engine
                .put_documents(TENANT, library, vec![document((version % 32) as u8, version)])
                .await
        })
    });
    let flood: Vec<_> = flood.collect();
    while !flood.iter().any(tokio::task::JoinHandle::is_finished) {
        tokio::task::yield_now().await;
    }
    disk.release_syncs();
    let outcomes = join_all(flood).await;
    let (mut written, mut busy) = (0, 0);
    for outcome in outcomes {
        match outcome.unwrap() {
            Ok(_) => written += 1,
            Err(EngineError::Busy { .. }) => busy += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(written > 0 && busy > 0, "{written} {busy}");
    assert!(versions(&engine, library).await.iter().any(Option::is_some));
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn n4_reads_go_on_while_writes_wait() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let library = library(&engine).await;
    engine.put_documents(TENANT, library, vec![document(1, 0)]).await.unwrap();
    disk.hold_syncs();
    let writer = engine.clone();
    let write =
        tokio::spawn(
            async move { writer.put_documents(TENANT, library, vec![document(1, 1)]).await },
        );
    assert!(disk.wait_for_held_sync(Duration::from_secs(10)));
    for _read in 0..100 {
        let answer = engine.search(TENANT, library, nearest(vector(1, 0, 0), 3), None).await;
        assert_eq!(answer.unwrap().hits[0].chunk.text, text(1, 0, 0));
    }
    disk.release_syncs();
    write.await.unwrap().unwrap();
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_document_of_a_batch_stands_for_itself() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let library = library(&engine).await;
    let mut blank = of_text("");
    blank.content = Content::Texts(vec!["fine".into(), "  ".into()]);
    let mut short = document(2, 0);
    short.content = Content::Chunks(vec![PutChunk {
        text: "two dimensions".into(),
        embedding: Some(vec![1.0, 2.0]),
        ..PutChunk::default()
    }]);
    let mut infinite = document(3, 0);
    infinite.content = Content::Chunks(vec![PutChunk {
        text: "infinite".into(),
        embedding: Some(vec![f32::INFINITY; DIMENSION as usize]),
        ..PutChunk::default()
    }]);
    let mut untitled = document(4, 0);
    untitled.title = String::new();
    let batch = vec![blank, document(1, 5), short, infinite, untitled, of_text("some words")];
    let written = engine.put_documents(TENANT, library, batch).await.unwrap();
    let fields: Vec<_> = written
        .value
        .iter()
        .map(|outcome| match outcome {
            Ok(_) => "",
            Err(
                EngineError::Blank { field, .. }
                | EngineError::Invalid { field, .. }
                | EngineError::Vector { field, .. },
            ) => field,
            Err(other) => panic!("{other}"),
        })
        .collect();
    let expected = ["/texts/1", "", "/chunks/0/embedding", "/chunks/0/embedding", "/title", ""];
    assert_eq!(fields, expected);
    let snapshot = engine.library(TENANT, library, None).await.unwrap();
    assert_eq!(snapshot.stats().documents, 2);
    let request = SearchRequest {
        distance_threshold: Some(0.01),
        include_embeddings: true,
        ..SearchRequest::new(Query::Text("some words".into()), 1)
    };
    let hits = engine.search(TENANT, library, request, None).await.unwrap().hits;
    assert_eq!(hits[0].chunk.text, "some words");
    assert_eq!(hits[0].chunk.embedding.len(), DIMENSION as usize);
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn libraries_come_change_and_go() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let first = library(&engine).await;
    let second = library(&engine).await;
    engine.put_documents(TENANT, first, vec![document(1, 0)]).await.unwrap();
    let patch = LibraryPatch {
        name: Some("renamed".into()),
        description: Some(Some("d".into())),
        ..LibraryPatch::default()
    };
    engine.update_library(TENANT, second, patch).await.unwrap();
    engine.delete_library(TENANT, first).await.unwrap();
    let gone = engine.put_documents(TENANT, first, vec![document(1, 1)]).await.unwrap_err();
    assert!(matches!(gone, EngineError::LibraryNotFound(id) if id == first));
    let unknown = LibraryId::from_bytes([7; 16]);
    assert!(engine.library(TENANT, unknown, None).await.is_err());
    let other = arrwdb_engine::state::TenantId::new(5);
    assert!(engine.library(other, second, None).await.is_err(), "another tenant's");
    engine.close().await.unwrap();
    let engine = open(&disk).await;
    let left = engine.libraries(TENANT, None).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].spec.id, left[0].spec.name.as_str()), (second, "renamed"));
    engine.close().await.unwrap();
}

/// A document of 40 KB: of a few, one after the other, the segments are too large to be merged while
/// a record is on its way to the disk.
fn large(n: u8) -> PutDocument {
    let chunk = |part| PutChunk {
        text: "x".repeat(10_000),
        embedding: Some(vector(n, 0, part)),
        ..PutChunk::default()
    };
    PutDocument { content: Content::Chunks((0..4).map(chunk).collect()), ..document(n, 0) }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_segments_in_memory_are_merged_once_nothing_is_in_flight() {
    let disk = MemoryDisk::new();
    let config = EngineConfig { checkpoint_bytes: 1 << 30, ..config() };
    let engine = open_with(&disk, config).await.unwrap();
    let library = library(&engine).await;
    let stats = async || engine.library(TENANT, library, None).await.unwrap().stats();
    for n in 0..31 {
        engine.put_documents(TENANT, library, vec![large(n)]).await.unwrap();
    }
    // Each larger than those after it together.
    until(async || stats().await.segments <= 5).await;
    let together = (31..127).map(|n| engine.put_documents(TENANT, library, vec![large(n)]));
    for written in join_all(together).await {
        written.unwrap();
    }
    until(async || stats().await.segments <= 7).await;
    let stats = stats().await;
    assert_eq!((stats.documents, stats.chunks, stats.segments_mapped), (127, 4 * 127, 0));
    engine.close().await.unwrap();
    let engine = open(&disk).await;
    let stats = engine.library(TENANT, library, None).await.unwrap().stats();
    assert_eq!((stats.documents, stats.chunks), (127, 4 * 127));
    engine.close().await.unwrap();
}
