//! Distances of blocks of rows from one query.

use arrwdb_kernel::{Kernels, kernels, prefetch};

use crate::RowId;

/// Scores rows of one segment against one query; smaller is nearer.
///
/// A row's distance is the same bits whichever method and grouping asks for it (I6), and never
/// NaN.
pub trait Scorer: Sync {
    /// How many rows there are; they are `0..rows()`.
    fn rows(&self) -> u32;

    /// `out[i]` becomes the distance of row `first + i`.
    ///
    /// # Panics
    /// If `first + out.len()` is past the last row.
    fn score_range(&self, first: RowId, out: &mut [f32]);

    /// `out[i]` becomes the distance of `rows[i]`, in any order and with repeats.
    ///
    /// # Panics
    /// If the lengths differ or a row is past the last.
    fn score(&self, rows: &[RowId], out: &mut [f32]);
}

/// A run of consecutive rows whose vectors lie one after the other in memory.
#[derive(Copy, Clone, Debug)]
pub struct RowBlock<'a> {
    /// The row of the first vector.
    pub first: RowId,
    /// `rows * dims`, row-major, as the caller gave them.
    pub vectors: &'a [f32],
    /// `1 / |row|`, one for each row: see [`crate::inverse_norm`].
    pub inverse_norms: &'a [f32],
}

/// The largest cosine distance: opposite directions.
const DISTANCE_MAX: f32 = 2.0;
/// How many rows ahead a scan of scattered rows asks for memory.
const PREFETCH_ROWS: usize = 4;

/// Cosine distance `1 - dot(query, row) * inverse_norm(row)`, within `0..=2`.
#[derive(Copy, Clone, Debug)]
pub struct CosineScorer<'a> {
    kernels: &'static Kernels,
    query: &'a [f32],
    blocks: &'a [RowBlock<'a>],
    rows: u32,
}

impl<'a> CosineScorer<'a> {
    /// A scorer of the rows of `blocks` against `query`, which is a unit vector: see
    /// [`crate::normalized`].
    ///
    /// # Panics
    /// If the query is empty, a block is empty or its shape does not fit, or the blocks do not
    /// follow one another from row 0 without a gap.
    pub fn new(query: &'a [f32], blocks: &'a [RowBlock<'a>]) -> Self {
        assert!(!query.is_empty(), "a query has at least one dimension");
        let mut rows = 0_u32;
        for block in blocks {
            assert_eq!(block.first, RowId(rows), "blocks follow one another without a gap");
            let count = block.inverse_norms.len();
            assert!(count > 0, "a block has at least one row");
            assert_eq!(Some(block.vectors.len()), count.checked_mul(query.len()), "block shape");
            let end = u32::try_from(count).ok().and_then(|count| rows.checked_add(count));
            assert!(end.is_some(), "rows are counted in 32 bits");
            rows = end.unwrap_or(rows);
        }
        Self { kernels: kernels(), query, blocks, rows }
    }

    /// The block of `row` and the row's place in it.
    fn locate(&self, row: RowId) -> (usize, usize) {
        assert!(row.0 < self.rows, "row {} of {}", row.0, self.rows);
        let block = self.blocks.partition_point(|block| block.first <= row) - 1;
        (block, (row.0 - self.blocks[block].first.0) as usize)
    }

    /// The vector of `row` and its inverse norm.
    fn row(&self, row: RowId) -> (&'a [f32], f32) {
        let (block, place) = self.locate(row);
        let block = &self.blocks[block];
        let dims = self.query.len();
        (&block.vectors[place * dims..][..dims], block.inverse_norms[place])
    }
}

impl Scorer for CosineScorer<'_> {
    fn rows(&self) -> u32 {
        self.rows
    }

    fn score_range(&self, first: RowId, out: &mut [f32]) {
        if out.is_empty() {
            return;
        }
        let (block, mut place) = self.locate(first);
        let mut rest = out;
        for block in &self.blocks[block..] {
            let count = rest.len().min(block.inverse_norms.len() - place);
            let (out, after) = rest.split_at_mut(count);
            let dims = self.query.len();
            self.kernels.dot_rows(self.query, &block.vectors[place * dims..][..count * dims], out);
            for (out, inverse_norm) in out.iter_mut().zip(&block.inverse_norms[place..]) {
                *out = cosine_distance(*out, *inverse_norm);
            }
            rest = after;
            place = 0;
            if rest.is_empty() {
                return;
            }
        }
        assert!(rest.is_empty(), "a range ends within the rows");
    }

