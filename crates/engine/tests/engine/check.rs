//! Checks and repairs of closed directories.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrwdb_engine::check::{Action, CheckError, Closed, Done, Loss, Remedy, Report, Silent, check};
use arrwdb_engine::embed::deterministic::DeterministicProvider;
use arrwdb_engine::log::disk::{Access, Disk};
use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::Seq;
use arrwdb_engine::{EngineError, LibraryPatch};

use crate::directory::*;
use crate::subject::*;

fn checked(disk: &MemoryDisk) -> Report {
    check(Arc::new(disk.clone()), Path::new(ROOT), &Silent).unwrap()
}

fn repaired(disk: &MemoryDisk, loss: Loss) -> (Report, Vec<Done>) {
    let closed = Closed::lock(Arc::new(disk.clone()), Path::new(ROOT)).unwrap();
    let report = closed.check(&Silent).unwrap();
    let done = closed.repair(&report, loss, 11).unwrap();
    (closed.check(&Silent).unwrap(), done)
}

fn write(disk: &MemoryDisk, path: impl AsRef<Path>, bytes: &[u8]) {
    disk.create(path.as_ref()).unwrap().write_all_at(bytes, 0).unwrap();
}

fn bytes_of(disk: &MemoryDisk, path: &Path) -> Vec<u8> {
    let mut found = Vec::new();
    disk.alter(path, |bytes| found.clone_from(bytes)).unwrap();
    found
}

/// The files of the log, oldest first.
fn log_files(disk: &MemoryDisk) -> Vec<PathBuf> {
    let is_log = |path: &PathBuf| path.extension().is_some_and(|end| end == "log");
    named(disk, "/log/").into_iter().filter(is_log).collect()
}

