//! Events: what followers are told of the log.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use arrwdb_engine::state::{
    BatchNote, ChunkId, DocumentId, LibraryId, QueryId, Seq, TenantId, Timestamp,
};

use crate::cost_event::CostData;
use crate::event_type::{EventType, EventTypes};
use crate::job_event::JobData;
use crate::json;

/// A place in the feed: after an event. Ordered as the feed is.
///
/// It is written as the record's number after the last event of a record (`7`), and with the event's
/// number within the record before that (`7.0`, `7.1`). A filter changes neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    seq: Seq,
    ordinal: u32,
}

/// The ordinal of a record's last event.
const LAST: u32 = u32::MAX;

impl Position {
    /// Before everything.
    pub const START: Self = Self::after(Seq::START);

    /// After all events of the records up to `seq`.
    pub const fn after(seq: Seq) -> Self {
        Self { seq, ordinal: LAST }
    }

    /// The last record of which something is before this place.
    pub const fn seq(self) -> Seq {
        self.seq
    }

    /// All records up to this one are before this place whole.
    pub(crate) fn whole(self) -> Seq {
        if self.ordinal == LAST { self.seq } else { Seq::new(self.seq.get().saturating_sub(1)) }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ordinal {
            LAST => write!(f, "{}", self.seq),
            ordinal => write!(f, "{}.{ordinal}", self.seq),
        }
    }
}

/// A text that is no place in the feed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not a position in the feed: a sequence number, or the id of an event such as 7 or 7.0")]
pub struct ParsePositionError;

impl FromStr for Position {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, ParsePositionError> {
        // `parse` would take a plus sign.
        if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return Err(ParsePositionError);
        }
        let (seq, ordinal) = text.split_once('.').map_or((text, None), |(seq, n)| (seq, Some(n)));
        let seq = Seq::new(seq.parse().map_err(|_not_a_number| ParsePositionError)?);
        let Some(ordinal) = ordinal else { return Ok(Self::after(seq)) };
        let ordinal = ordinal.parse().map_err(|_not_a_number| ParsePositionError)?;
        Ok(Self { seq, ordinal })
    }
}

/// The events of one record.
#[derive(Debug, Clone)]
pub struct Changes {
    /// The record's number.
    pub seq: Seq,
    /// When the change was made.
    pub at: Timestamp,
    /// The library it is of, if it is of one.
    pub library: Option<LibraryId>,
    /// Whose it is, or was.
    pub tenant: TenantId,
    /// What each event says, in order.
    pub data: Vec<EventData>,
    /// The types that occur.
    pub types: EventTypes,
    /// When the record was durable, where that is remembered: of late records only.
    pub durable_at: Option<Instant>,
}

impl Changes {
    /// Every event, in order.
    pub fn events(&self) -> impl Iterator<Item = Event<'_>> {
        (0..self.data.len()).map(|index| Event { changes: self, index })
    }

    pub(crate) fn event(&self, index: usize) -> Option<Event<'_>> {
        (index < self.data.len()).then_some(Event { changes: self, index })
    }

    /// How many events come before `position`.
    pub(crate) fn before(&self, position: Position) -> usize {
        match position {
            Position { seq, .. } if seq < self.seq => 0,
            Position { seq, ordinal } if seq == self.seq && ordinal != LAST => {
                self.data.len().min((ordinal as usize).saturating_add(1))
            }
            Position { .. } => self.data.len(),
        }
    }

    /// About how many bytes of memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        let texts: usize = self.data.iter().map(EventData::text_bytes).sum();
        size_of::<Self>() + self.data.len() * size_of::<EventData>() + texts
    }
}

/// One event of a record.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    changes: &'a Changes,
    index: usize,
}

impl<'a> Event<'a> {
    /// The place after it.
    pub fn position(self) -> Position {
        let last = self.index + 1 == self.changes.data.len();
        let ordinal = if last { LAST } else { u32::try_from(self.index).unwrap_or(LAST - 1) };
        Position { seq: self.changes.seq, ordinal }
    }

    /// Its record's number.
    pub fn seq(self) -> Seq {
        self.changes.seq
    }

    /// What kind of event it is.
    pub fn event_type(self) -> EventType {
        self.data().event_type()
    }

    /// The library it is of, if it is of one.
    pub fn library(self) -> Option<LibraryId> {
        self.changes.library
    }

