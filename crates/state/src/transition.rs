//! Decide and apply: the only two ways in which a library's meaning is made.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use crate::batch::BatchNote;
use crate::body;
use crate::entry::{DeletedDocument, LibraryEntry, Replaced, by_field};
use crate::field::FieldSpec;
use crate::ids::{ChunkId, DocumentId, QueryId, Seq, Timestamp};
use crate::limits::{SEGMENT_ROWS_MAX, VECTOR_FIELDS_MAX};
use crate::matched::QueriesMatched;
use crate::record::{DocumentRecord, FieldRecord};
use crate::segment::{Damage, MemorySegment, Segment, count};
use crate::view::{Field, Place, SegmentView, View};
use crate::work::JobUnit;

/// A wish: everything about it has been made (ids, times, vectors) but nothing decided.
#[derive(Debug, Clone)]
pub enum Command {
    /// Add documents, or replace those whose ids exist; for a unit of a job, or for a caller.
    Put(Vec<DocumentRecord>, Option<JobUnit>),
    /// Delete documents; for a unit of a job, or for a caller.
    Delete(Vec<DocumentId>, Option<JobUnit>),
    /// Delete documents whose versions are still the ones that these records added. Fates are those
    /// of the documents that are deleted; of the others there is none. For a unit of a job, or for a
    /// caller.
    DeleteVersions(Vec<(DocumentId, Seq)>, Option<JobUnit>),
    /// Replace a document, if its version is still the one that this record added; its fate is
    /// [`Fate::Absent`] if it is not.
    Replace(DocumentRecord, Seq),
    /// Of a companion: note what passages were matched by its queries, up to a position. Nothing
    /// is noted that was noted before, and nothing of a query that is not there any more.
    Match(QueriesMatched),
    /// Declare a vector field, or have one searched by something else.
    PutField(FieldSpec),
    /// Note that a batch begins or ends.
    Note(BatchNote),
}

/// What was decided.
#[derive(Debug)]
pub struct Decision {
    /// What to log; `None` if nothing changes.
    pub entry: Option<LibraryEntry>,
    /// What becomes of each document of the command.
    pub fates: Vec<Fate>,
}

/// What becomes of one document of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// There was none of its id: it is added, or there is nothing to delete.
    Absent,
    /// There was one of its id, which is replaced, or deleted.
    Existed {
        /// Chunks of the one that was there.
        chunks: u32,
    },
    /// It is not added: the library holds as many documents as it may.
    NoRoom,
}

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Vectors of another dimension; the library's changed under the request, or the caller erred.
    #[error("Vector dimension mismatch: expected {expected}, got {got}")]
    Dimension {
        /// The library's.
        expected: u32,
        /// The command's.
        got: usize,
    },
    /// A vector field holds something else than what is put there.
    #[error("{}", other_field(.has, .put))]
    Field {
        /// What the library has.
        has: Box<FieldSpec>,
        /// What the command has.
        put: Box<FieldSpec>,
    },
    /// The library has as many vector fields as it may.
    #[error("the library has {VECTOR_FIELDS_MAX} vector fields, which is the limit")]
    Fields,
    /// The library holds as many rows as it may.
    #[error("the library is full: it holds {SEGMENT_ROWS_MAX} rows")]
    Full,
    /// What has to be read to decide is damaged.
    #[error(transparent)]
    Damaged(#[from] Damage),
}

impl View {
    /// Turns a command into an entry, or refuses it. Changes nothing. A document that would make
    /// more than `documents_max` of them is left out; replacing one is always possible.
    pub fn decide(
        &self,
        command: Command,
        at: Timestamp,
        documents_max: Option<u64>,
    ) -> Result<Decision, Rejection> {
        match command {
            Command::Put(documents, unit) => self.decide_put((documents, unit), at, documents_max),
            Command::Delete(ids, unit) => self.decide_delete((&ids, unit), at),
            Command::DeleteVersions(versions, unit) => {
                let mut ids = Vec::with_capacity(versions.len());
                for (id, version) in versions {
                    if self.born(id)? == Some(version) {
                        ids.push(id);
                    }
                }
                self.decide_delete((&ids, unit), at)
            }
            Command::Replace(document, version) => {
                if self.born(document.id())? != Some(version) {
                    return Ok(Decision { entry: None, fates: vec![Fate::Absent] });
                }
                self.decide_put((vec![document], None), at, documents_max)
            }
            Command::Match(matched) => self.decide_match(matched, at),
            Command::PutField(field) => self.decide_field(field, at),
            Command::Note(note) => {
                let entry = Some(LibraryEntry::Batch { at, note });
                Ok(Decision { entry, fates: Vec::new() })
            }
        }
    }

