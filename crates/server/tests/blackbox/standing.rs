//! Standing queries over HTTP, and what they match in the feed.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::schema::fault;
use crate::harness::{Site, until};

#[tokio::test]
async fn what_a_standing_query_matches_is_told_once_also_after_a_kill() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(3).await;
    let queries = format!("/v1/libraries/{library}/standing-queries");
    let wanted =
        json!({"name": "near one", "embedding": [1.0, 0.0, 0.0], "distance_threshold": 0.2});
    let query = server.post(&queries, &wanted).await.expect(201);
    let id = query["id"].as_str().expect("an id").to_owned();
    server.add_vectors(&library, "far", &[vec![0.0, 1.0, 0.0]]).await;
    server.add_vectors(&library, "near", &[vec![1.0, 0.1, 0.0], vec![0.0, 0.0, 1.0]]).await;
    let told = format!("/v1/events?after=0&library_id={library}&event_types=query.matched");
    let matched = until("a match", async || {
        let events = server.get(&told).await.expect(200)["events"].clone();
        events.as_array().filter(|events| !events.is_empty()).cloned()
    })
    .await;
    assert_eq!(matched.len(), 1, "{matched:?}");
    let data = &matched[0]["data"];
    assert_eq!((&data["query_id"], &data["query_name"]), (&json!(id), &json!("near one")));
    assert_eq!((&data["chunk_index"], &matched[0]["library_id"]), (&json!(0), &json!(library)));
    assert!(data["distance"].as_f64().is_some_and(|distance| distance < 0.01), "{data}");

    server.kill();
    server.ended().await;
    let server = site.start().await;
    server.add_vectors(&library, "near again", &[vec![1.0, 0.0, 0.2]]).await;
    let matched = until("another match", async || {
        let events = server.get(&told).await.expect(200)["events"].clone();
        events.as_array().filter(|events| events.len() > 1).cloned()
    })
    .await;
    assert_eq!(matched.len(), 2, "the first is not told again: {matched:?}");
    let schema = server.get("/v1/events/schema").await.expect(200);
    for event in &matched {
        assert_eq!(fault(&schema, event), None, "{event}");
        for name in ["query_id", "distance", "passage"] {
            let mut broken = event.clone();
            broken["data"][name] = json!(true);
            assert!(fault(&schema, &broken).is_some(), "{broken}");
        }
    }
    let matcher =
        &server.get("/health/detailed").await.expect(200)["components"]["standing_queries"];
    assert_eq!((&matcher["running"], &matcher["matches"]), (&json!(true), &json!(1)), "{matcher}");
    assert!(matcher["matched_through_seq"].as_u64() >= matched[1]["data"]["document_seq"].as_u64());

    let one = format!("{queries}/{id}");
    let patch = server.request(Method::PATCH, &one).json(&json!({"name": "renamed"}));
    assert_eq!(server.send(patch).await.expect(200)["name"], "renamed");
    let list = server.get(&queries).await.expect(200);
    assert_eq!((&list["total"], &list["next_cursor"]), (&json!(1), &Value::Null));
    server.delete(&one).await.expect(204);
    server.get(&one).await.problem(404, "StandingQueryNotFoundError");
    let both = json!({"name": "x", "text": "a", "embedding": [1, 0, 0], "distance_threshold": 1});
    let refused = server.post(&queries, &both).await;
    refused.problem(422, "ValidationError");
    assert_eq!(refused.pointers(), ["/embedding"]);
    let far = json!({"name": "x", "embedding": [1, 0, 0], "distance_threshold": 2.5});
    assert_eq!(server.post(&queries, &far).await.pointers(), ["/distance_threshold"]);
    let libraries = server.get("/v1/libraries").await.expect(200);
    assert_eq!(libraries.as_array().map(Vec::len), Some(1), "{libraries}");
}

#[tokio::test]
async fn a_filter_has_the_names_that_it_has_in_searches() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(3).await;
    let queries = format!("/v1/libraries/{library}/standing-queries");
    for name in ["filter", "metadata_filter", "metadata_filters"] {
        let mut filtered = json!({"name": name, "embedding": [1, 0, 0], "distance_threshold": 1});
        filtered[name] = json!({"group": 2});
        let query = server.post(&queries, &filtered).await.expect(201);
        assert_eq!(query["metadata_filter"], json!({"group": 2}), "{name}");
        filtered[name] = json!({"group": {"$near": 2}});
        assert_eq!(server.post(&queries, &filtered).await.pointers().len(), 1, "{name}");
    }
    let count = format!("/v1/libraries/{library}/documents/count");
    let refused = server.post(&count, &json!({"metadata_filter": {"a": {"$near": 2}}})).await;
    assert_eq!(refused.pointers(), ["/metadata_filter/a/$near"]);
}
