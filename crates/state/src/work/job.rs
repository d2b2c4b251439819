//! Jobs: work that is asked for and then done in the background, as the log knows it.

use std::sync::Arc;

use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{JobId, LibraryId, ScheduleId, Seq, TenantId, Timestamp};

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobKind {
    /// Adds documents that came with it.
    BatchImport,
    /// Builds what a library is searched by.
    IndexRebuild,
    /// Merges a library's files into one without what died.
    IndexOptimize,
    /// Writes a library's documents to a file that can be downloaded.
    BatchExport,
    /// Deletes documents.
    BatchDelete,
    /// Makes new vectors of a library's texts.
    RegenerateEmbeddings,
    /// Copies everything to where backups are kept.
    Backup,
    /// Removes for good what was deleted.
    Purge,
}

impl JobKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::BatchImport,
        Self::IndexRebuild,
        Self::IndexOptimize,
        Self::BatchExport,
        Self::BatchDelete,
        Self::RegenerateEmbeddings,
        Self::Backup,
        Self::Purge,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BatchImport => "batch_import",
            Self::IndexRebuild => "index_rebuild",
            Self::IndexOptimize => "index_optimize",
            Self::BatchExport => "batch_export",
            Self::BatchDelete => "batch_delete",
            Self::RegenerateEmbeddings => "regenerate_embeddings",
            Self::Backup => "backup",
            Self::Purge => "purge",
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Its number in an entry, which never changes.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::BatchImport => 1,
            Self::IndexRebuild => 2,
            Self::IndexOptimize => 3,
            Self::BatchExport => 4,
            Self::BatchDelete => 5,
            Self::RegenerateEmbeddings => 6,
            Self::Backup => 7,
            Self::Purge => 8,
        }
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let number = from.u8("job kind")?;
        let kind = Self::ALL.into_iter().find(|kind| kind.number() == number);
        kind.ok_or_else(|| from.error("a job of a kind this build knows"))
    }
}

/// How much sooner than others a job is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum JobPriority {
    /// After the others, but never not at all.
    Low,
    /// As most.
    #[default]
    Normal,
    /// Before the others.
    High,
}

impl JobPriority {
    /// All of them, ascending.
    pub const ALL: [Self; 3] = [Self::Low, Self::Normal, Self::High];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }

    /// The priority of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.name() == name)
    }

    /// Its number in an entry, which never changes.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Low => 0,
            Self::Normal => 1,
            Self::High => 2,
        }
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let number = from.u8("priority")?;
        let priority = Self::ALL.into_iter().find(|priority| priority.number() == number);
        priority.ok_or_else(|| from.error("a priority this build knows"))
    }
}

/// What a job works on that is too large for the log: a file beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobInput {
    /// Bytes of the file.
    pub bytes: u64,
    /// CRC32C of the file.
    pub crc: u32,
    /// Units of work in it.
    pub units: u64,
}

/// Which job, and what is said of it in every entry, so that each can be understood alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobHead {
    /// The job.
    pub id: JobId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The library that it is about, if it is about one.
    pub library: Option<LibraryId>,
    /// What it does.
    pub kind: JobKind,
}

/// A job as it was submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSpec {
    /// Which one.
    pub head: JobHead,
    /// How soon it is taken.
    pub priority: JobPriority,
    /// What it shall do, as a JSON object of its kind's fields.
    pub parameters: Arc<str>,
    /// What it works on, where that lies in a file.
    pub input: Option<JobInput>,
    /// How often it is tried again after a failure that may pass.
    pub retries_max: u32,
    /// It is not taken before.
    pub run_at: Option<Timestamp>,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// The schedule that it is of, if it is of one.
    pub schedule: Option<ScheduleId>,
}

