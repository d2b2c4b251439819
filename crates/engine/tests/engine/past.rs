//! The past of a library: every number within the history is as it was, by whatever it is searched,
//! over merges, checkpoints and restarts; and what is not kept is refused.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::{
    DocumentId, IndexSpec, LibraryId, Metric, Quantization, Seq, Structure, Timestamp, Tuning,
};
use arrwdb_engine::{
    Clock, Content, Embeddings, Engine, EngineConfig, EngineError, EngineParts, IndexChange,
    Moment, PutChunk, PutDocument,
};

use crate::indexes::library_by;
use crate::subject::*;

const K: usize = 7;

fn lasting() -> EngineConfig {
    EngineConfig {
        history: Duration::from_hours(1),
        index_rows_min: 100,
        checkpoint_bytes: 16 << 10,
        min_seq_wait_max: Duration::from_millis(50),
        ..config()
    }
}

/// Rows of a library by their versions.
type Rows = BTreeMap<u32, u64>;

/// A library with all it has been.
struct Subject {
    engine: Engine,
    disk: MemoryDisk,
    library: LibraryId,
    now: Rows,
    past: Vec<(Seq, Rows, u128)>,
}

fn row_id(row: u32) -> DocumentId {
    DocumentId::from_bytes(u128::from(row).to_be_bytes())
}

fn row_text(row: u32, version: u64) -> String {
    format!("row {row} version {version}")
}

fn row_vector(row: u32, version: u64) -> Vec<f32> {
    vector(7, u64::from(row), version)
}

