//! The change feed: one task follows the log, many follow the task.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrwdb_engine::state::{CatalogEntry, LibraryId, Seq, TenantId, WorkEntry};
use arrwdb_engine::{Engine, EngineError, RawRecord, Subject, WantedRecords};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;

use crate::changes;
use crate::cursor::records_after;
use crate::error::{FeedError, undecodable};
use crate::event::{Changes, Position};
use crate::filter::Filter;
use crate::owners::Owners;
use crate::ring::{Ring, Topic};
use crate::stats::{Counters, FeedStats};
use crate::subscription::Subscription;

/// Followers that may read from disk at the same time; the disk does not get faster with more.
const DISK_READERS_MAX: usize = 4;

/// How much the feed keeps in memory.
#[derive(Debug, Clone, Copy)]
pub struct FeedConfig {
    /// Events.
    pub events_max: usize,
    /// Bytes that they take.
    pub bytes_max: usize,
}

impl Default for FeedConfig {
    fn default() -> Self {
        Self { events_max: 262_144, bytes_max: 32 << 20 }
    }
}

/// The change feed. Cheap to clone; all clones are one feed.
#[derive(Debug, Clone)]
pub struct Feed(pub(crate) Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) ring: Mutex<Ring>,
    pub(crate) owners: RwLock<Owners>,
    pub(crate) counters: Counters,
    pub(crate) disk_readers: Arc<Semaphore>,
    /// Rung whenever the feed has come further.
    moved: Notify,
    stopping: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Feed {
    /// Begins to follow the log from now on. Reads what the log has of the catalog.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn start(engine: Engine, config: FeedConfig) -> Result<Self, FeedError> {
        let head = engine.durable();
        let reader = engine.clone();
        let owners = tokio::task::spawn_blocking(move || Owners::read(&reader));
        let owners = owners.await.map_err(|error| storage(&error))??;
        let feed = Self(Arc::new(Shared {
            engine,
            ring: Mutex::new(Ring::new(head, config.events_max, config.bytes_max)),
            owners: RwLock::new(owners),
            counters: Counters::new(),
            disk_readers: Arc::new(Semaphore::new(DISK_READERS_MAX)),
            moved: Notify::new(),
            stopping: watch::Sender::new(false),
            task: Mutex::new(None),
        }));
        let shared = feed.0.clone();
        *feed.0.task.lock() = Some(tokio::spawn(async move {
            let _ending = Ending(shared.clone());
            shared.run(head).await;
        }));
        Ok(feed)
    }

    /// Ends the feed: who follows it is told so. The engine goes on.
    pub async fn close(&self) {
        self.0.stopping.send_replace(true);
        let task = self.0.task.lock().take();
        if let Some(task) = task {
            // One that panicked has said so.
            task.await.unwrap_or_default();
        }
        self.0.end(FeedError::Closed);
    }

    /// The events after `after` that pass a filter, or those from now on: those of writes that are
    /// acknowledged after this call.
    ///
    /// # Errors
    /// [`FeedError::LibraryNotFound`] if the tenant has no such library, and had none of which the
    /// log has records.
    pub fn subscribe(
        &self,
        filter: Filter,
        after: Option<Position>,
    ) -> Result<Subscription, FeedError> {
        let topic = match filter.library {
            None => Topic::Tenant(filter.tenant),
            Some(library) => {
                self.check_library(filter.tenant, library)?;
                Topic::Library(library)
            }
        };
        let after = after.unwrap_or_else(|| Position::after(self.0.engine.durable()));
        Ok(Subscription::new(self.clone(), filter, topic, after))
    }

    /// Refuses if the tenant has no such library, and had none of which the log has records.
    pub fn check_library(&self, tenant: TenantId, library: LibraryId) -> Result<(), FeedError> {
        if library.is_companion() {
            return Err(FeedError::LibraryNotFound(library));
        }
        {
            let owners = self.0.owners.read();
            if owners.is_whole(library) && owners.tenant(library) == Some(tenant) {
                return Ok(());
            }
        }
        // It may be newer than what the feed has come to.
        if self.0.engine.tenant_of(library) == Some(tenant) {
            return Ok(());
        }
        Err(FeedError::LibraryNotFound(library))
    }

    /// The last record that followers are told of: all before are, too.
    pub fn head(&self) -> Seq {
        self.0.ring.lock().head()
    }

    /// Waits until followers are told of everything up to `seq`, or the feed has ended. One who
    /// waits for what was durable when it was asked is told of every write acknowledged before.
    pub async fn reached(&self, seq: Seq) {
        loop {
            // Registered before looking, so that no progress in between is missed.
            let moved = self.0.moved.notified();
            {
                let ring = self.0.ring.lock();
                if ring.head() >= seq || !ring.is_running() {
                    return;
                }
            }
            moved.await;
        }
    }

    /// The oldest number from which on all events are kept.
    pub fn oldest(&self) -> Seq {
        self.0.engine.oldest()
    }

    /// The number up to which events are there to be delivered.
    pub fn seen(&self) -> Seq {
        self.0.ring.lock().head()
    }

    /// Says that one who follows was cut off for not taking what it asked for.
    pub fn note_cut_off(&self) {
        self.0.counters.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// What the feed has done, and how it is.
    pub fn stats(&self) -> FeedStats {
        let counters = &self.0.counters;
        let (head, held, running) = {
            let ring = self.0.ring.lock();
            (ring.head(), ring.held(), ring.is_running())
        };
        FeedStats {
            published: counters.by_type(),
            delivered: counters.delivered.load(Ordering::Relaxed),
            errors: counters.errors.load(Ordering::Relaxed),
            pending: self.0.engine.durable().get().saturating_sub(head.get()),
            subscribers: counters.subscribers.load(Ordering::Relaxed),
            disk_reads: counters.disk_reads.load(Ordering::Relaxed),
            buffered_events: held.0 as u64,
            buffered_bytes: held.1 as u64,
            running,
            latency: counters.latency(),
            uptime: counters.started.elapsed(),
        }
    }
}

