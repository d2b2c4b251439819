//! `batch_import`: documents that came with the job are added, unit by unit.
//!
//! ```text
//! input -> units (borders depend on the input alone) -> a few made ready at once -> written in order
//! ```
//! A document's id is the caller's, or follows from the job and the line, so a unit that is tried
//! again writes what is missing and nothing twice.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrwdb_engine::embed::EmbedError;
use arrwdb_engine::state::{
    BatchEnd, BatchId, BatchNote, BatchOperation, BatchOutcome, DocumentId, JobId, JobProgress,
    JobUnit, LibraryId, Seq,
};
use arrwdb_engine::{Embeddings, Engine, EngineError, PutDocument, PutReceipt, Snapshot, Written};
use arrwdb_feed::{DoneUnits, Halt, JobRun, Performed};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, StreamExt};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::{oneshot, watch};
use uuid::Builder;

use super::errors::ErrorLog;
use super::files::InputLine;
use super::{Input, Performer, Unable, library_of, unkept, with_errors};
use crate::extract::read_json;
use crate::limits::{
    IMPORT_BATCH_BYTES, IMPORT_BATCH_DOCUMENTS, IMPORT_BATCHES_IN_FLIGHT, IMPORT_BUSY_WAIT_MAX,
};
use crate::metrics::Added;
use crate::problem::Problem;
use crate::routes::{Form, busy_for, read_document};

/// A line of a unit.
enum Item {
    /// It was written before the job was interrupted, with so many chunks.
    Done(u32),
    /// The next document that is to be written.
    Document { line: Origin },
    /// It is no document.
    Refused { line: Origin, error: String },
}

/// Which line it is: of those that are documents, from 0; and of the body that it came in, from 1, if
/// that was one of lines.
#[derive(Clone, Copy)]
struct Origin {
    index: u64,
    number: Option<u64>,
}

/// A unit that came back.
struct Landed {
    items: Vec<Item>,
    /// `None` where it was not its turn any more.
    outcome: Option<Outcome>,
}

type Receipts = Vec<Result<PutReceipt, EngineError>>;
type Outcome = Result<Written<Receipts>, EngineError>;

/// An import on its way.
struct Import<'a> {
    performer: &'a Performer,
    run: &'a JobRun,
    library: LibraryId,
    index: &'static str,
    done: DoneUnits,
    /// The library as it was found, where the log does not go back to where this began.
    found: Option<Snapshot>,
    progress: JobProgress,
    errors: ErrorLog,
    flight: FuturesOrdered<BoxFuture<'static, Landed>>,
    last_turn: Option<oneshot::Receiver<Infallible>>,
    /// No unit is to be written any more that is not being written.
    halted: watch::Sender<bool>,
    /// A unit was written that is not counted: nothing after it is.
    uncounted: bool,
}

impl Performer {
    pub(super) async fn import(&self, run: &JobRun) -> Result<Performed, Unable> {
        let library = library_of(run)?;
        let tenant = run.head().tenant;
        let snapshot = run.engine().library(tenant, library, None).await?;
        let index = snapshot.spec().index.name();
        let done = if run.is_resumed() { run.done_units().await? } else { DoneUnits::default() };
        let found = done.is_cut().then_some(snapshot);
        let input = self.input(run).await?;
        let (settled, files, id) = (run.progress().current, self.files.clone(), run.head().id);
        let opened = move || ErrorLog::open(&files, id, settled);
        let opened = tokio::task::spawn_blocking(opened).await.map_err(std::io::Error::other);
        let errors = opened.flatten().map_err(|error| unkept(&error))?;
        let mut import = Import {
            performer: self,
            run,
            library,
            index,
            done,
            found,
            progress: run.progress(),
            errors,
            flight: FuturesOrdered::new(),
            last_turn: None,
            halted: watch::Sender::new(false),
            uncounted: false,
        };
        import.progress.total = run.job().spec.input.map(|input| input.units).or(match &input {
            Input::Lines(lines) => Some(lines.len() as u64),
            Input::File(_) => None,
        });
        run.advance(import.progress).await;
        if !import.done.batch().0 {
            import.note(None).await?;
        }
        import.run(input).await
    }

