//! Every open WebSocket: how many, of which libraries, and who shares a session.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arrwdb_engine::state::{LibraryId, TenantId};
use axum::extract::ws::Utf8Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use uuid::Uuid;

use crate::config::Config;
use crate::limits::{SOCKET_BUFFER_BYTES, SOCKET_MESSAGES_BYTES_MAX, SOCKET_PENDING_BYTES};

/// Sockets of one library that share what they find, by a name that their clients chose.
type SessionKey = (TenantId, LibraryId, String);

/// Every open WebSocket.
#[derive(Debug)]
pub(crate) struct Sockets {
    slots: Arc<Semaphore>,
    /// Requests of all sockets that are worked on.
    pub(super) working: Arc<Semaphore>,
    /// Searches of all live queries.
    pub(super) watching: Arc<Semaphore>,
    /// KiB of messages of which a part has come.
    pub(super) arriving: Arc<Semaphore>,
    open: Mutex<Open>,
    pub(super) counters: Counters,
    /// Rung whenever one ends.
    ended: Notify,
}

#[derive(Debug, Default)]
struct Open {
    sockets: HashMap<Uuid, About>,
    sessions: HashMap<SessionKey, Vec<Member>>,
}

#[derive(Debug)]
struct About {
    tenant: TenantId,
    library: LibraryId,
    subscribed: bool,
}

/// What all sockets share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SocketBounds {
    pub(super) connections: usize,
    pub(super) requests: usize,
    pub(super) searches: usize,
    pub(super) message_bytes: usize,
}

impl SocketBounds {
    pub(crate) fn of(config: &Config) -> Self {
        let threads = || std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            connections: config.sockets.connections_max,
            requests: config.load.requests_max,
            searches: config.storage.search_threads.unwrap_or_else(threads),
            message_bytes: config.sockets.message_bytes_max,
        }
    }
}

/// What has happened since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) cut_off: AtomicU64,
    pub(super) watches: AtomicU64,
}

/// How one socket is reached by the others.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) connection: Uuid,
    pub(super) pushes: mpsc::Sender<Utf8Bytes>,
    /// Bytes that wait there.
    pub(super) bytes: Arc<AtomicUsize>,
    /// Rung when there was no room for a push: the socket is then closed.
    pub(super) overflow: Arc<Notify>,
}

impl Member {
    /// Puts a text in line. One that has no room for it is cut off.
    fn push(&self, text: &Utf8Bytes) {
        let length = text.as_str().len();
        // One more may pass the bound, as with everything that waits for a client.
        let full = self.bytes.fetch_add(length, Ordering::Relaxed) >= SOCKET_PENDING_BYTES;
        let refused = full
            || match self.pushes.try_send(text.clone()) {
                Ok(()) => return,
                Err(error) => matches!(error, mpsc::error::TrySendError::Full(_)),
            };
        self.bytes.fetch_sub(length, Ordering::Relaxed);
        if refused {
            self.overflow.notify_one();
        }
    }

    /// A text was taken out of the line.
    pub(super) fn took(&self, text: &Utf8Bytes) {
        self.bytes.fetch_sub(text.as_str().len(), Ordering::Relaxed);
    }
}

/// What is told of all sockets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SocketStats {
    /// Open sockets.
    pub(crate) connections: usize,
    /// Open sockets that are pushed events, by library.
    pub(crate) subscriptions: BTreeMap<LibraryId, usize>,
}

impl Sockets {
    /// At most so many.
    pub(crate) fn new(bounds: SocketBounds) -> Self {
        let permits = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        let messages_kib = SOCKET_MESSAGES_BYTES_MAX.max(bounds.message_bytes).div_ceil(1024);
        Self {
            slots: permits(bounds.connections),
            working: permits(bounds.requests),
            watching: permits(bounds.searches),
            // What is read ahead with the largest message has room, too.
            arriving: permits(messages_kib + SOCKET_BUFFER_BYTES.div_ceil(1024)),
            open: Mutex::default(),
            counters: Counters::default(),
            ended: Notify::new(),
        }
    }

    /// A share of how many may be open, if there is one left.
    pub(super) fn slot(&self) -> Option<OwnedSemaphorePermit> {
        self.slots.clone().try_acquire_owned().ok()
    }

    /// A new socket is open, for as long as what is returned lives.
    pub(super) fn register(
        self: &Arc<Self>,
        tenant: TenantId,
        library: LibraryId,
        slot: OwnedSemaphorePermit,
    ) -> Registered {
        let connection = Uuid::new_v4();
        let about = About { tenant, library, subscribed: true };
        self.open.lock().sockets.insert(connection, about);
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let sockets = self.clone();
        Registered { sockets, connection, tenant, library, joined: Vec::new(), _slot: slot }
    }

