//! Cuts off clients that hold a connection and do not move.
//!
//! - A client that sends nothing, or the beginning of HTTP/2's preface and no more ([`Guarded`]).
//! - A client that takes none of its answer ([`Guarded`] for what is in the connection's buffers,
//!   [`Watch`] for an answer whose rest waits for them, which HTTP/2 may do on its own). One that is
//!   still sending its request moves: some send all of it before they read.
//! - A connection without any request ([`Watch`]; HTTP/1 has a timeout of its own for this).

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::limits::ANSWER_PIECE_BYTES;

/// How long a client may stand still.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Before the head of a request, and between requests.
    pub(crate) head: Duration,
    /// While an answer waits for it.
    pub(crate) idle: Duration,
}

/// Why a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// An answer waits and nothing of it is taken.
    NotReading,
    /// There is no request.
    Unused,
}

/// The requests of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Watch(Arc<Mutex<Exchanges>>);

#[derive(Debug)]
struct Exchanges {
    open: BTreeMap<u64, Progress>,
    begun: u64,
    /// When the last one ended.
    unused_since: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Progress {
    /// When something of the request came or something of the answer was taken.
    moved: Instant,
    /// A piece of the answer was given and the next one is not asked for yet.
    waiting: bool,
}

impl Watch {
    pub(crate) fn new() -> Self {
        let exchanges = Exchanges { open: BTreeMap::new(), begun: 0, unused_since: Instant::now() };
        Self(Arc::new(Mutex::new(exchanges)))
    }

    /// A request has come.
    pub(crate) fn begin(&self) -> Exchange {
        let mut exchanges = self.0.lock();
        exchanges.begun += 1;
        let number = exchanges.begun;
        exchanges.open.insert(number, Progress { moved: Instant::now(), waiting: false });
        Exchange { watch: self.clone(), number }
    }

    /// Resolves when the client has stood still for too long.
    pub(crate) async fn verdict(&self, patience: Patience) -> Verdict {
        let tick = patience.idle.min(patience.head) / 4;
        loop {
            tokio::time::sleep(tick.max(Duration::from_millis(50))).await;
            if let Some(verdict) = self.judge(patience) {
                return verdict;
            }
        }
    }

    fn judge(&self, patience: Patience) -> Option<Verdict> {
        let exchanges = self.0.lock();
        let stands =
            |progress: &Progress| progress.waiting && progress.moved.elapsed() >= patience.idle;
        if exchanges.open.values().any(stands) {
            return Some(Verdict::NotReading);
        }
        // Twice, so that HTTP/1's own timeout, which is kinder, comes first.
        let unused = exchanges.open.is_empty();
        let is_long = exchanges.unused_since.elapsed() >= patience.head * 2;
        (unused && is_long).then_some(Verdict::Unused)
    }
}

/// One request and its answer; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Exchange {
    watch: Watch,
    number: u64,
}

impl Exchange {
    fn moved(&self, waiting: Option<bool>) {
        let mut exchanges = self.watch.0.lock();
        if let Some(progress) = exchanges.open.get_mut(&self.number) {
            progress.moved = Instant::now();
            progress.waiting = waiting.unwrap_or(progress.waiting);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut exchanges = self.watch.0.lock();
        exchanges.open.remove(&self.number);
        exchanges.unused_since = Instant::now();
    }
}

/// The body of a request, which says when something of it came.
#[derive(Debug)]
pub(crate) struct Arriving<B> {
    body: B,
    exchange: Arc<Exchange>,
}

impl<B> Arriving<B> {
    pub(crate) fn new(body: B, exchange: Arc<Exchange>) -> Self {
        Self { body, exchange }
    }
}

impl<B: http_body::Body + Unpin> http_body::Body for Arriving<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.exchange.moved(None);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer in pieces, which says whether they are taken.
#[derive(Debug)]
pub(crate) struct Leaving {
    body: Body,
    /// What is left of a frame that was larger than a piece.
    rest: Bytes,
    exchange: Arc<Exchange>,
}

impl Leaving {
    pub(crate) fn new(body: Body, exchange: Arc<Exchange>) -> Self {
        Self { body, rest: Bytes::new(), exchange }
    }

    fn piece(&mut self) -> Frame<Bytes> {
        let length = self.rest.len().min(ANSWER_PIECE_BYTES);
        self.exchange.moved(Some(true));
        Frame::data(self.rest.split_to(length))
    }
}

impl http_body::Body for Leaving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // Asked for more: what was given is taken, and from here on it is the server that waits.
        self.exchange.moved(Some(false));
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.piece())));
        }
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(frame) => frame?,
        };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(data) => {
                self.rest = data;
                self.piece()
            }
            Err(trailers) => trailers,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

/// What HTTP/2 begins with. Until it is told apart from HTTP/1, nobody else has a timeout.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much has come over a connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Received(Arc<AtomicU64>);

