//! Building a tree, level by level.

use std::cmp::Ordering;
use std::ops::Range;

use super::{AXES_MAX, Config, Frame, KdTree, above, below, depth, halves, nearest};
use crate::executor::map_runs;
use crate::{Executor, Metric, RowId, Vectors};

/// Rows that the mean and the axes of boxes are taken from, at most.
const FRAME_ROWS_MAX: usize = 4096;
/// Rows of a node that are looked at to find out which number varies most, at most.
const SPREAD_ROWS_MAX: usize = 128;
/// Rows of one task, about.
const TASK_ROWS: usize = 4096;

/// Builds the tree of a segment's rows. The same for the same rows, metric and configuration, on
/// any number of threads (I4). O(rows * dims * log rows) at most.
pub fn build<V: Vectors + ?Sized>(
    metric: Metric,
    vectors: &V,
    config: Config,
    executor: &dyn Executor,
) -> KdTree {
    let leaf_rows = config.leaf_rows.max(1);
    let (rows, space) = (vectors.rows(), Space { metric, vectors });
    let levels = depth(rows, leaf_rows);
    let order = space.order(levels, executor);
    let frame = space.frame(executor);
    let mut runs: Vec<Range<usize>> = std::iter::once(0..order.len()).collect();
    for _ in 0..levels {
        runs = runs.iter().flat_map(halves).collect();
    }
    let grain = (TASK_ROWS / leaf_rows as usize).max(1);
    let leaves = map_runs(executor, runs.len(), grain, &|leaves| {
        let leaf = |run: &Range<usize>| space.leaf(&frame, &order[run.clone()]);
        runs[leaves].iter().map(leaf).collect::<Vec<Leaf>>()
    });
    let mut tree = KdTree {
        metric,
        rows,
        leaf_rows,
        order,
        boxes: Vec::new(),
        centers: Vec::new(),
        reaches: Vec::new(),
        frame,
    };
    for leaf in leaves.into_iter().flatten() {
        tree.boxes.extend(leaf.sides);
        tree.centers.extend(leaf.center);
        tree.reaches.extend(leaf.reach);
    }
    tree.boxes = with_inner(tree.boxes, tree.frame.sides());
    tree
}

/// What is known of the rows of a leaf.
struct Leaf {
    sides: Vec<f32>,
    center: Vec<f32>,
    reach: Option<f32>,
}

/// The boxes of all nodes from those of the leaves.
fn with_inner(leaves: Vec<f32>, sides: usize) -> Vec<f32> {
    let mut levels = vec![leaves];
    while let Some(last) = levels.last().filter(|level| level.len() > 2 * sides) {
        let pairs = last.chunks_exact(4 * sides);
        let above = pairs.flat_map(|pair| {
            let (left, right) = pair.split_at(2 * sides);
            let side = |side| {
                let (a, b): (f32, f32) = (left[side], right[side]);
                if side < sides { a.min(b) } else { a.max(b) }
            };
            (0..2 * sides).map(side).collect::<Vec<f32>>()
        });
        levels.push(above.collect());
    }
    levels.into_iter().rev().flatten().collect()
}

/// The rows as the tree sees them: unit vectors for cosine.
struct Space<'a, V: ?Sized> {
    metric: Metric,
    vectors: &'a V,
}

