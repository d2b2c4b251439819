//! Batches as those who follow a library see them: that one began, and how it ended.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use arrwdb_engine::EngineError;
use arrwdb_engine::state::{BatchEnd, BatchNote, BatchOperation, BatchOutcome, LibraryId};

use crate::app::App;
use crate::principal::Principal;

/// A batch that began. One that is dropped before it is ended broke off: whoever was told that it
/// began is told that, too.
#[derive(Debug)]
pub(super) struct Batch {
    app: App,
    principal: Principal,
    library: LibraryId,
    note: BatchNote,
    ended: bool,
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
        let mut batch = Self { app: app.clone(), principal, library, note, ended: false };
        let written = async move {
            batch.ended = !batch.write(note).await;
            (!batch.ended).then_some(batch)
        };
        to_its_end(app, Box::pin(written)).await.flatten()
    }

    /// Notes how it ended: it was worked through, or broke off.
    pub(super) async fn end(mut self, (successful, failed): (u64, u64), finished: bool) {
        let outcome = BatchOutcome::of((successful, failed), finished);
        let total = self.note.total.or(finished.then_some(successful + failed));
        let end = Some(BatchEnd { successful, failed, outcome });
        let note = BatchNote { total, end, ..self.note };
        let app = self.app.clone();
        let written = async move {
            self.ended = true;
            self.write(note).await;
        };
        to_its_end(&app, Box::pin(written)).await;
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

impl Drop for Batch {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        // What became of the documents is not known here, so none is counted.
        let end = Some(BatchEnd { successful: 0, failed: 0, outcome: BatchOutcome::Failed });
        let (app, principal, library) = (self.app.clone(), self.principal, self.library);
        let note = BatchNote { end, ..self.note };
        let rest = Self { app, principal, library, note, ended: true };
        runtime.spawn(async move { rest.write(note).await });
    }
}

/// Does the work of a batch and notes that it began and how it ended, whether or not its client waits
/// for that. `ended` says of what came of it how many came about and how many did not, and whether it
/// was worked through.
///
/// # Errors
/// It panicked.
pub(super) async fn noted<T: Send + 'static>(
    app: &App,
    (principal, library): (Principal, LibraryId),
    kind: (BatchOperation, Option<u64>),
    work: impl Future<Output = T> + Send + 'static,
    ended: impl FnOnce(&T) -> ((u64, u64), bool) + Send + 'static,
) -> Result<T, EngineError> {
    let of = app.clone();
    let all = async move {
        // The note is queued first, so that it comes before the documents; nobody waits for it alone.
        let (batch, done) = tokio::join!(Batch::begin(&of, principal, library, kind), work);
        if let Some(batch) = batch {
            let (counts, finished) = ended(&done);
            batch.end(counts, finished).await;
        }
        done
    };
    to_its_end(app, Box::pin(all)).await.ok_or(EngineError::Panicked)
}

/// Does the first step here, so that what is queued stands where it was called, and the others
/// whether or not anybody waits. `None` if it panicked.
async fn to_its_end<T: Send + 'static>(
    app: &App,
    mut work: Pin<Box<dyn Future<Output = T> + Send>>,
) -> Option<T> {
    match poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await {
        Poll::Ready(done) => Some(done),
        Poll::Pending => app.outliving(work).await.ok(),
    }
}
