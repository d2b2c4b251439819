//! What is said of a document is changed; its passages and vectors stay.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::ws::Socket;
use crate::harness::{Answer, Server, Site};

async fn patch(server: &Server, path: &str, body: &Value) -> Answer {
    server.raw(Method::PATCH, path, body.to_string()).await
}

/// A document of two passages in a library whose vectors an embedder makes; it, and where it is.
async fn added(server: &Server) -> (Value, String, String) {
    let library = server.library().await;
    let body = json!({
        "title": "Old harbour", "texts": ["Ships lie at anchor.", "Cranes unload them."],
        "author": "Ada", "document_type": "report", "source_url": "https://example.org/a",
        "tags": ["port", "draft"],
        "metadata": {"year": 1998, "of": {"city": "Hull", "pages": 4}, "draft": true},
    });
    let path = format!("/v1/libraries/{library}/documents");
    let document = server.post(&path, &body).await.expect(201);
    let path = format!("{path}/{}", document["id"].as_str().expect("an id"));
    (document, library, path)
}

#[tokio::test]
async fn what_is_said_of_a_document_changes_and_its_passages_stay_bit_for_bit() {
    let site = Site::new().await;
    let server = site.start().await;
    let (before, library, path) = added(&server).await;
    let old = server.get(&path).await.seq();
    let texts = site.provider.as_ref().expect("an embedder").texts();
    let body = json!({
        "title": "New quay", "author": null, "tags": ["port"],
        "metadata": {"year": 2026, "draft": null, "of": {"pages": null, "country": "UK"}, "new": [1]},
    });
    let patched = patch(&server, &path, &body).await;
    let seq = patched.seq();
    let after = patched.expect(200);
    assert!(seq > old);
    let metadata = json!({
        "title": "New quay", "author": null, "document_type": "report", "tags": ["port"],
        "source_url": "https://example.org/a", "created_at": before["metadata"]["created_at"],
        "custom": {"year": 2026, "of": {"city": "Hull", "country": "UK"}, "new": [1]},
    });
    assert_eq!(after["metadata"], metadata);
    assert_eq!((&after["id"], &after["chunks"]), (&before["id"], &before["chunks"]));
    assert_eq!(site.provider.as_ref().expect("an embedder").texts(), texts, "nothing is embedded");

    // It is read, counted, filtered and found by words as it is now, and as it was then.
    let then = format!("as_of={old}");
    assert_eq!(server.get(&format!("{path}?min_seq={seq}")).await.expect(200), after);
    assert_eq!(server.get(&format!("{path}?{then}")).await.expect(200), before);
    let count = format!("/v1/libraries/{library}/documents/count");
    for (filter, now, before) in [
        (json!({"year": 2026}), 2, 0),
        (json!({"draft": true}), 0, 2),
        (json!({"title": "New quay", "of.country": "UK"}), 2, 0),
        (json!({"author": "Ada"}), 0, 2),
        (json!({}), 2, 2),
    ] {
        let body = json!({ "filter": filter });
        let counted = server.post(&count, &body).await.expect(200);
        assert_eq!(counted["chunks"], now, "{filter}");
        let counted = server.post(&format!("{count}?{then}"), &body).await.expect(200);
        assert_eq!(counted["chunks"], before, "{filter}");
    }
    let keyword = format!("/v1/libraries/{library}/search/keyword");
    for (query, hits) in [("quay", 2), ("harbour", 0), ("anchor", 1)] {
        let found = server.post(&keyword, &json!({ "query": query })).await.expect(200);
        assert_eq!(found["total_results"], hits, "{query}");
    }
    let slim = patch(&server, &format!("{path}?include_embeddings=false"), &json!({})).await;
    assert_eq!(slim.expect(200)["chunks"][0].get("embedding"), None);

    // Followers are told of an update, once: what changes nothing is no version.
    let events = server.events("document.*").await;
    let types: Vec<&Value> = events.iter().map(|event| &event["type"]).collect();
    assert_eq!(types, ["document.added", "document.updated"]);
    assert_eq!(events[1]["seq"], seq);
    assert_eq!(events[1]["data"]["title"], "New quay");

    server.kill();
    let server = site.start().await;
    assert_eq!(server.get(&path).await.expect(200), after, "after a crash");
}

