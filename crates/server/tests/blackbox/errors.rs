//! Every endpoint's refusals, as one table: status, kind and the fields that are named.

use std::fmt::Display;

use reqwest::Method;
use serde_json::json;

use crate::harness::{Server, Site};

/// One refusal. `{lib}` and `{doc}` in the path stand for what exists, `{none}` for what does not.
struct Case {
    method: Method,
    path: &'static str,
    body: String,
    status: u16,
    error_type: &'static str,
    pointers: &'static [&'static str],
}

const NONE: &str = "00000000-0000-4000-8000-000000000000";

fn case(
    method: Method,
    path: &'static str,
    body: impl Display,
    status: u16,
    error_type: &'static str,
) -> Case {
    Case { method, path, body: body.to_string(), status, error_type, pointers: &[] }
}

fn invalid(
    method: Method,
    path: &'static str,
    body: impl Display,
    pointers: &'static [&'static str],
) -> Case {
    let body = body.to_string();
    Case { method, path, body, status: 422, error_type: "ValidationError", pointers }
}

async fn check(server: &Server, library: &str, document: &str, case: Case) {
    let path =
        case.path.replace("{lib}", library).replace("{doc}", document).replace("{none}", NONE);
    let answer = server.raw(case.method.clone(), &path, case.body.clone()).await;
    let name =
        format!("{} {path} {}", case.method, case.body.chars().take(200).collect::<String>());
    assert_eq!(answer.status, case.status, "{name}: {}", answer.text());
    let problem = answer.problem(case.status, case.error_type);
    let pointers = answer.pointers();
    for pointer in case.pointers {
        assert!(pointers.iter().any(|found| found == pointer), "{name}: {pointer} in {problem}");
    }
    if case.error_type == "ValidationError" {
        assert_eq!(pointers.len(), case.pointers.len(), "{name}: {problem}");
    }
}

/// A library of three dimensions with one document.
async fn fixture(server: &Server) -> (String, String) {
    let library = server.vector_library(3).await;
    let document = server.add_vectors(&library, "one", &[vec![1.0, 0.0, 0.0]]).await;
    (library, document["id"].as_str().expect("id").to_owned())
}

async fn check_all(cases: Vec<Case>) {
    let site = Site::new().await;
    let server = site.start().await;
    let (library, document) = fixture(&server).await;
    for case in cases {
        check(&server, &library, &document, case).await;
    }
    // Nothing that was refused has left anything behind.
    let listed = server.get(&format!("/v1/libraries/{library}/documents")).await.expect(200);
    assert_eq!(listed["total"], 1, "{listed}");
    assert_eq!(server.get("/v1/libraries").await.expect(200).as_array().expect("list").len(), 1);
}

#[tokio::test]
async fn what_is_not_there_is_404_and_bad_ids_are_422() {
    let (get, post, delete, patch) = (Method::GET, Method::POST, Method::DELETE, Method::PATCH);
    let text = json!({ "title": "t", "texts": ["x"] });
    let vectors = json!({ "title": "t", "chunks": [{ "text": "x", "embedding": [1, 0, 0] }] });
    let library: Vec<(Method, &str, String)> = vec![
        (get.clone(), "", String::new()),
        (patch, "", json!({ "name": "x" }).to_string()),
        (delete.clone(), "", String::new()),
        (get.clone(), "/statistics", String::new()),
        (get.clone(), "/documents", String::new()),
        (post.clone(), "/documents", text.to_string()),
        (post.clone(), "/documents/with-embeddings", vectors.to_string()),
        (post.clone(), "/documents/batch", json!({ "documents": [text] }).to_string()),
        (
            post.clone(),
            "/documents/batch-with-embeddings",
            json!({ "documents": [vectors] }).to_string(),
        ),
        (post.clone(), "/documents/stream", text.to_string()),
        (get.clone(), "/documents/stream", String::new()),
        (get.clone(), "/documents/{doc}", String::new()),
        (delete.clone(), "/documents/{doc}", String::new()),
        (post.clone(), "/search", json!({ "query": "x" }).to_string()),
        (post.clone(), "/search/embedding", json!({ "embedding": [1, 0, 0] }).to_string()),
        (post.clone(), "/search/stream", json!({ "query": "x" }).to_string()),
    ];
    let mut cases = Vec::new();
    for (method, path, body) in library {
        let missing: &'static str = format!("/v1/libraries/{{none}}{path}").leak();
        cases.push(case(method.clone(), missing, &body, 404, "LibraryNotFoundError"));
        let bad: &'static str = format!("/v1/libraries/not-a-uuid{path}").leak();
        cases.push(invalid(method, bad, &body, &["/path/library_id"]));
    }
    for (method, path) in [
        (get.clone(), "/v1/libraries/{lib}/documents/{none}"),
        (delete.clone(), "/v1/libraries/{lib}/documents/{none}"),
        (get.clone(), "/v1/documents/{none}"),
        (delete.clone(), "/v1/documents/{none}"),
    ] {
        cases.push(case(method, path, "", 404, "DocumentNotFoundError"));
    }
    for (method, path) in
        [(get.clone(), "/v1/libraries/{lib}/documents/x"), (delete.clone(), "/v1/documents/x")]
    {
        cases.push(invalid(method, path, "", &["/path/document_id"]));
    }
    cases.push(case(get.clone(), "/nowhere", "", 404, "NotFoundError"));
    cases.push(case(get.clone(), "/v1/nowhere", "", 404, "NotFoundError"));
    cases.push(case(get, "/errors/nothing", "", 404, "NotFoundError"));
    cases.push(case(Method::PUT, "/v1/libraries", "", 405, "MethodNotAllowedError"));
    cases.push(case(post, "/health", "", 405, "MethodNotAllowedError"));
    check_all(cases).await;
}

