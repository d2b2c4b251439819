//! Standing queries: what every new passage of a library is matched against.

use arrwdb_engine::state::{Filter, Seq, StandingQuery, Timestamp};
use arrwdb_engine::{Cursor, NewStandingQuery, Query, StandingQueryPatch};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::as_time;
use super::requests::{read_vector, text_within};
use super::search_requests::{FilterShape, is_filter, read_filter_once, read_threshold};
use super::seq_header;
use crate::app::App;
use crate::extract::{LibraryPath, QueryInLibrary, QueryPairs, WholeBody, query_fault, read_json};
use crate::json::{Read, Reader};
use crate::limits::{LIST_PAGE_DEFAULT, LIST_PAGE_MAX};
use crate::moment::MinSeq;
use crate::openapi::{EmbeddingErrors, ReadErrors, WriteErrors};
use crate::principal::Principal;
use crate::problem::Problem;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(get, patch, delete))
}

/// A standing query to register: `text` or `embedding`, and how near a passage has to be.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"name": "outages", "text": "the service is down", "distance_threshold": 0.4, "metadata_filter": {"tags": "incident"}}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
struct CreateStandingQuery {
    /// 1 to 255 characters, not blank, without control characters; need not be unique.
    #[schema(min_length = 1, max_length = 255)]
    name: String,
    /// What to look for, 1 to `MAX_QUERY_LENGTH` characters. Not together with `embedding`.
    #[schema(min_length = 1, max_length = 1000)]
    text: Option<String>,
    /// What to look for, as many numbers as the library has dimensions. Not together with `text`.
    #[schema(min_items = 1, max_items = 4096)]
    embedding: Option<Vec<f32>>,
    /// Passages with `distance <= distance_threshold` match: 0 to 2 for cosine, any number for a dot
    /// product, not negative for L2.
    distance_threshold: f32,
    /// Which passages it is about: a filter, as searches take it, of at most 16 conditions and 16 KiB.
    #[schema(value_type = Option<FilterShape>)]
    metadata_filter: Option<Value>,
}

/// Changes to a standing query. A `text` or an `embedding` takes the place of what there was.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"distance_threshold": 0.35}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
struct PatchStandingQuery {
    #[schema(min_length = 1, max_length = 255)]
    name: Option<String>,
    #[schema(min_length = 1, max_length = 1000)]
    text: Option<String>,
    #[schema(min_items = 1, max_items = 4096)]
    embedding: Option<Vec<f32>>,
    distance_threshold: Option<f32>,
    /// Takes the place of the filter that there was; an empty one lets every passage pass.
    #[schema(value_type = Option<FilterShape>)]
    metadata_filter: Option<Value>,
}

/// A standing query.
#[derive(Debug, Serialize, ToSchema)]
struct StandingQueryAnswer {
    #[schema(format = "uuid")]
    id: String,
    name: String,
    /// What it looks for; null where it was given as a vector.
    text: Option<String>,
    /// The vector, where it is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<Vec<f32>>,
    distance_threshold: f32,
    #[schema(value_type = FilterShape)]
    metadata_filter: Value,
    #[schema(value_type = String, format = "date-time")]
    #[serde(serialize_with = "as_time")]
    created_at: Timestamp,
    /// When it was changed last.
    #[schema(value_type = String, format = "date-time")]
    #[serde(serialize_with = "as_time")]
    updated_at: Timestamp,
}

impl StandingQueryAnswer {
    fn of(query: StandingQuery, with_embedding: bool) -> Self {
        Self {
            id: query.id.to_string(),
            name: query.name,
            text: query.text,
            embedding: with_embedding.then_some(query.vector),
            distance_threshold: query.distance_threshold,
            metadata_filter: query.filter.source(),
            created_at: query.created_at,
            updated_at: query.updated_at,
        }
    }
}