#[tokio::test]
async fn null_removes_what_can_be_removed() {
    let site = Site::new().await;
    let server = site.start().await;
    let (before, _library, path) = added(&server).await;
    let anywhere = format!("/v1/documents/{}", before["id"].as_str().expect("an id"));
    let body = json!({
        "author": null, "document_type": null, "source_url": null, "tags": null, "metadata": null,
    });
    let after = patch(&server, &anywhere, &body).await.expect(200);
    let metadata = json!({
        "title": "Old harbour", "author": null, "document_type": "text", "tags": [],
        "source_url": null, "created_at": before["metadata"]["created_at"],
    });
    assert_eq!(after["metadata"], metadata);
    assert_eq!(server.get(&path).await.expect(200), after);
    let body = json!({"metadata": {"a": 1}, "id": before["id"], "unknown": 1});
    let request = server.request(Method::PATCH, &path);
    let request = request.header("Content-Type", "application/merge-patch+json");
    let after = server.send(request.body(body.to_string())).await.expect(200);
    assert_eq!(after["metadata"]["custom"], json!({"a": 1}));
}

#[tokio::test]
async fn a_patch_that_breaks_a_rule_is_refused_where_it_does_and_changes_nothing() {
    let mut site = Site::new().await;
    site.set("MAX_TAGS_PER_DOCUMENT", "2");
    let server = site.start().await;
    let (before, library, path) = added(&server).await;
    let long = "x".repeat(1001);
    let large = "x".repeat(64 << 10);
    let deep = (0..40).fold(json!(1), |inner, _| json!({ "a": inner }));
    for (body, pointer) in [
        (json!({"title": null}), "/title"),
        (json!({"title": ""}), "/title"),
        (json!({ "title": long }), "/title"),
        (json!({"author": 1}), "/author"),
        (json!({"tags": ["a", "b", "c"]}), "/tags"),
        (json!({"tags": "a"}), "/tags"),
        (json!({"metadata": [1]}), "/metadata"),
        (json!({ "metadata": {"a": large} }), "/metadata"),
        (json!({ "metadata": deep }), "/metadata"),
        (json!({"text": "another"}), "/text"),
        (json!({"texts": []}), "/texts"),
        (json!({"chunks": null}), "/chunks"),
        (json!({"created_at": "2026-01-31T12:00:00Z"}), "/created_at"),
        (json!({"id": "0191f4a2-7c3e-7abc-8def-0123456789ab"}), "/id"),
    ] {
        let refused = patch(&server, &path, &body).await;
        refused.problem(422, "ValidationError");
        assert_eq!(refused.pointers(), [pointer]);
    }
    // What is merged in is too much only together with what is there.
    for number in 0..2 {
        let body = json!({"metadata": {number.to_string(): "x".repeat(40 << 10)}});
        let answer = patch(&server, &path, &body).await;
        let expected = if number == 0 { 200 } else { 422 };
        assert_eq!(answer.status, expected, "{}", answer.text());
    }
    let body = json!({"metadata": {"0": null}});
    assert_eq!(patch(&server, &path, &body).await.expect(200), before);

    let nothing = "0191f4a2-7c3e-7abc-8def-0123456789ab";
    for path in
        [format!("/v1/libraries/{library}/documents/{nothing}"), format!("/v1/documents/{nothing}")]
    {
        patch(&server, &path, &json!({"title": "x"})).await.problem(404, "DocumentNotFoundError");
    }
    let nowhere = format!("/v1/libraries/{nothing}/documents/{nothing}");
    patch(&server, &nowhere, &json!({"title": "x"})).await.problem(404, "LibraryNotFoundError");
}

