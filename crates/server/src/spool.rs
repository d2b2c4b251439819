//! Output that is made faster than it is read.
//!
//! A client may send a whole body before it reads the first byte of the answer. Were the answer
//! written straight to the connection, both sides would wait for each other once the buffers are
//! full. So output waits here: the first part in memory, the rest in a file without a name that
//! the system removes with the process.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::limits::{
    SPOOL_FILE_BYTES_MAX, SPOOL_FILES_BYTES_MAX, SPOOL_MEMORY_BYTES_MAX, SPOOL_READ_BYTES,
};

/// Where the files of spools are, and what they take together.
#[derive(Debug, Clone)]
pub(crate) struct SpoolDir {
    dir: PathBuf,
    bytes: Arc<AtomicU64>,
}

impl SpoolDir {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, bytes: Arc::default() }
    }
}

/// A queue of bytes between one writer and one reader.
#[derive(Debug, Clone)]
pub(crate) struct Spool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: SpoolDir,
    inner: Mutex<Inner>,
    /// The writer has news for the reader.
    written: Notify,
    /// The reader has news for the writer.
    read: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    pending: Vec<u8>,
    file: Option<Arc<File>>,
    file_start: u64,
    file_end: u64,
    spilling: bool,
    /// Bytes ever written.
    written: u64,
    finished: bool,
    abandoned: bool,
}

/// What the reader finds.
enum Found {
    Bytes(Bytes),
    InFile(Arc<File>, u64, u64),
    Nothing,
    End,
}

