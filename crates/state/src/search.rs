//! Searching a view: every segment by its index or exactly, on as many threads as are given, one
//! answer.

use std::sync::Arc;

use arrwdb_index::{
    AllRows, Allowed, Effort, Executor, IndexSpec, Metric, Request, RowBlock, RowId, SegmentIndex,
    TopK, Tuning, VectorScorer, brute_force,
};

use crate::body::BodyReader;
use crate::document::{Chunk, DocumentMetadata};
use crate::ids::DocumentId;
use crate::segment::Damage;
use crate::selection::Selection;
use crate::view::{Place, SegmentView, View};

/// Bytes of vectors worth a task of their own: below, handing work over costs more than it saves.
const TASK_BYTES_MIN: usize = 4 << 20;
/// Tasks begin at multiples of this many rows, as blocks of the scan do.
const TASK_ROWS_MULTIPLE: usize = 256;

/// What to find.
#[derive(Debug, Clone, Copy)]
pub struct Nearest<'a> {
    /// A vector of the library's dimension; for cosine a unit vector.
    pub query: &'a [f32],
    /// How distances are measured.
    pub metric: Metric,
    /// What the library is searched by.
    pub index: IndexSpec,
    /// What this search asks for besides.
    pub tuning: Tuning,
    /// How many of the nearest.
    pub k: usize,
    /// Only those with `distance <= this`.
    pub threshold: Option<f32>,
    /// Only those that a filter selected, in this same view.
    pub among: Option<&'a Selection>,
}

impl<'a> Nearest<'a> {
    /// The `k` nearest by cosine, in a library that asks for no index.
    pub fn new(query: &'a [f32], k: usize) -> Self {
        let (index, tuning) = (IndexSpec::default(), Tuning::default());
        let metric = Metric::Cosine;
        Self { query, metric, index, tuning, k, threshold: None, among: None }
    }
}

/// A row of a view. In the order in which rows came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowPlace {
    /// Its segment's place among the view's.
    pub(crate) segment: u32,
    /// The row there.
    pub(crate) row: u32,
}

impl RowPlace {
    /// The row of the segment at this place.
    pub const fn new(segment: u32, row: u32) -> Self {
        Self { segment, row }
    }
}

/// A row found. Of equal distances the row that came first is first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// By the metric that was asked for.
    pub distance: f32,
    /// Where it is.
    pub place: RowPlace,
}

/// A chunk found, read from its segment.
#[derive(Debug, Clone)]
pub struct FoundChunk {
    /// Its document.
    pub document_id: DocumentId,
    /// The document's title.
    pub title: String,
    /// The chunk.
    pub chunk: Chunk,
    /// Its place in the document, from 0.
    pub index: u32,
}

/// A chunk found, with all that is known of its document.
#[derive(Debug, Clone)]
pub struct FoundPassage {
    /// Its document.
    pub document_id: DocumentId,
    /// What belongs to that as a whole.
    pub document: Arc<DocumentMetadata>,
    /// The chunk.
    pub chunk: Chunk,
    /// Its place in the document, from 0.
    pub index: u32,
}

/// Rows of one segment.
#[derive(Debug, Clone, Copy)]
struct Task {
    segment: u32,
    first: u32,
    end: u32,
    /// Whether they are searched by the segment's index.
    indexed: bool,
}

impl View {
    /// The nearest live rows, ascending by (distance, order of arrival), and what it took to find
    /// them. Exact but for segments that are searched by an index that is not.
    pub fn nearest(
        &self,
        wanted: Nearest<'_>,
        executor: &dyn Executor,
    ) -> Result<(Vec<Found>, Effort), Damage> {
        assert_eq!(wanted.query.len(), self.dimension as usize, "dimension of the query");
        let threshold = wanted.threshold.map_or(f32::INFINITY, |far| wanted.metric.scored(far));
        let tasks = self.tasks(executor.width(), wanted);
        let outcomes: Vec<_> = tasks.iter().map(|_task| std::sync::OnceLock::new()).collect();
        executor.run(tasks.len(), &|task| {
            let (mut top, mut effort) = (TopK::within(wanted.k, threshold), Effort::default());
            let outcome = tasks[task]
                .iter()
                .try_for_each(|part| self.search_part(*part, wanted, &mut top, &mut effort))
                .map(|()| (top, effort));
            // Every task runs once, so the place is free.
            let _already_set = outcomes[task].set(outcome);
        });
        let (mut merged, mut effort) = (TopK::within(wanted.k, threshold), Effort::default());
        for outcome in outcomes {
            let Some(outcome) = outcome.into_inner() else { continue };
            let (top, spent) = outcome?;
            merged.merge(top);
            effort.add(spent);
        }
        let found = merged.into_sorted().into_iter().map(|(distance, (segment, row))| Found {
            distance: wanted.metric.reported(distance),
            place: RowPlace { segment, row },
        });
        Ok((found.collect(), effort))
    }

