//! Documents that stream in and out: both answer forms, bad lines, bodies of any size.

use std::fmt::Write as _;

use reqwest::{Body, Method};
use serde_json::{Value, json};

use crate::harness::vectors::Seeded;
use crate::harness::{Answer, Server, Site, until};

async fn stream_in(server: &Server, library: &str, body: impl Into<Body>, accept: &str) -> Answer {
    let request =
        server.request(Method::POST, &format!("/v1/libraries/{library}/documents/stream"));
    server.send(request.header("Accept", accept).body(body)).await
}

async fn export(server: &Server, library: &str, query: &str) -> String {
    let path = format!("/v1/libraries/{library}/documents/stream{query}");
    let answer = server.get(&path).await;
    answer.expect_lines()
}

impl Answer {
    #[track_caller]
    fn expect_lines(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/x-ndjson"));
        self.text()
    }
}

const MIXED: &str = concat!(
    "{\"title\":\"first\",\"texts\":[\"one\",\"two\"],\"year\":2026,\"metadata\":{\"a\":1}}\n",
    "\n",
    "this is not JSON\n",
    "{\"title\":\"blank\",\"texts\":[\" \"]}\n",
    "{\"texts\":[\"no title\"]}\r\n",
    "[1,2]\n",
    "{\"title\":\"both\",\"texts\":[\"x\"],\"text\":\"y\"}\n",
    "{\"title\":\"last, without a newline\",\"text\":\"three\"}",
);

#[tokio::test]
async fn bad_lines_fail_alone_and_the_answer_is_one_object() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let answer = stream_in(&server, &library, MIXED, "*/*").await;
    let answer = answer.expect(200);
    assert_eq!((&answer["successful"], &answer["failed"]), (&json!(3), &json!(4)), "{answer}");
    assert!(answer["processing_time_ms"].as_f64().expect("a time") > 0.0);
    let results = answer["results"].as_array().expect("results");
    let successes: Vec<bool> = results.iter().map(|r| r["success"] == true).collect();
    assert_eq!(
        successes,
        [true, false, false, true, false, false, true],
        "in the order of the lines"
    );
    let titles: Vec<&Value> =
        results.iter().filter(|r| r["success"] == true).map(|r| &r["title"]).collect();
    assert_eq!(titles, ["first", "Untitled", "last, without a newline"]);
    assert_eq!(results[0]["num_chunks"], 2);
    assert!(results.iter().filter(|r| r["success"] == false).all(|r| r["error"].is_string()));
    let id = results[0]["document_id"].as_str().expect("id");
    let document = server.get(&format!("/v1/documents/{id}")).await.expect(200);
    assert_eq!(document["metadata"]["custom"], json!({ "year": 2026, "a": 1 }));
}

#[tokio::test]
async fn bad_lines_fail_alone_with_their_number_as_lines() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let answer = stream_in(&server, &library, MIXED, "application/x-ndjson").await;
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let mut lines = answer.lines();
    let summary = lines.pop().expect("a last line");
    assert_eq!(summary["status"], "summary");
    let counts = ["total_processed", "total_succeeded", "total_failed", "total_chunks"];
    assert_eq!(
        counts.map(|name| summary[name].as_u64().expect("count")),
        [7, 3, 4, 4],
        "{summary}"
    );
    let completed: Vec<&Value> =
        lines.iter().filter(|line| line["status"] == "completed").collect();
    assert_eq!(completed.len(), 3);
    assert!(completed.iter().all(|line| line["id"].is_string() && line["num_chunks"].is_number()));
    let errors: Vec<&Value> = lines.iter().filter(|line| line["status"] == "error").collect();
    let numbers: Vec<u64> =
        errors.iter().map(|line| line["line_number"].as_u64().expect("a number")).collect();
    assert_eq!(numbers, [3, 4, 6, 7], "{errors:?}");
    assert_eq!(errors[0]["line"], "this is not JSON");
    assert!(errors.iter().all(|line| line["error"].is_string()));
    let steps = ["processing", "completed", "error"];
    assert!(lines.iter().all(|line| steps.contains(&line["status"].as_str().expect("status"))));
}

