//! The purge: what was deleted or replaced is removed from every file for good.
//!
//! ```text
//! the matcher of standing queries notes what matched -> the log begins a new file -> a Purged record is durable in it -> every library with dead rows is
//! checkpointed and its files with dead rows written anew -> the files of deleted libraries, what
//! exports wrote, and the cache of embeddings are removed -> the log before the record is removed
//! ```

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use arrwdb_state::{CatalogCommand, Seq, Timestamp};

use crate::catalog;
use crate::checkpoint::{Depth, Rewritten, checkpoint_with};
use crate::engine::Inner;
use crate::error::EngineError;
use crate::handle::Handle;
use crate::maintenance::{Keep, blocking, snapshot_and_trim};
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
/// it was; what is removed by then stays removed, and another purge does the rest. An engine that
/// closes does not wait for more than the file that is being written.
pub(crate) async fn run(engine: &Arc<Inner>) -> Result<PurgeReceipt, EngineError> {
    let purged_to = Seq::new(engine.log.durable());
    // What standing queries matched of it is noted before the log begins a new file: it holds
    // passages, which go with the file.
    if let Err(matched) = engine.held.reach(purged_to).await {
        let detail = format!(
            "passages after {matched} still have to be matched against standing queries, and the \
             log before {purged_to} is kept for that; purge again"
        );
        return Err(EngineError::Storage { detail });
    }
    // What was deleted is deleted from both models' vectors.
    engine.discard_broken().await?;
    engine.carried_past(purged_to).await?;
    engine.log.begin_file();
    let sender = engine.catalog_writer.lock().clone().ok_or(EngineError::Closed)?;
    let seq = catalog::change(sender, CatalogCommand::Purge).await?.seq;
    // What fails in one place does not keep the others from being purged.
    let mut failed: Option<EngineError> = None;
    let (mut libraries, mut all) = (0, Rewritten::default());
    for handle in engine.handles.load_full().values() {
        engine.upkeep.check_open()?;
        match purge_library(engine, handle).await {
            Ok(rewritten) => {
                libraries += u64::from(rewritten.rows > 0);
                all.files += rewritten.files;
                all.rows += rewritten.rows;
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    // The last library's files may have been left as well.
    engine.upkeep.check_open()?;
    let cache_bytes = engine.parts.embedder.clear_cache().await.unwrap_or_else(|error| {
        let detail = format!("cannot remove the cache of embeddings: {error}");
        failed.get_or_insert(EngineError::Storage { detail });
        0
    });
    // The log is kept for who carries from what is noted on, which has to be after the record.
    engine.carried_past(seq).await?;
    let shared = engine.clone();
    let (trimmed, set_aside) = blocking(move || {
        remove_orphans(&shared.store, &shared.catalog.load())?;
        shared.store.remove_exports()?;
        let trimmed = snapshot_and_trim(&shared, Keep::Nothing)?;
        Ok((trimmed, shared.store.set_aside()?))
    })
    .await?;
    if let Some(error) = failed {
        return Err(error);
    }
    check_clean(engine, purged_to, &set_aside)?;
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

/// Whether nothing is left that a purge cannot remove.
fn check_clean(engine: &Inner, purged_to: Seq, set_aside: &[PathBuf]) -> Result<(), EngineError> {
    let detail = if let Some(path) = set_aside.first() {
        format!(
            "{} was set aside by a repair and may hold what was deleted: remove it (there are {} \
             such files) and purge again",
            path.display(),
            set_aside.len()
        )
    } else if engine.log.first() <= purged_to.get() {
        format!(
            "the log before {purged_to} is still needed by a library that is not in files yet; \
             purge again"
        )
    } else {
        return Ok(());
    };
    Err(EngineError::Storage { detail })
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
    let was_closed = handle.residence().is_err();
    if was_closed {
        let (shared, closed) = (engine.clone(), handle.clone());
        if !blocking(move || shared.has_dead_rows(&closed)).await? {
            // All of it up to now is in files without dead rows: remembered, should somebody
            // write to it before the log is trimmed.
            handle.covered(engine.log.durable());
            return Ok(Rewritten::default());
        }
        engine.opened(handle).await?;
    }
    // What is being merged may hold rows that died since.
    let alone = handle.halt_building().await;
    let rewritten = checkpoint_with(engine, handle, Depth::Purge).await?;
    drop(alone);
    if was_closed {
        // There may be more of them than may be open.
        handle.try_close().await;
    }
    Ok(rewritten)
}

impl Inner {
    /// Whether a closed library's files have rows of deleted documents; what a stopped checkpoint
    /// left of it is removed. One that was opened meanwhile counts as having some.
    fn has_dead_rows(&self, handle: &Handle) -> Result<bool, EngineError> {
        let _opened_by_nobody = handle.opening.lock();
        if handle.residence().is_ok() {
            return Ok(true);
        }
        self.store.sweep_library(handle.id, BTreeSet::new)?;
        let manifest = self.store.read_manifest(handle.id)?;
        Ok(manifest.is_some_and(|manifest| manifest.has_dead_rows()))
    }
}
