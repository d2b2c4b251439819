//! What codes stand for: 16 points for each part of a vector.

use std::ops::Range;

use arrwdb_kernel::{BLOCK_ROWS, PART_BYTES, PARTS_MULTIPLE, kernels};

use crate::Executor;
use crate::executor::map_runs;
use crate::norm::{round, sum_of_squares};
use crate::random::hash;

/// Vectors that a book is made from, at most: 256 for each point.
pub(crate) const SAMPLE_MAX: usize = 4096;
/// Rounds of moving points to the mean of what is near to them.
const ROUNDS: usize = 12;
/// Signs that one code holds.
const SIGNS: usize = 4;
/// Parts that one task makes.
const TASK_PARTS: usize = 8;

/// The points of all parts. A vector's numbers are dealt out to parts as evenly as can be, in
/// order; where a part has one fewer than others, a zero stands for it.
#[derive(Debug)]
pub(crate) struct Book {
    dims: usize,
    parts: usize,
    /// Numbers of a part, at most.
    width: usize,
    /// `parts * width * 16`: for each number of each part those of the 16 points.
    points: Vec<f32>,
    /// `parts * 16`: half of the square of each point.
    halves: Vec<f32>,
}

/// A vector in codes: near to `factor` times what they stand for.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    pub(crate) codes: Vec<u8>,
    pub(crate) factor: f32,
    /// The square of the vector.
    pub(crate) square: f32,
    /// `factor` times the product of what the codes stand for with the centroid.
    pub(crate) along: f32,
    padded: Vec<f32>,
}

impl Book {
    /// A book for vectors like `sample`, which are `dims` numbers each.
    pub(crate) fn train(
        dims: usize,
        parts: usize,
        sample: &[f32],
        seed: u64,
        executor: &dyn Executor,
    ) -> Self {
        let width = dims.div_ceil(parts);
        let book = Self { dims, parts, width, points: Vec::new(), halves: Vec::new() };
        let mut padded: Vec<Vec<f32>> = Vec::new();
        for vector in sample.chunks_exact(dims) {
            let scale = unit_scale(vector);
            let mut spread = Vec::new();
            book.pad(vector, &mut spread);
            for value in &mut spread {
                *value *= scale;
            }
            padded.push(spread);
        }
        let made = map_runs(executor, parts, TASK_PARTS, &|run: Range<usize>| -> Vec<f32> {
            run.flat_map(|part| book.train_part(part, &padded, seed)).collect()
        });
        Self::new(dims, parts, made.concat())
    }

    /// The book in which a code is the signs of its numbers: four of them a part, the first the lowest
    /// bit, set where a number is not below zero.
    pub(crate) fn of_signs(dims: usize) -> Self {
        let parts = dims.div_ceil(SIGNS);
        let width = dims.div_ceil(parts);
        let sign = |number: usize, code: usize| if code >> number & 1 == 1 { 1.0 } else { -1.0 };
        let part =
            (0..width).flat_map(|number| (0..PART_BYTES).map(move |code| sign(number, code)));
        Self::new(dims, parts, part.collect::<Vec<f32>>().repeat(parts))
    }

    /// The book of these points.
    pub(crate) fn new(dims: usize, parts: usize, points: Vec<f32>) -> Self {
        let width = dims.div_ceil(parts);
        assert_eq!(points.len(), parts * width * PART_BYTES, "points of all parts");
        let mut halves = vec![0.0_f32; parts * PART_BYTES];
        let (columns, _) = points.as_chunks::<PART_BYTES>();
        for (columns, halves) in columns.chunks(width).zip(halves.as_chunks_mut::<PART_BYTES>().0) {
            for column in columns {
                for (half, value) in halves.iter_mut().zip(column) {
                    *half += value * value / 2.0;
                }
            }
        }
        Self { dims, parts, width, points, halves }
    }

    pub(crate) fn parts(&self) -> usize {
        self.parts
    }

    pub(crate) fn points(&self) -> &[f32] {
        &self.points
    }

    /// Whether codes are fine enough to tell centroids apart.
    pub(crate) fn is_fine(&self) -> bool {
        self.width <= 4
    }

    /// Words of a block of codes.
    pub(crate) fn block_words(&self) -> usize {
        let codes = self.parts.next_multiple_of(PARTS_MULTIPLE) * PART_BYTES;
        codes / size_of::<u32>() + 2 * BLOCK_ROWS
    }

