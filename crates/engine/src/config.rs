//! What the engine is opened with.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrwdb_embed::Embedder;
use arrwdb_log::LogOptions;
use arrwdb_log::disk::{Disk, OsDisk};
use arrwdb_state::{Timestamp, limits};

use crate::system::{OsRandom, SystemClock};

/// Settings, checked.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The data directory; made when absent.
    pub data_dir: PathBuf,
    /// Threads of the CPU pool that searches and merges.
    pub search_threads: usize,
    /// Searches that may wait for the pool; more are refused as busy.
    pub search_queue_max: usize,
    /// Characters at which a `text` is split.
    pub chunk_chars: usize,
    /// Chunks of one document, at most the format's limit.
    pub chunks_per_document_max: usize,
    /// Characters of one chunk, at most the format's limit.
    pub chunk_chars_max: usize,
    /// Characters of a query.
    pub query_chars_max: usize,
    /// How long a read waits for its `min_seq`.
    pub min_seq_wait_max: Duration,
    /// How long a text may take to embed.
    pub embed_deadline: Duration,
    /// How long dead rows are kept for reads of the past.
    pub history: Duration,
    /// A library whose unwritten segments hold more than this is checkpointed.
    pub checkpoint_bytes: u64,
    /// A log file of about this many bytes is finished and another begun.
    pub log_file_bytes: u64,
    /// Log kept for the feed: seconds.
    pub feed_retention: Duration,
    /// Log kept for the feed: bytes.
    pub feed_retention_bytes: u64,
    /// Writes are refused while less than this is free on the data directory's disk.
    pub disk_free_bytes_min: u64,
}

impl EngineConfig {
    /// The defaults, with all data below `data_dir`: two CPU threads, passages of 1,000 characters,
    /// an hour of history, a checkpoint every 64 MiB, a week or 4 GiB of the log.
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            search_threads: 2,
            search_queue_max: 1024,
            chunk_chars: 1000,
            chunks_per_document_max: limits::CHUNKS_PER_DOCUMENT_MAX,
            chunk_chars_max: limits::CHUNK_CHARS_MAX,
            query_chars_max: limits::QUERY_CHARS_MAX,
            min_seq_wait_max: Duration::from_secs(5),
            embed_deadline: Duration::from_mins(1),
            history: Duration::from_hours(1),
            checkpoint_bytes: 64 << 20,
            log_file_bytes: LogOptions::default().file_bytes,
            feed_retention: Duration::from_hours(7 * 24),
            feed_retention_bytes: 4 << 30,
            disk_free_bytes_min: 256 << 20,
        }
    }
}

/// Wall-clock time, passed in so that a simulation can set it.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// Randomness, passed in so that a simulation can seed it.
pub trait Random: Send + Sync + fmt::Debug {
    /// Fills `bytes` with random bytes.
    fn fill(&self, bytes: &mut [u8]);
}

/// The outside world.
#[derive(Debug, Clone)]
pub struct EngineParts {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Disk.
    pub disk: Arc<dyn Disk>,
    /// Text to vectors.
    pub embedder: Embedder,
}

impl EngineParts {
    /// The machine's own clock, randomness and disk.
    pub fn system(embedder: Embedder) -> Self {
        Self {
            clock: Arc::new(SystemClock),
            random: Arc::new(OsRandom),
            disk: Arc::new(OsDisk),
            embedder,
        }
    }
}
