//! Documents of several vectors, and the fields that these are in.

use arrwdb_engine::state::{
    Custom, DocumentId, Field, FieldSpec, LibrarySpec, Metric, TEXT_FIELD, VectorKind,
    check_field_name,
};
use arrwdb_engine::{EngineError, FieldModel, NewField};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::{as_text, index_config};
use super::documents::read_whole;
use super::export::ask_embeddings;
use super::index_settings::{IndexSettings, read_metric};
use super::libraries::{read_dimension, read_provider};
use super::requests::read_multi_vector;
use super::seq_header;
use super::vector_answers::{DocumentVectors, VectorAnswer, VectorHead};
use super::vector_requests::{AddVector, ChangeVector, read_change};
use crate::app::App;
use crate::extract::{
    DocumentInLibrary, LibraryPath, PathName, QueryPairs, VectorInDocument, WholeBody, read_json,
};
use crate::json::{Read, Reader};
use crate::metrics::Added;
use crate::moment::At;
use crate::openapi::{EmbeddingErrors, ReadErrors, WriteErrors};
use crate::principal::Principal;
use crate::problem::Problem;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(add))
        .routes(routes!(vectors))
        .routes(routes!(put_vector))
        .routes(routes!(fields))
        .routes(routes!(put_field))
}

/// A document given by its vectors.
#[derive(Debug, ToSchema)]
#[schema(example = json!({
    "title": "On the stability of heaps",
    "vectors": [
        {"type": "text", "text": "A heap is stable if what came first leaves first."},
        {"type": "title", "text": "On the stability of heaps"},
        {"type": "image", "embedding": [0.12, -0.05, 0.33], "metadata": {"page": 3}}
    ],
    "metadata": {"year": 2026}
}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
struct AddMultiVector {
    /// The document's id; made by the server when absent. A document of this id is replaced.
    #[schema(format = "uuid")]
    id: Option<String>,
    #[schema(min_length = 1, max_length = 1000)]
    title: String,
    /// Its vectors. Those of the type `text` are its passages, found by every search; where there are
    /// none, its title is its only passage.
    #[schema(min_items = 1)]
    vectors: Vec<AddVector>,
    author: Option<String>,
    #[schema(default = "text")]
    document_type: Option<String>,
    source_url: Option<String>,
    tags: Option<Vec<String>>,
    /// Custom metadata: any JSON, returned as given and filterable.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Custom>,
    #[schema(format = "date-time")]
    created_at: Option<String>,
}

/// A document of several vectors.
#[derive(Debug, Serialize, ToSchema)]
struct MultiVectorAnswer {
    #[schema(value_type = String, format = "uuid")]
    #[serde(serialize_with = "as_text")]
    id: DocumentId,
    title: String,
    /// Its passages, then its vectors in fields.
    vectors: Vec<VectorHead>,
    /// Custom metadata of the document.
    #[schema(value_type = Object)]
    metadata: Custom,
}

/// Adds a document given by several vectors: passages, and vectors of other fields. Fields of the
/// well-known types are declared by the first vector that comes. Texts are embedded by the field's
/// model, and pictures, where it belongs to a provider that is set up for them; vectors of sounds and
/// films are given by the caller.
#[utoipa::path(post, operation_id = "add_multi_vector_document", path = "/libraries/{library_id}/documents/multi-vector", tag = "vector fields",
    params(("library_id" = String, Path, format = "uuid", description = "The library")),
    request_body = AddMultiVector,
    responses((status = 201, description = "Added: durable and visible", body = MultiVectorAnswer), WriteErrors, EmbeddingErrors))]