    fn decide_put(
        &self,
        (documents, unit): (Vec<DocumentRecord>, Option<JobUnit>),
        at: Timestamp,
        documents_max: Option<u64>,
    ) -> Result<Decision, Rejection> {
        let mut rows = self.rows();
        for document in &documents {
            let got = document.vectors.len() / document.chunks();
            if got != self.dimension as usize {
                return Err(Rejection::Dimension { expected: self.dimension, got });
            }
            rows += document.rows() as u64;
        }
        self.check_fields(&documents)?;
        if rows > u64::from(SEGMENT_ROWS_MAX) {
            return Err(Rejection::Full);
        }
        let mut room = documents_max.map_or(u64::MAX, |max| max.saturating_sub(self.documents));
        let mut fates = Vec::with_capacity(documents.len());
        let mut kept: Vec<DocumentRecord> = Vec::with_capacity(documents.len());
        let mut replaced = Vec::new();
        for document in documents {
            // Of two documents with one id, the later replaces the earlier: only it is logged.
            let earlier = kept.iter_mut().find(|earlier| earlier.id() == document.id());
            if let Some(earlier) = earlier {
                fates.push(Fate::Existed { chunks: count(earlier.chunks()) });
                *earlier = document;
                continue;
            }
            let place = self.locate(document.id())?;
            let fate = fate_of(place);
            match (fate, room) {
                (Fate::Absent, 0) => {
                    fates.push(Fate::NoRoom);
                    continue;
                }
                (Fate::Absent, _) => room -= 1,
                (Fate::Existed { .. } | Fate::NoRoom, _) => {}
            }
            fates.push(fate);
            if let Some(place) = place {
                let (_title, chunks) = self.outline(place);
                replaced.push(Replaced { document: count(kept.len()), chunks });
            }
            kept.push(document);
        }
        let put = !kept.is_empty();
        let entry =
            put.then_some(LibraryEntry::DocumentsPut { at, unit, documents: kept, replaced });
        Ok(Decision { entry, fates })
    }

    /// Refuses vectors that are not what their fields hold, in the library or in the same command.
    fn check_fields(&self, documents: &[DocumentRecord]) -> Result<(), Rejection> {
        let mut declared: BTreeMap<&str, &Arc<FieldSpec>> = BTreeMap::new();
        for FieldRecord { spec, .. } in documents.iter().flat_map(|document| &*document.fields) {
            let there = self.fields.get(&spec.name).map(Field::spec);
            let has = there.unwrap_or_else(|| declared.entry(&spec.name).or_insert(spec));
            check_same(has, spec)?;
        }
        if self.fields.len() + declared.len() > VECTOR_FIELDS_MAX {
            return Err(Rejection::Fields);
        }
        Ok(())
    }

    fn decide_field(&self, field: FieldSpec, at: Timestamp) -> Result<Decision, Rejection> {
        let unchanged = Decision { entry: None, fates: Vec::new() };
        match self.fields.get(&field.name).map(Field::spec) {
            Some(has) => check_same(has, &field)?,
            None if self.fields.len() >= VECTOR_FIELDS_MAX => return Err(Rejection::Fields),
            None => {}
        }
        if self.fields.get(&field.name).is_some_and(|has| *has.spec == field) {
            return Ok(unchanged);
        }
        let entry = Some(LibraryEntry::FieldChanged { at, field });
        Ok(Decision { entry, ..unchanged })
    }

    /// A document's title and chunks as its followers are told them; nothing where its file is
    /// damaged, which keeps nobody from removing or replacing it.
    fn outline(&self, place: Place) -> (Option<String>, Vec<ChunkId>) {
        let body = self.segments[place.segment].segment.body(place.ordinal);
        match body.map(body::outline) {
            Ok(Ok((title, chunks))) => (Some(title), chunks),
            Ok(Err(_)) | Err(_) => (None, Vec::new()),
        }
    }

    fn decide_delete(
        &self,
        (ids, unit): (&[DocumentId], Option<JobUnit>),
        at: Timestamp,
    ) -> Result<Decision, Rejection> {
        let mut fates = Vec::with_capacity(ids.len());
        let mut kept: Vec<DeletedDocument> = Vec::new();
        for id in ids {
            let twice = kept.iter().any(|kept| kept.id == *id);
            let place = if twice { None } else { self.locate(*id)? };
            fates.push(fate_of(place));
            if let Some(place) = place {
                let (title, chunks) = self.outline(place);
                kept.push(DeletedDocument { id: *id, title, chunks });
            }
        }
        let deleted = !kept.is_empty();
        let entry = deleted.then_some(LibraryEntry::DocumentsDeleted { at, unit, documents: kept });
        Ok(Decision { entry, fates })
    }

