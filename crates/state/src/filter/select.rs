//! The rows of a segment that pass, from its columns.

use std::ops::{Bound, Range};

use arrwdb_index::{Column, Columns, ColumnsBuilder, Field, FieldValue, RowSet};

use super::passage::{
    CREATED_AT, FieldName, READ_FIELDS, Scalar, named, own_of_chunk, own_of_document, scalars,
};
use super::passes::{has_words, holds};
use super::value::{Operand, time};
use super::{Filter, Node, Side, Test};
use crate::body::BodyReader;
use crate::document::{Chunk, Custom};
use crate::ids::DocumentId;
use crate::limits::FILTER_KEY_CHARS_MAX;
use crate::segment::{Damage, Segment};

/// The fields of all passages of a segment but those that are read from the passages themselves.
/// O(bytes).
pub(crate) fn columns_of(segment: &Segment) -> Result<Columns, Damage> {
    let mut builder = Builder::default();
    for ordinal in 0..segment.documents() {
        let head = segment.head(ordinal)?;
        let body = BodyReader::new(segment.body(ordinal)?);
        let document = body.and_then(|body| body.document(head.id));
        let document = document.map_err(|error| segment.undecodable(&error))?;
        let mut own = |name: &'static str, scalar: Scalar<'_>, listed| {
            builder.own(name, (scalar, listed), head.row_range());
            false
        };
        own_of_document(&document.metadata, &mut own);
        builder.custom(&document.metadata.custom, head.row_range());
        for (index, chunk) in (0..head.rows).zip(&document.chunks) {
            let row = head.first_row + index;
            let mut own = |name: &'static str, scalar: Scalar<'_>, listed| {
                builder.own(name, (scalar, listed), row..row + 1);
                false
            };
            own_of_chunk(chunk, index, &mut own);
            builder.custom(&chunk.custom, row..row + 1);
        }
    }
    Ok(builder.columns.finish(segment.rows()))
}

/// Where a field's column is: custom metadata may have any name.
fn column_name(field: FieldName<'_>) -> String {
    match field {
        FieldName::Own(name) => format!("own {name}"),
        FieldName::Custom(path) => format!("custom {path}"),
    }
}

/// The columns of a field, by all that its name means; whether times in it are times by themselves, as
/// elsewhere they are texts too.
pub(crate) fn columns_named<'a>(columns: &'a Columns, name: &str) -> Vec<(&'a Column, bool)> {
    let fields = named(name).filter_map(|field| {
        let own_times = field == FieldName::Own(CREATED_AT);
        Some((columns.field(&column_name(field))?, own_times))
    });
    fields
        .flat_map(|(field, own_times)| field.columns().map(|column| (column, own_times)))
        .collect()
}

/// Refuses the name of a field that has no column: what is wrong with it.
pub(crate) fn check_column_name(name: &str) -> Result<(), String> {
    let chars = name.chars().count();
    if !(1..=FILTER_KEY_CHARS_MAX).contains(&chars) {
        return Err(format!("must have 1 to {FILTER_KEY_CHARS_MAX} characters; it has {chars}"));
    }
    if READ_FIELDS.contains(&name) {
        return Err(format!(
            "{name} is another for every passage or document; custom metadata of this name is \
             custom.{name}"
        ));
    }
    Ok(())
}

#[derive(Default)]
struct Builder {
    columns: ColumnsBuilder,
    /// The name of the column that is added to.
    name: String,
}

impl Builder {
    fn own(&mut self, name: &'static str, scalar: (Scalar<'_>, bool), rows: Range<u32>) {
        self.name.clear();
        self.name.push_str(&column_name(FieldName::Own(name)));
        self.add(scalar, rows);
    }

    fn custom(&mut self, custom: &Custom, rows: Range<u32>) {
        self.name.clear();
        self.name.push_str(&column_name(FieldName::Custom("")));
        self.object(custom, false, &rows);
    }

    /// Adds an object's members under their paths, which begin as the name does now.
    fn object(&mut self, object: &Custom, listed: bool, rows: &Range<u32>) {
        let before = self.name.len();
        for (key, value) in object {
            self.name.push_str(key);
            self.value(value, listed, rows);
            self.name.truncate(before);
        }
    }

    fn value(&mut self, value: &serde_json::Value, listed: bool, rows: &Range<u32>) {
        scalars(value, listed, &mut |scalar, listed| {
            self.add((scalar, listed), rows.clone());
            false
        });
        self.beneath(value, listed, rows);
    }

    /// Adds what is in objects, those in lists included.
    fn beneath(&mut self, value: &serde_json::Value, listed: bool, rows: &Range<u32>) {
        match value {
            serde_json::Value::Object(object) => {
                self.name.push('.');
                self.object(object, listed, rows);
                self.name.pop();
            }
            serde_json::Value::Array(members) => {
                for member in members {
                    self.beneath(member, true, rows);
                }
            }
            serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Number(_)
            | serde_json::Value::String(_) => {}
        }
    }

    fn add(&mut self, (scalar, listed): (Scalar<'_>, bool), rows: Range<u32>) {
        let Self { columns, name } = self;
        let value = match scalar {
            Scalar::Null => FieldValue::Null,
            Scalar::Composite => FieldValue::Composite,
            Scalar::Bool(value) => FieldValue::Bool(value),
            Scalar::Number(value) => FieldValue::Number(value),
            Scalar::Time(time) => FieldValue::Time(time),
            Scalar::Text(text) => {
                columns.add_text(name, text, listed, rows.clone());
                let Some(time) = time(text) else { return };
                FieldValue::Time(time)
            }
        };
        columns.add(name, value, listed, rows);
    }
}

