//! Searching several vector fields at once: documents by what they have in each of them.
//!
//! Late fusion finds the documents of which the sum of weighted similarities is greatest. Every field
//! gives its nearest vectors, what a document is in the other fields is looked up, and this goes on
//! deeper until no document that was not seen can be better: the threshold algorithm of Fagin, Lotem
//! and Naor ("Optimal aggregation algorithms for middleware", 2003). So the answer is exact where the
//! fields' searches are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrwdb_embed::{InputType, Picture};
use arrwdb_state::limits::{K_MAX, K_STREAM_MAX, LATE_QUERY_ROWS_MAX};
use arrwdb_state::{
    ChunkId, Custom, Damage, DocumentId, DocumentMetadata, Effort, Executor, FieldQuery, FieldSpec,
    Filter, Found, IndexSpec, LibraryId, LibrarySpec, Metric, ModelName, NearestInField, RowPlace,
    Selection, Seq, SparseQuery, TEXT_FIELD, TenantId, Tuning, VectorKind, VectorValue, View,
    check_norm, normalized,
};

use crate::engine::{Engine, Inner};
use crate::error::EngineError;
use crate::fields::{WELL_KNOWN_FIELDS, value_key};
use crate::moment::Moment;
use crate::snapshot::Snapshot;

/// Queries of one search: each is a search of its own.
pub const FIELD_QUERIES_MAX: usize = 16;
/// Vectors that each field gives at first, at least.
const DEPTH_MIN: usize = 64;
/// How much deeper each round goes.
const DEEPER: usize = 4;
/// The largest weight of a query.
const WEIGHT_MAX: f64 = 1e6;

/// A search of several vector fields.
#[derive(Debug, Clone)]
pub struct MultiVectorRequest {
    /// What to find in which field, 1 to [`FIELD_QUERIES_MAX`].
    pub queries: Vec<FieldWanted>,
    /// How many documents, 1 to [`K_MAX`].
    pub k: usize,
    /// How the queries become one ranking.
    pub fusion: FieldFusion,
    /// Only documents, or vectors, that pass: fields of the document, and custom metadata of each vector.
    pub filter: Filter,
    /// Only vectors with `distance <= this`.
    pub distance_threshold: Option<f32>,
    /// How hard to try, where not as the fields say.
    pub tuning: Tuning,
}

/// What to find in a field.
#[derive(Debug, Clone)]
pub struct FieldWanted {
    /// Which field; [`TEXT_FIELD`] is the library's own vectors.
    pub field: String,
    /// What.
    pub value: FieldValue,
    /// How much it counts, from 0 to 1,000,000.
    pub weight: f64,
    /// What it is to the caller, a JSON Pointer: `/queries/0`.
    pub pointer: String,
}

/// What to find.
#[derive(Debug, Clone)]
pub enum FieldValue {
    /// A text, embedded with the field's model.
    Text(String),
    /// A picture, embedded with the field's model.
    Picture(Picture),
    /// A vector of the field's kind.
    Vector(VectorValue),
}

/// How several queries become one ranking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FieldFusion {
    /// The sum over the fields of `weight * (1 - distance)`.
    #[default]
    Late,
    /// One search for the weighted mean of the queries, which have one dimension; what counts of a
    /// document is its nearest vector in any of the fields.
    Early,
}

/// The documents found, best first; of equal ones the one that came first.
#[derive(Debug, Clone)]
pub struct MultiVectorAnswer {
    /// At most k documents.
    pub hits: Vec<DocumentHit>,
    /// The state they are true at.
    pub seq: Seq,
    /// How they were found.
    pub plan: MultiVectorPlan,
}

/// One document found.
#[derive(Debug, Clone)]
pub struct DocumentHit {
    /// Its id.
    pub document_id: DocumentId,
    /// What belongs to it as a whole.
    pub metadata: DocumentMetadata,
    /// Its vectors that count, in the order of the queries (of early fusion, of the fields).
    pub matched: Vec<MatchedVector>,
    /// What it is ranked by.
    pub score: f64,
    /// What each field adds to that, by its name.
    pub breakdown: BTreeMap<String, f64>,
}

