//! Libraries: their manifests, their segments, and the fold of both with the log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrwdb_log::disk::Access;
use arrwdb_state::{
    BesideState, Catalog, Damage, FileBytes, FileSegment, IndexFile, LibraryEntry, LibraryId,
    LibrarySpec, Manifest, PostingsFile, Seq, View,
};
use bytes::Bytes;

use super::directory::{Check, Snapshot};
use super::finding::{LibraryFigures, Remedy};
use super::library_id;
use crate::error::EngineError;
use crate::map::map;
use crate::store::{INDEX, MANIFEST, POSTINGS, SEGMENT, Store, TEMPORARY, failed};

/// Faults of one segment file that are reported.
const SEGMENT_FAULTS_MAX: usize = 100;

/// The directories of libraries, and the newest manifest of each.
#[derive(Default)]
pub(super) struct Manifests(BTreeMap<LibraryId, Found>);

/// What a library's directory holds.
struct Found {
    dir: PathBuf,
    /// The newest manifest's path, if there is one.
    path: Option<PathBuf>,
    /// The newest manifest, if it can be used.
    manifest: Option<Manifest>,
    /// Segment files that no manifest names.
    unnamed: Vec<PathBuf>,
}

impl Manifests {
    pub(super) fn read(check: &mut Check<'_>) -> Result<Self, EngineError> {
        let mut manifests = BTreeMap::new();
        let libraries = check.store.libraries_dir();
        for name in check.store.names(&libraries)? {
            let dir = libraries.join(&name);
            let Some(id) = library_id(&name) else {
                let what = "not the directory of a library; it is left alone";
                check.findings().of(Remedy::Leave, &dir, what);
                continue;
            };
            let found = Found::read(check, id, dir)?;
            let applied = found.manifest.as_ref().map_or(Seq::START, |manifest| manifest.applied);
            check.report.highest = check.report.highest.max(applied);
            manifests.insert(id, found);
        }
        Ok(Self(manifests))
    }

