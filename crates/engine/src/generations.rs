//! The generations of a library: a second embedding model beside the first, and the switch from one
//! to the other.
//!
//! ```text
//! begin -> documents are carried (whoever follows the log, and a job) -> prepared
//!   -> switch: writers stop -> all they wrote is carried -> one record of the catalog -> they go on
//! ```
//!
//! It keeps N5: writes are refused by the generation that is left before it is known to be carried whole,
//! and made anew with the other model.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrwdb_log::TrimReport;
use arrwdb_state::{
    CatalogCommand, GenerationChange, Generations, LibraryId, LibrarySpec, MatchPosition,
    ModelName, OtherGeneration, Seq, Stage, TenantId,
};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use crate::carry::gone;
use crate::engine::{Engine, Inner};
use crate::error::{EngineError, RETRY_AFTER};
use crate::handle::{Author, Handle};
use crate::indexing::check_index;
use crate::owed::{Haste, Owed, counted, said};
use crate::request::{NewLibrary, Written};
use crate::search::model_of;
use crate::system::new_uuid;
use crate::turns::Adds;

/// How long a switch waits until everything is carried, before writers are stopped, and then.
const SWITCH_WAIT_MAX: Duration = Duration::from_secs(8);
/// How long a write waits for a switch.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(25);
/// How long a purge waits until everything is carried.
const PURGE_WAIT_MAX: Duration = Duration::from_secs(30);
/// Where a write is refused that comes at the time of a switch.
const SWITCHING: &str = "the library, whose embedding model is being changed,";
/// How long it is at least, and at most, not noted how far documents are carried where nothing is to be
/// carried.
const NOTE_EVERY_MIN: Duration = Duration::from_secs(10);
const NOTE_EVERY_MAX: Duration = Duration::from_hours(1);

/// What was not carried is lost.
fn broken() -> EngineError {
    let detail = "changes of the library are missing in the vectors of the other model, and are \
                  not in the log any more: discard them and make new ones";
    EngineError::Generation(detail.into())
}

/// A write that came while another generation becomes the active one.
pub(crate) fn switching() -> EngineError {
    EngineError::Busy { what: SWITCHING, retry_after: RETRY_AFTER }
}

/// Whether a write was refused for that.
pub(crate) fn is_switching(error: &EngineError) -> bool {
    matches!(error, EngineError::Busy { what, .. } if *what == SWITCHING)
}

/// What is carried from active generations to others, by library.
#[derive(Debug, Default)]
pub(crate) struct Carrying {
    libraries: Mutex<BTreeMap<LibraryId, Arc<Carry>>>,
    /// Up to which record somebody waits until it is noted in the log that all is carried.
    wanted: watch::Sender<u64>,
    /// Held while records leave the log, until it is known which.
    trimming: Mutex<()>,
}

/// What is carried of one library.
#[derive(Debug)]
pub(crate) struct Carry {
    /// Who carries documents has it: what is carried last is what was read last.
    pub(crate) turn: Semaphore,
    /// How many want it who do not wait for vectors.
    pub(crate) in_haste: watch::Sender<usize>,
    /// What the other generation lacks, as its model gives no vectors of it now.
    pub(crate) owed: Mutex<Owed>,
    /// Who switches has it.
    switch: Semaphore,
    /// Up to which record all is carried, and to which generation.
    to: watch::Sender<(Option<LibraryId>, Seq)>,
    /// Why nothing is carried at present, and to which generation.
    error: Mutex<Option<(LibraryId, String)>>,
}

impl Carry {
    /// Has who waits for what is carried look again.
    pub(crate) fn moved(&self) {
        self.to.send_modify(|_to| {});
    }

    /// Why something of a pair is not carried.
    fn why(&self, pair: &CarryPair) -> Option<String> {
        let error = self.error.lock().clone().filter(|(to, _why)| *to == pair.to);
        error.map(|(_to, why)| why).or_else(|| self.owed_text(pair))
    }
}

/// Until when who waits for what is carried does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// Nothing waits to be embedded.
    CaughtUp,
    /// The same, and the model refused nothing.
    Whole,
    /// Both generations have the same documents.
    Same,
}

