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
    ChunkId, Command, Cursor, Document, DocumentId, DocumentRecord, Field, FieldSpec, FieldVectors,
    LibraryId, LibrarySpec, Metric, Nearest, Sequential, Tuning, View, normalized,
};
use tokio::sync::SemaphorePermit;

use crate::costs::Tally;
use crate::engine::{Engine, Inner};
use crate::error::EngineError;
use crate::generations::{Carry, CarryPair};
use crate::handle::{Author, Handle, Open, Room};
use crate::maintenance::blocking;
use crate::owed::Haste;
use crate::search::model_of;

/// Chunks that are embedded and written at a time, about.
const CARRY_CHUNKS: usize = 256;
/// Bytes of their texts, about.
const CARRY_BYTES: usize = 4 << 20;
/// Documents that are looked at at a time.
pub(crate) const CARRY_DOCUMENTS: usize = 1000;
/// Documents of which the model took none, before it is the model that takes none.
const DOUBTED_MAX: usize = 16;

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

impl Carried {
    fn add<'a>(&mut self, documents: impl Iterator<Item = &'a Document>) {
        for document in documents {
            self.documents += 1;
            self.chunks += document.chunks.len() as u64;
            let chars = document.chunks.iter().map(|chunk| chunk.text.chars().count() as u64);
            self.characters += chars.sum::<u64>();
        }
    }
}

/// Documents to be carried, and what became of them.
#[derive(Debug, Default)]
pub struct Load {
    /// Those that are still to be carried: where carrying fails, or ends before it is through.
    pub left: Vec<DocumentId>,
    /// What was carried.
    pub carried: Carried,
    /// Those of which the other model does not take a text, and why. They are tried again by who follows
    /// the log, seldom, and at once when they are changed.
    pub refused: Vec<(DocumentId, EngineError)>,
    /// Told what the other model uses for it.
    pub tally: Arc<Tally>,
}

impl Load {
    /// Documents of which nothing is carried yet.
    pub fn of(left: impl IntoIterator<Item = DocumentId>) -> Self {
        Self { left: left.into_iter().collect(), ..Self::default() }
    }

    /// The same, which tells what it uses.
    #[must_use]
    pub fn told_to(self, tally: &Arc<Tally>) -> Self {
        Self { tally: tally.clone(), ..self }
    }
}

