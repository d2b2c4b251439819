//! What is on the disk in memory: what a process sees of it, and what would survive a power loss.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// What a disk writes as one.
const SECTOR_BYTES: usize = 512;

/// Which name changes that no directory sync covered can reach the disk without others.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum NameOrder {
    /// Of each directory's changes the first so many, as file systems with a journal do.
    Journaled,
    /// Any of them.
    Any,
}

/// What a name stands for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Node {
    File(u64),
    Dir,
}

/// Names changed together, all in one directory.
#[derive(Clone, Debug)]
struct Change(Vec<(PathBuf, Option<Node>)>);

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) cached: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors of `cached` that `durable` may lack.
    unsynced: BTreeSet<usize>,
}

/// Files, directories and their names.
#[derive(Clone, Debug, Default)]
pub(super) struct Volume {
    inodes: BTreeMap<u64, Inode>,
    inode_last: u64,
    names: BTreeMap<PathBuf, Node>,
    names_durable: BTreeMap<PathBuf, Node>,
    /// Name changes that no directory sync covered, in order.
    changes: Vec<Change>,
}

impl Change {
    fn dir(&self) -> Option<&Path> {
        self.0.last().and_then(|(path, _node)| path.parent())
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        for (path, node) in &self.0 {
            match node {
                Some(node) => names.insert(path.clone(), *node),
                None => names.remove(path),
            };
        }
    }
}

impl Inode {
    fn mark(&mut self, begin: usize, end: usize) {
        if begin < end {
            self.unsynced.extend(begin / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES));
        }
    }

    pub(super) fn resize(&mut self, length: usize) {
        let (low, high) = (length.min(self.cached.len()), length.max(self.cached.len()));
        self.mark(low, high);
        self.cached.resize(length, 0);
    }

    /// The file is long enough.
    pub(super) fn write(&mut self, begin: usize, bytes: &[u8]) {
        let end = begin + bytes.len();
        self.cached[begin..end].copy_from_slice(bytes);
        self.mark(begin, end);
    }

    /// Brings the length, if chosen, and of the unsynced sectors those chosen to the disk.
    pub(super) fn persist(&mut self, mut choose: impl FnMut() -> bool) {
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

    /// A failed sync: what it should have made durable counts as clean and never gets there.
    pub(super) fn forget_unsynced(&mut self) {
        self.unsynced.clear();
    }

    /// Bytes that change where they lie, in memory and on the disk.
    pub(super) fn alter(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut self.cached);
        self.durable.clone_from(&self.cached);
        self.unsynced.clear();
    }
}

fn is_root(dir: &Path) -> bool {
    dir.parent().is_none()
}

impl Volume {
    pub(super) fn inode(&mut self, id: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The file of a name.
    pub(super) fn find(&self, path: &Path) -> io::Result<u64> {
        match self.names.get(path) {
            Some(Node::File(id)) => Ok(*id),
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn is_dir(&self, dir: &Path) -> bool {
        // A bare relative name lies in "".
        is_root(dir) || self.names.get(dir) == Some(&Node::Dir)
    }

    fn change(&mut self, edits: Vec<(PathBuf, Option<Node>)>) {
        let change = Change(edits);
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<u64> {
        if self.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if path.parent().is_some_and(|dir| !self.is_dir(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.inode_last += 1;
        self.inodes.insert(self.inode_last, Inode::default());
        self.change(vec![(path.to_owned(), Some(Node::File(self.inode_last)))]);
        Ok(self.inode_last)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.find(from)?;
        self.change(vec![(from.to_owned(), None), (to.to_owned(), Some(Node::File(id)))]);
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.find(path)?;
        self.change(vec![(path.to_owned(), None)]);
        Ok(())
    }

    pub(super) fn remove_dir(&mut self, dir: &Path) -> io::Result<()> {
        if !self.is_dir(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if self.names.keys().any(|path| path != dir && path.starts_with(dir)) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.change(vec![(dir.to_owned(), None)]);
        Ok(())
    }

    pub(super) fn create_dir_all(&mut self, dir: &Path) {
        let missing: Vec<PathBuf> =
            dir.ancestors().filter(|dir| !self.is_dir(dir)).map(Path::to_owned).collect();
        for dir in missing.into_iter().rev() {
            self.change(vec![(dir, Some(Node::Dir))]);
        }
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        if !self.is_dir(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let within = self.names.keys().filter(|path| path.parent() == Some(dir));
        let names = within.filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        let names: BTreeSet<String> = names.collect();
        Ok(names.into_iter().collect())
    }

    /// Makes the name changes of a directory durable. Files without a name that somebody still has
    /// open stay.
    pub(super) fn sync_dir(&mut self, dir: &Path, opened: &BTreeMap<u64, u64>) -> io::Result<()> {
        if !self.is_dir(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        for change in std::mem::take(&mut self.changes) {
            if change.dir() == Some(dir) {
                change.apply(&mut self.names_durable);
            } else {
                self.changes.push(change);
            }
        }
        // Files that no name leads to, whatever happens, give their space back.
        let pending = self.changes.iter().flat_map(|change| &change.0).map(|(_, node)| *node);
        let named = self.names.values().chain(self.names_durable.values()).copied().map(Some);
        let kept: BTreeSet<u64> = named
            .chain(pending)
            .filter_map(|node| match node {
                Some(Node::File(id)) => Some(id),
                Some(Node::Dir) | None => None,
            })
            .collect();
        self.inodes.retain(|id, _| kept.contains(id) || opened.contains_key(id));
        Ok(())
    }

    /// Bytes of all files together.
    pub(super) fn used_bytes(&self) -> u64 {
        self.inodes.values().map(|inode| inode.cached.len() as u64).sum()
    }

    /// What a power loss leaves: everything synced and, of the rest, what `choose` says.
    pub(super) fn after_power_loss(
        &self,
        order: NameOrder,
        choose: &mut dyn FnMut() -> bool,
    ) -> Self {
        let mut names = self.names_durable.clone();
        let mut stopped = BTreeSet::new();
        for change in &self.changes {
            let dir = change.dir().map(Path::to_owned);
            if stopped.contains(&dir) {
                continue;
            }
            if choose() {
                change.apply(&mut names);
            } else if order == NameOrder::Journaled {
                stopped.insert(dir);
            }
        }
        // What lies in a directory whose own name is lost is lost with it.
        let all = names.clone();
        names.retain(|path, _node| {
            let above = path.ancestors().skip(1);
            above.into_iter().all(|dir| is_root(dir) || all.get(dir) == Some(&Node::Dir))
        });
        let mut inodes = BTreeMap::new();
        for node in names.values() {
            if let Node::File(id) = node {
                let mut inode = self.inodes.get(id).cloned().unwrap_or_default();
                inode.persist(&mut *choose);
                inode.cached.clone_from(&inode.durable);
                inodes.insert(*id, inode);
            }
        }
        let names_durable = names.clone();
        Self { inodes, inode_last: self.inode_last, names, names_durable, changes: Vec::new() }
    }
}
