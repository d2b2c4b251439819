//! The order of a check, and all of the directory but the log and the libraries.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use arrwdb_embed::{CACHE_FILE_NAMES, check_cache_file};
use arrwdb_log::disk::{Access, File};
use arrwdb_state::Seq;

use super::finding::{Findings, Remedy, Report};
use super::library::{self, Manifests};
use super::log::{self, Suffix};
use super::{CheckError, Progress};
use crate::error::EngineError;
use crate::open::FORMAT;
use crate::store::{CATALOG, Store, TEMPORARY, failed};

/// What a crash may leave, and nothing uses.
const UNFINISHED: &str = "left unfinished by a crash";
/// What we do not know.
const UNKNOWN: &str = "not a file of this program; it is left alone";

/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;

/// A check on its way.
pub(super) struct Check<'a> {
    pub(super) store: &'a Store,
    pub(super) progress: &'a dyn Progress,
    pub(super) report: Report,
}

/// The catalog's snapshot, as a start would use it.
#[derive(Default)]
pub(super) struct Snapshot {
    pub(super) read: arrwdb_state::Snapshot,
    pub(super) covered: Seq,
}

pub(super) fn check(store: &Store, progress: &dyn Progress) -> Result<Report, CheckError> {
    let mut check = Check { store, progress, report: Report::default() };
    progress.begin(check.total_bytes()?);
    check.root()?;
    let snapshot = check.catalog()?;
    let manifests = Manifests::read(&mut check)?;
    let Suffix { catalog, records } = log::check(&mut check, snapshot.as_ref(), &manifests)?;
    library::check(&mut check, manifests, (snapshot, catalog), records)?;
    check.cache()?;
    Ok(check.report)
}

