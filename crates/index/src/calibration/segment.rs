//! One segment as what is measured.

use std::convert::Infallible;

use super::measure::{FoundRows, Subject};
use crate::executor::map_runs;
use crate::{
    Allowed, Effort, Executor, IndexSpec, Request, RowId, SegmentIndex, TopK, Tuning, VectorScorer,
    Vectors, brute_force,
};

/// Queries whose exact answers are a task of their own.
const TASK_QUERIES: usize = 8;

/// The rows of a segment, those of them that may be answered, and its structure.
pub struct SegmentRows<'a, V: ?Sized> {
    /// The structure.
    pub index: &'a SegmentIndex,
    /// What the library asks for at present; how it is searched counts.
    pub spec: IndexSpec,
    /// Its vectors.
    pub vectors: &'a V,
    /// Rows that may be answered.
    pub allowed: &'a dyn Allowed,
    /// How many those are.
    pub allowed_rows: u32,
}

impl<V: ?Sized> Clone for SegmentRows<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V: ?Sized> Copy for SegmentRows<'_, V> {}

impl<V: ?Sized> std::fmt::Debug for SegmentRows<'_, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentRows").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl<V: Vectors + ?Sized> Subject for SegmentRows<'_, V> {
    type Error = Infallible;

    fn rows(&self) -> u64 {
        self.vectors.rows().into()
    }

    fn dims(&self) -> usize {
        self.vectors.dims()
    }

    fn vector(&self, row: u64) -> Result<Option<Vec<f32>>, Infallible> {
        let row = u32::try_from(row).ok().filter(|row| *row < self.vectors.rows()).map(RowId);
        let row = row.filter(|row| self.allowed.allows(*row));
        Ok(row.map(|row| self.vectors.row(row).0.to_vec()))
    }

    fn nearest(
        &self,
        query: &[f32],
        k: usize,
        tuning: Tuning,
    ) -> Result<(FoundRows, Effort), Infallible> {
        let request = Request {
            vectors: self.vectors,
            rows: (0, self.vectors.rows()),
            query,
            k,
            spec: self.spec,
            tuning,
            allowed: self.allowed,
            allowed_rows: self.allowed_rows,
        };
        let mut top = TopK::new(k);
        let effort = self.index.search(request, &mut top, |row| u64::from(row.0));
        Ok((top.into_sorted(), effort))
    }

    fn exact(
        &self,
        queries: &[Vec<f32>],
        k: usize,
        executor: &dyn Executor,
    ) -> Result<Vec<Vec<f32>>, Infallible> {
        let parts = map_runs(executor, queries.len(), TASK_QUERIES, &|range| {
            let scan = |query: &Vec<f32>| -> Vec<f32> {
                let scorer = VectorScorer::new(self.index.metric(), query, self.vectors);
                let mut top = TopK::new(k);
                let rows = 0..self.vectors.rows();
                brute_force::search(&scorer, rows, self.allowed, &mut top, |row| row);
                top.into_sorted().into_iter().map(|(distance, _row)| distance).collect()
            };
            queries[range].iter().map(scan).collect::<Vec<_>>()
        });
        Ok(parts.into_iter().flatten().collect())
    }
}
