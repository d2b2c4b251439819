//! The read path: embed the query, load the view once, search on the CPU pool.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrwdb_embed::{InputType, ModelSpec};
use arrwdb_state::limits::{K_MAX, K_STREAM_MAX};
use arrwdb_state::{
    Executor, KeywordQuery, Language, LibraryId, LibrarySpec, Metric, Nearest, Sequential,
    TenantId, Timestamp, View,
};
use arrwdb_state::{check_norm, normalized};

use tokio::sync::OwnedSemaphorePermit;

use crate::calibrating::check_recall;
use crate::engine::Inner;
use crate::error::{EngineError, RETRY_AFTER};
use crate::grouping::{Groups, check_grouping};
use crate::moment::Moment;
use crate::ranking::{Ranking, Wanted, find};
use crate::request::{Mode, Plan, Query, SearchAnswer, SearchRequest};
use crate::rescoring::Anew;
use crate::scoring::Scoring;
use crate::snapshot::Snapshot;

/// Libraries of fewer bytes of vectors are searched on the calling thread: handing the work over
/// would take longer than the work.
const INLINE_BYTES_MAX: u64 = 512 << 10;

/// A search that may begin.
struct Begun {
    ranking: Ranking,
    /// Empty where only words are asked for.
    query: Vec<f32>,
    snapshot: Snapshot,
    /// How long it took to make the query a vector.
    embedding: Duration,
    /// Room for one search, until it is done.
    permit: OwnedSemaphorePermit,
}

impl Inner {
    pub(crate) async fn search(
        self: &Arc<Self>,
        tenant: TenantId,
        library: LibraryId,
        request: SearchRequest,
        at: Moment,
    ) -> Result<SearchAnswer, EngineError> {
        let Some(asked) = self.asked_of_model(&request)? else {
            return self.found(tenant, library, request, at).await;
        };
        let found = self.found(tenant, library, request, at).await?;
        // Nobody waits for a thread any more, however long the model takes.
        self.reranked((tenant, library), asked, found).await
    }

    async fn found(
        self: &Arc<Self>,
        tenant: TenantId,
        library: LibraryId,
        request: SearchRequest,
        at: Moment,
    ) -> Result<SearchAnswer, EngineError> {
        let Begun { ranking, query, snapshot, embedding, permit } =
            self.begin((tenant, library), &request, at).await?;
        let (page, mode) = (request.page.clone(), request.mode);
        let groups = Groups::of(&request);
        let found = depth_of(&request, groups);
        let recall = request.recall.map(|wanted| self.effort_for(&snapshot, found, wanted));
        let tuning = recall.map_or(request.tuning, |plan| plan.tuning);
        let Snapshot { spec, view, seq, .. } = snapshot;
        let language = spec.language;
        let now = self.parts.clock.now();
        let inline = is_quick(&request, &view);
        let (index, derived, model) = (spec.index, view.derived_bytes(), spec.model.clone());
        let search = move |view: &View, executor: &dyn Executor| {
            // Kept until the work has ended, whether or not its caller is still there.
            let _permit = permit;
            let wanted = Wanted {
                ranking: &ranking,
                nearest: Nearest {
                    query: &query,
                    metric: spec.metric,
                    index: spec.index,
                    tuning,
                    k: found,
                    threshold: request.distance_threshold,
                    among: None,
                },
                filter: &request.filter,
                vectors: request.include_embeddings,
                highlight: request.highlight.as_ref(),
                anew: anew(&request, now),
                facets: &request.facets,
                groups,
                page: request.page.as_ref().map(|page| (page, request.k)),
                count: request.count,
            };
            find(view, &wanted, executor)
        };
        let (hits, plan) = if inline {
            search(&view, &Sequential)?
        } else {
            let view = view.clone();
            self.pool.read(move |executor: &dyn Executor| search(&view, executor)).await??
        };
        self.weigh_again((tenant, library), &view, derived).await?;
        let next = page.filter(|_page| plan.more).map(|page| page.next(&hits, (mode, language)));
        Ok(SearchAnswer { hits, seq, index, model, next, plan: Plan { recall, embedding, ..plan } })
    }

