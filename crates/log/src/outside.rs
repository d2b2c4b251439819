//! Reading a log that another process is writing, and carrying its records elsewhere: what a backup
//! is made of.
//!
//! [`Outside`] needs no lock and no help from the writer, since a log file only grows and a whole
//! frame never changes. It gives what the files hold at the moment, records that nobody was told of
//! yet included; [`Outside::sync`] then makes those durable where they are, so that a copy never
//! holds a record that the original could still lose.
//!
//! [`Carried`] is a log file in memory: the same bytes as a file of the log with the same records,
//! so that restoring is putting files back. The same records, previous number and salt give the
//! same bytes.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Access, Disk, File};
use crate::file::frames::Frames;
use crate::file::recover::{file_path, parse_name, stopped};
use crate::frame::{self, FRAMES_BEGIN, FileHeader, FrameHeader, Kind};
use crate::scan::{self, Payloads, READ_BYTES, Scanner, Step, Stop, Tail, Window};
use crate::{LogError, Record, Stream};

/// How often the end of a file is read again that looks damaged, because it is being written.
const LOOKS_MAX: u32 = 8;

/// The name of the log file whose first record has this number.
pub fn file_name(first: u64) -> String {
    format!("{first:020}.log")
}

/// A log read from outside, record after record.
#[derive(Debug)]
pub struct Outside {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Files not opened yet, by the number in their names.
    files: VecDeque<u64>,
    reading: Option<Reading>,
    begins_after: u64,
}

#[derive(Debug)]
struct Reading {
    path: PathBuf,
    file: Arc<dyn File>,
    header: FileHeader,
    scanner: Scanner,
    /// The last of the list, so that it may be written meanwhile.
    open_ended: bool,
    /// Where the reading began anew last, and how often it did so there.
    looks: (u64, u32),
}

impl Outside {
    /// Opens the files of the log in `dir` from the one on that holds what comes after `after`; all
    /// of them, if that was trimmed. Files made later are not seen.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, after: u64) -> Result<Self, LogError> {
        let names = disk.list(dir).map_err(LogError::io("list", dir))?;
        let mut files: VecDeque<u64> = names.iter().filter_map(|name| parse_name(name)).collect();
        let mut log = Self {
            disk,
            dir: dir.to_owned(),
            files: VecDeque::new(),
            reading: None,
            begins_after: 0,
        };
        while files.len() > 1 && files[1] <= after.saturating_add(1) {
            files.pop_front();
        }
        log.files = files;
        log.reading = log.open_next(None)?;
        if let Some(reading) = &log.reading {
            log.begins_after = reading.header.previous;
        }
        Ok(log)
    }

    /// Every record above this number is given; those up to it are not all there.
    pub fn begins_after(&self) -> u64 {
        self.begins_after
    }

    /// The next record; `None` where the log ends at the moment. [`LogError::Trimmed`] where a file
    /// was removed meanwhile, [`LogError::Damaged`] where one is damaged.
    pub fn next_record(&mut self) -> Result<Option<Record>, LogError> {
        loop {
            let Some(reading) = &mut self.reading else { return Ok(None) };
            match reading.advance()? {
                Some(record) => return Ok(Some(record)),
                None if self.files.is_empty() => return Ok(None),
                None => {
                    let before = reading.scanner.last();
                    self.reading = self.open_next(Some(before))?;
                }
            }
        }
    }

    /// Makes durable, in the log itself, everything that was given. To be called before any of it
    /// is kept elsewhere.
    pub fn sync(&self) -> Result<(), LogError> {
        // All but the last file were synced before the next one was made.
        match &self.reading {
            Some(reading) => reading.file.sync_data().map_err(LogError::io("sync", &reading.path)),
            None => Ok(()),
        }
    }

    fn open_next(&mut self, before: Option<u64>) -> Result<Option<Reading>, LogError> {
        let Some(first) = self.files.pop_front() else { return Ok(None) };
        let path = file_path(&self.dir, first);
        let file = self.disk.open(&path, Access::Read).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                return LogError::Trimmed { first: first + 1 };
            }
            LogError::io("open", &path)(error)
        })?;
        let header = scan::read_header(&*file, &path, first)?;
        if before.is_some_and(|before| before != header.previous) {
            let reason =
                format!("it goes on from {}, the file before it does not", header.previous);
            return Err(LogError::damaged(&path, 0, reason));
        }
        let length = file.length().map_err(LogError::io("read", &path))?;
        let window = Window::new(Arc::clone(&file), length, READ_BYTES);
        let scanner = Scanner::new(window, &header, Payloads::Keep);
        let open_ended = self.files.is_empty();
        Ok(Some(Reading { path, file, header, scanner, open_ended, looks: (0, 0) }))
    }
}