#[tokio::test]
async fn a_line_longer_than_16_mib_fails_alone() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let good = "{\"title\":\"t\",\"chunks\":[{\"text\":\"x\",\"embedding\":[1,0]}]}\n";
    let long = format!("{{\"title\":\"{}\"}}\n", "x".repeat(17 << 20));
    let answer =
        stream_in(&server, &library, format!("{good}{long}{good}"), "*/*").await.expect(200);
    assert_eq!((&answer["successful"], &answer["failed"]), (&json!(2), &json!(1)), "{answer}");
}

#[tokio::test]
async fn answers_come_while_the_body_is_still_being_sent() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(1);
    let body = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|item| (item, receiver))
    });
    let request =
        server.request(Method::POST, &format!("/v1/libraries/{library}/documents/stream"));
    let request = request.header("Accept", "application/x-ndjson").body(Body::wrap_stream(body));
    let sending = tokio::spawn(request.send());
    let line = |n: u32| {
        format!("{{\"title\":\"d{n}\",\"chunks\":[{{\"text\":\"x\",\"embedding\":[1,{n}]}}]}}\n")
    };
    // A line in two pieces, cut inside a string.
    let first = line(0);
    let (head, tail) = first.split_at(12);
    sender.send(Ok(head.to_owned())).await.expect("sent");
    sender.send(Ok(tail.to_owned())).await.expect("sent");
    let mut response = sending.await.expect("task").expect("an answer before the body ends");
    for n in 0..5 {
        let mut seen = String::new();
        while !seen.contains("completed") {
            let piece = tokio::time::timeout(crate::harness::DEADLINE, response.chunk()).await;
            let piece = piece.expect("in time").expect("a piece").expect("not the end");
            seen.push_str(&String::from_utf8_lossy(&piece));
        }
        // What is acknowledged is visible although the stream goes on.
        let listed = server.get(&format!("/v1/libraries/{library}/documents")).await.expect(200);
        assert_eq!(listed["total"], n + 1);
        sender.send(Ok(line(n + 1))).await.expect("sent");
    }
    drop(sender);
    let rest = response.text().await.expect("the rest");
    let summary: Value = serde_json::from_str(rest.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&summary["status"], &summary["total_succeeded"]), (&json!("summary"), &json!(6)));
}

#[tokio::test]
async fn whoever_leaves_an_import_stops_it_and_what_was_written_is_counted() {
    let site = Site::new().await;
    let server = site.start().await;
    let provider = site.provider.as_ref().expect("a provider");
    for accept in ["application/x-ndjson", "application/json"] {
        let library = server.library().await;
        provider.set_stuck(true);
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(1);
        let body = futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|item| (item, receiver))
        });
        let path = format!("/v1/libraries/{library}/documents");
        let request = server.request(Method::POST, &format!("{path}/stream"));
        let request = request.header("Accept", accept).body(Body::wrap_stream(body));
        let sending = tokio::spawn(async move { request.send().await?.bytes().await });
        let line =
            |title: &str| format!("{{\"title\":\"{title}\",\"text\":\"{title} {accept}\"}}\n");
        sender.send(Ok(line("first"))).await.expect("sent");
        until("the first is written", async || {
            (server.get(&path).await.expect(200)["total"] == 1).then_some(())
        })
        .await;
        for title in ["stuck", "third", "fourth"] {
            sender.send(Ok(line(title))).await.expect("sent");
        }
        until("the next one is on its way", async || (provider.stuck_calls() > 0).then_some(()))
            .await;
        sending.abort();
        let told = format!("/v1/events?after=0&event_types=batch.failed&library_id={library}");
        let told = until("the batch is told to have ended", async || {
            server.get(&told).await.expect(200)["events"].get(0).cloned()
        })
        .await;
        let counted = &told["data"];
        assert_eq!((&counted["successful"], &counted["failed"]), (&json!(1), &json!(0)), "{told}");
        provider.set_stuck(false);
        let after = json!({"title": "after", "text": "that"});
        server.post(&path, &after).await.expect(201);
        assert_eq!(titles(&server, &library).await, ["first", "after"], "{accept}");
    }
}

