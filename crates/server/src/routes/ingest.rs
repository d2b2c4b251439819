//! NDJSON in: one document per line, in bounded memory however long the body is.
//!
//! ```text
//! body -> lines -> documents -> batches (a few on their way at once) -> results in line order
//! ```
//! A batch leaves when it is full, or as soon as none is on its way: a slow sender sees each line
//! written at once, a fast one gets large batches. Batches on their way are made ready at the same
//! time and written one after the other, so that documents are listed in the order of the lines and
//! the last line of an id wins. A full queue of the engine slows the reading down. One bad line
//! fails alone, with its number. Who leaves stops the work: what is being written is written to its
//! end, and nothing else of what was sent.

use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::time::{Duration, Instant};

use arrwdb_engine::state::{BatchOperation, DocumentId, LibraryId, Seq};
use arrwdb_engine::{EngineError, PutDocument, PutReceipt, Written};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, FuturesOrdered, StreamExt};
use http::header;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::milliseconds;
use super::batches as noted;
use super::gate::{Gate, Pass};
use super::requests::{AddDocument, Form, read_document};
use super::{NDJSON, line, seq_header, wants_lines};
use crate::app::App;
use crate::extract::{BodyFault, LibraryPath, Pace, check_encoding, discard, next_data, read_json};
use crate::limits::{
    EXPORT_END_BYTES_MAX, IMPORT_BATCH_BYTES, IMPORT_BATCH_DOCUMENTS, IMPORT_BATCHES_IN_FLIGHT,
    IMPORT_BUSY_WAIT_MAX, LINE_BYTES_MAX, QUOTE_CHARS,
};
use crate::metrics::Added;
use crate::ndjson::{Line, LineSplitter, LineText};
use crate::openapi::{EmbeddingErrors, WriteErrors};
use crate::principal::Principal;
use crate::problem::Problem;
use crate::spool::Spool;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(ingest))
}

/// What became of the lines.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the answer; it is written as it grows")]
struct IngestAnswer {
    successful: u64,
    failed: u64,
    total_chunks: u64,
    processing_time_ms: f64,
    /// Sequence number of the last write.
    seq: u64,
    /// In line order: `{success:true,document_id,title,num_chunks}` or
    /// `{success:false,error,title?,line_number}`.
    #[schema(value_type = Vec<Object>)]
    results: Vec<Value>,
}

/// Adds documents, one JSON object per line. Keys that are not known become custom metadata, and
/// the lines of an export make the same documents again. `Accept: application/x-ndjson` gets lines
/// of status as they happen, anything else one JSON object at the end.
#[utoipa::path(post, operation_id = "import_documents", path = "/libraries/{library_id}/documents/stream", tag = "streams",
    params(("library_id" = String, Path, format = "uuid", description = "The library")),
    request_body(content = AddDocument, content_type = "application/x-ndjson", description = "One document per line, any number of lines"),
    responses(
        (status = 200, description = "What became of the lines", content(
            (IngestAnswer = "application/json"),
            (String = "application/x-ndjson"),
        )),
        WriteErrors, EmbeddingErrors))]
async fn ingest(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
    request: Request,
) -> Result<Response, Problem> {
    check_encoding(request.headers())?;
    // Unknown libraries are refused before anything is read.
    let snapshot = app.engine().library(principal.tenant, library, None).await?;
    let index = snapshot.spec().index.name();
    drop(snapshot);
    let lines = wants_lines(request.headers());
    let spool = Spool::new(app.spools().clone());
    let reader = spool.reader();
    let form = if lines { AnswerForm::Lines } else { AnswerForm::Object };
    let (gate, presence) = Gate::new();
    let ingest = Ingest {
        target: Target { app: app.clone(), principal, library, index },
        gate,
        out: Output { spool: spool.clone(), form, truncated: false },
        tally: Tally::new(),
        flight: FuturesOrdered::new(),
        last_turn: None,
        batch: Batch::default(),
    };
    // Gone with the answer, or before there is one: either way the client has left.
    let output = stream::unfold((reader, presence), |(reader, presence)| async move {
        reader.next().await.map(|bytes| (bytes, (reader, presence)))
    });
    // On its own, so that lines are taken in while earlier results wait to be read, and that what is
    // being written is counted though nobody waits.
    let work = app.outliving(ingest.run(request.into_body()));
    if lines {
        let body = Body::from_stream(output);
        return Ok(([(header::CONTENT_TYPE, NDJSON)], body).into_response());
    }
    let (tally, truncated) = work.await.map_err(|_panic| Problem::from(EngineError::Panicked))?;
    let head = tally.json_head(truncated)?;
    let start = stream::iter([Ok(Bytes::from(head))]);
    let end = stream::iter([Ok(Bytes::from_static(b"]}"))]);
    let body = Body::from_stream(start.chain(output).chain(end));
    Ok((seq_header(tally.seq), [(header::CONTENT_TYPE, "application/json")], body).into_response())
}