async fn add(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let limits = &app.config().limits;
    let (document, passages) = read_json(&body, |r| read_multi_vector(r, limits))?;
    let tenant = principal.tenant;
    let named = |error: EngineError| Problem::from(error).renamed(|it| in_vectors(it, &passages));
    let written = app.engine().put_documents(tenant, library, vec![document]).await;
    let written = written.map_err(named)?;
    let nothing = || Problem::hidden(&crate::problem::INTERNAL, "a write answered nothing");
    let receipt = written.value.into_iter().next().ok_or_else(nothing)?.map_err(named)?;
    let snapshot = app.engine().library(tenant, library, Some(written.seq)).await?;
    let spec = snapshot.spec().clone();
    app.metrics().added(library, spec.index.name(), Added::of(&receipt));
    let (document, fields) = read_whole(snapshot, receipt.id).await?;
    let (id, title) = (document.id, document.metadata.title.clone());
    let metadata = document.metadata.custom.clone();
    let vectors = VectorAnswer::all((document, fields), &spec, false);
    let vectors = vectors.into_iter().map(|vector| vector.head).collect();
    let answer = MultiVectorAnswer { id, title, vectors, metadata };
    Ok((StatusCode::CREATED, seq_header(written.seq), Json(answer)).into_response())
}

/// Where in `vectors` that is which a document has in `chunks`; `passages` are the places of its texts.
fn in_vectors(pointer: &str, passages: &[usize]) -> Option<String> {
    let rest = pointer.strip_prefix("/chunks/")?;
    let (chunk, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let place = passages.get(chunk.parse::<usize>().ok()?)?;
    Some(format!("/vectors/{place}{rest}"))
}

/// All vectors of a document: its passages, then those in fields.
#[utoipa::path(get, operation_id = "get_document_vectors", path = "/libraries/{library_id}/documents/{document_id}/vectors", tag = "vector fields",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("document_id" = String, Path, format = "uuid", description = "The document"),
        ("include_embeddings" = Option<bool>, Query, description = "Whether vectors come with their numbers [false]"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
        ("as_of" = Option<u64>, Query, description = "Read what was there after this write, as far back as history is kept"),
    ),
    responses((status = 200, description = "The vectors", body = DocumentVectors), ReadErrors))]
async fn vectors(
    principal: Principal,
    State(app): State<App>,
    DocumentInLibrary { library, id }: DocumentInLibrary,
    At(at): At,
    query: QueryPairs,
) -> Result<Response, Problem> {
    let embeddings = ask_embeddings(&query, false)? == arrwdb_engine::Embeddings::Included;
    let snapshot = app.engine().library(principal.tenant, library, at).await?;
    let (spec, seq) = (snapshot.spec().clone(), snapshot.seq());
    let whole = read_whole(snapshot, id).await?;
    let vectors = VectorAnswer::all(whole, &spec, embeddings);
    Ok((seq_header(seq), Json(DocumentVectors { document_id: id, vectors })).into_response())
}

/// Changes one vector of a document, of a passage or of a field. What is left out stays as it is; a new
/// `text`, or a new picture, without a vector is embedded. Passages keep their ids.
#[utoipa::path(put, operation_id = "put_document_vector", path = "/libraries/{library_id}/documents/{document_id}/vectors/{vector_id}", tag = "vector fields",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("document_id" = String, Path, format = "uuid", description = "The document"),
        ("vector_id" = String, Path, format = "uuid", description = "The vector"),
    ),
    request_body = ChangeVector,
    responses((status = 200, description = "The vector as it is now: durable and visible", body = VectorAnswer), WriteErrors, EmbeddingErrors))]
async fn put_vector(
    principal: Principal,
    State(app): State<App>,
    VectorInDocument { library, document, vector }: VectorInDocument,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let limits = &app.config().limits;
    let change = read_json(&body, |r| read_change(r, limits))?;
    let tenant = principal.tenant;
    let of = (document, vector);
    let written = app.engine().put_vector(tenant, library, of, change).await?;
    let snapshot = app.engine().library(tenant, library, Some(written.seq)).await?;
    let spec = snapshot.spec().clone();
    let whole = read_whole(snapshot, document).await?;
    let all = VectorAnswer::all(whole, &spec, true);
    let found = all.into_iter().find(|answer| answer.head.id == vector);
    let answer = found.ok_or(EngineError::VectorNotFound(vector))?;
    Ok((seq_header(written.seq), Json(answer)).into_response())
}

