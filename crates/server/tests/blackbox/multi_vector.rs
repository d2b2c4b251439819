//! Documents of several vectors over HTTP: written, read, changed, searched, and what is refused.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::ws::Socket;
use crate::harness::{Answer, Server, Site};

async fn add(server: &Server, library: &str, body: &Value) -> Answer {
    server.post(&format!("/v1/libraries/{library}/documents/multi-vector"), body).await
}

async fn search(server: &Server, library: &str, body: &Value) -> Answer {
    server.post(&format!("/v1/libraries/{library}/search/multi-vector"), body).await
}

async fn in_words(server: &Server, library: &str, query: &str) -> Value {
    let path = format!("/v1/libraries/{library}/search/keyword");
    server.post(&path, &json!({ "query": query })).await.expect(200)
}

async fn put(server: &Server, path: &str, body: &Value) -> Answer {
    server.send(server.request(Method::PUT, path).json(body)).await
}

/// Three documents with pictures; texts are those of the library's own dimension.
async fn pictures(server: &Server) -> String {
    let library = server.vector_library(2).await;
    let documents = [
        ("Alpha", [1.0, 0.0], Some([0.0, 1.0, 0.0]), 1998),
        ("Beta", [0.6, 0.8], Some([0.0, 0.6, 0.8]), 2026),
        ("Gamma", [0.0, 1.0], None, 2026),
    ];
    for (title, text, image, year) in documents {
        let mut vectors = vec![json!({"type": "text", "text": title, "embedding": text})];
        if let Some(image) = image {
            let url = format!("file:///{title}.png");
            vectors.push(json!({"type": "image", "embedding": image, "image_url": url, "metadata": {"page": 3}}));
        }
        let body = json!({"title": title, "vectors": vectors, "metadata": {"year": year}});
        add(server, &library, &body).await.expect(201);
    }
    library
}

fn titles(answer: &Value) -> Vec<&str> {
    let results = answer["results"].as_array().expect("results");
    results.iter().map(|result| result["title"].as_str().expect("a title")).collect()
}

#[tokio::test]
async fn the_scores_of_several_fields_are_added_and_each_is_told() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = pictures(&server).await;
    let queries = json!([
        {"type": "text", "embedding": [1, 0], "weight": 0.5},
        {"type": "image", "embedding": [0, 1, 0], "weight": 0.25},
    ]);
    let body = json!({"queries": queries, "explain": true});
    let found = search(&server, &library, &body).await.expect(200);
    assert_eq!(titles(&found), ["Alpha", "Beta", "Gamma"]);
    let scores = [0.75, 0.5 * 0.6 + 0.25 * 0.6, 0.0];
    for (result, score) in found["results"].as_array().expect("results").iter().zip(scores) {
        let combined = result["combined_score"].as_f64().expect("a score");
        assert!((combined - score).abs() < 1e-6, "{result}");
    }
    let first = &found["results"][0];
    assert_eq!(first["score_breakdown"]["image_score"], 0.25);
    assert_eq!(
        first["matched_vectors"][1]["metadata"],
        json!({"image_url": "file:///Alpha.png", "page": 3})
    );
    assert_eq!(found["explain"]["complete"], true);
    assert_eq!(found["explain"]["fields"][1]["vectors"], 2);
    // Only what passes, of documents and of vectors.
    let filtered = json!({"queries": queries, "filter": {"year": 2026}});
    assert_eq!(titles(&search(&server, &library, &filtered).await.expect(200)), ["Beta", "Gamma"]);
    let of_page = json!({"queries": [queries[1]], "filter": {"page": 4}});
    assert_eq!(search(&server, &library, &of_page).await.expect(200)["total_results"], 0);
    let near = json!({"queries": queries, "distance_threshold": 0.1});
    assert_eq!(titles(&search(&server, &library, &near).await.expect(200)), ["Alpha"]);
    let few = json!({"queries": queries, "vector_types": ["image"], "k": 1});
    assert_eq!(titles(&search(&server, &library, &few).await.expect(200)), ["Alpha"]);
}