#[derive(Debug, Clone)]
struct Target {
    app: App,
    principal: Principal,
    library: LibraryId,
    index: &'static str,
}

/// One line on its way through a batch, in line order.
#[derive(Debug)]
enum Item {
    /// The next document of the batch.
    Document { title: String },
    /// Failed before it came to be one.
    Failed(LineFailure),
}

#[derive(Debug)]
struct LineFailure {
    number: u64,
    error: String,
    title: Option<String>,
    quote: Option<String>,
}

#[derive(Debug, Default)]
struct Batch {
    items: Vec<(u64, Item)>,
    documents: Vec<PutDocument>,
    /// Ids of the batch: the second document of an id goes into the next one, since of two in one
    /// batch the later would take the place of the earlier.
    ids: HashSet<DocumentId>,
    bytes: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.items.len() >= IMPORT_BATCH_DOCUMENTS || self.bytes >= IMPORT_BATCH_BYTES
    }
}

/// What became of a batch, and that it was written, if it came to that.
type Outcome = (Result<Written<Vec<Result<PutReceipt, EngineError>>>, EngineError>, Option<Pass>);

/// A batch that came back.
struct Landed {
    items: Vec<(u64, Item)>,
    outcome: Outcome,
}

/// Ends, without a value, when the batch before is written.
type Turn = oneshot::Receiver<Infallible>;

struct Ingest {
    target: Target,
    gate: Gate,
    out: Output,
    tally: Tally,
    flight: FuturesOrdered<BoxFuture<'static, Landed>>,
    /// Ends when the last batch that was sent is written.
    last_turn: Option<Turn>,
    batch: Batch,
}

/// Why reading stopped before the end.
enum Stop {
    /// Nobody reads the answer any more.
    Left,
    /// The answer cannot be kept.
    Output(io::Error),
    /// The connection broke in the middle of the body, or the server stops.
    Broken(Problem),
    /// The body does not go on, and its sender may be there still.
    Body(Problem),
    /// Nothing can be written any more.
    Engine(Problem),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Left } else { Self::Output(error) }
    }
}

impl From<BodyFault> for Stop {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::Silent(problem) => Self::Body(problem),
            BodyFault::Broken(problem) => Self::Broken(problem),
        }
    }
}

impl Ingest {
    async fn run(mut self, mut body: Body) -> (Tally, bool) {
        let Target { app, principal, library, .. } = &self.target;
        let kind = (BatchOperation::Import, None);
        let noted = noted::Batch::begin(app, *principal, *library, kind).await;
        let gate = self.gate.clone();
        let outcome = tokio::select! {
            outcome = self.all(&mut body) => outcome,
            () = gate.closed() => Err(Stop::Left),
        };
        self.settle().await;
        if let Some(noted) = noted {
            noted.end((self.tally.successful, self.tally.failed), outcome.is_ok()).await;
        }
        match outcome {
            Ok(()) => {}
            Err(Stop::Left) => tracing::debug!("an import stopped: its client has left"),
            Err(Stop::Output(error)) => {
                let detail = format!("an import's answer cannot be kept: {error}");
                self.tally.broken = Some(EngineError::Storage { detail }.into());
            }
            Err(Stop::Broken(problem) | Stop::Body(problem) | Stop::Engine(problem)) => {
                self.tally.broken = Some(problem);
            }
        }
        if let Err(error) = self.out.end(&self.tally).await {
            tracing::debug!("the end of an import's answer was not written: {error}");
        }
        self.out.spool.finish();
        if self.tally.broken.is_some() {
            discard(&mut body).await;
        }
        let truncated = self.out.truncated;
        (self.tally, truncated)
    }

