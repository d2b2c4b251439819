//! Documents on their way from a library's active generation to the other one: their texts, with
//! vectors of the other model.
//!
//! What is carried is a document as the active generation has it when it is carried, or that it has
//! none. One is carried after the other, so that whatever was carried last is what was read last;
//! who carries every document that a record names, after it is applied, ends up with the same
//! documents.

use std::sync::Arc;

use arrwdb_embed::InputType;
use arrwdb_state::{
    ChunkId, Command, Cursor, Document, DocumentId, DocumentRecord, LibraryId, LibrarySpec, Metric,
    Nearest, Sequential, Tuning, View, normalized,
};

use crate::engine::{Engine, Inner};
use crate::error::EngineError;
use crate::generations::CarryPair;
use crate::handle::{Author, Handle, Room};
use crate::maintenance::blocking;
use crate::search::model_of;

/// Chunks that are embedded and written at a time, about.
const CARRY_CHUNKS: usize = 256;
/// Bytes of their texts, about.
const CARRY_BYTES: usize = 4 << 20;
/// Documents that are looked at at a time.
const CARRY_DOCUMENTS: usize = 1000;

/// What was carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// Documents that the other generation has now.
    pub documents: u64,
    /// Their chunks, each embedded once.
    pub chunks: u64,
    /// Characters of these.
    pub characters: u64,
}

/// Documents that a generation lacks.
#[derive(Debug, Clone)]
pub struct Uncarried {
    /// The documents.
    pub missing: Vec<DocumentId>,
    /// Documents that were looked at, and their chunks.
    pub seen: (u64, u64),
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

/// How alike two generations answer.
#[derive(Debug, Clone, Default)]
pub struct Comparison {
    /// How many of the nearest were compared.
    pub k: usize,
    /// For each passage that was looked for: which part of its nearest are the same in both.
    pub passages: Vec<f64>,
    /// The same for each query; none where one of them takes vectors only.
    pub queries: Vec<f64>,
}

impl Engine {
    /// Carries documents: those that the active generation has not are deleted from the other, and
    /// those that it has are embedded and written there. What is carried is removed from `ids`, so
    /// that after an error, or if this is dropped, the others are left to be carried.
    ///
    /// # Errors
    /// [`EngineError::Generation`] if the library has no such pair of generations any more.
    pub async fn carry(
        &self,
        pair: &CarryPair,
        ids: &mut Vec<DocumentId>,
    ) -> Result<Carried, EngineError> {
        self.0.carry(pair, ids).await
    }

    /// Of the next documents of the active generation, those that the other one lacks. What it has
    /// is kept as it is by who follows the log.
    pub async fn uncarried(
        &self,
        pair: &CarryPair,
        (cursor, limit): (Option<Cursor>, usize),
    ) -> Result<Uncarried, EngineError> {
        let inner = &self.0;
        let (from, to) = inner.both(pair)?;
        inner.wait_for(&from, pair.after).await?;
        let (from, to) = (inner.opened(&from).await?.view(), inner.opened(&to).await?.view());
        blocking(move || {
            let page = from.documents_after(cursor, limit, false)?;
            let (mut missing, mut seen) = (Vec::new(), (0, 0));
            for document in page.documents {
                seen = (seen.0 + 1, seen.1 + document.chunks.len() as u64);
                if !to.contains(document.id)? {
                    missing.push(document.id);
                }
            }
            Ok(Uncarried { missing, seen, next: page.next })
        })
        .await
    }

