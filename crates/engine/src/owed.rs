//! What a generation is owed: documents of the active one that it has not, as its model gives no
//! vectors of them at present.
//!
//! Who follows the log passes on to what comes next, so that neither a provider that is down nor a
//! text that a model refuses keeps what was deleted where it was, or the log as long as it is. What a
//! generation has of such a document from before is deleted there first. So
//! everything up to what is noted to be carried is either in both, or in the active one only: what is
//! owed is always the difference of the two, and is written down nowhere. It is remembered here,
//! with the reasons; what is not remembered, after a start or beyond a bound, is looked for. A
//! switch is made where there is no difference, which two numbers say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Bound;
use std::sync::Arc;

use arrwdb_embed::EmbedError;
use arrwdb_state::{Command, Cursor, DocumentId, Generations, LibraryId, Seq, Stage};
use tokio::sync::SemaphorePermit;

use crate::carry::{CARRY_DOCUMENTS, Load, Turn, of_pair};
use crate::engine::{Engine, Inner};
use crate::error::EngineError;
use crate::generations::{Carry, CarryPair};
use crate::maintenance::blocking;

/// Documents that are remembered to be owed to one generation: some megabytes. The others are looked
/// for when there is room.
const OWED_MAX: usize = 100_000;

/// Whether who wants to carry waits until what is being embedded has its vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Haste {
    None,
    /// It is embedded again afterwards.
    Great,
}

/// What is owed to one generation.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    to: Option<LibraryId>,
    /// Those of which the model does not take a text, and why.
    refused: BTreeMap<DocumentId, String>,
    /// The last of these that was tried.
    tried: Option<DocumentId>,
    /// The others.
    waiting: BTreeSet<DocumentId>,
    /// Why these are not carried.
    why: Option<String>,
}

/// Which of the documents that are owed are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owing {
    /// Those that wait until the model can be asked.
    Waiting,
    /// Those of which it refused a text.
    Refused,
}

impl Owed {
    fn count(&self) -> usize {
        self.refused.len() + self.waiting.len()
    }

    fn remove(&mut self, id: &DocumentId) {
        self.refused.remove(id);
        self.waiting.remove(id);
    }

    /// What was refused; nothing if nothing was.
    fn refusal(&self) -> Option<String> {
        let (id, why) = self.refused.iter().next()?;
        Some(format!(
            "the other model takes no text of document {id} ({why}): change or delete the document \
             ({} in all), or take another model",
            self.refused.len()
        ))
    }

    fn describe(&self) -> Option<String> {
        let mut text = self.refusal().unwrap_or_default();
        if let Some(id) = self.waiting.iter().next() {
            let between = if text.is_empty() { "" } else { "; " };
            let why = self.why.as_deref().unwrap_or("they are being made");
            let count = counted(self.waiting.len() as u64);
            write!(
                text,
                "{between}no vectors of the other model yet: {count}, {id} among them: {why}"
            )
            .unwrap_or_default();
        }
        (!text.is_empty()).then_some(text)
    }

    /// Takes in what a generation is owed; what is beyond the bound is left to be looked for.
    fn owe(&mut self, ids: impl IntoIterator<Item = DocumentId>) {
        for id in ids {
            self.refused.remove(&id);
            if self.count() < OWED_MAX {
                self.waiting.insert(id);
            }
        }
    }

    fn refuse(&mut self, refused: impl IntoIterator<Item = (DocumentId, String)>) {
        for (id, why) in refused {
            self.waiting.remove(&id);
            if self.count() < OWED_MAX {
                self.refused.insert(id, why);
            }
        }
    }

    /// Some of those that the model refused, the others the next time.
    fn next_refused(&mut self) -> Vec<DocumentId> {
        let after = self.tried.map_or(Bound::Unbounded, Bound::Excluded);
        let some = self.refused.range((after, Bound::Unbounded)).take(CARRY_DOCUMENTS);
        let some: Vec<DocumentId> = some.map(|(id, _why)| *id).collect();
        self.tried = some.last().copied().filter(|_last| some.len() == CARRY_DOCUMENTS);
        some
    }
}

