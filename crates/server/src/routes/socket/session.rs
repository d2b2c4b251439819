//! One WebSocket from its welcome to its goodbye.
//!
//! Everything of a socket runs in one task: what comes, what is answered and what is pushed cannot
//! overtake each other in ways that nobody wrote down.
//!
//! - **V4** Every request is answered exactly once, by its `request_id`, whatever becomes of it.
//! - **V5** The answer to a write leaves before the events that the write causes: an event of a
//!   document that is being written here waits for that answer.
//! - **V6** What waits for a client is bounded: events wait in the feed, answers beside the requests
//!   that are under way and count as those do, and no request is read while there is no room for its
//!   answer. What is under way goes on meanwhile: it holds turns that others wait for.

mod requests;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrwdb_engine::state::{DocumentId, Seq};
use arrwdb_feed::{Delivery, EventData, FeedError, Position, Subscription};
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, close_code};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::frame::{self, Envelope};
use super::live::{LiveQueries, Push};
use super::outlet::{Io, Outlet};
use super::perform::{Place, Watched};
use super::registry::{Member, Registered};
use crate::connections::ConnectionSlot;
use crate::limits::{SOCKET_MESSAGE_TIME_MAX, SOCKET_PINGS_MISSED_MAX, SOCKET_SESSIONS_MAX};
use crate::problem::Problem;
use crate::progress::Received;

/// How a socket begins.
pub(super) struct Opening {
    pub(super) place: Place,
    pub(super) registered: Registered,
    pub(super) subscription: Subscription,
    pub(super) client: Option<IpAddr>,
    /// The connection's share of how many may be open.
    pub(super) slot: Option<ConnectionSlot>,
    /// How much has come over the connection.
    pub(super) received: Option<Received>,
}

/// A request that is done.
struct Done {
    request_id: String,
    outcome: Result<String, Problem>,
    effect: Effect,
}

/// What an answer means for the socket.
enum Effect {
    Nothing,
    Wrote(DocumentId),
    Searched {
        session: String,
        text: Option<String>,
    },
    /// A live query begins, unless its first search failed.
    Watches(Option<Box<Watched>>),
}

/// Why a socket is closed.
struct Goodbye(u16, String);

/// How a socket ends.
enum End {
    /// Nobody is there any more.
    Gone,
    Close(Goodbye),
}

/// One WebSocket.
pub(super) struct Session {
    place: Place,
    outlet: Outlet,
    registered: Registered,
    subscription: Subscription,
    /// Whether events are pushed at all.
    subscribed: bool,
    delivery: Option<Delivery>,
    /// An event that waits for the answer to a write, or for room.
    held: Option<(Option<DocumentId>, Position, String)>,
    /// All events up to here were put in line.
    sent: Position,
    requests: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Requests that are done, while there is no room for their answers.
    finished: VecDeque<Done>,
    /// Documents that are being written, each with how many times.
    writes: HashMap<DocumentId, usize>,
    live: LiveQueries,
    member: Member,
    pushes: mpsc::Receiver<Utf8Bytes>,
    client: Option<IpAddr>,
    /// Messages of the current second.
    second: (Instant, u64),
    pinged: Instant,
    /// Pings since something was heard.
    missed: u32,
    /// Set once the server is about to stop: the time until which answers are waited for.
    stop_at: Option<Instant>,
    _slot: Option<ConnectionSlot>,
}

/// What happened.
enum Step {
    Io(Io),
    Done(Box<Done>),
    Events(Result<Delivery, FeedError>),
    Shared(Utf8Bytes),
    Live(Push),
    Overflow,
    Stop,
    Tick,
}

impl Session {
    pub(super) fn new(socket: WebSocket, opening: Opening) -> Self {
        let Opening { place, registered, subscription, client, slot, received } = opening;
        let app = &place.app;
        let config = &app.config().sockets;
        let (push, pushes) = mpsc::channel(config.pending_max);
        let (connection, overflow) = (registered.connection, Arc::new(Notify::new()));
        let owner = (place.principal.tenant, place.library);
        let live = LiveQueries::new(
            app.feed().clone(),
            app.engine().clone(),
            owner,
            app.sockets().clone(),
        );
        let now = Instant::now();
        Self {
            outlet: Outlet::new(socket, config.pending_max).counting(received, app.sockets()),
            sent: subscription.position(),
            subscription,
            subscribed: true,
            delivery: None,
            held: None,
            requests: FuturesUnordered::new(),
            finished: VecDeque::new(),
            writes: HashMap::new(),
            live,
            member: Member { connection, pushes: push, bytes: Arc::default(), overflow },
            pushes,
            client,
            second: (now, 0),
            pinged: now,
            missed: 0,
            stop_at: None,
            registered,
            place,
            _slot: slot,
        }
    }

