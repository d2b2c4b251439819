//! Entries: the facts that the log holds, and their bytes.
//!
//! An entry is a byte for its kind, a byte for its version, and its fields. A kind's number and
//! the bytes of a version never change; a new shape is a new version.
//!
//! ```text
//! catalog  1 LibraryCreated   v1: spec without index and metric, which are brute_force and cosine
//!                             v2, v3: spec
//!          2 LibraryUpdated   v1: id 16 | i64 at | text name | text? description
//!          3 LibraryDeleted   v1: id 16 | i64 at
//!          4 Purged           v1: i64 at
//!          5 IndexChanged     v1: id 16 | i64 at | index
//! library 16 DocumentsPut     v1: i64 at | u32 dimension | u32 n
//!                                 n * (id 16 | u32 body bytes | u32 chunks)
//!                                 n * (body | f32 * chunks * dimension)
//!         17 DocumentsDeleted v1: i64 at | u32 n | id 16 * n
//!         20 QueriesMatched   v1: i64 at | id 16 library | through
//!                                 u32 n, n * (id 16 query | text name)
//!                                 u32 n, n * (u64 seq | id 16 document | id 16 chunk | u32 index
//!                                             text passage | u32 m, m * (u32 query | f32 distance))
//! through: u64 seq | u32 chunk | id 16 query
//! spec: id 16 | u64 tenant | text name | text? description | i64 created_at
//!       v1: text "brute_force" | text provider | text model | u32 dimension
//!       v2: text provider | text model | u32 dimension | text metric | index
//!       v3: as v2, then u8 is_companion, id 16 of the library it belongs to?
//! index: text type | u32 n, n * (text parameter | u64 value)
//!        text quantisation | u32 n, n * (text parameter | u64 value)
//! ```

use arrwdb_index::{IndexSpec, Metric, Quantization, Structure};
use bytes::Bytes;

use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{DocumentId, LibraryId, TenantId, Timestamp};
use crate::library::{LibrarySpec, ModelName};
use crate::limits::{CHUNKS_PER_DOCUMENT_MAX, DIMENSIONS_MAX};
use crate::matched::QueriesMatched;
use crate::record::{DocumentRecord, VectorBytes};

const LIBRARY_CREATED: u8 = 1;
const LIBRARY_UPDATED: u8 = 2;
const LIBRARY_DELETED: u8 = 3;
const PURGED: u8 = 4;
const INDEX_CHANGED: u8 = 5;
const DOCUMENTS_PUT: u8 = 16;
const DOCUMENTS_DELETED: u8 = 17;
const QUERIES_MATCHED: u8 = 20;
const VERSION: u8 = 1;
/// The version of a library's spec that is written: 1 had neither index nor metric, 2 knew no
/// companions.
pub(crate) const SPEC_VERSION: u8 = 3;

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
    },
    /// A library and all it holds is gone; later records of it mean nothing.
    LibraryDeleted {
        /// Which library.
        id: LibraryId,
        /// When.
        at: Timestamp,
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
    /// What was deleted before is removed from the files for good; the log before this is not kept.
    Purged {
        /// When it was asked for.
        at: Timestamp,
    },
}

/// A change of one library.
#[derive(Debug, Clone)]
pub enum LibraryEntry {
    /// Documents were added, or replaced where their id existed. No id occurs twice.
    DocumentsPut {
        /// When.
        at: Timestamp,
        /// The documents.
        documents: Vec<DocumentRecord>,
    },
    /// Documents were deleted. Every one existed, and none occurs twice.
    DocumentsDeleted {
        /// When.
        at: Timestamp,
        /// The documents.
        ids: Vec<DocumentId>,
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
            | Self::Purged { at } => *at,
        }
    }

    /// The entry's bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::with_capacity(256);
        match self {
            Self::LibraryCreated(spec) => {
                out.raw(&[LIBRARY_CREATED, SPEC_VERSION]);
                write_spec(&mut out, spec);
            }
            Self::LibraryUpdated { id, at, name, description } => {
                out.raw(&[LIBRARY_UPDATED, VERSION]);
                out.id(id.to_bytes());
                out.i64(at.micros());
                out.text(name);
                out.text_option(description.as_deref());
            }
            Self::LibraryDeleted { id, at } => {
                out.raw(&[LIBRARY_DELETED, VERSION]);
                out.id(id.to_bytes());
                out.i64(at.micros());
            }
            Self::IndexChanged { id, at, index } => {
                out.raw(&[INDEX_CHANGED, VERSION]);
                out.id(id.to_bytes());
                out.i64(at.micros());
                write_index(&mut out, *index);
            }
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
            (LIBRARY_CREATED, 1..=SPEC_VERSION) => {
                Self::LibraryCreated(read_spec(&mut from, version)?)
            }
            (LIBRARY_UPDATED, VERSION) => Self::LibraryUpdated {
                id: LibraryId::new(from.uuid("library id")?),
                at: Timestamp::from_micros(from.i64("time")?),
                name: from.text("name")?.to_owned(),
                description: from.text_option("description")?.map(str::to_owned),
            },
            (LIBRARY_DELETED, VERSION) => Self::LibraryDeleted {
                id: LibraryId::new(from.uuid("library id")?),
                at: Timestamp::from_micros(from.i64("time")?),
            },
            (INDEX_CHANGED, VERSION) => Self::IndexChanged {
                id: LibraryId::new(from.uuid("library id")?),
                at: Timestamp::from_micros(from.i64("time")?),
                index: read_index(&mut from)?,
            },
            (PURGED, VERSION) => Self::Purged { at: Timestamp::from_micros(from.i64("time")?) },
            _ => return Err(from.error("a catalog entry of a kind this build knows")),
        };
        from.end()?;
        Ok(entry)
    }
}

