//! Vector fields: which a library has, what a document has in them, and how its vectors are made.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrwdb_embed::{InputType, Picture};
use arrwdb_state::limits::{CHUNK_CHARS_MAX, DIMENSIONS_MAX, VECTOR_FIELDS_MAX};
use arrwdb_state::{
    Chunk, ChunkId, Command, Custom, DocumentId, Fate, FieldNameFault, FieldSpec, FieldVector,
    FieldVectors, IndexSpec, LibraryId, LibrarySpec, Metric, ModelName, TenantId, Timestamp,
    VectorKind, VectorValue, View, check_field_name, check_norm,
};

use crate::engine::Inner;
use crate::error::{EngineError, RETRY_AFTER};
use crate::indexing::check_index;
use crate::maintenance::blocking;
use crate::moment::Moment;
use crate::pictures::{IMAGE_URL, Source, changed_metadata, not_of_passages};
use crate::put::check_custom;
use crate::request::{FieldModel, NewField, NewLibrary, PutVector, Written};
use crate::search::model_of;
use crate::system::new_uuid;

/// Vector fields that need not be declared: the first document that has a vector there declares them,
/// as is usual for what it has.
pub const WELL_KNOWN_FIELDS: [&str; 7] =
    ["image", "audio", "video", "code", "title", "summary", "custom"];

/// How often a change of a document is tried again whose document somebody else changed meanwhile.
const REPLACE_TRIES_MAX: usize = 16;

/// What to change of a vector; `None` leaves it, but a new picture or text without a vector is embedded.
#[derive(Debug, Clone, Default)]
pub struct NewVector {
    /// What it is made from.
    pub text: Option<String>,
    /// Its value.
    pub value: Option<VectorValue>,
    /// What its value is made of.
    pub picture: Option<Picture>,
    /// Where a picture is that the value was made of elsewhere, for its metadata.
    pub image_url: Option<String>,
    /// Custom metadata of it, in place of what it has.
    pub custom: Option<Custom>,
}

impl NewVector {
    /// The URL of its picture, if that changes.
    fn shown_at(&self) -> Option<&str> {
        self.image_url.as_deref().or_else(|| self.picture.as_ref().map(Picture::url))
    }
}

/// Those of them whose vectors are of texts.
const OF_TEXTS: [&str; 4] = ["code", "title", "summary", "custom"];

/// The one whose vectors are of pictures.
const OF_PICTURES: &str = "image";

/// What a document will have in vector fields, some values still missing.
#[derive(Debug, Clone, Default)]
pub(crate) struct FieldDrafts(Vec<FieldDraft>);

#[derive(Debug, Clone)]
struct FieldDraft {
    spec: Arc<FieldSpec>,
    id: ChunkId,
    text: String,
    value: Option<VectorValue>,
    /// What the value is to be made of, in place of the text.
    picture: Option<Picture>,
    created_at: Timestamp,
    custom: Custom,
    pointer: String,
}

impl FieldDrafts {
    /// What needs a vector of the models of texts that these need them of, of another text.
    pub(crate) fn with_text(&self, text: &str) -> Self {
        let is_missing = |draft: &&FieldDraft| draft.value.is_none() && draft.picture.is_none();
        let mut drafts: Vec<FieldDraft> = self.0.iter().filter(is_missing).cloned().collect();
        drafts.dedup_by(|one, other| one.spec.name == other.spec.name);
        for draft in &mut drafts {
            text.clone_into(&mut draft.text);
        }
        Self(drafts)
    }

