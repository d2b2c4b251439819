//! L4: every truncation, every flipped byte, any subset of unsynced sectors.

use proptest::prelude::*;

use super::*;
use crate::file::recover::file_path;

/// Four groups: 1 | 2 3 4 | 5 | 6 7. Crashed, so without a closing mark.
struct Written {
    disk: MemoryDisk,
    path: PathBuf,
    records: Vec<Record>,
    /// Where each record begins, and where the last one ends.
    offsets: Vec<usize>,
    /// Where the last group begins.
    last_group: usize,
}

const SIZES: [usize; 7] = [30, 700, 0, 64, 513, 90, 1200];

fn written() -> Written {
    let log = MemoryLog::new().unwrap();
    for group in [1..2, 2..5, 5..6, 6..8] {
        log.pause();
        let mut told = Vec::new();
        for n in group {
            let stream = if n % 2 == 0 { A } else { B };
            let size = SIZES[usize::try_from(n - 1).unwrap()];
            told.push(begin(&log, stream, &payload(n, size)).unwrap());
            // The first of a group must not be written before the rest is queued.
            if told.len() == 1 {
                assert!(log.disk().wait_for_held_sync(LONG));
            }
        }
        log.release();
        for told in told {
            told.recv().unwrap().unwrap();
        }
    }
    let (mut offsets, mut at) = (Vec::new(), 64);
    for size in SIZES {
        offsets.push(at);
        at += (48 + size).next_multiple_of(8);
    }
    offsets.push(at);
    let records = all(&log);
    let disk = log.disk().crash(|| true);
    let path = file_path(Path::new("/log"), 1);
    assert_eq!(bytes_of(&disk, &path).len(), at);
    let last_group = offsets[6];
    Written { disk, path, records, offsets, last_group }
}

