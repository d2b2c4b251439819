//! What reranking searches ask for: the body as it is described, and how its parameters are read.

use std::sync::Arc;

use arrwdb_engine::{Expression, Preferences, Scoring, WeightedSum};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::groups::GroupByName;
use super::hybrid_requests::HALF_LIFE_DAYS_MAX;
use super::keyword_requests::{FusionName, HighlightShape, ModeName, OperatorName};
use super::rescored::{beneath, plain};
use super::search_requests::FilterShape;
use crate::json::Reader;

/// Where the parameters are in the body.
const PARAMS: &str = "/rerank_params";
/// Fields whose numbers may be weighed.
const WEIGHTS_MAX: usize = 32;
/// Greatest weight, and greatest number that stands for a missing one.
const WEIGHT_MAX: f64 = 1e9;
/// Before the name of a field among weights.
const FIELD: &str = "field:";
const LAMBDA: f64 = 0.5;

pub(super) const FUNCTIONS: [(&str, Function); 7] = [
    ("recency", Function::Recency),
    ("position", Function::Position),
    ("length", Function::Length),
    ("custom", Function::Custom),
    ("mmr", Function::Mmr),
    ("model", Function::Model),
    ("cohere", Function::Cohere),
];

/// What passages are ranked by anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Function {
    #[default]
    Recency,
    Position,
    Length,
    Custom,
    Mmr,
    Model,
    Cohere,
}

impl Function {
    pub(super) fn name(self) -> &'static str {
        let found = FUNCTIONS.iter().find(|(_name, function)| *function == self);
        found.map_or("recency", |(name, _function)| *name)
    }

    /// Its parameters.
    fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Recency => &["half_life_days"],
            Self::Position => &["prefer_early"],
            Self::Length => &["prefer_longer"],
            Self::Custom => &[
                "weights",
                "expression",
                "half_life_days",
                "prefer_early",
                "prefer_longer",
                "default",
            ],
            Self::Mmr => &["lambda"],
            Self::Model | Self::Cohere => &[],
        }
    }

    /// Whether it needs the distances of vectors.
    pub(super) fn is_of_vectors(self) -> bool {
        match self {
            Self::Recency | Self::Position | Self::Length | Self::Mmr => true,
            Self::Custom | Self::Model | Self::Cohere => false,
        }
    }

    /// Whether a model ranks, which reads the query's words.
    pub(super) fn is_of_words(self) -> bool {
        matches!(self, Self::Model | Self::Cohere)
    }
}

/// What passages are ranked by anew.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "describes a value; it is read by name")]
pub(super) enum RerankFunctionName {
    /// `0.7 * similarity + 0.3 * recency`.
    Recency,
    /// `0.8 * similarity + 0.2 * position`.
    Position,
    /// `0.85 * similarity + 0.15 * length`.
    Length,
    /// A weighted sum, or an expression.
    Custom,
    /// Maximal marginal relevance: near to the query, and unlike what comes before.
    Mmr,
    /// The score of a model that reads the query and the passage: the one of `RERANK_PROVIDER`.
    Model,
    /// The same, where that is Cohere's or speaks its call.
    Cohere,
}

