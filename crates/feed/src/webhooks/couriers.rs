//! Who is under way: a courier for each webhook that is to have one, and one for what it is sent
//! again. One that ends by an error is begun again.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrwdb_engine::EngineError;
use arrwdb_engine::state::{Seq, Webhook, WebhookId, WebhookStatus};
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::courier::{Courier, End, Route};
use super::store::Source;
use super::{DeadLetter, Shared, WebhooksError, engine_error, types_of};
use crate::event::Position;
use crate::event_type::{EventType, EventTypes};
use crate::filter::Filter;

/// The longest that one that ended by an error is left alone.
const AGAIN_MAX: Duration = Duration::from_mins(1);
/// Doublings of the delay after which it is the longest in any case.
const DOUBLINGS_MAX: u32 = 16;

/// Couriers by what they bring to whom.
pub(super) type Couriers = HashMap<(WebhookId, Source), Running>;

/// A courier on its way.
#[derive(Debug)]
pub(super) struct Running {
    /// The webhook as it is now.
    webhook: watch::Sender<Arc<Webhook>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    state: Arc<State>,
}

/// How a courier is.
#[derive(Debug, Default)]
struct State {
    /// Nothing more comes of it.
    is_over: AtomicBool,
    /// Why it does not deliver at the moment.
    trouble: Mutex<Option<String>>,
}

impl Running {
    /// Tells it to end.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until it has.
    pub(super) async fn ended(self) {
        // One that panicked has said so.
        self.task.await.unwrap_or_default();
    }

    fn is_over(&self) -> bool {
        self.state.is_over.load(Ordering::SeqCst)
    }
}

/// Says that a courier is over, in whatever way it comes to be so.
struct Ending(Arc<Shared>, Arc<State>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.1.is_over.store(true, Ordering::SeqCst);
        self.0.changed.notify_one();
    }
}

