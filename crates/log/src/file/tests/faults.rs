//! L5, full disks, and what a failed sync leaves in memory.

use super::*;
use crate::memory::{Fault, FaultPlan, When};

fn is_poisoned<T>(result: &Result<T, LogError>) -> bool {
    matches!(result, Err(LogError::Poisoned { .. }))
}

#[test]
fn l5_a_failed_sync_poisons_and_is_never_retried() {
    let log = MemoryLog::new().unwrap();
    put(&log, A, b"good").unwrap();
    log.pause();
    let first = begin(&log, A, b"first").unwrap();
    assert!(log.disk().wait_for_held_sync(LONG));
    let second = begin(&log, A, b"second").unwrap();
    log.fail_next_sync();
    log.release();
    assert!(is_poisoned(&first.recv().unwrap()));
    assert!(is_poisoned(&second.recv().unwrap()));
    let syncs = log.disk().sync_count();
    assert!(is_poisoned(&put(&log, A, b"later")));
    assert_eq!(log.wait(1, LONG), 1);
    assert!(log.stats().poisoned);
    assert_eq!(all(&log).len(), 1);
    assert!(is_poisoned(&log.close()));
    assert_eq!(log.disk().sync_count(), syncs);
}

#[test]
fn l5_a_failed_write_poisons() {
    let log = MemoryLog::new().unwrap();
    put(&log, A, b"good").unwrap();
    log.disk().fail_write_after(0);
    assert!(is_poisoned(&put(&log, A, b"bad")));
    assert!(is_poisoned(&put(&log, A, b"later")));
    let (log, recovery) = log.crash().unwrap();
    assert_eq!((recovery.last, recovery.torn_tail), (1, None));
    assert_eq!(put(&log, A, b"better").unwrap(), 2);
}

#[test]
fn l1_what_a_failed_sync_left_in_memory_only_is_made_durable_before_it_counts() {
    let log = MemoryLog::new().unwrap();
    put(&log, A, b"good").unwrap();
    log.fail_next_sync();
    // Longer than sectors are, or later writes beside it would bring it to the disk.
    assert!(is_poisoned(&put(&log, A, &payload(1, 3000))));
    // The process restarts, the machine does not: the kernel still shows the record, as clean.
    let (again, recovery) = MemoryLog::open(log.disk().clone(), LogOptions::default()).unwrap();
    assert_eq!(recovery.last, 2);
    put(&again, A, b"built on it").unwrap();
    let (crashed, recovery) = again.crash().unwrap();
    assert_eq!((recovery.last, recovery.torn_tail), (3, None));
    assert_eq!(all(&crashed).len(), 3);
}

#[test]
fn l5_a_failure_at_any_write_or_sync_loses_nothing_acknowledged() {
    for (skip, sync) in (0..40).flat_map(|skip| [(skip, true), (skip, false)]) {
        let disk = MemoryDisk::new();
        let (log, _) = open(&disk).unwrap();
        if sync {
            disk.fail_sync_after(skip);
        } else {
            disk.fail_write_after(skip);
        }
        let mut acknowledged = 0;
        for n in 1..=20 {
            match put(&log, A, &payload(n, 300)) {
                Ok(seq) => acknowledged = seq,
                Err(error) => assert!(matches!(error, LogError::Poisoned { .. }), "{error}"),
            }
        }
        let (crashed, recovery) = open(&disk.crash(|| false)).unwrap();
        assert!(recovery.last >= acknowledged);
        let records = all(&crashed);
        for (record, n) in records.iter().zip(1..) {
            assert_eq!(record.seq, n);
            assert!(record.payload == payload(n, 300));
        }
        assert!(records.len() as u64 >= acknowledged);
    }
}

