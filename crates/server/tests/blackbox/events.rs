//! The change feed as its clients see it: what is told, from where on, and what of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::schema::fault;
use crate::harness::sse::EventStream;
use crate::harness::{Client, Server, Site, raw, until};

const EVERYTHING: &str = "event_types=*,chunk.*";

/// Adds a document with so many chunks, or replaces it; the answer's sequence number.
pub(crate) async fn put(client: &Client, library: &str, n: u64, chunks: usize) -> u64 {
    let chunk =
        |k: usize| json!({"text": format!("{n} {k}"), "embedding": [1.0, n as f32, k as f32]});
    let chunks: Vec<Value> = (0..chunks).map(chunk).collect();
    let body = json!({"id": id(n), "title": format!("document {n}"), "chunks": chunks});
    let path = format!("/v1/libraries/{library}/documents/with-embeddings");
    let answer = client.post(&path, &body).await;
    answer.expect(201);
    answer.seq()
}

pub(crate) fn id(n: u64) -> String {
    uuid::Uuid::from_u64_pair(7, n).to_string()
}

pub(crate) async fn delete(client: &Client, library: &str, n: u64) {
    client.delete(&format!("/v1/libraries/{library}/documents/{}", id(n))).await.expect(204);
}

/// Every event up to now, by pages.
async fn all_events(client: &Client, query: &str) -> Vec<Value> {
    let mut events = Vec::new();
    let mut after = "0".to_owned();
    loop {
        let path = format!("/v1/events?after={after}&limit=7&{query}");
        let page = client.get(&path).await.expect(200);
        let found = page["events"].as_array().expect("events").clone();
        page["next"].as_str().expect("next").clone_into(&mut after);
        if found.is_empty() {
            return events;
        }
        events.extend(found);
    }
}

fn texts<'a>(events: &'a [Value], name: &str) -> Vec<&'a str> {
    events.iter().map(|event| event[name].as_str().expect("a text")).collect()
}

/// Does everything that makes events, once at least.
async fn busy_life(server: &Server) -> String {
    let library = server.vector_library(3).await;
    put(server, &library, 1, 2).await;
    put(server, &library, 1, 1).await;
    put(server, &library, 2, 1).await;
    delete(server, &library, 2).await;
    let batch = json!({"documents": [
        {"title": "in a batch\r\n\u{2028}\"", "chunks": [{"text": "x", "embedding": [1, 2, 3]}]},
        {"title": "refused", "chunks": [{"text": "x", "embedding": [1]}]},
    ]});
    let documents = format!("/v1/libraries/{library}/documents");
    server.post(&format!("{documents}/batch-with-embeddings"), &batch).await.expect(201);
    let body =
        json!({"documents": [{"title": "refused", "chunks": [{"text": "x", "embedding": [1]}]}]});
    server.post(&format!("{documents}/batch-with-embeddings"), &body).await.expect(201);
    let line = json!({"title": "streamed", "chunks": [{"text": "y", "embedding": [3, 2, 1]}]});
    let request = server.request(Method::POST, &format!("{documents}/stream"));
    server.send(request.body(line.to_string())).await.expect(200);
    let gone = server.request(Method::DELETE, "/v1/documents/batch");
    server.send(gone.json(&json!({"document_ids": [id(1), id(99)]}))).await.expect(200);
    let path = format!("/v1/libraries/{library}");
    server
        .post(&format!("{path}/index/rebuild"), &json!({"index_type": "kd_tree"}))
        .await
        .expect(200);
    server.post(&format!("{path}/index/optimize"), &json!({})).await.expect(200);
    let patch = server.request(Method::PATCH, &path).json(&json!({"name": "renamed"}));
    server.send(patch).await.expect(200);
    server.delete(&path).await.expect(204);
    library
}

