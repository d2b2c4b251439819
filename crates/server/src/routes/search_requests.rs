//! What searches ask for: the bodies as they are described, and how they are read.

use std::borrow::Cow;

use arrwdb_engine::state::{Facet, Filter, Tuning, limits};
use arrwdb_engine::{Fusion, Highlight, Mode, Moment, Operator, Query, SearchRequest};
use serde_json::{Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

use super::facets::{FacetShape, read_facets};
use super::groups::{GroupByName, GroupWishes};
use super::keyword_requests::{
    FUSIONS, FusionName, HighlightShape, MODES, ModeName, OPERATORS, OperatorName, read_alpha,
    read_highlight, read_name,
};
use super::requests::text_within;
use crate::extract::{QueryPairs, query_fault, read_json};
use crate::json::{Read, Reader};
use crate::limits::{EF_SEARCH_MAX, K_DEFAULT, NPROBE_MAX};
use crate::moment::read_moment;
use crate::problem::Problem;

/// What to find, in words.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"query": "how do models learn?", "k": 5, "distance_threshold": 0.8}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
pub(super) struct SearchBody {
    /// 1 to `MAX_QUERY_LENGTH` characters.
    #[schema(min_length = 1, max_length = 1000)]
    query: String,
    /// How many passages.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 100, default = 10)]
    k: Option<usize>,
    /// Only passages with `distance <= distance_threshold`: 0 to 2 for cosine, any number for a dot
    /// product, not negative for L2.
    distance_threshold: Option<f32>,
    /// Only passages that pass, such as `{"year": {"$gte": 1998}, "tags": "a"}`; see `docs/filters.md`.
    #[schema(value_type = Option<FilterShape>)]
    filter: Option<Value>,
    /// Fields whose values are counted over everything that passes the filter, whatever is found.
    #[schema(value_type = Option<Vec<FacetShape>>, min_items = 1, max_items = 20)]
    facets: Option<Vec<Value>>,
    /// Pages of `k`, as of one state of the library: `*` for the first page, then each time the
    /// `next_cursor` of the page before, with everything else the same. At most 10,000 passages in all,
    /// 1,000 of a hybrid search. See `docs/paging.md`.
    cursor: Option<String>,
    /// Whether the answer says how many passages match.
    #[schema(default = false)]
    count: Option<bool>,
    /// What passages are found by: their vectors, the words of the query (BM25 over titles and texts),
    /// or both.
    #[schema(value_type = Option<ModeName>, default = "vector")]
    mode: Option<String>,
    /// Of keywords: whether one of the words is enough, or all have to be there.
    #[schema(value_type = Option<OperatorName>, default = "or")]
    operator: Option<String>,
    /// Of a hybrid search: how its two rankings become one.
    #[schema(value_type = Option<FusionName>, default = "relative_score")]
    fusion: Option<String>,
    /// Of a hybrid search: how much vectors weigh; keywords weigh the rest. 0.6 for `relative_score`, 0.5
    /// for the others.
    #[schema(minimum = 0.0, maximum = 1.0)]
    alpha: Option<f64>,
    /// Of keywords: whether hits show parts of their texts with the words that were found, or how.
    #[schema(value_type = Option<HighlightShape>)]
    highlight: Option<Value>,
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
    /// How many of the nearest rows a walk through a graph keeps, at least k: more find more and
    /// take longer. In place of the library's; of no effect where there is no graph.
    #[schema(minimum = 1, maximum = 10_000)]
    ef_search: Option<u32>,
    /// How many of the nearest inverted lists are searched. In place of the library's; of no effect
    /// where there are no lists.
    #[schema(minimum = 1, maximum = 65_536)]
    nprobe: Option<u32>,
    /// The part of the nearest passages that shall be found, such as 0.95: the effort is chosen by
    /// what searches of the library were measured to find; 1 scores every row, and above about 0.99
    /// that is what is done in practice, because no sample of queries makes so much certain. Not
    /// together with `ef_search`, `nprobe` or `exact`.
    #[schema(exclusive_minimum = 0.0, maximum = 1.0)]
    recall: Option<f64>,
    /// Whether every row is scored, whatever the library is searched by.
    #[schema(default = false)]
    exact: Option<bool>,
    /// Whether the answer says how it was found.
    #[schema(default = false)]
    explain: Option<bool>,
    /// Searches what was there after the write that answered this `X-Arrwdb-Seq`, as far back as
    /// history is kept. A number that is still to come is waited for.
    as_of: Option<u64>,
    /// Waits, for a bounded time, until this write is seen: the `X-Arrwdb-Seq` of its answer. As in the
    /// query string.
    min_seq: Option<u64>,
}

/// What to find, in words; every field may be in the query string instead.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"query": "how do models learn?", "k": 1000}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
pub(super) struct StreamSearchBody {
    /// 1 to `MAX_QUERY_LENGTH` characters.
    #[schema(min_length = 1, max_length = 1000)]
    query: Option<String>,
    /// How many passages.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 10_000, default = 10)]
    k: Option<usize>,
    /// Only passages with `distance <= distance_threshold`: 0 to 2 for cosine, any number for a dot
    /// product, not negative for L2.
    distance_threshold: Option<f32>,
    /// Only passages that pass, such as `{"year": {"$gte": 1998}, "tags": "a"}`; see `docs/filters.md`.
    #[schema(value_type = Option<FilterShape>)]
    filter: Option<Value>,
    /// What passages are found by: their vectors, the words of the query (BM25 over titles and texts),
    /// or both.
    #[schema(value_type = Option<ModeName>, default = "vector")]
    mode: Option<String>,
    /// Of keywords: whether one of the words is enough, or all have to be there.
    #[schema(value_type = Option<OperatorName>, default = "or")]
    operator: Option<String>,
    /// Of a hybrid search: how its two rankings become one.
    #[schema(value_type = Option<FusionName>, default = "relative_score")]
    fusion: Option<String>,
    /// Of a hybrid search: how much vectors weigh; keywords weigh the rest. 0.6 for `relative_score`, 0.5
    /// for the others.
    #[schema(minimum = 0.0, maximum = 1.0)]
    alpha: Option<f64>,
    /// Of keywords: whether hits show parts of their texts with the words that were found, or how.
    #[schema(value_type = Option<HighlightShape>)]
    highlight: Option<Value>,
    /// Whether hits carry their vectors; the query parameter of this name wins.
    #[schema(default = false)]
    include_embeddings: Option<bool>,
    /// How many of the nearest rows a walk through a graph keeps, at least k: more find more and
    /// take longer. In place of the library's; of no effect where there is no graph.
    #[schema(minimum = 1, maximum = 10_000)]
    ef_search: Option<u32>,
    /// How many of the nearest inverted lists are searched. In place of the library's; of no effect
    /// where there are no lists.
    #[schema(minimum = 1, maximum = 65_536)]
    nprobe: Option<u32>,
    /// The part of the nearest passages that shall be found, such as 0.95: the effort is chosen by
    /// what searches of the library were measured to find; 1 scores every row, and above about 0.99
    /// that is what is done in practice, because no sample of queries makes so much certain. Not
    /// together with `ef_search`, `nprobe` or `exact`.
    #[schema(exclusive_minimum = 0.0, maximum = 1.0)]
    recall: Option<f64>,
    /// Whether every row is scored, whatever the library is searched by.
    #[schema(default = false)]
    exact: Option<bool>,
    /// Whether the answer says how it was found.
    #[schema(default = false)]
    explain: Option<bool>,
    /// Searches what was there after the write that answered this `X-Arrwdb-Seq`, as far back as
    /// history is kept. A number that is still to come is waited for.
    as_of: Option<u64>,
    /// Waits, for a bounded time, until this write is seen: the `X-Arrwdb-Seq` of its answer. As in the
    /// query string.
    min_seq: Option<u64>,
}

/// What to find, as a vector.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"embedding": [0.12, -0.05, 0.33], "k": 5}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
pub(super) struct EmbeddingSearchBody {
    /// As many numbers as the library has dimensions.
    #[schema(min_items = 1, max_items = 4096)]
    embedding: Vec<f32>,
    /// The words of a hybrid search: 1 to `MAX_QUERY_LENGTH` characters.
    #[schema(min_length = 1, max_length = 1000)]
    query: Option<String>,
    /// How many passages.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 100, default = 10)]
    k: Option<usize>,
    /// Only passages with `distance <= distance_threshold`: 0 to 2 for cosine, any number for a dot
    /// product, not negative for L2.
    distance_threshold: Option<f32>,
    /// Only passages that pass, such as `{"year": {"$gte": 1998}, "tags": "a"}`; see `docs/filters.md`.
    #[schema(value_type = Option<FilterShape>)]
    filter: Option<Value>,
    /// Fields whose values are counted over everything that passes the filter, whatever is found.
    #[schema(value_type = Option<Vec<FacetShape>>, min_items = 1, max_items = 20)]
    facets: Option<Vec<Value>>,
    /// Pages of `k`, as of one state of the library: `*` for the first page, then each time the
    /// `next_cursor` of the page before, with everything else the same. At most 10,000 passages in all,
    /// 1,000 of a hybrid search. See `docs/paging.md`.
    cursor: Option<String>,
    /// Whether the answer says how many passages match.
    #[schema(default = false)]
    count: Option<bool>,
    /// What passages are found by: their vectors, the words of the query (BM25 over titles and texts),
    /// or both.
    #[schema(value_type = Option<ModeName>, default = "vector")]
    mode: Option<String>,
    /// Of keywords: whether one of the words is enough, or all have to be there.
    #[schema(value_type = Option<OperatorName>, default = "or")]
    operator: Option<String>,
    /// Of a hybrid search: how its two rankings become one.
    #[schema(value_type = Option<FusionName>, default = "relative_score")]
    fusion: Option<String>,
    /// Of a hybrid search: how much vectors weigh; keywords weigh the rest. 0.6 for `relative_score`, 0.5
    /// for the others.
    #[schema(minimum = 0.0, maximum = 1.0)]
    alpha: Option<f64>,
    /// Of keywords: whether hits show parts of their texts with the words that were found, or how.
    #[schema(value_type = Option<HighlightShape>)]
    highlight: Option<Value>,
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
    /// How many of the nearest rows a walk through a graph keeps, at least k: more find more and
    /// take longer. In place of the library's; of no effect where there is no graph.
    #[schema(minimum = 1, maximum = 10_000)]
    ef_search: Option<u32>,
    /// How many of the nearest inverted lists are searched. In place of the library's; of no effect
    /// where there are no lists.
    #[schema(minimum = 1, maximum = 65_536)]
    nprobe: Option<u32>,
    /// The part of the nearest passages that shall be found, such as 0.95: the effort is chosen by
    /// what searches of the library were measured to find; 1 scores every row, and above about 0.99
    /// that is what is done in practice, because no sample of queries makes so much certain. Not
    /// together with `ef_search`, `nprobe` or `exact`.
    #[schema(exclusive_minimum = 0.0, maximum = 1.0)]
    recall: Option<f64>,
    /// Whether every row is scored, whatever the library is searched by.
    #[schema(default = false)]
    exact: Option<bool>,
    /// Whether the answer says how it was found.
    #[schema(default = false)]
    explain: Option<bool>,
    /// Searches what was there after the write that answered this `X-Arrwdb-Seq`, as far back as
    /// history is kept. A number that is still to come is waited for.
    as_of: Option<u64>,
    /// Waits, for a bounded time, until this write is seen: the `X-Arrwdb-Seq` of its answer. As in the
    /// query string.
    min_seq: Option<u64>,
}

/// What to find, in words, and among which passages.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"query": "how do models learn?", "metadata_filters": [{"field": "year", "operator": "gte", "value": 1998}, {"field": "tags", "operator": "contains", "value": "ml"}]}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
pub(super) struct FilteredSearchBody {
    /// 1 to `MAX_QUERY_LENGTH` characters.
    #[schema(min_length = 1, max_length = 1000)]
    query: String,
    /// How many passages.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 100, default = 10)]
    k: Option<usize>,
    /// Only passages with `distance <= distance_threshold`: 0 to 2 for cosine, any number for a dot
    /// product, not negative for L2.
    distance_threshold: Option<f32>,
    /// Conditions that all have to hold; none holds of a field that is missing. Or a filter in its
    /// other shape.
    #[schema(value_type = Option<FilterShape>)]
    metadata_filters: Option<Value>,
    /// Fields whose values are counted over everything that passes the filter, whatever is found.
    #[schema(value_type = Option<Vec<FacetShape>>, min_items = 1, max_items = 20)]
    facets: Option<Vec<Value>>,
    /// Pages of `k`, as of one state of the library: `*` for the first page, then each time the
    /// `next_cursor` of the page before, with everything else the same. At most 10,000 passages in all,
    /// 1,000 of a hybrid search. See `docs/paging.md`.
    cursor: Option<String>,
    /// Whether the answer says how many passages match.
    #[schema(default = false)]
    count: Option<bool>,
    /// What passages are found by: their vectors, the words of the query (BM25 over titles and texts),
    /// or both.
    #[schema(value_type = Option<ModeName>, default = "vector")]
    mode: Option<String>,
    /// Of keywords: whether one of the words is enough, or all have to be there.
    #[schema(value_type = Option<OperatorName>, default = "or")]
    operator: Option<String>,
    /// Of a hybrid search: how its two rankings become one.
    #[schema(value_type = Option<FusionName>, default = "relative_score")]
    fusion: Option<String>,
    /// Of a hybrid search: how much vectors weigh; keywords weigh the rest. 0.6 for `relative_score`, 0.5
    /// for the others.
    #[schema(minimum = 0.0, maximum = 1.0)]
    alpha: Option<f64>,
    /// Of keywords: whether hits show parts of their texts with the words that were found, or how.
    #[schema(value_type = Option<HighlightShape>)]
    highlight: Option<Value>,
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
}

/// A filter, as it is described.
#[derive(Debug)]
pub(super) struct FilterShape;

impl PartialSchema for FilterShape {
    fn schema() -> RefOr<Schema> {
        let example = json!({"tags": "storage", "year": {"$gte": 1998, "$lt": 2000}});
        let description = "Only passages that pass: an object of fields and what they have to be \
                           (`$eq $ne $gt $gte $lt $lte $in $nin $exists $contains $not_contains \
                           $prefix $text`, `$and $or $not`), or a list of `{\"field\", \
                           \"operator\", \"value\"}`. See `docs/filters.md`.";
        ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::Object, Type::Array]))
            .description(Some(description))
            .examples([example])
            .into()
    }
}

