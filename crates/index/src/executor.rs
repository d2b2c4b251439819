//! Threads, as whoever calls this crate gives them.

/// Runs tasks in parallel; the only way this crate uses threads.
pub trait Executor: Sync {
    /// How many tasks run at once, at least one.
    fn width(&self) -> usize;
    /// Runs `task(0)` to `task(tasks - 1)`, in any order, and returns when all are done.
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync));

    /// Whether nobody wants what is being made any more: long work may stop, and its result is
    /// then not used.
    fn stopped(&self) -> bool {
        false
    }
}

/// One after the other on the calling thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sequential;

impl Executor for Sequential {
    fn width(&self) -> usize {
        1
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(task);
    }
}

/// Splits `0..count` into runs of at most `grain`, makes each run's part on the executor, and
/// gives the parts in order: the answer is the same on any number of threads.
pub(crate) fn map_runs<T: Send + Sync>(
    executor: &dyn Executor,
    count: usize,
    grain: usize,
    make: &(dyn Fn(std::ops::Range<usize>) -> T + Sync),
) -> Vec<T> {
    let runs = count.div_ceil(grain);
    let parts: Vec<std::sync::OnceLock<T>> =
        (0..runs).map(|_run| std::sync::OnceLock::new()).collect();
    executor.run(runs, &|run| {
        let first = run * grain;
        parts[run].get_or_init(|| make(first..count.min(first + grain)));
    });
    parts.into_iter().filter_map(std::sync::OnceLock::into_inner).collect()
}
