//! The newest durable records in memory, so that those who follow the log closely read no files.

use std::collections::VecDeque;
use std::mem;
use std::time::Instant;

use super::Queued;
use crate::Recent;

/// What a record is counted for beside its payload.
const RECORD_BYTES: u64 = 256;

/// The newest durable records, bounded by their bytes.
#[derive(Debug)]
pub(super) struct Tail {
    records: VecDeque<Recent>,
    bytes: u64,
    bytes_max: u64,
    /// Every durable record above this number is here.
    after: u64,
}

impl Tail {
    /// Of a log whose last record is `last`.
    pub(super) fn new(last: u64, bytes_max: u64) -> Self {
        Self { records: VecDeque::new(), bytes: 0, bytes_max, after: last }
    }

    /// Adds a durable group, whose payloads it takes; returns what it holds no longer.
    pub(super) fn add(&mut self, group: &mut [Queued]) -> Vec<Recent> {
        let durable_at = Instant::now();
        for queued in group {
            self.bytes += queued.bytes as u64 + RECORD_BYTES;
            let parts = mem::take(&mut queued.payload).into();
            let (seq, stream) = (queued.seq, queued.stream);
            self.records.push_back(Recent { seq, stream, parts, durable_at });
        }
        let mut dropped = Vec::new();
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.records.pop_front()
        {
            let payload: usize = oldest.parts.iter().map(bytes::Bytes::len).sum();
            self.bytes -= payload as u64 + RECORD_BYTES;
            self.after = oldest.seq;
            dropped.push(oldest);
        }
        dropped
    }

    pub(super) fn after(&self, after: u64, limit: usize) -> Option<Vec<Recent>> {
        if after < self.after {
            return None;
        }
        let from = self.records.partition_point(|record| record.seq <= after);
        Some(self.records.iter().skip(from).take(limit).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::Stream;

    fn queued(seq: u64, bytes: usize) -> Queued {
        let payload = vec![Bytes::from(vec![7; bytes])];
        Queued { seq, stream: Stream::CATALOG, payload, bytes, done: Box::new(drop) }
    }

    fn numbers(tail: &Tail, after: u64) -> Option<Vec<u64>> {
        Some(tail.after(after, 3)?.iter().map(|record| record.seq).collect())
    }

    #[test]
    fn the_newest_records_are_kept_and_older_ones_refused() {
        let mut tail = Tail::new(4, 4 * (100 + RECORD_BYTES));
        assert_eq!((numbers(&tail, 3), numbers(&tail, 4)), (None, Some(vec![])));
        // Numbers may have gaps.
        let mut group: Vec<_> = [5, 6, 9].map(|seq| queued(seq, 100)).into();
        assert_eq!(tail.add(&mut group).len(), 0);
        assert_eq!(numbers(&tail, 4), Some(vec![5, 6, 9]));
        assert_eq!(numbers(&tail, 7), Some(vec![9]));
        let dropped = tail.add(&mut [queued(10, 100), queued(11, 100)]);
        assert_eq!(dropped.len(), 1);
        assert_eq!((numbers(&tail, 4), numbers(&tail, 5)), (None, Some(vec![6, 9, 10])));
        // A record that is larger than everything leaves nothing.
        tail.add(&mut [queued(12, 100_000)]);
        assert_eq!((numbers(&tail, 11), numbers(&tail, 12)), (None, Some(vec![])));
        assert_eq!(tail.bytes, 0);
    }
}
