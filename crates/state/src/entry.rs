//! Entries: the facts that the log holds, and their bytes.
//!
//! An entry is a byte for its kind, a byte for its version, and its fields. A kind's number and
//! the bytes of a version never change; a new shape is a new version.
//!
//! ```text
//! catalog  1 LibraryCreated   v1: spec without index and metric, which are brute_force and cosine
//!                             v2 to v5: spec
//!          2 LibraryUpdated   v1: id 16 | i64 at | text name | text? description
//!                             v2: behind that: text language
//!          3 LibraryDeleted   v1: id 16 | i64 at
//!                             v2: id 16 | i64 at | u64 tenant | text name
//!                             v3: behind that: u32 n, n * (u64 seq | id 16 generation)
//!          4 Purged           v1: i64 at
//!          5 IndexChanged     v1: id 16 | i64 at | index
//!          6 IndexBuilt       v1: id 16 | i64 at | u8 optimised | index old | index new
//!                                 u64 vectors | u64 compacted | u64 freed bytes
//!          7 GenerationPrepared v1: id 16 | i64 at | id 16 generation
//!          8 GenerationActivated v1: id 16 | i64 at | id 16 generation
//!                                 text provider | text model | u32 dimension
//!          9 GenerationDiscarded v1: id 16 | i64 at | id 16 generation
//! library 16 DocumentsPut     v1: i64 at | u32 dimension | u32 n
//!                                 n * (id 16 | u32 body bytes | u32 chunks)
//!                                 n * (body | f32 * chunks * dimension)
//!                             v2: behind the first n: u32 m
//!                                 m * (u32 document | u32 k | chunk id 16 * k) of those replaced
//!                             v3: behind the time: unit
//!                             v4: before the bodies: u32 f
//!                                 f * (field | u32 n
//!                                      n * (u32 document | id 16 | u32 body bytes | u32 rows))
//!                                 and behind them those of the fields, as the others
//!         17 DocumentsDeleted v1: i64 at | u32 n | id 16 * n
//!                             v2: i64 at | u32 n
//!                                 n * (id 16 | text? title | u32 k | chunk id 16 * k)
//!                             v3: behind the time: unit
//!         18 BatchStarted     v1: i64 at | batch
//!         19 BatchFinished    v1: i64 at | batch | u64 successful | u64 failed | u8 failure
//! unit: u8 of a job, (id 16 job | u64 unit)?
//! batch: id 16 | u8 operation | u8 known, u64 total?
//!         20 QueriesMatched   v1: i64 at | id 16 library | through
//!                                 u32 n, n * (id 16 query | text name)
//!                                 u32 n, n * (u64 seq | id 16 document | id 16 chunk | u32 index
//!                                             text passage | u32 m, m * (u32 query | f32 distance))
//! through: u64 seq | u32 chunk | id 16 query
//! spec: id 16 | u64 tenant | text name | text? description | i64 created_at
//!       v1: text "brute_force" | text provider | text model | u32 dimension
//!       v2: text provider | text model | u32 dimension | text metric | index
//!       v3: as v2, then u8 is_companion, id 16 of the library it belongs to?
//!       v4: of a generation only: as v2, then u8 2, id 16 of the library it belongs to
//!       v5: of a language other than English only: as v3 or v4, then text language
//!         21 FieldChanged     v1: i64 at | field
//! field: text name | text kind | u32 dimension | text metric | index
//!        u8 has_model, (text provider | text model)?
//! index: text type | u32 n, n * (text parameter | u64 value)
//!        text quantisation | u32 n, n * (text parameter | u64 value)
//! ```

use arrwdb_index::IndexSpec;
use arrwdb_index::analysis::Language;
use bytes::Bytes;

mod documents;
mod outline;
mod spec;

pub(crate) use self::documents::by_field;
pub use self::documents::{DeletedDocument, Replaced};
pub use self::outline::{LibraryOutline, OutlineChange, PutOutline};
pub(crate) use self::spec::{
    GENERATION_SPEC_VERSION, LANGUAGE_SPEC_VERSION, SPEC_VERSION, read_dimension, read_index,
    read_metric, read_spec, write_index, write_spec,
};
use self::spec::{read_language, spec_version};
use crate::batch::BatchNote;
use crate::codec::{DecodeError, Reader, Writer};
use crate::field::FieldSpec;
use crate::ids::{LibraryId, Seq, TenantId, Timestamp};
use crate::library::{LibrarySpec, ModelName};
use crate::matched::QueriesMatched;
use crate::record::DocumentRecord;
use crate::work::JobUnit;

