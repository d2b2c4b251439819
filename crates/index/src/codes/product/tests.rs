use proptest::prelude::*;

use super::ProductCodes;
use crate::codes::{Access, CodesScorer};
use crate::corpus::Shape;
use crate::ivf::reservoir::Reservoir;
use crate::{AllRows, Metric, RowId, Scorer, Sequential, VectorScorer, Vectors, normalized};

fn shapes() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Spread),
        Just(Shape::Clustered),
        Just(Shape::Copies),
        Just(Shape::AllLengths),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn i6_a_row_has_one_estimate_in_either_layout(
        dims in prop_oneof![1_usize..40, 300_usize..600],
        rows in 1_u32..150,
        parts in prop::option::of(any::<prop::sample::Index>()),
        shape in shapes(),
        metric in prop::sample::select(Metric::ALL.to_vec()),
        seed in any::<u64>(),
        (start, keep) in (0_u32..150, 1_usize..9),
    ) {
        let corpus = shape.corpus(seed, dims, rows);
        let block = corpus.block();
        let parts = parts.map(|parts| u32::try_from(parts.index(dims) + 1).unwrap());
        let query = normalized(block.row(RowId(0)).0).unwrap().0;
        let encode = |access| {
            ProductCodes::encode(metric, (parts, access), &block, &Sequential)
        };
        let (scanned, picked) = (encode(Access::Scanned), encode(Access::Picked));
        let CodesScorer::Product(records) = picked.scorer(&query) else { panic!("records") };
        let (mut range, mut single) = (vec![f32::NAN; rows as usize], vec![f32::NAN; rows as usize]);
        records.score_range(RowId(0), &mut range);
        records.score(&(0..rows).map(RowId).collect::<Vec<_>>(), &mut single);
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&range), bits(&single));
        // The rows that a scan keeps are those of the least estimates.
        let CodesScorer::ProductBlocks(blocks) = scanned.scorer(&query) else { panic!("blocks") };
        let start = start % rows;
        let mut kept = Reservoir::default();
        kept.reset(keep);
        blocks.scan(start..rows, &AllRows, &mut kept);
        let mut found: Vec<u32> = kept.numbers().collect();
        let mut expect: Vec<u32> = (start..rows).collect();
        expect.sort_by(|a, b| range[*a as usize].total_cmp(&range[*b as usize]).then(a.cmp(b)));
        expect.truncate(keep);
        found.sort_unstable();
        expect.sort_unstable();
        prop_assert_eq!(found, expect);
    }
}

#[test]
fn estimates_are_near_and_right_on_average() {
    for metric in Metric::ALL {
        let corpus = Shape::Spread.corpus(3, 96, 3000);
        let block = corpus.block();
        let codes = ProductCodes::encode(metric, (None, Access::Picked), &block, &Sequential);
        let asked = Shape::Spread.corpus(4, 96, 1);
        let query = normalized(asked.block().row(RowId(0)).0).unwrap().0;
        let CodesScorer::Product(scorer) = codes.scorer(&query) else { panic!("records") };
        let [mut estimates, mut distances] = [(); 2].map(|()| vec![f32::NAN; 3000]);
        scorer.score_range(RowId(0), &mut estimates);
        VectorScorer::new(metric, &query, &block).score_range(RowId(0), &mut distances);
        let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / 3000.0;
        let off = |(a, b): (&f32, &f32)| f64::from(*a) - f64::from(*b);
        let errors = || estimates.iter().zip(&distances).map(off);
        let middle = mean(&mut distances.iter().map(|distance| f64::from(*distance)));
        let spread = mean(&mut distances.iter().map(|d| (f64::from(*d) - middle).powi(2))).sqrt();
        let error = mean(&mut errors().map(|error| error * error)).sqrt();
        assert!(error < 0.4 * spread, "{metric:?}: {error} of {spread}");
        let bias = mean(&mut errors());
        assert!(bias.abs() < 4.0 * error / 3000_f64.sqrt(), "{metric:?}: {bias} of {error}");
    }
}