/// A page of standing queries, without their vectors: those changed longest ago first.
#[derive(Debug, Serialize, ToSchema)]
struct StandingQueryList {
    standing_queries: Vec<StandingQueryAnswer>,
    /// Standing queries of the library.
    total: u64,
    /// What to give as `cursor` for the next page; null at the end.
    next_cursor: Option<String>,
}

/// What a body says of a query.
#[derive(Default)]
struct Fields {
    name: Option<String>,
    query: Option<Query>,
    distance_threshold: Option<f32>,
    filter: Option<Filter>,
}

impl Fields {
    fn read(r: &mut Reader<'_>, query_chars_max: usize) -> Read<Self> {
        let mut fields = Self::default();
        let (mut text, mut embedding) = (None, None);
        r.object(|r, key| {
            match key {
                "id" => {
                    r.any()?;
                    r.fault("the server makes a standing query's id");
                }
                "name" => fields.name = read_name(r)?,
                "text" => text = text_within(r, 1, query_chars_max)?,
                "embedding" => embedding = read_vector(r)?,
                "distance_threshold" => fields.distance_threshold = read_threshold(r)?,
                key if is_filter(key) => read_filter_once(r, &mut fields.filter)?,
                _ignored => {}
            }
            Ok(())
        })?;
        if text.is_some() && embedding.is_some() {
            r.fault_at("embedding", "is given together with text; one of them is enough");
        }
        fields.query = text.map(Query::Text).or(embedding.map(Query::Vector));
        Ok(fields)
    }

    /// Notes what a new query lacks.
    fn require(&self, r: &mut Reader<'_>) {
        let has = |r: &Reader<'_>, name: &str, there: bool| there || r.has_fault_at(name);
        let named = has(r, "name", self.name.is_some());
        r.require("name", named);
        let near = has(r, "distance_threshold", self.distance_threshold.is_some());
        r.require("distance_threshold", near);
        let asks = self.query.is_some() || r.has_fault_at("text") || r.has_fault_at("embedding");
        if !asks {
            r.fault_at("text", "is required, or an embedding");
        }
    }
}

fn read_name(r: &mut Reader<'_>) -> Read<Option<String>> {
    let Some(name) = r.string()? else { return Ok(None) };
    if let Err(fault) = arrwdb_engine::state::check_library_name(&name) {
        r.fault(fault.to_string());
        return Ok(None);
    }
    Ok(Some(name))
}

/// Registers a standing query: passages that are written after it are matched against it.
#[utoipa::path(post, operation_id = "create_standing_query", path = "/libraries/{library_id}/standing-queries", tag = "standing queries",
    params(("library_id" = String, Path, format = "uuid", description = "The library")),
    request_body = CreateStandingQuery,
    responses((status = 201, description = "Registered, durable", body = StandingQueryAnswer), WriteErrors, EmbeddingErrors))]
async fn create(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let query_chars_max = app.config().limits.query_chars_max;
    let fields = read_json(&body, |r| {
        let fields = Fields::read(r, query_chars_max)?;
        fields.require(r);
        Ok(fields)
    })?;
    let missing = || Problem::field("/text", "is required, or an embedding");
    let new = NewStandingQuery {
        name: fields.name.unwrap_or_default(),
        query: fields.query.ok_or_else(missing)?,
        distance_threshold: fields.distance_threshold.unwrap_or_default(),
        filter: fields.filter.unwrap_or_default(),
    };
    let written = app.engine().add_standing_query(principal.tenant, library, new).await?;
    let answer = Json(StandingQueryAnswer::of(written.value, true));
    Ok((StatusCode::CREATED, seq_header(written.seq), answer).into_response())
}

/// Lists a library's standing queries without their vectors, those changed longest ago first.
#[utoipa::path(get, operation_id = "list_standing_queries", path = "/libraries/{library_id}/standing-queries", tag = "standing queries",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("cursor" = Option<String>, Query, description = "Where to go on: next_cursor of the page before"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 1000, description = "Queries of a page, 1 to 1000 [50]"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
    ),
    responses((status = 200, description = "A page", body = StandingQueryList), ReadErrors))]
