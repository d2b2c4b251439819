//! The requests of a socket: begun, answered, and what an answer means for the rest.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrwdb_engine::EngineError;
use arrwdb_engine::state::DocumentId;
use arrwdb_feed::{EventType, EventTypes, Position};
use futures_util::FutureExt;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::{Done, Effect, Session};
use crate::limits::{ADMISSION_RETRY_AFTER, ADMISSION_WAIT_MAX, SOCKET_SESSIONS_MAX};
use crate::problem::{self, Problem};
use crate::routes::socket::frame::{self, Action, Envelope, Find, Subscribe};
use crate::routes::socket::perform::Watched;

impl Session {
    /// Begins a request, or answers it at once.
    pub(super) fn request(&mut self, envelope: &Envelope<'_>, bytes: usize) -> Result<(), Problem> {
        let action = envelope.action(&self.place.app.config().limits)?;
        let answer = match action {
            Action::Ping => Ok("{\"pong\":true}".to_owned()),
            Action::Subscribe(subscribe) => self.subscribe(subscribe),
            Action::Unsubscribe(types) => Ok(self.unsubscribe(types)),
            Action::Unwatch(id) => self.unwatch(&id),
            Action::Search(_)
            | Action::Watch(_)
            | Action::Add(_)
            | Action::Update(..)
            | Action::Delete(_)
            | Action::Get(..) => return self.begin(&envelope.request_id, action, bytes),
        };
        let (request_id, effect) = (envelope.request_id.clone(), Effect::Nothing);
        self.done(Done { request_id, outcome: Ok(answer?), effect });
        Ok(())
    }

    pub(super) fn count_message(&mut self, max: u64) -> Result<(), Problem> {
        let now = Instant::now();
        let (began, count) = &mut self.second;
        if now - *began >= Duration::from_secs(1) {
            (*began, *count) = (now, 0);
        }
        *count += 1;
        if *count <= max {
            return Ok(());
        }
        let detail = format!("Rate limit exceeded: {max} messages per second");
        Err(Problem::new(&problem::RATE_LIMITED, detail))
    }

