//! Reads that see a write, and reads of the past: on every route that reads.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Server, Site};

/// Dimension of the libraries that the server's embedder makes the vectors of.
const DIMENSION: usize = 1024;
/// A number that no write of these tests has.
const FAR: u64 = 1_000_000_000;

/// Reads below `/v1` of which no state of a library is asked: why `min_seq` means nothing there.
const STATELESS: [(&str, &str); 8] = [
    ("event_stream", "goes on for ever from the place it is asked for"),
    ("event_stats", "figures of the process"),
    ("event_statistics", "figures of the process"),
    ("event_schema", "always the same"),
    ("get_job_queue", "figures of the process"),
    ("download_export", "is a file that does not change"),
    ("websocket", "is a connection: what is read over it says at which number"),
    ("websocket_stats", "figures of the process"),
];
/// Reads of what has no past: `as_of` is refused.
const NO_PAST: [&str; 12] = [
    "events",
    "list_libraries",
    "list_standing_queries",
    "get_standing_query",
    "list_jobs",
    "list_job_errors",
    "get_job",
    "list_schedules",
    "get_schedule",
    "get_costs",
    "get_embeddings",
    "list_budgets",
];
/// Writes whose answer is under way before the number is known; what says it there.
const NUMBERED_INSIDE: [(&str, &str); 0] = [];

/// One operation of the OpenAPI document.
struct Operation {
    method: Method,
    path: String,
    id: String,
    parameters: Vec<String>,
    /// Whether its successes are described with the header.
    has_header: bool,
}

impl Operation {
    fn reads(&self) -> bool {
        let asks = ["/search", "/facets", "/documents/query", "/documents/count"];
        self.method == Method::GET || asks.iter().any(|asked| self.path.contains(asked))
    }
}

/// Every operation below `/v1`.
fn operations(document: &Value) -> Vec<Operation> {
    let mut all = Vec::new();
    let paths = document["paths"].as_object().expect("paths").iter();
    for (path, item) in paths.filter(|(path, _item)| path.starts_with("/v1/")) {
        for (method, described) in item.as_object().expect("methods") {
            let parameters = described["parameters"].as_array().cloned().unwrap_or_default();
            let names = parameters.iter().map(|it| it["name"].as_str().expect("name").to_owned());
            let responses = described["responses"].as_object().expect("responses").iter();
            let mut successes = responses.filter(|(status, _response)| status.starts_with('2'));
            all.push(Operation {
                method: method.to_uppercase().parse().expect("method"),
                path: path.clone(),
                id: described["operationId"].as_str().expect("id").to_owned(),
                parameters: names.collect(),
                has_header: successes.all(|(_, it)| it["headers"]["X-Arrwdb-Seq"].is_object()),
            });
        }
    }
    all
}

