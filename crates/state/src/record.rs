//! A document ready for the log: every decision about it has been made.

use std::sync::Arc;

use arrwdb_index::{VectorError, inverse_norm};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::body::{self, BodyReader};
use crate::codec::DecodeError;
use crate::document::{Chunk, Document, DocumentMetadata};
use crate::field::{FieldSpec, FieldVectors, VectorFault};
use crate::ids::DocumentId;
use crate::limits::{
    CHUNKS_PER_DOCUMENT_MAX, DIMENSIONS_MAX, RECORD_BYTES_MAX, VECTORS_PER_FIELD_MAX,
};

/// Why a document cannot become a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A document has at least one chunk and at most a fixed number.
    #[error("a document has 1 to {max} chunks, not {got}", max = CHUNKS_PER_DOCUMENT_MAX)]
    Chunks {
        /// How many there are.
        got: usize,
    },
    /// A chunk's vector has another dimension than the library.
    #[error("Vector dimension mismatch: expected {expected}, got {got}")]
    Dimension {
        /// Which chunk, from 0.
        chunk: usize,
        /// The library's dimension.
        expected: u32,
        /// The vector's.
        got: usize,
    },
    /// A chunk's vector cannot be searched by angle.
    #[error("{error}")]
    Vector {
        /// Which chunk, from 0.
        chunk: usize,
        /// What is wrong with it.
        error: VectorError,
    },
    /// It has no vector in a field that it names, or too many.
    #[error("a document has 1 to {max} vectors in a field, not {got}", max = VECTORS_PER_FIELD_MAX)]
    FieldVectors {
        /// Which field.
        field: String,
        /// How many there are.
        got: usize,
    },
    /// A vector is not one of its field.
    #[error("{fault}")]
    FieldVector {
        /// Which field.
        field: String,
        /// Which of the document's vectors there, from 0.
        vector: usize,
        /// What is wrong with it.
        fault: VectorFault,
    },
    /// The encoded document is larger than a record of the log.
    #[error("the document takes {bytes} bytes; the limit is {max}", max = RECORD_BYTES_MAX)]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// A document as the log holds it: its stored form, its vectors bit for bit as they came, and
/// what follows from them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DocumentRecord {
    pub(crate) id: DocumentId,
    pub(crate) body: Bytes,
    /// `chunks * dimension`, row-major.
    pub(crate) vectors: Arc<Vec<f32>>,
    /// One for each chunk.
    pub(crate) inverse_norms: Arc<Vec<f32>>,
    pub(crate) digest: u128,
    /// What it has in vector fields, no field twice.
    pub(crate) fields: Arc<[FieldRecord]>,
}

/// What a document has in a vector field: a document of its own, without fields.
#[derive(Debug, Clone)]
pub(crate) struct FieldRecord {
    pub(crate) spec: Arc<FieldSpec>,
    pub(crate) record: DocumentRecord,
}

impl DocumentRecord {
    /// Checks a document's vectors against the library's dimension and encodes it. O(bytes).
    pub fn new(document: &Document, dimension: u32) -> Result<Self, RecordError> {
        let chunks = &document.chunks;
        if chunks.is_empty() || chunks.len() > CHUNKS_PER_DOCUMENT_MAX {
            return Err(RecordError::Chunks { got: chunks.len() });
        }
        let mut vectors = Vec::with_capacity(chunks.len() * dimension as usize);
        for (index, chunk) in chunks.iter().enumerate() {
            let got = chunk.embedding.len();
            if got != dimension as usize {
                return Err(RecordError::Dimension { chunk: index, expected: dimension, got });
            }
            vectors.extend_from_slice(&chunk.embedding);
        }
        let body = body::encode(&document.metadata, chunks);
        Self::from_parts(document.id, body, vectors, dimension)?.checked()
    }

    /// The same document with these vectors in fields beside its own; no field twice. O(bytes).
    pub fn with_fields(
        mut self,
        metadata: &DocumentMetadata,
        fields: &[FieldVectors],
    ) -> Result<Self, RecordError> {
        let of = |field| FieldRecord::new(self.id, metadata, field);
        self.fields = fields.iter().map(of).collect::<Result<_, _>>()?;
        self.checked()
    }

    fn checked(self) -> Result<Self, RecordError> {
        let bytes = self.encoded_bytes();
        // What it replaces is named beside it.
        if bytes > RECORD_BYTES_MAX - 1024 - 16 * CHUNKS_PER_DOCUMENT_MAX {
            return Err(RecordError::TooLarge { bytes });
        }
        Ok(self)
    }

