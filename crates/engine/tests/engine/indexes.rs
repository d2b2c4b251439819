//! What libraries are searched by: built, changed, lost and found again while they are used.

use std::path::Path;
use std::sync::Arc;

use arrwdb_engine::check::{Finding, Remedy, Silent};
use arrwdb_engine::log::disk::Disk;
use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::{
    DocumentId, IndexSpec, Language, LibraryId, Metric, Quantization, Structure, Tuning,
};
use arrwdb_engine::{
    Content, Engine, EngineConfig, EngineError, IndexChange, NewLibrary, PutChunk, PutDocument,
    SearchAnswer, SearchRequest,
};

use crate::directory::named;
use crate::subject::*;

pub(crate) const ROWS: u32 = 1200;
pub(crate) const K: usize = 5;

pub(crate) fn small() -> EngineConfig {
    EngineConfig { index_rows_min: 200, checkpoint_bytes: 1 << 20, ..config() }
}

fn hnsw() -> Structure {
    Structure::new("hnsw", &[("M", 8), ("ef_construction", 40), ("ef_search", 12)]).unwrap()
}

pub(crate) fn spec() -> IndexSpec {
    IndexSpec { structure: hnsw(), quantization: Quantization::new("hybrid", &[]).unwrap() }
}

pub(crate) async fn library_by(engine: &Engine, index: IndexSpec, metric: Metric) -> LibraryId {
    let new = NewLibrary {
        name: "indexed".into(),
        description: None,
        index,
        metric,
        language: Language::default(),
        embedding_provider: None,
        embedding_model: None,
        embedding_dimension: Some(DIMENSION),
    };
    engine.create_library(TENANT, new).await.unwrap().value.id
}

pub(crate) fn many(rows: std::ops::Range<u32>) -> Vec<PutDocument> {
    rows.map(|row| {
        let chunk = PutChunk {
            text: format!("row {row}"),
            embedding: Some(vector(7, u64::from(row), 1)),
            ..PutChunk::default()
        };
        PutDocument {
            id: Some(DocumentId::from_bytes(u128::from(row).to_be_bytes())),
            content: Content::Chunks(vec![chunk]),
            ..of_text("")
        }
    })
    .collect()
}

pub(crate) async fn fill(engine: &Engine, library: LibraryId, rows: std::ops::Range<u32>) {
    let written = engine.put_documents(TENANT, library, many(rows)).await.unwrap();
    written.value.into_iter().for_each(|outcome| drop(outcome.unwrap()));
}

pub(crate) async fn search(
    engine: &Engine,
    library: LibraryId,
    row: u64,
    tuning: Tuning,
) -> SearchAnswer {
    let request = SearchRequest { tuning, ..nearest(vector(7, row, 1), K) };
    engine.search(TENANT, library, request, None).await.unwrap()
}

/// Every search finds the row that it is of, as many as it asks for, at their true distances.
pub(crate) async fn check(engine: &Engine, library: LibraryId, rows: u32) {
    let metric = engine.library(TENANT, library, None).await.unwrap().spec().metric;
    for row in (0..u64::from(rows)).step_by(97) {
        let found = search(engine, library, row, Tuning::default()).await;
        assert_eq!(found.hits.len(), K.min(rows as usize));
        // By the inner product a longer row may be nearer than the row itself.
        if metric != Metric::Dot {
            assert_eq!(found.hits[0].chunk.text, format!("row {row}"));
        }
        let exact = Tuning { exact: true, ..Tuning::default() };
        let nearest = search(engine, library, row, exact).await;
        assert_eq!(nearest.plan.effort.walked, 0);
        for (found, best) in found.hits.iter().zip(&nearest.hits) {
            assert!(found.distance >= best.distance);
        }
    }
}

