//! The files of jobs: what they work on, and what they leave to be fetched.
//!
//! ```text
//! work/jobs/<job id>.ndjson       what a job works on; removed once it is over
//! exports/<job id>.<format>       what an export wrote; removed when it expires
//! job-errors/<job id>.ndjson      what a job refused; removed when the job is forgotten
//! ```
//! A line of an input that begins with a space is none of the input's: it says which number the line
//! after it had where it came from. Lines come without space around them, so none of theirs does.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use arrwdb_engine::state::{JobId, JobInput};
use bytes::Bytes;

/// Bytes that are read or written at a time.
const BUFFER_BYTES: usize = 256 << 10;
/// What a line begins with that says the number of the next one.
const NUMBER_MARK: u8 = b' ';

/// Where they are.
#[derive(Debug, Clone)]
pub(crate) struct JobFiles {
    inputs: PathBuf,
    exports: PathBuf,
    pub(super) errors: PathBuf,
    /// How long an export can be fetched.
    kept: Duration,
}

impl JobFiles {
    pub(crate) fn new(data_dir: &Path, kept: Duration) -> Self {
        let (inputs, exports) = (data_dir.join("work").join("jobs"), data_dir.join("exports"));
        Self { inputs, exports, errors: data_dir.join("job-errors"), kept }
    }

    /// Makes the folders, and removes what a crash left: inputs of jobs that are not there, exports
    /// that were never finished. Blocks.
    pub(crate) fn open(&self, is_wanted: impl Fn(JobId) -> bool) -> io::Result<()> {
        fs::create_dir_all(&self.inputs)?;
        fs::create_dir_all(&self.exports)?;
        fs::create_dir_all(&self.errors)?;
        // An input is as durable as the names above it, and so are errors.
        for dir in [Some(&*self.inputs), self.inputs.parent(), self.exports.parent()] {
            File::open(dir.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        for entry in fs::read_dir(&self.inputs)? {
            let path = entry?.path();
            // What is not ours is left alone.
            if named(&path).is_some_and(|id| !is_wanted(id)) {
                discard(&path);
            }
        }
        for entry in fs::read_dir(&self.exports)? {
            let path = entry?.path();
            let is_part = path.extension().is_some_and(|ending| ending == "part");
            if is_part && named(&path.with_extension("")).is_some() {
                discard(&path);
            }
        }
        self.expire()
    }

    /// Removes exports that are older than they are kept. Blocks.
    pub(crate) fn expire(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.exports)? {
            let entry = entry?;
            let path = entry.path();
            let expired = entry.metadata().and_then(|metadata| self.is_expired(&metadata));
            if named(&path).is_some() && expired.unwrap_or(false) {
                discard(&path);
            }
        }
        Ok(())
    }

    /// How long an export can be fetched.
    pub(crate) fn kept(&self) -> Duration {
        self.kept
    }

    fn input_path(&self, id: JobId) -> PathBuf {
        self.inputs.join(format!("{id}.ndjson"))
    }

    /// A new input, to be written.
    pub(crate) fn create_input(&self, id: JobId) -> io::Result<InputWriter> {
        let path = self.input_path(id);
        let file = BufWriter::with_capacity(BUFFER_BYTES, File::create(&path)?);
        let input = JobInput { bytes: 0, crc: 0, units: 0 };
        Ok(InputWriter { path, file: Some(file), input, number: None })
    }

    /// Opens a job's input to be read from its beginning, once it is sure that all of it is there.
    /// Blocks.
    pub(crate) fn open_input(&self, id: JobId, input: JobInput) -> io::Result<File> {
        let path = self.input_path(id);
        let mut file = File::open(&path)?;
        let (mut crc, mut bytes) = (0, 0);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            crc = crc32c::crc32c_append(crc, &buffer[..read]);
            bytes += read as u64;
        }
        if (bytes, crc) != (input.bytes, input.crc) {
            tracing::error!(path = %path.display(), "a job's input is not what was submitted");
            let error = "it is not what was submitted";
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        drop(file);
        File::open(&path)
    }

    /// Removes a job's input.
    pub(crate) fn remove_input(&self, id: JobId) {
        discard(&self.input_path(id));
    }

    /// Opens an export that has not expired, whether or not its file is removed yet. Blocks.
    pub(crate) fn open_export(&self, id: JobId, ending: &str) -> io::Result<(File, u64)> {
        let file = File::open(self.exports.join(format!("{id}.{ending}")))?;
        let metadata = file.metadata()?;
        if self.is_expired(&metadata)? {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok((file, metadata.len()))
    }

    fn is_expired(&self, export: &fs::Metadata) -> io::Result<bool> {
        let age = SystemTime::now().duration_since(export.modified()?);
        Ok(age.is_ok_and(|age| age >= self.kept))
    }

    /// Begins an export: the file, and what to call it while it is written.
    pub(crate) fn create_export(&self, id: JobId, ending: &str) -> io::Result<(File, PathBuf)> {
        let path = self.exports.join(format!("{id}.{ending}.part"));
        Ok((File::create(&path)?, path))
    }

    /// Makes an export durable under its name.
    pub(crate) fn finish_export(&self, file: &File, part: &Path) -> io::Result<()> {
        file.sync_all()?;
        fs::rename(part, part.with_extension(""))?;
        File::open(&self.exports)?.sync_all()
    }
}

/// Removes a file that nobody needs; one that stays is no reason to stop.
pub(super) fn discard(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "left behind");
        }
        Ok(()) | Err(_) => {}
    }
}

