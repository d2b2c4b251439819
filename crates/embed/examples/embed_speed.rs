//! How fast the local model is on this machine.
//!
//! `embed_speed DIR` prints passages of 128 tokens per second for both precisions, one and two
//! threads and several batch sizes, and the latency of a short query. DIR holds the model's
//! files. `embed_speed DIR serve` answers one measurement per line of its input, for a program
//! that pairs it with another engine's: see `bench/embedding.py`.
#![expect(clippy::print_stdout, reason = "printing figures is what it is for")]

use std::collections::HashMap;
use std::error::Error;
use std::io::BufRead;
use std::path::Path;
use std::time::{Duration, Instant};

use arrwdb_embed::local::{LocalModel, Precision};
use arrwdb_embed::model_files;

const TOKENS: usize = 128;
const BATCHES: [usize; 4] = [1, 8, 32, 64];
const QUERY: &str = "how do I rotate an api key";
const TEXT: &str = include_str!("../tests/golden/passages.jsonl");

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("usage: embed_speed DIR [serve]")?;
    let files = model_files::verify(Path::new(&dir))?;
    let mut models = HashMap::new();
    for (name, precision) in [("bf16", Precision::Bf16), ("f32", Precision::F32)] {
        for threads in [1, 2] {
            models.insert((name, threads), LocalModel::load(&files, precision, threads)?);
        }
    }
    let passages = passages(&models[&("f32", 1)])?;
    match arguments.next().as_deref() {
        Some("serve") => serve(&models, &passages),
        _ => report(&models, &passages),
    }
}

type Models<'a> = HashMap<(&'a str, usize), LocalModel>;

fn report(models: &Models<'_>, passages: &[String]) -> Result<(), Box<dyn Error>> {
    for name in ["bf16", "f32"] {
        for threads in [1, 2] {
            for batch in BATCHES {
                let texts = first(passages, batch);
                let runs = repeat(&models[&(name, threads)], &texts, Duration::from_secs(2))?;
                let rate = batch as f64 / median(&runs.times);
                println!("{name} {threads} threads, batches of {batch}: {rate:.1} passages/s");
            }
        }
        let runs = repeat(&models[&(name, 1)], &[QUERY], Duration::from_secs(2))?;
        println!("{name} a short query: {:.2} ms at the median", median(&runs.times) * 1e3);
    }
    Ok(())
}

/// Commands: `passages` (a JSON list), `PRECISION THREADS BATCH SECONDS` (a JSON object with the
/// median wall clock of a batch and the processor time per batch) and
/// `query PRECISION THREADS 1 SECONDS`.
fn serve(models: &Models<'_>, passages: &[String]) -> Result<(), Box<dyn Error>> {
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let (texts, words) = match words.as_slice() {
            ["passages"] => {
                println!("{}", serde_json::to_string(passages)?);
                continue;
            }
            ["query", words @ ..] => (vec![QUERY], words),
            words @ [_, _, batch, _] => (first(passages, batch.parse()?), words),
            _ => return Err("not a command".into()),
        };
        let [precision, threads, _, seconds] = words else { return Err("not a command".into()) };
        let model = models.get(&(*precision, threads.parse()?)).ok_or("no such model")?;
        let runs = repeat(model, &texts, Duration::from_secs_f64(seconds.parse()?))?;
        let cpu = runs.cpu / runs.times.len() as f64;
        println!("{}", serde_json::json!({ "wall_s": median(&runs.times), "cpu_s": cpu }));
    }
    Ok(())
}

fn first(passages: &[String], count: usize) -> Vec<&str> {
    passages.iter().map(String::as_str).cycle().take(count).collect()
}

/// What some runs took.
struct Runs {
    /// Seconds of each by the clock.
    times: Vec<f64>,
    /// Seconds of processor time of all of them.
    cpu: f64,
}

/// The runs that fit into `span`, three at least, after one to warm up that counts nowhere.
fn repeat(model: &LocalModel, texts: &[&str], span: Duration) -> Result<Runs, Box<dyn Error>> {
    model.embed(texts)?;
    let (start, cpu) = (Instant::now(), cpu_seconds()?);
    let mut times = Vec::new();
    while times.len() < 3 || start.elapsed() < span {
        let run = Instant::now();
        model.embed(texts)?;
        times.push(run.elapsed().as_secs_f64());
    }
    Ok(Runs { times, cpu: cpu_seconds()? - cpu })
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Processor time of this process, all threads, in steps of 10 ms; not a number elsewhere than
/// on Linux.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return Ok(f64::NAN) };
    let (_, fields) = stat.rsplit_once(')').ok_or("an odd /proc/self/stat")?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || {
        fields
            .next()
            .ok_or("an odd /proc/self/stat")?
            .parse::<f64>()
            .map_err(Box::<dyn Error>::from)
    };
    Ok((ticks()? + ticks()?) / 100.0)
}

/// 64 different passages of exactly [`TOKENS`] tokens, out of the test passages' plain words.
fn passages(model: &LocalModel) -> Result<Vec<String>, Box<dyn Error>> {
    let sentences: Vec<String> =
        TEXT.lines().take(20).map(serde_json::from_str).collect::<Result<_, _>>()?;
    let words: Vec<&str> = sentences.iter().flat_map(|text| text.split_whitespace()).collect();
    let mut passages = Vec::new();
    let mut start = 0;
    while passages.len() < 64 {
        let mut passage = String::new();
        for word in words.iter().cycle().skip(start).take(TOKENS) {
            let longer = format!("{passage} {word}");
            match model.count_tokens(&longer)?.cmp(&TOKENS) {
                std::cmp::Ordering::Greater => break,
                std::cmp::Ordering::Less | std::cmp::Ordering::Equal => passage = longer,
            }
        }
        if model.count_tokens(&passage)? == TOKENS {
            passages.push(passage);
        }
        start = (start + 1) % words.len();
    }
    Ok(passages)
}
