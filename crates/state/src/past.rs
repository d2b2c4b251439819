//! The past: a library as it was at an earlier sequence number.
//!
//! A row lived at `s` if `born <= s` and it had not died by then. Documents lie in the order in which
//! they were born, so those that were not there yet are the last rows of a segment, or all of it.
//! They count as dead in a view of the past, which is a view like any other: searches, listings and
//! counts of it are those of that time.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{DocumentId, Seq};
use crate::liveness::Tombstones;
use crate::recount::Totals;
use crate::segment::{Damage, Head};
use crate::view::{Field, SegmentView, View};

/// Why a view cannot be given as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PastError {
    /// Merges have left out what had died by a later number.
    #[error("the past before sequence {oldest} is not kept any more")]
    Gone {
        /// The first number that can be asked for.
        oldest: Seq,
    },
    /// A file is damaged where it has to be read.
    #[error(transparent)]
    Damaged(#[from] Damage),
}

impl View {
    /// The library as it was at `seq`; as it is, if that is the last record applied or later.
    /// O(segments + what was born or died since).
    pub fn as_of(&self, seq: Seq) -> Result<Self, PastError> {
        if seq >= self.applied {
            return Ok(self.clone());
        }
        if seq < self.oldest() {
            return Err(PastError::Gone { oldest: self.oldest() });
        }
        let mut totals = self.totals();
        let mut segments = Vec::with_capacity(self.segments.len());
        for view in &self.segments {
            segments.extend(view.as_of(seq, &mut totals)?);
        }
        let Totals { documents, chunks, digest } = totals;
        let mut fields = BTreeMap::new();
        for (name, Field { spec, view }) in &self.fields {
            let view = Arc::new(view.as_of(seq)?);
            fields.insert(name.clone(), Field { spec: spec.clone(), view });
        }
        Ok(Self { applied: seq, segments, documents, chunks, digest, fields, ..*self })
    }

    /// Whether a document with this id lived at `seq`. O(segments * log documents).
    pub fn contained(&self, id: DocumentId, seq: Seq) -> Result<bool, PastError> {
        if seq >= self.applied {
            return Ok(self.contains(id)?);
        }
        if seq < self.oldest() {
            return Err(PastError::Gone { oldest: self.oldest() });
        }
        for view in &self.segments {
            for ordinal in view.segment.versions(id)? {
                let head = view.segment.head(ordinal)?;
                if view.lived(&head, seq) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

impl SegmentView {
    /// Whether the document with this head lived at `seq`.
    fn lived(&self, head: &Head, seq: Seq) -> bool {
        let died = self.tombstones.died(head.first_row);
        head.born <= seq && died.is_none_or(|died| died > seq)
    }

    /// The segment as it was at `seq`, `None` if it had no document yet; `totals` are brought to
    /// that time.
    fn as_of(&self, seq: Seq, totals: &mut Totals) -> Result<Option<Self>, Damage> {
        let segment = &self.segment;
        let mut dead_documents = self.dead_documents;
        let unborn = segment.first_born_at(Seq::new(seq.get().saturating_add(1)))?;
        for ordinal in unborn..segment.documents() {
            let head = segment.head(ordinal)?;
            if self.lives(&head) {
                totals.remove(&head);
                dead_documents += 1;
            }
        }
        if unborn == 0 {
            return Ok(None);
        }
        for run in self.tombstones.runs().filter(|run| run.died > seq) {
            let mut row = run.first;
            while row < run.first + run.rows {
                let (_ordinal, head) = segment.at_row(row)?;
                // A document whose rows are in several runs counts once.
                if row == head.first_row && head.born <= seq {
                    totals.add(&head);
                    dead_documents = dead_documents.saturating_sub(1);
                }
                row = head.first_row + head.rows;
            }
        }
        let mut tombstones: Tombstones = self.tombstones.at(seq);
        if unborn < segment.documents() {
            let first = segment.head(unborn)?.first_row;
            tombstones.mark(first..segment.rows(), Seq::new(u64::MAX));
        }
        let index = self.index.clone();
        Ok(Some(Self { segment: segment.clone(), tombstones, dead_documents, index }))
    }
}

impl Totals {
    fn add(&mut self, head: &Head) {
        self.documents += 1;
        self.chunks += u64::from(head.rows);
        self.digest = self.digest.wrapping_add(head.digest);
    }

    fn remove(&mut self, head: &Head) {
        // A manifest may claim fewer than there are, until somebody checks it.
        self.documents = self.documents.saturating_sub(1);
        self.chunks = self.chunks.saturating_sub(u64::from(head.rows));
        self.digest = self.digest.wrapping_sub(head.digest);
    }
}
