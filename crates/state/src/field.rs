//! Vector fields: what a document has besides the vectors of its passages (of its title, of an
//! image, small ones of every token, sparse ones), each with a dimension, metric, index and model of
//! its own.
//!
//! What a document has in a field is a document of its own in a view of its own: the same id and
//! metadata, and a chunk for each vector, whose text is what the vector was made from. A record puts
//! and deletes both, so that they are never apart.

use std::fmt;

use arrwdb_index::sparse::{SparseError, SparseQuery, SparseVector};
use arrwdb_index::{IndexSpec, Metric, VectorError, inverse_norm};

use crate::body::BodyReader;
use crate::codec::{DecodeError, Reader, Writer};
use crate::document::{Chunk, Custom};
use crate::entry::{read_dimension, read_index, read_metric, write_index};
use crate::ids::{ChunkId, DocumentId, Timestamp};
use crate::library::ModelName;
use crate::limits::{
    DIMENSIONS_MAX, LATE_ROWS_MAX, SPARSE_ENTRIES_MAX, VECTOR_FIELD_NAME_BYTES_MAX,
};

/// The field of a library's own vectors, which are those of passages: it is not among the others.
pub const TEXT_FIELD: &str = "text";

/// What a vector of a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VectorKind {
    /// One number for each dimension.
    Dense,
    /// Several small vectors, compared by late interaction: every vector of a query by the one that
    /// is nearest to it (`MaxSim`; Khattab and Zaharia, "`ColBERT`", 2020).
    Late,
    /// Numbers for few of very many dimensions, compared by their dot product.
    Sparse,
}

impl VectorKind {
    const ALL: [Self; 3] = [Self::Dense, Self::Late, Self::Sparse];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Late => "late_interaction",
            Self::Sparse => "sparse",
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A vector field of a library. All but its index is fixed when it is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldSpec {
    /// Its name, unique within the library: see [`check_field_name`].
    pub name: String,
    /// What its vectors are.
    pub kind: VectorKind,
    /// Their dimension, 1 to [`DIMENSIONS_MAX`]; 1 of sparse ones, which have none.
    pub dimension: u32,
    /// How distances are measured; cosine for late interaction, dot product of sparse vectors.
    pub metric: Metric,
    /// What its segments are searched by.
    pub index: IndexSpec,
    /// What makes vectors of texts; nothing where callers give all of them.
    pub model: Option<ModelName>,
}

/// What is wrong with the name of a vector field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldNameFault {
    /// Too short or too long.
    #[error("must have 1 to {VECTOR_FIELD_NAME_BYTES_MAX} characters; it has {bytes}")]
    Length {
        /// How many it has.
        bytes: usize,
    },
    /// A character that names may not have.
    #[error("must be of a to z, 0 to 9, _ and -, and begin with a letter")]
    Character,
    /// The name of the vectors of passages.
    #[error("`{TEXT_FIELD}` is the library's own vectors, which are those of its passages")]
    Text,
}

/// Checks the name of a vector field: it is a key of JSON and part of URLs.
pub fn check_field_name(name: &str) -> Result<(), FieldNameFault> {
    if !(1..=VECTOR_FIELD_NAME_BYTES_MAX).contains(&name.len()) {
        return Err(FieldNameFault::Length { bytes: name.chars().count() });
    }
    let part =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    if !name.bytes().all(part) || !name.as_bytes()[0].is_ascii_lowercase() {
        return Err(FieldNameFault::Character);
    }
    if name == TEXT_FIELD { Err(FieldNameFault::Text) } else { Ok(()) }
}

/// Indices ascending, each with its value.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SparseValue {
    /// Which dimensions.
    pub indices: Vec<u32>,
    /// Their values, finite and not zero.
    pub values: Vec<f32>,
}

/// The value of a vector.
#[derive(Debug, Clone, PartialEq)]
pub enum VectorValue {
    /// The field's dimension of numbers.
    Dense(Vec<f32>),
    /// A number of vectors of the field's dimension.
    Late(Vec<Vec<f32>>),
    /// Few of very many dimensions.
    Sparse(SparseValue),
}

impl VectorValue {
    /// Its kind.
    pub const fn kind(&self) -> VectorKind {
        match self {
            Self::Dense(_) => VectorKind::Dense,
            Self::Late(_) => VectorKind::Late,
            Self::Sparse(_) => VectorKind::Sparse,
        }
    }
}

/// One vector that a document has in a field.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldVector {
    /// Unique within the library.
    pub id: ChunkId,
    /// What it was made from, where that is known; else empty.
    pub text: String,
    /// Its value.
    pub value: VectorValue,
    /// When it was added.
    pub created_at: Timestamp,
    /// Custom metadata of it.
    pub custom: Custom,
}

