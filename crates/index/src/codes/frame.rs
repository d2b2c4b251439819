//! Where codes are: rows less a centre, rotated.

use std::io;

use crate::norm::{round, sum_of_squares};
use crate::rotation::Rotation;
use crate::{Malformed, Metric, RowId, SectionReader, SectionWriter, Vectors};

/// The seed of the rotation: codes depend on the rows and what is asked for alone.
const SEED: u64 = 0x5eed;
/// Rows that the centre is the mean of, at most: more would not move it.
const CENTER_ROWS_MAX: u32 = 65_536;

/// A centre and a rotation around it. With `x` a row there and `q` a query, cosine and L2 are both
/// `w * |x - q|^2`, with `w` 1/2 for unit vectors and 1; a dot product is `1 - q . centre - q . x`,
/// the query being rotated and not moved.
#[derive(Debug)]
pub(crate) struct Frame {
    metric: Metric,
    seed: u64,
    center: Vec<f32>,
    rotation: Rotation,
}

/// A query in a frame.
#[derive(Debug)]
pub(crate) struct Framed {
    pub(crate) numbers: Vec<f32>,
    /// How long it is.
    pub(crate) length: f32,
    /// What it adds to the distance of every row.
    pub(crate) own: f32,
}

impl Frame {
    /// The frame of these rows.
    pub(crate) fn of<V: Vectors + ?Sized>(metric: Metric, vectors: &V) -> Self {
        Self::new(metric, center(metric, vectors), SEED)
    }

    pub(crate) fn new(metric: Metric, center: Vec<f32>, seed: u64) -> Self {
        let rotation = Rotation::new(center.len(), seed);
        Self { metric, seed, center, rotation }
    }

    pub(crate) fn metric(&self) -> Metric {
        self.metric
    }

    pub(crate) fn dims(&self) -> usize {
        self.center.len()
    }

    pub(crate) fn center(&self) -> &[f32] {
        &self.center
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.center.as_slice()) + self.rotation.bytes()
    }

    /// How much a vector's own square, and the product of two, count for in a distance.
    pub(crate) fn weights(&self) -> (f32, f32) {
        match self.metric {
            Metric::Cosine => (0.5, 1.0),
            Metric::L2 => (1.0, 2.0),
            Metric::Dot => (0.0, 1.0),
        }
    }

    /// `out` becomes a row in this frame. `room` is memory to be used again.
    pub(crate) fn row<V: Vectors + ?Sized>(
        &self,
        vectors: &V,
        row: usize,
        out: &mut Vec<f32>,
        room: &mut Vec<f32>,
    ) {
        let (vector, inverse_norm) = vectors.row(RowId(u32::try_from(row).unwrap_or(u32::MAX)));
        let weight = if self.metric == Metric::Cosine { inverse_norm } else { 1.0 };
        out.clear();
        out.extend(vector.iter().zip(&self.center).map(|(value, center)| value * weight - center));
        self.rotation.apply(out, room);
    }

    /// A query, which for [`Metric::Cosine`] is a unit vector, in this frame.
    pub(crate) fn query(&self, query: &[f32]) -> Framed {
        assert_eq!(query.len(), self.dims(), "dimension of the query");
        let mut numbers = query.to_vec();
        if self.metric != Metric::Dot {
            for (value, center) in numbers.iter_mut().zip(&self.center) {
                *value -= center;
            }
        }
        self.rotation.apply(&mut numbers, &mut Vec::new());
        let length = round(sum_of_squares(&numbers)).sqrt();
        let own = if self.metric == Metric::Dot {
            1.0 - query.iter().zip(&self.center).map(|(a, b)| a * b).sum::<f32>()
        } else {
            self.weights().0 * length * length
        };
        Framed { numbers, length, own }
    }

    /// Writes it: number metric, number seed, array f32 centre.
    pub(crate) fn write(&self, out: &mut SectionWriter<'_>) -> io::Result<()> {
        out.number(metric_number(self.metric))?;
        out.number(self.seed)?;
        out.array(&self.center)
    }

    /// Reads the frame of rows of `dims` numbers.
    pub(crate) fn read(
        from: &mut SectionReader<'_>,
        metric: Metric,
        dims: usize,
    ) -> Result<Self, Malformed> {
        let wrong = from.malformed("codes for another metric");
        if from.number("metric")? != metric_number(metric) {
            return Err(wrong);
        }
        let seed = from.number("seed")?;
        let center: &[f32] = from.array_of("centre", dims)?;
        if !center.iter().all(|value| value.is_finite()) {
            return Err(from.malformed("a centre of finite numbers"));
        }
        Ok(Self::new(metric, center.to_vec(), seed))
    }
}

/// What a vector's own square adds to its distance: nothing where it does not count, even if it
/// overflowed.
#[inline]
pub(crate) fn own_term(weight: f32, square: f32) -> f32 {
    if weight > 0.0 { weight * square } else { 0.0 }
}

/// The mean of (up to 65,536 of) the rows, of unit length for cosine.
pub(crate) fn center<V: Vectors + ?Sized>(metric: Metric, vectors: &V) -> Vec<f32> {
    let rows = vectors.rows();
    let step = rows.div_ceil(CENTER_ROWS_MAX).max(1);
    let mut sums = vec![0.0_f64; vectors.dims()];
    let mut count = 0_u32;
    let sample = || (0..rows).step_by(step as usize).map(RowId);
    let mut lengths: Vec<f64> = sample().map(|row| 1.0 / f64::from(vectors.row(row).1)).collect();
    lengths.sort_by(f64::total_cmp);
    let usual = lengths.get(lengths.len() / 2).copied().unwrap_or(1.0);
    for row in sample() {
        let (vector, inverse_norm) = vectors.row(row);
        let inverse_norm = f64::from(inverse_norm);
        // One very long row among many does not pull the centre away from all the others.
        let weight =
            if metric == Metric::Cosine { inverse_norm } else { (usual * inverse_norm).min(1.0) };
        for (sum, value) in sums.iter_mut().zip(vector) {
            *sum += f64::from(*value) * weight;
        }
        count += 1;
    }
    sums.iter().map(|sum| round(sum / f64::from(count.max(1)))).collect()
}

pub(crate) fn metric_number(metric: Metric) -> u64 {
    match metric {
        Metric::Cosine => 0,
        Metric::Dot => 1,
        Metric::L2 => 2,
    }
}
