//! Search: by text, by vector, and many hits at once.

use std::time::Instant;

use arrwdb_engine::state::{LibraryId, limits};
use arrwdb_engine::{EngineError, Moment, Query, SearchAnswer, SearchRequest};
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

use super::answers::{
    Explain, SearchResult, StreamedEnd, StreamedLine, StreamedResult, milliseconds,
};
use super::facets::FacetAnswer;
use super::groups::{Answered, Group};
use super::requests::read_vector;
use super::search_pages::{Paged, Paging, TotalMatches, refuse_paging};
use super::search_requests::{
    EmbeddingSearchBody, FilteredSearchBody, KeywordSearchBody, SearchBody, StreamSearchBody,
    Wishes, query_text, read_query,
};
use super::{NDJSON, line, seq_header, wants_lines};
use crate::app::App;
use crate::extract::{LibraryPath, QueryPairs, WholeBody, query_fault, read_json};
use crate::moment::At;
use crate::openapi::{EmbeddingErrors, ReadErrors};
use crate::principal::Principal;
use crate::problem::Problem;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(search_text))
        .routes(routes!(search_filtered))
        .routes(routes!(search_keyword))
        .routes(routes!(search_embedding))
        .routes(routes!(search_stream))
}

/// The passages found, best first.
#[derive(Debug, Serialize, ToSchema)]
struct SearchResponse {
    results: Vec<SearchResult>,
    /// Milliseconds, two decimals.
    #[schema(example = 3.21)]
    query_time_ms: f64,
    /// Passages, those of groups included.
    total_results: usize,
    /// How many passages match, where that was asked for: by vectors all that pass the filter, by
    /// keywords those that have one of the words.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_matches: Option<TotalMatches>,
    /// What to give as `cursor` for the next page, where pages were asked for; null at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    next_cursor: Option<Value>,
    /// The values of fields over everything that passes the filter, where these were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    facets: Vec<FacetAnswer>,
    /// The documents found, the one of the best passage first, where passages were to be grouped by
    /// them; `results` is empty then.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<Group<SearchResult>>>,
    /// How they were found, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<Explain>,
}

/// The passages found, best first, with their ranks.
#[derive(Debug, Serialize, ToSchema)]
struct StreamedResponse {
    results: Vec<StreamedResult>,
    total: usize,
    query_time_ms: f64,
    /// How they were found, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<Explain>,
}

/// Searches by text.
#[utoipa::path(post, operation_id = "search", path = "/libraries/{library_id}/search", tag = "search",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("include_embeddings" = Option<bool>, Query, description = "Whether hits carry their vectors [false]"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
        ("as_of" = Option<u64>, Query, description = "Read what was there after this write, as far back as history is kept"),
    ),
    request_body = SearchBody,
    responses((status = 200, description = "The nearest passages", body = SearchResponse), ReadErrors, EmbeddingErrors))]
async fn search_text(
    principal: Principal,
    State(app): State<App>,
    target: Target,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let asked = in_words(&app, &body)?;
    answer(&app, principal, &target, (asked, &body)).await
}

/// What a body with a `query` asks for.
fn in_words(app: &App, body: &[u8]) -> Result<Asked, Problem> {
    let limits = &app.config().limits;
    read_json(body, |r| {
        let (mut query, mut wishes, mut paging) = (None, Wishes::default(), Paging::default());
        r.object(|r, key| {
            match key {
                "query" => query = read_query(r, limits.query_chars_max)?,
                key if paging.read(r, key)? => {}
                key => wishes.read(r, key, limits.k_max)?,
            }
            Ok(())
        })?;
        r.require("query", query.is_some() || r.has_fault_at("query"));
        Ok(Asked { query: Query::Text(query.unwrap_or_default()), wishes, paging })
    })
}

/// What a body asks for.
struct Asked {
    query: Query,
    wishes: Wishes,
    paging: Paging,
}

/// Searches by the words of the query, ranked by BM25 over titles and texts: as `search` with `mode`
/// `keyword`. Passages that have `"a phrase"` come before others, `+words` have to be there, `-words`
/// must not, `begin*` stands for words that begin so. English words are found in all their forms. Needs
/// no embedding model.
#[utoipa::path(post, operation_id = "search_keyword", path = "/libraries/{library_id}/search/keyword", tag = "search",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("include_embeddings" = Option<bool>, Query, description = "Whether hits carry their vectors [false]"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
        ("as_of" = Option<u64>, Query, description = "Read what was there after this write, as far back as history is kept"),
    ),
    request_body = KeywordSearchBody,
    responses((status = 200, description = "The best passages", body = SearchResponse), ReadErrors))]
async fn search_keyword(
    principal: Principal,
    State(app): State<App>,
    target: Target,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let asked = in_words(&app, &body)?;
    let asked = Asked { wishes: asked.wishes.by_keywords()?, ..asked };
    answer(&app, principal, &target, (asked, &body)).await
}

