//! Messages of which a part has come: what they take of memory is bounded for all sockets together,
//! and so is their time.
//!
//! The socket tells only of whole messages. How much of another one has come is what the connection
//! has received since the last one, less the pings and pongs in between.

use std::sync::Arc;

use axum::extract::ws::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::progress::Received;

/// Bytes of a control frame of a client before what it carries.
const CONTROL_HEAD_BYTES: u64 = 6;

/// What has come of a message.
#[derive(Debug)]
pub(super) struct Arriving {
    received: Received,
    /// Bytes of the connection that are of whole messages.
    whole: u64,
    /// KiB of parts that may still come, of all sockets.
    budget: Arc<Semaphore>,
    room: Option<OwnedSemaphorePermit>,
    since: Option<Instant>,
}

/// What a look at the connection found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Nothing that was not known.
    Known,
    /// A message has begun.
    New,
    /// There is no memory for it.
    TooMuch,
}

impl Arriving {
    pub(super) fn new(received: Received, budget: Arc<Semaphore>) -> Self {
        let whole = received.bytes();
        Self { received, whole, budget, room: None, since: None }
    }

    /// Since when a message is arriving.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Nothing is read at present, so that nothing can arrive.
    pub(super) fn pause(&mut self) {
        self.since = None;
    }

    /// A whole message was read.
    pub(super) fn took(&mut self, message: &Message) {
        match message {
            // They come between the parts of another message, too, and are no sign of its end.
            Message::Ping(bytes) | Message::Pong(bytes) => {
                self.whole += CONTROL_HEAD_BYTES + bytes.len() as u64;
            }
            // What was read ahead counts with it: that is a few KiB, once.
            Message::Text(_) | Message::Binary(_) | Message::Close(_) => {
                (self.whole, self.room, self.since) = (self.received.bytes(), None, None);
            }
        }
    }

    /// Everything that came was read, and is no whole message.
    pub(super) fn look(&mut self) -> Part {
        let part = self.received.bytes().saturating_sub(self.whole);
        if part == 0 {
            (self.room, self.since) = (None, None);
            return Part::Known;
        }
        let kib = usize::try_from(part.div_ceil(1024)).unwrap_or(usize::MAX);
        let more =
            kib.saturating_sub(self.room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        if more > 0 {
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            let Ok(more) = self.budget.clone().try_acquire_many_owned(more) else {
                return Part::TooMuch;
            };
            match &mut self.room {
                Some(room) => room.merge(more),
                None => self.room = Some(more),
            }
        }
        if self.since.is_some() {
            return Part::Known;
        }
        self.since = Some(Instant::now());
        Part::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_takes_room_and_time_until_its_message_is_whole() {
        let (received, budget) = (Received::default(), Arc::new(Semaphore::new(10)));
        received.add(500);
        let mut arriving = Arriving::new(received.clone(), budget.clone());
        assert_eq!((arriving.look(), arriving.since()), (Part::Known, None), "the head of HTTP");
        received.add(3000);
        assert_eq!(arriving.look(), Part::New);
        assert_eq!(budget.available_permits(), 7);
        let since = arriving.since();
        assert!(since.is_some());
        // A pong between two parts neither counts nor ends the wait.
        received.add(6 + 4);
        arriving.took(&Message::Pong("pong".into()));
        received.add(100);
        assert_eq!((arriving.look(), arriving.since()), (Part::Known, since));
        assert_eq!(budget.available_permits(), 6);
        received.add(1000);
        arriving.took(&Message::text("whole"));
        assert_eq!((arriving.look(), arriving.since()), (Part::Known, None));
        assert_eq!(budget.available_permits(), 10);
        received.add(11 << 10);
        assert_eq!(arriving.look(), Part::TooMuch);
        drop(arriving);
        assert_eq!(budget.available_permits(), 10);
    }

    #[tokio::test]
    async fn a_ping_is_no_message_that_goes_on_arriving() {
        let (received, budget) = (Received::default(), Arc::new(Semaphore::new(10)));
        let mut arriving = Arriving::new(received.clone(), budget);
        received.add(3);
        assert_eq!(arriving.look(), Part::New);
        received.add(3);
        arriving.took(&Message::Ping(bytes::Bytes::new()));
        assert_eq!((arriving.look(), arriving.since()), (Part::Known, None));
    }
}