impl LibraryEntry {
    /// When the change was made.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::DocumentsPut { at, .. } | Self::DocumentsDeleted { at, .. } => *at,
            Self::QueriesMatched(matched) => matched.at,
        }
    }

    /// The dimension of the vectors in it, if there are any.
    pub fn dimension(&self) -> Option<u32> {
        let Self::DocumentsPut { documents, .. } = self else { return None };
        let first = documents.first()?;
        u32::try_from(first.vectors.len() / first.chunks()).ok()
    }

    /// The entry's bytes in parts to be written one after the other; bodies and vectors are
    /// shared, not copied.
    pub fn encode(&self) -> Vec<Bytes> {
        match self {
            Self::DocumentsPut { at, documents } => encode_put(*at, documents),
            Self::DocumentsDeleted { at, ids } => {
                let mut out = Writer::with_capacity(16 + ids.len() * 16);
                out.raw(&[DOCUMENTS_DELETED, VERSION]);
                out.i64(at.micros());
                out.count(ids.len());
                for id in ids {
                    out.id(id.to_bytes());
                }
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
            (DOCUMENTS_PUT, VERSION) => {
                Self::DocumentsPut { at, documents: decode_put(&mut from, bytes)? }
            }
            (DOCUMENTS_DELETED, VERSION) => {
                let count = from.count(16, "deleted documents")?;
                let ids = (0..count)
                    .map(|_id| from.uuid("document id").map(DocumentId::new))
                    .collect::<Result<_, _>>()?;
                Self::DocumentsDeleted { at, ids }
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

fn encode_put(at: Timestamp, documents: &[DocumentRecord]) -> Vec<Bytes> {
    let dimension = documents.first().map_or(1, |first| first.vectors.len() / first.chunks());
    let mut out = Writer::with_capacity(32 + documents.len() * 24);
    out.raw(&[DOCUMENTS_PUT, VERSION]);
    out.i64(at.micros());
    out.count(dimension);
    out.count(documents.len());
    for document in documents {
        out.id(document.id.to_bytes());
        out.count(document.body.len());
        out.count(document.chunks());
    }
    let mut parts = Vec::with_capacity(1 + 2 * documents.len());
    parts.push(Bytes::from(out.into_bytes()));
    for document in documents {
        parts.push(document.body.clone());
        parts.push(Bytes::from_owner(VectorBytes(document.vectors.clone())));
    }
    parts
}

fn decode_put(from: &mut Reader<'_>, bytes: &Bytes) -> Result<Vec<DocumentRecord>, DecodeError> {
    let dimension = from.u32("dimension")?;
    if !(1..=DIMENSIONS_MAX).contains(&dimension) {
        return Err(from.error("a dimension within its limit"));
    }
    let count = from.count(24, "documents")?;
    let mut heads = Vec::with_capacity(count);
    for _document in 0..count {
        let id = DocumentId::new(from.uuid("document id")?);
        let body_bytes = from.u32("body bytes")? as usize;
        let chunks = from.u32("chunks")? as usize;
        if !(1..=CHUNKS_PER_DOCUMENT_MAX).contains(&chunks) {
            return Err(from.error("a number of chunks within its limit"));
        }
        heads.push((id, body_bytes, chunks));
    }
    let mut documents = Vec::with_capacity(count);
    for (id, body_bytes, chunks) in heads {
        let body = bytes.slice_ref(from.raw(body_bytes, "body")?);
        let vectors = from.raw(chunks * dimension as usize * 4, "vectors")?;
        let (floats, _none_left) = vectors.as_chunks::<4>();
        let vectors = floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let record = DocumentRecord::from_parts(id, body, vectors, dimension)
            .map_err(|_bad_vector| from.error("vectors that can be searched"))?;
        documents.push(record);
    }
    Ok(documents)
}

pub(crate) fn write_spec(out: &mut Writer, spec: &LibrarySpec) {
    out.id(spec.id.to_bytes());
    out.u64(spec.tenant.number());
    out.text(&spec.name);
    out.text_option(spec.description.as_deref());
    out.i64(spec.created_at.micros());
    out.text(&spec.model.provider);
    out.text(&spec.model.model);
    out.u32(spec.dimension);
    out.text(spec.metric.name());
    write_index(out, spec.index);
    out.u8(u8::from(spec.companion_of.is_some()));
    if let Some(of) = spec.companion_of {
        out.id(of.to_bytes());
    }
}

/// Reads a spec of a version up to [`SPEC_VERSION`].
pub(crate) fn read_spec(from: &mut Reader<'_>, version: u8) -> Result<LibrarySpec, DecodeError> {
    let id = LibraryId::new(from.uuid("library id")?);
    let tenant = TenantId::new(from.u64("tenant")?);
    let name = from.text("name")?.to_owned();
    let description = from.text_option("description")?.map(str::to_owned);
    let created_at = Timestamp::from_micros(from.i64("creation time")?);
    if version == 1 && from.text("index type")? != "brute_force" {
        return Err(from.error("the only index type of version 1"));
    }
    let provider = from.text("provider")?.to_owned();
    let model = from.text("model")?.to_owned();
    let dimension = from.u32("dimension")?;
    if !(1..=DIMENSIONS_MAX).contains(&dimension) {
        return Err(from.error("a dimension within its limit"));
    }
    let (metric, index) = if version == 1 {
        (Metric::Cosine, IndexSpec::default())
    } else {
        let (metric, index) = (read_metric(from)?, read_index(from)?);
        index
            .check_dimension(dimension as usize)
            .map_err(|_apart| from.error("an index that the dimension can have"))?;
        (metric, index)
    };
    let companion_of = if version >= 3 && from.flag("companion")? {
        Some(LibraryId::new(from.uuid("library id")?))
    } else {
        None
    };
    if companion_of.is_some_and(|of| of.companion() != id) {
        return Err(from.error("the id of a companion"));
    }
    Ok(LibrarySpec {
        id,
        tenant,
        name,
        description,
        created_at,
        index,
        metric,
        model: ModelName { provider, model },
        dimension,
        companion_of,
    })
}

pub(crate) fn read_metric(from: &mut Reader<'_>) -> Result<Metric, DecodeError> {
    let name = from.text("metric")?;
    Metric::from_name(name).ok_or_else(|| from.error("a metric this build knows"))
}

pub(crate) fn write_index(out: &mut Writer, index: IndexSpec) {
    let mut part = |name: &str, parameters: &[(&'static str, u64)]| {
        out.text(name);
        out.count(parameters.len());
        for (name, value) in parameters {
            out.text(name);
            out.u64(*value);
        }
    };
    part(index.structure.type_name(), &index.structure.parameters());
    part(index.quantization.strategy(), &index.quantization.parameters());
}

pub(crate) fn read_index(from: &mut Reader<'_>) -> Result<IndexSpec, DecodeError> {
    let (name, parameters) = read_parameters(from)?;
    let structure = Structure::new(name, &parameters)
        .map_err(|_unknown| from.error("an index this build knows"))?;
    let (name, parameters) = read_parameters(from)?;
    let quantization = Quantization::new(name, &parameters)
        .map_err(|_unknown| from.error("a quantisation this build knows"))?;
    IndexSpec::new(structure, quantization)
        .map_err(|_apart| from.error("an index and a quantisation that go together"))
}

/// A name, and parameters with their numbers.
type Named<'a> = (&'a str, Vec<(&'a str, u64)>);

fn read_parameters<'a>(from: &mut Reader<'a>) -> Result<Named<'a>, DecodeError> {
    let name = from.text("name")?;
    let count = from.count(12, "parameters")?;
    let parameters = (0..count)
        .map(|_parameter| Ok((from.text("parameter")?, from.u64("value")?)))
        .collect::<Result<_, DecodeError>>()?;
    Ok((name, parameters))
}
