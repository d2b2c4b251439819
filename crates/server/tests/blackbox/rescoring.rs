//! Hybrid search and reranking over HTTP: scores are what the formulas say, and what has no meaning is
//! refused where it is wrong.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::harness::{Answer, Server, Site};

/// A time so many days ago, and an hour, so that whole days are certain.
fn days_ago(days: u64) -> String {
    let ago = Duration::from_hours(24 * days + 1);
    let then = jiff::Timestamp::try_from(SystemTime::now() - ago).expect("a time");
    then.to_string()
}

/// A library of three documents; their distances from [1, 0] are 0, 0.4 and 1.
async fn three(server: &Server) -> String {
    let library = server.vector_library(2).await;
    let documents = [
        ("Alpha", 60, json!(["old"]), json!({}), "a".repeat(100), [1.0, 0.0]),
        (
            "Beta learning",
            0,
            json!(["new", "ml"]),
            json!({"stars": 5}),
            "b".repeat(100),
            [0.6, 0.8],
        ),
        ("Gamma", 30, json!([]), json!({"stars": 1}), "c".repeat(2500), [0.0, 1.0]),
    ];
    for (title, days, tags, metadata, text, embedding) in documents {
        let document = json!({
            "title": title, "tags": tags, "metadata": metadata, "created_at": days_ago(days),
            "chunks": [{"text": text, "embedding": embedding}],
        });
        let path = format!("/v1/libraries/{library}/documents/with-embeddings");
        server.post(&path, &document).await.expect(201);
    }
    library
}

async fn ask(server: &Server, library: &str, route: &str, body: &Value) -> Answer {
    let mut body = body.clone();
    if body.get("embedding").is_none() {
        body["embedding"] = json!([1, 0]);
    }
    server.post(&format!("/v1/libraries/{library}/search/{route}"), &body).await
}

/// Titles and scores, in order.
#[track_caller]
fn check(answer: &Value, expected: &[(&str, f64)]) {
    let results = answer["results"].as_array().expect("results");
    assert_eq!(results.len(), expected.len(), "{answer}");
    assert_eq!(answer["total_results"], expected.len());
    assert!(answer["query_time_ms"].is_number());
    for (result, (title, score)) in results.iter().zip(expected) {
        assert_eq!(result["document_title"], *title, "{answer}");
        let found = result["score"].as_f64().expect("a score");
        assert!((found - score).abs() < 1e-6, "{title}: {found}, not {score}: {answer}");
        assert!(result["document_id"].is_string());
        assert!(result["chunk"]["metadata"]["source_document_id"].is_string());
        assert_eq!(result["chunk"].get("embedding"), None, "it was not asked for");
    }
}

#[tokio::test]
async fn hybrid_scores_are_what_the_formula_says() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = three(&server).await;
    let hybrid = async |body: Value| ask(&server, &library, "hybrid", &body).await.expect(200);

    let plain = hybrid(json!({})).await;
    check(&plain, &[("Alpha", 0.7), ("Beta learning", 0.7 * 0.8), ("Gamma", 0.35)]);
    let breakdown = &plain["results"][0]["score_breakdown"];
    assert_eq!(
        *breakdown,
        json!({
            "vector_score": 1.0, "vector_distance": 0.0, "metadata_score": 0.0, "hybrid_score": 0.7,
            "vector_weight": 0.7, "metadata_weight": 0.3, "recency_boost": null, "field_boost": null,
        })
    );
    assert_eq!(
        plain["scoring_config"],
        json!({
            "vector_weight": 0.7, "metadata_weight": 0.3, "recency_boost": false,
            "recency_boost_enabled": false, "recency_half_life_days": 30, "field_boosts": null,
            "normalize_scores": true,
        })
    );
}

