//! The rows a search may return.

use crate::RowId;

/// Rows a search may return: the live ones, those a filter selects, or all.
pub trait Allowed: Sync {
    /// Whether `row` may be returned. False for rows past the end of the set.
    fn allows(&self, row: RowId) -> bool;

    /// Bit `i` says whether row `first + i` may be returned, for the 64 rows from `first`, which
    /// is a multiple of 64. Bits of rows past the end of the segment may be anything. A bitmap
    /// answers with one of its words; this default asks [`Allowed::allows`] 64 times.
    fn word(&self, first: RowId) -> u64 {
        let mut word = 0;
        for bit in 0..u64::BITS {
            if let Some(row) = first.0.checked_add(bit) {
                word |= u64::from(self.allows(RowId(row))) << bit;
            }
        }
        word
    }
}

/// Where at least so many of all rows are allowed, it is all but those that have died: a structure
/// is searched as if all were, and gives more.
pub(crate) const NEARLY_ALL: f64 = 0.9;

/// Every row.
#[derive(Copy, Clone, Debug, Default)]
pub struct AllRows;

impl Allowed for AllRows {
    fn allows(&self, _row: RowId) -> bool {
        true
    }

    fn word(&self, _first: RowId) -> u64 {
        u64::MAX
    }
}
