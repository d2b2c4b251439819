//! Reranking: passages found, ranked anew by recency, position, length, likeness or what the caller says.

use arrwdb_engine::embed::{RerankError, RerankKind, Reranker};
use arrwdb_engine::state::DocumentId;
use arrwdb_engine::{Hit, Mode, Query, Rescoring};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::{ChunkAnswer, Explain, SignalsAnswer, as_text};
use super::groups::{Answered, Group};
use super::keyword_requests::read_name;
use super::rerank_requests::{FUNCTIONS, Function, RerankSearchBody, read_scoring};
use super::rescored::{Asked, run};
use super::search::Target;
use super::search_requests::Wishes;
use super::seq_header;
use crate::app::App;
use crate::extract::{WholeBody, read_json};
use crate::openapi::{ReadErrors, RerankErrors};
use crate::principal::Principal;
use crate::problem::Problem;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(search_rerank))
}

/// The passages found, best first by what they were ranked anew.
#[derive(Debug, Serialize, ToSchema)]
struct RerankResponse {
    results: Vec<RerankResult>,
    /// Milliseconds, two decimals.
    #[schema(example = 3.21)]
    query_time_ms: f64,
    /// Passages, those of groups included.
    total_results: usize,
    /// The documents found, the one of the best passage first, where passages were to be grouped by
    /// them; `results` is empty then.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<Group<RerankResult>>>,
    /// What they were ranked by.
    #[schema(example = "recency")]
    rerank_function: &'static str,
    /// Its parameters, those that were not given too.
    #[schema(value_type = Object, example = json!({"half_life_days": 30}))]
    rerank_params: Map<String, Value>,
    /// The model that ranked, where one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "rerank-v3.5")]
    rerank_model: Option<String>,
    /// How they were found, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<Explain>,
}

/// One passage found.
#[derive(Debug, Serialize, ToSchema)]
struct RerankResult {
    chunk: ChunkAnswer,
    /// What it is ranked by; null where an expression gives no finite number for it, which puts it
    /// behind all others.
    #[schema(example = 0.71)]
    score: Option<f64>,
    /// By the library's metric; null in a search by keywords alone.
    #[schema(example = 0.234)]
    distance: Option<f32>,
    #[schema(value_type = String, format = "uuid")]
    #[serde(serialize_with = "as_text")]
    document_id: DocumentId,
    document_title: String,
    /// Parts of the text with the words that were found, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    highlights: Option<Vec<String>>,
    /// What it was found by, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    signals: Option<SignalsAnswer>,
}

impl RerankResult {
    fn of(hit: Hit, (highlights, explains): (bool, bool)) -> Self {
        let signals = explains.then(|| SignalsAnswer::of(&hit));
        Self {
            chunk: ChunkAnswer::of(hit.chunk, hit.chunk_index, hit.document_id),
            score: hit.rescored.and_then(|rescored| rescored.score),
            distance: hit.distance,
            document_id: hit.document_id,
            document_title: hit.document_title,
            highlights: highlights.then_some(hit.highlights),
            signals,
        }
    }
}

/// What a body asks for.
struct Wanted {
    query: Query,
    wishes: Wishes,
    rescoring: Rescoring,
    function: Function,
    params: Map<String, Value>,
}

fn wanted(app: &App, body: &[u8]) -> Result<Wanted, Problem> {
    read_json(body, |r| {
        let (mut asked, mut function, mut params) = (Asked::default(), None, None);
        r.object(|r, key| {
            match key {
                "rerank_function" => function = read_name(r, &FUNCTIONS)?,
                "rerank_params" => params = r.any_object()?,
                key => asked.read(r, key, app)?,
            }
            Ok(())
        })?;
        let function: Function = function.unwrap_or_default();
        if function.is_of_words() {
            asked.require_words(r);
        } else {
            asked.require(r);
        }
        let given = params.unwrap_or_default();
        // The parameters of a function that is none would be none either.
        let given = if r.has_fault_at("rerank_function") { Map::new() } else { given };
        let (scoring, params) = read_scoring(r, function, &given);
        if function.is_of_vectors() && asked.wishes.mode() == Mode::Keyword {
            let name = function.name();
            r.fault_at("mode", format!("must be vector or hybrid: {name} is of vectors, which a search by keywords does not look at"));
        }
        let (query, wishes, rescoring) = asked.finish(scoring);
        Ok(Wanted { query, wishes, rescoring, function, params })
    })
}

/// Refuses to ask for Cohere where another model ranks: what its scores mean is another matter.
fn check_model(app: &App, function: Function) -> Result<(), Problem> {
    let Some(kind) = app.engine().reranker().map(Reranker::kind) else { return Ok(()) };
    if function != Function::Cohere || kind == RerankKind::Cohere {
        return Ok(());
    }
    let reason = format!("RERANK_PROVIDER is {kind}; ask for rerank_function model");
    Err(RerankError::NotConfigured { reason }.into())
}

/// Searches, and ranks what was found anew: by recency, position, length, by weights or an expression of
/// the caller's, so that the passages are unlike each other, or by a model that reads them. See `docs/hybrid-and-reranking.md`.
#[utoipa::path(post, operation_id = "search_rerank", path = "/libraries/{library_id}/search/rerank", tag = "search",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("include_embeddings" = Option<bool>, Query, description = "Whether hits carry their vectors [false]"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
        ("as_of" = Option<u64>, Query, description = "Read what was there after this write, as far back as history is kept"),
    ),
    request_body = RerankSearchBody,
    responses((status = 200, description = "The best passages", body = RerankResponse), ReadErrors, RerankErrors))]
async fn search_rerank(
    principal: Principal,
    State(app): State<App>,
    target: Target,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let Wanted { query, wishes, rescoring, function, params } = wanted(&app, &body)?;
    check_model(&app, function)?;
    let (answer, query_time_ms) =
        run(&app, principal, &target, (query, &wishes, rescoring)).await?;
    let headers = seq_header(answer.seq);
    let explain = wishes.explains().then(|| Explain::of(&answer));
    let rerank_model = answer.plan.reranked.as_ref().map(|plan| plan.model.clone());
    let shown = (wishes.highlights(), wishes.explains());
    let found = |hit| Some(RerankResult::of(hit, shown));
    let Answered { results, groups, total } = Answered::of(answer.hits, wishes.groups(), found);
    let answer = RerankResponse {
        results,
        total_results: total,
        groups,
        query_time_ms,
        rerank_function: function.name(),
        rerank_params: params,
        rerank_model,
        explain,
    };
    Ok((headers, Json(answer)).into_response())
}
