//! The newest events in memory, shared by all who follow closely.
//!
//! Records lie in lanes, one for each tenant and one for each library, so that who follows a quiet
//! library is neither woken nor left behind by what happens elsewhere. All lanes share one bound:
//! the oldest record leaves first.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrwdb_engine::state::{LibraryId, Seq, TenantId};
use tokio::sync::Notify;

use crate::error::FeedError;
use crate::event::{Changes, Position};

/// Which lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    Tenant(TenantId),
    Library(LibraryId),
}

/// The newest events, of all tenants.
#[derive(Debug)]
pub(crate) struct Ring {
    /// All records up to here are here, or were.
    head: Seq,
    /// The last record that is here no more.
    dropped: Seq,
    records: VecDeque<Arc<Changes>>,
    events: usize,
    bytes: usize,
    events_max: usize,
    bytes_max: usize,
    lanes: HashMap<Topic, Lane>,
    ended: Option<FeedError>,
}

#[derive(Debug)]
struct Lane {
    records: VecDeque<Arc<Changes>>,
    /// A number at or above every record of the lane that is here no more.
    dropped: Seq,
    bell: Arc<Notify>,
    listeners: usize,
}

/// What one who follows finds.
pub(crate) enum Look {
    /// Records after the position, the next ones.
    Records(Vec<Arc<Changes>>),
    /// No records up to this number.
    Nothing(Seq),
    /// Some are here no more: those up to this number are on disk.
    Behind(Seq),
    /// There will be no more.
    Ended(FeedError),
}

impl Ring {
    pub(crate) fn new(head: Seq, events_max: usize, bytes_max: usize) -> Self {
        Self {
            head,
            dropped: head,
            records: VecDeque::new(),
            events: 0,
            bytes: 0,
            events_max,
            bytes_max,
            lanes: HashMap::new(),
            ended: None,
        }
    }

    pub(crate) fn head(&self) -> Seq {
        self.head
    }

    /// Events and bytes that are held.
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.events, self.bytes)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.ended.is_none()
    }

    /// Somebody follows a lane; told by the bell when something comes.
    pub(crate) fn listen(&mut self, topic: Topic) -> Arc<Notify> {
        let lane = self.lane(topic);
        lane.listeners += 1;
        lane.bell.clone()
    }

    pub(crate) fn leave(&mut self, topic: Topic) {
        if let Some(lane) = self.lanes.get_mut(&topic) {
            lane.listeners = lane.listeners.saturating_sub(1);
        }
        self.tidy(topic);
    }

    fn lane(&mut self, topic: Topic) -> &mut Lane {
        let dropped = self.dropped;
        self.lanes.entry(topic).or_insert_with(|| Lane {
            records: VecDeque::new(),
            dropped,
            bell: Arc::new(Notify::new()),
            listeners: 0,
        })
    }

    /// Removes a lane that is of no use.
    fn tidy(&mut self, topic: Topic) {
        let unused = |lane: &Lane| lane.listeners == 0 && lane.records.is_empty();
        if self.lanes.get(&topic).is_some_and(unused) {
            self.lanes.remove(&topic);
        }
    }

    /// Takes in the next records that have events; all others up to `head` have none. Returns the
    /// bells to ring once the ring is let go.
    pub(crate) fn publish(&mut self, records: Vec<Changes>, head: Seq) -> Vec<Arc<Notify>> {
        let mut bells: Vec<Arc<Notify>> = Vec::new();
        for changes in records {
            assert!(changes.seq > self.head, "F1: records come once and in order");
            self.head = changes.seq;
            self.events += changes.data.len();
            self.bytes += changes.bytes();
            let changes = Arc::new(changes);
            for topic in topics(&changes) {
                let lane = self.lane(topic);
                lane.records.push_back(changes.clone());
                if lane.listeners > 0 && !bells.iter().any(|bell| Arc::ptr_eq(bell, &lane.bell)) {
                    bells.push(lane.bell.clone());
                }
            }
            self.records.push_back(changes);
        }
        self.head = self.head.max(head);
        while (self.events > self.events_max || self.bytes > self.bytes_max)
            && let Some(oldest) = self.records.pop_front()
        {
            self.drop_record(&oldest);
        }
        bells
    }

    /// Lets go of what the log has no more: what was removed for good is not told from memory either.
    pub(crate) fn forget(&mut self, oldest: Seq) {
        while let Some(changes) = self.records.pop_front_if(|changes| changes.seq < oldest) {
            self.drop_record(&changes);
        }
    }

    /// Goes on after `head`, where records before are gone that were not taken in: whoever has not
    /// seen all up to there is left behind. Returns the bells to ring once the ring is let go.
    pub(crate) fn skip_to(&mut self, head: Seq) -> Vec<Arc<Notify>> {
        while let Some(oldest) = self.records.pop_front() {
            self.drop_record(&oldest);
        }
        self.head = self.head.max(head);
        self.dropped = self.head;
        for lane in self.lanes.values_mut() {
            lane.dropped = self.head;
        }
        self.lanes.values().map(|lane| lane.bell.clone()).collect()
    }

    fn drop_record(&mut self, oldest: &Changes) {
        self.events -= oldest.data.len();
        self.bytes -= oldest.bytes();
        self.dropped = oldest.seq;
        for topic in topics(oldest) {
            if let Some(lane) = self.lanes.get_mut(&topic) {
                lane.records.pop_front();
                lane.dropped = oldest.seq;
            }
            self.tidy(topic);
        }
    }

    /// The next records of a lane, at most `limit`.
    pub(crate) fn look(&self, topic: Topic, position: Position, limit: usize) -> Look {
        if let Some(ended) = &self.ended {
            return Look::Ended(ended.clone());
        }
        let Some(lane) = self.lanes.get(&topic) else { return Look::Behind(self.head) };
        if Position::after(lane.dropped) > position {
            return Look::Behind(self.head);
        }
        let seen = |changes: &Arc<Changes>| Position::after(changes.seq) <= position;
        let from = lane.records.partition_point(seen);
        let records: Vec<_> = lane.records.iter().skip(from).take(limit).cloned().collect();
        if records.is_empty() { Look::Nothing(self.head) } else { Look::Records(records) }
    }

    /// Nothing comes any more. Returns the bells to ring once the ring is let go.
    pub(crate) fn end(&mut self, why: FeedError) -> Vec<Arc<Notify>> {
        self.ended.get_or_insert(why);
        self.lanes.values().map(|lane| lane.bell.clone()).collect()
    }
}

