//! What the targets share: checksums made right for any bytes, so that what lies behind them is
//! reached.

use std::sync::Arc;

use arrwdb_state::FileBytes;

/// Bytes with their CRC-32C behind them.
pub fn sealed(body: &[u8]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    bytes.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    bytes
}

/// A segment file with right checksums, where its shape allows it.
pub fn segment(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let Some(field) = bytes.get(64..72).and_then(|field| field.try_into().ok()) else {
        return bytes;
    };
    if bytes.len() < 256 {
        return bytes;
    }
    let (checksums, end) = (u64::from_le_bytes(field), bytes.len());
    if let Ok(checksums) = usize::try_from(checksums)
        && (256..=end).contains(&checksums)
    {
        let blocks: Vec<u8> = bytes[256..checksums]
            .chunks(64 << 10)
            .flat_map(|block| crc32c::crc32c(block).to_le_bytes())
            .collect();
        let room = blocks.len().min(end - checksums);
        bytes[checksums..checksums + room].copy_from_slice(&blocks[..room]);
        let table = crc32c::crc32c(&bytes[checksums..]);
        bytes[248..252].copy_from_slice(&table.to_le_bytes());
    }
    let header = crc32c::crc32c(&bytes[..252]);
    bytes[252..256].copy_from_slice(&header.to_le_bytes());
    bytes
}

/// A log file with these frames behind a good header, each frame's checksums made right.
pub fn log_file(frames: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[0..8].copy_from_slice(b"arrwlog\n");
    bytes[8..12].copy_from_slice(&1_u32.to_le_bytes());
    bytes[16..24].copy_from_slice(&1_u64.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    let seed = crc32c::crc32c(&[0; 8]);
    bytes.extend_from_slice(frames);
    let mut at = 64;
    while let Some(frame) = bytes.get_mut(at..).filter(|frame| frame.len() >= 48) {
        let Some(length) = frame.first_chunk().map(|field| u32::from_le_bytes(*field)) else { break };
        let length = length as usize;
        if !(48..=frame.len()).contains(&length) {
            break;
        }
        let frame = &mut frame[..length];
        let over_length = crc32c::crc32c_append(seed, &frame[0..4]);
        let over_kind = crc32c::crc32c_append(over_length, &frame[8..10]);
        let [a, b, c, d] = crc32c::crc32c_append(over_kind, &frame[12..48]).to_le_bytes();
        frame[10..12].copy_from_slice(&[a ^ c, b ^ d]);
        let crc = crc32c::crc32c_append(over_length, &frame[8..]);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        at += length.next_multiple_of(8);
    }
    bytes
}

/// An index file with the checksum of its header, and of its directory, made right.
pub fn log_index(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if bytes.len() < 64 {
        return bytes;
    }
    let count = |at: usize| {
        let field = bytes.get(at..at + 4).and_then(|field| field.try_into().ok());
        field.map_or(0, u32::from_le_bytes) as usize
    };
    let directory = 64 + count(48) * 16 + count(12) * 32;
    if directory <= bytes.len() {
        let crc = crc32c::crc32c(&bytes[64..directory]);
        bytes[52..56].copy_from_slice(&crc.to_le_bytes());
    }
    let crc = crc32c::crc32c(&bytes[..56]);
    bytes[56..60].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// A file held in memory, aligned as a mapping is.
#[derive(Debug)]
pub struct Held(Vec<u64>, usize);

impl Held {
    /// Holds these bytes.
    pub fn new(bytes: &[u8]) -> Arc<Self> {
        let word = |chunk: &[u8]| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        };
        Arc::new(Self(bytes.chunks(8).map(word).collect(), bytes.len()))
    }
}

impl FileBytes for Held {
    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.0)[..self.1]
    }

    fn name(&self) -> &'static str {
        "held.seg"
    }
}
