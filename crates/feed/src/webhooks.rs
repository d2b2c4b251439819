//! Webhooks: followers of the feed that send what they see to somebody else.
//!
//! ```text
//! log: which there are --> one task --> a courier for each that is active --> HTTP
//!                                          |  position, attempts, dead letters
//!                                          +--> store (work/deliveries.redb)
//! ```
//!
//! Each is a cursor of its own with a queue of its own, so that a receiver that is dead or slow delays
//! nobody else. A position is noted after what is before it was taken, or given up and kept as a dead
//! letter: every event is delivered at least once, and always by the same id.

mod courier;
mod couriers;
mod guard;
mod message;
mod names;
mod progress;
mod records;
mod store;
mod store_file;
#[cfg(test)]
mod tests;
mod vault;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrwdb_engine::state::{Seq, TenantId, Timestamp, Webhook, WebhookId, WebhookStatus};
use arrwdb_engine::{Engine, EngineError, Written};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use self::couriers::Couriers;
pub use self::guard::{Reach, TargetError};
use self::message::{Attempt, Message, Target, Verdict, id_of};
use self::names::{Lookup, Names};
use self::progress::Progress;
pub use self::records::{
    DeadLetter, DeliveryStatus, Redelivered, Replay, WebhookDelivery, WebhookFigures,
    WebhooksConfig, WebhooksError, WebhooksStats,
};
use self::store::Store;
pub use self::store::StoreError;
use self::store_file::{Opener, Waits};
pub use self::vault::{Secret, Vault, VaultError};
use crate::error::FeedError;
use crate::event::Position;
use crate::event_type::{EventType, EventTypes, UnknownEventType};
use crate::feed::Feed;
use crate::json;

/// How long couriers are waited for at the end.
const CLOSE: Duration = Duration::from_secs(3);
/// Dead letters that one request delivers again.
const REDELIVER_MAX: usize = 100;
/// How long one request goes on with that.
const REDELIVER_TIME: Duration = Duration::from_mins(1);

/// How often things are done.
#[derive(Debug, Clone, Copy)]
struct Tempo {
    /// What came of deliveries is written this often.
    flush: Duration,
    /// Positions that moved though nothing was sent are noted and written this often.
    flush_idle: Duration,
    /// One that ended by an error is begun again after this; twice as long each time.
    again: Duration,
    /// A store that failed is tried again after these.
    store: Waits,
}

impl Default for Tempo {
    fn default() -> Self {
        Self {
            flush: Duration::from_millis(100),
            flush_idle: Duration::from_secs(10),
            again: Duration::from_secs(1),
            store: Waits::default(),
        }
    }
}

/// What the settings do not say; tests have others.
#[derive(Debug, Clone, Default)]
struct Parts {
    tempo: Tempo,
    lookup: Lookup,
    opener: Opener,
}