const LIBRARY_CREATED: u8 = 1;
const LIBRARY_UPDATED: u8 = 2;
const LIBRARY_DELETED: u8 = 3;
const PURGED: u8 = 4;
const INDEX_CHANGED: u8 = 5;
const INDEX_BUILT: u8 = 6;
const GENERATION_PREPARED: u8 = 7;
const GENERATION_ACTIVATED: u8 = 8;
const GENERATION_DISCARDED: u8 = 9;
const DOCUMENTS_PUT: u8 = 16;
const DOCUMENTS_DELETED: u8 = 17;
const BATCH_STARTED: u8 = 18;
const BATCH_FINISHED: u8 = 19;
const QUERIES_MATCHED: u8 = 20;
const FIELD_CHANGED: u8 = 21;
const VERSION: u8 = 1;
/// The version of a library's update that changes its language too, of which 1 knew nothing.
const UPDATED_LANGUAGE_VERSION: u8 = 2;
/// The version of a library's deletion that is written: 1 did not say whose it was.
const DELETED_VERSION: u8 = 2;
/// The version of the deletion of a library that had generations, which 2 did not know.
const DELETED_GENERATIONS_VERSION: u8 = 3;
/// The version of entries about documents that is written: 1 did not say what was there before, 2
/// not for which job.
const DOCUMENTS_VERSION: u8 = 3;
/// The version of a put of documents with vectors in fields, which 3 did not know.
const FIELDS_VERSION: u8 = 4;

/// A change of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogEntry {
    /// A library exists from here on.
    LibraryCreated(LibrarySpec),
    /// A library is called and described so from here on.
    LibraryUpdated {
        /// Which library.
        id: LibraryId,
        /// When.
        at: Timestamp,
        /// Its name.
        name: String,
        /// Its description.
        description: Option<String>,
        /// Its language, if it changes.
        language: Option<Language>,
    },
    /// A library and all it holds is gone; later records of it mean nothing.
    LibraryDeleted {
        /// Which library.
        id: LibraryId,
        /// When.
        at: Timestamp,
        /// What it was; unknown in entries of version 1.
        was: Option<DeletedLibrary>,
    },
    /// A library's segments are searched by this from here on, once it is built.
    IndexChanged {
        /// Which library.
        id: LibraryId,
        /// When.
        at: Timestamp,
        /// What it asks for.
        index: IndexSpec,
    },
    /// What a library is searched by was built as somebody asked for it. Changes nothing.
    IndexBuilt {
        /// Which library.
        id: LibraryId,
        /// When it was done.
        at: Timestamp,
        /// What was done.
        built: IndexBuilt,
    },
    /// A generation of a library has all of its documents, and may become what it is read from.
    GenerationPrepared {
        /// Which library.
        id: LibraryId,
        /// When.
        at: Timestamp,
        /// The generation.
        generation: LibraryId,
    },
    /// A library is read from and written to another of its generations from here on.
    GenerationActivated {
        /// Which library.
        id: LibraryId,
        /// When.
        at: Timestamp,
        /// The generation; the library's own id for the one that it began with.
        generation: LibraryId,
        /// The model of its vectors.
        model: ModelName,
        /// Their dimension.
        dimension: u32,
    },
    /// A generation of a library and all it holds is gone.
    GenerationDiscarded {
        /// Which library.
        id: LibraryId,
        /// When.
        at: Timestamp,
        /// The generation; the library's own id for the one that it began with.
        generation: LibraryId,
    },
    /// What was deleted before is removed from the files for good; the log before this is not kept.
    Purged {
        /// When it was asked for.
        at: Timestamp,
    },
}

/// What is remembered of a library that is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedLibrary {
    /// Whose it was.
    pub tenant: TenantId,
    /// What it was called.
    pub name: String,
    /// Which generation was active since which record, ascending, the first since
    /// [`Seq::START`]; none where it had only the one that it began with.
    pub generations: Vec<(Seq, LibraryId)>,
}

/// What came of building what a library is searched by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexBuilt {
    /// What was asked for.
    pub work: IndexWork,
    /// What the library asked for before.
    pub old: IndexSpec,
    /// What it asks for since.
    pub new: IndexSpec,
    /// Its live vectors.
    pub vectors: u64,
    /// Dead vectors that are gone from its files.
    pub compacted: u64,
    /// Bytes that are free again.
    pub freed_bytes: u64,
}

/// What was asked for of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexWork {
    /// To build it, as it was or otherwise.
    Rebuild,
    /// To merge the library's files into one without what died.
    Optimize,
}

