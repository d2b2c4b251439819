//! Queries that wait for rows: for new rows, all queries that are within their threshold of one.
//!
//! It is a search the other way round, exact as [`crate::brute_force`] is, and as incremental as a
//! set: queries come and go one by one. Most pairs are ruled out by codes: 7 bits for each number
//! of a query, in [`Panels`], and 8 of a row, both rotated as in [`crate::codes`]. With `x` and `q`
//! the rotated vectors, `c` their codes and `e` how far those are from them, `x . q` is at most
//! `scale_x scale_q (c_x . c_q) + |q| e_x + e_q (|x| + e_x)` (Cauchy and Schwarz) and a rounding
//! that grows with the vectors' squares. Whatever that leaves is scored by the vectors, as a search
//! scores it: the same distance, bit for bit.
//!
//! A panel of 32 queries stays in the nearest cache while up to 32 rows go past it, so that rows
//! should come in batches.

use arrwdb_kernel::{BoundRows, PANEL_NUMBERS, PANEL_POINTS, POINT_CODE_MAX, Panels, kernels};

use crate::codes::{Frame, distance_of_codes, inverse, own_term};
use crate::{Metric, RowId, Scorer, VectorScorer, Vectors};

/// The seed of the rotation. Codes are never stored, so that it can change.
const SEED: u64 = 0x57a1d;
/// Above this a vector's square is not trusted to be a number: it is never ruled out.
const LENGTH_MAX: f32 = 1e18;
const ROW_CODE_MAX: i8 = 127;

/// Queries with their thresholds.
#[derive(Debug)]
pub struct Queries {
    metric: Metric,
    frame: Frame,
    /// The length of the frame's centre.
    center: f32,
    panels: Panels,
    /// For each panel its queries' vectors, row-major; for cosine of unit length.
    vectors: Vec<Box<[f32]>>,
    /// For each place its query's threshold as a [`Scorer`] gives distances; none where there is no
    /// query.
    thresholds: Vec<Option<f32>>,
    free: Vec<u32>,
}

/// A row within the threshold of a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QueryMatch {
    /// The row.
    pub row: RowId,
    /// The query's place.
    pub query: u32,
    /// As people mean it: [`Metric::reported`].
    pub distance: f32,
}

/// What is known of a vector's codes.
struct Coded {
    scale: f32,
    /// How long the vector is, where the frame is.
    length: f32,
    /// How far its codes are from it.
    error: f32,
}

impl Coded {
    fn of(numbers: &[f32], reach: i8, codes: &mut [i8]) -> Self {
        let scale = kernels().largest(numbers) / f32::from(reach);
        kernels().quantize(numbers, inverse(scale), codes);
        for code in codes.iter_mut() {
            *code = (*code).clamp(-reach, reach);
        }
        let length = numbers.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>();
        #[expect(clippy::cast_possible_truncation, reason = "infinite is never ruled out")]
        let length = (length.sqrt() * (1.0 + 1e-6)) as f32;
        Self { scale, length, error: distance_of_codes(numbers, codes, scale) }
    }

    /// Whether bounds can be calculated with it.
    fn is_usual(&self) -> bool {
        self.length < LENGTH_MAX && self.error < LENGTH_MAX && self.scale.is_finite()
    }
}

impl Queries {
    /// No queries yet. The nearer most vectors are to `center` the fewer pairs are scored; it has
    /// no other effect, and is not used for [`Metric::Dot`].
    ///
    /// # Panics
    /// If the centre has no dimension.
    pub fn new(metric: Metric, center: &[f32]) -> Self {
        let usable = metric != Metric::Dot && center.iter().all(|value| value.abs() < LENGTH_MAX);
        let center = if usable { center.to_vec() } else { vec![0.0; center.len()] };
        let length = center.iter().map(|value| value * value).sum::<f32>().sqrt();
        let dims = center.len();
        Self {
            metric,
            frame: Frame::new(metric, center, SEED),
            center: length,
            panels: Panels::new(dims, 0),
            vectors: Vec::new(),
            thresholds: Vec::new(),
            free: Vec::new(),
        }
    }

    /// How many queries there are.
    pub fn len(&self) -> usize {
        self.thresholds.len() - self.free.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        let vectors: usize = self.vectors.iter().map(|panel| size_of_val(&**panel)).sum();
        self.panels.bytes() + self.frame.bytes() + vectors + 12 * self.thresholds.capacity()
    }