    /// Whose library that is, or was.
    pub fn tenant(self) -> TenantId {
        self.changes.tenant
    }

    /// When the change was made.
    pub fn at(self) -> Timestamp {
        self.changes.at
    }

    /// When its record was durable, where that is remembered: of late records only.
    pub fn durable_at(self) -> Option<Instant> {
        self.changes.durable_at
    }

    /// What it says.
    pub fn data(self) -> &'a EventData {
        &self.changes.data[self.index]
    }

    /// Appends the event as a JSON object: `version`, `id`, `seq`, `type`, `library_id`,
    /// `tenant_id`, `timestamp`, `data`. One line, whatever it says.
    pub fn write_json(self, out: &mut String) {
        json::event(self, out);
    }

    /// Appends what it says as a JSON object, with `seq`, `type`, `library_id` and `timestamp`
    /// beside it: what goes into the `data` of a frame of SSE. One line, whatever it says.
    pub fn write_flat_json(self, out: &mut String) {
        json::flat(self, out);
    }

    /// Appends what it says as a JSON object. One line, whatever it says.
    pub fn write_data_json(self, out: &mut String) {
        json::data(self, out);
    }
}

/// What an event says.
#[derive(Debug, Clone, PartialEq)]
pub enum EventData {
    /// A library was created.
    LibraryCreated {
        /// What it is called.
        name: Box<str>,
        /// What it is searched by.
        index_type: &'static str,
        /// The dimension of its vectors.
        embedding_dimension: u32,
    },
    /// A library was changed; only what changed is there.
    LibraryUpdated {
        /// What it is called, and how it is described.
        described: Option<(Box<str>, Option<Box<str>>)>,
        /// The code of its language.
        language: Option<&'static str>,
        /// What it asks to be searched by.
        index_type: Option<&'static str>,
        /// The model of its vectors, and their dimension.
        embedding: Option<(Box<str>, u32)>,
        /// Which vector field was declared, or is searched by something else.
        vector_field: Option<Box<str>>,
    },
    /// A library was deleted.
    LibraryDeleted {
        /// What it was called, where that is known.
        name: Option<Box<str>>,
    },
    /// A document was added.
    DocumentAdded(DocumentData),
    /// A document took the place of one with its id.
    DocumentUpdated(DocumentData),
    /// A document was deleted.
    DocumentDeleted {
        /// Which one.
        document_id: DocumentId,
        /// What it was called, where that is known.
        title: Option<Box<str>>,
        /// How many chunks it had, where that is known.
        num_chunks: Option<u32>,
    },
    /// A chunk came with its document.
    ChunkAdded(ChunkData),
    /// A chunk went with its document.
    ChunkDeleted(ChunkData),
    /// What a library is searched by was built as somebody asked for it.
    IndexRebuilt {
        /// What it was searched by.
        old_index_type: &'static str,
        /// What it is searched by.
        new_index_type: &'static str,
        /// Its vectors.
        total_vectors: u64,
    },
    /// A library's files were merged as somebody asked for it.
    IndexOptimized {
        /// What it is searched by.
        index_type: &'static str,
        /// Dead vectors that are gone from its files.
        vectors_compacted: u64,
        /// Bytes that are free again.
        memory_freed_bytes: u64,
    },
    /// A batch began, or ended.
    Batch(BatchNote),
    /// Something became of a job.
    Job(Box<JobData>),
    /// Spending reached a percentage of a budget.
    Cost(CostData),
    /// A new passage is within the threshold of a standing query.
    QueryMatched {
        /// Which query.
        query_id: QueryId,
        /// What it is called.
        query_name: Arc<str>,
        /// How far the passage is from it, by the library's metric.
        distance: f32,
        /// The passage, which other events may share.
        passage: Arc<PassageData>,
    },
}

/// What is said of a passage that standing queries matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassageData {
    /// Its document.
    pub document_id: DocumentId,
    /// The record that wrote it: which version of the document this is of.
    pub document_seq: Seq,
    /// The chunk.
    pub chunk_id: ChunkId,
    /// Its place in its document, from 0.
    pub chunk_index: u32,
    /// Its text, or the first 1,000 characters of it.
    pub passage: Box<str>,
}

/// What is said of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentData {
    /// Which one.
    pub document_id: DocumentId,
    /// What it is called.
    pub title: Box<str>,
    /// How many chunks it has.
    pub num_chunks: u32,
}

