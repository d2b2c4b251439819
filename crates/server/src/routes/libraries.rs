//! Libraries.

use arrwdb_engine::state::{IndexSpec, Metric, check_library_name, limits};
use arrwdb_engine::{LibraryPatch, NewLibrary, Snapshot};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::{LibraryAnswer, LibraryMetadata, LibrarySummary};
use super::export::{Pages, ask_embeddings, json_documents};
use super::requests::text_within;
use super::seq_header;
use crate::app::App;
use crate::extract::{LibraryPath, MinSeq, QueryPairs, WholeBody, read_json};
use crate::json::{Read, Reader};
use crate::limits::LIBRARY_DOCUMENTS_MAX;
use crate::openapi::{ReadErrors, WriteErrors};
use crate::principal::Principal;
use crate::problem::Problem;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, patch, delete))
        .routes(routes!(statistics))
}

/// A library to create.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"name": "papers", "description": "What I read", "index_type": "brute_force"}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
struct CreateLibrary {
    /// 1 to 255 characters, not blank, without control characters; need not be unique.
    #[schema(min_length = 1, max_length = 255)]
    name: String,
    description: Option<String>,
    /// `brute_force`, the exact scan; other types are not available in this version.
    #[schema(default = "brute_force")]
    index_type: Option<String>,
    /// Settings of the index; `brute_force` has none.
    #[schema(value_type = Option<Object>)]
    index_config: Option<Value>,
    /// The model of the library's texts; the configured default when absent.
    embedding_model: Option<String>,
    /// `local`, `cohere` or `openai`; the configured default when absent.
    embedding_provider: Option<String>,
    /// Dimension of the library's vectors; the model's own when absent.
    #[schema(minimum = 1, maximum = 4096)]
    embedding_dimension: Option<u32>,
    /// Only `{"strategy": "none"}` in this version.
    #[schema(value_type = Option<Object>)]
    quantization_config: Option<Value>,
}

/// Changes to a library.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"name": "papers, read"}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
struct PatchLibrary {
    #[schema(min_length = 1, max_length = 255)]
    name: Option<String>,
    /// An empty text removes the description.
    description: Option<String>,
}

fn read_create(r: &mut Reader<'_>) -> Read<NewLibrary> {
    let mut new = NewLibrary {
        name: String::new(),
        description: None,
        index: IndexSpec::default(),
        metric: Metric::Cosine,
        embedding_provider: None,
        embedding_model: None,
        embedding_dimension: None,
    };
    let mut named = false;
    r.object(|r, key| {
        match key {
            "id" => {
                r.any()?;
                r.fault("the server makes a library's id");
            }
            "name" => {
                let name = read_name(r)?;
                named = name.is_some() || r.has_own_fault();
                new.name = name.unwrap_or_default();
            }
            "description" => {
                new.description = text_within(r, 0, limits::LIBRARY_DESCRIPTION_CHARS_MAX)?;
            }
            "index_type" => read_index_type(r)?,
            "index_config" => read_index_config(r)?,
            "embedding_model" => new.embedding_model = r.string()?,
            "embedding_provider" => new.embedding_provider = read_provider(r)?,
            "embedding_dimension" => new.embedding_dimension = read_dimension(r)?,
            "quantization_config" => read_quantization(r)?,
            _ignored => {}
        }
        Ok(())
    })?;
    r.require("name", named);
    Ok(new)
}

fn read_name(r: &mut Reader<'_>) -> Read<Option<String>> {
    let Some(name) = r.string()? else { return Ok(None) };
    Ok(match check_library_name(&name) {
        Ok(()) => Some(name),
        Err(fault) => {
            r.fault(fault.to_string());
            None
        }
    })
}

fn read_index_type(r: &mut Reader<'_>) -> Read<()> {
    match r.string()?.as_deref() {
        None | Some("brute_force") => {}
        Some(known @ ("kd_tree" | "lsh" | "hnsw" | "ivf" | "ivf_pq")) => {
            r.fault(format!("{known} is not available in this version; use brute_force"));
        }
        Some(_) => r.fault("must be one of brute_force, kd_tree, lsh, hnsw, ivf, ivf_pq"),
    }
    Ok(())
}

