//! Documents that are written out as they are read: exports, pages, libraries.
//!
//! A snapshot is read a few documents at a time, so memory is bounded however large the library
//! is, and what is written is one state however much is written to the library meanwhile.

use std::io;

use arrwdb_engine::state::{Document, DocumentId, FieldVectors};
use arrwdb_engine::{Cursor, DocumentPage, Embeddings, EngineError, Selected, Snapshot};
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use http::{HeaderMap, header};
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::{DocumentAnswer, ExportAnswer, ExportLine};
use super::{NDJSON, line, seq_header};
use crate::app::App;
use crate::extract::{LibraryPath, QueryPairs};
use crate::limits::{PAGE_BYTES, PAGE_DOCUMENTS_MAX};
use crate::moment::At;
use crate::ndjson::write_line;
use crate::openapi::ReadErrors;
use crate::principal::Principal;
use crate::problem::Problem;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(export))
}

/// `?include_embeddings=`.
pub(super) fn ask_embeddings(query: &QueryPairs, default: bool) -> Result<Embeddings, Problem> {
    let included = query.switch("include_embeddings")?.unwrap_or(default);
    Ok(if included { Embeddings::Included } else { Embeddings::Omitted })
}

/// Documents of one snapshot, a few at a time.
#[derive(Debug)]
pub(super) struct Pages {
    source: Source,
    place: Place,
    remaining: u64,
    embeddings: Embeddings,
    /// Whether what documents have in vector fields is read, too.
    fields: bool,
    page_documents: usize,
}

/// What documents are read from.
#[derive(Debug)]
enum Source {
    All(Snapshot),
    Among(Selected),
    /// These documents, the next one last.
    These(Snapshot, Vec<DocumentId>),
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Offset(u64),
    After(Cursor),
    End,
}

/// One read, rendered.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) bytes: Vec<u8>,
    documents: u64,
}

/// Writes one document, and what it has in vector fields where that is read, to the buffer.
pub(super) type Render =
    fn(Document, Vec<FieldVectors>, &mut Vec<u8>) -> Result<(), serde_json::Error>;

impl Pages {
    /// The first `limit` documents.
    pub(super) fn first(snapshot: Snapshot, limit: u64, embeddings: Embeddings) -> Self {
        Self::from(snapshot, 0, limit, embeddings)
    }

    /// At most `limit` documents from the `offset`-th on.
    pub(super) fn from(
        snapshot: Snapshot,
        offset: u64,
        limit: u64,
        embeddings: Embeddings,
    ) -> Self {
        let (source, place) = (Source::All(snapshot), Place::Offset(offset));
        Self { source, place, remaining: limit, embeddings, fields: false, page_documents: 1 }
    }

    /// The first `limit` documents after `cursor`.
    pub(super) fn after(
        snapshot: Snapshot,
        cursor: Cursor,
        (limit, embeddings): (u64, Embeddings),
    ) -> Self {
        let (source, place) = (Source::All(snapshot), Place::After(cursor));
        Self { source, place, remaining: limit, embeddings, fields: false, page_documents: 1 }
    }

    /// The first `limit` documents after `cursor` that pass a filter.
    pub(super) fn among(
        selected: Selected,
        cursor: Option<Cursor>,
        (limit, embeddings): (u64, Embeddings),
    ) -> Self {
        let place = cursor.map_or(Place::Offset(0), Place::After);
        let source = Source::Among(selected);
        Self { source, place, remaining: limit, embeddings, fields: false, page_documents: 1 }
    }

    /// These documents of a snapshot.
    pub(super) fn these(
        snapshot: Snapshot,
        documents: impl DoubleEndedIterator<Item = DocumentId>,
        embeddings: Embeddings,
    ) -> Self {
        let documents: Vec<DocumentId> = documents.rev().collect();
        let remaining = documents.len() as u64;
        let source = Source::These(snapshot, documents);
        Self {
            source,
            place: Place::Offset(0),
            remaining,
            embeddings,
            fields: false,
            page_documents: 1,
        }
    }

    /// All documents with everything that they have; without embeddings, nothing of vector fields.
    pub(super) fn whole(snapshot: Snapshot, embeddings: Embeddings) -> Self {
        let fields = embeddings == Embeddings::Included;
        Self { fields, ..Self::first(snapshot, u64::MAX, embeddings) }
    }

    /// Reads and renders the next documents on a thread that may wait for the disk; `None` at the
    /// end.
    async fn next(mut self, render: Render) -> Result<Option<(Rendered, Self)>, EngineError> {
        if self.remaining == 0 || matches!(self.place, Place::End) {
            return Ok(None);
        }
        let task = tokio::task::spawn_blocking(move || {
            let page = self.read()?;
            let rendered = self.render(page, render)?;
            Ok(Some((rendered, self)))
        });
        task.await.unwrap_or_else(|error| {
            Err(EngineError::Damaged { detail: format!("reading documents failed: {error}") })
        })
    }

