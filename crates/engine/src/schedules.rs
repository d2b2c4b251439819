//! Schedules of jobs, as those see them who make, watch and submit for them.

use std::sync::Arc;

use arrwdb_state::limits::JOB_PARAMETERS_BYTES_MAX;
use arrwdb_state::{
    Job, JobHead, JobId, JobSpec, LibraryId, Schedule, ScheduleId, Scheduled, Seq, TenantId,
    Timestamp, WorkCommand,
};
use tokio::sync::watch;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::request::Written;
use crate::system::new_uuid;

impl Engine {
    /// A new schedule's id. Ids ascend with time.
    pub fn new_schedule_id(&self) -> ScheduleId {
        let parts = &self.0.parts;
        ScheduleId::new(new_uuid(parts.clock.now(), &*parts.random))
    }

    /// Makes a schedule.
    ///
    /// # Errors
    /// Those of a library that is not there, of parameters that are too large, and of the limit on
    /// schedules.
    pub async fn add_schedule(&self, schedule: Schedule) -> Result<Written<()>, EngineError> {
        let inner = &self.0;
        if let Some(library) = schedule.library {
            inner.spec(schedule.tenant, library, None).await?;
        }
        check_parameters(&schedule.parameters)?;
        inner.change_work(WorkCommand::AddSchedule(schedule)).await
    }

    /// Changes a schedule; nobody else does so meanwhile. Its job that waits, if there is one, is
    /// to be cancelled: see [`Engine::stale_jobs`].
    pub async fn change_schedule(
        &self,
        (tenant, id): (TenantId, ScheduleId),
        change: impl Fn(&mut Schedule) + Send,
    ) -> Result<Written<()>, EngineError> {
        let inner = &self.0;
        loop {
            let (before, _seq) = self.schedule(tenant, id, None).await?;
            let mut schedule = Schedule::clone(&before.schedule);
            change(&mut schedule);
            if let Some(library) = schedule.library.filter(|_library| schedule.enabled) {
                inner.spec(tenant, library, None).await?;
            }
            schedule.updated_at = inner.parts.clock.now();
            let command = WorkCommand::ChangeSchedule(schedule, before.changed);
            match inner.change_work(command).await {
                // What was faster is published by now.
                Err(EngineError::JobState(_changed)) => {}
                answer => return answer,
            }
        }
    }

    /// Removes a schedule. A job of it that was begun goes on.
    pub async fn delete_schedule(
        &self,
        tenant: TenantId,
        id: ScheduleId,
    ) -> Result<Written<()>, EngineError> {
        self.0.work.change(WorkCommand::DeleteSchedule(tenant, id)).await
    }

    /// All schedules of this tenant, the oldest first, and the number that this is true at.
    pub async fn schedules(
        &self,
        tenant: TenantId,
        min_seq: Option<Seq>,
    ) -> Result<(Vec<Arc<Scheduled>>, Seq), EngineError> {
        let inner = &self.0;
        inner.wait_for_work(min_seq).await?;
        let seq = self.work_seq();
        let of_tenant = |scheduled: &&Arc<Scheduled>| scheduled.schedule.tenant == tenant;
        Ok((inner.work.look(|work| work.schedules().filter(of_tenant).cloned().collect()), seq))
    }

    /// A schedule of this tenant, and the number that this is true at.
    pub async fn schedule(
        &self,
        tenant: TenantId,
        id: ScheduleId,
        min_seq: Option<Seq>,
    ) -> Result<(Arc<Scheduled>, Seq), EngineError> {
        let inner = &self.0;
        inner.wait_for_work(min_seq).await?;
        let seq = self.work_seq();
        let found = inner.work.look(|work| work.schedule(id).cloned());
        let found = found.filter(|scheduled| scheduled.schedule.tenant == tenant);
        Ok((found.ok_or(EngineError::ScheduleNotFound(id))?, seq))
    }

    /// Schedules of all tenants that have no job and want one.
    pub fn idle_schedules(&self) -> Vec<Arc<Scheduled>> {
        self.0.work.look(|work| work.idle_schedules().cloned().collect())
    }

    /// Changes whenever a library is deleted.
    pub fn libraries_deleted(&self) -> watch::Receiver<()> {
        self.0.work.libraries_deleted.subscribe()
    }

    /// Schedules of all tenants that are enabled, but the library of their jobs was deleted.
    pub fn orphaned_schedules(&self) -> Vec<Arc<Scheduled>> {
        let orphaned = |scheduled: &&Arc<Scheduled>| {
            let Schedule { tenant, library, enabled, .. } = *scheduled.schedule;
            enabled && self.was_deleted(tenant, library)
        };
        self.0.work.look(|work| work.schedules().filter(orphaned).cloned().collect())
    }

    /// Whether the library was deleted that a job is about.
    pub fn is_orphaned(&self, job: &Job) -> bool {
        self.was_deleted(job.spec.head.tenant, job.spec.head.library)
    }

    /// Whether a library is not there any more that was there when something was to be done with it.
    pub(crate) fn was_deleted(&self, tenant: TenantId, library: Option<LibraryId>) -> bool {
        library.is_some_and(|library| self.0.catalog.load().owned(tenant, library).is_err())
    }

    /// Jobs of all tenants that wait for a schedule that is another now, turned off, or gone.
    pub fn stale_jobs(&self) -> Vec<Arc<Job>> {
        self.0.work.look(|work| work.stale_jobs().cloned().collect())
    }

    /// Whether a job is one of those: it is not to be begun.
    pub fn is_stale_job(&self, id: JobId) -> bool {
        self.0.work.look(|work| work.is_stale(id))
    }

    /// Submits the next job of a schedule, for this time. Whether it was: not where the schedule
    /// was changed meanwhile, or has a job.
    pub async fn submit_scheduled(
        &self,
        scheduled: &Scheduled,
        run_at: Timestamp,
    ) -> Result<bool, EngineError> {
        let inner = &self.0;
        let schedule = &scheduled.schedule;
        let Schedule { tenant, library, kind, .. } = **schedule;
        if let Some(library) = library {
            inner.spec(tenant, library, None).await?;
        }
        let spec = JobSpec {
            head: JobHead { id: self.new_job_id(), tenant, library, kind },
            priority: schedule.priority,
            parameters: schedule.parameters.clone(),
            input: None,
            retries_max: schedule.retries_max,
            run_at: Some(run_at),
            submitted_at: inner.parts.clock.now(),
            schedule: None,
        };
        let command = WorkCommand::SubmitScheduled(spec, schedule.id, scheduled.changed);
        match inner.change_work(command).await {
            Ok(_written) => Ok(true),
            Err(EngineError::JobState(_changed)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Refuses parameters of a job that are too large for the log.
pub(crate) fn check_parameters(parameters: &str) -> Result<(), EngineError> {
    if parameters.len() <= JOB_PARAMETERS_BYTES_MAX {
        return Ok(());
    }
    let detail = format!(
        "the parameters take {} bytes; the limit is {JOB_PARAMETERS_BYTES_MAX}",
        parameters.len()
    );
    Err(EngineError::Invalid { field: String::new(), detail })
}
