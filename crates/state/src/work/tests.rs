//! The stream of work is a fold, its snapshots are it, and a job goes only where it may.

use proptest::prelude::*;

use super::*;
use crate::ids::LibraryId;
use crate::limits::JOBS_UNFINISHED_BYTES_MAX;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn spec(n: u8) -> JobSpec {
    let head = JobHead {
        id: JobId::from_bytes([n; 16]),
        tenant: TenantId::new(u64::from(n % 2)),
        library: (!n.is_multiple_of(3)).then(|| LibraryId::from_bytes([7; 16])),
        kind: JobKind::ALL[usize::from(n) % JobKind::ALL.len()],
    };
    JobSpec {
        head,
        priority: JobPriority::ALL[usize::from(n) % 3],
        parameters: format!("{{\"n\":{n}}}").into(),
        input: n.is_multiple_of(2).then_some(JobInput { bytes: 10, crc: 3, units: u64::from(n) }),
        retries_max: 3,
        run_at: n.is_multiple_of(4).then(|| at(i64::from(n) * 1000)),
        submitted_at: at(i64::from(n)),
        schedule: None,
    }
}

fn schedule(n: u8) -> Schedule {
    Schedule {
        id: ScheduleId::from_bytes([n; 16]),
        tenant: TenantId::new(u64::from(n % 2)),
        name: format!("every night {n}"),
        cron: "0 3 * * *".into(),
        time_zone: "Europe/Berlin".into(),
        library: (!n.is_multiple_of(3)).then(|| LibraryId::from_bytes([7; 16])),
        kind: JobKind::ALL[usize::from(n) % JobKind::ALL.len()],
        priority: JobPriority::ALL[usize::from(n) % 3],
        parameters: "{}".into(),
        retries_max: 3,
        enabled: !n.is_multiple_of(3),
        note: n.is_multiple_of(3).then(|| "the library is gone".into()),
        created_at: at(1),
        updated_at: at(i64::from(n)),
    }
}

/// The job `n`, of schedule `n % 4`.
fn scheduled(n: u8, changed: u64) -> WorkCommand {
    let spec = JobSpec { run_at: Some(at(i64::from(n) * 100)), ..spec(n) };
    WorkCommand::SubmitScheduled(spec, ScheduleId::from_bytes([n % 4; 16]), Seq::new(changed))
}

/// The job `n`, a run of schedule `n % 4` that somebody asked for.
fn by_hand(n: u8) -> WorkCommand {
    let schedule = Some(ScheduleId::from_bytes([n % 4; 16]));
    WorkCommand::Submit(JobSpec { run_at: None, schedule, ..spec(n) })
}

fn webhook(n: u8) -> Webhook {
    Webhook {
        id: WebhookId::from_bytes([n; 16]),
        tenant: TenantId::new(u64::from(n % 2)),
        url: format!("https://example.com/{n}"),
        events: vec!["document.*".into(), "job.completed".into()],
        description: n.is_multiple_of(2).then(|| "what it is for".into()),
        status: WebhookStatus::ALL[usize::from(n) % 3],
        max_retries: 3,
        retry_delay_seconds: 60,
        timeout_seconds: 30,
        parallel: n.is_multiple_of(2),
        secrets: vec![
            SealedSecret { sealed: vec![n; 60].into(), until: None },
            SealedSecret { sealed: vec![1; 60].into(), until: Some(at(9)) },
        ],
        created_at: at(1),
        updated_at: at(i64::from(n)),
        after: Seq::new(5),
    }
}

fn end(outcome: JobOutcome, result: &str) -> JobEnd {
    let progress =
        JobProgress { current: 4, total: Some(9), failed: 1, chunks: 8, through: Seq::new(3) };
    let started_at = Some(at(2));
    JobEnd { outcome, started_at, progress, result: Some(result.into()), error: None }
}