async fn list(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
    MinSeq(min_seq): MinSeq,
    query: QueryPairs,
) -> Result<Response, Problem> {
    let limit = query.whole("limit", LIST_PAGE_DEFAULT, 1..=LIST_PAGE_MAX)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let cursor = query.text("cursor").map(read_cursor).transpose()?;
    let page = (cursor, limit);
    let page = app.engine().standing_queries(principal.tenant, library, page, min_seq).await?;
    let queries = page.queries.into_iter().map(|query| StandingQueryAnswer::of(query, false));
    let answer = StandingQueryList {
        standing_queries: queries.collect(),
        total: page.total,
        next_cursor: page.next.map(|next| format!("{}.{}", next.born, next.id)),
    };
    Ok((seq_header(page.seq), Json(answer)).into_response())
}

fn read_cursor(text: &str) -> Result<Cursor, Problem> {
    let parts = text.split_once('.').and_then(|(born, id)| {
        Some(Cursor { born: Seq::new(born.parse().ok()?), id: id.parse().ok()? })
    });
    parts.ok_or_else(|| query_fault("cursor", "must be the next_cursor of a page of this list"))
}

/// One standing query.
#[utoipa::path(get, operation_id = "get_standing_query", path = "/libraries/{library_id}/standing-queries/{query_id}", tag = "standing queries",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("query_id" = String, Path, format = "uuid", description = "The standing query"),
        ("include_embeddings" = Option<bool>, Query, description = "Whether it carries its vector [true]"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
    ),
    responses((status = 200, description = "The standing query", body = StandingQueryAnswer), ReadErrors))]
async fn get(
    principal: Principal,
    State(app): State<App>,
    QueryInLibrary { library, id }: QueryInLibrary,
    MinSeq(min_seq): MinSeq,
    query: QueryPairs,
) -> Result<Response, Problem> {
    let with_embedding = query.switch("include_embeddings")?.unwrap_or(true);
    let found = app.engine().standing_query(principal.tenant, library, id, min_seq).await?;
    let (found, seq) = found;
    Ok((seq_header(seq), Json(StandingQueryAnswer::of(found, with_embedding))).into_response())
}

/// Changes a standing query. Passages written from here on are matched against what it is then.
#[utoipa::path(patch, operation_id = "update_standing_query", path = "/libraries/{library_id}/standing-queries/{query_id}", tag = "standing queries",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("query_id" = String, Path, format = "uuid", description = "The standing query"),
    ),
    request_body = PatchStandingQuery,
    responses((status = 200, description = "The standing query as it is now", body = StandingQueryAnswer), WriteErrors, EmbeddingErrors))]
async fn patch(
    principal: Principal,
    State(app): State<App>,
    QueryInLibrary { library, id }: QueryInLibrary,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let query_chars_max = app.config().limits.query_chars_max;
    let fields = read_json(&body, |r| Fields::read(r, query_chars_max))?;
    let patch = StandingQueryPatch {
        name: fields.name,
        query: fields.query,
        distance_threshold: fields.distance_threshold,
        filter: fields.filter,
    };
    let written = app.engine().update_standing_query(principal.tenant, library, id, patch).await?;
    let answer = Json(StandingQueryAnswer::of(written.value, true));
    Ok((seq_header(written.seq), answer).into_response())
}

/// Deletes a standing query: nothing that it matches is told from here on.
#[utoipa::path(delete, operation_id = "delete_standing_query", path = "/libraries/{library_id}/standing-queries/{query_id}", tag = "standing queries",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("query_id" = String, Path, format = "uuid", description = "The standing query"),
    ),
    responses((status = 204, description = "Deleted"), WriteErrors))]
async fn delete(
    principal: Principal,
    State(app): State<App>,
    QueryInLibrary { library, id }: QueryInLibrary,
) -> Result<Response, Problem> {
    let written = app.engine().delete_standing_query(principal.tenant, library, id).await?;
    Ok((StatusCode::NO_CONTENT, seq_header(written.seq)).into_response())
}
