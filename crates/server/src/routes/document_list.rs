//! A library's documents in pages.

use arrwdb_engine::state::{DocumentId, Filter, OrderBy, OrderedCursor, Seq};
use arrwdb_engine::{Cursor, Embeddings, EngineError, Selected, Snapshot};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::DocumentAnswer;
use super::export::{Pages, ask_embeddings, json_documents};
use super::order::{parse_order, parse_place, place_text};
use super::search_requests::is_filter;
use super::seq_header;
use crate::app::App;
use crate::extract::{LibraryPath, QueryPairs, query_fault};
use crate::limits::{LIST_PAGE_DEFAULT, LIST_PAGE_MAX};
use crate::moment::At;
use crate::openapi::ReadErrors;
use crate::principal::Principal;
use crate::problem::Problem;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// A page of documents.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the answer; it is written as it is read")]
struct DocumentList {
    documents: Vec<DocumentAnswer>,
    /// Documents of the library; with a filter, those that pass.
    total: u64,
    /// From 1; null on a page that was asked for by a cursor.
    page: Option<u64>,
    page_size: u64,
    /// What to give as `cursor` for the next page; null at the end.
    next_cursor: Option<String>,
}

/// Documents of an ordered list that can be reached by the number of a page: all before a page are
/// gone through.
const ORDERED_PAGES_ROWS_MAX: u64 = 10_000;

/// Which page.
#[derive(Debug, Clone, Copy)]
enum Start {
    /// From 1.
    Page(u64),
    After(Cursor),
}

/// What a query string asks for.
#[derive(Debug)]
struct Wanted {
    start: Start,
    order: Option<(OrderBy, Option<OrderedCursor>)>,
    page_size: u64,
    filter: Option<Filter>,
    embeddings: Embeddings,
}

impl Wanted {
    fn of(query: &QueryPairs) -> Result<Self, Problem> {
        let start = match (query.text("page"), query.text("cursor")) {
            (Some(_), Some(_)) => {
                return Err(query_fault(
                    "page",
                    "is given together with a cursor; give one of them",
                ));
            }
            // A place in another order is read with that.
            (_, Some(text)) if query.text("order_by").is_none() => {
                let cursor = parse_cursor(text);
                Start::After(cursor.ok_or_else(|| query_fault("cursor", NO_CURSOR))?)
            }
            (_, _) => Start::Page(query.whole("page", 1, 1..=u64::MAX)?),
        };
        Ok(Self {
            start,
            order: order_of(query)?,
            page_size: query.whole("page_size", LIST_PAGE_DEFAULT, 1..=LIST_PAGE_MAX)?,
            filter: filter_of(query)?,
            embeddings: ask_embeddings(query, false)?,
        })
    }
}

/// `?order_by=`, and the cursor that goes with it.
fn order_of(query: &QueryPairs) -> Result<Option<(OrderBy, Option<OrderedCursor>)>, Problem> {
    let Some(text) = query.text("order_by") else { return Ok(None) };
    let order = parse_order(text).map_err(|detail| query_fault("order_by", &detail))?;
    let cursor = match query.text("cursor") {
        None => None,
        Some(text) => {
            let place = parse_place(&order, text);
            Some(place.ok_or_else(|| query_fault("cursor", NO_CURSOR))?)
        }
    };
    Ok(Some((order, cursor)))
}

/// `?filter=`, a filter as JSON, by any of its names.
fn filter_of(query: &QueryPairs) -> Result<Option<Filter>, Problem> {
    let mut given = query.pairs().filter(|(name, value)| is_filter(name) && !value.is_empty());
    let Some((name, text)) = given.next() else { return Ok(None) };
    if let Some((other, _text)) = given.next() {
        let detail = "is given together with another filter; one of them is enough";
        return Err(query_fault(other, detail));
    }
    let source: Value = serde_json::from_str(text)
        .map_err(|error| query_fault(name, &format!("is not JSON: {error}")))?;
    if source.is_null() {
        return Ok(None);
    }
    let filter = Filter::read(source)
        .map_err(|fault| Problem::field(format!("/query/{name}{}", fault.pointer), fault.detail))?;
    Ok(Some(filter).filter(|filter| !filter.is_empty()))
}

/// What is said of a cursor that is none.
pub(super) const NO_CURSOR: &str = "must be the next_cursor of a page of this list";

/// A place in a list, as its pages name it.
pub(super) fn cursor_text(cursor: Cursor) -> String {
    format!("{}.{}", cursor.born, cursor.id)
}

/// The place that a page named.
pub(super) fn parse_cursor(text: &str) -> Option<Cursor> {
    let (born, id) = text.split_once('.')?;
    Some(Cursor { born: Seq::new(born.parse().ok()?), id: id.parse().ok()? })
}

/// Pages through the documents in the order in which they were added or of a field's values, all or
/// those that pass a filter. Pages by `cursor` leave out no document that stays as it is, and have none twice, whatever is
/// written meanwhile.
#[utoipa::path(get, operation_id = "list_documents", path = "/libraries/{library_id}/documents", tag = "documents",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("page" = Option<u64>, Query, minimum = 1, description = "From 1 [1]"),
        ("page_size" = Option<u64>, Query, minimum = 1, maximum = 1000, description = "1 to 1000 [50]"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, in place of `page`"),
        ("filter" = Option<String>, Query, description = "Only documents that have a passage that passes this filter, which is JSON as in bodies: `{\"year\":{\"$gte\":2020}}`, percent-encoded; see `docs/filters.md`"),
        ("order_by" = Option<String>, Query, description = "A field that documents are ordered by, as filters name it, `year` or `year:asc`; the greatest first with `year:desc`; those without a value come last"),
        ("include_embeddings" = Option<bool>, Query, description = "Whether chunks carry their vectors [false]"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
        ("as_of" = Option<u64>, Query, description = "Read what was there after this write, as far back as history is kept"),
    ),
    responses((status = 200, description = "A page", body = DocumentList), ReadErrors))]
