//! Imports in the background: lines of any number, what becomes of each, and what a stop leaves.

use std::fmt::Write;
use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

use super::jobs::{line, occupy, titles};
use crate::harness::{DEADLINE, Site, until};

fn id(n: usize) -> String {
    uuid::Uuid::from_u64_pair(9, n as u64).to_string()
}

#[tokio::test]
async fn of_many_lines_the_bad_ones_fail_alone_and_the_last_of_an_id_wins() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let mut lines = String::new();
    let mut expected = std::collections::BTreeMap::new();
    let mut made = Vec::new();
    for n in 0..700 {
        let title = format!("document {n}");
        let text = match n {
            3 => "no JSON".to_owned(),
            300 => "[]".to_owned(),
            301 => json!({"title": "no text"}).to_string(),
            650 => line(None, "wrong dimension", &[1.0, 2.0, 3.0]),
            // Ten ids, seventy times: in one unit and across units.
            n if n % 10 == 0 => {
                expected.insert(id(n % 100), title.clone());
                line(Some(&id(n % 100)), &title, &[1.0, 2.0])
            }
            _ => {
                made.push(title.clone());
                line(None, &title, &[1.0, 2.0])
            }
        };
        writeln!(lines, "{text}").expect("a text");
    }
    let job = server.submit_lines(&format!("library_id={library}&priority=high"), &lines).await;
    let job = server.job_over(&job).await;
    assert_eq!((&job["status"], &job["priority"]), (&json!("completed"), &json!("high")), "{job}");
    assert_eq!((&job["result"]["imported"], &job["result"]["failed"]), (&json!(696), &json!(4)));
    let errors = job["result"]["errors"].as_array().expect("errors");
    let at: Vec<&Value> = errors.iter().map(|error| &error["index"]).collect();
    assert_eq!(at, [3, 300, 301, 650]);
    assert!(errors.iter().all(|error| error["error"].is_string()), "{errors:?}");
    assert_eq!(job["progress"]["total"], 700);

    let found = titles(&server, &library).await;
    for (id, title) in &expected {
        assert_eq!(found.get(id), Some(title), "the last of an id wins");
    }
    let mut others: Vec<&String> =
        found.iter().filter(|(id, _)| !expected.contains_key(*id)).map(|(_, it)| it).collect();
    others.sort_unstable();
    made.sort_unstable();
    assert_eq!(others, made.iter().collect::<Vec<_>>());
    let added = server.events("document.added").await;
    assert_eq!(added.len(), found.len(), "each is added once");
    let schema = server.get("/v1/events/schema").await.expect(200);
    let batches = server.events("batch.*").await;
    for event in &batches {
        assert_eq!(crate::harness::schema::fault(&schema, event), None, "{event}");
    }
    assert_eq!(batches.len(), 2);
    let end = &batches[1]["data"];
    assert_eq!(
        (&batches[1]["type"], &end["total"], &end["successful"], &end["failed"]),
        (&json!("batch.completed"), &json!(700), &json!(696), &json!(4))
    );
    let inputs = fs::read_dir(site.data_dir.join("work").join("jobs")).expect("a folder");
    assert_eq!(inputs.count(), 0, "what it worked on is removed");
}

