//! A disk in memory that fails as told.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::disk::{Access, Disk, File};

/// What a disk writes as one.
const SECTOR_BYTES: usize = 512;

/// A disk in memory. Clones are the same disk.
///
/// The fault model:
/// - **Crash** ([`MemoryDisk::crash`]): of what no sync had covered, each 512-byte sector, each
///   change of a file's length and each directory's suffix of name changes reaches the disk or
///   not, as the caller's chooser says. Bytes of a lengthened file that did not reach it are zero.
///   Directories themselves are durable at once.
/// - **Failed sync**: reports an error and drops the unsynced sectors from the disk for good, while
///   reads go on showing them, as Linux does: a later sync that succeeds does not bring them back.
/// - **Failed write**: reports an error, nothing is written.
/// - **Full disk** ([`MemoryDisk::set_capacity`]): what would lengthen the files together beyond it
///   fails with `StorageFull`.
/// - **Slow disk** ([`MemoryDisk::hold_syncs`]): syncs wait until released.
/// - **Rot** ([`MemoryDisk::alter`]): durable bytes change.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    shared: Arc<SharedDisk>,
}

#[derive(Debug, Default)]
struct SharedDisk {
    state: Mutex<State>,
    /// Syncs may go on.
    released: Condvar,
    /// A sync waits.
    held: Condvar,
}

#[derive(Debug, Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    inode_last: u64,
    names: BTreeMap<PathBuf, u64>,
    names_durable: BTreeMap<PathBuf, u64>,
    /// Name changes that no directory sync covered, in order.
    changes: Vec<Change>,
    dirs: BTreeSet<PathBuf>,
    locked: BTreeSet<PathBuf>,
    capacity: Option<u64>,
    /// How many syncs may still pass; `None`: any number.
    syncs_let_through: Option<u64>,
    syncs_held: u64,
    syncs: u64,
    sync_to_fail: Option<u64>,
    writes: u64,
    write_to_fail: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    cached: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors of `cached` that `durable` may lack.
    unsynced: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