/// A vector that counts.
#[derive(Debug, Clone)]
pub struct MatchedVector {
    /// Its id; that of a passage, of [`TEXT_FIELD`].
    pub id: ChunkId,
    /// The field.
    pub field: String,
    /// Its distance to the query.
    pub distance: f32,
    /// `weight * (1 - distance)`.
    pub weighted_score: f64,
    /// What it was made from, where that is known.
    pub text: String,
    /// Custom metadata of it.
    pub custom: Custom,
}

/// How documents were found.
#[derive(Debug, Clone, Default)]
pub struct MultiVectorPlan {
    /// What each query took, in their order.
    pub fields: Vec<FieldPlan>,
    /// How often the fields were searched, deeper each time.
    pub rounds: u32,
    /// Documents that were scored.
    pub documents: u64,
    /// Whether it is certain that no document that was not scored is better, as far as the fields'
    /// searches are exact.
    pub complete: bool,
    /// How long turning texts into vectors took; zero for vectors.
    pub embedding: Duration,
    /// How long finding the documents took.
    pub finding: Duration,
}

/// What a query of a field took.
#[derive(Debug, Clone, Default)]
pub struct FieldPlan {
    /// The field.
    pub field: String,
    /// Vectors that it has.
    pub vectors: u64,
    /// Vectors that pass the filter, where there is one.
    pub filtered: Option<u64>,
    /// How many of the nearest were looked at.
    pub depth: usize,
    /// What that took, all rounds together.
    pub effort: Effort,
}

impl Engine {
    /// The documents that are nearest in several vector fields together.
    ///
    /// # Errors
    /// As [`Engine::search`]; [`EngineError::VectorField`] where a query is not of its field's kind.
    pub async fn search_fields(
        &self,
        tenant: TenantId,
        library: LibraryId,
        request: MultiVectorRequest,
        at: impl Into<Moment>,
    ) -> Result<MultiVectorAnswer, EngineError> {
        self.0.search_fields((tenant, library), request, at.into()).await
    }
}

/// A field as it is searched.
#[derive(Debug, Clone)]
struct Place {
    kind: VectorKind,
    dimension: u32,
    metric: Metric,
    /// What embeds texts for it.
    model: Option<ModelName>,
}

/// A query as numbers.
#[derive(Debug, Clone)]
struct Asked {
    field: String,
    weight: f64,
    metric: Metric,
    numbers: Numbers,
}

/// What is searched for, checked.
#[derive(Debug, Clone)]
enum Numbers {
    Dense(Vec<f32>),
    /// Unit vectors, row-major.
    Late(Vec<f32>),
    Sparse(SparseQuery),
}

impl Asked {
    fn of(place: &Place, value: VectorValue, wanted: &FieldWanted) -> Result<Self, EngineError> {
        let numbers = numbers(place, value, wanted)?;
        let (field, weight, metric) = (wanted.field.clone(), wanted.weight, place.metric);
        Ok(Asked { field, weight, metric, numbers })
    }

    fn query(&self) -> FieldQuery<'_> {
        match &self.numbers {
            Numbers::Dense(vector) => FieldQuery::Dense(vector),
            Numbers::Late(rows) => FieldQuery::Late(rows),
            Numbers::Sparse(sparse) => FieldQuery::Sparse(sparse),
        }
    }
}

impl Inner {
    async fn search_fields(
        self: &Arc<Self>,
        (tenant, library): (TenantId, LibraryId),
        request: MultiVectorRequest,
        at: Moment,
    ) -> Result<MultiVectorAnswer, EngineError> {
        check(&request)?;
        let started = Instant::now();
        let mut snapshot = self.snapshot(tenant, library, at).await?;
        let (asked, embedding) = loop {
            let asked = self.asked(&snapshot, &request).await?;
            let embedding = started.elapsed();
            // Loaded again, so that it is as fresh as can be; where another model took over
            // meanwhile, the queries are of that model.
            let now = self.snapshot(tenant, library, at).await?;
            let same = (&now.spec.model, now.spec.dimension)
                == (&snapshot.spec.model, snapshot.spec.dimension);
            snapshot = now;
            if same {
                break (asked, embedding);
            }
        };
        let permit = self.search_permit()?;
        let Snapshot { spec, view, seq, .. } = snapshot;
        let derived = view.derived_bytes();
        let searched = view.clone();
        let search = move |executor: &dyn Executor| {
            let _permit = permit;
            let asked = if request.fusion == FieldFusion::Early { mean(&asked)? } else { asked };
            find(&searched, (&spec, &request, &asked), executor)
        };
        let (hits, plan) = self.pool.read(search).await??;
        self.weigh_again((tenant, library), &view, derived).await?;
        Ok(MultiVectorAnswer { hits, seq, plan: MultiVectorPlan { embedding, ..plan } })
    }