    /// What a job works on: the lines that are in the log with it, or a file.
    async fn input(&self, run: &JobRun) -> Result<Input, Unable> {
        let (id, spec) = (run.head().id, &run.job().spec);
        let Some(input) = spec.input else {
            let parameters: Parameters<'_> = serde_json::from_str(&spec.parameters)
                .map_err(|error| Unable::Failed(format!("its parameters do not read: {error}")))?;
            let lines = parameters.documents.iter();
            let lines: Vec<_> = lines.map(|it| Bytes::from(it.get().to_owned())).collect();
            return Ok(Input::Lines(lines.into_iter()));
        };
        let files = self.files.clone();
        let opened = tokio::task::spawn_blocking(move || files.open_input(id, input)).await;
        let opened = opened.map_err(|error| Unable::Again(error.to_string()))?;
        let file = opened.map_err(|error| {
            Unable::Failed(format!(
                "what it works on cannot be read ({error}); submit it again (backups do not hold \
                 what waiting jobs work on)"
            ))
        })?;
        Ok(Input::file(file))
    }
}

/// The parameters of an import whose documents are in the log with it.
#[derive(serde::Deserialize)]
struct Parameters<'a> {
    #[serde(borrow, default)]
    documents: Vec<&'a serde_json::value::RawValue>,
}

