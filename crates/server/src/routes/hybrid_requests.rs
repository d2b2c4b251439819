//! What hybrid searches ask for: the body as it is described, and how its scoring is read.

use std::collections::BTreeMap;

use arrwdb_engine::state::{FieldValues, QueryWords};
use arrwdb_engine::{FIELD_BOOSTS_MAX, HybridScoring, weights_sum};
use serde_json::Value;
use utoipa::ToSchema;

use super::groups::GroupByName;
use super::keyword_requests::{FusionName, HighlightShape};
use super::rescored::beneath;
use super::search_requests::FilterShape;
use crate::json::{Read, Reader};

/// Greatest boost of a field.
const BOOST_MAX: f64 = 1e6;
/// Greatest half life in days.
pub(super) const HALF_LIFE_DAYS_MAX: f64 = 1e6;
/// Values that a field may be wanted to have: each is compared with every candidate.
const VALUES_MAX: usize = 256;
/// Half life in days where none is given.
pub(super) const HALF_LIFE_DAYS: f64 = 30.0;

/// What to find, and how vectors and metadata are weighed.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"query": "how do models learn?", "k": 5, "scoring_config": {"vector_weight": 0.6, "metadata_weight": 0.4, "field_boosts": {"title": 2.0, "tags": 1.0}, "recency_boost_enabled": true}}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
pub(super) struct HybridSearchBody {
    /// 1 to `MAX_QUERY_LENGTH` characters. May be left out where an `embedding` is given.
    #[schema(min_length = 1, max_length = 1000)]
    query: Option<String>,
    /// The query as a vector of the library's dimension, in place of the one that would be made of
    /// `query`.
    embedding: Option<Vec<f32>>,
    /// How many passages.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 100, default = 10)]
    k: Option<usize>,
    /// How many of the nearest passages are scored, at least k; five times k, 500 at most, when absent.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    candidates: Option<usize>,
    /// Only passages with `distance <= distance_threshold`: 0 to 2 for cosine, any number for a dot
    /// product, not negative for L2.
    distance_threshold: Option<f32>,
    /// How much vectors weigh. With `metadata_weight` 1, within 0.01; where one of them is given alone,
    /// the other is the rest.
    #[schema(minimum = 0.0, maximum = 1.0, default = 0.7)]
    vector_weight: Option<f64>,
    /// How much metadata weighs.
    #[schema(minimum = 0.0, maximum = 1.0, default = 0.3)]
    metadata_weight: Option<f64>,
    /// Whether new passages score higher.
    #[schema(default = false)]
    recency_boost: Option<bool>,
    /// Days after which a passage is half as recent.
    #[schema(minimum = 1.0, maximum = 1_000_000.0, default = 30.0)]
    recency_half_life_days: Option<f64>,
    /// How much each field counts, at most 32 of them.
    #[schema(value_type = Option<Object>, example = json!({"title": 2.0, "tags": 1.0}))]
    field_boosts: Option<BTreeMap<String, f64>>,
    /// The same in an object of their own, which wins.
    scoring_config: Option<ScoringConfigBody>,
    /// Values that boosted fields shall have, one or a list of each: such a field matches if it has one
    /// of them. The words of every other boosted field are looked for in the query.
    #[schema(value_type = Option<Object>, example = json!({"tags": ["ml", "ai"], "author": "Ada"}))]
    query_metadata: Option<Value>,
    /// Whether keywords take part, and how their ranking and that of the vectors become one: the fused
    /// score then takes the place of `vector_score`.
    #[schema(value_type = Option<FusionName>)]
    fusion: Option<String>,
    /// Of a fusion: how much vectors weigh; keywords weigh the rest. 0.6 for `relative_score`, 0.5 for the
    /// others.
    #[schema(minimum = 0.0, maximum = 1.0)]
    alpha: Option<f64>,
    /// Of keywords: whether hits show parts of their texts with the words that were found, or how.
    #[schema(value_type = Option<HighlightShape>)]
    highlight: Option<Value>,
    /// Only passages that pass, such as `{"year": {"$gte": 1998}, "tags": "a"}`; see `docs/filters.md`.
    #[schema(value_type = Option<FilterShape>)]
    filter: Option<Value>,
    /// Groups what is found by documents: `k` is then how many documents, each with its best passages
    /// in `groups`.
    #[schema(value_type = Option<GroupByName>)]
    group_by: Option<String>,
    /// How many passages a group has at most.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 10, default = 3)]
    group_size: Option<usize>,
    /// Whether hits carry their vectors; the query parameter of this name wins.
    #[schema(default = false)]
    include_embeddings: Option<bool>,
    /// Whether the answer says how it was found.
    #[schema(default = false)]
    explain: Option<bool>,
    /// Searches what was there after the write that answered this `X-Arrwdb-Seq`, as far back as
    /// history is kept. Ages are counted to the present all the same.
    as_of: Option<u64>,
    /// Waits, for a bounded time, until this write is seen: the `X-Arrwdb-Seq` of its answer. As in the
    /// query string.
    min_seq: Option<u64>,
}