impl Carrying {
    pub(crate) fn of(&self, library: LibraryId) -> Arc<Carry> {
        let begin = || {
            let (turn, switch) = (Semaphore::new(1), Semaphore::new(1));
            let (to, in_haste) = (watch::Sender::new((None, Seq::START)), watch::Sender::new(0));
            let (owed, error) = (Mutex::default(), Mutex::default());
            Arc::new(Carry { turn, in_haste, owed, switch, to, error })
        };
        self.libraries.lock().entry(library).or_insert_with(begin).clone()
    }

    pub(crate) fn forget(&self, library: LibraryId) {
        self.libraries.lock().remove(&library);
    }
}

/// A library whose active generation is carried to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CarryPair {
    /// The library.
    pub library: LibraryId,
    /// The active generation.
    pub from: LibraryId,
    /// The other one.
    pub to: LibraryId,
    /// Everything up to this record is carried, as it is noted in the log.
    pub after: Seq,
}

/// A model that a library shall have vectors of besides.
#[derive(Debug, Clone, Default)]
pub struct NewGeneration {
    /// `local`, `cohere` or `openai`; the configured default when absent.
    pub embedding_provider: Option<String>,
    /// The provider's model; its default when absent.
    pub embedding_model: Option<String>,
    /// Dimension of the vectors; the model's own when absent.
    pub embedding_dimension: Option<u32>,
    /// Who makes it, to be found again after a restart.
    pub made_by: String,
}

/// The vectors that a library has.
#[derive(Debug, Clone)]
pub struct LibraryEmbeddings {
    /// What it is searched by.
    pub active: ModelVectors,
    /// The record that made them active; [`Seq::START`] if they always were.
    pub since: Seq,
    /// Those of another model, if there are any.
    pub other: Option<OtherVectors>,
    /// What this is true at.
    pub seq: Seq,
}

/// Vectors of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelVectors {
    /// The generation that holds them.
    pub generation: LibraryId,
    /// The model.
    pub model: ModelName,
    /// Their dimension.
    pub dimension: u32,
    /// Documents.
    pub documents: u64,
    /// Chunks.
    pub chunks: u64,
    /// Who made them, where that is remembered: not of those that the library began with.
    pub made_by: Option<String>,
}

/// Vectors that are kept beside those that are searched.
#[derive(Debug, Clone)]
pub struct OtherVectors {
    /// The vectors.
    pub vectors: ModelVectors,
    /// What they are.
    pub stage: Stage,
    /// Records of the library after what is carried: at most so many are missing.
    pub behind_records: u64,
    /// How many documents they have less than those that are searched.
    pub missing_documents: u64,
    /// What was not carried is not in the log any more: they can only be discarded.
    pub broken: bool,
    /// Why something is not carried at present.
    pub error: Option<String>,
}

impl Engine {
    /// The libraries whose documents are to be carried to another generation.
    pub fn carry_pairs(&self) -> Vec<CarryPair> {
        let catalog = self.0.catalog.load_full();
        catalog.all_generations().filter_map(|it| self.0.carry_pair(it)).collect()
    }

    /// That of one library; `None` if it has no other generation.
    pub fn carry_pair(&self, library: LibraryId) -> Option<CarryPair> {
        self.0.carry_pair(self.0.catalog.load().generations(library)?)
    }

    /// Waits until the catalog has a record after `after`.
    pub async fn catalog_changed(&self, after: Seq) -> Seq {
        loop {
            // Registered before looking, so that no progress in between is missed.
            let progressed = self.0.catalog_progress.notified();
            let applied = self.0.catalog.load().applied();
            // Not before it is done: until then a new generation is in the catalog and cannot be
            // written to, and who looks would not look again.
            if applied > after && self.0.catalog_unapplied.published_to() >= applied.get() {
                return applied;
            }
            progressed.await;
        }
    }

