//! Reading the log from outside: what followers (the change feed, later jobs and webhooks) see.

use arrwdb_log::{LogError, Stream};
use arrwdb_state::{CatalogEntry, LibraryEntry, LibraryId, Seq, WorkEntry};

use crate::engine::{Engine, Inner};
use crate::error::EngineError;

/// Bytes of records that are read at a time, about: no record is left out for its size, so that
/// one of the largest is read alone.
pub const BATCH_BYTES_MAX: usize = 16 << 20;

/// A durable record, decoded.
#[derive(Debug, Clone)]
pub struct Change {
    /// Its sequence number.
    pub seq: Seq,
    /// What changed.
    pub entry: ChangeEntry,
}

/// What a record changed.
#[derive(Debug, Clone)]
pub enum ChangeEntry {
    /// The catalog.
    Catalog(CatalogEntry),
    /// A library, which may have been deleted since.
    Library(LibraryId, LibraryEntry),
    /// Jobs or webhooks.
    Work(WorkEntry),
}

/// Why a follower cannot go on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FollowError {
    /// Records after the position asked for are gone: begin again from a snapshot.
    #[error("records up to {first} are no longer kept")]
    Trimmed {
        /// The oldest number from which on all records are there.
        first: Seq,
    },
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<LogError> for FollowError {
    fn from(error: LogError) -> Self {
        if let LogError::Trimmed { first } = error {
            return Self::Trimmed { first: Seq::new(first) };
        }
        Self::Engine(error.into())
    }
}

impl Engine {
    /// At most `limit` durable records after `after`, in order, read from disk without touching
    /// any writer. Fewer are returned where there are no more yet, or where they are
    /// [`BATCH_BYTES_MAX`]; none means that there are none. Records that were trimmed are
    /// [`FollowError::Trimmed`], never skipped.
    pub async fn changes_after(
        &self,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Change>, FollowError> {
        let inner = self.0.clone();
        tokio::task::spawn_blocking(move || inner.changes_after(after, limit))
            .await
            .map_err(|error| EngineError::Storage { detail: error.to_string() })?
    }

    /// Waits until something after `after` is durable. Returns at once if it is.
    pub async fn advanced_past(&self, after: Seq) -> Result<(), EngineError> {
        let mut advanced = self.0.advanced.clone();
        let past = advanced.wait_for(|durable| *durable > after.get()).await;
        past.map(|_durable| ()).map_err(|_log_gone| EngineError::Closed)
    }
}

impl Inner {
    fn changes_after(&self, after: Seq, limit: usize) -> Result<Vec<Change>, FollowError> {
        let (mut changes, mut bytes) = (Vec::new(), 0);
        for record in self.log.read(after.get())?.take(limit) {
            let record = record?;
            let decoded = if record.stream == Stream::CATALOG {
                CatalogEntry::decode(&record.payload).map(ChangeEntry::Catalog)
            } else if record.stream == Stream::WORK {
                WorkEntry::decode(&record.payload).map(ChangeEntry::Work)
            } else {
                let library = LibraryId::from_bytes(record.stream.0);
                LibraryEntry::decode(&record.payload)
                    .map(|entry| ChangeEntry::Library(library, entry))
            };
            let entry = decoded.map_err(|error| EngineError::Damaged {
                detail: format!("record {} of the log does not decode: {error}", record.seq),
            })?;
            changes.push(Change { seq: Seq::new(record.seq), entry });
            bytes += record.payload.len();
            if bytes >= BATCH_BYTES_MAX {
                break;
            }
        }
        Ok(changes)
    }
}
