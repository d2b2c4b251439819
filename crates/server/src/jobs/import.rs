//! `batch_import`: documents that came with the job are added, unit by unit.
//!
//! ```text
//! input -> units (borders depend on the input alone) -> a few made ready at once -> written in order
//! ```
//! A document's id is the caller's, or follows from the job and the line, so a unit that is tried
//! again writes what is missing and nothing twice.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use arrwdb_engine::state::{
    BatchEnd, BatchId, BatchNote, BatchOperation, BatchOutcome, DocumentId, JobId, JobProgress,
    LibraryId, Seq,
};
use arrwdb_engine::{Engine, EngineError, PutDocument, PutReceipt, Written};
use arrwdb_feed::{DoneUnits, JobRun, Performed};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, StreamExt};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use uuid::Builder;

use super::{ERRORS_SHOWN, Input, Performer, Unable, library_of, shown};
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
    Document { line: u64 },
    /// It is no document.
    Refused { line: u64, error: String },
}

/// A unit that came back.
struct Landed {
    items: Vec<Item>,
    outcome: Result<Written<Vec<Result<PutReceipt, EngineError>>>, EngineError>,
}

/// Ends, without a value, when the unit before is written.
type Turn = oneshot::Receiver<Infallible>;

/// An import on its way.
struct Import<'a> {
    performer: &'a Performer,
    run: &'a JobRun,
    library: LibraryId,
    index: &'static str,
    done: DoneUnits,
    progress: JobProgress,
    errors: Vec<Value>,
    flight: FuturesOrdered<BoxFuture<'static, Landed>>,
    last_turn: Option<Turn>,
}

impl Performer {
    pub(super) async fn import(&self, run: &JobRun) -> Result<Performed, Unable> {
        let library = library_of(run)?;
        let tenant = run.head().tenant;
        let snapshot = run.engine().library(tenant, library, None).await?;
        let index = snapshot.spec().index.name();
        drop(snapshot);
        let done = if run.is_resumed() { run.done_units().await? } else { DoneUnits::default() };
        if done.is_cut() {
            let error = "it was interrupted so long ago that the log does not tell any more what it \
                         had added: look, and submit what is missing";
            return Err(Unable::Failed(error.to_owned()));
        }
        let input = self.input(run).await?;
        if !run.is_resumed() {
            note(run, library, None).await?;
        }
        let import = Import {
            performer: self,
            run,
            library,
            index,
            done,
            progress: run.progress(),
            errors: Vec::new(),
            flight: FuturesOrdered::new(),
            last_turn: None,
        };
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
        let total = self.run.job().spec.input.map(|input| input.units).or(match &input {
            Input::Lines(lines) => Some(lines.len() as u64),
            Input::File(_) => None,
        });
        self.progress.total = total;
        let outcome = self.units(&mut input).await;
        // What is on its way is in the log, or will be: it is counted, whatever stops this.
        while let Some(landed) = self.flight.next().await {
            self.land(landed).await?;
        }
        self.run.advance(self.progress).await;
        let result = self.result();
        match outcome {
            Ok(()) => {
                self.note_end(true).await;
                Ok(Performed::Completed(result))
            }
            Err(Unable::Halted(arrwdb_feed::Halt::Cancelled)) => {
                self.note_end(false).await;
                Ok(Performed::Cancelled(Some(result)))
            }
            Err(Unable::Failed(error)) => {
                self.note_end(false).await;
                Ok(Performed::Failed { error, result: Some(result) })
            }
            Err(unable) => Err(unable),
        }
    }

    async fn units(&mut self, input: &mut Input) -> Result<(), Unable> {
        let (settled, mut line, mut number) = (self.progress.current, 0_u64, 0_u64);
        loop {
            self.run.check()?;
            while self.flight.len() >= IMPORT_BATCHES_IN_FLIGHT {
                if let Some(landed) = self.flight.next().await {
                    self.land(landed).await?;
                }
            }
            let unit = next_unit(input)?;
            if unit.is_empty() {
                return Ok(());
            }
            let first = line;
            line += unit.len() as u64;
            if line > settled {
                self.send(number, first, unit);
            }
            number += 1;
            // Reading and parsing take their turns with what else the runtime does.
            tokio::task::yield_now().await;
        }
    }