#[tokio::test]
async fn every_event_is_as_its_schema_says() {
    let site = Site::new().await;
    let server = site.start().await;
    let mut stream =
        EventStream::open(&server, &format!("/v1/events/stream?{EVERYTHING}"), None).await;
    let begin = stream.frame().await.expect("a frame");
    assert_eq!((begin.id.as_deref(), begin.retry.as_deref()), (Some("0"), Some("2000")));
    let library = busy_life(&server).await;
    let schema = server.get("/v1/events/schema").await.expect(200);
    let events = all_events(&server, EVERYTHING).await;
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for event in &events {
        assert_eq!(fault(&schema, event), None, "{event}");
        assert_eq!(event["library_id"], library);
        *kinds.entry(event["type"].as_str().expect("a type")).or_default() += 1;
    }
    // Each kind is there, and the schema is not one that passes anything.
    assert_eq!(kinds.len(), 13, "{kinds:?}");
    let broken = [
        ("type", json!("document.lost")),
        ("data", json!({})),
        ("seq", json!("7")),
        ("more", json!(1)),
        ("id", json!("7.")),
        ("timestamp", json!("2026-01-31 12:00:00")),
        ("library_id", json!("0191F4A2-7c3e-7abc-8def-0123456789ab")),
    ];
    for (name, broken) in broken {
        let mut event = events[3].clone();
        event[name] = broken;
        assert!(fault(&schema, &event).is_some(), "{event}");
    }
    // A stream has the same events in the same places, flat.
    for event in &events {
        let frame = stream.event().await.expect("an event");
        assert_eq!(
            (frame.id.as_deref(), frame.event.as_deref()),
            (event["id"].as_str(), event["type"].as_str())
        );
        let mut flat = event["data"].clone();
        for name in ["seq", "type", "library_id", "timestamp"] {
            flat[name] = event[name].clone();
        }
        assert_eq!(frame.data, flat);
    }
}

#[tokio::test]
async fn chunks_are_told_of_where_they_are_named_and_batches_with_their_outcomes() {
    let site = Site::new().await;
    let server = site.start().await;
    busy_life(&server).await;
    let events = all_events(&server, EVERYTHING).await;
    let usual = all_events(&server, "").await;
    let expected: Vec<_> = events
        .iter()
        .filter(|it| !it["type"].as_str().expect("a type").starts_with("chunk."))
        .collect();
    assert_eq!(usual.iter().collect::<Vec<_>>(), expected);
    let batches = all_events(&server, "event_types=batch.*").await;
    let outcomes: Vec<(&str, &Value, &Value, &Value)> = batches
        .iter()
        .map(|it| {
            (
                it["type"].as_str().expect("a type"),
                &it["data"]["operation"],
                &it["data"]["successful"],
                &it["data"]["failed"],
            )
        })
        .collect();
    let (one, two, none) = (json!(1), json!(2), Value::Null);
    let [add, import, gone] = [json!("add"), json!("import"), json!("delete")];
    let zero = json!(0);
    assert_eq!(two, json!(2));
    assert_eq!(
        outcomes,
        [
            ("batch.started", &add, &none, &none),
            ("batch.completed", &add, &one, &one),
            ("batch.started", &add, &none, &none),
            ("batch.failed", &add, &zero, &one),
            ("batch.started", &import, &none, &none),
            ("batch.completed", &import, &one, &zero),
            ("batch.started", &gone, &none, &none),
            ("batch.completed", &gone, &one, &zero),
        ]
    );
}

#[tokio::test]
async fn a_stream_goes_on_where_it_was_left() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(3).await;
    let path = format!("/v1/events/stream?library_id={library}&{EVERYTHING}");
    let mut stream = EventStream::open(&server, &path, None).await;
    for n in 0..5 {
        put(&server, &library, n, 2).await;
    }
    let first = stream.events(4).await;
    assert_eq!(first[0].event.as_deref(), Some("chunk.added"));
    let left = first[3].id.clone().expect("an id");
    assert!(left.ends_with(".0"), "in the middle of a record: {left}");
    drop(stream);
    let rest = EventStream::open(&server, &path, Some(&left)).await.events(11).await;
    assert_eq!(rest[0].event.as_deref(), Some("chunk.added"));
    assert_eq!(rest[10].data["title"], "document 4");
    // The header beats the parameter, which browsers repeat.
    let both = format!("{path}&after=1");
    let again = EventStream::open(&server, &both, Some(&left)).await.events(1).await;
    assert_eq!(again[0].id, rest[0].id);
    let whole = EventStream::open(&server, &both, None).await.events(1).await;
    assert_eq!(whole[0].id, first[0].id);
    // Without a place it begins now.
    let mut now = EventStream::open(&server, &path, None).await;
    let seq = put(&server, &library, 9, 1).await;
    assert_eq!(now.events(2).await[1].id, Some(seq.to_string()));
}

