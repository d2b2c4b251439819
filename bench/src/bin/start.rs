//! How long a start takes, and what it costs.
//!
//! ```text
//! cargo xtask bench start -- large [CHUNKS] [DIRECTORY]       one library of many chunks
//! cargo xtask bench start -- many [LIBRARIES] [DIRECTORY]     many libraries of 100 chunks
//! cargo xtask bench start -- replay [RECORDS] [DIRECTORY]     a log of small records after a kill
//! ```
#![expect(clippy::print_stdout, reason = "printing figures is what it is for")]

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use arrwdb_bench::Outcome;
use arrwdb_bench::figures::{Numbers, at, load, median};
use arrwdb_bench::server::{Server, program};
use serde_json::{Value, json};

const DIMENSION: usize = 384;
const SETTINGS: &[(&str, &str)] = &[("EMBEDDING_PROVIDER", "cohere"), ("COHERE_API_KEY", "unused")];
/// Chunks of each of many libraries.
const SMALL: usize = 100;
/// Closed libraries whose first search is timed.
const OPENED: usize = 50;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_else(|| "large".to_owned());
    let count = arguments.next().map(|text| text.parse::<usize>()).transpose()?;
    let dir = match arguments.next() {
        Some(parent) => tempfile::TempDir::new_in(parent)?,
        None => tempfile::TempDir::new()?,
    };
    match what.as_str() {
        "large" => large(count.unwrap_or(1_000_000), dir.path()),
        "many" => many(count.unwrap_or(10_000), dir.path()),
        "replay" => replay(count.unwrap_or(200_000), dir.path()),
        other => Err(format!("no bench {other}: large, many or replay").into()),
    }
}

/// Starts the server on what is there; with the seconds until it was ready.
fn start(dir: &Path, settings: &[(&str, &str)]) -> Outcome<(Server, f64)> {
    let began = Instant::now();
    let server = Server::start_in(&program()?, dir, settings)?;
    Ok((server, began.elapsed().as_secs_f64()))
}

fn vector(seed: u64) -> String {
    let numbers = Numbers::new(seed).unit(DIMENSION);
    numbers.iter().map(f32::to_string).collect::<Vec<_>>().join(",")
}

fn large(chunks: usize, dir: &Path) -> Outcome<()> {
    let (server, _empty) = start(dir, SETTINGS)?;
    let library = server.create_library(DIMENSION)?;
    let mut lines = server.lines(&library)?;
    for first in (0..chunks).step_by(SMALL) {
        let mut line = format!("{{\"title\":\"{first}\",\"chunks\":[");
        for chunk in first..(first + SMALL).min(chunks) {
            let comma = if chunk > first { "," } else { "" };
            // Writing to a text does not fail.
            write!(
                line,
                "{comma}{{\"text\":\"{chunk}\",\"embedding\":[{}]}}",
                vector(chunk as u64)
            )
            .unwrap_or_default();
        }
        line.push_str("]}\n");
        lines.send(line.as_bytes())?;
    }
    lines.end()?.json()?;
    server.stop()?;
    let wanted = chunks / 2;
    for _round in 0..3 {
        let (server, ready) = start(dir, SETTINGS)?;
        let memory = server.megabytes()?;
        let began = Instant::now();
        let found = search(&server, &library, wanted as u64)?;
        let first = began.elapsed().as_secs_f64();
        let began = Instant::now();
        search(&server, &library, wanted as u64 + 1)?;
        let second = began.elapsed().as_secs_f64();
        println!(
            "{chunks} chunks of {DIMENSION}: ready after {ready:.2} s with {memory:.0} MB; first \
             search {first:.2} s ({}), second {:.0} ms, then {:.0} MB; load {}",
            if found == wanted.to_string() { "right" } else { "WRONG" },
            second * 1e3,
            server.megabytes()?,
            load()
        );
        server.stop()?;
    }
    Ok(())
}

/// The text of the chunk nearest to the vector of this seed.
fn search(server: &Server, library: &str, seed: u64) -> Outcome<String> {
    let body = format!("{{\"embedding\":[{}],\"k\":1}}", vector(seed));
    let path = format!("/v1/libraries/{library}/search/embedding");
    let answer: Value = server.request("POST", &path, body.as_bytes())?.json()?;
    let text = answer["results"][0]["chunk"]["text"].as_str();
    Ok(text.ok_or_else(|| format!("nothing found: {answer}"))?.to_owned())
}