    /// The distance of a row that a search of this same view found.
    pub fn distance(&self, place: RowPlace, query: &[f32], metric: Metric) -> Result<f32, Damage> {
        let segment = &self.segments[place.segment as usize].segment;
        let row = place.row..place.row + 1;
        let (vector, norm) = (segment.vectors(row.clone())?, segment.inverse_norms(row)?);
        let rows = RowBlock::new(query.len(), vector, norm);
        let mut one = TopK::new(1);
        let scorer = VectorScorer::new(metric, query, &rows);
        brute_force::search(&scorer, 0..1, &AllRows, &mut one, |row: RowId| row);
        // A vector whose distance is no number is as far as can be.
        let nearest = one.into_neighbors().first().map(|neighbor| neighbor.distance);
        Ok(nearest.map_or(f32::INFINITY, |distance| metric.reported(distance)))
    }

    /// The chunk of a row that a search of this same view found.
    pub fn chunk_of(&self, found: RowPlace, vectors: bool) -> Result<FoundChunk, Damage> {
        let FoundPassage { document_id, document, chunk, index } =
            self.passage_of(found, vectors)?;
        Ok(FoundChunk { document_id, title: document.title.clone(), chunk, index })
    }

    /// The same with all that is known of its document.
    pub fn passage_of(&self, found: RowPlace, vectors: bool) -> Result<FoundPassage, Damage> {
        let segment = &self.segments[found.segment as usize].segment;
        let (ordinal, head) = segment.at_row(found.row)?;
        let place = Place { segment: found.segment as usize, ordinal, head };
        let index = found.row - head.first_row;
        let (chunk, document) = self.read_chunk(place, index, vectors)?;
        Ok(FoundPassage { document_id: head.id, document: Arc::new(document), chunk, index })
    }

    /// The same of many rows, in their order. Each document is read once, and its passages share what
    /// belongs to it as a whole.
    pub fn passages_of(
        &self,
        found: &[RowPlace],
        vectors: bool,
    ) -> Result<Vec<FoundPassage>, Damage> {
        let mut order: Vec<usize> = (0..found.len()).collect();
        order.sort_unstable_by_key(|at| found[*at]);
        let mut passages = vec![None; found.len()];
        let mut rest = &order[..];
        while let Some(first) = rest.first() {
            let place = found[*first];
            let segment = &*self.segments[place.segment as usize].segment;
            let (ordinal, head) = segment.at_row(place.row)?;
            let same = rest.partition_point(|at| {
                found[*at].segment == place.segment && head.row_range().contains(&found[*at].row)
            });
            let (of_document, others) = rest.split_at(same);
            rest = others;
            let undecodable = |error| segment.undecodable(&error);
            let body = BodyReader::new(segment.body(ordinal)?).map_err(undecodable)?;
            let document = Arc::new(body.metadata().clone());
            for at in of_document {
                let row = found[*at].row;
                let index = row - head.first_row;
                let mut chunk = body.chunk(index as usize).map_err(undecodable)?;
                if vectors {
                    chunk.embedding = segment.vectors(row..row + 1)?.to_vec();
                }
                let (document_id, document) = (head.id, document.clone());
                passages[*at] = Some(FoundPassage { document_id, document, chunk, index });
            }
        }
        Ok(passages.into_iter().flatten().collect())
    }

