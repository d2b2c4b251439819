//! A client of WebSockets that keeps what came until it is asked for.

use std::collections::VecDeque;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::Request;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::{Client, DEADLINE};

/// An open WebSocket.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Frames that came while another one was waited for.
    kept: VecDeque<Value>,
}

/// The request that opens a WebSocket, to add headers to.
pub(crate) fn request(client: &Client, path: &str) -> Request<()> {
    let url = format!("{}{path}", client.url.replacen("http://", "ws://", 1));
    url.into_client_request().expect("a URL")
}

impl Socket {
    /// Opens one to a library.
    pub(crate) async fn open(client: &Client, library: &str) -> Socket {
        Self::at(client, &format!("/v1/libraries/{library}/ws")).await
    }

    /// Opens one at a path.
    pub(crate) async fn at(client: &Client, path: &str) -> Socket {
        let (stream, response) = connect_async(request(client, path)).await.expect("a WebSocket");
        assert_eq!(response.status(), 101);
        Socket { stream, kept: VecDeque::new() }
    }

    /// Sends a text.
    pub(crate) async fn text(&mut self, text: &str) {
        self.stream.send(Message::text(text)).await.expect("sent");
    }

    /// Sends any message.
    pub(crate) async fn message(&mut self, message: Message) {
        self.stream.send(message).await.expect("sent");
    }

    /// Sends a request.
    pub(crate) async fn send(&mut self, request_id: &str, action: &str, data: &Value) {
        let frame = json!({"request_id": request_id, "action": action, "data": data});
        self.text(&frame.to_string()).await;
    }

    /// Sends a request and waits for its answer; what comes before is kept.
    pub(crate) async fn ask(&mut self, action: &str, data: &Value) -> Value {
        let request_id = uuid::Uuid::new_v4().to_string();
        self.send(&request_id, action, data).await;
        self.frame_where(|frame| frame["request_id"] == request_id.as_str()).await
    }

    /// The `data` of the answer to a request, which has to succeed.
    pub(crate) async fn done(&mut self, action: &str, data: &Value) -> Value {
        let answer = self.ask(action, data).await;
        assert_eq!(answer["success"], true, "{action} {data}: {answer}");
        assert_eq!(answer["error"], Value::Null, "{answer}");
        answer["data"].clone()
    }

    /// The `error` of the answer to a request, which has to fail.
    pub(crate) async fn fails(&mut self, action: &str, data: &Value) -> String {
        let answer = self.ask(action, data).await;
        assert_eq!(answer["success"], false, "{action} {data}: {answer}");
        assert_eq!(answer["data"], Value::Null, "{answer}");
        answer["error"].as_str().expect("an error").to_owned()
    }

    /// The next frame, in the order in which they came.
    pub(crate) async fn next(&mut self) -> Value {
        match self.kept.pop_front() {
            Some(frame) => frame,
            None => self.arriving().await.expect("another frame"),
        }
    }

    /// The next frame; nothing once the connection has ended.
    pub(crate) async fn next_or_end(&mut self) -> Option<Value> {
        match self.kept.pop_front() {
            Some(frame) => Some(frame),
            None => self.arriving().await.ok(),
        }
    }

    /// The next frame of which this holds; others stay.
    pub(crate) async fn frame_where(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.kept.iter().position(&wanted) {
            return self.kept.remove(at).expect("there");
        }
        loop {
            let frame = self.arriving().await.expect("another frame");
            if wanted(&frame) {
                return frame;
            }
            self.kept.push_back(frame);
        }
    }

    /// The next frame of a type; others stay.
    pub(crate) async fn of_type(&mut self, name: &str) -> Value {
        self.frame_where(|frame| frame["type"] == name).await
    }

    /// Frames that came and were not asked for.
    pub(crate) fn kept(&self) -> usize {
        self.kept.len()
    }

    /// A frame from the wire; the close code and reason at the end.
    async fn arriving(&mut self) -> Result<Value, (u16, String)> {
        loop {
            let message = tokio::time::timeout(DEADLINE, self.stream.next());
            match message.await.expect("waited too long for a frame") {
                Some(Ok(Message::Text(text))) => {
                    return Ok(serde_json::from_str(&text).expect("JSON"));
                }
                Some(Ok(Message::Close(frame))) => {
                    let frame = frame.expect("a close with a code");
                    return Err((frame.code.into(), frame.reason.to_string()));
                }
                Some(Ok(_control)) => {}
                other => return Err((0, format!("{other:?}"))),
            }
        }
    }

    /// Reads on until the connection is closed: code and reason.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Err(end) = self.arriving().await {
                return end;
            }
        }
    }

    /// Closes it in order, and waits for the server to do so.
    pub(crate) async fn close(mut self) {
        self.stream.close(None).await.expect("closed");
        while let Some(Ok(_message)) = self.stream.next().await {}
    }
}
