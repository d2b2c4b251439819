//! The CPU pool: searches and merges run here, never on the threads that serve the network.

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

    /// Runs `work` on a thread of the pool. It is not begun for a caller who has left by then.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let (sender, receiver) = oneshot::channel();
        self.0.spawn(move || {
            if !sender.is_closed() {
                // A caller that leaves meanwhile does not want the answer.
                drop(sender.send(work()));
            }
        });
        receiver.await.map_err(|_worker_panicked| EngineError::Storage {
            detail: "a worker stopped before it had answered".into(),
        })
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
