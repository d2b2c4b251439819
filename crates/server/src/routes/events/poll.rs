//! The feed in pages, for programs that poll.

use std::time::Duration;

use arrwdb_feed::{Delivery, FeedError, Position, Subscription};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::ask::{Ask, permit};
use crate::app::App;
use crate::extract::QueryPairs;
use crate::limits::{
    EVENT_PAGE_BYTES_MAX, EVENT_PAGE_DEFAULT, EVENT_PAGE_MAX, EVENT_WAIT_SECONDS_MAX,
};
use crate::openapi::FollowErrors;
use crate::principal::Principal;
use crate::problem::Problem;
use crate::routes::{NDJSON, line, wants_lines};

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
/// that is. With `Accept: application/x-ndjson` a line for each event, and a last one with `next`.
#[utoipa::path(get, operation_id = "events", path = "/events", tag = "events",
    params(
        ("after" = Option<String>, Query, description = "Events after this place: `next` of the answer before, a sequence number, or an event's `id` [now]"),
        ("limit" = Option<u64>, Query, description = "Events at most, 1 to 1,000 [100]"),
        ("wait_seconds" = Option<u64>, Query, description = "How long to wait for the first event, 0 to 60 [0]"),
        ("library_id" = Option<String>, Query, format = "uuid", description = "Of this library only"),
        ("event_types" = Option<String>, Query, description = "Types, families (`document.*`) or `*`, separated by commas [all but those of chunks]"),
    ),
    responses((status = 200, description = "The events", body = EventPage), FollowErrors))]
pub(super) async fn events(
    principal: Principal,
    State(app): State<App>,
    query: QueryPairs,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let ask = Ask::read(principal, &query, &headers)?;
    let limit = query.whole("limit", EVENT_PAGE_DEFAULT, 1..=EVENT_PAGE_MAX)?;
    let wait = query.whole("wait_seconds", 0, 0..=EVENT_WAIT_SECONDS_MAX)?;
    let _permit = permit(&app)?;
    let mut subscription = ask.subscribe(&app).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let stopping = app.stopping();
    // Whatever was acknowledged before this request is in the answer. A feed that stands still for
    // longer than a read may wait does not hold it up.
    let longest = app.config().storage.min_seq_wait_max;
    let known = app.feed().reached(app.engine().durable());
    tokio::time::timeout(longest, known).await.unwrap_or_default();
    let page = tokio::select! {
        page = Page::read(&mut subscription, limit, Duration::from_secs(wait)) => page?,
        () = stopping => return Err(FeedError::Closed.into()),
    };
    let next = page.next.to_string();
    if wants_lines(&headers) {
        let mut body: Vec<u8> = Vec::new();
        for event in &page.events {
            body.extend_from_slice(event.as_bytes());
            body.push(b'\n');
        }
        let count = page.events.len();
        let end = serde_json::json!({"status": "complete", "events": count, "next": next});
        body.extend(line(&end));
        return Ok(([(header::CONTENT_TYPE, NDJSON)], body).into_response());
    }
    let oldest = app.feed().oldest();
    let body = format!(
        "{{\"events\":[{}],\"next\":\"{next}\",\"oldest_seq\":{oldest}}}",
        page.events.join(",")
    );
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Events as JSON, and the place after them.
struct Page {
    events: Vec<String>,
    bytes: usize,
    next: Position,
}

impl Page {
    /// Waits for the first events at most so long, and for no more than these.
    async fn read(
        subscription: &mut Subscription,
        limit: usize,
        wait: Duration,
    ) -> Result<Self, FeedError> {
        let mut page = Self { events: Vec::new(), bytes: 0, next: subscription.position() };
        let deadline = Instant::now() + wait;
        loop {
            let delivery = match subscription.try_next().await? {
                Some(delivery) => Some(delivery),
                None if page.events.is_empty() => {
                    match tokio::time::timeout_at(deadline, subscription.next()).await {
                        Ok(delivery) => Some(delivery?),
                        Err(_elapsed) => None,
                    }
                }
                None => None,
            };
            let Some(mut delivery) = delivery else {
                page.next = subscription.position();
                return Ok(page);
            };
            if !page.take(&mut delivery, limit) {
                return Ok(page);
            }
        }
    }

    /// Takes events; whether there is room for more.
    fn take(&mut self, delivery: &mut Delivery, limit: usize) -> bool {
        while self.events.len() < limit && self.bytes < EVENT_PAGE_BYTES_MAX {
            let Some(event) = delivery.next() else { return true };
            let mut text = String::new();
            event.write_json(&mut text);
            self.next = event.position();
            self.bytes += text.len();
            self.events.push(text);
        }
        false
    }
}
