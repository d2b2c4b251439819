//! Merging adjacent segments into one: what is kept, and where every row goes.
//!
//! Rows keep their order, so that a merge changes no result (S5): ties are broken by position, and
//! position is order of arrival.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::memory::{Builder, count};
use super::{Damage, Head, Segment};
use crate::ids::Seq;
use crate::liveness::Tombstones;
use crate::view::SegmentView;

/// A merge of adjacent segments, planned against one view of them.
#[derive(Debug)]
pub struct Merge {
    pub(super) dimension: u32,
    pub(super) inputs: Vec<SegmentView>,
    /// What is kept, in order.
    pub(super) kept: Vec<Kept>,
    pub(super) body_bytes: usize,
    map: RowMap,
}

/// A document that is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    pub(super) input: u32,
    pub(super) ordinal: u32,
    /// As in the input, but for its first row, which is that in the output.
    pub(super) head: Head,
    /// Its first row in the input.
    pub(super) from_row: u32,
    pub(super) body_bytes: u32,
}

impl Merge {
    /// Plans the merge of `inputs`, dropping documents that died at or before `horizon`.
    /// O(documents).
    pub fn plan(dimension: u32, inputs: &[SegmentView], horizon: Seq) -> Result<Self, Damage> {
        let mut merge = Self {
            dimension,
            inputs: inputs.to_vec(),
            kept: Vec::new(),
            body_bytes: 0,
            map: RowMap::default(),
        };
        let mut rows = 0;
        for (place, input) in inputs.iter().enumerate() {
            let mut dropped = Dropped { base: rows, runs: Vec::new() };
            for ordinal in 0..input.segment.documents() {
                let head = input.segment.head(ordinal)?;
                let died = input.tombstones.died(head.first_row);
                if let Some(died) = died.filter(|died| *died <= horizon) {
                    dropped.push(head.row_range());
                    merge.map.forgets = merge.map.forgets.max(died);
                    continue;
                }
                let body_bytes = input.segment.body(ordinal)?.len();
                merge.body_bytes += body_bytes;
                merge.kept.push(Kept {
                    input: count(place),
                    ordinal,
                    head: Head { first_row: rows, ..head },
                    from_row: head.first_row,
                    body_bytes: count(body_bytes),
                });
                rows += head.rows;
            }
            merge.map.inputs.push((input.segment.clone(), dropped));
        }
        merge.map.rows = rows;
        Ok(merge)
    }

    /// How many rows the output has; with none there is no output.
    pub fn rows(&self) -> u32 {
        self.map.rows
    }

    /// Where every row goes.
    pub(crate) fn map(&self) -> &RowMap {
        &self.map
    }

    /// Builds the output in memory; `None` if nothing is kept. O(bytes).
    pub(crate) fn in_memory(&self) -> Result<Option<Segment>, Damage> {
        if self.kept.is_empty() {
            return Ok(None);
        }
        let mut builder =
            Builder::with_capacity(self.dimension, self.rows() as usize, self.kept.len());
        for kept in &self.kept {
            let segment = &self.inputs[kept.input as usize].segment;
            let rows = kept.from_row..kept.from_row + kept.head.rows;
            let body = match &**segment {
                Segment::Memory(segment) => segment.body_shared(kept.ordinal),
                Segment::File(segment) => Bytes::copy_from_slice(segment.body(kept.ordinal)?),
            };
            let norms = segment.inverse_norms(rows.clone())?;
            builder.push(kept.head, body, segment.vectors(rows)?, norms);
        }
        Ok(Some(Segment::Memory(builder.finish())))
    }

    /// Makes for the output what searches have made for an input: who searched there will search
    /// here, and shall not wait for it.
    pub fn derive(&self, output: &Segment) -> Result<(), Damage> {
        self.inputs.iter().try_for_each(|input| output.derive_as(&input.segment))
    }

    /// Runs of rows to copy, each from one input.
    pub(super) fn runs(&self) -> Vec<(usize, Range<u32>)> {
        let mut runs: Vec<(usize, Range<u32>)> = Vec::new();
        for kept in &self.kept {
            let rows = kept.from_row..kept.from_row + kept.head.rows;
            match runs.last_mut() {
                Some((input, run)) if *input == kept.input as usize && run.end == rows.start => {
                    run.end = rows.end;
                }
                _ => runs.push((kept.input as usize, rows)),
            }
        }
        runs
    }
}

/// Where the rows of merged segments went.
#[derive(Debug, Default)]
pub(crate) struct RowMap {
    inputs: Vec<(Arc<Segment>, Dropped)>,
    rows: u32,
    /// When the last of the rows died that are not in the output.
    forgets: Seq,
}

impl RowMap {
    /// The first number at which nothing lived that is not in the output.
    pub(crate) fn forgets(&self) -> Seq {
        self.forgets
    }

    /// The segments that were merged, in order.
    pub(crate) fn inputs(&self) -> impl ExactSizeIterator<Item = &Arc<Segment>> {
        self.inputs.iter().map(|(segment, _dropped)| segment)
    }

    /// The output's tombstones, given those that the inputs have by now.
    pub(crate) fn tombstones<'a>(
        &self,
        current: impl Iterator<Item = &'a Tombstones>,
    ) -> Tombstones {
        let mut out = Tombstones::default();
        for ((_segment, dropped), tombstones) in self.inputs.iter().zip(current) {
            for run in tombstones.runs() {
                // A run may hold rows of several documents, some of them dropped.
                for row in run.first..run.first + run.rows {
                    if let Some(row) = dropped.place(row) {
                        out.mark(row..row + 1, run.died);
                    }
                }
            }
        }
        out
    }
}

/// An input's rows that are not in the output.
#[derive(Debug)]
struct Dropped {
    /// Where the input's first kept row is in the output.
    base: u32,
    /// Ascending; with how many rows were dropped before each.
    runs: Vec<(Range<u32>, u32)>,
}

impl Dropped {
    fn push(&mut self, rows: Range<u32>) {
        let before = self.runs.last().map_or(0, |(run, before)| before + run.end - run.start);
        match self.runs.last_mut() {
            Some((run, _before)) if run.end == rows.start => run.end = rows.end,
            _ => self.runs.push((rows, before)),
        }
    }

    /// Where `row` is in the output. O(log runs).
    fn place(&self, row: u32) -> Option<u32> {
        let after = self.runs.partition_point(|(run, _before)| run.start <= row);
        match self.runs[..after].last() {
            None => Some(self.base + row),
            Some((run, _before)) if run.contains(&row) => None,
            Some((run, before)) => Some(self.base + row - before - (run.end - run.start)),
        }
    }
}
