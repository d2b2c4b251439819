//! What is observed of webhooks: how far each is, what came of every attempt, what could not be
//! delivered. None of it is in the log, which it would flood; it lies in a small store of its own.
//!
//! What happened is noted in memory and written together, many times a second. A crash loses the last
//! moment of it, and what was delivered in that moment is delivered again. A position is never written
//! before the dead letters that it has passed.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;

use arrwdb_engine::state::{Seq, WebhookId};
use parking_lot::Mutex;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::progress::Progress;
use super::store_file::{Opener, StoreFile, Waits};
use super::{DeadLetter, Replay, WebhookDelivery, WebhookFigures};
use crate::event::Position;

/// Attempts of one webhook that are remembered.
pub(super) const DELIVERIES_MAX: usize = 1000;
/// Dead letters of one webhook that are kept.
pub(super) const DEAD_MAX: usize = 1000;
/// Bytes of them.
const DEAD_BYTES_MAX: usize = 8 << 20;
/// Bytes of a dead letter beside its body, about.
const LETTER_BYTES: usize = 512;
/// Dead letters that are not written yet, with which nothing more is attempted.
const DEAD_UNWRITTEN_MAX: usize = 4096;

type Rows = TableDefinition<'static, u128, &'static [u8]>;
type Items = TableDefinition<'static, (u128, u64), &'static [u8]>;
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
const ROWS: Rows = TableDefinition::new("webhooks");
const DELIVERIES: Items = TableDefinition::new("deliveries");
const DEAD: Items = TableDefinition::new("dead_letters");
const VERSION: u64 = 1;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk, or what is on it.
    #[error("the store of deliveries cannot be {doing}: {detail}")]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        detail: String,
    },
    /// Of another release.
    #[error(
        "the store of deliveries is of version {0}, which this build does not know; start a newer \
         one, or move work/deliveries.redb away to begin with an empty one"
    )]
    Version(u64),
}

fn failed<E: std::fmt::Display>(doing: &'static str) -> impl Fn(E) -> StoreError {
    move |error| StoreError::Failed { doing, detail: error.to_string() }
}

/// What is kept of one webhook beside its lists.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Row {
    #[serde(flatten)]
    progress: Progress,
    #[serde(flatten)]
    figures: WebhookFigures,
    deliveries_next: u64,
    dead_next: u64,
    replay: Option<Replay>,
    /// Its receiver said that it wants nothing more, and nothing was sent to it since.
    #[serde(default)]
    gone: bool,
}

impl Row {
    fn progress(&mut self, source: Source) -> Option<&mut Progress> {
        match (source, &mut self.replay) {
            (Source::Live, _) => Some(&mut self.progress),
            (Source::Replay(run), Some(replay)) if replay.run == run => Some(&mut replay.progress),
            (Source::Replay(_run), _) => None,
        }
    }
}

#[derive(Debug, Default)]
struct Hook {
    row: Row,
    /// Bytes of each dead letter.
    dead: BTreeMap<u64, usize>,
    dead_bytes: usize,
    unwritten: Unwritten,
}

impl Hook {
    fn keep(&mut self, n: u64, bytes: usize) {
        self.dead.insert(n, bytes);
        self.dead_bytes += bytes;
        self.row.dead_next = self.row.dead_next.max(n + 1);
    }

    fn raise(&mut self, n: u64) -> bool {
        let Some(bytes) = self.dead.remove(&n) else { return false };
        self.dead_bytes -= bytes;
        self.unwritten.risen.push(n);
        true
    }

    /// The oldest, where there are more than may be.
    fn one_too_many(&self) -> Option<u64> {
        let too_many =
            self.dead.len() > DEAD_MAX || self.dead.len() > 1 && self.dead_bytes > DEAD_BYTES_MAX;
        self.dead.first_key_value().map(|(n, _bytes)| *n).filter(|_oldest| too_many)
    }
}

