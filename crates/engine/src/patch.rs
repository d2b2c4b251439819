//! Changing what is said of a document: its passages stay, with their ids, texts and vectors, and what it
//! has in vector fields.

use std::sync::Arc;

use arrwdb_state::{
    Command, Custom, Document, DocumentId, DocumentRecord, Fate, LibraryId, Seq, TenantId,
};
use serde_json::Value;

use crate::engine::{Engine, Inner};
use crate::error::{EngineError, RETRY_AFTER};
use crate::maintenance::blocking;
use crate::moment::Moment;
use crate::put::{check_custom, check_metadata_size, check_title, without_vectors};
use crate::request::{DOCUMENT_TYPE_USUAL, PutDocument, PutReceipt, PutVector, Written};
use crate::snapshot::Snapshot;

/// How often a document that others put anew at the same time is read again. Those who came into each
/// other's way take turns.
const ATTEMPTS_MAX: usize = 32;

/// Documents whose changes wait for each other are those of one remainder: a prime, as ids that callers
/// choose may have a pattern.
const TURNS: u64 = 251;

/// Whose turn it is to change a document again: who reads one, changes it and writes it while others do
/// the same would have to begin anew each time that another was faster. Nobody waits for a turn who
/// was not in another's way before: what holds one may wait for a provider of embeddings.
#[derive(Debug)]
pub(crate) struct DocumentTurns(Vec<tokio::sync::Mutex<()>>);

impl Default for DocumentTurns {
    fn default() -> Self {
        Self((0..TURNS).map(|_turn| tokio::sync::Mutex::new(())).collect())
    }
}

impl DocumentTurns {
    /// Waits for those that came before. It lasts until it is dropped.
    async fn wait(&self, id: DocumentId) -> tokio::sync::MutexGuard<'_, ()> {
        let remainder = u128::from_be_bytes(id.to_bytes()) % u128::from(TURNS);
        let turn = usize::try_from(remainder).unwrap_or(0);
        self.0[turn].lock().await
    }
}

/// What is to change of a document; `None` leaves a part as it is.
#[derive(Debug, Clone, Default)]
pub struct DocumentPatch {
    /// New title.
    pub title: Option<String>,
    /// New author; `Some(None)` removes it.
    pub author: Option<Option<String>>,
    /// New kind; `Some(None)` makes it the usual one.
    pub document_type: Option<Option<String>>,
    /// Where it came from; `Some(None)` removes it.
    pub source_url: Option<Option<String>>,
    /// All tags.
    pub tags: Option<Vec<String>>,
    /// A merge patch (RFC 7396) of custom metadata; `Some(None)` removes all of it.
    pub metadata: Option<Option<Custom>>,
}

impl DocumentPatch {
    fn check(&self) -> Result<(), EngineError> {
        self.title.as_deref().map_or(Ok(()), check_title)?;
        let merged = self.metadata.iter().flatten().next();
        merged.map_or(Ok(()), |merged| check_custom(merged, "/metadata"))
    }

    /// Changes the document.
    ///
    /// # Errors
    /// What comes of it is more than a document may have.
    fn apply(self, document: &mut Document) -> Result<(), EngineError> {
        let metadata = &mut document.metadata;
        metadata.title = self.title.unwrap_or_else(|| std::mem::take(&mut metadata.title));
        metadata.author = self.author.unwrap_or_else(|| metadata.author.take());
        metadata.source_url = self.source_url.unwrap_or_else(|| metadata.source_url.take());
        if let Some(kind) = self.document_type {
            metadata.document_type = kind.unwrap_or_else(|| DOCUMENT_TYPE_USUAL.to_owned());
        }
        metadata.tags = self.tags.unwrap_or_else(|| std::mem::take(&mut metadata.tags));
        match self.metadata {
            None => {}
            Some(None) => metadata.custom.clear(),
            Some(Some(patch)) => merge_patch(&mut metadata.custom, patch),
        }
        check_custom(&metadata.custom, "/metadata")?;
        check_metadata_size(metadata)
    }
}

