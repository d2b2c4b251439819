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
    /// Records up to this number are not needed any more.
    to: watch::Sender<u64>,
    /// Whether there is a matcher.
    followed: AtomicBool,
    /// Told when somebody waits for the matcher.
    wanted: Notify,
}

impl Held {
    /// Holds what comes after `to`, until a matcher says where it is.
    pub(crate) fn from(to: Option<Seq>) -> Self {
        let to = watch::Sender::new(to.map_or(NOTHING, Seq::get));
        Self { to, followed: AtomicBool::new(false), wanted: Notify::new() }
    }

    /// Records up to this number are not needed any more.
    pub(crate) fn to(&self) -> u64 {
        *self.to.borrow()
    }

    /// As [`Held::to`], where there is a matcher to wait for; else everything.
    pub(crate) fn followed_to(&self) -> u64 {
        if self.followed.load(Ordering::SeqCst) { self.to() } else { NOTHING }
    }

    /// Waits, for a bounded time, until the matcher needs nothing up to `seq`. Where there is no
    /// matcher, nobody is waited for, and nothing is held.
    pub(crate) async fn reach(&self, seq: Seq) -> Result<(), u64> {
        if !self.followed.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut to = self.to.subscribe();
        self.wanted.notify_one();
        let reached = to.wait_for(|to| *to >= seq.get());
        match tokio::time::timeout(PURGE_WAIT_MAX, reached).await {
            Ok(Ok(_reached)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(self.to()),
        }
    }
}

impl Engine {
    /// Said by the matcher of standing queries: it needs no record up to this one any more. The log
    /// after it is kept, up to twice what the feed's retention says; `None` ends that.
    pub fn hold_log_after(&self, seq: Option<Seq>) {
        let held = &self.0.held;
        held.followed.store(seq.is_some(), Ordering::SeqCst);
        held.to.send_replace(seq.map_or(NOTHING, Seq::get));
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
    /// What may be trimmed of the log, given what followers do not need any more by retention and
    /// what they would not by twice that.
    pub(crate) fn unheld(&self, expired: u64, expired_twice: u64) -> u64 {
        let held = self.held.to();
        if expired_twice > held && self.log.first() <= expired_twice {
            tracing::error!(
                up_to = expired_twice,
                matched = held,
                "passages were not matched against standing queries in time and are removed from \
                 the log: those of the records between will not be matched"
            );
        }
        expired.min(held).max(expired_twice)
    }
}
