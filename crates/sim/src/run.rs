//! Runs a history against the real engine, and compares.

use std::collections::BTreeSet;
use std::time::Duration;

use arrwdb_engine::log::disk::Disk;
use arrwdb_engine::log::memory::{FaultPlan, MemoryDisk, NameOrder};
use arrwdb_engine::state::Seq;
use arrwdb_engine::{Engine, EngineError};

use crate::check::{Digests, Failure, TENANT, compare, differs, is_found, listing};
use crate::doubt::{Doubt, resolve};
use crate::follower::Follower;
use crate::history::{History, Step};
use crate::model::{Documents, Library, Model, name, new_library};
use crate::past::Past;
use crate::rot;
use crate::world::{Seeded, World, pass};
use crate::writes;

/// What a history did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Steps done.
    pub steps: u64,
    /// Writes acknowledged.
    pub writes: u64,
    /// Ends of a process or of the power survived, those while opening included.
    pub crashes: u64,
    /// Injected faults that happened.
    pub faults: u64,
    /// Damaged files that were refused by name.
    pub refused: u64,
}

impl Outcome {
    /// Adds up.
    pub fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.writes += other.writes;
        self.crashes += other.crashes;
        self.faults += other.faults;
        self.refused += other.refused;
    }
}

/// What a fault led to, seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// The engine did not open; it does when the fault is gone.
    NotOpened,
    /// A read failed.
    ReadRefused,
    /// A write failed, others go on.
    WriteRefused,
    /// A write was refused because the disk was full.
    Full,
    /// The log takes no more writes until the next start.
    LogStopped,
    /// A damaged file was refused by name at the next start or read.
    Refused,
    /// The process or the power ended.
    Ended,
}

/// What a history found wrong, and where.
#[derive(Debug, Clone)]
pub struct Broken {
    /// The number of the step; `None` after the last one.
    pub step: Option<usize>,
    /// What is wrong.
    pub what: String,
}

/// Runs a history.
pub(crate) async fn run(history: &History) -> Result<Outcome, Broken> {
    let before = |failure: Failure| Broken { step: None, what: failure.to_string() };
    let mut run = Run::begin(history).await.map_err(before)?;
    for (number, step) in &history.steps {
        let outcome = run.step(step).await;
        run.outcome.steps += 1;
        outcome.map_err(|failure| Broken { step: Some(*number), what: failure.to_string() })?;
    }
    run.end().await.map_err(before)
}

/// A history in progress.
pub(crate) struct Run {
    world: World,
    disk: MemoryDisk,
    pub(crate) engine: Engine,
    pub(crate) model: Model,
    /// Writes whose outcome is known only after the next start.
    pub(crate) doubts: Vec<Doubt>,
    pub(crate) follower: Follower,
    past: Past,
    pub(crate) outcome: Outcome,
    /// Faults for the next opening.
    opening: Option<FaultPlan>,
    full: bool,
    /// Whether a plan that another one replaced has struck: what was read wrong may be remembered.
    struck: bool,
    /// What the faults led to.
    pub(crate) seen: BTreeSet<Seen>,
}

impl Run {
    async fn begin(history: &History) -> Result<Self, Failure> {
        let world = World::new(history.seed, history.config.clone());
        let trims = history.config.feed_retention == Duration::ZERO;
        Self::begin_on(world, MemoryDisk::new(), Model::default(), trims).await
    }

    /// Goes on with a disk that holds what the model says. A plan that it has may strike.
    pub(crate) async fn begin_on(
        world: World,
        disk: MemoryDisk,
        model: Model,
        trims: bool,
    ) -> Result<Self, Failure> {
        let mut opening = Opening::default();
        let (engine, disk) = opening.open(&world, disk).await?;
        Ok(Self {
            world,
            disk,
            engine,
            model,
            seen: opening.seen,
            doubts: Vec::new(),
            follower: Follower::new(trims),
            past: Past::default(),
            outcome: Outcome { crashes: opening.crashes, ..Outcome::default() },
            opening: None,
            full: false,
            struck: false,
        })
    }

