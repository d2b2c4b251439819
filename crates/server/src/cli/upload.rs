//! Several streams of documents to the server at once, each an NDJSON body that is written while
//! its NDJSON answer is read.
//!
//! A stream takes its items from one shared queue as the connection takes bytes, so a slow server
//! slows the readers of the files and memory stays bounded (U3). A stream ends after
//! [`STREAM_ITEMS_MAX`] documents or a short silence, and the next begins with the next item: no
//! connection waits idle while files are read that need not be sent.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use reqwest::{Body, Method, Response};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};
use uuid::Uuid;

use super::client::{Client, deepest};
use super::error::CliError;
use super::item::{Item, Place};

/// Documents of one stream.
const STREAM_ITEMS_MAX: u64 = 1_000;

/// Bytes of one stream that are sent and not answered: what a slow machine embeds well within the
/// server's time limit, several streams at once. A larger document travels alone.
const WINDOW_BYTES: usize = 64 << 10;

/// A stream that finds nothing to send for this long ends.
const SILENCE: Duration = Duration::from_secs(1);

/// The longest status line; one holds an id, a title and an error.
const STATUS_BYTES_MAX: usize = 1 << 20;

/// What became of one document.
#[derive(Debug)]
pub(crate) enum Sent {
    /// It is durable and visible.
    Stored {
        /// Its passages.
        chunks: u64,
        /// Bytes of the source it stands for.
        source_bytes: u64,
    },
    /// It was refused, or the stream broke before its answer came.
    Failed {
        /// Where it came from.
        place: Place,
        /// Why.
        reason: String,
        /// Bytes of the source it stands for.
        source_bytes: u64,
    },
}

/// The queue that all streams take their items from.
pub(crate) type Queue = Arc<Mutex<mpsc::Receiver<Item>>>;

