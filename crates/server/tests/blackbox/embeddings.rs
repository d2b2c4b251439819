//! A library's embedding model is changed while it is used: as its owner sees it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::provider::Trouble;
use crate::harness::schema::fault;
use crate::harness::{Client, DEADLINE, Server, Site, until};

/// Cohere's model for several languages, which the stand-in has as well, in fewer dimensions.
fn wanted(library: &str) -> Value {
    json!({
        "library_id": library,
        "embedding_provider": "cohere",
        "embedding_model": "embed-multilingual-v3.0",
        "embedding_dimension": 1000,
        "queries": ["green parrots"],
    })
}

async fn add(client: &Client, library: &str, title: &str, texts: &[&str]) -> String {
    let path = format!("/v1/libraries/{library}/documents");
    let answer = client.post(&path, &json!({"title": title, "texts": texts})).await.expect(201);
    answer["id"].as_str().expect("id").to_owned()
}

/// Numbers of a vector that no model makes.
const VECTOR: usize = 1030;

/// The title of the nearest passage's document.
async fn nearest(client: &Client, library: &str, query: &str) -> String {
    let path = format!("/v1/libraries/{library}/search");
    let answer = client.post(&path, &json!({"query": query, "k": 1})).await.expect(200);
    let title = &answer["results"][0]["document_title"];
    title.as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

async fn embeddings(client: &Client, library: &str) -> Value {
    client.get(&format!("/v1/libraries/{library}/embeddings")).await.expect(200)
}

async fn ask(client: &Client, library: &str, what: &str) -> crate::harness::Answer {
    client
        .send(client.request(Method::POST, &format!("/v1/libraries/{library}/embeddings/{what}")))
        .await
}

async fn regenerated(server: &Server, library: &str) -> Value {
    let id = server.submit("regenerate-embeddings", &wanted(library)).await;
    let job = server.job_over(&id).await;
    assert_eq!(job["status"], "completed", "{job}");
    job
}

#[tokio::test]
async fn a_librarys_model_is_changed_with_a_job_and_one_call() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let parrots = ["green parrots", "they fly", "and talk"];
    add(&server, &library, "parrots", &parrots).await;
    let gone = add(&server, &library, "boats", &["two boats"]).await;
    let job = regenerated(&server, &library).await;
    let result = &job["result"];
    assert_eq!(result["library_id"], json!(library));
    assert_eq!(result["chunks_reembedded"], 4, "{job}");
    assert_eq!((&result["embedding_dimension"], &result["documents"]), (&json!(1000), &json!(2)));
    let comparison = &result["comparison"];
    assert_eq!((&comparison["k"], &comparison["passages"]), (&json!(10), &json!(2)), "{job}");
    assert_eq!(comparison["overlap_mean"], 1.0, "both find all there is: {job}");
    assert_eq!(comparison["queries"], json!([1.0]));
    assert_eq!(result["cost"]["texts"], 4);
    assert_eq!(job["progress"]["current"], 2);

    // Nothing changed for who reads; what is written now gets both.
    let now = embeddings(&server, &library).await;
    assert_eq!(now["active"]["embedding_dimension"], 1024);
    assert_eq!(
        (&now["other"]["state"], &now["other"]["job_id"]),
        (&json!("prepared"), &job["job_id"])
    );
    add(&server, &library, "trains", &["a long train"]).await;
    server.delete(&format!("/v1/documents/{gone}")).await.expect_status(204);
    let activated = ask(&server, &library, "activate").await.expect(200);
    assert_eq!(activated["active"]["embedding_model"], "embed-multilingual-v3.0");
    assert_eq!(activated["active"]["documents"], 2);
    let path = format!("/v1/events?after=0&library_id={library}&event_types=library.updated");
    let events = server.get(&path).await.expect(200);
    let [event] = events["events"].as_array().expect("events").as_slice() else {
        panic!("one event: {events}")
    };
    assert_eq!(event["data"]["embedding_dimension"], 1000, "{event}");
    let schema = server.get("/v1/events/schema").await.expect(200);
    assert_eq!(fault(&schema, event), None, "{event}");
    let shown = server.get(&format!("/v1/libraries/{library}")).await.expect(200);
    assert_eq!(shown["metadata"]["embedding_dimension"], 1000, "{shown}");
    assert_eq!(nearest(&server, &library, "a long train").await, "trains");
    assert_eq!(nearest(&server, &library, "green parrots").await, "parrots");

    // A second change of mind, and what was written in between.
    add(&server, &library, "cats", &["seven cats"]).await;
    ask(&server, &library, "activate").await.problem(409, "EmbeddingStateError");
    let back = ask(&server, &library, "rollback").await.expect(200);
    assert_eq!(back["active"]["embedding_dimension"], 1024);
    assert_eq!(
        (&back["active"]["documents"], &back["other"]["state"]),
        (&json!(3), &json!("prepared"))
    );
    assert_eq!(nearest(&server, &library, "seven cats").await, "cats");
    let alone = ask(&server, &library, "discard").await.expect(200);
    assert_eq!(alone["other"], Value::Null);
    ask(&server, &library, "discard").await.problem(409, "EmbeddingStateError");
    ask(&server, &library, "rollback").await.problem(409, "EmbeddingStateError");
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_before_it_is_begun() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let path = "/v1/jobs/regenerate_embeddings";
    let with = |name: &str, value: Value| {
        let mut body = wanted(&library);
        body[name] = value;
        body
    };
    let absent = with("library_id", json!("0191f4a2-7c3e-7abc-8def-0123456789ab"));
    server.post(path, &absent).await.problem(404, "LibraryNotFoundError");
    for (name, value) in [
        ("embedding_model", json!("no such model")),
        ("embedding_provider", json!("nobody")),
        ("embedding_dimension", json!(5000)),
        ("queries", json!([""])),
        ("queries", json!(vec!["a"; 101])),
    ] {
        let problem = server.post(path, &with(name, value)).await.problem(422, "ValidationError");
        assert!(problem["detail"].as_str().is_some_and(|it| it.contains(name)), "{problem}");
    }
    regenerated(&server, &library).await;
    let second = server.post(path, &wanted(&library)).await.problem(409, "EmbeddingStateError");
    assert!(second["detail"].as_str().is_some_and(|it| it.contains("discard")), "{second}");
    let unknown = "0191f4a2-7c3e-7abc-8def-0123456789ab";
    for what in ["activate", "discard", "rollback"] {
        ask(&server, unknown, what).await.problem(404, "LibraryNotFoundError");
    }
}

