//! What was found, ranked by a model that reads the query and every passage.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use arrwdb_embed::{RerankError, RerankMeter, RerankUsage, Reranker};
use arrwdb_state::{KeywordQuery, Language, LibraryId, Money, TenantId, Used};
use parking_lot::Mutex;

use crate::budgets::BudgetRefusal;
use crate::engine::Inner;
use crate::error::EngineError;
use crate::grouping::{Groups, grouped_hits};
use crate::request::{Hit, Mode, Plan, Query, RerankPlan, Rescored, SearchAnswer, SearchRequest};
use crate::scoring::Scoring;

/// What a model is asked.
#[derive(Debug)]
pub(crate) struct AskedOfModel {
    reranker: Reranker,
    words: String,
    /// How many of the best are wanted.
    k: usize,
    /// How they are grouped, where they are.
    groups: Option<Groups>,
}

impl Inner {
    /// What a model is to be asked of what is found; nothing where none is.
    pub(crate) fn asked_of_model(
        &self,
        request: &SearchRequest,
    ) -> Result<Option<AskedOfModel>, EngineError> {
        let by_model = |by: &Scoring| matches!(by, Scoring::Model);
        if !request.rescoring.as_ref().is_some_and(|rescoring| by_model(&rescoring.by)) {
            return Ok(None);
        }
        let words = words(request)?;
        let chars = words.chars().count();
        if chars > self.config.query_chars_max {
            let most = self.config.query_chars_max;
            let detail = format!("the query has {chars} characters; the limit is {most}");
            return Err(EngineError::Invalid { field: "/query".into(), detail });
        }
        let reranker = self.parts.reranker.clone().ok_or_else(|| RerankError::NotConfigured {
            reason: "no reranking provider is configured".to_owned(),
        })?;
        Ok(Some(AskedOfModel { reranker, words, k: request.k, groups: Groups::of(request) }))
    }

    /// The best of what was found, as the model says, paid for by the library's tenant.
    pub(crate) async fn reranked(
        self: &Arc<Self>,
        (tenant, library): (TenantId, LibraryId),
        asked: AskedOfModel,
        found: SearchAnswer,
    ) -> Result<SearchAnswer, EngineError> {
        let started = Instant::now();
        let AskedOfModel { reranker, words, k, groups } = asked;
        let SearchAnswer { hits, plan, .. } = found;
        let texts: Vec<String> = hits.iter().map(|hit| hit.chunk.text.clone()).collect();
        let passages = texts.len();
        let meter = Arc::new(LibraryMeter {
            engine: self.clone(),
            tenant,
            library,
            provider: reranker.kind().name(),
            model: reranker.model().to_owned(),
            refused: Mutex::new(None),
        });
        let scores = match reranker.rerank(&words, texts, Some(meter.clone())).await {
            Ok(scores) => scores,
            Err(error @ RerankError::NotAllowed) => {
                let refusal = meter.refused.lock().take();
                return Err(refusal.map_or(error.into(), EngineError::BudgetExceeded));
            }
            Err(error) => return Err(error.into()),
        };
        let mut hits: Vec<Hit> =
            hits.into_iter().zip(scores).map(|(hit, score)| scored(hit, score)).collect();
        // Stable: of equal scores the one that was found first.
        hits.sort_by(|a, b| score(b).total_cmp(&score(a)));
        match groups {
            Some(groups) => hits = grouped_hits(hits, groups)?,
            None => hits.truncate(k),
        }
        let took = started.elapsed();
        let (provider, model) = (meter.provider, meter.model.clone());
        let reranked = Some(RerankPlan { provider, model, passages, took });
        Ok(SearchAnswer { hits, plan: Plan { reranked, ..plan }, ..found })
    }
}

/// What a model reads as the query: a text without signs in front of its words, and without what it
/// excludes.
fn words(request: &SearchRequest) -> Result<String, EngineError> {
    let text = match (&request.words, &request.query) {
        (Some(words), _) => words,
        (None, Query::Text(text)) => text,
        (None, Query::Vector(_)) => {
            let detail = "a model ranks by words: give the query as text".to_owned();
            return Err(EngineError::Invalid { field: "/query".into(), detail });
        }
    };
    if text.trim().is_empty() {
        let detail = "the query is blank".to_owned();
        return Err(EngineError::Blank { field: "/query".into(), detail });
    }
    if request.mode == Mode::Vector {
        return Ok(text.clone());
    }
    // One that cannot be read is refused where it is searched for.
    // Signs mean the same in every language.
    let plain = KeywordQuery::read(text, request.operator, Language::None);
    let plain = plain.ok().filter(KeywordQuery::has_clauses);
    let plain = plain.map(|query| query.text).filter(|text| !text.is_empty());
    Ok(plain.unwrap_or_else(|| text.clone()))
}

fn score(hit: &Hit) -> f64 {
    hit.rescored.as_ref().and_then(|it| it.score).unwrap_or(f64::NEG_INFINITY)
}

fn scored(hit: Hit, score: f64) -> Hit {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a score that is answered as it is elsewhere"
    )]
    let shown = score as f32;
    Hit {
        score: shown,
        rescored: Some(Rescored { score: Some(score), breakdown: None, signals: Vec::new() }),
        ..hit
    }
}

/// Counts what one request uses.
struct LibraryMeter {
    engine: Arc<Inner>,
    tenant: TenantId,
    library: LibraryId,
    provider: &'static str,
    model: String,
    refused: Mutex<Option<Box<BudgetRefusal>>>,
}

impl fmt::Debug for LibraryMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LibraryMeter").field("library", &self.library).finish_non_exhaustive()
    }
}

impl RerankMeter for LibraryMeter {
    fn used(&self, usage: RerankUsage) {
        let RerankUsage { passages, tokens, cost } = usage;
        let used = Used {
            texts: passages,
            tokens,
            cost: Money::from_pico(cost.unwrap_or(0)),
            unpriced_tokens: if cost.is_none() { tokens } else { 0 },
            ..Used::default()
        };
        self.engine.pay((self.tenant, self.library), (self.provider, &self.model), &used);
    }

    fn may_call(&self) -> bool {
        let refusal = self.engine.refuses_to_pay(self.tenant, self.library);
        let may = refusal.is_none();
        // Of several parts, one that was refused says why.
        if !may {
            *self.refused.lock() = refusal;
        }
        may
    }
}
