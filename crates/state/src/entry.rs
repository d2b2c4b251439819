//! Entries: the facts that the log holds, and their bytes.
//!
//! An entry is a byte for its kind, a byte for its version, and its fields. A kind's number and
//! the bytes of a version never change; a new shape is a new version.
//!
//! ```text
//! catalog  1 LibraryCreated   v1: spec
//!          2 LibraryUpdated   v1: id 16 | i64 at | text name | text? description
//!          3 LibraryDeleted   v1: id 16 | i64 at
//!          4 Purged           v1: i64 at
//! library 16 DocumentsPut     v1: i64 at | u32 dimension | u32 n
//!                                 n * (id 16 | u32 body bytes | u32 chunks)
//!                                 n * (body | f32 * chunks * dimension)
//!         17 DocumentsDeleted v1: i64 at | u32 n | id 16 * n
//! spec: id 16 | u64 tenant | text name | text? description | i64 created_at | text index
//!       text provider | text model | u32 dimension
//! ```

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{DocumentId, LibraryId, TenantId, Timestamp};
use crate::library::{IndexSpec, LibrarySpec, ModelName};
use crate::limits::{CHUNKS_PER_DOCUMENT_MAX, DIMENSIONS_MAX};
use crate::record::{DocumentRecord, VectorBytes};

const LIBRARY_CREATED: u8 = 1;
const LIBRARY_UPDATED: u8 = 2;
const LIBRARY_DELETED: u8 = 3;
const PURGED: u8 = 4;
const DOCUMENTS_PUT: u8 = 16;
const DOCUMENTS_DELETED: u8 = 17;
const VERSION: u8 = 1;

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
}

impl CatalogEntry {
    /// When the change was made.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::LibraryCreated(spec) => spec.created_at,
            Self::LibraryUpdated { at, .. }
            | Self::LibraryDeleted { at, .. }
            | Self::Purged { at } => *at,
        }
    }

    /// The entry's bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::with_capacity(256);
        match self {
            Self::LibraryCreated(spec) => {
                out.raw(&[LIBRARY_CREATED, VERSION]);
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
            (LIBRARY_CREATED, VERSION) => Self::LibraryCreated(read_spec(&mut from)?),
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
    out.text(spec.index.name());
    out.text(&spec.model.provider);
    out.text(&spec.model.model);
    out.u32(spec.dimension);
}

pub(crate) fn read_spec(from: &mut Reader<'_>) -> Result<LibrarySpec, DecodeError> {
    let id = LibraryId::new(from.uuid("library id")?);
    let tenant = TenantId::new(from.u64("tenant")?);
    let name = from.text("name")?.to_owned();
    let description = from.text_option("description")?.map(str::to_owned);
    let created_at = Timestamp::from_micros(from.i64("creation time")?);
    let index = from.text("index type")?;
    let index =
        IndexSpec::from_name(index).ok_or_else(|| from.error("an index type this build knows"))?;
    let provider = from.text("provider")?.to_owned();
    let model = from.text("model")?.to_owned();
    let dimension = from.u32("dimension")?;
    if !(1..=DIMENSIONS_MAX).contains(&dimension) {
        return Err(from.error("a dimension within its limit"));
    }
    let model = ModelName { provider, model };
    Ok(LibrarySpec { id, tenant, name, description, created_at, index, model, dimension })
}
