//! Connections: accepted up to a bound, closed gracefully.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::ServiceExt;

use crate::config::LoadLimits;
use crate::limits::{ACCEPT_PAUSE, HEADER_BYTES_MAX, HTTP2_STREAMS_MAX, READ_BUFFER_BYTES_MAX};
use crate::progress::{Arriving, Exchange, Guarded, Leaving, Patience, Watch};

/// A connection's share of how many may be open, in the extensions of its requests: what goes on
/// with the connection after HTTP keeps it.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionSlot(
    #[expect(dead_code, reason = "it counts by being held")] Arc<OwnedSemaphorePermit>,
);

/// Who is connected.
#[derive(Debug, Clone)]
struct Caller {
    peer: SocketAddr,
    slot: ConnectionSlot,
}

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
    let patience = Patience { head: limits.header_timeout, idle: limits.stream_idle_timeout };
    let mut stop = std::pin::pin!(stop);
    loop {
        // Sockets keep their slots for as long as they like: full is no reason not to hear of the end.
        let slot = tokio::select! {
            slot = Arc::clone(&slots).acquire_owned() => slot,
            () = &mut stop => break,
        };
        let Ok(slot) = slot else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let caller = Caller { peer, slot: ConnectionSlot(Arc::new(slot)) };
                tokio::spawn(answer(stream, caller, router.clone(), (&graceful, patience)));
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
    caller: Caller,
    router: Router,
    (graceful, patience): (&GracefulShutdown, Patience),
) -> impl Future<Output = ()> + Send + use<> {
    let peer = caller.peer;
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, "no TCP_NODELAY: {error}");
    }
    let stream = Guarded::new(stream, patience);
    let received = stream.received();
    let watch = Watch::new();
    let watched = watch.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (router, caller) = (router.clone(), caller.clone());
        request.extensions_mut().insert(received.clone());
        let exchange = Arc::new(watched.begin());
        async move {
            Ok::<Response<Body>, Infallible>(respond(router, request, (caller, exchange)).await)
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .max_buf_size(READ_BUFFER_BYTES_MAX)
        .header_read_timeout(patience.head);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(patience.head);
    let stream = TokioIo::new(stream);
    let connection = builder.serve_connection_with_upgrades(stream, service).into_owned();
    let connection = graceful.watch(connection);
    async move {
        tokio::select! {
            ended = connection => if let Err(error) = ended {
                tracing::debug!(%peer, "a connection ended: {error}");
            },
            verdict = watch.verdict(patience) => {
                tracing::debug!(%peer, ?verdict, "a connection is cut off");
            }
        }
    }
}

async fn respond(
    router: Router,
    request: Request<Incoming>,
    (caller, exchange): (Caller, Arc<Exchange>),
) -> Response<Body> {
    let arriving = |body| Body::new(Arriving::new(body, exchange.clone()));
    let mut request = request.map(arriving);
    request.extensions_mut().insert(ConnectInfo(caller.peer));
    request.extensions_mut().insert(caller.slot);
    match router.oneshot(request).await {
        Ok(response) => response.map(|body| Body::new(Leaving::new(body, exchange))),
        Err(never) => match never {},
    }
}
