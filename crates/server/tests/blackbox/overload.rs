//! More than the server takes, and clients that stand still: everything is bounded and ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Body, Method};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::harness::{DEADLINE, Server, Site, raw, until};

/// Reads until the other side closes, however it does; what came.
async fn read_to_close(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes)).await;
    // A reset closes as well.
    drop(read.expect("the server closes the connection"));
    bytes
}

/// A body that is sent piece by piece.
fn channel() -> (mpsc::Sender<Result<String, io::Error>>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    let body =
        futures_util::stream::unfold(receiver, |mut receiver: mpsc::Receiver<_>| async move {
            receiver.recv().await.map(|item| (item, receiver))
        });
    (sender, Body::wrap_stream(body))
}

fn vector_document(title: &str) -> Value {
    json!({ "title": title, "chunks": [{ "text": "x", "embedding": [1, 0] }] })
}

/// How many requests the metrics say are under way at this route.
async fn under_way(server: &Server, route: &str) -> u64 {
    let metrics = server.get("/metrics").await.text();
    let line = metrics.lines().find(|line| {
        line.starts_with("http_requests_inprogress{") && line.contains(&format!("{route}\""))
    });
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn connections_that_never_ask_are_closed() {
    let mut site = Site::new().await;
    site.set("HEADER_TIMEOUT_SECONDS", "1");
    let server = site.start().await;
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for sent in ["", "P", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\nhost: x\r\nx-slow: ", preface] {
        let mut stream = raw::connect(&server).await.expect("a connection");
        stream.write_all(sent.as_bytes()).await.expect("sent");
        read_to_close(&mut stream).await;
    }
    // One header after the other, for ever.
    let mut stream = raw::connect(&server).await.expect("a connection");
    stream.write_all(b"GET /health HTTP/1.1\r\n").await.expect("sent");
    let (mut reader, mut writer) = stream.split();
    let dribble = async {
        while writer.write_all(b"x: y\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        _closed = read_to_close(&mut reader) => {}
        () = dribble => {}
    }
    server.get("/health").await.expect(200);
}

/// A library whose export is some 40 MB.
async fn large_library(server: &Server) -> String {
    let library = server.vector_library(2).await;
    let chunk = json!({ "text": "x".repeat(10_000), "embedding": [1, 0] });
    let document = json!({ "title": "large", "chunks": vec![chunk; 1000] });
    for _ in 0..4 {
        let path =
            format!("/v1/libraries/{library}/documents/with-embeddings?include_embeddings=false");
        server.post(&path, &document).await.expect(201);
    }
    library
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_cut_off_and_costs_little() {
    /// Two pages of an export, the buffers of the connection, and slack for the allocator.
    const GROWTH_MAX: u64 = 64 << 20;
    let mut site = Site::new().await;
    site.set("STREAM_IDLE_TIMEOUT_SECONDS", "2");
    site.set("LOG_LEVEL", "DEBUG");
    let server = site.start().await;
    let library = large_library(&server).await;
    let path = format!("/v1/libraries/{library}/documents/stream");
    let whole = server.get(&path).await.body.len();
    let before = server.resident_bytes();
    let head = raw::head(&server, &Method::GET, &path, &[]);
    let mut stream = raw::connect(&server).await.expect("a connection");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut peak = before;
    until("it is cut off", async || {
        peak = peak.max(server.resident_bytes());
        server.log().contains("a connection is cut off").then_some(())
    })
    .await;
    assert!(peak - before < GROWTH_MAX, "grew by {} MiB", (peak - before) >> 20);
    let got = read_to_close(&mut stream).await;
    assert!(got.len() < whole / 2, "{} of {whole} bytes", got.len());
    assert!(!got.ends_with(b"0\r\n\r\n"), "the answer does not pass for a whole one");
    // A client that reads slowly, but does, gets all of it.
    let mut response = server.request(Method::GET, &path).send().await.expect("an answer");
    let mut read = 0;
    let mut last = Instant::now();
    while let Some(piece) = response.chunk().await.expect("a piece") {
        read += piece.len();
        if read < whole / 4 && last.elapsed() > Duration::from_millis(100) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            last = Instant::now();
        }
    }
    assert_eq!(read, whole);
}

/// An HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags, 0, 0, 0, stream]);
    frame.extend_from_slice(payload);
    frame
}

/// The headers of an HTTP/2 request, as literals of the static table.
fn http2_head(method: u8, path: &str) -> Vec<u8> {
    let mut block = vec![method, 0x86, 0x04, u8::try_from(path.len()).expect("short")];
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(b"\x01\x09localhost");
    block
}

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const HTTP2_GET: u8 = 0x82;
const HTTP2_POST: u8 = 0x83;

/// (kind, flags, stream, payload) of each whole frame.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, u8, Vec<u8>)> {
    let mut all = Vec::new();
    while bytes.len() >= 9 {
        let length = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
        let length = usize::try_from(length).expect("small");
        let Some(payload) = bytes.get(9..9 + length) else { break };
        all.push((bytes[3], bytes[4], bytes[8], payload.to_vec()));
        bytes = &bytes[9 + length..];
    }
    all
}

