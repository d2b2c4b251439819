use proptest::prelude::*;

use super::BinaryCodes;
use super::scorer::CONFIDENCE;
use crate::codes::frame::Frame;
use crate::codes::{Access, BoundedScorer, CodesScorer};
use crate::random::hash;
use crate::{
    Metric, RowBlock, RowId, Scorer, Sequential, VectorScorer, Vectors, inverse_norm, normalized,
};

/// Numbers about normally distributed, the same for a seed.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let uniform = |place: u64| f64::from((hash(seed, place) >> 40) as u32) / f64::from(1 << 24);
    let normal = |place: u64| (0..12).map(|part| uniform(12 * place + part)).sum::<f64>() - 6.0;
    (0..count as u64).map(|place| crate::norm::round(normal(place))).collect()
}

const ACCESS: [Access; 2] = [Access::Picked, Access::Scanned];

/// Every metric with either layout, in these dimensions.
fn cases(dims: &[usize]) -> Vec<(usize, Metric, Access)> {
    let each = dims.iter().flat_map(|d| Metric::ALL.map(|metric| (*d, metric)));
    each.flat_map(|(d, metric)| ACCESS.map(|access| (d, metric, access))).collect()
}

struct Rows {
    dims: usize,
    vectors: Vec<f32>,
    inverse_norms: Vec<f32>,
}

impl Rows {
    /// Rows about a point that is as far from the origin as they are from it.
    fn new(seed: u64, dims: usize, rows: usize) -> Self {
        let (middle, mut vectors) = (numbers(seed, dims), numbers(seed ^ 1, rows * dims));
        for row in vectors.chunks_exact_mut(dims) {
            row.iter_mut().zip(&middle).for_each(|(value, middle)| *value += middle);
        }
        let inverse_norms = vectors.chunks_exact(dims).map(|row| inverse_norm(row).unwrap());
        Self { dims, inverse_norms: inverse_norms.collect(), vectors }
    }

    fn block(&self) -> RowBlock<'_> {
        RowBlock::new(self.dims, &self.vectors, &self.inverse_norms)
    }

    /// A query as far from the rows as they are from one another.
    fn query(&self, seed: u64, metric: Metric) -> Vec<f32> {
        let near = &self.vectors[..self.dims];
        let query: Vec<f32> =
            near.iter().zip(numbers(seed, self.dims)).map(|(a, b)| a + b).collect();
        if metric == Metric::Cosine { normalized(&query).unwrap().0 } else { query }
    }
}

/// Each row's estimate, its lower bound and its distance.
fn scored(codes: &BinaryCodes, rows: &Rows, query: &[f32], metric: Metric) -> Vec<[f64; 3]> {
    let block = rows.block();
    let [mut estimates, mut bounds, mut distances] =
        [(); 3].map(|()| vec![f32::NAN; block.rows() as usize]);
    match codes.scorer(query) {
        CodesScorer::Binary(scorer) => {
            scorer.score_range(RowId(0), &mut estimates);
            for (row, (bound, estimate)) in (0..).zip(bounds.iter_mut().zip(&estimates)) {
                *bound = scorer.lower_bound(RowId(row), *estimate);
            }
        }
        CodesScorer::BinaryBlocks(scorer) => {
            let mut block = [f32::NAN; 32];
            for (place, estimates) in estimates.chunks_mut(32).enumerate() {
                scorer.block(place, &mut block);
                estimates.copy_from_slice(&block[..estimates.len()]);
            }
            scorer.lower_bounds(RowId(0), &mut bounds);
        }
        CodesScorer::Scalar(_)
        | CodesScorer::Halved(_)
        | CodesScorer::Product(_)
        | CodesScorer::ProductBlocks(_) => {
            panic!("binary codes")
        }
    }
    VectorScorer::new(metric, query, &block).score_range(RowId(0), &mut distances);
    let each = estimates.into_iter().zip(bounds).zip(distances);
    each.map(|((estimate, bound), distance)| [estimate, bound, distance].map(f64::from)).collect()
}

