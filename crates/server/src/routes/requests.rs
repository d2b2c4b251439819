//! The JSON of requests, read into what the engine takes.
//!
//! Each reader notes every field that breaks a rule; limits come from the settings.

use arrwdb_engine::state::{Custom, DocumentId, LibraryId, TEXT_FIELD, Timestamp, limits};
use arrwdb_engine::{Content, PutChunk, PutDocument};
use utoipa::ToSchema;

use super::document_patch::patch_problem;
use super::vector_requests::{AddVector, read_vectors};
use crate::config::RequestLimits;
use crate::extract::read_json;
use crate::json::{Read, Reader};
use crate::problem::Problem;

/// What an object with unknown keys is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A document of a request: unknown keys are ignored, a title is needed.
    Request,
    /// The same with vectors: `chunks`, each with an embedding, is needed.
    WithEmbeddings,
    /// A line of NDJSON: unknown keys are custom metadata, the title defaults to `Untitled`.
    Line,
    /// What a WebSocket sends: unknown keys are ignored, the title defaults to `Untitled`, and
    /// `metadata` has author, type, source and tags beside custom metadata.
    Message,
}

/// A document to add. Its text is given in exactly one of `text`, `texts` and `chunks`.
#[derive(Debug, Default, ToSchema)]
#[schema(example = json!({
    "title": "Machine learning in a nutshell",
    "texts": ["Models learn from examples.", "More data often helps."],
    "author": "Ada",
    "tags": ["ml"],
    "metadata": {"year": 2026}
}))]
pub(crate) struct AddDocument {
    /// The document's id; made by the server when absent. A document of this id is replaced.
    #[schema(value_type = Option<String>, format = "uuid")]
    id: Option<DocumentId>,
    /// Title, 1 to 1000 characters.
    #[schema(value_type = String, required = true, min_length = 1, max_length = 1000)]
    title: Option<String>,
    /// One text, split by the server at about `MAX_CHUNK_SIZE` characters.
    text: Option<String>,
    /// Passages kept as they are, each at most `MAX_CHUNK_LENGTH` characters.
    #[schema(min_items = 1, max_items = 1000)]
    texts: Option<Vec<String>>,
    /// Passages with vectors.
    #[schema(min_items = 1, max_items = 1000)]
    chunks: Option<Vec<AddChunk>>,
    author: Option<String>,
    #[schema(default = "text")]
    document_type: Option<String>,
    source_url: Option<String>,
    #[schema(value_type = Option<Vec<String>>)]
    tags: Vec<String>,
    /// Which of what may be null is there at all.
    #[schema(ignore)]
    given: Vec<&'static str>,
    /// Custom metadata: any JSON, returned as given and filterable.
    #[schema(value_type = Option<Object>)]
    metadata: Custom,
    /// When the document was added, for imports; now when absent.
    #[schema(value_type = Option<String>, format = "date-time")]
    created_at: Option<Timestamp>,
    /// What the document has in vector fields beside its passages.
    #[schema(value_type = Option<Vec<AddVector>>)]
    vectors: Vec<AddVector>,
}

/// A passage with its vector.
#[derive(Debug, Default, ToSchema)]
#[schema(example = json!({"text": "Models learn from examples.", "embedding": [0.12, -0.05, 0.33]}))]
pub(crate) struct AddChunk {
    /// The chunk's id; made by the server when absent.
    #[schema(value_type = Option<String>, format = "uuid")]
    id: Option<arrwdb_engine::state::ChunkId>,
    #[schema(value_type = String, required = true, min_length = 1, max_length = 10000)]
    text: Option<String>,
    /// As many numbers as the library has dimensions.
    embedding: Option<Vec<f32>>,
    /// `created_at`, `page_number` and custom keys.
    #[schema(value_type = Option<Object>)]
    metadata: ChunkFields,
}

#[derive(Debug, Default)]
struct ChunkFields {
    created_at: Option<Timestamp>,
    page_number: Option<u32>,
    custom: Custom,
}

