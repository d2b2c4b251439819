//! Documents, one or a batch at a time.

use std::time::Instant;

use arrwdb_engine::state::{
    BatchOperation, Document, DocumentId, FieldVectors, LibraryId, Seq, TenantId,
};
use arrwdb_engine::{Embeddings, EngineError, PutDocument, PutReceipt, Snapshot, Written};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::{DocumentAnswer, milliseconds};
use super::batches::noted;
use super::export::ask_embeddings;
use super::gate::Gate;
use super::requests::{AddDocument, DeleteWanted, Form, read_batch, read_document, read_ids};
use super::seq_header;
use crate::app::App;
use crate::extract::{
    DocumentInLibrary, DocumentPath, LibraryPath, QueryPairs, WholeBody, read_json,
};
use crate::metrics::Added;
use crate::moment::At;
use crate::openapi::{EmbeddingErrors, ReadErrors, WriteErrors};
use crate::principal::Principal;
use crate::problem::Problem;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(add))
        .routes(routes!(add_with_embeddings))
        .routes(routes!(add_batch))
        .routes(routes!(add_batch_with_embeddings))
        .routes(routes!(get, put, delete))
        .routes(routes!(delete_batch))
        .routes(routes!(get_anywhere, delete_anywhere))
}

/// Documents to add, 1 to 1000.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
struct AddBatch {
    #[schema(min_items = 1, max_items = 1000)]
    documents: Vec<AddDocument>,
}

/// Documents to delete, 1 to 1000.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"document_ids": ["0191f4a2-7c3e-7abc-8def-0123456789ab"]}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
struct DeleteBatch {
    #[schema(min_items = 1, max_items = 1000)]
    document_ids: Vec<String>,
    /// The library that they are in. Without it each is looked for in all of them; one that several
    /// have is not deleted.
    #[schema(format = "uuid")]
    library_id: Option<String>,
}

/// What became of one document of a batch.
#[derive(Debug, Serialize, ToSchema)]
struct BatchResult {
    success: bool,
    #[schema(format = "uuid")]
    document_id: Option<String>,
    error: Option<String>,
    /// Position in the request, from 0.
    index: usize,
}

/// What became of a batch: successes first, then failures.
#[derive(Debug, Serialize, ToSchema)]
struct BatchAnswer {
    total_requested: usize,
    successful: usize,
    failed: usize,
    results: Vec<BatchResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_chunks_added: Option<usize>,
    processing_time_ms: f64,
}

/// Adds a document; one of the same id is replaced.
#[utoipa::path(post, operation_id = "add_document", path = "/libraries/{library_id}/documents", tag = "documents",
    params(("library_id" = String, Path, format = "uuid", description = "The library")),
    request_body = AddDocument,
    responses((status = 201, description = "Added: durable and visible", body = DocumentAnswer), WriteErrors, EmbeddingErrors))]
async fn add(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
    query: QueryPairs,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let limits = &app.config().limits;
    let document = read_json(&body, |r| read_document(r, Form::Request, limits))?;
    let stored = put_one(&app, principal, library, document).await?;
    stored.answer(StatusCode::CREATED, &query)
}

/// Adds a document whose vectors the caller supplies.
#[utoipa::path(post, operation_id = "add_document_with_embeddings", path = "/libraries/{library_id}/documents/with-embeddings", tag = "documents",
    params(("library_id" = String, Path, format = "uuid", description = "The library")),
    request_body(content = AddDocument, example = json!({"title": "Three numbers", "chunks": [{"text": "half", "embedding": [0.5, 0.5, 0.1]}]})),
    responses((status = 201, description = "Added: durable and visible", body = DocumentAnswer), WriteErrors))]
async fn add_with_embeddings(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
    query: QueryPairs,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let limits = &app.config().limits;
    let document = read_json(&body, |r| read_document(r, Form::WithEmbeddings, limits))?;
    let stored = put_one(&app, principal, library, document).await?;
    stored.answer(StatusCode::CREATED, &query)
}

