//! Terms in order, each with where its list is: bytes, compared as such.
//!
//! Terms come in blocks of 16. Within one, a term is written as how many bytes it shares with the one
//! before it and the rest; the first is whole. A term is found by a binary search for its block and a
//! walk through it. (Front coding; as in Lucene's and tantivy's term dictionaries without an
//! automaton in front.) A term may come several times, where whoever writes them has that mean something.
//!
//! ```text
//! block: of each term: varint bytes shared | varint bytes that follow | the bytes
//!        | varint of (number * 2 + whether there is something aside)
//!        | varint bytes of its list | varint bytes of its positions
//! place: u32 offset of the block | u64 offset of its first list | u64 offset of its first positions
//! ```

use super::list::{Bytes, varint};

/// Terms of a block.
const BLOCK: usize = 16;
const PLACE_BYTES: usize = 20;

/// Where a term's list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// How many rows have it, or what else whoever writes them keeps there.
    pub(crate) number: u32,
    /// Whether something comes before its positions.
    pub(crate) aside: bool,
    /// Where it begins among the lists, and how many bytes it has.
    pub(crate) list: (u64, u64),
    /// As `list`, of its positions.
    pub(crate) positions: (u64, u64),
}

/// The terms of a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dictionary<'a> {
    pub(crate) places: &'a [u8],
    pub(crate) blocks: &'a [u8],
}

impl<'a> Dictionary<'a> {
    /// Where the list of a term is. O(log terms).
    pub(crate) fn find(&self, term: &[u8]) -> Option<Place> {
        let mut walk = self.walk_to(term);
        while let Some((found, place)) = walk.next() {
            match found.cmp(term) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Some(place),
                std::cmp::Ordering::Greater => return None,
            }
        }
        None
    }

    /// Gives all terms that begin so, with their places. O(log terms + those).
    pub(crate) fn find_prefix(&self, prefix: &[u8], mut each: impl FnMut(&[u8], Place)) {
        let mut walk = self.walk_to(prefix);
        while let Some((found, place)) = walk.next() {
            if found.starts_with(prefix) {
                each(found, place);
            } else if found > prefix {
                return;
            }
        }
    }

    /// A walk from a block before which nothing is this term or comes after it.
    fn walk_to(&self, term: &[u8]) -> Walk<'a> {
        let (mut low, mut high) = (0, self.places.len() / PLACE_BYTES);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.first_of(middle) < term {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.walk(low.saturating_sub(1))
    }

    fn first_of(&self, block: usize) -> &'a [u8] {
        let mut bytes = self.bytes_of(block);
        bytes.varint();
        let count = bytes.small() as usize;
        bytes.take(count)
    }

    fn bytes_of(&self, block: usize) -> Bytes<'a> {
        let offset = self.place(block).first_chunk().copied().map_or(0, u32::from_le_bytes);
        Bytes { bytes: self.blocks, at: offset as usize }
    }

    fn place(&self, block: usize) -> &'a [u8] {
        self.places.get(block * PLACE_BYTES..).unwrap_or(&[])
    }

    fn walk(&self, block: usize) -> Walk<'a> {
        let of = self.place(block);
        let eight = |at: usize| {
            let eight = of.get(at..).and_then(|rest| rest.first_chunk()).copied();
            eight.map_or(0, u64::from_le_bytes)
        };
        let (list, positions) = (eight(4), eight(12));
        Walk { bytes: self.bytes_of(block), term: Vec::new(), list, positions }
    }
}

/// A walk through terms in order.
struct Walk<'a> {
    bytes: Bytes<'a>,
    term: Vec<u8>,
    list: u64,
    positions: u64,
}

impl Walk<'_> {
    fn next(&mut self) -> Option<(&[u8], Place)> {
        if self.bytes.at >= self.bytes.bytes.len() {
            return None;
        }
        let (shared, follow) = (self.bytes.small() as usize, self.bytes.small() as usize);
        self.term.truncate(shared);
        self.term.extend(self.bytes.take(follow));
        let packed = self.bytes.varint();
        let (list, positions) = (self.bytes.varint(), self.bytes.varint());
        let place = Place {
            number: u32::try_from(packed >> 1).unwrap_or(u32::MAX),
            aside: packed & 1 == 1,
            list: (self.list, list),
            positions: (self.positions, positions),
        };
        self.list = self.list.saturating_add(list);
        self.positions = self.positions.saturating_add(positions);
        Some((&self.term, place))
    }
}

/// Writes terms that come in order.
#[derive(Debug, Default)]
pub(crate) struct DictionaryWriter {
    pub(crate) places: Vec<u8>,
    pub(crate) blocks: Vec<u8>,
    terms: u32,
    last: Vec<u8>,
    list: u64,
    positions: u64,
}

impl DictionaryWriter {
    /// Adds a term that comes after all before it or is the last of them, with its number and whether
    /// there is something aside. Its list and positions lie behind those of the term before.
    pub(crate) fn push(
        &mut self,
        term: &[u8],
        (number, aside): (u32, bool),
        (list, positions): (usize, usize),
    ) {
        let first = (self.terms as usize).is_multiple_of(BLOCK);
        if first {
            // A segment has some gigabytes of terms at most.
            let offset = u32::try_from(self.blocks.len()).unwrap_or(u32::MAX);
            self.places.extend(offset.to_le_bytes());
            self.places.extend(self.list.to_le_bytes());
            self.places.extend(self.positions.to_le_bytes());
            self.last.clear();
        }
        let shared = term.iter().zip(&self.last).take_while(|(a, b)| a == b).count();
        varint(shared as u64, &mut self.blocks);
        varint((term.len() - shared) as u64, &mut self.blocks);
        self.blocks.extend(&term[shared..]);
        varint(u64::from(number) * 2 + u64::from(aside), &mut self.blocks);
        varint(list as u64, &mut self.blocks);
        varint(positions as u64, &mut self.blocks);
        self.last.clear();
        self.last.extend(term);
        self.terms += 1;
        self.list += list as u64;
        self.positions += positions as u64;
    }
}