impl ToSchema for FilterShape {
    fn name() -> Cow<'static, str> {
        "Filter".into()
    }
}

/// What to find, in words that passages have.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"query": "\"vector database\" filter* -graph", "k": 5, "highlight": true}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
pub(super) struct KeywordSearchBody {
    /// 1 to `MAX_QUERY_LENGTH` characters: words that are ranked by, `"a phrase"` that comes
    /// before its words alone, `+words` that have to be there, `-words` that must not, `begin*` for words
    /// that begin so. A sign may stand in front of a phrase.
    #[schema(min_length = 1, max_length = 1000)]
    query: String,
    /// How many passages.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 100, default = 10)]
    k: Option<usize>,
    /// Whether one of the words is enough, or all have to be there.
    #[schema(value_type = Option<OperatorName>, default = "or")]
    operator: Option<String>,
    /// Whether hits show parts of their texts with the words that were found, or how.
    #[schema(value_type = Option<HighlightShape>)]
    highlight: Option<Value>,
    /// Only passages that pass, such as `{"year": {"$gte": 1998}, "tags": "a"}`; see `docs/filters.md`.
    #[schema(value_type = Option<FilterShape>)]
    filter: Option<Value>,
    /// Fields whose values are counted over everything that passes the filter, whatever is found.
    #[schema(value_type = Option<Vec<FacetShape>>, min_items = 1, max_items = 20)]
    facets: Option<Vec<Value>>,
    /// Groups what is found by documents: `k` is then how many documents, each with its best passages
    /// in `groups`.
    #[schema(value_type = Option<GroupByName>)]
    group_by: Option<String>,
    /// How many passages a group has at most.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 10, default = 3)]
    group_size: Option<usize>,
    /// Pages of `k`, as of one state of the library: `*` for the first page, then each time the
    /// `next_cursor` of the page before, with everything else the same. At most 10,000 passages in all,
    /// 1,000 of a hybrid search. See `docs/paging.md`.
    cursor: Option<String>,
    /// Whether the answer says how many passages match.
    #[schema(default = false)]
    count: Option<bool>,
    /// Whether hits carry their vectors; the query parameter of this name wins.
    #[schema(default = false)]
    include_embeddings: Option<bool>,
    /// Whether the answer says how it was found.
    #[schema(default = false)]
    explain: Option<bool>,
    /// Searches what was there after the write that answered this `X-Arrwdb-Seq`, as far back as
    /// history is kept. A number that is still to come is waited for.
    as_of: Option<u64>,
    /// Waits, for a bounded time, until this write is seen: the `X-Arrwdb-Seq` of its answer. As in the
    /// query string.
    min_seq: Option<u64>,
}

