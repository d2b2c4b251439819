//! Postings are made once, kept beside their segments, and never more than a faster way to the same.

use std::path::PathBuf;

use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::{DocumentId, Language, LibraryId};
use arrwdb_engine::{Engine, EngineConfig, LibraryPatch};

use crate::directory::{files, named};
use crate::indexes::fill;
use crate::subject::*;

const ROWS: u32 = 300;

/// Postings of ten rows and more are kept, and no checkpoint is made that is not asked for.
fn kept() -> EngineConfig {
    EngineConfig { index_rows_min: 10, checkpoint_bytes: 1 << 30, ..config() }
}

async fn found(engine: &Engine, library: LibraryId, words: &str) -> Vec<(String, f32)> {
    let answer = engine.search(TENANT, library, by_words(words, 20), None).await.unwrap();
    answer.hits.iter().map(|hit| (hit.chunk.text.clone(), hit.score)).collect()
}

/// A library of one file.
async fn of_one_file(engine: &Engine) -> LibraryId {
    let library = library(engine).await;
    fill(engine, library, 0..ROWS).await;
    engine.optimize_index(TENANT, library).await.unwrap();
    library
}

/// The numbers of the segments that have postings beside them; each of them is there.
fn with_postings(disk: &MemoryDisk) -> Vec<PathBuf> {
    let found = named(disk, ".kwd");
    for path in &found {
        assert!(named(disk, ".seg").contains(&path.with_extension("seg")), "{}", path.display());
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn postings_lie_beside_their_segment_from_the_first_search_on() {
    let disk = MemoryDisk::new();
    let engine = open_with(&disk, kept()).await.unwrap();
    let library = of_one_file(&engine).await;
    assert!(with_postings(&disk).is_empty(), "nobody searched by keywords");
    let wanted = found(&engine, library, "row 7").await;
    assert_eq!(wanted[0].0, "row 7");
    assert_eq!(with_postings(&disk).len(), 1);
    engine.close().await.unwrap();

    let engine = open_with(&disk, kept()).await.unwrap();
    assert_eq!(found(&engine, library, "row 7").await, wanted);
    engine.close().await.unwrap();

    // Damage costs no more than making them again.
    let path = with_postings(&disk).remove(0);
    disk.alter(&path, |bytes| bytes[300] ^= 1).unwrap();
    let engine = open_with(&disk, kept()).await.unwrap();
    assert_eq!(found(&engine, library, "row 7").await, wanted);
    engine.delete_library(TENANT, library).await.unwrap();
    engine.close().await.unwrap();
    assert!(named(&disk, ".kwd").is_empty(), "they go with their library");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merged_segment_has_postings_where_its_parts_had() {
    let disk = MemoryDisk::new();
    let engine = open_with(&disk, kept()).await.unwrap();
    let library = of_one_file(&engine).await;
    let wanted = found(&engine, library, "row 7").await;
    engine.close().await.unwrap();

    let engine = open_with(&disk, kept()).await.unwrap();
    assert_eq!(found(&engine, library, "row 7").await, wanted);
    let before = with_postings(&disk);
    fill(&engine, library, ROWS..ROWS + 50).await;
    engine.delete_documents(TENANT, library, vec![many_id(7)]).await.unwrap();
    engine.optimize_index(TENANT, library).await.unwrap();
    let after = with_postings(&disk);
    assert_eq!((before.len(), after.len()), (1, 1));
    assert_ne!(before, after, "it is another segment");
    let now = found(&engine, library, "row 7").await;
    assert!(now.iter().all(|(text, _score)| text != "row 7") && now.len() == wanted.len());
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_leaves_no_words_of_what_was_deleted() {
    let disk = MemoryDisk::new();
    let engine = open_with(&disk, kept()).await.unwrap();
    let library = library(&engine).await;
    let mut documents = crate::indexes::many(0..ROWS);
    documents[7].title = "quicksilver".into();
    let put = engine.put_documents(TENANT, library, documents).await.unwrap();
    put.value.into_iter().for_each(|outcome| drop(outcome.unwrap()));
    engine.optimize_index(TENANT, library).await.unwrap();
    found(&engine, library, "quicksilver").await;
    let holds = |path: &PathBuf| {
        let mut held = Vec::new();
        disk.alter(path, |bytes| held.clone_from(bytes)).unwrap();
        held.windows(6).any(|window| window == b"quicks")
    };
    assert!(with_postings(&disk).iter().any(holds));
    engine.delete_documents(TENANT, library, vec![many_id(7)]).await.unwrap();
    engine.purge().await.unwrap();
    assert!(!files(&disk).iter().any(holds));
    assert_eq!(found(&engine, library, "quicksilver").await, []);
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_language_takes_the_place_of_the_postings_of_the_one_before() {
    let disk = MemoryDisk::new();
    let engine = open_with(&disk, kept()).await.unwrap();
    let library = of_one_file(&engine).await;
    let english = found(&engine, library, "rows 7").await;
    assert_eq!(english[0].0, "row 7");
    let whole = LibraryPatch { language: Some(Language::None), ..LibraryPatch::default() };
    engine.update_library(TENANT, library, whole).await.unwrap();
    let whole_words = found(&engine, library, "rows").await;
    assert_eq!(whole_words, []);
    engine.close().await.unwrap();
    let engine = open_with(&disk, kept()).await.unwrap();
    assert_eq!(found(&engine, library, "rows").await, []);
    assert_eq!(found(&engine, library, "row 7").await[0].0, "row 7");
    assert_eq!(with_postings(&disk).len(), 1);
    engine.close().await.unwrap();
}

fn many_id(row: u32) -> DocumentId {
    DocumentId::from_bytes(u128::from(row).to_be_bytes())
}
