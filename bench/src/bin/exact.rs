//! Exact search of single queries, against a plain read of the same bytes and against faiss.
//!
//! `cargo xtask bench exact -- [ROWS] [ROUNDS] [DIMENSION] [PYTHON]`
//!
//! A library's view over one segment file (in memory that is page-aligned as a mapped file is),
//! searched for the 10 nearest on one thread and on two. A plain read sums all of the segment's
//! vectors with the same instructions. `PYTHON` is an interpreter that has faiss-cpu and numpy;
//! with it, `bench/faiss_flat.py` searches a flat index of the same vectors in turns with ours. In
//! every round each contestant takes one turn with the same query after a short rest, so that a noisy neighbour
//! disturbs all of them alike. Printed are medians, with medians of the ratio within a round, and
//! where the quickest tenth of the rounds ends, which on a busy machine is nearer to what a quiet
//! one does.
#![expect(clippy::print_stdout, reason = "printing figures is what it is for")]

use std::fmt;
use std::hint::black_box;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use arrwdb_bench::Outcome;
use arrwdb_bench::figures::{Numbers, at, load, median};
use arrwdb_kernel::kernels;
use arrwdb_state::{
    Chunk, ChunkId, Custom, Document, DocumentId, DocumentMetadata, DocumentRecord, Executor,
    FileBytes, FileSegment, Found, LibraryEntry, Nearest, Segment, Seq, Timestamp, View,
};
use memmap2::{Mmap, MmapMut};

const K: usize = 10;
/// Up to where in the order of times the quickest go.
const QUICK: f64 = 0.1;
/// Rest before every search, as between queries that come one by one: whoever has rested is let
/// on to the processors at once, even on a busy machine.
const PAUSE: Duration = Duration::from_millis(50);
/// Rows of one document, and documents of one record.
const DOCUMENT_ROWS: usize = 100;
const RECORD_DOCUMENTS: usize = 100;
/// Where a segment file's vectors begin.
const VECTORS_AT: usize = 256;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let (rows, rounds, dimension) = (number(1_000_000)?, number(31)?, number(128)?);
    let rows = rows.next_multiple_of(DOCUMENT_ROWS);
    let library = Library::new(rows, dimension)?;
    let mut numbers = Numbers::new(2);
    let queries: Vec<Vec<f32>> = (0..rounds).map(|_query| numbers.unit(dimension)).collect();
    let mut faiss = arguments
        .next()
        .map(|python| Faiss::start(&python, library.vectors(), dimension, &queries))
        .transpose()?;
    let megabytes = (rows * dimension * 4) as f64 / 1e6;
    let processor = kernels().name();
    println!("{rows} rows of {dimension}: {megabytes:.0} MB, {processor}, load {}", load());
    let pools = [Threads::new(1)?, Threads::new(2)?];
    let mut times: [[Vec<f64>; 3]; 2] = Default::default();
    let mut same = 0;
    for (round, query) in queries.iter().enumerate() {
        for (threads, times) in pools.iter().zip(&mut times) {
            let mut found = Vec::new();
            // Who is first changes from round to round: what the one before left behind in the
            // caches disturbs all of them alike.
            for turn in 0..3 {
                let contestant = (round + turn) % 3;
                sleep(PAUSE);
                let seconds = match (contestant, &mut faiss) {
                    (0, _) => time(|| threads.read(library.vectors())).0,
                    (1, _) => {
                        let (seconds, rows) = time(|| library.search(query, threads));
                        found.push(rows?);
                        seconds
                    }
                    (_, Some(faiss)) => {
                        let (seconds, rows) = faiss.search(threads.width(), round)?;
                        found.push(rows);
                        seconds
                    }
                    (_, None) => continue,
                };
                times[contestant].push(seconds);
            }
            same += usize::from(found.len() == 2 && found[0] == found[1]);
        }
    }
    for (threads, times) in pools.iter().zip(&times) {
        report(threads.width(), megabytes, times);
    }
    if faiss.is_some() {
        println!("the same {K} rows in the same order: {same} of {} searches", 2 * rounds);
    }
    println!("load {}", load());
    Ok(())
}

