//! Backups of a directory that is being written, and what comes back from them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use arrwdb_engine::backup::{
    BackupError, FolderTarget, RestoreTo, Restored, SEQS_SKIPPED, Site, Taken, Target, TargetError,
    forget, points, restore, take,
};
use arrwdb_engine::log::disk::{Access, Disk, read_exact_at};
use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::log::{FileLog, LogOptions};
use arrwdb_engine::state::{LibraryEntry, LibraryId, Seq, Timestamp};
use arrwdb_engine::{ChangeEntry, Clock, Engine, EngineConfig, EngineError, OsRandom};

use crate::subject::*;

/// A clock that is set by hand.
#[derive(Debug, Default)]
struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.fetch_add(1, Ordering::SeqCst))
    }
}

pub(crate) fn site(disk: &MemoryDisk, dir: &str) -> Site {
    Site {
        disk: Arc::new(disk.clone()),
        dir: PathBuf::from(dir),
        clock: Arc::new(Hand(AtomicI64::new(1_000_000))),
        random: Arc::new(OsRandom),
    }
}

pub(crate) fn folder(disk: &MemoryDisk) -> FolderTarget {
    FolderTarget::new(Arc::new(disk.clone()), PathBuf::from("/backup"))
}

pub(crate) fn back_up(disk: &MemoryDisk, target: &dyn Target) -> Taken {
    take(&site(disk, "/data"), target, &()).unwrap()
}

/// Restores to an empty disk of its own.
fn restored(target: &dyn Target, to: RestoreTo) -> Result<(MemoryDisk, Restored), BackupError> {
    let disk = MemoryDisk::new();
    let restored = restore(target, &site(&disk, "/data"), to, &())?;
    Ok((disk, restored))
}

