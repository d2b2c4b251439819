//! A receiver of webhooks: answers as it is told to, and remembers what it was sent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::task::JoinHandle;

/// A delivery as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) at: Instant,
}

impl Received {
    /// A header.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Its body.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a body of JSON")
    }
}

/// How a delivery is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reply {
    /// By this status.
    Status(u16),
    /// By this status, with a header.
    With(u16, &'static str, &'static str),
    /// Not at all.
    Never,
}

#[derive(Debug)]
struct Behaviour {
    received: Mutex<Vec<Received>>,
    next: Mutex<VecDeque<Reply>>,
    otherwise: Mutex<Reply>,
}

/// A receiver; it stops when dropped.
#[derive(Debug)]
pub(crate) struct Receiver {
    port: u16,
    task: JoinHandle<()>,
    state: Arc<Behaviour>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    /// Starts one on a free port that takes everything.
    pub(crate) async fn start() -> Receiver {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("address").port();
        let state = Arc::new(Behaviour {
            received: Mutex::default(),
            next: Mutex::default(),
            otherwise: Mutex::new(Reply::Status(200)),
        });
        let app = axum::Router::new().fallback(receive).with_state(Arc::clone(&state));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.expect("serve") });
        Receiver { port, task, state }
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook?a=b", self.port)
    }

    /// How the next deliveries are answered; those after them are taken as before.
    pub(crate) fn next(&self, replies: &[Reply]) {
        self.state.next.lock().expect("replies").extend(replies);
    }

    /// How deliveries are answered from now on.
    pub(crate) fn otherwise(&self, reply: Reply) {
        *self.state.otherwise.lock().expect("reply") = reply;
    }

    /// What came so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.state.received.lock().expect("received").clone()
    }
}

async fn receive(State(state): State<Arc<Behaviour>>, headers: HeaderMap, body: Bytes) -> Response {
    let at = Instant::now();
    state.received.lock().expect("received").push(Received { headers, body, at });
    let next = state.next.lock().expect("replies").pop_front();
    let reply = next.unwrap_or(*state.otherwise.lock().expect("reply"));
    let status = |code| StatusCode::from_u16(code).expect("a status");
    match reply {
        Reply::Status(code) => (status(code), "as told").into_response(),
        Reply::With(code, name, value) => {
            (status(code), [(name, value)], "as told").into_response()
        }
        Reply::Never => std::future::pending().await,
    }
}
