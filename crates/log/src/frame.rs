//! The bytes of a log file: its header and its frames, encoded and decoded.
//!
//! ```text
//! file   header (64) | frame | frame | ... | zeros (space allocated ahead)
//! frame  header (48) | payload | zeros up to a multiple of 8
//! ```
//!
//! All integers are little-endian; the tables are in `docs/format/log.md`. A frame's checksum is
//! seeded with the file's salt, so that neither a payload nor a frame of another file passes for a
//! frame of this one. A frame's `group` is the offset at which its group begins: everything below
//! it was durable before any byte of the frame was written. That is what tells damage from a torn
//! tail (see `scan`).

use crate::{FRAME_BYTES_MAX, Stream};

/// Bytes of a file's header.
pub(crate) const FILE_HEADER_BYTES: usize = 64;
/// Bytes of a frame's header.
pub(crate) const FRAME_HEADER_BYTES: usize = 48;
/// Where the first frame begins.
pub(crate) const FRAMES_BEGIN: u64 = FILE_HEADER_BYTES as u64;
/// Frames begin at multiples of this.
pub(crate) const ALIGNMENT: usize = 8;
/// Largest frame, without padding.
pub(crate) const FRAME_LENGTH_MAX: usize = FRAME_HEADER_BYTES + FRAME_BYTES_MAX;

const MAGIC: [u8; 8] = *b"arrwlog\n";
const FILE_VERSION: u32 = 1;
const FRAME_VERSION: u8 = 1;

const _: () = assert!(FILE_HEADER_BYTES.is_multiple_of(ALIGNMENT));
const _: () = assert!(FRAME_HEADER_BYTES.is_multiple_of(ALIGNMENT));

/// The header of a log file.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct FileHeader {
    /// The number of its first record, as in its name.
    pub(crate) first: u64,
    /// The highest number before the file; ties the files into a chain.
    pub(crate) previous: u64,
    /// Goes into the checksum of every frame.
    pub(crate) salt: u64,
}

/// Why a file's header cannot be used.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum HeaderFault {
    Damaged(&'static str),
    Newer(u32),
}

impl FileHeader {
    pub(crate) fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut bytes = [0; FILE_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FILE_VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.previous.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; FILE_HEADER_BYTES]) -> Result<Self, HeaderFault> {
        if bytes[0..8] != MAGIC {
            return Err(HeaderFault::Damaged("the file does not begin as a log file"));
        }
        if crc32c::crc32c(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(HeaderFault::Damaged("the file header's checksum is wrong"));
        }
        let version = u32_at(bytes, 8);
        if version > FILE_VERSION {
            return Err(HeaderFault::Newer(version));
        }
        let header =
            Self { first: u64_at(bytes, 16), previous: u64_at(bytes, 24), salt: u64_at(bytes, 32) };
        if version != FILE_VERSION || header.first <= header.previous {
            return Err(HeaderFault::Damaged("the file header contradicts itself"));
        }
        Ok(header)
    }

    /// What the checksum of this file's frames starts from.
    pub(crate) fn seed(&self) -> u32 {
        crc32c::crc32c(&self.salt.to_le_bytes())
    }
}

/// What a frame is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A whole record.
    Whole,
    /// A part of a record; its commit follows the last.
    Part,
    /// The end of a record in parts: how many, and their bytes together (u64 payload).
    Commit,
    /// No record: says that all before it is durable and which number was the last given out.
    Mark,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Whole => 1,
            Self::Part => 2,
            Self::Commit => 3,
            Self::Mark => 4,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Whole),
            2 => Some(Self::Part),
            3 => Some(Self::Commit),
            4 => Some(Self::Mark),
            _ => None,
        }
    }
}

/// The header of a frame, without length and checksum.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct FrameHeader {
    pub(crate) kind: Kind,
    /// Of a part: its place, from 0. Of a commit: how many parts. Else 0.
    pub(crate) part: u32,
    pub(crate) seq: u64,
    /// Offset at which the frame's group begins.
    pub(crate) group: u64,
    pub(crate) stream: Stream,
}

/// Why bytes are not a frame.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum FrameFault {
    /// The length field is zero: nothing was written here.
    Absent,
    /// The frame would run past the end of the file.
    Short,
    /// The length cannot be.
    Length,
    /// The checksum, or the padding, is wrong.
    Checksum,
    /// A whole frame of a newer format.
    Newer(u8),
    /// A whole frame that no writer writes, here or at all.
    Impossible(&'static str),
}

impl FrameFault {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Absent => "a frame is missing (its length is zero)",
            Self::Short => "the file ends within a frame",
            Self::Length => "a frame's length is impossible",
            Self::Checksum => "a frame's checksum is wrong",
            Self::Newer(_) => "a frame has a newer format",
            Self::Impossible(reason) => reason,
        }
    }
}

/// Bytes a frame takes in the file, padding included.
pub(crate) const fn framed(payload_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + payload_bytes).next_multiple_of(ALIGNMENT)
}

