//! Jobs and webhooks, as those see them who submit, watch and work on them.

use std::sync::Arc;

use arrwdb_state::limits::JOB_RESULT_BYTES_MAX;
use arrwdb_state::{
    DocumentId, Job, JobChange, JobCounts, JobHead, JobId, JobInput, JobKind, JobPriority, JobSpec,
    JobUnit, LibraryId, ScheduleId, Seq, TenantId, Timestamp, Webhook, WebhookId, WorkCommand,
};
use tokio::sync::watch;

use crate::apart::Blame;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::put::Outcomes;
use crate::request::{PutDocument, Written};
use crate::schedules::check_parameters;
use crate::system::new_uuid;

/// A job to submit.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its id, from [`Engine::new_job_id`].
    pub id: JobId,
    /// The library that it is about, if it is about one.
    pub library: Option<LibraryId>,
    /// What it does.
    pub kind: JobKind,
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
    /// The schedule of which it is a run that somebody asks for: one at no time of its own.
    pub run_of: Option<ScheduleId>,
}

/// Which jobs are asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct JobFilter {
    /// Of this status: `pending`, `running`, `completed`, `failed` or `cancelled`.
    pub status: Option<&'static str>,
    /// Of this kind.
    pub kind: Option<JobKind>,
    /// About this library.
    pub library: Option<LibraryId>,
    /// Of this schedule.
    pub schedule: Option<ScheduleId>,
    /// Older than this one.
    pub before: Option<JobId>,
}

impl Engine {
    /// A new job's id, for who has to know it before the job is submitted. Ids ascend.
    pub fn new_job_id(&self) -> JobId {
        let parts = &self.0.parts;
        let id = JobId::new(new_uuid(parts.clock.now(), &*parts.random));
        self.0.work.ascending(id)
    }

    /// Submits a job; durable when this returns, and then done sooner or later, whatever happens.
    pub async fn submit_job(
        &self,
        tenant: TenantId,
        new: NewJob,
    ) -> Result<Written<JobId>, EngineError> {
        let inner = &self.0;
        if let Some(library) = new.library {
            inner.spec(tenant, library, None).await?;
        }
        check_parameters(&new.parameters)?;
        let NewJob { id, library, kind, priority, parameters, input, retries_max, run_at, run_of } =
            new;
        let spec = JobSpec {
            head: JobHead { id, tenant, library, kind },
            priority,
            parameters,
            input,
            retries_max,
            run_at,
            submitted_at: inner.parts.clock.now(),
            schedule: run_of.filter(|_schedule| run_at.is_none()),
        };
        let written = inner.change_work(WorkCommand::Submit(spec)).await?;
        if self.was_deleted(tenant, library) {
            // Who looks for what waits for it may have looked before this was there.
            inner.work.libraries_deleted.send_replace(());
        }
        Ok(Written { seq: written.seq, value: id })
    }

    /// A job of this tenant, and the number that this is true at.
    pub async fn job(
        &self,
        tenant: TenantId,
        id: JobId,
        min_seq: Option<Seq>,
    ) -> Result<(Arc<Job>, Seq), EngineError> {
        let inner = &self.0;
        inner.wait_for_work(min_seq).await?;
        let seq = self.work_seq();
        let found = inner.work.look(|work| work.job(tenant, id).cloned());
        Ok((found.ok_or(EngineError::JobNotFound(id))?, seq))
    }

    /// At most `limit` jobs of this tenant, the newest first, and the number that this is true at.
    /// O(jobs).
    pub async fn jobs(
        &self,
        tenant: TenantId,
        filter: JobFilter,
        limit: usize,
        min_seq: Option<Seq>,
    ) -> Result<(Vec<Arc<Job>>, Seq), EngineError> {
        let inner = &self.0;
        inner.wait_for_work(min_seq).await?;
        let seq = self.work_seq();
        let wanted = |job: &&Arc<Job>| {
            let head = &job.spec.head;
            head.tenant == tenant
                && filter.status.is_none_or(|status| job.state.name() == status)
                && filter.kind.is_none_or(|kind| head.kind == kind)
                && filter.library.is_none_or(|library| head.library == Some(library))
                && filter.schedule.is_none_or(|id| job.spec.schedule == Some(id))
                && filter.before.is_none_or(|before| head.id < before)
        };
        let found =
            inner.work.look(|work| work.jobs().filter(wanted).take(limit).cloned().collect());
        Ok((found, seq))
    }

    /// Cancels a job: at once, if it waits; at its next unit, if it is worked on.
    pub async fn cancel_job(
        &self,
        tenant: TenantId,
        id: JobId,
    ) -> Result<Written<()>, EngineError> {
        self.0.work.change(WorkCommand::Cancel(tenant, id)).await
    }

    /// Said by who works on a job: what became of it. What is said of one job is written in the
    /// order of these calls, whether or not the answers are waited for; they come when it is
    /// durable.
    pub fn change_job(
        &self,
        id: JobId,
        change: JobChange,
    ) -> impl Future<Output = Result<Written<()>, EngineError>> + Send + use<> {
        let result = match &change {
            JobChange::Finished(end) => end.result.as_deref().unwrap_or_default(),
            JobChange::Started
            | JobChange::Progressed(_)
            | JobChange::Retried { .. }
            | JobChange::CancelRequested => "",
        };
        let too_large = result.len() > JOB_RESULT_BYTES_MAX;
        // A job has to end where the disk is nearly full, too: that takes next to nothing.
        let answer = if too_large {
            let detail = format!("the result takes more than {JOB_RESULT_BYTES_MAX} bytes");
            Err(EngineError::Invalid { field: String::new(), detail })
        } else {
            self.0.work.ask(WorkCommand::Change(id, change))
        };
        async move { answer?.await.map_err(|_writer_gone| EngineError::Closed)? }
    }

