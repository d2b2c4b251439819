//! Whose each library is, deleted ones included for as long as the log has records of them.

use std::collections::HashMap;

use arrwdb_engine::state::{CatalogEntry, LibraryId, Seq, TenantId};
use arrwdb_engine::{Engine, FollowError, WantedRecords};

use crate::error::undecodable;

/// Whose each library is.
#[derive(Debug, Default)]
pub(crate) struct Owners(HashMap<LibraryId, Owner>);

#[derive(Debug, Clone, Copy)]
struct Owner {
    tenant: TenantId,
    /// The record that deleted the library.
    deleted: Option<Seq>,
}

impl Owners {
    /// What the catalog and the log know. A library whose deletion is in the log no more has no
    /// records there either. Reads the catalog's part of the log: blocks.
    pub(crate) fn read(engine: &Engine) -> Result<Self, FollowError> {
        let mut owners = Self::default();
        let before = Seq::new(engine.oldest().get().saturating_sub(1));
        for record in engine.read_records(before, WantedRecords::Catalog)? {
            let record = record?;
            let entry = record.parts.first().map(|part| CatalogEntry::decode(part));
            if let Some(entry) = entry {
                owners.note(record.seq, &entry.map_err(|error| undecodable(record.seq, &error))?);
            }
        }
        for spec in engine.all_libraries().0 {
            owners.0.entry(spec.id).or_insert(Owner { tenant: spec.tenant, deleted: None });
        }
        Ok(owners)
    }

    /// Takes in a record of the catalog.
    pub(crate) fn note(&mut self, seq: Seq, entry: &CatalogEntry) {
        match entry {
            CatalogEntry::LibraryCreated(spec) => {
                let owner = Owner { tenant: spec.tenant, deleted: None };
                self.0.entry(spec.id).or_insert(owner);
            }
            CatalogEntry::LibraryDeleted { id, at: _, was } => {
                // Entries that do not say whose it was are of a time when there was one tenant.
                let tenant = was.as_ref().map_or(TenantId::DEFAULT, |was| was.tenant);
                let owner = self.0.entry(*id).or_insert(Owner { tenant, deleted: None });
                owner.deleted = Some(seq);
                // What held its standing queries goes with it; what is left of it in the log is
                // told, even where the record that made it is there no more.
                let companion = Owner { tenant: owner.tenant, deleted: None };
                self.0.entry(id.companion()).or_insert(companion).deleted = Some(seq);
            }
            CatalogEntry::LibraryUpdated { .. }
            | CatalogEntry::IndexChanged { .. }
            | CatalogEntry::IndexBuilt { .. }
            | CatalogEntry::Purged { .. } => {}
        }
    }

    /// Whose a library is, or was.
    pub(crate) fn tenant(&self, library: LibraryId) -> Option<TenantId> {
        self.0.get(&library).map(|owner| owner.tenant)
    }

    /// Whose a library was at a record of it; `None` if it was deleted before, so that the record
    /// means nothing.
    pub(crate) fn tenant_at(&self, library: LibraryId, seq: Seq) -> Option<TenantId> {
        let owner = self.0.get(&library)?;
        let meant = owner.deleted.is_none_or(|deleted| seq < deleted);
        meant.then_some(owner.tenant)
    }

    /// Forgets libraries that were deleted before `oldest`, from which on the log is kept.
    pub(crate) fn forget(&mut self, oldest: Seq) {
        self.0.retain(|_id, owner| owner.deleted.is_none_or(|deleted| deleted >= oldest));
    }
}

#[cfg(test)]
mod tests {
    use arrwdb_engine::state::Timestamp;

    use super::*;

    #[test]
    fn what_a_deleted_librarys_queries_matched_is_its_tenants_until_the_log_lets_it_go() {
        let library = LibraryId::from_bytes([1; 16]);
        let mut owners = Owners::default();
        let at = Timestamp::from_micros(0);
        let entry = CatalogEntry::LibraryDeleted { id: library, at, was: None };
        owners.note(Seq::new(9), &entry);
        for id in [library, library.companion()] {
            assert_eq!(owners.tenant_at(id, Seq::new(8)), Some(TenantId::DEFAULT));
            assert_eq!(owners.tenant_at(id, Seq::new(9)), None, "it was deleted by then");
        }
        owners.forget(Seq::new(9));
        assert_eq!(owners.tenant(library.companion()), Some(TenantId::DEFAULT));
        owners.forget(Seq::new(10));
        assert_eq!(owners.tenant(library.companion()), None);
    }
}
