//! The engine's front door.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use arrwdb_embed::{EmbedStatus, Embedder, ModelRequest, Reranker};
use arrwdb_log::{DirLock, Log, LogStats};
use arrwdb_state::limits::{DIMENSIONS_MAX, LIBRARY_DESCRIPTION_CHARS_MAX};
use arrwdb_state::{
    BatchId, BatchNote, BudgetScope, Catalog, CatalogCommand, ChunkId, DocumentId, FieldSpec,
    Generations, LibraryId, LibrarySpec, ModelName, Seq, TenantId, WorkCommand, check_library_name,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};

use crate::apart::Blame;
use crate::building::Builder;
use crate::calibrating::Calibrating;
use crate::catalog::{self, change};
use crate::config::{EngineConfig, EngineParts};
use crate::costs::Ledger;
use crate::embedding_times::EmbeddingTimes;
use crate::error::EngineError;
use crate::fields::NewVector;
use crate::generations::Carrying;
use crate::handle::{Counts, Handle, Handles};
use crate::held::Held;
use crate::indexing::check_index;
use crate::locate::Owners;
use crate::maintenance::{LastSnapshot, Upkeep};
use crate::memory::Gauges;
use crate::moment::{self, Moment};
use crate::patch::DocumentTurns;
use crate::pool::{BuildPool, Pool};
use crate::purge::PurgeReceipt;
use crate::put::Outcomes;
use crate::request::{
    IndexChange, IndexOptimized, IndexRebuilt, LibraryOverview, LibraryPatch, NewField, NewLibrary,
    PutDocument, SearchAnswer, SearchRequest, Written,
};
use crate::scrub::ScrubReport;
use crate::snapshot::Snapshot;
use crate::standing::of_library;
use crate::store::Store;
use crate::system::new_uuid;
use crate::unapplied::Unapplied;
use crate::work;

/// A running engine. Cheap to clone; all clones are one engine.
#[derive(Debug, Clone)]
pub struct Engine(pub(crate) Arc<Inner>);

/// Whether the parts of the engine do their work.
#[derive(Debug, Clone)]
pub struct Health {
    /// The log takes writes; else why not.
    pub log: Result<(), String>,
    /// The data directory can be written to; else why not.
    pub data_dir: Result<(), String>,
    /// The default embedding model: whether it is ready, and a note.
    pub embedding: EmbedStatus,
    /// Bytes free on the data directory's disk, as last looked at.
    pub disk_free_bytes: u64,
    /// Highest sequence number on disk.
    pub durable: Seq,
    /// Libraries of all tenants.
    pub libraries: u64,
    /// Those of them that are open: used lately, or not yet in files whole.
    pub libraries_open: u64,
    /// Live documents of all libraries.
    pub documents: u64,
    /// Live chunks of all libraries.
    pub chunks: u64,
    /// Bytes that open libraries hold in memory.
    pub memory_bytes: u64,
    /// Bytes of that which are search structures.
    pub index_bytes: u64,
    /// Bytes that they may hold.
    pub memory_budget_bytes: u64,
    /// Log figures.
    pub log_stats: LogStats,
    /// What the background scrub has read through and found.
    pub scrub: ScrubReport,
}

