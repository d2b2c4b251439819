//! The queries that stand for those that are to come.
//!
//! Nobody knows them; what is known are rows. A row itself is too easy a query: it is in the
//! structure, which was built to find its neighbours. So each query is a row moved away, as far as
//! its own nearest rows are, in the direction from one random row to another: it lies about as far
//! from the rows as a row does that was left out, along the directions in which rows differ.
//!
//! Questions about passages (30,000 of 384 dimensions, 300 questions) were found about as well or better:
//! by a graph 0.965 where 0.924 was measured and 0.987 where 0.964 was, by lists with codes 0.925 where
//! 0.923 was and 0.962 where 0.962 was. Queries that are nothing like the rows may be found worse.

use std::sync::OnceLock;

use super::measure::Subject;
use crate::norm::sum_of_squares;
use crate::random::hash;
use crate::{Executor, Metric, Tuning, normalized};

const SEED: u64 = 0xca1_1b2a7e;
/// Queries, where rows are not so many that it takes too long.
const QUERIES_MAX: u64 = 320;
/// Fewer say little.
const QUERIES_MIN: u64 = 64;
/// Bytes of vectors that all exact answers together score: some minutes of one core.
const SCORED_BYTES_MAX: u64 = 1 << 40;
/// Rows that are drawn to find one that may be answered.
const DRAWS_MAX: u64 = 64;
/// A row's distance to the others is that of one of so many nearest.
const NEAR: usize = 10;

/// How many queries are asked of so many rows.
pub(super) fn sample_size(rows: u64, dims: usize) -> u64 {
    let bytes = rows.saturating_mul(dims as u64 * 4).max(1);
    (SCORED_BYTES_MAX / bytes).clamp(QUERIES_MIN, QUERIES_MAX)
}

/// `count` queries; fewer where rows that may be answered are rare.
pub(super) fn draw<S: Subject>(
    subject: &S,
    metric: Metric,
    count: u64,
    executor: &dyn Executor,
) -> Result<Vec<Vec<f32>>, S::Error> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let drawn: Vec<OnceLock<_>> = (0..count).map(|_n| OnceLock::new()).collect();
    executor.run(count, &|n| {
        drawn[n].get_or_init(|| Draw { subject, metric, number: n as u64 }.query());
    });
    let drawn = drawn.into_iter().filter_map(OnceLock::into_inner);
    drawn.filter_map(Result::transpose).collect()
}

/// The making of one query.
struct Draw<'a, S> {
    subject: &'a S,
    metric: Metric,
    number: u64,
}

impl<S: Subject> Draw<'_, S> {
    fn query(&self) -> Result<Option<Vec<f32>>, S::Error> {
        let rows = (self.row(0)?, self.row(1)?, self.row(2)?);
        let (Some(row), Some(from), Some(to)) = rows else { return Ok(None) };
        let (near, _effort) = self.subject.nearest(&row, NEAR, Tuning::default())?;
        let pick = usize::try_from(self.random(3) % NEAR as u64).unwrap_or(0);
        // The first is the row itself, or one that is equal.
        let near = near.get(pick.max(1)).or(near.last());
        let near = near.map(|(_distance, at)| self.subject.vector(*at)).transpose()?.flatten();
        let reach = near.map_or(0.0, |near| length(&difference(&row, &self.as_asked(near))));
        let step = difference(&to, &from);
        let factor = reach / length(&step);
        let moved: Vec<f32> = if factor.is_finite() {
            row.iter().zip(&step).map(|(value, step)| value + step * factor).collect()
        } else {
            row.clone()
        };
        let usable = self.as_asked(moved);
        let usable = usable.iter().all(|value| value.is_finite()).then_some(usable);
        Ok(Some(usable.unwrap_or(row)))
    }

    /// A random row that may be answered, as a query.
    fn row(&self, part: u64) -> Result<Option<Vec<f32>>, S::Error> {
        for draw in 0..DRAWS_MAX {
            let row = self.random(16 + part * DRAWS_MAX + draw) % self.subject.rows().max(1);
            if let Some(vector) = self.subject.vector(row)? {
                return Ok(Some(self.as_asked(vector)));
            }
        }
        Ok(None)
    }

    /// As queries are: by cosine unit vectors.
    fn as_asked(&self, vector: Vec<f32>) -> Vec<f32> {
        match self.metric {
            Metric::Cosine => normalized(&vector).map_or(vector, |(unit, _inverse_norm)| unit),
            Metric::Dot | Metric::L2 => vector,
        }
    }

    fn random(&self, counter: u64) -> u64 {
        hash(SEED ^ self.number, counter)
    }
}

fn difference(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a length of f32 numbers; infinite if too long"
)]
fn length(v: &[f32]) -> f32 {
    sum_of_squares(v).sqrt() as f32
}
