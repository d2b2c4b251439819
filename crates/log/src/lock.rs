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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::process::{Command, Stdio};

    use super::*;
    use crate::disk::OsDisk;
    use crate::memory::MemoryDisk;

    /// Tells the test, run again as another process, which file to hold.
    const HOLD: &str = "ARRWDB_LOG_TEST_HOLD";

    #[test]
    fn a_held_lock_refuses_and_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        for (disk, path) in [
            (&OsDisk as &dyn Disk, dir.path().join("LOCK")),
            (&MemoryDisk::new(), Path::new("LOCK").to_owned()),
        ] {
            let held = lock(disk, &path).unwrap();
            let Err(LogError::Locked { pid, .. }) = lock(disk, &path) else {
                panic!("locked twice")
            };
            assert_eq!(pid, Some(std::process::id()));
            drop(held);
            lock(disk, &path).unwrap();
        }
    }

    /// Not a test by itself: the process that `a_second_process_is_refused` starts.
    #[test]
    fn hold_for_another_process() {
        let Some(path) = std::env::var_os(HOLD) else { return };
        let _held = lock(&OsDisk, Path::new(&path)).unwrap();
        std::io::stdout().write_all(b"\nholding\n").unwrap();
        std::io::stdout().flush().unwrap();
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    }

    #[test]
    fn a_second_process_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let mut other = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "lock::tests::hold_for_another_process", "--nocapture"])
            .env(HOLD, &path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = Vec::new();
        let mut stdout = other.stdout.take().unwrap();
        let mut byte = [0];
        while !said.ends_with(b"\nholding\n") {
            stdout.read_exact(&mut byte).unwrap();
            said.push(byte[0]);
        }
        let Err(error) = lock(&OsDisk, &path) else { panic!("locked by two processes") };
        assert!(matches!(error, LogError::Locked { pid: Some(pid), .. } if pid == other.id()));
        assert!(error.to_string().contains(&format!("process {}", other.id())));
        // It dies without releasing anything.
        other.kill().unwrap();
        other.wait().unwrap();
        lock(&OsDisk, &path).unwrap();
    }
}
