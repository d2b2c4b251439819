//! The builder: merges files of libraries that ask for structures and builds what their segments
//! are searched by, off the write path, on threads that give way to everything else.
//!
//! ```text
//! choose a job -> claim its files -> write the merged file -> build -> write the structure ->
//! publish, by the library's writer -> give up the claim
//! ```
//!
//! A merged file is searched at once. The next manifest names it; until then its inputs stay on disk,
//! and a start has those.
//!
//! A merged file is published together with its structure, so that what was found by one is never
//! scanned again. Until then, and until a first structure is built, segments are searched as
//! before: results are there at every moment, and only their price changes. Two lanes, so that what
//! was just written does not wait for its structure while a large file is built.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrwdb_state::{
    FieldSpec, IndexFile, IndexSpec, LibraryId, LibrarySpec, Metric, Segment, SegmentIndex,
    SegmentView, Seq, View,
};
use tokio::sync::{mpsc, oneshot};

use crate::engine::Inner;
use crate::error::{EngineError, RETRY_AFTER};
use crate::files::{Claim, Files, KeptOpen, Work};
use crate::handle::{Handle, Layout};
use crate::maintenance::blocking;

/// Libraries that may wait for a lane. One that finds the queue full is looked at again after its
/// next checkpoint.
const QUEUE_MAX: usize = 1024;
/// A segment of so many bytes of vectors has a structure however few its rows are: reading all of
/// them takes longer than a walk.
const INDEX_BYTES_MIN: u64 = 2 << 20;
/// Jobs of more rows are for the lane of those that take long.
const QUICK_ROWS_MAX: u32 = 1 << 16;

/// So many files that are worth one merge are a backlog.
const BACKLOG_FILES: usize = 8;

/// A lane: jobs that are done one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Quick,
    Long,
}

impl Lane {
    const ALL: [Self; 2] = [Self::Quick, Self::Long];

    fn of(rows: u32) -> Self {
        if rows <= QUICK_ROWS_MAX { Self::Quick } else { Self::Long }
    }
}

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Every file that there is has the structure that it is to have.
    Structures,
    /// All files are one, without anything dead, and that one has its structure.
    OneFile,
}

/// A library to be looked at.
#[derive(Debug)]
pub(crate) struct Request {
    handle: Arc<Handle>,
    awaited: Option<(Target, Reply)>,
}

/// How many dead rows were left out.
type Reply = oneshot::Sender<Result<u64, EngineError>>;
pub(crate) type Requests = mpsc::Receiver<Request>;

/// The way to the builder.
#[derive(Debug, Clone)]
pub(crate) struct Builder([mpsc::Sender<Request>; 2]);

impl Builder {
    pub(crate) fn new() -> (Self, [(Lane, Requests); 2]) {
        let (quick, quick_requests) = mpsc::channel(QUEUE_MAX);
        let (long, long_requests) = mpsc::channel(QUEUE_MAX);
        (Self([quick, long]), [(Lane::Quick, quick_requests), (Lane::Long, long_requests)])
    }

    /// Asks for a library to be looked at, unless that is asked for already.
    pub(crate) fn want(&self, handle: &Arc<Handle>) {
        for lane in Lane::ALL {
            let wanted = &handle.building_wanted[lane as usize];
            if !wanted.swap(true, Ordering::SeqCst) {
                let request = Request { handle: handle.clone(), awaited: None };
                if self.0[lane as usize].try_send(request).is_err() {
                    wanted.store(false, Ordering::SeqCst);
                }
            }
        }
    }

    /// Waits until a library is as `target` says; how many dead rows were left out.
    pub(crate) async fn reach(
        &self,
        handle: &Arc<Handle>,
        target: Target,
    ) -> Result<u64, EngineError> {
        let (reply, answer) = oneshot::channel();
        let rows = handle.residence().map_or(0, |open| open.view().rows());
        let lane = Lane::of(u32::try_from(rows).unwrap_or(u32::MAX));
        let request = Request { handle: handle.clone(), awaited: Some((target, reply)) };
        self.0[lane as usize].try_send(request).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                EngineError::Busy { what: "the queue of index builds", retry_after: RETRY_AFTER }
            }
            mpsc::error::TrySendError::Closed(_) => EngineError::Closed,
        })?;
        answer.await.map_err(|_ended| EngineError::Closed)?
    }
}

