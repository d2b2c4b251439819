//! Bounds of WebSockets, and how they end.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::websocket::{open, stats};
use crate::harness::ws::{Socket, request};
use crate::harness::{Site, until};

#[tokio::test]
async fn a_connection_that_cannot_be_is_closed_with_a_reason() {
    let mut site = Site::new().await;
    site.set("WEBSOCKET_MAX_CONNECTIONS", "2");
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let none = "0191f4a2-7c3e-7abc-8def-0123456789ab";
    let (code, reason) = Socket::open(&server, none).await.closed().await;
    assert_eq!((code, reason), (1008, format!("Library {none} not found")));
    let (code, reason) = Socket::open(&server, "nonsense").await.closed().await;
    assert_eq!(code, 1008, "{reason}");
    let ahead = format!("/v1/libraries/{library}/ws?after=1000");
    assert_eq!(Socket::at(&server, &ahead).await.closed().await.0, 1008);
    let first = Socket::open(&server, &library).await;
    let mut second = Socket::at(&server, &format!("/v1/libraries/{library}/ws?welcome=true")).await;
    let welcome = second.next().await;
    assert_eq!((&welcome["type"], &welcome["success"]), (&json!("system"), &json!(true)));
    assert_eq!(welcome["message"], format!("Connected to library {library}"));
    assert!(welcome["connection_id"].as_str().is_some_and(|id| id.len() == 36), "{welcome}");
    let (code, reason) = Socket::open(&server, &library).await.closed().await;
    assert_eq!(code, 1013, "{reason}");
    let told = stats(&server).await;
    assert_eq!(told["total_connections"], 2);
    assert_eq!(told["libraries_with_subscribers"], 1);
    assert_eq!(told["subscriptions_by_library"], json!({ library.as_str(): 2 }));
    second.done("unsubscribe", &json!({})).await;
    assert_eq!(stats(&server).await["subscriptions_by_library"], json!({ library.as_str(): 1 }));
    let health = server.get("/health/detailed").await.expect(200);
    let component = json!({"status": "available", "total_connections": 2});
    assert_eq!(health["components"]["websocket_manager"], component);
    let metrics = server.get("/metrics").await.text();
    assert!(metrics.contains("arrwdb_websocket_connections 2"), "{metrics}");
    assert!(metrics.contains("arrwdb_websocket_refused_total 4"), "{metrics}");
    // One that leaves, in order or not, makes room for another.
    first.close().await;
    drop(second);
    open(&server, 0).await;
    Socket::open(&server, &library).await.done("ping", &json!({})).await;
}

#[tokio::test]
async fn what_is_no_websocket_or_of_a_foreign_page_is_refused() {
    let mut site = Site::new().await;
    site.set("CORS_ORIGINS", "https://app.example.org");
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let path = format!("/v1/libraries/{library}/ws");
    let plain = server.get(&path).await;
    plain.problem(426, "UpgradeRequiredError");
    assert_eq!(plain.header("upgrade"), Some("websocket"));
    server.get(&format!("{path}?after=x")).await.problem(422, "ValidationError");
    let own = server.url.clone();
    for (origin, allowed) in [
        ("https://app.example.org", true),
        (own.as_str(), true),
        ("https://evil.example.org", false),
        ("null", false),
    ] {
        let mut wanted = request(&server, &path);
        wanted.headers_mut().insert("Origin", origin.parse().expect("a value"));
        match connect_async(wanted).await {
            Ok(_socket) => assert!(allowed, "{origin}"),
            Err(Error::Http(answer)) => assert!(answer.status() == 403 && !allowed, "{origin}"),
            Err(other) => panic!("{origin}: {other}"),
        }
    }
    server.terminate();
    assert!(server.ended().await.success());
    site.set("WEBSOCKET_ENABLED", "false");
    let off = site.start().await;
    off.get(&path).await.problem(404, "NotFoundError");
}

#[tokio::test]
async fn what_is_too_much_is_refused_or_closed() {
    let mut site = Site::new().await;
    site.set("WEBSOCKET_MESSAGES_PER_SECOND", "20");
    site.set("WEBSOCKET_MESSAGE_BYTES_MAX", "2048");
    site.set("WEBSOCKET_PING_SECONDS", "1");
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let mut socket = Socket::open(&server, &library).await;
    for n in 0..60 {
        socket.send(&n.to_string(), "ping", &json!({})).await;
    }
    socket.text("nonsense").await;
    let nonsense = socket.of_type("error").await;
    assert_eq!(nonsense["error"], "Rate limit exceeded: 20 messages per second");
    let mut refused = 0;
    for _answer in 0..60 {
        let answer = socket.of_type("response").await;
        if answer["success"] == false {
            assert_eq!(answer["error"], "Rate limit exceeded: 20 messages per second");
            assert_eq!(answer["error_type"], "RateLimitError");
            refused += 1;
        }
    }
    assert!((20..=40).contains(&refused), "{refused} of 60 were refused");
    socket.text(&"x".repeat(3000)).await;
    let (code, reason) = socket.closed().await;
    assert_eq!((code, reason.as_str()), (1009, "a message may have 2048 bytes"));
    // One that reads answers pings, and stays; one that does not is given up.
    let mut lively = Socket::open(&server, &library).await;
    let silent = Socket::open(&server, &library).await;
    let began = Instant::now();
    let reading = async {
        loop {
            lively.frame_where(|_| true).await;
        }
    };
    tokio::select! {
        () = open(&server, 1) => {}
        () = reading => {}
    }
    drop(silent);
    // Two pings a second apart, a second for the answer, and two for that to the goodbye.
    assert!(began.elapsed() >= Duration::from_millis(4500), "{:?}", began.elapsed());
    lively.done("ping", &json!({})).await;
}

