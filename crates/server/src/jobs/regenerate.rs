//! `regenerate_embeddings`: vectors of another model are made beside those that a library has, and
//! compared. What is written meanwhile is carried by [`arrwdb_feed::Mirror`]; here it is what was
//! there before. Which documents are there already is what the other generation has: a job that was
//! interrupted goes on with those that it lacks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrwdb_engine::embed::EmbedError;
use arrwdb_engine::state::{
    DocumentId, Job, JobOutcome, JobState, LibraryId, Stage, TenantId, Timestamp,
};
use arrwdb_engine::{
    Carried, CarryPair, Comparison, Engine, EngineError, LibraryEmbeddings, Load, ModelVectors,
    NewGeneration, Tally,
};
use arrwdb_feed::{Halt, JobRun, Performed};
use serde_json::{Value, json};

use super::{LATER, Performer, Unable, library_of};
use crate::routes::{busy_for, rfc3339};

/// Documents that are looked at at a time: one unit.
const UNIT_DOCUMENTS: usize = 100;
/// How long is waited for what is written meanwhile, before the job says that it waits.
const CATCH_UP_MAX: Duration = Duration::from_mins(1);
/// How long is waited for what passes, before the job is put off and begins to look anew.
const BUSY_WAIT_MAX: Duration = Duration::from_mins(10);
/// How long is waited for what does not say how long.
const BUSY_WAIT: Duration = Duration::from_secs(2);
/// Documents that the model refused which are named in the result.
const REFUSED_NAMED_MAX: usize = 100;
/// Passages by which models are compared.
const COMPARED_PASSAGES: u64 = 100;
/// How many of the nearest are compared.
const COMPARED_K: usize = 10;

/// What a job was asked for.
#[derive(serde::Deserialize)]
struct Parameters {
    embedding_model: Option<String>,
    embedding_provider: Option<String>,
    embedding_dimension: Option<u32>,
    #[serde(default)]
    queries: Vec<String>,
}

/// What a job did.
#[derive(Default)]
struct Filled {
    /// What the passages that are there took, whichever run of the job made them.
    carried: Carried,
    /// Documents of which the model did not take a text, and why, some of them; and how many in all.
    refused: (Vec<(DocumentId, String)>, u64),
}

/// What a job uses of providers: what this process has seen of it, from then on.
#[derive(Debug, Clone)]
pub(super) struct Spent {
    tally: Arc<Tally>,
    since: Timestamp,
}

impl Spent {
    /// With what was made and in which time, if that is known.
    fn shown(&self, made: Option<(&Carried, f64)>) -> Value {
        let used = self.tally.used();
        let mut cost = json!({
            "tokens": used.tokens,
            "cost_usd": used.cost.dollars(),
            "priced": used.unpriced_tokens == 0,
            "unpriced_tokens": used.unpriced_tokens,
            "texts_embedded": used.texts,
            "texts_cached": used.cached_texts,
            // A job that went on after a restart has used more before.
            "tokens_since": rfc3339(self.since),
        });
        if let (Some((carried, seconds)), Value::Object(cost)) = (made, &mut cost) {
            cost.insert("texts".to_owned(), carried.chunks.into());
            cost.insert("characters".to_owned(), carried.characters.into());
            cost.insert("seconds".to_owned(), seconds.into());
        }
        cost
    }
}

/// The vectors that a job makes.
enum Made {
    /// They are on their way.
    Here(CarryPair),
    /// They are searched already: somebody activated them when they were prepared.
    Active,
}

impl Performer {
    pub(super) async fn regenerate(&self, run: &JobRun) -> Result<Performed, Unable> {
        let parameters: Parameters = serde_json::from_str(&run.job().spec.parameters)
            .map_err(|error| Unable::Failed(format!("its parameters do not read: {error}")))?;
        let (engine, tenant, library) = (run.engine(), run.head().tenant, library_of(run)?);
        let spent = self.spent(run);
        let done = self.make(run, (tenant, library), (parameters, &spent)).await;
        // What it used is paid for, whatever came of it.
        let result = json!({"library_id": library.to_string(), "cost": spent.shown(None)});
        let result = Some(result.to_string());
        match done {
            Err(Unable::Halted(Halt::Cancelled)) => {
                discard(engine, (tenant, library), &run.head().id.to_string()).await?;
                Ok(Performed::Cancelled(result))
            }
            Err(Unable::Failed(error) | Unable::Refused(error)) => {
                Ok(Performed::Failed { error, result })
            }
            Err(Unable::Again(error)) => Ok(Performed::Again { error, result }),
            Err(Unable::Later(error, after)) => Ok(Performed::Later { error, after, result }),
            other => other,
        }
    }

    /// What a job has used since this process took it.
    fn spent(&self, run: &JobRun) -> Spent {
        let now = run.engine().now();
        let first = || Spent { tally: Arc::default(), since: now };
        self.spent.lock().entry(run.head().id).or_insert_with(first).clone()
    }

