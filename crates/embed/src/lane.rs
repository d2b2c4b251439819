//! One provider's queue: admission, coalescing, order, retries.
//!
//! - E2: at most `calls_max` calls run at a time and at most `queue_texts_max` texts are admitted;
//!   a caller never waits past its deadline.
//! - E1: every vector that leaves is of the model's dimension, finite and not all zeros.
//!
//! Requests ([`Ticket`]s) of the same model and input type are put together into calls. Queries
//! go before documents, but after [`QUERY_CALLS_IN_ROW_MAX`] calls of queries one call of waiting
//! documents is made. Tickets take turns, a call's worth at a time, so that a large one does not
//! hold up the small ones behind it. An idle lane starts at once; while a call is running, a
//! further one waits up to the batch window for company.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::cache::{Cache, CacheKey};
use crate::error::EmbedError;
use crate::models::ModelSpec;
use crate::provider::{CallError, InputType, Provider, ProviderAnswer, ProviderLimits, Retry};
use crate::stats::Counters;
use crate::timer::{Random, Timer};

/// Calls of queries in a row before waiting documents get their turn.
const QUERY_CALLS_IN_ROW_MAX: u32 = 8;

/// When a caller that found the queue full is told to come back.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// When a caller is told to come back if the provider gave no time.
const RATE_LIMIT_RETRY_AFTER: Duration = Duration::from_secs(5);

/// The bounds of one lane.
#[derive(Clone, Debug)]
pub(crate) struct LaneLimits {
    pub(crate) calls_max: usize,
    pub(crate) queue_texts_max: usize,
    pub(crate) batch_window: Duration,
    pub(crate) retries_max: u32,
    pub(crate) backoff_min: Duration,
    pub(crate) backoff_max: Duration,
    /// `None`: a call is left to end by itself, as it must where it cannot be interrupted.
    pub(crate) call_timeout: Option<Duration>,
}

/// What lanes share. Cloning shares it.
#[derive(Clone)]
pub(crate) struct LaneParts {
    pub(crate) timer: Arc<dyn Timer>,
    pub(crate) random: Random,
    pub(crate) cache: Cache,
    pub(crate) counters: Arc<Counters>,
}

/// One provider's queue. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Lane(Arc<Shared>);

struct Shared {
    provider: Arc<dyn Provider>,
    takes: ProviderLimits,
    limits: LaneLimits,
    parts: LaneParts,
    admitted: AtomicUsize,
    state: Mutex<State>,
    /// The last outcome that says something about the whole provider, not about one text.
    trouble: Mutex<Option<String>>,
    closed: watch::Sender<bool>,
    running: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    queries: VecDeque<Queued>,
    documents: VecDeque<Queued>,
    running: usize,
    query_calls_in_row: u32,
    window_timer: bool,
    closed: bool,
}

struct Queued {
    ticket: Arc<Ticket>,
    /// Texts before this one are taken.
    next: usize,
    since: Duration,
}

/// One request: texts of one model and input type that one caller waits for.
struct Ticket {
    model: Arc<ModelSpec>,
    input: InputType,
    texts: Vec<String>,
    keys: Vec<CacheKey>,
    /// On the lane's clock.
    deadline: Duration,
    answer: Mutex<Answer>,
}

struct Answer {
    /// `texts * dimension`, row-major.
    vectors: Vec<f32>,
    missing: usize,
    reply: Option<oneshot::Sender<Result<Vec<f32>, EmbedError>>>,
}

/// What a caller hands to a lane.
pub(crate) struct Request {
    pub(crate) model: Arc<ModelSpec>,
    pub(crate) input: InputType,
    pub(crate) texts: Vec<String>,
    /// One per text.
    pub(crate) keys: Vec<CacheKey>,
    /// On the lane's clock.
    pub(crate) deadline: Duration,
}

/// Some consecutive texts of a ticket.
struct Part {
    ticket: Arc<Ticket>,
    range: Range<usize>,
}

/// Parts of one model and input type that make one call.
struct Batch {
    model: Arc<ModelSpec>,
    input: InputType,
    parts: Vec<Part>,
}

enum Next {
    Call(Batch),
    Wait(Duration),
    Idle,
}

/// Room for some texts; given back when dropped.
pub(crate) struct Admission {
    lane: Lane,
    texts: usize,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.lane.0.admitted.fetch_sub(self.texts, Ordering::Relaxed);
    }
}

