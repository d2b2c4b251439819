//! Checking a data directory that nobody has open, and repairing what needs no guessing.
//!
//! ```text
//! VERSION -> catalog snapshots -> manifests -> the log, frame by frame and record by record
//!         -> each library: its segments, its manifest's counts, the log after it -> cache
//! ```
//!
//! A check changes nothing (but the process id in `LOCK`) and needs the memory of a start: the
//! records after the last checkpoints. What it finds is sorted by what can be done about it
//! ([`Remedy`]): damage, for which there is a backup; what a start or a repair puts right; and
//! notes. A repair removes only what is derived, left over, or was never acknowledged; anything
//! else it sets aside, and log records are given up only when told so ([`Loss::Accepted`]).

mod directory;
mod finding;
mod library;
mod log;
mod repair;

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrwdb_log::disk::Disk;
use arrwdb_log::{DirLock, LogError, lock};
use arrwdb_state::LibraryId;

pub use self::finding::{Action, Finding, Findings, LibraryFigures, Remedy, Report};
pub use self::log::lost_numbers;
pub use self::repair::{Done, Loss};
use crate::error::EngineError;
use crate::store::Store;

/// Why a directory could not be checked, or not be repaired.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CheckError {
    /// There is nothing of ours here.
    #[error(
        "{} is not a data directory: it has no VERSION, log, catalog or libraries; name the right \
         one, as in `arrwdb check DIR`",
        .0.display()
    )]
    Absent(PathBuf),
    /// Somebody has it open.
    #[error(
        "{detail}: its files change while they are read. Stop that server and run the check again, \
         or check a copy made while it was stopped"
    )]
    InUse {
        /// Which lock, and who holds it.
        detail: String,
    },
    /// A newer release wrote it.
    #[error("{detail}; check it with the release that wrote it")]
    Newer {
        /// Which file, and its version.
        detail: String,
    },
    /// The disk failed, or is full.
    #[error(transparent)]
    Failed(#[from] EngineError),
}

impl From<LogError> for CheckError {
    fn from(error: LogError) -> Self {
        let detail = error.to_string();
        match error {
            LogError::Locked { .. } => Self::InUse { detail },
            LogError::Newer { .. } => Self::Newer { detail },
            LogError::Full { .. }
            | LogError::TooLarge { .. }
            | LogError::DiskFull { .. }
            | LogError::Closed
            | LogError::Poisoned { .. }
            | LogError::Damaged { .. }
            | LogError::Trimmed { .. }
            | LogError::Io { .. } => Self::Failed(error.into()),
        }
    }
}

/// Hears how far a check is.
pub trait Progress: Debug {
    /// About so many bytes will be read.
    fn begin(&self, bytes: u64);
    /// So many bytes more of this file were read.
    fn advance(&self, file: &Path, bytes: u64);
}

/// For who does not want to hear.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _bytes: u64) {}
    fn advance(&self, _file: &Path, _bytes: u64) {}
}

/// A data directory that is locked against every server for as long as this lives.
#[derive(Debug)]
pub struct Closed {
    store: Store,
    _lock: DirLock,
}

impl Closed {
    /// Locks a data directory. Nothing is made where there is none.
    pub fn lock(disk: Arc<dyn Disk>, data_dir: &Path) -> Result<Self, CheckError> {
        let store = Store::new(disk, data_dir.to_owned(), None);
        let ours = ["VERSION", "log", "catalog", "libraries"];
        if !store.names(data_dir)?.iter().any(|name| ours.contains(&name.as_str())) {
            return Err(CheckError::Absent(data_dir.to_owned()));
        }
        let lock = lock(&*store.disk, &data_dir.join("LOCK"))?;
        Ok(Self { store, _lock: lock })
    }

    /// Reads everything and says what does not hold. O(bytes).
    pub fn check(&self, progress: &dyn Progress) -> Result<Report, CheckError> {
        directory::check(&self.store, progress)
    }

    /// Does what [`Report::actions`] lists, in that order, and then some that follow from it where
    /// a loss was accepted; gives what was done. The report must be of this directory as it is
    /// now. `salt` is a random number.
    pub fn repair(&self, report: &Report, loss: Loss, salt: u64) -> Result<Vec<Done>, CheckError> {
        repair::repair(&self.store, report, loss, salt)
    }
}

/// Locks a directory and checks it.
pub fn check(
    disk: Arc<dyn Disk>,
    data_dir: &Path,
    progress: &dyn Progress,
) -> Result<Report, CheckError> {
    Closed::lock(disk, data_dir)?.check(progress)
}

/// The id that a name in `libraries/` is.
fn library_id(name: &str) -> Option<LibraryId> {
    // Only the spelling that we write: another one would be another directory.
    name.parse::<LibraryId>().ok().filter(|id| id.to_string() == name)
}
