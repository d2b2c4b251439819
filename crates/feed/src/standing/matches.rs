//! Passages in batches, and what matched of them until it is noted.

use std::sync::Arc;

use arrwdb_engine::state::limits::MATCHES_PER_RECORD_MAX;
use arrwdb_engine::state::{
    DocumentRecord, LibraryId, MatchPosition, MatchedPassage, Passages, Seq,
};

/// Bytes of passages in one entry, about.
const ENTRY_BYTES: usize = 1 << 20;

/// What matched and is not noted yet.
pub(super) struct Pending {
    pub(super) library: LibraryId,
    /// How far it is matched.
    pub(super) after: MatchPosition,
    pub(super) passages: Vec<MatchedPassage>,
}

impl Pending {
    pub(super) fn is_full(&self) -> bool {
        let matches: usize = self.passages.iter().map(|passage| passage.queries.len()).sum();
        let bytes: usize = self.passages.iter().map(|passage| passage.passage.len() + 64).sum();
        2 * matches >= MATCHES_PER_RECORD_MAX || bytes >= ENTRY_BYTES
    }
}

/// Documents of some records, to be matched in parts.
pub(super) struct Batches {
    pub(super) gathered: Vec<(Seq, Vec<Arc<DocumentRecord>>)>,
    pub(super) max: usize,
}

impl Batches {
    pub(super) fn into_passages(self) -> Vec<Passages> {
        let mut batches = vec![Passages::default()];
        for (seq, documents) in &self.gathered {
            let mut first = 0;
            for document in documents {
                let chunks = u32::try_from(document.chunks()).unwrap_or(u32::MAX);
                let mut next = 0;
                while next < chunks {
                    if batches.last().is_none_or(|last| last.len() >= self.max) {
                        batches.push(Passages::default());
                    }
                    if let Some(last) = batches.last_mut() {
                        let room = u32::try_from(self.max - last.len()).unwrap_or(u32::MAX);
                        let end = chunks.min(next.saturating_add(room));
                        last.add(*seq, first, document, next..end);
                        next = end;
                    }
                }
                first += chunks;
            }
        }
        batches
    }
}
