//! The JSON of libraries, documents and hits as it is sent.

use std::collections::BTreeMap;

use arrwdb_engine::state::{
    Chunk, ChunkId, Custom, Document, DocumentId, FieldVectors, IndexSpec, LibraryId, LibrarySpec,
    Quantization, Timestamp, Tuning,
};
use arrwdb_engine::{
    Filtered, Fusion, Hit, IndexStats, KeywordPlan, LibraryOverview, RecallBasis, RecallPlan,
    RerankPlan, SearchAnswer,
};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::keyword_requests::FUSIONS;
use super::vector_answers::VectorAnswer;

/// RFC 3339 in UTC with six digits of a second.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(time.micros())
        .map(|time| format!("{time:.6}"))
        .unwrap_or_default()
}

pub(crate) fn as_text<T: std::fmt::Display, S: Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
pub(crate) fn as_time<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*time))
}

/// What a library is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LibraryMetadata {
    description: Option<String>,
    /// RFC 3339, UTC, microseconds.
    #[schema(value_type = String, format = "date-time")]
    #[serde(serialize_with = "as_time")]
    created_at: Timestamp,
    #[schema(example = "hnsw")]
    index_type: &'static str,
    /// Every parameter of that type with its number.
    #[schema(value_type = Object, example = json!({"M": 16, "ef_construction": 200, "ef_search": 50}))]
    index_config: Map<String, Value>,
    /// How distances are measured: `cosine`, `dot` or `l2`.
    #[schema(example = "cosine")]
    metric: &'static str,
    /// What texts and queries are taken for where they are searched by keywords.
    #[schema(example = "en")]
    language: &'static str,
    #[schema(minimum = 1, maximum = 4096, example = 384)]
    embedding_dimension: u32,
    #[schema(example = "all-MiniLM-L6-v2")]
    embedding_model: String,
    /// `local`, `cohere` or `openai`.
    #[schema(example = "local")]
    embedding_provider: String,
    /// How vectors are compressed; null where they are not.
    quantization: Option<QuantizationInfo>,
}

/// Every parameter of an index with its number.
pub(crate) fn index_config(index: IndexSpec) -> Map<String, Value> {
    let parameters = index.structure.parameters().into_iter();
    parameters.map(|(name, number)| (name.to_owned(), number.into())).collect()
}

/// How vectors are compressed, and what that is worth. Figures are measured or null.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QuantizationInfo {
    /// `scalar`, `hybrid`, `binary` or `product`.
    #[schema(example = "scalar")]
    strategy: &'static str,
    /// Bits of each number of a scalar code; null for other codes.
    #[schema(example = 8)]
    bits: Option<u64>,
    /// The strategy's other parameters by name, such as `rerank_top_k`.
    #[serde(flatten)]
    parameters: BTreeMap<&'static str, u64>,
    /// Measured: by how much the bytes that rows are scored by are fewer than those of their
    /// vectors, which stay in files beside them. Null until an index is built, and in lists.
    #[schema(example = 74.22)]
    memory_savings_percent: Option<f64>,
    /// Measured: of the ten nearest, the part that a search finds which says nothing of its effort.
    /// Null until it is measured, which begins when an index is built or its statistics are asked
    /// for, and in lists; 100 where every search is exact.
    estimated_accuracy_percent: Option<f64>,
}

impl QuantizationInfo {
    /// Null where nothing is compressed; without figures of the library, none are told.
    pub(crate) fn of(spec: &LibrarySpec, stats: Option<&IndexStats>) -> Option<Self> {
        let quantization = spec.index.quantization;
        if quantization == Quantization::None {
            return None;
        }
        let mut parameters: BTreeMap<_, _> = quantization.parameters().into_iter().collect();
        Some(Self {
            strategy: quantization.strategy(),
            bits: parameters.remove("bits"),
            parameters,
            memory_savings_percent: stats.and_then(|stats| saved_percent(spec.dimension, stats)),
            estimated_accuracy_percent: match stats {
                Some(stats) => stats.recall.map(percent),
                None => spec.index.is_exact().then_some(100.0),
            },
        })
    }
}