/// Replaces the document of this id, or adds it.
#[utoipa::path(put, operation_id = "put_document", path = "/libraries/{library_id}/documents/{document_id}", tag = "documents",
    params(("library_id" = String, Path, format = "uuid", description = "The library"), ("document_id" = String, Path, format = "uuid", description = "The document")),
    request_body = AddDocument,
    responses(
        (status = 200, description = "Replaced: durable and visible", body = DocumentAnswer),
        (status = 201, description = "Added: durable and visible", body = DocumentAnswer),
        WriteErrors, EmbeddingErrors))]
async fn put(
    principal: Principal,
    State(app): State<App>,
    DocumentInLibrary { library, id }: DocumentInLibrary,
    query: QueryPairs,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let limits = &app.config().limits;
    let mut document = read_json(&body, |r| read_document(r, Form::Request, limits))?;
    if document.id.is_some_and(|given| given != id) {
        return Err(Problem::field("/id", "differs from the id of the path"));
    }
    document.id = Some(id);
    let stored = put_one(&app, principal, library, document).await?;
    let status = if stored.replaced { StatusCode::OK } else { StatusCode::CREATED };
    stored.answer(status, &query)
}

/// A document that was just written, as a snapshot sees it.
#[derive(Debug)]
struct Stored {
    seq: Seq,
    replaced: bool,
    document: Document,
}

impl Stored {
    fn answer(mut self, status: StatusCode, query: &QueryPairs) -> Result<Response, Problem> {
        if ask_embeddings(query, true)? == Embeddings::Omitted {
            for chunk in &mut self.document.chunks {
                chunk.embedding.clear();
            }
        }
        let answer = DocumentAnswer::of(self.document);
        Ok((status, seq_header(self.seq), Json(answer)).into_response())
    }
}

async fn put_one(
    app: &App,
    principal: Principal,
    library: LibraryId,
    document: PutDocument,
) -> Result<Stored, Problem> {
    let tenant = principal.tenant;
    let written = app.engine().put_documents(tenant, library, vec![document]).await?;
    let nothing = || Problem::hidden(&crate::problem::INTERNAL, "a write answered nothing");
    let receipt = written.value.into_iter().next().ok_or_else(nothing)??;
    let snapshot = app.engine().library(tenant, library, Some(written.seq)).await?;
    app.metrics().added(library, snapshot.spec().index.name(), Added::of(&receipt));
    // Somebody else may have deleted it in between: then it is gone, as it would be for any read.
    let document = read_document_of(snapshot, receipt.id, Embeddings::Included).await?;
    Ok(Stored { seq: written.seq, replaced: receipt.replaced, document })
}

/// Reads a document with all its vectors on a thread that may wait for the disk.
pub(super) async fn read_whole(
    snapshot: Snapshot,
    id: DocumentId,
) -> Result<(Document, Vec<FieldVectors>), Problem> {
    let read = move || {
        let document = snapshot.document(id, Embeddings::Included)?;
        Ok::<_, EngineError>((document, snapshot.field_vectors(id)?))
    };
    let read = tokio::task::spawn_blocking(read).await.map_err(|error| {
        Problem::hidden(&crate::problem::INTERNAL, format!("reading a document failed: {error}"))
    })?;
    let (document, fields) = read?;
    Ok((document.ok_or(EngineError::DocumentNotFound(id))?, fields))
}

/// Reads a document on a thread that may wait for the disk.
pub(super) async fn read_document_of(
    snapshot: Snapshot,
    id: DocumentId,
    embeddings: Embeddings,
) -> Result<Document, Problem> {
    let read = tokio::task::spawn_blocking(move || snapshot.document(id, embeddings)).await;
    let read = read.map_err(|error| {
        Problem::hidden(&crate::problem::INTERNAL, format!("reading a document failed: {error}"))
    })?;
    Ok(read?.ok_or(EngineError::DocumentNotFound(id))?)
}

/// Adds up to 1000 documents; each is added whole or not at all.
#[utoipa::path(post, operation_id = "add_documents", path = "/libraries/{library_id}/documents/batch", tag = "documents",
    params(("library_id" = String, Path, format = "uuid", description = "The library")),
    request_body(content = AddBatch, example = json!({"documents": [{"title": "Logs", "texts": ["A torn tail is cut."]}, {"title": "Locks", "texts": ["One process per directory."]}]})),
    responses((status = 201, description = "What became of each", body = BatchAnswer), WriteErrors, EmbeddingErrors))]
