//! A data directory with everything in it that can be in one, and all that can be read of it.

use std::path::{Path, PathBuf};

use arrwdb_engine::log::disk::{Access, Disk};
use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::{LibraryId, Seq};
use arrwdb_engine::{
    ChangeEntry, Embeddings, Engine, EngineConfig, EngineError, FollowError, LibraryPatch,
};

use crate::subject::*;

pub(crate) const ROOT: &str = "/data";

/// Small log files, and no checkpoint but at a close.
pub(crate) fn calm() -> EngineConfig {
    EngineConfig { checkpoint_bytes: 1 << 30, ..busy() }
}

/// Small log files, and checkpoints all the time.
pub(crate) fn busy() -> EngineConfig {
    EngineConfig { log_file_bytes: 16 << 10, index_rows_min: 4, ..config() }
}

async fn put(engine: &Engine, library: LibraryId, versions: std::ops::Range<u64>) {
    for version in versions {
        let n = u8::try_from(version * 7 % 32).unwrap();
        crate::subject::put(engine, library, n, version).await;
    }
}

/// A directory as a killed server leaves it that had started after another was killed: several
/// libraries, merged segments, sealed log files with their indexes, postings, a snapshot of the catalog,
/// and records after all of them.
pub(crate) async fn directory() -> MemoryDisk {
    for _try in 0..20 {
        let disk = any_directory().await;
        // A merge at the last moment may have left fewer files than the tests are about.
        let least = [(".idx", 2), (".seg", 3), (".kwd", 1)];
        if least.into_iter().all(|(part, least)| named(&disk, part).len() >= least) {
            return disk;
        }
    }
    panic!("20 directories without files of every kind");
}

async fn any_directory() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let engine = open_with(&disk, busy()).await.unwrap();
    let mut libraries = Vec::new();
    for _library in 0..3 {
        libraries.push(library(&engine).await);
    }
    let deleted = library(&engine).await;
    put(&engine, deleted, 0..10).await;
    put(&engine, libraries[0], 0..150).await;
    put(&engine, libraries[1], 0..40).await;
    engine.delete_documents(TENANT, libraries[0], vec![id(3), id(4), id(5)]).await.unwrap();
    engine.delete_library(TENANT, deleted).await.unwrap();
    // Files and structures are made beside the writes: there shall be some of both.
    while named(&disk, ".idx").len() < 2 || named(&disk, ".seg").len() < 3 {
        put(&engine, libraries[0], 0..10).await;
    }
    engine.close().await.unwrap();
    let engine = open_with(&disk, calm()).await.unwrap();
    put(&engine, libraries[0], 200..230).await;
    put(&engine, libraries[2], 0..4).await;
    engine.delete_documents(TENANT, libraries[1], vec![id(7)]).await.unwrap();
    let patch = LibraryPatch { name: Some("renamed".into()), ..LibraryPatch::default() };
    engine.update_library(TENANT, libraries[1], patch).await.unwrap();
    for library in [libraries[0], libraries[1]] {
        engine.search(TENANT, library, by_words("version", 5), None).await.unwrap();
    }
    let killed = disk.crash(|| true);
    engine.close().await.unwrap();
    // The start after it marks the end of the log.
    let engine = open_with(&killed, calm()).await.unwrap();
    let mut again = killed.crash(|| true);
    // Upkeep may be writing a snapshot at this very moment.
    while files(&again).iter().any(|path| path.extension().is_some_and(|end| end == "tmp")) {
        tokio::task::yield_now().await;
        again = killed.crash(|| true);
    }
    engine.close().await.unwrap();
    again
}

/// All files of the directory, in order.
pub(crate) fn files(disk: &MemoryDisk) -> Vec<PathBuf> {
    files_below(disk, Path::new(ROOT))
}

/// All files below `dir`, in order; none if it is not there. The engine may be removing files
/// meanwhile: what has no name any more when it is looked at is not a file.
pub(crate) fn files_below(disk: &MemoryDisk, dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for name in disk.list(dir).unwrap_or_default() {
        let path = dir.join(name);
        if disk.open(&path, Access::Read).is_ok() {
            found.push(path);
        } else {
            found.extend(files_below(disk, &path));
        }
    }
    found
}

/// The files whose paths contain a text.
pub(crate) fn named(disk: &MemoryDisk, part: &str) -> Vec<PathBuf> {
    let matches = |path: &PathBuf| path.to_string_lossy().contains(part);
    files(disk).into_iter().filter(matches).collect()
}

pub(crate) fn length(disk: &MemoryDisk, path: &Path) -> usize {
    usize::try_from(disk.open(path, Access::Read).unwrap().length().unwrap()).unwrap()
}

/// Everything that an engine answers about its data, as texts: libraries with their digests,
/// documents with their vectors, those in fields too, searches, and every record.
pub(crate) async fn everything(engine: &Engine) -> Result<Vec<String>, EngineError> {
    let mut answers = Vec::new();
    for overview in engine.libraries(TENANT, None).await? {
        answers.push(format!("{overview:?}"));
        let library = overview.spec.id;
        let snapshot = engine.library(TENANT, library, None).await?;
        let digest = snapshot.stats().digest;
        answers.push(format!("{} {digest}", snapshot.seq()));
        let page = snapshot.documents_after(None, 1000, Embeddings::Included)?;
        answers.extend(page.documents.iter().map(|document| format!("{document:?}")));
        for n in 0..32 {
            answers.push(format!("{:?}", snapshot.document(id(n), Embeddings::Omitted)?));
            answers.push(format!("{:?}", snapshot.field_vectors(id(n))?));
        }
        let vectors = (0..4).map(|seed| nearest(vector(1, seed, 2), 20));
        for search in vectors.chain([by_words("part 2 version 7", 20)]) {
            let answer = engine.search(TENANT, library, search, None).await?;
            let hits = answer.hits.iter();
            let told = hits
                .map(|hit| format!("{} {:?} {}", hit.document_id, hit.distance, hit.chunk.text));
            answers.extend(told);
        }
    }
    let changes = engine.changes_after(Seq::START, usize::MAX).await;
    for change in changes.map_err(engine_error)? {
        answers.push(match change.entry {
            ChangeEntry::Catalog(entry) => format!("{} {entry:?}", change.seq),
            ChangeEntry::Work(entry) => format!("{} {entry:?}", change.seq),
            ChangeEntry::Library(id, entry) => format!("{} {id} {entry:?}", change.seq),
        });
    }
    Ok(answers)
}

fn engine_error(error: FollowError) -> EngineError {
    match error {
        FollowError::Engine(error) => error,
        FollowError::Trimmed { first } => panic!("nothing was trimmed, yet it begins at {first}"),
    }
}

/// Opens a directory, reads everything, closes it.
pub(crate) async fn read(disk: &MemoryDisk) -> Result<Vec<String>, EngineError> {
    let engine = open_with(disk, calm()).await?;
    let answers = everything(&engine).await;
    // It may fail for want of what is damaged; what was read counts here.
    engine.close().await.ok();
    answers
}