/// Everything the engine's tasks share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: EngineConfig,
    pub(crate) parts: EngineParts,
    pub(crate) store: Store,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) pool: Pool,
    pub(crate) catalog: ArcSwap<Catalog>,
    pub(crate) catalog_unapplied: Unapplied,
    /// Told of every record of the catalog that is published and done.
    pub(crate) catalog_progress: Notify,
    /// Jobs and webhooks.
    pub(crate) work: work::Published,
    pub(crate) handles: ArcSwap<Handles>,
    pub(crate) gauges: Gauges,
    /// A permit for each library whose files are being opened.
    pub(crate) opening: Arc<Semaphore>,
    /// The libraries' writers, and the upkeep.
    pub(crate) writers: Tasks,
    /// The writers of the catalog and of work.
    pub(crate) catalog_task: Tasks,
    pub(crate) upkeep: Upkeep,
    pub(crate) builder: Builder,
    pub(crate) calibrating: Calibrating,
    pub(crate) build_pool: BuildPool,
    /// Where passages are matched against standing queries.
    pub(crate) match_pool: Pool,
    /// What of the log is kept for that.
    pub(crate) held: Held,
    /// Up to here every record is in manifests and the catalog's snapshot on disk.
    pub(crate) covered: AtomicU64,
    /// The catalog snapshot that was written last in this process.
    pub(crate) last_snapshot: Mutex<LastSnapshot>,
    pub(crate) search_permits: Arc<Semaphore>,
    /// A permit for each KiB of documents that wait to be durable.
    pub(crate) write_room: Arc<Semaphore>,
    pub(crate) write_room_kib: u32,
    pub(crate) advanced: watch::Receiver<u64>,
    pub(crate) catalog_writer: Mutex<Option<catalog::Sender>>,
    pub(crate) disk_free_bytes: AtomicU64,
    pub(crate) disk_full: AtomicBool,
    pub(crate) scrubbed: Mutex<ScrubReport>,
    pub(crate) lock: Mutex<Option<DirLock>>,
    pub(crate) embedding_times: EmbeddingTimes,
    /// What is carried from active generations to others.
    pub(crate) carrying: Carrying,
    /// Who may change a document now.
    pub(crate) changing: DocumentTurns,
    /// What embedding cost lately.
    pub(crate) ledger: Ledger,
    /// What records that.
    pub(crate) ledger_task: Tasks,
}

/// Tasks that are waited for when the engine closes.
#[derive(Debug, Default)]
pub(crate) struct Tasks(Mutex<tokio::task::JoinSet<()>>);

impl Tasks {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock();
        // Those that have ended (of deleted libraries) are let go.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    pub(crate) async fn join(&self) {
        let mut tasks = std::mem::take(&mut *self.0.lock());
        while tasks.join_next().await.is_some() {}
    }
}

impl Engine {
    /// Opens (or makes) the data directory: lock, catalog, manifests, then the log after them.
    /// Must be called in a Tokio runtime, where the engine's tasks then run.
    pub async fn open(config: EngineConfig, parts: EngineParts) -> Result<Self, EngineError> {
        crate::open::open(config, parts).await
    }

    /// Finishes accepted writes, writes checkpoints, closes the log and releases the lock. A purge
    /// that runs is stopped after the file that it is writing.
    pub async fn close(&self) -> Result<(), EngineError> {
        let inner = &self.0;
        inner.upkeep.begin_close();
        // Calls that run are paid for: what they use is recorded when there are no more of them.
        inner.parts.embedder.close().await;
        if let Some(reranker) = &inner.parts.reranker {
            reranker.close().await;
        }
        inner.ledger_task.join().await;
        crate::costs::flush(inner).await;
        drop(inner.catalog_writer.lock().take());
        inner.work.shut();
        inner.upkeep.close().await;
        // What the catalog was asked for is done: a library that it still makes is shut with the
        // others, and no other is made after them.
        inner.catalog_task.join().await;
        for handle in inner.handles.load().values() {
            handle.shut();
        }
        inner.end_opening().await;
        inner.writers.join().await;
        let log = inner.log.clone();
        let closed = tokio::task::spawn_blocking(move || log.close()).await;
        drop(inner.lock.lock().take());
        match closed {
            Ok(outcome) => Ok(outcome?),
            Err(error) => Err(EngineError::Storage { detail: error.to_string() }),
        }
    }

    /// Writes what libraries hold in memory to files and closes them; each opens again when it is
    /// used, and one that is written to meanwhile stays open. Idle libraries are closed without
    /// this; it is for a program that knows that it rests now.
    pub async fn close_libraries(&self) {
        self.0.upkeep.close_libraries().await;
    }

    /// Removes for good what was deleted or replaced before this: from segment files, from the log
    /// (which is not kept for followers any longer), from the cache of embeddings. Writes and reads
    /// go on meanwhile. Backups made before still have it until they are forgotten, and the disk
    /// itself may keep freed blocks.
    pub async fn purge(&self) -> Result<PurgeReceipt, EngineError> {
        self.0.upkeep.purge().await
    }

