//! A library's only writer: decide, append, apply, publish, acknowledge, in this order (N1).
//!
//! While one record syncs, the next is decided on the view that has the first applied already.
//! That view is a guess: it is published record by record as each becomes durable, and thrown away
//! if one fails. Whatever was decided on a guess, a refusal included, is answered only when the
//! guess has come true.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrwdb_log::{Log, LogError, Stream};
use arrwdb_state::{Command, Damage, LibraryEntry, Rejection, Seq, View};
use tokio::sync::{mpsc, oneshot};

use crate::config::Clock;
use crate::error::{EngineError, RETRY_AFTER};
use crate::generations::switching;
use crate::handle::{Author, Frozen, Handle, Layout, Open, Request, Room, WriteDone};
use crate::maintenance::{Upkeep, blocking};
use crate::memory::Gauge;
use crate::turns::Adds;

/// Records of one library that may wait for their sync. More would only wait longer: the log
/// writes all of them with one sync anyway.
const IN_FLIGHT_MAX: usize = 256;

/// Checkpoints' worth of unwritten segments that a library may hold in memory. Beyond, the disk does
/// not keep up (or is full), and writes wait for it instead of filling the memory.
const BACKLOG_MAX: u64 = 16;

/// Segments in memory of so many bytes together are merged while the record that calls for it is on
/// its way to the disk, which takes longer. A larger merge would hold the record back when it is
/// durable: it waits until nothing is in flight.
const MERGE_AT_ONCE_BYTES: u64 = 256 << 10;

/// Records that a large merge waits for at most: each leaves one more segment to search.
const MERGE_WAITS_MAX: u32 = 32;

/// What a library with search structures holds in memory before it is written to a file: every
/// search scans it, which shall take no longer than the rest of the search.
const INDEXED_TAIL_BYTES: u64 = 4 << 20;

/// The writer of one library.
pub(crate) struct Writer {
    pub(crate) handle: Arc<Handle>,
    pub(crate) open: Arc<Open>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) upkeep: Upkeep,
    /// What all libraries hold in memory, and may.
    pub(crate) memory: Gauge,
    /// Of that, what they are searched by.
    pub(crate) indexes: Gauge,
    pub(crate) memory_bytes_max: u64,
    /// A library whose segments in memory hold more than this is checkpointed.
    pub(crate) checkpoint_bytes: u64,
    /// Documents that the library may hold, if limited.
    pub(crate) documents_max: Option<u64>,
}

/// Who waits for the answer, and the memory that the write takes until then.
struct Reply {
    to: oneshot::Sender<Result<WriteDone, EngineError>>,
    _room: Option<Room>,
}

/// A record on its way to the disk.
struct Record {
    seq: Seq,
    /// The view that has it.
    view: View,
    durable: oneshot::Receiver<Result<u64, LogError>>,
}

/// Something decided whose time to be answered has not come.
struct InFlight {
    /// The answer when everything before it, and it itself, is durable.
    answer: Result<WriteDone, EngineError>,
    reply: Reply,
    /// The record it waits for; `None` if it logged nothing.
    record: Option<Record>,
}

/// What the writer believes.
struct Guess {
    view: View,
    in_flight: VecDeque<InFlight>,
    /// Set when a record failed: nothing is decided until all in flight is answered.
    broken: bool,
    /// Segments with rows up to here are left as they are.
    frozen: Seq,
    /// Records since a merge in memory is due that is too large to be made at once.
    merge_waits: u32,
    /// A record that is in the log and could not be applied: nothing is written after it, and the
    /// log keeps it for the next start, which applies it or says what is damaged.
    stopped: Option<(Seq, EngineError)>,
}

/// What happened.
enum Event {
    Asked(Option<Request>),
    Settled(Result<u64, LogError>),
}

