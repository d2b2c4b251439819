//! `batch_delete`: documents are deleted, wherever they are or by a filter, a thousand at a time.

use std::collections::BTreeMap;

use arrwdb_engine::state::limits::BATCH_DOCUMENTS_MAX;
use arrwdb_engine::state::{DocumentId, Filter, LibraryId};
use arrwdb_engine::{EngineError, Moment};
use arrwdb_feed::{DoneUnits, Halt, JobRun, Performed};
use serde_json::{Map, Value, json};

use super::errors::ErrorLog;
use super::{Performer, Unable, unkept, with_errors};

/// What a job was asked to delete.
#[derive(serde::Deserialize)]
struct Parameters {
    #[serde(default)]
    document_ids: Vec<String>,
    /// In place of ids.
    filter: Option<Value>,
}

impl Performer {
    pub(super) async fn delete(&self, run: &JobRun) -> Result<Performed, Unable> {
        let parameters: Parameters = serde_json::from_str(&run.job().spec.parameters)
            .map_err(|error| Unable::Failed(format!("its parameters do not read: {error}")))?;
        let done = if run.is_resumed() { run.done_units().await? } else { DoneUnits::default() };
        if let (Some(library), 0) = (run.head().library, run.progress().current) {
            // Of one that was deleted before anything was done, it is not each document that is missing.
            run.engine().library(run.head().tenant, library, None).await?;
        }
        if let Some(filter) = parameters.filter {
            return self.delete_passing(run, filter, &done).await;
        }
        let mut progress = run.progress();
        let ids = parameters.document_ids;
        progress.total = Some(ids.len() as u64);
        let settled = usize::try_from(progress.current).unwrap_or(usize::MAX);
        let id = run.head().id;
        let opened =
            tokio::task::block_in_place(|| ErrorLog::open(&self.files, id, progress.current));
        let mut errors = opened.map_err(|error| unkept(&error))?;
        let mut halted = None;
        for (number, unit) in (0_u64..).zip(ids.chunks(BATCH_DOCUMENTS_MAX)) {
            let end =
                usize::try_from(number).unwrap_or(usize::MAX).saturating_mul(BATCH_DOCUMENTS_MAX)
                    + unit.len();
            if end <= settled {
                continue;
            }
            if let Err(halt) = run.check() {
                halted = Some(halt);
                break;
            }
            let gone = self.delete_unit(run, number, unit, &done).await?;
            progress.through = progress.through.max(gone.through);
            for (place, entry, error) in gone.missing {
                errors.push(progress.current + place, entry, &error);
            }
            tokio::task::block_in_place(|| errors.sync()).map_err(|error| unkept(&error))?;
            progress.current += unit.len() as u64;
            progress.failed += (unit.len() - gone.documents) as u64;
            progress.chunks += gone.chunks;
            run.advance(progress).await;
        }
        let result = json!({
            "deleted": progress.current - progress.failed,
            "failed": progress.failed,
        });
        let result = with_errors(result, (id, &errors));
        match halted {
            None => Ok(Performed::Completed(result)),
            Some(Halt::Cancelled) => Ok(Performed::Cancelled(Some(result))),
            Some(Halt::Stopping) => Ok(Performed::Stopped),
        }
    }

    /// Deletes what passes when this begins, or goes on: what was deleted before passes no more.
    async fn delete_passing(
        &self,
        run: &JobRun,
        filter: Value,
        done: &DoneUnits,
    ) -> Result<Performed, Unable> {
        let filter = Filter::read_recorded(filter)
            .map_err(|fault| Unable::Failed(format!("its filter does not read: {fault}")))?;
        let Some(library) = run.head().library else {
            return Err(Unable::Failed("it says no library".to_owned()));
        };
        let place = (run.head().tenant, library);
        let mut progress = run.progress();
        // What was done before the restart and is not counted yet.
        let (documents, chunks) = done.totals();
        progress.current += documents;
        progress.chunks += chunks;
        progress.through = progress.through.max(done.through());
        let all = (filter, Moment::default());
        let selected = run.engine().select(place.0, library, all).await?;
        progress.total = Some(progress.current + selected.documents());
        let first = done.last_unit().map_or(progress.current, |last| last + 1);
        let mut halted = None;
        for (number, versions) in (first..).zip(selected.versions().chunks(BATCH_DOCUMENTS_MAX)) {
            if let Err(halt) = run.check() {
                halted = Some(halt);
                break;
            }
            let unit = Some(run.unit(number));
            let written = run.engine().delete_versions(place, versions.to_vec(), unit).await?;
            let count = usize::try_from(written.value.documents).unwrap_or(usize::MAX);
            self.metrics.deleted(library, count, written.value.chunks);
            progress.through = progress.through.max(written.seq);
            progress.current += versions.len() as u64;
            progress.failed += written.value.changed;
            progress.chunks += written.value.chunks;
            run.advance(progress).await;
        }
        let result = json!({
            "deleted": progress.current - progress.failed,
            "chunks_deleted": progress.chunks,
            // Replaced or deleted by somebody else before it was their turn.
            "documents_changed": progress.failed,
        })
        .to_string();
        match halted {
            None => Ok(Performed::Completed(result)),
            Some(Halt::Cancelled) => Ok(Performed::Cancelled(Some(result))),
            Some(Halt::Stopping) => Ok(Performed::Stopped),
        }
    }

