//! Searches of a sample at every effort, beside exact answers.

use std::sync::OnceLock;

use super::bounds::Trials;
use super::queries::{self, sample_size};
use super::{CALIBRATED_KS, CODES_PER_VECTOR, Calibration, Curve, FOUND_ENOUGH, Ladder, USUAL_K};
use crate::{Effort, Executor, IndexSpec, Metric, Tuning};

/// A ladder that has begun to cost more ends after so many steps that cost no more: one may be
/// where estimates of what is near make a search look at a little less.
const STALLS_MAX: usize = 2;

/// Distances and rows, ascending.
pub type FoundRows = Vec<(f32, u64)>;

/// Rows that are searched, as one whole: a segment, or all segments of a library.
pub trait Subject: Sync {
    /// Why rows cannot be read.
    type Error: Send + Sync;

    /// How many rows there are, dead ones included: they are numbered from 0.
    fn rows(&self) -> u64;

    /// Numbers of one vector.
    fn dims(&self) -> usize;

    /// A row's vector as it was given; `None` if it must not be answered.
    fn vector(&self, row: u64) -> Result<Option<Vec<f32>>, Self::Error>;

    /// The nearest rows by the structures, ascending, with what that took. For
    /// [`Metric::Cosine`] the query is a unit vector.
    fn nearest(
        &self,
        query: &[f32],
        k: usize,
        tuning: Tuning,
    ) -> Result<(FoundRows, Effort), Self::Error>;

    /// The distances of the `k` nearest rows of each query, ascending, as [`Subject::nearest`]
    /// measures them: every row is scored for every query.
    fn exact(
        &self,
        queries: &[Vec<f32>],
        k: usize,
        executor: &dyn Executor,
    ) -> Result<Vec<Vec<f32>>, Self::Error>;
}

/// Measures what searches by `spec` find. `None` where that says nothing: every search is exact, or
/// there are no rows to ask for. The same for the same rows, on any number of threads.
///
/// Takes as long as scoring every row for some hundred queries, and some ten thousand searches;
/// [`Executor::run`] is called often, so that whoever gives it can stop there.
pub fn calibrate<S: Subject>(
    subject: &S,
    spec: IndexSpec,
    metric: Metric,
    executor: &dyn Executor,
) -> Result<Option<Calibration>, S::Error> {
    calibrate_for(subject, spec, metric, executor, &CALIBRATED_KS)
}

/// As [`calibrate`], for these k alone.
pub(super) fn calibrate_for<S: Subject>(
    subject: &S,
    spec: IndexSpec,
    metric: Metric,
    executor: &dyn Executor,
    ks: &[usize],
) -> Result<Option<Calibration>, S::Error> {
    if Ladder::all(spec, USUAL_K).is_empty() {
        return Ok(None);
    }
    let count = sample_size(subject.rows(), subject.dims());
    let queries = queries::draw(subject, metric, count, executor)?;
    let k_max = ks.iter().copied().fold(USUAL_K, usize::max);
    let exact = subject.exact(&queries, k_max, executor)?;
    let sample = Sample { subject, queries: &queries, exact: &exact, executor };
    // A query has fewer than k nearest only where there are fewer rows.
    let rows = exact.iter().map(Vec::len).min().unwrap_or(0);
    let usual = sample.ask(USUAL_K, Tuning::default())?;
    if rows == 0 || usual.walked == 0 {
        return Ok(None);
    }
    let every_row = sample.ask(1, Tuning { exact: true, ..Tuning::default() });
    let exact_cost = every_row?.trials.cost;
    let mut curves = Vec::new();
    for k in ks.iter().copied().filter(|k| *k <= rows) {
        let ladders = sample.climb(spec, k, exact_cost)?;
        curves.push(Curve::of(k, &ladders));
    }
    let queries = queries.len();
    Ok(Some(Calibration { queries, curves, usual_recall: usual.trials.recall(), exact_cost }))
}

/// Queries and their exact answers.
struct Sample<'a, S> {
    subject: &'a S,
    queries: &'a [Vec<f32>],
    exact: &'a [Vec<f32>],
    executor: &'a dyn Executor,
}

/// What searches at one effort gave.
struct Asked {
    trials: Trials,
    /// Segments that were walked, of all searches.
    walked: u64,
}

impl<S: Subject> Sample<'_, S> {
    /// The ladders of a spec, each up to where enough is found, an exact search costs no more, or
    /// more effort no longer costs more.
    ///
    /// Below a floor of the structure's own (it gives k rows, and as many candidates as codes that
    /// estimate need) efforts cost the same; of those the first is kept.
    fn climb(
        &self,
        spec: IndexSpec,
        k: usize,
        exact_cost: f64,
    ) -> Result<Vec<Vec<(Tuning, Trials)>>, S::Error> {
        let coded = spec.quantization.scheme().is_some();
        let mut ladders = Vec::new();
        for ladder in Ladder::all(spec, k) {
            let mut steps: Vec<(Tuning, Trials)> = Vec::new();
            let (mut found, mut stalls) = (0.0_f64, 0);
            for tuning in ladder.steps(coded) {
                let Asked { trials, walked } = self.ask(k, tuning)?;
                if walked == 0 || trials.cost >= exact_cost {
                    break;
                }
                if steps.last().is_some_and(|(_tuning, before)| trials.cost <= before.cost) {
                    stalls += 1;
                    if steps.len() > 1 && stalls == STALLS_MAX {
                        break;
                    }
                    continue;
                }
                stalls = 0;
                found = found.max(trials.recall());
                steps.push((tuning, trials));
                if found >= FOUND_ENOUGH {
                    break;
                }
            }
            ladders.push(steps);
            if found >= FOUND_ENOUGH {
                break;
            }
        }
        Ok(ladders)
    }

    /// Asks every query for its `k` nearest.
    fn ask(&self, k: usize, tuning: Tuning) -> Result<Asked, S::Error> {
        let answers: Vec<OnceLock<_>> = self.queries.iter().map(|_query| OnceLock::new()).collect();
        self.executor.run(self.queries.len(), &|n| {
            answers[n].get_or_init(|| self.ask_one(n, k, tuning));
        });
        let (mut trials, mut walked) = (Trials::default(), 0);
        for answer in answers.into_iter().filter_map(OnceLock::into_inner) {
            let (hits, effort) = answer?;
            trials.hits.push(hits);
            trials.cost += cost(effort);
            walked += u64::from(effort.walked);
        }
        trials.cost /= (trials.hits.len() as f64).max(1.0);
        Ok(Asked { trials, walked })
    }

    /// How many of a query's `k` nearest are found, and how many there are. A row as near as the
    /// farthest of them is as good as that.
    fn ask_one(
        &self,
        n: usize,
        k: usize,
        tuning: Tuning,
    ) -> Result<((u32, u32), Effort), S::Error> {
        let (found, effort) = self.subject.nearest(&self.queries[n], k, tuning)?;
        let nearest = &self.exact[n][..k.min(self.exact[n].len())];
        let farthest = nearest.last().copied().unwrap_or(f32::NEG_INFINITY);
        let hits = found.iter().filter(|(distance, _row)| *distance <= farthest).count();
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Ok(((number(hits.min(nearest.len())), number(nearest.len())), effort))
    }
}

fn cost(effort: Effort) -> f64 {
    effort.vectors as f64 * CODES_PER_VECTOR + effort.codes as f64
}
