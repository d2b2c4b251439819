//! How hard a search has to try to find a wanted part of the nearest rows, by measurement.
//!
//! Searches at several efforts are compared with exact answers, for some k; what is kept is a
//! [`Calibration`]: for each effort the part found, a bound below which the true part is unlikely
//! to be, and what it costs. A search that wants a recall takes the cheapest effort whose bound
//! reaches it.
//!
//! - The part found must not fall as the effort grows, so the measurements of one ladder are pooled
//!   until it does not (isotonic regression by pooling adjacent violators).
//! - The bound is Wilson's, one-sided at 95 %. The k hits of one query are not independent: a query
//!   in a bad place loses several. So the k hits of n queries count as fewer trials, by the design
//!   effect that is measured beside them (Kish, "Survey Sampling", 1965; Korn and Graubard,
//!   "Confidence intervals for proportions with small expected number of positive counts estimated
//!   from survey data", 1998); where nothing was missed it is not known and each query is one trial.

mod bounds;
mod measure;
mod queries;
mod segment;

pub use measure::{FoundRows, Subject, calibrate};
pub use segment::SegmentRows;

use crate::{IndexSpec, Quantization, Structure, Tuning};
use bounds::{Trials, lower_bound, pooled};

/// The numbers of rows wanted that are measured, ascending.
pub const CALIBRATED_KS: [usize; 3] = [1, 10, 100];
/// The k whose recall at the library's usual effort is told.
pub const USUAL_K: usize = 10;
/// A ladder ends where so much is found: what is left is below what so many queries can tell.
const FOUND_ENOUGH: f64 = 0.999;
/// Steps of a ladder at most.
const STEPS_MAX: usize = 32;
/// A vector that is read costs so many codes.
const CODES_PER_VECTOR: f64 = 4.0;

/// One effort, and what was measured at it.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Point {
    /// The effort.
    pub tuning: Tuning,
    /// The part of the nearest rows that was found, 0 to 1.
    pub recall: f64,
    /// A bound that the true part is above, at 95 % confidence.
    pub recall_min: f64,
    /// What a search costs, in rows that are scored by codes.
    pub cost: f64,
}

impl Point {
    /// What a search costs, in rows that are scored by their vectors.
    pub fn rows_scored(&self) -> f64 {
        self.cost / CODES_PER_VECTOR
    }
}

/// What was measured for one k: ladders of efforts one after the other, each ascending.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// How many rows were wanted.
    pub k: usize,
    /// Efforts and what they found.
    pub points: Vec<Point>,
}

/// What searches of some rows find at which effort.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// The queries that were asked.
    pub queries: usize,
    /// One for each of [`CALIBRATED_KS`] that there are rows for, ascending.
    pub curves: Vec<Curve>,
    /// The part found of the [`USUAL_K`] nearest where a search says nothing.
    pub usual_recall: f64,
    /// What scoring every row costs.
    pub exact_cost: f64,
}

/// The effort for a wanted recall.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Choice {
    /// The effort.
    pub tuning: Tuning,
    /// The recall that was measured at it; 1 for an exact search.
    pub recall: f64,
}

impl Choice {
    /// Every row is scored.
    pub const EXACT: Self = Self {
        tuning: Tuning {
            ef_search: None,
            nprobe: None,
            candidates: None,
            rerank: None,
            exact: true,
        },
        recall: 1.0,
    };
}

impl Calibration {
    /// The cheapest effort that finds the part `wanted` of the `k` nearest rows; an exact search if
    /// none does, if none is cheaper, or if `k` is above all that were measured.
    ///
    /// A `k` between two that were measured takes the greater effort of both.
    pub fn choose(&self, k: usize, wanted: f64) -> Choice {
        let above = self.curves.iter().find(|curve| curve.k >= k);
        let below = self.curves.iter().rev().find(|curve| curve.k <= k);
        let best = |curve: &Curve| curve.cheapest(wanted, self.exact_cost);
        let Some(above) = above.and_then(best) else { return Choice::EXACT };
        let above = Choice { tuning: above.tuning, recall: above.recall };
        let Some(below) = below else { return above };
        let Some(below) = best(below) else { return Choice::EXACT };
        Choice {
            tuning: above.tuning.at_least(below.tuning),
            recall: above.recall.min(below.recall),
        }
    }
}

impl Curve {
    /// The cheapest point that finds `wanted` for less than `cost_max`; of equal ones the first.
    fn cheapest(&self, wanted: f64, cost_max: f64) -> Option<Point> {
        let fit = |point: &&Point| point.recall_min >= wanted && point.cost < cost_max;
        self.points.iter().filter(fit).copied().min_by(|a, b| a.cost.total_cmp(&b.cost))
    }

