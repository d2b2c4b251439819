//! The full vectors of a segment's rows.

use std::ops::Range;

use crate::RowId;

/// The vectors of rows `0..rows()`, as the caller gave them.
///
/// A file that is checked as it is read implements this too: it answers numbers for a damaged row
/// as well, and says afterwards that they are not to be believed.
pub trait Vectors: Sync {
    /// How many rows there are.
    fn rows(&self) -> u32;

    /// Numbers of one vector.
    fn dims(&self) -> usize;

    /// The vectors of these rows one after the other, and `1 / |row|` of each.
    ///
    /// # Panics
    /// If the range ends past the last row.
    fn range(&self, rows: Range<u32>) -> (&[f32], &[f32]);

    /// The vector of one row and `1 / |row|`.
    ///
    /// # Panics
    /// If the row is past the last.
    fn row(&self, row: RowId) -> (&[f32], f32);
}

/// Vectors that lie one after the other in memory.
#[derive(Copy, Clone, Debug)]
pub struct RowBlock<'a> {
    dims: usize,
    vectors: &'a [f32],
    inverse_norms: &'a [f32],
}

impl<'a> RowBlock<'a> {
    /// `vectors` is row-major, `inverse_norms.len() * dims` long; `inverse_norms` as
    /// [`crate::inverse_norm`] gives them.
    ///
    /// # Panics
    /// If the shapes do not fit, there is no dimension, or there are more than 2^32 - 1 rows.
    pub fn new(dims: usize, vectors: &'a [f32], inverse_norms: &'a [f32]) -> Self {
        assert!(dims > 0, "a vector has at least one dimension");
        assert_eq!(Some(vectors.len()), inverse_norms.len().checked_mul(dims), "shape of rows");
        assert!(u32::try_from(inverse_norms.len()).is_ok(), "rows are counted in 32 bits");
        Self { dims, vectors, inverse_norms }
    }
}

impl Vectors for RowBlock<'_> {
    #[inline]
    fn rows(&self) -> u32 {
        u32::try_from(self.inverse_norms.len()).unwrap_or(u32::MAX)
    }

    #[inline]
    fn dims(&self) -> usize {
        self.dims
    }

    #[inline]
    fn range(&self, rows: Range<u32>) -> (&[f32], &[f32]) {
        let rows = rows.start as usize..rows.end as usize;
        let vectors = &self.vectors[rows.start * self.dims..rows.end * self.dims];
        (vectors, &self.inverse_norms[rows])
    }

    #[inline]
    fn row(&self, row: RowId) -> (&[f32], f32) {
        let place = row.0 as usize;
        (&self.vectors[place * self.dims..][..self.dims], self.inverse_norms[place])
    }
}
