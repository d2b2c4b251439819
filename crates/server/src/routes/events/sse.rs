//! The feed as server-sent events.
//!
//! ```text
//! : follow               at once: where the stream begins, so that who is cut off before the
//! id: 16                 first event misses none either
//! retry: 2000
//!
//! id: 17.0               the place after the event, to resume from
//! event: chunk.added
//! data: {...}            the payload flat, with seq, type, library_id, timestamp
//!
//! : heartbeat            when nothing happens; the place moves on
//! id: 18
//!
//! event: reset           what was asked for is gone: it goes on with the oldest there is
//! event: cut-off         the client did not read; the last frame before the end. Within a snapshot
//!                        there is no place to go on from
//! ```

use std::convert::Infallible;
use std::pin::Pin;
use std::time::{Duration, Instant};

use arrwdb_engine::Embeddings;
use arrwdb_engine::state::{Document, FieldVectors, Seq};
use arrwdb_feed::{Delivery, FeedError, Position, Subscription};
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::ask::{Ask, permit};
use crate::admission::Turn;
use crate::app::App;
use crate::extract::{QueryPairs, query_fault};
use crate::limits::ANSWER_PIECE_BYTES;
use crate::moment::MinSeq;
use crate::ndjson::write_line;
use crate::openapi::FollowErrors;
use crate::principal::Principal;
use crate::problem::Problem;
use crate::routes::answers::DocumentAnswer;
use crate::routes::export::{Pages, ask_embeddings, rendered};

/// Milliseconds that a browser waits before it comes back.
const RETRY_MILLISECONDS: u32 = 2000;
/// What a first piece reserves: most streams are quiet.
const PIECE_BYTES: usize = 256;
/// What a frame ends with, and has nowhere else.
const FRAME_END: &[u8] = b"\n\n";

/// Every change as it happens, as server-sent events. A client that comes back with `Last-Event-ID`
/// (browsers do) misses nothing; where what it has seen is kept no longer, an event `reset` says so.
#[utoipa::path(get, operation_id = "event_stream", path = "/events/stream", tag = "events",
    params(
        ("library_id" = Option<String>, Query, format = "uuid", description = "Of this library only"),
        ("event_types" = Option<String>, Query, description = "Types, families (`document.*`) or `*`, separated by commas [all but those of chunks]"),
        ("after" = Option<String>, Query, description = "Events after this place: a sequence number, or an event's id [now]"),
        ("Last-Event-ID" = Option<String>, Header, description = "The same; it beats `after`"),
        ("snapshot" = Option<bool>, Query, description = "Whether the library's documents come first, as of one sequence number, and then everything after it [false]"),
        ("include_embeddings" = Option<bool>, Query, description = "Whether the documents of the snapshot carry their vectors [false]"),
        ("min_seq" = Option<u64>, Query, description = "The snapshot waits until this write is seen"),
    ),
    responses((status = 200, description = "Events, until the client leaves", body = String, content_type = "text/event-stream"), FollowErrors))]
