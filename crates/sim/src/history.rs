//! One history: operations, power failures, and the comparison with what was acknowledged.

use std::collections::BTreeMap;

use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::{DocumentId, IndexSpec, LibraryId, TenantId};
use arrwdb_engine::{
    Content, Embeddings, Engine, EngineError, NewLibrary, PutChunk, PutDocument, Query,
    SearchRequest,
};

use crate::world::{Seeded, open};

const TENANT: TenantId = TenantId::DEFAULT;
const DIMENSION: u32 = 4;
/// Documents that operations choose from.
const DOCUMENTS: u64 = 24;

/// What a history found wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The engine refused what it has to do.
    Engine(String),
    /// The engine has something else than what was acknowledged.
    Differs(String),
}

/// What a history did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Operations acknowledged.
    pub operations: u64,
    /// Power failures survived.
    pub crashes: u64,
}

/// The version of each document that exists.
type Model = BTreeMap<u64, u64>;

/// Runs the history of `seed`: `operations` operations, a power failure after about one in 40.
pub async fn run(seed: u64, operations: u64) -> Result<Outcome, Failure> {
    let random = Seeded::new(seed);
    let mut disk = MemoryDisk::new();
    let mut engine = open(&disk, seed).await?;
    let library = create(&engine).await?;
    let mut model = Model::new();
    let mut outcome = Outcome::default();
    for version in 1..=operations {
        operate(&engine, library, (&random, version), &mut model).await?;
        outcome.operations += 1;
        if random.below(40) == 0 {
            // Nothing is in flight, so everything acknowledged has to be there.
            let crashed = disk.crash(|| random.below(2) == 0);
            engine.close().await?;
            disk = crashed;
            engine = open(&disk, seed ^ version).await?;
            compare(&engine, library, &model).await?;
            outcome.crashes += 1;
        }
    }
    compare(&engine, library, &model).await?;
    engine.close().await?;
    Ok(outcome)
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self::Engine(error.to_string())
    }
}

async fn create(engine: &Engine) -> Result<LibraryId, Failure> {
    let new = NewLibrary {
        name: "simulated".into(),
        description: None,
        index: IndexSpec::BruteForce,
        embedding_provider: None,
        embedding_model: None,
        embedding_dimension: Some(DIMENSION),
    };
    Ok(engine.create_library(TENANT, new).await?.value.id)
}

async fn operate(
    engine: &Engine,
    library: LibraryId,
    (random, version): (&Seeded, u64),
    model: &mut Model,
) -> Result<(), Failure> {
    if random.below(4) == 0 {
        let n = random.below(DOCUMENTS);
        let existed = model.remove(&n).is_some();
        let done = engine.delete_documents(TENANT, library, vec![id(n)]).await?;
        if done.value.iter().map(Option::is_some).ne([existed]) {
            return Err(Failure::Differs(format!("deleting {n}: {:?}, not {existed}", done.value)));
        }
        return Ok(());
    }
    let batch: Vec<u64> = (0..=random.below(3)).map(|_one| random.below(DOCUMENTS)).collect();
    let documents = batch.iter().map(|n| document(*n, version)).collect();
    let written = engine.put_documents(TENANT, library, documents).await?;
    for (n, outcome) in batch.into_iter().zip(written.value) {
        let receipt = outcome?;
        let replaced = model.insert(n, version).is_some();
        if receipt.replaced != replaced {
            return Err(Failure::Differs(format!("putting {n}: replaced is not {replaced}")));
        }
    }
    Ok(())
}

async fn compare(engine: &Engine, library: LibraryId, model: &Model) -> Result<(), Failure> {
    let snapshot = engine.library(TENANT, library, None).await?;
    let counted = snapshot.stats().documents;
    if counted != model.len() as u64 {
        return Err(Failure::Differs(format!("{counted} documents, not {}", model.len())));
    }
    for n in 0..DOCUMENTS {
        let found = snapshot.document(id(n), Embeddings::Included)?;
        let found = found.map(|document| {
            let chunk = &document.chunks[0];
            (chunk.text.clone(), chunk.embedding.clone())
        });
        let expected = model.get(&n).map(|version| (text(n, *version), vector(n, *version)));
        if found != expected {
            return Err(Failure::Differs(format!("document {n}: {found:?}, not {expected:?}")));
        }
        if let Some((text, vector)) = expected {
            let request = SearchRequest {
                query: Query::Vector(vector),
                k: 100,
                distance_threshold: Some(1e-5),
                include_embeddings: false,
            };
            let answer = engine.search(TENANT, library, request, None).await?;
            if !answer.hits.iter().any(|hit| hit.chunk.text == text) {
                return Err(Failure::Differs(format!("document {n} is there but not found")));
            }
        }
    }
    Ok(())
}

fn id(n: u64) -> DocumentId {
    DocumentId::from_bytes((u128::from(n) + 1).to_be_bytes())
}

fn text(n: u64, version: u64) -> String {
    format!("document {n} version {version}")
}

fn vector(n: u64, version: u64) -> Vec<f32> {
    let random = Seeded::new(n * 1_000_003 + version);
    let mut vector: Vec<f32> = Vec::new();
    for _dim in 0..DIMENSION {
        let small = u16::try_from(random.below(2001)).unwrap_or(0);
        vector.push(f32::from(small) - 1000.5);
    }
    vector
}

fn document(n: u64, version: u64) -> PutDocument {
    PutDocument {
        id: Some(id(n)),
        title: "simulated".into(),
        author: None,
        document_type: None,
        source_url: None,
        tags: Vec::new(),
        custom: arrwdb_engine::state::Custom::new(),
        created_at: None,
        content: Content::Chunks(vec![PutChunk {
            text: text(n, version),
            embedding: Some(vector(n, version)),
            ..PutChunk::default()
        }]),
    }
}
