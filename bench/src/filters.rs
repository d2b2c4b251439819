//! What an index finds, and how fast, at the effort that is chosen for a recall, when only a part of
//! the rows may be answered: a random part, the query's own neighbourhood, or all but that.

use std::hint::black_box;
use std::time::{Duration, Instant};

use arrwdb_index::{
    AllRows, Allowed, Executor, RowBlock, RowId, Scorer, SegmentIndex, SegmentRows, Subject,
    Tuning, VectorScorer, Vectors, calibrate,
};
use serde_json::{Value, json};

use crate::Outcome;

/// Queries that are asked: each has an exact answer of its own under every filter.
const QUERIES: usize = 100;
/// How long the speed under one filter is measured at least.
const MEASURE: Duration = Duration::from_millis(500);
/// The query's own neighbourhood is the nearest of so many rows.
const NEAR_PART: usize = 10;

/// Random parts of the rows, of a thousand.
const PARTS: [u32; 5] = [1000, 500, 100, 10, 1];

/// Rows that may be answered.
struct Marked {
    words: Vec<u64>,
    rows: u32,
}

impl Marked {
    fn of(rows: u32, marked: impl Fn(u32) -> bool) -> Self {
        let mut words = vec![0_u64; rows.div_ceil(64) as usize];
        let mut count = 0;
        for row in (0..rows).filter(|row| marked(*row)) {
            words[(row / 64) as usize] |= 1 << (row % 64);
            count += 1;
        }
        Self { words, rows: count }
    }

    fn part(rows: u32, per_mille: u32) -> Self {
        Self::of(rows, |row| {
            // Fibonacci hashing: the same part in every run.
            let spread = row.wrapping_mul(2_654_435_769) >> 12;
            u64::from(spread) * 1000 < u64::from(per_mille) << 20
        })
    }
}

impl Allowed for Marked {
    fn allows(&self, row: RowId) -> bool {
        let word = self.words.get((row.0 / 64) as usize);
        word.is_some_and(|word| word >> (row.0 % 64) & 1 == 1)
    }

    fn word(&self, first: RowId) -> u64 {
        self.words.get((first.0 / 64) as usize).copied().unwrap_or(0)
    }
}

/// Whose rows and which queries are asked.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What is searched.
    pub index: &'a SegmentIndex,
    /// Its rows.
    pub rows: &'a RowBlock<'a>,
    /// By cosine unit vectors.
    pub queries: &'a [Vec<f32>],
    /// How many of the nearest.
    pub k: usize,
}

/// One row of figures per filter and recall, and per filter one at the usual effort.
pub fn measure(asked: Asked<'_>, wanted: &[f64], threads: &dyn Executor) -> Outcome<Vec<Value>> {
    let asked = Asked { queries: &asked.queries[..asked.queries.len().min(QUERIES)], ..asked };
    let rows = asked.rows.rows();
    let whole = asked.subject(&AllRows, rows);
    let started = Instant::now();
    let Ok(known) = calibrate(&whole, asked.index.spec(), asked.index.metric(), threads);
    let seconds = started.elapsed().as_secs_f64();
    let mut efforts = vec![(Value::Null, Tuning::default())];
    // Where nothing is measured no effort is chosen, and there is nothing to tell of it.
    efforts.extend(known.iter().flat_map(|known| {
        let chosen = |recall: &f64| (json!(recall), known.choose(asked.k, *recall).tuning);
        wanted.iter().map(chosen)
    }));
    let mut figures = vec![json!({
        "calibration_seconds": seconds,
        "usual_recall": known.as_ref().map(|known| known.usual_recall),
    })];
    let neighbourhoods = || asked.queries.iter().map(|query| asked.nearest(query));
    let parts = PARTS.map(|part| (format!("{part} of 1000"), vec![Marked::part(rows, part)]));
    let near = neighbourhoods().collect();
    let far =
        neighbourhoods().map(|near| Marked::of(rows, |row| !near.allows(RowId(row)))).collect();
    let correlated = [("the nearest tenth".to_owned(), near), ("all but those".to_owned(), far)];
    for (name, filters) in parts.into_iter().chain(correlated) {
        let exact = asked.exact(&filters, threads);
        for (recall, tuning) in &efforts {
            let (found, rate) = asked.ask(&filters, &exact, *tuning);
            figures.push(json!({
                "filter": name,
                "rows_allowed": filters[0].rows,
                "wanted_recall": recall,
                "parameters": parameters(*tuning),
                "recall": found,
                "qps": rate,
            }));
        }
    }
    Ok(figures)
}

impl<'a> Asked<'a> {
    fn subject(self, allowed: &'a dyn Allowed, allowed_rows: u32) -> SegmentRows<'a, RowBlock<'a>> {
        let (index, vectors) = (self.index, self.rows);
        SegmentRows { index, spec: index.spec(), vectors, allowed, allowed_rows }
    }

    /// The nearest part of the rows.
    fn nearest(&self, query: &[f32]) -> Marked {
        let scorer = VectorScorer::new(self.index.metric(), query, self.rows);
        let mut distances = vec![0.0; self.rows.rows() as usize];
        scorer.score_range(RowId(0), &mut distances);
        let mut sorted = distances.clone();
        let place = sorted.len() / NEAR_PART;
        let bound = *sorted.select_nth_unstable_by(place, f32::total_cmp).1;
        Marked::of(self.rows.rows(), |row| distances[row as usize] <= bound)
    }

    /// The exact distances of each query under its filter.
    fn exact(&self, filters: &[Marked], threads: &dyn Executor) -> Vec<Vec<f32>> {
        if let [filter] = filters {
            let Ok(exact) = self.subject(filter, filter.rows).exact(self.queries, self.k, threads);
            return exact;
        }
        let each = self.queries.iter().zip(filters).flat_map(|(query, filter)| {
            let query = std::slice::from_ref(query);
            let Ok(exact) = self.subject(filter, filter.rows).exact(query, self.k, threads);
            exact
        });
        each.collect()
    }

    /// The part found, and searches a second on one thread.
    fn ask(&self, filters: &[Marked], exact: &[Vec<f32>], tuning: Tuning) -> (f64, f64) {
        let search = |n: usize| {
            let filter = &filters[n % filters.len()];
            let Ok((found, _effort)) =
                self.subject(filter, filter.rows).nearest(&self.queries[n], self.k, tuning);
            found
        };
        let (mut hits, mut wanted) = (0, 0);
        for (n, exact) in exact.iter().enumerate() {
            let farthest = exact.last().copied().unwrap_or(f32::NEG_INFINITY);
            hits += search(n).iter().filter(|(distance, _row)| *distance <= farthest).count();
            wanted += exact.len();
        }
        let (mut searches, started) = (0_u32, Instant::now());
        while started.elapsed() < MEASURE {
            for n in 0..self.queries.len() {
                black_box(search(n));
                searches += 1;
                if started.elapsed() > MEASURE {
                    break;
                }
            }
        }
        let rate = f64::from(searches) / started.elapsed().as_secs_f64();
        (hits as f64 / (wanted as f64).max(1.0), rate)
    }
}

fn parameters(tuning: Tuning) -> Value {
    let mut named = serde_json::Map::new();
    for (name, number) in [
        ("ef_search", tuning.ef_search),
        ("nprobe", tuning.nprobe),
        ("candidates", tuning.candidates),
        ("rerank", tuning.rerank),
    ] {
        if let Some(number) = number {
            named.insert(name.to_owned(), number.into());
        }
    }
    if tuning.exact {
        named.insert("exact".to_owned(), true.into());
    }
    Value::Object(named)
}
