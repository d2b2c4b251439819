//! Vectors of vector fields, as bodies have them.

use std::collections::HashSet;

use arrwdb_engine::embed::{
    PICTURE_BYTES_MAX, PICTURE_LINK_BYTES_MAX, PICTURE_URL_BYTES_MAX, Picture, is_data_url,
};
use arrwdb_engine::state::{
    ChunkId, Custom, SparseValue, TEXT_FIELD, Timestamp, VectorValue, limits,
};
use arrwdb_engine::{FieldValue, FieldWanted, NewVector, PutVector, note_picture};
use utoipa::ToSchema;

use super::requests::{read_id, read_time, read_vector, text_within};
use crate::config::RequestLimits;
use crate::json::{Read, Reader};

/// Vectors of one document in a body: in all fields together.
const VECTORS_MAX: usize = limits::VECTORS_PER_FIELD_MAX * 2;

/// A vector of a vector field. Its value is one of `text`, `image_url`, `embedding`, `embeddings` and
/// `sparse`; a `text` beside one of the others says what it was made from, an `image_url` beside the last
/// three of what picture.
#[derive(Debug, Default, ToSchema)]
#[schema(example = json!({"type": "title", "text": "On the stability of heaps"}))]
pub(crate) struct AddVector {
    /// Its id; made by the server when absent.
    #[schema(value_type = Option<String>, format = "uuid")]
    id: Option<ChunkId>,
    /// The field: `title`, `summary`, `code`, `image`, `audio`, `video`, `custom`, or one that was
    /// declared; with `documents/multi-vector` also `text`, which is a passage of the document.
    #[schema(value_type = String, required = true, min_length = 1, max_length = 64)]
    #[schema(rename = "type")]
    kind: Option<String>,
    /// What the field's model makes the vector of.
    #[schema(min_length = 1, max_length = 10000)]
    text: Option<String>,
    /// As many numbers as the field has dimensions.
    embedding: Option<Vec<f32>>,
    /// Several of them, to be compared by late interaction.
    embeddings: Option<Vec<Vec<f32>>>,
    /// Few of very many dimensions.
    sparse: Option<SparseVector>,
    /// The picture that the field's model makes the vector of, or that an `embedding` was made of: a
    /// `data:` URL with the picture in it (PNG, JPEG, WebP or GIF, at most 20 MiB, in base64), or an `http`
    /// or `https` URL, which only some providers fetch, and this server never. It is kept as metadata of
    /// the vector, but for a `data:` URL.
    #[schema(min_length = 1)]
    image_url: Option<String>,
    /// The same, checked, where the vector is to be made of it.
    #[schema(ignore)]
    picture: Option<Picture>,
    /// Custom metadata of the vector, filterable.
    #[schema(value_type = Option<Object>)]
    metadata: Custom,
    /// When it was added, for imports; now when absent.
    #[schema(value_type = Option<String>, format = "date-time")]
    created_at: Option<Timestamp>,
}

/// A sparse vector: indices that ascend, each with a value other than zero.
#[derive(Debug, Default, Clone, ToSchema)]
#[schema(example = json!({"indices": [3, 1041, 20517], "values": [0.5, 1.25, 0.125]}))]
pub(crate) struct SparseVector {
    #[schema(min_items = 1, max_items = 4096)]
    indices: Vec<u32>,
    #[schema(min_items = 1, max_items = 4096)]
    values: Vec<f32>,
}

/// Reads the vectors of a document.
pub(super) fn read_vectors(r: &mut Reader<'_>, limits: &RequestLimits) -> Read<Vec<AddVector>> {
    let mut vectors = Vec::new();
    let (mut count, mut ids) = (0_usize, HashSet::new());
    r.array(|r, _| {
        count += 1;
        let vector = read_one(r, limits)?;
        if vector.id.is_some_and(|id| !ids.insert(id)) {
            r.fault_at("id", "is the id of a vector before it");
        }
        if count <= VECTORS_MAX {
            vectors.push(vector);
        }
        Ok(())
    })?;
    if count > VECTORS_MAX {
        r.fault(format!("must have at most {VECTORS_MAX} elements; it has {count}"));
    }
    Ok(vectors)
}