/// Reads one document.
pub(crate) fn read_document(
    reader: &mut Reader<'_>,
    form: Form,
    limits: &RequestLimits,
) -> Read<PutDocument> {
    let mut document = AddDocument::default();
    reader.object(|r, key| document_field(&mut document, r, key, (form, limits)))?;
    check_document(&document, reader, form, limits);
    let AddDocument { text, texts, chunks, .. } = document;
    let content = content_of(text, texts, chunks);
    Ok(PutDocument {
        id: document.id,
        title: document.title.unwrap_or_else(|| "Untitled".to_owned()),
        author: document.author,
        document_type: document.document_type,
        source_url: document.source_url,
        tags: document.tags,
        custom: document.metadata,
        created_at: document.created_at,
        content: content.unwrap_or(Content::Text(String::new())),
        vectors: (0..).zip(document.vectors).map(|(at, vector)| vector.into_put(at)).collect(),
    })
}

/// Reads a document that is given by its vectors: those of the type `text` are its passages; where there
/// are none, its title is its only one.
pub(super) fn read_multi_vector(
    r: &mut Reader<'_>,
    limits: &RequestLimits,
) -> Read<(PutDocument, Vec<usize>)> {
    let mut document = AddDocument::default();
    let mut seen = false;
    r.object(|r, key| {
        seen |= key == "vectors";
        match key {
            "text" | "texts" | "chunks" => {
                r.any()?;
                r.fault("a document of several vectors has its texts in vectors of the type text");
                Ok(())
            }
            key => document_field(&mut document, r, key, (Form::Request, limits)),
        }
    })?;
    r.require("title", document.title.is_some() || r.has_fault_at("title"));
    if document.vectors.is_empty() && !r.has_fault_at("vectors") {
        let detail = if seen { "must have at least 1 element" } else { "is required" };
        r.fault_at("vectors", detail);
    }
    let title = document.title.unwrap_or_default();
    let (mut chunks, mut vectors, mut passages) = (Vec::new(), Vec::new(), Vec::new());
    for (place, vector) in document.vectors.into_iter().enumerate() {
        if vector.field() != TEXT_FIELD {
            vectors.push(vector.into_put(place));
        } else if let Some(name) = vector.not_of_passages() {
            let detail = if name == "image_url" {
                "is given for a passage, which is made of a text: put the picture into a vector field, such \
                 as image"
            } else {
                "is given for a passage, which has a dense vector, or none"
            };
            r.fault_beneath(&format!("/vectors/{place}/{name}"), detail);
        } else if chunks.len() <= limits.chunks_per_document_max {
            chunks.push(vector.into_chunk(&title));
            passages.push(place);
        }
    }
    count_within(r, "vectors", chunks.len().max(1), limits.chunks_per_document_max);
    if chunks.is_empty() {
        chunks.push(PutChunk { text: title.clone(), ..PutChunk::default() });
    }
    let document = PutDocument {
        id: document.id,
        title,
        author: document.author,
        document_type: document.document_type,
        source_url: document.source_url,
        tags: document.tags,
        custom: document.metadata,
        created_at: document.created_at,
        content: Content::Chunks(chunks),
        vectors,
    };
    Ok((document, passages))
}

fn content_of(
    text: Option<String>,
    texts: Option<Vec<String>>,
    chunks: Option<Vec<AddChunk>>,
) -> Option<Content> {
    match (text, texts, chunks) {
        (_, _, Some(chunks)) => Some(Content::Chunks(chunks.into_iter().map(put_chunk).collect())),
        (_, Some(texts), None) => Some(Content::Texts(texts)),
        (text, None, None) => text.map(Content::Text),
    }
}

/// What is to change of a document that is there.
#[derive(Debug, Clone)]
pub(crate) struct DocumentPatch {
    pub(crate) title: Option<String>,
    pub(crate) author: Option<String>,
    pub(crate) document_type: Option<String>,
    pub(crate) source_url: Option<String>,
    pub(crate) tags: Vec<String>,
    /// Which of those four are to be as they are here, none included.
    pub(crate) given: Vec<&'static str>,
    /// A merge patch of them.
    pub(crate) custom: Custom,
    pub(crate) content: Option<Content>,
}

/// Reads what is to change of a document; what is absent stays as it is.
pub(crate) fn read_patch(r: &mut Reader<'_>, limits: &RequestLimits) -> Read<DocumentPatch> {
    let mut document = AddDocument::default();
    r.object(|r, key| document_field(&mut document, r, key, (Form::Message, limits)))?;
    check_content(&document, r, limits);
    Ok(DocumentPatch {
        title: document.title,
        author: document.author,
        document_type: document.document_type,
        source_url: document.source_url,
        tags: document.tags,
        given: document.given,
        custom: document.metadata,
        content: content_of(document.text, document.texts, document.chunks),
    })
}

