//! One provider's queue: admission, coalescing, order, retries.
//!
//! - E2: at most `calls_max` calls run at a time and at most `queue_texts_max` texts are admitted;
//!   a caller never waits past its deadline.
//! - E1: every vector that leaves is of the model's dimension, finite and not all zeros.
//!
//! Requests ([`Ticket`]s) of the same model and input type are put together into calls. Queries
//! go before documents, but after a few calls of queries one call of waiting documents is made.
//! Tickets take turns, a call's worth at a time, so that a large one does not hold up the small
//! ones behind it. An idle lane starts at once; while a call is running, a further one waits up to
//! the batch window for company. Everybody is answered, also when a provider panics or the runtime
//! ends.
//!
//! `queue` decides what the next call is, `call` makes it, `ticket` is what a caller waits for.

mod call;
mod queue;
mod ticket;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};

use crate::cache::{Cache, CacheKey};
use crate::error::EmbedError;
use crate::meter::{PICTURE_TOKENS, tokens_estimated};
use crate::models::ModelSpec;
use crate::picture::is_data_url;
use crate::provider::{InputType, PictureLimits, Provider, ProviderLimits};
use crate::stats::Counters;
use crate::timer::{Random, Timer};
use call::{Running, run};
use queue::{Company, Next, Queue};
use ticket::Ticket;
pub(crate) use ticket::{Reply, Request};

/// When a caller that found the queue full is told to come back.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

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
    pictures: Option<PictureLimits>,
    /// See [`Provider::variant`].
    variant: String,
    limits: LaneLimits,
    parts: LaneParts,
    admitted: AtomicUsize,
    state: Mutex<State>,
    /// The last outcome that says something about the whole provider, not about one text.
    trouble: Mutex<Option<String>>,
    closed: watch::Sender<bool>,
    running: watch::Sender<usize>,
    /// Told of every caller that leaves.
    departures: Arc<Notify>,
}

impl Shared {
    fn tokens_estimated(&self, text: &str) -> u64 {
        match self.pictures {
            Some(_) => PICTURE_TOKENS,
            None => tokens_estimated(text),
        }
    }

    /// Whether a vector may be kept: a URL that holds no picture may show another one tomorrow.
    fn is_kept(&self, text: &str) -> bool {
        self.pictures.is_none() || is_data_url(text)
    }
}

#[derive(Default)]
struct State {
    queue: Queue,
    running: usize,
    window_timer: bool,
    closed: bool,
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
            variant: provider.variant(),
            pictures: provider.pictures(),
            provider,
            takes,
            limits,
            parts,
            admitted: AtomicUsize::new(0),
            state: Mutex::default(),
            trouble: Mutex::new(None),
            closed: watch::Sender::new(false),
            running: watch::Sender::new(0),
            departures: Arc::new(Notify::new()),
        }))
    }

    /// How much the provider takes.
    pub(crate) fn takes(&self) -> &ProviderLimits {
        &self.0.takes
    }

    /// What it takes, if its texts are URLs of pictures.
    pub(crate) fn pictures(&self) -> Option<PictureLimits> {
        self.0.pictures
    }

    /// About how many tokens a text or a picture has.
    pub(crate) fn tokens_estimated(&self, text: &str) -> u64 {
        self.0.tokens_estimated(text)
    }

    /// The key that the vector of a text or a picture is cached by.
    pub(crate) fn key(&self, model: &ModelSpec, input: InputType, text: &str) -> CacheKey {
        match self.0.pictures {
            Some(_) => CacheKey::of_picture(model, &self.0.variant, input, text),
            None => CacheKey::new(model, &self.0.variant, input, text),
        }
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

    /// Queues a request.
    pub(crate) fn submit(&self, request: Request) -> Reply {
        assert_eq!(request.texts.len(), request.keys.len(), "one key per text");
        assert!(!request.texts.is_empty(), "a request has texts");
        let (reply, answer) = oneshot::channel();
        let ticket = Arc::new(Ticket::new(request, reply));
        let reply = Reply::new(answer, Arc::clone(&self.0.departures));
        {
            let mut state = self.0.state.lock();
            if state.closed {
                ticket.fail(&EmbedError::Closed);
                return reply;
            }
            state.queue.push(ticket, self.0.parts.timer.now());
        }
        self.pump();
        reply
    }

    /// Refuses what is queued and what comes, abandons the calls that run, and waits for their
    /// tasks to end.
    pub(crate) async fn close(&self) {
        let queued = {
            let mut state = self.0.state.lock();
            state.closed = true;
            state.queue.drain()
        };
        for ticket in queued {
            ticket.fail(&EmbedError::Closed);
        }
        self.0.closed.send_replace(true);
        let mut running = self.0.running.subscribe();
        // The sender lives as long as this lane, so waiting cannot fail.
        if running.wait_for(|&running| running == 0).await.is_err() {
            tracing::debug!("the lane ended while it was being closed");
        }
    }

    /// A call is over: starts what waited for its place.
    fn release(&self) {
        self.ended(&mut self.0.state.lock());
        self.pump();
    }

    /// A call ended with its runtime. What waits is refused rather than started: a task that is
    /// spawned now would be dropped at once, its successor within it, and so on.
    fn abandon(&self) {
        let queued = {
            let mut state = self.0.state.lock();
            self.ended(&mut state);
            state.queue.drain()
        };
        for ticket in queued {
            ticket.fail(&EmbedError::Closed);
        }
    }

    fn ended(&self, state: &mut State) {
        state.running -= 1;
        self.0.running.send_replace(state.running);
    }

    /// Starts every call that may start now.
    fn pump(&self) {
        loop {
            let mut state = self.0.state.lock();
            if state.closed || state.running >= self.0.limits.calls_max {
                return;
            }
            let company = Company {
                now: self.0.parts.timer.now(),
                window: (state.running > 0).then_some(self.0.limits.batch_window),
            };
            match state.queue.next(&self.0.takes, &company) {
                Next::Call(batch) => {
                    state.running += 1;
                    self.0.running.send_replace(state.running);
                    drop(state);
                    tokio::spawn(run(Running::new(self.clone(), batch)));
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

#[cfg(test)]
mod tests;
