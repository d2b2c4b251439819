//! The one error of the log, by what a caller can do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the log refused or failed. Cheap to clone: one cause is told to every record of a group.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// Too much is queued; try again when some of it is durable. Nothing was assigned.
    #[error("the log's queue is full ({queued_records} records, {queued_bytes} bytes)")]
    Full {
        /// Records queued.
        queued_records: u64,
        /// Payload bytes queued.
        queued_bytes: u64,
    },
    /// The record can never be written.
    #[error("a record of {bytes} bytes is larger than the {bytes_max} allowed")]
    TooLarge {
        /// The payload's size.
        bytes: u64,
        /// [`crate::RECORD_BYTES_MAX`].
        bytes_max: u64,
    },
    /// The disk was full before any byte of the record was written. The log goes on when there is
    /// space again.
    #[error("no space left on the disk of {}", path.display())]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// A write or sync failed (L5). Whether records not yet acknowledged are on disk is known only
    /// when the log is opened anew.
    #[error("the log stopped after a failed write and must be opened anew: {cause}")]
    Poisoned {
        /// The first failure.
        cause: Arc<str>,
    },
    /// Bytes that were durable are no longer what was written (L4).
    #[error(
        "log file {} is damaged at offset {offset}: {reason}; nothing was changed, \
         restore the file or a backup",
        file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where the first bad frame begins.
        offset: u64,
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// The file was written by a newer release.
    #[error("log file {} has format version {version}, newer than this program knows", file.display())]
    Newer {
        /// The file.
        file: PathBuf,
        /// The version found.
        version: u32,
    },
    /// Records after the number asked for were removed by [`crate::Log::trim`].
    #[error("the log begins at {first}: earlier records were trimmed")]
    Trimmed {
        /// [`crate::Log::first`].
        first: u64,
    },
    /// Another process (or this one) has the data directory open.
    #[error("{} is locked by {}", path.display(), holder(*pid))]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The holder, if it could be read.
        pid: Option<u32>,
    },
    /// The operating system refused, outside of writing records.
    #[error("cannot {operation} {}: {message}", path.display())]
    Io {
        /// What was tried: "open", "read", ...
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Its kind.
        kind: io::ErrorKind,
        /// Its text.
        message: Arc<str>,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl LogError {
    /// For `map_err`: an I/O failure, a full disk told apart.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| {
            if is_full(&error) {
                return Self::DiskFull { path: path.to_owned() };
            }
            Self::failed(operation, path)(error)
        }
    }

    /// For `map_err`: an I/O failure, a full disk included.
    pub(crate) fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io {
            operation,
            path: path.to_owned(),
            kind: error.kind(),
            message: error.to_string().into(),
        }
    }

    pub(crate) fn damaged(file: &Path, offset: u64, reason: impl Into<Arc<str>>) -> Self {
        Self::Damaged { file: file.to_owned(), offset, reason: reason.into() }
    }
}

/// Whether an error says that there is no space (disk or quota).
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
