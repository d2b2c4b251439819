//! What libraries are searched by: asked for, built, changed under way, explained, kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrwdb_engine::state::{Metric, Structure};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::harness::vectors::Seeded;
use crate::harness::{Client, Server, Site, until};

const DIMENSION: usize = 8;
/// Enough for a segment to have a structure of its own, with some to spare.
const ROWS: usize = 5000;
/// A graph that is built soon.
const SMALL: &str = r#"{"M": 8, "ef_construction": 40}"#;

fn vectors(seed: u64, count: usize) -> Vec<Vec<f32>> {
    let mut random = Seeded::new(seed);
    (0..count).map(|_| random.vector(DIMENSION)).collect()
}

async fn library(client: &Client, settings: Value) -> String {
    let mut body = json!({ "name": "indexed", "embedding_dimension": DIMENSION });
    for (name, value) in settings.as_object().expect("settings") {
        body[name] = value.clone();
    }
    client.library_with(&body).await
}

async fn fill(client: &Client, library: &str, all: &[Vec<f32>]) {
    for (at, part) in all.chunks(1000).enumerate() {
        client.add_vectors(library, &format!("part {at}"), part).await;
    }
}

async fn rebuild(client: &Client, library: &str, body: &Value) -> Value {
    client.post(&format!("/v1/libraries/{library}/index/rebuild"), body).await.expect(200)
}

fn distances(answer: &Value) -> Vec<f64> {
    let results = answer["results"].as_array().expect("results");
    results.iter().map(|hit| hit["distance"].as_f64().expect("distance")).collect()
}

fn ids(answer: &Value) -> Vec<&str> {
    let results = answer["results"].as_array().expect("results");
    results.iter().map(|hit| hit["chunk"]["id"].as_str().expect("id")).collect()
}

/// The distance as the API means it.
fn distance(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    let pairs = || a.iter().zip(b).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let norm = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let dot: f64 = pairs().map(|(a, b)| a * b).sum();
    match metric {
        Metric::Cosine => 1.0 - dot / (norm(a) * norm(b)),
        Metric::Dot => 1.0 - dot,
        Metric::L2 => pairs().map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt(),
    }
}

fn nearest(metric: Metric, all: &[Vec<f32>], query: &[f32], k: usize) -> Vec<f64> {
    let mut exact: Vec<f64> = all.iter().map(|vector| distance(metric, vector, query)).collect();
    exact.sort_by(f64::total_cmp);
    exact.truncate(k);
    exact
}

