//! Background jobs: how fast they are submitted, worked on, and what an import costs beside the
//! bare model.
//!
//! `cargo xtask bench jobs -- [process|http|execution|import] [JOBS] [MODEL_DIR] [THREADS]`
//!
//! Every submission that counts was answered, and so durable; every execution was told of as over.
#![expect(clippy::print_stdout, reason = "printing figures is what it is for")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrwdb_bench::Outcome;
use arrwdb_bench::figures::{Numbers, at, load, median};
use arrwdb_bench::server::{Connection, Server, cpu_seconds, post, program};
use arrwdb_embed::deterministic::DeterministicProvider;
use arrwdb_embed::http::{HttpOptions, http_client};
use arrwdb_embed::local::{LocalModel, Precision, TOKENS_PER_STEP};
use arrwdb_embed::{EmbedConfig, EmbedParts, Embedder, LocalSource, TokioTimer, model_files};
use arrwdb_engine::state::{JobKind, JobPriority, TenantId, Timestamp};
use arrwdb_engine::{Engine, EngineConfig, EngineParts, NewJob};
use serde_json::{Value, json};

/// Who submits in the process, each waiting for its last one.
const SUBMITTERS: usize = 2048;
const CLIENTS: usize = 64;
/// As many as the server works on at a time unless told.
const WORKERS: &str = "4";
/// Turns that the bare model and the import take.
const ROUNDS: usize = 3;
/// No job is taken before.
const FAR: &str = "2999-01-01T00:00:00Z";
const DIMENSION: usize = 384;
/// Texts of one call, and bytes of a token, as in the server.
const CALL_TEXTS: usize = 64;
const TOKEN_BYTES: usize = 4;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_else(|| "all".to_owned());
    let jobs: usize = arguments.next().map_or(Ok(20_000), |text| text.parse())?;
    let home = std::env::var("HOME").unwrap_or_default();
    let usual = model_files::default_dir(&Path::new(&home).join(".cache"));
    let dir = arguments.next().map_or(usual, Into::into);
    let threads: usize = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let wanted = |name: &str| what == "all" || what == name;
    if wanted("process") {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(in_process(jobs))?;
    }
    if wanted("http") {
        over_http(jobs)?;
    }
    if wanted("execution") {
        execution(jobs)?;
    }
    if wanted("import") {
        import(&dir, threads)?;
    }
    Ok(())
}

