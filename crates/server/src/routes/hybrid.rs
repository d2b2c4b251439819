//! Hybrid search: vectors (and keywords, where asked for) weighed with what metadata says.

use std::collections::BTreeMap;

use arrwdb_engine::state::DocumentId;
use arrwdb_engine::{Breakdown, Fusion, Hit, HybridScoring, Mode, Query, Rescoring, Scoring};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::{ChunkAnswer, Explain, SignalsAnswer, as_text};
use super::groups::{Answered, Group};
use super::hybrid_requests::{HybridSearchBody, ScoringWishes};
use super::keyword_requests::FUSIONS;
use super::rescored::{Asked, plain, run};
use super::search::Target;
use super::search_requests::Wishes;
use super::seq_header;
use crate::app::App;
use crate::extract::{WholeBody, read_json};
use crate::openapi::{EmbeddingErrors, ReadErrors};
use crate::principal::Principal;
use crate::problem::Problem;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(search_hybrid))
}

/// The passages found, best first, and how they were scored.
#[derive(Debug, Serialize, ToSchema)]
struct HybridResponse {
    results: Vec<HybridResult>,
    /// Milliseconds, two decimals.
    #[schema(example = 3.21)]
    query_time_ms: f64,
    /// Passages, those of groups included.
    total_results: usize,
    /// The documents found, the one of the best passage first, where passages were to be grouped by
    /// them; `results` is empty then.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<Group<HybridResult>>>,
    scoring_config: ScoringConfig,
    /// How they were found, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<Explain>,
}

/// One passage found.
#[derive(Debug, Serialize, ToSchema)]
struct HybridResult {
    chunk: ChunkAnswer,
    /// What it is ranked by: `hybrid_score`.
    #[schema(example = 0.71)]
    score: f64,
    score_breakdown: ScoreBreakdown,
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

/// How a score came about.
#[derive(Debug, Serialize, ToSchema)]
struct ScoreBreakdown {
    /// What the distance is worth, 0 to 1: `1 - distance / 2`, of L2 `1 / (1 + distance)`.
    #[schema(example = 0.883)]
    vector_score: f64,
    /// By the library's metric.
    #[schema(example = 0.234)]
    vector_distance: f32,
    /// The mean of what is enabled of recency and fields, 0 to 1; 0 where nothing is.
    #[schema(example = 0.5)]
    metadata_score: f64,
    /// `vector_weight * vector_score + metadata_weight * metadata_score`, with `fused_score` in place of
    /// `vector_score` where there is one.
    #[schema(example = 0.71)]
    hybrid_score: f64,
    #[schema(example = 0.7)]
    vector_weight: f64,
    #[schema(example = 0.3)]
    metadata_weight: f64,
    /// `2 ^ -(age in whole days / half life)`; null where recency does not count.
    recency_boost: Option<f64>,
    /// Of each boosted field its boost times how well it matches; null without any.
    #[schema(value_type = Option<Object>, example = json!({"title": 1.5}))]
    field_boost: Option<BTreeMap<String, f64>>,
    /// BM25 of the query's words, 0 if it has none of them; only where keywords take part.
    #[serde(skip_serializing_if = "Option::is_none")]
    keyword_score: Option<f32>,
    /// What the rankings by vectors and by keywords come to; only where keywords take part.
    #[serde(skip_serializing_if = "Option::is_none")]
    fused_score: Option<f64>,
}

impl ScoreBreakdown {
    fn of(breakdown: Breakdown, weights: (f64, f64)) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "they were f32 before they were weighed"
        )]
        let short = |number: f64| number as f32;
        Self {
            vector_score: breakdown.vector_score,
            vector_distance: short(breakdown.vector_distance),
            metadata_score: breakdown.metadata_score,
            hybrid_score: breakdown.hybrid_score,
            vector_weight: weights.0,
            metadata_weight: weights.1,
            recency_boost: breakdown.recency,
            field_boost: breakdown.fields,
            keyword_score: breakdown.keyword_score.map(short),
            fused_score: breakdown.fused_score,
        }
    }
}

impl HybridResult {
    fn of(hit: Hit, weights: (f64, f64), (highlights, explains): (bool, bool)) -> Option<Self> {
        let signals = explains.then(|| SignalsAnswer::of(&hit));
        let rescored = hit.rescored?;
        Some(Self {
            chunk: ChunkAnswer::of(hit.chunk, hit.chunk_index, hit.document_id),
            score: rescored.score?,
            score_breakdown: ScoreBreakdown::of(*rescored.breakdown?, weights),
            document_id: hit.document_id,
            document_title: hit.document_title,
            highlights: highlights.then_some(hit.highlights),
            signals,
        })
    }
}