    /// Whether everything works. O(libraries).
    pub fn health(&self) -> Health {
        let inner = &self.0;
        let log_stats = inner.log.stats();
        let handles = inner.handles.load();
        // What holds standing queries, or waits beside what is read, is no library of anybody's.
        let libraries = || {
            let handles = handles.values().filter(|handle| !handle.id.is_companion());
            handles.filter(|handle| !handle.turns.is_passive())
        };
        let counts = || libraries().map(|handle| handle.counts());
        let open = libraries().filter(|handle| handle.residence().is_ok()).count();
        let poisoned = "a write or sync failed; start the server again";
        let full = || format!("less than {} bytes are free", inner.config.disk_free_bytes_min);
        let disk_full = inner.disk_full.load(Ordering::Relaxed);
        Health {
            log: if log_stats.poisoned { Err(poisoned.into()) } else { Ok(()) },
            data_dir: match disk_full {
                _ if !inner.upkeep.is_running() => Err(UPKEEP_ENDED.into()),
                true => Err(full()),
                false => Ok(()),
            },
            embedding: inner.parts.embedder.status(),
            disk_free_bytes: inner.disk_free_bytes.load(Ordering::Relaxed),
            durable: self.durable(),
            libraries: libraries().count() as u64,
            libraries_open: open as u64,
            documents: counts().map(|counts| counts.documents).sum(),
            chunks: counts().map(|counts| counts.chunks).sum(),
            memory_bytes: inner.gauges.memory.total(),
            index_bytes: inner.gauges.indexes.total(),
            memory_budget_bytes: inner.config.memory_budget_bytes,
            log_stats,
            scrub: inner.scrubbed.lock().clone(),
        }
    }

    /// The text-to-vector side: status, statistics.
    pub fn embedder(&self) -> &Embedder {
        &self.0.parts.embedder
    }

    /// The model that ranks passages, where there is one.
    pub fn reranker(&self) -> Option<&Reranker> {
        self.0.parts.reranker.as_ref()
    }

    /// Highest sequence number that is durable.
    pub fn durable(&self) -> Seq {
        Seq::new(self.0.log.durable())
    }

    /// Creates a library; durable when this returns.
    pub async fn create_library(
        &self,
        tenant: TenantId,
        new: NewLibrary,
    ) -> Result<Written<LibrarySpec>, EngineError> {
        let inner = &self.0;
        inner.check_disk()?;
        check_name(&new.name)?;
        check_description(new.description.as_deref())?;
        let created_at = inner.parts.clock.now();
        let (model, dimension) = inner.model_for(&new)?;
        check_index(new.index, dimension)?;
        let random = &*inner.parts.random;
        let spec = LibrarySpec {
            // Always a new one: records of a deleted library must never meet a library of its id.
            id: LibraryId::new(new_uuid(created_at, random)),
            tenant,
            name: new.name,
            description: new.description,
            created_at,
            index: new.index,
            metric: new.metric,
            model,
            dimension,
            companion_of: None,
            generation_of: None,
            language: new.language,
        };
        inner.change_catalog(CatalogCommand::Create(spec)).await
    }

    /// The tenant's libraries in creation order.
    pub async fn libraries(
        &self,
        tenant: TenantId,
        min_seq: Option<Seq>,
    ) -> Result<Vec<LibraryOverview>, EngineError> {
        Ok(self.0.libraries(tenant, min_seq).await?.0)
    }

    /// As [`Engine::libraries`], with the number that the list is true at: no record up to it is
    /// missing.
    pub async fn libraries_with_seq(
        &self,
        tenant: TenantId,
        min_seq: Option<Seq>,
    ) -> Result<(Vec<LibraryOverview>, Seq), EngineError> {
        self.0.libraries(tenant, min_seq).await
    }

    /// One library, at the moment asked for.
    pub async fn library(
        &self,
        tenant: TenantId,
        id: LibraryId,
        at: impl Into<Moment>,
    ) -> Result<Snapshot, EngineError> {
        self.0.snapshot(tenant, id, at.into()).await
    }