    /// Compares what both generations find: of passages spread over the library, the vectors that
    /// each generation has of them, and of queries, those that each model makes of them. Searches
    /// are exact.
    pub async fn compare_generations(
        &self,
        pair: &CarryPair,
        (samples, k): (u64, usize),
        queries: Vec<String>,
    ) -> Result<Comparison, EngineError> {
        let inner = &self.0;
        let (from, to) = inner.both(pair)?;
        let one = Side::of(inner, &from).await?;
        let other = Side::of(inner, &to).await?;
        let mut comparison = Comparison { k, ..Comparison::default() };
        let total = one.view.documents();
        for sample in 0..samples.min(total) {
            let offset = sample.saturating_mul(total) / samples.min(total);
            let (one, other) = (one.clone(), other.clone());
            let compared = inner
                .pool
                .run(move || compare_passage(&one, &other, (offset, sample), k))
                .await??;
            comparison.passages.extend(compared);
        }
        // One that takes vectors only has none for a query.
        let has_model = |side: &Side| model_of(&side.spec, "").is_ok();
        if queries.is_empty() || !has_model(&one) || !has_model(&other) {
            return Ok(comparison);
        }
        let vectors =
            (inner.of_queries(&one, &queries).await?, inner.of_queries(&other, &queries).await?);
        for (mine, its) in vectors.0.into_iter().zip(vectors.1) {
            let (one, other) = (one.clone(), other.clone());
            let compared = inner
                .pool
                .run(move || {
                    let (mine, its) = (one.nearest(&mine, k, None)?, other.nearest(&its, k, None)?);
                    Ok::<_, EngineError>(overlap(&mine, &its))
                })
                .await??;
            comparison.queries.push(compared);
        }
        Ok(comparison)
    }
}

impl Inner {
    /// The handles of a pair, if the library still has it.
    fn both(&self, pair: &CarryPair) -> Result<(Arc<Handle>, Arc<Handle>), EngineError> {
        let catalog = self.catalog.load();
        let now = catalog.generations(pair.library);
        let same = now.is_some_and(|now| {
            now.active() == pair.from && now.other().map(|other| other.id) == Some(pair.to)
        });
        let gone = |_gone| gone(pair.library);
        if !same {
            return Err(gone(EngineError::Closed));
        }
        Ok((self.handle(pair.from).map_err(gone)?, self.handle(pair.to).map_err(gone)?))
    }

    async fn carry(
        self: &Arc<Self>,
        pair: &CarryPair,
        left: &mut Vec<DocumentId>,
    ) -> Result<Carried, EngineError> {
        self.check_disk()?;
        let carry = self.carrying.of(pair.library);
        let _turn = carry.turn.acquire().await.map_err(|_closed| EngineError::Closed)?;
        // Looked at when it is its turn: who switches has it while it does.
        let (from, to) = self.both(pair)?;
        let spec = self.catalog.load().get(pair.to).cloned().ok_or_else(|| gone(pair.library))?;
        let view = self.opened(&from).await?.view();
        // Before anything that needs a provider: what is deleted shall not be kept by one that fails.
        let deleted = self.carry_deletes(&view, &to, left).await;
        deleted.map_err(|error| of_pair(pair, error))?;
        let mut carried = Carried::default();
        // The first so many are those whose texts the model refuses: the others are carried.
        let (mut refused, mut at_once) = (Vec::new(), CARRY_DOCUMENTS);
        while refused.len() < left.len() {
            let begin = refused.len();
            let some: Vec<_> = left[begin..].iter().take(at_once).copied().collect();
            let read = view.clone();
            let (documents, looked_at) = blocking(move || read_some(&read, &some)).await?;
            let (count, chunks) = (documents.len() as u64, chunks_of(&documents));
            let characters = characters_of(&documents);
            let made = match self.embedded_documents(&spec, documents).await {
                Err(EngineError::Embedding(error)) if error.is_of_a_text() => {
                    // Which one it is, is found out one by one.
                    if looked_at == 1 {
                        refused.push(error);
                    }
                    at_once = 1;
                    continue;
                }
                made => made?,
            };
            if let Some((command, room)) = made {
                let done = self.carry_one(&to, command, Some(room)).await;
                done.map_err(|error| of_pair(pair, error))?;
            }
            left.drain(begin..begin + looked_at);
            carried.documents += count;
            carried.chunks += chunks;
            carried.characters += characters;
        }
        match (refused.first(), left.first()) {
            (Some(error), Some(id)) => Err(EngineError::Generation(format!(
                "the other model takes no text of document {id} ({error}): change or delete the \
                 document ({} in all), or take another model",
                refused.len()
            ))),
            _ => Ok(carried),
        }
    }

