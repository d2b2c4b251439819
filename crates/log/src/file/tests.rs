//! The file log against its invariants, on a disk that fails as told.

mod crash;
mod faults;
mod format;
mod model;
mod processes;
mod repair;

use std::sync::mpsc::{self, Receiver};

use super::*;
use crate::Record;
use crate::disk::{Access, OsDisk, read_exact_at};
use crate::memory::{MemoryDisk, MemoryLog};

const A: Stream = Stream([1; 16]);
const B: Stream = Stream([2; 16]);

const LONG: Duration = Duration::from_mins(1);

/// Appends; the receiver gets the outcome.
fn begin(
    log: &dyn Log,
    stream: Stream,
    payload: &[u8],
) -> Result<Receiver<Result<u64, LogError>>, LogError> {
    let (tell, told) = mpsc::channel();
    // The receiver may be gone.
    let done: OnDurable = Box::new(move |result| drop(tell.send(result)));
    log.append(stream, vec![Bytes::copy_from_slice(payload)], done)?;
    Ok(told)
}

/// Appends and waits for the record to be durable.
fn put(log: &dyn Log, stream: Stream, payload: &[u8]) -> Result<u64, LogError> {
    begin(log, stream, payload)?.recv().unwrap()
}

fn all(log: &dyn Log) -> Vec<Record> {
    let after = log.first() - 1;
    log.read(after).unwrap().map(Result::unwrap).collect()
}

/// The bytes of a file on a disk.
fn bytes_of(disk: &MemoryDisk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, Access::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
    read_exact_at(&*file, &mut bytes, 0).unwrap();
    bytes
}