/// Which unit of which job wrote something to a library: how a job that goes on after a restart
/// knows what it has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobUnit {
    /// The job.
    pub job: JobId,
    /// The number of its unit, from 0.
    pub unit: u64,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobProgress {
    /// Units that are done.
    pub current: u64,
    /// Units in all, where that is known.
    pub total: Option<u64>,
    /// Units of `current` that were refused.
    pub failed: u64,
    /// Chunks that were written, or deleted, or read.
    pub chunks: u64,
    /// Everything that the job wrote to its library up to this record is counted.
    pub through: Seq,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobOutcome {
    /// It did what it was asked for; single units may have been refused.
    Completed,
    /// It could not.
    Failed,
    /// Somebody did not want it any more.
    Cancelled,
}

impl JobOutcome {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Its number in an entry, which never changes.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Completed => 0,
            Self::Failed => 1,
            Self::Cancelled => 2,
        }
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match from.u8("outcome")? {
            0 => Ok(Self::Completed),
            1 => Ok(Self::Failed),
            2 => Ok(Self::Cancelled),
            _ => Err(from.error("an outcome this build knows")),
        }
    }
}

/// What came of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEnd {
    /// How it ended.
    pub outcome: JobOutcome,
    /// When it began, if it did.
    pub started_at: Option<Timestamp>,
    /// How far it came.
    pub progress: JobProgress,
    /// What it has to say, as a JSON object.
    pub result: Option<Arc<str>>,
    /// Why it failed.
    pub error: Option<Arc<str>>,
}

/// What became of a job after it was submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobChange {
    /// It is worked on.
    Started,
    /// It is so far. Noted now and then while it works.
    Progressed(JobProgress),
    /// It failed and is tried again.
    Retried {
        /// Not before.
        not_before: Timestamp,
        /// Why it failed.
        error: Arc<str>,
        /// Whether this counts among its retries: what is only waited for does not.
        counted: bool,
    },
    /// It shall stop at the next unit.
    CancelRequested,
    /// It is over.
    Finished(JobEnd),
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// It waits, until this time at least, if one is named.
    Pending {
        /// Not before.
        not_before: Option<Timestamp>,
    },
    /// It is worked on, or will be again as soon as the server runs.
    Running {
        /// Whether it shall stop at the next unit.
        cancelling: bool,
    },
    /// It is over.
    Finished {
        /// Since when.
        at: Timestamp,
        /// What came of it.
        end: Arc<JobEnd>,
    },
}

impl JobState {
    /// Its name: `pending`, `running`, `completed`, `failed` or `cancelled`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Running { .. } => "running",
            Self::Finished { end, .. } => end.outcome.name(),
        }
    }
}

/// How many jobs there are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Waiting.
    pub pending: u64,
    /// Worked on.
    pub running: u64,
    /// Over and done.
    pub completed: u64,
    /// Over and not done.
    pub failed: u64,
    /// Not wanted any more.
    pub cancelled: u64,
}

impl JobCounts {
    /// All of them.
    pub fn total(self) -> u64 {
        self.pending + self.running + self.completed + self.failed + self.cancelled
    }

    pub(super) fn of(&mut self, state: &JobState) -> &mut u64 {
        match state {
            JobState::Pending { .. } => &mut self.pending,
            JobState::Running { .. } => &mut self.running,
            JobState::Finished { end, .. } => match end.outcome {
                JobOutcome::Completed => &mut self.completed,
                JobOutcome::Failed => &mut self.failed,
                JobOutcome::Cancelled => &mut self.cancelled,
            },
        }
    }
}

/// A job at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// As it was submitted; without its parameters, when it is over.
    pub spec: Arc<JobSpec>,
    /// Where it stands.
    pub state: JobState,
    /// When it was first taken.
    pub started_at: Option<Timestamp>,
    /// How far it is.
    pub progress: JobProgress,
    /// How often it was tried again.
    pub retries: u32,
    /// Why it failed the last time.
    pub error: Option<Arc<str>>,
    /// The record that submitted it.
    pub submitted: Seq,
    /// The last record about it.
    pub changed: Seq,
}

impl JobUnit {
    pub(crate) fn write(unit: Option<Self>, out: &mut Writer) {
        out.u8(u8::from(unit.is_some()));
        if let Some(Self { job, unit }) = unit {
            out.id(job.to_bytes());
            out.u64(unit);
        }
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        if !from.flag("unit of a job")? {
            return Ok(None);
        }
        let job = JobId::new(from.uuid("job id")?);
        Ok(Some(Self { job, unit: from.u64("unit")? }))
    }
}

