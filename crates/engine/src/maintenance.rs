//! Upkeep off the write path: checkpoints, merges of files that are scanned, trimming of the log,
//! removal of what deleted libraries leave. One thing at a time, so that it never takes more than
//! one core's and one merge's worth of the machine. (What libraries are searched by is built, and
//! their files merged, by [`crate::building`].)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arrwdb_log::TrimReport;
use arrwdb_state::{Seq, Work};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::checkpoint::checkpoint;
use crate::closing::Closing;
use crate::engine::Inner;
use crate::error::{EngineError, RETRY_AFTER};
use crate::handle::Handle;
use crate::held::RETENTION_FACTOR;
use crate::history::Samples;
use crate::purge::{self, PurgeReceipt};
use crate::residence::OPEN_LIBRARIES_MAX;
use crate::retention;
use crate::scrub::Scrub;

/// Tasks that may wait. A checkpoint that finds the queue full is asked for again by the next
/// write; a directory left behind is removed at the next start.
const QUEUE_MAX: usize = 1024;
/// How often the clock is sampled, the disk looked at and the log trimmed.
const TICK: Duration = Duration::from_secs(5);
/// Bytes of catalog snapshots that are written in a tick, on average: a snapshot with a hundred
/// thousand jobs is not worth writing every time that one of them changes.
const SNAPSHOT_BYTES_PER_TICK: u64 = 5 << 20;
/// A quiet library's records are not left in the log beyond this many bytes of it: its library is
/// checkpointed so that a start has little more than that to replay.
const REPLAY_BYTES_MAX: u64 = 256 << 20;
/// Ticks after which merged files are named in a manifest, should no other reason for one come: a
/// library that is written to has one sooner, and need not write a small file for this one.
const RELAID_TICKS: u64 = 2;
/// How long one tick closes idle libraries, so that their checkpoints do not crowd out others.
const IDLE_TIME_MAX: Duration = Duration::from_secs(2);
/// How long one tick checkpoints libraries that pin the log; the rest of the time is for others.
const EASE_TIME_MAX: Duration = Duration::from_secs(2);
/// How long closing writes checkpoints.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(10);

/// Something to do.
#[derive(Debug)]
pub(crate) enum Task {
    Checkpoint(Arc<Handle>),
    /// As [`Task::Checkpoint`], and tell how it went.
    CheckpointNow(Arc<Handle>, oneshot::Sender<Result<(), EngineError>>),
    /// Write and close libraries until the memory is well below its budget.
    Relieve,
    /// Write and close every library that is not written to meanwhile.
    CloseLibraries(oneshot::Sender<()>),
    RemoveLibrary(Arc<Handle>),
    /// Remove for good what was deleted.
    Purge(oneshot::Sender<Result<PurgeReceipt, EngineError>>),
    /// Checkpoint everything and stop.
    Close(oneshot::Sender<()>),
}

/// The way to the upkeep, and what it tells the writers.
#[derive(Debug, Clone)]
pub(crate) struct Upkeep {
    tasks: mpsc::Sender<Task>,
    horizon: Arc<AtomicU64>,
    ticks: Arc<AtomicU64>,
    relief_wanted: Arc<AtomicBool>,
    closing: Closing,
}

impl Upkeep {
    pub(crate) fn new(horizon: Seq) -> (Self, mpsc::Receiver<Task>) {
        let (tasks, receiver) = mpsc::channel(QUEUE_MAX);
        let upkeep = Self {
            tasks,
            horizon: Arc::new(AtomicU64::new(horizon.get())),
            ticks: Arc::default(),
            relief_wanted: Arc::default(),
            closing: Closing::new(),
        };
        (upkeep, receiver)
    }

    /// Rows that died at or before this are beyond the history that is kept.
    pub(crate) fn horizon(&self) -> Seq {
        Seq::new(self.horizon.load(Ordering::Relaxed))
    }

    /// Asks for a checkpoint, unless one is asked for already.
    pub(crate) fn want_checkpoint(&self, handle: &Arc<Handle>) {
        if !handle.checkpoint_wanted.swap(true, Ordering::SeqCst)
            && self.tasks.try_send(Task::Checkpoint(handle.clone())).is_err()
        {
            handle.checkpoint_wanted.store(false, Ordering::SeqCst);
        }
    }

    /// Whether the upkeep still works: without it nothing is checkpointed or trimmed.
    pub(crate) fn is_running(&self) -> bool {
        !self.tasks.is_closed()
    }

