//! One who follows the feed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::Notify;

use crate::error::FeedError;
use crate::event::{Changes, Event, Position};
use crate::feed::{Feed, storage};
use crate::filter::Filter;
use crate::ring::{Look, Topic};

/// Records taken at a time.
const BATCH_RECORDS: usize = 256;
/// Bytes of records read from disk at a time.
const DISK_BYTES: usize = 4 << 20;

/// One who follows the feed: a place in it, and what it wants to see. It costs nothing while it is
/// not asked for the next events, and then a place is all that it holds.
#[derive(Debug)]
pub struct Subscription {
    feed: Feed,
    filter: Arc<Filter>,
    topic: Topic,
    bell: Arc<Notify>,
    position: Position,
}

impl Subscription {
    pub(crate) fn new(feed: Feed, filter: Filter, topic: Topic, position: Position) -> Self {
        feed.0.counters.subscribers.fetch_add(1, Ordering::Relaxed);
        let bell = feed.0.ring.lock().listen(topic);
        Self { feed, filter: Arc::new(filter), topic, bell, position }
    }

    /// Nothing that it wants is left before this place, but what it was given: whoever goes on from
    /// here after it has dealt with that misses nothing.
    pub fn position(&self) -> Position {
        self.position
    }

    /// What it wants to see.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Goes on after another place.
    pub fn seek(&mut self, position: Position) {
        self.position = position;
    }

    /// Wants to see something else of the same library, or of all, from here on.
    pub fn narrow(&mut self, change: impl FnOnce(&mut Filter)) {
        let (tenant, library) = (self.filter.tenant, self.filter.library);
        let filter = Arc::make_mut(&mut self.filter);
        change(filter);
        (filter.tenant, filter.library) = (tenant, library);
    }

    /// The next events that it wants, at least one; waits until there is one. The position moves
    /// past them, and past all that it does not want. Nothing is lost if the wait is given up.
    ///
    /// # Errors
    /// [`FeedError::Trimmed`] if events after the position are no longer kept; every other error is
    /// the feed's end.
    pub async fn next(&mut self) -> Result<Delivery, FeedError> {
        loop {
            // Registered before looking, so that no event in between is missed.
            let bell = self.bell.clone();
            let rung = bell.notified();
            let look = self.look();
            let taken = match look {
                Look::Records(records) => self.take(records),
                Look::Nothing(head) => {
                    self.position = self.position.max(Position::after(head));
                    rung.await;
                    None
                }
                Look::Behind(through) => self.read(through).await?,
                Look::Ended(error) => return Err(error),
            };
            if let Some(delivery) = taken {
                return Ok(delivery);
            }
            // One to whom nothing matters lets others work.
            tokio::task::consume_budget().await;
        }
    }

    /// The next events that are there now, without waiting for more; `None` if there are none.
    ///
    /// # Errors
    /// As [`Subscription::next`].
    pub async fn try_next(&mut self) -> Result<Option<Delivery>, FeedError> {
        loop {
            let look = self.look();
            let taken = match look {
                Look::Records(records) => self.take(records),
                Look::Nothing(head) => {
                    self.position = self.position.max(Position::after(head));
                    return Ok(None);
                }
                Look::Behind(through) => self.read(through).await?,
                Look::Ended(error) => return Err(error),
            };
            if taken.is_some() {
                return Ok(taken);
            }
            tokio::task::consume_budget().await;
        }
    }

    fn look(&self) -> Look {
        let oldest = self.feed.oldest();
        let mut ring = self.feed.0.ring.lock();
        ring.forget(oldest);
        ring.look(self.topic, self.position, BATCH_RECORDS)
    }

    /// Moves past records; `None` if nothing of them is wanted.
    fn take(&mut self, mut records: Vec<Arc<Changes>>) -> Option<Delivery> {
        let before = self.position;
        if let Some(last) = records.last() {
            self.position = self.position.max(Position::after(last.seq));
        }
        records.retain(|changes| self.filter.may_pass(changes));
        let delivery = Delivery {
            feed: self.feed.clone(),
            filter: self.filter.clone(),
            next: records.first().map_or(0, |first| first.before(before)),
            records,
            record: 0,
            delivered: 0,
        };
        delivery.has_more().then_some(delivery)
    }

    /// Reads what is in memory no more.
    async fn read(
        &mut self,
        through: arrwdb_engine::state::Seq,
    ) -> Result<Option<Delivery>, FeedError> {
        let shared = self.feed.0.clone();
        let turn = shared.disk_readers.clone().acquire_owned().await;
        let turn = turn.map_err(|_closed| FeedError::Closed)?;
        shared.counters.disk_reads.fetch_add(1, Ordering::Relaxed);
        let (filter, after) = (self.filter.clone(), self.position.whole());
        let reader = shared.clone();
        let read = tokio::task::spawn_blocking(move || {
            // Kept here, whether or not anybody waits.
            let _turn = turn;
            reader.read(&filter, (after, through), (BATCH_RECORDS, DISK_BYTES))
        });
        let read = read.await.map_err(|error| storage(&error))?;
        let (records, seen) = read.inspect_err(|_error| {
            shared.counters.errors.fetch_add(1, Ordering::Relaxed);
        })?;
        let delivery = self.take(records);
        self.position = self.position.max(Position::after(seen));
        Ok(delivery)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.feed.0.counters.subscribers.fetch_sub(1, Ordering::Relaxed);
        self.feed.0.ring.lock().leave(self.topic);
    }
}

/// Some events, in order.
#[derive(Debug)]
pub struct Delivery {
    feed: Feed,
    filter: Arc<Filter>,
    records: Vec<Arc<Changes>>,
    /// The record that comes next, and which event of it.
    record: usize,
    next: usize,
    delivered: u64,
}

impl Delivery {
    /// The next event; `None` at the end.
    #[expect(clippy::should_implement_trait, reason = "an event borrows from what delivers it")]
    pub fn next(&mut self) -> Option<Event<'_>> {
        let (record, index) = self.find()?;
        (self.record, self.next) = (record, index + 1);
        self.delivered += 1;
        self.records[record].event(index)
    }

    fn has_more(&self) -> bool {
        self.find().is_some()
    }

    /// Where the next event is.
    fn find(&self) -> Option<(usize, usize)> {
        let mut from = self.next;
        for (at, changes) in self.records.iter().enumerate().skip(self.record) {
            let mut index = from;
            while let Some(event) = changes.event(index) {
                if self.filter.passes(event) {
                    return Some((at, index));
                }
                index += 1;
            }
            from = 0;
        }
        None
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.feed.0.counters.delivered.fetch_add(self.delivered, Ordering::Relaxed);
    }
}
