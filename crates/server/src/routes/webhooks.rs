//! Webhooks: who is told of events over HTTP, what came of it, and what is sent again.

use std::sync::Arc;

use arrwdb_engine::state::{SealedSecret, Seq, Timestamp, Webhook, WebhookId, WebhookStatus};
use arrwdb_feed::{DeliveryStatus, Secret, WebhooksError};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::percent;
use super::seq_header;
use super::webhook_answers::{
    DeadLetterAnswer, DeadLetterList, DeliveryAnswer, DeliveryList, Sent, WebhookAnswer,
    WebhookList, replay_answer, time,
};
use super::webhook_requests::{self as requests, Asked};
use crate::app::App;
use crate::extract::{QueryPairs, TextPath, WholeBody, query_fault, read_json};
use crate::limits::{WEBHOOK_PAGE_DEFAULT, WEBHOOK_PAGE_MAX, WEBHOOK_SECRETS_MAX};
use crate::moment::MinSeq;
use crate::openapi::{ReadErrors, WriteErrors};
use crate::principal::Principal;
use crate::problem::{self, Problem};

/// Routes that answer soon.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(one, change, delete))
        .routes(routes!(rotate))
        .routes(routes!(deliveries))
        .routes(routes!(stats))
        .routes(routes!(dead_letters))
        .routes(routes!(remove_dead_letter))
        .routes(routes!(replay, cancel_replay))
}

/// Routes that wait for a receiver.
pub(super) fn long_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(test))
        .routes(routes!(redeliver))
        .routes(routes!(redeliver_all))
}

impl From<WebhooksError> for Problem {
    fn from(error: WebhooksError) -> Self {
        let text = error.to_string();
        match error {
            WebhooksError::Engine(error) => error.into(),
            WebhooksError::Store(_) => Self::hidden(&problem::STORAGE, text),
            WebhooksError::Vault(_) | WebhooksError::Client(_) => {
                Self::hidden(&problem::INTERNAL, text)
            }
            WebhooksError::Replaying { .. }
            | WebhooksError::Inactive(_)
            | WebhooksError::Sending
            | WebhooksError::Unreadable
            | WebhooksError::Target(_) => Self::new(&problem::WEBHOOK_STATE, text),
            WebhooksError::NoDeadLetter(_) | WebhooksError::NoReplay => {
                Self::new(&problem::NOT_FOUND, text)
            }
            WebhooksError::Nothing(_) => Self::new(&problem::EVENTS_GONE, text),
        }
    }
}

/// A webhook of the path; what is no id is not there.
fn webhook_id(text: &str) -> Result<WebhookId, Problem> {
    text.parse().map_err(|_not_an_id| {
        let text: String = text.chars().take(64).collect();
        Problem::new(&problem::WEBHOOK_NOT_FOUND, format!("Webhook {text} not found"))
    })
}

/// A webhook of the principal's, and the number that this is true at.
async fn find(
    (app, principal): (&App, Principal),
    text: &str,
    min_seq: Option<Seq>,
) -> Result<(Arc<Webhook>, Seq), Problem> {
    let id = webhook_id(text)?;
    Ok(app.engine().webhook((principal.tenant, id), min_seq).await?)
}

fn page(query: &QueryPairs) -> Result<(u64, u64, (usize, usize)), Problem> {
    let page = query.whole("page", 1, 1..=u64::from(u32::MAX))?;
    let size = query.whole("page_size", WEBHOOK_PAGE_DEFAULT, 1..=WEBHOOK_PAGE_MAX)?;
    let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Ok((page, size, (whole((page - 1) * size), whole(size))))
}

fn failed(error: arrwdb_feed::VaultError) -> Problem {
    WebhooksError::from(error).into()
}

/// Makes a webhook: what happens from now on is sent to it. The answer shows its secret, once.
#[utoipa::path(post, operation_id = "create_webhook", path = "/webhooks", tag = "webhooks",
    request_body = requests::NewWebhook,
    responses((status = 201, description = "Made: durable", body = WebhookAnswer), WriteErrors))]
async fn create(
    principal: Principal,
    State(app): State<App>,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let hooks = app.webhooks();
    let asked = read_json(&body, |r| requests::new_webhook(r, hooks.reach()))?;
    let (webhook, secret) = new_webhook(&app, principal, asked)?;
    let written = app.engine().add_webhook(webhook.clone()).await?;
    let answer = WebhookAnswer::of(&app, &webhook).with_secret(&secret);
    Ok((StatusCode::CREATED, seq_header(written.seq), Json(answer)).into_response())
}