/// A batch of nothing but bad lines has nothing to write and is over at once: what follows it may not
/// be written before what it follows, nor be waited for by who leaves.
#[tokio::test]
async fn no_line_overtakes_one_that_waits_for_its_vector() {
    let site = Site::new().await;
    let server = site.start().await;
    let provider = site.provider.as_ref().expect("a provider");
    let id = "0191f4a2-7c3e-7abc-8def-0123456789ab";
    let line = |title: &str, text: &str| {
        format!("{{\"id\":\"{id}\",\"title\":\"{title}\",\"text\":\"{text}\"}}\n")
    };
    for leaves in [false, true] {
        let library = server.library().await;
        provider.set_stuck(true);
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(1);
        let body = futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|item| (item, receiver))
        });
        let path = format!("/v1/libraries/{library}/documents");
        let request = server.request(Method::POST, &format!("{path}/stream"));
        let request =
            request.header("Accept", "application/x-ndjson").body(Body::wrap_stream(body));
        let sending = tokio::spawn(async move { request.send().await?.text().await });
        sender.send(Ok(line("earlier", &format!("stuck {leaves}")))).await.expect("sent");
        until("it is on its way", async || (provider.stuck_calls() > 0).then_some(())).await;
        sender.send(Ok("no JSON\n".repeat(256))).await.expect("sent");
        let texts = provider.texts();
        let later = line("later", &format!("free {leaves}"));
        let others =
            (1..256).map(|n| format!("{{\"title\":\"{n}\",\"text\":\"free {leaves} {n}\"}}\n"));
        sender.send(Ok(later + &others.collect::<String>())).await.expect("sent");
        until("the later ones have their vectors", async || {
            (provider.texts() >= texts + 256).then_some(())
        })
        .await;
        if leaves {
            sending.abort();
            let told = format!("/v1/events?after=0&event_types=batch.failed&library_id={library}");
            let told = until("the batch is told to have ended", async || {
                server.get(&told).await.expect(200)["events"].get(0).cloned()
            })
            .await;
            assert_eq!(told["data"]["successful"], 0, "{told}");
            assert_eq!(titles(&server, &library).await, [""; 0]);
            provider.set_stuck(false);
            continue;
        }
        provider.set_stuck(false);
        drop(sender);
        let answer = sending.await.expect("not aborted").expect("an answer");
        assert!(answer.contains("\"total_succeeded\":257"), "{answer}");
        let titles = titles(&server, &library).await;
        assert_eq!(
            titles
                .iter()
                .filter(|title| ["earlier", "later"].contains(&&***title))
                .collect::<Vec<_>>(),
            ["later"]
        );
    }
}

