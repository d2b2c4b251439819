//! One library at one sequence number: everything a read needs, without locks.

use std::sync::Arc;

use arrwdb_state::{Cursor, Document, DocumentId, LibrarySpec, Seq, View};

use crate::error::EngineError;
use crate::request::DocumentPage;

/// An immutable view of one library. Cheap to clone; what it reads stays as it is, whatever
/// happens to the library.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(crate) spec: Arc<LibrarySpec>,
    pub(crate) view: Arc<View>,
    pub(crate) seq: Seq,
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

    /// The sequence number this view is true at: no record up to it is missing here. It grows with
    /// the log, whosever records those are.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Figures of its storage. O(segments).
    pub fn stats(&self) -> StorageStats {
        let files = self.view.segments().iter().filter_map(|view| view.segment().file());
        StorageStats {
            documents: self.view.documents(),
            chunks: self.view.chunks(),
            rows: self.view.rows(),
            segments: self.view.segments().len(),
            segments_mapped: files.clone().count(),
            memory_bytes: self.view.memory_bytes(),
            file_bytes: files.map(arrwdb_state::FileSegment::file_bytes).sum(),
            digest: self.view.digest(),
        }
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

    fn page(&self, page: arrwdb_state::Page) -> DocumentPage {
        let total = self.view.documents();
        DocumentPage { documents: page.documents, next: page.next, total }
    }
}
