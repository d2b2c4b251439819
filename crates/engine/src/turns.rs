//! Who may write to a generation: callers while it is the active one, who carries documents while it
//! is not, and nobody while another is about to take over.

use std::sync::atomic::{AtomicU8, Ordering};

use arrwdb_state::Command;

use crate::handle::Author;

/// The active generation, or no generation: callers write.
const ACTIVE: u8 = 0;
/// Another generation of the library is about to become the active one.
const SEALED: u8 = 1;
/// Not the active one: it is written to only by who carries documents to it from there.
const PASSIVE: u8 = 2;
/// The standing queries of a generation that is not the active one: what was matched is still noted
/// there, and none is added, as nobody would ask it.
const LEFT: u8 = 3;

/// What a write adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Adds {
    /// It removes or notes.
    Nothing,
    Documents,
}

impl Adds {
    pub(crate) fn of(command: &Command) -> Self {
        match command {
            Command::Put(..) | Command::Replace(..) => Self::Documents,
            Command::Delete(..)
            | Command::DeleteVersions(..)
            | Command::Note(_)
            | Command::PutField(_)
            | Command::Match(_) => Self::Nothing,
        }
    }
}

/// Whose turn it is. One number, so that a writer on another core that looks at it while a switch
/// ends sees what was before or what is now, and both refuse it.
#[derive(Debug)]
pub(crate) struct Turns(AtomicU8);

impl Turns {
    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(ACTIVE))
    }

    pub(crate) fn is_passive(&self) -> bool {
        self.0.load(Ordering::SeqCst) == PASSIVE
    }

    pub(crate) fn set_passive(&self, passive: bool) {
        self.0.store(if passive { PASSIVE } else { ACTIVE }, Ordering::SeqCst);
    }

    /// As [`Turns::set_passive`], of a generation's standing queries.
    pub(crate) fn set_left(&self, left: bool) {
        self.0.store(if left { LEFT } else { ACTIVE }, Ordering::SeqCst);
    }

    pub(crate) fn seal(&self) {
        self.replace(ACTIVE, SEALED);
    }

    /// Undoes [`Turns::seal`], unless the other generation took over.
    pub(crate) fn unseal(&self) {
        self.replace(SEALED, ACTIVE);
    }

    /// Whether what this author writes is not taken; `adds`: documents, or standing queries.
    pub(crate) fn refuse(&self, by: Author, adds: Adds) -> bool {
        let now = self.0.load(Ordering::SeqCst);
        match by {
            Author::Caller if adds == Adds::Nothing => now != ACTIVE && now != LEFT,
            Author::Caller => now != ACTIVE,
            Author::Carrier => now != PASSIVE,
        }
    }

    fn replace(&self, expected: u8, new: u8) {
        // Something else stays as it is.
        let swapped = self.0.compare_exchange(expected, new, Ordering::SeqCst, Ordering::SeqCst);
        swapped.unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n5_a_generation_that_was_left_takes_no_callers_writes_again() {
        let turns = Turns::new();
        let refuse = || {
            let by = |author| turns.refuse(author, Adds::Documents);
            (by(Author::Caller), by(Author::Carrier))
        };
        assert_eq!(refuse(), (false, true));
        turns.seal();
        assert_eq!(refuse(), (true, true));
        turns.unseal();
        assert_eq!(refuse(), (false, true), "what failed keeps nobody waiting");
        turns.seal();
        turns.set_passive(true);
        assert_eq!(refuse(), (true, false));
        turns.unseal();
        turns.seal();
        turns.unseal();
        assert_eq!(refuse(), (true, false), "it is left, whoever ends the switch");
        turns.set_passive(false);
        assert_eq!(refuse(), (false, true));
    }

    #[test]
    fn no_standing_query_is_added_to_those_that_nobody_asks() {
        let turns = Turns::new();
        turns.seal();
        turns.set_left(true);
        turns.unseal();
        assert!(turns.refuse(Author::Caller, Adds::Documents));
        assert!(!turns.refuse(Author::Caller, Adds::Nothing), "what was matched is noted");
        turns.set_left(false);
        assert!(!turns.refuse(Author::Caller, Adds::Documents));
    }
}
