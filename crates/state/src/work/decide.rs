//! What may be wished of the stream of work, and what becomes of a wish.

use super::{
    BudgetScope, BudgetTerms, Day, Job, JobChange, JobEnd, JobOutcome, JobSpec, JobState, Schedule,
    UsageRow, Webhook, Work, WorkEntry, said,
};
use crate::ids::{JobId, ScheduleId, Seq, TenantId, Timestamp, WebhookId};
use crate::limits::{
    BUDGETS_MAX, JOBS_UNFINISHED_BYTES_MAX, JOBS_UNFINISHED_MAX, SCHEDULES_MAX, WEBHOOKS_MAX,
};

/// A wish of the stream of work.
#[derive(Debug, Clone)]
pub enum WorkCommand {
    /// Do this in the background.
    Submit(JobSpec),
    /// Said by who works: something became of a job.
    Change(JobId, JobChange),
    /// Do not do it any more, or stop.
    Cancel(TenantId, JobId),
    /// Do not remember those that ended longest ago: those over the number, those over so many
    /// bytes, those that ended before the time; a bounded number of them.
    Forget {
        /// How many are remembered.
        keep: usize,
        /// Bytes of them that are remembered.
        keep_bytes: u64,
        /// Those that ended since then are remembered.
        ended_since: Timestamp,
    },
    /// A webhook is wanted that there is not yet.
    AddWebhook(Webhook),
    /// A webhook that there is is so. One that was deleted meanwhile stays deleted.
    ChangeWebhook(Webhook),
    /// A webhook is not wanted any more.
    DeleteWebhook(TenantId, WebhookId),
    /// There shall be a schedule.
    AddSchedule(Schedule),
    /// A schedule, which is as this record left it, is so from now on.
    ChangeSchedule(Schedule, Seq),
    /// A schedule is not wanted any more.
    DeleteSchedule(TenantId, ScheduleId),
    /// The next job of a schedule, which is as this record left it.
    SubmitScheduled(JobSpec, ScheduleId, Seq),
    /// Embedding cost this since the last time; days before the first one need not be told apart
    /// any longer.
    RecordUsage(Day, Vec<UsageRow>),
    /// A budget is so, whether it is new or not.
    SetBudget(BudgetTerms),
    /// A budget is not wanted any more.
    DeleteBudget(BudgetScope),
    /// Whoever is to be told of a budget is told now, of one budget at a time.
    TellBudget,
}

/// Why a wish of the stream of work is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WorkRejection {
    /// There is one with this id.
    #[error("Job {0} exists already")]
    JobExists(JobId),
    /// There is no such job of this tenant.
    #[error("Job {0} not found")]
    JobNotFound(JobId),
    /// It is not in a state in which that can be done.
    #[error("Job {job} cannot be {wish} (status: {status})")]
    JobState {
        /// Which one.
        job: JobId,
        /// What it cannot be.
        wish: &'static str,
        /// Its state.
        status: &'static str,
    },
    /// As many jobs wait as may.
    #[error(
        "as many jobs wait as may: {JOBS_UNFINISHED_MAX}, or {JOBS_UNFINISHED_BYTES_MAX} bytes of their parameters"
    )]
    JobsFull,
    /// There is no such webhook of this tenant.
    #[error("Webhook {0} not found")]
    WebhookNotFound(WebhookId),
    /// There is one with this id.
    #[error("Webhook {0} exists already")]
    WebhookExists(WebhookId),
    /// There are as many webhooks as there may be.
    #[error("there are {WEBHOOKS_MAX} webhooks, which is the limit")]
    WebhooksFull,
    /// There is no such schedule of this tenant.
    #[error("Schedule {0} not found")]
    ScheduleNotFound(ScheduleId),
    /// There are as many schedules as there may be.
    #[error("there are {SCHEDULES_MAX} schedules, which is the limit")]
    SchedulesFull,
    /// The schedule is not as whoever asks has seen it.
    #[error("Schedule {0} was changed meanwhile")]
    ScheduleChanged(ScheduleId),
    /// There is no such budget.
    #[error("there is no such budget")]
    BudgetNotFound,
    /// There are as many budgets as there may be.
    #[error("there are {BUDGETS_MAX} budgets, which is the limit; delete some first")]
    BudgetsFull,
    /// There is nothing to do: it is as it is wished to be.
    #[error("nothing to do")]
    Nothing,
}

