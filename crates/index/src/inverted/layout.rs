//! An index as bytes, which are read where they lie.

use std::ops::Range;
use std::sync::Arc;

use super::build::Lists;
use super::dictionary::{Dictionary, Place};
use super::list::List;

/// Bytes in front: eight numbers of 64 bits.
const HEADER_BYTES: usize = 64;

/// An index in its bytes.
///
/// ```text
/// u64 kind, with the version of its layout | u64 version of what makes terms | u64 rows | u64 total
/// u64 bytes of the dictionary's places | of its blocks | of lists | of positions
/// as many bytes of each row as the kind has | places | blocks | lists | positions
/// ```
///
/// Little-endian. Of what is inside nothing is believed: what does not hold reads as nothing.
pub(crate) struct Layout {
    bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
    pub(crate) head: Head,
    /// Where the parts are, one behind the other.
    parts: [Range<usize>; 5],
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
    /// An index of what is known of each row, in as many bytes each, and of lists.
    pub(crate) fn of(head: Head, of_rows: &[u8], lists: &Lists) -> Self {
        let dictionary = &lists.dictionary;
        let after = [&dictionary.places, &dictionary.blocks, &lists.data, &lists.positions];
        let [kind, version] = head.kind;
        let numbers = [kind, version, u64::from(head.rows), head.total].into_iter();
        let numbers = numbers.chain(after.map(|part| part.len() as u64));
        let mut bytes: Vec<u8> = numbers.flat_map(u64::to_le_bytes).collect();
        bytes.extend(of_rows);
        bytes.extend(after.into_iter().flatten());
        let parts = ranges(of_rows.len(), after.map(Vec::len));
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
        let lens: [usize; 4] = lens.try_into().ok()?;
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

    /// The rows that have a term. O(log terms).
    pub(crate) fn list(&self, term: &[u8]) -> Option<List<'_>> {
        self.dictionary().find(term).map(|place| self.list_at(place))
    }

    /// Gives the lists of all terms that begin so. O(log terms + those).
    pub(crate) fn each_of_prefix(&self, prefix: &[u8], mut each: impl FnMut(List<'_>)) {
        self.dictionary().find_prefix(prefix, |place| each(self.list_at(place)));
    }

    fn list_at(&self, place: Place) -> List<'_> {
        let within = |part: usize, (start, len): (u64, u64)| {
            let range =
                usize::try_from(start).ok().zip(usize::try_from(start.saturating_add(len)).ok());
            range.and_then(|(start, end)| self.part(part).get(start..end)).unwrap_or(&[])
        };
        List::new(place.rows, within(3, place.list), within(4, place.positions))
    }

    fn dictionary(&self) -> Dictionary<'_> {
        Dictionary { places: self.part(1), blocks: self.part(2) }
    }

    fn part(&self, part: usize) -> &[u8] {
        self.as_bytes().get(self.parts[part].clone()).unwrap_or(&[])
    }
}

/// Where the parts are, behind the header; they fit in the bytes that there are.
fn ranges(of_rows: usize, lens: [usize; 4]) -> [Range<usize>; 5] {
    let mut at = HEADER_BYTES;
    let [places, blocks, lists, positions] = lens;
    [of_rows, places, blocks, lists, positions].map(|len| {
        let start = at;
        at = at.saturating_add(len);
        start..at
    })
}
