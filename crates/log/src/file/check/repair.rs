//! Saving what is whole of a damaged log.
//!
//! Each damaged file is rewritten without its bad bytes, and a copy of the original set aside
//! (`<first-seq>.log.damaged`). The rewritten file ends with a mark that carries the number which
//! the next file expects before it, so that the chain of files holds. The last file's mark carries
//! a number above every one that may ever have been given out.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{CheckReport, Lost, Salvage, Salvaged, Survey, Visit, surveys};
use crate::disk::{Access, Disk, File, read_exact_at};
use crate::file::frames::Frames;
use crate::file::recover::{self, ActiveFile};
use crate::frame::{FRAMES_BEGIN, FileHeader};
use crate::scan::{Payloads, READ_BYTES};
use crate::{LogError, TornTail};

/// Copies of one file set aside at most.
const COPIES_MAX: u32 = 1000;

/// Where the end of a log is lost, nothing says how many numbers were given out after the last one
/// known. So many are left out: more than a log can have given out between two checkpoints.
const NUMBERS_LEFT_OUT: u64 = 1_000_000_000;

/// What is known of a damaged log from elsewhere.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Rescue {
    /// Records up to this are not needed from the log.
    pub covered: u64,
    /// The highest number seen anywhere.
    pub highest: u64,
    /// A random number, as [`crate::LogOptions::salt`].
    pub salt: u64,
}

/// What [`repair`] did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RepairReport {
    /// What was wrong.
    pub check: CheckReport,
    /// The files written anew, or made.
    pub repaired: Vec<Repaired>,
    /// Numbers whose records may be lost: [`CheckReport::lost`], and what the rescue knows of.
    pub lost: Vec<Lost>,
    /// The next number given out is greater than this.
    pub continues_after: u64,
}

/// A file written anew.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Repaired {
    /// The file.
    pub file: PathBuf,
    /// Where the damaged original is now, if there was one.
    pub set_aside: Option<PathBuf>,
    /// Records it holds.
    pub records: u64,
}

/// Checks the log and writes damaged files anew with all whole records, such that it holds from
/// [`Rescue::covered`] on and gives out no number twice. [`RepairReport::lost`] says which records
/// are lost, so whoever folds the log must be told.
///
/// Errors: as [`super::check()`], and [`LogError::DiskFull`]; files already repaired stay repaired.
pub fn repair(disk: &dyn Disk, dir: &Path, rescue: Rescue) -> Result<RepairReport, LogError> {
    let mut check = CheckReport::default();
    let mut surveys = surveys(disk, dir, &mut check, &mut Visit::Nothing)?;
    let mut report = RepairReport { lost: check.lost.clone(), check, ..RepairReport::default() };
    let Some(first) = surveys.first_mut() else {
        return begin_anew(disk, dir, rescue, report);
    };
    if first.header.previous > rescue.covered {
        let last = Some(first.header.previous);
        report.lost.insert(0, Lost { first: rescue.covered + 1, last });
        first.header.previous = rescue.covered;
        first.faulty = true;
    }
    if let Some(last) = surveys.last_mut() {
        let cut = last.last < rescue.highest.max(rescue.covered);
        if cut && !last.end_lost {
            report.lost.push(Lost { first: last.last + 1, last: None });
        }
        if cut || last.end_lost {
            last.last = beyond(last.last, rescue);
            last.faulty = true;
        }
        report.continues_after = last.last;
    }
    for survey in surveys.iter().filter(|survey| survey.faulty) {
        report.repaired.push(rewrite(disk, dir, survey, rescue.salt)?);
    }
    Ok(report)
}

/// A number above every one that may have been given out.
fn beyond(last: u64, rescue: Rescue) -> u64 {
    last.max(rescue.highest).max(rescue.covered).saturating_add(NUMBERS_LEFT_OUT)
}