    /// The disk as the next start finds it, the engine closed if it still runs.
    pub(crate) async fn leave(
        mut self,
    ) -> Result<(MemoryDisk, Model, World, BTreeSet<Seen>), Failure> {
        let closed = self.engine.close().await.map_err(Failure::from);
        self.tolerate(closed)?;
        let disk = self.disk.after_the_end().unwrap_or_else(|| self.disk.kill());
        Ok((disk, self.model, self.world, self.seen))
    }

    async fn end(mut self) -> Result<Outcome, Failure> {
        // Without faults: the last start has to find everything.
        let disk = self.disk.after_the_end().unwrap_or_else(|| self.disk.kill());
        self.opening = None;
        self.reopen(disk).await?;
        self.engine.close().await?;
        Ok(self.outcome)
    }

    /// Whether something was done to the disk that an error can come of.
    pub(crate) fn is_faulty(&self) -> bool {
        self.full || self.struck || self.is_over() || !self.disk.strikes().is_empty()
    }

    /// Whether process or power ended.
    fn is_over(&self) -> bool {
        self.disk.after_the_end().is_some()
    }

    pub(crate) async fn step(&mut self, step: &Step) -> Result<(), Failure> {
        self.attempt(step).await?;
        if let Some(left) = self.disk.after_the_end() {
            self.seen.insert(Seen::Ended);
            self.reopen(left).await?;
            // What the last process had written and not synced may have been built on meanwhile.
            if self.outcome.steps.is_multiple_of(2) && self.disk.after_the_end().is_none() {
                self.reopen(lose_power(&self.disk, self.outcome.steps)).await?;
            }
        } else if !self.doubts.is_empty() {
            // What is published has only what was acknowledged (N1).
            let compared = compare(&self.engine, &self.model).await;
            self.tolerate(compared.map(|_digests| ()))?;
            let left = match self.outcome.steps % 2 {
                0 => self.disk.kill(),
                _ => lose_power(&self.disk, self.outcome.steps),
            };
            self.reopen(left).await?;
        }
        Ok(())
    }

    /// Does a step and leaves everything as it is then.
    pub(crate) async fn attempt(&mut self, step: &Step) -> Result<(), Failure> {
        match step {
            Step::Create { slot, version } => self.create(*slot, *version).await?,
            Step::Rename { .. } | Step::Drop { .. } => writes::catalog(self, step).await?,
            Step::Put { .. } | Step::Delete { .. } => writes::together(self, &[step]).await?,
            Step::Together(steps) => {
                let steps: Vec<&Step> = steps.iter().collect();
                writes::together(self, &steps).await?;
            }
            Step::Read { slot } => {
                let read = self.read(*slot).await;
                self.tolerate(read)?;
            }
            Step::Follow { limit } => {
                let read = self.follower.read(&self.engine, &self.model, *limit).await;
                self.tolerate(read.map(|_end| ()))?;
            }
            Step::Compare => {
                let compared = compare(&self.engine, &self.model).await;
                self.tolerate(compared.map(|_digests| ()))?;
                let past = self.past.check(&self.engine, &self.model).await;
                self.tolerate(past)?;
            }
            Step::CloseLibraries => self.engine.close_libraries().await,
            Step::Purge => {
                // The feed's past goes with what was deleted.
                self.follower.trims = true;
                let purged = self.engine.purge().await;
                self.tolerate(purged.map(drop).map_err(Failure::from))?;
            }
            Step::Pass => pass(Duration::from_secs(6)).await,
            Step::Jump { micros } => {
                self.world.clock.jump(*micros);
                self.follower.trims = true;
            }
            Step::Arm(plan) => {
                self.count_faults();
                self.struck |= !self.disk.strikes().is_empty();
                self.disk.set_plan(plan.clone());
            }
            Step::ArmOpening(plan) => self.opening = Some(plan.clone()),
            Step::Full { spare } => {
                self.disk.set_capacity(Some(self.disk.used_bytes() + spare));
                self.full = true;
            }
            Step::Space => self.disk.set_capacity(None),
            Step::Restart => self.restart().await?,
            Step::Kill => self.reopen(self.disk.kill()).await?,
            Step::PowerLoss { seed } => self.reopen(lose_power(&self.disk, *seed)).await?,
            Step::Rot { seed } => self.rot(*seed).await?,
        }
        Ok(())
    }

