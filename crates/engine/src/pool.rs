//! The CPU pool: searches and merges run here, never on the threads that serve the network.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use arrwdb_state::Executor;
use rayon::prelude::*;
use tokio::sync::oneshot;

use crate::error::EngineError;

/// A fixed number of threads.
#[derive(Debug, Clone)]
pub(crate) struct Pool(Arc<rayon::ThreadPool>);

impl Pool {
    pub(crate) fn new(threads: usize) -> Result<Self, EngineError> {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|n| format!("arrwdb-cpu-{n}"))
            .build()
            .map(|pool| Self(Arc::new(pool)))
            .map_err(|error| EngineError::Storage {
                detail: format!("cannot start {threads} CPU threads: {error}"),
            })
    }

    /// As [`Pool::new`], of threads that give way to the others, but not altogether.
    pub(crate) fn low(threads: usize) -> Result<Self, EngineError> {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|n| format!("arrwdb-match-{n}"))
            .start_handler(|_thread| be_nice())
            .build()
            .map(|pool| Self(Arc::new(pool)))
            .map_err(|error| EngineError::Storage {
                detail: format!("cannot start {threads} threads for standing queries: {error}"),
            })
    }

    /// As [`Pool::run`], for work that changes nothing: once its caller has left no task of it is
    /// begun any more.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Executor) -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let (sender, receiver) = oneshot::channel();
        let pool = self.clone();
        self.0.spawn(move || {
            let left = || sender.is_closed();
            if left() {
                return;
            }
            let executor = Stoppable { pool: &pool, stopped: &left };
            // Who stops, or panics, does not answer. A panic was told of when it happened; passed on
            // it would end the process, with everyone else's requests.
            if let Ok(answer) = catch_unwind(AssertUnwindSafe(|| work(&executor))) {
                drop(sender.send(answer));
            }
        });
        receiver.await.map_err(|_sender_dropped| EngineError::Panicked)
    }

    /// Runs `work` on a thread of the pool. It is not begun for a caller who has left by then.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let (sender, receiver) = oneshot::channel();
        self.0.spawn(move || {
            if sender.is_closed() {
                return;
            }
            // As for reads.
            if let Ok(answer) = catch_unwind(AssertUnwindSafe(work)) {
                // A caller that leaves meanwhile does not want the answer.
                drop(sender.send(answer));
            }
        });
        receiver.await.map_err(|_sender_dropped| EngineError::Panicked)
    }
}

/// Threads for long work, which run only while nobody else wants the processors.
#[derive(Debug)]
pub(crate) struct BuildPool(Pool);

impl BuildPool {
    pub(crate) fn new(threads: usize) -> Result<Self, EngineError> {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|n| format!("arrwdb-build-{n}"))
            .start_handler(|_thread| give_way())
            .build()
            .map(|pool| Self(Pool(Arc::new(pool))))
            .map_err(|error| EngineError::Storage {
                detail: format!("cannot start {threads} build threads: {error}"),
            })
    }

    /// Runs `work` on the pool's threads; `None` if it was stopped: no task of it is begun once
    /// `stopped` says so.
    pub(crate) fn install<T: Send>(
        &self,
        stopped: &(dyn Fn() -> bool + Sync),
        work: impl FnOnce(&dyn Executor) -> T + Send,
    ) -> Option<T> {
        let executor = Stoppable { pool: &self.0, stopped };
        let outcome = self.0.0.install(|| catch_unwind(AssertUnwindSafe(|| work(&executor))));
        match outcome {
            Ok(done) => Some(done),
            Err(payload) if payload.is::<Stopped>() => None,
            Err(panic) => resume_unwind(panic),
        }
    }
}

struct Stoppable<'a> {
    pool: &'a Pool,
    stopped: &'a (dyn Fn() -> bool + Sync),
}

/// What unwinds work that is stopped: nothing of it is used, so no part of it has to be whole.
struct Stopped;

impl Executor for Stoppable<'_> {
    fn width(&self) -> usize {
        self.pool.width()
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        Executor::run(self.pool, tasks, &|n| {
            if (self.stopped)() {
                resume_unwind(Box::new(Stopped));
            }
            task(n);
        });
    }

    fn stopped(&self) -> bool {
        (self.stopped)()
    }
}

/// Has the calling thread run only while no other wants its processor, where the system can do that.
/// The lowest nice value is not enough: a thread that runs keeps the processor to the end of its slice,
/// some milliseconds, whoever wakes up meanwhile.
fn give_way() {
    #[cfg(target_os = "linux")]
    {
        use thread_priority::unix::{
            NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
            thread_native_id,
        };
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        let priority = thread_priority::ThreadPriority::Min;
        if let Err(error) = set_thread_priority_and_policy(thread_native_id(), priority, idle) {
            tracing::warn!(?error, "index builds do not give way to searches");
        }
    }
}

/// What a thread that gives way has of 100: the nice value 5, a third of the share of others. By the
/// lowest (nice 19) the matching of standing queries stood still for seconds on a machine whose
/// processors were wanted by many.
#[cfg(target_os = "linux")]
const LOW_PRIORITY: u8 = 35;

/// Gives the calling thread a smaller share of its processor than others have, where the system can
/// do that. It still has one: what it does must not wait for hours.
fn be_nice() {
    #[cfg(target_os = "linux")]
    {
        use thread_priority::unix::{
            NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
            thread_native_id,
        };
        let batch = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
        let Ok(value) = thread_priority::ThreadPriorityValue::try_from(LOW_PRIORITY) else {
            return;
        };
        let priority = thread_priority::ThreadPriority::Crossplatform(value);
        // A process that is nicer than that may not take it back, and needs not.
        if let Err(error) = set_thread_priority_and_policy(thread_native_id(), priority, batch) {
            tracing::debug!(?error, "the matching of standing queries has the process's priority");
        }
    }
}

impl Executor for Pool {
    fn width(&self) -> usize {
        self.0.current_num_threads()
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        if tasks == 1 {
            task(0);
        } else {
            self.0.install(|| (0..tasks).into_par_iter().for_each(task));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn work_that_panics_is_an_error_and_the_pool_goes_on() {
        let pool = Pool::new(1).unwrap();
        let panics = |executor: &dyn Executor| {
            executor.run(2, &|_task| panic!("on purpose"));
        };
        assert!(matches!(pool.read(panics).await, Err(EngineError::Panicked)));
        let panics = || -> u32 { panic!("on purpose") };
        assert!(matches!(pool.run(panics).await, Err(EngineError::Panicked)));
        assert_eq!(pool.read(|_executor| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn no_task_of_a_read_is_begun_once_its_caller_has_left() {
        let pool = Pool::new(1).unwrap();
        let (begun, go_on) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, waited) = (begun.clone(), go_on.clone());
        let read = pool.read(move |executor| {
            executor.run(100, &|_task| {
                counted.fetch_add(1, Ordering::SeqCst);
                while !waited.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
            });
        });
        let mut read = Box::pin(read);
        while begun.load(Ordering::SeqCst) == 0 {
            tokio::select! {
                biased;
                _done = &mut read => panic!("it waits"),
                () = tokio::task::yield_now() => {}
            }
        }
        drop(read);
        go_on.store(true, Ordering::SeqCst);
        // The pool has one thread: this is begun when that has ended.
        pool.run(|| ()).await.unwrap();
        assert_eq!(begun.load(Ordering::SeqCst), 1);
    }
}