/// What every search may ask for besides what to find.
#[derive(Debug, Default, Clone)]
pub(super) struct Wishes {
    mode: Option<Mode>,
    /// The words of a hybrid search by a vector.
    words: Option<String>,
    operator: Option<Operator>,
    fusion: Option<Fusion>,
    alpha: Option<f64>,
    highlight: Option<Highlight>,
    k: Option<usize>,
    distance_threshold: Option<f32>,
    filter: Option<Filter>,
    /// The body's word; the query string's wins.
    include_embeddings: Option<bool>,
    ef_search: Option<u32>,
    nprobe: Option<u32>,
    recall: Option<f64>,
    exact: Option<bool>,
    explain: Option<bool>,
    moment: Moment,
    facets: Option<Vec<Facet>>,
    groups: GroupWishes,
}

impl Wishes {
    /// Reads the value of `key`. What is null leaves what was there.
    pub(super) fn read(&mut self, r: &mut Reader<'_>, key: &str, k_max: usize) -> Read<()> {
        match key {
            "k" => self.k = read_k(r, k_max)?.or(self.k),
            "distance_threshold" => {
                self.distance_threshold = read_threshold(r)?.or(self.distance_threshold);
            }
            key if is_filter(key) => read_filter_once(r, &mut self.filter)?,
            "include_embeddings" => self.include_embeddings = r.switch()?,
            "ef_search" => self.ef_search = read_up_to(r, EF_SEARCH_MAX)?.or(self.ef_search),
            "nprobe" => self.nprobe = read_up_to(r, NPROBE_MAX)?.or(self.nprobe),
            "recall" => self.recall = read_recall(r)?.or(self.recall),
            "exact" => self.exact = r.switch()?.or(self.exact),
            "explain" => self.explain = r.switch()?.or(self.explain),
            key if read_moment(r, key, &mut self.moment)? => {}
            "mode" => self.mode = read_name(r, &MODES)?.or(self.mode),
            "operator" => self.operator = read_name(r, &OPERATORS)?.or(self.operator),
            "fusion" => self.fusion = read_name(r, &FUSIONS)?.or(self.fusion),
            "alpha" => self.alpha = read_alpha(r)?.or(self.alpha),
            "order_by" => {
                r.any()?;
                r.fault(
                    "is for lists (documents, documents/query): what a search finds is in the order \
                     of its scores",
                );
            }
            "facets" => self.facets = read_facets(r)?.or(self.facets.take()),
            "highlight" => self.highlight = read_highlight(r)?.or(self.highlight.take()),
            _other => {
                let _ignored = !self.groups.read(r, key)?;
            }
        }
        Ok(())
    }

