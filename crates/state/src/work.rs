//! Work: what is to be done in the background and who is told of what happens, as a fold over a
//! stream of its own.
//!
//! Unlike a library's view it is changed in place: there is one of it, its readers copy out what
//! they ask for, and nothing in it is large.
//!
//! A snapshot of it is `text "arrwork" | u32 version = 1 | u64 applied | u32 n | n * job | u32 n |
//! n * webhook`, with a CRC32C of all of that behind it. A job is what its submission says, then
//! `u64 submitted | u64 changed | u32 retries | time? started at | progress | text? error | u8 state`,
//! and of a state that says more, that: of one that waits `time? not before`, of one that is worked
//! on `u8 cancelling`, of one that is over `i64 at` and what its end says.

mod entry;
mod job;
mod webhook;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use self::entry::WorkEntry;
pub use self::job::{
    Job, JobChange, JobCounts, JobEnd, JobHead, JobInput, JobKind, JobOutcome, JobPriority,
    JobProgress, JobSpec, JobState, JobUnit,
};
use self::job::{read_time_option, write_time_option};
pub use self::webhook::{SealedSecret, Webhook, WebhookStatus};
use crate::catalog::{seal, unseal};
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{JobId, Seq, TenantId, Timestamp, WebhookId};
use crate::limits::{JOBS_UNFINISHED_BYTES_MAX, JOBS_UNFINISHED_MAX, WEBHOOKS_MAX};

const MAGIC: &str = "arrwork";
const VERSION: u32 = 1;

/// Every job and webhook.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Work {
    applied: Seq,
    jobs: BTreeMap<JobId, Arc<Job>>,
    /// Jobs that are not over, by the last record about each.
    unfinished: BTreeMap<Seq, JobId>,
    unfinished_bytes: u64,
    /// Jobs that are over, those that ended longest ago first.
    finished: BTreeSet<(Timestamp, JobId)>,
    finished_bytes: u64,
    counts: JobCounts,
    webhooks: BTreeMap<WebhookId, Arc<Webhook>>,
}

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
    /// There is nothing to do.
    #[error("nothing to do")]
    Nothing,
}

/// Jobs that one record makes forgotten, at most.
const FORGET_MAX: usize = 1000;

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

    /// Turns a command into an entry, or refuses it. Changes nothing.
    pub fn decide(&self, command: WorkCommand, at: Timestamp) -> Result<WorkEntry, WorkRejection> {
        match command {
            WorkCommand::Submit(spec) => {
                if self.jobs.contains_key(&spec.head.id) {
                    return Err(WorkRejection::JobExists(spec.head.id));
                }
                let bytes = self.unfinished_bytes.saturating_add(spec.bytes());
                if self.unfinished.len() >= JOBS_UNFINISHED_MAX || bytes > JOBS_UNFINISHED_BYTES_MAX
                {
                    return Err(WorkRejection::JobsFull);
                }
                Ok(WorkEntry::JobSubmitted(spec))
            }
            WorkCommand::Change(id, change) => self.decide_change(id, change, at),
            WorkCommand::Cancel(tenant, id) => {
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
        }
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
            JobChange::Started => (pending, "started"),
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
            }
            WorkEntry::JobChanged { at, head, change } => {
                // Of one that is not known, nothing is to be known.
                if let Some(before) = self.remove(head.id) {
                    let mut job = Arc::unwrap_or_clone(before);
                    job.changed = seq;
                    change_job(&mut job, *at, change);
                    self.insert(job);
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
                self.unfinished.remove(&job.changed);
                self.unfinished_bytes = self.unfinished_bytes.saturating_sub(job.spec.bytes());
            }
        }
        Some(job)
    }

    /// A snapshot's bytes.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(64 + self.jobs.len() * 160);
        out.text(MAGIC);
        out.u32(VERSION);
        out.u64(self.applied.get());
        out.count(self.jobs.len());
        self.jobs.values().for_each(|job| write_job(&mut out, job));
        out.count(self.webhooks.len());
        self.webhooks.values().for_each(|webhook| webhook.write(&mut out));
        seal(out)
    }

    /// Reads a snapshot, checksum first.
    pub fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = unseal(bytes)?;
        if (from.text("magic")?, from.u32("version")?) != (MAGIC, VERSION) {
            return Err(from.error("a snapshot of work of a version this build knows"));
        }
        let mut work = Self { applied: Seq::new(from.u64("applied sequence")?), ..Self::default() };
        for _job in 0..from.count(100, "jobs")? {
            work.insert(read_job(&mut from)?);
        }
        for _webhook in 0..from.count(75, "webhooks")? {
            let webhook = Webhook::read(&mut from)?;
            work.webhooks.insert(webhook.id, Arc::new(webhook));
        }
        from.end()?;
        Ok(work)
    }
}

/// Bytes of what a job that is over said.
fn said(job: &Job) -> u64 {
    match &job.state {
        JobState::Finished { end, .. } => end.bytes(),
        JobState::Pending { .. } | JobState::Running { .. } => 0,
    }
}

fn refused(job: &Job, wish: &'static str) -> WorkRejection {
    WorkRejection::JobState { job: job.spec.head.id, wish, status: job.state.name() }
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

fn write_job(out: &mut Writer, job: &Job) {
    job.spec.write(out);
    out.u64(job.submitted.get());
    out.u64(job.changed.get());
    out.u32(job.retries);
    write_time_option(out, job.started_at);
    job.progress.write(out);
    out.text_option(job.error.as_deref());
    match &job.state {
        JobState::Pending { not_before } => {
            out.u8(0);
            write_time_option(out, *not_before);
        }
        JobState::Running { cancelling } => {
            out.u8(1);
            out.u8(u8::from(*cancelling));
        }
        JobState::Finished { at, end } => {
            out.u8(2);
            out.i64(at.micros());
            end.write(out);
        }
    }
}

fn read_job(from: &mut Reader<'_>) -> Result<Job, DecodeError> {
    let spec = Arc::new(JobSpec::read(from)?);
    let submitted = Seq::new(from.u64("record")?);
    let changed = Seq::new(from.u64("record")?);
    let retries = from.u32("retries")?;
    let started_at = read_time_option(from)?;
    let progress = JobProgress::read(from)?;
    let error = from.text_option("error")?.map(Into::into);
    let state = match from.u8("state of a job")? {
        0 => JobState::Pending { not_before: read_time_option(from)? },
        1 => JobState::Running { cancelling: from.flag("state of a job")? },
        2 => JobState::Finished {
            at: Timestamp::from_micros(from.i64("time")?),
            end: Arc::new(JobEnd::read(from)?),
        },
        _ => return Err(from.error("a state this build knows")),
    };
    Ok(Job { spec, state, started_at, progress, retries, error, submitted, changed })
}

#[cfg(test)]
mod tests;
