//! The rows of a segment that pass, from its columns.

use std::ops::{Bound, Range};

use arrwdb_index::{Column, Columns, Executor, Field, FieldValue, RowSet};

use super::columns::{column_name, is_left_out};
use super::passage::{FieldName, Passage, READ_FIELDS, named};
use super::passes::{ReadPassage, has_words, passes};
use super::value::Operand;
use super::{Filter, Node, Side, Test};
use crate::body::BodyReader;
use crate::ids::DocumentId;
use crate::segment::{Damage, Head, Segment};

/// Passages read between one look at whether anybody still waits for the answer and the next.
const PASSAGES_AT_ONCE: usize = 256;

/// A segment that is asked which of its rows pass.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) segment: &'a Segment,
    pub(crate) executor: &'a dyn Executor,
}

impl Filter {
    /// The rows of `among` that pass, and about how many that is, as far as can be told from how many
    /// rows have which values: as if no two conditions had to do with each other.
    ///
    /// O(rows / 64 * conditions + rows found), besides what tests of parts of texts cost: each
    /// different text of the field, or where the passages' own texts are asked for, those of the rows
    /// that pass everything else, each read once. Makes the segment's columns if it has none yet.
    pub(crate) fn select(&self, asked: Asked<'_>, among: RowSet) -> Result<(RowSet, f64), Damage> {
        let live = f64::from(among.count());
        let Some(parsed) = &self.0 else { return Ok((among, live)) };
        let selecting = Selecting { asked, columns: asked.segment.columns()? };
        let estimate = selecting.estimate(&parsed.root) * live;
        let mut rows = selecting.select(&parsed.root, &among)?;
        rows.intersect(&among);
        Ok((rows, estimate))
    }
}

#[derive(Clone, Copy)]
struct Selecting<'a> {
    asked: Asked<'a>,
    columns: &'a Columns,
}

