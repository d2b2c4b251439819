//! Batches as those who follow a library see them: that one began, and how it ended.

use arrwdb_engine::state::{BatchEnd, BatchNote, BatchOperation, BatchOutcome, LibraryId};

use crate::app::App;
use crate::principal::Principal;

/// A batch that began.
#[derive(Debug)]
pub(super) struct Batch {
    app: App,
    principal: Principal,
    library: LibraryId,
    note: BatchNote,
}

impl Batch {
    /// Notes that a batch begins; what is written after this call comes after the note. `None` if
    /// that cannot be noted: the batch itself will say why.
    pub(super) async fn begin(
        app: &App,
        principal: Principal,
        library: LibraryId,
        (operation, total): (BatchOperation, Option<u64>),
    ) -> Option<Self> {
        let note = BatchNote { id: app.engine().new_batch_id(), operation, total, end: None };
        let batch = Self { app: app.clone(), principal, library, note };
        batch.write(note).await.then_some(batch)
    }

    /// Notes how it ended: it was worked through, or broke off. One of which nothing was written
    /// failed, too.
    pub(super) async fn end(self, (successful, failed): (u64, u64), finished: bool) {
        let nothing = successful == 0 && failed > 0;
        let outcome =
            if finished && !nothing { BatchOutcome::Completed } else { BatchOutcome::Failed };
        let total = self.note.total.or(finished.then_some(successful + failed));
        let end = Some(BatchEnd { successful, failed, outcome });
        self.write(BatchNote { total, end, ..self.note }).await;
    }

    async fn write(&self, note: BatchNote) -> bool {
        let engine = self.app.engine();
        match engine.note_batch(self.principal.tenant, self.library, note).await {
            Ok(_written) => true,
            // The documents are what counts: they are written, or refused for the same cause.
            Err(error) => {
                tracing::warn!(library = %self.library, "a batch cannot be noted: {error}");
                false
            }
        }
    }
}