/// A segment that is asked which of its rows pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) segment: &'a Segment,
    pub(crate) columns: &'a Columns,
}

impl Filter {
    /// The rows of `among` that pass. O(rows / 64 * conditions + rows found), besides what tests of
    /// parts of texts cost: each different text of the field, or where the passages' own texts are
    /// asked for, those of the rows that pass everything else.
    pub(crate) fn select(&self, asked: Asked<'_>, among: RowSet) -> Result<RowSet, Damage> {
        let Some(parsed) = &self.0 else { return Ok(among) };
        let mut rows = asked.select(&parsed.root, &among)?;
        rows.intersect(&among);
        Ok(rows)
    }

    /// About which part of the segment's rows pass, from 0 to 1, as far as can be told from how many
    /// rows have which values: as if no two conditions had to do with each other. O(conditions).
    pub(crate) fn estimate(&self, asked: Asked<'_>) -> f64 {
        self.0.as_ref().map_or(1.0, |parsed| asked.estimate(&parsed.root))
    }
}

impl Asked<'_> {
    /// The rows that pass; those outside of `among` may or may not be in the answer.
    fn select(self, node: &Node, among: &RowSet) -> Result<RowSet, Damage> {
        match node {
            Node::All(nodes) => {
                // What rules out most and costs least goes first, so that the rest has less to do.
                let mut order: Vec<&Node> = nodes.iter().collect();
                let cost = |node: &Node| (reads(node), self.estimate(node));
                order.sort_by(|a, b| {
                    let ((a_reads, a), (b_reads, b)) = (cost(a), cost(b));
                    a_reads.cmp(&b_reads).then(a.total_cmp(&b))
                });
                let mut rows = among.clone();
                for node in order {
                    if rows.is_empty() {
                        break;
                    }
                    let next = self.select(node, &rows)?;
                    rows.intersect(&next);
                }
                Ok(rows)
            }
            Node::Any(nodes) => {
                let mut rows = RowSet::empty(among.rows());
                for node in nodes {
                    rows.unite(&self.select(node, among)?);
                }
                Ok(rows)
            }
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
            match field {
                FieldName::Own(name) if READ_FIELDS.contains(&name) => {
                    self.read(name, test, among, &mut rows)?;
                }
                FieldName::Own(_) | FieldName::Custom(_) => {
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

    /// Reads a field of passages that is in no column.
    fn read(
        self,
        name: &str,
        test: &Test,
        among: &RowSet,
        rows: &mut RowSet,
    ) -> Result<(), Damage> {
        if *test == Test::Exists {
            rows.unite(among);
            return Ok(());
        }
        if !["text", "chunk_id"].contains(&name)
            && let Test::OneOf(these) = test
        {
            return self.of_documents(these, rows);
        }
        let segment = self.segment;
        let mut body: Option<(crate::segment::Head, BodyReader<'_>)> = None;
        for row in among.iter() {
            let here = body.take().filter(|(head, _body)| head.row_range().contains(&row));
            let (head, reader) = if let Some(here) = here {
                here
            } else {
                let (ordinal, head) = segment.at_row(row)?;
                let reader = BodyReader::new(segment.body(ordinal)?);
                (head, reader.map_err(|error| segment.undecodable(&error))?)
            };
            let chunk = reader.chunk((row - head.first_row) as usize);
            let chunk = chunk.map_err(|error| segment.undecodable(&error))?;
            if read_holds(name, test, head.id, &chunk) {
                rows.insert(row..row + 1);
            }
            body = Some((head, reader));
        }
        Ok(())
    }

    /// Adds the rows of documents of these ids.
    fn of_documents(self, these: &[Operand], rows: &mut RowSet) -> Result<(), Damage> {
        for operand in these {
            let Operand::Text(text, _) = operand else { continue };
            let Ok(id) = text.parse::<DocumentId>() else { continue };
            for ordinal in self.segment.versions(id)? {
                rows.insert(self.segment.head(ordinal)?.row_range());
            }
        }
        Ok(())
    }

    fn estimate(self, node: &Node) -> f64 {
        match node {
            Node::All(nodes) => nodes.iter().map(|node| self.estimate(node)).product(),
            Node::Any(nodes) => {
                1.0 - nodes.iter().map(|node| 1.0 - self.estimate(node)).product::<f64>()
            }
            Node::Not(node) => 1.0 - self.estimate(node),
            Node::Field(name, test) => {
                if reads(node) {
                    return 1.0;
                }
                let mut rows = 0;
                for field in named(name) {
                    if let Some(field) = self.columns.field(&column_name(field)) {
                        for_estimate(field, test, &mut rows);
                    }
                }
                #[expect(clippy::cast_precision_loss, reason = "an estimate")]
                let part = rows as f64 / f64::from(self.columns.rows().max(1));
                part.min(1.0)
            }
        }
    }
}

/// Whether passages have to be read for it.
fn reads(node: &Node) -> bool {
    match node {
        Node::All(nodes) | Node::Any(nodes) => nodes.iter().any(reads),
        Node::Not(node) => reads(node),
        Node::Field(name, _test) => READ_FIELDS.contains(&&**name),
    }
}

fn read_holds(name: &str, test: &Test, document: DocumentId, chunk: &Chunk) -> bool {
    match name {
        "text" => holds(test, Scalar::Text(&chunk.text), false),
        "chunk_id" => holds(test, Scalar::Text(&chunk.id.to_string()), false),
        _document => holds(test, Scalar::Text(&document.to_string()), false),
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