    /// What the measurements of ladders say.
    fn of(k: usize, ladders: &[Vec<(Tuning, Trials)>]) -> Self {
        let mut points = Vec::new();
        for ladder in ladders {
            let trials: Vec<&Trials> = ladder.iter().map(|(_tuning, trials)| trials).collect();
            let recalls = pooled(&trials.iter().map(|trials| trials.recall()).collect::<Vec<_>>());
            let effects = bounds::design_effects(&trials);
            for (((tuning, trials), recall), effect) in ladder.iter().zip(recalls).zip(effects) {
                points.push(Point {
                    tuning: *tuning,
                    recall,
                    recall_min: lower_bound(recall, trials.hits_wanted() / effect),
                    cost: trials.cost,
                });
            }
        }
        Self { k, points }
    }
}

impl Tuning {
    /// The greater effort of both in each part.
    #[must_use]
    pub fn at_least(self, other: Self) -> Self {
        Self {
            ef_search: self.ef_search.max(other.ef_search),
            nprobe: self.nprobe.max(other.nprobe),
            candidates: self.candidates.max(other.candidates),
            rerank: self.rerank.max(other.rerank),
            exact: self.exact || other.exact,
        }
    }

    /// Twice as much of each part that it says.
    #[must_use]
    pub fn doubled(self) -> Self {
        let twice = |part: Option<u32>| part.map(|part| part.saturating_mul(2));
        Self {
            ef_search: twice(self.ef_search),
            nprobe: twice(self.nprobe),
            candidates: twice(self.candidates),
            rerank: twice(self.rerank),
            exact: self.exact,
        }
    }
}

/// Efforts in ascending order.
#[derive(Copy, Clone, Debug)]
struct Ladder {
    knob: Knob,
    first: u32,
    last: u32,
    /// How many rows' vectors decide, where rows have codes.
    rerank: Option<u32>,
}

/// What a ladder raises.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Knob {
    /// `ef_search`; with codes the vectors decide among all that a walk keeps.
    Width,
    Lists,
    Candidates,
    /// How many rows' vectors decide, of all that a scan estimates by their codes.
    Reranked,
    /// Nothing: every search makes the same effort.
    None,
}

impl Ladder {
    /// The ladders of a spec, the cheapest first; none where every search is exact.
    fn all(spec: IndexSpec, k: usize) -> Vec<Self> {
        let k = u32::try_from(k).unwrap_or(u32::MAX);
        let coded = spec.quantization.scheme().is_some();
        let ladder = |knob, first, last| Self { knob, first, last, rerank: None };
        let (base, factors): (Self, &[u32]) = match spec.structure {
            Structure::KdTree { .. } => return Vec::new(),
            Structure::BruteForce => match spec.quantization {
                Quantization::None | Quantization::Scalar { .. } | Quantization::Hybrid { .. } => {
                    return Vec::new();
                }
                // A scan reads all that the bounds of the bits leave.
                Quantization::Binary { .. } => (ladder(Knob::None, 1, 1), &[]),
                Quantization::Product { .. } => (ladder(Knob::Reranked, k, u32::MAX), &[]),
            },
            Structure::Hnsw { .. } => (ladder(Knob::Width, k.max(8), 4096), &[]),
            Structure::Lsh { .. } => {
                let first = k.saturating_mul(2).max(64);
                (ladder(Knob::Candidates, first, u32::MAX), if coded { &[2, 8, 32] } else { &[] })
            }
            Structure::Ivf { build, .. } => {
                let factors: &[u32] = match (build.use_pq, coded) {
                    (true, _) => &[4, 16, 64],
                    (false, true) => &[2, 8, 32],
                    (false, false) => &[],
                };
                (ladder(Knob::Lists, 1, 65_536), factors)
            }
        };
        if factors.is_empty() {
            return vec![base];
        }
        let rerank = |factor: &u32| Some(k.saturating_mul(*factor).max(20));
        factors.iter().map(|factor| Self { rerank: rerank(factor), ..base }).collect()
    }

    /// Steps of about 1.4.
    fn steps(self, coded: bool) -> impl Iterator<Item = Tuning> {
        let next = |value: &u32| value.checked_add((value / 5 * 2).max(1));
        let values = std::iter::successors(Some(self.first), next);
        let values = values.take_while(move |value| *value <= self.last).take(STEPS_MAX);
        values.map(move |value| {
            let mut tuning = Tuning { rerank: self.rerank, ..Tuning::default() };
            match self.knob {
                Knob::Width => {
                    tuning.ef_search = Some(value);
                    tuning.rerank = coded.then_some(value);
                }
                Knob::Lists => tuning.nprobe = Some(value),
                Knob::Candidates => tuning.candidates = Some(value),
                Knob::Reranked => tuning.rerank = Some(value),
                Knob::None => {}
            }
            tuning
        })
    }
}

#[cfg(test)]
mod tests;