/// What an operation is sent; a new one has to be named here.
fn body(operation: &str, library: &str, document: &str) -> Value {
    let vector = vec![0.5; DIMENSION];
    let with_vector = json!({ "title": "v", "chunks": [{ "text": "v", "embedding": vector }] });
    let with_text = json!({ "title": "t", "texts": ["some words"] });
    match operation {
        "search"
        | "search_filtered"
        | "search_hybrid"
        | "search_keyword"
        | "search_rerank"
        | "search_multi_vector"
        | "search_stream" => json!({ "query": "words" }),
        "count_facets" => json!({ "fields": ["title"] }),
        "add_multi_vector_document" | "put_document_vector" | "put_vector_field" => {
            of_vectors(operation)
        }
        "patch_document" | "patch_document_anywhere" => json!({ "title": "patched" }),
        "delete_documents_by_filter" => json!({ "filter": { "title": "nobody" } }),
        "search_by_embedding" => json!({ "embedding": vector }),
        "create_library" | "update_library" => json!({ "name": "named" }),
        "add_document" | "put_document" | "import_documents" => with_text,
        "add_document_with_embeddings" => with_vector,
        "add_documents" => json!({ "documents": [with_text] }),
        "add_documents_with_embeddings" => json!({ "documents": [with_vector] }),
        "delete_documents" | "submit_batch_delete" => json!({ "document_ids": [document] }),
        "create_standing_query" => {
            json!({ "name": "named", "embedding": vector, "distance_threshold": 0.5 })
        }
        "update_standing_query" => json!({ "name": "renamed" }),
        "submit_batch_import" => json!({ "library_id": library, "documents": [with_text] }),
        "submit_batch_export" | "submit_index_rebuild" | "submit_index_optimize" => {
            json!({ "library_id": library })
        }
        "submit_regenerate_embeddings" => {
            json!({ "library_id": library, "embedding_dimension": 16 })
        }
        "create_schedule" => json!({
            "name": "named", "cron": "@daily", "job_type": "index_optimize", "library_id": library,
        }),
        "update_schedule" => json!({ "cron": "@weekly" }),
        "set_budget" => json!({ "library_id": library, "amount_usd": 1 }),
        "delete_budget"
        | "query_documents"
        | "count_documents"
        | "delete_standing_query"
        | "submit_purge"
        | "submit_backup"
        | "cancel_job"
        | "activate_embeddings"
        | "rollback_embeddings"
        | "discard_embeddings"
        | "delete_schedule"
        | "run_schedule"
        | "rebuild_index"
        | "optimize_index"
        | "purge"
        | "delete_library"
        | "delete_document"
        | "delete_document_anywhere" => json!({}),
        other => panic!("{other}: say here what it is sent"),
    }
}

/// The same of operations on vectors of several fields.
fn of_vectors(operation: &str) -> Value {
    let passage = json!({ "type": "text", "text": "some words" });
    match operation {
        "add_multi_vector_document" => json!({ "title": "m", "vectors": [passage] }),
        "put_document_vector" => json!({ "text": "other words" }),
        _put_vector_field => json!({ "dimension": 4 }),
    }
}

/// A library with a standing query and a document: the library's and the document's id, and the
/// document's number.
async fn filled(server: &Server) -> (String, String, u64) {
    let library = server.library().await;
    let path = format!("/v1/libraries/{library}/standing-queries");
    server.post(&path, &body("create_standing_query", &library, "")).await.expect(201);
    let path = format!("/v1/libraries/{library}/documents");
    let added = server.post(&path, &json!({ "title": "first", "texts": ["some words"] })).await;
    let id = added.expect(201)["id"].as_str().expect("id").to_owned();
    (library, id, added.seq())
}

async fn path_of(server: &Server, operation: &Operation, library: &str, document: &str) -> String {
    let path = operation.path.replace("{library_id}", library).replace("{document_id}", document);
    if path.contains("{job_id}") {
        let job = json!({ "library_id": library, "run_at": "2100-01-01T00:00:00Z" });
        let job = server.post("/v1/jobs/index-optimize", &job).await.expect(200);
        return path.replace("{job_id}", job["job_id"].as_str().expect("id"));
    }
    if path.contains("{schedule_id}") {
        let schedule = body("create_schedule", library, document);
        let schedule = server.post("/v1/jobs/schedules", &schedule).await.expect(201);
        return path.replace("{schedule_id}", schedule["id"].as_str().expect("id"));
    }
    if operation.id == "delete_budget" {
        let budget = body("set_budget", library, document).to_string();
        server.raw(Method::PUT, &path, budget).await.expect(200);
        return format!("{path}?library_id={library}");
    }
    if path.contains("{vector_id}") {
        let vectors = format!("/v1/libraries/{library}/documents/{document}/vectors");
        let vectors = server.get(&vectors).await.expect(200);
        return path.replace("{vector_id}", vectors["vectors"][0]["id"].as_str().expect("id"));
    }
    let path = path.replace("{name}", "image");
    if !path.contains("{query_id}") {
        return path;
    }
    let queries = server.get(&format!("/v1/libraries/{library}/standing-queries")).await;
    let id = queries.expect(200)["standing_queries"][0]["id"].as_str().expect("id").to_owned();
    path.replace("{query_id}", &id)
}

