//! Libraries and documents: what is written comes back.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::vectors::Seeded;
use crate::harness::{Server, Site};

fn is_time(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    // 2026-01-31T12:00:00.000000Z
    text.len() == 27 && text.ends_with('Z') && text.as_bytes()[19] == b'.'
}

#[tokio::test]
async fn a_library_is_created_listed_changed_and_deleted() {
    let site = Site::new().await;
    let server = site.start().await;
    let new =
        json!({ "name": "papers", "description": "read", "embedding_dimension": 4, "unknown": 1 });
    let answer = server.post("/v1/libraries", &new).await;
    assert!(answer.seq() > 0);
    let created = answer.expect(201);
    assert_eq!(created["documents"], json!([]));
    let metadata = &created["metadata"];
    assert_eq!(metadata["description"], "read");
    assert_eq!(metadata["index_type"], "brute_force");
    assert_eq!(metadata["embedding_dimension"], 4);
    assert!(is_time(&metadata["created_at"]), "{metadata}");
    assert!(metadata["quantization"].is_null());
    let id = created["id"].as_str().expect("id").to_owned();
    let second = server.library().await;

    let listed = server.get("/v1/libraries").await.expect(200);
    let ids: Vec<&str> = listed
        .as_array()
        .expect("a bare array")
        .iter()
        .map(|l| l["id"].as_str().expect("id"))
        .collect();
    assert_eq!(ids, [&id, &second], "in the order of creation");
    assert_eq!(listed[0]["num_documents"], 0);

    let path = format!("/v1/libraries/{id}");
    for spelling in [id.to_uppercase(), id.replace('-', ""), format!("urn:uuid:{id}")] {
        let found = server.get(&format!("/v1/libraries/{spelling}")).await.expect(200);
        assert_eq!(found["id"], id.as_str());
    }
    let patched = server.raw(Method::PATCH, &path, json!({ "name": "read" }).to_string()).await;
    assert_eq!(patched.expect(200)["metadata"]["description"], "read");
    assert_eq!(server.get(&path).await.expect(200)["name"], "read");
    let statistics = server.get(&format!("{path}/statistics")).await.expect(200);
    assert_eq!(statistics["library_name"], "read");
    assert_eq!(statistics["num_chunks"], 0);
    assert_eq!(statistics["vector_store_stats"]["dimension"], 4);

    let deleted = server.delete(&path).await;
    assert!(deleted.seq() > 0 && deleted.body.is_empty());
    deleted.expect(204);
    server.get(&path).await.problem(404, "LibraryNotFoundError");
    server.delete(&path).await.problem(404, "LibraryNotFoundError");
}

#[tokio::test]
async fn a_librarys_id_is_the_servers_to_give() {
    let site = Site::new().await;
    let server = site.start().await;
    let body = json!({ "name": "a", "id": "11111111-2222-4333-8444-555555555555" });
    server.post("/v1/libraries", &body).await.problem(422, "ValidationError");
}

#[tokio::test]
async fn a_document_comes_back_as_it_was_sent() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let body = json!({
        "title": "T\u{ef}tle", "texts": ["one \u{1f600}", "two"], "author": "Ada", "document_type": "paper",
        "source_url": "https://example.org/x", "tags": ["a", "b"],
        "metadata": { "year": 2026, "deep": { "list": [1, null, "x"] }, "big": 12_345_678_901_234_567_u64 },
    });
    let path = format!("/v1/libraries/{library}/documents");
    let added = server.post(&path, &body).await.expect(201);
    let metadata = &added["metadata"];
    for key in ["title", "author", "document_type", "source_url", "tags"] {
        assert_eq!(metadata[key], body[key], "{key}");
    }
    assert_eq!(metadata["custom"], body["metadata"]);
    assert!(is_time(&metadata["created_at"]));
    for (at, chunk) in added["chunks"].as_array().expect("chunks").iter().enumerate() {
        assert_eq!(chunk["text"], body["texts"][at]);
        assert_eq!(chunk["embedding"].as_array().expect("full chunks").len(), 1024);
        assert_eq!(chunk["metadata"]["chunk_index"], at);
        assert_eq!(chunk["metadata"]["source_document_id"], added["id"]);
        assert!(is_time(&chunk["metadata"]["created_at"]));
        assert!(chunk["metadata"]["page_number"].is_null());
    }
    let id = added["id"].as_str().expect("id");
    assert_eq!(server.get(&format!("{path}/{id}")).await.expect(200), added);
    assert_eq!(server.get(&format!("/v1/documents/{id}")).await.expect(200), added);
    let slim = server.get(&format!("{path}/{id}?include_embeddings=false")).await.expect(200);
    assert!(slim["chunks"][0].get("embedding").is_none());
    let whole = server.get(&format!("/v1/libraries/{library}")).await.expect(200);
    assert_eq!(whole["documents"], json!([added]));
}

