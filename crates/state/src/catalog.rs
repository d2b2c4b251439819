//! The catalog: which libraries there are, as a fold over the catalog's stream.
//!
//! A snapshot of it is `text "arrwcat" | u32 version = 4 | u64 applied | u32 n | n * (spec | u64
//! checkpointed) | u32 bytes | snapshot of work`, with a CRC32C of all of that behind it. Specs are
//! of version 3. Older versions are their specs' versions, and end before the snapshot of work.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrwdb_index::IndexSpec;

use crate::codec::{DecodeError, Reader, Writer};
use crate::entry::{CatalogEntry, DeletedLibrary, IndexBuilt, SPEC_VERSION, read_spec, write_spec};
use crate::ids::{LibraryId, Seq, TenantId, Timestamp};
use crate::library::LibrarySpec;
use crate::limits::LIBRARIES_MAX;
use crate::work::Work;

const MAGIC: &str = "arrwcat";
/// The version that is written. Older ones are read.
const VERSION: u32 = 4;

/// Which libraries exist. Immutable; a copy shares its specs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    applied: Seq,
    /// Companions too, which are told by their specs.
    libraries: BTreeMap<LibraryId, Arc<LibrarySpec>>,
    companions: usize,
}

/// A wish of the catalog.
#[derive(Debug, Clone)]
pub enum CatalogCommand {
    /// Create this library.
    Create(LibrarySpec),
    /// Change a library's name or description; `None` leaves it.
    Update {
        /// Whose it is.
        tenant: TenantId,
        /// Which library.
        id: LibraryId,
        /// New name.
        name: Option<String>,
        /// New description; `Some(None)` removes it.
        description: Option<Option<String>>,
    },
    /// Delete a library.
    Delete {
        /// Whose it is.
        tenant: TenantId,
        /// Which library.
        id: LibraryId,
    },
    /// Have a library's segments searched by this.
    ChangeIndex {
        /// Whose it is.
        tenant: TenantId,
        /// Which library.
        id: LibraryId,
        /// What it asks for.
        index: IndexSpec,
    },
    /// Note that what a library is searched by was built.
    NoteIndexBuilt {
        /// Whose it is.
        tenant: TenantId,
        /// Which library.
        id: LibraryId,
        /// What was done.
        built: IndexBuilt,
    },
    /// Note that what is deleted is removed from the files for good.
    Purge,
}

/// Why the catalog refuses a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CatalogRejection {
    /// There is no such library of this tenant.
    #[error("no such library")]
    NotFound(LibraryId),
    /// There is one with this id.
    #[error("the library exists already")]
    Exists(LibraryId),
    /// There are as many libraries as there may be.
    #[error("there are {LIBRARIES_MAX} libraries, which is the limit")]
    Full,
}

impl Catalog {
    /// The last record applied.
    pub fn applied(&self) -> Seq {
        self.applied
    }

    /// A library by its id, whosever it is, or a companion.
    pub fn get(&self, id: LibraryId) -> Option<&Arc<LibrarySpec>> {
        self.libraries.get(&id)
    }

