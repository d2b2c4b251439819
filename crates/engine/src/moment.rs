//! Which state of a library a read gets: the newest, one that has a given write, or an earlier one.

use std::sync::Arc;

use arrwdb_state::{PastError, Seq, View};

use crate::error::EngineError;
use crate::maintenance::blocking;

/// Which state a read asks for; without a wish, the newest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moment {
    /// Every record up to this one has to be in it; the read waits for that, for a bounded time.
    pub min_seq: Option<Seq>,
    /// No record after this one may be in it: documents are those of that time, as long as the
    /// history is kept. What a library is called and searched by is as it is now.
    pub as_of: Option<Seq>,
}

impl Moment {
    /// The state at this number.
    pub fn as_of(seq: Seq) -> Self {
        Self { min_seq: None, as_of: Some(seq) }
    }

    /// What has to be applied before the read.
    pub(crate) fn reached(self) -> Option<Seq> {
        self.min_seq.max(self.as_of)
    }
}

impl From<Option<Seq>> for Moment {
    fn from(min_seq: Option<Seq>) -> Self {
        Self { min_seq, as_of: None }
    }
}

/// A view as it was at `seq`, which it has reached.
pub(crate) async fn past(view: Arc<View>, seq: Seq) -> Result<Arc<View>, EngineError> {
    if seq >= view.applied() {
        return Ok(view);
    }
    // What changed since is read, which may take a while and wait for the disk.
    blocking(move || Ok(Arc::new(view.as_of(seq).map_err(|error| not_kept(seq, error))?))).await
}

/// The error of a past that cannot be given.
pub(crate) fn not_kept(wanted: Seq, error: PastError) -> EngineError {
    match error {
        PastError::Gone { oldest } => EngineError::HistoryGone { wanted, oldest },
        PastError::Damaged(damage) => damage.into(),
    }
}