    /// Ticks since the start, to tell how long a library has not been used.
    pub(crate) fn now(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// Asks for memory to be freed, unless that is asked for already.
    pub(crate) fn want_relief(&self) {
        if !self.relief_wanted.swap(true, Ordering::SeqCst)
            && self.tasks.try_send(Task::Relieve).is_err()
        {
            self.relief_wanted.store(false, Ordering::SeqCst);
        }
    }

    pub(crate) fn remove_library(&self, handle: Arc<Handle>) {
        let id = handle.id;
        if self.tasks.try_send(Task::RemoveLibrary(handle)).is_err() {
            tracing::warn!(library = %id, "its files are removed at the next start");
        }
    }

    /// Removes for good what was deleted.
    pub(crate) async fn purge(&self) -> Result<PurgeReceipt, EngineError> {
        self.ask(Task::Purge).await
    }

    /// Writes what a library holds in memory to files.
    pub(crate) async fn checkpoint_now(&self, handle: &Arc<Handle>) -> Result<(), EngineError> {
        self.ask(|reply| Task::CheckpointNow(handle.clone(), reply)).await
    }

    async fn ask<T>(
        &self,
        task: impl FnOnce(oneshot::Sender<Result<T, EngineError>>) -> Task,
    ) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.tasks.try_send(task(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                EngineError::Busy { what: "the queue of upkeep", retry_after: RETRY_AFTER }
            }
            mpsc::error::TrySendError::Closed(_) => EngineError::Closed,
        })?;
        answer.await.map_err(|_upkeep_ended| EngineError::Closed)?
    }

    /// Writes and closes libraries; returns when that is done.
    pub(crate) async fn close_libraries(&self) {
        self.do_and_wait(Task::CloseLibraries).await;
    }

    /// Stops what may be left undone: it is done after the next start, or asked for again.
    pub(crate) fn begin_close(&self) {
        self.closing.begin();
    }

    pub(crate) fn closing(&self) -> &Closing {
        &self.closing
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.has_begun()
    }

    /// Refuses once the engine closes.
    pub(crate) fn check_open(&self) -> Result<(), EngineError> {
        if self.is_closing() { Err(EngineError::Closed) } else { Ok(()) }
    }

    /// Checkpoints everything; returns when that is done.
    pub(crate) async fn close(&self) {
        self.do_and_wait(Task::Close).await;
    }

    async fn do_and_wait(&self, task: fn(oneshot::Sender<()>) -> Task) {
        let (done, finished) = oneshot::channel();
        if self.tasks.send(task(done)).await.is_ok() {
            // Dropped without an answer means that it has stopped, which is what is waited for.
            finished.await.unwrap_or_default();
        }
    }
}

/// Works until it is told to close.
pub(crate) async fn run(engine: Arc<Inner>, mut samples: Samples, mut tasks: mpsc::Receiver<Task>) {
    let mut scrub = Scrub::default();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _instant = tick.tick() => {
                engine.move_horizon(&mut samples);
                engine.look_at_disk();
                engine.forget_jobs();
                engine.upkeep.ticks.fetch_add(1, Ordering::Relaxed);
                settle_relaid(&engine);
                close_idle(&engine).await;
                if let Err(error) = ease_log(&engine).await {
                    tracing::error!(%error, "cannot trim the log");
                }
                scrub.step(&engine, TICK).await;
            }
            task = tasks.recv() => match task {
                None => return,
                Some(Task::Close(done)) => {
                    checkpoint_all(&engine).await;
                    done.send(()).unwrap_or_default();
                    return;
                }
                Some(Task::RemoveLibrary(handle)) => remove_library(&engine, &handle).await,
                // Dropped: whoever waits for it is told that the engine closes.
                Some(_) if engine.upkeep.is_closing() => {}
                Some(Task::Checkpoint(handle)) => {
                    report(&handle, checkpoint(&engine, &handle).await);
                }
                Some(Task::CheckpointNow(handle, reply)) => {
                    // Whoever asked may have left; it is done all the same.
                    drop(reply.send(checkpoint(&engine, &handle).await));
                }
                Some(Task::Relieve) => relieve(&engine).await,
                Some(Task::CloseLibraries(done)) => {
                    for handle in engine.handles.load_full().values() {
                        if engine.upkeep.is_closing() {
                            break;
                        }
                        close_library(&engine, handle).await;
                    }
                    done.send(()).unwrap_or_default();
                }
                Some(Task::Purge(reply)) => {
                    let outcome = purge::run(&engine).await;
                    if let Err(error) = &outcome {
                        tracing::error!(%error, "what was deleted is not removed everywhere");
                    }
                    // Whoever asked may have left; it is done all the same.
                    drop(reply.send(outcome));
                }
            }
        }
    }
}

