//! One job on its way: taken, performed, ended.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arrwdb_engine::Engine;
use arrwdb_engine::state::limits::JOB_RESULT_BYTES_MAX;
use arrwdb_engine::state::{
    Job, JobChange, JobEnd, JobHead, JobId, JobOutcome, JobProgress, JobState, JobUnit, Timestamp,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::done::{DoneUnits, done_units};
use super::{AGAIN, Live, Noted, Performed, Shared};
use crate::error::FeedError;

/// Characters of an error that a job remembers.
const ERROR_CHARS_MAX: usize = 1000;

/// A job that is performed: what it asks for, and what it is to tell and to hear.
#[derive(Debug)]
pub struct JobRun {
    job: Arc<Job>,
    live: Arc<Live>,
    shared: Arc<Shared>,
    cancelled: watch::Receiver<bool>,
    stopping: watch::Receiver<bool>,
    noted: Mutex<Instant>,
}

/// Why a job is to stop at its next unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    /// Somebody does not want it any more.
    Cancelled,
    /// The server stops.
    Stopping,
}

impl From<Halt> for Performed {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::Cancelled => Self::Cancelled(None),
            Halt::Stopping => Self::Stopped,
        }
    }
}

impl JobRun {
    /// The job, as it was taken.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Whether some of it may be in the log already: nothing is done before it is noted that it
    /// begins.
    pub fn is_resumed(&self) -> bool {
        self.job.started_at.is_some()
    }

    /// Whether it is not tried again, however it ends now.
    pub fn is_last_try(&self) -> bool {
        self.job.retries >= self.job.spec.retries_max
    }

    /// Which job, whose, about what.
    pub fn head(&self) -> JobHead {
        self.job.spec.head
    }

    /// The engine that it works on.
    pub fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    /// What the writes of a unit are noted with.
    pub fn unit(&self, unit: u64) -> JobUnit {
        JobUnit { job: self.head().id, unit }
    }

    /// Whether it is to stop at this unit.
    ///
    /// # Errors
    /// It is.
    pub fn check(&self) -> Result<(), Halt> {
        if *self.cancelled.borrow() {
            return Err(Halt::Cancelled);
        }
        if *self.stopping.borrow() { Err(Halt::Stopping) } else { Ok(()) }
    }

    /// Resolves when it is to stop.
    pub async fn halted(&self) -> Halt {
        let (mut cancelled, mut stopping) = (self.cancelled.clone(), self.stopping.clone());
        // Neither sender is dropped while this is here.
        tokio::select! {
            _cancelled = cancelled.wait_for(|cancelled| *cancelled) => Halt::Cancelled,
            _stopping = stopping.wait_for(|stopping| *stopping) => Halt::Stopping,
        }
    }

    /// Resolves when the server stops: for what cannot be stopped halfway for anything less.
    pub async fn stopped(&self) {
        let mut stopping = self.stopping.clone();
        // The sender is not dropped while this is here.
        drop(stopping.wait_for(|stopping| *stopping).await);
    }

    /// How far it is.
    pub fn progress(&self) -> JobProgress {
        *self.live.progress.lock()
    }

    /// Says how far it is: everybody sees that at once, and now and then the log does.
    pub async fn advance(&self, progress: JobProgress) {
        *self.live.progress.lock() = progress;
        let every = self.shared.config.progress_every;
        let due = {
            let mut noted = self.noted.lock();
            let due = noted.elapsed() >= every;
            if due {
                *noted = Instant::now();
            }
            due
        };
        if due {
            self.shared.note(self.head().id, JobChange::Progressed(progress), None).await;
        }
    }

    /// What of its units is in the log beyond its progress. Reads the log, where the job was not
    /// submitted in this process; blocks no thread of the runtime.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn done_units(&self) -> Result<DoneUnits, FeedError> {
        done_units(&self.shared.engine, &self.job).await
    }
}

impl Shared {
    pub(super) async fn run(self: &Arc<Self>, id: JobId) {
        let Some((job, live)) = self.take(id) else { return };
        self.taken.fetch_add(1, Ordering::Relaxed);
        // Nothing is done before the log says that it is begun: it may be cancelled just now.
        if matches!(job.state, JobState::Pending { .. }) {
            match self.change(id, JobChange::Started).await {
                Noted::Written => {}
                Noted::Refused => return self.let_go(id, &live),
                Noted::Never => return,
            }
        }
        // It may have been cancelled before it was to be found here.
        let now = self.engine.job_of_any(id);
        if now.is_some_and(|now| now.state == JobState::Running { cancelling: true }) {
            live.cancelled.send_replace(true);
        }
        let run = JobRun {
            job: job.clone(),
            live: live.clone(),
            shared: self.clone(),
            cancelled: live.cancelled.subscribe(),
            stopping: self.stopping.subscribe(),
            noted: Mutex::new(Instant::now()),
        };
        let performed = self.perform_safely(run).await;
        let progress = *live.progress.lock();
        let cancelled = *live.cancelled.borrow();
        let Some(change) = self.became(&job, performed, (progress, cancelled)) else { return };
        if matches!(change, JobChange::Retried { .. }) && progress != job.progress {
            // It goes on from here: the log need not be kept any longer than that.
            self.note(id, JobChange::Progressed(progress), None).await;
        }
        self.note(id, change, Some(live)).await;
    }