fn put_chunk(chunk: AddChunk) -> PutChunk {
    PutChunk {
        id: chunk.id,
        text: chunk.text.unwrap_or_default(),
        embedding: chunk.embedding,
        created_at: chunk.metadata.created_at,
        page_number: chunk.metadata.page_number,
        custom: chunk.metadata.custom,
    }
}

fn document_field(
    document: &mut AddDocument,
    r: &mut Reader<'_>,
    key: &str,
    (form, limits): (Form, &RequestLimits),
) -> Read<()> {
    match key {
        "id" => document.id = read_id(r)?,
        "title" => document.title = text_within(r, 1, limits.title_chars_max)?,
        "text" => document.text = r.string()?,
        "texts" => document.texts = read_texts(r, limits)?,
        "chunks" => document.chunks = read_chunks(r, form, limits)?,
        "author" => {
            document.given.push("author");
            document.author = text_up_to(r, limits.author_chars_max)?;
        }
        "document_type" => {
            document.given.push("document_type");
            document.document_type = r.string()?;
        }
        "source_url" => {
            document.given.push("source_url");
            document.source_url = r.string()?;
        }
        "tags" => {
            document.given.push("tags");
            document.tags = read_tags(r, limits)?;
        }
        "metadata" if form == Form::Message => {
            r.object(|r, key| match key {
                "author" | "document_type" | "source_url" | "tags" | "created_at" => {
                    document_field(document, r, key, (form, limits))
                }
                custom => {
                    let value = r.any()?;
                    document.metadata.insert(custom.to_owned(), value);
                    Ok(())
                }
            })?;
        }
        "vectors" => document.vectors = read_vectors(r, limits)?,
        "metadata" => document.metadata.extend(r.any_object()?.unwrap_or_default()),
        "created_at" => document.created_at = read_time(r)?,
        custom if form == Form::Line => {
            let value = r.any()?;
            document.metadata.insert(custom.to_owned(), value);
        }
        _ignored => {}
    }
    Ok(())
}

fn check_document(document: &AddDocument, r: &mut Reader<'_>, form: Form, limits: &RequestLimits) {
    if matches!(form, Form::Request | Form::WithEmbeddings) {
        r.require("title", document.title.is_some() || r.has_fault_at("title"));
    }
    let AddDocument { text, texts, chunks, .. } = document;
    let given = [text.is_some(), texts.is_some(), chunks.is_some()];
    match (given.iter().filter(|&&given| given).count(), form) {
        (0, Form::WithEmbeddings) => r.require("chunks", r.has_fault_at("chunks")),
        (0, Form::Request | Form::Line | Form::Message) => {
            let faulty = ["text", "texts", "chunks"].iter().any(|name| r.has_fault_at(name));
            let name = if form == Form::Message { "text" } else { "texts" };
            r.require(name, faulty);
        }
        (1, Form::WithEmbeddings) if chunks.is_none() => r.require("chunks", false),
        _ => {}
    }
    check_content(document, r, limits);
}

/// At most one content, of not too much.
fn check_content(document: &AddDocument, r: &mut Reader<'_>, limits: &RequestLimits) {
    let AddDocument { text, texts, chunks, .. } = document;
    let given = [text.is_some(), texts.is_some(), chunks.is_some()];
    if given.iter().filter(|&&given| given).count() > 1 {
        r.fault("give exactly one of text, texts and chunks");
    }
    if let Some(texts) = texts {
        count_within(r, "texts", texts.len(), limits.chunks_per_document_max);
    }
    if let Some(chunks) = chunks {
        count_within(r, "chunks", chunks.len(), limits.chunks_per_document_max);
    }
}

fn count_within(r: &mut Reader<'_>, name: &str, count: usize, max: usize) {
    if count == 0 || count > max {
        r.fault_at(name, format!("must have 1 to {max} elements; it has {count}"));
    }
}