/// Ends the feed when its task does, in whatever way: who follows it is told.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        let detail = "the change feed's task stopped; start the server again".into();
        self.0.end(EngineError::Storage { detail }.into());
    }
}

impl Shared {
    /// Follows the log until the feed is closed or the log cannot be read.
    async fn run(&self, head: Seq) {
        let mut stopping = self.stopping.subscribe();
        let ended = tokio::select! {
            ended = self.follow(head) => ended,
            // The sender is in here, too.
            _stopping = stopping.wait_for(|stopping| *stopping) => FeedError::Closed,
        };
        if !matches!(ended, FeedError::Closed) {
            tracing::error!(error = %ended, "the change feed ends; start the server again");
        }
        self.end(ended);
    }

    fn end(&self, why: FeedError) {
        let bells = self.ring.lock().end(why);
        for bell in bells {
            bell.notify_waiters();
        }
        self.moved.notify_waiters();
    }

    async fn follow(&self, mut head: Seq) -> FeedError {
        let mut oldest = Seq::START;
        loop {
            let batch = match records_after(&self.engine, head).await.map_err(FeedError::from) {
                Ok(batch) => batch,
                Err(FeedError::Trimmed { oldest }) => {
                    match self.skip_to(oldest).await {
                        Ok(skipped) => head = skipped,
                        // Trimmed again meanwhile.
                        Err(FeedError::Trimmed { .. }) => {}
                        Err(error) => return error,
                    }
                    continue;
                }
                Err(error) => return error,
            };
            let mut ready = Vec::with_capacity(batch.len());
            for record in &batch {
                if !self.engine.is_applied(record.subject, record.seq) {
                    self.publish(std::mem::take(&mut ready), head);
                    self.engine.applied(record.subject, record.seq).await;
                }
                match self.take_in(record) {
                    Ok(changes) => ready.extend(changes),
                    Err(error) => return error,
                }
                head = record.seq;
            }
            self.publish(ready, head);
            let oldest_now = self.engine.oldest();
            if oldest_now > oldest {
                oldest = oldest_now;
                self.owners.write().forget(oldest);
            }
        }
    }

    /// Goes on with the record `oldest`, as the log before it is gone: followers that have not come
    /// so far are told that, and nobody else's feed ends. Returns the record before.
    async fn skip_to(&self, oldest: Seq) -> Result<Seq, FeedError> {
        tracing::error!(
            told = %self.ring.lock().head(), %oldest,
            "the log was trimmed before the change feed had read it: followers begin again; keep \
             more of the log (the feed's retention)"
        );
        let reader = self.engine.clone();
        let owners = tokio::task::spawn_blocking(move || Owners::read(&reader));
        *self.owners.write() = owners.await.map_err(|error| storage(&error))??;
        let head = Seq::new(oldest.get().saturating_sub(1));
        let bells = self.ring.lock().skip_to(head);
        for bell in bells {
            bell.notify_waiters();
        }
        self.moved.notify_waiters();
        Ok(head)
    }

