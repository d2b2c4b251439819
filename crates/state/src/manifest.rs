//! The manifest: a library at one sequence number, as a list of segment files and what has died
//! in them. Version 2; version 3 where it has vector fields.
//!
//! ```text
//! text "arrwman" | u32 version = 2 | id 16 library | u32 dimension | u64 applied | u64 oldest
//! u64 documents | u64 chunks | u128 digest | u64 next segment number
//! u64 matched seq | u32 matched chunk | id 16 matched query (not in version 1)
//! u32 n, n * (u64 number | u64 file bytes | u32 header checksum | u32 rows | u32 documents
//!             u32 dead documents | u32 m, m * (u32 first row | u32 rows | u64 died))
//! version 3: u32 f, f * (field | u64 oldest | u64 documents | u64 vectors | u128 digest
//!            segments as above)
//! u32 CRC32C of all before
//! ```
//!
//! Version 1 has no `oldest`: nothing is known of what was before it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::catalog::{seal, unseal};
use crate::codec::{DecodeError, Reader, Writer};
use crate::field::FieldSpec;
use crate::ids::{LibraryId, Seq};
use crate::limits::{SEGMENT_ROWS_MAX, VECTOR_FIELDS_MAX};
use crate::liveness::Tombstones;
use crate::matched::MatchPosition;
use crate::recount::Totals;
use crate::segment::{FileSegment, Segment};
use crate::view::{Field, SegmentView, View};

const MAGIC: &str = "arrwman";
/// The version that is written; 1 said neither `oldest` nor anything of standing queries.
const VERSION: u32 = 2;
const VERSION_1: u32 = 1;
/// The version that is written where there are vector fields: earlier releases know nothing of them.
const FIELDS_VERSION: u32 = 3;

/// A library at one sequence number, before its files are opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Which library.
    pub library: LibraryId,
    /// Dimension of its vectors.
    pub dimension: u32,
    /// The last record that is in the files; replay goes on after it.
    pub applied: Seq,
    /// The first number of which the files can tell.
    oldest: Seq,
    /// No segment file of this number or a higher one is part of the library.
    pub next_segment: u64,
    /// The files, oldest rows first.
    pub segments: Vec<ManifestSegment>,
    /// Of a companion: how far passages were matched against its queries.
    pub matched: MatchPosition,
    /// Its vector fields, by name.
    pub fields: Vec<ManifestField>,
    totals: Totals,
}

/// A vector field of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestField {
    /// What it is.
    pub spec: Arc<FieldSpec>,
    /// Its files, oldest rows first.
    pub segments: Vec<ManifestSegment>,
    oldest: Seq,
    totals: Totals,
}

/// One file of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestSegment {
    /// Its number, which names its file.
    pub number: u64,
    /// Its size.
    pub file_bytes: u64,
    /// The checksum of its header, which stands for every byte of it.
    pub header_crc: u32,
    rows: u32,
    documents: u32,
    dead_documents: u32,
    tombstones: Tombstones,
}

/// Why a manifest and its files do not make a library.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The view has segments that are not in files.
    #[error("a segment is not in a file yet")]
    NotInFiles,
    /// A file is not the one that the manifest means.
    #[error("{file} is not the file that the manifest names; restore it or a backup")]
    WrongFile {
        /// Its path.
        file: String,
    },
}

impl Manifest {
    /// The manifest of a view all of whose segments are in files.
    pub fn of(view: &View, library: LibraryId, next_segment: u64) -> Result<Self, ManifestError> {
        let mut fields = Vec::with_capacity(view.fields.len());
        for Field { spec, view } in view.fields.values() {
            fields.push(ManifestField {
                spec: spec.clone(),
                segments: ManifestSegment::of(view)?,
                oldest: view.oldest,
                totals: view.totals(),
            });
        }
        Ok(Self {
            library,
            dimension: view.dimension,
            applied: view.applied,
            oldest: view.oldest,
            next_segment,
            segments: ManifestSegment::of(view)?,
            matched: view.matched,
            fields,
            totals: view.totals(),
        })
    }