    /// Changes a library's name, description or language.
    pub async fn update_library(
        &self,
        tenant: TenantId,
        id: LibraryId,
        patch: LibraryPatch,
    ) -> Result<Written<LibrarySpec>, EngineError> {
        self.0.check_disk()?;
        if let Some(name) = &patch.name {
            check_name(name)?;
        }
        check_description(patch.description.as_ref().and_then(Option::as_deref))?;
        let LibraryPatch { name, description, language } = patch;
        let update = CatalogCommand::Update { tenant, id, name, description, language };
        self.0.change_catalog(update).await
    }

    /// Deletes a library with everything in it.
    pub async fn delete_library(
        &self,
        tenant: TenantId,
        id: LibraryId,
    ) -> Result<Written<()>, EngineError> {
        let written = self.0.change_catalog(CatalogCommand::Delete { tenant, id }).await?;
        let scope = BudgetScope { tenant, library: Some(id) };
        // One that is left behind for want of room is paid from by nobody.
        drop(self.0.work.ask(WorkCommand::DeleteBudget(scope)));
        Ok(Written { seq: written.seq, value: () })
    }

    /// Changes what a library is searched by, and builds it: returns when every segment has the
    /// structure that is asked for. Reads and writes go on meanwhile, by the old one. With a change
    /// of nothing, builds what is missing.
    pub async fn rebuild_index(
        &self,
        tenant: TenantId,
        id: LibraryId,
        change: IndexChange,
    ) -> Result<Written<IndexRebuilt>, EngineError> {
        self.0.rebuild_index(tenant, id, change).await
    }

    /// Merges a library's files into one without what was deleted or replaced, however lately, and
    /// builds its structure. Reads and writes go on meanwhile.
    pub async fn optimize_index(
        &self,
        tenant: TenantId,
        id: LibraryId,
    ) -> Result<IndexOptimized, EngineError> {
        self.0.optimize_index(tenant, id).await
    }

    /// Has measured, in the background, what searches of a library find, unless that is known.
    pub fn want_calibration(&self, tenant: TenantId, id: LibraryId) {
        let owned = self.0.catalog.load().owned(tenant, id).is_ok();
        if let (true, Ok(handle)) = (owned, self.0.active(id)) {
            self.0.calibrating.want(&handle);
        }
    }

    /// Adds or replaces documents; each is atomic. The outer error means that nothing at all was
    /// written (no such library, provider down, queue full), an inner one that only this document
    /// was refused. Pointers of inner errors are relative to the document, such as `/texts/3`.
    pub async fn put_documents(
        &self,
        tenant: TenantId,
        library: LibraryId,
        documents: Vec<PutDocument>,
    ) -> Result<Written<Outcomes>, EngineError> {
        // Who asks for one document is told what is wrong, whoever is to blame for it.
        let blame = if documents.len() == 1 { Blame::All } else { Blame::Each };
        self.0.put((tenant, library), documents, (None, blame), std::future::ready(())).await
    }

    /// As [`Engine::put_documents`], but everything that comes before the library's writer (text to
    /// vectors, checks) is done at once, and the writer is asked only after `turn`: several
    /// requests can be made ready at the same time and written in a given order. One document that a
    /// provider refuses is refused as one of many is.
    pub async fn put_documents_in_turn(
        &self,
        tenant: TenantId,
        library: LibraryId,
        documents: Vec<PutDocument>,
        turn: impl Future<Output = ()> + Send,
    ) -> Result<Written<Outcomes>, EngineError> {
        self.0.put((tenant, library), documents, (None, Blame::Each), turn).await
    }

    /// How long turning texts into vectors took.
    pub fn embedding_times(&self) -> &EmbeddingTimes {
        &self.0.embedding_times
    }

    /// Changes one vector of a document; the document is a new version of itself.
    ///
    /// # Errors
    /// [`EngineError::VectorNotFound`] where the document has no such vector.
    pub async fn put_vector(
        &self,
        tenant: TenantId,
        library: LibraryId,
        of: (DocumentId, ChunkId),
        new: NewVector,
    ) -> Result<Written<()>, EngineError> {
        self.0.put_vector((tenant, library), of, new).await
    }

