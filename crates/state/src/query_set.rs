//! The standing queries of one library, ready to be matched: what a follower of the log keeps in
//! memory. It is a fold over the companion's records, as the companion's view is, and can be made
//! from that view at any time.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrwdb_index::{Metric, Queries, RowBlock, VectorError, normalized};

use crate::codec::DecodeError;
use crate::document::Document;
use crate::filter::{Filter, Passage};
use crate::ids::{LibraryId, QueryId, Seq};
use crate::limits::MATCHED_PASSAGE_CHARS_MAX;
use crate::matched::{MatchPosition, MatchedPassage, MatchedQuery};
use crate::record::DocumentRecord;
use crate::standing::StandingQuery;

/// Pairs of a passage and a query that one look may find, which bounds its memory.
const PAIRS_MAX: usize = 4 << 20;
/// Passages of one look: more are not quicker.
const ROWS_MAX: usize = 256;

/// The standing queries of a library.
#[derive(Debug)]
pub struct QuerySet {
    library: LibraryId,
    metric: Metric,
    queries: Queries,
    /// By their place among `queries`.
    registered: Vec<Option<Registered>>,
    places: BTreeMap<QueryId, u32>,
    /// Bytes of their names and filters.
    texts: usize,
}

#[derive(Debug)]
struct Registered {
    id: QueryId,
    name: Arc<str>,
    filter: Filter,
    /// Passages of later records are matched.
    since: Seq,
}

impl Registered {
    /// Bytes of its name and filter, about.
    fn text_bytes(&self) -> usize {
        self.name.len() + self.filter.bytes()
    }
}

/// Passages to be matched together: of documents as the log has them.
#[derive(Debug, Default)]
pub struct Passages {
    vectors: Vec<f32>,
    inverse_norms: Vec<f32>,
    documents: Vec<Arc<DocumentRecord>>,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    /// Its place among the documents, and in its document.
    document: usize,
    chunk_index: u32,
    /// The record, and the place in that.
    seq: Seq,
    chunk: u32,
}

/// A passage that is near enough to a query.
#[derive(Debug, Clone, Copy)]
pub struct Near {
    row: u32,
    place: u32,
    query: QueryId,
    distance: f32,
}

impl Passages {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds passages of a document that the record `seq` put: those of its `chunks`, of which the
    /// first of the document is the record's `first`-th.
    ///
    /// # Panics
    /// If the document has fewer.
    pub fn add(
        &mut self,
        seq: Seq,
        first: u32,
        document: &Arc<DocumentRecord>,
        chunks: std::ops::Range<u32>,
    ) {
        let dims = document.vectors.len() / document.chunks();
        let range = chunks.start as usize..chunks.end as usize;
        self.vectors.extend_from_slice(&document.vectors[range.start * dims..range.end * dims]);
        self.inverse_norms.extend_from_slice(&document.inverse_norms[range]);
        let place = self.documents.len();
        self.documents.push(document.clone());
        self.rows.extend(chunks.map(|chunk_index| Row {
            document: place,
            chunk_index,
            seq,
            chunk: first + chunk_index,
        }));
    }
}

impl QuerySet {
    /// No queries yet of a library whose vectors lie about `center`: see [`Queries::new`].
    pub fn new(library: LibraryId, metric: Metric, center: &[f32]) -> Self {
        Self {
            library,
            metric,
            queries: Queries::new(metric, center),
            registered: Vec::new(),
            places: BTreeMap::new(),
            texts: 0,
        }
    }

