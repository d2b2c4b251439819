//! Distances of blocks of rows from one query.

use std::fmt;

use arrwdb_kernel::{Kernels, kernels, prefetch};

use crate::norm::round;
use crate::{Metric, RowId, Vectors};

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

    /// Asks for what scoring a row reads, which is about to happen.
    fn prefetch(&self, _row: RowId) {}
}

/// The largest cosine distance: opposite directions.
const DISTANCE_MAX: f32 = 2.0;
/// How many rows ahead a scan of scattered rows asks for memory.
const PREFETCH_ROWS: usize = 16;

/// `out[i]` becomes `distance(rows[i])`, where `ask(row)` has asked for what that reads some rows
/// before: one row's wait for memory covers the next one's.
///
/// # Panics
/// If the lengths differ.
#[inline]
pub(crate) fn score_ahead(
    rows: &[RowId],
    out: &mut [f32],
    ask: impl Fn(RowId),
    distance: impl Fn(RowId) -> f32,
) {
    assert_eq!(rows.len(), out.len(), "one distance for each row");
    rows.iter().take(PREFETCH_ROWS).for_each(|row| ask(*row));
    for (i, (row, out)) in rows.iter().zip(out).enumerate() {
        if let Some(ahead) = rows.get(i + PREFETCH_ROWS) {
            ask(*ahead);
        }
        *out = distance(*row);
    }
}

/// As [`score_ahead`], four rows at a time, for what four cost less than four times one.
///
/// # Panics
/// If the lengths differ.
#[inline]
pub(crate) fn score_fours_ahead(
    rows: &[RowId],
    out: &mut [f32],
    ask: impl Fn(RowId),
    four: impl Fn([RowId; 4]) -> [f32; 4],
    one: impl Fn(RowId) -> f32,
) {
    assert_eq!(rows.len(), out.len(), "one distance for each row");
    rows.iter().take(PREFETCH_ROWS).for_each(|row| ask(*row));
    let (fours, rest) = rows.as_chunks::<4>();
    let (of_fours, of_rest) = out.as_chunks_mut::<4>();
    for (i, (rows_of_four, out)) in fours.iter().zip(of_fours).enumerate() {
        let ahead = rows.iter().skip(4 * i + PREFETCH_ROWS).take(4);
        ahead.for_each(|row| ask(*row));
        *out = four(*rows_of_four);
    }
    for (row, out) in rest.iter().zip(of_rest) {
        *out = one(*row);
    }
}

/// Distances from full vectors: exact up to the rounding of f32.
pub struct VectorScorer<'a, V: ?Sized> {
    kernels: &'static Kernels,
    metric: Metric,
    query: &'a [f32],
    vectors: &'a V,
}

impl<'a, V: Vectors + ?Sized> VectorScorer<'a, V> {
    /// A scorer of `vectors` against `query`, which for [`Metric::Cosine`] is a unit vector: see
    /// [`crate::normalized`].
    ///
    /// # Panics
    /// If the query has another dimension.
    pub fn new(metric: Metric, query: &'a [f32], vectors: &'a V) -> Self {
        assert_eq!(query.len(), vectors.dims(), "dimension of the query");
        Self { kernels: kernels(), metric, query, vectors }
    }

    #[inline]
    fn distance(&self, (vector, inverse_norm): (&[f32], f32)) -> f32 {
        match self.metric {
            Metric::Cosine => cosine_distance(self.kernels.dot(self.query, vector), inverse_norm),
            Metric::Dot => dot_distance(self.kernels.dot(self.query, vector)),
            Metric::L2 => l2_distance(self.kernels.l2_squared(self.query, vector)),
        }
    }
}

impl<V: Vectors + ?Sized> Scorer for VectorScorer<'_, V> {
    fn rows(&self) -> u32 {
        self.vectors.rows()
    }

    fn score_range(&self, first: RowId, out: &mut [f32]) {
        let end = u32::try_from(out.len()).ok().and_then(|count| first.0.checked_add(count));
        let end = end.filter(|end| *end <= self.rows());
        assert!(end.is_some(), "{} rows from row {} of {}", out.len(), first.0, self.rows());
        let (vectors, inverse_norms) = self.vectors.range(first.0..end.unwrap_or(first.0));
        match self.metric {
            Metric::Cosine => {
                self.kernels.dot_rows(self.query, vectors, out);
                for (out, inverse_norm) in out.iter_mut().zip(inverse_norms) {
                    *out = cosine_distance(*out, *inverse_norm);
                }
            }
            Metric::Dot => {
                self.kernels.dot_rows(self.query, vectors, out);
                for out in out {
                    *out = dot_distance(*out);
                }
            }
            Metric::L2 => {
                self.kernels.l2_squared_rows(self.query, vectors, out);
                for out in out {
                    *out = l2_distance(*out);
                }
            }
        }
    }

    fn prefetch(&self, row: RowId) {
        prefetch(self.vectors.row(row).0);
    }

    fn score(&self, rows: &[RowId], out: &mut [f32]) {
        let ask = |row| prefetch(self.vectors.row(row).0);
        score_ahead(rows, out, ask, |row| self.distance(self.vectors.row(row)));
    }
}