impl Writer {
    /// Works until the library is closed, or takes no more requests, and everything in flight is
    /// answered.
    pub(crate) async fn run(self, mut requests: mpsc::Receiver<Request>) {
        let view = View::clone(&self.open.view());
        let mut guess = Guess {
            view,
            in_flight: VecDeque::new(),
            broken: false,
            frozen: Seq::START,
            merge_waits: 0,
            stopped: None,
        };
        // Waits until nothing is in flight; meanwhile nothing else is listened to.
        let mut between: Option<Request> = None;
        let mut closing: Option<oneshot::Sender<bool>> = None;
        let mut open = true;
        loop {
            let busy = open || between.is_some() || !guess.in_flight.is_empty();
            match closing.take() {
                Some(closed) if !busy => {
                    let again = self.handle.end_close(&self.open);
                    // One who has gone does not mind.
                    closed.send(again.is_none()).unwrap_or_default();
                    let Some(again) = again else { return };
                    (requests, open) = (again, true);
                }
                _ if !busy => return,
                still => closing = still,
            }
            if guess.in_flight.is_empty() {
                guess.broken = false;
                if let Some(request) = between.take() {
                    self.between_records(&mut guess, request);
                    continue;
                }
            }
            if guess.in_flight.is_empty() && guess.merge_waits > 0 {
                // Who was told of the last record goes first.
                tokio::task::yield_now().await;
                self.merge_late(&mut guess).await;
            }
            let listening =
                open && between.is_none() && !guess.broken && guess.in_flight.len() < IN_FLIGHT_MAX;
            match next(&mut guess.in_flight, &mut requests, listening).await {
                Event::Asked(None) => open = false,
                Event::Asked(Some(Request::Write { command, room, by, reply })) => {
                    self.decide(&mut guess, (command, by), Reply { to: reply, _room: room });
                }
                Event::Asked(Some(Request::Close { closed })) => {
                    // What slipped in before is still received; then there is no more.
                    self.open.begin_close();
                    requests.close();
                    closing = Some(closed);
                }
                Event::Asked(Some(request)) => between = Some(request),
                Event::Settled(outcome) => self.settle(&mut guess, outcome),
            }
        }
    }

    /// What is done when what is believed and what is published are the same.
    fn between_records(&self, guess: &mut Guess, request: Request) {
        assert!(guess.in_flight.is_empty(), "nothing is in flight");
        match request {
            Request::Write { command, room, by, reply } => {
                self.decide(guess, (command, by), Reply { to: reply, _room: room });
            }
            // One who has gone does not mind.
            Request::Settle { reply } => reply.send(guess.view.applied()).unwrap_or_default(),
            Request::Freeze { reply } => {
                guess.frozen = guess.view.applied();
                // One who has gone does not thaw either.
                let view = guess.view.clone();
                // This writer has nothing in flight, so what it appends next is numbered above.
                let covers = Seq::new(self.log.last_assigned()).max(view.applied());
                if reply.send(Frozen { view, covers }).is_err() {
                    guess.frozen = Seq::START;
                }
            }
            Request::Thaw { layouts, done } => {
                guess.frozen = Seq::START;
                // A checkpoint that failed is asked for again by the next write, not at once.
                let written = !layouts.is_empty();
                for layout in layouts {
                    // What a checkpoint merges is claimed, so the inputs are there.
                    if !self.change_layout(guess, layout) {
                        tracing::error!(library = %self.handle.id, "a merge of a checkpoint does not fit; its inputs are kept");
                    }
                }
                if written {
                    self.want_checkpoint(guess, guess.view.memory_bytes());
                }
                // The one who asked may be gone; the layout holds all the same.
                done.send(()).unwrap_or_default();
            }
            Request::Relay { layout, done } => {
                let fits = self.change_layout(guess, *layout);
                if fits {
                    self.handle.set_relaid(Some(self.upkeep.now()));
                }
                // The one who asked may be gone; the layout holds all the same.
                done.send(fits).unwrap_or_default();
            }
            Request::Index { segment, index, done } => {
                let with = guess.view.with_index(&segment, index);
                let held = with.is_some();
                if let Some(view) = with {
                    guess.view = view.clone();
                    self.handle.publish(&self.open, view);
                    self.handle.progress.notify_waiters();
                }
                // The one who asked may be gone; the structure serves all the same.
                done.send(held).unwrap_or_default();
            }
            Request::Close { closed } => closed.send(false).unwrap_or_default(),
        }
    }

