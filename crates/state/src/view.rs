//! A library at one sequence number: its segments, what has died in them, and its counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrwdb_index::SegmentIndex;

use crate::body::BodyReader;
use crate::document::{Chunk, Document, DocumentMetadata};
use crate::field::{FieldSpec, FieldVectors};
use crate::ids::{DocumentId, Seq};
use crate::liveness::Tombstones;
use crate::matched::MatchPosition;
use crate::segment::{Damage, Head, RowMap, Segment};

/// An immutable view of a library (S3). A copy shares everything.
#[derive(Debug, Clone)]
pub struct View {
    pub(crate) dimension: u32,
    pub(crate) applied: Seq,
    /// No row is missing that lived at this number or later: merges have left out only rows that
    /// had died by then.
    pub(crate) oldest: Seq,
    /// In the order in which their documents were added.
    pub(crate) segments: Vec<SegmentView>,
    pub(crate) documents: u64,
    pub(crate) chunks: u64,
    pub(crate) digest: u128,
    /// Of a companion: how far passages were matched against its queries.
    pub(crate) matched: MatchPosition,
    /// What its documents have in vector fields, each a view of its own without fields.
    pub(crate) fields: BTreeMap<String, Field>,
}

/// A vector field of a view.
#[derive(Debug, Clone)]
pub struct Field {
    pub(crate) spec: Arc<FieldSpec>,
    pub(crate) view: Arc<View>,
}

impl Field {
    pub(crate) fn empty(spec: Arc<FieldSpec>) -> Self {
        let view = Arc::new(View::empty(spec.dimension));
        Self { spec, view }
    }

    /// What it is.
    pub fn spec(&self) -> &Arc<FieldSpec> {
        &self.spec
    }

    /// The documents that have vectors in it, each with a chunk for a vector.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }
}

/// A segment and what has died in it.
#[derive(Debug, Clone)]
pub struct SegmentView {
    pub(crate) segment: Arc<Segment>,
    pub(crate) tombstones: Tombstones,
    /// Documents of it that have died.
    pub(crate) dead_documents: u32,
    /// What it is searched by beside its vectors, once that is built.
    pub(crate) index: Option<Arc<SegmentIndex>>,
}

impl SegmentView {
    pub(crate) fn new(segment: Segment) -> Self {
        Self {
            segment: Arc::new(segment),
            tombstones: Tombstones::default(),
            dead_documents: 0,
            index: None,
        }
    }

    /// The segment.
    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// What it is searched by beside its vectors, once that is built.
    pub fn index(&self) -> Option<&Arc<SegmentIndex>> {
        self.index.as_ref()
    }

    pub(crate) fn live_documents(&self) -> u32 {
        self.segment.documents() - self.dead_documents
    }

    /// Whether the document with this head lives.
    pub(crate) fn lives(&self, head: &Head) -> bool {
        !self.tombstones.contains(head.first_row)
    }
}

/// Where a live document is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) segment: usize,
    pub(crate) ordinal: u32,
    pub(crate) head: Head,
}

impl View {
    /// A library with nothing in it.
    pub fn empty(dimension: u32) -> Self {
        Self {
            dimension,
            applied: Seq::START,
            oldest: Seq::START,
            segments: Vec::new(),
            documents: 0,
            chunks: 0,
            digest: 0,
            matched: MatchPosition::START,
            fields: BTreeMap::new(),
        }
    }

    /// Its vector fields, by name.
    pub fn fields(&self) -> &BTreeMap<String, Field> {
        &self.fields
    }

