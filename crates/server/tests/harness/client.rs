//! A small HTTP client whose answers say where they came from when they surprise.

use std::time::Duration;

use arrwdb_engine::embed::http::{HttpOptions, ProxyUse, http_client};
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

/// A client of one server; cloning shares its connections.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    /// The server's URL without a trailing slash.
    pub(crate) url: String,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: u16,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) body: Vec<u8>,
    /// Path of the URL that answered, after redirects.
    pub(crate) path: String,
    request: String,
}

impl Client {
    /// A client of the server at `url`.
    pub(crate) fn new(url: &str) -> Client {
        let options = HttpOptions {
            read_timeout: Duration::from_mins(2),
            proxy: ProxyUse::Never,
            ..HttpOptions::default()
        };
        Client { http: http_client(&options).expect("client"), url: url.to_owned() }
    }

    /// A request to build on.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    /// Sends a request; nothing when no answer comes.
    pub(crate) async fn try_send(&self, request: RequestBuilder) -> Option<Answer> {
        let request = request.build().expect("request");
        let described = format!("{} {}", request.method(), request.url());
        let response = self.http.execute(request).await.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let path = response.url().path().to_owned();
        let body = response.bytes().await.ok()?.to_vec();
        Some(Answer { status, headers, body, path, request: described })
    }

    /// Sends a request.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        self.try_send(request).await.expect("an answer")
    }

    /// GET, if anybody answers.
    pub(crate) async fn try_get(&self, path: &str) -> Option<Answer> {
        self.try_send(self.request(Method::GET, path)).await
    }

    /// GET.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// POST with a JSON body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// A search by vector.
    pub(crate) async fn find(&self, library: &str, body: &Value) -> Answer {
        self.post(&format!("/v1/libraries/{library}/search/embedding"), body).await
    }

    /// DELETE without a body.
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Any method with a body as it stands.
    pub(crate) async fn raw(
        &self,
        method: Method,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let request = self.request(method, path).header("Content-Type", "application/json");
        self.send(request.body(body)).await
    }

    /// A new library whose vectors come from the server's embedder; its id.
    pub(crate) async fn library(&self) -> String {
        self.library_with(&json!({ "name": "test" })).await
    }

    /// A new library for vectors of `dimension` numbers that callers supply; its id.
    pub(crate) async fn vector_library(&self, dimension: usize) -> String {
        self.library_with(&json!({ "name": "vectors", "embedding_dimension": dimension })).await
    }

    /// A new library; its id.
    pub(crate) async fn library_with(&self, body: &Value) -> String {
        let answer = self.post("/v1/libraries", body).await;
        answer.expect(201)["id"].as_str().expect("id").to_owned()
    }

    /// Submits a job; its id.
    pub(crate) async fn submit(&self, kind: &str, body: &Value) -> String {
        let answer = self.post(&format!("/v1/jobs/{kind}"), body).await.expect(200);
        answer["job_id"].as_str().expect("job_id").to_owned()
    }

    /// Submits an import of these lines; its id.
    pub(crate) async fn submit_lines(&self, query: &str, lines: &str) -> String {
        let request = self.request(Method::POST, &format!("/v1/jobs/batch-import?{query}"));
        let request = request.header("Content-Type", "application/x-ndjson");
        let answer = self.send(request.body(lines.to_owned())).await.expect(200);
        answer["job_id"].as_str().expect("job_id").to_owned()
    }

    /// A job as it is.
    pub(crate) async fn job(&self, id: &str) -> Value {
        self.get(&format!("/v1/jobs/{id}")).await.expect(200)
    }

    /// A job, once it is over.
    pub(crate) async fn job_over(&self, id: &str) -> Value {
        let job = self.get(&format!("/v1/jobs/{id}?wait_seconds=60")).await.expect(200);
        let status = job["status"].as_str().expect("status");
        assert!(["completed", "failed", "cancelled"].contains(&status), "it is over: {job}");
        job
    }

    /// Every event of these types.
    pub(crate) async fn events(&self, types: &str) -> Vec<Value> {
        let (mut events, mut after) = (Vec::new(), "0".to_owned());
        loop {
            let path = format!("/v1/events?after={after}&limit=1000&event_types={types}");
            let page = self.get(&path).await.expect(200);
            let found = page["events"].as_array().expect("events");
            if found.is_empty() {
                return events;
            }
            events.extend(found.iter().cloned());
            page["next"].as_str().expect("next").clone_into(&mut after);
        }
    }

    /// Adds a document with vectors; the answer's JSON.
    pub(crate) async fn add_vectors(
        &self,
        library: &str,
        title: &str,
        vectors: &[Vec<f32>],
    ) -> Value {
        let chunk = |(at, vector): (usize, &Vec<f32>)| json!({ "text": format!("{title} {at}"), "embedding": vector });
        let chunks: Vec<Value> = vectors.iter().enumerate().map(chunk).collect();
        let path = format!("/v1/libraries/{library}/documents/with-embeddings");
        self.post(&path, &json!({ "title": title, "chunks": chunks })).await.expect(201)
    }
}

impl Answer {
    /// An answer that came otherwise.
    pub(crate) fn new(status: u16, headers: HeaderMap, body: Vec<u8>, request: &str) -> Answer {
        Answer { status, headers, body, path: String::new(), request: request.to_owned() }
    }

    /// Checks the status of an answer that is not JSON.
    #[track_caller]
    pub(crate) fn expect_status(&self, status: u16) {
        assert_eq!(self.status, status, "{}: {}", self.request, self.text());
    }

    /// The body as JSON, after checking the status.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}: {}", self.request, self.text());
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("{}: {error}: {}", self.request, self.text()),
        }
    }

    /// The body's lines as JSON.
    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<Value> {
        let text = self.text();
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The sequence number of a write.
    #[track_caller]
    pub(crate) fn seq(&self) -> u64 {
        self.header("x-arrwdb-seq").expect("X-Arrwdb-Seq").parse().expect("a number")
    }

    /// Checks that the answer is a problem document with the keys of old and new clients, and
    /// returns it.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, error_type: &str) -> Value {
        let body = self.expect(status);
        let kind = self.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/problem+json"), "{}: {kind}", self.request);
        for key in ["type", "title", "detail", "error", "error_type", "request_id"] {
            assert!(body[key].is_string(), "{}: {key} in {body}", self.request);
        }
        assert_eq!(body["status"], status, "{}: {body}", self.request);
        assert_eq!(body["error_type"], error_type, "{}: {body}", self.request);
        assert_eq!(body["request_id"].as_str(), self.header("x-request-id"), "{}", self.request);
        for fault in body["errors"].as_array().expect("errors") {
            assert!(fault["pointer"].is_string() && fault["detail"].is_string(), "{body}");
        }
        body
    }

    /// The JSON Pointers of a problem's faults.
    #[track_caller]
    pub(crate) fn pointers(&self) -> Vec<String> {
        let body = self.json();
        let faults = body["errors"].as_array().expect("errors").iter();
        faults.map(|fault| fault["pointer"].as_str().expect("pointer").to_owned()).collect()
    }
}