impl Spool {
    /// An empty spool whose file, if it needs one, is made in `dir`.
    pub(crate) fn new(dir: SpoolDir) -> Self {
        let inner = Mutex::new(Inner::default());
        let shared = Shared { dir, inner, written: Notify::new(), read: Notify::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Appends bytes. Fails with `BrokenPipe` once the reader has left.
    pub(crate) async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let spill = {
            let mut inner = self.shared.inner.lock();
            if inner.abandoned {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            inner.written += bytes.len() as u64;
            inner.pending.extend_from_slice(bytes);
            (inner.pending.len() > SPOOL_MEMORY_BYTES_MAX).then(|| {
                inner.spilling = true;
                (std::mem::take(&mut inner.pending), inner.file.clone(), inner.file_end)
            })
        };
        self.shared.written.notify_one();
        let Some((bytes, file, at)) = spill else { return Ok(()) };
        let dir = self.shared.dir.dir.clone();
        let task = tokio::task::spawn_blocking(move || {
            let file = match file {
                Some(file) => file,
                None => Arc::new(tempfile::tempfile_in(dir)?),
            };
            file.write_all_at(&bytes, at)?;
            io::Result::Ok((file, bytes.len() as u64))
        });
        let outcome = task.await.map_err(io::Error::other).flatten();
        let mut inner = self.shared.inner.lock();
        inner.spilling = false;
        let (file, length) = outcome?;
        inner.file = Some(file);
        inner.file_end += length;
        drop(inner);
        self.shared.dir.bytes.fetch_add(length, Ordering::Relaxed);
        self.shared.written.notify_one();
        Ok(())
    }

    /// Whether nothing was written yet.
    pub(crate) fn is_new(&self) -> bool {
        self.shared.inner.lock().written == 0
    }

    /// Whether as much waits as may wait.
    pub(crate) fn is_full(&self) -> bool {
        let inner = self.shared.inner.lock();
        let all = self.shared.dir.bytes.load(Ordering::Relaxed);
        let own = inner.file_end;
        own > SPOOL_FILE_BYTES_MAX || (own > 0 && all > SPOOL_FILES_BYTES_MAX)
    }

    /// Waits until there is room again, or the reader has left. (While others take all the room,
    /// the reader of this one makes some when it has read its own file.)
    pub(crate) async fn room(&self) {
        while self.is_full() && !self.shared.inner.lock().abandoned {
            self.shared.read.notified().await;
        }
    }

    /// Nothing more will be written.
    pub(crate) fn finish(&self) {
        self.shared.inner.lock().finished = true;
        self.shared.written.notify_one();
    }

    /// The reading end.
    pub(crate) fn reader(&self) -> SpoolReader {
        SpoolReader { shared: Arc::clone(&self.shared) }
    }
}

/// Reads what a [`Spool`] holds; dropping it tells the writer.
#[derive(Debug)]
pub(crate) struct SpoolReader {
    shared: Arc<Shared>,
}

impl SpoolReader {
    /// The next bytes in order; waits for the writer. `None` at the end.
    pub(crate) async fn next(&self) -> Option<io::Result<Bytes>> {
        loop {
            match self.find() {
                Found::Bytes(bytes) => return Some(Ok(bytes)),
                Found::InFile(file, at, length) => {
                    return Some(self.read_file(file, at, length).await);
                }
                Found::Nothing => self.shared.written.notified().await,
                Found::End => return None,
            }
        }
    }

    fn find(&self) -> Found {
        let mut inner = self.shared.inner.lock();
        match &inner.file {
            Some(file) if inner.file_start < inner.file_end => {
                let length = (inner.file_end - inner.file_start).min(SPOOL_READ_BYTES);
                return Found::InFile(Arc::clone(file), inner.file_start, length);
            }
            Some(_) | None => {}
        }
        if inner.spilling {
            Found::Nothing
        } else if !inner.pending.is_empty() {
            Found::Bytes(std::mem::take(&mut inner.pending).into())
        } else if inner.finished {
            Found::End
        } else {
            Found::Nothing
        }
    }

    async fn read_file(&self, file: Arc<File>, at: u64, length: u64) -> io::Result<Bytes> {
        let task = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            file.read_exact_at(&mut bytes, at)?;
            io::Result::Ok(bytes)
        });
        let bytes = task.await.map_err(io::Error::other).flatten()?;
        let mut inner = self.shared.inner.lock();
        inner.file_start += length;
        if inner.file_start == inner.file_end && !inner.spilling {
            // All of it is read: the file is written from its start again.
            self.shared.dir.bytes.fetch_sub(inner.file_end, Ordering::Relaxed);
            (inner.file_start, inner.file_end) = (0, 0);
        }
        drop(inner);
        self.shared.read.notify_one();
        Ok(bytes.into())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The file goes with the last of its ends, whatever was read of it.
        self.dir.bytes.fetch_sub(self.inner.get_mut().file_end, Ordering::Relaxed);
    }
}

impl Drop for SpoolReader {
    fn drop(&mut self) {
        self.shared.inner.lock().abandoned = true;
        self.shared.read.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_is_read_in_order_however_late() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::new(SpoolDir::new(dir.path().to_owned()));
        let reader = spool.reader();
        let mut expected = Vec::new();
        for number in 0..40_000_u32 {
            let line = format!("{number} is a line that is long enough to fill the memory\n");
            expected.extend_from_slice(line.as_bytes());
            spool.write(line.as_bytes()).await.unwrap();
        }
        spool.finish();
        let mut read = Vec::new();
        while let Some(bytes) = reader.next().await {
            read.extend_from_slice(&bytes.unwrap());
        }
        assert!(read == expected);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_reader_that_keeps_up_sees_lines_at_once() {
        let spool = Spool::new(SpoolDir::new(PathBuf::from("/nonexistent")));
        let reader = spool.reader();
        for _ in 0..3 {
            spool.write(b"x").await.unwrap();
            assert_eq!(reader.next().await.unwrap().unwrap(), "x");
        }
        spool.finish();
        assert!(reader.next().await.is_none());
    }

    #[tokio::test]
    async fn a_writer_hears_that_nobody_reads() {
        let spool = Spool::new(SpoolDir::new(PathBuf::from("/nonexistent")));
        drop(spool.reader());
        assert_eq!(spool.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