/// What a document has in one field.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldVectors {
    /// The field.
    pub spec: FieldSpec,
    /// At least one vector.
    pub vectors: Vec<FieldVector>,
}

impl FieldVectors {
    /// About how many bytes they take.
    pub fn bytes(&self) -> usize {
        let numbers = |vector: &FieldVector| match &vector.value {
            VectorValue::Dense(numbers) => numbers.len(),
            VectorValue::Late(rows) => rows.iter().map(Vec::len).sum(),
            VectorValue::Sparse(sparse) => 2 * sparse.indices.len(),
        };
        self.vectors.iter().map(|vector| vector.text.len() + 4 * numbers(vector)).sum()
    }

    /// What a body says of a document's vectors, with the rows that they are found by.
    pub(crate) fn read<'a>(
        spec: &FieldSpec,
        body: &[u8],
        id: DocumentId,
        rows: impl Iterator<Item = &'a [f32]>,
    ) -> Result<Self, DecodeError> {
        let body = BodyReader::new(body)?;
        let mut values = Vec::new();
        for (place, row) in rows.enumerate() {
            values.push(spec.value_of(row, body.value(place)?)?);
        }
        let chunks = body.document(id)?.chunks;
        let vectors = chunks.into_iter().zip(values).map(|(chunk, value)| {
            let Chunk { id, text, created_at, custom, .. } = chunk;
            FieldVector { id, text, value, created_at, custom }
        });
        Ok(Self { spec: spec.clone(), vectors: vectors.collect() })
    }
}

/// Why a value is not one of a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VectorFault {
    /// It is of another kind than the field's vectors.
    #[error("the field holds {expected} vectors, and this one is {got}")]
    Kind {
        /// What the field has.
        expected: VectorKind,
        /// What the vector is.
        got: VectorKind,
    },
    /// It is of another dimension.
    #[error("Vector dimension mismatch: expected {expected}, got {got}")]
    Dimension {
        /// The field's.
        expected: u32,
        /// The vector's.
        got: usize,
    },
    /// It cannot be searched.
    #[error("{0}")]
    Vector(VectorError),
    /// It has none, or too many, vectors for late interaction.
    #[error("1 to {LATE_ROWS_MAX} vectors are compared by late interaction, not {0}")]
    Rows(usize),
    /// One of the vectors for late interaction cannot be compared.
    #[error("vector {row}: {error}")]
    Row {
        /// Which, from 0.
        row: usize,
        /// What is wrong with it.
        error: VectorError,
    },
    /// It has no entry.
    #[error("a sparse vector has 1 to {SPARSE_ENTRIES_MAX} entries")]
    NoEntries,
    /// One of its entries is not as it has to be.
    #[error("{0}")]
    Sparse(#[from] SparseError),
}

impl fmt::Display for VectorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FieldSpec {
    /// Whether another one is the same but for its index.
    pub fn holds_the_same(&self, other: &Self) -> bool {
        (&self.name, self.kind, self.dimension, self.metric, &self.model)
            == (&other.name, other.kind, other.dimension, other.metric, &other.model)
    }

    /// Checks a value, and gives the row that it is found by and what it has besides: of late
    /// interaction the mean of its vectors, of a sparse one its length. O(numbers).
    pub(crate) fn row_of(&self, value: &VectorValue) -> Result<(Vec<f32>, Vec<u8>), VectorFault> {
        if value.kind() != self.kind {
            return Err(VectorFault::Kind { expected: self.kind, got: value.kind() });
        }
        match value {
            VectorValue::Dense(vector) => {
                let (expected, got) = (self.dimension, vector.len());
                if got != expected as usize {
                    return Err(VectorFault::Dimension { expected, got });
                }
                inverse_norm(vector).map_err(VectorFault::Vector)?;
                Ok((vector.clone(), Vec::new()))
            }
            VectorValue::Late(rows) => {
                let row = self.mean_of(rows)?;
                Ok((row, bytemuck::cast_slice::<f32, u8>(&rows.concat()).to_vec()))
            }
            VectorValue::Sparse(sparse) => {
                let length = sparse.check()?;
                let mut out = Writer::with_capacity(4 + 8 * sparse.indices.len());
                out.count(sparse.indices.len());
                out.raw(bytemuck::cast_slice::<u32, u8>(&sparse.indices));
                out.raw(bytemuck::cast_slice::<f32, u8>(&sparse.values));
                Ok((vec![length], out.into_bytes()))
            }
        }
    }