/// Searches by text among the passages that pass `metadata_filters`: as `search` with a `filter`.
#[utoipa::path(post, operation_id = "search_filtered", path = "/libraries/{library_id}/search/filtered", tag = "search",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("include_embeddings" = Option<bool>, Query, description = "Whether hits carry their vectors [false]"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
        ("as_of" = Option<u64>, Query, description = "Read what was there after this write, as far back as history is kept"),
    ),
    request_body = FilteredSearchBody,
    responses((status = 200, description = "The nearest passages that pass", body = SearchResponse), ReadErrors, EmbeddingErrors))]
async fn search_filtered(
    principal: Principal,
    State(app): State<App>,
    target: Target,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let asked = in_words(&app, &body)?;
    answer(&app, principal, &target, (asked, &body)).await
}

/// Searches by vector.
#[utoipa::path(post, operation_id = "search_by_embedding", path = "/libraries/{library_id}/search/embedding", tag = "search",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("include_embeddings" = Option<bool>, Query, description = "Whether hits carry their vectors [false]"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
        ("as_of" = Option<u64>, Query, description = "Read what was there after this write, as far back as history is kept"),
    ),
    request_body = EmbeddingSearchBody,
    responses((status = 200, description = "The nearest passages", body = SearchResponse), ReadErrors))]
async fn search_embedding(
    principal: Principal,
    State(app): State<App>,
    target: Target,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let limits = &app.config().limits;
    let asked = read_json(&body, |r| {
        let (mut vector, mut words) = (None, None);
        let (mut wishes, mut paging) = (Wishes::default(), Paging::default());
        r.object(|r, key| {
            match key {
                "embedding" => vector = read_vector(r)?,
                "query" => words = read_query(r, limits.query_chars_max)?,
                key if paging.read(r, key)? => {}
                key => wishes.read(r, key, limits.k_max)?,
            }
            Ok(())
        })?;
        r.require("embedding", vector.is_some() || r.has_fault_at("embedding"));
        let query = Query::Vector(vector.unwrap_or_default());
        Ok(Asked { query, wishes: wishes.with_words(words), paging })
    })?;
    answer(&app, principal, &target, (asked, &body)).await
}

/// Where a search goes: what path and query string say.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) library: LibraryId,
    pub(super) include_embeddings: Option<bool>,
    pub(super) at: At,
    query: QueryPairs,
    pub(super) wants_lines: bool,
}

impl axum::extract::FromRequestParts<App> for Target {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        app: &App,
    ) -> Result<Self, Problem> {
        let LibraryPath(library) = LibraryPath::from_request_parts(parts, app).await?;
        let at = At::from_request_parts(parts, app).await?;
        let query = QueryPairs::from_request_parts(parts, app).await?;
        let include_embeddings = query.switch("include_embeddings")?;
        let wants_lines = wants_lines(&parts.headers);
        Ok(Self { library, include_embeddings, at, query, wants_lines })
    }
}

/// Searches; the answer, and how long it took in milliseconds.
async fn run(
    app: &App,
    principal: Principal,
    target: &Target,
    request: SearchRequest,
    at: Moment,
) -> Result<(SearchAnswer, f64), EngineError> {
    let started = Instant::now();
    let answer = app.engine().search(principal.tenant, target.library, request, at).await?;
    let taken = started.elapsed();
    app.metrics().searched(target.library, answer.index.name(), taken, answer.hits.len());
    Ok((answer, milliseconds(taken)))
}

async fn answer(
    app: &App,
    principal: Principal,
    target: &Target,
    (asked, body): (Asked, &[u8]),
) -> Result<Response, Problem> {
    let Asked { query, wishes, paging } = asked;
    wishes.check()?;
    let paged = paging.page((target.library, wishes.mode()), body)?;
    let at = target.at.with_body(wishes.moment())?;
    let at = paged.as_ref().map_or(Ok(at), |paged| paged.moment(at))?;
    let request = SearchRequest {
        facets: wishes.facets().to_vec(),
        page: paged.as_ref().map(|paged| paged.page.clone()),
        count: paging.counts(),
        ..wishes.request(query, target.include_embeddings)
    };
    let (mut answer, query_time_ms) = run(app, principal, target, request, at).await?;
    let headers = seq_header(answer.seq);
    let facets = FacetAnswer::all(wishes.facets(), std::mem::take(&mut answer.plan.facets));
    let total_matches = answer.plan.matches.map(TotalMatches::of);
    let next = |paged: Paged| {
        let next = answer.next.as_ref().map(|page| paged.next(page, answer.seq));
        next.map_or(Value::Null, Value::String)
    };
    let next_cursor = paged.map(next);
    let explain = wishes.explains().then(|| Explain::of(&answer));
    let shown = (wishes.highlights(), wishes.explains());
    let found = |hit| Some(SearchResult::of(hit, shown));
    let Answered { results, groups, total } = Answered::of(answer.hits, wishes.groups(), found);
    let answer = SearchResponse {
        results,
        query_time_ms,
        total_results: total,
        total_matches,
        next_cursor,
        facets,
        groups,
        explain,
    };
    Ok((headers, Json(answer)).into_response())
}