impl Check<'_> {
    pub(super) fn findings(&mut self) -> &mut Findings {
        &mut self.report.findings
    }

    /// Bytes of the files that are large: for showing how far the check is.
    fn total_bytes(&self) -> Result<u64, EngineError> {
        let mut dirs = vec![self.store.log_dir(), self.cache_dir()];
        for name in self.store.names(&self.store.libraries_dir())? {
            dirs.push(self.store.libraries_dir().join(name).join("segments"));
        }
        let mut total = 0;
        for dir in dirs {
            // A plain file among the libraries is no directory; it is noted later.
            for name in self.store.names(&dir).unwrap_or_default() {
                let file = self.store.disk.open(&dir.join(name), Access::Read);
                total += file.and_then(|file| file.length()).unwrap_or(0);
            }
        }
        Ok(total)
    }

    /// Reads a small file whole and counts it.
    pub(super) fn read(&mut self, path: &Path) -> Result<Vec<u8>, EngineError> {
        let bytes = self.store.read(path)?;
        self.report.files += 1;
        self.report.bytes += bytes.len() as u64;
        self.progress.advance(path, bytes.len() as u64);
        Ok(bytes)
    }

    /// `VERSION`, and what else lies at the root.
    fn root(&mut self) -> Result<(), EngineError> {
        let root = self.store.root.clone();
        let names = self.store.names(&root)?;
        let version = root.join("VERSION");
        if !names.iter().any(|name| name == "VERSION") {
            let what = "it is missing, but there is data beside it";
            self.findings().of(Remedy::Restore, &version, what);
        }
        for name in names {
            let path = root.join(&name);
            match name.as_str() {
                "LOCK" | "log" | "catalog" | "libraries" | "cache" | "keys" | "work"
                | "exports" | "job-errors" => {}
                "VERSION" => self.version(&path)?,
                _ if name.ends_with(TEMPORARY) => {
                    self.findings().of(Remedy::Remove, &path, UNFINISHED);
                }
                _ => self.findings().of(Remedy::Leave, &path, UNKNOWN),
            }
        }
        Ok(())
    }

    fn version(&mut self, path: &Path) -> Result<(), EngineError> {
        let found = self.read(path)?;
        if found != FORMAT.as_bytes() {
            let differs = found.iter().zip(FORMAT.as_bytes()).take_while(|(a, b)| a == b).count();
            let text = String::from_utf8_lossy(&found);
            let text: String = text.trim().chars().take(60).collect();
            let what = format!("it says {text:?}, which this build does not know");
            self.findings().at(Remedy::Restore, path, differs as u64, what);
        }
        Ok(())
    }

    /// The newest snapshot; `None` if it cannot be used. Without any, an empty one.
    fn catalog(&mut self) -> Result<Option<Snapshot>, EngineError> {
        let dir = self.store.catalog_dir();
        let newest = self.store.newest(&dir, CATALOG)?;
        let mut snapshot = Some(Snapshot::default());
        if let Some(path) = &newest {
            snapshot = self.snapshot(path)?;
        }
        for name in self.store.names(&dir)? {
            let path = dir.join(&name);
            let is_snapshot =
                name.strip_prefix(CATALOG).is_some_and(|number| number.parse::<u64>().is_ok());
            if name.ends_with(TEMPORARY) {
                self.findings().of(Remedy::Remove, &path, UNFINISHED);
            } else if !is_snapshot {
                self.findings().of(Remedy::Leave, &path, UNKNOWN);
            } else if newest.as_ref() != Some(&path) {
                // Where the newest is damaged, somebody may want to look at the older one.
                let remedy = if snapshot.is_some() { Remedy::Remove } else { Remedy::Leave };
                self.findings().of(remedy, &path, "there is a newer snapshot of the catalog");
            }
        }
        Ok(snapshot)
    }

    fn snapshot(&mut self, path: &Path) -> Result<Option<Snapshot>, EngineError> {
        let bytes = self.read(path)?;
        let read = match arrwdb_state::Snapshot::read(&bytes) {
            Ok(read) => read,
            Err(error) => {
                let what = format!("it does not read back: {}", error.what);
                self.findings().at(Remedy::Restore, path, error.offset as u64, what);
                return Ok(None);
            }
        };
        let covered = Store::covered_by(path);
        let own = [covered, read.catalog.applied(), read.work.applied()];
        let known = read.checkpointed.values().copied().chain(own);
        self.report.highest = known.max().unwrap_or_default().max(self.report.highest);
        self.report.covered = covered;
        Ok(Some(Snapshot { read, covered }))
    }

    fn cache_dir(&self) -> PathBuf {
        self.store.root.join("cache")
    }

    /// The embedding cache: derived, and never worth an error.
    fn cache(&mut self) -> Result<(), EngineError> {
        let dir = self.cache_dir();
        for name in self.store.names(&dir)? {
            let path = dir.join(&name);
            if !CACHE_FILE_NAMES.contains(&name.as_str()) {
                self.findings().of(Remedy::Leave, &path, UNKNOWN);
                continue;
            }
            let file = self.store.disk.open(&path, Access::Read).map_err(failed("open", &path))?;
            self.report.files += 1;
            let reader = Sequential { file: &*file, path: &path, at: 0, progress: self.progress };
            let mut reader = io::BufReader::with_capacity(READ_BYTES, reader);
            let found = check_cache_file(&mut reader).map_err(failed("read", &path))?;
            self.report.bytes += reader.get_ref().at;
            if let Some(offset) = found.damaged_at {
                let what = "an embedding in the cache does not read back";
                self.findings().at(Remedy::Remake, &path, offset, what);
            }
        }
        Ok(())
    }

    /// Reads a large file through, so that a disk that cannot read it says so: in a mapping, the
    /// same would end the process.
    pub(super) fn read_through(&mut self, path: &Path) -> Result<u64, EngineError> {
        let file = self.store.disk.open(path, Access::Read).map_err(failed("open", path))?;
        let mut reader = Sequential { file: &*file, path, at: 0, progress: self.progress };
        let mut buffer = vec![0; READ_BYTES];
        while reader.read(&mut buffer).map_err(failed("read", path))? > 0 {}
        let bytes = reader.at;
        self.report.files += 1;
        self.report.bytes += bytes;
        Ok(bytes)
    }
}

/// Reads a file from its beginning, and says how far it is.
struct Sequential<'a> {
    file: &'a dyn File,
    path: &'a Path,
    at: u64,
    progress: &'a dyn Progress,
}

impl Read for Sequential<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(bytes, self.at)?;
        self.at += read as u64;
        self.progress.advance(self.path, read as u64);
        Ok(read)
    }
}