/// Any command about few ids, so that they meet.
fn command() -> impl Strategy<Value = WorkCommand> {
    let job = 0_u8..6;
    let id = (0_u8..6).prop_map(|n| JobId::from_bytes([n; 16]));
    let change = prop_oneof![
        Just(JobChange::Started),
        (0_u64..9).prop_map(|current| JobChange::Progressed(JobProgress {
            current,
            total: None,
            failed: 0,
            chunks: 0,
            through: Seq::new(current)
        })),
        (0_i64..9).prop_map(|time| JobChange::Retried {
            not_before: at(time),
            error: "it rains".into(),
            counted: true
        }),
        Just(JobChange::CancelRequested),
        "[a-z]{0,5}".prop_map(|result| JobChange::Finished(end(JobOutcome::Completed, &result))),
    ];
    prop_oneof![
        3 => job.prop_map(|n| WorkCommand::Submit(spec(n))),
        6 => (id.clone(), change).prop_map(|(id, change)| WorkCommand::Change(id, change)),
        1 => (0_u64..2, id).prop_map(|(n, id)| WorkCommand::Cancel(TenantId::new(n), id)),
        1 => (0_usize..3, 0_u64..20, 0_i64..50).prop_map(|(keep, keep_bytes, since)| {
            WorkCommand::Forget { keep, keep_bytes, ended_since: at(since) }
        }),
        4 => usage_rows().prop_map(|(since, rows)| WorkCommand::RecordUsage(Day::new(since), rows)),
        2 => terms().prop_map(WorkCommand::SetBudget),
        1 => scope().prop_map(WorkCommand::DeleteBudget),
        3 => Just(WorkCommand::TellBudget),
        1 => (0_u8..4).prop_map(|n| WorkCommand::AddWebhook(webhook(n))),
        1 => (0_u8..4).prop_map(|n| WorkCommand::ChangeWebhook(webhook(n))),
        1 => (0_u64..2, 0_u8..4).prop_map(|(tenant, n)| {
            WorkCommand::DeleteWebhook(TenantId::new(tenant), WebhookId::from_bytes([n; 16]))
        }),
        2 => (0_u8..4).prop_map(|n| WorkCommand::AddSchedule(schedule(n))),
        3 => (0_u8..4, any::<bool>(), 0_u64..40).prop_map(|(n, enabled, changed)| {
            WorkCommand::ChangeSchedule(Schedule { enabled, ..schedule(n) }, Seq::new(changed))
        }),
        1 => (0_u64..2, 0_u8..4).prop_map(|(tenant, n)| {
            WorkCommand::DeleteSchedule(TenantId::new(tenant), ScheduleId::from_bytes([n; 16]))
        }),
        3 => (0_u8..6, 0_u64..40)
            .prop_map(|(n, changed)| scheduled(n, changed)),
        2 => (0_u8..6).prop_map(by_hand),
    ]
}

#[test]
fn a_run_that_somebody_asks_for_counts_and_leaves_the_schedules_own_job_alone() {
    let mut work = Work::default();
    let mut seq = 0;
    let mut step = |work: &mut Work, command| {
        seq += 1;
        let entry = work.decide(command, at(seq)).unwrap();
        work.apply(Seq::new(u64::try_from(seq).unwrap()), &entry);
    };
    step(&mut work, WorkCommand::AddSchedule(schedule(1)));
    step(&mut work, scheduled(5, 1));
    step(&mut work, by_hand(9));
    let (own, other) = (JobId::from_bytes([5; 16]), JobId::from_bytes([9; 16]));
    let now = |work: &Work| {
        let scheduled = work.schedule(ScheduleId::from_bytes([1; 16])).unwrap();
        (scheduled.job, scheduled.runs, scheduled.last.map(|last| last.job))
    };
    assert_eq!((now(&work), work.stale_jobs().count()), ((Some(own), 0, None), 0));
    step(&mut work, WorkCommand::Change(other, JobChange::Started));
    step(
        &mut work,
        WorkCommand::Change(other, JobChange::Finished(end(JobOutcome::Completed, ""))),
    );
    assert_eq!(now(&work), (Some(own), 1, Some(other)));
}

fn scope() -> impl Strategy<Value = BudgetScope> {
    (0_u64..2, prop::option::of(0_u8..2)).prop_map(|(tenant, library)| BudgetScope {
        tenant: TenantId::new(tenant),
        library: library.map(|n| LibraryId::from_bytes([n; 16])),
    })
}

fn terms() -> impl Strategy<Value = BudgetTerms> {
    let thresholds = prop::collection::btree_set(1_u8..=100, 0..4);
    (scope(), 1_u64..500, 0_usize..3, thresholds, any::<bool>()).prop_map(
        |(scope, amount, period, thresholds, refuse)| BudgetTerms {
            scope,
            amount: Money::from_pico(amount),
            period: BudgetPeriod::ALL[period],
            thresholds: thresholds.into_iter().collect(),
            refuse,
        },
    )
}

