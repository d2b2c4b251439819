//! One long history, and the power lost at every sync of it.
//!
//! The history runs once. Before each sync the disk is asked what a power loss in this moment would
//! leave; each picture is opened by an engine of its own on another thread, and compared with the
//! states that are possible in that moment: everything acknowledged before it, and of the rest a
//! beginning.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use arrwdb_engine::log::memory::{MemoryDisk, NameOrder};
use arrwdb_engine::{Engine, EngineConfig, EngineError};

use crate::check::{Failure, TENANT, compare};
use crate::history::Step;
use crate::model::{DOCUMENTS, Documents, Library, Model, document, id, new_library};
use crate::world::{self, Seeded, World, config};
use crate::writes;

/// Pictures that wait to be looked at; the history waits for them.
const PICTURES_MAX: usize = 16;
const LIBRARIES: u64 = 2;

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moments {
    /// Writes of the history.
    pub operations: u64,
    /// Syncs of files and directories.
    pub syncs: u64,
    /// Pictures opened and compared.
    pub crashes: u64,
}

/// What is left in a moment.
struct Picture {
    sync: u64,
    kind: &'static str,
    disk: MemoryDisk,
    /// Writes acknowledged before.
    least: usize,
    /// Writes begun before.
    most: usize,
}

/// Runs a history of `operations` writes with checkpoints and merges, and looks at every
/// `stride`-th sync in five ways: nothing unsynced kept, everything kept, two random choices of it,
/// and the end of the process alone. `stride` 1 is every sync.
pub fn every_sync(seed: u64, operations: u64, stride: u64) -> Result<Moments, String> {
    let settings = EngineConfig { log_file_bytes: 16 << 10, ..config() };
    let (pictures, to_look_at) = mpsc::sync_channel(PICTURES_MAX);
    let (models, known) = mpsc::channel();
    let looking = {
        let settings = settings.clone();
        thread::spawn(move || look(seed, &settings, &to_look_at, &known))
    };
    let steps = steps(seed, operations);
    let ran = world::run(async {
        let (disk, world) = (MemoryDisk::new(), World::new(seed, settings));
        live(&world, &disk, &steps, (seed, stride), (pictures, models)).await
    });
    let looked = looking.join().map_err(|_panic| "looking at a picture panicked".to_owned())?;
    let crashes = looked?;
    let syncs = ran.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    Ok(Moments { operations, syncs, crashes })
}

fn steps(seed: u64, operations: u64) -> Vec<Step> {
    let random = Seeded::new(seed);
    let steps = (1..=operations).map(|version| {
        let slot = random.below(LIBRARIES);
        let mut documents: Vec<u64> =
            (0..=random.below(3)).map(|_| random.below(DOCUMENTS)).collect();
        documents.sort_unstable();
        documents.dedup();
        if random.one_in(4) {
            Step::Delete { slot, documents }
        } else {
            Step::Put { slot, documents, version }
        }
    });
    steps.collect()
}

