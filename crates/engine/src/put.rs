//! Before the log: from what a caller sends to records with ids, times and finished vectors.

use std::sync::Arc;

use arrwdb_embed::{InputType, splitter};
use arrwdb_state::limits::{
    CHUNK_CHARS_MAX, CHUNKS_PER_DOCUMENT_MAX, METADATA_BYTES_MAX, METADATA_DEPTH_MAX,
    TITLE_CHARS_MAX,
};
use arrwdb_state::{
    BatchNote, Chunk, ChunkId, Command, Custom, DecodeError, Document, DocumentId,
    DocumentMetadata, DocumentRecord, Fate, JobUnit, LibraryId, LibrarySpec, Metric, RecordError,
    Seq, TenantId, Timestamp, check_norm,
};
use serde_json::Value;

use crate::apart::Blame;
use crate::config::EngineConfig;
use crate::engine::Inner;
use crate::error::{EngineError, RETRY_AFTER};
use crate::fields::FieldDrafts;
use crate::generations::is_switching;
use crate::handle::{Handle, Room, WriteDone};
use crate::request::{Content, DOCUMENT_TYPE_USUAL, PutChunk, PutDocument, PutReceipt, Written};
use crate::standing::of_library;
use crate::system::new_uuid;

/// A batch is logged in records of about this size: large enough that the log's framing costs
/// nothing, small enough that others' records fit between.
const RECORD_BYTES: usize = 4 << 20;

/// Records of about so many bytes together are made where they are asked for: that takes less time than
/// to wake a thread of the CPU pool, which looks for more work before it sleeps again.
const RECORDS_AT_ONCE_BYTES: usize = 32 << 10;

/// What became of each document of a request.
pub(crate) type Outcomes = Vec<Result<PutReceipt, EngineError>>;

/// A document ready for the log, with its title, or why it is not.
pub(crate) type Made = Result<(DocumentRecord, String), EngineError>;

impl Inner {
    pub(crate) async fn put(
        self: &Arc<Self>,
        (tenant, library): (TenantId, LibraryId),
        documents: Vec<PutDocument>,
        (unit, blame): (Option<JobUnit>, Blame),
        turn: impl Future<Output = ()> + Send,
    ) -> Result<Written<Outcomes>, EngineError> {
        let (spec, handle, _since) = self.placed(tenant, library, None).await?;
        self.check_disk()?;
        let at = self.parts.clock.now();
        let mut drafts = self.drafts((&spec, &handle), documents, at).await?;
        for draft in &mut drafts {
            if let Err(error) =
                draft.as_ref().map_or(Ok(()), |draft| draft.check_norms(spec.metric))
            {
                *draft = Err(error);
            }
        }
        self.embed_or_blame(&spec, &mut drafts, blame).await?;
        let mut records = self.recorded(drafts, spec.dimension).await?;
        turn.await;
        let (mut seq, mut fates) = self.log_records(&handle, unit, &records).await?;
        // Those that came while another embedding model took over are made anew for that one; where
        // it did not, they are written as they are.
        let mut made_for = vec![handle.id; records.len()];
        let mut refused_by = handle.clone();
        while fates.iter().any(|fate| self.has_moved(library, &refused_by, fate))
            && self.after_switch(library, &refused_by).await
        {
            let (spec, handle, _since) = self.placed(tenant, library, None).await?;
            let moved = fates.iter().map(|fate| self.has_moved(library, &refused_by, fate));
            let moved: Vec<usize> =
                moved.enumerate().filter_map(|(at, moved)| moved.then_some(at)).collect();
            let stale: Vec<usize> =
                moved.iter().copied().filter(|at| made_for[*at] != handle.id).collect();
            let anew = self.made_anew(&spec, stale.iter().map(|at| &records[*at])).await;
            for (at, record) in stale.into_iter().zip(anew) {
                (records[at], made_for[at]) = (record, handle.id);
            }
            let again: Vec<Made> = moved.iter().map(|at| records[*at].clone()).collect();
            let logged = self.log_records(&handle, unit, &again).await;
            let (later, again) =
                logged.unwrap_or_else(|error| (seq, vec![Err(error); moved.len()]));
            seq = seq.max(later);
            for (at, fate) in moved.into_iter().zip(again) {
                fates[at] = fate;
            }
            refused_by = handle;
        }
        let receipts = self.receipts(&refused_by, records, (seq, fates));
        receipts.map_err(|error| of_library(library, error))
    }

