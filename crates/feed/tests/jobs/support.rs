//! An engine on a disk in memory, and who does as jobs say.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrwdb_engine::embed::deterministic::DeterministicProvider;
use arrwdb_engine::embed::http::{HttpOptions, http_client};
use arrwdb_engine::embed::{EmbedConfig, EmbedParts, Embedder, LocalSource, TokioTimer};
use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::{
    IndexSpec, Job, JobId, JobKind, JobPriority, JobState, Language, LibraryId, Metric, TenantId,
};
use arrwdb_engine::{
    Clock, Engine, EngineConfig, EngineParts, NewJob, NewLibrary, OsRandom, SystemClock,
};
use arrwdb_feed::{Halt, JobRun, JobsConfig, Perform, Performed, Performing};
use tokio::sync::Notify;

pub(crate) const TENANT: TenantId = TenantId::DEFAULT;

pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

pub(crate) async fn open(disk: &MemoryDisk) -> Engine {
    open_at(disk, Arc::new(SystemClock)).await
}

/// With a clock that shows what it is set to.
pub(crate) async fn open_at(disk: &MemoryDisk, clock: Arc<dyn Clock>) -> Engine {
    let parts = EmbedParts {
        local: LocalSource::Custom(Arc::new(DeterministicProvider)),
        http: http_client(&HttpOptions::default()).unwrap(),
        timer: Arc::new(TokioTimer::new()),
        random: Arc::new(|| 7),
    };
    let embedder = Embedder::open(EmbedConfig::default(), parts).await.unwrap();
    let parts = EngineParts {
        clock,
        random: Arc::new(OsRandom),
        disk: Arc::new(disk.clone()),
        embedder,
        reranker: None,
    };
    let config =
        EngineConfig { disk_free_bytes_min: 0, ..EngineConfig::new(PathBuf::from("/data")) };
    Engine::open(config, parts).await.unwrap()
}

pub(crate) async fn library(engine: &Engine) -> LibraryId {
    let new = NewLibrary {
        name: "of jobs".into(),
        description: None,
        index: IndexSpec::default(),
        metric: Metric::Cosine,
        language: Language::default(),
        embedding_provider: None,
        embedding_model: None,
        embedding_dimension: Some(2),
    };
    engine.create_library(TENANT, new).await.unwrap().value.id
}

pub(crate) fn new_job(engine: &Engine, kind: JobKind, parameters: &str) -> NewJob {
    NewJob {
        id: engine.new_job_id(),
        library: None,
        kind,
        priority: JobPriority::Normal,
        parameters: parameters.into(),
        input: None,
        retries_max: 2,
        run_at: None,
        run_of: None,
    }
}

pub(crate) async fn submit(engine: &Engine, kind: JobKind, parameters: &str) -> JobId {
    engine.submit_job(TENANT, new_job(engine, kind, parameters)).await.unwrap().value
}

pub(crate) fn quick() -> JobsConfig {
    JobsConfig {
        retry_delay: Duration::from_millis(1),
        retry_delay_max: Duration::from_millis(4),
        progress_every: Duration::ZERO,
        ..JobsConfig::default()
    }
}

/// The job, once it is over.
pub(crate) async fn over(engine: &Engine, id: JobId) -> Arc<Job> {
    let mut applied = engine.work_applied();
    loop {
        applied.borrow_and_update();
        let job = engine.job(TENANT, id, None).await.unwrap().0;
        if matches!(job.state, JobState::Finished { .. }) {
            return job;
        }
        applied.changed().await.unwrap();
    }
}

pub(crate) fn said(job: &Job) -> (String, String) {
    let JobState::Finished { end, .. } = &job.state else { panic!("it is over") };
    let text = |text: &Option<Arc<str>>| text.as_deref().unwrap_or_default().to_owned();
    (text(&end.result), text(&end.error))
}

/// Does as the parameters say.
pub(crate) struct Obedient {
    /// How often a job was begun.
    pub(crate) begun: AtomicU64,
    /// Jobs that were said to be over.
    pub(crate) over: AtomicU64,
    /// Told by a job that waits.
    pub(crate) waiting: Notify,
}

impl Obedient {
    pub(crate) fn new() -> Arc<Self> {
        let (begun, over) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { begun, over, waiting: Notify::new() })
    }
}

impl Perform for Obedient {
    fn over(&self, _job: &Job) {
        self.over.fetch_add(1, Ordering::SeqCst);
    }

    fn perform(&self, run: JobRun) -> Performing<'_> {
        Box::pin(async move {
            let time = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            let error = format!("attempt {time}");
            match &*run.job().spec.parameters {
                "panic" => panic!("as it was asked to"),
                "fail" => Performed::Failed { error, result: Some("{}".into()) },
                "again" => Performed::Again { error, result: Some("{\"done\":1}".to_owned()) },
                "later" if time < 6 => {
                    Performed::Later { error, after: Duration::from_millis(1), result: None }
                }
                "wait" => {
                    self.waiting.notify_one();
                    match run.halted().await {
                        Halt::Cancelled => Performed::Cancelled(Some("{\"units\":0}".into())),
                        Halt::Stopping => Performed::Stopped,
                    }
                }
                other => Performed::Completed(format!("{{\"did\":{other:?}}}")),
            }
        })
    }
}