impl Selecting<'_> {
    /// The rows that pass; those outside of `among` may or may not be in the answer.
    fn select(self, node: &Node, among: &RowSet) -> Result<RowSet, Damage> {
        match node {
            Node::All(nodes) => {
                let (reading, mut nodes): (Vec<&Node>, Vec<&Node>) =
                    nodes.iter().partition(|node| self.reads(node));
                // What rules out most goes first, so that the rest has less to do.
                nodes.sort_by(|a, b| self.estimate(a).total_cmp(&self.estimate(b)));
                let mut rows = among.clone();
                for node in nodes {
                    if rows.is_empty() {
                        break;
                    }
                    let next = self.select(node, &rows)?;
                    rows.intersect(&next);
                }
                if reading.is_empty() {
                    return Ok(rows);
                }
                self.read(&rows, |passage| reading.iter().all(|node| passes(node, passage)))
            }
            Node::Any(nodes) => {
                let (reading, nodes): (Vec<&Node>, Vec<&Node>) =
                    nodes.iter().partition(|node| self.reads(node));
                let mut rows = RowSet::empty(among.rows());
                for node in nodes {
                    rows.unite(&self.select(node, among)?);
                }
                if reading.is_empty() {
                    return Ok(rows);
                }
                let mut left = rows.clone();
                left.invert();
                left.intersect(among);
                let found =
                    self.read(&left, |passage| reading.iter().any(|node| passes(node, passage)))?;
                rows.unite(&found);
                Ok(rows)
            }
            node if self.reads(node) => self.read(among, |passage| passes(node, passage)),
            Node::Not(node) => {
                let mut rows = self.select(node, among)?;
                rows.invert();
                Ok(rows)
            }
            Node::Field(name, test) => self.field(name, test, among),
        }
    }

    fn field(self, name: &str, test: &Test, among: &RowSet) -> Result<RowSet, Damage> {
        let mut rows = RowSet::empty(among.rows());
        for field in named(name) {
            match (field, test) {
                (FieldName::Own(name), Test::Exists) if READ_FIELDS.contains(&name) => {
                    rows.unite(among);
                }
                (FieldName::Own(name), Test::OneOf(these)) if READ_FIELDS.contains(&name) => {
                    self.of_documents(these, &mut rows)?;
                }
                (FieldName::Own(_) | FieldName::Custom(_), _) => {
                    if let Some(field) = self.columns.field(&column_name(field)) {
                        in_field(field, test, |column, places| column.select(places, &mut rows));
                    }
                }
            }
        }
        // Null is also what is missing.
        if matches!(test, Test::OneOf(these) if these.contains(&Operand::Null)) {
            let mut missing = self.field(name, &Test::Exists, among)?;
            missing.invert();
            rows.unite(&missing);
        }
        Ok(rows)
    }

    /// The passages of `among` that pass, each read once.
    fn read(
        self,
        among: &RowSet,
        passes: impl Fn(&ReadPassage<'_>) -> bool,
    ) -> Result<RowSet, Damage> {
        let Asked { segment, executor } = self.asked;
        let mut rows = RowSet::empty(among.rows());
        let mut body: Option<(Head, BodyReader<'_>)> = None;
        for (count, row) in (0..).zip(among.iter()) {
            if count % PASSAGES_AT_ONCE == 0 && executor.stopped() {
                // Nobody reads what is found.
                break;
            }
            let here = body.take().filter(|(head, _body)| head.row_range().contains(&row));
            let (head, reader) = if let Some(here) = here {
                here
            } else {
                let (ordinal, head) = segment.at_row(row)?;
                let reader = BodyReader::new(segment.body(ordinal)?);
                (head, reader.map_err(|error| segment.undecodable(&error))?)
            };
            let index = row - head.first_row;
            let chunk = reader.chunk(index as usize);
            let chunk = chunk.map_err(|error| segment.undecodable(&error))?;
            let document = reader.metadata();
            let passage = Passage { document_id: head.id, document, chunk: &chunk, index };
            if passes(&ReadPassage::of(&passage)) {
                rows.insert(row..row + 1);
            }
            body = Some((head, reader));
        }
        Ok(rows)
    }

    /// Adds the rows of documents of these ids.
    fn of_documents(self, these: &[Operand], rows: &mut RowSet) -> Result<(), Damage> {
        let segment = self.asked.segment;
        for operand in these {
            let Operand::Text(text, _) = operand else { continue };
            let Ok(id) = text.parse::<DocumentId>() else { continue };
            for ordinal in segment.versions(id)? {
                rows.insert(segment.head(ordinal)?.row_range());
            }
        }
        Ok(())
    }

    /// About which part of the segment's rows pass, from 0 to 1. O(conditions).
    fn estimate(self, node: &Node) -> f64 {
        match node {
            Node::All(nodes) => nodes.iter().map(|node| self.estimate(node)).product(),
            Node::Any(nodes) => {
                1.0 - nodes.iter().map(|node| 1.0 - self.estimate(node)).product::<f64>()
            }
            Node::Not(node) => 1.0 - self.estimate(node),
            Node::Field(name, test) => {
                if self.reads(node) {
                    return 1.0;
                }
                let mut part = 0.0;
                for field in named(name) {
                    part += match (field, test) {
                        (FieldName::Own(name), Test::OneOf(these))
                            if READ_FIELDS.contains(&name) =>
                        {
                            these.len() as f64 / f64::from(self.asked.segment.documents().max(1))
                        }
                        (FieldName::Own(name), _) if READ_FIELDS.contains(&name) => 1.0,
                        (FieldName::Own(_) | FieldName::Custom(_), _) => {
                            let mut rows = 0;
                            if let Some(field) = self.columns.field(&column_name(field)) {
                                for_estimate(field, test, &mut rows);
                            }
                            rows as f64 / f64::from(self.asked.segment.rows().max(1))
                        }
                    };
                }
                part.min(1.0)
            }
        }
    }

    /// Whether passages have to be read for it.
    fn reads(self, node: &Node) -> bool {
        match node {
            Node::All(nodes) | Node::Any(nodes) => nodes.iter().any(|node| self.reads(node)),
            Node::Not(node) => self.reads(node),
            Node::Field(name, test) => {
                let read = READ_FIELDS.contains(&&**name)
                    && match test {
                        Test::Exists => false,
                        // A document's id says where it is.
                        Test::OneOf(_) => ["text", "chunk_id"].contains(&&**name),
                        Test::Compare(..)
                        | Test::Contains(_)
                        | Test::Prefix(_)
                        | Test::Words(_) => true,
                    };
                read || is_left_out(self.columns, name)
            }
        }
    }
}

/// Adds at most how many rows pass a test. What can only be told from every text counts as if all
/// texts did.
fn for_estimate(field: &Field, test: &Test, rows: &mut u64) {
    match test {
        Test::Words(_) | Test::Contains(_) => {
            for column in field.columns() {
                *rows += column.rows_at_most(texts(column));
            }
        }
        Test::Exists | Test::OneOf(_) | Test::Compare(..) | Test::Prefix(_) => {
            in_field(field, test, |column, places| *rows += column.rows_at_most(places));
        }
    }
}

/// Calls `found` with the places of the values that pass a test.
fn in_field(field: &Field, test: &Test, mut found: impl FnMut(&Column, Range<usize>)) {
    for (column, listed) in field.columns().into_iter().zip([false, true]) {
        match test {
            Test::Exists => found(column, column.between(Bound::Unbounded, Bound::Unbounded)),
            Test::OneOf(these) => {
                for operand in these {
                    found(column, equal(column, operand));
                }
            }
            Test::Contains(member) if listed => found(column, equal(column, member)),
            Test::Contains(Operand::Text(part, _)) => {
                each_text(column, |text| text.contains(&**part), &mut found);
            }
            Test::Contains(_) => {}
            Test::Compare(side, operand) => found(column, on_side(column, *side, operand)),
            Test::Prefix(prefix) => {
                let all = column
                    .between(Bound::Included(&FieldValue::Text(prefix.clone())), Bound::Unbounded);
                let has = |value: &FieldValue| matches!(value, FieldValue::Text(text) if text.starts_with(&**prefix));
                let count = column.values(all.clone()).partition_point(has);
                found(column, all.start..all.start + count);
            }
            Test::Words(these) => each_text(column, |text| has_words(text, these), &mut found),
        }
    }
}

fn equal(column: &Column, operand: &Operand) -> Range<usize> {
    let key = operand.key();
    column.between(Bound::Included(&key), Bound::Included(&key))
}

/// The places of texts.
fn texts(column: &Column) -> Range<usize> {
    column.between(Bound::Included(&FieldValue::Text("".into())), Bound::Unbounded)
}

fn each_text(
    column: &Column,
    passes: impl Fn(&str) -> bool,
    found: &mut impl FnMut(&Column, Range<usize>),
) {
    let places = texts(column);
    for (place, value) in places.clone().zip(column.values(places)) {
        if matches!(value, FieldValue::Text(text) if passes(text)) {
            found(column, place..place + 1);
        }
    }
}

/// The places of values of the operand's kind on a side of it.
fn on_side(column: &Column, side: Side, operand: &Operand) -> Range<usize> {
    let key = operand.key();
    let (least, beyond) = match &key {
        FieldValue::Null | FieldValue::Composite => return 0..0,
        FieldValue::Bool(_) => (FieldValue::Bool(false), FieldValue::Bool(true)),
        FieldValue::Number(_) => (FieldValue::Bool(true), FieldValue::Time(i64::MIN)),
        FieldValue::Time(_) => (FieldValue::Time(i64::MIN), FieldValue::Time(i64::MAX)),
        FieldValue::Text(_) => {
            let least = FieldValue::Text("".into());
            return match side {
                Side::Less => column.between(Bound::Included(&least), Bound::Excluded(&key)),
                Side::LessOrEqual => column.between(Bound::Included(&least), Bound::Included(&key)),
                Side::Greater => column.between(Bound::Excluded(&key), Bound::Unbounded),
                Side::GreaterOrEqual => column.between(Bound::Included(&key), Bound::Unbounded),
            };
        }
    };
    // Numbers have no least and no greatest of their own: they lie between two other kinds.
    let own = !matches!(key, FieldValue::Number(_));
    let least = if own { Bound::Included(&least) } else { Bound::Excluded(&least) };
    let greatest = if own { Bound::Included(&beyond) } else { Bound::Excluded(&beyond) };
    match side {
        Side::Less => column.between(least, Bound::Excluded(&key)),
        Side::LessOrEqual => column.between(least, Bound::Included(&key)),
        Side::Greater => column.between(Bound::Excluded(&key), greatest),
        Side::GreaterOrEqual => column.between(Bound::Included(&key), greatest),
    }
}
