//! Jobs whose embedder is in trouble: they wait, and are done when it is over.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::jobs::titles;
use crate::harness::provider::Trouble;
use crate::harness::{Site, until};

/// Submits an import, which waits while the trouble lasts and is done after it.
async fn endures(trouble: Option<Trouble>) {
    let mut site = Site::new().await;
    // How long a unit waits for its vectors, tries included.
    site.set("EMBEDDING_TIMEOUT_SECONDS", "1");
    let server = site.start().await;
    let provider = site.provider.as_ref().expect("provider");
    let library = server.library().await;
    match trouble {
        Some(trouble) => provider.set_trouble(trouble),
        None => provider.set_holding(true),
    }
    let documents: Vec<Value> =
        (0..300).map(|n| json!({"title": format!("{n}"), "text": format!("text {n}")})).collect();
    let body = json!({"library_id": library, "documents": documents, "max_retries": 0});
    let id = server.submit("batch-import", &body).await;
    let job = until("it waits", async || {
        let job = server.job(&id).await;
        assert!(job["completed_at"].is_null(), "it is not over: {job}");
        (job["status"] == "pending" && job["error"].is_string()).then_some(job)
    })
    .await;
    assert!(job["run_at"].is_string(), "{job}");
    assert_eq!(job["retries"], 0, "waiting is no failure of its own");
    assert_eq!(titles(&server, &library).await.len(), 0);
    // Between two attempts it is said to wait, and why.
    until("whoever looks after the server is told", async || {
        let health = server.get("/health/detailed").await.expect(200);
        let queue = &health["components"]["job_queue"];
        let reason = queue["put_off_because"].get(0)?;
        assert_eq!((&queue["put_off"], &reason["jobs"]), (&json!(1), &json!(1)));
        assert!(reason["error"].as_str().is_some_and(|error| !error.is_empty()), "{reason}");
        Some(())
    })
    .await;
    until("the metrics say so", async || {
        let metrics = server.get("/metrics").await.text();
        metrics.contains("\narrwdb_jobs_put_off 1\n").then_some(())
    })
    .await;
    provider.set_trouble(Trouble::None);
    provider.set_holding(false);
    let job = server.job_over(&id).await;
    assert_eq!((&job["result"]["imported"], &job["result"]["failed"]), (&json!(300), &json!(0)));
    let health = server.get("/health/detailed").await.expect(200);
    assert_eq!(health["components"]["job_queue"]["put_off"], 0);
    let told = server.events("document.*").await;
    let added: BTreeSet<&str> =
        told.iter().map(|event| event["data"]["title"].as_str().expect("a title")).collect();
    assert_eq!((told.len(), added.len()), (300, 300), "each is told of once");
    assert!(!server.events("job.retrying").await.is_empty());
}

#[tokio::test]
async fn an_import_waits_for_a_provider_that_is_down() {
    endures(Some(Trouble::Status(503))).await;
}

#[tokio::test]
async fn an_import_waits_for_a_provider_that_refuses_for_its_rate() {
    endures(Some(Trouble::Status(429))).await;
}

#[tokio::test]
async fn an_import_waits_for_a_provider_that_answers_no_vectors() {
    endures(Some(Trouble::Malformed)).await;
}

#[tokio::test]
async fn an_import_waits_for_a_provider_whose_vectors_are_too_short() {
    endures(Some(Trouble::Short)).await;
}

#[tokio::test]
async fn an_import_waits_for_a_provider_that_is_slow() {
    endures(None).await;
}

/// A text that the provider will not look at fails its document and no other.
#[tokio::test]
async fn a_text_that_the_provider_refuses_fails_alone() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let text = |n: usize| if n == 7 { "it is blocked".to_owned() } else { format!("text {n}") };
    let documents: Vec<Value> =
        (0..20).map(|n| json!({"title": format!("{n}"), "text": text(n)})).collect();
    let body = json!({"library_id": library, "documents": documents});
    let job = server.job_over(&server.submit("batch-import", &body).await).await;
    assert_eq!((&job["result"]["imported"], &job["result"]["failed"]), (&json!(19), &json!(1)));
    assert_eq!(job["result"]["errors"][0]["index"], 7);
    let found: BTreeSet<String> = titles(&server, &library).await.into_values().collect();
    assert!(found.len() == 19 && !found.contains("7"), "{found:?}");
}
