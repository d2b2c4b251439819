//! Vectors of documents, as answers and exports have them.

use arrwdb_engine::state::{
    ChunkId, Custom, Document, DocumentId, FieldVectors, LibrarySpec, TEXT_FIELD, Timestamp,
    VectorKind, VectorValue,
};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::answers::{as_text, as_time};
use super::vector_requests::SparseVector;

/// A vector without its numbers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VectorHead {
    #[schema(value_type = String, format = "uuid")]
    #[serde(serialize_with = "as_text")]
    pub(super) id: ChunkId,
    /// The field.
    #[schema(example = "title")]
    r#type: String,
    /// What makes vectors of texts there; null where callers give all of them.
    embedding_model: Option<String>,
    /// Null of sparse vectors.
    #[schema(minimum = 1, maximum = 4096)]
    dimensions: Option<u32>,
}

/// All vectors of a document.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DocumentVectors {
    #[schema(value_type = String, format = "uuid")]
    #[serde(serialize_with = "as_text")]
    pub(super) document_id: DocumentId,
    pub(super) vectors: Vec<VectorAnswer>,
}

/// A vector of a document.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VectorAnswer {
    #[serde(flatten)]
    pub(super) head: VectorHead,
    /// `dense`, `late_interaction` or `sparse`.
    #[schema(example = "dense")]
    kind: &'static str,
    /// What it was made from, where that is known.
    text: Option<String>,
    #[schema(value_type = Object)]
    metadata: Custom,
    #[schema(value_type = String, format = "date-time")]
    #[serde(serialize_with = "as_time")]
    created_at: Timestamp,
    /// Of a dense vector, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<Vec<f32>>,
    /// Of late interaction, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    embeddings: Option<Vec<Vec<f32>>>,
    /// Of a sparse vector, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SparseVector>)]
    sparse: Option<Value>,
}

impl VectorAnswer {
    /// The passages of a document, which are vectors of the library's own.
    fn passages(document: Document, spec: &LibrarySpec, embeddings: bool) -> Vec<Self> {
        let of_chunk = |chunk: arrwdb_engine::state::Chunk| Self {
            head: VectorHead {
                id: chunk.id,
                r#type: TEXT_FIELD.to_owned(),
                embedding_model: Some(spec.model.model.clone()),
                dimensions: Some(spec.dimension),
            },
            kind: VectorKind::Dense.name(),
            text: Some(chunk.text),
            metadata: chunk.custom,
            created_at: chunk.created_at,
            embedding: embeddings.then_some(chunk.embedding),
            embeddings: None,
            sparse: None,
        };
        document.chunks.into_iter().map(of_chunk).collect()
    }

    /// What a document has in one field.
    pub(super) fn of_field(field: FieldVectors, embeddings: bool) -> Vec<Self> {
        let FieldVectors { spec, vectors } = field;
        let of_vector = |vector: arrwdb_engine::state::FieldVector| {
            let (mut dense, mut late, mut sparse) = (None, None, None);
            match vector.value {
                _ if !embeddings => {}
                VectorValue::Dense(numbers) => dense = Some(numbers),
                VectorValue::Late(rows) => late = Some(rows),
                VectorValue::Sparse(value) => {
                    sparse = Some(json!({"indices": value.indices, "values": value.values}));
                }
            }
            Self {
                head: VectorHead {
                    id: vector.id,
                    r#type: spec.name.clone(),
                    embedding_model: spec.model.as_ref().map(|model| model.model.clone()),
                    dimensions: (spec.kind != VectorKind::Sparse).then_some(spec.dimension),
                },
                kind: spec.kind.name(),
                text: Some(vector.text).filter(|text| !text.is_empty()),
                metadata: vector.custom,
                created_at: vector.created_at,
                embedding: dense,
                embeddings: late,
                sparse,
            }
        };
        vectors.into_iter().map(of_vector).collect()
    }

    /// All vectors of a document, with their numbers where that is asked for.
    pub(super) fn all(
        (document, fields): (Document, Vec<FieldVectors>),
        spec: &LibrarySpec,
        embeddings: bool,
    ) -> Vec<Self> {
        let fields = fields.into_iter().flat_map(|field| Self::of_field(field, embeddings));
        Self::passages(document, spec, embeddings).into_iter().chain(fields).collect()
    }
}
