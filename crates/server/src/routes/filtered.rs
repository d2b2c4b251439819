//! Documents by a filter: a page of them, how many, and away with them.

use std::time::Instant;

use arrwdb_engine::state::{BatchOperation, Filter, OrderBy, Seq};
use arrwdb_engine::{DeletedByFilter, Embeddings, EngineError, Moment, Selected};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::{DocumentAnswer, milliseconds};
use super::batches::noted;
use super::document_list::{NO_CURSOR, cursor_text, off_runtime, parse_cursor};
use super::export::{Pages, json_documents};
use super::gate::Gate;
use super::order::{OrderShape, parse_place, place_text, read_order};
use super::search_requests::{FilterShape, is_filter, read_filter_once};
use super::seq_header;
use crate::app::App;
use crate::extract::{LibraryPath, WholeBody, read_json};
use crate::json::{Read, Reader};
use crate::limits::{LIST_PAGE_DEFAULT, LIST_PAGE_MAX};
use crate::moment::{At, read_moment};
use crate::openapi::{ReadErrors, WriteErrors};
use crate::principal::Principal;
use crate::problem::Problem;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(query)).routes(routes!(count)).routes(routes!(delete))
}

/// Which documents, and which page of them.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"filter": {"tags": "storage", "year": {"$gte": 2020}}, "limit": 100}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
struct DocumentQuery {
    /// Documents that have a passage that passes; all without one. See `docs/filters.md`.
    #[schema(value_type = Option<FilterShape>)]
    filter: Option<Value>,
    /// As in the query string.
    as_of: Option<u64>,
    /// As in the query string.
    min_seq: Option<u64>,
    #[schema(minimum = 1, maximum = 1000, default = 50)]
    limit: Option<u64>,
    /// What they are ordered by; as they were added without.
    #[schema(value_type = Option<OrderShape>)]
    order_by: Option<Value>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Whether chunks carry their vectors.
    #[schema(default = false)]
    include_embeddings: Option<bool>,
}

/// A page of documents.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the answer; it is written as it is read")]
struct SelectedDocuments {
    documents: Vec<DocumentAnswer>,
    /// Documents that pass, on all pages.
    total: u64,
    /// What to give as `cursor` for the next page; null at the end.
    next_cursor: Option<String>,
}

/// Which documents.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"filter": {"created_at": {"$lt": "2025-01-01"}}}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
struct DocumentFilter {
    /// Documents that have a passage that passes. See `docs/filters.md`.
    #[schema(value_type = Option<FilterShape>)]
    filter: Option<Value>,
}

/// How many there are.
#[derive(Debug, Serialize, ToSchema)]
struct CountAnswer {
    /// Documents that have a passage that passes.
    documents: u64,
    /// Passages that pass.
    chunks: u64,
    /// Always `exact`.
    relation: &'static str,
}

/// What was deleted.
#[derive(Debug, Serialize, ToSchema)]
struct DeleteAnswer {
    documents_deleted: u64,
    /// All chunks of those documents.
    chunks_deleted: u64,
    /// Documents that passed when this began and were replaced or deleted by somebody else before
    /// it was their turn; they are left as they are.
    documents_changed: u64,
    processing_time_ms: f64,
}

#[derive(Debug, Default)]
struct Wanted {
    filter: Option<Filter>,
    limit: Option<u64>,
    order: Option<OrderBy>,
    cursor: Option<String>,
    include_embeddings: bool,
    moment: Moment,
}

fn read_wanted(body: &[u8]) -> Result<Wanted, Problem> {
    read_json(body, |r| {
        let mut wanted = Wanted::default();
        r.object(|r, key| {
            match key {
                key if is_filter(key) => read_filter_once(r, &mut wanted.filter)?,
                "limit" => wanted.limit = read_limit(r)?,
                "order_by" => wanted.order = read_order(r)?,
                "cursor" => wanted.cursor = r.string()?,
                "include_embeddings" => {
                    wanted.include_embeddings = r.switch()?.unwrap_or_default();
                }
                key if read_moment(r, key, &mut wanted.moment)? => {}
                _ignored => {}
            }
            Ok(())
        })?;
        Ok(wanted)
    })
}

fn read_limit(r: &mut Reader<'_>) -> Read<Option<u64>> {
    let Some(limit) = r.whole()? else { return Ok(None) };
    if !(1..=LIST_PAGE_MAX).contains(&limit) {
        r.fault(format!("must be from 1 to {LIST_PAGE_MAX}"));
        return Ok(None);
    }
    Ok(Some(limit))
}

/// A page of the documents that pass a filter, in the order in which they were added or of a field's
/// values. A page begins
/// after its cursor, whatever is written meanwhile: no document that stays as it is comes twice or
/// is left out.
#[utoipa::path(post, operation_id = "query_documents", path = "/libraries/{library_id}/documents/query", tag = "documents",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
        ("as_of" = Option<u64>, Query, description = "Read what was there after this write, as far back as history is kept"),
    ),
    request_body = DocumentQuery,
    responses((status = 200, description = "A page", body = SelectedDocuments), ReadErrors))]