    /// The mean of unit vectors, or the first of them where they cancel out.
    fn mean_of(&self, rows: &[Vec<f32>]) -> Result<Vec<f32>, VectorFault> {
        let dimension = self.dimension as usize;
        let count = rows.len();
        if !(1..=LATE_ROWS_MAX).contains(&count) {
            return Err(VectorFault::Rows(count));
        }
        let mut mean = vec![0.0_f32; dimension];
        for (row, vector) in rows.iter().enumerate() {
            if vector.len() != dimension {
                let (expected, got) = (self.dimension, vector.len());
                return Err(VectorFault::Dimension { expected, got });
            }
            let norm = inverse_norm(vector).map_err(|error| VectorFault::Row { row, error })?;
            for (sum, number) in mean.iter_mut().zip(vector) {
                *sum += number * norm / count as f32;
            }
        }
        Ok(if inverse_norm(&mean).is_ok() { mean } else { rows[0].clone() })
    }

    /// The value of a vector from its row and what it has besides.
    pub(crate) fn value_of(&self, row: &[f32], more: &[u8]) -> Result<VectorValue, DecodeError> {
        let refused = DecodeError { what: "a vector of the field's kind", offset: 0 };
        match self.kind {
            VectorKind::Dense => Ok(VectorValue::Dense(row.to_vec())),
            VectorKind::Late => {
                let floats = floats_of(more).ok_or_else(|| refused.clone())?;
                let rows = floats.chunks_exact(row.len().max(1));
                let whole = !floats.is_empty() && rows.remainder().is_empty();
                let rows = rows.map(<[f32]>::to_vec).collect();
                if whole { Ok(VectorValue::Late(rows)) } else { Err(refused) }
            }
            VectorKind::Sparse => SparseValue::read(more).map(VectorValue::Sparse),
        }
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.text(&self.name);
        out.text(self.kind.name());
        out.u32(self.dimension);
        out.text(self.metric.name());
        write_index(out, self.index);
        out.u8(u8::from(self.model.is_some()));
        if let Some(model) = &self.model {
            out.text(&model.provider);
            out.text(&model.model);
        }
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let name = from.text("name of a vector field")?.to_owned();
        if check_field_name(&name).is_err() {
            return Err(from.error("the name of a vector field"));
        }
        let kind = VectorKind::from_name(from.text("kind of a vector field")?);
        let kind = kind.ok_or_else(|| from.error("a kind of vectors this build knows"))?;
        let dimension = read_dimension(from)?;
        let (metric, index) = (read_metric(from)?, read_index(from)?);
        if index.check_dimension(dimension as usize).is_err() {
            return Err(from.error("an index that the dimension can have"));
        }
        let mut model = None;
        if from.flag("model")? {
            let provider = from.text("provider")?.to_owned();
            model = Some(ModelName { provider, model: from.text("model")?.to_owned() });
        }
        Ok(Self { name, kind, dimension, metric, index, model })
    }
}

/// Little-endian numbers, wherever they lie; `None` if bytes are left over.
pub(crate) fn floats_of(bytes: &[u8]) -> Option<Vec<f32>> {
    let (floats, left) = bytes.as_chunks::<4>();
    left.is_empty().then(|| floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

impl SparseValue {
    /// Checks it: 1 to [`SPARSE_ENTRIES_MAX`] indices that ascend, each with a finite value other than
    /// zero. Its length.
    pub fn check(&self) -> Result<f32, VectorFault> {
        if self.vector()?.is_empty() {
            return Err(VectorFault::NoEntries);
        }
        let length = inverse_norm(&self.values).map_err(VectorFault::Vector)?.recip();
        if length.is_finite() && inverse_norm(&[length]).is_ok() {
            Ok(length)
        } else {
            Err(VectorFault::Vector(VectorError::Zero))
        }
    }

    /// It as what is searched for, checked as [`SparseValue::check`] does. O(entries log entries).
    pub fn query(&self) -> Result<SparseQuery, VectorFault> {
        self.check()?;
        Ok(SparseQuery::new(self.vector()?))
    }

    /// It as what is found.
    pub(crate) fn vector(&self) -> Result<SparseVector<'_>, SparseError> {
        SparseVector::new(&self.indices, &self.values)
    }

    /// Reads `u32 n | u32 * n | f32 * n`.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(bytes);
        let count = from.count(8, "entries of a sparse vector")?;
        let (indices, _none_left) = from.raw(4 * count, "indices")?.as_chunks::<4>();
        let indices = indices.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        let (values, _none_left) = from.raw(4 * count, "values")?.as_chunks::<4>();
        let values = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        from.end()?;
        Ok(Self { indices, values })
    }
}

const _: () =
    assert!(LATE_ROWS_MAX * DIMENSIONS_MAX as usize * 4 <= crate::limits::RECORD_BYTES_MAX);