    /// Serves it to its end.
    pub(super) async fn run(mut self, welcome: bool, session: Option<String>) {
        if welcome {
            let (library, tenant) = (self.place.library, self.place.principal.tenant);
            self.outlet.push(frame::welcome(library, self.registered.connection, tenant));
        }
        if let Some(session) = session {
            self.registered.join(&session, &self.member, SOCKET_SESSIONS_MAX);
        }
        let mut stopping = Box::pin(self.place.app.stopping());
        let end = loop {
            self.put_answers();
            self.put_events();
            let step = self.step(stopping.as_mut()).await;
            if let Some(end) = self.take(step) {
                break end;
            }
        };
        let End::Close(Goodbye(code, reason)) = end else { return };
        let Self { outlet, registered, .. } = self;
        outlet.close(code, &reason, registered.counters()).await;
    }

    /// Waits for the next thing that happens.
    async fn step(&mut self, stopping: Pin<&mut (impl Future<Output = ()> + Send)>) -> Step {
        let deadline = self.deadline();
        let stops = self.stop_at.is_some();
        let Self { outlet, requests, subscription, live, pushes, member, .. } = self;
        let room = outlet.has_room();
        let counters = self.registered.counters();
        let wants_events =
            room && self.subscribed && self.delivery.is_none() && self.held.is_none();
        tokio::select! {
            () = stopping, if !stops => Step::Stop,
            io = outlet.io(room && !stops, counters) => Step::Io(io),
            Some(done) = requests.next(), if !requests.is_empty() => Step::Done(Box::new(done)),
            events = subscription.next(), if wants_events && !stops => Step::Events(events),
            Some(text) = pushes.recv(), if room && !stops => Step::Shared(text),
            push = live.next(room && !stops), if !live.is_idle() => Step::Live(push),
            () = member.overflow.notified() => Step::Overflow,
            () = tokio::time::sleep_until(deadline) => Step::Tick,
        }
    }

    /// When to look at the time again.
    fn deadline(&self) -> Instant {
        let config = self.place.app.config();
        let mut deadline = self.pinged + config.sockets.ping;
        if !self.outlet.is_empty() {
            let look = (config.events.stall / 4).max(Duration::from_millis(50));
            deadline = deadline.min(Instant::now() + look);
        }
        if let Some(began) = self.outlet.arriving_since() {
            deadline = deadline.min(began + self.message_time());
        }
        self.stop_at.map_or(deadline, |stop_at| deadline.min(stop_at))
    }

    /// How long a message may take to arrive.
    fn message_time(&self) -> Duration {
        self.place.app.config().load.stream_idle_timeout.min(SOCKET_MESSAGE_TIME_MAX)
    }

    /// Takes what happened. `Some` at the end.
    fn take(&mut self, step: Step) -> Option<End> {
        let goodbye = match step {
            Step::Io(Io::Message(message)) => self.message(message),
            Step::Io(Io::Room | Io::Part) => None,
            Step::Io(Io::Full) => {
                let reason = "the memory for messages is full; try again later".to_owned();
                Some(Goodbye(close_code::AGAIN, reason))
            }
            Step::Io(Io::Gone) => return Some(End::Gone),
            Step::Io(Io::Broken(error)) => Some(self.broken(&error)),
            Step::Done(done) => {
                self.finished.push_back(*done);
                None
            }
            Step::Events(Ok(delivery)) => {
                self.delivery = Some(delivery);
                None
            }
            Step::Events(Err(error)) => self.feed_failed(&error),
            Step::Shared(text) => {
                self.member.took(&text);
                self.outlet.push(text);
                None
            }
            Step::Live(push) => {
                self.outlet.push(serde_json::to_string(&push).unwrap_or_default());
                None
            }
            Step::Overflow => Some(self.cut_off("too many results of its session wait to be read")),
            Step::Stop => {
                let longest = self.place.app.config().load.shutdown_timeout;
                self.stop_at = Some(Instant::now() + longest);
                None
            }
            Step::Tick => self.tick(),
        };
        if let Some(goodbye) = goodbye {
            return Some(End::Close(goodbye));
        }
        let stop_at = self.stop_at?;
        // Answers first; an event that is held waits for none.
        let answered = self.requests.is_empty() && self.finished.is_empty();
        let done = answered && self.outlet.is_empty();
        (done || Instant::now() >= stop_at)
            .then(|| End::Close(Goodbye(close_code::AWAY, "the server stops".to_owned())))
    }

    fn tick(&mut self) -> Option<Goodbye> {
        let config = self.place.app.config();
        if self.outlet.stands(config.events.stall) {
            let seconds = config.events.stall.as_secs();
            return Some(self.cut_off(&format!("nothing was read for {seconds} s")));
        }
        let now = Instant::now();
        let longest = self.message_time();
        if self.outlet.arriving_since().is_some_and(|began| now >= began + longest) {
            let seconds = longest.as_secs();
            let reason = format!("a message has to be there in full within {seconds} s");
            return Some(Goodbye(close_code::POLICY, reason));
        }
        if now < self.pinged + config.sockets.ping {
            return None;
        }
        self.pinged = now;
        // While there is no room nothing is read, so that nothing can be heard either; and what
        // waits to be read asks for a sign of life as well as a ping does.
        if !self.outlet.has_room() {
            return None;
        }
        if self.missed >= SOCKET_PINGS_MISSED_MAX {
            let reason = format!("no answer to {SOCKET_PINGS_MISSED_MAX} pings");
            return Some(Goodbye(close_code::POLICY, reason));
        }
        self.missed += 1;
        self.outlet.ping();
        None
    }