fn usage_rows() -> impl Strategy<Value = (i64, Vec<UsageRow>)> {
    let row = (0_i64..70, scope(), 0_u64..100).prop_map(|(day, scope, cost)| UsageRow {
        key: UsageKey {
            day: Day::new(day),
            tenant: scope.tenant,
            library: scope.library,
            provider: "openai".into(),
            model: format!("model-{}", cost % 2).into(),
        },
        used: Used { texts: 1, tokens: cost, cost: Money::from_pico(cost), ..Used::default() },
    });
    (0_i64..50, prop::collection::vec(row, 0..4))
}

/// The command, of somebody who has looked before, mostly.
fn informed(work: &Work, command: WorkCommand) -> WorkCommand {
    let changed = |id: ScheduleId, seq: Seq| {
        let scheduled = work.schedule(id).filter(|_| !seq.get().is_multiple_of(8));
        scheduled.map_or(seq, |scheduled| scheduled.changed)
    };
    if let WorkCommand::ChangeSchedule(schedule, seq) = command {
        let seq = changed(schedule.id, seq);
        return WorkCommand::ChangeSchedule(schedule, seq);
    }
    if let WorkCommand::SubmitScheduled(spec, id, seq) = command {
        return WorkCommand::SubmitScheduled(spec, id, changed(id, seq));
    }
    command
}

/// What the counts of `work` must be, counted anew.
fn check(work: &Work) {
    let over = |job: &&Arc<Job>| matches!(job.state, JobState::Finished { .. });
    let bytes: u64 = work.jobs().filter(over).map(|job| said(job)).sum();
    assert_eq!(work.finished(), (work.jobs().filter(over).count(), bytes));
    let unfinished: Vec<_> = work.unfinished_since(Seq::START).collect();
    assert_eq!(unfinished.len() + work.finished().0, work.jobs().count());
    assert_eq!(work.counts().total(), work.jobs().count() as u64);
    let running = |job: &&Arc<Job>| matches!(job.state, JobState::Running { .. });
    assert_eq!(work.counts().running, work.jobs().filter(running).count() as u64);
    assert!(unfinished.is_sorted_by_key(|job| job.changed));
    let bytes: u64 = unfinished.iter().map(|job| job.spec.bytes()).sum();
    assert_eq!(bytes, work.unfinished_bytes);
    let put_off = unfinished.iter().filter(|job| is_put_off(job)).count();
    assert_eq!(work.put_off().len(), put_off);
    check_schedules(work, &unfinished);
}

/// No schedule has two jobs, and what is to be seen to is what a look at everything finds.
fn check_schedules(work: &Work, unfinished: &[&Arc<Job>]) {
    let of = |id: ScheduleId| {
        unfinished.iter().filter(move |job| job.spec.schedule == Some(id)).copied()
    };
    let waits =
        |job: &&Arc<Job>| matches!(job.state, JobState::Pending { .. }) && job.started_at.is_none();
    for scheduled in work.schedules() {
        let jobs: Vec<_> = of(scheduled.schedule.id).collect();
        // One that waits for a schedule of the same id that is gone is about to be cancelled.
        let current: Vec<_> =
            jobs.iter().filter(|job| Some(job.spec.head.id) == scheduled.job).collect();
        assert!(current.len() <= 1);
        let is_idle = work.idle_schedules().any(|idle| idle == scheduled);
        assert_eq!(is_idle, scheduled.schedule.enabled && scheduled.job.is_none());
    }
    let is_stale = |job: &&&Arc<Job>| {
        let Some(id) = job.spec.schedule.filter(|_id| job.spec.run_at.is_some()) else {
            return false;
        };
        let wanted = work.schedule(id).is_some_and(|scheduled| {
            scheduled.job == Some(job.spec.head.id)
                && scheduled.schedule.enabled
                && (job.submitted > scheduled.changed
                    || job.spec.run_at.is_some_and(|time| time <= scheduled.schedule.updated_at))
        });
        waits(job) && !wanted
    };
    let mut expected: Vec<JobId> =
        unfinished.iter().filter(is_stale).map(|job| job.spec.head.id).collect();
    expected.sort_unstable();
    assert_eq!(work.stale_jobs().map(|job| job.spec.head.id).collect::<Vec<_>>(), expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn s4_a_snapshot_and_what_came_after_is_the_fold(
        commands in prop::collection::vec(command(), 0..60),
        cut in 0_usize..60,
    ) {
        let (mut work, mut snapshot) = (Work::default(), Work::default().write());
        let mut after = Vec::new();
        for (n, command) in commands.into_iter().enumerate() {
            if n == cut {
                snapshot = work.write();
                after.clear();
            }
            let before = work.clone();
            let command = informed(&work, command);
            let Ok(entry) = work.decide(command, at(i64::try_from(n).unwrap())) else { continue };
            let entry = WorkEntry::decode(&entry.encode()).unwrap();
            let seq = Seq::new(work.applied().get() + 2);
            work.apply(seq, &entry);
            prop_assert_ne!(&before, &work);
            check(&work);
            after.push((seq, entry));
        }
        let mut read = Work::read(&snapshot).unwrap();
        for (seq, entry) in &after {
            read.apply(*seq, entry);
        }
        prop_assert_eq!(read, work);
    }

    #[test]
    fn any_bytes_are_an_entry_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(entry) = WorkEntry::decode(&bytes) {
            prop_assert_eq!(entry.encode(), bytes.clone());
        }
        drop(Work::read(&bytes));
    }
}

