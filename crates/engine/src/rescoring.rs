//! Scoring anew what a search found: candidates are read, scored by what is known of them, and the best
//! of them are the hits.

use arrwdb_state::{FoundPassage, Metric, Passage, RowPlace, Timestamp, View};

use crate::diversity::{Relevant, diverse};
use crate::error::EngineError;
use crate::fusion::{Fusion, RANK_CONSTANT};
use crate::grouping::grouped_hits;
use crate::ranking::{Ranked, Ranking, Wanted, hit};
use crate::request::{Hit, Rescored};
use crate::scoring::{Evidence, HybridScoring, Rescoring, Scoring, age_days, similarity};

/// How candidates are scored anew, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Anew<'a> {
    pub(crate) rescoring: &'a Rescoring,
    /// How many hits are wanted of the candidates.
    pub(crate) k: usize,
    /// What ages are counted to.
    pub(crate) now: Timestamp,
}

/// A candidate that was read.
struct Candidate {
    ranked: Ranked,
    passage: FoundPassage,
}

impl Candidate {
    fn evidence(&self, metric: Metric, now: Timestamp) -> Evidence<'_> {
        let FoundPassage { document_id, document, chunk, index } = &self.passage;
        let distance = self.ranked.distance.map(f64::from);
        Evidence {
            similarity: distance.map_or(0.0, |distance| similarity(distance, metric)),
            distance: distance.unwrap_or(f64::INFINITY),
            bm25: self.ranked.signals.keyword.map_or(0.0, |it| f64::from(it.score)),
            age_days: age_days(chunk.created_at, now),
            passage: Passage { document_id: *document_id, document, chunk, index: *index },
        }
    }
}

/// The best of what was found, best first: of equal scores the one that was found first.
pub(crate) fn rescore(
    view: &View,
    found: Vec<Ranked>,
    wanted: &Wanted<'_>,
    anew: Anew<'_>,
) -> Result<Vec<Hit>, EngineError> {
    let diverse = matches!(anew.rescoring.by, Scoring::Diverse { .. });
    let vectors = wanted.vectors || diverse;
    let places: Vec<RowPlace> = found.iter().map(|ranked| ranked.place).collect();
    let passages = view.passages_of(&places, vectors)?.into_iter();
    let candidates = found.into_iter().zip(passages);
    let candidates: Vec<Candidate> =
        candidates.map(|(ranked, passage)| Candidate { ranked, passage }).collect();
    let best = best(&candidates, wanted, anew);
    let mut candidates: Vec<Option<Candidate>> = candidates.into_iter().map(Some).collect();
    let taken = best.into_iter().filter_map(|(at, rescored)| {
        let Candidate { ranked, mut passage } = candidates[at].take()?;
        if !wanted.vectors {
            passage.chunk.embedding = Vec::new();
        }
        Some(hit((&ranked, Some(rescored)), passage, wanted))
    });
    let taken: Vec<Hit> = taken.collect();
    match wanted.groups {
        // A model has not ranked them yet.
        Some(groups) if !matches!(anew.rescoring.by, Scoring::Model) => grouped_hits(taken, groups),
        Some(_) | None => Ok(taken),
    }
}

/// The places of the best candidates with their scores.
fn best(candidates: &[Candidate], wanted: &Wanted<'_>, anew: Anew<'_>) -> Vec<(usize, Rescored)> {
    let metric = wanted.nearest.metric;
    let evidence = candidates.iter().map(|candidate| candidate.evidence(metric, anew.now));
    let plain = |score: f64| Rescored {
        score: Some(score).filter(|it| it.is_finite()),
        breakdown: None,
        signals: Vec::new(),
    };
    match &anew.rescoring.by {
        Scoring::Each(scorer) => {
            let scored = evidence.map(|evidence| plain(scorer.score(&evidence)));
            let mut best = sorted(scored.collect(), anew.k);
            for (at, rescored) in &mut best {
                rescored.signals = scorer.signals(&candidates[*at].evidence(metric, anew.now));
            }
            best
        }
        Scoring::Hybrid(scoring) => {
            let scored = candidates.iter().zip(evidence).map(|(candidate, evidence)| {
                let fused = fused(candidate, wanted.ranking, scoring);
                let breakdown = scoring.breakdown(&evidence, fused);
                let score = Some(breakdown.hybrid_score).filter(|it| it.is_finite());
                Rescored { score, breakdown: Some(Box::new(breakdown)), signals: Vec::new() }
            });
            sorted(scored.collect(), anew.k)
        }
        Scoring::Diverse { lambda } => {
            let similarities = evidence.map(|evidence| evidence.similarity);
            let relevant: Vec<Relevant<'_>> = candidates
                .iter()
                .zip(similarities)
                .map(|(it, similarity)| Relevant {
                    vector: &it.passage.chunk.embedding,
                    similarity,
                })
                .collect();
            let chosen = diverse(&relevant, (anew.k, *lambda), metric);
            chosen.into_iter().map(|(at, score)| (at, plain(score))).collect()
        }
        // All of them as they were found: a model is asked when nobody waits for a thread.
        Scoring::Model => (0..candidates.len()).map(|at| (at, plain(f64::NAN))).collect(),
    }
}

/// What takes the place of a candidate's similarity, where vectors and keywords are fused.
fn fused(candidate: &Candidate, ranking: &Ranking, scoring: &HybridScoring) -> Option<f64> {
    let Ranking::Hybrid(_words, fusion, _alpha) = ranking else { return None };
    let score = f64::from(candidate.ranked.score);
    // Ranks give at most twice the first rank's part, scores at most 1.
    let most = match fusion {
        Fusion::ReciprocalRank if scoring.normalize => 2.0 / (RANK_CONSTANT + 1.0),
        Fusion::ReciprocalRank | Fusion::Weighted | Fusion::RelativeScore => 1.0,
    };
    Some(score / most)
}

/// The `k` best of them; those without a score come last.
fn sorted(scores: Vec<Rescored>, k: usize) -> Vec<(usize, Rescored)> {
    let mut scores: Vec<(usize, Rescored)> = scores.into_iter().enumerate().collect();
    scores.sort_by(|(_, a), (_, b)| {
        let score = |it: &Rescored| it.score.unwrap_or(f64::NEG_INFINITY);
        score(b).total_cmp(&score(a))
    });
    scores.truncate(k);
    scores
}
