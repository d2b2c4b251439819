//! Centroids: k-means over a sample of rows, by products of codes.
//!
//! Rows are codes of a byte a number and centroids of seven bits while they are compared: which
//! centroid is nearest hardly ever depends on more, and products of codes are exact, so that the
//! answer is the same on every machine and for any number of threads.

use std::ops::Range;

use arrwdb_kernel::{NearestPoint, PANEL_NUMBERS, POINT_CODE_MAX, PanelRows, Panels, kernels};

use crate::Executor;
use crate::executor::map_runs;
use crate::norm::{round, sum_of_squares};
use crate::random::hash;

/// Rounds in which the first centroids are chosen (Bahmani et al., "Scalable k-means++", 2012).
const SEED_ROUNDS: u32 = 8;
/// Rounds of moving centroids to the mean of their rows, at most.
const ROUNDS_MAX: u32 = 12;
/// The last rounds only move centroids.
const ROUNDS_SETTLING: u32 = 2;
/// Rounds end when fewer than one row in so many changes its centroid.
const CHANGED_MIN: usize = 200;
/// A centroid with so many times the mean of rows gets another beside it, from one that has less
/// than a part of so many of the mean.
const LARGE: usize = 3;
const SMALL: usize = 4;
/// Rows that one task compares, and centroids that one moves.
const TASK_ROWS: usize = 512;
const TASK_CENTROIDS: usize = 16;
/// The largest code of a row.
const ROW_CODE_MAX: f32 = 127.0;

/// Rows in codes of a byte for each number.
#[derive(Debug)]
pub(super) struct Points {
    dims: usize,
    stride: usize,
    codes: Vec<i8>,
    /// What a code of 1 is worth in each row.
    scales: Vec<f32>,
    inverses: Vec<f32>,
    squares: Vec<f32>,
}

impl Points {
    pub(super) fn new(dims: usize) -> Self {
        let stride = dims.next_multiple_of(PANEL_NUMBERS);
        let (codes, scales, inverses, squares) = Default::default();
        Self { dims, stride, codes, scales, inverses, squares }
    }

    pub(super) fn len(&self) -> usize {
        self.scales.len()
    }

    pub(super) fn push(&mut self, vector: &[f32]) {
        let start = self.codes.len();
        self.codes.resize(start + self.stride, 0);
        let scale = kernels().largest(vector) / ROW_CODE_MAX;
        // A row of zeros, or one that is no number, is where all is zero.
        let usable = scale.is_normal() && (1.0 / scale).is_finite();
        let scale = if usable { scale } else { 1.0 };
        if usable {
            let codes = &mut self.codes[start..start + self.dims];
            kernels().quantize(vector, 1.0 / scale, codes);
        }
        self.scales.push(scale);
        self.inverses.push(1.0 / scale);
        self.squares.push(round(sum_of_squares(vector)));
    }

    pub(super) fn append(&mut self, other: &Self) {
        self.codes.extend_from_slice(&other.codes);
        self.scales.extend_from_slice(&other.scales);
        self.inverses.extend_from_slice(&other.inverses);
        self.squares.extend_from_slice(&other.squares);
    }

    /// The nearest centroid of each row.
    pub(super) fn nearest(&self, panels: &Panels, rows: Range<usize>) -> Vec<NearestPoint> {
        let mut out = vec![NearestPoint { key: 0.0, point: 0 }; rows.len()];
        let codes = &self.codes[rows.start * self.stride..rows.end * self.stride];
        let rows = PanelRows { codes, weights: &self.inverses[rows] };
        kernels().nearest_points(rows, panels, &mut out);
        out
    }

    /// The square of a row's distance from a centroid.
    fn square_to(&self, row: usize, nearest: NearestPoint) -> f64 {
        let square =
            f64::from(self.squares[row]) + f64::from(self.scales[row]) * f64::from(nearest.key);
        // Codes are near to what they stand for and no more: below zero is zero.
        if square.is_finite() { square.max(0.0) } else { 0.0 }
    }

