//! Everything that follows the log.
//!
//! The cursor that every follower is made of, the matcher of standing queries ([`Matcher`]), and the
//! change feed: [`Feed`] projects the log to [`Event`]s once and hands them to any number of
//! [`Subscription`]s. [`Webhooks`] and [`Jobs`] are built on these.
//!
//! ```text
//! log --> one task: durable and applied? --> project --> ring (bounded, in memory) --> Subscription
//!  |                                                                                      ^
//!  +------------------------------ files: those who are behind ---------------------------+
//! ```
//!
//! Invariants:
//! - **F1** A follower is a cursor: it sees every durable record after its position exactly once,
//!   in order, and what was trimmed is an error, never a gap.
//! - **F3** A slow follower never slows the writer: it reads from disk at its own pace and holds at
//!   most one batch.
//! - **F4** An event is told only once it is durable and applied: whoever hears of it can read it.
//! - **F5** An event's position is a function of the log: no filter, restart or copy changes it.
//! - **F6** Nobody is told of another tenant's events.
//! - **F7** Every pair of a standing query and a new version of a passage within its threshold is
//!   noted in the log exactly once, whenever the matcher is stopped and started again.
//! - **F8** Once everything up to a record is said to be carried to a library's other embedding model,
//!   both have the same documents, as far as nothing was written later.

mod changes;
mod cost_event;
mod cursor;
mod error;
mod event;
mod event_type;
mod feed;
mod filter;
mod job_event;
mod jobs;
mod json;
mod mirror;
mod owners;
mod ring;
mod standing;
mod stats;
mod subscription;
mod webhooks;

pub use cost_event::CostData;
pub use cursor::Cursor;
pub use error::FeedError;
pub use event::{
    Changes, ChunkData, DocumentData, Event, EventData, ParsePositionError, PassageData, Position,
    Value,
};
pub use event_type::{EventType, EventTypes, UnknownEventType};
pub use feed::{Feed, FeedConfig};
pub use filter::Filter;
pub use job_event::{JobData, JobEvent};
pub use jobs::{
    Cron, CronError, DoneUnits, Halt, JobRun, Jobs, JobsConfig, JobsStats, LiveProgress, Perform,
    Performed, Performing,
};
pub use mirror::Mirror;
pub use standing::{Matcher, MatcherStats};
pub use stats::FeedStats;
pub use subscription::{Delivery, Subscription};
pub use webhooks::{
    DeadLetter, DeliveryStatus, Reach, Redelivered, Replay, Secret, StoreError, TargetError, Vault,
    VaultError, WebhookDelivery, WebhookFigures, Webhooks, WebhooksConfig, WebhooksError,
    WebhooksStats,
};
