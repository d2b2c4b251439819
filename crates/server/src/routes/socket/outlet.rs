//! The socket itself: messages that wait to be sent, bounded, and those that come.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use bytes::Bytes;
use futures_util::{Sink, Stream};

use super::arriving::{Arriving, Part};
use super::registry::{Counters, Sockets};
use crate::limits::{SOCKET_CLOSE_WAIT, SOCKET_PENDING_BYTES, SOCKET_REASON_BYTES_MAX};
use crate::progress::Received;

/// The socket with what waits to be sent.
#[derive(Debug)]
pub(super) struct Outlet {
    socket: WebSocket,
    queue: VecDeque<Message>,
    bytes: usize,
    pending_max: usize,
    /// Something was given to the socket and may not have left it yet.
    unflushed: bool,
    /// When something was sent last, or began to wait.
    moved: Instant,
    /// What came and is no whole message yet.
    arriving: Option<Arriving>,
}

/// What became of a look at the socket.
#[derive(Debug)]
pub(super) enum Io {
    /// A message came.
    Message(Message),
    /// There is room for answers and pushes again, or all is sent.
    Room,
    /// A part of a message came.
    Part,
    /// There is no memory for the part that came.
    Full,
    /// The connection is at its end.
    Gone,
    /// What came is too long, or is no WebSocket.
    Broken(axum::Error),
}

impl Outlet {
    pub(super) fn new(socket: WebSocket, pending_max: usize) -> Self {
        Self {
            socket,
            queue: VecDeque::new(),
            bytes: 0,
            pending_max,
            unflushed: false,
            moved: Instant::now(),
            arriving: None,
        }
    }

    /// With a bound of what comes in parts, where it is known how much comes.
    pub(super) fn counting(mut self, received: Option<Received>, sockets: &Arc<Sockets>) -> Self {
        self.arriving = received.map(|it| Arriving::new(it, sockets.arriving.clone()));
        self
    }

    /// Since when a message is arriving.
    pub(super) fn arriving_since(&self) -> Option<tokio::time::Instant> {
        self.arriving.as_ref().and_then(Arriving::since)
    }

    /// Whether more may be put in line.
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < self.pending_max && self.bytes < SOCKET_PENDING_BYTES
    }

    /// Whether everything has left.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && !self.unflushed
    }

    /// Whether something has waited for so long for the client to read.
    pub(super) fn stands(&self, stall: Duration) -> bool {
        !self.is_empty() && self.moved.elapsed() >= stall
    }

    /// Puts a text in line.
    pub(super) fn push(&mut self, text: impl Into<Utf8Bytes>) {
        let text = text.into();
        self.bytes += text.as_str().len();
        self.put(Message::Text(text));
    }

    /// Puts a ping in line.
    pub(super) fn ping(&mut self) {
        self.put(Message::Ping(Bytes::new()));
    }

    fn put(&mut self, message: Message) {
        if self.is_empty() {
            self.moved = Instant::now();
        }
        self.queue.push_back(message);
    }

    /// Sends what waits and, if `reads`, waits for a message.
    pub(super) async fn io(&mut self, reads: bool, counters: &Counters) -> Io {
        std::future::poll_fn(|cx| self.poll(cx, reads, counters)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>, reads: bool, counters: &Counters) -> Poll<Io> {
        let (waited, had_room) = (!self.is_empty(), self.has_room());
        if let Poll::Ready(Err(_gone)) = self.poll_send(cx, counters) {
            return Poll::Ready(Io::Gone);
        }
        if waited && (self.is_empty() || (!had_room && self.has_room())) {
            return Poll::Ready(Io::Room);
        }
        if !reads {
            if let Some(arriving) = &mut self.arriving {
                arriving.pause();
            }
            return Poll::Pending;
        }
        match Pin::new(&mut self.socket).poll_next(cx) {
            Poll::Ready(Some(Ok(message))) => {
                if let Some(arriving) = &mut self.arriving {
                    arriving.took(&message);
                }
                Poll::Ready(Io::Message(message))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Io::Broken(error)),
            Poll::Ready(None) => Poll::Ready(Io::Gone),
            Poll::Pending => match self.arriving.as_mut().map_or(Part::Known, Arriving::look) {
                Part::Known => Poll::Pending,
                Part::New => Poll::Ready(Io::Part),
                Part::TooMuch => Poll::Ready(Io::Full),
            },
        }
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        counters: &Counters,
    ) -> Poll<Result<(), axum::Error>> {
        while !self.queue.is_empty() {
            std::task::ready!(Pin::new(&mut self.socket).poll_ready(cx))?;
            let Some(message) = self.queue.pop_front() else { break };
            if let Message::Text(text) = &message {
                self.bytes = self.bytes.saturating_sub(text.as_str().len());
                counters.sent.fetch_add(1, Ordering::Relaxed);
            }
            Pin::new(&mut self.socket).start_send(message)?;
            (self.unflushed, self.moved) = (true, Instant::now());
        }
        if self.unflushed {
            std::task::ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            (self.unflushed, self.moved) = (false, Instant::now());
        }
        Poll::Ready(Ok(()))
    }

    /// Says goodbye after what is in line, and waits for the client to do so, for a bounded time.
    pub(super) async fn close(mut self, code: u16, reason: &str, counters: &Counters) {
        if code != close_code::NORMAL {
            tracing::debug!(code, "a WebSocket is closed: {reason}");
        }
        let mut end = reason.len().min(SOCKET_REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let reason = Utf8Bytes::from(&reason[..end]);
        self.put(Message::Close(Some(CloseFrame { code, reason })));
        let goodbye = async {
            let mut reads = true;
            loop {
                match self.io(reads, counters).await {
                    Io::Gone => return,
                    Io::Message(_) | Io::Room | Io::Part => {}
                    // What cannot be read is left unread, and a connection that ends with something
                    // unread takes the goodbye with it: the client gets its time.
                    Io::Broken(_) | Io::Full => reads = false,
                }
            }
        };
        // One that does not answer is left.
        tokio::time::timeout(SOCKET_CLOSE_WAIT, goodbye).await.unwrap_or_default();
    }
}