    /// The open sockets of a tenant.
    pub(crate) fn stats(&self, tenant: TenantId) -> SocketStats {
        let open = self.open.lock();
        let mut stats = SocketStats::default();
        for about in open.sockets.values().filter(|about| about.tenant == tenant) {
            stats.connections += 1;
            if about.subscribed {
                *stats.subscriptions.entry(about.library).or_default() += 1;
            }
        }
        stats
    }

    /// Open sockets of all.
    pub(crate) fn count(&self) -> usize {
        self.open.lock().sockets.len()
    }

    /// Counters by the names of their metrics.
    pub(crate) fn counted(&self) -> [(&'static str, u64); 7] {
        let Counters { accepted, refused, received, sent, requests, failures, cut_off, .. } =
            &self.counters;
        [
            ("arrwdb_websocket_accepted_total", accepted),
            ("arrwdb_websocket_refused_total", refused),
            ("arrwdb_websocket_messages_received_total", received),
            ("arrwdb_websocket_messages_sent_total", sent),
            ("arrwdb_websocket_requests_total", requests),
            ("arrwdb_websocket_request_errors_total", failures),
            ("arrwdb_websocket_cut_off_total", cut_off),
        ]
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
    }

    /// Live queries of all sockets.
    pub(crate) fn watches(&self) -> u64 {
        self.counters.watches.load(Ordering::Relaxed)
    }

    /// Waits until none is open, at most so long; whether that is so.
    pub(crate) async fn closed(&self, longest: Duration) -> bool {
        let none = async {
            loop {
                // Registered before looking, so that no end in between is missed.
                let ended = self.ended.notified();
                if self.count() == 0 {
                    return;
                }
                ended.await;
            }
        };
        tokio::time::timeout(longest, none).await.is_ok()
    }
}

/// An open socket; ends when it is dropped.
#[derive(Debug)]
pub(super) struct Registered {
    sockets: Arc<Sockets>,
    pub(super) connection: Uuid,
    tenant: TenantId,
    library: LibraryId,
    /// The sessions it is in.
    joined: Vec<String>,
    _slot: OwnedSemaphorePermit,
}

impl Registered {
    pub(super) fn counters(&self) -> &Counters {
        &self.sockets.counters
    }

    /// Whether events are pushed to it.
    pub(super) fn set_subscribed(&self, subscribed: bool) {
        if let Some(about) = self.sockets.open.lock().sockets.get_mut(&self.connection) {
            about.subscribed = subscribed;
        }
    }

    /// Takes part in a session. False if it is in as many as it may be.
    pub(super) fn join(&mut self, session: &str, member: &Member, sessions_max: usize) -> bool {
        if self.joined.iter().any(|joined| joined == session) {
            return true;
        }
        if self.joined.len() >= sessions_max {
            return false;
        }
        let key = (self.tenant, self.library, session.to_owned());
        self.sockets.open.lock().sessions.entry(key).or_default().push(member.clone());
        self.joined.push(session.to_owned());
        true
    }

    /// Hands a text to every other socket of a session. One that has no room for it is cut off.
    pub(super) fn share(&self, session: &str, text: &Utf8Bytes) {
        let key = (self.tenant, self.library, session.to_owned());
        let members = self.sockets.open.lock().sessions.get(&key).cloned().unwrap_or_default();
        for member in members.iter().filter(|member| member.connection != self.connection) {
            member.push(text);
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut open = self.sockets.open.lock();
        open.sockets.remove(&self.connection);
        for session in self.joined.drain(..) {
            let key = (self.tenant, self.library, session);
            if let Some(members) = open.sessions.get_mut(&key) {
                members.retain(|member| member.connection != self.connection);
                if members.is_empty() {
                    open.sessions.remove(&key);
                }
            }
        }
        drop(open);
        self.sockets.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn results_of_a_session_wait_up_to_a_number_of_bytes() {
        let bounds = SocketBounds { connections: 2, requests: 1, searches: 1, message_bytes: 1024 };
        let sockets = Arc::new(Sockets::new(bounds));
        let library = LibraryId::from_bytes([7; 16]);
        let open = || sockets.register(TenantId::DEFAULT, library, sockets.slot().unwrap());
        let (from, mut to) = (open(), open());
        let (pushes, mut pushed) = mpsc::channel(100);
        let overflow = Arc::new(Notify::new());
        let member = Member { connection: to.connection, pushes, bytes: Arc::default(), overflow };
        assert!(to.join("s", &member, 1));
        let text = Utf8Bytes::from("x".repeat(SOCKET_PENDING_BYTES / 2));
        let cut_off = async || {
            let rung = member.overflow.notified();
            tokio::time::timeout(Duration::from_millis(1), rung).await.is_ok()
        };
        from.share("s", &text);
        from.share("s", &text);
        assert!(!cut_off().await, "as many bytes as may wait");
        from.share("s", &text);
        assert!(cut_off().await, "one more");
        assert_eq!(pushed.len(), 2);
        member.took(&pushed.recv().await.unwrap());
        from.share("s", &text);
        assert!(!cut_off().await, "there is room again");
        assert_eq!(pushed.len(), 2);
    }
}
