//! Server-sent events, read as the standard says.

use reqwest::{Method, Response};
use serde_json::Value;

use super::{Client, DEADLINE};

/// One frame: what stands between two blank lines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frame {
    pub(crate) id: Option<String>,
    pub(crate) event: Option<String>,
    pub(crate) data: Value,
    pub(crate) retry: Option<String>,
    pub(crate) comment: Option<String>,
}

/// An open stream.
#[derive(Debug)]
pub(crate) struct EventStream {
    response: Response,
    buffer: Vec<u8>,
    /// As a browser would send it when it comes back.
    pub(crate) last_id: Option<String>,
}

impl EventStream {
    /// Opens a stream, as one who has seen the events up to `last_id`.
    pub(crate) async fn open(client: &Client, path: &str, last_id: Option<&str>) -> EventStream {
        EventStream::try_open(client, path, last_id).await.expect("a stream")
    }

    /// As [`EventStream::open`]; nothing if nobody answers.
    pub(crate) async fn try_open(
        client: &Client,
        path: &str,
        last_id: Option<&str>,
    ) -> Option<EventStream> {
        let mut request = client.request(Method::GET, path).header("Accept", "text/event-stream");
        if let Some(id) = last_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = request.send().await.ok()?;
        if response.status() == 503 {
            return None;
        }
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-cache");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        Some(EventStream { response, buffer: Vec::new(), last_id: last_id.map(str::to_owned) })
    }

    /// The next frame; nothing at the end of the stream.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let text: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let frame = parse(std::str::from_utf8(&text).expect("UTF-8"));
                if frame.id.is_some() {
                    self.last_id.clone_from(&frame.id);
                }
                return Some(frame);
            }
            let chunk = tokio::time::timeout(DEADLINE, self.response.chunk()).await;
            match chunk.expect("waited too long for a frame") {
                Ok(Some(bytes)) => self.buffer.extend_from_slice(&bytes),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// The next frame that carries data; nothing at the end of the stream.
    pub(crate) async fn event(&mut self) -> Option<Frame> {
        loop {
            let frame = self.frame().await?;
            if frame.event.is_some() {
                return Some(frame);
            }
        }
    }

    /// The next events, so many.
    pub(crate) async fn events(&mut self, count: usize) -> Vec<Frame> {
        let mut events = Vec::new();
        while events.len() < count {
            events.push(self.event().await.expect("another event"));
        }
        events
    }
}

fn parse(text: &str) -> Frame {
    let mut frame = Frame::default();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (field, value) = line.split_once(':').expect("a field");
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "" => frame.comment = Some(value),
            "id" => frame.id = Some(value),
            "event" => frame.event = Some(value),
            "retry" => frame.retry = Some(value),
            "data" => frame.data = serde_json::from_str(&value).expect("JSON"),
            other => panic!("an unknown field {other:?}"),
        }
    }
    frame
}