    /// All libraries with their companions, ascending by id: what there is on disk.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<LibrarySpec>> {
        self.libraries.values()
    }

    /// The companion that holds a library's standing queries, once there was one.
    pub fn companion(&self, of: LibraryId) -> Option<&Arc<LibrarySpec>> {
        self.get(of.companion()).filter(|spec| spec.companion_of == Some(of))
    }

    /// How many libraries there are, without companions.
    pub fn len(&self) -> usize {
        self.libraries.len().saturating_sub(self.companions)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Turns a command into an entry, or refuses it. Changes nothing.
    pub fn decide(
        &self,
        command: CatalogCommand,
        at: Timestamp,
    ) -> Result<CatalogEntry, CatalogRejection> {
        match command {
            CatalogCommand::Create(spec) => {
                if self.libraries.contains_key(&spec.id) {
                    return Err(CatalogRejection::Exists(spec.id));
                }
                match spec.companion_of {
                    Some(of) => drop(self.owned(spec.tenant, of)?),
                    None if self.len() >= LIBRARIES_MAX => return Err(CatalogRejection::Full),
                    None => {}
                }
                Ok(CatalogEntry::LibraryCreated(spec))
            }
            CatalogCommand::Update { tenant, id, name, description } => {
                let spec = self.owned(tenant, id)?;
                let name = name.unwrap_or_else(|| spec.name.clone());
                let description = description.unwrap_or_else(|| spec.description.clone());
                Ok(CatalogEntry::LibraryUpdated { id, at, name, description })
            }
            CatalogCommand::Delete { tenant, id } => {
                let name = self.owned(tenant, id)?.name.clone();
                let was = Some(DeletedLibrary { tenant, name });
                Ok(CatalogEntry::LibraryDeleted { id, at, was })
            }
            CatalogCommand::ChangeIndex { tenant, id, index } => {
                self.owned(tenant, id)?;
                Ok(CatalogEntry::IndexChanged { id, at, index })
            }
            CatalogCommand::NoteIndexBuilt { tenant, id, built } => {
                self.owned(tenant, id)?;
                Ok(CatalogEntry::IndexBuilt { id, at, built })
            }
            CatalogCommand::Purge => Ok(CatalogEntry::Purged { at }),
        }
    }

    /// The catalog after `entry`. Never refuses (S1). It takes the one before, so that replay
    /// copies nothing: O(log libraries). Whoever publishes a catalog gives a copy of it (S3).
    #[must_use]
    pub fn apply(self, seq: Seq, entry: &CatalogEntry) -> Self {
        let mut next = self;
        next.applied = seq;
        match entry {
            CatalogEntry::LibraryCreated(spec) => {
                next.companions += usize::from(spec.companion_of.is_some());
                next.libraries.insert(spec.id, Arc::new(spec.clone()));
            }
            CatalogEntry::LibraryUpdated { id, at: _, name, description } => {
                if let Some(spec) = next.libraries.get_mut(id) {
                    let spec = Arc::make_mut(spec);
                    spec.name.clone_from(name);
                    spec.description.clone_from(description);
                }
            }
            CatalogEntry::LibraryDeleted { id, at: _, was: _ } => {
                next.libraries.remove(id);
                // Its standing queries go with it.
                if next.companion(*id).is_some() {
                    next.libraries.remove(&id.companion());
                    next.companions -= 1;
                }
            }
            CatalogEntry::IndexChanged { id, at: _, index } => {
                if let Some(spec) = next.libraries.get_mut(id) {
                    Arc::make_mut(spec).index = *index;
                }
            }
            CatalogEntry::IndexBuilt { id: _, at: _, built: _ }
            | CatalogEntry::Purged { at: _ } => {}
        }
        next
    }

    /// A library of this tenant. Companions are nobody's.
    pub fn owned(
        &self,
        tenant: TenantId,
        id: LibraryId,
    ) -> Result<&Arc<LibrarySpec>, CatalogRejection> {
        self.get(id)
            .filter(|spec| spec.tenant == tenant && spec.companion_of.is_none())
            .ok_or(CatalogRejection::NotFound(id))
    }

    /// A snapshot's bytes, with those of what is to be done. `checkpointed` says up to where each
    /// library's records are in its manifest at least ([`Seq::START`]: it need not have one): what
    /// the log may have lost.
    pub fn write(&self, work: &Work, checkpointed: impl Fn(LibraryId) -> Seq) -> Vec<u8> {
        let mut out = Writer::with_capacity(64 + self.libraries.len() * 160);
        out.text(MAGIC);
        out.u32(VERSION);
        out.u64(self.applied.get());
        out.count(self.libraries.len());
        for spec in self.libraries.values() {
            write_spec(&mut out, spec);
            out.u64(checkpointed(spec.id).get());
        }
        let work = work.write();
        out.count(work.len());
        out.raw(&work);
        seal(out)
    }
}

/// What a snapshot says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The libraries.
    pub catalog: Catalog,
    /// What [`Catalog::write`] was told of each.
    pub checkpointed: BTreeMap<LibraryId, Seq>,
    /// What is to be done; nothing, in snapshots of before there was any.
    pub work: Work,
}

impl Snapshot {
    /// Reads a snapshot, checksum first.
    pub fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = unseal(bytes)?;
        let (MAGIC, version @ 1..=VERSION) = (from.text("magic")?, from.u32("version")?) else {
            return Err(from.error("a catalog snapshot of a version this build knows"));
        };
        let of_specs = u8::try_from(version).map_or(SPEC_VERSION, |it| it.min(SPEC_VERSION));
        let applied = Seq::new(from.u64("applied sequence")?);
        let mut libraries = BTreeMap::new();
        let mut checkpointed = BTreeMap::new();
        for _library in 0..from.count(68, "libraries")? {
            let spec = read_spec(&mut from, of_specs)?;
            checkpointed.insert(spec.id, Seq::new(from.u64("checkpointed sequence")?));
            libraries.insert(spec.id, Arc::new(spec));
        }
        let mut work = Work::default();
        if version == VERSION {
            let bytes = from.count(1, "snapshot of work")?;
            work = Work::read(from.raw(bytes, "snapshot of work")?)?;
        }
        from.end()?;
        let companions = libraries.values().filter(|spec| spec.companion_of.is_some()).count();
        Ok(Self { catalog: Catalog { applied, libraries, companions }, checkpointed, work })
    }
}

/// Appends the CRC32C of everything written.
pub(crate) fn seal(out: Writer) -> Vec<u8> {
    let mut bytes = out.into_bytes();
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// Checks what [`seal`] appended and gives a reader of what is before it.
pub(crate) fn unseal(bytes: &[u8]) -> Result<Reader<'_>, DecodeError> {
    let too_short = DecodeError { what: "a checksum", offset: bytes.len() };
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or(too_short)?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(DecodeError { what: "a matching checksum", offset: body.len() });
    }
    Ok(Reader::new(body))
}