#[tokio::test]
async fn a_cancelled_job_leaves_nothing_and_a_killed_one_goes_on() {
    let site = Site::new().await;
    let provider = site.provider.as_ref().expect("provider");
    let server = site.start().await;
    let library = server.library().await;
    for n in 0..5 {
        add(&server, &library, &format!("title {n}"), &[&format!("text number {n}")]).await;
    }
    // The new model does not answer: the job is on its way when it is cancelled.
    let building = async |server: &Server| {
        until("the job has begun", async || {
            let now = embeddings(server, &library).await;
            (now["other"]["state"] == "building").then_some(())
        })
        .await;
    };
    provider.set_holding(true);
    let id = server.submit("regenerate-embeddings", &wanted(&library)).await;
    building(&server).await;
    server.delete(&format!("/v1/jobs/{id}")).await.expect(200);
    let cancelled = server.job_over(&id).await;
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(cancelled["result"]["cost"]["tokens"], 0, "{cancelled}");
    assert_eq!(embeddings(&server, &library).await["other"], Value::Null);

    let id = server.submit("regenerate-embeddings", &wanted(&library)).await;
    building(&server).await;
    server.kill();
    provider.set_holding(false);
    let server = site.start().await;
    let job = server.job_over(&id).await;
    assert_eq!(
        (&job["status"], &job["result"]["chunks_reembedded"]),
        (&json!("completed"), &json!(5))
    );
    ask(&server, &library, "activate").await.expect(200);
    server.kill();
    let server = site.start().await;
    assert_eq!(embeddings(&server, &library).await["active"]["embedding_dimension"], 1000);
    assert_eq!(nearest(&server, &library, "text number 3").await, "title 3");
    ask(&server, &library, "rollback").await.expect(200);
    assert_eq!(nearest(&server, &library, "text number 4").await, "title 4");
}

