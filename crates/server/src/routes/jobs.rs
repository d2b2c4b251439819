//! Jobs: work that is done in the background, submitted, watched and cancelled.

use std::str::FromStr;
use std::time::Duration;

use arrwdb_engine::state::{
    Job, JobId, JobInput, JobKind, JobOutcome, JobState, LibraryId, Timestamp,
};
use arrwdb_engine::{EngineError, JobFilter, NewJob};
use arrwdb_feed::LiveProgress;
use axum::Json;
use axum::extract::{FromRequest, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::{as_time, percent, rfc3339};
use super::index_settings::IndexSettings;
use super::job_requests::{self, Asked, Common};
use super::{opaque, seq_header};
use crate::app::App;
use crate::extract::{QueryPairs, TextPath, WholeBody, check_encoding, query_fault, read_json};
use crate::jobs::{ErrorCursor, Unsubmitted};
use crate::limits::{
    JOB_ERROR_PAGE_DEFAULT, JOB_ERROR_PAGE_MAX, JOB_PAGE_DEFAULT, JOB_PAGE_MAX,
    JOB_WAIT_SECONDS_MAX,
};
use crate::moment::MinSeq;
use crate::openapi::{ReadErrors, WriteErrors};
use crate::principal::Principal;
use crate::problem::{self, Problem};

/// Routes that answer soon.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(index_rebuild))
        .routes(routes!(index_optimize))
        .routes(routes!(batch_export))
        .routes(routes!(batch_delete))
        .routes(routes!(regenerate_embeddings))
        .routes(routes!(purge))
        .routes(routes!(backup))
        .routes(routes!(list))
        .routes(routes!(cancel))
        .routes(routes!(errors))
        .routes(routes!(queue))
        // As the original's own client spells them.
        .route("/jobs/index_rebuild", post(index_rebuild))
        .route("/jobs/index_optimize", post(index_optimize))
        .route("/jobs/batch_export", post(batch_export))
        .route("/jobs/batch_delete", post(batch_delete))
        .route("/jobs/regenerate_embeddings", post(regenerate_embeddings))
        .route("/jobs/{job_id}/cancel", post(cancel))
}

/// Routes whose bodies, or whose time, have no bound.
pub(super) fn long_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(batch_import))
        .routes(routes!(one))
        .route("/jobs/batch_import", post(batch_import))
        .route("/jobs/{job_id}/status", get(one))
}

/// A job that was submitted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Submitted {
    #[schema(format = "uuid")]
    job_id: String,
    /// The same.
    #[schema(format = "uuid")]
    id: String,
    /// `pending`.
    status: &'static str,
    message: String,
}

/// A job.
#[derive(Debug, Serialize, ToSchema)]
struct JobAnswer {
    #[schema(format = "uuid")]
    job_id: String,
    /// The same.
    #[schema(format = "uuid")]
    id: String,
    /// `batch_import`, `batch_delete`, `batch_export`, `index_rebuild`, `index_optimize`, `regenerate_embeddings`, `purge`, `backup`.
    job_type: &'static str,
    /// `pending`, `running`, `completed`, `failed` or `cancelled`.
    status: &'static str,
    /// `low`, `normal` or `high`.
    priority: &'static str,
    #[schema(value_type = String, format = "date-time")]
    #[serde(serialize_with = "as_time")]
    created_at: Timestamp,
    started_at: Option<String>,
    completed_at: Option<String>,
    /// When a job that waits is taken at the earliest.
    run_at: Option<String>,
    library_id: Option<String>,
    /// The schedule that it is of.
    schedule_id: Option<String>,
    /// What it has to say, once it is over.
    #[schema(value_type = Option<Object>)]
    result: Option<Value>,
    /// Why it failed the last time.
    error: Option<String>,
    progress: ProgressAnswer,
    retries: u32,
    max_retries: u32,
    /// Somebody does not want it any more: it stops at its next unit.
    cancel_requested: bool,
}

