//! The vectors of a library: of the model that it is searched by, and of another that is to take its
//! place, or had it before.

use arrwdb_engine::state::{Seq, Stage};
use arrwdb_engine::{LibraryEmbeddings, ModelVectors, OtherVectors};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::seq_header;
use crate::app::App;
use crate::extract::LibraryPath;
use crate::moment::MinSeq;
use crate::openapi::{ReadErrors, WriteErrors};
use crate::principal::Principal;
use crate::problem::Problem;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get))
        .routes(routes!(activate))
        .routes(routes!(discard))
        .routes(routes!(rollback))
}

/// The vectors of a library.
#[derive(Debug, Serialize, ToSchema)]
struct EmbeddingsAnswer {
    #[schema(format = "uuid")]
    library_id: String,
    active: ActiveAnswer,
    /// Those of another model; null where there are none.
    other: Option<OtherAnswer>,
}

/// The vectors that the library is searched by.
#[derive(Debug, Serialize, ToSchema)]
struct ActiveAnswer {
    embedding_provider: String,
    embedding_model: String,
    embedding_dimension: u32,
    documents: u64,
    chunks: u64,
    /// The record that made them active; 0 if they always were.
    active_since_seq: u64,
}

/// Vectors that are kept beside those. Whatever is written gets both.
#[derive(Debug, Serialize, ToSchema)]
struct OtherAnswer {
    embedding_provider: String,
    embedding_model: String,
    embedding_dimension: u32,
    documents: u64,
    chunks: u64,
    /// `building`, `prepared` (can be activated) or `previous` (were active: `rollback`).
    state: &'static str,
    /// The job that makes, or made, them.
    job_id: Option<String>,
    /// At most so many of the last records of the log are not carried to them yet.
    behind_records: u64,
    /// So many documents less than those that are searched.
    missing_documents: u64,
    /// What is missing is not in the log any more: they can only be discarded.
    broken: bool,
    /// Why something is not carried to them at present.
    error: Option<String>,
}

/// What vectors are that are not searched.
pub(super) fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Building => "building",
        Stage::Prepared => "prepared",
        Stage::Previous => "previous",
    }
}

impl OtherAnswer {
    fn of(other: OtherVectors) -> Self {
        let OtherVectors { vectors, stage, behind_records, missing_documents, broken, error } =
            other;
        let ModelVectors { generation: _, model, dimension, documents, chunks, made_by } = vectors;
        Self {
            embedding_provider: model.provider,
            embedding_model: model.model,
            embedding_dimension: dimension,
            documents,
            chunks,
            state: stage_name(stage),
            job_id: made_by,
            behind_records,
            missing_documents,
            broken,
            error,
        }
    }
}

fn answer(library: arrwdb_engine::state::LibraryId, embeddings: LibraryEmbeddings) -> Response {
    let LibraryEmbeddings { active, since, other, seq } = embeddings;
    let answer = EmbeddingsAnswer {
        library_id: library.to_string(),
        active: ActiveAnswer {
            embedding_provider: active.model.provider,
            embedding_model: active.model.model,
            embedding_dimension: active.dimension,
            documents: active.documents,
            chunks: active.chunks,
            active_since_seq: since.get(),
        },
        other: other.map(OtherAnswer::of),
    };
    (seq_header(seq), Json(answer)).into_response()
}

/// What vectors a library has.
#[utoipa::path(get, operation_id = "get_embeddings", path = "/libraries/{library_id}/embeddings", tag = "embeddings",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
    ),
    responses((status = 200, description = "The vectors", body = EmbeddingsAnswer), ReadErrors))]
async fn get(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
    MinSeq(min_seq): MinSeq,
) -> Result<Response, Problem> {
    let embeddings = app.engine().embeddings(principal.tenant, library, min_seq).await?;
    Ok(answer(library, embeddings))
}

async fn after(
    (app, principal): (&App, Principal),
    library: arrwdb_engine::state::LibraryId,
    seq: Seq,
) -> Result<Response, Problem> {
    let embeddings = app.engine().embeddings(principal.tenant, library, Some(seq)).await?;
    Ok(answer(library, embeddings))
}

/// Has a library searched by the vectors that a job `regenerate_embeddings` has made. Reads and writes
/// go on; writes that come at that moment wait for it. The vectors that it was searched by stay, and
/// get what is written, until they are discarded.
#[utoipa::path(post, operation_id = "activate_embeddings", path = "/libraries/{library_id}/embeddings/activate", tag = "embeddings",
    params(("library_id" = String, Path, format = "uuid", description = "The library")),
    responses((status = 200, description = "Active, durable", body = EmbeddingsAnswer), WriteErrors))]
async fn activate(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
) -> Result<Response, Problem> {
    let written = app.engine().activate_generation(principal.tenant, library).await?;
    after((&app, principal), library, written.seq).await
}

/// Has a library searched by the vectors again that it was searched by before the last activation.
/// Nothing that was written since is lost.
#[utoipa::path(post, operation_id = "rollback_embeddings", path = "/libraries/{library_id}/embeddings/rollback", tag = "embeddings",
    params(("library_id" = String, Path, format = "uuid", description = "The library")),
    responses((status = 200, description = "Active, durable", body = EmbeddingsAnswer), WriteErrors))]
async fn rollback(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
) -> Result<Response, Problem> {
    let written = app.engine().roll_back_generation(principal.tenant, library).await?;
    after((&app, principal), library, written.seq).await
}

/// Removes the vectors that a library is not searched by.
#[utoipa::path(post, operation_id = "discard_embeddings", path = "/libraries/{library_id}/embeddings/discard", tag = "embeddings",
    params(("library_id" = String, Path, format = "uuid", description = "The library")),
    responses((status = 200, description = "Removed, durable", body = EmbeddingsAnswer), WriteErrors))]
async fn discard(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
) -> Result<Response, Problem> {
    let written = app.engine().discard_generation(principal.tenant, library, None).await?;
    after((&app, principal), library, written.seq).await
}
