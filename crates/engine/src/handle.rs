//! A library as the engine holds it: open, with a published view and a writer, or closed, with no
//! more than its counts. [`crate::residence`] opens and closes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use arrwdb_state::{
    Command, Fate, LibraryId, MatchPosition, Merge, Segment, SegmentIndex, Seq, View,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, RwLock, RwLockWriteGuard, mpsc, oneshot};

use crate::calibrating::Measured;
use crate::error::{EngineError, RETRY_AFTER};
use crate::files::Files;
use crate::memory::{Gauges, Share};
use crate::turns::Turns;
use crate::unapplied::Unapplied;

/// Requests that may wait for one library's writer.
pub(crate) const WRITER_QUEUE_MAX: usize = 1024;

/// What an open library takes besides its segments in memory: its writer, the lists of its files.
/// Counted, so that many open libraries weigh on the memory budget.
pub(crate) const OPEN_BYTES: u64 = 32 << 10;

/// All libraries. Copied on change, so that reading it takes no lock.
pub(crate) type Handles = BTreeMap<LibraryId, Arc<Handle>>;

/// A library, open or closed.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) id: LibraryId,
    residence: ArcSwap<Residence>,
    /// Held on the thread that opens the library, so that it is opened once.
    pub(crate) opening: Mutex<()>,
    pub(crate) unapplied: Unapplied,
    /// Told of every record that is published, and of opening and closing.
    pub(crate) progress: Notify,
    /// Set once a record of it is durable and cannot be applied before the next start.
    pub(crate) stopped: AtomicBool,
    /// The last record that a manifest on disk has.
    checkpointed: AtomicU64,
    /// A number up to which no record of this library is missing in the manifest on disk.
    covered: AtomicU64,
    /// One more than the tick of upkeep at which its files were laid otherwise than the manifest
    /// on disk has them; 0 if they were not.
    relaid: AtomicU64,
    /// Set while a checkpoint is asked for and has not begun.
    pub(crate) checkpoint_wanted: AtomicBool,
    /// For each lane of the builder: set while it is asked to look at the library and has not begun.
    pub(crate) building_wanted: [AtomicBool; 2],
    /// Whether it asks for structures: what lies in memory is then scanned beside them, and goes
    /// to files sooner.
    pub(crate) indexed: AtomicBool,
    /// Which of its files are worked on.
    pub(crate) files: Mutex<Files>,
    /// Held, with others, while the builder writes files of it. Whoever removes for good what was
    /// deleted holds it alone.
    pub(crate) writing: RwLock<()>,
    /// Set while somebody waits to hold `writing` alone: the builder gives up what it does.
    pub(crate) halted: AtomicBool,
    /// What searches of it were measured to find.
    pub(crate) measured: Measured,
    /// Set once the library is deleted.
    pub(crate) deleted: AtomicBool,
    /// Who may write to it.
    pub(crate) turns: Turns,
    /// No record of it after this one is gone from the log.
    pub(crate) gone: AtomicU64,
    /// Set once it takes no more requests: deleted, or the engine closes.
    shut: AtomicBool,
    /// The tick of upkeep at which it was last asked for something.
    pub(crate) last_used: AtomicU64,
    /// What it holds in memory, as part of the engine's sum.
    memory: Share,
    /// What of that is search structures.
    index_memory: Share,
    /// One while it is open, as part of how many are.
    opened: Share,
}

/// Whether a library is open.
#[derive(Debug)]
pub(crate) enum Residence {
    Open(Arc<Open>),
    /// Everything is in files.
    Closed(Counts),
}

/// What an open library has.
#[derive(Debug)]
pub(crate) struct Open {
    published: ArcSwap<View>,
    /// `None` while the library closes, and once it takes no more requests: its writer then ends,
    /// as it holds the library itself.
    writer: ArcSwapOption<mpsc::Sender<Request>>,
}

impl Open {
    /// The newest view whose every record is durable.
    pub(crate) fn view(&self) -> Arc<View> {
        self.published.load_full()
    }

