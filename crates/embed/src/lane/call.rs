//! One call of a lane: retries, its bounds, the check of what comes (E1) and its delivery.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::queue::{Batch, tokens_reckoned};
use super::ticket::{Part, latest_deadline};
use super::{Lane, Shared};
use crate::error::EmbedError;
use crate::meter::divided;
use crate::models::ModelSpec;
use crate::provider::{CallError, InputType, ProviderAnswer, Retry};

/// Tokens that a model may put around each text: marks, or an instruction in front of it.
const TOKENS_AROUND_A_TEXT_MAX: usize = 128;

/// Tokens that a picture may have: several times those of 16 million pixels at Voyage, which counts one
/// for 560 of them.
const TOKENS_OF_A_PICTURE_MAX: usize = 100_000;

/// A call's place in the lane. Dropping it frees the place and fails what was left unanswered,
/// so that a provider that panics harms only its own call.
pub(super) struct Running {
    lane: Lane,
    batch: Batch,
    is_done: bool,
}

impl Running {
    pub(super) fn new(lane: Lane, batch: Batch) -> Self {
        Running { lane, batch, is_done: false }
    }
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
        // Neither done nor panicking, a call is dropped only by a runtime that ends.
        if self.is_done || std::thread::panicking() {
            self.lane.release();
        } else {
            self.lane.abandon();
        }
    }
}

pub(super) async fn run(mut running: Running) {
    let lane = running.lane.clone();
    let (model, input) = (Arc::clone(&running.batch.model), running.batch.input);
    let together = lane.0.call(&model, input, &running.batch.parts).await;
    // Parts stay in the batch until they are answered: it fails them if the provider panics.
    let parts = &mut running.batch.parts;
    match together {
        Err(CallError { retry: Retry::Apart, .. }) if parts.len() > 1 => {
            parts.reverse();
            while let Some(part) = parts.last() {
                let alone = lane.0.call(&model, input, std::slice::from_ref(part)).await;
                lane.0.answer(&model, parts.pop(), alone);
            }
        }
        together => lane.0.answer(&model, parts.drain(..), together),
    }
    running.is_done = true;
}

impl Shared {
    /// Tells the callers of `parts` what became of their call.
    fn answer(
        &self,
        model: &ModelSpec,
        parts: impl IntoIterator<Item = Part>,
        outcome: Result<Vec<Vec<f32>>, CallError>,
    ) {
        match outcome {
            Ok(vectors) => self.deliver(model, parts, &vectors),
            Err(failed) => parts.into_iter().for_each(|part| part.ticket.fail(&failed.error)),
        }
    }

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
            let failed = match self.call_once(model, input, (parts, &texts), deadline).await {
                Ok(vectors) => return Ok(vectors),
                Err(failed) => failed,
            };
            let wait = match failed.retry {
                Retry::Never | Retry::Apart => return Err(failed),
                Retry::Backoff => self.backoff(tries),
                Retry::After(after) => after,
            };
            if tries == self.limits.retries_max
                || self.parts.timer.now().saturating_add(wait) >= deadline
            {
                return Err(failed);
            }
            tries += 1;
            self.parts.counters.count(model, |stats| stats.retries += 1);
            tracing::debug!(error = %failed.error, ?wait, tries, "embedding is tried again");
            self.pause(wait, parts).await?;
        }
    }

    /// One call, timed, bounded and counted.
    async fn call_once(
        &self,
        model: &ModelSpec,
        input: InputType,
        (parts, texts): (&[Part], &[String]),
        deadline: Duration,
    ) -> Result<Vec<Vec<f32>>, CallError> {
        let start = self.parts.timer.now();
        let mut outcome = self.bounded(model, input, texts, deadline.saturating_sub(start)).await;
        if let Ok(answer) = &mut outcome {
            answer.tokens = answer.tokens.filter(|&tokens| self.believes(tokens, texts));
            // It was paid for, whatever it is worth.
            self.used(parts, answer.tokens);
        }
        let outcome = outcome.and_then(|answer| check_shape(model, texts, answer));
        let time = self.parts.timer.now().saturating_sub(start);
        self.parts.counters.count(model, |stats| {
            stats.calls += 1;
            stats.time += time;
            match &outcome {
                Ok(answer) => {
                    stats.texts += u64::try_from(texts.len()).unwrap_or(u64::MAX);
                    let tokens = answer
                        .tokens
                        .unwrap_or_else(|| texts.iter().map(|text| self.reckoned(text)).sum());
                    stats.tokens = stats.tokens.saturating_add(tokens);
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

    /// Waits between two tries, for as long as somebody waits for the texts.
    async fn pause(&self, wait: Duration, parts: &[Part]) -> Result<(), CallError> {
        let mut closed = self.closed.subscribe();
        let mut over = self.parts.timer.sleep(wait);
        loop {
            // Listens before it looks, so that no departure slips between.
            let mut departure = pin!(self.departures.notified());
            departure.as_mut().enable();
            if latest_deadline(parts).is_none() {
                return Err(CallError::fatal(EmbedError::Closed));
            }
            tokio::select! {
                () = &mut over => return Ok(()),
                _ = closed.wait_for(|&closed| closed) => {
                    return Err(CallError::fatal(EmbedError::Closed));
                }
                () = departure => {}
            }
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
    fn deliver(
        &self,
        model: &ModelSpec,
        parts: impl IntoIterator<Item = Part>,
        vectors: &[Vec<f32>],
    ) {
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
            for ((key, text), vector) in keys.iter().zip(part.texts()).zip(own) {
                if self.is_kept(text) {
                    self.parts.cache.put(key, vector);
                }
            }
            part.ticket.fill(part.range.start, own);
        }
    }
}

impl Shared {
    /// Whether so many tokens may be those of these texts. A server that does not count says 0, with
    /// which nothing would ever cost anything; and a number that is wrong by far would stay in the
    /// sums for ever. A token is a byte at least, but for what a model puts around each text.
    fn believes(&self, tokens: u64, texts: &[String]) -> bool {
        let most = |text: &String| match self.pictures {
            Some(_) => TOKENS_OF_A_PICTURE_MAX,
            None => text.len() + TOKENS_AROUND_A_TEXT_MAX,
        };
        let most = texts.iter().map(most).sum::<usize>();
        tokens > 0 && usize::try_from(tokens).is_ok_and(|tokens| tokens <= most)
    }

    /// Tokens of a text or a picture that the provider did not count.
    fn reckoned(&self, text: &str) -> u64 {
        match self.pictures {
            Some(_) => self.tokens_estimated(text),
            None => tokens_reckoned(text, &self.takes),
        }
    }

    /// Divides what a call used among those whose texts it was for.
    fn used(&self, parts: &[Part], tokens: Option<u64>) {
        let estimated =
            |part: &Part| part.texts().iter().map(|text| self.tokens_estimated(text)).sum();
        let estimates: Vec<u64> = parts.iter().map(estimated).collect();
        let tokens = tokens.unwrap_or_else(|| estimates.iter().sum());
        for (part, tokens) in parts.iter().zip(divided(tokens, &estimates)) {
            part.used(tokens);
        }
    }
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