/// Submissions in the process: nobody works on them.
async fn in_process(jobs: usize) -> Outcome<()> {
    let dir = tempfile::TempDir::new()?;
    let parts = EmbedParts {
        local: LocalSource::Custom(Arc::new(DeterministicProvider)),
        http: http_client(&HttpOptions::default())?,
        timer: Arc::new(TokioTimer::new()),
        random: Arc::new(|| 7),
    };
    let embedder = Embedder::open(EmbedConfig::default(), parts).await?;
    let config = EngineConfig::new(dir.path().to_owned());
    let engine = Engine::open(config, EngineParts::system(embedder)).await?;
    let left = Arc::new(AtomicUsize::new(jobs));
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _submitter in 0..SUBMITTERS.min(jobs) {
        let (engine, left) = (engine.clone(), left.clone());
        tasks.spawn(async move {
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok()
            {
                engine.submit_job(TenantId::DEFAULT, new_job(&engine)).await?;
            }
            Ok::<_, arrwdb_engine::EngineError>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let rate = jobs as f64 / began.elapsed().as_secs_f64();
    println!("in the process, {SUBMITTERS} at a time: {rate:.0} submissions/s; load {}", load());
    engine.close().await?;
    Ok(())
}

fn new_job(engine: &Engine) -> NewJob {
    NewJob {
        id: engine.new_job_id(),
        library: None,
        kind: JobKind::BatchDelete,
        priority: JobPriority::Normal,
        parameters: r#"{"document_ids":["0191f4a2-7c3e-7abc-8def-0123456789ab"]}"#.into(),
        input: None,
        retries_max: 3,
        run_at: Some(Timestamp::from_micros(i64::MAX)),
        run_of: None,
    }
}

fn start() -> Outcome<Server> {
    let settings = [
        ("EMBEDDING_PROVIDER", "cohere"),
        ("COHERE_API_KEY", "unused"),
        ("LOG_LEVEL", "WARNING"),
        ("MAX_CONCURRENT_REQUESTS", "1000"),
        ("JOB_QUEUE_MAX_WORKERS", WORKERS),
    ];
    Server::start(&program()?, None, &settings)
}

/// Submits jobs from many clients at a time; the milliseconds that each took.
fn submit(server: &Server, bodies: &[String]) -> Outcome<Vec<f64>> {
    let outcomes: Vec<Result<Vec<f64>, String>> = std::thread::scope(|scope| {
        let each = bodies.len().div_ceil(CLIENTS).max(1);
        let start = |bodies| {
            scope.spawn(move || client(server.address(), bodies).map_err(|error| error.to_string()))
        };
        let threads: Vec<_> = bodies.chunks(each).map(start).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_panic| Err("a client failed".to_owned()))
        };
        threads.into_iter().map(join).collect()
    });
    let mut times = Vec::new();
    for outcome in outcomes {
        times.extend(outcome?);
    }
    Ok(times)
}

fn client(address: &str, bodies: &[String]) -> Outcome<Vec<f64>> {
    let mut connection = Connection::open(address)?;
    let mut times = Vec::new();
    for body in bodies {
        let began = Instant::now();
        connection.send(&post(address, "/v1/jobs/batch-delete", body))?.json()?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

fn over_http(jobs: usize) -> Outcome<()> {
    let server = start()?;
    let body = json!({"document_ids": ["0191f4a2-7c3e-7abc-8def-0123456789ab"], "run_at": FAR});
    let bodies = vec![body.to_string(); jobs];
    let began = Instant::now();
    let times = submit(&server, &bodies)?;
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    println!(
        "over HTTP, {CLIENTS} clients: {rate:.0} submissions/s; p50 {:.2} ms, p99 {:.2} ms; load {}",
        at(&times, 0.5),
        at(&times, 0.99),
        load()
    );
    server.stop()
}

/// Jobs that delete one document each, which all become due at one time.
fn execution(jobs: usize) -> Outcome<()> {
    let server = start()?;
    let library = server.create_library(2)?;
    let id = |n: usize| format!("0191f4a2-7c3e-7abc-8def-{n:012x}");
    let mut lines = server.lines(&library)?;
    for n in 0..jobs {
        let chunks = json!([{"text": "x", "embedding": [1, n]}]);
        let line = json!({"id": id(n), "title": "t", "chunks": chunks});
        lines.send(format!("{line}\n").as_bytes())?;
    }
    lines.end()?.json()?;
    // Long enough to submit them all.
    let wait = Duration::from_secs(10 + jobs as u64 / 1000);
    let due = std::time::SystemTime::now() + wait;
    let due = due.duration_since(std::time::UNIX_EPOCH)?.as_micros();
    let run_at = Timestamp::from_micros(i64::try_from(due)?);
    let bodies: Vec<String> = (0..jobs)
        .map(|n| json!({"document_ids": [id(n)], "run_at": rfc3339(run_at)}).to_string())
        .collect();
    submit(&server, &bodies)?;
    let left = |name: &str| -> Outcome<usize> {
        let stats = server.request("GET", "/v1/jobs/stats/queue", b"")?.json()?;
        Ok(stats[name].as_u64().and_then(|n| usize::try_from(n).ok()).ok_or("no figure")?)
    };
    if left("pending_jobs")? != jobs {
        return Err("they were due before all of them were submitted: ask for fewer".into());
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_micros();
    std::thread::sleep(Duration::from_micros(u64::try_from(due.saturating_sub(now))?));
    let (began, cpu) = (Instant::now(), cpu_seconds(server.pid())?);
    while left("pending_jobs")? + left("running_jobs")? > 0 {
        std::thread::sleep(Duration::from_millis(50));
    }
    let (taken, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds(server.pid())? - cpu);
    let answer = server.request("GET", &format!("/v1/libraries/{library}/statistics"), b"")?;
    if answer.json()?["num_documents"] != 0 {
        return Err("not everything was deleted".into());
    }
    println!(
        "one document each, {WORKERS} workers: {:.0} executions/s; {:.0} us of processor time \
         each; load {}",
        jobs as f64 / taken,
        cpu * 1e6 / jobs as f64,
        load()
    );
    server.stop()
}

fn rfc3339(time: Timestamp) -> String {
    // Civil from days (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let micros = time.micros();
    let (days, of_day) = (micros.div_euclid(86_400_000_000), micros.rem_euclid(86_400_000_000));
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let years = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * years + years / 4 - years / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = years + era * 400 + i64::from(month <= 2);
    let seconds = of_day / 1_000_000;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        of_day % 1_000_000
    )
}

/// An import of short documents with the local model, in turns with the bare model on as many.
fn import(dir: &Path, threads: usize) -> Outcome<()> {
    let model = LocalModel::load(&model_files::verify(dir)?, Precision::Auto, threads)?;
    let name = dir.to_str().ok_or("an odd path")?;
    let threads_text = threads.to_string();
    let settings = [
        ("EMBEDDING_PROVIDER", "local"),
        ("MODEL_DIR", name),
        ("LOG_LEVEL", "WARNING"),
        ("EMBEDDING_THREADS", &*threads_text),
    ];
    let server = Server::start(&program()?, None, &settings)?;
    let library = server.create_library(DIMENSION)?;
    let mut words = Words(Numbers::new(3));
    let mut ratios = (Vec::new(), Vec::new());
    for _round in 0..ROUNDS {
        let bare: Vec<String> = (0..2000).map(|_| words.passage()).collect();
        let bare = measure(std::process::id(), bare.len(), || embed(&model, &bare, threads))?;
        let passages: Vec<String> = (0..2000).map(|_| words.passage()).collect();
        let served =
            measure(server.pid(), passages.len(), || import_once(&server, &library, &passages))?;
        println!(
            "bare {:.1}/s, {:.1} a second of processor time; import {:.1}/s, {:.1}",
            bare.0, bare.1, served.0, served.1
        );
        ratios.0.push(served.0 / bare.0);
        ratios.1.push(served.1 / bare.1);
    }
    println!(
        "an import beside the bare model: {:.3} of its rate, {:.3} of its rate by processor time; \
         load {}",
        median(&ratios.0),
        median(&ratios.1),
        load()
    );
    server.stop()
}

/// Passages a second, by the clock and by a process's processor time.
fn measure(process: u32, count: usize, work: impl FnOnce() -> Outcome<()>) -> Outcome<(f64, f64)> {
    let (cpu, began) = (cpu_seconds(process)?, Instant::now());
    work()?;
    let seconds = began.elapsed().as_secs_f64();
    Ok((count as f64 / seconds, count as f64 / (cpu_seconds(process)? - cpu)))
}

fn embed(model: &LocalModel, passages: &[String], threads: usize) -> Outcome<()> {
    let mut rest = passages;
    while !rest.is_empty() {
        let mut room = TOKENS_PER_STEP * threads * TOKEN_BYTES;
        let mut count = 0;
        for text in rest.iter().take(CALL_TEXTS) {
            if text.len() > room && count > 0 {
                break;
            }
            room = room.saturating_sub(text.len());
            count += 1;
        }
        let (now, later) = rest.split_at(count);
        let call: Vec<&str> = now.iter().map(String::as_str).collect();
        model.embed(&call)?;
        rest = later;
    }
    Ok(())
}

fn import_once(server: &Server, library: &str, passages: &[String]) -> Outcome<()> {
    let documents: Vec<Value> =
        passages.iter().map(|text| json!({"title": "t", "texts": [text]})).collect();
    let body = json!({"library_id": library, "documents": documents}).to_string();
    let answer = server.request("POST", "/v1/jobs/batch-import", body.as_bytes())?.json()?;
    let path = format!("/v1/jobs/{}?wait_seconds=60", answer["job_id"].as_str().ok_or("no id")?);
    loop {
        let job = server.request("GET", &path, b"")?.json()?;
        match job["status"].as_str() {
            Some("pending" | "running") => {}
            Some("completed") if job["result"]["imported"] == passages.len() => return Ok(()),
            _ => return Err(format!("the import went wrong: {job}").into()),
        }
    }
}

/// Passages of words, none of which comes twice.
struct Words(Numbers);

impl Words {
    fn passage(&mut self) -> String {
        let word = |numbers: &mut Numbers| {
            let letters = numbers.unit(5);
            letters.iter().map(|n| if *n < 0.0 { "ka" } else { "ri" }).collect::<String>()
        };
        let mut text: Vec<String> = (0..20).map(|_| word(&mut self.0)).collect();
        text.push(self.0.number().to_bits().to_string());
        text.join(" ")
    }
}