/// What is noted and not written.
#[derive(Debug, Default)]
struct Unwritten {
    /// Whether the row is.
    row: bool,
    /// Whether the row is, in a way that can wait.
    idle: bool,
    deliveries: VecDeque<WebhookDelivery>,
    dead: Vec<DeadLetter>,
    risen: Vec<u64>,
}

impl Unwritten {
    /// Puts back what could not be written, before what came since.
    fn put_back(&mut self, mut before: Self) {
        self.row = true;
        before.deliveries.append(&mut self.deliveries);
        before.deliveries.drain(..before.deliveries.len().saturating_sub(DELIVERIES_MAX));
        before.dead.append(&mut self.dead);
        before.risen.append(&mut self.risen);
        (self.deliveries, self.dead, self.risen) = (before.deliveries, before.dead, before.risen);
    }
}

#[derive(Debug, Default)]
struct Noted {
    hooks: HashMap<WebhookId, Hook>,
    forgotten: Vec<WebhookId>,
    dead_unwritten: usize,
}

/// What a courier works off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// What happens.
    Live,
    /// What happened, again: of this run.
    Replay(u64),
}

/// The store.
#[derive(Debug)]
pub(super) struct Store {
    file: StoreFile,
    noted: Mutex<Noted>,
    /// One at a time writes.
    writing: Mutex<()>,
    /// Told when there is something to write.
    pub(super) told: Notify,
    /// The log was so far when the store was made.
    pub(super) made_at: Seq,
}

impl Store {
    /// Opens the store, or makes it.
    pub(super) fn open(
        path: &Path,
        durable: Seq,
        (opener, waits): (Opener, Waits),
    ) -> Result<Self, StoreError> {
        let file = StoreFile::open(path, opener, waits);
        let file = file.map_err(|error| StoreError::Failed {
            doing: "opened",
            detail: format!(
                "{error}; where {} is damaged, move it away: webhooks go on from here, and what was \
                 known of their deliveries is lost",
                path.display()
            ),
        })?;
        let begun = file.using(|database| begin(database, durable)).map_err(failed("opened"))?;
        let (made_at, mut hooks) = begun.map_err(StoreError::Version)?;
        for Hook { row, .. } in hooks.values_mut() {
            row.progress.check(durable);
            if let Some(replay) = &mut row.replay {
                replay.progress.check(durable);
            }
        }
        let noted = Noted { hooks, ..Noted::default() };
        Ok(Self {
            file,
            noted: Mutex::new(noted),
            writing: Mutex::default(),
            told: Notify::new(),
            made_at,
        })
    }

    fn note<T>(&self, id: WebhookId, change: impl FnOnce(&mut Hook) -> T) -> T {
        let mut noted = self.noted.lock();
        let hook = noted.hooks.entry(id).or_default();
        hook.unwritten.row = true;
        let done = change(hook);
        drop(noted);
        self.told.notify_one();
        done
    }

    /// Figures of a webhook.
    pub(super) fn figures(&self, id: WebhookId) -> WebhookFigures {
        let noted = self.noted.lock();
        let Some(hook) = noted.hooks.get(&id) else { return WebhookFigures::default() };
        WebhookFigures { dead_letters: hook.dead.len() as u64, ..hook.row.figures.clone() }
    }

    /// Dead letters of all webhooks.
    pub(super) fn dead_letters_of_all(&self) -> u64 {
        self.noted.lock().hooks.values().map(|hook| hook.dead.len() as u64).sum()
    }

    /// Whether a receiver said that it wants nothing more.
    pub(super) fn is_gone(&self, id: WebhookId) -> bool {
        self.noted.lock().hooks.get(&id).is_some_and(|hook| hook.row.gone)
    }

    /// A receiver said so, or something is sent to it after all.
    pub(super) fn set_gone(&self, id: WebhookId, gone: bool) {
        if self.is_gone(id) != gone {
            self.note(id, |hook| hook.row.gone = gone);
        }
    }

    /// How far a webhook is, if it was ever sent anything.
    pub(super) fn position(&self, id: WebhookId) -> Option<Position> {
        self.noted.lock().hooks.get(&id)?.row.progress.position()
    }

