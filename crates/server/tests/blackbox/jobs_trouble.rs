//! Jobs whose embedder is in trouble: they wait, and are done when it is over.

use std::collections::BTreeSet;
use std::fmt::Write;

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

/// What OpenAI says of a text that is too long it says of a model that it does not know, too.
#[tokio::test]
async fn a_text_that_is_answered_with_400_fails_alone_with_its_line() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let mut lines = String::new();
    for n in 0..600 {
        let text = if [300, 301, 520].contains(&n) { "answer with 400" } else { "good" };
        // A blank line after each counts.
        let line = json!({"title": format!("{n}"), "text": format!("{text} {n}")});
        writeln!(lines, "{line}\n").expect("a text");
    }
    let job = server.submit_lines(&format!("library_id={library}&max_retries=0"), &lines).await;
    let job = server.job_over(&job).await;
    assert_eq!(job["status"], "completed", "{job}");
    let result = &job["result"];
    assert_eq!((&result["imported"], &result["failed"]), (&json!(597), &json!(3)), "{job}");
    assert_eq!(result["not_imported"], 0);
    let errors = result["errors"].as_array().expect("errors");
    let at: Vec<[&Value; 2]> = errors.iter().map(|it| [&it["index"], &it["line_number"]]).collect();
    assert_eq!(json!(at), json!([[300, 601], [301, 603], [520, 1041]]));
    for error in errors {
        let error = error["error"].as_str().expect("words");
        assert!(error.contains("maximum context length"), "{error}");
    }
    let found: BTreeSet<String> = titles(&server, &library).await.into_values().collect();
    assert!(found.len() == 597 && !found.contains("301") && found.contains("302"));
}

/// Nothing is tried again that somebody has to mend, and it is said what was done.
#[tokio::test]
async fn a_provider_that_refuses_everything_ends_an_import_at_once() {
    let site = Site::new().await;
    let provider = site.provider.as_ref().expect("provider");
    let server = site.start().await;
    let library = server.library().await;
    provider.set_failing(true);
    let documents: Vec<Value> =
        (0..300).map(|n| json!({"title": format!("{n}"), "text": format!("text {n}")})).collect();
    let body = json!({"library_id": library, "documents": documents});
    let job = server.job_over(&server.submit("batch-import", &body).await).await;
    assert_eq!((&job["status"], &job["retries"]), (&json!("failed"), &json!(0)), "{job}");
    let error = job["error"].as_str().expect("an error");
    assert!(error.contains("told to fail") && !error.contains("tried"), "{error}");
    let result = &job["result"];
    assert_eq!(
        [&result["imported"], &result["failed"], &result["not_imported"]],
        [0, 0, 300],
        "{job}"
    );
    assert!(provider.refused() < 60, "no text is blamed for it: {}", provider.refused());
}

/// A model that is taken away in the middle, or a key, is no fault of the texts that are left.
#[tokio::test]
async fn a_provider_that_begins_to_refuse_everything_ends_an_import_with_what_was_done() {
    for status in [400, 401, 404] {
        ends_with_what_was_done(status).await;
    }
}

async fn ends_with_what_was_done(status: u16) {
    let site = Site::new().await;
    let provider = site.provider.as_ref().expect("provider");
    let server = site.start().await;
    let library = server.library().await;
    provider.set_stuck(true);
    let mut lines = String::new();
    for n in 0..2048 {
        let text = if n < 288 { "free" } else { "stuck" };
        writeln!(lines, "{}", json!({"title": format!("{n}"), "text": format!("{text} {n}")}))
            .expect("a text");
    }
    let job = server.submit_lines(&format!("library_id={library}"), &lines).await;
    until("the first unit is there", async || {
        (server.job(&job).await["progress"]["current"] == 256).then_some(())
    })
    .await;
    provider.set_trouble(Trouble::Status(status));
    provider.set_stuck(false);
    let job = server.job_over(&job).await;
    assert_eq!((&job["status"], &job["retries"]), (&json!("failed"), &json!(0)), "{job}");
    let result = &job["result"];
    let imported = result["imported"].as_u64().expect("a number");
    assert!((256..2048).contains(&imported), "{job}");
    assert_eq!((&result["failed"], &result["not_imported"]), (&json!(0), &json!(2048 - imported)));
    assert!(job["error"].as_str().is_some_and(|error| !error.contains("tried")), "{job}");
    assert_eq!(titles(&server, &library).await.len() as u64, imported);
    let ends = server.events("batch.failed").await;
    assert_eq!(ends.last().map(|end| &end["data"]["successful"]), Some(&json!(imported)));
}

#[tokio::test]
async fn outside_jobs_too_a_text_that_is_answered_with_400_fails_alone() {
    let site = Site::new().await;
    let provider = site.provider.as_ref().expect("provider");
    let server = site.start().await;
    let library = server.library().await;
    let text = |n: usize| {
        let text = if n == 6 { "answer with 400" } else { "good" };
        json!({"title": format!("{n}"), "text": format!("{text} {n}")})
    };
    let path = format!("/v1/libraries/{library}/documents");
    let lines: Vec<String> = (1..=10).map(|n| text(n).to_string()).collect();
    let body = lines.join("\n");
    let request = server.request(http::Method::POST, &format!("{path}/stream"));
    let request = request.header("content-type", "application/x-ndjson").body(body);
    let answer = server.send(request).await.expect(200);
    assert_eq!((&answer["successful"], &answer["failed"]), (&json!(9), &json!(1)), "{answer}");
    let results = answer["results"].as_array().expect("results");
    let failed = results.iter().find(|it| it["success"] == false).expect("the sixth");
    assert_eq!(failed["line_number"], 6, "{failed}");

    let documents: Vec<Value> = (1..=10).map(text).collect();
    let body = json!({ "documents": documents });
    let answer = server.post(&format!("{path}/batch"), &body).await.expect(201);
    assert_eq!((&answer["successful"], &answer["failed"]), (&json!(9), &json!(1)), "{answer}");
    let failed = &answer["results"][9];
    assert_eq!(failed["index"], 5, "{failed}");
    assert!(failed["error"].as_str().is_some_and(|it| it.contains("maximum context length")));
    // One in a batch is as one of many; one that is added by itself is an error.
    let alone = json!({ "documents": [text(6)] });
    let answer = server.post(&format!("{path}/batch"), &alone).await.expect(201);
    assert_eq!((&answer["successful"], &answer["failed"]), (&json!(0), &json!(1)), "{answer}");
    server.post(&path, &text(6)).await.problem(503, "EmbeddingServiceError");
    // A provider that takes nothing is nobody's fault.
    provider.set_failing(true);
    let fresh: Vec<Value> =
        (0..10).map(|n| json!({"title": "t", "text": format!("new {n}")})).collect();
    let answer = server.post(&format!("{path}/batch"), &json!({ "documents": fresh })).await;
    answer.problem(503, "EmbeddingServiceError");
}
