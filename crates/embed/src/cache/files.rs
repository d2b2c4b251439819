//! The cache's two files: vectors that outlive the process.
//!
//! ```text
//! file   = magic "ARRWEMB1" , entry*
//! entry  = marker u32 | values u32 | key 32 bytes | f32 * values | crc32c u32     little-endian
//! ```
//!
//! New entries are appended to the young file. When it holds half of the allowed bytes, the old
//! file is dropped, the young one becomes the old one, and a new young one is begun: so both
//! together never exceed the bound, and what was not used for a whole round is forgotten. The
//! checksum covers the entry from its marker to its last value and is checked whenever an entry
//! is read. Nothing is ever synced: a lost or torn entry is a miss. What does not read back
//! as it was written is ignored, and a file that makes no sense is begun anew.
//!
//! One thread writes; reading happens on whichever thread asks.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::CacheKey;
use crate::models::DIMENSION_MAX;

pub(super) const MAGIC: &[u8; 8] = b"ARRWEMB1";
const MARKER: u32 = 0x5645_4331;
pub(super) const HEAD_BYTES: usize = 40;
const CRC_BYTES: usize = 4;

/// The most bytes of one entry.
pub(crate) const ENTRY_BYTES_MAX: u64 =
    (HEAD_BYTES + 4 * DIMENSION_MAX as usize + CRC_BYTES) as u64;

const YOUNG: &str = "embeddings-young.bin";
const OLD: &str = "embeddings-old.bin";

/// The names of the cache's files.
pub const FILE_NAMES: [&str; 2] = [YOUNG, OLD];

/// Entries of one file: bounds what their index takes in memory, which for tiny vectors would be
/// more than the file.
const ENTRIES_MAX: usize = 1 << 18;

/// One file and where its entries are. Locks on it are never held while the disk works, for the
/// runtime's threads take them too.
#[derive(Debug)]
struct Segment {
    file: Arc<File>,
    /// First byte and number of values of each entry.
    entries: HashMap<CacheKey, (u64, u32)>,
    bytes: u64,
}

/// Both files, for readers.
#[derive(Debug)]
pub(crate) struct Files {
    dir: PathBuf,
    /// Of one file: half of what both may take.
    segment_bytes_max: u64,
    /// Of one file.
    entries_max: usize,
    pair: RwLock<Pair>,
    bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Pair {
    young: Option<Arc<RwLock<Segment>>>,
    old: Option<Arc<RwLock<Segment>>>,
}

/// An entry as it was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) vector: Vec<f32>,
    /// It is in the old file and will be forgotten unless it is written again.
    pub(crate) is_old: bool,
}

impl Files {
    /// Files in `dir` of at most `bytes_max` together. Nothing is read before [`Files::load`].
    pub(crate) fn new(dir: &Path, bytes_max: u64) -> Files {
        Files {
            dir: dir.to_owned(),
            segment_bytes_max: bytes_max / 2,
            entries_max: ENTRIES_MAX,
            pair: RwLock::default(),
            bytes: AtomicU64::new(0),
        }
    }

