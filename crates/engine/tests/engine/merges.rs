//! Files of libraries with structures are merged beside everything else that happens to them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrwdb_engine::log::disk::{Access, Disk};
use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::{DocumentId, IndexSpec, LibraryId, Metric, Tuning};
use arrwdb_engine::{Engine, EngineConfig, EngineError, IndexChange};

use crate::directory::{files_below, named};
use crate::indexes::{K, check, fill, library_by, many, search, small, spec, walked};
use crate::purge::holders;
use crate::subject::*;

/// Rows of a file before it is merged.
const PART: u32 = 300;

async fn add_part(engine: &Engine, library: LibraryId, part: u32) {
    add(engine, library, part * PART..(part + 1) * PART).await;
}

async fn add(engine: &Engine, library: LibraryId, rows: std::ops::Range<u32>) {
    fill(engine, library, rows).await;
    // Writes it to a file of its own, and waits until that has its structure.
    engine.rebuild_index(TENANT, library, IndexChange::default()).await.unwrap();
}

/// Waits until it is so, for a minute at most.
pub(crate) async fn until(so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !so().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waiting).await.unwrap();
}

/// Every structure lies beside its segment.
fn check_pairs(disk: &MemoryDisk) {
    for index in named(disk, ".idx") {
        let segment = index.with_extension("seg");
        assert!(disk.open(&segment, Access::Read).is_ok(), "{} has no segment", index.display());
    }
}

