//! The generations of a library: what holds its documents with the vectors of one embedding model
//! each.
//!
//! A library begins with one generation, whose id is its own. Another is a library of the catalog
//! that nobody reaches by its id. One of them is active: the library is read from it and written to
//! it. The other, if there is one, holds the same documents and is kept so by who follows the log.
//! One entry makes the other the active one, so that no read mixes two models.
//!
//! ```text
//! created -> Building -> Prepared -(activate)-> active      the one before: Previous
//!                           ^                      |
//!                           +------(rollback)------+        Previous -> active
//! ```

use std::sync::Arc;

use crate::codec::{DecodeError, Reader, Writer};
use crate::entry::{read_spec, write_spec};
use crate::ids::{LibraryId, Seq};
use crate::library::LibrarySpec;
use crate::limits::GENERATION_SWITCHES_MAX;

/// The generations of a library that has, or had, more than one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generations {
    /// The library as its owner sees it: model and dimension are the active generation's.
    pub(crate) spec: Arc<LibrarySpec>,
    pub(crate) active: LibraryId,
    /// The active one before the first switch that is remembered.
    began: LibraryId,
    /// Records that made another one active, ascending, and which.
    switches: Vec<(Seq, LibraryId)>,
    pub(crate) other: Option<OtherGeneration>,
}

/// A generation that is not active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherGeneration {
    /// Its id.
    pub id: LibraryId,
    /// The record that created it, or that made another one active: what comes after is carried to
    /// it from the active one.
    pub since: Seq,
    /// What it is.
    pub stage: Stage,
}

/// What a generation is that is not active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Documents of before it are still missing.
    Building,
    /// It has all documents, and can be activated.
    Prepared,
    /// It was active before.
    Previous,
}

impl Stage {
    const ALL: [Self; 3] = [Self::Building, Self::Prepared, Self::Previous];

    /// Its number in snapshots, which never changes.
    const fn number(self) -> u8 {
        match self {
            Self::Building => 0,
            Self::Prepared => 1,
            Self::Previous => 2,
        }
    }
}

impl Generations {
    /// Those of a library that has only the one that it began with.
    pub(crate) fn begin(spec: Arc<LibrarySpec>) -> Self {
        let id = spec.id;
        Self { spec, active: id, began: id, switches: Vec::new(), other: None }
    }

    /// The library as its owner sees it.
    pub fn spec(&self) -> &Arc<LibrarySpec> {
        &self.spec
    }

    /// The generation that is read and written.
    pub fn active(&self) -> LibraryId {
        self.active
    }

    /// The other one.
    pub fn other(&self) -> Option<OtherGeneration> {
        self.other
    }

    /// The record that made the active one active; [`Seq::START`] if it always was.
    pub fn since(&self) -> Seq {
        self.switches.last().map_or(Seq::START, |(seq, _id)| *seq)
    }

    /// Which generation was active since which record, ascending, the first since [`Seq::START`].
    pub fn history(&self) -> Vec<(Seq, LibraryId)> {
        [(Seq::START, self.began)].into_iter().chain(self.switches.iter().copied()).collect()
    }

    /// Every generation that is, or is remembered to have been, active, and the other one.
    pub fn all(&self) -> impl Iterator<Item = LibraryId> {
        let other = self.other.map(|other| other.id);
        let switched = self.switches.iter().map(|(_seq, id)| *id);
        [self.began, self.active].into_iter().chain(switched).chain(other)
    }

    /// Whether nothing has to be remembered of it but the library itself.
    pub(crate) fn is_trivial(&self) -> bool {
        self.other.is_none() && self.switches.is_empty()
    }

    /// Makes the other one active, by the record `seq`.
    pub(crate) fn switch(&mut self, seq: Seq, to: &LibrarySpec) {
        let Some(other) = self.other.filter(|other| other.id == to.id) else { return };
        let stage = match other.stage {
            Stage::Building | Stage::Prepared => Stage::Previous,
            // It can be activated again.
            Stage::Previous => Stage::Prepared,
        };
        self.other = Some(OtherGeneration { id: self.active, since: seq, stage });
        self.active = to.id;
        if self.switches.len() >= GENERATION_SWITCHES_MAX {
            self.began = self.switches.remove(0).1;
        }
        self.switches.push((seq, to.id));
        let spec = Arc::make_mut(&mut self.spec);
        spec.model = to.model.clone();
        spec.dimension = to.dimension;
    }

    /// `spec | id 16 active | id 16 began | u32 n, n * (u64 seq | id 16) | u8 other, (id 16 | u64
    /// since | u8 stage)?`
    pub(crate) fn write(&self, out: &mut Writer, of_spec: u8) {
        write_spec(out, &self.spec, of_spec);
        out.id(self.active.to_bytes());
        out.id(self.began.to_bytes());
        out.count(self.switches.len());
        for (seq, id) in &self.switches {
            out.u64(seq.get());
            out.id(id.to_bytes());
        }
        out.u8(u8::from(self.other.is_some()));
        if let Some(other) = self.other {
            out.id(other.id.to_bytes());
            out.u64(other.since.get());
            out.u8(other.stage.number());
        }
    }

    pub(crate) fn read(from: &mut Reader<'_>, of_spec: u8) -> Result<Self, DecodeError> {
        let spec = Arc::new(read_spec(from, of_spec)?);
        let active = LibraryId::new(from.uuid("active generation")?);
        let began = LibraryId::new(from.uuid("first generation")?);
        let mut switches: Vec<(Seq, LibraryId)> = Vec::new();
        for _switch in 0..from.count(24, "switches")? {
            let seq = Seq::new(from.u64("switch")?);
            if switches.last().is_some_and(|(last, _id)| *last >= seq) {
                return Err(from.error("switches in their order"));
            }
            switches.push((seq, LibraryId::new(from.uuid("generation")?)));
        }
        if switches.last().map_or(began, |(_seq, id)| *id) != active {
            return Err(from.error("the last switch to the active generation"));
        }
        let mut other = None;
        if from.flag("other generation")? {
            let id = LibraryId::new(from.uuid("other generation")?);
            let since = Seq::new(from.u64("since")?);
            let stage = from.u8("stage")?;
            let stage = Stage::ALL.into_iter().find(|known| known.number() == stage);
            let stage = stage.ok_or_else(|| from.error("a stage this build knows"))?;
            other = Some(OtherGeneration { id, since, stage });
        }
        let generations = Self { spec, active, began, switches, other };
        let twice = other.is_some_and(|other| other.id == active);
        if !generations.spec.is_whole() || generations.is_trivial() || twice {
            return Err(from.error("a library with two generations"));
        }
        Ok(generations)
    }
}
