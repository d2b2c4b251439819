//! The terms of a segment's rows in a file of its own, version 1: what a keyword search reads.
//!
//! ```text
//! the frame of what lies beside a segment (`beside`), with "ARRWKWD\0" and version 1
//! what the body is: text code of the language
//! body: the postings, with the version of the analysis that made them
//! ```
//!
//! It is derived from the segment. The first search that needs the postings makes them and has them
//! kept here; after the next start they are read, which takes milliseconds in place of seconds.

use std::fmt;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use arrwdb_index::analysis::Language;
use arrwdb_index::keyword::Postings;

use super::beside::{BesideState, BesideSummary, Kind};
use super::file::HEADER_BYTES;
use super::{Damage, FileSegment};
use crate::codec::{DecodeError, Reader, Writer};

const KIND: Kind = Kind { magic: *b"ARRWKWD\0", version: 1 };

/// Where the postings of a segment's file are kept between runs. That they could not be read or kept
/// is told in the server's log and nowhere else: they are made again.
pub trait PostingsPlace: Send + Sync + fmt::Debug {
    /// What was kept last, if there is anything.
    fn read(&self) -> Option<Vec<u8>>;

    /// What was kept last is damaged.
    fn refuse(&self, damage: &Damage);

    /// Keeps what this writes, about so many bytes, and at its beginning the header that it gives, in
    /// place of what was kept before; nothing, where the segment's file is gone.
    fn keep(&self, bytes: u64, write: &dyn Fn(&mut dyn Write) -> io::Result<BesideSummary>);
}

/// Postings with the segment that they are of.
#[derive(Debug)]
pub struct PostingsFile;

impl PostingsFile {
    /// Writes the postings of `segment` after a place of 256 zeros for the header, which the summary
    /// holds.
    pub fn write(
        postings: &Postings,
        language: Language,
        segment: &FileSegment,
        out: &mut dyn Write,
    ) -> io::Result<BesideSummary> {
        let mut what = Writer::with_capacity(16);
        what.text(language.code());
        KIND.write(segment, &what.into_bytes(), out, |out| out.write_all(postings.as_bytes()))
    }

    /// The postings and their language, every checksum checked; what the file at `name` is, if it is
    /// whole and none of this segment by this program. O(bytes).
    pub fn read(
        bytes: Vec<u8>,
        name: &str,
        segment: &FileSegment,
    ) -> Result<Result<(Language, Postings), BesideState>, Damage> {
        let damage = |error: DecodeError| Damage {
            file: name.to_owned(),
            offset: error.offset as u64,
            what: error.what,
        };
        let outline = match KIND.open(&bytes, segment).map_err(damage)? {
            Ok(outline) => outline,
            Err(state) => return Ok(Err(state)),
        };
        let mut what = Reader::at(&bytes[..outline.body], HEADER_BYTES);
        let code = what.text("language").map_err(damage)?;
        // Of a later version, which may know more of them.
        let Some(language) = Language::from_code(code) else {
            return Ok(Err(BesideState::Earlier));
        };
        let body = outline.body..outline.checksums;
        let postings = Postings::open(Arc::new(Body { bytes, body }));
        let postings = postings.filter(|postings| postings.rows() == segment.rows());
        Ok(postings.map(|postings| (language, postings)).ok_or(BesideState::Earlier))
    }
}

/// The body of a file that is held whole.
struct Body {
    bytes: Vec<u8>,
    body: Range<usize>,
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.body.clone()]
    }
}

impl FileSegment {
    /// Has postings kept in, and read from, this place.
    #[must_use]
    pub fn with_postings_at(mut self, place: Arc<dyn PostingsPlace>) -> Self {
        self.postings_at = Some(place);
        self
    }

    /// The postings that are kept, and their language.
    pub(super) fn kept_postings(&self) -> Option<(Language, Postings)> {
        let place = self.postings_at.as_ref()?;
        match PostingsFile::read(place.read()?, self.name(), self) {
            Ok(read) => read.ok(),
            Err(damage) => {
                place.refuse(&damage);
                None
            }
        }
    }

    /// Keeps postings that were made.
    pub(super) fn keep_postings(&self, language: Language, postings: &Postings) {
        if let Some(place) = &self.postings_at {
            let bytes = postings.as_bytes().len() as u64;
            place.keep(bytes, &|out| PostingsFile::write(postings, language, self, out));
        }
    }
}
