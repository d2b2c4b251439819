//! Durable writes: one document with one vector per request, each answered after its sync.
//!
//! `cargo xtask bench durable -- [SECONDS] [DIRECTORY]`
//!
//! Side by side, round by round: the server as it is, the same server on a disk whose syncs do
//! nothing (`crates/server/examples/serve_unsynced.rs`, built for this alone), and a bare loop that
//! writes as many records of the same size as there are clients and syncs them with one
//! `fdatasync`. Clients are threads with a connection each that send the next request when the last
//! is answered. Client and server share the machine.
#![expect(clippy::print_stdout, reason = "printing figures is what it is for")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arrwdb_bench::Outcome;
use arrwdb_bench::figures::{Numbers, at, load, median};
use arrwdb_bench::server::{Connection, Server, post, program};

const DIMENSION: usize = 384;
const CLIENTS: [usize; 3] = [1, 8, 64];
const ROUNDS: usize = 3;
/// A record of one document with one such vector, as the log has it: measured, see below.
const RECORD_BYTES: usize = 2048;
/// The bare loop's file is allocated in steps, as the log's is.
const FILE_BYTES: u64 = 256 << 20;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let seconds: f64 = arguments.next().map_or(Ok(4.0), |text| text.parse())?;
    let directory = arguments.next().map(PathBuf::from);
    let directory = directory.as_deref();
    let settings = [
        ("EMBEDDING_PROVIDER", "cohere"),
        ("COHERE_API_KEY", "unused"),
        ("LOG_LEVEL", "WARNING"),
        ("MAX_CONCURRENT_REQUESTS", "1000"),
    ];
    let synced = Server::start(&program()?, directory, &settings)?;
    let unsynced = Server::start(&unsynced_program()?, directory, &settings)?;
    for clients in CLIENTS {
        let mut table: [Vec<Run>; 2] = [Vec::new(), Vec::new()];
        let mut bare = Vec::new();
        for _round in 0..ROUNDS {
            for (server, runs) in [&synced, &unsynced].into_iter().zip(&mut table) {
                runs.push(run(server, clients, seconds)?);
            }
            bare.push(bare_loop(directory, clients, seconds / 2.0)?);
        }
        let [synced, unsynced] = table;
        let rate = |runs: &[Run]| median(&runs.iter().map(|run| run.rate).collect::<Vec<_>>());
        let (ours, without, bare) = (rate(&synced), rate(&unsynced), median(&bare));
        println!(
            "{clients} clients: {ours:.0} writes/s; without syncs {without:.0}/s; bare loop \
             {bare:.0} records/s; {:.2} of the lower; group {:.1} records; p50 {:.2} ms, p99 {:.2} \
             ms (without syncs {:.2}, {:.2}); load {}",
            ours / without.min(bare),
            median(&synced.iter().map(|run| run.group).collect::<Vec<_>>()),
            median(&synced.iter().map(|run| run.p50).collect::<Vec<_>>()),
            median(&synced.iter().map(|run| run.p99).collect::<Vec<_>>()),
            median(&unsynced.iter().map(|run| run.p50).collect::<Vec<_>>()),
            median(&unsynced.iter().map(|run| run.p99).collect::<Vec<_>>()),
            load()
        );
    }
    Ok(())
}

/// The server whose disk does not sync: the example beside this program.
fn unsynced_program() -> Outcome<PathBuf> {
    match std::env::var_os("ARRWDB_UNSYNCED") {
        Some(path) => Ok(PathBuf::from(path)),
        None => Ok(program()?.with_file_name("examples").join("serve_unsynced")),
    }
}

struct Run {
    rate: f64,
    /// Records per sync.
    group: f64,
    /// Milliseconds.
    p50: f64,
    p99: f64,
}

fn run(server: &Server, clients: usize, seconds: f64) -> Outcome<Run> {
    let library = server.create_library(DIMENSION)?;
    let before = (metric(server, "records")?, metric(server, "syncs")?);
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let began = Instant::now();
    let outcomes: Vec<Result<Vec<f64>, String>> = std::thread::scope(|scope| {
        let start = |seed: usize| {
            let (address, library) = (server.address(), &library);
            scope.spawn(move || {
                client(address, library, seed as u64, until).map_err(|error| error.to_string())
            })
        };
        let threads: Vec<_> = (0..clients).map(start).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_panic| Err("a client failed".to_owned()))
        };
        threads.into_iter().map(join).collect()
    });
    let taken = began.elapsed().as_secs_f64();
    let mut times = Vec::new();
    for outcome in outcomes {
        times.extend(outcome?);
    }
    let after = (metric(server, "records")?, metric(server, "syncs")?);
    Ok(Run {
        rate: times.len() as f64 / taken,
        group: (after.0 - before.0) / (after.1 - before.1).max(1.0),
        p50: at(&times, 0.5),
        p99: at(&times, 0.99),
    })
}

fn metric(server: &Server, name: &str) -> Outcome<f64> {
    server.metric(&format!("arrwdb_log_{name}_total"))
}

/// Sends one document after the other; the milliseconds that each took.
fn client(address: &str, library: &str, seed: u64, until: Instant) -> Outcome<Vec<f64>> {
    let request = request(address, library, seed);
    let mut connection = Connection::open(address)?;
    let mut times = Vec::new();
    while Instant::now() < until {
        let began = Instant::now();
        let answer = connection.send(&request)?;
        if answer.status != 201 {
            return Err(format!("answered {}", answer.status).into());
        }
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

fn request(address: &str, library: &str, seed: u64) -> Vec<u8> {
    let vector: Vec<String> =
        Numbers::new(seed).unit(DIMENSION).iter().map(f32::to_string).collect();
    let vector = vector.join(",");
    let body = format!(
        "{{\"title\":\"t\",\"chunks\":[{{\"text\":\"A passage of a few words.\",\
         \"embedding\":[{vector}]}}]}}"
    );
    let path =
        format!("/v1/libraries/{library}/documents/with-embeddings?include_embeddings=false");
    post(address, &path, &body)
}

/// Records a second of a loop that writes one for each client and syncs.
fn bare_loop(directory: Option<&Path>, clients: usize, seconds: f64) -> Outcome<f64> {
    let dir = match directory {
        Some(parent) => tempfile::TempDir::new_in(parent)?,
        None => tempfile::TempDir::new()?,
    };
    let file = File::create_new(dir.path().join("records"))?;
    file.set_len(FILE_BYTES)?;
    let zeros = vec![0; 1 << 20];
    for at in (0..FILE_BYTES).step_by(1 << 20) {
        file.write_all_at(&zeros, at)?;
    }
    file.sync_all()?;
    let group = vec![7_u8; RECORD_BYTES * clients];
    let (mut at, mut records) = (0_u64, 0_u64);
    let began = Instant::now();
    while began.elapsed().as_secs_f64() < seconds {
        file.write_all_at(&group, at)?;
        file.sync_data()?;
        records += clients as u64;
        at = (at + group.len() as u64) % (FILE_BYTES - group.len() as u64);
    }
    Ok(records as f64 / began.elapsed().as_secs_f64())
}