    /// The queries as numbers of their fields; each text is embedded once for each model.
    async fn asked(
        self: &Arc<Self>,
        snapshot: &Snapshot,
        request: &MultiVectorRequest,
    ) -> Result<Vec<Asked>, EngineError> {
        let mut embedded: BTreeMap<(String, String, u32, Input<'_>), Vec<f32>> = BTreeMap::new();
        let mut asked = Vec::with_capacity(request.queries.len());
        for wanted in &request.queries {
            let Some(place) = place_of(&snapshot.spec, &snapshot.view, wanted)? else { continue };
            let input = match &wanted.value {
                FieldValue::Vector(value) => {
                    asked.push(Asked::of(&place, value.clone(), wanted)?);
                    continue;
                }
                FieldValue::Text(text) => Input::Text(text),
                FieldValue::Picture(picture) => Input::Picture(picture),
            };
            let model = place.model.clone().ok_or_else(|| no_model(wanted))?;
            let key = (model.provider, model.model, place.dimension, input);
            let vector = match embedded.get(&key) {
                Some(vector) => vector.clone(),
                None => self.embedded_for(&snapshot.spec, &place, (wanted, input)).await?,
            };
            embedded.insert(key, vector.clone());
            asked.push(Asked::of(&place, VectorValue::Dense(vector), wanted)?);
        }
        Ok(asked)
    }

    async fn embedded_for(
        self: &Arc<Self>,
        library: &LibrarySpec,
        place: &Place,
        (wanted, input): (&FieldWanted, Input<'_>),
    ) -> Result<Vec<f32>, EngineError> {
        let model = place.model.clone().unwrap_or_else(|| library.model.clone());
        let library = LibrarySpec { model, dimension: place.dimension, ..library.clone() };
        let text = match input {
            Input::Picture(picture) => {
                return self.embedded_picture(&library, picture, &wanted.pointer).await;
            }
            Input::Text(text) => text,
        };
        let field = format!("{}/query", wanted.pointer);
        let (chars, max) = (text.chars().count(), self.config.query_chars_max);
        if chars > max {
            let detail = format!("the query has {chars} characters; the limit is {max}");
            return Err(EngineError::Invalid { field, detail });
        }
        if text.trim().is_empty() {
            return Err(EngineError::Blank { field, detail: "the query is blank".into() });
        }
        self.embed_texts(&library, &field, (InputType::Query, vec![text.to_owned()])).await
    }
}

/// What the vector of a query is made of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Input<'a> {
    Text(&'a str),
    Picture(&'a Picture),
}

fn check(request: &MultiVectorRequest) -> Result<(), EngineError> {
    let invalid = |field: String, detail: String| Err(EngineError::Invalid { field, detail });
    let count = request.queries.len();
    if !(1..=FIELD_QUERIES_MAX).contains(&count) {
        let detail = format!("a search has 1 to {FIELD_QUERIES_MAX} queries, not {count}");
        return invalid("/queries".into(), detail);
    }
    if !(1..=K_MAX).contains(&request.k) {
        return invalid("/k".into(), format!("k has to be 1 to {K_MAX}"));
    }
    for FieldWanted { weight, pointer, .. } in &request.queries {
        if !(0.0..=WEIGHT_MAX).contains(weight) {
            let detail = format!("a weight is a number from 0 to {WEIGHT_MAX}");
            return invalid(format!("{pointer}/weight"), detail);
        }
    }
    if request.queries.iter().all(|query| query.weight == 0.0) {
        return invalid("/queries".into(), "one of the weights has to be above 0".into());
    }
    Ok(())
}

/// The field of a query; `None` if no document has a vector of this well-known type yet.
fn place_of(
    library: &LibrarySpec,
    view: &View,
    wanted: &FieldWanted,
) -> Result<Option<Place>, EngineError> {
    let name = &*wanted.field;
    if name == TEXT_FIELD {
        let LibrarySpec { dimension, metric, .. } = *library;
        let model = Some(library.model.clone());
        return Ok(Some(Place { kind: VectorKind::Dense, dimension, metric, model }));
    }
    if let Some(field) = view.fields().get(name) {
        let FieldSpec { kind, dimension, metric, ref model, .. } = **field.spec();
        return Ok(Some(Place { kind, dimension, metric, model: model.clone() }));
    }
    if WELL_KNOWN_FIELDS.contains(&name) {
        return Ok(None);
    }
    let fields: Vec<&str> = view.fields().keys().map(|name| &**name).collect();
    let detail =
        format!("the library has no vector field `{name}`; it has text, {}", fields.join(", "));
    Err(EngineError::VectorField { field: name.to_owned(), detail })
}

fn no_model(wanted: &FieldWanted) -> EngineError {
    let (field, pointer) = (&wanted.field, &wanted.pointer);
    EngineError::Vector {
        field: format!("{pointer}/embedding"),
        detail: format!(
            "the vector field `{field}` has no embedding model: give the vector itself as `embedding`"
        ),
    }
}

/// A query as its field's searches have it, which are unit vectors for cosine.
fn numbers(
    place: &Place,
    value: VectorValue,
    wanted: &FieldWanted,
) -> Result<Numbers, EngineError> {
    let key = value_key(&value);
    let refused = |detail: String| EngineError::Vector {
        field: format!("{}/{key}", wanted.pointer),
        detail: format!("Query embedding invalid: {detail}"),
    };
    if value.kind() != place.kind {
        let (field, has, got) = (&wanted.field, place.kind, value.kind());
        let detail = format!("the vector field `{field}` holds {has} vectors, and this is {got}");
        return Err(EngineError::VectorField { field: field.clone(), detail });
    }
    let dimension = place.dimension as usize;
    let unit = |vector: &[f32]| match normalized(vector) {
        Ok((unit, _norm)) => Ok(unit),
        Err(error) => Err(refused(error.to_string())),
    };
    let of_size = |vector: &[f32]| {
        let got = vector.len();
        let mismatch = format!("Vector dimension mismatch: expected {dimension}, got {got}");
        if got == dimension { Ok(()) } else { Err(refused(mismatch)) }
    };
    match value {
        VectorValue::Dense(vector) => {
            of_size(&vector)?;
            check_norm(place.metric, &vector).map_err(|error| refused(error.to_string()))?;
            let unit = unit(&vector)?;
            Ok(Numbers::Dense(if place.metric == Metric::Cosine { unit } else { vector }))
        }
        VectorValue::Late(rows) => {
            if !(1..=LATE_QUERY_ROWS_MAX).contains(&rows.len()) {
                let most = LATE_QUERY_ROWS_MAX;
                return Err(refused(format!("1 to {most} vectors, not {}", rows.len())));
            }
            let mut units = Vec::with_capacity(rows.len());
            for row in &rows {
                of_size(row)?;
                units.extend(unit(row)?);
            }
            Ok(Numbers::Late(units))
        }
        VectorValue::Sparse(sparse) => {
            let query = sparse.query().map_err(|fault| refused(fault.to_string()))?;
            Ok(Numbers::Sparse(query))
        }
    }
}

/// Early fusion: the weighted mean of the queries, in each of their fields.
fn mean(asked: &[Asked]) -> Result<Vec<Asked>, EngineError> {
    let refused = |detail: &str| EngineError::Invalid {
        field: "/fusion".into(),
        detail: format!("early fusion is of vectors of one dimension: {detail}"),
    };
    // What does not count has no part in the mean, and its field is not searched.
    let asked: Vec<&Asked> = asked.iter().filter(|asked| asked.weight > 0.0).collect();
    let mut sum: Vec<f64> = Vec::new();
    for Asked { numbers, weight, field, .. } in &asked {
        let Numbers::Dense(vector) = numbers else {
            return Err(refused(&format!("`{field}` holds others")));
        };
        if sum.is_empty() {
            sum.resize(vector.len(), 0.0);
        }
        if sum.len() != vector.len() {
            return Err(refused(&format!("`{field}` has {}, others {}", vector.len(), sum.len())));
        }
        for (sum, number) in sum.iter_mut().zip(vector) {
            *sum += weight * f64::from(*number);
        }
    }
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let weights: f64 = asked.iter().map(|asked| asked.weight).sum();
    #[expect(clippy::cast_possible_truncation, reason = "vectors are searched as f32")]
    let vector: Vec<f32> = sum.iter().map(|sum| (sum / weights) as f32).collect();
    let fields: BTreeMap<&str, Metric> =
        asked.iter().map(|asked| (&*asked.field, asked.metric)).collect();
    let of_field = |(field, metric): (&str, Metric)| {
        let numbers = match metric {
            // The directions of the queries may cancel out, or nearly so.
            Metric::Cosine => normalized(&vector).map_err(|error| refused(&error.to_string()))?.0,
            Metric::L2 | Metric::Dot => {
                check_norm(metric, &vector).map_err(|error| refused(&error.to_string()))?;
                vector.clone()
            }
        };
        let (field, numbers) = (field.to_owned(), Numbers::Dense(numbers));
        Ok(Asked { field, weight: 1.0, metric, numbers })
    };
    fields.into_iter().map(of_field).collect()
}

/// The most that a document can score that was found in none of the fields of which there is more, whose
/// last ones scored this. It is in at least one of them, and what it lacks in the others counts nothing.
fn most(lasts: &[f64], fusion: FieldFusion) -> Option<f64> {
    let best = lasts.iter().copied().reduce(f64::max)?;
    Some(match fusion {
        FieldFusion::Late if best > 0.0 => lasts.iter().map(|last| last.max(0.0)).sum(),
        FieldFusion::Late | FieldFusion::Early => best,
    })
}

/// A query in its part of the view.
struct Source<'a> {
    asked: &'a Asked,
    part: &'a View,
    metric: Metric,
    index: IndexSpec,
    among: Option<Selection>,
    /// Where the field has no index, what one scan found: going deeper costs nothing more.
    scanned: Option<Vec<Found>>,
    /// Whether the documents of all its vectors that can be found are scored.
    exhausted: bool,
}

/// What a document has that counts: for each source its nearest vector.
type Nearest = Vec<Option<(f32, RowPlace)>>;

/// A search in progress.
struct Search<'a> {
    sources: Vec<Source<'a>>,
    fusion: FieldFusion,
    threshold: Option<f32>,
    tuning: Tuning,
    scored: BTreeMap<DocumentId, (f64, Nearest)>,
}

fn find(
    view: &View,
    (library, request, asked): (&LibrarySpec, &MultiVectorRequest, &[Asked]),
    executor: &dyn Executor,
) -> Result<(Vec<DocumentHit>, MultiVectorPlan), EngineError> {
    let started = Instant::now();
    let mut sources = Vec::with_capacity(asked.len());
    for asked in asked {
        let field = view.fields().get(&asked.field);
        let (part, metric, index) = match field {
            Some(field) => (&**field.view(), field.spec().metric, field.spec().index),
            None => (view, library.metric, library.index),
        };
        let selects = (!request.filter.is_empty()).then(|| part.select(&request.filter, executor));
        let among = selects.transpose()?;
        let (scanned, exhausted) = (None, false);
        sources.push(Source { asked, part, metric, index, among, scanned, exhausted });
    }
    let mut search = Search {
        sources,
        fusion: request.fusion,
        threshold: request.distance_threshold,
        tuning: request.tuning,
        scored: BTreeMap::new(),
    };
    let mut plan = search.plan();
    let mut depth = DEPTH_MIN.max(request.k.saturating_mul(DEEPER));
    let best = loop {
        plan.rounds += 1;
        let unseen = search.go_to(depth, &mut plan, executor)?;
        let best = search.best(view, request.k)?;
        let worst = best.get(request.k - 1).map_or(f64::NEG_INFINITY, |(score, _id)| *score);
        plan.complete = unseen.is_none_or(|most| worst >= most);
        if plan.complete || depth >= K_STREAM_MAX {
            break best;
        }
        depth = depth.saturating_mul(DEEPER).min(K_STREAM_MAX);
    };
    plan.documents = search.scored.len() as u64;
    let hits = best.into_iter().map(|(score, id)| search.hit(view, score, id));
    let hits = hits.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    plan.finding = started.elapsed();
    Ok((hits, plan))
}

impl Search<'_> {
    fn plan(&self) -> MultiVectorPlan {
        let fields = self.sources.iter().map(|source| FieldPlan {
            field: source.asked.field.clone(),
            vectors: source.part.chunks(),
            filtered: source.among.as_ref().map(Selection::rows),
            ..FieldPlan::default()
        });
        MultiVectorPlan { fields: fields.collect(), ..MultiVectorPlan::default() }
    }

