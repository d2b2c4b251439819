//! A library with standing queries, as the matcher sees it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrwdb_engine::Watched;
use arrwdb_engine::state::{DocumentRecord, LibraryId, MatchPosition, QuerySet, Seq};
use tokio::time::Instant;

use super::Figures;

/// Records of one library that are matched again after a crash, at most about.
const UNSAVED_RECORDS_MAX: u64 = 1000;
/// How long it is not noted that a library is matched further, where nothing matches.
pub(super) const UNSAVED_TIME_MAX: Duration = Duration::from_secs(10);

/// A library with standing queries.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) library: LibraryId,
    /// How far it is matched, and noted.
    pub(super) saved: MatchPosition,
    pub(super) done: MatchPosition,
    /// Records since `saved`.
    pub(super) unsaved: u64,
    /// When the first of them came, and the number before it.
    pub(super) unsaved_since: Option<(Instant, Seq)>,
    /// When that is tried again, where it failed.
    pub(super) retry_at: Option<Instant>,
    pub(super) loaded: Option<Loaded>,
    /// The record that made the companion, if the matcher has met it, and the last of the
    /// companion's that it has met: queries are loaded as they are there or later.
    pub(super) created: Seq,
    pub(super) heard: Seq,
    /// What is to be matched, with the record of each; of records that put nothing, nothing.
    pub(super) gathered: Vec<(Seq, Vec<Arc<DocumentRecord>>)>,
    pub(super) passages: usize,
    /// Why nothing of it is matched any more, until the next start.
    pub(super) broken: bool,
    /// When it was last matched, in batches.
    pub(super) used: u64,
}

#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) set: Arc<QuerySet>,
    /// Records of the companion up to this one are in the set.
    pub(super) seq: Seq,
}

impl Watch {
    pub(super) fn new(library: LibraryId, matched: MatchPosition) -> Self {
        Self {
            library,
            saved: matched,
            done: matched,
            unsaved: 0,
            unsaved_since: None,
            retry_at: None,
            loaded: None,
            created: Seq::START,
            heard: Seq::START,
            gathered: Vec::new(),
            passages: 0,
            broken: false,
            used: 0,
        }
    }

    /// Notes that `done` is ahead of `saved`.
    pub(super) fn advance(&mut self, first: Seq, done: MatchPosition, records: u64) {
        self.done = self.done.max(done);
        self.need(first);
        self.unsaved += records;
    }

    /// Has the log held from the record `first` on.
    pub(super) fn need(&mut self, first: Seq) {
        let before = Seq::new(first.get().saturating_sub(1));
        self.unsaved_since.get_or_insert_with(|| (Instant::now(), before));
    }

    pub(super) fn is_saved(&self) -> bool {
        self.unsaved_since.is_none()
    }

    pub(super) fn saved(&mut self, through: MatchPosition) {
        self.saved = self.saved.max(through);
        self.retry_at = None;
        if self.saved >= self.done {
            (self.unsaved, self.unsaved_since) = (0, None);
            // What is to be matched is needed still.
            if let Some((first, _documents)) = self.gathered.first() {
                self.need(*first);
            }
        }
    }

    /// When its position has to be noted; `None` if it is.
    pub(super) fn due(&self) -> Option<Instant> {
        let (since, _before) = self.unsaved_since.filter(|_since| !self.broken)?;
        let now = self.unsaved >= UNSAVED_RECORDS_MAX;
        let due = if now { since } else { since + UNSAVED_TIME_MAX };
        Some(self.retry_at.map_or(due, |retry_at| due.max(retry_at)))
    }
}

/// A watched library as it is noted, which begins with what comes after `least`.
pub(super) fn watch_of(watched: &Watched, least: Seq, figures: &Figures) -> Watch {
    let mut watch = Watch::new(watched.library, watched.matched);
    let matched = watched.matched.whole();
    if watched.applied <= matched || matched >= least {
        return watch;
    }
    // Where nothing was noted yet, the companion is so new that its record is there still.
    if watched.matched > MatchPosition::START && watched.applied <= least {
        figures.lost.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            library = %watched.library, %matched, gone = %least,
            "records were gone before they were matched against its standing queries"
        );
    } else {
        tracing::info!(
            library = %watched.library, %matched, gone = %least,
            "it is matched from the first record that there is"
        );
    }
    // Noted, so that it is said once.
    let next = Seq::new(least.get().saturating_add(1));
    watch.advance(next, MatchPosition::after(least), 0);
    watch
}
