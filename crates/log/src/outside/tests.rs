use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bytes::Bytes;

use super::*;
use crate::disk::OsDisk;
use crate::memory::MemoryDisk;
use crate::{FRAME_BYTES_MAX, FileLog, Log, LogOptions};

const DIR: &str = "/log";

fn options() -> LogOptions {
    LogOptions { file_bytes: 40_000, ahead_bytes: 8_000, salt: 77, ..LogOptions::default() }
}

/// A payload that says which record it is, now and then one that takes several frames.
fn payload(seq: u64) -> Bytes {
    let length =
        if seq.is_multiple_of(97) { FRAME_BYTES_MAX + 5 } else { 8 + (seq % 700) as usize };
    let mut bytes = vec![seq.to_le_bytes()[0]; length];
    bytes[..8].copy_from_slice(&seq.to_le_bytes());
    Bytes::from(bytes)
}

fn append(log: &FileLog) -> u64 {
    let seq = log.last_assigned() + 1;
    log.append(Stream([3; 16]), vec![payload(seq)], Box::new(|_| {})).unwrap()
}

fn read_all(disk: &Arc<dyn Disk>, dir: &Path, after: u64) -> Result<Vec<u64>, LogError> {
    let mut log = Outside::open(Arc::clone(disk), dir, after)?;
    let mut seqs = Vec::new();
    while let Some(record) = log.next_record()? {
        assert_eq!(record.payload, payload(record.seq), "record {}", record.seq);
        seqs.push(record.seq);
    }
    log.sync()?;
    Ok(seqs)
}

fn read_while_written(disk: &Arc<dyn Disk>, dir: &Path) {
    let (log, _) = FileLog::open(Arc::clone(disk), dir, options()).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let seq = append(&log);
                if seq.is_multiple_of(3) {
                    log.wait(seq - 1, std::time::Duration::from_secs(10));
                }
            }
        });
        let mut last = 0;
        while last < 1500 {
            // Asked first: what is durable before the reading must be read.
            let durable = log.durable();
            let seqs = read_all(disk, dir, 0).unwrap();
            assert!(seqs.iter().copied().eq(1..=seqs.len() as u64), "without a hole");
            last = seqs.len() as u64;
            assert!(last >= durable, "{last} of {durable}");
        }
        stop.store(true, Ordering::SeqCst);
    });
    log.close().unwrap();
    let seqs = read_all(disk, dir, 0).unwrap();
    assert_eq!(seqs.len() as u64, log.durable());
    let after = seqs.len() as u64 / 2;
    let later = read_all(disk, dir, after).unwrap();
    assert!(later[0] <= after + 1 && later.last() == seqs.last());
}

#[test]
fn a_log_is_read_from_outside_while_it_is_written() {
    let memory: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    read_while_written(&memory, Path::new(DIR));
    let dir = tempfile::tempdir().unwrap();
    let real: Arc<dyn Disk> = Arc::new(OsDisk);
    read_while_written(&real, dir.path());
}

#[test]
fn what_was_read_is_durable_once_it_is_synced() {
    let written = MemoryDisk::new();
    let (log, _) = FileLog::open(Arc::new(written.clone()), Path::new(DIR), options()).unwrap();
    let last = (0..20).map(|_| append(&log)).last().unwrap();
    log.close().unwrap();
    let disk = MemoryDisk::new();
    disk.create_dir_all(Path::new(DIR)).unwrap();
    for dir in Path::new(DIR).ancestors().skip(1) {
        disk.sync_dir(dir).unwrap();
    }
    let name = written.list(Path::new(DIR)).unwrap().remove(0);
    let path = Path::new(DIR).join(name);
    let from = written.open(&path, Access::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(from.length().unwrap()).unwrap()];
    crate::disk::read_exact_at(&*from, &mut bytes, 0).unwrap();
    let file = disk.create(&path).unwrap();
    file.write_all_at(&bytes[..64], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new(DIR)).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    let opened =
        |disk: MemoryDisk| FileLog::open(Arc::new(disk), Path::new(DIR), options()).unwrap().1.last;
    assert_eq!(opened(disk.crash(|| false)), 0, "nothing is durable yet");
    let outside: Arc<dyn Disk> = Arc::new(disk.clone());
    assert_eq!(read_all(&outside, Path::new(DIR), 0).unwrap().last(), Some(&last));
    assert_eq!(opened(disk.crash(|| false)), last);
}