    /// What is being sent again.
    pub(super) fn replay(&self, id: WebhookId) -> Option<Replay> {
        self.noted.lock().hooks.get(&id)?.row.replay.clone()
    }

    pub(super) fn set_replay(&self, id: WebhookId, replay: Replay) {
        self.note(id, |hook| hook.row.replay = Some(replay));
    }

    /// A run is over: nothing is sent again any more, unless that is of another.
    pub(super) fn end_replay(&self, id: WebhookId, run: u64) {
        self.note(id, |hook| drop(hook.row.replay.take_if(|replay| replay.run == run)));
    }

    /// All before this place is dealt with. Where nothing was sent, that can be written later.
    pub(super) fn moved(&self, id: WebhookId, source: Source, position: Position, sent: bool) {
        let mut noted = self.noted.lock();
        let Hook { row, unwritten, .. } = noted.hooks.entry(id).or_default();
        if !row.progress(source).is_some_and(|progress| progress.moved(position)) {
            return;
        }
        unwritten.row |= sent;
        unwritten.idle = true;
        drop(noted);
        if sent {
            self.told.notify_one();
        }
    }

    /// What is known of what comes after the position.
    pub(super) fn progress(&self, id: WebhookId, source: Source) -> Progress {
        let mut noted = self.noted.lock();
        let row = noted.hooks.get_mut(&id).map(|hook| &mut hook.row);
        row.and_then(|row| row.progress(source)).cloned().unwrap_or_default()
    }

    /// Something is known of what comes after the position.
    pub(super) fn note_progress(
        &self,
        (id, source): (WebhookId, Source),
        change: impl FnOnce(&mut Progress),
    ) {
        self.note(id, |hook| hook.row.progress(source).map(change));
    }

    /// An attempt is over.
    pub(super) fn attempted(&self, id: WebhookId, delivery: WebhookDelivery, worked: bool) {
        self.note(id, |hook| {
            let figures = &mut hook.row.figures;
            figures.total += 1;
            *if worked { &mut figures.successful } else { &mut figures.failed } += 1;
            figures.last_at = Some(delivery.attempted_at);
            let n = hook.row.deliveries_next;
            hook.row.deliveries_next += 1;
            let unwritten = &mut hook.unwritten.deliveries;
            if unwritten.len() == DELIVERIES_MAX {
                unwritten.pop_front();
            }
            unwritten.push_back(WebhookDelivery { n, ..delivery });
        });
    }

    /// Something cannot be delivered.
    pub(super) fn bury(&self, id: WebhookId, letter: DeadLetter) {
        self.note(id, |hook| {
            let n = hook.row.dead_next;
            hook.keep(n, LETTER_BYTES + letter.body.as_ref().map_or(0, String::len));
            hook.unwritten.dead.push(DeadLetter { n, ..letter });
            while let Some(oldest) = hook.one_too_many() {
                hook.raise(oldest);
                hook.row.figures.dead_letters_dropped += 1;
            }
        });
        self.noted.lock().dead_unwritten += 1;
    }

    /// A dead letter is not one any more.
    pub(super) fn raise(&self, id: WebhookId, n: u64) {
        self.note(id, |hook| hook.raise(n));
    }

    /// So much is not written that nothing more should happen.
    pub(super) fn is_clogged(&self) -> bool {
        self.noted.lock().dead_unwritten > DEAD_UNWRITTEN_MAX
    }

    /// Every webhook of which something is kept.
    pub(super) fn known(&self) -> Vec<WebhookId> {
        self.noted.lock().hooks.keys().copied().collect()
    }

    /// A webhook is gone, and so is all that was kept of it.
    pub(super) fn forget(&self, id: WebhookId) {
        let mut noted = self.noted.lock();
        if noted.hooks.remove(&id).is_some() {
            noted.forgotten.push(id);
            self.told.notify_one();
        }
    }

