//! Whose each library is, deleted ones included for as long as the log has records of them.

use std::collections::HashMap;

use arrwdb_engine::state::{CatalogEntry, LibraryId, LibrarySpec, Seq, TenantId};
use arrwdb_engine::{Engine, FollowError, WantedRecords};

use crate::error::undecodable;

/// Whose each library is, and which of its generations is told of.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    /// By generation (a library's own id is the one that it began with) and by companion.
    parts: HashMap<LibraryId, Part>,
    /// Which generation was active since which record, of libraries that had more than one.
    histories: HashMap<LibraryId, Vec<(Seq, LibraryId)>>,
}

#[derive(Debug, Clone, Copy)]
struct Part {
    tenant: TenantId,
    /// The library that it is of.
    of: LibraryId,
    /// The record that deleted it.
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
        let catalog = engine.catalog();
        for spec in catalog.iter() {
            owners.add(spec.id, (spec.tenant, part_of(spec)));
        }
        for generations in catalog.all_generations() {
            let spec = generations.spec();
            owners.remember((spec.id, spec.tenant), &generations.history());
        }
        Ok(owners)
    }

    /// Takes in a record of the catalog.
    pub(crate) fn note(&mut self, seq: Seq, entry: &CatalogEntry) {
        match entry {
            CatalogEntry::LibraryCreated(spec) => {
                self.add(spec.id, (spec.tenant, part_of(spec)));
            }
            CatalogEntry::LibraryDeleted { id, at: _, was } => {
                // Entries that do not say whose it was are of a time when there was one tenant.
                let tenant = was.as_ref().map_or(TenantId::DEFAULT, |was| was.tenant);
                let tenant = self.add(*id, (tenant, *id)).tenant;
                if let Some(was) = was {
                    self.remember((*id, tenant), &was.generations);
                }
                // What held its standing queries goes with it; what is left of it in the log is
                // told, even where the record that made it is there no more.
                for generation in self.generations(*id) {
                    self.add(generation.companion(), (tenant, *id));
                }
                let parts = self.parts.values_mut().filter(|part| part.of == *id);
                for part in parts {
                    part.deleted.get_or_insert(seq);
                }
            }
            CatalogEntry::GenerationActivated { id, generation, .. } => {
                if let Some(tenant) = self.tenant(*id) {
                    self.remember((*id, tenant), &[(seq, *generation)]);
                }
            }
            CatalogEntry::GenerationDiscarded { id, at: _, generation } => {
                for part in [*generation, generation.companion()] {
                    // The library itself is there still, where it is what it began with that goes.
                    if part != *id
                        && let Some(part) = self.parts.get_mut(&part)
                    {
                        part.deleted = Some(seq);
                    }
                }
            }
            CatalogEntry::LibraryUpdated { .. }
            | CatalogEntry::IndexChanged { .. }
            | CatalogEntry::IndexBuilt { .. }
            | CatalogEntry::GenerationPrepared { .. }
            | CatalogEntry::Purged { .. } => {}
        }
    }

    fn add(&mut self, id: LibraryId, (tenant, of): (TenantId, LibraryId)) -> Part {
        // A companion's generation may be all that was known of what it is of.
        let of = self.parts.get(&of).map_or(of, |part| part.of);
        let part = self.parts.entry(id).or_insert(Part { tenant, of, deleted: None });
        part.of = of;
        *part
    }

    /// Takes in which generations were active since when.
    fn remember(&mut self, (id, tenant): (LibraryId, TenantId), since: &[(Seq, LibraryId)]) {
        if since.is_empty() {
            return;
        }
        self.add(id, (tenant, id));
        for (_seq, generation) in since {
            self.add(*generation, (tenant, id));
        }
        let history = self.histories.entry(id).or_default();
        for entry in since {
            // Which was the first is known best by who remembers most.
            history.retain(|known| known.0 != entry.0);
            history.push(*entry);
        }
        history.sort_unstable();
    }

    /// Whose a library is, or was; also of what is a part of one.
    pub(crate) fn tenant(&self, library: LibraryId) -> Option<TenantId> {
        self.parts.get(&library).map(|part| part.tenant)
    }

    /// Whether it is a library, and no part of one.
    pub(crate) fn is_whole(&self, library: LibraryId) -> bool {
        self.parts.get(&library).is_some_and(|part| part.of == library)
    }

    /// Whose a library was at a record of it; `None` if it was deleted before, so that the record
    /// means nothing.
    pub(crate) fn tenant_at(&self, library: LibraryId, seq: Seq) -> Option<TenantId> {
        let part = self.parts.get(&library)?;
        let meant = part.deleted.is_none_or(|deleted| seq < deleted);
        meant.then_some(part.tenant)
    }

    /// The library that a record of a generation is told as one of; `None` if another generation
    /// was active then.
    pub(crate) fn told_as(&self, generation: LibraryId, seq: Seq) -> Option<LibraryId> {
        let of = self.parts.get(&generation)?.of;
        let active = match self.histories.get(&of) {
            None => of,
            Some(history) => {
                let after = history.partition_point(|(switch, _id)| *switch <= seq);
                after.checked_sub(1).and_then(|last| history.get(last)).map_or(of, |last| last.1)
            }
        };
        (active == generation).then_some(of)
    }

    /// Every generation of a library that is known to have been active.
    pub(crate) fn generations(&self, library: LibraryId) -> Vec<LibraryId> {
        let history = self.histories.get(&library).into_iter().flatten();
        let mut all: Vec<LibraryId> = history.map(|(_seq, id)| *id).collect();
        all.push(library);
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Forgets what was deleted before `oldest`, from which on the log is kept.
    pub(crate) fn forget(&mut self, oldest: Seq) {
        self.parts.retain(|_id, part| part.deleted.is_none_or(|deleted| deleted >= oldest));
        let parts = &self.parts;
        self.histories.retain(|id, _history| parts.contains_key(id));
        for history in self.histories.values_mut() {
            let before = history.partition_point(|(switch, _id)| *switch <= oldest);
            history.drain(..before.saturating_sub(1));
        }
    }
}

