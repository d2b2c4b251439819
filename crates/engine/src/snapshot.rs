//! One library at one sequence number: everything a read needs, without locks.

use std::sync::Arc;

use arrwdb_state::{
    Calibrated, Calibration, Cursor, Document, DocumentId, Field, FieldVectors, Figure,
    LibrarySpec, SegmentIndex, Seq, Standing, View,
};

use crate::error::EngineError;
use crate::request::DocumentPage;

/// An immutable view of one library. Cheap to clone; what it reads stays as it is, whatever
/// happens to the library.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(crate) spec: Arc<LibrarySpec>,
    pub(crate) view: Arc<View>,
    pub(crate) seq: Seq,
    pub(crate) calibrated: Option<Arc<Calibrated>>,
}

/// Figures of a library's storage, all measured.
#[derive(Debug, Clone)]
pub struct StorageStats {
    /// Live documents.
    pub documents: u64,
    /// Live chunks (= live vectors).
    pub chunks: u64,
    /// Rows including those that died and are not merged away yet.
    pub rows: u64,
    /// Segments.
    pub segments: usize,
    /// Of these, mapped from files.
    pub segments_mapped: usize,
    /// Bytes of segments held in memory.
    pub memory_bytes: u64,
    /// Bytes of segment files.
    pub file_bytes: u64,
    /// 128-bit digest of the logical state.
    pub digest: u128,
    /// What it is searched by.
    pub index: IndexStats,
}

/// Figures of what a library is searched by beside its vectors. Segments of few rows have no
/// structure, and what was written lately has none yet: both are scanned.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct IndexStats {
    /// Segments with a structure as the library asks for it now.
    pub segments: usize,
    /// Their rows, dead ones included.
    pub rows: u64,
    /// Bytes of memory of all structures, those that a build is about to replace included.
    pub bytes: u64,
    /// Bytes that the rows of `rows` are scored by in place of their vectors; 0 without codes.
    pub code_bytes: u64,
    /// The part of the ten nearest that a search finds which says nothing of its effort, as it was
    /// measured last; 1 where every search is exact by its type, `None` until it is measured.
    pub recall: Option<f64>,
}

/// Figures of the graphs of a library's segments, taken together. Structures that a build is about
/// to replace do not count.
#[derive(Debug, Clone, PartialEq)]
pub struct GraphStats {
    /// Nodes of each layer, the lowest first.
    pub level_counts: Vec<u64>,
    /// Links of a node in the lowest layer, on average.
    pub average_degree: f64,
}

/// Whether documents are read with their vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Embeddings {
    /// With vectors.
    Included,
    /// Without.
    Omitted,
}

impl Snapshot {
    /// The library.
    pub fn spec(&self) -> &LibrarySpec {
        &self.spec
    }

