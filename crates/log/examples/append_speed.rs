//! Measures the log on a real disk: records acknowledged per second with 1, 8 and 64 writers that
//! each wait for durability, and records read back per second.
//!
//! `cargo run --release -p arrwdb-log --example append_speed -- [directory] [seconds]`

use std::error::Error;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use arrwdb_log::disk::OsDisk;
use arrwdb_log::{FileLog, Log, LogError, LogOptions, Stream};
use bytes::Bytes;

const RECORD_BYTES: usize = 2048;
const SMALL_BYTES: usize = 100;
const SMALL_RECORDS: usize = 1_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds = args.next().map_or(Ok(3), |text| text.parse())?;
    let scratch = dir.join(format!("append-speed-{}", std::process::id()));
    let result = measure(&scratch, Duration::from_secs(seconds));
    std::fs::remove_dir_all(&scratch)?;
    result
}

fn measure(scratch: &Path, time: Duration) -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout();
    for writers in [1, 8, 64] {
        let dir = scratch.join(writers.to_string());
        let (log, _) = FileLog::open(Arc::new(OsDisk), &dir, LogOptions::default())?;
        let mut waits = append(&Arc::new(log), writers, time)?;
        waits.sort();
        let at = |share: f64| {
            let place = (waits.len() as f64 * share).to_string();
            let place = place.split('.').next().and_then(|whole| whole.parse::<usize>().ok());
            place.and_then(|place| waits.get(place)).map_or(0, Duration::as_micros)
        };
        writeln!(
            out,
            "{writers:>3} writers, {RECORD_BYTES} B: {:>8.0} records/s, wait p50 {} us, p99 {} us",
            waits.len() as f64 / time.as_secs_f64(),
            at(0.5),
            at(0.99),
        )?;
    }
    replay(&scratch.join("small"), &mut out)
}

/// Every acknowledged append's wait.
fn append(log: &Arc<FileLog>, writers: usize, time: Duration) -> Result<Vec<Duration>, LogError> {
    let end = Instant::now() + time;
    let threads: Vec<_> = (0..writers)
        .map(|writer| {
            let log = Arc::clone(log);
            thread::spawn(move || write_until(&*log, writer, end))
        })
        .collect();
    let mut waits = Vec::new();
    for thread in threads {
        let outcome = thread.join();
        waits.extend(outcome.unwrap_or(Err(LogError::Closed))?);
    }
    Ok(waits)
}

fn write_until(log: &dyn Log, writer: usize, end: Instant) -> Result<Vec<Duration>, LogError> {
    let stream = Stream([u8::try_from(writer).unwrap_or(u8::MAX); 16]);
    let payload = Bytes::from(vec![0xa5; RECORD_BYTES]);
    let mut waits = Vec::new();
    while Instant::now() < end {
        let begin = Instant::now();
        let (tell, told) = mpsc::sync_channel(1);
        let done = Box::new(move |result| drop(tell.send(result)));
        log.append(stream, vec![payload.clone()], done)?;
        told.recv().unwrap_or(Err(LogError::Closed))?;
        waits.push(begin.elapsed());
    }
    Ok(waits)
}

fn replay(dir: &Path, out: &mut impl io::Write) -> Result<(), Box<dyn Error>> {
    let options = LogOptions { queue_records: 1 << 21, ..LogOptions::default() };
    let (log, _) = FileLog::open(Arc::new(OsDisk), dir, options.clone())?;
    let payload = Bytes::from(vec![0x5a; SMALL_BYTES]);
    let begin = Instant::now();
    for n in 0..SMALL_RECORDS {
        let stream = Stream([u8::try_from(n % 100)?; 16]);
        log.append(stream, vec![payload.clone()], Box::new(drop))?;
    }
    log.close()?;
    let rate = SMALL_RECORDS as f64 / begin.elapsed().as_secs_f64();
    writeln!(out, "bulk append, {SMALL_BYTES} B: {rate:>9.0} records/s")?;
    drop(log);
    let begin = Instant::now();
    let (log, _) = FileLog::open(Arc::new(OsDisk), dir, options)?;
    writeln!(out, "open: {} us, {} files", begin.elapsed().as_micros(), log.stats().files)?;
    let begin = Instant::now();
    let mut count = 0_u64;
    for record in log.read(0)? {
        record?;
        count += 1;
    }
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    writeln!(out, "replay of all, {SMALL_BYTES} B:   {rate:>9.0} records/s")?;
    let begin = Instant::now();
    let count = log.read_stream(Stream([7; 16]), 0)?.count();
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    writeln!(out, "replay of 1 stream in 100: {rate:>9.0} records/s ({count})")?;
    Ok(())
}