    fn vector(&self, row: usize) -> impl Iterator<Item = f32> {
        let scale = self.scales[row];
        let codes = &self.codes[row * self.stride..][..self.dims];
        codes.iter().map(move |code| f32::from(*code) * scale)
    }
}

/// Panels of these centroids.
pub(super) fn panels(dims: usize, centroids: &[f32]) -> Panels {
    let mut panels = Panels::new(dims, centroids.len() / dims);
    let mut codes = vec![0; dims];
    for (point, centroid) in centroids.chunks_exact(dims).enumerate() {
        let scale = kernels().largest(centroid) / f32::from(POINT_CODE_MAX);
        let usable = scale.is_normal() && (1.0 / scale).is_finite();
        kernels().quantize(centroid, if usable { 1.0 / scale } else { 0.0 }, &mut codes);
        let scale = if usable { scale } else { 0.0 };
        panels.set(point, &codes, -2.0 * scale, round(sum_of_squares(centroid)));
    }
    panels
}

/// `count` centroids of the points, or fewer if fewer are apart.
pub(super) fn train(points: &Points, count: usize, seed: u64, executor: &dyn Executor) -> Vec<f32> {
    let mut centroids = first_centroids(points, count, seed, executor);
    let count = centroids.len() / points.dims;
    let mut before: Vec<u32> = Vec::new();
    for round in 0..ROUNDS_MAX {
        let nearest = assign(points, &panels(points.dims, &centroids), executor);
        let changed = nearest.iter().zip(&before).filter(|(now, before)| now.point != **before);
        let settled = !before.is_empty() && changed.count() * CHANGED_MIN < points.len();
        before = nearest.iter().map(|nearest| nearest.point).collect();
        let grouped = Grouped::of(&before, count);
        centroids = means(points, &centroids, &grouped, executor);
        let sizes = grouped.sizes();
        if round + ROUNDS_SETTLING < ROUNDS_MAX {
            let moved = rebalance(points, &mut centroids, &sizes, |cluster| {
                let place = hash(seed ^ u64::from(round), cluster as u64) % sizes[cluster] as u64;
                grouped.group(cluster)[usize::try_from(place).unwrap_or(0)] as usize
            });
            if settled && moved == 0 {
                break;
            }
        }
    }
    centroids
}

/// Rows by group.
#[derive(Debug)]
pub(super) struct Grouped {
    /// Where each group begins, and the end of the last.
    pub(super) starts: Vec<usize>,
    /// The rows of all groups, ascending within each.
    pub(super) members: Vec<u32>,
}

impl Grouped {
    /// The rows of `groups.len()`, each in one of `count` groups.
    pub(super) fn of(groups: &[u32], count: usize) -> Self {
        let mut starts = vec![0_usize; count + 1];
        for group in groups {
            starts[*group as usize + 1] += 1;
        }
        for group in 0..count {
            starts[group + 1] += starts[group];
        }
        let mut next = starts.clone();
        let mut members = vec![0; groups.len()];
        for (row, group) in (0_u32..).zip(groups) {
            let place = &mut next[*group as usize];
            members[*place] = row;
            *place += 1;
        }
        Self { starts, members }
    }

    /// How many groups there are.
    pub(super) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    pub(super) fn group(&self, group: usize) -> &[u32] {
        &self.members[self.starts[group]..self.starts[group + 1]]
    }

    pub(super) fn sizes(&self) -> Vec<usize> {
        self.starts.windows(2).map(|ends| ends[1] - ends[0]).collect()
    }
}

fn assign(points: &Points, panels: &Panels, executor: &dyn Executor) -> Vec<NearestPoint> {
    map_runs(executor, points.len(), TASK_ROWS, &|run| points.nearest(panels, run)).concat()
}

