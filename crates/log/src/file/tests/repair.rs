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
    let report = repair(disk, Path::new(DIR), Rescue::default()).unwrap();
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
    let report = repair(&disk, Path::new(DIR), Rescue::default()).unwrap();
    assert_eq!(report.repaired, []);
    assert_eq!((report.check.fault_count, report.check.torn_tail), (0, None));
    assert_eq!((report.check.previous, report.lost.len()), (0, 0));
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
            let covers =
                |lost: &Lost, seq| lost.first <= seq && lost.last.is_none_or(|to| seq <= to);
            let all: Vec<u64> = (1..=40).filter(|seq| !kept.contains(seq)).collect();
            for seq in &all {
                assert!(report.lost.iter().any(|lost| covers(lost, *seq)), "{at}: {seq} lost");
            }
            let told: u64 = report.lost.iter().filter_map(|l| Some(l.last? - l.first + 1)).sum();
            assert!(told <= all.len() as u64, "{at}: no more is called lost than is");
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
        let outcome = repair(&disk, Path::new(DIR), Rescue::default());
        assert!(matches!(outcome, Err(LogError::DiskFull { .. })), "{spare}: {outcome:?}");
        assert_eq!(bytes_of(&disk, &path), damaged);
    }
}

/// What a log gives out after a repair.
fn next_after(disk: &MemoryDisk, rescue: Rescue) -> (RepairReport, u64) {
    let report = repair(disk, Path::new(DIR), rescue).unwrap();
    assert_eq!(check(disk, Path::new(DIR)).unwrap().faults, []);
    let (log, recovery) = open(&disk.crash(|| false)).unwrap();
    assert_eq!(recovery.last, report.continues_after);
    let next = put(&log, A, b"next").unwrap();
    assert!(log.read(rescue.covered).unwrap().all(|record| record.is_ok()));
    (report, next)
}

#[test]
fn l2_no_number_is_given_twice_after_the_end_of_the_log_was_lost() {
    let (disk, _) = written();
    let files = paths(&disk, "log");
    let last = files.last().unwrap();
    let begins = last.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    // Nothing says where the last file ended.
    let headless = disk.crash(|| true);
    headless.alter(last, |bytes| bytes[9] ^= 1).unwrap();
    let (report, next) = next_after(&headless, Rescue::default());
    assert_eq!(report.lost, [Lost { first: begins, last: None }]);
    assert!(next > 40);
    // The file is missing, and only a manifest knows that there were more numbers.
    let missing = disk.crash(|| true);
    missing.remove(last).unwrap();
    assert_eq!(check(&missing, Path::new(DIR)).unwrap().faults, []);
    let (report, next) = next_after(&missing, Rescue { highest: begins + 1, ..Rescue::default() });
    assert_eq!(report.lost, [Lost { first: begins, last: None }]);
    assert!(next > 40);
    // Everything is missing.
    let empty = disk.crash(|| true);
    for path in paths(&empty, "log").iter().chain(&paths(&empty, "idx")) {
        empty.remove(path).unwrap();
    }
    let (report, next) = next_after(&empty, Rescue { covered: 7, highest: 30, salt: 9 });
    assert_eq!(report.lost, [Lost { first: 8, last: None }]);
    assert!(next > 40);
}

#[test]
fn a_log_whose_beginning_is_missing_begins_where_it_is_needed() {
    let (disk, _) = written();
    let files = paths(&disk, "log");
    disk.remove(&files[0]).unwrap();
    let previous = check(&disk, Path::new(DIR)).unwrap().previous;
    assert!(previous > 2);
    let (report, next) = next_after(&disk, Rescue { covered: 2, highest: 40, salt: 9 });
    assert_eq!(report.lost, [Lost { first: 3, last: Some(previous) }]);
    assert_eq!(next, 41);
}

#[test]
fn every_whole_record_is_shown_with_its_place() {
    let (disk, records) = written();
    let mut shown = Vec::new();
    let report = check_records(&disk, Path::new(DIR), &mut |whole| {
        let bytes = bytes_of(&disk, whole.file);
        let at = usize::try_from(whole.offset).unwrap();
        let length = u32::try_from(48 + whole.record.payload.len()).unwrap();
        assert!(bytes[at..].starts_with(&length.to_le_bytes()));
        shown.push(whole.record);
    });
    assert_eq!(report.unwrap(), check(&disk, Path::new(DIR)).unwrap());
    assert_eq!(shown, records);
}

