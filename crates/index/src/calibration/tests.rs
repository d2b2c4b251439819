//! What is chosen, and that what is chosen finds what was wanted.

use super::*;
use crate::corpus::{Corpus, Threads};
use crate::random::hash;
use crate::{
    AllRows, Allowed, Metric, Quantization, RowId, Scorer, SegmentIndex, SegmentRows, Sequential,
    VectorScorer, Vectors, normalized,
};

fn point(ef: u32, recall: f64, recall_min: f64, cost: f64) -> Point {
    let tuning = Tuning { ef_search: Some(ef), ..Tuning::default() };
    Point { tuning, recall, recall_min, cost }
}

fn chosen(calibration: &Calibration, k: usize, wanted: f64) -> Option<u32> {
    calibration.choose(k, wanted).tuning.ef_search
}

#[test]
fn the_cheapest_effort_is_chosen_that_surely_finds_enough() {
    let ten = vec![
        point(10, 0.90, 0.88, 100.0),
        point(20, 0.96, 0.94, 200.0),
        point(40, 0.98, 0.97, 400.0),
        point(80, 0.99, 0.98, 900.0),
    ];
    let one = vec![point(10, 0.95, 0.93, 90.0), point(30, 0.99, 0.98, 300.0)];
    let curves = vec![Curve { k: 1, points: one }, Curve { k: 10, points: ten }];
    let known = Calibration { queries: 320, curves, usual_recall: 0.97, exact_cost: 800.0 };
    assert_eq!(chosen(&known, 10, 0.5), Some(10));
    assert_eq!(chosen(&known, 10, 0.94), Some(20));
    assert_eq!(
        chosen(&known, 10, 0.95),
        Some(40),
        "0.96 was measured, but 0.94 is all that is sure"
    );
    assert_eq!(known.choose(10, 0.95).recall.to_bits(), 0.98_f64.to_bits());
    assert_eq!(known.choose(10, 0.98), Choice::EXACT, "what finds it costs more than all rows");
    assert_eq!(known.choose(10, 1.0), Choice::EXACT);
    assert_eq!(known.choose(11, 0.5), Choice::EXACT, "nothing is known of so many");
    // Between two that were measured: what both need.
    assert_eq!(chosen(&known, 1, 0.94), Some(30));
    assert_eq!(chosen(&known, 5, 0.94), Some(30));
    assert_eq!(chosen(&known, 5, 0.96), Some(40));
    assert_eq!(known.choose(5, 0.985), Choice::EXACT);
}

#[test]
fn efforts_are_doubled_and_joined_part_by_part() {
    let lists = Tuning { nprobe: Some(7), rerank: Some(40), ..Tuning::default() };
    let more = Tuning { nprobe: Some(9), rerank: Some(20), ..Tuning::default() };
    let joined = Tuning { nprobe: Some(9), rerank: Some(40), ..Tuning::default() };
    assert_eq!(lists.at_least(more), joined);
    let twice = Tuning { nprobe: Some(14), rerank: Some(80), ..Tuning::default() };
    assert_eq!(lists.doubled(), twice);
}

/// Points around centres; row `n` is the same in a corpus of any length.
fn row(seed: u64, dims: usize, n: u64) -> Vec<f32> {
    let number = |seed: u64, at: u64| (hash(seed, at) >> 40) as f32 / (1_u64 << 23) as f32 - 1.0;
    let centre = hash(seed ^ 1, n) % 200;
    let dims = dims as u64;
    (0..dims)
        .map(|d| number(seed, centre * dims + d) + 0.5 * number(seed ^ 2, n * dims + d))
        .collect()
}

fn corpus(seed: u64, dims: usize, rows: u64) -> Corpus {
    Corpus::new(dims, (0..rows).flat_map(|n| row(seed, dims, n)).collect())
}

fn asked(metric: Metric, vector: Vec<f32>) -> Vec<f32> {
    if metric == Metric::Cosine { normalized(&vector).unwrap().0 } else { vector }
}