/// With two decimals, rounded down: what is not all does not read as all.
pub(crate) fn percent(part: f64) -> f64 {
    (part * 10_000.0).floor() / 100.0
}

fn saved_percent(dimension: u32, stats: &IndexStats) -> Option<f64> {
    if stats.code_bytes == 0 {
        return None;
    }
    let vectors = stats.rows as f64 * f64::from(dimension) * 4.0;
    Some(((1.0 - stats.code_bytes as f64 / vectors) * 10_000.0).round() / 100.0)
}

impl LibraryMetadata {
    pub(crate) fn of(spec: &LibrarySpec, stats: Option<&IndexStats>) -> Self {
        Self {
            description: spec.description.clone(),
            created_at: spec.created_at,
            index_type: spec.index.name(),
            index_config: index_config(spec.index),
            metric: spec.metric.name(),
            language: spec.language.code(),
            embedding_dimension: spec.dimension,
            embedding_model: spec.model.model.clone(),
            embedding_provider: spec.model.provider.clone(),
            quantization: QuantizationInfo::of(spec, stats),
        }
    }
}

/// A library with its (first) documents.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LibraryAnswer {
    #[schema(value_type = String, format = "uuid")]
    #[serde(serialize_with = "as_text")]
    pub(crate) id: LibraryId,
    pub(crate) name: String,
    pub(crate) metadata: LibraryMetadata,
    /// Documents of the library.
    pub(crate) num_documents: u64,
    /// Whether `documents` holds only the first of them; the rest by `GET .../documents`.
    pub(crate) documents_truncated: bool,
    /// At most the first 100 documents.
    pub(crate) documents: Vec<DocumentAnswer>,
}

/// A library with its count of documents.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LibrarySummary {
    #[schema(value_type = String, format = "uuid")]
    #[serde(serialize_with = "as_text")]
    id: LibraryId,
    name: String,
    num_documents: u64,
    num_chunks: u64,
    metadata: LibraryMetadata,
}

impl LibrarySummary {
    pub(crate) fn of(overview: &LibraryOverview) -> Self {
        Self {
            id: overview.spec.id,
            name: overview.spec.name.clone(),
            num_documents: overview.documents,
            num_chunks: overview.chunks,
            metadata: LibraryMetadata::of(&overview.spec, None),
        }
    }
}

/// What belongs to a document as a whole.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DocumentMetadata {
    title: String,
    author: Option<String>,
    #[schema(value_type = String, format = "date-time")]
    #[serde(serialize_with = "as_time")]
    created_at: Timestamp,
    document_type: String,
    source_url: Option<String>,
    tags: Vec<String>,
    /// Custom metadata as it was given.
    #[schema(value_type = Object)]
    #[serde(skip_serializing_if = "Custom::is_empty")]
    custom: Custom,
}

/// A document with its passages in order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DocumentAnswer {
    #[schema(value_type = String, format = "uuid")]
    #[serde(serialize_with = "as_text")]
    id: DocumentId,
    chunks: Vec<ChunkAnswer>,
    metadata: DocumentMetadata,
    /// What it has in vector fields, where all of a document is given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    vectors: Vec<VectorAnswer>,
}

impl DocumentAnswer {
    pub(crate) fn of(document: Document) -> Self {
        Self::whole(document, Vec::new())
    }

    /// The document with what it has in vector fields.
    pub(crate) fn whole(document: Document, fields: Vec<FieldVectors>) -> Self {
        let Document { id, metadata, chunks } = document;
        let fields = fields.into_iter();
        Self {
            id,
            chunks: (0..).zip(chunks).map(|(at, chunk)| ChunkAnswer::of(chunk, at, id)).collect(),
            metadata: DocumentMetadata::of(metadata),
            vectors: fields.flat_map(|field| VectorAnswer::of_field(field, true)).collect(),
        }
    }
}

impl DocumentMetadata {
    pub(crate) fn of(metadata: arrwdb_engine::state::DocumentMetadata) -> Self {
        Self {
            title: metadata.title,
            author: metadata.author,
            created_at: metadata.created_at,
            document_type: metadata.document_type,
            source_url: metadata.source_url,
            tags: metadata.tags,
            custom: metadata.custom,
        }
    }
}

