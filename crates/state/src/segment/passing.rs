//! Checking a segment file while its bytes pass by, without mapping it.

use super::file::{BLOCK_BYTES, HEADER_BYTES, Header};
use crate::codec::{DecodeError, Reader};

/// Where the table of checksums lies in a file, from its header alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentOutline {
    /// Where the table begins: the end of what it is about.
    pub table: u64,
    /// Bytes of the file; the table ends there.
    pub file_bytes: u64,
    /// The header's checksum, as manifests name the file by.
    pub header_crc: u32,
    table_crc: u32,
}

impl SegmentOutline {
    /// Bytes of a header.
    pub const HEADER_BYTES: usize = HEADER_BYTES;
    /// Bytes of a block; the first begins behind the header, the last may be shorter.
    pub const BLOCK_BYTES: usize = BLOCK_BYTES;

    /// Reads a header, checksum first.
    pub fn read(header: &[u8; HEADER_BYTES]) -> Result<Self, DecodeError> {
        let mut end = Reader::at(header, HEADER_BYTES - 8);
        let (table_crc, header_crc) = (end.u32("checksum")?, end.u32("checksum")?);
        if crc32c::crc32c(&header[..HEADER_BYTES - 4]) != header_crc {
            return Err(DecodeError { what: "the header's checksum does not match", offset: 0 });
        }
        let parts = Header::read(header)?.parts;
        Ok(Self {
            table: parts.checksums as u64,
            file_bytes: parts.end as u64,
            header_crc,
            table_crc,
        })
    }

    /// Takes the table, checksum first.
    pub fn checksums(self, table: Vec<u8>) -> Result<SegmentChecksums, DecodeError> {
        if crc32c::crc32c(&table) != self.table_crc {
            let what = "the checksums' own checksum does not match";
            let offset = usize::try_from(self.table).unwrap_or(usize::MAX);
            return Err(DecodeError { what, offset });
        }
        Ok(SegmentChecksums(table))
    }
}

/// The checksums of a file's blocks.
#[derive(Debug)]
pub struct SegmentChecksums(Vec<u8>);

impl SegmentChecksums {
    /// Whether these are the bytes of block `number`, counted from 0.
    pub fn matches(&self, number: usize, block: &[u8]) -> bool {
        let wanted = Reader::at(&self.0, number.saturating_mul(4)).u32("checksum");
        wanted == Ok(crc32c::crc32c(block))
    }
}
