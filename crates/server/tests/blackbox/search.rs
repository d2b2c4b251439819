//! Search: order, thresholds, k, vectors, both stream forms.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::vectors::Seeded;
use crate::harness::{Server, Site};

fn distances(results: &Value) -> Vec<f64> {
    let results = results.as_array().expect("results");
    results.iter().map(|hit| hit["distance"].as_f64().expect("distance")).collect()
}

/// A library of unit vectors at the angles 0, 10, .. 180 degrees.
async fn fan(server: &Server) -> String {
    let library = server.vector_library(2).await;
    for step in 0..19_u8 {
        let angle = (f32::from(step) * 10.0).to_radians();
        let vector = vec![angle.cos() * 3.0, angle.sin() * 3.0];
        server.add_vectors(&library, &format!("{}", u32::from(step) * 10), &[vector]).await;
    }
    library
}

#[tokio::test]
async fn hits_are_ordered_by_cosine_distance() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = fan(&server).await;
    let path = format!("/v1/libraries/{library}/search/embedding");
    let answer =
        server.post(&path, &json!({ "embedding": [0.5, 0.0], "k": 100 })).await.expect(200);
    assert_eq!(answer["total_results"], 19);
    assert!(answer["query_time_ms"].is_number());
    for (step, hit) in answer["results"].as_array().expect("results").iter().enumerate() {
        let degrees = step * 10;
        assert_eq!(hit["document_title"], degrees.to_string());
        let expected = 1.0 - f64::from(u32::try_from(degrees).expect("small")).to_radians().cos();
        assert!((hit["distance"].as_f64().expect("distance") - expected).abs() < 1e-6, "{hit}");
        assert_eq!(hit["chunk"]["metadata"]["source_document_id"], hit["document_id"]);
        assert!(hit["chunk"].get("embedding").is_none(), "slim unless asked for");
    }
    let default = server.post(&path, &json!({ "embedding": [1, 0] })).await.expect(200);
    assert_eq!(default["total_results"], 10, "k is 10 unless given");
    let full = server
        .post(&format!("{path}?include_embeddings=true"), &json!({ "embedding": [1, 0], "k": 1 }))
        .await;
    let full = full.expect(200);
    assert_eq!(full["results"][0]["chunk"]["embedding"], json!([3.0, 0.0]), "as it was sent");
}

#[tokio::test]
async fn a_threshold_keeps_what_is_at_most_that_far() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = fan(&server).await;
    let path = format!("/v1/libraries/{library}/search/embedding");
    for (threshold, count) in [(0.0, 1), (0.1, 3), (1.01, 10), (2.0, 19)] {
        let body = json!({ "embedding": [1, 0], "k": 100, "distance_threshold": threshold });
        let answer = server.post(&path, &body).await.expect(200);
        assert_eq!(answer["total_results"], count, "{threshold}");
        assert!(distances(&answer["results"]).iter().all(|distance| *distance <= threshold + 1e-6));
    }
}

#[tokio::test]
async fn an_empty_library_has_no_hits() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let answer =
        server.post(&format!("/v1/libraries/{library}/search"), &json!({ "query": "x" })).await;
    let answer = answer.expect(200);
    assert_eq!((&answer["results"], &answer["total_results"]), (&json!([]), &json!(0)));
}

#[tokio::test]
async fn a_text_is_found_by_its_words() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let texts = [
        "red apples grow on trees",
        "blue whales swim in the sea",
        "green parrots fly over the sea",
    ];
    let body = json!({ "title": "nature", "texts": texts });
    server.post(&format!("/v1/libraries/{library}/documents"), &body).await.expect(201);
    let body = json!({ "query": "whales in the sea", "k": 2 });
    let answer = server.post(&format!("/v1/libraries/{library}/search"), &body).await.expect(200);
    let found: Vec<&str> = answer["results"]
        .as_array()
        .expect("results")
        .iter()
        .map(|hit| hit["chunk"]["text"].as_str().expect("text"))
        .collect();
    assert_eq!(found, [texts[1], texts[2]]);
}

#[tokio::test]
async fn every_search_agrees_with_an_exact_one() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(24).await;
    let mut random = Seeded::new(11);
    let vectors: Vec<Vec<f32>> = (0..500).map(|_| random.vector(24)).collect();
    for (at, part) in vectors.chunks(50).enumerate() {
        server.add_vectors(&library, &format!("part {at}"), part).await;
    }
    let distance = |a: &[f32], b: &[f32]| {
        let dot = |a: &[f32], b: &[f32]| {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
        };
        1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    for _ in 0..10 {
        let query = random.vector(24);
        let mut exact: Vec<f64> = vectors.iter().map(|vector| distance(vector, &query)).collect();
        exact.sort_by(f64::total_cmp);
        let body = json!({ "embedding": query, "k": 50 });
        let answer = server
            .post(&format!("/v1/libraries/{library}/search/embedding"), &body)
            .await
            .expect(200);
        for (found, exact) in distances(&answer["results"]).iter().zip(&exact) {
            assert!((found - exact).abs() < 1e-5, "{found} for {exact}");
        }
    }
}

