//! A segment's vectors row by row, as a walk over its graph reads them.

use std::ops::Range;
use std::sync::OnceLock;

use arrwdb_index::{RowId, Vectors};

use super::{Damage, Segment};

/// The vectors of a segment. A row in a damaged part of its file is answered as zeros, and the
/// damage is kept: what was found with it must not be answered.
pub(crate) struct RandomAccess<'a> {
    segment: &'a Segment,
    dims: usize,
    /// What is answered for damaged rows: as many zeros as the segment has numbers, which take no
    /// memory until then, and little after.
    zeros: OnceLock<Vec<f32>>,
    damage: OnceLock<Damage>,
}

impl<'a> RandomAccess<'a> {
    pub(super) fn new(segment: &'a Segment, dimension: u32) -> Self {
        Self { segment, dims: dimension as usize, zeros: OnceLock::new(), damage: OnceLock::new() }
    }

    /// Refuses if a damaged row was read.
    pub(crate) fn check(self) -> Result<(), Damage> {
        self.damage.into_inner().map_or(Ok(()), Err)
    }

    #[cold]
    fn note(&self, damage: Damage, rows: usize) -> (&[f32], &[f32]) {
        self.damage.get_or_init(|| damage);
        let numbers = self.segment.rows() as usize * self.dims;
        let zeros = self.zeros.get_or_init(|| vec![0.0; numbers]);
        (&zeros[..rows * self.dims], &zeros[..rows])
    }

    fn read(&self, rows: Range<u32>) -> Result<(&[f32], &[f32]), Damage> {
        let vectors = self.segment.vectors(rows.clone())?;
        Ok((vectors, self.segment.inverse_norms(rows)?))
    }
}

impl Vectors for RandomAccess<'_> {
    fn rows(&self) -> u32 {
        self.segment.rows()
    }

    fn dims(&self) -> usize {
        self.dims
    }

    fn range(&self, rows: Range<u32>) -> (&[f32], &[f32]) {
        let count = rows.len();
        self.read(rows).unwrap_or_else(|damage| self.note(damage, count))
    }

    #[inline]
    fn row(&self, row: RowId) -> (&[f32], f32) {
        let read = self.read(row.0..row.0 + 1);
        let (vector, inverse_norms) = read.unwrap_or_else(|damage| self.note(damage, 1));
        (vector, inverse_norms.first().copied().unwrap_or(0.0))
    }
}