fn new_webhook(
    app: &App,
    principal: Principal,
    asked: Asked,
) -> Result<(Webhook, Secret), Problem> {
    let (engine, vault) = (app.engine(), app.webhooks().vault());
    let id = engine.new_webhook_id();
    let secret = vault.new_secret().map_err(failed)?;
    let sealed = vault.seal(id, &secret).map_err(failed)?;
    let now = engine.now();
    let mut webhook = Webhook {
        id,
        tenant: principal.tenant,
        url: String::new(),
        events: Vec::new(),
        description: None,
        status: WebhookStatus::Active,
        max_retries: 3,
        retry_delay_seconds: 60,
        timeout_seconds: 30,
        parallel: false,
        secrets: vec![SealedSecret { sealed, until: None }],
        created_at: now,
        updated_at: now,
        after: engine.durable(),
    };
    asked.apply(&mut webhook);
    Ok((webhook, secret))
}

/// The webhooks, the oldest first.
#[utoipa::path(get, operation_id = "list_webhooks", path = "/webhooks", tag = "webhooks",
    params(
        ("status" = Option<String>, Query, description = "active, paused or disabled"),
        ("tenant_id" = Option<String>, Query, description = "Those of this tenant"),
        ("page" = Option<u64>, Query, description = "From 1 [1]"),
        ("page_size" = Option<u64>, Query, description = "1 to 100 [50]"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
    ),
    responses((status = 200, description = "A page", body = WebhookList), ReadErrors))]
async fn list(
    principal: Principal,
    State(app): State<App>,
    MinSeq(min_seq): MinSeq,
    query: QueryPairs,
) -> Result<Response, Problem> {
    let (page, page_size, (skip, take)) = page(&query)?;
    let status = match query.text("status") {
        None => None,
        Some(name) => {
            let known = WebhookStatus::from_name(name);
            let fault = || query_fault("status", "must be active, paused or disabled");
            Some(known.ok_or_else(fault)?)
        }
    };
    let (webhooks, seq) = app.engine().webhooks(min_seq).await?;
    let is_wanted = |webhook: &&Arc<Webhook>| {
        webhook.tenant == principal.tenant
            && status.is_none_or(|status| webhook.status == status)
            && query.text("tenant_id").is_none_or(|text| text == webhook.tenant.to_string())
    };
    let found: Vec<&Arc<Webhook>> = webhooks.iter().filter(is_wanted).collect();
    let shown = found.iter().skip(skip).take(take);
    let answer = WebhookList {
        total: found.len(),
        webhooks: shown.map(|webhook| WebhookAnswer::of(&app, webhook)).collect(),
        page,
        page_size,
    };
    Ok((seq_header(seq), Json(answer)).into_response())
}

/// A webhook.
#[utoipa::path(get, operation_id = "get_webhook", path = "/webhooks/{webhook_id}", tag = "webhooks",
    params(
        ("webhook_id" = String, Path, format = "uuid", description = "The webhook"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
    ),
    responses((status = 200, description = "The webhook", body = WebhookAnswer), ReadErrors))]
async fn one(
    principal: Principal,
    State(app): State<App>,
    TextPath(id): TextPath<String>,
    MinSeq(min_seq): MinSeq,
) -> Result<Response, Problem> {
    let (webhook, seq) = find((&app, principal), &id, min_seq).await?;
    Ok((seq_header(seq), Json(WebhookAnswer::of(&app, &webhook))).into_response())
}

/// Changes a webhook. What it is sent goes on where it was.
#[utoipa::path(patch, operation_id = "update_webhook", path = "/webhooks/{webhook_id}", tag = "webhooks",
    params(("webhook_id" = String, Path, format = "uuid", description = "The webhook")),
    request_body = requests::WebhookPatch,
    responses((status = 200, description = "The webhook: durable", body = WebhookAnswer), WriteErrors))]
async fn change(
    principal: Principal,
    State(app): State<App>,
    TextPath(id): TextPath<String>,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let id = webhook_id(&id)?;
    let hooks = app.webhooks();
    let asked = read_json(&body, |r| requests::patch(r, hooks.reach()))?;
    let change = |webhook: &mut Webhook| {
        asked.apply(webhook);
        Ok::<_, Problem>(())
    };
    let written = hooks.change((principal.tenant, id), change).await?;
    let answer = WebhookAnswer::of(&app, &written.value);
    Ok((seq_header(written.seq), Json(answer)).into_response())
}

