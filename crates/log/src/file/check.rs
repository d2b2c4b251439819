//! Reading a closed log through (`arrwdb check`); [`repair()`] saves what is whole of a damaged one.
//!
//! A torn tail is no damage and is left to opening, or to [`cut_torn_tail`]; so are indexes, which
//! are derived.

mod repair;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::repair::{RepairReport, Repaired, Rescue, cut_torn_tail, repair};
use super::index::{Extent, Index, Place, Sidecar};
use super::recover;
use crate::disk::{Access, Disk, File};
use crate::frame::{FRAMES_BEGIN, FileHeader};
use crate::scan::{self, Found, Payloads, READ_BYTES, Scanner, Step, Tail, Window};
use crate::{LogError, Record, TornTail};

/// Faults and lost ranges reported at most; more are counted only.
const FAULTS_MAX: usize = 1000;

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
    /// Their bytes.
    pub bytes: u64,
    /// Whole records.
    pub records: u64,
    /// One below the lowest number that the files can hold: what came before the first file.
    pub previous: u64,
    /// The highest number.
    pub last: u64,
    /// Faults, the first thousand; none if the log is sound.
    pub faults: Vec<Fault>,
    /// All faults.
    pub fault_count: u64,
    /// Numbers whose records may be lost to faults, ascending, the first thousand ranges. They may
    /// contain numbers that no record ever had.
    pub lost: Vec<Lost>,
    /// A torn tail, which opening will cut.
    pub torn_tail: Option<TornTail>,
    /// Indexes that do not say what their log files hold. They are derived: without them, opening
    /// makes them anew.
    pub stale_indexes: Vec<PathBuf>,
    /// Files left unfinished, and indexes without a log file: of no use to anybody.
    pub leftovers: Vec<PathBuf>,
}

/// A range of numbers whose records may be lost.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Lost {
    /// The first.
    pub first: u64,
    /// The last; `None` where the end of the log is gone, so that nothing says how many there were.
    pub last: Option<u64>,
}

/// Where a whole record was found.
#[derive(Debug)]
pub struct Whole<'a> {
    /// The file.
    pub file: &'a Path,
    /// Where its first frame begins.
    pub offset: u64,
    /// The record.
    pub record: Record,
}

/// Reads every byte of a log that nobody has open (the caller holds the lock) and changes nothing.
/// Errors only for what keeps it from reading: [`LogError::Io`], [`LogError::Newer`], and
/// [`LogError::Damaged`] where files contradict each other in a way that bad bytes do not explain.
pub fn check(disk: &dyn Disk, dir: &Path) -> Result<CheckReport, LogError> {
    let mut report = CheckReport::default();
    surveys(disk, dir, &mut report, &mut Visit::Nothing)?;
    Ok(report)
}

/// As [`check()`], and shows every whole record on the way, in order.
pub fn check_records(
    disk: &dyn Disk,
    dir: &Path,
    show: &mut dyn FnMut(Whole<'_>),
) -> Result<CheckReport, LogError> {
    let mut report = CheckReport::default();
    surveys(disk, dir, &mut report, &mut Visit::Each(show))?;
    Ok(report)
}

/// Who wants the records.
enum Visit<'a> {
    Nothing,
    Each(&'a mut dyn FnMut(Whole<'_>)),
}

impl Visit<'_> {
    fn payloads(&self) -> Payloads {
        match self {
            Self::Nothing => Payloads::Skip,
            Self::Each(_) => Payloads::Keep,
        }
    }
}

/// Which of the log's files it is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Position {
    /// One that another follows.
    Sealed,
    /// The last, which alone can have a torn tail.
    Last,
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
    position: Position,
    /// Whether bad bytes reach its end.
    end_lost: bool,
}

