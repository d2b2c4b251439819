//! What each kind of job does.
//!
//! When jobs are taken, tried again and ended is [`arrwdb_feed::Jobs`]'; a file here for each kind
//! says what is done, unit by unit, from where the log says it is.

mod backup;
mod delete;
mod errors;
mod export;
mod files;
mod import;
mod index;
mod purge;
mod regenerate;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrwdb_engine::embed::EmbedError;
use arrwdb_engine::state::limits::JOB_RESULT_BYTES_MAX;
use arrwdb_engine::state::{Job, JobId, JobKind};
use arrwdb_engine::{Engine, EngineError};
use arrwdb_feed::{FeedError, Halt, JobRun, Perform, Performed, Performing};
use parking_lot::Mutex;
use serde_json::Value;

use self::errors::ErrorLog;
pub(crate) use self::errors::{ErrorCursor, Known};
pub(crate) use self::export::Format;
pub(crate) use self::files::{Input, InputWriter, JobFiles, Unsubmitted};
use self::regenerate::Spent;
use crate::config::{BackupConfig, Config, RequestLimits};
use crate::metrics::Metrics;
use crate::problem::Problem;

/// How long a job waits that has to wait for something else.
const LATER: Duration = Duration::from_secs(5);
/// How long one waits whose budget is spent: each look is a record of the log.
const BUDGET_LATER: Duration = Duration::from_secs(15);
/// Refused units that a result names.
const ERRORS_SHOWN: usize = 20;
/// Characters of such an error.
const ERROR_CHARS: usize = 300;

/// Does what jobs ask for.
#[derive(Debug)]
pub(crate) struct Performer {
    files: JobFiles,
    limits: RequestLimits,
    metrics: Arc<Metrics>,
    backup: BackupConfig,
    data_dir: PathBuf,
    engine: Engine,
    /// What jobs that are not over have used.
    spent: Mutex<HashMap<JobId, Spent>>,
}

impl Performer {
    pub(crate) fn new(
        engine: Engine,
        files: JobFiles,
        config: &Config,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (limits, backup) = (config.limits.clone(), config.backup.clone());
        let data_dir = config.storage.data_dir.clone();
        Self { files, limits, metrics, backup, data_dir, engine, spent: Mutex::default() }
    }
}

impl Perform for Performer {
    fn over(&self, job: &Job) {
        if job.spec.input.is_some() {
            self.files.remove_input(job.spec.head.id);
        }
        if job.spec.head.kind == JobKind::RegenerateEmbeddings {
            regenerate::over(&self.engine, job);
            self.spent.lock().remove(&job.spec.head.id);
        }
    }

    fn perform(&self, run: JobRun) -> Performing<'_> {
        Box::pin(async move {
            let done = match run.head().kind {
                JobKind::BatchImport => self.import(&run).await,
                JobKind::BatchDelete => self.delete(&run).await,
                JobKind::BatchExport => self.export(&run).await,
                JobKind::IndexRebuild => self.rebuild(&run).await,
                JobKind::IndexOptimize => self.optimize(&run).await,
                JobKind::Purge => purge::purge(&run).await,
                JobKind::Backup => self.backup(&run).await,
                JobKind::RegenerateEmbeddings => self.regenerate(&run).await,
            };
            done.unwrap_or_else(Performed::from)
        })
    }
}

/// Why a job does not go on.
#[derive(Debug)]
enum Unable {
    Failed(String),
    /// An embedding provider does not want what it is asked for: no waiting changes that, but
    /// somebody may.
    Refused(String),
    Again(String),
    /// Not before so long.
    Later(String, Duration),
    Halted(Halt),
}

impl From<Halt> for Unable {
    fn from(halt: Halt) -> Self {
        Self::Halted(halt)
    }
}

impl From<Unable> for Performed {
    fn from(unable: Unable) -> Self {
        match unable {
            Unable::Failed(error) | Unable::Refused(error) => Self::Failed { error, result: None },
            Unable::Again(error) => Self::Again { error, result: None },
            Unable::Later(error, after) => Self::Later { error, after, result: None },
            Unable::Halted(halt) => halt.into(),
        }
    }
}

