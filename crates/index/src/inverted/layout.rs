//! An index as bytes, which are read where they lie.

use std::ops::Range;
use std::sync::Arc;

use super::build::Lists;
use super::dictionary::{Dictionary, Place};
use super::list::{Bytes, List};

/// Bytes in front: nine numbers of 64 bits.
const HEADER_BYTES: usize = 72;

/// An index in its bytes.
///
/// ```text
/// u64 kind, with the version of its layout | u64 version of what makes terms | u64 rows | u64 total
/// u64 bytes of the dictionary's places | of its blocks | of lists | of positions | of what else there is
/// as many bytes of each row as the kind has | places | blocks | lists | positions | what else there is
/// ```
///
/// Before a term's positions comes what else is kept of it, if anything: varint of its bytes, and they.
///
/// Little-endian. Of what is inside nothing is believed: what does not hold reads as nothing.
pub(crate) struct Layout {
    bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
    pub(crate) head: Head,
    /// Where the parts are, one behind the other.
    parts: [Range<usize>; 6],
}

/// A term.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listed<'a> {
    /// A number that no other has.
    pub(crate) id: u64,
    pub(crate) list: List<'a>,
    /// What else is kept of it.
    pub(crate) aside: Option<&'a [u8]>,
}

/// What an index says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// What it is an index of, and the versions of that.
    pub(crate) kind: [u64; 2],
    pub(crate) rows: u32,
    /// What all rows have together.
    pub(crate) total: u64,
}

impl Layout {
    /// An index of what is known of each row, in as many bytes each, of lists, and of what else there
    /// is.
    pub(crate) fn of(head: Head, of_rows: &[u8], lists: &Lists, more: &[u8]) -> Self {
        let Lists { dictionary, data, positions, .. } = lists;
        let after: [&[u8]; 5] = [&dictionary.places, &dictionary.blocks, data, positions, more];
        let [kind, version] = head.kind;
        let numbers = [kind, version, u64::from(head.rows), head.total].into_iter();
        let numbers = numbers.chain(after.map(|part| part.len() as u64));
        let mut bytes: Vec<u8> = numbers.flat_map(u64::to_le_bytes).collect();
        bytes.extend(of_rows);
        for part in after {
            bytes.extend(part);
        }
        let parts = ranges(of_rows.len(), after.map(<[u8]>::len));
        Self { bytes: Arc::new(bytes), head, parts }
    }

    /// The index that lies in `bytes`; `None` if they are none, or one of another kind. O(1).
    pub(crate) fn open(
        bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
        kind: [u64; 2],
        row_bytes: usize,
    ) -> Option<Self> {
        let held = (*bytes).as_ref();
        let (numbers, _rest) = held.get(..HEADER_BYTES)?.as_chunks::<8>();
        let numbers: Vec<u64> = numbers.iter().map(|number| u64::from_le_bytes(*number)).collect();
        let [first, second, rows, total, lens @ ..] = numbers.as_slice() else { return None };
        if [*first, *second] != kind {
            return None;
        }
        let head = Head { kind, rows: u32::try_from(*rows).ok()?, total: *total };
        let lens: Vec<usize> = lens.iter().filter_map(|len| usize::try_from(*len).ok()).collect();
        let lens: [usize; 5] = lens.try_into().ok()?;
        let of_rows = row_bytes.checked_mul(head.rows as usize)?;
        let all = of_rows.checked_add(HEADER_BYTES)?;
        let all = lens.iter().try_fold(all, |at, len| at.checked_add(*len))?;
        let parts = ranges(of_rows, lens);
        (all == held.len()).then_some(Self { bytes, head, parts })
    }

    /// All of them.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }

    /// What is known of each row.
    pub(crate) fn of_rows(&self) -> &[u8] {
        self.part(0)
    }

    /// What there is besides.
    pub(crate) fn more(&self) -> &[u8] {
        self.part(5)
    }

    /// A term. O(log terms).
    pub(crate) fn find(&self, term: &[u8]) -> Option<Listed<'_>> {
        self.dictionary().find(term).map(|place| self.listed(place))
    }

    /// Gives all terms that begin so. O(log terms + those).
    pub(crate) fn each_of_prefix<'a>(&'a self, prefix: &[u8], mut each: impl FnMut(Listed<'a>)) {
        self.dictionary().find_prefix(prefix, |_term, place| each(self.listed(place)));
    }

    fn listed(&self, place: Place) -> Listed<'_> {
        let mut positions = Bytes { bytes: within(self.part(4), place.positions), at: 0 };
        let aside = place.aside.then(|| {
            let bytes = positions.small() as usize;
            positions.take(bytes)
        });
        let positions = positions.bytes.get(positions.at..).unwrap_or(&[]);
        let list = List::new(place.number, within(self.part(3), place.list), positions);
        Listed { id: place.list.0, list, aside }
    }

    fn dictionary(&self) -> Dictionary<'_> {
        Dictionary { places: self.part(1), blocks: self.part(2) }
    }

    fn part(&self, part: usize) -> &[u8] {
        self.as_bytes().get(self.parts[part].clone()).unwrap_or(&[])
    }
}

/// So many bytes from a place on; none if they are not all there.
pub(crate) fn within(part: &[u8], (start, len): (u64, u64)) -> &[u8] {
    let range = usize::try_from(start).ok().zip(usize::try_from(start.saturating_add(len)).ok());
    range.and_then(|(start, end)| part.get(start..end)).unwrap_or(&[])
}

/// Where the parts are, behind the header; they fit in the bytes that there are.
fn ranges(of_rows: usize, lens: [usize; 5]) -> [Range<usize>; 6] {
    let mut at = HEADER_BYTES;
    let [places, blocks, lists, positions, more] = lens;
    [of_rows, places, blocks, lists, positions, more].map(|len| {
        let start = at;
        at = at.saturating_add(len);
        start..at
    })
}
