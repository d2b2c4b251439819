//! Schedules: jobs that are wanted again and again, as the log knows them.
//!
//! Of an enabled schedule there is one job that is not over: it waits for its time, or is worked on.
//! When it is over the next one is submitted, for the first time after that. Who submits it computes
//! the time; the fold knows which schedule is without a job, and which job waits for a schedule that
//! has changed since.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::job::{
    Job, JobKind, JobOutcome, JobPriority, JobSpec, JobState, read_time_option, write_time_option,
};
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{JobId, LibraryId, ScheduleId, Seq, TenantId, Timestamp};

/// A job that is wanted again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Which one.
    pub id: ScheduleId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What it is called.
    pub name: String,
    /// When, as five fields of cron: minute, hour, day of month, month, day of week.
    pub cron: String,
    /// Where the clock hangs that this is read from: a name of the IANA time zone database.
    pub time_zone: String,
    /// The library that the jobs are about, if they are about one.
    pub library: Option<LibraryId>,
    /// What they do.
    pub kind: JobKind,
    /// How soon they are taken once their time has come.
    pub priority: JobPriority,
    /// What they shall do, as a JSON object of their kind's fields.
    pub parameters: Arc<str>,
    /// How often one of them is tried again after a failure that may pass.
    pub retries_max: u32,
    /// Whether there are any at present.
    pub enabled: bool,
    /// Why the server turned it off, if it did.
    pub note: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

/// The last job of a schedule that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRun {
    /// Which one.
    pub job: JobId,
    /// When it was over.
    pub at: Timestamp,
    /// How it ended.
    pub outcome: JobOutcome,
}

/// A schedule at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    /// As it is wanted.
    pub schedule: Arc<Schedule>,
    /// The record that changed it last.
    pub changed: Seq,
    /// Its job that is not over.
    pub job: Option<JobId>,
    /// The time of the last job that was submitted since it was changed.
    pub due: Option<Timestamp>,
    /// The last job that is over.
    pub last: Option<LastRun>,
    /// Jobs that were done, whether they failed or not.
    pub runs: u64,
}

/// All schedules, and what is to be seen to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Schedules {
    all: BTreeMap<ScheduleId, Arc<Scheduled>>,
    /// Those that are enabled and have no job.
    idle: BTreeSet<ScheduleId>,
    /// Jobs that wait for a schedule that is another now, turned off, or gone.
    stale: BTreeSet<JobId>,
}

type Jobs = BTreeMap<JobId, Arc<Job>>;

