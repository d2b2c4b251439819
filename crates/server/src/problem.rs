//! Every error of the API, as RFC 9457 describes them (`application/problem+json`).
//!
//! - **V2** Every error of the engine maps to exactly one kind here, by matches without a wildcard:
//!   a new variant does not compile until it has a status.
//!
//! A [`Problem`] rides in the answer's extensions; the outermost layer (`envelope`) adds
//! the request id, renders the body and logs what is not for the public.

use std::time::Duration;

use arrwdb_engine::embed::{EmbedError, RerankError};
use arrwdb_engine::{BudgetStatus, EngineError};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::json::{Fault, Rule, SyntaxError};
use crate::routes::rfc3339;

/// One kind of error: what stays the same whenever it happens.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Last part of its `type` URI.
    pub slug: &'static str,
    /// Status of the answer.
    pub status: u16,
    /// The same in words; also `error`, for older clients.
    pub title: &'static str,
    /// `error_type`, for older clients.
    pub error_type: &'static str,
    /// What it means and what to do, in one or two sentences.
    pub about: &'static str,
}

impl Kind {
    /// Its `type` URI, relative to the server, where it is explained.
    pub fn uri(&self) -> String {
        format!("/errors/{}", self.slug)
    }
}

macro_rules! kinds {
    ($($name:ident = $slug:literal, $status:literal, $title:literal, $error_type:literal, $about:literal;)*) => {
        $(
            #[doc = concat!("The kind `", $slug, "`; [`Kind::about`] says what it means.")]
            pub const $name: Kind = Kind {
                slug: $slug, status: $status, title: $title, error_type: $error_type, about: $about,
            };
        )*
        /// Every kind, in order of status.
        pub const KINDS: &[&Kind] = &[$(&$name),*];
    };
}