    /// Hands a command to the writer, which answers when it is durable and published, or refused.
    pub(crate) fn send(
        &self,
        command: Command,
        room: Option<Room>,
        by: Author,
    ) -> Result<Answer, NotSent> {
        let (reply, answer) = oneshot::channel();
        let Some(writer) = self.writer.load_full() else {
            return Err(NotSent::Closing(Box::new(command)));
        };
        match writer.try_send(Request::Write { command, room, by, reply }) {
            Ok(()) => Ok(answer),
            Err(mpsc::error::TrySendError::Closed(Request::Write { command, .. })) => {
                // Whoever closes a library takes its writer away first; one that is still there
                // has died.
                let still = self.writer.load_full();
                if still.is_some_and(|still| Arc::ptr_eq(&still, &writer)) {
                    let detail = "the library's writer stopped; start the server again".into();
                    return Err(NotSent::Refused(EngineError::Storage { detail }));
                }
                Err(NotSent::Closing(Box::new(command)))
            }
            Err(_full) => Err(NotSent::Refused(EngineError::Busy {
                what: "the library's write queue",
                retry_after: RETRY_AFTER,
            })),
        }
    }

    /// Called by the writer: nobody new gets in from here on. What slipped in before is still in
    /// the queue.
    pub(crate) fn begin_close(&self) {
        self.writer.store(None);
    }
}

/// What is known of a closed library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// The last record of it, which its manifest covers.
    pub(crate) applied: Seq,
    pub(crate) documents: u64,
    pub(crate) chunks: u64,
    /// Of a companion: how far passages are matched.
    pub(crate) matched: MatchPosition,
}

impl Counts {
    pub(crate) fn of(view: &View) -> Self {
        Self {
            applied: view.applied(),
            documents: view.documents(),
            chunks: view.chunks(),
            matched: view.matched(),
        }
    }

    /// Those of a library that never had anything.
    pub(crate) fn nothing() -> Self {
        Self { applied: Seq::START, documents: 0, chunks: 0, matched: MatchPosition::START }
    }
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
        by: Author,
        reply: oneshot::Sender<Result<WriteDone, EngineError>>,
    },
    /// Say what is applied when nothing is in flight.
    Settle { reply: oneshot::Sender<Seq> },
    /// Give the view between two records, and keep its segments as they are until the thaw.
    Freeze { reply: oneshot::Sender<Frozen> },
    /// Put merged segments in the place of their inputs, and end the freeze.
    Thaw { layouts: Vec<Layout>, done: oneshot::Sender<()> },
    /// Put a merged file in the place of its inputs; the answer says whether it has that place.
    Relay { layout: Box<Layout>, done: oneshot::Sender<bool> },
    /// Have a segment searched by this, or scanned; the answer says whether the library has it.
    Index { segment: Arc<Segment>, index: Option<Arc<SegmentIndex>>, done: oneshot::Sender<bool> },
    /// Close the library, if everything is in files when all that was asked for is done. The
    /// answer says whether it is closed.
    Close { closed: oneshot::Sender<bool> },
}

/// Who asks for a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Author {
    /// Somebody who sees the library as one.
    Caller,
    /// Who carries documents from the active generation to the other one.
    Carrier,
}

/// A view that has every record of its library up to a number.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) view: View,
    /// At least the last record applied, more if other libraries were written since.
    pub(crate) covers: Seq,
}