/// The library that it is a part of, or itself; of a companion, the generation.
fn part_of(spec: &LibrarySpec) -> LibraryId {
    spec.companion_of.or(spec.generation_of).unwrap_or(spec.id)
}

#[cfg(test)]
mod tests {
    use arrwdb_engine::state::{DeletedLibrary, ModelName, Timestamp};

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

    #[test]
    fn records_are_told_of_the_generation_that_was_active_then() {
        let [library, other] = [1, 2].map(|n| LibraryId::from_bytes([n; 16]));
        let at = Timestamp::from_micros(0);
        let model = ModelName { provider: "local".into(), model: "m".into() };
        let switch = |generation| CatalogEntry::GenerationActivated {
            id: library,
            at,
            generation,
            model: model.clone(),
            dimension: 2,
        };
        let mut owners = Owners::default();
        owners.add(library, (TenantId::DEFAULT, library));
        owners.add(other, (TenantId::DEFAULT, library));
        assert!(owners.is_whole(library) && !owners.is_whole(other));
        let told = |owners: &Owners, seq| {
            [library, other].map(|id| owners.told_as(id, Seq::new(seq)) == Some(library))
        };
        assert_eq!(told(&owners, 5), [true, false]);
        owners.note(Seq::new(10), &switch(other));
        owners.note(Seq::new(20), &switch(library));
        let expected = [(5, [true, false]), (10, [false, true]), (19, [false, true])];
        for (seq, expected) in expected.into_iter().chain([(20, [true, false])]) {
            assert_eq!(told(&owners, seq), expected, "{seq}");
        }
        // As of a deletion whose library's other records are gone.
        let mut late = Owners::default();
        let generations = owners.histories[&library].clone();
        let generations = [(Seq::START, library)].into_iter().chain(generations).collect();
        let was = DeletedLibrary { tenant: TenantId::new(3), name: "a".into(), generations };
        late.note(Seq::new(30), &CatalogEntry::LibraryDeleted { id: library, at, was: Some(was) });
        assert_eq!(told(&late, 15), [false, true]);
        assert_eq!(late.tenant_at(other, Seq::new(29)), Some(TenantId::new(3)));
        assert_eq!(late.tenant_at(other, Seq::new(30)), None);
        late.forget(Seq::new(25));
        assert_eq!(told(&late, 25), [true, false]);
        late.forget(Seq::new(31));
        assert_eq!((late.tenant(other), late.histories.len()), (None, 0));
    }
}
