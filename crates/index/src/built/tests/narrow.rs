//! Clusters so narrow, and so far from one another, that the codes of a cluster's rows are all alike.

use super::{Asked, Corpus, exact, search};
use crate::{
    AllRows, IndexSpec, Metric, Quantization, RowId, SegmentIndex, Sequential, Structure, Tuning,
    Vectors,
};

/// The part of the ten nearest that a graph finds at its usual effort.
fn recall(corpus: &Corpus, metric: Metric, spec: IndexSpec) -> f64 {
    let block = corpus.block();
    let index = SegmentIndex::build(spec, metric, &block, &Sequential);
    let asked = Asked { k: 10, tuning: Tuning::default() };
    let (mut found, mut wanted) = (0, 0);
    for place in (0..block.rows()).step_by(97) {
        let (row, _norm) = block.row(RowId(place));
        let query = super::query_of(metric, row);
        let best = exact(metric, &block, &query, asked.k, &AllRows);
        let farthest = best.last().map_or(0.0, |(distance, _row)| *distance);
        let answer = search(&index, &block, &query, asked, &AllRows);
        found += answer.iter().filter(|(distance, _row)| *distance <= farthest).count();
        wanted += best.len();
    }
    found as f64 / wanted as f64
}

#[test]
fn a_graph_finds_its_way_within_narrow_clusters() {
    let spec = IndexSpec {
        structure: Structure::new("hnsw", &[]).unwrap(),
        quantization: Quantization::new("none", &[]).unwrap(),
    };
    for (dims, clusters) in [(2, 20), (3, 9), (16, 9)] {
        let mut corpus = Corpus::clustered(5, 6000, dims, clusters, 5e-4);
        corpus.vectors.iter_mut().for_each(|value| *value *= 100.0);
        let corpus = Corpus::new(dims, corpus.vectors);
        let recall = recall(&corpus, Metric::L2, spec);
        assert!(recall > 0.9, "{dims} dimensions, {clusters} clusters: {recall}");
    }
}
