//! Work: what is to be done in the background and who is told of what happens, as a fold over a
//! stream of its own.
//!
//! Unlike a library's view it is changed in place: there is one of it, its readers copy out what
//! they ask for, and nothing in it is large.

mod budget;
mod cost;
mod decide;
mod entry;
mod job;
mod schedule;
mod snapshot;
mod spending;
mod webhook;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use self::budget::{Budget, BudgetCrossed, BudgetPeriod, BudgetScope, BudgetTerms};
pub use self::cost::{Costs, Day, Money, UsageKey, UsageRow, Used};
pub use self::decide::{WorkCommand, WorkRejection};
pub use self::entry::WorkEntry;
pub use self::job::{
    Job, JobChange, JobCounts, JobEnd, JobHead, JobInput, JobKind, JobOutcome, JobPriority,
    JobProgress, JobSpec, JobState, JobUnit,
};
use self::schedule::Schedules;
pub use self::schedule::{LastRun, Schedule, Scheduled};
pub use self::spending::Spending;
pub use self::webhook::{SealedSecret, Webhook, WebhookStatus};
use crate::ids::{JobId, ScheduleId, Seq, TenantId, Timestamp, WebhookId};

/// Every job, schedule and webhook, what embedding cost, and the budgets for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Work {
    applied: Seq,
    jobs: BTreeMap<JobId, Arc<Job>>,
    /// Jobs that are not over, by the last record about each.
    unfinished: BTreeMap<Seq, JobId>,
    unfinished_bytes: u64,
    /// Of these, those that wait after they could not be done.
    put_off: BTreeSet<JobId>,
    /// Jobs that are over, those that ended longest ago first.
    finished: BTreeSet<(Timestamp, JobId)>,
    finished_bytes: u64,
    counts: JobCounts,
    webhooks: BTreeMap<WebhookId, Arc<Webhook>>,
    schedules: Schedules,
    spending: Spending,
}

impl Work {
    /// The last record applied.
    pub fn applied(&self) -> Seq {
        self.applied
    }

    /// A job of this tenant.
    pub fn job(&self, tenant: TenantId, id: JobId) -> Option<&Arc<Job>> {
        self.jobs.get(&id).filter(|job| job.spec.head.tenant == tenant)
    }

    /// A job, whosever it is.
    pub fn job_of_any(&self, id: JobId) -> Option<&Arc<Job>> {
        self.jobs.get(&id)
    }

    /// All jobs, the newest first.
    pub fn jobs(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.jobs.values().rev()
    }

    /// Jobs that are not over and of which a record after `after` says something, in the order of
    /// those.
    pub fn unfinished_since(&self, after: Seq) -> impl Iterator<Item = &Arc<Job>> {
        let since = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        self.unfinished.range(since).filter_map(|(_seq, id)| self.jobs.get(id))
    }

    /// Jobs that wait after they could not be done: those of which the last error is known and that
    /// nobody works on. In the order of their submission.
    pub fn put_off(&self) -> impl ExactSizeIterator<Item = &Arc<Job>> {
        self.put_off.iter().map(|id| &self.jobs[id])
    }

    /// How many jobs are not over.
    pub fn unfinished(&self) -> usize {
        self.unfinished.len()
    }

    /// How many jobs there are in which state.
    pub fn counts(&self) -> JobCounts {
        self.counts
    }

    /// How many jobs are over and remembered, and the bytes of what they said.
    pub fn finished(&self) -> (usize, u64) {
        (self.finished.len(), self.finished_bytes)
    }

    /// When the job ended that ended longest ago.
    pub fn oldest_end(&self) -> Option<Timestamp> {
        self.finished.first().map(|(at, _id)| *at)
    }

    /// Records after this one have to be kept so that jobs that were begun can go on, those that
    /// were put off included: what they wrote after it is not counted yet.
    pub fn needed_after(&self) -> Option<Seq> {
        let unfinished = self.unfinished.values().filter_map(|id| self.jobs.get(id));
        // The others begin anew.
        let writes = |job: &&Arc<Job>| {
            matches!(job.spec.head.kind, JobKind::BatchImport | JobKind::BatchDelete)
        };
        let begun = unfinished.filter(|job| job.started_at.is_some()).filter(writes);
        begun.map(|job| job.progress.through.max(job.submitted)).min()
    }

    /// A webhook, whosever it is.
    pub fn webhook(&self, id: WebhookId) -> Option<&Arc<Webhook>> {
        self.webhooks.get(&id)
    }

    /// All webhooks, the oldest first.
    pub fn webhooks(&self) -> impl Iterator<Item = &Arc<Webhook>> {
        self.webhooks.values()
    }

    /// A schedule, whosever it is.
    pub fn schedule(&self, id: ScheduleId) -> Option<&Arc<Scheduled>> {
        self.schedules.get(id)
    }

    /// All schedules, the oldest first.
    pub fn schedules(&self) -> impl Iterator<Item = &Arc<Scheduled>> {
        self.schedules.all()
    }

    /// Schedules that have no job and want one.
    pub fn idle_schedules(&self) -> impl Iterator<Item = &Arc<Scheduled>> {
        self.schedules.idle()
    }

