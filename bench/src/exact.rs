//! Exact search: whether it gives the results of a full scan, and how fast beside faiss.

use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use arrwdb_index::{
    AllRows, Executor, Metric, Request, TopK, Tuning, VectorScorer, Vectors, brute_force,
    normalized,
};
use serde_json::{Value, json};

use crate::Outcome;
use crate::figures::{at, median};
use crate::filters::Asked;

/// How much of a row is in a query that is made from it: from nearly none to the row itself.
const SHARES: [f32; 5] = [0.05, 0.3, 0.6, 0.9, 1.0];

/// Queries that are compared together, over so many rows at a time.
const TOGETHER: usize = 16;
const PART_ROWS: u32 = 512;

/// Rows with their distances, nearest first.
type Found = Vec<(f32, u32)>;

/// Searches by the index `count` times and compares each result with that of a full scan, bit for
/// bit: the given queries, and then means of those and rows.
pub fn verify(asked: Asked<'_>, count: usize, executor: &dyn Executor) -> Outcome<Value> {
    let (next, differ) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let started = Instant::now();
    executor.run(executor.width(), &|_thread| {
        loop {
            let first = next.fetch_add(TOGETHER, Ordering::Relaxed);
            if first >= count {
                break;
            }
            let numbers = first..count.min(first + TOGETHER);
            let queries: Vec<_> = numbers.map(|number| query(asked, number)).collect();
            let wrong = queries
                .iter()
                .zip(by_scan(asked, &queries))
                .filter(|(query, scanned)| bits(&by_index(asked, query)) != bits(scanned));
            differ.fetch_add(wrong.count(), Ordering::Relaxed);
        }
    });
    let differ = differ.into_inner();
    let seconds = started.elapsed().as_secs_f64();
    if differ > 0 {
        return Err(format!("{differ} of {count} searches differ from a full scan").into());
    }
    Ok(json!({"searches": count, "k": asked.k, "same_as_a_full_scan": count, "seconds": seconds}))
}

/// Query `number`: a given one, or a mean of one and a row.
fn query(asked: Asked<'_>, number: usize) -> Vec<f32> {
    let given = &asked.queries[number % asked.queries.len()];
    let turn = number / asked.queries.len();
    if turn == 0 {
        return given.clone();
    }
    let spread = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let row = (spread * u64::from(asked.rows.rows())) >> 32;
    let (vector, _) = asked.rows.row(arrwdb_index::RowId(u32::try_from(row).unwrap_or_default()));
    let share = SHARES[turn % SHARES.len()];
    let mean: Vec<f32> =
        given.iter().zip(vector).map(|(a, b)| a * (1.0 - share) + b * share).collect();
    if asked.index.metric() == Metric::Cosine {
        normalized(&mean).map_or_else(|_zero| given.clone(), |(unit, _norm)| unit)
    } else {
        mean
    }
}

fn bits(found: &Found) -> Vec<(u32, u32)> {
    found.iter().map(|(distance, row)| (distance.to_bits(), *row)).collect()
}

fn by_index(asked: Asked<'_>, query: &[f32]) -> Found {
    let rows = asked.rows.rows();
    let request = Request {
        vectors: asked.rows,
        rows: (0, rows),
        query,
        k: asked.k,
        spec: asked.index.spec(),
        tuning: Tuning::default(),
        allowed: &AllRows,
        allowed_rows: rows,
    };
    let mut top = TopK::new(asked.k);
    asked.index.search(request, &mut top, |row| row.0);
    top.into_sorted()
}

/// Of several queries, which take turns with each part of the rows.
fn by_scan(asked: Asked<'_>, queries: &[Vec<f32>]) -> Vec<Found> {
    let metric = asked.index.metric();
    let mut all: Vec<_> = queries
        .iter()
        .map(|query| (VectorScorer::new(metric, query, asked.rows), TopK::new(asked.k)))
        .collect();
    let rows = asked.rows.rows();
    for first in (0..rows).step_by(PART_ROWS as usize) {
        for (scorer, top) in &mut all {
            let part = first..rows.min(first.saturating_add(PART_ROWS));
            brute_force::search(&*scorer, part, &AllRows, top, |row| row.0);
        }
    }
    all.into_iter().map(|(_scorer, top)| top.into_sorted()).collect()
}

/// The files of what is searched, for a script.
#[derive(Debug, Clone, Copy)]
pub struct Files<'a> {
    /// An interpreter that has faiss-cpu and numpy.
    pub python: &'a str,
    /// Vectors, by cosine of unit length.
    pub base: &'a Path,
    /// As many as the index is asked.
    pub queries: &'a Path,
}

