//! Documents in the order of a field's values.
//!
//! A document has the least of its values, or where the greatest come first the greatest: its own and its
//! passages'. Kinds come one after the other: false and true, numbers, times, texts. Documents without a
//! value come last in either direction. Of equal ones the one that was written first comes first, and of
//! one record the one of the least id: an order that does not depend on the layout, so that a page can
//! begin after a document that is not there any more.
//!
//! The columns of a segment are gone through in the order of their values until a page is full.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::{Bound, Range};

use arrwdb_index::{Column, Columns, Executor, FieldValue, Number, RowSet};

use crate::filter::{check_column_name, columns_named, names_a_time};
use crate::ids::{DocumentId, Seq};
use crate::keyword::each;
use crate::segment::{Damage, Segment};
use crate::selection::Selection;
use crate::view::View;

/// Characters of a text that it is ordered by: more would not fit into a cursor.
const KEY_CHARS_MAX: usize = 128;

/// What documents are ordered by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderBy {
    field: String,
    descending: bool,
}

impl OrderBy {
    /// A field, which is named as filters name it, and whether the greatest come first.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn new(field: String, descending: bool) -> Result<Self, String> {
        check_column_name(&field)?;
        Ok(Self { field, descending })
    }

    /// The field.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Whether the greatest come first.
    pub fn is_descending(&self) -> bool {
        self.descending
    }

    fn compare_keys(&self, a: Key<'_>, b: Key<'_>) -> Ordering {
        if self.descending { b.cmp(&a) } else { a.cmp(&b) }
    }

    /// The order of two documents; nothing is last.
    fn compare(&self, a: &OrderedCursor, b: &OrderedCursor) -> Ordering {
        let by_value = match (&a.value, &b.value) {
            (Some(a), Some(b)) if self.descending => b.cmp(a),
            (Some(a), Some(b)) => a.cmp(b),
            (a, b) => a.is_none().cmp(&b.is_none()),
        };
        by_value.then((a.born, a.id).cmp(&(b.born, b.id)))
    }
}

/// A document in such an order, and a place in it: the one after that document, be it there or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderedCursor {
    /// Its value, of a text its beginning; `None` if it has none.
    pub value: Option<FieldValue>,
    /// The record that added it.
    pub born: Seq,
    /// The document.
    pub id: DocumentId,
}

/// A page of documents in the order of a field's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderedPage {
    /// The documents, at most as many as were asked for.
    pub documents: Vec<OrderedCursor>,
    /// Whether there are more.
    pub more: bool,
}

impl View {
    /// At most `limit` documents that have a row of this view's selection, after `cursor` (from the
    /// first, without one). O(values and documents of the field up to the page's end).
    pub fn documents_by(
        &self,
        (order, selection): (&OrderBy, &Selection),
        cursor: Option<&OrderedCursor>,
        limit: usize,
        executor: &dyn Executor,
    ) -> Result<OrderedPage, Damage> {
        let found = each(self.segments.len(), executor, |place| {
            let rows = selection.segment(place);
            if rows.is_empty() {
                return Ok(Vec::new());
            }
            let mut walk = Walk::new((&self.segments[place].segment, rows), order, cursor)?;
            // One more, to know whether there are more.
            walk.run(limit.saturating_add(1))?;
            Ok(walk.found)
        })?;
        let mut documents: Vec<OrderedCursor> = found.into_iter().flatten().collect();
        documents.sort_unstable_by(|a, b| order.compare(a, b));
        let more = documents.len() > limit;
        documents.truncate(limit);
        Ok(OrderedPage { documents, more })
    }
}

/// A way through a segment's documents in their order.
struct Walk<'a> {
    segment: &'a Segment,
    rows: &'a RowSet,
    order: &'a OrderBy,
    cursor: Option<&'a OrderedCursor>,
    /// Where each document's rows begin, and where the last one's end.
    first_rows: Vec<u32>,
    /// Documents that were met.
    seen: RowSet,
    found: Vec<OrderedCursor>,
}

impl<'a> Walk<'a> {
    fn new(
        (segment, rows): (&'a Segment, &'a RowSet),
        order: &'a OrderBy,
        cursor: Option<&'a OrderedCursor>,
    ) -> Result<Self, Damage> {
        let documents = segment.documents();
        let mut first_rows = Vec::with_capacity(documents as usize + 1);
        for ordinal in 0..documents {
            first_rows.push(segment.head(ordinal)?.first_row);
        }
        first_rows.push(segment.rows());
        let (seen, found) = (RowSet::empty(documents), Vec::new());
        Ok(Self { segment, rows, order, cursor, first_rows, seen, found })
    }

    /// Finds the first `limit` documents after the cursor.
    fn run(&mut self, limit: usize) -> Result<(), Damage> {
        let mut values = Values::new(self.segment.columns()?, self.order);
        let mut group: Vec<(&Column, usize)> = Vec::new();
        while let Some(key) = values.next_group(&mut group) {
            // How the documents of this value are to the one that the page begins after.
            let side = self.cursor.map_or(Ordering::Greater, |cursor| {
                let value = cursor.value.as_ref().and_then(Key::of);
                value.map_or(Ordering::Less, |value| self.order.compare_keys(key, value))
            });
            let from = self.cursor.filter(|_cursor| side.is_eq());
            let mut first = First::new(from, limit - self.found.len());
            let mut offered = side.is_ge().then_some(&mut first);
            for (column, place) in group.drain(..) {
                self.meet(column.runs(place), offered.as_deref_mut())?;
            }
            let added =
                first.into_sorted().into_iter().map(|(born, id)| (born, id, key.to_value()));
            self.found.extend(added.map(|(born, id, key)| OrderedCursor {
                value: Some(key),
                born,
                id,
            }));
            if self.found.len() >= limit {
                return Ok(());
            }
        }
        let without = self.cursor.filter(|cursor| cursor.value.is_none());
        let mut best = First::new(without, limit - self.found.len());
        self.meet(std::iter::once(0..self.segment.rows()), Some(&mut best))?;
        let rest = best.into_sorted().into_iter();
        self.found.extend(rest.map(|(born, id)| OrderedCursor { value: None, born, id }));
        Ok(())
    }

