//! The mirror: what is written to a library is carried to the vectors of its other embedding model.
//!
//! One task for each library that has two. It follows the log after what is noted to be carried,
//! gathers the documents that records of the active generation put or delete, waits until these are
//! applied, and has them carried as they are then ([`Engine::carry`]). How far it is is noted in the
//! other generation's stream after it is there, so that after a crash it begins early enough, and
//! carries some again, which changes nothing.
//!
//! What the other model gives no vectors of is owed, and not waited for: the other generation has
//! nothing of it then. It is tried again beside what follows.
//!
//! It keeps F8.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arrwdb_engine::embed::EmbedError;
use arrwdb_engine::state::{DocumentId, LibraryId, LibraryOutline, OutlineChange, Seq};
use arrwdb_engine::{CarryPair, Engine, EngineError, FollowError, Load, Owing, RawRecord, Subject};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::cursor::Cursor;
use crate::error::undecodable;

/// Records that are carried before that is noted.
const UNNOTED_RECORDS_MAX: u64 = 1000;
/// How long it is not noted that something was carried.
const UNNOTED_TIME_MAX: Duration = Duration::from_secs(10);
/// How long is waited before what failed is tried again, the first time and at most.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// The same where somebody says how long: it is not believed for longer.
const RETRY_SAID_MAX: Duration = Duration::from_mins(1);
/// The same of what a model refused: it may take it when its server is set up otherwise.
const RETRY_REFUSED: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(1));

/// Who carries. It ends when it is closed, or its engine is.
#[derive(Debug)]
pub struct Mirror {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Mirror {
    /// Starts where the last one has stopped. An engine has one at most.
    pub fn start(engine: Engine) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(supervise(engine, stopped));
        Self { stop, task }
    }

    /// Notes how far it is and ends.
    pub async fn close(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "what carries documents to other models stopped too soon");
        }
    }
}

/// Has a task for each library with two generations.
async fn supervise(engine: Engine, stopped: watch::Receiver<bool>) {
    let mut tasks: BTreeMap<LibraryId, (CarryPair, JoinHandle<()>)> = BTreeMap::new();
    let mut stopping = stopped.clone();
    let mut seen = Seq::START;
    loop {
        for pair in engine.carry_pairs() {
            let same = |known: &CarryPair| (known.from, known.to) == (pair.from, pair.to);
            let running = tasks.get(&pair.library);
            if running.is_some_and(|(known, task)| same(known) && !task.is_finished()) {
                continue;
            }
            // One of the other direction has nothing to do any more: what it still waits for is not
            // waited for here, or it would keep all other libraries waiting.
            if let Some((_known, task)) = tasks.remove(&pair.library) {
                task.abort();
                ended(pair.library, task).await;
            }
            let task = tokio::spawn(follow(engine.clone(), pair, stopped.clone()));
            tasks.insert(pair.library, (pair, task));
        }
        tasks.retain(|_library, (_pair, task)| !task.is_finished());
        tokio::select! {
            biased;
            _stopping = stopping.wait_for(|stopping| *stopping) => break,
            applied = engine.catalog_changed(seen) => seen = applied,
        }
    }
    for (library, (_pair, task)) in tasks {
        ended(library, task).await;
    }
}

async fn ended(library: LibraryId, task: JoinHandle<()>) {
    if let Err(error) = task.await
        && !error.is_cancelled()
    {
        tracing::error!(%library, %error, "what carried its documents stopped");
    }
}

/// Why a pair is not followed any more.
enum End {
    /// It is no pair any more, or the server stops.
    Over,
    /// What was to be carried is not in the log any more.
    Broken,
}

/// What is to be done.
enum Next {
    Stop,
    /// Records are to be carried, or it is to be noted how far this is.
    Records(Result<Vec<RawRecord>, FollowError>),
    /// Some of what is owed is to be tried again.
    Owed(Owing),
}