impl Reading {
    fn advance(&mut self) -> Result<Option<Record>, LogError> {
        loop {
            let stop = match self.scanner.step() {
                Ok(Step::Record(found)) => return Ok(Some(found.record)),
                Ok(Step::Stop(stop)) => stop,
                // The space ahead was given back while it was read.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.look_again(None)?;
                    continue;
                }
                Err(error) => return Err(LogError::io("read", &self.path)(error)),
            };
            let tail = match scan::tail(&mut self.scanner, stop) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.look_again(Some(stop))?;
                    continue;
                }
                other => other.map_err(LogError::io("read", &self.path))?,
            };
            match tail {
                Tail::Clean => return Ok(None),
                Tail::Torn { .. } if self.open_ended => return Ok(None),
                // A group that was written between two reads looks like this as well.
                Tail::Torn { .. } | Tail::Damaged { .. } => self.look_again(Some(stop))?,
            }
        }
    }

    /// Reads on from the last whole record, with nothing of what was read before.
    fn look_again(&mut self, stop: Option<Stop>) -> Result<(), LogError> {
        let at = self.scanner.complete();
        self.looks = if self.looks.0 == at { (at, self.looks.1 + 1) } else { (at, 1) };
        if self.looks.1 > LOOKS_MAX {
            return Err(match stop {
                Some(stop) => stopped(&self.path, stop),
                None => LogError::damaged(&self.path, at, "the file ends within a frame"),
            });
        }
        let length = self.file.length().map_err(LogError::io("read", &self.path))?;
        let window = Window::new(Arc::clone(&self.file), length, READ_BYTES);
        let last = self.scanner.last();
        self.scanner = Scanner::resume(window, self.header.seed(), at, Payloads::Keep);
        self.scanner.set_last(last);
        Ok(())
    }
}

/// A log file in memory, being filled.
#[derive(Debug)]
pub struct Carried {
    previous: u64,
    salt: u64,
    first: Option<u64>,
    last: u64,
    records: Vec<Record>,
    bytes: u64,
}

impl Carried {
    /// A file whose records follow the number `previous`.
    pub fn after(previous: u64, salt: u64) -> Self {
        Self { previous, salt, first: None, last: previous, records: Vec::new(), bytes: 0 }
    }

    /// Adds a record; its number is above those before it.
    pub fn add(&mut self, record: Record) {
        assert!(record.seq > self.last, "L2: sequence numbers increase");
        self.first.get_or_insert(record.seq);
        self.last = record.seq;
        self.bytes += frame::record_framed(record.payload.len()) as u64;
        self.records.push(record);
    }

    /// The number that its records follow.
    pub fn previous(&self) -> u64 {
        self.previous
    }

    /// The number of its first record, if it has one.
    pub fn first(&self) -> Option<u64> {
        self.first
    }

    /// The number of its last record; without one, the number before it.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// About how many bytes it will have.
    pub fn bytes(&self) -> u64 {
        FRAMES_BEGIN + self.bytes
    }

    /// The file's bytes. Not to be asked of a file without records.
    pub fn finish(self) -> Vec<u8> {
        self.encode(None)
    }

    /// The file's name and bytes, ended by a mark that says that no number up to `mark` will be
    /// given out again. It may be without records.
    pub fn finish_marked(self, mark: u64) -> (String, Vec<u8>) {
        assert!(mark > self.last, "the mark is above every record");
        (file_name(self.first.unwrap_or(mark)), self.encode(Some(mark)))
    }

    fn encode(self, mark: Option<u64>) -> Vec<u8> {
        let first = self.first.or(mark).unwrap_or(self.previous + 1);
        let header = FileHeader { first, previous: self.previous, salt: self.salt };
        let memory = InMemory(Mutex::new(header.encode().to_vec()));
        let mut frames = Frames::new(&memory, header.seed(), FRAMES_BEGIN, Vec::new());
        for record in self.records {
            let written = frames.record(record.seq, record.stream, &[record.payload]);
            assert!(written.is_ok(), "writing to memory does not fail");
        }
        assert!(frames.finish().0.is_ok(), "writing to memory does not fail");
        let mut bytes = memory.0.into_inner();
        if let Some(seq) = mark {
            let group = bytes.len() as u64;
            let mark =
                FrameHeader { kind: Kind::Mark, part: 0, seq, group, stream: Stream::CATALOG };
            frame::encode(&mut bytes, header.seed(), &mark, |_| {});
        }
        bytes
    }
}

/// A file's bytes; writes are appended.
#[derive(Debug, Default)]
struct InMemory(Mutex<Vec<u8>>);

impl File for InMemory {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let held = self.0.lock();
        let from = usize::try_from(offset).map_or(held.len(), |from| from.min(held.len()));
        let count = bytes.len().min(held.len() - from);
        bytes[..count].copy_from_slice(&held[from..from + count]);
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], _offset: u64) -> io::Result<()> {
        self.0.lock().extend_from_slice(bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn allocate(&self, _offset: u64, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn truncate(&self, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.lock().len() as u64)
    }
}

/// Reads the records of a log file that was carried here. `name` is what errors call it.
/// [`LogError::Damaged`] where it is not whole to its end.
pub fn read_carried(name: &Path, bytes: Vec<u8>) -> Result<Vec<Record>, LogError> {
    let first = bytes.get(16..24).map_or(0, |first| frame::u64_at(first, 0));
    let length = bytes.len() as u64;
    let file: Arc<dyn File> = Arc::new(InMemory(Mutex::new(bytes)));
    let header = scan::read_header(&*file, name, first)?;
    let mut scanner = Scanner::new(Window::new(file, length, READ_BYTES), &header, Payloads::Keep);
    let mut records = Vec::new();
    loop {
        match scanner.step().map_err(LogError::io("read", name))? {
            Step::Record(found) => records.push(found.record),
            Step::Stop(_) if scanner.complete() == length => return Ok(records),
            Step::Stop(stop) => return Err(stopped(name, stop)),
        }
    }
}

#[cfg(test)]
mod tests;
