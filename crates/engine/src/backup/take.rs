//! Taking a restore point.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use arrwdb_log::disk::Access;
use arrwdb_state::{LibraryId, Manifest, Seq, Snapshot};
use parking_lot::Mutex;

use super::Progress;
use super::error::BackupError;
use super::history::{self, LogTaken};
use super::point::{LibraryPart, Object, Point, PointName, SegmentPart, sha256};
use super::segment::SegmentSource;
use super::source::{CatalogFile, LOOKS_MAX, Site, damaged};
use super::target::{self, Target};
use super::workers::each;

/// How often everything is gone through anew because the log was trimmed meanwhile. What was sent
/// is not sent again, so each time takes less.
const PASSES_MAX: u32 = 8;

/// A restore point that was taken.
#[derive(Debug)]
pub struct Taken {
    /// The restore point.
    pub point: Point,
    /// Objects that were sent; the others were there.
    pub objects_sent: u64,
    /// Bytes that were sent.
    pub bytes_sent: u64,
    /// Numbers above the first and below the second cannot be restored: the log did not go on from
    /// the restore point before this one.
    pub gap: Option<(u64, u64)>,
}

/// One backup at work.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) source: &'a Site,
    pub(super) previous: Option<Point>,
    target: &'a dyn Target,
    progress: Shown<'a>,
    /// What is in the target, with sizes.
    present: Mutex<BTreeMap<String, u64>>,
    /// SHA-256 of segments that are in the target.
    hashes: Mutex<BTreeMap<String, String>>,
    /// What was told to come.
    expected: Mutex<BTreeMap<String, u64>>,
    objects_sent: AtomicU64,
    bytes_sent: AtomicU64,
}

/// A library as a restore point has it.
enum Kept {
    Part(LibraryPart),
    /// It has no manifest, though the catalog says so: it was deleted.
    Gone(LibraryId),
    /// It has no manifest yet.
    Nothing,
}

struct Shown<'a>(&'a dyn Progress);

impl std::fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Progress")
    }
}

/// Every restore point of a target, oldest first.
pub fn points(target: &dyn Target) -> Result<Vec<Point>, BackupError> {
    let objects = target::list(target)?;
    names(&objects).into_iter().map(|name| read_point(target, &objects, &name)).collect()
}

/// The names of the restore points, oldest first.
pub(super) fn names(objects: &BTreeMap<String, u64>) -> Vec<PointName> {
    let mut names: Vec<_> = objects.keys().filter_map(|key| PointName::parse(key)).collect();
    names.sort();
    names
}

pub(super) fn read_point(
    target: &dyn Target,
    objects: &BTreeMap<String, u64>,
    name: &PointName,
) -> Result<Point, BackupError> {
    let key = name.key();
    let bytes = objects.get(&key).copied().unwrap_or_default();
    Point::read(&key, &target::get_all(target, &key, bytes)?)
}

/// Takes a restore point of a data directory, whether or not a server writes to it, and sends what
/// the target does not have. Blocks.
pub fn take(
    source: &Site,
    target: &dyn Target,
    progress: &dyn Progress,
) -> Result<Taken, BackupError> {
    let version = source.version()?;
    let _one_at_a_time = source.lock()?;
    let objects = target::list(target)?;
    if objects.is_empty() {
        target::mark(target)?;
    }
    let previous = names(&objects).pop();
    let previous = previous.map(|name| read_point(target, &objects, &name)).transpose()?;
    let known = previous.iter().flat_map(|point| {
        let segments = point.libraries.iter().flat_map(|library| &library.segments);
        segments.map(|segment| (segment.object.key.clone(), segment.object.sha256.clone()))
    });
    let run = Run {
        source,
        target,
        progress: Shown(progress),
        hashes: Mutex::new(known.collect()),
        previous,
        present: Mutex::new(objects),
        expected: Mutex::default(),
        objects_sent: AtomicU64::new(0),
        bytes_sent: AtomicU64::new(0),
    };
    for _pass in 0..PASSES_MAX {
        if let Some((point, follows)) = run.pass(&version)? {
            return run.finish(point, follows);
        }
    }
    Err(BackupError::Moving { what: source.log_dir().display().to_string() })
}