#[tokio::test]
async fn hybrid_settings_are_flat_or_nested_and_nested_wins() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = three(&server).await;
    let hybrid = async |body: Value| ask(&server, &library, "hybrid", &body).await.expect(200);
    // Half and half, by age: 60, 0 and 30 days at a half life of 30. Flat, nested, and nested over flat.
    let by_age = [("Beta learning", 0.9), ("Alpha", 0.5 + 0.125), ("Gamma", 0.25 + 0.25)];
    let flat = json!({"vector_weight": 0.5, "recency_boost": true});
    let nested = json!({"scoring_config": {
        "metadata_weight": 0.5, "recency_boost_enabled": true, "recency_half_life_days": 30,
    }});
    let both = json!({
        "vector_weight": 0.9, "metadata_weight": 0.1, "recency_boost": false,
        "recency_half_life_days": 7, "scoring_config": {
            "vector_weight": 0.5, "recency_boost_enabled": true, "recency_half_life_days": 30,
        },
    });
    for body in [flat, nested, both] {
        let answer = hybrid(body.clone()).await;
        check(&answer, &by_age);
        let config = &answer["scoring_config"];
        assert_eq!(
            (&config["vector_weight"], &config["metadata_weight"]),
            (&json!(0.5), &json!(0.5))
        );
        assert_eq!(
            (&config["recency_boost"], &config["recency_boost_enabled"]),
            (&json!(true), &json!(true))
        );
        assert_eq!(config["recency_half_life_days"], 30, "{body}");
        assert_eq!(answer["results"][1]["score_breakdown"]["recency_boost"], 0.25);
    }
    // The best of the candidates, not of the k nearest.
    let one = json!({"k": 1, "vector_weight": 0.5, "recency_boost": true});
    check(&hybrid(one.clone()).await, &by_age[..1]);
    let mut fewer = one;
    fewer["candidates"] = json!(1);
    check(&hybrid(fewer).await, &by_age[1..2]);
}

#[tokio::test]
async fn boosted_fields_match_by_values_or_by_words() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = three(&server).await;
    let hybrid = async |body: Value| ask(&server, &library, "hybrid", &body).await.expect(200);
    // Both words of the title are the query's, and a tag is one that is wanted.
    let fields = json!({
        "query": "beta learning, fast", "query_metadata": {"tags": ["ml", "ai"]},
        "field_boosts": {"title": 2, "tags": 1}, "explain": true,
    });
    let answer = hybrid(fields.clone()).await;
    check(&answer, &[("Beta learning", 0.7 * 0.8 + 0.3), ("Alpha", 0.7), ("Gamma", 0.35)]);
    let boosts = &answer["results"][0]["score_breakdown"]["field_boost"];
    assert_eq!(*boosts, json!({"title": 2.0, "tags": 1.0}));
    assert_eq!(answer["scoring_config"]["field_boosts"], json!({"title": 2.0, "tags": 1.0}));
    assert_eq!(answer["results"][0]["signals"]["vector_rank"], 2);
    assert!(answer["explain"]["rows_scored"].is_number());
    // With age as a second signal, metadata is the mean of both.
    let mut mean = fields;
    mean["recency_boost"] = json!(true);
    let answer = hybrid(mean).await;
    let alpha = 0.7 + 0.3 * (0.25 / 2.0);
    check(&answer, &[("Beta learning", 0.86), ("Alpha", alpha), ("Gamma", 0.35 + 0.3 * 0.25)]);
}