/// Every type, and every way to keep rows, that may miss something.
fn specs() -> Vec<IndexSpec> {
    let quantizations = [("none", 8), ("scalar", 8), ("scalar", 4), ("hybrid", 8)];
    let mut specs = Vec::new();
    for name in Structure::TYPES {
        for (strategy, bits) in quantizations {
            let parameters = [("bits", bits)];
            let parameters = if strategy == "none" { &[][..] } else { &parameters };
            let quantization = Quantization::new(strategy, parameters).unwrap();
            specs.extend(IndexSpec::new(Structure::new(name, &[]).unwrap(), quantization));
        }
    }
    specs.retain(|spec| !spec.is_exact());
    specs
}

#[test]
fn a_calibration_is_the_same_on_any_number_of_threads() {
    let corpus = corpus(3, 12, 5000);
    let block = corpus.block();
    let some = specs().into_iter().filter(|spec| spec.quantization.strategy() != "scalar");
    for spec in some {
        let index = SegmentIndex::build(spec, Metric::Cosine, &block, &Threads);
        let rows = SegmentRows {
            index: &index,
            spec,
            vectors: &block,
            allowed: &AllRows,
            allowed_rows: 5000,
        };
        let [one, two] = [&Sequential as &dyn crate::Executor, &Threads]
            .map(|threads| calibrate(&rows, spec, Metric::Cosine, threads).unwrap().unwrap());
        assert_eq!(one, two, "{spec}");
        assert_eq!(one.queries, 320);
        assert_eq!(one.curves.iter().map(|curve| curve.k).collect::<Vec<_>>(), CALIBRATED_KS);
        for point in one.curves.iter().flat_map(|curve| &curve.points) {
            assert!(point.recall_min < point.recall && point.recall <= 1.0, "{spec}: {point:?}");
            assert!(point.cost < one.exact_cost, "{spec}: {point:?}");
        }
    }
    for exact in ["brute_force", "kd_tree"] {
        let structure = Structure::new(exact, &[]).unwrap();
        let spec = IndexSpec { structure, ..IndexSpec::default() };
        let index = SegmentIndex::build(spec, Metric::Cosine, &block, &Threads);
        let rows = SegmentRows {
            index: &index,
            spec,
            vectors: &block,
            allowed: &AllRows,
            allowed_rows: 5000,
        };
        assert_eq!(calibrate(&rows, spec, Metric::Cosine, &Sequential), Ok(None), "{exact}");
    }
}

#[test]
fn efforts_below_the_floor_of_a_structure_do_not_end_what_is_measured() {
    const ROWS: u32 = 20_000;
    let corpus = corpus(7, 32, ROWS.into());
    let block = corpus.block();
    for (name, strategy) in
        [("hnsw", "binary"), ("hnsw", "product"), ("ivf", "binary"), ("brute_force", "product")]
    {
        let structure = Structure::new(name, &[]).unwrap();
        // Codes that are so coarse that much is missed at first.
        let parts = [("pq_subvectors", 4)];
        let parameters = if strategy == "product" { &parts[..] } else { &[] };
        let quantization = Quantization::new(strategy, parameters).unwrap();
        let spec = IndexSpec { structure, quantization };
        let index = SegmentIndex::build(spec, Metric::L2, &block, &Threads);
        let rows = SegmentRows {
            index: &index,
            spec,
            vectors: &block,
            allowed: &AllRows,
            allowed_rows: ROWS,
        };
        let known = calibrate(&rows, spec, Metric::L2, &Threads).unwrap().unwrap();
        for curve in &known.curves {
            let found = curve.points.len();
            assert!(found >= 3, "{spec}: {found} points for {}", curve.k);
            assert_ne!(known.choose(curve.k, 0.9), Choice::EXACT, "{spec}, {}", curve.k);
        }
    }
}

/// Rows that may be answered, as a filter gives them.
struct Marked(Vec<u64>, u32);

impl Marked {
    fn of(rows: u32, marked: impl Fn(u32) -> bool) -> Self {
        let mut words = vec![0_u64; rows.div_ceil(64) as usize];
        (0..rows)
            .filter(|row| marked(*row))
            .for_each(|row| words[row as usize / 64] |= 1 << (row % 64));
        let count = words.iter().map(|word| word.count_ones()).sum();
        Self(words, count)
    }
}

impl Allowed for Marked {
    fn allows(&self, row: RowId) -> bool {
        self.0.get(row.0 as usize / 64).is_some_and(|word| word >> (row.0 % 64) & 1 == 1)
    }