    /// Those of a query string.
    pub(super) fn of_query(pairs: &QueryPairs) -> Result<Self, Problem> {
        let whole = |name: &str, max: u64| match pairs.text(name) {
            None => Ok(None),
            Some(_) => pairs.whole(name, 0, 1..=max).map(Some),
        };
        let k = whole("k", limits::K_STREAM_MAX as u64)?;
        let ef_search = whole("ef_search", EF_SEARCH_MAX.into())?;
        let nprobe = whole("nprobe", NPROBE_MAX.into())?;
        let distance_threshold = match pairs.text("distance_threshold") {
            None => None,
            Some(text) => {
                let threshold = text.parse::<f32>().ok().filter(|threshold| threshold.is_finite());
                Some(threshold.ok_or_else(|| query_fault("distance_threshold", NOT_A_NUMBER))?)
            }
        };
        let recall = match pairs.text("recall") {
            None => None,
            Some(text) => {
                let recall = text.parse::<f64>().ok().filter(|recall| is_recall(*recall));
                Some(recall.ok_or_else(|| query_fault("recall", NOT_A_RECALL))?)
            }
        };
        let mode = match pairs.text("mode") {
            None => None,
            Some(text) => {
                let found = MODES.iter().find(|(name, _mode)| *name == text);
                let detail = "must be one of vector, keyword, hybrid";
                Some(found.ok_or_else(|| query_fault("mode", detail))?.1)
            }
        };
        let mut wishes = Self {
            mode,
            k: k.and_then(|k| usize::try_from(k).ok()),
            distance_threshold,
            ef_search: ef_search.and_then(|ef| u32::try_from(ef).ok()),
            nprobe: nprobe.and_then(|lists| u32::try_from(lists).ok()),
            recall,
            exact: pairs.switch("exact")?,
            explain: pairs.switch("explain")?,
            // Which state is read with the query string's other wishes of its kind.
            ..Self::default()
        };
        for (name, value) in pairs.pairs().filter(|(_name, value)| !value.is_empty()) {
            let is_json = is_filter(name) || matches!(name, "alpha" | "highlight");
            if !is_json && !matches!(name, "fusion" | "operator") {
                continue;
            }
            // As in a body, where it has a name and what may be wrong with it is known.
            let value: Value = if is_json {
                let read = serde_json::from_str(value);
                read.map_err(|error| query_fault(name, &format!("is not JSON: {error}")))?
            } else {
                value.into()
            };
            let body = serde_json::json!({ name: value }).to_string();
            read_json(body.as_bytes(), |r| {
                r.object(|r, key| wishes.read(r, key, limits::K_STREAM_MAX))
            })
            .map_err(|problem| problem.renamed(|pointer| Some(format!("/query{pointer}"))))?;
        }
        Ok(wishes)
    }

