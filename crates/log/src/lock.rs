//! The lock of a data directory against a second process.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::LogError;
use crate::disk::{Access, Disk, File};

/// Digits of a process id, and room to spare.
const PID_BYTES_MAX: usize = 20;

/// A held lock; released when dropped or when the process ends, however it ends.
#[derive(Debug)]
pub struct DirLock {
    _held: Arc<dyn File>,
}

/// Locks `path` (the data directory's `LOCK`), making the file if need be and writing this
/// process's id into it. [`LogError::Locked`] with the holder's id when it is held, by another
/// process or by this one.
pub fn lock(disk: &dyn Disk, path: &Path) -> Result<DirLock, LogError> {
    let Some(held) = disk.lock(path).map_err(LogError::io("lock", path))? else {
        return Err(LogError::Locked { path: path.to_owned(), pid: holder(disk, path).ok() });
    };
    // The id is only for the message of the process that comes second: no need to be durable, and
    // on a full disk the lock holds without it.
    let written = held
        .truncate(0)
        .and_then(|()| held.write_all_at(std::process::id().to_string().as_bytes(), 0));
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "the lock file does not name its holder");
    }
    Ok(DirLock { _held: held })
}

fn holder(disk: &dyn Disk, path: &Path) -> io::Result<u32> {
    let mut bytes = [0; PID_BYTES_MAX];
    let read = disk.open(path, Access::Read)?.read_at(&mut bytes, 0)?;
    let text = str::from_utf8(&bytes[..read]).map_err(io::Error::other)?;
    text.trim().parse().map_err(io::Error::other)
}
