//! The checkpoint of a library: what is in memory goes to a file, files that are worth it are
//! merged, and a manifest of all that is made durable, while the library is read and written.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrwdb_state::{Manifest, Seq, View};

use crate::engine::Inner;
use crate::error::EngineError;
use crate::files::Work;
use crate::handle::{Frozen, Handle, Layout};
use crate::maintenance::blocking;

/// What a checkpoint wrote.
struct Checkpointed {
    applied: Seq,
    /// Merges to be done in the live view, in order.
    layouts: Vec<Layout>,
    manifest: Manifest,
    rewritten: Rewritten,
}

/// Writes a library's segments in memory to a file, merges files that are worth it, and makes the
/// manifest of all that durable. The library is read and written meanwhile.
pub(crate) async fn checkpoint(
    engine: &Arc<Inner>,
    handle: &Arc<Handle>,
) -> Result<(), EngineError> {
    checkpoint_with(engine, handle, Write::usual()).await.map(drop)
}

/// What a checkpoint does besides writing what is in memory.
pub(crate) struct Write {
    pub(crate) depth: Depth,
    /// A merge that the builder wrote.
    pub(crate) merged: Option<Layout>,
}

impl Write {
    fn usual() -> Self {
        Self { depth: Depth::Usual, merged: None }
    }
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
    write: Write,
) -> Result<Rewritten, EngineError> {
    handle.checkpoint_wanted.store(false, Ordering::SeqCst);
    if handle.deleted.load(Ordering::SeqCst) {
        return Ok(Rewritten::default());
    }
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
    match blocking(move || write_checkpoint(&shared, &written, view, write)).await {
        Ok(Checkpointed { applied, layouts, manifest, rewritten }) => {
            handle.set_checkpointed(applied, covers);
            handle.thaw(layouts).await;
            let (store, swept) = (engine.store.clone(), handle.clone());
            blocking(move || {
                let unnamed = swept.files.lock().unnamed().clone();
                store.sweep(&manifest, &unnamed)
            })
            .await?;
            engine.want_indexes(handle);
            Ok(rewritten)
        }
        Err(error) => {
            handle.thaw(Vec::new()).await;
            Err(error)
        }
    }
}

fn write_checkpoint(
    engine: &Inner,
    handle: &Handle,
    mut view: View,
    write: Write,
) -> Result<Checkpointed, EngineError> {
    let (store, id) = (&engine.store, handle.id);
    let Write { depth, merged } = write;
    let horizon = match depth {
        Depth::Usual => engine.upkeep.horizon(),
        Depth::Purge => view.applied(),
    };
    let mut rewritten = Rewritten::default();
    let mut layouts = Vec::new();
    if let Some(layout) = merged
        && let Some(with) = with_built(handle, &view, &layout, &mut rewritten)
    {
        view = with;
        layouts.push(layout);
    }
    let of_manifest = store.read_manifest(id)?.map_or(1, |manifest| manifest.next_segment);
    let built = handle.indexed.load(Ordering::Relaxed);
    loop {
        let memory = view.memory_segments();
        let range = match depth {
            _ if !memory.is_empty() => Some(memory),
            Depth::Usual if built => None,
            Depth::Usual => {
                let files = handle.files.lock();
                view.choose_file_merge(horizon, &|segment| files.is_free(Work::Merge, segment))
            }
            Depth::Purge if engine.upkeep.is_closing() => None,
            Depth::Purge => view.file_with_dead_rows(),
        };
        let Some(range) = range else { break };
        let merge = view.plan_merge(range, horizon)?;
        let number = handle.files.lock().take_number(of_manifest);
        let output = store.write_segment(id, number, &merge)?;
        let layout = Layout { merge, output, index: None };
        view = with_layout(&view, &layout, &mut rewritten).ok_or_else(|| EngineError::Storage {
            detail: "a merge does not fit the view that it was planned on".into(),
        })?;
        layouts.push(layout);
    }
    let next = handle.files.lock().next_number(of_manifest);
    let manifest = store.write_manifest(id, &view, next)?;
    Ok(Checkpointed { applied: view.applied(), layouts, manifest, rewritten })
}

/// A view with what the builder merged, if that has its place: not a file that was removed
/// meanwhile, or one of segments that are gone.
fn with_built(
    handle: &Handle,
    view: &View,
    layout: &Layout,
    rewritten: &mut Rewritten,
) -> Option<View> {
    let number = layout.output.as_ref().and_then(|segment| Some(segment.file()?.number()));
    let there = number.is_none_or(|number| handle.files.lock().is_unnamed(number));
    if there { with_layout(view, layout, rewritten) } else { None }
}

/// A view with merged segments in the place of their inputs, if it has those.
fn with_layout(view: &View, layout: &Layout, rewritten: &mut Rewritten) -> Option<View> {
    let merged = view.with_merge(&layout.merge, layout.output.clone())?;
    rewritten.files += 1;
    rewritten.rows += view.rows().saturating_sub(merged.rows());
    Some(merged)
}
