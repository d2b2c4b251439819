//! Has every schedule that is wanted have a job that waits for its time, and no other; and what waits
//! for a library that was deleted wait no longer.

use std::sync::Arc;
use std::time::Duration;

use arrwdb_engine::EngineError;
use arrwdb_engine::state::{Job, JobState, Schedule, Scheduled, Seq};
use tokio::sync::watch;

use super::cron::Cron;
use super::{AGAIN, Shared};

/// The longest that what cannot be written waits before it is tried again.
const AGAIN_MAX: Duration = Duration::from_secs(10);
/// Why a schedule is turned off that there is nothing left for.
const DELETED: &str = "its library was deleted";

impl Shared {
    /// Sees to schedules whenever the stream of work changes, until the server stops.
    ///
    /// A schedule's next job is submitted when the one before is over, for the first time after
    /// that: jobs of one schedule never overlap, and of times that passed while the server did not
    /// run, or while a job took longer, one job is made up for.
    ///
    /// The deletion of a library is in another stream, which does not say what waits for it here: it
    /// wakes this, and the first look of all finds what a stop came before.
    pub(super) async fn keep_schedules(self: Arc<Self>) {
        let mut applied = self.engine.work_applied();
        let mut stopping = self.stopping.subscribe();
        let mut deleted = self.engine.libraries_deleted();
        deleted.mark_changed();
        let mut wait = AGAIN;
        loop {
            applied.borrow_and_update();
            let seen = tokio::select! {
                seen = self.see_to_all(&mut deleted) => seen,
                _stopping = stopping.wait_for(|stopping| *stopping) => return,
            };
            let Err(error) = seen else {
                if wait > AGAIN {
                    tracing::info!("schedules are followed again");
                }
                wait = AGAIN;
                tokio::select! {
                    changed = applied.changed() => if changed.is_err() { return },
                    changed = deleted.changed() => {
                        if changed.is_err() { return }
                        deleted.mark_changed();
                    }
                    _stopping = stopping.wait_for(|stopping| *stopping) => return,
                }
                continue;
            };
            if matches!(error, EngineError::Closed | EngineError::LogFailed { .. }) {
                return;
            }
            if wait == AGAIN {
                tracing::warn!(%error, "schedules wait; this is tried again");
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(AGAIN_MAX),
                _stopping = stopping.wait_for(|stopping| *stopping) => return,
            }
        }
    }

    /// Sees to all that there is; what is left of deleted libraries is asked for until it is done.
    async fn see_to_all(&self, deleted: &mut watch::Receiver<()>) -> Result<(), EngineError> {
        let mut seen = Ok(());
        if deleted.has_changed().unwrap_or(false) {
            deleted.mark_unchanged();
            seen = self.see_to_orphans().await;
            if seen.is_err() {
                deleted.mark_changed();
            }
        }
        // What cannot be written for one library keeps nothing from the others.
        self.see_to_schedules().await.and(seen)
    }

    /// Turns off schedules whose library was deleted, which puts their jobs away, and has jobs that wait
    /// for their time taken now: they find that it was deleted, and end.
    async fn see_to_orphans(&self) -> Result<(), EngineError> {
        let mut seen = Ok(());
        for scheduled in self.engine.orphaned_schedules() {
            seen = self.turn_off(&scheduled.schedule, DELETED).await.and(seen);
        }
        for job in self.engine.unfinished_jobs(Seq::START) {
            let waits = matches!(job.state, JobState::Pending { not_before: Some(_) });
            if waits && job.spec.schedule.is_none() && self.engine.is_orphaned(&job) {
                self.queue.lock().hurry(&job);
                self.offered.notify_one();
            }
        }
        seen
    }

    /// Sees to all schedules; what went wrong with the last of those that it could not be done for.
    async fn see_to_schedules(&self) -> Result<(), EngineError> {
        let mut seen = Ok(());
        for job in self.engine.stale_jobs() {
            seen = self.put_away(&job).await.and(seen);
        }
        for scheduled in self.engine.idle_schedules() {
            seen = self.submit_next(&scheduled).await.and(seen);
        }
        seen
    }

    /// Cancels a job that waits for what its schedule is no longer.
    async fn put_away(&self, job: &Job) -> Result<(), EngineError> {
        let head = job.spec.head;
        match self.engine.cancel_job(head.tenant, head.id).await {
            Ok(_written) => {
                self.queue.lock().remove(head.id);
                self.perform.over(job);
                Ok(())
            }
            // It is over, or it was begun.
            Err(EngineError::JobState(_) | EngineError::JobNotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn submit_next(&self, scheduled: &Scheduled) -> Result<(), EngineError> {
        let schedule = &scheduled.schedule;
        let cron = match Cron::read(&schedule.cron, &schedule.time_zone) {
            Ok(cron) => cron,
            Err(error) => return self.turn_off(schedule, &error.to_string()).await,
        };
        let now = self.engine.now();
        let after = match scheduled.due {
            // A time that was cancelled, or came early by a clock that was set back, does not come
            // again.
            Some(due) => due.max(now),
            // A time that came after it was changed, before anybody saw to that, is not left out.
            None => schedule.updated_at.min(now),
        };
        let Some(due) = cron.next_after(after) else {
            return self.turn_off(schedule, "there is no time left that it could name").await;
        };
        match self.engine.submit_scheduled(scheduled, due).await {
            Ok(_submitted) => Ok(()),
            Err(EngineError::LibraryNotFound(_)) => self.turn_off(schedule, DELETED).await,
            Err(error) => Err(error),
        }
    }

    /// Turns a schedule off that cannot be followed; whoever looks at it sees why.
    async fn turn_off(&self, schedule: &Schedule, why: &str) -> Result<(), EngineError> {
        let note = format!("turned off by the server: {why}");
        let off = |now: &mut Schedule| {
            // Unless somebody has changed it meanwhile.
            if now == schedule {
                now.enabled = false;
                now.note = Some(note.clone());
            }
        };
        match self.engine.change_schedule((schedule.tenant, schedule.id), off).await {
            Ok(_written) => {
                let (id, name) = (schedule.id, &schedule.name);
                tracing::warn!(schedule = %id, name, "a schedule is turned off: {why}");
                Ok(())
            }
            Err(EngineError::ScheduleNotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
