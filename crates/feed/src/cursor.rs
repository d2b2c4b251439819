//! A place in the log that moves on.

use arrwdb_engine::state::Seq;
use arrwdb_engine::{Change, Engine, FollowError};

/// Records read at a time: what a follower holds at most.
const BATCH_RECORDS_MAX: usize = 256;

/// A follower's place in the log.
#[derive(Debug, Clone)]
pub struct Cursor {
    engine: Engine,
    after: Seq,
}

impl Cursor {
    /// A cursor that sees everything after `after`; [`Seq::START`] is everything that is kept.
    pub fn new(engine: Engine, after: Seq) -> Self {
        Self { engine, after }
    }

    /// The last record seen.
    pub fn position(&self) -> Seq {
        self.after
    }

    /// The next records, at least one; waits until there is one. The position moves past them:
    /// whoever needs them again after a crash saves the position after their effect, not before.
    ///
    /// # Errors
    /// [`FollowError::Trimmed`] if records after the position are no longer kept.
    pub async fn next(&mut self) -> Result<Vec<Change>, FollowError> {
        loop {
            let changes = self.engine.changes_after(self.after, BATCH_RECORDS_MAX).await?;
            if let Some(last) = changes.last() {
                self.after = last.seq;
                return Ok(changes);
            }
            self.engine.advanced_past(self.after).await?;
        }
    }
}