async fn add_batch(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    put_batch(&app, principal, library, (&body, Form::Request)).await
}

/// Adds up to 1000 documents whose vectors the caller supplies.
#[utoipa::path(post, operation_id = "add_documents_with_embeddings", path = "/libraries/{library_id}/documents/batch-with-embeddings", tag = "documents",
    params(("library_id" = String, Path, format = "uuid", description = "The library")),
    request_body(content = AddBatch, example = json!({"documents": [{"title": "Three numbers", "chunks": [{"text": "half", "embedding": [0.5, 0.5, 0.1]}]}]})),
    responses((status = 201, description = "What became of each", body = BatchAnswer), WriteErrors))]
async fn add_batch_with_embeddings(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    put_batch(&app, principal, library, (&body, Form::WithEmbeddings)).await
}

async fn put_batch(
    app: &App,
    principal: Principal,
    library: LibraryId,
    (body, form): (&[u8], Form),
) -> Result<Response, Problem> {
    let started = Instant::now();
    let limits = &app.config().limits;
    let read = read_json(body, |r| read_batch(r, form, limits))?;
    let total_requested = read.len();
    let mut results = Vec::with_capacity(total_requested);
    let (mut documents, mut positions) = (Vec::new(), Vec::new());
    for (index, document) in read.into_iter().enumerate() {
        match document {
            Ok(document) => {
                documents.push(document);
                positions.push(index);
            }
            Err(error) => results.push(failure(index, None, error)),
        }
    }
    let index = app.engine().library(principal.tenant, library, None).await?.spec().index.name();
    let kind = (BatchOperation::Add, Some(total_requested as u64));
    let (gate, _presence) = Gate::new();
    let put = put_while_there(app, (principal.tenant, library), documents, gate);
    let ended = {
        let app = app.clone();
        move |written: &Result<Put, EngineError>| {
            let receipts = written.iter().flat_map(|it| &it.value).flatten();
            let mut added = Added::default();
            let successful = receipts.inspect(|receipt| added.count(receipt)).count();
            if written.is_ok() {
                app.metrics().batch("add", successful, total_requested - successful);
                app.metrics().added(library, index, added);
            }
            ((successful as u64, (total_requested - successful) as u64), written.is_ok())
        }
    };
    let written = noted(app, (principal, library), kind, put, ended).await??;
    let mut chunks = 0;
    for (index, outcome) in positions.into_iter().zip(written.value) {
        results.push(match outcome {
            Ok(receipt) => {
                chunks += receipt.chunks;
                let document_id = Some(receipt.id.to_string());
                BatchResult { success: true, document_id, error: None, index }
            }
            Err(error) => failure(index, None, Problem::from(error).detail().to_owned()),
        });
    }
    let answer = batch_answer(results, Some(chunks), started);
    Ok((StatusCode::CREATED, seq_header(written.seq), Json(answer)).into_response())
}

/// What became of each document.
type Put = Written<Vec<Result<PutReceipt, EngineError>>>;

/// Adds documents unless the client leaves before they are written.
fn put_while_there(
    app: &App,
    (tenant, library): (TenantId, LibraryId),
    documents: Vec<PutDocument>,
    gate: Gate,
) -> impl Future<Output = Result<Put, EngineError>> + Send + 'static {
    let engine = app.engine().clone();
    async move {
        let mut pass = None;
        let turn = async { pass = Some(gate.pass().await) };
        let put = engine.put_documents_in_turn(tenant, library, documents, turn);
        // Nobody is told of the error.
        gate.watch(put).await.unwrap_or(Err(EngineError::Closed))
    }
}

fn failure(index: usize, document_id: Option<String>, error: String) -> BatchResult {
    BatchResult { success: false, document_id, error: Some(error), index }
}