fn read_one(r: &mut Reader<'_>, limits: &RequestLimits) -> Read<AddVector> {
    let mut vector = AddVector::default();
    r.object(|r, key| {
        match key {
            "id" => vector.id = read_id(r)?,
            "type" | "field" => {
                vector.kind = text_within(r, 1, limits::VECTOR_FIELD_NAME_BYTES_MAX)?;
            }
            "weight" => check_weight(r)?,
            "metadata" => vector.metadata.extend(r.any_object()?.unwrap_or_default()),
            "created_at" => vector.created_at = read_time(r)?,
            key => read_value(&mut vector, r, key, limits)?,
        }
        Ok(())
    })?;
    r.require("type", vector.kind.is_some() || r.has_fault_at("type"));
    check_value(&vector, r, true);
    // A passage that has a text is made of it.
    if vector.kind.as_deref() != Some(TEXT_FIELD) || vector.text.is_none() {
        take_picture(&mut vector, r);
    }
    Ok(vector)
}

/// A vector has no weight of its own that is not 1: queries are weighed.
fn check_weight(r: &mut Reader<'_>) -> Read<()> {
    if r.number()?.is_some_and(|weight| (weight - 1.0).abs() > f64::EPSILON) {
        r.fault("vectors weigh 1: give a weight to the queries of a search");
    }
    Ok(())
}

fn read_value(
    vector: &mut AddVector,
    r: &mut Reader<'_>,
    key: &str,
    limits: &RequestLimits,
) -> Read<()> {
    match key {
        "text" => vector.text = text_within(r, 1, limits.chunk_chars_max)?,
        "embedding" => vector.embedding = read_vector(r)?,
        "embeddings" => vector.embeddings = read_rows(r)?,
        "sparse" => vector.sparse = read_sparse(r)?,
        "image_url" => vector.image_url = read_image_url(r)?,
        _ignored => {}
    }
    Ok(())
}

/// The URL of a picture, of any kind.
pub(super) fn read_image_url(r: &mut Reader<'_>) -> Read<Option<String>> {
    let Some(url) = r.string()? else { return Ok(None) };
    let most = if is_data_url(&url) { PICTURE_URL_BYTES_MAX } else { PICTURE_LINK_BYTES_MAX };
    if (1..=most).contains(&url.len()) {
        return Ok(Some(url));
    }
    let bytes = url.len();
    r.fault(if is_data_url(&url) {
        format!(
            "must hold a picture of at most {PICTURE_BYTES_MAX} bytes, which takes {most} bytes as a data: \
             URL; it has {bytes}"
        )
    } else {
        format!("must have 1 to {most} bytes where it is no data: URL; it has {bytes}")
    });
    Ok(None)
}

/// The picture of a URL that something is to be made of.
pub(super) fn read_picture(r: &mut Reader<'_>) -> Read<Option<Picture>> {
    let Some(url) = read_image_url(r)? else { return Ok(None) };
    Ok(match Picture::parse(url) {
        Ok(picture) => Some(picture),
        Err(fault) => {
            r.fault(fault.to_string());
            None
        }
    })
}

/// What the vector is to be made of, if that is a picture.
fn take_picture(vector: &mut AddVector, r: &mut Reader<'_>) {
    let has_value =
        vector.embedding.is_some() || vector.embeddings.is_some() || vector.sparse.is_some();
    // One that is wrong was to be one.
    let values = ["embedding", "embeddings", "sparse"];
    if has_value || values.iter().any(|name| r.has_fault_at(name)) {
        return;
    }
    let Some(url) = vector.image_url.take() else { return };
    match Picture::parse(url) {
        Ok(picture) => {
            // The picture itself is there once.
            let link = Some(picture.url()).filter(|url| !is_data_url(url));
            vector.image_url = link.map(str::to_owned);
            vector.picture = Some(picture);
        }
        Err(fault) => r.fault_at("image_url", fault.to_string()),
    }
}

/// Several vectors of one size.
fn read_rows(r: &mut Reader<'_>) -> Read<Option<Vec<Vec<f32>>>> {
    let mut rows: Vec<Vec<f32>> = Vec::new();
    let mut count = 0_usize;
    let seen = r.array(|r, _| {
        count += 1;
        let row = read_vector(r)?.unwrap_or_default();
        if rows.first().is_some_and(|first| first.len() != row.len()) {
            r.fault(format!("has {} numbers, the first has {}", row.len(), rows[0].len()));
        }
        if count <= limits::LATE_ROWS_MAX {
            rows.push(row);
        }
        Ok(())
    })?;
    if seen.is_some() && !(1..=limits::LATE_ROWS_MAX).contains(&count) {
        r.fault(format!("must have 1 to {} vectors; it has {count}", limits::LATE_ROWS_MAX));
    }
    Ok(seen.map(|()| rows))
}

