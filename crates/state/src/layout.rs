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
/// When files lying side by side are merged into one.
#[derive(Debug, Clone, Copy)]
struct Policy {
    /// At least so many of them.
    inputs_min: usize,
    /// Each has at most so many times the rows of those after it together: a merge makes its
    /// largest file larger by `1 / ratio` or more, so that no row is written anew more often than
    /// log(rows / rows of the smallest file) / log(1 + 1 / ratio) times.
    ratio: u64,
}

/// Files that are scanned: fewer inputs would write each row more often, more would leave more
/// segments to search.
const SCANNED: Policy = Policy { inputs_min: 4, ratio: 1 };
/// Files that are searched by structures: each has a walk of its own, however few rows it has, so
/// that there shall be few of them: each is left more than twice as large as the next.
const INDEXED: Policy = Policy { inputs_min: 2, ratio: 2 };
/// A file is rewritten by itself once one in so many of its rows can be dropped.
const DROPPABLE_ROWS_DIVISOR: u32 = 4;
/// Merged files stop growing at this size: larger ones would only move bytes, and while a checkpoint
/// merges, what is written meanwhile stays in memory.
const FILE_MERGE_BYTES_MAX: u64 = 512 << 20;

/// A merge of the newest segments in memory that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryMerge {
    /// Bytes that the segments hold together.
    pub bytes: u64,
    /// So many segments as large as the newest may come before it is more than one merge takes.
    pub segments_left: u64,
}

impl View {
    /// The view with its newest small segments merged geometrically: each segment in memory is
    /// then larger than all those after it together, so there are at most log2 of the rows.
    /// Segments with rows born at or before `frozen` are left as they are: somebody is writing
    /// them to a file. Documents that died at or before `horizon` are dropped.
    pub fn with_memory_merged(&self, frozen: Seq, horizon: Seq) -> Result<Self, Damage> {
        let mut next = self.clone();
        for part in self.parts() {
            let Some(range) = part.choose_memory_merge(frozen)? else { continue };
            let merge = Merge::plan(part.dimension, &part.segments[range], horizon)?;
            let output = merge.in_memory()?.map(Arc::new);
            next = next.with_merged(merge.map(), output).unwrap_or(next);
        }
        Ok(next)
    }

    /// What [`View::with_memory_merged`] would merge, if anything.
    pub fn memory_merge(&self, frozen: Seq) -> Result<Option<MemoryMerge>, Damage> {
        let mut due: Option<MemoryMerge> = None;
        for part in self.parts() {
            let Some(range) = part.choose_memory_merge(frozen)? else { continue };
            let newest = part.segments.last().map_or(0, |view| view.segment.memory_bytes());
            let bytes = part.segments[range].iter().map(|view| view.segment.memory_bytes()).sum();
            let segments_left = MEMORY_MERGE_BYTES_MAX.saturating_sub(bytes) / newest.max(1);
            let so_far = due.unwrap_or(MemoryMerge { bytes: 0, segments_left });
            due = Some(MemoryMerge {
                bytes: so_far.bytes + bytes,
                segments_left: so_far.segments_left.min(segments_left),
            });
        }
        Ok(due)
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

    /// The segments of this part in memory that a checkpoint has to write: they lie side by side at the
    /// end.
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
        let sizes: Vec<Size> = self.segments[files.clone()]
            .iter()
            .map(|view| Size {
                rows: u64::from(view.segment.rows()),
                bytes: view.segment.file().map_or(0, FileSegment::file_bytes),
                free: free(&view.segment),
            })
            .collect();
        let policy = if indexed { INDEXED } else { SCANNED };
        policy.choose(&sizes).or_else(|| {
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

    /// Plans the merge of these segments of this part into one file.
    pub fn plan_merge(&self, segments: Range<usize>, horizon: Seq) -> Result<Merge, Damage> {
        Merge::plan(self.dimension, &self.segments[segments], horizon)
    }

    /// The view with a planned merge of one of its parts done: `output` holds what the merge wrote. Documents that
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

/// What a policy sees of a file.
#[derive(Debug, Clone, Copy)]
struct Size {
    rows: u64,
    bytes: u64,
    /// Whether it may be merged at present.
    free: bool,
}

impl Policy {
    /// The newest run of files worth merging. O(files^2), and a library has some tens of files.
    fn choose(self, files: &[Size]) -> Option<Range<usize>> {
        (1..=files.len())
            .rev()
            .map(|end| self.run(files, end))
            .find(|run| run.len() >= self.inputs_min)
    }

    /// The longest run before `end` of free files of which each has at most `ratio` times the rows
    /// of those after it together.
    fn run(self, files: &[Size], end: usize) -> Range<usize> {
        let (mut start, mut rows, mut bytes) = (end, 0, 0);
        for (place, file) in files[..end].iter().enumerate().rev() {
            bytes += file.bytes;
            let too_large =
                bytes > FILE_MERGE_BYTES_MAX || (rows > 0 && file.rows > rows * self.ratio);
            if too_large || !file.free {
                break;
            }
            rows += file.rows;
            start = place;
        }
        start..end
    }
}

#[cfg(test)]
mod tests {
    use super::{INDEXED, Policy, SCANNED, Size};

    fn file(rows: u64) -> Size {
        Size { rows, bytes: rows, free: true }
    }

    /// Merges until nothing is worth it; the rows written by that.
    fn settle(policy: Policy, files: &mut Vec<Size>) -> u64 {
        let mut written = 0;
        while let Some(run) = policy.choose(files) {
            assert!(run.len() >= policy.inputs_min);
            let rows = files[run.clone()].iter().map(|file| file.rows).sum();
            files.splice(run, [file(rows)]);
            written += rows;
        }
        written
    }

    #[test]
    fn files_of_any_sizes_become_few_and_no_row_is_written_often() {
        for (policy, most, often) in [(INDEXED, 11, 6), (SCANNED, 36, 5)] {
            let (mut files, mut rows, mut written) = (Vec::new(), 0, 0);
            for n in 0..1000_u64 {
                // 700 to 1300 rows each, in no order.
                let size = 700 + n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 601;
                files.push(file(size));
                rows += size;
                written += settle(policy, &mut files);
                assert!(files.len() <= most, "{policy:?}: {} files", files.len());
            }
            assert_eq!(files.iter().map(|file| file.rows).sum::<u64>(), rows);
            assert!(written / rows <= often, "{policy:?}: {} times", written / rows);
        }
    }

    #[test]
    fn what_came_faster_than_it_was_merged_is_merged_at_once() {
        let mut files: Vec<Size> = (0..300).map(|n| file(900 + n % 7 * 30)).collect();
        let rows: u64 = files.iter().map(|file| file.rows).sum();
        assert!(settle(INDEXED, &mut files) <= 2 * rows);
        assert!(files.len() <= 3, "{files:?}");
    }

    #[test]
    fn a_file_that_is_worked_on_is_left_and_the_others_are_merged() {
        let mut files = vec![file(10), file(10), file(10), file(10), file(10)];
        files[2].free = false;
        assert_eq!(INDEXED.choose(&files), Some(3..5));
        files.truncate(4);
        assert_eq!(INDEXED.choose(&files), Some(0..2));
        let large = Size { bytes: super::FILE_MERGE_BYTES_MAX, ..file(10) };
        assert_eq!(INDEXED.choose(&[large, file(10)]), None);
    }
}