/// One pair on its way.
struct Follow {
    engine: Engine,
    pair: CarryPair,
    stopped: watch::Receiver<bool>,
    cursor: Cursor,
    /// What the log has been told.
    noted: Seq,
    noted_at: Instant,
    /// Records that were carried since.
    unnoted: u64,
    /// When the first of them was.
    unnoted_since: Option<Instant>,
    waiting: Again,
    refused: Again,
}

/// When some of what is owed is tried again.
struct Again {
    /// How long is waited, the first time and at most.
    bounds: (Duration, Duration),
    delay: Duration,
    /// `None` while nothing is owed.
    at: Option<Instant>,
    /// What was said last of why it failed.
    said: String,
}

impl Again {
    fn of(bounds: (Duration, Duration)) -> Self {
        Self { bounds, delay: bounds.0, at: None, said: String::new() }
    }

    /// Takes in whether something is owed.
    fn look(&mut self, owing: bool) -> Option<Instant> {
        if owing {
            self.at.get_or_insert_with(|| Instant::now() + self.bounds.0);
        } else {
            (self.at, self.delay, self.said) = (None, self.bounds.0, String::new());
        }
        self.at
    }

    /// Nothing changed: it is tried later.
    fn later(&mut self, said: Option<Duration>) {
        let wait =
            said.unwrap_or(self.delay).clamp(self.bounds.0, self.bounds.1.max(RETRY_SAID_MAX));
        self.delay = (self.delay * 2).clamp(self.bounds.0, self.bounds.1);
        self.at = Some(Instant::now() + wait);
    }
}

/// Waits until then; without one, for ever.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn follow(engine: Engine, pair: CarryPair, stopped: watch::Receiver<bool>) {
    let cursor = Cursor::new(engine.clone(), pair.after);
    let mut follow = Follow {
        engine: engine.clone(),
        pair,
        stopped,
        cursor,
        noted: pair.after,
        noted_at: Instant::now(),
        unnoted: 0,
        unnoted_since: None,
        waiting: Again::of(RETRY_AFTER),
        refused: Again::of(RETRY_REFUSED),
    };
    match follow.run().await {
        End::Over => {}
        End::Broken => {
            let why = "what was to be carried is not in the log any more: discard these vectors";
            tracing::error!(library = %pair.library, "{why}");
            engine.carrying_failed(&pair, &EngineError::Generation(why.to_owned()));
        }
    }
}

impl Follow {
    async fn run(&mut self) -> End {
        let mut delay = RETRY_AFTER.0;
        loop {
            let records = match self.next().await {
                Next::Stop => break,
                Next::Owed(owing) => {
                    if let Err(end) = self.try_owed(owing).await {
                        return end;
                    }
                    continue;
                }
                Next::Records(records) => records,
            };
            let records = match records {
                Ok(records) => records,
                Err(FollowError::Trimmed { first }) => {
                    let before = Seq::new(first.get().saturating_sub(1));
                    if self.engine.has_lost(&self.pair, self.cursor.position()) {
                        return End::Broken;
                    }
                    // Nothing of the library was among what is gone: the server rested for long.
                    self.cursor = Cursor::new(self.engine.clone(), before);
                    Vec::new()
                }
                Err(FollowError::Engine(EngineError::Closed)) => break,
                Err(FollowError::Engine(error)) => {
                    if let Err(end) = self.failed(&error, &mut delay).await {
                        return end;
                    }
                    continue;
                }
            };
            delay = RETRY_AFTER.0;
            let through = self.cursor.position();
            let worked = match self.carry(records).await {
                Ok(worked) => worked,
                Err(End::Over) => return End::Over,
                Err(End::Broken) => return End::Broken,
            };
            if worked > 0 {
                self.unnoted += worked;
                self.unnoted_since.get_or_insert_with(Instant::now);
            }
            if let Err(end) = self.report(through).await {
                return end;
            }
        }
        // What is not noted is carried again.
        let through = self.cursor.position();
        if self.unnoted > 0 {
            drop(self.engine.carried(&self.pair, through, true).await);
        }
        End::Over
    }