    /// Bytes of a row's codes and its two terms.
    pub(crate) fn row_bytes(&self) -> f64 {
        (self.block_words() * size_of::<u32>()) as f64 / BLOCK_ROWS as f64
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.points.as_slice()) + size_of_val(self.halves.as_slice())
    }

    /// `out` becomes `vector` with its parts all of one width.
    pub(crate) fn pad(&self, vector: &[f32], out: &mut Vec<f32>) {
        out.clear();
        if self.parts * self.width == self.dims {
            out.extend_from_slice(vector);
            return;
        }
        for part in 0..self.parts {
            out.extend_from_slice(&vector[self.part(part)]);
            out.resize((part + 1) * self.width, 0.0);
        }
    }

    /// `out` becomes the codes of `vector` in a book of signs. `room` is memory to be used again.
    pub(crate) fn encode_signs(&self, vector: &[f32], out: &mut Vec<u8>, room: &mut Vec<f32>) {
        self.pad(vector, room);
        let set = |(bit, value): (usize, &f32)| u8::from(*value >= 0.0) << bit;
        let code = |part: &[f32]| part.iter().enumerate().map(set).sum::<u8>();
        out.clear();
        out.extend(room.chunks_exact(self.width).map(code));
    }

    /// `out` becomes the codes of `vector`, which lies at `centroid`.
    pub(crate) fn encode(&self, vector: &[f32], centroid: &[f32], out: &mut Encoded) {
        out.square = round(sum_of_squares(vector));
        let scale = unit_scale(vector);
        self.pad(vector, &mut out.padded);
        for value in &mut out.padded {
            *value *= scale;
        }
        out.codes.resize(self.parts, 0);
        kernels().encode_parts(&out.padded, &self.points, &self.halves, &mut out.codes);
        let (mut product, mut along) = (0.0_f64, 0.0_f64);
        let (columns, _) = self.points.as_chunks::<PART_BYTES>();
        for (part, code) in out.codes.iter().enumerate() {
            let columns = &columns[part * self.width..];
            for (place, column) in self.part(part).zip(columns) {
                let value = f64::from(column[usize::from(*code)]);
                product += value * f64::from(vector[place]);
                along += value * f64::from(centroid[place]);
            }
        }
        // What is at the centroid, or turned away from its own codes, is where the centroid is.
        let factor = if product > 0.0 { f64::from(out.square) / product } else { 0.0 };
        out.factor = round(factor);
        out.along = round(factor * along);
    }

    /// The numbers of a part.
    fn part(&self, part: usize) -> Range<usize> {
        part * self.dims / self.parts..(part + 1) * self.dims / self.parts
    }

    /// The points of one part, number by number.
    fn train_part(&self, part: usize, sample: &[Vec<f32>], seed: u64) -> Vec<f32> {
        let width = self.width;
        let values: Vec<f32> =
            sample.iter().flat_map(|vector| &vector[part * width..][..width]).copied().collect();
        let count = sample.len();
        let mut points = vec![0.0_f32; width * PART_BYTES];
        if count == 0 {
            return points;
        }
        for code in 0..PART_BYTES {
            let random = hash(seed ^ part as u64, code as u64) % count as u64;
            let chosen = usize::try_from(random).unwrap_or(0);
            for place in 0..width {
                points[place * PART_BYTES + code] = values[chosen * width + place];
            }
        }
        for _round in 0..ROUNDS {
            let one = Self::new(width, 1, points.clone());
            let mut sums = vec![0.0_f64; width * PART_BYTES];
            let mut counts = [0_u32; PART_BYTES];
            let mut code = [0_u8];
            for values in values.chunks_exact(width) {
                kernels().encode_parts(values, &one.points, &one.halves, &mut code);
                let code = usize::from(code[0]);
                counts[code] += 1;
                for (place, value) in values.iter().enumerate() {
                    sums[place * PART_BYTES + code] += f64::from(*value);
                }
            }
            for (code, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                for place in 0..width {
                    let sum = sums[place * PART_BYTES + code];
                    points[place * PART_BYTES + code] = round(sum / f64::from(*count));
                }
            }
        }
        points
    }
}

/// What makes the mean square of the numbers 1; 0 if they are zero or too large.
fn unit_scale(vector: &[f32]) -> f32 {
    let mean = sum_of_squares(vector) / vector.len() as f64;
    let scale = round(1.0 / mean.sqrt());
    if scale.is_finite() { scale } else { 0.0 }
}
