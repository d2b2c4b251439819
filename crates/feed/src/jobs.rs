//! Jobs: a follower of the stream of work that does what it finds there.
//!
//! What a kind of job does is [`Perform`]'s; here is when, how often and by how many at a time. A job
//! is in the log before it is acknowledged, and what became of it is in the log before anybody is
//! told, so a stop at any moment leaves it where it was: one that was worked on goes on at the next
//! start, after the last unit that is in the log.

mod cron;
mod done;
mod queue;
mod run;
mod schedule;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrwdb_engine::state::{Job, JobChange, JobId, JobProgress, JobState, Seq};
use arrwdb_engine::{Engine, EngineError, JobCounts, Written};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

pub use self::cron::{Cron, CronError};
pub use self::done::DoneUnits;
use self::queue::Queue;
pub use self::run::{Halt, JobRun};

/// Changes of jobs that are handed to the log and not durable yet, at most.
const SETTLING_MAX: usize = 1024;
/// How long a change that could not be written waits before it is tried again.
const AGAIN: Duration = Duration::from_millis(200);
/// How long the clock is not looked at, at most, while a job waits for its time.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// What came of performing a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Performed {
    /// It is done; this is its result, a JSON object.
    Completed(String),
    /// It cannot be done, and trying again would not help; with what was done by then, if that is
    /// worth telling.
    Failed {
        /// Why.
        error: String,
        /// A JSON object.
        result: Option<String>,
    },
    /// It failed, and may do better when it is tried again, which is done so many times.
    Again {
        /// Why.
        error: String,
        /// What was done by then, for when it is not tried again: a JSON object.
        result: Option<String>,
    },
    /// It cannot be done for something that has nothing to do with it (the disk is full, the
    /// provider is down): it waits until that is over, however long it takes.
    Later {
        /// Why.
        error: String,
        /// Not before so long.
        after: Duration,
        /// What was done by then, for when nobody wants it any more: a JSON object.
        result: Option<String>,
    },
    /// It was asked to stop, and did; with what was done by then.
    Cancelled(Option<String>),
    /// The server stops: it goes on after the next start.
    Stopped,
}

/// A job that is performed.
pub type Performing<'a> = Pin<Box<dyn Future<Output = Performed> + Send + 'a>>;

/// Does what jobs ask for.
pub trait Perform: Send + Sync + 'static {
    /// A job is over, and that is in the log: what was kept for it is not needed any more.
    fn over(&self, job: &Job);

    /// Does what a job asks for, from where it is. Stops at the next unit when it is told to.
    fn perform(&self, run: JobRun) -> Performing<'_>;
}

/// How jobs are worked on.
#[derive(Debug, Clone, Copy)]
pub struct JobsConfig {
    /// How many at a time.
    pub workers: usize,
    /// The delay before a job that failed is tried again; it doubles each time.
    pub retry_delay: Duration,
    /// The longest such delay.
    pub retry_delay_max: Duration,
    /// How often a job's progress is noted in the log.
    pub progress_every: Duration,
}

impl Default for JobsConfig {
    fn default() -> Self {
        Self {
            workers: 4,
            retry_delay: Duration::from_secs(1),
            retry_delay_max: Duration::from_mins(5),
            progress_every: Duration::from_secs(5),
        }
    }
}

/// Figures of the jobs.
#[derive(Debug, Clone, Copy)]
pub struct JobsStats {
    /// In which state they are.
    pub counts: JobCounts,
    /// Jobs that wait for a worker or for their time.
    pub queued: u64,
    /// How many are worked on at a time.
    pub workers: u64,
    /// Whether jobs are worked on.
    pub running: bool,
    /// Jobs that were taken since the start.
    pub taken: u64,
    /// Times that a job was put off to be tried again since the start.
    pub retried: u64,
}

/// How far a job is that is worked on.
#[derive(Debug, Clone, Copy)]
pub struct LiveProgress {
    /// How far.
    pub progress: JobProgress,
    /// Units done in a second, since it was taken in this process.
    pub rate: f64,
    /// How long it will take still, where that can be told.
    pub remaining: Option<Duration>,
}

/// The workers. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Jobs(Arc<Shared>);

