//! Backups: a data directory copied to a folder or an object store while its server writes on, and
//! made again from there, as it was at any sequence number or time since the first restore point.
//!
//! [`take()`] reads the data directory from outside, without a lock that the server would notice and
//! without its help. That works because everything but the end of the log is written once: catalog
//! snapshots, manifests and segments get their names when they are whole, and the log only grows.
//! It is read in the order catalog, manifests, segments, log; so the log, read last, reaches
//! beyond everything else, and what a manifest lacks is in it. A file that is gone meanwhile has a
//! newer one in its place.
//!
//! ```text
//! FORMAT                                             which format this is
//! points/<time>-<seq>-<history>.json                 a restore point, written last
//! catalog/<covered>-<hash>                           a catalog snapshot
//! libraries/<id>/manifest-<applied>-<hash>           a manifest
//! libraries/<id>/<number>-<fingerprint>.seg          a segment
//! log/<history>/<after>-<first>-<last>-<hash>.log    records, as a file of the log
//! ```
//!
//! - **B1** A restore point names only objects that are whole, and is written after all of them.
//! - **B2** Nothing is in a backup that its data directory can still lose: the log is synced after it
//!   was read.
//! - **B3** What is restored at a sequence number is the fold of the log up to it, and every byte of it
//!   was compared with its SHA-256.
//! - **B4** An object is taken for one that is there already by its content, never by a file's name.
//! - **B5** After a restore no sequence number is given out again.
//!
//! A *history* is a log that goes on from itself. After a directory was restored to an earlier
//! number, or made anew, its log no longer holds what the last restore point ends with: a new
//! history begins, and records of the two are never mixed. The bytes are in
//! `docs/format/backup.md`.

mod error;
mod folder;
mod forget;
mod history;
mod plan;
mod point;
mod restore;
mod s3;
mod segment;
mod source;
mod take;
mod target;
mod verify;
mod workers;

pub use error::BackupError;
pub use folder::FolderTarget;
pub use forget::{Forgotten, forget};
pub use point::{LastRecord, LibraryPart, LogPart, Object, Point, SegmentPart};
pub use restore::{RestoreTo, Restored, SEQS_SKIPPED, restore};
pub use s3::{S3Error, S3Target};
pub use source::Site;
pub use take::{Taken, points, take};
pub use target::{Target, TargetError};
pub use verify::{Verified, verify};

/// Told how far a transfer has come.
pub trait Progress: Send + Sync {
    /// So many more bytes are to be moved.
    fn expect(&self, bytes: u64);
    /// So many more bytes were moved.
    fn advance(&self, bytes: u64);
}

/// Tells nobody.
impl Progress for () {
    fn expect(&self, _bytes: u64) {}
    fn advance(&self, _bytes: u64) {}
}