    /// Scores the documents of the nearest vectors of each field; the most that a document can score
    /// that is not among them, `None` if there is none.
    fn go_to(
        &mut self,
        depth: usize,
        plan: &mut MultiVectorPlan,
        executor: &dyn Executor,
    ) -> Result<Option<f64>, Damage> {
        let mut found_in = BTreeSet::new();
        let mut lasts = Vec::new();
        let asked = (self.tuning, self.threshold);
        for (source, plan) in self.sources.iter_mut().zip(&mut plan.fields) {
            if source.exhausted {
                continue;
            }
            let found = source.nearest_vectors(depth, asked, &mut plan.effort, executor)?;
            plan.depth = found.len();
            source.exhausted = found.len() < depth;
            if let Some(last) = found.last().filter(|_last| found.len() >= depth) {
                lasts.push(source.score(last.distance));
            }
            for found in found {
                found_in.insert(source.part.document_of(found.place)?);
            }
        }
        for id in found_in {
            if executor.stopped() {
                break;
            }
            if !self.scored.contains_key(&id) {
                let scored = self.score(id)?;
                self.scored.insert(id, scored);
            }
        }
        Ok(most(&lasts, self.fusion))
    }

    /// What a document scores by its nearest vector in each field.
    fn score(&self, id: DocumentId) -> Result<(f64, Nearest), Damage> {
        let nearest = self.sources.iter().map(|source| source.nearest(id, self.threshold));
        let nearest: Nearest = nearest.collect::<Result<_, _>>()?;
        let scores = self.sources.iter().zip(&nearest);
        let scores = scores.filter_map(|(source, near)| Some(source.score(near.as_ref()?.0)));
        let score = match self.fusion {
            FieldFusion::Late => scores.sum(),
            FieldFusion::Early => scores.fold(f64::NEG_INFINITY, f64::max),
        };
        Ok((score, nearest))
    }

