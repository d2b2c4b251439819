//! Documents in pages and by filters.

use serde_json::{Value, json};

use crate::harness::{Answer, Server, Site, until};

/// A library of 30 documents: the title is the number, its metadata what the number is.
async fn numbers(server: &Server) -> String {
    let library = server.vector_library(2).await;
    let documents: Vec<Value> = (0..30).map(number).collect();
    let path = format!("/v1/libraries/{library}/documents/batch-with-embeddings");
    let added = server.post(&path, &json!({ "documents": documents })).await.expect(201);
    assert_eq!(added["successful"], 30);
    library
}

fn number(n: u32) -> Value {
    let parity = if n % 2 == 0 { "even" } else { "odd" };
    json!({
        "title": n.to_string(), "tags": [parity, if n < 10 { "digit" } else { "number" }],
        "metadata": {"n": n, "of": {"three": n % 3 == 0}, "ends": n % 10},
        "chunks": [
            {"text": format!("The number {n} is {parity}."), "embedding": [1.0, f64::from(n) / 10.0]},
        ],
    })
}

/// A page of documents, with a query string whose values are escaped here.
async fn list(server: &Server, library: &str, query: &[(&str, &str)]) -> Answer {
    let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let pairs: Vec<String> =
        query.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    server.get(&format!("/v1/libraries/{library}/documents?{}", pairs.join("&"))).await
}

fn titles(page: &Value) -> Vec<String> {
    let documents = page["documents"].as_array().expect("documents").iter();
    documents.map(|it| it["metadata"]["title"].as_str().expect("a title").to_owned()).collect()
}

fn names(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(|n| n.to_string()).collect()
}

#[tokio::test]
async fn a_list_is_of_what_passes_a_filter_in_pages_and_by_cursors() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = numbers(&server).await;
    let odd = r#"{"tags": "odd", "of.three": false}"#;
    let expected = names((0..30).filter(|n| n % 2 == 1 && n % 3 != 0));
    let whole = list(&server, &library, &[("filter", odd)]).await.expect(200);
    assert_eq!((titles(&whole), &whole["total"]), (expected.clone(), &json!(10)));
    assert_eq!((&whole["page"], &whole["page_size"]), (&json!(1), &json!(50)));
    assert!(whole["next_cursor"].is_null());
    assert!(whole["documents"][0]["chunks"][0].get("embedding").is_none());
    let conditions = r#"[{"field": "n", "operator": "lt", "value": 3}]"#;
    let few = [("filter", conditions), ("include_embeddings", "true")];
    let few = list(&server, &library, &few).await.expect(200);
    assert_eq!(titles(&few), names(0..3));
    assert_eq!(few["documents"][1]["chunks"][0]["embedding"], json!([1.0, 0.1]));

    // By numbers of pages, and by cursors from any of them.
    let mut paged = Vec::new();
    for page in 1..=4 {
        let query = [("filter", odd), ("page_size", "3"), ("page", &page.to_string())];
        let answer = list(&server, &library, &query).await.expect(200);
        assert_eq!((&answer["page"], &answer["total"]), (&json!(page), &json!(10)));
        assert_eq!(answer["next_cursor"].is_null(), page == 4, "{page}");
        paged.extend(titles(&answer));
    }
    assert_eq!(paged, expected);
    let behind = [("filter", odd), ("page", "5"), ("page_size", "3")];
    let behind = list(&server, &library, &behind).await.expect(200);
    assert_eq!((titles(&behind), &behind["next_cursor"]), (vec![], &Value::Null));
    for (filter, expected) in [(odd, expected), ("", names(0..30))] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let query = [("filter", filter), ("page_size", "4"), ("cursor", &cursor)];
            let page = list(&server, &library, &query).await.expect(200);
            assert_eq!(page["page"].is_null(), !cursor.is_empty());
            assert!(page["documents"].as_array().expect("documents").len() <= 4);
            seen.extend(titles(&page));
            // What is written meanwhile changes nothing of what is there.
            server
                .post(&format!("/v1/libraries/{library}/documents/with-embeddings"), &number(2))
                .await
                .expect(201);
            let Some(next) = page["next_cursor"].as_str() else { break };
            next.clone_into(&mut cursor);
        }
        let (old, new) = seen.split_at(expected.len());
        assert_eq!(old, expected);
        assert!(new.iter().all(|title| title == "2"), "{new:?}");
        let added = r#"{"title": "2", "document_id": {"$exists": true}}"#;
        let all = list(&server, &library, &[("filter", added)]).await.expect(200);
        for extra in all["documents"].as_array().expect("documents").iter().skip(1) {
            let id = extra["id"].as_str().expect("an id");
            server.delete(&format!("/v1/documents/{id}")).await.expect_status(204);
        }
    }
}

