//! The only writer of the stream of work: jobs, webhooks, costs.
//!
//! As a library's writer it decides on what it believes, which runs ahead of what is published by
//! the records that are not durable yet, and answers nothing before what that saw is durable (N1).
//! Unlike there, what is published is changed in place, under a lock that is held for no longer
//! than a few lookups.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrwdb_log::{LogError, Stream};
use arrwdb_state::limits::{JOBS_FINISHED_BYTES_MAX, JOBS_FINISHED_MAX};
use arrwdb_state::{JobId, Seq, Timestamp, Work, WorkCommand, WorkEntry, WorkRejection};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use crate::engine::Inner;
use crate::error::{EngineError, RETRY_AFTER};
use crate::request::Written;
use crate::unapplied::Unapplied;

/// Requests that may wait for the writer.
const QUEUE_MAX: usize = 4096;
/// Records that may wait for their sync.
const IN_FLIGHT_MAX: usize = 4096;
/// Requests that are taken at a time.
const TAKEN_MAX: usize = 256;
/// Records of jobs to be forgotten that one look asks for.
const FORGET_MAX: usize = 64;
/// Jobs that one such record is about.
const FORGOTTEN_BY_ONE: usize = 1000;

/// What is wished for, and who waits for it.
#[derive(Debug)]
pub(crate) struct Request {
    command: WorkCommand,
    reply: Option<Reply>,
}

type Reply = oneshot::Sender<Result<Written<()>, EngineError>>;
pub(crate) type Answer = oneshot::Receiver<Result<Written<()>, EngineError>>;

/// What is published of the stream of work.
#[derive(Debug)]
pub(crate) struct Published {
    work: Mutex<Work>,
    pub(crate) unapplied: Unapplied,
    applied: watch::Sender<Seq>,
    /// Told of every library that is deleted: what waits for it waits in vain.
    pub(crate) libraries_deleted: watch::Sender<()>,
    /// The last id that was given to a job.
    last_job: Mutex<u128>,
    requests: Mutex<Option<mpsc::Sender<Request>>>,
}

impl Published {
    pub(crate) fn new(work: Work) -> (Self, mpsc::Receiver<Request>) {
        let (sender, requests) = mpsc::channel(QUEUE_MAX);
        let published = Self {
            applied: watch::Sender::new(work.applied()),
            libraries_deleted: watch::Sender::new(()),
            work: Mutex::new(work),
            unapplied: Unapplied::nothing(),
            last_job: Mutex::new(0),
            requests: Mutex::new(Some(sender)),
        };
        (published, requests)
    }

    /// Looks at it; briefly, as the writer waits meanwhile.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&Work) -> T) -> T {
        at(&self.work.lock())
    }

    /// An id for a job, above all that were given before: `id`, if it is, else the next one. Ids
    /// of one millisecond would be in no order.
    pub(crate) fn ascending(&self, id: JobId) -> JobId {
        let mut last = self.last_job.lock();
        *last = u128::from_be_bytes(id.to_bytes()).max(last.saturating_add(1));
        JobId::from_bytes(last.to_be_bytes())
    }

    /// The last record applied, as it changes.
    pub(crate) fn applied(&self) -> watch::Receiver<Seq> {
        self.applied.subscribe()
    }

    /// Takes no more requests; those that wait are done.
    pub(crate) fn shut(&self) {
        drop(self.requests.lock().take());
    }

    /// Hands a command to the writer and waits until it is durable and published.
    pub(crate) async fn change(&self, command: WorkCommand) -> Result<Written<()>, EngineError> {
        self.ask(command)?.await.map_err(|_writer_gone| EngineError::Closed)?
    }

    /// Hands a command to the writer; who asked waits for the answer, or does not.
    pub(crate) fn ask(&self, command: WorkCommand) -> Result<Answer, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.send(command, Some(reply))?;
        Ok(answer)
    }

    fn send(&self, command: WorkCommand, reply: Option<Reply>) -> Result<(), EngineError> {
        let sender = self.requests.lock().clone().ok_or(EngineError::Closed)?;
        sender.try_send(Request { command, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                EngineError::Busy { what: "the write queue of jobs", retry_after: RETRY_AFTER }
            }
            mpsc::error::TrySendError::Closed(_) => EngineError::Closed,
        })
    }

    /// Has jobs forgotten that are over for longer than since `ended_since`, or too many.
    pub(crate) fn forget_jobs(&self, ended_since: Timestamp) {
        let (over, oldest) = self.look(|work| {
            let (jobs, bytes) = work.finished();
            let too_large = bytes > JOBS_FINISHED_BYTES_MAX;
            let over = jobs.saturating_sub(JOBS_FINISHED_MAX).max(usize::from(too_large));
            (over, work.oldest_end())
        });
        let expired = oldest.is_some_and(|oldest| oldest < ended_since);
        let records = over.div_ceil(FORGOTTEN_BY_ONE).max(usize::from(expired)).min(FORGET_MAX);
        for _record in 0..records {
            let command = WorkCommand::Forget {
                keep: JOBS_FINISHED_MAX,
                keep_bytes: JOBS_FINISHED_BYTES_MAX,
                ended_since,
            };
            // One that finds no room now is asked for at the next look.
            if self.send(command, None).is_err() {
                return;
            }
        }
    }
}