    async fn make(
        &self,
        run: &JobRun,
        (tenant, library): (TenantId, LibraryId),
        (parameters, spent): (Parameters, &Spent),
    ) -> Result<Performed, Unable> {
        run.check()?;
        let engine = run.engine();
        let queries = parameters.queries.clone();
        let pair = match begin(run, (tenant, library), parameters).await? {
            Made::Here(pair) => pair,
            Made::Active => {
                let now = engine.embeddings(tenant, library, None).await?;
                let result = result(run, &now, &now.active, (&Filled::default(), None, spent));
                return Ok(Performed::Completed(result.to_string()));
            }
        };
        let filled = fill(run, (tenant, library), (&pair, spent)).await?;
        tokio::select! {
            caught_up = caught_up(engine, &pair) => caught_up?,
            halt = run.halted() => return Err(halt.into()),
        }
        let samples = (COMPARED_PASSAGES, COMPARED_K);
        let compared = engine.compare_generations(&pair, samples, queries, &spent.tally);
        let compared = tokio::select! {
            compared = compared => compared?,
            halt = run.halted() => return Err(halt.into()),
        };
        let now = engine.embeddings(tenant, library, None).await?;
        let other = now.other.as_ref().filter(|other| other.vectors.generation == pair.to);
        let other = other.ok_or_else(discarded)?;
        let result = result(run, &now, &other.vectors, (&filled, Some(&compared), spent));
        if other.stage == Stage::Building {
            engine.prepare_generation(tenant, &pair).await?;
        }
        Ok(Performed::Completed(result.to_string()))
    }
}

/// What is left of a job that did not come to its end goes with it.
pub(super) fn over(engine: &Engine, job: &Job) {
    let head = job.spec.head;
    let JobState::Finished { end, .. } = &job.state else { return };
    let (Some(library), true) = (head.library, end.outcome != JobOutcome::Completed) else {
        return;
    };
    let engine = engine.clone();
    tokio::spawn(async move {
        let discarded = discard(&engine, (head.tenant, library), &head.id.to_string()).await;
        if let Err(error) = discarded {
            tracing::warn!(job = %head.id, %library, %error, "the vectors that it made are left");
        }
    });
}

/// Removes what a job has made so far, unless it is whole.
async fn discard(
    engine: &Engine,
    (tenant, library): (TenantId, LibraryId),
    job: &str,
) -> Result<(), EngineError> {
    let now = match engine.embeddings(tenant, library, None).await {
        // It goes with its library.
        Err(EngineError::LibraryNotFound(_)) => return Ok(()),
        now => now?,
    };
    let Some(other) = now.other.filter(|other| other.stage == Stage::Building) else {
        return Ok(());
    };
    if other.vectors.made_by.as_deref() != Some(job) {
        return Ok(());
    }
    let generation = Some(other.vectors.generation);
    match engine.discard_generation(tenant, library, generation).await {
        // Somebody else did that.
        Err(EngineError::Generation(_) | EngineError::LibraryNotFound(_)) => Ok(()),
        other => other.map(drop),
    }
}

/// Waits until what was written meanwhile is carried as well; not for ever, as nobody may carry.
async fn caught_up(engine: &Engine, pair: &CarryPair) -> Result<(), Unable> {
    let Ok(caught_up) = tokio::time::timeout(CATCH_UP_MAX, engine.caught_up(pair)).await else {
        let why = engine.carrying_error(pair);
        let why = why.map_or(String::new(), |why| format!(": {why}"));
        let text = format!("what was written meanwhile has no vectors of the model yet{why}");
        return Err(Unable::Later(text, LATER));
    };
    Ok(caught_up?)
}

fn discarded() -> Unable {
    Unable::Failed("the vectors that it made were discarded meanwhile".to_owned())
}

/// Finds what the job has made so far, or begins.
async fn begin(
    run: &JobRun,
    (tenant, library): (TenantId, LibraryId),
    parameters: Parameters,
) -> Result<Made, Unable> {
    let (engine, made_by) = (run.engine(), run.head().id.to_string());
    let now = engine.embeddings(tenant, library, None).await?;
    let mine = |vectors: &ModelVectors| vectors.made_by.as_deref() == Some(&*made_by);
    if mine(&now.active) {
        return Ok(Made::Active);
    }
    if now.other.is_some_and(|other| mine(&other.vectors)) {
        return engine.carry_pair(library).map(Made::Here).ok_or_else(discarded);
    }
    if run.is_resumed() && run.progress().total.is_some() {
        return Err(discarded());
    }
    let new = NewGeneration {
        embedding_provider: parameters.embedding_provider,
        embedding_model: parameters.embedding_model,
        embedding_dimension: parameters.embedding_dimension,
        made_by,
    };
    Ok(Made::Here(engine.begin_generation(tenant, library, &new).await?.value))
}

