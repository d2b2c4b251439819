//! Real threads, real files, real kills.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;

use super::*;

/// Tells the test, run again as another process, where to write.
const WRITE: &str = "ARRWDB_LOG_TEST_WRITE";

fn on_disk(dir: &Path) -> (FileLog, Recovery) {
    let options = LogOptions { file_bytes: 200_000, salt: 3, ..LogOptions::default() };
    FileLog::open(Arc::new(OsDisk), dir, options).unwrap()
}

#[test]
fn many_writers_and_followers_agree() {
    const WRITERS: u8 = 16;
    const EACH: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(on_disk(dir.path()).0);
    let finished = AtomicBool::new(false);
    let (log, finished) = (&*log, &finished);
    let follow = move |stream: Option<Stream>| {
        let mut after = 0;
        let mut records = Vec::new();
        loop {
            let over = finished.load(Ordering::Acquire);
            let durable = log.wait(after, Duration::from_millis(5));
            let found = match stream {
                None => log.read(after).unwrap(),
                Some(stream) => log.read_stream(stream, after).unwrap(),
            };
            for record in found {
                let record = record.unwrap();
                assert!(record.seq > after);
                after = record.seq;
                records.push(record);
            }
            assert!(log.durable() >= after);
            after = after.max(durable);
            if over && after == log.durable() {
                return records;
            }
        }
    };
    thread::scope(|scope| {
        let everything = scope.spawn(move || follow(None));
        let of_one = scope.spawn(move || follow(Some(Stream([3; 16]))));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn(move || {
                    for n in 0..EACH {
                        put(log, Stream([writer; 16]), &payload(n, 500)).unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        finished.store(true, Ordering::Release);
        let everything = everything.join().unwrap();
        assert_eq!(everything.len() as u64, u64::from(WRITERS) * EACH);
        for writer in 0..WRITERS {
            let of_writer = everything.iter().filter(|r| r.stream == Stream([writer; 16]));
            for (record, n) in of_writer.zip(0..) {
                assert!(record.payload == payload(n, 500));
            }
        }
        let expected = everything.iter().filter(|r| r.stream == Stream([3; 16]));
        assert!(of_one.join().unwrap().iter().eq(expected));
    });
    let stats = log.stats();
    assert_eq!(stats.records, u64::from(WRITERS) * EACH);
    assert!(stats.groups < stats.records);
    assert!(stats.files > 3);
}

/// Not a test by itself: the process that `l1_what_was_acknowledged_survives_a_kill` kills.
#[test]
fn write_until_killed() {
    let Some(dir) = std::env::var_os(WRITE) else { return };
    let (log, recovery) = on_disk(Path::new(&dir));
    let mut out = std::io::stdout();
    writeln!(out, "\nopened {}", recovery.last).unwrap();
    let mut waiting = VecDeque::new();
    for n in recovery.last + 1.. {
        let length = usize::try_from(n * 37 % 5000).unwrap();
        waiting.push_back(begin(&log, A, &payload(n, length)).unwrap());
        if waiting.len() >= 8 {
            let seq = waiting.pop_front().unwrap().recv().unwrap().unwrap();
            writeln!(out, "acknowledged {seq}").unwrap();
        }
    }
}

#[test]
fn l1_what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0_u64;
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "file::tests::processes::write_until_killed", "--nocapture"])
            .env(WRITE, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut count = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(last) = line.strip_prefix("opened ") {
                assert!(last.parse::<u64>().unwrap() >= acknowledged);
            }
            if let Some(seq) = line.strip_prefix("acknowledged ") {
                acknowledged = seq.parse().unwrap();
                count += 1;
                if count == 20 + round * 17 {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
    }
    let report = check(&OsDisk, dir.path()).unwrap();
    assert_eq!(report.faults, []);
    let (log, recovery) = on_disk(dir.path());
    assert!(recovery.last >= acknowledged && acknowledged > 500);
    for (record, n) in all(&log).iter().zip(1..) {
        assert_eq!(record.seq, n);
        let length = usize::try_from(n * 37 % 5000).unwrap();
        assert!(record.payload == payload(n, length));
    }
}
