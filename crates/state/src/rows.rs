//! Rows by what they are of, whatever the layout: the passage of a document at a place in it.

use crate::ids::DocumentId;
use crate::search::RowPlace;
use crate::segment::Damage;
use crate::view::View;

impl View {
    /// The row of a live document's passage at `index`, from 0; `None` if there is none. O(segments *
    /// log documents).
    pub fn row_of(&self, document: DocumentId, index: u32) -> Result<Option<RowPlace>, Damage> {
        let place = self.locate(document)?.filter(|place| index < place.head.rows);
        Ok(place.and_then(|place| {
            let segment = u32::try_from(place.segment).ok()?;
            Some(RowPlace::new(segment, place.head.first_row + index))
        }))
    }

    /// What a row that a search of this same view found is of: its document, and the place there.
    /// O(log documents).
    pub fn owner_of(&self, row: RowPlace) -> Result<(DocumentId, u32), Damage> {
        let document = self.document_rows(row)?;
        Ok((document.id, row.row - document.rows.start))
    }
}