#[tokio::test]
async fn hybrid_searches_take_thresholds_filters_the_past_and_keywords() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = three(&server).await;
    let hybrid = async |body: Value| ask(&server, &library, "hybrid", &body).await;

    let near = hybrid(json!({"distance_threshold": 0.5})).await.expect(200);
    check(&near, &[("Alpha", 0.7), ("Beta learning", 0.56)]);
    for name in ["filter", "metadata_filter", "metadata_filters"] {
        let starred = hybrid(json!({name: {"stars": {"$lt": 3}}})).await.expect(200);
        check(&starred, &[("Gamma", 0.35)]);
    }
    let with = hybrid(json!({"k": 1, "include_embeddings": true})).await.expect(200);
    assert_eq!(with["results"][0]["chunk"]["embedding"], json!([1.0, 0.0]));
    let latest = hybrid(json!({})).await.seq();
    let past = hybrid(json!({"as_of": latest - 1})).await.expect(200);
    check(&past, &[("Alpha", 0.7), ("Beta learning", 0.56)]);
    let path = format!("/v1/libraries/{library}/search/hybrid?min_seq={latest}");
    server.post(&path, &json!({"embedding": [1, 0]})).await.expect(200);

    // Only the third has the word: similarities 1, 0.8 and 0.5, and 1 for the best by keywords.
    let weighted = json!({"query": "gamma", "fusion": "weighted", "alpha": 0.5});
    let fused = hybrid(weighted).await.expect(200);
    check(&fused, &[("Gamma", 0.7 * 0.75), ("Alpha", 0.7 * 0.5), ("Beta learning", 0.7 * 0.4)]);
    let breakdown = &fused["results"][0]["score_breakdown"];
    assert!(breakdown["keyword_score"].as_f64().expect("BM25") > 0.1, "{breakdown}");
    assert_eq!(breakdown["fused_score"], 0.75);
    assert_eq!(breakdown["vector_score"], 0.5);
    assert_eq!(fused["results"][1]["score_breakdown"]["keyword_score"], 0.0);
    assert_eq!(
        (&fused["scoring_config"]["fusion"], &fused["scoring_config"]["alpha"]),
        (&json!("weighted"), &json!(0.5))
    );
    // Ranks 3 and 1, as a part of twice the first rank; and as they are.
    let third = (1.0 / 63.0 + 1.0 / 61.0) * 30.5;
    let ranks = hybrid(json!({"query": "gamma", "fusion": "rrf"})).await.expect(200);
    check(&ranks, &[("Gamma", 0.7 * third), ("Alpha", 0.35), ("Beta learning", 0.7 * 30.5 / 62.0)]);
    let raw = json!({"query": "gamma", "mode": "hybrid", "fusion": "rrf", "k": 1, "scoring_config": {"normalize_scores": false}});
    check(&hybrid(raw).await.expect(200), &[("Gamma", 0.7 * third / 30.5)]);

    // By text alone, in a library with a model.
    let library = server.library().await;
    let document = json!({"title": "words", "text": "some words of a text"});
    server.post(&format!("/v1/libraries/{library}/documents"), &document).await.expect(201);
    let path = format!("/v1/libraries/{library}/search/hybrid");
    let body = json!({"query": "some words of a text", "field_boosts": {"title": 1}});
    let answer = server.post(&path, &body).await.expect(200);
    assert_eq!(answer["results"][0]["score_breakdown"]["metadata_score"], 1.0, "{answer}");
    let blank = server.post(&path, &json!({"query": "  "})).await;
    blank.problem(400, "ValueError");
}

#[tokio::test]
async fn reranked_scores_are_what_the_functions_say() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = three(&server).await;
    let rerank = async |body: Value| ask(&server, &library, "rerank", &body).await.expect(200);

    let recency = [("Beta learning", 0.56 + 0.3), ("Alpha", 0.7 + 0.075), ("Gamma", 0.35 + 0.15)];
    let usual = rerank(json!({})).await;
    check(&usual, &recency);
    assert_eq!(usual["rerank_function"], "recency");
    assert_eq!(usual["rerank_params"], json!({"half_life_days": 30}));
    assert!(usual["results"][0]["distance"].is_number());
    check(&rerank(json!({"k": 1})).await, &recency[..1]);
    check(&rerank(json!({"k": 1, "candidates": 1})).await, &recency[1..2]);
    check(&rerank(json!({"distance_threshold": 0.1})).await, &recency[1..2]);

    let cases = [
        (
            "recency",
            json!({"half_life_days": 60}),
            [("Beta learning", 0.86), ("Alpha", 0.85), ("Gamma", 0.35 + 0.3 * 0.5_f64.sqrt())],
        ),
        (
            "position",
            json!(null),
            [("Alpha", 1.0), ("Beta learning", 0.64 + 0.2), ("Gamma", 0.4 + 0.2)],
        ),
        (
            "length",
            json!({"prefer_longer": true}),
            [("Alpha", 0.85 + 0.003), ("Beta learning", 0.68 + 0.003), ("Gamma", 0.425 + 0.075)],
        ),
        (
            "length",
            json!({"prefer_longer": false}),
            [("Alpha", 0.85 + 0.147), ("Beta learning", 0.68 + 0.147), ("Gamma", 0.5)],
        ),
    ];
    for (function, params, expected) in cases {
        by_function(&server, &library, (function, &params), &expected).await;
    }
}

