//! Searching several vector fields at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use arrwdb_engine::embed::Picture;
use arrwdb_engine::state::{ChunkId, Custom, DocumentId, TEXT_FIELD, Tuning};
use arrwdb_engine::{
    DocumentHit, FIELD_QUERIES_MAX, FieldFusion, FieldValue, FieldWanted, MatchedVector, Moment,
    MultiVectorPlan, MultiVectorRequest,
};
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

use super::answers::{as_text, milliseconds};
use super::keyword_requests::read_name;
use super::search::Target;
use super::search_pages::refuse_paging;
use super::search_requests::{
    FilterShape, is_filter, read_filter_once, read_k, read_query, read_threshold, read_up_to,
};
use super::vector_requests::{FieldQueryBody, read_field_query, read_picture};
use super::{NDJSON, line, seq_header};
use crate::app::App;
use crate::extract::{WholeBody, read_json};
use crate::json::{Read, Reader};
use crate::limits::{EF_SEARCH_MAX, K_DEFAULT, NPROBE_MAX};
use crate::moment::read_moment;
use crate::openapi::{EmbeddingErrors, ReadErrors};
use crate::principal::Principal;
use crate::problem::Problem;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(search))
}

/// How the queries become one ranking, by name.
const FUSIONS: [(&str, FieldFusion); 2] =
    [("late", FieldFusion::Late), ("early", FieldFusion::Early)];

/// What to find in several vector fields.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"queries": [{"type": "text", "query": "stable heaps", "weight": 0.5}, {"type": "title", "query": "stability", "weight": 0.5}], "k": 5}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
struct MultiVectorSearchBody {
    /// What to find in which field; or `query` or `image_url` for all of `vector_types`.
    #[schema(min_items = 1, max_items = 16)]
    queries: Option<Vec<FieldQueryBody>>,
    /// What to find in words in each of `vector_types`, in place of `queries`.
    #[schema(min_length = 1, max_length = 1000)]
    query: Option<String>,
    /// What to find as a picture in each of `vector_types`, in place of `queries`.
    #[schema(min_length = 1)]
    image_url: Option<String>,
    /// The fields of `query` or `image_url`, `text` without; of `queries`, only those of these fields count.
    #[schema(min_items = 1, max_items = 16)]
    vector_types: Option<Vec<String>>,
    /// How many documents.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 100, default = 10)]
    k: Option<usize>,
    /// `late`: the sum over the fields of `weight * (1 - distance)`. `early`: one search for the
    /// weighted mean of the queries, which have one dimension.
    #[schema(value_type = Option<FieldFusionName>, default = "late")]
    fusion: Option<String>,
    /// Only vectors with `distance <= distance_threshold`.
    distance_threshold: Option<f32>,
    /// Only documents and vectors that pass: fields of the document, custom metadata of the vector.
    #[schema(value_type = Option<FilterShape>)]
    filter: Option<Value>,
    /// How many of the nearest rows a walk through a graph keeps.
    #[schema(minimum = 1, maximum = 10_000)]
    ef_search: Option<u32>,
    /// How many of the nearest inverted lists are searched.
    #[schema(minimum = 1, maximum = 65_536)]
    nprobe: Option<u32>,
    /// Whether every vector is scored, whatever the fields are searched by.
    #[schema(default = false)]
    exact: Option<bool>,
    /// Whether the answer says how it was found.
    #[schema(default = false)]
    explain: Option<bool>,
    /// Searches what was there after the write that answered this `X-Arrwdb-Seq`.
    as_of: Option<u64>,
    /// Waits, for a bounded time, until this write is seen: the `X-Arrwdb-Seq` of its answer. As in the
    /// query string.
    min_seq: Option<u64>,
}

/// How queries of several fields become one ranking.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes names; they are read from a table")]
enum FieldFusionName {
    Late,
    Early,
}

/// The documents found, best first.
#[derive(Debug, Serialize, ToSchema)]
struct MultiVectorResponse {
    results: Vec<DocumentResult>,
    /// Milliseconds, two decimals.
    #[schema(example = 3.21)]
    query_time_ms: f64,
    total_results: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<MultiVectorExplain>,
}

/// One document found.
#[derive(Debug, Serialize, ToSchema)]
struct DocumentResult {
    #[schema(value_type = String, format = "uuid")]
    #[serde(serialize_with = "as_text")]
    document_id: DocumentId,
    title: String,
    /// Its vectors that count, the nearest of each query.
    matched_vectors: Vec<MatchedAnswer>,
    /// What it is ranked by.
    combined_score: f64,
    /// What each field adds to that, as `<type>_score`.
    score_breakdown: BTreeMap<String, f64>,
    /// Custom metadata of the document.
    #[schema(value_type = Object)]
    metadata: Custom,
}