#[tokio::test]
async fn http2_is_spoken_without_being_asked() {
    let site = Site::new().await;
    let server = site.start().await;
    let body = json!({ "name": "over HTTP/2", "embedding_dimension": 2 }).to_string();
    let mut stream = raw::connect(&server).await.expect("a connection");
    let mut request = HTTP2_PREFACE.to_vec();
    // Two requests at the same time on one connection.
    request.extend(frame(1, 5, 1, &http2_head(HTTP2_GET, "/health")));
    request.extend(frame(1, 4, 3, &http2_head(HTTP2_POST, "/v1/libraries")));
    request.extend(frame(0, 1, 3, body.as_bytes()));
    stream.write_all(&request).await.expect("sent");
    let mut bytes = Vec::new();
    let ended = |bytes: &[u8], wanted: u8| {
        let all = frames(bytes);
        all.iter().any(|(kind, flags, id, _)| *kind <= 1 && flags & 1 == 1 && *id == wanted)
    };
    while !(ended(&bytes, 1) && ended(&bytes, 3)) {
        let read = tokio::time::timeout(DEADLINE, stream.read_buf(&mut bytes)).await;
        assert!(read.expect("in time").expect("bytes") > 0, "it ends too early");
    }
    let all = frames(&bytes);
    let of = |id: u8, kind: u8| -> Vec<u8> {
        let wanted = all.iter().filter(|(k, _, stream, _)| *k == kind && *stream == id);
        wanted.flat_map(|(_, _, _, payload)| payload.clone()).collect()
    };
    assert_eq!(of(1, 1)[0], 0x88, "200 in the static table");
    let health: Value = serde_json::from_slice(&of(1, 0)).expect("JSON");
    assert_eq!(health["status"], "healthy");
    let library: Value = serde_json::from_slice(&of(3, 0)).expect("JSON");
    assert_eq!(library["name"], "over HTTP/2");
    let id = library["id"].as_str().expect("id");
    server.get(&format!("/v1/libraries/{id}")).await.expect(200);
}

#[tokio::test]
async fn a_client_of_http2_that_takes_no_more_is_cut_off() {
    let mut site = Site::new().await;
    site.set("STREAM_IDLE_TIMEOUT_SECONDS", "2");
    let server = site.start().await;
    let library = large_library(&server).await;
    let path = format!("/v1/libraries/{library}/documents/stream");
    let mut stream = raw::connect(&server).await.expect("a connection");
    let mut request = HTTP2_PREFACE.to_vec();
    request.extend(frame(1, 5, 1, &http2_head(HTTP2_GET, &path)));
    stream.write_all(&request).await.expect("sent");
    // It reads all that comes, and never says that it would take more.
    let bytes = read_to_close(&mut stream).await;
    let data = frames(&bytes).into_iter().filter(|(kind, ..)| *kind == 0);
    let data: usize = data.map(|(_, _, _, payload)| payload.len()).sum();
    assert!((1..=65_535).contains(&data), "{data}");
    server.get("/health").await.expect(200);
}

#[tokio::test]
async fn a_whole_body_that_dribbles_ends() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let path = format!("/v1/libraries/{library}/documents/with-embeddings");
    let (sender, body) = channel();
    let sending = tokio::spawn(server.request(Method::POST, &path).body(body).send());
    let began = Instant::now();
    while !sending.is_finished() {
        assert!(began.elapsed() < DEADLINE, "it ends");
        if sender.send(Ok(" ".to_owned())).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let answer = sending.await.expect("task").expect("an answer");
    assert_eq!(answer.status(), 408);
}