/// A change of one library.
#[derive(Debug, Clone)]
pub enum LibraryEntry {
    /// Documents were added, or replaced where their id existed. No id occurs twice.
    DocumentsPut {
        /// When.
        at: Timestamp,
        /// What job it was done for, if it was for one.
        unit: Option<JobUnit>,
        /// The documents.
        documents: Vec<DocumentRecord>,
        /// Those of them that took the place of another, ascending. Empty in entries of version 1,
        /// which do not say.
        replaced: Vec<Replaced>,
    },
    /// Documents were deleted. Every one existed, and none occurs twice.
    DocumentsDeleted {
        /// When.
        at: Timestamp,
        /// What job it was done for, if it was for one.
        unit: Option<JobUnit>,
        /// The documents.
        documents: Vec<DeletedDocument>,
    },
    /// A batch began or ended. Changes nothing.
    Batch {
        /// When.
        at: Timestamp,
        /// Which, and how.
        note: BatchNote,
    },
    /// There is this vector field, or it is searched by something else from here on.
    FieldChanged {
        /// When.
        at: Timestamp,
        /// What it is.
        field: FieldSpec,
    },
    /// Of a companion: passages of the library it belongs to were matched against its standing
    /// queries, up to a position.
    QueriesMatched(QueriesMatched),
}

impl CatalogEntry {
    /// When the change was made.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::LibraryCreated(spec) => spec.created_at,
            Self::LibraryUpdated { at, .. }
            | Self::LibraryDeleted { at, .. }
            | Self::IndexChanged { at, .. }
            | Self::IndexBuilt { at, .. }
            | Self::GenerationPrepared { at, .. }
            | Self::GenerationActivated { at, .. }
            | Self::GenerationDiscarded { at, .. }
            | Self::Purged { at } => *at,
        }
    }

    /// The entry's bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::with_capacity(256);
        match self {
            Self::LibraryCreated(spec) => {
                out.raw(&[LIBRARY_CREATED, spec_version(spec)]);
                write_spec(&mut out, spec, spec_version(spec));
            }
            Self::LibraryUpdated { id, at, name, description, language } => {
                let version = language.map_or(VERSION, |_changes| UPDATED_LANGUAGE_VERSION);
                out.raw(&[LIBRARY_UPDATED, version]);
                out.id(id.to_bytes());
                out.i64(at.micros());
                out.text(name);
                out.text_option(description.as_deref());
                if let Some(language) = language {
                    out.text(language.code());
                }
            }
            Self::LibraryDeleted { id, at, was: None } => {
                out.raw(&[LIBRARY_DELETED, VERSION]);
                out.id(id.to_bytes());
                out.i64(at.micros());
            }
            Self::LibraryDeleted { id, at, was: Some(was) } => {
                let alone = was.generations.is_empty();
                let version = if alone { DELETED_VERSION } else { DELETED_GENERATIONS_VERSION };
                out.raw(&[LIBRARY_DELETED, version]);
                out.id(id.to_bytes());
                out.i64(at.micros());
                was.write(&mut out);
            }
            Self::IndexChanged { id, at, index } => {
                out.raw(&[INDEX_CHANGED, VERSION]);
                out.id(id.to_bytes());
                out.i64(at.micros());
                write_index(&mut out, *index);
            }
            Self::IndexBuilt { id, at, built } => {
                out.raw(&[INDEX_BUILT, VERSION]);
                out.id(id.to_bytes());
                out.i64(at.micros());
                built.write(&mut out);
            }
            Self::GenerationPrepared { .. }
            | Self::GenerationActivated { .. }
            | Self::GenerationDiscarded { .. } => self.write_generation(&mut out),
            Self::Purged { at } => {
                out.raw(&[PURGED, VERSION]);
                out.i64(at.micros());
            }
        }
        Bytes::from(out.into_bytes())
    }

    /// Reads an entry of the catalog's stream.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(bytes);
        let kind = from.u8("entry kind")?;
        let version = from.u8("entry version")?;
        let entry = match (kind, version) {
            (LIBRARY_CREATED, 1..=LANGUAGE_SPEC_VERSION) => {
                Self::LibraryCreated(read_spec(&mut from, version)?)
            }
            (LIBRARY_UPDATED, VERSION | UPDATED_LANGUAGE_VERSION) => Self::LibraryUpdated {
                id: LibraryId::new(from.uuid("library id")?),
                at: Timestamp::from_micros(from.i64("time")?),
                name: from.text("name")?.to_owned(),
                description: from.text_option("description")?.map(str::to_owned),
                language: match version {
                    UPDATED_LANGUAGE_VERSION => Some(read_language(&mut from)?),
                    _ => None,
                },
            },
            (LIBRARY_DELETED, 1..=DELETED_GENERATIONS_VERSION) => Self::LibraryDeleted {
                id: LibraryId::new(from.uuid("library id")?),
                at: Timestamp::from_micros(from.i64("time")?),
                was: match version {
                    1 => None,
                    version => Some(DeletedLibrary::read(&mut from, version)?),
                },
            },
            (INDEX_CHANGED, VERSION) => Self::IndexChanged {
                id: LibraryId::new(from.uuid("library id")?),
                at: Timestamp::from_micros(from.i64("time")?),
                index: read_index(&mut from)?,
            },
            (INDEX_BUILT, VERSION) => Self::IndexBuilt {
                id: LibraryId::new(from.uuid("library id")?),
                at: Timestamp::from_micros(from.i64("time")?),
                built: IndexBuilt::read(&mut from)?,
            },
            (GENERATION_PREPARED..=GENERATION_DISCARDED, VERSION) => {
                Self::read_generation(&mut from, kind)?
            }
            (PURGED, VERSION) => Self::Purged { at: Timestamp::from_micros(from.i64("time")?) },
            _ => return Err(from.error("a catalog entry of a kind this build knows")),
        };
        from.end()?;
        Ok(entry)
    }
}

