//! A row of a segment, and a row with its distance.

use std::cmp::Ordering;

/// The dense position of a row in its segment, from 0.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RowId(pub u32);

/// A row and its distance from the query, in the total order (distance, row) of I2.
///
/// Distances compare by [`f32::total_cmp`], so that the order is total whatever they are.
#[derive(Copy, Clone, Debug)]
pub struct Neighbor {
    /// The row found.
    pub row: RowId,
    /// Its distance from the query; smaller is nearer.
    pub distance: f32,
}

impl Ord for Neighbor {
    fn cmp(&self, other: &Self) -> Ordering {
        self.distance.total_cmp(&other.distance).then_with(|| self.row.cmp(&other.row))
    }
}

impl PartialOrd for Neighbor {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Neighbor {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Neighbor {}