    /// What passages are found by.
    pub(super) fn mode(&self) -> Mode {
        self.mode.unwrap_or_default()
    }

    /// A search by keywords, which no other mode may be asked of.
    pub(super) fn by_keywords(self) -> Result<Self, Problem> {
        if self.mode.is_some_and(|mode| mode != Mode::Keyword) {
            let detail = "is keyword here: leave it out, or use the route without /keyword";
            return Err(Problem::field("/mode", detail));
        }
        Ok(Self { mode: Some(Mode::Keyword), ..self })
    }

    /// Refuses what has no meaning in the mode that is asked for.
    pub(super) fn check(&self) -> Result<(), Problem> {
        let mode = self.mode();
        let of_words = mode != Mode::Vector;
        let (hybrid, words) = ("hybrid", "keyword or hybrid");
        let given = [
            ("/fusion", self.fusion.is_some(), mode == Mode::Hybrid, hybrid),
            ("/alpha", self.alpha.is_some(), mode == Mode::Hybrid, hybrid),
            ("/operator", self.operator.is_some(), of_words, words),
            ("/highlight", self.highlight.is_some(), of_words, words),
        ];
        match given.into_iter().find(|(_field, given, fits, _modes)| *given && !fits) {
            None => self.groups.check(),
            Some((field, _given, _fits, modes)) => {
                let detail = format!("is for mode {modes}: leave it out, or ask for that mode");
                Err(Problem::field(field, detail))
            }
        }
    }

