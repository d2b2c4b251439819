//! Pages of what a search finds, and how many match: no passage twice and none missing, whatever is
//! written, deleted and merged between two pages.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::vectors::Seeded;
use crate::harness::{Server, Site};

/// A library of so many documents of two passages, whose vectors are few, so that many are as far.
async fn library(server: &Server, body: &Value, documents: u32) -> String {
    let library = server.library_with(body).await;
    let mut random = Seeded::new(11);
    for from in (0..documents).step_by(200) {
        let documents: Vec<Value> =
            (from..documents.min(from + 200)).map(|n| document(n, &mut random)).collect();
        let path = format!("/v1/libraries/{library}/documents/batch-with-embeddings");
        let added = server.post(&path, &json!({ "documents": documents })).await.expect(201);
        assert_eq!(added["failed"], 0);
    }
    library
}

fn document(n: u32, random: &mut Seeded) -> Value {
    let words = ["red apple", "green apple", "apple red", "red pear", "a red green apple"];
    let mut chunk = |part: u32| {
        let word = words[usize::try_from(random.bits() % 5).expect("few")];
        let mut number = || f64::from(u32::try_from(random.bits() % 3).expect("few")) - 0.9;
        let embedding = [number(), number(), number(), 1.0];
        json!({"text": format!("{word} {n}.{part}"), "embedding": embedding})
    };
    json!({
        "title": format!("Document {n}"), "metadata": {"n": n, "third": n % 3},
        "chunks": [chunk(0), chunk(1)],
    })
}

fn ids(answer: &Value) -> Vec<String> {
    let hits = answer["results"].as_array().expect("results").iter();
    hits.map(|hit| hit["chunk"]["id"].as_str().expect("an id").to_owned()).collect()
}

/// What is done between two pages: documents come and go, files are
/// merged, and structures are built anew.
async fn disturb(server: &Server, library: &str, turn: u32) {
    let mut random = Seeded::new(u64::from(turn) + 100);
    let path = format!("/v1/libraries/{library}/documents");
    let added: Vec<Value> = (0..20).map(|n| document(9000 + n, &mut random)).collect();
    let body = json!({ "documents": added });
    server.post(&format!("{path}/batch-with-embeddings"), &body).await.expect(201);
    let filter = json!({"filter": {"n": {"$in": [turn * 7, turn * 7 + 1, turn * 7 + 2]}}});
    server.post(&format!("{path}/delete"), &filter).await.expect(200);
    if turn % 3 == 1 {
        let path = format!("/v1/libraries/{library}/index/rebuild");
        server.post(&path, &json!({})).await.expect(200);
    }
}

/// All pages of a search, one after the other; every passage that was on one, in order.
async fn pages(server: &Server, library: &str, path: &str, body: &Value) -> Vec<String> {
    let (mut seen, mut cursor, mut turn) = (Vec::new(), json!("*"), 0);
    while !cursor.is_null() {
        let mut body = body.clone();
        body["cursor"] = cursor;
        let answer = server.post(path, &body).await.expect(200);
        let page = ids(&answer);
        assert!(page.len() <= 37);
        assert!(page.len() == 37 || answer["next_cursor"].is_null(), "only the last page is short");
        seen.extend(page);
        cursor = answer["next_cursor"].clone();
        disturb(server, library, turn).await;
        turn += 1;
    }
    assert!(turn > 2, "more than two pages");
    let once: BTreeSet<&String> = seen.iter().collect();
    assert_eq!(once.len(), seen.len(), "no passage comes twice");
    seen
}

