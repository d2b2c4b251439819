//! Proving a backup by restoring it.

use std::sync::Arc;

use arrwdb_state::Totals;

use super::error::BackupError;
use super::restore::{RestoreTo, Restored, restore};
use super::source::Site;
use super::target::Target;
use super::{Point, Progress};
use crate::config::{EngineConfig, EngineParts};
use crate::engine::Engine;
use crate::error::EngineError;

/// A backup that was restored and compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The restore point.
    pub restored: Restored,
    /// Libraries compared.
    pub libraries: u64,
    /// Live documents in them.
    pub documents: u64,
    /// Live chunks in them.
    pub chunks: u64,
}

/// Restores the newest restore point into `dir` (absent or empty; the caller removes it), opens it
/// with the engine, reads every live document of every library, and compares counts and digests:
/// what the documents give, what the engine says, and, where nothing was written since a library's
/// manifest, what the restore point says.
pub async fn verify(
    target: Arc<dyn Target>,
    config: EngineConfig,
    parts: EngineParts,
    progress: Arc<dyn Progress>,
) -> Result<Verified, BackupError> {
    let site = Site {
        disk: parts.disk.clone(),
        dir: config.data_dir.clone(),
        clock: parts.clock.clone(),
        random: parts.random.clone(),
    };
    let restored =
        blocking(move || restore(&*target, &site, RestoreTo::Newest, &*progress)).await?;
    let engine = Engine::open(config, parts).await?;
    let compared = compare(&engine, restored).await;
    let closed = engine.close().await;
    let verified = compared?;
    closed?;
    Ok(verified)
}

async fn compare(engine: &Engine, restored: Restored) -> Result<Verified, BackupError> {
    let catalog = engine.0.catalog.load_full();
    let mut verified = Verified { restored, libraries: 0, documents: 0, chunks: 0 };
    for spec in catalog.iter() {
        // Companions and generations that wait as well, which nobody reaches by their ids.
        let handle = engine.0.handle(spec.id)?;
        let view = engine.0.opened(&handle).await?.view();
        let recounted = view.clone();
        let counted = blocking(move || Ok(recounted.recount().map_err(EngineError::from)?)).await?;
        let said = view.totals();
        let mut claims = vec![("the engine has", said)];
        let applied = view.applied().get();
        claims.extend(claim(&verified.restored.point, &spec.id.to_string(), applied));
        for (who, claimed) in claims {
            if claimed != counted {
                let detail = format!("its documents give {counted:?}, {who} {claimed:?}");
                return Err(BackupError::Different { library: spec.id, detail });
            }
        }
        let library = spec.generation_of.unwrap_or(spec.id);
        if spec.companion_of.is_none() && catalog.active(library) == spec.id {
            verified.libraries += 1;
            verified.documents += counted.documents;
            verified.chunks += counted.chunks;
        }
    }
    let expected = verified.restored.point.library_count;
    if verified.libraries != expected {
        let detail = format!(
            "the restore point has {expected} libraries, what was restored has {}",
            verified.libraries
        );
        return Err(BackupError::Damaged { detail });
    }
    Ok(verified)
}

/// What a restore point says of a library at this number, if it says something.
fn claim(point: &Point, id: &str, applied: u64) -> Option<(&'static str, Totals)> {
    let part = point.libraries.iter().find(|part| part.id == id && part.applied == applied)?;
    let digest = u128::from_str_radix(&part.digest, 16).ok()?;
    let totals = Totals { documents: part.documents, chunks: part.chunks, digest };
    Some(("the restore point has", totals))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, BackupError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(EngineError::Storage { detail: format!("it stopped: {error}") }.into())
    })
}