    /// Jobs that wait for a schedule that is another now, turned off, or gone: to be cancelled.
    pub fn stale_jobs(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.schedules.stale().filter_map(|id| self.jobs.get(&id))
    }

    /// What embedding cost, budgets, and what was spent of them.
    pub fn spending(&self) -> &Spending {
        &self.spending
    }

    /// Changes what the entry says (S1: never refuses, and depends on nothing else).
    pub fn apply(&mut self, seq: Seq, entry: &WorkEntry) {
        self.applied = seq;
        match entry {
            WorkEntry::JobSubmitted(spec) => {
                let job = Job {
                    state: JobState::Pending { not_before: spec.run_at },
                    spec: Arc::new(spec.clone()),
                    started_at: None,
                    progress: JobProgress::default(),
                    retries: 0,
                    error: None,
                    submitted: seq,
                    changed: seq,
                };
                self.insert(job);
                self.schedules.submitted(spec, &self.jobs);
            }
            WorkEntry::JobChanged { at, head, change } => {
                // Of one that is not known, nothing is to be known.
                if let Some(before) = self.remove(head.id) {
                    let mut job = Arc::unwrap_or_clone(before);
                    job.changed = seq;
                    change_job(&mut job, *at, change);
                    self.insert(job);
                    if let Some(job) = self.jobs.get(&head.id) {
                        self.schedules.job_changed(job, &self.jobs);
                    }
                }
            }
            WorkEntry::JobsForgotten { at: _, jobs } => {
                for id in jobs {
                    drop(self.remove(*id));
                }
            }
            WorkEntry::WebhookPut(webhook) => {
                self.webhooks.insert(webhook.id, Arc::new(webhook.clone()));
            }
            WorkEntry::WebhookDeleted { at: _, id, tenant: _ } => {
                self.webhooks.remove(id);
            }
            WorkEntry::SchedulePut(schedule) => self.schedules.put(schedule, seq, &self.jobs),
            WorkEntry::ScheduleDeleted { at: _, id, tenant: _ } => {
                self.schedules.delete(*id, &self.jobs);
            }
            WorkEntry::UsageRecorded { at, keep_since, rows } => {
                self.spending.record(*at, rows, *keep_since);
            }
            WorkEntry::BudgetSet { at, terms } => self.spending.set(terms, *at),
            WorkEntry::BudgetDeleted { at: _, scope } => self.spending.delete(*scope),
            WorkEntry::BudgetCrossed(crossed) => self.spending.note(crossed),
        }
    }

    fn insert(&mut self, job: Job) {
        let id = job.spec.head.id;
        *self.counts.of(&job.state) += 1;
        match &job.state {
            JobState::Finished { at, .. } => {
                self.finished.insert((*at, id));
                self.finished_bytes += said(&job);
            }
            JobState::Pending { .. } | JobState::Running { .. } => {
                if is_put_off(&job) {
                    self.put_off.insert(id);
                }
                self.unfinished.insert(job.changed, id);
                self.unfinished_bytes += job.spec.bytes();
            }
        }
        self.jobs.insert(id, Arc::new(job));
    }

    fn remove(&mut self, id: JobId) -> Option<Arc<Job>> {
        let job = self.jobs.remove(&id)?;
        *self.counts.of(&job.state) -= 1;
        match &job.state {
            JobState::Finished { at, .. } => {
                self.finished.remove(&(*at, id));
                self.finished_bytes = self.finished_bytes.saturating_sub(said(&job));
            }
            JobState::Pending { .. } | JobState::Running { .. } => {
                self.put_off.remove(&id);
                self.unfinished.remove(&job.changed);
                self.unfinished_bytes = self.unfinished_bytes.saturating_sub(job.spec.bytes());
            }
        }
        Some(job)
    }
}

/// Whether a job waits after it could not be done.
fn is_put_off(job: &Job) -> bool {
    matches!(job.state, JobState::Pending { .. }) && job.error.is_some()
}

/// Bytes of what a job that is over said.
fn said(job: &Job) -> u64 {
    match &job.state {
        JobState::Finished { end, .. } => end.bytes(),
        JobState::Pending { .. } | JobState::Running { .. } => 0,
    }
}

fn change_job(job: &mut Job, at: Timestamp, change: &JobChange) {
    match change {
        JobChange::Started => {
            job.state = JobState::Running { cancelling: false };
            job.started_at = job.started_at.or(Some(at));
        }
        JobChange::Progressed(progress) => job.progress = *progress,
        JobChange::Retried { not_before, error, counted } => {
            job.state = JobState::Pending { not_before: Some(*not_before) };
            job.retries = job.retries.saturating_add(u32::from(*counted));
            job.error = Some(error.clone());
        }
        JobChange::CancelRequested => job.state = JobState::Running { cancelling: true },
        JobChange::Finished(end) => {
            job.progress = end.progress;
            job.error = end.error.clone().or(job.error.take());
            job.state = JobState::Finished { at, end: Arc::new(end.clone()) };
            // What it was asked for is not needed any more, and may be large.
            let spec = Arc::make_mut(&mut job.spec);
            spec.parameters = "".into();
        }
    }
}

#[cfg(test)]
mod tests;