/// How far a job is.
#[derive(Debug, Serialize, ToSchema)]
struct ProgressAnswer {
    /// Units that are done: documents, mostly.
    current: u64,
    /// Units in all; null where that is not known yet.
    total: Option<u64>,
    /// Units of these that were refused.
    failed: u64,
    message: String,
    /// 0 to 100, two decimals.
    percentage: f64,
    /// Units done in a second, while it is worked on.
    rate_per_second: Option<f64>,
    /// How long it will take still, while that can be told.
    remaining_seconds: Option<f64>,
}

impl ProgressAnswer {
    fn of(job: &Job, live: Option<LiveProgress>) -> Self {
        let progress = live.map_or(job.progress, |live| live.progress);
        // What came in lines is counted before it is worked on.
        let total = progress.total.or(job.spec.input.map(|input| input.units));
        #[expect(clippy::cast_precision_loss, reason = "a percentage with two decimals")]
        let percentage = match (&job.state, total) {
            (JobState::Finished { end, .. }, None | Some(0))
                if end.outcome == JobOutcome::Completed =>
            {
                100.0
            }
            (_, None | Some(0)) => 0.0,
            (_, Some(total)) => percent(progress.current as f64 / total as f64),
        };
        let message = match total {
            Some(total) => format!("{} of {total}", progress.current),
            None => format!("{}", progress.current),
        };
        Self {
            current: progress.current,
            total,
            failed: progress.failed,
            message,
            percentage,
            rate_per_second: live.map(|live| (live.rate * 100.0).round() / 100.0),
            remaining_seconds: live
                .and_then(|live| live.remaining)
                .map(|left| (left.as_secs_f64() * 10.0).round() / 10.0),
        }
    }
}

impl JobAnswer {
    fn of(app: &App, job: &Job) -> Self {
        let head = job.spec.head;
        let is_over = matches!(job.state, JobState::Finished { .. });
        let live = app.jobs().filter(|_jobs| !is_over);
        let live = live.and_then(|jobs| jobs.progress(head.id));
        let (completed_at, end) = match &job.state {
            JobState::Finished { at, end } => (Some(*at), Some(end)),
            JobState::Pending { .. } | JobState::Running { .. } => (None, None),
        };
        let run_at = match &job.state {
            JobState::Pending { not_before } => *not_before,
            JobState::Running { .. } | JobState::Finished { .. } => None,
        };
        let result = end.and_then(|end| end.result.as_deref());
        Self {
            job_id: head.id.to_string(),
            id: head.id.to_string(),
            job_type: head.kind.name(),
            status: job.state.name(),
            priority: job.spec.priority.name(),
            created_at: job.spec.submitted_at,
            started_at: job.started_at.map(rfc3339),
            completed_at: completed_at.map(rfc3339),
            run_at: run_at.map(rfc3339),
            library_id: head.library.map(|library| library.to_string()),
            schedule_id: job.spec.schedule.map(|schedule| schedule.to_string()),
            result: result.and_then(|result| serde_json::from_str(result).ok()),
            error: job.error.as_deref().map(str::to_owned),
            progress: ProgressAnswer::of(job, live),
            retries: job.retries,
            max_retries: job.spec.retries_max,
            cancel_requested: matches!(job.state, JobState::Running { cancelling: true }),
        }
    }
}

/// A list of jobs.
#[derive(Debug, Serialize, ToSchema)]
struct JobList {
    jobs: Vec<JobAnswer>,
    /// How many are here.
    total: usize,
    /// What to give as `before` for older ones; null at the end.
    next_before: Option<String>,
}

/// Refuses where jobs are turned off, before anything is stored for one.
pub(super) fn check_enabled(app: &App) -> Result<(), Problem> {
    if app.jobs().is_some() {
        return Ok(());
    }
    let detail = "background jobs are turned off (JOB_QUEUE_ENABLED)";
    Err(Problem::new(&problem::JOBS_DISABLED, detail))
}

/// Refuses backups where there is no place for them.
pub(super) fn check_target(app: &App, kind: JobKind) -> Result<(), Problem> {
    if kind != JobKind::Backup || app.config().backup.target.is_some() {
        return Ok(());
    }
    let detail = "the server does not know where to: set BACKUP_TARGET and start it again";
    Err(Problem::new(&problem::NO_BACKUP_TARGET, detail))
}

