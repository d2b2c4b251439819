//! What callers ask of the engine and what they get: plain structs, no wire format.

use std::sync::Arc;
use std::time::Duration;

use arrwdb_embed::Picture;
use arrwdb_state::{
    Chunk, ChunkId, Custom, Document, DocumentId, DocumentMetadata, Effort, Facet, FacetCounts,
    FieldVector, FieldVectors, Filter, IndexSpec, Language, LibrarySpec, Metric, ModelName,
    Quantization, Seq, Structure, Timestamp, Tuning, VectorKind, VectorValue,
};
pub use arrwdb_state::{Cursor, Highlight, Operator};

use crate::fusion::{ByKeywords, Fusion};
use crate::grouping::Grouping;
use crate::paging::SearchPage;
use crate::scoring::{Breakdown, Rescoring};

/// A library to create.
#[derive(Debug, Clone)]
pub struct NewLibrary {
    /// Name, 1 to 255 characters.
    pub name: String,
    /// Description, where given.
    pub description: Option<String>,
    /// What it is searched by.
    pub index: IndexSpec,
    /// How distances are measured.
    pub metric: Metric,
    /// What its texts are taken for where it is searched by keywords.
    pub language: Language,
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
    /// New language: what searches by keywords find from then on.
    pub language: Option<Language>,
}

/// What a library is to be searched by; `None` leaves a part as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IndexChange {
    /// The structure.
    pub structure: Option<Structure>,
    /// What rows are scored by.
    pub quantization: Option<Quantization>,
}

/// A library whose every segment is searched as it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexRebuilt {
    /// What it asked for before.
    pub old: IndexSpec,
    /// What it asks for from here on.
    pub new: IndexSpec,
    /// Live chunks that are searched so.
    pub chunks: u64,
    /// How long it took in all.
    pub took: Duration,
}

/// A library whose files were merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexOptimized {
    /// What it is searched by.
    pub index: IndexSpec,
    /// Rows of what was deleted or replaced that are in no file any more.
    pub rows_dropped: u64,
    /// Bytes of files and memory before, less those after; 0 if there are more.
    pub bytes_freed: u64,
    /// How long it took in all.
    pub took: Duration,
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

/// The kind of a document of which nothing else is said.
pub(crate) const DOCUMENT_TYPE_USUAL: &str = "text";

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
    /// What it has in vector fields beside its passages.
    pub vectors: Vec<PutVector>,
}

/// A vector of a vector field as the caller supplies it.
#[derive(Debug, Clone)]
pub struct PutVector {
    /// Its id; made by the engine when absent.
    pub id: Option<ChunkId>,
    /// Which field. One of the names of [`crate::WELL_KNOWN_FIELDS`] is declared on first use.
    pub field: String,
    /// What it is made from; empty where only the vector is given.
    pub text: String,
    /// Its value; made by the field's model when absent, of the picture if there is one, else of the
    /// text.
    pub value: Option<VectorValue>,
    /// What the value is made of; the text then describes it.
    pub picture: Option<Picture>,
    /// When it was added, for imports; now when absent.
    pub created_at: Option<Timestamp>,
    /// Custom metadata of it.
    pub custom: Custom,
    /// What it is to the caller, a JSON Pointer relative to the document: `/vectors/3`.
    pub pointer: String,
}

impl PutVector {
    /// Those that a document has, as they are.
    pub fn again(fields: Vec<FieldVectors>) -> Vec<Self> {
        let vectors = fields.into_iter().flat_map(|field| {
            let name = field.spec.name;
            field.vectors.into_iter().map(move |vector| (name.clone(), vector))
        });
        let again = |(place, (field, vector)): (usize, (String, FieldVector))| {
            let FieldVector { id, text, value, created_at, custom } = vector;
            let (id, value, created_at) = (Some(id), Some(value), Some(created_at));
            let pointer = format!("/vectors/{place}");
            Self { id, field, text, value, picture: None, created_at, custom, pointer }
        };
        vectors.enumerate().map(again).collect()
    }
}

/// A vector field to declare.
#[derive(Debug, Clone)]
pub struct NewField {
    /// Its name: see [`arrwdb_state::check_field_name`].
    pub name: String,
    /// What its vectors are.
    pub kind: VectorKind,
    /// Their dimension; that of the model when absent. Not of sparse ones.
    pub dimension: Option<u32>,
    /// How distances are measured; cosine when absent.
    pub metric: Option<Metric>,
    /// What it is searched by; scanned when absent.
    pub index: Option<IndexSpec>,
    /// What makes vectors of texts: a provider and its model, the library's when `None` within; nothing
    /// does when absent.
    pub model: Option<FieldModel>,
}

