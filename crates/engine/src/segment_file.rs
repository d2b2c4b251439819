//! A segment file read from the disk, never through a mapping: there a sector that cannot be read
//! would end the process. What scrubs and backups share.

use std::io;
use std::sync::Arc;

use arrwdb_log::disk::{File, read_exact_at};
use arrwdb_state::{DecodeError, ManifestSegment, SegmentChecksums, SegmentOutline};

/// Blocks read at a time.
const BLOCKS: usize = 16;

/// What a manifest says of one of its segment files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listed {
    pub(crate) number: u64,
    pub(crate) header_crc: u32,
    pub(crate) file_bytes: u64,
}

impl Listed {
    pub(crate) fn of(segment: &ManifestSegment) -> Self {
        let ManifestSegment { number, header_crc, file_bytes, .. } = *segment;
        Self { number, header_crc, file_bytes }
    }
}

/// An open segment file whose header and table of checksums are read.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    file: Arc<dyn File>,
    pub(crate) outline: SegmentOutline,
    pub(crate) header: [u8; SegmentOutline::HEADER_BYTES],
    pub(crate) table: Vec<u8>,
}

/// What is wrong with a segment file.
#[derive(Debug)]
pub(crate) enum SegmentFault {
    /// It cannot be read.
    Read(io::Error),
    /// Its bytes are not those that were written.
    Damaged(DecodeError),
    /// It is whole, as far as it was read, and not the one that the manifest names.
    Another,
}

impl SegmentFile {
    /// Reads header and checksums, and compares them with what the manifest says.
    pub(crate) fn read(file: Arc<dyn File>, listed: &Listed) -> Result<Self, SegmentFault> {
        let mut header = [0; SegmentOutline::HEADER_BYTES];
        read_exact_at(&*file, &mut header, 0).map_err(SegmentFault::Read)?;
        let outline = SegmentOutline::read(&header).map_err(SegmentFault::Damaged)?;
        if (outline.header_crc, outline.file_bytes) != (listed.header_crc, listed.file_bytes) {
            return Err(SegmentFault::Another);
        }
        let bytes = usize::try_from(outline.file_bytes - outline.table).unwrap_or(usize::MAX);
        let mut table = vec![0; bytes];
        read_exact_at(&*file, &mut table, outline.table).map_err(SegmentFault::Read)?;
        Ok(Self { file, outline, header, table })
    }

    /// The checksums of its blocks.
    pub(crate) fn checksums(&self) -> Result<SegmentChecksums, SegmentFault> {
        self.outline.checksums(self.table.clone()).map_err(SegmentFault::Damaged)
    }

    /// Reads some whole blocks from `at` on, the end of the header or of such a read, into
    /// `buffer`, and checks them. None are left where the table begins.
    pub(crate) fn read_blocks(
        &self,
        checksums: &SegmentChecksums,
        at: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<(), SegmentFault> {
        let most = SegmentOutline::BLOCK_BYTES * BLOCKS;
        let left = self.outline.table.saturating_sub(at);
        buffer.resize(usize::try_from(left).map_or(most, |left| left.min(most)), 0);
        read_exact_at(&*self.file, buffer, at).map_err(SegmentFault::Read)?;
        let before = at.saturating_sub(SegmentOutline::HEADER_BYTES as u64);
        let first = usize::try_from(before).unwrap_or(usize::MAX) / SegmentOutline::BLOCK_BYTES;
        for (number, block) in (first..).zip(buffer.chunks(SegmentOutline::BLOCK_BYTES)) {
            if !checksums.matches(number, block) {
                let offset = SegmentOutline::HEADER_BYTES + number * SegmentOutline::BLOCK_BYTES;
                let what = "the checksum of a block does not match";
                return Err(SegmentFault::Damaged(DecodeError { what, offset }));
            }
        }
        Ok(())
    }
}
