//! What waits in a lane, and which of it makes the next call: order, company, size of a call.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::ticket::{Part, Ticket};
use crate::models::ModelSpec;
use crate::provider::{InputType, ProviderLimits};

/// Calls of queries in a row before waiting documents get their turn.
const QUERY_CALLS_IN_ROW_MAX: u32 = 8;

/// The tickets that wait.
#[derive(Default)]
pub(super) struct Queue {
    queries: VecDeque<Queued>,
    documents: VecDeque<Queued>,
    query_calls_in_row: u32,
}

struct Queued {
    ticket: Arc<Ticket>,
    /// Texts before this one are taken.
    next: usize,
    since: Duration,
}

/// Parts of one model and input type that make one call.
pub(super) struct Batch {
    pub(super) model: Arc<ModelSpec>,
    pub(super) input: InputType,
    pub(super) parts: Vec<Part>,
}

/// What there is to do.
pub(super) enum Next {
    /// This call.
    Call(Batch),
    /// A call, after this time.
    Wait(Duration),
    /// Nothing.
    Idle,
}

/// What decides whether a call waits for company.
pub(super) struct Company {
    pub(super) now: Duration,
    /// How long it may wait; `None` while no other call is running.
    pub(super) window: Option<Duration>,
}

impl Queue {
    /// Takes a ticket in, at its input type's end.
    pub(super) fn push(&mut self, ticket: Arc<Ticket>, now: Duration) {
        let input = ticket.input;
        self.of(input).push_back(Queued { ticket, next: 0, since: now });
    }

    /// Takes everything out.
    pub(super) fn drain(&mut self) -> Vec<Arc<Ticket>> {
        let Queue { queries, documents, .. } = self;
        queries.drain(..).chain(documents.drain(..)).map(|queued| queued.ticket).collect()
    }

    fn of(&mut self, input: InputType) -> &mut VecDeque<Queued> {
        match input {
            InputType::Query => &mut self.queries,
            InputType::Document => &mut self.documents,
        }
    }

    /// The next call, or how long to wait for it.
    pub(super) fn next(&mut self, takes: &ProviderLimits, company: &Company) -> Next {
        self.queries.retain(|queued| queued.ticket.is_wanted());
        self.documents.retain(|queued| queued.ticket.is_wanted());
        let turn_of_documents = self.query_calls_in_row >= QUERY_CALLS_IN_ROW_MAX;
        let input = match (self.queries.is_empty(), self.documents.is_empty()) {
            (true, true) => return Next::Idle,
            (true, false) => InputType::Document,
            (false, false) if turn_of_documents => InputType::Document,
            (false, _) => InputType::Query,
        };
        if let Some(wait) = self.wait(input, takes, company) {
            return Next::Wait(wait);
        }
        self.query_calls_in_row = match input {
            InputType::Query => self.query_calls_in_row.saturating_add(1),
            InputType::Document => 0,
        };
        take(self.of(input), takes).map_or(Next::Idle, Next::Call)
    }

    /// How long the next call of `input` should still wait for company, if at all.
    fn wait(
        &mut self,
        input: InputType,
        takes: &ProviderLimits,
        company: &Company,
    ) -> Option<Duration> {
        let window = company.window?;
        let queue = self.of(input);
        let texts: usize = queue.iter().map(|queued| queued.ticket.texts.len() - queued.next).sum();
        let oldest = queue.iter().map(|queued| queued.since).min()?;
        let waited = company.now.saturating_sub(oldest);
        let left = window.checked_sub(waited).filter(|left| !left.is_zero());
        left.filter(|_| texts < takes.texts_per_call)
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
pub(super) fn tokens_reckoned(text: &str, takes: &ProviderLimits) -> u64 {
    let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
    (bytes / takes.bytes_per_token).saturating_add(2).min(takes.tokens_per_text)
}