#[tokio::test]
async fn null_for_an_optional_field_means_absent() {
    let site = Site::new().await;
    let server = site.start().await;
    let body = json!({
        "name": "n", "description": null, "index_type": null, "embedding_model": null,
        "quantization_config": null, "index_config": null, "embedding_dimension": null,
    });
    let library = server.library_with(&body).await;
    let body = json!({
        "title": "t", "texts": ["x"], "text": null, "chunks": null, "author": null, "tags": null,
        "document_type": null, "source_url": null, "metadata": null, "id": null,
    });
    let added = server.post(&format!("/v1/libraries/{library}/documents"), &body).await.expect(201);
    assert_eq!(added["metadata"]["tags"], json!([]));
    assert_eq!(added["metadata"]["document_type"], "text");
    let query = json!({ "query": "x", "k": null, "distance_threshold": null });
    let found = server.post(&format!("/v1/libraries/{library}/search"), &query).await.expect(200);
    assert_eq!(found["total_results"], 1);
}

#[tokio::test]
async fn vectors_come_back_bit_for_bit() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(16).await;
    let mut random = Seeded::new(3);
    let mut vectors: Vec<Vec<f32>> = (0..20).map(|_| random.vector(16)).collect();
    let mut edges = vec![1e-38, f32::MIN_POSITIVE, -0.0, 1.0 / 3.0, 16_777_217.0, 1e18];
    edges.resize(16, 0.1);
    vectors.push(edges);
    let added = server.add_vectors(&library, "bits", &vectors).await;
    let id = added["id"].as_str().expect("id");
    let found = server.get(&format!("/v1/documents/{id}")).await.expect(200);
    for (chunk, vector) in found["chunks"].as_array().expect("chunks").iter().zip(&vectors) {
        let back: Vec<f32> = serde_json::from_value(chunk["embedding"].clone()).expect("numbers");
        let bits = |vector: &[f32]| vector.iter().map(|n| n.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(vector));
    }
}

#[tokio::test]
async fn adding_an_id_again_replaces_the_document() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(3).await;
    let path = format!("/v1/libraries/{library}/documents");
    let id = "99999999-2222-4333-8444-555555555555";
    let body = |title: &str, vector: [f32; 3]| json!({ "id": id, "title": title, "chunks": [{ "text": title, "embedding": vector }] });
    for (title, vector) in [("old", [1.0, 0.0, 0.0]), ("new", [0.0, 1.0, 0.0])] {
        let added = server.post(&format!("{path}/with-embeddings"), &body(title, vector)).await;
        assert_eq!(added.expect(201)["id"], id);
    }
    let listed = server.get(&path).await.expect(200);
    assert_eq!(listed["total"], 1);
    assert_eq!(listed["documents"][0]["metadata"]["title"], "new");
    let found = server.find(&library, &json!({ "embedding": [1, 0, 0] })).await.expect(200);
    assert_eq!(found["total_results"], 1);
    assert!((found["results"][0]["distance"].as_f64().expect("distance") - 1.0).abs() < 1e-6);
}

#[tokio::test]
async fn a_text_is_split_into_chunks_that_hold_all_of_it() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let sentences: Vec<String> =
        (0..400).map(|n| format!("Sentence number {n} says something.")).collect();
    let body = json!({ "title": "long", "text": sentences.join(" ") });
    let added = server.post(&format!("/v1/libraries/{library}/documents"), &body).await.expect(201);
    let chunks = added["chunks"].as_array().expect("chunks");
    assert!(chunks.len() >= 10, "{}", chunks.len());
    let all: Vec<&str> = chunks.iter().map(|chunk| chunk["text"].as_str().expect("text")).collect();
    assert!(all.iter().all(|text| text.chars().count() <= 1000));
    let joined = all.join(" ");
    assert!(sentences.iter().all(|sentence| joined.contains(sentence.as_str())));
}

