use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;

use super::HalvedCodes;
use crate::codes::{Bits, Errors, ScalarCodes};
use crate::{
    AllRows, Allowed, Metric, RowBlock, RowId, Scorer, SectionReader, SectionWriter, Sequential,
    VectorScorer, inverse_norm, normalized,
};

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Dot, Metric::L2];

/// Every third row.
struct Thirds;

impl Allowed for Thirds {
    fn allows(&self, row: RowId) -> bool {
        row.0.is_multiple_of(3)
    }
}

struct Rows {
    dims: usize,
    vectors: Vec<f32>,
    inverse_norms: Vec<f32>,
}

impl Rows {
    /// A first number of 1 makes a row no zero vector.
    fn new(dims: usize, mut vectors: Vec<f32>) -> Self {
        vectors.truncate(vectors.len() / dims * dims);
        for vector in vectors.chunks_exact_mut(dims) {
            if inverse_norm(vector).is_err() {
                vector[0] = 1.0;
            }
        }
        let inverse_norms = vectors.chunks_exact(dims).map(|v| inverse_norm(v).unwrap()).collect();
        Self { dims, vectors, inverse_norms }
    }

    fn block(&self) -> RowBlock<'_> {
        RowBlock::new(self.dims, &self.vectors, &self.inverse_norms)
    }

    fn count(&self) -> u32 {
        u32::try_from(self.inverse_norms.len()).unwrap()
    }

    fn codes(&self, metric: Metric) -> HalvedCodes {
        HalvedCodes::encode(metric, &self.block(), &Sequential)
    }
}

/// The rows that a scan decides on under one bound.
fn decided(
    codes: &HalvedCodes,
    query: &[f32],
    (rows, allowed): (Range<u32>, &dyn Allowed),
    bound: f32,
) -> Vec<u32> {
    let mut all = Vec::new();
    codes.scorer(query).scan(rows, allowed, |near| {
        all.extend(near.iter().map(|row| row.0));
        bound
    });
    all
}

/// For every distance as the bound: no row that is as near is left out, and none is given twice,
/// that is not allowed, or in another part.
fn assert_none_is_missed(rows: &Rows, query: &[f32], metric: Metric) {
    let query = if metric == Metric::Cosine { &normalized(query).unwrap().0 } else { query };
    let block = rows.block();
    let mut distances = vec![0.0; rows.count() as usize];
    VectorScorer::new(metric, query, &block).score_range(RowId(0), &mut distances);
    let codes = rows.codes(metric);
    let parts: [(Range<u32>, &dyn Allowed); 4] = [
        (0..rows.count(), &AllRows),
        (0..rows.count(), &Thirds),
        (rows.count() / 5..rows.count(), &AllRows),
        (rows.count() / 3..rows.count() / 2, &AllRows),
    ];
    for bound in distances.iter().step_by(distances.len().div_ceil(20)) {
        for (part, allowed) in parts.clone() {
            let got = decided(&codes, query, (part.clone(), allowed), *bound);
            assert!(got.is_sorted_by(|a, b| a < b), "{got:?}");
            assert!(got.iter().all(|row| part.contains(row) && allowed.allows(RowId(*row))));
            for row in part.filter(|row| allowed.allows(RowId(*row))) {
                let near = distances[row as usize] <= *bound;
                assert!(!near || got.contains(&row), "{metric:?}: row {row} within {bound}");
            }
        }
    }
}

fn numbers_of_all_sizes() -> impl Strategy<Value = f32> {
    prop_oneof![-1.0_f32..1.0, -1e3_f32..1e3, Just(0.0), -1e-20_f32..1e-20]
}

