//! The memory budget: one sum over all libraries, kept up as they change, so that asking for it
//! costs nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted over all libraries.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gauges {
    /// Bytes that open libraries hold in memory.
    pub(crate) memory: Gauge,
    /// Those of them that are search structures.
    pub(crate) indexes: Gauge,
    /// Libraries that are open.
    pub(crate) open: Gauge,
}

/// The sum of all shares.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// What is held at this moment.
    pub(crate) fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// A share of nothing yet.
    pub(crate) fn share(&self) -> Share {
        Share { total: self.0.clone(), held: AtomicU64::new(0) }
    }
}

/// What one holder has of the sum. It is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    total: Arc<AtomicU64>,
    held: AtomicU64,
}

impl Share {
    pub(crate) fn get(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Holds so much from here on.
    pub(crate) fn set(&self, amount: u64) {
        let before = self.held.swap(amount, Ordering::Relaxed);
        // Two's complement: adding the difference is right in either direction.
        self.total.fetch_add(amount.wrapping_sub(before), Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_follows_its_shares() {
        let gauge = Gauge::default();
        let (one, two) = (gauge.share(), gauge.share());
        one.set(10);
        two.set(5);
        one.set(3);
        assert_eq!((gauge.total(), one.get()), (8, 3));
        drop(one);
        assert_eq!(gauge.total(), 5);
        two.set(0);
        assert_eq!(gauge.total(), 0);
    }
}
