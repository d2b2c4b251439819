//! A segment file on its way to the target: checked block by block while it passes.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use arrwdb_log::disk::{File, read_exact_at};
use arrwdb_state::{ManifestSegment, SegmentChecksums, SegmentOutline};
use sha2::{Digest, Sha256};

use super::Progress;
use super::error::BackupError;
use super::point::hex;
use super::source::damaged;

/// Blocks read at a time.
const BLOCKS: usize = 16;

/// An open segment file, named by what is in it.
#[derive(Debug)]
pub(super) struct SegmentSource {
    path: PathBuf,
    file: Arc<dyn File>,
    outline: SegmentOutline,
    header: [u8; SegmentOutline::HEADER_BYTES],
    table: Vec<u8>,
    /// The beginning of SHA-256 over the header and the checksums of all blocks: another content
    /// has another fingerprint, and it costs a sixteen-thousandth of the file to know it.
    pub(super) fingerprint: String,
}

impl SegmentSource {
    /// Reads header and checksums, and compares them with what the manifest says.
    pub(super) fn open(
        file: Arc<dyn File>,
        path: PathBuf,
        listed: &ManifestSegment,
    ) -> Result<Self, BackupError> {
        let read = |error| BackupError::disk("read", &path)(error);
        let mut header = [0; SegmentOutline::HEADER_BYTES];
        read_exact_at(&*file, &mut header, 0).map_err(read)?;
        let outline = SegmentOutline::read(&header).map_err(|error| damaged(&path, &error))?;
        if (outline.header_crc, outline.file_bytes) != (listed.header_crc, listed.file_bytes) {
            let detail = format!(
                "{} is not the file that its manifest names; restore it or an earlier backup",
                path.display()
            );
            return Err(BackupError::Damaged { detail });
        }
        let bytes = usize::try_from(outline.file_bytes - outline.table).unwrap_or(usize::MAX);
        let mut table = vec![0; bytes];
        read_exact_at(&*file, &mut table, outline.table).map_err(read)?;
        let mut hash = Sha256::new();
        hash.update(header);
        hash.update(&table);
        let fingerprint = hex(&hash.finalize()[..8]);
        Ok(Self { path, file, outline, header, table, fingerprint })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.outline.file_bytes
    }

    /// All bytes of the file, from the first one.
    pub(super) fn stream(self, progress: &dyn Progress) -> Result<Passing<'_>, BackupError> {
        let checksums = self.outline.checksums(self.table.clone());
        let checksums = checksums.map_err(|error| damaged(&self.path, &error))?;
        let buffer = self.header.to_vec();
        Ok(Passing {
            source: self,
            checksums,
            progress,
            buffer,
            taken: 0,
            read: SegmentOutline::HEADER_BYTES as u64,
            hash: Sha256::new(),
            fault: None,
        })
    }
}

/// A segment's bytes passing by.
pub(super) struct Passing<'a> {
    source: SegmentSource,
    checksums: SegmentChecksums,
    progress: &'a dyn Progress,
    /// Bytes read and checked, of which `taken` are given out.
    buffer: Vec<u8>,
    taken: usize,
    /// Bytes of the file read.
    read: u64,
    hash: Sha256,
    /// What is wrong with the source, so that it is not taken for a fault of the target.
    fault: Option<BackupError>,
}

impl Passing<'_> {
    /// The SHA-256 of the file, once all of it has passed; or what was wrong with it.
    pub(super) fn finish(self) -> Result<String, BackupError> {
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok(hex(&self.hash.finalize())),
        }
    }

    /// What was wrong with the file, if anything.
    pub(super) fn fault(&mut self) -> Option<BackupError> {
        self.fault.take()
    }

    fn fill(&mut self) -> io::Result<()> {
        let (table, end) = (self.source.outline.table, self.source.outline.file_bytes);
        self.taken = 0;
        self.buffer.clear();
        if self.read >= table {
            if self.read < end {
                self.buffer.extend_from_slice(&self.source.table);
                self.read = end;
            }
            return Ok(());
        }
        let most = SegmentOutline::BLOCK_BYTES * BLOCKS;
        let bytes = usize::try_from(table - self.read).map_or(most, |left| left.min(most));
        self.buffer.resize(bytes, 0);
        read_exact_at(&*self.source.file, &mut self.buffer, self.read)?;
        let before = self.read - SegmentOutline::HEADER_BYTES as u64;
        let first = usize::try_from(before).unwrap_or(usize::MAX) / SegmentOutline::BLOCK_BYTES;
        for (number, block) in (first..).zip(self.buffer.chunks(SegmentOutline::BLOCK_BYTES)) {
            if !self.checksums.matches(number, block) {
                let offset = SegmentOutline::HEADER_BYTES + number * SegmentOutline::BLOCK_BYTES;
                let detail = format!(
                    "{} is damaged at byte {offset}: the checksum of a block does not match; \
                     restore it or an earlier backup",
                    self.source.path.display()
                );
                self.fault = Some(BackupError::Damaged { detail });
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        self.read += bytes as u64;
        Ok(())
    }
}

impl Read for Passing<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.buffer.len()
            && let Err(error) = self.fill()
        {
            let again = io::Error::from(error.kind());
            let path = &self.source.path;
            self.fault.get_or_insert_with(|| BackupError::disk("read", path)(error));
            return Err(again);
        }
        let count = out.len().min(self.buffer.len() - self.taken);
        let given = &self.buffer[self.taken..self.taken + count];
        out[..count].copy_from_slice(given);
        self.hash.update(given);
        self.progress.advance(count as u64);
        self.taken += count;
        Ok(count)
    }
}
