//! The catalog: which libraries there are, as a fold over the catalog's stream.
//!
//! A snapshot of it is `text "arrwcat" | u32 version | u64 applied | u32 n | n * (spec | u64
//! checkpointed) | u32 bytes | snapshot of work`, with a CRC32C of all of that behind it. That is
//! version 4, with specs of version 3; version 5, where a library has generations, has specs of
//! version 4, and before the snapshot of work `u32 m | m * generations`; version 6, where a library is
//! of another language than English, is version 5 with specs of version 5. Versions 1 to 3 are their
//! specs' versions, and end before the snapshot of work.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrwdb_index::IndexSpec;
use arrwdb_index::analysis::Language;

use crate::codec::{DecodeError, Reader, Writer};
use crate::entry::{
    CatalogEntry, DeletedLibrary, GENERATION_SPEC_VERSION, IndexBuilt, LANGUAGE_SPEC_VERSION,
    SPEC_VERSION, read_spec, write_spec,
};
use crate::generations::{Generations, OtherGeneration, Stage};
use crate::ids::{LibraryId, Seq, TenantId, Timestamp};
use crate::library::LibrarySpec;
use crate::limits::LIBRARIES_MAX;
use crate::work::Work;

const MAGIC: &str = "arrwcat";
/// The version that is written. Older ones are read.
const VERSION: u32 = 4;
/// The version that is written where a library has generations: earlier releases know nothing of
/// them.
const GENERATIONS_VERSION: u32 = 5;
/// The version that is written where a library is not English: earlier releases know no other
/// language.
const LANGUAGES_VERSION: u32 = 6;

/// Which libraries exist. Immutable; a copy shares its specs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    applied: Seq,
    /// What there is on disk: companions and generations too, which are told by their specs. A
    /// library's own id is not here any more once the generation that it began with is discarded.
    libraries: BTreeMap<LibraryId, Arc<LibrarySpec>>,
    /// Of libraries that have, or had, more than one.
    generations: BTreeMap<LibraryId, Generations>,
    /// Libraries that are somebody's.
    owned: usize,
}

/// A wish of the catalog.
#[derive(Debug, Clone)]
pub enum CatalogCommand {
    /// Create this library.
    Create(LibrarySpec),
    /// Change a library's name, description or language; `None` leaves it.
    Update {
        /// Whose it is.
        tenant: TenantId,
        /// Which library.
        id: LibraryId,
        /// New name.
        name: Option<String>,
        /// New description; `Some(None)` removes it.
        description: Option<Option<String>>,
        /// New language.
        language: Option<Language>,
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
    /// Change what a library's generation is that is not active.
    ChangeGeneration {
        /// Whose it is.
        tenant: TenantId,
        /// Which library.
        id: LibraryId,
        /// The generation.
        generation: LibraryId,
        /// What to do with it.
        change: GenerationChange,
    },
    /// Note that what is deleted is removed from the files for good.
    Purge,
}

/// What becomes of a generation that is not active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerationChange {
    /// It has all documents of its library.
    Prepare,
    /// The library is read from it and written to it; it has to be of this stage.
    Activate(Stage),
    /// It is removed.
    Discard,
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
    /// The library's generations are not as they have to be for that.
    #[error("{0}")]
    Generation(&'static str),
}

const HAS_ANOTHER: &str = "the library has vectors of a second embedding model already: activate \
    or discard them first";
const HAS_NO_OTHER: &str = "the library has no vectors of another embedding model: make some with \
    a job regenerate_embeddings";
const NOT_PREPARED: &str = "the vectors of the new embedding model are not there to be activated: \
    they are still made, or were active before, which takes a rollback";
const NOT_PREVIOUS: &str = "the library's other embedding model was not active before: activate \
    or discard it";
const UNFIT: &str = "what the library is searched by does not go with the dimension of its other \
    embedding model: choose other parameters of the index, or discard that model's vectors";

impl Catalog {
    /// The last record applied.
    pub fn applied(&self) -> Seq {
        self.applied
    }

