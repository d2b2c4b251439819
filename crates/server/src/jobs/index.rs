//! `index_rebuild` and `index_optimize`: as the requests of the same names, in the background. Once
//! begun they are done: who cancels one finds it completed.

use arrwdb_feed::{Halt, JobRun, Performed};
use serde_json::json;

use super::{Performer, Unable, library_of};
use crate::routes::IndexSettings;

impl Performer {
    pub(super) async fn rebuild(&self, run: &JobRun) -> Result<Performed, Unable> {
        let (library, tenant) = (library_of(run)?, run.head().tenant);
        run.check()?;
        let current = run.engine().library(tenant, library, None).await?.spec().index;
        let change = IndexSettings::change(run.job().spec.parameters.as_bytes(), current);
        let change = change.map_err(|problem| Unable::Failed(problem.full_detail()))?;
        let work = run.engine().rebuild_index(tenant, library, change);
        let written = tokio::select! {
            written = work => written?,
            () = run.stopped() => return Err(Halt::Stopping.into()),
        };
        let rebuilt = written.value;
        let names = (rebuilt.old.name(), rebuilt.new.name());
        self.metrics.index_rebuilt(library, names, rebuilt.took);
        let result = json!({
            "old_index_type": names.0,
            "new_index_type": names.1,
            "vectors_reindexed": rebuilt.chunks,
            "library_id": library.to_string(),
        });
        finish(run, result.to_string()).await
    }

    pub(super) async fn optimize(&self, run: &JobRun) -> Result<Performed, Unable> {
        let (library, tenant) = (library_of(run)?, run.head().tenant);
        run.check()?;
        let work = run.engine().optimize_index(tenant, library);
        let optimized = tokio::select! {
            optimized = work => optimized?,
            () = run.stopped() => return Err(Halt::Stopping.into()),
        };
        self.metrics.index_optimized(library, optimized.index.name());
        let result = json!({
            "vectors_compacted": optimized.rows_dropped,
            "memory_freed_bytes": optimized.bytes_freed,
            "library_id": library.to_string(),
        });
        finish(run, result.to_string()).await
    }
}

/// All of it is one unit.
pub(super) async fn finish(run: &JobRun, result: String) -> Result<Performed, Unable> {
    let mut progress = run.progress();
    (progress.current, progress.total) = (1, Some(1));
    run.advance(progress).await;
    Ok(Performed::Completed(result))
}
