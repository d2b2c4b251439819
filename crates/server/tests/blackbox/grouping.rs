//! Hits grouped by documents over HTTP.

use serde_json::{Value, json};

use crate::harness::{Answer, Server, Site};

/// A library of three documents of five, one and two passages; the nearer to [1, 0] the earlier, but
/// for the last passage of each.
async fn three(server: &Server) -> String {
    let library = server.vector_library(2).await;
    for (at, (title, count)) in (0_u32..).zip([("Alpha", 5), ("Beta", 1), ("Gamma", 2)]) {
        let chunk = |part: u32| {
            let angle = f64::from(at) / 10.0 + f64::from(part) / 100.0;
            let text = format!("{title} {part} word {}", "word ".repeat((5 - part) as usize));
            json!({"text": text, "embedding": [angle.cos(), angle.sin()]})
        };
        let chunks: Vec<Value> = (0..count).map(chunk).collect();
        let document = json!({
            "title": title, "author": "somebody", "tags": [title], "metadata": {"at": at},
            "chunks": chunks,
        });
        let path = format!("/v1/libraries/{library}/documents/with-embeddings");
        server.post(&path, &document).await.expect(201);
    }
    library
}

async fn ask(server: &Server, library: &str, route: &str, body: &Value) -> Answer {
    let mut body = body.clone();
    if body.get("group_by").is_none() {
        body["group_by"] = json!("document");
    }
    server.post(&format!("/v1/libraries/{library}/search{route}"), &body).await
}

/// Titles and how many passages each has, in order.
#[track_caller]
fn check(answer: &Value, expected: &[(&str, usize)]) {
    let groups = answer["groups"].as_array().expect("groups");
    let found: Vec<(&str, usize)> = groups
        .iter()
        .map(|group| {
            let passages = group["passages"].as_array().expect("passages");
            for passage in passages {
                assert_eq!(passage["document_id"], group["document_id"], "{group}");
                assert!(passage["chunk"]["text"].is_string());
            }
            // It is ranked by its best passage, which is the first.
            assert_eq!(group["score"], passages[0]["score"], "{group}");
            let scores: Vec<f64> =
                passages.iter().map(|it| it["score"].as_f64().expect("a score")).collect();
            assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
            assert_eq!(group["metadata"]["title"], group["document_title"]);
            assert_eq!(group["metadata"]["author"], "somebody");
            assert!(group["metadata"]["custom"]["at"].is_number(), "{group}");
            (group["document_title"].as_str().expect("a title"), passages.len())
        })
        .collect();
    assert_eq!(found, expected, "{answer}");
    assert_eq!(answer["results"], json!([]));
    let total: usize = expected.iter().map(|(_title, passages)| passages).sum();
    assert_eq!(answer["total_results"], total);
}

#[tokio::test]
async fn every_search_groups_what_it_finds() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = three(&server).await;
    let found =
        async |route: &str, body: Value| ask(&server, &library, route, &body).await.expect(200);
    let all = [("Alpha", 3), ("Beta", 1), ("Gamma", 2)];
    let near = json!({"embedding": [1, 0]});
    let answer = found("/embedding", near.clone()).await;
    check(&answer, &all);
    assert_eq!(answer["groups"][1]["distance"], answer["groups"][1]["passages"][0]["distance"]);
    let two = json!({"embedding": [1, 0], "k": 2, "group_size": 10, "explain": true});
    let answer = found("/embedding", two).await;
    check(&answer, &[("Alpha", 5), ("Beta", 1)]);
    assert_eq!(answer["groups"][0]["passages"][4]["signals"]["vector_rank"], 5);
    let one = json!({"embedding": [1, 0], "group_size": 1, "filter": {"tags": {"$in": ["Alpha", "Gamma"]}}});
    check(&found("/embedding", one).await, &[("Alpha", 1), ("Gamma", 1)]);
    let words = json!({"query": "word"});
    let answer = found("/keyword", words.clone()).await;
    check(&answer, &all);
    assert_eq!(answer["groups"][0]["distance"], Value::Null);
    let highlighted = found("/keyword", json!({"query": "gamma", "highlight": true})).await;
    check(&highlighted, &[("Gamma", 2)]);
    assert!(highlighted["groups"][0]["passages"][0]["highlights"].is_array());
    let hybrid = json!({"embedding": [1, 0], "query": "word", "mode": "hybrid"});
    check(&found("/embedding", hybrid).await, &all);
    for route in ["/hybrid", "/rerank"] {
        check(&found(route, near.clone()).await, &all);
        let first = json!({"embedding": [1, 0], "k": 1});
        check(&found(route, first).await, &[("Alpha", 3)]);
    }
    let model = json!({
        "embedding": [1, 0], "query": "Gamma word", "k": 2, "rerank_function": "cohere", "group_size": 1,
        "candidates": 8,
    });
    check(&found("/rerank", model).await, &[("Gamma", 1), ("Alpha", 1)]);
    // Texts are embedded as they are elsewhere.
    let texts = server.library().await;
    for title in ["red", "blue"] {
        let document = json!({"title": title, "author": "somebody", "metadata": {"at": 0},
            "texts": [format!("{title} paper"), format!("{title} stone")]});
        server.post(&format!("/v1/libraries/{texts}/documents"), &document).await.expect(201);
    }
    for route in ["", "/filtered"] {
        let blue = json!({"query": "blue stone", "k": 1});
        check(&ask(&server, &texts, route, &blue).await.expect(200), &[("blue", 2)]);
    }
}

#[tokio::test]
async fn groups_that_cannot_be_are_refused_where_it_is_said() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = three(&server).await;
    let refused = async |route: &str, body: Value, pointer: &str| {
        let answer = ask(&server, &library, route, &body).await;
        answer.problem(422, "ValidationError");
        assert_eq!(answer.pointers(), [pointer], "{body}");
    };
    let with = |name: &str, value: Value| {
        let mut body = json!({"embedding": [1, 0], "query": "word"});
        body[name] = value;
        body
    };
    refused("/embedding", with("group_by", json!("author")), "/group_by").await;
    refused("/embedding", with("group_by", json!(1)), "/group_by").await;
    refused("/embedding", with("group_size", json!(0)), "/group_size").await;
    refused("/embedding", with("group_size", json!(11)), "/group_size").await;
    refused("/stream", with("k", json!(5)), "/group_by").await;
    refused("/rerank", with("rerank_function", json!("mmr")), "/group_by").await;
    let alone = json!({"embedding": [1, 0], "group_by": null, "group_size": 2});
    refused("/embedding", alone, "/group_size").await;
}
