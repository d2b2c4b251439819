//! Opening a data directory: lock, version, catalog, manifests, and the log after them.
//!
//! What is damaged is refused by file and offset; nothing is ever opened emptier or older than
//! what was acknowledged.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Instant;

use arc_swap::ArcSwap;
use arrwdb_log::disk::Disk;
use arrwdb_log::{DirLock, FileLog, Log, LogOptions, Record, Stream, lock};
use arrwdb_state::{
    Catalog, CatalogEntry, LibraryEntry, LibraryId, Seq, Snapshot, View, Work, WorkEntry,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use crate::building::{self, Builder};
use crate::calibrating::{self, Calibrating};
use crate::catalog;
use crate::config::{EngineConfig, EngineParts};
use crate::costs::{self, Ledger};
use crate::embedding_times::EmbeddingTimes;
use crate::engine::{Engine, Inner, OPEN_REPORT, Tasks, write_room_kib};
use crate::error::EngineError;
use crate::generations::Carrying;
use crate::handle::{Counts, Handle, Handles};
use crate::held::Held;
use crate::history::Samples;
use crate::maintenance::{self, Upkeep};
use crate::memory::Gauges;
use crate::patch::DocumentTurns;
use crate::pool::{BuildPool, Pool};
use crate::residence::OPENING_MAX;
use crate::store::{KeptPostings, Store, damaged};
use crate::unapplied::Unapplied;
use crate::work;

/// What `VERSION` says.
pub(crate) const FORMAT: &str = "arrwdb data directory, format 1\n";

/// Threads that match passages against standing queries.
const MATCH_THREADS: usize = 1;

/// What was found on disk.
struct Recovered {
    lock: DirLock,
    store: Store,
    log: FileLog,
    catalog: Catalog,
    work: Work,
    covered: Seq,
    libraries: BTreeMap<LibraryId, Found>,
    /// What died up to here need not be kept.
    horizon: Seq,
    samples: Samples,
}

/// A library as it was found.
struct Found {
    dimension: u32,
    /// What its manifest says.
    counts: Counts,
    /// The manifest's files with the log after them applied, if the log has more of it.
    replayed: Option<View>,
}

pub(crate) async fn open(config: EngineConfig, parts: EngineParts) -> Result<Engine, EngineError> {
    // It reads much; tasks that it starts run where it is awaited.
    let opened = tokio::task::spawn_blocking(move || {
        let recovered = recover(&config, &parts)?;
        start(config, parts, recovered)
    });
    opened.await.map_err(|error| EngineError::Storage { detail: error.to_string() })?
}

/// How far the log is durable, from now on.
fn advances(log: &impl Log) -> watch::Receiver<u64> {
    let (advance, advanced) = watch::channel(log.durable());
    log.on_advance(Box::new(move |durable| {
        advance.send_replace(durable);
    }));
    advanced
}

fn start(
    config: EngineConfig,
    parts: EngineParts,
    recovered: Recovered,
) -> Result<Engine, EngineError> {
    let Recovered { lock, store, log, catalog, work, covered, libraries, horizon, samples } =
        recovered;
    let advanced = advances(&log);
    let (upkeep, tasks) = Upkeep::new(horizon);
    let (builder, builds) = Builder::new();
    let (calibrating, measurements) = Calibrating::new();
    let (catalog_writer, requests) = catalog::channel();
    let (work, wishes) = work::Published::new(work);
    let write_room_kib = write_room_kib(config.memory_budget_bytes);
    let held = Held::from(held_from(&catalog, &libraries, Seq::new(log.durable())));
    let inner = Arc::new(Inner {
        held,
        match_pool: Pool::low(MATCH_THREADS)?,
        pool: Pool::new(config.search_threads)?,
        build_pool: BuildPool::new(config.build_threads)?,
        builder,
        calibrating,
        search_permits: Arc::new(Semaphore::new(config.search_queue_max.max(1))),
        config,
        parts,
        store,
        log: Arc::new(log),
        catalog: ArcSwap::from_pointee(catalog),
        work,
        catalog_unapplied: Unapplied::nothing(),
        catalog_progress: Notify::new(),
        handles: ArcSwap::default(),
        gauges: Gauges::default(),
        opening: Arc::new(Semaphore::new(OPENING_MAX as usize)),
        writers: Tasks::default(),
        catalog_task: Tasks::default(),
        upkeep,
        covered: AtomicU64::new(covered.get()),
        last_snapshot: Mutex::default(),
        advanced,
        write_room: Arc::new(Semaphore::new(write_room_kib as usize)),
        write_room_kib,
        catalog_writer: Mutex::new(Some(catalog_writer)),
        disk_free_bytes: AtomicU64::new(0),
        disk_full: AtomicBool::new(false),
        scrubbed: Mutex::default(),
        lock: Mutex::new(Some(lock)),
        embedding_times: EmbeddingTimes::default(),
        carrying: Carrying::default(),
        changing: DocumentTurns::default(),
        ledger: Ledger::default(),
        ledger_task: Tasks::default(),
    });
    inner.look_at_disk();
    inner.take_libraries(libraries, covered);
    for (lane, requests) in builds {
        inner.writers.spawn(building::run(inner.clone(), lane, requests));
    }
    inner.writers.spawn(calibrating::run(inner.clone(), measurements));
    spawn(&inner, (samples, tasks), requests);
    inner.catalog_task.spawn(work::run(inner.clone(), wishes));
    inner.ledger_task.spawn(costs::run(inner.clone()));
    Ok(Engine(inner))
}

impl Inner {
    /// Makes the libraries that were found reachable; those of which the log had more are open.
    fn take_libraries(self: &Arc<Self>, libraries: BTreeMap<LibraryId, Found>, covered: Seq) {
        let mut handles = Handles::new();
        for (id, found) in libraries {
            // The snapshot's word: what it covers is in manifests.
            let handle = Arc::new(Handle::closed(id, found.counts, covered, &self.gauges));
            self.take_turn(&handle);
            if let Some(view) = found.replayed {
                self.start_writer(&handle, self.with_indexes(id, view));
                self.want_indexes(&handle);
            }
            handles.insert(id, handle);
        }
        self.handles.store(Arc::new(handles));
    }
}

/// Up to where passages are matched against standing queries, if there are any: the log after that
/// is kept for the matcher.
fn held_from(
    catalog: &Catalog,
    libraries: &BTreeMap<LibraryId, Found>,
    durable: Seq,
) -> Option<Seq> {
    let counts = |id: LibraryId| {
        let found = libraries.get(&id)?;
        Some(found.replayed.as_ref().map_or(found.counts, Counts::of))
    };
    let held = |library: LibraryId| {
        let matched = counts(library.companion())?.matched.whole();
        (counts(library)?.applied > matched).then_some(matched)
    };
    let watched = || catalog.iter().filter_map(|spec| spec.companion_of);
    watched().next()?;
    Some(watched().filter_map(held).fold(durable, Seq::min))
}

fn spawn(
    inner: &Arc<Inner>,
    (samples, tasks): (Samples, mpsc::Receiver<maintenance::Task>),
    requests: mpsc::Receiver<catalog::Request>,
) {
    inner.writers.spawn(maintenance::run(inner.clone(), samples, tasks));
    inner.catalog_task.spawn(catalog::run(inner.clone(), requests));
}

fn recover(config: &EngineConfig, parts: &EngineParts) -> Result<Recovered, EngineError> {
    let kept = KeptPostings {
        rows_min: config.index_rows_min,
        free_bytes_min: config.disk_free_bytes_min,
    };
    let store = Store::new(parts.disk.clone(), config.data_dir.clone(), Some(kept));
    let root = &store.root;
    store.disk.create_dir_all(root).map_err(crate::store::failed("create", root))?;
    let lock = lock(&*store.disk, &root.join("LOCK"))?;
    check_version(&store)?;
    for dir in [store.log_dir(), store.catalog_dir(), store.libraries_dir()] {
        store.make_dir(&dir)?;
    }
    let (Snapshot { catalog, checkpointed, work }, covered) = read_catalog(&store)?;
    check_log_is_there(&store, covered)?;
    let mut salt = [0; 8];
    parts.random.fill(&mut salt);
    let options = LogOptions {
        start_after: covered.get(),
        salt: u64::from_le_bytes(salt),
        file_bytes: config.log_file_bytes,
        ahead_bytes: LogOptions::default().ahead_bytes.min(config.log_file_bytes),
        ..LogOptions::default()
    };
    let (log, recovery) = FileLog::open(store.disk.clone(), &store.log_dir(), options)?;
    if let Some(torn) = &recovery.torn_tail {
        tracing::warn!(
            file = %torn.file.display(), offset = torn.offset, bytes = torn.bytes_cut,
            "cut the unfinished end of the log: none of it was acknowledged"
        );
    }
    if recovery.first > covered.get() + 1 {
        return Err(store.missing(&format!(
            "the log in {} begins at {} but the catalog's snapshot ends at {covered}",
            store.log_dir().display(),
            recovery.first
        )));
    }
    // What the snapshot covers was in the log. Followers must not be led over a hole.
    if recovery.written < covered.get() {
        return Err(store.missing(&format!(
            "the log in {} ends at {} but the catalog's snapshot is of {covered}",
            store.log_dir().display(),
            recovery.written
        )));
    }
    let catalog = replay_catalog(&log, catalog, covered)?;
    let work = replay_work(&log, work, covered)?;
    let mut libraries = find_libraries(&store, &catalog, &checkpointed)?;
    check_log_reaches(&store, &log)?;
    let (horizon, samples) = Samples::of_log(&log, config, parts.clock.now());
    replay((&store, &log), &mut libraries, covered, horizon)?;
    remove_orphans(&store, &catalog)?;
    Ok(Recovered { lock, store, log, catalog, work, covered, libraries, horizon, samples })
}

/// The log has at least one file from the first start on: where there is none, acknowledged
/// records may have gone with it.
fn check_log_is_there(store: &Store, covered: Seq) -> Result<(), EngineError> {
    let dir = store.log_dir();
    let used = covered > Seq::START || !store.names(&store.libraries_dir())?.is_empty();
    if !used || store.names(&dir)?.iter().any(|name| name.strip_suffix(".log").is_some()) {
        return Ok(());
    }
    Err(store.missing(&format!("{} has no log, but there is data beside it", dir.display())))
}

/// A manifest holds durable records only; one that is ahead of the log means that the log's end
/// is missing, and new records would get numbers that were given before. (Up to the catalog's
/// snapshot nothing is needed from the log, which goes on after it in any case.)
fn check_log_reaches(store: &Store, log: &FileLog) -> Result<(), EngineError> {
    let durable = Seq::new(log.durable());
    let mut written = Seq::START;
    // All directories: a library may be missing in the catalog because its creation is among what
    // the log lost, and would be taken for a deleted one.
    for name in store.names(&store.libraries_dir())? {
        if let Ok(id) = name.parse::<LibraryId>() {
            written = written.max(store.manifest_number(id)?.map_or(Seq::START, Seq::new));
        }
    }
    if written <= durable {
        return Ok(());
    }
    Err(store.missing(&format!(
        "the log in {} ends at {durable} but a manifest is of {written}",
        store.log_dir().display()
    )))
}

fn check_version(store: &Store) -> Result<(), EngineError> {
    let path = store.root.join("VERSION");
    let names = store.names(&store.root)?;
    if names.iter().any(|name| name == "VERSION") {
        let found = store.read(&path)?;
        if found == FORMAT.as_bytes() {
            return Ok(());
        }
        let found = String::from_utf8_lossy(&found).trim().to_owned();
        return Err(EngineError::Damaged {
            detail: format!("{} says {found:?}, which this build does not know", path.display()),
        });
    }
    // Never take over a directory that holds data without saying what it is.
    if names.iter().any(|name| name == "log" || name == "libraries" || name == "catalog") {
        return Err(EngineError::Damaged {
            detail: format!("{} is missing, but there is data beside it", path.display()),
        });
    }
    sync_above(&*store.disk, &store.root)?;
    store.write(&path, FORMAT.as_bytes())
}

/// Makes the names of a new data directory and those above it durable: everything in it would be
/// lost with them.
fn sync_above(disk: &dyn Disk, root: &Path) -> Result<(), EngineError> {
    for dir in root.ancestors().skip(1) {
        match disk.sync_dir(dir) {
            // A directory that may be passed through but not read was there before.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            other => other.map_err(crate::store::failed("sync", dir))?,
        }
    }
    Ok(())
}

/// The catalog's snapshot on disk, and what it covers.
fn read_catalog(store: &Store) -> Result<(Snapshot, Seq), EngineError> {
    match store.read_catalog()? {
        None => Ok((Snapshot::default(), Seq::START)),
        Some((path, bytes, covered)) => {
            let snapshot = Snapshot::read(&bytes).map_err(|error| damaged(&path, &error))?;
            Ok((snapshot, covered))
        }
    }
}

fn replay_work(log: &FileLog, mut work: Work, covered: Seq) -> Result<Work, EngineError> {
    for record in log.read_stream(Stream::WORK, covered.get())? {
        let record = record?;
        if record.seq > work.applied().get() {
            let entry = WorkEntry::decode(&record.payload)
                .map_err(|error| undecodable(record.seq, &error))?;
            work.apply(Seq::new(record.seq), &entry);
        }
    }
    Ok(work)
}

fn replay_catalog(log: &FileLog, catalog: Catalog, covered: Seq) -> Result<Catalog, EngineError> {
    let mut catalog = catalog;
    for record in log.read_stream(Stream::CATALOG, covered.get())? {
        let record = record?;
        if record.seq > catalog.applied().get() {
            let entry = CatalogEntry::decode(&record.payload)
                .map_err(|error| undecodable(record.seq, &error))?;
            catalog = catalog.apply(Seq::new(record.seq), &entry);
        }
    }
    Ok(catalog)
}

/// Reads every library's newest manifest. Its files are opened when the log has more of it, else
/// on first use.
fn find_libraries(
    store: &Store,
    catalog: &Catalog,
    checkpointed: &BTreeMap<LibraryId, Seq>,
) -> Result<BTreeMap<LibraryId, Found>, EngineError> {
    let mut libraries = BTreeMap::new();
    for spec in catalog.iter() {
        let manifest = store.read_manifest(spec.id)?;
        let counts = manifest.map_or(Counts::nothing(), |manifest| Counts {
            applied: manifest.applied,
            documents: manifest.totals().documents,
            chunks: manifest.totals().chunks,
            matched: manifest.matched,
        });
        let least = checkpointed.get(&spec.id).copied().unwrap_or(Seq::START);
        if counts.applied < least {
            return Err(store.no_manifest(spec.id, least));
        }
        // Up to `least` the snapshot vouches that the manifest's name was synced.
        if counts.applied > least {
            store.settle(&store.library_dir(spec.id))?;
        }
        let dimension = spec.dimension;
        libraries.insert(spec.id, Found { dimension, counts, replayed: None });
    }
    Ok(libraries)
}

/// Applies what the log has beyond each library's manifest. Records of libraries that are not in
/// the catalog (deleted) mean nothing. What died by `horizon` is dropped at once.
fn replay(
    (store, log): (&Store, &FileLog),
    libraries: &mut BTreeMap<LibraryId, Found>,
    covered: Seq,
    horizon: Seq,
) -> Result<(), EngineError> {
    let started = Instant::now();
    let (mut records, mut reported) = (0_u64, Instant::now());
    for record in log.read(covered.get())? {
        let record = record?;
        let id = LibraryId::from_bytes(record.stream.0);
        let Some(library) = libraries.get_mut(&id) else {
            continue;
        };
        if record.seq > library.counts.applied.get() {
            let view = if let Some(view) = library.replayed.take() {
                view
            } else {
                store.open_library(id, library.dimension)?
            };
            library.replayed = Some(apply(&view, &record, horizon)?);
            records += 1;
        }
        if reported.elapsed() > OPEN_REPORT {
            reported = Instant::now();
            tracing::info!(records, seq = record.seq, "replaying the log");
        }
    }
    if records > 0 {
        let seconds = started.elapsed().as_secs_f64();
        tracing::info!(records, seconds, "replayed the log");
    }
    Ok(())
}

fn apply(view: &View, record: &Record, horizon: Seq) -> Result<View, EngineError> {
    let entry =
        LibraryEntry::decode(&record.payload).map_err(|error| undecodable(record.seq, &error))?;
    Ok(view.apply(Seq::new(record.seq), &entry)?.with_memory_merged(Seq::START, horizon)?)
}

pub(crate) fn remove_orphans(store: &Store, catalog: &Catalog) -> Result<(), EngineError> {
    for name in store.names(&store.libraries_dir())? {
        match name.parse::<LibraryId>() {
            Ok(id) if catalog.get(id).is_none() => {
                tracing::info!(library = %id, "removing the files of a deleted library");
                store.remove_library(id)?;
            }
            Ok(_) => {}
            Err(_not_ours) => {
                let path = store.libraries_dir().join(&name);
                tracing::warn!(path = %Path::new(&path).display(), "not a library; left alone");
            }
        }
    }
    Ok(())
}

fn undecodable(seq: u64, error: &arrwdb_state::DecodeError) -> EngineError {
    EngineError::Damaged {
        detail: format!(
            "record {seq} of the log does not decode ({error}): it was written by a newer release"
        ),
    }
}
