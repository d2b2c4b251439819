//! Health, metrics, headers, CORS, hosts, rate limits.

use reqwest::Method;
use serde_json::json;

use crate::harness::{Site, until};

#[tokio::test]
async fn the_health_of_a_server_is_told() {
    let site = Site::new().await;
    let server = site.start().await;
    for path in ["/health", "/healthz"] {
        let health = server.get(path).await.expect(200);
        assert_eq!((&health["status"], &health["version"]), (&json!("healthy"), &json!("1.0.0")));
        assert!(health["timestamp"].is_string() && health["uptime_seconds"].is_number());
    }
    for path in ["/ready", "/readyz", "/v1/ready"] {
        let ready = server.get(path).await.expect(200);
        assert_eq!((&ready["status"], &ready["ready"]), (&json!("ready"), &json!(true)));
        for check in ["embedding_service", "event_bus", "standing_queries"] {
            assert_eq!(ready["checks"][check]["healthy"], true, "{check}");
        }
    }
    let readiness = server.get("/readiness").await.expect(200);
    assert_eq!(readiness["ready"], true);
    for check in ["embedding_service", "data_dir_writable", "libraries_loaded"] {
        assert_eq!(readiness["checks"][check], true, "{check}");
    }
    assert_eq!(server.get("/liveness").await.expect(200)["status"], "alive");
    assert_eq!(server.get("/ping").await.expect(200), json!({ "ping": "pong" }));
    let detailed = server.get("/health/detailed").await.expect(200);
    assert!(detailed["system_info"]["cpu_count"].is_number());
    assert_eq!(detailed["service_status"]["embedding_service"], "healthy");
    let root = server.get("/").await.expect(200);
    assert_eq!(
        (&root["name"], &root["documentation"]),
        (&json!("Vector Database API"), &json!("/docs"))
    );
}

#[tokio::test]
async fn every_answer_carries_its_id_its_time_and_the_security_headers() {
    let site = Site::new().await;
    let server = site.start().await;
    for (path, status) in [("/health", 200), ("/nowhere", 404), ("/v1/libraries", 200)] {
        let request = server.request(Method::GET, path).header("X-Request-ID", "my-id-1");
        let answer = server.send(request).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("x-request-id"), Some("my-id-1"));
        assert!(answer.header("x-response-time").expect("time").ends_with('s'));
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("x-xss-protection", "1; mode=block"),
            ("referrer-policy", "strict-origin-when-cross-origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path} {name}");
        }
        for name in ["strict-transport-security", "content-security-policy", "permissions-policy"] {
            assert!(answer.header(name).is_some(), "{path} {name}");
        }
    }
    let made = server.get("/health").await;
    assert_eq!(made.header("x-request-id").expect("an id of its own").len(), 36);
}