async fn list(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
    At(at): At,
    query: QueryPairs,
) -> Result<Response, Problem> {
    let mut wanted = Wanted::of(&query)?;
    if let Some(order) = wanted.order.take() {
        let filter = (wanted.filter.take().unwrap_or_default(), at);
        let selected = app.engine().select(principal.tenant, library, filter).await?;
        return ordered(&app, selected, order, &wanted).await;
    }
    match wanted.filter.take() {
        None => {
            let snapshot = app.engine().library(principal.tenant, library, at).await?;
            all(snapshot, &wanted).await
        }
        Some(filter) => {
            let selected = app.engine().select(principal.tenant, library, (filter, at)).await?;
            among(selected, &wanted).await
        }
    }
}

/// A page of all documents.
async fn all(snapshot: Snapshot, wanted: &Wanted) -> Result<Response, Problem> {
    let (start, limit) = (wanted.start, wanted.page_size);
    let head = Head { total: snapshot.stats().documents, seq: snapshot.seq() };
    let look = snapshot.clone();
    let next = off_runtime(move || match start {
        Start::Page(page) => look.next_at(offset(page, limit), size(limit)),
        Start::After(cursor) => look.next_after(Some(cursor), size(limit)),
    });
    let next = next.await?;
    let pages = match start {
        Start::Page(page) => Pages::from(snapshot, offset(page, limit), limit, wanted.embeddings),
        Start::After(cursor) => Pages::after(snapshot, cursor, (limit, wanted.embeddings)),
    };
    Ok(answer(&head, wanted, next, pages))
}

/// A page of the documents that pass.
async fn among(selected: Selected, wanted: &Wanted) -> Result<Response, Problem> {
    let limit = wanted.page_size;
    let head = Head { total: selected.documents(), seq: selected.snapshot().seq() };
    let cursor = match wanted.start {
        Start::After(cursor) => Some(cursor),
        Start::Page(page) => match offset(page, limit).checked_sub(1) {
            None => None,
            // Behind the last one there is none.
            Some(before) => selected.cursor_at(before.min(head.total.saturating_sub(1))),
        },
    };
    let look = selected.clone();
    let next = off_runtime(move || look.next_after(cursor, size(limit))).await?;
    let pages = Pages::among(selected, cursor, (limit, wanted.embeddings));
    Ok(answer(&head, wanted, next, pages))
}

/// A page in the order of a field's values.
async fn ordered(
    app: &App,
    selected: Selected,
    (order, cursor): (OrderBy, Option<OrderedCursor>),
    wanted: &Wanted,
) -> Result<Response, Problem> {
    let limit = wanted.page_size;
    let (skip, page) = match (&cursor, wanted.start) {
        (None, Start::Page(page)) => (offset(page, limit), Some(page)),
        (Some(_), _) | (None, Start::After(_)) => (0, None),
    };
    if skip.saturating_add(limit) > ORDERED_PAGES_ROWS_MAX {
        let detail = format!(
            "pages by number end with document {ORDERED_PAGES_ROWS_MAX} of an order: go on by cursors"
        );
        return Err(query_fault("page", &detail));
    }
    let (head, size) = ((selected.documents(), selected.snapshot().seq()), size(limit));
    let skip = usize::try_from(skip).unwrap_or(usize::MAX);
    let found = app.engine().ordered(&selected, order.clone(), (cursor, skip + size)).await?;
    let next = found.documents.last().filter(|_last| found.more);
    let fields = json!({
        "total": head.0,
        "page": page,
        "page_size": limit,
        "next_cursor": next.map(|last| place_text(&order, last)),
    });
    let documents = found.documents.iter().skip(skip).map(|document| document.id);
    let ids: Vec<DocumentId> = documents.collect();
    let pages = Pages::these(selected.snapshot().clone(), ids.into_iter(), wanted.embeddings);
    Ok((seq_header(head.1), json_documents(&fields, pages)).into_response())
}

struct Head {
    total: u64,
    seq: Seq,
}

fn answer(head: &Head, wanted: &Wanted, next: Option<Cursor>, pages: Pages) -> Response {
    let page = match wanted.start {
        Start::Page(page) => Some(page),
        Start::After(_) => None,
    };
    let fields = json!({
        "total": head.total,
        "page": page,
        "page_size": wanted.page_size,
        "next_cursor": next.map(cursor_text),
    });
    (seq_header(head.seq), json_documents(&fields, pages)).into_response()
}

fn offset(page: u64, page_size: u64) -> u64 {
    (page - 1).saturating_mul(page_size)
}

fn size(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Looks at a library on a thread that may wait for the disk.
pub(super) async fn off_runtime<T: Send + 'static>(
    look: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, Problem> {
    let found = tokio::task::spawn_blocking(look).await;
    Ok(found.map_err(|error| Problem::hidden(&crate::problem::INTERNAL, error.to_string()))??)
}
