//! The OpenAPI document says what is served, and the pages need nothing from elsewhere.

use reqwest::Method;
use serde_json::Value;

use crate::harness::{Server, Site};

const NONE: &str = "00000000-0000-4000-8000-000000000000";

/// Every method and path that the contract asks for.
const PROMISED: [(&str, &str); 41] = [
    ("get", "/"),
    ("get", "/health"),
    ("get", "/ready"),
    ("get", "/readiness"),
    ("get", "/liveness"),
    ("get", "/health/detailed"),
    ("get", "/ping"),
    ("get", "/metrics"),
    ("post", "/v1/libraries"),
    ("get", "/v1/libraries"),
    ("get", "/v1/libraries/{library_id}"),
    ("patch", "/v1/libraries/{library_id}"),
    ("delete", "/v1/libraries/{library_id}"),
    ("get", "/v1/libraries/{library_id}/statistics"),
    ("get", "/v1/libraries/{library_id}/documents"),
    ("post", "/v1/libraries/{library_id}/documents"),
    ("post", "/v1/libraries/{library_id}/documents/with-embeddings"),
    ("post", "/v1/libraries/{library_id}/documents/batch"),
    ("post", "/v1/libraries/{library_id}/documents/batch-with-embeddings"),
    ("post", "/v1/libraries/{library_id}/documents/stream"),
    ("get", "/v1/libraries/{library_id}/documents/stream"),
    ("get", "/v1/libraries/{library_id}/documents/{document_id}"),
    ("put", "/v1/libraries/{library_id}/documents/{document_id}"),
    ("delete", "/v1/libraries/{library_id}/documents/{document_id}"),
    ("get", "/v1/documents/{document_id}"),
    ("delete", "/v1/documents/{document_id}"),
    ("delete", "/v1/documents/batch"),
    ("post", "/v1/libraries/{library_id}/search"),
    ("post", "/v1/libraries/{library_id}/search/embedding"),
    ("post", "/v1/libraries/{library_id}/search/hybrid"),
    ("post", "/v1/libraries/{library_id}/search/rerank"),
    ("post", "/v1/libraries/{library_id}/search/stream"),
    ("post", "/v1/libraries/{library_id}/index/rebuild"),
    ("post", "/v1/libraries/{library_id}/index/optimize"),
    ("get", "/v1/libraries/{library_id}/index/statistics"),
    ("get", "/v1/events/stream"),
    ("get", "/v1/events"),
    ("get", "/v1/events/stats"),
    ("get", "/v1/events/statistics"),
    ("get", "/v1/events/schema"),
    ("get", "/errors/{slug}"),
];

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// Every operation of the document, as (method, path).
fn operations(document: &Value) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for method in METHODS {
            if item.get(method).is_some() {
                all.push((method.to_owned(), path.clone()));
            }
        }
    }
    all
}

async fn ask(server: &Server, method: &str, path: &str) -> crate::harness::Answer {
    let path = path
        .replace("{library_id}", NONE)
        .replace("{document_id}", NONE)
        .replace("{slug}", "not-found")
        // Of a library that is there it has no end.
        .replace("/events/stream", &format!("/events/stream?library_id={NONE}"));
    let method: Method = method.to_uppercase().parse().expect("method");
    server.raw(method, &path, "").await
}

#[tokio::test]
async fn v3_every_promised_operation_is_described() {
    let site = Site::new().await;
    let server = site.start().await;
    let document = server.get("/openapi.json").await.expect(200);
    assert!(document["openapi"].as_str().expect("version").starts_with("3.1"));
    assert_eq!(document["info"]["title"], "Vector Database API");
    let described = operations(&document);
    for (method, path) in PROMISED {
        assert!(described.iter().any(|(m, p)| m == method && p == path), "{method} {path}");
    }
}

#[tokio::test]
async fn v3_every_described_operation_is_served() {
    let site = Site::new().await;
    let server = site.start().await;
    let document = server.get("/openapi.json").await.expect(200);
    let described = operations(&document);
    assert!(described.len() >= PROMISED.len());
    for (method, path) in &described {
        let answer = ask(&server, method, path).await;
        assert_ne!(answer.status, 405, "{method} {path}");
        assert_ne!(answer.status, 500, "{method} {path}: {}", answer.text());
        // What is missing is the library or document, never the route.
        if answer.status == 404 {
            let kind = answer.json()["error_type"].as_str().expect("error_type").to_owned();
            assert!(
                kind.ends_with("NotFoundError") && kind != "NotFoundError",
                "{method} {path}: {kind}"
            );
        }
    }
    // And a path that is described for some methods refuses the others.
    for path in document["paths"].as_object().expect("paths").keys() {
        for method in METHODS {
            if !described.iter().any(|(m, p)| m == method && p == path) {
                let answer = ask(&server, method, path).await;
                assert_eq!(answer.status, 405, "{method} {path} is served but not described");
                assert!(answer.header("allow").is_some(), "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn every_reference_in_the_document_leads_somewhere() {
    let site = Site::new().await;
    let server = site.start().await;
    let document = server.get("/openapi.json").await.expect(200);
    let mut open = vec![&document];
    let mut references = 0;
    while let Some(value) = open.pop() {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            let pointer = reference.strip_prefix('#').expect("a reference within the document");
            assert!(document.pointer(pointer).is_some(), "{reference}");
            references += 1;
        }
        match value {
            Value::Object(map) => open.extend(map.values()),
            Value::Array(list) => open.extend(list),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    assert!(references > 10);
}

/// What a page makes the browser load: `src` and `href` of elements that load.
fn loaded(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for attribute in ["src=", "href="] {
        for part in page.split(attribute).skip(1) {
            let quote = part.chars().next().unwrap_or(' ');
            if quote == '"' || quote == '\'' {
                found.push(part[1..].split(quote).next().unwrap_or_default().to_owned());
            }
        }
    }
    found
}

#[tokio::test]
async fn the_documentation_works_without_a_network() {
    let site = Site::new().await;
    let server = site.start().await;
    for start in ["/docs", "/redoc"] {
        let page = server.get(start).await;
        let base = page.path.clone();
        assert_eq!(page.status, 200, "{start}");
        let text = page.text();
        let urls = loaded(&text);
        assert!(!urls.is_empty(), "{start}: {text}");
        for url in urls {
            let is_outside = url.contains("://") || url.starts_with("//");
            assert!(!is_outside, "{start} loads {url}");
            if url.starts_with("data:") || url.starts_with('#') {
                continue;
            }
            let directory = &base[..=base.rfind('/').expect("a slash")];
            let path = if url.starts_with('/') {
                url.clone()
            } else {
                format!("{directory}{}", url.trim_start_matches("./"))
            };
            let asset = server.get(&path).await;
            assert_eq!(asset.status, 200, "{start} loads {url}");
            assert!(!asset.body.is_empty(), "{path}");
        }
    }
}
