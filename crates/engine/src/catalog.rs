//! The catalog's only writer, and the opening and closing of libraries that follows from it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrwdb_log::{LogError, Stream};
use arrwdb_state::{
    Catalog, CatalogCommand, CatalogEntry, CatalogRejection, LibraryId, LibrarySpec, Seq,
};
use tokio::sync::{mpsc, oneshot};

use crate::engine::Inner;
use crate::error::{EngineError, RETRY_AFTER};
use crate::handle::{Counts, Handle};
use crate::request::Written;

/// Requests that may wait for the catalog's writer.
const QUEUE_MAX: usize = 1024;

/// A change of the catalog that somebody waits for.
#[derive(Debug)]
pub(crate) struct Request {
    command: CatalogCommand,
    /// Told the library as it is afterwards; as it was, if it was deleted; none if it is about none.
    reply: oneshot::Sender<Result<Written<Option<Arc<LibrarySpec>>>, EngineError>>,
}

/// The way to the catalog's writer.
pub(crate) type Sender = mpsc::Sender<Request>;

pub(crate) fn channel() -> (Sender, mpsc::Receiver<Request>) {
    mpsc::channel(QUEUE_MAX)
}

/// Hands a command to the catalog's writer and waits until it is durable and published.
pub(crate) async fn change(
    sender: Sender,
    command: CatalogCommand,
) -> Result<Written<Option<Arc<LibrarySpec>>>, EngineError> {
    let (reply, answer) = oneshot::channel();
    sender.try_send(Request { command, reply }).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => {
            EngineError::Busy { what: "the catalog's write queue", retry_after: RETRY_AFTER }
        }
        mpsc::error::TrySendError::Closed(_) => EngineError::Closed,
    })?;
    // The writer ends when nobody can ask it any more; who only waits does not hold it up.
    drop(sender);
    answer.await.map_err(|_writer_gone| EngineError::Closed)?
}

/// Works until every sender is gone.
pub(crate) async fn run(engine: Arc<Inner>, mut requests: mpsc::Receiver<Request>) {
    while let Some(Request { command, reply }) = requests.recv().await {
        // A caller who left has its change all the same.
        drop(reply.send(apply(&engine, command).await));
    }
}

async fn apply(
    engine: &Arc<Inner>,
    command: CatalogCommand,
) -> Result<Written<Option<Arc<LibrarySpec>>>, EngineError> {
    let catalog = engine.catalog.load_full();
    let entry = catalog.decide(command, engine.parts.clock.now()).map_err(refused)?;
    let (sender, durable) = oneshot::channel();
    let done = Box::new(move |outcome| drop(sender.send(outcome)));
    engine.catalog_unapplied.begin(engine.log.last_assigned());
    let appended = match engine.log.append(Stream::CATALOG, vec![entry.encode()], done) {
        Ok(_assigned) => durable.await.unwrap_or(Err(LogError::Closed)),
        Err(error) => Err(error),
    };
    let seq = Seq::new(appended.inspect_err(|_failed| engine.catalog_unapplied.advance(None))?);
    let next = Catalog::clone(&catalog).apply(seq, &entry);
    let of = |catalog: &Catalog, id| catalog.library(id).or_else(|| catalog.get(id)).cloned();
    let value = subject(&entry).and_then(|id| of(&next, id).or_else(|| of(&catalog, id)));
    publish(engine, next);
    match &entry {
        CatalogEntry::LibraryCreated(spec) => {
            engine.add_library(spec.id, seq);
        }
        CatalogEntry::IndexChanged { id, .. } => {
            for handle in engine.generations_of(*id) {
                engine.want_indexes(&handle);
            }
        }
        CatalogEntry::GenerationActivated { id, .. } => engine.take_turns(*id),
        CatalogEntry::LibraryUpdated { .. }
        | CatalogEntry::IndexBuilt { .. }
        | CatalogEntry::GenerationPrepared { .. }
        | CatalogEntry::Purged { .. } => {}
        CatalogEntry::LibraryDeleted { .. } | CatalogEntry::GenerationDiscarded { .. } => {
            for id in catalog.removed_by(&entry) {
                close(engine, id);
            }
            if let CatalogEntry::LibraryDeleted { id, .. } = entry {
                engine.carrying.forget(id);
                engine.work.libraries_deleted.send_replace(());
            }
        }
    }
    // Only now is it done: whoever is told of a library finds it.
    engine.catalog_unapplied.advance(None);
    engine.catalog_progress.notify_waiters();
    Ok(Written { seq, value })
}

fn publish(engine: &Inner, catalog: Catalog) {
    assert!(catalog.applied() > engine.catalog.load().applied(), "N2: published only advances");
    engine.catalog.store(Arc::new(catalog));
}

fn close(engine: &Inner, id: LibraryId) {
    let mut handles = engine.handles.load_full();
    let removed = Arc::make_mut(&mut handles).remove(&id);
    if let Some(handle) = &removed {
        handle.deleted.store(true, Ordering::SeqCst);
        handle.shut();
    }
    engine.handles.store(handles);
    if let Some(handle) = removed {
        engine.upkeep.remove_library(handle);
    }
}

impl Inner {
    /// Makes the library that was created at `seq` reachable; it is opened on first use, as all
    /// are. Only the catalog's writer does this.
    fn add_library(&self, id: LibraryId, seq: Seq) {
        let handle = Arc::new(Handle::closed(id, Counts::nothing(), seq, &self.gauges));
        self.take_turn(&handle);
        let mut handles = self.handles.load_full();
        Arc::make_mut(&mut handles).insert(id, handle);
        self.handles.store(handles);
    }
}

fn subject(entry: &CatalogEntry) -> Option<LibraryId> {
    match entry {
        CatalogEntry::LibraryCreated(spec) => Some(spec.id),
        CatalogEntry::LibraryUpdated { id, .. }
        | CatalogEntry::LibraryDeleted { id, .. }
        | CatalogEntry::IndexChanged { id, .. }
        | CatalogEntry::IndexBuilt { id, .. }
        | CatalogEntry::GenerationPrepared { id, .. }
        | CatalogEntry::GenerationActivated { id, .. }
        | CatalogEntry::GenerationDiscarded { id, .. } => Some(*id),
        CatalogEntry::Purged { .. } => None,
    }
}

pub(crate) fn refused(rejection: CatalogRejection) -> EngineError {
    match rejection {
        CatalogRejection::NotFound(id) => EngineError::LibraryNotFound(id),
        CatalogRejection::Exists(id) => EngineError::LibraryExists(id),
        CatalogRejection::Full => EngineError::TooManyLibraries(rejection.to_string()),
        CatalogRejection::Generation(detail) => EngineError::Generation(detail.into()),
    }
}