    /// Declares a vector field, or has one searched by another index: returns when that is on disk;
    /// structures are built in the background.
    ///
    /// # Errors
    /// [`EngineError::VectorField`] where there is one of that name that holds something else.
    pub async fn put_field(
        &self,
        tenant: TenantId,
        library: LibraryId,
        field: NewField,
    ) -> Result<Written<FieldSpec>, EngineError> {
        self.0.put_field((tenant, library), field).await
    }

    /// Deletes documents; the chunks that died with each, `None` where there was no document.
    pub async fn delete_documents(
        &self,
        tenant: TenantId,
        library: LibraryId,
        ids: Vec<DocumentId>,
    ) -> Result<Written<Vec<Option<u32>>>, EngineError> {
        self.0.delete((tenant, library), ids, None).await
    }

    /// Notes in the log that a batch of a library begins, or how it ended: for those who follow the
    /// library, which stays as it is.
    pub async fn note_batch(
        &self,
        tenant: TenantId,
        library: LibraryId,
        note: BatchNote,
    ) -> Result<Written<()>, EngineError> {
        self.0.note_batch(tenant, library, note).await
    }

    /// A new batch's id.
    pub fn new_batch_id(&self) -> BatchId {
        let parts = &self.0.parts;
        BatchId::new(new_uuid(parts.clock.now(), &*parts.random))
    }

    /// A new id of a document, for who has to know it before the document is written.
    pub fn new_document_id(&self) -> DocumentId {
        let parts = &self.0.parts;
        DocumentId::new(new_uuid(parts.clock.now(), &*parts.random))
    }

    /// Which of the tenant's libraries holds this document: the oldest one, if several do. In the
    /// past, of those that there are now. O(libraries * segments).
    pub async fn locate_document(
        &self,
        tenant: TenantId,
        id: DocumentId,
        at: impl Into<Moment>,
    ) -> Result<Option<LibraryId>, EngineError> {
        let at = at.into();
        let found = self.locate(tenant, (vec![id], false), at).await?;
        Ok(found.first().and_then(|owners| owners.first))
    }

    /// Which of the tenant's libraries holds each document that is to be changed, which has to be a
    /// single one: [`EngineError::DocumentNotFound`], or [`EngineError::AmbiguousDocument`] where
    /// several do. One look into each library for all of them.
    pub async fn owners_of_documents(
        &self,
        tenant: TenantId,
        ids: Vec<DocumentId>,
    ) -> Result<Vec<Result<LibraryId, EngineError>>, EngineError> {
        let found = self.locate(tenant, (ids.clone(), true), Moment::default()).await?;
        Ok(found.into_iter().zip(ids).map(|(owners, id)| owners.only(id)).collect())
    }

    /// As [`Engine::owners_of_documents`], of one.
    pub async fn owner_of_document(
        &self,
        tenant: TenantId,
        id: DocumentId,
    ) -> Result<LibraryId, EngineError> {
        let found = self.owners_of_documents(tenant, vec![id]).await?.pop();
        found.unwrap_or(Err(EngineError::DocumentNotFound(id)))
    }

    async fn locate(
        &self,
        tenant: TenantId,
        wanted: (Vec<DocumentId>, bool),
        at: Moment,
    ) -> Result<Vec<Owners>, EngineError> {
        let libraries = self.libraries(tenant, at.reached()).await?;
        let libraries = libraries.into_iter().map(|overview| overview.spec.id).collect();
        self.0.locate(libraries, wanted, at).await
    }

    /// The nearest passages.
    pub async fn search(
        &self,
        tenant: TenantId,
        library: LibraryId,
        request: SearchRequest,
        at: impl Into<Moment>,
    ) -> Result<SearchAnswer, EngineError> {
        self.0.search(tenant, library, request, at.into()).await
    }