/// Does the steps one after the other; how many syncs there were.
async fn live(
    world: &World,
    disk: &MemoryDisk,
    steps: &[Step],
    (seed, stride): (u64, u64),
    (pictures, models): (mpsc::SyncSender<Picture>, mpsc::Sender<Vec<Model>>),
) -> Result<u64, Failure> {
    let engine = world.open(disk).await?;
    let mut model = Model::default();
    for slot in 0..LIBRARIES {
        let created = engine.create_library(TENANT, new_library(slot, slot)).await?.value;
        let library = Library { id: created.id, name: created.name, documents: Documents::new() };
        model.libraries.insert(slot, library);
    }
    let mut states = vec![model.clone()];
    for step in steps {
        if let Step::Put { slot, .. } | Step::Delete { slot, .. } = step
            && let Some(library) = model.libraries.get_mut(slot)
        {
            writes::apply(library, step);
        }
        states.push(model.clone());
    }
    // Whoever looks may have gone with an error, which is told by its thread.
    drop(models.send(states.clone()));
    let (begun, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let syncs = Arc::new(AtomicU64::new(0));
    let take = {
        let (disk, begun, done, syncs) = (disk.clone(), begun.clone(), done.clone(), syncs.clone());
        move || {
            let sync = syncs.fetch_add(1, Ordering::SeqCst);
            if sync % stride == 0 {
                let least = index(&done);
                let disks = left(&disk, seed ^ sync.wrapping_mul(0x1_0000_0001));
                let most = index(&begun);
                for (kind, disk) in disks {
                    drop(pictures.send(Picture { sync, kind, disk, least, most }));
                }
            }
        }
    };
    disk.before_sync(take);
    let written = write(&engine, &states[0], steps, (&begun, &done)).await;
    let closed = engine.close().await;
    // The hook holds the disk, and the disk the hook.
    disk.before_sync(|| {});
    written?;
    closed?;
    Ok(syncs.load(Ordering::SeqCst))
}

async fn write(
    engine: &Engine,
    model: &Model,
    steps: &[Step],
    (begun, done): (&AtomicU64, &AtomicU64),
) -> Result<(), Failure> {
    for step in steps {
        begun.fetch_add(1, Ordering::SeqCst);
        // A checkpoint stands still while its sync is looked at, and writes fill its backlog.
        while let Err(error) = write_one(engine, model, step).await {
            let EngineError::Busy { retry_after, .. } = error else { return Err(error.into()) };
            world::pass(retry_after).await;
        }
        done.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

async fn write_one(engine: &Engine, model: &Model, step: &Step) -> Result<(), EngineError> {
    match step {
        Step::Put { slot, documents, version } => {
            let batch = documents.iter().map(|n| document(*slot, *n, *version)).collect();
            engine.put_documents(TENANT, model.libraries[slot].id, batch).await?;
        }
        Step::Delete { slot, documents } => {
            let ids = documents.iter().map(|n| id(*n)).collect();
            engine.delete_documents(TENANT, model.libraries[slot].id, ids).await?;
        }
        _ => {}
    }
    Ok(())
}

fn index(count: &AtomicU64) -> usize {
    usize::try_from(count.load(Ordering::SeqCst)).unwrap_or(usize::MAX)
}

/// What the moment leaves, in each way.
fn left(disk: &MemoryDisk, seed: u64) -> [(&'static str, MemoryDisk); 5] {
    let random = Seeded::new(seed);
    [
        ("nothing unsynced kept", disk.crash(|| false)),
        ("everything kept", disk.crash(|| true)),
        ("some sectors and names kept", disk.crash(|| random.one_in(2))),
        (
            "some sectors and names kept, names in any order",
            disk.crash_with(NameOrder::Any, || random.one_in(2)),
        ),
        ("the process killed", disk.kill()),
    ]
}

/// Opens picture after picture; how many.
fn look(
    seed: u64,
    settings: &EngineConfig,
    pictures: &mpsc::Receiver<Picture>,
    models: &mpsc::Receiver<Vec<Model>>,
) -> Result<u64, String> {
    let Ok(models) = models.recv() else { return Ok(0) };
    let mut looked = 0;
    while let Ok(picture) = pictures.recv() {
        let Picture { sync, kind, disk, least, most } = picture;
        let possible = &models[least..=most.min(models.len() - 1)];
        let world = World::new(seed, settings.clone());
        let found = world::run(is_one_of(&world, &disk, possible));
        let found = found.map_err(|error| error.to_string())?;
        if let Err(failure) = found {
            return Err(format!(
                "at sync {sync}, {kind}, after {least} to {most} writes: {failure}"
            ));
        }
        looked += 1;
    }
    Ok(looked)
}

async fn is_one_of(world: &World, disk: &MemoryDisk, possible: &[Model]) -> Result<(), Failure> {
    let engine = world.open(disk).await?;
    let mut outcome = Ok(());
    for model in possible {
        outcome = compare(&engine, model).await.map(|_digests| ());
        if outcome.is_ok() {
            break;
        }
    }
    let closed = engine.close().await;
    outcome?;
    Ok(closed?)
}