/// A vector that counts.
#[derive(Debug, Serialize, ToSchema)]
struct MatchedAnswer {
    #[schema(value_type = String, format = "uuid")]
    #[serde(serialize_with = "as_text")]
    vector_id: ChunkId,
    r#type: String,
    /// To the query of its field.
    distance: f32,
    /// `weight * (1 - distance)`.
    weighted_score: f64,
    /// What it was made from, where that is known.
    text: Option<String>,
    #[schema(value_type = Object)]
    metadata: Custom,
}

/// How documents were found.
#[derive(Debug, Serialize, ToSchema)]
struct MultiVectorExplain {
    fields: Vec<FieldExplain>,
    /// How often the fields were searched, deeper each time.
    rounds: u32,
    /// Documents that were scored.
    documents_scored: u64,
    /// Whether no document that was not scored can be better, as far as the fields' searches are exact.
    complete: bool,
    embedding_ms: f64,
    finding_ms: f64,
}

/// What a query of a field took.
#[derive(Debug, Serialize, ToSchema)]
struct FieldExplain {
    r#type: String,
    /// Vectors that the field has.
    vectors: u64,
    /// Those that pass the filter, where there is one.
    filtered_vectors: Option<u64>,
    /// How many of the nearest were looked at.
    depth: usize,
    /// Vectors scored, all rounds together.
    vectors_scored: u64,
    codes_scored: u64,
}

/// The last line of NDJSON.
#[derive(Debug, Serialize, ToSchema)]
struct MultiVectorEnd {
    status: &'static str,
    total_results: usize,
    query_time_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<MultiVectorExplain>,
}

/// Searches several vector fields at once, and finds documents. `Accept: application/x-ndjson` gets a
/// line for each document and one at the end.
#[utoipa::path(post, operation_id = "search_multi_vector", path = "/libraries/{library_id}/search/multi-vector", tag = "search",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
        ("as_of" = Option<u64>, Query, description = "Read what was there after this write, as far back as history is kept"),
    ),
    request_body = MultiVectorSearchBody,
    responses(
        (status = 200, description = "The best documents", content(
            (MultiVectorResponse = "application/json"),
            (DocumentResult = "application/x-ndjson"),
        )),
        ReadErrors, EmbeddingErrors))]
async fn search(
    principal: Principal,
    State(app): State<App>,
    target: Target,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let limits = &app.config().limits;
    let (queries_max, k_max) = (limits.query_chars_max, limits.k_max);
    let asked = read_json(&body, |r| read_asked(r, queries_max, k_max))?;
    let (explains, at) = (asked.explain, target.at.with_body(asked.moment)?);
    let started = Instant::now();
    let (tenant, library) = (principal.tenant, target.library);
    let answer = app.engine().search_fields(tenant, library, asked.request, at).await?;
    let query_time_ms = milliseconds(started.elapsed());
    let seq = seq_header(answer.seq);
    let explain = explains.then(|| MultiVectorExplain::of(answer.plan));
    let results: Vec<DocumentResult> = answer.hits.into_iter().map(DocumentResult::of).collect();
    let total_results = results.len();
    if !target.wants_lines {
        let whole = MultiVectorResponse { results, query_time_ms, total_results, explain };
        return Ok((seq, Json(whole)).into_response());
    }
    let status = "complete";
    let end = line(&MultiVectorEnd { status, total_results, query_time_ms, explain });
    let lines = results.into_iter().map(|result| line(&result)).chain([end]);
    let lines = lines.map(Ok::<_, std::convert::Infallible>);
    let body = Body::from_stream(futures_util::stream::iter(lines));
    Ok((seq, [(header::CONTENT_TYPE, NDJSON)], body).into_response())
}

/// What a body asks for.
struct Asked {
    request: MultiVectorRequest,
    explain: bool,
    moment: Moment,
}

/// What of a body says which fields are searched for what.
#[derive(Default)]
struct Queries {
    /// One by one.
    wanted: Option<Vec<FieldWanted>>,
    /// One text for all.
    query: Option<String>,
    /// One picture for all.
    picture: Option<Picture>,
    types: Option<Vec<String>>,
}

fn read_asked(r: &mut Reader<'_>, query_chars_max: usize, k_max: usize) -> Read<Asked> {
    let mut queries = Queries::default();
    let (mut k, mut fusion, mut threshold, mut filter) = (None, None, None, None);
    let (mut tuning, mut explain, mut moment) = (Tuning::default(), None, Moment::default());
    r.object(|r, key| {
        match key {
            "queries" => queries.wanted = read_queries(r, query_chars_max)?,
            "query" => queries.query = read_query(r, query_chars_max)?,
            "image_url" => queries.picture = read_picture(r)?,
            "vector_types" => queries.types = read_types(r)?,
            "k" => k = read_k(r, k_max)?,
            "fusion" => fusion = read_name(r, &FUSIONS)?,
            "distance_threshold" => threshold = read_threshold(r)?,
            key if is_filter(key) => read_filter_once(r, &mut filter)?,
            key if refuse_paging(r, key)? => {}
            "ef_search" => tuning.ef_search = read_up_to(r, EF_SEARCH_MAX)?,
            "nprobe" => tuning.nprobe = read_up_to(r, NPROBE_MAX)?,
            "exact" => tuning.exact = r.switch()?.unwrap_or(false),
            "explain" => explain = r.switch()?,
            key if read_moment(r, key, &mut moment)? => {}
            _ignored => {}
        }
        Ok(())
    })?;
    let request = MultiVectorRequest {
        queries: queries.resolve(r),
        k: k.unwrap_or(K_DEFAULT),
        fusion: fusion.unwrap_or_default(),
        filter: filter.unwrap_or_default(),
        distance_threshold: threshold,
        tuning,
    };
    Ok(Asked { request, explain: explain.unwrap_or(false), moment })
}