impl From<EngineError> for Unable {
    fn from(error: EngineError) -> Self {
        // As a caller would be told: paths and offsets go to the server's log.
        let text = Problem::from(error.clone()).detail().to_owned();
        match error {
            // What the provider says will not change by itself.
            EngineError::Embedding(EmbedError::Provider { status: Some(status), .. })
                if (400..500).contains(&status) && ![408, 409, 425, 429].contains(&status) =>
            {
                Self::Refused(text)
            }
            EngineError::Embedding(EmbedError::RateLimited { retry_after }) => {
                Self::Later(text, retry_after.max(LATER))
            }
            // What it needs is not there just now.
            EngineError::DiskFull { .. }
            | EngineError::Busy { .. }
            | EngineError::Embedding(
                EmbedError::Busy { .. }
                | EmbedError::NotConfigured { .. }
                | EmbedError::Provider { .. }
                | EmbedError::WrongDimension { .. }
                | EmbedError::Deadline { .. },
            ) => Self::Later(text, LATER),
            // Until somebody raises it, or it begins anew.
            EngineError::BudgetExceeded(_) => Self::Later(text, BUDGET_LATER),
            EngineError::Storage { .. }
            | EngineError::Panicked
            | EngineError::SeqNotReached { .. }
            | EngineError::Embedding(_)
            | EngineError::Reranking(_) => Self::Again(text),
            // Nothing more is written, nor is this: it goes on after the next start.
            EngineError::Closed | EngineError::LogFailed { .. } => Self::Halted(Halt::Stopping),
            // It was there when the job was submitted.
            EngineError::LibraryNotFound(id) => Self::Failed(format!("Library {id} was deleted")),
            EngineError::VectorNotFound(_)
            | EngineError::VectorField { .. }
            | EngineError::DocumentNotFound(_)
            | EngineError::AmbiguousDocument { .. }
            | EngineError::TooManyLibraries(_)
            | EngineError::TooManyDocuments(_)
            | EngineError::StandingQueryNotFound(_)
            | EngineError::TooManyStandingQueries(_)
            | EngineError::JobNotFound(_)
            | EngineError::JobState(_)
            | EngineError::WebhookNotFound(_)
            | EngineError::TooManyWebhooks(_)
            | EngineError::BudgetNotFound
            | EngineError::TooManyBudgets(_)
            | EngineError::ScheduleNotFound(_)
            | EngineError::TooManySchedules(_)
            | EngineError::LibraryExists(_)
            | EngineError::Generation(_)
            | EngineError::Invalid { .. }
            | EngineError::Blank { .. }
            | EngineError::Vector { .. }
            | EngineError::HistoryGone { .. }
            | EngineError::Locked { .. }
            | EngineError::Damaged { .. } => Self::Failed(text),
        }
    }
}

impl From<FeedError> for Unable {
    fn from(error: FeedError) -> Self {
        match error {
            FeedError::Engine(error) => error.into(),
            FeedError::Closed => Self::Halted(Halt::Stopping),
            error @ (FeedError::Trimmed { .. } | FeedError::LibraryNotFound(_)) => {
                Self::Again(error.to_string())
            }
        }
    }
}

/// The library of a job that has to be about one.
fn library_of(run: &JobRun) -> Result<arrwdb_engine::state::LibraryId, Unable> {
    run.head().library.ok_or_else(|| Unable::Failed("the job names no library".to_owned()))
}

/// A result with as many of its first errors as fit, and where all of them are.
fn with_errors(mut result: Value, (job, errors): (JobId, &ErrorLog)) -> String {
    let first = errors.first();
    let mut shown = first.len();
    loop {
        if let Value::Object(members) = &mut result {
            members.insert("errors".to_owned(), first[..shown].into());
            if !first.is_empty() {
                members.insert("errors_url".to_owned(), format!("/v1/jobs/{job}/errors").into());
                members.insert("errors_truncated".to_owned(), errors.is_full().into());
            }
        }
        let text = result.to_string();
        if text.len() <= JOB_RESULT_BYTES_MAX || shown == 0 {
            return text;
        }
        shown -= 1;
    }
}

/// What a job refused cannot be kept: it is not counted, and looked at again.
fn unkept(error: &std::io::Error) -> Unable {
    let text = "what it refused cannot be stored";
    tracing::warn!(%error, "{text}");
    Unable::Later(text.to_owned(), LATER)
}

/// An error as a result shows it.
fn shown(error: &str) -> String {
    error.chars().take(ERROR_CHARS).collect()
}
