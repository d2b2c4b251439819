//! The routes, one file per noun.

mod admin;
mod answers;
mod batches;
mod costs;
mod document_list;
mod document_patch;
mod documents;
mod download;
mod embeddings;
mod events;
mod export;
mod facets;
mod field_search;
mod filtered;
mod gate;
mod groups;
mod health;
mod hybrid;
mod hybrid_requests;
mod index;
mod index_settings;
mod ingest;
mod job_requests;
mod jobs;
mod keyword_requests;
mod libraries;
mod metrics;
mod multi_vector;
mod opaque;
mod order;
mod requests;
mod rerank;
mod rerank_requests;
mod rescored;
mod root;
mod schedule_requests;
mod schedules;
mod search;
mod search_pages;
mod search_requests;
mod socket;
mod standing_queries;
mod vector_answers;
mod vector_requests;
mod webhook_answers;
mod webhook_requests;
mod webhooks;

pub(crate) use admin::PurgeAnswer;
pub(crate) use answers::{ExportLine, rfc3339};
pub(crate) use index_settings::IndexSettings;
pub(crate) use ingest::busy_for;
pub use requests::document_problems;
pub(crate) use requests::{Form, read_document};
pub(crate) use root::API_VERSION;
pub use socket::message_problem;
pub(crate) use socket::{SocketBounds, Sockets};

use axum::Router;
use http::{HeaderMap, HeaderValue, header};
use utoipa_axum::router::OpenApiRouter;

use arrwdb_engine::state::Seq;

use crate::app::App;
use crate::config::Config;
use crate::envelope::SEQ_HEADER;
use crate::ndjson::write_line;

/// Routes that answer however busy the rest is.
pub(crate) fn open(config: &Config) -> Router<App> {
    let router = root::routes().merge(health::routes());
    let router =
        if config.surface.metrics.is_on() { router.merge(metrics::routes()) } else { router };
    // The original's own client puts `/v1` before every path.
    let aliases: Router<App> = health::routes().into();
    Router::from(router).merge(Router::new().nest("/v1", aliases))
}

/// Routes below `/v1` whose bodies are bounded.
pub(crate) fn plain() -> Router<App> {
    plain_api().merge(webhooks::routes()).into()
}

/// Webhooks where the original has them.
pub(crate) fn webhook_aliases() -> Router<App> {
    let routes = || Router::from(webhooks::routes());
    Router::new().nest("/api/v1", routes()).nest("/v1/api/v1", routes())
}

/// Routes of webhooks that wait for a receiver.
pub(crate) fn webhook_calls() -> Router<App> {
    webhooks::long_routes().into()
}

/// The same where the original has them.
pub(crate) fn webhook_call_aliases() -> Router<App> {
    Router::new().nest("/api/v1", webhook_calls()).nest("/v1/api/v1", webhook_calls())
}

/// Routes below `/v1` that clients follow for as long as they like, idle for most of the time.
pub(crate) fn follow() -> Router<App> {
    events::follow_routes().merge(socket::follow_routes()).into()
}

/// Routes below `/v1` whose bodies, or whose time, are not.
pub(crate) fn streams() -> Router<App> {
    streams_api().into()
}

fn plain_api() -> OpenApiRouter<App> {
    libraries::routes()
        .merge(documents::routes())
        .merge(document_list::routes())
        .merge(document_patch::routes())
        .merge(filtered::routes())
        .merge(facets::routes())
        .merge(multi_vector::routes())
        .merge(search::routes())
        .merge(field_search::routes())
        .merge(hybrid::routes())
        .merge(rerank::routes())
        .merge(standing_queries::routes())
        .merge(index::routes())
        .merge(embeddings::routes())
        .merge(jobs::routes())
        .merge(costs::routes())
        .merge(schedules::routes())
        .merge(events::routes())
        .merge(socket::routes())
}

fn streams_api() -> OpenApiRouter<App> {
    ingest::routes()
        .merge(export::routes())
        .merge(index::long_routes())
        .merge(admin::routes())
        .merge(jobs::long_routes())
        .merge(download::long_routes())
}

/// All of them, for the OpenAPI document.
pub(crate) fn described() -> OpenApiRouter<App> {
    let api = plain_api()
        .merge(streams_api())
        .merge(events::follow_routes())
        .merge(socket::follow_routes());
    let hooks = webhooks::routes().merge(webhooks::long_routes());
    let open = root::routes().merge(health::routes()).merge(metrics::routes());
    open.nest("/v1", api).nest("/api/v1", hooks)
}

/// The header that names the sequence number of a write.
pub(crate) fn seq_header(seq: Seq) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(SEQ_HEADER, HeaderValue::from(seq.get()));
    headers
}

/// Whether the client asked for lines of NDJSON.
pub(crate) fn wants_lines(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|part| part.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
        .any(|mime| {
            matches!(
                mime.as_str(),
                "application/x-ndjson" | "application/ndjson" | "application/jsonl"
            )
        })
}

/// One line of NDJSON.
pub(crate) fn line(value: &impl serde::Serialize) -> Vec<u8> {
    let mut line = Vec::new();
    // Answers are made of what JSON can say; nothing of them refuses to be written.
    if let Err(error) = write_line(&mut line, value) {
        tracing::error!("a line cannot be written as JSON: {error}");
        line.clear();
    }
    line
}

/// The media type of lines.
pub(crate) const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");