#[tokio::test]
async fn what_an_export_wrote_can_be_imported_and_is_the_same() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let mut lines = String::new();
    for n in 0..300 {
        let chunks = json!([
            {"text": format!("\"quoted\"\n{n}"), "embedding": [n, 1.5]},
            {"text": "second, of it", "embedding": [0.1, 1e-7]},
        ]);
        let line = json!({
            "title": format!("t{n}"), "author": "a, b", "tags": ["x", "y"], "chunks": chunks,
            "source_url": "https://example.com/", "created_at": "2020-01-01T00:00:00Z",
            "color": {"deep": [n]},
        });
        writeln!(lines, "{line}").expect("a text");
    }
    let job = server.submit_lines(&format!("library_id={library}"), &lines).await;
    assert_eq!(server.job_over(&job).await["result"]["imported"], 300);
    let body = json!({"library_id": library, "format": "ndjson", "include_embeddings": true});
    let export = server.job_over(&server.submit("batch-export", &body).await).await;
    let path = export["result"]["download_url"].as_str().expect("a URL").to_owned();
    let file = server.get(&path).await.text();
    let other = server.vector_library(2).await;
    let job = server.submit_lines(&format!("library_id={other}"), &file).await;
    let job = server.job_over(&job).await;
    assert_eq!((&job["result"]["imported"], &job["result"]["failed"]), (&json!(300), &json!(0)));
    let body = json!({"library_id": other, "format": "ndjson", "include_embeddings": true});
    let export = server.job_over(&server.submit("batch-export", &body).await).await;
    let path = export["result"]["download_url"].as_str().expect("a URL").to_owned();
    let again = server.get(&path).await.text();
    // Chunks get ids of their own; nothing else differs.
    let plain = |text: &str| -> Vec<Value> {
        let mut lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        for chunk in lines.iter_mut().filter_map(|it| it["chunks"].as_array_mut()).flatten() {
            chunk["id"] = Value::Null;
            chunk["metadata"]["created_at"] = Value::Null;
        }
        lines
    };
    assert_eq!(plain(&again), plain(&file));
}

/// Units of 256 lines, of which those from the second on are stuck: the provider is asked for 96
/// texts at a time.
fn stuck_lines(units: usize) -> String {
    let mut lines = String::new();
    for n in 0..units * 256 {
        let text = if n < 288 { format!("free {n}") } else { format!("stuck {n}") };
        writeln!(lines, "{}", json!({"title": format!("{n}"), "text": text})).expect("a text");
    }
    lines
}

#[tokio::test]
async fn an_import_that_is_cancelled_stops_at_a_unit_and_says_what_was_done() {
    let site = Site::new().await;
    let server = site.start().await;
    let provider = site.provider.as_ref().expect("provider");
    let library = server.library().await;
    provider.set_stuck(true);
    let job = server.submit_lines(&format!("library_id={library}"), &stuck_lines(6)).await;
    let seen = until("the first unit is there", async || {
        let job = server.job(&job).await;
        (job["progress"]["current"] == 256).then_some(job)
    })
    .await;
    assert_eq!((&seen["status"], &seen["progress"]["total"]), (&json!("running"), &json!(1536)));
    assert!(seen["progress"]["rate_per_second"].is_number(), "{seen}");
    let answer = server.delete(&format!("/v1/jobs/{job}")).await.expect(200);
    assert_eq!(answer["message"], format!("Job {job} cancelled"));
    // The provider is stuck still: nobody waits for it.
    let job = server.job_over(&job).await;
    assert_eq!(job["status"], "cancelled", "{job}");
    assert_eq!((&job["result"]["imported"], &job["result"]["failed"]), (&json!(256), &json!(0)));
    provider.set_stuck(false);
    assert_eq!(titles(&server, &library).await.len(), 256);
    let ends = server.events("batch.failed").await;
    assert_eq!((ends.len(), &ends[0]["data"]["successful"]), (1, &json!(256)));
    let kinds = server.events("job.cancelling,job.cancelled").await;
    assert_eq!(kinds.len(), 2, "{kinds:?}");
}

#[tokio::test]
async fn a_library_that_is_deleted_ends_the_jobs_about_it() {
    let site = Site::new().await;
    let server = site.start().await;
    let provider = site.provider.as_ref().expect("provider");
    let library = server.library().await;
    provider.set_stuck(true);
    let import = server.submit_lines(&format!("library_id={library}"), &stuck_lines(3)).await;
    until("the first unit is there", async || {
        (server.job(&import).await["progress"]["current"] == 256).then_some(())
    })
    .await;
    let body = json!({"library_id": library, "run_at": "2999-01-01T00:00:00Z"});
    let later = server.submit("index-optimize", &body).await;
    server.delete(&format!("/v1/libraries/{library}")).await.expect(204);
    provider.set_stuck(false);
    let job = server.job_over(&import).await;
    assert_eq!(job["status"], "failed", "{job}");
    let error = job["error"].as_str().expect("an error");
    assert_eq!(error, format!("Library {library} not found"));
    assert_eq!(server.job(&later).await["status"], "pending");
    server.delete(&format!("/v1/jobs/{later}")).await.expect(200);
}

