//! Jobs end, whatever fails, and what their units do is done once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::{
    Custom, DocumentId, Job, JobId, JobKind, JobState, Seq, TenantId, Timestamp,
};
use arrwdb_engine::{Content, EngineError, JobFilter, NewJob, PutChunk, PutDocument};
use arrwdb_feed::{
    DoneUnits, EventTypes, Feed, FeedConfig, Filter, JobRun, Jobs, JobsConfig, Perform, Performed,
    Performing, Position,
};

use crate::support::{Obedient, Random, TENANT, library, new_job, open, over, quick, said, submit};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_end_as_they_went_and_everybody_is_told() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let feed = Feed::start(engine.clone(), FeedConfig::default()).await.unwrap();
    let obedient = Obedient::new();
    let jobs = Jobs::start(engine.clone(), obedient.clone(), quick()).await;
    let done = submit(&engine, JobKind::Purge, "something").await;
    assert_eq!(said(&*over(&engine, done).await).0, "{\"did\":\"something\"}");
    let failed = over(&engine, submit(&engine, JobKind::Purge, "fail").await).await;
    assert_eq!((failed.state.name(), failed.retries), ("failed", 0));
    let panicked = over(&engine, submit(&engine, JobKind::Purge, "panic").await).await;
    assert_eq!(panicked.state.name(), "failed");
    assert!(said(&panicked).1.contains("the server failed at it"));
    obedient.begun.store(0, Ordering::SeqCst);
    let again = over(&engine, submit(&engine, JobKind::Purge, "again").await).await;
    assert_eq!((again.state.name(), again.retries), ("failed", 2));
    assert_eq!(said(&again).1, "attempt 3 (tried 3 times)");
    obedient.begun.store(0, Ordering::SeqCst);
    let later = over(&engine, submit(&engine, JobKind::Purge, "later").await).await;
    assert_eq!((later.state.name(), later.retries), ("completed", 0), "waiting does not count");
    assert_eq!(obedient.begun.load(Ordering::SeqCst), 6);

    let types = EventTypes::parse("job.*").unwrap();
    let filter = Filter { types, ..Filter::of(TENANT) };
    let mut events = feed.subscribe(filter, Some(Position::START)).unwrap();
    let mut told = Vec::new();
    while told.len() < 29 {
        let mut delivery = events.next().await.unwrap();
        while let Some(event) = delivery.next() {
            told.push(event.event_type().name());
        }
    }
    let of = |name: &str| told.iter().filter(|it| **it == name).count();
    assert_eq!(of("job.submitted"), 5, "{told:?}");
    assert_eq!(of("job.started"), 1 + 1 + 1 + 3 + 6);
    assert_eq!(of("job.retrying"), 2 + 5);
    assert_eq!((of("job.completed"), of("job.failed")), (2, 3));
    jobs.close().await;
    assert_eq!(obedient.over.load(Ordering::SeqCst), 5);
    feed.close().await;
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_cancelled_before_it_begins_and_while_it_is_worked_on() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let obedient = Obedient::new();
    let config = JobsConfig { workers: 1, ..quick() };
    let jobs = Jobs::start(engine.clone(), obedient.clone(), config).await;
    let running = submit(&engine, JobKind::Purge, "wait").await;
    obedient.waiting.notified().await;
    let pending = submit(&engine, JobKind::Purge, "something").await;
    engine.cancel_job(TENANT, pending).await.unwrap();
    assert_eq!(over(&engine, pending).await.state.name(), "cancelled");
    let refused = engine.cancel_job(TENANT, pending).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("Job {pending} cannot be cancelled (status: cancelled)")
    );
    let elsewhere = engine.cancel_job(TenantId::new(9), running).await.unwrap_err();
    assert!(matches!(elsewhere, EngineError::JobNotFound(id) if id == running));
    engine.cancel_job(TENANT, running).await.unwrap();
    let cancelled = over(&engine, running).await;
    assert_eq!(cancelled.state.name(), "cancelled");
    assert_eq!(said(&cancelled).0, "{\"units\":0}");
    // The worker is free again, and never took the one that was cancelled before.
    let next = submit(&engine, JobKind::Purge, "next").await;
    assert_eq!(over(&engine, next).await.state.name(), "completed");
    assert_eq!(obedient.begun.load(Ordering::SeqCst), 2);
    jobs.close().await;
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_waits_for_its_time_and_jobs_are_found_by_what_they_are() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let obedient = Obedient::new();
    let jobs = Jobs::start(engine.clone(), obedient.clone(), quick()).await;
    let micros = engine.now().micros() + 3_600_000_000;
    let run_at = Some(Timestamp::from_micros(micros));
    let new = NewJob { run_at, ..new_job(&engine, JobKind::IndexOptimize, "{}") };
    let later = engine.submit_job(TENANT, new).await.unwrap().value;
    let soon = Some(Timestamp::from_micros(engine.now().micros() + 1000));
    let new = NewJob { run_at: soon, ..new_job(&engine, JobKind::Purge, "{}") };
    let soon = engine.submit_job(TENANT, new).await.unwrap().value;
    assert_eq!(over(&engine, soon).await.state.name(), "completed");
    let all = engine.jobs(TENANT, JobFilter::default(), 10, None).await.unwrap().0;
    let ids: Vec<JobId> = all.iter().map(|job| job.spec.head.id).collect();
    assert_eq!(ids, [soon, later], "the newest first");
    let filter = JobFilter { status: Some("pending"), ..JobFilter::default() };
    let pending = engine.jobs(TENANT, filter, 10, None).await.unwrap().0;
    assert_eq!(pending.len(), 1);
    let filter = JobFilter { kind: Some(JobKind::Purge), ..JobFilter::default() };
    assert_eq!(engine.jobs(TENANT, filter, 10, None).await.unwrap().0.len(), 1);
    let filter = JobFilter { before: Some(soon), ..JobFilter::default() };
    assert_eq!(engine.jobs(TENANT, filter, 10, None).await.unwrap().0.len(), 1);
    assert!(
        engine.jobs(TenantId::new(9), JobFilter::default(), 9, None).await.unwrap().0.is_empty()
    );
    assert_eq!(jobs.stats().queued, 1);
    jobs.close().await;
    engine.close().await.unwrap();
}

