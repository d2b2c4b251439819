//! Everything that follows the log.
//!
//! So far the cursor that every follower is made of; the change feed, standing queries, webhooks
//! and jobs are built on it.
//!
//! Invariants:
//! - **F1** A follower is a cursor: it sees every durable record after its position exactly once,
//!   in order, and what was trimmed is an error, never a gap.
//! - **F3** A slow follower never slows the writer: it reads from disk at its own pace and holds at
//!   most one batch.

mod cursor;

pub use cursor::Cursor;