    /// Deletes from the other generation what the active one has not, which is removed from `ids`.
    async fn carry_deletes(
        self: &Arc<Self>,
        view: &Arc<View>,
        to: &Arc<Handle>,
        ids: &mut Vec<DocumentId>,
    ) -> Result<(), EngineError> {
        let mut looked_at = 0;
        while looked_at < ids.len() {
            let end = ids.len().min(looked_at + CARRY_DOCUMENTS);
            let (read, some) = (view.clone(), ids[looked_at..end].to_vec());
            let (there, gone): (Vec<_>, Vec<_>) = blocking(move || {
                let (mut there, mut gone) = (Vec::new(), Vec::new());
                for id in some {
                    if read.contains(id)? { there.push(id) } else { gone.push(id) }
                }
                Ok((there, gone))
            })
            .await?;
            if !gone.is_empty() {
                self.carry_one(to, Command::Delete(gone, None), None).await?;
            }
            let kept = there.len();
            ids.splice(looked_at..end, there);
            looked_at += kept;
        }
        Ok(())
    }

    async fn carry_one(
        self: &Arc<Self>,
        to: &Arc<Handle>,
        command: Command,
        room: Option<Room>,
    ) -> Result<(), EngineError> {
        let done = self.write_as(Author::Carrier, to, vec![command], room).await;
        done.into_iter().next().unwrap_or(Err(EngineError::Closed)).map(drop)
    }

    /// What is to be written of some documents.
    async fn embedded_documents(
        self: &Arc<Self>,
        spec: &LibrarySpec,
        mut documents: Vec<Document>,
    ) -> Result<Option<(Command, Room)>, EngineError> {
        if documents.is_empty() {
            return Ok(None);
        }
        self.embed_anew(spec, documents.iter_mut()).await?;
        let dimension = spec.dimension;
        let make = move || {
            let records = documents.iter().map(|document| DocumentRecord::new(document, dimension));
            records.collect::<Result<Vec<_>, _>>()
        };
        let records = self.pool.run(make).await?.map_err(|error| {
            EngineError::Generation(format!("a document does not go with the other model: {error}"))
        })?;
        let room = self.room(records.iter())?;
        Ok(Some((Command::Put(records, None), room)))
    }

    /// Gives documents vectors of this library's or generation's model, in place of any that they
    /// have.
    pub(crate) async fn embed_anew(
        self: &Arc<Self>,
        spec: &LibrarySpec,
        documents: impl Iterator<Item = &mut Document>,
    ) -> Result<(), EngineError> {
        let mut chunks: Vec<_> = documents.flat_map(|document| &mut document.chunks).collect();
        let texts: Vec<String> = chunks.iter().map(|chunk| chunk.text.clone()).collect();
        if texts.is_empty() {
            return Ok(());
        }
        let vectors = self.embed_texts(spec, "", (InputType::Document, texts)).await?;
        let vectors = vectors.chunks_exact(spec.dimension as usize);
        for (chunk, vector) in chunks.iter_mut().zip(vectors) {
            chunk.embedding = vector.to_vec();
        }
        Ok(())
    }

