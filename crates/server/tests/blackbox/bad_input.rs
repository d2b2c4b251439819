//! Bad input of every kind to every operation of the OpenAPI document: what is new there is tested
//! here without being named. No answer is a 5xx, none is missing, what is wrong is named, and
//! nothing that was there before is lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, DEADLINE, Server, Site, raw};

const NONE: &str = "00000000-0000-4000-8000-000000000000";
const DIMENSION: usize = 3;
/// Stands in a body for text that no JSON value can be.
const PLACE: &str = "@place@";
const DEEP: usize = 100_000;
/// Cases under way at the same time.
const AT_ONCE: usize = 16;

/// One operation of the document.
struct Operation {
    method: Method,
    path: String,
    /// (name, schema) of its parameters.
    path_params: Vec<String>,
    query_params: Vec<(String, Value)>,
    body: Option<Body>,
}

struct Body {
    example: Value,
    schema: Value,
    is_required: bool,
    is_lines: bool,
}

/// What has to come of a case.
#[derive(Debug)]
enum Expected {
    /// Refused, and this field is named.
    Field(String),
    /// Refused.
    Refused,
    /// With this status.
    Status(u16),
    /// Anything but a failure of the server.
    Anything,
}

struct Case {
    name: String,
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    is_lines: bool,
    expected: Expected,
}

/// The document with its references followed.
struct Document(Value);

impl Document {
    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        if let Some(reference) = schema["$ref"].as_str() {
            let pointer = reference.strip_prefix('#').expect("within the document");
            return self
                .resolve(self.0.pointer(pointer).expect("a reference that leads somewhere"));
        }
        let some = schema["oneOf"].as_array();
        let some = some.and_then(|all| all.iter().find(|one| one["type"] != "null"));
        some.map_or(schema, |one| self.resolve(one))
    }

    fn operations(&self) -> Vec<Operation> {
        let mut all = Vec::new();
        for (path, item) in self.0["paths"].as_object().expect("paths") {
            for (method, described) in item.as_object().expect("operations") {
                all.push(self.operation(method, path, described));
            }
        }
        all
    }

    fn operation(&self, method: &str, path: &str, described: &Value) -> Operation {
        let params = described["parameters"].as_array().cloned().unwrap_or_default();
        let of = |place: &str| -> Vec<(String, Value)> {
            let wanted = params.iter().filter(|param| param["in"] == place);
            let name = |param: &Value| param["name"].as_str().expect("a name").to_owned();
            wanted.map(|param| (name(param), param["schema"].clone())).collect()
        };
        let request = &described["requestBody"];
        let body = request["content"].as_object().map(|content| {
            let (media, content) = content.iter().next().expect("a media type");
            let schema = self.resolve(&content["schema"]).clone();
            let example = [&content["example"], &schema["example"]];
            let example = example.into_iter().find(|example| !example.is_null());
            Body {
                example: example.unwrap_or_else(|| panic!("an example: {method} {path}")).clone(),
                schema,
                is_required: request["required"] == true,
                is_lines: media.contains("ndjson"),
            }
        });
        Operation {
            method: method.to_uppercase().parse().expect("a method"),
            path: path.to_owned(),
            path_params: of("path").into_iter().map(|(name, _)| name).collect(),
            query_params: of("query"),
            body,
        }
    }
}

/// Whether a value of this JSON type is what the schema asks for.
fn has_type(schema: &Value, kind: &str) -> bool {
    let is = |name: &Value| name == kind || (name == "number" && kind == "integer");
    match &schema["type"] {
        Value::String(_) => is(&schema["type"]),
        Value::Array(names) => names.iter().any(is),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => true,
    }
}