/// Refuses a rebuild that `index/rebuild` would refuse if it were asked for it now: whoever asks is
/// told at once, and not when its turn has come.
pub(super) async fn check_rebuild(
    (app, principal): (&App, Principal),
    kind: JobKind,
    asked: &Asked,
) -> Result<(), Problem> {
    let (JobKind::IndexRebuild, Some(library)) = (kind, asked.library) else { return Ok(()) };
    let (engine, tenant) = (app.engine(), principal.tenant);
    let current = engine.library(tenant, library, None).await?.spec().index;
    let change = IndexSettings::change(asked.parameters.as_bytes(), current)?;
    Ok(engine.check_index_change(tenant, library, change).await?)
}

/// Hands a job to the log.
pub(super) async fn submit(
    (app, principal): (&App, Principal),
    (kind, id): (JobKind, JobId),
    asked: Asked,
    input: Option<(JobInput, Unsubmitted)>,
) -> Result<Response, Problem> {
    check_enabled(app)?;
    check_rebuild((app, principal), kind, &asked).await?;
    let Asked { library, parameters, common } = asked;
    let Common { priority, run_at, retries_max, run_of } = common;
    let (input, unsubmitted) = input.unzip();
    let new = NewJob {
        id,
        library,
        kind,
        priority: priority.unwrap_or_default(),
        parameters: parameters.into(),
        input,
        retries_max: retries_max.unwrap_or(app.config().jobs.retries_max),
        run_at,
        run_of,
    };
    let engine = app.engine().clone();
    // To its end, whether or not the client waits for it: what the job works on stays exactly if
    // the job comes to be.
    let submitting = tokio::spawn(async move {
        let written = engine.submit_job(principal.tenant, new).await?;
        if let Some(unsubmitted) = unsubmitted {
            unsubmitted.submitted();
        }
        Ok::<_, EngineError>(written)
    });
    let written = submitting.await.map_err(|ended| {
        Problem::hidden(&problem::INTERNAL, format!("a submission stopped: {ended}"))
    })??;
    let answer = Submitted {
        job_id: id.to_string(),
        id: id.to_string(),
        status: "pending",
        message: format!("Job {} submitted", kind.name()),
    };
    Ok((seq_header(written.seq), Json(answer)).into_response())
}

/// Adds documents in the background. The documents come in a JSON object, or as lines of NDJSON
/// (`application/x-ndjson`, `library_id` and the other fields in the query string) of any length,
/// which are stored as they come. The answer, when all of it is durable, names the job.
#[utoipa::path(post, operation_id = "submit_batch_import", path = "/jobs/batch-import", tag = "jobs",
    params(
        ("library_id" = Option<String>, Query, format = "uuid", description = "The library, for a body of NDJSON"),
        ("priority" = Option<String>, Query, description = "low, normal or high, for a body of NDJSON [normal]"),
        ("run_at" = Option<String>, Query, format = "date-time", description = "Not before this time, for a body of NDJSON"),
        ("max_retries" = Option<u32>, Query, description = "0 to 10, for a body of NDJSON"),
    ),
    request_body(content((job_requests::BatchImport = "application/json"), (String = "application/x-ndjson"))),
    responses((status = 200, description = "Submitted: durable", body = Submitted), WriteErrors))]
async fn batch_import(
    principal: Principal,
    State(app): State<App>,
    query: QueryPairs,
    request: Request,
) -> Result<Response, Problem> {
    check_enabled(&app)?;
    let id = app.engine().new_job_id();
    let kind = JobKind::BatchImport;
    let asked = job_requests::of_query(&query)?;
    if job_requests::is_lines(request.headers()) {
        check_encoding(request.headers())?;
        if asked.library.is_none() {
            return Err(query_fault("library_id", "is required"));
        }
        check_library(&app, principal, asked.library).await?;
        let input = job_requests::spool(&app, id, request.into_body()).await?;
        return submit((&app, principal), (kind, id), asked, Some(input)).await;
    }
    let WholeBody(body, room) = WholeBody::from_request(request, &app).await?;
    let (asked, documents) = read_json(&body, job_requests::batch_import)?;
    check_library(&app, principal, asked.library).await?;
    let (asked, input) = job_requests::place(&app, id, asked, &documents).await?;
    drop(room);
    submit((&app, principal), (kind, id), asked, input).await
}