impl Written {
    /// Opens the log with its bytes changed.
    fn altered(
        &self,
        change: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(MemoryLog, Recovery), LogError> {
        let disk = self.disk.crash(|| true);
        disk.alter(&self.path, change).unwrap();
        MemoryLog::open(disk, LogOptions { ahead_bytes: 0, ..LogOptions::default() })
    }

    /// The log must hold exactly the first `count` records, and take and keep another.
    fn check_prefix(&self, log: &MemoryLog, count: usize) {
        assert!(all(log) == self.records[..count]);
        let seq = put(log, A, b"more").unwrap();
        assert_eq!(seq, count as u64 + 1);
        let (log, recovery) = log.crash().unwrap();
        assert_eq!(recovery.torn_tail, None);
        let records = all(&log);
        assert!(records[..count] == self.records[..count]);
        assert_eq!(&records[count].payload[..], b"more");
    }
}

#[test]
fn l4_cut_at_every_byte_the_log_holds_the_whole_records_before() {
    let written = written();
    let end = *written.offsets.last().unwrap();
    for length in 0..=end {
        let outcome = written.altered(|bytes| bytes.truncate(length));
        if length < 64 {
            let Err(LogError::Damaged { offset: 0, .. }) = outcome else {
                panic!("{length}: a header cut short was accepted")
            };
            continue;
        }
        let (log, recovery) = outcome.unwrap();
        let whole = written.offsets.partition_point(|&begin| begin <= length) - 1;
        assert_eq!(recovery.last, whole as u64, "{length}");
        let begin = written.offsets[whole];
        assert_eq!(recovery.torn_tail.is_some(), length > begin, "{length}");
        if let Some(torn) = recovery.torn_tail {
            assert_eq!(torn.offset, begin as u64);
        }
        written.check_prefix(&log, whole);
    }
}

#[test]
fn l4_cut_at_every_byte_before_space_allocated_ahead() {
    let written = written();
    let end = *written.offsets.last().unwrap();
    for length in (64..=end).step_by(3) {
        let zeroed = |bytes: &mut Vec<u8>| {
            bytes.truncate(length);
            bytes.resize(end + 1000, 0);
        };
        let (log, _) = written.altered(zeroed).unwrap();
        // A record whose last bytes are zeros anyway may be whole already.
        let records = all(&log);
        let whole = written.offsets.partition_point(|&begin| begin <= length) - 1;
        assert!(records.len() == whole || records.len() == whole + 1);
        written.check_prefix(&log, records.len());
    }
}

#[test]
fn l4_a_flipped_byte_is_damage_below_the_last_group_and_a_torn_tail_within() {
    let written = written();
    let end = *written.offsets.last().unwrap();
    for at in 0..end {
        let outcome = written.altered(|bytes| bytes[at] ^= 1 << (at % 8));
        if at < written.last_group {
            let Err(LogError::Damaged { file, offset, .. }) = outcome else {
                panic!("{at}: damage was accepted")
            };
            let begin = written.offsets.iter().rfind(|&&begin| begin <= at);
            assert_eq!(offset, begin.map_or(0, |&begin| begin as u64), "{at}");
            assert_eq!(file, written.path);
        } else {
            let (log, recovery) = outcome.unwrap();
            let whole = written.offsets.partition_point(|&begin| begin <= at) - 1;
            assert_eq!(recovery.last, whole as u64, "{at}");
            assert!(recovery.torn_tail.is_some());
            written.check_prefix(&log, whole);
        }
    }
}

#[test]
fn l4_after_an_orderly_close_every_flipped_byte_of_a_record_is_damage() {
    let written = written();
    let (log, _) = written.altered(|_| {}).unwrap();
    log.close().unwrap();
    let disk = log.disk().clone();
    let length = bytes_of(&disk, &written.path).len();
    let end = *written.offsets.last().unwrap();
    assert!(length > end);
    for at in 0..length {
        let disk = disk.crash(|| true);
        disk.alter(&written.path, |bytes| bytes[at] ^= 0x40).unwrap();
        match MemoryLog::open(disk, LogOptions::default()) {
            Err(LogError::Damaged { .. }) => assert!(at < end, "{at}"),
            Ok((log, _)) => {
                assert!(at >= end, "{at}");
                assert!(all(&log) == written.records);
            }
            Err(other) => panic!("{at}: {other}"),
        }
    }
}

#[test]
fn l4_a_frame_within_a_payload_is_not_taken_for_one() {
    // The payload holds the bytes of a whole log file of the same options but another first
    // number; its frames claim that lower offsets were durable.
    let inner = written();
    let bytes = bytes_of(&inner.disk, &inner.path);
    let options = LogOptions { salt: 99, ..LogOptions::default() };
    let (log, _) = MemoryLog::open(MemoryDisk::new(), options.clone()).unwrap();
    put(&log, A, b"durable").unwrap();
    log.pause();
    let _told = begin(&log, A, &bytes).unwrap();
    assert!(log.disk().wait_for_held_sync(LONG));
    let disk = log.disk().crash(|| true);
    let begin = 64 + 56;
    disk.alter(&file_path(Path::new("/log"), 1), |bytes| bytes[begin + 50] ^= 1).unwrap();
    let (log, recovery) = MemoryLog::open(disk, options).unwrap();
    assert_eq!((recovery.last, recovery.torn_tail.is_some()), (1, true));
    assert_eq!(all(&log).len(), 1);
}

#[test]
fn l4_a_missing_or_shortened_sealed_file_is_damage() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk).unwrap();
    for n in 1..=40 {
        put(&log, A, &payload(n, 200)).unwrap();
    }
    let files = paths(&disk, "log");
    assert!(files.len() >= 4);
    let path = files[1].clone();
    let missing = disk.crash(|| true);
    missing.remove(&path).unwrap();
    assert!(matches!(open(&missing), Err(LogError::Damaged { .. })));
    let length = bytes_of(&disk, &path).len();
    for cut in 1..length {
        let shortened = disk.crash(|| true);
        shortened.alter(&path, |bytes| bytes.truncate(length - cut)).unwrap();
        assert!(matches!(open(&shortened), Err(LogError::Damaged { .. })), "{cut}");
    }
    for at in (0..length).step_by(7) {
        let flipped = disk.crash(|| true);
        flipped.alter(&path, |bytes| bytes[at] ^= 2).unwrap();
        // The header is read at once; the rest by its reader, or at once without the index.
        let opened = open(&flipped);
        if at < 64 {
            assert!(matches!(opened, Err(LogError::Damaged { .. })), "{at}");
            continue;
        }
        let (log, _) = opened.unwrap();
        let outcome: Result<Vec<_>, _> = log.read(0).unwrap().collect();
        assert!(matches!(outcome, Err(LogError::Damaged { .. })), "{at}");
        let outcome: Result<Vec<_>, _> = log.read_stream(A, 0).unwrap().collect();
        assert!(matches!(outcome, Err(LogError::Damaged { .. })), "{at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the disk kept of the unsynced group: every acknowledged record, then a prefix of
    /// those that were not, and never a complaint.
    #[test]
    fn l4_any_subset_of_unsynced_sectors_is_a_torn_tail(
        before in prop::collection::vec(0_usize..1500, 0..6),
        unsynced in prop::collection::vec(0_usize..1500, 1..8),
        ahead_bytes in prop::sample::select(vec![0_u64, 512, 4096]),
        choices in prop::collection::vec(any::<u64>(), 1..6),
    ) {
        let options = LogOptions { ahead_bytes, file_bytes: 4096, ..LogOptions::default() };
        let (log, _) = MemoryLog::open(MemoryDisk::new(), options.clone()).unwrap();
        let mut expected = Vec::new();
        for (n, size) in (1..).zip(&before) {
            put(&log, A, &payload(n, *size)).unwrap();
            expected.push(payload(n, *size));
        }
        log.pause();
        let mut told = Vec::new();
        for (n, size) in (expected.len() as u64 + 1..).zip(&unsynced) {
            told.push(begin(&log, A, &payload(n, *size)).unwrap());
            expected.push(payload(n, *size));
            if told.len() == 1 {
                prop_assert!(log.disk().wait_for_held_sync(LONG));
            }
        }
        // Let syncs through one at a time: every state between is crashed as well.
        for seed in choices {
            let acknowledged = log.durable();
            let mut dice = payload(seed, 4096).into_iter().cycle();
            let disk = log.disk().crash(|| dice.next().unwrap_or(0) < 128);
            let (crashed, _) = MemoryLog::open(disk, options.clone()).unwrap();
            let found: Vec<_> = all(&crashed).into_iter().map(|r| r.payload.to_vec()).collect();
            prop_assert!(found.len() as u64 >= acknowledged);
            prop_assert!(found[..] == expected[..found.len()]);
            put(&crashed, A, b"more").unwrap();
            let (again, _) = crashed.crash().unwrap();
            prop_assert_eq!(all(&again).len(), found.len() + 1);
            log.disk().let_syncs_through(1);
            let _held = log.disk().wait_for_held_sync(Duration::from_millis(20));
        }
    }
}

#[test]
fn l3_a_record_in_parts_is_whole_or_not_there_after_a_crash() {
    let log = MemoryLog::new().unwrap();
    put(&log, A, b"before").unwrap();
    log.pause();
    let large = payload(5, 3 * crate::FRAME_BYTES_MAX + 17);
    let _told = begin(&log, A, &large).unwrap();
    assert!(log.disk().wait_for_held_sync(LONG));
    let mut whole = 0;
    for lost in [0, 1, 200, 2047, 2048, 4500, 6100, 6144, u64::MAX] {
        // All sectors but one reach the disk (the first choice is the file's length).
        let mut asked = 0;
        let disk = log.disk().crash(|| {
            asked += 1;
            asked != lost
        });
        let (crashed, recovery) = MemoryLog::open(disk, LogOptions::default()).unwrap();
        let records = all(&crashed);
        assert_eq!(&records[0].payload[..], b"before");
        assert_eq!(recovery.torn_tail.is_some(), records.len() == 1 && lost != 1, "{lost}");
        if let [_, record] = &records[..] {
            assert!(record.payload == large);
            whole += 1;
        }
    }
    assert!(whole >= 2);
}