/// What is said of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkData {
    /// Which one.
    pub chunk_id: ChunkId,
    /// Its document.
    pub document_id: DocumentId,
}

impl EventData {
    /// What kind of event says this.
    pub fn event_type(&self) -> EventType {
        use arrwdb_engine::state::BatchOutcome::{Completed, Failed};
        match self {
            Self::LibraryCreated { .. } => EventType::LibraryCreated,
            Self::LibraryUpdated { .. } => EventType::LibraryUpdated,
            Self::LibraryDeleted { .. } => EventType::LibraryDeleted,
            Self::DocumentAdded(_) => EventType::DocumentAdded,
            Self::DocumentUpdated(_) => EventType::DocumentUpdated,
            Self::DocumentDeleted { .. } => EventType::DocumentDeleted,
            Self::ChunkAdded(_) => EventType::ChunkAdded,
            Self::ChunkDeleted(_) => EventType::ChunkDeleted,
            Self::IndexRebuilt { .. } => EventType::IndexRebuilt,
            Self::IndexOptimized { .. } => EventType::IndexOptimized,
            Self::Batch(note) => match note.end.map(|end| end.outcome) {
                None => EventType::BatchStarted,
                Some(Completed) => EventType::BatchCompleted,
                Some(Failed) => EventType::BatchFailed,
            },
            Self::QueryMatched { .. } => EventType::QueryMatched,
            Self::Job(job) => job.event_type(),
            Self::Cost(cost) => cost.event_type(),
        }
    }

    fn text_bytes(&self) -> usize {
        let option = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        match self {
            Self::LibraryCreated { name, .. } => name.len(),
            Self::LibraryUpdated {
                described,
                language: _,
                index_type: _,
                embedding,
                vector_field,
            } => {
                let model = embedding.as_ref().map_or(0, |(model, _dimension)| model.len());
                let described = described.as_ref();
                let described =
                    described.map_or(0, |(name, description)| name.len() + option(description));
                described + model + option(vector_field)
            }
            Self::LibraryDeleted { name } => option(name),
            Self::DocumentAdded(document) | Self::DocumentUpdated(document) => document.title.len(),
            Self::DocumentDeleted { title, .. } => option(title),
            // Shared by some, and counted for each: rather too much than too little.
            Self::QueryMatched { query_name, passage, .. } => {
                query_name.len() + passage.passage.len() + size_of::<PassageData>()
            }
            Self::Job(job) => job.text_bytes(),
            Self::Cost(_) => CostData::text_bytes(),
            Self::ChunkAdded(_)
            | Self::ChunkDeleted(_)
            | Self::IndexRebuilt { .. }
            | Self::IndexOptimized { .. }
            | Self::Batch(_) => 0,
        }
    }

    /// Shows every member of the payload, in the order in which they are written.
    pub fn visit(&self, see: &mut dyn FnMut(&'static str, Value<'_>)) {
        match self {
            Self::LibraryCreated { name, index_type, embedding_dimension } => {
                see("name", Value::Text(name));
                see("index_type", Value::Text(index_type));
                see("embedding_dimension", Value::Number(u64::from(*embedding_dimension)));
            }
            Self::LibraryUpdated { described, language, index_type, embedding, vector_field } => {
                if let Some((name, description)) = described {
                    see("name", Value::Text(name));
                    see("description", Value::text(description.as_deref()));
                }
                if let Some(language) = language {
                    see("language", Value::Text(language));
                }
                if let Some(index_type) = index_type {
                    see("index_type", Value::Text(index_type));
                }
                if let Some((model, dimension)) = embedding {
                    see("embedding_model", Value::Text(model));
                    see("embedding_dimension", Value::Number(u64::from(*dimension)));
                }
                if let Some(field) = vector_field {
                    see("vector_field", Value::Text(field));
                }
            }
            Self::LibraryDeleted { name } => see("name", Value::text(name.as_deref())),
            Self::DocumentAdded(document) | Self::DocumentUpdated(document) => {
                see("document_id", Value::Id(&document.document_id));
                see("title", Value::Text(&document.title));
                see("num_chunks", Value::Number(u64::from(document.num_chunks)));
            }
            Self::DocumentDeleted { document_id, title, num_chunks } => {
                see("document_id", Value::Id(document_id));
                see("title", Value::text(title.as_deref()));
                see("num_chunks", Value::number(num_chunks.map(u64::from)));
            }
            Self::ChunkAdded(chunk) | Self::ChunkDeleted(chunk) => {
                see("chunk_id", Value::Id(&chunk.chunk_id));
                see("document_id", Value::Id(&chunk.document_id));
            }
            Self::IndexRebuilt { old_index_type, new_index_type, total_vectors } => {
                see("old_index_type", Value::Text(old_index_type));
                see("new_index_type", Value::Text(new_index_type));
                see("total_vectors", Value::Number(*total_vectors));
            }
            Self::IndexOptimized { index_type, vectors_compacted, memory_freed_bytes } => {
                see("index_type", Value::Text(index_type));
                see("vectors_compacted", Value::Number(*vectors_compacted));
                see("memory_freed_bytes", Value::Number(*memory_freed_bytes));
            }
            Self::Batch(note) => visit_batch(note, see),
            Self::Job(job) => job.visit(see),
            Self::Cost(cost) => cost.visit(see),
            Self::QueryMatched { query_id, query_name, distance, passage } => {
                see("query_id", Value::Id(query_id));
                see("query_name", Value::Text(query_name));
                visit_passage(passage, *distance, see);
            }
        }
    }
}

