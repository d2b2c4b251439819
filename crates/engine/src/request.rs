//! What callers ask of the engine and what they get: plain structs, no wire format.

pub use arrwdb_state::Cursor;
use arrwdb_state::{
    Chunk, ChunkId, Custom, Document, DocumentId, IndexSpec, LibrarySpec, Seq, Timestamp,
};

/// A library to create.
#[derive(Debug, Clone)]
pub struct NewLibrary {
    /// Name, 1 to 255 characters.
    pub name: String,
    /// Description, where given.
    pub description: Option<String>,
    /// Search structure.
    pub index: IndexSpec,
    /// `local`, `cohere` or `openai`; the configured default when absent.
    pub embedding_provider: Option<String>,
    /// The provider's model; its default when absent.
    pub embedding_model: Option<String>,
    /// Dimension of the vectors; the model's own when absent. A dimension that the model does
    /// not have is accepted for libraries whose vectors are all supplied by the caller only if
    /// no model is named.
    pub embedding_dimension: Option<u32>,
}

/// Changes to a library; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct LibraryPatch {
    /// New name.
    pub name: Option<String>,
    /// New description; `Some(None)` removes it.
    pub description: Option<Option<String>>,
}

/// A library with its counts.
#[derive(Debug, Clone)]
pub struct LibraryOverview {
    /// The library.
    pub spec: LibrarySpec,
    /// Live documents.
    pub documents: u64,
    /// Live chunks.
    pub chunks: u64,
}

/// The text of a document, in exactly one of three forms.
#[derive(Debug, Clone)]
pub enum Content {
    /// One text, split by the engine on paragraph and sentence borders.
    Text(String),
    /// Passages kept as the caller split them.
    Texts(Vec<String>),
    /// Passages with, where supplied, their vectors, ids and times.
    Chunks(Vec<PutChunk>),
}

/// A passage as the caller supplies it.
#[derive(Debug, Clone, Default)]
pub struct PutChunk {
    /// Its id; made by the engine when absent.
    pub id: Option<ChunkId>,
    /// The passage.
    pub text: String,
    /// Its vector; embedded by the engine when absent.
    pub embedding: Option<Vec<f32>>,
    /// When it was added, for imports; now when absent.
    pub created_at: Option<Timestamp>,
    /// Page of the source.
    pub page_number: Option<u32>,
    /// Custom metadata of this chunk.
    pub custom: Custom,
}

/// A document to add, or to replace where its id exists.
#[derive(Debug, Clone)]
pub struct PutDocument {
    /// Its id; made by the engine when absent.
    pub id: Option<DocumentId>,
    /// Title.
    pub title: String,
    /// Author.
    pub author: Option<String>,
    /// Kind of document; `text` when absent.
    pub document_type: Option<String>,
    /// Where it came from.
    pub source_url: Option<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// Custom metadata.
    pub custom: Custom,
    /// When it was added, for imports; now when absent.
    pub created_at: Option<Timestamp>,
    /// Its text.
    pub content: Content,
}

/// One document that is durable and visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutReceipt {
    /// Its id.
    pub id: DocumentId,
    /// Its title.
    pub title: String,
    /// How many chunks it has.
    pub chunks: usize,
    /// Whether it replaced a document of the same id.
    pub replaced: bool,
    /// Chunks that died with the document that was replaced.
    pub chunks_replaced: u32,
}

/// A write that is on disk and visible to the next read.
#[derive(Debug, Clone)]
pub struct Written<T> {
    /// The sequence number to hand out as `X-Arrwdb-Seq`: a read with this `min_seq` sees the write.
    pub seq: Seq,
    /// What was written.
    pub value: T,
}

/// What to find.
#[derive(Debug, Clone)]
pub enum Query {
    /// A text, embedded with the library's model.
    Text(String),
    /// A vector of the library's dimension, not zero.
    Vector(Vec<f32>),
}

/// A search of one library.
#[derive(Debug, Clone)]
pub struct SearchRequest {
    /// What to find.
    pub query: Query,
    /// How many of the nearest chunks, 1 to 10,000.
    pub k: usize,
    /// Keep only hits with `distance <= this`, 0 to 2.
    pub distance_threshold: Option<f32>,
    /// Whether hits carry their vectors.
    pub include_embeddings: bool,
}

/// One passage found.
#[derive(Debug, Clone)]
pub struct Hit {
    /// Its document.
    pub document_id: DocumentId,
    /// The document's title.
    pub document_title: String,
    /// The chunk; `embedding` is empty unless asked for.
    pub chunk: Chunk,
    /// Position of the chunk in its document, from 0.
    pub chunk_index: u32,
    /// Cosine distance, 0 to 2.
    pub distance: f32,
}

/// The nearest passages, ascending by (distance, position).
#[derive(Debug, Clone)]
pub struct SearchAnswer {
    /// At most k hits.
    pub hits: Vec<Hit>,
    /// The state they are true at.
    pub seq: Seq,
    /// The search structure that was asked.
    pub index: IndexSpec,
}

/// A page of documents in the order in which they were added.
#[derive(Debug, Clone)]
pub struct DocumentPage {
    /// The documents.
    pub documents: Vec<Document>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Cursor>,
    /// Live documents in all.
    pub total: u64,
}
