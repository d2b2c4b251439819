//! Whether codes tell near rows apart, so that a graph over them is one over the rows.

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
/// Rows compared at a time.
const STEP: u32 = 1024;

/// Whether most of the nearest rows of a sample are those that codes find. Rows as near as the last
/// of the nearest are as good. O(rows); the same on any number of threads.
pub(crate) fn tells_apart(codes: &dyn Space, full: &dyn Space, executor: &dyn Executor) -> bool {
    let rows = full.rows();
    let samples = SAMPLES.min(rows);
    if rows as usize <= NEIGHBOURS {
        return true;
    }
    let found = map_runs(executor, samples as usize, 1, &|run| {
        // The sampled rows are fewer than 2^32.
        let place = run.start as u64 * u64::from(rows) / u64::from(samples);
        let row = RowId(u32::try_from(place).unwrap_or(0));
        found_by_codes(codes, full, row)
    });
    let found: usize = found.into_iter().sum();
    found as f64 >= PART_MIN * (samples as usize * NEIGHBOURS) as f64
}

/// How many of the rows that are nearest by their codes are no farther than the nearest ones are.
fn found_by_codes(codes: &dyn Space, full: &dyn Space, from: RowId) -> usize {
    let nearest = nearest(full, from);
    let Some((farthest, _row)) = nearest.last() else { return 0 };
    let by_codes: Vec<RowId> = nearest_rows(codes, from);
    let mut distances = vec![0.0; by_codes.len()];
    full.distances(from, &by_codes, &mut distances);
    distances.iter().filter(|distance| *distance <= farthest).count()
}

fn nearest_rows(space: &dyn Space, from: RowId) -> Vec<RowId> {
    nearest(space, from).into_iter().map(|(_distance, row)| row).collect()
}

/// The nearest rows but the row itself, in order.
fn nearest(space: &dyn Space, from: RowId) -> Vec<(f32, RowId)> {
    let mut best: Vec<(f32, RowId)> = Vec::with_capacity(2 * NEIGHBOURS + STEP as usize);
    let (mut rows, mut distances) = (Vec::new(), Vec::new());
    let mut start = 0;
    while start < space.rows() {
        let end = space.rows().min(start.saturating_add(STEP));
        rows.clear();
        rows.extend((start..end).map(RowId).filter(|row| *row != from));
        distances.resize(rows.len(), 0.0);
        space.distances(from, &rows, &mut distances);
        best.extend(distances.iter().copied().zip(rows.iter().copied()));
        if best.len() > NEIGHBOURS {
            best.select_nth_unstable_by(NEIGHBOURS - 1, |a, b| order(*a, *b));
            best.truncate(NEIGHBOURS);
        }
        start = end;
    }
    best.sort_unstable_by(|a, b| order(*a, *b));
    best
}

fn order(a: (f32, RowId), b: (f32, RowId)) -> std::cmp::Ordering {
    a.0.total_cmp(&b.0).then(a.1.0.cmp(&b.1.0))
}