/// Refuses before anything large is stored.
async fn check_library(
    app: &App,
    principal: Principal,
    library: Option<LibraryId>,
) -> Result<(), Problem> {
    if let Some(library) = library {
        app.engine().library(principal.tenant, library, None).await?;
    }
    Ok(())
}

/// Builds what a library is searched by, in the background; as `index/rebuild`. What that would refuse
/// now is refused in the same way.
#[utoipa::path(post, operation_id = "submit_index_rebuild", path = "/jobs/index-rebuild", tag = "jobs",
    request_body = job_requests::IndexRebuild,
    responses((status = 200, description = "Submitted: durable", body = Submitted), WriteErrors))]
async fn index_rebuild(
    principal: Principal,
    State(app): State<App>,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    // What the settings mean depends on what the library has, so its id is looked for first.
    let library = read_json(&body, job_requests::library_alone)?;
    let current = match library {
        Some(library) => app.engine().library(principal.tenant, library, None).await?.spec().index,
        None => arrwdb_engine::state::IndexSpec::default(),
    };
    let asked = read_json(&body, |r| job_requests::index_rebuild(r, current))?;
    let id = app.engine().new_job_id();
    submit((&app, principal), (JobKind::IndexRebuild, id), asked, None).await
}

/// Merges a library's files in the background; as `index/optimize`.
#[utoipa::path(post, operation_id = "submit_index_optimize", path = "/jobs/index-optimize", tag = "jobs",
    request_body = job_requests::IndexOptimize,
    responses((status = 200, description = "Submitted: durable", body = Submitted), WriteErrors))]
async fn index_optimize(
    principal: Principal,
    State(app): State<App>,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let asked = read_json(&body, job_requests::index_optimize)?;
    let id = app.engine().new_job_id();
    submit((&app, principal), (JobKind::IndexOptimize, id), asked, None).await
}

/// Writes a library's documents to a file in the background. The result of the job names it.
#[utoipa::path(post, operation_id = "submit_batch_export", path = "/jobs/batch-export", tag = "jobs",
    request_body = job_requests::BatchExport,
    responses((status = 200, description = "Submitted: durable", body = Submitted), WriteErrors))]
async fn batch_export(
    principal: Principal,
    State(app): State<App>,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let asked = read_json(&body, job_requests::batch_export)?;
    let id = app.engine().new_job_id();
    submit((&app, principal), (JobKind::BatchExport, id), asked, None).await
}

/// Deletes documents in the background, wherever they are.
#[utoipa::path(post, operation_id = "submit_batch_delete", path = "/jobs/batch-delete", tag = "jobs",
    request_body = job_requests::BatchDelete,
    responses((status = 200, description = "Submitted: durable", body = Submitted), WriteErrors))]
async fn batch_delete(
    principal: Principal,
    State(app): State<App>,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let asked = read_json(&body, job_requests::batch_delete)?;
    let id = app.engine().new_job_id();
    submit((&app, principal), (JobKind::BatchDelete, id), asked, None).await
}

/// Makes vectors of another embedding model beside those that a library has, in the background. Reads
/// and writes go on meanwhile, and what is written gets both. The result compares the two; then
/// `embeddings/activate` has the library searched by the new ones, or `embeddings/discard` removes
/// them.
#[utoipa::path(post, operation_id = "submit_regenerate_embeddings", path = "/jobs/regenerate-embeddings", tag = "jobs",
    request_body = job_requests::RegenerateEmbeddings,
    responses((status = 200, description = "Submitted: durable", body = Submitted), WriteErrors))]
