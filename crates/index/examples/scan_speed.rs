//! How near an exact scan comes to the speed of memory.
//!
//! `cargo run --release -p arrwdb-index --example scan_speed -- [dims] [rows] [rounds]`
//!
//! Prints the median time of a plain streaming read (a sum) of all vectors and of an exact search
//! over them, on one thread and on two, and the ratio of the two. Rounds take turns, so that a
//! noisy neighbour disturbs all of them alike.
#![expect(clippy::print_stdout, reason = "a measurement is for reading")]

use std::hint::black_box;
use std::ops::Range;
use std::time::{Duration, Instant};

use arrwdb_index::{AllRows, CosineScorer, RowBlock, RowId, TopK, VectorError, brute_force};
use arrwdb_kernel::kernels;

const K: usize = 10;

struct Corpus {
    dims: usize,
    vectors: Vec<f32>,
    inverse_norms: Vec<f32>,
    query: Vec<f32>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |default: u32| arguments.next().map_or(Ok(default), |text| text.parse());
    let (dims, rows, rounds) = (argument(128)?, argument(1_000_000)?, argument(15)?);
    let corpus = Corpus::new(dims as usize, rows)?;
    let bytes = corpus.vectors.len() * size_of::<f32>();
    println!("{rows} rows of {dims}, {} MB, {}", bytes / 1_000_000, kernels().name());

    let (whole, halves) = (split(rows, 1), split(rows, 2));
    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..rounds {
        times[0].push(time(|| corpus.on_threads(&whole, Corpus::read)));
        times[1].push(time(|| corpus.on_threads(&whole, Corpus::search)));
        times[2].push(time(|| corpus.on_threads(&halves, Corpus::read)));
        times[3].push(time(|| corpus.on_threads(&halves, Corpus::search)));
    }
    let [read_1, search_1, read_2, search_2] = times.map(median);
    report("1 thread", bytes, read_1, search_1);
    report("2 threads", bytes, read_2, search_2);
    Ok(())
}

/// `parts` ranges of as good as equal length that make up `0..rows`.
fn split(rows: u32, parts: u32) -> Vec<Range<u32>> {
    (0..parts)
        .map(|part| {
            rows / parts * part..if part + 1 == parts { rows } else { rows / parts * (part + 1) }
        })
        .collect()
}

fn report(threads: &str, bytes: usize, read: Duration, search: Duration) {
    let gigabytes = bytes as f64 / 1e9;
    println!(
        "{threads}: read {:.2} ms ({:.1} GB/s), search {:.2} ms ({:.1} GB/s), ratio {:.3}",
        read.as_secs_f64() * 1e3,
        gigabytes / read.as_secs_f64(),
        search.as_secs_f64() * 1e3,
        gigabytes / search.as_secs_f64(),
        search.as_secs_f64() / read.as_secs_f64(),
    );
}

fn time<T>(work: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    black_box(work());
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

impl Corpus {
    /// The same numbers every time, in `-1..1`.
    fn new(dims: usize, rows: u32) -> Result<Self, VectorError> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
        };
        let vectors: Vec<f32> = (0..rows as usize * dims).map(|_| next()).collect();
        let inverse_norms: Result<Vec<f32>, _> =
            vectors.chunks_exact(dims).map(arrwdb_index::inverse_norm).collect();
        let raw: Vec<f32> = (0..dims).map(|_| next()).collect();
        let (query, _) = arrwdb_index::normalized(&raw)?;
        Ok(Self { dims, vectors, inverse_norms: inverse_norms?, query })
    }

    /// Runs `work` over each range on a thread of its own.
    fn on_threads<T: Send>(
        &self,
        ranges: &[Range<u32>],
        work: impl Fn(&Self, Range<u32>) -> T + Sync,
    ) {
        let work = &work;
        std::thread::scope(|scope| {
            for range in ranges {
                scope.spawn(move || black_box(work(self, range.clone())));
            }
        });
    }

    fn read(&self, rows: Range<u32>) -> f32 {
        let vectors = &self.vectors[rows.start as usize * self.dims..rows.end as usize * self.dims];
        kernels().sum(vectors)
    }

    fn search(&self, rows: Range<u32>) -> Vec<(f32, RowId)> {
        let blocks = [RowBlock {
            first: RowId(0),
            vectors: &self.vectors,
            inverse_norms: &self.inverse_norms,
        }];
        let scorer = CosineScorer::new(&self.query, &blocks);
        let mut top = TopK::new(K);
        brute_force::search(&scorer, rows, &AllRows, &mut top, |row| row);
        top.into_sorted()
    }
}