    /// A share of the memory of bodies, and of how many requests may be under way.
    fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let app = &self.place.app;
        let busy = |detail: String| {
            Problem::new(&problem::BUSY, detail).retry_after(ADMISSION_RETRY_AFTER)
        };
        let max = app.config().sockets.requests_max;
        if self.requests.len() + self.finished.len() >= max {
            let detail = format!("busy: {max} requests of this connection are under way");
            return Err(busy(detail));
        }
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let room = app.bodies().clone().try_acquire_many_owned(kib);
        room.map_err(|_full| busy("busy: the memory for requests is full".to_owned()))
    }

    /// Begins what takes time.
    fn begin(&mut self, request_id: &str, action: Action, bytes: usize) -> Result<(), Problem> {
        let room = self.room(bytes)?;
        self.check_rate(&action)?;
        let begun = (request_id, room);
        let place = self.place.clone();
        match action {
            Action::Search(find) => return self.begin_search(begun, find),
            Action::Watch(find) => return self.begin_watch(begun, find),
            Action::Add(mut document) => {
                let id = document.id.unwrap_or_else(|| place.app.engine().new_document_id());
                document.id = Some(id);
                self.begin_write(begun, id, async move { place.add(*document).await });
            }
            Action::Update(id, patch) => {
                self.begin_write(begun, id, async move { place.update(id, *patch).await });
            }
            Action::Delete(id) => {
                self.begin_write(begun, id, async move { place.delete(id).await });
            }
            Action::Get(target) => {
                let work = async move { (place.get(target).await, Effect::Nothing) };
                self.spawn(begun, work, Effect::Nothing);
            }
            Action::Subscribe(_) | Action::Unsubscribe(_) | Action::Unwatch(_) | Action::Ping => {}
        }
        Ok(())
    }

    fn begin_write(
        &mut self,
        begun: (&str, OwnedSemaphorePermit),
        id: DocumentId,
        work: impl Future<Output = Result<String, Problem>> + Send + 'static,
    ) {
        *self.writes.entry(id).or_default() += 1;
        self.spawn(begun, async move { (work.await, Effect::Wrote(id)) }, Effect::Wrote(id));
    }

    fn begin_search(
        &mut self,
        begun: (&str, OwnedSemaphorePermit),
        find: Box<Find>,
    ) -> Result<(), Problem> {
        let effect = match &find.session {
            None => Effect::Nothing,
            Some(session) => {
                self.join(session)?;
                let text = find.text().map(str::to_owned);
                Effect::Searched { session: session.clone(), text }
            }
        };
        let place = self.place.clone();
        let work = async move { (place.search(find).await, effect) };
        self.spawn(begun, work, Effect::Nothing);
        Ok(())
    }

    fn begin_watch(
        &mut self,
        begun: (&str, OwnedSemaphorePermit),
        mut find: Box<Find>,
    ) -> Result<(), Problem> {
        let id = find.watch_id.take().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        let beginning = self.live.begin()?;
        let place = self.place.clone();
        let work = async move {
            match place.watch(find, (id, beginning)).await {
                Ok((data, watched)) => (Ok(data), Effect::Watches(Some(Box::new(watched)))),
                Err(problem) => (Err(problem), Effect::Watches(None)),
            }
        };
        self.spawn(begun, work, Effect::Watches(None));
        Ok(())
    }

    fn join(&mut self, session: &str) -> Result<(), Problem> {
        if self.registered.join(session, &self.member, SOCKET_SESSIONS_MAX) {
            return Ok(());
        }
        let detail = format!("a connection may share in {SOCKET_SESSIONS_MAX} sessions");
        Err(Problem::new(&problem::INVALID_REQUEST, detail))
    }

    /// Works on a request beside the others, once it is its turn among those of all sockets. One that takes too long, or breaks, is answered too,
    /// and then has the effect `failed`.
    fn spawn(
        &mut self,
        (request_id, room): (&str, OwnedSemaphorePermit),
        work: impl Future<Output = (Result<String, Problem>, Effect)> + Send + 'static,
        failed: Effect,
    ) {
        let request_id = request_id.to_owned();
        let longest = self.place.app.config().load.request_timeout;
        let working = self.place.app.sockets().working.clone();
        let work = async move {
            let turn = tokio::time::timeout(ADMISSION_WAIT_MAX, working.acquire_owned()).await;
            let Ok(Ok(_turn)) = turn else { return Err(too_busy()) };
            Ok(work.await)
        };
        let work = AssertUnwindSafe(Box::pin(work)).catch_unwind();
        self.requests.push(Box::pin(async move {
            let (outcome, effect) = match tokio::time::timeout(longest, work).await {
                Ok(Ok(Ok(done))) => done,
                Ok(Ok(Err(busy))) => (Err(busy), failed),
                Ok(Err(_panic)) => {
                    let log = "a request of a WebSocket panicked";
                    (Err(Problem::hidden(&problem::INTERNAL, log)), failed)
                }
                Err(_elapsed) => {
                    let seconds = longest.as_secs();
                    let detail = format!("the request took longer than {seconds} s");
                    (Err(Problem::new(&problem::TIMEOUT, detail)), failed)
                }
            };
            drop(room);
            Done { request_id, outcome, effect }
        }));
    }

    /// A request is answered.
    pub(super) fn done(&mut self, done: Done) {
        let Done { request_id, outcome, effect } = done;
        if let Err(problem) = &outcome {
            self.registered.counters().failures.fetch_add(1, Ordering::Relaxed);
            if let Some(log) = problem.log() {
                tracing::error!(request_id, "{log}");
            }
        }
        self.outlet.push(frame::response(&request_id, &outcome));
        match effect {
            Effect::Nothing => {}
            Effect::Wrote(document) => self.wrote(document),
            Effect::Searched { session, text } => {
                if let Ok(data) = &outcome {
                    let connection = self.registered.connection;
                    let text = frame::session_search(&session, connection, text.as_deref(), data);
                    self.registered.share(&session, &text.into());
                }
            }
            Effect::Watches(Some(watched)) => {
                let Watched { id, wanted, beginning, seq, rendered } = *watched;
                self.live.add(id, wanted, (beginning, seq, &rendered));
            }
            Effect::Watches(None) => self.live.give_up(),
        }
    }

    fn wrote(&mut self, document: DocumentId) {
        if let Some(count) = self.writes.get_mut(&document) {
            *count -= 1;
            if *count == 0 {
                self.writes.remove(&document);
            }
        }
    }

    /// Counts a request that would have a budget as one of HTTP.
    fn check_rate(&self, action: &Action) -> Result<(), Problem> {
        let (Some(rates), Some(client)) = (self.place.app.rates(), self.client) else {
            return Ok(());
        };
        let template = match action {
            Action::Search(_) | Action::Watch(_) => "/v1/libraries/{library_id}/search",
            Action::Add(_) | Action::Update(..) => "/v1/libraries/{library_id}/documents",
            Action::Delete(_)
            | Action::Get(..)
            | Action::Subscribe(_)
            | Action::Unsubscribe(_)
            | Action::Unwatch(_)
            | Action::Ping => "/v1/libraries/{library_id}/ws",
        };
        rates.check(client, template)
    }

    fn subscribe(&mut self, subscribe: Subscribe) -> Result<String, Problem> {
        let Subscribe { types, after, session } = subscribe;
        let durable = self.place.app.engine().durable();
        if let Some(wanted) = after.map(Position::seq).filter(|wanted| *wanted > durable) {
            return Err(EngineError::SeqNotReached { wanted, current: durable }.into());
        }
        if let Some(session) = &session {
            self.join(session)?;
        }
        let now = if self.subscribed { self.seen() } else { Position::after(durable) };
        self.subscription.narrow(|filter| filter.types = types);
        self.go_on(after.unwrap_or(now));
        self.set_subscribed(true);
        Ok(json!({
            "message": "Already subscribed to library events",
            "events": frame::type_names(types),
            "after": self.sent.to_string(),
        })
        .to_string())
    }

    fn unsubscribe(&mut self, types: Option<EventTypes>) -> String {
        let had = self.subscription.filter().types;
        let stays = |event: &EventType| {
            had.contains(*event) && types.is_some_and(|types| !types.contains(*event))
        };
        let left: EventTypes = EventType::ALL.into_iter().filter(stays).collect();
        if self.subscribed && left != EventTypes::NONE {
            let now = self.seen();
            self.subscription.narrow(|filter| filter.types = left);
            self.go_on(now);
        } else {
            (self.delivery, self.held) = (None, None);
            self.set_subscribed(false);
        }
        let events = if self.subscribed { frame::type_names(left) } else { Vec::new() };
        json!({"message": "Unsubscribed", "events": events}).to_string()
    }

    fn set_subscribed(&mut self, subscribed: bool) {
        self.subscribed = subscribed;
        self.registered.set_subscribed(subscribed);
    }

    fn unwatch(&mut self, id: &str) -> Result<String, Problem> {
        if self.live.remove(id) {
            return Ok(json!({"watch_id": id, "message": "Unwatched"}).to_string());
        }
        let detail = format!("there is no live query {id:?} on this connection");
        Err(Problem::new(&problem::INVALID_REQUEST, detail))
    }
}

fn too_busy() -> Problem {
    let detail = "busy: too many requests of WebSockets are under way; try again shortly";
    Problem::new(&problem::BUSY, detail).retry_after(ADMISSION_RETRY_AFTER)
}