async fn regenerate_embeddings(
    principal: Principal,
    State(app): State<App>,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let (asked, wanted) = read_json(&body, job_requests::regenerate_embeddings)?;
    let id = app.engine().new_job_id();
    if let Some(library) = asked.library {
        app.engine().check_generation(principal.tenant, library, &wanted).await?;
    }
    submit((&app, principal), (JobKind::RegenerateEmbeddings, id), asked, None).await
}

/// Removes for good what was deleted, in the background; as `admin/purge`.
#[utoipa::path(post, operation_id = "submit_purge", path = "/jobs/purge", tag = "jobs",
    request_body(content = Option<job_requests::WithoutLibrary>),
    responses((status = 200, description = "Submitted: durable", body = Submitted), WriteErrors))]
async fn purge(
    principal: Principal,
    State(app): State<App>,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let body = if body.trim_ascii().is_empty() { &b"{}"[..] } else { &body };
    let asked = read_json(body, job_requests::without_library)?;
    let id = app.engine().new_job_id();
    submit((&app, principal), (JobKind::Purge, id), asked, None).await
}

/// Makes a restore point where `BACKUP_TARGET` says, in the background; as `arrwdb backup`.
#[utoipa::path(post, operation_id = "submit_backup", path = "/jobs/backup", tag = "jobs",
    request_body(content = Option<job_requests::WithoutLibrary>),
    responses((status = 200, description = "Submitted: durable", body = Submitted), WriteErrors))]
async fn backup(
    principal: Principal,
    State(app): State<App>,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let body = if body.trim_ascii().is_empty() { &b"{}"[..] } else { &body };
    let asked = read_json(body, job_requests::without_library)?;
    check_target(&app, JobKind::Backup)?;
    let id = app.engine().new_job_id();
    submit((&app, principal), (JobKind::Backup, id), asked, None).await
}

/// The jobs, the newest first.
#[utoipa::path(get, operation_id = "list_jobs", path = "/jobs", tag = "jobs",
    params(
        ("status" = Option<String>, Query, description = "pending, running, completed, failed or cancelled"),
        ("type" = Option<String>, Query, description = "batch_import, batch_delete, batch_export, index_rebuild, index_optimize, regenerate_embeddings, purge or backup"),
        ("library_id" = Option<String>, Query, format = "uuid", description = "Those about this library"),
        ("schedule_id" = Option<String>, Query, format = "uuid", description = "Those of this schedule"),
        ("limit" = Option<u64>, Query, description = "1 to 1000 [100]"),
        ("before" = Option<String>, Query, format = "uuid", description = "Those older than this job"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
    ),
    responses((status = 200, description = "The jobs", body = JobList), ReadErrors))]
async fn list(
    principal: Principal,
    State(app): State<App>,
    MinSeq(min_seq): MinSeq,
    query: QueryPairs,
) -> Result<Response, Problem> {
    let limit = query.whole("limit", JOB_PAGE_DEFAULT, 1..=JOB_PAGE_MAX)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let bad = |what: &str, text: &str| {
        let text: String = text.chars().take(64).collect();
        Problem::new(&problem::INVALID_REQUEST, format!("Invalid {what}: {text}"))
    };
    let status = match query.text("status") {
        None => None,
        Some(text) => {
            let known = ["pending", "running", "completed", "failed", "cancelled"];
            Some(known.into_iter().find(|it| *it == text).ok_or_else(|| bad("status", text))?)
        }
    };
    let kind = match query.text("type").or(query.text("job_type")) {
        None => None,
        Some(text) => Some(JobKind::from_name(text).ok_or_else(|| bad("job type", text))?),
    };
    let library = match query.text("library_id") {
        None => None,
        Some(text) => Some(LibraryId::from_str(text).map_err(|_e| bad("library_id", text))?),
    };
    let before = match query.text("before") {
        None => None,
        Some(text) => {
            let id = JobId::from_str(text);
            Some(id.map_err(|error| query_fault("before", &error.to_string()))?)
        }
    };
    let schedule = match query.text("schedule_id") {
        None => None,
        Some(text) => Some(text.parse().map_err(|_e| bad("schedule_id", text))?),
    };
    let filter = JobFilter { status, kind, library, schedule, before };
    let (jobs, seq) =
        app.engine().jobs(principal.tenant, filter, limit.saturating_add(1), min_seq).await?;
    let more = jobs.len() > limit;
    let shown = || jobs.iter().take(limit);
    let last = shown().next_back().filter(|_last| more);
    let answer = JobList {
        next_before: last.map(|job| job.spec.head.id.to_string()),
        total: shown().count(),
        jobs: shown().map(|job| JobAnswer::of(&app, job)).collect(),
    };
    Ok((seq_header(seq), Json(answer)).into_response())
}