pub(super) async fn stream(
    principal: Principal,
    State(app): State<App>,
    MinSeq(min_seq): MinSeq,
    query: QueryPairs,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut ask = Ask::read(principal, &query, &headers)?;
    let embeddings = ask_embeddings(&query, false)?;
    let wants_snapshot = query.switch("snapshot")?.unwrap_or(false);
    if wants_snapshot && query.text("after").is_some() {
        return Err(query_fault("snapshot", "begins by itself: leave out after"));
    }
    let permit = permit(&app)?;
    let snapshot = match ask.filter.library {
        // One that comes back has it.
        _ if !wants_snapshot || ask.after.is_some() => None,
        None => return Err(query_fault("snapshot", "needs library_id")),
        Some(library) => {
            // It costs what an export does, and counts as one until its end.
            let turn = app.streams().enter().await?;
            let snapshot = app.engine().library(principal.tenant, library, min_seq).await?;
            ask.after = Some(Position::after(snapshot.seq()));
            let frames = snapshot_frames(snapshot, embeddings);
            Some(Sending { frames, rest: Bytes::new(), within_frame: false, _turn: turn })
        }
    };
    let subscription = ask.subscribe(&app).await?;
    let follower = Follower::new(&app, subscription, snapshot, permit);
    let pieces = stream::unfold(follower, |mut follower| async move {
        let piece = follower.next().await?;
        Some((Ok::<_, Infallible>(piece), follower))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// Frames of a snapshot; `None` after one that could not be read.
type Frames = Pin<Box<dyn Stream<Item = Option<Bytes>> + Send>>;

/// A snapshot that is being sent.
struct Sending {
    frames: Frames,
    /// What was read and is not handed over yet: whole frames, but for the first one's beginning.
    rest: Bytes,
    /// Whether a part of a frame was handed over and not the rest of it.
    within_frame: bool,
    _turn: Turn,
}

impl Sending {
    /// The next piece, small enough that a client that reads at all takes it in time; `None` at the
    /// end.
    async fn next(&mut self) -> Option<Option<Bytes>> {
        if self.rest.is_empty() {
            match self.frames.next().await {
                Some(Some(page)) => self.rest = page,
                other => return other,
            }
        }
        let end = piece_end(&self.rest);
        let piece = self.rest.split_to(end);
        self.within_frame = !self.rest.is_empty() && !piece.ends_with(FRAME_END);
        Some(Some(piece))
    }
}

/// Where a piece of these frames ends: after one of them, if one ends within a piece.
fn piece_end(frames: &[u8]) -> usize {
    if frames.len() <= ANSWER_PIECE_BYTES {
        return frames.len();
    }
    let most = frames.get(..ANSWER_PIECE_BYTES).unwrap_or(frames);
    let last = most.windows(FRAME_END.len()).rposition(|bytes| bytes == FRAME_END);
    last.map_or(ANSWER_PIECE_BYTES, |at| at + FRAME_END.len())
}

/// One client.
struct Follower {
    app: App,
    subscription: Subscription,
    snapshot: Option<Sending>,
    /// What is being written.
    delivery: Option<Delivery>,
    /// Everything before this place was handed to the connection.
    sent: Position,
    /// When the last piece was.
    handed: Option<Instant>,
    ended: bool,
    heartbeat: Duration,
    stall: Duration,
    stopping: Pin<Box<dyn Future<Output = ()> + Send>>,
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    fn new(
        app: &App,
        subscription: Subscription,
        snapshot: Option<Sending>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let events = &app.config().events;
        Self {
            app: app.clone(),
            sent: subscription.position(),
            subscription,
            snapshot,
            delivery: None,
            handed: None,
            ended: false,
            heartbeat: events.heartbeat,
            stall: events.stall,
            stopping: Box::pin(app.stopping()),
            _permit: permit,
        }
    }

    /// The next piece of the answer, when the client has taken the one before; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let piece = match self.handed {
            None if self.snapshot.is_none() => self.begin(),
            Some(handed) if handed.elapsed() > self.stall => self.cut_off()?,
            _ => match self.next_of_snapshot().await {
                Some(piece) => piece,
                None => self.next_events().await,
            },
        };
        self.handed = Some(Instant::now());
        Some(piece)
    }

    fn begin(&self) -> Bytes {
        format!(": follow\nid: {}\nretry: {RETRY_MILLISECONDS}\n\n", self.sent).into()
    }

    /// The client did not take what it asked for. It learns where it can go on, if it ever reads;
    /// but in the middle of a frame nothing can be said, and the frame counts for nothing.
    fn cut_off(&mut self) -> Option<Bytes> {
        self.ended = true;
        self.app.feed().note_cut_off();
        let snapshot = self.snapshot.take();
        if snapshot.as_ref().is_some_and(|snapshot| snapshot.within_frame) {
            return None;
        }
        // Where the snapshot is not at its end, no place is one that all before was seen of.
        let (resume, advice) = match snapshot {
            Some(_unfinished) => (None, "documents are missing: begin the snapshot again"),
            None => (Some(self.sent.to_string()), "come back with Last-Event-ID"),
        };
        let data = json!({
            "type": "cut-off",
            "resume_after": resume,
            "detail": format!("nothing was read for {} s; {advice}", self.stall.as_secs()),
        });
        Some(format!("event: cut-off\ndata: {data}\n\n").into())
    }

    async fn next_of_snapshot(&mut self) -> Option<Bytes> {
        let next = self.snapshot.as_mut()?.next().await;
        match next {
            Some(Some(piece)) => Some(piece),
            Some(None) => {
                (self.ended, self.snapshot) = (true, None);
                let data = json!({"type": "error", "detail": "documents could not be read"});
                Some(format!("event: error\ndata: {data}\n\n").into())
            }
            None => {
                self.snapshot = None;
                Some(self.begin())
            }
        }
    }

    async fn next_events(&mut self) -> Bytes {
        if self.delivery.is_none() {
            let waited = tokio::select! {
                biased;
                () = &mut self.stopping => return self.end("the server stops"),
                waited = tokio::time::timeout(self.heartbeat, self.subscription.next()) => waited,
            };
            match waited {
                Ok(Ok(delivery)) => self.delivery = Some(delivery),
                Ok(Err(FeedError::Trimmed { oldest })) => return self.reset(oldest),
                Ok(Err(FeedError::Closed)) => return self.end("the server stops"),
                Ok(Err(error)) => {
                    tracing::error!("a client cannot follow the feed any longer: {error}");
                    return self.end("the feed failed");
                }
                Err(_nothing_happened) => {
                    self.sent = self.sent.max(self.subscription.position());
                    return format!(": heartbeat\nid: {}\n\n", self.sent).into();
                }
            }
        }
        self.frames()
    }

    /// As many of the events at hand as fit a piece.
    fn frames(&mut self) -> Bytes {
        let mut piece = String::with_capacity(PIECE_BYTES);
        while piece.len() < ANSWER_PIECE_BYTES {
            let Some(event) = self.delivery.as_mut().and_then(Delivery::next) else {
                self.delivery = None;
                break;
            };
            self.sent = event.position();
            let kind = event.event_type().name();
            for part in ["id: ", &self.sent.to_string(), "\nevent: ", kind, "\ndata: "] {
                piece.push_str(part);
            }
            event.write_flat_json(&mut piece);
            piece.push_str("\n\n");
        }
        piece.into()
    }

    /// What comes next is gone: says so, and goes on with what there is.
    fn reset(&mut self, oldest: Seq) -> Bytes {
        let asked = self.sent;
        self.sent = Position::after(Seq::new(oldest.get().saturating_sub(1)));
        self.subscription.seek(self.sent);
        let data = json!({
            "type": "reset",
            "oldest_seq": oldest.get(),
            "after": asked.to_string(),
            "detail": "events after this place are no longer kept: build anew what was built from \
                       them; the oldest that are kept follow",
        });
        format!("id: {}\nevent: reset\ndata: {data}\n\n", self.sent).into()
    }

    fn end(&mut self, why: &str) -> Bytes {
        self.ended = true;
        format!(": {why}\nid: {}\n\n", self.sent).into()
    }
}

/// The documents of a library as of one sequence number.
fn snapshot_frames(snapshot: arrwdb_engine::Snapshot, embeddings: Embeddings) -> Frames {
    let (library, seq) = (snapshot.spec().id, snapshot.seq().get());
    let count = snapshot.stats().documents;
    let about = json!({"library_id": library.to_string(), "seq": seq, "num_documents": count});
    let begin = format!("event: snapshot.begin\ndata: {about}\n\n");
    let end = format!("id: {seq}\nevent: snapshot.end\ndata: {about}\n\n");
    let documents = rendered(Pages::whole(snapshot, embeddings), document_frame);
    let documents = documents.map(|page| match page {
        Ok(page) => Some(Bytes::from(page.bytes)),
        Err(error) => {
            tracing::error!("a snapshot broke off: {error}");
            None
        }
    });
    let begin = stream::iter([Some(Bytes::from(begin))]);
    Box::pin(begin.chain(documents).chain(stream::iter([Some(Bytes::from(end))])))
}

fn document_frame(
    document: Document,
    fields: Vec<FieldVectors>,
    out: &mut Vec<u8>,
) -> Result<(), serde_json::Error> {
    out.extend_from_slice(b"event: snapshot.document\ndata: ");
    write_line(out, &DocumentAnswer::whole(document, fields))?;
    out.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_of_frames_ends_after_a_frame_where_one_ends_in_it() {
        let frame =
            |bytes: usize| [b"x".repeat(bytes - FRAME_END.len()), FRAME_END.to_vec()].concat();
        assert_eq!(piece_end(b"ab\n\n"), 4);
        let many = frame(1000).repeat(ANSWER_PIECE_BYTES / 1000 + 1);
        assert_eq!(piece_end(&many), ANSWER_PIECE_BYTES / 1000 * 1000);
        let exact = [frame(ANSWER_PIECE_BYTES), frame(10)].concat();
        assert_eq!(piece_end(&exact), ANSWER_PIECE_BYTES);
        let large = frame(3 * ANSWER_PIECE_BYTES);
        assert_eq!(piece_end(&large), ANSWER_PIECE_BYTES);
    }
}