/// Jobs that one record makes forgotten, at most.
const FORGET_MAX: usize = 1000;

impl Work {
    /// Turns a command into an entry, or refuses it. Changes nothing.
    pub fn decide(&self, command: WorkCommand, at: Timestamp) -> Result<WorkEntry, WorkRejection> {
        match command {
            WorkCommand::Submit(spec) => self.decide_submit(spec),
            WorkCommand::SubmitScheduled(spec, id, changed) => {
                self.decide_submit_scheduled(spec, id, changed)
            }
            WorkCommand::Change(id, change) => self.decide_change(id, change, at),
            WorkCommand::Cancel(tenant, id) => self.decide_cancel(tenant, id, at),
            WorkCommand::Forget { keep, keep_bytes, ended_since } => {
                self.decide_forget(keep, keep_bytes, ended_since, at)
            }
            WorkCommand::AddWebhook(webhook) => {
                if self.webhooks.contains_key(&webhook.id) {
                    return Err(WorkRejection::WebhookExists(webhook.id));
                }
                if self.webhooks.len() >= WEBHOOKS_MAX {
                    return Err(WorkRejection::WebhooksFull);
                }
                Ok(WorkEntry::WebhookPut(webhook))
            }
            WorkCommand::ChangeWebhook(webhook) => {
                self.webhook_of(webhook.tenant, webhook.id)?;
                Ok(WorkEntry::WebhookPut(webhook))
            }
            WorkCommand::DeleteWebhook(tenant, id) => {
                self.webhook_of(tenant, id)?;
                Ok(WorkEntry::WebhookDeleted { at, id, tenant })
            }
            WorkCommand::RecordUsage(_, rows) if rows.is_empty() => Err(WorkRejection::Nothing),
            WorkCommand::RecordUsage(keep_since, rows) => {
                Ok(WorkEntry::UsageRecorded { at, keep_since, rows })
            }
            WorkCommand::SetBudget(terms) => self.spending.decide_set(terms, at),
            WorkCommand::DeleteBudget(scope) => self.spending.decide_delete(scope, at),
            WorkCommand::TellBudget => self.spending.decide_tell(at),
            WorkCommand::AddSchedule(schedule) => match self.schedules.get(schedule.id) {
                Some(_same_id) => Err(WorkRejection::ScheduleChanged(schedule.id)),
                None if self.schedules.len() >= SCHEDULES_MAX => Err(WorkRejection::SchedulesFull),
                None => Ok(WorkEntry::SchedulePut(schedule)),
            },
            WorkCommand::ChangeSchedule(schedule, changed) => {
                let before = self.schedules.get(schedule.id);
                let before = before.filter(|it| it.schedule.tenant == schedule.tenant);
                let before = before.ok_or(WorkRejection::ScheduleNotFound(schedule.id))?;
                // Somebody else was faster.
                if before.changed != changed {
                    return Err(WorkRejection::ScheduleChanged(schedule.id));
                }
                Ok(WorkEntry::SchedulePut(schedule))
            }
            WorkCommand::DeleteSchedule(tenant, id) => {
                let found = self.schedules.get(id);
                let found = found.filter(|scheduled| scheduled.schedule.tenant == tenant);
                found.ok_or(WorkRejection::ScheduleNotFound(id))?;
                Ok(WorkEntry::ScheduleDeleted { at, id, tenant })
            }
        }
    }

    fn decide_submit(&self, spec: JobSpec) -> Result<WorkEntry, WorkRejection> {
        if self.jobs.contains_key(&spec.head.id) {
            return Err(WorkRejection::JobExists(spec.head.id));
        }
        let bytes = self.unfinished_bytes.saturating_add(spec.bytes());
        if self.unfinished.len() >= JOBS_UNFINISHED_MAX || bytes > JOBS_UNFINISHED_BYTES_MAX {
            return Err(WorkRejection::JobsFull);
        }
        Ok(WorkEntry::JobSubmitted(spec))
    }

