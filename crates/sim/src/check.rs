//! What is there, compared with what should be.

use std::collections::{BTreeMap, BTreeSet};

use arrwdb_engine::state::{LibraryId, LibrarySpec, TenantId};
use arrwdb_engine::{Embeddings, Engine, EngineError, Query, SearchRequest, Snapshot};

use crate::model::{DOCUMENTS, Documents, Library, Model, expected, id, language};

pub(crate) const TENANT: TenantId = TenantId::DEFAULT;

/// What a history found wrong.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// The engine refused what it has to do.
    #[error("the engine refused: {0}")]
    Engine(#[from] EngineError),
    /// The engine has something else than what was acknowledged.
    #[error("{0}")]
    Differs(String),
}

pub(crate) fn differs<T>(what: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Differs(what.into()))
}

/// The digest of each library.
pub(crate) type Digests = BTreeMap<LibraryId, u128>;

/// Compares everything a reader can see with the model; the libraries' digests.
pub(crate) async fn compare(engine: &Engine, model: &Model) -> Result<Digests, Failure> {
    let listed = engine.libraries(TENANT, None).await?;
    let found: BTreeSet<_> =
        listed.iter().map(|one| (one.spec.id, one.spec.name.clone(), one.documents)).collect();
    let wanted: BTreeSet<_> = model
        .libraries
        .values()
        .map(|library| (library.id, library.name.clone(), library.documents.len() as u64))
        .collect();
    if found != wanted {
        return differs(format!("the libraries are {found:?}, not {wanted:?}"));
    }
    let other = |spec: &LibrarySpec| spec.language != language(&spec.name);
    if let Some(one) = listed.iter().find(|one| other(&one.spec)) {
        return differs(format!(
            "library {:?} is of language {}",
            one.spec.name, one.spec.language
        ));
    }
    let mut digests = Digests::new();
    for (slot, library) in &model.libraries {
        let snapshot = engine.library(TENANT, library.id, None).await?;
        documents(&snapshot, *slot, &library.documents)?;
        listing(&snapshot, *slot, library)?;
        everything_is_found(engine, *slot, library).await?;
        digests.insert(library.id, snapshot.stats().digest);
    }
    Ok(digests)
}

fn documents(snapshot: &Snapshot, slot: u64, wanted: &Documents) -> Result<(), Failure> {
    for n in 0..DOCUMENTS {
        let found = snapshot.document(id(n), Embeddings::Included)?;
        let expected = wanted.get(&n).map(|version| expected(slot, n, *version));
        if found != expected {
            let titled = |document: Option<arrwdb_engine::state::Document>| {
                document.map_or("absent".to_owned(), |document| document.chunks[0].text.clone())
            };
            let (found, expected) = (titled(found), titled(expected));
            return differs(format!("in slot {slot}, {n} is `{found}`, not `{expected}`"));
        }
    }
    Ok(())
}

/// The version of each document that is there.
pub(crate) fn versions(snapshot: &Snapshot, slot: u64) -> Result<Documents, Failure> {
    let mut versions = Documents::new();
    for n in 0..DOCUMENTS {
        let Some(found) = snapshot.document(id(n), Embeddings::Included)? else { continue };
        // Its first chunk's time says which version it claims to be.
        let version = found.chunks.first().map_or(0, |chunk| chunk.created_at.micros());
        let version = u64::try_from(version).unwrap_or(0);
        if found != expected(slot, n, version) {
            return differs(format!("in slot {slot}, {n} is not wholly of version {version}"));
        }
        versions.insert(n, version);
    }
    Ok(versions)
}

/// Lists in pages: every document once.
pub(crate) fn listing(snapshot: &Snapshot, slot: u64, library: &Library) -> Result<(), Failure> {
    let (mut cursor, mut listed) = (None, Vec::new());
    loop {
        let page = snapshot.documents_after(cursor, 5, Embeddings::Omitted)?;
        listed.extend(page.documents.iter().map(|document| document.id));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let count = listed.len();
    let listed: BTreeSet<_> = listed.into_iter().collect();
    let wanted: BTreeSet<_> = library.documents.keys().map(|n| id(*n)).collect();
    if count != wanted.len() || listed != wanted {
        return differs(format!("slot {slot} lists {count} documents, {listed:?}, not {wanted:?}"));
    }
    Ok(())
}

fn request(vector: Vec<f32>, distance_threshold: Option<f32>) -> SearchRequest {
    let query = Query::Vector(vector);
    SearchRequest { distance_threshold, ..SearchRequest::new(query, 100) }
}

/// Each document is found by the vector of its first chunk, and a search without a limit gives
/// every chunk once and nothing else.
async fn everything_is_found(engine: &Engine, slot: u64, library: &Library) -> Result<(), Failure> {
    let mut wanted = BTreeSet::new();
    let mut query = None;
    for (n, version) in &library.documents {
        let document = expected(slot, *n, *version);
        wanted.extend(document.chunks.iter().map(|chunk| chunk.id));
        query = Some(document.chunks[0].embedding.clone());
        is_found(engine, slot, (library.id, *n, *version)).await?;
    }
    let Some(query) = query else { return Ok(()) };
    let answer = engine.search(TENANT, library.id, request(query, None), None).await?;
    let hits: Vec<_> = answer.hits.iter().map(|hit| hit.chunk.id).collect();
    let found: BTreeSet<_> = hits.iter().copied().collect();
    if hits.len() != wanted.len() || found != wanted {
        return differs(format!(
            "a search in slot {slot} gives {} chunks, {} of them wanted, of {}",
            hits.len(),
            found.intersection(&wanted).count(),
            wanted.len()
        ));
    }
    Ok(())
}

/// A document is found by the vector of its first chunk.
pub(crate) async fn is_found(
    engine: &Engine,
    slot: u64,
    (library, n, version): (LibraryId, u64, u64),
) -> Result<(), Failure> {
    let chunk = &expected(slot, n, version).chunks[0];
    let near = request(chunk.embedding.clone(), Some(1e-5));
    let answer = engine.search(TENANT, library, near, None).await?;
    let found =
        answer.hits.iter().any(|hit| hit.chunk.id == chunk.id && hit.chunk.text == chunk.text);
    if found { Ok(()) } else { differs(format!("in slot {slot}, {n} is there but not found")) }
}
