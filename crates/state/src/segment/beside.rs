//! The frame of a file that lies beside a segment and is made from it.
//!
//! ```text
//! 0    magic 8 | u32 version | u32 header checksum of the segment | u32 dimension | u32 rows
//! 24   u64 offset of the body | u64 offset of the checksums | u64 file bytes
//! 48   zeros
//! 248  u32 CRC32C of the checksums | u32 CRC32C of bytes 0..252
//! 256  what the body is
//!      body, from a multiple of 64 on
//!      checksums: u32 CRC32C of each 64 KiB from byte 256 on
//! ```
//!
//! Nothing names such a file: it says which segment it belongs to by that one's checksum. One that is
//! missing, damaged, of an earlier version or of another segment is not used.

use std::io::{self, Write};

use super::FileSegment;
use super::file::{BLOCK_BYTES, HEADER_BYTES};
use super::write::{Checksummed, sealed_header};
use crate::codec::{DecodeError, Reader, Writer};

const ALIGNMENT: usize = 64;

/// What lies beside a segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    pub(super) magic: [u8; 8],
    /// What is written; every earlier one is known, and not used.
    pub(super) version: u32,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BesideSummary {
    /// The file's size.
    pub bytes: u64,
    /// Its header, to be written over the zeros at byte 0 once everything else is.
    pub header: [u8; HEADER_BYTES],
}

/// What a file beside a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BesideState {
    /// Whole, and of the segment.
    Whole,
    /// One that an earlier version of this program wrote, in place of which one is made.
    Earlier,
    /// Of another segment.
    Foreign,
}

impl Kind {
    /// Checks a file whole but for its body's meaning: where that is, or why it is not used. O(bytes).
    pub(super) fn open(
        self,
        bytes: &[u8],
        segment: &FileSegment,
    ) -> Result<Result<Outline, BesideState>, DecodeError> {
        let Some(outline) = Outline::read(bytes, self)? else {
            return Ok(Err(BesideState::Earlier));
        };
        outline.check(bytes)?;
        if outline.segment_crc != segment.header_crc() {
            return Ok(Err(BesideState::Foreign));
        }
        if (outline.dimension, outline.rows) != (segment.dimension(), segment.rows()) {
            let what = "not the shape of the segment that it names";
            return Err(DecodeError { what, offset: 16 });
        }
        Ok(Ok(outline))
    }

    /// Writes a file of `segment` after a place of 256 zeros for its header, which the summary holds:
    /// what the body is, and the body.
    pub(super) fn write(
        self,
        segment: &FileSegment,
        what: &[u8],
        out: &mut dyn Write,
        body: impl FnOnce(&mut Checksummed<'_>) -> io::Result<()>,
    ) -> io::Result<BesideSummary> {
        out.write_all(&[0; HEADER_BYTES])?;
        let mut out = Checksummed::new(out);
        out.write_all(what)?;
        let start = out.at().next_multiple_of(ALIGNMENT);
        out.pad_to(start)?;
        body(&mut out)?;
        let checksums = out.at();
        let blocks = (checksums - HEADER_BYTES).div_ceil(BLOCK_BYTES);
        let end = checksums + 4 * blocks;
        let table = out.finish()?;
        let mut header = Writer::with_capacity(HEADER_BYTES);
        header.raw(&self.magic);
        header.u32(self.version);
        header.u32(segment.header_crc());
        header.u32(segment.dimension());
        header.u32(segment.rows());
        for offset in [start, checksums, end] {
            header.u64(offset as u64);
        }
        Ok(BesideSummary { bytes: end as u64, header: sealed_header(header, table) })
    }
}

/// A header.
pub(super) struct Outline {
    segment_crc: u32,
    pub(super) dimension: u32,
    pub(super) rows: u32,
    /// Where the body begins.
    pub(super) body: usize,
    /// Where it ends.
    pub(super) checksums: usize,
    table_crc: u32,
}

impl Outline {
    /// The header; `None` if it is whole and of an earlier version.
    fn read(bytes: &[u8], kind: Kind) -> Result<Option<Self>, DecodeError> {
        let refuse = |offset, what| DecodeError { what, offset };
        let header = bytes.get(..HEADER_BYTES).ok_or_else(|| refuse(0, "shorter than a header"))?;
        let mut end = Reader::at(header, HEADER_BYTES - 8);
        let (table_crc, header_crc) = (end.u32("checksum")?, end.u32("checksum")?);
        if crc32c::crc32c(&header[..HEADER_BYTES - 4]) != header_crc {
            return Err(refuse(0, "the header's checksum does not match"));
        }
        let mut from = Reader::new(header);
        let (magic, version) = (from.raw(8, "magic")?, from.u32("version")?);
        if magic != kind.magic || !(1..=kind.version).contains(&version) {
            return Err(from.error("a file of a kind and version that this build knows"));
        }
        if version < kind.version {
            return Ok(None);
        }
        let segment_crc = from.u32("segment")?;
        let (dimension, rows) = (from.u32("dimension")?, from.u32("rows")?);
        let mut offset = |what| from.u64(what).map(|at| usize::try_from(at).unwrap_or(usize::MAX));
        let (body, checksums) = (offset("body")?, offset("checksums")?);
        let end = offset("file bytes")?;
        let ordered = HEADER_BYTES < body && body <= checksums && checksums <= end;
        let whole = end == bytes.len() && body.is_multiple_of(ALIGNMENT);
        if !(ordered && whole) {
            return Err(refuse(24, "the file's length is not what its header says"));
        }
        Ok(Some(Self { segment_crc, dimension, rows, body, checksums, table_crc }))
    }

    /// Checks every block.
    fn check(&self, bytes: &[u8]) -> Result<(), DecodeError> {
        let (blocks, table) = bytes[HEADER_BYTES..].split_at(self.checksums - HEADER_BYTES);
        let refuse = |offset, what| DecodeError { what, offset };
        if crc32c::crc32c(table) != self.table_crc {
            return Err(refuse(self.checksums, "the checksums' own checksum does not match"));
        }
        let (sums, rest) = table.as_chunks::<4>();
        if sums.len() != blocks.len().div_ceil(BLOCK_BYTES) || !rest.is_empty() {
            return Err(refuse(self.checksums, "not one checksum for each block"));
        }
        for (place, (block, sum)) in blocks.chunks(BLOCK_BYTES).zip(sums).enumerate() {
            if crc32c::crc32c(block) != u32::from_le_bytes(*sum) {
                let offset = HEADER_BYTES + place * BLOCK_BYTES;
                return Err(refuse(offset, "the checksum of a block does not match"));
            }
        }
        Ok(())
    }
}
