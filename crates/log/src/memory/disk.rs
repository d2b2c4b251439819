//! A disk in memory that fails as told.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::plan::{Call, Course, Fault, FaultPlan, Strike, When, injected};
use super::volume::{NameOrder, Volume};
use crate::disk::{Access, Disk, File};

/// A disk in memory. Clones are the same disk.
///
/// It does what real disks do wrong, in three ways: what is asked for by a [`FaultPlan`] (the table
/// in the [`plan`](super::plan)'s documentation is the fault model), what a test does to it from
/// outside ([`MemoryDisk::crash`], [`MemoryDisk::kill`], [`MemoryDisk::alter`],
/// [`MemoryDisk::set_capacity`]), and waiting ([`MemoryDisk::hold_syncs`]).
///
/// Nothing is durable before its sync, the names of directories included.
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
    before_sync: Mutex<Option<Hook>>,
}

/// Runs before each sync.
#[derive(Clone)]
struct Hook(Arc<dyn Fn() + Send + Sync>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

#[derive(Debug, Default)]
struct State {
    volume: Volume,
    locked: BTreeSet<PathBuf>,
    /// How often each inode is open.
    opened: BTreeMap<u64, u64>,
    capacity: Option<u64>,
    /// How many syncs may still pass; `None`: any number.
    syncs_let_through: Option<u64>,
    syncs_held: u64,
    syncs: u64,
    course: Option<Course>,
    /// What a power loss or the end of the process left; this disk is off since.
    left: Option<Volume>,
}

impl State {
    /// The fault that a call meets; an error if the disk is off.
    fn meet(&mut self, call: Call, path: &Path) -> io::Result<Option<Fault>> {
        if self.left.is_some() {
            return Err(injected("power"));
        }
        Ok(self.course.as_mut().and_then(|course| course.strike(call, path)))
    }

    /// Meets a call that changes or asks for names.
    fn meet_name(&mut self, path: &Path) -> io::Result<()> {
        match self.meet(Call::Name, path)? {
            Some(_) => Err(injected("look-up of the name")),
            None => Ok(()),
        }
    }

    /// Meets a sync.
    fn meet_sync(&mut self, call: Call, path: &Path) -> io::Result<Option<Fault>> {
        let fault = self.meet(call, path)?;
        let left = match (fault, &mut self.course) {
            (Some(Fault::Killed), _) => self.volume.clone(),
            (Some(Fault::PowerLoss), Some(course)) => {
                let order = match course.chance.next() % 2 {
                    0 => NameOrder::Journaled,
                    _ => NameOrder::Any,
                };
                let kept_of_8 =
                    [0, 1, 4, 7, 8][usize::try_from(course.chance.next() % 5).unwrap_or(0)];
                let mut choose = || course.chance.next() % 8 < kept_of_8;
                self.volume.after_power_loss(order, &mut choose)
            }
            (fault, _) => return Ok(fault),
        };
        self.left = Some(left);
        Err(injected("power"))
    }

    /// Fails if a file of `from` bytes cannot have `to`.
    fn grow(&self, from: usize, to: usize) -> io::Result<()> {
        let Some(capacity) = self.capacity.filter(|_| to > from) else { return Ok(()) };
        let wanted = self.volume.used_bytes() + (to - from) as u64;
        if wanted > capacity { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

impl MemoryDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    fn of(volume: Volume) -> Self {
        let state = State { volume, ..State::default() };
        let shared = SharedDisk { state: Mutex::new(state), ..SharedDisk::default() };
        Self { shared: Arc::new(shared) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock()
    }

    /// What a power loss leaves: another disk, with everything synced and, of the rest, what
    /// `choose` says (asked once per sector, length and name change). The old one goes on,
    /// unaware. Locks are gone, faults are not carried over.
    #[must_use]
    pub fn crash(&self, choose: impl FnMut() -> bool) -> Self {
        self.crash_with(NameOrder::Journaled, choose)
    }

    /// Like [`MemoryDisk::crash`], with a word on which name changes can be lost without others.
    #[must_use]
    pub fn crash_with(&self, order: NameOrder, mut choose: impl FnMut() -> bool) -> Self {
        Self::of(self.state().volume.after_power_loss(order, &mut choose))
    }

    /// What the death of the process leaves: another disk, where everything written can be read
    /// and is as durable as it was. The old one goes on, unaware. Locks are gone, faults are not
    /// carried over.
    #[must_use]
    pub fn kill(&self) -> Self {
        Self::of(self.state().volume.clone())
    }

    /// Faults to come, in the place of those of an earlier plan; calls are counted anew.
    pub fn set_plan(&self, plan: FaultPlan) {
        self.state().course = Some(Course::new(plan));
    }

    /// The faults of the plan that happened so far.
    pub fn strikes(&self) -> Vec<Strike> {
        self.state().course.as_ref().map_or_else(Vec::new, |course| course.strikes.clone())
    }

    /// After [`Fault::PowerLoss`] or [`Fault::Killed`]: the disk as the next start finds it.
    /// Everything fails on this one since.
    pub fn after_the_end(&self) -> Option<Self> {
        self.state().left.clone().map(Self::of)
    }

    /// Calls `hook` before each sync of a file or directory, on the thread that syncs.
    pub fn before_sync(&self, hook: impl Fn() + Send + Sync + 'static) {
        *self.shared.before_sync.lock() = Some(Hook(Arc::new(hook)));
    }

    fn call_hook(&self) {
        let hook = self.shared.before_sync.lock().clone();
        if let Some(Hook(hook)) = hook {
            hook();
        }
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
        self.set_plan(FaultPlan::one(0, Fault::SyncError, "", When::Nth(skip)));
    }

    /// Lets the write fail that comes after `skip` others.
    pub fn fail_write_after(&self, skip: u64) {
        self.set_plan(FaultPlan::one(0, Fault::WriteError, "", When::Nth(skip)));
    }

    /// Bytes that all files together may have; `None`: any.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Bytes of all files together.
    pub fn used_bytes(&self) -> u64 {
        self.state().volume.used_bytes()
    }

    /// Syncs of file data so far, failed ones included.
    pub fn sync_count(&self) -> u64 {
        self.state().syncs
    }

    /// Changes a file's bytes on the disk and in its cache; `NotFound` if there is none.
    pub fn alter(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut state = self.state();
        let id = state.volume.find(path)?;
        state.volume.inode(id)?.alter(change);
        Ok(())
    }

    fn file(&self, state: &mut State, path: &Path, inode: u64) -> Arc<MemoryFile> {
        *state.opened.entry(inode).or_default() += 1;
        let (disk, path) = (self.clone(), path.to_owned());
        Arc::new(MemoryFile { disk, inode, path, locked: false })
    }
}

impl Disk for MemoryDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut state = self.state();
        state.meet_name(path)?;
        let id = state.volume.create(path)?;
        Ok(self.file(&mut state, path, id))
    }

    fn open(&self, path: &Path, _access: Access) -> io::Result<Arc<dyn File>> {
        let mut state = self.state();
        state.meet_name(path)?;
        let id = state.volume.find(path)?;
        Ok(self.file(&mut state, path, id))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.meet_name(to)?;
        state.volume.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.meet_name(path)?;
        state.volume.remove(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.meet_name(dir)?;
        state.volume.remove_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.meet_name(dir)?;
        state.volume.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.meet_name(dir)?;
        state.volume.create_dir_all(dir);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.call_hook();
        let mut state = self.state();
        if state.meet_sync(Call::SyncDir, dir)?.is_some() {
            return Err(injected("sync of the directory"));
        }
        let State { volume, opened, .. } = &mut *state;
        volume.sync_dir(dir, opened)
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let state = self.state();
        let capacity = state.capacity.unwrap_or(u64::MAX);
        Ok(capacity.saturating_sub(state.volume.used_bytes()))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Arc<dyn File>>> {
        let mut state = self.state();
        if state.locked.contains(path) {
            return Ok(None);
        }
        state.meet_name(path)?;
        let inode = match state.volume.find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => state.volume.create(path)?,
            found => found?,
        };
        state.locked.insert(path.to_owned());
        *state.opened.entry(inode).or_default() += 1;
        let (disk, path) = (self.clone(), path.to_owned());
        Ok(Some(Arc::new(MemoryFile { disk, inode, path, locked: true })))
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    inode: u64,
    /// As it was opened; renaming leaves it.
    path: PathBuf,
    locked: bool,
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if self.locked {
            state.locked.remove(&self.path);
        }
        if let Some(count) = state.opened.get_mut(&self.inode) {
            *count -= 1;
            if *count == 0 {
                state.opened.remove(&self.inode);
            }
        }
    }
}

impl File for MemoryFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        let fault = state.meet(Call::Read, &self.path)?;
        if fault == Some(Fault::ReadError) {
            return Err(injected("read"));
        }
        let cached = &state.volume.inode(self.inode)?.cached;
        let from = index(offset)?.min(cached.len());
        let mut count = bytes.len().min(cached.len() - from);
        if fault == Some(Fault::ShortRead) {
            count = count.div_ceil(2);
        }
        bytes[..count].copy_from_slice(&cached[from..from + count]);
        if let (Some(Fault::FlippedRead), Some(course)) = (fault, &mut state.course) {
            course.chance.flip(&mut bytes[..count]);
        }
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let fault = state.meet(Call::Write, &self.path)?;
        let half = bytes.len() / 2;
        let mut bytes = Cow::Borrowed(bytes);
        match (fault, &mut state.course) {
            (Some(Fault::WriteError), _) => return Err(injected("write")),
            (Some(Fault::FullAtWrite), _) => return Err(io::ErrorKind::StorageFull.into()),
            (Some(Fault::FlippedWrite), Some(course)) => course.chance.flip(bytes.to_mut()),
            (Some(Fault::HalfWrite), _) => bytes.to_mut().truncate(half),
            _ => {}
        }
        let begin = index(offset)?;
        let end = begin.checked_add(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        let length = state.volume.inode(self.inode)?.cached.len();
        state.grow(length, end)?;
        let inode = state.volume.inode(self.inode)?;
        if end > length {
            inode.resize(end);
        }
        inode.write(begin, &bytes);
        if fault == Some(Fault::HalfWrite) { Err(injected("write")) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.call_hook();
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
        let fault = state.meet_sync(Call::Sync, &self.path)?;
        let inode = state.volume.inode(self.inode)?;
        if fault.is_some() {
            inode.forget_unsynced();
            return Err(injected("sync"));
        }
        inode.persist(|| true);
        Ok(())
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let end = index(offset.checked_add(bytes).ok_or(io::ErrorKind::FileTooLarge)?)?;
        let mut state = self.disk.state();
        if state.meet(Call::Allocate, &self.path)?.is_some() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let length = state.volume.inode(self.inode)?.cached.len();
        if end > length {
            state.grow(length, end)?;
            state.volume.inode(self.inode)?.resize(end);
        }
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let length = index(length)?;
        let mut state = self.disk.state();
        if state.meet(Call::Truncate, &self.path)?.is_some() {
            return Err(injected("truncation"));
        }
        let present = state.volume.inode(self.inode)?.cached.len();
        state.grow(present, length)?;
        state.volume.inode(self.inode)?.resize(length);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().volume.inode(self.inode)?.cached.len() as u64)
    }
}