enum Change {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl Change {
    fn dir(&self) -> Option<&Path> {
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::Rename(_, path) => path.parent(),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Link(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            Self::Unlink(path) => {
                names.remove(path);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

impl Inode {
    fn mark(&mut self, begin: usize, end: usize) {
        if begin < end {
            self.unsynced.extend(begin / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES));
        }
    }

    fn resize(&mut self, length: usize) {
        let (low, high) = (length.min(self.cached.len()), length.max(self.cached.len()));
        self.mark(low, high);
        self.cached.resize(length, 0);
    }

    /// Brings the length, if chosen, and of the unsynced sectors those chosen to the disk.
    fn persist(&mut self, mut choose: impl FnMut() -> bool) {
        if self.durable.len() != self.cached.len() && choose() {
            self.durable.resize(self.cached.len(), 0);
        }
        for sector in std::mem::take(&mut self.unsynced) {
            let begin = sector * SECTOR_BYTES;
            let end = (begin + SECTOR_BYTES).min(self.durable.len()).min(self.cached.len());
            if begin < end && choose() {
                self.durable[begin..end].copy_from_slice(&self.cached[begin..end]);
            }
        }
    }
}

impl State {
    fn inode(&mut self, id: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    /// Fails if a file of `from` bytes cannot have `to`.
    fn grow(&self, from: usize, to: usize) -> io::Result<()> {
        let used: u64 = self.inodes.values().map(|inode| inode.cached.len() as u64).sum();
        let wanted = used + to.saturating_sub(from) as u64;
        match self.capacity {
            Some(capacity) if to > from && wanted > capacity => {
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn injected(what: &str) -> io::Error {
    io::Error::other(format!("injected: the {what} failed"))
}

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

impl MemoryDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock()
    }

    /// What a power loss leaves: another disk, with everything synced and, of the rest, what
    /// `choose` says (asked once per sector, length and name change). The old one goes on,
    /// unaware. Locks are gone, faults are not carried over.
    #[must_use]
    pub fn crash(&self, mut choose: impl FnMut() -> bool) -> Self {
        let state = self.state();
        let mut names = state.names_durable.clone();
        let mut stopped = BTreeSet::new();
        for change in &state.changes {
            let dir = change.dir().map(Path::to_owned);
            if stopped.contains(&dir) {
                continue;
            }
            if choose() {
                change.apply(&mut names);
            } else {
                stopped.insert(dir);
            }
        }
        let mut inodes = BTreeMap::new();
        for &id in names.values() {
            let mut inode = state.inodes.get(&id).cloned().unwrap_or_default();
            inode.persist(&mut choose);
            inode.cached.clone_from(&inode.durable);
            inodes.insert(id, inode);
        }
        let after = State {
            inodes,
            inode_last: state.inode_last,
            names: names.clone(),
            names_durable: names,
            dirs: state.dirs.clone(),
            ..State::default()
        };
        let shared = SharedDisk { state: Mutex::new(after), ..SharedDisk::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Syncs of file data wait from now on.
    pub fn hold_syncs(&self) {
        self.state().syncs_let_through.get_or_insert(0);
    }

    /// Of the syncs that wait or come, so many more go on.
    pub fn let_syncs_through(&self, count: u64) {
        if let Some(left) = &mut self.state().syncs_let_through {
            *left += count;
        }
        self.shared.released.notify_all();
    }

    /// Syncs go on.
    pub fn release_syncs(&self) {
        self.state().syncs_let_through = None;
        self.shared.released.notify_all();
    }

    /// Blocks until a sync waits with none let through: what it would make durable is written, and
    /// is not durable. Returns whether one does, when the time is over.
    pub fn wait_for_held_sync(&self, timeout: Duration) -> bool {
        let mut state = self.state();
        let none = |state: &mut State| state.syncs_held == 0 || state.syncs_let_through != Some(0);
        !self.shared.held.wait_while_for(&mut state, none, timeout).timed_out()
    }

    /// Lets the sync of file data fail that comes after `skip` others.
    pub fn fail_sync_after(&self, skip: u64) {
        let mut state = self.state();
        state.sync_to_fail = Some(state.syncs + skip);
    }

    /// Lets the write fail that comes after `skip` others.
    pub fn fail_write_after(&self, skip: u64) {
        let mut state = self.state();
        state.write_to_fail = Some(state.writes + skip);
    }

    /// Bytes that all files together may have; `None`: any.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Bytes of all files together.
    pub fn used_bytes(&self) -> u64 {
        self.state().inodes.values().map(|inode| inode.cached.len() as u64).sum()
    }

    /// Syncs of file data so far, failed ones included.
    pub fn sync_count(&self) -> u64 {
        self.state().syncs
    }

    /// Changes a file's bytes on the disk and in its cache; `NotFound` if there is none.
    pub fn alter(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut state = self.state();
        let id = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        let inode = state.inode(id)?;
        change(&mut inode.cached);
        inode.durable.clone_from(&inode.cached);
        inode.unsynced.clear();
        Ok(())
    }

    fn file(&self, inode: u64) -> Arc<dyn File> {
        Arc::new(MemoryFile { disk: self.clone(), inode, locked: None })
    }
}

impl Disk for MemoryDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut state = self.state();
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if path.parent().is_some_and(|dir| !dir.as_os_str().is_empty() && !state.dirs.contains(dir))
        {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.inode_last += 1;
        let id = state.inode_last;
        state.inodes.insert(id, Inode::default());
        state.change(Change::Link(path.to_owned(), id));
        drop(state);
        Ok(self.file(id))
    }

    fn open(&self, path: &Path, _access: Access) -> io::Result<Arc<dyn File>> {
        let id = *self.state().names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(id))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(Change::Unlink(path.to_owned()));
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.names.keys().any(|path| path.starts_with(dir)) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        if state.dirs.remove(dir) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        if !state.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let paths = state.names.keys().chain(state.dirs.iter());
        let within = paths.filter(|path| path.parent() == Some(dir));
        let names = within.filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        let names: BTreeSet<String> = names.collect();
        Ok(names.into_iter().collect())
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.state().dirs.extend(dir.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let changes = std::mem::take(&mut state.changes);
        for change in changes {
            if change.dir() == Some(dir) {
                change.apply(&mut state.names_durable);
            } else {
                state.changes.push(change);
            }
        }
        // Files without a name anywhere give their space back.
        let State { inodes, names, names_durable, .. } = &mut *state;
        let named: BTreeSet<u64> = names.values().chain(names_durable.values()).copied().collect();
        inodes.retain(|id, _| named.contains(id));
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let used = self.used_bytes();
        Ok(self.state().capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(used)))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Arc<dyn File>>> {
        if self.state().locked.contains(path) {
            return Ok(None);
        }
        let known = self.state().names.get(path).copied();
        if known.is_none() {
            self.create(path)?;
        }
        let mut state = self.state();
        let inode = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        if !state.locked.insert(path.to_owned()) {
            return Ok(None);
        }
        drop(state);
        let locked = Some(path.to_owned());
        Ok(Some(Arc::new(MemoryFile { disk: self.clone(), inode, locked })))
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    inode: u64,
    locked: Option<PathBuf>,
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        if let Some(path) = &self.locked {
            self.disk.state().locked.remove(path);
        }
    }
}

impl File for MemoryFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        let cached = &state.inode(self.inode)?.cached;
        let from = index(offset)?.min(cached.len());
        let count = bytes.len().min(cached.len() - from);
        bytes[..count].copy_from_slice(&cached[from..from + count]);
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.writes += 1;
        if state.write_to_fail.is_some_and(|number| state.writes > number) {
            state.write_to_fail = None;
            return Err(injected("write"));
        }
        let begin = index(offset)?;
        let end = begin.checked_add(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        let length = state.inode(self.inode)?.cached.len();
        state.grow(length, end)?;
        let inode = state.inode(self.inode)?;
        if end > length {
            inode.resize(end);
        }
        inode.cached[begin..end].copy_from_slice(bytes);
        inode.mark(begin, end);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.syncs_held += 1;
        self.disk.shared.held.notify_all();
        while state.syncs_let_through == Some(0) {
            self.disk.shared.released.wait(&mut state);
        }
        state.syncs_held -= 1;
        if let Some(left) = &mut state.syncs_let_through {
            *left -= 1;
        }
        state.syncs += 1;
        if state.sync_to_fail.is_some_and(|number| state.syncs > number) {
            state.sync_to_fail = None;
            state.inode(self.inode)?.unsynced.clear();
            return Err(injected("sync"));
        }
        state.inode(self.inode)?.persist(|| true);
        Ok(())
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let end = index(offset.checked_add(bytes).ok_or(io::ErrorKind::FileTooLarge)?)?;
        let mut state = self.disk.state();
        let length = state.inode(self.inode)?.cached.len();
        if end > length {
            state.grow(length, end)?;
            state.inode(self.inode)?.resize(end);
        }
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let length = index(length)?;
        let mut state = self.disk.state();
        let present = state.inode(self.inode)?.cached.len();
        state.grow(present, length)?;
        state.inode(self.inode)?.resize(length);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().inode(self.inode)?.cached.len() as u64)
    }
}
