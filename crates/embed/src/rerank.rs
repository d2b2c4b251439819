//! A model that ranks passages for a query: asked within bounds, its answers checked.
//!
//! - Every passage gets exactly one finite score, or the whole ranking fails.
//! - Concurrency, bytes that wait, retries and waiting are bounded; the deadline holds.
//! - What a provider was paid for is told to whoever pays, also when the caller has left meanwhile.

mod error;
mod settings;
mod wire;

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::error::EmbedError;
use crate::meter::tokens_estimated;
use crate::provider::{CallError, Retry};
use crate::timer::{Random, Timer};
pub use error::{RerankError, RerankOpenError};
pub use settings::{RerankConfig, RerankKind, RerankLimits, RerankPrice, UnknownReranker};
use wire::{Answer, Wire, in_order};

/// Bytes of a passage that a model is shown: about as many tokens as Cohere's reads of one.
const TEXT_BYTES_MAX: usize = 16 << 10;

/// Bytes of passages in one call, as far as there is more than one.
const CALL_BYTES_MAX: usize = 512 << 10;

/// Bytes that one permit of those that wait stands for.
const PERMIT_BYTES: usize = 1 << 10;

/// Passages that Cohere bills as one search.
const PASSAGES_PER_UNIT: usize = 100;

/// Bytes from which on Cohere bills a passage as more than one; a token is a byte at least.
const BYTES_PER_BILLED_PASSAGE: usize = 500;

/// Tokens that a model may put around a passage and its query.
const TOKENS_AROUND_A_TEXT_MAX: usize = 128;

/// When a caller that found too much waiting is told to come back.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// What ranking used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RerankUsage {
    /// Passages that were ranked.
    pub passages: u64,
    /// Tokens of them and of the query with each, as the provider counted them, or the estimate.
    pub tokens: u64,
    /// Picodollars; `None` if the price is not known.
    pub cost: Option<u64>,
}

/// Told what one caller's passages use, and asked before a provider is called that costs something.
pub trait RerankMeter: Send + Sync + fmt::Debug {
    /// This was used.
    fn used(&self, usage: RerankUsage);

    /// Whether the provider may be called; where not, ranking fails with [`RerankError::NotAllowed`].
    fn may_call(&self) -> bool;
}

/// What a reranker did since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RerankStats {
    /// Calls to the provider, retries included.
    pub calls: u64,
    /// Passages that were ranked.
    pub passages: u64,
    /// Calls that failed, whether or not they were tried again.
    pub failures: u64,
    /// Calls that were tried again.
    pub retries: u64,
    /// Time spent in calls, summed over concurrent ones.
    pub time: Duration,
    /// Bytes of passages that are being ranked or wait for it.
    pub waiting_bytes: u64,
}

/// Ranks passages. Cloning shares it.
///
/// Its calls must be made inside a Tokio runtime.
#[derive(Clone)]
pub struct Reranker(Arc<Inner>);

struct Inner {
    wire: Wire,
    config: RerankConfig,
    timer: Arc<dyn Timer>,
    random: Random,
    /// Places of calls that run.
    calls: Semaphore,
    calls_max: u32,
    /// Room for passages, by the kibibyte.
    room: Arc<Semaphore>,
    closed: watch::Sender<bool>,
    stats: Mutex<RerankStats>,
}

impl fmt::Debug for Reranker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Reranker").field(&self.0.config).finish()
    }
}

/// Passages that are ranked by one call.
struct Part {
    query: Arc<str>,
    texts: Vec<String>,
    until: Duration,
    meter: Option<Arc<dyn RerankMeter>>,
    /// Nobody waits for the scores once it cannot be upgraded.
    wanted: Weak<()>,
    /// Given back with the last part.
    _room: Arc<OwnedSemaphorePermit>,
}