    /// Every generation of a library that is, or is remembered to have been, active.
    pub fn generations_of(&self, library: LibraryId) -> Vec<LibraryId> {
        let catalog = self.0.catalog.load();
        let mut all = vec![library];
        all.extend(catalog.generations(library).into_iter().flat_map(Generations::all));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Said by who follows the log: everything up to `through` is carried. It is noted in the log,
    /// where `note` says so, and is then known after a restart.
    pub async fn carried(
        &self,
        pair: &CarryPair,
        through: Seq,
        note: bool,
    ) -> Result<(), EngineError> {
        // Who still works on a pair that is no more says nothing of the next one.
        let now = self.carry_pair(pair.library);
        now.filter(|now| (now.from, now.to) == (pair.from, pair.to))
            .ok_or_else(|| gone(pair.library))?;
        let carry = self.0.carrying.of(pair.library);
        if note {
            self.0.note_carried(pair, through).await?;
        }
        *carry.error.lock() = None;
        carry.to.send_if_modified(|(to, seq)| {
            let ahead = *to != Some(pair.to) || *seq < through;
            if ahead {
                (*to, *seq) = (Some(pair.to), through);
            }
            ahead
        });
        Ok(())
    }

    /// Whether something of a library after `position` is not in the log any more.
    pub fn has_lost(&self, pair: &CarryPair, position: Seq) -> bool {
        self.0.has_lost(pair, position)
    }

    /// Said by who follows the log: nothing is carried at present.
    pub fn carrying_failed(&self, pair: &CarryPair, why: &EngineError) {
        *self.0.carrying.of(pair.library).error.lock() = Some((pair.to, said(why)));
    }

    /// How often it has to be noted at least how far documents are carried, so that the log can be
    /// trimmed.
    pub fn note_carried_every(&self) -> Duration {
        (self.0.config.feed_retention / 2).clamp(NOTE_EVERY_MIN, NOTE_EVERY_MAX)
    }

    /// Resolves when somebody waits until it is noted that documents are carried further than to
    /// `noted`.
    pub async fn carried_wanted(&self, noted: Seq) {
        let mut wanted = self.0.carrying.wanted.subscribe();
        // The sender is not dropped while the engine is here.
        drop(wanted.wait_for(|wanted| *wanted > noted.get()).await);
    }

    /// Whether somebody does.
    pub fn is_carried_wanted(&self, noted: Seq) -> bool {
        *self.0.carrying.wanted.borrow() > noted.get()
    }

    /// Waits until everything that a library has now is carried. That may never be, where nobody
    /// carries: who waits should not wait for ever.
    ///
    /// # Errors
    /// [`EngineError::Generation`] if the library has no such pair of generations any more, or what
    /// is missing is not in the log any more.
    pub async fn caught_up(&self, pair: &CarryPair) -> Result<(), EngineError> {
        let handle = self.0.handle(pair.from).map_err(|_gone| gone(pair.library))?;
        self.0.reached(pair, (handle.settled().await, Goal::CaughtUp)).await
    }

    /// Why something of a library is not carried at present.
    pub fn carrying_error(&self, pair: &CarryPair) -> Option<String> {
        self.0.carrying.of(pair.library).why(pair)
    }

    /// What vectors a library has.
    pub async fn embeddings(
        &self,
        tenant: TenantId,
        library: LibraryId,
        min_seq: Option<Seq>,
    ) -> Result<LibraryEmbeddings, EngineError> {
        let inner = &self.0;
        let (spec, handle, _since) = inner.placed(tenant, library, min_seq).await?;
        inner.wait_for_catalog(min_seq).await?;
        if let Some(wanted) = min_seq {
            inner.wait_for(&handle, wanted).await?;
        }
        // Looked at before the catalog and the counts are, so that whatever was published by then is
        // in them.
        let published = inner.catalog_unapplied.published_to();
        let seq = handle.published_to(inner.log.durable()).min(Seq::new(published));
        let catalog = inner.catalog.load_full();
        let vectors = |id: LibraryId, spec: &LibrarySpec| {
            let counts = inner.handle(id).map(|handle| handle.counts()).ok();
            ModelVectors {
                generation: id,
                model: spec.model.clone(),
                dimension: spec.dimension,
                documents: counts.map_or(0, |counts| counts.documents),
                chunks: counts.map_or(0, |counts| counts.chunks),
                made_by: catalog
                    .get(id)
                    .and_then(|spec| spec.generation_of.and(spec.description.clone())),
            }
        };
        let generations = catalog.generations(library);
        let shown = generations.map_or(&spec, Generations::spec);
        let active = vectors(catalog.active(library), shown);
        let since = generations.map_or(Seq::START, Generations::since);
        let other = generations.and_then(|generations| {
            let pair = inner.carry_pair(generations)?;
            let other = generations.other()?;
            let spec = catalog.get(other.id)?;
            Some(OtherVectors {
                vectors: vectors(other.id, spec),
                stage: other.stage,
                behind_records: inner.behind(&pair),
                missing_documents: inner.lacking(&pair),
                broken: inner.is_broken(&pair),
                error: inner.carrying.of(library).why(&pair),
            })
        });
        Ok(LibraryEmbeddings { active, since, other, seq })
    }

    /// Refuses what [`Engine::begin_generation`] would refuse.
    pub async fn check_generation(
        &self,
        tenant: TenantId,
        library: LibraryId,
        new: &NewGeneration,
    ) -> Result<(), EngineError> {
        let inner = &self.0;
        let spec = inner.spec(tenant, library, None).await?;
        let generation = inner.generation_spec(&spec, new)?;
        let catalog = inner.catalog.load_full();
        let command = CatalogCommand::Create(generation);
        let decided = catalog.decide(command, inner.parts.clock.now());
        decided.map(drop).map_err(crate::catalog::refused)
    }

    /// Makes room for the vectors of another model beside those that a library has. Documents are
    /// carried there by who follows the log, as they change, and by [`Engine::carry`].
    pub async fn begin_generation(
        &self,
        tenant: TenantId,
        library: LibraryId,
        new: &NewGeneration,
    ) -> Result<Written<CarryPair>, EngineError> {
        let inner = &self.0;
        inner.check_disk()?;
        let spec = inner.spec(tenant, library, None).await?;
        let generation = inner.generation_spec(&spec, new)?;
        let written = inner.change_catalog(CatalogCommand::Create(generation)).await?;
        let pair = self.carry_pair(library).ok_or(EngineError::LibraryNotFound(library))?;
        // What was appended before is not carried by who follows the log: it has to be there to be
        // read.
        inner.wait_for(&*inner.handle(pair.from)?, written.seq).await?;
        Ok(Written { seq: written.seq, value: pair })
    }

    /// Says that a generation has all documents: it can be activated from here on.
    pub async fn prepare_generation(
        &self,
        tenant: TenantId,
        pair: &CarryPair,
    ) -> Result<Written<()>, EngineError> {
        let (id, generation, change) = (pair.library, pair.to, GenerationChange::Prepare);
        let command = CatalogCommand::ChangeGeneration { tenant, id, generation, change };
        let written = self.0.change_catalog(command).await?;
        Ok(Written { seq: written.seq, value: () })
    }

    /// Has a library searched by the vectors of its other model, which are prepared, from here on.
    /// Writes wait meanwhile; those that came before are in both.
    pub async fn activate_generation(
        &self,
        tenant: TenantId,
        library: LibraryId,
    ) -> Result<Written<LibrarySpec>, EngineError> {
        self.0.switch(tenant, library, Stage::Prepared).await
    }

    /// Has a library searched by the vectors again that it was searched by before. Nothing that was
    /// written since is lost.
    pub async fn roll_back_generation(
        &self,
        tenant: TenantId,
        library: LibraryId,
    ) -> Result<Written<LibrarySpec>, EngineError> {
        self.0.switch(tenant, library, Stage::Previous).await
    }

    /// Removes the vectors that a library is not searched by.
    pub async fn discard_generation(
        &self,
        tenant: TenantId,
        library: LibraryId,
        generation: Option<LibraryId>,
    ) -> Result<Written<LibrarySpec>, EngineError> {
        let inner = &self.0;
        inner.spec(tenant, library, None).await?;
        let other = inner.catalog.load().generations(library).and_then(Generations::other);
        // Without one it is refused, with the reason.
        let generation = generation.or(other.map(|other| other.id)).unwrap_or(library);
        let (id, change) = (library, GenerationChange::Discard);
        let command = CatalogCommand::ChangeGeneration { tenant, id, generation, change };
        inner.change_catalog(command).await
    }
}

impl Inner {
    fn carry_pair(&self, generations: &Generations) -> Option<CarryPair> {
        let OtherGeneration { id, since, stage: _ } = generations.other()?;
        let noted = self.handle(id).ok()?.counts().matched.whole();
        let (library, from) = (generations.spec().id, generations.active());
        Some(CarryPair { library, from, to: id, after: noted.max(since) })
    }