impl Inner {
    /// Forgets what is older than the history that is kept.
    fn move_horizon(&self, samples: &mut Samples) {
        let horizon = samples.take(&self.config, self.parts.clock.now(), self.log.durable());
        if let Some(horizon) = horizon {
            self.upkeep.horizon.fetch_max(horizon, Ordering::Relaxed);
        }
    }
}

async fn remove_library(engine: &Inner, handle: &Handle) {
    let (store, id) = (engine.store.clone(), handle.id);
    let _alone = handle.halt_building().await;
    match blocking(move || store.remove_library(id)).await {
        Ok(()) => tracing::info!(library = %id, "removed its files"),
        Err(error) => tracing::error!(library = %id, %error, "cannot remove its files"),
    }
}

fn report(handle: &Handle, outcome: Result<(), EngineError>) {
    if let Err(error) = outcome {
        tracing::error!(library = %handle.id, %error, "cannot write a checkpoint; the log keeps everything");
    }
}

/// Writes what is in memory only, the libraries with the most of it first, for a bounded time: what
/// is left is replayed from the log at the next start.
async fn checkpoint_all(engine: &Arc<Inner>) {
    let until = Instant::now() + CLOSE_TIME_MAX;
    let mut dirty: Vec<Arc<Handle>> = engine.handles.load_full().values().cloned().collect();
    dirty.retain(|handle| !handle.is_clean());
    // Keys change meanwhile: each is read once.
    dirty.sort_by_cached_key(|handle| std::cmp::Reverse(handle.memory_bytes()));
    let mut left = dirty.len();
    for handle in dirty {
        if Instant::now() > until {
            tracing::info!(libraries = left, "the next start replays them from the log");
            break;
        }
        report(&handle, checkpoint(engine, &handle).await);
        left -= 1;
    }
    if let Err(error) = ease_log(engine).await {
        tracing::error!(%error, "cannot trim the log");
    }
}

/// Has the manifests written of libraries whose files were merged and that are not written to: what
/// was merged is on disk twice until then.
fn settle_relaid(engine: &Inner) {
    let before = engine.upkeep.now().saturating_sub(RELAID_TICKS);
    for handle in engine.handles.load_full().values() {
        if handle.relaid().is_some_and(|tick| tick < before) {
            engine.upkeep.want_checkpoint(handle);
        }
    }
}

/// Closes libraries that nobody has used for a while, at a paced rate.
async fn close_idle(engine: &Arc<Inner>) {
    let ticks = engine.config.library_idle.as_secs().div_ceil(TICK.as_secs());
    let before = engine.upkeep.now().saturating_sub(ticks);
    let handles = engine.handles.load_full();
    let idle = handles.values().filter(|handle| handle.residence().is_ok());
    let idle = idle.filter(|handle| handle.last_used.load(Ordering::Relaxed) < before);
    let until = Instant::now() + IDLE_TIME_MAX;
    for handle in idle {
        close_library(engine, handle).await;
        if Instant::now() > until {
            break;
        }
    }
}

/// Checkpoints a library and closes it; one that is written to meanwhile stays open.
async fn close_library(engine: &Arc<Inner>, handle: &Arc<Handle>) {
    if handle.residence().is_err() || handle.files.lock().is_in_use() {
        return;
    }
    if !handle.is_clean() {
        report(handle, checkpoint(engine, handle).await);
    }
    if handle.is_clean() && handle.try_close().await {
        tracing::debug!(library = %handle.id, "closed");
    }
}

/// Frees memory: checkpoints the libraries that hold the most of it, then closes those that were
/// not used for the longest time, until half of the budget and of the open libraries are left.
async fn relieve(engine: &Arc<Inner>) {
    engine.upkeep.relief_wanted.store(false, Ordering::SeqCst);
    // What libraries are searched by is not freed by checkpoints, and is no reason to close those
    // that are searched.
    let gauges = &engine.gauges;
    let held = || gauges.memory.total().saturating_sub(gauges.indexes.total());
    let high = || {
        held() > engine.config.memory_budget_bytes / 2
            || engine.gauges.open.total() > OPEN_LIBRARIES_MAX / 2
    };
    let handles = engine.handles.load_full();
    let mut open: Vec<&Arc<Handle>> =
        handles.values().filter(|handle| handle.residence().is_ok()).collect();
    open.sort_by_cached_key(|handle| std::cmp::Reverse(handle.memory_bytes()));
    for handle in &open {
        if held() <= engine.config.memory_budget_bytes / 2 || engine.upkeep.is_closing() {
            break;
        }
        if !handle.is_clean() {
            report(handle, checkpoint(engine, handle).await);
        }
    }
    open.sort_by_cached_key(|handle| handle.last_used.load(Ordering::Relaxed));
    for handle in open {
        if !high() || engine.upkeep.is_closing() {
            break;
        }
        close_library(engine, handle).await;
    }
}