async fn put(engine: &Engine, library: LibraryId, n: u8, version: u64) -> u64 {
    loop {
        match engine.put_documents(TENANT, library, vec![document(n, version)]).await {
            Ok(written) => return written.seq.get(),
            // Checkpoints do not keep up.
            Err(EngineError::Busy { .. }) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    }
}

async fn delete(engine: &Engine, library: LibraryId, n: u8) -> u64 {
    loop {
        match engine.delete_documents(TENANT, library, vec![id(n)]).await {
            Ok(written) => return written.seq.get(),
            Err(EngineError::Busy { .. }) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    }
}

async fn digest(engine: &Engine, library: LibraryId) -> u128 {
    engine.library(TENANT, library, None).await.unwrap().stats().digest
}

/// A target that fails at the operation of that number, and from then on.
#[derive(Debug)]
struct Failing<T> {
    inner: T,
    left: AtomicI64,
}

impl<T> Failing<T> {
    fn step(&self, key: &str) -> Result<(), TargetError> {
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Ok(());
        }
        let detail = "injected".to_owned();
        Err(TargetError::Failed { operation: "reach", key: key.to_owned(), detail })
    }
}

impl<T: Target> Target for Failing<T> {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn list(&self) -> Result<BTreeMap<String, u64>, TargetError> {
        self.step("all")?;
        self.inner.list()
    }

    fn get(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, TargetError> {
        self.step(key)?;
        self.inner.get(key, range)
    }

    fn put(&self, key: &str, bytes: u64, source: &mut dyn Read) -> Result<(), TargetError> {
        self.step(key)?;
        self.inner.put(key, bytes, source)
    }

    fn delete(&self, keys: &[String]) -> Result<(), TargetError> {
        self.step("some")?;
        self.inner.delete(keys)
    }
}

/// A directory with a catalog snapshot, a manifest and segments, and records that came later.
async fn written(disk: &MemoryDisk) -> (Engine, LibraryId) {
    let engine = open(disk).await;
    let library = library(&engine).await;
    for version in 0..40 {
        put(&engine, library, (version % 32) as u8, version).await;
    }
    engine.close().await.unwrap();
    let engine = open(disk).await;
    for version in 40..60 {
        put(&engine, library, (version % 32) as u8, version).await;
    }
    (engine, library)
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_an_interrupted_backup_leaves_the_restore_points_there_were() {
    let disk = MemoryDisk::new();
    let (engine, library) = written(&disk).await;
    let target = MemoryDisk::new();
    let first = back_up(&disk, &folder(&target));
    let before = digest(&engine, library).await;
    for version in 60..120 {
        put(&engine, library, (version % 32) as u8, version).await;
    }
    engine.close().await.unwrap();
    let mut failures = 0;
    for operations in 0.. {
        let failing = Failing { inner: folder(&target), left: AtomicI64::new(operations) };
        match take(&site(&disk, "/data"), &failing, &()) {
            Ok(second) => {
                assert!(second.point.seq > first.point.seq);
                break;
            }
            Err(error) => assert!(error.to_string().contains("injected"), "{error}"),
        }
        failures += 1;
        let (disk, restored) = restored(&folder(&target), RestoreTo::Newest).unwrap();
        assert_eq!(restored.seq, first.point.seq, "after {operations} operations");
        let engine = open(&disk).await;
        assert_eq!(digest(&engine, library).await, before);
        engine.close().await.unwrap();
    }
    assert!(failures > 5, "every operation was tried: {failures}");
    let (second, _) = restored(&folder(&target), RestoreTo::Newest).unwrap();
    let (engine, again) = (open(&disk).await, open(&second).await);
    assert_eq!(digest(&again, library).await, digest(&engine, library).await);
    engine.close().await.unwrap();
    again.close().await.unwrap();
}

/// Bytes at the beginning of a log file that are durable before it has its name.
const LOG_HEADER_BYTES: usize = 64;

/// A copy of every file, durable but for the records of the log.
pub(crate) fn copy(from: &MemoryDisk, to: &MemoryDisk, dir: &Path) {
    to.create_dir_all(dir).unwrap();
    for name in from.list(dir).unwrap() {
        let path = dir.join(name);
        if from.list(&path).is_ok() {
            copy(from, to, &path);
            continue;
        }
        let file = from.open(&path, Access::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
        read_exact_at(&*file, &mut bytes, 0).unwrap();
        let copied = to.create(&path).unwrap();
        let is_log = path.extension().is_some_and(|it| it == "log");
        let synced = if is_log { LOG_HEADER_BYTES } else { bytes.len() };
        copied.write_all_at(&bytes[..synced], 0).unwrap();
        copied.sync_data().unwrap();
        copied.write_all_at(&bytes[synced..], synced as u64).unwrap();
    }
    to.sync_dir(dir).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_nothing_is_in_a_backup_that_its_directory_can_still_lose() {
    let live = MemoryDisk::new();
    let (engine, library) = written(&live).await;
    let expected = digest(&engine, library).await;
    let disk = MemoryDisk::new();
    copy(&live.crash(|| true), &disk, Path::new("/data"));
    disk.sync_dir(Path::new("/")).unwrap();
    engine.close().await.unwrap();
    let unsynced = disk.crash(|| false);
    let target = MemoryDisk::new();
    back_up(&disk, &folder(&target));
    let (copied, _) = restored(&folder(&target), RestoreTo::Newest).unwrap();
    let (engine, original) = (open(&copied).await, open(&disk.crash(|| false)).await);
    assert_eq!(digest(&engine, library).await, expected);
    assert_eq!(digest(&original, library).await, expected, "it has what its backup has");
    engine.close().await.unwrap();
    original.close().await.unwrap();
    // Without the backup its records would be lost: then it does not even open.
    assert!(open_with(&unsynced, config()).await.is_err());
}

/// Every change of a library that the log holds, folded by hand: the version of each document.
async fn folded(engine: &Engine, library: LibraryId, up_to: u64) -> Vec<Option<u64>> {
    let mut versions = vec![None; 32];
    let mut after = Seq::START;
    loop {
        let changes = engine.changes_after(after, 100).await.unwrap();
        let Some(last) = changes.last() else { return versions };
        after = last.seq;
        for change in changes {
            let ChangeEntry::Library(of, entry) = change.entry else { continue };
            if of != library || change.seq.get() > up_to {
                continue;
            }
            match entry {
                LibraryEntry::DocumentsPut { documents, .. } => {
                    for document in documents {
                        let n = document.id().to_bytes()[0];
                        versions[usize::from(n)] = Some(document.chunks() as u64 - 1);
                    }
                }
                LibraryEntry::DocumentsDeleted { documents, .. } => {
                    for document in documents {
                        versions[usize::from(document.id.to_bytes()[0])] = None;
                    }
                }
                LibraryEntry::Batch { .. }
                | LibraryEntry::FieldChanged { .. }
                | LibraryEntry::QueriesMatched(_) => {}
            }
        }
    }
}

/// Restores a restore point and compares it with the engine's log, folded by hand.
async fn compare(engine: &Engine, libraries: [LibraryId; 3], target: &dyn Target, seq: u64) {
    let (copied, restored) = restored(target, RestoreTo::Point(seq)).unwrap();
    assert_eq!(restored.seq, seq);
    let again = open(&copied).await;
    for library in libraries {
        let found = versions(&again, library).await;
        let chunks: Vec<_> = found.iter().map(|version| version.map(|it| it % 3)).collect();
        assert_eq!(chunks, folded(engine, library, seq).await, "at {seq}");
    }
    again.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn b3_backups_taken_while_writes_checkpoints_and_merges_go_on_are_consistent() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let libraries = [library(&engine).await, library(&engine).await, library(&engine).await];
    for library in libraries {
        put(&engine, library, 31, 0).await;
    }
    engine.close().await.unwrap();
    let engine = open(&disk).await;
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..6_usize)
        .map(|writer| {
            let (engine, stop, written) = (engine.clone(), stop.clone(), written.clone());
            let library = libraries[writer % 3];
            tokio::spawn(async move {
                let mut version = writer as u64;
                while !stop.load(Ordering::SeqCst) {
                    version += 1;
                    let n = (version % 16) as u8 * 2 + u8::from(writer >= 3);
                    if version.is_multiple_of(5) {
                        delete(&engine, library, n).await;
                    } else {
                        put(&engine, library, n, version).await;
                    }
                    written.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let target = MemoryDisk::new();
    let mut taken = Vec::new();
    for _round in 0..12 {
        // Each backup has new records to find: of so many writes some are not deletions.
        let before = written.load(Ordering::SeqCst);
        while written.load(Ordering::SeqCst) < before + 40 {
            tokio::task::yield_now().await;
        }
        let (disk, target) = (disk.clone(), target.clone());
        let backup = tokio::task::spawn_blocking(move || back_up(&disk, &folder(&target)));
        taken.push(backup.await.unwrap());
    }
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(taken.iter().all(|taken| taken.gap.is_none()));
    assert!(taken.windows(2).all(|pair| pair[0].point.seq < pair[1].point.seq));
    let last = &taken.last().unwrap().point;
    let ahead = last.libraries.iter().filter(|part| part.applied > last.covered).count();
    assert_eq!(ahead, 3, "checkpoints were written meanwhile");
    for taken in &taken {
        compare(&engine, libraries, &folder(&target), taken.point.seq).await;
    }
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn b3_every_sequence_number_is_restored_as_the_model_has_it() {
    let disk = MemoryDisk::new();
    let target = MemoryDisk::new();
    let mut engine = open(&disk).await;
    let library = library(&engine).await;
    let mut model = BTreeMap::from([(engine.durable().get(), 0)]);
    let first = back_up(&disk, &folder(&target)).point.floor;
    for version in 0..70_u64 {
        if version == 30 {
            // Manifests and a snapshot of the catalog come in between.
            engine.close().await.unwrap();
            engine = open(&disk).await;
        }
        let n = (version * 7 % 32) as u8;
        let seq = if version % 6 == 5 {
            delete(&engine, library, n).await
        } else {
            put(&engine, library, n, version).await
        };
        model.insert(seq, digest(&engine, library).await);
        if version % 9 == 4 {
            back_up(&disk, &folder(&target));
        }
    }
    engine.close().await.unwrap();
    back_up(&disk, &folder(&target));
    let last = *model.keys().last().unwrap();
    for seq in first..=last {
        let (copied, restored) = restored(&folder(&target), RestoreTo::Seq(seq)).unwrap();
        assert_eq!(restored.seq, seq);
        let engine = open(&copied).await;
        let expected = model.range(..=seq).next_back().map_or(0, |(_, digest)| *digest);
        let libraries = engine.libraries(TENANT, None).await.unwrap();
        let found = if libraries.is_empty() { 0 } else { digest(&engine, library).await };
        assert_eq!(found, expected, "at {seq}, from the restore point {}", restored.point.seq);
        engine.close().await.unwrap();
    }
    let beyond = restored(&folder(&target), RestoreTo::Seq(last + 1)).unwrap_err();
    let said = beyond.to_string();
    assert!(said.contains(&format!("the backup reaches from {first} to {last}")), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn b3_a_damaged_or_missing_object_is_refused_by_name() {
    let disk = MemoryDisk::new();
    let (engine, _library) = written(&disk).await;
    let target = MemoryDisk::new();
    let point = back_up(&disk, &folder(&target)).point;
    engine.close().await.unwrap();
    let mut keys: Vec<String> = point.objects().map(|object| object.key.clone()).collect();
    assert!(keys.iter().any(|key| key.contains(".seg")), "{keys:?}");
    let names = target.list(Path::new("/backup/points")).unwrap();
    keys.extend(names.iter().map(|name| format!("points/{name}")));
    for key in keys {
        let path = Path::new("/backup").join(&key);
        let mut original = Vec::new();
        let middle = |bytes: &mut Vec<u8>| {
            original.clone_from(bytes);
            let place = bytes.len() / 2;
            bytes[place] ^= 1;
        };
        target.alter(&path, middle).unwrap();
        let refused = restored(&folder(&target), RestoreTo::Newest).unwrap_err();
        assert!(matches!(refused, BackupError::Damaged { .. }), "{refused}");
        assert!(refused.to_string().contains(&key), "{key}: {refused}");
        target.alter(&path, |bytes| bytes.pop().map_or((), drop)).unwrap();
        let refused = restored(&folder(&target), RestoreTo::Newest).unwrap_err();
        assert!(refused.to_string().contains(&key), "{key}, cut: {refused}");
        target.alter(&path, |bytes| *bytes = original).unwrap();
    }
    restored(&folder(&target), RestoreTo::Newest).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn b4_only_what_is_new_is_sent() {
    let disk = MemoryDisk::new();
    let (engine, library) = written(&disk).await;
    engine.close().await.unwrap();
    // A checkpoint between two backups would be something new.
    let engine = open_with(&disk, crate::directory::calm()).await.unwrap();
    put(&engine, library, 1, 999).await;
    let target = MemoryDisk::new();
    let first = back_up(&disk, &folder(&target));
    assert!(first.objects_sent > 2, "{first:?}");
    let idle = back_up(&disk, &folder(&target));
    assert_eq!((idle.objects_sent, idle.gap), (0, None));
    assert_eq!(idle.point.since, first.point.since);
    assert_eq!(points(&folder(&target)).unwrap().len(), 1, "it says nothing new");
    let seq = put(&engine, library, 1, 1000).await;
    let next = back_up(&disk, &folder(&target));
    assert_eq!(next.point.seq, seq);
    assert_eq!(next.objects_sent, 1, "the end of the log: {next:?}");
    let known: BTreeSet<&str> = first.point.objects().map(|object| &*object.key).collect();
    let new = next.point.objects().filter(|object| !known.contains(&*object.key)).count() as u64;
    assert_eq!(next.objects_sent, new, "what is new, and nothing else: {next:?}");
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn b4_another_directory_of_the_same_name_is_another_history() {
    let target = MemoryDisk::new();
    let mut expected = Vec::new();
    for round in 0..3 {
        // Made anew, with the same numbers and file names.
        let disk = MemoryDisk::new();
        let (engine, library) = written(&disk).await;
        put(&engine, library, 5, 700 + round).await;
        let taken = back_up(&disk, &folder(&target));
        assert_eq!(taken.gap.is_some(), round > 0);
        expected.push((taken.point, library, digest(&engine, library).await));
        engine.close().await.unwrap();
    }
    assert_eq!(expected[0].0.seq, expected[2].0.seq, "the numbers are the same");
    let (copied, again) = restored(&folder(&target), RestoreTo::Seq(expected[2].0.seq)).unwrap();
    assert_eq!(again.point.history, expected[2].0.history, "the newest is meant");
    let engine = open(&copied).await;
    assert_eq!(digest(&engine, expected[2].1).await, expected[2].2);
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_a_restored_directory_takes_writes_and_numbers_are_never_given_again() {
    let disk = MemoryDisk::new();
    let (engine, library) = written(&disk).await;
    let target = MemoryDisk::new();
    back_up(&disk, &folder(&target));
    let middle = put(&engine, library, 1, 500).await;
    let at_middle = versions(&engine, library).await;
    let last = put(&engine, library, 1, 501).await;
    back_up(&disk, &folder(&target));
    engine.close().await.unwrap();

    let (copied, restored_to) = restored(&folder(&target), RestoreTo::Seq(middle)).unwrap();
    assert_eq!(restored_to.goes_on_after, last + SEQS_SKIPPED);
    let engine = open(&copied).await;
    assert_eq!(versions(&engine, library).await, at_middle);
    let next = put(&engine, library, 2, 600).await;
    assert!(next > last + SEQS_SKIPPED);
    engine.close().await.unwrap();
    let engine = open(&copied).await;
    let after = put(&engine, library, 2, 601).await;
    assert!(after > next);
    let newest = versions(&engine, library).await;
    engine.close().await.unwrap();
    let taken = back_up(&copied, &folder(&target));
    assert!(taken.gap.is_some(), "what was written after {middle} is not in this history");

    // Both histories are reached, each by its own numbers.
    for (seq, expected) in [(last, Some(501)), (middle, Some(500))] {
        let (disk, _) = restored(&folder(&target), RestoreTo::Seq(seq)).unwrap();
        let engine = open(&disk).await;
        assert_eq!(versions(&engine, library).await[1], expected, "at {seq}");
        engine.close().await.unwrap();
    }
    let (disk, again) = restored(&folder(&target), RestoreTo::Newest).unwrap();
    assert_eq!(again.goes_on_after, after + SEQS_SKIPPED);
    let engine = open(&disk).await;
    assert_eq!(versions(&engine, library).await, newest);
    engine.close().await.unwrap();
    // From the newest state of a history the same history goes on.
    let taken = back_up(&disk, &folder(&target));
    assert_eq!(taken.gap, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_were_trimmed_between_two_backups_are_said_to_be_out_of_reach() {
    let disk = MemoryDisk::new();
    let (engine, library) = written(&disk).await;
    let target = MemoryDisk::new();
    let first = back_up(&disk, &folder(&target)).point;
    let lost = put(&engine, library, 1, 500).await;
    let covered = put(&engine, library, 1, 501).await;
    engine.close().await.unwrap();
    // The log as it is once everything in it was trimmed.
    let log = Path::new("/data/log");
    for name in disk.list(log).unwrap() {
        disk.remove(&log.join(name)).unwrap();
    }
    let options = LogOptions { start_after: covered, ..LogOptions::default() };
    drop(FileLog::open(Arc::new(disk.clone()), log, options).unwrap());
    let engine = open(&disk).await;
    let last = put(&engine, library, 1, 502).await;
    engine.close().await.unwrap();
    let second = back_up(&disk, &folder(&target));
    assert_eq!(second.gap, Some((first.seq, second.point.floor)));
    let refused = restored(&folder(&target), RestoreTo::Seq(lost)).unwrap_err();
    let BackupError::SeqUnreachable { wanted, reachable } = refused else { panic!("{refused}") };
    assert_eq!(wanted, lost);
    assert_eq!(reachable, [(first.floor, first.seq), (second.point.floor, last)]);
    restored(&folder(&target), RestoreTo::Seq(first.seq)).unwrap();
    restored(&folder(&target), RestoreTo::Seq(last)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn old_restore_points_are_forgotten_with_what_only_they_needed() {
    let disk = MemoryDisk::new();
    let target = MemoryDisk::new();
    let (mut engine, library) = written(&disk).await;
    for round in 0..5 {
        for version in 0..40 {
            put(&engine, library, (version % 32) as u8, 1000 * round + version).await;
        }
        engine.close().await.unwrap();
        back_up(&disk, &folder(&target));
        engine = open(&disk).await;
    }
    let all = points(&folder(&target)).unwrap();
    assert_eq!(all.len(), 5);
    let before = target.used_bytes();
    let forgotten = forget(&folder(&target), 2).unwrap();
    assert_eq!(forgotten.points, 3);
    assert!(forgotten.objects > 0, "{forgotten:?}");
    assert!(target.used_bytes() < before);
    assert_eq!(points(&folder(&target)).unwrap(), all[3..]);
    for point in &all[3..] {
        restored(&folder(&target), RestoreTo::Point(point.seq)).unwrap();
    }
    restored(&folder(&target), RestoreTo::Seq(all[3].seq + 1)).unwrap();
    assert!(restored(&folder(&target), RestoreTo::Point(all[0].seq)).is_err());
    assert_eq!(forget(&folder(&target), 2).unwrap().objects, 0);
    put(&engine, library, 3, 9000).await;
    assert_eq!(back_up(&disk, &folder(&target)).gap, None, "the next backup goes on");
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_is_restored_from_what_was_written_until_then() {
    let disk = MemoryDisk::new();
    let target = MemoryDisk::new();
    let clock = Arc::new(Hand(AtomicI64::new(1_000_000)));
    let source = Site { clock: clock.clone(), ..site(&disk, "/data") };
    let set = |seconds: i64| clock.0.store(seconds * 1_000_000, Ordering::SeqCst);
    let engine = open_at(&disk, clock.clone()).await;
    set(10);
    let library = library(&engine).await;
    set(20);
    take(&source, &folder(&target), &()).unwrap();
    for (seconds, version) in [(30, 1), (40, 2), (50, 3)] {
        set(seconds);
        put(&engine, library, 1, version).await;
    }
    set(60);
    take(&source, &folder(&target), &()).unwrap();
    set(90);
    take(&source, &folder(&target), &()).unwrap();
    engine.close().await.unwrap();
    let cases =
        [(25, None), (35, Some(1)), (45, Some(2)), (55, Some(3)), (75, Some(3)), (90, Some(3))];
    for (seconds, expected) in cases {
        let time = RestoreTo::Time(Timestamp::from_micros(seconds * 1_000_000));
        let (copied, _) = restored(&folder(&target), time).unwrap();
        let engine = open(&copied).await;
        assert_eq!(versions(&engine, library).await[1], expected, "at {seconds} s");
        engine.close().await.unwrap();
    }
    for seconds in [5, 120] {
        let time = RestoreTo::Time(Timestamp::from_micros(seconds * 1_000_000));
        let refused = restored(&folder(&target), time).unwrap_err();
        assert!(matches!(refused, BackupError::TimeUnreachable { .. }), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn libraries_that_were_deleted_stay_deleted_and_come_back_before_that() {
    let disk = MemoryDisk::new();
    let target = MemoryDisk::new();
    let (engine, first) = written(&disk).await;
    let before = back_up(&disk, &folder(&target)).point;
    let second = library(&engine).await;
    engine.delete_library(TENANT, first).await.unwrap();
    put(&engine, second, 4, 0).await;
    let after = back_up(&disk, &folder(&target)).point;
    engine.close().await.unwrap();
    for (seq, expected) in [(before.seq, first), (after.seq, second)] {
        let (copied, restored) = restored(&folder(&target), RestoreTo::Seq(seq)).unwrap();
        assert_eq!(restored.point.library_count, 1);
        let engine = open(&copied).await;
        let libraries = engine.libraries(TENANT, None).await.unwrap();
        assert_eq!(libraries.iter().map(|it| it.spec.id).collect::<Vec<_>>(), [expected]);
        engine.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_backup_or_not_a_data_directory_is_refused() {
    let disk = MemoryDisk::new();
    let target = MemoryDisk::new();
    let none = take(&site(&disk, "/data"), &folder(&target), &()).unwrap_err();
    assert!(matches!(none, BackupError::NoData { .. }), "{none}");
    let empty = restored(&folder(&target), RestoreTo::Newest).unwrap_err();
    assert!(matches!(empty, BackupError::NoPoint { .. }), "{empty}");
    let (engine, _library) = written(&disk).await;
    target.create_dir_all(Path::new("/backup")).unwrap();
    target.create(Path::new("/backup/photo.jpg")).unwrap();
    let foreign = take(&site(&disk, "/data"), &folder(&target), &()).unwrap_err();
    assert!(matches!(foreign, BackupError::Foreign { .. }), "{foreign}");
    target.remove(Path::new("/backup/photo.jpg")).unwrap();
    let held = disk.lock(Path::new("/data/VERSION")).unwrap();
    let running = take(&site(&disk, "/data"), &folder(&target), &()).unwrap_err();
    assert!(matches!(running, BackupError::Running { .. }), "{running}");
    drop(held);
    back_up(&disk, &folder(&target));
    let full = restore(&folder(&target), &site(&disk, "/data"), RestoreTo::Newest, &());
    assert!(matches!(full, Err(BackupError::NotEmpty { .. })));
    let unknown = restored(&folder(&target), RestoreTo::Point(999_999)).unwrap_err();
    assert!(unknown.to_string().contains("999999"), "{unknown}");
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_segment_is_not_backed_up() {
    let disk = MemoryDisk::new();
    let (engine, library) = written(&disk).await;
    engine.close().await.unwrap();
    let segments = PathBuf::from(format!("/data/libraries/{library}/segments"));
    let path = segments.join(&disk.list(&segments).unwrap()[0]);
    disk.alter(&path, |bytes| bytes[400] ^= 1).unwrap();
    let target = MemoryDisk::new();
    let refused = take(&site(&disk, "/data"), &folder(&target), &()).unwrap_err();
    assert!(matches!(refused, BackupError::Damaged { .. }), "{refused}");
    assert!(refused.to_string().contains(&path.display().to_string()), "{refused}");
    assert!(points(&folder(&target)).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn b3_a_backup_is_verified_by_opening_what_it_restores() {
    let disk = MemoryDisk::new();
    let (engine, library) = written(&disk).await;
    let documents = engine.library(TENANT, library, None).await.unwrap().stats().documents;
    let target = MemoryDisk::new();
    let taken = back_up(&disk, &folder(&target));
    engine.close().await.unwrap();
    let config = EngineConfig { data_dir: "/copy".into(), ..config() };
    let parts = parts(&MemoryDisk::new()).await;
    let verified =
        arrwdb_engine::backup::verify(Arc::new(folder(&target)), config, parts, Arc::new(()))
            .await
            .unwrap();
    assert_eq!(verified.restored.seq, taken.point.seq);
    assert_eq!((verified.libraries, verified.documents), (1, documents));
}
