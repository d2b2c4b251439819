//! What of a job's units is in the log: how one that goes on after a restart does nothing twice.

use std::collections::HashMap;

use arrwdb_engine::state::{
    DocumentId, Job, JobUnit, LibraryEntry, LibraryOutline, OutlineChange, Seq,
};
use arrwdb_engine::{Engine, FollowError, Subject, WantedRecords};

use crate::error::{FeedError, undecodable};
use crate::feed::storage;

/// The documents of a job's units that are in the log already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DoneUnits {
    /// Of each unit, its documents with their chunks.
    units: HashMap<u64, HashMap<DocumentId, u32>>,
    /// The last record of them.
    through: Seq,
    /// Records of the job may be missing here: the log does not go back to where it began.
    is_cut: bool,
    /// What was said of the batch that the job is: that it began, that it ended.
    batch: (bool, bool),
}

/// A record without a unit that takes more is no note of a batch.
const NOTE_BYTES_MAX: usize = 256;

impl DoneUnits {
    /// The chunks of a document that a unit wrote or deleted, if it did.
    pub fn chunks(&self, unit: u64, document: DocumentId) -> Option<u32> {
        self.units.get(&unit)?.get(&document).copied()
    }

    /// The documents of all units, and their chunks.
    pub fn totals(&self) -> (u64, u64) {
        let all = self.units.values().flat_map(HashMap::values);
        all.fold((0, 0), |(documents, sum), chunks| (documents + 1, sum + u64::from(*chunks)))
    }

    /// The last unit of which something is here.
    pub fn last_unit(&self) -> Option<u64> {
        self.units.keys().copied().max()
    }

    /// The last record that the job wrote.
    pub fn through(&self) -> Seq {
        self.through
    }

    /// Whether the log does not go back to where the job began: a document that is not here may
    /// have been written all the same.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Whether it was said that the batch began which the job is, and that it ended.
    pub fn batch(&self) -> (bool, bool) {
        self.batch
    }

    fn note(&mut self, seq: Seq, unit: u64, documents: impl Iterator<Item = (DocumentId, u32)>) {
        self.units.entry(unit).or_default().extend(documents);
        self.through = seq;
    }
}

/// Reads what the log has of a job after its progress.
pub(super) async fn done_units(engine: &Engine, job: &Job) -> Result<DoneUnits, FeedError> {
    let wanted = job.spec.head.library.map(|library| engine.generations_of(library));
    let wanted = wanted.map_or(WantedRecords::All, WantedRecords::Library);
    let (id, engine) = (job.spec.head.id, engine.clone());
    let after = job.progress.through.max(job.submitted);
    let (begun, progress) = (job.started_at.is_some(), job.progress);
    let read = move || -> Result<DoneUnits, FollowError> {
        // What is counted came after the beginning.
        let batch = (progress.through > Seq::START, false);
        let mut done = DoneUnits { batch, ..DoneUnits::default() };
        let records = match engine.read_records(after, wanted.clone()) {
            Err(FollowError::Trimmed { first }) => {
                // One that never began did nothing.
                done.is_cut = begun;
                let before = Seq::new(first.get().saturating_sub(1));
                engine.read_records(before, wanted)?
            }
            other => other?,
        };
        for record in records {
            let record = record?;
            if !matches!(record.subject, Subject::Library(library) if !library.is_companion()) {
                continue;
            }
            let Some(part) = record.parts.first() else { continue };
            let of = LibraryEntry::unit(part).map_err(|error| undecodable(record.seq, &error))?;
            let unit = match of {
                Some(JobUnit { job, unit }) if job == id => Some(unit),
                None if part.len() <= NOTE_BYTES_MAX => None,
                Some(_) | None => continue,
            };
            let outline = LibraryOutline::read(&record.parts)
                .map_err(|error| undecodable(record.seq, &error))?;
            match (unit, outline.change) {
                (Some(unit), change) => note(&mut done, (record.seq, unit), change),
                (None, OutlineChange::Batch(note)) if note.id.to_bytes() == id.to_bytes() => {
                    done.batch.0 |= note.end.is_none();
                    done.batch.1 |= note.end.is_some();
                }
                (None, _) => {}
            }
        }
        Ok(done)
    };
    let read = tokio::task::spawn_blocking(read).await.map_err(|error| storage(&error))?;
    Ok(read?)
}

fn note(done: &mut DoneUnits, (seq, unit): (Seq, u64), change: OutlineChange) {
    let count = |chunks: usize| u32::try_from(chunks).unwrap_or(u32::MAX);
    match change {
        OutlineChange::Put(documents) => {
            let documents = documents.iter().map(|it| (it.id, count(it.chunks.len())));
            done.note(seq, unit, documents);
        }
        OutlineChange::Deleted(documents) => {
            let documents = documents.iter().map(|it| (it.id, count(it.chunks.len())));
            done.note(seq, unit, documents);
        }
        OutlineChange::Batch(_) | OutlineChange::Field(_) | OutlineChange::Matched(_) => {}
    }
}
