//! What candidates of a search are scored by, once they are found: signals of each, and formulas over
//! them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrwdb_state::{FieldValues, Metric, Passage, QueryWords, Timestamp};

use crate::error::EngineError;

/// Microseconds of a day.
const DAY_MICROS: i64 = 86_400_000_000;
/// The chunk of a document from which on it is as late as can be.
const LATE_CHUNK: f64 = 100.0;
/// Characters from which on a passage is as long as can be.
const LONG_CHARS: f64 = 5000.0;
/// Days after which a passage is half as recent, where nothing else is said.
pub(crate) const HALF_LIFE_DAYS: f64 = 30.0;
/// By how much the sum of two weights may differ from 1.
const WEIGHTS_TOLERANCE: f64 = 0.01;
/// Fields that may be boosted, each of which is read of every candidate.
pub const FIELD_BOOSTS_MAX: usize = 32;
/// Candidates that may be scored anew.
pub const CANDIDATES_MAX: usize = 1000;

/// Gives candidates their scores: the greater, the better. A score that is no finite number puts a
/// candidate behind all that have one.
pub trait Scorer: fmt::Debug + Send + Sync {
    /// The score of one candidate.
    fn score(&self, evidence: &Evidence<'_>) -> f64;

    /// What the score of a candidate is made of, by name: what `explain` shows of those that are
    /// answered. Nothing, unless a scorer says so.
    fn signals(&self, _evidence: &Evidence<'_>) -> Vec<(String, f64)> {
        Vec::new()
    }
}

/// What is known of one candidate.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// What its distance is worth, from 0 to 1: see [`similarity`]. 0 where no vectors are compared.
    pub similarity: f64,
    /// By the library's metric; infinite where no vectors are compared.
    pub distance: f64,
    /// BM25 of its words; 0 if it has none of the query's, or none were searched for.
    pub bm25: f64,
    /// Whole days since it was added; less than 0 for one of the future.
    pub age_days: i64,
    /// The passage itself.
    pub passage: Passage<'a>,
}

impl Evidence<'_> {
    /// 1 for what is new, half as much every `half_life_days`.
    pub fn recency(&self, half_life_days: f64) -> f64 {
        recency(self.age_days, half_life_days)
    }

    /// Where it stands in its document, from 0 (the first chunk) to 1 (the hundredth).
    pub fn lateness(&self) -> f64 {
        (f64::from(self.passage.index) / LATE_CHUNK).min(1.0)
    }

    /// Characters of its text.
    pub fn chars(&self) -> usize {
        self.passage.chunk.text.chars().count()
    }

    /// How long it is, from 0 to 1 (5,000 characters).
    pub fn length(&self) -> f64 {
        (self.chars() as f64 / LONG_CHARS).min(1.0)
    }
}

/// What a distance is worth, from 0 to 1: `1 - distance / 2` of a cosine or a dot product, `1 / (1 +
/// distance)` of a Euclidean distance, which has no end.
pub fn similarity(distance: f64, metric: Metric) -> f64 {
    match metric {
        Metric::Cosine | Metric::Dot => (1.0 - distance / 2.0).clamp(0.0, 1.0),
        Metric::L2 => 1.0 / (1.0 + distance.max(0.0)),
    }
}

/// `2^(-age / half life)`, at most 1.
fn recency(age_days: i64, half_life_days: f64) -> f64 {
    (-(age_days as f64) / half_life_days).exp2().min(1.0)
}

/// Whole days from one moment to another.
pub(crate) fn age_days(created_at: Timestamp, now: Timestamp) -> i64 {
    now.micros().saturating_sub(created_at.micros()).div_euclid(DAY_MICROS)
}

/// How candidates are scored anew.
#[derive(Debug, Clone)]
pub struct Rescoring {
    /// By what.
    pub by: Scoring,
    /// How many of those that were found, from k to [`CANDIDATES_MAX`]; as many as the way of scoring
    /// usually takes when absent.
    pub candidates: Option<usize>,
}

