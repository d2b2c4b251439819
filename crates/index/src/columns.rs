//! The values of fields over a segment's rows: sorted, each with the rows that have it.
//!
//! A field's values are kept in order, and the rows of one value behind those of the value before,
//! so that the rows of any range of values are one slice: equality, ranges and prefixes cost a
//! binary search and the rows found. A value that a document gives all its rows is one run of rows,
//! and runs of neighbours are joined. The idea is that of a sorted secondary index with its postings
//! laid out by key, as in Lucene's doc values and points.

mod number;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::ops::{Bound, Range};

pub use number::Number;

use crate::RowSet;

/// A value of a field, in the order of its kinds and of the values of one kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FieldValue {
    /// Nothing, said in so many words.
    Null,
    /// Something that is no single value: an object, or a list.
    Composite,
    /// True or false.
    Bool(bool),
    /// A number.
    Number(Number),
    /// Microseconds since 1970 began.
    Time(i64),
    /// A text, by code points.
    Text(Box<str>),
}

/// Consecutive rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    first: u32,
    rows: u32,
}

/// The rows of each value of a field.
#[derive(Debug, Default)]
pub struct Column {
    /// Ascending, each once.
    values: Vec<FieldValue>,
    /// Where each value's runs begin, and where the last one's end.
    starts: Vec<u32>,
    /// How many rows the runs before each value's have, with the sum of all.
    rows_before: Vec<u64>,
    runs: Vec<Run>,
}

/// A field: what it is, and what is in it where it is a list.
#[derive(Debug, Default)]
pub struct Field {
    /// Values that a row has by themselves.
    pub single: Column,
    /// Members of lists.
    pub listed: Column,
}

impl Field {
    /// Both columns.
    pub fn columns(&self) -> [&Column; 2] {
        [&self.single, &self.listed]
    }
}

/// The fields of a segment's rows.
#[derive(Debug)]
pub struct Columns {
    rows: u32,
    fields: BTreeMap<Box<str>, Field>,
    left_out: LeftOut,
    bytes: u64,
}

impl Columns {
    /// How many rows the segment has.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Whether rows have a field of this name that is not here. Next to never true of one that none has.
    pub fn leaves_out(&self, name: &str) -> bool {
        !self.left_out.0.is_empty() && self.left_out.0.contains(&LeftOut::hash(name))
    }

    /// A field; `None` if no row has it, or it is left out. O(log fields).
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.get(name)
    }

    /// What it takes in memory, about.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Column {
    /// The places of the values between these bounds. O(log values).
    pub fn between(&self, from: Bound<&FieldValue>, to: Bound<&FieldValue>) -> Range<usize> {
        let start = match from {
            Bound::Unbounded => 0,
            Bound::Included(value) => self.values.partition_point(|it| it < value),
            Bound::Excluded(value) => self.values.partition_point(|it| it <= value),
        };
        let end = match to {
            Bound::Unbounded => self.values.len(),
            Bound::Included(value) => self.values.partition_point(|it| it <= value),
            Bound::Excluded(value) => self.values.partition_point(|it| it < value),
        };
        start..end.max(start)
    }

    /// The values at these places, ascending.
    pub fn values(&self, places: Range<usize>) -> &[FieldValue] {
        &self.values[places]
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether no row has a value.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The rows that have the value at this place, ascending, those of neighbours together.
    pub fn runs(&self, place: usize) -> impl Iterator<Item = Range<u32>> + Clone {
        let start = |place: usize| self.starts.get(place).map_or(0, |start| *start as usize);
        self.runs[start(place)..start(place + 1)].iter().map(|run| run.first..run.first + run.rows)
    }

    /// At most how many rows have one of the values at these places. O(1).
    pub fn rows_at_most(&self, places: Range<usize>) -> u64 {
        let before = |place: usize| self.rows_before.get(place).copied().unwrap_or(0);
        before(places.end) - before(places.start)
    }

    /// Adds the rows that have one of the values at these places. O(runs).
    pub fn select(&self, places: Range<usize>, rows: &mut RowSet) {
        let start = |place: usize| self.starts.get(place).map_or(0, |start| *start as usize);
        for run in &self.runs[start(places.start)..start(places.end)] {
            rows.insert(run.first..run.first + run.rows);
        }
    }

    fn bytes(&self) -> usize {
        let texts = self.values.iter().map(|value| match value {
            FieldValue::Text(text) => text.len(),
            FieldValue::Null
            | FieldValue::Composite
            | FieldValue::Bool(_)
            | FieldValue::Number(_)
            | FieldValue::Time(_) => 0,
        });
        let each = size_of::<FieldValue>() + size_of::<u32>() + size_of::<u64>();
        texts.sum::<usize>() + self.values.len() * each + self.runs.len() * size_of::<Run>()
    }
}