fn topics(changes: &Changes) -> impl Iterator<Item = Topic> {
    let library = changes.library.map(Topic::Library);
    [Topic::Tenant(changes.tenant)].into_iter().chain(library)
}

#[cfg(test)]
mod tests {
    use arrwdb_engine::state::Timestamp;

    use super::*;
    use crate::event::EventData;

    fn changes(seq: u64, library: u8) -> Changes {
        let data = vec![EventData::LibraryDeleted { name: None }];
        let types = data.iter().map(EventData::event_type).collect();
        Changes {
            seq: Seq::new(seq),
            at: Timestamp::from_micros(0),
            library: Some(LibraryId::from_bytes([library; 16])),
            tenant: TenantId::DEFAULT,
            data,
            types,
            durable_at: None,
        }
    }

    fn numbers(look: Look) -> Result<Vec<u64>, &'static str> {
        match look {
            Look::Records(records) => Ok(records.iter().map(|it| it.seq.get()).collect()),
            Look::Nothing(_) => Ok(vec![]),
            Look::Behind(_) => Err("behind"),
            Look::Ended(_) => Err("ended"),
        }
    }

    #[test]
    fn f3_who_follows_a_quiet_library_is_left_behind_by_nobody() {
        let (quiet, busy) = ([1, 2]).map(|n| Topic::Library(LibraryId::from_bytes([n; 16]))).into();
        let all = Topic::Tenant(TenantId::DEFAULT);
        let after = |seq| Position::after(Seq::new(seq));
        let mut ring = Ring::new(Seq::new(4), 4, usize::MAX);
        ring.listen(quiet);
        ring.listen(busy);
        ring.listen(all);
        for seq in 5..100 {
            let bells = ring.publish(vec![changes(seq, 2)], Seq::new(seq));
            assert_eq!(bells.len(), 2, "the quiet one sleeps");
        }
        assert_eq!(numbers(ring.look(quiet, after(4), 9)), Ok(vec![]));
        assert_eq!(numbers(ring.look(busy, after(4), 9)), Err("behind"));
        assert_eq!(numbers(ring.look(all, after(94), 9)), Err("behind"));
        assert_eq!(numbers(ring.look(all, after(95), 2)), Ok(vec![96, 97]));
        assert_eq!(ring.publish(vec![changes(100, 1)], Seq::new(105)).len(), 2);
        assert_eq!(numbers(ring.look(quiet, after(4), 9)), Ok(vec![100]));
        assert_eq!(numbers(ring.look(quiet, after(100), 9)), Ok(vec![]));
        assert_eq!(ring.head(), Seq::new(105));
        assert_eq!(ring.held().0, 4);
        // One who comes later cannot know what of its library was dropped before.
        let other = Topic::Library(LibraryId::from_bytes([3; 16]));
        ring.listen(other);
        assert_eq!(numbers(ring.look(other, after(50), 9)), Err("behind"));
        assert_eq!(numbers(ring.look(other, after(105), 9)), Ok(vec![]));
        ring.leave(other);
        assert_eq!(ring.lanes.len(), 3);
        // What the log has no more is here no more.
        ring.forget(Seq::new(100));
        assert_eq!(numbers(ring.look(all, after(98), 9)), Err("behind"));
        assert_eq!(numbers(ring.look(all, after(99), 9)), Ok(vec![100]));
        assert_eq!(ring.held().0, 1);
        // What it never had is gone: nobody takes that for nothing.
        ring.publish(vec![changes(106, 2)], Seq::new(106));
        assert_eq!(ring.skip_to(Seq::new(200)).len(), 3);
        assert_eq!((ring.head(), ring.held()), (Seq::new(200), (0, 0)));
        for topic in [quiet, all] {
            assert_eq!(numbers(ring.look(topic, after(150), 9)), Err("behind"));
            assert_eq!(numbers(ring.look(topic, after(200), 9)), Ok(vec![]));
        }
        ring.publish(vec![changes(201, 1)], Seq::new(201));
        assert_eq!(numbers(ring.look(quiet, after(200), 9)), Ok(vec![201]));
        assert_eq!(ring.end(FeedError::Closed).len(), 3);
        assert_eq!(numbers(ring.look(quiet, after(100), 9)), Err("ended"));
    }
}