#[tokio::test]
async fn a_streamed_search_comes_as_one_object_or_as_lines() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let texts: Vec<String> = (0..150).map(|n| format!("the word w{n} in text {n}")).collect();
    let body = json!({ "title": "many", "texts": texts });
    server.post(&format!("/v1/libraries/{library}/documents"), &body).await.expect(201);
    let path = format!("/v1/libraries/{library}/search/stream");
    let body = json!({ "query": "the word w7", "k": 1000 });
    let whole = server.post(&path, &body).await;
    assert!(!whole.text().trim_end().contains('\n'), "one line");
    let whole = whole.expect(200);
    assert_eq!(whole["total"], 150);
    let request =
        server.request(Method::POST, &path).header("Accept", "application/x-ndjson").json(&body);
    let lines = server.send(request).await;
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    let mut lines = lines.lines();
    let end = lines.pop().expect("a last line");
    assert_eq!((&end["status"], &end["total_results"]), (&json!("complete"), &json!(150)));
    for (at, (line, hit)) in
        lines.iter().zip(whole["results"].as_array().expect("results")).enumerate()
    {
        assert_eq!(line, hit);
        assert_eq!(line["rank"], at + 1);
        let (score, distance) =
            (line["score"].as_f64().expect("score"), line["distance"].as_f64().expect("distance"));
        assert!((score + distance - 1.0).abs() < 1e-6);
        assert!(line["chunk_id"].is_string() && line["metadata"]["chunk_index"].is_number());
    }
    assert_eq!(lines[0]["text"], "the word w7 in text 7");
    let in_query =
        server.raw(Method::POST, &format!("{path}?query=the+word+w7&k=3"), "").await.expect(200);
    assert_eq!(in_query["total"], 3);
    assert_eq!(in_query["results"][0], whole["results"][0]);
    let both = server
        .post(&format!("{path}?query=nothing&k=3"), &json!({ "query": "the word w7", "k": 2 }))
        .await;
    let both = both.expect(200);
    assert_eq!(
        (&both["total"], &both["results"][0]),
        (&json!(2), &whole["results"][0]),
        "the body wins"
    );
}

/// What has a shape in bodies has it in the query string, too.
#[tokio::test]
async fn a_streamed_search_takes_what_bodies_have_in_its_query_string() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let texts: Vec<String> = (0..20).map(|n| format!("the word w{n} in text {n}")).collect();
    let body = json!({ "title": "many", "texts": texts });
    server.post(&format!("/v1/libraries/{library}/documents"), &body).await.expect(201);
    let path = format!("/v1/libraries/{library}/search/stream");
    let asked = |parameters: &str| format!("{path}?query=w7&{parameters}");
    let filtered = asked("filter=%7B%22chunk_index%22%3A7%7D&mode=hybrid&alpha=0.5&highlight=true");
    let filtered = server.raw(Method::POST, &filtered, "").await.expect(200);
    assert_eq!(
        (&filtered["total"], &filtered["results"][0]["text"]),
        (&json!(1), &json!("the word w7 in text 7"))
    );
    for (parameters, pointer) in [
        ("filter=%7B", "/query/filter"),
        ("metadata_filters=%5B%7B%22field%22%3A1%7D%5D", "/query/metadata_filters/0/field"),
        ("mode=hybrid&fusion=bogus", "/query/fusion"),
        ("mode=hybrid&alpha=7", "/query/alpha"),
        ("mode=keyword&operator=xor", "/query/operator"),
        ("mode=keyword&highlight=5", "/query/highlight"),
    ] {
        let refused = server.raw(Method::POST, &asked(parameters), "").await;
        refused.problem(422, "ValidationError");
        assert!(refused.pointers().contains(&pointer.to_owned()), "{:?}", refused.pointers());
    }
}

#[tokio::test]
async fn vectors_are_asked_for_in_the_body_or_in_the_query_string_which_wins() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let path = format!("/v1/libraries/{library}");
    let body = json!({ "title": "t", "texts": ["green parrots"] });
    server.post(&format!("{path}/documents"), &body).await.expect(201);
    let vector = crate::harness::provider::vector("green parrots");
    let bodies = [
        ("search", json!({ "query": "parrots" })),
        ("search/stream", json!({ "query": "parrots" })),
        ("search/embedding", json!({ "embedding": vector })),
    ];
    for (route, body) in bodies {
        for (query, asked, included) in [
            ("", json!(null), false),
            ("", json!(true), true),
            ("", json!(false), false),
            ("?include_embeddings=false", json!(true), false),
            ("?include_embeddings=true", json!(false), true),
            ("?include_embeddings=true", json!(null), true),
        ] {
            let mut body = body.clone();
            body["include_embeddings"] = asked.clone();
            let found = server.post(&format!("{path}/{route}{query}"), &body).await.expect(200);
            let hit = &found["results"][0];
            let embedding = if route == "search/stream" { hit } else { &hit["chunk"] };
            let has = embedding["embedding"].is_array();
            assert_eq!(has, included, "{route} {query} {asked}: {hit}");
        }
        let mut body = body.clone();
        body["include_embeddings"] = json!("yes");
        let answer = server.post(&format!("{path}/{route}"), &body).await;
        answer.problem(422, "ValidationError");
        assert_eq!(answer.pointers(), ["/include_embeddings"], "{route}");
    }
}