/// Bytes a record takes in the file.
pub(crate) const fn record_framed(payload_bytes: usize) -> usize {
    if payload_bytes <= FRAME_BYTES_MAX {
        return framed(payload_bytes);
    }
    let whole_parts = payload_bytes / FRAME_BYTES_MAX;
    let rest = payload_bytes % FRAME_BYTES_MAX;
    let rest = if rest == 0 { 0 } else { framed(rest) };
    whole_parts * framed(FRAME_BYTES_MAX) + rest + framed(size_of::<u64>())
}

/// Appends a frame to `out`; `fill` appends its payload, at most [`FRAME_BYTES_MAX`] bytes.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    seed: u32,
    header: &FrameHeader,
    fill: impl FnOnce(&mut Vec<u8>),
) {
    let begin = out.len();
    out.resize(begin + FRAME_HEADER_BYTES, 0);
    fill(out);
    let frame = &mut out[begin..];
    assert!(frame.len() <= FRAME_LENGTH_MAX, "a frame holds at most FRAME_BYTES_MAX");
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    frame[0..4].copy_from_slice(&length.to_le_bytes());
    frame[8] = FRAME_VERSION;
    frame[9] = header.kind.code();
    frame[12..16].copy_from_slice(&header.part.to_le_bytes());
    frame[16..24].copy_from_slice(&header.seq.to_le_bytes());
    frame[24..32].copy_from_slice(&header.group.to_le_bytes());
    frame[32..48].copy_from_slice(&header.stream.0);
    let check = header_check(seed, frame);
    frame[10..12].copy_from_slice(&check.to_le_bytes());
    let crc = checksum(seed, frame);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    out.resize(begin + (out.len() - begin).next_multiple_of(ALIGNMENT), 0);
}

/// The length of the frame that begins with these bytes, from its length field alone, padding not
/// included.
pub(crate) fn length(header: &[u8; FRAME_HEADER_BYTES]) -> Result<usize, FrameFault> {
    match usize::try_from(u32_at(header, 0)) {
        Ok(0) => Err(FrameFault::Absent),
        Ok(length) if (FRAME_HEADER_BYTES..=FRAME_LENGTH_MAX).contains(&length) => Ok(length),
        Ok(_) | Err(_) => Err(FrameFault::Length),
    }
}

/// Whether these bytes could be a frame's header: a cheap test for searching, which one offset in
/// 65,536 passes by chance.
pub(crate) fn plausible(header: &[u8; FRAME_HEADER_BYTES], seed: u32) -> bool {
    length(header).is_ok() && header[10..12] == header_check(seed, header).to_le_bytes()
}

/// Decodes a frame from exactly its bytes, padding included.
pub(crate) fn decode(frame: &[u8], seed: u32) -> Result<(FrameHeader, &[u8]), FrameFault> {
    let Some(header) = frame.first_chunk::<FRAME_HEADER_BYTES>() else {
        return Err(FrameFault::Short);
    };
    let length = length(header)?;
    let (Some(body), Some(padding)) = (frame.get(..length), frame.get(length..)) else {
        return Err(FrameFault::Short);
    };
    if checksum(seed, body) != u32_at(header, 4) || padding.iter().any(|&byte| byte != 0) {
        return Err(FrameFault::Checksum);
    }
    if header[8] != FRAME_VERSION {
        return Err(FrameFault::Newer(header[8]));
    }
    let Some(kind) = Kind::from_code(header[9]) else {
        return Err(FrameFault::Impossible("a frame's kind is unknown"));
    };
    let mut stream = [0; 16];
    stream.copy_from_slice(&header[32..48]);
    let decoded = FrameHeader {
        kind,
        part: u32_at(header, 12),
        seq: u64_at(header, 16),
        group: u64_at(header, 24),
        stream: Stream(stream),
    };
    Ok((decoded, &body[FRAME_HEADER_BYTES..]))
}

/// Over the length, everything after the checksum, and the file's salt.
fn checksum(seed: u32, frame: &[u8]) -> u32 {
    let over_length = crc32c::crc32c_append(seed, &frame[0..4]);
    crc32c::crc32c_append(over_length, &frame[8..])
}

/// Over the header's fields. Without it, searching would have to sum up to a megabyte at every offset
/// that happens to begin like a length, and a payload could be made of such offsets.
fn header_check(seed: u32, frame: &[u8]) -> u16 {
    let over_length = crc32c::crc32c_append(seed, &frame[0..4]);
    let over_kind = crc32c::crc32c_append(over_length, &frame[8..10]);
    let [a, b, c, d] =
        crc32c::crc32c_append(over_kind, &frame[12..FRAME_HEADER_BYTES]).to_le_bytes();
    u16::from_le_bytes([a ^ c, b ^ d])
}

/// A little-endian u32. The caller's slice is long enough.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

/// A little-endian u64. The caller's slice is long enough.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}