    /// What is on disk under an id: the generation that a library began with, another one, or a
    /// companion of one of these. What its owner sees of a library is [`Catalog::library`].
    pub fn get(&self, id: LibraryId) -> Option<&Arc<LibrarySpec>> {
        self.libraries.get(&id)
    }

    /// All generations with their companions, ascending by id: what there is on disk.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<LibrarySpec>> {
        self.libraries.values()
    }

    /// A library as its owner sees it, whosever it is.
    pub fn library(&self, id: LibraryId) -> Option<&Arc<LibrarySpec>> {
        match self.generations.get(&id) {
            Some(generations) => Some(generations.spec()),
            None => self.get(id).filter(|spec| spec.is_whole()),
        }
    }

    /// All libraries as their owners see them.
    pub fn owners_libraries(&self) -> impl Iterator<Item = &Arc<LibrarySpec>> {
        let alone =
            self.iter().filter(|it| it.is_whole() && !self.generations.contains_key(&it.id));
        alone.chain(self.generations.values().map(Generations::spec))
    }

    /// The generations of a library, if it has, or had, more than one.
    pub fn generations(&self, of: LibraryId) -> Option<&Generations> {
        self.generations.get(&of)
    }

    /// The generations of all libraries that have, or had, more than one.
    pub fn all_generations(&self) -> impl Iterator<Item = &Generations> {
        self.generations.values()
    }

    /// Where a library is read from and written to.
    pub fn active(&self, of: LibraryId) -> LibraryId {
        self.generations.get(&of).map_or(of, Generations::active)
    }

    /// Whether a generation waits beside the active one: nobody but who carries documents to it
    /// writes to it.
    pub fn is_passive(&self, id: LibraryId) -> bool {
        let Some(spec) = self.get(id) else { return false };
        let of = spec.generation_of.unwrap_or(id);
        spec.companion_of.is_none() && self.active(of) != id
    }

    /// What is on disk that an entry removes.
    pub fn removed_by(&self, entry: &CatalogEntry) -> Vec<LibraryId> {
        let mut removed = Vec::new();
        match entry {
            CatalogEntry::LibraryDeleted { id, at: _, was: _ } => match self.generations.get(id) {
                None => removed.push(*id),
                Some(generations) => {
                    removed.push(generations.active);
                    removed.extend(generations.other.map(|other| other.id));
                }
            },
            CatalogEntry::GenerationDiscarded { id, at: _, generation } => {
                let other = self.generations.get(id).and_then(Generations::other);
                removed.extend(other.map(|other| other.id).filter(|other| other == generation));
            }
            CatalogEntry::LibraryCreated(_)
            | CatalogEntry::LibraryUpdated { .. }
            | CatalogEntry::IndexChanged { .. }
            | CatalogEntry::IndexBuilt { .. }
            | CatalogEntry::GenerationPrepared { .. }
            | CatalogEntry::GenerationActivated { .. }
            | CatalogEntry::Purged { at: _ } => {}
        }
        // Standing queries go with what they are matched against.
        for of in removed.clone() {
            removed.extend(self.companion(of).map(|companion| companion.id));
        }
        removed.retain(|id| self.libraries.contains_key(id));
        removed
    }

    /// The companion that holds a library's standing queries, once there was one.
    pub fn companion(&self, of: LibraryId) -> Option<&Arc<LibrarySpec>> {
        self.get(of.companion()).filter(|spec| spec.companion_of == Some(of))
    }