/// Works until the engine closes.
pub(crate) async fn run(engine: Arc<Inner>, lane: Lane, mut requests: Requests) {
    let closing = engine.upkeep.closing().clone();
    loop {
        let request = tokio::select! {
            () = closing.begun() => return,
            request = requests.recv() => request,
        };
        let Some(Request { handle, awaited }) = request else { return };
        if let Some((target, reply)) = awaited {
            let outcome = reach(&engine, &handle, target).await;
            report(&handle, &outcome);
            // Whoever asked may have left; it is done all the same.
            drop(reply.send(outcome));
        } else {
            handle.building_wanted[lane as usize].store(false, Ordering::SeqCst);
            let outcome = tend(&engine, &handle, lane).await;
            report(&handle, &outcome);
        }
    }
}

fn report<T>(handle: &Handle, outcome: &Result<T, EngineError>) {
    match outcome {
        // Stopped: the engine closes, or the library is purged and looked at again after that.
        Ok(_) | Err(EngineError::Closed) => {}
        Err(error) if handle.check().is_err() => {
            tracing::debug!(library = %handle.id, %error, "its build ended with it");
        }
        Err(error) => {
            tracing::error!(library = %handle.id, %error, "cannot build its index; it is scanned");
        }
    }
}

/// Does one job of a lane, if the library has one: what is left waits its turn, so that no library
/// keeps the lane to itself.
async fn tend(engine: &Arc<Inner>, handle: &Arc<Handle>, lane: Lane) -> Result<(), EngineError> {
    let _kept_open = KeptOpen::new(handle);
    let Some(job) = choose(engine, handle, lane) else { return Ok(()) };
    let outcome = job.perform(engine, handle).await;
    // One that failed is not chosen again before the next checkpoint.
    engine.builder.want(handle);
    engine.calibrating.want_again(handle);
    outcome.map(drop)
}

/// Does whatever is needed, whichever lane it is for, and waits for what the other lane does.
async fn reach(
    engine: &Arc<Inner>,
    handle: &Arc<Handle>,
    target: Target,
) -> Result<u64, EngineError> {
    let _kept_open = KeptOpen::new(handle);
    // It may have been closed for being idle while it waited here.
    engine.opened(handle).await?;
    let mut dropped = 0;
    while target == Target::OneFile
        && let Some(job) = wait_for(engine, handle, || look_for_all_files(handle)).await?
    {
        match job.perform(engine, handle).await {
            Ok(rows) => {
                dropped += rows;
                break;
            }
            Err(EngineError::Closed) if is_only_halted(engine, handle) => {}
            Err(error) => return Err(error),
        }
    }
    // What is written meanwhile is not waited for: there might be no end of it.
    let awaited = open_view(handle).map(|view| lacking(engine, handle, &view)).unwrap_or_default();
    loop {
        let next = wait_for(engine, handle, || look_for_one_of(engine, handle, &awaited)).await?;
        let Some(job) = next else {
            engine.calibrating.want_again(handle);
            return Ok(dropped);
        };
        match job.perform(engine, handle).await {
            Err(EngineError::Closed) if is_only_halted(engine, handle) => {}
            other => drop(other?),
        }
    }
}

/// Whether work that was stopped can be done again: somebody purged the library meanwhile.
fn is_only_halted(engine: &Inner, handle: &Handle) -> bool {
    engine.upkeep.check_open().is_ok() && handle.check().is_ok()
}

/// Looks for a job until there is one, or none to wait for.
async fn wait_for(
    engine: &Inner,
    handle: &Handle,
    look: impl Fn() -> Look,
) -> Result<Option<Job>, EngineError> {
    loop {
        // Registered before looking, so that no claim that ends meanwhile is missed.
        let progress = handle.progress.notified();
        handle.check()?;
        engine.upkeep.check_open()?;
        match look() {
            Look::Found(job) => return Ok(Some(job)),
            Look::Nothing => return Ok(None),
            Look::Later => {}
        }
        tokio::select! {
            () = progress => {}
            () = engine.upkeep.closing().begun() => {}
        }
    }
}