/// Changes metadata by a merge patch (RFC 7396): what is null in it goes, objects are merged, all else
/// takes the place of what was there. As deep as the patch is nested.
pub fn merge_patch(target: &mut Custom, patch: Custom) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(&key);
            }
            Value::Object(patch) => {
                let mut within = match target.remove(&key) {
                    Some(Value::Object(within)) => within,
                    Some(_) | None => Custom::new(),
                };
                merge_patch(&mut within, patch);
                target.insert(key, Value::Object(within));
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                target.insert(key, value);
            }
        }
    }
}

/// A document as it is to be.
enum Patched {
    /// As it is already.
    Same(Document),
    /// Another version, in the place of the one that this record added.
    Changed(Document, DocumentRecord, Seq),
}

impl Engine {
    /// Changes what is said of a document; its passages stay, with their ids, texts, times and vectors,
    /// and so does its own time. It is a new version of the document, unless nothing changes: then
    /// nothing is written. Of two changes at the same time none is lost.
    ///
    /// # Errors
    /// [`EngineError::DocumentNotFound`]; [`EngineError::Invalid`] with a pointer into the patch, whose
    /// custom metadata is at `/metadata`; [`EngineError::Busy`] if too many others put the same
    /// document anew.
    pub async fn patch_document(
        &self,
        tenant: TenantId,
        library: LibraryId,
        (id, patch): (DocumentId, DocumentPatch),
    ) -> Result<Written<Document>, EngineError> {
        self.0.check_disk()?;
        patch.check()?;
        let mut turn = None;
        for _attempt in 0..ATTEMPTS_MAX {
            let done = self.0.try_patch((tenant, library), id, patch.clone()).await?;
            if let Some(written) = done {
                return Ok(written);
            }
            if turn.is_none() {
                turn = Some(self.0.changing.wait(id).await);
            }
        }
        Err(EngineError::Busy {
            what: "the queue of changes to this document",
            retry_after: RETRY_AFTER,
        })
    }
}

impl Engine {
    /// Puts a document anew, as `change` makes it of what is there. What it leaves as it is stays,
    /// vectors included, and so does what the document has in vector fields. Of two changes at the same
    /// time none is lost: who comes second changes what the first one wrote, so that `change` may be asked
    /// more than once.
    ///
    /// # Errors
    /// As [`Engine::put_documents`]; [`EngineError::DocumentNotFound`], also where it is deleted
    /// meanwhile; [`EngineError::Busy`] if too many others put the same document anew.
    pub async fn change_document(
        &self,
        tenant: TenantId,
        library: LibraryId,
        id: DocumentId,
        change: impl Fn(Document) -> PutDocument + Send + Sync,
    ) -> Result<Written<PutReceipt>, EngineError> {
        self.0.check_disk()?;
        let mut turn = None;
        for _attempt in 0..ATTEMPTS_MAX {
            if let Some(written) = self.0.try_change((tenant, library), id, &change).await? {
                return Ok(written);
            }
            if turn.is_none() {
                turn = Some(self.0.changing.wait(id).await);
            }
        }
        Err(EngineError::Busy {
            what: "the queue of changes to this document",
            retry_after: RETRY_AFTER,
        })
    }
}

