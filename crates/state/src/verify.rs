//! Counting a library anew: its counters and its digest against its live rows.

use std::collections::BTreeSet;

use crate::ids::DocumentId;
use crate::segment::Damage;
use crate::view::{SegmentView, View};

/// Why a view is not what its counters say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Inconsistency {
    /// A file is damaged where it has to be read.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// A counter is wrong.
    #[error("{what} {counted}, but {claimed} are claimed")]
    Count {
        /// What was counted.
        what: &'static str,
        /// How many there are.
        counted: u64,
        /// How many there should be.
        claimed: u64,
    },
    /// The digest is wrong.
    #[error("the digest of the live documents is {counted:032x}, but {claimed:032x} is claimed")]
    Digest {
        /// Their sum.
        counted: u128,
        /// What the view says.
        claimed: u128,
    },
    /// A document is half dead.
    #[error("document {0} has dead rows and live ones")]
    HalfDead(DocumentId),
    /// A document that does not live has vectors in a field.
    #[error("document {0} has vectors in a field, and does not live")]
    FieldAlone(DocumentId),
    /// Two live documents have one id.
    #[error("document {0} lives twice")]
    Twice(DocumentId),
}

#[derive(Default)]
struct Count {
    documents: u64,
    chunks: u64,
    digest: u128,
    ids: BTreeSet<DocumentId>,
}

impl View {
    /// Recomputes what the view says of itself from its live rows. Whether documents have the
    /// digests that their segments say is [`crate::FileSegment::verify`]'s to tell.
    /// O(documents * log documents).
    pub fn verify(&self) -> Result<(), Inconsistency> {
        let mut count = Count::default();
        for segment in &self.segments {
            count.add(segment)?;
        }
        equal("live documents are", count.documents, self.documents)?;
        equal("live chunks are", count.chunks, self.chunks)?;
        if count.digest != self.digest {
            let (counted, claimed) = (count.digest, self.digest);
            return Err(Inconsistency::Digest { counted, claimed });
        }
        for field in self.fields.values() {
            field.view.verify()?;
            let absent = |id: &&DocumentId| !count.ids.contains(*id);
            let ids = field.view.ids_after(None, usize::MAX)?.documents;
            if let Some(id) = ids.iter().map(|(id, _vectors)| id).find(absent) {
                return Err(Inconsistency::FieldAlone(*id));
            }
        }
        Ok(())
    }
}

impl Count {
    fn add(&mut self, view: &SegmentView) -> Result<(), Inconsistency> {
        let (mut dead_documents, mut dead_rows) = (0, 0);
        for ordinal in 0..view.segment.documents() {
            let head = view.segment.head(ordinal)?;
            let dead = head.row_range().filter(|row| view.tombstones.contains(*row)).count();
            if dead == head.rows as usize {
                dead_documents += 1;
                dead_rows += u64::from(head.rows);
                continue;
            }
            if dead > 0 {
                return Err(Inconsistency::HalfDead(head.id));
            }
            if !self.ids.insert(head.id) {
                return Err(Inconsistency::Twice(head.id));
            }
            self.documents += 1;
            self.chunks += u64::from(head.rows);
            self.digest = self.digest.wrapping_add(head.digest);
        }
        equal("dead documents are", dead_documents, u64::from(view.dead_documents))?;
        equal("dead rows are", dead_rows, u64::from(view.tombstones.dead()))
    }
}

fn equal(what: &'static str, counted: u64, claimed: u64) -> Result<(), Inconsistency> {
    if counted == claimed {
        return Ok(());
    }
    Err(Inconsistency::Count { what, counted, claimed })
}
