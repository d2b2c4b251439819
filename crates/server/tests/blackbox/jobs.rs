//! Background jobs as their clients see them: submitted, watched, found, cancelled.

use std::time::Instant;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::schema::fault;
use crate::harness::{Answer, Client, DEADLINE, Site, until};

const NO_JOB: &str = "0191f4a2-7c3e-7abc-8def-0123456789ab";

/// A line of a document with one vector.
pub(crate) fn line(id: Option<&str>, title: &str, vector: &[f32]) -> String {
    let mut line = json!({"title": title, "chunks": [{"text": title, "embedding": vector}]});
    if let Some(id) = id {
        line["id"] = json!(id);
    }
    line.to_string()
}

/// Titles of a library's documents by their ids.
pub(crate) async fn titles(
    client: &Client,
    library: &str,
) -> std::collections::BTreeMap<String, String> {
    let answer = client.get(&format!("/v1/libraries/{library}/documents/stream")).await;
    let text = |line: &Value, name: &str| line[name].as_str().map(str::to_owned);
    let lines = answer.lines();
    lines.iter().filter_map(|line| Some((text(line, "id")?, text(line, "title")?))).collect()
}

async fn export(client: &Client, library: &str, format: &str) -> (Value, Answer) {
    let body = json!({"library_id": library, "format": format, "include_embeddings": true});
    let id = client.submit("batch-export", &body).await;
    let job = client.job_over(&id).await;
    assert_eq!(job["status"], "completed", "{job}");
    let answer = client.get(job["result"]["download_url"].as_str().expect("a URL")).await;
    answer.expect_status(200);
    assert_eq!(job["result"]["file_size_bytes"], answer.body.len());
    let disposition = answer.header("content-disposition").expect("a name").to_owned();
    assert_eq!(disposition, format!("attachment; filename=\"{id}.{format}\""));
    (job, answer)
}

#[tokio::test]
async fn every_kind_of_job_does_what_it_says_and_everybody_is_told() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let chunk = |x: f32| json!([{"text": "a", "embedding": [x, 1]}]);
    let documents = json!([
        {"title": "one", "chunks": chunk(1.0), "tags": ["a"], "color": "red"},
        {"title": "two", "chunks": chunk(2.0)},
        {"title": "bad", "chunks": [{"text": "a", "embedding": [1, 2, 3]}]},
        {"title": "worse", "texts": 7},
    ]);
    let body = json!({"library_id": library, "documents": documents, "max_retries": 0});
    let submitted = server.post("/v1/jobs/batch-import", &body).await;
    let answer = submitted.expect(200);
    assert_eq!((&answer["status"], &answer["id"]), (&json!("pending"), &answer["job_id"]));
    let id = answer["job_id"].as_str().expect("id");
    let seen = format!("/v1/jobs/{id}?min_seq={}", submitted.seq());
    server.get(&seen).await.expect(200);
    let job = server.job_over(id).await;
    assert_eq!(
        (&job["status"], &job["job_type"]),
        (&json!("completed"), &json!("batch_import")),
        "{job}"
    );
    let result = &job["result"];
    assert_eq!(
        (&result["imported"], &result["failed"], &result["total_chunks"], &result["library_id"]),
        (&json!(2), &json!(2), &json!(2), &json!(library))
    );
    let failed: Vec<&Value> =
        result["errors"].as_array().expect("errors").iter().map(|it| &it["index"]).collect();
    assert_eq!(failed, [2, 3]);
    assert_eq!(job["progress"]["current"], 4);
    assert_eq!(job["progress"]["percentage"], 100.0);
    assert_eq!((&job["retries"], &job["max_retries"]), (&json!(0), &json!(0)));
    for time in ["created_at", "started_at", "completed_at"] {
        assert!(job[time].as_str().expect("a time").ends_with('Z'), "{job}");
    }
    assert_eq!(titles(&server, &library).await.len(), 2);

    the_others(&server, &library).await;
    let schema = server.get("/v1/events/schema").await.expect(200);
    let events = server.events("job.*,batch.*").await;
    for event in &events {
        assert_eq!(fault(&schema, event), None, "{event}");
    }
    let of = |name: &str| events.iter().filter(|event| event["type"] == name).count();
    assert_eq!((of("job.submitted"), of("job.started"), of("job.completed")), (6, 6, 6));
    let began = events.iter().find(|event| event["type"] == "batch.started").expect("a batch");
    assert_eq!((&began["data"]["batch_id"], &began["data"]["total"]), (&json!(id), &json!(4)));
    assert_eq!((of("batch.started"), of("batch.completed")), (1, 1));
    let job = server.job_over(&server.submit("purge", &json!({})).await).await;
    assert_eq!((&job["status"], &job["library_id"]), (&json!("completed"), &Value::Null), "{job}");
    assert!(job["result"]["log_files_removed"].as_u64() > Some(0), "{job}");
}