    /// Every line; of a body that does not go on, those that came.
    async fn all(&mut self, body: &mut Body) -> Result<(), Stop> {
        match self.lines(body).await {
            Err(Stop::Body(problem)) => self.drain().await.and(Err(Stop::Body(problem))),
            other => other,
        }
    }

    /// Waits for what is being written, and gives up what is not. Batches are written in their order, so
    /// that one that is written is the first that is on its way.
    async fn settle(&mut self) {
        self.gate.close();
        while self.gate.is_writing()
            && let Some(landed) = self.flight.next().await
        {
            if let Err(Stop::Output(error)) = self.report(landed).await {
                tracing::debug!("a result of an import was not kept: {error}");
            }
        }
        self.flight.clear();
    }

    async fn lines(&mut self, body: &mut Body) -> Result<(), Stop> {
        let app = self.target.app.clone();
        let idle = app.config().load.stream_idle_timeout;
        // A line has to arrive like a whole body; between lines only silence counts.
        let mut pace = Pace::begin(idle);
        let mut stopping = std::pin::pin!(app.stopping());
        let mut splitter = LineSplitter::new(LINE_BYTES_MAX);
        loop {
            if self.flight.len() >= IMPORT_BATCHES_IN_FLIGHT {
                self.land().await?;
                continue;
            }
            tokio::select! {
                Some(landed) = self.flight.next() => {
                    self.report(landed).await?;
                    self.send_if_idle().await?;
                }
                data = next_data(body, idle) => match data? {
                    Some(data) => {
                        splitter.push(&data);
                        let mut ended = data.contains(&b'\n');
                        while let Some(line) = splitter.next_line() {
                            self.take(line).await?;
                            ended = true;
                        }
                        if ended {
                            pace = Pace::begin(idle);
                        } else {
                            pace.came(data.len()).map_err(Stop::Body)?;
                        }
                        self.send_if_idle().await?;
                    }
                    None => break,
                },
                () = &mut stopping => {
                    return Err(Stop::Broken(EngineError::Closed.into()));
                }
            }
        }
        if let Some(line) = splitter.last_line() {
            self.take(line).await?;
        }
        self.drain().await
    }

    /// Sends what there is and waits for everything on its way.
    async fn drain(&mut self) -> Result<(), Stop> {
        self.send().await?;
        while !self.flight.is_empty() {
            self.land().await?;
        }
        Ok(())
    }

    async fn take(&mut self, line: Line) -> Result<(), Stop> {
        let bytes = match &line.text {
            LineText::Whole(text) => text.len(),
            LineText::TooLong => 0,
        };
        let limits = &self.target.app.config().limits;
        match read_line(line, |text| read_json(text, |r| read_document(r, Form::Line, limits))) {
            None => return Ok(()),
            Some((number, Ok(document))) => {
                if document.id.is_some_and(|id| self.batch.ids.contains(&id)) {
                    self.send().await?;
                }
                self.batch.ids.extend(document.id);
                let title = document.title.clone();
                self.batch.items.push((number, Item::Document { title }));
                self.batch.documents.push(*document);
            }
            Some((number, Err(failure))) => {
                self.batch.items.push((number, Item::Failed(failure)));
            }
        }
        self.batch.bytes += bytes;
        if self.batch.is_full() { self.send().await } else { Ok(()) }
    }

    async fn send_if_idle(&mut self) -> Result<(), Stop> {
        if self.flight.is_empty() { self.send().await } else { Ok(()) }
    }

    /// Sends the batch on its way, after those it must not overtake.
    async fn send(&mut self) -> Result<(), Stop> {
        if self.batch.items.is_empty() {
            return Ok(());
        }
        while self.flight.len() >= IMPORT_BATCHES_IN_FLIGHT {
            self.land().await?;
        }
        let Batch { items, documents, ids: _, bytes: _ } = std::mem::take(&mut self.batch);
        self.out.processing(&items).await?;
        let (target, gate) = (self.target.clone(), self.gate.clone());
        let (done, next_turn) = oneshot::channel::<Infallible>();
        let turn = self.last_turn.replace(next_turn);
        self.flight.push_back(Box::pin(async move {
            let mut turn = turn;
            let outcome = put((&target, &gate), documents, &mut turn).await;
            // One of which nothing was to be written has not waited yet: none behind it may be written
            // before those that it came after.
            over(&mut turn).await;
            drop(done);
            Landed { items, outcome }
        }));
        Ok(())
    }

