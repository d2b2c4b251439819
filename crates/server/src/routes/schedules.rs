//! Schedules: jobs that are wanted again and again.

use std::sync::Arc;

use arrwdb_engine::state::{IndexSpec, JobKind, Schedule, ScheduleId, Scheduled, Timestamp};
use arrwdb_feed::Cron;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::{as_time, rfc3339};
use super::job_requests::{Asked, Common};
use super::jobs::{Submitted, check_enabled, check_rebuild, check_target, submit};
use super::{schedule_requests as requests, seq_header};
use crate::app::App;
use crate::extract::{TextPath, WholeBody, read_json};
use crate::moment::MinSeq;
use crate::openapi::{ReadErrors, WriteErrors};
use crate::principal::Principal;
use crate::problem::{self, Problem};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(one, change, delete))
        .routes(routes!(run))
}

/// Times of a schedule that an answer names.
const UPCOMING: usize = 3;

/// A schedule.
#[derive(Debug, Serialize, ToSchema)]
struct ScheduleAnswer {
    #[schema(format = "uuid")]
    schedule_id: String,
    /// The same.
    #[schema(format = "uuid")]
    id: String,
    name: String,
    cron: String,
    time_zone: String,
    job_type: &'static str,
    library_id: Option<String>,
    /// What the jobs shall do, but for their library.
    #[schema(value_type = Object)]
    parameters: Value,
    /// `low`, `normal` or `high`.
    priority: &'static str,
    max_retries: u32,
    enabled: bool,
    /// Why the server turned it off, if it did.
    note: Option<String>,
    #[schema(value_type = String, format = "date-time")]
    #[serde(serialize_with = "as_time")]
    created_at: Timestamp,
    #[schema(value_type = String, format = "date-time")]
    #[serde(serialize_with = "as_time")]
    updated_at: Timestamp,
    /// The next times, in UTC; none while it is turned off.
    upcoming: Vec<String>,
    /// Its job that waits or is worked on.
    job_id: Option<String>,
    /// Its last job that is over.
    last_run: Option<LastRunAnswer>,
    /// Jobs that were done, whether they failed or not.
    runs: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct LastRunAnswer {
    #[schema(format = "uuid")]
    job_id: String,
    /// `completed`, `failed` or `cancelled`.
    status: &'static str,
    #[schema(value_type = String, format = "date-time")]
    #[serde(serialize_with = "as_time")]
    completed_at: Timestamp,
}

impl ScheduleAnswer {
    fn of(app: &App, scheduled: &Scheduled) -> Self {
        let Scheduled { schedule, job, due, last, runs, changed: _ } = scheduled;
        let cron = Cron::read(&schedule.cron, &schedule.time_zone).ok();
        let now = app.engine().now();
        // A job that waits for its time is the next; one that is worked on was.
        let after =
            due.filter(|due| *due > now).map(|due| Timestamp::from_micros(due.micros() - 1));
        let next = |time: Timestamp| cron.as_ref().and_then(|cron| cron.next_after(time));
        let upcoming = std::iter::successors(next(after.unwrap_or(now)), |time| next(*time));
        let upcoming = upcoming.take(if schedule.enabled { UPCOMING } else { 0 });
        Self {
            schedule_id: schedule.id.to_string(),
            id: schedule.id.to_string(),
            name: schedule.name.clone(),
            cron: schedule.cron.clone(),
            time_zone: schedule.time_zone.clone(),
            job_type: schedule.kind.name(),
            library_id: schedule.library.map(|library| library.to_string()),
            parameters: serde_json::from_str(&schedule.parameters).unwrap_or_default(),
            priority: schedule.priority.name(),
            max_retries: schedule.retries_max,
            enabled: schedule.enabled,
            note: schedule.note.clone(),
            created_at: schedule.created_at,
            updated_at: schedule.updated_at,
            upcoming: upcoming.map(rfc3339).collect(),
            job_id: job.map(|job| job.to_string()),
            last_run: last.map(|last| LastRunAnswer {
                job_id: last.job.to_string(),
                status: last.outcome.name(),
                completed_at: last.at,
            }),
            runs: *runs,
        }
    }
}

/// Schedules.
#[derive(Debug, Serialize, ToSchema)]
struct ScheduleList {
    schedules: Vec<ScheduleAnswer>,
    total: usize,
}

/// A schedule of the path; what is no id is not there.
fn schedule_id(text: &str) -> Result<ScheduleId, Problem> {
    text.parse().map_err(|_not_an_id| {
        let text: String = text.chars().take(64).collect();
        Problem::new(&problem::SCHEDULE_NOT_FOUND, format!("Schedule {text} not found"))
    })
}

/// Has a job done again and again. Of a schedule there is one job at a time: the next is submitted
/// when the one before is over, for the first time after that, and of times that passed while the
/// server did not run one is made up for.
#[utoipa::path(post, operation_id = "create_schedule", path = "/jobs/schedules", tag = "jobs",
    request_body = requests::NewSchedule,
    responses((status = 201, description = "Made: durable", body = ScheduleAnswer), WriteErrors))]