    /// Its vector fields, by name.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.view.fields().values()
    }

    /// What a document has in vector fields. O(fields * segments * log documents + bytes).
    pub fn field_vectors(&self, id: DocumentId) -> Result<Vec<FieldVectors>, EngineError> {
        Ok(self.view.field_vectors(id)?)
    }

    /// The sequence number this view is true at: no record up to it is missing here. It grows with
    /// the log, whosever records those are.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Figures of its storage. O(segments).
    pub fn stats(&self) -> StorageStats {
        let files = || self.view.all_segments().filter_map(|view| view.segment().file());
        StorageStats {
            documents: self.view.documents(),
            chunks: self.view.chunks(),
            rows: self.view.rows(),
            segments: self.view.all_segments().count(),
            segments_mapped: files().count(),
            memory_bytes: self.view.memory_bytes(),
            file_bytes: files().map(arrwdb_state::FileSegment::file_bytes).sum(),
            digest: self.view.digest(),
            index: self.index_stats(),
        }
    }

    fn index_stats(&self) -> IndexStats {
        let mut stats = IndexStats { bytes: self.view.index_bytes(), ..IndexStats::default() };
        for (rows, index) in self.indexes() {
            stats.segments += 1;
            stats.rows += u64::from(rows);
            stats.code_bytes += index.code_bytes() as u64;
        }
        stats.recall = if self.spec.index.is_exact() { Some(1.0) } else { self.usual_recall() };
        stats
    }

    /// What searches of it were measured to find, and whether that is of what it is now; `None`
    /// until that is measured, and where every search is exact.
    pub fn calibration(&self) -> Option<(&Calibration, Standing)> {
        let calibrated = self.calibrated.as_ref()?;
        let standing = calibrated.standing(&self.view, self.spec.index);
        let measured = calibrated.measured().filter(|_measured| standing != Standing::Void)?;
        Some((measured, standing))
    }

    /// What [`Snapshot::calibration`] gives, if it is of what the library is searched by whole:
    /// what a search does that says nothing of its effort may change without a build.
    fn usual_recall(&self) -> Option<f64> {
        let calibrated = self.calibrated.as_ref()?;
        let same = calibrated.spec() == self.spec.index;
        self.calibration()
            .filter(|_calibration| same)
            .map(|(measured, _standing)| measured.usual_recall)
    }

    /// The structures that are as the library asks for, with the rows that they are over.
    fn indexes(&self) -> impl Iterator<Item = (u32, &SegmentIndex)> {
        let segments = self.view.segments().iter();
        let built = segments.filter_map(|view| Some((view.segment().rows(), &**view.index()?)));
        built.filter(|(_rows, index)| index.spec().builds_as(self.spec.index))
    }

    /// Figures of its graphs; `None` where it has none. O(links): not for every request.
    pub fn graph_stats(&self) -> Option<GraphStats> {
        let (mut level_counts, mut links) = (Vec::new(), 0.0);
        for graph in self.indexes().filter_map(|(_rows, index)| index.graph()) {
            let counts = graph.level_counts();
            level_counts.resize(level_counts.len().max(counts.len()), 0);
            for (sum, count) in level_counts.iter_mut().zip(counts) {
                *sum += u64::from(count);
            }
            links += graph.average_degree() * f64::from(graph.rows());
        }
        let nodes = *level_counts.first()?;
        let average_degree = if nodes == 0 { 0.0 } else { links / nodes as f64 };
        Some(GraphStats { level_counts, average_degree })
    }

    /// Figures of its structures, taken together. O(lists and buckets).
    pub fn figures(&self) -> Vec<Figure> {
        let mut all: Vec<Figure> = Vec::new();
        for figure in self.indexes().flat_map(|(_rows, index)| index.figures()) {
            match all.iter_mut().find(|other| other.name == figure.name) {
                Some(other) => *other = other.with(figure),
                None => all.push(figure),
            }
        }
        all
    }

    /// One document; `None` if there is none. O(segments * log documents + bytes).
    pub fn document(
        &self,
        id: DocumentId,
        embeddings: Embeddings,
    ) -> Result<Option<Document>, EngineError> {
        Ok(self.view.document(id, embeddings == Embeddings::Included)?)
    }

    /// Documents in the order in which they were added, after `cursor` (from the first, without
    /// one).
    pub fn documents_after(
        &self,
        cursor: Option<Cursor>,
        limit: usize,
        embeddings: Embeddings,
    ) -> Result<DocumentPage, EngineError> {
        let page = self.view.documents_after(cursor, limit, embeddings == Embeddings::Included)?;
        Ok(self.page(page))
    }

    /// Documents in the order in which they were added, from the `offset`-th on.
    pub fn documents_at(
        &self,
        offset: u64,
        limit: usize,
        embeddings: Embeddings,
    ) -> Result<DocumentPage, EngineError> {
        let page = self.view.documents_at(offset, limit, embeddings == Embeddings::Included)?;
        Ok(self.page(page))
    }

    /// Where the page after that of [`Snapshot::documents_after`] begins; `None` at the end. Reads no
    /// document.
    pub fn next_after(
        &self,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<Option<Cursor>, EngineError> {
        Ok(self.view.next_after(cursor, limit)?)
    }

    /// Where the page after that of [`Snapshot::documents_at`] begins; `None` at the end. Reads no
    /// document.
    pub fn next_at(&self, offset: u64, limit: usize) -> Result<Option<Cursor>, EngineError> {
        Ok(self.view.next_at(offset, limit)?)
    }

    fn page(&self, page: arrwdb_state::Page) -> DocumentPage {
        let total = self.view.documents();
        DocumentPage { documents: page.documents, next: page.next, total }
    }
}
