//! The change feed: deliveries in the process, from durable to delivered, over server-sent events,
//! and what those who do not read cost.
//!
//! `cargo xtask bench feed -- [deliveries|latency|sse|idle|stalled] [SECONDS]`
//!
//! Every event counted is one of a write that was durable and applied, counted where it is received.
#![expect(clippy::print_stdout, reason = "printing figures is what it is for")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrwdb_bench::Outcome;
use arrwdb_bench::figures::{at, load};
use arrwdb_bench::server::{Connection, Server, post, program};
use arrwdb_embed::deterministic::DeterministicProvider;
use arrwdb_embed::http::{HttpOptions, http_client};
use arrwdb_embed::{EmbedConfig, EmbedParts, Embedder, LocalSource, TokioTimer};
use arrwdb_engine::state::{Custom, IndexSpec, Language, LibraryId, Metric, TenantId};
use arrwdb_engine::{
    Content, Engine, EngineConfig, EngineParts, NewLibrary, PutChunk, PutDocument,
};
use arrwdb_feed::{Feed, FeedConfig, Filter, Position};

const TENANT: TenantId = TenantId::DEFAULT;
const SUBSCRIBERS: usize = 10;
const SSE_SUBSCRIBERS: usize = 100;
const IDLE_SUBSCRIBERS: usize = 5000;
const STALLED_SUBSCRIBERS: usize = 1000;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_else(|| "all".to_owned());
    let whole_seconds: u32 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let seconds = f64::from(whole_seconds);
    let wanted = |name: &str| what == "all" || what == name;
    if wanted("deliveries") {
        runtime()?.block_on(deliveries(seconds))?;
    }
    if wanted("latency") {
        runtime()?.block_on(latency(seconds))?;
    }
    if wanted("stalled") {
        runtime()?.block_on(stalled(seconds))?;
        stalled_sockets(seconds)?;
    }
    if wanted("sse") {
        sse(whole_seconds)?;
    }
    if wanted("idle") {
        idle()?;
    }
    Ok(())
}

fn runtime() -> Outcome<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

async fn open(dir: &Path) -> Outcome<(Engine, LibraryId)> {
    let parts = EmbedParts {
        local: LocalSource::Custom(Arc::new(DeterministicProvider)),
        http: http_client(&HttpOptions::default())?,
        timer: Arc::new(TokioTimer::new()),
        random: Arc::new(|| 7),
    };
    let embedder = Embedder::open(EmbedConfig::default(), parts).await?;
    let config = EngineConfig::new(dir.to_owned());
    let engine = Engine::open(config, EngineParts::system(embedder)).await?;
    let new = NewLibrary {
        name: "followed".into(),
        description: None,
        index: IndexSpec::default(),
        metric: Metric::Cosine,
        language: Language::default(),
        embedding_provider: None,
        embedding_model: None,
        embedding_dimension: Some(8),
    };
    let library = engine.create_library(TENANT, new).await?.value.id;
    Ok((engine, library))
}

fn document(n: usize) -> PutDocument {
    let chunk = PutChunk {
        text: format!("chunk {n}"),
        embedding: Some(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, (n % 97) as f32]),
        ..PutChunk::default()
    };
    PutDocument {
        id: None,
        title: format!("document {n}"),
        author: None,
        document_type: None,
        source_url: None,
        tags: Vec::new(),
        custom: Custom::new(),
        created_at: None,
        content: Content::Chunks(vec![chunk]),
        vectors: Vec::new(),
    }
}