#[tokio::test]
async fn answers_are_lines_where_that_is_asked_for() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = pictures(&server).await;
    let path = format!("/v1/libraries/{library}/search/multi-vector");
    let body = json!({"queries": [{"type": "text", "embedding": [0, 1]}], "k": 2});
    let request = server.request(Method::POST, &path).json(&body);
    let answer = server.send(request.header("accept", "application/x-ndjson")).await;
    answer.expect_status(200);
    let lines = answer.lines();
    assert_eq!(lines.len(), 3);
    assert_eq!((&lines[0]["title"], &lines[1]["title"]), (&json!("Gamma"), &json!("Beta")));
    assert_eq!((&lines[2]["status"], &lines[2]["total_results"]), (&json!("complete"), &json!(2)));
}

#[tokio::test]
async fn early_fusion_is_one_search_for_the_weighted_mean() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = pictures(&server).await;
    let queries = json!([
        {"type": "text", "embedding": [1, 0], "weight": 1},
        {"type": "text", "embedding": [0, 1], "weight": 2},
    ]);
    let body = json!({"queries": queries, "fusion": "early"});
    let found = search(&server, &library, &body).await.expect(200);
    // The mean is [1, 2] / sqrt(5).
    assert_eq!(titles(&found), ["Beta", "Gamma", "Alpha"]);
    let best = found["results"][0]["combined_score"].as_f64().expect("a score");
    assert!((best - (0.6 + 1.6) / 5_f64.sqrt()).abs() < 1e-6);
    let other = json!({"queries": [
        {"type": "text", "embedding": [1, 0]}, {"type": "image", "embedding": [1, 0, 0]},
    ], "fusion": "early"});
    let refused = search(&server, &library, &other).await;
    assert_eq!(refused.problem(422, "ValidationError")["errors"][0]["pointer"], "/fusion");
}

#[tokio::test]
async fn texts_are_embedded_by_the_model_of_their_field_and_found_by_the_short_form() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let body = json!({"title": "Heaps", "vectors": [
        {"type": "text", "text": "a heap keeps its least element at the root"},
        {"type": "title", "text": "Heaps"},
        {"type": "summary", "text": "least first"},
    ]});
    let added = add(&server, &library, &body).await.expect(201);
    let types: Vec<&Value> =
        added["vectors"].as_array().expect("vectors").iter().map(|it| &it["type"]).collect();
    assert_eq!(types, ["text", "summary", "title"]);
    let short = json!({"query": "Heaps", "k": 3, "vector_types": ["text", "title", "image"]});
    let found = search(&server, &library, &short).await.expect(200);
    let breakdown = found["results"][0]["score_breakdown"].as_object().expect("a breakdown");
    let names: Vec<&String> = breakdown.keys().collect();
    assert_eq!(names, ["text_score", "title_score"], "no picture was ever put there");
    assert!((breakdown["title_score"].as_f64().expect("a score") - 1.0).abs() < 1e-5);
    // The passage is found by every search.
    let plain = in_words(&server, &library, "root").await;
    assert_eq!(plain["results"][0]["document_title"], "Heaps");
}

#[tokio::test]
async fn a_document_without_a_text_is_found_by_its_title() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let body = json!({"title": "A picture of a heap", "vectors": [{"type": "image", "embedding": [1, 2]}]});
    let added = add(&server, &library, &body).await.expect(201);
    assert_eq!(added["vectors"][0]["type"], "text");
    let plain = in_words(&server, &library, "heap").await;
    assert_eq!(plain["results"][0]["chunk"]["text"], "A picture of a heap");
}

