//! What is said of webhooks and of their deliveries.

use std::path::PathBuf;

use arrwdb_engine::EngineError;
use arrwdb_engine::state::{Seq, Timestamp};
use serde::{Deserialize, Serialize};

use super::guard::{Reach, TargetError};
use super::message::{Attempt, Message};
use super::progress::Progress;
use super::store::StoreError;
use super::vault::VaultError;
use crate::event::Position;
use crate::event_type::EventType;

/// Why webhooks cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum WebhooksError {
    /// Secrets cannot be kept.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// What came of deliveries cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The client of HTTP cannot be set up.
    #[error("the client that delivers to webhooks cannot be set up: {0}")]
    Client(String),
    /// The engine cannot say which there are, or change one.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// There is one replay of a webhook at a time.
    #[error("a replay of this webhook is under way, of {from} to {to}; wait until it is done")]
    Replaying {
        /// From this record.
        from: u64,
        /// To this one.
        to: u64,
    },
    /// What is sent again is sent to one that is active.
    #[error(
        "a replay needs an active webhook, and this one is {0}; set its status to active first"
    )]
    Inactive(&'static str),
    /// One sends to it already.
    #[error("another request sends to this webhook at the moment; wait until it is answered")]
    Sending,
    /// Nothing is sent again.
    #[error("no replay of this webhook is under way")]
    NoReplay,
    /// It may not be sent to where it leads.
    #[error("its url {0}")]
    Target(#[from] TargetError),
    /// No secret of the webhook can be read.
    #[error("{UNREADABLE}")]
    Unreadable,
    /// There is no such dead letter.
    #[error("there is no dead letter {0}")]
    NoDeadLetter(u64),
    /// What a dead letter tells of is not kept any more.
    #[error("what dead letter {0} tells of is no longer kept and cannot be delivered")]
    Nothing(u64),
}

const UNREADABLE: &str = "its secret cannot be read under the key that the server has: put the \
     right key file back and start the server again, or rotate the secret";

/// How webhooks are served.
#[derive(Debug, Clone)]
pub struct WebhooksConfig {
    /// The file of the key under which secrets are kept.
    pub key: PathBuf,
    /// The store of what came of deliveries.
    pub store: PathBuf,
    /// What may be connected to.
    pub reach: Reach,
}

/// What is known of a webhook's deliveries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookFigures {
    /// Attempts.
    pub total: u64,
    /// Those that worked.
    pub successful: u64,
    /// Those that did not.
    pub failed: u64,
    /// The last one, in microseconds since 1970.
    pub last_at: Option<i64>,
    /// Dead letters there are.
    #[serde(skip)]
    pub dead_letters: u64,
    /// Dead letters that were dropped, since there were too many.
    pub dead_letters_dropped: u64,
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryStatus {
    /// It worked.
    Success,
    /// It failed, and there is another.
    Retrying,
    /// It failed, and there is none.
    Failed,
}

impl DeliveryStatus {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Retrying => "retrying",
            Self::Failed => "failed",
        }
    }
}

/// One attempt to deliver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhookDelivery {
    /// Its number among those of its webhook.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub n: u64,
    /// Its id.
    pub id: String,
    /// The event's.
    pub event_id: String,
    /// What it is called.
    pub event_type: String,
    /// Where it is in the feed.
    pub position: Option<String>,
    /// What became of it.
    pub status: DeliveryStatus,
    /// Which attempt it is of this event, from 1.
    pub attempt_number: u32,
    /// When, in microseconds since 1970.
    pub attempted_at: i64,
    /// What was answered.
    pub status_code: Option<u16>,
    /// The beginning of what was answered.
    pub response_body: Option<String>,
    /// Why it failed.
    pub error_message: Option<String>,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
    /// When the next is, in microseconds since 1970.
    pub next_retry_at: Option<i64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// What could not be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its number among those of its webhook.
    pub n: u64,
    /// The event's id; of events that are not kept any more there is none.
    pub event_id: Option<String>,
    /// What it is called.
    pub event_type: Option<String>,
    /// The library it is of.
    pub library_id: Option<String>,
    /// Where it is in the feed.
    pub position: Option<String>,
    /// Events that were no longer kept when their turn came: after this place, before this record.
    pub missing: Option<(String, u64)>,
    /// What was sent.
    pub body: Option<String>,
    /// How often.
    pub attempts: u32,
    /// When it was given up, in microseconds since 1970.
    pub failed_at: i64,
    /// What was answered the last time.
    pub status_code: Option<u16>,
    /// Why it was given up.
    pub error: String,
}

impl DeadLetter {
    pub(super) fn of(message: &Message, attempt: &Attempt, attempts: u32) -> Self {
        Self {
            n: 0,
            event_id: Some(message.id.to_string()),
            event_type: Some(message.event_type.to_owned()),
            library_id: message.library.map(|library| library.to_string()),
            position: message.position.map(|position| position.to_string()),
            missing: None,
            body: Some(String::from_utf8_lossy(&message.body).into_owned()),
            attempts,
            failed_at: attempt.at.micros(),
            status_code: attempt.status,
            error: attempt.error.clone().unwrap_or_default(),
        }
    }

    /// Events that cannot be delivered any more: after a place, before a record.
    pub(super) fn missing((after, before): (Position, Seq), now: Timestamp, error: String) -> Self {
        Self {
            n: 0,
            event_id: None,
            event_type: None,
            library_id: None,
            position: None,
            missing: Some((after.to_string(), before.get())),
            body: None,
            attempts: 0,
            failed_at: now.micros(),
            status_code: None,
            error,
        }
    }

    /// What is to be sent again, if it is there.
    pub(super) fn message(&self) -> Option<Message> {
        let name = self.event_type.as_deref()?;
        let known = EventType::ALL.into_iter().map(EventType::name);
        let event_type = known.chain(["document.created"]).find(|known| *known == name)?;
        Some(Message {
            id: self.event_id.as_ref()?.parse().ok()?,
            event_type,
            body: self.body.clone()?.into(),
            position: self.position.as_ref().and_then(|position| position.parse().ok()),
            library: self.library_id.as_ref().and_then(|library| library.parse().ok()),
        })
    }
}

/// Records whose events are sent again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// From this record.
    pub from: u64,
    /// To this one.
    pub to: u64,
    /// Which one it is: what one does that was cancelled is nothing to the next.
    #[serde(default)]
    pub(super) run: u64,
    #[serde(flatten)]
    pub(super) progress: Progress,
}

/// What came of delivering dead letters again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redelivered {
    /// Those that were taken.
    pub delivered: u64,
    /// Those that were not; with the first of them it ends.
    pub failed: u64,
    /// Those that are left.
    pub remaining: u64,
}

/// Figures of all webhooks.
#[derive(Debug, Clone, Copy)]
pub struct WebhooksStats {
    /// Couriers under way.
    pub couriers: u64,
    /// Webhooks that nothing is delivered to at the moment, though they are active: each says why.
    pub in_trouble: u64,
    /// Events that wait to be sent again, as an attempt failed: of each library of each webhook the
    /// first, behind which the others wait.
    pub retrying: u64,
    /// Dead letters of all webhooks: events that were given up, and wait for somebody.
    pub dead_letters: u64,
    /// Webhooks that their receivers have disabled, by answering 410, and nobody has activated since.
    pub disabled_by_receiver: u64,
    /// Attempts since the start that worked.
    pub delivered: u64,
    /// Attempts since the start that did not.
    pub failed: u64,
    /// Whether events are delivered.
    pub running: bool,
}
