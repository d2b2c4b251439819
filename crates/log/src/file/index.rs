//! Where the records of one file are: by stream, and by number.
//!
//! The active file's index is kept in memory as it is written. A sealed file's stands beside it in
//! `<first-seq>.idx`; it is derived, so it is checked (checksums, and that it fits the log file)
//! whenever it is used, and built anew from the log file when it is absent or wrong. A lookup reads
//! the index's directory and the places of one stream, nothing else.
//!
//! ```text
//! header (64) | samples (16 each) | streams (32 each) | places (16 each), stream after stream
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::Stream;
use crate::disk::{Access, Disk, File, read_exact_at};
use crate::frame::{FRAMES_BEGIN, u32_at, u64_at};

const MAGIC: [u8; 8] = *b"arrwidx\n";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;
const PLACE_BYTES: usize = 16;
const STREAM_BYTES: usize = 32;
/// Every so many bytes of the log file one record's place is sampled, for reading from a number on.
const SAMPLE_BYTES: u64 = 64 << 10;

/// Where a record begins.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) seq: u64,
    pub(super) offset: u64,
}

/// The log file that an index belongs to.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Extent {
    pub(super) first: u64,
    /// The highest number in the file.
    pub(super) last: u64,
    /// Where its data ends.
    pub(super) end: u64,
    pub(super) salt: u64,
}

/// The index of one file, whole, in memory.
#[derive(Debug, Default)]
pub(super) struct Index {
    streams: BTreeMap<Stream, Vec<Place>>,
    samples: Vec<Place>,
}

impl Index {
    /// Adds the next record. Numbers and offsets increase.
    pub(super) fn add(&mut self, stream: Stream, place: Place) {
        self.streams.entry(stream).or_default().push(place);
        if self.samples.last().is_none_or(|last| place.offset >= last.offset + SAMPLE_BYTES) {
            self.samples.push(place);
        }
    }

    /// Places of a stream's records above `after`, in order.
    pub(super) fn places(&self, stream: Stream, after: u64) -> Vec<Place> {
        let places = self.streams.get(&stream).map_or(&[][..], Vec::as_slice);
        places[places.partition_point(|place| place.seq <= after)..].to_vec()
    }

    /// An offset at or before the first record above `after`, where a record begins.
    pub(super) fn floor(&self, after: u64) -> u64 {
        floor(&self.samples, after)
    }

    fn encode(&self, extent: &Extent) -> Vec<u8> {
        let directory_bytes = self.samples.len() * PLACE_BYTES + self.streams.len() * STREAM_BYTES;
        let mut places_begin = (HEADER_BYTES + directory_bytes) as u64;
        let mut directory = Vec::with_capacity(directory_bytes);
        let mut places = Vec::new();
        put_places(&mut directory, &self.samples);
        for (stream, of_stream) in &self.streams {
            let begin = places.len();
            put_places(&mut places, of_stream);
            directory.extend_from_slice(&stream.0);
            directory.extend_from_slice(&places_begin.to_le_bytes());
            directory.extend_from_slice(&count(of_stream.len()).to_le_bytes());
            directory.extend_from_slice(&crc32c::crc32c(&places[begin..]).to_le_bytes());
            places_begin += (places.len() - begin) as u64;
        }
        let mut bytes = Vec::with_capacity(HEADER_BYTES + directory.len() + places.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&count(self.streams.len()).to_le_bytes());
        for field in [extent.first, extent.last, extent.end, extent.salt] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(&count(self.samples.len()).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&directory).to_le_bytes());
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        assert!(bytes.len() == HEADER_BYTES, "the index header is as long as declared");
        bytes.extend_from_slice(&directory);
        bytes.extend_from_slice(&places);
        bytes
    }

    /// Whether the file holds exactly this index.
    pub(super) fn is_at(&self, disk: &dyn Disk, path: &Path, extent: &Extent) -> io::Result<bool> {
        let file = disk.open(path, Access::Read)?;
        let wanted = self.encode(extent);
        if file.length()? != wanted.len() as u64 {
            return Ok(false);
        }
        let mut found = vec![0; wanted.len()];
        read_exact_at(&*file, &mut found, 0)?;
        Ok(found == wanted)
    }

    /// Writes the index beside its log file. It is not synced: a torn one is found out and rebuilt.
    pub(super) fn write(&self, disk: &dyn Disk, path: &Path, extent: &Extent) -> io::Result<()> {
        let unfinished = path.with_extension("idx.new");
        match disk.remove(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let file = disk.create(&unfinished)?;
        file.write_all_at(&self.encode(extent), 0)?;
        disk.rename(&unfinished, path)
    }
}

