//! What libraries were: to be found again, as long as their past is kept.

use std::collections::VecDeque;

use arrwdb_engine::state::{LibraryId, Seq};
use arrwdb_engine::{Engine, EngineError, Moment};

use crate::check::{Failure, TENANT, differs};
use crate::model::Model;

/// States that are remembered, at most.
const STATES_MAX: usize = 64;

/// A library at one number.
#[derive(Debug, Clone, Copy)]
struct State {
    library: LibraryId,
    seq: Seq,
    documents: u64,
    digest: u128,
}

/// The last states that readers were shown.
#[derive(Debug, Default)]
pub(crate) struct Past(VecDeque<State>);

impl Past {
    /// Reads every state again: it is as it was, or refused. Then remembers what is there now.
    pub(crate) async fn check(&mut self, engine: &Engine, model: &Model) -> Result<(), Failure> {
        self.0.retain(|state| model.libraries.values().any(|one| one.id == state.library));
        for State { library, seq, documents, digest } in &self.0 {
            let snapshot = match engine.library(TENANT, *library, Moment::as_of(*seq)).await {
                Err(EngineError::HistoryGone { oldest, .. }) if oldest > *seq => continue,
                read => read?,
            };
            let stats = snapshot.stats();
            if (stats.documents, stats.digest) != (*documents, *digest) {
                let found = stats.documents;
                return differs(format!(
                    "library {library} had {documents} documents at {seq}, and {found} as of then"
                ));
            }
        }
        for one in model.libraries.values() {
            let snapshot = engine.library(TENANT, one.id, None).await?;
            let (stats, seq) = (snapshot.stats(), snapshot.seq());
            let (documents, digest) = (stats.documents, stats.digest);
            self.0.push_back(State { library: one.id, seq, documents, digest });
        }
        let extra = self.0.len().saturating_sub(STATES_MAX);
        self.0.drain(..extra);
        Ok(())
    }
}