    /// Waits for the oldest batch on its way.
    async fn land(&mut self) -> Result<(), Stop> {
        match self.flight.next().await {
            Some(landed) => self.report(landed).await,
            None => Ok(()),
        }
    }

    async fn report(&mut self, landed: Landed) -> Result<(), Stop> {
        let Landed { items, outcome: (outcome, pass) } = landed;
        let (mut receipts, stop) = match outcome {
            Ok(written) => {
                self.tally.seq = self.tally.seq.max(written.seq);
                (written.value.into_iter(), None)
            }
            Err(error) => (Vec::new().into_iter(), Some(error)),
        };
        let mut added = Added::default();
        let mut results = Vec::with_capacity(items.len());
        for (number, item) in items {
            let result = match item {
                Item::Failed(failure) => Err(failure),
                Item::Document { title } => {
                    let error = match (receipts.next(), &stop) {
                        (Some(Ok(receipt)), _) => Ok(receipt),
                        (Some(Err(error)), _) => Err(error),
                        (None, Some(error)) => Err(error.clone()),
                        (None, None) => Err(EngineError::Closed),
                    };
                    error.map_err(|error| {
                        let error = Problem::from(error).detail().to_owned();
                        LineFailure { number, error, title: Some(title), quote: None }
                    })
                }
            };
            if let Ok(receipt) = &result {
                added.count(receipt);
            }
            self.tally.count(&result);
            results.push(result);
        }
        let Target { app, library, index, .. } = &self.target;
        app.metrics().added(*library, index, added);
        // All of it is counted before anything is waited for: the client may leave there.
        drop(pass);
        for result in &results {
            self.out.result(result).await?;
        }
        match stop {
            Some(error) if is_final(&error) => Err(Stop::Engine(error.into())),
            Some(_) | None => Ok(()),
        }
    }
}

/// Whether every later line would fail the same way.
fn is_final(error: &EngineError) -> bool {
    match error {
        EngineError::LibraryNotFound(_)
        | EngineError::DiskFull { .. }
        | EngineError::Storage { .. }
        | EngineError::Panicked
        | EngineError::Locked { .. }
        | EngineError::Damaged { .. }
        | EngineError::LogFailed { .. }
        | EngineError::BudgetExceeded(_)
        | EngineError::Closed => true,
        EngineError::DocumentNotFound(_)
        | EngineError::AmbiguousDocument { .. }
        | EngineError::VectorNotFound(_)
        | EngineError::VectorField { .. }
        | EngineError::LibraryExists(_)
        | EngineError::Generation(_)
        | EngineError::TooManyLibraries(_)
        | EngineError::TooManyDocuments(_)
        | EngineError::StandingQueryNotFound(_)
        | EngineError::TooManyStandingQueries(_)
        | EngineError::JobNotFound(_)
        | EngineError::JobState(_)
        | EngineError::WebhookNotFound(_)
        | EngineError::TooManyWebhooks(_)
        | EngineError::BudgetNotFound
        | EngineError::TooManyBudgets(_)
        | EngineError::ScheduleNotFound(_)
        | EngineError::TooManySchedules(_)
        | EngineError::Invalid { .. }
        | EngineError::Blank { .. }
        | EngineError::Vector { .. }
        | EngineError::Embedding(_)
        | EngineError::Reranking(_)
        | EngineError::Busy { .. }
        | EngineError::SeqNotReached { .. }
        | EngineError::HistoryGone { .. } => false,
    }
}

/// Waits until the batch before is done.
async fn over(turn: &mut Option<Turn>) {
    if let Some(turn) = turn.take() {
        // Nothing is ever sent: it is done when its end is dropped.
        turn.await.map_or_else(|_done| (), |never| match never {});
    }
}