    fn read(&mut self) -> Result<DocumentPage, EngineError> {
        let limit = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(self.page_documents);
        let embeddings = self.embeddings;
        let page = match (self.place, &mut self.source) {
            (_, Source::These(snapshot, documents)) => {
                let next = documents.split_off(documents.len().saturating_sub(limit));
                let read = next.into_iter().rev().map(|id| snapshot.document(id, embeddings));
                let read: Vec<Option<Document>> = read.collect::<Result<_, _>>()?;
                let documents = read.into_iter().flatten().collect();
                // What is left says where it goes on.
                return Ok(DocumentPage { documents, next: None, total: 0 });
            }
            (Place::Offset(offset), Source::All(all)) => {
                all.documents_at(offset, limit, embeddings)?
            }
            (Place::After(cursor), Source::All(all)) => {
                all.documents_after(Some(cursor), limit, embeddings)?
            }
            // Those that pass are read from the first or from a cursor.
            (Place::Offset(_), Source::Among(among)) => {
                among.documents_after(None, limit, embeddings)?
            }
            (Place::After(cursor), Source::Among(among)) => {
                among.documents_after(Some(cursor), limit, embeddings)?
            }
            (Place::End, _) => {
                return Ok(DocumentPage { documents: Vec::new(), next: None, total: 0 });
            }
        };
        self.place = page.next.map_or(Place::End, Place::After);
        Ok(page)
    }

    fn fields_of(&self, document: DocumentId) -> Result<Vec<FieldVectors>, EngineError> {
        match &self.source {
            Source::All(snapshot) if self.fields => snapshot.field_vectors(document),
            Source::All(_) | Source::Among(_) | Source::These(..) => Ok(Vec::new()),
        }
    }

    fn render(&mut self, page: DocumentPage, render: Render) -> Result<Rendered, EngineError> {
        let documents = page.documents.len() as u64;
        let mut bytes = Vec::new();
        for document in page.documents {
            let fields = self.fields_of(document.id)?;
            render(document, fields, &mut bytes).map_err(|error| EngineError::Damaged {
                detail: format!("a document cannot be written as JSON: {error}"),
            })?;
        }
        self.remaining = self.remaining.saturating_sub(documents);
        // The next read takes as many documents as would have filled the page, growing gently.
        let per_document = bytes.len() / usize::try_from(documents.max(1)).unwrap_or(usize::MAX);
        self.page_documents = (PAGE_BYTES / per_document.max(1))
            .clamp(1, PAGE_DOCUMENTS_MAX)
            .min(self.page_documents * 4);
        Ok(Rendered { bytes, documents })
    }
}

/// Reads until the end or the first error, which is the last item.
pub(super) fn rendered(
    pages: Pages,
    render: Render,
) -> impl Stream<Item = Result<Rendered, EngineError>> + Send {
    stream::unfold(Some(pages), move |pages| async move {
        match pages?.next(render).await {
            Ok(None) => None,
            Ok(Some((rendered, pages))) => Some((Ok(rendered), Some(pages))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

fn comma_and_document(
    document: Document,
    _fields: Vec<FieldVectors>,
    out: &mut Vec<u8>,
) -> Result<(), serde_json::Error> {
    out.push(b',');
    serde_json::to_writer(out, &DocumentAnswer::of(document))
}

fn export_line(
    document: Document,
    fields: Vec<FieldVectors>,
    out: &mut Vec<u8>,
) -> Result<(), serde_json::Error> {
    write_line(out, &ExportLine::of(document, fields))
}

/// One JSON object: the members of `head`, then `documents`. An error in the middle breaks the
/// answer off, so that nobody takes a part for the whole.
pub(super) fn json_documents(head: &Value, pages: Pages) -> Response {
    let mut start = head.to_string();
    start.pop();
    start.push_str(",\"documents\":[");
    let start = stream::iter([Ok(start.into_bytes())]);
    let mut first = true;
    let middle = rendered(pages, comma_and_document).map(move |page| match page {
        Ok(mut page) => {
            if std::mem::replace(&mut first, false) && !page.bytes.is_empty() {
                page.bytes.remove(0);
            }
            Ok(page.bytes)
        }
        Err(error) => {
            tracing::error!("documents could not be read: {error}");
            Err(io::Error::other("documents could not be read"))
        }
    });
    let end = stream::iter([Ok(b"]}".to_vec())]);
    let body = Body::from_stream(start.chain(middle).chain(end));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Writes out every document as NDJSON, one state of the library from first to last. The last line
/// is `{"status":"complete",...}`; the lines can be sent to `documents/stream` of another library.
#[utoipa::path(get, operation_id = "export_documents", path = "/libraries/{library_id}/documents/stream", tag = "streams",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("include_embeddings" = Option<bool>, Query, description = "Whether chunks carry their vectors, and documents those in vector fields [true]"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
        ("as_of" = Option<u64>, Query, description = "Read what was there after this write, as far back as history is kept"),
    ),
    responses((status = 200, description = "One line per document", body = ExportAnswer, content_type = "application/x-ndjson"), ReadErrors))]
async fn export(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
    At(at): At,
    query: QueryPairs,
) -> Result<Response, Problem> {
    let embeddings = ask_embeddings(&query, true)?;
    let snapshot = app.engine().library(principal.tenant, library, at).await?;
    let seq = snapshot.seq();
    let headers: HeaderMap = seq_header(seq);
    let pages = rendered(Pages::whole(snapshot, embeddings), export_line);
    let lines =
        stream::unfold((Box::pin(pages), Some(0_u64)), move |(mut pages, total)| async move {
            let total = total?;
            match pages.next().await {
                Some(Ok(page)) => Some((page.bytes, (pages, Some(total + page.documents)))),
                Some(Err(error)) => {
                    tracing::error!("an export broke off: {error}");
                    let end = json!({"status": "error", "error": "documents could not be read"});
                    Some((line(&end), (pages, None)))
                }
                None => {
                    let end =
                        json!({"status": "complete", "total_documents": total, "seq": seq.get()});
                    Some((line(&end), (pages, None)))
                }
            }
        });
    let body = Body::from_stream(lines.map(Ok::<_, std::convert::Infallible>));
    Ok((headers, [(header::CONTENT_TYPE, NDJSON)], body).into_response())
}
