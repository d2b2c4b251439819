//! A data directory read from outside, while its server writes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrwdb_log::disk::{Access, Disk, File, OsDisk, read_exact_at};
use arrwdb_state::{DecodeError, LibraryId, Snapshot};

use super::error::BackupError;
use crate::config::{Clock, Random};
use crate::open::FORMAT;
use crate::system::{OsRandom, SystemClock};

/// Snapshots and manifests are small; a larger one is not ours.
const SMALL_BYTES_MAX: u64 = 4 << 30;
/// How often a file is looked for that is replaced while it is being opened.
pub(super) const LOOKS_MAX: u32 = 16;

/// A data directory, with what else a backup or a restore needs from its machine.
#[derive(Debug, Clone)]
pub struct Site {
    /// The disk that it is on.
    pub disk: Arc<dyn Disk>,
    /// The data directory.
    pub dir: PathBuf,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
}

/// The catalog's snapshot as it lies on the disk.
#[derive(Debug, Clone, Default)]
pub(super) struct CatalogFile {
    /// `None` before the first one is written.
    pub(super) bytes: Option<Vec<u8>>,
    pub(super) covered: u64,
    pub(super) snapshot: Snapshot,
}

impl Site {
    /// A directory on this machine.
    pub fn system(dir: PathBuf) -> Self {
        Self {
            disk: Arc::new(OsDisk),
            dir,
            clock: Arc::new(SystemClock),
            random: Arc::new(OsRandom),
        }
    }

    /// Keeps a second backup of the same directory away. The server has a lock of its own, which
    /// is left alone; where nothing can be locked (a snapshot that is mounted read-only), nothing
    /// runs twice by accident either.
    pub(super) fn lock(&self) -> Result<Option<Arc<dyn File>>, BackupError> {
        match self.disk.lock(&self.dir.join("VERSION")) {
            Ok(Some(held)) => Ok(Some(held)),
            Ok(None) => Err(BackupError::Running { dir: self.dir.clone() }),
            Err(_cannot_lock) => Ok(None),
        }
    }

    /// What `VERSION` says, if this build knows it.
    pub(super) fn version(&self) -> Result<String, BackupError> {
        let path = self.dir.join("VERSION");
        match self.read(&path) {
            Ok(bytes) if bytes == FORMAT.as_bytes() => Ok(FORMAT.to_owned()),
            Ok(_) => Err(BackupError::Newer { what: path.display().to_string() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(BackupError::NoData { dir: self.dir.clone() })
            }
            Err(error) => Err(BackupError::disk("read", &path)(error)),
        }
    }

    pub(super) fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn library_dir(&self, id: LibraryId) -> PathBuf {
        self.dir.join("libraries").join(id.to_string())
    }

    /// The newest snapshot of the catalog.
    pub(super) fn catalog(&self) -> Result<CatalogFile, BackupError> {
        let dir = self.dir.join("catalog");
        let Some((covered, path, bytes)) = self.newest(&dir, "catalog-")? else {
            return Ok(CatalogFile::default());
        };
        let snapshot = Snapshot::read(&bytes).map_err(|error| damaged(&path, &error))?;
        Ok(CatalogFile { bytes: Some(bytes), covered, snapshot })
    }

    /// A library's newest manifest: path and bytes.
    pub(super) fn manifest(
        &self,
        id: LibraryId,
    ) -> Result<Option<(PathBuf, Vec<u8>)>, BackupError> {
        let found = self.newest(&self.library_dir(id), "manifest-")?;
        Ok(found.map(|(_, path, bytes)| (path, bytes)))
    }

    pub(super) fn segment_path(&self, id: LibraryId, number: u64) -> PathBuf {
        self.library_dir(id).join("segments").join(format!("{number:010}.seg"))
    }

    /// The file with this prefix and the greatest number: number, path, bytes. Older ones are
    /// removed when a newer one is there, so one that is gone has a newer one.
    fn newest(
        &self,
        dir: &Path,
        prefix: &str,
    ) -> Result<Option<(u64, PathBuf, Vec<u8>)>, BackupError> {
        for _look in 0..LOOKS_MAX {
            let names = match self.disk.list(dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                other => other.map_err(BackupError::disk("list", dir))?,
            };
            let number = |name: &String| name.strip_prefix(prefix)?.parse::<u64>().ok();
            let Some((number, name)) =
                names.iter().filter_map(|name| Some((number(name)?, name))).max()
            else {
                return Ok(None);
            };
            let path = dir.join(name);
            match self.read(&path) {
                Ok(bytes) => return Ok(Some((number, path, bytes))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(BackupError::disk("read", &path)(error)),
            }
        }
        Err(BackupError::Moving { what: dir.display().to_string() })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.disk.open(path, Access::Read)?;
        let length = file.length()?;
        if length > SMALL_BYTES_MAX {
            return Err(io::Error::other(format!("it has {length} bytes")));
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        read_exact_at(&*file, &mut bytes, 0)?;
        Ok(bytes)
    }
}

/// The error of a file whose bytes do not decode.
pub(super) fn damaged(path: &Path, error: &DecodeError) -> BackupError {
    let detail = format!(
        "{} is damaged: {error}; nothing was backed up, restore the file or an earlier backup",
        path.display()
    );
    BackupError::Damaged { detail }
}