fn report(threads: usize, megabytes: f64, [read, search, faiss]: &[Vec<f64>; 3]) {
    let contestants = [("read", read), ("search", search), ("faiss", faiss)];
    for (name, times) in contestants.iter().filter(|(_name, times)| !times.is_empty()) {
        let (middle, quick) = (median(times), at(times, QUICK));
        println!(
            "{threads} thread(s) {name:6}: median {:6.2} ms ({:4.1} GB/s; {:.3} of read, {:.3} of \
             search), quickest tenth {:6.2} ms ({:4.1} GB/s; {:.3} of read, {:.3} of search)",
            middle * 1e3,
            megabytes / 1e3 / middle,
            ratio(times, read),
            ratio(times, search),
            quick * 1e3,
            megabytes / 1e3 / quick,
            quick / at(read, QUICK),
            quick / at(search, QUICK),
        );
    }
}

/// The median of the ratios within a round.
fn ratio(times: &[f64], others: &[f64]) -> f64 {
    median(&times.iter().zip(others).map(|(a, b)| a / b).collect::<Vec<_>>())
}

fn time<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let done = black_box(work());
    (start.elapsed().as_secs_f64(), done)
}

/// A pool as the engine has one.
struct Threads(rayon::ThreadPool);

impl Threads {
    fn new(width: usize) -> Outcome<Self> {
        Ok(Self(rayon::ThreadPoolBuilder::new().num_threads(width).build()?))
    }

    /// Reads every byte once, each thread its part.
    fn read(&self, values: &[f32]) -> f32 {
        use rayon::prelude::*;
        let part = values.len().div_ceil(self.width()).max(1);
        self.0.install(|| values.par_chunks(part).map(|part| kernels().sum(part)).sum())
    }
}

impl Executor for Threads {
    fn width(&self) -> usize {
        self.0.current_num_threads()
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        use rayon::prelude::*;
        self.0.install(|| (0..tasks).into_par_iter().for_each(task));
    }
}

/// A segment file's bytes.
struct Held(Mmap);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({} bytes)", self.0.len())
    }
}

impl FileBytes for Held {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn name(&self) -> &'static str {
        "(held)"
    }
}

/// A library of one segment file.
struct Library {
    view: View,
    file: Arc<Held>,
    floats: usize,
}

impl Library {
    fn new(rows: usize, dimension: usize) -> Outcome<Self> {
        let width = u32::try_from(dimension)?;
        let mut numbers = Numbers::new(1);
        let mut view = View::empty(width);
        let documents = rows / DOCUMENT_ROWS;
        let mut seq = 0;
        for first in (0..documents).step_by(RECORD_DOCUMENTS) {
            let end = documents.min(first + RECORD_DOCUMENTS);
            let records: Result<Vec<_>, _> = (first..end)
                .map(|n| DocumentRecord::new(&document(n, dimension, &mut numbers), width))
                .collect();
            let at = Timestamp::from_micros(0);
            seq += 1;
            let entry = LibraryEntry::DocumentsPut {
                at,
                unit: None,
                documents: records?,
                replaced: Vec::new(),
            };
            view = view.apply(Seq::new(seq), &entry)?;
        }
        let merge = view.plan_merge(0..view.segments().len(), Seq::START)?;
        let mut bytes = MmapMut::map_anon(usize::try_from(merge.file_bytes())?)?;
        let summary = merge.write(&mut &mut bytes[..])?;
        bytes[..summary.header.len()].copy_from_slice(&summary.header);
        let file = Arc::new(Held(bytes.make_read_only()?));
        let segment = Segment::File(FileSegment::open(1, file.clone())?);
        let view = view.with_merge(&merge, Some(Arc::new(segment))).ok_or("not merged")?;
        Ok(Self { view, file, floats: rows * dimension })
    }

