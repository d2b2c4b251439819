//! One who brings the events of a webhook to where they go.
//!
//! ```text
//! subscription -> window (in the feed's order) -> lanes (one a library) -> attempts, one of a lane
//!                    |                                                         |
//!                 position <-- the beginning of the window that is done <------+
//! ```
//! The events of a library arrive in order: the next is sent when the one before was taken or is a
//! dead letter. Libraries do not wait for each other, as far as the window reaches. With `parallel`,
//! every event is a lane of its own.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrwdb_engine::state::{LibraryId, Seq, Webhook, WebhookId};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::Instant;

use super::message::{Attempt, Message, RETRY_AFTER_MAX, Target, Verdict};
use super::progress::{Progress, Wait};
use super::store::Source;
use super::{DeadLetter, Shared, after};
use crate::error::FeedError;
use crate::event::Position;
use crate::subscription::{Delivery, Subscription};

/// Events that a courier has taken and not dealt with.
const WINDOW_EVENTS: usize = 256;
/// Bytes of their bodies.
const WINDOW_BYTES: usize = 1 << 20;
/// Attempts of one webhook at the same time.
const ATTEMPTS_MAX: usize = 8;
/// How long attempts that are under way are waited for when the courier is to stop.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long nothing is begun while what came of deliveries cannot be written.
const CLOGGED: Duration = Duration::from_secs(1);

/// What waits for what: the events of a library, or one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    Library(Option<LibraryId>),
    Event(u64),
}

/// An event on its way.
#[derive(Debug)]
struct Parcel {
    /// Its number among those of this courier.
    serial: u64,
    place: Position,
    message: Message,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Arc<Parcel>>,
    /// Attempts of the first that failed.
    failed: u32,
    /// Held while the first waits after one.
    retrying: Option<Counted>,
}

/// One of those that are counted, for as long as it lives.
#[derive(Debug)]
struct Counted(Arc<AtomicU64>);

