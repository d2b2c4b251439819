//! Trying again what may not fail the next time.

use std::time::Duration;

use arrwdb_engine::state::{LibraryId, QueriesMatched};
use arrwdb_engine::{Engine, EngineError};
use tokio::sync::watch;

/// How long is waited after a refusal that says nothing of it.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often something is tried again that failed and may not fail the next time.
const FAILURES_MAX: u32 = 60;

/// Notes what matched, as soon as that is possible; closed where the matcher shall stop before.
pub(super) async fn note(
    engine: &Engine,
    stopped: &watch::Receiver<bool>,
    matched: QueriesMatched,
) -> Result<(), EngineError> {
    let mut failures = 0;
    loop {
        let outcome = engine.note_matches(matched.clone()).await;
        let Some(wait) = retry_after(&outcome, matched.library, &mut failures) else {
            return outcome;
        };
        pause(stopped, wait).await?;
    }
}

/// How long to wait before something is tried again; `None` where it succeeded, or will not.
pub(super) fn retry_after<T>(
    outcome: &Result<T, EngineError>,
    library: LibraryId,
    failures: &mut u32,
) -> Option<Duration> {
    match outcome {
        Err(EngineError::Busy { retry_after, .. }) => Some(*retry_after),
        Err(EngineError::DiskFull { .. }) => Some(RETRY_AFTER),
        Err(error @ (EngineError::Storage { .. } | EngineError::Panicked))
            if *failures < FAILURES_MAX =>
        {
            *failures += 1;
            tracing::warn!(%library, %error, failures, "its standing queries have to wait");
            Some(RETRY_AFTER)
        }
        _ => None,
    }
}

/// Waits; closed where the matcher shall stop before.
pub(super) async fn pause(
    stopped: &watch::Receiver<bool>,
    wait: Duration,
) -> Result<(), EngineError> {
    let mut stopped = stopped.clone();
    let stopped = stopped.wait_for(|stopped| *stopped);
    if tokio::time::timeout(wait, stopped).await.is_ok() {
        Err(EngineError::Closed)
    } else {
        Ok(())
    }
}