    /// Why it does not work at the moment, if it does not.
    pub(super) fn outage(&self) -> Option<String> {
        self.file.outage()
    }

    /// Writes what is left and lets go of the file. Blocks.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        let written = self.flush(true);
        self.file.close();
        written
    }

    /// Writes what is noted; with `all`, what can wait, too. Blocks.
    pub(super) fn flush(&self, all: bool) -> Result<(), StoreError> {
        let _turn = self.writing.lock();
        self.file.ready().map_err(failed("written"))?;
        let (changes, forgotten) = self.take(all);
        if changes.is_empty() && forgotten.is_empty() {
            self.file.works();
            return Ok(());
        }
        let written = self.file.using(|database| write(database, &changes, &forgotten));
        if let Err(error) = written {
            let mut noted = self.noted.lock();
            noted.forgotten.extend(forgotten);
            for (id, _row, unwritten) in changes {
                noted.dead_unwritten += unwritten.dead.len();
                if let Some(hook) = noted.hooks.get_mut(&id) {
                    hook.unwritten.put_back(unwritten);
                }
            }
            return Err(failed("written")(error));
        }
        self.file.works();
        Ok(())
    }

    fn take(&self, all: bool) -> (Vec<(WebhookId, Row, Unwritten)>, Vec<WebhookId>) {
        let mut noted = self.noted.lock();
        let mut changes = Vec::new();
        for (id, hook) in &mut noted.hooks {
            if hook.unwritten.row || all && hook.unwritten.idle {
                changes.push((*id, hook.row.clone(), std::mem::take(&mut hook.unwritten)));
            }
        }
        noted.dead_unwritten = 0;
        (changes, std::mem::take(&mut noted.forgotten))
    }

    /// Attempts of a webhook, the newest first, of those that `wanted` says: so many after so many,
    /// and how many there are. Blocks.
    pub(super) fn deliveries(
        &self,
        id: WebhookId,
        (skip, take): (usize, usize),
        wanted: impl Fn(&WebhookDelivery) -> bool,
    ) -> Result<(Vec<WebhookDelivery>, usize), StoreError> {
        self.flush(false)?;
        let read = |database: &Database| page(database, (DELIVERIES, id), (skip, take), wanted);
        self.file.using(read).map_err(failed("read"))
    }

    /// Dead letters of a webhook, the newest first. Blocks.
    pub(super) fn dead_letters(
        &self,
        id: WebhookId,
        (skip, take): (usize, usize),
    ) -> Result<(Vec<DeadLetter>, usize), StoreError> {
        self.flush(false)?;
        let all = |_letter: &DeadLetter| true;
        let read = |database: &Database| page(database, (DEAD, id), (skip, take), all);
        self.file.using(read).map_err(failed("read"))
    }

    /// A dead letter. Blocks.
    pub(super) fn dead_letter(
        &self,
        id: WebhookId,
        n: u64,
    ) -> Result<Option<DeadLetter>, StoreError> {
        self.flush(false)?;
        let read = |database: &Database| {
            let table = database.begin_read()?.open_table(DEAD)?;
            let found = table.get((key_of(id), n))?;
            Ok(found.and_then(|found| serde_json::from_slice(found.value()).ok()))
        };
        self.file.using(read).map_err(failed("read"))
    }
}

