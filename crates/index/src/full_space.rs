//! Distances between rows from their full vectors.

use crate::codes::Space;
use crate::scorer::{cosine_distance, l2_distance};
use crate::{Metric, RowId, Scorer, VectorScorer, Vectors};

/// The space that a graph over full vectors is built in.
///
/// For [`Metric::Dot`] that is not the metric's own, in which a row need not be near to itself:
/// each vector gets one number more, so that all have the length of the longest, and distances are
/// Euclidean (Bachrach et al., "Speeding up the Xbox recommender system using a Euclidean
/// transformation for inner-product spaces", 2014). A query has 0 there and so finds the rows in
/// the order of the inner product.
pub(crate) struct FullSpace<'a, V: ?Sized> {
    metric: Metric,
    vectors: &'a V,
    /// The number more of each row, for [`Metric::Dot`].
    more: Vec<f32>,
}

impl<'a, V: Vectors + ?Sized> FullSpace<'a, V> {
    pub(crate) fn new(metric: Metric, vectors: &'a V) -> Self {
        let more = if metric == Metric::Dot { missing_lengths(vectors) } else { Vec::new() };
        Self { metric, vectors, more }
    }
}

impl<V: Vectors + ?Sized> Space for FullSpace<'_, V> {
    fn rows(&self) -> u32 {
        self.vectors.rows()
    }

    fn distances(&self, from: RowId, to: &[RowId], out: &mut [f32]) {
        let (vector, inverse_norm) = self.vectors.row(from);
        match self.metric {
            Metric::Cosine => {
                VectorScorer::new(Metric::Dot, vector, self.vectors).score(to, out);
                for (row, out) in to.iter().zip(out) {
                    // In this order, so that it is the same both ways round.
                    let norms = inverse_norm * self.vectors.row(*row).1;
                    *out = cosine_distance(1.0 - *out, norms);
                }
            }
            Metric::L2 => VectorScorer::new(Metric::L2, vector, self.vectors).score(to, out),
            Metric::Dot => {
                VectorScorer::new(Metric::L2, vector, self.vectors).score(to, out);
                for (row, out) in to.iter().zip(out) {
                    let apart = self.more[from.0 as usize] - self.more[row.0 as usize];
                    *out = l2_distance(*out + apart * apart);
                }
            }
        }
    }
}

/// How long each vector's number more is: `sqrt(longest^2 - length^2)`.
fn missing_lengths<V: Vectors + ?Sized>(vectors: &V) -> Vec<f32> {
    let length = |row| {
        let (_, inverse_norm) = vectors.row(RowId(row));
        1.0 / f64::from(inverse_norm)
    };
    let longest = (0..vectors.rows()).map(length).fold(0.0, f64::max);
    let missing = |row| {
        let squared = longest * longest - length(row) * length(row);
        crate::norm::round(squared.max(0.0).sqrt())
    };
    (0..vectors.rows()).map(missing).collect()
}