/// Jobs of the kinds that come after an import of two documents.
async fn the_others(server: &Client, library: &str) {
    let (_job, text) = export(server, library, "json").await;
    assert_eq!(text.json()["total_documents"], 2);
    assert_eq!(text.json()["documents"][0]["metadata"]["color"], "red");
    let (_job, text) = export(server, library, "csv").await;
    let text = text.text();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.starts_with("document_id,title,author,"), "{text}");

    let body = json!({"library_id": library, "index_type": "kd_tree"});
    let job = server.job_over(&server.submit("index-rebuild", &body).await).await;
    assert_eq!(job["result"]["new_index_type"], "kd_tree", "{job}");
    assert_eq!(job["result"]["vectors_reindexed"], 2);
    let body = json!({"library_id": library});
    let job = server.job_over(&server.submit("index-optimize", &body).await).await;
    assert!(job["result"]["vectors_compacted"].is_u64(), "{job}");
    let gone: Vec<String> = titles(server, library).await.into_keys().collect();
    let body = json!({"document_ids": [gone[0], gone[0], NO_JOB, "no id"]});
    let job = server.job_over(&server.submit("batch-delete", &body).await).await;
    assert_eq!((&job["result"]["deleted"], &job["result"]["failed"]), (&json!(1), &json!(3)));
    assert_eq!(titles(server, library).await.len(), 1);
}

/// What is wrong where, in a body of a job.
#[tokio::test]
async fn a_job_that_cannot_be_done_is_not_taken() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let cases = [
        ("batch-import", json!({}), &["/library_id", "/documents"][..]),
        ("batch-import", json!([]), &["", "/library_id", "/documents"]),
        (
            "batch-import",
            json!({"library_id": "x", "documents": 3, "priority": "huge", "run_at": "never"}),
            &["/library_id", "/documents", "/priority", "/run_at"],
        ),
        ("batch-import", json!({"library_id": library, "documents": [{}, 1]}), &["/documents/1"]),
        (
            "batch-import",
            json!({"library_id": library, "documents": [], "max_retries": 11}),
            &["/max_retries"],
        ),
        ("index-rebuild", json!({}), &["/library_id"]),
        ("index-rebuild", json!({"library_id": library, "index_type": "x"}), &["/index_type"]),
        ("index-optimize", json!({"library_id": 7}), &["/library_id"]),
        ("batch-export", json!({"library_id": library, "format": "xml"}), &["/format"]),
        (
            "batch-export",
            json!({"library_id": library, "include_embeddings": "yes"}),
            &["/include_embeddings"],
        ),
        ("batch-delete", json!({}), &["/document_ids"]),
        ("batch-delete", json!({"document_ids": []}), &["/document_ids"]),
        ("batch-delete", json!({"document_ids": ["x", 1]}), &["/document_ids/1"]),
        ("purge", json!({"priority": "x"}), &["/priority"]),
    ];
    for (kind, body, pointers) in cases {
        let answer = server.post(&format!("/v1/jobs/{kind}"), &body).await;
        answer.problem(422, "ValidationError");
        let mut found = answer.pointers();
        found.sort_unstable();
        let mut pointers: Vec<String> = pointers.iter().map(|it| (*it).to_owned()).collect();
        pointers.sort_unstable();
        assert_eq!(found, pointers, "{kind} {body}");
    }
    for kind in ["batch-import", "index-rebuild", "index-optimize", "batch-export"] {
        let body = json!({"library_id": NO_JOB, "documents": []});
        let answer = server.post(&format!("/v1/jobs/{kind}"), &body).await;
        let problem = answer.problem(404, "LibraryNotFoundError");
        assert_eq!(problem["detail"], format!("Library {NO_JOB} not found"));
    }
    let lines = server.request(Method::POST, "/v1/jobs/batch-import");
    let lines = lines.header("Content-Type", "application/x-ndjson").body("{}");
    server.send(lines).await.problem(422, "ValidationError");
    let many: Vec<String> = (0..1700).map(|_| NO_JOB.to_owned()).collect();
    let answer = server.post("/v1/jobs/batch-delete", &json!({"document_ids": many})).await;
    assert!(answer.text().contains("submit more than one job"), "{}", answer.text());
    assert_eq!(server.get("/v1/jobs").await.expect(200)["total"], 0, "none of them was taken");
    let inputs = std::fs::read_dir(site.data_dir.join("work").join("jobs")).expect("a folder");
    assert_eq!(inputs.count(), 0);
}