    /// Whether a document was refused because the library is written elsewhere by now, or soon.
    fn has_moved(
        &self,
        library: LibraryId,
        handle: &Handle,
        fate: &Result<Fate, EngineError>,
    ) -> bool {
        match fate {
            Err(EngineError::LibraryNotFound(_)) => self.is_moved(library, handle),
            Err(error) => is_switching(error),
            Ok(_fate) => false,
        }
    }

    /// Records with the vectors of this model, whoever made those that they have: what fails there
    /// fails for all of them, unless it is a text's fault.
    async fn made_anew<'a>(
        self: &Arc<Self>,
        spec: &LibrarySpec,
        records: impl Iterator<Item = &'a Made>,
    ) -> Vec<Made> {
        let undecodable = |error| EngineError::Storage { detail: format!("a record: {error}") };
        let mut drafts: Vec<Result<Draft, EngineError>> = records
            .map(|made| match made {
                Ok((record, _title)) => Draft::of(record).map_err(undecodable),
                Err(error) => Err(error.clone()),
            })
            .collect();
        for chunk in drafts.iter_mut().flatten().flat_map(|draft| &mut draft.document.chunks) {
            chunk.embedding = Vec::new();
        }
        if let Err(error) = self.embed_or_blame(spec, &mut drafts, Blame::Each).await {
            drafts.iter_mut().filter(|draft| draft.is_ok()).for_each(|draft| {
                *draft = Err(error.clone());
            });
        }
        let count = drafts.len();
        let recorded = self.recorded(drafts, spec.dimension).await;
        recorded.unwrap_or_else(|error| vec![Err(error); count])
    }

    /// What is logged of a document that has all its vectors.
    pub(crate) async fn record_of(
        &self,
        document: Document,
        fields: FieldDrafts,
        dimension: u32,
    ) -> Result<DocumentRecord, EngineError> {
        let made = self.recorded(vec![Ok(Draft { document, fields })], dimension).await?.pop();
        made.unwrap_or(Err(EngineError::Closed)).map(|(record, _title)| record)
    }

    /// Checks documents, some of whose vectors are still missing.
    pub(crate) async fn drafts(
        self: &Arc<Self>,
        (spec, handle): (&LibrarySpec, &Arc<Handle>),
        mut documents: Vec<PutDocument>,
        at: Timestamp,
    ) -> Result<Vec<Result<Draft, EngineError>>, EngineError> {
        let of_document = |document: &mut PutDocument| {
            (std::mem::take(&mut document.vectors), document.created_at.unwrap_or(at))
        };
        let vectors: Vec<_> = documents.iter_mut().map(of_document).collect();
        let mut fields = Vec::new();
        if vectors.iter().any(|(vectors, _at)| !vectors.is_empty()) {
            let view = self.opened(handle).await?.view();
            fields = self.field_drafts((spec, &view), vectors);
        }
        let mut fields = fields.into_iter();
        let drafts = documents.into_iter().map(|document| {
            // Taken whatever comes of this document: the next one has its own.
            let of_document = fields.next();
            let mut draft = Draft::new(self, document, at)?;
            draft.fields = of_document.transpose()?.unwrap_or_default();
            Ok(draft)
        });
        Ok(drafts.collect())
    }

    /// What is logged of documents that have all their vectors.
    pub(crate) async fn recorded(
        &self,
        drafts: Vec<Result<Draft, EngineError>>,
        dimension: u32,
    ) -> Result<Vec<Made>, EngineError> {
        let bytes: usize = drafts.iter().flatten().map(Draft::bytes).sum();
        let make = move || drafts.into_iter().map(|draft| draft?.record(dimension)).collect();
        if bytes <= RECORDS_AT_ONCE_BYTES { Ok(make()) } else { self.pool.run(make).await }
    }

    /// Fills in the vectors that the caller did not supply, in one call to the embedder.
    pub(crate) async fn embed(
        self: &Arc<Self>,
        spec: &LibrarySpec,
        drafts: &mut [Result<Draft, EngineError>],
    ) -> Result<(), EngineError> {
        let missing = || |chunk: &&Chunk| chunk.embedding.is_empty();
        let texts: Vec<String> = drafts
            .iter()
            .flatten()
            .flat_map(|draft| draft.document.chunks.iter().filter(missing()))
            .map(|chunk| chunk.text.clone())
            .collect();
        let of_fields = drafts.iter_mut().flatten().map(|draft| &mut draft.fields);
        let mut of_fields: Vec<_> = of_fields.filter(|fields| !fields.is_empty()).collect();
        self.embed_fields(spec, &mut of_fields).await?;
        if texts.is_empty() {
            return Ok(());
        }
        let vectors = self.embed_texts(spec, "", (InputType::Document, texts)).await?;
        let mut vectors = vectors.chunks_exact(spec.dimension as usize);
        for draft in drafts.iter_mut().flatten() {
            for chunk in draft.document.chunks.iter_mut().filter(|chunk| chunk.embedding.is_empty())
            {
                chunk.embedding = vectors.next().unwrap_or_default().to_vec();
            }
        }
        Ok(())
    }

    /// Logs the records in a few commands and waits for all of them: what became of each, and the
    /// last of the log's records.
    async fn log_records(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        unit: Option<JobUnit>,
        records: &[Made],
    ) -> Result<(Seq, Vec<Result<Fate, EngineError>>), EngineError> {
        let room = self.room(records.iter().flatten().map(|(record, _title)| record))?;
        let mut batches: Vec<Vec<DocumentRecord>> = Vec::new();
        let mut bytes = 0;
        for (record, _title) in records.iter().flatten() {
            match batches.last_mut() {
                Some(batch) if bytes + record.encoded_bytes() <= RECORD_BYTES => {
                    batch.push(record.clone());
                }
                _ => {
                    batches.push(vec![record.clone()]);
                    bytes = 0;
                }
            }
            bytes += record.encoded_bytes();
        }
        let sizes: Vec<usize> = batches.iter().map(Vec::len).collect();
        let commands = batches.into_iter().map(|batch| Command::Put(batch, unit)).collect();
        let mut seq = Seq::START;
        let mut written = Vec::new();
        for (done, size) in self.write(handle, commands, Some(room)).await.into_iter().zip(sizes) {
            match done {
                Ok(done) => {
                    seq = seq.max(done.seq);
                    written.extend(done.fates.into_iter().map(Ok));
                }
                Err(error) => written.extend(std::iter::repeat_n(Err(error), size)),
            }
        }
        let mut written = written.into_iter();
        let fates = records.iter().map(|record| match record {
            Ok(_made) => written.next().unwrap_or(Err(EngineError::Closed)),
            Err(error) => Err(error.clone()),
        });
        Ok((seq, fates.collect()))
    }

    /// What is answered of documents that were logged, or refused.
    pub(crate) fn receipts(
        &self,
        handle: &Handle,
        records: Vec<Made>,
        (seq, fates): (Seq, Vec<Result<Fate, EngineError>>),
    ) -> Result<Written<Outcomes>, EngineError> {
        // Nothing at all was written, and not for any document's own fault.
        let mut logged = records.iter().zip(&fates).filter(|(record, _fate)| record.is_ok());
        if let Some((_record, Err(error))) = logged.next()
            && logged.all(|(_record, fate)| fate.is_err())
        {
            return Err(error.clone());
        }
        let outcomes = records.into_iter().zip(fates).map(|(record, fate)| {
            let (record, title) = record?;
            let (replaced, chunks_replaced) = match fate? {
                Fate::Absent => (false, 0),
                Fate::Existed { chunks } => (true, chunks),
                Fate::NoRoom => {
                    let max = self.config.documents_per_library_max;
                    return Err(EngineError::TooManyDocuments(max.unwrap_or(u64::MAX)));
                }
            };
            let (id, chunks) = (record.id(), record.chunks());
            Ok(PutReceipt { id, title, chunks, replaced, chunks_replaced })
        });
        let outcomes = outcomes.collect();
        // Nothing was written: what the refusals saw is what there is.
        let seq = if seq == Seq::START { handle.counts().applied } else { seq };
        Ok(Written { seq, value: outcomes })
    }

    /// Has a library's writer do something, wherever the library is written.
    pub(crate) async fn write_one(
        self: &Arc<Self>,
        (tenant, library): (TenantId, LibraryId),
        command: &Command,
    ) -> Result<WriteDone, EngineError> {
        let room = self.room_of(command)?;
        loop {
            let (_spec, handle, _since) = self.placed(tenant, library, None).await?;
            let mut done = self.write(&handle, vec![command.clone()], room.clone()).await;
            let done = done.pop().unwrap_or(Err(EngineError::Closed));
            let moved = match &done {
                Err(EngineError::LibraryNotFound(_)) => self.is_moved(library, &handle),
                Err(error) => is_switching(error),
                Ok(_done) => false,
            };
            if !moved || !self.after_switch(library, &handle).await {
                return done.map_err(|error| of_library(library, error));
            }
        }
    }

    /// The memory that these take until they are durable, or busy.
    pub(crate) fn room<'a>(
        &self,
        records: impl Iterator<Item = &'a DocumentRecord>,
    ) -> Result<Room, EngineError> {
        let kib = records.map(DocumentRecord::encoded_bytes).sum::<usize>().div_ceil(1024);
        let kib = u32::try_from(kib).unwrap_or(u32::MAX).min(self.write_room_kib);
        let full = EngineError::Busy { what: "the memory for writes", retry_after: RETRY_AFTER };
        let permit = self.write_room.clone().try_acquire_many_owned(kib).map_err(|_full| full)?;
        Ok(Arc::new(permit))
    }

    /// The memory that a command takes until it is durable, if it has documents.
    pub(crate) fn room_of(&self, command: &Command) -> Result<Option<Room>, EngineError> {
        match command {
            Command::Put(records, _) => self.room(records.iter()).map(Some),
            Command::Replace(record, _version) => self.room(std::iter::once(record)).map(Some),
            Command::Delete(..)
            | Command::DeleteVersions(..)
            | Command::Match(_)
            | Command::PutField(_)
            | Command::Note(_) => Ok(None),
        }
    }

    pub(crate) async fn note_batch(
        self: &Arc<Self>,
        tenant: TenantId,
        library: LibraryId,
        note: BatchNote,
    ) -> Result<Written<()>, EngineError> {
        self.spec(tenant, library, None).await?;
        self.check_disk()?;
        let done = self.write_one((tenant, library), &Command::Note(note)).await?;
        Ok(Written { seq: done.seq, value: () })
    }

    pub(crate) async fn delete(
        self: &Arc<Self>,
        (tenant, library): (TenantId, LibraryId),
        ids: Vec<DocumentId>,
        unit: Option<JobUnit>,
    ) -> Result<Written<Vec<Option<u32>>>, EngineError> {
        self.spec(tenant, library, None).await?;
        self.check_disk()?;
        let done = self.write_one((tenant, library), &Command::Delete(ids, unit)).await?;
        let died = done.fates.into_iter().map(|fate| match fate {
            Fate::Existed { chunks } => Some(chunks),
            Fate::Absent | Fate::NoRoom => None,
        });
        Ok(Written { seq: done.seq, value: died.collect() })
    }
}

