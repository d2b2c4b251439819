//! The log's thread: takes all that is queued, writes it, syncs once, calls back.
//!
//! Space is allocated before a group is written. So a full disk is met while nothing of the group
//! is on disk, and fails that group (and what is queued behind it, which may have been decided on
//! it) without poisoning. Whatever fails later poisons (L5).
//!
//! A small group also writes zeros into the space allocated ahead of it: later groups then
//! overwrite blocks that exist and are initialised, and their sync has no file metadata to journal.
//! A large group does not: its own bytes are worth a journal commit.

use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::frames::Frames;
use super::index::{Extent, Index, Place};
use super::recover::{self, Active, ActiveFile, Sealed};
use super::{Queued, Shared};
use crate::LogError;
use crate::disk::File;
use crate::error::is_full;
use crate::frame::{self, FRAMES_BEGIN, FileHeader};

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Why a group was not made durable.
enum Failure {
    /// Met before anything of the group was written.
    Full(LogError),
    Poison(LogError),
}

/// Allocation and creation come before the group's first byte, so a full disk there is clean.
fn before_writing(error: LogError) -> Failure {
    if matches!(error, LogError::DiskFull { .. }) {
        Failure::Full(error)
    } else {
        Failure::Poison(error)
    }
}

/// Poisons the log if its thread panics, so that nobody waits for ever.
struct Sentinel(Arc<Shared>);

impl Drop for Sentinel {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison(Vec::new(), "the log's thread panicked".into());
        }
    }
}