#[tokio::test]
async fn a_line_that_dribbles_ends_and_lines_that_come_slowly_do_not() {
    let mut site = Site::new().await;
    site.set("STREAM_IDLE_TIMEOUT_SECONDS", "2");
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let path = format!("/v1/libraries/{library}/documents/stream");
    let (sender, body) = channel();
    let request = server.request(Method::POST, &path).header("Accept", "application/x-ndjson");
    // The answer is read while the body is sent: what is left unread would go with the connection.
    let reading = tokio::spawn(async move { request.body(body).send().await?.text().await });
    // Much longer than the idle timeout in all, and never silent for that long.
    let mut sent = 0;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        sender.send(Ok(format!("{}\n", vector_document("slow")))).await.expect("it goes on");
        sent += 1;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let began = Instant::now();
    while sender.send(Ok("x".to_owned())).await.is_ok() {
        assert!(began.elapsed() < DEADLINE, "it ends");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(sender);
    let text = reading.await.expect("task").expect("a whole answer");
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.iter().any(|line| line["status"] == "stream_error"), "{text}");
    assert_eq!(lines.last().expect("a summary")["total_succeeded"], sent, "{text}");
}

#[tokio::test]
async fn requests_beyond_those_that_may_wait_are_503_with_when_to_come_back() {
    let mut site = Site::new().await;
    site.set("MAX_CONCURRENT_REQUESTS", "1");
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let path = format!("/v1/libraries/{library}/documents/with-embeddings");
    let send = |title: &str| {
        let (sender, body) = channel();
        let sending = tokio::spawn(server.request(Method::POST, &path).body(body).send());
        (sender, sending, vector_document(title).to_string())
    };
    let mut open = Vec::new();
    for (title, count) in [("works", 1), ("waits", 2)] {
        let (sender, sending, text) = send(title);
        let (head, tail) = text.split_at(10);
        sender.send(Ok(head.to_owned())).await.expect("sent");
        open.push((sender, sending, tail.to_owned()));
        let counted = async || (under_way(&server, "with-embeddings").await == count).then_some(());
        until("it is under way", counted).await;
    }
    let refused = server.post(&path, &vector_document("refused")).await;
    refused.problem(503, "BusyError");
    assert_eq!(refused.header("retry-after"), Some("1"));
    server.get("/health").await.expect(200);
    for (sender, sending, tail) in open {
        sender.send(Ok(tail)).await.expect("sent");
        drop(sender);
        assert_eq!(sending.await.expect("task").expect("an answer").status(), 201);
    }
    let listed = server.get(&format!("/v1/libraries/{library}/documents")).await.expect(200);
    assert_eq!(listed["total"], 2);
}

#[tokio::test]
async fn large_answers_are_compressed_where_that_is_asked_for() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    for n in 0..20 {
        server.add_vectors(&library, &format!("document {n}"), &[vec![1.0, 0.5]]).await;
    }
    let documents = format!("/v1/libraries/{library}/documents");
    for (path, packed) in [
        (documents.clone(), true),
        (format!("{documents}/stream"), false),
        ("/ping".to_owned(), false),
    ] {
        let asked = server.request(Method::GET, &path).header("Accept-Encoding", "gzip");
        let answer = server.send(asked).await;
        assert_eq!(answer.status, 200);
        let encoding = answer.header("content-encoding");
        assert_eq!(encoding == Some("gzip"), packed, "{path}: {encoding:?}");
        assert_eq!(answer.body.starts_with(&[0x1f, 0x8b]), packed, "{path}");
        assert_eq!(server.get(&path).await.header("content-encoding"), None, "{path}");
    }
    // An error is written as it is, and does not pass for something else.
    for path in ["/v1/libraries/x/documents/stream", "/v1/libraries/x/documents"] {
        let asked = server.request(Method::GET, path).header("Accept-Encoding", "gzip");
        let answer = server.send(asked).await;
        assert_eq!(answer.header("content-encoding"), None, "{path}");
        answer.problem(422, "ValidationError");
    }
}