/// The job that a file is named after.
pub(super) fn named(path: &Path) -> Option<JobId> {
    path.file_stem()?.to_str()?.parse().ok()
}

/// An input that is written. One that is not finished is removed.
#[derive(Debug)]
pub(crate) struct InputWriter {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    input: JobInput,
    /// The number that the next line has if nothing is said of it; nothing until one was said.
    number: Option<u64>,
}

impl InputWriter {
    /// Appends a line, which has no end of line in it, and no space around it.
    pub(crate) fn line(&mut self, line: &[u8]) -> io::Result<()> {
        self.write(line)?;
        self.input.units += 1;
        self.number = self.number.map(|number| number + 1);
        Ok(())
    }

    /// As [`InputWriter::line`], one that had this number where it came from. Those that are left out
    /// there take no room here.
    pub(crate) fn numbered(&mut self, number: u64, line: &[u8]) -> io::Result<()> {
        if self.number != Some(number) {
            self.write(format!("{}{number}", char::from(NUMBER_MARK)).as_bytes())?;
            self.number = Some(number);
        }
        self.line(line)
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::BrokenPipe.into()) };
        for part in [line, b"\n"] {
            file.write_all(part)?;
            self.input.crc = crc32c::crc32c_append(self.input.crc, part);
            self.input.bytes += part.len() as u64;
        }
        Ok(())
    }

    /// Lines that were written.
    pub(crate) fn lines(&self) -> u64 {
        self.input.units
    }

    /// Makes it durable; what the log says of it. Blocks.
    pub(crate) fn finish(mut self) -> io::Result<(JobInput, Unsubmitted)> {
        let Some(file) = self.file.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let guard = Unsubmitted(Some(self.path.clone()));
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        if let Some(dir) = self.path.parent() {
            File::open(dir)?.sync_all()?;
        }
        Ok((self.input, guard))
    }
}

impl Drop for InputWriter {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            discard(&self.path);
        }
    }
}

/// An input whose job is not in the log yet. It is removed, unless the job comes to be.
#[derive(Debug)]
pub(crate) struct Unsubmitted(Option<PathBuf>);

impl Unsubmitted {
    /// The job is in the log.
    pub(crate) fn submitted(mut self) {
        self.0 = None;
    }
}

impl Drop for Unsubmitted {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            discard(&path);
        }
    }
}

/// What a job works on, line by line.
#[derive(Debug)]
pub(crate) enum Input {
    /// In the log, with the job.
    Lines(std::vec::IntoIter<Bytes>),
    /// In a file beside it.
    File(InputFile),
}

/// A file of lines that is read.
#[derive(Debug)]
pub(crate) struct InputFile {
    file: Box<io::BufReader<File>>,
    number: Option<u64>,
}

/// One of the lines that a job works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InputLine {
    pub(crate) text: Bytes,
    /// Which one it was of the body that it came in, from 1, if that was one of lines.
    pub(crate) number: Option<u64>,
}

impl Input {
    /// The next lines: so many, or so many bytes, whichever comes first; at least one, if there is
    /// one. Where they end depends on nothing else. Blocks.
    pub(crate) fn next_unit(
        &mut self,
        lines_max: usize,
        bytes_max: usize,
    ) -> io::Result<Vec<InputLine>> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while lines.len() < lines_max && bytes < bytes_max {
            let line = match self {
                Self::Lines(rest) => rest.next().map(|text| InputLine { text, number: None }),
                Self::File(file) => file.next_line()?,
            };
            let Some(line) = line else { break };
            bytes += line.text.len();
            lines.push(line);
        }
        Ok(lines)
    }

    pub(crate) fn file(file: File) -> Self {
        let file = Box::new(io::BufReader::with_capacity(BUFFER_BYTES, file));
        Self::File(InputFile { file, number: None })
    }
}