#[tokio::test]
async fn a_library_is_refused_with_every_bad_field() {
    let post =
        |body: serde_json::Value, pointers| invalid(Method::POST, "/v1/libraries", body, pointers);
    let existing = json!({ "name": "x" });
    check_all(vec![
        post(json!({}), &["/name"]),
        post(json!({ "name": "" }), &["/name"]),
        post(json!({ "name": "x".repeat(256) }), &["/name"]),
        post(json!({ "name": "   " }), &["/name"]),
        post(json!({ "name": "\u{2003}\t" }), &["/name"]),
        post(json!({ "name": "a\nb" }), &["/name"]),
        post(json!({ "name": "a\u{0}" }), &["/name"]),
        post(
            json!({ "name": "\u{7f}", "embedding_dimension": 0 }),
            &["/name", "/embedding_dimension"],
        ),
        post(
            json!({ "name": 7, "embedding_dimension": 0, "index_type": "magic" }),
            &["/name", "/embedding_dimension", "/index_type"],
        ),
        post(json!({ "name": "x", "embedding_dimension": 4097 }), &["/embedding_dimension"]),
        post(json!({ "name": "x", "embedding_model": "no-such-model" }), &["/embedding_model"]),
        post(json!({ "name": "x", "embedding_provider": "nobody" }), &["/embedding_provider"]),
        post(json!([existing]), &["", "/name"]),
        case(Method::POST, "/v1/libraries", "{\"name\":", 422, "JsonInvalidError"),
        case(Method::POST, "/v1/libraries", "", 422, "JsonInvalidError"),
        case(Method::POST, "/v1/libraries", "{} {}", 422, "JsonInvalidError"),
        invalid(Method::PATCH, "/v1/libraries/{lib}", json!({ "name": "" }), &["/name"]),
        invalid(Method::PATCH, "/v1/libraries/{lib}", json!({ "name": " " }), &["/name"]),
        invalid(Method::PATCH, "/v1/libraries/{lib}", json!({ "name": "a\u{1b}[2J" }), &["/name"]),
    ])
    .await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn a_document_is_refused_with_every_bad_field() {
    let path = "/v1/libraries/{lib}/documents";
    let post = |body: serde_json::Value, pointers| invalid(Method::POST, path, body, pointers);
    let vectors = "/v1/libraries/{lib}/documents/with-embeddings";
    let chunk = json!({ "text": "x", "embedding": [1, 0, 0] });
    check_all(vec![
        post(json!({}), &["/title", "/texts"]),
        post(json!({ "title": "", "texts": [] }), &["/title", "/texts"]),
        post(json!({ "title": "t", "texts": vec!["x"; 1001] }), &["/texts"]),
        post(
            json!({ "title": "t", "texts": ["x", "y".repeat(10_001), 3] }),
            &["/texts/1", "/texts/2"],
        ),
        post(json!({ "title": "t", "texts": ["x"], "text": "y" }), &[""]),
        post(
            json!({ "title": "t", "texts": ["x"], "id": "no-uuid", "tags": [1] }),
            &["/id", "/tags/0"],
        ),
        post(json!({ "title": "t".repeat(1001), "texts": ["x"] }), &["/title"]),
        case(Method::POST, path, json!({ "title": "t", "texts": ["  "] }), 400, "ValueError"),
        case(Method::POST, path, json!({ "title": "t", "text": " \n" }), 400, "ValueError"),
        case(Method::POST, path, "{", 422, "JsonInvalidError"),
        invalid(Method::POST, vectors, json!({ "title": "t" }), &["/chunks"]),
        invalid(Method::POST, vectors, json!({ "title": "t", "chunks": [] }), &["/chunks"]),
        invalid(
            Method::POST,
            vectors,
            json!({ "title": "t", "chunks": vec![chunk.clone(); 1001] }),
            &["/chunks"],
        ),
        invalid(
            Method::POST,
            vectors,
            json!({ "title": "t", "chunks": [{ "text": "x" }, { "embedding": [1, 0, 0] }] }),
            &["/chunks/0/embedding", "/chunks/1/text"],
        ),
        invalid(
            Method::POST,
            vectors,
            json!({ "title": "t", "chunks": [{ "text": "x", "embedding": [1, "a", 0] }] }),
            &["/chunks/0/embedding/1"],
        ),
        invalid(
            Method::POST,
            vectors,
            json!({ "title": "t", "chunks": [{ "text": "x", "embedding": [] }] }),
            &["/chunks/0/embedding"],
        ),
        invalid(
            Method::POST,
            "/v1/libraries/{lib}/documents/batch",
            json!({ "documents": [] }),
            &["/documents"],
        ),
        invalid(Method::POST, "/v1/libraries/{lib}/documents/batch", json!({}), &["/documents"]),
        invalid(
            Method::POST,
            "/v1/libraries/{lib}/documents/batch-with-embeddings",
            json!({ "documents": vec![json!({ "title": "t", "chunks": [chunk] }); 1001] }),
            &["/documents"],
        ),
        invalid(
            Method::DELETE,
            "/v1/documents/batch",
            json!({ "document_ids": ["x", NONE] }),
            &["/document_ids/0"],
        ),
        invalid(
            Method::DELETE,
            "/v1/documents/batch",
            json!({ "document_ids": [] }),
            &["/document_ids"],
        ),
        invalid(Method::GET, "/v1/libraries/{lib}/documents?page=0", "", &["/query/page"]),
        invalid(
            Method::GET,
            "/v1/libraries/{lib}/documents?page_size=0",
            "",
            &["/query/page_size"],
        ),
        invalid(
            Method::GET,
            "/v1/libraries/{lib}/documents?include_embeddings=perhaps",
            "",
            &["/query/include_embeddings"],
        ),
        invalid(Method::GET, "/v1/libraries/{lib}/documents?min_seq=x", "", &["/query/min_seq"]),
    ])
    .await;
}

#[tokio::test]
async fn a_vector_that_cannot_be_searched_is_400() {
    let add = "/v1/libraries/{lib}/documents/with-embeddings";
    let find = "/v1/libraries/{lib}/search/embedding";
    let vectors = [
        "[1,0]",
        "[1,0,0,0]",
        "[0,0,0]",
        "[1,NaN,0]",
        "[1,Infinity,0]",
        "[1,-Infinity,0]",
        "[1,1e39,0]",
    ];
    let mut cases = Vec::new();
    for vector in vectors {
        let chunk = format!(
            "{{\"title\":\"t\",\"chunks\":[{{\"text\":\"ok\",\"embedding\":[1,0,0]}},{{\"text\":\"x\",\"embedding\":{vector}}}]}}"
        );
        cases.push(case(Method::POST, add, chunk, 400, "DimensionMismatchError"));
        cases.push(case(
            Method::POST,
            find,
            format!("{{\"embedding\":{vector}}}"),
            400,
            "DimensionMismatchError",
        ));
    }
    check_all(cases).await;
}

#[tokio::test]
async fn a_search_is_refused_with_every_bad_field() {
    let mut cases = Vec::new();
    for path in ["/v1/libraries/{lib}/search", "/v1/libraries/{lib}/search/stream"] {
        cases.push(invalid(Method::POST, path, json!({}), &["/query"]));
        cases.push(invalid(Method::POST, path, json!({ "query": "", "k": 0 }), &["/query", "/k"]));
        cases.push(invalid(Method::POST, path, json!({ "query": "x".repeat(1001) }), &["/query"]));
        cases.push(invalid(
            Method::POST,
            path,
            json!({ "query": "x", "k": "many", "distance_threshold": 1e39 }),
            &["/k", "/distance_threshold"],
        ));
        // Which finite number is too far is known once the library is: after the body is read.
        let far = json!({ "query": "x", "distance_threshold": 2.1 });
        cases.push(invalid(Method::POST, path, far, &["/distance_threshold"]));
        cases.push(case(Method::POST, path, json!({ "query": "  " }), 400, "ValueError"));
        cases.push(case(Method::POST, path, "{\"query\"", 422, "JsonInvalidError"));
    }
    let embedding = "/v1/libraries/{lib}/search/embedding";
    for k in ["0", "101", "-1", "1.5", "1e300"] {
        let body = format!("{{\"query\":\"x\",\"k\":{k}}}");
        cases.push(invalid(Method::POST, "/v1/libraries/{lib}/search", body, &["/k"]));
        let body = format!("{{\"embedding\":[1,0,0],\"k\":{k}}}");
        cases.push(invalid(Method::POST, embedding, body, &["/k"]));
    }
    let stream = "/v1/libraries/{lib}/search/stream";
    cases.push(invalid(Method::POST, stream, json!({ "query": "x", "k": 10_001 }), &["/k"]));
    cases.push(invalid(Method::POST, embedding, json!({}), &["/embedding"]));
    cases.push(invalid(Method::POST, embedding, json!({ "embedding": "x" }), &["/embedding"]));
    cases.push(invalid(
        Method::POST,
        embedding,
        json!({ "embedding": [1, 0, 0], "distance_threshold": -0.1 }),
        &["/distance_threshold"],
    ));
    cases.push(invalid(
        Method::POST,
        "/v1/libraries/{lib}/search?include_embeddings=x",
        json!({ "query": "x" }),
        &["/query/include_embeddings"],
    ));
    check_all(cases).await;
}

#[tokio::test]
async fn a_provider_that_fails_is_503_and_nothing_is_written() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    site.provider.as_ref().expect("provider").set_failing(true);
    let document = json!({ "title": "t", "texts": ["x"] });
    for (path, body) in [
        ("documents", document.clone()),
        ("documents/batch", json!({ "documents": [document] })),
        ("search", json!({ "query": "x" })),
        ("search/stream", json!({ "query": "x" })),
    ] {
        let answer = server.post(&format!("/v1/libraries/{library}/{path}"), &body).await;
        answer.problem(503, "EmbeddingServiceError");
    }
    site.provider.as_ref().expect("provider").set_failing(false);
    let listed = server.get(&format!("/v1/libraries/{library}/documents")).await.expect(200);
    assert_eq!(listed["total"], 0);
    server.post(&format!("/v1/libraries/{library}/documents"), &document).await.expect(201);
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_announced_or_not() {
    let mut site = Site::new().await;
    site.set("MAX_REQUEST_SIZE", "100000");
    let server = site.start().await;
    let library = server.library().await;
    let path = format!("/v1/libraries/{library}/documents");
    let body = json!({ "title": "t", "texts": vec!["x".repeat(9_000); 20] }).to_string();
    let announced = server.raw(Method::POST, &path, body.clone()).await;
    let problem = announced.problem(413, "RequestTooLargeError");
    assert_eq!(problem["max_size_bytes"], 100_000);
    assert_eq!(problem["actual_size_bytes"], body.len());
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> =
        body.as_bytes().chunks(8_192).map(|piece| Ok(piece.to_vec())).collect();
    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    server.raw(Method::POST, &path, chunked).await.problem(413, "RequestTooLargeError");
    server.post(&path, &json!({ "title": "t", "texts": ["x"] })).await.expect(201);
}

#[tokio::test]
async fn a_query_string_that_is_not_utf8_is_refused_by_name() {
    let (get, post) = (Method::GET, Method::POST);
    check_all(vec![
        invalid(get.clone(), "/v1/libraries?query=%ff", "", &["/query/query"]),
        invalid(get.clone(), "/v1/libraries/{lib}?a=1&x=%C3%28&b=2", "", &["/query/x"]),
        invalid(get.clone(), "/v1/libraries/{lib}/documents?%80=1", "", &["/query/\u{fffd}"]),
        invalid(get.clone(), "/v1/libraries/{lib}/documents?page=%f0%9f", "", &["/query/page"]),
        invalid(post, "/v1/libraries/{lib}/search/stream?query=%ff", "{}", &["/query/query"]),
        invalid(get, "/v1/libraries/{lib}/documents?page=%00", "", &["/query/page"]),
    ])
    .await;
}

#[tokio::test]
async fn a_slash_too_many_is_404_and_says_which_path_exists() {
    let site = Site::new().await;
    let server = site.start().await;
    let (library, document) = fixture(&server).await;
    for path in [
        "/v1/libraries".to_owned(),
        format!("/v1/libraries/{library}"),
        format!("/v1/libraries/{library}/documents/{document}"),
        format!("/v1/documents/{document}"),
        "/health".to_owned(),
    ] {
        let problem = server.get(&format!("{path}/")).await.problem(404, "NotFoundError");
        let detail = problem["detail"].as_str().expect("detail");
        let hint = format!("; {path} without the slash at its end exists");
        assert!(detail.ends_with(&hint), "{detail}");
        server.get(&path).await.expect(200);
    }
    let problem = server.get("/v1/nothing/").await.problem(404, "NotFoundError");
    assert_eq!(problem["detail"], "there is nothing at /v1/nothing/");
}
