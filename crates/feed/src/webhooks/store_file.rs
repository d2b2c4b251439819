//! The file of the store, which is closed after an error and opened again a little later: what keeps it
//! takes no more writes after the first that failed, also when the disk is well again.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use redb::backends::FileBackend;
use redb::{Database, DatabaseError};

/// Memory for pages of the store.
const CACHE_BYTES: usize = 16 << 20;
/// Doublings of the wait after which it is the longest in any case.
const DOUBLINGS_MAX: u32 = 16;

type Open = dyn Fn(&Path) -> Result<Database, DatabaseError> + Send + Sync;

/// Opens the file of the store, or makes it.
#[derive(Clone)]
pub(super) struct Opener(Arc<Open>);

impl Opener {
    /// One that opens it otherwise.
    #[cfg(test)]
    pub(super) fn new(
        open: impl Fn(&Path) -> Result<Database, DatabaseError> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(open))
    }
}

impl Default for Opener {
    fn default() -> Self {
        Self(Arc::new(|path| {
            // Bodies of events lie in it.
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let backend = FileBackend::new(file.open(path)?)?;
            Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)
        }))
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener")
    }
}

/// How long a store that failed is left alone: twice as long each time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waits {
    pub(super) first: Duration,
    pub(super) longest: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), longest: Duration::from_secs(10) }
    }
}

/// A store that does not work at the moment.
#[derive(Debug)]
struct Outage {
    failures: u32,
    again_at: Instant,
    error: String,
}

/// The file.
#[derive(Debug)]
pub(super) struct StoreFile {
    path: PathBuf,
    opener: Opener,
    waits: Waits,
    /// `None` after an error, until it is opened again.
    database: RwLock<Option<Database>>,
    is_closed: AtomicBool,
    outage: Mutex<Option<Outage>>,
}

impl StoreFile {
    pub(super) fn open(path: &Path, opener: Opener, waits: Waits) -> Result<Self, DatabaseError> {
        if let Some(dir) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let database = RwLock::new(Some((opener.0)(path)?));
        let path = path.to_owned();
        let is_closed = AtomicBool::new(false);
        Ok(Self { path, opener, waits, database, is_closed, outage: Mutex::default() })
    }

    /// Does something with it, as soon as its time has come again after an error.
    pub(super) fn using<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, String> {
        self.ready()?;
        let done = match &*self.database.read() {
            Some(database) => work(database),
            None => return Err(self.outage().unwrap_or_default()),
        };
        done.map_err(|error| {
            self.database.write().take();
            self.failed(&error)
        })
    }

    /// Why it does not work at the moment, if it does not.
    pub(super) fn outage(&self) -> Option<String> {
        self.outage.lock().as_ref().map(|outage| outage.error.clone())
    }

    /// It has been written to.
    pub(super) fn works(&self) {
        if self.outage.lock().take().is_some() {
            tracing::info!("what came of deliveries can be written again");
        }
    }

    /// Lets go of the file, for good.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.database.write().take();
    }

    /// Opens it again where it was closed after an error and its time has come.
    pub(super) fn ready(&self) -> Result<(), String> {
        let waits = |outage: &Outage| outage.again_at > Instant::now();
        if let Some(outage) = self.outage.lock().as_ref().filter(|outage| waits(outage)) {
            return Err(outage.error.clone());
        }
        if self.database.read().is_some() {
            return Ok(());
        }
        let mut database = self.database.write();
        if self.is_closed.load(Ordering::SeqCst) {
            return Err("the server is shutting down".to_owned());
        }
        if database.is_none() {
            let opened = (self.opener.0)(&self.path);
            *database = Some(opened.map_err(|error| self.failed(&error.into()))?);
        }
        Ok(())
    }

    /// It failed, and is opened again a little later.
    fn failed(&self, error: &redb::Error) -> String {
        let error = error.to_string();
        let mut outage = self.outage.lock();
        let failures = outage.as_ref().map_or(0, |outage| outage.failures);
        if failures == 0 {
            tracing::warn!(
                error,
                "what came of deliveries cannot be written to {}; it is tried again",
                self.path.display()
            );
        }
        let wait = self.waits.first.saturating_mul(1 << failures.min(DOUBLINGS_MAX));
        let again_at = Instant::now() + wait.min(self.waits.longest);
        *outage = Some(Outage { failures: failures + 1, again_at, error: error.clone() });
        error
    }
}