struct Shared {
    engine: Engine,
    config: JobsConfig,
    perform: Arc<dyn Perform>,
    queue: Mutex<Queue>,
    /// Told when there may be a job to take.
    offered: Notify,
    /// Told when a job may be due sooner than was known.
    due: Notify,
    running: Mutex<HashMap<JobId, Arc<Live>>>,
    /// Changes that are handed to the log.
    settling: Arc<Semaphore>,
    stopping: watch::Sender<bool>,
    is_running: AtomicBool,
    taken: AtomicU64,
    retried: AtomicU64,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A job that is worked on.
#[derive(Debug)]
struct Live {
    cancelled: watch::Sender<bool>,
    progress: Mutex<JobProgress>,
    /// Where it was when it was taken, and when that was.
    began: (u64, Instant),
}

impl Jobs {
    /// Begins to work, also on what was worked on when the server stopped.
    pub async fn start(engine: Engine, perform: Arc<dyn Perform>, config: JobsConfig) -> Self {
        let jobs = Self(Arc::new(Shared {
            engine,
            config,
            perform,
            queue: Mutex::default(),
            offered: Notify::new(),
            due: Notify::new(),
            running: Mutex::default(),
            settling: Arc::new(Semaphore::new(SETTLING_MAX)),
            stopping: watch::Sender::new(false),
            is_running: AtomicBool::new(true),
            taken: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            tasks: tokio::sync::Mutex::new(JoinSet::new()),
        }));
        let shared = &jobs.0;
        let mut tasks = shared.tasks.lock().await;
        tasks.spawn(shared.clone().follow());
        tasks.spawn(shared.clone().keep_schedules());
        for _worker in 0..shared.config.workers.max(1) {
            tasks.spawn(shared.clone().work());
        }
        drop(tasks);
        jobs
    }

    /// Takes no more jobs and has those that are worked on stop at their next unit: they go on
    /// after the next start. Returns when what became of them is in the log.
    pub async fn close(&self) {
        let shared = &self.0;
        shared.stopping.send_replace(true);
        let mut tasks = shared.tasks.lock().await;
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a worker of jobs stopped");
            }
        }
        // Every change that is on its way holds one; a poisoned log answers them all.
        drop(shared.settling.acquire_many(u32::try_from(SETTLING_MAX).unwrap_or(u32::MAX)).await);
        shared.is_running.store(false, Ordering::SeqCst);
    }

    /// How far a job is that is worked on.
    pub fn progress(&self, id: JobId) -> Option<LiveProgress> {
        let live = self.0.running.lock().get(&id).cloned()?;
        let progress = *live.progress.lock();
        let (from, since) = live.began;
        let done = progress.current.saturating_sub(from);
        #[expect(clippy::cast_precision_loss, reason = "a rate is shown with a few digits")]
        let rate = done as f64 / since.elapsed().as_secs_f64().max(1e-3);
        #[expect(clippy::cast_precision_loss, reason = "an estimate of seconds")]
        let remaining = progress.total.filter(|_total| rate > 0.0).and_then(|total| {
            let left = total.saturating_sub(progress.current) as f64;
            Duration::try_from_secs_f64(left / rate).ok()
        });
        Some(LiveProgress { progress, rate, remaining })
    }

    /// Whether jobs are worked on.
    pub fn is_running(&self) -> bool {
        let shared = &self.0;
        shared.is_running.load(Ordering::SeqCst) && !*shared.stopping.borrow()
    }

    /// Said by who cancelled a job that waited: what was kept for it is not needed any more.
    pub fn forget(&self, job: &Job) {
        let id = job.spec.head.id;
        if !self.0.running.lock().contains_key(&id) {
            self.0.queue.lock().remove(id);
            self.0.over(job);
        }
    }

    /// Figures.
    pub fn stats(&self) -> JobsStats {
        let shared = &self.0;
        JobsStats {
            counts: shared.engine.job_counts(),
            queued: shared.queue.lock().len() as u64,
            workers: shared.config.workers.max(1) as u64,
            running: self.is_running(),
            taken: shared.taken.load(Ordering::Relaxed),
            retried: shared.retried.load(Ordering::Relaxed),
        }
    }
}

