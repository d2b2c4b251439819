//! How many requests are worked on at once, and for how long.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::sync::Semaphore;

use crate::limits::{ADMISSION_RETRY_AFTER, ADMISSION_WAIT_MAX};
use crate::problem::{self, Problem};

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

/// Lets a request in, makes it wait or refuses it. An answer that is still being made while it is
/// read is no longer worked on, but present until it is gone.
pub(crate) async fn admit(
    State(admission): State<Admission>,
    request: Request,
    next: Next,
) -> Response {
    let Ok(present) = Arc::clone(&admission.present).try_acquire_owned() else { return busy() };
    let response = match tokio::time::timeout(ADMISSION_WAIT_MAX, admission.working.acquire()).await
    {
        Ok(Ok(_turn)) => next.run(request).await,
        Ok(Err(_)) | Err(_) => return busy(),
    };
    let is_whole = response.body().size_hint().exact().is_some();
    if is_whole { response } else { response.map(|body| holding(body, present)) }
}

/// As [`admit`], for answers that are made while they are read: the slot is held until the last
/// byte has left or the client has (at once, if it turns out to be whole), so that as many streams as slots are open, and no more.
pub(crate) async fn admit_stream(
    State(admission): State<Admission>,
    request: Request,
    next: Next,
) -> Response {
    let Ok(present) = Arc::clone(&admission.present).try_acquire_owned() else { return busy() };
    let turn = Arc::clone(&admission.working).acquire_owned();
    let Ok(Ok(turn)) = tokio::time::timeout(ADMISSION_WAIT_MAX, turn).await else { return busy() };
    let held = (present, turn);
    let response = next.run(request).await;
    let is_whole = response.body().size_hint().exact().is_some();
    if is_whole { response } else { response.map(|body| holding(body, held)) }
}

/// A body that keeps `held` until it is gone.
fn holding(body: Body, held: impl Send + 'static) -> Body {
    Body::new(body.map_frame(move |frame| {
        let _held = &held;
        frame
    }))
}

fn busy() -> Response {
    Problem::new(&problem::BUSY, "too many requests are being worked on")
        .retry_after(ADMISSION_RETRY_AFTER)
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::Router;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use futures_util::stream;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_stream_holds_its_slot_until_its_body_is_gone() {
        let admission = Admission::new(1);
        let router = Router::new()
            .route(
                "/",
                get(|| async { Body::from_stream(stream::iter([Ok::<_, Infallible>("text")])) }),
            )
            .layer(from_fn_with_state(admission.clone(), admit_stream));
        let request = || Request::new(Body::empty());
        let open = router.clone().oneshot(request()).await.unwrap();
        assert_eq!(admission.working.available_permits(), 0);
        drop(open);
        assert_eq!(admission.working.available_permits(), 1);
        let read = router.oneshot(request()).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(read.to_bytes(), "text");
        assert_eq!(admission.present.available_permits(), 2);
    }
}
