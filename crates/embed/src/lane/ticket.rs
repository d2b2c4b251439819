//! What waits in a lane: one caller's texts, and the answer that is put together for them.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::cache::CacheKey;
use crate::error::EmbedError;
use crate::meter::{Meter, Usage};
use crate::models::ModelSpec;
use crate::provider::InputType;

type Outcome = Result<Vec<f32>, EmbedError>;

/// What a caller hands to a lane.
pub(crate) struct Request {
    pub(crate) model: Arc<ModelSpec>,
    pub(crate) input: InputType,
    pub(crate) texts: Vec<String>,
    /// One per text.
    pub(crate) keys: Vec<CacheKey>,
    /// On the lane's clock.
    pub(crate) deadline: Duration,
    /// Told what the texts use.
    pub(crate) meter: Option<Arc<dyn Meter>>,
}

/// The answer to a request. Dropping it withdraws what has not been called yet.
pub(crate) struct Reply {
    answer: oneshot::Receiver<Outcome>,
    departures: Arc<Notify>,
}

impl Reply {
    pub(super) fn new(answer: oneshot::Receiver<Outcome>, departures: Arc<Notify>) -> Self {
        Reply { answer, departures }
    }

    /// The vectors in the order of the texts; an index in an error counts within them.
    pub(crate) async fn vectors(mut self) -> Outcome {
        // A reply that is dropped unsent belongs to a lane that is gone.
        (&mut self.answer).await.unwrap_or(Err(EmbedError::Closed))
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // Closed before anybody is told, so that whoever is told finds it closed.
        self.answer.close();
        self.departures.notify_waiters();
    }
}

/// One request: texts of one model and input type that one caller waits for.
pub(super) struct Ticket {
    pub(super) model: Arc<ModelSpec>,
    pub(super) input: InputType,
    pub(super) texts: Vec<String>,
    pub(super) keys: Vec<CacheKey>,
    /// On the lane's clock.
    pub(super) deadline: Duration,
    meter: Option<Arc<dyn Meter>>,
    answer: Mutex<Answer>,
}

struct Answer {
    /// `texts * dimension`, row-major.
    vectors: Vec<f32>,
    missing: usize,
    reply: Option<oneshot::Sender<Outcome>>,
}

/// Some consecutive texts of a ticket.
pub(super) struct Part {
    pub(super) ticket: Arc<Ticket>,
    pub(super) range: Range<usize>,
}

impl Ticket {
    pub(super) fn new(request: Request, reply: oneshot::Sender<Outcome>) -> Self {
        let Request { model, input, texts, keys, deadline, meter } = request;
        let width = usize::try_from(model.dimension).unwrap_or(usize::MAX);
        let answer = Answer {
            vectors: vec![0.0; texts.len().saturating_mul(width)],
            missing: texts.len(),
            reply: Some(reply),
        };
        Ticket { model, input, texts, keys, deadline, meter, answer: Mutex::new(answer) }
    }

    /// Whether somebody still waits for the answer.
    pub(super) fn is_wanted(&self) -> bool {
        self.answer.lock().reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    pub(super) fn fail(&self, error: &EmbedError) {
        let reply = self.answer.lock().reply.take();
        // A caller that left wants no answer.
        if reply.is_some_and(|reply| reply.send(Err(error.clone())).is_err()) {
            tracing::trace!("nobody waits for the failed texts any more");
        }
    }

    /// Puts in the vectors of the texts from `start` on, and answers when none is missing.
    pub(super) fn fill(&self, start: usize, vectors: &[Vec<f32>]) {
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

impl Part {
    /// Tells whoever pays for the texts that their provider was paid.
    pub(super) fn used(&self, tokens: u64) {
        if let Some(meter) = &self.ticket.meter {
            let texts = u64::try_from(self.range.len()).unwrap_or(u64::MAX);
            meter.used(Usage { texts, tokens, ..Usage::default() });
        }
    }

    pub(super) fn texts(&self) -> &[String] {
        self.ticket.texts.get(self.range.clone()).unwrap_or_default()
    }
}

/// The time until which somebody waits for one of the parts; `None` when nobody does.
pub(super) fn latest_deadline(parts: &[Part]) -> Option<Duration> {
    parts.iter().filter(|part| part.ticket.is_wanted()).map(|part| part.ticket.deadline).max()
}
