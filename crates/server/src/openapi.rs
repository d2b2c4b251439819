//! The OpenAPI document and the pages that show it. Both come from this binary alone.

use axum::Router;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::header;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::Type;
use utoipa::openapi::{
    ContentBuilder, Info, InfoBuilder, LicenseBuilder, Object, OpenApi, OpenApiBuilder, Ref, RefOr,
    Response as ApiResponse, ResponseBuilder,
};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use crate::app::App;
use crate::problem::{self, Kind, Problem};
use crate::routes;

/// What every error looks like.
#[derive(Debug, ToSchema)]
#[schema(as = Problem)]
#[expect(dead_code, reason = "describes the body that crate::problem writes")]
struct ProblemSchema {
    /// Which error; `GET` it for an explanation.
    #[schema(example = "/errors/library-not-found")]
    r#type: String,
    title: String,
    status: u16,
    /// What happened.
    detail: String,
    /// Same as `title`.
    error: String,
    error_type: String,
    /// As in the header `X-Request-ID`.
    request_id: String,
    /// Every field that breaks a rule.
    errors: Vec<FieldFault>,
}

/// One field that breaks a rule.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the body that crate::problem writes")]
struct FieldFault {
    /// JSON Pointer (RFC 6901) into the body; `/query/...`, `/path/...` for other parameters.
    #[schema(example = "/k")]
    pointer: String,
    #[schema(example = "must be from 1 to 100")]
    detail: String,
}

type Responses = std::collections::BTreeMap<String, RefOr<ApiResponse>>;

