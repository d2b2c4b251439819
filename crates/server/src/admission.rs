//! How many requests are worked on at once, and for how long.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

    /// Takes a slot, after a wait where none is free.
    pub(crate) async fn enter(&self) -> Result<Turn, Problem> {
        let present = Arc::clone(&self.present).try_acquire_owned().map_err(|_full| busy())?;
        let turn = Arc::clone(&self.working).acquire_owned();
        match tokio::time::timeout(ADMISSION_WAIT_MAX, turn).await {
            Ok(Ok(turn)) => Ok(Turn { _present: present, _turn: turn }),
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }
}

/// A slot, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Turn {
    _present: OwnedSemaphorePermit,
    _turn: OwnedSemaphorePermit,
}

/// Lets a request in, makes it wait or refuses it. An answer that is still being made while it is
/// read is no longer worked on, but present until it is gone.
pub(crate) async fn admit(
    State(admission): State<Admission>,
    request: Request,
    next: Next,
) -> Response {
    let Ok(present) = Arc::clone(&admission.present).try_acquire_owned() else {
        return busy().into_response();
    };
    let response = match tokio::time::timeout(ADMISSION_WAIT_MAX, admission.working.acquire()).await
    {
        Ok(Ok(_turn)) => next.run(request).await,
        Ok(Err(_)) | Err(_) => return busy().into_response(),
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
    let held = match admission.enter().await {
        Ok(held) => held,
        Err(problem) => return problem.into_response(),
    };
    let response = next.run(request).await;
    let is_whole = response.body().size_hint().exact().is_some();
    if is_whole { response } else { response.map(|body| holding(body, held)) }
}

/// A body that keeps `held` until it is gone.
pub(crate) fn holding(body: Body, held: impl Send + Unpin + 'static) -> Body {
    Body::new(Holding { body, _held: held })
}

struct Holding<T> {
    body: Body,
    _held: T,
}

impl<T: Unpin> http_body::Body for Holding<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn busy() -> Problem {
    Problem::new(&problem::BUSY, "too many requests are being worked on")
        .retry_after(ADMISSION_RETRY_AFTER)
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
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn what_holds_something_is_as_long_as_it_was_and_lets_go_with_its_end() {
        let slots = Arc::new(Semaphore::new(1));
        let body = holding(Body::from("text"), slots.clone().try_acquire_owned().unwrap());
        assert_eq!(body.size_hint().exact(), Some(4));
        assert_eq!(slots.available_permits(), 0);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "text");
        assert_eq!(slots.available_permits(), 1);
    }

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
