//! What those who follow the change feed may take, and what becomes of those who do not read.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::events::id;
use crate::harness::sse::EventStream;
use crate::harness::{Server, Site, raw, until};

/// A library of 20,000 documents: so much that it does not fit the buffers between server and
/// client.
async fn large_library(server: &Server) -> String {
    let library = server.vector_library(3).await;
    let title = "t".repeat(900);
    for batch in 0..40 {
        let documents: Vec<Value> = (0..500)
            .map(|n| json!({"id": id(batch * 500 + n), "title": title, "chunks": [{"text": "x", "embedding": [1, 2, 3]}]}))
            .collect();
        let path = format!("/v1/libraries/{library}/documents/batch-with-embeddings");
        server.post(&path, &json!({"documents": documents})).await.expect(201);
    }
    library
}

/// Everything that a stream has until it ends, and what its last frame says, which cuts it off.
async fn rest_and_cut_off(mut connection: TcpStream) -> (String, Value) {
    let mut text = Vec::new();
    connection.read_to_end(&mut text).await.expect("read");
    let text = String::from_utf8(text).expect("UTF-8");
    let (_, last) = text
        .rsplit_once("event: cut-off\r\n")
        .or_else(|| text.rsplit_once("event: cut-off\n"))
        .expect("a last frame");
    let data = last.lines().find_map(|line| line.strip_prefix("data: ")).expect("data");
    let data = serde_json::from_str(data).expect("JSON");
    (text, data)
}

#[tokio::test]
async fn a_snapshot_counts_as_a_stream_and_one_that_is_cut_off_has_to_begin_again() {
    let mut site = Site::new().await;
    site.set("EVENT_STALL_SECONDS", "1");
    site.set("MAX_CONCURRENT_REQUESTS", "1");
    let server = site.start().await;
    let library = large_library(&server).await;
    let path = format!("/v1/events/stream?library_id={library}&snapshot=true");
    let mut connection = raw::connect(&server).await.expect("a connection");
    let head = raw::head(&server, &Method::GET, &path, &[]);
    connection.write_all(head.as_bytes()).await.expect("sent");
    until("the snapshot begins", async || {
        let mut byte = [0];
        connection.peek(&mut byte).await.expect("bytes").checked_sub(1)
    })
    .await;
    let handed = Instant::now();
    // It has the only slot: of two more one waits for it and one is refused at once.
    let export = format!("/v1/libraries/{library}/documents/stream");
    let refused = tokio::select! {
        one = server.get(&export) => one,
        other = server.get(&path) => other,
    };
    refused.problem(503, "BusyError");
    // Nothing tells how far a snapshot is; what is left is the server's patience, twice.
    tokio::time::sleep(Duration::from_secs(2).saturating_sub(handed.elapsed())).await;
    let (text, data) = rest_and_cut_off(connection).await;
    assert_eq!((&data["type"], &data["resume_after"]), (&json!("cut-off"), &Value::Null), "{data}");
    assert!(data["detail"].as_str().is_some_and(|it| it.contains("begin the snapshot again")));
    assert!(!text.contains("\nid: "), "there is no place to go on from");
    let seen = text.matches("event: snapshot.document").count();
    assert!((1..20_000).contains(&seen), "{seen}");
}

#[tokio::test]
async fn streams_leave_connections_to_others_whatever_the_settings_say() {
    let mut site = Site::new().await;
    site.set("MAX_CONNECTIONS", "20");
    site.set("WEBSOCKET_ENABLED", "false");
    let server = site.start().await;
    let mut open = Vec::new();
    while let Some(stream) = EventStream::try_open(&server, "/v1/events/stream", None).await {
        open.push(stream);
        assert!(open.len() < 20, "all connections are taken");
    }
    assert_eq!(open.len(), 18);
    server.get("/health").await.expect(200);
}

#[tokio::test]
async fn one_who_does_not_read_is_cut_off_and_told_where_to_go_on() {
    let mut site = Site::new().await;
    site.set("EVENT_STALL_SECONDS", "1");
    let server = site.start().await;
    large_library(&server).await;
    let path = "/v1/events/stream?after=0&event_types=document.added";
    let mut connection = raw::connect(&server).await.expect("a connection");
    let head = raw::head(&server, &Method::GET, path, &[]);
    connection.write_all(head.as_bytes()).await.expect("sent");
    let (mut told, mut since) = (Value::Null, Instant::now());
    until("nothing was handed over for longer than the server has patience", async || {
        let stats = server.get("/v1/events/stats").await.expect(200);
        if stats["total_delivered"] != told {
            (told, since) = (stats["total_delivered"].clone(), Instant::now());
        }
        let is_long = since.elapsed() > Duration::from_millis(1500);
        (stats["subscriber_count"] == 1 && is_long).then_some(())
    })
    .await;
    let (text, data) = rest_and_cut_off(connection).await;
    let resume = data["resume_after"].as_str().expect("a place");
    let seen = text.matches("event: document.added").count();
    assert!((1..20_000).contains(&seen), "{seen}");
    let mut stream =
        EventStream::open(&server, "/v1/events/stream?event_types=document.added", Some(resume))
            .await;
    let mut rest = 0;
    while rest + seen < 20_000 {
        stream.event().await.expect("an event");
        rest += 1;
    }
    let stats = server.get("/v1/events/stats").await.expect(200);
    assert_eq!(stats["total_errors"], 1);
}

#[tokio::test]
async fn no_more_follow_than_may_and_the_rest_works_on() {
    let mut site = Site::new().await;
    site.set("EVENT_STREAMS_MAX", "2");
    site.set("MAX_CONCURRENT_REQUESTS", "1");
    let server = site.start().await;
    let one = EventStream::open(&server, "/v1/events/stream", None).await;
    let mut two = EventStream::open(&server, "/v1/events/stream", None).await;
    let refused = server.get("/v1/events/stream").await;
    refused.problem(503, "BusyError");
    assert!(refused.header("retry-after").is_some());
    server.vector_library(3).await;
    assert_eq!(two.event().await.expect("an event").event.as_deref(), Some("library.created"));
    drop(one);
    until("a place is free", async || {
        EventStream::try_open(&server, "/v1/events/stream", None).await
    })
    .await;
}