/// Carries every document that the other generation lacks, except those that the model refuses: they
/// are carried when they are changed.
async fn fill(
    run: &JobRun,
    (tenant, library): (TenantId, LibraryId),
    (pair, spent): (&CarryPair, &Spent),
) -> Result<Filled, Unable> {
    let engine = run.engine();
    let documents = engine.embeddings(tenant, library, None).await?.active.documents;
    let mut progress = run.progress();
    // What is there already is looked at again.
    (progress.current, progress.chunks, progress.total) = (0, 0, Some(documents));
    progress.failed = 0;
    let (mut cursor, mut filled) = (None, Filled::default());
    loop {
        run.check()?;
        run.advance(progress).await;
        let unit = engine.uncarried(pair, (cursor, UNIT_DOCUMENTS)).await?;
        let load = Load::of(unit.missing).told_to(&spent.tally);
        let load = carry_unit(run, pair, (load, &mut progress.current)).await?;
        for carried in [unit.there, load.carried] {
            filled.carried.documents += carried.documents;
            filled.carried.chunks += carried.chunks;
            filled.carried.characters += carried.characters;
        }
        for (id, error) in load.refused {
            filled.refused.1 += 1;
            if filled.refused.0.len() < REFUSED_NAMED_MAX {
                filled.refused.0.push((id, error.to_string()));
            }
        }
        progress.failed = filled.refused.1;
        progress.current += unit.seen.0;
        progress.chunks += unit.seen.1;
        // Some were added since.
        progress.total = progress.total.map(|total| total.max(progress.current));
        cursor = unit.next;
        if cursor.is_none() {
            progress.total = Some(progress.current);
            run.advance(progress).await;
            return Ok(filled);
        }
    }
}

/// Carries some documents; waits where it is for what passes, so that nothing is looked at again.
async fn carry_unit(
    run: &JobRun,
    pair: &CarryPair,
    (mut load, done): (Load, &mut u64),
) -> Result<Load, Unable> {
    let mut since = (Instant::now(), load.left.len());
    loop {
        let carried = tokio::select! {
            carried = run.engine().carry(pair, &mut load) => carried,
            halt = run.halted() => return Err(halt.into()),
        };
        let Err(error) = carried else { return Ok(load) };
        if load.left.len() < since.1 {
            since = (Instant::now(), load.left.len());
        }
        let anything = *done > 0 || load.carried.documents > 0;
        let Some(wait) = passes(&error, anything) else { return Err(error.into()) };
        if since.0.elapsed() + wait > BUSY_WAIT_MAX {
            // What is made is not thrown away for that.
            let unable = error.into();
            let (Unable::Again(text) | Unable::Refused(text)) = unable else { return Err(unable) };
            return Err(Unable::Later(text, LATER));
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            halt = run.halted() => return Err(halt.into()),
        }
    }
}

/// How long is to be waited for what passes; `None` if it does not. Where something was carried
/// already, the model can be used, and whatever is wrong with it will be mended.
fn passes(error: &EngineError, anything: bool) -> Option<Duration> {
    let model = |error: &EmbedError| {
        let passing = EmbedError::Closed != *error && anything;
        let down = matches!(
            error,
            EmbedError::Deadline { .. } | EmbedError::Provider { status: None, .. }
        );
        passing || down
    };
    let waits = if let EngineError::Embedding(error) = error {
        model(error)
    } else {
        matches!(error, EngineError::DiskFull { .. })
    };
    busy_for(error).or_else(|| waits.then_some(BUSY_WAIT))
}

fn result(
    run: &JobRun,
    now: &LibraryEmbeddings,
    made: &ModelVectors,
    (filled, compared, spent): (&Filled, Option<&Comparison>, &Spent),
) -> Value {
    let since = run.job().started_at.unwrap_or(run.job().spec.submitted_at);
    let micros = run.engine().now().micros().saturating_sub(since.micros()).max(0);
    #[expect(clippy::cast_precision_loss, reason = "seconds with two decimals")]
    let seconds = (micros as f64 / 10_000.0).round() / 100.0;
    json!({
        "library_id": run.head().library.map(|library| library.to_string()),
        "chunks_reembedded": made.chunks,
        "documents": made.documents,
        "embedding_provider": made.model.provider,
        "embedding_model": made.model.model,
        "embedding_dimension": made.dimension,
        "compared_with": {
            "embedding_provider": now.active.model.provider,
            "embedding_model": now.active.model.model,
            "embedding_dimension": now.active.dimension,
        },
        "comparison": compared.map(comparison),
        "documents_refused": filled.refused.1,
        "refused": filled.refused.0.iter().map(|(id, why)| json!({
            "document_id": id.to_string(),
            "error": why,
        })).collect::<Vec<_>>(),
        "cost": spent.shown(Some((&filled.carried, seconds))),
    })
}

fn comparison(compared: &Comparison) -> Value {
    let rounded = |part: f64| (part * 10_000.0).round() / 10_000.0;
    let mean = |parts: &[f64]| {
        #[expect(clippy::cast_precision_loss, reason = "a hundred or so")]
        let count = parts.len() as f64;
        (!parts.is_empty()).then(|| rounded(parts.iter().sum::<f64>() / count))
    };
    let min = |parts: &[f64]| parts.iter().copied().min_by(f64::total_cmp).map(rounded);
    json!({
        "k": compared.k,
        "passages": compared.passages.len(),
        "overlap_mean": mean(&compared.passages),
        "overlap_min": min(&compared.passages),
        "queries": compared.queries.iter().copied().map(rounded).collect::<Vec<f64>>(),
        "queries_overlap_mean": mean(&compared.queries),
    })
}
