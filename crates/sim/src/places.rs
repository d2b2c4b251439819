//! Every fault at every place: what it leads to, found out by doing it.
//!
//! For each pair the same session runs against a data directory with everything in it, once for
//! each of the first calls that the fault can strike. Then the engine is opened without faults, and
//! has everything that was acknowledged, or names the file that is damaged. Anything else is an
//! error of the whole.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use arrwdb_engine::EngineConfig;
use arrwdb_engine::log::disk::Disk;
use arrwdb_engine::log::memory::{Fault, FaultPlan, MemoryDisk, When};

use crate::check::Failure;
use crate::history::Step;
use crate::model::Model;
use crate::rot;
use crate::run::{Run, Seen, files};
use crate::world::{self, World, config};

/// A file of the data directory: what it is called here, a part of its path, a part of its
/// directory's path.
const PLACES: [(&str, &str, &str); 8] = [
    ("log", ".log", "/data/log"),
    ("log index", ".idx", "/data/log"),
    ("segment", ".seg", "/segments"),
    ("structure", ".idx", "/segments"),
    ("manifest", "manifest-", "/data/libraries/"),
    ("catalog", "catalog-", "/data/catalog"),
    ("`VERSION`", "VERSION", "/"),
    ("`LOCK`", "LOCK", "LOCK"),
];

/// Which of the calls at a place a fault strikes.
const POSITIONS: [u64; 8] = [0, 1, 2, 4, 8, 16, 24, 36];

/// What is done to files that nobody has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rot {
    Flipped,
    Zeroed,
    Shortened,
    Removed,
}

/// A fault at a place, and what it led to.
#[derive(Debug, Clone)]
pub struct Cell {
    /// What goes wrong.
    pub fault: String,
    /// Where.
    pub place: &'static str,
    /// How often it struck.
    pub strikes: u64,
    /// What was seen.
    pub seen: BTreeSet<Seen>,
}

/// A data directory with everything in it, closed.
struct Base {
    disk: MemoryDisk,
    model: Model,
    feed: Vec<u64>,
}

/// Tries every fault at every place.
pub fn cells() -> Result<Vec<Cell>, String> {
    let run = world::run(async {
        let base = base().await?;
        let mut cells = Vec::new();
        for fault in Fault::ALL {
            for place in PLACES {
                cells.push(struck(&base, fault, place).await?);
            }
        }
        for rot in [Rot::Flipped, Rot::Zeroed, Rot::Shortened, Rot::Removed] {
            for place in PLACES {
                cells.push(rotten(&base, rot, place).await?);
            }
        }
        Ok(cells)
    });
    run.map_err(|error| error.to_string())?.map_err(|failure: Failure| failure.to_string())
}

fn settings() -> EngineConfig {
    // Log files of a few records, so that files are finished, indexed and trimmed.
    EngineConfig {
        checkpoint_bytes: 1024,
        log_file_bytes: 2048,
        feed_retention: Duration::from_hours(1),
        feed_retention_bytes: 6000,
        ..config()
    }
}

fn put(version: u64) -> Step {
    Step::Put { slot: 0, documents: vec![version % 20, 20 + version % 3], version }
}

async fn base() -> Result<Base, Failure> {
    let world = World::new(1, settings());
    let mut run = Run::begin_on(world, MemoryDisk::new(), Model::default(), true).await?;
    run.step(&Step::Create { slot: 0, version: 1 }).await?;
    for version in 2..40 {
        run.step(&put(version)).await?;
        run.step(&Step::Pass).await?;
    }
    run.step(&Step::Restart).await?;
    let (_first, feed) = rot::feed(&run.engine).await?;
    let (disk, model, _world, _seen) = run.leave().await?;
    Ok(Base { disk, model, feed })
}

/// A bit of everything, in a running engine.
fn session() -> Vec<Step> {
    let mut steps: Vec<Step> = (100..106).map(put).collect();
    steps.extend([
        Step::Delete { slot: 0, documents: vec![3, 4, 21] },
        Step::Create { slot: 1, version: 110 },
        Step::Rename { slot: 1, version: 111 },
        Step::Put { slot: 1, documents: vec![1, 2], version: 112 },
        Step::Read { slot: 0 },
        Step::Follow { limit: 50 },
        Step::Pass,
        Step::Drop { slot: 1 },
        Step::Compare,
    ]);
    steps.extend((120..126).map(put));
    steps.extend([Step::Follow { limit: 500 }, Step::Pass, Step::Compare]);
    steps
}