/// Writes a document for each of so many units, and knows what it did before.
struct Writes {
    units: u64,
    /// Documents that were written where the log said that they were.
    twice: AtomicU64,
}

fn document(id: DocumentId) -> PutDocument {
    let chunk =
        PutChunk { text: "a".into(), embedding: Some(vec![1.0, 2.0]), ..PutChunk::default() };
    PutDocument {
        id: Some(id),
        title: "a title".into(),
        author: None,
        document_type: None,
        source_url: None,
        tags: Vec::new(),
        custom: Custom::new(),
        created_at: None,
        content: Content::Chunks(vec![chunk]),
        vectors: Vec::new(),
    }
}

fn id_of(job: JobId, unit: u64) -> DocumentId {
    let mut bytes = job.to_bytes();
    bytes[14] ^= u8::try_from(unit).unwrap();
    DocumentId::from_bytes(bytes)
}

impl Writes {
    async fn write(&self, run: &JobRun) -> Result<Performed, EngineError> {
        let library = run.head().library.unwrap();
        let done = if run.is_resumed() {
            run.done_units()
                .await
                .map_err(|error| EngineError::Storage { detail: error.to_string() })?
        } else {
            DoneUnits::default()
        };
        assert!(!done.is_cut());
        let mut progress = run.progress();
        for unit in progress.current..self.units {
            match run.check() {
                Ok(()) => {}
                Err(halt) => return Ok(halt.into()),
            }
            let id = id_of(run.head().id, unit);
            if done.chunks(unit, id).is_none() {
                let place = (TENANT, library);
                let put = run.engine().put_documents_of_job(
                    place,
                    run.unit(unit),
                    vec![document(id)],
                    std::future::ready(()),
                );
                let written = put.await?;
                progress.through = written.seq;
                let replaced = written.value[0].as_ref().is_ok_and(|receipt| receipt.replaced);
                self.twice.fetch_add(u64::from(replaced), Ordering::SeqCst);
            }
            progress.current += 1;
            run.advance(progress).await;
        }
        Ok(Performed::Completed("{}".into()))
    }
}

impl Perform for Writes {
    fn over(&self, _job: &Job) {}

