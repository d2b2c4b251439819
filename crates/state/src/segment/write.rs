//! Writing a segment file: the output of a merge, front to back.

use std::io::{self, Write};

use super::file::{BLOCK_BYTES, HEADER_BYTES, MAGIC, Parts, VERSION};
use super::merge::Merge;
use super::{Damage, Head};
use crate::codec::Writer;
use crate::ids::DocumentId;

/// Rows copied at a time.
const COPY_ROWS: u32 = 1024;

/// Why a segment could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// An input is damaged.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The output cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentSummary {
    /// The file's size.
    pub bytes: u64,
    /// Its header, to be written over the zeros at byte 0 once everything else is.
    pub header: [u8; HEADER_BYTES],
}

impl Merge {
    /// The size of the file that [`Merge::write`] makes.
    pub fn file_bytes(&self) -> u64 {
        self.parts().end as u64
    }

    /// Writes the output after a place of 256 zeros for its header, which the summary holds: its
    /// checksums are known only at the end. There is at least one row. O(bytes), and memory for
    /// the ids and checksums only.
    pub fn write(&self, out: &mut dyn Write) -> Result<SegmentSummary, WriteError> {
        assert!(!self.kept.is_empty(), "a segment has at least one row");
        let parts = self.parts();
        let mut out = Checksummed::new(out);
        out.out.write_all(&[0; HEADER_BYTES])?;
        self.write_floats(&mut out, parts)?;
        self.write_documents(&mut out, parts)?;
        let by_id = self.by_id();
        for ordinal in &by_id {
            out.write_all(&ordinal.to_le_bytes())?;
        }
        out.pad_to(parts.bodies)?;
        for kept in &self.kept {
            let segment = &self.inputs[kept.input as usize].segment;
            out.write_all(segment.body(kept.ordinal)?)?;
        }
        out.pad_to(parts.checksums)?;
        let table = out.finish()?;
        let id = |place: Option<&u32>| {
            place.map_or(DocumentId::from_bytes([0; 16]), |ordinal| {
                self.kept[*ordinal as usize].head.id
            })
        };
        let header = self.header(parts, [id(by_id.first()), id(by_id.last())], table);
        Ok(SegmentSummary { bytes: parts.end as u64, header })
    }

    fn parts(&self) -> Parts {
        // The bodies' part is padded, and its padding counts as body.
        let (rows, documents) = (self.rows() as usize, self.kept.len());
        Parts::of(self.dimension as usize, rows, documents, self.body_bytes)
    }

    fn write_floats(&self, out: &mut Checksummed<'_>, parts: Parts) -> Result<(), WriteError> {
        let runs = self.runs();
        for (input, rows) in &runs {
            let mut first = rows.start;
            while first < rows.end {
                let end = rows.end.min(first + COPY_ROWS);
                let vectors = self.inputs[*input].segment.vectors(first..end)?;
                out.write_all(bytemuck::cast_slice(vectors))?;
                first = end;
            }
        }
        out.pad_to(parts.inverse_norms)?;
        for (input, rows) in &runs {
            let norms = self.inputs[*input].segment.inverse_norms(rows.clone())?;
            out.write_all(bytemuck::cast_slice(norms))?;
        }
        out.pad_to(parts.documents)?;
        Ok(())
    }

    fn write_documents(&self, out: &mut Checksummed<'_>, parts: Parts) -> io::Result<()> {
        let mut body_offset = parts.bodies as u64;
        for kept in &self.kept {
            let Head { id, born, first_row, rows, digest } = kept.head;
            let mut record = Writer::with_capacity(64);
            record.id(id.to_bytes());
            record.u64(born.get());
            record.u32(first_row);
            record.u32(rows);
            record.u64(body_offset);
            record.u32(kept.body_bytes);
            record.u32(0);
            record.u128(digest);
            out.write_all(&record.into_bytes())?;
            body_offset += u64::from(kept.body_bytes);
        }
        out.pad_to(parts.ids)
    }

    fn by_id(&self) -> Vec<u32> {
        let mut ordinals: Vec<u32> = (0u32..).take(self.kept.len()).collect();
        ordinals.sort_by_key(|ordinal| (self.kept[*ordinal as usize].head.id, *ordinal));
        ordinals
    }

    fn header(&self, parts: Parts, ids: [DocumentId; 2], table_crc: u32) -> [u8; HEADER_BYTES] {
        let mut out = Writer::with_capacity(HEADER_BYTES);
        out.raw(&MAGIC);
        out.u32(VERSION);
        out.u32(self.dimension);
        out.u32(self.rows());
        out.count(self.kept.len());
        for offset in [
            parts.vectors,
            parts.inverse_norms,
            parts.documents,
            parts.ids,
            parts.bodies,
            parts.checksums,
            parts.end,
        ] {
            out.u64(offset as u64);
        }
        let born = self.kept.iter().map(|kept| kept.head.born.get());
        out.u64(born.clone().min().unwrap_or(0));
        out.u64(born.max().unwrap_or(0));
        for id in ids {
            out.id(id.to_bytes());
        }
        sealed_header(out, table_crc)
    }
}

/// A header's bytes with both checksums at its end: that of the table of checksums, and its own.
pub(super) fn sealed_header(out: Writer, table_crc: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let written = out.into_bytes();
    header[..written.len()].copy_from_slice(&written);
    header[HEADER_BYTES - 8..HEADER_BYTES - 4].copy_from_slice(&table_crc.to_le_bytes());
    let crc = crc32c::crc32c(&header[..HEADER_BYTES - 4]);
    header[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    header
}

impl Write for Checksummed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes through, keeping the checksum of every block.
pub(super) struct Checksummed<'a> {
    out: &'a mut dyn Write,
    /// Offset in the file.
    at: usize,
    crc: u32,
    checksums: Vec<u8>,
}

impl<'a> Checksummed<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, at: HEADER_BYTES, crc: 0, checksums: Vec::new() }
    }

    pub(super) fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let left = BLOCK_BYTES - (self.at - HEADER_BYTES) % BLOCK_BYTES;
            let (now, later) = bytes.split_at(left.min(bytes.len()));
            self.out.write_all(now)?;
            self.crc = crc32c::crc32c_append(self.crc, now);
            self.at += now.len();
            if now.len() == left {
                self.end_block();
            }
            bytes = later;
        }
        Ok(())
    }

    pub(super) fn pad_to(&mut self, offset: usize) -> io::Result<()> {
        assert!(offset >= self.at && offset - self.at < 64, "parts are written in order");
        self.write_all(&[0; 64][..offset - self.at])
    }

    /// Offset in the file.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    fn end_block(&mut self) {
        self.checksums.extend_from_slice(&self.crc.to_le_bytes());
        self.crc = 0;
    }

    /// Writes the table of checksums and gives its own.
    pub(super) fn finish(mut self) -> io::Result<u32> {
        if !(self.at - HEADER_BYTES).is_multiple_of(BLOCK_BYTES) {
            self.end_block();
        }
        self.out.write_all(&self.checksums)?;
        Ok(crc32c::crc32c(&self.checksums))
    }
}
