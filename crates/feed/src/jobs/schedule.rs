//! Has every schedule that is wanted have a job that waits for its time, and no other.

use std::sync::Arc;

use arrwdb_engine::EngineError;
use arrwdb_engine::state::{Job, Schedule, Scheduled};

use super::cron::Cron;
use super::{AGAIN, Shared};

impl Shared {
    /// Sees to schedules whenever the stream of work changes, until the server stops.
    ///
    /// A schedule's next job is submitted when the one before is over, for the first time after
    /// that: jobs of one schedule never overlap, and of times that passed while the server did not
    /// run, or while a job took longer, one job is made up for.
    pub(super) async fn keep_schedules(self: Arc<Self>) {
        let mut applied = self.engine.work_applied();
        let mut stopping = self.stopping.subscribe();
        loop {
            applied.borrow_and_update();
            let all_done = tokio::select! {
                all_done = self.see_to_schedules() => all_done,
                _stopping = stopping.wait_for(|stopping| *stopping) => return,
            };
            tokio::select! {
                changed = applied.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(AGAIN), if !all_done => {}
                _stopping = stopping.wait_for(|stopping| *stopping) => return,
            }
        }
    }

    /// Whether nothing is left to be tried again.
    async fn see_to_schedules(&self) -> bool {
        let mut all_done = true;
        for job in self.engine.stale_jobs() {
            all_done &= self.put_away(&job).await;
        }
        for scheduled in self.engine.idle_schedules() {
            all_done &= self.submit_next(&scheduled).await;
        }
        all_done
    }

    /// Cancels a job that waits for what its schedule is no longer.
    async fn put_away(&self, job: &Job) -> bool {
        let head = job.spec.head;
        match self.engine.cancel_job(head.tenant, head.id).await {
            Ok(_written) => {
                self.queue.lock().remove(head.id);
                self.perform.over(job);
                true
            }
            // It is over, or it was begun.
            Err(EngineError::JobState(_) | EngineError::JobNotFound(_)) => true,
            Err(error) => {
                tracing::warn!(job = %head.id, %error, "a job of a changed schedule is not cancelled yet");
                false
            }
        }
    }

    async fn submit_next(&self, scheduled: &Scheduled) -> bool {
        let schedule = &scheduled.schedule;
        let cron = match Cron::read(&schedule.cron, &schedule.time_zone) {
            Ok(cron) => cron,
            Err(error) => return self.turn_off(schedule, &error.to_string()).await,
        };
        let now = self.engine.now();
        // A time that was cancelled, or came early by a clock that was set back, does not come again.
        let after = scheduled.due.map_or(now, |due| due.max(now));
        let Some(due) = cron.next_after(after) else {
            return self.turn_off(schedule, "there is no time left that it could name").await;
        };
        match self.engine.submit_scheduled(scheduled, due).await {
            Ok(_submitted) => true,
            Err(EngineError::LibraryNotFound(_)) => {
                self.turn_off(schedule, "its library is not there any more").await
            }
            Err(error) => {
                tracing::warn!(schedule = %schedule.id, %error, "the next job of a schedule is not submitted yet");
                false
            }
        }
    }

    /// Turns a schedule off that cannot be followed; whoever looks at it sees why.
    async fn turn_off(&self, schedule: &Schedule, why: &str) -> bool {
        tracing::warn!(schedule = %schedule.id, name = schedule.name, "the schedule is turned off: {why}");
        let note = format!("turned off by the server: {why}");
        let off = |now: &mut Schedule| {
            // Unless somebody has changed it meanwhile.
            if now == schedule {
                now.enabled = false;
                now.note = Some(note.clone());
            }
        };
        match self.engine.change_schedule((schedule.tenant, schedule.id), off).await {
            Err(EngineError::ScheduleNotFound(_)) => true,
            Ok(_written) => true,
            Err(error) => {
                tracing::warn!(schedule = %schedule.id, %error, "it is not turned off yet");
                false
            }
        }
    }
}
