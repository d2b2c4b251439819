//! Libraries.

use arrwdb_engine::state::{IndexSpec, Language, Metric, check_library_name, limits};
use arrwdb_engine::{LibraryPatch, NewLibrary, OtherVectors, Snapshot};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::{LibraryAnswer, LibraryMetadata, LibrarySummary};
use super::embeddings::stage_name;
use super::export::{Pages, ask_embeddings, json_documents};
use super::index::{index_stats, vector_store_stats};
use super::index_settings::{IndexSettings, read_metric};
use super::requests::text_within;
use super::seq_header;
use crate::app::App;
use crate::extract::{LibraryPath, QueryPairs, WholeBody, read_json};
use crate::json::{Read, Reader};
use crate::limits::LIBRARY_DOCUMENTS_MAX;
use crate::moment::{At, MinSeq};
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
#[schema(example = json!({"name": "papers", "description": "What I read", "index_type": "hnsw", "index_config": {"M": 16}, "metric": "cosine"}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
struct CreateLibrary {
    /// 1 to 255 characters, not blank, without control characters; need not be unique.
    #[schema(min_length = 1, max_length = 255)]
    name: String,
    description: Option<String>,
    /// `brute_force`, the exact scan; `hnsw`, a graph; or another type that this version has: the
    /// refusal of one that it has not names them. Can be changed later (`index/rebuild`).
    #[schema(default = "brute_force")]
    index_type: Option<String>,
    /// Parameters of the index, whole numbers by name; true and false count as 1 and 0.
    /// `brute_force` has none; `hnsw` has `M` (16), `ef_construction` (200) and `ef_search` (50).
    #[schema(value_type = Option<Object>)]
    index_config: Option<Value>,
    /// How distances are measured, for good: `cosine` (`1 - cos`, 0 to 2), `dot` (`1 - q.v`, also
    /// `inner_product`, `ip`) or `l2` (Euclidean, also `euclidean`).
    #[schema(default = "cosine")]
    metric: Option<String>,
    /// Another name of `metric`.
    distance_metric: Option<String>,
    /// What texts and queries are taken for where they are searched by keywords, by its code of ISO
    /// 639-1: `ar`, `da`, `de`, `en`, `es`, `fi`, `fr`, `hu`, `it`, `nl`, `no`, `pt`, `ro`, `ru`,
    /// `sv`, `ta`, `tr`; or `none`, which finds whole words. Can be changed later.
    #[schema(default = "en")]
    language: Option<String>,
    /// The model of the library's texts; the configured default when absent.
    embedding_model: Option<String>,
    /// `local`, `cohere` or `openai`; the configured default when absent.
    embedding_provider: Option<String>,
    /// Dimension of the library's vectors; the model's own when absent.
    #[schema(minimum = 1, maximum = 4096)]
    embedding_dimension: Option<u32>,
    /// `strategy`: `none`, `scalar` (codes choose the rows), or one whose codes choose candidates and
    /// whose vectors choose among these: `hybrid` (scalar codes), `binary` (one bit of each number) or
    /// `product` (4 bits of each part of a vector). `bits` of a scalar code's numbers (8 or 4),
    /// `pq_subvectors` of `product` (0: half as many parts as numbers), `rerank_top_k` candidates (100).
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
    /// What texts and queries are taken for from then on; the codes are those of a new library.
    language: Option<String>,
}

fn read_create(r: &mut Reader<'_>) -> Read<NewLibrary> {
    let mut new = NewLibrary {
        name: String::new(),
        description: None,
        index: IndexSpec::default(),
        metric: Metric::default(),
        language: Language::default(),
        embedding_provider: None,
        embedding_model: None,
        embedding_dimension: None,
    };
    let (mut named, mut metric, mut settings) = (false, None, IndexSettings::default());
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
            "metric" | "distance_metric" => {
                let given = read_metric(r)?;
                if given.is_some() && metric.is_some() {
                    r.fault("is given twice: as metric and as distance_metric");
                }
                metric = metric.or(given);
            }
            "language" => new.language = read_language(r)?.unwrap_or_default(),
            "embedding_model" => new.embedding_model = r.string()?,
            "embedding_provider" => new.embedding_provider = read_provider(r)?,
            "embedding_dimension" => new.embedding_dimension = read_dimension(r)?,
            key => settings.read(r, key)?,
        }
        Ok(())
    })?;
    r.require("name", named);
    let change = settings.resolve(r, new.index);
    new.index = IndexSpec {
        structure: change.structure.unwrap_or_default(),
        quantization: change.quantization.unwrap_or_default(),
    };
    new.metric = metric.unwrap_or_default();
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