fn read_sparse(r: &mut Reader<'_>) -> Read<Option<SparseVector>> {
    let mut sparse = SparseVector::default();
    let (mut indices, mut values) = (false, false);
    let seen = r.object(|r, key| {
        match key {
            "indices" => {
                indices = true;
                let mut count = 0_usize;
                r.array(|r, _| {
                    count += 1;
                    let Some(index) = r.whole()? else { return Ok(()) };
                    match u32::try_from(index) {
                        Ok(index) if count <= limits::SPARSE_ENTRIES_MAX => {
                            sparse.indices.push(index);
                        }
                        Ok(_too_many) => {}
                        Err(_too_large) => r.fault(format!("must be at most {}", u32::MAX)),
                    }
                    Ok(())
                })?;
                check_entries(r, count);
            }
            "values" => {
                values = true;
                let numbers = r.vector(limits::SPARSE_ENTRIES_MAX)?.unwrap_or_default();
                check_entries(r, numbers.len());
                sparse.values = numbers;
            }
            _ignored => {}
        }
        Ok(())
    })?;
    if seen.is_none() {
        return Ok(None);
    }
    r.require("indices", indices);
    r.require("values", values);
    Ok(Some(sparse))
}

fn check_entries(r: &mut Reader<'_>, count: usize) {
    if !(1..=limits::SPARSE_ENTRIES_MAX).contains(&count) && !r.has_own_fault() {
        let max = limits::SPARSE_ENTRIES_MAX;
        r.fault(format!("must have 1 to {max} elements; it has {count}"));
    }
}

/// At most one value; `needed` says whether there has to be one, or a text.
fn check_value(vector: &AddVector, r: &mut Reader<'_>, needed: bool) {
    let AddVector { text, embedding, embeddings, sparse, image_url, .. } = vector;
    let given = [embedding.is_some(), embeddings.is_some(), sparse.is_some()];
    match given.iter().filter(|&&given| given).count() {
        0 | 1 => {}
        _ => r.fault("give at most one of embedding, embeddings and sparse"),
    }
    let any = given.contains(&true) || text.is_some() || image_url.is_some();
    let names = ["text", "embedding", "embeddings", "sparse", "image_url"];
    if needed && !any && !names.iter().any(|name| r.has_fault_at(name)) {
        r.fault("give one of text, image_url, embedding, embeddings and sparse");
    }
}

impl SparseVector {
    fn value(self) -> VectorValue {
        VectorValue::Sparse(SparseValue { indices: self.indices, values: self.values })
    }
}

/// The value that is given, if one is.
fn value_of(
    embedding: Option<Vec<f32>>,
    embeddings: Option<Vec<Vec<f32>>>,
    sparse: Option<SparseVector>,
) -> Option<VectorValue> {
    let late = embeddings.map(VectorValue::Late);
    let dense = embedding.map(VectorValue::Dense);
    dense.or(late).or_else(|| sparse.map(SparseVector::value))
}

impl AddVector {
    /// The field.
    pub(super) fn field(&self) -> &str {
        self.kind.as_deref().unwrap_or_default()
    }

    /// What it has that passages do not have.
    pub(super) fn not_of_passages(&self) -> Option<&'static str> {
        let sparse = self.sparse.is_some().then_some("sparse");
        let picture = self.picture.is_some().then_some("image_url");
        self.embeddings.is_some().then_some("embeddings").or(sparse).or(picture)
    }

    /// A passage of the document, where the vector is one of the library's own.
    pub(super) fn into_chunk(mut self, title: &str) -> arrwdb_engine::PutChunk {
        self.keep_url();
        let text = self.text.unwrap_or_else(|| title.to_owned());
        let (id, embedding, created_at) = (self.id, self.embedding, self.created_at);
        let custom = self.metadata;
        arrwdb_engine::PutChunk { id, text, embedding, created_at, page_number: None, custom }
    }

    /// Where the picture is becomes metadata.
    fn keep_url(&mut self) {
        if let Some(url) = self.image_url.take() {
            note_picture(&mut self.metadata, url);
        }
    }

    /// What the engine takes; `place` is its place among the vectors of the body.
    pub(super) fn into_put(mut self, place: usize) -> PutVector {
        self.keep_url();
        PutVector {
            id: self.id,
            field: self.kind.unwrap_or_default(),
            text: self.text.unwrap_or_default(),
            value: value_of(self.embedding, self.embeddings, self.sparse),
            picture: self.picture,
            created_at: self.created_at,
            custom: self.metadata,
            pointer: format!("/vectors/{place}"),
        }
    }
}

