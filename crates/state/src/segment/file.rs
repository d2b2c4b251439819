//! The segment file, version 1, and reading it in place.
//!
//! ```text
//! 0    "ARRWSEG\0" | u32 version = 1 | u32 dimension | u32 rows | u32 documents
//! 24   u64 offsets of: vectors | inverse norms | documents | ids | bodies | checksums
//! 72   u64 file bytes | u64 least born | u64 greatest born | least id 16 | greatest id 16
//! 128  zeros
//! 248  u32 CRC32C of the checksums | u32 CRC32C of bytes 0..252
//! 256  vectors: f32 * rows * dimension         (each part begins at a multiple of 64)
//!      inverse norms: f32 * rows
//!      documents, by row: id 16 | u64 born | u32 first row | u32 rows | u64 body offset
//!                         u32 body bytes | u32 0 | u128 digest
//!      ids: u32 ordinal * documents, by (id, ordinal)
//!      bodies
//!      checksums: u32 CRC32C of each 64 KiB from byte 256 on
//! ```
//!
//! A block's checksum is checked when the block is first touched, so that opening a file costs the
//! same whatever its size, and damage is met before it is believed.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::derived::Derived;
use super::{Damage, Head, PostingsPlace};
use crate::codec::{DecodeError, Reader};
use crate::ids::{DocumentId, Seq};
use crate::limits::{DIMENSIONS_MAX, SEGMENT_ROWS_MAX};

pub(super) const MAGIC: [u8; 8] = *b"ARRWSEG\0";
pub(super) const VERSION: u32 = 1;
pub(super) const HEADER_BYTES: usize = 256;
pub(super) const BLOCK_BYTES: usize = 64 << 10;
pub(super) const DOCUMENT_BYTES: usize = 64;
pub(super) const ALIGNMENT: usize = 64;
/// No file is larger; so sums of sizes and offsets do not overflow.
const FILE_BYTES_MAX: usize = 1 << 48;

/// A file's bytes, mapped (or held) for as long as this lives.
pub trait FileBytes: Send + Sync + std::fmt::Debug {
    /// All of them; at the same address each time, aligned to at least 4 bytes.
    fn bytes(&self) -> &[u8];
    /// The file's path, for errors.
    fn name(&self) -> &str;
}

/// Where the parts of a file begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) vectors: usize,
    pub(super) inverse_norms: usize,
    pub(super) documents: usize,
    pub(super) ids: usize,
    pub(super) bodies: usize,
    pub(super) checksums: usize,
    pub(super) end: usize,
}

impl Parts {
    /// The parts of a file of this shape.
    pub(super) fn of(dimension: usize, rows: usize, documents: usize, body_bytes: usize) -> Self {
        let vectors = HEADER_BYTES;
        let inverse_norms = (vectors + rows * dimension * 4).next_multiple_of(ALIGNMENT);
        let records = (inverse_norms + rows * 4).next_multiple_of(ALIGNMENT);
        let ids = (records + documents * DOCUMENT_BYTES).next_multiple_of(ALIGNMENT);
        let bodies = (ids + documents * 4).next_multiple_of(ALIGNMENT);
        let checksums = (bodies + body_bytes).next_multiple_of(ALIGNMENT);
        let blocks = (checksums - HEADER_BYTES).div_ceil(BLOCK_BYTES);
        let end = checksums + 4 * blocks;
        Self { vectors, inverse_norms, documents: records, ids, bodies, checksums, end }
    }
}

/// A segment in a file.
#[derive(Debug)]
pub struct FileSegment {
    pub(super) bytes: Arc<dyn FileBytes>,
    number: u64,
    dimension: u32,
    rows: u32,
    documents: u32,
    pub(super) parts: Parts,
    ids: (DocumentId, DocumentId),
    header_crc: u32,
    /// A bit for each block whose checksum was right.
    checked: Vec<AtomicU64>,
    pub(super) derived: Derived,
    pub(super) postings_at: Option<Arc<dyn PostingsPlace>>,
}