impl Lane {
    pub(crate) fn new(provider: Arc<dyn Provider>, limits: LaneLimits, parts: LaneParts) -> Self {
        let takes = provider.limits();
        assert!(takes.texts_per_call > 0 && takes.bytes_per_token > 0, "a provider takes texts");
        Lane(Arc::new(Shared {
            provider,
            takes,
            limits,
            parts,
            admitted: AtomicUsize::new(0),
            state: Mutex::default(),
            trouble: Mutex::new(None),
            closed: watch::Sender::new(false),
            running: watch::Sender::new(0),
        }))
    }

    /// How much the provider takes.
    pub(crate) fn takes(&self) -> &ProviderLimits {
        &self.0.takes
    }

    /// Texts admitted and not answered yet.
    pub(crate) fn admitted(&self) -> usize {
        self.0.admitted.load(Ordering::Relaxed)
    }

    /// What is wrong with the provider, as its last call showed.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.0.trouble.lock().clone()
    }

    /// Makes room for `texts` texts, or says that there is none.
    pub(crate) fn admit(&self, texts: usize) -> Result<Admission, EmbedError> {
        let max = self.0.limits.queue_texts_max;
        self.0
            .admitted
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |admitted| {
                admitted.checked_add(texts).filter(|&sum| sum <= max)
            })
            .map(|_| Admission { lane: self.clone(), texts })
            .map_err(|_full| EmbedError::Busy { retry_after: BUSY_RETRY_AFTER })
    }

    /// Queues a request. The answer's vectors are in the order of its texts; an index in an error
    /// counts within it. Dropping the receiver withdraws what has not been called yet.
    pub(crate) fn submit(
        &self,
        request: Request,
    ) -> oneshot::Receiver<Result<Vec<f32>, EmbedError>> {
        assert_eq!(request.texts.len(), request.keys.len(), "one key per text");
        assert!(!request.texts.is_empty(), "a request has texts");
        let (reply, receiver) = oneshot::channel();
        let input = request.input;
        let ticket = Arc::new(Ticket::new(request, reply));
        {
            let mut state = self.0.state.lock();
            if state.closed {
                ticket.fail(&EmbedError::Closed);
                return receiver;
            }
            let since = self.0.parts.timer.now();
            state.queue(input).push_back(Queued { ticket, next: 0, since });
        }
        self.pump();
        receiver
    }

    /// Refuses what is queued and what comes, abandons the calls that run, and waits for their
    /// tasks to end.
    pub(crate) async fn close(&self) {
        let queued: Vec<Queued> = {
            let mut state = self.0.state.lock();
            state.closed = true;
            let State { queries, documents, .. } = &mut *state;
            queries.drain(..).chain(documents.drain(..)).collect()
        };
        for queued in queued {
            queued.ticket.fail(&EmbedError::Closed);
        }
        self.0.closed.send_replace(true);
        let mut running = self.0.running.subscribe();
        // The sender lives as long as this lane, so waiting cannot fail.
        if running.wait_for(|&running| running == 0).await.is_err() {
            tracing::debug!("the lane ended while it was being closed");
        }
    }

    /// Starts every call that may start now.
    fn pump(&self) {
        loop {
            let mut state = self.0.state.lock();
            if state.closed || state.running >= self.0.limits.calls_max {
                return;
            }
            match state.next(&self.0) {
                Next::Call(batch) => {
                    state.running += 1;
                    self.0.running.send_replace(state.running);
                    drop(state);
                    tokio::spawn(run(Running { lane: self.clone(), batch }));
                }
                Next::Wait(wait) => {
                    if !std::mem::replace(&mut state.window_timer, true) {
                        drop(state);
                        self.pump_after(wait);
                    }
                    return;
                }
                Next::Idle => return,
            }
        }
    }

    fn pump_after(&self, wait: Duration) {
        let lane = self.clone();
        let sleep = self.0.parts.timer.sleep(wait);
        tokio::spawn(async move {
            sleep.await;
            lane.0.state.lock().window_timer = false;
            lane.pump();
        });
    }
}

impl State {
    fn queue(&mut self, input: InputType) -> &mut VecDeque<Queued> {
        match input {
            InputType::Query => &mut self.queries,
            InputType::Document => &mut self.documents,
        }
    }

