//! Entries of the stream of work: jobs, webhooks, costs. One record is one entry, and says of what it is
//! about enough to be understood alone.
//!
//! ```text
//! work     1 JobSubmitted      v1: i64 at | head | u8 priority | text parameters
//!                                  u8 spooled, (u64 bytes | u32 crc | u64 units)? | u32 retries
//!                                  time? run at | i64 submitted at
//!                              v2: then id 16 of the schedule that it is of
//!          2 JobStarted        v1: i64 at | head
//!          3 JobProgressed     v1: i64 at | head | progress
//!          4 JobRetried        v1: i64 at | head | i64 not before | text error | u8 counted
//!          5 JobCancelRequested v1: i64 at | head
//!          6 JobFinished       v1: i64 at | head | u8 outcome | time? started at | progress
//!                                  text? result | text? error
//!          7 JobsForgotten     v1: i64 at | u32 n | id 16 * n
//!         16 WebhookPut        v1: i64 at | webhook
//!         17 WebhookDeleted    v1: i64 at | id 16 | u64 tenant
//!         24 SchedulePut       v1: i64 at | schedule
//!         25 ScheduleDeleted   v1: i64 at | id 16 | u64 tenant
//!         32 UsageRecorded     v1: i64 at | i64 days kept since | u32 n, n * row
//!         33 BudgetSet         v1: i64 at | terms
//!         34 BudgetDeleted     v1: i64 at | scope
//!         48 BudgetCrossed     v1: i64 at | terms | i64 first day | u64 spent | percents | u8 exceeded
//! head: id 16 | u64 tenant | u8 has library, id 16? | u8 kind
//! progress: u64 current | u8 known, u64 total? | u64 failed | u64 chunks | u64 through
//! time: u8 known, i64?
//! row: i64 day | scope | text provider | text model | u64 texts | u64 tokens | u64 cost
//!      u64 tokens without a price | u64 cached texts | u64 cached tokens | u64 saved
//! scope: u64 tenant | u8 has library, id 16?
//! terms: scope | u64 amount | u8 period | percents | u8 refuse
//! percents: u32 n, u8 * n
//! webhook: id 16 | u64 tenant | text url | u32 n, text event * n | text? description | u8 status
//!          u32 retries | u32 delay | u32 timeout | u8 parallel
//!          u32 n, n * (u32 bytes, secret | time? until) | i64 created | i64 updated | u64 after
//! schedule: id 16 | u64 tenant | text name | text cron | text time zone | u8 has library, id 16?
//!           u8 kind | u8 priority | text parameters | u32 retries | u8 enabled | text? note
//!           i64 created | i64 updated
//! ```

use bytes::Bytes;

use super::budget::{BudgetCrossed, BudgetScope, BudgetTerms};
use super::cost::{Day, UsageRow, read_library, read_rows, write_library, write_rows};
use super::job::{JobChange, JobEnd, JobHead, JobProgress, JobSpec};
use super::schedule::Schedule;
use super::webhook::Webhook;
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{JobId, ScheduleId, TenantId, Timestamp, WebhookId};

const JOB_SUBMITTED: u8 = 1;
const JOB_STARTED: u8 = 2;
const JOB_PROGRESSED: u8 = 3;
const JOB_RETRIED: u8 = 4;
const JOB_CANCEL_REQUESTED: u8 = 5;
const JOB_FINISHED: u8 = 6;
const JOBS_FORGOTTEN: u8 = 7;
const WEBHOOK_PUT: u8 = 16;
const WEBHOOK_DELETED: u8 = 17;
const SCHEDULE_PUT: u8 = 24;
const SCHEDULE_DELETED: u8 = 25;
const USAGE_RECORDED: u8 = 32;
const BUDGET_SET: u8 = 33;
const BUDGET_DELETED: u8 = 34;
const BUDGET_CROSSED: u8 = 48;
const VERSION: u8 = 1;
/// The version of a submission that says of which schedule the job is.
const SCHEDULED_VERSION: u8 = 2;

