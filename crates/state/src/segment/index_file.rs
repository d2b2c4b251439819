//! What a segment is searched by beside its vectors, in a file of its own, version 2.
//!
//! ```text
//! the frame of what lies beside a segment (`beside`), with "ARRWIDX\0" and version 2
//! what the body is: text metric | index (as in the catalog)
//! body: the structure
//! ```
//!
//! It is derived from the segment and can be built again at any time.

use std::io::{self, Write};

use arrwdb_index::{Executor, IndexSpec, Metric, SectionReader, SectionWriter, SegmentIndex};

use super::beside::{BesideState, BesideSummary, Kind};
use super::file::HEADER_BYTES;
use super::{Damage, FileSegment, Segment};
use crate::codec::{DecodeError, Reader, Writer};
use crate::entry::{read_index, read_metric, write_index};

const KIND: Kind = Kind { magic: *b"ARRWIDX\0", version: 2 };

/// A structure with the segment that it is of.
#[derive(Debug)]
pub struct IndexFile;

impl IndexFile {
    /// Builds what `spec` asks for over a segment's rows. Reads all of them; refuses if one is
    /// damaged. `None` if the executor was stopped meanwhile.
    pub fn build(
        segment: &Segment,
        dimension: u32,
        spec: IndexSpec,
        metric: Metric,
        executor: &dyn Executor,
    ) -> Result<Option<SegmentIndex>, Damage> {
        let vectors = segment.random_access(dimension);
        let index = SegmentIndex::build(spec, metric, &vectors, executor);
        vectors.check()?;
        Ok(Some(index).filter(|_index| !executor.stopped()))
    }

    /// Writes a structure of `segment` after a place of 256 zeros for its header, which the
    /// summary holds.
    pub fn write(
        index: &SegmentIndex,
        segment: &FileSegment,
        metric: Metric,
        out: &mut dyn Write,
    ) -> io::Result<BesideSummary> {
        let mut spec = Writer::with_capacity(128);
        spec.text(metric.name());
        write_index(&mut spec, index.spec());
        KIND.write(segment, &spec.into_bytes(), out, |out| {
            index.write(&mut SectionWriter::new(out))
        })
    }

    /// Reads the file at `name` into memory: every checksum, then every link and offset. `None` if
    /// it belongs to another segment or metric, or an earlier version wrote it. O(bytes).
    pub fn read(
        bytes: &[u8],
        name: &str,
        segment: &FileSegment,
        metric: Metric,
    ) -> Result<Option<SegmentIndex>, Damage> {
        let read = Self::read_any(bytes, name, segment)?;
        Ok(read.ok().filter(|(its, _index)| *its == metric).map(|(_metric, index)| index))
    }

    /// Checks the file at `name` whole. O(bytes).
    pub fn verify(bytes: &[u8], name: &str, segment: &FileSegment) -> Result<BesideState, Damage> {
        let read = Self::read_any(bytes, name, segment)?;
        Ok(read.map_or_else(|state| state, |_index| BesideState::Whole))
    }

    /// The structure, and the metric that it is for; else what the file is.
    fn read_any(
        bytes: &[u8],
        name: &str,
        segment: &FileSegment,
    ) -> Result<Result<(Metric, SegmentIndex), BesideState>, Damage> {
        let damage =
            |offset: usize, what| Damage { file: name.to_owned(), offset: offset as u64, what };
        let read = |error: DecodeError| damage(error.offset, error.what);
        let outline = match KIND.open(bytes, segment).map_err(read)? {
            Ok(outline) => outline,
            Err(state) => return Ok(Err(state)),
        };
        let mut spec = Reader::at(bytes, HEADER_BYTES);
        let metric = read_metric(&mut spec).map_err(read)?;
        let spec = read_index(&mut spec).map_err(read)?;
        let structure = &bytes[outline.body..outline.checksums];
        let mut from = SectionReader::new(structure);
        let dims = outline.dimension as usize;
        SegmentIndex::read(&mut from, spec, metric, dims, outline.rows)
            .map(|index| Ok((metric, index)))
            .map_err(|error| damage(outline.body + error.offset, error.what))
    }
}