fn read_index_config(r: &mut Reader<'_>) -> Read<()> {
    r.object(|r, key| {
        r.fault(format!("brute_force has no setting {key:?}"));
        Ok(())
    })?;
    Ok(())
}

fn read_provider(r: &mut Reader<'_>) -> Read<Option<String>> {
    let provider = r.string()?;
    match provider.as_deref() {
        None | Some("local" | "cohere" | "openai") => Ok(provider),
        Some(_) => {
            r.fault("must be one of local, cohere, openai");
            Ok(None)
        }
    }
}

fn read_dimension(r: &mut Reader<'_>) -> Read<Option<u32>> {
    let Some(number) = r.whole()? else { return Ok(None) };
    let max = limits::DIMENSIONS_MAX;
    let dimension = u32::try_from(number).ok().filter(|number| (1..=max).contains(number));
    if dimension.is_none() {
        r.fault(format!("must be from 1 to {max}"));
    }
    Ok(dimension)
}

fn read_quantization(r: &mut Reader<'_>) -> Read<()> {
    r.object(|r, key| {
        if key == "strategy" {
            match r.string()?.as_deref() {
                None | Some("none") => {}
                Some(known @ ("scalar" | "hybrid")) => {
                    r.fault(format!("{known} is not available in this version; use none"));
                }
                Some(_) => r.fault("must be one of none, scalar, hybrid"),
            }
        }
        Ok(())
    })?;
    Ok(())
}

/// Creates a library.
#[utoipa::path(post, operation_id = "create_library", path = "/libraries", tag = "libraries", request_body = CreateLibrary,
    responses((status = 201, description = "Created, durable", body = LibraryAnswer), WriteErrors))]
async fn create(
    principal: Principal,
    State(app): State<App>,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let new = read_json(&body, read_create)?;
    let written = app.engine().create_library(principal.tenant, new).await?;
    let spec = written.value;
    let answer = LibraryAnswer {
        id: spec.id,
        metadata: LibraryMetadata::of(&spec),
        name: spec.name,
        num_documents: 0,
        documents_truncated: false,
        documents: Vec::new(),
    };
    Ok((StatusCode::CREATED, seq_header(written.seq), Json(answer)).into_response())
}

/// Lists the libraries in the order of their creation.
#[utoipa::path(get, operation_id = "list_libraries", path = "/libraries", tag = "libraries",
    params(("min_seq" = Option<u64>, Query, description = "Wait until this write is seen")),
    responses((status = 200, description = "All libraries, without their documents", body = Vec<LibrarySummary>), ReadErrors))]
async fn list(
    principal: Principal,
    State(app): State<App>,
    MinSeq(min_seq): MinSeq,
) -> Result<Json<Vec<LibrarySummary>>, Problem> {
    let libraries = app.engine().libraries(principal.tenant, min_seq).await?;
    Ok(Json(libraries.iter().map(LibrarySummary::of).collect()))
}

/// One library with its first 100 documents.
#[utoipa::path(get, operation_id = "get_library", path = "/libraries/{library_id}", tag = "libraries",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("include_embeddings" = Option<bool>, Query, description = "Whether chunks carry their vectors [true]"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
    ),
    responses((status = 200, description = "The library", body = LibraryAnswer), ReadErrors))]
async fn get(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
    MinSeq(min_seq): MinSeq,
    query: QueryPairs,
) -> Result<Response, Problem> {
    let snapshot = app.engine().library(principal.tenant, library, min_seq).await?;
    whole_library(snapshot, &query, HeaderMap::new())
}

/// A library with its first documents, written out as they are read.
fn whole_library(
    snapshot: Snapshot,
    query: &QueryPairs,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let embeddings = ask_embeddings(query, true)?;
    let total = snapshot.stats().documents;
    let spec = snapshot.spec();
    let head = json!({
        "id": spec.id.to_string(),
        "name": spec.name,
        "metadata": LibraryMetadata::of(spec),
        "num_documents": total,
        "documents_truncated": total > LIBRARY_DOCUMENTS_MAX,
    });
    let pages = Pages::first(snapshot, LIBRARY_DOCUMENTS_MAX, embeddings);
    Ok((headers, json_documents(&head, pages)).into_response())
}

