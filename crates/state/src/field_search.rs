//! Searching what documents have in a vector field: dense vectors as the library's own, the others by
//! what their values have besides their rows.

use std::sync::{Arc, OnceLock};

use arrwdb_index::sparse::{SparseBuilder, SparseIndex, SparseQuery};
use arrwdb_index::{
    AllRows, Allowed, Effort, Executor, IndexSpec, LateItems, LateQuery, Metric, RowBlock, RowId,
    Similarity, TopK, Tuning, inverse_norm,
};

use crate::body::BodyReader;
use crate::codec::DecodeError;
use crate::document::DocumentMetadata;
use crate::field::{SparseValue, floats_of};
use crate::ids::DocumentId;
use crate::search::{Found, FoundPassage, Nearest, RowPlace};
use crate::segment::{Damage, Segment};
use crate::selection::Selection;
use crate::view::View;

/// Documents of one task: handing work over costs more than looking at fewer.
const TASK_DOCUMENTS: u32 = 256;
/// So many of the nearest means are compared by late interaction for each result, where a field has an
/// index: a mean says little of the vectors that it is of.
const LATE_OVERSAMPLING: usize = 16;
/// At least so many of them.
const LATE_CANDIDATES_MIN: usize = 512;

/// What to find in a field.
#[derive(Debug, Clone, Copy)]
pub enum FieldQuery<'a> {
    /// A vector of the field's dimension; for cosine a unit vector.
    Dense(&'a [f32]),
    /// Unit vectors of the field's dimension, row-major.
    Late(&'a [f32]),
    /// Few of very many dimensions.
    Sparse(&'a SparseQuery),
}

/// What to find in a field, and among what.
#[derive(Debug, Clone, Copy)]
pub struct NearestInField<'a> {
    /// What.
    pub query: FieldQuery<'a>,
    /// How the field's distances are measured.
    pub metric: Metric,
    /// What the field is searched by.
    pub index: IndexSpec,
    /// What this search asks for besides.
    pub tuning: Tuning,
    /// How many of the nearest vectors.
    pub k: usize,
    /// Only those with `distance <= this`.
    pub threshold: Option<f32>,
    /// Only those that a filter selected, in this same part of the view.
    pub among: Option<&'a Selection>,
}

impl View {
    /// The nearest vectors of this part, ascending by (distance, order of arrival). The distance of late
    /// interaction is 1 less the mean over the query's vectors of the greatest cosine similarity to one
    /// of the vector's own; that of sparse vectors 1 less their dot product, and one that shares no
    /// index with the query is not found.
    ///
    /// Exact but for dense vectors that are searched by an index that is not, and for late interaction
    /// in a field that has an index: there the nearest of those whose means are nearest are found.
    /// Without one, O(numbers of all vectors). Makes the inverted index of segments that have none yet.
    pub fn nearest_in_field(
        &self,
        wanted: NearestInField<'_>,
        executor: &dyn Executor,
    ) -> Result<(Vec<Found>, Effort), Damage> {
        let NearestInField { query, metric, index, tuning, k, threshold, among } = wanted;
        match query {
            FieldQuery::Dense(query) => self
                .nearest(Nearest { query, metric, index, tuning, k, threshold, among }, executor),
            FieldQuery::Late(rows) if !index.is_plain() && !tuning.exact => {
                let query = mean_of(rows, self.dimension as usize);
                let k = LATE_CANDIDATES_MIN.max(k.saturating_mul(LATE_OVERSAMPLING));
                let threshold = None;
                let nearest = Nearest { query: &query, metric, index, tuning, k, threshold, among };
                let (candidates, effort) = self.nearest(nearest, executor)?;
                let places: Vec<_> = candidates.iter().map(|found| found.place).collect();
                Ok((self.nearest_of(&places, wanted)?, effort))
            }
            FieldQuery::Late(_) => self.scan_values(wanted, executor),
            FieldQuery::Sparse(query) => self.nearest_sparse(query, wanted, executor),
        }
    }

    /// The distance of a vector of this part, as [`View::nearest_in_field`] gives it; none of a sparse
    /// one that shares no index with the query.
    pub fn distance_in_field(
        &self,
        place: RowPlace,
        query: FieldQuery<'_>,
        metric: Metric,
    ) -> Result<Option<f32>, Damage> {
        if let FieldQuery::Dense(query) = query {
            return self.distance(place, query, metric).map(Some);
        }
        let segment = &*self.segments[place.segment as usize].segment;
        let (ordinal, head) = segment.at_row(place.row)?;
        let value = BodyReader::new(segment.body(ordinal)?)
            .and_then(|body| body.value((place.row - head.first_row) as usize))
            .and_then(|value| self.compare(query, value));
        value.map_err(|error| segment.undecodable(&error))
    }

    /// Where the vectors, or passages, of a live document of this part are.
    pub fn rows_of(&self, id: DocumentId) -> Result<Vec<RowPlace>, Damage> {
        let Some(place) = self.locate(id)? else { return Ok(Vec::new()) };
        let segment = u32::try_from(place.segment).unwrap_or(u32::MAX);
        Ok(place.head.row_range().map(|row| RowPlace { segment, row }).collect())
    }

    /// The document of a row that a search of this same part found. O(log documents).
    pub fn document_of(&self, found: RowPlace) -> Result<DocumentId, Damage> {
        let segment = &self.segments[found.segment as usize].segment;
        Ok(segment.at_row(found.row)?.1.id)
    }

    /// What belongs to a live document as a whole. O(segments * log documents + bytes).
    pub fn metadata_of(&self, id: DocumentId) -> Result<Option<DocumentMetadata>, Damage> {
        let Some(first) = self.rows_of(id)?.first().copied() else { return Ok(None) };
        let FoundPassage { document, .. } = self.passage_of(first, false)?;
        Ok(Some(Arc::unwrap_or_clone(document)))
    }

    /// The nearest of these.
    fn nearest_of(
        &self,
        places: &[RowPlace],
        wanted: NearestInField<'_>,
    ) -> Result<Vec<Found>, Damage> {
        let mut top = TopK::within(wanted.k, wanted.threshold.unwrap_or(f32::INFINITY));
        for place in places {
            let distance = self.distance_in_field(*place, wanted.query, wanted.metric)?;
            if let Some(distance) = distance {
                top.push(distance, (place.segment, place.row));
            }
        }
        Ok(found_in(top))
    }

    /// The sparse vectors of the greatest products, by the inverted index of each segment.
    fn nearest_sparse(
        &self,
        query: &SparseQuery,
        wanted: NearestInField<'_>,
        executor: &dyn Executor,
    ) -> Result<(Vec<Found>, Effort), Damage> {
        let outcomes: Vec<_> = self.segments.iter().map(|_segment| OnceLock::new()).collect();
        executor.run(self.segments.len(), &|place| {
            let view = &self.segments[place];
            let allowed: &dyn Allowed = match wanted.among {
                Some(among) => among.segment(place),
                None => &view.tombstones,
            };
            let at = u32::try_from(place).unwrap_or(u32::MAX);
            let mut top = TopK::new(wanted.k);
            let search = |index: &SparseIndex| {
                let visited = index.search(query, allowed, &mut top, |row| (at, row.0));
                visited.rows
            };
            let outcome = view.segment.sparse().map(search).map(|rows| (top, rows));
            // Every task runs once, so the place is free.
            let _already_set = outcomes[place].set(outcome);
        });
        let (mut top, mut effort) = (TopK::new(wanted.k), Effort::default());
        effort.walked = u32::try_from(self.segments.len()).unwrap_or(u32::MAX);
        for outcome in outcomes {
            let Some(outcome) = outcome.into_inner() else { continue };
            let (part, rows) = outcome?;
            top.merge(part);
            effort.vectors += rows;
        }
        let found = top.into_scores().into_iter().map(|(score, (segment, row))| Found {
            distance: 1.0 - score,
            place: RowPlace { segment, row },
        });
        let near = |found: &Found| wanted.threshold.is_none_or(|most| found.distance <= most);
        Ok((found.filter(near).collect(), effort))
    }

    /// Looks at every value.
    fn scan_values(
        &self,
        wanted: NearestInField<'_>,
        executor: &dyn Executor,
    ) -> Result<(Vec<Found>, Effort), Damage> {
        let mut tasks = Vec::new();
        for (place, view) in self.segments.iter().enumerate() {
            let documents = view.segment.documents();
            let firsts = (0..documents).step_by(TASK_DOCUMENTS as usize);
            tasks.extend(firsts.map(|at| (place, at..documents.min(at + TASK_DOCUMENTS))));
        }
        let outcomes: Vec<_> = tasks.iter().map(|_task| OnceLock::new()).collect();
        executor.run(tasks.len(), &|task| {
            let (place, documents) = tasks[task].clone();
            // Every task runs once, so the place is free.
            let _already_set = outcomes[task].set(self.scan_documents(place, documents, wanted));
        });
        let mut top = TopK::within(wanted.k, wanted.threshold.unwrap_or(f32::INFINITY));
        let scanned = u32::try_from(self.segments.len()).unwrap_or(u32::MAX);
        let mut effort = Effort { scanned, ..Effort::default() };
        for outcome in outcomes {
            let Some(outcome) = outcome.into_inner() else { continue };
            let (part, values) = outcome?;
            top.merge(part);
            effort.vectors += values;
        }
        Ok((found_in(top), effort))
    }

    fn scan_documents(
        &self,
        place: usize,
        documents: std::ops::Range<u32>,
        wanted: NearestInField<'_>,
    ) -> Result<(TopK<(u32, u32)>, u64), Damage> {
        let view = &self.segments[place];
        let segment = &*view.segment;
        let selected = wanted.among.map(|among| among.segment(place));
        let allowed: &dyn Allowed = match selected {
            Some(rows) => rows,
            None => &view.tombstones,
        };
        let mut top = TopK::within(wanted.k, wanted.threshold.unwrap_or(f32::INFINITY));
        let mut values = 0;
        let at = u32::try_from(place).unwrap_or(u32::MAX);
        for ordinal in documents {
            let head = segment.head(ordinal)?;
            let mut rows = head.row_range().filter(|row| allowed.allows(RowId(*row))).peekable();
            if rows.peek().is_none() {
                continue;
            }
            let body = BodyReader::new(segment.body(ordinal)?)
                .map_err(|error| segment.undecodable(&error))?;
            for row in rows {
                values += 1;
                let value = body.value((row - head.first_row) as usize);
                let distance = value.and_then(|value| self.compare(wanted.query, value));
                let distance = distance.map_err(|error| segment.undecodable(&error))?;
                if let Some(distance) = distance {
                    top.push(distance, (at, row));
                }
            }
        }
        Ok((top, values))
    }

    fn compare(&self, query: FieldQuery<'_>, value: &[u8]) -> Result<Option<f32>, DecodeError> {
        match query {
            FieldQuery::Dense(_) => Ok(None),
            FieldQuery::Late(query) => {
                let refused = DecodeError { what: "vectors for late interaction", offset: 0 };
                let rows = floats_of(value).ok_or_else(|| refused.clone())?;
                let similarity = max_sim(query, &rows, self.dimension as usize);
                similarity.map(|similarity| Some(1.0 - similarity)).ok_or(refused)
            }
            FieldQuery::Sparse(query) => {
                let value = SparseValue::read(value)?;
                let refused = |_fault| DecodeError { what: "a sparse vector", offset: 0 };
                Ok(query.score(value.vector().map_err(refused)?).map(|score| 1.0 - score))
            }
        }
    }
}

/// The sparse vectors of all rows of a segment. O(bytes).
pub(crate) fn sparse_of(segment: &Segment) -> Result<SparseIndex, Damage> {
    let mut builder = SparseBuilder::default();
    for ordinal in 0..segment.documents() {
        let head = segment.head(ordinal)?;
        let body = BodyReader::new(segment.body(ordinal)?);
        let body = body.map_err(|error| segment.undecodable(&error))?;
        for row in 0..head.rows as usize {
            let value = body.value(row).and_then(SparseValue::read);
            let value = value.map_err(|error| segment.undecodable(&error))?;
            // A damaged one is found by nothing.
            builder.push(value.vector().unwrap_or_default());
        }
    }
    Ok(builder.finish())
}

fn found_in(top: TopK<(u32, u32)>) -> Vec<Found> {
    let sorted = top.into_sorted().into_iter();
    let found = |(distance, (segment, row))| Found { distance, place: RowPlace { segment, row } };
    sorted.map(found).collect()
}

/// The mean over unit vectors of the greatest cosine similarity to a row; none where these are no rows
/// that can be compared.
fn max_sim(query: &[f32], rows: &[f32], dimension: usize) -> Option<f32> {
    let norms = rows.chunks_exact(dimension).map(inverse_norm).collect::<Result<Vec<_>, _>>();
    let norms = norms.ok()?;
    let block = RowBlock::new(dimension, &rows[..norms.len() * dimension], &norms);
    let starts = [0, u32::try_from(norms.len()).ok()?];
    let query = LateQuery::new(Similarity::Cosine, dimension, query);
    let sum = LateItems::new(&block, &starts)?.score(query, 0, &AllRows)?;
    Some(sum / query.len().max(1) as f32)
}

/// The direction of the mean of unit vectors; the first of them where they cancel out.
fn mean_of(rows: &[f32], dimension: usize) -> Vec<f32> {
    let mut mean = vec![0.0_f32; dimension];
    for row in rows.chunks_exact(dimension) {
        mean.iter_mut().zip(row).for_each(|(sum, number)| *sum += number);
    }
    arrwdb_index::normalized(&mean)
        .map_or_else(|_none| rows[..dimension].to_vec(), |(unit, _)| unit)
}