fn many(count: usize, dir: &Path) -> Outcome<()> {
    let mut settings = SETTINGS.to_vec();
    settings.push(("LIBRARY_IDLE_SECONDS", "5"));
    let (server, _empty) = start(dir, &settings)?;
    let mut libraries = Vec::with_capacity(count);
    let began = Instant::now();
    for nth in 0..count {
        let library = server.create_library(DIMENSION)?;
        let chunks: Vec<String> = (0..SMALL)
            .map(|chunk| {
                let seed = (nth * SMALL + chunk) as u64;
                format!("{{\"text\":\"{seed}\",\"embedding\":[{}]}}", vector(seed))
            })
            .collect();
        let body = format!("{{\"title\":\"{nth}\",\"chunks\":[{}]}}", chunks.join(","));
        let path = format!("/v1/libraries/{library}/documents/with-embeddings");
        server.request("POST", &path, body.as_bytes())?.json()?;
        libraries.push(library);
    }
    println!("{count} libraries made in {:.1} s", began.elapsed().as_secs_f64());
    let open_memory = server.megabytes()?;
    let began = Instant::now();
    while server.metric("arrwdb_libraries_open")? > 0.0 {
        std::thread::sleep(Duration::from_secs(1));
    }
    println!(
        "all written and closed {:.0} s later; memory {open_memory:.0} MB, then {:.0} MB",
        began.elapsed().as_secs_f64(),
        server.megabytes()?
    );
    server.stop()?;
    let empty = empty_megabytes()?;
    for _round in 0..3 {
        let (server, ready) = start(dir, SETTINGS)?;
        let memory = server.megabytes()?;
        let mut times = Vec::new();
        for nth in (0..count).step_by((count / OPENED).max(1)) {
            let seed = (nth * SMALL + SMALL / 2) as u64;
            let library = libraries.get(nth).ok_or("no such library")?;
            let began = Instant::now();
            let found = search(&server, library, seed)?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
            if found != seed.to_string() {
                return Err(format!("library {nth} found {found}, not {seed}").into());
            }
        }
        println!(
            "{count} libraries: ready after {ready:.2} s with {memory:.0} MB, {:.1} KB for each \
             closed one; first search of a closed one {:.1} ms (most {:.1}); load {}",
            (memory - empty) * 1e3 / count as f64,
            median(&times),
            at(&times, 1.0),
            load()
        );
        server.stop()?;
    }
    Ok(())
}

/// What a server without libraries takes.
fn empty_megabytes() -> Outcome<f64> {
    let dir = tempfile::TempDir::new()?;
    let (server, _ready) = start(dir.path(), SETTINGS)?;
    let memory = server.megabytes()?;
    server.stop()?;
    Ok(memory)
}

fn replay(records: usize, dir: &Path) -> Outcome<()> {
    let mut settings = SETTINGS.to_vec();
    // Nothing is checkpointed, so that everything is replayed.
    settings.push(("CHECKPOINT_BYTES", "1099511627776"));
    let (server, _empty) = start(dir, &settings)?;
    let clients = 16;
    let body = json!({"name": "small", "embedding_dimension": 4}).to_string();
    let made = server.request("POST", "/v1/libraries", body.as_bytes())?.json()?;
    let library = made["id"].as_str().ok_or("no id")?.to_owned();
    let outcomes: Vec<Result<(), String>> = std::thread::scope(|scope| {
        let write = |client: usize| {
            let (server, library) = (&server, &library);
            scope.spawn(move || {
                small_writes(server, library, client, records / clients)
                    .map_err(|error| error.to_string())
            })
        };
        let threads: Vec<_> = (0..clients).map(write).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_panic| Err("a client failed".to_owned()))
        };
        threads.into_iter().map(join).collect()
    });
    outcomes.into_iter().collect::<Result<Vec<()>, _>>()?;
    // Killed, not stopped: a stop would write a checkpoint.
    drop(server);
    for _round in 0..3 {
        let (server, ready) = start(dir, &settings)?;
        let log = server.log()?;
        let line = log.lines().find(|line| line.contains("replayed the log"));
        println!(
            "ready after {ready:.2} s; {}; load {}",
            line.unwrap_or("nothing replayed"),
            load()
        );
    }
    Ok(())
}

/// Documents of one chunk with four numbers, one record each.
fn small_writes(server: &Server, library: &str, client: usize, count: usize) -> Outcome<()> {
    use std::io::{BufRead, BufReader, Read, Write};
    let socket = std::net::TcpStream::connect(server.address())?;
    socket.set_nodelay(true)?;
    let (mut writer, mut reader) = (socket.try_clone()?, BufReader::new(socket));
    let mut line = String::new();
    for nth in 0..count {
        let body = format!(
            "{{\"title\":\"t\",\"chunks\":[{{\"text\":\"{client} {nth}\",\
             \"embedding\":[1,2,3,{}]}}]}}",
            nth + 1
        );
        write!(
            writer,
            "POST /v1/libraries/{library}/documents/with-embeddings HTTP/1.1\r\nHost: {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            server.address(),
            body.len()
        )?;
        let mut length = 0;
        line.clear();
        reader.read_line(&mut line)?;
        if !line.starts_with("HTTP/1.1 201") {
            return Err(format!("answered {line}").into());
        }
        while line.trim_end() != "" {
            line.clear();
            reader.read_line(&mut line)?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = value.trim_end().parse()?;
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
    }
    Ok(())
}