/// Where a passage stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChunkMetadata {
    #[schema(value_type = String, format = "date-time")]
    #[serde(serialize_with = "as_time")]
    created_at: Timestamp,
    page_number: Option<u32>,
    /// Position in its document, from 0.
    chunk_index: u32,
    #[schema(value_type = String, format = "uuid")]
    #[serde(serialize_with = "as_text")]
    source_document_id: DocumentId,
    /// Custom metadata of the chunk as it was given.
    #[schema(value_type = Object)]
    #[serde(skip_serializing_if = "Custom::is_empty")]
    custom: Custom,
}

/// A passage.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChunkAnswer {
    #[schema(value_type = String, format = "uuid")]
    #[serde(serialize_with = "as_text")]
    id: ChunkId,
    text: String,
    /// The vector exactly as it was sent or made; left out where it was not asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    embedding: Vec<f32>,
    metadata: ChunkMetadata,
}

impl ChunkAnswer {
    pub(super) fn of(chunk: Chunk, index: u32, document: DocumentId) -> Self {
        Self {
            id: chunk.id,
            text: chunk.text,
            embedding: chunk.embedding,
            metadata: ChunkMetadata {
                created_at: chunk.created_at,
                page_number: chunk.page_number,
                chunk_index: index,
                source_document_id: document,
                custom: chunk.custom,
            },
        }
    }
}

/// One line of an export: everything that an import needs to make the same document again.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExportLine {
    #[schema(value_type = String, format = "uuid")]
    #[serde(serialize_with = "as_text")]
    id: DocumentId,
    title: String,
    author: Option<String>,
    document_type: String,
    source_url: Option<String>,
    tags: Vec<String>,
    #[schema(value_type = String, format = "date-time")]
    #[serde(serialize_with = "as_time")]
    created_at: Timestamp,
    /// Custom metadata.
    #[schema(value_type = Object)]
    #[serde(skip_serializing_if = "Custom::is_empty")]
    metadata: Custom,
    chunks: Vec<ChunkAnswer>,
    /// What it has in vector fields; absent without embeddings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    vectors: Vec<VectorAnswer>,
}

impl ExportLine {
    pub(crate) fn of(document: Document, fields: Vec<FieldVectors>) -> Self {
        let DocumentAnswer { id, chunks, metadata, vectors } =
            DocumentAnswer::whole(document, fields);
        Self {
            id,
            title: metadata.title,
            author: metadata.author,
            document_type: metadata.document_type,
            source_url: metadata.source_url,
            tags: metadata.tags,
            created_at: metadata.created_at,
            metadata: metadata.custom,
            chunks,
            vectors,
        }
    }
}

/// What an export consists of: documents, and one line at its end.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes the lines; they are written as they are read")]
pub(crate) enum ExportAnswer {
    /// A document.
    Document(ExportLine),
    /// The last line.
    End(ExportEnd),
}

/// The last line of an export.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExportEnd {
    /// `complete`, or `error` where the export broke off.
    status: String,
    total_documents: Option<u64>,
    /// The state that was exported.
    seq: Option<u64>,
    error: Option<String>,
}

/// One passage found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SearchResult {
    chunk: ChunkAnswer,
    /// By the library's metric. `cosine`: one less the cosine, 0 to 2; `dot`: one less the dot
    /// product, any number; `l2`: the Euclidean distance, from 0. Null in a search by keywords alone.
    #[schema(example = 0.234)]
    distance: Option<f32>,
    /// What it is ranked by, the greater the better: `1 - distance`; by keywords BM25, from 0; in a
    /// hybrid search what both rankings come to.
    #[schema(example = 0.766)]
    score: f32,
    #[schema(value_type = String, format = "uuid")]
    #[serde(serialize_with = "as_text")]
    document_id: DocumentId,
    document_title: String,
    /// Parts of the text with the words that were found, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    highlights: Option<Vec<String>>,
    /// What it was found by, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    signals: Option<SignalsAnswer>,
}