/// A job of the path; what is no id is not there.
pub(super) fn job_id(text: &str) -> Result<JobId, Problem> {
    text.parse().map_err(|_not_an_id| {
        let text: String = text.chars().take(64).collect();
        Problem::new(&problem::JOB_NOT_FOUND, format!("Job {text} not found"))
    })
}

/// A job. With `wait_seconds`, the answer waits until it is over, at most so long.
#[utoipa::path(get, operation_id = "get_job", path = "/jobs/{job_id}", tag = "jobs",
    params(
        ("job_id" = String, Path, format = "uuid", description = "The job"),
        ("wait_seconds" = Option<u64>, Query, description = "Wait until it is over, 0 to 60 [0]"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
    ),
    responses((status = 200, description = "The job", body = JobAnswer), ReadErrors))]
async fn one(
    principal: Principal,
    State(app): State<App>,
    TextPath(id): TextPath<String>,
    MinSeq(min_seq): MinSeq,
    query: QueryPairs,
) -> Result<Response, Problem> {
    let id = job_id(&id)?;
    let wait = query.whole("wait_seconds", 0, 0..=JOB_WAIT_SECONDS_MAX)?;
    let (mut job, mut seq) = app.engine().job(principal.tenant, id, min_seq).await?;
    let mut applied = app.engine().work_applied();
    let over = async {
        loop {
            applied.borrow_and_update();
            match app.engine().job(principal.tenant, id, None).await {
                Ok((now, at)) => {
                    let over = matches!(now.state, JobState::Finished { .. });
                    (job, seq) = (now, at);
                    if over {
                        return;
                    }
                }
                // It was forgotten meanwhile; what was seen of it last is answered.
                Err(_gone) => return,
            }
            if applied.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = over => {}
        () = tokio::time::sleep(Duration::from_secs(wait)) => {}
        () = app.stopping() => {}
    }
    Ok((seq_header(seq), Json(JobAnswer::of(&app, &job))).into_response())
}

/// Cancels a job: at once, if it waits; at its next unit, if it is worked on.
#[utoipa::path(delete, operation_id = "cancel_job", path = "/jobs/{job_id}", tag = "jobs",
    params(("job_id" = String, Path, format = "uuid", description = "The job")),
    responses((status = 200, description = "It is cancelled, or will be", body = Object, example = json!({"message": "Job 0191f4a2-7c3e-7abc-8def-0123456789ab cancelled"})), WriteErrors))]
async fn cancel(
    principal: Principal,
    State(app): State<App>,
    TextPath(id): TextPath<String>,
) -> Result<Response, Problem> {
    let id = job_id(&id)?;
    let written = app.engine().cancel_job(principal.tenant, id).await?;
    let (job, _seq) = app.engine().job(principal.tenant, id, None).await?;
    if let (JobState::Finished { .. }, Some(jobs)) = (&job.state, app.jobs()) {
        jobs.forget(&job);
    }
    let answer = json!({
        "message": format!("Job {id} cancelled"),
        "job_id": id.to_string(),
        "status": job.state.name(),
    });
    Ok((seq_header(written.seq), Json(answer)).into_response())
}

/// What a job refused.
#[derive(Debug, Serialize, ToSchema)]
struct JobErrors {
    #[schema(format = "uuid")]
    job_id: String,
    /// Of the job: while it is worked on, there may be more later.
    status: &'static str,
    /// Ascending by `index`, which counts what the job works on from 0: `{index,line_number?,error}` of
    /// an import (`line_number` of a body of lines, from 1, blank ones counted),
    /// `{index,document_id,error}` of others.
    #[schema(value_type = Vec<Object>)]
    errors: Vec<Map<String, Value>>,
    /// How many the job refused so far.
    total: u64,
    /// There was no room for all of them: a job keeps 100,000, and 32 MiB.
    errors_truncated: bool,
    /// What to give as `cursor` for the next page; null at the end.
    next_cursor: Option<String>,
}