impl<V: Vectors + ?Sized> Space<'_, V> {
    /// A row and what its numbers are multiplied with.
    fn row(&self, row: u32) -> (&[f32], f64) {
        let (vector, inverse) = self.vectors.row(RowId(row));
        (vector, if self.metric == Metric::Cosine { f64::from(inverse) } else { 1.0 })
    }

    /// The rows in tree order.
    fn order(&self, levels: u32, executor: &dyn Executor) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.vectors.rows()).collect();
        let mut runs: Vec<Range<usize>> = std::iter::once(0..order.len()).collect();
        for _ in 0..levels {
            let grain = (TASK_ROWS / runs[0].len().max(1)).max(1);
            let parts = map_runs(executor, runs.len(), grain, &|nodes| {
                let split = |run: &Range<usize>| self.split(&order[run.clone()]);
                runs[nodes].iter().flat_map(split).collect::<Vec<u32>>()
            });
            order = parts.into_iter().flatten().collect();
            runs = runs.iter().flat_map(halves).collect();
        }
        order
    }

    /// The rows, those of the lower half first. Within the halves the order stays, so rows always
    /// ascend within a node and what is built does not depend on how the median was found.
    fn split(&self, rows: &[u32]) -> Vec<u32> {
        let Some(axis) = self.spreads(rows, SPREAD_ROWS_MAX).widest().first().copied() else {
            return rows.to_vec();
        };
        let value = |row: &u32| {
            let (vector, factor) = self.row(*row);
            (f64::from(vector[axis]) * factor, *row)
        };
        let before = |a: &(f64, u32), b: &(f64, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
        let values: Vec<(f64, u32)> = rows.iter().map(value).collect();
        let mut halved = values.clone();
        let (_, median, _) = halved.select_nth_unstable_by(rows.len() / 2, before);
        let (low, high): (Vec<_>, Vec<_>) =
            values.iter().partition(|value| before(value, median) == Ordering::Less);
        low.into_iter().chain(high).map(|(_, row)| row).collect()
    }

    /// How each number spreads over some of the rows, evenly chosen.
    fn spreads(&self, rows: &[u32], rows_max: usize) -> Spreads {
        let dims = self.vectors.dims();
        let mut spreads = Spreads { count: 0.0, sums: vec![0.0; dims], squares: vec![0.0; dims] };
        for row in rows.iter().step_by(rows.len().div_ceil(rows_max).max(1)) {
            let (vector, factor) = self.row(*row);
            spreads.count += 1.0;
            let sums = spreads.sums.iter_mut().zip(&mut spreads.squares);
            for ((sum, square), value) in sums.zip(vector) {
                let value = f64::from(*value) * factor;
                *sum += value;
                *square += value * value;
            }
        }
        spreads
    }

    fn frame(&self, executor: &dyn Executor) -> Frame {
        let rows: Vec<u32> = (0..self.vectors.rows()).collect();
        let spreads = self.spreads(&rows, FRAME_ROWS_MAX);
        let widest = spreads.widest();
        let mut axes: Vec<u32> =
            widest.iter().take(AXES_MAX).filter_map(|axis| u32::try_from(*axis).ok()).collect();
        axes.sort_unstable();
        let sizes = map_runs(executor, rows.len(), TASK_ROWS, &|run| {
            rows[run].iter().map(|row| self.size(*row)).fold([0.0; 3], largest)
        });
        let [length_max, norm_max, inverse_max] = sizes.into_iter().fold([0.0; 3], largest);
        Frame { axes, mean: spreads.mean(), length_max, norm_max, inverse_max }
    }

    /// A row's length, its length as it is, and what it is multiplied with.
    fn size(&self, row: u32) -> [f64; 3] {
        let (vector, factor) = self.row(row);
        let norm = crate::norm::sum_of_squares(vector).sqrt();
        [norm * factor, norm, factor]
    }

    fn leaf(&self, frame: &Frame, rows: &[u32]) -> Leaf {
        let mut is_axis = vec![false; frame.dims()];
        for axis in &frame.axes {
            is_axis[*axis as usize] = true;
        }
        let sides = frame.sides();
        let mut low = vec![f64::INFINITY; sides];
        let mut high = vec![f64::NEG_INFINITY; sides];
        for row in rows {
            let (vector, factor) = self.row(*row);
            let mut rest = 0.0;
            for ((value, mean), is_axis) in vector.iter().zip(&frame.mean).zip(&is_axis) {
                if !is_axis {
                    let from_mean = f64::from(*value) * factor - f64::from(*mean);
                    rest += from_mean * from_mean;
                }
            }
            let along = frame.axes.iter().map(|axis| f64::from(vector[*axis as usize]) * factor);
            for (side, value) in along.chain([rest.sqrt()]).enumerate() {
                low[side] = low[side].min(value);
                high[side] = high[side].max(value);
            }
        }
        let low = low.into_iter().map(below);
        let sides = low.chain(high.into_iter().map(above)).collect();
        if frame.sees_all() {
            return Leaf { sides, center: Vec::new(), reach: None };
        }
        let center = self.center(rows);
        let reach = Some(self.reach(rows, &center));
        Leaf { sides, center, reach }
    }

    /// The mean of the rows; its direction for cosine, or zero if it has none.
    fn center(&self, rows: &[u32]) -> Vec<f32> {
        let mean = self.spreads(rows, rows.len().max(1)).mean();
        if self.metric == Metric::Cosine {
            return crate::normalized(&mean).map_or(vec![0.0; mean.len()], |(unit, _)| unit);
        }
        mean
    }

    /// How far the rows reach from their center.
    fn reach(&self, rows: &[u32], center: &[f32]) -> f32 {
        let pairs = |row: &u32| {
            let (vector, factor) = self.row(*row);
            let values = vector.iter().map(move |value| f64::from(*value) * factor);
            values.zip(center.iter().map(|value| f64::from(*value)))
        };
        if self.metric == Metric::Cosine {
            let norm = crate::norm::sum_of_squares(center).sqrt();
            let cosine = |row| pairs(row).map(|(a, b)| a * b).sum::<f64>() / norm;
            let least = rows.iter().map(cosine).fold(f64::INFINITY, f64::min);
            // A center without direction, or no rows: everywhere.
            return below(if norm > 0.0 && least.is_finite() { least } else { -2.0 });
        }
        let distance = |row| pairs(row).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt();
        above(rows.iter().map(distance).fold(0.0, f64::max))
    }
}

/// The larger of each; a NaN, which vectors that are damaged give, is larger than all.
fn largest(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    std::array::from_fn(|i| if a[i] >= b[i] || a[i].is_nan() { a[i] } else { b[i] })
}

/// Sums over rows, for each number.
struct Spreads {
    count: f64,
    sums: Vec<f64>,
    squares: Vec<f64>,
}

impl Spreads {
    fn mean(&self) -> Vec<f32> {
        self.sums.iter().map(|sum| nearest(sum / self.count.max(1.0))).collect()
    }

    /// The numbers of a row, that which varies most first; ties by place.
    fn widest(&self) -> Vec<usize> {
        let count = self.count.max(1.0);
        let spread = |axis: &usize| {
            let mean = self.sums[*axis] / count;
            self.squares[*axis] / count - mean * mean
        };
        let mut axes: Vec<(f64, usize)> =
            (0..self.sums.len()).map(|axis| (spread(&axis), axis)).collect();
        axes.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        axes.into_iter().map(|(_, axis)| axis).collect()
    }
}