    /// The library's own documents, and those of each vector field: each part has segments of its own.
    pub fn parts(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.fields.values().map(|field| &*field.view))
    }

    /// The segments of all parts.
    pub fn all_segments(&self) -> impl Iterator<Item = &SegmentView> {
        self.parts().flat_map(|part| &part.segments)
    }

    /// The vector field that a segment is of; `None` for one of the library's own.
    pub fn field_of(&self, segment: &Arc<Segment>) -> Option<&Arc<FieldSpec>> {
        let has = |field: &&Field| field.view.place_of(segment).is_some();
        self.fields.values().find(has).map(|field| &field.spec)
    }

    pub(crate) fn place_of(&self, segment: &Arc<Segment>) -> Option<usize> {
        self.segments.iter().position(|view| Arc::ptr_eq(&view.segment, segment))
    }

    /// The same view with the field that has this segment changed; `None` if none has it, or the
    /// change does not fit.
    fn with_field_of(
        &self,
        segment: &Arc<Segment>,
        change: impl FnOnce(&Self) -> Option<Self>,
    ) -> Option<Self> {
        let has = |(_name, field): &(&String, &Field)| field.view.place_of(segment).is_some();
        let (name, field) = self.fields.iter().find(has)?;
        let view = Arc::new(change(&field.view)?);
        let mut next = self.clone();
        next.fields.insert(name.clone(), Field { spec: field.spec.clone(), view });
        Some(next)
    }

    /// Dimension of the library's vectors.
    pub fn dimension(&self) -> u32 {
        self.dimension
    }

    /// The last record applied.
    pub fn applied(&self) -> Seq {
        self.applied
    }

    /// The first number of which [`View::as_of`] can tell.
    pub fn oldest(&self) -> Seq {
        self.parts().map(|part| part.oldest).max().unwrap_or(self.oldest)
    }

    /// Live documents.
    pub fn documents(&self) -> u64 {
        self.documents
    }

    /// Live chunks.
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    /// A commutative digest of everything alive: equal logical states have equal digests,
    /// whatever their layout. What documents have in vector fields counts.
    pub fn digest(&self) -> u128 {
        self.parts().fold(0, |sum, part| sum.wrapping_add(part.digest))
    }

    /// Of a companion: how far passages of the library that it belongs to were matched.
    pub fn matched(&self) -> MatchPosition {
        self.matched
    }

    /// The record that added the live document of this id. O(segments * log documents).
    pub fn born(&self, id: DocumentId) -> Result<Option<Seq>, Damage> {
        Ok(self.locate(id)?.map(|place| place.head.born))
    }

    /// The segments of the library's own documents, oldest rows first.
    pub fn segments(&self) -> &[SegmentView] {
        &self.segments
    }

    /// Rows of all parts, dead ones included.
    pub fn rows(&self) -> u64 {
        self.all_segments().map(|segment| u64::from(segment.segment.rows())).sum()
    }

    /// Bytes of segments held in memory.
    pub fn memory_bytes(&self) -> u64 {
        self.all_segments().map(|segment| segment.segment.memory_bytes()).sum()
    }

    /// Bytes of search structures held in memory.
    pub fn index_bytes(&self) -> u64 {
        let indexes = self.all_segments().filter_map(|segment| segment.index.as_ref());
        indexes.map(|index| index.bytes() as u64).sum()
    }

    /// Bytes of columns and postings held in memory: what filters and keyword searches are answered
    /// from, as far as somebody has asked.
    pub fn derived_bytes(&self) -> u64 {
        self.all_segments().map(|segment| segment.segment.derived_bytes()).sum()
    }

    /// Whether a live document has this id. O(segments * log documents).
    pub fn contains(&self, id: DocumentId) -> Result<bool, Damage> {
        Ok(self.locate(id)?.is_some())
    }

    /// A live document, with its vectors if asked for. O(segments * log documents + bytes).
    pub fn document(&self, id: DocumentId, vectors: bool) -> Result<Option<Document>, Damage> {
        self.locate(id)?.map(|place| self.read(place, vectors)).transpose()
    }

    pub(crate) fn locate(&self, id: DocumentId) -> Result<Option<Place>, Damage> {
        for (place, view) in self.segments.iter().enumerate().rev() {
            for ordinal in view.segment.versions(id)? {
                let head = view.segment.head(ordinal)?;
                if view.lives(&head) {
                    return Ok(Some(Place { segment: place, ordinal, head }));
                }
            }
        }
        Ok(None)
    }

    pub(crate) fn read(&self, place: Place, vectors: bool) -> Result<Document, Damage> {
        let segment = &*self.segments[place.segment].segment;
        let body = segment.body(place.ordinal)?;
        let mut document = BodyReader::new(body)
            .and_then(|body| body.document(place.head.id))
            .map_err(|error| segment.undecodable(&error))?;
        if vectors {
            let floats = segment.vectors(place.head.row_range())?;
            let each = floats.chunks_exact(self.dimension as usize);
            for (chunk, vector) in document.chunks.iter_mut().zip(each) {
                chunk.embedding = vector.to_vec();
            }
        }
        Ok(document)
    }

    /// What a live document has in vector fields, by field. O(fields * segments * log documents + bytes).
    pub fn field_vectors(&self, id: DocumentId) -> Result<Vec<FieldVectors>, Damage> {
        let mut all = Vec::new();
        for Field { spec, view } in self.fields.values() {
            let Some(place) = view.locate(id)? else { continue };
            let segment = &*view.segments[place.segment].segment;
            let rows = segment.vectors(place.head.row_range())?;
            let rows = rows.chunks_exact(spec.dimension as usize);
            let read = |body: &[u8]| FieldVectors::read(spec, body, place.head.id, rows.clone());
            let vectors = read(segment.body(place.ordinal)?);
            all.push(vectors.map_err(|error| segment.undecodable(&error))?);
        }
        Ok(all)
    }

    /// One chunk of a document, with what belongs to its document as a whole.
    pub(crate) fn read_chunk(
        &self,
        place: Place,
        index: u32,
        vectors: bool,
    ) -> Result<(Chunk, DocumentMetadata), Damage> {
        let segment = &*self.segments[place.segment].segment;
        let body = segment.body(place.ordinal)?;
        let read = BodyReader::new(body)
            .and_then(|body| Ok((body.chunk(index as usize)?, body.into_metadata())));
        let (mut chunk, document) = read.map_err(|error| segment.undecodable(&error))?;
        if vectors {
            let row = place.head.first_row + index;
            chunk.embedding = segment.vectors(row..row + 1)?.to_vec();
        }
        Ok((chunk, document))
    }

    /// The same library with one of its segments searched by `index`, or scanned; `None` if the segment is no
    /// longer one of this view. Changes no meaning.
    #[must_use]
    pub fn with_index(
        &self,
        segment: &Arc<Segment>,
        index: Option<Arc<SegmentIndex>>,
    ) -> Option<Self> {
        let Some(at) = self.place_of(segment) else {
            return self.with_field_of(segment, |field| field.with_index(segment, index));
        };
        let mut next = self.clone();
        next.segments[at].index = index;
        Some(next)
    }

    /// The same library with the merged segments' rows in `output` (nothing, if nothing was kept).
    /// Rows that died while the merge ran are dead in the output too. `None` if the merged
    /// segments are no longer those of this view. What was left out is missing in the past from then
    /// on, so that the past begins later.
    pub(crate) fn with_merged(&self, map: &RowMap, output: Option<Arc<Segment>>) -> Option<Self> {
        let count = map.inputs().len();
        let first = map.inputs().next()?;
        let Some(at) = self.place_of(first) else {
            return self.with_field_of(first, |field| field.with_merged(map, output));
        };
        let current = self.segments.get(at..at + count)?;
        let mut same = current.iter().zip(map.inputs());
        if !same.all(|(view, input)| Arc::ptr_eq(&view.segment, input)) {
            return None;
        }
        let tombstones = map.tombstones(current.iter().map(|view| &view.tombstones));
        let live: u32 = current.iter().map(SegmentView::live_documents).sum();
        let merged = output.map(|segment| {
            let dead_documents = segment.documents() - live;
            SegmentView { segment, tombstones, dead_documents, index: None }
        });
        let mut next = self.clone();
        next.segments.splice(at..at + count, merged);
        next.oldest = next.oldest.max(map.forgets());
        Some(next)
    }
}
