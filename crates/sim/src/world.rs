//! Everything outside the engine, from one seed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arrwdb_engine::embed::deterministic::DeterministicProvider;
use arrwdb_engine::embed::http::{HttpOptions, http_client};
use arrwdb_engine::embed::{EmbedConfig, EmbedParts, Embedder, LocalSource, TokioTimer};
use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::Timestamp;
use arrwdb_engine::{Clock, Engine, EngineConfig, EngineParts, Random};

use crate::history::Failure;

/// Random numbers by xorshift64* (Marsaglia 2003; Vigna 2016): small, fast, the same everywhere.
#[derive(Debug)]
pub(crate) struct Seeded(AtomicU64);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        // The state must not be zero.
        Self(AtomicU64::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1))
    }

    pub(crate) fn next(&self) -> u64 {
        let mut state = self.0.load(Ordering::Relaxed);
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.0.store(state, Ordering::Relaxed);
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`, which is not zero.
    pub(crate) fn below(&self, end: u64) -> u64 {
        self.next() % end
    }
}

impl Random for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// A clock that moves a little each time it is asked.
#[derive(Debug)]
struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.fetch_add(1000, Ordering::Relaxed))
    }
}

/// Opens the engine on a disk.
pub(crate) async fn open(disk: &MemoryDisk, seed: u64) -> Result<Engine, Failure> {
    let failed = |error: String| Failure::Engine(format!("cannot open: {error}"));
    let http = http_client(&HttpOptions::default()).map_err(|error| failed(error.to_string()))?;
    let parts = EmbedParts {
        local: LocalSource::Custom(Arc::new(DeterministicProvider)),
        http,
        timer: Arc::new(TokioTimer::new()),
        random: Arc::new(move || seed),
    };
    let embedder = Embedder::open(EmbedConfig::default(), parts)
        .await
        .map_err(|error| failed(error.to_string()))?;
    let parts = EngineParts {
        clock: Arc::new(Ticking(AtomicI64::new(1_700_000_000_000_000))),
        random: Arc::new(Seeded::new(seed ^ 0xABCD)),
        disk: Arc::new(disk.clone()),
        embedder,
    };
    Engine::open(config(), parts).await.map_err(|error| failed(error.to_string()))
}

fn config() -> EngineConfig {
    EngineConfig {
        search_threads: 1,
        history: Duration::ZERO,
        // Small, so that checkpoints and merges happen in every history.
        checkpoint_bytes: 2048,
        feed_retention: Duration::ZERO,
        feed_retention_bytes: 0,
        disk_free_bytes_min: 0,
        ..EngineConfig::new(PathBuf::from("/data"))
    }
}
