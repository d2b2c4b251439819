//! Standing queries: what it costs to match a new passage against all of them, and whether one is
//! missed.
//!
//! `cargo xtask bench standing -- [queries] [passages] [dimension]`
#![expect(clippy::print_stdout, reason = "a bench says what it measured")]

use std::time::Instant;

use arrwdb_index::{
    Metric, Queries, QueryMatch, RowBlock, RowId, Scorer, VectorScorer, inverse_norm, normalized,
};

const TOPICS: usize = 2000;

/// Numbers that look random, about normally distributed.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        let high = u16::try_from(self.0 >> 48).unwrap_or(0);
        f32::from(high) / 32_768.0 - 1.0
    }

    fn normal(&mut self) -> f32 {
        (0..4).map(|_| self.uniform()).sum::<f32>() * 0.866
    }

    fn vector(&mut self, dims: usize) -> Vec<f32> {
        (0..dims).map(|_| self.normal()).collect()
    }

    /// A vector about a topic: those about one have a cosine of `share^2` or so.
    fn about(&mut self, topics: &[Vec<f32>], share: f32) -> Vec<f32> {
        let place = (self.uniform().abs() * topics.len() as f32).floor();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a topic")]
        let topic = &topics[(place as usize).min(topics.len() - 1)];
        let noise = (1.0 - share * share).sqrt();
        topic.iter().map(|value| value * share + noise * self.normal()).collect()
    }
}

/// Nanoseconds for which this thread ran: other processes do not count.
fn cpu() -> u64 {
    let read = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    read.split_ascii_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn argument(place: usize, default: usize) -> usize {
    std::env::args().nth(place).and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    let (count, passages, dims) = (argument(1, 100_000), argument(2, 10_000), argument(3, 384));
    let threshold = 0.35_f32;
    let mut random = Random(11);
    let topics: Vec<Vec<f32>> = (0..TOPICS).map(|_| random.vector(dims)).collect();
    let vectors: Vec<Vec<f32>> = (0..count)
        .filter_map(|_| normalized(&random.about(&topics, 0.82)).ok())
        .map(|(unit, _inverse_norm)| unit)
        .collect();
    let rows: Vec<f32> = (0..passages).flat_map(|_| random.about(&topics, 0.82)).collect();
    let norms: Vec<f32> =
        rows.chunks_exact(dims).filter_map(|row| inverse_norm(row).ok()).collect();
    println!("{} queries, {} passages, {dims} dimensions", vectors.len(), norms.len());
    println!("kernels: {}", arrwdb_kernel::kernels().name());

    let started = cpu();
    let mut queries = Queries::new(Metric::Cosine, &vec![0.0; dims]);
    for vector in &vectors {
        queries.insert(vector, threshold);
    }
    let each = (cpu() - started) as f64 / 1e3 / vectors.len().max(1) as f64;
    println!("registering a query: {each:.2} us; {} MB in all", queries.bytes() >> 20);

    let mut found: Vec<QueryMatch> = Vec::new();
    for batch in [1, 4, 8, 16, 32, 64, 256] {
        found.clear();
        // Few of them one by one: that takes long.
        let rows_max = if batch < 8 { norms.len().min(400) } else { norms.len() };
        let (wall, started) = (Instant::now(), cpu());
        let batches = rows.chunks(batch * dims).zip(norms.chunks(batch));
        for (vectors, norms) in batches.take(rows_max.div_ceil(batch)) {
            let block = RowBlock::new(dims, vectors, norms);
            queries.matches(&block, &mut |matched| found.push(matched));
        }
        let micros = (cpu() - started) as f64 / 1e3 / rows_max as f64;
        let wall = wall.elapsed().as_secs_f64() * 1e6 / rows_max as f64;
        let matches = found.len() as f64 / rows_max as f64;
        println!(
            "batches of {batch:>3}: {micros:>7.1} us of CPU a passage ({wall:.1} by the clock), {matches:.2} matches"
        );
    }

    let place = queries.insert(&vectors[0], threshold);
    let started = cpu();
    for _again in 0..1000 {
        queries.remove(place);
        queries.insert(&vectors[0], threshold);
    }
    println!("replacing a query: {:.2} us", (cpu() - started) as f64 / 1e6);
    queries.remove(place);
    check(&vectors, (&rows, &norms), threshold, &queries);
}

/// Every pair, by the vectors.
fn check(vectors: &[Vec<f32>], rows: (&[f32], &[f32]), threshold: f32, queries: &Queries) {
    let dims = vectors.first().map_or(1, Vec::len);
    let block = RowBlock::new(dims, rows.0, rows.1);
    let mut found = Vec::new();
    for (batch, (vectors, norms)) in rows.0.chunks(64 * dims).zip(rows.1.chunks(64)).enumerate() {
        let first = u32::try_from(batch * 64).unwrap_or(u32::MAX);
        let block = RowBlock::new(dims, vectors, norms);
        queries.matches(&block, &mut |matched| {
            found.push((matched.query, first + matched.row.0, matched.distance.to_bits()));
        });
    }
    found.sort_unstable();
    let mut expect = Vec::new();
    let mut distances = vec![0.0; rows.1.len()];
    for (query, vector) in (0..).zip(vectors) {
        VectorScorer::new(Metric::Cosine, vector, &block).score_range(RowId(0), &mut distances);
        for (row, distance) in (0..).zip(&distances) {
            if *distance <= threshold {
                expect.push((query, row, distance.to_bits()));
            }
        }
    }
    let missed = expect.iter().filter(|pair| found.binary_search(pair).is_err()).count();
    let wrong = found.len() + missed - expect.len();
    println!("{} matches by hand; missed {missed}, wrong {wrong}", expect.len());
    assert!(missed == 0 && wrong == 0, "exactly what a scan finds");
}