impl FileSegment {
    /// Opens the file of segment `number`: checks the header and the table of checksums, not yet
    /// the blocks. O(bytes / 64 KiB).
    pub fn open(number: u64, bytes: Arc<dyn FileBytes>) -> Result<Self, Damage> {
        let refuse = |offset: usize, what| Damage {
            file: bytes.name().to_owned(),
            offset: offset as u64,
            what,
        };
        let all = bytes.bytes();
        let header = all.get(..HEADER_BYTES).ok_or_else(|| refuse(0, "shorter than a header"))?;
        let mut end = Reader::at(header, HEADER_BYTES - 8);
        let table_crc = end.u32("crc").map_err(|error| refuse(error.offset, error.what))?;
        let header_crc = end.u32("crc").map_err(|error| refuse(error.offset, error.what))?;
        if crc32c::crc32c(&header[..HEADER_BYTES - 4]) != header_crc {
            return Err(refuse(0, "the header's checksum does not match"));
        }
        let read = Header::read(header).map_err(|error| refuse(error.offset, error.what))?;
        if read.parts.end != all.len() || bytemuck::try_cast_slice::<u8, f32>(&all[..64]).is_err() {
            return Err(refuse(72, "the file's length is not what its header says"));
        }
        if crc32c::crc32c(&all[read.parts.checksums..]) != table_crc {
            return Err(refuse(read.parts.checksums, "the checksums' own checksum does not match"));
        }
        let blocks = (read.parts.checksums - HEADER_BYTES).div_ceil(BLOCK_BYTES);
        let checked = (0..blocks.div_ceil(64)).map(|_word| AtomicU64::new(0)).collect();
        Ok(Self {
            bytes,
            number,
            dimension: read.dimension,
            rows: read.rows,
            documents: read.documents,
            parts: read.parts,
            ids: read.ids,
            header_crc,
            checked,
            derived: Derived::default(),
            postings_at: None,
        })
    }

    /// Its number, which names its file within the library.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The file's path.
    pub fn name(&self) -> &str {
        self.bytes.name()
    }

    /// The file's size.
    pub fn file_bytes(&self) -> u64 {
        self.parts.end as u64
    }

    /// The checksum of its header, which covers (through the table) every byte of it.
    pub fn header_crc(&self) -> u32 {
        self.header_crc
    }

    /// Dimension of its vectors.
    pub fn dimension(&self) -> u32 {
        self.dimension
    }

    /// Checks every block, touched before or not.
    pub fn check(&self) -> Result<(), Damage> {
        for word in &self.checked {
            word.store(0, Ordering::Relaxed);
        }
        self.part(HEADER_BYTES..self.parts.checksums).map(|_bytes| ())
    }