async fn ask(
    server: &Server,
    operation: &Operation,
    path: &str,
    (library, document): (&str, &str),
) -> Answer {
    if operation.method == Method::GET {
        return server.get(path).await;
    }
    let body = body(&operation.id, library, document).to_string();
    server.raw(operation.method.clone(), path, body).await
}

async fn described(server: &Server) -> Vec<Operation> {
    operations(&server.get("/openapi.json").await.expect(200))
}

#[tokio::test]
async fn every_read_waits_for_a_number_and_names_the_one_that_it_is_true_at() {
    let mut site = Site::new().await;
    site.set("MIN_SEQ_WAIT_MILLISECONDS", "20");
    let server = site.start().await;
    let (library, document, seq) = filled(&server).await;
    let second = json!({ "title": "second", "texts": ["other words"] });
    let later = server.post(&format!("/v1/libraries/{library}/documents"), &second).await;
    assert!(later.seq() > seq);
    let mut reads = 0;
    for read in described(&server).await.iter().filter(|operation| operation.reads()) {
        let id = &read.id;
        if STATELESS.iter().any(|(stateless, _why)| id == stateless) {
            continue;
        }
        reads += 1;
        assert!(read.parameters.iter().any(|name| name == "min_seq"), "{id} describes no min_seq");
        assert!(read.has_header, "{id} describes no X-Arrwdb-Seq");
        let path = path_of(&server, read, &library, &document).await;
        let asked = async |query: String| {
            ask(&server, read, &format!("{path}?{query}"), (&library, &document)).await
        };
        let refused = asked(format!("min_seq={FAR}")).await;
        let problem = refused.problem(409, "SeqNotReachedError");
        assert!(problem["current_seq"].as_u64().expect("current_seq") > seq, "{id}");
        let request = server.request(read.method.clone(), &path).header("X-Arrwdb-Seq", FAR);
        let request = match read.method {
            Method::GET => request,
            _ => request.json(&body(id, &library, &document)),
        };
        server.send(request).await.problem(409, "SeqNotReachedError");
        let answer = asked(format!("min_seq={seq}")).await;
        assert_eq!(answer.status, 200, "{id}: {}", answer.text());
        assert!(answer.seq() >= seq, "{id}: {} after {seq}", answer.seq());
        check_past(read, &asked, seq).await;
    }
    assert!(reads >= 11, "{reads}");
}

async fn check_past(read: &Operation, asked: &impl AsyncFn(String) -> Answer, seq: u64) {
    let id = &read.id;
    if NO_PAST.contains(&id.as_str()) {
        let refused = asked(format!("as_of={seq}")).await;
        refused.problem(422, "ValidationError");
        assert_eq!(refused.pointers(), ["/query/as_of"], "{id}");
        return;
    }
    assert!(read.parameters.iter().any(|name| name == "as_of"), "{id} describes no as_of");
    let answer = asked(format!("as_of={seq}")).await;
    assert_eq!(answer.status, 200, "{id}: {}", answer.text());
    assert_eq!(answer.seq(), seq, "{id}");
    asked(format!("as_of={FAR}")).await.problem(409, "SeqNotReachedError");
    let refused = asked("as_of=-1".to_owned()).await;
    refused.problem(422, "ValidationError");
    assert_eq!(refused.pointers(), ["/query/as_of"], "{id}");
}

/// Has a library have vectors of a second model, or of the one that it had before.
async fn with_two_models(server: &Server, library: &str, activated: bool) {
    let path = format!("/v1/libraries/{library}");
    let queries = server.get(&format!("{path}/standing-queries")).await.expect(200);
    for query in queries["standing_queries"].as_array().expect("queries") {
        let id = query["id"].as_str().expect("id");
        server.delete(&format!("{path}/standing-queries/{id}")).await;
    }
    let wanted = body("submit_regenerate_embeddings", library, "");
    let job = server.job_over(&server.submit("regenerate-embeddings", &wanted).await).await;
    assert_eq!(job["status"], "completed", "{job}");
    if activated {
        server.post(&format!("{path}/embeddings/activate"), &json!({})).await.expect(200);
    }
}