    fn vectors(&self) -> &[f32] {
        bytemuck::cast_slice(&self.file.bytes()[VECTORS_AT..][..self.floats * 4])
    }

    /// The rows of the nearest, nearest first.
    fn search(&self, query: &[f32], threads: &Threads) -> Outcome<Vec<usize>> {
        let (found, _effort) = self.view.nearest(Nearest::new(query, K), threads)?;
        let row = |found: Found| -> Outcome<usize> {
            let chunk = self.view.chunk_of(found.place, false)?;
            let number = u128::from_be_bytes(chunk.document_id.to_bytes());
            Ok(usize::try_from(number)? * DOCUMENT_ROWS + chunk.index as usize)
        };
        found.into_iter().map(row).collect()
    }
}

/// Document `number` of unit vectors.
fn document(number: usize, dimension: usize, numbers: &mut Numbers) -> Document {
    let created_at = Timestamp::from_micros(0);
    let chunks = (0..DOCUMENT_ROWS)
        .map(|chunk| Chunk {
            id: ChunkId::from_bytes(((number * DOCUMENT_ROWS + chunk) as u128).to_be_bytes()),
            text: "A passage.".to_owned(),
            embedding: numbers.unit(dimension),
            created_at,
            page_number: None,
            custom: Custom::new(),
        })
        .collect();
    let metadata = DocumentMetadata {
        title: format!("Document {number}"),
        author: None,
        document_type: "text".to_owned(),
        source_url: None,
        tags: Vec::new(),
        custom: Custom::new(),
        created_at,
    };
    Document { id: DocumentId::from_bytes((number as u128).to_be_bytes()), metadata, chunks }
}

/// `bench/faiss_flat.py`, which searches when it is asked to.
struct Faiss {
    process: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Drop for Faiss {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        self.process.kill().unwrap_or_default();
        self.process.wait().map(drop).unwrap_or_default();
    }
}

impl Faiss {
    fn start(
        python: &str,
        vectors: &[f32],
        dimension: usize,
        queries: &[Vec<f32>],
    ) -> Outcome<Self> {
        let files = tempfile::tempdir()?;
        let (data, asked) = (files.path().join("data.npy"), files.path().join("queries.npy"));
        write_npy(&data, vectors, dimension)?;
        write_npy(&asked, &queries.concat(), dimension)?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("faiss_flat.py");
        let mut process = Command::new(python)
            .args([script, data, asked])
            .arg(K.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (ask, answers) = (process.stdin.take(), process.stdout.take());
        let (Some(ask), Some(answers)) = (ask, answers) else { return Err("no pipes".into()) };
        let mut faiss = Self { process, ask, answers: BufReader::new(answers) };
        println!("{}", faiss.line()?);
        Ok(faiss)
    }

    /// Seconds, and the rows nearest to a query.
    fn search(&mut self, threads: usize, query: usize) -> Outcome<(f64, Vec<usize>)> {
        writeln!(self.ask, "{threads} {query}")?;
        let line = self.line()?;
        let mut words = line.split(' ');
        let seconds = words.next().unwrap_or_default().parse()?;
        let _processor_seconds = words.next();
        let rows: Result<Vec<usize>, _> = words.map(str::parse).collect();
        Ok((seconds, rows?))
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.is_empty() { Err("the script ended".into()) } else { Ok(line.trim().to_owned()) }
    }
}

/// Rows of f32 as numpy's file, version 1.0.
fn write_npy(path: &Path, values: &[f32], dimension: usize) -> Outcome<()> {
    let rows = values.len() / dimension;
    let mut header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dimension}), }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    file.write_all(b"\x93NUMPY\x01\x00")?;
    file.write_all(&u16::try_from(header.len())?.to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    file.write_all(bytemuck::cast_slice(values))?;
    file.flush()?;
    Ok(())
}