pub(crate) async fn walked(engine: &Engine, library: LibraryId) -> u32 {
    search(engine, library, 3, Tuning::default()).await.plan.effort.walked
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_changes_its_index_and_keeps_it_over_a_start() {
    for metric in Metric::ALL {
        let disk = MemoryDisk::new();
        let engine = open_with(&disk, small()).await.unwrap();
        let library = library_by(&engine, IndexSpec::default(), metric).await;
        fill(&engine, library, 0..ROWS).await;
        assert_eq!(walked(&engine, library).await, 0);
        let digest = crate::residence::digest(&engine, library).await;
        let change = IndexChange {
            structure: Some(hnsw()),
            quantization: Some(Quantization::new("hybrid", &[]).unwrap()),
        };
        let rebuilt = engine.rebuild_index(TENANT, library, change).await.unwrap().value;
        assert_eq!((rebuilt.old, rebuilt.new), (IndexSpec::default(), spec()));
        assert_eq!(rebuilt.chunks, u64::from(ROWS));
        assert!(walked(&engine, library).await > 0, "{metric:?}");
        check(&engine, library, ROWS).await;
        // What comes after is found beside it at once.
        fill(&engine, library, ROWS..ROWS + 50).await;
        check(&engine, library, ROWS + 50).await;
        engine.close().await.unwrap();

        let engine = open_with(&disk, small()).await.unwrap();
        assert!(walked(&engine, library).await > 0, "{metric:?}: it was not built again");
        check(&engine, library, ROWS + 50).await;
        let back = IndexChange {
            structure: Some(Structure::BruteForce),
            quantization: Some(Quantization::None),
        };
        engine.rebuild_index(TENANT, library, back).await.unwrap();
        assert_eq!(walked(&engine, library).await, 0);
        assert!(named(&disk, ".idx").is_empty(), "its files go with it");
        check(&engine, library, ROWS + 50).await;
        engine
            .delete_documents(
                TENANT,
                library,
                many(ROWS..ROWS + 50).iter().filter_map(|d| d.id).collect(),
            )
            .await
            .unwrap();
        assert_eq!(crate::residence::digest(&engine, library).await, digest);
        engine.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_make_an_exact_search_no_less_exact() {
    let engine = open_with(&MemoryDisk::new(), small()).await.unwrap();
    for metric in Metric::ALL {
        let quantization = Quantization::new("scalar", &[]).unwrap();
        let index = IndexSpec { quantization, ..IndexSpec::default() };
        let plain = library_by(&engine, IndexSpec::default(), metric).await;
        let coded = library_by(&engine, index, metric).await;
        for library in [plain, coded] {
            fill(&engine, library, 0..ROWS).await;
            engine.rebuild_index(TENANT, library, IndexChange::default()).await.unwrap();
        }
        for row in (0..u64::from(ROWS)).step_by(31) {
            let [expect, found] =
                [plain, coded].map(|library| search(&engine, library, row, Tuning::default()));
            let (expect, found) = (expect.await, found.await);
            assert!(found.plan.effort.codes > 0 && expect.plan.effort.codes == 0);
            let of = |answer: &SearchAnswer| -> Vec<(u32, String)> {
                answer
                    .hits
                    .iter()
                    .map(|hit| (hit.distance.unwrap().to_bits(), hit.chunk.text.clone()))
                    .collect()
            };
            assert_eq!(of(&found), of(&expect), "{metric:?}");
        }
    }
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_that_estimate_are_used_after_a_restart_but_not_by_an_exact_search() {
    for strategy in ["binary", "product"] {
        let disk = MemoryDisk::new();
        let engine = open_with(&disk, small()).await.unwrap();
        let quantization = Quantization::new(strategy, &[]).unwrap();
        let index = IndexSpec { quantization, ..IndexSpec::default() };
        let plain = library_by(&engine, IndexSpec::default(), Metric::Cosine).await;
        let coded = library_by(&engine, index, Metric::Cosine).await;
        for library in [plain, coded] {
            fill(&engine, library, 0..ROWS).await;
            engine.rebuild_index(TENANT, library, IndexChange::default()).await.unwrap();
        }
        engine.close().await.unwrap();
        let engine = open_with(&disk, small()).await.unwrap();
        let exactly = Tuning { exact: true, ..Tuning::default() };
        let (mut hits, mut wanted) = (0, 0);
        for row in (0..u64::from(ROWS)).step_by(31) {
            let texts = |answer: &SearchAnswer| -> Vec<String> {
                answer.hits.iter().map(|hit| hit.chunk.text.clone()).collect()
            };
            let expect = texts(&search(&engine, plain, row, Tuning::default()).await);
            let found = search(&engine, coded, row, Tuning::default()).await;
            let effort = found.plan.effort;
            assert!(effort.codes > 0 && effort.walked > 0, "{strategy}: {effort:?}");
            let found = texts(&found);
            wanted += expect.len();
            hits += expect.iter().filter(|text| found.contains(text)).count();
            let exact = search(&engine, coded, row, exactly).await;
            assert_eq!((exact.plan.effort.codes, exact.plan.effort.walked), (0, 0), "{strategy}");
            assert_eq!(texts(&exact), expect, "{strategy}");
        }
        assert!(hits * 100 >= wanted * 95, "{strategy}: {hits} of {wanted}");
        engine.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_or_damaged_index_is_built_again_and_nothing_is_missing_meanwhile() {
    for damage in ["removed", "flipped", "cut", "another segment's"] {
        let disk = MemoryDisk::new();
        let engine = open_with(&disk, small()).await.unwrap();
        let library = library_by(&engine, spec(), Metric::Cosine).await;
        let other = library_by(&engine, spec(), Metric::Cosine).await;
        fill(&engine, library, 0..ROWS).await;
        fill(&engine, other, 5..ROWS + 5).await;
        for library in [library, other] {
            engine.rebuild_index(TENANT, library, IndexChange::default()).await.unwrap();
        }
        engine.close().await.unwrap();
        let path = named(&disk, &library.to_string())
            .into_iter()
            .find(|path| path.extension().is_some_and(|end| end == "idx"))
            .unwrap();
        match damage {
            "removed" => disk.remove(&path).unwrap(),
            "flipped" => disk.alter(&path, |bytes| bytes[5000] ^= 1).unwrap(),
            "cut" => disk.alter(&path, |bytes| bytes.truncate(9000)).unwrap(),
            _ => {
                let theirs = named(&disk, &other.to_string())
                    .into_iter()
                    .find(|path| path.extension().is_some_and(|end| end == "idx"))
                    .unwrap();
                let mut bytes = Vec::new();
                disk.alter(&theirs, |all| bytes.clone_from(all)).unwrap();
                disk.alter(&path, |all| *all = bytes).unwrap();
            }
        }
        let report =
            arrwdb_engine::check::check(Arc::new(disk.crash(|| true)), Path::new("/data"), &Silent)
                .unwrap();
        let named = |finding: &Finding| finding.path == path && finding.remedy == Remedy::Remove;
        let findings = report.findings.kept.iter().filter(|finding| named(finding)).count();
        assert_eq!(findings, usize::from(damage != "removed"), "{damage}: {report:?}");
        let engine = open_with(&disk, small()).await.unwrap();
        check(&engine, library, ROWS).await;
        engine.rebuild_index(TENANT, library, IndexChange::default()).await.unwrap();
        assert!(walked(&engine, library).await > 0, "{damage}");
        check(&engine, library, ROWS).await;
        engine.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_loss_at_any_sync_of_a_change_of_index_loses_nothing() {
    let disk = MemoryDisk::new();
    let engine = open_with(&disk, small()).await.unwrap();
    let library = library_by(&engine, IndexSpec::default(), Metric::L2).await;
    fill(&engine, library, 0..ROWS).await;
    engine.close().await.unwrap();
    let change = IndexChange { structure: Some(hnsw()), quantization: Some(spec().quantization) };
    let mut indexed = [false; 2];
    for syncs in 0..40 {
        for kept in [false, true] {
            let disk = disk.crash(|| true);
            let engine = open_with(&disk, small()).await.unwrap();
            disk.fail_sync_after(syncs);
            let changed = engine.rebuild_index(TENANT, library, change).await;
            let lost = disk.crash(|| kept);
            drop(engine.close().await);
            let again = open_with(&lost, small()).await.unwrap();
            check(&again, library, ROWS).await;
            let now = again.library(TENANT, library, None).await.unwrap().spec().index;
            if changed.is_ok() {
                assert_eq!(now, spec(), "what was acknowledged is there");
            }
            indexed[usize::from(walked(&again, library).await > 0)] = true;
            again.close().await.unwrap();
        }
        if indexed == [true, true] && syncs > 12 {
            return;
        }
    }
    assert_eq!(indexed, [true, true], "before and after");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_says_so_and_the_library_is_searched_as_before() {
    let disk = MemoryDisk::new();
    let engine = open_with(&disk, small()).await.unwrap();
    let library = library_by(&engine, IndexSpec::default(), Metric::Cosine).await;
    fill(&engine, library, 0..ROWS).await;
    engine.rebuild_index(TENANT, library, IndexChange::default()).await.unwrap();
    disk.set_capacity(Some(disk.used_bytes() + 20_000));
    let change = IndexChange { structure: Some(hnsw()), quantization: None };
    let refused = engine.rebuild_index(TENANT, library, change).await.unwrap_err();
    assert!(matches!(refused, EngineError::DiskFull { .. }), "{refused}");
    check(&engine, library, ROWS).await;
    disk.set_capacity(None);
    engine.rebuild_index(TENANT, library, IndexChange::default()).await.unwrap();
    assert!(walked(&engine, library).await > 0);
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn optimizing_drops_what_is_dead_and_leaves_one_segment_with_its_index() {
    let disk = MemoryDisk::new();
    let engine = open_with(&disk, small()).await.unwrap();
    let library = library_by(&engine, spec(), Metric::Cosine).await;
    for part in 0..4 {
        fill(&engine, library, part * 300..(part + 1) * 300).await;
        engine.rebuild_index(TENANT, library, IndexChange::default()).await.unwrap();
    }
    let dead = many(0..300).iter().filter_map(|document| document.id).collect();
    engine.delete_documents(TENANT, library, dead).await.unwrap();
    let report = engine.optimize_index(TENANT, library).await.unwrap();
    assert_eq!((report.index, report.rows_dropped), (spec(), 300), "{report:?}");
    let stats = engine.library(TENANT, library, None).await.unwrap().stats();
    assert_eq!((stats.segments, stats.rows, stats.chunks), (1, 900, 900));
    assert!(walked(&engine, library).await > 0);
    let found = search(&engine, library, 3, Tuning::default()).await;
    assert!(found.hits.iter().all(|hit| hit.chunk.text.len() > 6), "no deleted row is back");
    assert_eq!(named(&disk, ".idx").len(), 1);
    assert!(disk.list(Path::new("/data")).is_ok());
    engine.close().await.unwrap();
}