async fn create(
    principal: Principal,
    State(app): State<App>,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    check_enabled(&app)?;
    let engine = app.engine();
    let (kind, library) = read_json(&body, requests::kind)?;
    // Its absence was told.
    let kind = kind.unwrap_or(JobKind::Purge);
    let current = match library {
        Some(library) => engine.library(principal.tenant, library, None).await?.spec().index,
        None => IndexSpec::default(),
    };
    let timing = read_json(&body, requests::new_timing)?;
    let asked = read_json(&body, |r| requests::job(r, kind, current))?;
    check_target(&app, kind)?;
    check_rebuild((&app, principal), kind, &asked).await?;
    let Asked { library, parameters, common: _ } = asked;
    let now = engine.now();
    let mut schedule = Schedule {
        id: engine.new_schedule_id(),
        tenant: principal.tenant,
        name: String::new(),
        cron: String::new(),
        time_zone: "UTC".to_owned(),
        library,
        kind,
        priority: arrwdb_engine::state::JobPriority::default(),
        parameters: parameters.into(),
        retries_max: app.config().jobs.retries_max,
        enabled: true,
        note: None,
        created_at: now,
        updated_at: now,
    };
    timing.apply(&mut schedule);
    let id = schedule.id;
    let written = engine.add_schedule(schedule).await?;
    let (scheduled, _seq) = engine.schedule(principal.tenant, id, Some(written.seq)).await?;
    let answer = ScheduleAnswer::of(&app, &scheduled);
    Ok((StatusCode::CREATED, seq_header(written.seq), Json(answer)).into_response())
}

/// The schedules, the oldest first.
#[utoipa::path(get, operation_id = "list_schedules", path = "/jobs/schedules", tag = "jobs",
    params(("min_seq" = Option<u64>, Query, description = "Wait until this write is seen")),
    responses((status = 200, description = "All of them", body = ScheduleList), ReadErrors))]
async fn list(
    principal: Principal,
    State(app): State<App>,
    MinSeq(min_seq): MinSeq,
) -> Result<Response, Problem> {
    let (found, seq) = app.engine().schedules(principal.tenant, min_seq).await?;
    let answer = ScheduleList {
        total: found.len(),
        schedules: found.iter().map(|it| ScheduleAnswer::of(&app, it)).collect(),
    };
    Ok((seq_header(seq), Json(answer)).into_response())
}

/// A schedule.
#[utoipa::path(get, operation_id = "get_schedule", path = "/jobs/schedules/{schedule_id}", tag = "jobs",
    params(
        ("schedule_id" = String, Path, format = "uuid", description = "The schedule"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
    ),
    responses((status = 200, description = "The schedule", body = ScheduleAnswer), ReadErrors))]
async fn one(
    principal: Principal,
    State(app): State<App>,
    TextPath(id): TextPath<String>,
    MinSeq(min_seq): MinSeq,
) -> Result<Response, Problem> {
    let id = schedule_id(&id)?;
    let (scheduled, seq) = app.engine().schedule(principal.tenant, id, min_seq).await?;
    Ok((seq_header(seq), Json(ScheduleAnswer::of(&app, &scheduled))).into_response())
}

/// Changes a schedule. A job of it that waits is cancelled, and another takes its place.
#[utoipa::path(patch, operation_id = "update_schedule", path = "/jobs/schedules/{schedule_id}", tag = "jobs",
    params(("schedule_id" = String, Path, format = "uuid", description = "The schedule")),
    request_body = requests::SchedulePatch,
    responses((status = 200, description = "The schedule: durable", body = ScheduleAnswer), WriteErrors))]
async fn change(
    principal: Principal,
    State(app): State<App>,
    TextPath(id): TextPath<String>,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let (engine, place) = (app.engine(), (principal.tenant, schedule_id(&id)?));
    let (before, _seq) = engine.schedule(place.0, place.1, None).await?;
    let timing = read_json(&body, |r| requests::timing(r, Some(&before.schedule)))?;
    let written = engine.change_schedule(place, |schedule| timing.apply(schedule)).await?;
    let (scheduled, _seq) = engine.schedule(place.0, place.1, Some(written.seq)).await?;
    let answer = ScheduleAnswer::of(&app, &scheduled);
    Ok((seq_header(written.seq), Json(answer)).into_response())
}

/// Deletes a schedule. A job of it that waits is cancelled, one that is worked on goes on.
#[utoipa::path(delete, operation_id = "delete_schedule", path = "/jobs/schedules/{schedule_id}", tag = "jobs",
    params(("schedule_id" = String, Path, format = "uuid", description = "The schedule")),
    responses((status = 204, description = "Deleted: durable"), WriteErrors))]
async fn delete(
    principal: Principal,
    State(app): State<App>,
    TextPath(id): TextPath<String>,
) -> Result<Response, Problem> {
    let written = app.engine().delete_schedule(principal.tenant, schedule_id(&id)?).await?;
    Ok((StatusCode::NO_CONTENT, seq_header(written.seq)).into_response())
}

/// Has what a schedule wants done now, once more, whatever its time; its own jobs stay as they are. It is
/// a run of the schedule as they are: `runs` and `last_run` tell of it.
#[utoipa::path(post, operation_id = "run_schedule", path = "/jobs/schedules/{schedule_id}/run", tag = "jobs",
    params(("schedule_id" = String, Path, format = "uuid", description = "The schedule")),
    responses((status = 200, description = "Submitted: durable", body = Submitted), WriteErrors))]
async fn run(
    principal: Principal,
    State(app): State<App>,
    TextPath(id): TextPath<String>,
) -> Result<Response, Problem> {
    let engine = app.engine();
    let (scheduled, _seq) = engine.schedule(principal.tenant, schedule_id(&id)?, None).await?;
    let schedule: &Arc<Schedule> = &scheduled.schedule;
    check_target(&app, schedule.kind)?;
    let common = Common {
        priority: Some(schedule.priority),
        run_at: None,
        retries_max: Some(schedule.retries_max),
        run_of: Some(schedule.id),
    };
    let parameters = schedule.parameters.to_string();
    let asked = Asked { library: schedule.library, parameters, common };
    submit((&app, principal), (schedule.kind, engine.new_job_id()), asked, None).await
}
