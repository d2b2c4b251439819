//! How much of the log is kept for the matcher of standing queries, which writes what it found, and
//! how far it is, to the log itself: what it has not matched yet is not removed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrwdb_state::Seq;
use tokio::sync::{Notify, watch};

use crate::engine::{Engine, Inner};

/// The log held for the matcher, beyond what the feed's retention keeps, is at most as much again:
/// a matcher that never comes does not fill the disk.
pub(crate) const RETENTION_FACTOR: u32 = 2;
/// How long a purge waits for the matcher.
const PURGE_WAIT_MAX: Duration = Duration::from_secs(30);
/// Nothing is held.
const NOTHING: u64 = u64::MAX;

/// Where the matcher is.
#[derive(Debug)]
pub(crate) struct Held {
    /// Records up to this number are not needed any more. It stays when the matcher ends: the next
    /// one goes on from there.
    to: watch::Sender<u64>,
    /// As `to`, but for libraries that the matcher has given up: a purge does not wait for those.
    worked_to: watch::Sender<u64>,
    /// Whether there is a matcher.
    followed: AtomicBool,
    /// Told when somebody waits for the matcher.
    wanted: Notify,
}

impl Held {
    /// Holds what comes after `to`, until a matcher says where it is.
    pub(crate) fn from(to: Option<Seq>) -> Self {
        let to = to.map_or(NOTHING, Seq::get);
        Self {
            to: watch::Sender::new(to),
            worked_to: watch::Sender::new(to),
            followed: AtomicBool::new(false),
            wanted: Notify::new(),
        }
    }

    /// Records up to this number are not needed any more.
    pub(crate) fn to(&self) -> u64 {
        *self.to.borrow()
    }

    /// Records up to this number are not needed by a matcher that runs, for libraries that it has
    /// not given up; all, where none runs.
    pub(crate) fn followed_to(&self) -> u64 {
        if self.followed.load(Ordering::SeqCst) { *self.worked_to.borrow() } else { NOTHING }
    }

    /// The matcher needs no record up to `to`, and none up to `worked_to` for libraries that it has
    /// not given up.
    fn hold(&self, to: Seq, worked_to: Seq) {
        self.followed.store(true, Ordering::SeqCst);
        self.to.send_replace(to.get());
        self.worked_to.send_replace(worked_to.get());
    }

    /// Nobody is waited for any more.
    fn end(&self) {
        self.followed.store(false, Ordering::SeqCst);
        // Who waits sees that.
        self.worked_to.send_modify(|_to| {});
    }

    /// Waits, for a bounded time, until the matcher needs nothing up to `seq`. Where there is no
    /// matcher, nobody is waited for, and nothing is held.
    pub(crate) async fn reach(&self, seq: Seq) -> Result<(), u64> {
        if !self.followed.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut to = self.worked_to.subscribe();
        self.wanted.notify_one();
        let reached = to.wait_for(|_to| self.followed_to() >= seq.get());
        match tokio::time::timeout(PURGE_WAIT_MAX, reached).await {
            Ok(Ok(_reached)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(self.followed_to()),
        }
    }
}

impl Engine {
    /// Said by the matcher of standing queries: it needs no record up to `needed` any more. The log
    /// after it is kept, up to twice what the feed's retention says. A purge waits until `worked` is
    /// far enough, which leaves out libraries that the matcher has given up.
    pub fn hold_log_after(&self, needed: Seq, worked: Seq) {
        self.0.held.hold(needed, worked);
    }

    /// Said by the matcher when it ends: nobody waits for it any more. What it needs of the log is
    /// kept for the next one.
    pub fn matcher_ended(&self) {
        self.0.held.end();
    }

    /// Every record after this one is kept.
    pub fn kept_after(&self) -> Seq {
        Seq::new(self.0.log.first().saturating_sub(1))
    }

    /// Resolves when somebody waits for what the matcher holds: it should write how far it is.
    pub async fn held_log_wanted(&self) {
        self.0.held.wanted.notified().await;
    }
}

impl Inner {
    /// What may be trimmed of the log, given what followers do not need any more by retention,
    /// what they would not by twice that, and after which record jobs that are worked on need it.
    pub(crate) fn unheld(&self, expired: u64, expired_twice: u64, jobs_after: Option<Seq>) -> u64 {
        let held = self.held.to();
        let jobs = jobs_after.map_or(NOTHING, Seq::get);
        if expired_twice > held && self.log.first() <= expired_twice {
            tracing::error!(
                up_to = expired_twice,
                matched = held,
                "passages were not matched against standing queries in time and are removed from \
                 the log: those of the records between will not be matched"
            );
        }
        // It may be carried and not noted: what is to go is asked for before, and goes the next time.
        let carried = self.carried_from();
        let asked = if expired > carried { self.want_noted(expired) } else { expired };
        let uncarried = expired_twice.min(asked);
        let expired_twice = expired_twice.min(asked.max(carried));
        if uncarried > carried && self.log.first() <= uncarried {
            tracing::error!(
                up_to = uncarried,
                carried,
                "changes were not carried to the vectors of a second embedding model in time and \
                 are removed from the log: these can only be discarded"
            );
        }
        expired.min(held).min(jobs).min(carried).max(expired_twice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_matcher_that_ended_needs_is_kept_and_nobody_waits_for_it() {
        let held = Held::from(None);
        assert_eq!((held.to(), held.followed_to()), (NOTHING, NOTHING));
        held.hold(Seq::new(5), Seq::new(5));
        assert_eq!((held.to(), held.followed_to()), (5, 5));
        let waiting = held.reach(Seq::new(9));
        tokio::pin!(waiting);
        assert!(waits(waiting.as_mut()).await, "it waits");
        held.end();
        assert_eq!(waiting.await, Ok(()));
        assert_eq!((held.to(), held.followed_to()), (5, NOTHING));
    }

    #[tokio::test]
    async fn a_purge_does_not_wait_for_a_library_that_is_given_up() {
        let held = Held::from(Some(Seq::new(3)));
        held.hold(Seq::new(3), Seq::new(20));
        assert_eq!(held.reach(Seq::new(20)).await, Ok(()));
        assert_eq!((held.to(), held.followed_to()), (3, 20));
    }

    /// Whether it is not done after it was looked at once.
    async fn waits(future: std::pin::Pin<&mut impl Future>) -> bool {
        tokio::select! {
            biased;
            _done = future => false,
            () = std::future::ready(()) => true,
        }
    }
}