/// Checks what a function ranks, and that its parameters are answered.
async fn by_function(
    server: &Server,
    library: &str,
    (function, params): (&str, &Value),
    expected: &[(&str, f64)],
) {
    let body = json!({"rerank_function": function, "rerank_params": params});
    let answer = ask(server, library, "rerank", &body).await.expect(200);
    check(&answer, expected);
    assert_eq!(answer["rerank_function"], function);
    for (name, value) in params.as_object().into_iter().flatten() {
        assert_eq!(answer["rerank_params"][name], *value);
    }
}

#[tokio::test]
async fn weights_and_expressions_of_the_callers_rank() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = three(&server).await;
    let rerank = async |body: Value| ask(&server, &library, "rerank", &body).await.expect(200);
    let cases = [
        (
            json!({"weights": {"similarity": 0.5, "recency": 0.5, "field": {"stars": 0.1}}}),
            [("Beta learning", 0.4 + 0.5 + 0.5), ("Alpha", 0.5 + 0.125), ("Gamma", 0.6)],
        ),
        (
            json!({"weights": {"field:stars": 1, "length": 1}, "default": 3, "prefer_longer": false}),
            [("Beta learning", 5.98), ("Alpha", 3.98), ("Gamma", 1.5)],
        ),
        (
            json!({"expression": "similarity * (1 + {stars} / 10)"}),
            [("Beta learning", 1.2), ("Alpha", 1.0), ("Gamma", 0.55)],
        ),
        (
            json!({"expression": "if(age_days >= 45, -1, 1) * max(similarity, 0.6) - distance / 10"}),
            [("Beta learning", 0.76), ("Gamma", 0.5), ("Alpha", -1.0)],
        ),
    ];
    for (params, expected) in cases {
        by_function(&server, &library, ("custom", &params), &expected).await;
    }

    // What a score was made of.
    let told = rerank(json!({
        "rerank_function": "custom", "explain": true,
        "rerank_params": {"expression": "similarity * (1 + {stars} / 10)"},
    }))
    .await;
    let first = &told["results"][0];
    let signals = &first["signals"]["reranked"];
    let [similarity, stars] =
        ["similarity", "stars"].map(|name| signals[name].as_f64().expect("a signal"));
    let score = first["score"].as_f64().expect("a score");
    assert!((score - similarity * (1.0 + stars / 10.0)).abs() < 1e-9, "{first}");

    // No number, and an infinite one: behind what has a score, in the order in which they were found.
    let holes =
        json!({"rerank_function": "custom", "rerank_params": {"expression": "ln(stars - 1)"}});
    let answer = rerank(holes).await;
    let results = answer["results"].as_array().expect("results");
    let titles: Vec<&Value> = results.iter().map(|result| &result["document_title"]).collect();
    assert_eq!(titles, ["Beta learning", "Alpha", "Gamma"]);
    assert!((results[0]["score"].as_f64().expect("a score") - 4.0_f64.ln()).abs() < 1e-9);
    assert_eq!((&results[1]["score"], &results[2]["score"]), (&Value::Null, &Value::Null));

    // By keywords: alone, and with vectors.
    let by_words = json!({"query": "gamma", "rerank_function": "custom", "rerank_params": {"expression": "bm25"}});
    for (mode, count) in [("keyword", 1), ("hybrid", 3)] {
        let mut body = by_words.clone();
        body["mode"] = json!(mode);
        let answer = rerank(body).await;
        let results = answer["results"].as_array().expect("results");
        assert_eq!((results.len(), &results[0]["document_title"]), (count, &json!("Gamma")));
        assert!(results[0]["score"].as_f64().expect("BM25") > 0.1);
        assert_eq!(results[0]["distance"].is_null(), mode == "keyword");
    }
}

