//! Imports in the background: lines of any number, what becomes of each, and what a stop leaves.

use std::fmt::Write;
use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

use super::jobs::{line, occupy, titles};
use crate::harness::{DEADLINE, Server, Site, until};

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
    let of_body: Vec<&Value> = errors.iter().map(|error| &error["line_number"]).collect();
    assert_eq!(of_body, [4, 301, 302, 651]);
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
    let body = json!({"library_id": library, "run_at": "2999-01-01T00:00:00Z",
        "documents": [{"title": "a", "text": "b"}], "document_ids": [library]});
    let mut later = Vec::new();
    for kind in ["index-optimize", "index-rebuild", "batch-export", "batch-delete", "batch-import"]
    {
        later.push(server.submit(kind, &body).await);
    }
    let unlimited = json!({"document_ids": [library], "run_at": "2999-01-01T00:00:00Z"});
    let unlimited = server.submit("batch-delete", &unlimited).await;
    let schedule = json!({"name": "a", "cron": "0 0 1 1 *", "job_type": "index_optimize",
        "library_id": library});
    let schedule = server.post("/v1/jobs/schedules", &schedule).await.expect(201);
    let schedule = format!("/v1/jobs/schedules/{}", schedule["id"].as_str().expect("an id"));
    let scheduled = until("the schedule has a job", async || {
        server.get(&schedule).await.expect(200)["job_id"].as_str().map(str::to_owned)
    })
    .await;
    server.delete(&format!("/v1/libraries/{library}")).await.expect(204);
    provider.set_stuck(false);
    for id in later.iter().chain([&import]) {
        let job = server.job_over(id).await;
        assert_eq!(job["status"], "failed", "{job}");
        let error = job["error"].as_str().expect("an error");
        assert_eq!(error, format!("Library {library} was deleted"), "{job}");
    }
    // With the library goes what is told of it: the batch that the import is has no end.
    let told = server.events("batch.*,library.deleted").await;
    let told: Vec<&str> = told.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(told, ["batch.started", "library.deleted"]);
    assert_eq!(server.job(&unlimited).await["status"], "pending", "it is about all libraries");
    assert_eq!(server.job_over(&scheduled).await["status"], "cancelled");
    let schedule = server.get(&schedule).await.expect(200);
    assert_eq!((&schedule["enabled"], &schedule["upcoming"]), (&json!(false), &json!([])));
    assert_eq!(schedule["note"], "turned off by the server: its library was deleted");
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
    // One that never began did nothing: it needs nothing of the log.
    let at = jiff::Timestamp::now() + std::time::Duration::from_secs(5);
    let documents = json!([{"title": "later", "text": "free"}]);
    let body = json!({"library_id": library, "documents": documents, "run_at": at.to_string()});
    let later = server.submit("batch-import", &body).await;
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
    let job = server.job_over(&later).await;
    assert_eq!((&job["status"], &job["result"]["imported"]), (&json!("completed"), &json!(1)));
    assert_eq!(titles(&server, &library).await.len(), 770);
}

/// All that a job refused, page by page.
async fn refused(server: &Server, job: &str, size: usize) -> Vec<[u64; 2]> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/jobs/{job}/errors?page_size={size}{cursor}");
        let page = server.get(&path).await.expect(200);
        let errors = page["errors"].as_array().expect("errors");
        assert!(errors.len() <= size);
        assert_eq!(page["errors_truncated"], false);
        for error in errors {
            assert!(error["error"].as_str().is_some_and(|it| !it.is_empty()), "{error}");
            all.push(["index", "line_number"].map(|name| error[name].as_u64().expect("a number")));
        }
        let Some(next) = page["next_cursor"].as_str() else {
            if page["status"] != "running" {
                assert_eq!(page["total"], all.len(), "{page}");
            }
            return all;
        };
        cursor = format!("&cursor={next}");
    }
}