    fn perform(&self, run: JobRun) -> Performing<'_> {
        Box::pin(async move {
            self.write(&run).await.unwrap_or_else(|error| {
                if matches!(error, EngineError::Closed | EngineError::LogFailed { .. }) {
                    return Performed::Stopped;
                }
                Performed::Failed { error: error.to_string(), result: None }
            })
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_every_job_ends_and_no_unit_is_done_twice() {
    const UNITS: u64 = 12;
    for seed in 1..=12 {
        let mut random = Random(seed * 7919);
        let mut disk = MemoryDisk::new();
        let mut engine = open(&disk).await;
        let library = library(&engine).await;
        let mut submitted = Vec::new();
        let twice = AtomicU64::new(0);
        for round in 0..4 {
            let writes = Arc::new(Writes { units: UNITS, twice: AtomicU64::new(0) });
            let config = JobsConfig { workers: 3, ..quick() };
            let jobs = Jobs::start(engine.clone(), writes.clone(), config).await;
            for _job in 0..4 {
                let new = new_job(&engine, JobKind::BatchImport, "{}");
                let new = NewJob { library: Some(library), ..new };
                submitted.push(engine.submit_job(TENANT, new).await.unwrap().value);
            }
            // Somewhere on the way: after so many more records.
            let target = engine.durable().get() + random.below(40);
            let mut applied = engine.work_applied();
            while engine.durable().get() < target && jobs.stats().counts.total() > 0 {
                let counts = engine.job_counts();
                if counts.pending + counts.running == 0 || applied.changed().await.is_err() {
                    break;
                }
            }
            if random.below(3) == 0 {
                jobs.close().await;
                engine.close().await.unwrap();
            } else {
                // The power fails: of what was not synced, some is on the disk and some is not.
                let crashed = disk.crash(|| random.below(2) == 1);
                jobs.close().await;
                drop(engine.close().await);
                disk = crashed;
            }
            twice.fetch_add(writes.twice.load(Ordering::SeqCst), Ordering::SeqCst);
            engine = open(&disk).await;
            assert_eq!(engine.job_counts().total(), submitted.len() as u64, "seed {seed}, {round}");
        }
        let writes = Arc::new(Writes { units: UNITS, twice: AtomicU64::new(0) });
        let jobs = Jobs::start(engine.clone(), writes.clone(), quick()).await;
        for id in &submitted {
            let job = over(&engine, *id).await;
            assert_eq!(
                (job.state.name(), job.progress.current),
                ("completed", UNITS),
                "seed {seed}"
            );
        }
        let snapshot = engine.library(TENANT, library, None).await.unwrap();
        assert_eq!(snapshot.stats().documents, submitted.len() as u64 * UNITS, "seed {seed}");
        let twice = twice.into_inner() + writes.twice.load(Ordering::SeqCst);
        assert_eq!(twice, 0, "seed {seed}: a unit that is in the log is not done again");
        jobs.close().await;
        engine.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_job_goes_on_after_the_next_start_without_being_begun_anew() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let obedient = Obedient::new();
    let jobs = Jobs::start(engine.clone(), obedient.clone(), quick()).await;
    let id = submit(&engine, JobKind::Purge, "wait").await;
    obedient.waiting.notified().await;
    jobs.close().await;
    engine.close().await.unwrap();
    let engine = open(&disk).await;
    let before = engine.job(TENANT, id, None).await.unwrap().0;
    assert_eq!(before.state, JobState::Running { cancelling: false });
    // Nobody works on it, and it can be cancelled all the same.
    engine.cancel_job(TENANT, id).await.unwrap();
    assert_eq!(engine.unfinished_jobs(Seq::START).len(), 1);
    let obedient = Obedient::new();
    let jobs = Jobs::start(engine.clone(), obedient.clone(), quick()).await;
    let after = over(&engine, id).await;
    assert_eq!(after.state.name(), "cancelled");
    assert_eq!(after.started_at, before.started_at);
    jobs.close().await;
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_cancelled_as_it_is_taken_does_nothing() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let obedient = Obedient::new();
    let jobs = Jobs::start(engine.clone(), obedient.clone(), quick()).await;
    for _job in 0..200 {
        let begun = obedient.begun.load(Ordering::SeqCst);
        let id = submit(&engine, JobKind::Purge, "something").await;
        let cancelled = engine.cancel_job(TENANT, id).await;
        let job = over(&engine, id).await;
        // Whichever was first: who is told that it was cancelled before it began can rely on that.
        let never_begun = job.started_at.is_none();
        assert!(cancelled.is_ok() || job.state.name() == "completed");
        if never_begun {
            assert_eq!(job.state.name(), "cancelled");
            assert_eq!(obedient.begun.load(Ordering::SeqCst), begun);
        }
    }
    jobs.close().await;
    engine.close().await.unwrap();
}
