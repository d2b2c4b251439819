//! Names of receivers are resolved by a few threads of their own: a name server that does not answer
//! keeps those busy, and neither the pool that storage uses nor other names for long.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

/// Names that are looked up at the same time, each by a thread that ends with it.
const TURNS: usize = 16;
/// How long a name waits for its turn.
const WAIT: Duration = Duration::from_secs(5);

type Look = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// What is asked for the addresses of a name. Blocks.
#[derive(Clone)]
pub(super) struct Lookup(Arc<Look>);

impl Lookup {
    /// Asks something else than the operating system.
    #[cfg(test)]
    pub(super) fn new(
        look: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(look))
    }
}

impl Default for Lookup {
    fn default() -> Self {
        // The port is the URL's; it is set by whoever connects.
        Self(Arc::new(|name| Ok((name, 0).to_socket_addrs()?.map(|at| at.ip()).collect())))
    }
}

impl std::fmt::Debug for Lookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lookup")
    }
}

/// Why a name has no addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameError {
    /// It was not even asked for them.
    #[error("too many names are being looked up, and take long: does the name server answer?")]
    Busy,
    /// It has none, or nobody says so.
    #[error("its name cannot be resolved: {0}")]
    Failed(Arc<str>),
}

impl From<io::Error> for NameError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string().into())
    }
}

/// What came of a look-up; those who wait for the same name share it.
pub(super) type Found = Result<Arc<[IpAddr]>, NameError>;

/// Resolves names. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(super) struct Names(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    lookup: Lookup,
    turns: Arc<Semaphore>,
    wait: Duration,
    /// Names that are being looked up, or wait for their turn.
    open: Mutex<HashMap<String, watch::Receiver<Option<Found>>>>,
}

impl Names {
    pub(super) fn new(lookup: Lookup) -> Self {
        Self::waiting(lookup, WAIT)
    }

    fn waiting(lookup: Lookup, wait: Duration) -> Self {
        let turns = Arc::new(Semaphore::new(TURNS));
        Self(Arc::new(Inner { lookup, turns, wait, open: Mutex::default() }))
    }

    /// The addresses of a name. Whoever asks for one that is being looked up waits for that.
    pub(super) async fn resolve(&self, name: &str) -> Found {
        let mut found = self.join(name);
        let found = found.wait_for(Option::is_some).await;
        let found = found.ok().and_then(|found| found.clone());
        found.unwrap_or_else(|| Err(io::Error::other("the look-up was given up").into()))
    }

    fn join(&self, name: &str) -> watch::Receiver<Option<Found>> {
        let mut open = self.0.open.lock();
        if let Some(there) = open.get(name) {
            return there.clone();
        }
        let (sender, receiver) = watch::channel(None);
        open.insert(name.to_owned(), receiver.clone());
        drop(open);
        // On its own: it goes on though whoever asked first has left.
        let (inner, name) = (self.0.clone(), name.to_owned());
        tokio::spawn(async move {
            let found = inner.look_up(&name).await;
            inner.open.lock().remove(&name);
            sender.send_replace(Some(found));
        });
        receiver
    }
}

impl Inner {
    async fn look_up(&self, name: &str) -> Found {
        let turn = self.turns.clone().acquire_owned();
        let Ok(Ok(turn)) = tokio::time::timeout(self.wait, turn).await else {
            return Err(NameError::Busy);
        };
        let found = self.begin(name, turn)?;
        let found = found.await.map_err(|_panicked| io::Error::other("the look-up panicked"))?;
        Ok(found?.into())
    }

    fn begin(
        &self,
        name: &str,
        turn: OwnedSemaphorePermit,
    ) -> io::Result<oneshot::Receiver<io::Result<Vec<IpAddr>>>> {
        let (sender, found) = oneshot::channel();
        let (lookup, name) = (self.lookup.clone(), name.to_owned());
        thread::Builder::new().name("webhook-names".into()).spawn(move || {
            let answer = (lookup.0)(&name);
            drop(turn);
            // Whoever asked may have left.
            drop(sender.send(answer));
        })?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// A name server that answers when `let_go` does, and how often it was asked.
    fn dead() -> (Lookup, mpsc::Sender<()>, Arc<AtomicUsize>) {
        let (let_go, waits) = mpsc::channel::<()>();
        let (waits, asked) = (Mutex::new(waits), Arc::new(AtomicUsize::new(0)));
        let counter = asked.clone();
        let lookup = Lookup::new(move |name| {
            counter.fetch_add(1, Ordering::SeqCst);
            if name.starts_with("dead") {
                waits.lock().recv().unwrap_or_default();
            }
            Ok(vec![HERE])
        });
        (lookup, let_go, asked)
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_however_many_ask() {
        let (lookup, let_go, asked) = dead();
        let names = Names::new(lookup);
        let asking: Vec<_> = (0..100)
            .map(|_who| {
                tokio::spawn({
                    let names = names.clone();
                    async move { names.resolve("dead.example").await }
                })
            })
            .collect();
        while asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        // Another is not kept waiting.
        assert_eq!(names.resolve("live.example").await.unwrap()[..], [HERE]);
        drop(let_go);
        for found in asking {
            assert_eq!(found.await.unwrap().unwrap()[..], [HERE]);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        assert!(names.0.open.lock().is_empty());
        names.resolve("live.example").await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 3, "what was found is not kept");
    }

    #[tokio::test]
    async fn so_many_names_are_looked_up_at_once_and_the_next_waits_for_so_long() {
        let (lookup, let_go, asked) = dead();
        let names = Names::waiting(lookup, Duration::from_millis(10));
        let asking: Vec<_> = (0..TURNS)
            .map(|n| {
                tokio::spawn({
                    let names = names.clone();
                    async move { names.resolve(&format!("dead{n}.example")).await }
                })
            })
            .collect();
        while asked.load(Ordering::SeqCst) < TURNS {
            tokio::task::yield_now().await;
        }
        let refused = names.resolve("live.example").await.unwrap_err();
        assert_eq!(refused, NameError::Busy);
        drop(let_go);
        for found in asking {
            found.await.unwrap().unwrap();
        }
        names.resolve("live.example").await.unwrap();
    }

    #[test]
    fn the_pool_that_storage_uses_has_nothing_to_do_with_it() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.max_blocking_threads(1).enable_all().build().unwrap();
        let (let_go, waits) = mpsc::channel::<()>();
        let busy = runtime.spawn_blocking(move || waits.recv().unwrap_or_default());
        let names = Names::new(Lookup::default());
        let limit = Duration::from_secs(20);
        let found = runtime
            .block_on(async { tokio::time::timeout(limit, names.resolve("localhost")).await });
        assert!(!found.expect("it waits for the pool").unwrap().is_empty());
        drop(let_go);
        runtime.block_on(busy).unwrap();
    }
}
