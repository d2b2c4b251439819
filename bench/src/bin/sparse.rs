//! Search of sparse vectors in one segment, in process and on one thread: how long making the index
//! takes, how large it is, how long queries take.
//!
//! `cargo xtask bench sparse [ROWS (100000) [ENTRIES (120) [QUERY_ENTRIES (24)]]]`
//!
//! Vectors are drawn: half of their indices by the frequency of words, half from one of 2,000 topics,
//! and values that fall as those of learned ones do. A query is like a row of a topic.
#![expect(clippy::print_stdout, reason = "printing figures is what it is for")]

use std::collections::BTreeMap;
use std::time::Instant;

use arrwdb_bench::Outcome;
use arrwdb_bench::figures::{Numbers, at, load};
use arrwdb_index::sparse::{SparseBuilder, SparseIndex, SparseQuery, SparseVector, Visited};
use arrwdb_index::{AllRows, TopK};
use serde_json::json;

const INDICES: f32 = 30_000.0;
const TOPICS: f32 = 2000.0;
const TOPIC_INDICES: f32 = 200.0;
const QUERIES: usize = 100;
const ROUNDS: usize = 5;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |usual| arguments.next().map_or(Ok(usual), |text| text.parse::<usize>());
    let (rows, entries, asked) = (number(100_000)?, number(120)?, number(24)?);
    let mut numbers = Numbers::new(1);
    let mut builder = SparseBuilder::default();
    let mut took = 0.0;
    for _row in 0..rows {
        let (indices, values) = drawn(&mut numbers, entries);
        let vector = SparseVector::new(&indices, &values)?;
        let started = Instant::now();
        builder.push(vector);
        took += started.elapsed().as_secs_f64();
    }
    let started = Instant::now();
    let index = builder.finish();
    took += started.elapsed().as_secs_f64();
    println!(
        "{rows} rows, {} entries: {} bytes made in {:.0} ms; load {}",
        index.entries(),
        index.as_bytes().len(),
        took * 1e3,
        load(),
    );
    let mut queries = Vec::new();
    for _query in 0..QUERIES {
        let (indices, values) = drawn(&mut numbers, asked);
        queries.push(SparseQuery::new(SparseVector::new(&indices, &values)?));
    }
    for k in [10, 100, 1000] {
        ask(&index, &queries, k);
    }
    Ok(())
}

fn ask(index: &SparseIndex, queries: &[SparseQuery], k: usize) {
    let mut took = Vec::new();
    let mut visited = Visited::default();
    for _round in 0..ROUNDS {
        for query in queries {
            let started = Instant::now();
            let mut top = TopK::new(k);
            visited.add(index.search(query, &AllRows, &mut top, |row| row));
            drop(std::hint::black_box(top.into_scores()));
            took.push(started.elapsed().as_secs_f64() * 1e6);
        }
    }
    let count = took.len() as u64;
    let figures = json!({
        "k": k,
        "median_us": at(&took, 0.5),
        "p99_us": at(&took, 0.99),
        "postings_per_query": visited.postings / count,
        "rows_per_query": visited.rows / count,
    });
    println!("{figures:#}");
}

/// About so many entries.
fn drawn(numbers: &mut Numbers, entries: usize) -> (Vec<u32>, Vec<f32>) {
    let mut unit = || numbers.number().midpoint(1.0);
    let topic = whole(TOPICS * unit());
    let vector: BTreeMap<u32, f32> = (0..entries)
        .map(|entry| {
            let rank = entry as f32 / entries as f32;
            let value = 2.4 * (-3.2 * rank).exp() * (0.7 + 0.6 * unit());
            let index = if unit() < 0.5 {
                let place = whole(TOPIC_INDICES.powf(unit()));
                (topic * 7919 + place * 104_729) % whole(INDICES)
            } else {
                whole(INDICES.powf(0.15 + 0.85 * unit()))
            };
            (index, value)
        })
        .collect();
    vector.into_iter().unzip()
}

fn whole(value: f32) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "some thousands, and rounded down on purpose"
    )]
    let whole = value as u32;
    whole
}
