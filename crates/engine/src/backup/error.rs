//! Why a backup or a restore did not happen, by what the one who asked can do about it.

use std::io;
use std::path::{Path, PathBuf};

use arrwdb_log::LogError;
use arrwdb_state::{LibraryId, Timestamp};

use super::target::TargetError;
use crate::error::EngineError;

/// Why a backup or a restore did not happen. The data directory that was read is as it was; a
/// restore that was begun leaves a directory that no server opens.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is nothing that could be backed up.
    #[error("{} is not a data directory: it has no file VERSION", dir.display())]
    NoData {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// Another backup of the directory is running.
    #[error("another backup of {} is running", dir.display())]
    Running {
        /// The data directory.
        dir: PathBuf,
    },
    /// What is backed up, or what would be restored, is damaged; the text names it.
    #[error("{detail}")]
    Damaged {
        /// File or object, and what to do.
        detail: String,
    },
    /// Made by a newer release.
    #[error("{what} was written by a newer release; use that one")]
    Newer {
        /// File or object.
        what: String,
    },
    /// The data directory changed faster than it could be read.
    #[error("{what} was replaced again and again while it was read; try again")]
    Moving {
        /// What changed.
        what: String,
    },
    /// The target holds something else.
    #[error("{target} is not empty and not a backup; name an empty place")]
    Foreign {
        /// The target.
        target: String,
    },
    /// The target has no restore point (of that number).
    #[error("{target} has no restore point{}", seq.map_or_else(String::new, |seq| format!(" {seq}; --list shows those there are")))]
    NoPoint {
        /// The target.
        target: String,
        /// The number asked for.
        seq: Option<u64>,
    },
    /// No restore point and no records lead to that sequence number.
    #[error("sequence {wanted} cannot be reached; the backup reaches {}", ranges(reachable))]
    SeqUnreachable {
        /// What was asked for.
        wanted: u64,
        /// From and to, both included.
        reachable: Vec<(u64, u64)>,
    },
    /// No restore point and no records lead to that time.
    #[error("that time cannot be reached: it is {}", side(*from, *to))]
    TimeUnreachable {
        /// The restore point before it, if there is one.
        from: Option<Timestamp>,
        /// The restore point after it, if there is one.
        to: Option<Timestamp>,
    },
    /// The directory to restore into holds something.
    #[error("{} is not empty; name a directory that is empty or absent", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// What was restored is not what was backed up.
    #[error("library {library} is not what was backed up: {detail}")]
    Different {
        /// The library.
        library: LibraryId,
        /// What differs.
        detail: String,
    },
    /// The target refused or failed.
    #[error("{target}: {error}")]
    Target {
        /// The target.
        target: String,
        /// What it was asked and what it said.
        error: TargetError,
    },
    /// The disk on this side failed, or is full.
    #[error("cannot {operation} {}: {error}", path.display())]
    Disk {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What came of it.
        error: io::Error,
    },
    /// The log could not be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The engine did not open what was restored.
    #[error("what was restored does not open: {0}")]
    Engine(#[from] EngineError),
}

impl BackupError {
    /// For `map_err`: what was tried on which file.
    pub(super) fn disk(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Disk { operation, path: path.to_owned(), error }
    }
}

fn ranges(reachable: &[(u64, u64)]) -> String {
    let each: Vec<String> =
        reachable.iter().map(|(from, to)| format!("from {from} to {to}")).collect();
    if each.is_empty() { "nothing".to_owned() } else { each.join(", and ") }
}

fn side(from: Option<Timestamp>, to: Option<Timestamp>) -> &'static str {
    match (from, to) {
        (None, _) => "before the first restore point",
        (Some(_), None) => "after the last restore point; leave the time out for the newest state",
        (Some(_), Some(_)) => "between two histories, where nothing was backed up",
    }
}