/// Searches by text for up to 10,000 passages. `Accept: application/x-ndjson` gets one line per
/// passage, anything else one JSON object. Parameters come from the body or the query string; the
/// body wins.
#[utoipa::path(post, path = "/libraries/{library_id}/search/stream", tag = "search",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("query" = Option<String>, Query, description = "What to find"),
        ("k" = Option<u32>, Query, minimum = 1, maximum = 10000, description = "How many passages, 1 to 10000 [10]"),
        ("mode" = Option<String>, Query, description = "What passages are found by: vector, keyword or hybrid [vector]"),
        ("distance_threshold" = Option<f32>, Query, description = "Only passages this near: 0 to 2 for cosine, any number for dot, not negative for l2"),
        ("filter" = Option<String>, Query, description = "Only passages that pass this filter, which is JSON as in bodies: `{\"year\":{\"$gte\":2020}}`, percent-encoded"),
        ("operator" = Option<String>, Query, description = "Whether one of the words is enough, or all have to be there: or, and [or]"),
        ("fusion" = Option<String>, Query, description = "How a hybrid search makes one ranking of two: relative_score, weighted or rrf [relative_score]"),
        ("alpha" = Option<f64>, Query, minimum = 0.0, maximum = 1.0, description = "How much vectors weigh in a hybrid search"),
        ("highlight" = Option<String>, Query, description = "Whether hits show the words that were found, or how: `true`, or JSON as in bodies"),
        ("include_embeddings" = Option<bool>, Query, description = "Whether hits carry their vectors [false]"),
        ("ef_search" = Option<u32>, Query, minimum = 1, maximum = 10000, description = "How many rows a walk through a graph keeps"),
        ("nprobe" = Option<u32>, Query, minimum = 1, maximum = 65536, description = "How many inverted lists are searched"),
        ("recall" = Option<f64>, Query, exclusive_minimum = 0.0, maximum = 1.0, description = "The part of the nearest passages that shall be found, above 0 and at most 1; above about 0.99 every row is scored in practice"),
        ("exact" = Option<bool>, Query, description = "Whether every row is scored [false]"),
        ("explain" = Option<bool>, Query, description = "Whether the answer says how it was found [false]"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
        ("as_of" = Option<u64>, Query, description = "Read what was there after this write, as far back as history is kept"),
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
    let (query, wishes) = stream_wanted(&app, &target, &body)?;
    wishes.check()?;
    wishes.groups().refuse()?;
    let in_query = Wishes::of_query(&target.query)?;
    let at = target.at.or_body(wishes.moment());
    let request = wishes.request(Query::Text(query), target.include_embeddings);
    let (answer, query_time_ms) = run(&app, principal, &target, request, at)
        .await
        .map_err(|error| in_query_string(error, &in_query, &wishes))?;
    let seq = seq_header(answer.seq);
    let explain = wishes.explains().then(|| Explain::of(&answer));
    let results = answer.hits.into_iter().enumerate();
    let results = results.map(|(index, hit)| StreamedResult::of(index, hit));
    let total = results.len();
    if !target.wants_lines {
        let results: Vec<StreamedResult> = results.collect();
        let whole = StreamedResponse { results, total, query_time_ms, explain };
        return Ok((seq, Json(whole)).into_response());
    }
    let status = "complete";
    let end = line(&StreamedEnd { status, total_results: total, query_time_ms, explain });
    let lines = results.map(|result| line(&result)).chain([end]);
    let lines = lines.map(Ok::<_, std::convert::Infallible>);
    let body = Body::from_stream(futures_util::stream::iter(lines));
    Ok((seq, [(header::CONTENT_TYPE, NDJSON)], body).into_response())
}

/// An error of a search: what came in the query string is at fault there.
fn in_query_string(error: EngineError, in_query: &Wishes, wishes: &Wishes) -> Problem {
    let EngineError::Invalid { field, detail } = &error else { return error.into() };
    let (thresholds, recalls) = (Wishes::distance_threshold, Wishes::recall);
    match field.as_str() {
        "/distance_threshold" if thresholds(in_query) == thresholds(wishes) => {
            query_fault("distance_threshold", detail)
        }
        "/recall" if recalls(in_query) == recalls(wishes) => query_fault("recall", detail),
        _ => error.into(),
    }
}

/// What a streamed search asks for, by the query string and by the body, which wins.
fn stream_wanted(app: &App, target: &Target, body: &[u8]) -> Result<(String, Wishes), Problem> {
    let query_chars_max = app.config().limits.query_chars_max;
    let mut query = query_text(&target.query, query_chars_max)?;
    let mut wishes = Wishes::of_query(&target.query)?;
    if !body.trim_ascii().is_empty() {
        read_json(body, |r| {
            r.object(|r, key| {
                match key {
                    "query" => query = read_query(r, query_chars_max)?.or(query.take()),
                    key if refuse_paging(r, key)? => {}
                    key => wishes.read(r, key, limits::K_STREAM_MAX)?,
                }
                Ok(())
            })
        })?;
    }
    let query = query.ok_or_else(|| Problem::field("/query", "is required"))?;
    Ok((query, wishes))
}