    /// Up to which record everything is carried.
    fn carried_to(&self, pair: &CarryPair) -> Seq {
        let (to, seq) = *self.carrying.of(pair.library).to.borrow();
        if to == Some(pair.to) { seq.max(pair.after) } else { pair.after }
    }

    fn behind(&self, pair: &CarryPair) -> u64 {
        let applied = self.handle(pair.from).map_or(Seq::START, |handle| handle.counts().applied);
        applied.get().saturating_sub(self.carried_to(pair).get())
    }

    /// Whether records that were not carried may be gone from the log.
    pub(crate) fn is_broken(&self, pair: &CarryPair) -> bool {
        self.has_lost(pair, self.carried_to(pair))
    }

    /// Whether records of the active generation after `position` may be gone from the log. Others may
    /// be: nothing was to be carried of them.
    fn has_lost(&self, pair: &CarryPair, position: Seq) -> bool {
        // Who met a record that is gone waits until it is known which ones are.
        let _trimmed = self.carrying.trimming.lock();
        let gone = self.handle(pair.from).map_or(0, |from| from.gone.load(Ordering::SeqCst));
        gone.min(self.log.first().saturating_sub(1)) > position.get()
    }

    /// Trims the log up to this record, as far as whole files go, and takes in what is gone then,
    /// also where that failed halfway.
    pub(crate) fn trim(&self, up_to: u64) -> Result<TrimReport, EngineError> {
        let _trimming = self.carrying.trimming.lock();
        let first = self.log.first();
        let report = self.log.trim(up_to);
        if self.log.first() != first {
            self.trimmed();
        }
        Ok(report?)
    }

