//! Connections: accepted up to a bound, closed gracefully.
//!
//! There may be many that say nothing for hours, so what one holds is kept small: the state of the
//! protocol that it speaks and of no other, and what answers a request only while it does.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
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
    let patience = Patience { head: limits.header_timeout, idle: limits.stream_idle_timeout };
    let protocols = Arc::new(Protocols::new(patience));
    // Every open connection has a receiver.
    let (closing, open) = watch::channel(());
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
                let answers = answer(stream, caller, router.clone(), (&protocols, &open));
                tokio::spawn(answers);
            }
            Err(error) => {
                tracing::warn!("a connection was not accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop((listener, open));
    closing.send_replace(());
    tokio::time::timeout(limits.shutdown_timeout, closing.closed()).await.is_ok()
}

/// How each protocol is spoken.
struct Protocols {
    patience: Patience,
    http1: http1::Builder,
    /// Tells the two apart by itself.
    either: auto::Builder<TokioExecutor>,
}

impl Protocols {
    fn new(patience: Patience) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .max_buf_size(READ_BUFFER_BYTES_MAX)
            .header_read_timeout(patience.head);
        let mut either = auto::Builder::new(TokioExecutor::new());
        either
            .http1()
            .timer(TokioTimer::new())
            .max_buf_size(READ_BUFFER_BYTES_MAX)
            .header_read_timeout(patience.head);
        either
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(HTTP2_STREAMS_MAX)
            .max_header_list_size(HEADER_BYTES_MAX)
            .keep_alive_interval(patience.head);
        Self { patience, http1, either }
    }

    /// Answers requests until the connection ends; once `closing` says so, no more of them.
    async fn speak<S>(
        &self,
        mut stream: Guarded,
        service: S,
        mut closing: watch::Receiver<()>,
    ) -> Result<(), Box<dyn Error + Send + Sync>>
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
        S::Future: Send + 'static,
    {
        let may_be_http2 = tokio::select! {
            may_be = stream.may_begin_http2() => may_be?,
            _closing = closing.changed() => return Ok(()),
        };
        let stream = TokioIo::new(stream);
        if may_be_http2 {
            let connection = self.either.serve_connection_with_upgrades(stream, service);
            let mut connection = Box::pin(connection);
            tokio::select! {
                ended = &mut connection => return ended,
                _closing = closing.changed() => connection.as_mut().graceful_shutdown(),
            }
            return connection.await;
        }
        // Of this there are thousands.
        let mut connection = Box::pin(self.http1.serve_connection(stream, service).with_upgrades());
        tokio::select! {
            ended = &mut connection => return Ok(ended?),
            _closing = closing.changed() => connection.as_mut().graceful_shutdown(),
        }
        Ok(connection.await?)
    }
}

/// One connection. Begins to be watched for the shutdown at once, before it first runs.
fn answer(
    stream: TcpStream,
    caller: Caller,
    router: Router,
    (protocols, open): (&Arc<Protocols>, &watch::Receiver<()>),
) -> impl Future<Output = ()> + Send + use<> {
    let peer = caller.peer;
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, "no TCP_NODELAY: {error}");
    }
    let (protocols, closing) = (protocols.clone(), open.clone());
    let patience = protocols.patience;
    let stream = Guarded::new(stream, patience);
    let received = stream.received();
    let watch = Watch::new();
    let watched = watch.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (router, caller) = (router.clone(), caller.clone());
        request.extensions_mut().insert(received.clone());
        let exchange = Arc::new(watched.begin());
        // Boxed, since the connection keeps room for it between requests and while it sends.
        let response: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(async move {
            Ok::<Response<Body>, Infallible>(respond(router, request, (caller, exchange)).await)
        });
        response
    });
    async move {
        let connection = async move { protocols.speak(stream, service, closing).await };
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_waits_for_every_connection_is_small() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let slots = Arc::new(Semaphore::new(1));
        let slot = ConnectionSlot(Arc::new(slots.clone().acquire_owned().await.unwrap()));
        let patience = Patience { head: Duration::from_mins(1), idle: Duration::from_mins(1) };
        let protocols = Arc::new(Protocols::new(patience));
        let (closing, open) = watch::channel(());
        let caller = Caller { peer, slot };
        let answers = answer(stream, caller, Router::new(), (&protocols, &open));
        let bytes = size_of_val(&answers);
        assert!(bytes <= 2048, "{bytes} bytes for each of thousands that say nothing");
        // One that has sent nothing is not waited for.
        drop(open);
        closing.send_replace(());
        answers.await;
        assert_eq!(slots.available_permits(), 1);
        drop(client);
    }
}