    /// The best documents seen so far.
    fn best(&self, view: &View, k: usize) -> Result<Vec<(f64, DocumentId)>, Damage> {
        let mut ranked: Vec<(f64, DocumentId)> =
            self.scored.iter().map(|(id, (score, _nearest))| (*score, *id)).collect();
        ranked.sort_by(|one, other| other.0.total_cmp(&one.0));
        // Of those that score the same at the end of the list, the first come are in it.
        let last = ranked.get(k.saturating_sub(1)).map_or(f64::NEG_INFINITY, |(score, _id)| *score);
        ranked.retain(|(score, _id)| *score >= last);
        let mut places = Vec::with_capacity(ranked.len());
        for (score, id) in ranked {
            places.push((score, view.rows_of(id)?.first().copied(), id));
        }
        places.sort_by(|one, other| other.0.total_cmp(&one.0).then_with(|| one.1.cmp(&other.1)));
        places.truncate(k);
        Ok(places.into_iter().map(|(score, _place, id)| (score, id)).collect())
    }

    /// A document as it is answered; `None` if it is not there, which no view has.
    fn hit(
        &self,
        view: &View,
        score: f64,
        id: DocumentId,
    ) -> Result<Option<DocumentHit>, EngineError> {
        let Some(metadata) = view.metadata_of(id)? else { return Ok(None) };
        let (mut matched, mut breakdown) = (Vec::new(), BTreeMap::new());
        let nearest = self.scored.get(&id).map(|(_score, nearest)| nearest);
        for (source, near) in self.sources.iter().zip(nearest.into_iter().flatten()) {
            let Some((distance, place)) = *near else { continue };
            let chunk = source.part.passage_of(place, false)?.chunk;
            let (field, weighted_score) = (source.asked.field.clone(), source.score(distance));
            *breakdown.entry(field.clone()).or_insert(0.0) += weighted_score;
            matched.push(MatchedVector {
                id: chunk.id,
                field,
                distance,
                weighted_score,
                text: chunk.text,
                custom: chunk.custom,
            });
        }
        Ok(Some(DocumentHit { document_id: id, metadata, matched, score, breakdown }))
    }
}

