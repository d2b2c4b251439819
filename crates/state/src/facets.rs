//! Counting the values of fields over the rows that a filter selected.
//!
//! The columns of all segments are gone through side by side in the order of their values, so that
//! every value is met once and nothing is kept but the best: memory is O(segments + values asked for),
//! time O(values + rows that have them). Counts are exact, whatever the layout.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::{Bound, Range};

use arrwdb_index::{Column, Columns, Executor, FieldValue, RowSet};
use serde_json::Value;

use crate::filter::{check_column_name, columns_named, is_left_out, json_of};
use crate::keyword::each;
use crate::limits::{FACET_VALUES_MAX, FILTER_VALUE_CHARS_MAX};
use crate::segment::{Damage, Segment};
use crate::selection::Selection;
use crate::view::View;

/// A field whose values are to be counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facet {
    field: String,
    limit: usize,
}

/// The values of a field: texts, numbers, times, true and false, also as members of lists. Null,
/// objects and what is missing are none.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FacetCounts {
    /// Those that most documents have, of these those that most chunks have, then the least; at most
    /// as many as were asked for. Texts of more characters than a filter takes are not among them.
    pub values: Vec<FacetValue>,
    /// How many other values there are.
    pub others: u64,
}

/// A value, and how many have it.
#[derive(Debug, Clone, PartialEq)]
pub struct FacetValue {
    /// As JSON; times as RFC 3339.
    pub value: Value,
    /// Documents that have a selected chunk that has it.
    pub documents: u64,
    /// Selected chunks that have it, or whose document has it.
    pub chunks: u64,
}

impl Facet {
    /// At most `limit` values of a field, which is named as filters name it.
    ///
    /// # Errors
    /// A text that says what is wrong: with `field` that it is of the field, else of the limit.
    pub fn new(field: String, limit: usize) -> Result<Self, FacetFault> {
        check_column_name(&field).map_err(FacetFault::Field)?;
        if !(1..=FACET_VALUES_MAX).contains(&limit) {
            return Err(FacetFault::Limit(format!("must be from 1 to {FACET_VALUES_MAX}")));
        }
        Ok(Self { field, limit })
    }

    /// The field's name, as it was given.
    pub fn field(&self) -> &str {
        &self.field
    }
}

/// Why values cannot be counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FacetFault {
    /// Something is wrong with the field's name.
    Field(String),
    /// Something is wrong with the limit.
    Limit(String),
}

impl View {
    /// Whether the values of a field, named as filters name it, can be counted and put in order: false
    /// where a segment has more fields than it keeps columns for, and this is one of the others.
    pub fn has_column(&self, field: &str, executor: &dyn Executor) -> Result<bool, Damage> {
        let left_out = each(self.segments.len(), executor, |place| {
            Ok(is_left_out(self.segments[place].segment.columns()?, field))
        })?;
        Ok(!left_out.contains(&true))
    }

    /// Counts values over the rows of a selection of this same view, fields side by side.
    /// O(values of the fields + rows).
    pub fn facets(
        &self,
        selection: &Selection,
        wanted: &[Facet],
        executor: &dyn Executor,
    ) -> Result<Vec<FacetCounts>, Damage> {
        let parts = each(self.segments.len(), executor, |place| {
            Part::of(&self.segments[place].segment, selection.segment(place))
        })?;
        each(wanted.len(), executor, |at| Ok(counted(&parts, &wanted[at])))
    }
}

/// A segment with the rows of it that count.
struct Part<'a> {
    columns: &'a Columns,
    rows: &'a RowSet,
    /// Where each document's rows begin, and where the last one's end; none where no row counts, or
    /// where every document has one row.
    first_rows: Vec<u32>,
}

impl<'a> Part<'a> {
    fn of(segment: &'a Segment, rows: &'a RowSet) -> Result<Self, Damage> {
        let mut first_rows = Vec::new();
        if segment.documents() != segment.rows() && !rows.is_empty() {
            first_rows.reserve_exact(segment.documents() as usize + 1);
            for ordinal in 0..segment.documents() {
                first_rows.push(segment.head(ordinal)?.first_row);
            }
            first_rows.push(segment.rows());
        }
        Ok(Self { columns: segment.columns()?, rows, first_rows })
    }

    /// How many documents and rows that count are in these runs, which ascend.
    fn count(&self, runs: impl Iterator<Item = Range<u32>>) -> (u64, u64) {
        let (mut documents, mut rows) = (0, 0);
        // The first document that no run before has counted.
        let mut next = 0;
        for run in runs {
            rows += u64::from(self.rows.count_within(run.clone()));
            let within = self.first_rows.partition_point(|first| *first <= run.start);
            let mut document = next.max(within.saturating_sub(1));
            while let Some([first, end]) = self.first_rows.get(document..document + 2) {
                if *first >= run.end {
                    break;
                }
                let both = run.start.max(*first)..run.end.min(*end);
                if self.rows.intersects(both) {
                    documents += 1;
                    next = document + 1;
                }
                document += 1;
            }
        }
        if self.first_rows.is_empty() { (rows, rows) } else { (documents, rows) }
    }
}