#[tokio::test]
async fn browsers_of_any_origin_may_call_unless_told_otherwise() {
    let mut site = Site::new().await;
    let server = site.start().await;
    let preflight = |origin: &str| {
        server
            .request(Method::OPTIONS, "/v1/libraries")
            .header("Origin", origin.to_owned())
            .header("Access-Control-Request-Method", "POST")
            .header("Access-Control-Request-Headers", "content-type,x-api-key")
    };
    let answer = server.send(preflight("https://a.example")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert!(answer.header("access-control-allow-methods").expect("methods").contains("DELETE"));
    assert_eq!(answer.header("access-control-max-age"), Some("3600"));
    let request = server.request(Method::GET, "/health").header("Origin", "https://a.example");
    let answer = server.send(request).await;
    let exposed = answer.header("access-control-expose-headers").expect("exposed").to_lowercase();
    for name in ["x-request-id", "x-total-count", "retry-after", "etag", "content-range"] {
        assert!(exposed.contains(name), "{name}: {exposed}");
    }
    drop(server);

    site.set("CORS_ORIGINS", "https://b.example");
    let server = site.start().await;
    for (origin, allowed) in
        [("https://a.example", None), ("https://b.example", Some("https://b.example"))]
    {
        let request = server.request(Method::GET, "/health").header("Origin", origin);
        let answer = server.send(request).await;
        assert_eq!(answer.header("access-control-allow-origin"), allowed, "{origin}");
    }
}

#[tokio::test]
async fn only_the_allowed_hosts_are_answered() {
    let mut site = Site::new().await;
    site.set("ALLOWED_HOSTS", "127.0.0.1,*.example.org");
    let server = site.start().await;
    for (host, status) in [
        ("a.example.org", 200),
        ("a.example.org:99", 200),
        ("evil.example.com", 400),
        ("example.org.evil", 400),
    ] {
        let request = server.request(Method::GET, "/v1/libraries").header("Host", host);
        assert_eq!(server.send(request).await.status, status, "{host}");
    }
}

#[tokio::test]
async fn a_budget_that_is_spent_is_429_with_when_to_come_back() {
    let mut site = Site::new().await;
    site.set("RATE_LIMIT_ENABLED", "true");
    site.set("RATE_LIMIT_SEARCH", "3/hour");
    site.set("RATE_LIMIT_CREATE", "2/hour");
    site.set("RATE_LIMIT_PER_MINUTE", "1000");
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let path = format!("/v1/libraries/{library}/search/embedding");
    let body = json!({ "embedding": [1, 0] });
    for _ in 0..3 {
        server.post(&path, &body).await.expect(200);
    }
    let answer = server.post(&path, &body).await;
    answer.problem(429, "RateLimitError");
    let wait: u64 = answer.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!((1..=3600).contains(&wait));
    server.vector_library(2).await;
    server.post("/v1/libraries", &json!({ "name": "x" })).await.problem(429, "RateLimitError");
    for _ in 0..10 {
        server.get("/health").await.expect(200);
    }
}

#[tokio::test]
async fn metrics_move() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    server.add_vectors(&library, "t", &[vec![1.0, 0.0], vec![0.0, 1.0]]).await;
    let path = format!("/v1/libraries/{library}/search/embedding");
    server.post(&path, &json!({ "embedding": [1, 0] })).await.expect(200);
    let value = |text: &str, name: &str, label: &str| -> Option<f64> {
        let line = text.lines().find(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && line.contains(label)
        })?;
        line.rsplit(' ').next()?.parse().ok()
    };
    // An answer is counted after it is sent.
    let text = until("the search is counted", async || {
        let text = server.get("/metrics").await.text();
        value(&text, "http_requests_total", "search/embedding").map(|_| text)
    })
    .await;
    for (name, label, expected) in [
        ("vectordb_searches_total", library.as_str(), 1.0),
        ("vectordb_documents_added_total", library.as_str(), 1.0),
        ("vectordb_vectors_added_total", library.as_str(), 2.0),
        ("vectordb_libraries_total", "", 1.0),
        ("vectordb_documents_total", "", 1.0),
        ("vectordb_vectors_total", "", 2.0),
        ("http_requests_total", "/v1/libraries/{library_id}/search/embedding", 1.0),
    ] {
        assert_eq!(value(&text, name, label), Some(expected), "{name} in {text}");
    }
    assert!(text.contains("vectordb_search_duration_seconds_bucket{"));
    assert!(text.contains("process_resident_memory_bytes"));
}

#[tokio::test]
async fn what_is_switched_off_is_not_served() {
    let mut site = Site::new().await;
    site.set("ENABLE_DOCS", "false");
    site.set("ENABLE_METRICS", "false");
    site.set("SECURITY_HEADERS_ENABLED", "false");
    site.set("API_VERSIONING_ENABLED", "false");
    let server = site.start().await;
    for path in ["/docs", "/openapi.json", "/metrics"] {
        assert_eq!(server.get(path).await.status, 404, "{path}");
    }
    let answer = server.get("/libraries").await;
    assert_eq!(answer.header("x-frame-options"), None);
    assert_eq!(answer.expect(200), json!([]), "paths without /v1 as well");
    server.get("/v1/libraries").await.expect(200);
}

