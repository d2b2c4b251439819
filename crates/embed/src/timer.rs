//! Time and chance, passed in so that a simulation can own them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::provider::BoxFuture;

/// A monotonic clock that can wait.
pub trait Timer: Send + Sync + fmt::Debug {
    /// Time since an origin that never changes.
    fn now(&self) -> Duration;

    /// Completes once `duration` has passed.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// Tokio's clock; stands still and jumps where its tests pause it.
#[derive(Debug)]
pub struct TokioTimer {
    origin: tokio::time::Instant,
}

impl TokioTimer {
    /// A clock whose origin is now.
    pub fn new() -> Self {
        TokioTimer { origin: tokio::time::Instant::now() }
    }
}

impl Default for TokioTimer {
    fn default() -> Self {
        TokioTimer::new()
    }
}

impl Timer for TokioTimer {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// A source of random 64-bit numbers. Only jitter depends on it.
pub type Random = Arc<dyn Fn() -> u64 + Send + Sync>;
