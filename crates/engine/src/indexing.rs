//! What libraries are searched by, as their owners ask for it: changed, optimised, and read from
//! the files beside their segments.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use arrwdb_state::{
    CatalogCommand, Field, IndexBuilt, IndexSpec, IndexWork, LibraryId, LibrarySpec, Seq, TenantId,
    View,
};

use crate::building::{Target, check_memory_room};
use crate::engine::{Engine, Inner};
use crate::error::EngineError;
use crate::handle::Handle;
use crate::moment::Moment;
use crate::request::{IndexChange, IndexOptimized, IndexRebuilt, Written};
use crate::snapshot::Snapshot;

/// Refuses a structure and a quantisation that do not go together, and an index that vectors of
/// this dimension cannot have.
pub(crate) fn check_index(index: IndexSpec, dimension: u32) -> Result<(), EngineError> {
    IndexSpec::new(index.structure, index.quantization).map_err(|error| EngineError::Invalid {
        field: "/quantization_config".into(),
        detail: error.to_string(),
    })?;
    let dimension = dimension as usize;
    let parts = [
        ("index_config", index.structure.check_dimension(dimension)),
        ("quantization_config", index.quantization.check_dimension(dimension)),
    ];
    parts.into_iter().try_for_each(|(config, outcome)| {
        outcome.map_err(|error| EngineError::Invalid {
            field: format!("/{config}/{}", error.name),
            detail: error.to_string(),
        })
    })
}

/// What a library is searched by after a change, where it may be.
fn changed(spec: &LibrarySpec, change: IndexChange) -> Result<IndexSpec, EngineError> {
    let structure = change.structure.unwrap_or(spec.index.structure);
    let quantization = change.quantization.unwrap_or(spec.index.quantization);
    let index = IndexSpec { structure, quantization };
    check_index(index, spec.dimension)?;
    Ok(index)
}

impl Engine {
    /// Refuses what [`Engine::rebuild_index`] would refuse at once if it were asked for it now: for who
    /// asks for it later.
    pub async fn check_index_change(
        &self,
        tenant: TenantId,
        id: LibraryId,
        change: IndexChange,
    ) -> Result<(), EngineError> {
        let inner = &self.0;
        let spec = inner.spec(tenant, id, None).await?;
        let index = changed(&spec, change)?;
        if index == spec.index {
            return Ok(());
        }
        let command = CatalogCommand::ChangeIndex { tenant, id, index };
        let decided = inner.catalog.load_full().decide(command, inner.parts.clock.now());
        decided.map(drop).map_err(crate::catalog::refused)
    }
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
        let new = changed(&spec, change)?;
        let seq = if new == old {
            self.snapshot(tenant, id, Moment::default()).await?.seq
        } else {
            let command = CatalogCommand::ChangeIndex { tenant, id, index: new };
            self.change_catalog(command).await?.seq
        };
        let handle = self.active(id)?;
        self.opened(&handle).await?;
        self.upkeep.checkpoint_now(&handle).await?;
        self.builder.reach(&handle, Target::Structures).await?;
        let vectors = handle.counts().chunks;
        let work = IndexWork::Rebuild;
        let built = IndexBuilt { work, old, new, vectors, compacted: 0, freed_bytes: 0 };
        let seq = self.note_built(tenant, id, built).await.map_or(seq, |noted| seq.max(noted));
        let value = IndexRebuilt { old, new, chunks: vectors, took: started.elapsed() };
        Ok(Written { seq, value })
    }

    pub(crate) async fn optimize_index(
        self: &Arc<Self>,
        tenant: TenantId,
        id: LibraryId,
    ) -> Result<IndexOptimized, EngineError> {
        self.check_disk()?;
        let started = Instant::now();
        let before = self.snapshot(tenant, id, Moment::default()).await?;
        let handle = self.active(id)?;
        self.upkeep.checkpoint_now(&handle).await?;
        let rows_dropped = self.builder.reach(&handle, Target::OneFile).await?;
        // Names what was merged, so that its inputs can go.
        self.upkeep.checkpoint_now(&handle).await?;
        let after = self.snapshot(tenant, id, Moment::default()).await?;
        let bytes = |snapshot: &Snapshot| {
            let stats = snapshot.stats();
            stats.memory_bytes + stats.file_bytes
        };
        let bytes_freed = bytes(&before).saturating_sub(bytes(&after));
        let built = IndexBuilt {
            work: IndexWork::Optimize,
            old: before.spec.index,
            new: after.spec.index,
            vectors: after.view.chunks(),
            compacted: rows_dropped,
            freed_bytes: bytes_freed,
        };
        self.note_built(tenant, id, built).await;
        let index = after.spec.index;
        Ok(IndexOptimized { index, rows_dropped, bytes_freed, took: started.elapsed() })
    }

    /// Tells those who follow the library that its index is built. It is built even where that
    /// cannot be told: who asked for it is not answered that it is not.
    async fn note_built(&self, tenant: TenantId, id: LibraryId, built: IndexBuilt) -> Option<Seq> {
        let command = CatalogCommand::NoteIndexBuilt { tenant, id, built };
        let noted = self.change_catalog(command).await;
        let failed = |error: &EngineError| {
            tracing::warn!(library = %id, %error, "its index is built, but followers are not told");
        };
        noted.inspect_err(failed).ok().map(|written| written.seq)
    }

    /// A view as read from its files, with the structures that lie beside them.
    pub(crate) fn with_indexes(&self, id: LibraryId, view: View) -> View {
        let Some(spec) = self.catalog.load().get(id).cloned() else { return view };
        let mut indexed = view.clone();
        for segment in view.all_segments() {
            let Some(file) = segment.segment().file() else { continue };
            let metric = view.field_of(segment.segment()).map_or(spec.metric, |field| field.metric);
            let read = self.store.index_file_bytes(id, file.number());
            let read = read
                .and_then(|bytes| check_memory_room(self, bytes + indexed.index_bytes()))
                .and_then(|()| self.store.read_index(id, file, metric));
            match read {
                Ok(Some(index)) => {
                    let with = indexed.with_index(segment.segment(), Some(Arc::new(index)));
                    indexed = with.unwrap_or(indexed);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(library = %id, %error, "a segment is scanned until its index is built again");
                }
            }
        }
        indexed
    }

    /// Tells a library whether it asks for structures, and asks for those that it lacks.
    pub(crate) fn want_indexes(&self, handle: &Arc<Handle>) {
        let view = handle.residence().ok().map(|open| open.view());
        let plain = self.catalog.load().get(handle.id).is_none_or(|spec| {
            let fields = view.iter().flat_map(|view| view.fields().values());
            spec.index.is_plain() && fields.map(Field::spec).all(|field| field.index.is_plain())
        });
        handle.indexed.store(!plain, Ordering::Relaxed);
        let leftover = || {
            let mut views = view.iter().flat_map(|view| view.all_segments());
            views.any(|view| view.index().is_some())
        };
        if !plain || leftover() {
            self.builder.want(handle);
        }
    }
}