/// Writes a batch; a full queue is asked again until it takes it, or the client has left.
async fn put(
    (target, gate): (&Target, &Gate),
    documents: Vec<PutDocument>,
    turn: &mut Option<Turn>,
) -> Outcome {
    let Target { app, principal, library, .. } = target;
    let (engine, tenant) = (app.engine(), principal.tenant);
    if documents.is_empty() {
        return (Ok(Written { seq: Seq::START, value: Vec::new() }), None);
    }
    let started = Instant::now();
    let mut pass = None;
    loop {
        let turn = async {
            over(turn).await;
            pass = Some(gate.pass().await);
        };
        let outcome = engine.put_documents_in_turn(tenant, *library, documents.clone(), turn).await;
        let wait = match &outcome {
            Err(error) => busy_for(error),
            Ok(_) => None,
        };
        match wait {
            Some(wait) if started.elapsed() + wait < IMPORT_BUSY_WAIT_MAX => {
                // Nothing of it is written.
                pass = None;
                if gate.is_closed() {
                    return (outcome, pass);
                }
                tokio::time::sleep(wait).await;
            }
            Some(_) | None => return (outcome, pass),
        }
    }
}

/// How long to wait before the same batch is offered again; `None` if that would not help.
pub(crate) fn busy_for(error: &EngineError) -> Option<Duration> {
    use arrwdb_engine::embed::EmbedError;
    let wait = if let EngineError::Busy { what: _, retry_after }
    | EngineError::Embedding(
        EmbedError::Busy { retry_after } | EmbedError::RateLimited { retry_after },
    ) = error
    {
        *retry_after
    } else {
        return None;
    };
    Some(wait.clamp(Duration::from_millis(20), Duration::from_secs(5)))
}

type ReadLine = (u64, Result<Box<PutDocument>, LineFailure>);

/// Reads one line; `None` for the last line of an export.
fn read_line(
    line: Line,
    read: impl FnOnce(&[u8]) -> Result<PutDocument, Problem>,
) -> Option<ReadLine> {
    let number = line.number;
    let text = match line.text {
        LineText::TooLong => {
            let error = format!("line {number} has more than {LINE_BYTES_MAX} bytes");
            let failure = LineFailure { number, error, title: None, quote: None };
            return Some((number, Err(failure)));
        }
        LineText::Whole(text) => text,
    };
    if is_end_of_export(&text) {
        return None;
    }
    let document = read(&text).map(Box::new).map_err(|problem| LineFailure {
        number,
        error: format!("line {number}: {}", problem.full_detail()),
        title: title_of(&text),
        quote: Some(String::from_utf8_lossy(&text).chars().take(QUOTE_CHARS).collect()),
    });
    Some((number, document))
}

pub(super) fn is_end_of_export(text: &[u8]) -> bool {
    if text.len() > EXPORT_END_BYTES_MAX {
        return false;
    }
    let Ok(Value::Object(object)) = serde_json::from_slice(text) else { return false };
    object.get("status").and_then(Value::as_str) == Some("complete")
        && object.get("total_documents").is_some_and(Value::is_u64)
        && ["title", "text", "texts", "chunks"].iter().all(|key| !object.contains_key(*key))
}

/// The title of a line that failed, if it has one.
fn title_of(text: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Titled {
        title: Option<String>,
    }
    serde_json::from_slice::<Titled>(text).ok()?.title
}

/// Counts of what was answered.
#[derive(Debug)]
struct Tally {
    started: Instant,
    successful: u64,
    failed: u64,
    chunks: u64,
    seq: Seq,
    broken: Option<Problem>,
}

impl Tally {
    fn new() -> Self {
        let started = Instant::now();
        Self { started, successful: 0, failed: 0, chunks: 0, seq: Seq::START, broken: None }
    }

    fn count(&mut self, result: &Result<PutReceipt, LineFailure>) {
        match result {
            Ok(receipt) => {
                self.successful += 1;
                self.chunks += receipt.chunks as u64;
            }
            Err(_) => self.failed += 1,
        }
    }