/// What makes the vectors of a field from texts.
#[derive(Debug, Clone)]
pub enum FieldModel {
    /// What makes those of the library.
    Library,
    /// A provider, or the configured default, and its model, or the default one.
    Named {
        /// `local`, `cohere` or `openai`.
        provider: Option<String>,
        /// The provider's name of the model.
        model: Option<String>,
    },
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

/// What a deletion by a filter did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeletedByFilter {
    /// Documents that were deleted.
    pub documents: u64,
    /// Their chunks.
    pub chunks: u64,
    /// Documents that passed, and were replaced or deleted by somebody else before it was their
    /// turn: they are left as they are.
    pub changed: u64,
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
    /// Keep only hits with `distance <= this`: 0 to 2 for cosine, any number for a dot product,
    /// not negative for L2.
    pub distance_threshold: Option<f32>,
    /// Only passages that pass.
    pub filter: Filter,
    /// How hard to try, where not as the library says.
    pub tuning: Tuning,
    /// The part of the nearest that shall be found, above 0 and up to 1: the effort is chosen by
    /// what was measured. Not together with a `tuning`.
    pub recall: Option<f64>,
    /// Whether hits carry their vectors.
    pub include_embeddings: bool,
    /// What passages are found by.
    pub mode: Mode,
    /// The words of a search by keywords, where they are not the query.
    pub words: Option<String>,
    /// Whether one of the words is enough.
    pub operator: Operator,
    /// How the two rankings of a hybrid search become one.
    pub fusion: Fusion,
    /// How much vectors weigh in a hybrid search, from 0 to 1; keywords weigh the rest. Without, as is
    /// usual for the fusion.
    pub alpha: Option<f64>,
    /// How words that were found are shown, where they shall be.
    pub highlight: Option<Highlight>,
    /// How what was found is scored anew, where it shall be.
    pub rescoring: Option<Rescoring>,
    /// Fields whose values are counted over everything that passes the filter.
    pub facets: Vec<Facet>,
    /// How hits are grouped by their documents, where they shall be: `k` is then how many documents.
    pub grouping: Option<Grouping>,
    /// Which page of what is found; without, the first `k` and no more. Not together with `rescoring`
    /// or `grouping`.
    pub page: Option<SearchPage>,
    /// Whether it is counted how many passages match.
    pub count: bool,
}

impl SearchRequest {
    /// The `k` nearest, as the library says.
    pub fn new(query: Query, k: usize) -> Self {
        Self {
            query,
            k,
            distance_threshold: None,
            filter: Filter::default(),
            tuning: Tuning::default(),
            recall: None,
            include_embeddings: false,
            mode: Mode::Vector,
            words: None,
            operator: Operator::Or,
            fusion: Fusion::default(),
            alpha: None,
            highlight: None,
            rescoring: None,
            facets: Vec::new(),
            grouping: None,
            page: None,
            count: false,
        }
    }
}

/// What passages are found by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// By their vectors.
    #[default]
    Vector,
    /// By words, ranked by BM25.
    Keyword,
    /// By both.
    Hybrid,
}

/// What a passage was found by.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Signals {
    /// Its rank among the nearest, from 1, if it is one of them.
    pub vector_rank: Option<usize>,
    /// Its rank by keywords and its BM25, if it has one of them.
    pub keyword: Option<ByKeywords>,
    /// What vectors and what keywords add to its fused score, where both are searched: the score is
    /// their sum.
    pub fused: Option<(f64, f64)>,
}

/// One passage found.
#[derive(Debug, Clone)]
pub struct Hit {
    /// Its document.
    pub document_id: DocumentId,
    /// The document's title.
    pub document_title: String,
    /// All that belongs to the document as a whole, where hits are grouped by documents.
    pub document: Option<Arc<DocumentMetadata>>,
    /// The chunk; `embedding` is empty unless asked for.
    pub chunk: Chunk,
    /// Position of the chunk in its document, from 0.
    pub chunk_index: u32,
    /// By the library's metric; unknown to a search by keywords alone.
    pub distance: Option<f32>,
    /// What it is ranked by, the greater the better: `1 - distance` of vectors, BM25 of keywords, the
    /// fused score of both, what it was scored anew (no number where that is none).
    pub score: f32,
    /// What it was found by.
    pub signals: Signals,
    /// Parts of the text with words that were found, where that was asked for.
    pub highlights: Vec<String>,
    /// What it was scored anew, where that was asked for.
    pub rescored: Option<Rescored>,
}

