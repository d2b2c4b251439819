//! The feed in pages, for programs that poll.

use std::time::Duration;

use arrwdb_engine::state::Seq;
use arrwdb_feed::{Delivery, FeedError, Position, Subscription};
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;

use super::ask::{Ask, permit, reach};
use crate::admission::holding;
use crate::app::App;
use crate::extract::QueryPairs;
use crate::limits::{
    EVENT_PAGE_BYTES_MAX, EVENT_PAGE_DEFAULT, EVENT_PAGE_MAX, EVENT_SCAN_TIME_MAX,
    EVENT_WAIT_SECONDS_MAX,
};
use crate::moment::MinSeq;
use crate::openapi::FollowErrors;
use crate::principal::Principal;
use crate::problem::Problem;
use crate::routes::{NDJSON, line, seq_header, wants_lines};

/// Events, and how to get the next ones.
#[derive(Debug, Serialize, ToSchema)]
struct EventPage {
    /// The events in order, each as `/v1/events/schema` says.
    #[schema(value_type = Vec<Object>)]
    events: Vec<()>,
    /// Ask for the next ones with `after` of this.
    #[schema(example = "17")]
    next: String,
    /// The oldest number from which on all events are kept.
    oldest_seq: u64,
}

/// The next events, for programs that poll. Without `after` it begins now: the answer says where
/// that is. One that is wanted may be far among others: a page without events is not the end unless
/// `next` is `after`. With `Accept: application/x-ndjson` a line for each event, and a last one with `next`.
#[utoipa::path(get, operation_id = "events", path = "/events", tag = "events",
    params(
        ("after" = Option<String>, Query, description = "Events after this place: `next` of the answer before, a sequence number, or an event's `id` [now]"),
        ("limit" = Option<u64>, Query, description = "Events at most, 1 to 1,000 [100]"),
        ("wait_seconds" = Option<u64>, Query, description = "How long to wait for the first event, 0 to 60 [0]"),
        ("library_id" = Option<String>, Query, format = "uuid", description = "Of this library only"),
        ("event_types" = Option<String>, Query, description = "Types, families (`document.*`) or `*`, separated by commas [all but those of chunks]"),
        ("min_seq" = Option<u64>, Query, description = "Waits until this write is seen"),
    ),
    responses((status = 200, description = "The events", body = EventPage), FollowErrors))]
pub(super) async fn events(
    principal: Principal,
    State(app): State<App>,
    MinSeq(min_seq): MinSeq,
    query: QueryPairs,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let ask = Ask::read(principal, &query, &headers)?;
    let limit = query.whole("limit", EVENT_PAGE_DEFAULT, 1..=EVENT_PAGE_MAX)?;
    let wait = query.whole("wait_seconds", 0, 0..=EVENT_WAIT_SECONDS_MAX)?;
    let permit = permit(&app)?;
    if let Some(wanted) = min_seq {
        reach(&app, wanted).await?;
    }
    let mut subscription = ask.subscribe(&app).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let stopping = app.stopping();
    // Whatever was acknowledged before this request is in the answer. A feed that stands still for
    // longer than a read may wait does not hold it up.
    let longest = app.config().storage.min_seq_wait_max;
    let known = app.feed().reached(app.engine().durable());
    tokio::time::timeout(longest, known).await.unwrap_or_default();
    let lines = wants_lines(&headers);
    let bounds = Bounds { events: limit, wait: Duration::from_secs(wait) };
    let page = if lines { Page::new(b"", b"\n") } else { Page::new(b"{\"events\":[", b",") };
    let page = tokio::select! {
        page = page.read(&mut subscription, bounds) => page?,
        () = stopping => return Err(FeedError::Closed.into()),
    };
    drop(subscription);
    // What came while it waited is on the page.
    let seen = app.engine().durable().min(app.feed().seen());
    let (kind, body) = if lines {
        (NDJSON, page.into_lines())
    } else {
        (HeaderValue::from_static("application/json"), page.into_json(app.feed().oldest()))
    };
    // One who takes its time to read counts until it has.
    let body = holding(Body::from(body), permit);
    Ok((seq_header(seen), [(header::CONTENT_TYPE, kind)], body).into_response())
}

/// How much a page has at most, and how long it waits for its first event.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    events: usize,
    wait: Duration,
}

/// Events as JSON, and the place after them.
struct Page {
    body: Vec<u8>,
    separator: &'static [u8],
    events: usize,
    next: Option<Position>,
}

impl Page {
    fn new(begin: &[u8], separator: &'static [u8]) -> Self {
        Self { body: begin.to_vec(), separator, events: 0, next: None }
    }

    /// Waits for the first events at most so long, and for no more than these. Where none is found
    /// in time, it is the next page that looks on.
    async fn read(
        mut self,
        subscription: &mut Subscription,
        bounds: Bounds,
    ) -> Result<Self, FeedError> {
        let began = Instant::now();
        let (waited, looked) = (began + bounds.wait, began + bounds.wait.max(EVENT_SCAN_TIME_MAX));
        loop {
            let delivery = match timeout_at(looked, subscription.try_next()).await {
                Err(_elapsed) => None,
                Ok(Ok(None)) if self.events == 0 => {
                    timeout_at(waited, subscription.next()).await.ok().transpose()?
                }
                Ok(delivery) => delivery?,
            };
            let Some(mut delivery) = delivery else {
                self.next = Some(subscription.position());
                return Ok(self);
            };
            if !self.take(&mut delivery, bounds.events) {
                return Ok(self);
            }
        }
    }

    /// Takes events; whether there is room for more.
    fn take(&mut self, delivery: &mut Delivery, limit: usize) -> bool {
        let mut text = String::new();
        while self.events < limit && self.body.len() < EVENT_PAGE_BYTES_MAX {
            let Some(event) = delivery.next() else { return true };
            text.clear();
            event.write_json(&mut text);
            self.next = Some(event.position());
            if self.events > 0 {
                self.body.extend_from_slice(self.separator);
            }
            self.body.extend_from_slice(text.as_bytes());
            self.events += 1;
        }
        false
    }

    fn next(&self) -> String {
        self.next.map(|next| next.to_string()).unwrap_or_default()
    }

    fn into_lines(mut self) -> Vec<u8> {
        if self.events > 0 {
            self.body.extend_from_slice(self.separator);
        }
        let (events, next) = (self.events, self.next());
        self.body.extend(line(&json!({"status": "complete", "events": events, "next": next})));
        self.body
    }

    fn into_json(mut self, oldest: Seq) -> Vec<u8> {
        let next = self.next();
        self.body.extend_from_slice(
            format!("],\"next\":\"{next}\",\"oldest_seq\":{oldest}}}").as_bytes(),
        );
        self.body
    }
}
