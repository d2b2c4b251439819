//! What can go wrong, by what the caller can do about it.

use std::time::Duration;

use arrwdb_embed::{EmbedError, RerankError};
use arrwdb_log::LogError;
use arrwdb_state::{
    ChunkId, Damage, DocumentId, JobId, LibraryId, QueryId, ScheduleId, Seq, WebhookId,
    WorkRejection,
};

use crate::budgets::BudgetRefusal;

/// Why a request was refused or failed. A refused write changed nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// No such library, or it belongs to another tenant.
    #[error("Library {0} not found")]
    LibraryNotFound(LibraryId),
    /// No such document.
    #[error("Document {0} not found")]
    DocumentNotFound(DocumentId),
    /// There are as many libraries as there may be.
    #[error("{0}")]
    TooManyLibraries(String),
    /// The library holds as many documents as it may; replacing one is still possible.
    #[error("the library holds {0} documents, which is the limit")]
    TooManyDocuments(u64),
    /// No such standing query.
    #[error("Standing query {0} not found")]
    StandingQueryNotFound(QueryId),
    /// The library has as many standing queries as it may.
    #[error("the library has {0} standing queries, which is the limit; delete some first")]
    TooManyStandingQueries(u64),
    /// No such job.
    #[error("Job {0} not found")]
    JobNotFound(JobId),
    /// The job is not in a state in which that can be done.
    #[error("{0}")]
    JobState(String),
    /// No such webhook.
    #[error("Webhook {0} not found")]
    WebhookNotFound(WebhookId),
    /// There are as many webhooks as there may be.
    #[error("{0}")]
    TooManyWebhooks(String),
    /// The library's embedding models are not in a state in which that can be done.
    #[error("{0}")]
    Generation(String),
    /// There is no such budget.
    #[error("there is no such budget")]
    BudgetNotFound,
    /// There are as many budgets as there may be.
    #[error("{0}")]
    TooManyBudgets(String),
    /// A budget that is spent refuses further paid embedding.
    #[error("{0}")]
    BudgetExceeded(Box<BudgetRefusal>),
    /// No such schedule.
    #[error("Schedule {0} not found")]
    ScheduleNotFound(ScheduleId),
    /// There are as many schedules as there may be.
    #[error("{0}")]
    TooManySchedules(String),
    /// A library with this id exists already.
    #[error("Library {0} exists already")]
    LibraryExists(LibraryId),
    /// A field breaks a rule; `field` is a JSON Pointer into the request, such as `/texts/3`.
    #[error("{detail}")]
    Invalid {
        /// JSON Pointer of the field.
        field: String,
        /// What is wrong, and the limit.
        detail: String,
    },
    /// A text is blank where one is needed.
    #[error("{detail}")]
    Blank {
        /// JSON Pointer of the field.
        field: String,
        /// What is blank.
        detail: String,
    },
    /// A vector of the wrong dimension, with values that are not finite, or without a direction.
    #[error("{detail}")]
    Vector {
        /// JSON Pointer of the field.
        field: String,
        /// What is wrong.
        detail: String,
    },
    /// The document has no such vector.
    #[error("Vector {0} not found")]
    VectorNotFound(ChunkId),
    /// A vector field holds something else than what is put there or looked for.
    #[error("{detail}")]
    VectorField {
        /// The field's name.
        field: String,
        /// What it holds.
        detail: String,
    },
    /// A document that is to be changed is in several libraries, and which is meant was not said.
    #[error(
        "document {id} is in several libraries, {} and {} among them: say which one, as in \
         /v1/libraries/{}/documents/{id}",
        libraries[0], libraries[1], libraries[0]
    )]
    AmbiguousDocument {
        /// The document.
        id: DocumentId,
        /// Two of those that have it.
        libraries: [LibraryId; 2],
    },
    /// The embedding provider refused or failed.
    #[error(transparent)]
    Embedding(#[from] EmbedError),
    /// The model that ranks passages is not there, refused or failed.
    #[error(transparent)]
    Reranking(#[from] RerankError),
    /// A queue is full; nothing was written.
    #[error("{what} is full; try again in {} s", retry_after.as_secs().max(1))]
    Busy {
        /// Which queue.
        what: &'static str,
        /// When to try again.
        retry_after: Duration,
    },
    /// `min_seq` was not reached in time.
    #[error("sequence {wanted} is not applied yet; the library is at {current}")]
    SeqNotReached {
        /// What was asked for.
        wanted: Seq,
        /// What the library is at.
        current: Seq,
    },
    /// `as_of` is before what is kept of the past.
    #[error(
        "sequence {wanted} is before the history that is kept; the oldest that can be read is {oldest}"
    )]
    HistoryGone {
        /// What was asked for.
        wanted: Seq,
        /// The first number that can be asked for.
        oldest: Seq,
    },
    /// The disk is (nearly) full: writes are refused, reads go on.
    #[error("the disk is full: {detail}")]
    DiskFull {
        /// Where, and how much is free.
        detail: String,
    },
    /// The disk or the machine failed in a way that is none of the above.
    #[error("{detail}")]
    Storage {
        /// What was tried, on what, and what came of it.
        detail: String,
    },
    /// A fault of arrwDB itself ended the work; the server goes on, and its log says where it was.
    #[error("the work ended in a panic")]
    Panicked,
    /// Another process has the data directory open.
    #[error("{detail}")]
    Locked {
        /// Which directory, and who holds it.
        detail: String,
    },
    /// Data on disk is damaged; the text names file and offset.
    #[error("{detail}")]
    Damaged {
        /// File, offset and what to do.
        detail: String,
    },
    /// The log failed and takes no more writes until the server is started again.
    #[error("the log takes no writes: {detail}")]
    LogFailed {
        /// The first failure.
        detail: String,
    },
    /// The engine is shutting down.
    #[error("the server is shutting down")]
    Closed,
}