async fn segments(engine: &Engine, library: LibraryId) -> usize {
    engine.library(TENANT, library, None).await.unwrap().stats().segments
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merged_file_is_published_with_its_structure() {
    let disk = MemoryDisk::new();
    let engine = open_with(&disk, small()).await.unwrap();
    let library = library_by(&engine, spec(), Metric::Cosine).await;
    for part in 0..8 {
        add_part(&engine, library, part).await;
        // Files of a size become one.
        until(async || segments(&engine, library).await <= 2).await;
    }
    // What is merged has its structure from the first moment on.
    let (merging, merged) = (engine.clone(), Arc::new(AtomicBool::new(false)));
    let done = merged.clone();
    let optimizing = tokio::spawn(async move {
        let outcome = merging.optimize_index(TENANT, library).await;
        done.store(true, Ordering::SeqCst);
        outcome
    });
    let mut searches = 0;
    while searches < 20 || !merged.load(Ordering::SeqCst) {
        let found = search(&engine, library, 3, Tuning::default()).await;
        assert_eq!((found.hits.len(), found.plan.effort.scanned), (K, 0));
        searches += 1;
    }
    optimizing.await.unwrap().unwrap();
    assert_eq!(segments(&engine, library).await, 1);
    check(&engine, library, 8 * PART).await;
    engine.close().await.unwrap();
    let engine = open_with(&disk, small()).await.unwrap();
    assert_eq!(walked(&engine, library).await, 1, "its structure is found again");
    check(&engine, library, 8 * PART).await;
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_loss_at_any_sync_of_a_merge_loses_nothing() {
    let disk = MemoryDisk::new();
    let engine = open_with(&disk, small()).await.unwrap();
    let library = library_by(&engine, spec(), Metric::L2).await;
    // Each so much smaller than the last that nobody merges them unasked.
    for rows in [0..900, 900..1200, 1200..1300] {
        add(&engine, library, rows).await;
    }
    assert_eq!(segments(&engine, library).await, 3);
    let dead: Vec<DocumentId> = many(0..50).iter().filter_map(|document| document.id).collect();
    engine.delete_documents(TENANT, library, dead).await.unwrap();
    engine.close().await.unwrap();
    let mut merged = [false; 2];
    for syncs in 0..40 {
        for kept in [false, true] {
            let disk = disk.crash(|| true);
            let engine = open_with(&disk, small()).await.unwrap();
            disk.fail_sync_after(syncs);
            let optimized = engine.optimize_index(TENANT, library).await;
            let lost = disk.crash(|| kept);
            drop(engine.close().await);
            let again = open_with(&lost, small()).await.unwrap();
            let stats = again.library(TENANT, library, None).await.unwrap().stats();
            assert_eq!(stats.chunks, 1300 - 50);
            assert_eq!(search(&again, library, 60, Tuning::default()).await.hits.len(), K);
            if optimized.is_ok() {
                assert_eq!(stats.segments, 1, "what was acknowledged is there");
            }
            merged[usize::from(stats.segments == 1)] = true;
            again.close().await.unwrap();
        }
        if merged == [true, true] && syncs > 12 {
            return;
        }
    }
    assert_eq!(merged, [true, true], "before and after");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_is_in_no_file_after_a_purge_however_much_is_merged() {
    for rounds in 0..6 {
        let disk = MemoryDisk::new();
        let engine = open_with(&disk, small()).await.unwrap();
        let library = library_by(&engine, spec(), Metric::Cosine).await;
        for part in 0..3 {
            add_part(&engine, library, part).await;
        }
        // The fourth file: a merge begins at about the time of the purge.
        fill(&engine, library, 3 * PART..4 * PART).await;
        engine.close_libraries().await;
        engine.library(TENANT, library, None).await.unwrap();
        let victim = 7 + rounds;
        let document = many(victim..victim + 1).remove(0);
        engine.delete_documents(TENANT, library, document.id.into_iter().collect()).await.unwrap();
        drop(search(&engine, library, 3, Tuning::default()).await);
        engine.purge().await.unwrap();
        let gone: Vec<u8> =
            vector(7, u64::from(victim), 1).iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(holders(&disk, &gone), [""; 0], "row {victim}");
        check_pairs(&disk);
        // What was given up is done after it.
        engine.rebuild_index(TENANT, library, IndexChange::default()).await.unwrap();
        assert!(walked(&engine, library).await > 0);
        let stats = engine.library(TENANT, library, None).await.unwrap().stats();
        assert_eq!(stats.chunks, u64::from(4 * PART - 1));
        engine.close().await.unwrap();
        assert_eq!(holders(&disk, &gone), [""; 0], "row {victim}, once closed");
        check_pairs(&disk);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_that_is_deleted_while_it_is_built_leaves_nothing() {
    let disk = MemoryDisk::new();
    let engine = open_with(&disk, small()).await.unwrap();
    for round in 0..12 {
        let library = library_by(&engine, spec(), Metric::Dot).await;
        fill(&engine, library, 0..2 * PART).await;
        let building = engine.clone();
        let rebuild = tokio::spawn(async move {
            building.rebuild_index(TENANT, library, IndexChange::default()).await
        });
        for _turn in 0..round * round {
            tokio::task::yield_now().await;
        }
        engine.delete_library(TENANT, library).await.unwrap();
        match rebuild.await.unwrap() {
            Ok(_) | Err(EngineError::LibraryNotFound(_) | EngineError::Closed) => {}
            Err(error) => panic!("{error}"),
        }
    }
    // Done after everything that was asked for before.
    engine.close_libraries().await;
    let dir = Path::new("/data/libraries");
    assert_eq!(files_below(&disk, dir), [""; 0].map(Path::new), "after {:?}", disk.list(dir));
    assert_eq!(disk.list(dir).unwrap().len(), 0);
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_structure_beyond_the_memory_budget_is_refused_and_its_rows_are_scanned() {
    let disk = MemoryDisk::new();
    let engine = open_with(&disk, small()).await.unwrap();
    let library = library_by(&engine, spec(), Metric::Cosine).await;
    fill(&engine, library, 0..4 * PART).await;
    engine.rebuild_index(TENANT, library, IndexChange::default()).await.unwrap();
    engine.close().await.unwrap();
    let tight = EngineConfig { memory_budget_bytes: 100_000, ..small() };
    let engine = open_with(&disk, tight).await.unwrap();
    check(&engine, library, 4 * PART).await;
    assert_eq!(walked(&engine, library).await, 0);
    let refused = engine.rebuild_index(TENANT, library, IndexChange::default()).await.unwrap_err();
    let EngineError::Invalid { field, detail } = refused else { panic!("{refused}") };
    assert_eq!(field, "/index_config");
    assert!(detail.contains("MEMORY_BUDGET_BYTES"), "{detail}");
    check(&engine, library, 4 * PART).await;
    // Nor is a file left for each time that a merge was not begun.
    for part in 4..8 {
        fill(&engine, library, part * PART..(part + 1) * PART).await;
        engine.rebuild_index(TENANT, library, IndexChange::default()).await.unwrap_err();
    }
    assert_eq!(named(&disk, ".seg").len(), segments(&engine, library).await);
    engine.close().await.unwrap();
    let engine = open_with(&disk, small()).await.unwrap();
    assert!(walked(&engine, library).await > 0, "its file was not lost");
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_keeps_no_checkpoint_from_being_written() {
    let disk = MemoryDisk::new();
    let engine = open_with(&disk, small()).await.unwrap();
    let library = library_by(&engine, IndexSpec::default(), Metric::Cosine).await;
    for part in 0..3 {
        add_part(&engine, library, part).await;
    }
    engine.close().await.unwrap();
    let damaged = named(&disk, ".seg").remove(0);
    disk.alter(&damaged, |bytes| bytes[700] ^= 1).unwrap();
    let engine = open_with(&disk, small()).await.unwrap();
    // Files of a size, which would be merged into one if that could be read.
    for part in 3..9 {
        add_part(&engine, library, part).await;
        let files = named(&disk, ".seg").len();
        assert_eq!(files, segments(&engine, library).await, "no file is left by what failed");
    }
    let stats = engine.library(TENANT, library, None).await.unwrap().stats();
    assert_eq!((stats.rows, stats.memory_bytes), (u64::from(9 * PART), 0));
    assert!(segments(&engine, library).await < 9, "the others are merged");
    engine.close().await.unwrap();
}
