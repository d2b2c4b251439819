//! A segment file on its way to the target: checked block by block while it passes.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrwdb_log::disk::File;
use arrwdb_state::{ManifestSegment, SegmentChecksums, SegmentOutline};
use sha2::{Digest, Sha256};

use super::Progress;
use super::error::BackupError;
use super::point::hex;
use super::source::damaged;
use crate::segment_file::{Listed, SegmentFault, SegmentFile};

/// An open segment file, named by what is in it.
#[derive(Debug)]
pub(super) struct SegmentSource {
    path: PathBuf,
    file: SegmentFile,
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
        let file =
            SegmentFile::read(file, &Listed::of(listed)).map_err(|it| wrong_with(&path, it))?;
        let mut hash = Sha256::new();
        hash.update(file.header);
        hash.update(&file.table);
        let fingerprint = hex(&hash.finalize()[..8]);
        Ok(Self { path, file, fingerprint })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.file.outline.file_bytes
    }

    /// All bytes of the file, from the first one.
    pub(super) fn stream(self, progress: &dyn Progress) -> Result<Passing<'_>, BackupError> {
        let checksums = self.file.checksums().map_err(|it| wrong_with(&self.path, it))?;
        let buffer = self.file.header.to_vec();
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

fn wrong_with(path: &Path, fault: SegmentFault) -> BackupError {
    match fault {
        SegmentFault::Read(error) => BackupError::disk("read", path)(error),
        SegmentFault::Damaged(error) => damaged(path, &error),
        SegmentFault::Another => BackupError::Damaged {
            detail: format!(
                "{} is not the file that its manifest names; restore it or an earlier backup",
                path.display()
            ),
        },
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

    fn fill(&mut self) -> Result<(), SegmentFault> {
        let file = &self.source.file;
        self.taken = 0;
        self.buffer.clear();
        if self.read < file.outline.table {
            file.read_blocks(&self.checksums, self.read, &mut self.buffer)?;
        } else if self.read < file.outline.file_bytes {
            self.buffer.extend_from_slice(&file.table);
        }
        self.read += self.buffer.len() as u64;
        Ok(())
    }
}

impl Read for Passing<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.buffer.len()
            && let Err(fault) = self.fill()
        {
            self.taken = self.buffer.len();
            self.fault = Some(wrong_with(&self.source.path, fault));
            return Err(io::ErrorKind::InvalidData.into());
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