/// What candidates are scored by.
#[derive(Debug, Clone)]
pub enum Scoring {
    /// Vectors and metadata.
    Hybrid(Box<HybridScoring>),
    /// A scorer of each candidate for itself.
    Each(Arc<dyn Scorer>),
    /// Maximal marginal relevance: near to the query and far from those that come before. (Carbonell
    /// and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing
    /// summaries", 1998.)
    Diverse {
        /// How much being near to the query weighs, from 0 to 1; being unlike the others weighs the
        /// rest.
        lambda: f64,
    },
    /// A model that reads the query's words and every passage: the one that the engine was opened
    /// with.
    Model,
}

impl Rescoring {
    /// How many candidates are found for `k` hits.
    pub fn pool(&self, k: usize) -> usize {
        let usual = match self.by {
            Scoring::Hybrid(_) => k.saturating_mul(5).min(500),
            Scoring::Each(_) | Scoring::Diverse { .. } | Scoring::Model => {
                k.saturating_mul(3).min(300)
            }
        };
        self.candidates.unwrap_or(usual).max(k)
    }

    /// Refuses what has no meaning.
    pub(crate) fn check(&self, k: usize) -> Result<(), EngineError> {
        let most = CANDIDATES_MAX.max(k);
        let wrong = self.candidates.filter(|candidates| !(k..=most).contains(candidates));
        if let Some(candidates) = wrong {
            let detail = format!("there are {candidates} candidates; let it be k, {k}, to {most}");
            return invalid("/candidates", detail);
        }
        match &self.by {
            Scoring::Hybrid(scoring) => scoring.check(),
            Scoring::Each(_) | Scoring::Model => Ok(()),
            Scoring::Diverse { lambda } if (0.0..=1.0).contains(lambda) => Ok(()),
            Scoring::Diverse { lambda } => {
                invalid("/rerank_params/lambda", format!("lambda is {lambda}; it has to be 0 to 1"))
            }
        }
    }
}

fn invalid(field: &str, detail: String) -> Result<(), EngineError> {
    Err(EngineError::Invalid { field: field.into(), detail })
}

/// Vectors and metadata, weighed.
#[derive(Debug, Clone, PartialEq)]
pub struct HybridScoring {
    /// How much vectors weigh, from 0 to 1.
    pub vector_weight: f64,
    /// How much metadata weighs; with the other 1, within 0.01.
    pub metadata_weight: f64,
    /// Days after which a passage is half as recent, at least 1, where that counts.
    pub half_life_days: Option<f64>,
    /// How much each field counts among them, from 0.
    pub field_boosts: BTreeMap<String, f64>,
    /// The values that fields shall have, where their words are not compared with the query's.
    pub wanted_values: BTreeMap<String, FieldValues>,
    /// The query's words.
    pub words: QueryWords,
    /// Whether a fused score by ranks, which is 0.03 at best, is stretched to at most 1.
    pub normalize: bool,
}

impl Default for HybridScoring {
    fn default() -> Self {
        Self {
            vector_weight: 0.7,
            metadata_weight: 0.3,
            half_life_days: None,
            field_boosts: BTreeMap::new(),
            wanted_values: BTreeMap::new(),
            words: QueryWords::default(),
            normalize: true,
        }
    }
}

/// How a hybrid score came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Breakdown {
    /// What the distance is worth.
    pub vector_score: f64,
    /// The distance by the library's metric.
    pub vector_distance: f64,
    /// The mean of what is enabled of recency and fields; 0 where nothing is.
    pub metadata_score: f64,
    /// Both, weighed: what passages are ranked by.
    pub hybrid_score: f64,
    /// Recency, where it counts.
    pub recency: Option<f64>,
    /// Of each boosted field its boost times how well it matches, where there are any.
    pub fields: Option<BTreeMap<String, f64>>,
    /// What takes the place of `vector_score`, where vectors and keywords are fused.
    pub fused_score: Option<f64>,
    /// BM25, where keywords were searched for.
    pub keyword_score: Option<f64>,
}

