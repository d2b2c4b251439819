//! What is answered of webhooks.

use arrwdb_engine::state::{TenantId, Timestamp, Webhook, WebhookId};
use arrwdb_feed::{DeadLetter, DeliveryStatus, Replay, Secret, WebhookDelivery};
use axum::Json;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::answers::{as_time, rfc3339};
use crate::app::App;

/// What a secret looks like that is not shown.
const MASKED: &str = "whsec_****************************************************************";

/// A secret as it is answered; it gets nowhere else.
#[derive(Serialize)]
struct Shown(String);

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shown")
    }
}

/// A webhook.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WebhookAnswer {
    #[schema(format = "uuid")]
    id: String,
    tenant_id: Option<String>,
    url: String,
    events: Vec<String>,
    /// Shown once, by the request that makes it; masked everywhere else.
    #[schema(value_type = String)]
    secret: Shown,
    /// `active`, `paused` or `disabled`.
    status: &'static str,
    description: Option<String>,
    max_retries: u32,
    retry_delay_seconds: u32,
    timeout_seconds: u32,
    parallel: bool,
    #[schema(value_type = String, format = "date-time")]
    #[serde(serialize_with = "as_time")]
    created_at: Timestamp,
    #[schema(value_type = String, format = "date-time")]
    #[serde(serialize_with = "as_time")]
    updated_at: Timestamp,
    /// The last attempt.
    last_triggered_at: Option<String>,
    /// Attempts.
    total_deliveries: u64,
    successful_deliveries: u64,
    failed_deliveries: u64,
    /// What could not be delivered, and waits to be looked at.
    dead_letters: u64,
    /// All events up to this place of the feed are delivered, or dead letters.
    position: String,
    /// What is sent again: `from_seq` and `to_seq`.
    #[schema(value_type = Option<Object>)]
    replay: Option<Value>,
    /// What keeps it from being sent anything, if something does but its status.
    problem: Option<String>,
    /// Secrets that were rotated out sign until then.
    previous_secret_valid_until: Option<String>,
}

impl WebhookAnswer {
    pub(super) fn of(app: &App, webhook: &Webhook) -> Self {
        let hooks = app.webhooks();
        let figures = hooks.figures(webhook.id);
        let now = app.engine().now();
        let older = webhook.secrets.iter().filter_map(|secret| secret.until);
        Self {
            id: webhook.id.to_string(),
            tenant_id: tenant(webhook.tenant),
            url: webhook.url.clone(),
            events: webhook.events.clone(),
            secret: Shown(MASKED.to_owned()),
            status: webhook.status.name(),
            description: webhook.description.clone(),
            max_retries: webhook.max_retries,
            retry_delay_seconds: webhook.retry_delay_seconds,
            timeout_seconds: webhook.timeout_seconds,
            parallel: webhook.parallel,
            created_at: webhook.created_at,
            updated_at: webhook.updated_at,
            last_triggered_at: figures.last_at.map(time),
            total_deliveries: figures.total,
            successful_deliveries: figures.successful,
            failed_deliveries: figures.failed,
            dead_letters: figures.dead_letters,
            position: hooks.position(webhook).to_string(),
            replay: hooks.replaying(webhook.id).as_ref().map(replay_answer),
            problem: hooks.obstacle(webhook),
            previous_secret_valid_until: older.filter(|until| *until > now).max().map(rfc3339),
        }
    }

    pub(super) fn with_secret(self, secret: &Secret) -> Self {
        Self { secret: Shown(secret.reveal().to_owned()), ..self }
    }
}

pub(super) fn replay_answer(replay: &Replay) -> Value {
    json!({"from_seq": replay.from, "to_seq": replay.to})
}

/// Until there are tenants, nobody is told of one.
fn tenant(tenant: TenantId) -> Option<String> {
    Some(tenant).filter(|tenant| *tenant != TenantId::DEFAULT).map(|tenant| tenant.to_string())
}

pub(super) fn time(micros: i64) -> String {
    rfc3339(Timestamp::from_micros(micros))
}