#[tokio::test]
async fn exact_pages_are_one_search_cut_in_pieces() {
    let mut site = Site::new().await;
    site.set("CHECKPOINT_BYTES", "1048576");
    let server = site.start().await;
    let spec = json!({"name": "exact", "embedding_dimension": 4});
    let filter = json!({"third": {"$in": [0, 1]}});
    for (route, body) in [
        ("embedding", json!({"embedding": [1, 0, 0.5, 0.2]})),
        ("embedding", json!({"embedding": [1, 0, 0.5, 0.2], "filter": filter})),
        ("embedding", json!({"embedding": [1, 0, 0.5, 0.2], "distance_threshold": 0.8})),
        ("keyword", json!({"query": "red apple"})),
        ("keyword", json!({"query": "\"red apple\" green -pear", "filter": filter})),
        (
            "embedding",
            json!({"embedding": [1, 0, 0.5, 0.2], "query": "green apple", "mode": "hybrid"}),
        ),
    ] {
        let library = library(&server, &spec, 150).await;
        let path = |route: &str| format!("/v1/libraries/{library}/search/{route}");
        let now = server.get(&format!("/v1/libraries/{library}")).await.seq();
        let mut body = body;
        body["k"] = json!(37);
        // What one search for everything found before anything else was written.
        let mut whole: Vec<String> = Vec::new();
        let mut all = body.clone();
        all["count"] = json!(true);
        let first = server.post(&path(route), &all).await.expect(200);
        whole.extend(ids(&first));
        let total = first["total_matches"]["value"].as_u64().expect("a count");
        let seen = pages(&server, &library, &path(route), &body).await;
        if body["mode"] != "hybrid" {
            assert_eq!(seen[..37], whole[..], "{route}: the first page is as ever");
        }
        if first["total_matches"]["relation"] == "eq" {
            assert_eq!(seen.len() as u64, total, "{route} {body}: none is missing");
        } else {
            assert!(seen.len() as u64 >= total);
        }
        // As of then, pages of another size have the same passages in the same order.
        let (mut again, mut cursor) = (Vec::new(), json!("*"));
        while !cursor.is_null() {
            let mut other = body.clone();
            (other["k"], other["cursor"], other["as_of"]) = (json!(90), cursor, json!(now));
            let answer = server.post(&path(route), &other).await.expect(200);
            again.extend(ids(&answer));
            cursor = answer["next_cursor"].clone();
        }
        assert_eq!(again, seen, "{route} {body}");
    }
}

/// A walk through a graph finds, for a later page, what it did not find before, and the graph is another
/// one when files were merged: still no passage comes twice, and few are missing.
#[tokio::test]
async fn pages_of_a_walk_have_no_passage_twice() {
    let mut site = Site::new().await;
    site.set("CHECKPOINT_BYTES", "1048576");
    let server = site.start().await;
    let spec = json!({
        "name": "graph", "embedding_dimension": 4, "index_type": "hnsw", "index_config": {"M": 4},
    });
    let library = library(&server, &spec, 600).await;
    let rebuild = format!("/v1/libraries/{library}/index/rebuild");
    server.post(&rebuild, &json!({})).await.expect(200);
    for (query, least) in [
        (json!({"embedding": [1, 0, 0.5, 0.2], "ef_search": 40}), 1000),
        (json!({"embedding": [1, 0, 0.5, 0.2], "query": "green apple", "mode": "hybrid"}), 900),
    ] {
        let mut body = query;
        body["k"] = json!(37);
        body["filter"] = json!({"n": {"$lt": 9000}});
        let path = format!("/v1/libraries/{library}/search/embedding");
        let seen = pages(&server, &library, &path, &body).await;
        assert!(seen.len() >= least, "{} of about 1200", seen.len());
    }
}

#[tokio::test]
async fn a_cursor_is_of_one_search_and_of_one_state() {
    let mut site = Site::new().await;
    site.set("HISTORY_SECONDS", "0");
    let server = site.start().await;
    let spec = json!({"name": "exact", "embedding_dimension": 4});
    let library = library(&server, &spec, 20).await;
    let body = json!({"embedding": [1, 0, 0.5, 0.2], "k": 5, "cursor": "*"});
    let first = server.find(&library, &body).await;
    let (seq, first) = (first.seq(), first.expect(200));
    let cursor = first["next_cursor"].as_str().expect("a cursor").to_owned();
    let with = |changes: Value| {
        let mut body = body.clone();
        body["cursor"] = json!(cursor);
        for (name, value) in changes.as_object().expect("fields") {
            body[name] = value.clone();
        }
        body
    };
    assert_eq!(server.find(&library, &with(json!({}))).await.expect(200)["total_results"], 5);
    for changes in [
        json!({"k": 6}),
        json!({"embedding": [1, 0, 0.5, 0.3]}),
        json!({"filter": {"n": 1}}),
        json!({ "cursor": format!("{cursor}00") }),
        json!({"cursor": "x"}),
        json!({"cursor": ""}),
        json!({"cursor": 1}),
        json!({"as_of": seq - 1}),
    ] {
        let refused = server.find(&library, &with(changes.clone())).await;
        refused.problem(422, "ValidationError");
        assert_eq!(refused.pointers(), ["/cursor"], "{changes}");
    }
    let other = server.library_with(&spec).await;
    assert_eq!(server.find(&other, &with(json!({}))).await.pointers(), ["/cursor"]);
    // What is before a body's first character is no part of it, and does not unbind a cursor.
    let path = format!("/v1/libraries/{library}/search/keyword");
    let marked = |body: Value| format!("\u{feff}{body}");
    let apples = json!({"query": "apple", "k": 2, "cursor": "*"});
    let first = server.raw(Method::POST, &path, marked(apples)).await.expect(200);
    let cursor = &first["next_cursor"];
    let next = json!({"query": "apple", "k": 2, "cursor": cursor});
    assert_eq!(server.raw(Method::POST, &path, marked(next)).await.expect(200)["total_results"], 2);
    let other = json!({"query": "pear", "k": 2, "cursor": cursor});
    assert_eq!(server.raw(Method::POST, &path, marked(other)).await.pointers(), ["/cursor"]);
    // Without a cursor there are no pages.
    let plain = server.find(&library, &json!({"embedding": [1, 0, 0.5, 0.2]})).await.expect(200);
    assert_eq!((plain.get("next_cursor"), plain.get("total_matches")), (None, None));
}

