//! The file log against its invariants, on a disk that fails as told.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::disk::OsDisk;
use crate::memory::{MemoryDisk, MemoryLog};

pub(super) const A: Stream = Stream([1; 16]);

/// Appends and waits for the record to be durable.
pub(super) fn put(log: &dyn Log, stream: Stream, payload: &[u8]) -> Result<u64, LogError> {
    let (tell, told) = mpsc::channel();
    log.append(
        stream,
        vec![Bytes::copy_from_slice(payload)],
        Box::new(move |result| tell.send(result).unwrap()),
    )?;
    told.recv().unwrap()
}

#[test]
fn l1_an_acknowledged_record_survives_a_crash() {
    let log = MemoryLog::new().unwrap();
    assert_eq!(put(&log, A, b"one").unwrap(), 1);
    assert_eq!(put(&log, A, b"two").unwrap(), 2);
    let (log, recovery) = log.crash().unwrap();
    assert_eq!((recovery.first, recovery.last, recovery.torn_tail), (1, 2, None));
    let records: Vec<_> = log.read(0).unwrap().map(|r| r.unwrap()).collect();
    assert_eq!(records.len(), 2);
    assert_eq!(&records[1].payload[..], b"two");
}

#[test]
fn the_file_log_works_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("log");
    let (log, _) = FileLog::open(Arc::new(OsDisk), &dir, LogOptions::default()).unwrap();
    for n in 1..=100_u64 {
        assert_eq!(put(&log, A, &[7; 300]).unwrap(), n);
    }
    log.close().unwrap();
    assert!(matches!(put(&log, A, b"late"), Err(LogError::Closed)));
    drop(log);
    let (log, recovery) = FileLog::open(Arc::new(OsDisk), &dir, LogOptions::default()).unwrap();
    assert_eq!(recovery.last, 100);
    assert_eq!(log.read(40).unwrap().count(), 60);
    assert_eq!(log.read_stream(A, 90).unwrap().count(), 10);
    assert_eq!(put(&log, A, b"next").unwrap(), 101);
}
