//! The data directory: where files are, and how they come and go.
//!
//! ```text
//! LOCK  VERSION
//! log/<first-seq>.log
//! catalog/catalog-<covered>
//! libraries/<id>/manifest-<applied>   libraries/<id>/segments/<number>.{seg, idx, kwd}
//! cache/                              (safe to delete)
//! ```
//!
//! A file is written under a `.tmp` name, synced, renamed and its directory synced; so a name that
//! does not end in `.tmp` is a whole file. (The name of postings is not synced: without them they are
//! made again.) The newest snapshot or manifest counts; older ones and
//! files that none names are left-overs of a crash and are removed.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrwdb_log::disk::{Access, Disk, File, read_exact_at};
use arrwdb_state::{
    BesideSummary, Damage, FileSegment, IndexFile, LibraryId, Manifest, Merge, Metric,
    PostingsPlace, Segment, SegmentIndex, SegmentWriteError, Seq, View,
};
use parking_lot::Mutex;

use crate::error::EngineError;
use crate::map::map;

pub(crate) const TEMPORARY: &str = ".tmp";
pub(crate) const SEGMENT: &str = ".seg";
pub(crate) const INDEX: &str = ".idx";
pub(crate) const POSTINGS: &str = ".kwd";
/// What is being written beside a segment, or was when the process died; the next one replaces it.
const BESIDE_TEMPORARY: [&str; 2] = [".idx.tmp", ".kwd.tmp"];
pub(crate) const MANIFEST: &str = "manifest-";
pub(crate) const CATALOG: &str = "catalog-";
/// Bytes of a segment gathered before they are written.
const WRITE_BYTES: usize = 1 << 20;
/// Snapshots and manifests are small; a larger one is not ours.
const SNAPSHOT_BYTES_MAX: u64 = 4 << 30;

/// The data directory on a disk.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) root: PathBuf,
    /// Held while segments are removed, and while files of postings come into being and get their
    /// names: searches write them, and none shall be left of a segment that is gone. Those that are
    /// being written.
    removing: Arc<Mutex<BTreeSet<PathBuf>>>,
    /// Which postings are kept; `None` if none are.
    kept_postings: Option<KeptPostings>,
}

/// Which postings are kept beside their segments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeptPostings {
    /// Those of fewer rows are made again sooner than a file is written.
    pub(crate) rows_min: u32,
    /// With less than this free none are: nobody needs them.
    pub(crate) free_bytes_min: u64,
}

/// For `map_err`: what was tried on what.
pub(crate) fn failed<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> EngineError + 'a {
    move |error| {
        let detail = format!("cannot {operation} {}: {error}", path.display());
        let full =
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if full { EngineError::DiskFull { detail } } else { EngineError::Storage { detail } }
    }
}

