//! Schedules as their clients see them: made, changed, run at once, there after a kill.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Client, Site, until};

const SCHEDULES: &str = "/v1/jobs/schedules";

/// The schedule, once it has a job that waits, and that job.
async fn waiting(client: &Client, id: &str) -> (Value, Value) {
    let path = format!("{SCHEDULES}/{id}");
    let found = until("the schedule has a job that waits", async || {
        let schedule = client.get(&path).await.expect(200);
        let job = schedule["job_id"].as_str()?.to_owned();
        let job = client.get(&format!("/v1/jobs/{job}")).await.expect(200);
        (job["status"] == "pending" && job["run_at"] == schedule["upcoming"][0])
            .then_some((schedule, job))
    });
    found.await
}

/// What an answer says of the field at `pointer`.
#[track_caller]
fn fault(answer: &Answer, pointer: &str) -> String {
    let body = answer.problem(422, "ValidationError");
    let mut faults = body["errors"].as_array().expect("errors").iter();
    let found = faults.find(|fault| fault["pointer"] == pointer);
    let found = found.unwrap_or_else(|| panic!("{pointer} in {body}"));
    found["detail"].as_str().expect("detail").to_owned()
}

#[tokio::test]
async fn a_schedule_is_made_changed_run_and_is_there_after_a_kill() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let body = json!({
        "name": "nightly", "cron": "0 3 * * *", "time_zone": "Europe/Berlin",
        "job_type": "batch_export", "library_id": library, "format": "ndjson", "priority": "low",
    });
    let made = server.post(SCHEDULES, &body).await;
    let schedule = made.expect(201);
    assert_eq!(
        (&schedule["name"], &schedule["cron"], &schedule["time_zone"], &schedule["job_type"]),
        (&json!("nightly"), &body["cron"], &body["time_zone"], &body["job_type"])
    );
    assert_eq!(schedule["parameters"], json!({"format": "ndjson", "include_embeddings": false}));
    assert_eq!(schedule["upcoming"].as_array().expect("times").len(), 3);
    let id = schedule["id"].as_str().expect("an id").to_owned();
    let (_schedule, job) = waiting(&server, &id).await;
    assert_eq!(
        (&job["schedule_id"], &job["priority"], &job["job_type"]),
        (&json!(id), &json!("low"), &json!("batch_export"))
    );
    let at = job["run_at"].as_str().expect("a time");
    assert!(at.ends_with(":00:00.000000Z") && (at.contains("T01:") || at.contains("T02:")), "{at}");

    let path = format!("{SCHEDULES}/{id}");
    let hourly = json!({"cron": "15 * * * *", "time_zone": "UTC", "name": "hourly"});
    let changed = server.raw(Method::PATCH, &path, (hourly).to_string()).await.expect(200);
    assert_eq!((&changed["name"], &changed["cron"]), (&hourly["name"], &hourly["cron"]));
    until("what waits goes with what it was", async || {
        let old = server.get(&format!("/v1/jobs/{}", job["id"].as_str()?)).await.expect(200);
        (old["status"] == "cancelled").then_some(())
    })
    .await;
    let (schedule, job) = waiting(&server, &id).await;
    assert!(job["run_at"].as_str().expect("a time").contains(":15:00"), "{job}");
    assert_eq!((&schedule["runs"], &schedule["last_run"]), (&json!(0), &Value::Null));

    let now = server.post(&format!("{path}/run"), &json!({})).await.expect(200);
    let done = server.job_over(now["job_id"].as_str().expect("an id")).await;
    assert_eq!([&done["status"], &done["schedule_id"]], ["completed", &id]);
    let before = server.get(&path).await.expect(200);
    let told = [&before["runs"], &before["job_id"], &before["last_run"]["job_id"]];
    assert_eq!(told, [&json!(1), &schedule["job_id"], &done["job_id"]], "{before}");

    server.kill();
    drop(server);
    let server = site.start().await;
    let (after, _job) = waiting(&server, &id).await;
    assert_eq!(after, before, "what waits is what waited");
    let list = server.get(SCHEDULES).await.expect(200);
    assert_eq!((&list["total"], &list["schedules"][0]["id"]), (&json!(1), &json!(id)));
    assert_eq!(server.get(&format!("/v1/jobs?schedule_id={id}")).await.expect(200)["total"], 3);

    let off = json!({"enabled": false}).to_string();
    let off = server.raw(Method::PATCH, &path, off).await.expect(200);
    assert_eq!((&off["enabled"], &off["upcoming"]), (&json!(false), &json!([])));
    until("no job waits any more", async || {
        let schedule = server.get(&path).await.expect(200);
        schedule["job_id"].is_null().then_some(())
    })
    .await;
    server.delete(&path).await.expect_status(204);
    server.get(&path).await.expect(404);
    assert_eq!(server.get(SCHEDULES).await.expect(200)["total"], 0);
}