    /// The job, in this worker's hands; `None` if another has it, or it is not to be taken now.
    fn take(&self, id: JobId) -> Option<(Arc<Job>, Arc<Live>)> {
        let mut running = self.running.lock();
        let Entry::Vacant(place) = running.entry(id) else { return None };
        let job = self.engine.job_of_any(id)?;
        let cancelling = match job.state {
            JobState::Finished { .. } => {
                drop(running);
                self.over(&job);
                return None;
            }
            JobState::Pending { not_before } => {
                let early = not_before.is_some_and(|time| time > self.engine.now());
                // What its library was deleted for has nothing to wait for.
                if early && !self.engine.is_orphaned(&job) {
                    // It was put off since it was offered.
                    drop(running);
                    self.offer(&job);
                    return None;
                }
                // Who sees to schedules cancels it. Until then its schedule may be changed once
                // more, so that it is wanted after all, and it must be found again.
                if job.spec.schedule.is_some() && self.engine.is_stale_job(id) {
                    drop(running);
                    self.queue.lock().put_off(&job, self.in_future(AGAIN));
                    self.due.notify_one();
                    return None;
                }
                false
            }
            JobState::Running { cancelling } => cancelling,
        };
        let live = Arc::new(Live {
            cancelled: watch::Sender::new(cancelling),
            progress: Mutex::new(job.progress),
            began: (job.progress.current, Instant::now()),
        });
        place.insert(live.clone());
        Some((job, live))
    }

    /// A panic of what a job does fails the job and nothing else.
    async fn perform_safely(&self, run: JobRun) -> Performed {
        let perform = self.perform.clone();
        let id = run.head().id;
        let task = tokio::spawn(async move { perform.perform(run).await });
        task.await.unwrap_or_else(|error| {
            tracing::error!(job = %id, %error, "performing a job failed");
            let error = "the server failed at it; its log says how".to_owned();
            Performed::Failed { error, result: None }
        })
    }

    fn became(
        &self,
        job: &Job,
        performed: Performed,
        (progress, cancelled): (JobProgress, bool),
    ) -> Option<JobChange> {
        let id = job.spec.head.id;
        // As the log has it, which was told when it began.
        let started_at = self.engine.job_of_any(id).and_then(|job| job.started_at);
        let end = |outcome, result: Option<String>, error: Option<String>| {
            let fits = |text: &String| text.len() <= JOB_RESULT_BYTES_MAX;
            Some(JobChange::Finished(JobEnd {
                outcome,
                started_at,
                progress,
                result: result.filter(fits).map(Into::into),
                error: error
                    .map(|error| error.chars().take(ERROR_CHARS_MAX).collect::<String>().into()),
            }))
        };
        match performed {
            Performed::Completed(result) => end(JobOutcome::Completed, Some(result), None),
            Performed::Failed { error, result } => end(JobOutcome::Failed, result, Some(error)),
            Performed::Cancelled(result) => end(JobOutcome::Cancelled, result, None),
            Performed::Stopped => None,
            // Who does not want it any more does not want it to be tried again.
            Performed::Again { error, result } | Performed::Later { error, after: _, result }
                if cancelled =>
            {
                end(JobOutcome::Cancelled, result, Some(error))
            }
            Performed::Again { error, result: _ } if job.retries < job.spec.retries_max => {
                self.retried.fetch_add(1, Ordering::Relaxed);
                let doubled = self.config.retry_delay.saturating_mul(1_u32 << job.retries.min(16));
                let delay = doubled.min(self.config.retry_delay_max);
                Some(self.put_off(id, delay, (error, true)))
            }
            Performed::Again { error, result } => {
                let error = format!("{error} (tried {} times)", job.retries + 1);
                end(JobOutcome::Failed, result, Some(error))
            }
            Performed::Later { error, after, result: _ } => {
                // The longer it has waited, the more seldom it asks, so that many that wait for one
                // thing do not fill the log.
                let since = job.started_at.unwrap_or(job.spec.submitted_at).micros();
                let waited = self.engine.now().micros().saturating_sub(since);
                let waited = Duration::from_micros(u64::try_from(waited).unwrap_or(0));
                let delay = (waited / 4).min(self.config.retry_delay_max).max(after);
                Some(self.put_off(id, delay, (error, false)))
            }
        }
    }

    fn put_off(&self, id: JobId, delay: Duration, (error, counted): (String, bool)) -> JobChange {
        let not_before = self.in_future(self.jittered(id, delay));
        let error: String = error.chars().take(ERROR_CHARS_MAX).collect();
        JobChange::Retried { not_before, error: error.into(), counted }
    }

    /// No two jobs that failed together come back together.
    fn jittered(&self, id: JobId, delay: Duration) -> Duration {
        // The last bits of an id are random, and so are the times at which it fails: three quarters
        // of the delay to five quarters.
        let now = self.engine.now().micros().to_le_bytes()[0];
        let jitter = u32::from(id.to_bytes()[15] ^ now);
        delay.saturating_mul(192 + jitter / 2) / 256
    }

    fn in_future(&self, delay: Duration) -> Timestamp {
        let micros = i64::try_from(delay.as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros(self.engine.now().micros().saturating_add(micros))
    }
}