#[test]
fn a_job_goes_only_where_it_may() {
    let mut work = Work::default();
    let id = spec(1).head.id;
    let mut seq = 0;
    let mut step = |work: &mut Work, command: WorkCommand| -> Result<&'static str, WorkRejection> {
        let entry = work.decide(command, at(50))?;
        seq += 1;
        work.apply(Seq::new(seq), &entry);
        Ok(work.jobs.get(&id).map_or("none", |job| job.state.name()))
    };
    let change = |change| WorkCommand::Change(id, change);
    let finish = |outcome| change(JobChange::Finished(end(outcome, "{}")));
    let retry = JobChange::Retried { not_before: at(60), error: "it rains".into(), counted: true };
    assert_eq!(
        step(&mut work, change(JobChange::Started)),
        Err(WorkRejection::JobNotFound(id)),
        "nothing is done that was not asked for"
    );
    assert_eq!(step(&mut work, WorkCommand::Submit(spec(1))), Ok("pending"));
    assert_eq!(step(&mut work, WorkCommand::Submit(spec(1))), Err(WorkRejection::JobExists(id)));
    assert!(step(&mut work, finish(JobOutcome::Completed)).is_err());
    assert_eq!(step(&mut work, change(JobChange::Started)), Ok("running"));
    assert!(step(&mut work, change(JobChange::Started)).is_err());
    assert_eq!(step(&mut work, change(retry)), Ok("pending"));
    assert_eq!(work.jobs.get(&id).unwrap().retries, 1);
    assert_eq!(step(&mut work, change(JobChange::Started)), Ok("running"));
    let elsewhere = WorkCommand::Cancel(TenantId::new(9), id);
    assert_eq!(step(&mut work, elsewhere), Err(WorkRejection::JobNotFound(id)));
    let cancel = || WorkCommand::Cancel(spec(1).head.tenant, id);
    assert_eq!(step(&mut work, cancel()), Ok("running"));
    assert_eq!(step(&mut work, cancel()), Err(WorkRejection::Nothing));
    assert_eq!(step(&mut work, finish(JobOutcome::Cancelled)), Ok("cancelled"));
    assert_eq!(
        step(&mut work, cancel()).unwrap_err().to_string(),
        format!("Job {id} cannot be cancelled (status: cancelled)")
    );
    assert_eq!(work.jobs.get(&id).unwrap().spec.parameters.len(), 0);
    let forget = WorkCommand::Forget { keep: 0, keep_bytes: 0, ended_since: at(0) };
    assert_eq!(step(&mut work, forget), Ok("none"));
}

#[test]
fn a_job_that_waits_is_cancelled_at_once() {
    let mut work = Work::default();
    work.apply(Seq::new(1), &WorkEntry::JobSubmitted(spec(2)));
    let cancel = WorkCommand::Cancel(spec(2).head.tenant, spec(2).head.id);
    let entry = work.decide(cancel, at(5)).unwrap();
    work.apply(Seq::new(2), &entry);
    assert_eq!(work.jobs().next().unwrap().state.name(), "cancelled");
    assert_eq!(work.unfinished(), 0);
}