#[test]
fn a_full_disk_refuses_and_the_log_goes_on_when_there_is_space() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk).unwrap();
    put(&log, A, &[1; 100]).unwrap();
    disk.set_capacity(Some(disk.used_bytes() + 600));
    log.pause();
    let fits = begin(&log, A, &[2; 100]).unwrap();
    assert!(disk.wait_for_held_sync(LONG));
    let too_large = begin(&log, A, &[3; 1000]).unwrap();
    let behind = begin(&log, B, &[4; 10]).unwrap();
    log.release();
    assert_eq!(fits.recv().unwrap().unwrap(), 2);
    assert!(matches!(too_large.recv().unwrap(), Err(LogError::DiskFull { .. })));
    assert!(matches!(behind.recv().unwrap(), Err(LogError::DiskFull { .. })));
    // What was decided on a refused record is refused as well, with its number unused.
    let refused = log.append_after(3, A, vec![Bytes::new()], Box::new(|_| {}));
    assert!(matches!(refused, Err(LogError::DiskFull { .. })));
    assert!(log.append_after(2, A, vec![Bytes::new()], Box::new(|_| {})).is_ok());
    assert_eq!(put(&log, A, &[5; 10]).unwrap(), 6);
    disk.set_capacity(None);
    for n in 7..30 {
        assert_eq!(put(&log, A, &[6; 500]).unwrap(), n);
    }
    assert_eq!((log.stats().disk_full_groups, log.stats().poisoned), (1, false));
    assert_eq!((log.stats().queued_records, log.stats().queued_bytes), (0, 0));
    let (log, recovery) = log.crash().unwrap();
    assert_eq!((recovery.last, recovery.torn_tail), (29, None));
    let seqs: Vec<_> = all(&log).iter().map(|record| record.seq).collect();
    assert_eq!(seqs, [&[1, 2][..], &(5..30).collect::<Vec<_>>()].concat());
}

#[test]
fn what_is_queued_behind_a_group_refused_on_a_full_disk_is_refused_too() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk).unwrap();
    disk.set_capacity(Some(disk.used_bytes() + 4096));
    log.pause();
    let first = begin(&log, A, b"fits").unwrap();
    assert!(disk.wait_for_held_sync(LONG));
    // Larger than a group may be, so the next one is not written with it, though it would fit.
    let too_large = begin(&log, A, &vec![1; 17 << 20]).unwrap();
    let behind = begin(&log, A, b"decided on it").unwrap();
    log.release();
    assert_eq!(first.recv().unwrap().unwrap(), 1);
    assert!(matches!(too_large.recv().unwrap(), Err(LogError::DiskFull { .. })));
    assert!(matches!(behind.recv().unwrap(), Err(LogError::DiskFull { .. })));
    assert_eq!(put(&log, A, b"later").unwrap(), 4);
}

#[test]
fn a_disk_that_is_full_at_any_moment_never_poisons() {
    for spare in (0..3000).step_by(40) {
        let disk = MemoryDisk::new();
        let (log, _) = open(&disk).unwrap();
        disk.set_capacity(Some(disk.used_bytes() + spare));
        let mut kept = Vec::new();
        for n in 1..=20 {
            match put(&log, A, &payload(n, 300)) {
                Ok(seq) => kept.push((seq, n)),
                Err(error) => assert!(matches!(error, LogError::DiskFull { .. }), "{error}"),
            }
        }
        disk.set_capacity(None);
        kept.push((put(&log, A, &payload(99, 300)).unwrap(), 99));
        // Also opening needs no space.
        let full = disk.crash(|| true);
        full.set_capacity(Some(full.used_bytes()));
        for disk in [disk.crash(|| false), full] {
            let (log, recovery) = open(&disk).unwrap();
            assert_eq!(recovery.torn_tail, None);
            let found: Vec<_> = all(&log).iter().map(|r| (r.seq, r.payload.to_vec())).collect();
            let expected: Vec<_> = kept.iter().map(|&(seq, n)| (seq, payload(n, 300))).collect();
            assert!(found == expected, "{spare}");
        }
    }
}

#[test]
fn a_panicking_callback_poisons_instead_of_leaving_everybody_waiting() {
    let log = MemoryLog::new().unwrap();
    log.append(A, vec![Bytes::new()], Box::new(|_| panic!("a callback's bug"))).unwrap();
    assert_eq!(log.wait(1, LONG), 1);
    assert!(is_poisoned(&put(&log, A, b"later")) || log.stats().poisoned);
    assert!(is_poisoned(&log.close()));
}

#[test]
fn the_last_reference_may_be_dropped_on_the_logs_thread() {
    let log = Arc::new(MemoryLog::paused().unwrap());
    let (tell, told) = mpsc::channel();
    let held = Arc::clone(&log);
    let done: OnDurable = Box::new(move |result| {
        drop(held);
        drop(tell.send(result));
    });
    log.append(A, vec![Bytes::new()], done).unwrap();
    let disk = log.disk().clone();
    drop(log);
    disk.release_syncs();
    assert_eq!(told.recv_timeout(LONG).unwrap().unwrap(), 1);
}

