//! What events say of jobs.

use arrwdb_engine::state::{
    JobChange, JobEnd, JobHead, JobPriority, JobProgress, JobSpec, Timestamp, WorkEntry,
};

use crate::event::Value;
use crate::event_type::EventType;

/// What became of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobData {
    /// Which job.
    pub head: JobHead,
    /// When.
    pub at: Timestamp,
    /// What.
    pub change: JobEvent,
}

/// What may become of a job.
#[derive(Debug, Clone, PartialEq)]
pub enum JobEvent {
    /// It was submitted.
    Submitted {
        /// How soon it is taken.
        priority: JobPriority,
        /// It is not taken before.
        run_at: Option<Timestamp>,
    },
    /// Something became of it after that.
    Changed(JobChange),
}

impl JobData {
    /// What an entry says of a job; `None` if it is about none.
    pub(crate) fn of(entry: &WorkEntry) -> Option<Self> {
        match entry {
            WorkEntry::JobSubmitted(JobSpec { head, priority, run_at, submitted_at, .. }) => {
                let change = JobEvent::Submitted { priority: *priority, run_at: *run_at };
                Some(Self { head: *head, at: *submitted_at, change })
            }
            WorkEntry::JobChanged { at, head, change } => {
                Some(Self { head: *head, at: *at, change: JobEvent::Changed(change.clone()) })
            }
            WorkEntry::JobsForgotten { .. }
            | WorkEntry::WebhookPut(_)
            | WorkEntry::WebhookDeleted { .. }
            | WorkEntry::UsageRecorded { .. }
            | WorkEntry::BudgetSet { .. }
            | WorkEntry::BudgetDeleted { .. }
            | WorkEntry::BudgetCrossed(_)
            | WorkEntry::SchedulePut(_)
            | WorkEntry::ScheduleDeleted { .. } => None,
        }
    }

    pub(crate) fn event_type(&self) -> EventType {
        use arrwdb_engine::state::JobOutcome::{Cancelled, Completed, Failed};
        match &self.change {
            JobEvent::Submitted { .. } => EventType::JobSubmitted,
            JobEvent::Changed(change) => match change {
                JobChange::Started => EventType::JobStarted,
                JobChange::Progressed(_) => EventType::JobProgress,
                JobChange::Retried { .. } => EventType::JobRetrying,
                JobChange::CancelRequested => EventType::JobCancelling,
                JobChange::Finished(end) => match end.outcome {
                    Completed => EventType::JobCompleted,
                    Failed => EventType::JobFailed,
                    Cancelled => EventType::JobCancelled,
                },
            },
        }
    }

    pub(crate) fn text_bytes(&self) -> usize {
        let texts = match &self.change {
            JobEvent::Changed(JobChange::Finished(end)) => {
                [end.result.as_deref(), end.error.as_deref()]
            }
            JobEvent::Changed(JobChange::Retried { error, .. }) => [Some(&**error), None],
            JobEvent::Changed(_) | JobEvent::Submitted { .. } => [None, None],
        };
        size_of::<Self>() + texts.into_iter().flatten().map(str::len).sum::<usize>()
    }

    fn status(&self) -> &'static str {
        match &self.change {
            JobEvent::Submitted { .. } | JobEvent::Changed(JobChange::Retried { .. }) => "pending",
            JobEvent::Changed(JobChange::Finished(end)) => end.outcome.name(),
            JobEvent::Changed(
                JobChange::Started | JobChange::Progressed(_) | JobChange::CancelRequested,
            ) => "running",
        }
    }

    pub(crate) fn visit(&self, see: &mut dyn FnMut(&'static str, Value<'_>)) {
        see("job_id", Value::Id(&self.head.id));
        see("job_type", Value::Text(self.head.kind.name()));
        see("status", Value::Text(self.status()));
        match &self.change {
            JobEvent::Submitted { priority, run_at } => {
                see("priority", Value::Text(priority.name()));
                see("run_at", run_at.map_or(Value::Null, Value::Time));
            }
            JobEvent::Changed(JobChange::Started | JobChange::CancelRequested) => {}
            JobEvent::Changed(JobChange::Progressed(progress)) => visit_progress(*progress, see),
            JobEvent::Changed(JobChange::Retried { not_before, error, counted: _ }) => {
                see("error", Value::Text(error));
                see("next_attempt_at", Value::Time(*not_before));
            }
            JobEvent::Changed(JobChange::Finished(end)) => self.visit_end(end, see),
        }
    }

    fn visit_end(&self, end: &JobEnd, see: &mut dyn FnMut(&'static str, Value<'_>)) {
        see("result", end.result.as_deref().map_or(Value::Null, Value::Json));
        see("error", Value::text(end.error.as_deref()));
        visit_progress(end.progress, see);
        let took = end.started_at.map(|started| self.at.micros().saturating_sub(started.micros()));
        // Days of microseconds are whole in a double.
        #[expect(clippy::cast_precision_loss, reason = "a duration is shown in seconds")]
        let took = took.map_or(Value::Null, |micros| Value::Real(micros as f64 / 1e6));
        see("duration_seconds", took);
    }
}

fn visit_progress(progress: JobProgress, see: &mut dyn FnMut(&'static str, Value<'_>)) {
    see("current", Value::Number(progress.current));
    see("total", Value::number(progress.total));
    see("failed_units", Value::Number(progress.failed));
    see("chunks", Value::Number(progress.chunks));
}