    /// An error of the engine is fine where the disk fails; a difference never is.
    fn tolerate(&mut self, outcome: Result<(), Failure>) -> Result<(), Failure> {
        match outcome {
            Err(Failure::Engine(error)) if self.is_faulty() => {
                self.seen.insert(match error {
                    EngineError::LogFailed { .. } => Seen::LogStopped,
                    _ => Seen::ReadRefused,
                });
                Ok(())
            }
            other => other,
        }
    }

    fn count_faults(&mut self) {
        self.outcome.faults += self.disk.strikes().len() as u64;
    }

    async fn create(&mut self, slot: u64, version: u64) -> Result<(), Failure> {
        if self.model.libraries.contains_key(&slot) {
            return Ok(());
        }
        match self.engine.create_library(TENANT, new_library(slot, version)).await {
            Ok(written) => {
                let (id, name) = (written.value.id, written.value.name);
                let library = Library { id, name, documents: Documents::new() };
                self.model.libraries.insert(slot, library);
                self.acknowledged(written.seq);
            }
            Err(error) => {
                self.refused(error, Doubt::Created { slot, name: name(slot, version) })?;
            }
        }
        Ok(())
    }

    pub(crate) fn acknowledged(&mut self, seq: Seq) {
        self.outcome.writes += 1;
        self.follower.expect(seq);
    }

    /// A write failed: it was not done, or that is seen at the next start.
    pub(crate) fn refused(&mut self, error: EngineError, doubt: Doubt) -> Result<(), Failure> {
        match error {
            EngineError::Busy { .. } => Ok(()),
            EngineError::DiskFull { .. } if self.is_faulty() => {
                self.seen.insert(Seen::Full);
                Ok(())
            }
            EngineError::LogFailed { .. }
            | EngineError::Storage { .. }
            | EngineError::Closed
            | EngineError::Damaged { .. }
                if self.is_faulty() =>
            {
                self.seen.insert(match error {
                    EngineError::LogFailed { .. } => Seen::LogStopped,
                    _ => Seen::WriteRefused,
                });
                self.doubts.push(doubt);
                Ok(())
            }
            other => Err(other.into()),
        }
    }

    async fn read(&self, slot: u64) -> Result<(), Failure> {
        let Some(library) = self.model.libraries.get(&slot) else { return Ok(()) };
        let snapshot = self.engine.library(TENANT, library.id, None).await?;
        listing(&snapshot, slot, library)?;
        for (n, version) in library.documents.iter().take(3) {
            is_found(&self.engine, slot, (library.id, *n, *version)).await?;
        }
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), Failure> {
        let closed = self.engine.close().await.map_err(Failure::from);
        self.tolerate(closed)?;
        let disk = self.disk.after_the_end().unwrap_or_else(|| self.disk.kill());
        self.reopen(disk).await
    }