#[tokio::test]
async fn of_changes_at_the_same_time_none_is_lost() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let document = server.add_vectors(&library, "busy", &[vec![1.0, 0.5]]).await;
    let path = format!("/v1/documents/{}", document["id"].as_str().expect("an id"));
    let changes = (0..60).map(|number| {
        let (client, path) = (server.client.clone(), path.clone());
        tokio::spawn(async move {
            let body = json!({"metadata": {format!("key {number}"): number}});
            let answer = client.raw(Method::PATCH, &path, body.to_string()).await;
            answer.expect(200)["metadata"]["custom"][format!("key {number}")].clone()
        })
    });
    let changes: Vec<_> = changes.collect();
    let over_sockets = (0..12).map(|number| {
        let (client, library) = (server.client.clone(), library.clone());
        let id = document["id"].clone();
        tokio::spawn(async move {
            let mut socket = Socket::open(&client, &library).await;
            let change =
                json!({"document_id": id, "metadata": {format!("socket's key {number}"): number}});
            socket.done("update", &change).await;
        })
    });
    for change in over_sockets.collect::<Vec<_>>() {
        change.await.expect("an answer");
    }
    for (number, change) in changes.into_iter().enumerate() {
        assert_eq!(change.await.expect("an answer"), number, "its own change is in its answer");
    }
    let after = server.get(&path).await.expect(200);
    let custom = after["metadata"]["custom"].as_object().expect("metadata");
    assert_eq!(custom.len(), 60 + 12);
    assert_eq!(after["chunks"], document["chunks"]);
}

#[tokio::test]
async fn what_a_document_has_in_vector_fields_stays_too() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let body = json!({
        "title": "A harbour", "metadata": {"year": 1998},
        "vectors": [
            {"type": "text", "text": "Ships lie at anchor."},
            {"type": "image", "embedding": [0.5, 0.25, 1.0], "metadata": {"page": 3}},
        ],
    });
    let documents = format!("/v1/libraries/{library}/documents");
    let added = server.post(&format!("{documents}/multi-vector"), &body).await.expect(201);
    let path = format!("{documents}/{}", added["id"].as_str().expect("an id"));
    let vectors = format!("{path}/vectors?include_embeddings=true");
    let before = server.get(&vectors).await.expect(200);
    assert_eq!(before["vectors"].as_array().map(Vec::len), Some(2), "{before}");
    let patched = patch(&server, &path, &json!({"metadata": {"year": 2026}})).await.expect(200);
    assert_eq!(patched["metadata"]["custom"], json!({"year": 2026}));
    assert_eq!(server.get(&vectors).await.expect(200), before);
}

/// Numbers come back to the last bit, and a change beside them leaves them so.
#[tokio::test]
async fn numbers_are_those_that_were_sent_and_stay_it() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let numbers =
        [0.401_591_014_485_074_85, 4.387_875_150_220_460_4e-13, 1_732_400_000.123_457, 1e300];
    let body = json!({"title": "t", "metadata": {"v": numbers},
        "chunks": [{"text": "x", "embedding": [1, 0]}]});
    let path = format!("/v1/libraries/{library}/documents");
    let document = server.post(&format!("{path}/with-embeddings"), &body).await.expect(201);
    let path = format!("{path}/{}", document["id"].as_str().expect("an id"));
    for change in 0..4 {
        patch(&server, &path, &json!({"metadata": {"k": change}})).await.expect(200);
        // As text: a reader could be wrong in the same way.
        let text = server.get(&path).await.text();
        for number in numbers {
            let digits = Value::from(number).to_string();
            assert!(text.contains(&digits), "{digits}: {text}");
            let count = json!({"filter": {"v": number}});
            let path = format!("/v1/libraries/{library}/documents/count");
            let count = server.post(&path, &count).await.expect(200);
            assert_eq!(count["chunks"], 1, "{digits}");
        }
    }
}