#[tokio::test]
async fn filters_show_what_is_asked_for_and_refuse_what_makes_no_sense() {
    let site = Site::new().await;
    let server = site.start().await;
    let (one, other) = (server.vector_library(3).await, server.vector_library(3).await);
    for n in 0..3 {
        put(&server, &one, n, 1).await;
        put(&server, &other, n, 2).await;
    }
    put(&server, &one, 1, 2).await;
    let found = all_events(&server, &format!("library_id={other}&event_types=document.*")).await;
    assert_eq!(texts(&found, "type"), ["document.added"; 3]);
    let found = all_events(&server, "event_types=document.created,document.updated").await;
    assert_eq!(found.len(), 7);
    let member = format!("data.document_id={}&data.num_chunks=2", id(1));
    let found = all_events(&server, &member).await;
    assert_eq!(texts(&found, "type"), ["document.added", "document.updated"]);
    assert_eq!(all_events(&server, "data.title=document%202").await.len(), 2);
    assert_eq!(all_events(&server, "data.nothing=1").await.len(), 0);
    let answer = server.get("/v1/events/stream?event_types=document.added,nonsense").await;
    assert_eq!(answer.problem(400, "ValueError")["detail"], "Invalid event type: nonsense");
    for (query, pointer) in [
        ("library_id=x", "/query/library_id"),
        ("after=x", "/query/after"),
        ("after=1.", "/query/after"),
        ("snapshot=maybe", "/query/snapshot"),
        ("snapshot=true", "/query/snapshot"),
        ("data.=1", "/query/data."),
        (
            "data.a=1&data.b=1&data.c=1&data.d=1&data.e=1&data.f=1&data.g=1&data.h=1&data.i=1",
            "/query/data",
        ),
    ] {
        let answer = server.get(&format!("/v1/events/stream?{query}")).await;
        assert_eq!(
            answer.problem(422, "ValidationError")["errors"][0]["pointer"],
            pointer,
            "{query}"
        );
    }
    for query in ["limit=0", "limit=1001", "wait_seconds=61"] {
        server.get(&format!("/v1/events?{query}")).await.problem(422, "ValidationError");
    }
    let nobody = uuid::Uuid::from_u64_pair(1, 1);
    let answer = server.get(&format!("/v1/events?library_id={nobody}")).await;
    answer.problem(404, "LibraryNotFoundError");
    let request = server.request(Method::GET, "/v1/events").header("Last-Event-ID", "x");
    server.send(request).await.problem(422, "ValidationError");
}

#[tokio::test]
async fn a_place_that_is_not_there_yet_is_waited_for_and_then_refused() {
    let mut site = Site::new().await;
    site.set("MIN_SEQ_WAIT_MILLISECONDS", "300");
    let server = site.start().await;
    let library = server.vector_library(3).await;
    let seq = put(&server, &library, 1, 1).await;
    let began = Instant::now();
    let answer = server.get(&format!("/v1/events?after={}", seq + 1000)).await;
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    assert_eq!(answer.problem(409, "SeqNotReachedError")["current_seq"], seq);
    let answer = server.get(&format!("/v1/events?min_seq={}", seq + 1000)).await;
    answer.problem(409, "SeqNotReachedError");
    let page = server.get(&format!("/v1/events?after=0&min_seq={seq}")).await.expect(200);
    assert_eq!(page["next"], seq.to_string());
    // One that comes in time is not refused.
    let mut site = Site::new().await;
    site.set("MIN_SEQ_WAIT_MILLISECONDS", "60000");
    let server = site.start().await;
    let library = server.vector_library(3).await;
    let wanted = put(&server, &library, 1, 1).await + 1;
    let path = format!("/v1/events?after={wanted}");
    let (page, written) = tokio::join!(server.get(&path), put(&server, &library, 2, 1));
    assert_eq!(written, wanted);
    assert_eq!(page.expect(200)["next"], wanted.to_string());
}