#[tokio::test]
async fn v6_one_that_does_not_read_is_cut_off_and_can_resume() {
    let mut site = Site::new().await;
    site.set("EVENT_STALL_SECONDS", "1");
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let mut stalled = Socket::open(&server, &library).await;
    let title = "t".repeat(900);
    let one = json!({"title": title, "chunks": [{"text": "x", "embedding": [1, 2]}]});
    let batch = json!({"documents": vec![one; 1000]});
    let path = format!("/v1/libraries/{library}/documents/batch-with-embeddings");
    until("the one that does not read is cut off", async || {
        server.post(&path, &batch).await.expect(201);
        let metrics = server.get("/metrics").await.text();
        metrics.contains("arrwdb_websocket_cut_off_total 1").then_some(())
    })
    .await;
    open(&server, 0).await;
    // What did arrive says from where to go on.
    let mut last = Value::Null;
    while let Ok(Some(frame)) =
        tokio::time::timeout(Duration::from_secs(5), stalled.next_or_end()).await
    {
        assert_eq!(frame["type"], "event");
        last = frame["event_id"].clone();
    }
    let after = last.as_str().expect("some events").to_owned();
    let mut again = Socket::at(&server, &format!("/v1/libraries/{library}/ws?after={after}")).await;
    let next = again.next().await;
    assert!(next["seq"].as_u64().is_some() && next["event_id"] != after.as_str(), "{next}");
}

#[tokio::test]
async fn a_server_that_stops_says_goodbye_after_the_last_answer() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let mut idle = Socket::open(&server, &library).await;
    let mut busy = Socket::open(&server, &library).await;
    for n in 0..5 {
        let data = json!({"chunks": [{"text": "x", "embedding": [1, n]}]});
        busy.send(&n.to_string(), "add", &data).await;
    }
    let first = busy.of_type("response").await;
    assert_eq!(first["success"], true);
    server.terminate();
    assert_eq!(idle.closed().await, (1001, "the server stops".to_owned()));
    assert_eq!(busy.closed().await, (1001, "the server stops".to_owned()));
    assert!(server.ended().await.success());
    let server = site.start().await;
    let mut socket = Socket::open(&server, &library).await;
    let id = first["data"]["document"]["id"].clone();
    socket.done("get", &json!({"document_id": id})).await;
    let health = server.get("/health/detailed").await.expect(200);
    assert_eq!(health["components"]["websocket_manager"]["total_connections"], 1);
}

#[tokio::test]
async fn budgets_of_http_are_those_of_websockets() {
    let mut site = Site::new().await;
    site.set("RATE_LIMIT_ENABLED", "true");
    site.set("RATE_LIMIT_SEARCH", "2/minute");
    site.set("RATE_LIMIT_PER_MINUTE", "1000");
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let search = json!({"embedding": [1, 2]});
    server.post(&format!("/v1/libraries/{library}/search"), &json!({"query": "x"})).await;
    let mut socket = Socket::open(&server, &library).await;
    socket.done("search", &search).await;
    let refused = socket.ask("search", &search).await;
    assert_eq!(refused["error"], "Rate limit exceeded: 2 per 1 minute");
    assert_eq!(refused["error_type"], "RateLimitError");
    socket.done("ping", &json!({})).await;
}

#[tokio::test]
async fn a_message_has_to_arrive_in_full_within_its_time() {
    let mut site = Site::new().await;
    site.set("STREAM_IDLE_TIMEOUT_SECONDS", "1");
    let server = site.start().await;
    let library = server.vector_library(2).await;
    // One that says nothing, or all of it, may take its time.
    let mut quiet = Socket::open(&server, &library).await;
    quiet.done("ping", &json!({})).await;
    let mut slow = Socket::open(&server, &library).await;
    slow.done("ping", &json!({})).await;
    let part = |opcode: OpCode| Frame::message("x".repeat(2000), opcode, false);
    slow.message(Message::Frame(part(OpCode::Data(Data::Text)))).await;
    slow.message(Message::Frame(part(OpCode::Data(Data::Continue)))).await;
    // A ping between the parts is answered, and is no end of the message.
    slow.message(Message::Ping("x".into())).await;
    let (code, reason) = slow.closed().await;
    assert_eq!((code, reason.as_str()), (1008, "a message has to be there in full within 1 s"));
    // By now the other one has said nothing for longer than that.
    quiet.done("ping", &json!({})).await;
}

#[tokio::test]
async fn one_that_does_not_read_keeps_nobody_from_searching() {
    let mut site = Site::new().await;
    site.set("EVENT_STALL_SECONDS", "600");
    site.set("WEBSOCKET_PENDING_MAX", "1");
    site.set("SEARCH_THREADS", "1");
    site.set("SEARCH_QUEUE_MAX", "4");
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let mut reader = Socket::open(&server, &library).await;
    reader.done("unsubscribe", &json!({})).await;
    let text = "x".repeat(5000);
    let chunks = vec![json!({"text": text, "embedding": [1, 2]}); 100];
    reader.done("add", &json!({"chunks": chunks})).await;
    let mut stalled = Socket::open(&server, &library).await;
    let find = json!({"embedding": [1, 2], "k": 100});
    // Answers of half a megabyte each, of which nothing is read: they fill what is between.
    for n in 0..200 {
        let id = n.to_string();
        let sent = stalled.send(&id, "search", &find);
        if tokio::time::timeout(Duration::from_millis(200), sent).await.is_err() {
            break;
        }
    }
    let small = json!({"embedding": [1, 2], "k": 1});
    let mut quiet = 0;
    until("searches of others succeed", async || {
        let answer = reader.ask("search", &small).await;
        quiet = if answer["success"] == true { quiet + 1 } else { 0 };
        (quiet == 20).then_some(())
    })
    .await;
    drop(stalled);
}