fn row_document(row: u32, version: u64) -> PutDocument {
    let chunk = PutChunk {
        text: row_text(row, version),
        embedding: Some(row_vector(row, version)),
        ..PutChunk::default()
    };
    PutDocument { id: Some(row_id(row)), content: Content::Chunks(vec![chunk]), ..of_text("") }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

impl Subject {
    async fn new(index: IndexSpec) -> Self {
        let disk = MemoryDisk::new();
        let engine = open_with(&disk, lasting()).await.unwrap();
        let library = library_by(&engine, index, Metric::Cosine).await;
        let mut subject = Self { engine, disk, library, now: Rows::new(), past: Vec::new() };
        subject.note(subject.engine.durable()).await;
        subject
    }

    /// Remembers what the library is now, by a write's number.
    async fn note(&mut self, seq: Seq) {
        let snapshot = self.engine.library(TENANT, self.library, Some(seq)).await.unwrap();
        assert_eq!(snapshot.stats().documents, self.now.len() as u64);
        self.past.push((seq, self.now.clone(), snapshot.stats().digest));
    }

    async fn put(&mut self, rows: Range<u32>, version: u64) {
        let documents: Vec<_> = rows.clone().map(|row| row_document(row, version)).collect();
        let written = loop {
            match self.engine.put_documents(TENANT, self.library, documents.clone()).await {
                Ok(written) => break written,
                // Until the upkeep has made room.
                Err(EngineError::Busy { .. }) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        };
        written.value.into_iter().for_each(|outcome| drop(outcome.unwrap()));
        self.now.extend(rows.map(|row| (row, version)));
        self.note(written.seq).await;
    }

    async fn delete(&mut self, rows: impl Iterator<Item = u32> + Clone) {
        let ids = rows.clone().map(row_id).collect();
        let written = self.engine.delete_documents(TENANT, self.library, ids).await.unwrap();
        rows.for_each(|row| {
            self.now.remove(&row);
        });
        self.note(written.seq).await;
    }

    async fn build(&self) {
        self.engine.rebuild_index(TENANT, self.library, IndexChange::default()).await.unwrap();
    }

    /// The process ends without a word, or in order.
    async fn restart(&mut self, in_order: bool) {
        if in_order {
            self.engine.close().await.unwrap();
        }
        self.disk = self.disk.crash(|| false);
        self.engine = open_with(&self.disk, lasting()).await.unwrap();
    }

    async fn check(&self) {
        for (seq, rows, digest) in &self.past {
            self.check_at(*seq, rows, *digest).await;
        }
    }

    async fn check_at(&self, seq: Seq, rows: &Rows, digest: u128) {
        let at = Moment::as_of(seq);
        let snapshot = self.engine.library(TENANT, self.library, at).await.unwrap();
        assert_eq!((snapshot.seq(), snapshot.stats().documents), (seq, rows.len() as u64));
        assert_eq!((snapshot.stats().chunks, snapshot.stats().digest), (rows.len() as u64, digest));
        let listed = snapshot.documents_at(0, 10_000, Embeddings::Included).unwrap();
        assert_eq!(listed.total, rows.len() as u64);
        let listed: Rows = listed
            .documents
            .iter()
            .map(|document| {
                let text = &document.chunks[0].text;
                let (row, version) = text[4..].split_once(" version ").unwrap();
                let (row, version) = (row.parse().unwrap(), version.parse().unwrap());
                assert_eq!(document.chunks[0].embedding, row_vector(row, version));
                (row, version)
            })
            .collect();
        assert_eq!(&listed, rows, "the documents at {seq}");
        for row in [3, 250] {
            self.check_search(seq, rows, &row_vector(row, 1)).await;
        }
    }

    /// An exact search finds what the oracle finds; any finds as many, of what was there.
    async fn check_search(&self, seq: Seq, rows: &Rows, query: &[f32]) {
        let mut best: Vec<f64> =
            rows.iter().map(|(row, v)| cosine(query, &row_vector(*row, *v))).collect();
        best.sort_by(f64::total_cmp);
        best.truncate(K);
        for exact in [true, false] {
            let tuning = Tuning { exact, ..Tuning::default() };
            let request = arrwdb_engine::SearchRequest { tuning, ..nearest(query.to_vec(), K) };
            let at = Moment::as_of(seq);
            let found = self.engine.search(TENANT, self.library, request, at).await.unwrap();
            assert_eq!((found.seq, found.hits.len()), (seq, best.len()), "exact: {exact}");
            for (hit, best) in found.hits.iter().zip(&best) {
                let row = u128::from_be_bytes(hit.document_id.to_bytes());
                let version = rows[&u32::try_from(row).unwrap()];
                assert_eq!(hit.chunk.text, row_text(u32::try_from(row).unwrap(), version));
                let far = f64::from(hit.distance.unwrap()) - best;
                assert!(far > -1e-5 && (!exact || far < 1e-5), "{far} at {seq}");
            }
        }
    }
}

fn specs() -> Vec<IndexSpec> {
    let none = Quantization::None;
    let mut specs: Vec<IndexSpec> = Structure::TYPES
        .iter()
        .map(|name| IndexSpec { structure: Structure::new(name, &[]).unwrap(), quantization: none })
        .collect();
    for (structure, strategy) in [("hnsw", "hybrid"), ("brute_force", "binary")] {
        specs.push(IndexSpec {
            structure: Structure::new(structure, &[]).unwrap(),
            quantization: Quantization::new(strategy, &[]).unwrap(),
        });
    }
    specs
}

#[tokio::test(flavor = "multi_thread")]
async fn every_number_is_as_it_was_by_every_index_over_merges_and_restarts() {
    for spec in specs() {
        let mut subject = Subject::new(spec).await;
        for part in 0..4 {
            subject.put(part * 80..(part + 1) * 80, 1).await;
        }
        subject.build().await;
        subject.check().await;
        subject.delete((0..320).step_by(3)).await;
        subject.put(40..120, 2).await;
        subject.check().await;
        subject.build().await;
        subject.restart(false).await;
        subject.check().await;
        subject.put(300..420, 3).await;
        subject.delete(0..300).await;
        subject.build().await;
        subject.restart(true).await;
        subject.check().await;
        subject.put(0..30, 4).await;
        subject.engine.close_libraries().await;
        subject.check().await;
        subject.engine.close().await.unwrap();
    }
}

/// A clock that is set by hand.
#[derive(Debug, Default)]
struct Set(AtomicI64);

impl Set {
    fn advance(&self, minutes: i64) {
        self.0.fetch_add(minutes * 60_000_000, Ordering::SeqCst);
    }
}

impl Clock for Set {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

async fn open_by(disk: &MemoryDisk, clock: &Arc<Set>) -> Engine {
    let parts = EngineParts { clock: clock.clone(), ..parts(disk).await };
    Engine::open(lasting(), parts).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_what_is_older_than_the_history_and_nothing_else() {
    let (disk, clock) = (MemoryDisk::new(), Arc::new(Set::default()));
    clock.advance(1_000_000);
    let mut subject = Subject::new(IndexSpec::default()).await;
    subject.engine.close().await.unwrap();
    subject.engine = open_by(&disk, &clock).await;
    subject.disk = disk;
    subject.library = library_by(&subject.engine, IndexSpec::default(), Metric::Cosine).await;
    subject.past.clear();
    // One record every ten minutes, for three hours.
    for n in 0..18 {
        clock.advance(10);
        if n % 3 == 2 {
            subject.delete(n..n + 5).await;
        } else {
            subject.put(n..n + 20, n.into()).await;
        }
    }
    // Made durable and merged, and begun anew from what is on disk: several times.
    let mut kept = 0;
    for _restart in 0..3 {
        subject.disk = subject.disk.crash(|| false);
        subject.engine = open_by(&subject.disk, &clock).await;
        subject.build().await;
        // All but the last hour: seven states, from the one that an hour ago was.
        let at = subject.past.len() - 7;
        kept = 0;
        for (seq, rows, digest) in &subject.past[at..] {
            subject.check_at(*seq, rows, *digest).await;
            kept += 1;
        }
    }
    assert_eq!(kept, 7);
    let at = Moment::as_of(subject.past[0].0);
    let refused = subject.engine.library(TENANT, subject.library, at).await.unwrap_err();
    let EngineError::HistoryGone { wanted, oldest } = refused else { panic!("{refused}") };
    assert_eq!(wanted, subject.past[0].0);
    // What it says can be read, can.
    let then = subject.past.iter().rev().find(|(seq, _rows, _digest)| *seq <= oldest).unwrap();
    subject.check_at(oldest, &then.1, then.2).await;
    assert!(oldest <= subject.past[subject.past.len() - 7].0, "no more than was to be forgotten");
    subject.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_and_an_optimized_index_end_the_past() {
    for purge in [true, false] {
        let mut subject = Subject::new(IndexSpec::default()).await;
        subject.put(0..50, 1).await;
        subject.delete(0..10).await;
        subject.put(20..30, 2).await;
        subject.build().await;
        subject.check().await;
        if purge {
            subject.engine.purge().await.unwrap();
        } else {
            // Two files, so that there is something to be merged.
            subject.put(50..60, 1).await;
            subject.build().await;
            subject.engine.optimize_index(TENANT, subject.library).await.unwrap();
        }
        let kept = subject.past.split_off(3);
        for restarts in 0..2 {
            for (seq, _rows, _digest) in &subject.past {
                let at = Moment::as_of(*seq);
                let refused = subject.engine.library(TENANT, subject.library, at).await;
                assert!(
                    matches!(refused, Err(EngineError::HistoryGone { oldest, .. }) if oldest <= kept[0].0),
                    "{refused:?}"
                );
            }
            for (seq, rows, digest) in &kept {
                subject.check_at(*seq, rows, *digest).await;
            }
            subject.restart(restarts == 0).await;
        }
        subject.engine.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_is_to_come_is_waited_for() {
    let mut subject = Subject::new(IndexSpec::default()).await;
    subject.put(0..3, 1).await;
    let next = Seq::new(subject.engine.durable().get() + 1);
    let at = Moment::as_of(next);
    let refused = subject.engine.library(TENANT, subject.library, at).await.unwrap_err();
    assert!(matches!(refused, EngineError::SeqNotReached { wanted, .. } if wanted == next));
    let (engine, library) = (subject.engine.clone(), subject.library);
    let waits = tokio::spawn(async move {
        loop {
            match engine.library(TENANT, library, at).await {
                Err(EngineError::SeqNotReached { .. }) => {}
                outcome => return outcome.map(|snapshot| snapshot.stats().documents),
            }
        }
    });
    subject.put(3..5, 1).await;
    subject.put(5..9, 1).await;
    assert_eq!(waits.await.unwrap().unwrap(), 5, "not what came after");
    subject.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_was_deleted_is_found_where_it_was() {
    let mut subject = Subject::new(IndexSpec::default()).await;
    subject.put(0..4, 1).await;
    let there = subject.past.last().unwrap().0;
    subject.delete(0..4).await;
    let gone = subject.past.last().unwrap().0;
    for closed in [false, true] {
        if closed {
            subject.engine.close_libraries().await;
        }
        let at = |seq| subject.engine.locate_document(TENANT, row_id(2), Moment::as_of(seq));
        assert_eq!(at(there).await.unwrap(), Some(subject.library), "closed: {closed}");
        assert_eq!(at(gone).await.unwrap(), None, "closed: {closed}");
        let now = subject.engine.locate_document(TENANT, row_id(2), None).await.unwrap();
        assert_eq!(now, None);
    }
    subject.engine.close().await.unwrap();
}