/// How vectors and metadata are weighed.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
pub(super) struct ScoringConfigBody {
    /// How much vectors weigh.
    #[schema(minimum = 0.0, maximum = 1.0, default = 0.7)]
    vector_weight: Option<f64>,
    /// How much metadata weighs.
    #[schema(minimum = 0.0, maximum = 1.0, default = 0.3)]
    metadata_weight: Option<f64>,
    /// How much each field counts, at most 32 of them.
    #[schema(value_type = Option<Object>, example = json!({"title": 2.0, "tags": 1.0}))]
    field_boosts: Option<BTreeMap<String, f64>>,
    /// Whether new passages score higher.
    #[schema(default = false)]
    recency_boost_enabled: Option<bool>,
    /// Days after which a passage is half as recent.
    #[schema(minimum = 1.0, maximum = 1_000_000.0, default = 30.0)]
    recency_half_life_days: Option<f64>,
    /// Whether a score fused by ranks, 0.03 at best, is stretched to at most 1.
    #[schema(default = true)]
    normalize_scores: Option<bool>,
}

/// How a body wants scores made: its own fields, or those of its `scoring_config`.
#[derive(Debug, Default)]
struct Config {
    vector_weight: Option<f64>,
    metadata_weight: Option<f64>,
    recency: Option<bool>,
    half_life_days: Option<f64>,
    field_boosts: Option<BTreeMap<String, f64>>,
    normalize: Option<bool>,
}

impl Config {
    /// Reads the value of `key`; false if that is none of these.
    fn read(&mut self, r: &mut Reader<'_>, key: &str) -> Read<bool> {
        match key {
            "vector_weight" => self.vector_weight = number_within(r, 0.0, 1.0)?,
            "metadata_weight" => self.metadata_weight = number_within(r, 0.0, 1.0)?,
            "recency_boost" | "recency_boost_enabled" => {
                self.recency = r.switch()?.or(self.recency);
            }
            "recency_half_life_days" => {
                self.half_life_days = number_within(r, 1.0, HALF_LIFE_DAYS_MAX)?;
            }
            "field_boosts" => self.field_boosts = read_boosts(r)?,
            "normalize_scores" => self.normalize = r.switch()?,
            _other => return Ok(false),
        }
        Ok(true)
    }

    /// Both weights; the usual ones where none is given.
    fn weights(&self) -> Option<(f64, f64)> {
        // One less a decimal fraction is no decimal fraction; 12 digits are.
        let rest = |weight: f64| ((1.0 - weight) * 1e12).round() / 1e12;
        match (self.vector_weight, self.metadata_weight) {
            (None, None) => None,
            (Some(vector), None) => Some((vector, rest(vector))),
            (None, Some(metadata)) => Some((rest(metadata), metadata)),
            (Some(vector), Some(metadata)) => Some((vector, metadata)),
        }
    }
}