/// The files with this extension, in order.
fn paths(disk: &MemoryDisk, extension: &str) -> Vec<PathBuf> {
    let names = disk.list(Path::new("/log")).unwrap().into_iter();
    let paths = names.map(|name| Path::new("/log").join(name));
    paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

fn small_files() -> LogOptions {
    LogOptions { file_bytes: 2048, ahead_bytes: 512, salt: 7, ..LogOptions::default() }
}

fn open(disk: &MemoryDisk) -> Result<(MemoryLog, Recovery), LogError> {
    MemoryLog::open(disk.clone(), small_files())
}

/// A payload that says where it belongs.
fn payload(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn l1_an_acknowledged_record_survives_a_crash() {
    let log = MemoryLog::new().unwrap();
    assert_eq!(put(&log, A, b"one").unwrap(), 1);
    assert_eq!(put(&log, A, b"two").unwrap(), 2);
    let (log, recovery) = log.crash().unwrap();
    assert_eq!((recovery.first, recovery.last, recovery.torn_tail), (1, 2, None));
    let records = all(&log);
    assert_eq!(records.len(), 2);
    assert_eq!(&records[1].payload[..], b"two");
}

#[test]
fn l1_nothing_is_acknowledged_or_readable_before_its_sync() {
    let log = MemoryLog::paused().unwrap();
    let told = begin(&log, A, b"early").unwrap();
    assert!(log.disk().wait_for_held_sync(LONG));
    assert!(told.try_recv().is_err());
    assert_eq!((log.last_assigned(), log.durable()), (1, 0));
    assert_eq!(log.read(0).unwrap().count(), 0);
    assert_eq!(log.wait(0, Duration::from_millis(1)), 0);
    let (crashed, _) = log.crash().unwrap();
    assert_eq!(crashed.last_assigned(), 0);
    log.release();
    assert_eq!(told.recv().unwrap().unwrap(), 1);
    assert_eq!(log.wait(0, LONG), 1);
    assert_eq!(all(&log).len(), 1);
}

#[test]
fn the_file_log_works_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("log");
    let options = LogOptions { file_bytes: 8192, ..LogOptions::default() };
    let (log, _) = FileLog::open(Arc::new(OsDisk), &dir, options.clone()).unwrap();
    for n in 1..=100_u64 {
        assert_eq!(put(&log, A, &[7; 300]).unwrap(), n);
    }
    assert!(log.stats().files > 3);
    log.close().unwrap();
    assert!(matches!(put(&log, A, b"late"), Err(LogError::Closed)));
    assert_eq!(all(&log).len(), 100);
    drop(log);
    let (log, recovery) = FileLog::open(Arc::new(OsDisk), &dir, options).unwrap();
    assert_eq!((recovery.last, recovery.torn_tail), (100, None));
    assert_eq!(log.read(40).unwrap().count(), 60);
    assert_eq!(log.read_stream(A, 90).unwrap().count(), 10);
    assert_eq!(put(&log, A, b"next").unwrap(), 101);
}

#[test]
fn a_group_is_synced_once() {
    let log = MemoryLog::paused().unwrap();
    let first = begin(&log, A, b"first").unwrap();
    assert!(log.disk().wait_for_held_sync(LONG));
    let told: Vec<_> = (0..500).map(|_| begin(&log, B, &[1; 100]).unwrap()).collect();
    log.release();
    assert_eq!(first.recv().unwrap().unwrap(), 1);
    for (told, seq) in told.iter().zip(2..) {
        assert_eq!(told.recv().unwrap().unwrap(), seq);
    }
    let stats = log.stats();
    assert_eq!((stats.groups, stats.syncs, stats.records), (2, 2, 501));
    assert_eq!((stats.queued_records, stats.queued_bytes), (0, 0));
}

#[test]
fn callbacks_come_in_order_and_after_durability() {
    let log = Arc::new(MemoryLog::paused().unwrap());
    let (tell, told) = mpsc::channel();
    let advanced = tell.clone();
    log.on_advance(Box::new(move |durable| {
        advanced.send(("advance", durable, durable)).unwrap();
    }));
    for _ in 0..3 {
        let (tell, seen) = (tell.clone(), Arc::downgrade(&log));
        let done: OnDurable = Box::new(move |seq| {
            let durable = seen.upgrade().map_or(0, |log| log.durable());
            tell.send(("done", seq.unwrap(), durable)).unwrap();
        });
        log.append(A, vec![Bytes::from_static(b"x")], done).unwrap();
    }
    log.release();
    let mut dones = Vec::new();
    let mut advances = Vec::new();
    while advances.last() != Some(&3) {
        let (what, seq, durable) = told.recv_timeout(LONG).unwrap();
        assert!(durable >= seq);
        if what == "done" {
            dones.push(seq);
        } else {
            assert_eq!(dones.last(), Some(&seq));
            advances.push(seq);
        }
    }
    assert_eq!(dones, [1, 2, 3]);
}

#[test]
fn l3_a_large_record_in_many_parts_is_read_back_whole() {
    let log = MemoryLog::new().unwrap();
    for bytes in [0, 1, crate::FRAME_BYTES_MAX, crate::FRAME_BYTES_MAX + 1, 5 << 20] {
        let whole = payload(9, bytes);
        // Parts that do not meet the frames' borders.
        let parts: Vec<_> = whole.chunks(700_001).map(Bytes::copy_from_slice).collect();
        let (tell, told) = mpsc::channel();
        log.append(A, parts, Box::new(move |result| drop(tell.send(result)))).unwrap();
        let seq = told.recv().unwrap().unwrap();
        let (crashed, _) = log.crash().unwrap();
        for log in [&log, &crashed] {
            let record = log.read(seq - 1).unwrap().next().unwrap().unwrap();
            assert!(record.payload == whole);
            let record = log.read_stream(A, seq - 1).unwrap().next().unwrap().unwrap();
            assert!(record.payload == whole);
        }
    }
    let large = vec![Bytes::from(vec![0; RECORD_BYTES_MAX]), Bytes::from_static(b"x")];
    let refused = log.append(A, large, Box::new(|_| {}));
    assert!(matches!(refused, Err(LogError::TooLarge { .. })));
}

#[test]
fn a_full_queue_refuses_and_assigns_nothing() {
    let options = LogOptions { queue_records: 3, queue_bytes: 100, ..LogOptions::default() };
    let (log, _) = MemoryLog::open(MemoryDisk::new(), options).unwrap();
    log.pause();
    let large = begin(&log, A, &[0; 500]).unwrap();
    assert!(matches!(begin(&log, A, b"x"), Err(LogError::Full { queued_records: 1, .. })));
    log.release();
    assert_eq!(large.recv().unwrap().unwrap(), 1);
    log.pause();
    let told: Vec<_> = (0..3).map(|_| begin(&log, A, b"x").unwrap()).collect();
    assert!(matches!(begin(&log, A, b"x"), Err(LogError::Full { queued_records: 3, .. })));
    assert_eq!(log.last_assigned(), 4);
    log.release();
    for told in told {
        told.recv().unwrap().unwrap();
    }
    assert_eq!(put(&log, A, b"x").unwrap(), 5);
}

#[test]
fn streams_are_read_apart_with_and_without_their_index() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk).unwrap();
    for n in 1..=60_u64 {
        let stream = if n % 3 == 0 { B } else { A };
        put(&log, stream, &payload(n, 100)).unwrap();
    }
    let check = |log: &dyn Log| {
        for after in [0, 1, 30, 59, 60] {
            let seqs: Vec<_> = log.read_stream(B, after).unwrap().map(|r| r.unwrap().seq).collect();
            assert_eq!(seqs, (after + 1..=60).filter(|n| n % 3 == 0).collect::<Vec<_>>());
            let seqs: Vec<_> = log.read(after).unwrap().map(|r| r.unwrap().seq).collect();
            assert_eq!(seqs, (after + 1..=60).collect::<Vec<_>>());
        }
        assert_eq!(log.read_stream(Stream::CATALOG, 0).unwrap().count(), 0);
    };
    check(&log);
    let (log, _) = log.crash().unwrap();
    check(&log);
    let indexes = |disk: &MemoryDisk| paths(disk, "idx");
    let count = indexes(log.disk()).len();
    assert!(count > 3);
    for (n, path) in indexes(log.disk()).iter().enumerate() {
        match n % 3 {
            0 => log.disk().remove(path).unwrap(),
            1 => log.disk().alter(path, |bytes| bytes.truncate(bytes.len() / 2)).unwrap(),
            _ => {
                let flip = |bytes: &mut Vec<u8>| bytes.iter_mut().last().map_or((), |b| *b ^= 1);
                log.disk().alter(path, flip).unwrap();
            }
        }
    }
    check(&log);
    assert_eq!(indexes(log.disk()).len(), count);
}