impl SearchResult {
    /// A hit with its highlights, and with what it was found by, where these were asked for.
    pub(crate) fn of(hit: Hit, (highlights, explains): (bool, bool)) -> Self {
        let signals = explains.then(|| SignalsAnswer::of(&hit));
        Self {
            chunk: ChunkAnswer::of(hit.chunk, hit.chunk_index, hit.document_id),
            distance: hit.distance,
            score: hit.score,
            document_id: hit.document_id,
            document_title: hit.document_title,
            highlights: highlights.then_some(hit.highlights),
            signals,
        }
    }
}

/// What a passage was found by.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SignalsAnswer {
    /// Its rank among the nearest, from 1; null if it is none of those that were looked at.
    vector_rank: Option<usize>,
    /// Its rank by keywords, from 1; null if it is none of the best that were looked at.
    keyword_rank: Option<usize>,
    /// BM25 of the query's words in its title and text, with what words side by side add; null if it has
    /// none of them.
    #[schema(example = 8.61)]
    bm25: Option<f32>,
    /// What vectors add to the score of a hybrid search: `score = vector_part + keyword_part`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 0.41)]
    vector_part: Option<f64>,
    /// What keywords add to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 0.3)]
    keyword_part: Option<f64>,
    /// Of reranking by signals: the value of each that its score is made of, by name.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object, example = json!({"similarity": 0.81, "recency": 0.5}))]
    reranked: Map<String, Value>,
}

impl SignalsAnswer {
    pub(super) fn of(hit: &Hit) -> Self {
        let signals = hit.signals;
        // Parts of the score that it was found by say nothing of one that was made anew.
        let fused = signals.fused.filter(|_parts| hit.rescored.is_none());
        let reranked = hit.rescored.iter().flat_map(|rescored| &rescored.signals);
        Self {
            vector_rank: signals.vector_rank,
            keyword_rank: signals.keyword.and_then(|it| it.rank),
            bm25: signals.keyword.map(|it| it.score),
            vector_part: fused.map(|(vector, _keyword)| vector),
            keyword_part: fused.map(|(_vector, keyword)| keyword),
            // What is no number is null.
            reranked: reranked.map(|(name, value)| (name.clone(), (*value).into())).collect(),
        }
    }
}

/// One passage found, as `search/stream` sends it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StreamedResult {
    /// From 1.
    rank: usize,
    #[schema(value_type = String, format = "uuid")]
    #[serde(serialize_with = "as_text")]
    chunk_id: ChunkId,
    #[schema(value_type = String, format = "uuid")]
    #[serde(serialize_with = "as_text")]
    document_id: DocumentId,
    document_title: String,
    /// By the library's metric, as in other searches.
    distance: Option<f32>,
    /// What it is ranked by, as in other searches.
    score: f32,
    text: String,
    /// Parts of the text with the words that were found, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    highlights: Vec<String>,
    /// The vector, where it was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    embedding: Vec<f32>,
    metadata: ChunkMetadata,
}

/// What a streamed search consists of: passages, and one line at its end.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes the lines; they are written one by one")]
pub(crate) enum StreamedLine {
    /// A passage.
    Passage(StreamedResult),
    /// The last line.
    End(StreamedEnd),
}

/// The last line of a streamed search.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StreamedEnd {
    /// `complete`.
    pub(crate) status: &'static str,
    pub(crate) total_results: usize,
    pub(crate) query_time_ms: f64,
    /// How they were found, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) explain: Option<Explain>,
}

/// How a search found what it found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Explain {
    /// What the library is searched by.
    #[schema(example = "hnsw")]
    index_type: &'static str,
    /// `none`, `scalar`, `hybrid`, `binary` or `product`.
    #[schema(example = "none")]
    quantization: &'static str,
    /// Segments of the library.
    segments: usize,
    /// Of these, searched through their structure, or by codes that may rule out what is near.
    segments_walked: u32,
    /// Of these, scanned: every row scored. Small ones, those without a structure yet, and all of
    /// an exact search.
    segments_scanned: u32,
    /// Of those walked, segments whose structure was of no use for this query (a tree among many
    /// dimensions), so that the rest of their rows was scanned.
    segments_fell_back: u32,
    /// Rows scored by their vectors.
    rows_scored: u64,
    /// Rows scored by their codes.
    codes_scored: u64,
    /// Whether nothing nearer can have been missed: no segment was walked, or by a structure that is
    /// exact.
    exact: bool,
    /// How the recall that was wanted is met, where one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    recall: Option<ExplainRecall>,
    /// What the filter selected, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<ExplainFilter>,
    /// What searching by keywords took, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    keywords: Option<ExplainKeywords>,
    /// How two rankings became one, in a hybrid search.
    #[serde(skip_serializing_if = "Option::is_none")]
    fusion: Option<ExplainFusion>,
    /// What a model ranked, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    reranking: Option<ExplainReranking>,
    /// Milliseconds of turning the query into a vector.
    embedding_ms: f64,
    /// Milliseconds of finding the rows.
    search_ms: f64,
    /// Milliseconds of reading the passages.
    read_ms: f64,
}

