//! F1 and F3 on the real engine with its files.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use arrwdb_engine::embed::deterministic::DeterministicProvider;
use arrwdb_engine::embed::http::{HttpOptions, http_client};
use arrwdb_engine::embed::{EmbedConfig, EmbedParts, Embedder, LocalSource, TokioTimer};
use arrwdb_engine::state::{IndexSpec, Language, LibraryId, Metric, Seq, TenantId};
use arrwdb_engine::{
    Change, ChangeEntry, Content, Engine, EngineConfig, EngineError, EngineParts, NewLibrary,
    PutDocument,
};
use arrwdb_feed::Cursor;

const TENANT: TenantId = TenantId::DEFAULT;

async fn open(dir: &Path) -> Engine {
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

async fn library(engine: &Engine) -> LibraryId {
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
    engine.create_library(TENANT, new).await.unwrap().value.id
}

async fn put(engine: &Engine, library: LibraryId, text: &str) -> Seq {
    loop {
        let document = PutDocument {
            id: None,
            title: text.into(),
            author: None,
            document_type: None,
            source_url: None,
            tags: Vec::new(),
            custom: arrwdb_engine::state::Custom::new(),
            created_at: None,
            content: Content::Text(text.into()),
            vectors: Vec::new(),
        };
        match engine.put_documents(TENANT, library, vec![document]).await {
            Ok(written) => return written.seq,
            // Checkpoints are due every few writes here, which a slow disk does not keep up with.
            Err(EngineError::Busy { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The records of libraries and the catalog among these; what was embedded has records of its own,
/// which come when they come.
fn of_libraries(changes: Vec<Change>) -> impl Iterator<Item = Seq> {
    let counted = |change: &Change| !matches!(change.entry, ChangeEntry::Work(_));
    changes.into_iter().filter(counted).map(|change| change.seq)
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_a_cursor_sees_every_record_once_and_in_order_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).await;
    let library = library(&engine).await;
    let mut cursor = Cursor::new(engine.clone(), Seq::START);
    let writer = engine.clone();
    let writing = tokio::spawn(async move {
        let mut written = Vec::new();
        for n in 0..600 {
            written.push(put(&writer, library, &format!("document {n}")).await);
        }
        written
    });
    let mut seen = Vec::new();
    while seen.len() < 601 {
        seen.extend(of_libraries(cursor.next().await.unwrap()));
    }
    assert_eq!(seen[1..], writing.await.unwrap());
    let middle = seen[300];
    engine.close().await.unwrap();
    let engine = open(dir.path()).await;
    let mut again = Cursor::new(engine.clone(), middle);
    let mut rest = Vec::new();
    while rest.len() < 300 {
        rest.extend(of_libraries(again.next().await.unwrap()));
    }
    assert_eq!(rest, seen[301..]);
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn f3_a_follower_that_does_not_read_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).await;
    let library = library(&engine).await;
    let mut stalled = Cursor::new(engine.clone(), Seq::START);
    let first = of_libraries(stalled.next().await.unwrap()).count();
    for n in 0..700 {
        put(&engine, library, &format!("document {n}")).await;
    }
    let mut seen = first;
    while seen < 701 {
        let batch = stalled.next().await.unwrap();
        assert!(batch.len() <= 256, "a batch is bounded");
        seen += of_libraries(batch).count();
    }
    engine.close().await.unwrap();
}