#[test]
fn any_flipped_byte_of_an_index_is_found_and_none_is_a_fault() {
    let (disk, _) = written();
    let path = paths(&disk, "idx").remove(0);
    assert_eq!(check(&disk, Path::new(DIR)).unwrap().stale_indexes, Vec::<PathBuf>::new());
    for at in 0..bytes_of(&disk, &path).len() {
        disk.alter(&path, |bytes| bytes[at] ^= 4).unwrap();
        let report = check(&disk, Path::new(DIR)).unwrap();
        assert_eq!(report.stale_indexes, std::slice::from_ref(&path), "{at}");
        assert_eq!(report.faults, []);
        disk.alter(&path, |bytes| bytes[at] ^= 4).unwrap();
    }
    disk.remove(&path).unwrap();
    assert_eq!(check(&disk, Path::new(DIR)).unwrap().stale_indexes, Vec::<PathBuf>::new());
}

#[test]
fn a_torn_tail_is_cut_and_kept_and_leftovers_are_named() {
    let (disk, records) = written();
    let path = paths(&disk, "log").pop().unwrap();
    let whole = bytes_of(&disk, &path);
    let torn = disk.crash(|| true);
    // Behind the closing mark, which ends in zeros.
    let end = whole.iter().rposition(|&byte| byte != 0).unwrap() + 64;
    torn.alter(&path, |bytes| {
        bytes.resize(end, 0);
        bytes.extend([5; 100]);
    })
    .unwrap();
    torn.create(&Path::new(DIR).join("x.log.new")).unwrap();
    torn.create(&Path::new(DIR).join("00000000000000000999.idx")).unwrap();
    let report = check(&torn, Path::new(DIR)).unwrap();
    assert_eq!(report.leftovers.len(), 2);
    let (cut, aside) = cut_torn_tail(&torn, Path::new(DIR)).unwrap().unwrap();
    assert_eq!(Some(&cut), report.torn_tail.as_ref());
    assert!(bytes_of(&torn, &aside).ends_with(&[5; 100]));
    assert_eq!(bytes_of(&torn, &aside).len() as u64, cut.bytes_cut);
    assert_eq!(cut_torn_tail(&torn, Path::new(DIR)).unwrap(), None);
    let (log, recovery) = open(&torn.crash(|| false)).unwrap();
    assert_eq!((recovery.torn_tail, all(&log)), (None, records));
    assert_eq!(check(&torn, Path::new(DIR)).unwrap().records, 40);
}

#[test]
fn a_whole_frame_in_a_torn_tail_is_no_damage_to_a_check_as_it_is_none_to_opening() {
    let log = MemoryLog::open(MemoryDisk::new(), small_files()).unwrap().0;
    put(&log, A, b"before").unwrap();
    log.pause();
    let first = begin(&log, A, b"in a group of its own").unwrap();
    assert!(log.disk().wait_for_held_sync(LONG));
    // These two wait together, so that they are one group.
    let _later = [begin(&log, A, &[1; 40]).unwrap(), begin(&log, A, &[2; 40]).unwrap()];
    log.disk().let_syncs_through(1);
    first.recv().unwrap().unwrap();
    assert!(log.disk().wait_for_held_sync(LONG));
    let torn = log.disk().crash(|| true);
    log.release();
    let path = paths(&torn, "log").pop().unwrap();
    torn.alter(&path, |bytes| {
        let at = bytes.windows(40).position(|window| window == [1; 40]).unwrap();
        bytes[at] = 0;
    })
    .unwrap();
    let report = check(&torn, Path::new(DIR)).unwrap();
    assert_eq!((report.faults, report.records), (Vec::new(), 2));
    let cut = report.torn_tail.unwrap();
    let (_, recovery) = open(&torn).unwrap();
    assert_eq!(recovery.torn_tail, Some(cut));
}