impl JobHead {
    pub(super) fn write(&self, out: &mut Writer) {
        out.id(self.id.to_bytes());
        out.u64(self.tenant.number());
        out.u8(u8::from(self.library.is_some()));
        if let Some(library) = self.library {
            out.id(library.to_bytes());
        }
        out.u8(self.kind.number());
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let id = JobId::new(from.uuid("job id")?);
        let tenant = TenantId::new(from.u64("tenant")?);
        let about = from.flag("library of a job")?;
        let library = if about { Some(LibraryId::new(from.uuid("library id")?)) } else { None };
        Ok(Self { id, tenant, library, kind: JobKind::read(from)? })
    }
}

impl JobSpec {
    /// Bytes of memory and log that it takes beyond a small constant.
    pub(super) fn bytes(&self) -> u64 {
        self.parameters.len() as u64
    }

    /// All but the schedule, of which each format says in its own way whether there is one.
    pub(super) fn write(&self, out: &mut Writer) {
        self.head.write(out);
        out.u8(self.priority.number());
        out.text(&self.parameters);
        out.u8(u8::from(self.input.is_some()));
        if let Some(JobInput { bytes, crc, units }) = self.input {
            out.u64(bytes);
            out.u32(crc);
            out.u64(units);
        }
        out.u32(self.retries_max);
        write_time_option(out, self.run_at);
        out.i64(self.submitted_at.micros());
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let head = JobHead::read(from)?;
        let priority = JobPriority::read(from)?;
        let parameters = from.text("parameters")?.into();
        let spooled = from.flag("input of a job")?;
        let input = if spooled { Some(JobInput::read(from)?) } else { None };
        let retries_max = from.u32("retries")?;
        let run_at = read_time_option(from)?;
        let submitted_at = Timestamp::from_micros(from.i64("time of submission")?);
        let schedule = None;
        Ok(Self { head, priority, parameters, input, retries_max, run_at, submitted_at, schedule })
    }
}

impl JobInput {
    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            bytes: from.u64("input bytes")?,
            crc: from.u32("input checksum")?,
            units: from.u64("input units")?,
        })
    }
}

impl JobProgress {
    pub(super) fn write(&self, out: &mut Writer) {
        out.u64(self.current);
        out.u8(u8::from(self.total.is_some()));
        if let Some(total) = self.total {
            out.u64(total);
        }
        out.u64(self.failed);
        out.u64(self.chunks);
        out.u64(self.through.get());
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            current: from.u64("units done")?,
            total: if from.flag("units")? { Some(from.u64("units")?) } else { None },
            failed: from.u64("units refused")?,
            chunks: from.u64("chunks")?,
            through: Seq::new(from.u64("record")?),
        })
    }
}

impl JobEnd {
    /// Bytes of memory that it takes beyond a small constant.
    pub(super) fn bytes(&self) -> u64 {
        let bytes = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| text.len() as u64);
        bytes(&self.result) + bytes(&self.error)
    }

    pub(super) fn write(&self, out: &mut Writer) {
        out.u8(self.outcome.number());
        write_time_option(out, self.started_at);
        self.progress.write(out);
        out.text_option(self.result.as_deref());
        out.text_option(self.error.as_deref());
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            outcome: JobOutcome::read(from)?,
            started_at: read_time_option(from)?,
            progress: JobProgress::read(from)?,
            result: from.text_option("result")?.map(Into::into),
            error: from.text_option("error")?.map(Into::into),
        })
    }
}

pub(super) fn write_time_option(out: &mut Writer, time: Option<Timestamp>) {
    out.u8(u8::from(time.is_some()));
    if let Some(time) = time {
        out.i64(time.micros());
    }
}

pub(super) fn read_time_option(from: &mut Reader<'_>) -> Result<Option<Timestamp>, DecodeError> {
    let known = from.flag("time")?;
    Ok(if known { Some(Timestamp::from_micros(from.i64("time")?)) } else { None })
}