fn batch_answer(
    mut results: Vec<BatchResult>,
    total_chunks_added: Option<usize>,
    started: Instant,
) -> BatchAnswer {
    results.sort_by_key(|result| (!result.success, result.index));
    let successful = results.iter().filter(|result| result.success).count();
    BatchAnswer {
        total_requested: results.len(),
        successful,
        failed: results.len() - successful,
        results,
        total_chunks_added,
        processing_time_ms: milliseconds(started.elapsed()),
    }
}

/// One document.
#[utoipa::path(get, operation_id = "get_document", path = "/libraries/{library_id}/documents/{document_id}", tag = "documents",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("document_id" = String, Path, format = "uuid", description = "The document"),
        ("include_embeddings" = Option<bool>, Query, description = "Whether chunks carry their vectors [true]"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
        ("as_of" = Option<u64>, Query, description = "Read what was there after this write, as far back as history is kept"),
    ),
    responses((status = 200, description = "The document", body = DocumentAnswer), ReadErrors))]
async fn get(
    principal: Principal,
    State(app): State<App>,
    DocumentInLibrary { library, id }: DocumentInLibrary,
    At(at): At,
    query: QueryPairs,
) -> Result<Response, Problem> {
    let embeddings = ask_embeddings(&query, true)?;
    let snapshot = app.engine().library(principal.tenant, library, at).await?;
    let seq = seq_header(snapshot.seq());
    let document = read_document_of(snapshot, id, embeddings).await?;
    Ok((seq, Json(DocumentAnswer::of(document))).into_response())
}

/// One document, wherever it is.
#[utoipa::path(get, operation_id = "get_document_anywhere", path = "/documents/{document_id}", tag = "documents",
    params(
        ("document_id" = String, Path, format = "uuid", description = "The document"),
        ("include_embeddings" = Option<bool>, Query, description = "Whether chunks carry their vectors [true]"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
        ("as_of" = Option<u64>, Query, description = "Read what was there after this write, as far back as history is kept"),
    ),
    responses((status = 200, description = "The document", body = DocumentAnswer), ReadErrors))]
async fn get_anywhere(
    principal: Principal,
    State(app): State<App>,
    DocumentPath(id): DocumentPath,
    At(at): At,
    query: QueryPairs,
) -> Result<Response, Problem> {
    let embeddings = ask_embeddings(&query, true)?;
    let found = app.engine().locate_document(principal.tenant, id, at).await?;
    let library = found.ok_or(EngineError::DocumentNotFound(id))?;
    let snapshot = app.engine().library(principal.tenant, library, at).await?;
    let seq = seq_header(snapshot.seq());
    let document = read_document_of(snapshot, id, embeddings).await?;
    Ok((seq, Json(DocumentAnswer::of(document))).into_response())
}

/// Deletes a document.
#[utoipa::path(delete, operation_id = "delete_document", path = "/libraries/{library_id}/documents/{document_id}", tag = "documents",
    params(("library_id" = String, Path, format = "uuid", description = "The library"), ("document_id" = String, Path, format = "uuid", description = "The document")),
    responses((status = 204, description = "Deleted: durable and gone"), WriteErrors))]
async fn delete(
    principal: Principal,
    State(app): State<App>,
    DocumentInLibrary { library, id }: DocumentInLibrary,
) -> Result<Response, Problem> {
    delete_one(&app, principal, library, id).await
}

/// Deletes a document, wherever it is.
#[utoipa::path(delete, operation_id = "delete_document_anywhere", path = "/documents/{document_id}", tag = "documents",
    params(("document_id" = String, Path, format = "uuid", description = "The document")),
    responses((status = 204, description = "Deleted: durable and gone"), WriteErrors))]
async fn delete_anywhere(
    principal: Principal,
    State(app): State<App>,
    DocumentPath(id): DocumentPath,
) -> Result<Response, Problem> {
    let library = app.engine().owner_of_document(principal.tenant, id).await?;
    delete_one(&app, principal, library, id).await
}