/// Everything that sends events to webhooks. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Webhooks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    feed: Feed,
    engine: Engine,
    vault: Vault,
    reach: Reach,
    client: reqwest::Client,
    store: Store,
    tempo: Tempo,
    /// Held while one is changed, so that no change is lost.
    changing: tokio::sync::Mutex<()>,
    /// Told when the couriers may have to be others.
    changed: Notify,
    couriers: Mutex<Couriers>,
    /// Webhooks that a request sends to.
    sending: Mutex<HashSet<WebhookId>>,
    stopping: watch::Sender<bool>,
    /// Events that wait after an attempt that failed.
    retrying: Arc<AtomicU64>,
    delivered: AtomicU64,
    failed: AtomicU64,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Webhooks {
    /// Begins to deliver.
    ///
    /// # Errors
    /// The key or the store cannot be opened.
    pub async fn start(
        feed: Feed,
        engine: Engine,
        config: WebhooksConfig,
    ) -> Result<Self, WebhooksError> {
        Self::start_with(feed, engine, config, Parts::default()).await
    }

    async fn start_with(
        feed: Feed,
        engine: Engine,
        config: WebhooksConfig,
        parts: Parts,
    ) -> Result<Self, WebhooksError> {
        let client =
            guard::client(config.reach, Names::new(parts.lookup)).map_err(WebhooksError::Client)?;
        let durable = engine.durable();
        let (key, path, waits) = (config.key, config.store, parts.tempo.store);
        let opened = tokio::task::spawn_blocking(move || {
            Ok::<_, WebhooksError>((
                Vault::open(&key)?,
                Store::open(&path, durable, (parts.opener, waits))?,
            ))
        });
        let opened = opened.await.map_err(|error| WebhooksError::Client(error.to_string()))?;
        let (vault, store) = opened?;
        let shared = Arc::new(Shared {
            feed,
            engine,
            vault,
            reach: config.reach,
            client,
            store,
            tempo: parts.tempo,
            changing: tokio::sync::Mutex::new(()),
            changed: Notify::new(),
            couriers: Mutex::default(),
            sending: Mutex::default(),
            stopping: watch::Sender::new(false),
            retrying: Arc::default(),
            delivered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            tasks: Mutex::default(),
        });
        shared.warn_of_a_new_key().await;
        let tasks = [tokio::spawn(shared.clone().follow()), tokio::spawn(shared.clone().write())];
        shared.tasks.lock().extend(tasks);
        Ok(Self(shared))
    }

    /// Stops delivering; what is under way may arrive for a moment. Returns when what is known is
    /// written.
    pub async fn close(&self) {
        let shared = &self.0;
        shared.stopping.send_replace(true);
        let tasks = std::mem::take(&mut *shared.tasks.lock());
        for task in tasks {
            // One that panicked has said so.
            task.await.unwrap_or_default();
        }
        let couriers = std::mem::take(&mut *shared.couriers.lock());
        for running in couriers.values() {
            running.stop();
        }
        let ended = async {
            for running in couriers.into_values() {
                running.ended().await;
            }
        };
        if tokio::time::timeout(CLOSE, ended).await.is_err() {
            tracing::warn!("deliveries that were under way are cut off; they are sent again");
        }
        if let Err(error) = self.blocking(|shared| shared.store.close()).await {
            tracing::warn!(%error, "what came of the last deliveries is lost; they are sent again");
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, WebhooksError> {
        let shared = self.0.clone();
        let done = tokio::task::spawn_blocking(move || what(&shared)).await;
        let done =
            done.map_err(|error| StoreError::Failed { doing: "used", detail: error.to_string() });
        Ok(done.flatten()?)
    }

    /// Refuses a name that no event has, nor a family.
    ///
    /// # Errors
    /// It is one.
    pub fn check_name(name: &str) -> Result<(), UnknownEventType> {
        types_of([name]).map(drop)
    }

    /// What may be connected to.
    pub fn reach(&self) -> Reach {
        self.0.reach
    }

    /// What keeps the secrets.
    pub fn vault(&self) -> &Vault {
        &self.0.vault
    }

    /// Changes a webhook of a tenant; one change at a time. What `change` leaves as it was is written
    /// all the same.
    ///
    /// # Errors
    /// There is none, or it cannot be written.
    pub async fn change<E: From<EngineError>>(
        &self,
        (tenant, id): (TenantId, WebhookId),
        change: impl FnOnce(&mut Webhook) -> Result<(), E>,
    ) -> Result<Written<Arc<Webhook>>, E> {
        let shared = &self.0;
        let _turn = shared.changing.lock().await;
        let (found, _seq) = shared.engine.webhook((tenant, id), None).await?;
        let mut webhook = Webhook::clone(&found);
        change(&mut webhook)?;
        webhook.updated_at = shared.engine.now();
        let written = shared.engine.change_webhook(webhook.clone()).await?;
        Ok(Written { seq: written.seq, value: Arc::new(webhook) })
    }

    /// What is known of a webhook's deliveries.
    pub fn figures(&self, id: WebhookId) -> WebhookFigures {
        self.0.store.figures(id)
    }

    /// What is sent again of a webhook.
    pub fn replaying(&self, id: WebhookId) -> Option<Replay> {
        self.0.store.replay(id)
    }

    /// How far a webhook is: all before is dealt with.
    pub fn position(&self, webhook: &Webhook) -> Position {
        self.0.begin(webhook)
    }

    /// What keeps a webhook from being sent anything, if something does but its status.
    pub fn obstacle(&self, webhook: &Webhook) -> Option<String> {
        let refused = self.0.target(webhook).err().map(|error| error.to_string());
        refused.or_else(|| self.0.trouble(webhook))
    }

    /// Attempts, the newest first: so many after so many, and how many there are.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn deliveries(
        &self,
        id: WebhookId,
        page: (usize, usize),
        status: Option<DeliveryStatus>,
    ) -> Result<(Vec<WebhookDelivery>, usize), WebhooksError> {
        let wanted =
            move |delivery: &WebhookDelivery| status.is_none_or(|status| delivery.status == status);
        self.blocking(move |shared| shared.store.deliveries(id, page, wanted)).await
    }

    /// Dead letters, the newest first: so many after so many, and how many there are.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn dead_letters(
        &self,
        id: WebhookId,
        page: (usize, usize),
    ) -> Result<(Vec<DeadLetter>, usize), WebhooksError> {
        self.blocking(move |shared| shared.store.dead_letters(id, page)).await
    }

    /// Sends a dead letter once more, whatever the status of the webhook; one that is taken is one no
    /// more.
    ///
    /// # Errors
    /// There is none, or there is nothing of it to send, or another request sends to the webhook.
    pub async fn redeliver(
        &self,
        webhook: &Webhook,
        n: u64,
    ) -> Result<WebhookDelivery, WebhooksError> {
        let _sending = self.0.begin_sending(webhook.id)?;
        self.send_letter(webhook, n).await
    }

    async fn send_letter(
        &self,
        webhook: &Webhook,
        n: u64,
    ) -> Result<WebhookDelivery, WebhooksError> {
        let id = webhook.id;
        let letter = self.blocking(move |shared| shared.store.dead_letter(id, n)).await?;
        let letter = letter.ok_or(WebhooksError::NoDeadLetter(n))?;
        let message = letter.message().ok_or(WebhooksError::Nothing(n))?;
        let delivery = self.0.send_once(webhook, &message, letter.attempts + 1).await?;
        if delivery.status == DeliveryStatus::Success {
            self.0.store.raise(id, n);
        }
        Ok(delivery)
    }

    /// Sends dead letters once more, the oldest first, until one fails or it has taken long.
    ///
    /// # Errors
    /// The store cannot be read, or another request sends to the webhook.
    pub async fn redeliver_all(&self, webhook: &Webhook) -> Result<Redelivered, WebhooksError> {
        let _sending = self.0.begin_sending(webhook.id)?;
        let began = tokio::time::Instant::now();
        let (mut letters, _total) = self.dead_letters(webhook.id, (0, store::DEAD_MAX)).await?;
        let mut done = Redelivered { delivered: 0, failed: 0, remaining: 0 };
        letters.retain(|letter| letter.message().is_some());
        for letter in letters.iter().rev().take(REDELIVER_MAX) {
            if done.failed > 0 || began.elapsed() > REDELIVER_TIME {
                break;
            }
            match self.send_letter(webhook, letter.n).await {
                Ok(delivery) if delivery.status == DeliveryStatus::Success => done.delivered += 1,
                Ok(_not_taken) => done.failed += 1,
                // Somebody else did it meanwhile.
                Err(WebhooksError::NoDeadLetter(_)) => {}
                Err(error) => return Err(error),
            }
        }
        done.remaining = self.figures(webhook.id).dead_letters;
        Ok(done)
    }

    /// Removes a dead letter.
    ///
    /// # Errors
    /// There is none.
    pub async fn remove_dead_letter(&self, id: WebhookId, n: u64) -> Result<(), WebhooksError> {
        let letter = self.blocking(move |shared| shared.store.dead_letter(id, n)).await?;
        letter.ok_or(WebhooksError::NoDeadLetter(n))?;
        self.0.store.raise(id, n);
        self.blocking(|shared| shared.store.flush(false)).await
    }

    /// Sends the events of some records again, beside what happens.
    ///
    /// # Errors
    /// The webhook is not active, a replay is under way, or it cannot be written down.
    pub async fn replay(
        &self,
        webhook: &Webhook,
        (from, to): (Seq, Seq),
    ) -> Result<Replay, WebhooksError> {
        if webhook.status != WebhookStatus::Active {
            return Err(WebhooksError::Inactive(webhook.status.name()));
        }
        let (shared, id) = (&self.0, webhook.id);
        let _turn = shared.changing.lock().await;
        if let Some(Replay { from, to, .. }) = shared.store.replay(id) {
            return Err(WebhooksError::Replaying { from, to });
        }
        let [bits @ .., _, _] = shared.vault.random_bits();
        let run = u64::from_le_bytes(bits);
        let replay = Replay { from: from.get(), to: to.get(), run, progress: Progress::default() };
        shared.store.set_replay(id, replay.clone());
        // Rung first: it begins also where whoever asked for it does not wait for the disk.
        shared.changed.notify_one();
        let written = self.blocking(|shared| shared.store.flush(false)).await;
        if written.is_err() {
            // What is answered by an error has not begun.
            shared.store.end_replay(id, run);
            shared.changed.notify_one();
        }
        written.map(|()| replay)
    }

    /// Sends nothing again any more.
    ///
    /// # Errors
    /// Nothing is sent again, or that it ends cannot be written down: then it ends until the next
    /// start.
    pub async fn cancel_replay(&self, id: WebhookId) -> Result<(), WebhooksError> {
        let shared = &self.0;
        let _turn = shared.changing.lock().await;
        let replay = shared.store.replay(id).ok_or(WebhooksError::NoReplay)?;
        shared.store.end_replay(id, replay.run);
        shared.changed.notify_one();
        self.blocking(|shared| shared.store.flush(false)).await
    }

    /// Sends an event that says it is a test, whatever the status of the webhook.
    ///
    /// # Errors
    /// The secret cannot be read, or another request sends to the webhook.
    pub async fn test(&self, webhook: &Webhook) -> Result<WebhookDelivery, WebhooksError> {
        let shared = &self.0;
        let _sending = shared.begin_sending(webhook.id)?;
        let now = shared.engine.now();
        let id = id_of(now, &shared.vault.random_bits());
        let event_type = EventType::JobCompleted.name();
        let data = format!(
            "{{\"test\":true,\"message\":\"This is a test of the webhook\",\"webhook_id\":\"{}\"}}",
            webhook.id
        );
        let tenant = Some(webhook.tenant).filter(|tenant| *tenant != TenantId::DEFAULT);
        let mut body = String::new();
        json::delivered_as((&id, event_type), now, (&data, tenant), &mut body);
        let message = Message { id, event_type, body: body.into(), position: None, library: None };
        shared.send_once(webhook, &message, 1).await
    }

    /// Webhooks that their receivers have disabled, by answering 410, and nobody has activated since.
    fn disabled_by_receiver(&self) -> u64 {
        let shared = &self.0;
        let disabled = shared.engine.webhooks_now().into_iter().filter(|webhook| {
            webhook.status == WebhookStatus::Disabled && shared.store.is_gone(webhook.id)
        });
        disabled.count() as u64
    }

    /// What keeps what comes of deliveries from being written, if something does.
    pub fn outage(&self) -> Option<String> {
        self.0.store.outage()
    }

    /// Figures of all.
    pub fn stats(&self) -> WebhooksStats {
        let shared = &self.0;
        let (couriers, in_trouble) = shared.under_way();
        // Both go on until they are told to stop.
        let works = shared.tasks.lock().iter().all(|task| !task.is_finished());
        WebhooksStats {
            couriers,
            in_trouble,
            retrying: shared.retrying.load(Ordering::Relaxed),
            disabled_by_receiver: self.disabled_by_receiver(),
            dead_letters: shared.store.dead_letters_of_all(),
            delivered: shared.delivered.load(Ordering::Relaxed),
            failed: shared.failed.load(Ordering::Relaxed),
            running: works && shared.store.outage().is_none() && !*shared.stopping.borrow(),
        }
    }
}