#[tokio::test]
async fn places_in_documents_and_likeness_rank_too() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let same = vec![vec![1.0, 0.0], vec![1.0, 0.0], vec![1.0, 0.0]];
    server.add_vectors(&library, "long", &same).await;
    let order = |answer: &Value| -> Vec<(u64, f64)> {
        let results = answer["results"].as_array().expect("results").iter();
        let pair = |it: &Value| {
            let index = it["chunk"]["metadata"]["chunk_index"].as_u64().expect("an index");
            (index, (it["score"].as_f64().expect("a score") * 1e6).round() / 1e6)
        };
        results.map(pair).collect()
    };
    let by_place = |early: bool| json!({"rerank_function": "position", "rerank_params": {"prefer_early": early}});
    let answer = ask(&server, &library, "rerank", &by_place(true)).await.expect(200);
    assert_eq!(order(&answer), [(0, 1.0), (1, 0.998), (2, 0.996)]);
    let answer = ask(&server, &library, "rerank", &by_place(false)).await.expect(200);
    assert_eq!(order(&answer), [(2, 0.804), (1, 0.802), (0, 0.8)]);

    // Cosines to the query 1, 1 and 0.6: the third is unlike the first.
    let library = server.vector_library(2).await;
    for (title, vector) in [("a", [1.0, 0.0]), ("b", [2.0, 0.0]), ("c", [0.6, 0.8])] {
        server.add_vectors(&library, title, &[vector.to_vec()]).await;
    }
    let mmr = |lambda: f64| json!({"rerank_function": "mmr", "rerank_params": {"lambda": lambda}});
    let answer = ask(&server, &library, "rerank", &mmr(0.4)).await.expect(200);
    check(&answer, &[("a", 0.4), ("c", 0.32 - 0.48), ("b", 0.4 - 0.6)]);
    let answer = ask(&server, &library, "rerank", &mmr(1.0)).await.expect(200);
    check(&answer, &[("a", 1.0), ("b", 1.0), ("c", 0.8)]);
    let usual = json!({"rerank_function": "mmr", "k": 1});
    let answer = ask(&server, &library, "rerank", &usual).await.expect(200);
    check(&answer, &[("a", 0.5)]);
    assert_eq!(answer["rerank_params"], json!({"lambda": 0.5}));
}

/// Checks that bodies are refused, and which fields are named.
async fn refused(server: &Server, library: &str, route: &str, cases: &[(Value, Vec<&str>)]) {
    for (body, pointers) in cases {
        let refused = ask(server, library, route, body).await;
        refused.problem(422, "ValidationError");
        let (mut found, mut expected) = (refused.pointers(), pointers.clone());
        found.sort();
        expected.sort_unstable();
        assert_eq!(found, expected, "{}", body.to_string().chars().take(200).collect::<String>());
    }
}

#[tokio::test]
async fn hybrid_settings_without_meaning_are_refused_where_they_are_wrong() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let many: serde_json::Map<String, Value> =
        (0..33).map(|n| (format!("f{n}"), json!(1))).collect();
    let cases = [
        (json!({"vector_weight": 0.7, "metadata_weight": 0.4}), vec!["/metadata_weight"]),
        (
            json!({"scoring_config": {"vector_weight": 0.2, "metadata_weight": 0.2}}),
            vec!["/scoring_config/metadata_weight"],
        ),
        (json!({"vector_weight": 1.5}), vec!["/vector_weight"]),
        (json!({"metadata_weight": -0.1}), vec!["/metadata_weight"]),
        (
            json!({"scoring_config": {"vector_weight": "much"}}),
            vec!["/scoring_config/vector_weight"],
        ),
        (json!({"scoring_config": 1}), vec!["/scoring_config"]),
        (json!({"recency_half_life_days": 0.5}), vec!["/recency_half_life_days"]),
        (json!({"recency_boost": "yes"}), vec!["/recency_boost"]),
        (json!({"field_boosts": {"title": -1}}), vec!["/field_boosts/title"]),
        (json!({"field_boosts": many}), vec!["/field_boosts"]),
        (json!({"query_metadata": {"a~/b": {"c": 1}}}), vec!["/query_metadata/a~0~1b"]),
        (json!({"query_metadata": {"tags": vec![1; 257]}}), vec!["/query_metadata/tags"]),
        (json!({"fusion": "best"}), vec!["/fusion"]),
        (json!({"alpha": 2}), vec!["/alpha"]),
        (json!({"mode": "keyword", "query": "words"}), vec!["/mode"]),
        (json!({"k": 0}), vec!["/k"]),
        (json!({"k": 20, "candidates": 19}), vec!["/candidates"]),
        (json!({"candidates": 1001}), vec!["/candidates"]),
        (json!({"fusion": "rrf"}), vec!["/query"]),
        (
            json!({"vector_weight": 2, "field_boosts": {"a": "b"}}),
            vec!["/field_boosts/a", "/vector_weight"],
        ),
    ];
    refused(&server, &library, "hybrid", &cases).await;
}

