//! Where lists are: rows less their mean, rotated.

use crate::norm::round;
use crate::rotation::Rotation;
use crate::{Metric, RowId, Vectors};

/// Rows that the mean is taken of, at most: more would not move it.
const CENTER_ROWS_MAX: u32 = 65_536;

/// The space of the lists.
#[derive(Debug)]
pub(super) struct Space {
    metric: Metric,
    seed: u64,
    center: Vec<f32>,
    rotation: Rotation,
}

impl Space {
    /// The space for these rows.
    pub(super) fn of<V: Vectors + ?Sized>(metric: Metric, vectors: &V, seed: u64) -> Self {
        let rows = vectors.rows();
        let step = rows.div_ceil(CENTER_ROWS_MAX).max(1);
        let mut sums = vec![0.0_f64; vectors.dims()];
        let mut count = 0_u32;
        for row in (0..rows).step_by(step as usize) {
            let (vector, inverse_norm) = vectors.row(RowId(row));
            let weight = if metric == Metric::Cosine { f64::from(inverse_norm) } else { 1.0 };
            for (sum, value) in sums.iter_mut().zip(vector) {
                *sum += f64::from(*value) * weight;
            }
            count += 1;
        }
        let center = sums.iter().map(|sum| round(sum / f64::from(count.max(1))));
        // A damaged row may be no number: it shall not take the others with it.
        let center = center.map(|value| if value.is_finite() { value } else { 0.0 });
        Self::new(metric, center.collect(), seed)
    }

    /// The space around `center`, which has at least one number.
    pub(super) fn new(metric: Metric, center: Vec<f32>, seed: u64) -> Self {
        let rotation = Rotation::new(center.len(), seed);
        Self { metric, seed, center, rotation }
    }

    pub(super) fn metric(&self) -> Metric {
        self.metric
    }

    pub(super) fn dims(&self) -> usize {
        self.center.len()
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn center(&self) -> &[f32] {
        &self.center
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.center.as_slice()) + self.rotation.bytes()
    }

    /// `out` becomes a row in this space.
    pub(super) fn row<V: Vectors + ?Sized>(
        &self,
        vectors: &V,
        row: u32,
        out: &mut Vec<f32>,
        room: &mut Vec<f32>,
    ) {
        let (vector, inverse_norm) = vectors.row(RowId(row));
        let weight = if self.metric == Metric::Cosine { inverse_norm } else { 1.0 };
        out.clear();
        out.extend(vector.iter().zip(&self.center).map(|(value, center)| value * weight - center));
        self.rotation.apply(out, room);
    }

    /// `out` becomes a query in this space: for a dot product it is not moved.
    pub(super) fn query(&self, query: &[f32], out: &mut Vec<f32>, room: &mut Vec<f32>) {
        out.clear();
        if self.metric == Metric::Dot {
            out.extend_from_slice(query);
        } else {
            out.extend(query.iter().zip(&self.center).map(|(value, center)| value - center));
        }
        self.rotation.apply(out, room);
    }
}
