//! From vectors to hashes.

use arrwdb_kernel::kernels;

use super::Config;
use crate::Metric;
use crate::norm::sum_of_squares;
use crate::random::hash;

/// The largest whole number that a number is rounded to.
const REACH: f32 = 127.0;
/// A hyperplane's numbers are sums of so many random ones of `TERM_BITS` bits: near enough to
/// normal, so that no direction is preferred.
const TERMS: u32 = 8;
const TERM_BITS: u32 = 5;
/// What a hyperplane's number of 0 is stored as: the mean of such sums.
const ZERO: i64 = 124;
const _: () = assert!(2 * ZERO == TERMS as i64 * ((1 << TERM_BITS) - 1));

/// The map from vectors to hashes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Hashing {
    metric: Metric,
    dims: usize,
    /// What rows are multiplied with for [`Metric::Dot`].
    pub(super) scale: f32,
    /// The mean of what is hashed; one number more than `dims` for [`Metric::Dot`].
    pub(super) center: Vec<f32>,
    /// A hyperplane for each bit of each table.
    planes: Vec<u8>,
}

/// Memory of hashing, to be used again.
#[derive(Default)]
pub(super) struct Room {
    values: Vec<f32>,
    whole: Vec<i8>,
}

impl Hashing {
    /// The map of a seed; its center is 0.
    pub(super) fn new(metric: Metric, dims: usize, scale: f32, config: Config, seed: u64) -> Self {
        let width = dims + usize::from(metric == Metric::Dot);
        let planes = config.num_tables as usize * config.hash_size as usize;
        let number = |counter: usize| {
            let random = hash(seed, counter as u64);
            let term = |place| (random >> (place * TERM_BITS)) & ((1 << TERM_BITS) - 1);
            u8::try_from((0..TERMS).map(term).sum::<u64>()).unwrap_or(u8::MAX)
        };
        let planes = (0..planes * width).map(number).collect();
        Self { metric, dims, scale, center: vec![0.0; width], planes }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.center.as_slice()) + self.planes.len()
    }

    /// What is hashed of a row, before the center is taken off.
    pub(super) fn row(&self, (vector, inverse_norm): (&[f32], f32), values: &mut Vec<f32>) {
        let factor = match self.metric {
            Metric::Cosine => inverse_norm,
            Metric::Dot => self.scale,
            Metric::L2 => 1.0,
        };
        values.clear();
        values.extend(vector.iter().map(|value| value * factor));
        if self.metric == Metric::Dot {
            values.push(nearest((1.0 - sum_of_squares(values)).max(0.0).sqrt()));
        }
    }

    /// The same of a query.
    fn query(&self, vector: &[f32], values: &mut Vec<f32>) {
        values.clear();
        if self.metric == Metric::Dot {
            let norm = sum_of_squares(vector).sqrt();
            let factor = if norm > 0.0 { 1.0 / norm } else { 0.0 };
            values.extend(vector.iter().map(|value| nearest(f64::from(*value) * factor)));
            values.push(0.0);
        } else {
            values.extend_from_slice(vector);
        }
    }

    /// The hashes of a row, one for each table.
    pub(super) fn hash_row(
        &self,
        row: (&[f32], f32),
        config: Config,
        room: &mut Room,
        codes: &mut Vec<u32>,
    ) {
        self.row(row, &mut room.values);
        let bits = config.hash_size as usize;
        for (plane, product) in self.products(room).enumerate() {
            if plane % bits == 0 {
                codes.push(0);
            }
            if let Some(code) = codes.last_mut() {
                *code |= u32::from(product >= 0) << (plane % bits);
            }
        }
    }

    /// On which side of each hyperplane a query is and how far from it.
    pub(super) fn query_products(&self, vector: &[f32]) -> Vec<i64> {
        assert_eq!(vector.len(), self.dims, "dimension of the query");
        let mut room = Room::default();
        self.query(vector, &mut room.values);
        self.products(&mut room).collect()
    }

    /// The products of the room's values, less the center, with each hyperplane.
    fn products<'a>(&'a self, room: &'a mut Room) -> impl Iterator<Item = i64> + 'a {
        let kernels = kernels();
        for (value, center) in room.values.iter_mut().zip(&self.center) {
            *value -= center;
        }
        let largest = kernels.largest(&room.values);
        let inverse = if largest > 0.0 { REACH / largest } else { 0.0 };
        room.whole.resize(room.values.len(), 0);
        kernels.quantize(&room.values, inverse, &mut room.whole);
        let sum: i64 = room.whole.iter().map(|value| i64::from(*value)).sum();
        let (whole, planes) = (&room.whole, self.planes.chunks_exact(self.center.len()));
        planes.map(move |plane| i64::from(kernels.dot_bytes(plane, whole)) - ZERO * sum)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is what is asked for")]
pub(super) fn nearest(value: f64) -> f32 {
    value as f32
}
