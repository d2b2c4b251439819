//! Building tables.

use super::hashing::{Hashing, Room, nearest};
use super::{Config, Lsh, Table};
use crate::executor::map_runs;
use crate::norm::sum_of_squares;
use crate::{Executor, Metric, RowId, Vectors};

/// Rows that one task hashes.
const TASK_ROWS: usize = 1024;
/// Rows that the center is the mean of, at most: more would not move it.
const CENTER_ROWS_MAX: u32 = 65_536;

/// Builds the tables of a segment's rows. The same for the same rows, metric, configuration and
/// seed, on any number of threads and any CPU (I4).
///
/// O(rows * tables * (bits * dims + log rows)).
pub fn build<V: Vectors + ?Sized>(
    metric: Metric,
    vectors: &V,
    config: Config,
    seed: u64,
    executor: &dyn Executor,
) -> Lsh {
    let rows = vectors.rows();
    let scale = if metric == Metric::Dot { scale(vectors, executor) } else { 1.0 };
    let mut hashing = Hashing::new(metric, vectors.dims(), scale, config, seed);
    hashing.center = center(&hashing, vectors);
    let hashed = map_runs(executor, rows as usize, TASK_ROWS, &|run| {
        let (mut codes, mut room) = (Vec::new(), Room::default());
        for row in run.filter_map(|row| u32::try_from(row).ok()) {
            hashing.hash_row(vectors.row(RowId(row)), config, &mut room, &mut codes);
        }
        codes
    });
    let tables = map_runs(executor, config.num_tables as usize, 1, &|tables| {
        let stride = config.num_tables as usize;
        let of = |table| hashed.iter().flatten().skip(table).step_by(stride).copied();
        tables.map(|number| table(of(number))).collect::<Vec<Table>>()
    });
    let tables = tables.into_iter().flatten().collect();
    Lsh { rows, config, seed, hashing, tables }
}

/// A table of rows with these hashes.
fn table(hashes: impl Iterator<Item = u32>) -> Table {
    let mut pairs: Vec<(u32, u32)> = hashes.zip(0..).collect();
    pairs.sort_unstable();
    let mut table = Table { codes: Vec::new(), starts: vec![0], rows: Vec::new() };
    let mut end = 0;
    for bucket in pairs.chunk_by(|a, b| a.0 == b.0) {
        end += u32::try_from(bucket.len()).unwrap_or(u32::MAX);
        table.codes.push(bucket[0].0);
        table.starts.push(end);
    }
    table.rows = pairs.into_iter().map(|(_, row)| row).collect();
    table
}

/// What makes the longest row one of length 1.
fn scale<V: Vectors + ?Sized>(vectors: &V, executor: &dyn Executor) -> f32 {
    let longest = map_runs(executor, vectors.rows() as usize, TASK_ROWS, &|run| {
        let rows = run.filter_map(|row| u32::try_from(row).ok());
        let norm = |row| sum_of_squares(vectors.row(RowId(row)).0).sqrt();
        rows.map(norm).fold(0.0, f64::max)
    });
    let longest = longest.into_iter().fold(0.0, f64::max);
    if longest > 0.0 { nearest(1.0 / longest) } else { 1.0 }
}

/// The mean of what is hashed of rows, evenly chosen.
fn center<V: Vectors + ?Sized>(hashing: &Hashing, vectors: &V) -> Vec<f32> {
    let step = vectors.rows().div_ceil(CENTER_ROWS_MAX).max(1);
    let (mut sums, mut count) = (vec![0.0_f64; hashing.center.len()], 0.0_f64);
    let mut values = Vec::new();
    for row in (0..vectors.rows()).step_by(step as usize) {
        hashing.row(vectors.row(RowId(row)), &mut values);
        for (sum, value) in sums.iter_mut().zip(&values) {
            *sum += f64::from(*value);
        }
        count += 1.0;
    }
    sums.into_iter().map(|sum| nearest(sum / count.max(1.0))).collect()
}
