//! One durable, ordered log: the truth that every library is a fold over.
//!
//! A record is one atomic batch of one stream (a library, or the catalog). Appending hands out the
//! next sequence number at once and calls back when the record is on disk; one thread writes all
//! that is queued and makes it durable with one `fdatasync` (group commit).
//!
//! Invariants:
//! - **L1** An acknowledged record survives: its callback runs after the sync that covers it.
//! - **L2** Sequence numbers increase strictly, across restarts and trims as well; they may have
//!   gaps.
//! - **L3** A record is atomic: it is read back whole or not at all, whatever its size.
//! - **L4** Only a torn tail is cut: bytes of the one group that no sync had covered yet. Damage
//!   anywhere else is refused with the file and the offset.
//! - **L5** After a failed write or sync the log is poisoned: nothing is retried, everything queued
//!   and everything later fails, and only opening the log anew (which reads what the disk really
//!   has) helps.
//!
//! ```text
//! append --> queue (bounded) --> the log's thread: allocate, write, fdatasync
//!                                    |
//!                                    +--> durable(), wait --> done(..) in order --> on_advance
//! ```
//!
//! All file I/O of the product goes through [`disk::Disk`], so that a test or the simulator can run
//! the real code on a disk that fails as told ([`memory::MemoryDisk`]). The bytes are described in
//! `docs/format/log.md`.

pub mod disk;
mod error;
mod file;
mod frame;
mod lock;
pub mod memory;
pub mod outside;
mod scan;

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use crate::error::LogError;
pub use crate::file::{
    CheckReport, Fault, FileLog, Lost, RepairReport, Repaired, Rescue, Whole, check, check_records,
    cut_torn_tail, repair,
};
pub use crate::lock::{DirLock, lock};
pub use crate::memory::MemoryLog;

/// Largest payload of a record, in bytes. A larger one is [`LogError::TooLarge`].
pub const RECORD_BYTES_MAX: usize = 64 << 20;

/// Largest payload of a frame, in bytes: a larger record spans frames, so that a reader's buffer
/// stays small.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

const _: () = assert!(RECORD_BYTES_MAX.is_multiple_of(FRAME_BYTES_MAX));

/// Which fold a record belongs to: a library's id as bytes, [`Stream::CATALOG`] or
/// [`Stream::WORK`].
#[derive(Copy, Clone, PartialEq, Eq, Hash, Ord, PartialOrd, Debug)]
pub struct Stream(pub [u8; 16]);

impl Stream {
    /// The catalog's stream: all zero.
    pub const CATALOG: Self = Self([0; 16]);
    /// The stream of jobs and webhooks: all ones, which is no library's id.
    pub const WORK: Self = Self([0xff; 16]);
}

/// A durable record, as read back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Its number: greater than that of every record before it, from 1.
    pub seq: u64,
    /// The fold it belongs to.
    pub stream: Stream,
    /// The bytes given to [`Log::append`], parts joined.
    pub payload: Bytes,
}

/// A durable record of late, as it was appended.
#[derive(Clone, Debug)]
pub struct Recent {
    /// Its number.
    pub seq: u64,
    /// The fold it belongs to.
    pub stream: Stream,
    /// The parts given to [`Log::append`], shared with whoever gave them.
    pub parts: Arc<[Bytes]>,
    /// When the sync that covers it had returned.
    pub durable_at: Instant,
}

/// Runs on the log's thread once the record is durable (with its number), or with the error. It
/// must be quick and must not wait for the log.
pub type OnDurable = Box<dyn FnOnce(Result<u64, LogError>) + Send>;

/// Runs on the log's thread after each durable group, with the highest durable number.
pub type OnAdvance = Box<dyn Fn(u64) + Send + Sync>;

/// Durable records in order. After an error it ends.
pub type Records = Box<dyn Iterator<Item = Result<Record, LogError>> + Send>;

/// A durable, ordered log.
///
/// Order of what an append sets off, for each group: the sync; [`Log::durable`] advances and
/// [`Log::wait`] returns; the group's [`OnDurable`]s in order of sequence; the [`OnAdvance`]s. So
/// whoever hears of a number by a callback can read up to it.
pub trait Log: Send + Sync + Debug {
    /// Like [`Log::append_after`] for a record that depends on no other.
    fn append(
        &self,
        stream: Stream,
        payload: Vec<Bytes>,
        done: OnDurable,
    ) -> Result<u64, LogError> {
        self.append_after(0, stream, payload, done)
    }

    /// Queues a record and returns its number at once; `done` runs after the sync of its group.
    /// The parts of `payload` are written back to back, at most [`RECORD_BYTES_MAX`] together.
    ///
    /// `depends` is the number of an earlier record that this one was decided on (0: none): if that
    /// one failed for want of disk space, this one is refused with [`LogError::DiskFull`] too, so
    /// that a fold never holds a record without what it was decided on.
    ///
    /// Errors, with nothing assigned and `done` dropped: [`LogError::Full`] (more records or bytes
    /// are queued than the options allow), [`LogError::TooLarge`], [`LogError::DiskFull`],
    /// [`LogError::Poisoned`], [`LogError::Closed`]. Errors given to `done`: `DiskFull` (the group
    /// met a full disk before any of it was written; the log goes on) and `Poisoned`.
    fn append_after(
        &self,
        depends: u64,
        stream: Stream,
        payload: Vec<Bytes>,
        done: OnDurable,
    ) -> Result<u64, LogError>;

    /// The highest number given out; the next one is greater.
    fn last_assigned(&self) -> u64;