async fn delete_one(
    app: &App,
    principal: Principal,
    library: LibraryId,
    id: DocumentId,
) -> Result<Response, Problem> {
    let written = app.engine().delete_documents(principal.tenant, library, vec![id]).await?;
    let Some(Some(chunks)) = written.value.first() else {
        return Err(EngineError::DocumentNotFound(id).into());
    };
    app.metrics().deleted(library, 1, (*chunks).into());
    Ok((StatusCode::NO_CONTENT, seq_header(written.seq)).into_response())
}

/// Deletes up to 1000 documents, wherever they are.
#[utoipa::path(delete, operation_id = "delete_documents", path = "/documents/batch", tag = "documents",
    request_body = DeleteBatch,
    responses((status = 200, description = "What became of each", body = BatchAnswer), WriteErrors))]
async fn delete_batch(
    principal: Principal,
    State(app): State<App>,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let started = Instant::now();
    let asked = read_json(&body, |r| read_ids(r, &app.config().limits))?;
    let (by_library, errors) = group_by_library(&app, principal, &asked).await?;
    let ids = asked.ids;
    let mut deleted = vec![false; ids.len()];
    let mut seq = app.engine().durable();
    for (library, positions) in by_library {
        let wanted = positions.iter().filter_map(|&at| ids.get(at).copied()).collect();
        let total = positions.len() as u64;
        let kind = (BatchOperation::Delete, Some(total));
        let engine = app.engine().clone();
        let delete =
            async move { engine.delete_documents(principal.tenant, library, wanted).await };
        let ended = {
            let app = app.clone();
            move |written: &Result<Written<Vec<Option<u32>>>, EngineError>| {
                let gone = written.iter().flat_map(|it| &it.value).flatten();
                let (count, chunks) = (gone.clone().count(), gone.map(|it| u64::from(*it)).sum());
                app.metrics().deleted(library, count, chunks);
                ((count as u64, total - count as u64), written.is_ok())
            }
        };
        let outcome = noted(&app, (principal, library), kind, delete, ended).await?;
        match outcome {
            Ok(written) => {
                seq = seq.max(written.seq);
                for (at, gone) in positions.into_iter().zip(written.value) {
                    if let Some(slot) = deleted.get_mut(at) {
                        *slot = gone.is_some();
                    }
                }
            }
            // Deleted with everything in it in between.
            Err(EngineError::LibraryNotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let outcomes = deleted.into_iter().zip(errors);
    let results = ids.iter().zip(outcomes).enumerate().map(|(index, (id, (gone, error)))| {
        let document_id = Some(id.to_string());
        match error {
            _none if gone => BatchResult { success: true, document_id, error: None, index },
            Some(error @ EngineError::AmbiguousDocument { .. }) => {
                failure(index, document_id, error.to_string())
            }
            _none => failure(index, document_id, "Document not found".to_owned()),
        }
    });
    let answer = batch_answer(results.collect(), None, started);
    app.metrics().batch("delete", answer.successful, answer.failed);
    Ok((StatusCode::OK, seq_header(seq), Json(answer)).into_response())
}

/// Positions of the ids by the library that holds them, in the order of the request; and what is wrong
/// with the others.
async fn group_by_library(
    app: &App,
    principal: Principal,
    wanted: &DeleteWanted,
) -> Result<(Vec<(LibraryId, Vec<usize>)>, Vec<Option<EngineError>>), Problem> {
    let mut groups: Vec<(LibraryId, Vec<usize>)> = Vec::new();
    let mut errors = Vec::with_capacity(wanted.ids.len());
    let ids = wanted.ids.clone();
    let found = match wanted.library {
        Some(library) => {
            // Checked to be the caller's before anything is looked for.
            app.engine().library(principal.tenant, library, None).await?;
            ids.iter().map(|_id| Ok(library)).collect()
        }
        None => app.engine().owners_of_documents(principal.tenant, ids).await?,
    };
    for (at, library) in found.into_iter().enumerate() {
        errors.push(match library {
            Ok(library) => {
                match groups.iter_mut().find(|(known, _)| *known == library) {
                    Some((_, positions)) => positions.push(at),
                    None => groups.push((library, vec![at])),
                }
                None
            }
            Err(error) => Some(error),
        });
    }
    Ok((groups, errors))
}
