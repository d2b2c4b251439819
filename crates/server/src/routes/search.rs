//! Search: by text, by vector, and many hits at once.

use std::time::Instant;

use arrwdb_engine::state::{LibraryId, Tuning, limits};
use arrwdb_engine::{Query, SearchAnswer, SearchRequest};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::{SearchResult, StreamedLine, StreamedResult, milliseconds};
use super::requests::{read_vector, text_within};
use super::{NDJSON, line, seq_header, wants_lines};
use crate::app::App;
use crate::extract::{LibraryPath, MinSeq, QueryPairs, WholeBody, query_fault, read_json};
use crate::json::{Read, Reader};
use crate::limits::K_DEFAULT;
use crate::openapi::{EmbeddingErrors, ReadErrors};
use crate::principal::Principal;
use crate::problem::Problem;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(search_text))
        .routes(routes!(search_embedding))
        .routes(routes!(search_stream))
}

/// What to find, in words.
#[derive(Debug, Default, ToSchema)]
#[schema(example = json!({"query": "how do models learn?", "k": 5, "distance_threshold": 0.8}))]
struct SearchBody {
    /// 1 to `MAX_QUERY_LENGTH` characters.
    #[schema(value_type = String, required = true, min_length = 1, max_length = 1000)]
    query: Option<String>,
    /// How many passages.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 100, default = 10)]
    k: Option<usize>,
    /// Only passages with `distance <= distance_threshold`.
    #[schema(minimum = 0, maximum = 2)]
    distance_threshold: Option<f32>,
    /// Whether hits carry their vectors; the query parameter of this name wins.
    #[schema(default = false)]
    include_embeddings: Option<bool>,
}

/// What to find, in words; every field may be in the query string instead.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"query": "how do models learn?", "k": 1000}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
struct StreamSearchBody {
    /// 1 to `MAX_QUERY_LENGTH` characters.
    #[schema(min_length = 1, max_length = 1000)]
    query: Option<String>,
    /// How many passages.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 10_000, default = 10)]
    k: Option<usize>,
    /// Only passages with `distance <= distance_threshold`.
    #[schema(minimum = 0, maximum = 2)]
    distance_threshold: Option<f32>,
    /// Whether hits carry their vectors; the query parameter of this name wins.
    #[schema(default = false)]
    include_embeddings: Option<bool>,
}

/// What to find, as a vector.
#[derive(Debug, Default, ToSchema)]
#[schema(example = json!({"embedding": [0.12, -0.05, 0.33], "k": 5}))]
struct EmbeddingSearchBody {
    /// As many numbers as the library has dimensions.
    #[schema(value_type = Vec<f32>, required = true, min_items = 1, max_items = 4096)]
    embedding: Option<Vec<f32>>,
    /// How many passages.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 100, default = 10)]
    k: Option<usize>,
    /// Only passages with `distance <= distance_threshold`.
    #[schema(minimum = 0, maximum = 2)]
    distance_threshold: Option<f32>,
    /// Whether hits carry their vectors; the query parameter of this name wins.
    #[schema(default = false)]
    include_embeddings: Option<bool>,
}

/// The passages found, nearest first.
#[derive(Debug, Serialize, ToSchema)]
struct SearchResponse {
    results: Vec<SearchResult>,
    /// Milliseconds, two decimals.
    #[schema(example = 3.21)]
    query_time_ms: f64,
    total_results: usize,
}

/// The passages found, nearest first, with their ranks.
#[derive(Debug, Serialize, ToSchema)]
struct StreamedResponse {
    results: Vec<StreamedResult>,
    total: usize,
    query_time_ms: f64,
}

fn read_k(r: &mut Reader<'_>, max: usize) -> Read<Option<usize>> {
    let Some(k) = r.whole()? else { return Ok(None) };
    let k = usize::try_from(k).ok().filter(|k| (1..=max).contains(k));
    if k.is_none() {
        r.fault(format!("must be from 1 to {max}"));
    }
    Ok(k)
}

fn read_threshold(r: &mut Reader<'_>) -> Read<Option<f32>> {
    let Some(threshold) = r.number()? else { return Ok(None) };
    if !(0.0..=2.0).contains(&threshold) {
        r.fault("must be from 0 to 2");
        return Ok(None);
    }
    #[expect(clippy::cast_possible_truncation, reason = "distances are f32, and so is a bound")]
    Ok(Some(threshold as f32))
}

/// Refuses what would change the results and is not served: passages that were never filtered must
/// not pass for filtered ones. `null`, what is empty and `mode: "vector"` change nothing; other
/// keys are ignored.
fn refuse_unserved(r: &mut Reader<'_>, key: &str) -> Read<()> {
    let changes = match key {
        "mode" => {
            let mode = r.any()?;
            !mode.is_null() && mode != "vector"
        }
        "filter" | "metadata_filter" | "metadata_filters" => match r.any()? {
            Value::Null => false,
            Value::Array(list) => !list.is_empty(),
            Value::Object(object) => !object.is_empty(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        },
        _ => false,
    };
    if changes {
        r.fault("is not available in this version");
    }
    Ok(())
}

/// Searches by text.
#[utoipa::path(post, operation_id = "search", path = "/libraries/{library_id}/search", tag = "search",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("include_embeddings" = Option<bool>, Query, description = "Whether hits carry their vectors [false]"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
    ),
    request_body = SearchBody,
    responses((status = 200, description = "The nearest passages", body = SearchResponse), ReadErrors, EmbeddingErrors))]