#[test]
fn no_more_jobs_wait_than_may() {
    let mut work = Work::default();
    let large: Arc<str> =
        "x".repeat(usize::try_from(JOBS_UNFINISHED_BYTES_MAX / 4).unwrap()).into();
    let spec = |n| JobSpec { parameters: large.clone(), ..spec(n) };
    for n in 0..4 {
        let entry = work.decide(WorkCommand::Submit(spec(n)), at(0)).unwrap();
        work.apply(Seq::new(u64::from(n) + 1), &entry);
    }
    let more = work.decide(WorkCommand::Submit(spec(4)), at(0));
    assert_eq!(more, Err(WorkRejection::JobsFull));
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let mut work = Work::default();
    work.apply(Seq::new(1), &WorkEntry::JobSubmitted(spec(2)));
    work.apply(Seq::new(2), &WorkEntry::WebhookPut(webhook(2)));
    let terms = budgets::terms(None, 100, BudgetPeriod::Month);
    work.apply(Seq::new(3), &WorkEntry::BudgetSet { at: at(1), terms });
    let rows = vec![budgets::row(0, None, 60)];
    work.apply(Seq::new(4), &WorkEntry::UsageRecorded { at: at(2), keep_since: Day::new(0), rows });
    let bytes = work.write();
    for place in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[place] ^= 1;
        assert!(Work::read(&damaged).is_err(), "byte {place}");
    }
}

mod budgets;

#[test]
fn the_log_is_kept_for_jobs_that_were_begun_and_write() {
    let mut work = Work::default();
    let (import, rebuild) = (spec(8).head, spec(1).head);
    assert_eq!((import.kind, rebuild.kind), (JobKind::BatchImport, JobKind::IndexRebuild));
    let change = |head, change| WorkEntry::JobChanged { at: at(3), head, change };
    work.apply(Seq::new(1), &WorkEntry::JobSubmitted(spec(1)));
    work.apply(Seq::new(2), &change(rebuild, JobChange::Started));
    work.apply(Seq::new(3), &WorkEntry::JobSubmitted(spec(8)));
    assert_eq!(work.needed_after(), None, "nothing was written");
    work.apply(Seq::new(5), &change(import, JobChange::Started));
    assert_eq!(work.needed_after(), Some(Seq::new(3)));
    let progress = JobProgress { through: Seq::new(9), ..JobProgress::default() };
    work.apply(Seq::new(10), &change(import, JobChange::Progressed(progress)));
    let put_off = JobChange::Retried { not_before: at(9), error: "it rains".into(), counted: true };
    work.apply(Seq::new(11), &change(import, put_off));
    assert_eq!(work.needed_after(), Some(Seq::new(9)), "it goes on from there");
    work.apply(Seq::new(12), &change(import, JobChange::Started));
    let end = end(JobOutcome::Completed, "{}");
    work.apply(Seq::new(13), &change(import, JobChange::Finished(end)));
    assert_eq!(work.needed_after(), None);
}

#[test]
fn a_webhook_is_made_once_and_changed_while_there_is_one() {
    let mut work = Work::default();
    let of = webhook(1);
    let id = of.id;
    let step = |work: &mut Work, command| {
        let entry = work.decide(command, at(0))?;
        work.apply(Seq::new(work.applied().get() + 1), &entry);
        Ok(())
    };
    let gone = Err(WorkRejection::WebhookNotFound(id));
    assert_eq!(step(&mut work, WorkCommand::ChangeWebhook(of.clone())), gone);
    step(&mut work, WorkCommand::AddWebhook(of.clone())).unwrap();
    let again = step(&mut work, WorkCommand::AddWebhook(of.clone()));
    assert_eq!(again, Err(WorkRejection::WebhookExists(id)));
    step(&mut work, WorkCommand::ChangeWebhook(of.clone())).unwrap();
    let of_another = Webhook { tenant: TenantId::new(7), ..of.clone() };
    assert_eq!(step(&mut work, WorkCommand::ChangeWebhook(of_another)), gone);
    step(&mut work, WorkCommand::DeleteWebhook(of.tenant, id)).unwrap();
    assert_eq!(step(&mut work, WorkCommand::ChangeWebhook(of)), gone);
    assert_eq!(work.webhooks().count(), 0);
}
