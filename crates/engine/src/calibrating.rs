//! How hard a search tries that wants a recall: by what searches of its library were measured to
//! find. Measuring is background work, one library at a time, on the threads of index builds, which
//! give way to everything else.
//!
//! A library is measured when a search first wants a recall of it, or its statistics are asked for.
//! What was measured is kept in memory with it, open or closed, and measured anew when structures
//! were built, when it is asked for and more than a tenth of the rows are in other
//! structures or have died, and after a restart when it is asked for. Until then a search that
//! wants a recall is exact, or, where what was measured is only outdated, makes twice the effort.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use arrwdb_state::{Calibrated, Choice, LibrarySpec, Standing, Tuning, View};
use tokio::sync::mpsc;

use crate::engine::Inner;
use crate::error::EngineError;
use crate::handle::Handle;
use crate::maintenance::blocking;
use crate::request::{RecallBasis, RecallPlan, SearchRequest};
use crate::snapshot::Snapshot;

/// Libraries that may wait to be measured. One that finds the queue full is asked for again by the
/// next search that needs it.
const QUEUE_MAX: usize = 256;

/// What is known of one library.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    calibrated: ArcSwapOption<Calibrated>,
    /// Set while it is asked for and nobody has looked at that.
    wanted: AtomicBool,
    /// Set once somebody has asked.
    asked: AtomicBool,
}

impl Measured {
    pub(crate) fn get(&self) -> Option<Arc<Calibrated>> {
        self.calibrated.load_full()
    }
}

/// The way to the one who measures.
#[derive(Debug, Clone)]
pub(crate) struct Calibrating(mpsc::Sender<Arc<Handle>>);

impl Calibrating {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Arc<Handle>>) {
        let (sender, requests) = mpsc::channel(QUEUE_MAX);
        (Self(sender), requests)
    }

    /// Asks for a library to be measured again, if somebody has asked for that before: measuring
    /// reads its rows some hundred times, which those who name no recall need not pay for.
    pub(crate) fn want_again(&self, handle: &Arc<Handle>) {
        if handle.measured.asked.load(Ordering::Relaxed) {
            self.want(handle);
        }
    }

    /// Asks for a library to be measured, if it has changed, unless that is asked for already.
    pub(crate) fn want(&self, handle: &Arc<Handle>) {
        handle.measured.asked.store(true, Ordering::Relaxed);
        let wanted = &handle.measured.wanted;
        if !wanted.swap(true, Ordering::SeqCst) && self.0.try_send(handle.clone()).is_err() {
            wanted.store(false, Ordering::SeqCst);
        }
    }
}

/// Works until the engine closes.
pub(crate) async fn run(engine: Arc<Inner>, mut requests: mpsc::Receiver<Arc<Handle>>) {
    let closing = engine.upkeep.closing().clone();
    loop {
        let request = tokio::select! {
            () = closing.begun() => return,
            request = requests.recv() => request,
        };
        let Some(handle) = request else { return };
        handle.measured.wanted.store(false, Ordering::SeqCst);
        if let Err(error) = measure(&engine, &handle).await
            && handle.check().is_ok()
        {
            tracing::error!(library = %handle.id, %error, "cannot measure what its searches find");
        }
    }
}

/// Measures a library as it is now, unless what is known holds. One that is closed is left, and one
/// that is being built is measured after that.
async fn measure(engine: &Arc<Inner>, handle: &Arc<Handle>) -> Result<(), EngineError> {
    let Ok(open) = handle.residence() else { return Ok(()) };
    let Some(spec) = engine.catalog.load().get(handle.id).cloned() else { return Ok(()) };
    let view = open.view();
    let known = handle.measured.get();
    let holds = known.is_some_and(|known| known.is_current(&view, spec.index));
    // Of structures that are being replaced nothing is learned; whoever replaces them asks again.
    let mut indexes = view.segments().iter().filter_map(|view| view.index());
    let replaced = indexes.any(|index| !index.spec().builds_as(spec.index));
    if holds || replaced || !view.is_approximate() {
        return Ok(());
    }
    let (shared, of) = (engine.clone(), handle.clone());
    let calibrated = blocking(move || measure_view(&shared, &of, &spec, &view)).await?;
    // Stopped: the library is gone, or the engine closes.
    if let Some(calibrated) = calibrated {
        handle.measured.calibrated.store(Some(Arc::new(calibrated)));
    }
    Ok(())
}

fn measure_view(
    engine: &Inner,
    handle: &Handle,
    spec: &LibrarySpec,
    view: &View,
) -> Result<Option<Calibrated>, EngineError> {
    let started = Instant::now();
    let stopped = || engine.upkeep.is_closing() || handle.check().is_err();
    let measured = engine
        .build_pool
        .install(&stopped, |executor| Calibrated::measure(view, spec.index, spec.metric, executor));
    let measured = measured.transpose()?;
    let seconds = started.elapsed().as_secs_f64();
    tracing::debug!(library = %handle.id, seconds, "measured what its searches find");
    Ok(measured)
}

/// Refuses a recall that is none, or that contradicts an effort.
pub(crate) fn check_recall(request: &SearchRequest) -> Result<(), EngineError> {
    let Some(recall) = request.recall else { return Ok(()) };
    let detail = if !(recall > 0.0 && recall <= 1.0) {
        format!("the recall is {recall}; it has to be above 0 and at most 1")
    } else if request.tuning != Tuning::default() {
        "recall chooses the effort; leave out ef_search, nprobe and exact, or recall".into()
    } else {
        return Ok(());
    };
    Err(EngineError::Invalid { field: "/recall".into(), detail })
}

impl Inner {
    /// The effort for the part `wanted` of the `k` nearest. What is not known well is asked for.
    pub(crate) fn effort_for(&self, snapshot: &Snapshot, k: usize, wanted: f64) -> RecallPlan {
        let (view, spec) = (&*snapshot.view, snapshot.spec.index);
        let plan = |Choice { tuning, recall }, basis| RecallPlan {
            wanted,
            tuning,
            estimated: recall,
            basis,
        };
        if !view.is_approximate() {
            return plan(Choice { tuning: Tuning::default(), recall: 1.0 }, RecallBasis::Exact);
        }
        let calibrated = snapshot.calibrated.as_ref();
        let chosen = calibrated.and_then(|known| known.choose((view, spec), k, wanted));
        let plan = match chosen {
            Some((choice, Standing::Current)) => plan(choice, RecallBasis::Measured),
            Some((choice, _outdated)) => plan(choice, RecallBasis::Outdated),
            None => plan(Choice::EXACT, RecallBasis::Unmeasured),
        };
        // All of the nearest are found by an exact search, whatever is measured.
        if plan.basis != RecallBasis::Measured
            && wanted < 1.0
            && let Ok(handle) = self.active(snapshot.spec.id)
        {
            self.calibrating.want(&handle);
        }
        plan
    }
}
