//! Segments: rows with their documents, written once and never changed.
//!
//! A segment holds documents in the order in which they were added, each with its chunks' vectors
//! as consecutive rows. It lives in memory until a checkpoint writes it to a file; either way it
//! answers the same questions. What has died since is not its business: see `liveness`.

mod beside;
mod derived;
mod file;
mod index_file;
mod memory;
mod merge;
mod passing;
mod postings_file;
mod random_access;
mod verify;
mod write;

use std::ops::Range;

pub use beside::{BesideState, BesideSummary};
pub use file::{FileBytes, FileSegment};
pub use index_file::IndexFile;
pub(crate) use memory::{MemorySegment, count};
pub use merge::Merge;
pub(crate) use merge::RowMap;
pub use passing::{SegmentChecksums, SegmentOutline};
pub use postings_file::{PostingsFile, PostingsPlace};
pub(crate) use random_access::RandomAccess;
pub use write::{SegmentSummary, WriteError as SegmentWriteError};

use crate::codec::DecodeError;
use crate::ids::{DocumentId, Seq};

/// Bytes of a file that are not what was written there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file} is damaged at byte {offset}: {what}; restore it or a backup")]
pub struct Damage {
    /// The file's path.
    pub file: String,
    /// The first byte of the damaged part.
    pub offset: u64,
    /// What does not hold.
    pub what: &'static str,
}

/// What a segment knows of a document without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) id: DocumentId,
    /// The record that added it.
    pub(crate) born: Seq,
    /// Its first row; the others follow.
    pub(crate) first_row: u32,
    /// Its rows, at least one.
    pub(crate) rows: u32,
    pub(crate) digest: u128,
}

impl Head {
    pub(crate) fn row_range(&self) -> Range<u32> {
        self.first_row..self.first_row + self.rows
    }
}

/// Rows and their documents, in memory or in a mapped file.
#[derive(Debug)]
pub enum Segment {
    /// Not yet part of a checkpoint.
    Memory(MemorySegment),
    /// Written, synced and mapped.
    File(FileSegment),
}

impl Segment {
    /// How many rows it has, at least one.
    pub fn rows(&self) -> u32 {
        match self {
            Self::Memory(segment) => segment.rows(),
            Self::File(segment) => segment.rows(),
        }
    }

    /// How many documents it has, at least one; several may be versions of one.
    pub fn documents(&self) -> u32 {
        match self {
            Self::Memory(segment) => segment.documents(),
            Self::File(segment) => segment.documents(),
        }
    }

    /// Bytes it holds in memory (without the mapping).
    pub fn memory_bytes(&self) -> u64 {
        match self {
            Self::Memory(segment) => segment.bytes(),
            Self::File(_) => 0,
        }
    }

    /// The file it is in, where it is in one.
    pub fn file(&self) -> Option<&FileSegment> {
        match self {
            Self::Memory(_) => None,
            Self::File(segment) => Some(segment),
        }
    }

    /// The document at `ordinal`, below [`Self::documents`], in the order of rows.
    pub(crate) fn head(&self, ordinal: u32) -> Result<Head, Damage> {
        match self {
            Self::Memory(segment) => Ok(segment.head(ordinal)),
            Self::File(segment) => segment.head(ordinal),
        }
    }

    /// The stored form of the document at `ordinal`.
    pub(crate) fn body(&self, ordinal: u32) -> Result<&[u8], Damage> {
        match self {
            Self::Memory(segment) => Ok(segment.body(ordinal)),
            Self::File(segment) => segment.body(ordinal),
        }
    }

    /// Vectors of `rows`, row-major.
    pub(crate) fn vectors(&self, rows: Range<u32>) -> Result<&[f32], Damage> {
        match self {
            Self::Memory(segment) => Ok(segment.vectors(rows)),
            Self::File(segment) => segment.vectors(rows),
        }
    }

    /// `1 / |row|` of `rows`.
    pub(crate) fn inverse_norms(&self, rows: Range<u32>) -> Result<&[f32], Damage> {
        match self {
            Self::Memory(segment) => Ok(segment.inverse_norms(rows)),
            Self::File(segment) => segment.inverse_norms(rows),
        }
    }

    /// Ordinals of every version of a document, ascending. O(log documents), and O(1) for an id
    /// outside the range of ids here, which is the usual case for new documents.
    pub(crate) fn versions(&self, id: DocumentId) -> Result<Vec<u32>, Damage> {
        let (least, greatest) = match self {
            Self::Memory(segment) => segment.id_range(),
            Self::File(segment) => segment.id_range(),
        };
        if id < least || id > greatest {
            return Ok(Vec::new());
        }
        let first = search(self.documents(), |place| Ok(self.id_at(place)?.1 < id))?;
        let mut versions = Vec::new();
        for place in first..self.documents() {
            let (ordinal, found) = self.id_at(place)?;
            if found != id {
                break;
            }
            versions.push(ordinal);
        }
        Ok(versions)
    }

    /// The document that `row` belongs to. O(log documents).
    pub(crate) fn at_row(&self, row: u32) -> Result<(u32, Head), Damage> {
        let after = search(self.documents(), |ordinal| Ok(self.head(ordinal)?.first_row <= row))?;
        let ordinal = after.saturating_sub(1);
        let head = self.head(ordinal)?;
        if head.row_range().contains(&row) {
            return Ok((ordinal, head));
        }
        // Only heads that are not in order leave a row to none.
        let what = "a document's rows do not follow those of the one before it";
        Err(self.undecodable(&DecodeError { what, offset: 0 }))
    }

    /// The first document born at `born` or later; documents lie in that order. O(log documents).
    pub(crate) fn first_born_at(&self, born: Seq) -> Result<u32, Damage> {
        search(self.documents(), |ordinal| Ok(self.head(ordinal)?.born < born))
    }

    /// Where its vectors are read at random.
    pub(crate) fn random_access(&self, dimension: u32) -> RandomAccess<'_> {
        RandomAccess::new(self, dimension)
    }

    /// What to report when a body that passed its checksum does not decode.
    pub(crate) fn undecodable(&self, error: &DecodeError) -> Damage {
        let file = self.file().map_or("(memory)", |segment| segment.name()).to_owned();
        Damage { file, offset: error.offset as u64, what: error.what }
    }

    /// The document at `place` in the order of (id, ordinal).
    fn id_at(&self, place: u32) -> Result<(u32, DocumentId), Damage> {
        let ordinal = match self {
            Self::Memory(segment) => segment.by_id(place),
            Self::File(segment) => segment.by_id(place)?,
        };
        Ok((ordinal, self.head(ordinal)?.id))
    }
}

/// The first of `0..count` for which `before` no longer holds.
fn search(count: u32, before: impl Fn(u32) -> Result<bool, Damage>) -> Result<u32, Damage> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}