impl Run<'_> {
    /// Goes through everything once; `None` if something was gone before it could be read.
    fn pass(&self, version: &str) -> Result<Option<(Point, bool)>, BackupError> {
        let file = self.source.catalog()?;
        let ids: Vec<LibraryId> = file.snapshot.catalog.iter().map(|spec| spec.id).collect();
        for &id in &ids {
            self.foresee(id)?;
        }
        let catalog = match &file.bytes {
            None => None,
            Some(bytes) => Some(self.keep_named(&format!("catalog/{:020}", file.covered), bytes)?),
        };
        let kept = each(ids, |id| {
            let least = file.snapshot.checkpointed.get(&id).copied().unwrap_or(Seq::START);
            self.keep_library(id, least)
        })?;
        let Some(log) = history::take(self, &file)? else { return Ok(None) };
        Ok(self.put_together(version, (&file, catalog), kept, log))
    }

    /// `None` if a library is gone without a word of it in the log.
    fn put_together(
        &self,
        version: &str,
        (file, catalog): (&CatalogFile, Option<Object>),
        kept: Vec<Kept>,
        log: LogTaken,
    ) -> Option<(Point, bool)> {
        let Snapshot { catalog: known, work, .. } = &file.snapshot;
        let mut floor = file.covered.max(known.applied().get()).max(work.applied().get());
        let mut libraries = Vec::new();
        for kept in kept {
            match kept {
                Kept::Nothing => {}
                Kept::Part(part) => {
                    floor = floor.max(part.applied);
                    libraries.push(part);
                }
                Kept::Gone(id) => floor = floor.max(*log.deleted.get(&id)?),
            }
        }
        // The log is read after the manifests, which hold nothing that is not in it.
        if floor > log.seq {
            return None;
        }
        // Restore points are in the order of their times, even where the clock was set back.
        let after = self.previous.as_ref().map_or(0, |previous| previous.time.saturating_add(1));
        let time = self.source.clock.now().micros().max(after);
        let unchanged = self.previous.as_ref().filter(|it| log.follows && it.seq == log.seq);
        let point = Point {
            seq: log.seq,
            history: log.history,
            time,
            since: unchanged.map_or(time, |previous| previous.since),
            arrwdb: env!("CARGO_PKG_VERSION").to_owned(),
            version: version.to_owned(),
            covered: file.covered,
            floor,
            last_record: log.last_record,
            library_count: log.libraries,
            catalog,
            libraries,
            log: log.parts,
        };
        Some((point, log.follows))
    }

    /// Writes the restore point, after everything that it names.
    fn finish(self, point: Point, follows: bool) -> Result<Taken, BackupError> {
        let bytes = point.write();
        let key = point.name().key();
        target::put_all(self.target, &key, &bytes)?;
        // One that differs in its time alone says nothing that this one does not say.
        if let Some(previous) = &self.previous
            && (previous.seq, previous.floor, &previous.history)
                == (point.seq, point.floor, &point.history)
            && previous.name() != point.name()
        {
            self.target.delete(&[previous.name().key()]).map_err(target::of(self.target))?;
        }
        let gap = self.previous.as_ref().filter(|_| !follows);
        Ok(Taken {
            objects_sent: self.objects_sent.into_inner(),
            bytes_sent: self.bytes_sent.into_inner(),
            gap: gap.map(|previous| (previous.seq, point.floor)),
            point,
        })
    }

    /// Tells how much a library will take, where it can be told.
    fn foresee(&self, id: LibraryId) -> Result<(), BackupError> {
        let Some((path, bytes)) = self.source.manifest(id)? else { return Ok(()) };
        let manifest = Manifest::read(&bytes).map_err(|error| damaged(&path, &error))?;
        let prefix = |number: u64| format!("libraries/{id}/{number:010}-");
        for segment in manifest.all_segments() {
            let prefix = prefix(segment.number);
            let present = self.present.lock();
            let is_there = present.range(prefix.clone()..).next().is_some_and(|(key, bytes)| {
                key.starts_with(&prefix) && *bytes == segment.file_bytes
            });
            drop(present);
            if !is_there {
                self.expect(&prefix, segment.file_bytes);
            }
        }
        Ok(())
    }

    /// Says once that something is to come.
    pub(super) fn expect(&self, name: &str, bytes: u64) {
        if self.expected.lock().insert(name.to_owned(), bytes).is_none() {
            self.progress.0.expect(bytes);
        }
    }

    fn keep_library(&self, id: LibraryId, least: Seq) -> Result<Kept, BackupError> {
        for _look in 0..LOOKS_MAX {
            let Some((path, bytes)) = self.source.manifest(id)? else {
                return Ok(if least > Seq::START { Kept::Gone(id) } else { Kept::Nothing });
            };
            let manifest = Manifest::read(&bytes).map_err(|error| damaged(&path, &error))?;
            if manifest.library != id || manifest.applied < least {
                let detail = format!(
                    "{} is not the manifest of this library at {least} or later; restore it or an \
                     earlier backup",
                    path.display()
                );
                return Err(BackupError::Damaged { detail });
            }
            if let Some(part) = self.keep_manifest(&manifest, &bytes)? {
                return Ok(Kept::Part(part));
            }
        }
        Err(BackupError::Moving { what: format!("library {id}") })
    }

    /// `None` if a file of the manifest is gone: there is a newer manifest then.
    fn keep_manifest(
        &self,
        manifest: &Manifest,
        bytes: &[u8],
    ) -> Result<Option<LibraryPart>, BackupError> {
        let id = manifest.library;
        // All are opened first: an open file stays whole, whatever becomes of its name.
        let mut files = Vec::with_capacity(manifest.all_segments().count());
        for segment in manifest.all_segments() {
            let path = self.source.segment_path(id, segment.number);
            match self.source.disk.open(&path, Access::Read) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                other => files.push((other.map_err(BackupError::disk("open", &path))?, path)),
            }
        }
        let mut segments = Vec::with_capacity(files.len());
        for ((file, path), listed) in files.into_iter().zip(manifest.all_segments()) {
            let opened = SegmentSource::open(file, path, listed);
            match opened.and_then(|source| self.keep_segment(id, listed.number, source)) {
                Ok(object) => segments.push(SegmentPart { number: listed.number, object }),
                // A disk that forgets open files when they lose their names.
                Err(BackupError::Disk { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        let name = format!("libraries/{id}/manifest-{:020}", manifest.applied.get());
        let totals = manifest.totals();
        Ok(Some(LibraryPart {
            id: id.to_string(),
            applied: manifest.applied.get(),
            documents: totals.documents,
            chunks: totals.chunks,
            digest: format!("{:032x}", totals.digest),
            manifest: self.keep_named(&name, bytes)?,
            segments,
        }))
    }

    fn keep_segment(
        &self,
        id: LibraryId,
        number: u64,
        source: SegmentSource,
    ) -> Result<Object, BackupError> {
        let bytes = source.bytes();
        let key = format!("libraries/{id}/{number:010}-{}.seg", source.fingerprint);
        let is_there = self.is_there(&key, bytes);
        if is_there && let Some(sha256) = self.hashes.lock().get(&key).cloned() {
            return Ok(Object { key, bytes, sha256 });
        }
        let mut passing = source.stream(self.progress.0)?;
        if is_there {
            // Sent by a backup that did not come to its end: only its hash is wanting.
            if let Err(error) = io::copy(&mut passing, &mut io::sink()) {
                let fault = passing.fault();
                let unknown = || BackupError::Disk { operation: "read", path: key.into(), error };
                return Err(fault.unwrap_or_else(unknown));
            }
        } else if let Err(error) = self.target.put(&key, bytes, &mut passing) {
            let refused = || target::of(self.target)(error);
            return Err(passing.fault().unwrap_or_else(refused));
        } else {
            self.sent(&key, bytes);
        }
        let sha256 = passing.finish()?;
        self.hashes.lock().insert(key.clone(), sha256.clone());
        Ok(Object { key, bytes, sha256 })
    }

    /// Stores a small file under a name that ends in a part of its hash.
    fn keep_named(&self, name: &str, bytes: &[u8]) -> Result<Object, BackupError> {
        let sha256 = sha256(bytes);
        let key = format!("{name}-{}", &sha256[..16]);
        self.keep_bytes(&key, bytes)?;
        Ok(Object { key, bytes: bytes.len() as u64, sha256 })
    }

    /// Stores bytes whose key follows from them, unless they are there.
    pub(super) fn keep_bytes(&self, key: &str, bytes: &[u8]) -> Result<(), BackupError> {
        if !self.is_there(key, bytes.len() as u64) {
            target::put_all(self.target, key, bytes)?;
            self.sent(key, bytes.len() as u64);
        }
        Ok(())
    }

    fn is_there(&self, key: &str, bytes: u64) -> bool {
        self.present.lock().get(key) == Some(&bytes)
    }

    fn sent(&self, key: &str, bytes: u64) {
        self.present.lock().insert(key.to_owned(), bytes);
        self.objects_sent.fetch_add(1, Ordering::Relaxed);
        self.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
    }
}