fn visit_passage(
    passage: &PassageData,
    distance: f32,
    see: &mut dyn FnMut(&'static str, Value<'_>),
) {
    see("document_id", Value::Id(&passage.document_id));
    see("document_seq", Value::Number(passage.document_seq.get()));
    see("chunk_id", Value::Id(&passage.chunk_id));
    see("chunk_index", Value::Number(u64::from(passage.chunk_index)));
    see("distance", Value::Distance(distance));
    see("passage", Value::Text(&passage.passage));
}

fn visit_batch(note: &BatchNote, see: &mut dyn FnMut(&'static str, Value<'_>)) {
    see("batch_id", Value::Id(&note.id));
    see("operation", Value::Text(note.operation.name()));
    see("total", Value::number(note.total));
    if let Some(end) = note.end {
        see("successful", Value::Number(end.successful));
        see("failed", Value::Number(end.failed));
    }
}

/// A member of a payload.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// A text.
    Text(&'a str),
    /// What is written as a text without anything to escape.
    Id(&'a dyn fmt::Display),
    /// A number.
    Number(u64),
    /// A distance; one that is not finite is written as unknown.
    Distance(f32),
    /// A number with a fraction; one that is not finite is written as unknown.
    Real(f64),
    /// A moment.
    Time(Timestamp),
    /// A JSON value as it is written.
    Json(&'a str),
    /// Unknown.
    Null,
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Id(id) => write!(f, "{id}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Distance(distance) => write!(f, "{distance}"),
            Self::Real(real) => write!(f, "{real}"),
            Self::Time(time) => write!(f, "{time:?}"),
            Self::Json(json) => f.write_str(json),
            Self::Null => f.write_str("null"),
        }
    }
}

impl<'a> Value<'a> {
    pub(crate) fn text(text: Option<&'a str>) -> Self {
        text.map_or(Self::Null, Self::Text)
    }

    pub(crate) fn number(number: Option<u64>) -> Self {
        number.map_or(Self::Null, Self::Number)
    }

    /// Whether a filter that asks for `wanted` means this.
    pub(crate) fn is(self, wanted: &str) -> bool {
        match self {
            Self::Text(text) => text == wanted,
            // Ids are asked for in the one spelling that they are given out in, or another case.
            Self::Id(id) => id.to_string().eq_ignore_ascii_case(wanted),
            Self::Number(number) => number.to_string() == wanted,
            Self::Distance(distance) => distance.to_string() == wanted,
            Self::Real(real) => real.to_string() == wanted,
            // Nobody writes these twice the same way.
            Self::Time(_) | Self::Json(_) => false,
            Self::Null => wanted == "null",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_parse_as_they_print_and_are_in_order() {
        let texts = ["0", "6", "7.0", "7.1", "7.12", "7", "8.0", "18446744073709551615"];
        let positions = texts.map(|text| text.parse::<Position>().unwrap());
        assert!(positions.is_sorted());
        assert_eq!(positions.map(|position| position.to_string()), texts);
        for text in ["", "+7", "7.", ".7", "7.0.1", "-1", "7.4294967296", "seven", " 7", "7,0"] {
            assert!(text.parse::<Position>().is_err(), "{text:?}");
        }
    }
}