/// A provider that does not answer keeps nobody from writing; the switch says what is missing.
#[tokio::test]
async fn a_model_that_is_down_is_waited_for_and_shown() {
    let site = Site::new().await;
    let other = site.provider.as_ref().expect("provider");
    let server = site.start().await;
    // No model has so many: its vectors are the caller's.
    let library = server.vector_library(VECTOR).await;
    let path = format!("/v1/libraries/{library}/documents/with-embeddings");
    let add = async |title: &str| {
        let chunks = json!([{"text": title, "embedding": vec![1.0; VECTOR]}]);
        server.post(&path, &json!({"title": title, "chunks": chunks})).await.expect(201);
    };
    add("before").await;
    regenerated(&server, &library).await;
    other.set_failing(true);
    add("while it is down").await;
    let behind = until("it is behind", async || {
        let now = embeddings(&server, &library).await;
        now["other"]["error"].is_string().then_some(now)
    })
    .await;
    assert_eq!(behind["other"]["missing_documents"], 1, "{behind}");
    let began = std::time::Instant::now();
    let refused = ask(&server, &library, "activate").await.problem(409, "EmbeddingStateError");
    assert!(began.elapsed() < DEADLINE, "it is not waited for without end");
    assert!(refused["detail"].as_str().is_some_and(|it| it.contains("try again")), "{refused}");
    add("still").await;
    other.set_failing(false);
    until("it has caught up", async || {
        let now = embeddings(&server, &library).await;
        (now["other"]["behind_records"] == 0 && now["other"]["missing_documents"] == 0)
            .then_some(())
    })
    .await;
    ask(&server, &library, "activate").await.expect(200);
    assert_eq!(nearest(&server, &library, "while it is down").await, "while it is down");
    // What it had before made no vectors: what is written now cannot be carried there.
    let texts = json!({"title": "after", "texts": ["after"]});
    server.post(&format!("/v1/libraries/{library}/documents"), &texts).await.expect(201);
    ask(&server, &library, "rollback").await.problem(409, "EmbeddingStateError");
    ask(&server, &library, "discard").await.expect(200);
    assert_eq!(nearest(&server, &library, "after").await, "after");
}

/// Nothing that was made is made again, or thrown away, for one text or for a key that is wrong for a
/// while.
#[tokio::test]
async fn a_job_goes_past_what_a_model_refuses_and_waits_for_a_key_that_is_mended() {
    let site = Site::new().await;
    let other = site.provider.as_ref().expect("provider");
    let server = site.start().await;
    let library = server.vector_library(VECTOR).await;
    let path = format!("/v1/libraries/{library}/documents/batch-with-embeddings");
    let document = |n: usize| {
        let text = match n {
            7 => "blocked".to_owned(),
            150 => "stuck".to_owned(),
            _ => format!("number {n}"),
        };
        json!({"title": format!("title {n}"), "chunks": [{"text": text, "embedding": vec![1; VECTOR]}]})
    };
    let documents: Vec<Value> = (0..250).map(document).collect();
    let added = server.post(&path, &json!({ "documents": documents })).await.expect(201);
    let results = added["results"].as_array().expect("results");
    let refused = results.iter().find(|it| it["index"] == 7).expect("the eighth");
    let refused = refused["document_id"].as_str().expect("id");

    other.set_stuck(true);
    let id = server.submit("regenerate-embeddings", &wanted(&library)).await;
    until("it is at the second hundred", async || {
        let job = server.job(&id).await;
        (job["progress"]["current"] == 100).then_some(())
    })
    .await;
    let made = other.texts();
    other.set_trouble(Trouble::Status(401));
    other.set_stuck(false);
    until("its key was refused again and again", async || (other.refused() > 2).then_some(()))
        .await;
    let job = server.job(&id).await;
    assert_eq!((&job["status"], &job["retries"]), (&json!("running"), &json!(0)), "{job}");
    assert!(job["progress"]["current"].as_u64().is_some_and(|it| it >= 100), "{job}");
    other.set_trouble(Trouble::None);
    let job = server.job_over(&id).await;
    let result = &job["result"];
    assert_eq!((&job["status"], &result["documents"]), (&json!("completed"), &json!(249)), "{job}");
    assert_eq!((&result["documents_refused"], &result["cost"]["texts"]), (&json!(1), &json!(249)));
    assert_eq!(result["refused"][0]["document_id"], *refused, "{job}");
    assert!(other.texts() - made <= 151, "each is made once");

    // It is named by who asks for the switch, until it is gone.
    let named = ask(&server, &library, "activate").await.problem(409, "EmbeddingStateError");
    let detail = named["detail"].as_str().expect("detail");
    assert!(detail.contains(refused) && detail.contains("blocked"), "{named}");
    let now = embeddings(&server, &library).await;
    assert_eq!(now["other"]["missing_documents"], 1, "{now}");
    server.delete(&format!("/v1/documents/{refused}")).await.expect_status(204);
    let activated = ask(&server, &library, "activate").await.expect(200);
    assert_eq!(activated["active"]["documents"], 249);
}
