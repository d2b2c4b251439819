//! The bodies of schedules.

use arrwdb_engine::state::{IndexSpec, JobKind, LibraryId, Schedule};
use arrwdb_feed::{Cron, CronError};
use serde_json::Value;
use utoipa::ToSchema;

use super::job_requests::{self, Asked, Common};
use crate::json::{Read, Reader};
use crate::limits::SCHEDULE_NAME_CHARS_MAX;

/// A job that is wanted again and again: what the body of such a job has, and when.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"name": "nightly export", "cron": "0 3 * * *", "time_zone": "Europe/Berlin", "job_type": "batch_export", "library_id": "0191f4a2-7c3e-7abc-8def-0123456789ab", "format": "ndjson"}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
pub(super) struct NewSchedule {
    #[schema(min_length = 1, max_length = 255)]
    name: String,
    /// Minute, hour, day of month, month, day of week; or `@hourly`, `@daily`, `@weekly`, `@monthly`,
    /// `@yearly`.
    #[schema(max_length = 200)]
    cron: String,
    /// Where the clock hangs: a name of the IANA time zone database.
    #[schema(default = "UTC")]
    time_zone: Option<String>,
    /// `index_rebuild`, `index_optimize`, `batch_export`, `backup` or `purge`.
    job_type: String,
    /// Required but for `backup` and `purge`.
    #[schema(format = "uuid")]
    library_id: Option<String>,
    /// Of an export.
    #[schema(default = "json")]
    format: Option<String>,
    /// Of an export.
    #[schema(default = false)]
    include_embeddings: Option<bool>,
    /// Of a rebuild.
    index_type: Option<String>,
    /// Of a rebuild.
    #[schema(value_type = Option<Object>)]
    index_config: Option<Value>,
    /// Of a rebuild.
    #[schema(value_type = Option<Object>)]
    quantization_config: Option<Value>,
    #[schema(default = "normal")]
    priority: Option<String>,
    #[schema(minimum = 0, maximum = 10)]
    max_retries: Option<u32>,
    #[schema(default = true)]
    enabled: Option<bool>,
}

/// What to change of a schedule; what is absent or null stays. What its jobs do stays as well: for
/// something else make another.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"cron": "30 4 * * SUN", "enabled": true}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
pub(super) struct SchedulePatch {
    #[schema(min_length = 1, max_length = 255)]
    name: Option<String>,
    #[schema(max_length = 200)]
    cron: Option<String>,
    time_zone: Option<String>,
    priority: Option<String>,
    #[schema(minimum = 0, maximum = 10)]
    max_retries: Option<u32>,
    enabled: Option<bool>,
}

/// When, and what it is called: what a body says of the schedule itself.
#[derive(Debug, Default)]
pub(super) struct Timing {
    pub(super) name: Option<String>,
    pub(super) cron: Option<String>,
    pub(super) time_zone: Option<String>,
    pub(super) enabled: Option<bool>,
    pub(super) common: Common,
}

impl Timing {
    /// Changes what is asked for.
    pub(super) fn apply(&self, schedule: &mut Schedule) {
        let set = |place: &mut String, value: &Option<String>| {
            if let Some(value) = value {
                place.clone_from(value);
            }
        };
        set(&mut schedule.name, &self.name);
        set(&mut schedule.cron, &self.cron);
        set(&mut schedule.time_zone, &self.time_zone);
        schedule.priority = self.common.priority.unwrap_or(schedule.priority);
        schedule.retries_max = self.common.retries_max.unwrap_or(schedule.retries_max);
        if let Some(enabled) = self.enabled {
            schedule.enabled = enabled;
            schedule.note = None;
        }
    }
}

/// What the jobs of a schedule do.
const KINDS: [JobKind; 5] = [
    JobKind::IndexRebuild,
    JobKind::IndexOptimize,
    JobKind::BatchExport,
    JobKind::Backup,
    JobKind::Purge,
];

/// Fields that only jobs of one kind have.
const SPECIFIC: [(&str, JobKind); 5] = [
    ("format", JobKind::BatchExport),
    ("include_embeddings", JobKind::BatchExport),
    ("index_type", JobKind::IndexRebuild),
    ("index_config", JobKind::IndexRebuild),
    ("quantization_config", JobKind::IndexRebuild),
];

