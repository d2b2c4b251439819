//! Reranking by a model over HTTP: its scores rank, its failures are told, and what it costs counts.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::provider::Trouble;
use crate::harness::{Answer, Server, Site};

/// A library of passages whose distances from [1, 0] grow in their order.
async fn library(server: &Server, texts: &[&str]) -> String {
    let library = server.vector_library(2).await;
    for (at, text) in (0_u32..).zip(texts) {
        let angle = f64::from(at) / 100.0;
        let embedding = [angle.cos(), angle.sin()];
        let chunks = json!([{"text": text, "embedding": embedding}]);
        let document = json!({"title": "a title", "chunks": chunks});
        let path = format!("/v1/libraries/{library}/documents/with-embeddings");
        server.post(&path, &document).await.expect(201);
    }
    library
}

async fn rerank(server: &Server, library: &str, body: &Value) -> Answer {
    let mut body = body.clone();
    for (name, value) in [
        ("rerank_function", json!("cohere")),
        ("query", json!("red green blue pink")),
        ("embedding", json!([1, 0])),
    ] {
        if body.get(name).is_none() {
            body[name] = value;
        }
    }
    server.post(&format!("/v1/libraries/{library}/search/rerank"), &body).await
}

#[track_caller]
fn check(answer: &Value, expected: &[(&str, f64)]) {
    let results = answer["results"].as_array().expect("results").iter();
    let found: Vec<(&str, f64)> = results
        .map(|result| {
            let text = result["chunk"]["text"].as_str().expect("a text");
            (text, result["score"].as_f64().expect("a score"))
        })
        .collect();
    assert_eq!(found, expected, "{answer}");
    assert_eq!(answer["total_results"], expected.len());
}

#[tokio::test]
async fn passages_are_ranked_by_what_the_model_says() {
    let site = Site::new().await;
    let server = site.start().await;
    let texts = ["black", "green", "red and green", "blue, red and green", "red green blue pink"];
    let library = library(&server, &texts).await;
    let best = json!({"k": 2, "explain": true});
    let answer = rerank(&server, &library, &best).await.expect(200);
    check(&answer, &[(texts[4], 1.0), (texts[3], 0.75)]);
    assert_eq!(
        [&answer["rerank_function"], &answer["rerank_params"], &answer["rerank_model"]],
        [&json!("cohere"), &json!({}), &json!("rerank-v3.5")]
    );
    let explain = &answer["explain"]["reranking"];
    assert_eq!((&explain["provider"], &explain["passages"]), (&json!("cohere"), &json!(5)));
    assert!(explain["rerank_ms"].is_number() && answer["results"][0]["distance"].is_number());
    // Only the candidates are shown to it: the three nearest.
    let provider = site.provider.as_ref().expect("provider");
    let before = provider.ranked();
    let few = json!({"k": 2, "candidates": 3, "rerank_function": "model"});
    let answer = rerank(&server, &library, &few).await.expect(200);
    check(&answer, &[(texts[2], 0.5), (texts[1], 0.25)]);
    assert_eq!((provider.ranked() - before, &answer["rerank_function"]), (3, &json!("model")));
    // What keywords find is ranked as well, by the words without their signs.
    let words = json!({"k": 5, "mode": "keyword", "query": "+red green -pink", "embedding": null});
    let answer = rerank(&server, &library, &words).await.expect(200);
    check(&answer, &[(texts[2], 1.0), (texts[3], 1.0)]);
    assert_eq!(answer["results"][0]["distance"], Value::Null);
    let nothing = json!({"mode": "keyword", "query": "violet", "embedding": null});
    check(&rerank(&server, &library, &nothing).await.expect(200), &[]);
    let metrics = server.get("/metrics").await.text();
    let labels = "{provider=\"cohere\",model=\"rerank-v3.5\"}";
    assert!(
        metrics.contains(&format!("arrwdb_reranking_passages_total{labels} 10\n")),
        "{metrics}"
    );
}