impl Source<'_> {
    /// The nearest vectors of the field, `depth` of them, fewer if there are no more.
    fn nearest_vectors(
        &mut self,
        depth: usize,
        (tuning, threshold): (Tuning, Option<f32>),
        effort: &mut Effort,
        executor: &dyn Executor,
    ) -> Result<Vec<Found>, Damage> {
        let late = matches!(self.asked.numbers, Numbers::Late(_));
        let scans = late && (self.index.is_plain() || tuning.exact);
        if let Some(scanned) = &self.scanned {
            return Ok(scanned.iter().take(depth).copied().collect());
        }
        let wanted = NearestInField {
            query: self.asked.query(),
            metric: self.metric,
            index: self.index,
            tuning,
            k: if scans { K_STREAM_MAX } else { depth },
            threshold,
            among: self.among.as_ref(),
        };
        let (found, spent) = self.part.nearest_in_field(wanted, executor)?;
        effort.add(spent);
        if !scans {
            return Ok(found);
        }
        let nearest = found.iter().take(depth).copied().collect();
        self.scanned = Some(found);
        Ok(nearest)
    }

    fn score(&self, distance: f32) -> f64 {
        self.asked.weight * (1.0 - f64::from(distance))
    }

    /// A document's vector that is nearest, of those that may be found.
    fn nearest(
        &self,
        id: DocumentId,
        threshold: Option<f32>,
    ) -> Result<Option<(f32, RowPlace)>, Damage> {
        let mut nearest: Option<(f32, RowPlace)> = None;
        for place in self.part.rows_of(id)? {
            if self.among.as_ref().is_some_and(|among| !among.contains(place)) {
                continue;
            }
            let distance = self.part.distance_in_field(place, self.asked.query(), self.metric)?;
            let Some(distance) = distance.filter(|it| threshold.is_none_or(|most| *it <= most))
            else {
                continue;
            };
            if nearest.is_none_or(|(least, _place)| distance < least) {
                nearest = Some((distance, place));
            }
        }
        Ok(nearest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_found_scores_at_most_what_the_last_ones_allow() {
        // Each a document's scores in the fields, where it has any, none above the last ones'.
        let lasts = [0.5, -0.25, -2.0];
        let scores = [lasts.map(Some), [Some(0.5), None, None], [None, Some(-0.25), Some(-3.0)]];
        for (fusion, wanted) in [(FieldFusion::Late, 0.5), (FieldFusion::Early, 0.5)] {
            assert_eq!(most(&lasts, fusion), Some(wanted));
            for scores in &scores {
                let own = scores.iter().flatten().copied();
                let score = match fusion {
                    FieldFusion::Late => own.sum(),
                    FieldFusion::Early => own.fold(f64::NEG_INFINITY, f64::max),
                };
                assert!(score <= wanted, "{scores:?}");
            }
        }
        assert_eq!(most(&[0.5, 0.25], FieldFusion::Late), Some(0.75));
        // It is in one of them at least: what it lacks does not lift it to zero.
        assert_eq!(most(&[-3.0, -1.0], FieldFusion::Late), Some(-1.0));
        assert_eq!(most(&[], FieldFusion::Late), None);
    }
}
