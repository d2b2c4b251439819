//! Searches where a few rows have died and nobody filters.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{Corpus, exact, query_of};
use crate::{
    AllRows, Allowed, Effort, IndexSpec, Metric, Quantization, Request, RowBlock, RowId,
    SegmentIndex, Sequential, Structure, TopK, Tuning, Vectors,
};

const ROWS: u32 = 12_000;

/// All rows but some, and how many were asked about.
struct Living {
    dead: Vec<RowId>,
    asked: AtomicU32,
}

impl Living {
    fn without(dead: Vec<RowId>) -> Self {
        Self { dead, asked: AtomicU32::new(0) }
    }

    fn asked(&self) -> u32 {
        self.asked.swap(0, Ordering::Relaxed)
    }
}

impl Allowed for Living {
    fn allows(&self, row: RowId) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
        !self.dead.contains(&row)
    }
}

fn build(name: &str, strategy: &str, rows: &RowBlock<'_>) -> SegmentIndex {
    let structure = Structure::new(name, &[]).unwrap();
    let quantization = Quantization::new(strategy, &[]).unwrap();
    SegmentIndex::build(IndexSpec { structure, quantization }, Metric::L2, rows, &Sequential)
}

fn search(index: &SegmentIndex, rows: &RowBlock<'_>, query: &[f32], living: &Living) -> Effort {
    let request = Request {
        vectors: rows,
        rows: (0, rows.rows()),
        query,
        k: 10,
        spec: index.spec(),
        tuning: Tuning::default(),
        allowed: living,
        allowed_rows: rows.rows() - u32::try_from(living.dead.len()).unwrap(),
    };
    index.search(request, &mut TopK::new(10), |row| row)
}

#[test]
fn one_dead_row_does_not_make_lists_be_looked_at_twice() {
    let corpus = Corpus::clustered(21, ROWS as usize, 16, 80, 0.5);
    let rows = corpus.block();
    for (name, strategy) in [("ivf", "none"), ("ivf", "binary"), ("ivf_pq", "none")] {
        let index = build(name, strategy, &rows);
        let query = query_of(Metric::L2, rows.row(RowId(70)).0);
        let (all, but_one) = (Living::without(vec![]), Living::without(vec![RowId(5)]));
        search(&index, &rows, &query, &all);
        let effort = search(&index, &rows, &query, &but_one);
        assert_eq!(effort.walked, 1);
        let (all, but_one) = (all.asked(), but_one.asked());
        // One more list may be searched.
        assert!(but_one < all + all / 8, "{name}, {strategy}: {all} rows and then {but_one}");
    }
}

#[test]
fn what_is_near_to_a_few_dead_rows_is_found_without_a_scan() {
    let corpus = Corpus::clustered(22, ROWS as usize, 16, 80, 0.5);
    let rows = corpus.block();
    for (name, strategy) in
        [("lsh", "none"), ("lsh", "scalar"), ("ivf", "none"), ("ivf_pq", "none")]
    {
        let index = build(name, strategy, &rows);
        for row in [70, 900, 8000] {
            let query = query_of(Metric::L2, rows.row(RowId(row)).0);
            // A document on one subject.
            let dead = exact(Metric::L2, &rows, &query, 60, &AllRows);
            let living = Living::without(dead.into_iter().map(|(_, row)| row).collect());
            let effort = search(&index, &rows, &query, &living);
            assert_eq!((effort.walked, effort.fell_back), (1, 0), "{name}, {strategy}: {effort:?}");
        }
    }
}