fn put_places(out: &mut Vec<u8>, places: &[Place]) {
    for place in places {
        out.extend_from_slice(&place.seq.to_le_bytes());
        out.extend_from_slice(&place.offset.to_le_bytes());
    }
}

/// A file has fewer records than a u32 counts: each takes 48 bytes of a file that a group (some
/// tens of megabytes) may overrun. Should one not, the index reads as wrong and is rebuilt.
fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn floor(samples: &[Place], after: u64) -> u64 {
    let above = samples.partition_point(|place| place.seq <= after);
    above.checked_sub(1).map_or(FRAMES_BEGIN, |at| samples[at].offset)
}

/// A sealed file's index on disk, its header and directory checked.
#[derive(Debug)]
pub(super) struct Sidecar {
    file: Arc<dyn File>,
    extent: Extent,
    samples: Vec<Place>,
    /// `STREAM_BYTES` each, sorted by stream.
    streams: Vec<u8>,
}

impl Sidecar {
    /// `None` when there is no usable index here.
    pub(super) fn open(disk: &dyn Disk, path: &Path) -> io::Result<Option<Self>> {
        let file = match disk.open(path, Access::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = file.length()?;
        let mut header = [0; HEADER_BYTES];
        if length < HEADER_BYTES as u64 {
            return Ok(None);
        }
        read_exact_at(&*file, &mut header, 0)?;
        let whole = header[0..8] == MAGIC
            && u32_at(&header, 8) == VERSION
            && crc32c::crc32c(&header[..56]) == u32_at(&header, 56);
        let stream_count = u32_at(&header, 12) as usize;
        let sample_count = u32_at(&header, 48) as usize;
        // Products of two u32-sized numbers and small constants: no overflow in 64 bits.
        let directory_bytes = sample_count * PLACE_BYTES + stream_count * STREAM_BYTES;
        if !whole || (HEADER_BYTES + directory_bytes) as u64 > length {
            return Ok(None);
        }
        let mut directory = vec![0; directory_bytes];
        read_exact_at(&*file, &mut directory, HEADER_BYTES as u64)?;
        if crc32c::crc32c(&directory) != u32_at(&header, 52) {
            return Ok(None);
        }
        let extent = Extent {
            first: u64_at(&header, 16),
            last: u64_at(&header, 24),
            end: u64_at(&header, 32),
            salt: u64_at(&header, 40),
        };
        let streams = directory.split_off(sample_count * PLACE_BYTES);
        let samples = get_places(&directory);
        Ok(Some(Self { file, extent, samples, streams }))
    }

    pub(super) fn extent(&self) -> &Extent {
        &self.extent
    }

    /// As [`Index::floor`].
    pub(super) fn floor(&self, after: u64) -> u64 {
        floor(&self.samples, after)
    }

    /// As [`Index::places`]; `None` when they cannot be trusted.
    pub(super) fn places(&self, stream: Stream, after: u64) -> io::Result<Option<Vec<Place>>> {
        let (entries, _) = self.streams.as_chunks::<STREAM_BYTES>();
        let Ok(at) = entries.binary_search_by(|entry| entry[..16].cmp(&stream.0[..])) else {
            return Ok(Some(Vec::new()));
        };
        let entry = &entries[at];
        let (begin, count) = (u64_at(entry, 16), u32_at(entry, 24) as usize);
        let end = begin.saturating_add((count * PLACE_BYTES) as u64);
        if end > self.file.length()? {
            return Ok(None);
        }
        let mut bytes = vec![0; count * PLACE_BYTES];
        read_exact_at(&*self.file, &mut bytes, begin)?;
        if crc32c::crc32c(&bytes) != u32_at(entry, 28) {
            return Ok(None);
        }
        let mut places = get_places(&bytes);
        places.drain(..places.partition_point(|place| place.seq <= after));
        Ok(Some(places))
    }
}

fn get_places(bytes: &[u8]) -> Vec<Place> {
    let (places, _) = bytes.as_chunks::<PLACE_BYTES>();
    places.iter().map(|bytes| Place { seq: u64_at(bytes, 0), offset: u64_at(bytes, 8) }).collect()
}
