//! Building what libraries are searched by: a structure for each of their segment files, beside it
//! in a file of its own, while the library is read and written.
//!
//! One library at a time, on threads that give way to everything else. Until a structure is built
//! its segment is scanned, or searched by the one it had: results are there at every moment, and
//! only their price changes. A structure that is lost or damaged is built again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use arrwdb_state::{
    CatalogCommand, IndexFile, IndexSpec, LibraryId, LibrarySpec, Segment, SegmentIndex, TenantId,
    View,
};
use tokio::sync::{mpsc, oneshot};

use crate::engine::Inner;
use crate::error::{EngineError, RETRY_AFTER};
use crate::handle::Handle;
use crate::maintenance::blocking;
use crate::request::{IndexChange, IndexOptimized, IndexRebuilt, Written};
use crate::snapshot::Snapshot;

/// Libraries that may wait for their structures. One that finds the queue full is looked at again
/// after its next checkpoint.
const QUEUE_MAX: usize = 1024;

/// A library whose structures are to be as its spec says.
#[derive(Debug)]
pub(crate) struct Request {
    handle: Arc<Handle>,
    reply: Option<oneshot::Sender<Result<(), EngineError>>>,
}

/// The way to the builder.
#[derive(Debug, Clone)]
pub(crate) struct Indexing(mpsc::Sender<Request>);

impl Indexing {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Request>) {
        let (sender, requests) = mpsc::channel(QUEUE_MAX);
        (Self(sender), requests)
    }

    /// Asks for a library's structures, unless that is asked for already.
    pub(crate) fn want(&self, handle: &Arc<Handle>) {
        if !handle.indexing_wanted.swap(true, Ordering::SeqCst) {
            let request = Request { handle: handle.clone(), reply: None };
            if self.0.try_send(request).is_err() {
                handle.indexing_wanted.store(false, Ordering::SeqCst);
            }
        }
    }

    /// Builds a library's structures and waits until that is done.
    pub(crate) async fn build(&self, handle: &Arc<Handle>) -> Result<(), EngineError> {
        let (reply, answer) = oneshot::channel();
        let request = Request { handle: handle.clone(), reply: Some(reply) };
        self.0.try_send(request).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                EngineError::Busy { what: "the queue of index builds", retry_after: RETRY_AFTER }
            }
            mpsc::error::TrySendError::Closed(_) => EngineError::Closed,
        })?;
        answer.await.map_err(|_ended| EngineError::Closed)?
    }
}

/// Works until the engine closes.
pub(crate) async fn run(engine: Arc<Inner>, mut requests: mpsc::Receiver<Request>) {
    let closing = engine.upkeep.closing().clone();
    loop {
        let request = tokio::select! {
            () = closing.begun() => return,
            request = requests.recv() => request,
        };
        let Some(Request { handle, reply }) = request else { return };
        handle.indexing_wanted.store(false, Ordering::SeqCst);
        let outcome = build_wanted(&engine, &handle, reply.is_some()).await;
        if let Err(error) = &outcome
            && handle.check().is_ok()
        {
            tracing::error!(library = %handle.id, %error, "cannot build its index; it is scanned");
        }
        if let Some(reply) = reply {
            // Whoever asked may have left; it is built all the same.
            drop(reply.send(outcome));
        }
    }
}

/// Builds a library's structures. One whose owner waits for them is opened for that: it may have
/// been closed for being idle while others were built.
async fn build_wanted(
    engine: &Arc<Inner>,
    handle: &Arc<Handle>,
    awaited: bool,
) -> Result<(), EngineError> {
    if awaited {
        engine.opened(handle).await?;
    }
    build_library(engine, handle).await
}

/// Builds every structure that is missing or not as the library asks for it. What is written
/// meanwhile is built in another turn, so that no library keeps the builder to itself.
async fn build_library(engine: &Arc<Inner>, handle: &Arc<Handle>) -> Result<(), EngineError> {
    // While this is set the library is not closed for being idle.
    handle.building.store(true, Ordering::SeqCst);
    let outcome = build_segments(engine, handle).await;
    handle.building.store(false, Ordering::SeqCst);
    outcome?;
    if !to_build(engine, handle).is_empty() {
        engine.indexing.want(handle);
    }
    engine.calibrating.want(handle);
    Ok(())
}

async fn build_segments(engine: &Arc<Inner>, handle: &Arc<Handle>) -> Result<(), EngineError> {
    for segment in to_build(engine, handle) {
        let Some(spec) = engine.catalog.load().get(handle.id).cloned() else { break };
        if !holds(handle, &segment) {
            // Merged meanwhile.
            continue;
        }
        let (shared, building, of) = (engine.clone(), handle.clone(), segment.clone());
        let index = blocking(move || build_segment(&shared, &building, &spec, &of)).await?;
        let has_it = handle.set_index(segment.clone(), index).await;
        if !has_it && (holds(handle, &segment) || handle.residence().is_err()) {
            return Err(EngineError::Busy {
                what: "the library, which is being closed,",
                retry_after: RETRY_AFTER,
            });
        }
    }
    Ok(())
}

/// The segment files whose structure is not as the library asks for it; none while it is closed:
/// opening it asks again.
fn to_build(engine: &Inner, handle: &Handle) -> Vec<Arc<Segment>> {
    let Ok(open) = handle.residence() else { return Vec::new() };
    let Some(spec) = engine.catalog.load().get(handle.id).map(|spec| spec.index) else {
        return Vec::new();
    };
    let view = open.view();
    let wanting = view.segments().iter().filter(|view| {
        let large = view.segment().rows() >= engine.config.index_rows_min && !spec.is_plain();
        view.segment().file().is_some()
            && match view.index() {
                Some(index) => !large || !index.spec().builds_as(spec),
                None => large,
            }
    });
    wanting.map(|view| view.segment().clone()).collect()
}

