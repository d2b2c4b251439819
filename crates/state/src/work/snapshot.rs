//! The bytes of a snapshot of work.
//!
//! A snapshot of it is `text "arrwork" | u32 version = 2 | u64 applied | u32 n | n * job | u32 n |
//! n * webhook | u32 n | n * schedule | costs`, with a CRC32C of all of that behind it; version 1 had
//! neither schedules nor costs. Costs are `u64 records of usage | u32 n | n * row | u32 n | n * budget`,
//! and a budget is its terms, then `i64 set at | i64 first day | u64 spent | percents told |
//! u8 exceeded`. A schedule is what its record says, then `u64 changed | u8 has job, id 16? |
//! time? due | u8 has run, (id 16 job | i64 at | u8 outcome)? | u64 runs`. A job is what its submission says, then from
//! version 2 on `u8 of a schedule, id 16?`, then
//! `u64 submitted | u64 changed | u32 retries | time? started at | progress | text? error | u8 state`,
//! and of a state that says more, that: of one that waits `time? not before`, of one that is worked
//! on `u8 cancelling`, of one that is over `i64 at` and what its end says.

use std::sync::Arc;

use super::job::{read_time_option, write_time_option};
use super::schedule::Schedules;
use super::{Job, JobEnd, JobProgress, JobSpec, JobState, Spending, Webhook, Work};
use crate::catalog::{seal, unseal};
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{ScheduleId, Seq, Timestamp};

const MAGIC: &str = "arrwork";
const VERSION: u32 = 2;
/// The version before there were schedules.
const UNSCHEDULED_VERSION: u32 = 1;

impl Work {
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
        self.schedules.write(&mut out);
        self.spending.write(&mut out);
        seal(out)
    }

    /// Reads a snapshot, checksum first.
    pub fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = unseal(bytes)?;
        let (magic, version) = (from.text("magic")?, from.u32("version")?);
        let has_schedules = version == VERSION;
        if magic != MAGIC || !(has_schedules || version == UNSCHEDULED_VERSION) {
            return Err(from.error("a snapshot of work of a version this build knows"));
        }
        let mut work = Self { applied: Seq::new(from.u64("applied sequence")?), ..Self::default() };
        for _job in 0..from.count(100, "jobs")? {
            work.insert(read_job(&mut from, has_schedules)?);
        }
        for _webhook in 0..from.count(75, "webhooks")? {
            let webhook = Webhook::read(&mut from)?;
            work.webhooks.insert(webhook.id, Arc::new(webhook));
        }
        if has_schedules {
            work.schedules = Schedules::read(&mut from, &work.jobs)?;
            work.spending = Spending::read(&mut from)?;
        }
        from.end()?;
        Ok(work)
    }
}

fn write_job(out: &mut Writer, job: &Job) {
    job.spec.write(out);
    out.u8(u8::from(job.spec.schedule.is_some()));
    if let Some(schedule) = job.spec.schedule {
        out.id(schedule.to_bytes());
    }
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

fn read_job(from: &mut Reader<'_>, has_schedules: bool) -> Result<Job, DecodeError> {
    let mut spec = JobSpec::read(from)?;
    if has_schedules && from.flag("schedule of a job")? {
        spec.schedule = Some(ScheduleId::new(from.uuid("schedule id")?));
    }
    let spec = Arc::new(spec);
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