    /// All rows: a task for each segment that is walked, the others split evenly
    /// into at most `width` tasks that are worth it.
    ///
    /// A scan by codes that only estimate is like a walk: what it rules out depends on the rows that
    /// it has kept before, so that its answer is the same on any number of threads only where the
    /// segment is a task of its own.
    fn tasks(&self, width: usize, wanted: Nearest<'_>) -> Vec<Vec<Task>> {
        let every_row = wanted.tuning.exact || wanted.index.is_exact();
        let certain = |index: &SegmentIndex| index.spec().is_exact();
        let walked = |view: &SegmentView| {
            view.index.as_ref().is_some_and(|index| {
                if certain(index) { !wanted.tuning.exact && !index.is_scan() } else { !every_row }
            })
        };
        let scanned = self.segments.iter().filter(|view| !walked(view));
        let rows: usize = scanned.map(|view| view.segment.rows() as usize).sum();
        let bytes = rows.saturating_mul(self.dimension as usize * 4);
        let count = (bytes / TASK_BYTES_MIN).clamp(1, width.max(1));
        let share = rows.div_ceil(count).next_multiple_of(TASK_ROWS_MULTIPLE).max(1);
        let mut tasks = vec![Vec::new()];
        let mut room = share;
        for (place, view) in (0u32..).zip(&self.segments) {
            let rows = view.segment.rows();
            if walked(view) {
                tasks.insert(0, vec![Task { segment: place, first: 0, end: rows, indexed: true }]);
                continue;
            }
            let mut first = 0;
            while first < rows {
                if room == 0 {
                    tasks.push(Vec::new());
                    room = share;
                }
                let left = rows - first;
                let part = left.min(u32::try_from(room).unwrap_or(u32::MAX));
                // A task that ends within a segment ends at a border of the scan's blocks.
                let end =
                    if part < left { (first + part).next_multiple_of(256).min(rows) } else { rows };
                if let Some(task) = tasks.last_mut() {
                    let by_codes = |index: &SegmentIndex| index.is_scan() && certain(index);
                    let indexed = view.index.as_ref().is_some_and(|index| by_codes(index));
                    task.push(Task { segment: place, first, end, indexed });
                }
                room = room.saturating_sub((end - first) as usize);
                first = end;
            }
        }
        tasks.retain(|task| !task.is_empty());
        tasks
    }

    fn search_part(
        &self,
        task: Task,
        wanted: Nearest<'_>,
        top: &mut TopK<(u32, u32)>,
        effort: &mut Effort,
    ) -> Result<(), Damage> {
        let view = &self.segments[task.segment as usize];
        let selected = wanted.among.map(|among| among.segment(task.segment as usize));
        if selected.is_some_and(arrwdb_index::RowSet::is_empty) {
            return Ok(());
        }
        let allowed: &dyn Allowed = match selected {
            Some(rows) => rows,
            None => &view.tombstones,
        };
        let Some(index) = view.index.as_ref().filter(|_index| task.indexed) else {
            return self.scan(task, (wanted, allowed), top, effort);
        };
        let live = || view.segment.rows() - view.tombstones.dead();
        let vectors = view.segment.random_access(self.dimension);
        let request = Request {
            vectors: &vectors,
            rows: (task.first, task.end),
            query: wanted.query,
            k: wanted.k,
            spec: wanted.index,
            tuning: wanted.tuning,
            allowed,
            allowed_rows: selected.map_or_else(live, arrwdb_index::RowSet::count),
        };
        effort.add(index.search(request, top, |row| (task.segment, row.0)));
        vectors.check()
    }

    fn scan(
        &self,
        task: Task,
        (wanted, allowed): (Nearest<'_>, &dyn Allowed),
        top: &mut TopK<(u32, u32)>,
        effort: &mut Effort,
    ) -> Result<(), Damage> {
        let view = &self.segments[task.segment as usize];
        let rows = task.first..task.end;
        effort.scanned += u32::from(task.first == 0);
        // Only this task's rows are touched, and so checked.
        let vectors = view.segment.vectors(rows.clone())?;
        let norms = view.segment.inverse_norms(rows)?;
        let rows = RowBlock::new(wanted.query.len(), vectors, norms);
        let scorer = VectorScorer::new(wanted.metric, wanted.query, &rows);
        let allowed = From { first: task.first, allowed };
        let key = |row: RowId| (task.segment, task.first + row.0);
        effort.vectors +=
            brute_force::search(&scorer, 0..task.end - task.first, &allowed, top, key);
        Ok(())
    }
}

/// The rows of a segment from `first` on, which is a multiple of 64, counted from 0.
pub(crate) struct From<'a> {
    pub(crate) first: u32,
    pub(crate) allowed: &'a dyn Allowed,
}

impl Allowed for From<'_> {
    fn allows(&self, row: RowId) -> bool {
        self.allowed.allows(RowId(self.first + row.0))
    }

    fn word(&self, first: RowId) -> u64 {
        self.allowed.word(RowId(self.first + first.0))
    }
}
