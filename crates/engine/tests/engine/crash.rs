//! Power failures at random moments: every acknowledged write is there, no write is half there.

use std::sync::Arc;

use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::LibraryId;
use arrwdb_engine::{Engine, EngineError};
use parking_lot::Mutex;

use crate::subject::*;

/// What each document may be after a crash: everything written since, and with, the last
/// acknowledged state.
#[derive(Clone, Default)]
struct Expected(Vec<Vec<Option<u64>>>);

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn n1_acknowledged_writes_survive_power_failures_at_random_moments() {
    let mut disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let library = library(&engine).await;
    engine.close().await.unwrap();
    let mut expected = Expected(vec![vec![None]; 32]);
    for round in 1..=12_u64 {
        let engine = open(&disk).await;
        let found = versions(&engine, library).await;
        for (n, (found, allowed)) in found.iter().zip(&expected.0).enumerate() {
            assert!(allowed.contains(found), "round {round}: {n} is {found:?} of {allowed:?}");
        }
        let snapshot = engine.library(TENANT, library, None).await.unwrap();
        assert_eq!(snapshot.stats().documents, found.iter().flatten().count() as u64);
        let states = Expected(found.into_iter().map(|state| vec![state]).collect());
        let shared = Arc::new(Mutex::new(states));
        let tasks: Vec<_> = (0..4_u8)
            .map(|task| tokio::spawn(work(engine.clone(), library, shared.clone(), (round, task))))
            .collect();
        let mut random = Random(round * 77 + 5);
        for _wait in 0..random.next() % 3000 {
            tokio::task::yield_now().await;
        }
        // What was acknowledged before the crash is fixed first; later states are possible too.
        let before = shared.lock().clone();
        let crashed = disk.crash(|| random.next().is_multiple_of(2));
        let after = shared.lock().clone();
        for task in tasks {
            task.await.unwrap();
        }
        engine.close().await.unwrap();
        expected = Expected(
            before
                .0
                .into_iter()
                .zip(after.0)
                .map(|(before, after)| [before, after].concat())
                .collect(),
        );
        disk = crashed;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_reads_what_a_checkpoint_wrote_and_the_log_after_it() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let library = library(&engine).await;
    for version in 0..300 {
        let n = (version % 32) as u8;
        put(&engine, library, n, version).await;
    }
    let before = versions(&engine, library).await;
    let digest = engine.library(TENANT, library, None).await.unwrap().stats().digest;
    let crashed = open(&disk.crash(|| false)).await;
    assert_eq!(versions(&crashed, library).await, before);
    let stats = crashed.library(TENANT, library, None).await.unwrap().stats();
    assert_eq!(stats.digest, digest);
    assert!(stats.segments_mapped > 0, "checkpoints were written: {stats:?}");
    crashed.close().await.unwrap();
    engine.close().await.unwrap();
    let closed = open(&disk).await;
    assert_eq!(versions(&closed, library).await, before);
    let stats = closed.library(TENANT, library, None).await.unwrap().stats();
    assert_eq!(stats.memory_bytes, 0, "closing wrote everything: {stats:?}");
    closed.close().await.unwrap();
}

/// Puts and deletes at random. Each task has documents of its own, so that their order is known.
async fn work(
    engine: Engine,
    library: LibraryId,
    shared: Arc<Mutex<Expected>>,
    (round, task): (u64, u8),
) {
    let mut random = Random(round * 1000 + u64::from(task) + 1);
    for step in 0..120 {
        let n = (random.next() % 8) as u8 * 4 + task;
        let version = round * 100_000 + step;
        let state = (!random.next().is_multiple_of(4)).then_some(version);
        shared.lock().0[usize::from(n)].push(state);
        let outcome = match state {
            None => engine.delete_documents(TENANT, library, vec![id(n)]).await.map(|_done| ()),
            Some(version) => {
                let batch = vec![document(n, version)];
                engine.put_documents(TENANT, library, batch).await.map(|_done| ())
            }
        };
        match outcome {
            Ok(()) => shared.lock().0[usize::from(n)] = vec![state],
            Err(EngineError::Busy { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}