    /// A record out of its stored parts; norms and digest follow from them.
    pub(crate) fn from_parts(
        id: DocumentId,
        body: Bytes,
        vectors: Vec<f32>,
        dimension: u32,
    ) -> Result<Self, RecordError> {
        assert!((1..=DIMENSIONS_MAX).contains(&dimension), "a library has a dimension");
        let inverse_norms = vectors
            .chunks_exact(dimension as usize)
            .enumerate()
            .map(|(chunk, vector)| {
                inverse_norm(vector).map_err(|error| RecordError::Vector { chunk, error })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let digest = digest(id, &body, &vectors);
        let inverse_norms = Arc::new(inverse_norms);
        let fields = Arc::default();
        Ok(Self { id, body, vectors: Arc::new(vectors), inverse_norms, digest, fields })
    }

    /// The document's id.
    pub fn id(&self) -> DocumentId {
        self.id
    }

    /// How many chunks it has.
    pub fn chunks(&self) -> usize {
        self.inverse_norms.len()
    }

    /// The document, its embeddings left empty. O(bytes of its body).
    pub fn document(&self) -> Result<Document, DecodeError> {
        BodyReader::new(&self.body)?.document(self.id)
    }

    /// What it has in vector fields. O(bytes).
    pub fn field_vectors(&self) -> Result<Vec<FieldVectors>, DecodeError> {
        let read = |field: &FieldRecord| {
            let FieldRecord { spec, record } = field;
            let rows = record.vectors.chunks_exact(spec.dimension as usize);
            FieldVectors::read(spec, &record.body, record.id, rows)
        };
        self.fields.iter().map(read).collect()
    }

    /// The document with its embeddings. O(bytes).
    pub fn document_with_vectors(&self) -> Result<Document, DecodeError> {
        let mut document = self.document()?;
        let dims = self.vectors.len() / self.chunks();
        for (chunk, vector) in document.chunks.iter_mut().zip(self.vectors.chunks_exact(dims)) {
            chunk.embedding = vector.to_vec();
        }
        Ok(document)
    }

    /// Bytes it takes in a record.
    pub fn encoded_bytes(&self) -> usize {
        let fields = self.fields.iter().map(|field| 512 + field.record.encoded_bytes());
        24 + self.body.len() + 4 * self.vectors.len() + fields.sum::<usize>()
    }

    /// Rows of it and of its vectors in fields.
    pub(crate) fn rows(&self) -> usize {
        let fields = self.fields.iter().map(|field| field.record.chunks());
        self.chunks() + fields.sum::<usize>()
    }
}

impl FieldRecord {
    fn new(
        id: DocumentId,
        metadata: &DocumentMetadata,
        field: &FieldVectors,
    ) -> Result<Self, RecordError> {
        let FieldVectors { spec, vectors } = field;
        let name = &spec.name;
        if !(1..=VECTORS_PER_FIELD_MAX).contains(&vectors.len()) {
            let got = vectors.len();
            return Err(RecordError::FieldVectors { field: name.clone(), got });
        }
        let (mut chunks, mut rows, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (vector, of) in vectors.iter().enumerate() {
            let (row, value) = spec
                .row_of(&of.value)
                .map_err(|fault| RecordError::FieldVector { field: name.clone(), vector, fault })?;
            rows.extend(row);
            values.push(value);
            chunks.push(Chunk {
                id: of.id,
                text: of.text.clone(),
                embedding: Vec::new(),
                created_at: of.created_at,
                page_number: None,
                custom: of.custom.clone(),
            });
        }
        let body = body::encode_field((name, &values), metadata, &chunks);
        let record = DocumentRecord::from_parts(id, body, rows, spec.dimension)?;
        Ok(Self { spec: Arc::new(spec.clone()), record })
    }
}

/// The first 128 bits of SHA-256 over id, body and vectors: equal documents on any machine have
/// equal digests, and a library's digest is the sum of its documents' (mod 2^128), so that it can
/// be kept up by `apply` in any order.
pub(crate) fn digest(id: DocumentId, body: &[u8], vectors: &[f32]) -> u128 {
    let mut hash = Sha256::new();
    hash.update(id.to_bytes());
    hash.update((body.len() as u64).to_le_bytes());
    hash.update(body);
    hash.update(bytemuck::cast_slice::<f32, u8>(vectors));
    let full: [u8; 32] = hash.finalize().into();
    let mut first = [0; 16];
    first.copy_from_slice(&full[..16]);
    u128::from_le_bytes(first)
}

/// Vectors as bytes of the log, without a copy.
#[derive(Debug)]
pub(crate) struct VectorBytes(pub(crate) Arc<Vec<f32>>);

impl AsRef<[u8]> for VectorBytes {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}