#[tokio::test]
async fn what_waited_and_what_was_worked_on_goes_on_after_a_restart() {
    let site = Site::new().await;
    let server = site.start().await;
    let provider = site.provider.as_ref().expect("provider");
    let library = server.library().await;
    provider.set_stuck(true);
    let import = server.submit_lines(&format!("library_id={library}"), &stuck_lines(4)).await;
    until("the first unit is there", async || {
        (server.job(&import).await["progress"]["current"] == 256).then_some(())
    })
    .await;
    let small = occupy(&server, &library).await;
    let far = server.submit("purge", &json!({"run_at": "2999-01-01T00:00:00Z"})).await;
    let at = jiff::Timestamp::now() + std::time::Duration::from_secs(2);
    let body = json!({"run_at": at.to_string(), "document_ids": ["none"]});
    let near = server.submit("batch-delete", &body).await;
    let inputs = site.data_dir.join("work").join("jobs");
    assert!(inputs.join(format!("{import}.ndjson")).exists());
    let began = Instant::now();
    server.terminate();
    assert!(server.ended().await.success(), "{}", server.log());
    assert!(began.elapsed() < DEADLINE / 3, "a stop waits for no provider: {:?}", began.elapsed());
    // As if the server had died between writing an input and submitting its job.
    let orphan = inputs.join(format!("{}.ndjson", id(1)));
    fs::write(&orphan, "{}\n").expect("a file");
    provider.set_stuck(false);

    let server = site.start().await;
    assert!(!orphan.exists(), "nobody waits for it");
    let job = server.job_over(&import).await;
    assert_eq!((&job["result"]["imported"], &job["result"]["failed"]), (&json!(1024), &json!(0)));
    assert_eq!(job["progress"]["current"], 1024);
    assert_eq!(server.job_over(&small).await["result"]["imported"], 1);
    assert_eq!(server.job_over(&near).await["status"], "completed");
    let job = server.job(&far).await;
    assert_eq!(
        (&job["status"], &job["run_at"]),
        (&json!("pending"), &json!("2999-01-01T00:00:00.000000Z"))
    );
    assert_eq!(titles(&server, &library).await.len(), 1025);
    assert_eq!(server.events("document.added").await.len(), 1025, "each is added once");
    assert_eq!(server.events("document.updated").await.len(), 0);
    let batches = server.events("batch.*").await;
    let of = |name: &str| batches.iter().filter(|event| event["type"] == name).count();
    assert_eq!((of("batch.started"), of("batch.completed")), (2, 2), "{batches:?}");
    until("what it worked on is removed", async || {
        (fs::read_dir(&inputs).expect("a folder").count() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_purge_takes_the_log_from_an_import_that_was_put_off_and_nothing_else() {
    let mut site = Site::new().await;
    site.set("EMBEDDING_TIMEOUT_SECONDS", "1");
    let server = site.start().await;
    let provider = site.provider.as_ref().expect("provider");
    let library = server.library().await;
    provider.set_stuck(true);
    let import = server.submit_lines(&format!("library_id={library}"), &stuck_lines(3)).await;
    until("it is put off after its first unit", async || {
        let job = server.job(&import).await;
        (job["status"] == "pending" && job["progress"]["current"] == 256).then_some(())
    })
    .await;
    let path = format!("/v1/libraries/{library}/documents");
    let body = json!({"title": "another", "text": "after that"});
    server.post(&path, &body).await.expect(201);
    server.post("/v1/admin/purge", &json!({})).await.expect(200);
    server.kill();
    provider.set_stuck(false);
    drop(server);
    let server = site.start().await;
    let job = server.job_over(&import).await;
    assert_eq!(job["status"], "completed", "{job}");
    assert_eq!((&job["result"]["imported"], &job["result"]["failed"]), (&json!(768), &json!(0)));
    assert_eq!(job["result"]["total_chunks"], 768);
    assert_eq!(titles(&server, &library).await.len(), 769);
}