#[tokio::test]
async fn sparse_vectors_and_late_interaction_are_searched_as_their_definitions_say() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let field = format!("/v1/libraries/{library}/vector-fields");
    let declared =
        put(&server, &format!("{field}/words"), &json!({"kind": "sparse"})).await.expect(200);
    assert_eq!((&declared["kind"], &declared["dimension"]), (&json!("sparse"), &Value::Null));
    let late = json!({"kind": "late_interaction", "dimension": 2});
    put(&server, &format!("{field}/tokens"), &late).await.expect(200);
    for (title, indices, values, tokens) in [
        ("one", [3, 7], [1.0, 0.5], json!([[1, 0], [0, 1]])),
        ("two", [7, 900_000], [2.0, 4.0], json!([[1, 1]])),
    ] {
        let vectors = json!([
            {"type": "text", "text": title, "embedding": [1, 1]},
            {"type": "words", "sparse": {"indices": indices, "values": values}},
            {"type": "tokens", "embeddings": tokens},
        ]);
        add(&server, &library, &json!({"title": title, "vectors": vectors})).await.expect(201);
    }
    let sparse =
        json!({"queries": [{"type": "words", "sparse": {"indices": [3, 7], "values": [2, 3]}}]});
    let found = search(&server, &library, &sparse).await.expect(200);
    assert_eq!(titles(&found), ["two", "one"]);
    assert_eq!(found["results"][0]["combined_score"], 6.0);
    assert_eq!(found["results"][1]["combined_score"], 3.5);
    let none = json!({"queries": [{"type": "words", "sparse": {"indices": [5], "values": [2]}}]});
    assert_eq!(search(&server, &library, &none).await.expect(200)["total_results"], 0);
    let late = json!({"queries": [{"type": "tokens", "embeddings": [[1, 0], [0, 2]]}]});
    let found = search(&server, &library, &late).await.expect(200);
    assert_eq!(titles(&found), ["one", "two"]);
    let score = |at: usize| found["results"][at]["combined_score"].as_f64().expect("a score");
    assert!((score(0) - 1.0).abs() < 1e-6 && (score(1) - 0.5_f64.sqrt()).abs() < 1e-6);
    let listed = server.get(&field).await.expect(200);
    let names: Vec<&Value> =
        listed["vector_fields"].as_array().expect("fields").iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["text", "tokens", "words"]);
}

#[tokio::test]
async fn one_vector_is_changed_and_all_outlive_a_kill() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = pictures(&server).await;
    let list = server.get(&format!("/v1/libraries/{library}/documents")).await.expect(200);
    let document = list["documents"][0]["id"].as_str().expect("an id");
    let path = format!("/v1/libraries/{library}/documents/{document}/vectors");
    let before = server.get(&format!("{path}?include_embeddings=true")).await.expect(200);
    assert_eq!(before["vectors"][1]["embedding"], json!([0.0, 1.0, 0.0]));
    let image = before["vectors"][1]["id"].as_str().expect("an id");
    let text = before["vectors"][0]["id"].as_str().expect("an id");
    let new = json!({"embedding": [1, 0, 0], "metadata": {"page": 9}});
    let changed = put(&server, &format!("{path}/{image}"), &new).await.expect(200);
    assert_eq!((&changed["id"], &changed["metadata"]), (&json!(image), &json!({"page": 9})));
    put(&server, &format!("{path}/{text}"), &json!({"embedding": [0, 1]})).await.expect(200);
    let missing = format!("{path}/{document}");
    put(&server, &missing, &new).await.problem(404, "VectorNotFoundError");
    let wrong = put(&server, &format!("{path}/{image}"), &json!({"embedding": [1, 0]})).await;
    wrong.problem(400, "DimensionMismatchError");
    let empty = put(&server, &format!("{path}/{image}"), &json!({})).await;
    empty.problem(422, "ValidationError");
    server.kill();
    server.ended().await;
    let server = site.start().await;
    let after = server.get(&format!("{path}?include_embeddings=true")).await.expect(200);
    assert_eq!(after["vectors"][1]["embedding"], json!([1.0, 0.0, 0.0]));
    assert_eq!(after["vectors"][0]["embedding"], json!([0.0, 1.0]));
    assert_eq!(after["vectors"][0]["text"], "Alpha");
    let past = before["vectors"].clone();
    assert_ne!(past, after["vectors"]);
}