/// The effort that was chosen for a wanted recall.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExplainRecall {
    /// What was wanted.
    #[schema(example = 0.95)]
    wanted_recall: f64,
    /// What was measured at the effort that was chosen, on queries made from rows of the library; 1
    /// for an exact search.
    #[schema(example = 0.968)]
    estimated_recall: f64,
    /// What the effort was chosen by: `measured`; `outdated`, where many rows changed since that was
    /// measured, so that twice the effort is made; `unmeasured`, so that the search is exact until
    /// it is; `exact`, where the library has nothing that could miss a row.
    #[schema(example = "measured")]
    basis: &'static str,
    /// The effort by the names of its parameters; none where it is the usual one.
    #[schema(value_type = Object, example = json!({"ef_search": 71}))]
    parameters: Map<String, Value>,
}

impl ExplainRecall {
    fn of(plan: RecallPlan) -> Self {
        Self {
            wanted_recall: plan.wanted,
            estimated_recall: (plan.estimated * 10_000.0).floor() / 10_000.0,
            basis: match plan.basis {
                RecallBasis::Exact => "exact",
                RecallBasis::Measured => "measured",
                RecallBasis::Outdated => "outdated",
                RecallBasis::Unmeasured => "unmeasured",
            },
            parameters: parameters(plan.tuning),
        }
    }
}

/// What a filter selected.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExplainFilter {
    /// Passages that pass.
    passages: u64,
    /// How many were expected to, from how many have which values, as if no two conditions had to do
    /// with each other.
    estimated_passages: u64,
    /// Milliseconds of telling which.
    filter_ms: f64,
}

impl ExplainFilter {
    fn of(filtered: Filtered) -> Self {
        Self {
            passages: filtered.rows,
            estimated_passages: filtered.estimated_rows,
            filter_ms: milliseconds(filtered.took),
        }
    }
}

/// How two rankings became one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExplainFusion {
    /// `rrf`, `weighted` or `relative_score`.
    name: &'static str,
    /// How much vectors weighed, from 0 to 1; keywords weighed the rest.
    alpha: f64,
}

impl ExplainFusion {
    fn of((fusion, alpha): (Fusion, f64)) -> Self {
        let name = FUSIONS.iter().find(|(_name, known)| *known == fusion);
        Self { name: name.map_or("", |(name, _fusion)| name), alpha }
    }
}

/// What searching by keywords took.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExplainKeywords {
    /// The terms that rank, as they are indexed, and how many passages have each.
    #[schema(value_type = Object, example = json!({"librari": 212, "search": 1034}))]
    terms: Map<String, Value>,
    /// (Passage, term) pairs that were read: those that could not matter were passed over.
    postings_read: u64,
    /// Passages that were scored.
    rows_scored: u64,
    /// Milliseconds that it took.
    keyword_ms: f64,
}

impl ExplainKeywords {
    fn of(plan: &KeywordPlan) -> Self {
        Self {
            terms: plan.terms.iter().map(|(term, rows)| (term.clone(), (*rows).into())).collect(),
            postings_read: plan.postings,
            rows_scored: plan.rows,
            keyword_ms: milliseconds(plan.took),
        }
    }
}

