//! The documents of entries: those that are put, with what they replace, and those that are deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::{DOCUMENTS_DELETED, DOCUMENTS_PUT, DOCUMENTS_VERSION, FIELDS_VERSION};
use crate::codec::{DecodeError, Reader, Writer};
use crate::field::FieldSpec;
use crate::ids::{ChunkId, DocumentId, Timestamp};
use crate::limits::{CHUNKS_PER_DOCUMENT_MAX, DIMENSIONS_MAX, VECTOR_FIELDS_MAX};
use crate::record::{DocumentRecord, FieldRecord, VectorBytes};
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
    /// What they have in vector fields, which is behind them.
    fields: Vec<FieldHeads>,
}

/// What is known of a vector field's part of a put before the vectors themselves.
struct FieldHeads {
    spec: Arc<FieldSpec>,
    /// Each with its document's place in the put.
    documents: Vec<(usize, Head)>,
}

/// What is known of a document of a put before the document itself.
pub(super) struct Head {
    pub(super) id: DocumentId,
    pub(super) body_bytes: usize,
    pub(super) chunks: usize,
}

impl Head {
    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let id = DocumentId::new(from.uuid("document id")?);
        let body_bytes = from.u32("body bytes")? as usize;
        let chunks = from.u32("chunks")? as usize;
        if !(1..=CHUNKS_PER_DOCUMENT_MAX).contains(&chunks) {
            return Err(from.error("a number of chunks within its limit"));
        }
        Ok(Self { id, body_bytes, chunks })
    }

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
    let fields = by_field(documents);
    let mut out = Writer::with_capacity(64 + documents.len() * 24 + replaced.len() * 64);
    out.raw(&[DOCUMENTS_PUT, if fields.is_empty() { DOCUMENTS_VERSION } else { FIELDS_VERSION }]);
    out.i64(at.micros());
    JobUnit::write(unit, &mut out);
    out.count(dimension);
    out.count(documents.len());
    for document in documents {
        write_head(&mut out, document);
    }
    out.count(replaced.len());
    for Replaced { document, chunks } in replaced {
        out.u32(*document);
        write_chunks(&mut out, chunks);
    }
    if !fields.is_empty() {
        write_field_heads(&mut out, &fields);
    }
    let of_fields = fields.values().flat_map(|(_spec, documents)| documents.iter());
    let of_fields = of_fields.map(|(_place, document)| *document);
    let mut parts = Vec::with_capacity(1 + 2 * documents.len());
    parts.push(Bytes::from(out.into_bytes()));
    for document in documents.iter().chain(of_fields) {
        parts.push(document.body.clone());
        parts.push(Bytes::from_owner(VectorBytes(document.vectors.clone())));
    }
    parts
}

/// What documents have in a field: its spec, and their records with their places in the put.
type InField<'a> = (&'a Arc<FieldSpec>, Vec<(usize, &'a DocumentRecord)>);

/// What documents have in vector fields, field by field.
pub(crate) fn by_field(documents: &[DocumentRecord]) -> BTreeMap<&str, InField<'_>> {
    let mut fields: BTreeMap<&str, InField<'_>> = BTreeMap::new();
    for (place, document) in documents.iter().enumerate() {
        for FieldRecord { spec, record } in &*document.fields {
            let (_spec, records) = fields.entry(&spec.name).or_insert((spec, Vec::new()));
            records.push((place, record));
        }
    }
    fields
}

fn write_head(out: &mut Writer, document: &DocumentRecord) {
    out.id(document.id.to_bytes());
    out.count(document.body.len());
    out.count(document.chunks());
}

fn write_field_heads(out: &mut Writer, fields: &BTreeMap<&str, InField<'_>>) {
    out.count(fields.len());
    for (spec, documents) in fields.values() {
        spec.write(out);
        out.count(documents.len());
        for (place, document) in documents {
            out.count(*place);
            write_head(out, document);
        }
    }
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
        documents.push(Head::read(from)?);
    }
    let replaced = if version == 1 { Vec::new() } else { read_replaced(from, count)? };
    let fields =
        if version < FIELDS_VERSION { Vec::new() } else { read_field_heads(from, &documents)? };
    Ok(Heads { unit, dimension, documents, replaced, fields })
}

fn read_field_heads(
    from: &mut Reader<'_>,
    documents: &[Head],
) -> Result<Vec<FieldHeads>, DecodeError> {
    let count = from.count(40, "vector fields")?;
    if !(1..=VECTOR_FIELDS_MAX).contains(&count) {
        return Err(from.error("a number of vector fields within its limit"));
    }
    let mut fields: Vec<FieldHeads> = Vec::with_capacity(count);
    for _field in 0..count {
        let spec = Arc::new(FieldSpec::read(from)?);
        if fields.last().is_some_and(|last| last.spec.name >= spec.name) {
            return Err(from.error("vector fields in the order of their names"));
        }
        let mut heads: Vec<(usize, Head)> = Vec::new();
        for _document in 0..from.count(28, "documents of a vector field")? {
            let place = from.u32("a document's place")? as usize;
            let head = Head::read(from)?;
            let ascends = heads.last().is_none_or(|(last, _head)| *last < place);
            if !ascends || documents.get(place).is_none_or(|document| document.id != head.id) {
                return Err(from.error("documents of a vector field in the order of the put"));
            }
            heads.push((place, head));
        }
        if heads.is_empty() {
            return Err(from.error("a document with a vector in the field"));
        }
        fields.push(FieldHeads { spec, documents: heads });
    }
    Ok(fields)
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
        documents.push(read_document(from, head, heads.dimension, bytes)?);
    }
    let mut fields: Vec<Vec<FieldRecord>> = documents.iter().map(|_document| Vec::new()).collect();
    for field in &heads.fields {
        for (place, head) in &field.documents {
            let record = read_document(from, head, field.spec.dimension, bytes)?;
            fields[*place].push(FieldRecord { spec: field.spec.clone(), record });
        }
    }
    for (document, fields) in documents.iter_mut().zip(fields) {
        document.fields = fields.into();
    }
    Ok(documents)
}

fn read_document(
    from: &mut Reader<'_>,
    head: &Head,
    dimension: u32,
    bytes: &Bytes,
) -> Result<DocumentRecord, DecodeError> {
    let body = bytes.slice_ref(from.raw(head.body_bytes, "body")?);
    let vectors = from.raw(head.vector_bytes(dimension), "vectors")?;
    let (floats, _none_left) = vectors.as_chunks::<4>();
    let vectors = floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    DocumentRecord::from_parts(head.id, body, vectors, dimension)
        .map_err(|_bad_vector| from.error("vectors that can be searched"))
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
