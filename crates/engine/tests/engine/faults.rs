//! Full disks, failed syncs, and data directories that are not what they should be.

use std::path::{Path, PathBuf};

use arrwdb_engine::log::disk::Disk;
use arrwdb_engine::log::memory::{Fault, FaultPlan, MemoryDisk, NameOrder, When};
use arrwdb_engine::{EngineConfig, EngineError};

use crate::directory::files_below;
use crate::subject::*;

pub(crate) async fn filled(disk: &MemoryDisk) -> arrwdb_engine::state::LibraryId {
    let engine = open(disk).await;
    let library = library(&engine).await;
    for version in 0..100 {
        let n = (version % 32) as u8;
        put(&engine, library, n, version).await;
    }
    let documents = engine.library(TENANT, library, None).await.unwrap().stats().documents;
    assert_eq!(documents, 32);
    engine.close().await.unwrap();
    library
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_and_serves_reads_and_goes_on_when_there_is_space() {
    let disk = MemoryDisk::new();
    let library = filled(&disk).await;
    let engine = open(&disk).await;
    disk.set_capacity(Some(disk.used_bytes()));
    let mut refused = false;
    for version in 200..20_000 {
        match engine.put_documents(TENANT, library, vec![document(1, version)]).await {
            Ok(_) => {}
            // The log meets the full disk, or checkpoints cannot be written any more.
            Err(EngineError::DiskFull { .. } | EngineError::Busy { .. }) => {
                refused = true;
                break;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused);
    let before = versions(&engine, library).await;
    assert!(before[1].unwrap() >= 200 || before[1] == Some(97));
    disk.set_capacity(None);
    loop {
        match engine.put_documents(TENANT, library, vec![document(1, 30_000)]).await {
            Ok(_) => break,
            // Until the backlog is written.
            Err(EngineError::Busy { .. }) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(versions(&engine, library).await[1], Some(30_000));
    engine.close().await.unwrap();
    let engine = open(&disk).await;
    assert_eq!(versions(&engine, library).await[1], Some(30_000));
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_sync_nothing_is_written_until_the_next_start() {
    let disk = MemoryDisk::new();
    let library = filled(&disk).await;
    let engine = open(&disk).await;
    let before = versions(&engine, library).await;
    disk.fail_sync_after(0);
    let first = engine.put_documents(TENANT, library, vec![document(1, 500)]).await.unwrap_err();
    assert!(matches!(first, EngineError::LogFailed { .. }), "{first}");
    let later = engine.put_documents(TENANT, library, vec![document(2, 501)]).await.unwrap_err();
    assert!(matches!(later, EngineError::LogFailed { .. }), "{later}");
    assert_eq!(versions(&engine, library).await, before, "reads go on, without the failed write");
    assert!(engine.health().log.is_err());
    assert!(engine.close().await.is_err());
    let engine = open(&disk.crash(|| false)).await;
    assert_eq!(versions(&engine, library).await, before);
    engine.put_documents(TENANT, library, vec![document(1, 502)]).await.unwrap();
    engine.close().await.unwrap();
}

/// Files below a directory whose names contain this.
pub(crate) fn files(disk: &MemoryDisk, dir: &Path, part: &str) -> Vec<PathBuf> {
    let named = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.contains(part))
    };
    files_below(disk, dir).into_iter().filter(named).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_missing_file_is_refused_by_name() {
    for kind in ["manifest-", "catalog-", ".seg", "VERSION"] {
        for missing in [false, true] {
            let disk = MemoryDisk::new();
            let library = filled(&disk).await;
            let found = files(&disk, Path::new("/data"), kind);
            assert!(!found.is_empty(), "{kind}");
            let path = &found[0];
            if missing {
                disk.remove(path).unwrap();
            } else {
                disk.alter(path, |bytes| bytes[20] ^= 1).unwrap();
            }
            let opened = open_with(&disk, config()).await;
            // A segment is looked at when its library is used first.
            let opened = match opened {
                Ok(engine) if kind == ".seg" => {
                    engine.library(TENANT, library, None).await.map(|_snapshot| engine)
                }
                other => other,
            };
            match opened {
                Err(EngineError::Damaged { detail }) => {
                    assert!(detail.contains("/data"), "{kind} {missing}: {detail}");
                }
                Err(other) => panic!("{kind} {missing}: {other}"),
                Ok(engine) => {
                    // Without a snapshot everything must come from the log and the manifests.
                    assert!(missing && kind == "catalog-", "{kind}");
                    let libraries = engine.libraries(TENANT, None).await.unwrap();
                    assert_eq!(libraries.len(), 1, "{kind}");
                    assert_eq!(libraries[0].documents, 32, "{kind}");
                    engine.close().await.unwrap();
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_engine_on_the_same_directory_is_refused() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let refused = open_with(&disk, config()).await.unwrap_err();
    assert!(matches!(refused, EngineError::Locked { .. }), "{refused}");
    engine.close().await.unwrap();
    open(&disk).await.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_log_is_refused_and_no_new_one_begun() {
    let disk = MemoryDisk::new();
    filled(&disk).await;
    for file in files(&disk, Path::new("/data/log"), "") {
        disk.remove(&file).unwrap();
    }
    let refused = open_with(&disk, config()).await.map(|_engine| ()).unwrap_err();
    assert!(matches!(refused, EngineError::Damaged { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_ends_before_a_manifest_is_refused() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let library = library(&engine).await;
    engine.put_documents(TENANT, library, vec![document(1, 0)]).await.unwrap();
    engine.close().await.unwrap();
    let path = files(&disk, Path::new("/data/log"), ".log").remove(0);
    let mut earlier = Vec::new();
    disk.alter(&path, |bytes| earlier.clone_from(bytes)).unwrap();
    let engine = open(&disk).await;
    for version in 1..100 {
        put(&engine, library, 1, version).await;
    }
    engine.close().await.unwrap();
    disk.alter(&path, |bytes| *bytes = earlier).unwrap();
    for file in files(&disk, Path::new("/data/catalog"), "catalog-") {
        disk.remove(&file).unwrap();
    }
    let refused = open_with(&disk, config()).await.map(|_engine| ()).unwrap_err();
    assert!(matches!(refused, EngineError::Damaged { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_last_file_is_missing_is_refused() {
    let disk = MemoryDisk::new();
    let config = EngineConfig { log_file_bytes: 2048, ..config() };
    let engine = open_with(&disk, config.clone()).await.unwrap();
    let library = library(&engine).await;
    for version in 0..40 {
        put(&engine, library, 1, version).await;
    }
    engine.close().await.unwrap();
    let logs = files(&disk, Path::new("/data/log"), ".log");
    assert!(logs.len() > 2);
    // Everything is in manifests, but who follows the log would be led over a hole.
    disk.remove(logs.last().unwrap()).unwrap();
    let refused = open_with(&disk, config).await.map(|_engine| ()).unwrap_err();
    assert!(matches!(refused, EngineError::Damaged { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_before_a_name_is_durable_and_then_a_power_loss_lose_nothing() {
    let mut random = 7_u64;
    let mut chance = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        random >> 40 & 1 == 0
    };
    for place in ["/data/libraries", "/data/catalog"] {
        let mut died = 0;
        for position in 0..24 {
            let disk = MemoryDisk::new();
            let library = filled(&disk).await;
            let wanted = {
                let engine = open(&disk).await;
                let wanted = versions(&engine, library).await;
                engine.close().await.unwrap();
                wanted
            };
            disk.set_plan(FaultPlan::one(position, Fault::Killed, place, When::Nth(position)));
            if let Ok(engine) = open_with(&disk, config()).await {
                // Only time passes for these documents: they are written as they are.
                for n in 0..32_u8 {
                    let Some(version) = wanted[usize::from(n)] else { continue };
                    let put = vec![document(n, version)];
                    if engine.put_documents(TENANT, library, put).await.is_err() {
                        break;
                    }
                }
                drop(engine.close().await);
            }
            let Some(left) = disk.after_the_end() else { continue };
            died += 1;
            // The next process builds on what it finds, and then the power fails.
            let engine = open(&left).await;
            assert_eq!(versions(&engine, library).await, wanted, "{place} {position}");
            let crashed = left.crash_with(NameOrder::Any, &mut chance);
            engine.close().await.unwrap();
            let engine = open(&crashed).await;
            assert_eq!(versions(&engine, library).await, wanted, "{place} {position}");
            engine.close().await.unwrap();
        }
        assert!(died > 0, "{place}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_said_with_what_to_do_next() {
    for kind in [".log", "manifest-"] {
        let disk = MemoryDisk::new();
        filled(&disk).await;
        for path in files(&disk, Path::new("/data"), kind) {
            disk.remove(&path).unwrap();
        }
        let refused = open_with(&disk, config()).await.map(drop).unwrap_err();
        assert!(matches!(refused, EngineError::Damaged { .. }), "{kind}: {refused}");
        let said = refused.to_string();
        assert!(said.contains("files are missing"), "{kind}: {said}");
        assert!(said.contains("run `arrwdb check /data`"), "{kind}: {said}");
    }
}
