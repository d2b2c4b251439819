//! One who follows the feed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrwdb_engine::state::Seq;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::error::FeedError;
use crate::event::{Changes, Event, Position};
use crate::feed::{Feed, storage};
use crate::filter::Filter;
use crate::ring::{Look, Topic};

/// Records taken at a time.
const BATCH_RECORDS: usize = 256;
/// Bytes of records read from disk at a time; a larger record is read alone. One who does not read
/// what was found for it holds as much, and there may be thousands of them.
const DISK_BYTES: usize = 256 << 10;

/// One who follows the feed: a place in it, and what it wants to see. It costs nothing while it is
/// not asked for the next events, and then a place is all that it holds, with a read of the disk if
/// one was under way when the last wait was given up.
#[derive(Debug)]
pub struct Subscription {
    feed: Feed,
    filter: Arc<Filter>,
    topic: Topic,
    bell: Arc<Notify>,
    position: Position,
    /// A read of the disk that is under way, whether or not anybody waits for it.
    reading: Option<Reading>,
}

/// What was found on disk, and how far that is all there is.
type Found = (Vec<Arc<Changes>>, Seq);

/// A read of the disk: kept when a wait is given up, so that one whose waits are short gets on.
#[derive(Debug)]
struct Reading {
    /// What is read comes after this.
    position: Position,
    task: JoinHandle<Result<Found, FeedError>>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        // Its turn is nobody's any more, if it has not come yet.
        self.task.abort();
    }
}

impl Subscription {
    pub(crate) fn new(feed: Feed, filter: Filter, topic: Topic, position: Position) -> Self {
        feed.0.counters.subscribers.fetch_add(1, Ordering::Relaxed);
        let bell = feed.0.ring.lock().listen(topic);
        Self { feed, filter: Arc::new(filter), topic, bell, position, reading: None }
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
        (self.position, self.reading) = (position, None);
    }

    /// Wants to see something else of the same library, or of all, from here on.
    pub fn narrow(&mut self, change: impl FnOnce(&mut Filter)) {
        let (tenant, library) = (self.filter.tenant, self.filter.library);
        let filter = Arc::make_mut(&mut self.filter);
        change(filter);
        (filter.tenant, filter.library) = (tenant, library);
        self.reading = None;
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

    /// Reads what is in memory no more. A read that is given up goes on, and is what the next call
    /// waits for.
    async fn read(&mut self, through: Seq) -> Result<Option<Delivery>, FeedError> {
        let (feed, filter, position) = (&self.feed, &self.filter, self.position);
        self.reading.take_if(|reading| reading.position != position);
        let reading = self.reading.get_or_insert_with(|| {
            let task = read(feed.clone(), filter.clone(), (position.whole(), through));
            Reading { position, task: tokio::spawn(task) }
        });
        let read = (&mut reading.task).await;
        self.reading = None;
        let read = read.map_err(|error| storage(&error)).flatten();
        let (records, seen) = read.inspect_err(|_error| {
            self.feed.0.counters.errors.fetch_add(1, Ordering::Relaxed);
        })?;
        let delivery = self.take(records);
        self.position = self.position.max(Position::after(seen));
        Ok(delivery)
    }
}

/// Reads from disk once it is its turn.
async fn read(
    feed: Feed,
    filter: Arc<Filter>,
    (after, through): (Seq, Seq),
) -> Result<(Vec<Arc<Changes>>, Seq), FeedError> {
    let shared = feed.0;
    let turn = shared.disk_readers.clone().acquire_owned().await;
    let turn = turn.map_err(|_closed| FeedError::Closed)?;
    shared.counters.disk_reads.fetch_add(1, Ordering::Relaxed);
    let read = tokio::task::spawn_blocking(move || {
        // Kept here, whether or not anybody waits.
        let _turn = turn;
        shared.read(&filter, (after, through), (BATCH_RECORDS, DISK_BYTES))
    });
    read.await.map_err(|error| storage(&error))?
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