/// A change of what is to be done in the background, and of who is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkEntry {
    /// A job was submitted.
    JobSubmitted(JobSpec),
    /// Something became of a job.
    JobChanged {
        /// When.
        at: Timestamp,
        /// Which job.
        head: JobHead,
        /// What.
        change: JobChange,
    },
    /// Jobs that are over are not remembered any longer.
    JobsForgotten {
        /// When.
        at: Timestamp,
        /// Which.
        jobs: Vec<JobId>,
    },
    /// A webhook is so from here on.
    WebhookPut(Webhook),
    /// A webhook is gone.
    WebhookDeleted {
        /// When.
        at: Timestamp,
        /// Which one.
        id: WebhookId,
        /// Whose it was.
        tenant: TenantId,
    },
    /// Embedding cost this.
    UsageRecorded {
        /// When that was noted.
        at: Timestamp,
        /// Days before this one are not told apart any longer.
        keep_since: Day,
        /// What was used since the last such entry.
        rows: Vec<UsageRow>,
    },
    /// A budget is so from here on.
    BudgetSet {
        /// When.
        at: Timestamp,
        /// How it is.
        terms: BudgetTerms,
    },
    /// There is no such budget any more.
    BudgetDeleted {
        /// When.
        at: Timestamp,
        /// Whose it was.
        scope: BudgetScope,
    },
    /// Spending reached percentages of a budget.
    BudgetCrossed(BudgetCrossed),
    /// A schedule is so from here on.
    SchedulePut(Schedule),
    /// A schedule is gone.
    ScheduleDeleted {
        /// When.
        at: Timestamp,
        /// Which one.
        id: ScheduleId,
        /// Whose it was.
        tenant: TenantId,
    },
}