    /// The vector that a search for a text is a search for, for who searches for it many times, and
    /// the model that made it.
    ///
    /// # Errors
    /// As [`Engine::search`] for the same text.
    pub async fn embed_query(
        &self,
        tenant: TenantId,
        library: LibraryId,
        text: String,
    ) -> Result<(Vec<f32>, ModelName), EngineError> {
        let spec = self.0.spec(tenant, library, None).await?;
        Ok((self.0.embedded(&spec, text).await?, spec.model.clone()))
    }
}

impl Inner {
    pub(crate) async fn change_catalog(
        &self,
        command: CatalogCommand,
    ) -> Result<Written<LibrarySpec>, EngineError> {
        let sender = self.catalog_writer.lock().clone().ok_or(EngineError::Closed)?;
        let Written { seq, value } = change(sender, command).await?;
        let gone = || EngineError::Storage { detail: "the catalog lost what it changed".into() };
        Ok(Written { seq, value: Arc::unwrap_or_clone(value.ok_or_else(gone)?) })
    }

    /// The tenant's libraries in creation order, and the number that the list is true at.
    async fn libraries(
        &self,
        tenant: TenantId,
        min_seq: Option<Seq>,
    ) -> Result<(Vec<LibraryOverview>, Seq), EngineError> {
        self.wait_for_catalog(min_seq).await?;
        let of_tenant = || {
            let (catalog, handles) = (self.catalog.load_full(), self.handles.load_full());
            let of_tenant = |spec: &&Arc<LibrarySpec>| spec.tenant == tenant;
            // A library of standing queries is nobody's to see.
            let specs = catalog.owners_libraries().filter(of_tenant);
            let handle = |id| handles.get(&catalog.active(id)).cloned();
            let found = specs.map(|spec| (spec.clone(), handle(spec.id)));
            found.collect::<Vec<_>>()
        };
        if let Some(wanted) = min_seq {
            for handle in of_tenant().iter().filter_map(|(_spec, handle)| handle.as_ref()) {
                self.wait_for(handle, wanted).await?;
            }
        }
        // Looked at before the libraries are, so that whatever was published by then is in them.
        let durable = self.log.durable();
        let mut seq = Seq::new(durable.min(self.catalog_unapplied.published_to()));
        let mut found = of_tenant();
        for (_spec, handle) in &found {
            seq = handle.as_ref().map_or(seq, |handle| seq.min(handle.published_to(durable)));
        }
        found.sort_by_key(|(spec, _handle)| (spec.created_at, spec.id));
        let overviews = found.into_iter().map(|(spec, handle)| {
            let counts = handle.map_or(Counts::nothing(), |handle| handle.counts());
            let Counts { documents, chunks, .. } = counts;
            LibraryOverview { spec: LibrarySpec::clone(&spec), documents, chunks }
        });
        Ok((overviews.collect(), seq))
    }

    /// The model and dimension of a new library.
    pub(crate) fn model_for(&self, new: &NewLibrary) -> Result<(ModelName, u32), EngineError> {
        let invalid =
            |field: &str, detail: String| EngineError::Invalid { field: field.into(), detail };
        let provider = match &new.embedding_provider {
            None => None,
            Some(name) => Some(name.parse().map_err(|error: arrwdb_embed::UnknownProvider| {
                invalid("/embedding_provider", error.to_string())
            })?),
        };
        if let Some(dimension) = new.embedding_dimension
            && !(1..=DIMENSIONS_MAX).contains(&dimension)
        {
            let detail =
                format!("the dimension is {dimension}; it has to be 1 to {DIMENSIONS_MAX}");
            return Err(invalid("/embedding_dimension", detail));
        }
        let request = ModelRequest {
            provider,
            model: new.embedding_model.clone(),
            dimension: new.embedding_dimension,
        };
        let unnamed = provider.is_none() && new.embedding_model.is_none();
        match (self.parts.embedder.resolve(request), new.embedding_dimension) {
            (Ok(model), _) => {
                let name = ModelName { provider: model.provider.name().into(), model: model.model };
                Ok((name, model.dimension))
            }
            // No model has this dimension and none was asked for: the caller brings the vectors.
            (Err(_none), Some(dimension)) if unnamed => {
                Ok((ModelName { provider: "none".into(), model: "none".into() }, dimension))
            }
            (Err(error), dimension) => {
                let field = match dimension {
                    Some(_) if new.embedding_model.is_none() => "/embedding_dimension",
                    _ => "/embedding_model",
                };
                Err(invalid(field, error.to_string()))
            }
        }
    }