impl<V: ?Sized> fmt::Debug for VectorScorer<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VectorScorer").field("metric", &self.metric).finish_non_exhaustive()
    }
}

/// Rounding may carry a distance just outside `0..=2`, which is where it is brought back to. A NaN
/// (which finite vectors do not give) is the farthest there is: `min` first, or it would be the
/// nearest.
#[inline]
#[expect(clippy::manual_clamp, reason = "clamp would keep a NaN")]
pub(crate) fn cosine_distance(dot: f32, inverse_norm: f32) -> f32 {
    (1.0 - dot * inverse_norm).min(DISTANCE_MAX).max(0.0)
}

/// A product of vectors too long for f32 may be infinite, or NaN where infinities cancel: that is
/// the farthest there is.
#[inline]
pub(crate) fn dot_distance(dot: f32) -> f32 {
    let distance = 1.0 - dot;
    if distance.is_nan() { f32::INFINITY } else { distance }
}

/// A sum of squares too large for f32 is infinite, and never NaN for finite vectors; `min` keeps
/// that so whatever comes.
#[inline]
pub(crate) fn l2_distance(squared: f32) -> f32 {
    squared.min(f32::INFINITY)
}

/// The score that a sum is: rounded, and what is beyond f32 is the last that is not.
#[inline]
pub(crate) fn score_of_sum(sum: f64) -> f32 {
    // Adding zero turns -0 into 0.
    round(sum).clamp(f32::MIN, f32::MAX) + 0.0
}

#[cfg(test)]
mod tests {
    use super::{Scorer, VectorScorer, cosine_distance, dot_distance, l2_distance};
    use crate::{Metric, RowBlock, RowId, inverse_norm, normalized};

    #[test]
    fn cosine_distances_stay_within_zero_and_two_and_none_is_nan() {
        for (dot, inverse) in [(1.5, 1.0), (f32::INFINITY, 1.0), (-1.5, 1.0), (-f32::INFINITY, 1.0)]
        {
            assert!((0.0..=2.0).contains(&cosine_distance(dot, inverse)));
        }
        assert_eq!(cosine_distance(1.0, 1.0).to_bits(), 0.0_f32.to_bits());
        assert_eq!(cosine_distance(f32::NAN, 1.0).to_bits(), 2.0_f32.to_bits());
        assert_eq!(dot_distance(f32::NAN).to_bits(), f32::INFINITY.to_bits());
        assert_eq!(l2_distance(f32::NAN).to_bits(), f32::INFINITY.to_bits());
    }

    #[test]
    fn each_metric_is_what_its_name_says() {
        let (vector, query) = ([3.0, 4.0], [0.6, 0.8]);
        let inverse_norms = [inverse_norm(&vector).unwrap()];
        let rows = RowBlock::new(2, &vector, &inverse_norms);
        for (metric, expect) in [(Metric::Cosine, 0.0), (Metric::Dot, -4.0), (Metric::L2, 4.0)] {
            let scorer = VectorScorer::new(metric, &query, &rows);
            let mut distance = [f32::NAN; 2];
            scorer.score_range(RowId(0), &mut distance[..1]);
            scorer.score(&[RowId(0)], &mut distance[1..]);
            assert_eq!(distance[0].to_bits(), distance[1].to_bits(), "{metric:?}");
            let reported = metric.reported(distance[0]);
            assert!((reported - expect).abs() < 1e-6, "{metric:?}: {reported}");
            assert!((metric.scored(reported) - distance[0]).abs() < 1e-5, "{metric:?}");
            assert_eq!(Metric::from_name(metric.name()), Some(metric));
        }
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
                let rows = RowBlock::new(4, &vector, &inverse_norms);
                let mut distance = [f32::NAN];
                let scorer = VectorScorer::new(Metric::Cosine, &query, &rows);
                scorer.score_range(RowId(0), &mut distance);
                assert!((distance[0] - expect).abs() < 1e-6, "{scale}: {}", distance[0]);
            }
        }
    }

    const ROWS: ([f32; 4], [f32; 2]) = ([1.0, 0.0, 1.0, 0.0], [1.0, 1.0]);

    #[test]
    #[should_panic(expected = "shape of rows")]
    fn rows_of_another_dimension_are_refused() {
        RowBlock::new(3, &ROWS.0, &ROWS.1);
    }

    #[test]
    #[should_panic(expected = "2 rows from row 1 of 2")]
    fn a_range_past_the_last_row_is_refused() {
        let rows = RowBlock::new(2, &ROWS.0, &ROWS.1);
        let scorer = VectorScorer::new(Metric::Cosine, &[1.0, 0.0], &rows);
        scorer.score_range(RowId(1), &mut [0.0; 2]);
    }

    #[test]
    #[should_panic(expected = "range")]
    fn a_row_past_the_last_is_refused() {
        let rows = RowBlock::new(2, &ROWS.0, &ROWS.1);
        VectorScorer::new(Metric::Cosine, &[1.0, 0.0], &rows).score(&[RowId(2)], &mut [0.0]);
    }
}
