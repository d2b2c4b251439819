//! Schedules: one job at a time, for the right time, whatever fails in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::{
    Job, JobId, JobKind, JobOutcome, JobPriority, JobState, LibraryId, Schedule, ScheduleId,
    Scheduled, TenantId, Timestamp,
};
use arrwdb_engine::{Clock, Engine, EngineError, JobFilter};
use arrwdb_feed::Jobs;

use crate::support::{Obedient, Random, TENANT, library, new_job, open_at, over, quick, submit};

const MINUTE: i64 = 60_000_000;
/// A full minute.
const BEGIN: i64 = 1_767_225_600_000_000;

/// Shows what it is set to, in minutes since it was made.
#[derive(Debug)]
struct ByHand(AtomicI64);

impl ByHand {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(BEGIN)))
    }

    fn set(&self, n: i64) {
        self.0.store(minute(n).micros(), Ordering::SeqCst);
    }
}

/// So many minutes after the clock was made.
fn minute(n: i64) -> Timestamp {
    Timestamp::from_micros(BEGIN + n * MINUTE)
}

impl Clock for ByHand {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

fn schedule(engine: &Engine, cron: &str, library: Option<LibraryId>) -> Schedule {
    Schedule {
        id: engine.new_schedule_id(),
        tenant: TENANT,
        name: "often".into(),
        cron: cron.into(),
        time_zone: "UTC".into(),
        library,
        kind: JobKind::Purge,
        priority: JobPriority::Normal,
        parameters: "{}".into(),
        retries_max: 1,
        enabled: true,
        note: None,
        created_at: engine.now(),
        updated_at: engine.now(),
    }
}

/// The schedule, once it is as it should be.
async fn seen(engine: &Engine, id: ScheduleId, is: impl Fn(&Scheduled) -> bool) -> Arc<Scheduled> {
    let mut applied = engine.work_applied();
    loop {
        applied.borrow_and_update();
        let scheduled = engine.schedule(TENANT, id, None).await.unwrap().0;
        if is(&scheduled) {
            return scheduled;
        }
        applied.changed().await.unwrap();
    }
}

async fn jobs_of(engine: &Engine, id: ScheduleId) -> Vec<Arc<Job>> {
    let filter = JobFilter { schedule: Some(id), ..JobFilter::default() };
    let mut jobs = engine.jobs(TENANT, filter, 1000, None).await.unwrap().0;
    jobs.reverse();
    jobs
}

fn states(jobs: &[Arc<Job>]) -> Vec<(&'static str, Option<Timestamp>)> {
    jobs.iter().map(|job| (job.state.name(), job.spec.run_at)).collect()
}

/// Has everybody look at the clock: a job that is not of the schedule comes and goes.
async fn look(engine: &Engine) {
    let job = submit(engine, JobKind::IndexOptimize, "{}").await;
    over(engine, job).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_has_one_job_at_a_time_and_one_is_made_up_for() {
    let (disk, clock) = (MemoryDisk::new(), ByHand::new());
    let engine = open_at(&disk, clock.clone()).await;
    let jobs = Jobs::start(engine.clone(), Obedient::new(), quick()).await;
    let wanted = schedule(&engine, "* * * * *", None);
    let id = wanted.id;
    engine.add_schedule(wanted.clone()).await.unwrap();
    seen(&engine, id, |it| it.job.is_some()).await;
    assert_eq!(states(&jobs_of(&engine, id).await), [("pending", Some(minute(1)))]);
    look(&engine).await;
    assert_eq!(jobs_of(&engine, id).await.len(), 1, "its time has not come");
    clock.set(1);
    look(&engine).await;
    let done = seen(&engine, id, |it| it.runs == 1 && it.job.is_some()).await;
    assert_eq!(done.last.unwrap().outcome, JobOutcome::Completed);
    // Nine minutes go by, of which nobody is told.
    clock.set(10);
    look(&engine).await;
    seen(&engine, id, |it| it.runs == 2 && it.job.is_some()).await;
    assert_eq!(
        states(&jobs_of(&engine, id).await),
        [
            ("completed", Some(minute(1))),
            ("completed", Some(minute(2))),
            ("pending", Some(minute(11)))
        ]
    );
    let again = engine.add_schedule(wanted).await;
    assert!(matches!(again, Err(EngineError::JobState(_))), "there is one of this id");
    let elsewhere = engine.delete_schedule(TenantId::new(9), id).await;
    assert!(matches!(elsewhere, Err(EngineError::ScheduleNotFound(_))));
    jobs.close().await;
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_waits_goes_with_what_its_schedule_was() {
    let (disk, clock) = (MemoryDisk::new(), ByHand::new());
    let engine = open_at(&disk, clock.clone()).await;
    let performer = Obedient::new();
    let jobs = Jobs::start(engine.clone(), performer.clone(), quick()).await;
    let wanted = schedule(&engine, "0 * * * *", None);
    let id = wanted.id;
    engine.add_schedule(wanted).await.unwrap();
    let hourly = seen(&engine, id, |it| it.job.is_some()).await.job;
    let sooner = |schedule: &mut Schedule| schedule.cron = "*/5 * * * *".into();
    engine.change_schedule((TENANT, id), sooner).await.unwrap();
    let sooner = seen(&engine, id, |it| it.job.is_some() && it.job != hourly).await;
    assert_eq!(sooner.due, Some(minute(5)));
    assert_eq!((sooner.runs, sooner.last), (0, None), "what was put away was no run");
    // Who cancels a job that waits leaves out that time.
    engine.cancel_job(TENANT, sooner.job.unwrap()).await.unwrap();
    let next = seen(&engine, id, |it| it.job.is_some() && it.job != sooner.job).await;
    assert_eq!(next.due, Some(minute(10)));
    // What is due is done, whatever is changed before it is begun.
    clock.set(10);
    let renamed = |schedule: &mut Schedule| schedule.name = "renamed".into();
    engine.change_schedule((TENANT, id), renamed).await.unwrap();
    look(&engine).await;
    let done = seen(&engine, id, |it| it.runs == 1 && it.job.is_some()).await;
    assert_eq!(Some(done.last.unwrap().job), next.job);
    assert_eq!(done.due, Some(minute(15)));
    let off = |schedule: &mut Schedule| schedule.enabled = false;
    engine.change_schedule((TENANT, id), off).await.unwrap();
    seen(&engine, id, |it| it.job.is_none()).await;
    clock.set(20);
    look(&engine).await;
    let on = |schedule: &mut Schedule| schedule.enabled = true;
    engine.change_schedule((TENANT, id), on).await.unwrap();
    let on = seen(&engine, id, |it| it.job.is_some()).await;
    assert_eq!(on.due, Some(minute(25)));
    engine.delete_schedule(TENANT, id).await.unwrap();
    let last = over(&engine, on.job.unwrap()).await;
    assert_eq!(last.state.name(), "cancelled");
    assert_eq!(jobs_of(&engine, id).await.len(), 5);
    assert_eq!(performer.begun.load(Ordering::SeqCst), 3, "what was due, and the looks");
    jobs.close().await;
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_turned_off_and_on_as_its_time_comes_goes_on() {
    let (disk, clock) = (MemoryDisk::new(), ByHand::new());
    let engine = open_at(&disk, clock.clone()).await;
    let jobs = Jobs::start(engine.clone(), Obedient::new(), quick()).await;
    let wanted = schedule(&engine, "* * * * *", None);
    let id = wanted.id;
    engine.add_schedule(wanted).await.unwrap();
    for round in 0..200 {
        let before = seen(&engine, id, |it| it.job.is_some()).await;
        let off = |schedule: &mut Schedule| schedule.enabled = false;
        let on = |schedule: &mut Schedule| schedule.enabled = true;
        // Its job is taken, turned down, put away or done after all: whichever comes first.
        clock.set(2 * round + 2);
        let (off, ()) = tokio::join!(engine.change_schedule((TENANT, id), off), look(&engine));
        off.unwrap();
        engine.change_schedule((TENANT, id), on).await.unwrap();
        clock.set(2 * round + 3);
        look(&engine).await;
        let after = seen(&engine, id, |it| it.job.is_some() && it.job != before.job).await;
        assert!(after.due > before.due, "{before:?} {after:?}");
    }
    jobs.close().await;
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_without_its_library_is_turned_off_and_says_so() {
    let (disk, clock) = (MemoryDisk::new(), ByHand::new());
    let engine = open_at(&disk, clock.clone()).await;
    let jobs = Jobs::start(engine.clone(), Obedient::new(), quick()).await;
    let library = library(&engine).await;
    let wanted = schedule(&engine, "* * * * *", Some(library));
    let id = wanted.id;
    let nowhere = Some(LibraryId::from_bytes([9; 16]));
    let refused = engine.add_schedule(Schedule { library: nowhere, ..wanted.clone() }).await;
    assert!(matches!(refused, Err(EngineError::LibraryNotFound(_))));
    engine.add_schedule(wanted).await.unwrap();
    seen(&engine, id, |it| it.job.is_some()).await;
    engine.delete_library(TENANT, library).await.unwrap();
    // No time passes: what waits is put away.
    let off = seen(&engine, id, |it| !it.schedule.enabled && it.job.is_none()).await;
    assert!(off.schedule.note.as_deref().unwrap().contains("deleted"), "{off:?}");
    assert_eq!((off.last, off.runs), (None, 0));
    assert_eq!(states(&jobs_of(&engine, id).await), [("cancelled", Some(minute(1)))]);
    let on = |schedule: &mut Schedule| schedule.enabled = true;
    let refused = engine.change_schedule((TENANT, id), on).await;
    assert!(matches!(refused, Err(EngineError::LibraryNotFound(_))));
    jobs.close().await;
    engine.close().await.unwrap();
}

/// A job that waits for its time, which does not come.
async fn submit_for_later(engine: &Engine, library: Option<LibraryId>) -> JobId {
    let mut new = new_job(engine, JobKind::IndexOptimize, "{}");
    (new.library, new.run_at) = (library, Some(minute(1_000_000)));
    engine.submit_job(TENANT, new).await.unwrap().value
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_library_is_deleted_does_not_wait_for_its_time() {
    let (disk, clock) = (MemoryDisk::new(), ByHand::new());
    let engine = open_at(&disk, clock.clone()).await;
    let jobs = Jobs::start(engine.clone(), Obedient::new(), quick()).await;
    let (first, second) = (library(&engine).await, library(&engine).await);
    let others =
        [submit_for_later(&engine, None).await, submit_for_later(&engine, Some(second)).await];
    let of_first = submit_for_later(&engine, Some(first)).await;
    look(&engine).await;
    engine.delete_library(TENANT, first).await.unwrap();
    over(&engine, of_first).await;
    look(&engine).await;
    for other in others {
        assert_eq!(engine.job(TENANT, other, None).await.unwrap().0.state.name(), "pending");
    }
    // Deleted while nobody works, as a stop just after it is.
    let wanted = schedule(&engine, "0 0 1 1 *", Some(second));
    let id = wanted.id;
    engine.add_schedule(wanted).await.unwrap();
    seen(&engine, id, |it| it.job.is_some()).await;
    jobs.close().await;
    engine.delete_library(TENANT, second).await.unwrap();
    engine.close().await.unwrap();
    let engine = open_at(&disk, clock).await;
    let jobs = Jobs::start(engine.clone(), Obedient::new(), quick()).await;
    over(&engine, others[1]).await;
    seen(&engine, id, |it| !it.schedule.enabled && it.job.is_none()).await;
    let kept = engine.job(TENANT, others[0], None).await.unwrap().0;
    assert_eq!(kept.state.name(), "pending", "it is about no library");
    jobs.close().await;
    engine.close().await.unwrap();
}

/// The times of jobs that were worked on, and how often.
fn worked(jobs: &[Arc<Job>]) -> BTreeMap<Timestamp, usize> {
    let mut times = BTreeMap::new();
    for job in jobs {
        let JobState::Finished { end, .. } = &job.state else { continue };
        if end.outcome == JobOutcome::Completed {
            *times.entry(job.spec.run_at.unwrap()).or_default() += 1;
        }
    }
    times
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_a_schedule_goes_on_and_no_time_comes_twice() {
    for seed in 1..=20 {
        let mut random = Random(seed * 104_729);
        let (mut disk, clock) = (MemoryDisk::new(), ByHand::new());
        let mut engine = open_at(&disk, clock.clone()).await;
        let mut jobs = Jobs::start(engine.clone(), Obedient::new(), quick()).await;
        let wanted = schedule(&engine, "*/2 * * * *", None);
        let id = wanted.id;
        engine.add_schedule(wanted).await.unwrap();
        let mut passed = 0;
        for _round in 0..6 {
            for _step in 0..random.below(3) {
                passed += 1 + i64::try_from(random.below(4)).unwrap();
                clock.set(passed);
                look(&engine).await;
            }
            if random.below(4) == 0 {
                // Changed to what it is: what waits is put away, and what comes is the same.
                engine.change_schedule((TENANT, id), |_schedule| {}).await.unwrap();
            }
            // The power fails: of what was not synced, some is on the disk and some is not.
            let crashed = disk.crash(|| random.below(2) == 1);
            jobs.close().await;
            drop(engine.close().await);
            disk = crashed;
            engine = open_at(&disk, clock.clone()).await;
            jobs = Jobs::start(engine.clone(), Obedient::new(), quick()).await;
            seen(&engine, id, |it| it.job.is_some()).await;
        }
        passed += 2;
        clock.set(passed);
        look(&engine).await;
        let last = Some(minute(passed / 2 * 2 + 2));
        let due = |it: &Scheduled| it.job.is_some() && it.due == last;
        let scheduled = seen(&engine, id, due).await;
        let all = jobs_of(&engine, id).await;
        let times = worked(&all);
        assert!(times.values().all(|times| *times == 1), "seed {seed}: {times:?}");
        assert_eq!(scheduled.runs, times.len() as u64, "seed {seed}");
        assert!(!times.is_empty());
        let waiting = all.iter().filter(|job| matches!(job.state, JobState::Pending { .. }));
        assert_eq!(waiting.count(), 1, "seed {seed}: {:?}", states(&all));
        jobs.close().await;
        engine.close().await.unwrap();
    }
}