#[tokio::test]
async fn writes_batches_and_all_requests_have_budgets_of_their_own() {
    let mut site = Site::new().await;
    site.set("RATE_LIMIT_ENABLED", "true");
    site.set("RATE_LIMIT_WRITE", "2/hour");
    site.set("RATE_LIMIT_PER_MINUTE", "30");
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let documents = format!("/v1/libraries/{library}/documents");
    let body = vector_document("t");
    let path = format!("{documents}/with-embeddings");
    let first = server.post(&path, &body).await;
    first.expect(201);
    assert_eq!(first.header("x-ratelimit-limit"), Some("2"));
    assert_eq!(first.header("x-ratelimit-remaining"), Some("1"));
    server.post(&path, &body).await.expect(201);
    server.post(&path, &body).await.problem(429, "RateLimitError");
    let batch = json!({ "documents": [body] });
    for _ in 0..10 {
        server.post(&format!("{documents}/batch-with-embeddings"), &batch).await.expect(201);
    }
    let refused = server.post(&format!("{documents}/batch-with-embeddings"), &batch).await;
    refused.problem(429, "RateLimitError");
    // 15 so far; the rest of 30 are spent on something else.
    for _ in 0..15 {
        server.get(&documents).await.expect(200);
    }
    let refused = server.get(&documents).await;
    refused.problem(429, "RateLimitError");
    let wait: u64 = refused.header("retry-after").expect("when").parse().expect("seconds");
    assert!((1..=60).contains(&wait));
    server.get("/ready").await.expect(200);
}

/// Writes until it is refused or cut off; the titles that were acknowledged.
async fn write_until_the_end(server: Arc<Server>, path: String, name: usize) -> Vec<String> {
    let mut written = Vec::new();
    loop {
        let title = format!("writer {name} {}", written.len());
        let request = server.request(Method::POST, &path).json(&vector_document(&title));
        match server.try_send(request).await {
            Some(answer) if answer.status == 201 => written.push(title),
            Some(answer) => {
                answer.problem(503, "ShuttingDownError");
                return written;
            }
            None => return written,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[expect(clippy::too_many_lines, reason = "one story")]
async fn a_stop_under_load_loses_nothing_and_ends_in_order() {
    const WRITERS: usize = 64;
    let mut site = Site::new().await;
    site.set("SHUTDOWN_TIMEOUT_SECONDS", "5");
    let server = Arc::new(site.start().await);
    let large = large_library(&server).await;
    let library = server.vector_library(2).await;
    let documents = format!("/v1/libraries/{library}/documents");
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| {
            let path = format!("{documents}/with-embeddings");
            tokio::spawn(write_until_the_end(Arc::clone(&server), path, n))
        })
        .collect();
    // An import without an end, and an answer that nobody reads on.
    let (lines, body) = channel();
    let path = format!("{documents}/stream");
    let request = server.request(Method::POST, &path).header("Accept", "application/x-ndjson");
    let import = tokio::spawn(async move { request.body(body).send().await?.text().await });
    let mut export = raw::connect(&server).await.expect("a connection");
    let head =
        raw::head(&server, &Method::GET, &format!("/v1/libraries/{large}/documents/stream"), &[]);
    export.write_all(head.as_bytes()).await.expect("sent");
    let stopped = Arc::new(AtomicBool::new(false));
    let feeding = tokio::spawn({
        let stopped = Arc::clone(&stopped);
        async move {
            let mut n = 0;
            while lines
                .send(Ok(format!("{}\n", vector_document(&format!("line {n}")))))
                .await
                .is_ok()
            {
                n += 1;
                if stopped.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    });
    until("there is load", async || {
        let listed = server.try_get(&format!("{documents}?page_size=1")).await?;
        (listed.json()["total"].as_u64()? > 500).then_some(())
    })
    .await;
    let began = Instant::now();
    server.terminate();
    stopped.store(true, Ordering::SeqCst);
    let status = server.ended().await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(!server.log().contains("panicked"), "{}", server.log());
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.expect("a writer"));
    }
    assert!(acknowledged.len() >= WRITERS, "{}", acknowledged.len());
    feeding.await.expect("the feeder");
    let answered = import.await.expect("the import").expect("a whole answer");
    let answered: Vec<Value> =
        answered.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answered.last().expect("a last line")["status"], "summary");
    let completed = answered.iter().filter(|line| line["status"] == "completed");
    acknowledged.extend(completed.map(|line| line["title"].as_str().expect("title").to_owned()));

    let server = site.start().await;
    let exported = server.get(&format!("{documents}/stream?include_embeddings=false")).await.text();
    let there: std::collections::HashSet<String> = exported
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .filter_map(|line| line["title"].as_str().map(str::to_owned))
        .collect();
    let lost: Vec<&String> = acknowledged.iter().filter(|title| !there.contains(*title)).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), acknowledged.len());
}
