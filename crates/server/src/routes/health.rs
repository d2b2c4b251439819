//! Is it up, is it ready, how is it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrwdb_engine::Health;
use arrwdb_engine::state::{Job, JobKind, JobState, Timestamp};
use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::rfc3339;
use super::root::API_VERSION;
use crate::app::App;
use crate::principal::Principal;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(healthz))
        .routes(routes!(ready))
        .routes(routes!(readyz))
        .routes(routes!(readiness))
        .routes(routes!(liveness))
        .routes(routes!(livez))
        .routes(routes!(detailed))
        .routes(routes!(ping))
}

fn now() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}

/// The server is up.
#[utoipa::path(get, path = "/health", tag = "health", responses(
    (status = 200, description = "Up", body = Object,
     example = json!({"status": "healthy", "version": "1.0.0", "timestamp": "2026-01-31T12:00:00.000000Z", "uptime_seconds": 3.2, "server_version": "0.1.0"}))
))]
async fn health(_principal: Principal, State(app): State<App>) -> Json<Value> {
    Json(json!({
        "status": "healthy",
        "version": API_VERSION,
        "timestamp": now(),
        "uptime_seconds": app.uptime().as_secs_f64(),
        "server_version": env!("CARGO_PKG_VERSION"),
    }))
}

/// Like `/health`.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, description = "Up", body = Object)))]
async fn healthz(principal: Principal, state: State<App>) -> Json<Value> {
    health(principal, state).await
}

/// The server can do its work: the log takes writes and the embedding model is ready.
#[utoipa::path(get, path = "/ready", tag = "health", responses(
    (status = 200, description = "Ready", body = Object,
     example = json!({"status": "ready", "ready": true, "checks": {"embedding_service": {"status": "configured", "healthy": true}}})),
    (status = 503, description = "Not ready; checks say why", body = Object),
))]
async fn ready(_principal: Principal, State(app): State<App>) -> (StatusCode, Json<Value>) {
    let health = app.engine().health();
    let ready = is_ready(&health) && follows(&app);
    let body = json!({
        "status": if ready { "ready" } else { "not_ready" },
        "ready": ready,
        "timestamp": now(),
        "checks": {
            "log": check(&health.log),
            "data_dir": check(&health.data_dir),
            "embedding_service": embedding_check(&health),
            "event_bus": event_bus_check(&app),
            "standing_queries": matcher_check(&app),
            "job_queue": job_queue_check(&app),
            "webhooks": webhooks_check(&app),
        },
    });
    (ready_status(ready), Json(body))
}

/// Like `/ready`.
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, description = "Ready", body = Object),
    (status = 503, description = "Not ready; checks say why", body = Object),
))]
async fn readyz(principal: Principal, state: State<App>) -> (StatusCode, Json<Value>) {
    ready(principal, state).await
}

fn is_ready(health: &Health) -> bool {
    health.log.is_ok() && health.data_dir.is_ok() && health.embedding.ready
}

/// Whether what follows the log does: the change feed, and the matcher of standing queries.
fn follows(app: &App) -> bool {
    app.feed().stats().running && app.matching().running
}

fn matcher_check(app: &App) -> Value {
    let running = app.matching().running;
    json!({"status": if running { "ready" } else { "not_running" }, "healthy": running})
}

fn event_bus_check(app: &App) -> Value {
    let running = app.feed().stats().running;
    json!({"status": if running { "ready" } else { "not_running" }, "healthy": running})
}

fn ready_status(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn check(outcome: &Result<(), String>) -> Value {
    match outcome {
        Ok(()) => json!({"status": "ready", "healthy": true}),
        Err(error) => json!({"status": "error", "healthy": false, "error": error}),
    }
}

fn embedding_check(health: &Health) -> Value {
    let status = if health.embedding.ready { "configured" } else { "not_configured" };
    json!({
        "status": status,
        "healthy": health.embedding.ready,
        "note": health.embedding.note,
    })
}

/// Readiness in the form of older deployments.
#[utoipa::path(get, path = "/readiness", tag = "health", responses(
    (status = 200, description = "Ready", body = Object,
     example = json!({"ready": true, "checks": {"embedding_service": true, "data_dir_writable": true, "libraries_loaded": true}, "message": "Service is ready to accept traffic"})),
    (status = 503, description = "Not ready", body = Object),
))]
async fn readiness(_principal: Principal, State(app): State<App>) -> (StatusCode, Json<Value>) {
    let health = app.engine().health();
    let ready = is_ready(&health) && follows(&app);
    let message = if ready { "Service is ready to accept traffic" } else { "Service is not ready" };
    let body = json!({
        "ready": ready,
        "checks": {
            "embedding_service": health.embedding.ready,
            "data_dir_writable": health.data_dir.is_ok(),
            "libraries_loaded": true,
            "log": health.log.is_ok(),
        },
        "message": message,
    });
    (ready_status(ready), Json(body))
}

