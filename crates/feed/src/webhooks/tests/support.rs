//! An engine in memory, what delivers its events, and a receiver that answers as it is told to.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrwdb_engine::embed::deterministic::DeterministicProvider;
use arrwdb_engine::embed::http::{HttpOptions, http_client};
use arrwdb_engine::embed::{EmbedConfig, EmbedParts, Embedder, LocalSource, TokioTimer};
use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::{
    Custom, DocumentId, IndexSpec, Language, LibraryId, Metric, SealedSecret, Seq, TenantId,
    Webhook, WebhookStatus,
};
use arrwdb_engine::{
    Content, Engine, EngineConfig, EngineParts, NewLibrary, OsRandom, PutChunk, PutDocument,
    SystemClock,
};
use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::super::{Parts, Reach, Webhooks, WebhooksConfig};
use crate::feed::{Feed, FeedConfig};

pub(super) const TENANT: TenantId = TenantId::DEFAULT;
/// The longest anything may take that is waited for.
const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `condition` finds something; panics with `what` after a while.
pub(super) async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(began.elapsed() < DEADLINE, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// An engine and its feed, and a directory for what delivers.
pub(super) struct Site {
    pub(super) dir: TempDir,
    pub(super) disk: MemoryDisk,
    pub(super) engine: Engine,
    pub(super) feed: Feed,
}

impl Site {
    pub(super) async fn new() -> Self {
        let parts = EmbedParts {
            local: LocalSource::Custom(Arc::new(DeterministicProvider)),
            http: http_client(&HttpOptions::default()).unwrap(),
            timer: Arc::new(TokioTimer::new()),
            random: Arc::new(|| 7),
        };
        let disk = MemoryDisk::new();
        let parts = EngineParts {
            clock: Arc::new(SystemClock),
            random: Arc::new(OsRandom),
            disk: Arc::new(disk.clone()),
            embedder: Embedder::open(EmbedConfig::default(), parts).await.unwrap(),
            reranker: None,
        };
        let config =
            EngineConfig { disk_free_bytes_min: 1, ..EngineConfig::new(PathBuf::from("/data")) };
        let engine = Engine::open(config, parts).await.unwrap();
        let feed = Feed::start(engine.clone(), FeedConfig { events_max: 20, bytes_max: 1 << 20 })
            .await
            .unwrap();
        Self { dir: tempfile::tempdir().unwrap(), disk, engine, feed }
    }

    pub(super) fn config(&self) -> WebhooksConfig {
        WebhooksConfig {
            key: self.dir.path().join("webhooks.key"),
            store: self.dir.path().join("deliveries.redb"),
            reach: Reach::Everywhere,
        }
    }

    /// Begins to deliver, as servers do.
    pub(super) async fn hooks(&self) -> Webhooks {
        self.hooks_with(Parts::default()).await
    }

    pub(super) async fn hooks_with(&self, parts: Parts) -> Webhooks {
        let (feed, engine) = (self.feed.clone(), self.engine.clone());
        Webhooks::start_with(feed, engine, self.config(), parts).await.unwrap()
    }

    /// Makes a library, which is an event.
    pub(super) async fn library(&self) -> LibraryId {
        let new = NewLibrary {
            name: "of webhooks".into(),
            description: None,
            index: IndexSpec::default(),
            metric: Metric::Cosine,
            language: Language::default(),
            embedding_provider: None,
            embedding_model: None,
            embedding_dimension: Some(2),
        };
        self.engine.create_library(TENANT, new).await.unwrap().value.id
    }

    /// Puts the document of this number, which is an event.
    pub(super) async fn put(&self, library: LibraryId, n: u8) -> Seq {
        let chunk = PutChunk {
            text: format!("of {n}"),
            embedding: Some(vec![1.0, f32::from(n)]),
            ..PutChunk::default()
        };
        let document = PutDocument {
            id: Some(DocumentId::from_bytes([n; 16])),
            title: format!("{n}"),
            author: None,
            document_type: None,
            source_url: None,
            tags: Vec::new(),
            custom: Custom::new(),
            created_at: None,
            content: Content::Chunks(vec![chunk]),
            vectors: Vec::new(),
        };
        self.engine.put_documents(TENANT, library, vec![document]).await.unwrap().seq
    }

    /// A webhook as it is before it is put.
    pub(super) fn webhook(&self, hooks: &Webhooks, url: &str, events: &[&str]) -> Webhook {
        let (id, now) = (self.engine.new_webhook_id(), self.engine.now());
        let secret = hooks.vault().new_secret().unwrap();
        let sealed = hooks.vault().seal(id, &secret).unwrap();
        Webhook {
            id,
            tenant: TENANT,
            url: url.to_owned(),
            events: events.iter().map(|&event| event.to_owned()).collect(),
            description: None,
            status: WebhookStatus::Active,
            max_retries: 3,
            retry_delay_seconds: 1,
            timeout_seconds: 5,
            parallel: false,
            secrets: vec![SealedSecret { sealed, until: None }],
            created_at: now,
            updated_at: now,
            after: self.engine.durable(),
        }
    }

    /// Makes a webhook.
    pub(super) async fn made(
        &self,
        hooks: &Webhooks,
        (url, events): (&str, &[&str]),
        change: impl FnOnce(&mut Webhook),
    ) -> Webhook {
        let mut webhook = self.webhook(hooks, url, events);
        change(&mut webhook);
        self.engine.add_webhook(webhook.clone()).await.unwrap();
        webhook
    }
}

/// A delivery as it came.
#[derive(Debug, Clone)]
pub(super) struct Came {
    pub(super) id: String,
    pub(super) body: Value,
    pub(super) at: Instant,
}

impl Came {
    pub(super) fn event_type(&self) -> &str {
        self.body["type"].as_str().unwrap()
    }

    /// The title of a document.
    pub(super) fn title(&self) -> &str {
        self.body["data"]["title"].as_str().unwrap_or_default()
    }
}

/// How a delivery is answered: a status with headers, or not at all.
pub(super) type Reply = Option<(u16, &'static str)>;
pub(super) const TAKEN: Reply = Some((204, ""));

/// A receiver; it stops when dropped.
pub(super) struct Receiver {
    at: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    came: watch::Sender<Vec<Came>>,
    next: Mutex<VecDeque<Reply>>,
    otherwise: Mutex<Reply>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let state = Arc::new(State {
            came: watch::Sender::default(),
            next: Mutex::default(),
            otherwise: Mutex::new(TAKEN),
        });
        let serving = state.clone();
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _peer)) = listener.accept().await {
                open.spawn(serve(stream, serving.clone()));
            }
        });
        Self { at, state, task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/", self.at)
    }

    /// How the next deliveries are answered; those after them as before.
    pub(super) fn next(&self, replies: &[Reply]) {
        self.state.next.lock().extend(replies);
    }

    /// How deliveries are answered from now on.
    pub(super) fn otherwise(&self, reply: Reply) {
        *self.state.otherwise.lock() = reply;
    }

    pub(super) fn came(&self) -> Vec<Came> {
        self.state.came.borrow().clone()
    }

    /// What came, once it is so much.
    pub(super) async fn until(&self, count: usize) -> Vec<Came> {
        let mut came = self.state.came.subscribe();
        let enough = came.wait_for(|came| came.len() >= count);
        let found =
            tokio::time::timeout(DEADLINE, enough).await.map(|found| found.unwrap().clone());
        found
            .unwrap_or_else(|_elapsed| panic!("{count} deliveries did not come: {:?}", self.came()))
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut id, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                if line == "\r\n" {
                    break;
                }
                continue;
            };
            match &*name.to_ascii_lowercase() {
                "webhook-id" => value.clone_into(&mut id),
                "content-length" => length = value.parse().unwrap(),
                _other => {}
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let body = serde_json::from_slice(&body).unwrap();
        state.came.send_modify(|came| came.push(Came { id, body, at: Instant::now() }));
        let reply = state.next.lock().pop_front().unwrap_or(*state.otherwise.lock());
        let Some((status, headers)) = reply else { return std::future::pending().await };
        let answer = format!("HTTP/1.1 {status} As told\r\n{headers}Content-Length: 0\r\n\r\n");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}
