//! `batch_export`: a library's documents are written to a file that can be fetched until it expires.
//! It is one state of the library from the first document to the last.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use arrwdb_engine::state::{Document, FieldVectors, JobId};
use arrwdb_engine::{Embeddings, Snapshot};
use arrwdb_feed::{JobRun, Performed};
use serde_json::{Value, json};

use super::{JobFiles, Performer, Unable, library_of};
use crate::limits::PAGE_DOCUMENTS_MAX;
use crate::ndjson::write_line;
use crate::routes::{ExportLine, rfc3339};

/// Bytes of a page that is written at a time, about.
const PAGE_BYTES: usize = 1 << 20;

/// How documents are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// One object with all of them.
    Json,
    /// One line for each; they can be imported again.
    Ndjson,
    /// One row for each chunk.
    Csv,
}

impl Format {
    pub(crate) const ALL: [Self; 3] = [Self::Json, Self::Ndjson, Self::Csv];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }
}

/// What an export was asked for.
#[derive(serde::Deserialize)]
struct Parameters {
    format: String,
    include_embeddings: bool,
}

const COLUMNS: [&str; 12] = [
    "document_id",
    "title",
    "author",
    "document_type",
    "source_url",
    "tags",
    "created_at",
    "metadata",
    "chunk_id",
    "chunk_index",
    "text",
    "embedding",
];

impl Performer {
    pub(super) async fn export(&self, run: &JobRun) -> Result<Performed, Unable> {
        let library = library_of(run)?;
        let asked: Parameters = serde_json::from_str(&run.job().spec.parameters)
            .map_err(|error| Unable::Failed(format!("its parameters do not read: {error}")))?;
        let format = Format::from_name(&asked.format)
            .ok_or_else(|| Unable::Failed(format!("there is no format {:?}", asked.format)))?;
        let embeddings =
            if asked.include_embeddings { Embeddings::Included } else { Embeddings::Omitted };
        let id = run.head().id;
        let snapshot = run.engine().library(run.head().tenant, library, None).await?;
        let seq = snapshot.seq();
        let mut progress = run.progress();
        // An export that was interrupted begins anew: what it reads is of one moment.
        (progress.current, progress.chunks) = (0, 0);
        progress.total = Some(snapshot.stats().documents);
        let files = self.files.clone();
        let mut writer = blocking(move || Writer::create(&files, id, format, embeddings)).await?;
        let head = json!({"library_id": library.to_string(), "seq": seq.get()});
        writer.begin(&head).map_err(|error| unwritten(&error))?;
        let mut reading = Some((writer, snapshot, None));
        while let Some((mut writer, snapshot, cursor)) = reading.take() {
            run.check()?;
            let page = blocking(move || {
                let limit = writer.page_documents;
                let page = snapshot.documents_after(cursor, limit, writer.embeddings)?;
                let documents = page.documents.len() as u64;
                let chunks = page.documents.iter().map(|it| it.chunks.len() as u64).sum::<u64>();
                let whole = with_fields(&snapshot, page.documents, writer.embeddings)?;
                writer.write(whole).map_err(|error| unwritten(&error))?;
                Ok((writer, snapshot, page.next, documents, chunks))
            });
            let (writer, snapshot, next, documents, chunks) = page.await?;
            progress.current += documents;
            progress.chunks += chunks;
            run.advance(progress).await;
            if next.is_some() {
                reading = Some((writer, snapshot, next));
                continue;
            }
            let (files, total) = (self.files.clone(), progress.current);
            let bytes =
                blocking(move || writer.finish(&files, total).map_err(|error| unwritten(&error)));
            let result = json!({
                "documents_exported": progress.current,
                "format": format.name(),
                "file_size_bytes": bytes.await?,
                "library_id": library.to_string(),
                "seq": seq.get(),
                "download_url": format!("/v1/jobs/{id}/download"),
                "expires_at": expiry(run, self.files.kept()),
            });
            return Ok(Performed::Completed(result.to_string()));
        }
        Err(Unable::Failed("the library could not be read".to_owned()))
    }
}

/// Documents with what they have in vector fields, where vectors are written.
fn with_fields(
    snapshot: &Snapshot,
    documents: Vec<Document>,
    embeddings: Embeddings,
) -> Result<Vec<(Document, Vec<FieldVectors>)>, Unable> {
    let of_document = |document: Document| {
        let fields = match embeddings {
            Embeddings::Included => snapshot.field_vectors(document.id)?,
            Embeddings::Omitted => Vec::new(),
        };
        Ok((document, fields))
    };
    documents.into_iter().map(of_document).collect()
}

fn expiry(run: &JobRun, kept: std::time::Duration) -> String {
    let micros = i64::try_from(kept.as_micros()).unwrap_or(i64::MAX);
    let now = run.engine().now().micros();
    rfc3339(arrwdb_engine::state::Timestamp::from_micros(now.saturating_add(micros)))
}

