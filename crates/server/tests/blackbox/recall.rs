//! Searches that say which recall they want, and figures of structures.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::vectors::Seeded;
use crate::harness::{Client, Site, until};

const DIMENSION: usize = 16;
const ROWS: usize = 5000;

fn vectors(seed: u64, count: usize) -> Vec<Vec<f32>> {
    let mut random = Seeded::new(seed);
    (0..count).map(|_| random.vector(DIMENSION)).collect()
}

async fn filled(client: &Client, mut settings: Value) -> String {
    settings["name"] = json!("recalled");
    settings["embedding_dimension"] = json!(DIMENSION);
    let id = client.library_with(&settings).await;
    for (at, part) in vectors(1, ROWS).chunks(1000).enumerate() {
        client.add_vectors(&id, &format!("part {at}"), part).await;
    }
    id
}

async fn rebuild(client: &Client, library: &str, body: &Value) {
    client.post(&format!("/v1/libraries/{library}/index/rebuild"), body).await.expect(200);
}

async fn statistics(client: &Client, library: &str) -> Value {
    client.get(&format!("/v1/libraries/{library}/index/statistics")).await.expect(200)
}

/// The statistics, once it is measured what searches find.
async fn measured(client: &Client, library: &str) -> Value {
    until("what searches find is measured", async || {
        let stats = statistics(client, library).await;
        let current = stats["index_stats"]["calibration"]["current"] == true;
        current.then_some(stats)
    })
    .await
}

fn ids(answer: &Value) -> Vec<&str> {
    let results = answer["results"].as_array().expect("results");
    results.iter().map(|hit| hit["chunk"]["id"].as_str().expect("id")).collect()
}

