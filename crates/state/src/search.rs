//! Searching a view: every segment exactly, on as many threads as are given, one answer.

use arrwdb_index::{Allowed, Executor, Metric, RowBlock, RowId, TopK, VectorScorer, brute_force};

use crate::document::Chunk;
use crate::ids::DocumentId;
use crate::liveness::Tombstones;
use crate::segment::Damage;
use crate::view::{Place, View};

/// Bytes of vectors worth a task of their own: below, handing work over costs more than it saves.
const TASK_BYTES_MIN: usize = 4 << 20;
/// Tasks begin at multiples of this many rows, as blocks of the scan do.
const TASK_ROWS_MULTIPLE: usize = 256;

/// What to find.
#[derive(Debug, Clone, Copy)]
pub struct Nearest<'a> {
    /// A unit vector of the library's dimension.
    pub query: &'a [f32],
    /// How many of the nearest.
    pub k: usize,
    /// Only those with `distance <= this`.
    pub threshold: Option<f32>,
}

/// A row found. Of equal distances the row that came first is first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// Cosine distance, 0 to 2.
    pub distance: f32,
    segment: u32,
    row: u32,
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

/// Rows of one segment.
#[derive(Debug, Clone, Copy)]
struct Task {
    segment: u32,
    first: u32,
    end: u32,
}

impl View {
    /// The nearest live rows, ascending by (distance, order of arrival). Exact. O(rows).
    pub fn nearest(
        &self,
        wanted: Nearest<'_>,
        executor: &dyn Executor,
    ) -> Result<Vec<Found>, Damage> {
        assert_eq!(wanted.query.len(), self.dimension as usize, "dimension of the query");
        let threshold = wanted.threshold.unwrap_or(f32::INFINITY);
        let tasks = self.tasks(executor.width());
        let outcomes: Vec<_> = tasks.iter().map(|_task| std::sync::OnceLock::new()).collect();
        executor.run(tasks.len(), &|task| {
            let mut top = TopK::within(wanted.k, threshold);
            let outcome = tasks[task]
                .iter()
                .try_for_each(|part| self.scan(*part, wanted.query, &mut top))
                .map(|()| top);
            // Every task runs once, so the place is free.
            let _already_set = outcomes[task].set(outcome);
        });
        let mut merged = TopK::within(wanted.k, threshold);
        for outcome in outcomes {
            let Some(top) = outcome.into_inner() else { continue };
            for (distance, key) in top?.into_sorted() {
                merged.push(distance, key);
            }
        }
        let sorted = merged.into_sorted().into_iter();
        Ok(sorted.map(|(distance, (segment, row))| Found { distance, segment, row }).collect())
    }

    /// The chunk of a row that [`View::nearest`] of this same view found.
    pub fn chunk_of(&self, found: Found, vectors: bool) -> Result<FoundChunk, Damage> {
        let segment = &self.segments[found.segment as usize].segment;
        let ordinal = segment.ordinal_of(found.row)?;
        let head = segment.head(ordinal)?;
        let place = Place { segment: found.segment as usize, ordinal, head };
        let index = found.row - head.first_row;
        let (chunk, title) = self.read_chunk(place, index, vectors)?;
        Ok(FoundChunk { document_id: head.id, title, chunk, index })
    }

    /// All rows, split evenly into at most `width` tasks that are worth it.
    fn tasks(&self, width: usize) -> Vec<Vec<Task>> {
        let rows = usize::try_from(self.rows()).unwrap_or(usize::MAX);
        let bytes = rows.saturating_mul(self.dimension as usize * 4);
        let count = (bytes / TASK_BYTES_MIN).clamp(1, width.max(1));
        let share = rows.div_ceil(count).next_multiple_of(TASK_ROWS_MULTIPLE).max(1);
        let mut tasks = vec![Vec::new()];
        let mut room = share;
        for (place, view) in (0u32..).zip(&self.segments) {
            let mut first = 0;
            while first < view.segment.rows() {
                if room == 0 {
                    tasks.push(Vec::new());
                    room = share;
                }
                let left = view.segment.rows() - first;
                let rows = left.min(u32::try_from(room).unwrap_or(u32::MAX));
                // A task that ends within a segment ends at a border of the scan's blocks.
                let end = if rows < left {
                    (first + rows).next_multiple_of(256).min(view.segment.rows())
                } else {
                    view.segment.rows()
                };
                if let Some(task) = tasks.last_mut() {
                    task.push(Task { segment: place, first, end });
                }
                room = room.saturating_sub((end - first) as usize);
                first = end;
            }
        }
        tasks
    }

    fn scan(&self, task: Task, query: &[f32], top: &mut TopK<(u32, u32)>) -> Result<(), Damage> {
        let view = &self.segments[task.segment as usize];
        let rows = task.first..task.end;
        // Only this task's rows are touched, and so checked.
        let vectors = view.segment.vectors(rows.clone())?;
        let rows = RowBlock::new(query.len(), vectors, view.segment.inverse_norms(rows)?);
        let scorer = VectorScorer::new(Metric::Cosine, query, &rows);
        let allowed = From { first: task.first, tombstones: &view.tombstones };
        let key = |row: RowId| (task.segment, task.first + row.0);
        brute_force::search(&scorer, 0..task.end - task.first, &allowed, top, key);
        Ok(())
    }
}

/// The rows of a segment from `first` on, which is a multiple of 64, counted from 0.
struct From<'a> {
    first: u32,
    tombstones: &'a Tombstones,
}

impl Allowed for From<'_> {
    fn allows(&self, row: RowId) -> bool {
        self.tombstones.allows(RowId(self.first + row.0))
    }

    fn word(&self, first: RowId) -> u64 {
        self.tombstones.word(RowId(self.first + first.0))
    }
}