/// The process lives.
#[utoipa::path(get, path = "/liveness", tag = "health", responses(
    (status = 200, description = "Alive", body = Object,
     example = json!({"status": "alive", "version": "1.0.0", "timestamp": "2026-01-31T12:00:00.000000Z"}))
))]
async fn liveness(_principal: Principal) -> Json<Value> {
    Json(json!({"status": "alive", "version": API_VERSION, "timestamp": now()}))
}

/// Like `/liveness`.
#[utoipa::path(get, path = "/livez", tag = "health", responses((status = 200, description = "Alive", body = Object)))]
async fn livez(principal: Principal) -> Json<Value> {
    liveness(principal).await
}

/// Every component and its figures.
#[utoipa::path(get, operation_id = "health_detailed", path = "/health/detailed", tag = "health", responses(
    (status = 200, description = "Components and figures", body = Object)
))]
async fn detailed(_principal: Principal, State(app): State<App>) -> Json<Value> {
    let health = app.engine().health();
    let writable = health.data_dir.is_ok() && health.log.is_ok();
    let sound = writable && health.scrub.damaged == 0;
    Json(json!({
        "status": if sound { "healthy" } else { "degraded" },
        "version": API_VERSION,
        "server_version": env!("CARGO_PKG_VERSION"),
        "timestamp": now(),
        "uptime_seconds": app.uptime().as_secs_f64(),
        "system_info": {
            // Older clients read this key; there is no Python here.
            "python_version": null,
            "platform": std::env::consts::OS,
            "platform_release": std::env::consts::ARCH,
            "cpu_count": std::thread::available_parallelism().map_or(0, usize::from),
        },
        "service_status": {
            "embedding_service": if health.embedding.ready { "healthy" } else { "unavailable" },
            "vector_store": if writable { "healthy" } else { "degraded" },
            "libraries_count": health.libraries,
            "persistence": if sound { "healthy" } else { "warning" },
            "data_dir_writable": health.data_dir.is_ok(),
        },
        "components": components(&app, &health),
    }))
}

fn components(app: &App, health: &Health) -> Value {
    let feed = app.feed().stats();
    let matching = app.matching();
    json!({
        "log": {
            "status": if health.log.is_ok() { "running" } else { "error" },
            "error": health.log.as_ref().err(),
            "durable_seq": health.durable.get(),
            "files": health.log_stats.files,
            "bytes": health.log_stats.bytes,
        },
        "storage": {
            "disk_free_bytes": health.disk_free_bytes,
            "documents": health.documents,
            "chunks": health.chunks,
            "libraries_open": health.libraries_open,
            "memory_bytes": health.memory_bytes,
            "memory_budget_bytes": health.memory_budget_bytes,
            "index_bytes": health.index_bytes,
        },
        "scrub": {
            "status": if health.scrub.damaged == 0 { "sound" } else { "damage_found" },
            "passes": health.scrub.passes,
            "completed_at": health.scrub.completed_at.map(rfc3339),
            "files": health.scrub.files,
            "bytes": health.scrub.bytes,
            "damaged": health.scrub.damaged,
            "findings": health.scrub.findings,
        },
        "embedding_service": embedding_component(health),
        "event_bus": {
            "status": if feed.running { "running" } else { "error" },
            "running": feed.running,
            "subscribers": feed.subscribers,
        },
        "standing_queries": {
            "status": if matching.running { "running" } else { "error" },
            "running": matching.running,
            "matched_through_seq": matching.stats.position.get(),
            "in_memory": matching.stats.queries,
            "bytes": matching.stats.query_bytes,
            "passages": matching.stats.passages,
            "matches": matching.stats.matches,
            "lost": matching.stats.lost,
        },
        "job_queue": job_queue_component(app),
        "webhooks": webhooks_component(app),
        "websocket_manager": {
            "status": if app.config().sockets.enabled.is_on() { "available" } else { "disabled" },
            "total_connections": app.sockets().count(),
        },
    })
}

