//! The stored form of a document without its vectors, version 1, and version 2 of its vectors in a
//! vector field.
//!
//! ```text
//! u8 version = 1 | text title | text? author | text document_type | text? source_url
//! u32 n, text tag * n | text custom (JSON object, empty when there is none) | i64 created_at
//! u32 chunks | u32 offset * chunks (of each chunk, from the start of the body)
//! chunk: id 16 | i64 created_at | u8 has_page, u32 page? | text custom | text text
//! version 2: u8 version = 2 | text field | as version 1 from the title on; of each chunk, which is a
//!            vector of the field: behind its text u32 n, n bytes more of its value
//! ```
//!
//! The table of offsets lets a search hydrate one chunk of a thousand without reading the rest.

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, Writer};
use crate::document::{Chunk, Custom, Document, DocumentMetadata};
use crate::ids::{ChunkId, DocumentId, Timestamp};
use crate::limits::CHUNKS_PER_DOCUMENT_MAX;

const VERSION: u8 = 1;
/// Of the vectors that a document has in a vector field.
const FIELD_VERSION: u8 = 2;

/// Encodes a document without its id and its vectors. O(bytes).
pub(crate) fn encode(metadata: &DocumentMetadata, chunks: &[Chunk]) -> Bytes {
    encode_with(None, metadata, chunks)
}

/// Encodes what a document has in a vector field: a chunk for each vector, with what its value has
/// besides its row. O(bytes).
pub(crate) fn encode_field(
    (field, values): (&str, &[Vec<u8>]),
    metadata: &DocumentMetadata,
    chunks: &[Chunk],
) -> Bytes {
    assert_eq!(values.len(), chunks.len(), "a value for each vector");
    encode_with(Some((field, values)), metadata, chunks)
}

fn encode_with(
    of_field: Option<(&str, &[Vec<u8>])>,
    metadata: &DocumentMetadata,
    chunks: &[Chunk],
) -> Bytes {
    let text_bytes: usize = chunks.iter().map(|chunk| chunk.text.len()).sum();
    let mut out = Writer::with_capacity(256 + text_bytes + chunks.len() * 64);
    match of_field {
        None => out.u8(VERSION),
        Some((field, _values)) => {
            out.u8(FIELD_VERSION);
            out.text(field);
        }
    }
    out.text(&metadata.title);
    out.text_option(metadata.author.as_deref());
    out.text(&metadata.document_type);
    out.text_option(metadata.source_url.as_deref());
    out.count(metadata.tags.len());
    for tag in &metadata.tags {
        out.text(tag);
    }
    custom(&mut out, &metadata.custom);
    out.i64(metadata.created_at.micros());
    out.count(chunks.len());
    let table = out.len();
    for _chunk in chunks {
        out.u32(0);
    }
    for (index, chunk) in chunks.iter().enumerate() {
        let offset = u32::try_from(out.len()).unwrap_or(u32::MAX);
        out.u32_at(table + 4 * index, offset);
        out.id(chunk.id.to_bytes());
        out.i64(chunk.created_at.micros());
        out.u8(u8::from(chunk.page_number.is_some()));
        if let Some(page) = chunk.page_number {
            out.u32(page);
        }
        custom(&mut out, &chunk.custom);
        out.text(&chunk.text);
        if let Some((_field, values)) = of_field {
            out.count(values[index].len());
            out.raw(&values[index]);
        }
    }
    Bytes::from(out.into_bytes())
}

fn custom(out: &mut Writer, custom: &Custom) {
    if custom.is_empty() {
        out.text("");
    } else {
        out.text(&serde_json::Value::Object(custom.clone()).to_string());
    }
}

fn read_custom(from: &mut Reader<'_>) -> Result<Custom, DecodeError> {
    let text = from.text("custom metadata")?;
    if text.is_empty() {
        return Ok(Custom::new());
    }
    serde_json::from_str(text).map_err(|_not_json| from.error("custom metadata as JSON"))
}

/// Reads up to the title; whether it is what a document has in a vector field.
fn read_version(from: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match from.u8("body version")? {
        VERSION => Ok(false),
        FIELD_VERSION => {
            from.text("vector field")?;
            Ok(true)
        }
        _ => Err(from.error("a body of a version this build knows")),
    }
}

/// A stored document's title and the ids of its chunks, without reading the rest.
pub(crate) fn outline(bytes: &[u8]) -> Result<(String, Vec<ChunkId>), DecodeError> {
    let mut from = Reader::new(bytes);
    read_version(&mut from)?;
    let title = from.text("title")?.to_owned();
    from.text_option("author")?;
    from.text("document type")?;
    from.text_option("source url")?;
    for _tag in 0..from.count(4, "tags")? {
        from.text("tag")?;
    }
    from.text("custom metadata")?;
    from.i64("creation time")?;
    let count = from.count(4, "chunks")?;
    if count > CHUNKS_PER_DOCUMENT_MAX {
        return Err(from.error("a number of chunks within its limit"));
    }
    let chunks = (0..count).map(|_chunk| {
        let offset = from.u32("chunk offset")? as usize;
        Reader::at(bytes, offset).uuid("chunk id").map(ChunkId::new)
    });
    let chunks = chunks.collect::<Result<_, DecodeError>>()?;
    Ok((title, chunks))
}

/// A stored document whose fixed part has been read.
#[derive(Debug)]
pub(crate) struct BodyReader<'a> {
    bytes: &'a [u8],
    metadata: DocumentMetadata,
    table: usize,
    chunks: usize,
    /// Whether chunks are vectors of a field, with more of their values.
    of_field: bool,
}