/// What is said of a problem with this status.
fn error_of(status: u16) -> &'static str {
    if status == 400 { "DimensionMismatchError" } else { "ValidationError" }
}

#[tokio::test]
async fn what_a_field_does_not_hold_is_refused_with_its_place() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = pictures(&server).await;
    let one = json!({"type": "text", "text": "x", "embedding": [1, 1]});
    for (vector, status, place) in [
        (r#"{"type": "image", "embedding": [1, 2]}"#, 400, "/embedding"),
        (r#"{"type": "image", "text": "a picture"}"#, 400, "/embedding"),
        (r#"{"type": "image", "image_url": "http://x/y.png"}"#, 422, "/embedding"),
        (r#"{"type": "imgae", "embedding": [1, 2]}"#, 422, "/type"),
        (r#"{"type": "Image", "embedding": [1, 2]}"#, 422, "/type"),
        (r#"{"embedding": [1, 2]}"#, 422, "/type"),
        (r#"{"type": "image"}"#, 422, ""),
        (r#"{"type": "image", "embedding": [0, 0, 0]}"#, 400, "/embedding"),
        (r#"{"type": "image", "embedding": [1, 2, 3], "weight": 2}"#, 422, "/weight"),
        (r#"{"type": "custom", "sparse": {"indices": [4, 4], "values": [1, 2]}}"#, 400, "/sparse"),
        (r#"{"type": "custom", "sparse": {"indices": [4], "values": [1, 2]}}"#, 400, "/sparse"),
        (
            r#"{"type": "custom", "sparse": {"indices": [-4], "values": [1]}}"#,
            422,
            "/sparse/indices/0",
        ),
        (r#"{"type": "custom", "embeddings": [[1, 2], [1]]}"#, 422, "/embeddings/1"),
        (r#"{"type": "custom", "embeddings": [[1, 2]]}"#, 422, "/type"),
        (
            r#"{"type": "image", "embedding": [1, 2, 3], "sparse": {"indices": [4], "values": [1]}}"#,
            422,
            "",
        ),
    ] {
        let vector: Value = serde_json::from_str(vector).expect("JSON");
        let body = json!({"title": "x", "vectors": [one, vector]});
        let answer = add(&server, &library, &body).await;
        let problem = answer.problem(status, error_of(status));
        let pointer = format!("/vectors/1{place}");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{vector}: {problem}");
    }
    let count = server.get(&format!("/v1/libraries/{library}/documents")).await.expect(200);
    assert_eq!(count["total"], 3, "nothing of it is there");
}

#[tokio::test]
async fn queries_that_a_field_cannot_answer_are_refused_with_their_place() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = pictures(&server).await;
    // Each within `queries`.
    for (query, status, place) in [
        (r#"{"type": "nothing", "embedding": [1, 2]}"#, 400, None),
        (r#"{"type": "image", "embedding": [1, 2]}"#, 400, Some("/queries/0/embedding")),
        (r#"{"type": "image", "query": "x"}"#, 400, Some("/queries/0/embedding")),
        (r#"{"type": "image", "sparse": {"indices": [1], "values": [1]}}"#, 400, None),
        (
            r#"{"type": "image", "embedding": [1, 2, 3], "weight": -1}"#,
            422,
            Some("/queries/0/weight"),
        ),
        (r#"{"type": "image", "embedding": [1, 2, 3], "weight": 0}"#, 422, Some("/queries")),
        (r#"{"type": "image"}"#, 422, Some("/queries/0")),
    ] {
        let wanted: Value = serde_json::from_str(query).expect("JSON");
        let answer = search(&server, &library, &json!({ "queries": [wanted] })).await;
        answer.expect_status(status);
        if let Some(place) = place {
            assert_eq!(answer.json()["errors"][0]["pointer"], place, "{query}");
        }
    }
    let queries = json!([{"type": "image", "embedding": [1, 2, 3]}]);
    for (body, place) in [
        (json!({}), "/queries"),
        (json!({"queries": []}), "/queries"),
        (json!({"queries": queries, "query": "x"}), "/query"),
        (json!({"queries": queries, "k": 101}), "/k"),
        (json!({"queries": queries, "fusion": "rrf"}), "/fusion"),
    ] {
        let answer = search(&server, &library, &body).await;
        answer.expect_status(422);
        assert_eq!(answer.json()["errors"][0]["pointer"], place, "{body}");
    }
}

#[tokio::test]
async fn fields_that_cannot_be_are_refused() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = pictures(&server).await;
    let field = |name: &str| format!("/v1/libraries/{library}/vector-fields/{name}");
    for (name, body, status) in [
        ("image", json!({"dimension": 4}), 400),
        ("text", json!({"dimension": 4}), 422),
        ("Bad%20name", json!({"dimension": 4}), 422),
        ("new", json!({}), 422),
        ("new", json!({"dimension": 5000}), 422),
        ("new", json!({"kind": "sparse", "dimension": 4}), 422),
        ("new", json!({"kind": "magic", "dimension": 4}), 422),
        ("new", json!({"dimension": 4, "index_type": "magic"}), 422),
        ("image", json!({"index_type": "hnsw"}), 200),
    ] {
        put(&server, &field(name), &body).await.expect_status(status);
    }
}

#[tokio::test]
async fn vectors_come_with_any_document_and_stay_when_a_socket_changes_it() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let document = json!({
        "title": "a", "chunks": [{"text": "a", "embedding": [1, 0]}],
        "vectors": [{"type": "image", "embedding": [1, 2, 3]}],
    });
    let path = format!("/v1/libraries/{library}/documents");
    let added = server.post(&format!("{path}/with-embeddings"), &document).await.expect(201);
    let id = added["id"].as_str().expect("an id");
    let line = json!({"title": "b", "chunks": [{"text": "b", "embedding": [0, 1]}], "vectors": [{"type": "image", "embedding": [3, 2, 1]}]});
    let streamed =
        server.raw(Method::POST, &format!("{path}/stream"), line.to_string().into_bytes()).await;
    assert_eq!(streamed.expect(200)["successful"], 1);
    let listed = server.get(&format!("/v1/libraries/{library}/vector-fields")).await.expect(200);
    assert_eq!(listed["vector_fields"][1]["vectors"], 2);
    let mut socket = Socket::open(&server, &library).await;
    socket.done("update", &json!({"document_id": id, "title": "renamed"})).await;
    socket.close().await;
    let vectors =
        server.get(&format!("{path}/{id}/vectors?include_embeddings=true")).await.expect(200);
    assert_eq!(vectors["vectors"][1]["embedding"], json!([1.0, 2.0, 3.0]));
    let plain = server.get(&format!("{path}/{id}")).await.expect(200);
    assert_eq!(plain["metadata"]["title"], "renamed");
}

/// The lines of an export, without the last.
async fn exported(server: &Server, library: &str, query: &str) -> String {
    let path = format!("/v1/libraries/{library}/documents/stream{query}");
    let text = server.get(&path).await.text();
    let (lines, end) = text.trim_end().rsplit_once('\n').expect("lines");
    assert!(end.contains("\"complete\""), "{end}");
    format!("{lines}\n")
}

#[tokio::test]
async fn an_export_has_every_vector_and_is_imported_as_it_was() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = pictures(&server).await;
    let other = server.vector_library(2).await;
    for library in [&library, &other] {
        let late = format!("/v1/libraries/{library}/vector-fields/pages");
        let spec = json!({"kind": "late_interaction", "dimension": 2});
        put(&server, &late, &spec).await.expect(200);
    }
    let vectors = json!([
        {"type": "text", "text": "x", "embedding": [1, 3]},
        {"type": "pages", "embeddings": [[1, 2], [3, -1], [0.1, 0.7]], "text": "said"},
        {"type": "custom", "sparse": {"indices": [2, 70000], "values": [0.3, -2]}},
        {"type": "custom", "sparse": {"indices": [9], "values": [1.5]}, "metadata": {"a": [1]}},
    ]);
    add(&server, &library, &json!({"title": "Delta", "vectors": vectors})).await.expect(201);
    let whole = exported(&server, &library, "").await;
    assert_eq!(whole.matches("\"sparse\"").count(), 4, "kinds and values of two vectors: {whole}");
    let path = format!("/v1/libraries/{other}/documents/stream");
    let request =
        server.request(Method::POST, &path).header("Content-Type", "application/x-ndjson");
    let imported = server.send(request.body(whole.clone())).await;
    assert_eq!(imported.expect(200)["successful"], 4);
    assert_eq!(exported(&server, &other, "").await, whole);
    let plain = exported(&server, &library, "?include_embeddings=false").await;
    assert!(!plain.contains("\"vectors\""), "without numbers there is nothing to import: {plain}");
    // The file of a job is the same.
    let asked = json!({"library_id": library, "format": "ndjson", "include_embeddings": true});
    let job = server.submit("batch-export", &asked).await;
    let job = server.job_over(&job).await;
    let url = job["result"]["download_url"].as_str().expect("a URL").to_owned();
    assert!(server.get(&url).await.text().starts_with(&whole), "{job}");
}

#[tokio::test]
async fn a_refused_document_takes_nothing_of_the_next_one() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let image = |numbers: Value| json!([{"type": "image", "embedding": numbers}]);
    let unknown = json!([
        {"type": "audio", "embedding": [1, 2]}, {"type": "nothing", "embedding": [1]},
    ]);
    let documents = json!([
        {"title": "blank", "text": "   ", "vectors": image(json!([1, 0, 0]))},
        {"title": "B", "text": "b", "vectors": image(json!([0, 1, 0]))},
        {"title": "unknown", "text": "u", "vectors": unknown},
        {"title": "C", "text": "c"},
        {"title": "D", "text": "d", "vectors": [{"type": "audio", "embedding": [1, 2, 3]}]},
    ]);
    let path = format!("/v1/libraries/{library}/documents/batch");
    let added = server.post(&path, &json!({ "documents": documents })).await;
    let added = added.json();
    assert_eq!((&added["successful"], &added["failed"]), (&json!(3), &json!(2)), "{added}");
    let listed = server.get(&format!("/v1/libraries/{library}/documents")).await.expect(200);
    for document in listed["documents"].as_array().expect("documents") {
        let id = document["id"].as_str().expect("an id");
        let path =
            format!("/v1/libraries/{library}/documents/{id}/vectors?include_embeddings=true");
        let vectors = server.get(&path).await.expect(200);
        let own = match document["metadata"]["title"].as_str().expect("a title") {
            "B" => json!([0.0, 1.0, 0.0]),
            "C" => Value::Null,
            _d => json!([1.0, 2.0, 3.0]),
        };
        assert_eq!(vectors["vectors"][1]["embedding"], own, "{}", document["metadata"]);
    }
}

#[tokio::test]
async fn early_fusion_searches_for_the_mean_as_the_field_measures() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let field = format!("/v1/libraries/{library}/vector-fields/f");
    put(&server, &field, &json!({"dimension": 2, "metric": "l2"})).await.expect(200);
    for (title, numbers) in [("near the origin", [1, 0]), ("far", [10, 0])] {
        let vectors = json!([
            {"type": "text", "text": title, "embedding": [1, 1]}, {"type": "f", "embedding": numbers},
        ]);
        add(&server, &library, &json!({"title": title, "vectors": vectors})).await.expect(201);
    }
    let of = |numbers: [i32; 2], weight: i32| json!({"type": "f", "embedding": numbers, "weight": weight});
    let body =
        json!({"fusion": "early", "queries": [of([12, 0], 1), of([6, 0], 1), of([0, 99], 0)]});
    let found = search(&server, &library, &body).await.expect(200);
    assert_eq!(titles(&found), ["far", "near the origin"]);
    assert_eq!(found["results"][0]["matched_vectors"][0]["distance"], 1.0, "9 is the mean");
    // A mean that is no direction is a place for all that.
    let body = json!({"fusion": "early", "queries": [of([2, 0], 1), of([-2, 0], 1)]});
    let found = search(&server, &library, &body).await.expect(200);
    assert_eq!(titles(&found), ["near the origin", "far"]);
    // Of one field, what a search of it finds is certain, however far it is.
    let body = json!({"queries": [of([500, 500], 1)], "k": 1, "explain": true});
    let found = search(&server, &library, &body).await.expect(200);
    assert_eq!(titles(&found), ["far"]);
    assert_eq!(found["explain"]["complete"], true);
}

#[tokio::test]
async fn a_passage_that_is_given_as_something_else_is_refused() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = pictures(&server).await;
    for (name, value) in [
        ("sparse", json!({"indices": [3], "values": [1.0]})),
        ("embeddings", json!([[1, 2], [3, 4]])),
    ] {
        let body = json!({"title": "T", "vectors": [{"type": "text", "text": "t", name: value}]});
        let refused = add(&server, &library, &body).await;
        refused.problem(422, "ValidationError");
        assert_eq!(refused.pointers(), [format!("/vectors/0/{name}")]);
    }
}

/// What is not possible is refused and nothing of it is written: what the log has, opens.
#[tokio::test]
async fn an_index_that_a_field_cannot_have_is_refused() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let field = |name: &str| format!("/v1/libraries/{library}/vector-fields/{name}");
    let of = |index: &str, strategy: &str| json!({"dimension": 8, "index_type": index, "quantization_config": {"strategy": strategy}});
    put(&server, &field("there"), &of("hnsw", "scalar")).await.expect(200);
    for (name, body, pointer) in [
        ("f", of("kd_tree", "scalar"), "/quantization_config"),
        ("f", of("ivf", "product"), "/quantization_config"),
        ("there", json!({"index_type": "kd_tree"}), "/quantization_config"),
        (
            "f",
            json!({"dimension": 2, "index_type": "ivf_pq", "index_config": {"pq_subvectors": 8}}),
            "/index_config/pq_subvectors",
        ),
    ] {
        let refused = put(&server, &field(name), &body).await;
        refused.problem(422, "ValidationError");
        assert_eq!(refused.pointers(), [pointer], "{body}");
    }
    let fields = server.get(&format!("/v1/libraries/{library}/vector-fields")).await.expect(200);
    drop(server);
    let server = site.start().await;
    let again = server.get(&format!("/v1/libraries/{library}/vector-fields")).await.expect(200);
    assert_eq!(again, fields);
}

#[tokio::test]
async fn vectors_of_a_document_have_ids_of_their_own() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let field = format!("/v1/libraries/{library}/vector-fields/f");
    put(&server, &field, &json!({"dimension": 2})).await.expect(200);
    let id = "0190a2b4-0000-7000-8000-000000000001";
    let vectors = |second: &str| {
        json!({"title": "t", "vectors": [
            {"type": "text", "text": "x", "embedding": [1, 1], "id": id},
            {"type": "f", "embedding": [1, 0], "id": second},
        ]})
    };
    let refused = add(&server, &library, &vectors(id)).await;
    refused.problem(422, "ValidationError");
    assert_eq!(refused.pointers(), ["/vectors/1/id"]);
    let other = "0190a2b4-0000-7000-8000-000000000002";
    add(&server, &library, &vectors(other)).await.expect(201);
}