fn read_queries(r: &mut Reader<'_>, query_chars_max: usize) -> Read<Option<Vec<FieldWanted>>> {
    let mut queries = Vec::new();
    let mut count = 0_usize;
    let seen = r.array(|r, at| {
        count += 1;
        let query = read_field_query(r, query_chars_max, format!("/queries/{at}"))?;
        if count <= FIELD_QUERIES_MAX {
            queries.push(query);
        }
        Ok(())
    })?;
    check_count(r, seen, count);
    Ok(seen.map(|()| queries))
}

fn read_types(r: &mut Reader<'_>) -> Read<Option<Vec<String>>> {
    let mut types = Vec::new();
    let mut count = 0_usize;
    let seen = r.array(|r, _| {
        count += 1;
        let name = r.string()?;
        if count <= FIELD_QUERIES_MAX {
            types.extend(name);
        }
        Ok(())
    })?;
    check_count(r, seen, count);
    Ok(seen.map(|()| types))
}

fn check_count(r: &mut Reader<'_>, seen: Option<()>, count: usize) {
    if seen.is_some() && !(1..=FIELD_QUERIES_MAX).contains(&count) {
        r.fault(format!("must have 1 to {FIELD_QUERIES_MAX} elements; it has {count}"));
    }
}

impl Queries {
    /// The queries; what is missing or too much is noted.
    fn resolve(self, r: &mut Reader<'_>) -> Vec<FieldWanted> {
        let Self { wanted, query, picture, types } = self;
        let picture = picture.map(|picture| ("image_url", FieldValue::Picture(picture)));
        let text = query.map(|query| ("query", FieldValue::Text(query)));
        let (one, more) = if text.is_some() { (text, picture) } else { (picture, None) };
        match (wanted, one) {
            (Some(_), Some((name, _))) => {
                r.fault_at(name, "is given together with queries; one of them is enough");
                Vec::new()
            }
            (Some(mut queries), None) => {
                if let Some(types) = &types {
                    queries.retain(|query| types.contains(&query.field));
                    if queries.is_empty() {
                        r.fault_at("vector_types", "none of the queries is of these types");
                    }
                }
                queries
            }
            (None, Some((_name, value))) => {
                if let Some((name, _)) = more {
                    r.fault_at(name, "is given together with query; one of them is enough");
                }
                let types = types.unwrap_or_else(|| vec![TEXT_FIELD.to_owned()]);
                let types: BTreeSet<String> = types.into_iter().collect();
                let of_type = |field: String| FieldWanted {
                    field,
                    value: value.clone(),
                    weight: 1.0,
                    pointer: String::new(),
                };
                types.into_iter().map(of_type).collect()
            }
            (None, None) => {
                let names = ["queries", "query", "image_url"];
                r.require("queries", names.iter().any(|name| r.has_fault_at(name)));
                Vec::new()
            }
        }
    }
}

impl DocumentResult {
    fn of(hit: DocumentHit) -> Self {
        let score = |(field, score): (String, f64)| (format!("{field}_score"), score);
        Self {
            document_id: hit.document_id,
            title: hit.metadata.title,
            matched_vectors: hit.matched.into_iter().map(MatchedAnswer::of).collect(),
            combined_score: hit.score,
            score_breakdown: hit.breakdown.into_iter().map(score).collect(),
            metadata: hit.metadata.custom,
        }
    }
}

impl MatchedAnswer {
    fn of(matched: MatchedVector) -> Self {
        Self {
            vector_id: matched.id,
            r#type: matched.field,
            distance: matched.distance,
            weighted_score: matched.weighted_score,
            text: Some(matched.text).filter(|text| !text.is_empty()),
            metadata: matched.custom,
        }
    }
}

impl MultiVectorExplain {
    fn of(plan: MultiVectorPlan) -> Self {
        let fields = plan.fields.into_iter().map(|field| FieldExplain {
            r#type: field.field,
            vectors: field.vectors,
            filtered_vectors: field.filtered,
            depth: field.depth,
            vectors_scored: field.effort.vectors,
            codes_scored: field.effort.codes,
        });
        Self {
            fields: fields.collect(),
            rounds: plan.rounds,
            documents_scored: plan.documents,
            complete: plan.complete,
            embedding_ms: milliseconds(plan.embedding),
            finding_ms: milliseconds(plan.finding),
        }
    }
}
