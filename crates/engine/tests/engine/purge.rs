//! Deleted documents that are removed from every file for good.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::Seq;
use arrwdb_engine::{EngineConfig, FollowError};

use crate::directory::files;
use crate::residence::digest;
use crate::subject::*;

/// The files in which these bytes are found.
pub(crate) fn holders(disk: &MemoryDisk, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for path in files(disk) {
        let looked_at = disk.alter(&path, |all| {
            if all.windows(bytes.len()).any(|window| window == bytes) {
                found.push(path.display().to_string());
            }
        });
        match looked_at {
            Ok(()) => {}
            // Removed since it was listed, with the library that it belonged to.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
    found
}

fn bytes_of(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_or_replaced_is_in_no_file_after_a_purge() {
    let disk = MemoryDisk::new();
    // History would keep dead rows otherwise; a purge does not ask it.
    let config = EngineConfig { history: std::time::Duration::from_hours(1), ..config() };
    let engine = open_with(&disk, config.clone()).await.unwrap();
    let (first, second, doomed) =
        (library(&engine).await, library(&engine).await, library(&engine).await);
    for version in 0..30 {
        let n = (version % 10) as u8;
        put(&engine, first, n, version).await;
        put(&engine, second, n + 10, version).await;
        put(&engine, doomed, n + 20, version).await;
    }
    engine.close_libraries().await;
    engine.delete_documents(TENANT, first, vec![id(3)]).await.unwrap();
    engine.put_documents(TENANT, first, vec![document(4, 99)]).await.unwrap();
    engine.delete_library(TENANT, doomed).await.unwrap();
    let gone = [(3, 23), (4, 24), (14, 4), (25, 25)];
    for (n, version) in gone {
        assert!(!holders(&disk, text(n, version, 0).as_bytes()).is_empty(), "{n}: in files before");
    }
    let digests = [digest(&engine, first).await, digest(&engine, second).await];

    let receipt = engine.purge().await.unwrap();
    assert!(receipt.rows > 0 && receipt.segments > 0 && receipt.log_files > 0, "{receipt:?}");
    assert_eq!(receipt.libraries, 2, "{receipt:?}");
    for (n, version) in gone {
        assert_eq!(holders(&disk, text(n, version, 0).as_bytes()), [""; 0], "{n} {version}");
        let vector = bytes_of(&vector(n, version, 0));
        assert_eq!(holders(&disk, &vector), [""; 0], "the vector of {n} {version}");
    }
    assert!(!holders(&disk, text(4, 99, 0).as_bytes()).is_empty(), "what lives stays");
    let trimmed = engine.changes_after(Seq::START, 10).await.unwrap_err();
    assert!(matches!(trimmed, FollowError::Trimmed { .. }), "{trimmed}");
    assert_eq!([digest(&engine, first).await, digest(&engine, second).await], digests);
    // A second one has nothing to do.
    let again = engine.purge().await.unwrap();
    assert_eq!((again.rows, again.segments), (0, 0), "{again:?}");

    engine.put_documents(TENANT, first, vec![document(5, 100)]).await.unwrap();
    let last = versions(&engine, first).await;
    let engine = open_with(&disk.crash(|| false), config).await.unwrap();
    assert_eq!(versions(&engine, first).await, last);
    assert_eq!(digest(&engine, second).await, digests[1]);
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writes_go_on_while_a_purge_runs_and_none_is_lost() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let library = library(&engine).await;
    let done = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (engine, done) = (engine.clone(), done.clone());
        async move {
            let mut version = 0;
            while !done.load(Ordering::SeqCst) || version < 200 {
                let n = (version % 32) as u8;
                put(&engine, library, n, version).await;
                version += 1;
            }
            version
        }
    });
    let creator = tokio::spawn({
        let (engine, done) = (engine.clone(), done.clone());
        async move {
            // Not more and more for as long as it takes: a purge looks at each of them.
            for _library in 0..200 {
                if done.load(Ordering::SeqCst) {
                    break;
                }
                let made = crate::subject::library(&engine).await;
                put(&engine, made, 1, 1).await;
            }
        }
    });
    for _round in 0..10 {
        engine.purge().await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    creator.await.unwrap();
    let written = writer.await.unwrap();
    let expected: Vec<Option<u64>> =
        (0..32).map(|n| (0..written).rev().find(|version| version % 32 == n)).collect();
    assert_eq!(versions(&engine, library).await, expected);
    let engine = open(&disk.crash(|| false)).await;
    assert_eq!(versions(&engine, library).await, expected);
    engine.close().await.unwrap();
}