impl Reranker {
    /// Sets the provider up. Calls nobody: one that cannot be reached shows when it is used.
    pub fn open(
        config: RerankConfig,
        http: reqwest::Client,
        (timer, random): (Arc<dyn Timer>, Random),
    ) -> Result<Self, RerankOpenError> {
        let calls_max = u32::try_from(config.limits.calls_concurrent_max.max(1)).unwrap_or(1);
        let room = config.limits.waiting_bytes_max.div_ceil(PERMIT_BYTES);
        Ok(Self(Arc::new(Inner {
            wire: Wire::new(&config, http)?,
            timer,
            random,
            calls: Semaphore::new(calls_max as usize),
            calls_max,
            room: Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS))),
            closed: watch::Sender::new(false),
            stats: Mutex::default(),
            config,
        })))
    }

    /// Who ranks.
    pub fn kind(&self) -> RerankKind {
        self.0.config.kind
    }

    /// With what.
    pub fn model(&self) -> &str {
        &self.0.config.model
    }

    /// The scores of `texts` for `query` in their order: the greater, the better.
    ///
    /// What is beyond the first 16 KiB of a text is not looked at. Waits at most as long as the
    /// deadline. Dropping the future withdraws what has not been called yet; calls that run end by
    /// themselves, so that what they cost is known.
    pub async fn rerank(
        &self,
        query: &str,
        texts: Vec<String>,
        meter: Option<Arc<dyn RerankMeter>>,
    ) -> Result<Vec<f64>, RerankError> {
        let inner = &self.0;
        if *inner.closed.borrow() {
            return Err(RerankError::Closed);
        }
        let texts: Vec<String> = texts.into_iter().map(beginning).collect();
        let room = Arc::new(inner.admit(&texts)?);
        let deadline = inner.config.deadline;
        let (until, wanted) = (inner.timer.now().saturating_add(deadline), Arc::new(()));
        let (query, count) = (Arc::<str>::from(query), texts.len());
        let parts = parted(texts, inner.config.kind.passages_per_call());
        let calls: Vec<_> = parts
            .into_iter()
            .map(|texts| {
                let (query, meter, wanted) =
                    (query.clone(), meter.clone(), Arc::downgrade(&wanted));
                let part = Part { query, texts, until, meter, wanted, _room: room.clone() };
                tokio::spawn(Inner::rank(inner.clone(), part))
            })
            .collect();
        let all = async {
            let mut scores = Vec::with_capacity(count);
            for call in calls {
                scores.extend(call.await.map_err(|_ended| ended())??);
            }
            Ok(scores)
        };
        tokio::select! {
            biased;
            done = all => done,
            () = inner.timer.sleep(deadline) => Err(RerankError::Deadline { deadline }),
        }
    }

    /// What was done since it was opened.
    pub fn stats(&self) -> RerankStats {
        let inner = &self.0;
        let most = inner.config.limits.waiting_bytes_max.div_ceil(PERMIT_BYTES);
        let taken = most.saturating_sub(inner.room.available_permits()) * PERMIT_BYTES;
        RerankStats { waiting_bytes: taken as u64, ..*inner.stats.lock() }
    }

    /// Answers everyone who waits with [`RerankError::Closed`], abandons running calls and waits for
    /// their ends. Closing again does nothing.
    pub async fn close(&self) {
        self.0.closed.send_replace(true);
        // Only a semaphore that is closed refuses, which this one never is.
        drop(self.0.calls.acquire_many(self.0.calls_max).await);
    }
}