/// Deliveries a second to ten subscribers while writers write as fast as they can, and from a log
/// that is there already.
async fn deliveries(seconds: f64) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let (engine, library) = open(dir.path()).await?;
    let feed = Feed::start(engine.clone(), FeedConfig::default()).await?;
    let received = Arc::new(AtomicU64::new(0));
    for _subscriber in 0..SUBSCRIBERS {
        follow(&feed, None, &received)?;
    }
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let began = Instant::now();
    let written = write(&engine, library, until).await?;
    let expected = written * SUBSCRIBERS as u64;
    while received.load(Ordering::Relaxed) < expected {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let taken = began.elapsed().as_secs_f64();
    println!(
        "live: {written} events to {SUBSCRIBERS} subscribers in {taken:.2} s: {:.0} deliveries/s, \
         {:.0} events/s; load {}",
        expected as f64 / taken,
        written as f64 / taken,
        load()
    );
    // The same events again, as far as they are in memory.
    let before = received.load(Ordering::Relaxed);
    let held = feed.stats().buffered_events;
    let head = feed.head();
    let began = Instant::now();
    for _subscriber in 0..SUBSCRIBERS {
        follow(&feed, Some(Position::START), &received)?;
    }
    let expected = before + (written + 1) * SUBSCRIBERS as u64;
    while received.load(Ordering::Relaxed) < expected {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let taken = began.elapsed().as_secs_f64();
    println!(
        "from the beginning of the log ({held} events in memory, head {head}): {:.0} deliveries/s; \
         load {}",
        (expected - before) as f64 / taken,
        load()
    );
    feed.close().await;
    engine.close().await?;
    Ok(())
}

/// Batches of a thousand documents by four writers; how many documents.
async fn write(engine: &Engine, library: LibraryId, until: Instant) -> Outcome<u64> {
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let engine = engine.clone();
            tokio::spawn(async move {
                let mut written = 0_u64;
                while Instant::now() < until {
                    let documents = (0..1000).map(|n| document(writer * 1000 + n)).collect();
                    let done = engine.put_documents(TENANT, library, documents).await;
                    written += done.map_or(0, |done| done.value.len() as u64);
                }
                written
            })
        })
        .collect();
    let mut written = 0;
    for writer in writers {
        written += writer.await?;
    }
    Ok(written)
}