/// How scores were made.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct ScoringConfig {
    #[schema(example = 0.7)]
    vector_weight: f64,
    #[schema(example = 0.3)]
    metadata_weight: f64,
    /// Whether recency counts.
    recency_boost: bool,
    /// The same.
    recency_boost_enabled: bool,
    /// Days after which a passage is half as recent.
    #[schema(value_type = f64, example = 30)]
    recency_half_life_days: Value,
    /// How much each field counts; null without any.
    #[schema(value_type = Option<Object>, example = json!({"title": 2.0}))]
    field_boosts: Option<BTreeMap<String, f64>>,
    /// Whether a score fused by ranks is stretched to at most 1.
    normalize_scores: bool,
    /// How vectors and keywords were fused, where they were.
    #[schema(example = "rrf")]
    #[serde(skip_serializing_if = "Option::is_none")]
    fusion: Option<&'static str>,
    /// How much vectors weighed then.
    #[schema(example = 0.5)]
    #[serde(skip_serializing_if = "Option::is_none")]
    alpha: Option<f64>,
}

impl ScoringConfig {
    fn of(scoring: &HybridScoring, half_life_days: f64, fused: Option<(Fusion, f64)>) -> Self {
        let recency = scoring.half_life_days.is_some();
        let boosts = &scoring.field_boosts;
        let name = |fusion: Fusion| FUSIONS.iter().find(|(_name, known)| *known == fusion);
        Self {
            vector_weight: scoring.vector_weight,
            metadata_weight: scoring.metadata_weight,
            recency_boost: recency,
            recency_boost_enabled: recency,
            recency_half_life_days: plain(half_life_days),
            field_boosts: (!boosts.is_empty()).then(|| boosts.clone()),
            normalize_scores: scoring.normalize,
            fusion: fused.and_then(|(fusion, _alpha)| name(fusion)).map(|(name, _fusion)| *name),
            alpha: fused.map(|(_fusion, alpha)| alpha),
        }
    }
}

/// What a body asks for.
struct Wanted {
    query: Query,
    wishes: Wishes,
    rescoring: Rescoring,
    config: ScoringConfig,
}

fn wanted(app: &App, body: &[u8]) -> Result<Wanted, Problem> {
    let (asked, scoring) = read_json(body, |r| {
        let (mut asked, mut scoring) = (Asked::default(), ScoringWishes::default());
        r.object(|r, key| if scoring.read(r, key)? { Ok(()) } else { asked.read(r, key, app) })?;
        asked.require(r);
        scoring.check(r);
        Ok((asked, scoring))
    })?;
    let half_life_days = scoring.half_life_days();
    let scoring = scoring.scoring(asked.words());
    let fused = asked.wishes.fused();
    let config = ScoringConfig::of(&scoring, half_life_days, fused);
    let (query, wishes, rescoring) = asked.finish(Scoring::Hybrid(Box::new(scoring)));
    let wishes = if fused.is_some() { wishes.in_mode(Mode::Hybrid) } else { wishes };
    Ok(Wanted { query, wishes, rescoring, config })
}

/// Searches by vectors and by metadata, weighed: `score` is `vector_weight` times how near a passage is
/// and `metadata_weight` times how new it is and how well its boosted fields match. With a `fusion`,
/// keywords take part too. See `docs/hybrid-and-reranking.md`.
#[utoipa::path(post, operation_id = "search_hybrid", path = "/libraries/{library_id}/search/hybrid", tag = "search",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("include_embeddings" = Option<bool>, Query, description = "Whether hits carry their vectors [false]"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
        ("as_of" = Option<u64>, Query, description = "Read what was there after this write, as far back as history is kept"),
    ),
    request_body = HybridSearchBody,
    responses((status = 200, description = "The best passages", body = HybridResponse), ReadErrors, EmbeddingErrors))]
async fn search_hybrid(
    principal: Principal,
    State(app): State<App>,
    target: Target,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let Wanted { query, wishes, rescoring, config } = wanted(&app, &body)?;
    let (answer, query_time_ms) =
        run(&app, principal, &target, (query, &wishes, rescoring)).await?;
    let headers = seq_header(answer.seq);
    let explain = wishes.explains().then(|| Explain::of(&answer));
    let shown = (wishes.highlights(), wishes.explains());
    let weights = (config.vector_weight, config.metadata_weight);
    let found = |hit| HybridResult::of(hit, weights, shown);
    let Answered { results, groups, total } = Answered::of(answer.hits, wishes.groups(), found);
    let answer = HybridResponse {
        results,
        query_time_ms,
        total_results: total,
        groups,
        scoring_config: config,
        explain,
    };
    Ok((headers, Json(answer)).into_response())
}
