//! How far a courier is, and what it knows of what comes after that: kept, so that one who takes its
//! place sends nothing twice that was taken, and neither sooner nor more often than was said.

use std::collections::{BTreeMap, BTreeSet};

use arrwdb_engine::state::Seq;
use serde::{Deserialize, Serialize};

use crate::event::{ParsePositionError, Position};

/// Places of each kind that are kept; a courier takes no more at a time.
const PLACES_MAX: usize = 256;

/// A position as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Place(Position);

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.0.to_string()
    }
}

impl TryFrom<String> for Place {
    type Error = ParsePositionError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

/// A wait. Times are in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wait {
    /// Attempts that failed.
    pub(super) failed: u32,
    /// When that was known.
    pub(super) noted_at: i64,
    /// When it is over.
    pub(super) until: i64,
}

/// How far one is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// All before is dealt with.
    position: Option<Place>,
    /// What is dealt with beyond it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    done: BTreeSet<Place>,
    /// What waits for its next attempt.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    waiting: BTreeMap<Place, Wait>,
    /// Nothing at all is sent before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<Wait>,
}

impl Progress {
    pub(super) fn position(&self) -> Option<Position> {
        Some(self.position?.0)
    }

    /// All before this place is dealt with. `false` if that was known.
    pub(super) fn moved(&mut self, position: Position) -> bool {
        let place = Place(position);
        if self.position == Some(place) {
            return false;
        }
        self.position = Some(place);
        self.done = self.done.split_off(&place);
        self.done.remove(&place);
        self.waiting = self.waiting.split_off(&place);
        self.waiting.remove(&place);
        true
    }

    /// What is at this place is dealt with, and something before it is not.
    pub(super) fn done(&mut self, position: Position) {
        let place = Place(position);
        self.waiting.remove(&place);
        if self.done.len() < PLACES_MAX {
            self.done.insert(place);
        }
    }

    /// What is at this place waits.
    pub(super) fn waits(&mut self, position: Position, wait: Wait) {
        let place = Place(position);
        if self.waiting.len() < PLACES_MAX || self.waiting.contains_key(&place) {
            self.waiting.insert(place, wait);
        }
    }

    /// Everything waits.
    pub(super) fn holds(&mut self, wait: Wait) {
        self.held = self.held.filter(|held| held.until > wait.until).or(Some(wait));
    }

    /// Whether what is at this place was dealt with; asked once.
    pub(super) fn take_done(&mut self, position: Position) -> bool {
        self.done.remove(&Place(position))
    }

    /// How what is at this place waits, if it does; asked once.
    pub(super) fn take_wait(&mut self, position: Position) -> Option<Wait> {
        self.waiting.remove(&Place(position))
    }

    /// Until when everything waits.
    pub(super) fn held_until(&self) -> Option<i64> {
        self.held.map(|held| held.until)
    }

    /// Waits that are older are over: what they waited for has been changed.
    pub(super) fn waits_since(mut self, changed_at: i64) -> Self {
        self.held = self.held.filter(|held| held.noted_at >= changed_at);
        for wait in self.waiting.values_mut().filter(|wait| wait.noted_at < changed_at) {
            wait.until = wait.noted_at;
        }
        self
    }

    /// A log that ends before a place that is known is not the one that it is of: it was restored.
    pub(super) fn check(&mut self, durable: Seq) {
        let end = Place(Position::after(durable));
        let last = self.waiting.last_key_value().map(|(place, _wait)| *place);
        let last = self.done.last().copied().max(last).max(self.position);
        if last > Some(end) {
            *self = Self { position: self.position.min(Some(end)), ..Self::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Position {
        text.parse().unwrap()
    }

    fn wait(noted_at: i64) -> Wait {
        Wait { failed: 2, noted_at, until: noted_at + 60 }
    }

    #[test]
    fn what_is_known_is_kept_as_long_as_it_is_ahead_and_of_this_log() {
        let mut progress = Progress::default();
        assert!(progress.moved(at("3")));
        assert!(!progress.moved(at("3")));
        progress.done(at("5"));
        progress.done(at("6.1"));
        progress.waits(at("6.0"), wait(10));
        progress.holds(wait(20));
        progress.holds(wait(5));
        let text = serde_json::to_string(&progress).unwrap();
        let mut read: Progress = serde_json::from_str(&text).unwrap();
        assert_eq!(read, progress);
        assert_eq!(read.held_until(), Some(80));
        read.check(Seq::new(6));
        assert_eq!(read, progress);
        assert!(read.moved(at("5")));
        assert!(
            !read.take_done(at("5")) && read.take_done(at("6.1")) && !read.take_done(at("6.1"))
        );
        // A change of the webhook ends what it waited for.
        let mut changed = progress.clone().waits_since(15);
        assert_eq!(changed.take_wait(at("6.0")).unwrap().until, 10);
        assert_eq!((changed.held_until(), changed.take_wait(at("6.0"))), (Some(80), None));
        // Of a log that ends before, nothing is known but that.
        progress.check(Seq::new(5));
        assert_eq!(progress, Progress { position: Some(Place(at("3"))), ..Progress::default() });
        progress.check(Seq::new(2));
        assert_eq!(progress.position(), Some(at("2")));
        let old: Progress = serde_json::from_str(r#"{"position":"7.0","total":3}"#).unwrap();
        assert_eq!(old.position(), Some(at("7.0")));
    }

    #[test]
    fn no_more_is_kept_than_a_courier_takes() {
        let mut progress = Progress::default();
        for seq in 1..1000 {
            progress.done(Position::after(Seq::new(seq)));
            progress.waits(Position::after(Seq::new(seq + 1000)), wait(1));
        }
        assert_eq!((progress.done.len(), progress.waiting.len()), (PLACES_MAX, PLACES_MAX));
    }
}
