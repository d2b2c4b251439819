//! Filters over HTTP and WebSocket: what is searched is what passes, in every shape that a filter has.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Server, Site};

/// A library of 30 documents: the title is the number, its metadata what the number is.
async fn numbers(server: &Server) -> String {
    let library = server.vector_library(2).await;
    for n in 0_u8..30 {
        let parity = if n % 2 == 0 { "even" } else { "odd" };
        let document = json!({
            "title": n.to_string(),
            "tags": [parity, if n < 10 { "digit" } else { "number" }],
            "metadata": {
                "n": n, "of": {"three": n % 3 == 0},
                "day": format!("2026-01-{:02}", n + 1),
            },
            "chunks": [{
                "text": format!("The number {n} is {parity}."),
                "embedding": [1.0, f64::from(n) / 10.0],
            }],
        });
        let path = format!("/v1/libraries/{library}/documents/with-embeddings");
        server.post(&path, &document).await.expect(201);
    }
    library
}

fn titles(results: &Value) -> Vec<&str> {
    let hits = results.as_array().expect("results").iter();
    hits.map(|hit| hit["document_title"].as_str().expect("a title")).collect()
}

#[tokio::test]
async fn a_search_finds_the_nearest_of_what_passes() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = numbers(&server).await;
    let path = format!("/v1/libraries/{library}/search/embedding");
    for (filter, expect) in [
        (json!({"tags": "odd", "n": {"$gt": 10}}), vec!["11", "13", "15"]),
        (json!({"of.three": true, "tags": {"$ne": "digit"}}), vec!["12", "15", "18"]),
        (json!({"day": {"$gte": "2026-01-30T00:00:00Z"}}), vec!["29"]),
        (json!({"$or": [{"title": "28"}, {"n": {"$in": [3, 4]}}]}), vec!["3", "4", "28"]),
        (json!({"text": {"$text": "EVEN"}, "n": {"$not": {"$lt": 27}}}), vec!["28"]),
        (json!({"text": {"$contains": "number 7 is"}}), vec!["7"]),
        (json!({"absent": {"$exists": true}}), vec![]),
        (json!({}), vec!["0", "1", "2"]),
        (
            json!([{"field": "n", "operator": "gte", "value": 20}, {"field": "tags", "operator": "contains", "value": "odd"}]),
            vec!["21", "23", "25"],
        ),
    ] {
        for name in ["filter", "metadata_filter", "metadata_filters"] {
            let body = json!({ "embedding": [1, 0], "k": 3, name: filter });
            let answer = server.post(&path, &body).await.expect(200);
            assert_eq!(titles(&answer["results"]), expect, "{filter}");
        }
    }
    let body = json!({
        "embedding": [1, 0], "k": 30, "explain": true,
        "filter": {"tags": "odd", "n": {"$lt": 15}},
    });
    let answer = server.post(&path, &body).await.expect(200);
    let explained = &answer["explain"]["filter"];
    assert_eq!((&answer["total_results"], &explained["passages"]), (&json!(7), &json!(7)));
    assert_eq!(explained["estimated_passages"], 8, "half of half of 30");
    assert!(explained["filter_ms"].is_number());

    // What is written passes at once; what is deleted does not.
    let seen = |answer: Value| titles(&answer["results"]).len();
    let of = json!({ "embedding": [1, 0], "k": 30, "filter": {"late": {"$exists": true}} });
    let library_path = format!("/v1/libraries/{library}/documents");
    let late = json!({"title": "late", "metadata": {"late": null}, "chunks": [{"text": "late", "embedding": [1, 1]}]});
    assert_eq!(seen(server.post(&path, &of).await.expect(200)), 0);
    let added = server.post(&format!("{library_path}/with-embeddings"), &late).await;
    let (before, added) = (added.seq(), added.expect(201));
    assert_eq!(seen(server.post(&path, &of).await.expect(200)), 1);
    let id = added["id"].as_str().expect("an id");
    server.delete(&format!("{library_path}/{id}")).await.expect_status(204);
    assert_eq!(seen(server.post(&path, &of).await.expect(200)), 0);
    let mut past = of.clone();
    past["as_of"] = json!(before);
    assert_eq!(seen(server.post(&path, &past).await.expect(200)), 1, "it was there then");
}

#[tokio::test]
async fn filtered_search_streams_and_sockets_take_filters_too() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    for (title, author) in [("a", "Ada"), ("b", "Bob"), ("c", "Ada")] {
        let document =
            json!({"title": title, "author": author, "text": format!("words of {title}")});
        server.post(&format!("/v1/libraries/{library}/documents"), &document).await.expect(201);
    }
    let by_ada = json!([{"field": "author", "operator": "eq", "value": "Ada"}]);
    let body = json!({"query": "words", "metadata_filters": by_ada});
    let answer = server.post(&format!("/v1/libraries/{library}/search/filtered"), &body).await;
    let mut found = titles(&answer.expect(200)["results"]).join("");
    found = found.chars().rev().collect::<String>().min(found);
    assert_eq!(found, "ac");
    let body = json!({"query": "words", "filter": {"author": "Bob"}});
    let answer = server.post(&format!("/v1/libraries/{library}/search/stream"), &body).await;
    assert_eq!(answer.expect(200)["results"][0]["document_title"], "b");

    let url = format!("{}/v1/libraries/{library}/ws", server.url.replace("http", "ws"));
    let (mut socket, _response) = tokio_tungstenite::connect_async(url).await.expect("a socket");
    let message = json!({
        "request_id": "r", "action": "search",
        "data": {"query_text": "words", "metadata_filter": {"author": "Bob"}},
    });
    socket.send(Message::text(message.to_string())).await.expect("sent");
    loop {
        let frame = socket.next().await.expect("a frame").expect("a frame");
        let Message::Text(text) = frame else { continue };
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        if answer["request_id"] == "r" {
            assert_eq!(answer["data"]["results"].as_array().map(Vec::len), Some(1), "{answer}");
            break;
        }
    }
}

