//! A history: settings and steps, all from one seed. A step carries everything it needs, so that
//! any of them can be left out and the others mean the same.

use std::time::Duration;

use arrwdb_engine::EngineConfig;
use arrwdb_engine::log::memory::{Fault, FaultPlan, Rule, When};

use crate::model::{DOCUMENTS, SLOTS};
use crate::world::{Seeded, config};

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the fields: `slot` which library, `documents` which of it, `version` what it says"
)]
pub enum Step {
    /// A library is created, if the slot is free.
    Create { slot: u64, version: u64 },
    /// Its name changes.
    Rename { slot: u64, version: u64 },
    /// It is deleted.
    Drop { slot: u64 },
    /// Documents are added or replaced in one batch.
    Put { slot: u64, documents: Vec<u64>, version: u64 },
    /// Documents are deleted in one batch.
    Delete { slot: u64, documents: Vec<u64> },
    /// Writes of different documents at the same time.
    Together(Vec<Self>),
    /// Documents are searched and listed.
    Read { slot: u64 },
    /// The feed's follower reads so many records.
    Follow { limit: usize },
    /// Everything is compared.
    Compare,
    /// Every library is written to files and closed, if nobody writes to it.
    CloseLibraries,
    /// What was deleted is removed from the files for good, and the log before with it.
    Purge,
    /// Time passes, so that the upkeep looks after catalog, log and disk.
    Pass,
    /// The wall clock jumps.
    Jump { micros: i64 },
    /// The engine is closed and opened.
    Restart,
    /// The process dies and another opens what it left.
    Kill,
    /// The power fails, and what was not synced is there or not as the seed says.
    PowerLoss { seed: u64 },
    /// Faults to come on this disk.
    Arm(FaultPlan),
    /// Faults to come when the engine is opened the next time.
    ArmOpening(FaultPlan),
    /// The disk has so many bytes left.
    Full { spare: u64 },
    /// The disk has space again.
    Space,
    /// The engine is closed, a file is damaged, and the engine opened; then the file is restored.
    Rot { seed: u64 },
}

/// Settings and steps.
#[derive(Debug, Clone)]
pub struct History {
    /// What everything follows from.
    pub seed: u64,
    /// Steps generated.
    pub operations: u64,
    /// The steps, each with its number.
    pub steps: Vec<(usize, Step)>,
    pub(crate) config: EngineConfig,
}

impl History {
    /// The history of a seed.
    pub fn new(seed: u64, operations: u64) -> Self {
        let random = Seeded::new(seed);
        let pick = |values: &[u64]| {
            values[usize::try_from(random.below(values.len() as u64)).unwrap_or(0)]
        };
        let checkpoint_bytes = pick(&[512, 2048, 16 << 10]);
        let log_file_bytes = pick(&[2048, 8192, 64 << 10]);
        let history = Duration::from_secs(pick(&[0, 0, 3600]));
        let library_idle = Duration::from_secs(pick(&[5, 3600]));
        let mut config =
            EngineConfig { checkpoint_bytes, log_file_bytes, history, library_idle, ..config() };
        if random.one_in(2) {
            config.feed_retention = Duration::ZERO;
            config.feed_retention_bytes = 0;
        }
        let faults = random.below(3);
        let steps = (1..=operations).map(|version| {
            if version <= 2 {
                return Step::Create { slot: random.below(SLOTS), version };
            }
            step(&random, version, faults)
        });
        let steps = steps.enumerate().collect();
        Self { seed, operations, steps, config }
    }

    /// The same with some of its steps only.
    #[must_use]
    pub fn keeping(&self, mut keep: impl FnMut(usize) -> bool) -> Self {
        let mut shorter = self.clone();
        shorter.steps.retain(|(number, _step)| keep(*number));
        shorter
    }

    /// The command that runs it again.
    pub fn command(&self) -> String {
        let Self { seed, operations, .. } = self;
        let mut command = format!("arrwdb-sim --seed {seed} --operations {operations}");
        if self.steps.len() as u64 != self.operations {
            let numbers: Vec<String> =
                self.steps.iter().map(|(number, _step)| number.to_string()).collect();
            command.extend([" --keep ", &numbers.join(",")]);
        }
        command
    }
}

