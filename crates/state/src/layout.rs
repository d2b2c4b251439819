//! Layout: which segments to merge, and merging them. Changes no meaning: the digest and every
//! result stay (S5).

use std::ops::Range;
use std::sync::Arc;

use crate::ids::Seq;
use crate::segment::{Damage, FileSegment, Merge, Segment};
use crate::view::{SegmentView, View};

/// Merges in memory stop at outputs of this size, so that the writer never stalls for long; what
/// is larger waits for a checkpoint.
const MEMORY_MERGE_BYTES_MAX: u64 = 8 << 20;
/// Files that are scanned are merged when so many of similar size lie side by side: fewer would write
/// each row more often, more would leave more segments to search.
const FILE_MERGE_INPUTS_MIN: usize = 4;
/// Files that are searched by structures: each has a walk of its own, however few rows it has, so
/// that there shall be few of them. Each row is then in about log2 of (rows / rows of the smallest
/// file) builds, fewer where files come faster than they are merged.
const INDEXED_MERGE_INPUTS_MIN: usize = 2;
/// A file is rewritten by itself once one in so many of its rows can be dropped.
const DROPPABLE_ROWS_DIVISOR: u32 = 4;
/// Merged files stop growing at this size: larger ones would only move bytes, and while a merge
/// runs, what is written meanwhile stays in memory.
const FILE_MERGE_BYTES_MAX: u64 = 512 << 20;

impl View {
    /// The view with its newest small segments merged geometrically: each segment in memory is
    /// then larger than all those after it together, so there are at most log2 of the rows.
    /// Segments with rows born at or before `frozen` are left as they are: somebody is writing
    /// them to a file. Documents that died at or before `horizon` are dropped.
    pub fn with_memory_merged(&self, frozen: Seq, horizon: Seq) -> Result<Self, Damage> {
        let Some(range) = self.choose_memory_merge(frozen)? else {
            return Ok(self.clone());
        };
        let merge = Merge::plan(self.dimension, &self.segments[range], horizon)?;
        let output = merge.in_memory()?.map(Arc::new);
        Ok(self.with_merged(merge.map(), output).unwrap_or_else(|| self.clone()))
    }

    fn choose_memory_merge(&self, frozen: Seq) -> Result<Option<Range<usize>>, Damage> {
        let end = self.segments.len();
        let (mut start, mut rows, mut bytes) = (end, 0, 0);
        for (place, view) in self.segments.iter().enumerate().rev() {
            let segment = &view.segment;
            bytes += segment.memory_bytes();
            let kept = segment.file().is_some() || segment.head(0)?.born <= frozen;
            let too_large = bytes > MEMORY_MERGE_BYTES_MAX || (rows > 0 && segment.rows() > rows);
            if kept || too_large {
                break;
            }
            rows += segment.rows();
            start = place;
        }
        Ok((end - start > 1).then_some(start..end))
    }

    /// The segments in memory that a checkpoint has to write: they lie side by side at the end.
    pub fn memory_segments(&self) -> Range<usize> {
        let end = self.segments.len();
        let in_memory = |view: &&SegmentView| view.segment.file().is_none();
        end - self.segments.iter().rev().take_while(in_memory).count()..end
    }

    /// Files worth merging, if any, of those that are `free` to be merged; `indexed` says whether
    /// they are searched by structures.
    pub fn choose_file_merge(
        &self,
        horizon: Seq,
        indexed: bool,
        free: &dyn Fn(&Segment) -> bool,
    ) -> Option<Range<usize>> {
        let files = 0..self.memory_segments().start;
        let least = if indexed { INDEXED_MERGE_INPUTS_MIN } else { FILE_MERGE_INPUTS_MIN };
        let similar = self.similar_files(files.clone(), free);
        Some(similar).filter(|similar| similar.len() >= least).or_else(|| {
            let worth = |place: &usize| {
                free(&self.segments[*place].segment) && self.droppable(*place, horizon)
            };
            files.into_iter().find(worth).map(|at| at..at + 1)
        })
    }

    /// All files, if there is more than one or one has rows that can be dropped.
    pub fn all_files(&self, horizon: Seq) -> Option<Range<usize>> {
        let files = 0..self.memory_segments().start;
        let droppable = |view: &SegmentView| view.tombstones.runs().any(|run| run.died <= horizon);
        let worth = files.len() > 1 || self.segments[files.clone()].iter().any(droppable);
        worth.then_some(files)
    }

    /// The newest run of free files of which each is no larger than those after it together.
    fn similar_files(&self, files: Range<usize>, free: &dyn Fn(&Segment) -> bool) -> Range<usize> {
        let (mut start, mut rows, mut bytes) = (files.end, 0_u32, 0_u64);
        for place in files.clone().rev() {
            let segment = &self.segments[place].segment;
            bytes += segment.file().map_or(0, FileSegment::file_bytes);
            let too_large = bytes > FILE_MERGE_BYTES_MAX || (rows > 0 && segment.rows() > rows);
            if too_large || !free(segment) {
                break;
            }
            rows += segment.rows();
            start = place;
        }
        start..files.end
    }

    fn droppable(&self, place: usize, horizon: Seq) -> bool {
        let view = &self.segments[place];
        if view.tombstones.dead() <= view.segment.rows() / DROPPABLE_ROWS_DIVISOR {
            return false;
        }
        let past = view.tombstones.runs().filter(|run| run.died <= horizon);
        let rows: u32 = past.map(|run| run.rows).sum();
        rows > view.segment.rows() / DROPPABLE_ROWS_DIVISOR
    }

    /// The first file that has rows of documents that died, whenever that was.
    pub fn file_with_dead_rows(&self) -> Option<Range<usize>> {
        let files = 0..self.memory_segments().start;
        let dead = |place: &usize| self.segments[*place].tombstones.dead() > 0;
        files.into_iter().find(dead).map(|place| place..place + 1)
    }

    /// Plans the merge of these segments into one file.
    pub fn plan_merge(&self, segments: Range<usize>, horizon: Seq) -> Result<Merge, Damage> {
        Merge::plan(self.dimension, &self.segments[segments], horizon)
    }

    /// The view with a planned merge done: `output` holds what the merge wrote. Documents that
    /// died since the plan stay dead. `None` if the merged segments are not this view's.
    pub fn with_merge(&self, merge: &Merge, output: Option<Arc<Segment>>) -> Option<Self> {
        assert_eq!(
            merge.rows(),
            output.as_ref().map_or(0, |segment| segment.rows()),
            "the output holds what the plan keeps"
        );
        self.with_merged(merge.map(), output)
    }
}
