//! Everything that follows the log.
//!
//! So far the cursor that every follower is made of, and the matcher of standing queries; the
//! change feed, webhooks and jobs are built on it.
//!
//! Invariants:
//! - **F1** A follower is a cursor: it sees every durable record after its position exactly once,
//!   in order, and what was trimmed is an error, never a gap.
//! - **F3** A slow follower never slows the writer: it reads from disk at its own pace and holds at
//!   most one batch.
//! - **F4** Every pair of a standing query and a new version of a passage within its threshold is
//!   noted in the log exactly once, whenever the matcher is stopped and started again.

mod cursor;
mod standing;

pub use cursor::Cursor;
pub use standing::{Matcher, MatcherStats};
