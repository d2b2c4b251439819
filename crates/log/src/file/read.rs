//! Reading durable records back, file after file, in bounded memory.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::vec;

use super::Shared;
use super::index::{Place, Sidecar};
use super::recover::{self, Sealed};
use crate::disk::{Access, File};
use crate::frame::FileHeader;
use crate::scan::{self, Payloads, READ_BYTES, Scanner, Step, Window};
use crate::{LogError, Record, Stream};

/// Bytes read at a time, at least, when only some of a file's records are wanted.
const READ_BYTES_SPARSE: usize = 8 << 10;

/// Which records are wanted.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    All,
    Of(Stream),
}

/// How a file is gone through.
#[derive(Debug)]
enum Course {
    /// Frame after frame from this offset on.
    From(u64),
    /// Record by record.
    At(vec::IntoIter<Place>),
}

/// A file still to be read.
#[derive(Debug)]
enum Source {
    Sealed(Arc<Sealed>),
    Active { path: PathBuf, header: FileHeader, end: u64, course: Course },
}

/// The file being read.
#[derive(Debug)]
struct Reading {
    path: PathBuf,
    scanner: Scanner,
    course: Course,
    /// Where its durable data ended when the reading began.
    end: u64,
}

/// Iterator behind `Log::read` and `Log::read_stream`.
#[derive(Debug)]
pub(super) struct Reader {
    shared: Arc<Shared>,
    wanted: Wanted,
    after: u64,
    sources: VecDeque<Source>,
    reading: Option<Reading>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, wanted: Wanted, after: u64) -> Self {
        let files = shared.files.lock();
        let sealed = files.sealed.iter().filter(|file| file.extent.last > after);
        let mut sources: VecDeque<_> =
            sealed.map(|file| Source::Sealed(Arc::clone(file))).collect();
        let active = &files.active;
        let course = match wanted {
            Wanted::All => Course::From(active.index.floor(after)),
            Wanted::Of(stream) => Course::At(active.index.places(stream, after).into_iter()),
        };
        let nothing = matches!(&course, Course::At(places) if places.len() == 0);
        if !nothing && after < shared.durable.load(Ordering::Acquire) {
            let (path, header, end) = (active.path.clone(), active.header, active.end);
            sources.push_back(Source::Active { path, header, end, course });
        }
        drop(files);
        Self { shared, wanted, after, sources, reading: None }
    }

    fn advance(&mut self) -> Result<Option<Record>, LogError> {
        loop {
            let Some(reading) = &mut self.reading else {
                let Some(source) = self.sources.pop_front() else { return Ok(None) };
                self.reading = self.open(source)?;
                continue;
            };
            match reading.advance()? {
                Some(record) if record.seq > self.after => return Ok(Some(record)),
                Some(_) => {}
                None => self.reading = None,
            }
        }
    }

    fn open(&self, source: Source) -> Result<Option<Reading>, LogError> {
        match source {
            Source::Active { path, header, end, course } => {
                let file = self.open_file(&path)?;
                Ok(Some(Reading::new(file, path, &header, (course, end))))
            }
            Source::Sealed(sealed) => self.open_sealed(&sealed),
        }
    }

    fn open_sealed(&self, sealed: &Sealed) -> Result<Option<Reading>, LogError> {
        let path = &sealed.path;
        let Some(course) = self.course(sealed)? else { return Ok(None) };
        let file = self.open_file(path)?;
        let header = scan::read_header(&*file, path, sealed.extent.first)?;
        Ok(Some(Reading::new(file, path.clone(), &header, (course, sealed.extent.end))))
    }

    /// By the sealed file's index, built anew if it cannot be used; `None`: nothing wanted there.
    fn course(&self, sealed: &Sealed) -> Result<Option<Course>, LogError> {
        let path = &sealed.path;
        if self.wanted == Wanted::All && self.after < sealed.extent.first {
            return Ok(Some(Course::From(crate::frame::FRAMES_BEGIN)));
        }
        let at = recover::index_path(path);
        let known = Sidecar::open(&*self.shared.disk, &at)
            .map(|sidecar| sidecar.filter(|sidecar| *sidecar.extent() == sealed.extent))
            .and_then(|sidecar| match (sidecar, self.wanted) {
                (None, _) => Ok(None),
                (Some(sidecar), Wanted::All) => Ok(Some(Course::From(sidecar.floor(self.after)))),
                (Some(sidecar), Wanted::Of(stream)) => Ok(sidecar
                    .places(stream, self.after)?
                    .map(|places| Course::At(places.into_iter()))),
            });
        let course = if let Ok(Some(course)) = known {
            course
        } else {
            let file = self.open_file(path)?;
            let header = scan::read_header(&*file, path, sealed.extent.first)?;
            let (index, _) = recover::rebuild_index(&*self.shared.disk, path, &file, &header)?;
            match self.wanted {
                Wanted::All => Course::From(index.floor(self.after)),
                Wanted::Of(stream) => Course::At(index.places(stream, self.after).into_iter()),
            }
        };
        let nothing = matches!(&course, Course::At(places) if places.len() == 0);
        Ok((!nothing).then_some(course))
    }

    fn open_file(&self, path: &Path) -> Result<Arc<dyn File>, LogError> {
        self.shared.disk.open(path, Access::Read).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                let first = self.shared.first();
                if self.after + 1 < first {
                    return LogError::Trimmed { first };
                }
            }
            LogError::io("open", path)(error)
        })
    }
}

impl Iterator for Reader {
    type Item = Result<Record, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance().transpose();
        if let Some(Err(_)) = &next {
            self.sources.clear();
            self.reading = None;
        }
        next
    }
}

impl Reading {
    fn new(
        file: Arc<dyn File>,
        path: PathBuf,
        header: &FileHeader,
        (course, end): (Course, u64),
    ) -> Self {
        let offset = match &course {
            Course::From(offset) => *offset,
            Course::At(places) => places.as_slice().first().map_or(end, |place| place.offset),
        };
        let read_bytes = match &course {
            Course::From(_) => READ_BYTES,
            // Records of one stream may lie far apart: what is read between them is wasted.
            Course::At(_) => READ_BYTES_SPARSE,
        };
        let window = Window::new(file, end, read_bytes);
        let scanner = Scanner::resume(window, header.seed(), offset, Payloads::Keep);
        Self { path, scanner, course, end }
    }

    /// The next record of the file; `None` at its end.
    fn advance(&mut self) -> Result<Option<Record>, LogError> {
        let place = match &mut self.course {
            Course::From(_) => None,
            Course::At(places) => {
                let Some(place) = places.next() else { return Ok(None) };
                if place.offset != self.scanner.complete() {
                    self.scanner.seek(place.offset);
                }
                Some(place)
            }
        };
        match self.scanner.step().map_err(LogError::io("read", &self.path))? {
            Step::Record(found) => match place {
                Some(place) if place.seq != found.record.seq => {
                    let reason = "another record is here than the index says";
                    Err(LogError::damaged(&self.path, place.offset, reason))
                }
                Some(_) | None => Ok(Some(found.record)),
            },
            Step::Stop(stop) if place.is_none() && self.scanner.complete() == self.end => {
                debug_assert_eq!(stop.offset, self.end);
                Ok(None)
            }
            Step::Stop(stop) => Err(recover::stopped(&self.path, stop)),
        }
    }
}
