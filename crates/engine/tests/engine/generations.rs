//! A library whose embedding model is changed while it is written to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::LibraryId;
use arrwdb_engine::{Engine, EngineError, NewGeneration, Subject};

use crate::subject::*;

/// Documents of these tests.
const DOCUMENTS: u8 = 5;

/// Carries everything again and again until it is told to stop: what follows the log does less.
async fn carry(engine: Engine, library: LibraryId, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::SeqCst) {
        let Some(pair) = engine.carry_pair(library) else { return };
        let durable = engine.durable();
        engine.applied(Subject::Library(pair.from), durable).await;
        let carried = async {
            engine.carry(&pair, (0..DOCUMENTS).map(id).collect()).await?;
            engine.carried(&pair, durable, false).await
        };
        match carried.await {
            // Refused where it goes the other way by now.
            Ok(()) | Err(EngineError::Generation(_) | EngineError::Busy { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        tokio::task::yield_now().await;
    }
}

/// Writes until it is told to stop; the last version of each document.
async fn write(engine: Engine, library: LibraryId, stop: Arc<AtomicBool>) -> Vec<Option<u64>> {
    let mut last = vec![None; usize::from(DOCUMENTS)];
    let mut version = 0;
    while !stop.load(Ordering::SeqCst) {
        let n = u8::try_from(version % u64::from(DOCUMENTS)).unwrap();
        let mut put = of_text(&text(n, version, 0));
        put.id = Some(id(n));
        match engine.put_documents(TENANT, library, vec![put]).await {
            Ok(written) => {
                assert!(written.value[0].is_ok(), "{:?}", written.value[0]);
                last[usize::from(n)] = Some(version);
                version += 1;
            }
            // Until the upkeep has made room.
            Err(EngineError::Busy { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n5_what_is_acknowledged_is_in_the_active_generation_after_every_switch() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let library = library(&engine).await;
    let new = NewGeneration { embedding_dimension: Some(16), ..NewGeneration::default() };
    let pair = engine.begin_generation(TENANT, library, &new).await.unwrap().value;
    let stop = Arc::new(AtomicBool::new(false));
    let carrying = tokio::spawn(carry(engine.clone(), library, stop.clone()));
    let writing = tokio::spawn(write(engine.clone(), library, stop.clone()));
    engine.caught_up(&pair).await.unwrap();
    engine.prepare_generation(TENANT, &pair).await.unwrap();
    for turn in 0..6 {
        let switched = if turn % 2 == 0 {
            engine.activate_generation(TENANT, library).await.unwrap()
        } else {
            engine.roll_back_generation(TENANT, library).await.unwrap()
        };
        assert_eq!(switched.value.dimension, if turn % 2 == 0 { 16 } else { DIMENSION });
    }
    stop.store(true, Ordering::SeqCst);
    let last = writing.await.unwrap();
    carrying.await.unwrap();
    let crashed = open(&disk.crash(|| false)).await;
    for engine in [&engine, &crashed] {
        let snapshot = engine.library(TENANT, library, None).await.unwrap();
        for (n, version) in (0..DOCUMENTS).zip(&last) {
            let found = snapshot.document(id(n), arrwdb_engine::Embeddings::Included).unwrap();
            let found = found.map(|document| document.chunks[0].text.clone());
            assert_eq!(found, version.map(|version| text(n, version, 0)), "{n}");
        }
        assert_eq!(snapshot.spec().dimension, DIMENSION);
    }
    crashed.close().await.unwrap();
    engine.close().await.unwrap();
}