    /// The start of the JSON answer, up to the results. If the import broke off before anything
    /// was written, that is the answer.
    fn json_head(&self, truncated: bool) -> Result<String, Problem> {
        if let (Some(problem), 0) = (&self.broken, self.successful) {
            return Err(problem.clone());
        }
        let mut head = json!({
            "successful": self.successful,
            "failed": self.failed,
            "total_chunks": self.chunks,
            "processing_time_ms": milliseconds(self.started.elapsed()),
            "seq": self.seq.get(),
        });
        if let (Some(problem), Value::Object(head)) = (&self.broken, &mut head) {
            head.insert("error".to_owned(), problem.detail().into());
        }
        if let (true, Value::Object(head)) = (truncated, &mut head) {
            head.insert("results_truncated".to_owned(), true.into());
        }
        let mut head = head.to_string();
        head.pop();
        head.push_str(",\"results\":[");
        Ok(head)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AnswerForm {
    Lines,
    Object,
}

#[derive(Debug)]
struct Output {
    spool: Spool,
    form: AnswerForm,
    /// Results were left out of the JSON answer because too many were waiting.
    truncated: bool,
}

impl Drop for Output {
    /// Whoever reads learns that nothing more comes, also where something panicked.
    fn drop(&mut self) {
        self.spool.finish();
    }
}

impl Output {
    async fn processing(&mut self, items: &[(u64, Item)]) -> io::Result<()> {
        if self.form == AnswerForm::Object {
            return Ok(());
        }
        for (_, item) in items {
            if let Item::Document { title } = item {
                self.line(&json!({"status": "processing", "title": title})).await?;
            }
        }
        Ok(())
    }

    async fn result(&mut self, result: &Result<PutReceipt, LineFailure>) -> io::Result<()> {
        match self.form {
            AnswerForm::Lines => self.line(&line_result(result)).await,
            AnswerForm::Object => self.element(&object_result(result)).await,
        }
    }

    /// One line; a reader that is far behind is waited for.
    async fn line(&mut self, value: &Value) -> io::Result<()> {
        self.spool.room().await;
        self.spool.write(&line(value)).await
    }

    /// One element of the results. They are read only after the last, so beyond the bound they
    /// are left out and the counts remain.
    async fn element(&mut self, value: &Value) -> io::Result<()> {
        if self.truncated || self.spool.is_full() {
            self.truncated = true;
            return Ok(());
        }
        let comma = if self.spool.is_new() { "" } else { "," };
        self.spool.write(format!("{comma}{value}").as_bytes()).await
    }

    async fn end(&mut self, tally: &Tally) -> io::Result<()> {
        if self.form == AnswerForm::Object {
            return Ok(());
        }
        if let Some(problem) = &tally.broken {
            let value = json!({"status": "stream_error", "error": problem.detail()});
            self.line(&value).await?;
        }
        let summary = json!({
            "status": "summary",
            "total_processed": tally.successful + tally.failed,
            "total_succeeded": tally.successful,
            "total_failed": tally.failed,
            "total_chunks": tally.chunks,
            "processing_time_ms": milliseconds(tally.started.elapsed()),
            "seq": tally.seq.get(),
        });
        self.line(&summary).await
    }
}

fn line_result(result: &Result<PutReceipt, LineFailure>) -> Value {
    match result {
        Ok(receipt) => json!({
            "status": "completed",
            "id": receipt.id.to_string(),
            "title": receipt.title,
            "num_chunks": receipt.chunks,
        }),
        Err(failure) => {
            let mut value = json!({
                "status": "error",
                "error": failure.error,
                "line_number": failure.number,
            });
            add(&mut value, "title", failure.title.as_deref());
            add(&mut value, "line", failure.quote.as_deref());
            value
        }
    }
}

fn object_result(result: &Result<PutReceipt, LineFailure>) -> Value {
    match result {
        Ok(receipt) => json!({
            "success": true,
            "document_id": receipt.id.to_string(),
            "title": receipt.title,
            "num_chunks": receipt.chunks,
        }),
        Err(failure) => {
            let mut value = json!({
                "success": false,
                "error": failure.error,
                "line_number": failure.number,
            });
            add(&mut value, "title", failure.title.as_deref());
            value
        }
    }
}

fn add(value: &mut Value, key: &str, text: Option<&str>) {
    if let (Value::Object(object), Some(text)) = (value, text) {
        object.insert(key.to_owned(), text.into());
    }
}