fn write(
    database: &Database,
    changes: &[(WebhookId, Row, Unwritten)],
    forgotten: &[WebhookId],
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut rows = transaction.open_table(ROWS)?;
        let mut deliveries = transaction.open_table(DELIVERIES)?;
        let mut dead = transaction.open_table(DEAD)?;
        for id in forgotten {
            let key = key_of(*id);
            rows.remove(key)?;
            deliveries.retain_in((key, 0)..=(key, u64::MAX), |_key, _item| false)?;
            dead.retain_in((key, 0)..=(key, u64::MAX), |_key, _item| false)?;
        }
        for (id, row, unwritten) in changes {
            let key = key_of(*id);
            rows.insert(key, &*json(row))?;
            for delivery in &unwritten.deliveries {
                deliveries.insert((key, delivery.n), &*json(delivery))?;
            }
            let oldest = row.deliveries_next.saturating_sub(DELIVERIES_MAX as u64);
            if oldest > 0 && !unwritten.deliveries.is_empty() {
                deliveries.retain_in((key, 0)..(key, oldest), |_key, _item| false)?;
            }
            for letter in &unwritten.dead {
                dead.insert((key, letter.n), &*json(letter))?;
            }
            for n in &unwritten.risen {
                dead.remove((key, *n))?;
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn page<T: for<'a> Deserialize<'a>>(
    database: &Database,
    (items, id): (Items, WebhookId),
    (skip, take): (usize, usize),
    wanted: impl Fn(&T) -> bool,
) -> Result<(Vec<T>, usize), redb::Error> {
    let table = database.begin_read()?.open_table(items)?;
    let key = key_of(id);
    let mut found = Vec::new();
    for item in table.range((key, 0)..=(key, u64::MAX))?.rev() {
        let (_key, item) = item?;
        // What an older release wrote in another way is not shown.
        found.extend(serde_json::from_slice::<T>(item.value()).ok().filter(|item| wanted(item)));
    }
    let total = found.len();
    Ok((found.into_iter().skip(skip).take(take).collect(), total))
}

/// What a store begins with.
type Begun = (Seq, HashMap<WebhookId, Hook>);

/// Begins with what a store has, or with a new one: the log was so far when it was made, and what is
/// known of each webhook. The inner error is the version of another release.
fn begin(database: &Database, durable: Seq) -> Result<Result<Begun, u64>, redb::Error> {
    let transaction = database.begin_write()?;
    let made_at = {
        let mut meta = transaction.open_table(META)?;
        let mut read = |name, new| {
            let found = meta.get(name)?.map(|found| found.value());
            if found.is_none() {
                meta.insert(name, new)?;
            }
            Ok::<u64, redb::StorageError>(found.unwrap_or(new))
        };
        let version = read("version", VERSION)?;
        if version != VERSION {
            return Ok(Err(version));
        }
        Seq::new(read("made_at", durable.get())?)
    };
    let hooks = load(&transaction)?;
    transaction.commit()?;
    Ok(Ok((made_at, hooks)))
}

fn key_of(id: WebhookId) -> u128 {
    u128::from_be_bytes(id.to_bytes())
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // What is written here has text keys and no failing parts.
    serde_json::to_vec(value).unwrap_or_default()
}

/// Reads what is kept in memory; makes the tables where there are none.
fn load(transaction: &WriteTransaction) -> Result<HashMap<WebhookId, Hook>, redb::Error> {
    let mut hooks: HashMap<WebhookId, Hook> = HashMap::new();
    let id_of = |key: u128| WebhookId::from_bytes(key.to_be_bytes());
    for row in transaction.open_table(ROWS)?.iter()? {
        let (key, row) = row?;
        let id = id_of(key.value());
        let row = serde_json::from_slice(row.value()).unwrap_or_else(|error| {
            tracing::warn!(webhook = %id, %error, "what is known of it is damaged: where it is, \
                follows from when it was made, and events are delivered again");
            Row::default()
        });
        hooks.insert(id, Hook { row, ..Hook::default() });
    }
    for letter in transaction.open_table(DEAD)?.iter()? {
        let (key, letter) = letter?;
        let (key, n) = key.value();
        hooks.entry(id_of(key)).or_default().keep(n, letter.value().len());
    }
    let deliveries = transaction.open_table(DELIVERIES)?;
    for (id, Hook { row, .. }) in &mut hooks {
        // What a row does not know of, if it is damaged, is not written over.
        let key = key_of(*id);
        if let Some((last, _delivery)) =
            deliveries.range((key, 0)..=(key, u64::MAX))?.next_back().transpose()?
        {
            row.deliveries_next = row.deliveries_next.max(last.value().1 + 1);
        }
    }
    Ok(hooks)
}
