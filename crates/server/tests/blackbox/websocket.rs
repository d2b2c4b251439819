//! WebSockets as their clients see them.

use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::harness::ws::Socket;
use crate::harness::{Server, Site, until};

pub(crate) async fn stats(server: &Server) -> Value {
    server.get("/v1/websockets/stats").await.expect(200)
}

/// Waits until so many are open.
pub(crate) async fn open(server: &Server, count: u64) {
    until("the server has counted its sockets", async || {
        (stats(server).await["total_connections"] == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_action_is_answered_with_what_it_did() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let mut socket = Socket::open(&server, &library).await;
    let metadata = json!({"author": "Ada", "tags": ["ml"], "year": 2026});
    let added = socket
        .done("add", &json!({"text": "models learn", "title": "Learning", "metadata": metadata}))
        .await;
    let id = added["document"]["id"].as_str().expect("id").to_owned();
    assert_eq!(added["document"]["title"], "Learning");
    assert_eq!(added["document"]["num_chunks"], 1);
    let untitled = socket.done("add", &json!({"text": "cats sleep"})).await;
    assert_eq!(untitled["document"]["title"], "Untitled");
    let found = socket.done("search", &json!({"query_text": "models", "k": 5})).await;
    let first = &found["results"][0];
    assert_eq!(found["results"].as_array().expect("results").len(), 2);
    assert_eq!((&first["text"], &first["document_id"]), (&json!("models learn"), &json!(id)));
    assert_eq!(first["metadata"]["source_document_id"], id);
    let distance = first["distance"].as_f64().expect("a distance");
    assert!((first["score"].as_f64().expect("a score") - (1.0 - distance)).abs() < 1e-6);
    let near = json!({"query_text": "models", "threshold": distance + 0.01});
    let near = socket.done("search", &near).await;
    assert_eq!(near["total_results"], 1);
    let got = socket.done("get", &json!({"document_id": id})).await;
    let document = &got["document"];
    assert_eq!(
        (&document["text"], &document["title"]),
        (&json!("models learn"), &json!("Learning"))
    );
    assert_eq!(document["metadata"]["author"], "Ada");
    assert_eq!(document["metadata"]["custom"], json!({"year": 2026}));
    assert_eq!(document["chunks"][0]["embedding"], Value::Null);
    let before = got["seq"].as_u64().expect("a number");
    let texts = site.provider.as_ref().expect("a provider").texts();
    let patch = json!({"document_id": id, "title": "Still learning", "metadata": {"month": 1}});
    let updated = socket.done("update", &patch).await;
    assert_eq!(updated["document"]["title"], "Still learning");
    assert_eq!(site.provider.as_ref().expect("a provider").texts(), texts, "vectors stay");
    let then = socket.done("get", &json!({"document_id": id, "as_of": before})).await;
    assert_eq!((&then["document"]["title"], &then["seq"]), (&json!("Learning"), &json!(before)));
    let bad = socket.ask("get", &json!({"document_id": id, "as_of": "x"})).await;
    assert_eq!(bad["error_type"], "ValidationError", "{bad}");
    let got = socket.done("get", &json!({"document_id": id})).await;
    assert_eq!(got["document"]["text"], "models learn");
    assert_eq!(got["document"]["metadata"]["custom"], json!({"year": 2026, "month": 1}));
    let rewritten = json!({"document_id": id, "text": "dogs bark"});
    socket.done("update", &rewritten).await;
    let got = socket.done("get", &json!({"document_id": id})).await;
    assert_eq!(got["document"]["text"], "dogs bark");
    assert_eq!(socket.done("ping", &Value::Null).await, json!({"pong": true}));
    let deleted = socket.done("delete", &json!({"document_id": id})).await;
    assert_eq!(deleted["deleted"], true);
    assert_eq!(deleted["message"], "Document deleted");
    let subscribed = socket.done("subscribe", &json!({"events": ["document.added"]})).await;
    assert_eq!(subscribed["message"], "Already subscribed to library events");
    assert_eq!(subscribed["events"], json!(["document.added"]));
    socket.close().await;
    open(&server, 0).await;
}

#[tokio::test]
async fn an_update_merges_metadata_and_removes_what_is_null() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let mut socket = Socket::open(&server, &library).await;
    let metadata = json!({"year": 2026, "place": {"city": "Turin", "floor": 2}});
    let added = socket.done("add", &json!({"text": "x", "metadata": metadata})).await;
    let id = &added["document"]["id"];
    let patch = json!({"year": null, "month": 2, "place": {"floor": null}});
    socket.done("update", &json!({"document_id": id, "metadata": patch})).await;
    let got = socket.done("get", &json!({"document_id": id})).await;
    let expected = json!({"month": 2, "place": {"city": "Turin"}});
    assert_eq!(got["document"]["metadata"]["custom"], expected);
    let named = json!({"document_id": id, "author": "Ada", "metadata": {"source_url": "http://x"}});
    socket.done("update", &named).await;
    let removing = json!({"document_id": id, "author": null, "metadata": {"source_url": null}});
    socket.done("update", &removing).await;
    let got = socket.done("get", &json!({"document_id": id})).await;
    let metadata = &got["document"]["metadata"];
    assert_eq!((&metadata["author"], &metadata["source_url"]), (&Value::Null, &Value::Null));
    assert_eq!(metadata["custom"], expected);
    socket.close().await;
}

#[tokio::test]
async fn what_is_wrong_is_answered_and_the_connection_stays_open() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let mut socket = Socket::open(&server, &library).await;
    let none = "0191f4a2-7c3e-7abc-8def-0123456789ab";
    for (action, data, error) in [
        ("search", json!({}), "query_text is required"),
        ("add", json!({}), "text is required"),
        ("delete", json!({}), "document_id is required"),
        ("get", json!({"document_id": "x"}), "Invalid document_id format"),
        ("delete", json!({"document_id": none}), "Document not found"),
        ("get", json!({"document_id": none}), "Document not found"),
        ("update", json!({"document_id": none, "title": "x"}), "Document not found"),
        ("unwatch", json!({"watch_id": "x"}), "there is no live query \"x\" on this connection"),
        ("explode", json!({}), "Unknown action: explode"),
        ("subscribe", json!({"events": ["x"]}), "Invalid event type: x"),
    ] {
        assert_eq!(socket.fails(action, &data).await, error, "{action}");
    }
    let wrong = socket.ask("search", &json!({"embedding": [1, 2]})).await;
    assert_eq!(wrong["error_type"], "DimensionMismatchError", "{wrong}");
    assert!(socket.fails("subscribe", &json!({"after": 1_000_000})).await.contains("1000000"));
    socket.text("{nonsense").await;
    let frame = socket.of_type("error").await;
    assert_eq!(frame["success"], false);
    assert!(frame["error"].as_str().expect("an error").contains("at byte 2"), "{frame}");
    socket.text("{\"request_id\":\"r\"}").await;
    let frame = socket.of_type("error").await;
    assert_eq!(
        (&frame["error"], &frame["request_id"]),
        (&json!("Invalid message format"), &json!("r"))
    );
    assert_eq!(frame["details"][0], json!({"pointer": "/action", "detail": "is required"}));
    socket.message(Message::binary(&b"{\"request_id\":\"b\",\"action\":\"ping\"}"[..])).await;
    assert_eq!(socket.next().await["request_id"], "b", "JSON may be sent as bytes");
    socket.message(Message::binary(&b"\xff\xfe"[..])).await;
    assert_eq!(socket.of_type("error").await["error"], "the text is not UTF-8 (at byte 0)");
    assert_eq!(socket.kept(), 0, "each was answered once");
    site.provider.as_ref().expect("a provider").set_failing(true);
    let failed = socket.ask("add", &json!({"text": "unembeddable"})).await;
    assert_eq!(failed["error_type"], "EmbeddingServiceError", "{failed}");
    server.delete(&format!("/v1/libraries/{library}")).await.expect(204);
    let gone = socket.of_type("event").await;
    assert_eq!(gone["event_type"], "library.deleted");
    let error = socket.fails("get", &json!({"document_id": none})).await;
    assert_eq!(error, format!("Library {library} not found"));
}

#[tokio::test]
async fn v4_many_requests_at_a_time_are_each_answered_once() {
    let mut site = Site::new().await;
    site.set("WEBSOCKET_REQUESTS_MAX", "8");
    site.set("WEBSOCKET_MESSAGES_PER_SECOND", "100000");
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let mut socket = Socket::open(&server, &library).await;
    let count = 300;
    for n in 0..count {
        let (action, data) = match n % 3 {
            0 => ("add", json!({"chunks": [{"text": "x", "embedding": [1, n]}]})),
            1 => ("search", json!({"embedding": [1, n], "k": 3})),
            _ => ("ping", json!({})),
        };
        socket.send(&n.to_string(), action, &data).await;
    }
    let (mut busy, mut done) = (0, vec![0; count]);
    for _answer in 0..count {
        let answer = socket.of_type("response").await;
        let n: usize = answer["request_id"].as_str().expect("an id").parse().expect("a number");
        done[n] += 1;
        if answer["success"] == false {
            assert_eq!(answer["error_type"], "BusyError", "{answer}");
            busy += 1;
        }
    }
    assert!(done.iter().all(|answers| *answers == 1), "{done:?}");
    assert!(busy > 0, "beyond the bound they are refused");
    // Nothing of them is left: what is asked now is done.
    socket.done("add", &json!({"chunks": [{"text": "x", "embedding": [1, 1]}]})).await;
}

#[tokio::test]
async fn v5_a_write_is_answered_before_its_event() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let path = format!("/v1/libraries/{library}/ws?event_types=document.*");
    let mut socket = Socket::at(&server, &path).await;
    let mut other = Socket::at(&server, &path).await;
    let count = 200;
    for n in 0..count {
        let data = json!({"chunks": [{"text": "x", "embedding": [1, n]}]});
        socket.send(&n.to_string(), "add", &data).await;
        if n % 20 == 19 {
            socket.ask("ping", &json!({})).await;
        }
    }
    let (mut answered, mut told, mut refused) = (Vec::new(), 0, 0);
    while told + refused < count || answered.len() + refused < count {
        let frame = socket.next().await;
        match (frame["type"].as_str(), frame["success"].as_bool()) {
            (Some("event"), _) => {
                let id = &frame["data"]["document_id"];
                assert!(answered.contains(id), "{frame} before its answer");
                told += 1;
            }
            (Some("response"), Some(true)) if frame["data"]["document"].is_object() => {
                answered.push(frame["data"]["document"]["id"].clone());
            }
            (Some("response"), Some(false)) => refused += 1,
            (Some("response"), _) => {}
            _ => panic!("{frame}"),
        }
    }
    assert!(answered.len() > 20, "{refused} were refused");
    // Others are told of the same, in the order of the log.
    let mut last = 0;
    for _event in 0..answered.len() {
        let event = other.of_type("event").await;
        let seq = event["seq"].as_u64().expect("seq");
        assert!(seq >= last && answered.contains(&event["data"]["document_id"]), "{event}");
        last = seq;
    }
    // Replacing and deleting as well.
    let id = answered[0].clone();
    socket.send("d", "delete", &json!({"document_id": id})).await;
    assert_eq!(socket.next().await["request_id"], "d");
    let event = socket.next().await;
    assert_eq!(event["event_type"], "document.deleted");
    assert_eq!((&event["data"]["document_id"], &event["library_id"]), (&id, &json!(library)));
    assert!(event["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{event}");
    assert_eq!(event["event_id"], event["seq"].to_string());
}

#[tokio::test]
async fn events_are_those_that_were_asked_for_from_any_place() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let other = server.vector_library(2).await;
    let mut socket = Socket::open(&server, &library).await;
    server.add_vectors(&other, "elsewhere", &[vec![1.0, 2.0]]).await;
    let a = server.add_vectors(&library, "a", &[vec![1.0, 2.0]]).await;
    let event = socket.next().await;
    assert_eq!(event["event_type"], "document.added");
    assert_eq!(event["data"]["title"], "a");
    let place = event["event_id"].as_str().expect("an id").to_owned();
    socket.done("subscribe", &json!({"events": ["document.deleted", "chunk.*"]})).await;
    server.delete(&format!("/v1/documents/{}", a["id"].as_str().expect("id"))).await.expect(204);
    assert_eq!(socket.next().await["event_type"], "chunk.deleted");
    assert_eq!(socket.next().await["event_type"], "document.deleted");
    socket.done("unsubscribe", &json!({"events": ["chunk.*"]})).await;
    server.add_vectors(&library, "b", &[vec![1.0, 2.0]]).await;
    let told = socket.done("unsubscribe", &json!({})).await;
    assert_eq!(told["events"], json!([]));
    server.add_vectors(&library, "c", &[vec![1.0, 2.0]]).await;
    socket.done("ping", &json!({})).await;
    assert_eq!(socket.kept(), 0, "what was not asked for is not pushed");
    // From now on, and then from where it was.
    socket.done("subscribe", &json!({})).await;
    server.add_vectors(&library, "d", &[vec![1.0, 2.0]]).await;
    assert_eq!(socket.next().await["data"]["title"], "d");
    socket.done("subscribe", &json!({"events": ["document.added"], "after": place})).await;
    for title in ["b", "c", "d"] {
        assert_eq!(socket.next().await["data"]["title"], title);
    }
    let from_url = format!("/v1/libraries/{library}/ws?after={place}&event_types=document.added");
    let mut again = Socket::at(&server, &from_url).await;
    for title in ["b", "c", "d"] {
        assert_eq!(again.next().await["data"]["title"], title);
    }
}