fn read_texts(r: &mut Reader<'_>, limits: &RequestLimits) -> Read<Option<Vec<String>>> {
    let mut texts = Vec::new();
    let seen = r.array(|r, _| {
        let text = text_within(r, 0, limits.chunk_chars_max)?;
        // Beyond the limit only the count matters.
        if texts.len() <= limits.chunks_per_document_max {
            texts.push(text.unwrap_or_default());
        }
        Ok(())
    })?;
    Ok(seen.map(|()| texts))
}

pub(super) fn read_tags(r: &mut Reader<'_>, limits: &RequestLimits) -> Read<Vec<String>> {
    let mut tags = Vec::new();
    r.array(|r, _| {
        tags.extend(text_up_to(r, limits.tag_chars_max)?);
        Ok(())
    })?;
    if let Some(max) = limits.tags_max
        && tags.len() > max
    {
        r.fault(format!("must have at most {max} elements; it has {}", tags.len()));
    }
    Ok(tags)
}

fn read_chunks(
    r: &mut Reader<'_>,
    form: Form,
    limits: &RequestLimits,
) -> Read<Option<Vec<AddChunk>>> {
    let mut chunks = Vec::new();
    let seen = r.array(|r, _| {
        let chunk = read_chunk(r, form, limits)?;
        if chunks.len() <= limits.chunks_per_document_max {
            chunks.push(chunk);
        }
        Ok(())
    })?;
    Ok(seen.map(|()| chunks))
}

fn read_chunk(r: &mut Reader<'_>, form: Form, limits: &RequestLimits) -> Read<AddChunk> {
    let mut chunk = AddChunk::default();
    r.object(|r, key| {
        match key {
            "id" => chunk.id = read_id(r)?,
            "text" => chunk.text = text_within(r, 1, limits.chunk_chars_max)?,
            "embedding" => chunk.embedding = read_vector(r)?,
            "metadata" => chunk.metadata = read_chunk_fields(r)?,
            _ignored => {}
        }
        Ok(())
    })?;
    r.require("text", chunk.text.is_some() || r.has_fault_at("text"));
    if form == Form::WithEmbeddings {
        r.require("embedding", chunk.embedding.is_some() || r.has_fault_at("embedding"));
    }
    Ok(chunk)
}

fn read_chunk_fields(r: &mut Reader<'_>) -> Read<ChunkFields> {
    let mut fields = ChunkFields::default();
    r.object(|r, key| {
        match key {
            "created_at" => fields.created_at = read_time(r)?,
            "page_number" => fields.page_number = read_page(r)?,
            // Both follow from where the chunk stands.
            "chunk_index" | "source_document_id" => {}
            "custom" => fields.custom.extend(r.any_object()?.unwrap_or_default()),
            custom => {
                let value = r.any()?;
                fields.custom.insert(custom.to_owned(), value);
            }
        }
        Ok(())
    })?;
    Ok(fields)
}

fn read_page(r: &mut Reader<'_>) -> Read<Option<u32>> {
    let Some(page) = r.whole()? else { return Ok(None) };
    let page = u32::try_from(page).ok();
    if page.is_none() {
        r.fault(format!("must be at most {}", u32::MAX));
    }
    Ok(page)
}

/// An id in any usual spelling.
pub(crate) fn read_id<T: std::str::FromStr>(r: &mut Reader<'_>) -> Read<Option<T>>
where
    T::Err: std::fmt::Display,
{
    let Some(text) = r.string()? else { return Ok(None) };
    Ok(match text.parse() {
        Ok(id) => Some(id),
        Err(error) => {
            r.fault(error.to_string());
            None
        }
    })
}

/// A vector of at most as many numbers as any library has.
pub(crate) fn read_vector(r: &mut Reader<'_>) -> Read<Option<Vec<f32>>> {
    let vector = r.vector(usize::try_from(limits::DIMENSIONS_MAX).unwrap_or(usize::MAX))?;
    if vector.as_ref().is_some_and(Vec::is_empty) {
        r.fault("must have at least 1 number");
    }
    Ok(vector)
}

/// RFC 3339; a time without zone is taken for UTC, as older servers wrote it.
pub(crate) fn read_time(r: &mut Reader<'_>) -> Read<Option<Timestamp>> {
    let Some(text) = r.string()? else { return Ok(None) };
    let time = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let civil = text.parse::<jiff::civil::DateTime>().ok()?;
        civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    });
    if time.is_none() {
        r.fault("must be a time such as 2026-01-31T12:00:00Z");
    }
    Ok(time.map(|time| Timestamp::from_micros(time.as_microsecond())))
}