    /// A library of this tenant, once the catalog is at `min_seq`.
    pub(crate) async fn spec(
        &self,
        tenant: TenantId,
        id: LibraryId,
        min_seq: Option<Seq>,
    ) -> Result<Arc<LibrarySpec>, EngineError> {
        let find = || self.catalog.load().owned(tenant, id).ok().cloned();
        if let Some(spec) = find() {
            return Ok(spec);
        }
        // It may be created by a record that the caller has heard of and this catalog has not.
        self.wait_for_catalog(min_seq).await?;
        find().ok_or(EngineError::LibraryNotFound(id))
    }

    /// Where a library is read and written; of a generation or a companion, itself.
    pub(crate) fn active(&self, id: LibraryId) -> Result<Arc<Handle>, EngineError> {
        self.handle(self.catalog.load().active(id))
            .map_err(|_gone| EngineError::LibraryNotFound(id))
    }

    pub(crate) fn handle(&self, id: LibraryId) -> Result<Arc<Handle>, EngineError> {
        self.handles.load().get(&id).cloned().ok_or(EngineError::LibraryNotFound(id))
    }

    pub(crate) async fn snapshot(
        self: &Arc<Self>,
        tenant: TenantId,
        id: LibraryId,
        at: Moment,
    ) -> Result<Snapshot, EngineError> {
        loop {
            let (spec, handle, since) = self.placed(tenant, id, at.reached()).await?;
            match self.snapshot_of((spec, since), &handle, at).await {
                // A generation that was left, or discarded, meanwhile: it may lack what was written
                // to the other one. Where it is not left by now, nothing was carried to it yet when
                // it was looked at.
                Ok(_) | Err(EngineError::LibraryNotFound(_)) if self.is_moved(id, &handle) => {}
                other => return other.map_err(|error| of_library(id, error)),
            }
        }
    }

    /// A library as its owner sees it, where it is read, and since which record that is there.
    pub(crate) async fn placed(
        &self,
        tenant: TenantId,
        id: LibraryId,
        min_seq: Option<Seq>,
    ) -> Result<(Arc<LibrarySpec>, Arc<Handle>, Seq), EngineError> {
        self.spec(tenant, id, min_seq).await?;
        loop {
            // One look at the catalog: what is said of the library and where it is go together.
            let catalog = self.catalog.load_full();
            let spec =
                catalog.owned(tenant, id).map_err(|_gone| EngineError::LibraryNotFound(id))?;
            let since = catalog.generations(id).map_or(Seq::START, Generations::since);
            if let Ok(handle) = self.handle(catalog.active(id)) {
                return Ok((spec.clone(), handle, since));
            }
            if self.catalog.load().active(id) == catalog.active(id) {
                return Err(EngineError::LibraryNotFound(id));
            }
        }
    }

    async fn snapshot_of(
        self: &Arc<Self>,
        (spec, since): (Arc<LibrarySpec>, Seq),
        handle: &Arc<Handle>,
        at: Moment,
    ) -> Result<Snapshot, EngineError> {
        if let Some(wanted) = at.reached() {
            self.wait_for(handle, wanted).await?;
        }
        if let Some(wanted) = at.as_of.filter(|wanted| *wanted < since) {
            return Err(EngineError::HistoryGone { wanted, oldest: since });
        }
        // What is published is true up to here: looked at before the library is, so that whatever
        // was published by then is in the view.
        let quiet = handle.published_to(self.log.durable());
        let view = self.opened(handle).await?.view();
        let calibrated = handle.measured.get();
        let seq = at.as_of.unwrap_or(view.applied().max(quiet));
        let view = match at.as_of {
            Some(seq) => moment::past(view, seq).await?,
            None => view,
        };
        Ok(Snapshot { spec, view, seq, calibrated })
    }