impl EngineError {
    /// Whether a text may be at fault, so that others may fare better without it. Some servers say of
    /// a text that is too long what others say of every request that they do not like.
    pub fn may_be_of_a_text(&self) -> bool {
        matches!(self, Self::Embedding(error) if error.is_of_a_text() || error.is_doubtful())
    }
}

impl From<Damage> for EngineError {
    fn from(damage: Damage) -> Self {
        Self::Damaged { detail: damage.to_string() }
    }
}

impl From<WorkRejection> for EngineError {
    fn from(rejection: WorkRejection) -> Self {
        let detail = rejection.to_string();
        match rejection {
            WorkRejection::JobNotFound(id) => Self::JobNotFound(id),
            WorkRejection::JobState { .. }
            | WorkRejection::JobExists(_)
            | WorkRejection::ScheduleChanged(_)
            | WorkRejection::Nothing => Self::JobState(detail),
            WorkRejection::JobsFull => {
                Self::Busy { what: "the queue of jobs", retry_after: RETRY_AFTER }
            }
            WorkRejection::ScheduleNotFound(id) => Self::ScheduleNotFound(id),
            WorkRejection::SchedulesFull => Self::TooManySchedules(detail),
            WorkRejection::WebhookNotFound(id) => Self::WebhookNotFound(id),
            WorkRejection::WebhookExists(_) => Self::Invalid { field: "id".to_owned(), detail },
            WorkRejection::WebhooksFull => Self::TooManyWebhooks(detail),
            WorkRejection::BudgetNotFound => Self::BudgetNotFound,
            WorkRejection::BudgetsFull => Self::TooManyBudgets(detail),
        }
    }
}

impl From<LogError> for EngineError {
    fn from(error: LogError) -> Self {
        let detail = error.to_string();
        match error {
            LogError::Full { .. } => Self::Busy { what: "the log", retry_after: RETRY_AFTER },
            LogError::DiskFull { .. } => Self::DiskFull { detail },
            LogError::Closed => Self::Closed,
            LogError::Poisoned { .. } => Self::LogFailed { detail },
            LogError::Damaged { .. } | LogError::Newer { .. } | LogError::Trimmed { .. } => {
                Self::Damaged { detail }
            }
            LogError::Locked { .. } => Self::Locked { detail },
            LogError::TooLarge { .. } => Self::Invalid { field: String::new(), detail },
            LogError::Io { .. } => Self::Storage { detail },
        }
    }
}

/// When to try again what was refused for a full queue: they empty within a few syncs.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);