async fn query(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
    at: At,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let wanted = read_wanted(&body)?;
    let filter = (wanted.filter.unwrap_or_default(), at.with_body(wanted.moment)?);
    let selected = app.engine().select(principal.tenant, library, filter).await?;
    let limit = wanted.limit.unwrap_or(LIST_PAGE_DEFAULT);
    let embeddings =
        if wanted.include_embeddings { Embeddings::Included } else { Embeddings::Omitted };
    if let Some(order) = wanted.order {
        return ordered(&app, selected, (order, wanted.cursor), (limit, embeddings)).await;
    }
    let cursor = wanted.cursor.map(|text| parse_cursor(&text).ok_or_else(no_cursor)).transpose()?;
    let look = selected.clone();
    let size = usize::try_from(limit).unwrap_or(usize::MAX);
    let next = off_runtime(move || look.next_after(cursor, size)).await?;
    let head = json!({"total": selected.documents(), "next_cursor": next.map(cursor_text)});
    let seq = seq_header(selected.snapshot().seq());
    let pages = Pages::among(selected, cursor, (limit, embeddings));
    Ok((seq, json_documents(&head, pages)).into_response())
}

fn no_cursor() -> Problem {
    Problem::field("/cursor", NO_CURSOR)
}

/// A page in the order of a field's values.
async fn ordered(
    app: &App,
    selected: Selected,
    (order, cursor): (OrderBy, Option<String>),
    (limit, embeddings): (u64, Embeddings),
) -> Result<Response, Problem> {
    let place = |text: String| parse_place(&order, &text).ok_or_else(no_cursor);
    let cursor = cursor.map(place).transpose()?;
    let size = usize::try_from(limit).unwrap_or(usize::MAX);
    let found = app.engine().ordered(&selected, order.clone(), (cursor, size)).await?;
    let next = found.documents.last().filter(|_last| found.more);
    let next = next.map(|last| place_text(&order, last));
    let head = json!({"total": selected.documents(), "next_cursor": next});
    let documents: Vec<_> = found.documents.iter().map(|document| document.id).collect();
    let snapshot = selected.snapshot().clone();
    let seq = seq_header(snapshot.seq());
    let pages = Pages::these(snapshot, documents.into_iter(), embeddings);
    Ok((seq, json_documents(&head, pages)).into_response())
}

/// Counts the documents and passages that pass a filter.
#[utoipa::path(post, operation_id = "count_documents", path = "/libraries/{library_id}/documents/count", tag = "documents",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
        ("as_of" = Option<u64>, Query, description = "Read what was there after this write, as far back as history is kept"),
    ),
    request_body = DocumentFilter,
    responses((status = 200, description = "How many", body = CountAnswer), ReadErrors))]
async fn count(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
    at: At,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let wanted = read_wanted(&body)?;
    let filter = (wanted.filter.unwrap_or_default(), at.with_body(wanted.moment)?);
    let selected = app.engine().select(principal.tenant, library, filter).await?;
    let (documents, chunks) = (selected.documents(), selected.chunks());
    let answer = CountAnswer { documents, chunks, relation: "exact" };
    Ok((seq_header(selected.snapshot().seq()), Json(answer)).into_response())
}

/// Deletes every document that has a passage that passes a filter, which may not be empty. Documents
/// are deleted a thousand at a time, until the client leaves; after an error, send it again.
#[utoipa::path(post, operation_id = "delete_documents_by_filter", path = "/libraries/{library_id}/documents/delete", tag = "documents",
    params(("library_id" = String, Path, format = "uuid", description = "The library")),
    request_body = DocumentFilter,
    responses((status = 200, description = "Deleted: durable and gone", body = DeleteAnswer), WriteErrors))]
async fn delete(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let started = Instant::now();
    let filter = read_wanted(&body)?.filter.filter(|filter| !filter.is_empty());
    let Some(filter) = filter else {
        let detail = "is required and may not be empty, or everything would go: delete the library, or \
                      say so by {\"document_id\": {\"$exists\": true}}";
        return Err(Problem::field("/filter", detail));
    };
    let (gate, _presence) = Gate::new();
    let engine = app.engine().clone();
    let delete = async move {
        let mut deleted = DeletedByFilter::default();
        let gone = || gate.is_closed();
        let of = (principal.tenant, library);
        let outcome = engine.delete_selected(of, filter, gone, &mut deleted).await;
        (outcome, deleted)
    };
    let ended = {
        let app = app.clone();
        move |(outcome, deleted): &(Result<Seq, EngineError>, DeletedByFilter)| {
            let count = usize::try_from(deleted.documents).unwrap_or(usize::MAX);
            app.metrics().deleted(library, count, deleted.chunks);
            ((deleted.documents, deleted.changed), outcome.is_ok())
        }
    };
    let kind = (BatchOperation::Delete, None);
    let (outcome, deleted) = noted(&app, (principal, library), kind, delete, ended).await?;
    let seq = outcome?;
    let answer = DeleteAnswer {
        documents_deleted: deleted.documents,
        chunks_deleted: deleted.chunks,
        documents_changed: deleted.changed,
        processing_time_ms: milliseconds(started.elapsed()),
    };
    Ok((seq_header(seq), Json(answer)).into_response())
}