    /// The next call, or how long to wait for it.
    fn next(&mut self, shared: &Shared) -> Next {
        self.queries.retain(|queued| queued.ticket.is_wanted());
        self.documents.retain(|queued| queued.ticket.is_wanted());
        let turn_of_documents = self.query_calls_in_row >= QUERY_CALLS_IN_ROW_MAX;
        let input = match (self.queries.is_empty(), self.documents.is_empty()) {
            (true, true) => return Next::Idle,
            (true, false) => InputType::Document,
            (false, false) if turn_of_documents => InputType::Document,
            (false, _) => InputType::Query,
        };
        if let Some(wait) = self.company(input, shared) {
            return Next::Wait(wait);
        }
        self.query_calls_in_row = match input {
            InputType::Query => self.query_calls_in_row.saturating_add(1),
            InputType::Document => 0,
        };
        take(self.queue(input), &shared.takes).map_or(Next::Idle, Next::Call)
    }

    /// How long the next call of `input` should still wait for company, if at all.
    fn company(&mut self, input: InputType, shared: &Shared) -> Option<Duration> {
        if self.running == 0 {
            return None;
        }
        let window = shared.limits.batch_window;
        let queue = self.queue(input);
        let texts: usize = queue.iter().map(|queued| queued.ticket.texts.len() - queued.next).sum();
        let oldest = queue.iter().map(|queued| queued.since).min()?;
        let waited = shared.parts.timer.now().saturating_sub(oldest);
        let left = window.checked_sub(waited).filter(|left| !left.is_zero());
        left.filter(|_| texts < shared.takes.texts_per_call)
    }
}

/// Takes one call's worth from the front of a queue, from every ticket of the front's model.
fn take(queue: &mut VecDeque<Queued>, takes: &ProviderLimits) -> Option<Batch> {
    let front = queue.front()?;
    let (model, input) = (Arc::clone(&front.ticket.model), front.ticket.input);
    let mut room = Room { texts: takes.texts_per_call, tokens: takes.tokens_per_call };
    let mut parts = Vec::new();
    let mut later = VecDeque::new();
    for _ in 0..queue.len() {
        let Some(mut queued) = queue.pop_front() else { break };
        if *queued.ticket.model == *model {
            let end = room.fill(&queued.ticket.texts, queued.next, takes);
            if end > queued.next {
                parts.push(Part { ticket: Arc::clone(&queued.ticket), range: queued.next..end });
                queued.next = end;
                // Whoever was served goes behind the others.
                if end < queued.ticket.texts.len() {
                    later.push_back(queued);
                }
                continue;
            }
        }
        queue.push_back(queued);
    }
    queue.append(&mut later);
    Some(Batch { model, input, parts })
}

/// What still fits into a call.
struct Room {
    texts: usize,
    tokens: u64,
}

impl Room {
    /// Takes texts from `start` on while they fit; returns the first that was not taken. A text
    /// that is larger than a whole call is taken alone.
    fn fill(&mut self, texts: &[String], start: usize, takes: &ProviderLimits) -> usize {
        let mut end = start;
        for text in texts.get(start..).unwrap_or_default() {
            let tokens = tokens_reckoned(text, takes);
            let untouched = self.texts == takes.texts_per_call;
            if self.texts == 0 || (tokens > self.tokens && !untouched) {
                break;
            }
            self.texts -= 1;
            self.tokens = self.tokens.saturating_sub(tokens);
            end += 1;
        }
        end
    }
}

/// Tokens of a text as they are reckoned when calls are put together.
fn tokens_reckoned(text: &str, takes: &ProviderLimits) -> u64 {
    let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
    (bytes / takes.bytes_per_token).saturating_add(2).min(takes.tokens_per_text)
}

impl Ticket {
    fn new(request: Request, reply: oneshot::Sender<Result<Vec<f32>, EmbedError>>) -> Self {
        let Request { model, input, texts, keys, deadline } = request;
        let width = usize::try_from(model.dimension).unwrap_or(usize::MAX);
        let answer = Answer {
            vectors: vec![0.0; texts.len().saturating_mul(width)],
            missing: texts.len(),
            reply: Some(reply),
        };
        Ticket { model, input, texts, keys, deadline, answer: Mutex::new(answer) }
    }