#[tokio::test]
async fn what_one_of_a_session_finds_the_others_are_shown() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let elsewhere = server.library().await;
    let session = json!({"session_id": "s 1"});
    let mut ada = Socket::open(&server, &library).await;
    let mut bob = Socket::at(&server, &format!("/v1/libraries/{library}/ws?session_id=s+1")).await;
    let mut eve = Socket::open(&server, &library).await;
    let mut far = Socket::open(&server, &elsewhere).await;
    far.done("subscribe", &session).await;
    ada.done("add", &json!({"text": "models learn"})).await;
    let search = json!({"query_text": "models", "k": 3, "session_id": "s 1"});
    let found = ada.done("search", &search).await;
    let shown = bob.of_type("session_search").await;
    assert_eq!(shown["data"], found);
    assert_eq!((&shown["success"], &shown["session_id"]), (&json!(true), &json!("s 1")));
    assert_eq!(shown["query_text"], "models");
    // Who searches in a session takes part in it.
    bob.done("search", &search).await;
    assert_eq!(ada.of_type("session_search").await["data"]["results"], found["results"]);
    bob.done("search", &json!({"query_text": "models"})).await;
    for socket in [&mut ada, &mut bob, &mut eve, &mut far] {
        socket.done("ping", &json!({})).await;
        while socket.kept() > 0 {
            assert_eq!(socket.next().await["type"], "event");
        }
    }
    for n in 0..7 {
        eve.done("subscribe", &json!({"session_id": format!("{n}")})).await;
    }
    eve.done("subscribe", &session).await;
    let error = eve.fails("subscribe", &json!({"session_id": "one more"})).await;
    assert!(error.contains("8 sessions"), "{error}");
}