    fn trimmed(&self) {
        let gone = self.log.first().saturating_sub(1);
        let catalog = self.catalog.load_full();
        for pair in catalog.all_generations().filter_map(|it| self.carry_pair(it)) {
            let Ok(from) = self.handle(pair.from) else { continue };
            from.gone.fetch_max(from.counts().applied.get().min(gone), Ordering::SeqCst);
        }
    }

    /// Has it noted how far documents are carried, up to `seq` at least; what was asked for before.
    pub(crate) fn want_noted(&self, seq: u64) -> u64 {
        let mut before = 0;
        self.carrying.wanted.send_if_modified(|wanted| {
            before = *wanted;
            *wanted = seq.max(*wanted);
            *wanted > before
        });
        before
    }

    /// What of the log is kept for what is carried: records after this one.
    pub(crate) fn carried_from(&self) -> u64 {
        let catalog = self.catalog.load();
        let pairs = catalog.all_generations().filter_map(|it| self.carry_pair(it));
        let kept = pairs.filter(|pair| !self.is_broken(pair)).map(|pair| pair.after.get());
        kept.min().unwrap_or(u64::MAX)
    }

    /// Discards the vectors to which what was not carried is not in the log any more. They can only
    /// be discarded, and hold what was deleted since.
    pub(crate) async fn discard_broken(&self) -> Result<(), EngineError> {
        let catalog = self.catalog.load_full();
        for generations in catalog.all_generations() {
            let pair = self.carry_pair(generations).filter(|pair| self.is_broken(pair));
            let Some(CarryPair { library: id, to: generation, .. }) = pair else { continue };
            let (tenant, change) = (generations.spec().tenant, GenerationChange::Discard);
            let command = CatalogCommand::ChangeGeneration { tenant, id, generation, change };
            match self.change_catalog(command).await {
                // Somebody else did that.
                Err(EngineError::Generation(_) | EngineError::LibraryNotFound(_)) => {}
                discarded => {
                    discarded?;
                    tracing::warn!(library = %id, "vectors that missed changes were discarded");
                }
            }
        }
        Ok(())
    }