impl Counted {
    fn among(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Places of what was taken, in order, and whether it is dealt with.
#[derive(Debug, Default)]
struct Window {
    /// The serial number of the first.
    base: u64,
    places: VecDeque<(Position, bool)>,
    bytes: usize,
}

impl Window {
    fn push(&mut self, position: Position) -> u64 {
        self.places.push_back((position, false));
        self.base + self.places.len() as u64 - 1
    }

    /// Everything before a place that moved, if one did.
    fn done(&mut self, serial: u64) -> Option<Position> {
        let at = usize::try_from(serial.checked_sub(self.base)?).ok()?;
        self.places.get_mut(at)?.1 = true;
        let mut moved = None;
        while let Some((position, _done)) = self.places.pop_front_if(|(_position, done)| *done) {
            self.base += 1;
            moved = Some(position);
        }
        moved
    }
}

type Trip = Pin<Box<dyn Future<Output = (Key, Arc<Parcel>, Attempt)> + Send>>;

/// Why a courier does not go on.
#[derive(Debug)]
pub(super) enum End {
    /// It was to bring what happened up to here, and did.
    Done,
    /// It was told to stop.
    Stopped,
    /// The receiver wants nothing more.
    Gone,
    /// The feed ended.
    Feed(FeedError),
}

/// What a courier is to bring.
#[derive(Debug)]
pub(super) struct Route {
    /// The webhook as it is now. What a courier was begun with stays as it was.
    pub(super) webhook: watch::Receiver<Arc<Webhook>>,
    pub(super) source: Source,
    /// After what the subscription has passed, up to this record, if there is an end.
    pub(super) through: Option<Seq>,
    /// What the one before knew of what comes after that.
    pub(super) carried: Progress,
}

/// One who brings events to a receiver.
pub(super) struct Courier {
    shared: Arc<Shared>,
    id: WebhookId,
    parallel: bool,
    route: Route,
    /// Documents that were added are called created.
    created: bool,
    target: Arc<Target>,
    subscription: Subscription,
    /// What the subscription has given and is not taken.
    given: Option<Delivery>,
    ended: bool,
    window: Window,
    lanes: HashMap<Key, Lane>,
    /// Lanes of which the next may be sent.
    ready: VecDeque<Key>,
    /// Lanes that wait.
    later: BTreeSet<(Instant, Key)>,
    /// Nothing is begun before, as the receiver has asked.
    held_until: Option<Instant>,
    trips: FuturesUnordered<Trip>,
}

impl Courier {
    pub(super) fn new(
        shared: Arc<Shared>,
        route: Route,
        target: Target,
        subscription: Subscription,
    ) -> Self {
        let webhook = route.webhook.borrow().clone();
        let created = webhook.events.iter().any(|name| name == "document.created");
        let held_until = route.carried.held_until().map(|until| instant(&shared, until));
        Self {
            shared,
            id: webhook.id,
            parallel: webhook.parallel,
            route,
            created,
            target: Arc::new(target),
            subscription,
            given: None,
            ended: false,
            window: Window::default(),
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            later: BTreeSet::new(),
            held_until,
            trips: FuturesUnordered::new(),
        }
    }

    /// Brings events until there are no more, or it is told to stop.
    pub(super) async fn run(mut self, mut stopping: watch::Receiver<bool>) -> End {
        loop {
            let end = tokio::select! {
                end = self.step() => end,
                _stopping = stopping.wait_for(|stopping| *stopping) => Some(End::Stopped),
            };
            match end {
                None => {}
                Some(End::Stopped) => {
                    self.take_leave().await;
                    return End::Stopped;
                }
                Some(end) => return end,
            }
        }
    }

    /// Waits for something to happen and does what it asks for. Nothing is lost where the wait is
    /// given up.
    async fn step(&mut self) -> Option<End> {
        if let Err(end) = self.fill() {
            return Some(end);
        }
        let clogged = self.shared.store.is_clogged();
        let held = self.held_until.filter(|until| *until > Instant::now());
        if !clogged && held.is_none() {
            self.send();
        }
        let wants_more = !self.ended && self.given.is_none() && self.has_room();
        let due = held.or_else(|| self.later.first().map(|(due, _key)| *due));
        let due = if clogged { Some(Instant::now() + CLOGGED) } else { due };
        // One whose events are rare passes what it does not want without a word: how far it has come
        // is looked at now and then.
        let is_idle = wants_more && self.window.places.is_empty();
        let look = is_idle.then(|| Instant::now() + self.shared.tempo.flush_idle);
        let due = due.into_iter().chain(look).min();
        let due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some((key, parcel, attempt)) = self.trips.next() => return self.arrived(key, &parcel, &attempt),
            next = next(&mut self.subscription, self.route.through), if wants_more => {
                return self.given(next);
            }
            () = due => {}
        }
        let now = Instant::now();
        while self.later.first().is_some_and(|(due, _key)| *due <= now)
            && let Some((_due, key)) = self.later.pop_first()
        {
            self.ready.push_back(key);
        }
        None
    }

    fn has_room(&self) -> bool {
        self.window.places.len() < WINDOW_EVENTS && self.window.bytes < WINDOW_BYTES
    }

    /// The subscription has said something.
    fn given(&mut self, next: Result<Option<Delivery>, FeedError>) -> Option<End> {
        match next {
            Ok(Some(delivery)) => self.given = Some(delivery),
            Ok(None) => self.ended = true,
            Err(FeedError::Trimmed { oldest }) => self.skip(oldest),
            Err(error) => return Some(End::Feed(error)),
        }
        None
    }

    /// What is no longer kept cannot be delivered: that is said once.
    fn skip(&mut self, oldest: Seq) {
        let after = self.subscription.position();
        let end = Position::after(Seq::new(oldest.get().saturating_sub(1)));
        tracing::warn!(webhook = %self.id, %after, %oldest, "events for it are no longer kept");
        let error = format!(
            "events after {after} and before {oldest} are no longer kept \
             (EVENT_RETENTION_SECONDS, EVENT_RETENTION_BYTES)"
        );
        let letter = DeadLetter::missing((after, oldest), self.shared.engine.now(), error);
        self.shared.store.bury(self.id, letter);
        self.subscription.seek(end.max(after));
        if self.window.places.is_empty() {
            self.moved(end.max(after), true);
        }
    }

    /// Takes what was given, as far as there is room.
    fn fill(&mut self) -> Result<(), End> {
        while self.has_room()
            && let Some(given) = &mut self.given
        {
            let beyond = |seq| self.route.through.is_some_and(|through| seq > through);
            match given.next() {
                Some(event) if !beyond(event.seq()) => {
                    let place = event.position();
                    let message = Message::of(self.id, event, self.created);
                    self.take_in(place, message);
                }
                Some(_beyond) => (self.given, self.ended) = (None, true),
                None => self.given = None,
            }
        }
        if self.window.places.is_empty() && self.given.is_none() {
            if self.ended {
                return Err(End::Done);
            }
            self.moved(self.subscription.position(), false);
        }
        Ok(())
    }

    /// Takes an event, unless the one before has dealt with it.
    fn take_in(&mut self, place: Position, message: Message) {
        let serial = self.window.push(place);
        if self.route.carried.take_done(place) {
            if let Some(position) = self.window.done(serial) {
                self.moved(position, true);
            }
            return;
        }
        self.window.bytes += message.body.len();
        let key = if self.parallel { Key::Event(serial) } else { Key::Library(message.library) };
        let lane = self.lanes.entry(key).or_default();
        if lane.waiting.is_empty() {
            match self.route.carried.take_wait(place) {
                Some(wait) => {
                    lane.failed = wait.failed;
                    lane.retrying = Some(Counted::among(&self.shared.retrying));
                    self.later.insert((instant(&self.shared, wait.until), key));
                }
                None => self.ready.push_back(key),
            }
        }
        lane.waiting.push_back(Arc::new(Parcel { serial, place, message }));
    }

    fn moved(&self, position: Position, sent: bool) {
        self.shared.store.moved(self.id, self.route.source, position, sent);
    }

    fn note(&self, change: impl FnOnce(&mut Progress)) {
        self.shared.store.note_progress((self.id, self.route.source), change);
    }

    /// A wait from now on.
    fn wait(&self, failed: u32, delay: Duration) -> Wait {
        let now = self.shared.engine.now();
        Wait { failed, noted_at: now.micros(), until: after(now, delay) }
    }

    /// Begins as many attempts as may be under way.
    fn send(&mut self) {
        while self.trips.len() < ATTEMPTS_MAX
            && let Some(key) = self.ready.pop_front()
        {
            let first = self.lanes.get(&key).and_then(|lane| lane.waiting.front());
            let Some(parcel) = first.cloned() else { continue };
            let (target, at) = (self.target.clone(), self.shared.engine.now());
            self.trips.push(Box::pin(async move {
                let attempt = target.send(&parcel.message, at).await;
                (key, parcel, attempt)
            }));
        }
    }

    /// An attempt is over.
    fn arrived(&mut self, key: Key, parcel: &Parcel, attempt: &Attempt) -> Option<End> {
        let webhook = self.route.webhook.borrow().clone();
        let number = self.lanes.get(&key).map_or(0, |lane| lane.failed) + 1;
        let last = number >= webhook.max_retries.max(1);
        if let Some(delay) = attempt.retry_after.filter(|_delay| attempt.is_busy()) {
            // It means the receiver, not the event.
            self.held_until = self.held_until.max(Some(Instant::now() + delay));
            self.note(|progress| progress.holds(self.wait(0, delay)));
        }
        match attempt.verdict {
            Verdict::Delivered => {
                self.shared.attempted(&webhook, &parcel.message, attempt, (number, None));
                self.dealt_with(key, parcel);
            }
            // It was not wanted: the courier ends before it.
            Verdict::Gone => {
                self.shared.attempted(&webhook, &parcel.message, attempt, (number, None));
                return Some(End::Gone);
            }
            Verdict::Failed if last => {
                self.shared.attempted(&webhook, &parcel.message, attempt, (number, None));
                let letter = DeadLetter::of(&parcel.message, attempt, number);
                self.shared.store.bury(webhook.id, letter);
                self.dealt_with(key, parcel);
            }
            Verdict::Failed => {
                let lane = self.lanes.entry(key).or_default();
                lane.failed = number;
                lane.retrying = Some(Counted::among(&self.shared.retrying));
                let bits = self.shared.vault.random_bits();
                let delay = delay(webhook.retry_delay_seconds, number, bits[0]);
                let delay = delay.max(attempt.retry_after.unwrap_or_default());
                self.later.insert((Instant::now() + delay, key));
                self.note(|progress| progress.waits(parcel.place, self.wait(number, delay)));
                self.shared.attempted(&webhook, &parcel.message, attempt, (number, Some(delay)));
            }
        }
        None
    }

    /// A lane goes on to its next.
    fn dealt_with(&mut self, key: Key, parcel: &Parcel) {
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.failed = 0;
            lane.retrying = None;
            lane.waiting.pop_front();
            if lane.waiting.is_empty() {
                self.lanes.remove(&key);
            } else {
                self.ready.push_back(key);
            }
        }
        self.window.bytes = self.window.bytes.saturating_sub(parcel.message.body.len());
        match self.window.done(parcel.serial) {
            Some(position) => self.moved(position, true),
            None => self.note(|progress| progress.done(parcel.place)),
        }
    }