/// What to change of a vector.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"embedding": [0.5, 0.5, 0.1]}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
pub(super) struct ChangeVector {
    /// What it is made from: without a value or a picture the field's model makes it anew.
    #[schema(min_length = 1, max_length = 10000)]
    text: Option<String>,
    /// The picture that it is made of: without a value the field's model makes it anew.
    #[schema(min_length = 1)]
    image_url: Option<String>,
    /// As many numbers as the field has dimensions.
    embedding: Option<Vec<f32>>,
    /// Several of them, for late interaction.
    embeddings: Option<Vec<Vec<f32>>>,
    /// Few of very many dimensions.
    sparse: Option<SparseVector>,
    /// Custom metadata, in place of what it has.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Custom>,
}

/// Reads what to change of a vector.
pub(super) fn read_change(r: &mut Reader<'_>, limits: &RequestLimits) -> Read<NewVector> {
    let mut vector = AddVector::default();
    let mut custom = None;
    r.object(|r, key| {
        match key {
            "metadata" => custom = r.any_object()?,
            key => read_value(&mut vector, r, key, limits)?,
        }
        Ok(())
    })?;
    check_value(&vector, r, custom.is_none());
    take_picture(&mut vector, r);
    let AddVector { text, image_url, picture, .. } = vector;
    let value = value_of(vector.embedding, vector.embeddings, vector.sparse);
    Ok(NewVector { text, value, picture, image_url, custom })
}

/// A query of a search of several fields: one of `query`, `image_url`, `embedding`, `embeddings` and
/// `sparse`.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"type": "title", "query": "stable heaps", "weight": 0.5}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
pub(super) struct FieldQueryBody {
    /// The field; `text` is the library's own vectors.
    #[schema(min_length = 1, max_length = 64)]
    r#type: String,
    /// What to find in words, embedded with the field's model.
    #[schema(min_length = 1, max_length = 1000)]
    query: Option<String>,
    /// What to find as a picture, embedded with the field's model: as that of a vector to add.
    #[schema(min_length = 1)]
    image_url: Option<String>,
    /// What to find as a vector.
    embedding: Option<Vec<f32>>,
    /// What to find as several vectors, by late interaction.
    embeddings: Option<Vec<Vec<f32>>>,
    /// What to find as a sparse vector.
    sparse: Option<SparseVector>,
    /// How much it counts.
    #[schema(minimum = 0.0, maximum = 1_000_000.0, default = 1.0)]
    weight: Option<f64>,
}

/// Reads a query of a field; `pointer` is where it is.
pub(super) fn read_field_query(
    r: &mut Reader<'_>,
    query_chars_max: usize,
    pointer: String,
) -> Read<FieldWanted> {
    let (mut field, mut query, mut weight) = (None, None, None);
    let (mut embedding, mut embeddings, mut sparse, mut picture) = (None, None, None, None);
    r.object(|r, key| {
        match key {
            "type" | "field" => field = text_within(r, 1, limits::VECTOR_FIELD_NAME_BYTES_MAX)?,
            "query" | "text" => query = text_within(r, 1, query_chars_max)?,
            "embedding" => embedding = read_vector(r)?,
            "embeddings" => embeddings = read_rows(r)?,
            "sparse" => sparse = read_sparse(r)?,
            "weight" => weight = r.number()?,
            "image_url" => picture = read_picture(r)?,
            _ignored => {}
        }
        Ok(())
    })?;
    r.require("type", field.is_some() || r.has_fault_at("type"));
    let given = [
        query.is_some(),
        picture.is_some(),
        embedding.is_some(),
        embeddings.is_some(),
        sparse.is_some(),
    ];
    let names = ["query", "image_url", "embedding", "embeddings", "sparse"];
    let faulty = names.iter().any(|name| r.has_fault_at(name));
    if !faulty && given.iter().filter(|&&given| given).count() != 1 {
        r.fault("give exactly one of query, image_url, embedding, embeddings and sparse");
    }
    let value = value_of(embedding, embeddings, sparse).map(FieldValue::Vector);
    let value = value.or_else(|| picture.map(FieldValue::Picture));
    Ok(FieldWanted {
        field: field.unwrap_or_default(),
        value: value.unwrap_or_else(|| FieldValue::Text(query.unwrap_or_default())),
        weight: weight.unwrap_or(1.0),
        pointer,
    })
}
