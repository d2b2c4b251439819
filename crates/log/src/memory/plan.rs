//! The fault model: what the disk in memory does wrong, when, and what arrwDB promises all the same.
//!
//! | fault | what the disk does | what arrwDB promises |
//! |---|---|---|
//! | [`Fault::PowerLoss`] | at a sync, of what no sync had covered any 512-byte sectors, lengths and name changes reach the disk, the others do not; then it is off | everything acknowledged is there; what was in flight is wholly there or wholly not |
//! | [`Fault::Killed`] | at a sync the process dies; what it wrote stays readable, and is no more durable than before | the same, also when the power fails later |
//! | [`Fault::ReadError`] | a read fails (EIO) | the operation fails and says so; nothing is cut, forgotten or overwritten |
//! | [`Fault::ShortRead`] | a read gives fewer bytes than asked for | no effect |
//! | [`Fault::FlippedRead`] | one bit of what a read gives is wrong, once; the disk is right | no effect, or refused by file and offset; never cut off as a torn tail, never written back |
//! | [`Fault::WriteError`] | a write fails (EIO), nothing of it is written | the log stops (L5); a checkpoint is given up; after the next start everything acknowledged is there |
//! | [`Fault::HalfWrite`] | the first half is written, then EIO | the same |
//! | [`Fault::FlippedWrite`] | one bit is stored wrong, without an error | found by a checksum when it is read: refused by file and offset |
//! | [`Fault::FullAtAllocate`] | space cannot be reserved (ENOSPC) | writes are refused as such and go on when there is space; reads go on |
//! | [`Fault::FullAtWrite`] | a write meets the full disk all the same | as a failed write |
//! | [`Fault::SyncError`] | a sync fails, the unsynced bytes are dropped for good while reads go on showing them; later syncs succeed | the log stops (L5) and never syncs that file again; the next start writes its last group again; other files are written anew under their temporary names |
//! | [`Fault::SyncDirError`] | the sync of a directory fails; its name changes stay unsynced | as a failed write |
//! | [`Fault::NameError`] | creating, opening, renaming, removing or listing fails (EIO) | the operation fails and says so |
//! | rot: [`MemoryDisk::alter`] | durable bytes change, or a file is gone | found by a checksum, or by what other files say: refused by name |
//!
//! What no log of one copy can tell: damage to the last group of a log that was neither closed nor
//! opened since looks like that group's unfinished writing, and is cut off and reported as such.
//! Outside the model: a disk whose syncs succeed without effect from the first one on, one that
//! gives old contents for new ones, and writing by others into the data directory.
//!
//! Faults are reproducible: a [`FaultPlan`] decides by its seed and by counting the calls it applies
//! to. A place counts its own calls, so that what one thread does to its files does not depend on
//! how another gets on with others.
//!
//! [`MemoryDisk::alter`]: super::MemoryDisk::alter

use std::io;
use std::path::{Path, PathBuf};

/// What goes wrong; the table above says how.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fault {
    /// The power fails at a sync, of a file or a directory.
    PowerLoss,
    /// The process dies at a sync, of a file or a directory.
    Killed,
    /// A read fails.
    ReadError,
    /// A read gives fewer bytes than there are.
    ShortRead,
    /// A read gives one wrong bit.
    FlippedRead,
    /// A write fails before its first byte.
    WriteError,
    /// A write fails half-way.
    HalfWrite,
    /// A write stores one wrong bit.
    FlippedWrite,
    /// Space cannot be reserved.
    FullAtAllocate,
    /// A write meets a full disk.
    FullAtWrite,
    /// A sync of a file fails and drops what it should have made durable.
    SyncError,
    /// A sync of a directory fails.
    SyncDirError,
    /// A change or look-up of a name fails.
    NameError,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::PowerLoss,
        Self::Killed,
        Self::ReadError,
        Self::ShortRead,
        Self::FlippedRead,
        Self::WriteError,
        Self::HalfWrite,
        Self::FlippedWrite,
        Self::FullAtAllocate,
        Self::FullAtWrite,
        Self::SyncError,
        Self::SyncDirError,
        Self::NameError,
    ];

    fn applies(self, call: Call) -> bool {
        match self {
            Self::PowerLoss | Self::Killed => matches!(call, Call::Sync | Call::SyncDir),
            Self::ReadError | Self::ShortRead | Self::FlippedRead => call == Call::Read,
            Self::WriteError => matches!(call, Call::Write | Call::Truncate),
            Self::HalfWrite | Self::FlippedWrite | Self::FullAtWrite => call == Call::Write,
            Self::FullAtAllocate => call == Call::Allocate,
            Self::SyncError => call == Call::Sync,
            Self::SyncDirError => call == Call::SyncDir,
            Self::NameError => call == Call::Name,
        }
    }
}

/// Which of the calls that a fault applies to it strikes, counted from 0.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum When {
    /// This one only.
    Nth(u64),
    /// This one and all after it.
    From(u64),
    /// Each with this chance: one in so many (0: none).
    OneIn(u64),
}

