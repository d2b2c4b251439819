//! An open library: what is published of it, and the way to its writer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use arrwdb_state::{Command, Fate, LibraryId, Merge, Segment, Seq, View};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot};

use crate::error::{EngineError, RETRY_AFTER};
use crate::unapplied::Unapplied;

/// Requests that may wait for one library's writer.
pub(crate) const WRITER_QUEUE_MAX: usize = 1024;

/// All open libraries. Copied on change, so that reading it takes no lock.
pub(crate) type Handles = BTreeMap<LibraryId, Arc<Handle>>;

/// An open library.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) id: LibraryId,
    published: ArcSwap<View>,
    pub(crate) unapplied: Unapplied,
    pub(crate) progress: Notify,
    /// `None` once the library is closed: its writer then ends, as it holds this handle itself.
    writer: ArcSwapOption<mpsc::Sender<Request>>,
    /// The last record that a manifest on disk covers.
    checkpointed: AtomicU64,
    /// Set while a checkpoint is asked for and has not begun.
    pub(crate) checkpoint_wanted: AtomicBool,
    /// Set once the library is deleted.
    pub(crate) deleted: AtomicBool,
}

/// A share of the memory that writes may take while they wait.
pub(crate) type Room = Arc<OwnedSemaphorePermit>;

/// What a library's writer is asked to do.
#[derive(Debug)]
pub(crate) enum Request {
    /// Change the library.
    Write {
        command: Command,
        /// Kept until the command is answered, whether or not its caller waits.
        room: Option<Room>,
        reply: oneshot::Sender<Result<WriteDone, EngineError>>,
    },
    /// Give the view between two records, and keep its segments as they are until the thaw.
    Freeze { reply: oneshot::Sender<View> },
    /// Put merged segments in the place of their inputs, and end the freeze.
    Thaw { layouts: Vec<Layout>, done: oneshot::Sender<()> },
}

/// A merge that was written, to be done in the live view.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) merge: Merge,
    pub(crate) output: Option<Arc<Segment>>,
}

/// A write that is durable and published.
#[derive(Debug, Clone)]
pub(crate) struct WriteDone {
    /// A view that has the write.
    pub(crate) seq: Seq,
    /// What became of each document of the command.
    pub(crate) fates: Vec<Fate>,
}

impl Handle {
    pub(crate) fn new(
        id: LibraryId,
        view: View,
        checkpointed: Seq,
    ) -> (Arc<Self>, mpsc::Receiver<Request>) {
        let (writer, requests) = mpsc::channel(WRITER_QUEUE_MAX);
        let handle = Self {
            id,
            published: ArcSwap::from_pointee(view),
            unapplied: Unapplied::nothing(),
            progress: Notify::new(),
            writer: ArcSwapOption::from_pointee(writer),
            checkpointed: AtomicU64::new(checkpointed.get()),
            checkpoint_wanted: AtomicBool::new(false),
            deleted: AtomicBool::new(false),
        };
        (Arc::new(handle), requests)
    }

    /// The newest view whose every record is durable.
    pub(crate) fn view(&self) -> Arc<View> {
        self.published.load_full()
    }

    /// Makes `view` the one that readers get. Only the writer calls this.
    pub(crate) fn publish(&self, view: View) {
        assert!(view.applied() >= self.published.load().applied(), "N2: published only advances");
        self.published.store(Arc::new(view));
    }

    /// Says which record is now the oldest one that is appended and not published.
    pub(crate) fn advance(&self, oldest_unapplied: Option<Seq>) {
        self.unapplied.advance(oldest_unapplied);
        self.progress.notify_waiters();
    }

    /// Whether the library is at `seq`, given what the log had durable before this is asked: every
    /// record of it up to `seq` is published.
    pub(crate) fn is_at(&self, seq: Seq, durable: u64) -> bool {
        durable >= seq.get() && self.unapplied.published_to() >= seq.get()
    }

    /// The greatest number that the library is at, given what the log had durable before this is
    /// asked.
    pub(crate) fn published_to(&self, durable: u64) -> Seq {
        Seq::new(durable.min(self.unapplied.published_to()))
    }

    /// The last record that a manifest on disk covers.
    pub(crate) fn checkpointed(&self) -> Seq {
        Seq::new(self.checkpointed.load(Ordering::SeqCst))
    }

    pub(crate) fn set_checkpointed(&self, seq: Seq) {
        self.checkpointed.fetch_max(seq.get(), Ordering::SeqCst);
    }

    /// The greatest number up to which no record of this library is needed from the log, given
    /// what was durable before this is asked.
    pub(crate) fn covered(&self, durable: u64) -> u64 {
        // Read in this order: a record that becomes unapplied later is above `durable`.
        let published_to = self.unapplied.published_to();
        let applied = self.view().applied().get();
        let checkpointed = self.checkpointed.load(Ordering::SeqCst);
        let written = if applied > checkpointed { checkpointed } else { durable };
        written.min(published_to)
    }

    /// Whether a manifest on disk has everything that is published.
    pub(crate) fn is_clean(&self) -> bool {
        self.view().applied().get() <= self.checkpointed.load(Ordering::SeqCst)
    }

    /// Hands a command to the writer and waits until it is durable and published, or refused.
    pub(crate) async fn write(
        &self,
        command: Command,
        room: Option<Room>,
    ) -> Result<WriteDone, EngineError> {
        let (reply, answer) = oneshot::channel();
        let writer = self.writer.load_full().ok_or_else(|| self.closed())?;
        writer.try_send(Request::Write { command, room, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                EngineError::Busy { what: "the library's write queue", retry_after: RETRY_AFTER }
            }
            mpsc::error::TrySendError::Closed(_) => self.closed(),
        })?;
        drop(writer);
        answer.await.map_err(|_writer_gone| self.closed())?
    }

    /// The view between two records; its segments are not merged in memory until
    /// [`Handle::thaw`]. `None` if the library is closed.
    pub(crate) async fn freeze(&self) -> Option<View> {
        let (reply, answer) = oneshot::channel();
        let writer = self.writer.load_full()?;
        writer.send(Request::Freeze { reply }).await.ok()?;
        drop(writer);
        answer.await.ok()
    }

    /// Puts merged segments in the place of their inputs, between two records; returns when that
    /// is done, or the library is closed.
    pub(crate) async fn thaw(&self, layouts: Vec<Layout>) {
        let (done, finished) = oneshot::channel();
        let Some(writer) = self.writer.load_full() else { return };
        if writer.send(Request::Thaw { layouts, done }).await.is_ok() {
            drop(writer);
            // The writer answers, or is gone with its library.
            finished.await.unwrap_or_default();
        }
    }

    /// Lets the writer finish what it was asked for and end.
    pub(crate) fn close(&self) {
        self.writer.store(None);
    }

    fn closed(&self) -> EngineError {
        if self.deleted.load(Ordering::SeqCst) {
            EngineError::LibraryNotFound(self.id)
        } else {
            EngineError::Closed
        }
    }
}