/// Searches for a recall; what `explain` says of it, and the part that is found.
async fn wanted(client: &Client, library: &str, recall: f64) -> (Value, f64) {
    let (mut explained, mut found, queries) = (Value::Null, 0, vectors(2, 40));
    for query in &queries {
        let body = json!({ "embedding": query, "recall": recall, "explain": true });
        let answer = client.find(library, &body).await.expect(200);
        let exact = json!({ "embedding": query, "exact": true });
        let exact = client.find(library, &exact).await.expect(200);
        assert_eq!(answer["total_results"], 10);
        let truth = ids(&exact);
        found += ids(&answer).iter().filter(|id| truth.contains(id)).count();
        explained = answer["explain"].clone();
    }
    let found = u32::try_from(found).expect("few");
    (explained, f64::from(found) / 400.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wanted_recall_is_found_by_what_was_measured() {
    let site = Site::new().await;
    let server = site.start().await;
    let graph = json!({ "M": 6, "ef_construction": 30, "ef_search": 10 });
    let id = filled(&server, json!({ "index_type": "hnsw", "index_config": graph })).await;
    rebuild(&server, &id, &Value::Null).await;
    let stats = measured(&server, &id).await;
    let index = &stats["index_stats"];
    let usual = index["estimated_accuracy_percent"].as_f64().expect("measured");
    assert!(usual > 30.0 && usual < 99.0, "a narrow walk of a thin graph misses some: {usual}");
    let curves = index["calibration"]["curves"].as_array().expect("curves");
    assert_eq!(curves.iter().map(|curve| curve["k"].clone()).collect::<Vec<_>>(), [1, 10, 100]);
    for point in curves.iter().flat_map(|curve| curve["points"].as_array().expect("points")) {
        assert!(point["parameters"]["ef_search"].is_u64(), "{point}");
        assert!(point["recall_min"].as_f64() < point["recall"].as_f64(), "{point}");
    }

    let mut widths = Vec::new();
    for recall in [0.5, 0.9, 0.95] {
        let (explain, found) = wanted(&server, &id, recall).await;
        assert_eq!(explain["recall"]["wanted_recall"], recall);
        assert_eq!(explain["recall"]["basis"], "measured");
        assert!(explain["recall"]["estimated_recall"].as_f64() >= Some(recall), "{explain}");
        assert!(found >= recall, "{found} of {recall}: {explain}");
        assert!(explain["segments_walked"].as_u64() > Some(0), "{explain}");
        widths.push(explain["recall"]["parameters"]["ef_search"].as_u64().expect("a width"));
    }
    assert!(
        widths.is_sorted() && widths[0] < widths[2],
        "more is found by wider walks: {widths:?}"
    );
    let (all, found) = wanted(&server, &id, 1.0).await;
    assert_eq!(
        (&all["exact"], &all["recall"]["parameters"]),
        (&json!(true), &json!({ "exact": true }))
    );
    assert_eq!(all["recall"]["estimated_recall"], 1.0);
    assert!(found > 0.9999);

    // Another structure is measured anew, and asked in its own words.
    rebuild(&server, &id, &json!({ "index_type": "ivf" })).await;
    measured(&server, &id).await;
    let (explain, found) = wanted(&server, &id, 0.9).await;
    assert!(explain["recall"]["parameters"]["nprobe"].is_u64(), "{explain}");
    assert!(found >= 0.9, "{found}: {explain}");
}

#[tokio::test]
async fn where_nothing_can_be_missed_nothing_is_measured() {
    let site = Site::new().await;
    let server = site.start().await;
    let coded = json!({ "quantization_config": { "strategy": "scalar" } });
    let id = filled(&server, coded).await;
    rebuild(&server, &id, &Value::Null).await;
    let stats = statistics(&server, &id).await;
    assert_eq!(stats["quantization"]["estimated_accuracy_percent"], 100.0);
    assert_eq!(stats["index_stats"]["estimated_accuracy_percent"], 100.0);
    assert_eq!(stats["index_stats"]["calibration"], Value::Null);
    let (explain, found) = wanted(&server, &id, 0.9).await;
    let exact = json!({ "wanted_recall": 0.9, "estimated_recall": 1.0, "basis": "exact", "parameters": {} });
    assert_eq!(explain["recall"], exact);
    assert!(found > 0.9999);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_by_codes_that_only_estimate_is_measured_and_all_is_found_where_all_is_wanted() {
    let site = Site::new().await;
    let server = site.start().await;
    for strategy in ["binary", "product"] {
        let coded = json!({ "quantization_config": { "strategy": strategy } });
        let id = filled(&server, coded).await;
        rebuild(&server, &id, &Value::Null).await;
        for basis in ["unmeasured", "measured"] {
            if basis == "measured" {
                let stats = measured(&server, &id).await;
                let usual = &stats["index_stats"]["estimated_accuracy_percent"];
                assert!(usual.as_f64().is_some_and(|usual| usual > 90.0), "{strategy}: {usual}");
            }
            let (explain, found) = wanted(&server, &id, 1.0).await;
            let all = json!({ "wanted_recall": 1.0, "estimated_recall": 1.0, "basis": basis, "parameters": { "exact": true } });
            assert_eq!(explain["recall"], all, "{strategy}");
            assert_eq!((&explain["exact"], &explain["codes_scored"]), (&json!(true), &json!(0)));
            assert!(found > 0.9999, "{strategy}, {basis}: {found}");
        }
        let (explain, found) = wanted(&server, &id, 0.8).await;
        assert_eq!(explain["recall"]["basis"], "measured", "{strategy}: {explain}");
        assert!(found >= 0.8, "{strategy}: {found}: {explain}");
        server.delete(&format!("/v1/libraries/{id}")).await.expect(204);
    }
}

#[tokio::test]
async fn a_recall_out_of_range_or_beside_an_effort_is_refused_by_every_search() {
    let site = Site::new().await;
    let server = site.start().await;
    let id = server.library().await;
    let body = json!({ "title": "t", "texts": ["green parrots", "blue whales"] });
    server.post(&format!("/v1/libraries/{id}/documents"), &body).await.expect(201);
    let path = format!("/v1/libraries/{id}/search");
    let texts = json!({ "query": "parrots" });
    let made = server.post(&path, &json!({ "query": "parrots", "include_embeddings": true })).await;
    let vector = made.expect(200)["results"][0]["chunk"]["embedding"].clone();
    let refused = [
        json!({ "recall": 0 }),
        json!({ "recall": -0.5 }),
        json!({ "recall": 1.01 }),
        json!({ "recall": "0.9" }),
        json!({ "recall": true }),
        json!({ "recall": [0.9] }),
        json!({ "recall": 0.9, "ef_search": 10 }),
        json!({ "recall": 0.9, "nprobe": 10 }),
        json!({ "recall": 0.9, "exact": true }),
    ];
    for (path, asked) in [
        (path.clone(), texts.clone()),
        (format!("{path}/stream"), texts),
        (format!("{path}/embedding"), json!({ "embedding": vector })),
    ] {
        for fields in &refused {
            let answer = server.post(&path, &with(&asked, fields)).await;
            answer.problem(422, "ValidationError");
            assert_eq!(answer.pointers(), ["/recall"], "{path} {fields}");
        }
        for fields in [json!({ "recall": 1 }), json!({ "recall": 1e-9, "exact": false })] {
            let body = with(&with(&asked, &fields), &json!({ "explain": true }));
            let answer = server.post(&path, &body).await.expect(200);
            assert_eq!(answer["explain"]["recall"]["basis"], "exact", "{path} {fields}");
        }
    }
    for wrong in ["recall=0", "recall=2", "recall=x", "recall=NaN", "recall=0.9&ef_search=9"] {
        let answer = server.raw(Method::POST, &format!("{path}/stream?query=x&{wrong}"), "").await;
        assert_eq!(answer.pointers(), ["/query/recall"], "{wrong}");
    }
    let query = format!("{path}/stream?query=parrots&recall=0.9&explain=true");
    let answer = server.raw(Method::POST, &query, "").await.expect(200);
    assert_eq!(answer["explain"]["recall"]["wanted_recall"], 0.9);
}

fn with(body: &Value, fields: &Value) -> Value {
    let mut body = body.clone();
    for (name, value) in fields.as_object().expect("fields") {
        body[name] = value.clone();
    }
    body
}

#[tokio::test]
async fn statistics_have_the_figures_of_every_type() {
    let site = Site::new().await;
    let server = site.start().await;
    let id = filled(&server, json!({})).await;
    for (name, numbers) in [
        ("kd_tree", &["tree_depth", "modifications_since_rebuild", "rebuild_threshold"][..]),
        ("lsh", &["num_tables", "hash_size", "total_buckets", "avg_bucket_size"]),
        ("ivf", &["n_clusters", "nprobe", "avg_list_size", "min_list_size", "max_list_size"]),
        ("ivf_pq", &["avg_list_size", "pq_subvectors", "compression_ratio"]),
    ] {
        rebuild(&server, &id, &json!({ "index_type": name })).await;
        let stats = statistics(&server, &id).await;
        let index = &stats["index_stats"];
        for field in numbers {
            assert!(index[field].is_number(), "{name} {field}: {index}");
        }
        let number = |field: &str| index[field].as_f64().expect(field);
        let rows = number("rows_indexed");
        match name {
            "kd_tree" => {
                assert!(number("tree_depth") > 3.0, "{index}");
                assert!((number("modifications_since_rebuild") - (ROWS as f64 - rows)).abs() < 0.5);
            }
            "lsh" => {
                let all = number("total_buckets") * number("avg_bucket_size");
                assert!((all / (rows * number("num_tables")) - 1.0).abs() < 0.01, "{index}");
            }
            _ => {
                assert!(number("min_list_size") <= number("avg_list_size"), "{index}");
                assert!(number("avg_list_size") <= number("max_list_size"), "{index}");
                let all = number("lists") * number("avg_list_size");
                assert!((all / rows - 1.0).abs() < 0.01, "{index}");
                assert_eq!((&index["built"], &index["index_type"]), (&json!(true), &json!(name)));
            }
        }
        if name == "ivf_pq" {
            assert!(number("compression_ratio") > 2.0, "{index}");
        }
    }
}
