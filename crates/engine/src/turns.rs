//! Who may write to a generation: callers while it is the active one, who carries documents while it
//! is not, and nobody while another is about to take over.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::handle::Author;

/// The active generation, or no generation: callers write.
const ACTIVE: u8 = 0;
/// Another generation of the library is about to become the active one.
const SEALED: u8 = 1;
/// Not the active one: it is written to only by who carries documents to it from there.
const PASSIVE: u8 = 2;

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

    pub(crate) fn seal(&self) {
        self.replace(ACTIVE, SEALED);
    }

    /// Undoes [`Turns::seal`], unless the other generation took over.
    pub(crate) fn unseal(&self) {
        self.replace(SEALED, ACTIVE);
    }

    /// Whether what this author writes is not taken.
    pub(crate) fn refuse(&self, by: Author) -> bool {
        let now = self.0.load(Ordering::SeqCst);
        match by {
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
        let refuse = || (turns.refuse(Author::Caller), turns.refuse(Author::Carrier));
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
}