impl Import<'_> {
    async fn run(mut self, mut input: Input) -> Result<Performed, Unable> {
        let mut outcome = self.units(&mut input).await;
        // What is being written will be in the log: it is counted, whatever stops this.
        while !self.flight.is_empty() {
            if outcome.is_err() {
                self.halted.send_replace(true);
            }
            let landed = self.next_landed(outcome.is_ok()).await;
            // The first that went wrong is why it stops.
            outcome = outcome.and(landed);
        }
        self.run.advance(self.progress).await;
        let result = self.result();
        match outcome {
            Ok(()) => {
                self.note_end(true).await;
                Ok(Performed::Completed(result))
            }
            Err(Unable::Halted(Halt::Cancelled)) => {
                self.note_end(false).await;
                Ok(Performed::Cancelled(Some(result)))
            }
            Err(Unable::Failed(error) | Unable::Refused(error)) => {
                self.note_end(false).await;
                Ok(Performed::Failed { error, result: Some(result) })
            }
            Err(Unable::Again(error)) => {
                if self.run.is_last_try() {
                    self.note_end(false).await;
                }
                Ok(Performed::Again { error, result: Some(result) })
            }
            Err(Unable::Later(error, after)) => {
                Ok(Performed::Later { error, after, result: Some(result) })
            }
            Err(Unable::Halted(Halt::Stopping)) => Ok(Performed::Stopped),
        }
    }

    async fn units(&mut self, input: &mut Input) -> Result<(), Unable> {
        let (settled, mut line, mut number) = (self.progress.current, 0_u64, 0_u64);
        loop {
            self.run.check()?;
            while self.flight.len() >= IMPORT_BATCHES_IN_FLIGHT {
                self.next_landed(true).await?;
            }
            let unit = next_unit(input)?;
            if unit.is_empty() {
                return Ok(());
            }
            let first = line;
            line += unit.len() as u64;
            if line > settled {
                self.send(number, first, unit)?;
            }
            number += 1;
            // Reading and parsing take their turns with what else the runtime does.
            tokio::task::yield_now().await;
        }
    }

    /// Waits for the oldest unit on its way; where it `may_halt`, no longer than until it is to stop.
    async fn next_landed(&mut self, may_halt: bool) -> Result<(), Unable> {
        let landed = tokio::select! {
            landed = self.flight.next() => landed,
            halt = self.run.halted(), if may_halt => return Err(halt.into()),
        };
        match landed {
            Some(landed) => self.land(landed).await,
            None => Ok(()),
        }
    }

    /// Sends a unit on its way, after those it must not overtake.
    fn send(&mut self, number: u64, first: u64, unit: Vec<InputLine>) -> Result<(), Unable> {
        let job = self.run.head().id;
        let limits = &self.performer.limits;
        let (mut items, mut documents) = (Vec::with_capacity(unit.len()), Vec::new());
        for (index, InputLine { text, number: of_body }) in (first..).zip(unit) {
            let line = Origin { index, number: of_body };
            let read = read_json(&text, |r| read_document(r, Form::Line, limits));
            items.push(match read {
                Err(problem) => Item::Refused { line, error: problem.full_detail() },
                Ok(mut document) => {
                    let is_own = document.id.is_none();
                    let id = *document.id.get_or_insert_with(|| document_id(job, index));
                    let found = if is_own { self.found(id)? } else { None };
                    if let Some(chunks) = self.done.chunks(number, id).or(found) {
                        Item::Done(chunks)
                    } else {
                        documents.push(document);
                        Item::Document { line }
                    }
                }
            });
        }
        let place = (self.run.head().tenant, self.library);
        let (engine, unit) = (self.run.engine().clone(), self.run.unit(number));
        let (done, next_turn) = oneshot::channel::<Infallible>();
        let before = self.last_turn.replace(next_turn);
        let turn = Turn { before, halted: self.halted.clone(), came: Arc::default() };
        self.flight.push_back(Box::pin(async move {
            let outcome = put(&engine, (place, unit), documents, turn).await;
            // However it went: the next one looks whether its turn has come.
            drop(done);
            Landed { items, outcome }
        }));
        Ok(())
    }

    /// The chunks of a document of this job's own making, where only its being there tells that it
    /// was written. Documents of the callers' ids are written again in that case, as they are.
    fn found(&self, id: DocumentId) -> Result<Option<u32>, Unable> {
        let Some(library) = &self.found else { return Ok(None) };
        let found = tokio::task::block_in_place(|| library.document(id, Embeddings::Omitted))?;
        Ok(found.map(|document| u32::try_from(document.chunks.len()).unwrap_or(u32::MAX)))
    }

    async fn land(&mut self, landed: Landed) -> Result<(), Unable> {
        let Landed { items, outcome } = landed;
        let Some(outcome) = outcome.filter(|_outcome| !self.uncounted) else { return Ok(()) };
        // Nothing of the unit was written, or not all: it is not counted, nor is anything after it.
        let written = outcome?;
        let mut progress = self.progress;
        progress.through = progress.through.max(written.seq);
        let mut receipts = written.value.into_iter();
        let mut added = Added::default();
        for item in items {
            progress.current += 1;
            let (line, error) = match item {
                Item::Done(chunks) => {
                    progress.chunks += u64::from(chunks);
                    continue;
                }
                Item::Document { line } => {
                    match receipts.next().unwrap_or(Err(EngineError::Closed)) {
                        Ok(receipt) => {
                            progress.chunks += receipt.chunks as u64;
                            added.count(&receipt);
                            continue;
                        }
                        Err(error) => (line, Problem::from(error).detail().to_owned()),
                    }
                }
                Item::Refused { line, error } => (line, error),
            };
            progress.failed += 1;
            let number = line.number.map(|number| ("line_number".to_owned(), number.into()));
            self.errors.push(line.index, number.into_iter().collect(), &error);
        }
        self.performer.metrics.added(self.library, self.index, added);
        // What is counted is kept, or the unit is looked at again.
        let kept = tokio::task::block_in_place(|| self.errors.sync());
        self.uncounted = kept.is_err();
        kept.map_err(|error| unkept(&error))?;
        self.progress = progress;
        self.run.advance(self.progress).await;
        Ok(())
    }

    fn result(&self) -> String {
        let JobProgress { current, failed, chunks, total, .. } = self.progress;
        let result = json!({
            "imported": current.saturating_sub(failed),
            "failed": failed,
            "not_imported": total.map(|total| total.saturating_sub(current)),
            "total_chunks": chunks,
            "library_id": self.library.to_string(),
        });
        with_errors(result, (self.run.head().id, &self.errors))
    }

    async fn note_end(&mut self, completed: bool) {
        if self.done.batch().1 {
            return;
        }
        let JobProgress { current, failed, .. } = self.progress;
        let successful = current.saturating_sub(failed);
        let end = BatchEnd {
            successful,
            failed,
            outcome: BatchOutcome::of((successful, failed), completed),
        };
        if let Err(
            Unable::Failed(error)
            | Unable::Refused(error)
            | Unable::Again(error)
            | Unable::Later(error, _),
        ) = self.note(Some(end)).await
        {
            tracing::warn!(job = %self.run.head().id, error, "the end of its batch is not noted");
        }
    }

    /// Notes that the batch, which is the job, begins or ends.
    async fn note(&mut self, end: Option<BatchEnd>) -> Result<(), Unable> {
        let head = self.run.head();
        let id = BatchId::from_bytes(head.id.to_bytes());
        let total = self.progress.total;
        let note = BatchNote { id, operation: BatchOperation::Import, total, end };
        self.run.engine().note_batch(head.tenant, self.library, note).await?;
        Ok(())
    }
}

fn next_unit(input: &mut Input) -> Result<Vec<InputLine>, Unable> {
    // Files are read through a buffer, a unit at a time: short reads of what was just written.
    tokio::task::block_in_place(|| input.next_unit(IMPORT_BATCH_DOCUMENTS, IMPORT_BATCH_BYTES))
        .map_err(|error| Unable::Again(format!("what it works on cannot be read: {error}")))
}