/// The rebuilds that a library of two dimensions with codes cannot have, refused by whoever is asked.
async fn impossible_rebuilds(server: &Client, library: &str) {
    let wanted = [
        (json!({"index_type": "kd_tree"}), "/quantization_config"),
        (
            json!({"quantization_config": {"strategy": "product", "pq_subvectors": 3}}),
            "/quantization_config/pq_subvectors",
        ),
        (json!({"metric": "l2"}), "/metric"),
        (json!({"index_config": {"M": 1}}), "/index_config/M"),
    ];
    for (mut body, pointer) in wanted {
        let path = format!("/v1/libraries/{library}/index/rebuild");
        let at_once = server.post(&path, &body).await;
        at_once.problem(422, "ValidationError");
        assert_eq!(at_once.pointers(), [pointer], "{body}");
        body["library_id"] = json!(library);
        let submitted = server.post("/v1/jobs/index-rebuild", &body).await;
        for (name, value) in [("name", "a"), ("cron", "@daily"), ("job_type", "index_rebuild")] {
            body[name] = json!(value);
        }
        let scheduled = server.post("/v1/jobs/schedules", &body).await;
        for late in [submitted, scheduled] {
            let (now, late) = (at_once.json(), late.problem(422, "ValidationError"));
            assert_eq!((&late["errors"], &late["detail"]), (&now["errors"], &now["detail"]));
        }
    }
}

#[tokio::test]
async fn a_rebuild_that_is_refused_at_once_is_refused_as_a_job_and_as_a_schedule() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let rebuild = async |body: &Value| {
        server.post(&format!("/v1/libraries/{library}/index/rebuild"), body).await.expect(200)
    };
    rebuild(&json!({"index_type": "hnsw", "quantization_config": {"strategy": "scalar"}})).await;
    impossible_rebuilds(&server, &library).await;
    assert_eq!(server.get("/v1/jobs").await.expect(200)["total"], 0, "none of them was taken");
    assert_eq!(server.get("/v1/jobs/schedules").await.expect(200)["total"], 0);

    // What is possible now and not any more when it is its turn fails then.
    rebuild(&json!({"quantization_config": {"strategy": "none"}})).await;
    let mut body = json!({"library_id": library, "index_type": "kd_tree"});
    let soon = jiff::Timestamp::now() + std::time::Duration::from_secs(2);
    body["run_at"] = json!(soon.to_string());
    let late = server.submit("index-rebuild", &body).await;
    let body = json!({"name": "a", "cron": "0 0 1 1 *", "job_type": "index_rebuild",
        "library_id": library, "index_type": "kd_tree"});
    let schedule = server.post("/v1/jobs/schedules", &body).await.expect(201);
    rebuild(&json!({"quantization_config": {"strategy": "scalar"}})).await;
    let run = format!("/v1/jobs/schedules/{}/run", schedule["id"].as_str().expect("an id"));
    let run = server.post(&run, &json!({})).await;
    run.problem(422, "ValidationError");
    assert_eq!(run.pointers(), ["/quantization_config"]);
    let job = server.job_over(&late).await;
    assert_eq!(job["status"], "failed", "{job}");
    assert!(job["error"].as_str().expect("why").contains("kd_tree"), "{job}");
}