    /// What a search asks for, of the library as it is once the query is a vector, which may take a while.
    async fn begin(
        self: &Arc<Self>,
        (tenant, library): (TenantId, LibraryId),
        request: &SearchRequest,
        at: Moment,
    ) -> Result<Begun, EngineError> {
        let started = Instant::now();
        let mut spec = self.spec(tenant, library, at.reached()).await?;
        check(request, spec.metric)?;
        let mut ranking = ranking_of(request, spec.language)?;
        let asked = query_of(request, &ranking);
        let mut query = self.vector_of(&spec, asked.clone()).await?;
        let embedding = started.elapsed();
        let permit = self.search_permit()?;
        // The view is loaded after the query is embedded, so that it is as fresh as can be.
        let mut snapshot = self.snapshot(tenant, library, at).await?;
        // Where another model took over meanwhile, the query is one of that model.
        while (&snapshot.spec.model, snapshot.spec.dimension) != (&spec.model, spec.dimension) {
            spec = snapshot.spec;
            query = self.vector_of(&spec, asked.clone()).await?;
            snapshot = self.snapshot(tenant, library, at).await?;
        }
        // A search is of one language, that of the library at this moment, whatever it becomes.
        let language = snapshot.spec.language;
        if language != ranking.language().unwrap_or(language) {
            ranking = ranking_of(request, language)?;
        }
        check_language(request, language)?;
        Ok(Begun { ranking, query, snapshot, embedding, permit })
    }

    /// The query as a vector; nothing for a search by keywords alone, which needs no model.
    async fn vector_of(
        self: &Arc<Self>,
        spec: &Arc<LibrarySpec>,
        query: Option<Query>,
    ) -> Result<Vec<f32>, EngineError> {
        match query {
            Some(query) => self.query_numbers(spec, query).await,
            None => Ok(Vec::new()),
        }
    }

    /// Has a library's memory counted anew where reading this view of it made something: columns,
    /// postings. `derived` is what it had of that before.
    pub(crate) async fn weigh_again(
        self: &Arc<Self>,
        (tenant, library): (TenantId, LibraryId),
        view: &View,
        derived: u64,
    ) -> Result<(), EngineError> {
        if view.derived_bytes() != derived {
            let (_spec, handle, _since) = self.placed(tenant, library, None).await?;
            handle.weigh_again();
        }
        Ok(())
    }

    /// Room among what is searched and filtered at a time.
    pub(crate) fn search_permit(&self) -> Result<OwnedSemaphorePermit, EngineError> {
        let full = |_full| EngineError::Busy { what: "the search queue", retry_after: RETRY_AFTER };
        self.search_permits.clone().try_acquire_owned().map_err(full)
    }

    /// The query as a vector of the library's dimension, a unit vector for cosine.
    pub(crate) async fn query_numbers(
        self: &Arc<Self>,
        spec: &Arc<LibrarySpec>,
        query: Query,
    ) -> Result<Vec<f32>, EngineError> {
        let (vector, field) = match query {
            Query::Vector(vector) => (vector, "/embedding"),
            Query::Text(text) => (self.embedded(spec, text).await?, "/query"),
        };
        if vector.len() != spec.dimension as usize {
            return Err(EngineError::Vector {
                field: field.into(),
                detail: format!(
                    "Query embedding invalid: Vector dimension mismatch: expected {}, got {}",
                    spec.dimension,
                    vector.len()
                ),
            });
        }
        let checked = check_norm(spec.metric, &vector).and_then(|()| normalized(&vector));
        let (unit, _inverse_norm) = checked.map_err(|error| EngineError::Vector {
            field: field.into(),
            detail: format!("Query embedding invalid: {error}"),
        })?;
        Ok(if spec.metric == Metric::Cosine { unit } else { vector })
    }
}

impl Inner {
    /// The vector of a query's text, as the library's model gives it.
    pub(crate) async fn embedded(
        self: &Arc<Self>,
        spec: &LibrarySpec,
        text: String,
    ) -> Result<Vec<f32>, EngineError> {
        let chars = text.chars().count();
        if chars > self.config.query_chars_max {
            return Err(EngineError::Invalid {
                field: "/query".into(),
                detail: format!(
                    "the query has {chars} characters; the limit is {}",
                    self.config.query_chars_max
                ),
            });
        }
        if text.trim().is_empty() {
            return Err(EngineError::Blank {
                field: "/query".into(),
                detail: "the query is blank".into(),
            });
        }
        self.embed_texts(spec, "/query", (InputType::Query, vec![text])).await
    }
}