/// The vector fields of a library.
#[derive(Debug, Serialize, ToSchema)]
struct FieldList {
    /// The library's own vectors first, as `text`.
    vector_fields: Vec<FieldAnswer>,
}

/// A vector field.
#[derive(Debug, Serialize, ToSchema)]
struct FieldAnswer {
    #[schema(example = "title")]
    name: String,
    /// `dense`, `late_interaction` or `sparse`.
    #[schema(example = "dense")]
    kind: &'static str,
    /// Null of sparse vectors.
    #[schema(minimum = 1, maximum = 4096)]
    dimension: Option<u32>,
    /// `cosine`, `dot` or `l2`.
    #[schema(example = "cosine")]
    metric: &'static str,
    #[schema(example = "hnsw")]
    index_type: &'static str,
    #[schema(value_type = Object)]
    index_config: Map<String, Value>,
    /// What makes vectors of texts and pictures; null where callers give all of them.
    embedding_model: Option<String>,
    embedding_provider: Option<String>,
    /// Documents that have a vector there.
    documents: u64,
    /// Vectors.
    vectors: u64,
}

impl FieldAnswer {
    fn of_library(spec: &LibrarySpec, documents: u64, vectors: u64) -> Self {
        let kind = VectorKind::Dense;
        Self {
            name: TEXT_FIELD.to_owned(),
            kind: kind.name(),
            dimension: Some(spec.dimension),
            metric: spec.metric.name(),
            index_type: spec.index.name(),
            index_config: index_config(spec.index),
            embedding_model: Some(spec.model.model.clone()),
            embedding_provider: Some(spec.model.provider.clone()),
            documents,
            vectors,
        }
    }

    fn of(spec: &FieldSpec, documents: u64, vectors: u64) -> Self {
        let sparse = spec.kind == VectorKind::Sparse;
        Self {
            name: spec.name.clone(),
            kind: spec.kind.name(),
            dimension: (!sparse).then_some(spec.dimension),
            metric: spec.metric.name(),
            index_type: if sparse { "inverted" } else { spec.index.name() },
            index_config: index_config(spec.index),
            embedding_model: spec.model.as_ref().map(|model| model.model.clone()),
            embedding_provider: spec.model.as_ref().map(|model| model.provider.clone()),
            documents,
            vectors,
        }
    }
}

/// The vector fields of a library, its own vectors first.
#[utoipa::path(get, operation_id = "list_vector_fields", path = "/libraries/{library_id}/vector-fields", tag = "vector fields",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
        ("as_of" = Option<u64>, Query, description = "Read what was there after this write, as far back as history is kept"),
    ),
    responses((status = 200, description = "The fields", body = FieldList), ReadErrors))]
async fn fields(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
    At(at): At,
) -> Result<Response, Problem> {
    let snapshot = app.engine().library(principal.tenant, library, at).await?;
    let own = snapshot.stats();
    let own = FieldAnswer::of_library(snapshot.spec(), own.documents, own.chunks);
    let of_field = |field: &Field| {
        FieldAnswer::of(field.spec(), field.view().documents(), field.view().chunks())
    };
    let vector_fields = std::iter::once(own).chain(snapshot.fields().map(of_field)).collect();
    Ok((seq_header(snapshot.seq()), Json(FieldList { vector_fields })).into_response())
}

/// A vector field to declare.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"dimension": 512, "metric": "cosine", "index_type": "hnsw"}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
struct PutField {
    /// `dense`, `late_interaction` (several small vectors each, compared by `MaxSim`) or `sparse`.
    #[schema(default = "dense")]
    kind: Option<String>,
    /// Of its vectors; that of the model when absent, none of sparse vectors.
    #[schema(minimum = 1, maximum = 4096)]
    dimension: Option<u32>,
    /// `cosine`, `dot` or `l2`.
    #[schema(default = "cosine")]
    metric: Option<String>,
    /// What it is searched by.
    #[schema(default = "brute_force")]
    index_type: Option<String>,
    #[schema(value_type = Option<Object>)]
    index_config: Option<Value>,
    #[schema(value_type = Option<Object>)]
    quantization_config: Option<Value>,
    /// What makes vectors of texts and pictures: a model, or `library` for that of the library. Without one, and
    /// without a provider, callers give all vectors.
    embedding_model: Option<String>,
    /// `local`, `cohere` or `openai`.
    embedding_provider: Option<String>,
}

