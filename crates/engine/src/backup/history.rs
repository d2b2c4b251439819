//! The log's share of a backup: which records are new, and whether they go on from the ones that
//! are there.
//!
//! The last restore point names its newest record by its SHA-256. If the log still holds that
//! record, and what was archived after the catalog's snapshot is what the log says, the records
//! after it are new and follow; else the log is another one (the directory was restored, or made
//! anew, or its log was rewritten), and a new history begins.

use std::collections::BTreeMap;

use arrwdb_log::outside::{Carried, Outside};
use arrwdb_log::{LogError, Record, Stream};
use arrwdb_state::{Catalog, CatalogEntry, LibraryId, Seq};
use sha2::{Digest, Sha256};

use super::error::BackupError;
use super::point::{LOG_HASH_DIGITS, LastRecord, LogName, LogPart, Object, Point, hex, sha256};
use super::source::CatalogFile;
use super::take::Run;

/// A part of the log is closed when it has this many bytes, so that it fits in memory.
const PART_BYTES: u64 = 16 << 20;

/// The log from the catalog's snapshot on, in the target.
#[derive(Debug)]
pub(super) struct LogTaken {
    pub(super) history: String,
    /// The last number that is in the backup.
    pub(super) seq: u64,
    pub(super) last_record: Option<LastRecord>,
    pub(super) parts: Vec<LogPart>,
    /// Libraries deleted after the snapshot, with the record's number.
    pub(super) deleted: BTreeMap<LibraryId, u64>,
    /// Libraries at the end.
    pub(super) libraries: u64,
    /// Whether these records follow those of the last restore point.
    pub(super) follows: bool,
}

/// Brings the log from `file`'s snapshot on to the target. `None` if it was trimmed beyond the
/// snapshot meanwhile.
pub(super) fn take(run: &Run<'_>, file: &CatalogFile) -> Result<Option<LogTaken>, BackupError> {
    if let Some(previous) = &run.previous
        && let Some(taken) = follow(run, file, previous)?
    {
        return Ok(Some(taken));
    }
    begin(run, file)
}

/// Goes on from the last restore point; `None` if the log does not.
fn follow(
    run: &Run<'_>,
    file: &CatalogFile,
    previous: &Point,
) -> Result<Option<LogTaken>, BackupError> {
    let position = previous.last_record.as_ref().map_or(0, |record| record.seq);
    if position == 0 && previous.seq > 0 {
        return Ok(None);
    }
    let archived: Vec<&LogPart> =
        previous.log.iter().filter(|part| part.last > file.covered).collect();
    let oldest = archived.first().map_or(u64::MAX, |part| part.after);
    let start = file.covered.min(position.saturating_sub(1)).min(oldest);
    let mut log = open(run, start)?;
    if log.begins_after() > start {
        return Ok(None);
    }
    let mut scribe = Scribe::new(run, file, previous.history.clone(), position);
    let mut archive = Archive::new(archived, &scribe);
    let mut met = position == 0;
    loop {
        let record = match next(&mut log)? {
            Next::Record(record) => record,
            Next::End => break,
            Next::Trimmed => return Ok(None),
        };
        if record.seq > position {
            if !met || !archive.is_done() {
                return Ok(None);
            }
            scribe.add(&log, record)?;
            continue;
        }
        if record.seq == position {
            met = previous.last_record.as_ref().is_some_and(|last| *last == identity(&record));
        }
        scribe.note(&record)?;
        if !archive.compare(record) {
            return Ok(None);
        }
    }
    if !met || !archive.is_done() {
        return Ok(None);
    }
    let keep = if scribe.is_empty() { previous.log.clone() } else { archive.into_parts() };
    scribe.finish(&log, keep, true).map(Some)
}

/// Begins a new history at the snapshot.
fn begin(run: &Run<'_>, file: &CatalogFile) -> Result<Option<LogTaken>, BackupError> {
    let mut log = open(run, file.covered)?;
    if log.begins_after() > file.covered {
        return Ok(None);
    }
    let mut id = [0; 8];
    run.source.random.fill(&mut id);
    let mut scribe = Scribe::new(run, file, hex(&id), file.covered);
    let mut before = None;
    loop {
        let record = match next(&mut log)? {
            Next::Record(record) => record,
            Next::End => break,
            Next::Trimmed => return Ok(None),
        };
        if record.seq > file.covered {
            scribe.add(&log, record)?;
        } else {
            scribe.note(&record)?;
            before = Some(record);
        }
    }
    if let Some(record) = before.filter(|_| scribe.is_empty()) {
        // Nothing needs it but the next backup of what is restored from here: to know its history.
        scribe.open = Carried::after(record.seq - 1, scribe.salt.of(record.seq - 1));
        scribe.open.add(record);
    }
    scribe.finish(&log, Vec::new(), false).map(Some)
}

fn open(run: &Run<'_>, after: u64) -> Result<Outside, BackupError> {
    let dir = run.source.log_dir();
    for _look in 0..super::source::LOOKS_MAX {
        match Outside::open(run.source.disk.clone(), &dir, after) {
            // The file was listed, and is gone.
            Err(LogError::Trimmed { .. }) => {}
            other => return Ok(other?),
        }
    }
    Err(BackupError::Moving { what: dir.display().to_string() })
}

/// What comes next in the log.
enum Next {
    Record(Record),
    End,
    /// A file of it was removed before it could be read.
    Trimmed,
}