    /// What a library's manifest has applied.
    pub(super) fn applied(&self, id: LibraryId) -> Seq {
        let manifest = self.0.get(&id).and_then(|found| found.manifest.as_ref());
        manifest.map_or(Seq::START, |manifest| manifest.applied)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Found {
    fn read(check: &mut Check<'_>, id: LibraryId, dir: PathBuf) -> Result<Self, EngineError> {
        let path = check.store.newest(&dir, MANIFEST)?;
        let manifest = match &path {
            Some(path) => read_manifest(check, path, id)?,
            None => None,
        };
        for name in check.store.names(&dir)? {
            let other = dir.join(&name);
            if name.ends_with(TEMPORARY) {
                check.findings().of(Remedy::Remove, &other, "left unfinished by a crash");
            } else if name.starts_with(MANIFEST) {
                if path.as_ref() != Some(&other) {
                    // Where the newest is damaged, somebody may want to look at the older one.
                    let remedy = if manifest.is_some() { Remedy::Remove } else { Remedy::Leave };
                    check.findings().of(remedy, &other, "there is a newer manifest");
                }
            } else if name != "segments" {
                check.findings().of(Remedy::Leave, &other, "not a file of this program");
            }
        }
        let unnamed = segment_names(check, id, manifest.as_ref())?;
        Ok(Self { dir, path, manifest, unnamed })
    }
}

fn read_manifest(
    check: &mut Check<'_>,
    path: &Path,
    id: LibraryId,
) -> Result<Option<Manifest>, EngineError> {
    let bytes = check.read(path)?;
    let manifest = match Manifest::read(&bytes) {
        Ok(manifest) => manifest,
        Err(error) => {
            let what = format!("it does not read back: {}", error.what);
            check.findings().at(Remedy::Restore, path, error.offset as u64, what);
            return Ok(None);
        }
    };
    let named = path.file_name().and_then(|name| name.to_str()?.strip_prefix(MANIFEST));
    let what = if manifest.library != id {
        Some(format!("it belongs to library {}", manifest.library))
    } else if named.and_then(|number| number.parse().ok()) != Some(manifest.applied.get()) {
        Some(format!("its name and its content ({}) disagree", manifest.applied))
    } else {
        manifest.contradiction().map(str::to_owned)
    };
    if let Some(what) = what {
        check.findings().of(Remedy::Restore, path, what);
        return Ok(None);
    }
    Ok(Some(manifest))
}

/// Looks at the names of a library's segments; gives those that no manifest names.
fn segment_names(
    check: &mut Check<'_>,
    id: LibraryId,
    manifest: Option<&Manifest>,
) -> Result<Vec<PathBuf>, EngineError> {
    let dir = check.store.segments_dir(id);
    let mut unnamed = Vec::new();
    for name in check.store.names(&dir)? {
        let path = dir.join(&name);
        let number = [SEGMENT, INDEX, POSTINGS].iter().find_map(|suffix| name.strip_suffix(suffix));
        let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) else {
            let finished = !name.ends_with(TEMPORARY);
            let remedy = if finished { Remedy::Leave } else { Remedy::Remove };
            let what =
                if finished { "not a file of this program" } else { "left unfinished by a crash" };
            check.findings().of(remedy, &path, what);
            continue;
        };
        match manifest {
            Some(manifest) if manifest.all_segments().any(|named| named.number == number) => {}
            Some(_) => check.findings().of(Remedy::Remove, &path, "no manifest names it"),
            // Derived: without its segment it is of no use.
            None if !name.ends_with(SEGMENT) => {
                check.findings().of(Remedy::Leave, &path, "no manifest names its segment");
            }
            None => unnamed.push(path),
        }
    }
    Ok(unnamed)
}

/// Opens, verifies and folds every library.
pub(super) fn check(
    check: &mut Check<'_>,
    manifests: Manifests,
    (snapshot, catalog): (Option<Snapshot>, Option<Catalog>),
    mut records: BTreeMap<LibraryId, Vec<(Seq, Bytes)>>,
) -> Result<(), EngineError> {
    let mut found = manifests.0;
    let snapshot = snapshot.unwrap_or_default();
    for spec in catalog.iter().flat_map(Catalog::iter) {
        let least = snapshot.read.checkpointed.get(&spec.id).copied().unwrap_or(Seq::START);
        let of_library = found.remove(&spec.id);
        let manifest = of_library.as_ref().and_then(|found| found.manifest.as_ref());
        if manifest.map_or(Seq::START, |manifest| manifest.applied) < least {
            missing_manifest(check, spec.id, least, of_library.as_ref());
            continue;
        }
        let records = records.remove(&spec.id).unwrap_or_default();
        fold(check, spec, of_library, &records)?;
    }
    for (id, found) in found {
        if catalog.is_some() {
            let what = "its library was deleted";
            check.findings().of(Remedy::RemoveLibrary(id), &found.dir, what);
        } else if let Some(manifest) = found.manifest {
            // Which libraries there are is not known, but whether their files are whole is.
            open(check, manifest, found.path.as_deref().unwrap_or(&found.dir))?;
        }
    }
    Ok(())
}

/// The catalog knows of a manifest that is not there.
fn missing_manifest(check: &mut Check<'_>, id: LibraryId, least: Seq, found: Option<&Found>) {
    // A damaged one has been reported.
    if found.is_none_or(|found| found.path.is_none() || found.manifest.is_some()) {
        let dir = check.store.library_dir(id);
        let what = format!("it has no manifest at {least} or later, which it had");
        check.findings().of(Remedy::Restore, &dir, what);
    }
}

fn fold(
    check: &mut Check<'_>,
    spec: &LibrarySpec,
    found: Option<Found>,
    records: &[(Seq, Bytes)],
) -> Result<(), EngineError> {
    let dir = check.store.library_dir(spec.id);
    let (mut view, mut path) = (Some(View::empty(spec.dimension)), dir);
    if let Some(found) = found {
        for unnamed in &found.unnamed {
            let remedy = if found.path.is_none() { Remedy::Remove } else { Remedy::Leave };
            check.findings().of(remedy, unnamed, "no manifest names it");
        }
        if let Some(newest) = found.path {
            path = newest;
            view = match found.manifest {
                Some(manifest) => open(check, manifest, &path)?,
                None => None,
            };
        }
    }
    let Some(view) = view else { return Ok(()) };
    if view.dimension() != spec.dimension {
        let (has, should) = (view.dimension(), spec.dimension);
        let what = format!("its vectors have dimension {has}, but the library's {should}");
        check.findings().of(Remedy::Restore, &path, what);
        return Ok(());
    }
    let replayed = records.len() as u64;
    let Some(view) = replay(check, view, records, &path) else { return Ok(()) };
    check.report.libraries.push(LibraryFigures {
        id: spec.id,
        name: spec.name.clone(),
        seq: view.applied(),
        documents: view.documents(),
        chunks: view.chunks(),
        segments: view.all_segments().filter(|part| part.segment().file().is_some()).count() as u64,
        replayed,
        digest: view.digest(),
    });
    Ok(())
}

/// The library that a manifest describes, if all of it is whole.
fn open(
    check: &mut Check<'_>,
    manifest: Manifest,
    path: &Path,
) -> Result<Option<View>, EngineError> {
    let wanted = manifest.all_segments().count();
    let mut files = Vec::with_capacity(wanted);
    for segment in manifest.all_segments() {
        files.extend(open_segment(check, manifest.library, segment.number)?);
    }
    if files.len() < wanted {
        return Ok(None);
    }
    let view = match manifest.open(files) {
        Ok(view) => view,
        Err(error) => {
            check.findings().of(Remedy::Restore, path, error.to_string());
            return Ok(None);
        }
    };
    Ok(verified(check, view, path))
}

/// The view, if it is what it says.
fn verified(check: &mut Check<'_>, view: View, path: &Path) -> Option<View> {
    match view.verify() {
        Ok(()) => Some(view),
        Err(error) => {
            check.findings().of(Remedy::Restore, path, error.to_string());
            None
        }
    }
}

/// A segment, if every byte of it is whole.
fn open_segment(
    check: &mut Check<'_>,
    id: LibraryId,
    number: u64,
) -> Result<Option<FileSegment>, EngineError> {
    let store: &Store = check.store;
    let path = store.segment_path(id, number);
    match store.disk.open(&path, Access::Read) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            check.findings().of(Remedy::Restore, &path, "it is missing");
            return Ok(None);
        }
        other => drop(other.map_err(failed("open", &path))?),
    }
    if check.read_through(&path)? == 0 {
        check.findings().at(Remedy::Restore, &path, 0, "it is empty");
        return Ok(None);
    }
    let bytes = map(&*store.disk, &path).map_err(failed("map", &path))?;
    let segment = match FileSegment::open(number, bytes) {
        Ok(segment) => segment,
        Err(damage) => {
            check.findings().damage(&damage);
            return Ok(None);
        }
    };
    let faults = segment.verify(SEGMENT_FAULTS_MAX);
    for fault in &faults {
        check.findings().damage(fault);
    }
    if faults.is_empty() {
        check_beside(check, &check.store.index_path(id, segment.number()), |bytes| {
            IndexFile::verify(bytes.bytes(), bytes.name(), &segment)
        })?;
        check_beside(check, &check.store.postings_path(id, segment.number()), |bytes| {
            let read = PostingsFile::read(bytes.bytes().to_vec(), bytes.name(), &segment)?;
            Ok(read.err().unwrap_or(BesideState::Whole))
        })?;
    }
    Ok(faults.is_empty().then_some(segment))
}