/// So many documents, in words.
pub(crate) fn counted(documents: u64) -> String {
    if documents == 1 { "1 document".to_owned() } else { format!("{documents} documents") }
}

/// Whether nothing is wrong but that there are no vectors to be had of the model now.
fn needs_model(error: &EngineError) -> bool {
    if let EngineError::Embedding(error) = error {
        return *error != EmbedError::Closed;
    }
    // One that takes vectors only has no model.
    matches!(error, EngineError::BudgetExceeded(_) | EngineError::Invalid { .. })
}

/// What may be said of an error to who owns a library: paths and offsets are for the server's log.
pub(crate) fn said(error: &EngineError) -> String {
    let hidden = matches!(
        error,
        EngineError::Storage { .. }
            | EngineError::Panicked
            | EngineError::Damaged { .. }
            | EngineError::LogFailed { .. }
            | EngineError::Locked { .. }
            | EngineError::DiskFull { .. }
            | EngineError::LibraryNotFound(_)
    );
    if hidden { "the server's log says why".to_owned() } else { error.to_string() }
}

impl Carry {
    /// Waits until nobody else carries documents.
    pub(crate) async fn turn(&self, haste: Haste) -> Result<SemaphorePermit<'_>, EngineError> {
        /// Counted until it has its turn, or does not want it any more.
        struct Waits<'a>(&'a Carry);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.in_haste.send_modify(|waiting| *waiting -= 1);
            }
        }
        let _waits = (haste == Haste::Great).then(|| {
            self.in_haste.send_modify(|waiting| *waiting += 1);
            Waits(self)
        });
        self.turn.acquire().await.map_err(|_closed| EngineError::Closed)
    }

    /// Resolves when somebody wants to carry who does not wait for vectors.
    pub(crate) async fn wanted_in_haste(&self) {
        let mut waiting = self.in_haste.subscribe();
        // The sender is not dropped while this is here.
        drop(waiting.wait_for(|waiting| *waiting > 0).await);
    }

    /// Changes what is owed to the other generation of a pair; who has a turn does.
    fn owes(&self, pair: &CarryPair, change: impl FnOnce(&mut Owed)) {
        {
            let mut owed = self.owed.lock();
            if owed.to != Some(pair.to) {
                *owed = Owed { to: Some(pair.to), ..Owed::default() };
            }
            change(&mut owed);
        }
        self.moved();
    }

    /// What is owed to the other generation of a pair.
    pub(crate) fn owed<T>(&self, pair: &CarryPair, look: impl FnOnce(&Owed) -> T) -> Option<T> {
        let owed = self.owed.lock();
        (owed.to == Some(pair.to)).then(|| look(&owed))
    }

    /// Documents that are as the active generation has them are not owed any more.
    pub(crate) fn settled(&self, pair: &CarryPair, ids: &[DocumentId]) {
        self.owes(pair, |owed| ids.iter().for_each(|id| owed.remove(id)));
    }

    /// Documents wait to be carried.
    pub(crate) fn is_owing(&self, pair: &CarryPair) -> bool {
        self.owed(pair, |owed| !owed.waiting.is_empty()).unwrap_or(false)
    }

    /// What is owed, and why; nothing if nothing is.
    pub(crate) fn owed_text(&self, pair: &CarryPair) -> Option<String> {
        self.owed(pair, Owed::describe).flatten()
    }

    /// What the model refused; nothing if nothing was.
    pub(crate) fn refusal(&self, pair: &CarryPair) -> Option<String> {
        self.owed(pair, Owed::refusal).flatten()
    }
}

