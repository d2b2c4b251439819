//! Rows whose squares are beyond the range of f32.

use super::{Asked, Corpus, numbers, search};
use crate::{
    AllRows, IndexSpec, Metric, Quantization, RowId, SegmentIndex, Sequential, Structure, Tuning,
};

/// By a dot product a row's square does not count, so one that overflows changes nothing.
#[test]
fn a_huge_row_has_the_largest_product() {
    let (dims, rows) = (16, 3000);
    let mut vectors = numbers(31, dims * rows);
    let place = 1234;
    vectors[place * dims..][..dims].iter_mut().for_each(|value| *value *= 1e20);
    let query =
        vectors[place * dims..][..dims].iter().map(|value| value / 1e20).collect::<Vec<_>>();
    let corpus = Corpus::new(dims, vectors);
    for (name, strategy) in [
        ("brute_force", "binary"),
        ("brute_force", "product"),
        ("lsh", "scalar"),
        ("lsh", "binary"),
        ("lsh", "product"),
    ] {
        let structure = Structure::new(name, &[]).unwrap();
        let quantization = Quantization::new(strategy, &[]).unwrap();
        let spec = IndexSpec { structure, quantization };
        let index = SegmentIndex::build(spec, Metric::Dot, &corpus.block(), &Sequential);
        let asked = Asked { k: 1, tuning: Tuning::default() };
        let found = search(&index, &corpus.block(), &query, asked, &AllRows);
        assert_eq!(found[0].1, RowId(u32::try_from(place).unwrap()), "{spec}");
    }
}