/// How many passages are looked for.
fn depth_of(request: &SearchRequest, groups: Option<Groups>) -> usize {
    match (&request.rescoring, groups) {
        // Groups take more passages than there are documents.
        (Some(rescoring), Some(groups)) if rescoring.candidates.is_none() => {
            rescoring.pool(groups.k.saturating_mul(groups.size))
        }
        (Some(rescoring), _) => rescoring.pool(request.k),
        (None, Some(groups)) => groups.depth(),
        (None, None) => {
            let before = request.page.as_ref().map_or(0, |page| page.offset);
            before.saturating_add(request.k)
        }
    }
}

/// How they are scored anew, where that is asked for: all of them, where they are grouped afterwards.
fn anew(request: &SearchRequest, now: Timestamp) -> Option<Anew<'_>> {
    let rescoring = request.rescoring.as_ref()?;
    let k = if request.grouping.is_some() { usize::MAX } else { request.k };
    Some(Anew { rescoring, k, now })
}

/// The model that embeds a library's texts; an error naming `field` if there is none.
pub(crate) fn model_of(spec: &LibrarySpec, field: &str) -> Result<ModelSpec, EngineError> {
    let provider = spec.model.provider.parse().map_err(|_none| EngineError::Invalid {
        field: field.into(),
        detail: format!(
            "library {} takes vectors only: no embedding model has its {} dimensions",
            spec.id, spec.dimension
        ),
    })?;
    Ok(ModelSpec { provider, model: spec.model.model.clone(), dimension: spec.dimension })
}

/// Whether a search takes less time than handing it over would.
fn is_quick(request: &SearchRequest, view: &View) -> bool {
    let bytes = view.rows().saturating_mul(u64::from(view.dimension()) * 4);
    // The first filter, facet or keyword reads what may be many documents.
    let plain = request.mode == Mode::Vector
        && request.filter.is_empty()
        && request.facets.is_empty()
        && request.rescoring.is_none()
        && request.grouping.is_none();
    plain && bytes <= INLINE_BYTES_MAX && depth_of(request, None) <= K_MAX
}

/// Refuses pages of what is put together anew from all that is found.
fn check_page(request: &SearchRequest) -> Result<(), EngineError> {
    let detail = match (&request.page, &request.rescoring, request.grouping) {
        (None, ..) | (Some(_), None, None) => return Ok(()),
        (Some(_), Some(_), _) => "pages are of what is found, not of what is scored anew",
        (Some(_), None, Some(_)) => "pages are of passages, not of groups of them",
    };
    Err(EngineError::Invalid { field: "/cursor".into(), detail: detail.into() })
}

/// Refuses a page of what words find behind pages of what they found in another language.
fn check_language(request: &SearchRequest, language: Language) -> Result<(), EngineError> {
    let before = request.page.as_ref().filter(|page| page.last.is_some());
    let Some(before) = before.filter(|page| page.language != language) else { return Ok(()) };
    if request.mode == Mode::Vector {
        return Ok(());
    }
    let detail = format!(
        "is of pages of a search in language {}, and the library's is {language} now: begin again \
         with \"*\"",
        before.language
    );
    Err(EngineError::Invalid { field: "/cursor".into(), detail })
}

/// What passages are found by, in a library of this language.
fn ranking_of(request: &SearchRequest, language: Language) -> Result<Ranking, EngineError> {
    if request.mode == Mode::Vector {
        return Ok(Ranking::Vector);
    }
    let text = match (&request.words, &request.query) {
        (Some(words), _) => words,
        (None, Query::Text(text)) => text,
        (None, Query::Vector(_)) => {
            let detail = "a search by keywords needs words: give the query as text".to_owned();
            return Err(EngineError::Invalid { field: "/query".into(), detail });
        }
    };
    if text.trim().is_empty() {
        let detail = "the query is blank".to_owned();
        return Err(EngineError::Blank { field: "/query".into(), detail });
    }
    let words = KeywordQuery::read(text, request.operator, language);
    let words = words.map_err(|error| EngineError::Invalid {
        field: "/query".into(),
        detail: error.to_string(),
    })?;
    Ok(match request.mode {
        Mode::Vector | Mode::Keyword => Ranking::Keyword(words),
        Mode::Hybrid => {
            let alpha = request.alpha.unwrap_or_else(|| request.fusion.usual_alpha());
            Ranking::Hybrid(words, request.fusion, alpha)
        }
    })
}