    /// Those of a document that had them all.
    pub(crate) fn of(fields: Vec<FieldVectors>) -> Self {
        let mut drafts = Vec::new();
        for FieldVectors { spec, vectors } in fields {
            let spec = Arc::new(spec);
            for (place, vector) in vectors.into_iter().enumerate() {
                let FieldVector { id, text, value, created_at, custom } = vector;
                let (spec, pointer) = (spec.clone(), format!("/vectors/{place}"));
                let (value, picture) = (Some(value), None);
                drafts.push(FieldDraft {
                    spec,
                    id,
                    text,
                    value,
                    picture,
                    created_at,
                    custom,
                    pointer,
                });
            }
        }
        Self(drafts)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// About how many bytes they take in a record.
    pub(crate) fn bytes(&self) -> usize {
        let numbers = |draft: &FieldDraft| match &draft.value {
            None => draft.spec.dimension as usize,
            Some(VectorValue::Dense(vector)) => vector.len(),
            Some(VectorValue::Late(rows)) => rows.iter().map(Vec::len).sum(),
            Some(VectorValue::Sparse(sparse)) => 2 * sparse.indices.len(),
        };
        self.0.iter().map(|draft| 128 + draft.text.len() + 4 * numbers(draft)).sum()
    }

    /// The vectors by field; every value is there.
    pub(crate) fn finish(self) -> Vec<FieldVectors> {
        let mut fields: BTreeMap<String, FieldVectors> = BTreeMap::new();
        for FieldDraft { spec, id, text, value, created_at, custom, picture: _, pointer: _ } in
            self.0
        {
            let Some(value) = value else { continue };
            let none = || FieldVectors { spec: FieldSpec::clone(&spec), vectors: Vec::new() };
            let field = fields.entry(spec.name.clone()).or_insert_with(none);
            field.vectors.push(FieldVector { id, text, value, created_at, custom });
        }
        fields.into_values().collect()
    }

    /// What the caller called the value of the `n`-th vector of a field.
    pub(crate) fn pointer(&self, field: &str, n: usize) -> Option<String> {
        let mut of_field = self.0.iter().filter(|draft| draft.spec.name == field);
        let draft = of_field.nth(n)?;
        Some(format!("{}/{}", draft.pointer, draft.value.as_ref().map_or("text", value_key)))
    }
}

impl Inner {
    /// What documents will have in vector fields, in the order of the documents; one that breaks a rule
    /// is refused by itself.
    pub(crate) fn field_drafts(
        &self,
        (spec, view): (&LibrarySpec, &View),
        put: Vec<(Vec<PutVector>, Timestamp)>,
    ) -> Vec<Result<FieldDrafts, EngineError>> {
        let mut known: BTreeMap<String, Arc<FieldSpec>> = BTreeMap::new();
        let there = view.fields().values().map(arrwdb_state::Field::spec);
        known.extend(there.map(|field| (field.name.clone(), field.clone())));
        let mut of_document = |(vectors, at): (Vec<PutVector>, Timestamp)| {
            let mut drafts = FieldDrafts::default();
            let mut declared = known.clone();
            for vector in vectors {
                drafts.0.push(self.field_draft(spec, &mut declared, vector, at)?);
            }
            // A document that is refused declares nothing.
            known = declared;
            Ok(drafts)
        };
        put.into_iter().map(&mut of_document).collect()
    }

    fn field_draft(
        &self,
        library: &LibrarySpec,
        known: &mut BTreeMap<String, Arc<FieldSpec>>,
        put: PutVector,
        at: Timestamp,
    ) -> Result<FieldDraft, EngineError> {
        let PutVector { id, field, text, value, picture, created_at, custom, pointer } = put;
        check_custom(&custom, &format!("{pointer}/metadata"))?;
        check_chars(&text, self.config.chunk_chars_max, &pointer)?;
        let source = Source::of(value.as_ref(), picture.as_ref(), &text);
        let spec = if let Some(spec) = known.get(&field) {
            spec.clone()
        } else {
            let spec = Arc::new(self.usual(library, (&field, source), &pointer)?);
            if known.len() >= VECTOR_FIELDS_MAX {
                let detail = format!(
                    "the library has {VECTOR_FIELDS_MAX} vector fields, which is the limit, and none \
                     is called `{field}`"
                );
                return Err(invalid(format!("{pointer}/type"), detail));
            }
            known.insert(field, spec.clone());
            spec
        };
        match source {
            Source::Value(VectorValue::Dense(vector)) => {
                check_length(vector, spec.metric, &format!("{pointer}/embedding"))?;
            }
            Source::Value(VectorValue::Late(_) | VectorValue::Sparse(_)) => {}
            Source::Picture(picture) => self.check_picture((library, &spec), picture, &pointer)?,
            Source::Text(text) => check_text(&spec, text, &pointer)?,
        }
        let id = id.unwrap_or_else(|| ChunkId::new(new_uuid(at, &*self.parts.random)));
        let created_at = created_at.unwrap_or(at);
        Ok(FieldDraft { spec, id, text, value, picture, created_at, custom, pointer })
    }

