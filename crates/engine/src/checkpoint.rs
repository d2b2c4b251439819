//! The checkpoint of a library: what is in memory goes to a file, files that are worth it are
//! merged, and a manifest of all that is made durable, while the library is read and written.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrwdb_state::{FileSegment, Manifest, Segment, Seq, View};

use crate::engine::Inner;
use crate::error::EngineError;
use crate::files::{Claim, Work};
use crate::handle::{Frozen, Handle, Layout};
use crate::maintenance::blocking;

/// What a checkpoint wrote.
struct Checkpointed {
    applied: Seq,
    /// Merges to be done in the live view, in order.
    layouts: Vec<Layout>,
    /// Their inputs, but for what is in memory.
    claims: Vec<Claim>,
    manifest: Manifest,
    rewritten: Rewritten,
}

/// Writes a library's segments in memory to a file, merges files that are worth it, and makes the
/// manifest of all that durable. The library is read and written meanwhile.
pub(crate) async fn checkpoint(
    engine: &Arc<Inner>,
    handle: &Arc<Handle>,
) -> Result<(), EngineError> {
    checkpoint_with(engine, handle, Depth::Usual).await.map(drop)
}

/// How much of what is dead a checkpoint leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// What merges that are worth it leave out. Those of a library with structures are the
    /// builder's.
    Usual,
    /// All of it: every file with a dead row is written anew.
    Purge,
}

/// What a checkpoint rewrote.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rewritten {
    pub(crate) files: u64,
    /// Rows that died and are in no file any more.
    pub(crate) rows: u64,
}

pub(crate) async fn checkpoint_with(
    engine: &Arc<Inner>,
    handle: &Arc<Handle>,
    depth: Depth,
) -> Result<Rewritten, EngineError> {
    handle.checkpoint_wanted.store(false, Ordering::SeqCst);
    if handle.deleted.load(Ordering::SeqCst) {
        return Ok(Rewritten::default());
    }
    // Whoever merges files after this is not seen by this checkpoint, or is and need not be.
    let relaid = handle.relaid();
    handle.set_relaid(None);
    handle.files.lock().forget_failures();
    let Some(Frozen { view, covers }) = handle.freeze().await else {
        // Closed is written; one that takes no more requests is nobody's concern.
        return match handle.residence() {
            Ok(_open) if handle.check().is_ok() => {
                Err(EngineError::Storage { detail: "the library's writer stopped".into() })
            }
            _ => Ok(Rewritten::default()),
        };
    };
    let (shared, written) = (engine.clone(), handle.clone());
    match blocking(move || write_checkpoint(&shared, &written, view, depth)).await {
        Ok(Checkpointed { applied, layouts, claims, manifest, rewritten }) => {
            handle.set_checkpointed(applied, covers);
            handle.thaw(layouts).await;
            for claim in claims {
                claim.finish();
            }
            let (store, swept) = (engine.store.clone(), handle.clone());
            blocking(move || store.sweep(&manifest, &in_use(&swept))).await?;
            engine.want_indexes(handle);
            Ok(rewritten)
        }
        Err(error) => {
            // Sooner or later does no harm: it is the time at which this is tried again.
            handle.set_relaid(relaid.or(handle.relaid()));
            handle.thaw(Vec::new()).await;
            Err(error)
        }
    }
}

fn write_checkpoint(
    engine: &Inner,
    handle: &Arc<Handle>,
    mut view: View,
    depth: Depth,
) -> Result<Checkpointed, EngineError> {
    let (store, id) = (&engine.store, handle.id);
    let horizon = match depth {
        Depth::Usual => engine.upkeep.horizon(),
        Depth::Purge => view.applied(),
    };
    let mut rewritten = Rewritten::default();
    let (mut layouts, mut claims) = (Vec::new(), Vec::new());
    let of_manifest = store.read_manifest(id)?.map_or(1, |manifest| manifest.next_segment);
    let built = handle.indexed.load(Ordering::Relaxed);
    loop {
        let memory = view.memory_segments();
        let range = match depth {
            _ if !memory.is_empty() => Some(memory),
            Depth::Usual if built => None,
            Depth::Usual => {
                let mut files = handle.files.lock();
                let free = |segment: &Segment| files.is_free(Work::Merge, segment);
                let range = view.choose_file_merge(horizon, false, &free);
                if let Some(range) = range.clone() {
                    let inputs = view.segments()[range].iter().map(|view| &**view.segment());
                    claims.push(Claim::new(handle, &mut files, Work::Merge, inputs));
                }
                range
            }
            Depth::Purge if engine.upkeep.is_closing() => None,
            Depth::Purge => view.file_with_dead_rows(),
        };
        let Some(range) = range else { break };
        let merge = view.plan_merge(range, horizon)?;
        let number = handle.files.lock().take_number(of_manifest);
        let output = store.write_segment(id, number, &merge)?;
        let layout = Layout { merge, output, index: None };
        let merged = view.with_merge(&layout.merge, layout.output.clone()).ok_or_else(|| {
            let detail = "a merge does not fit the view that it was planned on".into();
            EngineError::Storage { detail }
        })?;
        rewritten.files += 1;
        rewritten.rows += view.rows().saturating_sub(merged.rows());
        view = merged;
        layouts.push(layout);
    }
    let next = handle.files.lock().next_number(of_manifest);
    let manifest = store.write_manifest(id, &view, next)?;
    Ok(Checkpointed { applied: view.applied(), layouts, claims, manifest, rewritten })
}

/// Files that are written, or in use and not named by a manifest yet.
fn in_use(handle: &Handle) -> BTreeSet<u64> {
    // In this order: what is not written any more is in use by then, or of no use.
    let mut numbers = handle.files.lock().written().clone();
    if let Ok(open) = handle.residence() {
        let view = open.view();
        let files = view.segments().iter().filter_map(|view| view.segment().file());
        numbers.extend(files.map(FileSegment::number));
    }
    numbers
}
