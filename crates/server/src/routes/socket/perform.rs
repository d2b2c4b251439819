//! What requests of a WebSocket do: each makes one call of the engine and gives the `data` of its
//! answer.

use std::time::Instant;

use arrwdb_engine::state::{Document, DocumentId, LibraryId, Seq};
use arrwdb_engine::{
    Content, EngineError, Mode, PutChunk, PutDocument, PutReceipt, Query, Written, merge_patch,
};
use serde::Serialize;
use serde_json::json;

use super::frame::{Find, Target};
use super::live::{Beginning, Rendered, Wanted, array, render, unwritable};
use crate::app::App;
use crate::metrics::Added;
use crate::principal::Principal;
use crate::problem::{self, Problem};
use crate::routes::answers::{DocumentAnswer, Explain, Passage, milliseconds};
use crate::routes::documents::read_document_of;
use crate::routes::requests::DocumentPatch;

/// Who asks, and of which library.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) app: App,
    pub(super) principal: Principal,
    pub(super) library: LibraryId,
}

#[derive(Debug, Serialize)]
struct Found {
    results: Vec<Passage>,
    total_results: usize,
    query_time_ms: f64,
    /// The state they are true at.
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<Explain>,
}

#[derive(Debug, Serialize)]
struct Got {
    document: GotDocument,
    seq: u64,
}

#[derive(Debug, Serialize)]
struct GotDocument {
    title: String,
    /// The passages, one line each.
    text: String,
    #[serde(flatten)]
    document: DocumentAnswer,
}

/// The beginning of a live query: what to push differences of, and the answer's `data`.
pub(super) struct Watched {
    pub(super) id: String,
    pub(super) wanted: Wanted,
    pub(super) beginning: Beginning,
    pub(super) seq: arrwdb_engine::state::Seq,
    pub(super) rendered: Vec<Rendered>,
}

impl Place {
    pub(super) async fn search(&self, mut find: Box<Find>) -> Result<String, Problem> {
        let started = Instant::now();
        let explains = find.wishes.explains();
        let query = find.query();
        find.wishes.check()?;
        find.wishes.groups().refuse()?;
        let request = find.wishes.request(query, None);
        let engine = self.app.engine();
        let at = find.wishes.moment();
        let answer = engine.search(self.principal.tenant, self.library, request, at).await?;
        let taken = started.elapsed();
        let count = answer.hits.len();
        self.app.metrics().searched(self.library, answer.index.name(), taken, count);
        let explain = explains.then(|| Explain::of(&answer));
        let seq = answer.seq.get();
        let results: Vec<Passage> = answer.hits.into_iter().map(Passage::of).collect();
        let (total_results, query_time_ms) = (results.len(), milliseconds(taken));
        let found = Found { results, total_results, query_time_ms, seq, explain };
        serde_json::to_string(&found).map_err(unwritable)
    }

    /// The first answer of a live query.
    pub(super) async fn watch(
        &self,
        mut find: Box<Find>,
        (id, beginning): (String, Beginning),
    ) -> Result<(String, Watched), Problem> {
        if find.wishes.moment().as_of.is_some() {
            let detail = "a live query is of now; search for what was, or leave this out";
            return Err(Problem::field("/as_of", detail));
        }
        find.wishes.groups().refuse()?;
        if find.wishes.mode() != Mode::Vector {
            let detail = "a live query is by vectors: leave this out, or search";
            return Err(Problem::field("/mode", detail));
        }
        let started = Instant::now();
        let (engine, tenant) = (self.app.engine(), self.principal.tenant);
        let (vector, model) = match find.query() {
            Query::Vector(vector) => {
                let library = engine.library(tenant, self.library, find.wishes.moment()).await?;
                (vector, library.spec().model.clone())
            }
            Query::Text(text) => engine.embed_query(tenant, self.library, text).await?,
        };
        let (k, threshold) = (find.wishes.k(), find.wishes.distance_threshold());
        let filter = find.wishes.filter();
        let wanted = Wanted { vector, model, k, threshold, filter };
        let answer =
            wanted.search(engine, (tenant, self.library), find.wishes.moment().min_seq).await?;
        let (taken, count) = (started.elapsed(), answer.hits.len());
        self.app.metrics().searched(self.library, answer.index.name(), taken, count);
        let seq = answer.seq;
        let rendered = render(answer)?;
        let id_text = serde_json::Value::from(id.as_str());
        let results = array(&rendered);
        let data = format!("{{\"watch_id\":{id_text},\"results\":{results},\"seq\":{seq}}}");
        Ok((data, Watched { id, wanted, beginning, seq, rendered }))
    }

