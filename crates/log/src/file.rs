//! The log in files: `log/<first-seq>.log`, one thread writing, everybody reading.
//!
//! Appends and the thread meet at one mutex (the queue); readers and the thread at another (the
//! list of files), held for moments only. Nobody holds two of them.

mod check;
mod commit;
pub(crate) mod frames;
mod index;
mod read;
mod recent;
pub(crate) mod recover;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

pub use self::check::{
    CheckReport, Fault, Lost, RepairReport, Repaired, Rescue, Whole, check, check_records,
    cut_torn_tail, repair,
};
use self::commit::Writer;
use self::read::{Reader, Wanted};
use self::recent::Tail;
use self::recover::{Active, Sealed};
use crate::disk::Disk;
use crate::{
    Log, LogError, LogFile, LogOptions, LogStats, OnAdvance, OnDurable, RECORD_BYTES_MAX, Recent,
    Records, Recovery, Stream, TrimReport,
};

/// Payload bytes of one group, but for a single larger record: bounds the writer's latency, and how
/// far a file can outgrow its size.
const GROUP_BYTES_MAX: u64 = 16 << 20;

/// Failed ranges remembered for [`Log::append_after`]. A writer learns of a failure by its
/// callback; it would have to sleep through so many full disks to slip by.
const REFUSED_RANGES_MAX: usize = 1024;

/// The log in a directory of files. Dropping it closes it (and waits for what is queued), without
/// telling how that went: [`Log::close`] does.
#[derive(Debug)]
pub struct FileLog {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A record on its way to disk.
struct Queued {
    seq: u64,
    stream: Stream,
    payload: Vec<Bytes>,
    bytes: usize,
    done: OnDurable,
}

/// Why the queue takes no more.
#[derive(Clone)]
enum Ended {
    Closed,
    Poisoned(Arc<str>),
}

impl Ended {
    fn error(&self) -> LogError {
        match self {
            Self::Closed => LogError::Closed,
            Self::Poisoned(cause) => LogError::Poisoned { cause: Arc::clone(cause) },
        }
    }
}

struct Queue {
    waiting: VecDeque<Queued>,
    /// Payload bytes waiting or being written.
    bytes: u64,
    /// Records waiting or being written.
    records: u64,
    last_assigned: u64,
    ended: Option<Ended>,
    /// Numbers refused because the disk was full, as inclusive ranges, oldest first.
    refused: VecDeque<(u64, u64)>,
}

/// What waiters wait for.
struct Tide {
    durable: u64,
    ended: bool,
}

struct Files {
    /// Oldest first.
    sealed: VecDeque<Arc<Sealed>>,
    active: Active,
}

struct Shared {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: LogOptions,
    queue: Mutex<Queue>,
    /// Something was queued, or the log is closing.
    work: Condvar,
    tide: Mutex<Tide>,
    /// The tide rose, or ended.
    risen: Condvar,
    durable: AtomicU64,
    /// The next group goes to a new file.
    begin_file: AtomicBool,
    files: Mutex<Files>,
    /// The newest durable records.
    tail: Mutex<Tail>,
    /// One trim at a time.
    trimming: Mutex<()>,
    listeners: Mutex<Vec<Arc<OnAdvance>>>,
    stats: Mutex<LogStats>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl FileLog {
    /// Opens the log in `dir`, making it if need be. The caller holds the data directory's lock
    /// ([`crate::lock()`]). Cuts a torn tail (L4) and says so; reads the last file whole, and of
    /// sealed files header and index only (their records are checked when they are read, or by
    /// [`check()`]).
    ///
    /// Errors: [`LogError::Damaged`], [`LogError::Newer`], [`LogError::DiskFull`] (only where a
    /// file must be made), [`LogError::Io`].
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: LogOptions,
    ) -> Result<(Self, Recovery), LogError> {
        let opened = recover::open(&*disk, dir, &options)?;
        // No number above `start_after` was given out by another log that this one continues.
        let last = opened.writer.last.max(options.start_after);
        let recovery = Recovery {
            first: first(&opened.sealed, &opened.active),
            last,
            written: opened.writer.last,
            files: opened.sealed.len() as u64 + 1,
            torn_tail: opened.torn_tail,
        };
        let tail = Mutex::new(Tail::new(last, options.recent_bytes));
        let shared = Arc::new(Shared {
            disk,
            dir: dir.to_owned(),
            options,
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                bytes: 0,
                records: 0,
                last_assigned: last,
                ended: None,
                refused: VecDeque::new(),
            }),
            work: Condvar::new(),
            tide: Mutex::new(Tide { durable: last, ended: false }),
            risen: Condvar::new(),
            durable: AtomicU64::new(last),
            begin_file: AtomicBool::new(false),
            files: Mutex::new(Files { sealed: opened.sealed, active: opened.active }),
            tail,
            trimming: Mutex::new(()),
            listeners: Mutex::new(Vec::new()),
            stats: Mutex::new(LogStats::default()),
        });
        let writer = Writer::new(Arc::clone(&shared), opened.writer);
        let thread = thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.run())
            .map_err(LogError::io("start the thread of", dir))?;
        Ok((Self { shared, thread: Mutex::new(Some(thread)) }, recovery))
    }

    fn shut(&self) -> Result<(), LogError> {
        self.shared.begin_close();
        let thread = self.thread.lock().take();
        // A callback on the log's own thread may hold the last reference.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != thread::current().id())
            && thread.join().is_err()
        {
            return Err(LogError::Poisoned { cause: "the log's thread panicked".into() });
        }
        match &self.shared.queue.lock().ended {
            Some(Ended::Poisoned(cause)) => Err(LogError::Poisoned { cause: Arc::clone(cause) }),
            Some(Ended::Closed) | None => Ok(()),
        }
    }
}

