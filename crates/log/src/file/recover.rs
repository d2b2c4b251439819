//! Opening a log: its files, their chain, the last file's tail (L4).
//!
//! What a failed sync leaves behind is the trap here: pages that the kernel calls clean but the
//! disk never got. A process that died of it (L5) and comes back would read them from memory and
//! take them for durable. So the last group, the only one that can be such, is written again and
//! synced before anything builds on it.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::index::{Extent, Index, Place, Sidecar};
use crate::disk::{Access, Disk, File, read_exact_at};
use crate::error::is_full;
use crate::frame::{self, FRAMES_BEGIN, FileHeader, FrameHeader, Kind};
use crate::scan::{self, Payloads, READ_BYTES, Scanner, Step, Stop, Tail, Window};
use crate::{LogError, LogOptions, Stream, TornTail};

/// Why a log is not opened on a guess.
const READINGS_DIFFER: &str =
    "two readings of the file differ, so the disk or the memory is failing; try to open it again";

/// Bytes copied at a time when the last group is written again.
const COPY_BYTES: usize = 1 << 20;

/// A file that is complete and never written again.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) path: PathBuf,
    pub(super) extent: Extent,
    /// The highest number before the file.
    pub(super) previous: u64,
}

/// The file being written, as readers see it.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) path: PathBuf,
    pub(super) header: FileHeader,
    /// Where its durable data ends.
    pub(super) end: u64,
    pub(super) index: Index,
}

/// The file being written, as its writer sees it.
#[derive(Debug)]
pub(super) struct ActiveFile {
    pub(super) file: Arc<dyn File>,
    pub(super) path: PathBuf,
    pub(super) header: FileHeader,
    pub(super) end: u64,
    pub(super) allocated: u64,
    /// The highest number written.
    pub(super) last: u64,
}

/// All that opening found.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) sealed: VecDeque<Arc<Sealed>>,
    pub(super) active: Active,
    pub(super) writer: ActiveFile,
    pub(super) torn_tail: Option<TornTail>,
}

/// `<first-seq, 20 digits>.log`
pub(crate) fn file_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.log"))
}

/// The index beside a log file.
pub(super) fn index_path(file: &Path) -> PathBuf {
    file.with_extension("idx")
}

/// The number in a log file's name.
pub(crate) fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