/// Declares a vector field, or has one searched by another index: all else of a field is fixed. What
/// searches it is built in the background.
#[utoipa::path(put, operation_id = "put_vector_field", path = "/libraries/{library_id}/vector-fields/{name}", tag = "vector fields",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("name" = String, Path, min_length = 1, max_length = 64, description = "The field: a letter, then letters, digits, _ and -, all small"),
    ),
    request_body = PutField,
    responses((status = 200, description = "The field as it is now, durable", body = FieldAnswer), WriteErrors))]
async fn put_field(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
    PathName(name): PathName,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let tenant = principal.tenant;
    let snapshot = app.engine().library(tenant, library, None).await?;
    let there = snapshot.fields().find(|field| field.spec().name == name);
    let there = there.map(|field| FieldSpec::clone(field.spec()));
    check_field_name(&name).map_err(|fault| Problem::field("/path/name", fault.to_string()))?;
    let field = read_json(&body, |r| read_field(r, name, there.as_ref()))?;
    let name = field.name.clone();
    let written = app.engine().put_field(tenant, library, field).await?;
    let snapshot = app.engine().library(tenant, library, Some(written.seq)).await?;
    let counts = snapshot.fields().find(|field| field.spec().name == name);
    let counts = counts.map_or((0, 0), |it| (it.view().documents(), it.view().chunks()));
    let answer = FieldAnswer::of(&written.value, counts.0, counts.1);
    Ok((seq_header(written.seq), Json(answer)).into_response())
}

/// Reads a field; what a field that is there has, and the body does not name, stays.
fn read_field(r: &mut Reader<'_>, name: String, there: Option<&FieldSpec>) -> Read<NewField> {
    let (mut kind, mut dimension, mut metric): (_, _, Option<Metric>) = (None, None, None);
    let (mut model, mut provider, mut settings) = (None, None, IndexSettings::default());
    r.object(|r, key| {
        match key {
            "kind" => kind = read_kind(r)?,
            "dimension" | "embedding_dimension" => dimension = read_dimension(r)?,
            "metric" | "distance_metric" => metric = read_metric(r)?,
            "embedding_model" => model = r.string()?,
            "embedding_provider" => provider = read_provider(r)?,
            key => settings.read(r, key)?,
        }
        Ok(())
    })?;
    let current = there.map(|there| there.index).unwrap_or_default();
    let change = settings.resolve(r, current);
    let index = arrwdb_engine::state::IndexSpec {
        structure: change.structure.unwrap_or(current.structure),
        quantization: change.quantization.unwrap_or(current.quantization),
    };
    let kind = kind.or(there.map(|there| there.kind)).unwrap_or(VectorKind::Dense);
    let named = model.is_some() || provider.is_some();
    let of_library = model.as_deref() == Some("library");
    let model = match there.and_then(|there| there.model.clone()) {
        Some(had) if !named => {
            Some(FieldModel::Named { provider: Some(had.provider), model: Some(had.model) })
        }
        _ if of_library => Some(FieldModel::Library),
        _ => named.then_some(FieldModel::Named { provider, model }),
    };
    let had = there.filter(|there| there.kind != VectorKind::Sparse);
    Ok(NewField {
        name,
        kind,
        dimension: dimension.or(had.map(|had| had.dimension)),
        metric: metric.or(there.map(|there| there.metric)),
        index: Some(index),
        model,
    })
}

fn read_kind(r: &mut Reader<'_>) -> Read<Option<VectorKind>> {
    let Some(name) = r.string()? else { return Ok(None) };
    let kind = match name.as_str() {
        "multi" | "maxsim" | "late" => Some(VectorKind::Late),
        name => VectorKind::from_name(name),
    };
    if kind.is_none() {
        r.fault("must be one of dense, late_interaction, sparse");
    }
    Ok(kind)
}