kinds! {
    INVALID_REQUEST = "invalid-request", 400, "Invalid request", "ValueError",
        "A text is blank where one is needed, or the request cannot be made sense of.";
    INVALID_VECTOR = "invalid-vector", 400, "Dimension mismatch", "DimensionMismatchError",
        "A vector has the wrong number of elements, an element that is not finite, or no direction. Send vectors of the library's embedding_dimension.";
    VECTOR_FIELD = "vector-field", 400, "Vector field mismatch", "VectorFieldError",
        "The vector field holds vectors of another kind, dimension, metric or model, or there is no such field; GET /v1/libraries/{id}/vector-fields lists what there is.";
    INVALID_HOST = "invalid-host", 400, "Invalid host", "InvalidHostError",
        "The request is addressed to a host name that is not in ALLOWED_HOSTS.";
    JOB_STATE = "job-state", 400, "Job state", "JobStateError",
        "The job is not in a state in which that can be done; it may be over already.";
    BUDGET_EXCEEDED = "budget-exceeded", 402, "Budget exceeded", "BudgetExceededError",
        "A budget for embedding is spent and refuses further paid texts (refuse). Nothing was written. Raise it with PUT /v1/costs/budget, wait until renews_at, or send vectors of your own; texts whose vectors are cached, and the local model, are never refused.";
    FORBIDDEN_ORIGIN = "forbidden-origin", 403, "Forbidden origin", "OriginError",
        "A page of another origin asked for a WebSocket, and CORS_ORIGINS does not name that origin.";
    NOT_FOUND = "not-found", 404, "Not Found", "NotFoundError",
        "There is nothing at this path.";
    LIBRARY_NOT_FOUND = "library-not-found", 404, "Library not found", "LibraryNotFoundError",
        "There is no library of this id, or it belongs to somebody else.";
    DOCUMENT_NOT_FOUND = "document-not-found", 404, "Document not found", "DocumentNotFoundError",
        "There is no document of this id.";
    VECTOR_NOT_FOUND = "vector-not-found", 404, "Vector not found", "VectorNotFoundError",
        "The document has no vector of this id.";
    STANDING_QUERY_NOT_FOUND = "standing-query-not-found", 404, "Standing query not found", "StandingQueryNotFoundError",
        "The library has no standing query of this id.";
    JOB_NOT_FOUND = "job-not-found", 404, "Job not found", "JobNotFoundError",
        "There is no job of this id: it never was, or it was over so long ago that it is forgotten (JOB_RETENTION_SECONDS).";
    WEBHOOK_NOT_FOUND = "webhook-not-found", 404, "Webhook not found", "WebhookNotFoundError",
        "There is no webhook of this id.";
    BUDGET_NOT_FOUND = "budget-not-found", 404, "Budget not found", "BudgetNotFoundError",
        "There is no budget of this library, or none of all libraries together.";
    SCHEDULE_NOT_FOUND = "schedule-not-found", 404, "Schedule not found", "ScheduleNotFoundError",
        "There is no schedule of this id.";
    METHOD_NOT_ALLOWED = "method-not-allowed", 405, "Method Not Allowed", "MethodNotAllowedError",
        "The path exists, but not for this method; the header Allow lists those that it has.";
    BODY_TIMEOUT = "body-timeout", 408, "Request body timed out", "RequestTimeoutError",
        "The body stopped arriving. Send it again.";
    AMBIGUOUS_DOCUMENT = "ambiguous-document", 409, "Document in several libraries", "AmbiguousDocumentError",
        "Several libraries have a document of this id. Say which is meant: /v1/libraries/{library_id}/documents/{document_id}, or library_id in a batch.";
    LIBRARY_EXISTS = "library-exists", 409, "Library exists already", "LibraryExistsError",
        "A library of this id exists already.";
    TOO_MANY_LIBRARIES = "too-many-libraries", 409, "Too many libraries", "TooManyLibrariesError",
        "There are as many libraries as there may be. Delete one first.";
    TOO_MANY_DOCUMENTS = "too-many-documents", 409, "Too many documents", "TooManyDocumentsError",
        "The library holds MAX_DOCUMENTS_PER_LIBRARY documents. Delete some first; a document that is there can still be replaced.";
    TOO_MANY_STANDING_QUERIES = "too-many-standing-queries", 409, "Too many standing queries", "TooManyStandingQueriesError",
        "The library has MAX_STANDING_QUERIES_PER_LIBRARY standing queries. Delete some first.";
    TOO_MANY_WEBHOOKS = "too-many-webhooks", 409, "Too many webhooks", "TooManyWebhooksError",
        "There are as many webhooks as there may be. Delete one first.";
    EMBEDDING_STATE = "embedding-state", 409, "Embedding model state", "EmbeddingStateError",
        "The library's embedding models are not in a state in which that can be done; detail says what is in the way.";
    TOO_MANY_BUDGETS = "too-many-budgets", 409, "Too many budgets", "TooManyBudgetsError",
        "There are as many budgets as there may be. Delete some first.";
    TOO_MANY_SCHEDULES = "too-many-schedules", 409, "Too many schedules", "TooManySchedulesError",
        "There are as many schedules of jobs as there may be. Delete one first.";
    WEBHOOK_STATE = "webhook-state", 409, "Webhook state", "WebhookStateError",
        "The webhook is not in a state in which that can be done; detail says what is in the way.";
    NO_BACKUP_TARGET = "no-backup-target", 409, "No place for backups", "BackupTargetError",
        "The server does not know where to put restore points. Set BACKUP_TARGET and start it again.";
    SEQ_NOT_REACHED = "sequence-not-reached", 409, "Sequence not reached", "SeqNotReachedError",
        "The read asked for a state that is not there yet (min_seq, as_of); current_seq says how far it is. Try again shortly.";
    HISTORY_GONE = "history-gone", 410, "Past not kept", "HistoryGoneError",
        "The read asked for a past (as_of) that is not kept any more; oldest_seq is the oldest that is. HISTORY_SECONDS says how long it is kept; a purge and index/optimize end it.";
    EVENTS_GONE = "events-gone", 410, "Events gone", "EventsGoneError",
        "Events after the place asked for are no longer kept; oldest_seq says which is the oldest. Begin again from a snapshot.";
    TOO_LARGE = "request-too-large", 413, "Request too large", "RequestTooLargeError",
        "The body is larger than MAX_REQUEST_SIZE. Send less at a time, or use documents/stream, which has no such limit.";
    BODY_ENCODING = "body-encoding", 415, "Unsupported content encoding", "ContentEncodingError",
        "The body is compressed. Send it as it is, without Content-Encoding.";
    MEDIA_TYPE = "media-type", 415, "Unsupported Media Type", "MediaTypeError",
        "The Content-Type of the body is none that this path reads. Send application/json.";
    RANGE_NOT_SATISFIABLE = "range-not-satisfiable", 416, "Range Not Satisfiable", "RangeNotSatisfiableError",
        "The file ends before the range that Range asks for; Content-Range and length say how long it is. What is there already may be all of it.";
    VALIDATION = "validation", 422, "Validation failed", "ValidationError",
        "One or more fields break a rule; errors lists all of them with JSON Pointers.";
    MALFORMED_JSON = "malformed-json", 422, "Malformed JSON", "JsonInvalidError",
        "The body is not JSON; detail says where it breaks.";
    UPGRADE_REQUIRED = "upgrade-required", 426, "Upgrade Required", "UpgradeRequiredError",
        "This path speaks WebSocket: connect with a client of it, at ws:// in place of http://.";
    RATE_LIMITED = "rate-limited", 429, "Rate limit exceeded", "RateLimitError",
        "This client sent more requests than its budget allows. Wait as Retry-After says.";
    INTERNAL = "internal", 500, "Internal Server Error", "InternalError",
        "Something broke inside the server; its log has the details under the request id.";
    STORAGE = "storage", 500, "Storage failed", "StorageError",
        "The disk or the machine failed; the log of the server has the details under the request id.";
    DAMAGED = "damaged-data", 500, "Damaged data", "DataCorruptionError",
        "Data on disk is damaged. The log of the server names the file and the offset; restore the file or a backup.";
    EMBEDDING = "embedding-unavailable", 503, "Embedding service error", "EmbeddingServiceError",
        "Texts could not be turned into vectors: the model or provider is not ready, refused or failed. Nothing was written.";
    RERANKING = "reranking-unavailable", 503, "Reranking service error", "RerankServiceError",
        "Passages could not be ranked by a model: none is configured (RERANK_PROVIDER), or its server refused, failed, or did not answer within RERANK_TIMEOUT_SECONDS. Ask for another rerank_function, or try again.";
    BUSY = "busy", 503, "Busy", "BusyError",
        "A queue is full and nothing was done. Try again as Retry-After says.";
    JOBS_DISABLED = "jobs-disabled", 503, "Jobs are turned off", "JobsDisabledError",
        "The server does no background jobs: JOB_QUEUE_ENABLED is false.";
    TIMEOUT = "timeout", 503, "Request timed out", "TimeoutError",
        "The request took longer than REQUEST_TIMEOUT_SECONDS. A write may have happened all the same.";
    READ_ONLY = "log-failed", 503, "Writes refused", "StorageUnavailableError",
        "The log failed and takes no writes until the server is started again; reads go on.";
    SHUTTING_DOWN = "shutting-down", 503, "Shutting down", "ShuttingDownError",
        "The server is stopping. Try again when it is back.";
    DISK_FULL = "disk-full", 507, "Disk full", "DiskFullError",
        "The disk is nearly full: writes are refused, reads go on. Nothing was written.";
}