/// A fault, where, and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// What goes wrong.
    pub fault: Fault,
    /// A part of the paths it happens at, such as `.log` or `manifest-`; empty: anywhere.
    pub place: String,
    /// At which of the calls there.
    pub when: When,
}

/// Faults to come, reproducible.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FaultPlan {
    /// Decides what is left to chance: which bit, which sectors, [`When::OneIn`].
    pub seed: u64,
    /// The faults. Of those that strike one call, the first in this order happens.
    pub rules: Vec<Rule>,
}

impl FaultPlan {
    /// A single fault.
    pub fn one(seed: u64, fault: Fault, place: &str, when: When) -> Self {
        Self { seed, rules: vec![Rule { fault, place: place.to_owned(), when }] }
    }
}

/// A fault that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Strike {
    /// What went wrong.
    pub fault: Fault,
    /// The file or directory.
    pub path: PathBuf,
}

/// A kind of call that faults apply to.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Call {
    Read,
    Write,
    Truncate,
    Allocate,
    Sync,
    SyncDir,
    Name,
}

/// Random numbers by xorshift64* (Marsaglia 2003; Vigna 2016): small, fast, the same everywhere.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        // The state must not be zero.
        let mut chance = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        // The first numbers of similar seeds are similar.
        chance.next();
        chance.next();
        chance
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    /// Flips one bit.
    pub(super) fn flip(&mut self, bytes: &mut [u8]) {
        let bits = bytes.len() as u64 * 8;
        if bits > 0 {
            let bit = usize::try_from(self.next() % bits).unwrap_or(0);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

/// A plan at work.
#[derive(Debug)]
pub(super) struct Course {
    plan: FaultPlan,
    /// Calls that each rule has seen.
    seen: Vec<u64>,
    pub(super) chance: Chance,
    pub(super) strikes: Vec<Strike>,
}

impl Course {
    pub(super) fn new(plan: FaultPlan) -> Self {
        let (seen, chance) = (vec![0; plan.rules.len()], Chance::new(plan.seed));
        Self { plan, seen, chance, strikes: Vec::new() }
    }

    /// The fault that a call meets, if any.
    pub(super) fn strike(&mut self, call: Call, path: &Path) -> Option<Fault> {
        let text = path.to_string_lossy();
        let mut struck = None;
        for (rule, seen) in self.plan.rules.iter().zip(&mut self.seen) {
            if !rule.fault.applies(call) || !text.contains(&rule.place) {
                continue;
            }
            let number = *seen;
            *seen += 1;
            let strikes = match rule.when {
                When::Nth(wanted) => number == wanted,
                When::From(first) => number >= first,
                When::OneIn(0) => false,
                When::OneIn(many) => self.chance.next().is_multiple_of(many),
            };
            if strikes && struck.is_none() {
                struck = Some(rule.fault);
            }
        }
        if let Some(fault) = struck {
            self.strikes.push(Strike { fault, path: path.to_owned() });
        }
        struck
    }
}

/// The error that a call fails with.
pub(super) fn injected(what: &str) -> io::Error {
    io::Error::other(format!("injected: the {what} failed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(fault: Fault, place: &str, when: When) -> Course {
        Course::new(FaultPlan::one(7, fault, place, when))
    }

    fn struck(course: &mut Course, call: Call, path: &str, calls: usize) -> Vec<usize> {
        let struck = (0..calls).filter(|_| course.strike(call, Path::new(path)).is_some());
        struck.collect()
    }

    #[test]
    fn a_rule_counts_the_calls_of_its_kind_and_place_only() {
        let mut nth = course(Fault::ReadError, ".log", When::Nth(2));
        assert_eq!(struck(&mut nth, Call::Write, "/d/1.log", 9), []);
        assert_eq!(struck(&mut nth, Call::Read, "/d/1.seg", 9), []);
        assert_eq!(struck(&mut nth, Call::Read, "/d/1.log", 9), [2]);
        assert_eq!(nth.strikes.len(), 1);
        let mut from = course(Fault::PowerLoss, "", When::From(3));
        assert_eq!(struck(&mut from, Call::Sync, "/d/1.log", 2), []);
        assert_eq!(struck(&mut from, Call::SyncDir, "/d", 3), [1, 2]);
        assert_eq!(
            struck(&mut course(Fault::ReadError, "", When::OneIn(0)), Call::Read, "", 9),
            []
        );
    }

    #[test]
    fn every_fault_has_calls_it_applies_to_and_the_same_seed_strikes_the_same() {
        for fault in Fault::ALL {
            let calls =
                [Call::Read, Call::Write, Call::Allocate, Call::Sync, Call::SyncDir, Call::Name];
            let call = calls.into_iter().find(|call| fault.applies(*call)).unwrap();
            let run = || struck(&mut course(fault, "", When::OneIn(5)), call, "/d/x", 200);
            assert!(run().len() > 10 && run().len() < 90, "{fault:?}");
            assert_eq!(run(), run());
        }
    }
}