    fn word(&self, first: RowId) -> u64 {
        self.0.get(first.0 as usize / 64).copied().unwrap_or(0)
    }
}

/// The filters of the gate: random ones, the query's own neighbourhood, and all but that.
const FILTERS: [&str; 7] = ["all", "50%", "10%", "1%", "0.1%", "the nearest 10%", "all but those"];

fn filter(name: &str, distances: &[f32]) -> Marked {
    let rows = u32::try_from(distances.len()).unwrap();
    let part = |per_mille: u64| Marked::of(rows, |row| hash(5, row.into()) % 1000 < per_mille);
    let bound =
        || *distances.to_vec().select_nth_unstable_by(distances.len() / 10, f32::total_cmp).1;
    match name {
        "all" => Marked::of(rows, |_row| true),
        "50%" => part(500),
        "10%" => part(100),
        "1%" => part(10),
        "0.1%" => part(1),
        "the nearest 10%" => {
            let bound = bound();
            Marked::of(rows, |row| distances[row as usize] <= bound)
        }
        _ => {
            let bound = bound();
            Marked::of(rows, |row| distances[row as usize] > bound)
        }
    }
}

/// Of the ten nearest, the part found at the effort that is chosen for a recall, per filter.
fn recalls(spec: IndexSpec, metric: Metric, wanted: f64) -> Vec<(&'static str, f64)> {
    const ROWS: u32 = 20_000;
    const DIMS: usize = 16;
    const K: usize = 10;
    let corpus = corpus(11, DIMS, ROWS.into());
    let block = corpus.block();
    let index = SegmentIndex::build(spec, metric, &block, &Threads);
    let whole =
        SegmentRows { index: &index, spec, vectors: &block, allowed: &AllRows, allowed_rows: ROWS };
    let known = measure::calibrate_for(&whole, spec, metric, &Threads, &[K]).unwrap().unwrap();
    let tuning = known.choose(K, wanted).tuning;
    let mut found = FILTERS.map(|name| (name, 0.0));
    let queries = 60;
    for n in 0..queries {
        // Rows that were left out, of the same kind.
        let query = asked(metric, row(11, DIMS, u64::from(ROWS) + n));
        let scorer = VectorScorer::new(metric, &query, &block);
        let mut distances = vec![0.0; block.rows() as usize];
        scorer.score_range(RowId(0), &mut distances);
        for (name, found) in &mut found {
            let marked = filter(name, &distances);
            let rows = SegmentRows { allowed: &marked, allowed_rows: marked.1, ..whole };
            let exact = rows.exact(std::slice::from_ref(&query), K, &Sequential).unwrap().remove(0);
            let (answer, _effort) = rows.nearest(&query, K, tuning).unwrap();
            assert_eq!(answer.len(), K.min(marked.1 as usize), "I3: {spec}, {name}: never fewer");
            assert!(
                answer.iter().all(|(_, row)| marked.allows(RowId(u32::try_from(*row).unwrap())))
            );
            let bound = exact.last().copied().unwrap();
            let hits = answer.iter().filter(|(distance, _row)| *distance <= bound).count();
            *found += hits as f64 / exact.len() as f64 / queries as f64;
        }
    }
    found.to_vec()
}

#[test]
fn i3_a_wanted_recall_is_reached_whatever_the_filter() {
    let mut short = Vec::new();
    for spec in specs() {
        for (name, found) in recalls(spec, Metric::L2, 0.95) {
            if found < 0.95 {
                short.push(format!("{spec}, {name}: {found:.3}"));
            }
        }
    }
    assert!(short.is_empty(), "{short:#?}");
}

#[test]
fn i3_a_wanted_recall_is_reached_by_every_metric() {
    let mut short = Vec::new();
    for spec in specs().into_iter().filter(|spec| spec.quantization == Quantization::None) {
        for metric in [Metric::Cosine, Metric::Dot] {
            for (name, found) in recalls(spec, metric, 0.95) {
                if found < 0.95 {
                    short.push(format!("{spec} by {}, {name}: {found:.3}", metric.name()));
                }
            }
        }
    }
    assert!(short.is_empty(), "{short:#?}");
}