/// Searches by the index, by a full scan and by faiss' flat index in turns, `rounds` times, each on
/// one thread: medians, quickest tenths and medians of the ratios within a round, of the time on the
/// clock and of the processor time. On a busy machine the latter is what compares: a long search is
/// put aside for others more often than a short one.
pub fn beside(asked: Asked<'_>, files: Files<'_>, rounds: usize) -> Outcome<Value> {
    let mut faiss = Faiss::start(asked, files)?;
    let mut times: [Vec<Times>; 3] = Default::default();
    let mut same = 0;
    for round in 0..rounds {
        let number = round % asked.queries.len();
        let query = &asked.queries[number];
        let mut found = [Vec::new(), Vec::new(), Vec::new()];
        // Who is first changes from round to round.
        for turn in 0..times.len() {
            let contestant = (round + turn) % times.len();
            let (seconds, rows) = match contestant {
                0 => timed(|| by_index(asked, query)),
                1 => timed(|| by_scan(asked, std::slice::from_ref(query)).remove(0)),
                _ => faiss.search(number)?,
            };
            times[contestant].push(seconds);
            found[contestant] = rows;
        }
        same += usize::from(found[0] == found[2]);
    }
    let on_the_clock =
        times.each_ref().map(|times| times.iter().map(|[clock, _]| *clock).collect());
    let processor = times.each_ref().map(|times| times.iter().map(|[_, used]| *used).collect());
    Ok(json!({
        "faiss": faiss.about,
        "rounds": rounds,
        "same_rows_as_faiss": same,
        "clock": compared(&on_the_clock),
        "processor": compared(&processor),
    }))
}

/// Seconds on the clock and of the processor.
type Times = [f64; 2];

fn compared([index, scan, faiss]: &[Vec<f64>; 3]) -> Value {
    let ratio = |others: &[f64]| -> f64 {
        median(&others.iter().zip(index).map(|(other, own)| other / own).collect::<Vec<_>>())
    };
    let figures = |times: &[f64]| json!({"p50_ms": at(times, 0.5) * 1e3, "quickest_tenth_ms": at(times, 0.1) * 1e3});
    json!({
        "index": figures(index),
        "full_scan": figures(scan),
        "faiss_flat": figures(faiss),
        "faiss_to_index": ratio(faiss),
        "faiss_to_index_quickest_tenths": at(faiss, 0.1) / at(index, 0.1),
        "full_scan_to_index": ratio(scan),
    })
}

fn timed(search: impl FnOnce() -> Found) -> (Times, Vec<u32>) {
    let (started, used) = (Instant::now(), processor_seconds());
    let found = black_box(search());
    let times = [started.elapsed().as_secs_f64(), processor_seconds() - used];
    (times, found.into_iter().map(|(_distance, row)| row).collect())
}

/// Of this thread.
fn processor_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// `bench/faiss_flat.py`, which searches when it is asked to.
struct Faiss {
    process: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    about: String,
}

impl Drop for Faiss {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        self.process.kill().unwrap_or_default();
        self.process.wait().map(drop).unwrap_or_default();
    }
}

impl Faiss {
    fn start(asked: Asked<'_>, files: Files<'_>) -> Outcome<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("faiss_flat.py");
        let metric = if asked.index.metric() == Metric::L2 { "l2" } else { "ip" };
        let mut process = Command::new(files.python)
            .args([script.as_path(), files.base, files.queries])
            .args([asked.k.to_string().as_str(), metric])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (ask, answers) = (process.stdin.take(), process.stdout.take());
        let (Some(ask), Some(answers)) = (ask, answers) else { return Err("no pipes".into()) };
        let about = String::new();
        let mut faiss = Self { process, ask, answers: BufReader::new(answers), about };
        faiss.about = faiss.line()?;
        Ok(faiss)
    }

    /// The times on one thread, and the rows nearest to a query.
    fn search(&mut self, query: usize) -> Outcome<(Times, Vec<u32>)> {
        writeln!(self.ask, "1 {query}")?;
        let line = self.line()?;
        let mut words = line.split(' ');
        let mut seconds = || words.next().unwrap_or_default().parse();
        let times = [seconds()?, seconds()?];
        let rows: Result<Vec<u32>, _> = words.map(str::parse).collect();
        Ok((times, rows?))
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.is_empty() { Err("the script ended".into()) } else { Ok(line.trim().to_owned()) }
    }
}