pub(crate) fn without_vectors(document: &mut PutDocument) {
    if let Content::Chunks(chunks) = &mut document.content {
        for chunk in chunks {
            chunk.embedding = None;
        }
    }
}

/// A document on its way: checked, some vectors still missing (empty).
pub(crate) struct Draft {
    pub(crate) document: Document,
    pub(crate) fields: FieldDrafts,
}

impl Draft {
    /// Checks everything that can be checked without the library, and gives ids and times to what
    /// has none.
    fn new(engine: &Inner, put: PutDocument, at: Timestamp) -> Result<Self, EngineError> {
        check_title(&put.title)?;
        check_custom(&put.custom, "/metadata")?;
        let chunks = split(&engine.config, put.content)?;
        let metadata = DocumentMetadata {
            title: put.title,
            author: put.author,
            document_type: put.document_type.unwrap_or_else(|| DOCUMENT_TYPE_USUAL.into()),
            source_url: put.source_url,
            tags: put.tags,
            custom: put.custom,
            created_at: put.created_at.unwrap_or(at),
        };
        check_metadata_size(&metadata)?;
        let new = || new_uuid(at, &*engine.parts.random);
        let chunks = chunks
            .into_iter()
            .map(|chunk| Chunk {
                id: chunk.id.unwrap_or_else(|| ChunkId::new(new())),
                text: chunk.text,
                embedding: chunk.embedding.unwrap_or_default(),
                created_at: chunk.created_at.unwrap_or(metadata.created_at),
                page_number: chunk.page_number,
                custom: chunk.custom,
            })
            .collect();
        let id = put.id.unwrap_or_else(|| DocumentId::new(new()));
        let document = Document { id, metadata, chunks };
        Ok(Self { document, fields: FieldDrafts::default() })
    }