#[tokio::test]
async fn every_write_names_its_number() {
    let mut site = Site::new().await;
    let backups = tempfile::tempdir().expect("a folder");
    site.set("BACKUP_TARGET", backups.path().to_str().expect("a path"));
    let server = site.start().await;
    let mut writes = 0;
    for write in described(&server).await.iter().filter(|operation| !operation.reads()) {
        let id = &write.id;
        if NUMBERED_INSIDE.iter().any(|(inside, _where)| id == inside) {
            continue;
        }
        writes += 1;
        assert!(write.has_header, "{id} describes no X-Arrwdb-Seq");
        let (library, document, seq) = filled(&server).await;
        if ["activate_embeddings", "rollback_embeddings", "discard_embeddings"].contains(&&**id) {
            with_two_models(&server, &library, id == "rollback_embeddings").await;
        }
        let path = path_of(&server, write, &library, &document).await;
        let answer = ask(&server, write, &path, (&library, &document)).await;
        assert!((200..300).contains(&answer.status), "{id}: {}", answer.text());
        assert!(answer.seq() >= seq, "{id}: {} after {seq}", answer.seq());
    }
    assert!(writes >= 15, "{writes}");
}

/// What a library shows of itself at one time, wherever it is asked.
async fn shown(server: &Server, library: &str, query: &str) -> Vec<Value> {
    let path = format!("/v1/libraries/{library}");
    let listed = server.get(&format!("{path}/documents?{query}")).await.expect(200);
    let whole = server.get(&format!("{path}?{query}")).await.expect(200);
    let figures = server.get(&format!("{path}/statistics?{query}")).await.expect(200);
    let of_index = server.get(&format!("{path}/index/statistics?{query}")).await.expect(200);
    let exported = server.get(&format!("{path}/documents/stream?{query}")).await;
    assert_eq!(exported.status, 200);
    let mut lines = exported.lines();
    let end = lines.pop().expect("the last line");
    assert_eq!(end["status"], "complete");
    let wanted = json!({ "embedding": [1, 0, 0, 0], "k": 100 });
    let found = format!("{path}/search/embedding?{query}");
    let found = server.post(&found, &wanted).await.expect(200);
    vec![
        listed["documents"].clone(),
        listed["total"].clone(),
        whole["documents"].clone(),
        whole["num_documents"].clone(),
        figures["num_documents"].clone(),
        figures["num_chunks"].clone(),
        figures["vector_store_stats"]["digest"].clone(),
        of_index["total_vectors"].clone(),
        Value::Array(lines),
        end["total_documents"].clone(),
        found["results"].clone(),
    ]
}

#[tokio::test]
async fn the_past_is_read_on_every_route_and_over_restarts() {
    let site = Site::new().await;
    let mut server = site.start().await;
    let library = server.vector_library(4).await;
    let documents = format!("/v1/libraries/{library}/documents");
    let document = |n: usize, version: usize| {
        let vector = [1.0, n as f64, version as f64, 0.5];
        json!({
            "id": format!("00000000-0000-4000-8000-{n:012}"), "title": format!("{n}.{version}"),
            "chunks": [{ "text": format!("{n} in version {version}"), "embedding": vector }],
        })
    };
    let mut past = Vec::new();
    for step in 0..12 {
        let seq = if step % 4 == 3 {
            let id = format!("00000000-0000-4000-8000-{:012}", step % 3);
            server.delete(&format!("{documents}/{id}")).await.seq()
        } else {
            let new = document(step % 5, step);
            server.post(&format!("{documents}/with-embeddings"), &new).await.seq()
        };
        past.push((seq, shown(&server, &library, &format!("min_seq={seq}")).await));
    }
    for round in 0..3 {
        for (seq, then) in &past {
            assert_eq!(&shown(&server, &library, &format!("as_of={seq}")).await, then, "{round}");
        }
        // Killed, then ended in order, which writes everything to files.
        if round == 0 {
            server.kill();
        } else {
            server.terminate();
            server.ended().await;
        }
        server = site.start().await;
    }

    // A document that was deleted, by its id alone.
    let gone = "00000000-0000-4000-8000-000000000002";
    let before = past[10].0;
    server.get(&format!("/v1/documents/{gone}")).await.problem(404, "DocumentNotFoundError");
    let found = server.get(&format!("/v1/documents/{gone}?as_of={before}")).await;
    assert_eq!(found.seq(), before);
    let found = found.expect(200);
    let same = server.get(&format!("{documents}/{gone}?as_of={before}")).await.expect(200);
    assert_eq!(found, same);
    let first = past[0].0;
    let early = server.get(&format!("{documents}/{gone}?as_of={first}")).await;
    early.problem(404, "DocumentNotFoundError");
    check_bodies(&server, &library, (first, before)).await;

    // A purge ends the past, and says where it begins now.
    server.raw(Method::POST, "/v1/admin/purge", "").await.expect(200);
    for _restart in 0..2 {
        let refused = server.get(&format!("{documents}?as_of={before}")).await;
        let oldest = refused.problem(410, "HistoryGoneError")["oldest_seq"].as_u64();
        assert_eq!(oldest, Some(past[11].0));
        let last = &past[11];
        assert_eq!(shown(&server, &library, &format!("as_of={}", last.0)).await, last.1);
        server.kill();
        server = site.start().await;
    }
}