#[tokio::test]
async fn a_batch_reports_each_document_and_bad_vectors_fail_alone() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let document = |title: &str, vector: Value| json!({ "title": title, "chunks": [{ "text": title, "embedding": vector }] });
    let body = json!({ "documents": [
        document("a", json!([1, 0])), document("bad", json!([1, 0, 0])), document("b", json!([0, 1])),
    ]});
    let answer = server
        .post(&format!("/v1/libraries/{library}/documents/batch-with-embeddings"), &body)
        .await;
    let answer = answer.expect(201);
    assert_eq!(
        (&answer["total_requested"], &answer["successful"], &answer["failed"]),
        (&json!(3), &json!(2), &json!(1))
    );
    assert_eq!(answer["total_chunks_added"], 2);
    assert!(answer["processing_time_ms"].is_number());
    let results = answer["results"].as_array().expect("results");
    let good: Vec<bool> =
        results.iter().map(|r| r["success"].as_bool().expect("success")).collect();
    assert_eq!(good, [true, true, false], "successes first");
    assert!(results[2]["error"].is_string());
    assert_eq!(
        server.get(&format!("/v1/libraries/{library}/documents")).await.expect(200)["total"],
        2
    );

    let texts = server.library().await;
    let body =
        json!({ "documents": [{ "title": "a", "texts": ["x"] }, { "title": "b", "text": "y" }] });
    let answer =
        server.post(&format!("/v1/libraries/{texts}/documents/batch"), &body).await.expect(201);
    assert_eq!(answer["successful"], 2);
}

#[tokio::test]
async fn documents_are_deleted_one_by_one_and_together() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let mut ids = Vec::new();
    for title in ["a", "b", "c", "d"] {
        let added = server.add_vectors(&library, title, &[vec![1.0, 1.0]]).await;
        ids.push(added["id"].as_str().expect("id").to_owned());
    }
    let first = server.delete(&format!("/v1/libraries/{library}/documents/{}", ids[0])).await;
    assert!(first.seq() > 0);
    first.expect(204);
    server.delete(&format!("/v1/documents/{}", ids[1])).await.expect(204);
    let none = "00000000-0000-4000-8000-000000000000";
    let body = json!({ "document_ids": [ids[2], none] }).to_string();
    let answer = server.raw(Method::DELETE, "/v1/documents/batch", body).await.expect(200);
    assert_eq!((&answer["successful"], &answer["failed"]), (&json!(1), &json!(1)));
    let missing =
        answer["results"].as_array().expect("results").iter().find(|r| r["success"] == false);
    assert_eq!(missing.expect("one failed")["error"], "Document not found");
    let listed = server.get(&format!("/v1/libraries/{library}/documents")).await.expect(200);
    assert_eq!(listed["total"], 1);
    assert_eq!(listed["documents"][0]["id"], ids[3].as_str());
    let found = server.find(&library, &json!({ "embedding": [1, 1] })).await.expect(200);
    assert_eq!(found["total_results"], 1);
}

#[tokio::test]
async fn a_document_that_two_libraries_have_is_deleted_where_it_is_said() {
    let site = Site::new().await;
    let server = site.start().await;
    let (first, second) = (server.vector_library(2).await, server.vector_library(2).await);
    let id = "0191f4a2-7c3e-7abc-8def-0123456789ab";
    let document =
        json!({"id": id, "title": "in both", "chunks": [{"text": "a", "embedding": [1, 0]}]});
    for library in [&first, &second] {
        let path = format!("/v1/libraries/{library}/documents/with-embeddings");
        server.post(&path, &document).await.expect(201);
    }
    let there = async |library: &str| {
        server.get(&format!("/v1/libraries/{library}/documents/{id}")).await.status
    };
    let refused = server.delete(&format!("/v1/documents/{id}")).await;
    refused.problem(409, "AmbiguousDocumentError");
    let patch = server.request(Method::PATCH, &format!("/v1/documents/{id}"));
    let patch = server.send(patch.json(&json!({"title": "x"}))).await;
    patch.problem(409, "AmbiguousDocumentError");
    let batch = async |body: Value| {
        let request = server.request(Method::DELETE, "/v1/documents/batch").json(&body);
        server.send(request).await.expect(200)
    };
    let answer = batch(json!({"document_ids": [id]})).await;
    assert_eq!((&answer["successful"], &answer["failed"]), (&json!(0), &json!(1)), "{answer}");
    let said = answer["results"][0]["error"].as_str().expect("an error");
    assert!(said.contains(&first) && said.contains(&second), "{said}");
    assert_eq!((there(&first).await, there(&second).await), (200, 200));
    let answer = batch(json!({"document_ids": [id], "library_id": second})).await;
    assert_eq!(answer["successful"], 1, "{answer}");
    assert_eq!((there(&first).await, there(&second).await), (200, 404));
    // Now one library has it.
    server.delete(&format!("/v1/documents/{id}")).await.expect(204);
    assert_eq!(there(&first).await, 404);
}

