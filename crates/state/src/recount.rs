//! Counting a library anew, from its rows: what its counts and its digest are kept up to be.

use crate::record;
use crate::segment::Damage;
use crate::view::View;

/// What a library comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Live documents.
    pub documents: u64,
    /// Live chunks.
    pub chunks: u64,
    /// The sum of the live documents' digests.
    pub digest: u128,
}

impl View {
    /// The totals of this part as they are kept up with every entry. O(1).
    pub fn totals(&self) -> Totals {
        Totals { documents: self.documents, chunks: self.chunks, digest: self.digest }
    }

    /// The totals of this part as every live document's bytes give them: all of it is read and hashed.
    pub fn recount(&self) -> Result<Totals, Damage> {
        let mut totals = Totals::default();
        for view in &self.segments {
            let segment = &*view.segment;
            for ordinal in 0..segment.documents() {
                let head = segment.head(ordinal)?;
                if view.lives(&head) {
                    let vectors = segment.vectors(head.row_range())?;
                    let digest = record::digest(head.id, segment.body(ordinal)?, vectors);
                    totals.documents += 1;
                    totals.chunks += u64::from(head.rows);
                    totals.digest = totals.digest.wrapping_add(digest);
                }
            }
        }
        Ok(totals)
    }
}
