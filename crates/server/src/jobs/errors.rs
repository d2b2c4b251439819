//! What a job refused, one by one: more than its result can hold, for as long as it is remembered.
//!
//! ```text
//! {"index":3,"line_number":5,"error":"..."}     ascending by index; one line each
//! {"index":9,"omitted":true}                    the last one, where there was no room for more
//! ```
//! - J1: what a job counts as refused is durable here before its progress is in the log.
//! - J2: a job that goes on after a crash drops what it had not counted, and finds it again, so that
//!   nothing is here twice.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use arrwdb_engine::state::JobId;
use serde_json::{Map, Value, json};

use super::files::{JobFiles, discard, named};
use super::{ERRORS_SHOWN, shown};
use crate::limits::{JOB_ERRORS_BYTES_MAX, JOB_ERRORS_KEPT_MAX, JOBS_ERRORS_BYTES_MAX};

/// What is looked at of the end of a file: the line that says that there was no room is shorter.
const END_BYTES: u64 = 256;
/// Says that there was no room.
const OMITTED: &str = "omitted";

/// What a job refuses, as it goes.
#[derive(Debug)]
pub(super) struct ErrorLog {
    path: PathBuf,
    /// Nothing until there is something to write.
    file: Option<File>,
    /// What is in it, and what is on its way.
    kept: u64,
    bytes: u64,
    pending: Vec<u8>,
    first: Vec<Value>,
    is_full: bool,
}

/// Some of what a job refused.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ErrorPage {
    pub(crate) errors: Vec<Map<String, Value>>,
    /// Where the next page begins; nothing at the end.
    pub(crate) next: Option<ErrorCursor>,
    /// There was no room for all of them.
    pub(crate) truncated: bool,
}

/// A place after one of them: its offset, and its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ErrorCursor {
    pub(crate) offset: u64,
    pub(crate) after: u64,
}

impl ErrorLog {
    /// Those of a job that begins, or goes on where `settled` of its units are counted: of the others
    /// none is left. Blocks.
    pub(super) fn open(files: &JobFiles, id: JobId, settled: u64) -> io::Result<Self> {
        let path = files.errors_path(id);
        let (kept, bytes, pending) = (0, 0, Vec::new());
        let mut log =
            Self { path, file: None, kept, bytes, pending, first: Vec::new(), is_full: false };
        let file = match OpenOptions::new().read(true).write(true).open(&log.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(log),
            file => file?,
        };
        let mut lines = Lines::new(&file);
        while let Some(entry) = lines.next()? {
            if index_of(&entry).is_none_or(|index| index >= settled) {
                break;
            }
            log.bytes = lines.offset;
            log.is_full = entry.contains_key(OMITTED);
            if !log.is_full {
                log.kept += 1;
            }
            if log.first.len() < ERRORS_SHOWN && !log.is_full {
                log.first.push(entry.into());
            }
        }
        file.set_len(log.bytes)?;
        file.sync_all()?;
        log.file = Some(file);
        Ok(log)
    }

    /// Takes one that is later than all before; [`ErrorLog::sync`] keeps it.
    pub(super) fn push(&mut self, index: u64, mut entry: Map<String, Value>, error: &str) {
        entry.insert("index".to_owned(), index.into());
        entry.insert("error".to_owned(), shown(error).into());
        if self.first.len() < ERRORS_SHOWN {
            self.first.push(entry.clone().into());
        }
        if self.is_full {
            return;
        }
        let mut line = Value::Object(entry).to_string();
        let bytes = self.bytes + self.pending.len() as u64 + line.len() as u64 + 1;
        self.is_full = self.kept >= JOB_ERRORS_KEPT_MAX || bytes > JOB_ERRORS_BYTES_MAX - END_BYTES;
        if self.is_full {
            line = json!({"index": index, OMITTED: true}).to_string();
        } else {
            self.kept += 1;
        }
        self.pending.extend_from_slice(line.as_bytes());
        self.pending.push(b'\n');
    }

    /// Makes durable what was taken (J1). Blocks.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let file = File::create(&self.path)?;
                if let Some(dir) = self.path.parent() {
                    File::open(dir)?.sync_all()?;
                }
                none.insert(file)
            }
        };
        // Whatever a write that failed left there is written over.
        file.seek(SeekFrom::Start(self.bytes))?;
        file.write_all(&self.pending)?;
        file.sync_data()?;
        self.bytes += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// The first ones, for the result.
    pub(super) fn first(&self) -> &[Value] {
        &self.first
    }

    /// Whether some had no room.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }
}

impl JobFiles {
    fn errors_path(&self, id: JobId) -> PathBuf {
        self.errors.join(format!("{id}.ndjson"))
    }