/// The id of a document that has none of its own: it follows from the job and the line, and sorts
/// with the job's own.
fn document_id(job: JobId, line: u64) -> DocumentId {
    let bytes = job.to_bytes();
    let mut hash = Sha256::new();
    hash.update(bytes);
    hash.update(line.to_le_bytes());
    let hash = hash.finalize();
    let mut random = [0; 10];
    random.copy_from_slice(&hash[..10]);
    let mut millis = [0; 8];
    millis[2..].copy_from_slice(&bytes[..6]);
    let millis = u64::from_be_bytes(millis);
    DocumentId::new(Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
}

type Place = (arrwdb_engine::state::TenantId, LibraryId);

/// When a unit may be written: once the one before is, and while nothing has stopped the import. A
/// unit after one that could not be written is not written either, or a document that is in both
/// would end up as the earlier one has it.
struct Turn {
    /// Ends, without a value, when the unit before is done.
    before: Option<oneshot::Receiver<Infallible>>,
    halted: watch::Sender<bool>,
    came: Arc<AtomicBool>,
}

impl Turn {
    /// Waits for the unit before, however it went.
    async fn follow(&mut self) {
        if let Some(before) = &mut self.before {
            before.await.map_or_else(|_done| (), |never| match never {});
        }
        self.before = None;
    }

    async fn come(&mut self) {
        self.follow().await;
        if !self.came.load(Ordering::SeqCst) && *self.halted.borrow() {
            return std::future::pending().await;
        }
        self.came.store(true, Ordering::SeqCst);
    }

    /// Ends when the turn will not come any more.
    fn lost(&self) -> impl Future<Output = ()> + use<> {
        let (mut halted, came) = (self.halted.subscribe(), self.came.clone());
        async move {
            let stopped = halted.wait_for(|halted| *halted).await.is_ok();
            if !stopped || came.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Writes a unit; `None` if its turn did not come.
async fn put(
    engine: &Engine,
    place: (Place, JobUnit),
    documents: Vec<PutDocument>,
    mut turn: Turn,
) -> Option<Outcome> {
    let (lost, halted) = (turn.lost(), turn.halted.clone());
    let write = async {
        let outcome = put_unit(engine, place, &documents, &mut turn).await.and_then(whole);
        if outcome.is_err() {
            // It stops those after it, and not one before it that is not through yet.
            turn.follow().await;
        }
        outcome
    };
    let outcome = tokio::select! {
        outcome = write => outcome,
        () = lost => return None,
    };
    if outcome.is_err() {
        halted.send_replace(true);
    }
    Some(outcome)
}

/// What could not be written for no fault of a document's own fails the unit, which is tried again.
fn whole(written: Written<Receipts>) -> Outcome {
    let passing = |error: &&EngineError| {
        // A provider that fails for a moment loses no document.
        !error.may_be_of_a_text()
            && !matches!(
                error,
                EngineError::TooManyDocuments(_)
                    | EngineError::Invalid { .. }
                    | EngineError::Blank { .. }
                    | EngineError::Vector { .. }
            )
    };
    let failed = written.value.iter().filter_map(|it| it.as_ref().err()).find(passing);
    failed.cloned().map_or(Ok(written), Err)
}

/// Writes documents; a full queue is asked again until it takes them.
async fn put_unit(
    engine: &Engine,
    (place, unit): (Place, JobUnit),
    documents: &[PutDocument],
    turn: &mut Turn,
) -> Outcome {
    let started = Instant::now();
    loop {
        if documents.is_empty() {
            turn.come().await;
            return Ok(Written { seq: Seq::START, value: Vec::new() });
        }
        let documents = documents.to_vec();
        let outcome = engine.put_documents_of_job(place, unit, documents, turn.come()).await;
        let wait: Option<Duration> = match &outcome {
            // The embedder has waited for that already, as long as it may.
            Ok(_) | Err(EngineError::Embedding(EmbedError::RateLimited { .. })) => None,
            Err(error) => busy_for(error),
        };
        match wait {
            Some(wait) if started.elapsed() + wait < IMPORT_BUSY_WAIT_MAX => {
                tokio::time::sleep(wait).await;
            }
            Some(_) | None => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_follows_from_the_job_and_the_line_alone() {
        let job: JobId = "0191f4a2-7c3e-7abc-8def-0123456789ab".parse().unwrap();
        let ids: std::collections::BTreeSet<_> = (0..1000).map(|n| document_id(job, n)).collect();
        assert_eq!(ids.len(), 1000);
        assert_eq!(document_id(job, 7), document_id(job, 7));
        assert!(ids.iter().all(|id| id.to_string().starts_with("0191f4a2-7c3e-7")));
    }
}