#[tokio::test]
async fn what_is_no_schedule_is_refused_by_name() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let with = |name: &str, value: Value| {
        let mut body = json!({
            "name": "a", "cron": "@daily", "job_type": "index_optimize", "library_id": library,
        });
        body[name] = value;
        body
    };
    for (name, value, says) in [
        ("cron", json!("0 3 * *"), "five fields"),
        ("cron", json!("0 99 * * *"), "is no line of cron"),
        ("cron", json!("0 0 31 2 *"), "never comes"),
        ("cron", json!(7), "string"),
        ("cron", Value::Null, "required"),
        ("time_zone", json!("Mars/Olympus"), "Europe/Berlin"),
        ("job_type", json!("batch_import"), "must be index_rebuild"),
        ("job_type", Value::Null, "required"),
        ("name", json!(" "), "1 to 255"),
        ("priority", json!("soon"), "low, normal or high"),
        ("max_retries", json!(11), "0 to 10"),
        ("run_at", json!("2027-01-01T00:00:00Z"), "not for schedules"),
        ("library_id", json!("x"), "UUID"),
        ("library_id", Value::Null, "required"),
        ("enabled", json!("yes"), "true or false"),
        ("format", json!("csv"), "is not for index_optimize"),
        ("index_type", json!("hnsw"), "is not for index_optimize"),
    ] {
        let answer = server.post(SCHEDULES, &with(name, value.clone())).await;
        let said = fault(&answer, &format!("/{name}"));
        assert!(said.contains(says), "{name} {value}: {said}");
    }
    let nowhere = with("library_id", json!("0191f4a2-7c3e-7abc-8def-0123456789ab"));
    server.post(SCHEDULES, &nowhere).await.expect(404);
    let backup = with("job_type", json!("backup"));
    assert_eq!(server.post(SCHEDULES, &backup).await.expect(409)["error"], "No place for backups");
    server.post(SCHEDULES, &json!([])).await.expect(422);
    for path in ["x", "0191f4a2-7c3e-7abc-8def-0123456789ab"] {
        let path = format!("{SCHEDULES}/{path}");
        server.get(&path).await.expect(404);
        server.delete(&path).await.expect(404);
        server.raw(Method::PATCH, &path, (json!({"enabled": true})).to_string()).await.expect(404);
        server.post(&format!("{path}/run"), &json!({})).await.expect(404);
    }
    let made = server.post(SCHEDULES, &with("name", json!("good"))).await.expect(201);
    let path = format!("{SCHEDULES}/{}", made["id"].as_str().expect("an id"));
    for (body, at) in [
        (json!({"cron": "x"}), "/cron"),
        (json!({"time_zone": "x"}), "/time_zone"),
        (json!({"name": ""}), "/name"),
        (json!({"job_type": "purge"}), "/job_type"),
        (json!({"format": "csv"}), "/format"),
    ] {
        let refused = server.raw(Method::PATCH, &path, body.to_string()).await;
        assert!(!fault(&refused, at).is_empty());
    }
    assert_eq!(server.get(&path).await.expect(200)["cron"], "@daily");
}