    /// Reads which entries there are. Until it returns, every look-up is a miss.
    pub(crate) fn load(&self) -> io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        let open =
            |name| Segment::open(&self.dir.join(name), self.segment_bytes_max, self.entries_max);
        let (old, young) = (open(OLD)?, open(YOUNG)?);
        self.bytes.store(old.bytes + young.bytes, Ordering::Relaxed);
        *self.pair.write() = Pair {
            young: Some(Arc::new(RwLock::new(young))),
            old: Some(Arc::new(RwLock::new(old))),
        };
        Ok(())
    }

    /// Where the files are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Bytes of both files.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether an entry is known, without reading it.
    pub(crate) fn has(&self, key: &CacheKey) -> bool {
        let pair = self.pair.read();
        [&pair.young, &pair.old]
            .into_iter()
            .flatten()
            .any(|segment| segment.read().entries.contains_key(key))
    }

    /// Reads an entry of `dimension` values. Damage is a miss, after which the entry is unknown
    /// and can be written again.
    pub(crate) fn get(&self, key: &CacheKey, dimension: u32) -> Option<Found> {
        let (young, old) = {
            let pair = self.pair.read();
            (pair.young.clone(), pair.old.clone())
        };
        let find = |segment: Option<Arc<RwLock<Segment>>>| {
            let segment = segment?;
            let place = segment.read().place(key);
            let (file, at, values) = place?;
            let found = (values == dimension).then(|| read(&file, key, at, values)).flatten();
            if found.is_none() {
                segment.write().entries.remove(key);
            }
            found
        };
        if let Some(vector) = find(young) {
            return Some(Found { vector, is_old: false });
        }
        Some(Found { vector: find(old)?, is_old: true })
    }

    /// Appends an entry unless the young file has it. Called by one thread only.
    pub(crate) fn append(&self, key: &CacheKey, vector: &[f32]) -> io::Result<()> {
        let entry = encode(key, vector);
        let length = u64::try_from(entry.len()).unwrap_or(u64::MAX);
        let Some(young) = self.pair.read().young.clone() else { return Ok(()) };
        if young.read().entries.contains_key(key) {
            return Ok(());
        }
        let full = {
            let young = young.read();
            young.bytes + length > self.segment_bytes_max || young.entries.len() >= self.entries_max
        };
        let young = if full { self.rotate()? } else { young };
        // The index learns of the entry after its bytes are there; readers are not held up by
        // the write itself.
        let (file, at) = {
            let young = young.read();
            (Arc::clone(&young.file), young.bytes)
        };
        file.write_all_at(&entry, at)?;
        let values = u32::try_from(vector.len()).unwrap_or(u32::MAX);
        let mut segment = young.write();
        segment.entries.insert(*key, (at, values));
        segment.bytes = at + length;
        drop(segment);
        self.bytes.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }

    /// Begins both files anew; the bytes that they held. Called by the one thread that writes.
    pub(crate) fn clear(&self) -> io::Result<u64> {
        // Nobody finds an entry while its bytes go.
        *self.pair.write() = Pair::default();
        let held = self.bytes();
        let (old, young) =
            (Segment::create(&self.dir.join(OLD))?, Segment::create(&self.dir.join(YOUNG))?);
        self.bytes.store(old.bytes + young.bytes, Ordering::Relaxed);
        *self.pair.write() = Pair {
            young: Some(Arc::new(RwLock::new(young))),
            old: Some(Arc::new(RwLock::new(old))),
        };
        Ok(held)
    }

    /// Drops the old file and begins a new young one.
    fn rotate(&self) -> io::Result<Arc<RwLock<Segment>>> {
        let (young_path, old_path) = (self.dir.join(YOUNG), self.dir.join(OLD));
        std::fs::rename(&young_path, &old_path)?;
        let young = Arc::new(RwLock::new(Segment::create(&young_path)?));
        let mut pair = self.pair.write();
        pair.old = pair.young.replace(Arc::clone(&young));
        let kept = pair.old.as_ref().map_or(0, |old| old.read().bytes);
        drop(pair);
        self.bytes.store(kept + young.read().bytes, Ordering::Relaxed);
        Ok(young)
    }
}

impl Segment {
    /// Opens or creates a file; one that is not ours, or larger than allowed, is begun anew.
    fn open(path: &Path, bytes_max: u64, entries_max: usize) -> io::Result<Segment> {
        let opened = OpenOptions::new().read(true).write(true).open(path);
        match opened {
            Ok(file) => match Segment::scan(file, bytes_max, entries_max)? {
                Some(segment) => Ok(segment),
                None => Segment::create(path),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Segment::create(path),
            Err(error) => Err(error),
        }
    }

    fn create(path: &Path) -> io::Result<Segment> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(true).open(path)?;
        file.write_all(MAGIC)?;
        let bytes = u64::try_from(MAGIC.len()).unwrap_or(u64::MAX);
        Ok(Segment { file: Arc::new(file), entries: HashMap::new(), bytes })
    }