fn next(log: &mut Outside) -> Result<Next, BackupError> {
    match log.next_record() {
        Ok(Some(record)) => Ok(Next::Record(record)),
        Ok(None) => Ok(Next::End),
        Err(LogError::Trimmed { .. }) => Ok(Next::Trimmed),
        Err(error) => Err(error.into()),
    }
}

/// What a record is known by.
fn identity(record: &Record) -> LastRecord {
    let mut hash = Sha256::new();
    hash.update(record.stream.0);
    hash.update(&record.payload);
    LastRecord { seq: record.seq, sha256: hex(&hash.finalize()) }
}

/// Compares what was archived with what the log says.
struct Archive<'a> {
    parts: Vec<&'a LogPart>,
    /// How many of them were found as they are.
    same: usize,
    salt: Salt,
    open: Option<Carried>,
}

impl<'a> Archive<'a> {
    fn new(parts: Vec<&'a LogPart>, scribe: &Scribe<'_>) -> Self {
        Self { parts, same: 0, salt: scribe.salt, open: None }
    }

    /// Takes the next record of the log; `false` if something else was archived in its place.
    fn compare(&mut self, record: Record) -> bool {
        let Some(part) = self.parts.get(self.same) else { return true };
        if record.seq <= part.after {
            return true;
        }
        if record.seq > part.last {
            return false;
        }
        let ends = record.seq == part.last;
        let salt = self.salt.of(part.after);
        self.open.get_or_insert_with(|| Carried::after(part.after, salt)).add(record);
        if !ends {
            return true;
        }
        let bytes = self.open.take().map(Carried::finish).unwrap_or_default();
        self.same += 1;
        sha256(&bytes) == part.object.sha256
    }

    fn is_done(&self) -> bool {
        self.same == self.parts.len()
    }

    fn into_parts(self) -> Vec<LogPart> {
        self.parts.into_iter().cloned().collect()
    }
}

/// Follows from the history's name, so that the same records make the same file again.
#[derive(Debug, Clone, Copy)]
struct Salt(u64);

impl Salt {
    fn of(self, after: u64) -> u64 {
        self.0 ^ after.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// Writes new records to the target, part after part.
struct Scribe<'a> {
    run: &'a Run<'a>,
    history: String,
    salt: Salt,
    covered: u64,
    catalog: Catalog,
    deleted: BTreeMap<LibraryId, u64>,
    last_record: Option<LastRecord>,
    parts: Vec<LogPart>,
    open: Carried,
}

impl<'a> Scribe<'a> {
    fn new(run: &'a Run<'a>, file: &CatalogFile, history: String, position: u64) -> Self {
        let salt = Salt(u64::from_str_radix(&history, 16).unwrap_or_default());
        Self {
            run,
            history,
            salt,
            covered: file.covered,
            catalog: file.snapshot.catalog.clone(),
            deleted: BTreeMap::new(),
            last_record: None,
            parts: Vec::new(),
            open: Carried::after(position, salt.of(position)),
        }
    }

    /// Whether nothing is new.
    fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.open.first().is_none()
    }

    /// Follows the catalog.
    fn note(&mut self, record: &Record) -> Result<(), BackupError> {
        self.last_record = Some(identity(record));
        if record.stream != Stream::CATALOG || record.seq <= self.catalog.applied().get() {
            return Ok(());
        }
        let entry = CatalogEntry::decode(&record.payload).map_err(|_error| BackupError::Newer {
            what: format!("record {} of the log", record.seq),
        })?;
        self.deleted.extend(self.catalog.removed_by(&entry).into_iter().map(|id| (id, record.seq)));
        self.catalog = std::mem::take(&mut self.catalog).apply(Seq::new(record.seq), &entry);
        Ok(())
    }

    fn add(&mut self, log: &Outside, record: Record) -> Result<(), BackupError> {
        self.note(&record)?;
        if self.open.first().is_some() && self.open.bytes() >= PART_BYTES {
            self.close(log)?;
        }
        self.open.add(record);
        Ok(())
    }

    /// Stores the open part and opens the next one. What is in it is durable in the log before: a
    /// part that was sent is found by who restores, whether or not its backup was completed.
    fn close(&mut self, log: &Outside) -> Result<(), BackupError> {
        log.sync()?;
        let last = self.open.last();
        let next = Carried::after(last, self.salt.of(last));
        let part = std::mem::replace(&mut self.open, next);
        let (after, Some(first)) = (part.previous(), part.first()) else { return Ok(()) };
        let bytes = part.finish();
        let sha256 = sha256(&bytes);
        let hash = sha256[..LOG_HASH_DIGITS].to_owned();
        let name = LogName { history: self.history.clone(), after, first, last, hash };
        let key = name.key();
        self.run.expect(&key, bytes.len() as u64);
        self.run.keep_bytes(&key, &bytes)?;
        let object = Object { key, bytes: bytes.len() as u64, sha256 };
        self.parts.push(LogPart { after, first, last, object });
        Ok(())
    }

    fn finish(
        mut self,
        log: &Outside,
        before: Vec<LogPart>,
        follows: bool,
    ) -> Result<LogTaken, BackupError> {
        self.close(log)?;
        let mut parts = before;
        parts.append(&mut self.parts);
        let last = self.last_record.as_ref().map_or(0, |record| record.seq);
        Ok(LogTaken {
            history: self.history,
            seq: last.max(self.covered),
            last_record: self.last_record,
            parts,
            deleted: self.deleted,
            libraries: self.catalog.len() as u64,
            follows,
        })
    }
}