#[cfg(test)]
mod tests {
    use arrwdb_index::{Quantization, Structure};

    use super::*;
    use crate::library::ModelName;

    fn spec(n: u8) -> LibrarySpec {
        LibrarySpec {
            id: LibraryId::from_bytes([n; 16]),
            tenant: TenantId::DEFAULT,
            name: format!("library {n}"),
            description: None,
            created_at: Timestamp::from_micros(1),
            index: IndexSpec::default(),
            metric: arrwdb_index::Metric::L2,
            model: ModelName { provider: "local".into(), model: "all-MiniLM-L6-v2".into() },
            dimension: 384,
            companion_of: None,
        }
    }

    #[test]
    fn s1_a_catalog_is_the_fold_of_its_entries() {
        let at = Timestamp::from_micros(2);
        let mut catalog = Catalog::default();
        let mut log = Vec::new();
        let update = CatalogCommand::Update {
            tenant: TenantId::DEFAULT,
            id: spec(1).id,
            name: Some("renamed".into()),
            description: Some(Some("about".into())),
        };
        let delete = CatalogCommand::Delete { tenant: TenantId::DEFAULT, id: spec(2).id };
        let quantization = Quantization::new("hybrid", &[("bits", 4)]).unwrap();
        let structure = Structure::new("hnsw", &[("M", 24)]).unwrap();
        let index = IndexSpec { structure, quantization };
        let reindex =
            CatalogCommand::ChangeIndex { tenant: TenantId::DEFAULT, id: spec(1).id, index };
        let create = [1, 2].map(|n| CatalogCommand::Create(spec(n)));
        for command in create.into_iter().chain([update, delete, reindex]) {
            let entry = catalog.decide(command, at).unwrap();
            assert_eq!(CatalogEntry::decode(&entry.encode()).unwrap(), entry);
            log.push(entry.clone());
            catalog = catalog.apply(Seq::new(log.len() as u64), &entry);
        }
        assert_eq!(catalog.get(spec(1).id).unwrap().name, "renamed");
        assert_eq!(catalog.get(spec(1).id).unwrap().index, index);
        assert!(catalog.get(spec(2).id).is_none());
        let bytes = catalog.write(&Work::default(), |_id| Seq::new(7));
        let read = Snapshot::read(&bytes).unwrap();
        assert_eq!(read.catalog, catalog);
        assert_eq!(read.checkpointed, BTreeMap::from([(spec(1).id, Seq::new(7))]));
    }

    #[test]
    fn another_tenants_library_does_not_exist() {
        let catalog = Catalog::default().apply(Seq::new(1), &CatalogEntry::LibraryCreated(spec(1)));
        let delete = CatalogCommand::Delete { tenant: TenantId::new(5), id: spec(1).id };
        let refused = catalog.decide(delete, Timestamp::from_micros(0)).unwrap_err();
        assert_eq!(refused, CatalogRejection::NotFound(spec(1).id));
    }

    #[test]
    fn a_companion_is_nobodys_and_goes_with_its_library() {
        let of = LibraryId::from_bytes([0x71; 16]);
        let create = |spec: LibrarySpec| CatalogEntry::LibraryCreated(spec);
        let companion = || LibrarySpec { id: of.companion(), companion_of: Some(of), ..spec(3) };
        let at = Timestamp::from_micros(0);
        let early = Catalog::default().decide(CatalogCommand::Create(companion()), at);
        assert_eq!(early.unwrap_err(), CatalogRejection::NotFound(of));
        let catalog = Catalog::default()
            .apply(Seq::new(1), &create(LibrarySpec { id: of, ..spec(1) }))
            .apply(Seq::new(2), &create(companion()));
        assert_eq!((catalog.len(), catalog.iter().count()), (1, 2));
        assert_eq!(catalog.companion(of).unwrap().id, of.companion());
        assert!(of.companion().is_companion() && !of.is_companion());
        assert!(catalog.owned(TenantId::DEFAULT, of.companion()).is_err());
        let bytes = catalog.write(&Work::default(), |_id| Seq::START);
        let read = Snapshot::read(&bytes).unwrap().catalog;
        assert_eq!(read, catalog);
        let gone = read.apply(Seq::new(3), &CatalogEntry::LibraryDeleted { id: of, at, was: None });
        assert_eq!(gone.iter().count(), 0);
        assert!(gone.is_empty());
    }

    #[test]
    fn a_damaged_snapshot_is_refused() {
        let catalog = Catalog::default().apply(Seq::new(1), &CatalogEntry::LibraryCreated(spec(1)));
        let bytes = catalog.write(&Work::default(), |_id| Seq::START);
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1;
            assert!(Snapshot::read(&damaged).is_err(), "byte {place}");
        }
    }
}