impl<'a> BodyReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(bytes);
        let of_field = read_version(&mut from)?;
        let title = from.text("title")?.to_owned();
        let author = from.text_option("author")?.map(str::to_owned);
        let document_type = from.text("document type")?.to_owned();
        let source_url = from.text_option("source url")?.map(str::to_owned);
        let tag_count = from.count(4, "tags")?;
        let tags = (0..tag_count)
            .map(|_tag| from.text("tag").map(str::to_owned))
            .collect::<Result<_, _>>()?;
        let custom = read_custom(&mut from)?;
        let created_at = Timestamp::from_micros(from.i64("creation time")?);
        let chunks = from.count(4, "chunks")?;
        if chunks > CHUNKS_PER_DOCUMENT_MAX {
            return Err(from.error("a number of chunks within its limit"));
        }
        let metadata =
            DocumentMetadata { title, author, document_type, source_url, tags, custom, created_at };
        Ok(Self { bytes, metadata, table: from.offset(), chunks, of_field })
    }

    /// What belongs to the document as a whole.
    pub(crate) fn into_metadata(self) -> DocumentMetadata {
        self.metadata
    }

    /// The same, while chunks are still to be read.
    pub(crate) fn metadata(&self) -> &DocumentMetadata {
        &self.metadata
    }

    /// The chunk at `index`, refused where there is none; its embedding is left empty.
    pub(crate) fn chunk(&self, index: usize) -> Result<Chunk, DecodeError> {
        if index >= self.chunks {
            return Err(DecodeError { what: "a chunk for each row", offset: self.table });
        }
        Ok(self.chunk_from(self.chunk_offset(index)?)?.0)
    }

    /// What the value of the vector at `index` has besides its row; nothing of a chunk.
    pub(crate) fn value(&self, index: usize) -> Result<&'a [u8], DecodeError> {
        if index >= self.chunks {
            return Err(DecodeError { what: "a vector for each row", offset: self.table });
        }
        Ok(self.chunk_from(self.chunk_offset(index)?)?.1)
    }

    fn chunk_offset(&self, index: usize) -> Result<usize, DecodeError> {
        Ok(Reader::at(self.bytes, self.table + 4 * index).u32("chunk offset")? as usize)
    }

    /// The chunk that begins here, what its value has besides its row, and where it ends.
    fn chunk_from(&self, offset: usize) -> Result<(Chunk, &'a [u8], usize), DecodeError> {
        let mut from = Reader::at(self.bytes, offset);
        let id = ChunkId::new(from.uuid("chunk id")?);
        let created_at = Timestamp::from_micros(from.i64("chunk creation time")?);
        let page_number = if from.flag("page")? { Some(from.u32("page number")?) } else { None };
        let custom = read_custom(&mut from)?;
        let text = from.text("chunk text")?.to_owned();
        let mut value: &[u8] = &[];
        if self.of_field {
            let len = from.count(1, "bytes of a vector")?;
            value = from.raw(len, "a vector")?;
        }
        let chunk = Chunk { id, text, embedding: Vec::new(), created_at, page_number, custom };
        Ok((chunk, value, from.offset()))
    }

    /// The whole document, its embeddings left empty.
    pub(crate) fn document(self, id: DocumentId) -> Result<Document, DecodeError> {
        let mut chunks = Vec::with_capacity(self.chunks);
        let mut next = self.table + 4 * self.chunks;
        for index in 0..self.chunks {
            // One after the other: chunks that share bytes would take more memory than they have.
            if self.chunk_offset(index)? != next {
                return Err(DecodeError { what: "a chunk behind the one before it", offset: next });
            }
            let (chunk, _value, end) = self.chunk_from(next)?;
            chunks.push(chunk);
            next = end;
        }
        if next != self.bytes.len() {
            return Err(DecodeError { what: "nothing more was expected", offset: next });
        }
        Ok(Document { id, metadata: self.metadata, chunks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Document {
        let chunk = |n: u8| Chunk {
            id: ChunkId::from_bytes([n; 16]),
            text: format!("passage {n} \u{1F980}"),
            embedding: Vec::new(),
            created_at: Timestamp::from_micros(i64::from(n)),
            page_number: (n == 2).then_some(7),
            custom: Custom::new(),
        };
        let mut custom = Custom::new();
        custom.insert("section".into(), serde_json::json!({"depth": [1, 2.5, null]}));
        Document {
            id: DocumentId::from_bytes([9; 16]),
            metadata: DocumentMetadata {
                title: "A title".into(),
                author: Some("Ada".into()),
                document_type: "text".into(),
                source_url: None,
                tags: vec!["a".into(), String::new()],
                custom,
                created_at: Timestamp::from_micros(-5),
            },
            chunks: vec![chunk(1), chunk(2)],
        }
    }

    #[test]
    fn a_body_reads_as_it_was_written() {
        let document = sample();
        let bytes = encode(&document.metadata, &document.chunks);
        let reader = BodyReader::new(&bytes).unwrap();
        assert_eq!(reader.chunk(1).unwrap(), document.chunks[1]);
        assert_eq!(reader.document(document.id).unwrap(), document);
    }

    #[test]
    fn a_chunk_beyond_the_last_is_an_error_and_never_a_panic() {
        let document = sample();
        let bytes = encode(&document.metadata, &document.chunks);
        assert!(BodyReader::new(&bytes).unwrap().chunk(2).is_err());
    }

    #[test]
    fn a_cut_body_is_an_error_and_never_a_panic() {
        let document = sample();
        let bytes = encode(&document.metadata, &document.chunks);
        for len in 0..bytes.len() {
            let whole = BodyReader::new(&bytes[..len]).and_then(|body| body.document(document.id));
            assert!(whole.is_err(), "{len}");
        }
    }
}