    /// A page of what a job refused so far. Blocks.
    pub(crate) fn read_errors(
        &self,
        id: JobId,
        (cursor, limit): (Option<ErrorCursor>, usize),
    ) -> io::Result<ErrorPage> {
        let file = match File::open(self.errors_path(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(ErrorPage::default());
            }
            file => file?,
        };
        let mut page = ErrorPage { truncated: is_cut_off(&file)?, ..ErrorPage::default() };
        let mut lines = Lines::new(&file);
        lines.begin(cursor)?;
        // Where the file was cut since, the place may be somewhere else, so all is looked at.
        let after = cursor.map(|cursor| cursor.after);
        let mut last = None;
        loop {
            let offset = lines.offset;
            let Some(entry) = lines.next()? else { break };
            let index = index_of(&entry);
            if entry.contains_key(OMITTED) {
                break;
            }
            if after.is_some_and(|after| index.is_none_or(|index| index <= after)) {
                continue;
            }
            if page.errors.len() == limit {
                page.next = last;
                break;
            }
            last = index.map(|after| ErrorCursor { offset, after });
            page.errors.push(entry);
        }
        Ok(page)
    }

    /// Removes those of jobs that are forgotten, and the oldest of those that are over where all
    /// together take too much. Blocks.
    pub(crate) fn forget_errors(&self, known: impl Fn(JobId) -> Known) -> io::Result<()> {
        let (mut over, mut bytes): (Vec<(SystemTime, u64, PathBuf)>, u64) = (Vec::new(), 0);
        for entry in fs::read_dir(&self.errors)? {
            let entry = entry?;
            let path = entry.path();
            // What is not ours is left alone.
            let Some(id) = named(&path) else { continue };
            let known = known(id);
            if known == Known::Not {
                discard(&path);
                continue;
            }
            let metadata = entry.metadata()?;
            bytes += metadata.len();
            if known == Known::Over {
                over.push((metadata.modified()?, metadata.len(), path));
            }
        }
        over.sort_unstable();
        for (_modified, of_one, path) in over {
            if bytes <= JOBS_ERRORS_BYTES_MAX {
                break;
            }
            discard(&path);
            bytes -= of_one;
        }
        Ok(())
    }
}

/// What is known of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// It was forgotten, or never was.
    Not,
    /// It is over.
    Over,
    /// It may go on.
    Unfinished,
}

fn index_of(entry: &Map<String, Value>) -> Option<u64> {
    entry.get("index")?.as_u64()
}

/// Whether the last line says that there was no room.
fn is_cut_off(mut file: &File) -> io::Result<bool> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(END_BYTES)))?;
    let mut end = Vec::new();
    file.take(END_BYTES).read_to_end(&mut end)?;
    let last = end.strip_suffix(b"\n").unwrap_or_default().rsplit(|byte| *byte == b'\n').next();
    let last = last.map(serde_json::from_slice::<Map<String, Value>>);
    Ok(last.and_then(Result::ok).is_some_and(|last| last.contains_key(OMITTED)))
}

/// The lines of a file that are whole.
struct Lines<'a> {
    file: BufReader<&'a File>,
    /// Where the next one begins.
    offset: u64,
    line: Vec<u8>,
}

impl<'a> Lines<'a> {
    fn new(file: &'a File) -> Self {
        Self { file: BufReader::new(file), offset: 0, line: Vec::new() }
    }

    /// Goes behind the one that a cursor names, if it is where the cursor says; else to the beginning.
    fn begin(&mut self, cursor: Option<ErrorCursor>) -> io::Result<()> {
        if let Some(ErrorCursor { offset, after }) = cursor {
            self.offset = offset;
            self.file.seek(SeekFrom::Start(offset))?;
            if self.next()?.is_some_and(|entry| index_of(&entry) == Some(after)) {
                return Ok(());
            }
        }
        self.offset = 0;
        self.file.seek(SeekFrom::Start(0))?;
        Ok(())
    }

    /// The next one; nothing at the end, or where what follows is no such line.
    fn next(&mut self) -> io::Result<Option<Map<String, Value>>> {
        self.line.clear();
        // No line of ours is longer than a file of them may be.
        (&mut self.file).take(JOB_ERRORS_BYTES_MAX).read_until(b'\n', &mut self.line)?;
        if self.line.last() != Some(&b'\n') {
            return Ok(None);
        }
        let entry = serde_json::from_slice(&self.line).ok();
        if entry.is_some() {
            self.offset += self.line.len() as u64;
        }
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn files(dir: &tempfile::TempDir) -> JobFiles {
        let files = JobFiles::new(dir.path(), Duration::from_mins(1));
        files.open(|_id| true).unwrap();
        files
    }

    fn job(n: u8) -> JobId {
        JobId::from_bytes([n; 16])
    }

    fn push(log: &mut ErrorLog, index: u64) {
        let mut entry = Map::new();
        entry.insert("line_number".to_owned(), (index + 1).into());
        log.push(index, entry, &format!("error {index}"));
    }

    /// All of them, page by page.
    fn all(files: &JobFiles, id: JobId, limit: usize) -> Vec<u64> {
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let page = files.read_errors(id, (cursor, limit)).unwrap();
            assert!(page.errors.len() <= limit);
            found.extend(page.errors.iter().map(|entry| entry["index"].as_u64().unwrap()));
            cursor = page.next;
            if cursor.is_none() {
                return found;
            }
            assert_eq!(page.errors.len(), limit, "a page is full where there are more");
        }
    }