    /// Waits until everything up to `seq` is noted to be carried, of all libraries.
    pub(crate) async fn carried_past(&self, seq: Seq) -> Result<(), EngineError> {
        let until = tokio::time::Instant::now() + PURGE_WAIT_MAX;
        self.want_noted(seq.get());
        loop {
            // Registered before looking, so that no progress in between is missed.
            let progressed = self.catalog_progress.notified();
            let catalog = self.catalog.load_full();
            let mut pairs = catalog.all_generations().filter_map(|it| self.carry_pair(it));
            let Some(behind) = pairs.find(|pair| pair.after < seq) else { return Ok(()) };
            let handle = self.handle(behind.to);
            let noted = async {
                let Ok(handle) = &handle else { return };
                let noted = handle.progress.notified();
                if handle.counts().matched.whole() <= behind.after {
                    noted.await;
                }
            };
            let late = tokio::select! {
                () = progressed => false,
                () = noted => false,
                () = tokio::time::sleep_until(until) => true,
                // Whoever carries is closed before.
                () = self.upkeep.closing().begun() => return Err(EngineError::Closed),
            };
            if late || self.is_broken(&behind) {
                let detail = format!(
                    "what was deleted is still in the vectors of the second embedding model of \
                     library {}, to which changes are not carried yet: purge again when they are, \
                     or discard them",
                    behind.library
                );
                return Err(EngineError::Storage { detail });
            }
        }
    }

    async fn note_carried(
        self: &Arc<Self>,
        pair: &CarryPair,
        through: Seq,
    ) -> Result<(), EngineError> {
        let handle = self.handle(pair.to)?;
        let matched = arrwdb_state::QueriesMatched {
            // Given by the writer.
            at: arrwdb_state::Timestamp::from_micros(0),
            library: pair.from,
            through: MatchPosition::after(through),
            passages: Vec::new(),
        };
        let commands = vec![arrwdb_state::Command::Match(matched)];
        let done = self.write_as(Author::Carrier, &handle, commands, None).await;
        done.into_iter().next().unwrap_or(Err(EngineError::Closed)).map(drop)
    }

    /// Waits until everything up to `seq` is carried; an error if there is no such pair any more, or
    /// it never will be.
    async fn reached(&self, pair: &CarryPair, (seq, goal): (Seq, Goal)) -> Result<(), EngineError> {
        let carry = self.carrying.of(pair.library);
        let mut moved = carry.to.subscribe();
        loop {
            // Registered before looking, so that no progress in between is missed.
            let progressed = self.catalog_progress.notified();
            let catalog = self.catalog.load_full();
            let now = catalog.generations(pair.library).and_then(|it| self.carry_pair(it));
            let now = now.filter(|now| (now.from, now.to) == (pair.from, pair.to));
            let now = now.ok_or_else(|| match catalog.library(pair.library) {
                Some(_spec) => gone(pair.library),
                None => EngineError::LibraryNotFound(pair.library),
            })?;
            moved.borrow_and_update();
            if self.carried_to(&now) >= seq {
                // It is not waited for: that is for who owns the documents to mend.
                let refusal = carry.refusal(&now).filter(|_refusal| goal != Goal::CaughtUp);
                if let Some(refusal) = refusal {
                    return Err(EngineError::Generation(refusal));
                }
                let same = goal != Goal::Same || self.lacking(&now) == 0;
                if same && !carry.is_owing(&now) {
                    return Ok(());
                }
            }
            if self.is_broken(&now) {
                return Err(broken());
            }
            tokio::select! {
                () = progressed => {}
                changed = moved.changed() => changed.map_err(|_closed| gone(pair.library))?,
            }
        }
    }