/// `as_of` in a body is that of the query string, and has to be the same if both are given.
async fn check_bodies(server: &Server, library: &str, (one, other): (u64, u64)) {
    let find = async |query: String, as_of: Value| {
        let body = json!({ "embedding": [1, 0, 0, 0], "k": 100, "as_of": as_of });
        let path = format!("/v1/libraries/{library}/search/embedding{query}");
        server.post(&path, &body).await
    };
    let in_query = find(format!("?as_of={one}"), Value::Null).await;
    let in_body = find(String::new(), json!(one)).await;
    let in_both = find(format!("?as_of={one}"), json!(one)).await;
    for answer in [&in_query, &in_body, &in_both] {
        assert_eq!(answer.seq(), one);
        assert_eq!(answer.expect(200)["results"], in_query.json()["results"]);
        assert_eq!(answer.json()["total_results"], 1);
    }
    let path = format!("/v1/libraries/{library}/search/embedding");
    for read in ["search/embedding", "facets", "documents/query", "documents/count"] {
        let body = json!({ "embedding": [1, 0, 0, 0], "fields": ["tags"], "min_seq": FAR });
        let path = format!("/v1/libraries/{library}/{read}");
        server.post(&path, &body).await.problem(409, "SeqNotReachedError");
    }
    let body = json!({ "embedding": [1, 0, 0, 0], "min_seq": other });
    assert!(server.post(&path, &body).await.seq() >= other);
    let differ = find(format!("?as_of={one}"), json!(other)).await;
    differ.problem(422, "ValidationError");
    assert_eq!(differ.pointers(), ["/as_of"]);
    for wrong in [json!(-1), json!("x"), json!(1.5), json!([])] {
        let refused = find(String::new(), wrong).await;
        refused.problem(422, "ValidationError");
        assert_eq!(refused.pointers(), ["/as_of"]);
    }
}

#[tokio::test]
async fn a_streamed_search_goes_by_its_body_where_the_query_string_says_otherwise() {
    let site = Site::new().await;
    let server = site.start().await;
    let (library, _document, first) = filled(&server).await;
    let second = json!({ "title": "second", "texts": ["some words"] });
    let later = server.post(&format!("/v1/libraries/{library}/documents"), &second).await.seq();
    let find = async |in_query: u64, in_body: u64| {
        let path = format!("/v1/libraries/{library}/search/stream?query=other&as_of={in_query}");
        let body = json!({ "query": "words", "as_of": in_body }).to_string();
        let answer = server.raw(Method::POST, &path, body).await;
        (answer.seq(), answer.expect(200)["total"].as_u64().expect("a number"))
    };
    assert_eq!(find(later, first).await, (first, 1));
    assert_eq!(find(first, later).await, (later, 2));
}