    #[test]
    fn j1_what_cannot_be_stored_is_not_said_to_be_and_can_be_later() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(&dir);
        let mut log = ErrorLog::open(&files, job(1), 0).unwrap();
        push(&mut log, 3);
        assert!(all(&files, job(1), 9).is_empty(), "nobody counts it yet");
        fs::remove_dir(&files.errors).unwrap();
        assert!(log.sync().is_err(), "nor may anybody");
        fs::create_dir(&files.errors).unwrap();
        log.sync().unwrap();
        push(&mut log, 8);
        log.sync().unwrap();
        drop(log);
        // As who counts ten units finds it after a crash.
        ErrorLog::open(&files, job(1), 10).unwrap();
        assert_eq!(all(&files, job(1), 9), [3, 8]);
    }

    #[test]
    fn j2_what_was_not_counted_is_found_again_and_nothing_is_there_twice() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(&dir);
        let mut log = ErrorLog::open(&files, job(1), 0).unwrap();
        for index in (0..100).step_by(3) {
            push(&mut log, index);
            log.sync().unwrap();
        }
        // It stopped in the middle of a write, and the log has its progress up to the fiftieth.
        let path = files.errors_path(job(1));
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend_from_slice(b"{\"index\":102,\"err");
        fs::write(&path, &bytes).unwrap();
        assert_eq!(all(&files, job(1), 7), (0..100).step_by(3).collect::<Vec<_>>());
        let later = files.read_errors(job(1), (None, 20)).unwrap().next.unwrap();
        let mut log = ErrorLog::open(&files, job(1), 50).unwrap();
        assert_eq!(log.first().len(), 17);
        for index in (50..100).step_by(5) {
            push(&mut log, index);
        }
        log.sync().unwrap();
        let expected: Vec<u64> = (0..50).step_by(3).chain((50..100).step_by(5)).collect();
        for limit in [1, 2, 20, 1000] {
            assert_eq!(all(&files, job(1), limit), expected, "{limit}");
        }
        assert_eq!(log.first().len(), ERRORS_SHOWN);
        // A page that was asked for before goes on after what it showed.
        let rest = files.read_errors(job(1), (Some(later), 1000)).unwrap();
        let rest: Vec<u64> = rest.errors.iter().map(|it| it["index"].as_u64().unwrap()).collect();
        assert_eq!(rest, (60..100).step_by(5).collect::<Vec<_>>());
        assert_eq!(later.after, 57);
        let again = ErrorLog::open(&files, job(1), 0).unwrap();
        assert!(again.first().is_empty() && all(&files, job(1), 9).is_empty());
    }

    #[test]
    fn where_there_is_no_room_for_more_that_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(&dir);
        let mut log = ErrorLog::open(&files, job(1), 0).unwrap();
        for index in 0..JOB_ERRORS_KEPT_MAX + 500 {
            push(&mut log, index);
        }
        log.sync().unwrap();
        assert!(log.is_full());
        let found = all(&files, job(1), 1000);
        assert_eq!(found, (0..JOB_ERRORS_KEPT_MAX).collect::<Vec<_>>());
        assert!(files.read_errors(job(1), (None, 1)).unwrap().truncated, "on every page");
        // It goes on from before there was no room, and from after.
        let log = ErrorLog::open(&files, job(1), JOB_ERRORS_KEPT_MAX + 7).unwrap();
        assert!(log.is_full() && files.read_errors(job(1), (None, 1)).unwrap().truncated);
        let log = ErrorLog::open(&files, job(1), 10).unwrap();
        assert!(!log.is_full() && !files.read_errors(job(1), (None, 1)).unwrap().truncated);

        let mut log = ErrorLog::open(&files, job(2), 0).unwrap();
        let wide = "\u{1}".repeat(super::super::ERROR_CHARS);
        let mut index = 0;
        while !log.is_full() {
            log.push(index, Map::new(), &wide);
            index += 1;
        }
        log.sync().unwrap();
        let length = fs::metadata(files.errors_path(job(2))).unwrap().len();
        assert!(length <= JOB_ERRORS_BYTES_MAX && length > JOB_ERRORS_BYTES_MAX / 2, "{length}");
    }

    #[test]
    fn those_of_jobs_that_are_forgotten_go() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(&dir);
        for n in 1..=3 {
            let mut log = ErrorLog::open(&files, job(n), 0).unwrap();
            push(&mut log, 1);
            log.sync().unwrap();
        }
        let other = files.errors.join("notes.txt");
        fs::write(&other, "mine").unwrap();
        let known = |id| match id {
            id if id == job(1) => Known::Not,
            id if id == job(2) => Known::Over,
            _unfinished => Known::Unfinished,
        };
        files.forget_errors(known).unwrap();
        let there: Vec<usize> = (1..=3).map(|n| all(&files, job(n), 9).len()).collect();
        assert_eq!((there, other.exists()), (vec![0, 1, 1], true));
    }
}
