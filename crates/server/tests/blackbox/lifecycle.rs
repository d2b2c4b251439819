//! Starting, stopping, and one process per directory.

use std::process::Stdio;

use reqwest::Method;
use serde_json::json;

use crate::harness::vectors::Seeded;
use crate::harness::{DEADLINE, Site, free_port, until};

#[tokio::test]
async fn a_restart_finds_everything() {
    let mut site = Site::new().await;
    // Small checkpoints: some of it comes from segments and some from the log.
    site.set("CHECKPOINT_BYTES", "1048576");
    let server = site.start().await;
    let library = server.vector_library(64).await;
    let texts = server.library().await;
    let mut random = Seeded::new(9);
    let mut last = Vec::new();
    for n in 0..60 {
        let vectors: Vec<Vec<f32>> = (0..100).map(|_| random.vector(64)).collect();
        server.add_vectors(&library, &format!("d{n}"), &vectors).await;
        last = vectors.into_iter().next_back().expect("a vector");
    }
    let body = json!({ "title": "words", "texts": ["green parrots"], "metadata": { "a": [1] } });
    server.post(&format!("/v1/libraries/{texts}/documents"), &body).await.expect(201);
    let gone = server.vector_library(2).await;
    let deleted = server.delete(&format!("/v1/libraries/{gone}")).await.seq();
    let paths = [
        "/v1/libraries".to_owned(),
        format!("/v1/libraries/{library}/documents/stream?include_embeddings=true"),
        format!("/v1/libraries/{texts}/documents?include_embeddings=true"),
    ];
    // What it cost is a record of its own, which would come with the end.
    until("what embedding cost is recorded", async || {
        let metrics = server.get("/metrics").await.text();
        metrics.contains("arrwdb_costs_unrecorded_rows 0\n").then_some(())
    })
    .await;
    let mut before = Vec::new();
    for path in &paths {
        before.push(server.get(path).await.text());
    }
    let embedded = site.provider.as_ref().expect("provider").texts();
    server.terminate();
    assert!(server.ended().await.success(), "{}", server.log());

    let server = site.start().await;
    for (path, before) in paths.iter().zip(&before) {
        assert_eq!(server.get(path).await.text(), *before, "{path}");
    }
    let find = json!({ "embedding": last, "k": 1 });
    let found =
        server.post(&format!("/v1/libraries/{library}/search/embedding"), &find).await.expect(200);
    assert_eq!(found["results"][0]["document_title"], "d59");
    assert_eq!(
        site.provider.as_ref().expect("provider").texts(),
        embedded,
        "replay embeds nothing"
    );
    server.get(&format!("/v1/libraries/{gone}")).await.problem(404, "LibraryNotFoundError");
    let next = server.post("/v1/libraries", &json!({ "name": "next" })).await.seq();
    assert!(next > deleted, "sequence numbers go on: {next} after {deleted}");
}

#[tokio::test]
async fn a_stop_finishes_what_was_begun_and_takes_nothing_new() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(1);
    let body = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|item| (item, receiver))
    });
    let request =
        server.request(Method::POST, &format!("/v1/libraries/{library}/documents/with-embeddings"));
    let request = request.header("Content-Type", "application/json");
    let slow = tokio::spawn(request.body(reqwest::Body::wrap_stream(body)).send());
    let body =
        json!({ "title": "t", "chunks": [{ "text": "x", "embedding": [1, 0] }] }).to_string();
    let (head, tail) = body.split_at(20);
    sender.send(Ok(head.to_owned())).await.expect("sent");
    // The request is inside the server once it is counted there.
    until("the request is under way", async || {
        let metrics = server.get("/metrics").await.text();
        metrics
            .lines()
            .any(|line| {
                line.starts_with("http_requests_inprogress{")
                    && line.contains("with-embeddings")
                    && line.ends_with(" 1")
            })
            .then_some(())
    })
    .await;
    server.terminate();
    until("new connections are refused", async || {
        let port = server.url.rsplit(':').next().expect("port").to_owned();
        tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.is_err().then_some(())
    })
    .await;
    sender.send(Ok(tail.to_owned())).await.expect("sent");
    drop(sender);
    let answer = tokio::time::timeout(DEADLINE, slow).await.expect("in time").expect("task");
    assert_eq!(answer.expect("an answer").status(), 201, "{}", server.log());
    assert!(server.ended().await.success(), "{}", server.log());
    let server = site.start().await;
    let listed = server.get(&format!("/v1/libraries/{library}/documents")).await.expect(200);
    assert_eq!(listed["total"], 1);
}

#[tokio::test]
async fn a_second_server_on_the_same_directory_is_refused() {
    let site = Site::new().await;
    let server = site.start().await;
    let second = site
        .command()
        .env("PORT", free_port().to_string())
        .stdin(Stdio::null())
        .output()
        .expect("the second one ran");
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    let said = format!("{said}{}", String::from_utf8_lossy(&second.stdout));
    assert!(said.contains(&*site.data_dir.to_string_lossy()), "names the directory: {said}");
    assert!(said.contains("locked by process"), "says why: {said}");
    assert!(said.contains(&server.pid().to_string()), "and who has it: {said}");
    assert!(!said.contains("panicked"), "{said}");
    server.get("/ready").await.expect(200);
}

#[tokio::test]
async fn a_port_in_use_is_said_so() {
    let site = Site::new().await;
    let server = site.start().await;
    let other = Site::new().await;
    let port = server.url.rsplit(':').next().expect("port");
    let second = other.command().env("PORT", port).stdin(Stdio::null()).output().expect("ran");
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains(port) && !said.contains("panicked"), "{said}");
}

#[tokio::test]
async fn settings_that_do_not_fit_are_all_named() {
    let mut site = Site::bare();
    site.set("MAX_RESULTS_K", "0");
    site.set("LOG_LEVEL", "LOUD");
    let ran = site.command().env("PORT", "80000").stdin(Stdio::null()).output().expect("ran");
    assert!(!ran.status.success());
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    for name in ["PORT", "MAX_RESULTS_K", "LOG_LEVEL"] {
        assert!(said.contains(name), "{name} in {said}");
    }
}

#[tokio::test]
async fn an_embedder_without_a_key_leaves_vectors_usable() {
    let mut site = Site::bare();
    site.set("EMBEDDING_PROVIDER", "cohere");
    let server = site.spawn();
    until("the server answers", async || server.try_get("/health").await).await;
    let ready = server.get("/ready").await;
    assert_eq!(ready.expect(503)["ready"], false);
    let library = server.vector_library(2).await;
    server.add_vectors(&library, "v", &[vec![1.0, 0.0]]).await;
    let path = format!("/v1/libraries/{library}/search/embedding");
    let found = server.post(&path, &json!({ "embedding": [1, 0] })).await.expect(200);
    assert_eq!(found["total_results"], 1);
    let search = server
        .raw(Method::POST, &format!("/v1/libraries/{library}/search"), "{\"query\":\"x\"}")
        .await;
    search.problem(503, "EmbeddingServiceError");
}
