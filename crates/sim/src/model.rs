//! What should be there: plain maps, and the documents they stand for.

use std::collections::BTreeMap;

use arrwdb_engine::embed::deterministic::vector_of;
use arrwdb_engine::state::{
    Chunk, ChunkId, Custom, Document, DocumentId, DocumentMetadata, IndexSpec, Language, LibraryId,
    Metric, Quantization, Structure, Timestamp,
};
use arrwdb_engine::{Content, NewLibrary, PutChunk, PutDocument};

use crate::world::Seeded;

/// Documents of a library that operations choose from.
pub(crate) const DOCUMENTS: u64 = 24;
/// Libraries that can exist at the same time.
pub(crate) const SLOTS: u64 = 3;
/// The library of this slot has its texts embedded by the engine; those of the others come with
/// vectors.
const EMBEDDED: u64 = 2;
/// Dimension of the vectors that come with their texts.
const DIMENSION: u32 = 4;
/// Dimension of the default model.
const DIMENSION_EMBEDDED: u32 = 384;

/// The version of each document that exists.
pub(crate) type Documents = BTreeMap<u64, u64>;

/// A library that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Library {
    pub(crate) id: LibraryId,
    pub(crate) name: String,
    pub(crate) documents: Documents,
}

/// Every library that exists, by slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) libraries: BTreeMap<u64, Library>,
}

/// A name of no other library.
pub(crate) fn name(slot: u64, version: u64) -> String {
    format!("library {slot} of {version}")
}

/// The language of a library of this name: each version has another, so that renaming changes it.
pub(crate) fn language(name: &str) -> Language {
    let version = name.rsplit(' ').next().and_then(|version| version.parse::<usize>().ok());
    Language::ALL[version.unwrap_or(0) % Language::ALL.len()]
}

/// The library of a slot, as it is asked for.
pub(crate) fn new_library(slot: u64, version: u64) -> NewLibrary {
    let name = name(slot, version);
    NewLibrary {
        language: language(&name),
        name,
        description: None,
        index: index(slot),
        metric: Metric::Cosine,
        embedding_provider: None,
        embedding_model: None,
        embedding_dimension: (slot != EMBEDDED).then_some(DIMENSION),
    }
}

/// What the library of a slot is searched by: every type, and codes. A search for all that is there
/// gives all of it by each of them, and what is nearest by far is found by each of them.
fn index(slot: u64) -> IndexSpec {
    const SPECS: [(&str, &str); 6] = [
        ("kd_tree", "none"),
        ("brute_force", "none"),
        ("hnsw", "none"),
        ("ivf", "none"),
        ("lsh", "none"),
        ("brute_force", "scalar"),
    ];
    let place = usize::try_from(slot).unwrap_or(0) % SPECS.len();
    let (structure, codes) = SPECS[place];
    let structure = Structure::new(structure, &[]).unwrap_or(Structure::BruteForce);
    let codes = Quantization::new(codes, &[]).unwrap_or(Quantization::None);
    IndexSpec::new(structure, codes).unwrap_or_default()
}

pub(crate) fn id(n: u64) -> DocumentId {
    DocumentId::from_bytes((u128::from(n) + 1).to_be_bytes())
}

/// How many chunks a version of a document has.
pub(crate) fn chunk_count(n: u64, version: u64) -> u64 {
    (n + version) % 3 + 1
}

fn text(n: u64, version: u64, part: u64) -> String {
    // Of many lengths, so that records meet sectors, frames and blocks in every way.
    let words = Seeded::new(n ^ (version << 16)).below(40);
    let words = " word".repeat(usize::try_from(words).unwrap_or(0));
    format!("document {n} version {version} part {part}{words}")
}

fn vector(n: u64, version: u64, part: u64) -> Vec<f32> {
    let random = Seeded::new(n * 1_000_003 + version * 31 + part);
    let small = |random: &Seeded| u16::try_from(random.below(2001)).unwrap_or(0);
    (0..DIMENSION).map(|_dim| f32::from(small(&random)) - 1000.5).collect()
}

fn custom(n: u64, version: u64) -> Custom {
    let mut custom = Custom::new();
    if (n + version).is_multiple_of(2) {
        custom.insert("version".into(), version.into());
    }
    custom
}

/// The document as a reader has to get it, byte for byte.
pub(crate) fn expected(slot: u64, n: u64, version: u64) -> Document {
    let at = |offset: u64| Timestamp::from_micros(i64::try_from(version + offset).unwrap_or(0));
    let chunk = |part: u64| Chunk {
        id: ChunkId::from_bytes(
            (u128::from(version) << 64 | u128::from(n * 8 + part)).to_be_bytes(),
        ),
        text: text(n, version, part),
        embedding: if slot == EMBEDDED {
            vector_of(&text(n, version, part), DIMENSION_EMBEDDED)
        } else {
            vector(n, version, part)
        },
        created_at: at(part),
        page_number: u32::try_from(part).ok(),
        custom: custom(n, part),
    };
    Document {
        id: id(n),
        metadata: DocumentMetadata {
            title: format!("document {n}"),
            author: Some("a seed".into()),
            document_type: "simulated".into(),
            source_url: None,
            tags: vec![format!("slot {slot}")],
            custom: custom(n, version),
            created_at: at(7),
        },
        chunks: (0..chunk_count(n, version)).map(chunk).collect(),
    }
}

/// The document as it is sent.
pub(crate) fn document(slot: u64, n: u64, version: u64) -> PutDocument {
    let Document { id, metadata, chunks } = expected(slot, n, version);
    let chunk = |chunk: Chunk| PutChunk {
        id: Some(chunk.id),
        text: chunk.text,
        embedding: (slot != EMBEDDED).then_some(chunk.embedding),
        created_at: Some(chunk.created_at),
        page_number: chunk.page_number,
        custom: chunk.custom,
    };
    PutDocument {
        id: Some(id),
        title: metadata.title,
        author: metadata.author,
        document_type: Some(metadata.document_type),
        source_url: metadata.source_url,
        tags: metadata.tags,
        custom: metadata.custom,
        created_at: Some(metadata.created_at),
        content: Content::Chunks(chunks.into_iter().map(chunk).collect()),
        vectors: Vec::new(),
    }
}