/// What a job refused, one by one, while it is worked on and for as long as it is remembered after.
#[utoipa::path(get, operation_id = "list_job_errors", path = "/jobs/{job_id}/errors", tag = "jobs",
    params(
        ("job_id" = String, Path, format = "uuid", description = "The job"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("page_size" = Option<u64>, Query, minimum = 1, maximum = 1000, description = "1 to 1000 [100]"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
    ),
    responses((status = 200, description = "Some of them", body = JobErrors), ReadErrors))]
async fn errors(
    principal: Principal,
    State(app): State<App>,
    TextPath(id): TextPath<String>,
    MinSeq(min_seq): MinSeq,
    query: QueryPairs,
) -> Result<Response, Problem> {
    let id = job_id(&id)?;
    let size = query.whole("page_size", JOB_ERROR_PAGE_DEFAULT, 1..=JOB_ERROR_PAGE_MAX)?;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let cursor = match query.text("cursor") {
        None => None,
        Some(text) => {
            let bad =
                || query_fault("cursor", "is not one of this list: give `next_cursor` as it came");
            Some(open_error_cursor(id, text).ok_or_else(bad)?)
        }
    };
    let (job, seq) = app.engine().job(principal.tenant, id, min_seq).await?;
    let live = app.jobs().and_then(|jobs| jobs.progress(id));
    let total = live.map_or(job.progress, |live| live.progress).failed;
    let files = app.job_files().clone();
    let read = tokio::task::spawn_blocking(move || files.read_errors(id, (cursor, size))).await;
    let page = read.map_err(std::io::Error::other).flatten().map_err(|error| {
        Problem::hidden(&problem::STORAGE, format!("a job's errors cannot be read: {error}"))
    })?;
    let answer = JobErrors {
        job_id: id.to_string(),
        status: job.state.name(),
        errors: page.errors,
        total,
        errors_truncated: page.truncated,
        next_cursor: page.next.map(|next| seal_error_cursor(id, next)),
    };
    Ok((seq_header(seq), Json(answer)).into_response())
}

/// A place in the list of one job.
fn seal_error_cursor(job: JobId, ErrorCursor { offset, after }: ErrorCursor) -> String {
    let parts = [&job.to_bytes()[..], &offset.to_le_bytes(), &after.to_le_bytes()];
    opaque::seal(&parts.concat())
}

fn open_error_cursor(job: JobId, text: &str) -> Option<ErrorCursor> {
    let bytes = opaque::open(text)?;
    let rest = bytes.strip_prefix(&job.to_bytes()[..])?;
    let (offset, after) = rest.split_at_checked(8)?;
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_le_bytes);
    Some(ErrorCursor { offset: number(offset)?, after: number(after)? })
}

/// Figures of the queue.
#[utoipa::path(get, operation_id = "get_job_queue", path = "/jobs/stats/queue", tag = "jobs",
    responses((status = 200, description = "Figures", body = Object), ReadErrors))]
async fn queue(_principal: Principal, State(app): State<App>) -> Json<Value> {
    let counts = app.engine().job_counts();
    let stats = app.jobs().map(arrwdb_feed::Jobs::stats);
    Json(json!({
        "total_jobs": counts.total(),
        "completed_jobs": counts.completed,
        "failed_jobs": counts.failed,
        "cancelled_jobs": counts.cancelled,
        "pending_jobs": counts.pending,
        "running_jobs": counts.running,
        "queue_size": stats.map_or(counts.pending, |stats| stats.queued),
        "num_workers": stats.map_or(0, |stats| stats.workers),
        "running": stats.is_some_and(|stats| stats.running),
        "taken_since_start": stats.map_or(0, |stats| stats.taken),
        "retried_since_start": stats.map_or(0, |stats| stats.retried),
    }))
}