#[tokio::test]
async fn matches_are_counted_where_that_is_asked_for() {
    let site = Site::new().await;
    let server = site.start().await;
    let spec = json!({"name": "exact", "embedding_dimension": 4});
    let library = library(&server, &spec, 60).await;
    let filter = json!({"third": 1});
    let path = |route: &str| format!("/v1/libraries/{library}/search/{route}");
    let words = server.post(&path("keyword"), &json!({"query": "pear", "k": 100})).await;
    let pears = words.expect(200)["total_results"].clone();
    for (route, body, value, relation) in [
        ("embedding", json!({}), json!(120), "eq"),
        ("embedding", json!({ "filter": filter }), json!(40), "eq"),
        ("embedding", json!({"distance_threshold": 2.0, "k": 100}), json!(100), "gte"),
        ("embedding", json!({"distance_threshold": 0.0}), json!(0), "eq"),
        ("embedding", json!({"query": "pear", "mode": "hybrid"}), json!(120), "eq"),
        ("keyword", json!({"query": "pear"}), pears.clone(), "eq"),
        ("keyword", json!({"query": "pear nothing"}), pears.clone(), "eq"),
        ("keyword", json!({"query": "pear nothing", "operator": "and"}), json!(0), "eq"),
        ("keyword", json!({"query": "red -pear +red"}), Value::Null, "eq"),
    ] {
        let mut body = body;
        body["count"] = json!(true);
        if route == "embedding" {
            body["embedding"] = json!([1, 0, 0.5, 0.2]);
        }
        body["k"] = body.get("k").cloned().unwrap_or(json!(3));
        let answer = server.post(&path(route), &body).await.expect(200);
        let matches = &answer["total_matches"];
        assert_eq!(matches["relation"], relation, "{body}");
        if value.is_null() {
            body["k"] = json!(100);
            let all = server.post(&path(route), &body).await.expect(200);
            assert_eq!(matches["value"], all["total_results"], "{body}");
        } else {
            assert_eq!(matches["value"], value, "{body}");
        }
    }
}

#[tokio::test]
async fn searches_without_pages_refuse_what_is_asked_of_them() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = library(&server, &json!({"name": "a", "embedding_dimension": 4}), 3).await;
    let routes = ["search/hybrid", "search/rerank", "search/stream"];
    let asked = [("cursor", json!("*")), ("count", json!(true)), ("facets", json!(["tags"]))];
    for route in routes {
        let path = format!("/v1/libraries/{library}/{route}");
        for (name, value) in &asked {
            let mut body = json!({"query": "apple", "rerank_function": "position"});
            body[*name] = value.clone();
            let refused = server.post(&path, &body).await;
            assert_eq!(refused.pointers(), [format!("/{name}")], "{route}");
        }
    }
    let path = format!("/v1/libraries/{library}/search/rerank");
    let fine = json!({"embedding": [0, 0, 0, 1], "rerank_function": "position", "count": false, "cursor": null});
    server.post(&path, &fine).await.expect(200);
}
