//! What standing queries have matched, and how far they were matched: the entry, its bytes and the
//! position. The bytes are in the table of [`crate::LibraryEntry`]; a query that matches several
//! passages, and a passage that several queries match, are in it once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{ChunkId, DocumentId, LibraryId, QueryId, Seq, Timestamp};

/// How far a library's passages were matched against its standing queries. Every record before
/// `seq` is; of the record `seq` every pair up to `(chunk, query)` is, in the order of its chunks
/// (counted through all its documents) and of the queries' ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MatchPosition {
    /// The record.
    pub seq: Seq,
    /// A chunk of it, counted through its documents.
    pub chunk: u32,
    /// A query.
    pub query: QueryId,
}

impl MatchPosition {
    /// Nothing was matched.
    pub const START: Self = Self::after(Seq::START);

    /// Everything up to and with the record `seq` was matched.
    pub const fn after(seq: Seq) -> Self {
        Self { seq, chunk: u32::MAX, query: QueryId::from_bytes([0xff; 16]) }
    }

    /// The last record that was matched whole, or one before which all were and after which none
    /// is whole.
    pub fn whole(self) -> Seq {
        if self == Self::after(self.seq) {
            self.seq
        } else {
            Seq::new(self.seq.get().saturating_sub(1))
        }
    }

    pub(crate) fn write(self, out: &mut Writer) {
        out.u64(self.seq.get());
        out.u32(self.chunk);
        out.id(self.query.to_bytes());
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            seq: Seq::new(from.u64("matched sequence")?),
            chunk: from.u32("matched chunk")?,
            query: QueryId::new(from.uuid("matched query")?),
        })
    }
}

/// Passages that were matched, in the order of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct QueriesMatched {
    /// When.
    pub at: Timestamp,
    /// The library whose passages they are.
    pub library: LibraryId,
    /// Up to here all of its passages were matched against all queries registered before them.
    pub through: MatchPosition,
    /// The passages that at least one query matched.
    pub passages: Vec<MatchedPassage>,
}

/// A passage that standing queries matched.
#[derive(Debug, Clone, PartialEq)]
pub struct MatchedPassage {
    /// The record that added it: with its document and its place, which version of it this is.
    pub seq: Seq,
    /// Its document.
    pub document: DocumentId,
    /// The chunk.
    pub chunk: ChunkId,
    /// Its place in its document, from 0.
    pub chunk_index: u32,
    /// Its text, or the beginning of it.
    pub passage: String,
    /// The queries, by id.
    pub queries: Vec<MatchedQuery>,
}

/// A standing query that matched a passage.
#[derive(Debug, Clone, PartialEq)]
pub struct MatchedQuery {
    /// Its id.
    pub id: QueryId,
    /// Its name.
    pub name: Arc<str>,
    /// How far the passage is from it, by the library's metric.
    pub distance: f32,
}

impl QueriesMatched {
    /// How many pairs of a passage and a query there are.
    pub fn matches(&self) -> usize {
        self.passages.iter().map(|passage| passage.queries.len()).sum()
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.id(self.library.to_bytes());
        self.through.write(out);
        let mut numbers: BTreeMap<QueryId, u32> = BTreeMap::new();
        let mut queries: Vec<&MatchedQuery> = Vec::new();
        for query in self.passages.iter().flat_map(|passage| &passage.queries) {
            let next = u32::try_from(queries.len()).unwrap_or(u32::MAX);
            let number = *numbers.entry(query.id).or_insert(next);
            if number == next {
                queries.push(query);
            }
        }
        out.count(queries.len());
        for query in &queries {
            out.id(query.id.to_bytes());
            out.text(&query.name);
        }
        out.count(self.passages.len());
        for passage in &self.passages {
            out.u64(passage.seq.get());
            out.id(passage.document.to_bytes());
            out.id(passage.chunk.to_bytes());
            out.u32(passage.chunk_index);
            out.text(&passage.passage);
            out.count(passage.queries.len());
            for query in &passage.queries {
                out.u32(numbers.get(&query.id).copied().unwrap_or(u32::MAX));
                out.u32(query.distance.to_bits());
            }
        }
    }

    pub(crate) fn read(at: Timestamp, from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let library = LibraryId::new(from.uuid("library id")?);
        let through = MatchPosition::read(from)?;
        let mut queries: Vec<(QueryId, Arc<str>)> = Vec::new();
        for _query in 0..from.count(20, "queries")? {
            let id = QueryId::new(from.uuid("query id")?);
            queries.push((id, from.text("name")?.into()));
        }
        let distinct: BTreeSet<QueryId> = queries.iter().map(|(id, _name)| *id).collect();
        let (mut passages, mut used) = (Vec::new(), 0);
        for _passage in 0..from.count(52, "passages")? {
            let mut passage = MatchedPassage {
                seq: Seq::new(from.u64("sequence")?),
                document: DocumentId::new(from.uuid("document id")?),
                chunk: ChunkId::new(from.uuid("chunk id")?),
                chunk_index: from.u32("chunk index")?,
                passage: from.text("passage")?.to_owned(),
                queries: Vec::new(),
            };
            for _match in 0..from.count(8, "matches")? {
                let number = from.u32("query")? as usize;
                let distance = f32::from_bits(from.u32("distance")?);
                // Numbered in the order in which they come first.
                let query = queries.get(number).filter(|_query| number <= used);
                let query = query.filter(|_query| !distance.is_nan());
                used = used.max(number + 1);
                let (id, name) = query.ok_or_else(|| from.error("a query and its distance"))?;
                passage.queries.push(MatchedQuery { id: *id, name: name.clone(), distance });
            }
            passages.push(passage);
        }
        if used != queries.len() || distinct.len() != queries.len() {
            return Err(from.error("every query once, and no other"));
        }
        Ok(Self { at, library, through, passages })
    }
}