impl Inner {
    /// `None` if somebody else wrote the document after it was read.
    async fn try_change(
        self: &Arc<Self>,
        (tenant, library): (TenantId, LibraryId),
        id: DocumentId,
        change: &(impl Fn(Document) -> PutDocument + Sync),
    ) -> Result<Option<Written<PutReceipt>>, EngineError> {
        let snapshot = self.snapshot(tenant, library, Moment::default()).await?;
        let (view, of) = (snapshot.view, snapshot.spec);
        let read = move || Ok((view.document(id, true)?, view.born(id)?, view.field_vectors(id)?));
        let (Some(document), Some(version), fields) = blocking(read).await? else {
            return Err(EngineError::DocumentNotFound(id));
        };
        let mut put = PutDocument { vectors: PutVector::again(fields), ..change(document) };
        let (spec, handle, _since) = self.placed(tenant, library, None).await?;
        if (&of.model, of.dimension) != (&spec.model, spec.dimension) {
            // Vectors of the model that the library had when they were read: they are made anew.
            without_vectors(&mut put);
        }
        let at = self.parts.clock.now();
        let mut drafts = self.drafts((&spec, &handle), vec![put], at).await?;
        self.embed(&spec, &mut drafts).await?;
        let made = self.recorded(drafts, spec.dimension).await?.pop();
        let (record, title) = made.unwrap_or(Err(EngineError::Closed))?;
        let command = Command::Replace(record.clone(), version);
        let done = self.write_one((tenant, library), &command).await?;
        let Some(fate @ Fate::Existed { .. }) = done.fates.into_iter().next() else {
            return Ok(None);
        };
        let receipts =
            self.receipts(&handle, vec![Ok((record, title))], (done.seq, vec![Ok(fate)]));
        let Written { seq, value } = receipts?;
        let receipt = value.into_iter().next().unwrap_or(Err(EngineError::Closed))?;
        Ok(Some(Written { seq, value: receipt }))
    }

    /// `None` if somebody else wrote the document after it was read.
    async fn try_patch(
        self: &Arc<Self>,
        (tenant, library): (TenantId, LibraryId),
        id: DocumentId,
        patch: DocumentPatch,
    ) -> Result<Option<Written<Document>>, EngineError> {
        let snapshot = self.snapshot(tenant, library, Moment::default()).await?;
        let seq = snapshot.seq;
        let patched = blocking(move || patched(&snapshot, id, patch)).await?;
        let (document, record, version) = match patched {
            Patched::Same(document) => return Ok(Some(Written { seq, value: document })),
            Patched::Changed(document, record, version) => (document, record, version),
        };
        let command = Command::Replace(record, version);
        let done = self.write_one((tenant, library), &command).await?;
        let replaced = matches!(done.fates.first(), Some(Fate::Existed { .. }));
        Ok(replaced.then_some(Written { seq: done.seq, value: document }))
    }
}

/// The document of a snapshot as it is to be. Its vectors are those that are stored, bit for bit.
fn patched(
    snapshot: &Snapshot,
    id: DocumentId,
    patch: DocumentPatch,
) -> Result<Patched, EngineError> {
    let (view, dimension) = (&snapshot.view, snapshot.view.dimension());
    let found = (view.document(id, true)?, view.born(id)?);
    let (Some(mut document), Some(version)) = found else {
        return Err(EngineError::DocumentNotFound(id));
    };
    let before = document.metadata.clone();
    patch.apply(&mut document)?;
    if document.metadata == before {
        return Ok(Patched::Same(document));
    }
    let fields = view.field_vectors(id)?;
    let record = DocumentRecord::new(&document, dimension)
        .and_then(|record| record.with_fields(&document.metadata, &fields));
    // Its vectors were accepted before: what can be too much is the document as a whole.
    let record = record.map_err(|error| EngineError::Invalid {
        field: "/metadata".to_owned(),
        detail: error.to_string(),
    })?;
    Ok(Patched::Changed(document, record, version))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The examples of RFC 7396, appendix A, that are objects on both sides.
    #[test]
    fn a_merge_patch_does_what_rfc_7396_says() {
        for (target, patch, expect) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
            (json!({"a": 1}), json!({"a": {"b": [null]}}), json!({"a": {"b": [null]}})),
        ] {
            let (Value::Object(mut target), Value::Object(patch)) = (target, patch) else {
                panic!("objects");
            };
            merge_patch(&mut target, patch);
            assert_eq!(Value::Object(target), expect);
        }
    }
}