    /// A search by this, whatever else is wished.
    pub(super) fn in_mode(self, mode: Mode) -> Self {
        Self { mode: Some(mode), ..self }
    }

    /// How vectors and keywords are fused, and how much vectors weigh, where anything of it is wished.
    pub(super) fn fused(&self) -> Option<(Fusion, f64)> {
        let mode = self.mode.unwrap_or_default();
        let fuses = mode == Mode::Hybrid || self.fusion.is_some() || self.alpha.is_some();
        let fusion = self.fusion.unwrap_or_default();
        let alpha = self.alpha.unwrap_or_else(|| fusion.usual_alpha());
        (fuses && mode != Mode::Keyword).then_some((fusion, alpha))
    }

    /// With the words of a hybrid search by a vector.
    pub(super) fn with_words(self, words: Option<String>) -> Self {
        Self { words, ..self }
    }

    /// Fields whose values are counted.
    pub(super) fn facets(&self) -> &[Facet] {
        self.facets.as_deref().unwrap_or_default()
    }

    /// Whether hits show the words that were found.
    pub(super) fn highlights(&self) -> bool {
        self.highlight.is_some()
    }

    /// Whether the answer has to say how it was found.
    pub(super) fn explains(&self) -> bool {
        self.explain.unwrap_or(false)
    }

    /// The state that the body asks for, where it does.
    pub(super) fn moment(&self) -> Moment {
        self.moment
    }

    /// How hits are grouped, where they are.
    pub(super) fn groups(&self) -> GroupWishes {
        self.groups
    }

    /// How many passages.
    pub(super) fn k(&self) -> usize {
        self.k.unwrap_or(K_DEFAULT)
    }

    /// The distance that hits may have, where one is given.
    pub(super) fn distance_threshold(&self) -> Option<f32> {
        self.distance_threshold
    }

    /// Which passages are searched.
    pub(super) fn filter(&self) -> Filter {
        self.filter.clone().unwrap_or_default()
    }

    /// The recall that is wanted, where one is.
    pub(super) fn recall(&self) -> Option<f64> {
        self.recall
    }

