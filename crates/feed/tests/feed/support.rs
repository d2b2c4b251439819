//! An engine, documents, and events as they are told.

use std::path::Path;
use std::sync::Arc;

use arrwdb_engine::embed::deterministic::DeterministicProvider;
use arrwdb_engine::embed::http::{HttpOptions, http_client};
use arrwdb_engine::embed::{EmbedConfig, EmbedParts, Embedder, LocalSource, TokioTimer};
use arrwdb_engine::state::{
    Custom, DocumentId, IndexSpec, Language, LibraryId, Metric, Seq, TenantId,
};
use arrwdb_engine::{
    Content, Engine, EngineConfig, EngineParts, NewLibrary, PutChunk, PutDocument,
};
use arrwdb_feed::{Delivery, Event, EventTypes, Feed, FeedConfig, Filter, Position, Subscription};
use serde_json::Value;

pub(crate) const TENANT: TenantId = TenantId::DEFAULT;

pub(crate) async fn open(dir: &Path) -> Engine {
    let parts = EmbedParts {
        local: LocalSource::Custom(Arc::new(DeterministicProvider)),
        http: http_client(&HttpOptions::default()).unwrap(),
        timer: Arc::new(TokioTimer::new()),
        random: Arc::new(|| 7),
    };
    let embedder = Embedder::open(EmbedConfig::default(), parts).await.unwrap();
    let config = EngineConfig {
        checkpoint_bytes: 4096,
        disk_free_bytes_min: 0,
        ..EngineConfig::new(dir.to_owned())
    };
    Engine::open(config, EngineParts::system(embedder)).await.unwrap()
}

/// A feed that keeps so few events that who does not read at once reads from disk.
pub(crate) async fn small_feed(engine: &Engine) -> Feed {
    let config = FeedConfig { events_max: 20, bytes_max: 1 << 20 };
    Feed::start(engine.clone(), config).await.unwrap()
}

pub(crate) async fn feed(engine: &Engine) -> Feed {
    Feed::start(engine.clone(), FeedConfig::default()).await.unwrap()
}

pub(crate) async fn library_of(engine: &Engine, tenant: TenantId) -> LibraryId {
    let new = NewLibrary {
        name: "followed".into(),
        description: None,
        index: IndexSpec::default(),
        metric: Metric::Cosine,
        language: Language::default(),
        embedding_provider: None,
        embedding_model: None,
        embedding_dimension: Some(8),
    };
    engine.create_library(tenant, new).await.unwrap().value.id
}

pub(crate) async fn library(engine: &Engine) -> LibraryId {
    library_of(engine, TENANT).await
}

/// The document of this number with so many chunks.
pub(crate) fn document(n: u8, chunks: usize) -> PutDocument {
    let chunk = |k: usize| PutChunk {
        text: format!("chunk {k} of {n}"),
        embedding: Some((0..8_u8).map(|d| f32::from(n) + f32::from(d) + 1.0).collect()),
        ..PutChunk::default()
    };
    PutDocument {
        id: Some(DocumentId::from_bytes([n; 16])),
        title: format!("document {n} of {chunks}"),
        author: None,
        document_type: None,
        source_url: None,
        tags: Vec::new(),
        custom: Custom::new(),
        created_at: None,
        content: Content::Chunks((0..chunks).map(chunk).collect()),
        vectors: Vec::new(),
    }
}

pub(crate) async fn put(
    engine: &Engine,
    library: LibraryId,
    documents: impl IntoIterator<Item = (u8, usize)>,
) -> Seq {
    let documents = documents.into_iter().map(|(n, chunks)| document(n, chunks)).collect();
    let written = engine.put_documents(TENANT, library, documents).await.unwrap();
    assert!(written.value.iter().all(Result::is_ok));
    written.seq
}

pub(crate) async fn delete(engine: &Engine, library: LibraryId, ids: &[u8]) -> Seq {
    let ids = ids.iter().map(|n| DocumentId::from_bytes([*n; 16])).collect();
    engine.delete_documents(TENANT, library, ids).await.unwrap().seq
}

/// A filter for every event of the tenant, those of chunks too.
pub(crate) fn everything() -> Filter {
    Filter { types: EventTypes::parse("*,chunk.*").unwrap(), ..Filter::of(TENANT) }
}

/// An event as it is told.
pub(crate) fn told(event: Event<'_>) -> Value {
    let mut text = String::new();
    event.write_json(&mut text);
    serde_json::from_str(&text).unwrap()
}

pub(crate) fn all_of(mut delivery: Delivery) -> Vec<Value> {
    let mut events = Vec::new();
    while let Some(event) = delivery.next() {
        events.push(told(event));
    }
    events
}

/// Events until there are so many, at least.
pub(crate) async fn at_least(subscription: &mut Subscription, count: usize) -> Vec<Value> {
    let mut events = Vec::new();
    while events.len() < count {
        events.extend(all_of(subscription.next().await.unwrap()));
    }
    events
}

/// Every event after a place up to what is durable now.
pub(crate) async fn past(
    feed: &Feed,
    engine: &Engine,
    filter: Filter,
    after: Position,
) -> Vec<Value> {
    let end = Position::after(engine.durable());
    let mut subscription = feed.subscribe(filter, Some(after)).unwrap();
    let mut events = Vec::new();
    while subscription.position() < end {
        match subscription.try_next().await.unwrap() {
            Some(delivery) => events.extend(all_of(delivery)),
            // The feed has not come to the end yet.
            None => tokio::task::yield_now().await,
        }
    }
    events
}

pub(crate) fn ids(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

pub(crate) fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}