#[tokio::test]
async fn a_live_query_tells_only_what_changed() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let mut socket = Socket::at(&server, &format!("/v1/libraries/{library}/ws")).await;
    socket.done("unsubscribe", &json!({})).await;
    server
        .post(
            &format!("/v1/libraries/{library}/documents"),
            &json!({"title": "a", "text": "red cats"}),
        )
        .await
        .expect(201);
    let texts = |list: &Value| -> Vec<String> {
        let text = |it: &Value| it["text"].as_str().expect("a text").to_owned();
        list.as_array().expect("results").iter().map(text).collect()
    };
    let watch = json!({"watch_id": "w", "query_text": "red cats", "k": 2});
    let first = socket.done("watch", &watch).await;
    assert_eq!(
        (&first["watch_id"], texts(&first["results"])),
        (&json!("w"), vec!["red cats".to_owned()])
    );
    let embedded = site.provider.as_ref().expect("a provider").texts();
    let near = socket.done("add", &json!({"text": "red cats sleep"})).await;
    let push = socket.of_type("watch").await;
    assert!(push["seq"].as_u64() >= near["seq"].as_u64(), "{push} {near}");
    let change = &push["changes"][0];
    assert_eq!((&change["change"], &change["rank"]), (&json!("enter"), &json!(2)));
    assert_eq!(change["result"]["text"], "red cats sleep");
    // Far away: nothing to tell.
    socket.done("add", &json!({"text": "seven blue whales swim far out"})).await;
    let nearest = socket.done("add", &json!({"text": "cats red"})).await;
    let push = socket.of_type("watch").await;
    let kinds: Vec<_> = push["changes"]
        .as_array()
        .expect("changes")
        .iter()
        .map(|it| (&it["change"], &it["from"], &it["rank"]))
        .collect();
    let (leave, enter, null) = (json!("leave"), json!("enter"), Value::Null);
    assert_eq!(kinds, [(&leave, &json!(2), &null), (&enter, &null, &json!(2))]);
    let id = nearest["document"]["id"].clone();
    socket.done("delete", &json!({"document_id": id})).await;
    let push = socket.of_type("watch").await;
    assert_eq!(push["changes"][1]["result"]["text"], "red cats sleep", "{push}");
    assert_eq!(
        site.provider.as_ref().expect("a provider").texts(),
        embedded + 3,
        "the query is embedded once"
    );
    assert_eq!(stats(&server).await["live_queries"], 1);
    socket.done("unwatch", &json!({"watch_id": "w"})).await;
    socket.done("add", &json!({"text": "red cats"})).await;
    socket.done("ping", &json!({})).await;
    assert_eq!(socket.kept(), 0, "it is watched no longer");
    // Without a name it gets one; with its library it ends.
    let named = socket.done("watch", &json!({"query_text": "cats"})).await;
    server.delete(&format!("/v1/libraries/{library}")).await.expect(204);
    let push = socket.of_type("watch").await;
    assert_eq!((&push["watch_id"], &push["ended"]), (&named["watch_id"], &json!(true)));
    assert_eq!(push["error"], format!("Library {library} not found"));
    assert_eq!(stats(&server).await["live_queries"], 0);
}