    fn decide_submit_scheduled(
        &self,
        spec: JobSpec,
        id: ScheduleId,
        changed: Seq,
    ) -> Result<WorkEntry, WorkRejection> {
        let scheduled = self.schedules.get(id);
        let wanted = scheduled.is_some_and(|scheduled| {
            scheduled.changed == changed && scheduled.job.is_none() && scheduled.schedule.enabled
        });
        if !wanted {
            return Err(WorkRejection::ScheduleChanged(id));
        }
        self.decide_submit(JobSpec { schedule: Some(id), ..spec })
    }

    fn decide_cancel(
        &self,
        tenant: TenantId,
        id: JobId,
        at: Timestamp,
    ) -> Result<WorkEntry, WorkRejection> {
        let job = self.job(tenant, id).ok_or(WorkRejection::JobNotFound(id))?;
        let head = job.spec.head;
        let change = match job.state {
            JobState::Pending { .. } => JobChange::Finished(JobEnd {
                outcome: JobOutcome::Cancelled,
                started_at: job.started_at,
                progress: job.progress,
                result: None,
                error: job.error.clone(),
            }),
            JobState::Running { cancelling: true } => return Err(WorkRejection::Nothing),
            JobState::Running { cancelling: false } => JobChange::CancelRequested,
            JobState::Finished { .. } => return Err(refused(job, "cancelled")),
        };
        Ok(WorkEntry::JobChanged { at, head, change })
    }

    fn webhook_of(&self, tenant: TenantId, id: WebhookId) -> Result<(), WorkRejection> {
        let found = self.webhooks.get(&id).filter(|webhook| webhook.tenant == tenant);
        found.map(drop).ok_or(WorkRejection::WebhookNotFound(id))
    }

    fn decide_change(
        &self,
        id: JobId,
        change: JobChange,
        at: Timestamp,
    ) -> Result<WorkEntry, WorkRejection> {
        let job = self.jobs.get(&id).ok_or(WorkRejection::JobNotFound(id))?;
        let (pending, running) = match &job.state {
            JobState::Pending { .. } => (true, false),
            JobState::Running { .. } => (false, true),
            JobState::Finished { .. } => (false, false),
        };
        let (may, wish) = match &change {
            // Its schedule wants something else by now.
            JobChange::Started => (pending && !self.schedules.is_stale(id), "started"),
            JobChange::CancelRequested => (running, "cancelled"),
            JobChange::Progressed(_) => (running, "worked on"),
            // Who does not want it any more does not want it to be tried again.
            JobChange::Retried { .. } => {
                let wanted = matches!(job.state, JobState::Running { cancelling: false });
                (wanted, "tried again")
            }
            JobChange::Finished(_) => (running, "ended"),
        };
        if !may {
            return Err(refused(job, wish));
        }
        Ok(WorkEntry::JobChanged { at, head: job.spec.head, change })
    }

    fn decide_forget(
        &self,
        keep: usize,
        keep_bytes: u64,
        ended_since: Timestamp,
        at: Timestamp,
    ) -> Result<WorkEntry, WorkRejection> {
        let (mut left, mut bytes) = self.finished();
        let mut jobs = Vec::new();
        for (ended, id) in &self.finished {
            if left <= keep && bytes <= keep_bytes && *ended >= ended_since
                || jobs.len() == FORGET_MAX
            {
                break;
            }
            left -= 1;
            bytes = bytes.saturating_sub(self.jobs.get(id).map_or(0, |job| said(job)));
            jobs.push(*id);
        }
        if jobs.is_empty() {
            return Err(WorkRejection::Nothing);
        }
        Ok(WorkEntry::JobsForgotten { at, jobs })
    }
}

fn refused(job: &Job, wish: &'static str) -> WorkRejection {
    WorkRejection::JobState { job: job.spec.head.id, wish, status: job.state.name() }
}
