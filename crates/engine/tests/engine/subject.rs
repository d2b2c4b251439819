//! An engine on a disk in memory, and documents to put into it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrwdb_engine::embed::deterministic::DeterministicProvider;
use arrwdb_engine::embed::http::{HttpOptions, http_client};
use arrwdb_engine::embed::{EmbedConfig, EmbedParts, Embedder, LocalSource, TokioTimer};
use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::{
    DocumentId, IndexSpec, Language, LibraryId, Metric, SparseValue, TenantId, VectorValue,
};
use arrwdb_engine::{
    Clock, Content, Embeddings, Engine, EngineConfig, EngineError, EngineParts, Mode, NewLibrary,
    OsRandom, PutChunk, PutDocument, PutVector, Query, SearchRequest, SystemClock,
};

pub(crate) const TENANT: TenantId = TenantId::DEFAULT;
pub(crate) const DIMENSION: u32 = 8;

pub(crate) fn config() -> EngineConfig {
    EngineConfig {
        chunk_chars: 200,
        history: Duration::ZERO,
        // Small, so that checkpoints happen all the time.
        checkpoint_bytes: 4096,
        disk_free_bytes_min: 0,
        ..EngineConfig::new(PathBuf::from("/data"))
    }
}

pub(crate) async fn open_with(
    disk: &MemoryDisk,
    config: EngineConfig,
) -> Result<Engine, EngineError> {
    Engine::open(config, parts(disk).await).await
}

/// An engine that goes by this clock.
pub(crate) async fn open_at(disk: &MemoryDisk, clock: Arc<dyn Clock>) -> Engine {
    let parts = EngineParts { clock, ..parts(disk).await };
    Engine::open(config(), parts).await.unwrap()
}

pub(crate) async fn parts(disk: &MemoryDisk) -> EngineParts {
    let parts = EmbedParts {
        local: LocalSource::Custom(Arc::new(DeterministicProvider)),
        http: http_client(&HttpOptions::default()).unwrap(),
        timer: Arc::new(TokioTimer::new()),
        random: Arc::new(|| 7),
    };
    let embedder = Embedder::open(EmbedConfig::default(), parts).await.unwrap();
    EngineParts {
        clock: Arc::new(SystemClock),
        random: Arc::new(OsRandom),
        disk: Arc::new(disk.clone()),
        embedder,
        reranker: None,
    }
}

pub(crate) async fn open(disk: &MemoryDisk) -> Engine {
    open_with(disk, config()).await.unwrap()
}

pub(crate) async fn library(engine: &Engine) -> LibraryId {
    let new = NewLibrary {
        name: "a library".into(),
        description: None,
        index: IndexSpec::default(),
        metric: Metric::Cosine,
        language: Language::default(),
        embedding_provider: None,
        embedding_model: None,
        embedding_dimension: Some(DIMENSION),
    };
    engine.create_library(TENANT, new).await.unwrap().value.id
}

pub(crate) fn id(n: u8) -> DocumentId {
    DocumentId::from_bytes([n; 16])
}

/// A document whose text says which version of it this is.
pub(crate) fn document(n: u8, version: u64) -> PutDocument {
    let chunk = |part: u64| PutChunk {
        text: text(n, version, part),
        embedding: Some(vector(n, version, part)),
        ..PutChunk::default()
    };
    PutDocument {
        id: Some(id(n)),
        content: Content::Chunks((0..=version % 3).map(chunk).collect()),
        vectors: vectors(n, version),
        ..of_text("")
    }
}

/// What a version of a document has in vector fields: some nothing, some several vectors.
pub(crate) fn vectors(n: u8, version: u64) -> Vec<PutVector> {
    let vector = |(place, (field, value)): (usize, (&str, VectorValue))| PutVector {
        id: None,
        field: field.into(),
        text: text(n, version, 9),
        value: Some(value),
        picture: None,
        created_at: None,
        custom: serde_json::Map::new(),
        pointer: format!("/vectors/{place}"),
    };
    let image = VectorValue::Dense(self::vector(n, version, 7)[..3].to_vec());
    let indices = vec![u32::from(n), 100 + (version % 5) as u32];
    let words = VectorValue::Sparse(SparseValue { indices, values: vec![0.5, 2.0] });
    let all = [("image", image.clone()), ("image", image), ("custom", words)];
    all.into_iter().enumerate().map(vector).take((version % 4) as usize).collect()
}

pub(crate) fn text(n: u8, version: u64, part: u64) -> String {
    format!("document {n} version {version} part {part}")
}

pub(crate) fn vector(n: u8, version: u64, part: u64) -> Vec<f32> {
    (0..u64::from(DIMENSION))
        .map(|dim| {
            let mixed = (u64::from(n) * 7919 + version * 104_729 + part * 31 + 1)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .rotate_left(u32::try_from(dim * 7).unwrap());
            (mixed % 2001) as f32 - 1000.5
        })
        .collect()
}

pub(crate) fn of_text(text: &str) -> PutDocument {
    PutDocument {
        id: None,
        title: "a title".into(),
        author: None,
        document_type: None,
        source_url: None,
        tags: Vec::new(),
        custom: serde_json::Map::new(),
        created_at: None,
        content: Content::Text(text.into()),
        vectors: Vec::new(),
    }
}

/// The version of each document that an engine has; panics if one is half there.
pub(crate) async fn versions(engine: &Engine, library: LibraryId) -> Vec<Option<u64>> {
    let snapshot = engine.library(TENANT, library, None).await.unwrap();
    let mut versions = Vec::new();
    for n in 0..32 {
        let found = snapshot.document(id(n), Embeddings::Included).unwrap();
        versions.push(found.map(|document| {
            let first = &document.chunks[0].text;
            let version: u64 = first.split(' ').nth(3).unwrap().parse().unwrap();
            assert_eq!(document.chunks.len() as u64, version % 3 + 1, "wholly there");
            for (part, chunk) in (0..).zip(&document.chunks) {
                assert_eq!(chunk.text, text(n, version, part));
                assert_eq!(chunk.embedding, vector(n, version, part), "bit for bit");
            }
            let fields = snapshot.field_vectors(id(n)).unwrap();
            let found = fields.iter().flat_map(|field| {
                field.vectors.iter().map(|it| (&*field.spec.name, &it.value, &*it.text))
            });
            let put = vectors(n, version);
            let mut put: Vec<_> =
                put.iter().map(|it| (&*it.field, it.value.as_ref().unwrap(), &*it.text)).collect();
            put.sort_by_key(|(field, ..)| *field);
            assert_eq!(found.collect::<Vec<_>>(), put, "with what it has in fields");
            version
        }));
    }
    versions
}

pub(crate) fn nearest(vector: Vec<f32>, k: usize) -> SearchRequest {
    SearchRequest::new(Query::Vector(vector), k)
}

/// Puts a version of a document, waiting until there is room for it.
pub(crate) async fn put(engine: &Engine, library: LibraryId, n: u8, version: u64) {
    loop {
        match engine.put_documents(TENANT, library, vec![document(n, version)]).await {
            Ok(written) => {
                written.value.into_iter().for_each(|outcome| drop(outcome.unwrap()));
                return;
            }
            // Until the upkeep has made room.
            Err(EngineError::Busy { .. }) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    }
}

/// A search by keywords.
pub(crate) fn by_words(words: &str, k: usize) -> SearchRequest {
    SearchRequest {
        mode: Mode::Keyword,
        words: Some(words.to_owned()),
        ..SearchRequest::new(Query::Text(words.to_owned()), k)
    }
}