#[tokio::test]
async fn an_error_type_leads_to_its_explanation() {
    let site = Site::new().await;
    let server = site.start().await;
    let problem = server.get("/nowhere").await.problem(404, "NotFoundError");
    let page = server.get(problem["type"].as_str().expect("type")).await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("Not Found"));
}

/// The value of a metric whose line has all of these labels.
fn metric(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let line = text.lines().find(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    })?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test]
async fn vectors_that_died_are_counted_exactly() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let ids: Vec<String> =
        (0..4).map(|n| format!("00000000-0000-4000-8000-00000000000{n}")).collect();
    let document = |id: &str, chunks: usize| {
        let chunk = json!({ "text": "x", "embedding": [1, 0] });
        json!({ "id": id, "title": "t", "chunks": vec![chunk; chunks] })
    };
    let path = format!("/v1/libraries/{library}/documents");
    // 3 chunks that are replaced in the same batch, then 2, 5, 1 and 4.
    let batch = [(0, 3), (0, 2), (1, 5), (2, 1), (3, 4)];
    let batch: Vec<_> = batch.iter().map(|(n, chunks)| document(&ids[*n], *chunks)).collect();
    let body = json!({ "documents": batch });
    server.post(&format!("{path}/batch-with-embeddings"), &body).await.expect(201);
    // One is replaced by itself (5 die), one by a line of an import (1), two are deleted (2, 4).
    let one = document(&ids[1], 1);
    server.post(&format!("{path}/with-embeddings"), &one).await.expect(201);
    let line = document(&ids[2], 7).to_string();
    server.raw(Method::POST, &format!("{path}/stream"), line).await.expect(200);
    assert_eq!(server.delete(&format!("{path}/{}", ids[0])).await.status, 204);
    let gone = [&ids[3], &ids[3], &ids[0]];
    let body = json!({ "document_ids": gone }).to_string();
    server.raw(Method::DELETE, "/v1/documents/batch", body).await.expect(200);

    let text = server.get("/metrics").await.text();
    let value = |name: &str| metric(&text, name, &[&library]).expect(name);
    assert_eq!(value("vectordb_vectors_added_total").to_bits(), 23_f64.to_bits(), "{text}");
    assert_eq!(value("vectordb_vectors_deleted_total").to_bits(), 15_f64.to_bits(), "{text}");
    assert_eq!(value("vectordb_library_size_vectors").to_bits(), 8_f64.to_bits(), "{text}");
    let index = metric(&text, "vectordb_vectors_added_total", &[&library, "brute_force"]);
    assert!(index.is_some(), "the index of the library: {text}");
}

#[tokio::test]
async fn the_time_of_embedding_is_told_by_the_size_of_the_call() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let path = format!("/v1/libraries/{library}");
    let texts: Vec<String> = (0..11).map(|n| format!("text {n}")).collect();
    let body = json!({ "title": "t", "texts": texts });
    server.post(&format!("{path}/documents"), &body).await.expect(201);
    server.post(&format!("{path}/search"), &json!({ "query": "text" })).await.expect(200);
    let text = server.get("/metrics").await.text();
    for (size, calls) in [("small", 1.0_f64), ("medium", 1.0), ("large", 0.0)] {
        let label = format!("batch_size_bucket=\"{size}\"");
        let name = "vectordb_embedding_duration_seconds";
        let count = metric(&text, &format!("{name}_count"), &[&label]).expect(size);
        assert_eq!(count.to_bits(), calls.to_bits(), "{size}: {text}");
        let all = metric(&text, &format!("{name}_bucket"), &[&label, "le=\"+Inf\""]);
        assert_eq!(all.map(f64::to_bits), Some(calls.to_bits()), "{size}: {text}");
        let sum = metric(&text, &format!("{name}_sum"), &[&label]).expect(size);
        assert_eq!(sum > 0.0, calls > 0.0, "{size}: {text}");
    }
}