    /// Waits for something to be done.
    async fn next(&mut self) -> Next {
        let mut stopped = self.stopped.clone();
        let due = self.due();
        let (engine, noted, position) = (self.engine.clone(), self.noted, self.cursor.position());
        let owing = |owing| engine.is_owing(&self.pair, (owing, position));
        let waiting = self.waiting.look(owing(Owing::Waiting));
        let refused = self.refused.look(owing(Owing::Refused));
        // Not in an order: neither what comes nor what is owed shall keep the other waiting.
        tokio::select! {
            _stopping = stopped.wait_for(|stopping| *stopping) => Next::Stop,
            records = self.cursor.next_records() => Next::Records(records),
            () = tokio::time::sleep_until(due) => Next::Records(Ok(Vec::new())),
            // Where nothing is to be noted there are records to come.
            () = engine.carried_wanted(noted), if position > noted => {
                Next::Records(Ok(Vec::new()))
            }
            () = until(waiting) => Next::Owed(Owing::Waiting),
            () = until(refused) => Next::Owed(Owing::Refused),
        }
    }

    /// When it is to be noted how far this is, at the latest.
    fn due(&self) -> Instant {
        let seldom = self.noted_at + self.engine.note_carried_every();
        let soon = self.unnoted_since.map(|since| since + UNNOTED_TIME_MAX);
        soon.map_or(seldom, |soon| soon.min(seldom))
    }

    /// Carries what records of the active generation put or deleted; how many of them there were.
    async fn carry(&mut self, records: Vec<RawRecord>) -> Result<u64, End> {
        let of_pair = Subject::Library(self.pair.from);
        let (mut ids, mut last, mut worked) = (BTreeSet::new(), None, 0);
        for record in records.iter().filter(|record| record.subject == of_pair) {
            match LibraryOutline::read(&record.parts) {
                Ok(outline) => touched(outline.change, &mut ids),
                Err(error) => {
                    let error = undecodable(record.seq, &error);
                    tracing::error!(library = %self.pair.library, %error, "it cannot be carried");
                    let why = "a record of the library does not read".to_owned();
                    self.engine.carrying_failed(&self.pair, &EngineError::Generation(why));
                    return Err(End::Over);
                }
            }
            (last, worked) = (Some(record.seq), worked + 1);
        }
        let Some(last) = last else { return Ok(0) };
        let mut stopped = self.stopped.clone();
        tokio::select! {
            biased;
            _stopping = stopped.wait_for(|stopping| *stopping) => return Err(End::Over),
            () = self.engine.applied(of_pair, last) => {}
        }
        // What is carried is not carried again when the rest fails.
        let mut load = Load::of(ids);
        let mut delay = RETRY_AFTER.0;
        loop {
            let carried = tokio::select! {
                biased;
                _stopping = stopped.wait_for(|stopping| *stopping) => return Err(End::Over),
                // Who removes what was deleted waits for no model.
                () = self.engine.carried_wanted(self.noted) => None,
                carried = self.engine.keep_up(&self.pair, &mut load) => Some(carried),
            };
            let carried = match carried {
                Some(carried) => carried,
                None => self.engine.owe(&self.pair, &mut load).await,
            };
            match carried {
                Ok(()) => return Ok(worked),
                Err(error) => self.failed(&error, &mut delay).await?,
            }
        }
    }

    /// Tries some of what is owed again.
    async fn try_owed(&mut self, owing: Owing) -> Result<(), End> {
        let mut stopped = self.stopped.clone();
        let tried = tokio::select! {
            biased;
            _stopping = stopped.wait_for(|stopping| *stopping) => return Err(End::Over),
            () = self.over() => return Err(End::Over),
            () = self.engine.carried_wanted(self.noted) => return Ok(()),
            tried = self.engine.carry_owed(&self.pair, owing) => tried,
        };
        let library = self.pair.library;
        if let Err(error) = &tried
            && self.is_over(error)
        {
            return Err(End::Over);
        }
        let again = match owing {
            Owing::Waiting => &mut self.waiting,
            Owing::Refused => &mut self.refused,
        };
        match tried {
            Ok(carried) if carried > 0 => (again.at, again.delay) = (None, again.bounds.0),
            Ok(_nothing) => again.later(None),
            Err(error) => {
                let said = error.to_string();
                if said != again.said {
                    tracing::warn!(%library, %error, "its changes are carried later");
                    again.said = said;
                }
                again.later(asked_to_wait(&error));
            }
        }
        Ok(())
    }