/// A page of webhooks.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WebhookList {
    pub(super) webhooks: Vec<WebhookAnswer>,
    /// How many there are on all pages.
    pub(super) total: usize,
    pub(super) page: u64,
    pub(super) page_size: u64,
}

/// An attempt to deliver.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeliveryAnswer {
    #[schema(format = "uuid")]
    id: String,
    #[schema(format = "uuid")]
    webhook_id: String,
    /// The `webhook-id` of the delivery: the same for every attempt.
    #[schema(format = "uuid")]
    event_id: String,
    event_type: String,
    /// Its place in the feed.
    position: Option<String>,
    /// `success`, `retrying` or `failed`.
    status: &'static str,
    /// From 1.
    attempt_number: u32,
    #[schema(format = "date-time")]
    attempted_at: String,
    status_code: Option<u16>,
    /// At most 1,000 characters.
    response_body: Option<String>,
    error_message: Option<String>,
    duration_ms: Option<f64>,
    next_retry_at: Option<String>,
}

impl DeliveryAnswer {
    pub(super) fn of(webhook: WebhookId, delivery: WebhookDelivery) -> Self {
        Self {
            id: delivery.id,
            webhook_id: webhook.to_string(),
            event_id: delivery.event_id,
            event_type: delivery.event_type,
            position: delivery.position,
            status: delivery.status.name(),
            attempt_number: delivery.attempt_number,
            attempted_at: time(delivery.attempted_at),
            status_code: delivery.status_code,
            response_body: delivery.response_body,
            error_message: delivery.error_message,
            duration_ms: Some(delivery.duration_ms),
            next_retry_at: delivery.next_retry_at.map(time),
        }
    }
}

/// A page of attempts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeliveryList {
    pub(super) deliveries: Vec<DeliveryAnswer>,
    /// How many there are on all pages; the newest 1,000 are kept.
    pub(super) total: usize,
    pub(super) page: u64,
    pub(super) page_size: u64,
}

/// What could not be delivered.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeadLetterAnswer {
    /// What to name it by.
    id: u64,
    #[schema(format = "uuid")]
    webhook_id: String,
    event_id: Option<String>,
    event_type: Option<String>,
    library_id: Option<String>,
    position: Option<String>,
    /// What was sent.
    #[schema(value_type = Option<Object>)]
    payload: Option<Value>,
    attempts: u32,
    #[schema(format = "date-time")]
    failed_at: String,
    status_code: Option<u16>,
    error: String,
    /// Events that were no longer kept when their turn came: after this place (`after`), before this
    /// record (`before_seq`).
    #[schema(value_type = Option<Object>)]
    missing: Option<Value>,
}

impl DeadLetterAnswer {
    pub(super) fn of(webhook: WebhookId, letter: DeadLetter) -> Self {
        let payload = letter.body.as_deref().and_then(|body| serde_json::from_str(body).ok());
        let missing = letter.missing;
        Self {
            id: letter.n,
            webhook_id: webhook.to_string(),
            event_id: letter.event_id,
            event_type: letter.event_type,
            library_id: letter.library_id,
            position: letter.position,
            payload,
            attempts: letter.attempts,
            failed_at: time(letter.failed_at),
            status_code: letter.status_code,
            error: letter.error,
            missing: missing.map(|(after, before)| json!({"after": after, "before_seq": before})),
        }
    }
}

/// A page of dead letters.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeadLetterList {
    pub(super) dead_letters: Vec<DeadLetterAnswer>,
    /// How many there are on all pages; the newest 1,000 are kept.
    pub(super) total: usize,
    pub(super) page: u64,
    pub(super) page_size: u64,
}

/// What came of sending something now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Sent {
    success: bool,
    delivery: DeliveryAnswer,
}

impl Sent {
    pub(super) fn of(webhook: &Webhook, delivery: WebhookDelivery) -> Json<Self> {
        let success = delivery.status == DeliveryStatus::Success;
        Json(Self { success, delivery: DeliveryAnswer::of(webhook.id, delivery) })
    }
}