#[tokio::test]
async fn a_search_of_the_past_finds_what_was_there_then() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let mut socket = Socket::open(&server, &library).await;
    let chunk = |text: &str| json!({"chunks": [{"text": text, "embedding": [1, 2]}]});
    let old = socket.done("add", &chunk("old")).await;
    socket.done("delete", &json!({"document_id": old["document"]["id"]})).await;
    let new = socket.done("add", &chunk("new")).await;
    for (added, text) in [(&old, "old"), (&new, "new")] {
        let find = json!({"embedding": [1, 2], "as_of": added["seq"]});
        let found = socket.done("search", &find).await;
        assert_eq!(found["total_results"], 1, "{found}");
        assert_eq!(found["results"][0]["text"], text);
        let refused = socket.fails("watch", &find).await;
        assert!(
            refused.contains("/as_of") && refused.contains("a live query is of now"),
            "{refused}"
        );
    }
    let ahead = socket.ask("search", &json!({"embedding": [1, 2], "as_of": 1_000_000})).await;
    assert_eq!(ahead["error_type"], "SeqNotReachedError", "{ahead}");
    let now = json!({"embedding": [1, 2]});
    assert_eq!(socket.done("watch", &now).await["results"][0]["text"], "new");
}

#[tokio::test]
async fn what_is_not_wanted_any_more_comes_no_more() {
    let mut site = Site::new().await;
    site.set("WEBSOCKET_PENDING_MAX", "1");
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let one = json!({"title": "t".repeat(900), "chunks": [{"text": "x", "embedding": [1, 2]}]});
    let batch = json!({"documents": vec![one; 1000]});
    let path = format!("/v1/libraries/{library}/documents/batch-with-embeddings");
    server.post(&path, &batch).await.expect(201);
    for (action, data, left) in [
        ("subscribe", json!({"events": ["library.*"]}), true),
        ("unsubscribe", json!({"events": ["document.*"]}), true),
        ("unsubscribe", json!({}), false),
    ] {
        let mut socket = Socket::at(&server, &format!("/v1/libraries/{library}/ws?after=0")).await;
        let first = socket.of_type("event").await;
        assert_eq!(first["event_type"], "library.created");
        socket.send("narrow", action, &data).await;
        // The events before the answer are those that were wanted then.
        while socket.next().await["request_id"] != "narrow" {}
        let name = json!({"name": "renamed"});
        let patch = server.request(Method::PATCH, &format!("/v1/libraries/{library}")).json(&name);
        server.send(patch).await.expect(200);
        if left {
            assert_eq!(socket.next().await["event_type"], "library.updated", "{action} {data}");
        }
        let answer = socket.ask("ping", &json!({})).await;
        assert_eq!((&answer["success"], socket.kept()), (&json!(true), 0), "{action} {data}");
    }
}