#[tokio::test]
async fn a_hundred_thousand_lines_take_bounded_memory() {
    const LINES: u32 = 100_000;
    /// More than the documents themselves need, much less than bodies and answers held whole.
    const GROWTH_MAX: u64 = 400 << 20;
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(8).await;
    let before = server.resident_bytes();
    let blocks = (0..LINES / 100).map(|block| {
        let mut text = String::new();
        for n in block * 100..(block + 1) * 100 {
            let mut random = Seeded::new(n.into());
            let vector = random.vector(8);
            let line = json!({
                "title": format!("document {n}"),
                "chunks": [{ "text": format!("{} {n}", "some text ".repeat(40)), "embedding": vector }],
            });
            writeln!(text, "{line}").expect("a string");
        }
        Ok::<_, std::io::Error>(text)
    });
    let body = Body::wrap_stream(futures_util::stream::iter(blocks));
    let request =
        server.request(Method::POST, &format!("/v1/libraries/{library}/documents/stream"));
    let mut response = request
        .header("Accept", "application/x-ndjson")
        .body(body)
        .send()
        .await
        .expect("an answer");
    let (mut tail, mut peak) = (Vec::new(), before);
    let mut pieces = 0_u32;
    while let Some(piece) = response.chunk().await.expect("a piece") {
        tail.extend_from_slice(&piece);
        let keep = tail.len().saturating_sub(4096);
        tail.drain(..keep);
        pieces += 1;
        if pieces.is_multiple_of(64) {
            peak = peak.max(server.resident_bytes());
        }
    }
    let tail = String::from_utf8_lossy(&tail).into_owned();
    let summary: Value = serde_json::from_str(tail.lines().last().expect("a line")).expect("JSON");
    assert_eq!(summary["total_succeeded"], LINES, "{summary}");
    assert!(peak - before < GROWTH_MAX, "grew by {} MiB", (peak - before) >> 20);
    let listed =
        server.get(&format!("/v1/libraries/{library}/documents?page_size=1")).await.expect(200);
    assert_eq!(listed["total"], LINES);
    let mut random = Seeded::new(77_777);
    let find = json!({ "embedding": random.vector(8), "k": 1 });
    let found =
        server.post(&format!("/v1/libraries/{library}/search/embedding"), &find).await.expect(200);
    assert_eq!(found["results"][0]["document_title"], "document 77777");
}

#[tokio::test]
async fn an_export_makes_the_same_library_again() {
    let site = Site::new().await;
    let server = site.start().await;
    let first = server.vector_library(8).await;
    let mut random = Seeded::new(5);
    let lines: Vec<String> = (0..300)
        .map(|n| {
            let chunks: Vec<Value> = (0..=random.below(4))
                .map(|at| json!({
                    "text": format!("text {n} {at} \u{1f600}\u{2028}\"\\"), "embedding": random.vector(8),
                    "metadata": { "page_number": at, "note": n },
                }))
                .collect();
            let document = json!({
                "title": format!("d{n}"), "author": "Ada", "tags": ["x", "y"], "source_url": "https://e.org",
                "chunks": chunks, "year": n, "deep": { "a": [1, 2.5, null, true] },
            });
            format!("{document}\n")
        })
        .collect();
    let added = stream_in(&server, &first, lines.concat(), "*/*").await.expect(200);
    assert_eq!(added["successful"], 300, "{added}");
    let exported = export(&server, &first, "?include_embeddings=true").await;
    let mut documents: Vec<&str> = exported.lines().collect();
    let end: Value = serde_json::from_str(documents.pop().expect("a last line")).expect("JSON");
    assert_eq!((&end["status"], &end["total_documents"]), (&json!("complete"), &json!(300)));
    let one: Value = serde_json::from_str(documents[0]).expect("JSON");
    for key in
        ["id", "title", "author", "document_type", "source_url", "tags", "created_at", "chunks"]
    {
        assert!(one.get(key).is_some(), "{key} in {one}");
    }
    let second = server.vector_library(8).await;
    let body = format!("{}\n", documents.join("\n"));
    assert_eq!(stream_in(&server, &second, body, "*/*").await.expect(200)["successful"], 300);
    let again = export(&server, &second, "?include_embeddings=true").await;
    let again: Vec<&str> = again.lines().collect();
    assert_eq!(again.len(), documents.len() + 1);
    for (again, document) in again.iter().zip(&documents) {
        assert_eq!(again, document, "byte for byte, in the same order");
    }
    let slim = export(&server, &first, "?include_embeddings=false").await;
    assert!(!slim.contains("embedding"), "vectors only where asked for");
    assert_eq!(slim.lines().count(), 301);
}