/// `faults`: 0 none but ends of processes and of power, 1 some, 2 many.
fn step(random: &Seeded, version: u64, faults: u64) -> Step {
    let slot = random.below(SLOTS);
    match random.below(100) {
        42..46 => together(random, version),
        46..54 => Step::Read { slot },
        54..58 => Step::Follow { limit: usize::try_from(random.below(30)).unwrap_or(0) + 1 },
        58..60 => Step::Compare,
        75..77 => Step::CloseLibraries,
        77..78 => Step::Purge,
        60..65 => Step::Pass,
        65..67 => Step::Jump { micros: jump(random) },
        67..70 => Step::Create { slot, version },
        70..71 => Step::Rename { slot, version },
        71..72 => Step::Drop { slot },
        72..75 => Step::Restart,
        78..80 => Step::Kill,
        80..85 => Step::PowerLoss { seed: random.next() },
        85..88 => Step::Arm(end_of(random)),
        88..92 if faults > 0 => Step::Arm(fault(random)),
        92..94 if faults > 0 => Step::ArmOpening(fault(random)),
        94..95 if faults > 0 => Step::ArmOpening(end_of(random)),
        95..96 if faults > 0 => Step::Full { spare: random.below(4000) },
        96..98 => Step::Space,
        98..99 if faults > 0 => Step::Rot { seed: random.next() },
        88..95 if faults > 1 => Step::Arm(fault(random)),
        _ => write(random, slot, version),
    }
}

fn jump(random: &Seeded) -> i64 {
    const SECOND: i64 = 1_000_000;
    let far = [1, 60, 3600, 86_400 * 8, 86_400 * 365 * 40];
    let far = far[usize::try_from(random.below(5)).unwrap_or(0)] * SECOND;
    if random.one_in(2) { far } else { -far }
}

fn write(random: &Seeded, slot: u64, version: u64) -> Step {
    let mut documents: Vec<u64> = (0..=random.below(4)).map(|_| random.below(DOCUMENTS)).collect();
    documents.sort_unstable();
    documents.dedup();
    if random.one_in(4) {
        Step::Delete { slot, documents }
    } else {
        Step::Put { slot, documents, version }
    }
}

/// Writes at the same time, each of documents that no other one touches.
fn together(random: &Seeded, version: u64) -> Step {
    let writers = random.below(5) + 2;
    let slots = random.below(2);
    let writes = (0..writers).map(|writer| {
        let slot = if slots == 0 { 0 } else { writer % SLOTS };
        match write(random, slot, version) {
            Step::Put { slot, documents, version } => {
                Step::Put { slot, documents: of(writer, writers, &documents), version }
            }
            Step::Delete { slot, documents } => {
                Step::Delete { slot, documents: of(writer, writers, &documents) }
            }
            other => other,
        }
    });
    Step::Together(writes.collect())
}

/// Documents that only this one of the writers has.
fn of(writer: u64, writers: u64, documents: &[u64]) -> Vec<u64> {
    let mut own: Vec<u64> =
        documents.iter().map(|n| (n / writers * writers + writer) % DOCUMENTS).collect();
    own.retain(|n| n % writers == writer);
    if own.is_empty() {
        own.push(writer);
    }
    own.sort_unstable();
    own.dedup();
    own
}

/// The end of the process or of the power at one of the next syncs.
fn end_of(random: &Seeded) -> FaultPlan {
    let fault = if random.one_in(2) { Fault::PowerLoss } else { Fault::Killed };
    let places = ["/data/libraries", "/data/catalog", ".log", place(random)];
    let place = places[usize::try_from(random.below(4)).unwrap_or(0)];
    FaultPlan::one(random.next(), fault, place, When::Nth(random.below(6)))
}

fn place(random: &Seeded) -> &'static str {
    let places = ["", "", ".log", ".idx", ".seg", "manifest-", "catalog", "/data/l"];
    places[usize::try_from(random.below(places.len() as u64)).unwrap_or(0)]
}

fn fault(random: &Seeded) -> FaultPlan {
    let rules = (0..=random.below(2)).map(|_rule| {
        let kinds = [
            Fault::ReadError,
            Fault::ShortRead,
            Fault::FlippedRead,
            Fault::WriteError,
            Fault::HalfWrite,
            Fault::FullAtAllocate,
            Fault::FullAtWrite,
            Fault::SyncError,
            Fault::SyncDirError,
            Fault::NameError,
        ];
        let fault = kinds[usize::try_from(random.below(kinds.len() as u64)).unwrap_or(0)];
        let when = match (fault, random.below(3)) {
            (Fault::ShortRead, _) => When::OneIn(random.below(4) + 1),
            // What is wrong for good is found out; what is wrong once must do no harm.
            (Fault::FlippedRead, _) | (_, 0 | 1) => When::Nth(random.below(8)),
            _ => When::OneIn(random.below(20) + 2),
        };
        Rule { fault, place: place(random).to_owned(), when }
    });
    let rules = rules.collect();
    FaultPlan { seed: random.next(), rules }
}