impl HybridScoring {
    fn check(&self) -> Result<(), EngineError> {
        let weights =
            [("/vector_weight", self.vector_weight), ("/metadata_weight", self.metadata_weight)];
        for (field, weight) in weights {
            if !(0.0..=1.0).contains(&weight) {
                return invalid(field, format!("the weight is {weight}; it has to be 0 to 1"));
            }
        }
        weights_sum(self.vector_weight, self.metadata_weight)
            .or_else(|detail| invalid("/metadata_weight", detail))?;
        if let Some(days) = self.half_life_days.filter(|days| !(days.is_finite() && *days >= 1.0)) {
            let detail = format!("the half life is {days} days; it has to be at least 1");
            return invalid("/recency_half_life_days", detail);
        }
        if self.field_boosts.len() > FIELD_BOOSTS_MAX {
            let detail = format!(
                "boosts {} fields; the limit is {FIELD_BOOSTS_MAX}",
                self.field_boosts.len()
            );
            return invalid("/field_boosts", detail);
        }
        let bad = |boost: &f64| !(boost.is_finite() && *boost >= 0.0);
        match self.field_boosts.iter().find(|(_field, boost)| bad(boost)) {
            None => Ok(()),
            Some((field, boost)) => {
                let detail = format!("the boost of {field} is {boost}; it has to be at least 0");
                invalid("/field_boosts", detail)
            }
        }
    }

    /// How well a field matches, from 0 to 1.
    fn matches(&self, field: &str, passage: &Passage<'_>) -> f64 {
        match self.wanted_values.get(field) {
            Some(values) => f64::from(u8::from(passage.has(field, values))),
            None => passage.share_of_words(field, &self.words),
        }
    }

    /// The score of a candidate; `fused` is what takes the place of its similarity.
    pub fn breakdown(&self, evidence: &Evidence<'_>, fused: Option<f64>) -> Breakdown {
        let recency = self.half_life_days.map(|days| evidence.recency(days));
        let fields: BTreeMap<String, f64> = self
            .field_boosts
            .iter()
            .map(|(field, boost)| (field.clone(), boost * self.matches(field, &evidence.passage)))
            .collect();
        let boosts: f64 = self.field_boosts.values().sum();
        let matched: f64 = fields.values().sum();
        let field = if boosts > 0.0 { (matched / boosts).min(1.0) } else { 0.0 };
        let fields = (!fields.is_empty()).then_some(fields);
        let enabled = u8::from(recency.is_some()) + u8::from(fields.is_some());
        let metadata_score = match enabled {
            0 => 0.0,
            signals => ((field + recency.unwrap_or(0.0)) / f64::from(signals)).min(1.0),
        };
        let vectors = fused.unwrap_or(evidence.similarity);
        Breakdown {
            vector_score: evidence.similarity,
            vector_distance: evidence.distance,
            metadata_score,
            hybrid_score: self.vector_weight * vectors + self.metadata_weight * metadata_score,
            recency,
            fields,
            fused_score: fused,
            keyword_score: fused.map(|_score| evidence.bm25),
        }
    }
}

/// What is wrong with two weights whose sum is not 1.
pub fn weights_sum(vectors: f64, metadata: f64) -> Result<(), String> {
    let sum = vectors + metadata;
    // A sum that is meant to be at the border may come out a little beyond.
    if (sum - 1.0).abs() <= WEIGHTS_TOLERANCE + 1e-9 {
        return Ok(());
    }
    Err(format!(
        "vector_weight {vectors} and metadata_weight {metadata} come to {sum}; they have to come to 1: give \
         one of them, and the other is the rest"
    ))
}

#[cfg(test)]
mod tests;