#[test]
fn a_trim_removes_whole_files_and_says_where_the_log_begins() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk).unwrap();
    for n in 1..=40 {
        put(&log, A, &payload(n, 200)).unwrap();
    }
    let behind = log.read(0).unwrap();
    let files = log.stats().files;
    assert_eq!(log.trim(0).unwrap(), TrimReport { files: 0, bytes: 0, first: 1 });
    let listed = log.files();
    let expected = listed.iter().filter(|file| file.sealed && file.last <= 20).count() as u64;
    assert!(listed.is_sorted_by(|a, b| a.last < b.last && a.sealed));
    assert_eq!(listed.last().map(|file| (file.last, file.sealed)), Some((40, false)));
    assert_eq!(listed.iter().map(|file| file.bytes).sum::<u64>(), log.stats().bytes);
    let report = log.trim(20).unwrap();
    assert_eq!(report.files, expected);
    assert!(report.files > 0 && report.first > 1 && report.first <= 21);
    assert_eq!(log.first(), report.first);
    assert!(matches!(log.read(0), Err(LogError::Trimmed { first }) if first == report.first));
    assert_eq!(log.read(report.first - 1).unwrap().count() as u64, 41 - report.first);
    assert_eq!(log.read_stream(A, 0).unwrap().count() as u64, 41 - report.first);
    let outcome: Vec<_> = behind.collect();
    assert!(matches!(outcome[..], [Err(LogError::Trimmed { .. })]));
    let report = log.trim(u64::MAX).unwrap();
    assert_eq!(log.stats().files, 1);
    assert!(files > 3 && report.first <= 40);
    // A reader that lost the race against the trim may leave an index behind.
    drop(log.disk().create(Path::new("/log/00000000000000000001.idx")).unwrap());
    log.disk().sync_dir(Path::new("/log")).unwrap();
    let (log, recovery) = log.crash().unwrap();
    assert_eq!((recovery.first, recovery.last), (report.first, 40));
    assert_eq!(paths(log.disk(), "idx"), Vec::<PathBuf>::new());
    assert_eq!(put(&log, A, b"next").unwrap(), 41);
}

#[test]
fn l2_numbers_start_above_what_the_options_say() {
    let disk = MemoryDisk::new();
    let options = LogOptions { start_after: 1000, ..small_files() };
    let (log, recovery) = MemoryLog::open(disk.clone(), options.clone()).unwrap();
    assert_eq!((recovery.first, recovery.last, log.durable()), (1001, 1000, 1000));
    assert_eq!(put(&log, A, b"x").unwrap(), 1001);
    drop(log);
    let options = LogOptions { start_after: 2000, ..options };
    let (log, _) = MemoryLog::open(disk, options).unwrap();
    for n in 0..40 {
        assert_eq!(put(&log, A, &[1; 200]).unwrap(), 2001 + n);
    }
    let (log, _) = log.crash().unwrap();
    assert_eq!(log.read(1000).unwrap().count(), 41);
}
