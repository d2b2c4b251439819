//! Signals of a candidate, weighed and added up: what recency, position and length rank by.

use crate::scoring::{Evidence, HALF_LIFE_DAYS, Scorer};

/// How signals are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preferences {
    /// Days after which a passage is half as recent: more than 0.
    pub half_life_days: f64,
    /// Whether the beginning of a document is better than its end.
    pub prefer_early: bool,
    /// Whether long passages are better than short ones.
    pub prefer_longer: bool,
    /// What stands for a number that a passage does not have.
    pub default: f64,
}

impl Default for Preferences {
    fn default() -> Self {
        Self {
            half_life_days: HALF_LIFE_DAYS,
            prefer_early: true,
            prefer_longer: true,
            default: 0.0,
        }
    }
}

impl Preferences {
    pub(crate) fn recency(&self, evidence: &Evidence<'_>) -> f64 {
        evidence.recency(self.half_life_days)
    }

    pub(crate) fn position(&self, evidence: &Evidence<'_>) -> f64 {
        let late = evidence.lateness();
        if self.prefer_early { 1.0 - late } else { late }
    }

    pub(crate) fn length(&self, evidence: &Evidence<'_>) -> f64 {
        let long = evidence.length();
        if self.prefer_longer { long } else { 1.0 - long }
    }

    pub(crate) fn number(&self, field: &str, evidence: &Evidence<'_>) -> f64 {
        evidence.passage.number(field).unwrap_or(self.default)
    }
}

/// A weighted sum of signals. Each but BM25 and numbers of metadata is from 0 to 1.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WeightedSum {
    /// The weight of what the distance is worth.
    pub similarity: f64,
    /// Of BM25.
    pub bm25: f64,
    /// Of how new the passage is.
    pub recency: f64,
    /// Of where it stands in its document.
    pub position: f64,
    /// Of how long it is.
    pub length: f64,
    /// Of numbers in its metadata, by field.
    pub fields: Vec<(String, f64)>,
    /// How these are made.
    pub preferences: Preferences,
}

impl WeightedSum {
    /// Near, and new.
    pub fn by_recency(preferences: Preferences) -> Self {
        Self { similarity: 0.7, recency: 0.3, preferences, ..Self::default() }
    }

    /// Near, and at the beginning (or the end) of its document.
    pub fn by_position(preferences: Preferences) -> Self {
        Self { similarity: 0.8, position: 0.2, preferences, ..Self::default() }
    }

    /// Near, and long (or short).
    pub fn by_length(preferences: Preferences) -> Self {
        Self { similarity: 0.85, length: 0.15, preferences, ..Self::default() }
    }
}

impl WeightedSum {
    /// Gives each signal that weighs something, with its weight. Others are not asked for: lengths and
    /// fields take reading.
    fn each(&self, evidence: &Evidence<'_>, mut each: impl FnMut(&str, f64, f64)) {
        let preferences = &self.preferences;
        let signals: [(&str, f64, &dyn Fn() -> f64); 5] = [
            ("similarity", self.similarity, &|| evidence.similarity),
            ("bm25", self.bm25, &|| evidence.bm25),
            ("recency", self.recency, &|| preferences.recency(evidence)),
            ("position", self.position, &|| preferences.position(evidence)),
            ("length", self.length, &|| preferences.length(evidence)),
        ];
        for (name, weight, signal) in signals {
            if weight.abs() > 0.0 {
                each(name, weight, signal());
            }
        }
        for (field, weight) in &self.fields {
            if weight.abs() > 0.0 {
                each(field, *weight, preferences.number(field, evidence));
            }
        }
    }
}

impl Scorer for WeightedSum {
    fn score(&self, evidence: &Evidence<'_>) -> f64 {
        let mut sum = 0.0;
        self.each(evidence, |_name, weight, signal| sum += weight * signal);
        sum
    }

    fn signals(&self, evidence: &Evidence<'_>) -> Vec<(String, f64)> {
        let mut signals = Vec::new();
        self.each(evidence, |name, _weight, signal| signals.push((name.to_owned(), signal)));
        signals
    }
}