    /// Adds a query, which for [`Metric::Cosine`] is a unit vector, and gives its place: rows with
    /// `distance <= threshold` match. O(dims log dims).
    ///
    /// # Panics
    /// If the query has another dimension, or there are 2^32 queries.
    pub fn insert(&mut self, query: &[f32], threshold: f32) -> u32 {
        let dims = self.frame.dims();
        assert_eq!(query.len(), dims, "dimension of the query");
        let threshold = self.metric.scored(threshold);
        let place = self.take_place();
        let point = place as usize;
        self.thresholds[point] = Some(threshold);
        let vectors = &mut self.vectors[point / PANEL_POINTS];
        vectors[point % PANEL_POINTS * dims..][..dims].copy_from_slice(query);
        let framed = self.frame.query(query);
        let mut codes = vec![0; dims];
        let coded = Coded::of(&framed.numbers, POINT_CODE_MAX, &mut codes);
        let (_own_weight, weight) = self.frame.weights();
        let length = coded.length;
        let slack = 2.0 * length * length + framed.own.abs() + 1.0;
        let slack = self.rounding() * (slack + self.center * (length + self.center));
        let term = (framed.own - threshold - slack) / weight;
        if coded.is_usual() && term < f32::MAX {
            self.panels.set(point, &codes, coded.scale, term);
            self.panels.reach(point, [coded.length, coded.error]);
        } else {
            self.panels.set(point, &codes, 0.0, f32::NEG_INFINITY);
        }
        place
    }

    /// Removes the query of a place, which another one may take. O(1).
    ///
    /// # Panics
    /// If there is none.
    pub fn remove(&mut self, place: u32) {
        let removed = self.thresholds[place as usize].take();
        assert!(removed.is_some(), "there is a query at its place");
        self.panels.clear(place as usize);
        self.free.push(place);
    }

    /// Calls `found` with every row that is within the threshold of a query, in no order. O(rows *
    /// queries * dims), of few bits; rows in batches of 32 or more are quickest.
    ///
    /// # Panics
    /// If the rows have another dimension.
    pub fn matches<V: Vectors + ?Sized>(&self, rows: &V, found: &mut dyn FnMut(QueryMatch)) {
        let dims = self.frame.dims();
        assert_eq!(rows.dims(), dims, "dimension of the rows");
        if self.is_empty() {
            return;
        }
        let stride = dims.next_multiple_of(PANEL_NUMBERS);
        let count = rows.rows() as usize;
        let mut codes = vec![0; count * stride];
        let (mut weights, mut limits, mut reaches) = (Vec::new(), Vec::new(), Vec::new());
        let (mut numbers, mut room) = (Vec::new(), Vec::new());
        for (row, codes) in codes.chunks_exact_mut(stride).enumerate() {
            self.frame.row(rows, row, &mut numbers, &mut room);
            let coded = Coded::of(&numbers, ROW_CODE_MAX, &mut codes[..dims]);
            let limit = self.limit(&coded);
            let usual = coded.is_usual() && limit < f32::MAX;
            weights.push(if usual { coded.scale } else { 0.0 });
            limits.push(if usual { limit } else { f32::NEG_INFINITY });
            let reach = [coded.error, coded.length + coded.error];
            reaches.push(if usual { reach } else { [0.0; 2] });
        }
        let bound =
            BoundRows { codes: &codes, weights: &weights, limits: &limits, reaches: &reaches };
        kernels().points_within(bound, &self.panels, &mut |row, query| {
            if let Some(distance) = self.score(rows, RowId(row), query) {
                found(QueryMatch { row: RowId(row), query, distance });
            }
        });
    }

    /// The distance of a row from the query of a place, if it is within its threshold.
    fn score<V: Vectors + ?Sized>(&self, rows: &V, row: RowId, query: u32) -> Option<f32> {
        // What cannot be ruled out may be a place without a query.
        let threshold = self.thresholds.get(query as usize).copied().flatten()?;
        let (point, dims) = (query as usize, self.frame.dims());
        let vectors = &self.vectors[point / PANEL_POINTS];
        let vector = &vectors[point % PANEL_POINTS * dims..][..dims];
        let mut distance = [0.0];
        VectorScorer::new(self.metric, vector, rows).score_range(row, &mut distance);
        (distance[0] <= threshold).then(|| self.metric.reported(distance[0]))
    }

    /// What the product of a row has to reach.
    fn limit(&self, coded: &Coded) -> f32 {
        let (own_weight, weight) = self.frame.weights();
        let square = coded.length * coded.length;
        let slack = self.rounding() * (2.0 * square + 1.0 + self.center * coded.length);
        // The length is rounded up, and what it adds shall not be.
        (own_term(own_weight, square) * (1.0 - 4e-6) - slack - f32::MIN_POSITIVE) / weight
    }

    /// What bounds are rounded by, for each of the squares they are sums of; twice over.
    fn rounding(&self) -> f32 {
        2.0 * (self.frame.dims() as f32 + 64.0) * f32::EPSILON
    }

    fn take_place(&mut self) -> u32 {
        if let Some(place) = self.free.pop() {
            return place;
        }
        let place = self.thresholds.len();
        if place == self.panels.points() {
            self.panels.grow();
            let numbers = PANEL_POINTS * self.frame.dims();
            self.vectors.push(vec![0.0; numbers].into_boxed_slice());
        }
        self.thresholds.push(None);
        let numbered = u32::try_from(place);
        assert!(numbered.is_ok(), "queries are counted in 32 bits");
        numbered.unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests;