    /// Refuses vectors of passages, given by the caller, whose distances could not be told. Of other
    /// faults they are told when they are recorded.
    fn check_norms(&self, metric: Metric) -> Result<(), EngineError> {
        let given = self.document.chunks.iter().enumerate();
        for (place, chunk) in given.filter(|(_place, chunk)| !chunk.embedding.is_empty()) {
            check_norm(metric, &chunk.embedding).map_err(|error| EngineError::Vector {
                field: format!("/chunks/{place}/embedding"),
                detail: format!("Chunk {} embedding invalid: {error}", chunk.id),
            })?;
        }
        Ok(())
    }

    /// A document as it was recorded, without the vectors of its passages.
    fn of(record: &DocumentRecord) -> Result<Self, DecodeError> {
        let fields = FieldDrafts::of(record.field_vectors()?);
        Ok(Self { document: record.document()?, fields })
    }

    /// About how many bytes its record takes.
    fn bytes(&self) -> usize {
        let of_custom = |custom: &Custom| custom.values().map(json_bytes).sum::<usize>();
        let of_chunk = |chunk: &Chunk| {
            chunk.text.len() + size_of_val(chunk.embedding.as_slice()) + of_custom(&chunk.custom)
        };
        let Document { metadata, chunks, .. } = &self.document;
        let fixed = size_of::<Document>() + size_of_val(chunks.as_slice());
        let metadata = of_custom(&metadata.custom) + metadata.tags.len() * 32;
        fixed + metadata + self.fields.bytes() + chunks.iter().map(of_chunk).sum::<usize>()
    }