impl Inner {
    fn admit(&self, texts: &[String]) -> Result<OwnedSemaphorePermit, RerankError> {
        let bytes: usize = texts.iter().map(String::len).sum();
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).try_acquire_many_owned(permits);
        room.map_err(|_full| RerankError::Busy { retry_after: BUSY_RETRY_AFTER })
    }

    /// Ranks a part, again where that may help and time is left.
    async fn rank(self: Arc<Self>, part: Part) -> Result<Vec<f64>, RerankError> {
        let mut tries = 0;
        loop {
            let failed = match self.once(&part).await {
                Ok(scores) => return Ok(scores),
                Err(failed) => failed,
            };
            let wait = match failed.retry {
                Retry::Never | Retry::Apart => return Err(failed.error),
                Retry::Backoff => self.backoff(tries),
                Retry::After(after) => after,
            };
            let late = self.timer.now().saturating_add(wait) >= part.until;
            if tries == self.config.limits.retries_max || late || part.wanted.strong_count() == 0 {
                return Err(failed.error);
            }
            tries += 1;
            self.stats.lock().retries += 1;
            tracing::debug!(error = %failed.error, ?wait, tries, "ranking is tried again");
            let mut closed = self.closed.subscribe();
            tokio::select! {
                () = self.timer.sleep(wait) => {}
                _ = closed.wait_for(|&closed| closed) => return Err(RerankError::Closed),
            }
        }
    }

    /// One call, in its turn, timed, bounded, counted and paid for.
    async fn once(&self, part: &Part) -> Result<Vec<f64>, Failed> {
        let Ok(_place) = self.calls.acquire().await else {
            return Err(Failed::fatal(RerankError::Closed));
        };
        // Whoever left while this waited for its turn pays for nothing.
        if *self.closed.borrow() || part.wanted.strong_count() == 0 {
            return Err(Failed::fatal(RerankError::Closed));
        }
        let costs = self.config.price.is_some_and(|price| price.0 > 0);
        if costs && part.meter.as_ref().is_some_and(|meter| !meter.may_call()) {
            return Err(Failed::fatal(RerankError::NotAllowed));
        }
        let start = self.timer.now();
        let outcome = self.bounded(part, part.until.saturating_sub(start)).await;
        let outcome = outcome.and_then(|answer| {
            // It was paid for, whatever it is worth.
            if let Some(meter) = &part.meter {
                meter.used(self.usage(part, &answer));
            }
            in_order(&answer.scores, part.texts.len()).map_err(|detail| {
                let detail = format!("its answer is not what was expected: {detail}");
                Failed::fatal(RerankError::Provider { status: None, detail })
            })
        });
        let time = self.timer.now().saturating_sub(start);
        let mut stats = self.stats.lock();
        stats.calls += 1;
        stats.time += time;
        match &outcome {
            Ok(scores) => stats.passages += scores.len() as u64,
            Err(_failed) => stats.failures += 1,
        }
        outcome
    }

    /// The provider's call, ended by the deadline, the call timeout or the reranker's end.
    async fn bounded(&self, part: &Part, left: Duration) -> Result<Answer, Failed> {
        let mut closed = self.closed.subscribe();
        let timeout = self.config.limits.call_timeout.min(left);
        tokio::select! {
            answer = self.wire.rank(&part.query, &part.texts) => answer.map_err(Failed::from),
            () = self.timer.sleep(timeout) => Err(self.silent(timeout == left)),
            _ = closed.wait_for(|&closed| closed) => Err(Failed::fatal(RerankError::Closed)),
        }
    }

    /// What is said of a call without an answer, to a caller whose time may be over with it.
    fn silent(&self, late: bool) -> Failed {
        if late {
            return Failed::fatal(RerankError::Deadline { deadline: self.config.deadline });
        }
        let detail = format!("no answer within {:?}", self.config.limits.call_timeout);
        Failed { error: RerankError::Provider { status: None, detail }, retry: Retry::Backoff }
    }

    /// The wait before the next try: doubling from the least to the most, its second half random.
    fn backoff(&self, tries: u32) -> Duration {
        let RerankLimits { backoff_min, backoff_max, .. } = self.config.limits;
        let full = backoff_min.saturating_mul(2_u32.saturating_pow(tries)).min(backoff_max);
        let half = full / 2;
        let span = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos((self.random)().checked_rem(span).unwrap_or(0))
    }

    /// What an answer cost. A count that cannot be that of these passages is not believed: it would
    /// stay in the sums for ever.
    fn usage(&self, part: &Part, answer: &Answer) -> RerankUsage {
        let believed = |count: Option<f64>, most: usize| {
            let count = count.filter(|&count| count >= 1.0 && count <= most as f64)?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "the range is checked, and a count has no fraction"
            )]
            Some(count as u64)
        };
        let (passages, query) = (part.texts.len(), part.query.len());
        let bytes = part.texts.iter().map(|text| text.len() + query + TOKENS_AROUND_A_TEXT_MAX);
        let tokens = believed(answer.tokens, bytes.sum()).unwrap_or_else(|| {
            let with_query = |text: &String| tokens_estimated(text) + tokens_estimated(&part.query);
            part.texts.iter().map(with_query).sum()
        });
        let billed = part.texts.iter().map(|text| text.len() / BYTES_PER_BILLED_PASSAGE + 1);
        let units = believed(answer.units, billed.sum())
            .unwrap_or_else(|| passages.div_ceil(PASSAGES_PER_UNIT) as u64);
        let by_units = self.config.kind.is_billed_by_units();
        let amount = if by_units { units } else { tokens };
        let cost = self.config.price.map(|price| price.0.saturating_mul(amount));
        RerankUsage { passages: passages as u64, tokens, cost }
    }
}