    /// Everything that was not refused, at or below this number, is on disk.
    fn durable(&self) -> u64;

    /// Blocks until `durable() > after`, the log is closed or poisoned, or the time is over;
    /// returns `durable()`.
    fn wait(&self, after: u64, timeout: Duration) -> u64;

    /// Calls `advanced` on the log's thread after each group, after the group's [`OnDurable`]s, for
    /// as long as the log lives.
    fn on_advance(&self, advanced: OnAdvance);

    /// Durable records with `seq > after` in order, streamed from disk in bounded memory (one
    /// record and one frame). Ends at what `durable()` was at the call.
    /// [`LogError::Trimmed`] when records after `after` were removed.
    fn read(&self, after: u64) -> Result<Records, LogError>;

    /// Like [`Log::read`] for one stream, by the files' index: costs what it returns, and one small
    /// read per file. It does not fail for trimmed records: to trim is the caller's word that no
    /// stream needs them.
    fn read_stream(&self, stream: Stream, after: u64) -> Result<Records, LogError>;

    /// At most `limit` durable records after `after` in order, from memory: the newest are kept there,
    /// as many as [`LogOptions::recent_bytes`] hold. `None` where older ones are wanted, which
    /// [`Log::read`] has. What is durable is here before anybody is told of it.
    fn recent(&self, after: u64, limit: usize) -> Option<Vec<Recent>>;

    /// The first number that can be read: all records from here on are there. One above the last
    /// trimmed number; 1 if nothing was trimmed.
    fn first(&self) -> u64;

    /// Removes whole sealed files all of whose records are at or below `keep_after`, oldest first;
    /// never the file being written.
    fn trim(&self, keep_after: u64) -> Result<TrimReport, LogError>;

    /// Makes the next group begin a new file, so that everything durable by now is in sealed files,
    /// which [`Log::trim`] may remove, as soon as one more record is durable.
    fn begin_file(&self);

    /// The files that hold the log, oldest first, so that a caller can choose what to trim.
    fn files(&self) -> Vec<LogFile>;

    /// Counters since the log was opened, and what it holds now.
    fn stats(&self) -> LogStats;

    /// Writes and syncs what is queued, ends the thread. Later appends are [`LogError::Closed`];
    /// reading goes on. Returns the poison, if any. A second call does nothing.
    fn close(&self) -> Result<(), LogError>;
}

/// A file of the log.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct LogFile {
    /// The highest number in it; of the file being written, [`Log::durable`].
    pub last: u64,
    /// Bytes of its data.
    pub bytes: u64,
    /// Whether it is finished, so that [`Log::trim`] may remove it.
    pub sealed: bool,
}

/// What [`Log::trim`] did.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct TrimReport {
    /// Files removed.
    pub files: u64,
    /// Bytes they held.
    pub bytes: u64,
    /// [`Log::first`] now.
    pub first: u64,
}

/// Figures of a log.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct LogStats {
    /// Files, the active one included.
    pub files: u64,
    /// Bytes written in them (without space allocated ahead).
    pub bytes: u64,
    /// Groups made durable.
    pub groups: u64,
    /// Records made durable.
    pub records: u64,
    /// Syncs of log data (groups, file headers).
    pub syncs: u64,
    /// Duration of the last sync.
    pub sync_last: Duration,
    /// Sum over all syncs.
    pub sync_total: Duration,
    /// Longest sync.
    pub sync_max: Duration,
    /// Records queued or being written.
    pub queued_records: u64,
    /// Payload bytes queued or being written.
    pub queued_bytes: u64,
    /// Groups refused because the disk was full.
    pub disk_full_groups: u64,
    /// Whether a write or sync failed (L5).
    pub poisoned: bool,
}

/// How a log is to be kept. All values are taken as given; a queue limit of 0 lets one record at a
/// time through.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogOptions {
    /// A group that would make the active file longer than this opens the next file. A file is
    /// longer only when a single group is.
    pub file_bytes: u64,
    /// Space allocated and zeroed ahead of the writing, so that a sync has no block to allocate.
    pub ahead_bytes: u64,
    /// Payload bytes queued at most, those being written included.
    pub queue_bytes: u64,
    /// Records queued at most, those being written included.
    pub queue_records: u64,
    /// Payload bytes of durable records that are kept in memory for those who follow the log.
    pub recent_bytes: u64,
    /// The first number given out is greater than this (and than every number in the log).
    pub start_after: u64,
    /// A random number. It goes into the checksums of the files made, so that bytes of a payload
    /// cannot pass for a frame. 0 is allowed (tests).
    pub salt: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            file_bytes: 64 << 20,
            ahead_bytes: 1 << 20,
            queue_bytes: 256 << 20,
            queue_records: 65_536,
            recent_bytes: 16 << 20,
            start_after: 0,
            salt: 0,
        }
    }
}

/// What opening a log found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovery {
    /// [`Log::first`].
    pub first: u64,
    /// The highest number in the log (0 if none was ever given out).
    pub last: u64,
    /// The highest number that its files tell of: [`Recovery::last`] but for
    /// [`LogOptions::start_after`]. One who knows of a higher number knows that files are missing.
    pub written: u64,
    /// Files, the active one included.
    pub files: u64,
    /// What was cut off the last file, if anything.
    pub torn_tail: Option<TornTail>,
}

/// A torn tail: the unfinished writing of a group that no sync had covered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TornTail {
    /// The file it was cut from.
    pub file: PathBuf,
    /// Where the file's data ends now.
    pub offset: u64,
    /// Bytes cut, up to the last that was not zero.
    pub bytes_cut: u64,
}
