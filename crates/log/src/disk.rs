//! The seam through which all file I/O of the product goes.
//!
//! [`OsDisk`] is the operating system; [`crate::memory::MemoryDisk`] keeps files in memory and
//! fails as told. Nothing is durable until [`File::sync_data`] (bytes and length) or
//! [`Disk::sync_dir`] (names) has returned; a path is absolute or relative to the process.

use std::fmt::Debug;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation};

/// What a file is opened for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Access {
    /// Positioned reads only.
    Read,
    /// Reads and writes of an existing file.
    Write,
}

/// A directory tree of files.
pub trait Disk: Send + Sync + Debug {
    /// A new, empty file for reading and writing; `AlreadyExists` if the name is taken.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// An existing file; `NotFound` otherwise.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>>;
    /// Gives a file (or directory) another name, replacing a file that has it. Atomic.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file's name.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
    /// Names in a directory, files and directories, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes a directory and those above it.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes an unprivileged process can still write below this directory.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// Opens or makes a file and locks it against every other holder, in this process or another;
    /// `None` when it is held. The lock ends when the file is dropped or the process dies.
    fn lock(&self, path: &Path) -> io::Result<Option<Arc<dyn File>>>;
}

/// An open file. All methods take positions, so it can be shared.
pub trait File: Send + Sync + Debug {
    /// Reads into `bytes` from `offset`; returns how many were read, 0 only at the end of the file.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`, extending the file if need be.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the bytes and the length durable. After an error the file's unsynced bytes are
    /// undefined: never call it again.
    fn sync_data(&self) -> io::Result<()>;
    /// Reserves space for `offset..offset + bytes`, so that writing there cannot meet a full disk;
    /// what is beyond the end reads as zero, and the file is at least that long.
    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()>;
    /// Cuts or extends (with zeros) to this length.
    fn truncate(&self, length: u64) -> io::Result<()>;
    /// Length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// The operating system's file, for mapping; `None` on a disk that has none.
    fn os_file(&self) -> Option<&fs::File> {
        None
    }
}

/// Reads all of `bytes` from `offset`; `UnexpectedEof` if the file is shorter.
pub fn read_exact_at(file: &dyn File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let read = file.read_at(bytes, offset)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes = &mut bytes[read..];
        offset += read as u64;
    }
    Ok(())
}

/// The operating system's disk (Linux).
#[derive(Copy, Clone, Debug, Default)]
pub struct OsDisk;

#[derive(Debug)]
struct OsFile(fs::File);

impl Disk for OsDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(OsFile(file)))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let write = access == Access::Write;
        Ok(Arc::new(OsFile(OpenOptions::new().read(true).write(write).open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // The parent of a bare relative name is "", which cannot be opened.
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        fs::File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(dir)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Arc<dyn File>>> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Arc::new(OsFile(file)))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl File for OsFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.0.read_at(bytes, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.0)?)
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        loop {
            match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), offset, bytes) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                // Some file systems cannot reserve space: writing zeros is the next best.
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                    return self.fill_with_zeros(offset, bytes);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn os_file(&self) -> Option<&fs::File> {
        Some(&self.0)
    }
}

impl OsFile {
    /// Zeros from the present end of the file to `offset + bytes`; written bytes stay.
    fn fill_with_zeros(&self, offset: u64, bytes: u64) -> io::Result<()> {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        let end = offset.saturating_add(bytes);
        let mut at = self.length()?;
        while at < end {
            let step = usize::try_from(end - at).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
            self.0.write_all_at(&ZEROS[..step], at)?;
            at += step as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryDisk;

    /// What every disk promises; the one in memory must not differ from the real one.
    fn check(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        let dir = dir.join("a/b");
        disk.create_dir_all(&dir)?;
        let path = dir.join("one");
        let missing = disk.open(&path, Access::Read).map(drop).map_err(|error| error.kind());
        assert_eq!(missing, Err(io::ErrorKind::NotFound));
        let file = disk.create(&path)?;
        let again = disk.create(&path).map(drop).map_err(|error| error.kind());
        assert_eq!(again, Err(io::ErrorKind::AlreadyExists));
        file.write_all_at(b"word", 3)?;
        file.allocate(0, 5)?;
        assert_eq!(file.length()?, 7);
        file.allocate(7, 93)?;
        file.sync_data()?;
        let mut bytes = [9; 200];
        let reader = disk.open(&path, Access::Read)?;
        read_exact_at(&*reader, &mut bytes[..100], 0)?;
        assert_eq!(&bytes[..8], b"\0\0\0word\0");
        assert!(bytes[8..100].iter().all(|&byte| byte == 0));
        assert_eq!(reader.read_at(&mut bytes, 100)?, 0);
        let short = read_exact_at(&*reader, &mut bytes, 50).map_err(|error| error.kind());
        assert_eq!(short, Err(io::ErrorKind::UnexpectedEof));
        file.truncate(5)?;
        assert_eq!(reader.length()?, 5);
        disk.rename(&path, &dir.join("two"))?;
        disk.create(&dir.join("one"))?;
        assert_eq!(disk.list(&dir)?, ["one", "two"]);
        disk.sync_dir(&dir)?;
        let full = disk.remove_dir(&dir).map_err(|error| error.kind());
        assert_eq!(full, Err(io::ErrorKind::DirectoryNotEmpty));
        disk.remove(&dir.join("one"))?;
        disk.remove(&dir.join("two"))?;
        disk.sync_dir(&dir)?;
        // Who has a file open reads on.
        read_exact_at(&*reader, &mut bytes[..5], 0)?;
        disk.remove_dir(&dir)?;
        assert!(disk.list(&dir).is_err());
        assert!(disk.free_bytes(Path::new("/"))? > 0);
        Ok(())
    }

    #[test]
    fn both_disks_keep_the_same_promises() {
        let dir = tempfile::tempdir().unwrap();
        check(&OsDisk, dir.path()).unwrap();
        check(&MemoryDisk::new(), Path::new("/")).unwrap();
    }

    #[test]
    fn zeros_are_written_where_space_cannot_be_reserved() {
        let dir = tempfile::tempdir().unwrap();
        let file = fs::File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(dir.path().join("x"))
            .unwrap();
        let file = OsFile(file);
        file.write_all_at(b"kept", 0).unwrap();
        file.fill_with_zeros(2, 200_000).unwrap();
        assert_eq!(file.length().unwrap(), 200_002);
        let mut bytes = [1; 8];
        read_exact_at(&file, &mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"kept\0\0\0\0");
    }
}
