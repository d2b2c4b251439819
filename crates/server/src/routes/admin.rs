//! What an operator asks of the whole server.

use arrwdb_engine::PurgeReceipt;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::rfc3339;
use super::seq_header;
use crate::app::App;
use crate::openapi::WriteErrors;
use crate::principal::Principal;
use crate::problem::Problem;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(purge))
}

/// What a purge removed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PurgeAnswer {
    /// Nothing that was deleted or replaced up to here is in the data directory any more.
    purged_to_seq: u64,
    /// When it was done.
    #[schema(example = "2026-01-31T12:00:00.000000Z")]
    completed_at: String,
    /// Libraries some of whose files were written anew.
    libraries_rewritten: u64,
    /// Segment files written anew.
    segments_rewritten: u64,
    /// Rows of deleted and replaced chunks that were in them.
    rows_removed: u64,
    /// Log files removed.
    log_files_removed: u64,
    /// Bytes they held.
    log_bytes_removed: u64,
    /// Bytes of cached embeddings removed.
    cache_bytes_removed: u64,
}

impl PurgeAnswer {
    pub(crate) fn of(receipt: &PurgeReceipt) -> Self {
        Self {
            purged_to_seq: receipt.purged_to.get(),
            completed_at: rfc3339(receipt.completed_at),
            libraries_rewritten: receipt.libraries,
            segments_rewritten: receipt.segments,
            rows_removed: receipt.rows,
            log_files_removed: receipt.log_files,
            log_bytes_removed: receipt.log_bytes,
            cache_bytes_removed: receipt.cache_bytes,
        }
    }
}

/// Removes for good what was deleted or replaced: from segment files, from the log (the change feed
/// begins after it) and from the cache of embeddings. The answer, when it is done, is the receipt.
#[utoipa::path(post, operation_id = "purge", path = "/admin/purge", tag = "admin",
    responses((status = 200, description = "Done: what was removed", body = PurgeAnswer), WriteErrors))]
async fn purge(_principal: Principal, State(app): State<App>) -> Result<Response, Problem> {
    let receipt = app.engine().purge().await?;
    Ok((seq_header(receipt.seq), Json(PurgeAnswer::of(&receipt))).into_response())
}
