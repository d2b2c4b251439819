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

use arrwdb_state::{IndexFile, LibrarySpec, Segment, SegmentIndex, SegmentView, Seq, View};
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
    handle.files.lock().forget_failures();
    let mut dropped = 0;
    if target == Target::OneFile {
        let job = wait_for(engine, handle, || look_for_all_files(handle)).await?;
        if let Some(job) = job {
            dropped = job.perform(engine, handle).await?;
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
        job.perform(engine, handle).await?;
    }
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

/// Whether a segment of so many rows is to have a structure.
fn is_large(engine: &Inner, spec: &LibrarySpec, rows: u32) -> bool {
    let bytes = u64::from(rows) * u64::from(spec.dimension) * size_of::<f32>() as u64;
    let large = rows >= engine.config.index_rows_min || bytes >= INDEX_BYTES_MIN;
    large && !spec.index.is_plain()
}

/// The files whose structure is not as the library asks for it.
fn lacking(engine: &Inner, handle: &Handle, view: &View) -> Vec<Arc<Segment>> {
    let Some(spec) = engine.catalog.load().get(handle.id).cloned() else { return Vec::new() };
    let wanting = view.segments().iter().filter(|view| {
        let large = is_large(engine, &spec, view.segment().rows());
        view.segment().file().is_some()
            && match view.index() {
                Some(index) => !large || !index.spec().builds_as(spec.index),
                None => large,
            }
    });
    wanting.map(|view| view.segment().clone()).collect()
}

/// The next job of a lane: merges first, since what they read need not be built.
fn choose(engine: &Inner, handle: &Arc<Handle>, lane: Lane) -> Option<Job> {
    let plain = engine.catalog.load().get(handle.id)?.index.is_plain();
    let view = open_view(handle)?;
    let mut files = handle.files.lock();
    if !plain {
        let horizon = engine.upkeep.horizon();
        let free = |segment: &Segment| files.is_free(Work::Merge, segment);
        if let Some(range) = view.choose_file_merge(horizon, true, &free) {
            let rows = view.segments()[range.clone()].iter().map(|view| view.segment().rows());
            if Lane::of(rows.fold(0, u32::saturating_add)) == lane {
                return Some(merge_job(handle, &mut files, &view, range, horizon));
            }
        }
    }
    let next = lacking(engine, handle, &view).into_iter().find(|segment| {
        Lane::of(segment.rows()) == lane && files.is_free(Work::Structure, segment)
    })?;
    Some(structure_job(handle, &mut files, next))
}

/// The merge of all of a library's files, once nobody works on any.
fn look_for_all_files(handle: &Arc<Handle>) -> Look {
    let Some(view) = open_view(handle) else { return Look::Nothing };
    let mut files = handle.files.lock();
    if !files.is_at_rest() {
        return Look::Later;
    }
    let horizon = view.applied();
    let Some(range) = view.all_files(horizon) else { return Look::Nothing };
    Look::Found(merge_job(handle, &mut files, &view, range, horizon))
}

/// The structure of one of these segments, as long as the library has them.
fn look_for_one_of(engine: &Inner, handle: &Arc<Handle>, awaited: &[Arc<Segment>]) -> Look {
    let Some(view) = open_view(handle) else { return Look::Nothing };
    let mut left = lacking(engine, handle, &view);
    left.retain(|segment| awaited.iter().any(|other| Arc::ptr_eq(segment, other)));
    let mut files = handle.files.lock();
    match left.iter().find(|segment| files.is_free(Work::Structure, segment)) {
        Some(segment) => Look::Found(structure_job(handle, &mut files, segment.clone())),
        None if left.is_empty() => Look::Nothing,
        None => Look::Later,
    }
}

fn merge_job(
    handle: &Arc<Handle>,
    files: &mut Files,
    view: &View,
    range: Range<usize>,
    horizon: Seq,
) -> Job {
    let inputs = view.segments()[range].iter().map(|view| view.segment().clone());
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
        let Self { mut claim, what } = self;
        // Whoever removes for good what was deleted waits until this is published, or given up.
        let _writing = handle.writing.read().await;
        let (shared, of) = (engine.clone(), handle.clone());
        match what {
            What::Merge(inputs, horizon) => {
                let before: u64 = inputs.iter().map(|input| u64::from(input.rows())).sum();
                let merged = blocking(move || {
                    let layout = write_merge(&shared, &of, &mut claim, &inputs, horizon);
                    layout.map(|layout| (claim, layout))
                });
                let (claim, layout) = merged.await?;
                let after = layout.as_ref().map_or(before, |layout| u64::from(layout.merge.rows()));
                let used = match layout {
                    Some(layout) => handle.relay(layout).await,
                    None => false,
                };
                claim.finish();
                Ok(if used { before - after } else { 0 })
            }
            What::Structure(segment) => {
                let built = segment.clone();
                let index = blocking(move || write_structure(&shared, &of, &built)).await?;
                handle.set_index(segment, index).await;
                claim.finish();
                Ok(0)
            }
        }
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
    let Some(view) = open_view(handle) else { return Ok(None) };
    let first = |of: &SegmentView| Arc::ptr_eq(of.segment(), &inputs[0]);
    let Some(at) = view.segments().iter().position(first) else { return Ok(None) };
    let range = at..at + inputs.len();
    let same = |(view, input): (&SegmentView, &Arc<Segment>)| Arc::ptr_eq(view.segment(), input);
    if !view.segments().get(range.clone()).is_some_and(|now| now.iter().zip(inputs).all(same)) {
        return Ok(None);
    }
    let merge = view.plan_merge(range, horizon)?;
    let manifest = engine.store.read_manifest(handle.id)?;
    let number = claim.number_output(manifest.map_or(1, |manifest| manifest.next_segment));
    check_disk_room(engine, merge.file_bytes())?;
    // On the builder's threads, as what it reads and writes is much.
    let output = engine.build_pool.install(&|| is_stopped(engine, handle), |_executor| {
        engine.store.write_segment(handle.id, number, &merge)
    });
    let output = output.ok_or(EngineError::Closed)??;
    let index = match &output {
        Some(segment) => write_structure(engine, handle, segment)?,
        None => None,
    };
    Ok(Some(Layout { merge, output, index }))
}

/// Builds a file's structure and writes it beside it; `None` if it shall have none.
fn write_structure(
    engine: &Inner,
    handle: &Handle,
    segment: &Arc<Segment>,
) -> Result<Option<Arc<SegmentIndex>>, EngineError> {
    let spec = engine.catalog.load().get(handle.id).cloned();
    let spec = spec.ok_or(EngineError::LibraryNotFound(handle.id))?;
    let Some(file) = segment.file() else { return Ok(None) };
    if !is_large(engine, &spec, segment.rows()) {
        engine.store.remove_index(handle.id, file.number())?;
        return Ok(None);
    }
    let bytes = spec.index.build_bytes(spec.dimension as usize, segment.rows());
    check_memory_room(engine, bytes)?;
    check_disk_room(engine, bytes)?;
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