    fn generation_spec(
        &self,
        spec: &LibrarySpec,
        new: &NewGeneration,
    ) -> Result<LibrarySpec, EngineError> {
        let as_new = NewLibrary {
            name: String::new(),
            description: None,
            index: spec.index,
            metric: spec.metric,
            language: spec.language,
            embedding_provider: new.embedding_provider.clone(),
            embedding_model: new.embedding_model.clone(),
            embedding_dimension: new.embedding_dimension,
        };
        let (model, dimension) = self.model_for(&as_new)?;
        let created_at = self.parts.clock.now();
        let generation = LibrarySpec {
            // Always a new one, as a library's.
            id: LibraryId::new(new_uuid(created_at, &*self.parts.random)),
            tenant: spec.tenant,
            name: "generation".into(),
            description: Some(new.made_by.clone()),
            created_at,
            index: spec.index,
            metric: spec.metric,
            model,
            dimension,
            companion_of: None,
            generation_of: Some(spec.id),
            language: spec.language,
        };
        // One that takes vectors only makes none.
        model_of(&generation, "/embedding_dimension")?;
        check_index(spec.index, dimension).map_err(|error| {
            EngineError::Generation(format!(
                "what the library is searched by does not go with {dimension} dimensions ({error}): \
                 change it with index/rebuild first"
            ))
        })?;
        Ok(generation)
    }

    /// The generations of a library that there are.
    pub(crate) fn generations_of(&self, library: LibraryId) -> Vec<Arc<Handle>> {
        let catalog = self.catalog.load();
        let other = catalog.generations(library).and_then(Generations::other);
        let all = [catalog.active(library)].into_iter().chain(other.map(|other| other.id));
        all.filter_map(|id| self.handle(id).ok()).collect()
    }

    /// After a switch: who may write to what. Only the catalog's writer does this.
    pub(crate) fn take_turns(&self, library: LibraryId) {
        for handle in self.generations_of(library) {
            self.take_turn(&handle);
            if let Ok(companion) = self.handle(handle.id.companion()) {
                self.take_turn(&companion);
            }
            handle.progress.notify_waiters();
        }
    }

    /// Says who may write to what the catalog has of this id.
    pub(crate) fn take_turn(&self, handle: &Handle) {
        let catalog = self.catalog.load();
        match catalog.get(handle.id).and_then(|spec| spec.companion_of) {
            Some(generation) => handle.turns.set_left(catalog.is_passive(generation)),
            None => handle.turns.set_passive(catalog.is_passive(handle.id)),
        }
    }

    /// Whether a library is read and written elsewhere by now.
    pub(crate) fn is_moved(&self, library: LibraryId, from: &Handle) -> bool {
        let catalog = self.catalog.load();
        catalog.library(library).is_some() && catalog.active(library) != from.id
    }

    /// Waits, for a bounded time, until writes that a handle refused are possible again, there or
    /// elsewhere.
    pub(crate) async fn after_switch(&self, library: LibraryId, handle: &Handle) -> bool {
        let possible = async {
            loop {
                // Registered before looking, so that no progress in between is missed.
                let (progress, catalog) =
                    (handle.progress.notified(), self.catalog_progress.notified());
                if handle.check().is_err()
                    || self.is_moved(library, handle)
                    || !handle.turns.refuse(Author::Caller, Adds::Documents)
                {
                    return;
                }
                tokio::select! {
                    () = progress => {}
                    () = catalog => {}
                }
            }
        };
        tokio::time::timeout(WRITE_WAIT_MAX, possible).await.is_ok()
    }

    async fn switch(
        self: &Arc<Self>,
        tenant: TenantId,
        library: LibraryId,
        stage: Stage,
    ) -> Result<Written<LibrarySpec>, EngineError> {
        self.spec(tenant, library, None).await?;
        self.check_disk()?;
        let engine = self.clone();
        // Whoever asks may leave: what is begun is ended, or writers would go on too soon.
        let switched = tokio::spawn(async move { engine.switch_now(tenant, library, stage).await });
        switched.await.map_err(|error| EngineError::Storage { detail: error.to_string() })?
    }