impl Drop for FileLog {
    fn drop(&mut self) {
        if let Err(error) = self.shut() {
            tracing::error!(%error, "the log was dropped poisoned");
        }
    }
}

fn first(sealed: &VecDeque<Arc<Sealed>>, active: &Active) -> u64 {
    sealed.front().map_or(active.header.previous, |oldest| oldest.previous) + 1
}

impl Log for FileLog {
    fn append_after(
        &self,
        depends: u64,
        stream: Stream,
        payload: Vec<Bytes>,
        done: OnDurable,
    ) -> Result<u64, LogError> {
        let bytes = payload.iter().map(Bytes::len).fold(0, usize::saturating_add);
        if bytes > RECORD_BYTES_MAX {
            let bytes_max = RECORD_BYTES_MAX as u64;
            return Err(LogError::TooLarge { bytes: bytes as u64, bytes_max });
        }
        let mut queue = self.shared.queue.lock();
        // Under the lock, or a writer could slip between the poison and the queue's emptying.
        if let Some(ended) = &queue.ended {
            return Err(ended.error());
        }
        if queue.refused.iter().any(|&(from, to)| (from..=to).contains(&depends)) {
            return Err(LogError::DiskFull { path: self.shared.dir.clone() });
        }
        let options = &self.shared.options;
        let full = queue.records >= options.queue_records
            || queue.bytes + bytes as u64 > options.queue_bytes;
        // An empty queue takes any record, or a large one could never be written.
        if full && queue.records > 0 {
            let (queued_records, queued_bytes) = (queue.records, queue.bytes);
            return Err(LogError::Full { queued_records, queued_bytes });
        }
        let seq = queue.last_assigned + 1;
        queue.last_assigned = seq;
        queue.bytes += bytes as u64;
        queue.records += 1;
        queue.waiting.push_back(Queued { seq, stream, payload, bytes, done });
        drop(queue);
        self.shared.work.notify_one();
        Ok(seq)
    }

