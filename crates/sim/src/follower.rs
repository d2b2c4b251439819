//! A follower of the feed: it keeps its place over restarts, and builds a copy from what it reads.

use std::collections::{BTreeMap, BTreeSet};

use arrwdb_engine::state::{CatalogEntry, DocumentId, LibraryEntry, LibraryId, Seq};
use arrwdb_engine::{Change, ChangeEntry, Engine, FollowError};

use crate::check::{Failure, differs};
use crate::model::{Library, Model, chunk_count, id};

/// The chunks of each document of each library.
type Copy = BTreeMap<LibraryId, BTreeMap<DocumentId, u64>>;

/// A place in the feed, and what follows from everything before it.
#[derive(Debug)]
pub(crate) struct Follower {
    after: Seq,
    copy: Copy,
    /// Numbers of acknowledged writes that it has not read.
    unread: BTreeSet<u64>,
    /// The greatest number ever acknowledged.
    acknowledged: u64,
    /// Whether records may be trimmed before they are read.
    pub(crate) trims: bool,
}

impl Follower {
    pub(crate) fn new(trims: bool) -> Self {
        let (copy, unread) = (Copy::new(), BTreeSet::new());
        Self { after: Seq::START, copy, unread, acknowledged: 0, trims }
    }

    /// A write with this number was acknowledged. (One that changed nothing has an earlier one.)
    pub(crate) fn expect(&mut self, seq: Seq) {
        if seq.get() > self.acknowledged {
            self.acknowledged = seq.get();
            if seq > self.after {
                self.unread.insert(seq.get());
            }
        }
    }

    /// Numbers go on above everything that was heard of.
    pub(crate) fn check_durable(&self, durable: Seq) -> Result<(), Failure> {
        let heard = self.acknowledged.max(self.after.get());
        if durable.get() < heard {
            return differs(format!("{durable} is durable, and {heard} was heard of"));
        }
        Ok(())
    }

    /// Reads to the end; then the copy has to be what should be there.
    pub(crate) async fn read_all(&mut self, engine: &Engine, model: &Model) -> Result<(), Failure> {
        while !self.read(engine, model, 50).await? {}
        if self.copy != copy_of(model) {
            let (copy, wanted) = (&self.copy, copy_of(model));
            return differs(format!("the feed leads to {copy:?}, not {wanted:?}"));
        }
        Ok(())
    }

    /// Reads at most so many records; whether that was the end.
    pub(crate) async fn read(
        &mut self,
        engine: &Engine,
        model: &Model,
        limit: usize,
    ) -> Result<bool, Failure> {
        let changes = match engine.changes_after(self.after, limit).await {
            Ok(changes) => changes,
            Err(FollowError::Trimmed { first }) if self.trims && first > self.after => {
                // Begins again from what is there, as a follower is told to.
                self.copy = copy_of(model);
                self.after = engine.durable();
                self.unread.clear();
                return Ok(false);
            }
            Err(FollowError::Trimmed { first }) => {
                return differs(format!("the feed begins at {first}, and {} was read", self.after));
            }
            Err(FollowError::Engine(error)) => return Err(error.into()),
        };
        for change in &changes {
            if change.seq <= self.after {
                return differs(format!("the feed gives {} after {}", change.seq, self.after));
            }
            self.after = change.seq;
            if self.unread.first().is_some_and(|unread| *unread < change.seq.get()) {
                return differs(format!("the feed skips {:?}", self.unread.first()));
            }
            self.unread.remove(&change.seq.get());
            self.take(change);
        }
        let end = changes.len() < limit;
        if end && !self.unread.is_empty() {
            return differs(format!("the feed ends at {} without {:?}", self.after, self.unread));
        }
        Ok(end)
    }

    fn take(&mut self, change: &Change) {
        match &change.entry {
            ChangeEntry::Catalog(CatalogEntry::LibraryCreated(spec)) => {
                self.copy.insert(spec.id, BTreeMap::new());
            }
            ChangeEntry::Work(_)
            | ChangeEntry::Catalog(
                CatalogEntry::LibraryUpdated { .. }
                | CatalogEntry::IndexChanged { .. }
                | CatalogEntry::IndexBuilt { .. }
                | CatalogEntry::GenerationPrepared { .. }
                | CatalogEntry::GenerationActivated { .. }
                | CatalogEntry::GenerationDiscarded { .. }
                | CatalogEntry::Purged { .. },
            ) => {}
            ChangeEntry::Catalog(CatalogEntry::LibraryDeleted { id, .. }) => {
                self.copy.remove(id);
            }
            ChangeEntry::Library(library, entry) => {
                // Records of a deleted library mean nothing.
                let Some(documents) = self.copy.get_mut(library) else { return };
                match entry {
                    LibraryEntry::DocumentsPut { documents: put, .. } => {
                        documents.extend(put.iter().map(|one| (one.id(), one.chunks() as u64)));
                    }
                    LibraryEntry::DocumentsDeleted { documents: gone, .. } => {
                        documents.retain(|id, _chunks| gone.iter().all(|gone| gone.id != *id));
                    }
                    // There are no standing queries in these worlds.
                    LibraryEntry::Batch { .. }
                    | LibraryEntry::FieldChanged { .. }
                    | LibraryEntry::QueriesMatched(_) => {}
                }
            }
        }
    }
}

fn copy_of(model: &Model) -> Copy {
    let documents = |library: &Library| {
        let documents = library.documents.iter();
        documents.map(|(n, version)| (id(*n), chunk_count(*n, *version))).collect()
    };
    model.libraries.values().map(|library| (library.id, documents(library))).collect()
}
