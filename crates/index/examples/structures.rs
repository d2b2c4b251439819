//! How much of a segment the structures score, and how long they take beside a scan.
//!
//! `cargo run --release -p arrwdb-index --example structures [rows [kd_tree|lsh]]`
#![expect(clippy::print_stdout, reason = "a table for people")]

use std::time::{Duration, Instant};

use arrwdb_index::{
    AllRows, Metric, Query, RowBlock, RowId, Sequential, TopK, VectorScorer, brute_force,
    inverse_norm, kd_tree, lsh, normalized,
};

/// Queries of one measurement, each asked so many times.
const QUERIES: usize = 50;
const TURNS: usize = 5;
const K: usize = 10;

struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1_u64 << 24) as f32
    }

    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }

    fn vector(&mut self, dims: usize) -> Vec<f32> {
        (0..dims).map(|_| self.normal()).collect()
    }
}

/// Rows near to a few hundred places; queries alike.
fn clustered(random: &mut Random, dims: usize, rows: usize, clusters: usize) -> Vec<f32> {
    let centers: Vec<Vec<f32>> = (0..clusters).map(|_| random.vector(dims)).collect();
    let mut vectors = Vec::with_capacity(rows * dims);
    for row in 0..rows {
        // Not the order in which they lie.
        let center = &centers[row * 7919 % clusters];
        vectors.extend(center.iter().map(|value| value + 0.35 * random.normal()));
    }
    vectors
}

fn spread(random: &mut Random, dims: usize, rows: usize) -> Vec<f32> {
    (0..rows * dims).map(|_| random.normal()).collect()
}

/// Rows that four numbers decide but for a little.
fn flat(random: &mut Random, dims: usize, rows: usize) -> Vec<f32> {
    let ways: Vec<Vec<f32>> = (0..4).map(|_| random.vector(dims)).collect();
    let mut vectors = Vec::with_capacity(rows * dims);
    for _ in 0..rows {
        let place = random.vector(ways.len());
        for axis in 0..dims {
            let along: f32 = ways.iter().zip(&place).map(|(way, place)| way[axis] * place).sum();
            vectors.push(along + 0.02 * random.normal());
        }
    }
    vectors
}

struct Corpus {
    dims: usize,
    vectors: Vec<f32>,
    inverse_norms: Vec<f32>,
    queries: Vec<Vec<f32>>,
}

impl Corpus {
    fn new(metric: Metric, dims: usize, mut vectors: Vec<f32>) -> Self {
        let kept = vectors.len() - QUERIES * dims;
        let queries = vectors.split_off(kept);
        let queries = queries.chunks_exact(dims).map(|query| match metric {
            Metric::Cosine => normalized(query).map_or(query.to_vec(), |(unit, _)| unit),
            Metric::Dot | Metric::L2 => query.to_vec(),
        });
        let queries = queries.collect();
        let norms = vectors.chunks_exact(dims).map(|row| inverse_norm(row).unwrap_or(1.0));
        let inverse_norms = norms.collect();
        Self { dims, vectors, inverse_norms, queries }
    }

    fn block(&self) -> RowBlock<'_> {
        RowBlock::new(self.dims, &self.vectors, &self.inverse_norms)
    }
}

/// What two ways find for each query, and the times of both: for each query the least of a few
/// turns, which alternate so that whatever else the machine does is in both.
fn race<A, B>(
    corpus: &Corpus,
    mut one: impl FnMut(&[f32]) -> A,
    mut other: impl FnMut(&[f32]) -> B,
) -> ([f64; 2], Vec<(A, B)>) {
    let (mut times, mut answers) = ([0.0; 2], Vec::new());
    for query in &corpus.queries {
        let (mut least, mut last) = ([Duration::MAX; 2], None);
        for _ in 0..TURNS {
            let start = Instant::now();
            let a = one(query);
            let middle = Instant::now();
            let b = other(query);
            least[0] = least[0].min(middle - start);
            least[1] = least[1].min(middle.elapsed());
            last = Some((a, b));
        }
        times[0] += least[0].as_secs_f64() * 1e6 / QUERIES as f64;
        times[1] += least[1].as_secs_f64() * 1e6 / QUERIES as f64;
        answers.extend(last);
    }
    (times, answers)
}

