//! The log: every frame, every record, where it begins and ends, and what of it a start replays.

use std::collections::BTreeMap;
use std::path::Path;

use arrwdb_log::{CheckReport, Fault, LogError, Lost, Stream, Whole, check_records};
use arrwdb_state::{Catalog, CatalogEntry, LibraryEntry, LibraryId, Seq, WorkEntry};
use bytes::Bytes;

use super::directory::{Check, Snapshot};
use super::finding::{Findings, Remedy, Report};
use super::library::Manifests;
use super::{CheckError, Progress};

/// What a file that a repair set aside is called after its number.
const SET_ASIDE: [&str; 2] = [".log.damaged", ".log.torn"];

/// What a start takes from the log.
pub(super) struct Suffix {
    /// The catalog at the end of the log; `None` if it cannot be known.
    pub(super) catalog: Option<Catalog>,
    /// For each library, its records after its manifest.
    pub(super) records: BTreeMap<LibraryId, Vec<(Seq, Bytes)>>,
}

/// The log on its way through a check.
struct Reading<'a> {
    suffix: Suffix,
    covered: Seq,
    manifests: &'a Manifests,
    progress: &'a dyn Progress,
    findings: &'a mut Findings,
    deleted: &'a mut Vec<LibraryId>,
    undecodable: bool,
}

pub(super) fn check(
    check: &mut Check<'_>,
    snapshot: Option<&Snapshot>,
    manifests: &Manifests,
) -> Result<Suffix, CheckError> {
    let dir = check.store.log_dir();
    let Report { findings, deleted, .. } = &mut check.report;
    let mut reading = Reading {
        suffix: Suffix {
            catalog: snapshot.map(|snapshot| snapshot.read.catalog.clone()),
            records: BTreeMap::new(),
        },
        covered: snapshot.map_or(Seq::START, |snapshot| snapshot.covered),
        manifests,
        progress: check.progress,
        findings,
        deleted,
        undecodable: false,
    };
    let read = check_records(&*check.store.disk, &dir, &mut |whole| reading.take(whole));
    let Reading { mut suffix, undecodable, .. } = reading;
    let found = match read {
        Err(LogError::Damaged { file, offset, reason }) => {
            check.findings().at(Remedy::Restore, &file, offset, &*reason);
            suffix.catalog = None;
            return Ok(suffix);
        }
        other => other?,
    };
    if found.fault_count > 0 || undecodable {
        suffix.catalog = None;
    }
    names(check, &dir, &found)?;
    faults(check.findings(), &found);
    extent(check, &dir, (snapshot, manifests), &found);
    check.report.files += found.files;
    check.report.bytes += found.bytes;
    check.report.records = found.records;
    check.report.last = Seq::new(found.last);
    check.report.lost = found.lost;
    Ok(suffix)
}

impl Reading<'_> {
    fn take(&mut self, whole: Whole<'_>) {
        let Whole { file, offset, record } = whole;
        self.progress.advance(file, record.payload.len() as u64);
        let seq = Seq::new(record.seq);
        let decoded = if record.stream == Stream::CATALOG {
            CatalogEntry::decode(&record.payload).map(|entry| self.take_catalog(seq, &entry))
        } else if record.stream == Stream::WORK {
            WorkEntry::decode(&record.payload).map(drop)
        } else {
            let id = LibraryId::from_bytes(record.stream.0);
            LibraryEntry::decode(&record.payload).map(|_entry| {
                if seq > self.covered.max(self.manifests.applied(id)) {
                    let records = self.suffix.records.entry(id).or_default();
                    records.push((seq, record.payload.clone()));
                }
            })
        };
        if let Err(error) = decoded {
            self.undecodable = true;
            let what = format!(
                "record {seq} does not decode ({error}): it was written by a newer release"
            );
            self.findings.at(Remedy::Restore, file, offset, what);
        }
    }

    fn take_catalog(&mut self, seq: Seq, entry: &CatalogEntry) {
        let mut gone: Vec<LibraryId> = match (entry, &self.suffix.catalog) {
            (entry, Some(catalog)) => catalog.removed_by(entry),
            _ => Vec::new(),
        };
        if let CatalogEntry::LibraryDeleted { id, .. } = entry {
            gone.push(*id);
        }
        for id in gone {
            self.deleted.push(id);
            self.suffix.records.remove(&id);
        }
        if let Some(catalog) = &mut self.suffix.catalog
            && seq > self.covered.max(catalog.applied())
        {
            *catalog = std::mem::take(catalog).apply(seq, entry);
        }
    }
}