impl Engine {
    /// As [`Engine::carry`], of who follows the log: what the model gives no vectors of now is owed,
    /// and nothing is left in `load`. While documents wait for the model, it is not asked for others.
    pub async fn keep_up(&self, pair: &CarryPair, load: &mut Load) -> Result<(), EngineError> {
        let carry = self.0.carrying.of(pair.library);
        let why = if carry.is_owing(pair) {
            self.0.carry_deletes((&carry, pair), &mut load.left).await?;
            None
        } else {
            match self.0.carry(pair, load).await {
                Err(error) if needs_model(&error) => Some(said(&error)),
                done => done.map(|()| None)?,
            }
        };
        self.0.owe((&carry, pair), load, (why, Haste::None)).await
    }

    /// Owes the other generation what is left of a load, without asking its model; soon, whoever is
    /// carrying.
    pub async fn owe(&self, pair: &CarryPair, load: &mut Load) -> Result<(), EngineError> {
        let carry = self.0.carrying.of(pair.library);
        self.0.owe((&carry, pair), load, (None, Haste::Great)).await
    }

    /// Whether there is something to be tried again; asked by who follows the log, and has had
    /// everything up to `position` carried.
    pub fn is_owing(&self, pair: &CarryPair, (owing, position): (Owing, Seq)) -> bool {
        let carry = self.0.carrying.of(pair.library);
        match owing {
            Owing::Refused => carry.owed(pair, |owed| !owed.refused.is_empty()).unwrap_or(false),
            Owing::Waiting => carry.is_owing(pair) || self.0.is_unknown((&carry, pair), position),
        }
    }

    /// Tries some of the documents again that are owed; how many were carried.
    pub async fn carry_owed(&self, pair: &CarryPair, owing: Owing) -> Result<u64, EngineError> {
        let carry = self.0.carrying.of(pair.library);
        if owing == Owing::Waiting && !carry.is_owing(pair) {
            self.0.look_for_owed((&carry, pair)).await?;
        }
        let mut ids = Vec::new();
        carry.owes(pair, |owed| match owing {
            Owing::Waiting => ids.extend(owed.waiting.iter().take(CARRY_DOCUMENTS)),
            Owing::Refused => ids = owed.next_refused(),
        });
        let mut load = Load::of(ids);
        let done = self.0.carry(pair, &mut load).await;
        if let Err(error) = &done
            && needs_model(error)
        {
            carry.owes(pair, |owed| owed.why = Some(said(error)));
        }
        done.map(|()| load.carried.documents)
    }
}

impl Inner {
    /// How many documents the other generation has less.
    pub(crate) fn lacking(&self, pair: &CarryPair) -> u64 {
        let documents = |id| self.handle(id).map_or(0, |handle| handle.counts().documents);
        // The greater first: what is carried in between is not missing.
        let from = documents(pair.from);
        from.saturating_sub(documents(pair.to))
    }

    /// Whether documents are owed that are not remembered: where more are missing than those, when
    /// everything up to the last record is carried.
    fn is_unknown(&self, (carry, pair): (&Carry, &CarryPair), position: Seq) -> bool {
        let known = carry.owed(pair, Owed::count).unwrap_or(0);
        let Ok(from) = self.handle(pair.from) else { return false };
        let counts = from.counts();
        let Ok(to) = self.handle(pair.to) else { return false };
        let missing = counts.documents.saturating_sub(to.counts().documents);
        let stage = self.catalog.load().generations(pair.library).and_then(Generations::other);
        // Who makes it carries what it still lacks.
        let whole = stage.is_some_and(|other| other.stage != Stage::Building);
        whole && known < OWED_MAX && missing > known as u64 && counts.applied <= position
    }