/// Points chosen a part at a time, each time those far from all before with greater chance.
fn first_centroids(points: &Points, count: usize, seed: u64, executor: &dyn Executor) -> Vec<f32> {
    let mut centroids: Vec<f32> = Vec::with_capacity(count * points.dims);
    let mut squares: Vec<f64> = vec![1.0; points.len()];
    for round in 0..SEED_ROUNDS {
        let wanted = count * (round as usize + 1) / SEED_ROUNDS as usize;
        let wanted = wanted - (centroids.len() / points.dims).min(wanted);
        let start = centroids.len();
        for row in draw(&squares, wanted, hash(seed, u64::from(round))) {
            centroids.extend(points.vector(row));
        }
        if centroids.len() == start {
            continue;
        }
        let nearest = assign(points, &panels(points.dims, &centroids[start..]), executor);
        for (row, (square, nearest)) in squares.iter_mut().zip(nearest).enumerate() {
            let to_new = points.square_to(row, nearest);
            *square = if round == 0 { to_new } else { square.min(to_new) };
        }
    }
    if centroids.is_empty() {
        centroids.extend(points.vector(0));
    }
    centroids
}

/// At most `count` places, evenly over the sum of the weights: none twice.
fn draw(weights: &[f64], count: usize, seed: u64) -> Vec<usize> {
    let total: f64 = weights.iter().sum();
    let step = total / count.max(1) as f64;
    let mut chosen = Vec::with_capacity(count);
    if count == 0 || !(step > 0.0 && step.is_finite()) {
        return chosen;
    }
    let mut next = step * ((hash(seed, 0) >> 11) as f64 / (1_u64 << 53) as f64);
    let mut sum = 0.0;
    for (place, weight) in weights.iter().enumerate() {
        sum += weight;
        if sum > next && chosen.len() < count {
            chosen.push(place);
            // A weight of many steps is chosen once.
            next += step * ((sum - next) / step).floor().max(0.0) + step;
        }
    }
    chosen
}

/// The means of the groups; the centroids of those that have no row stay.
fn means(
    points: &Points,
    centroids: &[f32],
    grouped: &Grouped,
    executor: &dyn Executor,
) -> Vec<f32> {
    let parts = map_runs(executor, grouped.len(), TASK_CENTROIDS, &|run: Range<usize>| {
        let mut out = Vec::with_capacity(run.len() * points.dims);
        for group in run {
            let members = grouped.group(group);
            if members.is_empty() {
                out.extend_from_slice(&centroids[group * points.dims..][..points.dims]);
                continue;
            }
            let mut sums = vec![0.0_f64; points.dims];
            for row in members {
                for (sum, value) in sums.iter_mut().zip(points.vector(*row as usize)) {
                    *sum += f64::from(value);
                }
            }
            out.extend(sums.iter().map(|sum| round(sum / members.len() as f64)));
        }
        out
    });
    parts.concat()
}

/// Moves centroids that have few rows or none to where one has many. Returns how many.
fn rebalance(
    points: &Points,
    centroids: &mut [f32],
    sizes: &[usize],
    choose: impl Fn(usize) -> usize,
) -> usize {
    let mean = points.len().div_ceil(sizes.len());
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_unstable_by_key(|cluster| (sizes[*cluster], *cluster));
    let mut moved = 0;
    let (mut small, mut large) = (0, order.len() - 1);
    while small < large {
        let (from, to) = (sizes[order[small]], sizes[order[large]]);
        let crowded = to > LARGE * mean && from * SMALL < mean;
        if !crowded && (from > 0 || to < 2) {
            break;
        }
        let row = choose(order[large]);
        let centroid = &mut centroids[order[small] * points.dims..][..points.dims];
        for (value, chosen) in centroid.iter_mut().zip(points.vector(row)) {
            *value = chosen;
        }
        moved += 1;
        small += 1;
        large -= 1;
    }
    moved
}