/// Deletes a webhook, and what is known of its deliveries.
#[utoipa::path(delete, operation_id = "delete_webhook", path = "/webhooks/{webhook_id}", tag = "webhooks",
    params(("webhook_id" = String, Path, format = "uuid", description = "The webhook")),
    responses((status = 204, description = "Deleted: durable"), WriteErrors))]
async fn delete(
    principal: Principal,
    State(app): State<App>,
    TextPath(id): TextPath<String>,
) -> Result<Response, Problem> {
    let id = webhook_id(&id)?;
    let written = app.engine().delete_webhook(principal.tenant, id).await?;
    Ok((StatusCode::NO_CONTENT, seq_header(written.seq)).into_response())
}

/// Makes a new secret, and shows it, once. The one before stays valid for a while: until then,
/// deliveries carry signatures of both in `webhook-signature`. `X-Webhook-Signature` has room for one:
/// it is of the new one from now on.
#[utoipa::path(post, operation_id = "rotate_webhook_secret", path = "/webhooks/{webhook_id}/rotate-secret", tag = "webhooks",
    params(("webhook_id" = String, Path, format = "uuid", description = "The webhook")),
    request_body(content = Option<requests::RotateSecret>),
    responses((status = 200, description = "The webhook: durable", body = WebhookAnswer), WriteErrors))]
async fn rotate(
    principal: Principal,
    State(app): State<App>,
    TextPath(id): TextPath<String>,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let id = webhook_id(&id)?;
    let body = if body.trim_ascii().is_empty() { &b"{}"[..] } else { &body };
    let grace = read_json(body, requests::grace)?;
    let hooks = app.webhooks();
    let secret = hooks.vault().new_secret().map_err(failed)?;
    let sealed = hooks.vault().seal(id, &secret).map_err(failed)?;
    let now = app.engine().now();
    let grace = i64::try_from(grace).unwrap_or(i64::MAX).saturating_mul(1_000_000);
    let until = Timestamp::from_micros(now.micros().saturating_add(grace));
    let change = |webhook: &mut Webhook| {
        for older in &mut webhook.secrets {
            older.until = Some(older.until.map_or(until, |ends| ends.min(until)));
        }
        // One that cannot be read any more signs nothing.
        let signs = |older: &SealedSecret| {
            older.until.is_some_and(|until| until > now)
                && hooks.vault().open_secret(id, &older.sealed).is_some()
        };
        webhook.secrets.retain(signs);
        webhook.secrets.insert(0, SealedSecret { sealed, until: None });
        webhook.secrets.truncate(WEBHOOK_SECRETS_MAX);
        Ok::<_, Problem>(())
    };
    let written = hooks.change((principal.tenant, id), change).await?;
    let answer = WebhookAnswer::of(&app, &written.value).with_secret(&secret);
    Ok((seq_header(written.seq), Json(answer)).into_response())
}

/// Attempts to deliver, the newest first.
#[utoipa::path(get, operation_id = "list_webhook_deliveries", path = "/webhooks/{webhook_id}/deliveries", tag = "webhooks",
    params(
        ("webhook_id" = String, Path, format = "uuid", description = "The webhook"),
        ("status" = Option<String>, Query, description = "pending, success, retrying or failed"),
        ("page" = Option<u64>, Query, description = "From 1 [1]"),
        ("page_size" = Option<u64>, Query, description = "1 to 100 [50]"),
    ),
    responses((status = 200, description = "A page", body = DeliveryList), ReadErrors))]
async fn deliveries(
    principal: Principal,
    State(app): State<App>,
    TextPath(id): TextPath<String>,
    query: QueryPairs,
) -> Result<Json<DeliveryList>, Problem> {
    let (webhook, _seq) = find((&app, principal), &id, None).await?;
    let (page, page_size, range) = page(&query)?;
    let status = match query.text("status") {
        None => None,
        Some("success") => Some(DeliveryStatus::Success),
        Some("retrying") => Some(DeliveryStatus::Retrying),
        Some("failed") => Some(DeliveryStatus::Failed),
        // What is noted is over.
        Some("pending") => {
            return Ok(Json(DeliveryList { deliveries: Vec::new(), total: 0, page, page_size }));
        }
        Some(_other) => {
            return Err(query_fault("status", "must be pending, success, retrying or failed"));
        }
    };
    let (found, total) = app.webhooks().deliveries(webhook.id, range, status).await?;
    let deliveries = found.into_iter().map(|it| DeliveryAnswer::of(webhook.id, it)).collect();
    Ok(Json(DeliveryList { deliveries, total, page, page_size }))
}