    /// A search for `query` as wished; `include_embeddings` is what the query string says.
    pub(super) fn request(&self, query: Query, include_embeddings: Option<bool>) -> SearchRequest {
        let usual = SearchRequest::new(query, self.k());
        SearchRequest {
            distance_threshold: self.distance_threshold,
            filter: self.filter(),
            tuning: Tuning {
                ef_search: self.ef_search,
                nprobe: self.nprobe,
                exact: self.exact.unwrap_or(false),
                ..Tuning::default()
            },
            recall: self.recall,
            include_embeddings: include_embeddings.or(self.include_embeddings).unwrap_or(false),
            mode: self.mode(),
            words: self.words.clone(),
            operator: self.operator.unwrap_or_default(),
            fusion: self.fusion.unwrap_or_default(),
            alpha: self.alpha,
            highlight: self.highlight.clone(),
            grouping: self.groups.grouping(),
            ..usual
        }
    }
}

const NOT_A_NUMBER: &str = "must be a finite number";
const NOT_A_RECALL: &str = "must be a number above 0 and at most 1, such as 0.95";

fn is_recall(recall: f64) -> bool {
    recall > 0.0 && recall <= 1.0
}

fn read_recall(r: &mut Reader<'_>) -> Read<Option<f64>> {
    let Some(recall) = r.number()? else { return Ok(None) };
    if !is_recall(recall) {
        r.fault(NOT_A_RECALL);
        return Ok(None);
    }
    Ok(Some(recall))
}

pub(super) fn read_k(r: &mut Reader<'_>, max: usize) -> Read<Option<usize>> {
    let Some(k) = r.whole()? else { return Ok(None) };
    let k = usize::try_from(k).ok().filter(|k| (1..=max).contains(k));
    if k.is_none() {
        r.fault(format!("must be from 1 to {max}"));
    }
    Ok(k)
}

pub(super) fn read_up_to(r: &mut Reader<'_>, max: u32) -> Read<Option<u32>> {
    let Some(number) = r.whole()? else { return Ok(None) };
    let number = u32::try_from(number).ok().filter(|number| (1..=max).contains(number));
    if number.is_none() {
        r.fault(format!("must be from 1 to {max}"));
    }
    Ok(number)
}

/// Any finite number: which of them a distance can be depends on the library's metric, which the
/// engine checks.
pub(super) fn read_threshold(r: &mut Reader<'_>) -> Read<Option<f32>> {
    let Some(threshold) = r.number()? else { return Ok(None) };
    #[expect(clippy::cast_possible_truncation, reason = "distances are f32, and so is a bound")]
    let threshold = threshold as f32;
    if !threshold.is_finite() {
        r.fault(NOT_A_NUMBER);
        return Ok(None);
    }
    Ok(Some(threshold))
}

/// The text to find, of a query string.
pub(super) fn query_text(pairs: &QueryPairs, chars_max: usize) -> Result<Option<String>, Problem> {
    let query = pairs.text("query").map(str::to_owned);
    if query.as_ref().is_some_and(|query| query.chars().count() > chars_max) {
        return Err(query_fault("query", &format!("must have 1 to {chars_max} characters")));
    }
    Ok(query)
}

/// The text to find, of a body.
pub(super) fn read_query(r: &mut Reader<'_>, chars_max: usize) -> Read<Option<String>> {
    text_within(r, 1, chars_max)
}

/// Whether a member of a body is a filter: it has several names.
pub(super) fn is_filter(key: &str) -> bool {
    matches!(key, "filter" | "metadata_filter" | "metadata_filters")
}

/// Reads a filter under one of its names; null leaves what was there.
pub(super) fn read_filter_once(r: &mut Reader<'_>, filter: &mut Option<Filter>) -> Read<()> {
    let given = read_filter(r)?;
    if given.is_some() && filter.is_some() {
        r.fault("is given together with another filter; one of them is enough");
    }
    *filter = given.or(filter.take());
    Ok(())
}

/// A filter; `None` for null.
fn read_filter(r: &mut Reader<'_>) -> Read<Option<Filter>> {
    let source = r.any()?;
    if source.is_null() {
        return Ok(None);
    }
    Ok(match Filter::read(source) {
        Ok(filter) => Some(filter),
        Err(fault) => {
            r.fault_beneath(&fault.pointer, fault.detail);
            None
        }
    })
}
