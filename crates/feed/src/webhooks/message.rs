//! One delivery: its body, its headers, and what the receiver made of it.

use std::error::Error;
use std::time::{Duration, Instant};

use arrwdb_engine::state::{LibraryId, Timestamp, WebhookId};
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, Response, Url};
use ring::digest;
use uuid::Uuid;

use super::vault::Signer;
use crate::event::{Event, Position};
use crate::event_type::EventType;
use crate::json;

/// Bytes of an answer that are read: what is shorter leaves the connection open for the next.
const ANSWER_BYTES_MAX: usize = 16 << 10;
/// How long the body of an answer is waited for: the status has said all that matters.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Characters of an answer that are kept.
const ANSWER_CHARS_MAX: usize = 1000;
/// Characters of an error.
const ERROR_CHARS_MAX: usize = 500;
/// Characters of an answer in an error.
const ERROR_ANSWER_CHARS_MAX: usize = 200;
/// The longest that a receiver may ask to be left alone.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

/// What is sent.
#[derive(Debug, Clone)]
pub(super) struct Message {
    /// The same for every attempt, and for every replay.
    pub(super) id: Uuid,
    pub(super) event_type: &'static str,
    pub(super) body: Bytes,
    /// Where it is in the feed; a test is nowhere.
    pub(super) position: Option<Position>,
    pub(super) library: Option<LibraryId>,
}

impl Message {
    /// An event, as this webhook is told of it.
    pub(super) fn of(webhook: WebhookId, event: Event<'_>, created: bool) -> Self {
        let position = event.position();
        let event_type = event.event_type();
        let as_created = created && event_type == EventType::DocumentAdded;
        let event_type = if as_created { "document.created" } else { event_type.name() };
        let id = event_id(webhook, position, event.at());
        let mut body = String::with_capacity(256);
        json::delivered(event, (&id, event_type), &mut body);
        let (position, library) = (Some(position), event.library());
        Self { id, event_type, body: body.into(), position, library }
    }
}

/// The id of an event for one webhook: a UUID of version 7 whose time is the event's. It follows from
/// the place and the time of the event, so that attempts, replays and restarts use the same, and a
/// log that went another way after a backup was restored does not.
fn event_id(webhook: WebhookId, position: Position, at: Timestamp) -> Uuid {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&webhook.to_bytes());
    context.update(position.to_string().as_bytes());
    context.update(&at.micros().to_le_bytes());
    let digest = context.finish();
    let bits = digest.as_ref().first_chunk::<10>().copied().unwrap_or_default();
    id_of(at, &bits)
}

/// A UUID of version 7.
pub(super) fn id_of(at: Timestamp, bits: &[u8; 10]) -> Uuid {
    let millis = u64::try_from(at.micros() / 1000).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, bits).into_uuid()
}

/// Where messages of a webhook go.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) webhook: WebhookId,
    pub(super) url: Url,
    pub(super) timeout: Duration,
    pub(super) signer: Signer,
    pub(super) client: Client,
}

/// What a receiver made of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Delivered,
    Failed,
    /// Nothing more is wanted.
    Gone,
}

/// An attempt that is over.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) verdict: Verdict,
    pub(super) at: Timestamp,
    pub(super) took: Duration,
    pub(super) status: Option<u16>,
    pub(super) answer: Option<String>,
    pub(super) error: Option<String>,
    pub(super) retry_after: Option<Duration>,
}

impl Attempt {
    /// The receiver takes nothing at the moment.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.status, Some(429 | 503))
    }
}

impl Target {
    /// Sends a message once.
    pub(super) async fn send(&self, message: &Message, at: Timestamp) -> Attempt {
        let began = Instant::now();
        let mut attempt = Attempt {
            verdict: Verdict::Failed,
            at,
            took: Duration::ZERO,
            status: None,
            answer: None,
            error: None,
            retry_after: None,
        };
        match self.request(message, at).send().await {
            Ok(response) => read(response, at, &mut attempt).await,
            Err(error) => attempt.error = Some(self.describe(error)),
        }
        attempt.took = began.elapsed();
        attempt
    }