/// What a model ranked.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExplainReranking {
    /// Who ranked.
    #[schema(example = "cohere")]
    provider: &'static str,
    /// With what.
    #[schema(example = "rerank-v3.5")]
    model: String,
    /// Passages that it was shown.
    passages: usize,
    /// Milliseconds that it took, waiting included.
    rerank_ms: f64,
}

impl ExplainReranking {
    fn of(plan: &RerankPlan) -> Self {
        Self {
            provider: plan.provider,
            model: plan.model.clone(),
            passages: plan.passages,
            rerank_ms: milliseconds(plan.took),
        }
    }
}

/// What an effort says, by name.
pub(crate) fn parameters(tuning: Tuning) -> Map<String, Value> {
    let numbers = [
        ("ef_search", tuning.ef_search),
        ("nprobe", tuning.nprobe),
        ("candidates", tuning.candidates),
        ("rerank", tuning.rerank),
    ];
    let numbers = numbers.into_iter().filter_map(|(name, number)| Some((name, number?.into())));
    let exact = tuning.exact.then_some(("exact", Value::Bool(true)));
    numbers.chain(exact).map(|(name, value)| (name.to_owned(), value)).collect()
}

impl Explain {
    pub(crate) fn of(answer: &SearchAnswer) -> Self {
        let (index, plan) = (answer.index, &answer.plan);
        Self {
            index_type: index.name(),
            quantization: index.quantization.strategy(),
            segments: plan.segments,
            segments_walked: plan.effort.walked,
            segments_scanned: plan.effort.scanned,
            rows_scored: plan.effort.vectors,
            codes_scored: plan.effort.codes,
            segments_fell_back: plan.effort.fell_back,
            exact: plan.effort.walked == 0 || index.is_exact(),
            recall: plan.recall.map(ExplainRecall::of),
            filter: plan.filtered.map(ExplainFilter::of),
            keywords: plan.keywords.as_ref().map(ExplainKeywords::of),
            fusion: plan.fusion.map(ExplainFusion::of),
            reranking: plan.reranked.as_ref().map(ExplainReranking::of),
            embedding_ms: milliseconds(plan.embedding),
            search_ms: milliseconds(plan.finding),
            read_ms: milliseconds(plan.reading),
        }
    }
}

impl StreamedResult {
    pub(crate) fn of(index: usize, hit: Hit) -> Self {
        let chunk = ChunkAnswer::of(hit.chunk, hit.chunk_index, hit.document_id);
        Self {
            rank: index + 1,
            chunk_id: chunk.id,
            document_id: hit.document_id,
            document_title: hit.document_title,
            distance: hit.distance,
            score: hit.score,
            text: chunk.text,
            highlights: hit.highlights,
            embedding: chunk.embedding,
            metadata: chunk.metadata,
        }
    }
}

/// One passage found, as WebSockets send it.
#[derive(Debug, Serialize)]
pub(crate) struct Passage {
    #[serde(flatten)]
    chunk: ChunkAnswer,
    distance: Option<f32>,
    /// What it is ranked by: `1 - distance` of a search by vectors.
    score: f32,
    #[serde(serialize_with = "as_text")]
    document_id: DocumentId,
    document_title: String,
    /// Parts of the text with the words that were found, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    highlights: Vec<String>,
}

impl Passage {
    pub(crate) fn of(hit: Hit) -> Self {
        Self {
            distance: hit.distance,
            score: hit.score,
            document_id: hit.document_id,
            document_title: hit.document_title,
            highlights: hit.highlights,
            chunk: ChunkAnswer::of(hit.chunk, hit.chunk_index, hit.document_id),
        }
    }

    /// Its chunk.
    pub(crate) fn chunk_id(&self) -> ChunkId {
        self.chunk.id
    }
}

/// Milliseconds with two decimals.
pub(crate) fn milliseconds(elapsed: std::time::Duration) -> f64 {
    (elapsed.as_secs_f64() * 100_000.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_six_digits_and_z() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (1_761_544_800_000_001, "2025-10-27T06:00:00.000001Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(rfc3339(Timestamp::from_micros(micros)), text);
        }
    }

    #[test]
    fn milliseconds_have_two_decimals() {
        let text = milliseconds(std::time::Duration::from_nanos(1_234_567)).to_string();
        assert_eq!(text, "1.23");
    }
}