/// What lies beside a segment, if there is such a file: it is derived, so one that does not hold is
/// removed and made again.
fn check_beside(
    check: &mut Check<'_>,
    path: &Path,
    verify: impl FnOnce(&dyn FileBytes) -> Result<BesideState, Damage>,
) -> Result<(), EngineError> {
    let bytes = match map(&*check.store.disk, path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed("map", path))?,
    };
    check.read_through(path)?;
    let what = match verify(&*bytes) {
        // Not damage: the server makes it again when it needs it.
        Ok(BesideState::Whole | BesideState::Earlier) => return Ok(()),
        Ok(BesideState::Foreign) => "it is of another segment; it is made again".into(),
        Err(damage) => {
            format!("{} at byte {}; it is made again", damage.what, damage.offset)
        }
    };
    check.findings().of(Remedy::Remove, path, what);
    Ok(())
}

/// The view after the log's records, as a start makes it.
fn replay(
    check: &mut Check<'_>,
    mut view: View,
    records: &[(Seq, Bytes)],
    path: &Path,
) -> Option<View> {
    for (seq, payload) in records {
        // It was decoded before: what does not decode has been reported.
        let Ok(entry) = LibraryEntry::decode(payload) else { return None };
        if entry.dimension().is_some_and(|dimension| dimension != view.dimension()) {
            let what = format!("record {seq} has vectors of another dimension than the library");
            check.findings().of(Remedy::Restore, path, what);
            return None;
        }
        let horizon = view.applied();
        let next = view
            .apply(*seq, &entry)
            .and_then(|applied| applied.with_memory_merged(Seq::START, horizon));
        view = match next {
            Ok(next) => next,
            Err(damage) => {
                check.findings().damage(&damage);
                return None;
            }
        };
    }
    if records.is_empty() { Some(view) } else { verified(check, view, path) }
}