/// What a look for a job finds.
enum Look {
    Found(Job),
    Nothing,
    /// Somebody works on it.
    Later,
}

/// Something to do, with its files claimed.
struct Job {
    claim: Claim,
    what: What,
}

enum What {
    /// Merge files into a new one, which gets its structure if it is to have one. Documents that
    /// died up to here are dropped.
    Merge(Vec<Arc<Segment>>, Seq),
    /// Give a file the structure that it is to have, or take away the one it has.
    Structure(Arc<Segment>),
}

fn open_view(handle: &Handle) -> Option<Arc<View>> {
    handle.residence().ok().map(|open| open.view())
}

/// What a part of a library is searched by: its own documents, or what they have in a vector field.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartSpec {
    dimension: u32,
    metric: Metric,
    index: IndexSpec,
}

impl PartSpec {
    fn of_library(spec: &LibrarySpec) -> Self {
        let LibrarySpec { dimension, metric, index, .. } = *spec;
        Self { dimension, metric, index }
    }

    fn of_field(spec: &FieldSpec) -> Self {
        let FieldSpec { dimension, metric, index, .. } = *spec;
        Self { dimension, metric, index }
    }

    /// Of each part of a view, in the order of [`View::parts`].
    pub(crate) fn all(spec: &LibrarySpec, view: &View) -> Vec<Self> {
        let fields = view.fields().values().map(|field| Self::of_field(field.spec()));
        std::iter::once(Self::of_library(spec)).chain(fields).collect()
    }

    pub(crate) fn is_plain(self) -> bool {
        self.index.is_plain()
    }

    /// Whether a segment of so many rows is to have a structure.
    fn is_large(self, engine: &Inner, rows: u32) -> bool {
        let bytes = u64::from(rows) * u64::from(self.dimension) * size_of::<f32>() as u64;
        let large = rows >= engine.config.index_rows_min || bytes >= INDEX_BYTES_MIN;
        large && !self.index.is_plain()
    }

    /// About how much memory the structure of so many rows takes; none, if they shall have none.
    fn structure_bytes(self, engine: &Inner, rows: u32) -> u64 {
        let large = self.is_large(engine, rows);
        if large { self.index.build_bytes(self.dimension as usize, rows) } else { 0 }
    }
}

/// What the part of an open library is searched by that has this segment.
fn part_of(
    engine: &Inner,
    handle: &Handle,
    (view, segment): (&View, &Arc<Segment>),
) -> Result<PartSpec, EngineError> {
    let spec = engine.catalog.load().get(handle.id).cloned();
    let spec = spec.ok_or(EngineError::LibraryNotFound(handle.id))?;
    let of_library = || PartSpec::of_library(&spec);
    Ok(view.field_of(segment).map_or_else(of_library, |field| PartSpec::of_field(field)))
}

/// The files whose structure is not as the library asks for it.
fn lacking(engine: &Inner, handle: &Handle, view: &View) -> Vec<Arc<Segment>> {
    let Some(spec) = engine.catalog.load().get(handle.id).cloned() else { return Vec::new() };
    let mut lacking = Vec::new();
    for (part, spec) in view.parts().zip(PartSpec::all(&spec, view)) {
        let wanting = part.segments().iter().filter(|view| {
            let large = spec.is_large(engine, view.segment().rows());
            view.segment().file().is_some()
                && match view.index() {
                    Some(index) => !large || !index.spec().builds_as(spec.index),
                    None => large,
                }
        });
        lacking.extend(wanting.map(|view| view.segment().clone()));
    }
    lacking
}

/// The next job of a lane: merges first, since what they read need not be built.
fn choose(engine: &Inner, handle: &Arc<Handle>, lane: Lane) -> Option<Job> {
    let spec = engine.catalog.load().get(handle.id)?.clone();
    let view = open_view(handle)?;
    let mut files = handle.files.lock();
    let horizon = engine.upkeep.horizon();
    for (part, _spec) in
        view.parts().zip(PartSpec::all(&spec, &view)).filter(|(_part, spec)| !spec.is_plain())
    {
        let free = |segment: &Segment| files.is_free(Work::Merge, segment);
        let range = part.choose_file_merge(horizon, true, &free);
        if let Some(range) = range.and_then(|range| of_lane(part, range, lane)) {
            return Some(merge_job(handle, &mut files, part, range, horizon));
        }
    }
    let next = lacking(engine, handle, &view).into_iter().find(|segment| {
        Lane::of(segment.rows()) == lane && files.is_free(Work::Structure, segment)
    })?;
    Some(structure_job(handle, &mut files, next))
}