    /// Another process finds this disk.
    pub(crate) async fn reopen(&mut self, disk: MemoryDisk) -> Result<(), Failure> {
        self.count_faults();
        let before = if self.doubts.is_empty() { self.digests().await } else { Digests::new() };
        // The old one works on a disk that nobody looks at any more.
        drop(self.engine.close().await);
        self.full = false;
        self.struck = false;
        self.disk = disk;
        if let Some(plan) = self.opening.take() {
            self.disk.set_plan(plan);
        }
        self.outcome.crashes += 1;
        let mut opening = Opening::default();
        (self.engine, self.disk) = opening.open(&self.world, self.disk.clone()).await?;
        self.outcome.crashes += opening.crashes;
        self.outcome.faults += opening.faults;
        self.seen.extend(opening.seen);
        let mut model = self.model.clone();
        match resolve(&self.engine, &mut model, self.doubts.clone()).await {
            // Libraries are opened on first use, so faults of the opening's plan come here too.
            Err(Failure::Engine(_)) if self.is_faulty() => {
                self.seen.insert(Seen::ReadRefused);
                let left = self.disk.after_the_end().unwrap_or_else(|| self.disk.kill());
                return Box::pin(self.reopen(left)).await;
            }
            resolved => resolved?,
        }
        self.model = model;
        self.doubts.clear();
        // Faults of the opening's plan may still come.
        match compare(&self.engine, &self.model).await {
            Ok(after) => {
                for (id, digest) in &before {
                    if after.get(id).is_some_and(|found| found != digest) {
                        return differs(format!("library {id} has another digest after a replay"));
                    }
                }
            }
            Err(failure) => self.tolerate(Err(failure))?,
        }
        self.follower.check_durable(self.engine.durable())?;
        let past = self.past.check(&self.engine, &self.model).await;
        self.tolerate(past)?;
        let read = self.follower.read_all(&self.engine, &self.model).await;
        self.tolerate(read)
    }

    /// Digests of what is published now.
    async fn digests(&self) -> Digests {
        let mut digests = Digests::new();
        for library in self.model.libraries.values() {
            if let Ok(snapshot) = self.engine.library(TENANT, library.id, None).await {
                digests.insert(library.id, snapshot.stats().digest);
            }
        }
        digests
    }

    /// A file is damaged while nobody has it open.
    async fn rot(&mut self, seed: u64) -> Result<(), Failure> {
        self.restart().await?;
        let feed = rot::feed(&self.engine).await;
        let feed = match feed {
            Err(Failure::Engine(_)) if self.is_faulty() => None,
            found => Some(found?.1),
        };
        let closed = self.engine.close().await;
        let (Some(feed), Ok(())) = (feed, closed) else {
            return self
                .reopen(self.disk.after_the_end().unwrap_or_else(|| self.disk.kill()))
                .await;
        };
        let damaged = self.disk.kill();
        if let Some(what) = rot::damage(&damaged, seed) {
            let refused = rot::is_refused(&self.world, &damaged, (&self.model, Some(&feed))).await;
            let failed = |failure| Failure::Differs(format!("after {what}: {failure}"));
            self.outcome.refused += u64::from(refused.map_err(failed)?);
        }
        self.reopen(self.disk.kill()).await
    }
}

/// What came in the way of an opening.
#[derive(Debug, Default)]
struct Opening {
    crashes: u64,
    faults: u64,
    seen: BTreeSet<Seen>,
}

impl Opening {
    /// Opens; again where process or power ends meanwhile, or a fault that passes is in the way.
    async fn open(
        &mut self,
        world: &World,
        mut disk: MemoryDisk,
    ) -> Result<(Engine, MemoryDisk), Failure> {
        loop {
            let error = match world.open(&disk).await {
                Ok(engine) => return Ok((engine, disk)),
                Err(error) => error,
            };
            let strikes = disk.strikes().len() as u64;
            self.faults += strikes;
            disk = if let Some(left) = disk.after_the_end() {
                self.crashes += 1;
                self.seen.insert(Seen::Ended);
                left
            } else if strikes > 0 {
                self.seen.insert(Seen::NotOpened);
                disk.kill()
            } else {
                return Err(error.into());
            };
        }
    }
}

fn lose_power(disk: &MemoryDisk, seed: u64) -> MemoryDisk {
    let random = Seeded::new(seed);
    let order = if random.one_in(2) { NameOrder::Any } else { NameOrder::Journaled };
    let kept_of_8 = random.below(9);
    disk.crash_with(order, || random.below(8) < kept_of_8)
}

/// All files below a directory.
pub(crate) fn files(disk: &MemoryDisk, dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for name in disk.list(dir).unwrap_or_default() {
        let path = dir.join(&name);
        if disk.list(&path).is_ok() {
            found.extend(files(disk, &path));
        } else {
            found.push(path);
        }
    }
    found
}