/// A disk that is full is waited for.
fn unwritten(error: &io::Error) -> Unable {
    let text = format!("the export cannot be written: {error}");
    if error.kind() == io::ErrorKind::StorageFull {
        Unable::Later(text, super::LATER)
    } else {
        Unable::Again(text)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Unable> + Send + 'static,
) -> Result<T, Unable> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Unable::Again(error.to_string())))
}

/// An export's file on its way. One that is not finished is removed.
struct Writer {
    format: Format,
    embeddings: Embeddings,
    file: BufWriter<File>,
    part: PathBuf,
    finished: bool,
    first: bool,
    page_documents: usize,
    bytes: u64,
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            drop(std::fs::remove_file(&self.part));
        }
    }
}

impl Writer {
    fn create(
        files: &JobFiles,
        id: JobId,
        format: Format,
        embeddings: Embeddings,
    ) -> Result<Self, Unable> {
        let (file, part) =
            files.create_export(id, format.name()).map_err(|error| unwritten(&error))?;
        let file = BufWriter::with_capacity(PAGE_BYTES, file);
        let (finished, first, page_documents, bytes) = (false, true, 1, 0);
        Ok(Self { format, embeddings, file, part, finished, first, page_documents, bytes })
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn begin(&mut self, head: &Value) -> io::Result<()> {
        match self.format {
            Format::Json => {
                let mut text = head.to_string();
                text.pop();
                text.push_str(",\"documents\":[");
                self.put(text.as_bytes())
            }
            Format::Ndjson => Ok(()),
            Format::Csv => {
                let mut row = csv::Writer::from_writer(Vec::new());
                let columns = match self.embeddings {
                    Embeddings::Included => &COLUMNS[..],
                    Embeddings::Omitted => &COLUMNS[..COLUMNS.len() - 1],
                };
                row.write_record(columns)?;
                let row = row.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
                self.put(&row)
            }
        }
    }

    fn write(&mut self, documents: Vec<(Document, Vec<FieldVectors>)>) -> io::Result<()> {
        let (before, count) = (self.bytes, documents.len());
        for (document, fields) in documents {
            match self.format {
                Format::Json => {
                    if !std::mem::replace(&mut self.first, false) {
                        self.put(b",")?;
                    }
                    let text = serde_json::to_vec(&ExportLine::of(document, fields))?;
                    self.put(&text)?;
                }
                Format::Ndjson => {
                    let mut text = Vec::new();
                    write_line(&mut text, &ExportLine::of(document, fields))?;
                    self.put(&text)?;
                }
                Format::Csv => {
                    let rows = rows(&document, self.embeddings)?;
                    self.put(&rows)?;
                }
            }
        }
        // The next read takes as many documents as would have filled the page, growing gently.
        let written = usize::try_from(self.bytes - before).unwrap_or(usize::MAX);
        let each = (written / count.max(1)).max(1);
        let fits = (PAGE_BYTES / each).clamp(1, PAGE_DOCUMENTS_MAX);
        self.page_documents = fits.min(self.page_documents * 4);
        Ok(())
    }

    fn finish(mut self, files: &JobFiles, total: u64) -> io::Result<u64> {
        match self.format {
            Format::Json => self.put(format!("],\"total_documents\":{total}}}\n").as_bytes())?,
            Format::Ndjson => {
                let end = json!({"status": "complete", "total_documents": total});
                self.put(format!("{end}\n").as_bytes())?;
            }
            Format::Csv => {}
        }
        self.file.flush()?;
        files.finish_export(self.file.get_ref(), &self.part)?;
        self.finished = true;
        Ok(self.bytes)
    }
}

/// The rows of a document: one for each chunk.
fn rows(document: &Document, embeddings: Embeddings) -> io::Result<Vec<u8>> {
    let mut out = csv::Writer::from_writer(Vec::new());
    let metadata = &document.metadata;
    let custom = if metadata.custom.is_empty() {
        String::new()
    } else {
        Value::Object(metadata.custom.clone()).to_string()
    };
    for (index, chunk) in document.chunks.iter().enumerate() {
        let mut row = vec![
            document.id.to_string(),
            metadata.title.clone(),
            metadata.author.clone().unwrap_or_default(),
            metadata.document_type.clone(),
            metadata.source_url.clone().unwrap_or_default(),
            if metadata.tags.is_empty() {
                String::new()
            } else {
                serde_json::to_string(&metadata.tags)?
            },
            rfc3339(metadata.created_at),
            custom.clone(),
            chunk.id.to_string(),
            index.to_string(),
            chunk.text.clone(),
        ];
        if embeddings == Embeddings::Included {
            row.push(serde_json::to_string(&chunk.embedding)?);
        }
        out.write_record(&row)?;
    }
    out.into_inner().map_err(|error| io::Error::other(error.to_string()))
}