/// What a lane does of a merge: all of it, or nothing. But where so many files wait for the lane of
/// large jobs that it is behind with other libraries, the other one merges the newest.
fn of_lane(view: &View, range: Range<usize>, lane: Lane) -> Option<Range<usize>> {
    let rows = |range: Range<usize>| {
        let segments = view.segments()[range].iter();
        segments.map(|view| view.segment().rows()).fold(0, u32::saturating_add)
    };
    if Lane::of(rows(range.clone())) == lane {
        return Some(range);
    }
    if lane == Lane::Long || range.len() < BACKLOG_FILES {
        return None;
    }
    let part = (range.start + 1..range.end - 1).map(|start| start..range.end);
    part.into_iter().find(|part| Lane::of(rows(part.clone())) == lane)
}

/// The merge of all files of a part of a library, once nobody works on any.
fn look_for_all_files(handle: &Arc<Handle>) -> Look {
    let Some(view) = open_view(handle) else { return Look::Nothing };
    let mut files = handle.files.lock();
    if !files.is_at_rest() {
        return Look::Later;
    }
    let horizon = view.applied();
    let mut parts = view.parts().filter_map(|part| Some((part, part.all_files(horizon)?)));
    let Some((part, range)) = parts.next() else { return Look::Nothing };
    Look::Found(merge_job(handle, &mut files, part, range, horizon))
}

/// The structure of one of these segments, as long as the library has them.
fn look_for_one_of(engine: &Inner, handle: &Arc<Handle>, awaited: &[Arc<Segment>]) -> Look {
    let Some(view) = open_view(handle) else { return Look::Nothing };
    let mut left = lacking(engine, handle, &view);
    left.retain(|segment| awaited.iter().any(|other| Arc::ptr_eq(segment, other)));
    let mut files = handle.files.lock();
    // What failed before is tried again, so that whoever waits learns why.
    match left.iter().find(|segment| files.is_unclaimed(segment)) {
        Some(segment) => Look::Found(structure_job(handle, &mut files, segment.clone())),
        None if left.is_empty() => Look::Nothing,
        None => Look::Later,
    }
}

fn merge_job(
    handle: &Arc<Handle>,
    files: &mut Files,
    part: &View,
    range: Range<usize>,
    horizon: Seq,
) -> Job {
    let inputs = part.segments()[range].iter().map(|view| view.segment().clone());
    let inputs: Vec<Arc<Segment>> = inputs.collect();
    let claim = Claim::new(handle, files, Work::Merge, inputs.iter().map(Arc::as_ref));
    Job { claim, what: What::Merge(inputs, horizon) }
}

fn structure_job(handle: &Arc<Handle>, files: &mut Files, segment: Arc<Segment>) -> Job {
    let claim = Claim::new(handle, files, Work::Structure, std::iter::once(&*segment));
    Job { claim, what: What::Structure(segment) }
}

impl Job {
    /// Does it; how many dead rows that left out. What is superseded meanwhile (the files were purged,
    /// the library deleted) is dropped.
    async fn perform(self, engine: &Arc<Inner>, handle: &Arc<Handle>) -> Result<u64, EngineError> {
        let Self { claim, what } = self;
        // Whoever removes for good what was deleted waits until this is published, or given up.
        let _writing = handle.writing.read().await;
        // Given back first, so that the one who waits finds what failed.
        let claim = claim;
        let (shared, of) = (engine.clone(), handle.clone());
        match what {
            What::Merge(inputs, horizon) => {
                let merged =
                    blocking(move || Ok(Merged::write(&shared, &of, claim, inputs, horizon)));
                merged.await?.publish(engine, handle).await
            }
            What::Structure(segment) => {
                let built = segment.clone();
                let outcome = blocking(move || write_structure(&shared, &of, &built)).await;
                match outcome {
                    Ok(index) => {
                        let has_it = handle.set_index(segment.clone(), index).await;
                        // One whose writer has died is left alone.
                        if has_it || !holds(handle, std::slice::from_ref(&segment)) {
                            claim.finish();
                        }
                        Ok(0)
                    }
                    Err(error) => {
                        claim.fail(&error);
                        Err(error)
                    }
                }
            }
        }
    }
}

