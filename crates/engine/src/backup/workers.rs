//! A few threads for many transfers: what is small is slow because of the way, not of its size.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// Transfers at the same time. Each holds a few parts of an object in memory.
const THREADS: usize = 4;

/// Does `work` for each item, a few at a time, and returns the results in the items' order. After
/// the first failure nothing new is begun.
pub(super) fn each<T: Send, R: Send, E: Send>(
    items: Vec<T>,
    work: impl Fn(T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let count = items.len();
    let queue = Mutex::new(items.into_iter().enumerate());
    let done = Mutex::new(Vec::with_capacity(count));
    let failed = AtomicBool::new(false);
    let worker = || {
        while !failed.load(Ordering::Relaxed) {
            // Taken in a statement of its own, so that the lock is not held while working.
            let next = queue.lock().next();
            let Some((place, item)) = next else { return };
            let result = work(item);
            if result.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            done.lock().push((place, result));
        }
    };
    std::thread::scope(|scope| {
        for _thread in 1..THREADS.min(count) {
            scope.spawn(worker);
        }
        worker();
    });
    let mut done = done.into_inner();
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_a_failure_stops_the_rest() {
        let doubled = each((0..100).collect(), |n| Ok::<_, ()>(n * 2)).unwrap();
        assert_eq!(doubled, (0..100).map(|n| n * 2).collect::<Vec<_>>());
        let begun = Mutex::new(0);
        let failed = each((0..1000).collect(), |n| {
            *begun.lock() += 1;
            if n == 0 { Err(n) } else { Ok(()) }
        });
        assert!(failed.is_err());
        assert!(each(Vec::<u8>::new(), |_| Err::<(), ()>(())).unwrap().is_empty());
    }
}