/// What a candidate was scored anew.
#[derive(Debug, Clone, PartialEq)]
pub struct Rescored {
    /// Its score; nothing where that is no finite number, which puts it behind all that have one.
    pub score: Option<f64>,
    /// How a hybrid score came about.
    pub breakdown: Option<Box<Breakdown>>,
    /// What it was made of, by name: see [`Scorer::signals`](crate::Scorer::signals).
    pub signals: Vec<(String, f64)>,
}

/// The passages found, best first; of equal ones the one that came first.
#[derive(Debug, Clone)]
pub struct SearchAnswer {
    /// At most k hits; where they are grouped, those of at most k documents, one document after the
    /// other, the one of the best hit first, and each with its best hits, best first.
    pub hits: Vec<Hit>,
    /// The state they are true at.
    pub seq: Seq,
    /// What the library is searched by.
    pub index: IndexSpec,
    /// The model of the vectors that were searched.
    pub model: ModelName,
    /// What was done to find them.
    pub plan: Plan,
    /// The page behind this one, where pages were asked for and there is one.
    pub next: Option<SearchPage>,
}

/// How a search found what it found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Rows scored, segments walked and scanned.
    pub effort: Effort,
    /// Segments of the library.
    pub segments: usize,
    /// How the wanted recall was met, where one was wanted.
    pub recall: Option<RecallPlan>,
    /// What the filter selected, where there was one.
    pub filtered: Option<Filtered>,
    /// What searching by keywords took, where that was asked for.
    pub keywords: Option<KeywordPlan>,
    /// How both rankings became one, and how much vectors weighed, where there were two.
    pub fusion: Option<(Fusion, f64)>,
    /// What a model ranked, where that was asked for.
    pub reranked: Option<RerankPlan>,
    /// How long turning the query into a vector took; zero for a vector.
    pub embedding: Duration,
    /// How long finding the rows took.
    pub finding: Duration,
    /// How long reading the passages took.
    pub reading: Duration,
    /// The values of the fields that were asked for.
    pub facets: Vec<FacetCounts>,
    /// How many passages match, where that was asked for.
    pub matches: Option<Matches>,
    /// Whether there are more behind a page.
    pub more: bool,
}

/// How many passages match a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matches {
    /// So many.
    pub count: u64,
    /// Or more: what is farther than a threshold was not told from what a walk did not find.
    pub at_least: bool,
}

/// What searching by keywords took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeywordPlan {
    /// (Passage, term) pairs that were read.
    pub postings: u64,
    /// Passages that were scored.
    pub rows: u64,
    /// The terms that rank, and how many passages have each.
    pub terms: Vec<(String, u64)>,
    /// How long it took.
    pub took: Duration,
}

/// What a filter selected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filtered {
    /// How many passages pass, of all that live.
    pub rows: u64,
    /// How many were expected to, from how many have which values.
    pub estimated_rows: u64,
    /// How long telling took.
    pub took: Duration,
}

/// How a model ranked what was found.
#[derive(Debug, Clone, PartialEq)]
pub struct RerankPlan {
    /// Who ranked.
    pub provider: &'static str,
    /// With what.
    pub model: String,
    /// How many passages it was shown.
    pub passages: usize,
    /// How long it took, waiting included.
    pub took: Duration,
}

/// The effort that was chosen for a wanted recall.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RecallPlan {
    /// What was wanted.
    pub wanted: f64,
    /// The effort.
    pub tuning: Tuning,
    /// The part of the nearest that is found at this effort, as it was measured; 1 for an exact
    /// search.
    pub estimated: f64,
    /// What that was chosen by.
    pub basis: RecallBasis,
}

/// What an effort was chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecallBasis {
    /// Nothing: every search of the library is exact at present.
    Exact,
    /// What was measured of the structures that are searched.
    Measured,
    /// What was measured before many rows changed: twice the effort that was enough then.
    Outdated,
    /// Nothing was measured yet: the search is exact.
    Unmeasured,
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