    fn last_assigned(&self) -> u64 {
        self.shared.last_assigned()
    }

    fn durable(&self) -> u64 {
        self.shared.durable.load(Ordering::Acquire)
    }

    fn wait(&self, after: u64, timeout: Duration) -> u64 {
        let mut tide = self.shared.tide.lock();
        let low = |tide: &mut Tide| tide.durable <= after && !tide.ended;
        let _timed_out = self.shared.risen.wait_while_for(&mut tide, low, timeout);
        tide.durable
    }

    fn on_advance(&self, advanced: OnAdvance) {
        self.shared.listeners.lock().push(Arc::new(advanced));
    }

    fn read(&self, after: u64) -> Result<Records, LogError> {
        let reader = Reader::new(Arc::clone(&self.shared), Wanted::All, after);
        // Asked after the reader has its list: a trim in between is found by the reader itself.
        let first = self.shared.first();
        if after.saturating_add(1) < first {
            return Err(LogError::Trimmed { first });
        }
        Ok(Box::new(reader))
    }

    fn read_stream(&self, stream: Stream, after: u64) -> Result<Records, LogError> {
        Ok(Box::new(Reader::new(Arc::clone(&self.shared), Wanted::Of(stream), after)))
    }

    fn recent(&self, after: u64, limit: usize) -> Option<Vec<Recent>> {
        self.shared.tail.lock().after(after, limit)
    }

    fn first(&self) -> u64 {
        self.shared.first()
    }

    fn trim(&self, keep_after: u64) -> Result<TrimReport, LogError> {
        self.shared.trim(keep_after)
    }

    fn begin_file(&self) {
        self.shared.begin_file.store(true, Ordering::SeqCst);
    }

    fn files(&self) -> Vec<LogFile> {
        let files = self.shared.files.lock();
        // Under the lock, as its writer stores it: the number and the files agree.
        let durable = self.durable();
        let sealed = files.sealed.iter().map(|file| LogFile {
            last: file.extent.last,
            bytes: file.extent.end,
            sealed: true,
        });
        let active = LogFile { last: durable, bytes: files.active.end, sealed: false };
        sealed.chain([active]).collect()
    }

    fn stats(&self) -> LogStats {
        let mut stats = *self.shared.stats.lock();
        {
            let files = self.shared.files.lock();
            let sealed: u64 = files.sealed.iter().map(|file| file.extent.end).sum();
            stats.files = files.sealed.len() as u64 + 1;
            stats.bytes = sealed + files.active.end;
        }
        let queue = self.shared.queue.lock();
        stats.queued_records = queue.records;
        stats.queued_bytes = queue.bytes;
        stats.poisoned = matches!(queue.ended, Some(Ended::Poisoned(_)));
        stats
    }

    fn close(&self) -> Result<(), LogError> {
        self.shut()
    }
}

impl Shared {
    fn last_assigned(&self) -> u64 {
        self.queue.lock().last_assigned
    }

    fn first(&self) -> u64 {
        let files = self.files.lock();
        first(&files.sealed, &files.active)
    }

    /// Waits for work; what is to be written together. `None` when closed and all is written.
    fn next_group(&self) -> Option<Vec<Queued>> {
        let mut queue = self.queue.lock();
        while queue.waiting.is_empty() {
            if queue.ended.is_some() {
                return None;
            }
            self.work.wait(&mut queue);
        }
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(next) = queue.waiting.front() {
            bytes += next.bytes as u64;
            if bytes > GROUP_BYTES_MAX && !group.is_empty() {
                break;
            }
            group.extend(queue.waiting.pop_front());
        }
        Some(group)
    }