    /// Waits, for a bounded time, until a library is at `wanted`.
    pub(crate) async fn wait_for(&self, handle: &Handle, wanted: Seq) -> Result<(), EngineError> {
        let mut advanced = self.advanced.clone();
        let reached = async {
            loop {
                // Registered before asking, so that no progress in between is missed.
                let progress = handle.progress.notified();
                if handle.is_at(wanted, *advanced.borrow_and_update()) {
                    return;
                }
                tokio::select! {
                    () = progress => {}
                    changed = advanced.changed() => if changed.is_err() { return },
                }
            }
        };
        let in_time = tokio::time::timeout(self.config.min_seq_wait_max, reached).await.is_ok();
        if in_time && handle.is_at(wanted, self.log.durable()) {
            return Ok(());
        }
        let current = Seq::new(self.log.durable());
        Err(EngineError::SeqNotReached { wanted, current })
    }

    /// Waits, for a bounded time, until the catalog is at `min_seq`.
    pub(crate) async fn wait_for_catalog(&self, min_seq: Option<Seq>) -> Result<(), EngineError> {
        let Some(wanted) = min_seq else { return Ok(()) };
        let mut advanced = self.advanced.clone();
        let durable = advanced.wait_for(|durable| *durable >= wanted.get());
        let in_time = tokio::time::timeout(self.config.min_seq_wait_max, durable).await;
        // A catalog record is acknowledged only when it is published, so whoever has heard of one
        // finds it published as soon as it is durable.
        if matches!(in_time, Ok(Ok(_))) {
            return Ok(());
        }
        Err(EngineError::SeqNotReached { wanted, current: Seq::new(self.log.durable()) })
    }

    /// Refuses writes while the disk is nearly full.
    pub(crate) fn check_disk(&self) -> Result<(), EngineError> {
        if !self.disk_full.load(Ordering::Relaxed) {
            return Ok(());
        }
        let free = self.disk_free_bytes.load(Ordering::Relaxed);
        Err(EngineError::DiskFull {
            detail: format!(
                "{free} bytes are free for {}, and writes need {}",
                self.config.data_dir.display(),
                self.config.disk_free_bytes_min
            ),
        })
    }

    /// Looks at how much space is left.
    pub(crate) fn look_at_disk(&self) {
        match self.parts.disk.free_bytes(&self.config.data_dir) {
            Ok(free) => {
                let full = free < self.config.disk_free_bytes_min;
                self.disk_free_bytes.store(free, Ordering::Relaxed);
                if self.disk_full.swap(full, Ordering::Relaxed) != full {
                    tracing::warn!(free_bytes = free, full, "the disk's state changed");
                }
            }
            Err(error) => tracing::warn!(%error, "cannot see how much disk is free"),
        }
    }
}

fn check_name(name: &str) -> Result<(), EngineError> {
    check_library_name(name)
        .map_err(|fault| EngineError::Invalid { field: "/name".into(), detail: fault.to_string() })
}

fn check_description(description: Option<&str>) -> Result<(), EngineError> {
    let chars = description.map_or(0, |text| text.chars().count());
    if chars <= LIBRARY_DESCRIPTION_CHARS_MAX {
        return Ok(());
    }
    let max = LIBRARY_DESCRIPTION_CHARS_MAX;
    Err(EngineError::Invalid {
        field: "/description".into(),
        detail: format!("must have at most {max} characters; it has {chars}"),
    })
}

/// KiB of documents, of all libraries, that may wait to be durable: a few of the largest requests,
/// so that full queues of large documents do not fill the memory; less where the memory budget is
/// small.
pub(crate) fn write_room_kib(memory_budget_bytes: u64) -> u32 {
    u32::try_from(memory_budget_bytes / 4 / 1024).unwrap_or(u32::MAX).clamp(1 << 10, 512 << 10)
}

/// What health says when the task that writes checkpoints is gone.
const UPKEEP_ENDED: &str = "the upkeep stopped; start the server again";

/// How long opening may take before it says what it is doing.
pub(crate) const OPEN_REPORT: Duration = Duration::from_secs(2);
