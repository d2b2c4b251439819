//! Reading a closed log through, and saving what is whole of a damaged one (`arrwdb check`).
//!
//! A repair rewrites each damaged file without its bad bytes and sets a copy of the original aside
//! (`<first-seq>.log.damaged`). The rewritten file ends with a mark that carries the number which
//! the next file expects before it, so that the chain of files holds. A torn tail is no damage and
//! is left to opening.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frames::Frames;
use super::index::Sidecar;
use super::recover::{self, ActiveFile};
use crate::LogError;
use crate::disk::{Access, Disk, File, read_exact_at};
use crate::frame::{FRAMES_BEGIN, FileHeader};
use crate::scan::{self, Found, Payloads, READ_BYTES, Scanner, Step, Tail, Window};

/// Faults reported at most; more are counted only.
const FAULTS_MAX: usize = 1000;

/// Copies of one file set aside at most.
const COPIES_MAX: u32 = 1000;

/// Bad bytes in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The file.
    pub file: PathBuf,
    /// Where the bad bytes begin.
    pub offset: u64,
    /// How many until the next whole record, or the end of the file; 0 if something is missing.
    pub bytes: u64,
    /// What is wrong.
    pub reason: Arc<str>,
    /// Records with numbers above this and below [`Fault::before`] may be lost.
    pub after: u64,
    /// The next number that is there, if any.
    pub before: Option<u64>,
}

/// What [`check()`] found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CheckReport {
    /// Log files.
    pub files: u64,
    /// Whole records.
    pub records: u64,
    /// The highest number.
    pub last: u64,
    /// Faults, the first thousand; none if the log is sound.
    pub faults: Vec<Fault>,
    /// All faults.
    pub fault_count: u64,
    /// Bytes of a torn tail, which opening will cut.
    pub torn_bytes: u64,
}

/// What [`repair`] did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RepairReport {
    /// What was wrong.
    pub check: CheckReport,
    /// The files written anew.
    pub repaired: Vec<Repaired>,
}

/// A file written anew.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Repaired {
    /// The file.
    pub file: PathBuf,
    /// Where the damaged original is now.
    pub set_aside: PathBuf,
    /// Records it holds.
    pub records: u64,
}

/// Reads every byte of a log that nobody has open (the caller holds the lock) and changes nothing.
/// Errors only for what keeps it from reading: [`LogError::Io`], [`LogError::Newer`].
pub fn check(disk: &dyn Disk, dir: &Path) -> Result<CheckReport, LogError> {
    let mut report = CheckReport::default();
    surveys(disk, dir, &mut report)?;
    Ok(report)
}

/// Checks the log and writes damaged files anew with all whole records. Records between
/// [`Fault::after`] and [`Fault::before`] are lost, so whoever folds the log must be told. Opening
/// it afterwards, give [`crate::LogOptions::start_after`] at least the highest number known from
/// elsewhere, since the last numbers may be among the lost.
///
/// Errors: as [`check()`], [`LogError::DiskFull`], and [`LogError::Damaged`] where files contradict
/// each other in a way that bad bytes do not explain; files already repaired stay repaired.
pub fn repair(disk: &dyn Disk, dir: &Path) -> Result<RepairReport, LogError> {
    let mut report = RepairReport::default();
    let surveys = surveys(disk, dir, &mut report.check)?;
    for survey in surveys.iter().filter(|survey| survey.faulty) {
        report.repaired.push(rewrite(disk, dir, survey)?);
    }
    Ok(report)
}

/// What is known of a file after reading it through.
#[derive(Debug)]
struct Survey {
    path: PathBuf,
    /// As read, or as good as can be told.
    header: FileHeader,
    /// Whether its frames can be read: the header gave its salt, or the index did.
    legible: bool,
    last: u64,
    records: u64,
    faulty: bool,
}

/// Reads all files; faults go to `report`.
fn surveys(disk: &dyn Disk, dir: &Path, report: &mut CheckReport) -> Result<Vec<Survey>, LogError> {
    let names = disk.list(dir).map_err(LogError::io("list", dir))?;
    let firsts: Vec<u64> = names.iter().filter_map(|name| recover::parse_name(name)).collect();
    let mut surveys: Vec<Survey> = Vec::with_capacity(firsts.len());
    for (nth, &first) in firsts.iter().enumerate() {
        let path = recover::file_path(dir, first);
        let previous = surveys.last().map(|survey| survey.last);
        let file = disk.open(&path, Access::Read).map_err(LogError::io("open", &path))?;
        let mut survey = survey_header(disk, &*file, path, (first, previous), report)?;
        if let Some(before) = surveys.last_mut() {
            link(before, &survey, report)?;
        }
        survey_frames(file, &mut survey, nth + 1 == firsts.len(), report)?;
        report.files += 1;
        report.records += survey.records;
        report.last = survey.last;
        surveys.push(survey);
    }
    Ok(surveys)
}

