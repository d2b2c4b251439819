//! The matcher: every new passage of a library against its standing queries.
//!
//! It follows the whole log. Records of a library's companion change its queries, which are kept in
//! memory ready to be matched ([`arrwdb_engine::state::QuerySet`]); records that put documents into a library that is
//! watched are gathered and matched together. What matched, and how far the library is matched, is
//! one entry of the companion's stream, which is decided by the companion's only writer: a position
//! that is not ahead of the one noted is refused, so that nothing is noted twice, and what a query
//! matched that is deleted by then is left out. Where nothing matches the position is written now
//! and then, and the log is held until it is.
//!
//! It keeps F7.

mod again;
mod load;
mod matches;
mod watched;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrwdb_engine::state::Seq;
use arrwdb_engine::{Engine, FollowError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use work::Work;

/// A running matcher. It ends when it is closed, or its engine is.
#[derive(Debug)]
pub struct Matcher {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    figures: Arc<Figures>,
    /// True once it has ended, however that came about.
    ended: watch::Receiver<bool>,
}

/// Says that a matcher has ended, also where its task panicked: nobody waits for it any more.
struct Ending {
    engine: Engine,
    ended: watch::Sender<bool>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.engine.matcher_ended();
        self.ended.send_replace(true);
    }
}

/// What a matcher has done since it was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MatcherStats {
    /// Everything up to this record is matched.
    pub position: Seq,
    /// Passages matched against at least one query.
    pub passages: u64,
    /// Matches noted.
    pub matches: u64,
    /// Libraries with records that were gone before they were matched, counted at each time.
    pub lost: u64,
    /// Queries in memory.
    pub queries: u64,
    /// Bytes that they take.
    pub query_bytes: u64,
}

#[derive(Debug, Default)]
struct Figures {
    pub(super) position: watch::Sender<u64>,
    pub(super) passages: AtomicU64,
    pub(super) matches: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) queries: AtomicU64,
    pub(super) query_bytes: AtomicU64,
}

impl Matcher {
    /// Starts where the last one has stopped. An engine has one matcher at most.
    pub async fn start(engine: Engine) -> Result<Self, FollowError> {
        let figures = Arc::new(Figures::default());
        let (stop, stopped) = watch::channel(false);
        let mut work = Work::begin(engine.clone(), figures.clone(), stopped, Seq::START).await?;
        let (sender, ended) = watch::channel(false);
        let ending = Ending { engine, ended: sender };
        let task = tokio::spawn(async move {
            let _ending = ending;
            work.run().await;
        });
        Ok(Self { stop, task, figures, ended })
    }

    /// Whether it matches: it ends when it is closed, or cannot go on, which is logged.
    pub fn is_running(&self) -> bool {
        !*self.ended.borrow()
    }

    /// What it has done.
    pub fn stats(&self) -> MatcherStats {
        let read = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        MatcherStats {
            position: Seq::new(*self.figures.position.borrow()),
            passages: read(&self.figures.passages),
            matches: read(&self.figures.matches),
            lost: read(&self.figures.lost),
            queries: read(&self.figures.queries),
            query_bytes: read(&self.figures.query_bytes),
        }
    }

    /// Waits until everything up to `seq` is matched, and what matched is noted; whether it is, which
    /// it never will be once the matcher has ended.
    pub async fn reached(&self, seq: Seq) -> bool {
        let mut position = self.figures.position.subscribe();
        let mut ended = self.ended.clone();
        tokio::select! {
            biased;
            reached = position.wait_for(|position| *position >= seq.get()) => reached.is_ok(),
            // A sender that is gone has ended as well.
            _ended = ended.wait_for(|ended| *ended) => false,
        }
    }

    /// Has it note how far it is and end, and does not wait for that.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Notes how far it is and ends.
    pub async fn close(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the matcher of standing queries stopped before its time");
        }
    }
}