    /// A job of any tenant.
    pub fn job_of_any(&self, id: JobId) -> Option<Arc<Job>> {
        self.0.work.look(|work| work.job_of_any(id).cloned())
    }

    /// Refuses while the disk is nearly full, as writes do; looks at it first, if asked to.
    ///
    /// # Errors
    /// [`EngineError::DiskFull`]
    pub fn check_disk(&self, look: bool) -> Result<(), EngineError> {
        if look {
            self.0.look_at_disk();
        }
        self.0.check_disk()
    }

    /// Now, by the engine's clock.
    pub fn now(&self) -> Timestamp {
        self.0.parts.clock.now()
    }

    /// As [`Engine::put_documents_in_turn`], for a unit of a job, which is noted with what it
    /// writes. Documents must have ids.
    pub async fn put_documents_of_job(
        &self,
        (tenant, library): (TenantId, LibraryId),
        unit: JobUnit,
        documents: Vec<PutDocument>,
        turn: impl Future<Output = ()> + Send,
    ) -> Result<Written<Outcomes>, EngineError> {
        self.0.put((tenant, library), documents, (Some(unit), Blame::Each), turn).await
    }

    /// As [`Engine::delete_documents`], for a unit of a job, which is noted with what it deletes.
    pub async fn delete_documents_of_job(
        &self,
        (tenant, library): (TenantId, LibraryId),
        unit: JobUnit,
        ids: Vec<DocumentId>,
    ) -> Result<Written<Vec<Option<u32>>>, EngineError> {
        self.0.delete((tenant, library), ids, Some(unit)).await
    }

    /// Jobs of all tenants that are not over and changed after `after`, those that changed longest
    /// ago first.
    pub fn unfinished_jobs(&self, after: Seq) -> Vec<Arc<Job>> {
        self.0.work.look(|work| work.unfinished_since(after).cloned().collect())
    }

    /// How many jobs of all tenants wait after they could not be done, and the first `limit` of them.
    pub fn put_off_jobs(&self, limit: usize) -> (usize, Vec<Arc<Job>>) {
        self.0.work.look(|work| {
            let put_off = work.put_off();
            (put_off.len(), put_off.take(limit).cloned().collect())
        })
    }

    /// How many jobs of all tenants there are.
    pub fn job_counts(&self) -> JobCounts {
        self.0.work.look(arrwdb_state::Work::counts)
    }

    /// The last record of jobs and webhooks that is published, as it changes.
    pub fn work_applied(&self) -> watch::Receiver<Seq> {
        self.0.work.applied()
    }

    /// Makes a webhook, of an id from [`Engine::new_webhook_id`].
    pub async fn add_webhook(&self, webhook: Webhook) -> Result<Written<()>, EngineError> {
        self.0.change_work(WorkCommand::AddWebhook(webhook)).await
    }

    /// Changes a webhook that there is.
    pub async fn change_webhook(&self, webhook: Webhook) -> Result<Written<()>, EngineError> {
        self.0.change_work(WorkCommand::ChangeWebhook(webhook)).await
    }

    /// Removes a webhook.
    pub async fn delete_webhook(
        &self,
        tenant: TenantId,
        id: WebhookId,
    ) -> Result<Written<()>, EngineError> {
        self.0.work.change(WorkCommand::DeleteWebhook(tenant, id)).await
    }

    /// A new webhook's id. Ids ascend with time.
    pub fn new_webhook_id(&self) -> WebhookId {
        let parts = &self.0.parts;
        WebhookId::new(new_uuid(parts.clock.now(), &*parts.random))
    }

    /// All webhooks of all tenants, the oldest first, and the number that this is true at.
    pub async fn webhooks(
        &self,
        min_seq: Option<Seq>,
    ) -> Result<(Vec<Arc<Webhook>>, Seq), EngineError> {
        self.0.wait_for_work(min_seq).await?;
        let seq = self.work_seq();
        Ok((self.0.work.look(|work| work.webhooks().cloned().collect()), seq))
    }

    /// All webhooks, as they are at this moment.
    pub fn webhooks_now(&self) -> Vec<Arc<Webhook>> {
        self.0.work.look(|work| work.webhooks().cloned().collect())
    }

    /// A webhook of a tenant, and the number that this is true at.
    pub async fn webhook(
        &self,
        (tenant, id): (TenantId, WebhookId),
        min_seq: Option<Seq>,
    ) -> Result<(Arc<Webhook>, Seq), EngineError> {
        self.0.wait_for_work(min_seq).await?;
        let seq = self.work_seq();
        let found = self.0.work.look(|work| work.webhook(id).cloned());
        let found = found.filter(|webhook| webhook.tenant == tenant);
        Ok((found.ok_or(EngineError::WebhookNotFound(id))?, seq))
    }

    /// What is published of jobs and webhooks is true up to here. Asked before it is looked at.
    pub(crate) fn work_seq(&self) -> Seq {
        let inner = &self.0;
        Seq::new(inner.log.durable().min(inner.work.unapplied.published_to()))
    }
}