/// Figures of a webhook; they outlive restarts.
#[utoipa::path(get, operation_id = "get_webhook_stats", path = "/webhooks/{webhook_id}/stats", tag = "webhooks",
    params(("webhook_id" = String, Path, format = "uuid", description = "The webhook")),
    responses((status = 200, description = "Figures", body = Object,
        example = json!({"webhook_id": "0191f4a2-7c3e-7abc-8def-0123456789ab", "total_deliveries": 3, "successful_deliveries": 3, "failed_deliveries": 0, "success_rate": 100.0, "last_triggered_at": null, "dead_letters": 0, "dead_letters_dropped": 0})), ReadErrors))]
async fn stats(
    principal: Principal,
    State(app): State<App>,
    TextPath(id): TextPath<String>,
) -> Result<Json<Value>, Problem> {
    let (webhook, _seq) = find((&app, principal), &id, None).await?;
    let figures = app.webhooks().figures(webhook.id);
    #[expect(clippy::cast_precision_loss, reason = "a percentage with two decimals")]
    let rate = match figures.total {
        0 => 0.0,
        total => percent(figures.successful as f64 / total as f64),
    };
    Ok(Json(json!({
        "webhook_id": webhook.id.to_string(),
        "total_deliveries": figures.total,
        "successful_deliveries": figures.successful,
        "failed_deliveries": figures.failed,
        "success_rate": rate,
        "last_triggered_at": figures.last_at.map(time),
        "dead_letters": figures.dead_letters,
        "dead_letters_dropped": figures.dead_letters_dropped,
    })))
}

/// Sends a `job.completed` event that says it is a test, whatever the status of the webhook, once.
#[utoipa::path(post, operation_id = "test_webhook", path = "/webhooks/{webhook_id}/test", tag = "webhooks",
    params(("webhook_id" = String, Path, format = "uuid", description = "The webhook")),
    responses((status = 200, description = "What came of it", body = Sent), WriteErrors))]
async fn test(
    principal: Principal,
    State(app): State<App>,
    TextPath(id): TextPath<String>,
) -> Result<Json<Sent>, Problem> {
    let (webhook, _seq) = find((&app, principal), &id, None).await?;
    let delivery = app.webhooks().test(&webhook).await?;
    Ok(Sent::of(&webhook, delivery))
}

/// What could not be delivered, the newest first.
#[utoipa::path(get, operation_id = "list_webhook_dead_letters", path = "/webhooks/{webhook_id}/dead-letters", tag = "webhooks",
    params(
        ("webhook_id" = String, Path, format = "uuid", description = "The webhook"),
        ("page" = Option<u64>, Query, description = "From 1 [1]"),
        ("page_size" = Option<u64>, Query, description = "1 to 100 [50]"),
    ),
    responses((status = 200, description = "A page", body = DeadLetterList), ReadErrors))]
async fn dead_letters(
    principal: Principal,
    State(app): State<App>,
    TextPath(id): TextPath<String>,
    query: QueryPairs,
) -> Result<Json<DeadLetterList>, Problem> {
    let (webhook, _seq) = find((&app, principal), &id, None).await?;
    let (page, page_size, range) = page(&query)?;
    let (found, total) = app.webhooks().dead_letters(webhook.id, range).await?;
    let dead_letters = found.into_iter().map(|it| DeadLetterAnswer::of(webhook.id, it)).collect();
    Ok(Json(DeadLetterList { dead_letters, total, page, page_size }))
}

/// A dead letter of the path; what is no number is not there.
fn letter_number(text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_not_a_number| {
        let text: String = text.chars().take(64).collect();
        Problem::new(&problem::NOT_FOUND, format!("there is no dead letter {text}"))
    })
}

/// Sends a dead letter once more, by the same id. If it is taken, it is a dead letter no more.
#[utoipa::path(post, operation_id = "redeliver_webhook_dead_letter", path = "/webhooks/{webhook_id}/dead-letters/{letter_id}/redeliver", tag = "webhooks",
    params(
        ("webhook_id" = String, Path, format = "uuid", description = "The webhook"),
        ("letter_id" = String, Path, description = "The dead letter"),
    ),
    responses((status = 200, description = "What came of it", body = Sent), WriteErrors))]