/// One response per status; kinds that share a status are named together.
fn responses(kinds: &[&'static Kind]) -> Responses {
    let mut by_status: std::collections::BTreeMap<u16, Vec<&'static Kind>> =
        std::collections::BTreeMap::default();
    for kind in kinds {
        by_status.entry(kind.status).or_default().push(kind);
    }
    by_status.into_iter().map(|(status, kinds)| (status.to_string(), response(&kinds))).collect()
}

fn response(kinds: &[&'static Kind]) -> RefOr<ApiResponse> {
    let about: Vec<String> =
        kinds.iter().map(|kind| format!("`{}`: {}", kind.slug, kind.about)).collect();
    let mut content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem")));
    if let Some(kind) = kinds.first() {
        content = content.example(Some(example(kind)));
    }
    let response = ResponseBuilder::new()
        .description(about.join("\n\n"))
        .content("application/problem+json", content.build());
    RefOr::T(response.build())
}

fn example(kind: &'static Kind) -> serde_json::Value {
    let problem = match kind.slug {
        "validation" => Problem::field("/k", "must be from 1 to 100"),
        "sequence-not-reached" => {
            Problem::new(kind, "sequence 9 is not applied yet; the library is at 7")
                .with("current_seq", 7)
        }
        "history-gone" => {
            let detail = "sequence 3 is before the history that is kept; the oldest that can be \
                          read is 7";
            Problem::new(kind, detail).with("oldest_seq", 7)
        }
        _ => Problem::new(kind, kind.about),
    };
    serde_json::from_slice(&problem.body("7d444840-9dc0-41d2-a8e2-5b1a1e3f0c4e"))
        .unwrap_or_default()
}

/// Errors of requests that only read.
#[derive(Debug)]
pub(crate) struct ReadErrors;

impl IntoResponses for ReadErrors {
    fn responses() -> Responses {
        responses(&[
            &problem::INVALID_REQUEST,
            &problem::INVALID_VECTOR,
            &problem::BUDGET_EXCEEDED,
            &problem::LIBRARY_NOT_FOUND,
            &problem::DOCUMENT_NOT_FOUND,
            &problem::STANDING_QUERY_NOT_FOUND,
            &problem::SEQ_NOT_REACHED,
            &problem::HISTORY_GONE,
            &problem::TOO_LARGE,
            &problem::BODY_ENCODING,
            &problem::MEDIA_TYPE,
            &problem::VALIDATION,
            &problem::MALFORMED_JSON,
            &problem::RATE_LIMITED,
            &problem::INTERNAL,
            &problem::STORAGE,
            &problem::DAMAGED,
            &problem::BUSY,
            &problem::TIMEOUT,
            &problem::SHUTTING_DOWN,
        ])
    }
}

/// Errors of requests for a part of a file.
#[derive(Debug)]
pub(crate) struct RangeErrors;

impl IntoResponses for RangeErrors {
    fn responses() -> Responses {
        let kind = &problem::RANGE_NOT_SATISFIABLE;
        let mut answer = response(&[kind]);
        if let RefOr::T(response) = &mut answer {
            let header = HeaderBuilder::new()
                .schema(Some(Object::with_type(Type::String)))
                .description(Some("How long the file is: `bytes */LENGTH`"));
            response.headers.insert("Content-Range".into(), RefOr::T(header.build()));
        }
        Responses::from_iter([(kind.status.to_string(), answer)])
    }
}

/// Errors of requests that follow the change feed.
#[derive(Debug)]
pub(crate) struct FollowErrors;

impl IntoResponses for FollowErrors {
    fn responses() -> Responses {
        responses(&[
            &problem::INVALID_REQUEST,
            &problem::LIBRARY_NOT_FOUND,
            &problem::SEQ_NOT_REACHED,
            &problem::EVENTS_GONE,
            &problem::VALIDATION,
            &problem::RATE_LIMITED,
            &problem::INTERNAL,
            &problem::STORAGE,
            &problem::DAMAGED,
            &problem::BUSY,
            &problem::SHUTTING_DOWN,
        ])
    }
}

/// Errors of requests for a WebSocket.
#[derive(Debug)]
pub(crate) struct SocketErrors;

impl IntoResponses for SocketErrors {
    fn responses() -> Responses {
        responses(&[
            &problem::INVALID_REQUEST,
            &problem::FORBIDDEN_ORIGIN,
            &problem::NOT_FOUND,
            &problem::LIBRARY_NOT_FOUND,
            &problem::VALIDATION,
            &problem::UPGRADE_REQUIRED,
            &problem::RATE_LIMITED,
            &problem::INTERNAL,
            &problem::SHUTTING_DOWN,
        ])
    }
}

/// Errors of requests that write.
#[derive(Debug)]
pub(crate) struct WriteErrors;

impl IntoResponses for WriteErrors {
    fn responses() -> Responses {
        responses(&[
            &problem::INVALID_REQUEST,
            &problem::INVALID_VECTOR,
            &problem::BUDGET_EXCEEDED,
            &problem::LIBRARY_NOT_FOUND,
            &problem::DOCUMENT_NOT_FOUND,
            &problem::BODY_TIMEOUT,
            &problem::AMBIGUOUS_DOCUMENT,
            &problem::LIBRARY_EXISTS,
            &problem::TOO_MANY_LIBRARIES,
            &problem::TOO_MANY_DOCUMENTS,
            &problem::STANDING_QUERY_NOT_FOUND,
            &problem::TOO_MANY_STANDING_QUERIES,
            &problem::TOO_LARGE,
            &problem::BODY_ENCODING,
            &problem::MEDIA_TYPE,
            &problem::VALIDATION,
            &problem::MALFORMED_JSON,
            &problem::RATE_LIMITED,
            &problem::INTERNAL,
            &problem::STORAGE,
            &problem::DAMAGED,
            &problem::EMBEDDING,
            &problem::BUSY,
            &problem::TIMEOUT,
            &problem::READ_ONLY,
            &problem::SHUTTING_DOWN,
            &problem::DISK_FULL,
        ])
    }
}

/// Errors of requests whose texts are embedded.
#[derive(Debug)]
pub(crate) struct EmbeddingErrors;

impl IntoResponses for EmbeddingErrors {
    fn responses() -> Responses {
        responses(&[
            &problem::EMBEDDING,
            &problem::BUSY,
            &problem::TIMEOUT,
            &problem::SHUTTING_DOWN,
        ])
    }
}

/// Errors of requests whose texts are embedded, and whose passages may be ranked by a model.
#[derive(Debug)]
pub(crate) struct RerankErrors;

impl IntoResponses for RerankErrors {
    fn responses() -> Responses {
        responses(&[
            &problem::BUDGET_EXCEEDED,
            &problem::EMBEDDING,
            &problem::RERANKING,
            &problem::BUSY,
            &problem::TIMEOUT,
            &problem::SHUTTING_DOWN,
        ])
    }
}

fn info() -> Info {
    InfoBuilder::new()
        .title("Vector Database API")
        .version(routes::API_VERSION)
        .description(Some(
            "arrwDB: text or vectors in, ranked passages out. A 2xx answer to a write means that \
             it is on disk and visible to the next read; `X-Arrwdb-Seq` names it, `min_seq` makes a \
             read wait for it, and `as_of` reads what was there after it, as far back as \
             `HISTORY_SECONDS` says. Every read answers with the number that it is true at.",
        ))
        .license(Some(
            LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build(),
        ))
        .build()
}

/// The whole document.
pub fn document() -> OpenApi {
    let mut base = OpenApiBuilder::new().info(info()).tags(Some(tags())).build();
    let components = base.components.get_or_insert_default();
    for (name, schema) in
        [("Problem", ProblemSchema::schema()), ("FieldFault", FieldFault::schema())]
    {
        components.schemas.insert(name.to_owned(), schema);
    }
    let described = utoipa_axum::router::OpenApiRouter::with_openapi(base);
    let mut document = described.merge(routes::described()).into_openapi();
    for item in document.paths.paths.iter_mut().filter(|(path, _item)| path.starts_with("/v1/")) {
        describe_seq(item.1);
    }
    document
}

/// Describes the header of writes, and of reads of a library's state.
fn describe_seq(item: &mut PathItem) {
    let asks = |operation: &&mut Operation| {
        let mut parameters = operation.parameters.iter().flatten();
        parameters.any(|it| matches!(it, RefOr::T(parameter) if parameter.name == "min_seq"))
    };
    let reads = item.get.as_mut().filter(asks);
    let writes = [&mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
    for operation in writes.into_iter().flatten().chain(reads) {
        for (status, response) in &mut operation.responses.responses {
            if let RefOr::T(response) = response
                && status.starts_with('2')
            {
                let about = "The write, or the state that was read: no write up to it is missing";
                let header = HeaderBuilder::new()
                    .schema(Some(Object::with_type(Type::Integer)))
                    .description(Some(about));
                response.headers.insert("X-Arrwdb-Seq".into(), RefOr::T(header.build()));
            }
        }
    }
}

/// The groups of operations in the order in which a newcomer needs them.
fn tags() -> Vec<utoipa::openapi::Tag> {
    let about = [
        ("libraries", "Collections of documents that are searched together."),
        ("vector fields", "What documents have besides the vectors of their passages."),
        ("documents", "Texts, or vectors with their texts, in and out."),
        ("search", "The nearest passages."),
        ("standing queries", "Queries that every new passage is matched against."),
        ("index", "What a library is searched by."),
        ("events", "Every change, as it happens and from the past."),
        ("websocket", "One connection for requests, events and live queries."),
        ("admin", "Operations on the whole server."),
        ("health", "Whether the server works, and its figures."),
        ("root", "What this server is, and what its errors mean."),
    ];
    let tag = |(name, about)| {
        utoipa::openapi::tag::TagBuilder::new().name(name).description(Some(about)).build()
    };
    about.map(tag).into()
}

/// Whether a path of the document is this one, whatever its parameters are.
pub(crate) fn has_path(path: &str) -> bool {
    static PATHS: std::sync::LazyLock<Vec<String>> =
        std::sync::LazyLock::new(|| document().paths.paths.into_keys().collect());
    PATHS.iter().any(|template| {
        let (mut wanted, mut given) = (template.split('/'), path.split('/'));
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return true,
                (Some(wanted), Some(given)) if wanted.starts_with('{') && !given.is_empty() => {}
                (Some(wanted), Some(given)) if wanted == given => {}
                _ => return false,
            }
        }
    })
}

/// The document as the committed golden has it.
pub fn document_text() -> String {
    let mut text = document().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// `/openapi.json`, `/docs` and `/redoc`.
pub(crate) fn pages() -> Router<App> {
    // Without "none" the page asks a validator on the internet.
    let pages = utoipa_swagger_ui::Config::from("/openapi.json")
        .try_it_out_enabled(true)
        .validator_url("none");
    let text: bytes::Bytes = document_text().into();
    Router::new()
        .route(
            "/openapi.json",
            get(move || async move {
                ([(header::CONTENT_TYPE, "application/json")], text).into_response()
            }),
        )
        .route("/docs", get(|| async { Redirect::permanent("/docs/") }))
        .route("/redoc", get(|| async { Redirect::temporary("/docs/") }))
        .route(
            "/docs/",
            get({
                let pages = pages.clone();
                move || async move { page("", pages) }
            }),
        )
        .route(
            "/docs/{*file}",
            get(move |file: Result<Path<String>, PathRejection>| async move {
                // What is not even text is no file.
                page(&file.map_or_else(|_bad| "?".to_owned(), |path| path.0), pages)
            }),
        )
}

/// One file of the interactive page, which is part of this binary.
fn page(path: &str, config: utoipa_swagger_ui::Config<'static>) -> Response {
    let path = if path.is_empty() { "index.html" } else { path };
    match utoipa_swagger_ui::serve(path, std::sync::Arc::new(config)) {
        Ok(Some(file)) => {
            ([(header::CONTENT_TYPE, file.content_type)], file.bytes.into_owned()).into_response()
        }
        Ok(None) => Problem::new(&problem::NOT_FOUND, "there is no such page").into_response(),
        Err(error) => Problem::hidden(&problem::INTERNAL, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");

    #[test]
    fn v3_the_document_is_the_committed_one() {
        let text = document_text();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(GOLDEN, &text).unwrap();
        }
        let golden = std::fs::read_to_string(GOLDEN).unwrap();
        assert!(golden == text, "openapi.json differs; UPDATE=1 rewrites it");
    }

    #[test]
    fn every_operation_has_an_id_a_summary_and_a_tag() {
        let value: serde_json::Value = serde_json::from_str(&document_text()).unwrap();
        assert_eq!(value["openapi"], "3.1.0");
        assert_eq!(value["info"]["title"], "Vector Database API");
        let mut ids = std::collections::BTreeSet::new();
        for (path, item) in value["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let id = operation["operationId"].as_str().unwrap();
                assert!(ids.insert(id.to_owned()), "{method} {path}: {id} twice");
                assert!(operation["summary"].is_string(), "{method} {path}");
                assert!(operation["tags"].is_array(), "{method} {path}");
            }
        }
        assert!(ids.len() > 25, "{}", ids.len());
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let text = document_text();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let parts = text.split("\"#/components/schemas/").skip(1);
        for name in parts.filter_map(|rest| rest.split('"').next()) {
            assert!(value["components"]["schemas"][name].is_object(), "{name}");
        }
    }
}