#[tokio::test]
async fn a_bad_filter_is_refused_where_it_is_wrong() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let path = format!("/v1/libraries/{library}/search/embedding");
    let deep = (0..40).fold(json!({"a": 1}), |inner, _| json!({ "$not": inner }));
    let wide: Vec<Value> = (0..300).map(|n| json!({ "a": n })).collect();
    for (filter, pointer) in [
        (json!("x"), "/filter"),
        (json!({"a": {"$regex": "(a+)+$"}}), "/filter/a/$regex"),
        (json!({"a~/b": {"$in": 1}}), "/filter/a~0~1b/$in"),
        (json!({"$or": wide}), "/filter"),
        (json!([{"field": "a", "operator": "matches", "value": 1}]), "/filter/0/operator"),
    ] {
        let refused = server.post(&path, &json!({"embedding": [1, 0], "filter": filter})).await;
        refused.problem(422, "ValidationError");
        assert_eq!(refused.pointers(), [pointer]);
    }
    let refused = server.post(&path, &json!({"embedding": [1, 0], "filter": deep})).await;
    assert!(refused.problem(422, "ValidationError")["detail"].to_string().contains("deeper"));
    let two = json!({"embedding": [1, 0], "filter": {"a": 1}, "metadata_filter": {"b": 1}});
    assert_eq!(server.post(&path, &two).await.pointers(), ["/metadata_filter"]);
    let queries = format!("/v1/libraries/{library}/standing-queries");
    let many: serde_json::Map<String, Value> =
        (0..17).map(|n| (format!("k{n}"), json!(n))).collect();
    let query =
        json!({"name": "x", "embedding": [1, 0], "distance_threshold": 1, "metadata_filter": many});
    assert_eq!(server.post(&queries, &query).await.pointers(), ["/metadata_filter"]);
    let query = json!({
        "name": "x", "embedding": [1, 0], "distance_threshold": 1,
        "metadata_filter": {"year": {"$gte": 2000}},
    });
    let made = server.post(&queries, &query).await.expect(201);
    assert_eq!(made["metadata_filter"], json!({"year": {"$gte": 2000}}));
}

#[tokio::test]
async fn documents_are_listed_counted_and_deleted_by_a_filter() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = numbers(&server).await;
    let path = |what: &str| format!("/v1/libraries/{library}/documents/{what}");
    let odd = json!({"filter": {"tags": "odd"}});
    let count = server.post(&path("count"), &odd).await.expect(200);
    assert_eq!(count, json!({"documents": 15, "chunks": 15, "relation": "exact"}));
    let all = server.post(&path("count"), &json!({})).await.expect(200);
    assert_eq!(all["documents"], 30);

    // Page by page, while others are written and deleted.
    let (mut cursor, mut seen, mut pages) = (Value::Null, Vec::new(), 0);
    loop {
        let body = json!({"filter": {"tags": "odd"}, "limit": 4, "cursor": cursor});
        let page = server.post(&path("query"), &body).await.expect(200);
        let documents = page["documents"].as_array().expect("documents");
        assert!(documents.iter().all(|it| it["chunks"][0].get("embedding").is_none()));
        seen.extend(documents.iter().map(|it| it["metadata"]["title"].clone()));
        cursor = page["next_cursor"].clone();
        pages += 1;
        if cursor.is_null() {
            break;
        }
        server.add_vectors(&library, "even more", &[vec![0.5, 0.5]]).await;
        let even = json!({"filter": {"title": (pages * 2).to_string()}});
        let deleted = server.post(&path("delete"), &even).await.expect(200);
        assert_eq!(deleted["documents_deleted"], 1);
    }
    let expect: Vec<Value> = (0..15).map(|n| json!((2 * n + 1).to_string())).collect();
    assert_eq!((seen, pages), (expect, 4));

    let small = json!({"filter": {"n": {"$lt": 20}, "tags": "odd"}});
    let deleted = server.post(&path("delete"), &small).await;
    let (seq, deleted) = (deleted.seq(), deleted.expect(200));
    assert_eq!(
        (&deleted["documents_deleted"], &deleted["chunks_deleted"], &deleted["documents_changed"]),
        (&json!(10), &json!(10), &json!(0))
    );
    assert_eq!(server.post(&path("count"), &small).await.expect(200)["documents"], 0);
    let before = format!("{}?as_of={}", path("count"), seq - 1);
    assert_eq!(server.post(&before, &small).await.expect(200)["documents"], 10, "as of then");
    let left = server.post(&path("count"), &odd).await.expect(200);
    assert_eq!(left["documents"], 5);
    let again = server.post(&path("delete"), &small).await.expect(200);
    assert_eq!(again["documents_deleted"], 0);

    for (body, pointer) in [
        (json!({}), "/filter"),
        (json!({"filter": {}}), "/filter"),
        (json!({"filter": []}), "/filter"),
        (json!({"filter": {"a": {}}}), "/filter/a"),
    ] {
        assert_eq!(server.post(&path("delete"), &body).await.pointers(), [pointer], "{body}");
    }
    for (body, pointer) in [
        (json!({"limit": 0}), "/limit"),
        (json!({"limit": 1001}), "/limit"),
        (json!({"cursor": "x"}), "/cursor"),
    ] {
        assert_eq!(server.post(&path("query"), &body).await.pointers(), [pointer], "{body}");
    }
    let nowhere = "/v1/libraries/0191f4a2-7c3e-7abc-8def-0123456789ab/documents/count";
    server.post(nowhere, &json!({})).await.problem(404, "LibraryNotFoundError");
}