/// How a hybrid search's scores are made, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct ScoringWishes {
    flat: Config,
    nested: Config,
    wanted_values: BTreeMap<String, FieldValues>,
}

impl ScoringWishes {
    /// Reads the value of `key`; false if that is none of these.
    pub(super) fn read(&mut self, r: &mut Reader<'_>, key: &str) -> Read<bool> {
        match key {
            "scoring_config" => {
                r.object(|r, key| self.nested.read(r, key).map(|_known| ()))?;
                Ok(true)
            }
            "query_metadata" => {
                r.object(|r, field| {
                    let value = r.any()?;
                    let many = value.as_array().map_or(1, Vec::len);
                    match FieldValues::read(&value) {
                        _some if many > VALUES_MAX => {
                            r.fault(format!(
                                "must have at most {VALUES_MAX} values; it has {many}"
                            ));
                        }
                        Some(values) => drop(self.wanted_values.insert(field.to_owned(), values)),
                        None => r.fault(
                            "must be a text, a number, true, false, null or a list of these",
                        ),
                    }
                    Ok(())
                })?;
                Ok(true)
            }
            key => self.flat.read(r, key),
        }
    }

    /// Notes weights that do not come to 1.
    pub(super) fn check(&self, r: &mut Reader<'_>) {
        let (config, parent) = match self.nested.weights() {
            Some(_) => (&self.nested, "/scoring_config"),
            None => (&self.flat, ""),
        };
        if let Some(Err(detail)) = config.weights().map(|(v, m)| weights_sum(v, m)) {
            r.fault_beneath(&beneath(parent, "metadata_weight"), detail);
        }
    }

    /// How scores are made; `words` are the query's.
    pub(super) fn scoring(self, words: &str) -> HybridScoring {
        let usual = HybridScoring::default();
        let Self { flat, nested, wanted_values } = self;
        let weights = nested.weights().or_else(|| flat.weights());
        let (vector_weight, metadata_weight) =
            weights.unwrap_or((usual.vector_weight, usual.metadata_weight));
        let recency = nested.recency.or(flat.recency).unwrap_or(false);
        let half_life = nested.half_life_days.or(flat.half_life_days).unwrap_or(HALF_LIFE_DAYS);
        HybridScoring {
            vector_weight,
            metadata_weight,
            half_life_days: recency.then_some(half_life),
            field_boosts: nested.field_boosts.or(flat.field_boosts).unwrap_or_default(),
            wanted_values,
            words: QueryWords::of(words),
            normalize: nested.normalize.or(flat.normalize).unwrap_or(usual.normalize),
        }
    }

    /// The half life that is given, whether it counts or not.
    pub(super) fn half_life_days(&self) -> f64 {
        self.nested.half_life_days.or(self.flat.half_life_days).unwrap_or(HALF_LIFE_DAYS)
    }
}

/// A number from one to another.
fn number_within(r: &mut Reader<'_>, from: f64, to: f64) -> Read<Option<f64>> {
    let number = r.number()?;
    let within = number.filter(|number| (from..=to).contains(number));
    if number.is_some() && within.is_none() {
        r.fault(format!("must be from {from} to {to}"));
    }
    Ok(within)
}

fn read_boosts(r: &mut Reader<'_>) -> Read<Option<BTreeMap<String, f64>>> {
    let (mut boosts, mut count) = (BTreeMap::new(), 0);
    let read = r.object(|r, field| {
        count += 1;
        if let Some(boost) = number_within(r, 0.0, BOOST_MAX)? {
            boosts.insert(field.to_owned(), boost);
        }
        Ok(())
    })?;
    if count > FIELD_BOOSTS_MAX {
        r.fault(format!("must have at most {FIELD_BOOSTS_MAX} fields; it has {count}"));
    }
    Ok(read.map(|()| boosts))
}