    /// The events of the next record, and what it says of libraries.
    fn take_in(&self, record: &RawRecord) -> Result<Option<Changes>, FeedError> {
        if let (Subject::Catalog, Some(part)) = (record.subject, record.parts.first()) {
            let entry = CatalogEntry::decode(part);
            let entry = entry.map_err(|error| undecodable(record.seq, &error))?;
            self.owners.write().note(record.seq, &entry);
        }
        self.project(record)
    }

    /// A record's events; `None` if it has none.
    fn project(&self, record: &RawRecord) -> Result<Option<Changes>, FeedError> {
        let undecodable = |error| FeedError::from(undecodable(record.seq, &error));
        let changes = match record.subject {
            Subject::Catalog => {
                let Some(part) = record.parts.first() else { return Ok(None) };
                let entry = CatalogEntry::decode(part).map_err(undecodable)?;
                let owners = self.owners.read();
                changes::of_catalog(record.seq, &entry, |id| owners.tenant(id))
            }
            Subject::Library(library) => {
                let tenant = self.owners.read().tenant_at(library, record.seq);
                let Some(tenant) = tenant else { return Ok(None) };
                let outline = changes::decode(&record.parts).map_err(undecodable)?;
                let owners = self.owners.read();
                let told_as = |generation| owners.told_as(generation, record.seq);
                changes::of_library(record.seq, (library, tenant), outline, told_as)
            }
            Subject::Work => {
                let Some(part) = record.parts.first() else { return Ok(None) };
                let entry = WorkEntry::decode(part).map_err(undecodable)?;
                changes::of_work(record.seq, &entry)
            }
        };
        let durable_at = record.durable_at;
        Ok(changes.map(|changes| Changes { durable_at, ..changes }))
    }

    fn publish(&self, ready: Vec<Changes>, head: Seq) {
        for changes in &ready {
            self.counters.published(changes);
        }
        let bells = self.ring.lock().publish(ready, head);
        for bell in bells {
            bell.notify_waiters();
        }
        self.moved.notify_waiters();
    }

    /// Reads events from disk that pass a filter, up to a record: blocks. Returns them and how far
    /// it came.
    pub(crate) fn read(
        &self,
        filter: &Filter,
        (after, through): (Seq, Seq),
        (records_max, bytes_max): (usize, usize),
    ) -> Result<(Vec<Arc<Changes>>, Seq), FeedError> {
        let generations = |library| self.owners.read().generations(library);
        let wanted = filter.library.map(generations);
        let wanted = wanted.map_or(WantedRecords::All, WantedRecords::Library);
        let (mut found, mut bytes, mut seen) = (Vec::new(), 0, after);
        let mut take = |record: RawRecord| -> Result<ControlFlow<()>, FeedError> {
            if record.seq > through {
                return Ok(ControlFlow::Break(()));
            }
            bytes += record.parts.iter().map(Bytes::len).sum::<usize>();
            if self.may_concern(filter, &record)
                && let Some(changes) = self.project(&record)?
                && filter.may_pass(&changes)
            {
                found.push(Arc::new(changes));
            }
            seen = record.seq;
            let full = found.len() >= records_max || bytes >= bytes_max;
            Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        let mut to_the_end = true;
        for record in self.engine.read_records(after, wanted)? {
            if take(record?)?.is_break() {
                to_the_end = false;
                break;
            }
        }
        // What was trimmed while it was read may be missing.
        self.engine.check_kept(after)?;
        let seen = if to_the_end { through.max(seen) } else { seen };
        Ok((found, seen))
    }

    /// Whether a record is worth decoding.
    fn may_concern(&self, filter: &Filter, record: &RawRecord) -> bool {
        match record.subject {
            Subject::Catalog | Subject::Work => true,
            Subject::Library(id) => self.owners.read().tenant(id) == Some(filter.tenant),
        }
    }
}

pub(crate) fn storage(error: &dyn std::fmt::Display) -> FeedError {
    EngineError::Storage { detail: error.to_string() }.into()
}
