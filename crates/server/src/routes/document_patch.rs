//! Changing what is said of a document, without its passages.

use arrwdb_engine::DocumentPatch;
use arrwdb_engine::Embeddings;
use arrwdb_engine::state::{DocumentId, LibraryId};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::DocumentAnswer;
use super::export::ask_embeddings;
use super::requests::{read_id, read_tags, text_up_to, text_within};
use super::seq_header;
use crate::app::App;
use crate::config::RequestLimits;
use crate::extract::{DocumentInLibrary, DocumentPath, QueryPairs, WholeBody, read_json};
use crate::json::{Read, Reader};
use crate::openapi::WriteErrors;
use crate::principal::Principal;
use crate::problem::Problem;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(patch)).routes(routes!(patch_anywhere))
}

/// Changes to what is said of a document: a JSON Merge Patch (RFC 7396). What is absent stays as it is.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"title": "A better title", "author": null, "metadata": {"year": 2026, "draft": null}}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
struct PatchDocument {
    /// 1 to 1000 characters.
    #[schema(value_type = String, required = false, min_length = 1, max_length = 1000)]
    title: String,
    /// null removes it.
    author: Option<String>,
    /// null makes it `text`.
    document_type: Option<String>,
    /// null removes it.
    source_url: Option<String>,
    /// All of them; null removes them.
    tags: Option<Vec<String>>,
    /// Custom metadata to be merged with what is there: null removes a key, an object is merged in
    /// turn, anything else is put in the place of what was there. null removes all of it.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
}

/// What a body asks for.
#[derive(Debug, Default)]
struct Wanted {
    id: Option<DocumentId>,
    patch: DocumentPatch,
}

fn read_wanted(r: &mut Reader<'_>, limits: &RequestLimits) -> Read<Wanted> {
    let mut wanted = Wanted::default();
    r.object(|r, key| field(&mut wanted, r, key, limits))?;
    Ok(wanted)
}

fn field(wanted: &mut Wanted, r: &mut Reader<'_>, key: &str, limits: &RequestLimits) -> Read<()> {
    let patch = &mut wanted.patch;
    match key {
        "id" => wanted.id = read_id(r)?,
        "title" if r.null()? => r.fault("cannot be removed: every document has a title"),
        "title" => patch.title = text_within(r, 1, limits.title_chars_max)?,
        // What null removes.
        "author" if r.null()? => patch.author = Some(None),
        "document_type" if r.null()? => patch.document_type = Some(None),
        "source_url" if r.null()? => patch.source_url = Some(None),
        "metadata" if r.null()? => patch.metadata = Some(None),
        "author" => patch.author = text_up_to(r, limits.author_chars_max)?.map(Some),
        "document_type" => patch.document_type = r.string()?.map(Some),
        "source_url" => patch.source_url = r.string()?.map(Some),
        "metadata" => patch.metadata = r.any_object()?.map(Some),
        "tags" => patch.tags = Some(read_tags(r, limits)?),
        "text" | "texts" | "chunks" | "created_at" => {
            r.any()?;
            r.fault("stays as it is when a document is patched: PUT the document to replace it");
        }
        _ignored => {}
    }
    Ok(())
}

/// What is wrong with a body as a patch; for who tests the reader with bodies that nobody wrote.
pub(super) fn patch_problem(body: &[u8], limits: &RequestLimits) -> Option<Problem> {
    read_json(body, |r| read_wanted(r, limits)).err()
}

/// Changes what is said of a document: title, author, type, source, tags, custom metadata. Passages
/// keep their ids, texts and vectors, bit for bit: nothing is embedded. It is a new version of the
/// document, unless nothing changes; of two changes at the same time none is lost.
#[utoipa::path(patch, operation_id = "patch_document", path = "/libraries/{library_id}/documents/{document_id}", tag = "documents",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("document_id" = String, Path, format = "uuid", description = "The document"),
        ("include_embeddings" = Option<bool>, Query, description = "Whether chunks carry their vectors [true]"),
    ),
    request_body = PatchDocument,
    responses((status = 200, description = "The document as it is now: durable and visible", body = DocumentAnswer), WriteErrors))]
async fn patch(
    principal: Principal,
    State(app): State<App>,
    DocumentInLibrary { library, id }: DocumentInLibrary,
    query: QueryPairs,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let embeddings = ask_embeddings(&query, true)?;
    let patch = wanted(&app, id, &body)?;
    patch_one(&app, (principal, library), (id, patch), embeddings).await
}

/// Changes what is said of a document, wherever it is.
#[utoipa::path(patch, operation_id = "patch_document_anywhere", path = "/documents/{document_id}", tag = "documents",
    params(
        ("document_id" = String, Path, format = "uuid", description = "The document"),
        ("include_embeddings" = Option<bool>, Query, description = "Whether chunks carry their vectors [true]"),
    ),
    request_body = PatchDocument,
    responses((status = 200, description = "The document as it is now: durable and visible", body = DocumentAnswer), WriteErrors))]
async fn patch_anywhere(
    principal: Principal,
    State(app): State<App>,
    DocumentPath(id): DocumentPath,
    query: QueryPairs,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let embeddings = ask_embeddings(&query, true)?;
    let patch = wanted(&app, id, &body)?;
    let library = app.engine().owner_of_document(principal.tenant, id).await?;
    patch_one(&app, (principal, library), (id, patch), embeddings).await
}

fn wanted(app: &App, id: DocumentId, body: &[u8]) -> Result<DocumentPatch, Problem> {
    let wanted = read_json(body, |r| read_wanted(r, &app.config().limits))?;
    if wanted.id.is_some_and(|given| given != id) {
        return Err(Problem::field("/id", "differs from the id of the path"));
    }
    Ok(wanted.patch)
}

async fn patch_one(
    app: &App,
    (principal, library): (Principal, LibraryId),
    patch: (DocumentId, DocumentPatch),
    embeddings: Embeddings,
) -> Result<Response, Problem> {
    let written = app.engine().patch_document(principal.tenant, library, patch).await?;
    let mut document = written.value;
    if embeddings == Embeddings::Omitted {
        document.chunks.iter_mut().for_each(|chunk| chunk.embedding.clear());
    }
    Ok((seq_header(written.seq), Json(DocumentAnswer::of(document))).into_response())
}
