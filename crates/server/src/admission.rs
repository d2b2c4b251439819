//! How many requests are worked on at once, and for how long.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use crate::problem::{self, Problem};

/// How long a request may wait for its turn.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Slots for requests: so many are worked on, as many again wait, more are refused.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    working: Arc<Semaphore>,
    present: Arc<Semaphore>,
}

impl Admission {
    pub(crate) fn new(slots: usize) -> Self {
        let slots = slots.min(Semaphore::MAX_PERMITS / 2);
        Self {
            working: Arc::new(Semaphore::new(slots)),
            present: Arc::new(Semaphore::new(slots * 2)),
        }
    }
}

/// Lets a request in, makes it wait or refuses it.
pub(crate) async fn admit(
    State(admission): State<Admission>,
    request: Request,
    next: Next,
) -> Response {
    let Ok(_present) = admission.present.try_acquire() else { return busy() };
    match tokio::time::timeout(WAIT_MAX, admission.working.acquire()).await {
        Ok(Ok(_turn)) => next.run(request).await,
        Ok(Err(_)) | Err(_) => busy(),
    }
}

fn busy() -> Response {
    Problem::new(&problem::BUSY, "too many requests are being worked on")
        .retry_after(Duration::from_secs(1))
        .into_response()
}

/// Gives a request up after `limit`.
pub(crate) async fn in_time(
    State(limit): State<Duration>,
    request: Request,
    next: Next,
) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_elapsed) => {
            let detail = format!("not done within {} s", limit.as_secs());
            Problem::new(&problem::TIMEOUT, detail).into_response()
        }
    }
}
