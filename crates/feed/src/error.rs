//! Why the feed cannot go on.

use arrwdb_engine::state::{DecodeError, LibraryId, Seq};
use arrwdb_engine::{EngineError, FollowError};

/// Why the feed cannot go on, for one who follows it or for all.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FeedError {
    /// Events after the position asked for are gone: begin again from a snapshot.
    #[error("events before {oldest} are no longer kept")]
    Trimmed {
        /// The oldest number from which on all events are there.
        oldest: Seq,
    },
    /// There is no such library, and there was none of which the log has records.
    #[error("Library {0} not found")]
    LibraryNotFound(LibraryId),
    /// The feed ends, as the program does.
    #[error("the feed ends: the engine is closing")]
    Closed,
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<FollowError> for FeedError {
    fn from(error: FollowError) -> Self {
        match error {
            FollowError::Trimmed { first } => Self::Trimmed { oldest: first },
            FollowError::Engine(EngineError::Closed) => Self::Closed,
            FollowError::Engine(error) => Self::Engine(error),
        }
    }
}

/// A record that this build cannot read.
pub(crate) fn undecodable(seq: Seq, error: &DecodeError) -> FollowError {
    let detail = format!("record {seq} of the log does not decode: {error}");
    FollowError::Engine(EngineError::Damaged { detail })
}