/// A merge that was written, to be done in the live view.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) merge: Merge,
    pub(crate) output: Option<Arc<Segment>>,
    /// What the output is searched by.
    pub(crate) index: Option<Arc<SegmentIndex>>,
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
    /// A library that is closed; it has no record at or below `covers` that is not in its counts.
    pub(crate) fn closed(id: LibraryId, counts: Counts, covers: Seq, gauges: &Gauges) -> Self {
        Self {
            id,
            residence: ArcSwap::from_pointee(Residence::Closed(counts)),
            opening: Mutex::new(()),
            unapplied: Unapplied::nothing(),
            progress: Notify::new(),
            stopped: AtomicBool::new(false),
            checkpointed: AtomicU64::new(counts.applied.get()),
            covered: AtomicU64::new(covers.max(counts.applied).get()),
            relaid: AtomicU64::new(0),
            checkpoint_wanted: AtomicBool::new(false),
            building_wanted: [AtomicBool::new(false), AtomicBool::new(false)],
            indexed: AtomicBool::new(false),
            files: Mutex::default(),
            writing: RwLock::new(()),
            halted: AtomicBool::new(false),
            measured: Measured::default(),
            deleted: AtomicBool::new(false),
            turns: Turns::new(),
            // What is not in the files is in the log.
            gone: AtomicU64::new(counts.applied.get()),
            shut: AtomicBool::new(false),
            last_used: AtomicU64::new(0),
            memory: gauges.memory.share(),
            index_memory: gauges.indexes.share(),
            opened: gauges.open.share(),
        }
    }

    /// Makes a closed library open with this view. The caller starts the writer.
    pub(crate) fn open(&self, view: View) -> (Arc<Open>, mpsc::Receiver<Request>) {
        let (writer, requests) = mpsc::channel(WRITER_QUEUE_MAX);
        self.weigh(&view);
        self.opened.set(1);
        let open = Arc::new(Open {
            published: ArcSwap::from_pointee(view),
            writer: ArcSwapOption::from_pointee(writer),
        });
        self.residence.store(Arc::new(Residence::Open(open.clone())));
        self.shut_again(&open);
        self.progress.notify_waiters();
        (open, requests)
    }

    /// The open library; else what is known of it.
    pub(crate) fn residence(&self) -> Result<Arc<Open>, Counts> {
        match &**self.residence.load() {
            Residence::Open(open) => Ok(open.clone()),
            Residence::Closed(counts) => Err(*counts),
        }
    }

    /// What it holds at this moment.
    pub(crate) fn counts(&self) -> Counts {
        match &**self.residence.load() {
            Residence::Open(open) => Counts::of(&open.published.load()),
            Residence::Closed(counts) => *counts,
        }
    }

    /// Bytes in memory.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory.get()
    }

    /// Counts what an open library with this view takes.
    fn weigh(&self, view: &View) {
        // What is made of the rows is freed by no checkpoint, and is no reason for one.
        let derived = view.index_bytes() + view.derived_bytes();
        self.memory.set(OPEN_BYTES + view.memory_bytes() + derived);
        self.index_memory.set(derived);
    }

    /// Counts what the library takes by now: a search has made columns or postings.
    pub(crate) fn weigh_again(&self) {
        if let Ok(open) = self.residence() {
            self.weigh(&open.published.load());
        }
    }

    /// Makes `view` the one that readers get. Only the writer calls this.
    pub(crate) fn publish(&self, open: &Open, view: View) {
        assert!(view.applied() >= open.published.load().applied(), "N2: published only advances");
        self.weigh(&view);
        open.published.store(Arc::new(view));
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

    /// A manifest of `seq` is on disk; no later record of the library is at or below `covers`.
    pub(crate) fn set_checkpointed(&self, seq: Seq, covers: Seq) {
        self.checkpointed.fetch_max(seq.get(), Ordering::SeqCst);
        self.covered.fetch_max(covers.get(), Ordering::SeqCst);
    }

    /// Says whether its files lie as the manifest on disk has them, or since which tick they do not.
    pub(crate) fn set_relaid(&self, since: Option<u64>) {
        let relaid = since.map_or(0, |tick| tick.saturating_add(1));
        self.relaid.store(relaid, Ordering::SeqCst);
    }

    /// The tick since which its files lie otherwise than the manifest on disk has them.
    pub(crate) fn relaid(&self) -> Option<u64> {
        self.relaid.load(Ordering::SeqCst).checked_sub(1)
    }

    /// The greatest number up to which no record of this library is needed from the log, given
    /// what was durable before this is asked.
    pub(crate) fn covered(&self, durable: u64) -> u64 {
        // Read in this order: a record that becomes unapplied later is above `durable`.
        let published_to = self.unapplied.published_to();
        let applied = self.counts().applied.get();
        let checkpointed = self.checkpointed.load(Ordering::SeqCst);
        let covered = self.covered.load(Ordering::SeqCst).min(durable);
        let written = if applied > checkpointed { covered } else { durable };
        // Once true, always true: what comes later is numbered above what is durable now.
        let covered = written.min(published_to);
        self.covered.fetch_max(covered, Ordering::SeqCst);
        covered
    }

    /// Whether a manifest on disk has everything that is published, where it lies.
    pub(crate) fn is_clean(&self) -> bool {
        self.relaid.load(Ordering::SeqCst) == 0
            && self.counts().applied.get() <= self.checkpointed.load(Ordering::SeqCst)
    }

    /// What a writer answered; it is gone without an answer only with its library.
    pub(crate) async fn answer(&self, answer: Answer) -> Result<WriteDone, EngineError> {
        answer.await.unwrap_or_else(|_writer_gone| Err(self.gone()))
    }

    /// The last record applied, once nothing is in flight that was asked for before.
    pub(crate) async fn settled(&self) -> Seq {
        loop {
            // Registered before looking, so that no opening or closing in between is missed.
            let progress = self.progress.notified();
            let (reply, answer) = oneshot::channel();
            if self.ask(Request::Settle { reply }).await.is_ok()
                && let Ok(applied) = answer.await
            {
                return applied;
            }
            // One that is closed has nothing in flight; one that closes may have.
            if self.residence().is_err() || self.check().is_err() {
                return self.counts().applied;
            }
            progress.await;
        }
    }

    /// The view between two records; its segments are not merged in memory until
    /// [`Handle::thaw`]. `None` if the library is closed, and so all in files.
    pub(crate) async fn freeze(&self) -> Option<Frozen> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Freeze { reply }).await.ok()?;
        answer.await.ok()
    }

    /// Puts merged segments in the place of their inputs, between two records; returns when that
    /// is done, or the library is closed.
    pub(crate) async fn thaw(&self, layouts: Vec<Layout>) {
        let (done, finished) = oneshot::channel();
        if self.ask(Request::Thaw { layouts, done }).await.is_ok() {
            // The writer answers, or is gone with its library.
            finished.await.unwrap_or_default();
        }
    }

    /// Puts a merged file in the place of its inputs, between two records; whether the library still
    /// has those.
    pub(crate) async fn relay(&self, layout: Layout) -> bool {
        let (done, finished) = oneshot::channel();
        match self.ask(Request::Relay { layout: Box::new(layout), done }).await {
            Ok(()) => finished.await.unwrap_or(false),
            Err(NoWriter) => false,
        }
    }

    /// Has a segment searched by `index` (or scanned), between two records; whether the library
    /// still has the segment.
    pub(crate) async fn set_index(
        &self,
        segment: Arc<Segment>,
        index: Option<Arc<SegmentIndex>>,
    ) -> bool {
        let (done, finished) = oneshot::channel();
        match self.ask(Request::Index { segment, index, done }).await {
            Ok(()) => finished.await.unwrap_or(false),
            Err(NoWriter) => false,
        }
    }

    /// Waits until the builder writes no file of the library, having it give up what it writes; it
    /// writes none while the guard is held.
    pub(crate) async fn halt_building(&self) -> RwLockWriteGuard<'_, ()> {
        self.halted.store(true, Ordering::SeqCst);
        let alone = self.writing.write().await;
        self.halted.store(false, Ordering::SeqCst);
        alone
    }

    /// Closes the library if all of it is in files; whether it is closed now.
    pub(crate) async fn try_close(&self) -> bool {
        let (closed, answer) = oneshot::channel();
        match self.ask(Request::Close { closed }).await {
            Ok(()) => answer.await.unwrap_or(false),
            Err(NoWriter) => self.residence().is_err(),
        }
    }

    async fn ask(&self, request: Request) -> Result<(), NoWriter> {
        let open = self.residence().map_err(|_closed| NoWriter)?;
        let writer = open.writer.load_full().ok_or(NoWriter)?;
        writer.send(request).await.map_err(|_ended| NoWriter)
    }

    /// Called by the writer when its queue is empty: closes, if everything is in files, else gives
    /// a new queue to go on with.
    pub(crate) fn end_close(&self, open: &Open) -> Option<mpsc::Receiver<Request>> {
        if self.is_clean() && self.unapplied.is_nothing() && !self.files.lock().is_in_use() {
            // Before it can be opened again by another.
            self.memory.set(0);
            self.index_memory.set(0);
            self.opened.set(0);
            self.residence.store(Arc::new(Residence::Closed(self.counts())));
            self.progress.notify_waiters();
            return None;
        }
        let (writer, requests) = mpsc::channel(WRITER_QUEUE_MAX);
        open.writer.store(Some(Arc::new(writer)));
        self.shut_again(open);
        self.progress.notify_waiters();
        Some(requests)
    }

    /// Takes no more requests; lets the writer finish what it was asked for and end.
    pub(crate) fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
        if let Ok(open) = self.residence() {
            self.shut_again(&open);
        }
        self.progress.notify_waiters();
    }

    /// After a writer was given: whoever shut the library before did not see it.
    fn shut_again(&self, open: &Open) {
        if self.shut.load(Ordering::SeqCst) {
            open.writer.store(None);
        }
    }

    /// Refuses if the library takes no more requests.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        if self.shut.load(Ordering::SeqCst) { Err(self.gone()) } else { Ok(()) }
    }

    fn gone(&self) -> EngineError {
        if self.deleted.load(Ordering::SeqCst) {
            EngineError::LibraryNotFound(self.id)
        } else {
            EngineError::Closed
        }
    }
}

/// Where a writer's answer comes.
pub(crate) type Answer = oneshot::Receiver<Result<WriteDone, EngineError>>;

/// Why a command did not reach a writer.
pub(crate) enum NotSent {
    /// The library closes, or is closed. Here the command is again.
    Closing(Box<Command>),
    Refused(EngineError),
}

/// The library has no writer: it is closed, or being closed.
struct NoWriter;
