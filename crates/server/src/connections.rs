//! Connections: accepted up to a bound, closed gracefully.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::config::LoadLimits;

/// Time a client has to send the head of a request, and to use a connection again.
const HEAD_TIMEOUT: Duration = Duration::from_mins(1);
/// Requests of one HTTP/2 connection at the same time.
const STREAMS_MAX: u32 = 256;
/// Pause after a failed accept: it fails for want of file descriptors, which others must free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers connections until `stop`, then lets open requests finish within the time allowed. False
/// if some had to be cut off.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: &LoadLimits,
    stop: impl Future<Output = ()>,
) -> bool {
    let slots = Arc::new(Semaphore::new(limits.connections_max.min(Semaphore::MAX_PERMITS)));
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = answer(stream, peer, router.clone(), &graceful);
                tokio::spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!("a connection was not accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tokio::time::timeout(limits.shutdown_timeout, graceful.shutdown()).await.is_ok()
}

/// One connection. Begins to be watched for the shutdown at once, before it first runs.
fn answer(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    graceful: &GracefulShutdown,
) -> impl Future<Output = ()> + Send + use<> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, "no TCP_NODELAY: {error}");
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move { Ok::<Response<Body>, Infallible>(respond(router, request, peer).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(HEAD_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    let connection = graceful.watch(connection);
    async move {
        if let Err(error) = connection.await {
            tracing::debug!(%peer, "a connection ended: {error}");
        }
    }
}

async fn respond(router: Router, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(ConnectInfo(peer));
    match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
