//! The rows of a view that a filter selects.

use std::sync::OnceLock;

use arrwdb_index::{Allowed, Executor, RowId, RowSet};

use crate::filter::{Asked, Filter};
use crate::ids::{DocumentId, Seq};
use crate::search::RowPlace;
use crate::segment::Damage;
use crate::view::View;

/// The live rows of a view that pass a filter.
#[derive(Debug)]
pub struct Selection {
    /// One for each of the view's segments.
    segments: Vec<RowSet>,
    estimate: f64,
    rows: u64,
}

impl Selection {
    /// These rows of each of the view's segments.
    pub(crate) fn of(segments: Vec<RowSet>) -> Self {
        let rows = segments.iter().map(|rows| u64::from(rows.count())).sum();
        Self { segments, estimate: rows as f64, rows }
    }

    /// How many rows were selected.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// About how many were expected to be, from how many rows have which values.
    pub fn estimated_rows(&self) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is from 0 to the number of rows"
        )]
        let rows = self.estimate.round() as u64;
        rows
    }

    /// The documents that have one of the rows, in the order in which they were added, with the
    /// records that added them. O(documents of the view), which is that of the selection.
    pub fn documents(&self, view: &View) -> Result<Vec<(DocumentId, Seq)>, Damage> {
        let mut documents = Vec::new();
        for (rows, view) in self.segments.iter().zip(view.segments()) {
            if rows.is_empty() {
                continue;
            }
            for ordinal in 0..view.segment.documents() {
                let head = view.segment.head(ordinal)?;
                if rows.intersects(head.row_range()) {
                    documents.push((head.id, head.born));
                }
            }
        }
        Ok(documents)
    }

    /// Whether a row of the view is one of them.
    pub fn contains(&self, place: RowPlace) -> bool {
        self.segments[place.segment as usize].allows(RowId(place.row))
    }

    /// The rows of the view's segment at `place`.
    pub(crate) fn segment(&self, place: usize) -> &RowSet {
        &self.segments[place]
    }
}

impl View {
    /// The live rows that pass a filter, segments side by side. Makes the columns of segments that
    /// have none yet, unless everything passes.
    pub fn select(&self, filter: &Filter, executor: &dyn Executor) -> Result<Selection, Damage> {
        let outcomes: Vec<_> = self.segments.iter().map(|_segment| OnceLock::new()).collect();
        executor.run(self.segments.len(), &|place| {
            let view = &self.segments[place];
            let select = || {
                let mut live = RowSet::full(view.segment.rows());
                live.retain(&view.tombstones);
                filter.select(Asked { segment: &view.segment, executor }, live)
            };
            // Every task runs once, so the place is free.
            let _already_set = outcomes[place].set(select());
        });
        let mut selection = Selection { segments: Vec::new(), estimate: 0.0, rows: 0 };
        for outcome in outcomes {
            let Some(outcome) = outcome.into_inner() else { continue };
            let (rows, estimate) = outcome?;
            selection.rows += u64::from(rows.count());
            selection.estimate += estimate;
            selection.segments.push(rows);
        }
        Ok(selection)
    }
}