/// A salt for one file: the same for no two files of a log.
pub(super) fn file_salt(salt: u64, first: u64) -> u64 {
    salt ^ first.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Makes a log file durable, header and name. It gets its name last, so that a file with a log
/// file's name has a whole header, or is damaged.
pub(crate) fn create_file(
    disk: &dyn Disk,
    dir: &Path,
    header: &FileHeader,
) -> Result<(PathBuf, Arc<dyn File>), LogError> {
    let path = file_path(dir, header.first);
    let unfinished = path.with_extension("log.new");
    remove_if_there(disk, &unfinished)?;
    let create = || {
        let file = disk.create(&unfinished)?;
        file.allocate(0, FRAMES_BEGIN)?;
        file.write_all_at(&header.encode(), 0)?;
        file.sync_data()?;
        disk.rename(&unfinished, &path)?;
        Ok(file)
    };
    let file = create().map_err(LogError::io("create", &path))?;
    // From here on the file is there, so even a full disk is no longer a clean refusal.
    disk.sync_dir(dir).map_err(LogError::failed("sync", dir))?;
    Ok((path, file))
}

pub(super) fn remove_if_there(disk: &dyn Disk, path: &Path) -> Result<(), LogError> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LogError::io("remove", path)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Opens the files in `dir`, or makes the first.
pub(super) fn open(disk: &dyn Disk, dir: &Path, options: &LogOptions) -> Result<Opened, LogError> {
    disk.create_dir_all(dir).map_err(LogError::io("create", dir))?;
    if let Some(parent) = dir.parent() {
        disk.sync_dir(parent).map_err(LogError::io("sync", parent))?;
    }
    let names = disk.list(dir).map_err(LogError::io("list", dir))?;
    let firsts: Vec<u64> = names.iter().filter_map(|name| parse_name(name)).collect();
    for path in leftovers(dir, &names, &firsts) {
        remove_if_there(disk, &path)?;
    }
    let Some((&last_first, sealed_firsts)) = firsts.split_last() else {
        return create_first(disk, dir, options);
    };
    let mut sealed: VecDeque<Arc<Sealed>> = VecDeque::new();
    for &first in sealed_firsts {
        let file = open_sealed(disk, &file_path(dir, first), first)?;
        check_chain(sealed.back(), &file.path, file.previous)?;
        sealed.push_back(Arc::new(file));
    }
    let path = file_path(dir, last_first);
    let (active, writer, torn_tail) = open_last(disk, path, last_first)?;
    check_chain(sealed.back(), &active.path, active.header.previous)?;
    // Whatever made or removed names last may not have come to sync them.
    disk.sync_dir(dir).map_err(LogError::io("sync", dir))?;
    Ok(Opened { sealed, active, writer, torn_tail })
}

/// Files of no use to anybody, among the sorted names of a directory whose log files begin at
/// `firsts`: unfinished ones, and indexes that outlived their files (one built by a reader while
/// the file was trimmed).
pub(super) fn leftovers(dir: &Path, names: &[String], firsts: &[u64]) -> Vec<PathBuf> {
    let useless = |name: &&String| {
        let first = name.strip_suffix(".idx").and_then(|stem| parse_name(&format!("{stem}.log")));
        name.ends_with(".log.new")
            || name.ends_with(".idx.new")
            || first.is_some_and(|first| firsts.binary_search(&first).is_err())
    };
    names.iter().filter(useless).map(|name| dir.join(name)).collect()
}

fn create_first(disk: &dyn Disk, dir: &Path, options: &LogOptions) -> Result<Opened, LogError> {
    let previous = options.start_after;
    let first = previous + 1;
    let header = FileHeader { first, previous, salt: file_salt(options.salt, first) };
    let (path, file) = create_file(disk, dir, &header)?;
    let end = FRAMES_BEGIN;
    Ok(Opened {
        sealed: VecDeque::new(),
        active: Active { path: path.clone(), header, end, index: Index::default() },
        writer: ActiveFile { file, path, header, end, allocated: end, last: previous },
        torn_tail: None,
    })
}

/// Each file says what number came before it: a missing or shortened one does not go unnoticed.
fn check_chain(before: Option<&Arc<Sealed>>, path: &Path, previous: u64) -> Result<(), LogError> {
    match before {
        Some(before) if before.extent.last != previous => {
            let (last, end) = (before.extent.last, before.extent.end);
            let reason = format!(
                "the log ends here at {last}, but {} goes on from {previous}",
                path.display()
            );
            Err(LogError::damaged(&before.path, end, reason))
        }
        Some(_) | None => Ok(()),
    }
}

/// A sealed file by its header and index; by reading it whole where the index does not fit.
fn open_sealed(disk: &dyn Disk, path: &Path, first: u64) -> Result<Sealed, LogError> {
    let file = disk.open(path, Access::Read).map_err(LogError::io("open", path))?;
    let header = scan::read_header(&*file, path, first)?;
    let length = file.length().map_err(LogError::io("read", path))?;
    let sidecar = Sidecar::open(disk, &index_path(path));
    if let Ok(Some(sidecar)) = sidecar {
        let extent = *sidecar.extent();
        if extent.first == first && extent.salt == header.salt && extent.end <= length {
            // It may be longer by space allocated ahead whose cutting off was not durable.
            return Ok(Sealed { path: path.to_owned(), extent, previous: header.previous });
        }
    }
    let (_, extent) = rebuild_index(disk, path, &file, &header)?;
    Ok(Sealed { path: path.to_owned(), extent, previous: header.previous })
}

/// Reads a sealed file whole and writes its index anew.
pub(super) fn rebuild_index(
    disk: &dyn Disk,
    path: &Path,
    file: &Arc<dyn File>,
    header: &FileHeader,
) -> Result<(Index, Extent), LogError> {
    let length = file.length().map_err(LogError::io("read", path))?;
    let window = Window::new(Arc::clone(file), length, READ_BYTES);
    let mut scanner = Scanner::new(window, header, Payloads::Skip);
    let (index, stop) = index_file(&mut scanner).map_err(LogError::io("read", path))?;
    let tail = scan::tail(&mut scanner, stop).map_err(LogError::io("read", path))?;
    if tail != Tail::Clean {
        return Err(stopped(path, stop));
    }
    let extent = Extent {
        first: header.first,
        last: scanner.last(),
        end: scanner.complete(),
        salt: header.salt,
    };
    if let Err(error) = index.write(disk, &index_path(path), &extent) {
        tracing::warn!(path = %path.display(), %error, "no index beside a sealed file");
    }
    Ok((index, extent))
}

fn index_file(scanner: &mut Scanner) -> io::Result<(Index, Stop)> {
    let mut index = Index::default();
    loop {
        match scanner.step()? {
            Step::Record(found) => {
                let place = Place { seq: found.record.seq, offset: found.offset };
                index.add(found.record.stream, place);
            }
            Step::Stop(stop) => return Ok((index, stop)),
        }
    }
}

/// The error of a file that is bad where a scan stopped.
pub(crate) fn stopped(path: &Path, stop: Stop) -> LogError {
    match stop.fault {
        frame::FrameFault::Newer(version) => {
            LogError::Newer { file: path.to_owned(), version: version.into() }
        }
        frame::FrameFault::Absent
        | frame::FrameFault::Short
        | frame::FrameFault::Length
        | frame::FrameFault::Checksum
        | frame::FrameFault::Impossible(_) => {
            LogError::damaged(path, stop.offset, stop.fault.reason())
        }
    }
}

/// The last file: its tail is cut if torn, its last group is made durable for certain.
fn open_last(
    disk: &dyn Disk,
    path: PathBuf,
    first: u64,
) -> Result<(Active, ActiveFile, Option<TornTail>), LogError> {
    let file = disk.open(&path, Access::Write).map_err(LogError::io("open", &path))?;
    let header = scan::read_header(&*file, &path, first)?;
    let length = file.length().map_err(LogError::io("read", &path))?;
    let scan = || {
        let window = Window::new(Arc::clone(&file), length, READ_BYTES);
        let mut scanner = Scanner::new(window, &header, Payloads::Skip);
        let (index, stop) = index_file(&mut scanner)?;
        let tail = scan::tail(&mut scanner, stop)?;
        Ok((scanner, index, stop, tail))
    };
    let (scanner, index, stop, tail) = scan().map_err(LogError::io("read", &path))?;
    let end = scanner.complete();
    let mut allocated = length;
    let torn_tail = match tail {
        Tail::Clean => None,
        Tail::Damaged { .. } => return Err(stopped(&path, stop)),
        Tail::Torn { end: torn_end } => {
            // A bit that was wrong on its way from the disk must not cost acknowledged records.
            let (again, _, stop_again, tail_again) = scan().map_err(LogError::io("read", &path))?;
            if (again.complete(), stop_again, tail_again) != (end, stop, tail) {
                return Err(LogError::damaged(&path, end, READINGS_DIFFER));
            }
            file.truncate(end).map_err(LogError::io("cut", &path))?;
            allocated = end;
            tracing::warn!(path = %path.display(), offset = end, "a torn tail was cut");
            Some(TornTail { file: path.clone(), offset: end, bytes_cut: torn_end - end })
        }
    };
    write_again(&*file, &path, scanner.group()..end)?;
    let last = scanner.last();
    let mut writer = ActiveFile { file, path: path.clone(), header, end, allocated, last };
    if !scanner.marked() && end > FRAMES_BEGIN {
        writer.end = write_mark(&writer)?.unwrap_or(end);
    }
    writer.allocated = writer.allocated.max(writer.end);
    Ok((Active { path, header, end: writer.end, index }, writer, torn_tail))
}

/// Writes bytes over themselves and syncs them. They are read twice: what was read wrong must not be
/// written.
fn write_again(file: &dyn File, path: &Path, range: Range<u64>) -> Result<(), LogError> {
    let (mut bytes, mut again) = (Vec::new(), Vec::new());
    let mut at = range.start;
    while at < range.end {
        let left = usize::try_from(range.end - at).unwrap_or(COPY_BYTES);
        bytes.resize(left.min(COPY_BYTES), 0);
        again.resize(bytes.len(), 0);
        read_exact_at(file, &mut bytes, at)
            .and_then(|()| read_exact_at(file, &mut again, at))
            .map_err(LogError::io("read", path))?;
        if bytes != again {
            return Err(LogError::damaged(path, at, READINGS_DIFFER));
        }
        file.write_all_at(&bytes, at).map_err(LogError::io("write", path))?;
        at += bytes.len() as u64;
    }
    file.sync_data().map_err(LogError::io("sync", path))
}

/// Writes and syncs a mark at the end of a file all of which is durable; returns the new end, or
/// `None` on a full disk: a mark is worth having, not worth failing for.
pub(super) fn write_mark(active: &ActiveFile) -> Result<Option<u64>, LogError> {
    let mut bytes = Vec::new();
    let header = FrameHeader {
        kind: Kind::Mark,
        part: 0,
        seq: active.last,
        group: active.end,
        stream: Stream::CATALOG,
    };
    frame::encode(&mut bytes, active.header.seed(), &header, |_| {});
    let end = active.end + bytes.len() as u64;
    if end > active.allocated {
        match active.file.allocate(active.end, bytes.len() as u64) {
            Err(error) if is_full(&error) => return Ok(None),
            other => other.map_err(LogError::io("allocate space in", &active.path))?,
        }
    }
    let write = active.file.write_all_at(&bytes, active.end);
    write.and_then(|()| active.file.sync_data()).map_err(LogError::io("write", &active.path))?;
    Ok(Some(end))
}