    /// How many libraries there are that are somebody's.
    pub fn len(&self) -> usize {
        self.owned
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
            CatalogCommand::Create(spec) => self.decide_create(spec),
            CatalogCommand::Update { tenant, id, name, description, language } => {
                let spec = self.owned(tenant, id)?;
                let language = language.filter(|language| *language != spec.language);
                let name = name.unwrap_or_else(|| spec.name.clone());
                let description = description.unwrap_or_else(|| spec.description.clone());
                Ok(CatalogEntry::LibraryUpdated { id, at, name, description, language })
            }
            CatalogCommand::Delete { tenant, id } => {
                let name = self.owned(tenant, id)?.name.clone();
                let generations = self.generations.get(&id).map(Generations::history);
                let generations = generations.unwrap_or_default();
                let was = Some(DeletedLibrary { tenant, name, generations });
                Ok(CatalogEntry::LibraryDeleted { id, at, was })
            }
            CatalogCommand::ChangeIndex { tenant, id, index } => {
                self.owned(tenant, id)?;
                let fits = |spec: &Arc<LibrarySpec>| {
                    index.check_dimension(spec.dimension as usize).is_ok()
                };
                let parts = self.parts(id);
                if !parts.iter().filter_map(|part| self.get(*part)).all(fits) {
                    return Err(CatalogRejection::Generation(UNFIT));
                }
                Ok(CatalogEntry::IndexChanged { id, at, index })
            }
            CatalogCommand::NoteIndexBuilt { tenant, id, built } => {
                self.owned(tenant, id)?;
                Ok(CatalogEntry::IndexBuilt { id, at, built })
            }
            CatalogCommand::ChangeGeneration { tenant, id, generation, change } => {
                self.decide_change((tenant, id, generation), change, at)
            }
            CatalogCommand::Purge => Ok(CatalogEntry::Purged { at }),
        }
    }

    fn decide_create(&self, spec: LibrarySpec) -> Result<CatalogEntry, CatalogRejection> {
        if self.libraries.contains_key(&spec.id) {
            return Err(CatalogRejection::Exists(spec.id));
        }
        if let Some(of) = spec.generation_of {
            return self.decide_generation(spec, of);
        }
        match spec.companion_of {
            // Of one generation of a library.
            Some(of) => {
                let parent = self.get(of).filter(|parent| parent.tenant == spec.tenant);
                parent.ok_or(CatalogRejection::NotFound(of))?;
            }
            None if self.len() >= LIBRARIES_MAX => return Err(CatalogRejection::Full),
            None => {}
        }
        Ok(CatalogEntry::LibraryCreated(spec))
    }

    fn decide_change(
        &self,
        (tenant, id, generation): (TenantId, LibraryId, LibraryId),
        change: GenerationChange,
        at: Timestamp,
    ) -> Result<CatalogEntry, CatalogRejection> {
        let other = self.other(tenant, id, generation)?;
        let refused = |why| Err(CatalogRejection::Generation(why));
        match (change, other.stage) {
            (GenerationChange::Discard, _) => {
                Ok(CatalogEntry::GenerationDiscarded { id, at, generation })
            }
            (GenerationChange::Prepare, Stage::Building) => {
                Ok(CatalogEntry::GenerationPrepared { id, at, generation })
            }
            (GenerationChange::Activate(Stage::Prepared), Stage::Prepared)
            | (GenerationChange::Activate(Stage::Previous), Stage::Previous) => {
                let spec = self.get(generation).ok_or(CatalogRejection::NotFound(id))?;
                let (model, dimension) = (spec.model.clone(), spec.dimension);
                Ok(CatalogEntry::GenerationActivated { id, at, generation, model, dimension })
            }
            (GenerationChange::Activate(Stage::Previous), _) => refused(NOT_PREVIOUS),
            (GenerationChange::Activate(_) | GenerationChange::Prepare, _) => refused(NOT_PREPARED),
        }
    }

    /// A new generation of a library, which is searched by what the library is searched by, and in
    /// its language.
    fn decide_generation(
        &self,
        mut spec: LibrarySpec,
        of: LibraryId,
    ) -> Result<CatalogEntry, CatalogRejection> {
        let library = self.owned(spec.tenant, of)?;
        if self.generations.get(&of).is_some_and(|generations| generations.other.is_some()) {
            return Err(CatalogRejection::Generation(HAS_ANOTHER));
        }
        (spec.index, spec.metric) = (library.index, library.metric);
        spec.language = library.language;
        if spec.index.check_dimension(spec.dimension as usize).is_err() {
            return Err(CatalogRejection::Generation(UNFIT));
        }
        Ok(CatalogEntry::LibraryCreated(spec))
    }

    /// The generation of a library that is not active, which has to be this one.
    fn other(
        &self,
        tenant: TenantId,
        id: LibraryId,
        generation: LibraryId,
    ) -> Result<OtherGeneration, CatalogRejection> {
        self.owned(tenant, id)?;
        let other = self.generations.get(&id).and_then(Generations::other);
        let other = other.filter(|other| other.id == generation);
        other.ok_or(CatalogRejection::Generation(HAS_NO_OTHER))
    }

    /// The generations of a library that there are.
    fn parts(&self, of: LibraryId) -> Vec<LibraryId> {
        match self.generations.get(&of) {
            None => vec![of],
            Some(generations) => {
                let other = generations.other.map(|other| other.id);
                [generations.active].into_iter().chain(other).collect()
            }
        }
    }

    /// The catalog after `entry`. Never refuses (S1). It takes the one before, so that replay
    /// copies nothing: O(log libraries). Whoever publishes a catalog gives a copy of it (S3).
    #[must_use]
    pub fn apply(self, seq: Seq, entry: &CatalogEntry) -> Self {
        let mut next = self;
        next.applied = seq;
        match entry {
            CatalogEntry::LibraryCreated(spec) => next.create(seq, spec),
            CatalogEntry::LibraryUpdated { id, at: _, name, description, language } => {
                // Its other generations have none that anybody sees.
                next.change(*id, &[*id], |spec| {
                    spec.name.clone_from(name);
                    spec.description.clone_from(description);
                });
                if let Some(language) = language {
                    let parts = next.parts(*id);
                    next.change(*id, &parts, |spec| spec.language = *language);
                }
            }
            CatalogEntry::LibraryDeleted { id, at: _, was: _ } => {
                next.owned -= usize::from(next.library(*id).is_some());
                next.remove(entry);
                next.generations.remove(id);
            }
            CatalogEntry::IndexChanged { id, at: _, index } => {
                let parts = next.parts(*id);
                next.change(*id, &parts, |spec| spec.index = *index);
            }
            CatalogEntry::GenerationPrepared { id, at: _, generation } => {
                let other = next.generations.get_mut(id).and_then(|it| it.other.as_mut());
                if let Some(other) = other.filter(|other| other.id == *generation) {
                    other.stage = Stage::Prepared;
                }
            }
            CatalogEntry::GenerationActivated { id, at: _, generation, .. } => {
                let to = next.libraries.get(generation);
                if let (Some(generations), Some(to)) = (next.generations.get_mut(id), to) {
                    generations.switch(seq, to);
                }
            }
            CatalogEntry::GenerationDiscarded { id, at: _, generation } => {
                next.remove(entry);
                if let Some(generations) = next.generations.get_mut(id) {
                    generations.other.take_if(|other| other.id == *generation);
                    if generations.is_trivial() {
                        next.generations.remove(id);
                    }
                }
            }
            CatalogEntry::IndexBuilt { id: _, at: _, built: _ }
            | CatalogEntry::Purged { at: _ } => {}
        }
        next
    }

    fn create(&mut self, seq: Seq, spec: &LibrarySpec) {
        if let Some(of) = spec.generation_of {
            let Some(library) = self.library(of).cloned() else { return };
            let begin = || Generations::begin(library);
            let generations = self.generations.entry(of).or_insert_with(begin);
            let stage = Stage::Building;
            generations.other = Some(OtherGeneration { id: spec.id, since: seq, stage });
        }
        let is_new = self.libraries.insert(spec.id, Arc::new(spec.clone())).is_none();
        self.owned += usize::from(is_new && spec.is_whole());
    }

    /// Changes what its owner sees of a library, and these generations of it.
    fn change(&mut self, id: LibraryId, parts: &[LibraryId], change: impl Fn(&mut LibrarySpec)) {
        for part in parts {
            if let Some(spec) = self.libraries.get_mut(part) {
                change(Arc::make_mut(spec));
            }
        }
        if let Some(generations) = self.generations.get_mut(&id) {
            change(Arc::make_mut(&mut generations.spec));
        }
    }

    fn remove(&mut self, entry: &CatalogEntry) {
        for id in self.removed_by(entry) {
            self.libraries.remove(&id);
        }
    }

    /// A library of this tenant as it sees it. Companions and generations are nobody's.
    pub fn owned(
        &self,
        tenant: TenantId,
        id: LibraryId,
    ) -> Result<&Arc<LibrarySpec>, CatalogRejection> {
        self.library(id).filter(|spec| spec.tenant == tenant).ok_or(CatalogRejection::NotFound(id))
    }

    /// A snapshot's bytes, with those of what is to be done. `checkpointed` says up to where each
    /// library's records are in its manifest at least ([`Seq::START`]: it need not have one): what
    /// the log may have lost.
    pub fn write(&self, work: &Work, checkpointed: impl Fn(LibraryId) -> Seq) -> Vec<u8> {
        let mut out = Writer::with_capacity(64 + self.libraries.len() * 160);
        out.text(MAGIC);
        let (version, of_specs) = self.versions();
        out.u32(version);
        out.u64(self.applied.get());
        out.count(self.libraries.len());
        for spec in self.libraries.values() {
            write_spec(&mut out, spec, of_specs);
            out.u64(checkpointed(spec.id).get());
        }
        if version >= GENERATIONS_VERSION {
            out.count(self.generations.len());
            for generations in self.generations.values() {
                generations.write(&mut out, of_specs);
            }
        }
        let work = work.write();
        out.count(work.len());
        out.raw(&work);
        seal(out)
    }

    /// The versions that a snapshot and its specs are written in: the oldest that know all of it.
    fn versions(&self) -> (u32, u8) {
        let mut specs = self.iter().chain(self.generations.values().map(Generations::spec));
        if specs.any(|spec| spec.language != Language::English) {
            (LANGUAGES_VERSION, LANGUAGE_SPEC_VERSION)
        } else if self.generations.is_empty() {
            (VERSION, SPEC_VERSION)
        } else {
            (GENERATIONS_VERSION, GENERATION_SPEC_VERSION)
        }
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
        let (MAGIC, version @ 1..=LANGUAGES_VERSION) = (from.text("magic")?, from.u32("version")?)
        else {
            return Err(from.error("a catalog snapshot of a version this build knows"));
        };
        let of_specs = match version {
            1 => 1,
            2 => 2,
            3 | VERSION => SPEC_VERSION,
            GENERATIONS_VERSION => GENERATION_SPEC_VERSION,
            _ => LANGUAGE_SPEC_VERSION,
        };
        let mut catalog =
            Catalog { applied: Seq::new(from.u64("applied sequence")?), ..Catalog::default() };
        let mut checkpointed = BTreeMap::new();
        for _library in 0..from.count(68, "libraries")? {
            let spec = read_spec(&mut from, of_specs)?;
            checkpointed.insert(spec.id, Seq::new(from.u64("checkpointed sequence")?));
            catalog.libraries.insert(spec.id, Arc::new(spec));
        }
        if version >= GENERATIONS_VERSION {
            for _library in 0..from.count(100, "generations")? {
                let generations = Generations::read(&mut from, of_specs)?;
                let id = generations.spec.id;
                let there = |part: LibraryId| {
                    let spec = catalog.get(part);
                    spec.is_some_and(|spec| spec.generation_of.unwrap_or(spec.id) == id)
                };
                let other = generations.other.map(|other| other.id);
                if !there(generations.active) || !other.is_none_or(there) {
                    return Err(from.error("the generations of a library"));
                }
                catalog.generations.insert(id, generations);
            }
        }
        let mut work = Work::default();
        if version >= VERSION {
            let bytes = from.count(1, "snapshot of work")?;
            work = Work::read(from.raw(bytes, "snapshot of work")?)?;
        }
        from.end()?;
        catalog.owned = catalog.owners_libraries().count();
        Ok(Self { catalog, checkpointed, work })
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
mod tests;