    /// Meets the documents of these rows; those that pass and were not met before are offered.
    fn meet(
        &mut self,
        runs: impl Iterator<Item = Range<u32>>,
        mut best: Option<&mut First>,
    ) -> Result<(), Damage> {
        for run in runs {
            let after = self.first_rows.partition_point(|first| *first <= run.start);
            let mut at = after.saturating_sub(1);
            while let Some([first, end]) = self.first_rows.get(at..at + 2) {
                if *first >= run.end {
                    break;
                }
                let ordinal = u32::try_from(at).unwrap_or(u32::MAX);
                at += 1;
                if self.seen.contains(ordinal) || !self.rows.intersects(*first..*end) {
                    continue;
                }
                self.seen.insert(ordinal..ordinal + 1);
                if let Some(best) = &mut best {
                    let head = self.segment.head(ordinal)?;
                    best.offer((head.born, head.id));
                }
            }
        }
        Ok(())
    }
}

/// The first few of some documents by (born, id), of those after a place.
struct First {
    after: Option<(Seq, DocumentId)>,
    limit: usize,
    /// The last of them first.
    heap: BinaryHeap<(Seq, DocumentId)>,
}

impl First {
    fn new(after: Option<&OrderedCursor>, limit: usize) -> Self {
        let after = after.map(|cursor| (cursor.born, cursor.id));
        Self { after, limit, heap: BinaryHeap::new() }
    }

    fn offer(&mut self, document: (Seq, DocumentId)) {
        let is_full = self.heap.len() >= self.limit;
        let is_late = is_full && self.heap.peek().is_none_or(|last| document >= *last);
        if is_late || self.after.is_some_and(|after| document <= after) {
            return;
        }
        self.heap.push(document);
        if is_full {
            self.heap.pop();
        }
    }

    fn into_sorted(self) -> Vec<(Seq, DocumentId)> {
        self.heap.into_sorted_vec()
    }
}

/// The values of a field in a segment, in their order, with those that are one key together.
struct Values<'a> {
    sources: Vec<(&'a Column, Range<usize>)>,
    descending: bool,
}

impl<'a> Values<'a> {
    fn new(columns: &'a Columns, order: &OrderBy) -> Self {
        let values = |column: &'a Column| {
            column.between(Bound::Excluded(&FieldValue::Composite), Bound::Unbounded)
        };
        let columns = columns_named(columns, &order.field).into_iter();
        let sources = columns.map(|(column, _own_times)| (column, values(column)));
        Self { sources: sources.collect(), descending: order.descending }
    }

    /// The next key, and where its values are.
    fn next_group(&mut self, group: &mut Vec<(&'a Column, usize)>) -> Option<Key<'a>> {
        let mut key = None;
        while let Some((at, value)) = self.peek() {
            let found = Key::of(value);
            if found.is_some() && key.is_some() && found != key {
                break;
            }
            let place = self.pop(at);
            if found.is_some() {
                group.extend(place);
                key = found;
            }
        }
        key
    }

    /// The column whose next value comes first, and that value.
    fn peek(&self) -> Option<(usize, &'a FieldValue)> {
        let nexts = self.sources.iter().enumerate().filter_map(|(at, (column, places))| {
            let mut places = places.clone();
            let place = if self.descending { places.next_back() } else { places.next() }?;
            Some((at, column.values(place..place + 1).first()?))
        });
        if self.descending {
            nexts.max_by(|a, b| a.1.cmp(b.1))
        } else {
            nexts.min_by(|a, b| a.1.cmp(b.1))
        }
    }

    fn pop(&mut self, at: usize) -> Option<(&'a Column, usize)> {
        let (column, places) = self.sources.get_mut(at)?;
        let place = if self.descending { places.next_back() } else { places.next() }?;
        Some((column, place))
    }
}

/// What of a value documents are ordered by. The order of values is that of their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key<'a> {
    Bool(bool),
    Number(Number),
    Time(i64),
    Text(&'a str),
}

impl<'a> Key<'a> {
    /// `None` for what is no value, and for a text that names a time: it is there as that, too.
    fn of(value: &'a FieldValue) -> Option<Self> {
        match value {
            FieldValue::Null | FieldValue::Composite => None,
            FieldValue::Bool(value) => Some(Self::Bool(*value)),
            FieldValue::Number(number) => Some(Self::Number(*number)),
            FieldValue::Time(time) => Some(Self::Time(*time)),
            FieldValue::Text(text) if names_a_time(text) => None,
            FieldValue::Text(text) => Some(Self::Text(cut(text))),
        }
    }

    fn to_value(self) -> FieldValue {
        match self {
            Self::Bool(value) => FieldValue::Bool(value),
            Self::Number(number) => FieldValue::Number(number),
            Self::Time(time) => FieldValue::Time(time),
            Self::Text(text) => FieldValue::Text(text.into()),
        }
    }
}

/// The beginning of a text. By characters, so that beginnings are in the order of their texts.
fn cut(text: &str) -> &str {
    let end = text.char_indices().nth(KEY_CHARS_MAX).map_or(text.len(), |(end, _char)| end);
    &text[..end]
}