/// What becomes a vector: a text without signs in front of its words, and without what it excludes.
fn query_of(request: &SearchRequest, ranking: &Ranking) -> Option<Query> {
    match (ranking, &request.query) {
        (Ranking::Keyword(_), _) => None,
        (Ranking::Hybrid(words, ..), Query::Text(_))
            if words.has_clauses() && !words.text.is_empty() =>
        {
            Some(Query::Text(words.text.clone()))
        }
        (Ranking::Vector | Ranking::Hybrid(..), query) => Some(query.clone()),
    }
}

/// Refuses what has no meaning in a search by keywords alone.
fn check_mode(request: &SearchRequest) -> Result<(), EngineError> {
    let invalid =
        |field: &str, detail: String| Err(EngineError::Invalid { field: field.into(), detail });
    if let Some(alpha) = request.alpha.filter(|alpha| !(0.0..=1.0).contains(alpha)) {
        return invalid("/alpha", format!("alpha is {alpha}; it has to be 0 to 1"));
    }
    if request.mode != Mode::Keyword {
        return Ok(());
    }
    let of_vectors = "is of vectors, which a search by keywords does not look at: leave it out, or \
                      search with mode hybrid";
    if request.distance_threshold.is_some() {
        return invalid("/distance_threshold", format!("the distance threshold {of_vectors}"));
    }
    if request.recall.is_some() {
        return invalid("/recall", format!("the recall {of_vectors}"));
    }
    let tuning = request.tuning;
    let efforts = [
        ("/ef_search", tuning.ef_search.is_some()),
        ("/nprobe", tuning.nprobe.is_some()),
        ("/exact", tuning.exact),
    ];
    efforts
        .into_iter()
        .find(|(_field, given)| *given)
        .map_or(Ok(()), |(field, _given)| invalid(field, format!("the effort {of_vectors}")))
}

/// Refuses to score anew by vectors what was found without them.
fn check_rescoring(request: &SearchRequest) -> Result<(), EngineError> {
    let Some(rescoring) = &request.rescoring else { return Ok(()) };
    let by_vectors = matches!(rescoring.by, Scoring::Hybrid(_) | Scoring::Diverse { .. });
    if by_vectors && request.mode == Mode::Keyword {
        return Err(EngineError::Invalid {
            field: "/mode".into(),
            detail:
                "these scores are of vectors, which a search by keywords does not look at: let the \
                     mode be vector or hybrid"
                    .into(),
        });
    }
    rescoring.check(request.k)
}

fn check(request: &SearchRequest, metric: Metric) -> Result<(), EngineError> {
    if !(1..=K_STREAM_MAX).contains(&request.k) {
        return Err(EngineError::Invalid {
            field: "/k".into(),
            detail: format!("k is {}; it has to be 1 to {K_STREAM_MAX}", request.k),
        });
    }
    check_mode(request)?;
    check_rescoring(request)?;
    check_grouping(request)?;
    check_page(request)?;
    check_recall(request)?;
    request.distance_threshold.map_or(Ok(()), |threshold| check_threshold(threshold, metric))
}

/// Refuses a threshold that no distance of the metric has.
pub(crate) fn check_threshold(threshold: f32, metric: Metric) -> Result<(), EngineError> {
    let (allowed, range) = match metric {
        Metric::Cosine => ((0.0..=2.0).contains(&threshold), "0 to 2"),
        Metric::Dot => (threshold.is_finite(), "a finite number"),
        Metric::L2 => (threshold.is_finite() && threshold >= 0.0, "a finite number from 0"),
    };
    if allowed {
        return Ok(());
    }
    Err(EngineError::Invalid {
        field: "/distance_threshold".into(),
        detail: format!("the distance threshold is {threshold}; it has to be {range}"),
    })
}