impl InputFile {
    fn next_line(&mut self) -> io::Result<Option<InputLine>> {
        loop {
            let mut line = Vec::new();
            io::BufRead::read_until(&mut self.file, b'\n', &mut line)?;
            // The writer ends every line.
            if line.pop() != Some(b'\n') {
                return Ok(None);
            }
            let Some(number) = line.strip_prefix(&[NUMBER_MARK]) else {
                let number = self.number;
                self.number = number.map(|number| number + 1);
                return Ok(Some(InputLine { text: Bytes::from(line), number }));
            };
            self.number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(n: u8) -> JobId {
        JobId::from_bytes([n; 16])
    }

    #[test]
    fn an_input_reads_back_as_it_was_and_is_refused_when_it_is_not_whole() {
        let dir = tempfile::tempdir().unwrap();
        let files = JobFiles::new(dir.path(), Duration::from_mins(1));
        files.open(|_id| true).unwrap();
        let mut writer = files.create_input(job(1)).unwrap();
        for n in 0..1000 {
            writer.line(format!("{{\"n\":{n}}}").as_bytes()).unwrap();
        }
        let (input, unsubmitted) = writer.finish().unwrap();
        unsubmitted.submitted();
        assert_eq!(input.units, 1000);
        let mut read = Input::file(files.open_input(job(1), input).unwrap());
        let mut lines = Vec::new();
        loop {
            let unit = read.next_unit(64, 400).unwrap();
            if unit.is_empty() {
                break;
            }
            assert!(unit.len() <= 64);
            lines.extend(unit);
        }
        let of = |n| InputLine { text: Bytes::from(format!("{{\"n\":{n}}}")), number: None };
        assert_eq!(lines, (0..1000).map(of).collect::<Vec<_>>());
        let path = files.input_path(job(1));
        let mut bytes = fs::read(&path).unwrap();
        bytes[500] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(files.open_input(job(1), input).is_err());
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(files.open_input(job(1), input).is_err());
    }

    #[test]
    fn a_line_has_the_number_that_it_came_with() {
        let dir = tempfile::tempdir().unwrap();
        let files = JobFiles::new(dir.path(), Duration::from_mins(1));
        files.open(|_id| true).unwrap();
        let mut writer = files.create_input(job(1)).unwrap();
        let numbers = [1, 2, 5, 6, 7, 4_000_000_000];
        for number in numbers {
            writer.numbered(number, format!("[{number}]").as_bytes()).unwrap();
        }
        let (input, unsubmitted) = writer.finish().unwrap();
        unsubmitted.submitted();
        assert_eq!(input.units, numbers.len() as u64, "numbers are no lines");
        let mut read = Input::file(files.open_input(job(1), input).unwrap());
        for some in numbers.chunks(2) {
            let of = |&n: &u64| InputLine { text: format!("[{n}]").into(), number: Some(n) };
            assert_eq!(
                read.next_unit(2, 1 << 20).unwrap(),
                some.iter().map(of).collect::<Vec<_>>()
            );
        }
        assert_eq!(read.next_unit(2, 1 << 20).unwrap(), []);
    }

    #[test]
    fn what_nobody_waits_for_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let files = JobFiles::new(dir.path(), Duration::from_mins(1));
        files.open(|_id| true).unwrap();
        drop(files.create_input(job(1)).unwrap());
        let mut given_up = files.create_input(job(2)).unwrap();
        given_up.line(b"{}").unwrap();
        drop(given_up.finish().unwrap());
        assert!(!files.input_path(job(1)).exists() && !files.input_path(job(2)).exists());
        for n in [3, 4] {
            let mut writer = files.create_input(job(n)).unwrap();
            writer.line(b"{}").unwrap();
            writer.finish().unwrap().1.submitted();
        }
        let (file, part) = files.create_export(job(5), "csv").unwrap();
        files.create_export(job(6), "csv").unwrap();
        files.finish_export(&file, &part).unwrap();
        files.open(|id| id == job(4)).unwrap();
        assert!(!files.input_path(job(3)).exists() && files.input_path(job(4)).exists());
        assert_eq!(files.open_export(job(5), "csv").unwrap().1, 0);
        assert_eq!(fs::read_dir(&files.exports).unwrap().count(), 1);
        let none = JobFiles::new(dir.path(), Duration::ZERO);
        assert!(none.open_export(job(5), "csv").is_err(), "it has expired, removed or not");
        none.expire().unwrap();
        assert_eq!(fs::read_dir(&files.exports).unwrap().count(), 0);
    }
}
