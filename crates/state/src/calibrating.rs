//! Measuring what searches of a view find, and whether what was measured still holds.

use std::ops::Range;
use std::sync::OnceLock;

use arrwdb_index::{
    Calibration, Choice, Effort, Executor, FoundRows, IndexSpec, Metric, RowBlock, RowId, Subject,
    TopK, Tuning, VectorScorer, brute_force, calibrate,
};

use crate::search::{From, Nearest, RowPlace};
use crate::segment::Damage;
use crate::view::{SegmentView, View};

/// Vectors that are scored for all queries at a time: they stay in a core's cache meanwhile, so that
/// memory (and a file) is read once and not once for each query.
const BLOCK_BYTES: usize = 256 << 10;
/// Bytes of vectors in a task of its own: some tenths of a second for all queries.
const TASK_BYTES: usize = 4 << 20;
/// Once one in so many rows is in a structure that was not measured, or has died since, what was
/// measured is of other rows.
const CHANGED_ROWS_DIVISOR: u64 = 10;

/// What searches of a library find at which effort, and of which structures that was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibrated {
    spec: IndexSpec,
    structures: Vec<Structured>,
    /// What was measured; `None` where every search is exact.
    measured: Option<Calibration>,
}

/// One structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Structured {
    /// The number of its segment's file.
    file: u64,
    rows: u32,
    dead: u32,
}

/// Whether a measurement is of what is searched now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is, but for few rows.
    Current,
    /// It is of structures of the same kind over other rows.
    Outdated,
    /// It is not.
    Void,
}

impl Calibrated {
    /// Measures a view. See [`calibrate`].
    pub fn measure(
        view: &View,
        spec: IndexSpec,
        metric: Metric,
        executor: &dyn Executor,
    ) -> Result<Self, Damage> {
        let structures = structures(view).collect();
        let library = Library { view, spec, metric };
        let measured = calibrate(&library, spec, metric, executor)?;
        Ok(Self { spec, structures, measured })
    }

    /// Whether this holds for a view that is searched by `spec`. O(segments).
    pub fn standing(&self, view: &View, spec: IndexSpec) -> Standing {
        let other = |view: &SegmentView| {
            let index = view.index().filter(|index| !index.spec().is_exact());
            index.is_some_and(|index| !index.spec().builds_as(self.spec))
        };
        if !self.spec.builds_as(spec) || view.segments().iter().any(other) {
            return Standing::Void;
        }
        self.standing_of(structures(view))
    }

    fn standing_of(&self, now: impl Iterator<Item = Structured>) -> Standing {
        let (mut rows, mut changed) = (0, 0);
        for found in now {
            rows += u64::from(found.rows);
            let then = self.structures.iter().find(|then| then.file == found.file);
            changed += u64::from(then.map_or(found.rows, |then| found.dead.abs_diff(then.dead)));
        }
        if changed * CHANGED_ROWS_DIVISOR > rows { Standing::Outdated } else { Standing::Current }
    }

    /// Whether nothing need be measured anew for a view that is searched by `spec`.
    pub fn is_current(&self, view: &View, spec: IndexSpec) -> bool {
        // How a search goes that says nothing is measured too, and may change without a build.
        self.spec == spec && self.standing(view, spec) == Standing::Current
    }

    /// What the library was searched by.
    pub fn spec(&self) -> IndexSpec {
        self.spec
    }

    /// What was measured; `None` where every search is exact.
    pub fn measured(&self) -> Option<&Calibration> {
        self.measured.as_ref()
    }

    /// The effort for the part `wanted` of the `k` nearest rows of a view; `None` if nothing is
    /// known of that. What is outdated gets twice the effort: structures that grew want more.
    pub fn choose(
        &self,
        (view, spec): (&View, IndexSpec),
        k: usize,
        wanted: f64,
    ) -> Option<(Choice, Standing)> {
        let standing = self.standing(view, spec);
        let measured = self.measured.as_ref()?;
        let choice = measured.choose(k, wanted);
        match standing {
            Standing::Current => Some((choice, standing)),
            Standing::Outdated => {
                Some((Choice { tuning: choice.tuning.doubled(), ..choice }, standing))
            }
            Standing::Void => None,
        }
    }
}

impl View {
    /// Whether any of its segments is searched by a structure that may miss something.
    pub fn is_approximate(&self) -> bool {
        structures(self).next().is_some()
    }
}

/// The structures that may miss something.
fn structures(view: &View) -> impl Iterator<Item = Structured> {
    view.segments().iter().filter_map(|view| {
        let index = view.index()?;
        let file = view.segment().file()?.number();
        // A scan by codes that only estimate distances misses rows as a walk does.
        let misses = !index.spec().is_exact();
        let dead = view.tombstones.dead();
        misses.then(|| Structured { file, rows: view.segment().rows(), dead })
    })
}

/// A view as what is measured. A row's number is counted over all segments.
struct Library<'a> {
    view: &'a View,
    spec: IndexSpec,
    metric: Metric,
}