/// A text of so many characters; `None` if it has more or fewer, which is noted.
pub(crate) fn text_within(r: &mut Reader<'_>, min: usize, max: usize) -> Read<Option<String>> {
    let Some(text) = r.string()? else { return Ok(None) };
    // A text has at most as many characters as bytes.
    let count = if text.len() <= max && min <= 1 { text.len() } else { text.chars().count() };
    if (min..=max).contains(&count) {
        return Ok(Some(text));
    }
    r.fault(format!("must have {min} to {max} characters; it has {count}"));
    Ok(None)
}

pub(super) fn text_up_to(r: &mut Reader<'_>, max: Option<usize>) -> Read<Option<String>> {
    text_within(r, 0, max.unwrap_or(usize::MAX))
}

/// Reads `documents: [..]`. A document whose only faults are in its vectors fails alone.
pub(crate) fn read_batch(
    r: &mut Reader<'_>,
    form: Form,
    limits: &RequestLimits,
) -> Read<Vec<Result<PutDocument, String>>> {
    let mut documents = Vec::new();
    let mut present = false;
    r.object(|r, key| {
        if key != "documents" {
            return Ok(());
        }
        let seen = r.array(|r, _| {
            let faults = r.fault_count();
            let document = read_document(r, form, limits)?;
            let vector_faults = r.take_vector_faults(faults);
            if documents.len() <= limits.batch_documents_max {
                documents.push(match vector_faults.first() {
                    None => Ok(document),
                    Some(fault) => Err(format!("{}: {}", fault.pointer, fault.detail)),
                });
            }
            Ok(())
        })?;
        present = seen.is_some() || r.has_own_fault();
        if seen.is_some() {
            let (count, max) = (documents.len(), limits.batch_documents_max);
            if count == 0 || count > max {
                r.fault(format!("must have 1 to {max} elements"));
            }
        }
        Ok(())
    })?;
    r.require("documents", present);
    Ok(documents)
}

/// Documents to delete.
#[derive(Debug)]
pub(crate) struct DeleteWanted {
    pub(crate) ids: Vec<DocumentId>,
    /// The library that they are in, where that is said.
    pub(crate) library: Option<LibraryId>,
}

/// Reads `document_ids: [..]`, and `library_id`.
pub(crate) fn read_ids(r: &mut Reader<'_>, limits: &RequestLimits) -> Read<DeleteWanted> {
    let mut ids = Vec::new();
    let mut library = None;
    let mut present = false;
    r.object(|r, key| {
        if key == "library_id" {
            library = read_id::<LibraryId>(r)?;
        }
        if key != "document_ids" {
            return Ok(());
        }
        let mut count = 0_usize;
        let seen = r.array(|r, _| {
            count += 1;
            if count <= limits.batch_documents_max {
                ids.extend(read_id::<DocumentId>(r)?);
            }
            Ok(())
        })?;
        present = seen.is_some() || r.has_own_fault();
        if seen.is_some() && (count == 0 || count > limits.batch_documents_max) {
            r.fault(format!("must have 1 to {} elements", limits.batch_documents_max));
        }
        Ok(())
    })?;
    r.require("document_ids", present);
    Ok(DeleteWanted { ids, library })
}

/// What refuses a body that is read as documents, as documents with vectors, as a line of NDJSON, as
/// batches of them, as a list of ids and as patches: the problem of each that it is not. For who tests the
/// reader with bodies that nobody wrote.
pub fn document_problems(body: &[u8], limits: &RequestLimits) -> Vec<Problem> {
    let forms = [Form::Request, Form::WithEmbeddings, Form::Line, Form::Message];
    let documents = forms.map(|form| read_json(body, |r| read_document(r, form, limits)).err());
    let batches = forms.map(|form| read_json(body, |r| read_batch(r, form, limits)).err());
    let ids = read_json(body, |r| read_ids(r, limits)).err();
    let patch = read_json(body, |r| read_patch(r, limits)).err();
    let patches = [patch, patch_problem(body, limits)];
    documents.into_iter().chain(batches).chain([ids]).chain(patches).flatten().collect()
}