impl Received {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// The time until it is known what a client speaks.
#[derive(Debug)]
struct Opening {
    /// How much of the preface has come.
    matched: usize,
    timer: Pin<Box<Sleep>>,
}

/// A socket that fails when its client stands still.
#[derive(Debug)]
pub(crate) struct Guarded {
    stream: TcpStream,
    patience: Patience,
    /// Until it is told apart.
    opening: Option<Opening>,
    /// When something came.
    read_at: Instant,
    received: Received,
    /// Runs while something waits to be taken.
    writing: Option<Pin<Box<Sleep>>>,
}

impl Guarded {
    pub(crate) fn new(stream: TcpStream, patience: Patience) -> Self {
        let timer = Box::pin(tokio::time::sleep(patience.head));
        let opening = Some(Opening { matched: 0, timer });
        let read_at = Instant::now();
        let received = Received::default();
        Self { stream, patience, opening, read_at, received, writing: None }
    }

    /// Waits until something has come, and looks at it without taking it: false if it is not how
    /// HTTP/2 begins. So whoever reads first reads all that is there at once.
    pub(crate) async fn may_begin_http2(&mut self) -> io::Result<bool> {
        let Some(Opening { matched: 0, timer }) = &mut self.opening else { return Ok(true) };
        let mut first = [0; PREFACE.len()];
        let length = tokio::select! {
            length = self.stream.peek(&mut first) => length?,
            () = timer => return Err(cut_off("it asks for nothing")),
        };
        Ok(PREFACE.starts_with(&first[..length]))
    }

    /// How much has come.
    pub(crate) fn received(&self) -> Received {
        self.received.clone()
    }

    fn has_read(&mut self, bytes: &[u8]) {
        self.read_at = Instant::now();
        self.received.add(bytes.len());
        self.opening.take_if(|opening| {
            let expected = &PREFACE[opening.matched..];
            let length = bytes.len().min(expected.len());
            opening.matched += length;
            bytes.len() >= expected.len() || bytes[..length] != expected[..length]
        });
    }

    /// Nothing could be written: fails if that has gone on for too long.
    fn stands(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Patience { idle, .. } = self.patience;
        let timer = self.writing.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        loop {
            ready!(timer.as_mut().poll(cx));
            let quiet = self.read_at.elapsed();
            if quiet >= idle {
                return Poll::Ready(Err(cut_off("it takes none of its answer")));
            }
            timer.as_mut().reset(tokio::time::Instant::now() + idle.saturating_sub(quiet));
        }
    }

    fn wrote(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match outcome {
            Poll::Pending => self.stands(cx),
            Poll::Ready(outcome) => {
                self.writing = None;
                Poll::Ready(outcome)
            }
        }
    }
}

fn cut_off(why: &str) -> io::Error {
    tracing::debug!("a connection is cut off: {why}");
    io::Error::new(io::ErrorKind::TimedOut, why.to_owned())
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) => {
                self.has_read(&buffer.filled()[before..]);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let Some(opening) = &mut self.opening else { return Poll::Pending };
                ready!(opening.timer.as_mut().poll(cx));
                Poll::Ready(Err(cut_off("it asks for nothing")))
            }
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.wrote(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    const PATIENCE: Patience = Patience { head: Duration::from_mins(1), idle: Duration::ZERO };

    #[tokio::test]
    async fn an_answer_leaves_in_pieces_and_is_watched_while_it_waits() {
        let watch = Watch::new();
        let exchange = Arc::new(watch.begin());
        let whole: Vec<u8> =
            (0..3 * ANSWER_PIECE_BYTES + 5).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let mut body = Leaving::new(Body::from(whole.clone()), exchange);
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(whole.len() as u64));
        let mut seen = Vec::new();
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            assert!(data.len() <= ANSWER_PIECE_BYTES);
            seen.extend_from_slice(&data);
            assert_eq!(watch.judge(PATIENCE), Some(Verdict::NotReading));
        }
        assert_eq!(seen, whole);
        assert_eq!(watch.judge(PATIENCE), None, "it is taken to its end");
        drop(body);
        let hasty = Patience { head: Duration::ZERO, ..PATIENCE };
        assert_eq!(watch.judge(hasty), Some(Verdict::Unused));
    }

    #[tokio::test]
    async fn a_client_that_still_sends_moves() {
        let watch = Watch::new();
        let exchange = Arc::new(watch.begin());
        exchange.moved(Some(true));
        assert_eq!(watch.judge(PATIENCE), Some(Verdict::NotReading));
        let mut body = Arriving::new(Body::from("x"), exchange);
        body.frame().await.unwrap().unwrap();
        let patience = Patience { idle: Duration::from_mins(1), ..PATIENCE };
        assert_eq!(watch.judge(patience), None);
    }
}
