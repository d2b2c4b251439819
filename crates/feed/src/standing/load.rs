//! A library's queries, made ready to be matched.

use std::sync::Arc;

use arrwdb_engine::state::{LibraryId, QuerySet, Seq, StandingQuery};
use arrwdb_engine::{Engine, EngineError, StandingQueries, Subject};
use tokio::sync::watch;

use super::again::{pause, retry_after};
use super::watched::Loaded;

/// Queries whose mean the others are thought to lie about.
const SAMPLE: usize = 1000;

/// A library's queries, as of the companion's record `heard` or later: what was durable is not
/// published at once.
pub(super) async fn load(
    engine: &Engine,
    stopped: &watch::Receiver<bool>,
    library: LibraryId,
    (created, heard): (Seq, Seq),
) -> Result<Option<Loaded>, EngineError> {
    let mut stopping = stopped.clone();
    let published = async {
        engine.applied(Subject::Catalog, created).await;
        engine.applied(Subject::Library(library.companion()), heard).await;
    };
    tokio::select! {
        biased;
        () = published => {}
        () = async { drop(stopping.wait_for(|stopped| *stopped).await) } => {
            return Err(EngineError::Closed);
        }
    }
    let mut failures = 0;
    loop {
        let outcome = load_now(engine, library).await;
        let Some(wait) = retry_after(&outcome, library, &mut failures) else { return outcome };
        pause(stopped, wait).await?;
    }
}

async fn load_now(engine: &Engine, library: LibraryId) -> Result<Option<Loaded>, EngineError> {
    let Some(queries) = engine.standing_queries_of(library).await? else { return Ok(None) };
    let seq = queries.seq();
    let set = engine.run_matching(move || read(&queries)).await??;
    Ok(Some(Loaded { set: Arc::new(set), seq }))
}

fn read(queries: &StandingQueries) -> Result<QuerySet, EngineError> {
    let spec = queries.library();
    let mut sample: Vec<(StandingQuery, Seq)> = Vec::new();
    let mut set: Option<QuerySet> = None;
    let begin = |sample: Vec<(StandingQuery, Seq)>| {
        let about = sample.iter().map(|(query, _born)| &*query.vector);
        let mut set = QuerySet::about(spec.id, spec.metric, spec.dimension, about);
        for (query, born) in sample {
            register(&mut set, query, born);
        }
        set
    };
    queries.for_each(|query, born| {
        if let Some(set) = &mut set {
            register(set, query, born);
            return;
        }
        sample.push((query, born));
        if sample.len() == SAMPLE {
            set = Some(begin(std::mem::take(&mut sample)));
        }
    })?;
    Ok(set.unwrap_or_else(|| begin(sample)))
}

pub(super) fn register(set: &mut QuerySet, query: StandingQuery, born: Seq) {
    let id = query.id;
    if let Err(error) = set.insert(query, born) {
        tracing::error!(library = %set.library(), query = %id, %error, "it matches nothing");
    }
}
