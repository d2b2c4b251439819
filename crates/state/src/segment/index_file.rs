//! What a segment is searched by beside its vectors, in a file of its own, version 2.
//!
//! ```text
//! 0    "ARRWIDX\0" | u32 version = 2 | u32 header checksum of the segment | u32 dimension | u32 rows
//! 24   u64 offset of the structure | u64 offset of the checksums | u64 file bytes
//! 48   zeros
//! 248  u32 CRC32C of the checksums | u32 CRC32C of bytes 0..252
//! 256  text metric | index (as in the catalog)
//!      structure, from a multiple of 64 on
//!      checksums: u32 CRC32C of each 64 KiB from byte 256 on
//! ```
//!
//! It is derived from the segment and can be built again at any time, so nothing names it: it lies
//! beside its segment, and says which one it belongs to by that one's checksum. One that is missing,
//! damaged, of an earlier version or of another segment is not used.

use std::io::{self, Write};

use arrwdb_index::{Executor, IndexSpec, Metric, SectionReader, SectionWriter, SegmentIndex};

use super::file::{BLOCK_BYTES, HEADER_BYTES};
use super::write::{Checksummed, sealed_header};
use super::{Damage, FileSegment, Segment};
use crate::codec::{DecodeError, Reader, Writer};
use crate::entry::{read_index, read_metric, write_index};

const MAGIC: [u8; 8] = *b"ARRWIDX\0";
const VERSION: u32 = 2;
const ALIGNMENT: usize = 64;

/// A structure with the segment that it is of.
#[derive(Debug)]
pub struct IndexFile;

/// What the file of a segment's index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexFileState {
    /// The index of the segment.
    Whole,
    /// One that an earlier version of this program wrote, in place of which one is built.
    Earlier,
    /// The index of another segment.
    Foreign,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexSummary {
    /// The file's size.
    pub bytes: u64,
    /// Its header, to be written over the zeros at byte 0 once everything else is.
    pub header: [u8; HEADER_BYTES],
}

impl IndexFile {
    /// Builds what `spec` asks for over a segment's rows. Reads all of them; refuses if one is
    /// damaged. `None` if the executor was stopped meanwhile.
    pub fn build(
        segment: &Segment,
        dimension: u32,
        spec: IndexSpec,
        metric: Metric,
        executor: &dyn Executor,
    ) -> Result<Option<SegmentIndex>, Damage> {
        let vectors = segment.random_access(dimension);
        let index = SegmentIndex::build(spec, metric, &vectors, executor);
        vectors.check()?;
        Ok(Some(index).filter(|_index| !executor.stopped()))
    }

    /// Writes a structure of `segment` after a place of 256 zeros for its header, which the
    /// summary holds.
    pub fn write(
        index: &SegmentIndex,
        segment: &FileSegment,
        metric: Metric,
        out: &mut dyn Write,
    ) -> io::Result<IndexSummary> {
        out.write_all(&[0; HEADER_BYTES])?;
        let mut out = Checksummed::new(out);
        let mut spec = Writer::with_capacity(128);
        spec.text(metric.name());
        write_index(&mut spec, index.spec());
        out.write_all(&spec.into_bytes())?;
        let structure = out.at().next_multiple_of(ALIGNMENT);
        out.pad_to(structure)?;
        index.write(&mut SectionWriter::new(&mut out))?;
        let checksums = out.at();
        let blocks = (checksums - HEADER_BYTES).div_ceil(BLOCK_BYTES);
        let end = checksums + 4 * blocks;
        let table = out.finish()?;
        let mut header = Writer::with_capacity(HEADER_BYTES);
        header.raw(&MAGIC);
        header.u32(VERSION);
        header.u32(segment.header_crc());
        header.u32(segment.dimension());
        header.u32(segment.rows());
        for offset in [structure, checksums, end] {
            header.u64(offset as u64);
        }
        Ok(IndexSummary { bytes: end as u64, header: sealed_header(header, table) })
    }