fn follow(feed: &Feed, after: Option<Position>, received: &Arc<AtomicU64>) -> Outcome<()> {
    let mut subscription = feed.subscribe(Filter::of(TENANT), after)?;
    let received = received.clone();
    tokio::spawn(async move {
        while let Ok(mut delivery) = subscription.next().await {
            let mut count = 0;
            while delivery.next().is_some() {
                count += 1;
            }
            received.fetch_add(count, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// Milliseconds from durable to delivered, to each of ten subscribers, at 10,000 events a second: a
/// record of ten every millisecond.
async fn latency(seconds: f64) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let (engine, library) = open(dir.path()).await?;
    let feed = Feed::start(engine.clone(), FeedConfig::default()).await?;
    let mut following = Vec::new();
    for _subscriber in 0..SUBSCRIBERS {
        let mut subscription = feed.subscribe(Filter::of(TENANT), None)?;
        following.push(tokio::spawn(async move {
            let mut times = Vec::new();
            while let Ok(mut delivery) = subscription.next().await {
                while let Some(event) = delivery.next() {
                    times.extend(event.durable_at().map(|at| at.elapsed().as_secs_f64() * 1e3));
                }
            }
            times
        }));
    }
    let began = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    let mut written = 0_u32;
    while began.elapsed().as_secs_f64() < seconds {
        ticks.tick().await;
        let documents = (0..10).map(document).collect();
        let engine = engine.clone();
        tokio::spawn(async move { engine.put_documents(TENANT, library, documents).await.is_ok() });
        written += 10;
    }
    feed.reached(engine.durable()).await;
    let taken = began.elapsed().as_secs_f64();
    feed.close().await;
    let mut times = Vec::new();
    for follower in following {
        times.extend(follower.await?);
    }
    println!(
        "durable to delivered at {:.0} events/s to {SUBSCRIBERS} subscribers: p50 {:.3} ms, p99 \
         {:.3} ms, p99.9 {:.3} ms ({} of {} deliveries); load {}",
        f64::from(written) / taken,
        at(&times, 0.5),
        at(&times, 0.99),
        at(&times, 0.999),
        times.len(),
        written as usize * SUBSCRIBERS,
        load()
    );
    engine.close().await?;
    Ok(())
}

/// Whether those who do not read are there, round by round: without, with, with, without and so on,
/// so that what grows or wanes from round to round is the same for both.
const STALLED_ROUNDS: [bool; 8] = [false, true, true, false, false, true, true, false];

/// Writes a second with so many subscriptions that are never asked for anything, and without.
async fn stalled(seconds: f64) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let (engine, library) = open(dir.path()).await?;
    let feed = Feed::start(engine.clone(), FeedConfig::default()).await?;
    let mut rates: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    for with in STALLED_ROUNDS {
        let count = if with { STALLED_SUBSCRIBERS } else { 0 };
        let stalled: Vec<_> = (0..count)
            .map(|_n| feed.subscribe(Filter::of(TENANT), None))
            .collect::<Result<_, _>>()?;
        let began = Instant::now();
        let mut written = 0;
        while began.elapsed().as_secs_f64() < seconds / 4.0 {
            let documents = (0..10).map(document).collect();
            engine.put_documents(TENANT, library, documents).await?;
            written += 1;
        }
        rates[usize::from(with)].push(f64::from(written) / began.elapsed().as_secs_f64());
        drop(stalled);
    }
    report_stalled("subscriptions in the process that are never read", &rates);
    feed.close().await;
    engine.close().await?;
    Ok(())
}

fn report_stalled(what: &str, [without, with]: &[Vec<f64>; 2]) {
    let mean = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len() as f64;
    println!(
        "{STALLED_SUBSCRIBERS} {what}: {:.0} writes/s, without {:.0}: {:.3} (means of {} rounds \
         each, in turns; with {with:.0?}, without {without:.0?}); load {}",
        mean(with),
        mean(without),
        mean(with) / mean(without),
        with.len(),
        load()
    );
}

fn server() -> Outcome<Server> {
    let settings = [
        ("EMBEDDING_PROVIDER", "cohere"),
        ("COHERE_API_KEY", "unused"),
        ("LOG_LEVEL", "WARNING"),
        ("EVENT_STALL_SECONDS", "3600"),
        ("STREAM_IDLE_TIMEOUT_SECONDS", "3600"),
    ];
    Server::start(&program()?, None, &settings)
}

/// Opens a stream of events and reads its head.
fn open_stream(server: &Server) -> Outcome<TcpStream> {
    let mut stream = TcpStream::connect(server.address())?;
    let address = server.address();
    let head = format!("GET /v1/events/stream HTTP/1.1\r\nhost: {address}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut bytes = [0; 4096];
    let mut seen = Vec::new();
    while !seen.windows(6).any(|part| part == b"retry:") {
        let read = stream.read(&mut bytes)?;
        if read == 0 {
            return Err(format!("no stream: {}", String::from_utf8_lossy(&seen)).into());
        }
        seen.extend_from_slice(&bytes[..read]);
    }
    Ok(stream)
}

fn document_body(n: u64) -> String {
    format!(
        "{{\"title\":\"{n}\",\"chunks\":[{{\"text\":\"x\",\"embedding\":[1,2,3,{}]}}]}}",
        n % 97
    )
}

/// The same over the wire: clients that open a stream and never read it.
fn stalled_sockets(seconds: f64) -> Outcome<()> {
    let server = server()?;
    let library = server.create_library(4)?;
    let path = format!("/v1/libraries/{library}/documents/with-embeddings");
    let mut connection = Connection::open(server.address())?;
    let mut rates: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    for with in STALLED_ROUNDS {
        let count = if with { STALLED_SUBSCRIBERS } else { 0 };
        let stalled: Vec<_> = (0..count).map(|_n| open_stream(&server)).collect::<Outcome<_>>()?;
        // Until the buffers between are full, those who do not read are written to. Where there are
        // none as well: both write to a library that was just filled so.
        fill(&server, &library)?;
        let began = Instant::now();
        let mut written = 0;
        while began.elapsed().as_secs_f64() < seconds / 4.0 {
            let request = post(server.address(), &path, &document_body(written));
            connection.send(&request)?;
            written += 1;
        }
        rates[usize::from(with)].push(written as f64 / began.elapsed().as_secs_f64());
        drop(stalled);
    }
    report_stalled("clients that never read their stream", &rates);
    server.stop()
}

/// Writes so much that nobody who does not read has room for it.
fn fill(server: &Server, library: &str) -> Outcome<()> {
    let title = "t".repeat(1000);
    let path = format!("/v1/libraries/{library}/documents/batch-with-embeddings");
    let one = format!(
        "{{\"title\":\"{title}\",\"chunks\":[{{\"text\":\"x\",\"embedding\":[1,2,3,4]}}]}}"
    );
    let body = format!("{{\"documents\":[{}]}}", vec![one; 1000].join(","));
    for _batch in 0..8 {
        let answer = server.request("POST", &path, body.as_bytes())?;
        if answer.status != 201 {
            return Err(format!("{}", answer.status).into());
        }
    }
    std::thread::sleep(Duration::from_secs(2));
    Ok(())
}

/// Milliseconds from the answer to a write to its event at a hundred clients, at a thousand events
/// a second.
fn sse(seconds: u32) -> Outcome<()> {
    let server = server()?;
    let library = server.create_library(4)?;
    let path = format!("/v1/libraries/{library}/documents/with-embeddings");
    let clock = Instant::now();
    // When each write was answered, in nanoseconds of the clock; its title is its number.
    let count = seconds as usize * 1000;
    let answered: Arc<Vec<AtomicU64>> =
        Arc::new((0..count).map(|_n| AtomicU64::new(u64::MAX)).collect());
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..SSE_SUBSCRIBERS)
        .map(|_n| {
            let mut stream = open_stream(&server)?;
            stream.set_read_timeout(Some(Duration::from_millis(200)))?;
            let done = done.clone();
            Ok(std::thread::spawn(move || read_titles(&mut stream, clock, count, &done)))
        })
        .collect::<Outcome<Vec<_>>>()?;
    let next = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..8)
        .map(|_writer| {
            let (address, path) = (server.address().to_owned(), path.clone());
            let (next, answered) = (next.clone(), answered.clone());
            std::thread::spawn(move || {
                let written = write_in_time((&address, &path), clock, &next, &answered);
                written.map_err(|error| error.to_string())
            })
        })
        .collect();
    for writer in writers {
        writer.join().map_err(|_panic| "a writer failed")??;
    }
    let taken = clock.elapsed().as_secs_f64();
    done.store(true, Ordering::Relaxed);
    let mut seen = Vec::new();
    for reader in readers {
        seen.extend(reader.join().map_err(|_panic| "a reader failed")?);
    }
    let took = |(n, received): &(usize, u64)| {
        received.saturating_sub(answered[*n].load(Ordering::Relaxed)) as f64 / 1e6
    };
    let times: Vec<f64> = seen.iter().map(took).collect();
    println!(
        "{SSE_SUBSCRIBERS} clients of SSE, {:.0} events/s: acknowledged to received p50 {:.2} ms, \
         p99 {:.2} ms ({} of {} received); load {}",
        count as f64 / taken,
        at(&times, 0.5),
        at(&times, 0.99),
        times.len(),
        count * SSE_SUBSCRIBERS,
        load()
    );
    server.stop()
}

/// Writes the next document whenever a millisecond has gone by, and notes when it was answered.
fn write_in_time(
    (address, path): (&str, &str),
    clock: Instant,
    next: &AtomicU64,
    answered: &[AtomicU64],
) -> Outcome<()> {
    let mut connection = Connection::open(address)?;
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        let Some(slot) = answered.get(usize::try_from(n)?) else { return Ok(()) };
        std::thread::sleep(Duration::from_millis(n).saturating_sub(clock.elapsed()));
        connection.send(&post(address, path, &document_body(n)))?;
        slot.store(u64::try_from(clock.elapsed().as_nanos())?, Ordering::Relaxed);
    }
}

/// The numbers of the events that come, each with when.
fn read_titles(
    stream: &mut TcpStream,
    clock: Instant,
    count: usize,
    done: &AtomicBool,
) -> Vec<(usize, u64)> {
    let mut seen = Vec::with_capacity(count);
    let mut text = Vec::new();
    let mut bytes = vec![0; 65_536];
    while seen.len() < count {
        match stream.read(&mut bytes) {
            Ok(0) => break,
            Ok(read) => text.extend_from_slice(&bytes[..read]),
            Err(_nothing_came) if done.load(Ordering::Relaxed) => break,
            Err(_nothing_came) => continue,
        }
        let now = u64::try_from(clock.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut from = 0;
        let key = b"\"title\":\"";
        while let Some(at) = find(&text[from..], key) {
            let start = from + at + key.len();
            let Some(end) = text[start..].iter().position(|byte| *byte == b'"') else { break };
            let number = std::str::from_utf8(&text[start..start + end]).unwrap_or_default();
            if let Ok(number) = number.parse() {
                seen.push((number, now));
            }
            from = start + end;
        }
        text.drain(..from);
    }
    seen
}

fn find(text: &[u8], key: &[u8]) -> Option<usize> {
    text.windows(key.len()).position(|part| part == key)
}

/// Memory of a server for each client that follows and hears nothing.
fn idle() -> Outcome<()> {
    let server = server()?;
    server.create_library(4)?;
    let before = server.megabytes()?;
    let streams: Vec<_> =
        (0..IDLE_SUBSCRIBERS).map(|_n| open_stream(&server)).collect::<Outcome<_>>()?;
    std::thread::sleep(Duration::from_secs(2));
    let after = server.megabytes()?;
    println!(
        "{IDLE_SUBSCRIBERS} idle clients of SSE: {:.1} MB more, {:.1} KB each; load {}",
        after - before,
        (after - before) * 1e3 / IDLE_SUBSCRIBERS as f64,
        load()
    );
    drop(streams);
    server.stop()
}