#[tokio::test]
async fn every_line_that_was_refused_can_be_learnt_also_after_a_kill() {
    let site = Site::new().await;
    let server = site.start().await;
    let provider = site.provider.as_ref().expect("provider");
    let library = server.library().await;
    provider.set_stuck(true);
    let (mut lines, mut expected) = (String::new(), Vec::new());
    // A blank line before every tenth.
    for n in 0..3000_u64 {
        if n % 10 == 0 {
            lines.push('\n');
        }
        let number = n + n / 10 + 2;
        if n % 3 == 1 {
            expected.push([n, number]);
            lines.push_str("{\"title\":7}\n");
        } else {
            let text = if n < 432 { "free" } else { "stuck" };
            let line = json!({"title": format!("{n}"), "text": format!("{text} {n}")});
            writeln!(lines, "{line}").expect("a text");
        }
    }
    let job = server.submit_lines(&format!("library_id={library}"), &lines).await;
    until("the first unit is there", async || {
        let now = server.job(&job).await;
        assert_eq!(now["progress"]["total"], 3000, "known from the beginning");
        (now["progress"]["current"] == 256).then_some(())
    })
    .await;
    let first: Vec<_> = expected.iter().copied().filter(|it| it[0] < 256).collect();
    assert_eq!(refused(&server, &job, 10).await, first, "while it is worked on");
    server.kill();
    provider.set_stuck(false);

    let server = site.start().await;
    let over = server.job_over(&job).await;
    let result = &over["result"];
    assert_eq!((&result["imported"], &result["failed"]), (&json!(2000), &json!(1000)), "{over}");
    assert_eq!(result["errors_url"], format!("/v1/jobs/{job}/errors"));
    let shown = result["errors"].as_array().expect("errors");
    assert_eq!(
        (shown.len(), &shown[0]["line_number"]),
        (20, &json!(3)),
        "also from before the kill"
    );
    for size in [7, 100, 1000] {
        assert_eq!(refused(&server, &job, size).await, expected, "{size}");
    }
    server.kill();
    let server = site.start().await;
    assert_eq!(refused(&server, &job, 1000).await, expected);

    let other = server.submit("purge", &json!({})).await;
    assert_eq!(refused(&server, &other, 1).await, Vec::<[u64; 2]>::new());
    let page = server.get(&format!("/v1/jobs/{job}/errors?page_size=1")).await.expect(200);
    let cursor = page["next_cursor"].as_str().expect("a cursor");
    for bad in ["page_size=0", "page_size=1001", "cursor=00"] {
        let refused = server.get(&format!("/v1/jobs/{job}/errors?{bad}")).await;
        refused.problem(422, "ValidationError");
    }
    let refused = server.get(&format!("/v1/jobs/{other}/errors?cursor={cursor}")).await;
    refused.problem(422, "ValidationError");
    server.get(&format!("/v1/jobs/{library}/errors")).await.problem(404, "JobNotFoundError");
}

#[tokio::test]
async fn every_document_that_was_not_there_to_be_deleted_can_be_learnt() {
    let site = Site::new().await;
    let server = site.start().await;
    let ids: Vec<String> =
        (0..1500).map(|n| if n == 1200 { "no id".to_owned() } else { id(n) }).collect();
    let job = server.submit("batch-delete", &json!({ "document_ids": ids })).await;
    let over = server.job_over(&job).await;
    assert_eq!(over["result"]["failed"], 1500, "{over}");
    let path = format!("/v1/jobs/{job}/errors?page_size=1000");
    let page = server.get(&path).await.expect(200);
    let cursor = page["next_cursor"].as_str().expect("a cursor");
    let rest = server.get(&format!("{path}&cursor={cursor}")).await.expect(200);
    let pages = [&page, &rest].into_iter().flat_map(|it| it["errors"].as_array().expect("errors"));
    let found: Vec<(&Value, &Value)> = pages.map(|it| (&it["index"], &it["document_id"])).collect();
    let expected: Vec<(Value, Value)> =
        ids.iter().enumerate().map(|(n, id)| (json!(n), json!(id))).collect();
    assert_eq!(found, expected.iter().map(|(n, id)| (n, id)).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_a_job_refused_goes_with_the_job_and_not_with_its_library_or_a_purge() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let job = server.submit_lines(&format!("library_id={library}"), "{\"title\":7}\n").await;
    server.job_over(&job).await;
    server.delete(&format!("/v1/libraries/{library}")).await.expect(204);
    let purge = server.submit("purge", &json!({})).await;
    assert_eq!(server.job_over(&purge).await["status"], "completed");
    assert_eq!(refused(&server, &job, 10).await, [[0, 1]]);
    assert_eq!(server.job(&job).await["result"]["errors"][0]["line_number"], 1);
}