    /// Reads the file at `name` into memory: every checksum, then every link and offset. `None` if
    /// it belongs to another segment or metric, or an earlier version wrote it. O(bytes).
    pub fn read(
        bytes: &[u8],
        name: &str,
        segment: &FileSegment,
        metric: Metric,
    ) -> Result<Option<SegmentIndex>, Damage> {
        let read = Self::read_any(bytes, name, segment)?;
        Ok(read.ok().filter(|(its, _index)| *its == metric).map(|(_metric, index)| index))
    }

    /// Checks the file at `name` whole. O(bytes).
    pub fn verify(
        bytes: &[u8],
        name: &str,
        segment: &FileSegment,
    ) -> Result<IndexFileState, Damage> {
        let read = Self::read_any(bytes, name, segment)?;
        Ok(read.map_or_else(|state| state, |_index| IndexFileState::Whole))
    }

    /// The structure, and the metric that it is for; else what the file is.
    fn read_any(
        bytes: &[u8],
        name: &str,
        segment: &FileSegment,
    ) -> Result<Result<(Metric, SegmentIndex), IndexFileState>, Damage> {
        let damage =
            |offset: usize, what| Damage { file: name.to_owned(), offset: offset as u64, what };
        let read = |error: DecodeError| damage(error.offset, error.what);
        let Some(outline) = Outline::read(bytes).map_err(read)? else {
            return Ok(Err(IndexFileState::Earlier));
        };
        outline.check(bytes).map_err(read)?;
        if outline.segment_crc != segment.header_crc() {
            return Ok(Err(IndexFileState::Foreign));
        }
        if (outline.dimension, outline.rows) != (segment.dimension(), segment.rows()) {
            return Err(damage(16, "not the shape of the segment that it names"));
        }
        let mut spec = Reader::at(bytes, HEADER_BYTES);
        let metric = read_metric(&mut spec).map_err(read)?;
        let spec = read_index(&mut spec).map_err(read)?;
        let structure = &bytes[outline.structure..outline.checksums];
        let mut from = SectionReader::new(structure);
        let dims = outline.dimension as usize;
        SegmentIndex::read(&mut from, spec, metric, dims, outline.rows)
            .map(|index| Ok((metric, index)))
            .map_err(|error| damage(outline.structure + error.offset, error.what))
    }
}

/// A header.
struct Outline {
    segment_crc: u32,
    dimension: u32,
    rows: u32,
    structure: usize,
    checksums: usize,
    table_crc: u32,
}

impl Outline {
    /// The header; `None` if it is whole and of an earlier version.
    fn read(bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        let refuse = |offset, what| DecodeError { what, offset };
        let header = bytes.get(..HEADER_BYTES).ok_or_else(|| refuse(0, "shorter than a header"))?;
        let mut end = Reader::at(header, HEADER_BYTES - 8);
        let (table_crc, header_crc) = (end.u32("checksum")?, end.u32("checksum")?);
        if crc32c::crc32c(&header[..HEADER_BYTES - 4]) != header_crc {
            return Err(refuse(0, "the header's checksum does not match"));
        }
        let mut from = Reader::new(header);
        let (magic, version) = (from.raw(8, "magic")?, from.u32("version")?);
        if magic != MAGIC || !(1..=VERSION).contains(&version) {
            return Err(from.error("an index file of a version this build knows"));
        }
        if version < VERSION {
            return Ok(None);
        }
        let segment_crc = from.u32("segment")?;
        let (dimension, rows) = (from.u32("dimension")?, from.u32("rows")?);
        let mut offset = |what| from.u64(what).map(|at| usize::try_from(at).unwrap_or(usize::MAX));
        let (structure, checksums) = (offset("structure")?, offset("checksums")?);
        let end = offset("file bytes")?;
        let ordered = HEADER_BYTES < structure && structure <= checksums && checksums <= end;
        let whole = end == bytes.len() && structure.is_multiple_of(ALIGNMENT);
        if !(ordered && whole) {
            return Err(refuse(24, "the file's length is not what its header says"));
        }
        Ok(Some(Self { segment_crc, dimension, rows, structure, checksums, table_crc }))
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