    fn decide_match(
        &self,
        mut matched: QueriesMatched,
        at: Timestamp,
    ) -> Result<Decision, Rejection> {
        if matched.through <= self.matched {
            return Ok(Decision { entry: None, fates: Vec::new() });
        }
        let mut lives: BTreeMap<QueryId, bool> = BTreeMap::new();
        for query in matched.passages.iter().flat_map(|passage| &passage.queries) {
            if let Entry::Vacant(place) = lives.entry(query.id) {
                place.insert(self.contains(query.id.document())?);
            }
        }
        for passage in &mut matched.passages {
            passage.queries.retain(|query| lives.get(&query.id) == Some(&true));
        }
        matched.passages.retain(|passage| !passage.queries.is_empty());
        matched.at = at;
        let entry = Some(LibraryEntry::QueriesMatched(matched));
        Ok(Decision { entry, fates: Vec::new() })
    }

    /// The library after `entry`, which the log holds at `seq`. Total and deterministic (S1): the
    /// only failure is a file that is damaged where it has to be read.
    pub fn apply(&self, seq: Seq, entry: &LibraryEntry) -> Result<Self, Damage> {
        assert!(seq > self.applied, "records are applied in order");
        let mut next = self.clone();
        next.applied = seq;
        match entry {
            LibraryEntry::DocumentsPut { at: _, unit: _, documents, replaced: _ } => {
                for document in documents {
                    next.kill(document.id(), seq)?;
                    next.documents += 1;
                    next.chunks += document.chunks() as u64;
                    next.digest = next.digest.wrapping_add(document.digest);
                }
                if !documents.is_empty() {
                    next.push_records(seq, documents.iter());
                }
                for (name, (spec, records)) in by_field(documents) {
                    let declare = || Field::empty(spec.clone());
                    let field = next.fields.entry(name.to_owned()).or_insert_with(declare);
                    // Never decided.
                    if field.spec.dimension != spec.dimension {
                        continue;
                    }
                    let view = Arc::make_mut(&mut field.view);
                    let records = records.iter().map(|(_place, record)| *record);
                    view.applied = seq;
                    for record in records.clone() {
                        view.documents += 1;
                        view.chunks += record.chunks() as u64;
                        view.digest = view.digest.wrapping_add(record.digest);
                    }
                    view.push_records(seq, records);
                }
            }
            LibraryEntry::FieldChanged { at: _, field: spec } => {
                let spec = Arc::new(spec.clone());
                let declare = || Field::empty(spec.clone());
                let field = next.fields.entry(spec.name.clone()).or_insert_with(declare);
                field.spec.clone_from(&spec);
            }
            LibraryEntry::DocumentsDeleted { at: _, unit: _, documents } => {
                for document in documents {
                    next.kill(document.id, seq)?;
                }
            }
            LibraryEntry::QueriesMatched(matched) => {
                next.matched = next.matched.max(matched.through);
            }
            LibraryEntry::Batch { at: _, note: _ } => {}
        }
        Ok(next)
    }

    /// The segment of these, which are at least one.
    fn push_records<'a>(
        &mut self,
        seq: Seq,
        records: impl ExactSizeIterator<Item = &'a DocumentRecord> + Clone,
    ) {
        let segment = MemorySegment::of_records(self.dimension, seq, records);
        self.segments.push(SegmentView::new(Segment::Memory(segment)));
    }

    /// Marks a document dead, if it lives, with what it has in vector fields.
    fn kill(&mut self, id: DocumentId, seq: Seq) -> Result<(), Damage> {
        for field in self.fields.values_mut() {
            if field.view.contains(id)? {
                let view = Arc::make_mut(&mut field.view);
                view.applied = seq;
                view.kill(id, seq)?;
            }
        }
        if let Some(place) = self.locate(id)? {
            let segment = &mut self.segments[place.segment];
            segment.tombstones.mark(place.head.row_range(), seq);
            segment.dead_documents += 1;
            self.documents -= 1;
            self.chunks -= u64::from(place.head.rows);
            self.digest = self.digest.wrapping_sub(place.head.digest);
        }
        Ok(())
    }
}

fn fate_of(place: Option<Place>) -> Fate {
    place.map_or(Fate::Absent, |place| Fate::Existed { chunks: place.head.rows })
}

/// Refuses a field that is not what there is of its name; another index is no other field.
fn check_same(has: &FieldSpec, put: &FieldSpec) -> Result<(), Rejection> {
    if has.holds_the_same(put) {
        return Ok(());
    }
    Err(Rejection::Field { has: Box::new(has.clone()), put: Box::new(put.clone()) })
}

/// How two fields of one name differ, in words.
fn other_field(has: &FieldSpec, put: &FieldSpec) -> String {
    let words = |field: &FieldSpec| {
        let model = field.model.as_ref().map_or("none", |model| &model.model).to_owned();
        let FieldSpec { kind, dimension, metric, .. } = field;
        format!("{kind} vectors of {dimension} dimensions by {}, model {model}", metric.name())
    };
    format!("the vector field `{}` holds {}, not {}", has.name, words(has), words(put))
}