/// Reads all files; faults go to `report`.
fn surveys(
    disk: &dyn Disk,
    dir: &Path,
    report: &mut CheckReport,
    visit: &mut Visit<'_>,
) -> Result<Vec<Survey>, LogError> {
    let names = match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(LogError::io("list", dir))?,
    };
    let firsts: Vec<u64> = names.iter().filter_map(|name| recover::parse_name(name)).collect();
    report.leftovers = recover::leftovers(dir, &names, &firsts);
    let mut surveys: Vec<Survey> = Vec::with_capacity(firsts.len());
    for (nth, &first) in firsts.iter().enumerate() {
        let path = recover::file_path(dir, first);
        let previous = surveys.last().map(|survey| survey.last);
        let file = disk.open(&path, Access::Read).map_err(LogError::io("open", &path))?;
        report.bytes += file.length().map_err(LogError::io("read", &path))?;
        let mut survey = survey_header(disk, &*file, path, (first, previous), report)?;
        if nth + 1 == firsts.len() {
            survey.position = Position::Last;
        }
        if let Some(before) = surveys.last_mut() {
            link(before, &survey, report)?;
        } else {
            report.previous = survey.header.previous;
        }
        let found = survey_frames(file, &mut survey, report, visit)?;
        if let Some((index, extent)) = found {
            check_index(disk, &survey, (&index, &extent), report)?;
        }
        report.files += 1;
        report.records += survey.records;
        report.last = survey.last;
        surveys.push(survey);
    }
    if let Some(last) = surveys.last().filter(|last| last.end_lost) {
        lose(report, last.last + 1, None);
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
        lose(report, before.last + 1, Some(previous));
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

/// Notes numbers as lost, if there are any between these.
fn lose(report: &mut CheckReport, first: u64, last: Option<u64>) {
    if report.lost.len() < FAULTS_MAX && last.is_none_or(|last| first <= last) {
        report.lost.push(Lost { first, last });
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
    Ok(Survey {
        path,
        header,
        legible,
        last: first.saturating_sub(1),
        records: 0,
        faulty,
        position: Position::Sealed,
        end_lost: false,
    })
}

/// Reads a file's frames. Gives what its index should say, if all of it is whole.
fn survey_frames(
    file: Arc<dyn File>,
    survey: &mut Survey,
    report: &mut CheckReport,
    visit: &mut Visit<'_>,
) -> Result<Option<(Index, Extent)>, LogError> {
    if !survey.legible {
        survey.end_lost = true;
        return Ok(None);
    }
    let path = survey.path.clone();
    let failed = |error| LogError::io("read", &path)(error);
    let mut index = Index::default();
    let mut salvage = Salvage::new(file, survey, visit.payloads()).map_err(failed)?;
    loop {
        let bad = match salvage.next().map_err(failed)? {
            Salvaged::Record(Found { offset, record }) => {
                survey.records += 1;
                index.add(record.stream, Place { seq: record.seq, offset });
                if let Visit::Each(show) = visit {
                    show(Whole { file: &path, offset, record });
                }
                continue;
            }
            Salvaged::End => break,
            Salvaged::Torn(bad) => {
                let (file, offset) = (path.clone(), bad.offset);
                report.torn_tail = Some(TornTail { file, offset, bytes_cut: bad.bytes });
                break;
            }
            Salvaged::Bad(bad) => bad,
        };
        let after = salvage.scanner.last();
        let before = salvage.peek().map_err(failed)?;
        survey.faulty = true;
        survey.end_lost = salvage.ended;
        // A mark behind the bad bytes says how far the numbers went, where no record does.
        let went_to = before.map_or(salvage.scanner.last(), |before| before - 1);
        lose(report, after + 1, Some(went_to));
        let (offset, bytes, reason) = (bad.offset, bad.bytes, bad.reason.into());
        add(report, Fault { file: path.clone(), offset, bytes, reason, after, before });
    }
    survey.last = salvage.scanner.last();
    let header = &survey.header;
    let end = salvage.scanner.complete();
    let extent = Extent { first: header.first, last: survey.last, end, salt: header.salt };
    Ok((!survey.faulty && survey.position == Position::Sealed).then_some((index, extent)))
}

/// Compares the index beside a file with what it should be, byte by byte.
fn check_index(
    disk: &dyn Disk,
    survey: &Survey,
    (index, extent): (&Index, &Extent),
    report: &mut CheckReport,
) -> Result<(), LogError> {
    let path = recover::index_path(&survey.path);
    match index.is_at(disk, &path, extent) {
        Ok(true) => {}
        Ok(false) => report.stale_indexes.push(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(LogError::io("read", &path)(error)),
    }
    Ok(())
}

/// A file's whole records, whatever lies between them.
#[derive(Debug)]
struct Salvage {
    scanner: Scanner,
    length: u64,
    position: Position,
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
    /// The torn tail of the last file. Frames in it may be whole; no sync covered them.
    Torn(Bad),
    End,
}

impl Salvage {
    fn new(file: Arc<dyn File>, survey: &Survey, payloads: Payloads) -> io::Result<Self> {
        let length = file.length()?;
        let window = Window::new(file, length, READ_BYTES);
        let scanner = Scanner::new(window, &survey.header, payloads);
        Ok(Self { scanner, length, position: survey.position, ended: false, next: None })
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
        let reason = stop.fault.reason();
        match scan::tail(&mut self.scanner, stop)? {
            Tail::Clean => {
                self.ended = true;
                return Ok(Salvaged::End);
            }
            Tail::Torn { end } if self.position == Position::Last => {
                self.ended = true;
                return Ok(Salvaged::Torn(Bad { offset, bytes: end - offset, reason }));
            }
            Tail::Torn { .. } | Tail::Damaged { .. } => {}
        }
        let next = self.scanner.resync(stop)?;
        self.ended = next.is_none();
        let bytes = next.unwrap_or(self.length) - offset;
        Ok(Salvaged::Bad(Bad { offset, bytes, reason }))
    }
}