/// Values that are wrong for a field with this schema, as text.
fn wrong_values(schema: &Value) -> Vec<String> {
    let typed = [
        ("boolean", "true"),
        ("integer", "7"),
        ("number", "1.5"),
        ("string", "\"text\""),
        ("array", "[]"),
        ("object", "{}"),
    ];
    let wrong = typed.iter().filter(|(kind, _)| !has_type(schema, kind));
    let mut values: Vec<String> = wrong.map(|(_, text)| (*text).to_owned()).collect();
    values.push("1e999".to_owned());
    values.push(r#""a\ud800""#.to_owned());
    values.push(format!("{}{}", "[".repeat(DEEP), "]".repeat(DEEP)));
    let bound = |name: &str| schema[name].as_f64();
    values.extend(bound("minimum").map(|least| format!("{}", least - 1.0)));
    values.extend(bound("maximum").map(|most| format!("{}", most + 1.0)));
    let count = |name: &str| schema[name].as_u64().and_then(|n| usize::try_from(n).ok());
    let text = |length: usize| format!("\"{}\"", "x".repeat(length));
    values.extend(count("minLength").filter(|n| *n > 0).map(|least| text(least - 1)));
    values.extend(count("maxLength").map(|most| text(most + 1)));
    values.extend(count("minItems").filter(|n| *n > 0).map(|_| "[]".to_owned()));
    match schema["format"].as_str() {
        Some("uuid") => values.push("\"00000000-0000-4000-8000-00000000000g\"".to_owned()),
        Some("date-time") => values.push("\"2026-13-01T00:00:00Z\"".to_owned()),
        _ => {}
    }
    values
}

/// A copy of `whole` with the field at `pointer` put in the place of what is there.
fn with_place(whole: &Value, pointer: &str) -> Value {
    let mut whole = whole.clone();
    if pointer.is_empty() {
        return json!(PLACE);
    }
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    match holder(&mut whole, parent) {
        Value::Object(fields) => {
            fields.insert(name.to_owned(), json!(PLACE));
        }
        Value::Array(items) => items[name.parse::<usize>().expect("an index")] = json!(PLACE),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
            panic!("{other} holds nothing")
        }
    }
    whole
}

/// What is at `pointer`; an object is put there where there is nothing.
fn holder<'a>(whole: &'a mut Value, pointer: &str) -> &'a mut Value {
    if whole.pointer(pointer).is_none() {
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        let fields = holder(whole, parent).as_object_mut().expect("what holds the field");
        fields.insert(name.to_owned(), json!({}));
    }
    whole.pointer_mut(pointer).expect("what was there, or is now")
}

fn written(whole: &Value, place: &str) -> String {
    whole.to_string().replace(&format!("\"{PLACE}\""), place)
}