#[tokio::test]
async fn a_list_that_is_asked_for_wrongly_is_refused() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = numbers(&server).await;
    for (query, pointer) in [
        (vec![("filter", "{")], "/query/filter"),
        (vec![("filter", "\"x\"")], "/query/filter"),
        (vec![("filter", r#"{"a": {"$like": 1}}"#)], "/query/filter/a/$like"),
        (vec![("cursor", "x")], "/query/cursor"),
        (vec![("cursor", "1.x")], "/query/cursor"),
        (vec![("cursor", "1.0191f4a2-7c3e-7abc-8def-0123456789ab"), ("page", "2")], "/query/page"),
        (vec![("page", "0")], "/query/page"),
        (vec![("page_size", "1001")], "/query/page_size"),
    ] {
        let refused = list(&server, &library, &query).await;
        refused.problem(422, "ValidationError");
        assert_eq!(refused.pointers(), [pointer], "{query:?}");
    }
}

#[tokio::test]
async fn a_job_deletes_what_passes_a_filter() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = numbers(&server).await;
    let others = numbers(&server).await;
    let body = json!({"library_id": library, "filter": {"tags": "odd", "n": {"$gte": 10}}});
    let job = server.submit("batch-delete", &body).await;
    let job = server.job_over(&job).await;
    assert_eq!(job["status"], "completed", "{job}");
    let result = json!({"deleted": 10, "chunks_deleted": 10, "documents_changed": 0});
    assert_eq!(job["result"], result);
    let count = |library: String, filter: Value| {
        let server = &server;
        async move {
            let path = format!("/v1/libraries/{library}/documents/count");
            let counted = server.post(&path, &json!({ "filter": filter })).await.expect(200);
            counted["documents"].clone()
        }
    };
    assert_eq!(count(library.clone(), json!({})).await, 20);
    assert_eq!(count(library.clone(), json!({"tags": "odd", "n": {"$gte": 10}})).await, 0);
    assert_eq!(count(others, json!({})).await, 30);
    let path = "/v1/jobs/batch-delete";
    for (body, pointer) in [
        (json!({"library_id": library, "filter": {}}), "/filter"),
        (json!({"library_id": library, "filter": {"a": {"$x": 1}}}), "/filter/a/$x"),
        (json!({"filter": {"a": 1}}), "/library_id"),
        (json!({"library_id": library}), "/document_ids"),
        (json!({"library_id": library, "filter": {"a": 1}, "document_ids": ["x"]}), "/filter"),
    ] {
        assert_eq!(server.post(path, &body).await.pointers(), [pointer], "{body}");
    }
}

/// A job that is killed in the middle goes on, and what it says is of all that it did.
#[tokio::test]
async fn a_deletion_by_filter_goes_on_after_a_crash() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let path = format!("/v1/libraries/{library}/documents/batch-with-embeddings");
    for from in (0..5000).step_by(1000) {
        let documents: Vec<Value> = (from..from + 1000).map(number).collect();
        server.post(&path, &json!({ "documents": documents })).await.expect(201);
    }
    let body = json!({"library_id": library, "filter": {"tags": "number"}});
    let job = server.submit("batch-delete", &body).await;
    let count = format!("/v1/libraries/{library}/documents/count");
    until("some of it is done", async || {
        let counted = server.post(&count, &json!({})).await.expect(200);
        (counted["documents"] != 5000).then_some(())
    })
    .await;
    server.kill();
    let server = site.start().await;
    let job = server.job_over(&job).await;
    assert_eq!(job["status"], "completed", "{job}");
    let result = json!({"deleted": 4990, "chunks_deleted": 4990, "documents_changed": 0});
    assert_eq!(job["result"], result);
    let counted = server.post(&count, &json!({})).await.expect(200);
    assert_eq!(counted["documents"], 10);
}