    async fn switch_now(
        self: &Arc<Self>,
        tenant: TenantId,
        id: LibraryId,
        stage: Stage,
    ) -> Result<Written<LibrarySpec>, EngineError> {
        let carry = self.carrying.of(id);
        let _switch = carry.switch.try_acquire().map_err(|_taken| switching())?;
        let catalog = self.catalog.load_full();
        let other = catalog.generations(id).and_then(Generations::other);
        // Without one it is refused, with the reason.
        let generation = other.map_or(id, |other| other.id);
        let change = GenerationChange::Activate(stage);
        let command = CatalogCommand::ChangeGeneration { tenant, id, generation, change };
        let decided = catalog.decide(command.clone(), self.parts.clock.now());
        decided.map_err(crate::catalog::refused)?;
        let pair = catalog.generations(id).and_then(|it| self.carry_pair(it));
        let pair = pair.ok_or(EngineError::LibraryNotFound(id))?;
        if self.is_broken(&pair) {
            return Err(broken());
        }
        let from = self.handle(pair.from)?;
        // Looked at again when none can be added; nobody has to wait for what is refused anyway.
        self.check_no_queries(&pair).await?;
        // Almost everything is carried before anybody has to wait.
        self.carried_in_time(&pair, (from.settled().await, Goal::Whole)).await?;
        let sealed = self.seal(&pair)?;
        let last = from.settled().await;
        self.carried_in_time(&pair, (last, Goal::Same)).await?;
        self.check_no_queries(&pair).await?;
        // Nothing is being carried any more.
        let turn = tokio::time::timeout(SWITCH_WAIT_MAX, carry.turn(Haste::Great)).await;
        let _turn = turn.map_err(|_late| switching())??;
        self.carry_fields(&pair).await?;
        let written = self.change_catalog(command).await;
        drop(sealed);
        written
    }

    async fn carried_in_time(
        &self,
        pair: &CarryPair,
        goal: (Seq, Goal),
    ) -> Result<(), EngineError> {
        let reached = tokio::time::timeout(SWITCH_WAIT_MAX, self.reached(pair, goal)).await;
        if let Ok(reached) = reached {
            return reached;
        }
        let why = self.carrying.of(pair.library).why(pair);
        let why = why.map_or(String::new(), |why| format!(" ({why})"));
        let (behind, lacking) = (self.behind(pair), counted(self.lacking(pair)));
        Err(EngineError::Generation(format!(
            "changes of the library are not in the vectors of the other model yet: missing are \
             {lacking}, and the last {behind} records or less{why}; try again"
        )))
    }

    /// Has nobody write to the active generation, nor register standing queries of it.
    fn seal(&self, pair: &CarryPair) -> Result<Sealed, EngineError> {
        let from = self.handle(pair.from)?;
        from.turns.seal();
        let mut sealed = Sealed(vec![from]);
        // Looked up when none can be made any more, or one that is made just now would not be sealed.
        if let Ok(companion) = self.handle(pair.from.companion()) {
            companion.turns.seal();
            sealed.0.push(companion);
        }
        Ok(sealed)
    }

    /// Standing queries have vectors of the active model, and are matched by these.
    async fn check_no_queries(&self, pair: &CarryPair) -> Result<(), EngineError> {
        let Ok(companion) = self.handle(pair.from.companion()) else { return Ok(()) };
        companion.settled().await;
        let queries = companion.counts().documents;
        if queries == 0 {
            return Ok(());
        }
        Err(EngineError::Generation(format!(
            "the library has {queries} standing queries, whose vectors are of its present embedding \
             model: delete them first, and register them again afterwards"
        )))
    }
}

/// Handles to which nobody writes until this is dropped.
struct Sealed(Vec<Arc<Handle>>);

impl Drop for Sealed {
    fn drop(&mut self) {
        for handle in &self.0 {
            handle.turns.unseal();
            handle.progress.notify_waiters();
        }
    }
}