#[tokio::test]
async fn a_batch_whose_client_is_gone_is_told_to_have_failed() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let provider = site.provider.as_ref().expect("a provider");
    provider.set_holding(true);
    let request = {
        let (client, path) =
            (server.client.clone(), format!("/v1/libraries/{library}/documents/batch"));
        let body = json!({"documents": [{"title": "one", "texts": ["some words"]}]});
        tokio::spawn(async move { client.post(&path, &body).await })
    };
    let batches = async |count: usize| {
        until("the batch is told of", async || {
            let events = all_events(&server, "event_types=batch.*").await;
            (events.len() >= count).then_some(events)
        })
        .await
    };
    let begun = batches(1).await;
    assert_eq!(texts(&begun, "type"), ["batch.started"]);
    request.abort();
    let ended = batches(2).await;
    assert_eq!(texts(&ended, "type"), ["batch.started", "batch.failed"]);
    assert_eq!(ended[0]["data"]["batch_id"], ended[1]["data"]["batch_id"]);
    let schema = server.get("/v1/events/schema").await.expect(200);
    assert_eq!(fault(&schema, &ended[1]), None, "{}", ended[1]);

    // Who says that nothing more will come, before the answer does, is taken for one that has left.
    let body = json!({"documents": [{"title": "two", "texts": ["other words"]}]}).to_string();
    let headers = [
        ("content-type", "application/json".to_owned()),
        ("content-length", body.len().to_string()),
    ];
    let path = format!("/v1/libraries/{library}/documents/batch");
    let head = raw::head(&server, &Method::POST, &path, &headers);
    let mut stream = raw::connect(&server).await.expect("a connection");
    stream.write_all((head + &body).as_bytes()).await.expect("sent");
    batches(3).await;
    stream.shutdown().await.expect("half closed");
    let ended = batches(4).await;
    assert_eq!(texts(&ended[2..], "type"), ["batch.started", "batch.failed"]);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("the end");
    assert_eq!(String::from_utf8_lossy(&answer), "");
    provider.set_holding(false);
}

