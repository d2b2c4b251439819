//! The checkpoint of a library: what is in memory goes to a file, files that are worth it are
//! merged, and a manifest of all that is made durable, while the library is read and written.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrwdb_state::{FileSegment, LibraryId, Manifest, Segment, Seq, View};

use crate::building::PartSpec;
use crate::engine::Inner;
use crate::error::EngineError;
use crate::files::{Claim, Work};
use crate::handle::{Frozen, Handle, Layout};
use crate::maintenance::blocking;
use crate::store::Store;

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
            handle.files.lock().forget_failures();
            handle.thaw(layouts).await;
            for claim in claims {
                claim.finish();
            }
            let (store, swept) = (engine.store.clone(), handle.clone());
            blocking(move || store.sweep(&manifest, || in_use(&swept))).await?;
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
    loop {
        let (of, claim) = match (in_memory(&view), depth) {
            (Some(of), _) => (Some(of), None),
            (None, Depth::Usual) => choose_merge(engine, handle, &view, &layouts, horizon).unzip(),
            (None, Depth::Purge) if engine.upkeep.is_closing() => (None, None),
            (None, Depth::Purge) => {
                let dead = |part: &View| part.file_with_dead_rows();
                (first_part(&view, dead), None)
            }
        };
        let Some((part, range)) = of else { break };
        let number = handle.files.lock().take_number(of_manifest);
        let planned = part.plan_merge(range, horizon);
        let layout = planned.map_err(EngineError::from).and_then(|merge| {
            let output = store.write_segment(id, number, &merge, &|| false)?;
            Ok(Layout { merge, output, index: None })
        });
        let layout = match (layout, claim) {
            (Ok(layout), claim) => {
                claims.extend(claim);
                layout
            }
            // What lies in memory can be made durable all the same.
            (Err(error), Some(claim)) => {
                tracing::error!(library = %id, %error, "cannot merge its files");
                claim.fail(&error);
                continue;
            }
            (Err(error), None) => {
                remove_unnamed(store, id, &layouts);
                return Err(error);
            }
        };
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

/// The first part of a view of which there is something, with that.
fn first_part(
    view: &View,
    of: impl Fn(&View) -> Option<Range<usize>>,
) -> Option<(View, Range<usize>)> {
    view.parts().find_map(|part| Some((part.clone(), of(part)?)))
}

/// What of a view is in memory, part after part.
fn in_memory(view: &View) -> Option<(View, Range<usize>)> {
    let memory = |part: &View| Some(part.memory_segments()).filter(|range| !range.is_empty());
    first_part(view, memory)
}

/// Removes what a checkpoint wrote before it failed: no manifest names that.
fn remove_unnamed(store: &Store, id: LibraryId, layouts: &[Layout]) {
    for output in layouts.iter().filter_map(|layout| layout.output.as_ref()?.file()) {
        if let Err(error) = store.remove_segment(id, output.number()) {
            tracing::warn!(library = %id, %error, "left behind");
        }
    }
}

/// Files worth merging, claimed; none of a part with structures, whose merges are the builder's.
fn choose_merge(
    engine: &Inner,
    handle: &Arc<Handle>,
    view: &View,
    layouts: &[Layout],
    horizon: Seq,
) -> Option<((View, Range<usize>), Claim)> {
    if engine.upkeep.is_closing() {
        return None;
    }
    let specs = PartSpec::all(&engine.catalog.load().get(handle.id)?.clone(), view);
    let mut files = handle.files.lock();
    // Of what the builder merged since the freeze, the inputs are not claimed any more.
    let live = handle.residence().ok()?.view();
    let is = |of: &Arc<Segment>, segment: &Segment| std::ptr::eq(Arc::as_ptr(of), segment);
    let free = |segment: &Segment| {
        let is_live = live.all_segments().any(|view| is(view.segment(), segment));
        let own = layouts.iter().filter_map(|layout| layout.output.as_ref());
        let is_own = own.into_iter().any(|output| is(output, segment));
        files.is_free(Work::Merge, segment) && (is_live || is_own)
    };
    let plain = view.parts().zip(specs).filter(|(_part, spec)| spec.is_plain());
    let mut worth = plain
        .filter_map(|(part, _spec)| Some((part, part.choose_file_merge(horizon, false, &free)?)));
    let (part, range) = worth.next()?;
    let inputs = part.segments()[range.clone()].iter().map(|view| &**view.segment());
    let claim = Claim::new(handle, &mut files, Work::Merge, inputs);
    Some(((part.clone(), range), claim))
}

/// Files that are written, or in use and not named by a manifest yet.
fn in_use(handle: &Handle) -> BTreeSet<u64> {
    // In this order: what is not written any more is in use by then, or of no use.
    let mut numbers = handle.files.lock().written().clone();
    if let Ok(open) = handle.residence() {
        let view = open.view();
        let files = view.all_segments().filter_map(|view| view.segment().file());
        numbers.extend(files.map(FileSegment::number));
    }
    numbers
}