/// Builds and writes one segment's structure; `None` if it shall have none.
fn build_segment(
    engine: &Inner,
    handle: &Handle,
    spec: &LibrarySpec,
    segment: &Arc<Segment>,
) -> Result<Option<Arc<SegmentIndex>>, EngineError> {
    let Some(file) = segment.file() else { return Ok(None) };
    let (id, number) = (handle.id, file.number());
    if spec.index.is_plain() || segment.rows() < engine.config.index_rows_min {
        let _files = handle.index_files.lock();
        engine.store.remove_index(id, number)?;
        return Ok(None);
    }
    let stopped = || engine.upkeep.is_closing() || handle.check().is_err();
    let index = engine.build_pool.install(&stopped, |executor| {
        IndexFile::build(segment, spec.dimension, spec.index, spec.metric, executor)
    });
    let index = index.transpose()?.flatten().ok_or(EngineError::Closed)?;
    // Whoever sweeps a library's files waits: a structure of a segment that is gone is not left.
    let _files = handle.index_files.lock();
    if holds(handle, segment) {
        engine.store.write_index(id, file, &index, spec.metric)?;
    }
    Ok(Some(Arc::new(index)))
}

/// Refuses a structure and a quantisation that do not go together, and an index that vectors of
/// this dimension cannot have.
pub(crate) fn check_index(index: IndexSpec, dimension: u32) -> Result<(), EngineError> {
    IndexSpec::new(index.structure, index.quantization).map_err(|error| EngineError::Invalid {
        field: "/quantization_config".into(),
        detail: error.to_string(),
    })?;
    index.check_dimension(dimension as usize).map_err(|error| EngineError::Invalid {
        field: format!("/index_config/{}", error.name),
        detail: error.to_string(),
    })
}

fn holds(handle: &Handle, segment: &Arc<Segment>) -> bool {
    let Ok(open) = handle.residence() else { return false };
    handle.check().is_ok()
        && open.view().segments().iter().any(|view| Arc::ptr_eq(view.segment(), segment))
}

impl Inner {
    pub(crate) async fn rebuild_index(
        self: &Arc<Self>,
        tenant: TenantId,
        id: LibraryId,
        change: IndexChange,
    ) -> Result<Written<IndexRebuilt>, EngineError> {
        self.check_disk()?;
        let started = Instant::now();
        let spec = self.spec(tenant, id, None).await?;
        let old = spec.index;
        let structure = change.structure.unwrap_or(old.structure);
        let quantization = change.quantization.unwrap_or(old.quantization);
        let new = IndexSpec { structure, quantization };
        check_index(new, spec.dimension)?;
        let seq = if new == old {
            self.snapshot(tenant, id, None).await?.seq
        } else {
            let command = CatalogCommand::ChangeIndex { tenant, id, index: new };
            self.change_catalog(command).await?.seq
        };
        let handle = self.handle(id)?;
        self.opened(&handle).await?;
        self.upkeep.checkpoint_now(&handle).await?;
        self.indexing.build(&handle).await?;
        let chunks = handle.counts().chunks;
        let value = IndexRebuilt { old, new, chunks, took: started.elapsed() };
        Ok(Written { seq, value })
    }

    pub(crate) async fn optimize_index(
        self: &Arc<Self>,
        tenant: TenantId,
        id: LibraryId,
    ) -> Result<IndexOptimized, EngineError> {
        self.check_disk()?;
        let started = Instant::now();
        let before = self.snapshot(tenant, id, None).await?;
        let handle = self.handle(id)?;
        let rewritten = self.upkeep.optimize(&handle).await?;
        self.indexing.build(&handle).await?;
        let after = self.snapshot(tenant, id, None).await?;
        let bytes = |snapshot: &Snapshot| {
            let stats = snapshot.stats();
            stats.memory_bytes + stats.file_bytes
        };
        Ok(IndexOptimized {
            index: after.spec.index,
            rows_dropped: rewritten.rows,
            bytes_freed: bytes(&before).saturating_sub(bytes(&after)),
            took: started.elapsed(),
        })
    }

    /// A view as read from its files, with the structures that lie beside them.
    pub(crate) fn with_indexes(&self, id: LibraryId, view: View) -> View {
        let Some(spec) = self.catalog.load().get(id).cloned() else { return view };
        let mut indexed = view.clone();
        for segment in view.segments() {
            let Some(file) = segment.segment().file() else { continue };
            match self.store.read_index(id, file, spec.metric) {
                Ok(Some(index)) => {
                    let with = indexed.with_index(segment.segment(), Some(Arc::new(index)));
                    indexed = with.unwrap_or(indexed);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(library = %id, %error, "it is scanned until its index is built again");
                }
            }
        }
        indexed
    }

    /// Tells a library whether it has a structure to be built, and asks for it.
    pub(crate) fn want_indexes(&self, handle: &Arc<Handle>) {
        let plain = self.catalog.load().get(handle.id).is_none_or(|spec| spec.index.is_plain());
        handle.indexed.store(!plain, Ordering::Relaxed);
        let leftover = || {
            let open = handle.residence();
            open.is_ok_and(|open| open.view().segments().iter().any(|view| view.index().is_some()))
        };
        if !plain || leftover() {
            self.indexing.want(handle);
        }
    }
}
