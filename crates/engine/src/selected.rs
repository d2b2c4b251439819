//! Documents by a filter: listed, counted, deleted.

use std::sync::Arc;

use arrwdb_state::{
    Command, Cursor, DocumentId, Executor, Fate, Filter, JobUnit, LibraryId, OrderBy,
    OrderedCursor, OrderedPage, Selection, Seq, TenantId,
};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::facets::check_has_column;
use crate::moment::Moment;
use crate::request::{DeletedByFilter, DocumentPage, Written};
use crate::snapshot::{Embeddings, Snapshot};

/// Documents that one record deletes.
const DELETED_PER_RECORD_MAX: usize = 1000;

/// What of a snapshot passes a filter. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Selected {
    library: (TenantId, LibraryId),
    snapshot: Snapshot,
    selection: Arc<Selection>,
    /// Documents that have a row of it, with the records that added them.
    versions: Arc<[(DocumentId, Seq)]>,
}

impl Selected {
    /// What it was selected from.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Documents that have a passage that passes.
    pub fn documents(&self) -> u64 {
        self.versions.len() as u64
    }

    /// Passages that pass.
    pub fn chunks(&self) -> u64 {
        self.selection.rows()
    }

    /// The passages.
    pub(crate) fn selection(&self) -> &Selection {
        &self.selection
    }

    /// The place behind the document at `index`, of those that pass; `None` if there is none.
    pub fn cursor_at(&self, index: u64) -> Option<Cursor> {
        let (id, born) = *self.versions.get(usize::try_from(index).ok()?)?;
        Some(Cursor { born, id })
    }

    /// The documents that pass, with the records that added them.
    pub fn versions(&self) -> &[(DocumentId, Seq)] {
        &self.versions
    }

    /// Where the page after that of [`Selected::documents_after`] begins; `None` at the end. Reads no
    /// document.
    pub fn next_after(
        &self,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<Option<Cursor>, EngineError> {
        Ok(self.snapshot.view.next_among(&self.selection, cursor, limit)?)
    }

    /// Those documents in the order in which they were added, after `cursor` (from the first, without
    /// one), whole. `total` of the page is of all that pass.
    pub fn documents_after(
        &self,
        cursor: Option<Cursor>,
        limit: usize,
        embeddings: Embeddings,
    ) -> Result<DocumentPage, EngineError> {
        let wanted = (limit, embeddings == Embeddings::Included);
        let page = self.snapshot.view.documents_among(&self.selection, cursor, wanted)?;
        Ok(DocumentPage { documents: page.documents, next: page.next, total: self.documents() })
    }
}

impl Engine {
    /// At most `limit` of the documents that pass, in the order of a field's values, after `cursor`
    /// (from the first, without one).
    pub async fn ordered(
        &self,
        selected: &Selected,
        order: OrderBy,
        (cursor, limit): (Option<OrderedCursor>, usize),
    ) -> Result<OrderedPage, EngineError> {
        let permit = self.0.search_permit()?;
        let (library, view) = (selected.library, selected.snapshot.view.clone());
        let derived = view.derived_bytes();
        let selected = selected.clone();
        let find = move |executor: &dyn Executor| {
            let _permit = permit;
            let view = &selected.snapshot.view;
            check_has_column(view, (order.field(), "/order_by"), executor)?;
            let among = (&order, &*selected.selection);
            Ok(view.documents_by(among, cursor.as_ref(), limit, executor)?)
        };
        let page = self.0.pool.read(find).await?;
        self.0.weigh_again(library, &view, derived).await?;
        page
    }

    /// What of a library passes a filter.
    pub async fn select(
        &self,
        tenant: TenantId,
        library: LibraryId,
        (filter, at): (Filter, Moment),
    ) -> Result<Selected, EngineError> {
        let inner = &self.0;
        let snapshot = inner.snapshot(tenant, library, at).await?;
        let (view, columns) = (snapshot.view.clone(), snapshot.view.derived_bytes());
        let permit = inner.search_permit()?;
        let select = move |executor: &dyn Executor| {
            let _permit = permit;
            let selection = view.select(&filter, executor)?;
            let versions = selection.documents(&view)?;
            Ok::<_, EngineError>((selection, versions))
        };
        let (selection, versions) = inner.pool.read(select).await??;
        inner.weigh_again((tenant, library), &snapshot.view, columns).await?;
        let (selection, versions) = (Arc::new(selection), versions.into());
        Ok(Selected { library: (tenant, library), snapshot, selection, versions })
    }

    /// Deletes every document that has a passage that passes the filter when this begins, a thousand at a
    /// time. One that is replaced meanwhile is left as it is. What was deleted is counted in `deleted`,
    /// also where it ends with an error.
    ///
    /// # Errors
    /// [`EngineError::Closed`] where `given_up` says so before all are deleted.
    pub async fn delete_selected(
        &self,
        (tenant, library): (TenantId, LibraryId),
        filter: Filter,
        given_up: impl Fn() -> bool + Send + Sync,
        deleted: &mut DeletedByFilter,
    ) -> Result<Seq, EngineError> {
        let inner = &self.0;
        inner.check_disk()?;
        let selected = self.select(tenant, library, (filter, Moment::default())).await?;
        let mut seq = selected.snapshot.seq;
        for versions in selected.versions.chunks(DELETED_PER_RECORD_MAX) {
            if given_up() {
                return Err(EngineError::Closed);
            }
            let written = self.delete_versions((tenant, library), versions.to_vec(), None).await?;
            seq = seq.max(written.seq);
            deleted.documents += written.value.documents;
            deleted.chunks += written.value.chunks;
            deleted.changed += written.value.changed;
        }
        Ok(seq)
    }

    /// Deletes documents, of which each is still the version that its record added, by one record; for
    /// a unit of a job, or for a caller.
    pub async fn delete_versions(
        &self,
        (tenant, library): (TenantId, LibraryId),
        versions: Vec<(DocumentId, Seq)>,
        unit: Option<JobUnit>,
    ) -> Result<Written<DeletedByFilter>, EngineError> {
        let count = versions.len();
        self.0.check_disk()?;
        // Where another embedding model takes over in between, these versions are not there any more:
        // they count as changed.
        let command = Command::DeleteVersions(versions, unit);
        let done = self.0.write_one((tenant, library), &command).await?;
        let mut deleted = DeletedByFilter::default();
        for fate in &done.fates {
            if let Fate::Existed { chunks } = fate {
                deleted.documents += 1;
                deleted.chunks += u64::from(*chunks);
            }
        }
        deleted.changed = (count - done.fates.len()) as u64;
        Ok(Written { seq: done.seq, value: deleted })
    }
}