impl Schedules {
    pub(super) fn get(&self, id: ScheduleId) -> Option<&Arc<Scheduled>> {
        self.all.get(&id)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Scheduled>> {
        self.all.values()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn idle(&self) -> impl Iterator<Item = &Arc<Scheduled>> {
        self.idle.iter().filter_map(|id| self.all.get(id))
    }

    pub(super) fn is_stale(&self, job: JobId) -> bool {
        self.stale.contains(&job)
    }

    pub(super) fn stale(&self) -> impl Iterator<Item = JobId> {
        self.stale.iter().copied()
    }

    /// A schedule is so from here on.
    pub(super) fn put(&mut self, schedule: &Schedule, changed: Seq, jobs: &Jobs) {
        let schedule = Arc::new(schedule.clone());
        let id = schedule.id;
        let fresh = Scheduled { schedule, changed, job: None, due: None, last: None, runs: 0 };
        let next = match self.all.get(&id) {
            Some(before) => {
                Scheduled { job: before.job, last: before.last, runs: before.runs, ..fresh }
            }
            None => fresh,
        };
        self.all.insert(id, Arc::new(next));
        self.refresh(id, jobs);
    }

    /// A schedule is gone.
    pub(super) fn delete(&mut self, id: ScheduleId, jobs: &Jobs) {
        self.idle.remove(&id);
        let job = self.all.remove(&id).and_then(|before| before.job);
        self.stale.extend(job.filter(|job| jobs.get(job).is_some_and(|job| is_untouched(job))));
    }

    /// A job was submitted.
    pub(super) fn submitted(&mut self, spec: &JobSpec, jobs: &Jobs) {
        if is_by_hand(spec) {
            return;
        }
        let Some(scheduled) = spec.schedule.and_then(|id| self.all.get_mut(&id)) else { return };
        let scheduled = Arc::make_mut(scheduled);
        scheduled.job = Some(spec.head.id);
        scheduled.due = spec.run_at;
        let id = scheduled.schedule.id;
        self.refresh(id, jobs);
    }

    /// Something became of a job.
    pub(super) fn job_changed(&mut self, job: &Job, jobs: &Jobs) {
        let Some(id) = job.spec.schedule else { return };
        if !is_untouched(job) {
            self.stale.remove(&job.spec.head.id);
        }
        let Some(scheduled) = self.all.get_mut(&id) else { return };
        let is_own = scheduled.job == Some(job.spec.head.id);
        if let JobState::Finished { at, end } = &job.state
            && (is_own || is_by_hand(&job.spec))
        {
            let scheduled = Arc::make_mut(scheduled);
            if is_own {
                scheduled.job = None;
            }
            // One that was put away untouched was no run.
            if end.outcome != JobOutcome::Cancelled || job.started_at.is_some() {
                let (job, outcome) = (job.spec.head.id, end.outcome);
                scheduled.last = Some(LastRun { job, at: *at, outcome });
                scheduled.runs += 1;
            }
            self.refresh(id, jobs);
        }
    }

    fn refresh(&mut self, id: ScheduleId, jobs: &Jobs) {
        let Some(scheduled) = self.all.get(&id) else { return };
        let enabled = scheduled.schedule.enabled;
        let job = scheduled.job.and_then(|job| jobs.get(&job));
        if enabled && job.is_none() {
            self.idle.insert(id);
        } else {
            self.idle.remove(&id);
        }
        let Some(job) = job else { return };
        let changed = job.submitted < scheduled.changed;
        // What is due by then is done as it was wanted: a change loses no time that has come.
        let due = job.spec.run_at.is_some_and(|time| time <= scheduled.schedule.updated_at);
        if is_untouched(job) && (!enabled || changed && !due) {
            self.stale.insert(job.spec.head.id);
        } else {
            self.stale.remove(&job.spec.head.id);
        }
    }

    pub(super) fn write(&self, out: &mut Writer) {
        out.count(self.all.len());
        for scheduled in self.all.values() {
            let Scheduled { schedule, changed, job, due, last, runs } = &**scheduled;
            schedule.write(out);
            out.u64(changed.get());
            out.u8(u8::from(job.is_some()));
            if let Some(job) = job {
                out.id(job.to_bytes());
            }
            write_time_option(out, *due);
            out.u8(u8::from(last.is_some()));
            if let Some(LastRun { job, at, outcome }) = last {
                out.id(job.to_bytes());
                out.i64(at.micros());
                out.u8(outcome.number());
            }
            out.u64(*runs);
        }
    }

    /// Reads all schedules; what is to be seen to follows from the jobs.
    pub(super) fn read(from: &mut Reader<'_>, jobs: &Jobs) -> Result<Self, DecodeError> {
        let mut schedules = Self::default();
        for _schedule in 0..from.count(90, "schedules")? {
            let schedule = Arc::new(Schedule::read(from)?);
            let changed = Seq::new(from.u64("record")?);
            let has_job = from.flag("job of a schedule")?;
            let job = if has_job { Some(JobId::new(from.uuid("job id")?)) } else { None };
            let due = read_time_option(from)?;
            let last = if from.flag("last run")? {
                let job = JobId::new(from.uuid("job id")?);
                let at = Timestamp::from_micros(from.i64("time")?);
                Some(LastRun { job, at, outcome: JobOutcome::read(from)? })
            } else {
                None
            };
            let runs = from.u64("runs")?;
            let id = schedule.id;
            let scheduled = Scheduled { schedule, changed, job, due, last, runs };
            schedules.all.insert(id, Arc::new(scheduled));
        }
        let ids: Vec<ScheduleId> = schedules.all.keys().copied().collect();
        for id in ids {
            schedules.refresh(id, jobs);
        }
        // Those whose schedule is gone are known by themselves alone.
        let orphans = jobs.values().filter(|job| {
            let of = job.spec.schedule.map(|id| schedules.all.get(&id));
            let current = |scheduled: &Arc<Scheduled>| scheduled.job == Some(job.spec.head.id);
            is_untouched(job)
                && !is_by_hand(&job.spec)
                && of.is_some_and(|of| !of.is_some_and(current))
        });
        let orphans: Vec<JobId> = orphans.map(|job| job.spec.head.id).collect();
        schedules.stale.extend(orphans);
        Ok(schedules)
    }
}

/// Whether a job of a schedule was asked for by somebody, beside those that come at its times: they
/// have one. It is no job that the schedule waits for, but a run of it.
fn is_by_hand(spec: &JobSpec) -> bool {
    spec.run_at.is_none()
}

/// Whether a job waits and was never begun.
fn is_untouched(job: &Job) -> bool {
    matches!(job.state, JobState::Pending { .. }) && job.started_at.is_none()
}

impl Schedule {
    pub(super) fn write(&self, out: &mut Writer) {
        out.id(self.id.to_bytes());
        out.u64(self.tenant.number());
        out.text(&self.name);
        out.text(&self.cron);
        out.text(&self.time_zone);
        out.u8(u8::from(self.library.is_some()));
        if let Some(library) = self.library {
            out.id(library.to_bytes());
        }
        out.u8(self.kind.number());
        out.u8(self.priority.number());
        out.text(&self.parameters);
        out.u32(self.retries_max);
        out.u8(u8::from(self.enabled));
        out.text_option(self.note.as_deref());
        out.i64(self.created_at.micros());
        out.i64(self.updated_at.micros());
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let id = ScheduleId::new(from.uuid("schedule id")?);
        let tenant = TenantId::new(from.u64("tenant")?);
        let name = from.text("name")?.to_owned();
        let cron = from.text("cron")?.to_owned();
        let time_zone = from.text("time zone")?.to_owned();
        let about = from.flag("library of a job")?;
        let library = if about { Some(LibraryId::new(from.uuid("library id")?)) } else { None };
        Ok(Self {
            id,
            tenant,
            name,
            cron,
            time_zone,
            library,
            kind: JobKind::read(from)?,
            priority: JobPriority::read(from)?,
            parameters: from.text("parameters")?.into(),
            retries_max: from.u32("retries")?,
            enabled: from.flag("enabled")?,
            note: from.text_option("note")?.map(str::to_owned),
            created_at: Timestamp::from_micros(from.i64("creation time")?),
            updated_at: Timestamp::from_micros(from.i64("time of change")?),
        })
    }
}