async fn struck(
    base: &Base,
    fault: Fault,
    (place, part, dir): (&'static str, &str, &str),
) -> Result<Cell, Failure> {
    let named = format!("{fault:?}");
    let mut cell = Cell { fault: named, place, strikes: 0, seen: BTreeSet::new() };
    let part = if fault == Fault::SyncDirError { dir } else { part };
    // An existing data directory and a new one: some files are written at the first start only.
    for (position, first_start) in POSITIONS.iter().flat_map(|at| [(*at, false), (*at, true)]) {
        let (disk, model) = if first_start {
            (MemoryDisk::new(), Model::default())
        } else {
            (base.disk.kill(), base.model.clone())
        };
        disk.set_plan(FaultPlan::one(position + 1, fault, part, When::Nth(position)));
        let world = World::new(position + 100, settings());
        let outcome = one(world, &disk, model, fault).await;
        let (strikes, seen) = outcome.map_err(|failure| {
            Failure::Differs(format!("{fault:?} at call {position} of {place}: {failure}"))
        })?;
        cell.strikes += strikes;
        if strikes > 0 {
            cell.seen.extend(seen);
        }
    }
    Ok(cell)
}

/// One session with one fault, and the start after it.
async fn one(
    world: World,
    disk: &MemoryDisk,
    model: Model,
    fault: Fault,
) -> Result<(u64, BTreeSet<Seen>), Failure> {
    let lasting = fault == Fault::FlippedWrite;
    let mut run = Run::begin_on(world, disk.clone(), model, true).await?;
    if run.model.libraries.is_empty() {
        run.step(&Step::Create { slot: 0, version: 99 }).await?;
    }
    for step in session() {
        if lasting {
            run.attempt(&step).await?;
            if !run.doubts.is_empty() {
                break;
            }
        } else {
            run.step(&step).await?;
        }
    }
    let (left, model, world, mut seen) = run.leave().await?;
    let strikes = disk.strikes().len() as u64;
    if !lasting {
        return finish(world, left, model, (strikes, seen)).await;
    }
    // What was stored wrong is found out, or was never needed.
    if rot::is_refused(&world, &left, (&model, None)).await? {
        seen.insert(Seen::Refused);
    }
    Ok((strikes, seen))
}

async fn finish(
    world: World,
    disk: MemoryDisk,
    model: Model,
    found: (u64, BTreeSet<Seen>),
) -> Result<(u64, BTreeSet<Seen>), Failure> {
    let mut run = Run::begin_on(world, disk, model, true).await?;
    run.step(&Step::Compare).await?;
    run.step(&put(200)).await?;
    run.leave().await?;
    Ok(found)
}

async fn rotten(
    base: &Base,
    rot: Rot,
    (place, part, _dir): (&'static str, &str, &str),
) -> Result<Cell, Failure> {
    let what = match rot {
        Rot::Flipped => "a bit flips at rest",
        Rot::Zeroed => "a sector becomes zeros",
        Rot::Shortened => "cut short",
        Rot::Removed => "removed",
    };
    let mut cell = Cell { fault: what.into(), place, strikes: 0, seen: BTreeSet::new() };
    let found = files(&base.disk, Path::new("/data"));
    for path in found.iter().filter(|path| path.to_string_lossy().contains(part)) {
        let eighths = if rot == Rot::Removed { 0..1 } else { 0..8 };
        for eighth in eighths.step_by(3) {
            let disk = base.disk.kill();
            if rot == Rot::Removed {
                disk.remove(path).map_err(|error| Failure::Differs(error.to_string()))?;
            } else {
                let change = |bytes: &mut Vec<u8>| {
                    let at = bytes.len() * eighth / 8;
                    match rot {
                        Rot::Flipped => bytes[at] ^= 1 << eighth,
                        Rot::Zeroed => {
                            let end = bytes.len().min(at + 512);
                            bytes[at..end].fill(0);
                        }
                        Rot::Shortened | Rot::Removed => bytes.truncate(at),
                    }
                };
                disk.alter(path, change).map_err(|error| Failure::Differs(error.to_string()))?;
            }
            cell.strikes += 1;
            let world = World::new(300, settings());
            let refused = rot::is_refused(&world, &disk, (&base.model, Some(&base.feed))).await;
            let refused = refused.map_err(|failure| {
                Failure::Differs(format!("{} {what} at {eighth}/8: {failure}", path.display()))
            })?;
            if refused {
                cell.seen.insert(Seen::Refused);
            }
        }
    }
    Ok(cell)
}

impl Seen {
    fn word(self) -> &'static str {
        match self {
            Self::NotOpened => "not opened",
            Self::ReadRefused | Self::WriteRefused => "fails",
            Self::Full => "full",
            Self::LogStopped => "log stops",
            Self::Refused => "refused",
            Self::Ended => "survived",
        }
    }
}

impl Cell {
    /// What was seen, in the words of the table; nothing if the fault struck without effect.
    pub fn words(&self) -> BTreeSet<&'static str> {
        // Whoever ends with the process says nothing about it.
        if self.fault == "PowerLoss" || self.fault == "Killed" {
            return if self.strikes > 0 { BTreeSet::from(["survived"]) } else { BTreeSet::new() };
        }
        self.seen.iter().map(|seen| seen.word()).collect()
    }

    /// The row's name in the table.
    pub fn row(&self) -> String {
        let mut words = String::new();
        for letter in self.fault.chars() {
            if letter.is_ascii_uppercase() && !words.is_empty() {
                words.push(' ');
            }
            words.push(letter.to_ascii_lowercase());
        }
        words
    }

    fn text(&self) -> String {
        if self.strikes == 0 {
            return "-".into();
        }
        let words: Vec<&str> = self.words().into_iter().collect();
        if words.is_empty() { "no effect".into() } else { words.join(", ") }
    }
}

/// The table of `docs/FAULTS.md`, as seen in one run.
pub fn table(cells: &[Cell]) -> String {
    let line = |words: Vec<String>| format!("| {} |\n", words.join(" | "));
    let places = PLACES.map(|(place, _, _)| place.to_owned());
    let mut text = line([vec!["fault".to_owned()], places.to_vec()].concat());
    text += "|---|";
    text += &"---|".repeat(PLACES.len());
    text.push('\n');
    for row in cells.chunks(PLACES.len()) {
        let words = row.iter().map(Cell::text).collect();
        text += &line([vec![row[0].row()], words].concat());
    }
    text
}
