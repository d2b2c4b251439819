//! What of a fold's records is appended and not yet published.

use std::sync::atomic::{AtomicU64, Ordering};

use arrwdb_state::Seq;

/// Nothing is.
const NOTHING: u64 = u64::MAX;

/// A number at or below every record of one fold (a library, or the catalog) that is appended and
/// not published.
///
/// The writer lowers it *before* it appends; so whoever finds a record durable finds it covered
/// by this too, unless it is published already.
#[derive(Debug)]
pub(crate) struct Unapplied(AtomicU64);

impl Unapplied {
    pub(crate) fn nothing() -> Self {
        Self(AtomicU64::new(NOTHING))
    }

    /// Before appending: a record numbered above `last_assigned` may come.
    pub(crate) fn begin(&self, last_assigned: u64) {
        self.0.fetch_min(last_assigned.saturating_add(1), Ordering::SeqCst);
    }

    /// The oldest record that is appended and not published is now this one.
    pub(crate) fn advance(&self, oldest: Option<Seq>) {
        self.0.store(oldest.map_or(NOTHING, Seq::get), Ordering::SeqCst);
    }

    /// Whether nothing is.
    pub(crate) fn is_nothing(&self) -> bool {
        self.0.load(Ordering::SeqCst) == NOTHING
    }

    /// Every record up to this number is published, given that those up to it are durable.
    pub(crate) fn published_to(&self) -> u64 {
        self.0.load(Ordering::SeqCst).saturating_sub(1)
    }
}