#[test]
fn l4_a_bit_that_is_wrong_on_its_way_from_the_disk_costs_nothing() {
    let log = MemoryLog::new().unwrap();
    for n in 1..=6 {
        put(&log, A, &payload(n, 300)).unwrap();
    }
    let records = all(&log);
    let options = LogOptions { ahead_bytes: 0, ..LogOptions::default() };
    for (position, seed) in (0..5).flat_map(|position| (0..40).map(move |seed| (position, seed))) {
        // The log was not closed, so its last group could pass for a torn tail.
        let disk = log.disk().crash(|| true);
        disk.set_plan(FaultPlan::one(seed, Fault::FlippedRead, ".log", When::Nth(position)));
        let opened = MemoryLog::open(disk.clone(), options.clone());
        let struck = !disk.strikes().is_empty();
        disk.set_plan(FaultPlan::default());
        match opened {
            Ok((log, recovery)) => {
                assert_eq!(recovery.torn_tail, None, "{position}");
                assert!(all(&log) == records, "{position}");
            }
            Err(LogError::Damaged { .. } | LogError::Newer { .. }) => assert!(struck, "{position}"),
            Err(other) => panic!("{position}: {other}"),
        }
        let (log, _) = MemoryLog::open(disk, options.clone()).unwrap();
        assert!(all(&log) == records, "{position}");
        assert!(struck || position > 3, "{position}");
    }
}

#[test]
fn a_trim_goes_on_where_a_failed_one_stopped() {
    for fault in [Fault::NameError, Fault::SyncDirError] {
        let disk = MemoryDisk::new();
        let (log, _) = open(&disk).unwrap();
        for n in 1..=40 {
            put(&log, A, &payload(n, 200)).unwrap();
        }
        disk.set_plan(FaultPlan::one(1, fault, "/log", When::Nth(0)));
        assert!(matches!(log.trim(40), Err(LogError::Io { .. })));
        let report = log.trim(40).unwrap();
        assert_eq!(log.stats().files, 1);
        assert_eq!(log.first(), report.first);
        let (log, recovery) = open(&disk.crash(|| false)).unwrap();
        assert_eq!((recovery.first, recovery.last), (report.first, 40));
        assert_eq!(log.read(report.first - 1).unwrap().count() as u64, 41 - report.first);
    }
}

#[test]
fn short_reads_change_nothing() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk).unwrap();
    for n in 1..=40 {
        put(&log, A, &payload(n, 200)).unwrap();
    }
    let records = all(&log);
    let disk = disk.kill();
    disk.set_plan(FaultPlan::one(3, Fault::ShortRead, "", When::OneIn(1)));
    let (log, _) = open(&disk).unwrap();
    assert!(all(&log) == records);
    assert!(disk.strikes().len() > 40);
}

#[test]
fn l1_a_file_begun_on_a_full_disk_is_neither_marked_nor_replaced() {
    for refused in [1, 3] {
        let disk = MemoryDisk::new();
        let (log, _) = open(&disk).unwrap();
        put(&log, A, &payload(1, 1900)).unwrap();
        let full = |after| FaultPlan::one(1, Fault::FullAtAllocate, "log.new", When::From(after));
        for n in 0..refused {
            // The last time the file is begun, and there is no space for its first record.
            disk.set_plan(full(u64::from(n + 1 == refused)));
            let outcome = put(&log, A, &payload(2, 1900));
            assert!(matches!(outcome, Err(LogError::DiskFull { .. })), "{outcome:?}");
        }
        disk.set_plan(FaultPlan::default());
        log.close().unwrap();
        drop(log);
        let (log, recovery) = open(&disk).unwrap();
        assert_eq!(recovery.files, 2);
        // Larger than a file.
        let seq = put(&log, A, &payload(3, 3000)).unwrap();
        assert!(log.trim(seq).unwrap().files > 0);
        let (crashed, recovery) = open(&disk.crash(|| false)).unwrap();
        assert_eq!(recovery.last, seq);
        assert!(all(&crashed).last().unwrap().payload == payload(3, 3000));
    }
}
