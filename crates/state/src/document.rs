//! Documents and chunks as users know them, and the limits a document must keep.

use serde_json::{Map, Value};

use crate::ids::{ChunkId, DocumentId, Timestamp};

/// Custom metadata: keys of the caller's choosing, filterable and returned as given.
pub type Custom = Map<String, Value>;

/// What belongs to a document as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentMetadata {
    /// Title, 1 to [`crate::limits::TITLE_CHARS_MAX`] characters.
    pub title: String,
    /// Author, where known.
    pub author: Option<String>,
    /// Kind of document; `text` unless said otherwise.
    pub document_type: String,
    /// Where it came from.
    pub source_url: Option<String>,
    /// Tags in the caller's order.
    pub tags: Vec<String>,
    /// Custom metadata.
    pub custom: Custom,
    /// When this version of the document was added.
    pub created_at: Timestamp,
}

/// One passage of a document with its vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// Unique within the library.
    pub id: ChunkId,
    /// The passage, 1 to [`crate::limits::CHUNK_CHARS_MAX`] characters.
    pub text: String,
    /// The vector exactly as it was sent or embedded: the library's dimension of finite f32.
    /// Empty where the caller asked for none.
    pub embedding: Vec<f32>,
    /// When the chunk was added.
    pub created_at: Timestamp,
    /// Page of the source, where the caller said so.
    pub page_number: Option<u32>,
    /// Custom metadata of this chunk.
    pub custom: Custom,
}

/// A document with its chunks in order; the position in `chunks` is the chunk's index.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Unique within the library.
    pub id: DocumentId,
    /// What belongs to it as a whole.
    pub metadata: DocumentMetadata,
    /// 1 to [`crate::limits::CHUNKS_PER_DOCUMENT_MAX`] chunks.
    pub chunks: Vec<Chunk>,
}
