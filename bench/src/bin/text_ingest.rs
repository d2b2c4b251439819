//! Ingest of text with the local model, end to end, against the bare model on the same passages.
//!
//! `cargo xtask bench text_ingest -- PASSAGES.jsonl [SECONDS] [MODEL_DIR] [THREADS]`
//!
//! Each line of the file has `title` and `text`. In turns, so that a noisy neighbour disturbs both
//! alike: the bare model embeds passages in calls of 512 tokens for each thread, as the server
//! does; then the server takes the same number of passages as NDJSON, each one a document of one
//! chunk, until all are durable. No text comes twice, so the cache of vectors never helps.
#![expect(clippy::print_stdout, reason = "printing figures is what it is for")]

use std::fmt;
use std::path::Path;
use std::time::Instant;

use arrwdb_bench::Outcome;
use arrwdb_bench::figures::{load, median};
use arrwdb_bench::server::{Server, cpu_seconds, program};
use arrwdb_embed::local::{LocalModel, Precision, TOKENS_PER_STEP};
use arrwdb_embed::model_files;
use serde_json::{Value, json};

const DIMENSION: usize = 384;
/// Turns that each contestant takes.
const ROUNDS: usize = 5;
/// Texts of one call, as in the server.
const CALL_TEXTS: usize = 64;
/// Bytes of one token, as the server estimates it.
const TOKEN_BYTES: usize = 4;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let path =
        arguments.next().ok_or("text_ingest PASSAGES.jsonl [SECONDS] [MODEL_DIR] [THREADS]")?;
    let seconds: f64 = arguments.next().map_or(Ok(60.0), |text| text.parse())?;
    let home = std::env::var("HOME").unwrap_or_default();
    let usual = model_files::default_dir(&Path::new(&home).join(".cache"));
    let dir = arguments.next().map_or(usual, Into::into);
    let threads: usize = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let model = LocalModel::load(&model_files::verify(&dir)?, Precision::Auto, threads)?;
    let passages = read_passages(&path)?;
    let dir = dir.to_str().ok_or("an odd path")?;
    let server =
        Server::start(&program()?, None, &[("EMBEDDING_PROVIDER", "local"), ("MODEL_DIR", dir)])?;
    let library = server.create_library(DIMENSION)?;
    let each = seconds / (2 * ROUNDS) as f64;
    let mut rest = passages.as_slice();
    let mut rounds = Vec::new();
    println!("{threads} thread(s), {:?}, load {}", model.precision(), load());
    for _round in 0..ROUNDS {
        let (own, mut count) = (std::process::id(), 0);
        let bare = measure(own, || {
            count = embed(&model, rest, each, threads)?;
            Ok(count)
        })?;
        let (now, later) = rest.split_at(count);
        let served = measure(server.pid(), || send(&server, &library, now).map(|()| count))?;
        println!(
            "{count} passages: bare {bare}; served {served}; ratio {:.3}, of processor time {:.3}",
            served.rate / bare.rate,
            served.cpu_rate / bare.cpu_rate
        );
        rounds.push((bare, served));
        rest = later;
    }
    let middle = |figure: &dyn Fn(&(Rate, Rate)) -> f64| {
        median(&rounds.iter().map(figure).collect::<Vec<_>>())
    };
    println!(
        "median: bare {:.1}/s, served {:.1}/s, ratio {:.3}; passages per second of processor \
         time: bare {:.1}, served {:.1}, ratio {:.3}; load {}",
        middle(&|(bare, _)| bare.rate),
        middle(&|(_, served)| served.rate),
        middle(&|(bare, served)| served.rate / bare.rate),
        middle(&|(bare, _)| bare.cpu_rate),
        middle(&|(_, served)| served.cpu_rate),
        middle(&|(bare, served)| served.cpu_rate / bare.cpu_rate),
        load()
    );
    Ok(())
}

/// Passages per second, by the clock and of a process's processor time. On a busy machine the
/// latter is the fairer one.
#[derive(Debug, Clone, Copy)]
struct Rate {
    rate: f64,
    cpu_rate: f64,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate, cpu_rate } = self;
        write!(f, "{rate:.1}/s on {:.2} processors", rate / cpu_rate)
    }
}

/// The rate of `work`, which returns how many passages it was.
fn measure(process: u32, work: impl FnOnce() -> Outcome<usize>) -> Outcome<Rate> {
    let (cpu, began) = (cpu_seconds(process)?, Instant::now());
    let count = work()? as f64;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Rate { rate: count / seconds, cpu_rate: count / (cpu_seconds(process)? - cpu) })
}

fn read_passages(path: &str) -> Outcome<Vec<(String, String)>> {
    let read = |line: &str| -> Outcome<(String, String)> {
        let value: Value = serde_json::from_str(line)?;
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        Ok((text("title").unwrap_or_default(), text("text").ok_or("a line without text")?))
    };
    std::fs::read_to_string(path)?.lines().map(read).collect()
}

/// Embeds passages for so many seconds; returns how many.
fn embed(
    model: &LocalModel,
    passages: &[(String, String)],
    seconds: f64,
    threads: usize,
) -> Outcome<usize> {
    let began = Instant::now();
    let mut done = 0;
    while done < passages.len() && began.elapsed().as_secs_f64() < seconds {
        let mut call: Vec<&str> = Vec::new();
        let mut room = TOKENS_PER_STEP * threads * TOKEN_BYTES;
        for (_title, text) in passages[done..].iter().take(CALL_TEXTS) {
            if text.len() > room && !call.is_empty() {
                break;
            }
            room = room.saturating_sub(text.len());
            call.push(text);
        }
        model.embed(&call)?;
        done += call.len();
    }
    Ok(done)
}

fn send(server: &Server, library: &str, passages: &[(String, String)]) -> Outcome<()> {
    let mut lines = server.lines(library)?;
    for (title, text) in passages {
        let line = json!({"title": title, "texts": [text]});
        lines.send(format!("{line}\n").as_bytes())?;
    }
    let answer = lines.end()?.json()?;
    if answer["total_chunks"] != passages.len() {
        return Err(format!("{} of {} chunks", answer["total_chunks"], passages.len()).into());
    }
    Ok(())
}