    pub(super) async fn add(&self, document: PutDocument) -> Result<String, Problem> {
        let (engine, tenant) = (self.app.engine(), self.principal.tenant);
        let index = engine.library(tenant, self.library, None).await?.spec().index.name();
        let written = engine.put_documents(tenant, self.library, vec![document]).await?;
        let nothing = || Problem::hidden(&problem::INTERNAL, "a write answered nothing");
        let receipt = written.value.into_iter().next().ok_or_else(nothing)??;
        Ok(self.put(index, (written.seq, receipt)))
    }

    /// What is answered of a document that was put.
    fn put(&self, index: &'static str, (seq, receipt): (Seq, PutReceipt)) -> String {
        self.app.metrics().added(self.library, index, Added::of(&receipt));
        let seq = seq.get();
        let document = json!({"id": receipt.id.to_string(), "title": receipt.title, "num_chunks": receipt.chunks});
        json!({"document": document, "replaced": receipt.replaced, "seq": seq}).to_string()
    }

    /// Puts the document anew with what is to change. What is not said stays as it is, vectors
    /// included, whoever else changes it at the same time.
    pub(super) async fn update(
        &self,
        id: DocumentId,
        patch: DocumentPatch,
    ) -> Result<String, Problem> {
        let (engine, tenant) = (self.app.engine(), self.principal.tenant);
        let index = engine.library(tenant, self.library, None).await?.spec().index.name();
        let change = |document| patched(document, patch.clone());
        let Written { seq, value } =
            engine.change_document(tenant, self.library, id, change).await?;
        Ok(self.put(index, (seq, value)))
    }

    pub(super) async fn delete(&self, id: DocumentId) -> Result<String, Problem> {
        let (engine, tenant) = (self.app.engine(), self.principal.tenant);
        let written = engine.delete_documents(tenant, self.library, vec![id]).await?;
        let Some(Some(chunks)) = written.value.first() else {
            return Err(EngineError::DocumentNotFound(id).into());
        };
        self.app.metrics().deleted(self.library, 1, (*chunks).into());
        let seq = written.seq.get();
        let id = id.to_string();
        let data =
            json!({"deleted": true, "message": "Document deleted", "document_id": id, "seq": seq});
        Ok(data.to_string())
    }

    pub(super) async fn get(&self, target: Target) -> Result<String, Problem> {
        let Target { id, embeddings, at } = target;
        let snapshot = self.app.engine().library(self.principal.tenant, self.library, at).await?;
        let seq = snapshot.seq().get();
        let document = read_document_of(snapshot, id, embeddings).await?;
        let texts: Vec<&str> = document.chunks.iter().map(|chunk| chunk.text.as_str()).collect();
        let (text, title) = (texts.join("\n"), document.metadata.title.clone());
        let document = GotDocument { title, text, document: DocumentAnswer::of(document) };
        serde_json::to_string(&Got { document, seq }).map_err(unwritable)
    }
}

/// The document as it is to be.
fn patched(document: Document, patch: DocumentPatch) -> PutDocument {
    let Document { id, metadata, chunks } = document;
    let given = |name: &str| patch.given.contains(&name);
    let mut custom = metadata.custom;
    merge_patch(&mut custom, patch.custom);
    let keep = |chunk: arrwdb_engine::state::Chunk| PutChunk {
        id: Some(chunk.id),
        text: chunk.text,
        embedding: Some(chunk.embedding),
        created_at: Some(chunk.created_at),
        page_number: chunk.page_number,
        custom: chunk.custom,
    };
    let kept = || Content::Chunks(chunks.into_iter().map(keep).collect());
    PutDocument {
        id: Some(id),
        title: patch.title.unwrap_or(metadata.title),
        author: if given("author") { patch.author } else { metadata.author },
        document_type: if given("document_type") {
            patch.document_type
        } else {
            Some(metadata.document_type)
        },
        source_url: if given("source_url") { patch.source_url } else { metadata.source_url },
        tags: if given("tags") { patch.tags } else { metadata.tags },
        custom,
        created_at: Some(metadata.created_at),
        content: patch.content.unwrap_or_else(kept),
        vectors: Vec::new(),
    }
}