async fn search_text(
    principal: Principal,
    State(app): State<App>,
    target: Target,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let limits = &app.config().limits;
    let fields = read_json(&body, |r| {
        let mut fields = SearchBody::default();
        r.object(|r, key| {
            match key {
                "query" => fields.query = text_within(r, 1, limits.query_chars_max)?,
                "k" => fields.k = read_k(r, limits.k_max)?,
                "distance_threshold" => fields.distance_threshold = read_threshold(r)?,
                "include_embeddings" => fields.include_embeddings = r.switch()?,
                other => refuse_unserved(r, other)?,
            }
            Ok(())
        })?;
        r.require("query", fields.query.is_some() || r.has_fault_at("query"));
        Ok(fields)
    })?;
    let request = SearchRequest {
        query: Query::Text(fields.query.unwrap_or_default()),
        k: fields.k.unwrap_or(K_DEFAULT),
        distance_threshold: fields.distance_threshold,
        tuning: Tuning::default(),
        include_embeddings: target.include_embeddings(fields.include_embeddings),
    };
    answer(&app, principal, &target, request).await
}

/// Searches by vector.
#[utoipa::path(post, operation_id = "search_by_embedding", path = "/libraries/{library_id}/search/embedding", tag = "search",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("include_embeddings" = Option<bool>, Query, description = "Whether hits carry their vectors [false]"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
    ),
    request_body = EmbeddingSearchBody,
    responses((status = 200, description = "The nearest passages", body = SearchResponse), ReadErrors))]
async fn search_embedding(
    principal: Principal,
    State(app): State<App>,
    target: Target,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let k_max = app.config().limits.k_max;
    let fields = read_json(&body, |r| {
        let mut fields = EmbeddingSearchBody::default();
        r.object(|r, key| {
            match key {
                "embedding" => fields.embedding = read_vector(r)?,
                "k" => fields.k = read_k(r, k_max)?,
                "distance_threshold" => fields.distance_threshold = read_threshold(r)?,
                "include_embeddings" => fields.include_embeddings = r.switch()?,
                other => refuse_unserved(r, other)?,
            }
            Ok(())
        })?;
        r.require("embedding", fields.embedding.is_some() || r.has_fault_at("embedding"));
        Ok(fields)
    })?;
    let request = SearchRequest {
        query: Query::Vector(fields.embedding.unwrap_or_default()),
        k: fields.k.unwrap_or(K_DEFAULT),
        distance_threshold: fields.distance_threshold,
        tuning: Tuning::default(),
        include_embeddings: target.include_embeddings(fields.include_embeddings),
    };
    answer(&app, principal, &target, request).await
}

/// Where a search goes: what path and query string say.
#[derive(Debug)]
struct Target {
    library: LibraryId,
    include_embeddings: Option<bool>,
    min_seq: MinSeq,
    query: QueryPairs,
    wants_lines: bool,
}

impl Target {
    /// Whether hits carry their vectors, given what the body says: the query string wins.
    fn include_embeddings(&self, body: Option<bool>) -> bool {
        self.include_embeddings.or(body).unwrap_or(false)
    }
}

impl axum::extract::FromRequestParts<App> for Target {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        app: &App,
    ) -> Result<Self, Problem> {
        let LibraryPath(library) = LibraryPath::from_request_parts(parts, app).await?;
        let min_seq = MinSeq::from_request_parts(parts, app).await?;
        let query = QueryPairs::from_request_parts(parts, app).await?;
        let include_embeddings = query.switch("include_embeddings")?;
        let wants_lines = wants_lines(&parts.headers);
        Ok(Self { library, include_embeddings, min_seq, query, wants_lines })
    }
}

async fn run(
    app: &App,
    principal: Principal,
    target: &Target,
    request: SearchRequest,
) -> Result<(SearchAnswer, f64), Problem> {
    let started = Instant::now();
    let answer =
        app.engine().search(principal.tenant, target.library, request, target.min_seq.0).await?;
    let taken = started.elapsed();
    app.metrics().searched(target.library, answer.index.name(), taken, answer.hits.len());
    Ok((answer, milliseconds(taken)))
}

async fn answer(
    app: &App,
    principal: Principal,
    target: &Target,
    request: SearchRequest,
) -> Result<Response, Problem> {
    let (answer, query_time_ms) = run(app, principal, target, request).await?;
    let headers = seq_header(answer.seq);
    let results: Vec<SearchResult> = answer.hits.into_iter().map(SearchResult::of).collect();
    let total_results = results.len();
    Ok((headers, Json(SearchResponse { results, query_time_ms, total_results })).into_response())
}