    /// All its files: those of the library's own documents, then those of each vector field.
    pub fn all_segments(&self) -> impl Iterator<Item = &ManifestSegment> {
        self.segments.iter().chain(self.fields.iter().flat_map(|field| &field.segments))
    }

    /// Whether its files have rows of documents that died.
    pub fn has_dead_rows(&self) -> bool {
        self.all_segments().any(|segment| segment.dead_documents > 0)
    }

    /// The first number of which the library can tell: see [`View::oldest`].
    pub fn oldest(&self) -> Seq {
        self.fields.iter().map(|field| field.oldest).fold(self.oldest, Seq::max)
    }

    /// Live documents, live chunks, and the digest of both, without vector fields.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The library, given its opened files in the order of [`Manifest::all_segments`].
    pub fn open(self, files: Vec<FileSegment>) -> Result<View, ManifestError> {
        assert_eq!(files.len(), self.all_segments().count(), "one file for each segment");
        let mut files = files.into_iter();
        let mut part = |dimension, oldest, listed: Vec<ManifestSegment>, totals: Totals| {
            let mut view = View::empty(dimension);
            for (listed, file) in listed.into_iter().zip(files.by_ref()) {
                view.segments.push(listed.open(file, dimension)?);
            }
            (view.applied, view.oldest) = (self.applied, oldest);
            (view.documents, view.chunks) = (totals.documents, totals.chunks);
            view.digest = totals.digest;
            Ok(view)
        };
        let mut view = part(self.dimension, self.oldest, self.segments, self.totals)?;
        view.matched = self.matched;
        for ManifestField { spec, segments, oldest, totals } in self.fields {
            let of_field = Arc::new(part(spec.dimension, oldest, segments, totals)?);
            view.fields.insert(spec.name.clone(), Field { spec, view: of_field });
        }
        Ok(view)
    }

    /// What a manifest says that no writer writes, if anything; its checksum may be right.
    pub fn contradiction(&self) -> Option<&'static str> {
        let numbers: BTreeSet<u64> = self.all_segments().map(|segment| segment.number).collect();
        if numbers.len() < self.all_segments().count() {
            return Some("it names a segment twice");
        }
        if self.oldest() > self.applied {
            return Some("its past begins after its end");
        }
        let ahead = numbers.last().is_some_and(|last| *last >= self.next_segment);
        ahead.then_some("it names a segment that was not made yet")
    }

    /// The manifest's bytes.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(256 + self.segments.len() * 64);
        out.text(MAGIC);
        out.u32(if self.fields.is_empty() { VERSION } else { FIELDS_VERSION });
        out.id(self.library.to_bytes());
        out.u32(self.dimension);
        out.u64(self.applied.get());
        out.u64(self.oldest.get());
        self.totals.write(&mut out);
        out.u64(self.next_segment);
        self.matched.write(&mut out);
        ManifestSegment::write_all(&self.segments, &mut out);
        if !self.fields.is_empty() {
            out.count(self.fields.len());
        }
        for field in &self.fields {
            field.spec.write(&mut out);
            out.u64(field.oldest.get());
            field.totals.write(&mut out);
            ManifestSegment::write_all(&field.segments, &mut out);
        }
        seal(out)
    }

    /// Reads a manifest, checksum first.
    pub fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = unseal(bytes)?;
        let (magic, version) = (from.text("magic")?, from.u32("version")?);
        if magic != MAGIC || !(VERSION_1..=FIELDS_VERSION).contains(&version) {
            return Err(from.error("a manifest of a version this build knows"));
        }
        let library = LibraryId::new(from.uuid("library id")?);
        let dimension = from.u32("dimension")?;
        let applied = Seq::new(from.u64("applied sequence")?);
        let oldest = match version {
            VERSION_1 => applied,
            _ => Seq::new(from.u64("oldest sequence")?),
        };
        let totals = Totals::read(&mut from)?;
        let next_segment = from.u64("next segment")?;
        let matched =
            if version == 1 { MatchPosition::START } else { MatchPosition::read(&mut from)? };
        let segments = ManifestSegment::read_all(&mut from)?;
        let mut fields = Vec::new();
        if version >= FIELDS_VERSION {
            for _field in 0..from.count(80, "vector fields")? {
                fields.push(ManifestField::read(&mut from)?);
            }
            let ascend = fields.is_sorted_by(|one, next| one.spec.name < next.spec.name);
            if !ascend || fields.is_empty() || fields.len() > VECTOR_FIELDS_MAX {
                return Err(from.error("vector fields in the order of their names"));
            }
        }
        from.end()?;
        Ok(Self {
            library,
            dimension,
            applied,
            oldest,
            next_segment,
            segments,
            matched,
            fields,
            totals,
        })
    }
}