#[tokio::test]
async fn an_export_is_one_state_while_writes_go_on() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    for n in 0..50 {
        server.add_vectors(&library, &format!("d{n}"), &[vec![1.0, 0.5]]).await;
    }
    let writing = async {
        for n in 50..80 {
            server.add_vectors(&library, &format!("d{n}"), &[vec![1.0, 0.5]]).await;
        }
    };
    let (exported, ()) = tokio::join!(export(&server, &library, ""), writing);
    let mut lines: Vec<Value> =
        exported.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let end = lines.pop().expect("a last line");
    assert_eq!(end["total_documents"], lines.len());
    for (at, line) in lines.iter().enumerate() {
        assert_eq!(line["title"], format!("d{at}"), "a prefix of what was written");
    }
}

/// The titles of every document, in the order of the listing.
async fn titles(server: &Server, library: &str) -> Vec<String> {
    let exported = export(server, library, "?include_embeddings=false").await;
    let lines = exported.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.filter_map(|line| line["title"].as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn documents_are_listed_in_the_order_in_which_one_request_sent_them() {
    const BATCH: usize = 256;
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let vector = crate::harness::provider::vector("x");
    let mut expected: Vec<String> = (0..BATCH * 6).map(|n| format!("line {n}")).collect();
    let lines = expected.iter().enumerate().map(|(n, title)| {
        // Every other batch of the import has to be embedded, which takes longer than the rest.
        let line = if (n / BATCH).is_multiple_of(2) {
            json!({ "title": title, "texts": [format!("text {n}")] })
        } else {
            json!({ "title": title, "chunks": [{ "text": "x", "embedding": vector }] })
        };
        format!("{line}\n")
    });
    let answer = stream_in(&server, &library, lines.collect::<String>(), "*/*").await.expect(200);
    assert_eq!(answer["failed"], 0, "{answer}");
    assert_eq!(titles(&server, &library).await, expected);

    // One batch of several records of the log.
    let batch: Vec<String> = (0..1000).map(|n| format!("batch {n}")).collect();
    let documents: Vec<Value> = batch
        .iter()
        .map(|title| {
            let text = "some text ".repeat(800);
            json!({ "title": title, "chunks": [{ "text": text, "embedding": vector }] })
        })
        .collect();
    let path = format!("/v1/libraries/{library}/documents/batch-with-embeddings");
    server.post(&path, &json!({ "documents": documents })).await.expect(201);
    expected.extend(batch);
    assert_eq!(titles(&server, &library).await, expected);
}

/// What ends a line for who cuts text as Unicode does (`splitlines` of Python).
const LINE_ENDS: [char; 10] =
    ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];

#[tokio::test]
async fn every_line_is_one_line_however_lines_are_cut() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let ends: String = LINE_ENDS.iter().flat_map(|end| [*end, 'x']).collect();
    let document = json!({ "title": ends, "texts": [format!("a passage {ends}")], "ends": ends });
    let body = format!("{document}\n{{\"title\": \"{}\"}}\n", "bad\u{85}\u{2028}\u{2029}");
    let answer = stream_in(&server, &library, body, "application/x-ndjson").await.expect_lines();
    let exported = export(&server, &library, "").await;
    let search = json!({ "query": "a passage", "k": 10 });
    let path = format!("/v1/libraries/{library}/search/stream");
    let request =
        server.request(Method::POST, &path).header("Accept", "application/x-ndjson").json(&search);
    let found = server.send(request).await.expect_lines();
    for (what, lines, told) in
        [("import", &answer, "title"), ("export", &exported, "ends"), ("search", &found, "text")]
    {
        let objects: Vec<Value> = lines
            .split(LINE_ENDS)
            .filter(|line| !line.is_empty())
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{what}: {e}: {line}"))
            })
            .collect();
        assert_eq!(objects.len(), lines.lines().count(), "{what}");
        let all = json!(objects).to_string();
        let ends = json!(ends).to_string();
        assert!(all.contains(ends.trim_matches('"')), "{what} tells {told} as it is: {all}");
    }
}