    /// Walks over the entries' heads. What follows the last sensible one is overwritten later.
    fn scan(file: File, bytes_max: u64, entries_max: usize) -> io::Result<Option<Segment>> {
        let length = file.metadata()?.len();
        let mut reader = BufReader::with_capacity(1 << 16, &file);
        let mut magic = [0; MAGIC.len()];
        if length > bytes_max || !fill(&mut reader, &mut magic)? || magic != *MAGIC {
            return Ok(None);
        }
        let mut entries = HashMap::new();
        let mut at = u64::try_from(MAGIC.len()).unwrap_or(u64::MAX);
        let mut head = [0; HEAD_BYTES];
        while entries.len() < entries_max && fill(&mut reader, &mut head)? {
            let Some((key, values)) = decode_head(&head) else { break };
            let rest = 4 * i64::from(values) + 4;
            let end = at + entry_bytes(values);
            if end > length {
                break;
            }
            reader.seek_relative(rest)?;
            entries.insert(key, (at, values));
            at = end;
        }
        drop(reader);
        // Cut off what makes no sense, so that no stale entry can follow a new one.
        file.set_len(at)?;
        Ok(Some(Segment { file: Arc::new(file), entries, bytes: at }))
    }

    /// Where an entry is, and its number of values.
    fn place(&self, key: &CacheKey) -> Option<(Arc<File>, u64, u32)> {
        let &(at, values) = self.entries.get(key)?;
        Some((Arc::clone(&self.file), at, values))
    }
}

/// The vector of an entry of so many values, if it reads back as it was written.
fn read(file: &File, key: &CacheKey, at: u64, values: u32) -> Option<Vec<f32>> {
    let mut entry = vec![0; usize::try_from(entry_bytes(values)).ok()?];
    file.read_exact_at(&mut entry, at).ok()?;
    decode(key, &entry)
}

/// Fills the buffer; false at the end of the file.
pub(super) fn fill(reader: &mut (impl io::Read + ?Sized), buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn entry_bytes(values: u32) -> u64 {
    40 + 4 * u64::from(values) + 4
}

fn encode(key: &CacheKey, vector: &[f32]) -> Vec<u8> {
    let mut entry = Vec::with_capacity(HEAD_BYTES + 4 * vector.len() + CRC_BYTES);
    entry.extend_from_slice(&MARKER.to_le_bytes());
    entry.extend_from_slice(&u32::try_from(vector.len()).unwrap_or(u32::MAX).to_le_bytes());
    entry.extend_from_slice(&key.0);
    for value in vector {
        entry.extend_from_slice(&value.to_le_bytes());
    }
    let crc = crc32c::crc32c(&entry);
    entry.extend_from_slice(&crc.to_le_bytes());
    entry
}

pub(super) fn decode_head(head: &[u8]) -> Option<(CacheKey, u32)> {
    let (marker, rest) = head.split_first_chunk::<4>()?;
    let (values, rest) = rest.split_first_chunk::<4>()?;
    let key = rest.first_chunk::<32>()?;
    let values = u32::from_le_bytes(*values);
    let sensible = u32::from_le_bytes(*marker) == MARKER && (1..=DIMENSION_MAX).contains(&values);
    sensible.then_some((CacheKey(*key), values))
}

/// The vector of a whole entry, if it is `key`'s and undamaged.
pub(super) fn decode(key: &CacheKey, entry: &[u8]) -> Option<Vec<f32>> {
    let (body, crc) = entry.split_last_chunk::<CRC_BYTES>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (found, values) = decode_head(body)?;
    let (floats, rest) = body.get(HEAD_BYTES..)?.as_chunks::<4>();
    let whole = found == *key && rest.is_empty() && u32::try_from(floats.len()) == Ok(values);
    whole.then(|| floats.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

#[cfg(test)]
mod tests;