/// A range of a column's values that is gone through.
struct Source<'a> {
    part: usize,
    column: &'a Column,
    places: Range<usize>,
}

impl<'a> Source<'a> {
    /// The values of a field in a segment that are values to users.
    fn all(part: usize, columns: &'a Columns, field: &str) -> Vec<Self> {
        let mut sources = Vec::new();
        for (column, own_times) in columns_named(columns, field) {
            let source = |places| Self { part, column, places };
            let from = (Bound::Excluded(&FieldValue::Composite), Bound::Unbounded);
            let values = column.between(from.0, from.1);
            let (first, last) = (FieldValue::Time(i64::MIN), FieldValue::Time(i64::MAX));
            let times = column.between(Bound::Included(&first), Bound::Included(&last));
            if own_times || times.is_empty() {
                sources.push(source(values));
            } else {
                // A text that names a time is there as what it is, too.
                sources.push(source(values.start..times.start));
                sources.push(source(times.end..values.end));
            }
        }
        sources
    }

    fn next(&mut self) -> Option<(usize, &'a FieldValue)> {
        let place = self.places.next()?;
        self.column.values(place..place + 1).first().map(|value| (place, value))
    }
}

/// A value in the place of a source; the least comes first.
type Next<'a> = Reverse<(&'a FieldValue, usize, usize)>;

fn counted(parts: &[Part<'_>], facet: &Facet) -> FacetCounts {
    let live = parts.iter().enumerate().filter(|(_at, part)| !part.rows.is_empty());
    let sources = live.flat_map(|(at, part)| Source::all(at, part.columns, &facet.field));
    let mut sources: Vec<Source<'_>> = sources.collect();
    let mut nexts: BinaryHeap<Next<'_>> = BinaryHeap::with_capacity(sources.len());
    for (at, source) in sources.iter_mut().enumerate() {
        nexts.extend(source.next().map(|(place, value)| Reverse((value, at, place))));
    }
    let mut best = Best { limit: facet.limit, heap: BinaryHeap::new(), seen: 0 };
    // Where the value is that is met now.
    let mut places: Vec<(usize, usize)> = Vec::new();
    while let Some(Reverse((value, at, place))) = nexts.pop() {
        places.push((at, place));
        nexts.extend(sources[at].next().map(|(place, value)| Reverse((value, at, place))));
        if nexts.peek().is_some_and(|Reverse((next, ..))| *next == value) {
            continue;
        }
        let (mut documents, mut chunks) = (0, 0);
        for same in places.chunk_by(|a, b| sources[a.0].part == sources[b.0].part) {
            let part = &parts[sources[same[0].0].part];
            let counts = match same {
                [(at, place)] => part.count(sources[*at].column.runs(*place)),
                several => part.count(united(&sources, several).into_iter()),
            };
            documents += counts.0;
            chunks += counts.1;
        }
        places.clear();
        best.push(value, (documents, chunks));
    }
    best.finish()
}

/// The rows of several columns of one segment, ascending, each once.
fn united(sources: &[Source<'_>], places: &[(usize, usize)]) -> Vec<Range<u32>> {
    let runs = places.iter().flat_map(|(at, place)| sources[*at].column.runs(*place));
    let mut runs: Vec<Range<u32>> = runs.collect();
    runs.sort_unstable_by_key(|run| run.start);
    runs.dedup_by(|next, run| {
        let joins = next.start <= run.end;
        if joins {
            run.end = run.end.max(next.end);
        }
        joins
    });
    runs
}

/// Documents, chunks, values before, and the value: the worst comes first.
type Counted<'a> = Reverse<(u64, u64, Reverse<u64>, &'a FieldValue)>;

/// Keeps the values that most have.
struct Best<'a> {
    limit: usize,
    heap: BinaryHeap<Counted<'a>>,
    seen: u64,
}

impl<'a> Best<'a> {
    /// Takes a value, which comes after those that were taken before.
    fn push(&mut self, value: &'a FieldValue, (documents, chunks): (u64, u64)) {
        if chunks == 0 {
            return;
        }
        self.seen += 1;
        if !is_shown(value) {
            return;
        }
        self.heap.push(Reverse((documents, chunks, Reverse(self.seen), value)));
        if self.heap.len() > self.limit {
            self.heap.pop();
        }
    }

    fn finish(self) -> FacetCounts {
        let others = self.seen - self.heap.len() as u64;
        let value = |Reverse((documents, chunks, _before, value)): Counted<'_>| FacetValue {
            value: json_of(value),
            documents,
            chunks,
        };
        FacetCounts { values: self.heap.into_sorted_vec().into_iter().map(value).collect(), others }
    }
}

/// Whether a value is short enough to be filtered by.
fn is_shown(value: &FieldValue) -> bool {
    let max = FILTER_VALUE_CHARS_MAX;
    match value {
        FieldValue::Text(text) => text.len() <= max || text.chars().count() <= max,
        FieldValue::Null
        | FieldValue::Composite
        | FieldValue::Bool(_)
        | FieldValue::Number(_)
        | FieldValue::Time(_) => true,
    }
}