    /// No queries yet of a library whose vectors lie about the mean of these.
    pub fn about<'a>(
        library: LibraryId,
        metric: Metric,
        dimension: u32,
        vectors: impl Iterator<Item = &'a [f32]>,
    ) -> Self {
        let mut sums = vec![0.0_f64; dimension as usize];
        let mut count = 0_u32;
        for vector in vectors {
            let unit = (metric == Metric::Cosine).then(|| normalized(vector).ok()).flatten();
            let vector = unit.as_ref().map_or(vector, |(unit, _inverse_norm)| unit);
            for (sum, value) in sums.iter_mut().zip(vector) {
                *sum += f64::from(*value);
            }
            count += 1;
        }
        #[expect(clippy::cast_possible_truncation, reason = "any centre will do")]
        let center: Vec<f32> =
            sums.iter().map(|sum| (sum / f64::from(count.max(1))) as f32).collect();
        Self::new(library, metric, &center)
    }

    /// The library whose passages they match.
    pub fn library(&self) -> LibraryId {
        self.library
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Bytes of memory, about.
    pub fn bytes(&self) -> u64 {
        let each = size_of::<Option<Registered>>() + 64;
        (self.queries.bytes() + self.registered.len() * each + self.texts) as u64
    }

    /// Adds a query that the record `born` wrote, or the newer version of one.
    pub fn insert(&mut self, query: StandingQuery, born: Seq) -> Result<(), VectorError> {
        self.remove(query.id);
        let vector = match self.metric {
            Metric::Cosine => normalized(&query.vector)?.0,
            Metric::Dot | Metric::L2 => query.vector,
        };
        let place = self.queries.insert(&vector, query.distance_threshold);
        if self.registered.len() <= place as usize {
            self.registered.resize_with(place as usize + 1, || None);
        }
        let registered = Registered {
            id: query.id,
            name: query.name.into(),
            filter: query.filter,
            since: query.since.unwrap_or(born),
        };
        self.texts += registered.text_bytes();
        self.registered[place as usize] = Some(registered);
        self.places.insert(query.id, place);
        Ok(())
    }

    /// Removes a query, if it is there.
    pub fn remove(&mut self, id: QueryId) {
        if let Some(place) = self.places.remove(&id) {
            self.queries.remove(place);
            let removed = self.registered[place as usize].take();
            self.texts -= removed.map_or(0, |registered| registered.text_bytes());
        }
    }

    /// How many passages may be matched together.
    pub fn passages_max(&self) -> usize {
        (PAIRS_MAX / self.len().max(1)).clamp(1, ROWS_MAX)
    }

    /// The pairs after `after` of a passage and a query registered before it that are within the
    /// query's threshold, in the order of positions; filters are not asked yet. O(passages *
    /// queries).
    ///
    /// # Panics
    /// If there are more passages than [`QuerySet::passages_max`], or of another dimension.
    pub fn near(&self, passages: &Passages, after: MatchPosition) -> Vec<Near> {
        assert!(passages.len() <= self.passages_max(), "not too many passages");
        let mut pairs = Vec::new();
        let Some(dims) = passages.vectors.len().checked_div(passages.len()) else { return pairs };
        let rows = RowBlock::new(dims, &passages.vectors, &passages.inverse_norms);
        self.queries.matches(&rows, &mut |found| {
            let row = &passages.rows[found.row.0 as usize];
            let Some(query) = &self.registered[found.query as usize] else { return };
            let near = Near {
                row: found.row.0,
                place: found.query,
                query: query.id,
                distance: found.distance,
            };
            if query.since < row.seq && passages.position(near) > after {
                pairs.push(near);
            }
        });
        pairs.sort_unstable_by_key(|near| (near.row, near.query));
        pairs
    }

    /// The passages of pairs that [`QuerySet::near`] of this same set and these passages gave, a
    /// part of them in their order, with the queries whose filters they pass.
    pub fn matched(
        &self,
        passages: &Passages,
        pairs: &[Near],
    ) -> Result<Vec<MatchedPassage>, DecodeError> {
        let mut matched = Vec::new();
        let mut read: Option<(usize, Document)> = None;
        for pairs in pairs.chunk_by(|a, b| a.row == b.row) {
            let Some(first) = pairs.first() else { continue };
            let row = passages.rows[first.row as usize];
            let document = match read.take() {
                Some((place, document)) if place == row.document => document,
                _ => passages.documents[row.document].document()?,
            };
            if let Some(chunk) = document.chunks.get(row.chunk_index as usize) {
                let passage = Passage {
                    document_id: document.id,
                    document: &document.metadata,
                    chunk,
                    index: row.chunk_index,
                };
                let query = |near: &Near| {
                    let query = self.registered[near.place as usize].as_ref()?;
                    query.filter.passes(&passage).then(|| MatchedQuery {
                        id: query.id,
                        name: query.name.clone(),
                        distance: near.distance,
                    })
                };
                let queries: Vec<MatchedQuery> = pairs.iter().filter_map(query).collect();
                if !queries.is_empty() {
                    matched.push(MatchedPassage {
                        seq: row.seq,
                        document: document.id,
                        chunk: chunk.id,
                        chunk_index: row.chunk_index,
                        passage: chunk.text.chars().take(MATCHED_PASSAGE_CHARS_MAX).collect(),
                        queries,
                    });
                }
            }
            read = Some((row.document, document));
        }
        Ok(matched)
    }
}

impl Passages {
    /// The position of a pair.
    pub fn position(&self, near: Near) -> MatchPosition {
        let row = &self.rows[near.row as usize];
        MatchPosition { seq: row.seq, chunk: row.chunk, query: near.query }
    }

    /// The position after the last passage.
    pub fn end(&self) -> Option<MatchPosition> {
        let last = self.rows.last()?;
        let query = MatchPosition::START.query;
        Some(MatchPosition { seq: last.seq, chunk: last.chunk, query })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Timestamp;

    #[test]
    fn names_and_filters_are_counted_and_go_with_their_query() {
        let query = |id: u8, name: &str, filter: &str| StandingQuery {
            id: QueryId::from_bytes([id; 16]),
            name: name.into(),
            text: None,
            vector: vec![1.0; 8],
            distance_threshold: 0.5,
            filter: Filter::read(serde_json::json!({ "k": filter })).unwrap(),
            created_at: Timestamp::from_micros(0),
            updated_at: Timestamp::from_micros(0),
            since: None,
        };
        let mut set = QuerySet::new(LibraryId::from_bytes([9; 16]), Metric::L2, &[0.0; 8]);
        set.insert(query(1, "a", "b"), Seq::new(1)).unwrap();
        let small = set.bytes();
        set.insert(query(1, &"a".repeat(200), "b"), Seq::new(2)).unwrap();
        assert_eq!(set.bytes(), small + 199);
        set.insert(query(1, "a", &"b".repeat(100)), Seq::new(3)).unwrap();
        assert_eq!(set.bytes(), small + 2 * 99, "as it was written, and as it is asked");
        set.remove(QueryId::from_bytes([1; 16]));
        assert_eq!(set.texts, 0);
    }
}