#[tokio::test]
async fn lists_come_in_pages_without_vectors() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    for n in 0..7 {
        server.add_vectors(&library, &format!("d{n}"), &[vec![1.0, 0.5]]).await;
    }
    let mut titles = Vec::new();
    for page in 1..=4 {
        let path = format!("/v1/libraries/{library}/documents?page={page}&page_size=3");
        let answer = server.get(&path).await.expect(200);
        assert_eq!(
            (&answer["total"], &answer["page"], &answer["page_size"]),
            (&json!(7), &json!(page), &json!(3))
        );
        for document in answer["documents"].as_array().expect("documents") {
            assert!(document["chunks"][0].get("embedding").is_none());
            titles.push(document["metadata"]["title"].as_str().expect("title").to_owned());
        }
    }
    assert_eq!(titles, ["d0", "d1", "d2", "d3", "d4", "d5", "d6"]);
    let full =
        server.get(&format!("/v1/libraries/{library}/documents?include_embeddings=true")).await;
    assert_eq!(full.expect(200)["documents"][0]["chunks"][0]["embedding"], json!([1.0, 0.5]));
}

#[tokio::test]
async fn a_read_with_the_writes_number_sees_the_write() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let path = format!("/v1/libraries/{library}/documents");
    let body = json!({ "title": "t", "chunks": [{ "text": "x", "embedding": [1, 0] }] });
    let mut last = 0;
    for n in 1..=20 {
        let seq = server.post(&format!("{path}/with-embeddings"), &body).await.seq();
        assert!(seq > last, "{seq} after {last}");
        last = seq;
        assert_eq!(server.get(&format!("{path}?min_seq={seq}")).await.expect(200)["total"], n);
        let search =
            server.request(Method::POST, &format!("/v1/libraries/{library}/search/embedding"));
        let search = search.header("X-Arrwdb-Seq", seq.to_string());
        let found = server.send(search.json(&json!({ "embedding": [1, 0], "k": 100 }))).await;
        assert_eq!(found.expect(200)["total_results"], n);
    }
}

#[tokio::test]
async fn a_number_that_is_never_reached_is_409() {
    let mut site = Site::new().await;
    site.set("MIN_SEQ_WAIT_MILLISECONDS", "20");
    let server: Server = site.start().await;
    let library = server.vector_library(2).await;
    let answer = server.get(&format!("/v1/libraries/{library}/documents?min_seq=1000000")).await;
    let problem = answer.problem(409, "SeqNotReachedError");
    assert!(problem["current_seq"].as_u64().expect("current_seq") > 0);
    assert!(answer.header("retry-after").is_some());
}