/// Checkpoints libraries that keep much of the log from being trimmed, snapshots the catalog, and
/// removes log files that nobody needs any more.
async fn ease_log(engine: &Arc<Inner>) -> Result<(), EngineError> {
    let until = Instant::now() + EASE_TIME_MAX;
    let durable = engine.log.durable();
    let mut dirty: Vec<Arc<Handle>> = engine.handles.load_full().values().cloned().collect();
    dirty.retain(|handle| !handle.is_clean());
    dirty.sort_by_cached_key(|handle| handle.covered(durable));
    for handle in dirty {
        if replay_bytes(engine, handle.covered(durable)) <= REPLAY_BYTES_MAX
            || Instant::now() > until
        {
            break;
        }
        report(&handle, checkpoint(engine, &handle).await);
    }
    let engine = engine.clone();
    blocking(move || snapshot_and_trim(&engine, Keep::Retention).map(drop)).await
}

/// A catalog snapshot that was written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LastSnapshot {
    bytes: u64,
    /// The tick in which it was.
    tick: u64,
}

impl LastSnapshot {
    /// Whether the next one may be written.
    fn is_paid_off(self, tick: u64) -> bool {
        tick.saturating_sub(self.tick) >= self.bytes / SNAPSHOT_BYTES_PER_TICK
    }
}

/// What is kept of the log beyond what a start needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// What the feed's retention says.
    Retention,
    Nothing,
}

/// Bytes of the log in files that hold records after this one.
fn replay_bytes(engine: &Inner, after: u64) -> u64 {
    let files = engine.log.files();
    files.iter().filter(|file| file.last > after).map(|file| file.bytes).sum()
}

pub(crate) fn snapshot_and_trim(engine: &Inner, keep: Keep) -> Result<TrimReport, EngineError> {
    // What is durable is read first: whatever becomes unapplied later is above it.
    let durable = engine.log.durable();
    let published_to = engine.catalog_unapplied.published_to();
    let catalog = engine.catalog.load_full();
    let handles = engine.handles.load_full();
    let worked_to = engine.work.unapplied.published_to();
    let libraries = handles.values().map(|handle| handle.covered(durable));
    let covered = libraries.min().unwrap_or(durable).min(published_to).min(worked_to).min(durable);
    let before = engine.covered.load(Ordering::SeqCst);
    let tick = engine.upkeep.now();
    let is_wanted = keep == Keep::Nothing
        || engine.upkeep.is_closing()
        || engine.last_snapshot.lock().is_paid_off(tick);
    let covered = if covered > before && is_wanted {
        let checkpointed = |id| handles.get(&id).map_or(Seq::START, |handle| handle.checkpointed());
        let work = engine.work.look(Work::clone);
        let snapshot = catalog.write(&work, checkpointed);
        engine.store.write_catalog(&snapshot, Seq::new(covered))?;
        engine.covered.store(covered, Ordering::SeqCst);
        *engine.last_snapshot.lock() = LastSnapshot { bytes: snapshot.len() as u64, tick };
        covered
    } else {
        before
    };
    let expired = match keep {
        Keep::Retention => {
            let expired = |times| {
                retention::expired(&engine.log, &engine.config, engine.parts.clock.now(), times)
            };
            engine.unheld(
                expired(1)?,
                expired(RETENTION_FACTOR)?,
                engine.work.look(Work::needed_after),
            )
        }
        Keep::Nothing => engine.held.followed_to().min(engine.carried_from()),
    };
    let report = engine.trim(expired.min(covered))?;
    if report.files > 0 {
        tracing::info!(files = report.files, bytes = report.bytes, "trimmed the log");
    }
    Ok(report)
}

/// Runs disk work where it may wait.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| EngineError::Storage { detail: format!("upkeep stopped: {error}") })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_snapshot_is_written_seldom_and_a_small_one_whenever_there_is_news() {
        let written = |megabytes: u64| LastSnapshot { bytes: megabytes << 20, tick: 10 };
        assert!(LastSnapshot::default().is_paid_off(0));
        assert!(written(4).is_paid_off(10));
        assert!(!written(100).is_paid_off(29));
        assert!(written(100).is_paid_off(30));
    }
}
