//! Everything outside the engine, from one seed: disk, clock, randomness, embedder, passing time.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use arrwdb_engine::embed::deterministic::DeterministicProvider;
use arrwdb_engine::embed::http::{HttpOptions, ProxyUse, http_client};
use arrwdb_engine::embed::{
    BoxFuture, CacheConfig, EmbedConfig, EmbedParts, Embedder, LocalSource, Timer,
};
use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::Timestamp;
use arrwdb_engine::{Clock, Engine, EngineConfig, EngineError, EngineParts, Random};

/// Random numbers by xorshift64* (Marsaglia 2003; Vigna 2016): small, fast, the same everywhere.
#[derive(Debug)]
pub(crate) struct Seeded(AtomicU64);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        // The state must not be zero, and the first numbers of similar seeds are similar.
        let seeded = Self(AtomicU64::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1));
        seeded.next();
        seeded.next();
        seeded
    }

    pub(crate) fn next(&self) -> u64 {
        let mut state = self.0.load(Ordering::Relaxed);
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.0.store(state, Ordering::Relaxed);
        state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 8
    }

    /// A number below `end`, which is not zero.
    pub(crate) fn below(&self, end: u64) -> u64 {
        self.next() % end
    }

    /// True once in so many times.
    pub(crate) fn one_in(&self, many: u64) -> bool {
        self.below(many) == 0
    }
}

impl Random for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(4) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// A wall clock that moves a little each time it is asked, and jumps when told.
#[derive(Debug)]
pub(crate) struct Jumping(AtomicI64);

impl Jumping {
    pub(crate) fn jump(&self, micros: i64) {
        let moved = self.0.load(Ordering::Relaxed).saturating_add(micros);
        self.0.store(moved, Ordering::Relaxed);
    }
}

impl Clock for Jumping {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.fetch_add(1000, Ordering::Relaxed))
    }
}

/// Waits of the embedder: short ones (to fill a batch) are over at once, long ones (deadlines) never.
#[derive(Debug)]
struct Patient;

impl Timer for Patient {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        if duration < Duration::from_secs(1) {
            Box::pin(tokio::task::yield_now())
        } else {
            Box::pin(std::future::pending())
        }
    }
}

/// What stays the same over the restarts of a history.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) clock: Arc<Jumping>,
    random: Arc<Seeded>,
    config: EngineConfig,
}

impl World {
    pub(crate) fn new(seed: u64, config: EngineConfig) -> Self {
        let clock = Arc::new(Jumping(AtomicI64::new(1_700_000_000_000_000)));
        Self { clock, random: Arc::new(Seeded::new(seed ^ 0xABCD)), config }
    }

    /// Opens the engine on a disk.
    pub(crate) async fn open(&self, disk: &MemoryDisk) -> Result<Engine, EngineError> {
        let parts = EngineParts {
            clock: self.clock.clone(),
            random: self.random.clone(),
            disk: Arc::new(disk.clone()),
            embedder: embedder().await?,
            reranker: None,
        };
        Engine::open(self.config.clone(), parts).await
    }
}

/// Makes the embedder's parts around one HTTP client, which takes a while to make and is not used.
type MakeParts = Box<dyn Fn() -> EmbedParts + Send + Sync>;

async fn embedder() -> Result<Embedder, EngineError> {
    static PARTS: OnceLock<Result<MakeParts, String>> = OnceLock::new();
    let make = PARTS.get_or_init(|| {
        let options = HttpOptions { proxy: ProxyUse::Never, ..HttpOptions::default() };
        let http = http_client(&options).map_err(|error| error.to_string())?;
        Ok(Box::new(move || EmbedParts {
            local: LocalSource::Custom(Arc::new(DeterministicProvider)),
            http: http.clone(),
            timer: Arc::new(Patient),
            random: Arc::new(|| 7),
        }))
    });
    let failed = |detail: String| EngineError::Storage { detail };
    let parts = make.as_ref().map_err(|error| failed(error.clone()))?();
    let cache = CacheConfig { dir: None, disk_bytes_max: 0, memory_bytes_max: 0 };
    let config = EmbedConfig { cache, ..EmbedConfig::default() };
    Embedder::open(config, parts).await.map_err(|error| failed(error.to_string()))
}

/// Small limits, so that checkpoints, merges, new log files and trims happen in every history.
pub(crate) fn config() -> EngineConfig {
    EngineConfig {
        search_threads: 1,
        history: Duration::ZERO,
        checkpoint_bytes: 2048,
        index_rows_min: 4,
        build_threads: 1,
        log_file_bytes: 8192,
        disk_free_bytes_min: 0,
        ..EngineConfig::new(PathBuf::from("/data"))
    }
}

/// Runs `work` in a runtime of one thread whose time stands still but for [`pass`].
pub(crate) fn run<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    // Paused time runs on by itself when nothing else happens, except while something blocks.
    let (release, released) = mpsc::channel::<()>();
    let outcome = runtime.block_on(async {
        let idle = tokio::task::spawn_blocking(move || released.recv().is_err());
        let outcome = work.await;
        drop(release);
        idle.await.map(|_released| outcome)
    });
    outcome.map_err(std::io::Error::other)
}

/// Time passes: the engine's upkeep looks after disk, catalog and log.
pub(crate) async fn pass(time: Duration) {
    tokio::time::advance(time).await;
}