impl Store {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        root: PathBuf,
        kept_postings: Option<KeptPostings>,
    ) -> Self {
        Self { disk, root, removing: Arc::default(), kept_postings }
    }

    pub(crate) fn log_dir(&self) -> PathBuf {
        self.root.join("log")
    }

    pub(crate) fn catalog_dir(&self) -> PathBuf {
        self.root.join("catalog")
    }

    pub(crate) fn libraries_dir(&self) -> PathBuf {
        self.root.join("libraries")
    }

    pub(crate) fn library_dir(&self, id: LibraryId) -> PathBuf {
        self.libraries_dir().join(id.to_string())
    }

    pub(crate) fn segments_dir(&self, id: LibraryId) -> PathBuf {
        self.library_dir(id).join("segments")
    }

    pub(crate) fn segment_path(&self, id: LibraryId, number: u64) -> PathBuf {
        self.segments_dir(id).join(format!("{number:010}{SEGMENT}"))
    }

    /// Makes a directory and its name durable.
    pub(crate) fn make_dir(&self, dir: &Path) -> Result<(), EngineError> {
        self.disk.create_dir_all(dir).map_err(failed("create", dir))?;
        match dir.parent() {
            Some(parent) => self.disk.sync_dir(parent).map_err(failed("sync", parent)),
            None => Ok(()),
        }
    }

    /// Names in a directory; none if it does not exist.
    pub(crate) fn names(&self, dir: &Path) -> Result<Vec<String>, EngineError> {
        match self.disk.list(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other.map_err(failed("list", dir)),
        }
    }

    /// Reads a small file whole.
    pub(crate) fn read(&self, path: &Path) -> Result<Vec<u8>, EngineError> {
        let read = || {
            let file = self.disk.open(path, Access::Read)?;
            let length = file.length()?;
            if length > SNAPSHOT_BYTES_MAX {
                return Err(io::Error::other(format!("it has {length} bytes")));
            }
            let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            read_exact_at(&*file, &mut bytes, 0)?;
            Ok(bytes)
        };
        read().map_err(failed("read", path))
    }

    /// Writes a small file so that after a crash it is there whole or not at all.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), EngineError> {
        let temporary = with_suffix(path);
        let file = self.begin(&temporary)?;
        file.write_all_at(bytes, 0).map_err(failed("write", &temporary))?;
        self.finish(&*file, &temporary, path)
    }

    fn begin(&self, temporary: &Path) -> Result<Arc<dyn File>, EngineError> {
        match self.disk.remove(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", temporary)(error));
            }
            _ => {}
        }
        self.disk.create(temporary).map_err(failed("create", temporary))
    }

    fn finish(&self, file: &dyn File, temporary: &Path, path: &Path) -> Result<(), EngineError> {
        file.sync_data().map_err(failed("sync", temporary))?;
        self.disk.rename(temporary, path).map_err(failed("rename", temporary))?;
        let dir = path.parent().unwrap_or(&self.root);
        self.disk.sync_dir(dir).map_err(failed("sync", dir))
    }

    /// Writes a merge as segment `number` of a library and opens it; `None` if it keeps nothing.
    /// Fails once `stopped` says so.
    pub(crate) fn write_segment(
        &self,
        id: LibraryId,
        number: u64,
        merge: &Merge,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Option<Arc<Segment>>, EngineError> {
        if merge.rows() == 0 {
            return Ok(None);
        }
        // A process that was killed may have left one of a file that had this number: nobody finds
        // that out later, once this file is there.
        self.remove_beside(id, number)?;
        let path = self.segment_path(id, number);
        let temporary = with_suffix(&path);
        self.make_dir(&self.segments_dir(id))?;
        let file = self.begin(&temporary)?;
        // A full disk is met here, where nothing is lost, and never as a fault in a mapping.
        let written = file
            .allocate(0, merge.file_bytes())
            .map_err(failed("allocate", &temporary))
            .and_then(|()| write_merge(&*file, merge, &temporary, stopped))
            .and_then(|()| self.finish(&*file, &temporary, &path));
        if let Err(error) = written {
            if let Err(left_over) = self.disk.remove(&temporary) {
                tracing::warn!(file = %temporary.display(), error = %left_over, "left behind");
            }
            return Err(error);
        }
        let segment = Segment::File(self.open_segment(id, number)?);
        merge.derive(&segment)?;
        Ok(Some(Arc::new(segment)))
    }

    pub(crate) fn index_path(&self, id: LibraryId, number: u64) -> PathBuf {
        self.segments_dir(id).join(format!("{number:010}{INDEX}"))
    }

    /// Writes the structure of a segment, in place of the one it had.
    pub(crate) fn write_index(
        &self,
        id: LibraryId,
        segment: &FileSegment,
        index: &SegmentIndex,
        metric: Metric,
    ) -> Result<(), EngineError> {
        let path = self.index_path(id, segment.number());
        self.write_beside(&path, &|out| IndexFile::write(index, segment, metric, out))
    }

    /// Writes what lies beside a segment, in place of what is there.
    fn write_beside(
        &self,
        path: &Path,
        write: &dyn Fn(&mut dyn Write) -> io::Result<BesideSummary>,
    ) -> Result<(), EngineError> {
        let temporary = with_suffix(path);
        let file = self.begin(&temporary)?;
        let written = fill(&*file, write)
            .map_err(failed("write", &temporary))
            .and_then(|()| self.finish(&*file, &temporary, path));
        if written.is_err() {
            self.leave_behind(&temporary);
        }
        written
    }

    /// Removes what was begun and is not wanted.
    fn leave_behind(&self, temporary: &Path) {
        if let Err(error) = self.remove_if_there(temporary) {
            tracing::warn!(%error, "left behind");
        }
    }

    /// Reads the structure of a segment; `None` if there is none, or it is another segment's.
    pub(crate) fn read_index(
        &self,
        id: LibraryId,
        segment: &FileSegment,
        metric: Metric,
    ) -> Result<Option<SegmentIndex>, EngineError> {
        let path = self.index_path(id, segment.number());
        match map(&*self.disk, &path) {
            Ok(bytes) => Ok(IndexFile::read(bytes.bytes(), bytes.name(), segment, metric)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("map", &path)(error)),
        }
    }

    /// Removes a segment that no manifest names and nobody uses, with what lies beside it.
    pub(crate) fn remove_segment(&self, id: LibraryId, number: u64) -> Result<(), EngineError> {
        let _alone = self.removing.lock();
        self.remove_beside(id, number)?;
        self.remove_if_there(&self.segment_path(id, number))
    }

    fn remove_beside(&self, id: LibraryId, number: u64) -> Result<(), EngineError> {
        self.remove_index(id, number)?;
        self.remove_if_there(&self.postings_path(id, number))
    }

    /// The size of the file of a segment's structure; 0 if there is none.
    pub(crate) fn index_file_bytes(&self, id: LibraryId, number: u64) -> Result<u64, EngineError> {
        let path = self.index_path(id, number);
        match self.disk.open(&path, Access::Read).and_then(|file| file.length()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            other => other.map_err(failed("open", &path)),
        }
    }

    pub(crate) fn remove_index(&self, id: LibraryId, number: u64) -> Result<(), EngineError> {
        self.remove_if_there(&self.index_path(id, number))
    }

    fn remove_if_there(&self, path: &Path) -> Result<(), EngineError> {
        match self.disk.remove(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(failed("remove", path)),
        }
    }

    pub(crate) fn postings_path(&self, id: LibraryId, number: u64) -> PathBuf {
        self.segments_dir(id).join(format!("{number:010}{POSTINGS}"))
    }

    pub(crate) fn open_segment(
        &self,
        id: LibraryId,
        number: u64,
    ) -> Result<FileSegment, EngineError> {
        let path = self.segment_path(id, number);
        let bytes = map(&*self.disk, &path).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                let detail = format!("{} is missing; restore it or a backup", path.display());
                EngineError::Damaged { detail }
            } else {
                failed("map", &path)(error)
            }
        })?;
        let segment = FileSegment::open(number, bytes)?;
        Ok(match self.kept_postings {
            Some(kept) if segment.rows() >= kept.rows_min => {
                let place = KeptAt { store: self.clone(), library: id, number, kept };
                segment.with_postings_at(Arc::new(place))
            }
            Some(_) | None => segment,
        })
    }

    /// Makes the manifest of a view durable; returns what it says.
    pub(crate) fn write_manifest(
        &self,
        id: LibraryId,
        view: &View,
        next_segment: u64,
    ) -> Result<Manifest, EngineError> {
        let manifest = Manifest::of(view, id, next_segment)
            .map_err(|error| EngineError::Storage { detail: error.to_string() })?;
        self.make_dir(&self.library_dir(id))?;
        let name = format!("{MANIFEST}{:020}", manifest.applied.get());
        self.write(&self.library_dir(id).join(name), &manifest.write())?;
        Ok(manifest)
    }

    /// Reads a library's newest manifest, if it has one.
    pub(crate) fn read_manifest(&self, id: LibraryId) -> Result<Option<Manifest>, EngineError> {
        let Some(path) = self.newest(&self.library_dir(id), MANIFEST)? else {
            return Ok(None);
        };
        let manifest =
            Manifest::read(&self.read(&path)?).map_err(|error| damaged(&path, &error))?;
        if manifest.library != id {
            return Err(EngineError::Damaged {
                detail: format!("{} belongs to library {}", path.display(), manifest.library),
            });
        }
        Ok(Some(manifest))
    }

    /// A library as its newest manifest and its files have it; empty, if it has none.
    pub(crate) fn open_library(&self, id: LibraryId, dimension: u32) -> Result<View, EngineError> {
        let Some(manifest) = self.read_manifest(id)? else { return Ok(View::empty(dimension)) };
        if manifest.dimension != dimension {
            return Err(self.advised(&format!(
                "the manifest in {} has {} dimensions but the catalog says {dimension}",
                self.library_dir(id).display(),
                manifest.dimension
            )));
        }
        self.open_manifest(manifest)
    }

    /// The error of a directory in which files are missing.
    pub(crate) fn missing(&self, what: &str) -> EngineError {
        self.advised(&format!("{what}: files are missing"))
    }

    /// The error of a library whose newest manifest is older than it was.
    pub(crate) fn no_manifest(&self, id: LibraryId, least: Seq) -> EngineError {
        let dir = self.library_dir(id);
        self.missing(&format!(
            "{} has no manifest at {least} or later, which it had",
            dir.display()
        ))
    }

    /// The error of files that do not belong together, with what to do next.
    fn advised(&self, what: &str) -> EngineError {
        let dir = self.root.display();
        let detail = format!(
            "{what}; stop the server and run `arrwdb check {dir}`: it says what is missing or \
             damaged, and what can be done"
        );
        EngineError::Damaged { detail }
    }

    /// Opens the files of a manifest.
    pub(crate) fn open_manifest(&self, manifest: Manifest) -> Result<View, EngineError> {
        let id = manifest.library;
        let files = manifest
            .all_segments()
            .map(|segment| self.open_segment(id, segment.number))
            .collect::<Result<Vec<_>, _>>()?;
        manifest.open(files).map_err(|error| EngineError::Damaged { detail: error.to_string() })
    }

    /// Removes what a stopped checkpoint left of a library that nobody checkpoints now.
    pub(crate) fn sweep_library(
        &self,
        id: LibraryId,
        kept: impl Fn() -> BTreeSet<u64>,
    ) -> Result<(), EngineError> {
        let Some(manifest) = self.read_manifest(id)? else { return Ok(()) };
        if !self.superseded(&manifest, &kept)?.is_empty() {
            self.settle(&self.library_dir(id))?;
            self.sweep(&manifest, kept)?;
        }
        Ok(())
    }

    /// Removes what the manifest on disk, whose name is durable, does not name: older manifests,
    /// merged segments, and left-overs, but not files that are `kept`: they are still
    /// written, or used already. Mappings of removed files stay whole.
    ///
    /// `kept` is asked after the directories are listed: a file of which it does not know yet is
    /// not in the list either.
    pub(crate) fn sweep(
        &self,
        manifest: &Manifest,
        kept: impl Fn() -> BTreeSet<u64>,
    ) -> Result<(), EngineError> {
        let _alone = self.removing.lock();
        self.superseded(manifest, &kept)?.iter().try_for_each(|path| self.remove(path))
    }

    fn superseded(
        &self,
        manifest: &Manifest,
        kept: &impl Fn() -> BTreeSet<u64>,
    ) -> Result<Vec<PathBuf>, EngineError> {
        let id = manifest.library;
        let dir = self.library_dir(id);
        let current = format!("{MANIFEST}{:020}", manifest.applied.get());
        let names = self.names(&dir)?.into_iter();
        let mut superseded: Vec<PathBuf> = names
            .filter(|name| name.starts_with(MANIFEST) && *name != current)
            .map(|name| dir.join(name))
            .collect();
        let segments = self.segments_dir(id);
        let names = self.names(&segments)?;
        let kept = kept();
        for name in names {
            let suffixes = [SEGMENT, INDEX, POSTINGS].into_iter().chain(BESIDE_TEMPORARY);
            let named = suffixes.into_iter().find_map(|suffix| name.strip_suffix(suffix));
            let named = named.and_then(|number| number.parse::<u64>().ok());
            let begun = name.split_once('.').and_then(|(number, _)| number.parse::<u64>().ok());
            if !manifest.all_segments().any(|segment| Some(segment.number) == named)
                && !begun.is_some_and(|number| kept.contains(&number))
            {
                superseded.push(segments.join(name));
            }
        }
        Ok(superseded)
    }

    /// The number of a library's newest manifest, by its name.
    pub(crate) fn manifest_number(&self, id: LibraryId) -> Result<Option<u64>, EngineError> {
        let path = self.newest(&self.library_dir(id), MANIFEST)?;
        Ok(path.and_then(|path| path.file_name()?.to_str()?.strip_prefix(MANIFEST)?.parse().ok()))
    }

    /// Files and directories that a repair set aside. They may hold anything.
    pub(crate) fn set_aside(&self) -> Result<Vec<PathBuf>, EngineError> {
        let mut found = Vec::new();
        for (dir, marks) in
            [(self.log_dir(), &[".damaged", ".torn"][..]), (self.libraries_dir(), &[".set-aside"])]
        {
            for name in self.names(&dir)? {
                if marks.iter().any(|mark| name.contains(mark)) {
                    found.push(dir.join(name));
                }
            }
        }
        Ok(found)
    }

    /// Removes a deleted library's directory.
    pub(crate) fn remove_library(&self, id: LibraryId) -> Result<(), EngineError> {
        let _alone = self.removing.lock();
        let dir = self.library_dir(id);
        let segments = self.segments_dir(id);
        for dir in [&segments, &dir] {
            for name in self.names(dir)? {
                if name != "segments" {
                    self.remove(&dir.join(name))?;
                }
            }
            match self.disk.remove_dir(dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", dir)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes a catalog snapshot durable and removes older ones. `covered` says up to where every
    /// library's records, and the catalog's, are in manifests and snapshots.
    pub(crate) fn write_catalog(&self, bytes: &[u8], covered: Seq) -> Result<(), EngineError> {
        let dir = self.catalog_dir();
        let current = format!("{CATALOG}{:020}", covered.get());
        self.write(&dir.join(&current), bytes)?;
        for name in self.names(&dir)? {
            if name.starts_with(CATALOG) && name < current {
                self.remove(&dir.join(name))?;
            }
        }
        Ok(())
    }

    /// The newest catalog snapshot with what it covers.
    pub(crate) fn read_catalog(&self) -> Result<Option<(PathBuf, Vec<u8>, Seq)>, EngineError> {
        let dir = self.catalog_dir();
        let Some(path) = self.newest(&dir, CATALOG)? else {
            return Ok(None);
        };
        self.settle(&dir)?;
        let covered = Self::covered_by(&path);
        let bytes = self.read(&path)?;
        Ok(Some((path, bytes, covered)))
    }

    /// What a catalog snapshot covers, from its name.
    pub(crate) fn covered_by(path: &Path) -> Seq {
        path.file_name()
            .and_then(|name| name.to_str()?.strip_prefix(CATALOG)?.parse().ok())
            .map_or(Seq::START, Seq::new)
    }

    /// Makes the names in a directory durable before something is removed because of what they say:
    /// a process may have died between a rename and its sync, and if the power fails then, the new
    /// name must not be what is lost.
    pub(crate) fn settle(&self, dir: &Path) -> Result<(), EngineError> {
        self.disk.sync_dir(dir).map_err(failed("sync", dir))
    }

    /// The whole file with this prefix and the greatest number.
    pub(crate) fn newest(&self, dir: &Path, prefix: &str) -> Result<Option<PathBuf>, EngineError> {
        let names = self.names(dir)?;
        // Numbers are padded with zeros, so the greatest name has the greatest number.
        let newest = names
            .into_iter()
            .filter(|name| name.strip_prefix(prefix).is_some_and(|n| n.parse::<u64>().is_ok()))
            .max();
        Ok(newest.map(|name| dir.join(name)))
    }

    /// Removes what exports wrote: it may hold what was deleted since.
    pub(crate) fn remove_exports(&self) -> Result<(), EngineError> {
        let dir = self.root.join("exports");
        for name in self.names(&dir)? {
            self.remove(&dir.join(name))?;
        }
        Ok(())
    }

    pub(crate) fn remove(&self, path: &Path) -> Result<(), EngineError> {
        self.disk.remove(path).map_err(failed("remove", path))
    }
}

/// Where the postings of a segment are kept: beside it.
#[derive(Debug)]
struct KeptAt {
    store: Store,
    library: LibraryId,
    number: u64,
    kept: KeptPostings,
}

impl KeptAt {
    fn path(&self) -> PathBuf {
        self.store.postings_path(self.library, self.number)
    }

    /// Whether there is a segment that postings of so many bytes are to be kept of, and room.
    fn is_wanted(&self, bytes: u64) -> bool {
        let Self { store, library, number, kept } = self;
        let there = store.disk.open(&store.segment_path(*library, *number), Access::Read).is_ok();
        let least = kept.free_bytes_min.saturating_add(bytes);
        there && store.disk.free_bytes(&store.root).is_ok_and(|free| free >= least)
    }

    /// Begins the file, unless it is begun already or nobody wants it.
    fn begin(&self, temporary: &Path, bytes: u64) -> Result<Option<Arc<dyn File>>, EngineError> {
        let mut writing = self.store.removing.lock();
        if writing.contains(temporary) || !self.is_wanted(bytes) {
            return Ok(None);
        }
        // From here on who removes the segment finds it, and removes it too.
        let file = self.store.begin(temporary)?;
        writing.insert(temporary.to_owned());
        Ok(Some(file))
    }

    /// Gives the file its name, unless its segment is gone meanwhile.
    fn finish(
        &self,
        temporary: &Path,
        written: Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let store = &self.store;
        let mut writing = store.removing.lock();
        writing.remove(temporary);
        let path = self.path();
        let named = written.and_then(|()| {
            if self.is_wanted(0) {
                store.disk.rename(temporary, &path).map_err(failed("rename", temporary))?;
            }
            Ok(())
        });
        store.leave_behind(temporary);
        named
    }

    fn try_keep(
        &self,
        bytes: u64,
        write: &dyn Fn(&mut dyn Write) -> io::Result<BesideSummary>,
    ) -> Result<(), EngineError> {
        let temporary = with_suffix(&self.path());
        let Some(file) = self.begin(&temporary, bytes)? else { return Ok(()) };
        // Without the lock: a large file takes long, and nobody has to wait for it.
        let written = fill(&*file, write)
            .and_then(|()| file.sync_data())
            .map_err(failed("write", &temporary));
        self.finish(&temporary, written)
    }
}

impl PostingsPlace for KeptAt {
    fn read(&self) -> Option<Vec<u8>> {
        let path = self.path();
        let read = self.store.disk.open(&path, Access::Read).and_then(|file| {
            let length = file.length()?;
            if length > SNAPSHOT_BYTES_MAX {
                return Err(io::Error::other(format!("it has {length} bytes")));
            }
            let length = usize::try_from(length).map_err(io::Error::other)?;
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(length).map_err(io::Error::other)?;
            bytes.resize(length, 0);
            read_exact_at(&*file, &mut bytes, 0)?;
            Ok(bytes)
        });
        match read {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "cannot be read; it is made again");
                None
            }
        }
    }

    fn refuse(&self, damage: &Damage) {
        let (file, offset) = (self.path(), damage.offset);
        tracing::warn!(file = %file.display(), offset, what = damage.what, "it is made again");
    }

    fn keep(&self, bytes: u64, write: &dyn Fn(&mut dyn Write) -> io::Result<BesideSummary>) {
        if let Err(error) = self.try_keep(bytes, write) {
            tracing::warn!(library = %self.library, %error, "postings are not kept; they are made again after a start");
        }
    }
}