impl WorkEntry {
    /// When the change was made.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::JobSubmitted(spec) => spec.submitted_at,
            Self::WebhookPut(webhook) => webhook.updated_at,
            Self::BudgetCrossed(crossed) => crossed.at,
            Self::SchedulePut(schedule) => schedule.updated_at,
            Self::JobChanged { at, .. }
            | Self::JobsForgotten { at, .. }
            | Self::WebhookDeleted { at, .. }
            | Self::ScheduleDeleted { at, .. }
            | Self::UsageRecorded { at, .. }
            | Self::BudgetSet { at, .. }
            | Self::BudgetDeleted { at, .. } => *at,
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::JobSubmitted(_) => JOB_SUBMITTED,
            Self::JobChanged { change, .. } => match change {
                JobChange::Started => JOB_STARTED,
                JobChange::Progressed(_) => JOB_PROGRESSED,
                JobChange::Retried { .. } => JOB_RETRIED,
                JobChange::CancelRequested => JOB_CANCEL_REQUESTED,
                JobChange::Finished(_) => JOB_FINISHED,
            },
            Self::JobsForgotten { .. } => JOBS_FORGOTTEN,
            Self::WebhookPut(_) => WEBHOOK_PUT,
            Self::WebhookDeleted { .. } => WEBHOOK_DELETED,
            Self::UsageRecorded { .. } => USAGE_RECORDED,
            Self::BudgetSet { .. } => BUDGET_SET,
            Self::BudgetDeleted { .. } => BUDGET_DELETED,
            Self::BudgetCrossed(_) => BUDGET_CROSSED,
            Self::SchedulePut(_) => SCHEDULE_PUT,
            Self::ScheduleDeleted { .. } => SCHEDULE_DELETED,
        }
    }

    fn version(&self) -> u8 {
        let scheduled = matches!(self, Self::JobSubmitted(JobSpec { schedule: Some(_), .. }));
        if scheduled { SCHEDULED_VERSION } else { VERSION }
    }

    /// The entry's bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::with_capacity(128);
        out.raw(&[self.kind(), self.version()]);
        out.i64(self.at().micros());
        match self {
            Self::JobSubmitted(spec) => {
                spec.write(&mut out);
                if let Some(schedule) = spec.schedule {
                    out.id(schedule.to_bytes());
                }
            }
            Self::JobChanged { at: _, head, change } => {
                head.write(&mut out);
                match change {
                    JobChange::Started | JobChange::CancelRequested => {}
                    JobChange::Progressed(progress) => progress.write(&mut out),
                    JobChange::Retried { not_before, error, counted } => {
                        out.i64(not_before.micros());
                        out.text(error);
                        out.u8(u8::from(*counted));
                    }
                    JobChange::Finished(end) => end.write(&mut out),
                }
            }
            Self::JobsForgotten { at: _, jobs } => {
                out.count(jobs.len());
                for job in jobs {
                    out.id(job.to_bytes());
                }
            }
            Self::WebhookPut(webhook) => webhook.write(&mut out),
            Self::WebhookDeleted { at: _, id, tenant } => {
                out.id(id.to_bytes());
                out.u64(tenant.number());
            }
            Self::UsageRecorded { at: _, keep_since, rows } => {
                out.i64(keep_since.number());
                write_rows(&mut out, rows);
            }
            Self::BudgetSet { at: _, terms } => terms.write(&mut out),
            Self::BudgetDeleted { at: _, scope } => {
                out.u64(scope.tenant.number());
                write_library(&mut out, scope.library);
            }
            Self::BudgetCrossed(crossed) => crossed.write(&mut out),
            Self::SchedulePut(schedule) => schedule.write(&mut out),
            Self::ScheduleDeleted { at: _, id, tenant } => {
                out.id(id.to_bytes());
                out.u64(tenant.number());
            }
        }
        Bytes::from(out.into_bytes())
    }

    /// Reads an entry of the stream of work.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(bytes);
        let kind = from.u8("entry kind")?;
        let version = from.u8("entry version")?;
        let at = Timestamp::from_micros(from.i64("time")?);
        let unknown = "an entry of work of a kind this build knows";
        let is_scheduled = (kind, version) == (JOB_SUBMITTED, SCHEDULED_VERSION);
        if version != VERSION && !is_scheduled {
            return Err(from.error(unknown));
        }
        let entry = match kind {
            JOB_SUBMITTED => {
                let mut spec = JobSpec::read(&mut from)?;
                if is_scheduled {
                    spec.schedule = Some(ScheduleId::new(from.uuid("schedule id")?));
                }
                Self::JobSubmitted(spec)
            }
            JOB_STARTED..=JOB_FINISHED => {
                let head = JobHead::read(&mut from)?;
                let change = match kind {
                    JOB_STARTED => JobChange::Started,
                    JOB_PROGRESSED => JobChange::Progressed(JobProgress::read(&mut from)?),
                    JOB_RETRIED => JobChange::Retried {
                        not_before: Timestamp::from_micros(from.i64("time")?),
                        error: from.text("error")?.into(),
                        counted: from.flag("count")?,
                    },
                    JOB_CANCEL_REQUESTED => JobChange::CancelRequested,
                    _ => JobChange::Finished(JobEnd::read(&mut from)?),
                };
                Self::JobChanged { at, head, change }
            }
            JOBS_FORGOTTEN => {
                let jobs = (0..from.count(16, "jobs")?)
                    .map(|_job| Ok(JobId::new(from.uuid("job id")?)))
                    .collect::<Result<_, DecodeError>>()?;
                Self::JobsForgotten { at, jobs }
            }
            WEBHOOK_PUT => Self::WebhookPut(Webhook::read(&mut from)?),
            WEBHOOK_DELETED => Self::WebhookDeleted {
                at,
                id: WebhookId::new(from.uuid("webhook id")?),
                tenant: TenantId::new(from.u64("tenant")?),
            },
            USAGE_RECORDED..=BUDGET_DELETED | BUDGET_CROSSED => read_cost(kind, at, &mut from)?,
            SCHEDULE_PUT => Self::SchedulePut(Schedule::read(&mut from)?),
            SCHEDULE_DELETED => Self::ScheduleDeleted {
                at,
                id: ScheduleId::new(from.uuid("schedule id")?),
                tenant: TenantId::new(from.u64("tenant")?),
            },
            _ => return Err(from.error(unknown)),
        };
        from.end()?;
        if entry.at() != at {
            return Err(from.error("one time of an entry"));
        }
        Ok(entry)
    }
}

/// Reads an entry about costs.
fn read_cost(kind: u8, at: Timestamp, from: &mut Reader<'_>) -> Result<WorkEntry, DecodeError> {
    Ok(match kind {
        USAGE_RECORDED => WorkEntry::UsageRecorded {
            at,
            keep_since: Day::new(from.i64("day")?),
            rows: read_rows(from)?,
        },
        BUDGET_SET => WorkEntry::BudgetSet { at, terms: BudgetTerms::read(from)? },
        BUDGET_DELETED => WorkEntry::BudgetDeleted {
            at,
            scope: BudgetScope {
                tenant: TenantId::new(from.u64("tenant")?),
                library: read_library(from)?,
            },
        },
        _ => WorkEntry::BudgetCrossed(BudgetCrossed::read(at, from)?),
    })
}