impl CatalogEntry {
    /// An entry about a generation: `id 16 | i64 at | id 16 generation`, and what is behind that.
    fn write_generation(&self, out: &mut Writer) {
        let mut head = |kind: u8, id: &LibraryId, at: &Timestamp, generation: &LibraryId| {
            out.raw(&[kind, VERSION]);
            out.id(id.to_bytes());
            out.i64(at.micros());
            out.id(generation.to_bytes());
        };
        match self {
            Self::GenerationPrepared { id, at, generation } => {
                head(GENERATION_PREPARED, id, at, generation);
            }
            Self::GenerationDiscarded { id, at, generation } => {
                head(GENERATION_DISCARDED, id, at, generation);
            }
            Self::GenerationActivated { id, at, generation, model, dimension } => {
                head(GENERATION_ACTIVATED, id, at, generation);
                out.text(&model.provider);
                out.text(&model.model);
                out.u32(*dimension);
            }
            Self::LibraryCreated(_)
            | Self::LibraryUpdated { .. }
            | Self::LibraryDeleted { .. }
            | Self::IndexChanged { .. }
            | Self::IndexBuilt { .. }
            | Self::Purged { .. } => {}
        }
    }

    fn read_generation(from: &mut Reader<'_>, kind: u8) -> Result<Self, DecodeError> {
        let id = LibraryId::new(from.uuid("library id")?);
        let at = Timestamp::from_micros(from.i64("time")?);
        let generation = LibraryId::new(from.uuid("generation")?);
        Ok(match kind {
            GENERATION_PREPARED => Self::GenerationPrepared { id, at, generation },
            GENERATION_DISCARDED => Self::GenerationDiscarded { id, at, generation },
            _activated => {
                let provider = from.text("provider")?.to_owned();
                let model = ModelName { provider, model: from.text("model")?.to_owned() };
                let dimension = read_dimension(from)?;
                Self::GenerationActivated { id, at, generation, model, dimension }
            }
        })
    }
}

impl DeletedLibrary {
    fn write(&self, out: &mut Writer) {
        out.u64(self.tenant.number());
        out.text(&self.name);
        if self.generations.is_empty() {
            return;
        }
        out.count(self.generations.len());
        for (seq, generation) in &self.generations {
            out.u64(seq.get());
            out.id(generation.to_bytes());
        }
    }

    fn read(from: &mut Reader<'_>, version: u8) -> Result<Self, DecodeError> {
        let tenant = TenantId::new(from.u64("tenant")?);
        let name = from.text("name")?.to_owned();
        let mut generations: Vec<(Seq, LibraryId)> = Vec::new();
        if version >= DELETED_GENERATIONS_VERSION {
            for _generation in 0..from.count(24, "generations")? {
                let seq = Seq::new(from.u64("switch")?);
                generations.push((seq, LibraryId::new(from.uuid("generation")?)));
            }
            let ascend = generations.is_sorted_by(|one, next| one.0 < next.0);
            if generations.first().map(|(seq, _id)| *seq) != Some(Seq::START) || !ascend {
                return Err(from.error("generations from the first on"));
            }
        }
        Ok(Self { tenant, name, generations })
    }
}