    /// Whether somebody still waits for the answer.
    fn is_wanted(&self) -> bool {
        self.answer.lock().reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    fn fail(&self, error: &EmbedError) {
        let reply = self.answer.lock().reply.take();
        // A caller that left wants no answer.
        if reply.is_some_and(|reply| reply.send(Err(error.clone())).is_err()) {
            tracing::trace!("nobody waits for the failed texts any more");
        }
    }

    /// Puts in the vectors of the texts from `start` on, and answers when none is missing.
    fn fill(&self, start: usize, vectors: &[Vec<f32>]) {
        let mut answer = self.answer.lock();
        for (index, vector) in (start..).zip(vectors) {
            let at = index * vector.len();
            if let Some(row) = answer.vectors.get_mut(at..at + vector.len()) {
                row.copy_from_slice(vector);
            }
        }
        answer.missing -= vectors.len();
        if answer.missing > 0 {
            return;
        }
        let vectors = std::mem::take(&mut answer.vectors);
        let reply = answer.reply.take();
        drop(answer);
        if reply.is_some_and(|reply| reply.send(Ok(vectors)).is_err()) {
            tracing::trace!("nobody waits for the vectors any more");
        }
    }
}

/// A call's place in the lane. Dropping it frees the place and fails what was left unanswered,
/// so that a provider that panics harms only its own call.
struct Running {
    lane: Lane,
    batch: Batch,
}

impl Drop for Running {
    fn drop(&mut self) {
        let stopped = EmbedError::Provider {
            status: None,
            detail: "the call ended without an answer".to_owned(),
        };
        for part in self.batch.parts.drain(..) {
            part.ticket.fail(&stopped);
        }
        {
            let mut state = self.lane.0.state.lock();
            state.running -= 1;
            self.lane.0.running.send_replace(state.running);
        }
        self.lane.pump();
    }
}

async fn run(mut running: Running) {
    let lane = running.lane.clone();
    let (model, input) = (Arc::clone(&running.batch.model), running.batch.input);
    let together = lane.0.call(&model, input, &running.batch.parts).await;
    let parts = std::mem::take(&mut running.batch.parts);
    match together {
        Ok(vectors) => lane.0.deliver(&model, parts, &vectors),
        Err(CallError { retry: Retry::Apart, .. }) if parts.len() > 1 => {
            for part in parts {
                let alone = std::slice::from_ref(&part);
                match lane.0.call(&model, input, alone).await {
                    Ok(vectors) => lane.0.deliver(&model, vec![part], &vectors),
                    Err(failed) => part.ticket.fail(&failed.error),
                }
            }
        }
        Err(failed) => parts.iter().for_each(|part| part.ticket.fail(&failed.error)),
    }
}

impl Shared {
    /// Calls the provider for some parts, again where that may help and time is left.
    async fn call(
        &self,
        model: &ModelSpec,
        input: InputType,
        parts: &[Part],
    ) -> Result<Vec<Vec<f32>>, CallError> {
        let texts: Vec<String> =
            parts.iter().flat_map(|part| part.texts().iter().cloned()).collect();
        let mut tries = 0;
        loop {
            let Some(deadline) = latest_deadline(parts) else {
                return Err(CallError::fatal(EmbedError::Closed));
            };
            let failed = match self.call_once(model, input, &texts, deadline).await {
                Ok(vectors) => return Ok(vectors),
                Err(failed) => failed,
            };
            let wait = match failed.retry {
                Retry::Never | Retry::Apart => return Err(failed),
                Retry::Backoff => self.backoff(tries),
                Retry::After(after) => after,
            };
            if tries == self.limits.retries_max || self.parts.timer.now() + wait >= deadline {
                return Err(failed);
            }
            tries += 1;
            self.parts.counters.count(model, |stats| stats.retries += 1);
            tracing::debug!(error = %failed.error, ?wait, tries, "embedding is tried again");
            self.pause(wait).await?;
        }
    }

    /// One call, timed, bounded and counted.
    async fn call_once(
        &self,
        model: &ModelSpec,
        input: InputType,
        texts: &[String],
        deadline: Duration,
    ) -> Result<Vec<Vec<f32>>, CallError> {
        let start = self.parts.timer.now();
        let outcome = self.bounded(model, input, texts, deadline.saturating_sub(start)).await;
        let outcome = outcome.and_then(|answer| check_shape(model, texts, answer));
        let time = self.parts.timer.now().saturating_sub(start);
        self.parts.counters.count(model, |stats| {
            stats.calls += 1;
            stats.time += time;
            match &outcome {
                Ok(answer) => {
                    stats.texts += u64::try_from(texts.len()).unwrap_or(u64::MAX);
                    stats.tokens += answer.tokens.unwrap_or_else(|| {
                        texts.iter().map(|text| tokens_reckoned(text, &self.takes)).sum()
                    });
                }
                Err(_) => stats.failures += 1,
            }
        });
        self.note(&outcome);
        outcome.map(|answer| answer.vectors)
    }