    /// What is under way may still arrive; what does not is sent again after the next start.
    async fn take_leave(mut self) {
        let arriving = async {
            while let Some((key, parcel, attempt)) = self.trips.next().await {
                // One that fails now begins anew later, whatever it was to become.
                if attempt.verdict == Verdict::Delivered {
                    drop(self.arrived(key, &parcel, &attempt));
                }
            }
        };
        drop(tokio::time::timeout(FAREWELL, arriving).await);
        if self.window.places.is_empty() && self.given.is_none() {
            self.moved(self.subscription.position(), false);
        }
    }
}

/// The next that is there. With an end, there is one.
async fn next(
    subscription: &mut Subscription,
    through: Option<Seq>,
) -> Result<Option<Delivery>, FeedError> {
    match through {
        None => subscription.next().await.map(Some),
        Some(_end) => subscription.try_next().await,
    }
}

/// A time by the clock of the machine, as a moment to wait for.
fn instant(shared: &Shared, at: i64) -> Instant {
    let micros = at.saturating_sub(shared.engine.now().micros());
    let delay = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
    Instant::now() + delay.min(RETRY_AFTER_MAX)
}

/// How long after its `number`th failure an event is sent again: twice as long each time, and a
/// quarter more or less, so that receivers do not see all come back at once.
fn delay(seconds: u32, number: u32, random: u8) -> Duration {
    let first = Duration::from_secs(u64::from(seconds));
    let doubled = first.saturating_mul(1_u32 << number.saturating_sub(1).min(20));
    doubled.min(RETRY_AFTER_MAX).saturating_mul(192 + u32::from(random) / 2) / 256
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_moves_past_what_is_dealt_with_and_no_further() {
        let place = |seq| Position::after(Seq::new(seq));
        let mut window = Window::default();
        let serials: Vec<u64> = (1..=4).map(|seq| window.push(place(seq))).collect();
        assert_eq!(window.done(serials[1]), None);
        assert_eq!(window.done(serials[2]), None);
        assert_eq!(window.done(serials[0]), Some(place(3)));
        assert_eq!(window.done(serials[0]), None, "it is past");
        assert_eq!(window.push(place(5)), 4);
        assert_eq!(window.done(serials[3]), Some(place(4)));
        assert_eq!(window.done(4), Some(place(5)));
        assert_eq!(window.done(9), None);
    }

    #[test]
    fn a_delay_doubles_up_to_a_day_and_is_a_quarter_more_or_less() {
        let delay = |seconds, number, random| delay(seconds, number, random).as_secs();
        assert_eq!([delay(60, 1, 0), delay(60, 1, 128), delay(60, 1, 255)], [45, 60, 74]);
        assert_eq!([delay(60, 2, 128), delay(60, 5, 128)], [120, 960]);
        let day = 24 * 3600;
        for number in [11, 32, u32::MAX] {
            assert_eq!(delay(3600, number, 128), day);
            assert!((day * 3 / 4..=day * 5 / 4).contains(&delay(u32::MAX, number, 255)));
        }
    }
}