proptest! {
    #[test]
    fn i3_no_row_within_the_bound_is_ruled_out_by_half_of_its_code(
        dims in prop_oneof![1_usize..12, 12_usize..80],
        numbers in vec(numbers_of_all_sizes(), 80..4000),
        query in vec(-1.0_f32..1.0, 80),
        length in prop_oneof![Just(1.0_f32), 1e-10_f32..1e10],
        metric in prop::sample::select(METRICS.to_vec()),
    ) {
        let rows = Rows::new(dims, numbers);
        let mut query: Vec<f32> = query[..dims].iter().map(|value| value * length).collect();
        query[0] += length;
        assert_none_is_missed(&rows, &query, metric);
    }

    #[test]
    fn i3_rows_near_to_each_other_and_far_from_the_centre_are_told_apart_by_their_vectors(
        dims in 1_usize..40,
        noise in vec(-1.0_f32..1.0, 40..3000),
        spread in prop_oneof![Just(1e-6_f32), Just(1e-3), Just(1.0)],
        apart in prop_oneof![Just(1.0_f32), Just(1e4), Just(1e18)],
        metric in prop::sample::select(METRICS.to_vec()),
    ) {
        let at = |place: usize| if (place / dims).is_multiple_of(2) { apart } else { -apart };
        let numbers = noise.iter().enumerate().map(|(place, value)| {
            at(place) * (1.0 + spread * value)
        });
        let rows = Rows::new(dims, numbers.collect());
        let query: Vec<f32> = rows.vectors[..dims].iter().map(|value| value * 1.001).collect();
        assert_none_is_missed(&rows, &query, metric);
    }

    #[test]
    fn i5_codes_in_halves_are_written_as_whole_codes_and_read_again(
        dims in 1_usize..70,
        numbers in vec(-10.0_f32..10.0, 70..5000),
        metric in prop::sample::select(METRICS.to_vec()),
    ) {
        let rows = Rows::new(dims, numbers);
        let codes = rows.codes(metric);
        let mut halved = Vec::new();
        codes.write(&mut SectionWriter::new(&mut halved)).unwrap();
        if metric != Metric::Dot {
            let block = rows.block();
            let scalar =
                ScalarCodes::encode(metric, Bits::Eight, Errors::Kept, &block, &Sequential);
            let mut whole = Vec::new();
            scalar.write(&mut SectionWriter::new(&mut whole)).unwrap();
            prop_assert!(halved == whole, "other bytes");
        }
        let mut aligned = vec![0_u64; halved.len().div_ceil(8)];
        let aligned = &mut bytemuck::cast_slice_mut(&mut aligned)[..halved.len()];
        aligned.copy_from_slice(&halved);
        let read = HalvedCodes::read(&mut SectionReader::new(aligned), metric, dims, rows.count());
        let read = read.unwrap();
        prop_assert_eq!(&codes.lost, &read.lost);
        prop_assert_eq!(codes.blocks.words(), read.blocks.words());
        prop_assert_eq!(&codes.lower[..], &read.lower[..]);
        let mut again = Vec::new();
        read.write(&mut SectionWriter::new(&mut again)).unwrap();
        prop_assert!(halved == again, "other bytes the second time");
    }
}

#[test]
fn vectors_at_the_ends_of_the_range_rule_nothing_out_wrongly() {
    for length in [1e-38_f32, 1e-30, 1e15, 1e18, 1e19, 1e30, 1e37] {
        for metric in METRICS {
            let numbers = (0..200 * 7).map(|at: u16| {
                let sign = if at.is_multiple_of(3) { -1.0 } else { 1.0 };
                sign * length * (1.0 + f32::from(at % 89) / 100.0)
            });
            let rows = Rows::new(7, numbers.collect());
            let query = rows.vectors[70..77].to_vec();
            assert_none_is_missed(&rows, &query, metric);
        }
    }
}

#[test]
fn most_rows_of_several_clusters_are_ruled_out() {
    let dims = 64;
    let rows = 20_000_usize;
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    let centres: Vec<f32> = (0..50 * dims).map(|_| next()).collect();
    let at = |place: usize| centres[place / dims % 50 * dims + place % dims];
    let rows = Rows::new(dims, (0..rows * dims).map(|place| at(place) + 0.3 * next()).collect());
    let query = rows.vectors[..dims].to_vec();
    let mut distances = vec![0.0; rows.count() as usize];
    VectorScorer::new(Metric::L2, &query, &rows.block()).score_range(RowId(0), &mut distances);
    distances.sort_by(f32::total_cmp);
    let codes = rows.codes(Metric::L2);
    let got = decided(&codes, &query, (0..rows.count(), &AllRows), distances[9]);
    // Of the 400 rows of its cluster some are as near as that by their codes.
    assert!(got.len() < 200, "{} of {}", got.len(), rows.count());
}