impl Shared {
    /// Has every job wait that is to be worked on, and tells those that are when somebody does not
    /// want them any more.
    async fn follow(self: Arc<Self>) {
        let mut applied = self.engine.work_applied();
        let mut stopping = self.stopping.subscribe();
        let mut after = Seq::START;
        loop {
            applied.borrow_and_update();
            for job in self.engine.unfinished_jobs(after) {
                after = job.changed;
                self.take_in(&job);
            }
            let (ripe, due) = {
                let mut queue = self.queue.lock();
                (queue.ripen(self.engine.now()), queue.next_due())
            };
            if ripe {
                self.offered.notify_one();
            }
            let due = async {
                match due.map(|due| self.until(due)) {
                    // The clock may be set, and machines sleep.
                    Some(wait) => tokio::time::sleep(wait.min(LOOK_AGAIN)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = applied.changed() => if changed.is_err() { return },
                () = due => {}
                () = self.due.notified() => {}
                _stopping = stopping.wait_for(|stopping| *stopping) => return,
            }
        }
    }

    fn until(&self, time: arrwdb_engine::state::Timestamp) -> Duration {
        let micros = time.micros().saturating_sub(self.engine.now().micros());
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    fn take_in(&self, job: &Job) {
        if let Some(live) = self.running.lock().get(&job.spec.head.id) {
            if matches!(job.state, JobState::Running { cancelling: true }) {
                live.cancelled.send_replace(true);
            }
            return;
        }
        self.offer(job);
    }

    /// What became of a job is in the log: nobody works on it any more. Until then it must not be
    /// taken again, though the log may just have said that it was begun.
    fn let_go(&self, id: JobId, live: &Arc<Live>) {
        {
            let mut running = self.running.lock();
            if running.get(&id).is_some_and(|now| Arc::ptr_eq(now, live)) {
                running.remove(&id);
            }
        }
        // It may have been put off, which was told while it was still in hand.
        if let Some(job) = self.engine.job_of_any(id) {
            self.over(&job);
            self.take_in(&job);
        }
    }

    /// Says that a job is over, if it is.
    fn over(&self, job: &Job) {
        if matches!(job.state, JobState::Finished { .. }) {
            self.perform.over(job);
        }
    }

    fn offer(&self, job: &Job) {
        self.queue.lock().offer(job, self.engine.now());
        self.offered.notify_one();
        self.due.notify_one();
    }

    /// Works until the server stops.
    async fn work(self: Arc<Self>) {
        let mut stopping = self.stopping.subscribe();
        loop {
            if *stopping.borrow_and_update() {
                return;
            }
            let offered = self.offered.notified();
            let taken = self.queue.lock().take(self.engine.now());
            let Some(id) = taken else {
                tokio::select! {
                    () = offered => {}
                    _stopping = stopping.wait_for(|stopping| *stopping) => return,
                }
                continue;
            };
            // There may be more than one; another worker looks.
            self.offered.notify_one();
            self.run(id).await;
        }
    }

    /// Hands a change to the log and goes on; until it is there the job is as it was, and so it is
    /// after a restart. What is noted of one job is in the log in the order of these calls. With the
    /// last of them the job is let go.
    async fn note(self: &Arc<Self>, id: JobId, change: JobChange, last_of: Option<Arc<Live>>) {
        let answer = self.engine.change_job(id, change.clone());
        // Bounded: with too many on their way this waits.
        let Ok(permit) = self.settling.clone().acquire_owned().await else { return };
        let shared = self.clone();
        tokio::spawn(async move {
            let noted = shared.noted(id, change, answer).await;
            if let (Some(live), true) = (last_of, noted != Noted::Never) {
                shared.let_go(id, &live);
            }
            drop(permit);
        });
    }

    /// Has the log say what became of a job.
    async fn change(&self, id: JobId, change: JobChange) -> Noted {
        let answer = self.engine.change_job(id, change.clone());
        self.noted(id, change, answer).await
    }

    /// Waits until a change is in the log. What cannot be written now is written later, unless the
    /// server stops. A log that takes nothing any more ends the work on jobs: what is done could
    /// not be noted, and would be done again.
    async fn noted(
        &self,
        id: JobId,
        change: JobChange,
        answer: impl Future<Output = Result<Written<()>, EngineError>>,
    ) -> Noted {
        use EngineError::{Busy, DiskFull, JobNotFound, JobState, Storage};
        let mut stopping = self.stopping.subscribe();
        let mut answer = answer.await;
        while let Err(error) = answer {
            if matches!(error, JobState(_) | JobNotFound(_)) {
                return Noted::Refused;
            }
            if !matches!(error, Busy { .. } | DiskFull { .. } | Storage { .. }) {
                if !self.stopping.send_replace(true) {
                    tracing::error!(job = %id, %error, "jobs are not worked on any more");
                }
                return Noted::Never;
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                _stopping = stopping.wait_for(|stopping| *stopping) => return Noted::Never,
            }
            answer = self.engine.change_job(id, change.clone()).await;
        }
        Noted::Written
    }
}

/// What came of noting a change of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noted {
    /// It is in the log.
    Written,
    /// Something else became of the job before.
    Refused,
    /// Not while this process runs.
    Never,
}