/// What to find, and what the passages found are ranked by anew.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"query": "how do models learn?", "k": 5, "rerank_function": "custom", "rerank_params": {"expression": "0.8 * similarity + 0.2 * recency", "half_life_days": 90}}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
pub(super) struct RerankSearchBody {
    /// 1 to `MAX_QUERY_LENGTH` characters. May be left out where an `embedding` is given.
    #[schema(min_length = 1, max_length = 1000)]
    query: Option<String>,
    /// The query as a vector of the library's dimension, in place of the one that would be made of
    /// `query`.
    embedding: Option<Vec<f32>>,
    /// How many passages.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 100, default = 10)]
    k: Option<usize>,
    /// How many of the passages found are ranked anew, at least k; three times k, 300 at most, when
    /// absent.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    candidates: Option<usize>,
    /// What they are ranked by.
    #[schema(value_type = Option<RerankFunctionName>, default = "recency")]
    rerank_function: Option<String>,
    /// Of `recency`: `half_life_days` (30). Of `position`: `prefer_early` (true). Of `length`:
    /// `prefer_longer` (true). Of `mmr`: `lambda` [0.5], 0 to 1, how much being near weighs. Of `custom`:
    /// `weights`, an object of `similarity`, `bm25`, `recency`, `position`, `length` and `field` (an
    /// object of numeric metadata and their weights), or `expression`, arithmetic over `similarity`,
    /// `distance`, `bm25`, `recency`, `position`, `length`, `age_days`, `chunk_index`, `chars` and numeric
    /// metadata; and `half_life_days`, `prefer_early`, `prefer_longer` and `default` (0), what stands for
    /// a number that a passage does not have. `model` and `cohere` have none.
    #[schema(value_type = Option<Object>, example = json!({"half_life_days": 90}))]
    rerank_params: Option<Value>,
    /// Only passages with `distance <= distance_threshold`: 0 to 2 for cosine, any number for a dot
    /// product, not negative for L2.
    distance_threshold: Option<f32>,
    /// What passages are found by before they are ranked anew. `keyword` is for `custom`, `model` and
    /// `cohere`.
    #[schema(value_type = Option<ModeName>, default = "vector")]
    mode: Option<String>,
    /// Of keywords: whether one of the words is enough, or all have to be there.
    #[schema(value_type = Option<OperatorName>, default = "or")]
    operator: Option<String>,
    /// Of mode `hybrid`: how its two rankings become one.
    #[schema(value_type = Option<FusionName>, default = "relative_score")]
    fusion: Option<String>,
    /// Of mode `hybrid`: how much vectors weigh; keywords weigh the rest. 0.6 for `relative_score`, 0.5 for
    /// the others.
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

/// Parameters of a function as they are read: faults are noted, and what was used is kept.
struct Params<'a, 'b, 'c> {
    r: &'a mut Reader<'b>,
    given: &'c Map<String, Value>,
    used: Map<String, Value>,
}

/// What a function scores by, and its parameters, those that were not given too.
pub(super) fn read_scoring(
    r: &mut Reader<'_>,
    function: Function,
    given: &Map<String, Value>,
) -> (Scoring, Map<String, Value>) {
    let known = function.parameters();
    for name in given.keys().filter(|name| !known.contains(&name.as_str())) {
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let detail = format!("is no parameter of {}; it takes {known}", function.name());
        r.fault_beneath(&beneath(PARAMS, name), detail);
    }
    let mut params = Params { r, given, used: Map::new() };
    let scoring = match function {
        Function::Recency => each(WeightedSum::by_recency(Preferences {
            half_life_days: params.half_life_days(),
            ..Preferences::default()
        })),
        Function::Position => each(WeightedSum::by_position(Preferences {
            prefer_early: params.switch("prefer_early"),
            ..Preferences::default()
        })),
        Function::Length => each(WeightedSum::by_length(Preferences {
            prefer_longer: params.switch("prefer_longer"),
            ..Preferences::default()
        })),
        Function::Mmr => {
            let lambda = params.number("lambda", LAMBDA, 0.0..=1.0);
            Scoring::Diverse { lambda }
        }
        Function::Custom => params.custom(),
        Function::Model | Function::Cohere => Scoring::Model,
    };
    (scoring, params.used)
}

fn each(sum: WeightedSum) -> Scoring {
    Scoring::Each(Arc::new(sum))
}