#[test]
fn over_rotations_estimates_are_right_on_average() {
    let rotations = 600_u32;
    for (dims, metric, access) in cases(&[24, 96, 384]) {
        let rows = Rows::new(5, dims, 8);
        let query = rows.query(9, metric);
        let center = Frame::of(metric, &rows.block()).center().to_vec();
        let (mut errors, mut deviations) = ([0.0; 8], [0.0; 8]);
        for seed in 0..u64::from(rotations) {
            let frame = Frame::new(metric, center.clone(), seed);
            let codes = BinaryCodes::encode_in(frame, access, &rows.block(), &Sequential);
            let each = scored(&codes, &rows, &query, metric);
            for (row, [estimate, bound, distance]) in each.into_iter().enumerate() {
                errors[row] += estimate - distance;
                deviations[row] += (estimate - bound) / CONFIDENCE;
            }
        }
        for (error, deviation) in errors.into_iter().zip(deviations) {
            let count = f64::from(rotations);
            // A mean of so many is off by a deviation over their root; four of those are chance.
            let chance = 4.0 * (deviation / count) / count.sqrt();
            let mean = error / count;
            assert!(mean.abs() < chance, "{dims} by {metric:?}, {access:?}: {mean} of {chance}");
        }
    }
}

#[test]
fn distances_are_within_their_bounds_as_often_as_is_said() {
    for (dims, metric, access) in cases(&[32, 128, 200, 768]) {
        let (mut nearer, mut off, mut count) = (0_u32, 0_u32, 0_u32);
        for seed in 0..12 {
            let rows = Rows::new(100 + seed, dims, 500);
            let codes = BinaryCodes::encode(metric, access, &rows.block(), &Sequential);
            let query = rows.query(200 + seed, metric);
            for [estimate, bound, distance] in scored(&codes, &rows, &query, metric) {
                nearer += u32::from(distance < bound);
                off += u32::from((distance - estimate).abs() > estimate - bound);
                count += 1;
            }
        }
        let share = |of: u32| f64::from(of) / f64::from(count);
        // Of 6000, half a hundredth is four deviations or more.
        assert!(share(off) < 0.06 + 0.012, "{dims} by {metric:?}, {access:?}: {} off", share(off));
        assert!(
            share(nearer) < 0.03 + 0.009,
            "{dims} by {metric:?}, {access:?}: {} nearer",
            share(nearer)
        );
        // And it is not far too wide.
        assert!(share(off) > 0.005, "{dims} by {metric:?}, {access:?}: {} off", share(off));
    }
}

proptest! {
    #[test]
    fn i6_a_row_has_one_estimate_and_one_bound(
        dims in prop_oneof![1_usize..200, 1_usize..4097],
        metric in prop::sample::select(Metric::ALL.to_vec()),
        seed in any::<u64>(),
        (start, end) in (0_u32..70, 0_u32..71),
    ) {
        let rows = Rows::new(seed, dims, 70);
        let query = rows.query(seed ^ 7, metric);
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        let codes = BinaryCodes::encode(metric, Access::Picked, &rows.block(), &Sequential);
        let CodesScorer::Binary(scorer) = codes.scorer(&query) else { panic!("records") };
        let order: Vec<RowId> = (0..70).map(|row| RowId(row * 37 % 70)).collect();
        let (mut single, mut range) = (vec![f32::NAN; 70], vec![f32::NAN; 70]);
        scorer.score(&order, &mut single);
        scorer.score_range(RowId(0), &mut range);
        let picked: Vec<f32> = order.iter().map(|row| range[row.0 as usize]).collect();
        prop_assert_eq!(bits(&single), bits(&picked));
        let codes = BinaryCodes::encode(metric, Access::Scanned, &rows.block(), &Sequential);
        let CodesScorer::BinaryBlocks(scorer) = codes.scorer(&query) else { panic!("blocks") };
        let mut all = vec![f32::NAN; 70];
        scorer.lower_bounds(RowId(0), &mut all);
        let (start, end) = (start.min(end), end.max(start));
        let mut part = vec![f32::NAN; (end - start) as usize];
        scorer.lower_bounds(RowId(start), &mut part);
        prop_assert_eq!(bits(&part), bits(&all[start as usize..end as usize]));
    }

    #[test]
    fn in_few_dimensions_bounds_hold_for_certain(
        dims in 1_usize..5,
        metric in prop::sample::select(Metric::ALL.to_vec()),
        access in prop::sample::select(ACCESS.to_vec()),
        seed in any::<u64>(),
    ) {
        let rows = Rows::new(seed, dims, 40);
        let codes = BinaryCodes::encode(metric, access, &rows.block(), &Sequential);
        let query = rows.query(!seed, metric);
        for [_estimate, bound, distance] in scored(&codes, &rows, &query, metric) {
            prop_assert!(distance >= bound, "{distance} {bound}");
        }
    }
}
