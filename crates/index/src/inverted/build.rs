//! How lists grow, row by row, and become an index.

use super::dictionary::DictionaryWriter;
use super::list::{BLOCK, Bounds, Bytes, encode, varint};

/// The list of a term, as it grows: in bytes, since most terms have a row or two.
#[derive(Debug, Default)]
pub(crate) struct Growing {
    rows: u32,
    next_row: u32,
    /// Varints of each row's difference and number.
    list: Vec<u8>,
    positions: Vec<u8>,
}

impl Growing {
    /// Adds a row, after all that the term has, with a number from 1.
    pub(crate) fn push(&mut self, row: u32, number: u32) {
        self.rows += 1;
        varint(u64::from(row - self.next_row), &mut self.list);
        varint(u64::from(number), &mut self.list);
        self.next_row = row + 1;
    }

    /// Adds a row that has the term at these positions, ascending; their count is its number.
    pub(crate) fn push_positions(&mut self, row: u32, at: impl ExactSizeIterator<Item = u32>) {
        self.push(row, u32::try_from(at.len()).unwrap_or(u32::MAX));
        let mut before = 0;
        for position in at {
            varint(u64::from(position - before), &mut self.positions);
            before = position;
        }
    }
}

/// The parts of an index but for what it knows of each row.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    pub(super) dictionary: DictionaryWriter,
    pub(super) data: Vec<u8>,
    pub(super) positions: Vec<u8>,
    rows: Vec<(u32, u32)>,
    positions_at: Vec<u32>,
}

impl Lists {
    /// Adds a term behind all before it, with its rows and what else is kept of it, if anything.
    /// `bounds` of a full block's rows. O(rows + positions).
    pub(crate) fn push(
        &mut self,
        term: &[u8],
        growing: &Growing,
        aside: Option<&[u8]>,
        bounds: impl Fn(&[(u32, u32); BLOCK]) -> Bounds,
    ) {
        self.rows.clear();
        self.positions_at.clear();
        let mut list = Bytes { bytes: &growing.list, at: 0 };
        let mut of_row = Bytes { bytes: &growing.positions, at: 0 };
        let mut row = 0;
        for _ in 0..growing.rows {
            row += list.small();
            let number = list.small();
            self.rows.push((row, number));
            row += 1;
            if !growing.positions.is_empty() {
                self.positions_at.push(u32::try_from(of_row.at).unwrap_or(u32::MAX));
                for _ in 0..number {
                    of_row.varint();
                }
            }
        }
        let start = self.data.len();
        encode(&self.rows, Some(&self.positions_at), bounds, &mut self.data);
        let positions_start = self.positions.len();
        if let Some(aside) = aside {
            varint(aside.len() as u64, &mut self.positions);
            self.positions.extend(aside);
        }
        self.positions.extend(&growing.positions);
        let bytes = (self.data.len() - start, self.positions.len() - positions_start);
        self.dictionary.push(term, (growing.rows, aside.is_some()), bytes);
    }
}
