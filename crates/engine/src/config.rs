//! What the engine is opened with.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrwdb_embed::{Embedder, Prices, Reranker};
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
    /// How long what was deleted or replaced is kept for reads of the past (`as_of`).
    pub history: Duration,
    /// A library whose unwritten segments hold more than this is checkpointed.
    pub checkpoint_bytes: u64,
    /// Segments of fewer rows are scanned, whatever the library asks for: that is quicker.
    pub index_rows_min: u32,
    /// Threads that build search structures. They give way to all others.
    pub build_threads: usize,
    /// A library that nobody has used for this long is closed.
    pub library_idle: Duration,
    /// Bytes that libraries may hold in memory, all together; writes beyond are refused as busy.
    pub memory_budget_bytes: u64,
    /// Log kept for the feed: seconds.
    pub feed_retention: Duration,
    /// Log kept for the feed: bytes.
    pub feed_retention_bytes: u64,
    /// How long jobs that are over are remembered.
    pub job_retention: Duration,
    /// What embedding costs.
    pub prices: Prices,
    /// Days of which costs are told apart.
    pub cost_days_kept: u32,
    /// Bytes a second at which files are read through to find damage; 0 never reads them.
    pub scrub_bytes_per_second: u64,
    /// Bytes of one file of the log: it is trimmed a file at a time.
    pub log_file_bytes: u64,
    /// Writes are refused while less than this is free on the data directory's disk.
    pub disk_free_bytes_min: u64,
    /// Documents of one library, if limited.
    pub documents_per_library_max: Option<u64>,
    /// Standing queries of one library.
    pub standing_queries_per_library_max: u64,
}

impl EngineConfig {
    /// The usual size of a file of the log.
    pub const LOG_FILE_BYTES: u64 = 64 << 20;
    /// Rows from which a segment has a structure of its own.
    pub const INDEX_ROWS_MIN: u32 = 4096;

    /// The defaults, with all data below `data_dir`: two CPU threads, passages of 1,000 characters,
    /// an hour of history, a checkpoint every 64 MiB, 2 GiB of memory, a week or 4 GiB of the log.
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
            index_rows_min: Self::INDEX_ROWS_MIN,
            build_threads: 2,
            library_idle: Duration::from_mins(10),
            memory_budget_bytes: 2 << 30,
            feed_retention: Duration::from_hours(7 * 24),
            feed_retention_bytes: 4 << 30,
            job_retention: Duration::from_hours(7 * 24),
            prices: Prices::default(),
            cost_days_kept: 400,
            scrub_bytes_per_second: 8 << 20,
            log_file_bytes: Self::LOG_FILE_BYTES,
            disk_free_bytes_min: 256 << 20,
            documents_per_library_max: None,
            standing_queries_per_library_max: limits::STANDING_QUERIES_MAX,
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
    /// A model that ranks passages, where there is one.
    pub reranker: Option<Reranker>,
}

impl EngineParts {
    /// The machine's own clock, randomness and disk, and no reranker.
    pub fn system(embedder: Embedder) -> Self {
        Self {
            clock: Arc::new(SystemClock),
            random: Arc::new(OsRandom),
            disk: Arc::new(OsDisk),
            embedder,
            reranker: None,
        }
    }
}