    /// How many rows it has.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    pub(crate) fn documents(&self) -> u32 {
        self.documents
    }

    pub(crate) fn id_range(&self) -> (DocumentId, DocumentId) {
        self.ids
    }

    pub(crate) fn head(&self, ordinal: u32) -> Result<Head, Damage> {
        let (mut from, start) = self.record(ordinal)?;
        let mut read = || {
            Ok(Head {
                id: DocumentId::new(from.uuid("document id")?),
                born: Seq::new(from.u64("born")?),
                first_row: from.u32("first row")?,
                rows: from.u32("rows")?,
                digest: {
                    from.raw(16, "body place")?;
                    from.u128("digest")?
                },
            })
        };
        let head =
            read().map_err(|error: DecodeError| self.damage(start + error.offset, error.what))?;
        let end = head.first_row.checked_add(head.rows);
        if head.rows == 0 || end.is_none_or(|end| end > self.rows) {
            return Err(self.damage(start + 24, "a document's rows lie outside the segment"));
        }
        Ok(head)
    }

    pub(crate) fn body(&self, ordinal: u32) -> Result<&[u8], Damage> {
        let (mut from, start) = self.record(ordinal)?;
        let mut read = || {
            from.raw(32, "document")?;
            Ok((from.u64("body offset")?, from.u32("body bytes")?))
        };
        let (offset, len) =
            read().map_err(|error: DecodeError| self.damage(start + error.offset, error.what))?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = offset.checked_add(len as usize).filter(|end| *end <= self.parts.checksums);
        match end {
            Some(end) if offset >= self.parts.bodies => self.part(offset..end),
            _ => Err(self.damage(start + 32, "a body lies outside its part")),
        }
    }

    pub(crate) fn vectors(&self, rows: Range<u32>) -> Result<&[f32], Damage> {
        let row_bytes = self.dimension as usize * 4;
        self.floats(
            self.parts.vectors,
            rows.start as usize * row_bytes..rows.end as usize * row_bytes,
        )
    }

    pub(crate) fn inverse_norms(&self, rows: Range<u32>) -> Result<&[f32], Damage> {
        self.floats(self.parts.inverse_norms, rows.start as usize * 4..rows.end as usize * 4)
    }

    pub(crate) fn by_id(&self, place: u32) -> Result<u32, Damage> {
        let start = self.parts.ids + place as usize * 4;
        let bytes = self.part(start..start + 4)?;
        Reader::new(bytes)
            .u32("ordinal")
            .ok()
            .filter(|ordinal| *ordinal < self.documents)
            .ok_or_else(|| self.damage(start, "an ordinal is beyond the documents"))
    }

    fn record(&self, ordinal: u32) -> Result<(Reader<'_>, usize), Damage> {
        assert!(ordinal < self.documents, "document {ordinal} of {}", self.documents);
        let start = self.document_offset(ordinal);
        Ok((Reader::new(self.part(start..start + DOCUMENT_BYTES)?), start))
    }

    /// Where the record of a document is.
    pub(super) fn document_offset(&self, ordinal: u32) -> usize {
        self.parts.documents + ordinal as usize * DOCUMENT_BYTES
    }

    fn floats(&self, part: usize, within: Range<usize>) -> Result<&[f32], Damage> {
        let bytes = self.part(part + within.start..part + within.end)?;
        bytemuck::try_cast_slice(bytes)
            .map_err(|_misaligned| self.damage(part, "the mapping is not aligned"))
    }

    /// Bytes whose blocks have the right checksums.
    fn part(&self, range: Range<usize>) -> Result<&[u8], Damage> {
        let all = self.bytes.bytes();
        if !range.is_empty() {
            let first = (range.start - HEADER_BYTES) / BLOCK_BYTES;
            let last = (range.end - 1 - HEADER_BYTES) / BLOCK_BYTES;
            for block in first..=last {
                if self.checked[block / 64].load(Ordering::Relaxed) >> (block % 64) & 1 == 0 {
                    self.check_block(block)?;
                }
            }
        }
        Ok(&all[range])
    }

    #[cold]
    pub(super) fn check_block(&self, block: usize) -> Result<(), Damage> {
        let all = self.bytes.bytes();
        let start = HEADER_BYTES + block * BLOCK_BYTES;
        let end = self.parts.checksums.min(start + BLOCK_BYTES);
        let place = self.parts.checksums + 4 * block;
        let wanted = Reader::at(all, place).u32("checksum").ok();
        if wanted != Some(crc32c::crc32c(&all[start..end])) {
            return Err(self.damage(start, "the checksum of a block does not match"));
        }
        // Relaxed is enough: the bytes themselves never change.
        self.checked[block / 64].fetch_or(1 << (block % 64), Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn damage(&self, offset: usize, what: &'static str) -> Damage {
        Damage { file: self.bytes.name().to_owned(), offset: offset as u64, what }
    }
}

/// What a header says.
pub(super) struct Header {
    dimension: u32,
    rows: u32,
    documents: u32,
    pub(super) parts: Parts,
    ids: (DocumentId, DocumentId),
}

impl Header {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(bytes);
        if from.raw(8, "magic")? != MAGIC || from.u32("version")? != VERSION {
            return Err(from.error("a segment file of a version this build knows"));
        }
        let dimension = from.u32("dimension")?;
        let rows = from.u32("rows")?;
        let documents = from.u32("documents")?;
        let sized = (1..=DIMENSIONS_MAX).contains(&dimension)
            && (1..=SEGMENT_ROWS_MAX).contains(&rows)
            && (1..=rows).contains(&documents);
        if !sized {
            return Err(from.error("a shape within the limits"));
        }
        let mut offset = |what| from.u64(what).map(|at| usize::try_from(at).unwrap_or(usize::MAX));
        let parts = Parts {
            vectors: offset("vectors")?,
            inverse_norms: offset("norms")?,
            documents: offset("documents")?,
            ids: offset("ids")?,
            bodies: offset("bodies")?,
            checksums: offset("checksums")?,
            end: offset("file bytes")?,
        };
        let bodies_end = Some(parts.checksums).filter(|end| *end <= FILE_BYTES_MAX);
        let body_bytes = bodies_end.and_then(|end| end.checked_sub(parts.bodies));
        let body_bytes = body_bytes.ok_or_else(|| from.error("parts in order"))?;
        let shape = Parts::of(dimension as usize, rows as usize, documents as usize, body_bytes);
        if shape != parts {
            return Err(from.error("parts that fit the shape"));
        }
        from.raw(16, "born range")?;
        let least = DocumentId::new(from.uuid("least id")?);
        let greatest = DocumentId::new(from.uuid("greatest id")?);
        Ok(Self { dimension, rows, documents, parts, ids: (least, greatest) })
    }
}
