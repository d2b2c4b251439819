//! Every open WebSocket: how many, of which libraries, and who shares a session.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrwdb_engine::state::{LibraryId, TenantId};
use axum::extract::ws::Utf8Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use uuid::Uuid;

/// Sockets of one library that share what they find, by a name that their clients chose.
type SessionKey = (TenantId, LibraryId, String);

/// Every open WebSocket.
#[derive(Debug)]
pub(crate) struct Sockets {
    slots: Arc<Semaphore>,
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
    /// Rung when there was no room for a push: the socket is then closed.
    pub(super) overflow: Arc<Notify>,
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
    pub(crate) fn new(connections_max: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS))),
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
            if let Err(mpsc::error::TrySendError::Full(_)) = member.pushes.try_send(text.clone()) {
                member.overflow.notify_one();
            }
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