/// Writes what lies beside a segment, its header last.
fn fill(
    file: &dyn File,
    write: &dyn Fn(&mut dyn Write) -> io::Result<BesideSummary>,
) -> io::Result<()> {
    let mut out =
        io::BufWriter::with_capacity(WRITE_BYTES, Positioned { file, at: 0, stopped: &|| false });
    let summary = write(&mut out)?;
    out.flush()?;
    file.write_all_at(&summary.header, 0)
}

/// The error of a file whose bytes do not decode.
pub(crate) fn damaged(path: &Path, error: &arrwdb_state::DecodeError) -> EngineError {
    let detail = format!("{} is damaged: {error}; restore it or a backup", path.display());
    EngineError::Damaged { detail }
}

fn with_suffix(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY);
    PathBuf::from(name)
}

fn write_merge(
    file: &dyn File,
    merge: &Merge,
    path: &Path,
    stopped: &dyn Fn() -> bool,
) -> Result<(), EngineError> {
    let out = Positioned { file, at: 0, stopped };
    let mut out = io::BufWriter::with_capacity(WRITE_BYTES, out);
    let summary = merge.write(&mut out).map_err(|error| match error {
        SegmentWriteError::Damaged(damage) => damage.into(),
        SegmentWriteError::Io(error) => failed("write", path)(error),
    })?;
    out.flush().map_err(failed("write", path))?;
    file.write_all_at(&summary.header, 0).map_err(failed("write", path))
}

/// Writes one after the other into a file.
struct Positioned<'a> {
    file: &'a dyn File,
    at: u64,
    stopped: &'a dyn Fn() -> bool,
}

impl Write for Positioned<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.stopped)() {
            return Err(io::Error::other("it was given up"));
        }
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
