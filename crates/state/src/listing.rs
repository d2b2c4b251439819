//! Documents in the order in which they were added, a page at a time.

use crate::document::Document;
use crate::ids::{DocumentId, Seq};
use crate::segment::Damage;
use crate::selection::Selection;
use crate::view::{Place, View};

/// A place in a library's documents that stays valid while the library changes: after the
/// document `id`, which was added at `born`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The record that added the last document seen.
    pub born: Seq,
    /// The last document seen.
    pub id: DocumentId,
}

/// A page of documents.
#[derive(Debug, Clone)]
pub struct Page {
    /// The documents, at most as many as were asked for.
    pub documents: Vec<Document>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Cursor>,
}

/// A place in the view: the document `ordinal` of a segment.
#[derive(Debug, Clone, Copy)]
struct At {
    segment: usize,
    ordinal: u32,
}

/// Ids of documents in the order of their listing.
#[derive(Debug)]
pub struct IdPage {
    /// Each with the number of its chunks.
    pub documents: Vec<(DocumentId, u32)>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

impl View {
    /// At most `limit` documents after `cursor` (from the first, without one).
    /// O(segments + log documents + limit).
    pub fn documents_after(
        &self,
        cursor: Option<Cursor>,
        limit: usize,
        vectors: bool,
    ) -> Result<Page, Damage> {
        self.page(self.from(cursor)?, (limit, vectors), None)
    }

    /// As [`View::documents_after`], of those that have a row in this view's selection; skips
    /// what has none. O(documents skipped) besides.
    pub fn documents_among(
        &self,
        selection: &Selection,
        cursor: Option<Cursor>,
        (limit, vectors): (usize, bool),
    ) -> Result<Page, Damage> {
        self.page(self.from(cursor)?, (limit, vectors), Some(selection))
    }

    /// At most `limit` documents from the `offset`-th live one on. O(segments + documents of one
    /// segment + limit).
    pub fn documents_at(&self, offset: u64, limit: usize, vectors: bool) -> Result<Page, Damage> {
        self.page(self.at(offset)?, (limit, vectors), None)
    }

    /// Where the page after the one that [`View::documents_at`] gives begins; `None` at the end. Reads
    /// no document.
    pub fn next_at(&self, offset: u64, limit: usize) -> Result<Option<Cursor>, Damage> {
        self.visit(self.at(offset)?, (limit, None), &mut |_place| Ok(()))
    }

    /// Where the page after the one that [`View::documents_after`] gives begins; `None` at the end.
    /// Reads no document.
    pub fn next_after(
        &self,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<Option<Cursor>, Damage> {
        self.visit(self.from(cursor)?, (limit, None), &mut |_place| Ok(()))
    }

    /// The place of the `offset`-th live document.
    fn at(&self, offset: u64) -> Result<At, Damage> {
        let mut skip = offset;
        for (segment, view) in self.segments.iter().enumerate() {
            if skip >= u64::from(view.live_documents()) {
                skip -= u64::from(view.live_documents());
                continue;
            }
            for ordinal in 0..view.segment.documents() {
                if view.lives(&view.segment.head(ordinal)?) {
                    if skip == 0 {
                        return Ok(At { segment, ordinal });
                    }
                    skip -= 1;
                }
            }
        }
        Ok(At { segment: self.segments.len(), ordinal: 0 })
    }

    /// The ids of at most `limit` documents after `cursor`, with their numbers of chunks, and where to
    /// go on; reads no text. O(segments + log documents + limit).
    pub fn ids_after(&self, cursor: Option<Cursor>, limit: usize) -> Result<IdPage, Damage> {
        let mut documents = Vec::with_capacity(limit.min(1024));
        let next = self.visit(self.from(cursor)?, (limit, None), &mut |place| {
            documents.push((place.head.id, place.head.rows));
            Ok(())
        })?;
        Ok(IdPage { documents, next })
    }

    /// Where the page after the one that [`View::documents_among`] gives begins; `None` at the end.
    /// Reads no document.
    pub fn next_among(
        &self,
        selection: &Selection,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<Option<Cursor>, Damage> {
        self.visit(self.from(cursor)?, (limit, Some(selection)), &mut |_place| Ok(()))
    }

    fn page(
        &self,
        from: At,
        (limit, vectors): (usize, bool),
        among: Option<&Selection>,
    ) -> Result<Page, Damage> {
        let mut documents = Vec::with_capacity(limit.min(1024));
        let next = self.visit(from, (limit, among), &mut |place| {
            documents.push(self.read(place, vectors)?);
            Ok(())
        })?;
        Ok(Page { documents, next })
    }

    /// Visits at most `limit` live documents from a place on; where the next one is after, if there
    /// is one.
    fn visit(
        &self,
        from: At,
        (limit, among): (usize, Option<&Selection>),
        visit: &mut dyn FnMut(Place) -> Result<(), Damage>,
    ) -> Result<Option<Cursor>, Damage> {
        let (mut visited, mut last) = (0, None);
        for (segment, view) in self.segments.iter().enumerate().skip(from.segment) {
            let first = if segment == from.segment { from.ordinal } else { 0 };
            let rows = among.map(|among| among.segment(segment));
            if rows.is_some_and(arrwdb_index::RowSet::is_empty) {
                continue;
            }
            for ordinal in first..view.segment.documents() {
                let head = view.segment.head(ordinal)?;
                let selected = rows.is_none_or(|rows| rows.intersects(head.row_range()));
                if !selected || !view.lives(&head) {
                    continue;
                }
                if visited == limit {
                    return Ok(last);
                }
                visit(Place { segment, ordinal, head })?;
                visited += 1;
                last = Some(Cursor { born: head.born, id: head.id });
            }
        }
        Ok(None)
    }

    fn from(&self, cursor: Option<Cursor>) -> Result<At, Damage> {
        cursor.map_or(Ok(At { segment: 0, ordinal: 0 }), |cursor| self.after(cursor))
    }

    /// The first place after a cursor. Documents lie in the order of `born`, so a cursor whose
    /// document has gone still has its place: before the first document born later, or after
    /// those of its own record that come before it in the record.
    fn after(&self, cursor: Cursor) -> Result<At, Damage> {
        for (segment, view) in self.segments.iter().enumerate() {
            let documents = view.segment.documents();
            if view.segment.head(documents - 1)?.born < cursor.born {
                continue;
            }
            let first = view.segment.first_born_at(cursor.born)?;
            for ordinal in first..documents {
                let head = view.segment.head(ordinal)?;
                if head.born > cursor.born {
                    // The document seen was merged away. Those of its record that are left may
                    // have been seen or not: begin at the first of them, twice beats never.
                    return Ok(At { segment, ordinal: first });
                }
                if head.id == cursor.id {
                    return Ok(At { segment, ordinal: ordinal + 1 });
                }
            }
            if first < documents {
                return Ok(At { segment, ordinal: first });
            }
        }
        Ok(At { segment: self.segments.len(), ordinal: 0 })
    }
}