/// Searches by text for up to 10,000 passages. `Accept: application/x-ndjson` gets one line per
/// passage, anything else one JSON object. Parameters come from the body or the query string; the
/// body wins.
#[utoipa::path(post, path = "/libraries/{library_id}/search/stream", tag = "search",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("query" = Option<String>, Query, description = "What to find"),
        ("k" = Option<u32>, Query, minimum = 1, maximum = 10000, description = "How many passages, 1 to 10000 [10]"),
        ("distance_threshold" = Option<f32>, Query, minimum = 0, maximum = 2, description = "Only passages this near, 0 to 2"),
        ("include_embeddings" = Option<bool>, Query, description = "Whether hits carry their vectors [false]"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
    ),
    request_body(content = Option<StreamSearchBody>),
    responses(
        (status = 200, description = "The nearest passages", content(
            (StreamedResponse = "application/json"),
            (StreamedLine = "application/x-ndjson"),
        )),
        ReadErrors, EmbeddingErrors))]
async fn search_stream(
    principal: Principal,
    State(app): State<App>,
    target: Target,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let request = stream_request(&app, &target, &body)?;
    let (answer, query_time_ms) = run(&app, principal, &target, request).await?;
    let seq = seq_header(answer.seq);
    let results = answer.hits.into_iter().enumerate();
    let results = results.map(|(index, hit)| StreamedResult::of(index, hit));
    if !target.wants_lines {
        let results: Vec<StreamedResult> = results.collect();
        let total = results.len();
        return Ok((seq, Json(StreamedResponse { results, total, query_time_ms })).into_response());
    }
    let total = results.len();
    let lines = results
        .map(|result| line(&result))
        .chain([line(&serde_json::json!({
            "status": "complete", "total_results": total, "query_time_ms": query_time_ms,
        }))])
        .map(Ok::<_, std::convert::Infallible>);
    let body = Body::from_stream(futures_util::stream::iter(lines));
    Ok((seq, [(header::CONTENT_TYPE, NDJSON)], body).into_response())
}

fn stream_request(app: &App, target: &Target, body: &[u8]) -> Result<SearchRequest, Problem> {
    let query_chars_max = app.config().limits.query_chars_max;
    let mut fields = stream_query(&target.query, query_chars_max)?;
    if !body.trim_ascii().is_empty() {
        fields = read_json(body, |r| {
            r.object(|r, key| {
                match key {
                    "query" => {
                        fields.query = text_within(r, 1, query_chars_max)?.or(fields.query.take());
                    }
                    "k" => fields.k = read_k(r, limits::K_STREAM_MAX)?.or(fields.k),
                    "distance_threshold" => {
                        fields.distance_threshold =
                            read_threshold(r)?.or(fields.distance_threshold);
                    }
                    "include_embeddings" => fields.include_embeddings = r.switch()?,
                    other => refuse_unserved(r, other)?,
                }
                Ok(())
            })?;
            Ok(fields)
        })?;
    }
    let Some(query) = fields.query else { return Err(Problem::field("/query", "is required")) };
    Ok(SearchRequest {
        query: Query::Text(query),
        k: fields.k.unwrap_or(K_DEFAULT),
        distance_threshold: fields.distance_threshold,
        tuning: Tuning::default(),
        include_embeddings: target.include_embeddings(fields.include_embeddings),
    })
}

fn stream_query(pairs: &QueryPairs, query_chars_max: usize) -> Result<SearchBody, Problem> {
    let query = pairs.text("query").map(str::to_owned);
    if query.as_ref().is_some_and(|query| query.chars().count() > query_chars_max) {
        return Err(query_fault("query", &format!("must have 1 to {query_chars_max} characters")));
    }
    let k = match pairs.text("k") {
        None => None,
        Some(_) => Some(pairs.whole("k", 0, 1..=limits::K_STREAM_MAX as u64)?),
    };
    let distance_threshold = match pairs.text("distance_threshold") {
        None => None,
        Some(text) => Some(
            text.parse::<f32>()
                .ok()
                .filter(|threshold| (0.0..=2.0).contains(threshold))
                .ok_or_else(|| query_fault("distance_threshold", "must be from 0 to 2"))?,
        ),
    };
    let k = k.and_then(|k| usize::try_from(k).ok());
    Ok(SearchBody { query, k, distance_threshold, include_embeddings: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_change_results_and_is_not_served_is_refused() {
        let read = |body: &str| {
            read_json(body.as_bytes(), |r| r.object(refuse_unserved)).map_err(|p| p.full_detail())
        };
        for body in [
            r#"{"mode": "vector", "filter": {}, "metadata_filters": [], "session_id": 1}"#,
            r#"{"mode": null, "metadata_filters": null}"#,
        ] {
            assert!(read(body).is_ok(), "{body}");
        }
        for (body, detail) in [
            (r#"{"mode": "keyword"}"#, "/mode: is not available in this version"),
            (r#"{"filter": {"a": 1}}"#, "/filter: is not available in this version"),
            (
                r#"{"metadata_filters": [{"field": "a", "operator": "eq", "value": 1}]}"#,
                "/metadata_filters: is not available in this version",
            ),
        ] {
            assert_eq!(read(body).unwrap_err(), detail);
        }
    }
}