/// Paths and remedies of what was found.
fn found(report: &Report) -> Vec<(String, Remedy)> {
    let mut found: Vec<_> = report
        .findings
        .kept
        .iter()
        .map(|finding| (finding.path.display().to_string(), finding.remedy))
        .collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_directory_has_the_figures_of_the_engine_and_is_not_changed() {
    let disk = directory().await;
    let before: Vec<_> =
        files(&disk).into_iter().map(|path| (path.clone(), bytes_of(&disk, &path))).collect();
    let report = checked(&disk);
    assert_eq!(report.findings.kept, []);
    assert!(report.is_sound() && report.actions(Loss::Accepted).is_empty());
    assert_eq!(report.lost, []);
    for (path, bytes) in before.iter().filter(|(path, _)| !path.ends_with("LOCK")) {
        assert_eq!(bytes_of(&disk, path), *bytes, "{}", path.display());
    }
    assert_eq!(files(&disk).len(), before.len());
    assert!(named(&disk, ".idx").len() > 1 && named(&disk, ".seg").len() > 2);
    assert!(report.libraries.iter().any(|library| library.replayed > 10));
    let engine = open_with(&disk, calm()).await.unwrap();
    assert_eq!(report.last, engine.durable());
    assert_eq!(report.libraries.len(), 3);
    for figures in &report.libraries {
        let snapshot = engine.library(TENANT, figures.id, None).await.unwrap();
        let stats = snapshot.stats();
        assert_eq!(figures.name, snapshot.spec().name);
        assert_eq!((figures.documents, figures.chunks), (stats.documents, stats.chunks));
        assert_eq!(figures.digest, stats.digest);
        // Of a quiet library the engine knows that it has everything up to the log's end.
        assert!(figures.seq > Seq::START && figures.seq <= snapshot.seq(), "{}", figures.seq);
    }
    let refused = check(Arc::new(disk.clone()), Path::new(ROOT), &Silent).unwrap_err();
    assert!(matches!(refused, CheckError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains("Stop that server"), "{refused}");
    engine.close().await.unwrap();
    assert!(checked(&disk).is_sound(), "after a close as well");
}

#[test]
fn where_there_is_no_data_nothing_is_made() {
    let disk = MemoryDisk::new();
    disk.create_dir_all(Path::new("/other")).unwrap();
    for dir in ["/other", "/absent"] {
        let refused = check(Arc::new(disk.clone()), Path::new(dir), &Silent).unwrap_err();
        assert!(matches!(refused, CheckError::Absent(_)), "{refused}");
    }
    assert_eq!(disk.list(Path::new("/other")).unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_file_is_damage_where_it_is_needed() {
    let disk = directory().await;
    let logs = log_files(&disk);
    for path in files(&disk) {
        let disk = disk.crash(|| true);
        disk.remove(&path).unwrap();
        let report = checked(&disk);
        let name = path.display().to_string();
        let needed = ["VERSION", "manifest-", ".seg"];
        // Without its first file the log is as after a trim; of its end, only others know.
        let in_chain = logs[1..logs.len() - 1].contains(&path);
        let needed = in_chain || needed.iter().any(|part| name.contains(part));
        if logs.last() == Some(&path) {
            continue;
        }
        assert_eq!(report.is_sound(), !needed, "{name}: {:?}", report.findings);
        if needed {
            // The log's chain may first show the gap at a neighbour.
            let said = report.findings.kept.iter().any(|finding| {
                path.starts_with(finding.path.parent().unwrap())
                    || finding.path.parent() == path.parent()
                    || path.starts_with(&finding.path)
            });
            assert!(said, "{name}: {:?}", report.findings);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_no_guessing_is_repaired_and_nothing_else_is_touched() {
    let disk = directory().await;
    let wanted = read(&disk.crash(|| true)).await.unwrap();
    let root = Path::new(ROOT);
    let manifest = named(&disk, "manifest-").remove(0);
    let library = manifest.parent().unwrap().to_owned();
    let left_over = [
        root.join("VERSION.tmp"),
        root.join("catalog/catalog-00000000000000000001.tmp"),
        library.join("manifest-00000000000000000001"),
        library.join("manifest-00000000000000000009.tmp"),
        library.join("segments/0000009999.seg"),
        library.join("segments/0000009998.seg.tmp"),
        root.join("log/00000000000000099999.log.new"),
        root.join("log/00000000000000099999.idx"),
    ];
    for path in &left_over {
        write(&disk, path, b"left over");
    }
    // An older snapshot, a deleted library, a stale index, a torn tail, and things of others.
    write(&disk, root.join("catalog/catalog-00000000000000000000"), b"older");
    let deleted = root.join("libraries/00000000-0000-7000-8000-000000000001");
    disk.create_dir_all(&deleted.join("segments")).unwrap();
    write(&disk, deleted.join("segments/0000000001.seg"), b"deleted");
    let index = named(&disk, ".idx").remove(0);
    disk.alter(&index, |bytes| bytes[70] ^= 1).unwrap();
    let log = log_files(&disk).pop().unwrap();
    let end = bytes_of(&disk, &log).iter().rposition(|&byte| byte != 0).unwrap();
    disk.alter(&log, |bytes| {
        // Behind the mark at the end, which ends in zeros.
        bytes.resize(end + 64, 0);
        bytes.extend([9; 40]);
    })
    .unwrap();
    let others = [root.join("notes.txt"), library.join("mine"), root.join("log/readme")];
    for path in &others {
        write(&disk, path, b"somebody's");
    }
    let before = checked(&disk);
    assert!(before.is_sound(), "{:?}", before.findings);
    assert_eq!(before.findings.repairable, 12);
    assert_eq!(before.findings.notes, others.len() as u64);
    assert_eq!(before.actions(Loss::Refused), before.actions(Loss::Accepted));
    let (after, done) = repaired(&disk, Loss::Refused);
    assert_eq!(done.len(), 12);
    assert_eq!((after.findings.damage, after.findings.repairable), (0, 0));
    // What others left, and the torn bytes.
    assert_eq!(after.findings.notes, others.len() as u64 + 1);
    for path in &left_over {
        assert!(disk.open(path, Access::Read).is_err(), "{}", path.display());
    }
    let torn = named(&disk, ".log.torn").remove(0);
    assert!(bytes_of(&disk, &torn).ends_with(&[9; 40]));
    for path in &others {
        assert_eq!(bytes_of(&disk, path), b"somebody's");
    }
    assert_eq!(read(&disk).await.unwrap(), wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_left_alone_by_a_repair_that_may_lose_nothing() {
    let disk = directory().await;
    for part in ["VERSION", "catalog-", "manifest-", ".seg", ".log"] {
        let disk = disk.crash(|| true);
        let path = named(&disk, part).remove(0);
        disk.alter(&path, |bytes| bytes[9] ^= 1).unwrap();
        let before: Vec<_> = files(&disk).iter().map(|path| bytes_of(&disk, path)).collect();
        let (after, done) = repaired(&disk, Loss::Refused);
        assert_eq!(done, [], "{part}");
        assert!(!after.is_sound());
        let now: Vec<_> = files(&disk).iter().map(|path| bytes_of(&disk, path)).collect();
        assert_eq!(now.len(), before.len());
        assert_eq!(now[1..], before[1..], "{part}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_records_are_given_up_only_when_told_so_and_the_rest_is_saved() {
    let disk = directory().await;
    let log = named(&disk, ".log").remove(1);
    let length = length(&disk, &log);
    disk.alter(&log, |bytes| bytes[length / 2] ^= 1).unwrap();
    let before = checked(&disk);
    assert_eq!(before.lost.len(), 1);
    assert_eq!(before.lost[0].last, Some(before.lost[0].first), "one record");
    assert_eq!(found(&before), [(log.display().to_string(), Remedy::AcceptLoss)]);
    assert_eq!(before.actions(Loss::Refused), []);
    assert_eq!(before.actions(Loss::Accepted), [Action::Salvage]);
    let (after, done) = repaired(&disk, Loss::Accepted);
    assert!(after.is_sound(), "{:?}", after.findings);
    let lost = format!("these sequence numbers are lost: {};", before.lost[0].first);
    assert!(done.iter().any(|done| done.what.contains(&lost)), "{done:?}");
    assert!(named(&disk, ".log.damaged").len() == 1);
    // It lay before every manifest: no library misses it.
    let engine = open_with(&disk, calm()).await.unwrap();
    for figures in &after.libraries {
        let snapshot = engine.library(TENANT, figures.id, None).await.unwrap();
        assert_eq!(snapshot.stats().digest, figures.digest);
    }
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn l2_no_number_is_given_twice_after_the_end_of_the_log_was_given_up() {
    let whole = directory().await;
    // Everything is in manifests, so that they know how far the log went.
    open_with(&whole, calm()).await.unwrap().close().await.unwrap();
    let known = checked(&whole).last;
    let logs = log_files(&whole);
    assert!(logs.len() > 3);
    // The last file is unreadable, or missing; or the last two are; or the whole log is.
    for case in 0..4 {
        let disk = whole.crash(|| true);
        if case < 3 {
            // Without a snapshot, only manifests know how far the log went.
            disk.remove(&named(&disk, "catalog-")[0]).unwrap();
        }
        match case {
            0 => disk.alter(logs.last().unwrap(), |bytes| bytes[20] ^= 1).unwrap(),
            1 => disk.remove(logs.last().unwrap()).unwrap(),
            2 => {
                for path in &logs[logs.len() - 2..] {
                    disk.remove(path).unwrap();
                }
            }
            _ => {
                for path in &logs {
                    disk.remove(path).unwrap();
                }
            }
        }
        let refused = open_with(&disk, calm()).await.map(|_engine| ()).unwrap_err();
        assert!(matches!(refused, EngineError::Damaged { .. }), "{case}: {refused}");
        let before = checked(&disk);
        assert!(!before.is_sound(), "{case}");
        let (after, done) = repaired(&disk, Loss::Accepted);
        assert!(after.is_sound(), "{case}: {:?}", after.findings);
        assert!(done.iter().any(|done| done.what.contains("all after it")), "{case}: {done:?}");
        let engine = open_with(&disk, calm()).await.unwrap();
        let library = after.libraries[0].id;
        let put = engine.put_documents(TENANT, library, vec![document(1, 999)]).await.unwrap();
        assert!(put.seq > known, "{case}: {} after {known}", put.seq);
        let patch = LibraryPatch { name: Some("again".into()), ..LibraryPatch::default() };
        let patched = engine.update_library(TENANT, library, patch).await.unwrap();
        assert!(patched.seq > put.seq);
        engine.close().await.unwrap();
        assert!(checked(&disk).is_sound(), "{case}");
        let engine = open_with(&disk, calm()).await.unwrap();
        assert_eq!(engine.durable(), patched.seq);
        assert_eq!(versions(&engine, library).await[1], Some(999));
        engine.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_whose_creation_was_lost_is_set_aside_and_not_removed() {
    let disk = MemoryDisk::new();
    let engine = open_with(&disk, calm()).await.unwrap();
    let kept = library(&engine).await;
    let lost = library(&engine).await;
    for library in [kept, lost] {
        for n in 0..20 {
            let put = engine.put_documents(TENANT, library, vec![document(n, u64::from(n))]);
            put.await.unwrap();
        }
    }
    engine.close().await.unwrap();
    // Only the log knows that they were created: the snapshot is gone, and so is one record.
    disk.remove(&named(&disk, "catalog-")[0]).unwrap();
    let log = named(&disk, ".log").remove(0);
    let needle = lost.to_bytes();
    disk.alter(&log, |bytes| {
        let at = bytes.windows(16).position(|window| window == needle).unwrap();
        bytes[at] ^= 1;
    })
    .unwrap();
    let segment = named(&disk, &format!("{lost}/segments/")).remove(0);
    let bytes = bytes_of(&disk, &segment);
    let (after, done) = repaired(&disk, Loss::Accepted);
    assert!(after.is_sound(), "{:?}", after.findings);
    assert!(done.iter().any(|done| done.what.contains("was created")), "{done:?}");
    let engine = open_with(&disk, calm()).await.unwrap();
    assert_eq!(engine.libraries(TENANT, None).await.unwrap().len(), 1);
    assert_eq!(engine.library(TENANT, kept, None).await.unwrap().stats().documents, 20);
    engine.close().await.unwrap();
    let aside = named(&disk, &format!("{lost}.set-aside/segments/")).remove(0);
    assert_eq!(bytes_of(&disk, &aside), bytes, "its files are whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_cache_is_no_damage() {
    let disk = directory().await;
    let dir = tempfile::tempdir().unwrap();
    let files = cache_files(dir.path()).await;
    disk.create_dir_all(Path::new("/data/cache")).unwrap();
    for (name, bytes) in &files {
        write(&disk, Path::new("/data/cache").join(name), bytes);
    }
    assert_eq!(found(&checked(&disk)), []);
    let (name, bytes) = files.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let path = Path::new("/data/cache").join(name);
    for at in 0..bytes.len() {
        disk.alter(&path, |bytes| bytes[at] ^= 1).unwrap();
        let report = checked(&disk);
        assert_eq!(found(&report), [(path.display().to_string(), Remedy::Remake)], "{at}");
        assert!(report.is_sound());
        disk.alter(&path, |bytes| bytes[at] ^= 1).unwrap();
    }
    disk.alter(&path, |bytes| bytes.truncate(bytes.len() - 1)).unwrap();
    let (after, done) = repaired(&disk, Loss::Refused);
    assert_eq!((found(&after), done.len()), (Vec::new(), 1));
}

/// The files of an embedding cache with a few entries.
async fn cache_files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    use arrwdb_engine::embed::http::{HttpOptions, http_client};
    use arrwdb_engine::embed::{
        CacheConfig, EmbedConfig, EmbedParts, Embedder, InputType, LocalSource, TokioTimer,
    };
    let parts = EmbedParts {
        local: LocalSource::Custom(Arc::new(DeterministicProvider)),
        http: http_client(&HttpOptions::default()).unwrap(),
        timer: Arc::new(TokioTimer::new()),
        random: Arc::new(|| 7),
    };
    let cache = CacheConfig { dir: Some(dir.to_owned()), ..CacheConfig::default() };
    let config = EmbedConfig { cache, ..EmbedConfig::default() };
    let embedder = Embedder::open(config, parts).await.unwrap();
    let spec = embedder.default_model();
    let texts: Vec<String> = (0..3).map(|n| format!("text {n}")).collect();
    embedder
        .embed(&spec, InputType::Document, texts, std::time::Duration::from_mins(1))
        .await
        .unwrap();
    embedder.close().await;
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    names
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect()
}