#[tokio::test]
async fn jobs_are_found_and_refused_in_the_words_that_clients_know() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let mut ids = Vec::new();
    for kind in ["index_optimize", "batch_export", "index_rebuild"] {
        ids.push(server.submit(kind, &json!({"library_id": library})).await);
    }
    let body = json!({"library_id": library, "documents": []});
    ids.push(server.submit("batch_import", &body).await);
    let later = json!({"document_ids": ["x"], "run_at": "2999-01-01T00:00:00Z"});
    ids.push(server.submit("batch_delete", &later).await);
    for id in &ids[..4] {
        assert_eq!(server.job_over(id).await["status"], "completed");
    }
    ids.reverse();
    let listed = async |query: &str| -> Vec<String> {
        let answer = server.get(&format!("/v1/jobs?{query}")).await.expect(200);
        let jobs = answer["jobs"].as_array().expect("jobs").clone();
        assert_eq!(answer["total"], jobs.len());
        jobs.iter().map(|job| job["job_id"].as_str().expect("id").to_owned()).collect()
    };
    assert_eq!(listed("").await, ids, "the newest first");
    assert_eq!(listed("status=pending").await, ids[..1]);
    assert_eq!(listed("status=completed").await, ids[1..]);
    assert_eq!(listed("type=batch_export").await, ids[3..4]);
    assert_eq!(listed(&format!("library_id={library}")).await, ids[1..]);
    assert_eq!(listed(&format!("library_id={NO_JOB}")).await, Vec::<String>::new());
    let page = server.get("/v1/jobs?limit=2").await.expect(200);
    assert_eq!(page["next_before"], ids[1]);
    assert_eq!(listed(&format!("limit=2&before={}", ids[1])).await, ids[2..4]);
    let last = server.get(&format!("/v1/jobs?limit=2&before={}", ids[3])).await.expect(200);
    assert_eq!((&last["total"], &last["next_before"]), (&json!(1), &Value::Null));

    refusals(&server, &ids).await;
    let path = format!("/v1/jobs/{}/cancel", ids[0]);
    let cancelled = server.post(&path, &json!({})).await;
    assert_eq!(cancelled.expect(200)["message"], format!("Job {} cancelled", ids[0]));
    assert!(cancelled.seq() > 0);
    let job = server.job(&ids[0]).await;
    assert_eq!((&job["status"], &job["started_at"]), (&json!("cancelled"), &Value::Null));
    let stats = server.get("/v1/jobs/stats/queue").await.expect(200);
    assert_eq!(
        [
            &stats["total_jobs"],
            &stats["completed_jobs"],
            &stats["queue_size"],
            &stats["num_workers"]
        ],
        [5, 4, 0, 4]
    );
    assert_eq!((&stats["running"], &stats["failed_jobs"]), (&json!(true), &json!(0)));
}

/// Of these jobs the first waits; the others are completed.
async fn refusals(server: &Client, ids: &[String]) {
    let detail = async |path: &str, status: u16| -> String {
        let answer = server.get(path).await.expect(status);
        answer["detail"].as_str().expect("detail").to_owned()
    };
    assert_eq!(detail("/v1/jobs/abc", 404).await, "Job abc not found");
    assert_eq!(detail(&format!("/v1/jobs/{NO_JOB}"), 404).await, format!("Job {NO_JOB} not found"));
    assert_eq!(detail("/v1/jobs?status=x", 400).await, "Invalid status: x");
    assert_eq!(detail("/v1/jobs?type=x", 400).await, "Invalid job type: x");
    assert_eq!(detail("/v1/jobs?library_id=x", 400).await, "Invalid library_id: x");
    server.get("/v1/jobs?limit=0").await.problem(422, "ValidationError");
    server.get("/v1/jobs?limit=1001").await.problem(422, "ValidationError");
    server
        .get(&format!("/v1/jobs/{}?wait_seconds=61", ids[0]))
        .await
        .problem(422, "ValidationError");
    let status = server.get(&format!("/v1/jobs/{}/status", ids[1])).await.expect(200);
    assert_eq!(status["id"], ids[1]);

    let refused = server.delete(&format!("/v1/jobs/{}", ids[1])).await;
    assert_eq!(
        refused.problem(400, "JobStateError")["detail"],
        format!("Job {} cannot be cancelled (status: completed)", ids[1])
    );
    server.delete("/v1/jobs/abc").await.problem(404, "JobNotFoundError");
}

/// Occupies a worker until the provider is let go; the job.
pub(crate) async fn occupy(server: &Client, library: &str) -> String {
    let body = json!({"library_id": library, "documents": [{"title": "t", "text": "it is stuck"}]});
    let id = server.submit("batch-import", &body).await;
    until("it is worked on", async || (server.job(&id).await["status"] == "running").then_some(()))
        .await;
    id
}