/// Whether a library that takes requests has these segments, side by side.
fn holds(handle: &Handle, segments: &[Arc<Segment>]) -> bool {
    handle.check().is_ok() && open_view(handle).is_some_and(|view| place(&view, segments).is_some())
}

/// Where these segments are in a part of a view, side by side.
fn place<'a>(view: &'a View, segments: &[Arc<Segment>]) -> Option<(&'a View, Range<usize>)> {
    let first = segments.first()?;
    let is_first = |view: &SegmentView| Arc::ptr_eq(view.segment(), first);
    let at = |part: &'a View| Some((part, part.segments().iter().position(is_first)?));
    let (part, at) = view.parts().find_map(at)?;
    let found = part.segments().get(at..at + segments.len())?;
    let mut same = found.iter().zip(segments);
    same.all(|(view, segment)| Arc::ptr_eq(view.segment(), segment))
        .then_some((part, at..at + segments.len()))
}

/// A merge that was written, or failed.
struct Merged {
    claim: Claim,
    inputs: Vec<Arc<Segment>>,
    /// `None` if the library does not have the inputs any more.
    layout: Result<Option<Layout>, EngineError>,
}

impl Merged {
    fn write(
        engine: &Inner,
        handle: &Handle,
        mut claim: Claim,
        inputs: Vec<Arc<Segment>>,
        horizon: Seq,
    ) -> Self {
        let layout = write_merge(engine, handle, &mut claim, &inputs, horizon);
        Self { claim, inputs, layout }
    }

    /// Has the library use it; how many dead rows it left out. What is not used is removed.
    async fn publish(self, engine: &Arc<Inner>, handle: &Arc<Handle>) -> Result<u64, EngineError> {
        let Self { claim, inputs, layout } = self;
        let (number, id) = (claim.output(), handle.id);
        let before: u64 = inputs.iter().map(|input| u64::from(input.rows())).sum();
        let after = layout.as_ref().ok().and_then(Option::as_ref);
        let after = after.map_or(before, |layout| u64::from(layout.merge.rows()));
        let used = match layout {
            Ok(Some(layout)) => handle.relay(layout).await,
            Ok(None) => false,
            Err(error) => {
                remove_output(engine, id, number).await;
                claim.fail(&error);
                return Err(error);
            }
        };
        if used {
            claim.finish();
            return Ok(before - after);
        }
        remove_output(engine, id, number).await;
        // One whose writer has died is left alone.
        if !holds(handle, &inputs) {
            claim.finish();
        }
        Ok(0)
    }
}

/// Removes what was written and is not used: no manifest can have named it.
async fn remove_output(engine: &Arc<Inner>, id: LibraryId, number: Option<u64>) {
    let Some(number) = number else { return };
    let store = engine.store.clone();
    if let Err(error) = blocking(move || store.remove_segment(id, number)).await {
        tracing::warn!(library = %id, %error, "left behind");
    }
}

