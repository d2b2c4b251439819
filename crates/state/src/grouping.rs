//! Rows that a search found, by their documents.

use arrwdb_index::RowSet;

use crate::ids::DocumentId;
use crate::search::RowPlace;
use crate::segment::Damage;
use crate::selection::Selection;
use crate::view::View;

/// A document of a view, and where its rows are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentRows {
    /// The document.
    pub id: DocumentId,
    segment: u32,
    pub(crate) rows: std::ops::Range<u32>,
}

impl View {
    /// The document of a row that a search of this same view found. O(log documents).
    pub fn document_rows(&self, place: RowPlace) -> Result<DocumentRows, Damage> {
        let segment = &self.segments[place.segment as usize].segment;
        let (_ordinal, head) = segment.at_row(place.row)?;
        Ok(DocumentRows { id: head.id, segment: place.segment, rows: head.row_range() })
    }

    /// The live rows of documents of this same view; only those that are `among`, too, where that is
    /// given.
    pub fn select_documents(
        &self,
        documents: &[DocumentRows],
        among: Option<&Selection>,
    ) -> Selection {
        let places = 0_u32..;
        let of_segment = |(place, view): (u32, &crate::view::SegmentView)| {
            let mut rows = RowSet::empty(view.segment.rows());
            for document in documents.iter().filter(|document| document.segment == place) {
                rows.insert(document.rows.clone());
            }
            rows.retain(&view.tombstones);
            if let Some(among) = among {
                rows.intersect(among.segment(place as usize));
            }
            rows
        };
        Selection::of(places.zip(&self.segments).map(of_segment).collect())
    }
}