#[tokio::test]
async fn jobs_wait_for_a_worker_by_priority_and_for_their_time() {
    let mut site = Site::new().await;
    site.set("JOB_QUEUE_MAX_WORKERS", "1");
    let server = site.start().await;
    let provider = site.provider.as_ref().expect("provider");
    let library = server.library().await;
    provider.set_stuck(true);
    let first = occupy(&server, &library).await;
    let soon = jiff::Timestamp::now() + std::time::Duration::from_millis(1500);
    let mut ids = Vec::new();
    for priority in ["low", "normal", "high"].repeat(2) {
        let body = json!({"document_ids": ["x"], "priority": priority, "run_at": null});
        ids.push(server.submit("batch-delete", &body).await);
    }
    let body = json!({"priority": "high", "run_at": soon.to_string()});
    let timed = server.submit("purge", &body).await;
    let job = server.job(&timed).await;
    assert_eq!((&job["status"], &job["priority"]), (&json!("pending"), &json!("high")));
    assert!(job["run_at"].is_string(), "{job}");
    let unwanted = server.submit("purge", &json!({})).await;
    let answer = server.delete(&format!("/v1/jobs/{unwanted}")).await.expect(200);
    assert_eq!(answer["status"], "cancelled", "one that waits is cancelled at once");
    let stats = server.get("/v1/jobs/stats/queue").await.expect(200);
    assert_eq!((&stats["pending_jobs"], &stats["running_jobs"]), (&json!(7), &json!(1)));

    // An answer that waits comes when the job is over, not when the time is.
    let began = Instant::now();
    let path = format!("/v1/jobs/{first}?wait_seconds=1");
    assert_eq!(server.get(&path).await.expect(200)["status"], "running");
    assert!(began.elapsed().as_millis() >= 1000, "it waits as long as it may");
    let waiting = tokio::spawn({
        let client = server.client.clone();
        let last = ids[0].clone();
        async move { client.get(&format!("/v1/jobs/{last}?wait_seconds=60")).await.expect(200) }
    });
    provider.set_stuck(false);
    let job = waiting.await.expect("an answer");
    assert_eq!(job["status"], "completed");
    assert!(began.elapsed() < DEADLINE / 2, "it came when it was over: {:?}", began.elapsed());
    let mut started = Vec::new();
    for id in &ids {
        let job = server.job_over(id).await;
        let text = |name: &str| job[name].as_str().expect("a text").to_owned();
        started.push((text("started_at"), text("priority")));
    }
    started.sort_unstable();
    let order: Vec<&str> = started.iter().map(|(_time, priority)| &**priority).collect();
    // By their shares, 16 of the highest for 4 and for 1: of so few the higher come first.
    assert_eq!(order, ["high", "high", "normal", "normal", "low", "low"]);
    let job = server.job_over(&timed).await;
    let began: jiff::Timestamp = job["started_at"].as_str().expect("time").parse().expect("time");
    assert!(began >= soon, "{began} is not before {soon}");
    assert_eq!(job["run_at"], Value::Null);
}

#[tokio::test]
async fn jobs_can_be_turned_off_and_are_part_of_health() {
    let mut site = Site::new().await;
    let server = site.start().await;
    let waiting = server.submit("purge", &json!({"run_at": "2999-01-01T00:00:00Z"})).await;
    let ready = server.get("/ready").await.expect(200);
    assert_eq!(ready["checks"]["job_queue"], json!({"status": "ready", "healthy": true}));
    let health = server.get("/health/detailed").await.expect(200);
    let queue = &health["components"]["job_queue"];
    assert_eq!((&queue["status"], &queue["running"]), (&json!("running"), &json!(true)), "{queue}");
    assert_eq!((&queue["total_jobs"], &queue["jobs_by_status"]["pending"]), (&json!(1), &json!(1)));
    server.terminate();
    assert!(server.ended().await.success(), "{}", server.log());
    site.set("JOB_QUEUE_ENABLED", "false");
    let server = site.start().await;
    let refused = server.post("/v1/jobs/purge", &json!({})).await;
    refused.problem(503, "JobsDisabledError");
    assert_eq!(server.job(&waiting).await["status"], "pending", "it is not lost");
    server.delete(&format!("/v1/jobs/{waiting}")).await.expect(200);
    let ready = server.get("/ready").await.expect(200);
    assert_eq!(ready["checks"]["job_queue"]["status"], "disabled");
    let stats = server.get("/v1/jobs/stats/queue").await.expect(200);
    assert_eq!((&stats["running"], &stats["num_workers"]), (&json!(false), &json!(0)));
}

