//! Where a file's bytes go: a `.part` file, hashed as they arrive, renamed once they are proved
//! to be the pinned ones.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Lock, Pin, SourceError};

/// A pinned file on its way into its folder.
pub(super) struct Sink {
    pin: Pin,
    target: PathBuf,
    part: PathBuf,
    file: File,
    hasher: Sha256,
    bytes: u64,
    /// Nobody else writes here as long as this does.
    _lock: Lock,
}

/// The name of a file while it is on its way.
pub(super) fn part_of(pin: Pin) -> String {
    format!("{}.part", pin.name)
}

impl Sink {
    /// Starts over what an earlier attempt left.
    pub(super) fn create(dir: &Path, pin: Pin, lock: Lock) -> Result<Sink, SourceError> {
        let target = dir.join(pin.name);
        let part = dir.join(part_of(pin));
        let file = File::create(&part).map_err(|source| file_error(&part, source))?;
        Ok(Sink { pin, target, part, file, hasher: Sha256::new(), bytes: 0, _lock: lock })
    }

    /// Bytes that were written.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends; refuses more than the pinned size.
    pub(super) fn write(&mut self, piece: &[u8]) -> Result<(), SourceError> {
        self.bytes += piece.len() as u64;
        if self.bytes > self.pin.bytes {
            self.discard();
            return Err(self.differs(format!("{} bytes", self.pin.bytes), "more".to_owned()));
        }
        self.hasher.update(piece);
        self.file.write_all(piece).map_err(|source| {
            // The likeliest reason is a full disk, which must not stay full of this.
            self.discard();
            file_error(&self.part, source)
        })
    }

    fn discard(&self) {
        if let Err(error) = fs::remove_file(&self.part) {
            tracing::debug!(%error, "a part of a model file stays behind");
        }
    }

    /// Puts the file under its name, if it is the pinned one, and else removes it.
    pub(super) fn finish(self) -> Result<(), SourceError> {
        let found = hexadecimal(&self.hasher.clone().finalize());
        if self.bytes != self.pin.bytes || found != self.pin.sha256 {
            let expected = format!("{} bytes, SHA-256 {}", self.pin.bytes, self.pin.sha256);
            let found = format!("{} bytes, SHA-256 {found}", self.bytes);
            self.discard();
            return Err(self.differs(expected, found));
        }
        self.file.sync_all().map_err(|source| file_error(&self.part, source))?;
        fs::rename(&self.part, &self.target).map_err(|source| file_error(&self.target, source))
    }

    fn differs(&self, expected: String, found: String) -> SourceError {
        SourceError::Differs { file: self.pin.name.to_owned(), expected, found }
    }
}

pub(super) fn file_error(path: &Path, source: io::Error) -> SourceError {
    SourceError::File { path: path.to_owned(), source }
}

/// Copies all of `input`, which is `path`, into the pinned file, telling `advance` how many bytes
/// there are after each piece; what it refuses ends the copy.
pub(super) fn copy_all(
    mut input: impl Read,
    path: &Path,
    mut sink: Sink,
    advance: impl Fn(u64) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let count = input.read(&mut buffer).map_err(|source| file_error(path, source))?;
        if count == 0 {
            return sink.finish();
        }
        sink.write(&buffer[..count])?;
        advance(sink.bytes())?;
    }
}

/// SHA-256 of all of `input`, in lower-case hexadecimal.
pub(super) fn digest_of(mut input: impl Read) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let count = input.read(&mut buffer)?;
        if count == 0 {
            return Ok(hexadecimal(&hasher.finalize()));
        }
        hasher.update(&buffer[..count]);
    }
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