#[tokio::test]
async fn what_a_model_cannot_rank_by_is_refused_where_it_is_wrong() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = library(&server, &["red"]).await;
    let refused = async |body: Value, pointer: &str, part: &str| {
        let answer = rerank(&server, &library, &body).await;
        let problem = answer.problem(422, "ValidationError");
        assert_eq!(answer.pointers(), [pointer], "{problem}");
        assert!(problem["detail"].as_str().expect("a text").contains(part), "{problem}");
    };
    refused(json!({"query": null}), "/query", "required").await;
    refused(json!({"rerank_params": {"lambda": 1}}), "/rerank_params/lambda", "it takes none")
        .await;
    refused(json!({"rerank_function": "jina"}), "/rerank_function", "cohere").await;
    refused(json!({"candidates": 1001}), "/candidates", "1000").await;
    let blank = rerank(&server, &library, &json!({"query": "   "})).await;
    assert_eq!(blank.status, 400);
    assert_eq!(site.provider.as_ref().expect("provider").ranked(), 0);
}

#[tokio::test]
async fn a_model_that_fails_or_is_not_there_is_told() {
    let mut site = Site::new().await;
    site.set("COHERE_API_KEY", "hush-hush");
    site.set("RERANK_TIMEOUT_SECONDS", "1");
    let server = site.start().await;
    let texts = ["red", "green"];
    let library = library(&server, &texts).await;
    let provider = site.provider.as_ref().expect("provider");
    let failed = async |server: &Server, body: Value, part: &str| {
        let answer = rerank(server, &library, &body).await.expect(503);
        assert_eq!(answer["type"], "/errors/reranking-unavailable", "{answer}");
        assert_eq!(answer["error_type"], "RerankServiceError");
        assert!(answer["detail"].as_str().expect("a text").contains(part), "{part}: {answer}");
        assert!(!answer.to_string().contains("hush-hush"));
    };
    provider.set_trouble(Trouble::Status(401));
    failed(&server, json!({}), "Unauthorized: told to fail").await;
    provider.set_trouble(Trouble::Malformed);
    failed(&server, json!({}), "not what was expected").await;
    provider.set_trouble(Trouble::Short);
    failed(&server, json!({}), "it scored 0 of 2 passages").await;
    provider.set_trouble(Trouble::None);
    provider.set_holding(true);
    failed(&server, json!({}), "within 1").await;
    provider.set_holding(false);
    check(
        &rerank(&server, &library, &json!({})).await.expect(200),
        &[("red", 0.25), ("green", 0.25)],
    );
    assert!(!server.log().contains("hush-hush"));
    server.terminate();
    server.ended().await;
    // Another kind of server, which has no key.
    site.set("RERANK_PROVIDER", "tei");
    site.set("RERANK_URL", &site.provider.as_ref().expect("provider").url());
    let server = site.start().await;
    failed(&server, json!({}), "RERANK_PROVIDER is tei; ask for rerank_function model").await;
    let answer = rerank(&server, &library, &json!({"rerank_function": "model"})).await.expect(200);
    check(&answer, &[("red", 0.25), ("green", 0.25)]);
    assert_eq!(answer["rerank_model"], "tei");
    server.terminate();
    server.ended().await;
    site.set("RERANK_PROVIDER", "none");
    let server = site.start().await;
    failed(&server, json!({}), "no reranking provider is configured").await;
}

#[tokio::test]
async fn what_ranking_costs_is_counted_and_a_spent_budget_refuses_it() {
    let mut site = Site::new().await;
    // A search is ten cents.
    site.set("RERANK_PRICE", "100");
    let server = site.start().await;
    let library = library(&server, &["red", "green"]).await;
    rerank(&server, &library, &json!({})).await.expect(200);
    let costs = server.get("/v1/costs?group_by=provider,model,library").await.expect(200);
    let row = &costs["rows"][0];
    assert_eq!((&row["provider"], &row["model"]), (&json!("cohere"), &json!("rerank-v3.5")));
    assert_eq!((&row["library_id"], &row["texts"]), (&json!(library), &json!(2)), "{costs}");
    assert!((row["cost_usd"].as_f64().expect("a sum") - 0.1).abs() < 1e-9, "{costs}");
    let budget = json!({"amount_usd": 0.15, "refuse": true}).to_string();
    server.raw(Method::PUT, "/v1/costs/budget", budget).await.expect(200);
    rerank(&server, &library, &json!({})).await.expect(200);
    let refused = rerank(&server, &library, &json!({})).await.expect(402);
    assert_eq!(refused["type"], "/errors/budget-exceeded", "{refused}");
    assert_eq!(site.provider.as_ref().expect("provider").ranked(), 4);
    // What needs no model is as it was.
    let plain = json!({"rerank_function": "position"});
    rerank(&server, &library, &plain).await.expect(200);
}