    /// The client does not read. It learns where it can go on, if it ever does.
    fn cut_off(&self, why: &str) -> Goodbye {
        self.registered.counters().cut_off.fetch_add(1, Ordering::Relaxed);
        self.place.app.feed().note_cut_off();
        Goodbye(close_code::AGAIN, format!("{why}; resume with after={}", self.sent))
    }

    fn broken(&self, error: &axum::Error) -> Goodbye {
        tracing::debug!("a WebSocket is broken: {error}");
        let text = error.to_string();
        if text.contains("too long") || text.contains("too big") {
            let max = self.place.app.config().sockets.message_bytes_max;
            return Goodbye(close_code::SIZE, format!("a message may have {max} bytes"));
        }
        Goodbye(close_code::PROTOCOL, text)
    }

    fn feed_failed(&mut self, error: &FeedError) -> Option<Goodbye> {
        match error {
            FeedError::Trimmed { oldest } => {
                self.outlet.push(frame::reset(self.sent, *oldest));
                self.sent = Position::after(Seq::new(oldest.get().saturating_sub(1)));
                self.subscription.seek(self.sent);
                None
            }
            FeedError::Closed => Some(Goodbye(close_code::AWAY, "the server stops".to_owned())),
            FeedError::LibraryNotFound(_) | FeedError::Engine(_) => {
                tracing::error!("a socket cannot follow the feed any longer: {error}");
                Some(Goodbye(close_code::ERROR, "the feed failed".to_owned()))
            }
        }
    }

    /// Puts answers in line, as many as there is room for.
    fn put_answers(&mut self) {
        while self.outlet.has_room() {
            let Some(done) = self.finished.pop_front() else { return };
            self.done(done);
        }
    }

    /// All events up to here were put in line, or are not wanted.
    fn seen(&self) -> Position {
        if self.delivery.is_some() || self.held.is_some() {
            return self.sent;
        }
        self.sent.max(self.subscription.position())
    }

    /// Goes on after a place. Events that are at hand are let go: they may be wanted no longer.
    fn go_on(&mut self, after: Position) {
        (self.delivery, self.held, self.sent) = (None, None, after);
        self.subscription.seek(after);
    }

    /// Puts events in line, as many as there is room for.
    fn put_events(&mut self) {
        while self.outlet.has_room() {
            if let Some((document, position, text)) = self.held.take() {
                if document.is_some_and(|document| self.writes.contains_key(&document)) {
                    self.held = Some((document, position, text));
                    return;
                }
                self.outlet.push(text);
                self.sent = position;
            }
            let Some(event) = self.delivery.as_mut().and_then(Delivery::next) else {
                self.delivery = None;
                return;
            };
            self.held = Some((document_of(event.data()), event.position(), frame::event(event)));
        }
    }

    /// A message came.
    fn message(&mut self, message: Message) -> Option<Goodbye> {
        self.missed = 0;
        let bytes = match message {
            Message::Text(text) => axum::body::Bytes::from(text),
            Message::Binary(bytes) => bytes,
            // Answered by themselves; after a goodbye nothing more comes.
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => return None,
        };
        // Whatever it says, it counts.
        let counted = self.count_message(self.place.app.config().sockets.messages_per_second);
        let counters = self.registered.counters();
        counters.received.fetch_add(1, Ordering::Relaxed);
        let envelope = match Envelope::read(&bytes) {
            Ok(envelope) => envelope,
            Err(refusal) => {
                let refusal = match &counted {
                    Ok(()) => refusal,
                    Err(problem) => refusal.because(problem),
                };
                counters.failures.fetch_add(1, Ordering::Relaxed);
                self.outlet.push(frame::Refusal::write(&refusal));
                return None;
            }
        };
        counters.requests.fetch_add(1, Ordering::Relaxed);
        let begun = counted.and_then(|()| self.request(&envelope, bytes.len()));
        if let Err(problem) = begun {
            let (request_id, outcome) = (envelope.request_id, Err(problem));
            self.done(Done { request_id, outcome, effect: Effect::Nothing });
        }
        None
    }
}

/// The document that an event is of, where it is of one.
fn document_of(data: &EventData) -> Option<DocumentId> {
    if let EventData::DocumentAdded(document) | EventData::DocumentUpdated(document) = data {
        return Some(document.document_id);
    }
    if let EventData::DocumentDeleted { document_id, .. } = data {
        return Some(*document_id);
    }
    if let EventData::ChunkAdded(chunk) | EventData::ChunkDeleted(chunk) = data {
        return Some(chunk.document_id);
    }
    None
}
