//! What embedding used outlives restarts, and a disk that is full.

use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::{BudgetPeriod, BudgetTerms, LibraryId, Money};
use arrwdb_engine::{CostGroup, CostQuery, Engine, EngineConfig, EngineError, NewBudget};

use crate::subject::{TENANT, config, library, of_text, open, open_with};

/// Adds a document of a new text.
async fn embed(engine: &Engine, library: LibraryId, n: u32) {
    let document = of_text(&format!("text {n}"));
    let written = engine.put_documents(TENANT, library, vec![document]).await.unwrap();
    written.value.into_iter().for_each(|outcome| drop(outcome.unwrap()));
}

/// Texts that were embedded, and what is told apart of them.
async fn texts(engine: &Engine, groups: Vec<CostGroup>) -> (u64, usize) {
    let query = CostQuery { groups, ..CostQuery::default() };
    let (report, _seq) = engine.costs(TENANT, &query, None).await.unwrap();
    assert_eq!(report.rows.iter().map(|(_key, used)| used.texts).sum::<u64>(), report.total.texts);
    assert_eq!((report.total.cost, report.total.unpriced_tokens), (Money::ZERO, 0), "it is local");
    (report.total.texts, report.rows.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_outlives_a_restart_and_is_told_apart_as_asked() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let libraries = [library(&engine).await, library(&engine).await];
    for n in 0..6 {
        embed(&engine, libraries[n as usize % 2], n).await;
    }
    assert_eq!(texts(&engine, vec![CostGroup::Library]).await, (6, 2), "before it is recorded");
    engine.close().await.unwrap();
    for _restart in 0..2 {
        let engine = open(&disk).await;
        assert_eq!(texts(&engine, vec![CostGroup::Library]).await, (6, 2));
        assert_eq!(texts(&engine, vec![CostGroup::Model, CostGroup::Provider]).await, (6, 1));
        engine.close().await.unwrap();
    }
    let engine = open(&disk).await;
    embed(&engine, libraries[0], 9).await;
    assert_eq!(texts(&engine, vec![CostGroup::Day]).await.0, 7);
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_is_recorded_at_the_end_though_the_disk_is_nearly_full() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let library = library(&engine).await;
    engine.close().await.unwrap();
    let full = EngineConfig { disk_free_bytes_min: u64::MAX, ..config() };
    let engine = open_with(&disk, full).await.unwrap();
    engine.embed_query(TENANT, library, "a question".into()).await.unwrap();
    let terms = NewBudget {
        library: Some(library),
        amount: Money::from_micros(1),
        period: BudgetPeriod::Month,
        thresholds: vec![80, 50],
        refuse: true,
    };
    let refused = engine.set_budget(TENANT, terms.clone()).await.unwrap_err();
    assert!(matches!(refused, EngineError::DiskFull { .. }), "{refused}");
    assert_eq!(texts(&engine, vec![CostGroup::Day]).await, (1, 1));
    engine.close().await.unwrap();
    let engine = open(&disk).await;
    assert_eq!(texts(&engine, vec![CostGroup::Day]).await, (1, 1));
    // A budget that nothing was paid from refuses nothing: the model is local.
    let set = engine.set_budget(TENANT, terms).await.unwrap().value;
    let BudgetTerms { thresholds, refuse, .. } = set.terms;
    assert_eq!((thresholds, refuse, set.spent), (vec![50, 80], true, Money::ZERO));
    embed(&engine, library, 1).await;
    engine.delete_library(TENANT, library).await.unwrap();
    engine.close().await.unwrap();
    let engine = open(&disk).await;
    assert!(engine.budgets(TENANT, None).await.unwrap().0.is_empty(), "it went with its library");
    engine.close().await.unwrap();
}