#[tokio::test]
async fn an_export_can_be_fetched_from_its_end_until_it_expires() {
    let mut site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let body = json!({"library_id": library, "run_at": "2999-01-01T00:00:00Z"});
    let later = server.submit("batch-export", &body).await;
    for id in [&*later, NO_JOB, "abc"] {
        server.get(&format!("/v1/jobs/{id}/download")).await.expect(404);
    }
    let other = server.submit("purge", &json!({})).await;
    server.job_over(&other).await;
    server.get(&format!("/v1/jobs/{other}/download")).await.problem(404, "NotFoundError");
    let (job, _text) = export(&server, &library, "ndjson").await;
    let path = job["result"]["download_url"].as_str().expect("a URL").to_owned();
    server.terminate();
    assert!(server.ended().await.success(), "{}", server.log());
    let server = site.start().await;
    server.get(&path).await.expect_status(200);
    server.terminate();
    assert!(server.ended().await.success(), "{}", server.log());
    site.set("EXPORT_RETENTION_SECONDS", "0");
    let server = site.start().await;
    server.get(&path).await.problem(404, "NotFoundError");
    // One that expires at once cannot be fetched, though nobody has looked for it yet.
    let body = json!({"library_id": library});
    let job = server.job_over(&server.submit("batch-export", &body).await).await;
    let path = job["result"]["download_url"].as_str().expect("a URL");
    let problem = server.get(path).await.problem(404, "NotFoundError");
    assert!(problem["detail"].as_str().expect("detail").contains("expired"), "{problem}");
}

#[tokio::test]
async fn a_download_that_broke_off_goes_on_where_it_was() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    for n in 0..40_u8 {
        server.add_vectors(&library, "a title of some length", &[vec![f32::from(n), 1.0]]).await;
    }
    let (job, whole) = export(&server, &library, "csv").await;
    let path = job["result"]["download_url"].as_str().expect("a URL").to_owned();
    let (bytes, length) = (&whole.body, whole.body.len());
    assert!(length > 2000, "{length}");
    let tag = whole.header("etag").expect("a tag").to_owned();
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    // Who would take it compressed gets the bytes that the tag and the ranges are of.
    let get = async |method: Method, headers: &[(&str, &str)]| {
        let request = server.request(method, &path).header("Accept-Encoding", "gzip");
        let with = |request, (name, value): &(&str, &str)| {
            reqwest::RequestBuilder::header(request, *name, *value)
        };
        server.send(headers.iter().fold(request, with)).await
    };
    let rest = format!("bytes={}-", length / 2);
    let same: [(&str, &str); 2] = [("Range", &rest), ("If-Range", &tag)];
    for (headers, from, to) in [
        (&[("Range", "bytes=0-0")][..], 0, 0),
        (&[("Range", &*rest)], length / 2, length - 1),
        (&same, length / 2, length - 1),
        (&[("Range", "bytes=-1500")], length - 1500, length - 1),
    ] {
        let part = get(Method::GET, headers).await;
        part.expect_status(206);
        let expected = format!("bytes {from}-{to}/{length}");
        assert_eq!(part.header("content-range"), Some(&*expected), "{headers:?}");
        assert_eq!(part.header("etag"), Some(&*tag));
        assert_eq!(part.header("content-encoding"), None, "{headers:?}");
        assert_eq!(part.body, bytes[from..=to], "{headers:?}");
    }
    let other = [("Range", &*rest), ("If-Range", "\"another\"")];
    for headers in [&[][..], &[("Range", "bytes=0-1,4-5")], &[("Range", "x")], &other] {
        let all = get(Method::GET, headers).await;
        all.expect_status(200);
        assert_eq!((all.header("content-range"), all.header("content-encoding")), (None, None));
        assert_eq!(&all.body, bytes, "{headers:?}");
    }
    let head = get(Method::HEAD, &[("Range", &rest)]).await;
    head.expect_status(200);
    assert_eq!(head.header("content-length"), Some(&*length.to_string()));
    let beyond = get(Method::GET, &[("Range", &format!("bytes={length}-"))]).await;
    assert_eq!(beyond.problem(416, "RangeNotSatisfiableError")["length"], length);
    assert_eq!(beyond.header("content-range"), Some(&*format!("bytes */{length}")));
}