    async fn delete_unit(
        &self,
        run: &JobRun,
        number: u64,
        unit: &[String],
        done: &DoneUnits,
    ) -> Result<Gone, Unable> {
        let tenant = run.head().tenant;
        let ids: Vec<Option<DocumentId>> = unit.iter().map(|id| id.parse().ok()).collect();
        // What the log says was deleted for this unit before is not looked for again. One that is
        // named twice is deleted once, then and now.
        let mut deleted = BTreeMap::new();
        for id in ids.iter().flatten() {
            deleted.extend(done.chunks(number, *id).map(|chunks| (*id, chunks)));
        }
        let mut gone = Gone::default();
        let wanted: Vec<DocumentId> =
            ids.iter().flatten().filter(|id| !deleted.contains_key(id)).copied().collect();
        let (by_library, ambiguous) = owners(run, wanted).await?;
        for (library, ids) in by_library {
            let unit = run.unit(number);
            let outcome =
                run.engine().delete_documents_of_job((tenant, library), unit, ids.clone());
            match outcome.await {
                Ok(written) => {
                    gone.through = gone.through.max(written.seq);
                    let chunks = written.value.iter().flatten();
                    let sum = chunks.clone().map(|chunks| u64::from(*chunks)).sum();
                    self.metrics.deleted(library, chunks.count(), sum);
                    let chunks = ids.into_iter().zip(written.value);
                    deleted.extend(chunks.filter_map(|(id, chunks)| Some((id, chunks?))));
                }
                // Deleted with everything in it in between.
                Err(EngineError::LibraryNotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for (place, (text, id)) in (0..).zip(unit.iter().zip(&ids)) {
            let chunks = id.as_ref().and_then(|id| deleted.remove(id));
            let (named, error) = match (chunks, id) {
                (Some(chunks), _) => {
                    gone.documents += 1;
                    gone.chunks += u64::from(chunks);
                    continue;
                }
                (None, Some(id)) => {
                    let error = ambiguous.get(id).cloned();
                    (id.to_string(), error.unwrap_or_else(|| "Document not found".to_owned()))
                }
                (None, None) => {
                    (text.chars().take(64).collect(), "is not a document id".to_owned())
                }
            };
            let entry = [("document_id".to_owned(), named.into())];
            gone.missing.push((place, entry.into_iter().collect(), error));
        }
        Ok(gone)
    }
}

/// What became of a unit.
#[derive(Default)]
struct Gone {
    documents: usize,
    chunks: u64,
    /// Which of its ids, what names it, and why it was not deleted.
    missing: Vec<(u64, Map<String, Value>, String)>,
    through: arrwdb_engine::state::Seq,
}

/// The documents by the library that has each, and what is wrong with those that several have.
async fn owners(
    run: &JobRun,
    wanted: Vec<DocumentId>,
) -> Result<(BTreeMap<LibraryId, Vec<DocumentId>>, BTreeMap<DocumentId, String>), Unable> {
    if let Some(library) = run.head().library {
        return Ok((BTreeMap::from([(library, wanted)]), BTreeMap::new()));
    }
    let found = run.engine().owners_of_documents(run.head().tenant, wanted.clone()).await?;
    let mut by_library: BTreeMap<LibraryId, Vec<DocumentId>> = BTreeMap::new();
    let mut ambiguous = BTreeMap::new();
    for (id, library) in wanted.into_iter().zip(found) {
        match library {
            Ok(library) => by_library.entry(library).or_default().push(id),
            Err(error @ EngineError::AmbiguousDocument { .. }) => {
                ambiguous.insert(id, error.to_string());
            }
            Err(_not_found) => {}
        }
    }
    Ok((by_library, ambiguous))
}