/// Collects the values of fields, in the order of rows.
#[derive(Debug, Default)]
pub struct ColumnsBuilder {
    places: HashMap<Box<str>, usize>,
    /// Of each field what is by itself, and what is listed.
    fields: Vec<[Values; 2]>,
    left_out: LeftOut,
}

/// Hashes of the names of fields that have no columns: there are too many to keep their names.
#[derive(Debug, Default)]
struct LeftOut(HashSet<u64>);

impl LeftOut {
    fn hash(name: &str) -> u64 {
        BuildHasherDefault::<DefaultHasher>::default().hash_one(name)
    }
}

/// The rows of each value, which is kept once however many have it.
#[derive(Debug, Default)]
struct Values {
    texts: HashMap<Box<str>, Vec<Run>>,
    others: HashMap<FieldValue, Vec<Run>>,
}

impl ColumnsBuilder {
    /// How many fields there are.
    pub fn fields(&self) -> usize {
        self.fields.len()
    }

    /// Whether a field is there.
    pub fn has(&self, field: &str) -> bool {
        self.places.contains_key(field)
    }

    /// Notes that a row has a field that is not added.
    pub fn leave_out(&mut self, name: &str) {
        self.left_out.0.insert(LeftOut::hash(name));
    }

    /// Rows have this text in a field: by itself, or among others.
    pub fn add_text(&mut self, field: &str, text: &str, listed: bool, rows: Range<u32>) {
        let values = self.values(field, listed);
        match values.texts.get_mut(text) {
            Some(runs) => push(runs, rows),
            None => push(values.texts.entry(text.into()).or_default(), rows),
        }
    }

    /// Rows have this value in a field: by itself, or among others.
    pub fn add(&mut self, field: &str, value: FieldValue, listed: bool, rows: Range<u32>) {
        if let FieldValue::Text(text) = &value {
            return self.add_text(field, text, listed, rows);
        }
        push(self.values(field, listed).others.entry(value).or_default(), rows);
    }

    /// The columns of a segment of so many rows. O(values log values).
    pub fn finish(self, rows: u32) -> Columns {
        let Self { places, mut fields, left_out } = self;
        let fields = places.into_iter().map(|(name, place)| {
            let [single, listed] = std::mem::take(&mut fields[place]).map(Values::finish);
            (name, Field { single, listed })
        });
        let fields: BTreeMap<Box<str>, Field> = fields.collect();
        let bytes = fields.iter().map(|(name, field)| {
            let columns = field.columns().map(Column::bytes).iter().sum::<usize>();
            name.len() + size_of::<Field>() + columns
        });
        let bytes = bytes.sum::<usize>() + left_out.0.capacity() * size_of::<u64>();
        Columns { rows, fields, left_out, bytes: bytes as u64 }
    }

    fn values(&mut self, field: &str, listed: bool) -> &mut Values {
        let place = self.places.get(field).copied().unwrap_or_else(|| {
            self.places.insert(field.into(), self.fields.len());
            self.fields.push(<[Values; 2]>::default());
            self.fields.len() - 1
        });
        &mut self.fields[place][usize::from(listed)]
    }
}

/// Adds rows, which do not come before those that are there.
fn push(runs: &mut Vec<Run>, rows: Range<u32>) {
    if let Some(last) = runs.last_mut()
        && rows.start <= last.first + last.rows
    {
        last.rows = last.rows.max(rows.end - last.first);
        return;
    }
    runs.push(Run { first: rows.start, rows: rows.end - rows.start });
}

impl Values {
    fn finish(self) -> Column {
        let texts = self.texts.into_iter().map(|(text, runs)| (FieldValue::Text(text), runs));
        let mut all: Vec<(FieldValue, Vec<Run>)> = self.others.into_iter().chain(texts).collect();
        all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let mut column = Column {
            values: Vec::with_capacity(all.len()),
            starts: Vec::with_capacity(all.len() + 1),
            rows_before: Vec::with_capacity(all.len() + 1),
            runs: Vec::with_capacity(all.iter().map(|(_value, runs)| runs.len()).sum()),
        };
        let mut rows = 0;
        for (value, runs) in all {
            column.note(rows);
            column.values.push(value);
            rows += runs.iter().map(|run| u64::from(run.rows)).sum::<u64>();
            column.runs.extend(runs);
        }
        column.note(rows);
        column
    }
}

impl Column {
    /// A value begins here, or nothing more.
    fn note(&mut self, rows: u64) {
        // A run takes a row at least, and a row has a value once: a field of a segment whose rows
        // are counted in 32 bits has more runs only by lists of thousands in every row.
        self.starts.push(u32::try_from(self.runs.len()).unwrap_or(u32::MAX));
        self.rows_before.push(rows);
    }
}
