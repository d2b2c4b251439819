//! A segment in memory: what a record of the log becomes before a checkpoint writes it.

use std::ops::Range;

use bytes::Bytes;

use super::Head;
use super::derived::Derived;
use crate::ids::{DocumentId, Seq};
use crate::record::DocumentRecord;

/// Rows and documents in memory.
#[derive(Debug)]
pub struct MemorySegment {
    dimension: u32,
    /// `rows * dimension`, row-major.
    vectors: Vec<f32>,
    inverse_norms: Vec<f32>,
    heads: Vec<Head>,
    bodies: Vec<Bytes>,
    /// Ordinals in the order of (id, ordinal).
    by_id: Vec<u32>,
    /// What it takes, kept because it is asked for at every record.
    bytes: u64,
    derived: Derived,
}

impl MemorySegment {
    /// The segment of one record. There is at least one document.
    pub(crate) fn of_records<'a>(
        dimension: u32,
        born: Seq,
        documents: impl ExactSizeIterator<Item = &'a DocumentRecord> + Clone,
    ) -> Self {
        let rows = documents.clone().map(DocumentRecord::chunks).sum();
        let mut builder = Builder::with_capacity(dimension, rows, documents.len());
        for document in documents {
            builder.push(
                Head { id: document.id, born, first_row: 0, rows: 0, digest: document.digest },
                document.body.clone(),
                &document.vectors,
                &document.inverse_norms,
            );
        }
        builder.finish()
    }

    pub(crate) fn rows(&self) -> u32 {
        count(self.inverse_norms.len())
    }

    pub(crate) fn documents(&self) -> u32 {
        count(self.heads.len())
    }

    pub(super) fn derived(&self) -> &Derived {
        &self.derived
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn head(&self, ordinal: u32) -> Head {
        self.heads[ordinal as usize]
    }

    pub(crate) fn body(&self, ordinal: u32) -> &[u8] {
        &self.bodies[ordinal as usize]
    }

    pub(crate) fn body_shared(&self, ordinal: u32) -> Bytes {
        self.bodies[ordinal as usize].clone()
    }

    pub(crate) fn vectors(&self, rows: Range<u32>) -> &[f32] {
        let dimension = self.dimension as usize;
        &self.vectors[rows.start as usize * dimension..rows.end as usize * dimension]
    }

    pub(crate) fn inverse_norms(&self, rows: Range<u32>) -> &[f32] {
        &self.inverse_norms[rows.start as usize..rows.end as usize]
    }

    pub(crate) fn by_id(&self, place: u32) -> u32 {
        self.by_id[place as usize]
    }

    /// The least and the greatest id.
    pub(crate) fn id_range(&self) -> (DocumentId, DocumentId) {
        let id = |ordinal: Option<&u32>| ordinal.map(|ordinal| self.head(*ordinal).id);
        let nothing = DocumentId::from_bytes([0; 16]);
        let least = id(self.by_id.first()).unwrap_or(nothing);
        (least, id(self.by_id.last()).unwrap_or(nothing))
    }
}

/// Collects documents in order.
#[derive(Debug)]
pub(crate) struct Builder {
    segment: MemorySegment,
}

impl Builder {
    pub(crate) fn with_capacity(dimension: u32, rows: usize, documents: usize) -> Self {
        Self {
            segment: MemorySegment {
                dimension,
                vectors: Vec::with_capacity(rows * dimension as usize),
                inverse_norms: Vec::with_capacity(rows),
                heads: Vec::with_capacity(documents),
                bodies: Vec::with_capacity(documents),
                by_id: Vec::new(),
                bytes: 0,
                derived: Derived::default(),
            },
        }
    }

    /// Adds a document; its place in the segment is set here.
    pub(crate) fn push(&mut self, head: Head, body: Bytes, vectors: &[f32], norms: &[f32]) {
        let segment = &mut self.segment;
        assert!(!norms.is_empty(), "a document has at least one row");
        assert_eq!(vectors.len(), norms.len() * segment.dimension as usize, "shape of vectors");
        let first_row = segment.rows();
        segment.heads.push(Head { first_row, rows: count(norms.len()), ..head });
        segment.bodies.push(body);
        segment.vectors.extend_from_slice(vectors);
        segment.inverse_norms.extend_from_slice(norms);
    }

    pub(crate) fn finish(self) -> MemorySegment {
        let mut segment = self.segment;
        assert!(!segment.heads.is_empty(), "a segment has at least one document");
        segment.by_id = (0..segment.documents()).collect();
        let heads = &segment.heads;
        segment.by_id.sort_by_key(|ordinal| (heads[*ordinal as usize].id, *ordinal));
        let bodies: usize = segment.bodies.iter().map(Bytes::len).sum();
        let per_document = size_of::<Head>() + size_of::<Bytes>() + size_of::<u32>();
        let floats = segment.vectors.len() + segment.inverse_norms.len();
        segment.bytes = (bodies + per_document * segment.heads.len() + 4 * floats) as u64;
        segment
    }
}

/// Rows and documents of a segment fit in 32 bits: merges stop at `SEGMENT_ROWS_MAX`.
pub(crate) fn count(len: usize) -> u32 {
    let count = u32::try_from(len);
    assert!(count.is_ok(), "a segment of {len} rows");
    count.unwrap_or(u32::MAX)
}