impl IndexBuilt {
    fn write(&self, out: &mut Writer) {
        out.u8(u8::from(self.work == IndexWork::Optimize));
        write_index(out, self.old);
        write_index(out, self.new);
        out.u64(self.vectors);
        out.u64(self.compacted);
        out.u64(self.freed_bytes);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let optimized = from.flag("work on an index")?;
        let work = if optimized { IndexWork::Optimize } else { IndexWork::Rebuild };
        Ok(Self {
            work,
            old: read_index(from)?,
            new: read_index(from)?,
            vectors: from.u64("vectors")?,
            compacted: from.u64("compacted vectors")?,
            freed_bytes: from.u64("freed bytes")?,
        })
    }
}

impl LibraryEntry {
    /// When the change was made.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::DocumentsPut { at, .. }
            | Self::DocumentsDeleted { at, .. }
            | Self::FieldChanged { at, .. }
            | Self::Batch { at, .. } => *at,
            Self::QueriesMatched(matched) => matched.at,
        }
    }

    /// The dimension of the vectors in it, if there are any.
    pub fn dimension(&self) -> Option<u32> {
        let Self::DocumentsPut { documents, .. } = self else { return None };
        let first = documents.first()?;
        u32::try_from(first.vectors.len() / first.chunks()).ok()
    }

    /// For which unit of a job an entry was written, from its bytes or the first part of them.
    pub fn unit(bytes: &[u8]) -> Result<Option<JobUnit>, DecodeError> {
        let mut from = Reader::new(bytes);
        let kind = from.u8("entry kind")?;
        let version = from.u8("entry version")?;
        from.i64("time")?;
        match kind {
            DOCUMENTS_PUT | DOCUMENTS_DELETED => documents::read_unit(&mut from, version),
            _ => Ok(None),
        }
    }

    /// The entry's bytes in parts to be written one after the other; bodies and vectors are
    /// shared, not copied. Each of them is a part of its own.
    pub fn encode(&self) -> Vec<Bytes> {
        match self {
            Self::DocumentsPut { at, unit, documents, replaced } => {
                documents::encode_put((*at, *unit), documents, replaced)
            }
            Self::DocumentsDeleted { at, unit, documents } => {
                vec![documents::encode_deleted((*at, *unit), documents)]
            }
            Self::Batch { at, note } => {
                let kind = if note.end.is_some() { BATCH_FINISHED } else { BATCH_STARTED };
                let mut out = Writer::with_capacity(64);
                out.raw(&[kind, VERSION]);
                out.i64(at.micros());
                note.write(&mut out);
                vec![Bytes::from(out.into_bytes())]
            }
            Self::FieldChanged { at, field } => {
                let mut out = Writer::with_capacity(128);
                out.raw(&[FIELD_CHANGED, VERSION]);
                out.i64(at.micros());
                field.write(&mut out);
                vec![Bytes::from(out.into_bytes())]
            }
            Self::QueriesMatched(matched) => {
                let mut out = Writer::with_capacity(64 + matched.matches() * 64);
                out.raw(&[QUERIES_MATCHED, VERSION]);
                out.i64(matched.at.micros());
                matched.write(&mut out);
                vec![Bytes::from(out.into_bytes())]
            }
        }
    }

    /// Reads an entry of a library's stream. Bodies are slices of `bytes`; vectors are copied to
    /// where they are aligned.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(bytes);
        let kind = from.u8("entry kind")?;
        let version = from.u8("entry version")?;
        let at = Timestamp::from_micros(from.i64("time")?);
        let entry = match (kind, version) {
            (DOCUMENTS_PUT, 1..=FIELDS_VERSION) => {
                let heads = documents::read_heads(&mut from, version)?;
                let documents = documents::read_documents(&mut from, &heads, bytes)?;
                Self::DocumentsPut { at, unit: heads.unit, documents, replaced: heads.replaced }
            }
            (DOCUMENTS_DELETED, 1..=DOCUMENTS_VERSION) => {
                let unit = documents::read_unit(&mut from, version)?;
                let documents = documents::read_deleted(&mut from, version)?;
                Self::DocumentsDeleted { at, unit, documents }
            }
            (BATCH_STARTED | BATCH_FINISHED, VERSION) => {
                Self::Batch { at, note: BatchNote::read(&mut from, kind == BATCH_FINISHED)? }
            }
            (FIELD_CHANGED, VERSION) => {
                Self::FieldChanged { at, field: FieldSpec::read(&mut from)? }
            }
            (QUERIES_MATCHED, VERSION) => {
                Self::QueriesMatched(QueriesMatched::read(at, &mut from)?)
            }
            _ => return Err(from.error("a library entry of a kind this build knows")),
        };
        from.end()?;
        Ok(entry)
    }
}