async fn redeliver(
    principal: Principal,
    State(app): State<App>,
    TextPath((id, letter)): TextPath<(String, String)>,
) -> Result<Json<Sent>, Problem> {
    let (webhook, _seq) = find((&app, principal), &id, None).await?;
    let delivery = app.webhooks().redeliver(&webhook, letter_number(&letter)?).await?;
    Ok(Sent::of(&webhook, delivery))
}

/// Sends dead letters once more, the oldest first, at most 100, for at most about a minute, until one
/// is not taken.
#[utoipa::path(post, operation_id = "redeliver_webhook_dead_letters", path = "/webhooks/{webhook_id}/dead-letters/redeliver", tag = "webhooks",
    params(("webhook_id" = String, Path, format = "uuid", description = "The webhook")),
    responses((status = 200, description = "What came of it", body = Object,
        example = json!({"delivered": 7, "failed": 0, "remaining": 0})), WriteErrors))]
async fn redeliver_all(
    principal: Principal,
    State(app): State<App>,
    TextPath(id): TextPath<String>,
) -> Result<Json<Value>, Problem> {
    let (webhook, _seq) = find((&app, principal), &id, None).await?;
    let done = app.webhooks().redeliver_all(&webhook).await?;
    let (delivered, failed, remaining) = (done.delivered, done.failed, done.remaining);
    Ok(Json(json!({"delivered": delivered, "failed": failed, "remaining": remaining})))
}

/// Removes a dead letter.
#[utoipa::path(delete, operation_id = "delete_webhook_dead_letter", path = "/webhooks/{webhook_id}/dead-letters/{letter_id}", tag = "webhooks",
    params(
        ("webhook_id" = String, Path, format = "uuid", description = "The webhook"),
        ("letter_id" = String, Path, description = "The dead letter"),
    ),
    responses((status = 204, description = "Removed"), WriteErrors))]
async fn remove_dead_letter(
    principal: Principal,
    State(app): State<App>,
    TextPath((id, letter)): TextPath<(String, String)>,
) -> Result<StatusCode, Problem> {
    let (webhook, _seq) = find((&app, principal), &id, None).await?;
    app.webhooks().remove_dead_letter(webhook.id, letter_number(&letter)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sends the events of some records again, by the same ids, beside what happens meanwhile; one range
/// at a time, to an active webhook.
#[utoipa::path(post, operation_id = "replay_webhook", path = "/webhooks/{webhook_id}/replay", tag = "webhooks",
    params(("webhook_id" = String, Path, format = "uuid", description = "The webhook")),
    request_body = requests::ReplayRange,
    responses((status = 200, description = "Begun: durable", body = Object,
        example = json!({"webhook_id": "0191f4a2-7c3e-7abc-8def-0123456789ab", "from_seq": 1, "to_seq": 100})), WriteErrors))]
async fn replay(
    principal: Principal,
    State(app): State<App>,
    TextPath(id): TextPath<String>,
    WholeBody(body, _room): WholeBody,
) -> Result<Json<Value>, Problem> {
    let (webhook, _seq) = find((&app, principal), &id, None).await?;
    let durable = app.engine().durable();
    let (from, to) = read_json(&body, |r| requests::range(r, durable))?;
    let oldest = app.feed().oldest();
    if from < oldest {
        return Err(arrwdb_feed::FeedError::Trimmed { oldest }.into());
    }
    let to = to.min(durable);
    let replay = app.webhooks().replay(&webhook, (from, to)).await?;
    let mut answer = replay_answer(&replay);
    answer["webhook_id"] = webhook.id.to_string().into();
    Ok(Json(answer))
}

/// Sends nothing again any more: the replay that is under way ends. What it has begun to send may
/// still arrive.
#[utoipa::path(delete, operation_id = "cancel_webhook_replay", path = "/webhooks/{webhook_id}/replay", tag = "webhooks",
    params(("webhook_id" = String, Path, format = "uuid", description = "The webhook")),
    responses((status = 204, description = "Ended: durable"), WriteErrors))]
async fn cancel_replay(
    principal: Principal,
    State(app): State<App>,
    TextPath(id): TextPath<String>,
) -> Result<StatusCode, Problem> {
    let (webhook, _seq) = find((&app, principal), &id, None).await?;
    app.webhooks().cancel_replay(webhook.id).await?;
    Ok(StatusCode::NO_CONTENT)
}