#[track_caller]
fn assert_near(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-4, "{found} for {expected}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_is_built_for_every_metric_and_exact_searches_are() {
    let site = Site::new().await;
    let server = site.start().await;
    let all = vectors(1, ROWS);
    let queries = vectors(2, 5);
    for metric in Metric::ALL {
        for name in Structure::TYPES {
            let id = library(&server, json!({ "index_type": name, "metric": metric.name() })).await;
            let made = server.get(&format!("/v1/libraries/{id}")).await.expect(200);
            assert_eq!(made["metadata"]["index_type"], name);
            assert_eq!(made["metadata"]["metric"], metric.name());
            let usual = Structure::new(name, &[]).expect("a type");
            let config = &made["metadata"]["index_config"];
            assert_eq!(config.as_object().expect("config").len(), usual.parameters().len());
            for (parameter, number) in usual.parameters() {
                assert_eq!(config[parameter], number, "{name} {parameter}");
            }
            fill(&server, &id, &all).await;
            let rebuilt = rebuild(&server, &id, &json!({})).await;
            assert_eq!(
                (&rebuilt["old_index_type"], &rebuilt["new_index_type"]),
                (&json!(name), &json!(name))
            );
            assert_eq!(rebuilt["total_vectors_reindexed"], ROWS);
            let (mut found_of, mut found) = (0, 0);
            for query in &queries {
                let body = json!({ "embedding": query, "k": 10, "exact": true, "explain": true });
                let all_scored = server.find(&id, &body).await.expect(200);
                assert_near(&distances(&all_scored), &nearest(metric, &all, query, 10));
                assert_eq!(all_scored["explain"]["exact"], true);
                assert_eq!(all_scored["explain"]["segments_walked"], 0);
                let body = json!({ "embedding": query, "k": 10, "explain": true });
                let answer = server.find(&id, &body).await.expect(200);
                assert_eq!(answer["explain"]["index_type"], name);
                assert_eq!(answer["total_results"], 10);
                let walked = answer["explain"]["segments_walked"].as_u64().expect("a number");
                assert_eq!(walked > 0, name != "brute_force", "{name} {}", answer["explain"]);
                // A tree is walked, and finds the nearest.
                let exact = walked == 0 || name == "kd_tree";
                assert_eq!(answer["explain"]["exact"], exact);
                let truth = ids(&all_scored);
                found_of += truth.len();
                found += ids(&answer).iter().filter(|id| truth.contains(id)).count();
            }
            assert!(found * 10 >= found_of * 9, "{name} {}: {found} of {found_of}", metric.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_go_on_while_an_index_is_built_and_it_outlives_the_server() {
    let site = Site::new().await;
    let server = site.start().await;
    let all = vectors(3, ROWS);
    let id = library(&server, json!({})).await;
    fill(&server, &id, &all).await;
    let query = vectors(4, 1).remove(0);
    let body = json!({ "embedding": query, "k": 10, "explain": true });
    let before = server.find(&id, &body).await.expect(200);
    assert_eq!(before["explain"]["segments_walked"], 0);
    assert_eq!(before["explain"]["segments_scanned"], before["explain"]["segments"]);
    assert_eq!(before["explain"]["rows_scored"], ROWS);
    assert!(
        server.find(&id, &json!({ "embedding": query })).await.expect(200).get("explain").is_none()
    );

    let reader = Reader::begin(&server.client, &id, &body);
    let small: Value = serde_json::from_str(SMALL).expect("JSON");
    let changes = [
        (json!({ "index_type": "hnsw", "index_config": small }), "brute_force", "hnsw"),
        (json!({ "index_type": "brute_force" }), "hnsw", "brute_force"),
        (
            json!({ "index_type": "hnsw", "index_config": small, "quantization_config": { "strategy": "scalar" } }),
            "brute_force",
            "hnsw",
        ),
        (json!({ "quantization_config": { "strategy": "none" } }), "hnsw", "hnsw"),
    ];
    for (body, old, new) in changes {
        let seen = reader.count();
        let answer = rebuild(&server, &id, &body).await;
        assert_eq!(
            (&answer["old_index_type"], &answer["new_index_type"]),
            (&json!(old), &json!(new))
        );
        assert_eq!(answer["message"], format!("Index rebuilt successfully ({old} \u{2192} {new})"));
        let rows = answer["rows_indexed"].as_u64().expect("rows");
        let least = if new == "hnsw" { 4096 } else { 0 };
        let most = if new == "hnsw" { ROWS as u64 } else { 0 };
        assert!((least..=most).contains(&rows), "{answer}");
        until("a search is answered", async || (reader.count() > seen).then_some(())).await;
    }
    reader.end().await;

    let walked = server.find(&id, &body).await.expect(200);
    assert_eq!(walked["explain"]["index_type"], "hnsw");
    assert!(walked["explain"]["segments_walked"].as_u64() > Some(0), "{}", walked["explain"]);
    assert!(walked["explain"]["rows_scored"].as_u64() < Some(ROWS as u64));
    let exact = json!({ "embedding": query, "k": 10, "exact": true });
    let exact = server.find(&id, &exact).await.expect(200);
    assert_eq!(ids(&exact), ids(&before), "an exact search is what it was");
    stays_over_restarts(&site, server, (&id, &body), &walked).await;
}

/// Searches without a pause, and wants a full answer each time.
struct Reader {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Reader {
    fn begin(client: &Client, library: &str, body: &Value) -> Reader {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn({
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            let (client, library, body) = (client.clone(), library.to_owned(), body.clone());
            async move {
                while !stop.load(Ordering::SeqCst) {
                    let answer = client.find(&library, &body).await.expect(200);
                    assert_eq!(answer["total_results"], 10, "{}", answer["explain"]);
                    count.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Reader { stop, count, task }
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.expect("every search is answered in full");
    }
}

/// A search finds by the same steps what it found, after a clean end of the server and after none.
async fn stays_over_restarts(
    site: &Site,
    mut server: Server,
    (id, body): (&str, &Value),
    walked: &Value,
) {
    for kills in [false, true] {
        if kills {
            server.kill();
        } else {
            server.terminate();
            server.ended().await;
        }
        server = site.start().await;
        let metadata = server.get(&format!("/v1/libraries/{id}")).await.expect(200);
        let config = json!({ "M": 8, "ef_construction": 40, "ef_search": 50 });
        assert_eq!(metadata["metadata"]["index_config"], config);
        let again = server.find(id, body).await.expect(200);
        assert_eq!(again["explain"]["segments_walked"], walked["explain"]["segments_walked"]);
        assert_eq!(again["explain"]["rows_scored"], walked["explain"]["rows_scored"]);
        assert_eq!(ids(&again), ids(walked));
    }
}

#[tokio::test]
async fn statistics_metrics_and_metadata_tell_what_is_measured() {
    let site = Site::new().await;
    let server = site.start().await;
    let small: Value = serde_json::from_str(SMALL).expect("JSON");
    let settings = json!({ "index_type": "hnsw", "index_config": small,
        "quantization_config": { "strategy": "hybrid", "rerank_top_k": 20 } });
    let id = library(&server, settings).await;
    let path = format!("/v1/libraries/{id}");
    let quantization =
        || async { server.get(&path).await.expect(200)["metadata"]["quantization"].clone() };
    let unmeasured = json!({ "strategy": "hybrid", "bits": 8, "rerank_top_k": 20,
        "memory_savings_percent": null, "estimated_accuracy_percent": null });
    assert_eq!(quantization().await, unmeasured, "nothing is built");
    let empty = server.get(&format!("{path}/index/statistics")).await.expect(200);
    assert_eq!(empty["index_stats"]["segments_indexed"], 0);
    assert!(empty["index_stats"].get("num_levels").is_none());
    fill(&server, &id, &vectors(5, ROWS)).await;
    let rebuilt = rebuild(&server, &id, &Value::Null).await;
    assert_eq!(rebuilt["quantization"], "hybrid");

    let stats = until("what searches find is measured", async || {
        let stats = server.get(&format!("{path}/index/statistics")).await.expect(200);
        let measured = stats["quantization"]["estimated_accuracy_percent"].is_number();
        measured.then_some(stats)
    })
    .await;
    assert_eq!((&stats["library_id"], &stats["index_type"]), (&json!(id), &json!("hnsw")));
    assert_eq!(stats["total_vectors"], ROWS);
    let index = &stats["index_stats"];
    for (name, value) in [
        ("type", json!("hnsw")),
        ("size", json!(ROWS)),
        ("vector_store_dim", json!(DIMENSION)),
        ("supports_incremental", json!(true)),
        ("M", json!(8)),
        ("ef_construction", json!(40)),
        ("ef_search", json!(50)),
    ] {
        assert_eq!(index[name], value, "{name}: {index}");
    }
    let rows = index["rows_indexed"].as_u64().expect("rows");
    assert!((4096..=ROWS as u64).contains(&rows), "{index}");
    assert_eq!(index["level_counts"]["0"], rows, "every row is in the lowest layer");
    let levels = index["num_levels"].as_u64().expect("levels");
    assert_eq!(index["level_counts"].as_object().expect("levels").len() as u64, levels);
    assert!((2..16).contains(&levels), "{index}");
    assert!(index["avg_connections"].as_f64() > Some(4.0), "{index}");
    assert!(index["bytes"].as_u64() > index["code_bytes"].as_u64(), "{index}");
    let codes = index["code_bytes"].as_f64().expect("bytes");
    let vectors = (rows * 4) as f64 * DIMENSION as f64;
    let saved = ((1.0 - codes / vectors) * 10_000.0).round() / 100.0;
    assert_eq!(stats["quantization"]["memory_savings_percent"], saved);
    assert_eq!(quantization().await, stats["quantization"]);
    let listed = server.get("/v1/libraries").await.expect(200);
    assert_eq!(listed[0]["metadata"]["quantization"], unmeasured, "lists do not open libraries");
    let whole = server.get(&format!("{path}/statistics")).await.expect(200);
    assert_eq!(&whole["index_stats"], index);

    optimizing_keeps_settings_and_is_counted(&server, &id, &stats).await;
}

async fn optimizing_keeps_settings_and_is_counted(server: &Server, id: &str, stats: &Value) {
    let path = format!("/v1/libraries/{id}");
    let answer = server.raw(Method::POST, &format!("{path}/index/optimize"), "").await.expect(200);
    assert_eq!(answer["message"], "Index optimized successfully");
    for name in ["vectors_compacted", "memory_freed_bytes", "optimization_time_ms"] {
        assert!(answer[name].is_number(), "{name}: {answer}");
    }
    let after = server.get(&format!("{path}/index/statistics")).await.expect(200);
    assert_eq!(after["index_config"], stats["index_config"], "settings stay");
    assert_eq!(after["index_stats"]["rows_indexed"], ROWS, "one file, one structure");
    let metrics = server.get("/metrics").await.text();
    for wanted in [
        format!(
            "vectordb_index_rebuilds_total{{library_id=\"{id}\",old_type=\"hnsw\",new_type=\"hnsw\"}} 1"
        ),
        format!("vectordb_index_optimizations_total{{library_id=\"{id}\",index_type=\"hnsw\"}} 1"),
        format!(
            "vectordb_index_rebuild_duration_seconds_count{{library_id=\"{id}\",index_type=\"hnsw\"}} 1"
        ),
        format!("arrwdb_index_bytes {}", after["index_stats"]["bytes"]),
    ] {
        assert!(metrics.contains(&wanted), "{wanted} in {metrics}");
    }
}

/// Settings of an index with the pointer of what is wrong with each.
fn wrong_settings() -> Vec<(String, &'static str)> {
    let config = |text: &str| format!(r#"{{"index_type": "hnsw", "index_config": {text}}}"#);
    let scalar = |text: &str| format!(r#"{{"quantization_config": {text}}}"#);
    vec![
        (r#"{"index_type": 7}"#.to_owned(), "/index_type"),
        (r#"{"index_type": "magic"}"#.to_owned(), "/index_type"),
        (r#"{"index_type": "HNSW"}"#.to_owned(), "/index_type"),
        (r#"{"index_type": "hnsw", "index_type": "hnsw"}"#.to_owned(), "/index_type"),
        (r#"{"index_config": {"M": 8}}"#.to_owned(), "/index_config/M"),
        (r#"{"index_config": 7}"#.to_owned(), "/index_config"),
        (r#"{"index_config": ["M"]}"#.to_owned(), "/index_config"),
        (config(r#"{"M": "16"}"#), "/index_config/M"),
        (config(r#"{"M": 1}"#), "/index_config/M"),
        (config(r#"{"M": 129}"#), "/index_config/M"),
        (config(r#"{"M": -1}"#), "/index_config/M"),
        (config(r#"{"M": 1.5}"#), "/index_config/M"),
        (config(r#"{"M": 1e999}"#), "/index_config/M"),
        (config(r#"{"M": 18446744073709551616}"#), "/index_config/M"),
        (config(r#"{"M": {}}"#), "/index_config/M"),
        (config(r#"{"M": true}"#), "/index_config/M"),
        (config(r#"{"M": 8, "M": 8}"#), "/index_config/M"),
        (config(r#"{"m": 8}"#), "/index_config/m"),
        (config(r#"{"": 8}"#), "/index_config/"),
        (config(r#"{"ef_construction": 3}"#), "/index_config/ef_construction"),
        (config(r#"{"ef_search": 10001}"#), "/index_config/ef_search"),
        (scalar("7"), "/quantization_config"),
        (scalar(r#"{"strategy": "adaptive"}"#), "/quantization_config/strategy"),
        (scalar(r#"{"strategy": 8}"#), "/quantization_config/strategy"),
        (scalar(r#"{"strategy": "scalar", "bits": 5}"#), "/quantization_config/bits"),
        (scalar(r#"{"strategy": "scalar", "bits": 16}"#), "/quantization_config/bits"),
        (
            scalar(r#"{"strategy": "hybrid", "rerank_top_k": 9}"#),
            "/quantization_config/rerank_top_k",
        ),
        (scalar(r#"{"strategy": "scalar", "depth": 9}"#), "/quantization_config/depth"),
        (scalar(r#"{"strategy": "binary", "bits": 1}"#), "/quantization_config/bits"),
        (
            scalar(r#"{"strategy": "binary", "rerank_top_k": 1001}"#),
            "/quantization_config/rerank_top_k",
        ),
        (
            scalar(r#"{"strategy": "product", "pq_subvectors": 99999}"#),
            "/quantization_config/pq_subvectors",
        ),
    ]
}

#[tokio::test]
async fn wrong_settings_are_refused_and_named() {
    let site = Site::new().await;
    let server = site.start().await;
    let id = library(&server, json!({})).await;
    let rebuild_path = format!("/v1/libraries/{id}/index/rebuild");
    for (settings, pointer) in wrong_settings() {
        let rest = settings.strip_prefix('{').expect("an object");
        let create = format!(r#"{{"name": "x", {rest}"#);
        for (path, body) in [("/v1/libraries", create), (rebuild_path.as_str(), settings.clone())] {
            let answer = server.raw(Method::POST, path, body.clone()).await;
            answer.problem(422, "ValidationError");
            assert_eq!(answer.pointers(), [pointer], "{path} {body}");
        }
    }
    let nan =
        server.raw(Method::POST, &rebuild_path, r#"{"index_config": {"M": NaN}}"#.to_owned()).await;
    nan.problem(422, "JsonInvalidError");
    let fixed = server.post(&rebuild_path, &json!({ "metric": "l2" })).await;
    assert_eq!(fixed.pointers(), ["/metric"], "{}", fixed.text());
    let kept = server.get(&format!("/v1/libraries/{id}")).await.expect(200);
    assert_eq!(kept["metadata"]["index_type"], "brute_force", "nothing was changed");
    assert_eq!(server.get("/v1/libraries").await.expect(200).as_array().expect("a list").len(), 1);
}

#[tokio::test]
async fn wrong_metrics_are_refused_and_named() {
    let site = Site::new().await;
    let server = site.start().await;
    for metric in [json!("magic"), json!("Cosine"), json!(2)] {
        for field in ["metric", "distance_metric"] {
            let mut body = json!({ "name": "x" });
            body[field] = metric.clone();
            let answer = server.post("/v1/libraries", &body).await;
            answer.problem(422, "ValidationError");
            assert_eq!(answer.pointers(), [format!("/{field}")], "{body}");
        }
    }
    assert_eq!(server.get("/v1/libraries").await.expect(200), json!([]));
}

#[tokio::test]
async fn metrics_have_other_names_and_thresholds_of_their_own() {
    let site = Site::new().await;
    let server = site.start().await;
    for (field, name, metric) in [
        ("metric", "euclidean", "l2"),
        ("metric", "inner_product", "dot"),
        ("distance_metric", "ip", "dot"),
        ("distance_metric", "cosine", "cosine"),
    ] {
        let made = library(&server, json!({ field: name })).await;
        let made = server.get(&format!("/v1/libraries/{made}")).await.expect(200);
        assert_eq!(made["metadata"]["metric"], metric);
    }
    let both = json!({ "name": "x", "metric": "l2", "distance_metric": "dot" });
    assert_eq!(server.post("/v1/libraries", &both).await.pointers(), ["/metric"], "the second one");
    for (metric, allowed, refused) in [
        ("cosine", &[0.0, 2.0][..], &[-0.1, 2.1][..]),
        ("dot", &[-1e30, 0.0, 1e30], &[]),
        ("l2", &[0.0, 1e30], &[-0.1]),
    ] {
        let id = server.library_with(&json!({ "name": metric, "metric": metric })).await;
        let body = json!({ "title": "t", "texts": ["a b c"] });
        server.post(&format!("/v1/libraries/{id}/documents"), &body).await.expect(201);
        let path = format!("/v1/libraries/{id}/search");
        for threshold in allowed {
            let body = json!({ "query": "a", "distance_threshold": threshold });
            server.post(&path, &body).await.expect(200);
            server.post(&format!("{path}/stream"), &body).await.expect(200);
        }
        for threshold in refused {
            let body = json!({ "query": "a", "distance_threshold": threshold });
            for path in [&path, &format!("{path}/stream")] {
                let answer = server.post(path, &body).await;
                answer.problem(422, "ValidationError");
                assert_eq!(answer.pointers(), ["/distance_threshold"]);
            }
            let query = format!("{path}/stream?query=a&distance_threshold={threshold}");
            let answer = server.raw(Method::POST, &query, "").await;
            assert_eq!(answer.pointers(), ["/query/distance_threshold"], "{}", answer.text());
        }
    }
}

/// A library of texts, and where it is searched.
async fn texts(server: &Server) -> String {
    let id = server.library().await;
    let body = json!({ "title": "t", "texts": ["green parrots", "blue whales"] });
    server.post(&format!("/v1/libraries/{id}/documents"), &body).await.expect(201);
    format!("/v1/libraries/{id}/search")
}

#[tokio::test]
async fn every_search_is_tuned_and_explained() {
    let site = Site::new().await;
    let server = site.start().await;
    let path = texts(&server).await;
    let body = json!({ "query": "parrots", "ef_search": 10_000, "exact": true, "explain": true });
    for path in [&path, &format!("{path}/stream")] {
        let answer = server.post(path, &body).await.expect(200);
        let explain = &answer["explain"];
        assert_eq!((&explain["exact"], &explain["rows_scored"]), (&json!(true), &json!(2)));
        assert_eq!(
            (&explain["quantization"], &explain["codes_scored"]),
            (&json!("none"), &json!(0))
        );
        for name in ["embedding_ms", "search_ms", "read_ms"] {
            assert!(explain[name].is_number(), "{name}");
        }
        for (field, values) in [
            ("ef_search", vec![json!(0), json!(10_001), json!(-1), json!("9"), json!(1.5)]),
            ("exact", vec![json!(1), json!("true")]),
            ("explain", vec![json!([])]),
        ] {
            for value in values {
                let mut body = body.clone();
                body[field] = value;
                let answer = server.post(path, &body).await;
                answer.problem(422, "ValidationError");
                assert_eq!(answer.pointers(), [format!("/{field}")], "{path} {body}");
            }
        }
    }
    let query = format!("{path}/stream?query=parrots&ef_search=9&exact=true&explain=true");
    let request = server.request(Method::POST, &query).header("Accept", "application/x-ndjson");
    let lines = server.send(request).await.lines();
    let (end, hits) = lines.split_last().expect("a last line");
    assert!(hits.iter().all(|hit| hit.get("explain").is_none()));
    assert_eq!((&end["status"], &end["explain"]["exact"]), (&json!("complete"), &json!(true)));
    for wrong in ["ef_search=0", "ef_search=10001", "exact=maybe", "explain=2"] {
        let answer = server.raw(Method::POST, &format!("{path}/stream?query=x&{wrong}"), "").await;
        let name = wrong.split('=').next().expect("a name");
        assert_eq!(answer.pointers(), [format!("/query/{name}")], "{wrong}");
    }
}