    /// What a well-known field is, declared by the first vector that is put there.
    fn usual(
        &self,
        library: &LibrarySpec,
        (name, source): (&str, Source<'_>),
        pointer: &str,
    ) -> Result<FieldSpec, EngineError> {
        let field = format!("{pointer}/type");
        check_name(name, &field)?;
        if !WELL_KNOWN_FIELDS.contains(&name) {
            let detail = format!(
                "the library has no vector field `{name}`: declare it with PUT \
                 /v1/libraries/{}/vector-fields/{name}, or use one of text, {}",
                library.id,
                WELL_KNOWN_FIELDS.join(", ")
            );
            return Err(invalid(field, detail));
        }
        // Vectors of pictures that callers make are of a model of theirs.
        let is_made = match source {
            Source::Picture(_) => OF_TEXTS.contains(&name) || name == OF_PICTURES,
            Source::Value(_) | Source::Text(_) => OF_TEXTS.contains(&name),
        };
        let has_model = || is_made && model_of(library, "").is_ok();
        let (kind, dimension) = match source {
            Source::Text(_) | Source::Picture(_) if has_model() => {
                (VectorKind::Dense, library.dimension)
            }
            Source::Text(_) => return Err(needs_vector(name, pointer)),
            Source::Picture(_) => return Err(self.no_model_of_pictures(name, pointer)),
            Source::Value(VectorValue::Dense(vector)) => (VectorKind::Dense, size(vector.len())),
            Source::Value(VectorValue::Sparse(_)) => (VectorKind::Sparse, 1),
            Source::Value(VectorValue::Late(_)) => {
                let detail = format!(
                    "declare `{name}` as a field for late interaction first, with its dimension: PUT \
                     /v1/libraries/{}/vector-fields/{name}",
                    library.id
                );
                return Err(invalid(field, detail));
            }
        };
        if !(1..=DIMENSIONS_MAX).contains(&dimension) {
            let detail = format!("a vector has 1 to {DIMENSIONS_MAX} dimensions, not {dimension}");
            return Err(EngineError::Vector { field: format!("{pointer}/embedding"), detail });
        }
        let dense = kind == VectorKind::Dense;
        let model =
            (dense && dimension == library.dimension && has_model()).then(|| library.model.clone());
        let metric = if dense { library.metric } else { Metric::Dot };
        let fits = dense && library.index.check_dimension(dimension as usize).is_ok();
        let index = if fits { library.index } else { IndexSpec::default() };
        Ok(FieldSpec { name: name.to_owned(), kind, dimension, metric, index, model })
    }

    /// Makes the values that are missing, in one call for each model.
    pub(crate) async fn embed_fields(
        self: &Arc<Self>,
        library: &LibrarySpec,
        drafts: &mut [&mut FieldDrafts],
    ) -> Result<(), EngineError> {
        let missing = |draft: &&mut FieldDraft| draft.value.is_none();
        let mut by_model: BTreeMap<_, Vec<&mut FieldDraft>> = BTreeMap::new();
        for draft in drafts.iter_mut().flat_map(|drafts| &mut drafts.0).filter(missing) {
            let Some(model) = draft.spec.model.clone() else { continue };
            let of_picture = draft.picture.is_some();
            let key = (model.provider, model.model, draft.spec.dimension, of_picture);
            by_model.entry(key).or_default().push(draft);
        }
        for ((.., of_picture), drafts) in by_model {
            let Some(spec) = drafts.first().map(|draft| draft.spec.clone()) else { continue };
            let of_field = as_library(library, &spec);
            let vectors = if of_picture {
                // They are kept until they have vectors: a call that fails may be tried again.
                let pictures = drafts.iter().filter_map(|draft| draft.picture.clone()).collect();
                self.embed_pictures(&of_field, "", (InputType::Document, pictures)).await?
            } else {
                let texts = drafts.iter().map(|draft| draft.text.clone()).collect();
                self.embed_texts(&of_field, "", (InputType::Document, texts)).await?
            };
            let vectors = vectors.chunks_exact(spec.dimension as usize);
            for (draft, vector) in drafts.into_iter().zip(vectors) {
                draft.value = Some(VectorValue::Dense(vector.to_vec()));
                draft.picture = None;
            }
        }
        Ok(())
    }

    /// Changes one vector of a document, a passage's or one of a field; the document is a new version of
    /// itself, the vector's id stays.
    pub(crate) async fn put_vector(
        self: &Arc<Self>,
        (tenant, library): (TenantId, LibraryId),
        (document, vector): (DocumentId, ChunkId),
        new: NewVector,
    ) -> Result<Written<()>, EngineError> {
        self.check_disk()?;
        for _try in 0..REPLACE_TRIES_MAX {
            let snapshot = self.snapshot(tenant, library, Moment::default()).await?;
            let (view, of) = (snapshot.view.clone(), snapshot.spec.clone());
            let read = move || {
                let version = view.born(document)?;
                let whole = view.document(document, true)?;
                Ok((version.zip(whole), view.field_vectors(document)?))
            };
            let (found, fields) = blocking(read).await?;
            let (version, mut whole) = found.ok_or(EngineError::DocumentNotFound(document))?;
            let mut fields = FieldDrafts::of(fields);
            let is_it = |chunk: &&mut Chunk| chunk.id == vector;
            if let Some(chunk) = whole.chunks.iter_mut().find(is_it) {
                self.change_chunk(&of, chunk, &new).await?;
            } else if !self.change_vector(&of, &mut fields, (vector, &new)).await? {
                return Err(EngineError::VectorNotFound(vector));
            }
            let record = self.record_of(whole, fields, of.dimension).await?;
            let done =
                self.write_one((tenant, library), &Command::Replace(record, version)).await?;
            if done.fates.first() != Some(&Fate::Absent) {
                return Ok(Written { seq: done.seq, value: () });
            }
            // Somebody else was faster: it is done anew on what they wrote.
        }
        let retry_after = RETRY_AFTER;
        Err(EngineError::Busy { what: "the queue of changes of this document", retry_after })
    }

    async fn change_chunk(
        self: &Arc<Self>,
        library: &LibrarySpec,
        chunk: &mut Chunk,
        new: &NewVector,
    ) -> Result<(), EngineError> {
        if new.picture.is_some() && new.text.is_none() {
            return Err(not_of_passages());
        }
        if let Some(text) = &new.text {
            check_chars(text, self.config.chunk_chars_max, "")?;
            if text.trim().is_empty() {
                let detail = "the text of a passage cannot be blank".into();
                return Err(EngineError::Blank { field: "/text".into(), detail });
            }
            chunk.text.clone_from(text);
        }
        match &new.value {
            Some(VectorValue::Dense(vector)) => {
                check_length(vector, library.metric, "/embedding")?;
                chunk.embedding.clone_from(vector);
            }
            Some(other) => {
                let detail = format!("passages have dense vectors, and this is {}", other.kind());
                let field = format!("/{}", value_key(other));
                return Err(EngineError::Vector { field, detail });
            }
            None if new.text.is_some() => {
                let texts = (InputType::Document, vec![chunk.text.clone()]);
                chunk.embedding = self.embed_texts(library, "/text", texts).await?;
            }
            None => {}
        }
        let image_url = new.shown_at();
        if new.custom.is_some() || image_url.is_some() {
            chunk.custom = changed_metadata(&chunk.custom, new.custom.as_ref(), image_url);
            check_custom(&chunk.custom, "/metadata")?;
        }
        Ok(())
    }

    /// Whether there is such a vector, which is changed.
    async fn change_vector(
        self: &Arc<Self>,
        library: &LibrarySpec,
        fields: &mut FieldDrafts,
        (id, new): (ChunkId, &NewVector),
    ) -> Result<bool, EngineError> {
        let Some(draft) = fields.0.iter_mut().find(|draft| draft.id == id) else {
            return Ok(false);
        };
        draft.pointer = String::new();
        if let Some(text) = &new.text {
            check_chars(text, self.config.chunk_chars_max, "")?;
            draft.text.clone_from(text);
        }
        if new.value.is_some() || new.picture.is_some() || new.text.is_some() {
            if let Some(VectorValue::Dense(vector)) = &new.value {
                check_length(vector, draft.spec.metric, "/embedding")?;
            }
            draft.value.clone_from(&new.value);
            draft.picture.clone_from(&new.picture);
            if new.value.is_none() && new.picture.is_none() {
                // It is made of its text from here on.
                draft.custom.remove(IMAGE_URL);
            }
        }
        match Source::of(draft.value.as_ref(), draft.picture.as_ref(), &draft.text) {
            Source::Value(_) => {}
            Source::Picture(picture) => self.check_picture((library, &draft.spec), picture, "")?,
            Source::Text(text) => check_text(&draft.spec, text, "")?,
        }
        let image_url = new.shown_at();
        if new.custom.is_some() || image_url.is_some() {
            draft.custom = changed_metadata(&draft.custom, new.custom.as_ref(), image_url);
            check_custom(&draft.custom, "/metadata")?;
        }
        self.embed_fields(library, &mut [fields]).await?;
        Ok(true)
    }

    /// Declares a vector field, or has one searched by something else.
    pub(crate) async fn put_field(
        self: &Arc<Self>,
        (tenant, library): (TenantId, LibraryId),
        new: NewField,
    ) -> Result<Written<FieldSpec>, EngineError> {
        check_name(&new.name, "/name")?;
        self.check_disk()?;
        let (spec, _handle, _since) = self.placed(tenant, library, None).await?;
        let field = self.field_of(&spec, new)?;
        let command = Command::PutField(field.clone());
        let done = self.write_one((tenant, library), &command).await?;
        if let Ok(handle) = self.active(library) {
            self.want_indexes(&handle);
        }
        Ok(Written { seq: done.seq, value: field })
    }

    fn field_of(&self, library: &LibrarySpec, new: NewField) -> Result<FieldSpec, EngineError> {
        let NewField { name, kind, dimension, metric, index, model } = new;
        let index = index.unwrap_or_default();
        if kind != VectorKind::Dense {
            let only = match kind {
                VectorKind::Late => Metric::Cosine,
                VectorKind::Sparse | VectorKind::Dense => Metric::Dot,
            };
            if metric.is_some_and(|metric| metric != only) {
                let detail = format!("{kind} vectors are compared by {}", only.name());
                return Err(invalid("/metric", detail));
            }
            if model.is_some() {
                let detail = format!("{kind} vectors are given by the caller: leave the model out");
                return Err(invalid("/embedding_model", detail));
            }
        }
        if kind == VectorKind::Sparse {
            if dimension.is_some() || !index.is_plain() {
                let detail = "sparse vectors have no dimension, and an inverted index";
                return Err(invalid("/kind", detail.into()));
            }
            let (dimension, metric, model) = (1, Metric::Dot, None);
            return Ok(FieldSpec { name, kind, dimension, metric, index, model });
        }
        let (model, dimension) = self.field_model(library, model, dimension)?;
        check_index(index, dimension)?;
        let metric = metric.unwrap_or(Metric::Cosine);
        Ok(FieldSpec { name, kind, dimension, metric, index, model })
    }

    fn field_model(
        &self,
        library: &LibrarySpec,
        model: Option<FieldModel>,
        dimension: Option<u32>,
    ) -> Result<(Option<ModelName>, u32), EngineError> {
        let (provider, model) = match model {
            None => {
                let dimension = dimension.ok_or_else(|| {
                    let detail = "a field without a model needs a dimension".to_owned();
                    invalid("/dimension", detail)
                })?;
                if !(1..=DIMENSIONS_MAX).contains(&dimension) {
                    let detail = format!("a vector has 1 to {DIMENSIONS_MAX} dimensions");
                    return Err(invalid("/dimension", detail));
                }
                return Ok((None, dimension));
            }
            Some(FieldModel::Library) => {
                model_of(library, "/embedding_model")?;
                if dimension.is_some_and(|dimension| dimension != library.dimension) {
                    let detail =
                        format!("the library's model has {} dimensions", library.dimension);
                    return Err(invalid("/dimension", detail));
                }
                return Ok((Some(library.model.clone()), library.dimension));
            }
            Some(FieldModel::Named { provider, model }) => (provider, model),
        };
        let new = NewLibrary {
            name: String::new(),
            description: None,
            index: IndexSpec::default(),
            metric: Metric::Cosine,
            language: library.language,
            embedding_provider: provider,
            embedding_model: model,
            embedding_dimension: dimension,
        };
        let (model, dimension) = self.model_for(&new)?;
        Ok((Some(model), dimension))
    }
}

/// Refuses a text that is too long for a passage.
/// Refuses a vector whose distances could not be told.
fn check_length(vector: &[f32], metric: Metric, field: &str) -> Result<(), EngineError> {
    check_norm(metric, vector).map_err(|error| EngineError::Vector {
        field: field.to_owned(),
        detail: format!("the vector is invalid: {error}"),
    })
}

fn check_chars(text: &str, most: usize, pointer: &str) -> Result<(), EngineError> {
    let (chars, max) = (text.chars().count(), most.min(CHUNK_CHARS_MAX));
    if chars <= max {
        return Ok(());
    }
    let detail = format!("the text has {chars} characters; the limit is {max}");
    Err(invalid(format!("{pointer}/text"), detail))
}

/// The library as one whose model is the field's, for who embeds texts.
pub(crate) fn as_library(library: &LibrarySpec, field: &FieldSpec) -> LibrarySpec {
    let model = field.model.clone().unwrap_or_else(|| library.model.clone());
    LibrarySpec { model, dimension: field.dimension, ..library.clone() }
}

/// Refuses a text that the field makes no vector of.
fn check_text(spec: &FieldSpec, text: &str, pointer: &str) -> Result<(), EngineError> {
    if spec.model.is_none() {
        return Err(needs_vector(&spec.name, pointer));
    }
    if text.trim().is_empty() {
        let detail = "the text is blank, and no vector is given".into();
        return Err(EngineError::Blank { field: format!("{pointer}/text"), detail });
    }
    Ok(())
}

/// What a value of this kind is called in a body.
pub(crate) fn value_key(value: &VectorValue) -> &'static str {
    match value {
        VectorValue::Dense(_) => "embedding",
        VectorValue::Late(_) => "embeddings",
        VectorValue::Sparse(_) => "sparse",
    }
}

fn needs_vector(name: &str, pointer: &str) -> EngineError {
    EngineError::Vector {
        field: format!("{pointer}/embedding"),
        detail: format!(
            "the vector field `{name}` has no embedding model: give the vector itself as `embedding`"
        ),
    }
}

fn check_name(name: &str, field: &str) -> Result<(), EngineError> {
    check_field_name(name).map_err(|fault: FieldNameFault| invalid(field, fault.to_string()))
}

fn size(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn invalid(field: impl Into<String>, detail: String) -> EngineError {
    EngineError::Invalid { field: field.into(), detail }
}
