//! What a backup sends of a log that is being written.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrwdb_engine::backup::{FolderTarget, Target, TargetError, take};
use arrwdb_engine::log::disk::Disk;
use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::log::{FileLog, Log, LogOptions};
use arrwdb_engine::{Content, EngineConfig, PutChunk, PutDocument};
use parking_lot::Mutex;

use crate::backup::{copy, folder, site};
use crate::subject::*;

/// A target that looks, at every part of the log that comes, at what a power loss would leave of
/// the directory in that moment.
#[derive(Debug)]
struct Witness {
    inner: FolderTarget,
    directory: MemoryDisk,
    /// The last number of each part, and the last one that the directory had for good.
    seen: Mutex<Vec<(u64, u64)>>,
}

impl Target for Witness {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn list(&self) -> Result<BTreeMap<String, u64>, TargetError> {
        self.inner.list()
    }

    fn get(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, TargetError> {
        self.inner.get(key, range)
    }

    fn put(&self, key: &str, bytes: u64, source: &mut dyn Read) -> Result<(), TargetError> {
        if key.starts_with("log/") {
            let last = key.split('-').nth(2).unwrap().parse().unwrap();
            let left = Arc::new(self.directory.crash(|| false));
            let dir = Path::new("/data/log");
            let (log, _) = FileLog::open(left, dir, LogOptions::default()).unwrap();
            self.seen.lock().push((last, log.durable()));
        }
        self.inner.put(key, bytes, source)
    }

    fn delete(&self, keys: &[String]) -> Result<(), TargetError> {
        self.inner.delete(keys)
    }
}

/// A document of about eight megabytes.
fn large(n: u8) -> PutDocument {
    let chunk = |part: u64| PutChunk {
        text: "a passage ".repeat(1000),
        embedding: Some(vector(n, 1, part)),
        ..PutChunk::default()
    };
    let content = Content::Chunks((0..800).map(chunk).collect());
    PutDocument { id: Some(id(n)), content, ..of_text("") }
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_no_part_of_the_log_is_sent_before_the_directory_has_it_for_good() {
    let live = MemoryDisk::new();
    let config = EngineConfig { checkpoint_bytes: 1 << 30, ..config() };
    let engine = open_with(&live, config).await.unwrap();
    let library = library(&engine).await;
    for n in 0..5 {
        let written = engine.put_documents(TENANT, library, vec![large(n)]).await.unwrap();
        written.value.into_iter().for_each(|outcome| drop(outcome.unwrap()));
    }
    // As the disk looks after a kill in the middle of writing: nothing of the log is synced.
    let directory = MemoryDisk::new();
    copy(&live.crash(|| true), &directory, Path::new("/data"));
    directory.sync_dir(Path::new("/")).unwrap();
    engine.close().await.unwrap();
    let target = MemoryDisk::new();
    let witness = Witness {
        inner: folder(&target),
        directory: directory.clone(),
        seen: Mutex::new(Vec::new()),
    };
    take(&site(&directory, "/data"), &witness, &()).unwrap();
    let seen = witness.seen.into_inner();
    assert!(seen.len() > 1, "the log is sent in parts: {seen:?}");
    for (last, durable) in &seen {
        assert!(durable >= last, "a part up to {last} was sent when {durable} was durable");
    }
}
