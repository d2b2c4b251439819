//! `check` finds every fault; `repair` keeps every whole record.

use super::*;

const DIR: &str = "/log";

/// Forty records in several files, closed.
fn written() -> (MemoryDisk, Vec<Record>) {
    let (log, _) = open(&MemoryDisk::new()).unwrap();
    for n in 1..=40 {
        let stream = if n % 3 == 0 { B } else { A };
        put(&log, stream, &payload(n, 200)).unwrap();
    }
    log.close().unwrap();
    (log.disk().clone(), all(&log))
}

/// Repairs, opens, and returns what is there; everything there must be an original.
fn repaired(disk: &MemoryDisk, originals: &[Record]) -> Vec<u64> {
    let report = repair(disk, Path::new(DIR)).unwrap();
    assert!(!report.repaired.is_empty());
    assert_eq!(report.check.fault_count, report.check.faults.len() as u64);
    let sound = check(disk, Path::new(DIR)).unwrap();
    assert_eq!(sound.faults, []);
    // The repaired log survives a power loss at once.
    let (log, recovery) = open(&disk.crash(|| false)).unwrap();
    assert_eq!(recovery.torn_tail, None);
    let records = all(&log);
    assert_eq!(records.len() as u64, sound.records);
    for record in &records {
        assert!(originals.contains(record));
    }
    let next = put(&log, A, b"next").unwrap();
    assert!(next > recovery.last);
    records.iter().map(|record| record.seq).collect()
}

#[test]
fn a_sound_log_has_no_faults_and_is_not_touched() {
    let (disk, records) = written();
    let report = repair(&disk, Path::new(DIR)).unwrap();
    assert_eq!(report.repaired, []);
    assert_eq!((report.check.fault_count, report.check.torn_bytes), (0, 0));
    assert_eq!((report.check.records, report.check.last), (40, 40));
    assert_eq!(report.check.files, paths(&disk, "log").len() as u64);
    assert_eq!(records.len(), 40);
}

#[test]
fn any_flipped_byte_costs_one_record_at_most() {
    let (disk, records) = written();
    let (last, sealed) =
        paths(&disk, "log").split_last().map(|(l, s)| (l.clone(), s.to_vec())).unwrap();
    for path in [&sealed[0], &sealed[1], &last] {
        let length = bytes_of(&disk, path).len();
        for at in (0..length).step_by(5) {
            let disk = disk.crash(|| true);
            let before = bytes_of(&disk, path)[at];
            disk.alter(path, |bytes| bytes[at] ^= 0x10).unwrap();
            let report = check(&disk, Path::new(DIR)).unwrap();
            if report.fault_count == 0 {
                // The closing mark, or behind it: a torn tail at most.
                assert!(*path == last && report.records == 40, "{at} {before}");
                continue;
            }
            assert_eq!(report.fault_count, 1, "{at}");
            assert_eq!(report.faults[0].file, *path);
            let kept = repaired(&disk, &records);
            let header_of_last = at < 64 && *path == last;
            assert!(kept.len() >= 39 || header_of_last, "{at}: {} kept", kept.len());
            assert!(disk.open(&path.with_extension("log.damaged"), Access::Read).is_ok());
            if let Some(lost) = (1..=40).find(|seq| !kept.contains(seq))
                && !header_of_last
            {
                let fault = &report.faults[0];
                assert!(fault.after < lost && fault.before.is_none_or(|next| next > lost));
            }
        }
    }
}

#[test]
fn a_missing_file_costs_its_records_only() {
    let (disk, records) = written();
    let files = paths(&disk, "log");
    disk.remove(&files[1]).unwrap();
    assert!(open(&disk).is_err());
    let kept = repaired(&disk, &records);
    let [from, to] = [&files[1], &files[2]]
        .map(|path| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap());
    assert_eq!(kept, (1..from).chain(to..=40).collect::<Vec<_>>());
}

#[test]
fn a_hole_of_zeros_and_a_shortened_file_cost_what_they_cover() {
    let (disk, records) = written();
    let path = &paths(&disk, "log")[1];
    let holed = disk.crash(|| true);
    holed.alter(path, |bytes| bytes[300..900].fill(0)).unwrap();
    assert_eq!(repaired(&holed, &records).len(), 36);
    let shortened = disk.crash(|| true);
    shortened.alter(path, |bytes| bytes.truncate(bytes.len() - 260)).unwrap();
    let report = check(&shortened, Path::new(DIR)).unwrap();
    assert!(report.fault_count > 0);
    assert_eq!(repaired(&shortened, &records).len(), 38);
}

#[test]
fn a_repair_on_a_full_disk_changes_nothing() {
    let (disk, _) = written();
    let path = paths(&disk, "log")[0].clone();
    disk.alter(&path, |bytes| bytes[100] ^= 1).unwrap();
    let damaged = bytes_of(&disk, &path);
    for spare in [0, 1000, damaged.len() as u64 + 10, 2 * damaged.len() as u64 - 300] {
        let disk = disk.crash(|| true);
        disk.set_capacity(Some(disk.used_bytes() + spare));
        let outcome = repair(&disk, Path::new(DIR));
        assert!(matches!(outcome, Err(LogError::DiskFull { .. })), "{spare}: {outcome:?}");
        assert_eq!(bytes_of(&disk, &path), damaged);
    }
}