/// Changes a library's name or description.
#[utoipa::path(patch, operation_id = "update_library", path = "/libraries/{library_id}", tag = "libraries",
    params(("library_id" = String, Path, format = "uuid", description = "The library")),
    request_body = PatchLibrary,
    responses((status = 200, description = "The library as it is now", body = LibraryAnswer), WriteErrors))]
async fn patch(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
    query: QueryPairs,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let changes = read_json(&body, |r| {
        let mut changes = LibraryPatch::default();
        r.object(|r, key| {
            match key {
                "name" => changes.name = read_name(r)?,
                "description" => {
                    let text = text_within(r, 0, limits::LIBRARY_DESCRIPTION_CHARS_MAX)?;
                    changes.description =
                        text.map(|text| Some(text).filter(|text| !text.is_empty()));
                }
                _ignored => {}
            }
            Ok(())
        })?;
        Ok(changes)
    })?;
    let written = app.engine().update_library(principal.tenant, library, changes).await?;
    let snapshot = app.engine().library(principal.tenant, library, Some(written.seq)).await?;
    whole_library(snapshot, &query, seq_header(written.seq))
}

/// Deletes a library with everything in it.
#[utoipa::path(delete, operation_id = "delete_library", path = "/libraries/{library_id}", tag = "libraries",
    params(("library_id" = String, Path, format = "uuid", description = "The library")),
    responses((status = 204, description = "Deleted"), WriteErrors))]
async fn delete(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
) -> Result<Response, Problem> {
    let written = app.engine().delete_library(principal.tenant, library).await?;
    Ok((StatusCode::NO_CONTENT, seq_header(written.seq)).into_response())
}

/// Figures of a library.
#[utoipa::path(get, operation_id = "get_library_statistics", path = "/libraries/{library_id}/statistics", tag = "libraries",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
    ),
    responses((status = 200, description = "Figures, all measured", body = Object,
        example = json!({"library_name": "papers", "num_documents": 2, "num_chunks": 5, "embedding_dimension": 384, "index_type": "brute_force"})), ReadErrors))]
async fn statistics(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
    MinSeq(min_seq): MinSeq,
) -> Result<Json<Value>, Problem> {
    let snapshot = app.engine().library(principal.tenant, library, min_seq).await?;
    Ok(Json(figures(&snapshot)))
}

fn figures(snapshot: &Snapshot) -> Value {
    let (spec, stats) = (snapshot.spec(), snapshot.stats());
    let utilization = match stats.rows {
        0 => 0.0,
        rows => (stats.chunks as f64 / rows as f64 * 10_000.0).round() / 100.0,
    };
    json!({
        "library_id": spec.id.to_string(),
        "library_name": spec.name,
        "num_documents": stats.documents,
        "num_chunks": stats.chunks,
        "embedding_dimension": spec.dimension,
        "index_type": spec.index.name(),
        "seq": snapshot.seq().get(),
        "vector_store_stats": {
            // Equal vectors are stored once per chunk: none are shared.
            "unique_vectors": stats.chunks,
            "total_references": stats.chunks,
            "capacity": stats.rows,
            "utilization": utilization,
            "free_indices": stats.rows.saturating_sub(stats.chunks),
            "dimension": spec.dimension,
            "storage_type": if stats.segments_mapped > 0 { "memory-mapped" } else { "in-memory" },
            "segments": stats.segments,
            "segments_mapped": stats.segments_mapped,
            "memory_bytes": stats.memory_bytes,
            "file_bytes": stats.file_bytes,
            "digest": format!("{:032x}", stats.digest),
        },
        "index_stats": {
            "type": spec.index.name(),
            "size": stats.chunks,
            "vector_store_dim": spec.dimension,
            "supports_incremental": true,
        },
    })
}
