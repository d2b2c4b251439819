//! Bulk ingest of documents with vectors, over HTTP into the real binary, every write synced.
//!
//! `cargo xtask bench ingest -- [CHUNKS] [CHUNKS_PER_DOCUMENT,..] [STREAMS] [DIRECTORY]`
//!
//! Lines of the export's form without ids, `{"title", "chunks": [{"text", "embedding"}]}` with 384
//! numbers in the shortest form that reads back as the same f32, are made once and sent again and
//! again. Printed are chunks per second up to the answer (everything is durable then), the rate of
//! the slowest and the middle tenth, and the server's own memory. Client and server share the
//! machine.
#![expect(clippy::print_stdout, reason = "printing figures is what it is for")]

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use arrwdb_bench::Outcome;
use arrwdb_bench::figures::{Numbers, at, load, median};
use arrwdb_bench::server::{Server, cpu_seconds, program};

const DIMENSION: usize = 384;
/// Chunks that are different from one another.
const BLOCK_CHUNKS: usize = 2000;
/// Sends between two looks at the clock are of at most so many bytes.
const SEND_BYTES: usize = 256 << 10;
/// Parts of a run whose rates are compared.
const TENTHS: usize = 10;
const TEXT: &str = "For advanced line editors, start the program with this variable set to one: \
    the main and the debugger loop then use canonical terminal settings, which allows wrappers.";

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let chunks: usize = arguments.next().map_or(Ok(300_000), |text| text.parse())?;
    let shapes = arguments.next().unwrap_or_else(|| "1,10".to_owned());
    let streams: usize = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let directory = arguments.next();
    for shape in shapes.split(',') {
        let shape = shape.parse::<usize>()?.max(1);
        run(chunks, shape, streams.max(1), directory.as_deref().map(Path::new))?;
    }
    Ok(())
}

fn run(chunks: usize, shape: usize, streams: usize, directory: Option<&Path>) -> Outcome<()> {
    let block = Block::new(shape);
    // The provider is never asked; this one needs no model's files.
    let settings = [("EMBEDDING_PROVIDER", "cohere"), ("COHERE_API_KEY", "unused")];
    let server = Server::start(&program()?, directory, &settings)?;
    let library = server.create_library(DIMENSION)?;
    let blocks = chunks.div_ceil(block.chunks * streams).max(TENTHS);
    let watch = server.watch()?;
    let (own, began) = (cpu_seconds(std::process::id())?, Instant::now());
    let outcomes: Vec<Result<(u64, Vec<f64>), String>> = std::thread::scope(|scope| {
        let one = || send(&server, &library, &block, blocks).map_err(|error| error.to_string());
        let senders: Vec<_> = (0..streams).map(|_stream| scope.spawn(one)).collect();
        let join = |sender: std::thread::ScopedJoinHandle<'_, _>| {
            sender.join().unwrap_or_else(|_panic| Err("a sender failed".to_owned()))
        };
        senders.into_iter().map(join).collect()
    });
    let seconds = began.elapsed().as_secs_f64();
    let (used, own) = (watch.end()?, cpu_seconds(std::process::id())? - own);
    let (mut written, mut rates) = (0, Vec::new());
    for outcome in outcomes {
        let (chunks, tenths) = outcome?;
        written += chunks;
        // Streams run side by side: the sum of their tenths is the whole's, about.
        rates.resize(tenths.len(), 0.0);
        rates.iter_mut().zip(tenths).for_each(|(sum, rate)| *sum += rate);
    }
    assert_eq!(written, (blocks * block.chunks * streams) as u64, "every chunk is written");
    let megabytes = (blocks * streams * block.lines.len()) as f64 / 1e6;
    println!(
        "{shape} chunks a document, {streams} streams: {written} chunks ({megabytes:.0} MB) in \
         {seconds:.1} s: {:.0} chunks/s ({:.0} MB/s); tenths: least {:.0}, middle {:.0}; \
         processor: server {:.1} s, client {own:.1} s; memory: middle {:.0} MB, most {:.0} MB; \
         load {}",
        written as f64 / seconds,
        megabytes / seconds,
        at(&rates, 0.0),
        median(&rates),
        used.cpu,
        median(&used.megabytes),
        at(&used.megabytes, 1.0),
        load()
    );
    Ok(())
}

/// Sends the block again and again; returns the chunks written and the rates of the tenths.
fn send(server: &Server, library: &str, block: &Block, blocks: usize) -> Outcome<(u64, Vec<f64>)> {
    let mut lines = server.lines(library)?;
    let mut rates = Vec::with_capacity(TENTHS);
    for tenth in 0..TENTHS {
        let (first, end) = (blocks * tenth / TENTHS, blocks * (tenth + 1) / TENTHS);
        let began = Instant::now();
        for _block in first..end {
            for piece in block.lines.chunks(SEND_BYTES) {
                lines.send(piece)?;
            }
        }
        let chunks = (end - first) * block.chunks;
        rates.push(chunks as f64 / began.elapsed().as_secs_f64());
    }
    let answer = lines.end()?.json()?;
    if answer["failed"] != 0 {
        return Err(format!("{} lines failed", answer["failed"]).into());
    }
    let chunks = answer["total_chunks"].as_u64().ok_or("no total_chunks")?;
    Ok((chunks, rates))
}

/// Lines that are ready to be sent.
struct Block {
    lines: Vec<u8>,
    chunks: usize,
}

impl Block {
    fn new(shape: usize) -> Self {
        let mut numbers = Numbers::new(1);
        let documents = BLOCK_CHUNKS.div_ceil(shape);
        let mut lines = String::new();
        for document in 0..documents {
            // Writing to a text does not fail.
            write!(lines, "{{\"title\":\"Document {document}\",\"chunks\":[").unwrap_or_default();
            for chunk in 0..shape {
                let comma = if chunk > 0 { "," } else { "" };
                let vector: Vec<String> =
                    numbers.unit(DIMENSION).iter().map(f32::to_string).collect();
                let vector = vector.join(",");
                write!(lines, "{comma}{{\"text\":\"{TEXT}\",\"embedding\":[{vector}]}}")
                    .unwrap_or_default();
            }
            lines.push_str("]}\n");
        }
        Self { lines: lines.into_bytes(), chunks: documents * shape }
    }
}