impl Library<'_> {
    fn segment_of(&self, row: u64) -> Option<(&SegmentView, u32)> {
        let mut left = row;
        for view in self.view.segments() {
            let rows = u64::from(view.segment().rows());
            if left < rows {
                return Some((view, u32::try_from(left).unwrap_or(u32::MAX)));
            }
            left -= rows;
        }
        None
    }

    /// The number of each segment's first row.
    fn starts(&self) -> Vec<u64> {
        let mut next = 0;
        let rows = self.view.segments().iter().map(|view| u64::from(view.segment().rows()));
        rows.map(|rows| {
            let start = next;
            next += rows;
            start
        })
        .collect()
    }

    /// Offers the rows of a part of a segment to every query's nearest.
    fn score(
        &self,
        (view, rows): (&SegmentView, Range<u32>),
        queries: &[Vec<f32>],
        nearest: &mut [TopK<(u32, u32)>],
        segment: u32,
    ) -> Result<(), Damage> {
        let dims = self.view.dimension() as usize;
        let block_rows = rows_of(BLOCK_BYTES, dims);
        let mut first = rows.start;
        while first < rows.end {
            let end = rows.end.min(first.saturating_add(block_rows));
            let vectors = view.segment.vectors(first..end)?;
            let norms = view.segment.inverse_norms(first..end)?;
            let block = RowBlock::new(dims, vectors, norms);
            let allowed = From { first, allowed: &view.tombstones };
            for (query, top) in queries.iter().zip(&mut *nearest) {
                let scorer = VectorScorer::new(self.metric, query, &block);
                let key = |row: RowId| (segment, first + row.0);
                brute_force::search(&scorer, 0..end - first, &allowed, top, key);
            }
            first = end;
        }
        Ok(())
    }
}

/// Rows in so many bytes, a multiple of those in a block of a scan.
fn rows_of(bytes: usize, dims: usize) -> u32 {
    let rows = (bytes / (dims * 4).max(1)).next_multiple_of(256).max(256);
    u32::try_from(rows).unwrap_or(256)
}

impl Subject for Library<'_> {
    type Error = Damage;

    fn rows(&self) -> u64 {
        self.view.rows()
    }

    fn dims(&self) -> usize {
        self.view.dimension() as usize
    }

    fn vector(&self, row: u64) -> Result<Option<Vec<f32>>, Damage> {
        let Some((view, row)) = self.segment_of(row) else { return Ok(None) };
        if view.tombstones.contains(row) {
            return Ok(None);
        }
        Ok(Some(view.segment.vectors(row..row + 1)?.to_vec()))
    }

    fn nearest(
        &self,
        query: &[f32],
        k: usize,
        tuning: Tuning,
    ) -> Result<(FoundRows, Effort), Damage> {
        let (metric, index) = (self.metric, self.spec);
        let wanted = Nearest { query, metric, index, tuning, k, threshold: None, among: None };
        let (found, effort) = self.view.nearest(wanted, &arrwdb_index::Sequential)?;
        let starts = self.starts();
        let row = |place: RowPlace| starts[place.segment as usize] + u64::from(place.row);
        Ok((found.iter().map(|found| (found.distance, row(found.place))).collect(), effort))
    }

    fn exact(
        &self,
        queries: &[Vec<f32>],
        k: usize,
        executor: &dyn Executor,
    ) -> Result<Vec<Vec<f32>>, Damage> {
        let task_rows = rows_of(TASK_BYTES, self.view.dimension() as usize);
        let mut parts = Vec::new();
        for (segment, view) in (0..).zip(self.view.segments()) {
            let rows = view.segment().rows();
            let firsts = (0..rows).step_by(task_rows as usize);
            parts.extend(firsts.map(|first| {
                let end = rows.min(first.saturating_add(task_rows));
                (segment, view, first..end)
            }));
        }
        let none: Vec<TopK<(u32, u32)>> = queries.iter().map(|_query| TopK::new(k)).collect();
        let mut merged = none.clone();
        // As many at a time as there are threads: what each keeps is merged before the next begin.
        for wave in parts.chunks(executor.width().max(1)) {
            let outcomes: Vec<OnceLock<_>> = wave.iter().map(|_part| OnceLock::new()).collect();
            executor.run(wave.len(), &|task| {
                outcomes[task].get_or_init(|| {
                    let (segment, view, rows) = wave[task].clone();
                    let mut nearest = none.clone();
                    let scored = self.score((view, rows), queries, &mut nearest, segment);
                    scored.map(|()| nearest)
                });
            });
            for nearest in outcomes.into_iter().filter_map(OnceLock::into_inner) {
                for (merged, nearest) in merged.iter_mut().zip(nearest?) {
                    merged.merge(nearest);
                }
            }
        }
        let reported = |(distance, _place): (f32, _)| self.metric.reported(distance);
        Ok(merged
            .into_iter()
            .map(|top| top.into_sorted().into_iter().map(reported).collect())
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_other_rows_outdates_what_was_measured() {
        let of = |file, rows, dead| Structured { file, rows, dead };
        let calibrated = Calibrated {
            spec: IndexSpec::default(),
            structures: vec![of(1, 8000, 0), of(2, 2000, 100)],
            measured: None,
        };
        let standing = |now: &[Structured]| calibrated.standing_of(now.iter().copied());
        assert_eq!(standing(&[of(1, 8000, 0), of(2, 2000, 100)]), Standing::Current);
        assert_eq!(standing(&[of(1, 8000, 900), of(2, 2000, 200)]), Standing::Current);
        assert_eq!(standing(&[of(1, 8000, 900), of(2, 2000, 201)]), Standing::Outdated);
        assert_eq!(standing(&[of(1, 8000, 0), of(3, 500, 0)]), Standing::Current);
        assert_eq!(standing(&[of(1, 8000, 0), of(3, 1000, 0)]), Standing::Outdated);
        assert_eq!(standing(&[of(4, 10_000, 0)]), Standing::Outdated, "all were merged");
        assert_eq!(standing(&[of(2, 2000, 100)]), Standing::Current, "the others are gone");
    }
}