/// Documents that a generation lacks.
#[derive(Debug, Clone)]
pub struct Uncarried {
    /// The documents.
    pub missing: Vec<DocumentId>,
    /// Documents that were looked at, and their chunks.
    pub seen: (u64, u64),
    /// Of these, what the generation has.
    pub there: Carried,
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
    /// those that it has are embedded and written there, unless the model takes no text of them. After
    /// an error, or if this is dropped, what is left is in `load`.
    ///
    /// # Errors
    /// [`EngineError::Generation`] if the library has no such pair of generations any more.
    pub async fn carry(&self, pair: &CarryPair, load: &mut Load) -> Result<(), EngineError> {
        self.0.carry(pair, load).await
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
        let (from, to) = (inner.opened(&from).await, inner.opened(&to).await);
        let view = |opened: Result<Arc<Open>, _>| opened.map(|open| open.view());
        let from = view(from).map_err(|error| of_pair(pair, error))?;
        let to = view(to).map_err(|error| of_pair(pair, error))?;
        blocking(move || {
            let page = from.ids_after(cursor, limit)?;
            let (mut missing, mut seen, mut there) = (Vec::new(), (0, 0), Carried::default());
            for (id, chunks) in page.documents {
                seen = (seen.0 + 1, seen.1 + u64::from(chunks));
                match to.document(id, false)? {
                    Some(document) => there.add(std::iter::once(&document)),
                    None => missing.push(id),
                }
            }
            Ok(Uncarried { missing, seen, there, next: page.next })
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
        tally: &Arc<Tally>,
    ) -> Result<Comparison, EngineError> {
        let inner = &self.0;
        let (from, to) = inner.both(pair)?;
        let one = Side::of(inner, &from).await.map_err(|error| of_pair(pair, error))?;
        let other = Side::of(inner, &to).await.map_err(|error| of_pair(pair, error))?;
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
        let vectors = (
            inner.of_queries(&one, &queries, tally).await?,
            inner.of_queries(&other, &queries, tally).await?,
        );
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

    /// Waits until nobody else carries documents of a pair.
    pub(crate) async fn turn<'a>(
        self: &Arc<Self>,
        carry: &'a Carry,
        (pair, haste): (&CarryPair, Haste),
    ) -> Result<Turn<'a>, EngineError> {
        let permit = carry.turn(haste).await?;
        // Looked at when it is its turn: who switches has it while it does.
        let (from, to) = self.both(pair)?;
        let spec = self.catalog.load().get(pair.to).cloned().ok_or_else(|| gone(pair.library))?;
        let view = self.opened(&from).await.map_err(|error| of_pair(pair, error))?.view();
        Ok(Turn { _permit: permit, view, to, spec })
    }

    pub(crate) async fn carry(
        self: &Arc<Self>,
        pair: &CarryPair,
        load: &mut Load,
    ) -> Result<(), EngineError> {
        self.check_disk()?;
        let carry = self.carrying.of(pair.library);
        // Before anything that needs a provider: what is deleted shall not be kept by one that fails.
        let deleted = self.carry_deletes((&carry, pair), &mut load.left).await;
        deleted.map_err(|error| of_pair(pair, error))?;
        // The first so many are those that the model did not take: the others are carried.
        let mut stuck: Vec<(DocumentId, EngineError)> = Vec::new();
        let (mut at_once, mut passed) = (CARRY_DOCUMENTS, false);
        while stuck.len() < load.left.len() {
            let begin = stuck.len();
            let turn = self.turn(&carry, (pair, Haste::None)).await?;
            // One that takes vectors only has none to make.
            model_of(&turn.spec, "").map_err(|_none| EngineError::Invalid {
                field: String::new(),
                detail: "these vectors were given by callers: no model makes any of what is \
                         written since"
                    .to_owned(),
            })?;
            let some: Vec<_> = load.left[begin..].iter().take(at_once).copied().collect();
            let (first, view) = (some.first().copied(), turn.view.clone());
            let read = blocking(move || read_some(&view, &some)).await?;
            let (documents, looked_at) = (read.documents, read.looked_at);
            let mut sum = load.carried;
            sum.add(documents.iter().map(|(document, _fields)| document));
            let made = tokio::select! {
                biased;
                made = self.embedded_documents(&turn.spec, documents, &load.tally) => made,
                // It is embedded again when those are through who have no time for that.
                () = carry.wanted_in_haste() => continue,
            };
            let made = match made {
                Err(error) if may_be_of_one(&error) => {
                    // Which one it is, is found out by halves.
                    at_once = looked_at / 2;
                    if let (1, Some(id)) = (looked_at, first) {
                        stuck.push((id, error));
                        // Where one is, there are others.
                    }
                    check_model(&stuck, (passed, DOUBTED_MAX))?;
                    at_once = at_once.max(1);
                    continue;
                }
                made => made?,
            };
            if !read.gone.is_empty() {
                let done = self.carry_one(&turn.to, Command::Delete(read.gone, None), None).await;
                done.map_err(|error| of_pair(pair, error))?;
            }
            if let Some((command, room)) = made {
                let done = self.carry_one(&turn.to, command, Some(room)).await;
                done.map_err(|error| of_pair(pair, error))?;
                passed = true;
            }
            let done: Vec<_> = load.left.drain(begin..begin + looked_at).collect();
            carry.settled(pair, &done);
            (load.carried, at_once) = (sum, (at_once * 2).min(CARRY_DOCUMENTS));
        }
        check_model(&stuck, (passed, 1))?;
        self.refuse((&carry, pair), stuck, load).await
    }

    /// Deletes from the other generation what the active one has not, which is removed from `ids`.
    pub(crate) async fn carry_deletes(
        self: &Arc<Self>,
        (carry, pair): (&Carry, &CarryPair),
        ids: &mut Vec<DocumentId>,
    ) -> Result<(), EngineError> {
        let mut looked_at = 0;
        while looked_at < ids.len() {
            let turn = self.turn(carry, (pair, Haste::None)).await?;
            let end = ids.len().min(looked_at + CARRY_DOCUMENTS);
            let (read, some) = (turn.view.clone(), ids[looked_at..end].to_vec());
            let (there, gone): (Vec<_>, Vec<_>) = blocking(move || {
                let (mut there, mut gone) = (Vec::new(), Vec::new());
                for id in some {
                    if read.contains(id)? { there.push(id) } else { gone.push(id) }
                }
                Ok((there, gone))
            })
            .await?;
            if !gone.is_empty() {
                self.carry_one(&turn.to, Command::Delete(gone.clone(), None), None).await?;
                carry.settled(pair, &gone);
            }
            let kept = there.len();
            ids.splice(looked_at..end, there);
            looked_at += kept;
        }
        Ok(())
    }

    /// Has the other generation have the active one's vector fields, those too in which there is nothing.
    pub(crate) async fn carry_fields(
        self: &Arc<Self>,
        pair: &CarryPair,
    ) -> Result<(), EngineError> {
        let (from, to) = (self.handle(pair.from)?, self.handle(pair.to)?);
        let there = self.opened(&to).await?.view();
        for (name, field) in self.opened(&from).await?.view().fields() {
            let has = there.fields().get(name).map(Field::spec);
            if has != Some(field.spec()) {
                let command = Command::PutField(FieldSpec::clone(field.spec()));
                self.carry_one(&to, command, None).await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn carry_one(
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
        documents: Vec<(Document, Vec<FieldVectors>)>,
        tally: &Arc<Tally>,
    ) -> Result<Option<(Command, Room)>, EngineError> {
        if documents.is_empty() {
            return Ok(None);
        }
        let (mut documents, fields): (Vec<_>, Vec<_>) = documents.into_iter().unzip();
        self.embed_anew(spec, documents.iter_mut(), tally).await?;
        let dimension = spec.dimension;
        let make = move || {
            // What they have in vector fields is not of the library's model, and stays as it is.
            let records = documents.iter().zip(&fields).map(|(document, fields)| {
                DocumentRecord::new(document, dimension)?.with_fields(&document.metadata, fields)
            });
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
    async fn embed_anew(
        self: &Arc<Self>,
        spec: &LibrarySpec,
        documents: impl Iterator<Item = &mut Document>,
        tally: &Arc<Tally>,
    ) -> Result<(), EngineError> {
        let mut chunks: Vec<_> = documents.flat_map(|document| &mut document.chunks).collect();
        let texts: Vec<String> = chunks.iter().map(|chunk| chunk.text.clone()).collect();
        if texts.is_empty() {
            return Ok(());
        }
        let texts = (InputType::Document, texts);
        let vectors = self.embed_tallied(spec, "", texts, tally).await?;
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
        tally: &Arc<Tally>,
    ) -> Result<Vec<Vec<f32>>, EngineError> {
        let texts = (InputType::Query, queries.to_vec());
        let vectors = self.embed_tallied(&side.spec, "/queries", texts, tally).await?;
        Ok(vectors.chunks_exact(side.spec.dimension as usize).map(<[f32]>::to_vec).collect())
    }
}

/// Whose turn it is to carry documents of a library.
pub(crate) struct Turn<'a> {
    _permit: SemaphorePermit<'a>,
    /// The active generation as it is now.
    pub(crate) view: Arc<View>,
    /// The other one.
    pub(crate) to: Arc<Handle>,
    spec: Arc<LibrarySpec>,
}

/// Whether an error may be of one document, so that others fare better without it.
fn may_be_of_one(error: &EngineError) -> bool {
    // Of a text, or of a vector that the library's metric has no use for.
    error.may_be_of_a_text() || matches!(error, EngineError::Generation(_))
}

/// Whether an error is said of one text by some servers, and of every request by others.
pub(crate) fn is_doubtful(error: &EngineError) -> bool {
    matches!(error, EngineError::Embedding(error) if error.is_doubtful())
}

/// Where nothing else passed, what may be of a text is of the model.
fn check_model(
    stuck: &[(DocumentId, EngineError)],
    (passed, doubted_max): (bool, usize),
) -> Result<(), EngineError> {
    let doubtful = |(_id, error): &&(DocumentId, EngineError)| is_doubtful(error);
    let mut doubted = stuck.iter().filter(doubtful);
    match doubted.next() {
        Some((_id, error)) if !passed && doubted.count() + 1 >= doubted_max => Err(error.clone()),
        _ => Ok(()),
    }
}

/// Some documents as they are now.
struct ReadSome {
    documents: Vec<(Document, Vec<FieldVectors>)>,
    /// Those that there are not.
    gone: Vec<DocumentId>,
    /// How many ids were looked for.
    looked_at: usize,
}

/// As many of these documents as are worked on at a time.
fn read_some(view: &View, ids: &[DocumentId]) -> Result<ReadSome, EngineError> {
    let mut read = ReadSome { documents: Vec::new(), gone: Vec::new(), looked_at: 0 };
    let (mut chunks, mut bytes) = (0, 0);
    for id in ids {
        if chunks >= CARRY_CHUNKS || bytes >= CARRY_BYTES {
            break;
        }
        read.looked_at += 1;
        let Some(document) = view.document(*id, false)? else {
            read.gone.push(*id);
            continue;
        };
        chunks += document.chunks.len();
        bytes += document.chunks.iter().map(|chunk| chunk.text.len()).sum::<usize>();
        let fields = view.field_vectors(*id)?;
        bytes += fields.iter().map(FieldVectors::bytes).sum::<usize>();
        read.documents.push((document, fields));
    }
    Ok(read)
}

/// What a write to the other generation of a pair came to.
pub(crate) fn of_pair(pair: &CarryPair, error: EngineError) -> EngineError {
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
            among: None,
        };
        let (found, _effort) = self.view.nearest(wanted, &Sequential)?;
        let mut chunks = Vec::with_capacity(found.len());
        for found in found {
            chunks.push(self.view.chunk_of(found.place, false)?.chunk.id);
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