    /// Looks for what the other generation lacks.
    async fn look_for_owed(
        self: &Arc<Self>,
        (carry, pair): (&Carry, &CarryPair),
    ) -> Result<(), EngineError> {
        let mut cursor: Option<Cursor> = None;
        loop {
            let turn = self.turn(carry, (pair, Haste::None)).await?;
            let to = self.opened(&turn.to).await.map_err(|error| of_pair(pair, error))?.view();
            let from = turn.view.clone();
            let (missing, next) = blocking(move || {
                let page = from.ids_after(cursor, CARRY_DOCUMENTS)?;
                let mut missing = Vec::new();
                for (id, _chunks) in page.documents {
                    if !to.contains(id)? {
                        missing.push(id);
                    }
                }
                Ok::<_, EngineError>((missing, page.next))
            })
            .await?;
            let mut full = false;
            carry.owes(pair, |owed| {
                let refused = |id: &DocumentId| owed.refused.contains_key(id);
                let missing: Vec<_> = missing.into_iter().filter(|id| !refused(id)).collect();
                owed.owe(missing);
                full = owed.count() >= OWED_MAX;
            });
            if full || next.is_none() {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Owes what is left of a load.
    async fn owe(
        self: &Arc<Self>,
        (carry, pair): (&Carry, &CarryPair),
        load: &mut Load,
        (why, haste): (Option<String>, Haste),
    ) -> Result<(), EngineError> {
        while !load.left.is_empty() {
            let turn = self.turn(carry, (pair, haste)).await?;
            let some = load.left[..load.left.len().min(CARRY_DOCUMENTS)].to_vec();
            let owed = self.delete_stale((carry, pair), &turn, some.clone()).await?;
            carry.owes(pair, |all| {
                all.owe(owed);
                all.why = why.clone().or(all.why.take()).filter(|_why| !all.waiting.is_empty());
            });
            load.left.drain(..some.len());
        }
        Ok(())
    }

    /// Owes documents of which the model does not take a text; they are the first that are left.
    pub(crate) async fn refuse(
        self: &Arc<Self>,
        (carry, pair): (&Carry, &CarryPair),
        stuck: Vec<(DocumentId, EngineError)>,
        load: &mut Load,
    ) -> Result<(), EngineError> {
        for stuck in stuck.chunks(CARRY_DOCUMENTS) {
            let turn = self.turn(carry, (pair, Haste::None)).await?;
            let ids: Vec<DocumentId> = stuck.iter().map(|(id, _why)| *id).collect();
            let owed = self.delete_stale((carry, pair), &turn, ids).await?;
            let refused = stuck.iter().filter(|(id, _why)| owed.contains(id));
            let refused: Vec<_> = refused.cloned().collect();
            let texts = refused.iter().map(|(id, error)| (*id, said(error)));
            carry.owes(pair, |all| all.refuse(texts));
            load.refused.extend(refused);
            load.left.drain(..stuck.len());
        }
        Ok(())
    }

    /// Deletes from the other generation what is not as the active one has it; which documents it
    /// lacks then.
    async fn delete_stale(
        self: &Arc<Self>,
        (carry, pair): (&Carry, &CarryPair),
        turn: &Turn<'_>,
        ids: Vec<DocumentId>,
    ) -> Result<Vec<DocumentId>, EngineError> {
        let to = self.opened(&turn.to).await.map_err(|error| of_pair(pair, error))?.view();
        let (from, some) = (turn.view.clone(), ids.clone());
        let (stale, owed) = blocking(move || {
            let (mut stale, mut owed) = (Vec::new(), Vec::new());
            for id in some {
                let now = from.document(id, false)?;
                if now.is_some() && now == to.document(id, false)? {
                    continue;
                }
                // Also one that it has not: it may be about to be written.
                stale.push(id);
                if now.is_some() {
                    owed.push(id);
                }
            }
            Ok::<_, EngineError>((stale, owed))
        })
        .await?;
        if !stale.is_empty() {
            let done = self.carry_one(&turn.to, Command::Delete(stale, None), None).await;
            done.map_err(|error| of_pair(pair, error))?;
        }
        carry.settled(pair, &ids);
        Ok(owed)
    }
}
