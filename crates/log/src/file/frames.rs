//! Writing records as frames, gathered into large writes.

use std::io;

use bytes::Bytes;

use crate::disk::File;
use crate::frame::{self, FrameHeader, Kind};
use crate::{FRAME_BYTES_MAX, Stream};

/// Bytes of frames gathered before they are written to the file.
const WRITE_BYTES: usize = 1 << 20;

/// Frames of one group on their way to the file.
#[derive(Debug)]
pub(crate) struct Frames<'a> {
    file: &'a dyn File,
    buffer: Vec<u8>,
    /// Where the buffer will be written.
    written: u64,
    group: u64,
    seed: u32,
}

impl<'a> Frames<'a> {
    /// A group that begins at `group`. `buffer` is only lent, for its capacity.
    pub(crate) fn new(file: &'a dyn File, seed: u32, group: u64, buffer: Vec<u8>) -> Self {
        Self { file, buffer, written: group, group, seed }
    }

    /// Where the next frame begins.
    pub(crate) fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Writes a record of so many parts, in as many frames as it takes.
    pub(crate) fn record(&mut self, seq: u64, stream: Stream, payload: &[Bytes]) -> io::Result<()> {
        let bytes: usize = payload.iter().map(Bytes::len).sum();
        let mut source = Source { parts: payload, begin: 0 };
        let mut header = FrameHeader { kind: Kind::Whole, part: 0, seq, group: self.group, stream };
        if bytes <= FRAME_BYTES_MAX {
            return self.frame(&header, |out| source.take(bytes, out));
        }
        header.kind = Kind::Part;
        let mut left = bytes;
        while left > 0 {
            let taken = left.min(FRAME_BYTES_MAX);
            self.frame(&header, |out| source.take(taken, out))?;
            left -= taken;
            header.part += 1;
        }
        header.kind = Kind::Commit;
        let total = (bytes as u64).to_le_bytes();
        self.frame(&header, |out| out.extend_from_slice(&total))
    }

    /// Writes what is gathered; returns the end and the buffer.
    pub(crate) fn finish(mut self) -> (io::Result<u64>, Vec<u8>) {
        let result = self.flush().map(|()| self.written);
        self.buffer.clear();
        (result, self.buffer)
    }

    fn frame(&mut self, header: &FrameHeader, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        frame::encode(&mut self.buffer, self.seed, header, fill);
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.file.write_all_at(&self.buffer, self.written)?;
        }
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// The parts of a payload, taken from the front.
struct Source<'a> {
    parts: &'a [Bytes],
    /// Bytes of the first part already taken.
    begin: usize,
}

impl Source<'_> {
    fn take(&mut self, mut bytes: usize, out: &mut Vec<u8>) {
        while let Some((part, rest)) = self.parts.split_first() {
            let left = &part[self.begin..];
            let taken = left.len().min(bytes);
            out.extend_from_slice(&left[..taken]);
            bytes -= taken;
            self.begin += taken;
            if self.begin < part.len() {
                return;
            }
            (self.parts, self.begin) = (rest, 0);
        }
    }
}
