//! The change feed over HTTP: a stream of server-sent events, pages for programs that poll, figures.

mod ask;
mod poll;
mod sse;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use serde_json::{Map, Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use arrwdb_feed::FeedError;

use crate::app::App;
use crate::openapi::ReadErrors;
use crate::principal::Principal;
use crate::problem::{self, Problem};

/// What an event looks like, as JSON Schema.
const SCHEMA: &str = include_str!("../../../../docs/event.schema.json");

/// Routes that are followed for as long as the client likes; they have an admission of their own.
pub(super) fn follow_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(sse::stream)).routes(routes!(poll::events))
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(stats)).routes(routes!(statistics)).routes(routes!(schema))
}

impl From<FeedError> for Problem {
    fn from(error: FeedError) -> Self {
        let text = error.to_string();
        match error {
            FeedError::Trimmed { oldest } => {
                Self::new(&problem::EVENTS_GONE, text).with("oldest_seq", oldest.get())
            }
            FeedError::LibraryNotFound(_) => Self::new(&problem::LIBRARY_NOT_FOUND, text),
            FeedError::Closed => Self::from(arrwdb_engine::EngineError::Closed),
            FeedError::Engine(error) => error.into(),
        }
    }
}

/// What the change feed has done since the server started. `average_delivery_latency_ms` is the time
/// from where a write is durable to where those who follow can take its events; what a client's own
/// network and its reading take is not in it.
#[utoipa::path(get, operation_id = "event_stats", path = "/events/stats", tag = "events",
    responses((status = 200, description = "Figures", body = Object,
        example = json!({"total_published": 3, "total_delivered": 6, "total_errors": 0, "pending_events": 0, "subscriber_count": 2, "running": true})), ReadErrors))]
async fn stats(_principal: Principal, State(app): State<App>) -> Json<Value> {
    let stats = app.feed().stats();
    let total: u64 = stats.published.iter().map(|(_event, count)| count).sum();
    let by_type: Map<String, Value> = (stats.published.iter())
        .filter(|(_event, count)| *count > 0)
        .map(|(event, count)| (event.name().to_owned(), Value::from(*count)))
        .collect();
    Json(json!({
        "total_published": total,
        "total_delivered": stats.delivered,
        "total_errors": stats.errors,
        "pending_events": stats.pending,
        "subscriber_count": stats.subscribers,
        "active_subscribers": stats.subscribers,
        "queue_size": stats.buffered_events,
        "queue_bytes": stats.buffered_bytes,
        "disk_reads": stats.disk_reads,
        "events_by_type": by_type,
        "average_delivery_latency_ms": stats.latency.as_secs_f64() * 1e3,
        "uptime_seconds": stats.uptime.as_secs_f64(),
        "head_seq": app.feed().head().get(),
        "oldest_seq": app.feed().oldest().get(),
        "running": stats.running,
    }))
}

/// Like `/events/stats`.
#[utoipa::path(get, operation_id = "event_statistics", path = "/events/statistics", tag = "events",
    responses((status = 200, description = "Figures", body = Object), ReadErrors))]
async fn statistics(principal: Principal, state: State<App>) -> Json<Value> {
    stats(principal, state).await
}

/// What an event looks like, as JSON Schema.
#[utoipa::path(get, operation_id = "event_schema", path = "/events/schema", tag = "events",
    responses((status = 200, description = "JSON Schema (2020-12)", body = Object, content_type = "application/schema+json"), ReadErrors))]
async fn schema(_principal: Principal) -> Response {
    ([(header::CONTENT_TYPE, "application/schema+json")], SCHEMA).into_response()
}