/// Why one call failed, and whether another try may help.
struct Failed {
    error: RerankError,
    retry: Retry,
}

impl Failed {
    fn fatal(error: RerankError) -> Self {
        Self { error, retry: Retry::Never }
    }
}

impl From<CallError> for Failed {
    fn from(CallError { error, retry }: CallError) -> Self {
        let error = if let EmbedError::RateLimited { retry_after } = error {
            RerankError::RateLimited { retry_after }
        } else if let EmbedError::Provider { status, detail } = error {
            RerankError::Provider { status, detail }
        } else {
            // A call over the network fails in no other way.
            RerankError::Provider { status: None, detail: error.to_string() }
        };
        Self { error, retry }
    }
}

/// What a call that panicked, or whose runtime ended, leaves to say.
fn ended() -> RerankError {
    let detail = "the call ended without an answer".to_owned();
    RerankError::Provider { status: None, detail }
}

/// As much of a text as is looked at.
fn beginning(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        // What waits is counted by what it holds.
        text.shrink_to_fit();
    }
    text
}

/// Texts in their order, as few calls' worth as take them.
fn parted(texts: Vec<String>, count_max: usize) -> Vec<Vec<String>> {
    let mut parts: Vec<Vec<String>> = Vec::new();
    let mut bytes = 0;
    for text in texts {
        bytes += text.len();
        match parts.last_mut() {
            Some(part) if part.len() < count_max && bytes <= CALL_BYTES_MAX => part.push(text),
            Some(_) | None => {
                bytes = text.len();
                parts.push(vec![text]);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_bounded_in_passages_and_bytes() {
        let sizes = |texts: Vec<String>, most| -> Vec<usize> {
            parted(texts, most).iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(vec!["a".to_owned(); 7], 3), [3, 3, 1]);
        assert_eq!(sizes(vec!["a".repeat(CALL_BYTES_MAX / 2); 5], 9), [2, 2, 1]);
        assert_eq!(sizes(vec!["a".repeat(CALL_BYTES_MAX + 1); 2], 9), [1, 1]);
        assert!(sizes(Vec::new(), 9).is_empty());
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let long = format!("a{}", "\u{20ac}".repeat(TEXT_BYTES_MAX));
        let cut = beginning(long.clone());
        assert!(cut.len() <= TEXT_BYTES_MAX && cut.len() > TEXT_BYTES_MAX - 3);
        assert!(long.starts_with(&cut));
        assert_eq!(beginning("short".to_owned()), "short");
    }
}