#[tokio::test]
async fn a_library_never_holds_more_documents_than_the_settings_allow() {
    let mut site = Site::new().await;
    site.set("MAX_DOCUMENTS_PER_LIBRARY", "40");
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let documents = format!("/v1/libraries/{library}/documents");
    let document =
        |title: &str| json!({ "title": title, "chunks": [{ "text": "x", "embedding": [1, 0] }] });
    // 60 at the same time, alone and in batches: 40 of them find room.
    let single = futures_util::future::join_all((0..30).map(async |n| {
        let path = format!("{documents}/with-embeddings");
        let answer = server.post(&path, &document(&format!("single {n}"))).await;
        if answer.status != 201 {
            answer.problem(409, "TooManyDocumentsError");
        }
        usize::from(answer.status == 201)
    }));
    let batches = futures_util::future::join_all((0..3).map(async |n| {
        let batch: Vec<Value> = (0..10).map(|m| document(&format!("batch {n} {m}"))).collect();
        let path = format!("{documents}/batch-with-embeddings");
        let answer = server.post(&path, &json!({ "documents": batch })).await.expect(201);
        usize::try_from(answer["successful"].as_u64().expect("a count")).expect("small")
    }));
    let (single, batches) = tokio::join!(single, batches);
    let total = async || server.get(&documents).await.expect(200)["total"].clone();
    assert_eq!(total().await, 40);
    assert_eq!(single.into_iter().chain(batches).sum::<usize>(), 40, "as many were acknowledged");

    let listed = server.get(&documents).await.expect(200);
    let id = listed["documents"][0]["id"].as_str().expect("id").to_owned();
    let mut replacement = document("replaced");
    replacement["id"] = json!(id);
    let lines = format!("{}\n{}\n", document("one too many"), replacement);
    let answer = server.raw(Method::POST, &format!("{documents}/stream"), lines).await.expect(200);
    assert_eq!((&answer["successful"], &answer["failed"]), (&json!(1), &json!(1)), "{answer}");
    let error = answer["results"][0]["error"].as_str().expect("an error");
    assert!(error.contains("40 documents"), "{error}");
    assert_eq!(total().await, 40);
    assert_eq!(server.delete(&format!("{documents}/{id}")).await.status, 204);
    let path = format!("{documents}/with-embeddings");
    server.post(&path, &document("in its place")).await.expect(201);
    server.post(&path, &document("too many")).await.problem(409, "TooManyDocumentsError");
}

#[tokio::test]
async fn a_blank_title_is_a_title() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let path = format!("/v1/libraries/{library}/documents");
    let added = server.post(&path, &json!({ "title": " ", "texts": ["x"] })).await.expect(201);
    assert_eq!(added["metadata"]["title"], " ", "at least one character is all it needs");
}

#[tokio::test]
async fn the_sequence_of_a_library_is_at_least_that_of_its_creation() {
    let site = Site::new().await;
    let server = site.start().await;
    let created =
        server.post("/v1/libraries", &json!({ "name": "x", "embedding_dimension": 2 })).await;
    let (seq, library) =
        (created.seq(), created.expect(201)["id"].as_str().expect("id").to_owned());
    let path = format!("/v1/libraries/{library}/statistics");
    let statistics = server.get(&path).await.expect(200);
    assert!(statistics["seq"].as_u64().expect("seq") >= seq, "{statistics} after {seq}");
    let found = server.find(&library, &json!({ "embedding": [1, 0] })).await;
    assert!(found.seq() >= seq);
    let added = server.add_vectors(&library, "t", &[vec![1.0, 0.0]]).await;
    assert!(added["id"].is_string());
    let later = server.get(&path).await.expect(200)["seq"].as_u64().expect("seq");
    assert!(later > seq);
    server.terminate();
    assert!(server.ended().await.success());
    let server = site.start().await;
    let again = server.get(&path).await.expect(200)["seq"].as_u64().expect("seq");
    assert!(again >= later, "{again} after {later}");
}

#[tokio::test]
async fn a_vector_whose_distances_could_not_be_told_is_refused_and_one_that_is_kept_is_not_asked_again()
 {
    let site = Site::new().await;
    let server = site.start().await;
    for (metric, refused) in [("l2", true), ("dot", true), ("cosine", false)] {
        let spec = json!({"name": metric, "embedding_dimension": 2, "metric": metric});
        let library = server.library_with(&spec).await;
        let path = format!("/v1/libraries/{library}/documents/with-embeddings");
        for long in [3e19, 1e-17] {
            let document = json!({"title": "a", "chunks": [{"text": "a", "embedding": [long, 0]}]});
            let answer = server.post(&path, &document).await;
            assert_eq!(answer.status, if refused { 400 } else { 201 }, "{metric} {long}");
            let query = json!({"embedding": [long, 0]});
            let found = server.find(&library, &query).await;
            assert_eq!(found.status, if refused { 400 } else { 200 }, "{metric} {long}");
        }
    }
}