/// A request that sends to a webhook, for as long as it lives.
struct Sending<'a>(&'a Shared, WebhookId);

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.0.sending.lock().remove(&self.1);
    }
}

impl Shared {
    async fn warn_of_a_new_key(&self) {
        let sealed = if self.vault.is_new { self.engine.webhooks(None).await.ok() } else { None };
        let count = sealed.map_or(0, |(webhooks, _seq)| webhooks.len());
        if count > 0 {
            tracing::error!(
                webhooks = count,
                "a new key was made, and there are webhooks whose secrets only the one before can \
                 read: put that file back and start the server again, or rotate their secrets"
            );
        }
    }

    /// One request at a time sends to a webhook: more would wait for the same receiver, in the way
    /// of those that send to others.
    fn begin_sending(&self, id: WebhookId) -> Result<Sending<'_>, WebhooksError> {
        let is_first = self.sending.lock().insert(id);
        is_first.then(|| Sending(self, id)).ok_or(WebhooksError::Sending)
    }

    /// Where a webhook goes on.
    fn begin(&self, webhook: &Webhook) -> Position {
        let durable = Position::after(self.engine.durable());
        // A store that is newer than the webhook knows nothing of what it was sent before.
        let first = Position::after(webhook.after.max(self.store.made_at));
        self.store.position(webhook.id).unwrap_or(first).min(durable)
    }

    fn target(&self, webhook: &Webhook) -> Result<Target, WebhooksError> {
        let signer = self.vault.signer(webhook.id, &webhook.secrets);
        let signer = signer.ok_or(WebhooksError::Unreadable)?;
        let url = self.reach.read_target(&webhook.url)?;
        let timeout = Duration::from_secs(u64::from(webhook.timeout_seconds.max(1)));
        Ok(Target { webhook: webhook.id, url, timeout, signer, client: self.client.clone() })
    }

    async fn send_once(
        &self,
        webhook: &Webhook,
        message: &Message,
        number: u32,
    ) -> Result<WebhookDelivery, WebhooksError> {
        let target = self.target(webhook)?;
        let attempt = target.send(message, self.engine.now()).await;
        Ok(self.attempted(webhook, message, &attempt, (number, None)))
    }

    /// Notes an attempt.
    fn attempted(
        &self,
        webhook: &Webhook,
        message: &Message,
        attempt: &Attempt,
        (number, next): (u32, Option<Duration>),
    ) -> WebhookDelivery {
        let worked = attempt.verdict == Verdict::Delivered;
        let counter = if worked { &self.delivered } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        let status = match (worked, next) {
            (true, _) => DeliveryStatus::Success,
            (false, Some(_)) => DeliveryStatus::Retrying,
            (false, None) => DeliveryStatus::Failed,
        };
        let now = self.engine.now();
        let delivery = WebhookDelivery {
            n: 0,
            id: id_of(attempt.at, &self.vault.random_bits()).to_string(),
            event_id: message.id.to_string(),
            event_type: message.event_type.to_owned(),
            position: message.position.map(|position| position.to_string()),
            status,
            attempt_number: number,
            attempted_at: attempt.at.micros(),
            status_code: attempt.status,
            response_body: attempt.answer.clone(),
            error_message: attempt.error.clone(),
            duration_ms: (attempt.took.as_secs_f64() * 1e5).round() / 100.0,
            next_retry_at: next.map(|delay| after(now, delay)),
        };
        self.store.attempted(webhook.id, delivery.clone(), worked);
        delivery
    }

    /// Writes what came of deliveries, now and then.
    async fn write(self: Arc<Self>) {
        let mut stopping = self.stopping.subscribe();
        let mut idle = tokio::time::interval(self.tempo.flush_idle);
        loop {
            let all = tokio::select! {
                () = self.store.told.notified() => false,
                _tick = idle.tick() => true,
                _stopping = stopping.wait_for(|stopping| *stopping) => return,
            };
            let shared = self.clone();
            let written = tokio::task::spawn_blocking(move || shared.store.flush(all)).await;
            let written = written.map_err(|error| error.to_string());
            let written = written.and_then(|done| done.map_err(|error| error.to_string()));
            if written.is_err() {
                // The store has said so, once.
                self.store.told.notify_one();
            }
            tokio::select! {
                () = tokio::time::sleep(self.tempo.flush) => {}
                _stopping = stopping.wait_for(|stopping| *stopping) => return,
            }
        }
    }
}

/// Names that are subscribed to in vain: of what the original's list has and nothing tells of.
const SILENT: [&str; 3] = ["search.*", "search.completed", "search.performed"];

/// What names mean, those included that nothing happens of.
fn types_of<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<EventTypes, UnknownEventType> {
    let names: Vec<&str> = names.into_iter().filter(|name| !SILENT.contains(name)).collect();
    if names.is_empty() { Ok(EventTypes::NONE) } else { EventTypes::of(names) }
}

fn engine_error(error: FeedError) -> WebhooksError {
    match error {
        FeedError::Engine(error) => error.into(),
        FeedError::Closed => EngineError::Closed.into(),
        error @ (FeedError::Trimmed { .. } | FeedError::LibraryNotFound(_)) => {
            WebhooksError::Client(error.to_string())
        }
    }
}

fn after(now: Timestamp, delay: Duration) -> i64 {
    let micros = i64::try_from(delay.as_micros()).unwrap_or(i64::MAX);
    now.micros().saturating_add(micros)
}
