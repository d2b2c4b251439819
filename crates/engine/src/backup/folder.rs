//! A backup in a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrwdb_log::disk::{Access, Disk, read_exact_at};

use super::target::{Target, TargetError, is_key};

/// What a file is called until it is whole.
pub(super) const UNFINISHED: &str = ".tmp";
/// Bytes written at a time.
const WRITE_BYTES: usize = 1 << 20;
/// Folders within folders that are listed.
const DEPTH_MAX: usize = 4;

/// A folder on a disk. An object is a file, written under another name, synced and renamed.
#[derive(Debug)]
pub struct FolderTarget {
    disk: Arc<dyn Disk>,
    root: PathBuf,
}

impl FolderTarget {
    /// The folder need not exist: it is made by the first object.
    pub fn new(disk: Arc<dyn Disk>, root: PathBuf) -> Self {
        Self { disk, root }
    }

    fn path(&self, key: &str) -> io::Result<PathBuf> {
        if is_key(key) { Ok(self.root.join(key)) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    /// Files of a folder and those below it, with their sizes.
    fn walk(
        &self,
        dir: &Path,
        key: &str,
        depth: usize,
        found: &mut BTreeMap<String, u64>,
    ) -> io::Result<()> {
        for name in self.disk.list(dir)? {
            let (path, key) = (dir.join(&name), format!("{key}{name}"));
            // A folder can be listed; a file cannot.
            if depth < DEPTH_MAX && self.disk.list(&path).is_ok() {
                self.walk(&path, &format!("{key}/"), depth + 1, found)?;
                continue;
            }
            match self.disk.open(&path, Access::Read).and_then(|file| file.length()) {
                Ok(bytes) => {
                    found.insert(key, bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write(&self, key: &str, bytes: u64, source: &mut dyn Read) -> io::Result<()> {
        let path = self.path(key)?;
        let dir = path.parent().unwrap_or(&self.root);
        self.make_dir(dir)?;
        let mut name = path.clone().into_os_string();
        name.push(UNFINISHED);
        let unfinished = PathBuf::from(name);
        ignore_missing(self.disk.remove(&unfinished))?;
        let file = self.disk.create(&unfinished)?;
        let mut buffer = vec![0; WRITE_BYTES.min(usize::try_from(bytes).unwrap_or(WRITE_BYTES))];
        let mut at = 0;
        while at < bytes {
            let left = usize::try_from(bytes - at).unwrap_or(usize::MAX);
            let part = buffer.len().min(left);
            source.read_exact(&mut buffer[..part])?;
            file.write_all_at(&buffer[..part], at)?;
            at += part as u64;
        }
        file.sync_data()?;
        self.disk.rename(&unfinished, &path)?;
        self.disk.sync_dir(dir)
    }

    /// Makes a folder and those above it durable.
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        if self.disk.list(dir).is_ok() {
            return Ok(());
        }
        self.disk.create_dir_all(dir)?;
        for made in dir.ancestors().take_while(|made| made.starts_with(&self.root)) {
            if let Some(above) = made.parent() {
                self.disk.sync_dir(above)?;
            }
        }
        Ok(())
    }
}

fn ignore_missing(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn failed(operation: &'static str, key: &str) -> impl FnOnce(io::Error) -> TargetError {
    let key = key.to_owned();
    move |error| {
        let kind = error.kind();
        if kind == io::ErrorKind::NotFound {
            TargetError::Missing { key }
        } else if matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            TargetError::Full { key }
        } else {
            TargetError::Failed { operation, key, detail: error.to_string() }
        }
    }
}

impl Target for FolderTarget {
    fn name(&self) -> String {
        self.root.display().to_string()
    }

    fn list(&self) -> Result<BTreeMap<String, u64>, TargetError> {
        let mut found = BTreeMap::new();
        match self.walk(&self.root, "", 0, &mut found) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            other => other.map(|()| found).map_err(failed("list", "the folder")),
        }
    }

    fn get(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, TargetError> {
        let read = || {
            let file = self.disk.open(&self.path(key)?, Access::Read)?;
            let bytes = range.end.saturating_sub(range.start);
            let mut found = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
            read_exact_at(&*file, &mut found, range.start)?;
            Ok(found)
        };
        read().map_err(failed("read", key))
    }

    fn put(&self, key: &str, bytes: u64, source: &mut dyn Read) -> Result<(), TargetError> {
        self.write(key, bytes, source).map_err(failed("write", key))
    }

    fn delete(&self, keys: &[String]) -> Result<(), TargetError> {
        let mut dirs = BTreeSet::new();
        for key in keys {
            let path = self.path(key).map_err(failed("delete", key))?;
            ignore_missing(self.disk.remove(&path)).map_err(failed("delete", key))?;
            dirs.extend(path.parent().map(Path::to_owned));
        }
        // What is deleted afterwards must not go first in a power failure.
        for dir in dirs {
            let synced = ignore_missing(self.disk.sync_dir(&dir));
            synced.map_err(failed("delete from", &dir.display().to_string()))?;
        }
        Ok(())
    }
}