/// Compares a file's end with what the next one says came before it.
fn link(before: &mut Survey, next: &Survey, report: &mut CheckReport) -> Result<(), LogError> {
    let previous = next.header.previous;
    if before.last > previous {
        let reason = "the next file begins before this one ends";
        return Err(LogError::damaged(&before.path, 0, reason));
    }
    if before.last < previous {
        let reason = "records are missing between this file and the next";
        if !before.faulty {
            let (file, reason) = (before.path.clone(), reason.into());
            let (after, next) = (before.last, Some(next.header.first));
            add(report, Fault { file, offset: 0, bytes: 0, reason, after, before: next });
        }
        before.faulty = true;
        before.last = previous;
    }
    Ok(())
}

fn add(report: &mut CheckReport, fault: Fault) {
    report.fault_count += 1;
    if report.faults.len() < FAULTS_MAX {
        report.faults.push(fault);
    }
}

/// A file's header; what stands in for it where it is bad.
fn survey_header(
    disk: &dyn Disk,
    file: &dyn File,
    path: PathBuf,
    (first, previous): (u64, Option<u64>),
    report: &mut CheckReport,
) -> Result<Survey, LogError> {
    let (header, legible, faulty) = match scan::read_header(file, &path, first) {
        Ok(header) => (header, true, false),
        Err(LogError::Damaged { offset, reason, .. }) => {
            let previous = previous.unwrap_or_else(|| first.saturating_sub(1));
            let sidecar = Sidecar::open(disk, &recover::index_path(&path));
            let salt = sidecar.ok().flatten().map(|sidecar| sidecar.extent().salt);
            let bytes = FRAMES_BEGIN;
            let file = path.clone();
            let fault = Fault { file, offset, bytes, reason, after: previous, before: None };
            add(report, fault);
            let header = FileHeader { first, previous, salt: salt.unwrap_or_default() };
            (header, salt.is_some(), true)
        }
        Err(other) => return Err(other),
    };
    Ok(Survey { path, header, legible, last: first.saturating_sub(1), records: 0, faulty })
}

fn survey_frames(
    file: Arc<dyn File>,
    survey: &mut Survey,
    is_last: bool,
    report: &mut CheckReport,
) -> Result<(), LogError> {
    if !survey.legible {
        return Ok(());
    }
    let failed = |error| LogError::io("read", &survey.path)(error);
    let mut salvage = Salvage::new(file, &survey.header, Payloads::Skip).map_err(failed)?;
    loop {
        let bad = match salvage.next().map_err(failed)? {
            Salvaged::Record(_) => {
                survey.records += 1;
                continue;
            }
            Salvaged::End => break,
            Salvaged::Torn(bad) if is_last => {
                report.torn_bytes = bad.bytes;
                break;
            }
            Salvaged::Torn(bad) | Salvaged::Bad(bad) => bad,
        };
        let (file, reason) = (survey.path.clone(), bad.reason.into());
        let after = salvage.scanner.last();
        let before = salvage.peek().map_err(failed)?;
        let (offset, bytes) = (bad.offset, bad.bytes);
        add(report, Fault { file, offset, bytes, reason, after, before });
        survey.faulty = true;
    }
    survey.last = salvage.scanner.last();
    Ok(())
}

/// A file's whole records, whatever lies between them.
#[derive(Debug)]
struct Salvage {
    scanner: Scanner,
    length: u64,
    ended: bool,
    /// A record read ahead.
    next: Option<Found>,
}

/// Bytes that are no frames.
struct Bad {
    offset: u64,
    bytes: u64,
    reason: &'static str,
}

enum Salvaged {
    Record(Found),
    /// Up to where frames go on, or to the end of the file.
    Bad(Bad),
    /// To the end of the file; a torn tail, if this is the last.
    Torn(Bad),
    End,
}

impl Salvage {
    fn new(file: Arc<dyn File>, header: &FileHeader, payloads: Payloads) -> io::Result<Self> {
        let length = file.length()?;
        let window = Window::new(file, length, READ_BYTES);
        let scanner = Scanner::new(window, header, payloads);
        Ok(Self { scanner, length, ended: false, next: None })
    }

    /// The number of the next record, if it follows at once.
    fn peek(&mut self) -> io::Result<Option<u64>> {
        if self.next.is_none()
            && let Step::Record(found) = self.scanner.step()?
        {
            self.next = Some(found);
        }
        Ok(self.next.as_ref().map(|found| found.record.seq))
    }