    fn score(&self, rows: &[RowId], out: &mut [f32]) {
        assert_eq!(rows.len(), out.len(), "one distance for each row");
        for row in rows.iter().take(PREFETCH_ROWS) {
            prefetch(self.row(*row).0);
        }
        for (i, (row, out)) in rows.iter().zip(out).enumerate() {
            if let Some(ahead) = rows.get(i + PREFETCH_ROWS) {
                prefetch(self.row(*ahead).0);
            }
            let (vector, inverse_norm) = self.row(*row);
            *out = cosine_distance(self.kernels.dot(self.query, vector), inverse_norm);
        }
    }
}

/// Rounding may carry a distance just outside `0..=2`, which is where it is brought back to. A NaN
/// (which finite vectors do not give) is the farthest there is: `min` first, or it would be the
/// nearest.
#[inline]
#[expect(clippy::manual_clamp, reason = "clamp would keep a NaN")]
fn cosine_distance(dot: f32, inverse_norm: f32) -> f32 {
    (1.0 - dot * inverse_norm).min(DISTANCE_MAX).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::{CosineScorer, RowBlock, Scorer, cosine_distance};
    use crate::{RowId, inverse_norm, normalized};

    #[test]
    fn distances_stay_within_zero_and_two() {
        for (dot, inverse) in [(1.5, 1.0), (f32::INFINITY, 1.0), (-1.5, 1.0), (-f32::INFINITY, 1.0)]
        {
            assert!((0.0..=2.0).contains(&cosine_distance(dot, inverse)));
        }
        assert_eq!(cosine_distance(1.0, 1.0).to_bits(), 0.0_f32.to_bits());
        assert_eq!(cosine_distance(f32::NAN, 1.0).to_bits(), 2.0_f32.to_bits());
    }

    #[test]
    fn vectors_at_the_ends_of_the_range_have_the_distance_of_their_direction() {
        let (query, _) = normalized(&[1.0, 1.0, 1.0, 1.0]).unwrap();
        for scale in [1e-38_f32, 1e-30, 1.0, 1e30, 1.7e38] {
            for (signs, expect) in
                [([1.0, 1.0, 1.0, 1.0], 0.0), ([1.0, -1.0, 1.0, -1.0], 1.0), ([-1.0; 4], 2.0)]
            {
                let vector: Vec<f32> = signs.iter().map(|sign| sign * scale).collect();
                let inverse_norms = [inverse_norm(&vector).unwrap()];
                let blocks =
                    [RowBlock { first: RowId(0), vectors: &vector, inverse_norms: &inverse_norms }];
                let mut distance = [f32::NAN];
                CosineScorer::new(&query, &blocks).score_range(RowId(0), &mut distance);
                assert!((distance[0] - expect).abs() < 1e-6, "{scale}: {}", distance[0]);
            }
        }
    }

    fn block(first: u32) -> RowBlock<'static> {
        RowBlock { first: RowId(first), vectors: &[1.0, 0.0], inverse_norms: &[1.0] }
    }

    #[test]
    #[should_panic(expected = "without a gap")]
    fn blocks_with_a_gap_are_refused() {
        CosineScorer::new(&[1.0, 0.0], &[block(0), block(2)]);
    }

    #[test]
    #[should_panic(expected = "block shape")]
    fn blocks_of_another_dimension_are_refused() {
        CosineScorer::new(&[1.0, 0.0, 0.0], &[block(0)]);
    }

    #[test]
    #[should_panic(expected = "a range ends within the rows")]
    fn a_range_past_the_last_row_is_refused() {
        let blocks = [block(0), block(1)];
        CosineScorer::new(&[1.0, 0.0], &blocks).score_range(RowId(1), &mut [0.0; 2]);
    }

    #[test]
    #[should_panic(expected = "row 2 of 2")]
    fn a_row_past_the_last_is_refused() {
        let blocks = [block(0), block(1)];
        CosineScorer::new(&[1.0, 0.0], &blocks).score(&[RowId(2)], &mut [0.0]);
    }
}