impl Shared {
    /// Has a courier under way for every webhook that is to have one.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut applied = self.engine.work_applied();
        let mut stopping = self.stopping.subscribe();
        let mut arranged: Vec<Arc<Webhook>> = Vec::new();
        let mut rung = true;
        loop {
            applied.borrow_and_update();
            // Looked at first: what is made meanwhile is not taken for what is gone.
            let known = self.store.known();
            match self.engine.webhooks(None).await {
                Ok((webhooks, _seq)) if rung || !are_same(&webhooks, &arranged) => {
                    self.arrange(&webhooks, &known);
                    arranged = webhooks;
                }
                // Most records of work are of jobs.
                Ok((_webhooks, _seq)) => {}
                Err(error) => tracing::error!(%error, "webhooks cannot be read"),
            }
            rung = tokio::select! {
                changed = applied.changed() => if changed.is_err() { return } else { false },
                () = self.changed.notified() => true,
                _stopping = stopping.wait_for(|stopping| *stopping) => return,
            };
        }
    }

    /// Tells those to end that are not wanted any more, and has those set out that are.
    pub(super) fn arrange(self: &Arc<Self>, webhooks: &[Arc<Webhook>], known: &[WebhookId]) {
        let now: HashMap<WebhookId, &Arc<Webhook>> =
            webhooks.iter().map(|webhook| (webhook.id, webhook)).collect();
        let mut couriers = self.couriers.lock();
        couriers.retain(|(id, source), running| {
            match now.get(id).filter(|webhook| self.wants(webhook, *source)) {
                Some(webhook) if is_same_way(webhook, &running.webhook.borrow()) => {
                    running.webhook.send_replace(Arc::clone(webhook));
                }
                Some(_) | None => running.stop(),
            }
            !running.is_over()
        });
        let under_way: HashSet<WebhookId> = couriers.keys().map(|(id, _source)| *id).collect();
        for id in known {
            // What one notes that is about to end is forgotten with the rest.
            if !now.contains_key(id) && !under_way.contains(id) {
                self.store.forget(*id);
            }
        }
        for webhook in webhooks {
            let replay = self.store.replay(webhook.id).map(|replay| Source::Replay(replay.run));
            for source in [Source::Live].into_iter().chain(replay) {
                if self.wants(webhook, source) {
                    self.set_out(&mut couriers, webhook, source);
                }
            }
        }
    }

    fn wants(&self, webhook: &Webhook, source: Source) -> bool {
        webhook.status == WebhookStatus::Active
            && match source {
                Source::Live => true,
                Source::Replay(run) => {
                    self.store.replay(webhook.id).is_some_and(|replay| replay.run == run)
                }
            }
    }

    fn set_out(self: &Arc<Self>, couriers: &mut Couriers, webhook: &Arc<Webhook>, source: Source) {
        if *self.stopping.borrow() {
            return;
        }
        let before = match couriers.entry((webhook.id, source)) {
            Entry::Occupied(running) if !*running.get().stop.borrow() => return,
            Entry::Occupied(running) => Some(running.remove().task),
            Entry::Vacant(_nobody) => None,
        };
        let (stop, stopping) = watch::channel(false);
        let state = Arc::new(State::default());
        let (sender, webhook) = watch::channel(webhook.clone());
        let key = (webhook.borrow().id, source);
        let (shared, about) = (self.clone(), (webhook, source));
        let traveling = state.clone();
        let task = tokio::spawn(async move {
            // Two must not be under way to one: it waits for the one before, and nobody else does.
            if let Some(before) = before {
                before.await.unwrap_or_default();
            }
            shared.travel(about, stopping, traveling).await;
        });
        couriers.insert(key, Running { webhook: sender, stop, task, state });
    }

    /// One courier from its beginning to its end, and the next where that was an error.
    async fn travel(
        self: Arc<Self>,
        (webhook, source): (watch::Receiver<Arc<Webhook>>, Source),
        stopping: watch::Receiver<bool>,
        state: Arc<State>,
    ) {
        let _ending = Ending(self.clone(), state.clone());
        let id = webhook.borrow().id;
        let trip = || self.trip((&webhook, source), &stopping, &state);
        let say = |error: String| {
            let before = state.trouble.lock().replace(error.clone());
            if before.as_ref() != Some(&error) {
                tracing::warn!(webhook = %id, error, "nothing is delivered to it at the moment");
            }
        };
        persist(self.tempo.again, stopping.clone(), trip, say).await;
    }

    async fn trip(
        self: &Arc<Self>,
        (now, source): (&watch::Receiver<Arc<Webhook>>, Source),
        stopping: &watch::Receiver<bool>,
        state: &State,
    ) -> Result<(), WebhooksError> {
        let webhook = now.borrow().clone();
        let mut told = stopping.clone();
        let courier = tokio::select! {
            courier = self.courier(now.clone(), source) => courier?,
            _stopping = told.wait_for(|stopping| *stopping) => return Ok(()),
        };
        *state.trouble.lock() = None;
        match courier.run(told).await {
            End::Stopped => Ok(()),
            End::Done => {
                if let Source::Replay(run) = source {
                    self.store.end_replay(webhook.id, run);
                }
                tracing::info!(webhook = %webhook.id, "a replay is done");
                Ok(())
            }
            End::Gone => self.disable(&webhook).await,
            End::Feed(error) => Err(engine_error(error)),
        }
    }

    async fn courier(
        self: &Arc<Self>,
        now: watch::Receiver<Arc<Webhook>>,
        source: Source,
    ) -> Result<Courier, WebhooksError> {
        let webhook = &now.borrow().clone();
        let target = self.target(webhook)?;
        self.store.set_gone(webhook.id, false);
        let carried = self.store.progress(webhook.id, source);
        let (after, through) = match (source, self.store.replay(webhook.id)) {
            (Source::Live, _) => {
                self.say_what_is_lost(webhook);
                (self.begin(webhook), None)
            }
            (Source::Replay(run), Some(replay)) if replay.run == run => {
                let through = Seq::new(replay.to).min(self.engine.durable());
                // What was durable when it was asked for is told of.
                self.feed.reached(through).await;
                let begin = Position::after(Seq::new(replay.from.saturating_sub(1)));
                (replay.progress.position().unwrap_or(begin), Some(through))
            }
            // One that is over has nothing to bring.
            (Source::Replay(_run), _) => (self.begin(webhook), Some(Seq::START)),
        };
        // A name that a newer release knew is of no event here.
        let known = webhook.events.iter().filter_map(|name| types_of([&**name]).ok());
        let known: Vec<EventTypes> = known.collect();
        let wanted = |event: &EventType| known.iter().any(|types| types.contains(*event));
        let types = EventType::ALL.into_iter().filter(wanted).collect();
        let filter = Filter { types, ..Filter::of(webhook.tenant) };
        let subscription = self.feed.subscribe(filter, Some(after)).map_err(engine_error)?;
        let carried = carried.waits_since(webhook.updated_at.micros());
        let route = Route { webhook: now, source, through, carried };
        Ok(Courier::new(self.clone(), route, target, subscription))
    }

    /// A store that is newer than the webhook does not know what that was sent before. It goes on from
    /// there; that something may be missing is said once.
    fn say_what_is_lost(&self, webhook: &Webhook) {
        let (id, made_at) = (webhook.id, self.store.made_at);
        if webhook.after >= made_at || self.store.position(id).is_some() {
            return;
        }
        let (after, end) = (Position::after(webhook.after), Position::after(made_at));
        let error = format!(
            "which events after {after} and up to {end} were delivered is not known: \
             work/deliveries.redb was lost, or a backup restored; replay those that may be missing"
        );
        tracing::warn!(webhook = %id, %after, %end, "what it was sent is not known");
        let before = Seq::new(made_at.get().saturating_add(1));
        let letter = DeadLetter::missing((after, before), self.engine.now(), error);
        self.store.bury(id, letter);
        self.store.moved(id, Source::Live, end, true);
    }

    /// The receiver has said that it wants nothing more.
    async fn disable(&self, webhook: &Webhook) -> Result<(), WebhooksError> {
        let _turn = self.changing.lock().await;
        let now = match self.engine.webhook((webhook.tenant, webhook.id), None).await {
            Ok((now, _seq)) => now,
            Err(EngineError::WebhookNotFound(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        // One that was changed meanwhile may lead elsewhere.
        if !is_same_way(&now, webhook) {
            return Ok(());
        }
        let mut disabled = Webhook::clone(&now);
        disabled.status = WebhookStatus::Disabled;
        disabled.updated_at = self.engine.now();
        // Of one that is active this says nothing, should it come to no more than that.
        self.store.set_gone(webhook.id, true);
        self.engine.change_webhook(disabled).await?;
        tracing::warn!(webhook = %webhook.id, "it is disabled: the receiver said 410");
        Ok(())
    }

    /// How many couriers deliver, and how many do not at the moment.
    pub(super) fn under_way(&self) -> (u64, u64) {
        let couriers = self.couriers.lock();
        let under_way = couriers.values().filter(|running| !running.is_over());
        under_way.fold((0, 0), |(well, ill), running| match &*running.state.trouble.lock() {
            None => (well + 1, ill),
            Some(_error) => (well, ill + 1),
        })
    }

    /// Why nothing is delivered to a webhook at the moment. What one met that was begun before a change says
    /// nothing of the webhook as it is.
    pub(super) fn trouble(&self, webhook: &Webhook) -> Option<String> {
        let couriers = self.couriers.lock();
        let of = couriers.iter().filter(|((id, _source), _running)| *id == webhook.id);
        let mut of = of.filter(|(_key, running)| is_same_way(webhook, &running.webhook.borrow()));
        of.find_map(|(_key, running)| running.state.trouble.lock().clone())
    }
}

/// Whether a courier that was begun for the one can go on for the other.
fn is_same_way(one: &Webhook, other: &Webhook) -> bool {
    (&one.url, &one.events, &one.secrets) == (&other.url, &other.events, &other.secrets)
        && (one.timeout_seconds, one.parallel) == (other.timeout_seconds, other.parallel)
        && one.status == other.status
}

fn are_same(these: &[Arc<Webhook>], those: &[Arc<Webhook>]) -> bool {
    let mut pairs = these.iter().zip(those);
    these.len() == those.len() && pairs.all(|(this, that)| Arc::ptr_eq(this, that))
}

/// Does something until it is done, or to be done no more. What ends by an error, or a panic, is said
/// and begun again, after a delay that doubles each time.
async fn persist<F: Future<Output = Result<(), WebhooksError>>>(
    first: Duration,
    mut stopping: watch::Receiver<bool>,
    mut begin: impl FnMut() -> F,
    say: impl Fn(String),
) {
    let mut failed = 0;
    while !*stopping.borrow() {
        let began = Instant::now();
        let error = match AssertUnwindSafe(begin()).catch_unwind().await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_panic) => "what delivers to it stopped, as the server's log says".to_owned(),
        };
        say(error);
        failed = if began.elapsed() > AGAIN_MAX { 0 } else { failed };
        let delay = first.saturating_mul(1 << failed.min(DOUBLINGS_MAX)).min(AGAIN_MAX);
        failed += 1;
        let stopped = stopping.wait_for(|stopping| *stopping);
        drop(tokio::time::timeout(delay, stopped).await);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[tokio::test]
    async fn what_fails_or_panics_is_begun_again_until_it_is_done_or_stopped() {
        let moment = Duration::from_millis(1);
        let (stop, stopping) = watch::channel(false);
        let (begun, said) = (AtomicU32::new(0), Mutex::new(Vec::new()));
        let begin = |done: u32| {
            let begun = &begun;
            move || async move {
                match begun.fetch_add(1, Ordering::SeqCst) {
                    0 => panic!("as it was asked to"),
                    n if n < done => Err(WebhooksError::Unreadable),
                    _done => Ok(()),
                }
            }
        };
        persist(moment, stopping.clone(), begin(3), |error| said.lock().push(error)).await;
        assert_eq!(begun.swap(1, Ordering::SeqCst), 4);
        assert_eq!(said.lock().len(), 3);
        assert!(said.lock()[0].contains("log"), "{said:?}");
        // One that is stopped while it waits is begun no more.
        let ended = persist(AGAIN_MAX, stopping, begin(u32::MAX), |_error| {
            stop.send_replace(true);
        });
        tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
        assert_eq!(begun.load(Ordering::SeqCst), 2);
    }
}