/// What else lies in the log's directory.
fn names(check: &mut Check<'_>, dir: &Path, found: &CheckReport) -> Result<(), CheckError> {
    for name in check.store.names(dir)? {
        let path = dir.join(&name);
        let (number, ending) = name.split_at(name.find('.').unwrap_or(name.len()));
        let numbered = number.len() == 20 && number.bytes().all(|byte| byte.is_ascii_digit());
        if found.leftovers.contains(&path) {
            check.findings().of(Remedy::Remove, &path, "left unfinished by a crash");
        } else if numbered && SET_ASIDE.iter().any(|kept| ending.starts_with(kept)) {
            let what = "set aside by an earlier repair; delete it when nothing of it is missed";
            check.findings().of(Remedy::Leave, &path, what);
        } else if !numbered || (ending != ".log" && ending != ".idx") {
            check.findings().of(Remedy::Leave, &path, "not a file of this program");
        }
    }
    for path in &found.stale_indexes {
        let what = "this index does not say what its log file holds";
        check.findings().of(Remedy::Remake, path, what);
    }
    if let Some(torn) = &found.torn_tail {
        let what = format!(
            "the last {} bytes were never finished: a crash while they were written",
            torn.bytes_cut
        );
        check.findings().at(Remedy::CutTail, &torn.file, torn.offset, what);
    }
    Ok(())
}

/// Whether the log begins and ends where the snapshot and the manifests need it.
fn extent(
    check: &mut Check<'_>,
    dir: &Path,
    (snapshot, manifests): (Option<&Snapshot>, &Manifests),
    found: &CheckReport,
) {
    let (covered, highest) = (check.report.covered.get(), check.report.highest.get());
    let mut refuse = |what: String| check.report.findings.of(Remedy::AcceptLoss, dir, what);
    if found.files == 0 {
        if highest > 0 || !manifests.is_empty() {
            refuse("there is no log, but there is data beside it: files are missing".to_owned());
        }
        return;
    }
    if snapshot.is_some() && found.previous > covered {
        refuse(format!(
            "the log begins after {}, but it is needed from {covered} on: files are missing",
            found.previous
        ));
    }
    // Bad bytes at the end have been reported.
    let end_is_bad = found.lost.last().is_some_and(|lost| lost.last.is_none());
    if found.last < highest && !end_is_bad {
        refuse(format!(
            "the log ends at {}, but a snapshot or manifest is of {highest}: its end is missing",
            found.last
        ));
    }
}

fn faults(findings: &mut Findings, found: &CheckReport) {
    for Fault { file, offset, bytes, reason, after, before } in &found.faults {
        let lost = match before {
            Some(before) if *before == after + 1 => "no record is lost".to_owned(),
            Some(before) => format!("records {} are lost", range(after + 1, Some(before - 1))),
            None => format!("records after {after} may be lost"),
        };
        let what = match bytes {
            0 => format!("{reason}; {lost}"),
            bytes => format!("{reason} ({bytes} bytes are bad); {lost}"),
        };
        findings.at(Remedy::AcceptLoss, file, *offset, what);
    }
    let more = found.fault_count - found.faults.len() as u64;
    findings.damage += more;
}

/// Numbers from the first to the last, as a text.
fn range(first: u64, last: Option<u64>) -> String {
    match last {
        Some(last) if last == first => first.to_string(),
        Some(last) => format!("{first} to {last}"),
        None => format!("{first} and all after it"),
    }
}

/// Lost numbers as a text, such as `3, 7 to 9, 12 and all after it`.
pub fn lost_numbers(lost: &[Lost]) -> String {
    lost.iter().map(|lost| range(lost.first, lost.last)).collect::<Vec<_>>().join(", ")
}
