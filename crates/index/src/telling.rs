//! Whether codes tell near rows apart, so that a graph over them is one over the rows.

use std::cmp::Ordering;

use crate::codes::Space;
use crate::executor::map_runs;
use crate::{Executor, RowId};

/// Rows whose neighbours are looked at, evenly spread: a few parts in a hundred of a build's time.
const SAMPLES: u32 = 24;
/// How many neighbours of each.
const NEIGHBOURS: usize = 16;
/// The least part of the nearest rows that codes have to find. Those of 8 bits find all but one or two
/// in a hundred of usual embeddings, and next to none in narrow clusters far from one another, whose
/// rows all have the same code.
const PART_MIN: f64 = 0.9;
/// Of so many rows of the sample codes may find less than half of the neighbours: a few may lie apart
/// from all others, more are a part of the rows that a graph over codes would lose its way in.
const LOST_MAX: usize = 1;
/// Rows compared at a time.
const STEP: usize = 1024;

/// The nearest rows of a row, in any order.
type Nearest = Vec<(f32, RowId)>;

/// Whether most of the nearest rows of a sample are those that codes find. Rows as near as the last
/// of the nearest are as good. Each row is read once: O(rows); the same on any number of threads.
pub(crate) fn tells_apart(codes: &dyn Space, full: &dyn Space, executor: &dyn Executor) -> bool {
    let rows = full.rows();
    if rows as usize <= NEIGHBOURS {
        return true;
    }
    let samples = u64::from(SAMPLES.min(rows));
    // Less than the rows, which are less than 2^32.
    let place = |sample| u32::try_from(sample * u64::from(rows) / samples).unwrap_or(0);
    let sample: Vec<RowId> = (0..samples).map(|sample| RowId(place(sample))).collect();
    let of_runs = map_runs(executor, rows as usize, STEP, &|run| {
        let stopped = executor.stopped();
        // Runs end below the number of rows.
        let row = |at| RowId(u32::try_from(at).unwrap_or(u32::MAX));
        let run: Vec<RowId> = if stopped { Vec::new() } else { run.map(row).collect() };
        let nearest = |space: &dyn Space| -> Vec<Nearest> {
            sample.iter().map(|from| nearest_of(space, *from, &run)).collect()
        };
        (nearest(full), nearest(codes))
    });
    let mut full_nearest = vec![Nearest::new(); sample.len()];
    let mut code_nearest = full_nearest.clone();
    for (of_full, of_codes) in of_runs {
        merge(&mut full_nearest, of_full);
        merge(&mut code_nearest, of_codes);
    }
    let nearest = full_nearest.iter().zip(&code_nearest);
    let found: Vec<usize> = sample
        .iter()
        .zip(nearest)
        .map(|(from, (by_vectors, by_codes))| found_by_codes(full, *from, (by_vectors, by_codes)))
        .collect();
    let lost = found.iter().filter(|found| **found < NEIGHBOURS / 2).count();
    let all = (sample.len() * NEIGHBOURS) as f64;
    lost <= LOST_MAX && found.iter().sum::<usize>() as f64 >= PART_MIN * all
}

/// How many of the rows that are nearest by their codes are no farther than the nearest ones are.
fn found_by_codes(
    full: &dyn Space,
    from: RowId,
    (by_vectors, by_codes): (&Nearest, &Nearest),
) -> usize {
    let farthest = by_vectors.iter().map(|(distance, _row)| *distance).fold(0.0, f32::max);
    let rows: Vec<RowId> = by_codes.iter().map(|(_distance, row)| *row).collect();
    let mut distances = vec![0.0; rows.len()];
    full.distances(from, &rows, &mut distances);
    distances.iter().filter(|distance| **distance <= farthest).count()
}

/// The nearest of these rows but the row itself.
fn nearest_of(space: &dyn Space, from: RowId, rows: &[RowId]) -> Nearest {
    let others: Vec<RowId> = rows.iter().copied().filter(|row| *row != from).collect();
    let mut distances = vec![0.0; others.len()];
    space.distances(from, &others, &mut distances);
    let mut nearest: Nearest = distances.into_iter().zip(others).collect();
    keep_nearest(&mut nearest);
    nearest
}

fn merge(all: &mut [Nearest], of_run: Vec<Nearest>) {
    for (all, mut of_run) in all.iter_mut().zip(of_run) {
        all.append(&mut of_run);
        keep_nearest(all);
    }
}

fn keep_nearest(nearest: &mut Nearest) {
    if nearest.len() > NEIGHBOURS {
        let order = |a: &(f32, RowId), b: &(f32, RowId)| -> Ordering {
            a.0.total_cmp(&b.0).then(a.1.0.cmp(&b.1.0))
        };
        nearest.select_nth_unstable_by(NEIGHBOURS - 1, order);
        nearest.truncate(NEIGHBOURS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::{Bits, Errors, ScalarCodes};
    use crate::full_space::FullSpace;
    use crate::{Metric, RowBlock, Sequential, inverse_norm};

    /// Whether 8-bit codes tell apart rows that are this far from one of 10 centres.
    fn told(dims: usize, rows: usize, spread: f32, metric: Metric) -> bool {
        let mut state = 7_u64;
        let mut number = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_041);
            (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
        };
        let centres: Vec<f32> = (0..10 * dims).map(|_place| number()).collect();
        let place = |at: usize| centres[at / dims % 10 * dims + at % dims];
        let vectors: Vec<f32> = (0..rows * dims).map(|at| place(at) + spread * number()).collect();
        let norms: Vec<f32> =
            vectors.chunks_exact(dims).map(|row| inverse_norm(row).unwrap()).collect();
        let block = RowBlock::new(dims, &vectors, &norms);
        let codes = ScalarCodes::encode(metric, Bits::Eight, Errors::Omitted, &block, &Sequential);
        tells_apart(&codes, &FullSpace::new(metric, &block), &Sequential)
    }

    #[test]
    fn codes_tell_usual_rows_apart_and_those_of_narrow_clusters_not() {
        for metric in [Metric::Cosine, Metric::L2] {
            for dims in [8, 64, 384] {
                assert!(told(dims, 1500, 0.5, metric), "{metric:?} {dims}");
                assert!(!told(dims, 1500, 1e-4, metric), "{metric:?} {dims}");
            }
        }
        // All of so few are neighbours of one another.
        assert!(told(8, NEIGHBOURS, 1e-4, Metric::L2));
        assert!(told(8, NEIGHBOURS + 1, 1e-4, Metric::L2));
    }
}
