//! What the feed has done, counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::event::Changes;
use crate::event_type::EventType;

/// Counters of the feed since it began.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) started: Instant,
    by_type: [AtomicU64; EventType::ALL.len()],
    pub(crate) delivered: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) subscribers: AtomicU64,
    pub(crate) disk_reads: AtomicU64,
    /// Records whose way from durable to published was timed, and the sum of those times.
    timed: AtomicU64,
    nanoseconds: AtomicU64,
}

/// What the feed has done since it began, and how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedStats {
    /// Events that became known, of each type.
    pub published: Vec<(EventType, u64)>,
    /// Events handed to those who follow: one for each of them.
    pub delivered: u64,
    /// Followers that were cut off, or asked for what is gone, or could not be served.
    pub errors: u64,
    /// Records that are durable and not yet in the feed.
    pub pending: u64,
    /// Those who follow now.
    pub subscribers: u64,
    /// Times that one who was behind read from disk.
    pub disk_reads: u64,
    /// Events kept in memory for those who follow closely.
    pub buffered_events: u64,
    /// Bytes that these take.
    pub buffered_bytes: u64,
    /// Whether the feed runs.
    pub running: bool,
    /// From durable to published, which is when those who follow closely can take it, on average.
    /// When each of them does is not in it.
    pub latency: Duration,
    /// How long it has run.
    pub uptime: Duration,
}

impl Counters {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            by_type: [const { AtomicU64::new(0) }; EventType::ALL.len()],
            delivered: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            subscribers: AtomicU64::new(0),
            disk_reads: AtomicU64::new(0),
            timed: AtomicU64::new(0),
            nanoseconds: AtomicU64::new(0),
        }
    }

    /// Events of a record are published.
    pub(crate) fn published(&self, changes: &Changes) {
        for data in &changes.data {
            self.by_type[data.event_type() as usize].fetch_add(1, Ordering::Relaxed);
        }
        if let Some(durable_at) = changes.durable_at {
            let took = u64::try_from(durable_at.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.timed.fetch_add(1, Ordering::Relaxed);
            self.nanoseconds.fetch_add(took, Ordering::Relaxed);
        }
    }

    pub(crate) fn by_type(&self) -> Vec<(EventType, u64)> {
        let count = |event: EventType| self.by_type[event as usize].load(Ordering::Relaxed);
        EventType::ALL.into_iter().map(|event| (event, count(event))).collect()
    }

    pub(crate) fn latency(&self) -> Duration {
        let timed = self.timed.load(Ordering::Relaxed).max(1);
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed) / timed)
    }
}