impl ManifestField {
    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            spec: Arc::new(FieldSpec::read(from)?),
            oldest: Seq::new(from.u64("oldest sequence")?),
            totals: Totals::read(from)?,
            segments: ManifestSegment::read_all(from)?,
        })
    }
}

impl ManifestSegment {
    /// Those of one part of a view.
    fn of(part: &View) -> Result<Vec<Self>, ManifestError> {
        let listed = part.segments.iter().map(|view| {
            let file = view.segment.file().ok_or(ManifestError::NotInFiles)?;
            Ok(Self {
                number: file.number(),
                file_bytes: file.file_bytes(),
                header_crc: file.header_crc(),
                rows: view.segment.rows(),
                documents: view.segment.documents(),
                dead_documents: view.dead_documents,
                tombstones: view.tombstones.clone(),
            })
        });
        listed.collect()
    }

    fn open(self, file: FileSegment, dimension: u32) -> Result<SegmentView, ManifestError> {
        let found = (file.header_crc(), file.file_bytes(), file.dimension());
        let shape = (file.rows(), file.documents());
        if found != (self.header_crc, self.file_bytes, dimension)
            || shape != (self.rows, self.documents)
        {
            return Err(ManifestError::WrongFile { file: file.name().to_owned() });
        }
        Ok(SegmentView {
            segment: Arc::new(Segment::File(file)),
            tombstones: self.tombstones,
            dead_documents: self.dead_documents,
            index: None,
        })
    }

    fn write_all(segments: &[Self], out: &mut Writer) {
        out.count(segments.len());
        for segment in segments {
            out.u64(segment.number);
            out.u64(segment.file_bytes);
            out.u32(segment.header_crc);
            out.u32(segment.rows);
            out.u32(segment.documents);
            out.u32(segment.dead_documents);
            segment.tombstones.write(out);
        }
    }

    fn read_all(from: &mut Reader<'_>) -> Result<Vec<Self>, DecodeError> {
        let mut segments = Vec::new();
        for _segment in 0..from.count(36, "segments")? {
            let number = from.u64("segment number")?;
            let file_bytes = from.u64("segment file bytes")?;
            let header_crc = from.u32("header checksum")?;
            let rows = from.u32("rows")?;
            // What follows is only as long as this says.
            if rows > SEGMENT_ROWS_MAX {
                return Err(from.error("as many rows as a segment may have"));
            }
            let documents = from.u32("documents")?;
            let dead_documents = from.u32("dead documents")?;
            if dead_documents > documents {
                return Err(from.error("no more dead documents than there are"));
            }
            let tombstones = Tombstones::read(from, rows)?;
            segments.push(Self {
                number,
                file_bytes,
                header_crc,
                rows,
                documents,
                dead_documents,
                tombstones,
            });
        }
        Ok(segments)
    }
}

impl Totals {
    fn write(self, out: &mut Writer) {
        out.u64(self.documents);
        out.u64(self.chunks);
        out.u128(self.digest);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            documents: from.u64("documents")?,
            chunks: from.u64("chunks")?,
            digest: from.u128("digest")?,
        })
    }
}
