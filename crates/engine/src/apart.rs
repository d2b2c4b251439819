//! Documents of which a model takes no text, told apart from those that are written with them.
//!
//! Some servers say of one text that is too long what others say of every request that they do not
//! like: 400. So the documents of a call that is refused are tried by halves, and where one is left
//! that the model does not take, the model is asked for a text that nobody could refuse. If that is
//! refused too, it is the model that takes nothing, and no document is blamed.

use std::sync::Arc;

use arrwdb_state::{Chunk, LibrarySpec};

use crate::carry::is_doubtful;
use crate::engine::Inner;
use crate::error::EngineError;
use crate::put::Draft;
use crate::system::new_uuid;

/// Whether a document may fail without the others that were given with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// It is the only one that was asked for: whatever fails, fails for all.
    All,
    /// Each gets its own.
    Each,
}

impl Inner {
    /// Fills in the vectors that the caller did not supply. Where [`Blame::Each`] is asked for, a
    /// document of which a model takes no text is refused alone, and an error is one of the provider
    /// or its model, which no document is to blame for.
    pub(crate) async fn embed_or_blame(
        self: &Arc<Self>,
        spec: &LibrarySpec,
        drafts: &mut [Result<Draft, EngineError>],
        blame: Blame,
    ) -> Result<(), EngineError> {
        let mut asked = false;
        // The last one is next.
        let mut left = vec![(0, drafts.len())];
        while let Some((start, end)) = left.pop() {
            let some = &mut drafts[start..end];
            let Err(error) = self.embed(spec, some).await else { continue };
            if blame == Blame::All || !error.may_be_of_a_text() {
                return Err(error);
            }
            if some.len() > 1 {
                let middle = usize::midpoint(start, end);
                left.extend([(middle, end), (start, middle)]);
                continue;
            }
            let Some(draft) = some.first_mut() else { continue };
            if !asked && is_doubtful(&error) {
                self.check_harmless(spec, draft, &error).await?;
                asked = true;
            }
            *draft = Err(error);
        }
        Ok(())
    }

    /// Asks the models that a document needs for a text that nobody could refuse.
    ///
    /// # Errors
    /// It is refused as the document's own texts are: then theirs, which says more.
    async fn check_harmless(
        self: &Arc<Self>,
        spec: &LibrarySpec,
        draft: &Result<Draft, EngineError>,
        error: &EngineError,
    ) -> Result<(), EngineError> {
        let Ok(draft) = draft else { return Ok(()) };
        // One that was never asked for: what the cache has says nothing of the model.
        let id = new_uuid(self.parts.clock.now(), &*self.parts.random);
        let mut drafts = [Ok(draft.with_text(&format!("a short text {id}")))];
        match self.embed(spec, &mut drafts).await {
            Err(refused) if refused.may_be_of_a_text() => Err(error.clone()),
            other => other,
        }
    }
}

impl Draft {
    /// What needs vectors of the models that this one needs them of, of another text: one passage,
    /// and one vector of each field.
    fn with_text(&self, text: &str) -> Self {
        let mut document = self.document.clone();
        document.chunks.retain(|chunk| chunk.embedding.is_empty());
        document.chunks.truncate(1);
        for Chunk { text: of_chunk, .. } in &mut document.chunks {
            text.clone_into(of_chunk);
        }
        Self { document, fields: self.fields.with_text(text) }
    }
}