    /// The provider's call, ended by the deadline, the call timeout or the lane's end.
    async fn bounded(
        &self,
        model: &ModelSpec,
        input: InputType,
        texts: &[String],
        left: Duration,
    ) -> Result<ProviderAnswer, CallError> {
        let mut closed = self.closed.subscribe();
        let call = self.provider.embed(model, input, texts);
        let Some(timeout) = self.limits.call_timeout.map(|timeout| timeout.min(left)) else {
            return tokio::select! {
                answer = call => answer,
                _ = closed.wait_for(|&closed| closed) => Err(CallError::fatal(EmbedError::Closed)),
            };
        };
        tokio::select! {
            answer = call => answer,
            () = self.parts.timer.sleep(timeout) => Err(CallError {
                error: EmbedError::Provider {
                    status: None,
                    detail: format!("no answer within {timeout:?}"),
                },
                retry: Retry::Backoff,
            }),
            _ = closed.wait_for(|&closed| closed) => Err(CallError::fatal(EmbedError::Closed)),
        }
    }

    /// The wait before the next try: doubling from the least to the most, its second half random.
    fn backoff(&self, tries: u32) -> Duration {
        let full = self
            .limits
            .backoff_min
            .saturating_mul(2_u32.saturating_pow(tries))
            .min(self.limits.backoff_max);
        let half = full / 2;
        let span = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos((self.parts.random)().checked_rem(span).unwrap_or(0))
    }

    async fn pause(&self, wait: Duration) -> Result<(), CallError> {
        let mut closed = self.closed.subscribe();
        tokio::select! {
            () = self.parts.timer.sleep(wait) => Ok(()),
            _ = closed.wait_for(|&closed| closed) => Err(CallError::fatal(EmbedError::Closed)),
        }
    }

    /// Keeps what a call said about the provider as a whole.
    fn note(&self, outcome: &Result<ProviderAnswer, CallError>) {
        let trouble = match outcome {
            Ok(_) => None,
            Err(CallError { retry: Retry::Apart, .. }) => return,
            Err(failed) => Some(failed.error.to_string()),
        };
        *self.trouble.lock() = trouble;
    }

    /// Hands every part its vectors, checked (E1), and remembers them.
    fn deliver(&self, model: &ModelSpec, parts: Vec<Part>, vectors: &[Vec<f32>]) {
        let mut rest = vectors;
        for part in parts {
            let (own, after) = rest.split_at(part.range.len().min(rest.len()));
            rest = after;
            if let Some(bad) = own.iter().position(|vector| !is_usable(vector)) {
                part.ticket.fail(&EmbedError::NotFinite { index: part.range.start + bad });
                self.parts.counters.count(model, |stats| stats.failures += 1);
                continue;
            }
            let keys = part.ticket.keys.get(part.range.clone()).unwrap_or_default();
            for (key, vector) in keys.iter().zip(own) {
                self.parts.cache.put(key, vector);
            }
            part.ticket.fill(part.range.start, own);
        }
    }
}

impl Part {
    fn texts(&self) -> &[String] {
        self.ticket.texts.get(self.range.clone()).unwrap_or_default()
    }
}

/// The time until which somebody waits for one of the parts; `None` when nobody does.
fn latest_deadline(parts: &[Part]) -> Option<Duration> {
    parts.iter().filter(|part| part.ticket.is_wanted()).map(|part| part.ticket.deadline).max()
}

/// E1: as many vectors as texts, all of the model's dimension.
fn check_shape(
    model: &ModelSpec,
    texts: &[String],
    answer: ProviderAnswer,
) -> Result<ProviderAnswer, CallError> {
    if answer.vectors.len() != texts.len() {
        return Err(CallError::fatal(EmbedError::Provider {
            status: None,
            detail: format!("{} vectors came for {} texts", answer.vectors.len(), texts.len()),
        }));
    }
    let expected = usize::try_from(model.dimension).unwrap_or(usize::MAX);
    match answer.vectors.iter().map(Vec::len).find(|&got| got != expected) {
        Some(got) => {
            Err(CallError::fatal(EmbedError::WrongDimension { expected: model.dimension, got }))
        }
        None => Ok(answer),
    }
}

/// E1: finite and not all zeros.
fn is_usable(vector: &[f32]) -> bool {
    vector.iter().all(|value| value.is_finite()) && vector.iter().any(|value| value.abs() > 0.0)
}

/// The time a caller is told when a provider refused for its rate without saying until when.
pub(crate) fn rate_limit_wait(said: Option<Duration>) -> Duration {
    said.unwrap_or(RATE_LIMIT_RETRY_AFTER)
}