/// The active file and what it takes to write it. Lives on the log's thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    file: Arc<dyn File>,
    path: PathBuf,
    header: FileHeader,
    /// Where the next group begins; all before it is durable.
    end: u64,
    /// Up to here space is allocated.
    allocated: u64,
    /// Up to here bytes were written, zeros or not.
    initialised: u64,
    /// The highest number written.
    last: u64,
    /// Whether a group was written since the last mark.
    unmarked: bool,
    buffer: Vec<u8>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, active: ActiveFile) -> Self {
        Self {
            shared,
            file: active.file,
            path: active.path,
            header: active.header,
            end: active.end,
            allocated: active.allocated,
            initialised: active.end,
            last: active.last,
            unmarked: false,
            buffer: Vec::new(),
        }
    }

    /// Runs until the log is closed or poisoned.
    pub(super) fn run(mut self) {
        let _sentinel = Sentinel(Arc::clone(&self.shared));
        while let Some(group) = self.shared.next_group() {
            match self.write_group(&group) {
                Ok(places) => {
                    self.publish(&group, &places);
                    self.shared.acknowledge(group, self.last);
                }
                Err(Failure::Full(error)) => self.shared.refuse(group, &error),
                Err(Failure::Poison(error)) => {
                    return self.shared.poison(group, error.to_string().into());
                }
            }
        }
        match self.write_mark() {
            Ok(()) => self.shared.end(),
            Err(error) => self.shared.poison(Vec::new(), error.to_string().into()),
        }
    }

    /// Writes and syncs a group, in a new file if this one is full. Returns each record's place.
    fn write_group(&mut self, group: &[Queued]) -> Result<Vec<Place>, Failure> {
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            return Ok(Vec::new());
        };
        let bytes: u64 = group.iter().map(|q| frame::record_framed(q.bytes) as u64).sum();
        // A file without a record is never finished: the next one could have its name.
        let holds_records = self.last >= self.header.first;
        let full = self.end + bytes > self.shared.options.file_bytes;
        let wanted = self.shared.begin_file.load(Ordering::SeqCst);
        if holds_records && (full || wanted) {
            self.rotate(first.seq).map_err(before_writing)?;
        }
        if wanted {
            self.shared.begin_file.store(false, Ordering::SeqCst);
        }
        self.allocate(bytes).map_err(before_writing)?;
        let (places, end) = self.write_frames(group).map_err(Failure::Poison)?;
        assert!(end == self.end + bytes, "a group is as long as was allocated for it");
        self.initialise_ahead(end, bytes).map_err(Failure::Poison)?;
        self.sync().map_err(Failure::Poison)?;
        self.end = end;
        self.last = last.seq;
        self.unmarked = true;
        Ok(places)
    }

    fn allocate(&mut self, bytes: u64) -> Result<(), LogError> {
        let end = self.end + bytes;
        if end <= self.allocated {
            return Ok(());
        }
        let ahead = end + self.shared.options.ahead_bytes;
        for target in [ahead, end] {
            match self.file.allocate(self.allocated, target - self.allocated) {
                Ok(()) => {
                    self.allocated = target;
                    return Ok(());
                }
                // There may still be room for the group alone.
                Err(error) if is_full(&error) && target > end => {}
                Err(error) => return Err(LogError::io("allocate space in", &self.path)(error)),
            }
        }
        Ok(())
    }

    /// Writes the group's frames from `self.end`; returns the records' places and the end.
    fn write_frames(&mut self, group: &[Queued]) -> Result<(Vec<Place>, u64), LogError> {
        let mut places = Vec::with_capacity(group.len());
        let buffer = mem::take(&mut self.buffer);
        let mut frames = Frames::new(&*self.file, self.header.seed(), self.end, buffer);
        for queued in group {
            places.push(Place { seq: queued.seq, offset: frames.offset() });
            frames
                .record(queued.seq, queued.stream, &queued.payload)
                .map_err(LogError::io("write", &self.path))?;
        }
        let (end, buffer) = frames.finish();
        self.buffer = buffer;
        Ok((places, end.map_err(LogError::io("write", &self.path))?))
    }

    /// Writes zeros from the end of a small group to the end of the space allocated, unless bytes
    /// are there already.
    fn initialise_ahead(&mut self, end: u64, group_bytes: u64) -> Result<(), LogError> {
        if end <= self.initialised {
            return Ok(());
        }
        self.initialised = end;
        if group_bytes >= self.shared.options.ahead_bytes / 4 {
            return Ok(());
        }
        while self.initialised < self.allocated {
            let left = usize::try_from(self.allocated - self.initialised).unwrap_or(usize::MAX);
            let zeros = &ZEROS[..left.min(ZEROS.len())];
            self.file
                .write_all_at(zeros, self.initialised)
                .map_err(LogError::io("write", &self.path))?;
            self.initialised += zeros.len() as u64;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), LogError> {
        let begin = Instant::now();
        let result = self.file.sync_data();
        self.shared.record_sync(begin.elapsed());
        result.map_err(LogError::io("sync", &self.path))
    }

    /// Starts the file whose first record is `first`, and seals the present one.
    fn rotate(&mut self, first: u64) -> Result<(), LogError> {
        let shared = Arc::clone(&self.shared);
        let salt = recover::file_salt(shared.options.salt, first);
        let header = FileHeader { first, previous: self.last, salt };
        let begin = Instant::now();
        let (path, file) = recover::create_file(&*shared.disk, &shared.dir, &header)?;
        shared.record_sync(begin.elapsed());
        let extent = Extent {
            first: self.header.first,
            last: self.last,
            end: self.end,
            salt: self.header.salt,
        };
        // The space allocated ahead is only a convenience now; keeping it does no harm.
        if let Err(error) = self.file.truncate(self.end) {
            tracing::warn!(path = %self.path.display(), %error, "a sealed file keeps spare space");
        }
        let active =
            Active { path: path.clone(), header, end: FRAMES_BEGIN, index: Index::default() };
        let sealed_path = mem::replace(&mut self.path, path);
        let mut files = shared.files.lock();
        let sealed_index = mem::replace(&mut files.active, active).index;
        files.sealed.push_back(Arc::new(Sealed {
            path: sealed_path.clone(),
            extent,
            previous: self.header.previous,
        }));
        drop(files);
        let written =
            sealed_index.write(&*shared.disk, &recover::index_path(&sealed_path), &extent);
        if let Err(error) = written {
            tracing::warn!(path = %sealed_path.display(), %error, "no index beside a sealed file");
        }
        self.file = file;
        self.header = header;
        self.end = FRAMES_BEGIN;
        self.allocated = FRAMES_BEGIN;
        self.initialised = FRAMES_BEGIN;
        // What came before is safe in a finished file, and there is nothing here to mark.
        self.unmarked = false;
        Ok(())
    }

    /// Lets readers see the group.
    fn publish(&self, group: &[Queued], places: &[Place]) {
        let mut files = self.shared.files.lock();
        files.active.end = self.end;
        for (queued, place) in group.iter().zip(places) {
            files.active.index.add(queued.stream, *place);
        }
        // Under the lock, so that a reader's list of files and the number agree.
        self.shared.durable.store(self.last, Ordering::Release);
    }

    /// Ends an orderly closed log, so that damage to its last group cannot pass for a torn tail.
    fn write_mark(&mut self) -> Result<(), LogError> {
        if !self.unmarked {
            return Ok(());
        }
        let active = ActiveFile {
            file: Arc::clone(&self.file),
            path: self.path.clone(),
            header: self.header,
            end: self.end,
            allocated: self.allocated,
            last: self.last,
        };
        self.end = recover::write_mark(&active)?.unwrap_or(self.end);
        self.shared.files.lock().active.end = self.end;
        Ok(())
    }
}