/// A record, or an answer, that waits for a sync.
struct InFlight {
    reply: Option<Reply>,
    answer: Result<Written<()>, EngineError>,
    record: Option<Record>,
}

struct Record {
    seq: Seq,
    entry: WorkEntry,
    durable: oneshot::Receiver<Result<u64, LogError>>,
}

/// What the writer believes, before it is durable.
struct Guess {
    work: Work,
    in_flight: VecDeque<InFlight>,
    /// A record failed: what was believed is thrown away once all that was based on it has failed.
    broken: bool,
}

/// Works until nobody can ask any more.
pub(crate) async fn run(engine: Arc<Inner>, mut requests: mpsc::Receiver<Request>) {
    let work = engine.work.look(Work::clone);
    let mut guess = Guess { work, in_flight: VecDeque::new(), broken: false };
    let mut taken = Vec::new();
    let mut open = true;
    // What the last run did not come to.
    tell_budgets(&engine, &mut guess);
    while open || !guess.in_flight.is_empty() {
        if guess.broken && guess.in_flight.is_empty() {
            guess.work = engine.work.look(Work::clone);
            guess.broken = false;
        }
        let listening = open && !guess.broken && guess.in_flight.len() < IN_FLIGHT_MAX;
        let Guess { in_flight, .. } = &mut guess;
        let settled = async {
            match in_flight.front_mut().and_then(|front| front.record.as_mut()) {
                // The log drops a callback only when it is gone.
                Some(record) => (&mut record.durable).await.unwrap_or(Err(LogError::Closed)),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            outcome = settled => settle(&engine, &mut guess, outcome),
            count = requests.recv_many(&mut taken, TAKEN_MAX), if listening => {
                open = count > 0;
                for request in taken.drain(..) {
                    decide(&engine, &mut guess, request);
                }
            }
        }
        answer_settled(&engine, &mut guess);
    }
}

fn decide(engine: &Inner, guess: &mut Guess, request: Request) {
    let Request { command, reply } = request;
    let seq = guess.work.applied();
    let (answer, record) = match guess.work.decide(command, engine.parts.clock.now()) {
        Err(WorkRejection::Nothing) => (Ok(Written { seq, value: () }), None),
        Err(rejection) => (Err(rejection.into()), None),
        Ok(entry) => match append(engine, guess, entry) {
            Ok(record) => (Ok(Written { seq: record.seq, value: () }), Some(record)),
            Err(error) => (Err(error), None),
        },
    };
    let spent = record.as_ref().is_some_and(|record| {
        matches!(record.entry, WorkEntry::UsageRecorded { .. } | WorkEntry::BudgetSet { .. })
    });
    guess.in_flight.push_back(InFlight { reply, answer, record });
    if spent {
        tell_budgets(engine, guess);
    }
}

/// Has the log say which percentages of which budgets are reached. What finds no room now is said
/// with the next change.
fn tell_budgets(engine: &Inner, guess: &mut Guess) {
    let now = engine.parts.clock.now();
    while let Ok(entry) = guess.work.decide(WorkCommand::TellBudget, now) {
        let Ok(record) = append(engine, guess, entry) else { return };
        let answer = Ok(Written { seq: record.seq, value: () });
        guess.in_flight.push_back(InFlight { reply: None, answer, record: Some(record) });
    }
}

fn append(engine: &Inner, guess: &mut Guess, entry: WorkEntry) -> Result<Record, EngineError> {
    let (sender, durable) = oneshot::channel();
    let done = Box::new(move |outcome| drop(sender.send(outcome)));
    let published = &engine.work;
    published.unapplied.begin(engine.log.last_assigned());
    // Depending on the last record seen, this one fails if that one does.
    let depends = guess.work.applied().get();
    let parts = vec![entry.encode()];
    let seq = Seq::new(engine.log.append_after(depends, Stream::WORK, parts, done)?);
    guess.work.apply(seq, &entry);
    Ok(Record { seq, entry, durable })
}

/// The oldest record in flight is durable, or failed.
fn settle(engine: &Inner, guess: &mut Guess, outcome: Result<u64, LogError>) {
    let Some(oldest) = guess.in_flight.front_mut() else { return };
    let Some(Record { seq, entry, durable: _ }) = oldest.record.take() else { return };
    match outcome {
        Ok(durable) => {
            assert_eq!(durable, seq.get(), "the log answers for the record it was given");
            let mut work = engine.work.work.lock();
            assert!(seq > work.applied(), "N2: published only advances");
            work.apply(seq, &entry);
        }
        Err(error) => {
            oldest.answer = Err(error.into());
            guess.broken = true;
        }
    }
}

/// Answers everything at the front that waits for no record.
fn answer_settled(engine: &Inner, guess: &mut Guess) {
    let applied = engine.work.look(Work::applied);
    while let Some(front) = guess.in_flight.pop_front_if(|front| front.record.is_none()) {
        let answer = match front.answer {
            // Decided on a guess that did not come true.
            Ok(done) if guess.broken && done.seq > applied => {
                Err(EngineError::Busy { what: "the log", retry_after: RETRY_AFTER })
            }
            answer => answer,
        };
        // A caller who left has its wish all the same.
        if let Some(reply) = front.reply {
            drop(reply.send(answer));
        }
    }
    let oldest = guess.in_flight.iter().find_map(|waiting| waiting.record.as_ref());
    engine.work.unapplied.advance(oldest.map(|record| record.seq));
    engine.work.applied.send_if_modified(|last| std::mem::replace(last, applied) != applied);
}

impl Inner {
    /// Refuses wishes of work while the disk is nearly full.
    pub(crate) async fn change_work(
        &self,
        command: WorkCommand,
    ) -> Result<Written<()>, EngineError> {
        self.check_disk()?;
        self.work.change(command).await
    }

    /// Waits, for a bounded time, until what is published of work is at `min_seq`.
    pub(crate) async fn wait_for_work(&self, min_seq: Option<Seq>) -> Result<(), EngineError> {
        let Some(wanted) = min_seq else { return Ok(()) };
        let mut durable = self.advanced.clone();
        let mut applied = self.work.applied();
        let reached = async {
            // A record of the stream that is durable may not be published yet.
            while durable.wait_for(|durable| *durable >= wanted.get()).await.is_ok()
                && !self.is_work_at(wanted)
                && applied.changed().await.is_ok()
            {}
        };
        let in_time = tokio::time::timeout(self.config.min_seq_wait_max, reached).await.is_ok();
        if in_time && self.log.durable() >= wanted.get() && self.is_work_at(wanted) {
            return Ok(());
        }
        Err(EngineError::SeqNotReached { wanted, current: Seq::new(self.log.durable()) })
    }

    /// Whether every record of the stream up to `seq`, which is durable, is published.
    pub(crate) fn is_work_at(&self, seq: Seq) -> bool {
        self.work.unapplied.published_to() >= seq.get()
    }

    /// Forgets jobs that are over for long enough.
    pub(crate) fn forget_jobs(&self) {
        let kept = i64::try_from(self.config.job_retention.as_micros()).unwrap_or(i64::MAX);
        let now = self.parts.clock.now().micros();
        if !self.disk_full.load(Ordering::Relaxed) {
            self.work.forget_jobs(Timestamp::from_micros(now.saturating_sub(kept)));
        }
    }
}