impl Params<'_, '_, '_> {
    /// A parameter that is given; null is not.
    fn get(&self, name: &str) -> Option<Value> {
        self.given.get(name).filter(|value| !value.is_null()).cloned()
    }

    fn fault(&mut self, name: &str, detail: impl Into<String>) {
        self.r.fault_beneath(&beneath(PARAMS, name), detail);
    }

    fn number(&mut self, name: &str, usual: f64, range: std::ops::RangeInclusive<f64>) -> f64 {
        let number = self.get(name).map_or(Some(usual), |value| value.as_f64());
        let within = number.filter(|number| range.contains(number));
        if within.is_none() {
            self.fault(name, format!("must be a number from {} to {}", range.start(), range.end()));
        }
        let number = within.unwrap_or(usual);
        self.used.insert(name.to_owned(), plain(number));
        number
    }

    fn half_life_days(&mut self) -> f64 {
        let usual = Preferences::default().half_life_days;
        self.number("half_life_days", usual, 1e-6..=HALF_LIFE_DAYS_MAX)
    }

    /// A switch that is on where nothing else is said.
    fn switch(&mut self, name: &str) -> bool {
        let switch = self.get(name).map_or(Some(true), |value| value.as_bool());
        if switch.is_none() {
            self.fault(name, "must be true or false");
        }
        let switch = switch.unwrap_or(true);
        self.used.insert(name.to_owned(), switch.into());
        switch
    }

    fn custom(&mut self) -> Scoring {
        let preferences = Preferences {
            half_life_days: self.half_life_days(),
            prefer_early: self.switch("prefer_early"),
            prefer_longer: self.switch("prefer_longer"),
            default: self.number("default", 0.0, -WEIGHT_MAX..=WEIGHT_MAX),
        };
        match (self.get("weights"), self.get("expression")) {
            (Some(_), Some(_)) => {
                self.fault("expression", "is given together with weights; one of them is enough");
            }
            (None, None) => {
                let detail = "is required, or weights: custom needs one of them";
                self.fault("expression", detail);
            }
            (Some(weights), None) => return each(self.weights(weights, preferences)),
            (None, Some(Value::String(text))) => match Expression::read(&text, preferences) {
                Ok(expression) => {
                    self.used.insert("expression".into(), text.into());
                    return Scoring::Each(Arc::new(expression));
                }
                Err(detail) => self.fault("expression", detail),
            },
            (None, Some(_)) => self.fault("expression", "must be a text"),
        }
        // A fault is noted: nothing will be searched.
        each(WeightedSum::default())
    }

    fn weights(&mut self, weights: Value, preferences: Preferences) -> WeightedSum {
        let mut sum = WeightedSum { preferences, ..WeightedSum::default() };
        let Value::Object(given) = &weights else {
            self.fault("weights", "must be an object of signals and their weights");
            return sum;
        };
        let parent = beneath(PARAMS, "weights");
        let number = |value: &Value| value.as_f64().filter(|it| it.abs() <= WEIGHT_MAX);
        let mut faults = Vec::new();
        let bad = format!("must be a number from -{WEIGHT_MAX} to {WEIGHT_MAX}");
        for (name, value) in given.iter().filter(|(_name, value)| !value.is_null()) {
            let pointer = beneath(&parent, name);
            if let Some(fields) = value.as_object().filter(|_fields| name == "field") {
                for (field, value) in fields {
                    match number(value) {
                        Some(weight) => sum.fields.push((field.clone(), weight)),
                        None => faults.push((beneath(&pointer, field), bad.clone())),
                    }
                }
                continue;
            }
            let place = match (name.as_str(), name.strip_prefix(FIELD)) {
                ("similarity", _) => &mut sum.similarity,
                ("bm25", _) => &mut sum.bm25,
                ("recency", _) => &mut sum.recency,
                ("position", _) => &mut sum.position,
                ("length", _) => &mut sum.length,
                (_, Some(field)) if !field.is_empty() => {
                    sum.fields.push((field.to_owned(), 0.0));
                    let Some((_field, weight)) = sum.fields.last_mut() else { continue };
                    weight
                }
                _other => {
                    let known = "similarity, bm25, recency, position, length, and field, an object of \
                                 fields and their weights";
                    faults.push((pointer, format!("is no signal; there are {known}")));
                    continue;
                }
            };
            match number(value) {
                Some(weight) => *place = weight,
                None => faults.push((pointer, bad.clone())),
            }
        }
        if sum.fields.len() > WEIGHTS_MAX {
            faults.push((parent, format!("must have at most {WEIGHTS_MAX} fields")));
        }
        for (pointer, detail) in faults {
            self.r.fault_beneath(&pointer, detail);
        }
        self.used.insert("weights".into(), weights);
        sum
    }
}