    fn decide(&self, guess: &mut Guess, (command, by): (Command, Author), reply: Reply) {
        if self.handle.deleted.load(Ordering::SeqCst) {
            drop(reply.to.send(Err(EngineError::LibraryNotFound(self.handle.id))));
            return;
        }
        if self.handle.turns.refuse(by, Adds::of(&command)) {
            drop(reply.to.send(Err(switching())));
            return;
        }
        if let Some((_seq, error)) = &guess.stopped {
            drop(reply.to.send(Err(error.clone())));
            return;
        }
        if let Err(what) = self.room(&guess.view, &command) {
            drop(reply.to.send(Err(EngineError::Busy { what, retry_after: RETRY_AFTER })));
            return;
        }
        let seen = guess.view.applied();
        // What is carried is in the active generation, which has its limit.
        let documents_max = self.documents_max.filter(|_max| by == Author::Caller);
        let in_flight = match guess.view.decide(command, self.clock.now(), documents_max) {
            Err(rejection) => InFlight { answer: Err(refused(rejection)), reply, record: None },
            Ok(decision) => {
                let fates = decision.fates;
                match decision.entry.map(|entry| self.append(guess, &entry)) {
                    None => {
                        let answer = Ok(WriteDone { seq: seen, fates });
                        InFlight { answer, reply, record: None }
                    }
                    Some(Ok(record)) => {
                        guess.view = record.view.clone();
                        let answer = Ok(WriteDone { seq: record.seq, fates });
                        InFlight { answer, reply, record: Some(record) }
                    }
                    Some(Err(error)) => InFlight { answer: Err(error), reply, record: None },
                }
            }
        };
        guess.in_flight.push_back(in_flight);
        self.answer_settled(guess);
    }

