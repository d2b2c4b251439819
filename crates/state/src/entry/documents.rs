//! The documents of entries: those that are put, with what they replace, and those that are deleted.

use bytes::Bytes;

use super::{DOCUMENTS_DELETED, DOCUMENTS_PUT, DOCUMENTS_VERSION};
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{ChunkId, DocumentId, Timestamp};
use crate::limits::{CHUNKS_PER_DOCUMENT_MAX, DIMENSIONS_MAX};
use crate::record::{DocumentRecord, VectorBytes};
use crate::work::JobUnit;

/// What a document of a put took the place of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// Which document of the entry, from 0.
    pub document: u32,
    /// The chunks of the version that was there; none where its file is damaged.
    pub chunks: Vec<ChunkId>,
}

/// A document that was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedDocument {
    /// Its id.
    pub id: DocumentId,
    /// Its title; unknown where its file is damaged, and in entries of version 1.
    pub title: Option<String>,
    /// Its chunks; none where they are unknown, as the title is.
    pub chunks: Vec<ChunkId>,
}

/// What is known of each document of a put before the documents themselves.
pub(super) struct Heads {
    pub(super) unit: Option<JobUnit>,
    pub(super) dimension: u32,
    pub(super) documents: Vec<Head>,
    pub(super) replaced: Vec<Replaced>,
}

/// What is known of a document of a put before the document itself.
pub(super) struct Head {
    pub(super) id: DocumentId,
    pub(super) body_bytes: usize,
    pub(super) chunks: usize,
}

impl Head {
    /// Bytes of the vectors that follow the body.
    pub(super) fn vector_bytes(&self, dimension: u32) -> usize {
        self.chunks * dimension as usize * 4
    }
}

pub(super) fn encode_put(
    (at, unit): (Timestamp, Option<JobUnit>),
    documents: &[DocumentRecord],
    replaced: &[Replaced],
) -> Vec<Bytes> {
    let dimension = documents.first().map_or(1, |first| first.vectors.len() / first.chunks());
    let mut out = Writer::with_capacity(64 + documents.len() * 24 + replaced.len() * 64);
    out.raw(&[DOCUMENTS_PUT, DOCUMENTS_VERSION]);
    out.i64(at.micros());
    JobUnit::write(unit, &mut out);
    out.count(dimension);
    out.count(documents.len());
    for document in documents {
        out.id(document.id.to_bytes());
        out.count(document.body.len());
        out.count(document.chunks());
    }
    out.count(replaced.len());
    for Replaced { document, chunks } in replaced {
        out.u32(*document);
        write_chunks(&mut out, chunks);
    }
    let mut parts = Vec::with_capacity(1 + 2 * documents.len());
    parts.push(Bytes::from(out.into_bytes()));
    for document in documents {
        parts.push(document.body.clone());
        parts.push(Bytes::from_owner(VectorBytes(document.vectors.clone())));
    }
    parts
}

/// Reads for which job something was done, of a version that says so.
pub(super) fn read_unit(
    from: &mut Reader<'_>,
    version: u8,
) -> Result<Option<JobUnit>, DecodeError> {
    if version < 3 { Ok(None) } else { JobUnit::read(from) }
}

/// Reads what comes before the documents of a put.
pub(super) fn read_heads(from: &mut Reader<'_>, version: u8) -> Result<Heads, DecodeError> {
    let unit = read_unit(from, version)?;
    let dimension = from.u32("dimension")?;
    if !(1..=DIMENSIONS_MAX).contains(&dimension) {
        return Err(from.error("a dimension within its limit"));
    }
    let count = from.count(24, "documents")?;
    let mut documents = Vec::with_capacity(count);
    for _document in 0..count {
        let id = DocumentId::new(from.uuid("document id")?);
        let body_bytes = from.u32("body bytes")? as usize;
        let chunks = from.u32("chunks")? as usize;
        if !(1..=CHUNKS_PER_DOCUMENT_MAX).contains(&chunks) {
            return Err(from.error("a number of chunks within its limit"));
        }
        documents.push(Head { id, body_bytes, chunks });
    }
    let replaced = if version == 1 { Vec::new() } else { read_replaced(from, count)? };
    Ok(Heads { unit, dimension, documents, replaced })
}

fn read_replaced(from: &mut Reader<'_>, documents: usize) -> Result<Vec<Replaced>, DecodeError> {
    let count = from.count(8, "replaced documents")?;
    let mut replaced: Vec<Replaced> = Vec::with_capacity(count);
    for _document in 0..count {
        let document = from.u32("a replaced document")?;
        let ascends = replaced.last().is_none_or(|last| last.document < document);
        if !ascends || document as usize >= documents {
            return Err(from.error("replaced documents in the order of the documents"));
        }
        replaced.push(Replaced { document, chunks: read_chunks(from)? });
    }
    Ok(replaced)
}

/// Reads the documents that follow their heads. Bodies are slices of `bytes`; vectors are copied to
/// where they are aligned.
pub(super) fn read_documents(
    from: &mut Reader<'_>,
    heads: &Heads,
    bytes: &Bytes,
) -> Result<Vec<DocumentRecord>, DecodeError> {
    let mut documents = Vec::with_capacity(heads.documents.len());
    for head in &heads.documents {
        let body = bytes.slice_ref(from.raw(head.body_bytes, "body")?);
        let vectors = from.raw(head.vector_bytes(heads.dimension), "vectors")?;
        let (floats, _none_left) = vectors.as_chunks::<4>();
        let vectors = floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let record = DocumentRecord::from_parts(head.id, body, vectors, heads.dimension)
            .map_err(|_bad_vector| from.error("vectors that can be searched"))?;
        documents.push(record);
    }
    Ok(documents)
}

pub(super) fn encode_deleted(
    (at, unit): (Timestamp, Option<JobUnit>),
    documents: &[DeletedDocument],
) -> Bytes {
    let mut out = Writer::with_capacity(32 + documents.len() * 96);
    out.raw(&[DOCUMENTS_DELETED, DOCUMENTS_VERSION]);
    out.i64(at.micros());
    JobUnit::write(unit, &mut out);
    out.count(documents.len());
    for DeletedDocument { id, title, chunks } in documents {
        out.id(id.to_bytes());
        out.text_option(title.as_deref());
        write_chunks(&mut out, chunks);
    }
    Bytes::from(out.into_bytes())
}

pub(super) fn read_deleted(
    from: &mut Reader<'_>,
    version: u8,
) -> Result<Vec<DeletedDocument>, DecodeError> {
    let count = from.count(if version == 1 { 16 } else { 21 }, "deleted documents")?;
    let read = |_document| {
        let id = DocumentId::new(from.uuid("document id")?);
        if version == 1 {
            return Ok(DeletedDocument { id, title: None, chunks: Vec::new() });
        }
        let title = from.text_option("title")?.map(str::to_owned);
        Ok(DeletedDocument { id, title, chunks: read_chunks(from)? })
    };
    (0..count).map(read).collect()
}

fn write_chunks(out: &mut Writer, chunks: &[ChunkId]) {
    out.count(chunks.len());
    for chunk in chunks {
        out.id(chunk.to_bytes());
    }
}

fn read_chunks(from: &mut Reader<'_>) -> Result<Vec<ChunkId>, DecodeError> {
    let count = from.count(16, "chunks")?;
    if count > CHUNKS_PER_DOCUMENT_MAX {
        return Err(from.error("a number of chunks within its limit"));
    }
    (0..count).map(|_chunk| from.uuid("chunk id").map(ChunkId::new)).collect()
}