#[tokio::test]
async fn parameters_without_meaning_are_refused_where_they_are_wrong() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let cases = [
        (json!({"rerank_function": "best"}), vec!["/rerank_function"]),
        (json!({"rerank_params": [1]}), vec!["/rerank_params"]),
        (json!({"rerank_params": {"half_life_days": 0}}), vec!["/rerank_params/half_life_days"]),
        (json!({"rerank_params": {"half_life_days": "30"}}), vec!["/rerank_params/half_life_days"]),
        (json!({"rerank_params": {"prefer_early": true}}), vec!["/rerank_params/prefer_early"]),
        (
            json!({"rerank_function": "position", "rerank_params": {"prefer_early": 1}}),
            vec!["/rerank_params/prefer_early"],
        ),
        (
            json!({"rerank_function": "length", "rerank_params": {"prefer_longer": "no", "x": 1}}),
            vec!["/rerank_params/x", "/rerank_params/prefer_longer"],
        ),
        (
            json!({"rerank_function": "mmr", "rerank_params": {"lambda": 1.1}}),
            vec!["/rerank_params/lambda"],
        ),
        (json!({"mode": "keyword", "query": "words"}), vec!["/mode"]),
        (json!({"candidates": 0}), vec!["/candidates"]),
    ];
    refused(&server, &library, "rerank", &cases).await;
}

#[tokio::test]
async fn weights_and_expressions_are_refused_before_anything_is_searched() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let custom = |params: Value| json!({"rerank_function": "custom", "rerank_params": params});
    let expression = |text: &str| custom(json!({ "expression": text }));
    let deep = format!("{}1{}", "(".repeat(10_000), ")".repeat(10_000));
    let nested = format!("{}1{}", "(".repeat(300), ")".repeat(300));
    let cases = [
        (custom(json!({})), vec!["/rerank_params/expression"]),
        (custom(json!({"expression": "1", "weights": {}})), vec!["/rerank_params/expression"]),
        (custom(json!({"weights": {"likes": 1}})), vec!["/rerank_params/weights/likes"]),
        (
            custom(json!({"weights": {"similarity": "1", "field": {"a": []}}})),
            vec!["/rerank_params/weights/field/a", "/rerank_params/weights/similarity"],
        ),
        (custom(json!({"weights": 1})), vec!["/rerank_params/weights"]),
        (custom(json!({"expression": 1})), vec!["/rerank_params/expression"]),
        (expression("similarity +"), vec!["/rerank_params/expression"]),
        (expression("system(1)"), vec!["/rerank_params/expression"]),
        (expression("1e999"), vec!["/rerank_params/expression"]),
        (expression(&deep), vec!["/rerank_params/expression"]),
        (expression(&nested), vec!["/rerank_params/expression"]),
    ];
    refused(&server, &library, "rerank", &cases).await;
    let answer = ask(&server, &library, "rerank", &expression("similarity similarity")).await;
    let said = answer.problem(422, "ValidationError")["errors"][0]["detail"].clone();
    assert!(
        said.as_str().expect("a text").contains("an operator is needed, at character 12"),
        "{said}"
    );
}

#[tokio::test]
async fn a_query_and_a_library_are_needed() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    for route in ["hybrid", "rerank"] {
        let path = format!("/v1/libraries/{library}/search/{route}");
        assert_eq!(server.post(&path, &json!({})).await.pointers(), ["/query"]);
        let short = server.post(&path, &json!({"embedding": [1]})).await;
        assert_eq!(short.status, 400, "{}", short.text());
        let none = "/v1/libraries/00000000-0000-4000-8000-000000000000/search";
        let missing = server.post(&format!("{none}/{route}"), &json!({"embedding": [1, 0]})).await;
        missing.problem(404, "LibraryNotFoundError");
        let empty = server.post(&path, &json!({"embedding": [1, 0]})).await.expect(200);
        assert_eq!(empty["results"], json!([]));
    }
}
