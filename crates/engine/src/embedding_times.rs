//! How long turning texts into vectors takes, by how many texts there are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in milliseconds.
const BOUNDS_MS: [u64; 10] = [10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];

/// Sizes that are told apart: the name, and the most texts.
const SIZES: [(&str, usize); 3] = [("small", 10), ("medium", 100), ("large", usize::MAX)];

/// Durations of the calls of the embedder that succeeded, counted since the start.
#[derive(Debug, Default)]
pub struct EmbeddingTimes([Counts; SIZES.len()]);

#[derive(Debug, Default)]
struct Counts {
    buckets: [AtomicU64; BOUNDS_MS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

/// The durations of one size of calls.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// `small` (up to 10 texts), `medium` (up to 100) or `large`.
    pub size: &'static str,
    /// (upper bound in seconds, calls that took at most this), ascending.
    pub buckets: Vec<(f64, u64)>,
    /// All calls.
    pub count: u64,
    /// Seconds that they took together.
    pub seconds: f64,
}

impl EmbeddingTimes {
    /// One call with so many texts took so long.
    pub(crate) fn took(&self, texts: usize, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let sizes = SIZES.iter().zip(&self.0);
        for ((_name, texts_max), counts) in sizes {
            if texts <= *texts_max {
                counts.count.fetch_add(1, Ordering::Relaxed);
                counts.micros.fetch_add(micros, Ordering::Relaxed);
                for (bound, bucket) in BOUNDS_MS.iter().zip(&counts.buckets) {
                    if micros <= bound * 1000 {
                        bucket.fetch_add(1, Ordering::Relaxed);
                    }
                }
                return;
            }
        }
    }

    /// What was counted, from the smallest calls to the largest.
    pub fn histograms(&self) -> Vec<Histogram> {
        let of = |((size, _texts_max), counts): (&(&'static str, usize), &Counts)| Histogram {
            size,
            buckets: BOUNDS_MS
                .iter()
                .zip(&counts.buckets)
                .map(|(bound, bucket)| (*bound as f64 / 1000.0, bucket.load(Ordering::Relaxed)))
                .collect(),
            count: counts.count.load(Ordering::Relaxed),
            seconds: counts.micros.load(Ordering::Relaxed) as f64 / 1e6,
        };
        SIZES.iter().zip(&self.0).map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_size_and_cumulatively_by_time() {
        let times = EmbeddingTimes::default();
        for (texts, ms) in [(1, 10), (10, 11), (11, 700), (1000, 60_000)] {
            times.took(texts, Duration::from_millis(ms));
        }
        let found = times.histograms();
        let counts: Vec<_> = found.iter().map(|each| (each.size, each.count)).collect();
        assert_eq!(counts, [("small", 2), ("medium", 1), ("large", 1)]);
        assert_eq!(found[0].buckets[..2], [(0.01, 1), (0.025, 2)]);
        assert_eq!(found[0].buckets[9], (10.0, 2));
        assert_eq!(found[2].buckets[9], (10.0, 0));
        assert!((found[2].seconds - 60.0).abs() < 1e-9);
    }
}