    async fn of_queries(
        self: &Arc<Self>,
        side: &Side,
        queries: &[String],
    ) -> Result<Vec<Vec<f32>>, EngineError> {
        let texts = (InputType::Query, queries.to_vec());
        let vectors = self.embed_texts(&side.spec, "/queries", texts).await?;
        Ok(vectors.chunks_exact(side.spec.dimension as usize).map(<[f32]>::to_vec).collect())
    }
}

fn chunks_of(documents: &[Document]) -> u64 {
    documents.iter().map(|document| document.chunks.len() as u64).sum()
}

fn characters_of(documents: &[Document]) -> u64 {
    let chunks = documents.iter().flat_map(|document| &document.chunks);
    chunks.map(|chunk| chunk.text.chars().count() as u64).sum()
}

/// As many of these documents as are worked on at a time, and how many ids they were looked for by.
fn read_some(view: &View, ids: &[DocumentId]) -> Result<(Vec<Document>, usize), EngineError> {
    let (mut documents, mut looked_at) = (Vec::new(), 0);
    let (mut chunks, mut bytes) = (0, 0);
    for id in ids {
        if chunks >= CARRY_CHUNKS || bytes >= CARRY_BYTES {
            break;
        }
        looked_at += 1;
        if let Some(document) = view.document(*id, false)? {
            chunks += document.chunks.len();
            bytes += document.chunks.iter().map(|chunk| chunk.text.len()).sum::<usize>();
            documents.push(document);
        }
    }
    Ok((documents, looked_at))
}

/// What a write to the other generation of a pair came to.
fn of_pair(pair: &CarryPair, error: EngineError) -> EngineError {
    if matches!(error, EngineError::LibraryNotFound(_)) { gone(pair.library) } else { error }
}

pub(crate) fn gone(library: LibraryId) -> EngineError {
    EngineError::Generation(format!(
        "the vectors of the other model of library {library} were discarded, or are searched by now"
    ))
}

/// One generation that is compared.
#[derive(Clone)]
struct Side {
    spec: Arc<LibrarySpec>,
    view: Arc<View>,
}

impl Side {
    async fn of(engine: &Arc<Inner>, handle: &Arc<Handle>) -> Result<Self, EngineError> {
        let spec = engine.catalog.load().get(handle.id).cloned();
        let spec = spec.ok_or(EngineError::LibraryNotFound(handle.id))?;
        Ok(Self { spec, view: engine.opened(handle).await?.view() })
    }

    /// The nearest chunks of a vector, without the one that it is of.
    fn nearest(
        &self,
        vector: &[f32],
        k: usize,
        own: Option<ChunkId>,
    ) -> Result<Vec<ChunkId>, EngineError> {
        let unit;
        let query = if self.spec.metric == Metric::Cosine {
            unit = normalized(vector).map(|(unit, _inverse_norm)| unit).unwrap_or_default();
            &unit
        } else {
            vector
        };
        if query.len() != self.view.dimension() as usize {
            return Ok(Vec::new());
        }
        let wanted = Nearest {
            query,
            metric: self.spec.metric,
            index: self.spec.index,
            tuning: Tuning { exact: true, ..Tuning::default() },
            k: k + usize::from(own.is_some()),
            threshold: None,
        };
        let (found, _effort) = self.view.nearest(wanted, &Sequential)?;
        let mut chunks = Vec::with_capacity(found.len());
        for found in found {
            chunks.push(self.view.chunk_of(found, false)?.chunk.id);
        }
        chunks.retain(|chunk| Some(*chunk) != own);
        chunks.truncate(k);
        Ok(chunks)
    }
}

/// A passage of the document at an offset, looked for in both; `None` where the other has none.
fn compare_passage(
    one: &Side,
    other: &Side,
    (offset, sample): (u64, u64),
    k: usize,
) -> Result<Option<f64>, EngineError> {
    let page = one.view.documents_at(offset, 1, true)?;
    let Some(mine) = page.documents.into_iter().next() else { return Ok(None) };
    let Some(its) = other.view.document(mine.id, true)? else { return Ok(None) };
    // Not always the first one, which may be a title.
    let chunk = usize::try_from(sample).unwrap_or(0) % mine.chunks.len().max(1);
    let (Some(mine), Some(its)) = (mine.chunks.get(chunk), its.chunks.get(chunk)) else {
        return Ok(None);
    };
    let found = one.nearest(&mine.embedding, k, Some(mine.id))?;
    let found_there = other.nearest(&its.embedding, k, Some(its.id))?;
    Ok(Some(overlap(&found, &found_there)))
}

/// Which part of what one found the other found too; 1 where neither found anything.
fn overlap(one: &[ChunkId], other: &[ChunkId]) -> f64 {
    let most = one.len().max(other.len());
    if most == 0 {
        return 1.0;
    }
    let same = one.iter().filter(|chunk| other.contains(chunk)).count();
    same as f64 / most as f64
}
