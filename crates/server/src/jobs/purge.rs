//! `purge`: what was deleted is removed for good, as the request of the same name does it.

use arrwdb_feed::{Halt, JobRun, Performed};

use super::Unable;
use super::index::finish;
use crate::routes::PurgeAnswer;

pub(super) async fn purge(run: &JobRun) -> Result<Performed, Unable> {
    run.check()?;
    let receipt = tokio::select! {
        receipt = run.engine().purge() => receipt?,
        () = run.stopped() => return Err(Halt::Stopping.into()),
    };
    let result = serde_json::to_string(&PurgeAnswer::of(&receipt))
        .map_err(|error| Unable::Failed(error.to_string()))?;
    finish(run, result).await
}