fn read_language(r: &mut Reader<'_>) -> Read<Option<Language>> {
    let Some(code) = r.string()? else { return Ok(None) };
    let language = Language::from_code(&code);
    if language.is_none() {
        let codes = Language::ALL.map(Language::code).join(", ");
        r.fault(format!("must be one of {codes}"));
    }
    Ok(language)
}

pub(super) fn read_provider(r: &mut Reader<'_>) -> Read<Option<String>> {
    let provider = r.string()?;
    match provider.as_deref() {
        None | Some("local" | "cohere" | "openai") => Ok(provider),
        Some(_) => {
            r.fault("must be one of local, cohere, openai");
            Ok(None)
        }
    }
}

pub(super) fn read_dimension(r: &mut Reader<'_>) -> Read<Option<u32>> {
    let Some(number) = r.whole()? else { return Ok(None) };
    let max = limits::DIMENSIONS_MAX;
    let dimension = u32::try_from(number).ok().filter(|number| (1..=max).contains(number));
    if dimension.is_none() {
        r.fault(format!("must be from 1 to {max}"));
    }
    Ok(dimension)
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
        metadata: LibraryMetadata::of(&spec, None),
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
) -> Result<Response, Problem> {
    let (libraries, seq) = app.engine().libraries_with_seq(principal.tenant, min_seq).await?;
    let libraries: Vec<LibrarySummary> = libraries.iter().map(LibrarySummary::of).collect();
    Ok((seq_header(seq), Json(libraries)).into_response())
}

/// One library with its first 100 documents.
#[utoipa::path(get, operation_id = "get_library", path = "/libraries/{library_id}", tag = "libraries",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("include_embeddings" = Option<bool>, Query, description = "Whether chunks carry their vectors [true]"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
        ("as_of" = Option<u64>, Query, description = "Read what was there after this write, as far back as history is kept"),
    ),
    responses((status = 200, description = "The library", body = LibraryAnswer), ReadErrors))]
async fn get(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
    At(at): At,
    query: QueryPairs,
) -> Result<Response, Problem> {
    let snapshot = app.engine().library(principal.tenant, library, at).await?;
    let seq = seq_header(snapshot.seq());
    whole_library(snapshot, &query, seq)
}

/// A library with its first documents, written out as they are read.
fn whole_library(
    snapshot: Snapshot,
    query: &QueryPairs,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let embeddings = ask_embeddings(query, true)?;
    let stats = snapshot.stats();
    let total = stats.documents;
    let spec = snapshot.spec();
    let head = json!({
        "id": spec.id.to_string(),
        "name": spec.name,
        "metadata": LibraryMetadata::of(spec, Some(&stats.index)),
        "num_documents": total,
        "documents_truncated": total > LIBRARY_DOCUMENTS_MAX,
    });
    let pages = Pages::first(snapshot, LIBRARY_DOCUMENTS_MAX, embeddings);
    Ok((headers, json_documents(&head, pages)).into_response())
}

/// Changes a library's name, description or language. From a change of its language on, searches by
/// keywords find what its words find; the first of them takes as long as reading all texts.
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
                "language" => changes.language = read_language(r)?,
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
        ("as_of" = Option<u64>, Query, description = "Read what was there after this write, as far back as history is kept"),
    ),
    responses((status = 200, description = "Figures, all measured", body = Object,
        example = json!({"library_name": "papers", "num_documents": 2, "num_chunks": 5, "embedding_dimension": 384, "index_type": "brute_force"})), ReadErrors))]
async fn statistics(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
    At(at): At,
) -> Result<Response, Problem> {
    let snapshot = app.engine().library(principal.tenant, library, at).await?;
    let seq = seq_header(snapshot.seq());
    let mut figures = figures(&snapshot).await?;
    let embeddings = app.engine().embeddings(principal.tenant, library, None).await?;
    figures["embedding_generation"] = generation_figures(embeddings.other.as_ref());
    Ok((seq, Json(figures)).into_response())
}

/// Of the vectors of a second embedding model; null where there are none.
fn generation_figures(other: Option<&OtherVectors>) -> Value {
    other.map_or(Value::Null, |other| {
        json!({
            "state": stage_name(other.stage),
            "behind_records": other.behind_records,
            "missing_documents": other.missing_documents,
            "error": other.error,
        })
    })
}

async fn figures(snapshot: &Snapshot) -> Result<Value, Problem> {
    let (spec, stats) = (snapshot.spec(), snapshot.stats());
    Ok(json!({
        "library_id": spec.id.to_string(),
        "library_name": spec.name,
        "num_documents": stats.documents,
        "num_chunks": stats.chunks,
        "embedding_dimension": spec.dimension,
        "index_type": spec.index.name(),
        "metric": spec.metric.name(),
        "seq": snapshot.seq().get(),
        "vector_store_stats": vector_store_stats(spec, &stats),
        "index_stats": index_stats(snapshot, &stats).await?,
    }))
}
