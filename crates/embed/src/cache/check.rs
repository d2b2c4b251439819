//! Reading a cache's file through, for who checks a data directory.

use std::io::{self, Read};

use super::files::{ENTRY_BYTES_MAX, HEAD_BYTES, MAGIC, decode, decode_head, entry_bytes, fill};

/// What one of the cache's files holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheFile {
    /// Entries that read back as they were written.
    pub entries: u64,
    /// Where the first entry begins that does not; those behind it may be whole.
    pub damaged_at: Option<u64>,
}

/// Reads one of [`super::FILE_NAMES`] to its end. Memory is bounded by one entry.
pub fn check_file(mut from: &mut dyn Read) -> io::Result<CacheFile> {
    let mut found = CacheFile::default();
    let mut magic = [0; MAGIC.len()];
    if !fill(&mut from, &mut magic)? || magic != *MAGIC {
        found.damaged_at = Some(0);
        return Ok(found);
    }
    let mut at = MAGIC.len() as u64;
    let mut entry = Vec::with_capacity(usize::try_from(ENTRY_BYTES_MAX).unwrap_or(0));
    loop {
        entry.clear();
        let head_bytes = (&mut from).take(HEAD_BYTES as u64).read_to_end(&mut entry)?;
        if head_bytes == 0 {
            return Ok(found);
        }
        let Some((key, values)) = decode_head(&entry) else {
            found.damaged_at.get_or_insert(at);
            return Ok(found);
        };
        let length = entry_bytes(values);
        (&mut from).take(length - HEAD_BYTES as u64).read_to_end(&mut entry)?;
        if decode(&key, &entry).is_some() {
            found.entries += 1;
        } else {
            found.damaged_at.get_or_insert(at);
        }
        at += length;
    }
}
