//! Late interaction over items of several rows each, in process and on one thread.
//!
//! `cargo xtask bench late_interaction [ITEMS (10000) [ROWS (64) [DIMENSION (128) [VECTORS (32)]]]]`
//!
//! Vectors are drawn and lie in memory. Shown are the median and the slowest of 20 searches for the
//! ten best items.
#![expect(clippy::print_stdout, reason = "printing figures is what it is for")]

use std::time::Instant;

use arrwdb_bench::Outcome;
use arrwdb_bench::figures::{Numbers, at, load};
use arrwdb_index::{AllRows, LateItems, LateQuery, LateScope, RowBlock, Similarity, TopK};
use serde_json::json;

const K: usize = 10;
const ROUNDS: usize = 20;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |usual| arguments.next().map_or(Ok(usual), |text| text.parse::<usize>());
    let (items, rows) = (number(10_000)?, number(64)?);
    let (dimension, vectors) = (number(128)?, number(32)?);
    let mut numbers = Numbers::new(1);
    let all: Vec<f32> = (0..items * rows).flat_map(|_row| numbers.unit(dimension)).collect();
    let inverse_norms = vec![1.0; items * rows];
    let query: Vec<f32> = (0..vectors).flat_map(|_vector| numbers.unit(dimension)).collect();
    let block = RowBlock::new(dimension, &all, &inverse_norms);
    let starts: Result<Vec<u32>, _> = (0..=items).map(|item| u32::try_from(item * rows)).collect();
    let starts = starts?;
    let found = LateItems::new(&block, &starts).ok_or("too many rows")?;
    let query = LateQuery::new(Similarity::Cosine, dimension, &query);
    let scope = LateScope { range: 0..found.len(), items: &AllRows, rows: &AllRows };
    let mut took = Vec::new();
    for _round in 0..ROUNDS {
        let started = Instant::now();
        let mut top = TopK::new(K);
        found.search(query, &scope, &mut top, |item| item);
        drop(std::hint::black_box(top.into_scores()));
        took.push(started.elapsed().as_secs_f64() * 1e3);
    }
    let median = at(&took, 0.5);
    let figures = json!({
        "items": items,
        "rows_per_item": rows,
        "dimension": dimension,
        "query_vectors": vectors,
        "median_ms": median,
        "slowest_ms": at(&took, 1.0),
        "ns_per_pair": median * 1e6 / (items * rows * vectors) as f64,
        "load": load(),
    });
    println!("{figures:#}");
    Ok(())
}