/// Merges files into one with its structure; `None` if the library does not have them any more.
fn write_merge(
    engine: &Inner,
    handle: &Handle,
    claim: &mut Claim,
    inputs: &[Arc<Segment>],
    horizon: Seq,
) -> Result<Option<Layout>, EngineError> {
    handle.check()?;
    let Some(view) = open_view(handle) else { return Ok(None) };
    let Some((part, range)) = place(&view, inputs) else { return Ok(None) };
    let indexes = part.segments()[range.clone()].iter().filter_map(|view| view.index());
    let freed: usize = indexes.map(|index| index.bytes()).sum();
    let spec = part_of(engine, handle, (&view, part.segments()[range.start].segment()))?;
    let merge = part.plan_merge(range, horizon)?;
    // Before anything is written: what has no room now has none when it is written.
    let bytes = spec.structure_bytes(engine, merge.rows());
    check_memory_room(engine, bytes.saturating_sub(freed as u64))?;
    check_disk_room(engine, merge.file_bytes() + bytes)?;
    let manifest = engine.store.read_manifest(handle.id)?;
    let number = claim.number_output(manifest.map_or(1, |manifest| manifest.next_segment));
    // On the builder's threads, as what it reads and writes is much.
    let stopped = || is_stopped(engine, handle);
    let output = engine.build_pool.install(&stopped, |_executor| {
        engine.store.write_segment(handle.id, number, &merge, &stopped)
    });
    let output = match output {
        Some(Err(_)) | None if stopped() => return Err(EngineError::Closed),
        Some(written) => written?,
        None => return Err(EngineError::Closed),
    };
    let index = match &output {
        Some(segment) => build_structure(engine, handle, spec, segment)?,
        None => None,
    };
    Ok(Some(Layout { merge, output, index }))
}

/// Gives a file of a library the structure that it shall have; `None` if it shall have none.
fn write_structure(
    engine: &Inner,
    handle: &Handle,
    segment: &Arc<Segment>,
) -> Result<Option<Arc<SegmentIndex>>, EngineError> {
    handle.check()?;
    // Purged while this waited: what was removed is not to be written again.
    let Some(view) = open_view(handle).filter(|_open| holds(handle, std::slice::from_ref(segment)))
    else {
        return Ok(None);
    };
    let spec = part_of(engine, handle, (&view, segment))?;
    let bytes = spec.structure_bytes(engine, segment.rows());
    check_memory_room(engine, bytes)?;
    check_disk_room(engine, bytes)?;
    build_structure(engine, handle, spec, segment)
}

/// Builds a file's structure and writes it beside it; `None` if it shall have none.
fn build_structure(
    engine: &Inner,
    handle: &Handle,
    spec: PartSpec,
    segment: &Arc<Segment>,
) -> Result<Option<Arc<SegmentIndex>>, EngineError> {
    let Some(file) = segment.file() else { return Ok(None) };
    if !spec.is_large(engine, segment.rows()) {
        engine.store.remove_index(handle.id, file.number())?;
        return Ok(None);
    }
    let index = engine.build_pool.install(&|| is_stopped(engine, handle), |executor| {
        IndexFile::build(segment, spec.dimension, spec.index, spec.metric, executor)
    });
    let index = index.transpose()?.flatten().ok_or(EngineError::Closed)?;
    engine.store.write_index(handle.id, file, &index, spec.metric)?;
    Ok(Some(Arc::new(index)))
}

fn is_stopped(engine: &Inner, handle: &Handle) -> bool {
    engine.upkeep.is_closing() || handle.check().is_err() || handle.halted.load(Ordering::Relaxed)
}

/// Refuses what would not fit into the memory that libraries may hold.
pub(crate) fn check_memory_room(engine: &Inner, bytes: u64) -> Result<(), EngineError> {
    let (held, budget) = (engine.gauges.memory.total(), engine.config.memory_budget_bytes);
    if held.saturating_add(bytes) <= budget {
        return Ok(());
    }
    Err(EngineError::Invalid {
        field: "/index_config".into(),
        detail: format!(
            "its structure takes about {bytes} bytes of memory, and {} of {budget} are left: it is \
             scanned; raise MEMORY_BUDGET_BYTES, or choose an index or codes that take less",
            budget.saturating_sub(held)
        ),
    })
}

/// Refuses to begin what would fill the disk.
fn check_disk_room(engine: &Inner, bytes: u64) -> Result<(), EngineError> {
    engine.check_disk()?;
    let (free, least) =
        (engine.disk_free_bytes.load(Ordering::Relaxed), engine.config.disk_free_bytes_min);
    if free >= least.saturating_add(bytes) {
        return Ok(());
    }
    Err(EngineError::DiskFull {
        detail: format!(
            "{free} bytes are free for {}, and a merge or an index needs {bytes} and {least} to spare",
            engine.config.data_dir.display()
        ),
    })
}