/// One error of one request.
#[derive(Debug, Clone)]
pub struct Problem(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    kind: &'static Kind,
    detail: String,
    faults: Vec<Fault>,
    retry_after: Option<Duration>,
    members: Map<String, Value>,
    log: Option<String>,
}

/// The body of every error.
#[derive(Debug, Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    error: &'a str,
    error_type: &'a str,
    request_id: &'a str,
    errors: Vec<FaultBody<'a>>,
    #[serde(flatten)]
    members: &'a Map<String, Value>,
}

#[derive(Debug, Serialize)]
struct FaultBody<'a> {
    pointer: &'a str,
    detail: &'a str,
}

impl Problem {
    /// A problem of this kind with a text for the caller.
    pub fn new(kind: &'static Kind, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            detail: detail.into(),
            faults: Vec::new(),
            retry_after: None,
            members: Map::new(),
            log: None,
        }))
    }

    /// A problem whose cause is for the log only; the caller gets the kind's own text.
    pub(crate) fn hidden(kind: &'static Kind, log: impl Into<String>) -> Self {
        let mut problem = Self::new(kind, kind.about);
        problem.0.log = Some(log.into());
        problem
    }

    /// Fields that break rules: 400 if only vectors do, else 422.
    pub(crate) fn faults(faults: Vec<Fault>) -> Self {
        let vectors_only = faults.iter().all(|fault| fault.rule == Rule::Vector);
        let kind = if vectors_only { &INVALID_VECTOR } else { &VALIDATION };
        let detail = match faults.as_slice() {
            [] => kind.about.to_owned(),
            [one] => one_line(one),
            [first, rest @ ..] => format!("{} (and {} more)", one_line(first), rest.len()),
        };
        let mut problem = Self::new(kind, detail);
        problem.0.faults = faults;
        problem
    }

    /// One field that breaks a rule: 422.
    pub(crate) fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::faults(vec![Fault {
            pointer: pointer.into(),
            detail: detail.into(),
            rule: Rule::Shape,
        }])
    }

    /// Calls fields what they are called in the body, where it was read as something else: `name` is asked
    /// for each pointer.
    pub(crate) fn renamed(mut self, name: impl Fn(&str) -> Option<String>) -> Self {
        let inner = &mut *self.0;
        for fault in &mut inner.faults {
            let Some(pointer) = name(&fault.pointer) else { continue };
            if let Some(rest) = inner.detail.strip_prefix(&fault.pointer) {
                inner.detail = format!("{pointer}{rest}");
            }
            fault.pointer = pointer;
        }
        self
    }

    /// Adds a member to the body.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.members.insert(name.to_owned(), value.into());
        self
    }

    /// Says when to try again.
    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Its kind.
    pub fn kind(&self) -> &'static Kind {
        self.0.kind
    }

    /// The text for the caller.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The text for the caller with every field that breaks a rule, for answers that carry many
    /// problems.
    pub(crate) fn full_detail(&self) -> String {
        match self.0.faults.as_slice() {
            [] | [_] => self.0.detail.clone(),
            faults => faults.iter().map(one_line).collect::<Vec<_>>().join("; "),
        }
    }

    /// The text for the log, where it differs from the caller's.
    pub(crate) fn log(&self) -> Option<&str> {
        self.0.log.as_deref()
    }

    /// The body.
    pub(crate) fn body(&self, request_id: &str) -> Vec<u8> {
        let Inner { kind, detail, faults, members, .. } = &*self.0;
        let errors = faults
            .iter()
            .map(|fault| FaultBody { pointer: &fault.pointer, detail: &fault.detail })
            .collect();
        let body = Body {
            r#type: kind.uri(),
            title: kind.title,
            status: kind.status,
            detail,
            error: kind.title,
            error_type: kind.error_type,
            request_id,
            errors,
            members,
        };
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

fn one_line(fault: &Fault) -> String {
    match fault.pointer.as_str() {
        "" => fault.detail.clone(),
        pointer => format!("{pointer}: {}", fault.detail),
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.kind.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        if let Some(wait) = self.0.retry_after {
            // Whole seconds, rounded up: sooner would be too soon.
            let seconds = wait.as_millis().div_ceil(1000).max(1);
            if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<SyntaxError> for Problem {
    fn from(error: SyntaxError) -> Self {
        let detail = format!("{} (at byte {})", error.detail, error.offset);
        Self::new(&MALFORMED_JSON, detail).with("offset", error.offset)
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        let text = error.to_string();
        match error {
            EngineError::LibraryNotFound(_) => Self::new(&LIBRARY_NOT_FOUND, text),
            EngineError::AmbiguousDocument { .. } => Self::new(&AMBIGUOUS_DOCUMENT, text),
            EngineError::DocumentNotFound(_) => Self::new(&DOCUMENT_NOT_FOUND, text),
            EngineError::LibraryExists(_) => Self::new(&LIBRARY_EXISTS, text),
            EngineError::Generation(_) => Self::new(&EMBEDDING_STATE, text),
            EngineError::TooManyLibraries(_) => Self::new(&TOO_MANY_LIBRARIES, text),
            EngineError::TooManyDocuments(_) => Self::new(&TOO_MANY_DOCUMENTS, text),
            EngineError::VectorNotFound(_) => Self::new(&VECTOR_NOT_FOUND, text),
            EngineError::VectorField { .. } => Self::new(&VECTOR_FIELD, text),
            EngineError::StandingQueryNotFound(_) => Self::new(&STANDING_QUERY_NOT_FOUND, text),
            EngineError::TooManyStandingQueries(_) => Self::new(&TOO_MANY_STANDING_QUERIES, text),
            EngineError::JobNotFound(_) => Self::new(&JOB_NOT_FOUND, text),
            EngineError::JobState(_) => Self::new(&JOB_STATE, text),
            EngineError::WebhookNotFound(_) => Self::new(&WEBHOOK_NOT_FOUND, text),
            EngineError::TooManyWebhooks(_) => Self::new(&TOO_MANY_WEBHOOKS, text),
            EngineError::BudgetNotFound => Self::new(&BUDGET_NOT_FOUND, text),
            EngineError::TooManyBudgets(_) => Self::new(&TOO_MANY_BUDGETS, text),
            EngineError::BudgetExceeded(refusal) => {
                let BudgetStatus { terms, spent, renews_at, .. } = &refusal.0;
                let library = terms.scope.library.map(|library| library.to_string());
                Self::new(&BUDGET_EXCEEDED, text)
                    .with("library_id", library)
                    .with("period", terms.period.name())
                    .with("amount_usd", terms.amount.dollars())
                    .with("spent_usd", spent.dollars())
                    .with("renews_at", renews_at.map(rfc3339))
            }
            EngineError::ScheduleNotFound(_) => Self::new(&SCHEDULE_NOT_FOUND, text),
            EngineError::TooManySchedules(_) => Self::new(&TOO_MANY_SCHEDULES, text),
            EngineError::Invalid { field, detail } => Self::field(field, detail),
            EngineError::Blank { field, detail } => Self::at(&INVALID_REQUEST, field, detail),
            EngineError::Vector { field, detail } => Self::at(&INVALID_VECTOR, field, detail),
            EngineError::Embedding(error) => error.into(),
            EngineError::Reranking(error) => error.into(),
            EngineError::Busy { what: _, retry_after } => {
                Self::new(&BUSY, text).retry_after(retry_after)
            }
            EngineError::SeqNotReached { wanted: _, current } => Self::new(&SEQ_NOT_REACHED, text)
                .with("current_seq", current.get())
                .retry_after(Duration::from_secs(1)),
            EngineError::HistoryGone { wanted: _, oldest } => {
                Self::new(&HISTORY_GONE, text).with("oldest_seq", oldest.get())
            }
            EngineError::DiskFull { detail } => Self::hidden(&DISK_FULL, detail),
            EngineError::Storage { detail } | EngineError::Locked { detail } => {
                Self::hidden(&STORAGE, detail)
            }
            EngineError::Panicked => Self::hidden(&INTERNAL, text),
            EngineError::Damaged { detail } => Self::hidden(&DAMAGED, detail),
            EngineError::LogFailed { detail } => Self::hidden(&READ_ONLY, detail),
            EngineError::Closed => {
                Self::new(&SHUTTING_DOWN, text).retry_after(Duration::from_secs(5))
            }
        }
    }
}

impl From<EmbedError> for Problem {
    fn from(error: EmbedError) -> Self {
        let text = error.to_string();
        match error {
            EmbedError::BlankText { index: _ } => Self::new(&INVALID_REQUEST, text),
            EmbedError::TextTooLong { .. } | EmbedError::PictureUnfit { .. } => {
                Self::new(&VALIDATION, text)
            }
            EmbedError::UnknownModel { .. } => Self::field("/embedding_model", text),
            EmbedError::DimensionUnsupported { .. } | EmbedError::DimensionUnknown { .. } => {
                Self::field("/embedding_dimension", text)
            }
            EmbedError::Busy { retry_after } | EmbedError::RateLimited { retry_after } => {
                Self::new(&EMBEDDING, text).retry_after(retry_after)
            }
            EmbedError::NotConfigured { .. }
            | EmbedError::NoPictures { .. }
            | EmbedError::Deadline { .. }
            | EmbedError::Provider { .. }
            | EmbedError::WrongDimension { .. }
            | EmbedError::NotFinite { .. }
            | EmbedError::NotAllowed
            | EmbedError::Closed => Self::new(&EMBEDDING, text),
        }
    }
}

impl From<RerankError> for Problem {
    fn from(error: RerankError) -> Self {
        let text = error.to_string();
        match error {
            RerankError::Busy { retry_after } | RerankError::RateLimited { retry_after } => {
                Self::new(&RERANKING, text).retry_after(retry_after)
            }
            RerankError::NotConfigured { .. }
            | RerankError::Deadline { .. }
            | RerankError::Provider { .. }
            | RerankError::NotAllowed
            | RerankError::Closed => Self::new(&RERANKING, text),
        }
    }
}

impl Problem {
    /// A problem of one field.
    fn at(kind: &'static Kind, pointer: String, detail: String) -> Self {
        let mut problem = Self::new(kind, detail.clone());
        let rule = Rule::Shape;
        problem.0.faults = vec![Fault { pointer, detail, rule }];
        problem
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn body(problem: &Problem) -> Value {
        serde_json::from_slice(&problem.body("r-1")).unwrap()
    }

    #[test]
    fn v2_kinds_are_distinct_and_complete() {
        for (at, kind) in KINDS.iter().enumerate() {
            assert!(StatusCode::from_u16(kind.status).is_ok_and(|s| s.as_u16() >= 400));
            assert!(!kind.about.is_empty() && kind.slug.is_ascii());
            assert!(KINDS[at + 1..].iter().all(|other| other.slug != kind.slug), "{}", kind.slug);
            assert!(KINDS[at + 1..].iter().all(|other| other.status >= kind.status));
        }
    }

    #[test]
    fn the_body_has_the_keys_of_old_and_new_clients() {
        let id = "0191f4a2-7c3e-7abc-8def-0123456789ab".parse().unwrap();
        let value = body(&EngineError::LibraryNotFound(id).into());
        assert_eq!(value["status"], 404);
        assert_eq!(value["type"], "/errors/library-not-found");
        assert_eq!(value["error"], "Library not found");
        assert_eq!(value["error_type"], "LibraryNotFoundError");
        assert_eq!(value["detail"], "Library 0191f4a2-7c3e-7abc-8def-0123456789ab not found");
        assert_eq!(value["request_id"], "r-1");
        assert_eq!(value["errors"], serde_json::json!([]));
    }

    #[test]
    fn what_is_internal_stays_in_the_log() {
        let detail = "/secret/path/0001.log at 77".to_owned();
        let problem = Problem::from(EngineError::Damaged { detail: detail.clone() });
        assert!(!body(&problem).to_string().contains("secret"));
        assert_eq!(problem.log(), Some(detail.as_str()));
    }

    #[test]
    fn vectors_are_400_and_shapes_422() {
        let fault = |rule| Fault { pointer: "/embedding/3".into(), detail: "x".into(), rule };
        assert_eq!(Problem::faults(vec![fault(Rule::Vector)]).kind().status, 400);
        let both = Problem::faults(vec![fault(Rule::Vector), fault(Rule::Shape)]);
        assert_eq!(both.kind().status, 422);
        assert_eq!(body(&both)["errors"][1]["pointer"], "/embedding/3");
    }

    #[test]
    fn every_kind_is_explained_in_the_documentation() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors.md");
        let mut text = "# Errors\n\nEvery error is `application/problem+json` (RFC 9457) with the \
            keys `type`, `title`, `status`, `detail`, `error`, `error_type`, `request_id` and \
            `errors` (a list of `{pointer, detail}`). This page is made from \
            `crates/server/src/problem.rs`; `UPDATE=1 cargo test -p arrwdb-server` rewrites it.\n\n\
            | `type` | status | `error_type` | meaning |\n|---|--:|---|---|\n"
            .to_owned();
        for kind in KINDS {
            let Kind { status, error_type, about, .. } = kind;
            let uri = kind.uri();
            writeln!(text, "| `{uri}` | {status} | `{error_type}` | {about} |").unwrap();
        }
        text.push_str(
            "\nWhat is no request yet is answered by its status alone, without a body, and the \
            connection is closed: 400 for a request line or a header that is not HTTP, 414 for a \
            path of more than 65,534 bytes, 431 for more than 100 headers or more than 128 KiB of \
            them (64 KiB over HTTP/2). hyper writes these answers before anything of arrwDB is \
            asked.\n",
        );
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(golden, &text).unwrap();
        }
        assert!(std::fs::read_to_string(golden).unwrap() == text, "UPDATE=1 rewrites {golden}");
    }

    #[test]
    fn waits_are_rounded_up_to_whole_seconds() {
        let wait = Duration::from_millis(1200);
        let busy = EngineError::Busy { what: "the queue", retry_after: wait };
        let response = Problem::from(busy).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        assert_eq!(response.status(), 503);
    }
}