#[tokio::test]
async fn programs_poll_in_json_or_in_lines_and_may_wait() {
    let site = Site::new().await;
    let server = site.start().await;
    let now = server.get("/v1/events").await.expect(200);
    assert_eq!(now["events"], json!([]));
    let library = server.vector_library(3).await;
    let next = now["next"].as_str().expect("next");
    let page = server.get(&format!("/v1/events?after={next}")).await.expect(200);
    assert_eq!(page["events"][0]["type"], "library.created");
    assert_eq!(page["oldest_seq"], 1);
    let next = page["next"].as_str().expect("next").to_owned();
    let waiting = {
        let client = server.client.clone();
        let path = format!("/v1/events?after={next}&wait_seconds=60");
        tokio::spawn(async move { client.get(&path).await })
    };
    until("somebody waits", async || {
        let stats = server.get("/v1/events/stats").await.expect(200);
        (stats["subscriber_count"] == 1).then_some(())
    })
    .await;
    put(&server, &library, 1, 1).await;
    let page = waiting.await.expect("an answer").expect(200);
    assert_eq!(page["events"][0]["data"]["title"], "document 1");
    put(&server, &library, 2, 1).await;
    let request = server.request(Method::GET, &format!("/v1/events?after={next}&limit=1"));
    let answer = server.send(request.header("Accept", "application/x-ndjson")).await;
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let lines = answer.lines();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["data"]["title"], "document 1");
    assert_eq!(lines[1], json!({"status": "complete", "events": 1, "next": lines[0]["id"]}));
    for path in ["/v1/events/stats", "/v1/events/statistics"] {
        let stats = server.get(path).await.expect(200);
        assert_eq!((&stats["running"], &stats["subscriber_count"]), (&json!(true), &json!(0)));
        assert_eq!(stats["events_by_type"]["document.added"], 2);
        for name in [
            "total_published",
            "total_delivered",
            "total_errors",
            "pending_events",
            "active_subscribers",
            "queue_size",
            "average_delivery_latency_ms",
            "uptime_seconds",
        ] {
            assert!(stats[name].is_number(), "{name}");
        }
    }
    let metrics = server.get("/metrics").await.text();
    assert!(
        metrics.contains("arrwdb_events_published_total{type=\"document.added\"} 2"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_quiet_stream_says_that_it_lives_and_how_far_it_is() {
    let mut site = Site::new().await;
    site.set("EVENT_HEARTBEAT_SECONDS", "1");
    let server = site.start().await;
    let quiet = server.vector_library(3).await;
    let busy = server.vector_library(3).await;
    let path = format!("/v1/events/stream?library_id={quiet}");
    let mut stream = EventStream::open(&server, &path, None).await;
    assert_eq!(stream.frame().await.expect("a frame").comment.as_deref(), Some("follow"));
    let seq = put(&server, &busy, 1, 1).await;
    let mut heartbeat = stream.frame().await.expect("a frame");
    while heartbeat.id != Some(seq.to_string()) {
        assert_eq!(heartbeat.comment.as_deref(), Some("heartbeat"));
        heartbeat = stream.frame().await.expect("a frame");
    }
    assert!(heartbeat.event.is_none(), "browsers take the place and show nothing");
}

#[tokio::test]
async fn what_is_gone_is_said_and_never_a_silent_gap() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(3).await;
    for n in 0..5 {
        put(&server, &library, n, 1).await;
    }
    server.post("/v1/admin/purge", &json!({})).await.expect(200);
    put(&server, &library, 9, 1).await;
    let problem = server.get("/v1/events?after=2").await.problem(410, "EventsGoneError");
    let oldest = problem["oldest_seq"].as_u64().expect("a number");
    let mut stream = EventStream::open(&server, "/v1/events/stream?after=2", None).await;
    let reset = stream.event().await.expect("a frame");
    assert_eq!(reset.event.as_deref(), Some("reset"));
    assert_eq!((&reset.data["oldest_seq"], &reset.data["after"]), (&json!(oldest), &json!("2")));
    assert_eq!(reset.id, Some((oldest - 1).to_string()));
    assert_eq!(stream.event().await.expect("an event").data["title"], "document 9");
    // One who comes back from there is not told again.
    let mut again = EventStream::open(&server, "/v1/events/stream", reset.id.as_deref()).await;
    assert_eq!(again.event().await.expect("an event").event.as_deref(), Some("document.added"));
}

#[tokio::test]
async fn a_copy_of_the_directory_gives_the_same_feed() {
    let site = Site::new().await;
    let server = site.start().await;
    busy_life(&server).await;
    let library = server.vector_library(3).await;
    put(&server, &library, 1, 3).await;
    let events = all_events(&server, EVERYTHING).await;
    server.terminate();
    server.ended().await;
    let copy = Site::new().await;
    let status =
        std::process::Command::new("cp").arg("-r").arg(&site.data_dir).arg(&copy.data_dir).status();
    assert!(status.expect("cp").success());
    let second = copy.start().await;
    assert_eq!(all_events(&second, EVERYTHING).await, events);
}

#[tokio::test]
async fn a_server_that_stops_ends_its_streams() {
    let site = Site::new().await;
    let server = site.start().await;
    let mut stream = EventStream::open(&server, "/v1/events/stream", None).await;
    stream.frame().await.expect("a frame");
    server.vector_library(3).await;
    let id = stream.event().await.expect("an event").id;
    server.terminate();
    while stream.frame().await.is_some() {}
    assert_eq!(stream.last_id, id);
    assert!(server.ended().await.success());
}
