//! Libraries that are closed and opened again behind their users' backs.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrwdb_engine::log::disk::{Access, Disk, File};
use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::{DocumentId, LibraryId};
use arrwdb_engine::{Engine, EngineConfig, EngineError, EngineParts};
use parking_lot::{Condvar, Mutex};
use tokio::sync::Semaphore;

use crate::faults::files;
use crate::subject::*;

pub(crate) async fn digest(engine: &Engine, library: LibraryId) -> u128 {
    engine.library(TENANT, library, None).await.unwrap().stats().digest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_library_takes_no_memory_and_is_as_it_was_when_it_is_used_again() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let mut libraries = Vec::new();
    for n in 0..3 {
        let library = library(&engine).await;
        for version in 0..20 {
            put(&engine, library, n * 8 + (version % 5) as u8, version).await;
        }
        libraries.push((library, digest(&engine, library).await));
    }
    let before = versions(&engine, libraries[1].0).await;
    assert_eq!(engine.health().libraries_open, 3);
    engine.close_libraries().await;
    let health = engine.health();
    assert_eq!((health.libraries_open, health.memory_bytes), (0, 0));
    assert_eq!((health.libraries, health.documents), (3, 15));
    let listed = engine.libraries(TENANT, None).await.unwrap();
    assert!(listed.iter().all(|library| library.documents == 5), "counted without opening");
    assert_eq!(engine.health().libraries_open, 0);

    // Where a document is can be found without opening libraries for good.
    let found = owners(&engine, vec![id(9), id(99)]).await;
    assert_eq!(found, [Some(libraries[1].0), None]);
    assert_eq!(engine.health().libraries_open, 0);

    assert_eq!(versions(&engine, libraries[1].0).await, before);
    assert_eq!(engine.health().libraries_open, 1);
    let hits = engine
        .search(TENANT, libraries[2].0, nearest(vector(17, 16, 0), 1), None)
        .await
        .unwrap()
        .hits;
    assert_eq!(hits[0].document_id, id(17));
    for (library, digest_before) in &libraries {
        assert_eq!(digest(&engine, *library).await, *digest_before);
    }
    put(&engine, libraries[0].0, 30, 7).await;
    assert_eq!(versions(&engine, libraries[0].0).await[30], Some(7));
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_opens_only_what_the_log_has_more_of() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let (quiet, busy) = (library(&engine).await, library(&engine).await);
    put(&engine, quiet, 1, 1).await;
    put(&engine, busy, 2, 2).await;
    engine.close_libraries().await;
    put(&engine, busy, 3, 3).await;
    let digests = (digest(&engine, quiet).await, digest(&engine, busy).await);
    // As if the machine had stopped here.
    let engine = open(&disk.crash(|| false)).await;
    assert_eq!(engine.health().libraries_open, 1);
    assert_eq!((digest(&engine, quiet).await, digest(&engine, busy).await), digests);
    engine.close().await.unwrap();
    let engine = open(&disk.crash(|| true)).await;
    assert_eq!(digest(&engine, busy).await, digests.1);
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writes_and_reads_that_race_with_closing_lose_nothing() {
    const WRITERS: u8 = 8;
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let library = library(&engine).await;
    let done = Arc::new(AtomicBool::new(false));
    // A writer holds one for each write; with all of them nobody writes.
    let turns = Arc::new(Semaphore::new(WRITERS.into()));
    let closer = tokio::spawn({
        let (engine, done, turns) = (engine.clone(), done.clone(), turns.clone());
        async move {
            while !done.load(Ordering::SeqCst) {
                // A library that is written to without a pause may stay open for as long as it is:
                // every other round holds the writers back until it is closed.
                let all = turns.acquire_many(u32::from(WRITERS)).await.unwrap();
                while engine.health().libraries_open > 0 {
                    engine.close_libraries().await;
                }
                drop(all);
                engine.close_libraries().await;
            }
        }
    });
    let mut writers = Vec::new();
    for n in 0..WRITERS {
        let (engine, turns) = (engine.clone(), turns.clone());
        writers.push(tokio::spawn(async move {
            for version in 0..60 {
                let _turn = turns.acquire().await.unwrap();
                put(&engine, library, n, version).await;
                assert_eq!(versions(&engine, library).await[usize::from(n)], Some(version));
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    closer.await.unwrap();
    let before = versions(&engine, library).await;
    assert_eq!(before[..WRITERS.into()], [Some(59); WRITERS as usize]);
    engine.close().await.unwrap();
    let engine = open(&disk).await;
    assert_eq!(versions(&engine, library).await, before);
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_library_whose_files_are_damaged_or_gone_is_refused_by_name_and_others_work() {
    for missing in [false, true] {
        let disk = MemoryDisk::new();
        let engine = open(&disk).await;
        let (sound, damaged) = (library(&engine).await, library(&engine).await);
        put(&engine, sound, 1, 1).await;
        put(&engine, damaged, 2, 2).await;
        engine.close().await.unwrap();
        let dir = Path::new("/data/libraries").join(damaged.to_string());
        let path = files(&disk, &dir, ".seg").remove(0);
        if missing {
            disk.remove(&path).unwrap();
        } else {
            disk.alter(&path, |bytes| bytes[20] ^= 1).unwrap();
        }
        let engine = open(&disk).await;
        let refused = engine.library(TENANT, damaged, None).await.map(drop).unwrap_err();
        assert!(matches!(refused, EngineError::Damaged { .. }), "{refused}");
        let detail = refused.to_string();
        assert!(detail.contains(&path.display().to_string()), "{detail}");
        let refused = engine.put_documents(TENANT, damaged, vec![document(3, 3)]).await;
        assert!(matches!(refused.unwrap_err(), EngineError::Damaged { .. }));
        assert_eq!(versions(&engine, sound).await[1], Some(1));
        engine.delete_library(TENANT, damaged).await.unwrap();
        engine.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_library_deleted_while_it_opens_is_gone() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    for round in 0..30 {
        let library = library(&engine).await;
        put(&engine, library, 1, round).await;
        engine.close_libraries().await;
        let reader = tokio::spawn({
            let engine = engine.clone();
            async move { engine.library(TENANT, library, None).await.map(drop) }
        });
        engine.delete_library(TENANT, library).await.unwrap();
        match reader.await.unwrap() {
            Ok(()) | Err(EngineError::LibraryNotFound(_)) => {}
            Err(other) => panic!("{other}"),
        }
        let gone = engine.put_documents(TENANT, library, vec![document(1, 0)]).await.unwrap_err();
        assert!(matches!(gone, EngineError::LibraryNotFound(_)), "{gone}");
    }
    engine.close().await.unwrap();
    assert!(files(&disk, Path::new("/data/libraries"), ".seg").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_libraries_stay_within_the_memory_budget_and_every_write_gets_in() {
    let disk = MemoryDisk::new();
    // Nothing is checkpointed for its own size; only the budget makes room.
    let config =
        EngineConfig { checkpoint_bytes: 1 << 30, memory_budget_bytes: 1 << 20, ..config() };
    let budget = config.memory_budget_bytes;
    let engine = open_with(&disk, config).await.unwrap();
    let mut libraries = Vec::new();
    for _ in 0..40 {
        libraries.push(library(&engine).await);
    }
    let mut most = 0;
    for version in 0..60 {
        for library in &libraries {
            put(&engine, *library, (version % 32) as u8, version).await;
        }
        most = most.max(engine.health().memory_bytes);
    }
    // A write that is let in at the limit adds its own bytes, and its library's being open.
    assert!(most <= budget + (64 << 10), "{most} of {budget}");
    assert!(most > budget / 2, "{most}: the budget was never near");
    for library in &libraries {
        assert_eq!(versions(&engine, *library).await.iter().flatten().count(), 32);
    }
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_library_hides_no_document_that_another_one_has() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let (damaged, sound) = (library(&engine).await, library(&engine).await);
    put(&engine, damaged, 1, 1).await;
    put(&engine, sound, 2, 2).await;
    engine.close_libraries().await;
    let dir = Path::new("/data/libraries").join(damaged.to_string());
    let path = files(&disk, &dir, ".seg").remove(0);
    disk.alter(&path, |bytes| bytes[20] ^= 1).unwrap();

    let found = engine.locate_document(TENANT, id(2), None).await.unwrap();
    assert_eq!(found, Some(sound));
    // Not found in what can be read, which does not mean that it is nowhere.
    let refused = engine.owners_of_documents(TENANT, vec![id(2), id(1)]).await.unwrap_err();
    assert!(matches!(refused, EngineError::Damaged { .. }), "{refused}");
    let said = refused.to_string();
    for part in ["\"a library\"", &damaged.to_string(), &path.display().to_string()] {
        assert!(said.contains(part), "{part}: {said}");
    }
    engine.delete_library(TENANT, damaged).await.unwrap();
    let found = owners(&engine, vec![id(2), id(1)]).await;
    assert_eq!(found, [Some(sound), None]);
    engine.close().await.unwrap();
}

async fn owners(engine: &Engine, ids: Vec<DocumentId>) -> Vec<Option<LibraryId>> {
    let found = engine.owners_of_documents(TENANT, ids).await.unwrap();
    found.into_iter().map(Result::ok).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_several_libraries_have_is_not_changed_without_saying_which() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let (first, second) = (library(&engine).await, library(&engine).await);
    put(&engine, first, 1, 0).await;
    put(&engine, second, 1, 0).await;
    put(&engine, second, 2, 0).await;
    let owned = engine.owner_of_document(TENANT, id(1)).await;
    let Err(EngineError::AmbiguousDocument { id: of, libraries }) = owned else {
        panic!("{owned:?}");
    };
    assert_eq!((of, libraries), (id(1), [first, second]));
    assert_eq!(engine.owner_of_document(TENANT, id(2)).await.unwrap(), second);
    assert!(matches!(
        engine.owner_of_document(TENANT, id(3)).await,
        Err(EngineError::DocumentNotFound(_))
    ));
    // One that is closed has it all the same.
    engine.close_libraries().await;
    assert_eq!(owners(&engine, vec![id(1), id(2)]).await, [None, Some(second)]);
    assert_eq!(engine.locate_document(TENANT, id(1), None).await.unwrap(), Some(first));
    engine.delete_documents(TENANT, first, vec![id(1)]).await.unwrap();
    assert_eq!(engine.owner_of_document(TENANT, id(1)).await.unwrap(), second);
    engine.close().await.unwrap();
}

/// A disk that counts how many read a library's manifest at the same time.
#[derive(Debug)]
struct Crowded {
    inner: MemoryDisk,
    counted: AtomicBool,
    now: Mutex<(usize, usize)>,
    more: Condvar,
}

/// More than may read at the same time.
const TOO_MANY: usize = 9;

impl Crowded {
    /// Waits for a crowd: nobody leaves before it has come together, or had its time to.
    fn enter(&self) {
        let mut now = self.now.lock();
        now.0 += 1;
        now.1 = now.1.max(now.0);
        self.more.notify_all();
        let crowd = |now: &mut (usize, usize)| now.1 < TOO_MANY;
        self.more.wait_while_for(&mut now, crowd, Duration::from_millis(50));
        now.0 -= 1;
    }
}

impl Disk for Crowded {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.inner.create(path)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        if self.counted.load(Ordering::SeqCst) && path.to_string_lossy().contains("manifest-") {
            self.enter();
        }
        self.inner.open(path, access)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.remove_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.inner.free_bytes(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Arc<dyn File>>> {
        self.inner.lock(path)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn n3_looking_into_closed_libraries_is_bounded_as_opening_them_is() {
    let disk = MemoryDisk::new();
    let crowded = Arc::new(Crowded {
        inner: disk.clone(),
        counted: AtomicBool::new(false),
        now: Mutex::default(),
        more: Condvar::new(),
    });
    let parts = EngineParts { disk: crowded.clone(), ..parts(&disk).await };
    // No scrub, which reads manifests as well.
    let config = EngineConfig { scrub_bytes_per_second: 0, ..config() };
    let engine = Engine::open(config, parts).await.unwrap();
    let library = library(&engine).await;
    put(&engine, library, 1, 1).await;
    engine.close_libraries().await;
    crowded.counted.store(true, Ordering::SeqCst);
    let looking: Vec<_> = (0..4 * TOO_MANY)
        .map(|_nth| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.locate_document(TENANT, id(1), None).await })
        })
        .collect();
    for found in looking {
        assert_eq!(found.await.unwrap().unwrap(), Some(library));
    }
    crowded.counted.store(false, Ordering::SeqCst);
    let most = crowded.now.lock().1;
    assert!((2..TOO_MANY).contains(&most), "{most} at the same time");
    engine.close().await.unwrap();
}