    fn record(self, dimension: u32) -> Result<(DocumentRecord, String), EngineError> {
        let Self { document, fields } = self;
        let refused = |error: RecordError| refused(&document, &fields, &error);
        let mut record = DocumentRecord::new(&document, dimension).map_err(refused)?;
        if !fields.is_empty() {
            let vectors = fields.clone().finish();
            record = record.with_fields(&document.metadata, &vectors).map_err(refused)?;
        }
        Ok((record, document.metadata.title))
    }
}

/// Why a document is not recorded, with a pointer to what of it is wrong.
fn refused(document: &Document, fields: &FieldDrafts, error: &RecordError) -> EngineError {
    match error {
        RecordError::Dimension { chunk, .. } | RecordError::Vector { chunk, .. } => {
            let id = document.chunks[*chunk].id;
            let detail = format!("Chunk {id} embedding invalid: {error}");
            EngineError::Vector { field: format!("/chunks/{chunk}/embedding"), detail }
        }
        RecordError::FieldVector { field, vector, .. } => {
            let pointer = fields.pointer(field, *vector).unwrap_or_else(|| "/vectors".into());
            let detail = format!("Vector of the field `{field}` invalid: {error}");
            EngineError::Vector { field: pointer, detail }
        }
        RecordError::FieldVectors { .. } => invalid("/vectors", error.to_string()),
        RecordError::Chunks { .. } | RecordError::TooLarge { .. } => {
            invalid(String::new(), error.to_string())
        }
    }
}

/// About how many bytes a value takes.
fn json_bytes(value: &Value) -> usize {
    let inside = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(json_bytes).sum(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| name.len() + json_bytes(value)).sum()
        }
    };
    size_of::<Value>() + inside
}

fn invalid(field: impl Into<String>, detail: String) -> EngineError {
    EngineError::Invalid { field: field.into(), detail }
}