/// Sends items until the queue ends. An error means that the server refused or broke a stream
/// before it took anything, so that going on is pointless.
pub(crate) async fn send_all(
    client: Client,
    library: Uuid,
    queue: Queue,
    report: mpsc::Sender<Sent>,
) -> Result<(), CliError> {
    loop {
        let first = queue.lock().await.recv().await;
        let Some(first) = first else { return Ok(()) };
        let flights = Arc::new(Mutex::new(Flights::default()));
        let stream = Stream { flights: Arc::clone(&flights), report: report.clone() };
        let outcome = stream.run(&client, library, first, Arc::clone(&queue)).await;
        let reason = match &outcome {
            Ok(()) => "the server ended the stream without a word about it".to_owned(),
            Err(error) => error.to_string(),
        };
        for flight in flights.lock().await.take_all() {
            let Flight { place, source_bytes, .. } = flight;
            // The receiver lives as long as any sender does.
            report.send(Sent::Failed { place, reason: reason.clone(), source_bytes }).await.ok();
        }
        match outcome {
            Ok(()) | Err(CliError::Answer { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// A document that is sent but not answered.
#[derive(Debug)]
struct Flight {
    id: Uuid,
    place: Place,
    source_bytes: u64,
    /// Its share of the window, free again when this is dropped.
    _window: Option<OwnedSemaphorePermit>,
}

/// The unanswered documents of one stream, by line of its body from 1.
#[derive(Debug, Default)]
struct Flights {
    lines: u64,
    open: BTreeMap<u64, Flight>,
}

impl Flights {
    fn begin(&mut self, item: &Item, window: Option<OwnedSemaphorePermit>) {
        self.lines += 1;
        let flight = Flight {
            id: item.id,
            place: item.place.clone(),
            source_bytes: item.source_bytes,
            _window: window,
        };
        self.open.insert(self.lines, flight);
    }

    /// Takes the document a status is about: by id, else by line, else the oldest.
    fn end(&mut self, id: Option<Uuid>, line: Option<u64>) -> Option<Flight> {
        let by_id = id.and_then(|id| {
            self.open.iter().find(|(_, flight)| flight.id == id).map(|(line, _)| *line)
        });
        let line = by_id.or(line.filter(|line| self.open.contains_key(line)));
        let line = line.or_else(|| self.open.keys().next().copied())?;
        self.open.remove(&line)
    }

    fn take_all(&mut self) -> Vec<Flight> {
        std::mem::take(&mut self.open).into_values().collect()
    }
}

/// One line of the server's answer; other fields are ignored.
#[derive(Debug, Deserialize)]
struct Status {
    #[serde(rename = "status")]
    step: String,
    #[serde(default, alias = "document_id")]
    id: Option<Uuid>,
    #[serde(default)]
    line_number: Option<u64>,
    #[serde(default)]
    num_chunks: u64,
    #[serde(default)]
    error: Option<Value>,
}

struct Stream {
    flights: Arc<Mutex<Flights>>,
    report: mpsc::Sender<Sent>,
}

impl Stream {
    async fn run(
        &self,
        client: &Client,
        library: Uuid,
        first: Item,
        queue: Queue,
    ) -> Result<(), CliError> {
        let path = format!("v1/libraries/{library}/documents/stream");
        let request = client
            .request(Method::POST, &path)?
            .header("Content-Type", "application/x-ndjson")
            .header("Accept", "application/x-ndjson")
            .body(self.body(first, queue));
        let response = client.send(request, "take documents").await?;
        self.read(response).await
    }

    /// The body: `first`, then what the queue yields.
    fn body(&self, first: Item, queue: Queue) -> Body {
        let flights = Arc::clone(&self.flights);
        let window = Arc::new(Semaphore::new(WINDOW_BYTES));
        let lines = stream::unfold(Some((first, 1)), move |next| {
            let (flights, queue) = (Arc::clone(&flights), Arc::clone(&queue));
            let window = Arc::clone(&window);
            async move {
                let (item, count) = next?;
                let bytes = item.line.len().min(WINDOW_BYTES);
                let share = u32::try_from(bytes).unwrap_or(u32::MAX);
                // The window is never closed, so its permits always come.
                let share = window.acquire_many_owned(share).await.ok();
                flights.lock().await.begin(&item, share);
                let line = Ok::<Vec<u8>, Infallible>(item.line);
                Some((line, next_item(&queue, count).await))
            }
        });
        Body::wrap_stream(lines)
    }

    async fn read(&self, mut response: Response) -> Result<(), CliError> {
        let answer = |reason: String| CliError::Answer { doing: "take documents".into(), reason };
        let mut pending = Vec::new();
        loop {
            let piece = response.chunk().await.map_err(|error| answer(deepest(&error)))?;
            let Some(piece) = piece else { return Ok(()) };
            pending.extend_from_slice(&piece);
            let mut used = 0;
            while let Some(length) =
                pending.get(used..).and_then(|rest| rest.iter().position(|&byte| byte == b'\n'))
            {
                let line = pending.get(used..used + length).unwrap_or_default();
                self.status(line).await.map_err(answer)?;
                used += length + 1;
            }
            pending.drain(..used);
            if pending.len() > STATUS_BYTES_MAX {
                return Err(answer("a status line without end".to_owned()));
            }
        }
    }

    async fn status(&self, line: &[u8]) -> Result<(), String> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let status: Status = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let reason = || match &status.error {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => "no reason given".to_owned(),
        };
        let sent = match status.step.as_str() {
            "completed" => self.end(&status).await.map(|flight| Sent::Stored {
                chunks: status.num_chunks,
                source_bytes: flight.source_bytes,
            }),
            "error" => self.end(&status).await.map(|flight| Sent::Failed {
                place: flight.place,
                reason: reason(),
                source_bytes: flight.source_bytes,
            }),
            "stream_error" => return Err(reason()),
            _ => None,
        };
        if let Some(sent) = sent {
            // The receiver lives as long as any sender does.
            self.report.send(sent).await.ok();
        }
        Ok(())
    }

    async fn end(&self, status: &Status) -> Option<Flight> {
        self.flights.lock().await.end(status.id, status.line_number)
    }
}

/// The next item of a stream that has sent `count`; nothing ends the stream.
async fn next_item(queue: &Queue, count: u64) -> Option<(Item, u64)> {
    if count >= STREAM_ITEMS_MAX {
        return None;
    }
    let next = async { queue.lock().await.recv().await };
    let item = tokio::time::timeout(SILENCE, next).await.ok()??;
    Some((item, count + 1))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn item(id: u64) -> Item {
        Item {
            id: Uuid::from_u128(id.into()),
            hash: String::new(),
            place: Place { path: Arc::from(Path::new("/f")), line: Some(id) },
            line: Vec::new(),
            source_bytes: 1,
        }
    }

    #[test]
    fn a_status_finds_its_document_by_id_then_line_then_age() {
        let mut flights = Flights::default();
        for id in 1..=4 {
            flights.begin(&item(id), None);
        }
        let mut end = |id: Option<u128>, line| {
            flights.end(id.map(Uuid::from_u128), line).map(|flight| flight.place.line.unwrap())
        };
        assert_eq!(end(Some(3), Some(1)), Some(3));
        assert_eq!(end(None, Some(2)), Some(2));
        assert_eq!(end(None, None), Some(1));
        assert_eq!(end(Some(99), Some(99)), Some(4));
        assert_eq!(end(None, None), None);
    }
}