/// What kind of job a body wants, and of which library: what the rest of it means depends on that.
pub(super) fn kind(r: &mut Reader<'_>) -> Read<(Option<JobKind>, Option<LibraryId>)> {
    let (mut kind, mut library) = (None, None);
    let mut specific = Vec::new();
    r.object(|r, key| {
        match key {
            "job_type" => {
                if let Some(name) = r.string()? {
                    kind = JobKind::from_name(&name).filter(|kind| KINDS.contains(kind));
                    if kind.is_none() {
                        r.fault(
                            "must be index_rebuild, index_optimize, batch_export, backup or purge",
                        );
                    }
                }
            }
            "library_id" => library = job_requests::read_library(r)?,
            key => {
                let known = SPECIFIC.into_iter().find(|(name, _kind)| *name == key);
                if let Some(known) = known
                    && !r.any()?.is_null()
                {
                    specific.push(known);
                }
            }
        }
        Ok(())
    })?;
    for (name, of) in specific {
        if let Some(kind) = kind.filter(|kind| *kind != of) {
            r.fault_at(name, format!("is not for {}", kind.name()));
        }
    }
    r.require("job_type", kind.is_some() || r.has_fault_at("job_type"));
    Ok((kind, library))
}

/// What the jobs of a schedule shall do. A rebuild starts from what the library has.
pub(super) fn job(r: &mut Reader<'_>, kind: JobKind, current: IndexSpec) -> Read<Asked> {
    match kind {
        JobKind::IndexRebuild => job_requests::index_rebuild(r, current),
        JobKind::IndexOptimize => job_requests::index_optimize(r),
        JobKind::BatchExport => job_requests::batch_export(r),
        JobKind::Backup
        | JobKind::Purge
        | JobKind::BatchImport
        | JobKind::BatchDelete
        | JobKind::RegenerateEmbeddings => job_requests::without_library(r),
    }
}

/// When; all of it.
pub(super) fn new_timing(r: &mut Reader<'_>) -> Read<Timing> {
    let timing = timing(r, None)?;
    for (name, present) in [("name", timing.name.is_some()), ("cron", timing.cron.is_some())] {
        let told = r.has_fault_at(name);
        r.require(name, present || told);
    }
    Ok(timing)
}

/// What of it changes; against what it is, as a line and a time zone are read together.
pub(super) fn timing(r: &mut Reader<'_>, before: Option<&Schedule>) -> Read<Timing> {
    let mut timing = Timing::default();
    r.object(|r, key| {
        match key {
            "name" => timing.name = read_name(r)?,
            "cron" => timing.cron = r.string()?.map(|line| line.trim().to_owned()),
            "time_zone" => timing.time_zone = r.string()?.map(|zone| zone.trim().to_owned()),
            "enabled" => timing.enabled = r.switch()?,
            "run_at" => r.fault("is not for schedules: cron says when"),
            "job_type"
            | "library_id"
            | "format"
            | "include_embeddings"
            | "index_type"
            | "index_config"
            | "quantization_config"
                if before.is_some() && !r.any()?.is_null() =>
            {
                r.fault("cannot be changed: make another schedule");
            }
            key => drop(timing.common.read(r, key)?),
        }
        Ok(())
    })?;
    let line = timing.cron.as_deref().or(before.map(|before| &*before.cron));
    let zone = timing.time_zone.as_deref().or(before.map(|before| &*before.time_zone));
    if let Some(line) = line {
        match Cron::read(line, zone.unwrap_or("UTC")) {
            Ok(_cron) => {}
            Err(error @ CronError::Line(_)) => r.fault_at("cron", error.to_string()),
            Err(error @ CronError::TimeZone) => r.fault_at("time_zone", error.to_string()),
        }
    }
    Ok(timing)
}

fn read_name(r: &mut Reader<'_>) -> Read<Option<String>> {
    let Some(name) = r.string()? else { return Ok(None) };
    let name = name.trim().to_owned();
    let chars = name.chars().count();
    if chars == 0 || chars > SCHEDULE_NAME_CHARS_MAX {
        r.fault(format!("must have 1 to {SCHEDULE_NAME_CHARS_MAX} characters"));
    }
    Ok(Some(name))
}