fn split(config: &EngineConfig, content: Content) -> Result<Vec<PutChunk>, EngineError> {
    let of_text = |text: String| PutChunk { text, ..PutChunk::default() };
    let (chunks, field): (Vec<PutChunk>, _) = match content {
        Content::Text(text) => {
            let longest = config.chunk_chars_max.min(CHUNK_CHARS_MAX);
            let parts = splitter::split(&text, config.chunk_chars, longest);
            if parts.is_empty() {
                let detail = "the text is blank".into();
                return Err(EngineError::Blank { field: "/text".into(), detail });
            }
            (parts.into_iter().map(|part| of_text(part.to_owned())).collect(), "/text")
        }
        Content::Texts(texts) => (texts.into_iter().map(of_text).collect(), "/texts"),
        Content::Chunks(chunks) => (chunks, "/chunks"),
    };
    let count_max = config.chunks_per_document_max.min(CHUNKS_PER_DOCUMENT_MAX);
    if chunks.is_empty() || chunks.len() > count_max {
        let detail = format!("a document has 1 to {count_max} chunks, not {}", chunks.len());
        return Err(invalid(field, detail));
    }
    let chars_max = config.chunk_chars_max.min(CHUNK_CHARS_MAX);
    for (index, chunk) in chunks.iter().enumerate() {
        let place = match field {
            "/chunks" => format!("/chunks/{index}/text"),
            "/texts" => format!("/texts/{index}"),
            _ => field.to_owned(),
        };
        if chunk.text.trim().is_empty() {
            let detail = format!("the text of chunk {index} is blank");
            return Err(EngineError::Blank { field: place, detail });
        }
        let chars = chunk.text.chars().count();
        if chars > chars_max {
            let detail = format!("chunk {index} has {chars} characters; the limit is {chars_max}");
            return Err(invalid(place, detail));
        }
        if chunk.embedding.as_ref().is_some_and(Vec::is_empty) {
            let detail = format!("the embedding of chunk {index} is empty");
            return Err(EngineError::Vector {
                field: format!("/chunks/{index}/embedding"),
                detail,
            });
        }
        check_custom(&chunk.custom, &format!("/chunks/{index}/metadata"))?;
    }
    Ok(chunks)
}

pub(crate) fn check_title(title: &str) -> Result<(), EngineError> {
    let chars = title.chars().count();
    if (1..=TITLE_CHARS_MAX).contains(&chars) {
        return Ok(());
    }
    Err(invalid(
        "/title",
        format!("the title has {chars} characters; it has to have 1 to {TITLE_CHARS_MAX}"),
    ))
}

/// Refuses metadata that is too much for one document, passage or vector, or would cost stack to read back.
pub(crate) fn check_custom(custom: &Custom, field: &str) -> Result<(), EngineError> {
    fn depth(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        }
    }
    let deepest = custom.values().map(depth).max().unwrap_or(0);
    if deepest >= METADATA_DEPTH_MAX {
        let detail =
            format!("metadata is nested {deepest} deep; the limit is {METADATA_DEPTH_MAX}");
        return Err(invalid(field, detail));
    }
    let bytes = metadata_bytes(custom);
    if bytes > METADATA_BYTES_MAX {
        let detail = format!("metadata takes {bytes} bytes; the limit is {METADATA_BYTES_MAX}");
        return Err(invalid(field, detail));
    }
    Ok(())
}

/// How long metadata is as JSON; nothing if there is none.
fn metadata_bytes(custom: &Custom) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    if custom.is_empty() {
        return 0;
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, custom) {
        Ok(()) => count.0,
        // Texts as keys can always be written.
        Err(_cannot_be) => usize::MAX,
    }
}

pub(crate) fn check_metadata_size(metadata: &DocumentMetadata) -> Result<(), EngineError> {
    let option = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let tags: usize = metadata.tags.iter().map(|tag| tag.len() + 3).sum();
    let bytes = metadata.title.len()
        + option(&metadata.author)
        + metadata.document_type.len()
        + option(&metadata.source_url)
        + tags
        + metadata_bytes(&metadata.custom);
    if bytes > METADATA_BYTES_MAX {
        let detail = format!("metadata takes {bytes} bytes; the limit is {METADATA_BYTES_MAX}");
        return Err(invalid("/metadata", detail));
    }
    Ok(())
}