/// Whether jobs are worked on. Where that is turned off, nobody waits for it.
fn job_queue_check(app: &App) -> Value {
    match app.jobs().map(arrwdb_feed::Jobs::is_running) {
        None => json!({"status": "disabled", "healthy": true}),
        Some(true) => json!({"status": "ready", "healthy": true}),
        Some(false) => json!({"status": "not_running", "healthy": false}),
    }
}

/// Whether events are delivered to webhooks.
fn webhooks_check(app: &App) -> Value {
    let running = app.webhooks().stats().running;
    json!({"status": if running { "ready" } else { "not_running" }, "healthy": running})
}

fn webhooks_component(app: &App) -> Value {
    let stats = app.webhooks().stats();
    json!({
        "status": if stats.running { "running" } else { "not_running" },
        "running": stats.running,
        "couriers": stats.couriers,
        "in_trouble": stats.in_trouble,
        "retrying": stats.retrying,
        "dead_letters": stats.dead_letters,
        "disabled_by_receiver": stats.disabled_by_receiver,
        "problem": app.webhooks().outage(),
        "delivered_since_start": stats.delivered,
        "failed_since_start": stats.failed,
    })
}

fn job_queue_component(app: &App) -> Value {
    let counts = app.engine().job_counts();
    let stats = app.jobs().map(arrwdb_feed::Jobs::stats);
    let running = stats.is_some_and(|stats| stats.running);
    let status = match (stats.is_some(), running) {
        (false, _) => "disabled",
        (true, true) => "running",
        (true, false) => "not_running",
    };
    let (put_off, shown) = app.engine().put_off_jobs(PUT_OFF_LOOKED_AT);
    json!({
        "status": status,
        "running": running,
        "total_jobs": counts.total(),
        "jobs_by_status": {
            "completed": counts.completed,
            "failed": counts.failed,
            "cancelled": counts.cancelled,
            "running": counts.running,
            "pending": counts.pending,
        },
        "queued": stats.map_or(0, |stats| stats.queued),
        "put_off": put_off,
        "put_off_because": put_off_because(&shown),
        "workers": stats.map_or(0, |stats| stats.workers),
        "handlers_registered": JobKind::ALL.len(),
    })
}

/// Jobs that wait after they could not be done, of which the reasons are told.
const PUT_OFF_LOOKED_AT: usize = 100;
/// Reasons that are told.
const REASONS_MAX: usize = 5;

/// Why jobs wait that could not be done (the disk is full, the provider is down), the most frequent
/// reason first, and when the first of them is tried again.
fn put_off_because(jobs: &[Arc<Job>]) -> Vec<Value> {
    let mut reasons: BTreeMap<&str, (usize, Option<Timestamp>)> = BTreeMap::new();
    for job in jobs {
        let JobState::Pending { not_before } = job.state else { continue };
        let (count, next) = reasons.entry(job.error.as_deref().unwrap_or_default()).or_default();
        *count += 1;
        *next = next.map_or(not_before, |next| not_before.map(|time| time.min(next)));
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_error, (count, _next))| std::cmp::Reverse(*count));
    let told = reasons.into_iter().take(REASONS_MAX);
    told.map(|(error, (count, next))| {
        json!({"error": error, "jobs": count, "next_attempt_at": next.map(rfc3339)})
    })
    .collect()
}

fn embedding_component(health: &Health) -> Value {
    let embedding = &health.embedding;
    json!({
        "status": if embedding.ready { "ready" } else { "not_ready" },
        "model": embedding.model,
        "dimension": embedding.dimension,
        "provider": embedding.provider.name(),
        "note": embedding.note,
    })
}

/// Anybody there?
#[utoipa::path(get, path = "/ping", tag = "health", responses(
    (status = 200, description = "Yes", body = Object, example = json!({"ping": "pong"}))
))]
async fn ping(_principal: Principal) -> Json<Value> {
    Json(json!({"ping": "pong"}))
}