    /// Sends a unit on its way, after those it must not overtake.
    fn send(&mut self, number: u64, first: u64, unit: Vec<Bytes>) {
        let job = self.run.head().id;
        let limits = &self.performer.limits;
        let (mut items, mut documents) = (Vec::with_capacity(unit.len()), Vec::new());
        for (line, text) in (first..).zip(unit) {
            let read = read_json(&text, |r| read_document(r, Form::Line, limits));
            items.push(match read {
                Err(problem) => Item::Refused { line, error: problem.full_detail() },
                Ok(mut document) => {
                    let id = *document.id.get_or_insert_with(|| document_id(job, line));
                    if let Some(chunks) = self.done.chunks(number, id) {
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
        let turn = self.last_turn.replace(next_turn);
        self.flight.push_back(Box::pin(async move {
            let outcome = put(&engine, (place, unit), documents, turn).await;
            // However it went: the next one's turn has come.
            drop(done);
            Landed { items, outcome }
        }));
    }

    async fn land(&mut self, landed: Landed) -> Result<(), Unable> {
        let Landed { items, outcome } = landed;
        let mut receipts = match outcome {
            Ok(written) => {
                self.progress.through = self.progress.through.max(written.seq);
                written.value.into_iter()
            }
            // Nothing of the unit was written, nor is anything after it counted.
            Err(error) => return Err(error.into()),
        };
        let mut added = Added::default();
        for item in items {
            self.progress.current += 1;
            let (line, error) = match item {
                Item::Done(chunks) => {
                    self.progress.chunks += u64::from(chunks);
                    continue;
                }
                Item::Document { line } => {
                    match receipts.next().unwrap_or(Err(EngineError::Closed)) {
                        Ok(receipt) => {
                            self.progress.chunks += receipt.chunks as u64;
                            added.count(&receipt);
                            continue;
                        }
                        Err(error) => (line, Problem::from(error).detail().to_owned()),
                    }
                }
                Item::Refused { line, error } => (line, error),
            };
            self.progress.failed += 1;
            if self.errors.len() < ERRORS_SHOWN {
                self.errors.push(json!({"index": line, "error": shown(&error)}));
            }
        }
        self.performer.metrics.added(self.library, self.index, added);
        self.run.advance(self.progress).await;
        Ok(())
    }

    fn result(&self) -> String {
        let JobProgress { current, failed, chunks, .. } = self.progress;
        json!({
            "imported": current.saturating_sub(failed),
            "failed": failed,
            "total_chunks": chunks,
            "library_id": self.library.to_string(),
            "errors": self.errors,
        })
        .to_string()
    }

    async fn note_end(&mut self, completed: bool) {
        let JobProgress { current, failed, .. } = self.progress;
        let outcome = if completed { BatchOutcome::Completed } else { BatchOutcome::Failed };
        let end = BatchEnd { successful: current.saturating_sub(failed), failed, outcome };
        if let Err(Unable::Failed(error) | Unable::Again(error) | Unable::Later(error)) =
            note(self.run, self.library, Some(end)).await
        {
            tracing::warn!(job = %self.run.head().id, error, "the end of its batch is not noted");
        }
    }
}

/// Notes that the batch, which is the job, begins or ends.
async fn note(run: &JobRun, library: LibraryId, end: Option<BatchEnd>) -> Result<(), Unable> {
    let head = run.head();
    let id = BatchId::from_bytes(head.id.to_bytes());
    let total = run.job().spec.input.map(|input| input.units);
    let note = BatchNote { id, operation: BatchOperation::Import, total, end };
    run.engine().note_batch(head.tenant, library, note).await?;
    Ok(())
}

fn next_unit(input: &mut Input) -> Result<Vec<Bytes>, Unable> {
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

/// Writes a unit; a full queue is asked again until it takes it.
async fn put(
    engine: &Engine,
    (place, unit): (Place, arrwdb_engine::state::JobUnit),
    documents: Vec<PutDocument>,
    mut turn: Option<Turn>,
) -> Result<Written<Vec<Result<PutReceipt, EngineError>>>, EngineError> {
    let started = Instant::now();
    loop {
        let turn = async {
            if let Some(turn) = turn.take() {
                // Nothing is ever sent: the unit before is done when its end is dropped.
                turn.await.map_or_else(|_done| (), |never| match never {});
            }
        };
        if documents.is_empty() {
            turn.await;
            return Ok(Written { seq: Seq::START, value: Vec::new() });
        }
        let outcome = engine.put_documents_of_job(place, unit, documents.clone(), turn).await;
        let wait: Option<Duration> = match &outcome {
            Err(error) => busy_for(error),
            Ok(_) => None,
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