    /// A group is durable: says so to everybody, in the order that [`Log`] promises.
    fn acknowledge(&self, mut group: Vec<Queued>, durable: u64) {
        let dropped = self.tail.lock().add(&mut group);
        {
            let mut queue = self.queue.lock();
            queue.records -= group.len() as u64;
            queue.bytes -= group.iter().map(|queued| queued.bytes as u64).sum::<u64>();
        }
        {
            let mut stats = self.stats.lock();
            stats.groups += 1;
            stats.records += group.len() as u64;
        }
        self.tide.lock().durable = durable;
        self.risen.notify_all();
        for queued in group {
            (queued.done)(Ok(queued.seq));
        }
        let listeners = self.listeners.lock().clone();
        for advanced in listeners {
            advanced(durable);
        }
        // What they hold is freed when nobody waits for it.
        drop(dropped);
    }

    /// The disk was full before the group was begun: fails it and all behind it, goes on.
    fn refuse(&self, mut group: Vec<Queued>, error: &LogError) {
        let mut queue = self.queue.lock();
        group.extend(queue.waiting.drain(..));
        queue.records = 0;
        queue.bytes = 0;
        if let Some(first) = group.first() {
            let range = (first.seq, queue.last_assigned);
            queue.refused.push_back(range);
            if queue.refused.len() > REFUSED_RANGES_MAX {
                queue.refused.pop_front();
            }
        }
        drop(queue);
        self.stats.lock().disk_full_groups += 1;
        tracing::warn!(records = group.len(), %error, "the log refused records");
        for queued in group {
            (queued.done)(Err(error.clone()));
        }
    }

    /// L5: fails the group, all behind it and all later.
    fn poison(&self, mut group: Vec<Queued>, cause: Arc<str>) {
        tracing::error!(%cause, "the log is poisoned");
        let mut queue = self.queue.lock();
        let ended = Ended::Poisoned(cause);
        queue.ended = Some(ended.clone());
        group.extend(queue.waiting.drain(..));
        queue.records = 0;
        queue.bytes = 0;
        drop(queue);
        self.end();
        for queued in group {
            (queued.done)(Err(ended.error()));
        }
    }

    /// Lets the waiters go: nothing will advance any more.
    fn end(&self) {
        self.tide.lock().ended = true;
        self.risen.notify_all();
    }

    fn begin_close(&self) {
        self.queue.lock().ended.get_or_insert(Ended::Closed);
        self.work.notify_one();
    }

    fn record_sync(&self, took: Duration) {
        let mut stats = self.stats.lock();
        stats.syncs += 1;
        stats.sync_last = took;
        stats.sync_total += took;
        stats.sync_max = stats.sync_max.max(took);
    }

    /// Oldest file first, each removal durable before the next: whatever a crash leaves, the files
    /// follow each other without a hole.
    fn trim(&self, keep_after: u64) -> Result<TrimReport, LogError> {
        let _one = self.trimming.lock();
        let mut report = TrimReport::default();
        loop {
            let oldest = self.files.lock().sealed.front().cloned();
            let Some(oldest) = oldest.filter(|oldest| oldest.extent.last <= keep_after) else {
                report.first = self.first();
                return Ok(report);
            };
            // Out of the list first, so that a reader that misses the file learns why.
            self.files.lock().sealed.pop_front();
            if let Err(error) = self.disk.remove(&oldest.path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                let failed = LogError::io("remove", &oldest.path)(error);
                self.files.lock().sealed.push_front(oldest);
                return Err(failed);
            }
            self.forget_file(&oldest.path)?;
            report.files += 1;
            report.bytes += oldest.extent.end;
        }
    }

    /// The rest of removing a file: its index, and the directory's sync. Where that fails the next
    /// trim's sync makes up for it; until then a crash only brings the file back.
    fn forget_file(&self, path: &Path) -> Result<(), LogError> {
        // A leftover index harms nothing: opening ignores it, and its name is never used again.
        if let Err(error) = self.disk.remove(&recover::index_path(path))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "an index outlives its file");
        }
        self.disk.sync_dir(&self.dir).map_err(LogError::io("sync", &self.dir))
    }
}