/// Without any file: the first of a log that goes on after what is known.
fn begin_anew(
    disk: &dyn Disk,
    dir: &Path,
    rescue: Rescue,
    mut report: RepairReport,
) -> Result<RepairReport, LogError> {
    if rescue.highest.max(rescue.covered) == 0 {
        return Ok(report);
    }
    disk.create_dir_all(dir).map_err(LogError::io("create", dir))?;
    let continues_after = beyond(0, rescue);
    let first = continues_after + 1;
    // The header says that nothing between was ever there, so that reading after `covered` works.
    let salt = recover::file_salt(rescue.salt, first);
    let header = FileHeader { first, previous: rescue.covered, salt };
    let (file, _) = recover::create_file(disk, dir, &header)?;
    report.repaired.push(Repaired { file, set_aside: None, records: 0 });
    report.lost.push(Lost { first: rescue.covered + 1, last: None });
    report.continues_after = continues_after;
    Ok(report)
}

/// Cuts the torn tail off the last file, if there is one, and sets the bytes aside
/// (`<first-seq>.log.torn`). Opening does the same without keeping them. Gives what was cut, and
/// where it is.
pub fn cut_torn_tail(disk: &dyn Disk, dir: &Path) -> Result<Option<(TornTail, PathBuf)>, LogError> {
    let Some(torn) = super::check(disk, dir)?.torn_tail else { return Ok(None) };
    let path = &torn.file;
    let file = disk.open(path, Access::Write).map_err(LogError::io("open", path))?;
    let bytes = torn.offset..torn.offset + torn.bytes_cut;
    let aside = set_aside(disk, path, "torn", (&*file, bytes))?;
    file.truncate(torn.offset).map_err(LogError::io("cut", path))?;
    file.sync_data().map_err(LogError::io("sync", path))?;
    disk.sync_dir(dir).map_err(LogError::io("sync", dir))?;
    Ok(Some((torn, aside)))
}

/// Writes a file anew with its whole records and a mark, in one rename.
fn rewrite(disk: &dyn Disk, dir: &Path, survey: &Survey, salt: u64) -> Result<Repaired, LogError> {
    let path = &survey.path;
    let original = disk.open(path, Access::Read).map_err(LogError::io("open", path))?;
    let length = original.length().map_err(LogError::io("read", path))?;
    let set_aside = Some(set_aside(disk, path, "damaged", (&*original, 0..length))?);
    let unfinished = path.with_extension("log.new");
    recover::remove_if_there(disk, &unfinished)?;
    let file = disk.create(&unfinished).map_err(LogError::io("create", &unfinished))?;
    let mut header = survey.header;
    if !survey.legible {
        header.salt = recover::file_salt(salt, header.first);
    }
    let end = copy_records(original, &*file, survey, &header)
        .map_err(LogError::io("write", &unfinished))?;
    let last = survey.last;
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
fn copy_records(
    original: Arc<dyn File>,
    copy: &dyn File,
    survey: &Survey,
    header: &FileHeader,
) -> io::Result<u64> {
    copy.write_all_at(&header.encode(), 0)?;
    let mut frames = Frames::new(copy, header.seed(), FRAMES_BEGIN, Vec::new());
    if survey.legible {
        let mut salvage = Salvage::new(original, survey, Payloads::Keep)?;
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

/// Copies a part of a file beside it, durably, under a free name.
fn set_aside(
    disk: &dyn Disk,
    path: &Path,
    why: &str,
    (original, bytes): (&dyn File, Range<u64>),
) -> Result<PathBuf, LogError> {
    for nth in 0..COPIES_MAX {
        let extension = if nth == 0 { format!("log.{why}") } else { format!("log.{why}-{nth}") };
        let aside = path.with_extension(extension);
        match disk.create(&aside) {
            Ok(copy) => {
                copy_bytes(original, &*copy, bytes).map_err(LogError::io("write", &aside))?;
                return Ok(aside);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(LogError::io("create", &aside)(error)),
        }
    }
    let error = io::Error::other("too many copies of damaged files are there already");
    Err(LogError::io("set aside", path)(error))
}

fn copy_bytes(from: &dyn File, to: &dyn File, range: Range<u64>) -> io::Result<()> {
    let mut bytes = vec![0; READ_BYTES];
    let mut at = range.start;
    while at < range.end {
        let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
        let count = left.min(READ_BYTES);
        read_exact_at(from, &mut bytes[..count], at)?;
        to.write_all_at(&bytes[..count], at - range.start)?;
        at += count as u64;
    }
    to.sync_data()
}