/// Bodies with one field that is wrong: (text, pointer).
fn wrong_fields(document: &Document, body: &Body) -> Vec<(String, Expected)> {
    let mut cases = Vec::new();
    let mut open = vec![(String::new(), body.schema.clone())];
    while let Some((pointer, schema)) = open.pop() {
        let here = body.example.pointer(&pointer);
        let place = with_place(&body.example, &pointer);
        for value in wrong_values(&schema) {
            cases.push((written(&place, &value), Expected::Field(pointer.clone())));
        }
        if pointer.ends_with("/metadata") {
            // Kept as it is, so every value in it has to be one that can be kept.
            let deep = format!("{{\"a\":{}{}}}", "[".repeat(DEEP), "]".repeat(DEEP));
            let forty = format!("{{\"a\":{}{}}}", "[".repeat(40), "]".repeat(40));
            for value in [deep, forty, r#"{"a":1e999}"#.to_owned(), r#"{"a":"\ud800"}"#.to_owned()]
            {
                cases.push((written(&place, &value), Expected::Field(pointer.clone())));
            }
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().expect("a name");
            let field = format!("{pointer}/{name}");
            let null = written(&with_place(&body.example, &field), "null");
            let expected = if body.is_lines { Expected::Anything } else { Expected::Field(field) };
            cases.push((null, expected));
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            open.push((format!("{pointer}/{name}"), document.resolve(field).clone()));
        }
        if let Some(Value::Array(items)) = here
            && !items.is_empty()
        {
            open.push((format!("{pointer}/0"), document.resolve(&schema["items"]).clone()));
        }
        if let Some(Value::Object(fields)) = here {
            for (name, value) in fields {
                // The same key twice, at the front of its object.
                let mut twice = fields.clone();
                twice.remove(name);
                let rest = Value::Object(twice).to_string();
                let rest = rest.strip_prefix('{').expect("an object");
                let comma = if rest == "}" { "" } else { "," };
                let twice = format!("{{\"{name}\":{value},\"{name}\":{value}{comma}{rest}");
                let field = format!("{pointer}/{name}");
                if !schema["properties"][name].is_null() {
                    cases.push((written(&place, &twice), Expected::Field(field)));
                }
            }
        }
        if pointer.ends_with("/embedding") {
            for value in wrong_vectors() {
                cases.push((written(&place, &value), Expected::Field(pointer.clone())));
            }
        }
    }
    cases
}

/// Arrays that are no vector of a library of three dimensions.
fn wrong_vectors() -> Vec<String> {
    let numbers = |count: usize| format!("[{}]", vec!["0.5"; count].join(","));
    let mut all: Vec<String> = [
        "[NaN,0,1]",
        "[0,Infinity,1]",
        "[0,-Infinity,1]",
        "[1e999,0,1]",
        "[0,1e39,1]",
        "[3e38,3e38,3e38]",
        "[0,0,0]",
        "[1e-45,0,0]",
        "[-0.0,0,0]",
        "[1,0,null]",
        "[1,0,\"2\"]",
        "[1,0,[2]]",
        "[]",
    ]
    .map(str::to_owned)
    .to_vec();
    all.extend([2, DIMENSION + 1, 4096, 4097].map(numbers));
    all
}

/// Bodies that are wrong as a whole.
fn wrong_bodies(body: &Body) -> Vec<(Vec<u8>, Expected)> {
    let mut cases: Vec<(Vec<u8>, Expected)> = Vec::new();
    let refused = [
        b"7".to_vec(),
        b"\"x\"".to_vec(),
        b"[]".to_vec(),
        b"{".to_vec(),
        b"{}}".to_vec(),
        b"{\"a\":}".to_vec(),
        b"{\"a\":1,}".to_vec(),
        b"{'a':1}".to_vec(),
        b"NaN".to_vec(),
        b"{\"a\":NaN}".to_vec(),
        b"{\"\\ud800\":1}".to_vec(),
        b"\xff\xfe{\x00}\x00".to_vec(),
        b"{\"a\":\"\xff\"}".to_vec(),
        b"{\"a\":\"\xed\xa0\x80\"}".to_vec(),
        b"\x00".to_vec(),
        "[".repeat(DEEP).into_bytes(),
        "{\"a\":".repeat(DEEP).into_bytes(),
        format!("{}{}", "[".repeat(DEEP), "]".repeat(DEEP)).into_bytes(),
        format!("{}1{}", "{\"a\":".repeat(DEEP), "}".repeat(DEEP)).into_bytes(),
    ];
    let deep_object = refused.len() - 1;
    for (at, text) in refused.into_iter().enumerate() {
        // Unknown keys are ignored, however deep, where nothing is required.
        let lenient = at == deep_object && body.schema["required"].is_null();
        cases.push((text, if lenient { Expected::Anything } else { Expected::Refused }));
    }
    for text in ["", " ", "null", "{}"] {
        cases.push((text.as_bytes().to_vec(), Expected::Anything));
    }
    cases
}

/// Where the cases go: what stands for a path's parameters.
struct Target {
    libraries: BTreeMap<&'static str, String>,
    document: String,
    /// A vector, and the document that has it.
    vector: (String, String),
    query: String,
    job: String,
    schedule: String,
    webhook: String,
}

/// The library of examples.
const EXAMPLE: &str = "0191f4a2-7c3e-7abc-8def-0123456789ab";

impl Target {
    fn path(&self, operation: &Operation, library: &str) -> String {
        self.fill(&operation.path, library).replace("{slug}", "not-found")
    }

    /// A path with what is there in the places that are left.
    fn fill(&self, path: &str, library: &str) -> String {
        let path = path.replace("{library_id}", &self.libraries[library]);
        // Documents that are replaced by an example have other vectors then.
        let (of_vector, vector) = &self.vector;
        let document = if path.contains("{vector_id}") { of_vector } else { &self.document };
        let path = path.replace("{document_id}", document).replace("{vector_id}", vector);
        let path = path.replace("{name}", "custom");
        let path = path.replace("{query_id}", &self.query).replace("{job_id}", &self.job);
        let path = path.replace("{schedule_id}", &self.schedule);
        path.replace("{webhook_id}", &self.webhook).replace("{letter_id}", NONE)
    }

    /// A body of a library that is there.
    fn body(&self, body: &str, library: &str) -> String {
        body.replace(EXAMPLE, &self.libraries[library])
    }
}

fn body_cases(document: &Document, operation: &Operation, target: &Target) -> Vec<Case> {
    let Some(body) = &operation.body else { return Vec::new() };
    let path = target.path(operation, "vectors");
    let case = |name: &str, body_text: Vec<u8>, expected| Case {
        name: name.to_owned(),
        method: operation.method.clone(),
        path: path.clone(),
        headers: vec![("content-type", "application/json".to_owned())],
        body: body_text,
        is_lines: body.is_lines,
        expected,
    };
    let mut cases = Vec::new();
    for (text, expected) in wrong_fields(document, body) {
        cases.push(case("field", target.body(&text, "vectors").into_bytes(), expected));
    }
    for (text, expected) in wrong_bodies(body) {
        cases.push(case("body", text, expected));
    }
    let example = target.body(&body.example.to_string(), "vectors").into_bytes();
    if !body.is_lines {
        for kind in ["text/plain", "multipart/form-data; boundary=x", "application/xml", "\u{e9}"] {
            let mut case = case("media type", example.clone(), Expected::Status(415));
            case.headers = vec![("content-type", kind.to_owned())];
            cases.push(case);
        }
        let large = format!("{{\"x\":\"{}\"}}", "x".repeat(70_000));
        cases.push(case("too large", large.into_bytes(), Expected::Status(413)));
    }
    let mut packed = case("compressed", example, Expected::Status(415));
    packed.headers.push(("content-encoding", "gzip".to_owned()));
    cases.push(packed);
    cases
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn url_cases(operation: &Operation, target: &Target) -> Vec<Case> {
    let example = operation.body.as_ref();
    let example = example.map(|body| target.body(&body.example.to_string(), "vectors"));
    let path = target.path(operation, "vectors");
    let case = |name: &str, path: String, expected| Case {
        name: name.to_owned(),
        method: operation.method.clone(),
        path,
        headers: vec![("content-type", "application/json".to_owned())],
        body: example.clone().unwrap_or_default().into_bytes(),
        is_lines: false,
        expected,
    };
    let deletes = operation.method == Method::DELETE;
    let mut cases = Vec::new();
    if !deletes && operation.body.is_none() {
        cases.push(case("unknown parameter", format!("{path}?%ff=%fe"), Expected::Anything));
        // A stream of events of a library that is there has no end.
        let nobody = if operation.path.ends_with("/events/stream") { NONE } else { "" };
        cases.push(case(
            "long query",
            format!("{path}?library_id={nobody}&x={}", "y".repeat(20_000)),
            Expected::Anything,
        ));
    }
    for (name, schema) in &operation.query_params {
        let field = || Expected::Field(format!("/query/{name}"));
        let mut values = vec!["%ff", "%c3%28"];
        if !has_type(schema, "string") {
            values.extend(["x", "1e999", "NaN", "%00", "-1", "1.5.", "18446744073709551616"]);
        }
        for value in values {
            cases.push(case("parameter", format!("{path}?{name}={value}"), field()));
        }
    }
    let long = "a".repeat(10_000);
    for name in &operation.path_params {
        for value in [
            "x",
            "%00",
            "%ff",
            "%2e%2e",
            "..%2f..%2fetc%2fpasswd",
            "{x}",
            "%",
            "%zz",
            &long,
            "00000000-0000-4000-8000-00000000000g",
            NONE,
        ] {
            let path = operation.path.replace(&format!("{{{name}}}"), value);
            let path = target.fill(&path, "vectors");
            // Any text may be asked for: there is no such job.
            let is_text =
                ["slug", "job_id", "schedule_id", "webhook_id", "letter_id"].contains(&&**name);
            let expected = match value {
                NONE if name != "slug" && operation.method != Method::PUT => Expected::Status(404),
                NONE => Expected::Anything,
                // A good name of something new.
                "x" if name == "name" => Expected::Anything,
                "%zz" | "%" | "x" | "{x}" if !is_text => Expected::Field(format!("/path/{name}")),
                _ => Expected::Refused,
            };
            cases.push(case("path", path, expected));
        }
        let up = operation.path.replace(&format!("{{{name}}}"), "../..");
        cases.push(case("path", up, Expected::Refused));
    }
    cases
}

/// Whether the answer says that `pointer`, something in it or something around it is at fault.
fn names(answer: &str, pointers: &[String], pointer: &str) -> bool {
    let related = |found: &str| found.starts_with(pointer) || pointer.starts_with(found);
    pointers.iter().any(|found| related(found)) || answer.contains(pointer)
}

fn check(case: &Case, answer: &Answer) -> Result<(), String> {
    let text = answer.text();
    let short: String = text.chars().take(600).collect();
    let failed = |what: &str| Err(format!("{what}: {} {short}", answer.status));
    if answer.status >= 500 {
        return failed("a failure of the server");
    }
    // A batch or an import answers for each of its documents.
    let parts: Value = serde_json::from_str(&text).unwrap_or_default();
    if answer.status < 400 {
        let failures = parts["failed"].as_u64().unwrap_or(0);
        let as_expected = match &case.expected {
            Expected::Anything => true,
            Expected::Status(status) => *status == answer.status,
            Expected::Field(_) | Expected::Refused => failures > 0,
        };
        return if as_expected { Ok(()) } else { failed(&format!("not {:?}", case.expected)) };
    }
    let kind = answer.header("content-type").unwrap_or_default();
    if !kind.starts_with("application/problem+json") {
        return failed("not a problem");
    }
    let keys = ["type", "title", "detail", "error", "error_type", "request_id"];
    if !keys.iter().all(|key| parts[key].is_string()) || parts["status"] != answer.status {
        return failed("not a whole problem");
    }
    let pointers = answer.pointers();
    // What is not even JSON has a place in the text instead of a field.
    let is_named = |pointer: &str| parts["offset"].is_number() || names(&text, &pointers, pointer);
    match &case.expected {
        Expected::Status(status) if *status != answer.status => failed(&format!("not {status}")),
        Expected::Field(pointer) if !is_named(pointer) => {
            failed(&format!("{pointer} is not named"))
        }
        Expected::Status(_) | Expected::Field(_) | Expected::Refused | Expected::Anything => Ok(()),
    }
}

async fn fixture(server: &Server) -> Target {
    let vectors = server.vector_library(DIMENSION).await;
    let document = server.add_vectors(&vectors, "kept", &[vec![1.0, 0.0, 0.0]]).await;
    let document = document["id"].as_str().expect("id").to_owned();
    let of_vector = server.add_vectors(&vectors, "of a vector", &[vec![0.0, 1.0, 0.0]]).await;
    let id = |value: &Value| value["id"].as_str().expect("id").to_owned();
    let vector = (id(&of_vector), id(&of_vector["chunks"][0]));
    let texts = server.library().await;
    let query = json!({ "name": "kept", "embedding": [1.0, 0.0, 0.0], "distance_threshold": 0.1 });
    let query = server.post(&format!("/v1/libraries/{vectors}/standing-queries"), &query).await;
    let query = query.expect(201)["id"].as_str().expect("id").to_owned();
    let job = json!({ "library_id": vectors, "run_at": "2100-01-01T00:00:00Z" });
    let job = server.post("/v1/jobs/index-optimize", &job).await.expect(200);
    let job = job["job_id"].as_str().expect("id").to_owned();
    let schedule = json!({
        "name": "kept", "cron": "0 3 1 1 *", "job_type": "index_optimize", "library_id": vectors,
    });
    let schedule = server.post("/v1/jobs/schedules", &schedule).await;
    let schedule = schedule.expect(201)["id"].as_str().expect("id").to_owned();
    let webhook = json!({ "url": "http://127.0.0.1:9/hook", "events": ["job.failed"] });
    let webhook = server.post("/v1/webhooks", &webhook).await;
    let webhook = webhook.expect(201)["id"].as_str().expect("id").to_owned();
    let libraries = BTreeMap::from([("vectors", vectors), ("texts", texts)]);
    Target { libraries, document, vector, query, job, schedule, webhook }
}

/// A library that no case touches, and what is in it.
async fn canary(server: &Server) -> (String, String) {
    let library = server.vector_library(2).await;
    for n in 0..20 {
        server.add_vectors(&library, &format!("canary {n}"), &[vec![1.0, 0.5]]).await;
    }
    let path = format!("/v1/libraries/{library}/documents?include_embeddings=true");
    let before = server.get(&path).await.text();
    (path, before)
}

async fn document(server: &Server) -> Document {
    Document(server.get("/openapi.json").await.expect(200))
}

#[tokio::test]
async fn every_example_of_the_document_works() {
    let mut site = Site::new().await;
    site.set("WEBHOOK_ALLOW_PRIVATE", "true");
    let backups = tempfile::tempdir().expect("a folder");
    site.set("BACKUP_TARGET", backups.path().to_str().expect("a path"));
    let server = site.start().await;
    let target = fixture(&server).await;
    for operation in document(&server).await.operations() {
        let Some(body) = &operation.body else { continue };
        let mut seen = Vec::new();
        for library in target.libraries.keys() {
            let path = target.path(&operation, library);
            let example = target.body(&body.example.to_string(), library);
            let answer = server.raw(operation.method.clone(), &path, example).await;
            let failures = answer.status < 300
                && answer.json()["failed"].as_u64().unwrap_or(0) > 0
                && operation.method != Method::DELETE;
            seen.push((answer.status, failures, answer.text()));
        }
        let works = seen.iter().any(|(status, failures, _)| *status < 300 && !failures);
        assert!(works, "{} {}: {seen:?}", operation.method, operation.path);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bad_input_is_refused_and_named_by_every_operation() {
    let mut site = Site::new().await;
    site.set("WEBHOOK_ALLOW_PRIVATE", "true");
    site.set("MAX_REQUEST_SIZE", "65536");
    let server = site.start().await;
    let (kept, before) = canary(&server).await;
    let document = document(&server).await;
    let mut problems = Vec::new();
    let mut total = 0;
    for operation in document.operations() {
        // Each has libraries of its own: some delete what they are given.
        let target = fixture(&server).await;
        let mut cases = url_cases(&operation, &target);
        cases.extend(body_cases(&document, &operation, &target));
        total += cases.len();
        let has_input = operation.body.is_some() || !operation.path_params.is_empty();
        assert!(!has_input || cases.len() > 10, "{} {}", operation.method, operation.path);
        // What is nested deeply is larger than the limit here: it has a test of its own.
        let cases = cases.into_iter().filter(|case| {
            case.body.len() <= 65_536
                || matches!(case.expected, Expected::Status(_))
                || case.is_lines
        });
        let checked = stream::iter(cases).map(|case| run(&server, case)).buffer_unordered(AT_ONCE);
        let found: Vec<Option<String>> = checked.collect().await;
        problems.extend(found.into_iter().flatten());
        assert!(server.exited().is_none(), "{} {} ended it", operation.method, operation.path);
    }
    let shown = problems.join("\n");
    assert!(problems.is_empty(), "{} of {total} cases:\n{shown}", problems.len());
    assert!(total > 1000, "{total}");
    assert_eq!(server.get(&kept).await.text(), before, "nothing is lost");
    server.get("/health").await.expect(200);
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

async fn run(server: &Server, case: Case) -> Option<String> {
    let answer = raw::send(server, &case.method, &case.path, &case.headers, &case.body);
    let outcome = match tokio::time::timeout(DEADLINE, answer).await {
        Err(_elapsed) => Err("it hangs".to_owned()),
        Ok(Err(error)) => Err(format!("no answer: {error}")),
        Ok(Ok(answer)) => check(&case, &answer),
    };
    let body: String = String::from_utf8_lossy(&case.body).chars().take(300).collect();
    let path: String = case.path.chars().take(150).collect();
    outcome.err().map(|why| format!("{} {path} [{}] {body}\n    {why}", case.method, case.name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nesting_of_any_depth_is_refused_by_every_operation() {
    let mut site = Site::new().await;
    site.set("WEBHOOK_ALLOW_PRIVATE", "true");
    let server = site.start().await;
    let (kept, before) = canary(&server).await;
    let document = document(&server).await;
    let mut problems = Vec::new();
    for operation in document.operations() {
        let target = fixture(&server).await;
        let cases = body_cases(&document, &operation, &target).into_iter();
        let deep = cases.filter(|case| case.body.len() > 2 * DEEP - 1_000);
        let checked = stream::iter(deep).map(|case| run(&server, case)).buffer_unordered(AT_ONCE);
        problems.extend(checked.collect::<Vec<_>>().await.into_iter().flatten());
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert_eq!(server.get(&kept).await.text(), before, "nothing is lost");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[tokio::test]
async fn a_body_that_stops_or_dribbles_ends_at_every_operation() {
    let mut site = Site::new().await;
    site.set("WEBHOOK_ALLOW_PRIVATE", "true");
    site.set("STREAM_IDLE_TIMEOUT_SECONDS", "1");
    let server = Arc::new(site.start().await);
    let target = fixture(&server).await;
    let mut running = Vec::new();
    for operation in document(&server).await.operations() {
        let Some(body) = operation.body else { continue };
        let may_be_empty =
            ["/search/stream", "/index/rebuild", "/jobs/purge", "/jobs/backup", "/rotate-secret"];
        let may_be_empty = may_be_empty.iter().any(|end| operation.path.ends_with(end));
        assert!(body.is_required || may_be_empty);
        let path = target.fill(&operation.path, "vectors");
        let (server, method) = (Arc::clone(&server), operation.method);
        running.push(tokio::spawn(async move {
            let head = raw::head(&server, &method, &path, &[("content-length", "1000".to_owned())]);
            let stopped = raw::exchange(&server, &head, b"{").await.expect("an answer");
            if body.is_lines {
                assert_eq!(stopped.status, 408, "{path}: {}", stopped.text());
            } else {
                stopped.problem(408, "RequestTimeoutError");
            }
        }));
    }
    assert!(running.len() > 8);
    for task in running {
        tokio::time::timeout(DEADLINE, task).await.expect("in time").expect("a task");
    }
    server.get("/health").await.expect(200);
}

#[tokio::test]
async fn a_flood_of_headers_is_431_and_the_server_goes_on() {
    let site = Site::new().await;
    let server = site.start().await;
    let many: Vec<(&str, String)> = (0..500).map(|n| ("x-flood", n.to_string())).collect();
    let long = vec![("x-flood", "x".repeat(1 << 20))];
    for headers in [many, long] {
        let answer = raw::send(&server, &Method::GET, "/v1/libraries", &headers, b"").await;
        // A client that is still sending may see the reset before the answer.
        if let Ok(answer) = answer {
            assert_eq!(answer.status, 431, "{}", answer.text());
        }
        server.get("/v1/libraries").await.expect(200);
    }
}

#[tokio::test]
async fn what_is_no_request_yet_is_answered_by_its_status_alone() {
    let site = Site::new().await;
    let server = site.start().await;
    let headers = "x-one-of-many: 1\r\n".repeat(101);
    for (status, head) in [
        (400, "no request\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\r\nhost x\r\n\r\n".to_owned()),
        (414, format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(65_535))),
        (431, format!("GET / HTTP/1.1\r\nhost: x\r\n{headers}\r\n")),
    ] {
        let answer = raw::exchange(&server, &head, b"").await.expect("an answer");
        assert_eq!((answer.status, answer.text()), (status, String::new()));
    }
    server.get("/health").await.expect(200);
}
