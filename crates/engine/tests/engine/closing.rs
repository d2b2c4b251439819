//! Engines that close while something is going on.

use std::time::Duration;

use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::{IndexSpec, Language, Metric};
use arrwdb_engine::{Engine, EngineConfig, EngineError, NewLibrary};
use futures_util::poll;

use crate::residence::digest;
use crate::subject::*;

/// Until the disk is asked for a sync that it holds back.
async fn held(disk: &MemoryDisk) {
    let disk = disk.clone();
    let waited = move || disk.wait_for_held_sync(Duration::from_secs(30));
    assert!(tokio::task::spawn_blocking(waited).await.unwrap(), "nothing was synced");
}

/// Several libraries with dead rows in two files each.
async fn with_dead_rows(disk: &MemoryDisk, config: &EngineConfig) -> Engine {
    let engine = open_with(disk, config.clone()).await.unwrap();
    for _library in 0..4 {
        let library = library(&engine).await;
        for n in 0..24 {
            put(&engine, library, n, 1).await;
        }
        engine.close_libraries().await;
        put(&engine, library, 30, 1).await;
        engine.close_libraries().await;
        engine.delete_documents(TENANT, library, vec![id(3)]).await.unwrap();
        put(&engine, library, 30, 2).await;
    }
    engine.close_libraries().await;
    engine
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_stops_a_purge_after_the_file_that_it_writes() {
    // Nothing but the purge removes dead rows.
    let config =
        EngineConfig { checkpoint_bytes: 1 << 30, history: Duration::from_hours(1), ..config() };
    let disk = MemoryDisk::new();
    let engine = with_dead_rows(&disk, &config).await;
    let mut digests = Vec::new();
    for library in engine.libraries(TENANT, None).await.unwrap() {
        digests.push((library.spec.id, digest(&engine, library.spec.id).await));
    }
    let undisturbed = disk.crash(|| true);
    let control = open_with(&undisturbed, config.clone()).await.unwrap();
    let whole = control.purge().await.unwrap();
    control.close().await.unwrap();
    assert!(whole.segments > whole.libraries && whole.libraries == 4, "{whole:?}");

    // Before the first library; and in the middle of the first file.
    for syncs in [0, 2] {
        let disk = disk.crash(|| true);
        let engine = open_with(&disk, config.clone()).await.unwrap();
        disk.hold_syncs();
        let purge = tokio::spawn({
            let engine = engine.clone();
            async move { engine.purge().await }
        });
        held(&disk).await;
        for _sync in 0..syncs {
            disk.let_syncs_through(1);
            held(&disk).await;
        }
        let mut close = Box::pin(engine.close());
        assert!(poll!(&mut close).is_pending());
        disk.release_syncs();
        close.await.unwrap();
        let stopped = purge.await.unwrap().unwrap_err();
        assert!(matches!(stopped, EngineError::Closed), "{stopped}");

        // What was done of it stays done, and another one does the rest.
        let engine = open_with(&disk, config.clone()).await.unwrap();
        for (library, expected) in &digests {
            assert_eq!(digest(&engine, *library).await, *expected);
        }
        let rest = engine.purge().await.unwrap();
        let done = whole.segments - rest.segments;
        assert!(done <= 1, "after {syncs} syncs, {done} of {} files were done", whole.segments);
        engine.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_that_is_created_while_the_engine_closes_has_no_writer_afterwards() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    disk.hold_syncs();
    let creation = tokio::spawn({
        let engine = engine.clone();
        async move {
            let new = NewLibrary {
                name: "the last one".into(),
                description: None,
                index: IndexSpec::default(),
                metric: Metric::Cosine,
                language: Language::default(),
                embedding_provider: None,
                embedding_model: None,
                embedding_dimension: Some(DIMENSION),
            };
            engine.create_library(TENANT, new).await
        }
    });
    held(&disk).await;
    let mut close = Box::pin(engine.close());
    // As far as it gets while the creation waits for the disk: the upkeep has ended.
    while engine.health().data_dir.is_ok() {
        assert!(poll!(&mut close).is_pending());
        tokio::task::yield_now().await;
    }
    for _turn in 0..1000 {
        assert!(poll!(&mut close).is_pending());
        tokio::task::yield_now().await;
    }
    disk.release_syncs();
    let made = creation.await.unwrap().unwrap().value.id;
    close.await.unwrap();
    let refused = engine.library(TENANT, made, None).await.map(drop).unwrap_err();
    assert!(matches!(refused, EngineError::Closed), "{refused}");
    let refused = engine.put_documents(TENANT, made, vec![document(1, 1)]).await.unwrap_err();
    assert!(matches!(refused, EngineError::Closed), "{refused}");
    assert_eq!(engine.health().libraries_open, 0);
    let again = open(&disk).await;
    assert!(again.libraries(TENANT, None).await.unwrap().iter().any(|it| it.spec.id == made));
    again.close().await.unwrap();
}
