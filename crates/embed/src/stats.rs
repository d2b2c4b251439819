//! What embedding cost: counts per model, kept for metrics and for the bill.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::models::ModelSpec;

/// Models that are counted apart; further ones share one line. Names come from callers.
const MODELS_MAX: usize = 256;

/// What one model did since the embedder was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelStats {
    /// Calls to the provider, retries included.
    pub calls: u64,
    /// Texts embedded by the provider; texts found in the cache are not among them.
    pub texts: u64,
    /// Tokens the provider counted, or the estimate where it does not say.
    pub tokens: u64,
    /// Calls that failed, whether or not they were tried again.
    pub failures: u64,
    /// Calls that were tried again.
    pub retries: u64,
    /// Time spent in calls, summed over concurrent ones.
    pub time: Duration,
    /// Texts whose vector was found in the cache.
    pub cache_hits: u64,
    /// Texts whose vector was not.
    pub cache_misses: u64,
}

/// What an embedder did since it was opened, and what it holds now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmbedStats {
    /// Per model, ordered by provider, name and dimension. `None` collects what is beyond the
    /// number of models that are counted apart.
    pub models: Vec<(Option<ModelSpec>, ModelStats)>,
    /// Bytes of vectors kept in memory.
    pub cache_memory_bytes: u64,
    /// Bytes of the cache's files.
    pub cache_disk_bytes: u64,
    /// Texts admitted and not answered yet, over all providers.
    pub queue_texts: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    models: Mutex<BTreeMap<Option<ModelSpec>, ModelStats>>,
}

impl Counters {
    /// Changes the counts of `model`.
    pub(crate) fn count(&self, model: &ModelSpec, change: impl FnOnce(&mut ModelStats)) {
        let mut models = self.models.lock();
        let full = models.len() >= MODELS_MAX;
        // The lookup by reference comes first: cloning a name for every call would be waste.
        if let Some(stats) = models
            .iter_mut()
            .find_map(|(key, stats)| (key.as_ref() == Some(model)).then_some(stats))
        {
            change(stats);
            return;
        }
        let key = if full { None } else { Some(model.clone()) };
        change(models.entry(key).or_default());
    }

    /// All counts, ordered.
    pub(crate) fn snapshot(&self) -> Vec<(Option<ModelSpec>, ModelStats)> {
        self.models.lock().iter().map(|(key, stats)| (key.clone(), stats.clone())).collect()
    }
}