    /// Says how far this is; notes it in the log where that is due.
    async fn report(&mut self, through: Seq) -> Result<(), End> {
        let wanted = self.engine.is_carried_wanted(self.noted) && through > self.noted;
        let enough = self.unnoted >= UNNOTED_RECORDS_MAX;
        let note = wanted || enough || (self.due() <= Instant::now() && through > self.noted);
        let mut delay = RETRY_AFTER.0;
        loop {
            match self.engine.carried(&self.pair, through, note).await {
                Ok(()) => break,
                Err(error) => self.failed(&error, &mut delay).await?,
            }
        }
        if note {
            (self.noted, self.unnoted, self.unnoted_since) = (through, 0, None);
        }
        if note || self.due() <= Instant::now() {
            self.noted_at = Instant::now();
        }
        Ok(())
    }

    /// Waits before something is tried again that failed; an end, where it never will succeed.
    async fn failed(&self, error: &EngineError, delay: &mut Duration) -> Result<(), End> {
        if self.is_over(error) {
            return Err(End::Over);
        }
        self.engine.carrying_failed(&self.pair, error);
        let said = asked_to_wait(error);
        if said.is_none() {
            tracing::warn!(library = %self.pair.library, %error, "its changes are carried later");
        }
        let wait = said.unwrap_or(*delay).clamp(RETRY_AFTER.0, RETRY_SAID_MAX);
        *delay = (*delay * 2).clamp(RETRY_AFTER.0, RETRY_AFTER.1);
        let mut stopped = self.stopped.clone();
        tokio::select! {
            biased;
            _stopping = stopped.wait_for(|stopping| *stopping) => Err(End::Over),
            () = self.over() => Err(End::Over),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }

    /// Whether what failed never will succeed.
    fn is_over(&self, error: &EngineError) -> bool {
        let over = matches!(
            error,
            EngineError::Closed | EngineError::LogFailed { .. } | EngineError::LibraryNotFound(_)
        );
        over || !self.is_still_one()
    }

    /// Waits until it is no pair any more.
    async fn over(&self) {
        let mut seen = Seq::START;
        while self.is_still_one() {
            seen = self.engine.catalog_changed(seen).await;
        }
    }

    fn is_still_one(&self) -> bool {
        let pair = self.engine.carry_pair(self.pair.library);
        pair.is_some_and(|it| (it.from, it.to) == (self.pair.from, self.pair.to))
    }
}

/// How long is to be waited, as far as it is said.
fn asked_to_wait(error: &EngineError) -> Option<Duration> {
    if let EngineError::Busy { retry_after, .. }
    | EngineError::Embedding(
        EmbedError::RateLimited { retry_after } | EmbedError::Busy { retry_after },
    ) = error
    {
        return Some(*retry_after);
    }
    // Until somebody raises it, or it begins anew.
    matches!(error, EngineError::BudgetExceeded(_)).then_some(RETRY_SAID_MAX)
}

/// The documents that a record put or deleted.
fn touched(change: OutlineChange, ids: &mut BTreeSet<DocumentId>) {
    match change {
        OutlineChange::Put(documents) => ids.extend(documents.iter().map(|document| document.id)),
        OutlineChange::Deleted(documents) => {
            ids.extend(documents.iter().map(|document| document.id));
        }
        OutlineChange::Batch(_) | OutlineChange::Field(_) | OutlineChange::Matched(_) => {}
    }
}