    /// Whether there is memory for what a command adds; else what is full.
    fn room(&self, view: &View, command: &Command) -> Result<(), &'static str> {
        if matches!(
            command,
            Command::Delete(..)
                | Command::DeleteVersions(..)
                | Command::Note(_)
                | Command::PutField(_)
                | Command::Match(_)
        ) {
            return Ok(());
        }
        if view.memory_bytes() > self.checkpoint_bytes.saturating_mul(BACKLOG_MAX) {
            self.upkeep.want_checkpoint(&self.handle);
            return Err("the library's backlog of checkpoints");
        }
        // What is searched by is not what writes fill the memory with.
        let held = self.memory.total().saturating_sub(self.indexes.total());
        if held > self.memory_bytes_max / 2 {
            self.upkeep.want_relief();
        }
        if held > self.memory_bytes_max { Err("the memory budget") } else { Ok(()) }
    }

    /// Appends an entry and applies it to the guess.
    fn append(&self, guess: &mut Guess, entry: &LibraryEntry) -> Result<Record, EngineError> {
        let (sender, durable) = oneshot::channel();
        let done = Box::new(move |outcome| drop(sender.send(outcome)));
        self.handle.unapplied.begin(self.log.last_assigned());
        let stream = Stream(self.handle.id.to_bytes());
        // Depending on the last record seen, this one fails if that one does.
        let depends = guess.view.applied().get();
        let seq = Seq::new(self.log.append_after(depends, stream, entry.encode(), done)?);
        // Only a damaged file can stop this, and `decide` has just read what it reads.
        let applied = guess.view.apply(seq, entry);
        match applied.and_then(|next| self.merge_soon(guess, next)) {
            Ok(view) => Ok(Record { seq, view, durable }),
            Err(damage) => {
                let error = EngineError::from(damage);
                guess.stopped = Some((seq, error.clone()));
                self.handle.stopped.store(true, Ordering::SeqCst);
                Err(error)
            }
        }
    }

    /// Merges the newest segments of the next view, unless that is better done later.
    fn merge_soon(&self, guess: &mut Guess, next: View) -> Result<View, Damage> {
        let Some(due) = next.memory_merge(guess.frozen)? else { return Ok(next) };
        // It would not be whole any more if it waited for longer.
        let waits_left = u64::from(MERGE_WAITS_MAX - guess.merge_waits).min(due.segments_left);
        if due.bytes > MERGE_AT_ONCE_BYTES && waits_left > 0 {
            guess.merge_waits += 1;
            return Ok(next);
        }
        guess.merge_waits = 0;
        next.with_memory_merged(guess.frozen, self.upkeep.horizon())
    }

    /// Makes the merge that waited until nothing was in flight, on a thread where nobody's request
    /// waits behind it.
    async fn merge_late(&self, guess: &mut Guess) {
        assert!(guess.in_flight.is_empty(), "nothing is in flight");
        guess.merge_waits = 0;
        if guess.stopped.is_some() {
            return;
        }
        let (view, frozen, horizon) = (guess.view.clone(), guess.frozen, self.upkeep.horizon());
        let merged = move || Ok(view.with_memory_merged(frozen, horizon)?);
        match blocking(merged).await {
            Ok(view) => {
                assert_eq!(view.digest(), guess.view.digest(), "S5: a merge keeps the digest");
                guess.view = view.clone();
                self.handle.publish(&self.open, view);
            }
            // What is there serves as it is.
            Err(error) => {
                tracing::error!(library = %self.handle.id, %error, "segments in memory were not merged");
            }
        }
    }

    /// The oldest record in flight is durable, or failed.
    fn settle(&self, guess: &mut Guess, outcome: Result<u64, LogError>) {
        let Some(oldest) = guess.in_flight.front_mut() else { return };
        let Some(Record { seq, view, durable: _ }) = oldest.record.take() else { return };
        match outcome {
            Ok(durable) => {
                assert_eq!(durable, seq.get(), "the log answers for the record it was given");
                let memory_bytes = view.memory_bytes();
                self.handle.publish(&self.open, view);
                self.want_checkpoint(guess, memory_bytes);
            }
            Err(error) => {
                oldest.answer = Err(error.into());
                guess.broken = true;
                guess.view = View::clone(&self.open.view());
            }
        }
        self.answer_settled(guess);
    }

    /// Asks for a checkpoint, if so much is in memory that it is worth one. While one writes what is
    /// there, that counts for nothing: the next one would write a small file.
    fn want_checkpoint(&self, guess: &Guess, memory_bytes: u64) {
        if guess.frozen == Seq::START && memory_bytes > self.tail_bytes_max() {
            self.upkeep.want_checkpoint(&self.handle);
        }
    }

    /// What the library may hold in memory before it is written to a file.
    fn tail_bytes_max(&self) -> u64 {
        if self.handle.indexed.load(Ordering::Relaxed) {
            self.checkpoint_bytes.min(INDEXED_TAIL_BYTES)
        } else {
            self.checkpoint_bytes
        }
    }

    /// Answers everything at the front that waits for no record.
    fn answer_settled(&self, guess: &mut Guess) {
        while let Some(front) = guess.in_flight.pop_front_if(|front| front.record.is_none()) {
            let answer = match front.answer {
                // Decided on a guess that did not come true.
                Ok(done) if guess.broken && done.seq > self.open.view().applied() => {
                    Err(EngineError::Busy { what: "the log", retry_after: RETRY_AFTER })
                }
                answer => answer,
            };
            // A caller who left has its write all the same.
            drop(front.reply.to.send(answer));
        }
        let oldest = guess.in_flight.iter().find_map(|waiting| waiting.record.as_ref());
        let stopped = guess.stopped.as_ref().map(|(seq, _error)| *seq);
        self.handle.advance(oldest.map(|record| record.seq).or(stopped));
    }

    /// Puts a merged segment in the place of its inputs; whether those are there.
    fn change_layout(&self, guess: &mut Guess, layout: Layout) -> bool {
        let digest = guess.view.digest();
        let Layout { merge, output, index } = layout;
        let Some(view) = guess.view.with_merge(&merge, output.clone()) else { return false };
        assert_eq!(view.digest(), digest, "S5: a merge keeps the digest");
        let with_index = output.and_then(|segment| view.with_index(&segment, index));
        guess.view = with_index.unwrap_or(view);
        self.handle.publish(&self.open, guess.view.clone());
        true
    }
}

/// The next thing to happen: the oldest record settles, or a request comes.
async fn next(
    in_flight: &mut VecDeque<InFlight>,
    requests: &mut mpsc::Receiver<Request>,
    listening: bool,
) -> Event {
    let settled = async {
        match in_flight.front_mut().and_then(|front| front.record.as_mut()) {
            // The log drops a callback only when it is gone.
            Some(record) => (&mut record.durable).await.unwrap_or(Err(LogError::Closed)),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        outcome = settled => Event::Settled(outcome),
        request = requests.recv(), if listening => Event::Asked(request),
    }
}

fn refused(rejection: Rejection) -> EngineError {
    let detail = rejection.to_string();
    match rejection {
        Rejection::Dimension { .. } => EngineError::Vector { field: String::new(), detail },
        Rejection::Field { has, .. } => EngineError::VectorField { field: has.name, detail },
        Rejection::Full | Rejection::Fields => {
            EngineError::Invalid { field: String::new(), detail }
        }
        Rejection::Damaged(damage) => damage.into(),
    }
}