    fn request(&self, message: &Message, at: Timestamp) -> reqwest::RequestBuilder {
        let id = message.id.to_string();
        let body = &message.body;
        let request = self
            .client
            .post(self.url.clone())
            .timeout(self.timeout)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", at.micros() / 1_000_000)
            .header("webhook-signature", self.signer.sign(&id, at, body))
            .header("X-Webhook-Signature", self.signer.sign_as_original(body))
            .header("X-Webhook-ID", self.webhook.to_string())
            .header("X-Event-ID", &id)
            .header("X-Event-Type", message.event_type)
            .body(body.clone());
        // The body is what clients of the original know, to the byte.
        match message.position {
            Some(position) => request
                .header("X-Event-Seq", position.seq().get())
                .header("X-Event-Position", position.to_string()),
            None => request,
        }
    }

    /// An error in words. The target is not named: it may hold what is nobody's business.
    fn describe(&self, error: reqwest::Error) -> String {
        let error = error.without_url();
        if error.is_timeout() && !error.is_connect() {
            return format!("no answer within {} s", self.timeout.as_secs());
        }
        // The last cause says what it was: "connection refused" rather than "sending failed".
        let mut cause: &dyn Error = &error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        cut(&cause.to_string(), ERROR_CHARS_MAX)
    }
}

async fn read(response: Response, at: Timestamp, attempt: &mut Attempt) {
    let status = response.status();
    attempt.status = Some(status.as_u16());
    attempt.retry_after = retry_after(response.headers(), at);
    let answer = answer(response).await;
    if status.is_success() {
        attempt.verdict = Verdict::Delivered;
    } else {
        let gone = status == reqwest::StatusCode::GONE;
        attempt.verdict = if gone { Verdict::Gone } else { Verdict::Failed };
        let shown = cut(&answer, ERROR_ANSWER_CHARS_MAX);
        attempt.error = Some(format!("HTTP {}: {shown}", status.as_u16()));
    }
    attempt.answer = Some(cut(&answer, ANSWER_CHARS_MAX)).filter(|answer| !answer.is_empty());
}

/// The beginning of a body, as text.
async fn answer(mut response: Response) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        while bytes.len() <= ANSWER_BYTES_MAX {
            let Ok(Some(chunk)) = response.chunk().await else { return };
            let room = (ANSWER_BYTES_MAX + 1).saturating_sub(bytes.len());
            bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
    };
    // What has not come by then is not waited for.
    drop(tokio::time::timeout(ANSWER_WAIT, reading).await);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn cut(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

/// How long the receiver wants to be left alone: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse::<u64>() {
        Duration::from_secs(seconds)
    } else {
        let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
        let micros = date.as_microsecond().saturating_sub(now.micros());
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Timestamp::from_micros(784_111_777_000_000);
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, now)
        };
        assert_eq!(read("0"), Some(Duration::ZERO));
        assert_eq!(read(" 120 "), Some(Duration::from_mins(2)));
        assert_eq!(read("99999999999"), Some(RETRY_AFTER_MAX));
        // The date of RFC 9110's examples is `now`.
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(read("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_mins(1)));
        assert_eq!(read("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(read("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn an_event_has_one_id_for_a_webhook_wherever_it_is_sent_from() {
        let id = |webhook: u8, position: &str, micros| {
            let webhook = WebhookId::from_bytes([webhook; 16]);
            event_id(webhook, position.parse().unwrap(), Timestamp::from_micros(micros))
        };
        let one = id(1, "7.0", 1_700_000_000_000_000);
        assert_eq!(one, id(1, "7.0", 1_700_000_000_000_000));
        assert_eq!(one.get_version_num(), 7);
        for other in [
            id(2, "7.0", 1_700_000_000_000_000),
            id(1, "7", 1_700_000_000_000_000),
            id(1, "7.0", 1_700_000_000_000_001),
        ] {
            assert_ne!(one, other);
        }
    }
}