    fn next(&mut self) -> io::Result<Salvaged> {
        if let Some(found) = self.next.take() {
            return Ok(Salvaged::Record(found));
        }
        if self.ended {
            return Ok(Salvaged::End);
        }
        let stop = match self.scanner.step()? {
            Step::Record(found) => return Ok(Salvaged::Record(found)),
            Step::Stop(stop) => stop,
        };
        let offset = self.scanner.complete();
        let tail = scan::tail(&mut self.scanner, stop)?;
        let next = match tail {
            Tail::Clean => None,
            Tail::Torn { .. } | Tail::Damaged { .. } => self.scanner.resync(stop)?,
        };
        self.ended = next.is_none();
        let reason = stop.fault.reason();
        match (tail, next) {
            (Tail::Clean, _) => Ok(Salvaged::End),
            (Tail::Torn { end }, None) => {
                Ok(Salvaged::Torn(Bad { offset, bytes: end - offset, reason }))
            }
            (Tail::Torn { .. } | Tail::Damaged { .. }, _) => {
                let bytes = next.unwrap_or(self.length) - offset;
                Ok(Salvaged::Bad(Bad { offset, bytes, reason }))
            }
        }
    }
}

/// Writes a file anew with its whole records and a mark, in one rename.
fn rewrite(disk: &dyn Disk, dir: &Path, survey: &Survey) -> Result<Repaired, LogError> {
    let path = &survey.path;
    let original = disk.open(path, Access::Read).map_err(LogError::io("open", path))?;
    let set_aside = set_aside(disk, path, &*original)?;
    let unfinished = path.with_extension("log.new");
    recover::remove_if_there(disk, &unfinished)?;
    let file = disk.create(&unfinished).map_err(LogError::io("create", &unfinished))?;
    let end = copy_records(original, &*file, survey).map_err(LogError::io("write", &unfinished))?;
    let (header, last) = (survey.header, survey.last);
    let copy = ActiveFile { file, path: unfinished, header, end, allocated: end, last };
    if recover::write_mark(&copy)?.is_none() {
        return Err(LogError::DiskFull { path: copy.path });
    }
    recover::remove_if_there(disk, &recover::index_path(path))?;
    disk.rename(&copy.path, path).map_err(LogError::io("rename", &copy.path))?;
    disk.sync_dir(dir).map_err(LogError::io("sync", dir))?;
    Ok(Repaired { file: path.clone(), set_aside, records: survey.records })
}

/// Header and whole records, as one group, synced; returns the end.
fn copy_records(original: Arc<dyn File>, copy: &dyn File, survey: &Survey) -> io::Result<u64> {
    copy.write_all_at(&survey.header.encode(), 0)?;
    let mut frames = Frames::new(copy, survey.header.seed(), FRAMES_BEGIN, Vec::new());
    if survey.legible {
        let mut salvage = Salvage::new(original, &survey.header, Payloads::Keep)?;
        loop {
            match salvage.next()? {
                Salvaged::Record(found) => {
                    let record = found.record;
                    frames.record(record.seq, record.stream, &[record.payload])?;
                }
                Salvaged::Bad(_) => {}
                Salvaged::Torn(_) | Salvaged::End => break,
            }
        }
    }
    let end = frames.finish().0?;
    copy.sync_data()?;
    Ok(end)
}

/// Copies a file beside itself, durably, under a free name.
fn set_aside(disk: &dyn Disk, path: &Path, original: &dyn File) -> Result<PathBuf, LogError> {
    for nth in 0..COPIES_MAX {
        let extension =
            if nth == 0 { "log.damaged".to_owned() } else { format!("log.damaged-{nth}") };
        let aside = path.with_extension(extension);
        match disk.create(&aside) {
            Ok(copy) => {
                copy_bytes(original, &*copy).map_err(LogError::io("write", &aside))?;
                return Ok(aside);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(LogError::io("create", &aside)(error)),
        }
    }
    let error = io::Error::other("too many copies of damaged files are there already");
    Err(LogError::io("set aside", path)(error))
}

fn copy_bytes(from: &dyn File, to: &dyn File) -> io::Result<()> {
    let length = from.length()?;
    let mut bytes = vec![0; READ_BYTES];
    let mut at = 0;
    while at < length {
        let count = usize::try_from(length - at).map_or(READ_BYTES, |left| left.min(READ_BYTES));
        read_exact_at(from, &mut bytes[..count], at)?;
        to.write_all_at(&bytes[..count], at)?;
        at += count as u64;
    }
    to.sync_data()
}