fn scan(metric: Metric, corpus: &Corpus, vector: &[f32]) -> Vec<(f32, RowId)> {
    let block = corpus.block();
    let scorer = VectorScorer::new(metric, vector, &block);
    let mut top = TopK::new(K);
    let rows = u32::try_from(corpus.inverse_norms.len()).unwrap_or(u32::MAX);
    brute_force::search(&scorer, 0..rows, &AllRows, &mut top, |row| row);
    top.into_sorted()
}

fn tree(metric: Metric, corpus: &Corpus, name: &str, config: kd_tree::Config) {
    let (block, start) = (corpus.block(), Instant::now());
    let tree = kd_tree::build(metric, &block, config, &Sequential);
    let built = start.elapsed();
    let walk = |vector: &[f32]| {
        let scorer = VectorScorer::new(metric, vector, &block);
        let query = Query { scorer: &scorer, vector, allowed: &AllRows };
        let mut top = TopK::new(K);
        let walk = tree.search(query, &mut top, |row| row);
        (walk, top.into_sorted())
    };
    let ([scanned, walked], answers) = race(corpus, |vector| scan(metric, corpus, vector), walk);
    let same = answers.iter().all(|(expect, (_, found))| found == expect);
    let scored: u64 = answers.iter().map(|(_, (walk, _))| walk.scored).sum();
    let part = scored as f64 / (QUERIES * corpus.inverse_norms.len()) as f64;
    let fell_back = answers.iter().filter(|(_, (walk, _))| walk.fell_back).count();
    println!(
        "kd_tree {name:9} {:6} dims {:4}: scored {:6.2} %, fell back {fell_back}/{QUERIES}, \
         {:8.1} us of {:8.1} ({:.3}), built in {:.2} s, same {same}",
        metric.name(),
        corpus.dims,
        part * 100.0,
        walked,
        scanned,
        walked / scanned,
        built.as_secs_f64(),
    );
}

fn tables(metric: Metric, corpus: &Corpus, name: &str, config: lsh::Config) {
    let (block, start) = (corpus.block(), Instant::now());
    let tables = lsh::build(metric, &block, config, 1, &Sequential);
    let built = start.elapsed();
    for candidates in [200, 1000, 2000, 5000] {
        let probes = lsh::Probes::new(K, candidates);
        let visit = |vector: &[f32]| {
            let scorer = VectorScorer::new(metric, vector, &block);
            let query = Query { scorer: &scorer, vector, allowed: &AllRows };
            let mut top = TopK::new(K);
            tables.search(query, probes, &mut top, |row| row);
            top.into_sorted()
        };
        let ([scanned, visited], answers) =
            race(corpus, |vector| scan(metric, corpus, vector), visit);
        let hits = |(expect, found): &(Vec<(f32, RowId)>, Vec<(f32, RowId)>)| {
            found.iter().filter(|found| expect.contains(found)).count()
        };
        let recall = answers.iter().map(hits).sum::<usize>() as f64 / (QUERIES * K) as f64;
        println!(
            "lsh {}x{} {name:9} {:6} dims {:4}: {candidates:5} candidates, recall {recall:.3}, \
             {visited:8.1} us of {scanned:8.1} ({:.3}), built in {:.2} s",
            config.num_tables(),
            config.hash_size(),
            metric.name(),
            corpus.dims,
            visited / scanned,
            built.as_secs_f64(),
        );
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rows = arguments.next().and_then(|rows| rows.parse().ok()).unwrap_or(50_000);
    let only = arguments.next();
    let asked = |name| only.as_deref().is_none_or(|only| only == name);
    let mut random = Random(1);
    for dims in [2, 8, 16, 64, 384] {
        for metric in Metric::ALL {
            for name in ["clustered", "spread", "flat"] {
                let rows = rows + QUERIES;
                let vectors = match name {
                    "clustered" => clustered(&mut random, dims, rows, 300),
                    "spread" => spread(&mut random, dims, rows),
                    _ => flat(&mut random, dims, rows),
                };
                let corpus = Corpus::new(metric, dims, vectors);
                if asked("kd_tree") {
                    tree(metric, &corpus, name, kd_tree::Config::default());
                }
                if asked("lsh") {
                    tables(metric, &corpus, name, lsh::Config::default());
                }
            }
        }
    }
}
