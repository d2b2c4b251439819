//! The purge: what was deleted or replaced is removed from every file for good.
//!
//! ```text
//! the log begins a new file -> a Purged record is durable in it -> every library with dead rows is
//! checkpointed and its files with dead rows written anew -> the files of deleted libraries and the
//! cache of embeddings are removed -> the log before the record is removed
//! ```

use std::sync::Arc;

use arrwdb_state::{CatalogCommand, Seq, Timestamp};

use crate::catalog;
use crate::engine::Inner;
use crate::error::EngineError;
use crate::handle::Handle;
use crate::maintenance::{Depth, Keep, Rewritten, blocking, checkpoint_with, snapshot_and_trim};
use crate::open::remove_orphans;

/// What a purge removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgeReceipt {
    /// Nothing that was deleted or replaced up to here is in the data directory any more.
    pub purged_to: Seq,
    /// The log's record of the purge.
    pub seq: Seq,
    /// When it was done.
    pub completed_at: Timestamp,
    /// Libraries some of whose files were written anew.
    pub libraries: u64,
    /// Segment files written anew.
    pub segments: u64,
    /// Dead rows that were in them.
    pub rows: u64,
    /// Log files removed.
    pub log_files: u64,
    /// Bytes they held.
    pub log_bytes: u64,
    /// Bytes of cached embeddings removed.
    pub cache_bytes: u64,
}

/// Runs in the upkeep, so that no checkpoint runs beside it. An error leaves everything as valid as
/// it was; what is removed by then stays removed, and another purge does the rest.
pub(crate) async fn run(engine: &Arc<Inner>) -> Result<PurgeReceipt, EngineError> {
    let purged_to = Seq::new(engine.log.durable());
    engine.log.begin_file();
    let sender = engine.catalog_writer.lock().clone().ok_or(EngineError::Closed)?;
    let seq = catalog::change(&sender, CatalogCommand::Purge).await?.seq;
    let (mut libraries, mut all) = (0, Rewritten::default());
    for handle in engine.handles.load_full().values() {
        let rewritten = purge_library(engine, handle).await?;
        libraries += u64::from(rewritten.rows > 0);
        all.files += rewritten.files;
        all.rows += rewritten.rows;
    }
    let cache_bytes = engine.parts.embedder.clear_cache().await.map_err(|error| {
        let detail = format!("cannot remove the cache of embeddings: {error}");
        EngineError::Storage { detail }
    })?;
    let shared = engine.clone();
    let trimmed = blocking(move || {
        remove_orphans(&shared.store, &shared.catalog.load())?;
        snapshot_and_trim(&shared, Keep::Nothing)
    })
    .await?;
    if engine.log.first() <= purged_to.get() {
        return Err(EngineError::Storage {
            detail: format!(
                "the log before {purged_to} is still needed by a library whose checkpoint failed; \
                 see the server's log"
            ),
        });
    }
    let receipt = PurgeReceipt {
        purged_to,
        seq,
        completed_at: engine.parts.clock.now(),
        libraries,
        segments: all.files,
        rows: all.rows,
        log_files: trimmed.files,
        log_bytes: trimmed.bytes,
        cache_bytes,
    };
    tracing::info!(?receipt, "purged");
    Ok(receipt)
}

async fn purge_library(
    engine: &Arc<Inner>,
    handle: &Arc<Handle>,
) -> Result<Rewritten, EngineError> {
    let outcome = purge_open(engine, handle).await;
    // One that is deleted meanwhile goes with all its files.
    if handle.check().is_err() { Ok(Rewritten::default()) } else { outcome }
}

async fn purge_open(engine: &Arc<Inner>, handle: &Arc<Handle>) -> Result<Rewritten, EngineError> {
    if handle.residence().is_err() {
        let (shared, id) = (engine.clone(), handle.id);
        let manifest = blocking(move || shared.store.read_manifest(id)).await?;
        if !manifest.is_some_and(|manifest| manifest.has_dead_rows()) {
            return Ok(Rewritten::default());
        }
        engine.opened(handle).await?;
    }
    checkpoint_with(engine, handle, Depth::Purge).await
}