#[test]
fn damage_is_told_from_a_group_that_is_being_written() {
    let disk = MemoryDisk::new();
    let (log, _) = FileLog::open(Arc::new(disk.clone()), Path::new(DIR), options()).unwrap();
    for _record in 0..20 {
        let seq = append(&log);
        log.wait(seq - 1, std::time::Duration::from_secs(10));
    }
    let outside: Arc<dyn Disk> = Arc::new(disk.clone());
    let path = file_path(Path::new(DIR), 1);
    disk.alter(&path, |bytes| bytes[500] ^= 1).unwrap();
    let refused = read_all(&outside, Path::new(DIR), 0).unwrap_err();
    assert!(matches!(refused, LogError::Damaged { .. }), "{refused}");
    log.close().unwrap();
}

#[test]
fn carried_records_are_a_log_again() {
    let record = |seq: u64| Record { seq, stream: Stream([3; 16]), payload: payload(seq) };
    let filled = || {
        let mut filled = Carried::after(90, 5);
        for seq in [91, 95, 97] {
            filled.add(record(seq));
        }
        filled
    };
    let mut second = Carried::after(97, 6);
    second.add(record(120));
    let bytes = filled().finish();
    assert_eq!(bytes, filled().finish(), "the same records are the same bytes");
    let seqs: Vec<u64> =
        read_carried(Path::new("x"), bytes.clone()).unwrap().iter().map(|it| it.seq).collect();
    assert_eq!(seqs, [91, 95, 97]);
    for place in (0..bytes.len()).step_by(977) {
        let mut damaged = bytes.clone();
        damaged[place] ^= 1;
        assert!(read_carried(Path::new("x"), damaged).is_err(), "byte {place}");
    }
    let cut = bytes[..bytes.len() - 8].to_vec();
    assert!(read_carried(Path::new("x"), cut).is_err());

    let disk = MemoryDisk::new();
    disk.create_dir_all(Path::new(DIR)).unwrap();
    let put = |name: &str, bytes: &[u8]| {
        let file = disk.create(&Path::new(DIR).join(name)).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file.sync_data().unwrap();
    };
    put(&file_name(91), &bytes);
    let (name, bytes) = second.finish_marked(5000);
    put(&name, &bytes);
    disk.sync_dir(Path::new(DIR)).unwrap();
    let (log, recovery) = FileLog::open(Arc::new(disk.clone()), Path::new(DIR), options()).unwrap();
    assert_eq!((recovery.first, recovery.last), (91, 5000));
    assert_eq!(append(&log), 5001);
    log.close().unwrap();
    let seqs: Vec<u64> = log.read(90).unwrap().map(|record| record.unwrap().seq).collect();
    assert_eq!(seqs, [91, 95, 97, 120, 5001]);
    let (name, bytes) = Carried::after(9, 5).finish_marked(1000);
    assert_eq!(name, file_name(1000));
    assert!(read_carried(Path::new("x"), bytes).unwrap().is_empty());
}

#[test]
fn a_log_that_is_not_there_yet_has_no_records() {
    let disk = MemoryDisk::new();
    disk.create_dir_all(Path::new(DIR)).unwrap();
    let outside: Arc<dyn Disk> = Arc::new(disk);
    assert!(read_all(&outside, Path::new(DIR), 0).unwrap().is_empty());
    assert!(read_all(&outside, Path::new("/elsewhere"), 0).is_err());
}
