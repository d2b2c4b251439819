//! F7 on the real engine, on a disk in memory that loses its power: what the matcher notes against
//! what a scan by hand, and the library's own search, say.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::cast_possible_truncation, reason = "the numbers are small")]
#![expect(clippy::too_many_lines, reason = "a test tells one story")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrwdb_engine::backup::{FolderTarget, RestoreTo, Site, restore, take};
use arrwdb_engine::check::{Silent, check};
use arrwdb_engine::embed::deterministic::DeterministicProvider;
use arrwdb_engine::embed::http::{HttpOptions, http_client};
use arrwdb_engine::embed::{EmbedConfig, EmbedParts, Embedder, LocalSource, TokioTimer};
use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::{
    Custom, DocumentId, Filter, IndexSpec, Language, LibraryEntry, LibraryId, MatchedPassage,
    Metric, QueryId, Seq, TenantId,
};
use arrwdb_engine::{
    ChangeEntry, Content, Engine, EngineConfig, EngineError, EngineParts, NewLibrary,
    NewStandingQuery, OsRandom, PutChunk, PutDocument, Query, SearchRequest, StandingQueryPatch,
    SystemClock,
};
use arrwdb_feed::Matcher;
use serde_json::json;

const TENANT: TenantId = TenantId::DEFAULT;
const DIMENSION: u32 = 8;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn vector(&mut self) -> Vec<f32> {
        let number = |random: &mut Self| (random.below(2001) as f32 - 1000.5) / 500.0;
        (0..DIMENSION).map(|_| number(self)).collect()
    }
}

fn config() -> EngineConfig {
    EngineConfig {
        history: Duration::ZERO,
        checkpoint_bytes: 4096,
        disk_free_bytes_min: 0,
        ..EngineConfig::new(PathBuf::from("/data"))
    }
}

async fn open_with(disk: &MemoryDisk, config: EngineConfig) -> (Engine, Matcher) {
    let parts = EmbedParts {
        local: LocalSource::Custom(Arc::new(DeterministicProvider)),
        http: http_client(&HttpOptions::default()).unwrap(),
        timer: Arc::new(TokioTimer::new()),
        random: Arc::new(|| 7),
    };
    let embedder = Embedder::open(EmbedConfig::default(), parts).await.unwrap();
    let parts = EngineParts {
        clock: Arc::new(SystemClock),
        random: Arc::new(OsRandom),
        disk: Arc::new(disk.clone()),
        embedder,
        reranker: None,
    };
    let engine = Engine::open(config, parts).await.unwrap();
    let matcher = Matcher::start(engine.clone()).await.unwrap();
    (engine, matcher)
}

async fn open(disk: &MemoryDisk) -> (Engine, Matcher) {
    open_with(disk, config()).await
}

async fn close((engine, matcher): (Engine, Matcher)) {
    matcher.close().await;
    engine.close().await.unwrap();
}

async fn library(engine: &Engine, metric: Metric) -> LibraryId {
    let new = NewLibrary {
        name: "watched".into(),
        description: None,
        index: IndexSpec::default(),
        metric,
        language: Language::default(),
        embedding_provider: None,
        embedding_model: None,
        embedding_dimension: Some(DIMENSION),
    };
    engine.create_library(TENANT, new).await.unwrap().value.id
}

fn document(id: DocumentId, kind: u64, vectors: &[Vec<f32>]) -> PutDocument {
    let chunk = |vector: &Vec<f32>| PutChunk {
        text: format!("a passage of kind {kind} at {vector:?}"),
        embedding: Some(vector.clone()),
        ..PutChunk::default()
    };
    PutDocument {
        id: Some(id),
        title: "a title".into(),
        author: None,
        document_type: None,
        source_url: None,
        tags: Vec::new(),
        custom: Custom::from_iter([("kind".to_owned(), json!(kind))]),
        created_at: None,
        content: Content::Chunks(vectors.iter().map(chunk).collect()),
        vectors: Vec::new(),
    }
}

fn wanted(vector: Vec<f32>, distance_threshold: f32, kind: Option<u64>) -> NewStandingQuery {
    let fields = kind.map(|kind| ("kind".to_owned(), json!(kind)));
    NewStandingQuery {
        name: "a query".into(),
        query: Query::Vector(vector),
        distance_threshold,
        filter: Filter::read(serde_json::Value::Object(Custom::from_iter(fields))).unwrap(),
    }
}

/// Everything that was noted of a library, with the number of its record.
async fn noted(engine: &Engine, library: LibraryId) -> Vec<(Seq, MatchedPassage)> {
    noted_after(engine, library, Seq::START).await
}

async fn noted_after(
    engine: &Engine,
    library: LibraryId,
    mut after: Seq,
) -> Vec<(Seq, MatchedPassage)> {
    let mut noted = Vec::new();
    loop {
        let changes = engine.changes_after(after, 500).await.unwrap();
        let Some(last) = changes.last() else { return noted };
        after = last.seq;
        for change in changes {
            let ChangeEntry::Library(id, LibraryEntry::QueriesMatched(matched)) = change.entry
            else {
                continue;
            };
            assert_eq!(id, matched.library.companion());
            if matched.library == library {
                noted.extend(matched.passages.into_iter().map(|passage| (change.seq, passage)));
            }
        }
    }
}

/// A passage as it was written: record, document, place.
type Passage = (Seq, DocumentId, u32);

struct Known {
    vector: Vec<f32>,
    threshold: f32,
    kind: Option<u64>,
    since: Seq,
    /// When it was deleted, and whether everything before was matched by then.
    deleted: Option<(Seq, bool)>,
}

struct History {
    random: Random,
    metric: Metric,
    disk: MemoryDisk,
    running: (Engine, Matcher),
    library: LibraryId,
    passages: BTreeMap<Passage, (Vec<f32>, u64)>,
    live: BTreeMap<DocumentId, Seq>,
    queries: BTreeMap<QueryId, Known>,
    last: Seq,
    matched_to: Seq,
}

impl History {
    async fn new(seed: u64) -> Self {
        let metric = Metric::ALL[(seed % 3) as usize];
        let disk = MemoryDisk::new();
        let running = open(&disk).await;
        let library = library(&running.0, metric).await;
        Self {
            random: Random(seed * 7919 + 1),
            metric,
            disk,
            running,
            library,
            passages: BTreeMap::new(),
            live: BTreeMap::new(),
            queries: BTreeMap::new(),
            last: Seq::START,
            matched_to: Seq::START,
        }
    }

    async fn step(&mut self) {
        match self.random.below(20) {
            0..9 => self.put().await,
            9 => self.delete_document().await,
            10..13 => self.add_query().await,
            13 => self.delete_query().await,
            14 => self.change_query().await,
            15 | 16 => self.settle().await,
            17 => self.engine().close_libraries().await,
            18 => self.restart().await,
            _ => self.crash().await,
        }
    }

    fn engine(&self) -> &Engine {
        &self.running.0
    }

    async fn put(&mut self) {
        let mut put = Vec::new();
        for _document in 0..=self.random.below(3) {
            let id = DocumentId::from_bytes([self.random.below(12) as u8; 16]);
            let kind = self.random.below(2);
            let chunks = 1 + self.random.below(4);
            let vectors: Vec<_> = (0..chunks).map(|_| self.random.vector()).collect();
            put.retain(|(other, _, _)| *other != id);
            put.push((id, kind, vectors));
        }
        let documents = put.iter().map(|(id, kind, vectors)| document(*id, *kind, vectors));
        let written = self.engine().put_documents(TENANT, self.library, documents.collect()).await;
        self.last = written.unwrap().seq;
        for (id, kind, vectors) in put {
            self.live.insert(id, self.last);
            for (index, vector) in (0..).zip(vectors) {
                self.passages.insert((self.last, id, index), (vector, kind));
            }
        }
    }

    async fn delete_document(&mut self) {
        let Some(id) = self.live.keys().next().copied() else { return };
        let written = self.engine().delete_documents(TENANT, self.library, vec![id]).await;
        self.last = written.unwrap().seq;
        self.live.remove(&id);
    }

    fn threshold(&mut self) -> f32 {
        let part = self.random.below(1000) as f32 / 1000.0;
        match self.metric {
            Metric::Cosine => part * 1.2,
            Metric::Dot => 1.0 - part * 6.0,
            Metric::L2 => part * 5.0,
        }
    }

    async fn add_query(&mut self) {
        let (vector, threshold) = (self.random.vector(), self.threshold());
        let kind = Some(self.random.below(4)).filter(|kind| *kind < 2);
        let new = wanted(vector.clone(), threshold, kind);
        let written = self.engine().add_standing_query(TENANT, self.library, new).await.unwrap();
        self.last = written.seq;
        let known = Known { vector, threshold, kind, since: written.seq, deleted: None };
        self.queries.insert(written.value.id, known);
    }

    fn any_query(&mut self) -> Option<QueryId> {
        let live: Vec<QueryId> = self
            .queries
            .iter()
            .filter_map(|(id, known)| known.deleted.is_none().then_some(*id))
            .collect();
        let n = self.random.below(live.len().max(1) as u64) as usize;
        live.get(n).copied()
    }

    async fn delete_query(&mut self) {
        let Some(id) = self.any_query() else { return };
        let written = self.engine().delete_standing_query(TENANT, self.library, id).await;
        let settled = self.matched_to >= self.last;
        self.last = written.unwrap().seq;
        self.queries.get_mut(&id).unwrap().deleted = Some((self.last, settled));
    }

    /// Changes a name: what it matches stays, from when it was registered on.
    async fn change_query(&mut self) {
        let Some(id) = self.any_query() else { return };
        let patch = StandingQueryPatch { name: Some("renamed".into()), ..Default::default() };
        let written = self.engine().update_standing_query(TENANT, self.library, id, patch).await;
        self.last = written.unwrap().seq;
    }

    async fn settle(&mut self) {
        assert!(self.running.1.reached(self.last).await, "it matches");
        self.matched_to = self.last;
    }

    async fn restart(&mut self) {
        self.running.1.stop();
        self.engine().close().await.unwrap();
        self.running = open(&self.disk).await;
    }

    /// The power fails: of what was not synced, some is on the disk and some is not.
    async fn crash(&mut self) {
        let (mut bits, random) = (self.random.next(), &mut self.random);
        let crashed = self.disk.crash(|| {
            bits = bits.rotate_left(1) ^ random.below(2);
            bits & 1 == 1
        });
        self.running.1.stop();
        self.engine().close().await.unwrap();
        self.running = open(&crashed).await;
        self.disk = crashed;
    }

    /// By hand, in f64; `None` where rounding decides.
    fn is_near(&self, a: &[f32], b: &[f32], threshold: f32) -> Option<bool> {
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let distance = match self.metric {
            Metric::Cosine => 1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt(),
            Metric::Dot => 1.0 - dot(a, b),
            Metric::L2 => (dot(a, a) + dot(b, b) - 2.0 * dot(a, b)).max(0.0).sqrt(),
        };
        let apart = distance - f64::from(threshold);
        (apart.abs() > 1e-4).then_some(apart < 0.0)
    }

    async fn check(&mut self) {
        self.settle().await;
        let mut found: BTreeMap<(QueryId, Passage), (Seq, f32)> = BTreeMap::new();
        for (seq, passage) in noted(self.engine(), self.library).await {
            let at = (passage.seq, passage.document, passage.chunk_index);
            assert!(passage.passage.contains("a passage of kind"), "{passage:?}");
            for query in passage.queries {
                let twice = found.insert((query.id, at), (seq, query.distance));
                assert!(twice.is_none(), "noted twice: {} {at:?}", query.id);
            }
        }
        for (id, known) in &self.queries {
            for (at, (vector, kind)) in &self.passages {
                let registered = known.since < at.0;
                let passes = known.kind.is_none_or(|wanted| wanted == *kind);
                let near = self.is_near(&known.vector, vector, known.threshold);
                let found = found.remove(&(*id, *at));
                if let (Some((seq, _distance)), Some((gone, _settled))) = (found, known.deleted) {
                    assert!(seq < gone, "noted at {seq} of a query that was deleted at {gone}");
                }
                let may = known.deleted.is_none_or(|(gone, _settled)| at.0 < gone);
                let must = known.deleted.is_none_or(|(_gone, settled)| settled);
                match (registered && passes && may, near) {
                    (false, _) | (true, Some(false)) => {
                        assert!(found.is_none(), "{id} {at:?} does not match");
                    }
                    (true, Some(true)) if must => {
                        assert!(found.is_some(), "{id} {at:?} was missed");
                    }
                    (true, _) => {}
                }
            }
        }
        assert!(found.is_empty(), "of nothing that was written: {found:?}");
        self.check_by_search().await;
    }

    /// The distances are those of a search, bit for bit.
    async fn check_by_search(&mut self) {
        let mut distances = BTreeMap::new();
        for (_seq, passage) in noted(self.engine(), self.library).await {
            let at = (passage.document, passage.seq, passage.chunk_index);
            for query in passage.queries {
                distances.insert((query.id, at), query.distance.to_bits());
            }
        }
        for (id, known) in &self.queries {
            let request = SearchRequest {
                distance_threshold: Some(known.threshold),
                ..SearchRequest::new(Query::Vector(known.vector.clone()), 1000)
            };
            let answer = self.engine().search(TENANT, self.library, request, None).await.unwrap();
            for hit in answer.hits {
                let seq = self.live[&hit.document_id];
                let at = (hit.document_id, seq, hit.chunk_index);
                let (_vector, kind) = &self.passages[&(seq, hit.document_id, hit.chunk_index)];
                let passes = known.kind.is_none_or(|wanted| wanted == *kind);
                if known.since < seq && passes && known.deleted.is_none() {
                    assert_eq!(
                        distances.get(&(*id, at)),
                        Some(&hit.distance.unwrap().to_bits()),
                        "{at:?}"
                    );
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f7_every_match_is_noted_once_whatever_happens() {
    let seeds = std::env::var("ARRWDB_STANDING_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    for seed in 1..=seeds.unwrap_or(6_u64) {
        let mut history = History::new(seed).await;
        println!("seed {seed}");
        for _step in 0..80 {
            history.step().await;
        }
        history.check().await;
        history.restart().await;
        history.check().await;
        close(history.running).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_are_changed_listed_and_nobody_elses_library_shows() {
    let disk = MemoryDisk::new();
    let running = open(&disk).await;
    let engine = &running.0;
    let library = library(engine, Metric::Cosine).await;
    let page = engine.standing_queries(TENANT, library, (None, 10), None).await.unwrap();
    assert_eq!((page.total, page.queries.len()), (0, 0));
    let mut ids = Vec::new();
    for n in 0..5_u8 {
        let vector = Random(u64::from(n) + 9).vector();
        let new = wanted(vector, 0.3, None);
        let written = engine.add_standing_query(TENANT, library, new).await.unwrap();
        ids.push(written.value.id);
        let seq = Some(written.seq);
        let (found, _seq) =
            engine.standing_query(TENANT, library, ids[usize::from(n)], seq).await.unwrap();
        assert_eq!(found, written.value);
    }
    // Neither counted, nor listed, nor reached.
    assert_eq!(engine.libraries(TENANT, None).await.unwrap().len(), 1);
    let health = engine.health();
    assert_eq!((health.libraries, health.documents, health.chunks), (1, 0, 0));
    let hidden = engine.library(TENANT, library.companion(), None).await.unwrap_err();
    assert!(matches!(hidden, EngineError::LibraryNotFound(_)), "{hidden}");
    let located = engine.locate_document(TENANT, ids[0].document(), None).await.unwrap();
    assert_eq!(located, None);
    let other = TenantId::new(5);
    assert!(engine.standing_query(other, library, ids[0], None).await.is_err());
    assert!(engine.standing_queries(other, library, (None, 10), None).await.is_err());

    let patch = StandingQueryPatch {
        name: Some("another name".into()),
        query: Some(Query::Text("in words".into())),
        distance_threshold: Some(0.5),
        filter: None,
    };
    let bad = StandingQueryPatch { distance_threshold: Some(2.5), ..patch.clone() };
    let refused = engine.update_standing_query(TENANT, library, ids[1], bad).await.unwrap_err();
    assert!(matches!(refused, EngineError::Invalid { .. }), "{refused}");
    let blank = Some(Query::Text(" ".into()));
    let blank = StandingQueryPatch { query: blank, ..StandingQueryPatch::default() };
    let text = engine.update_standing_query(TENANT, library, ids[1], blank).await.unwrap_err();
    assert!(matches!(&text, EngineError::Blank { field, .. } if field == "/text"), "{text}");
    let changed = engine.update_standing_query(TENANT, library, ids[1], patch.clone()).await;
    assert_eq!(changed.unwrap().value.text.as_deref(), Some("in words"));
    let patch = StandingQueryPatch { query: None, ..patch };
    let changed = engine.update_standing_query(TENANT, library, ids[1], patch).await.unwrap();
    assert_eq!(
        (changed.value.name.as_str(), changed.value.distance_threshold),
        ("another name", 0.5)
    );
    engine.delete_standing_query(TENANT, library, ids[0]).await.unwrap();
    let twice = engine.delete_standing_query(TENANT, library, ids[0]).await.unwrap_err();
    assert!(matches!(twice, EngineError::StandingQueryNotFound(_)), "{twice}");
    let (mut listed, mut cursor) = (Vec::new(), None);
    loop {
        let page = engine.standing_queries(TENANT, library, (cursor, 2), None).await.unwrap();
        assert_eq!(page.total, 4);
        listed.extend(page.queries.into_iter().map(|query| query.id));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(listed, [ids[2], ids[3], ids[4], ids[1]], "those changed longest ago first");
    close(running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_more_queries_than_there_may_be() {
    let disk = MemoryDisk::new();
    let config = EngineConfig { standing_queries_per_library_max: 3, ..config() };
    let running = open_with(&disk, config).await;
    let library = library(&running.0, Metric::L2).await;
    let mut random = Random(3);
    for _query in 0..3 {
        let new = wanted(random.vector(), 1.0, None);
        running.0.add_standing_query(TENANT, library, new).await.unwrap();
    }
    let new = wanted(random.vector(), 1.0, None);
    let full = running.0.add_standing_query(TENANT, library, new).await.unwrap_err();
    assert!(matches!(full, EngineError::TooManyStandingQueries(3)), "{full}");
    close(running).await;
}

fn holds(disk: &MemoryDisk, dir: &str, bytes: &[u8]) -> Vec<PathBuf> {
    let mut dirs = vec![PathBuf::from(dir)];
    let mut found = Vec::new();
    let os: &dyn arrwdb_engine::log::disk::Disk = disk;
    while let Some(dir) = dirs.pop() {
        for name in os.list(&dir).unwrap_or_default() {
            let path = dir.join(name);
            let looked = disk.alter(&path, |all| {
                if all.windows(bytes.len()).any(|window| window == bytes) {
                    found.push(path.clone());
                }
            });
            if looked.is_err() {
                dirs.push(path);
            }
        }
    }
    found
}

/// A library with a query that matches one passage, which is noted.
async fn matched_library(running: &(Engine, Matcher)) -> (LibraryId, QueryId) {
    let library = library(&running.0, Metric::Cosine).await;
    let vector = Random(77).vector();
    let new = wanted(vector.clone(), 0.1, None);
    let query = running.0.add_standing_query(TENANT, library, new).await.unwrap().value.id;
    let id = DocumentId::from_bytes([1; 16]);
    let put = document(id, 7, &[vector]);
    let seq = running.0.put_documents(TENANT, library, vec![put]).await.unwrap().seq;
    assert!(running.1.reached(seq).await);
    assert_eq!(noted(&running.0, library).await.len(), 1);
    (library, query)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_takes_its_queries_with_it() {
    let disk = MemoryDisk::new();
    let running = open(&disk).await;
    let (library, query) = matched_library(&running).await;
    running.0.close_libraries().await;
    let companion = library.companion().to_string();
    assert!(!holds(&disk, "/data/libraries", query.document().to_bytes().as_slice()).is_empty());
    running.0.delete_library(TENANT, library).await.unwrap();
    let gone = running.0.standing_query(TENANT, library, query, None).await.unwrap_err();
    assert!(matches!(gone, EngineError::LibraryNotFound(id) if id == library), "{gone}");
    close(running).await;
    let running = open(&disk).await;
    let os: &dyn arrwdb_engine::log::disk::Disk = &disk;
    let left = os.list(Path::new("/data/libraries")).unwrap_or_default();
    assert!(!left.iter().any(|name| **name == *companion), "{left:?}");
    assert_eq!(running.0.watched_libraries(Seq::START).await.unwrap(), []);
    close(running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_removes_deleted_queries_and_passages_that_matched() {
    let disk = MemoryDisk::new();
    let running = open(&disk).await;
    let (library, query) = matched_library(&running).await;
    let passage = b"a passage of kind 7";
    assert!(!holds(&disk, "/data", passage).is_empty());
    let document = DocumentId::from_bytes([1; 16]);
    running.0.delete_documents(TENANT, library, vec![document]).await.unwrap();
    running.0.delete_standing_query(TENANT, library, query).await.unwrap();
    running.0.purge().await.unwrap();
    assert_eq!(holds(&disk, "/data", passage), Vec::<PathBuf>::new());
    assert_eq!(holds(&disk, "/data", &query.document().to_bytes()), Vec::<PathBuf>::new());
    close(running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_and_a_backup_have_companions_in_them() {
    let disk = MemoryDisk::new();
    let running = open(&disk).await;
    let (library, query) = matched_library(&running).await;
    running.0.close_libraries().await;
    let target = FolderTarget::new(Arc::new(disk.clone()), PathBuf::from("/backup"));
    let site = |disk: &MemoryDisk| Site {
        disk: Arc::new(disk.clone()),
        dir: PathBuf::from("/data"),
        clock: Arc::new(SystemClock),
        random: Arc::new(OsRandom),
    };
    take(&site(&disk), &target, &()).unwrap();
    close(running).await;
    let report = check(Arc::new(disk.clone()), Path::new("/data"), &Silent).unwrap();
    assert!(report.findings.kept.is_empty(), "{:?}", report.findings.kept);

    let copy = MemoryDisk::new();
    restore(&target, &site(&copy), RestoreTo::Newest, &()).unwrap();
    let running = open(&copy).await;
    let (found, _seq) = running.0.standing_query(TENANT, library, query, None).await.unwrap();
    assert_eq!(found.name, "a query");
    // It goes on, and notes nothing again.
    let id = DocumentId::from_bytes([2; 16]);
    let put = document(id, 8, &[Random(77).vector()]);
    let seq = running.0.put_documents(TENANT, library, vec![put]).await.unwrap().seq;
    assert!(running.1.reached(seq).await);
    let mut passages = BTreeSet::new();
    // The log of a backup begins with what its files do not have.
    let kept = running.0.kept_after();
    for (_seq, passage) in noted_after(&running.0, library, kept).await {
        assert!(passages.insert((passage.seq, passage.document)), "{passage:?}");
    }
    assert!(passages.contains(&(seq, id)), "{passages:?}");
    close(running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_whose_last_record_puts_nothing_is_matched_to_its_end() {
    let disk = MemoryDisk::new();
    let running = open(&disk).await;
    let (library, _query) = matched_library(&running).await;
    let gone = vec![DocumentId::from_bytes([1; 16])];
    let seq = running.0.delete_documents(TENANT, library, gone).await.unwrap().seq;
    assert!(running.1.reached(seq).await);
    running.1.close().await;
    let watched = running.0.watched_libraries(running.0.durable()).await.unwrap();
    assert_eq!(watched.len(), 1);
    assert_eq!((watched[0].applied, watched[0].matched.whole()), (seq, seq));
    running.0.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_gone_before_it_was_matched_is_counted_once() {
    let disk = MemoryDisk::new();
    let running = open(&disk).await;
    let (library, _query) = matched_library(&running).await;
    let (engine, matcher) = running;
    matcher.close().await;
    // Nobody matches, so that a purge waits for nobody.
    let id = DocumentId::from_bytes([2; 16]);
    let put = document(id, 8, &[Random(77).vector()]);
    let gone = engine.put_documents(TENANT, library, vec![put]).await.unwrap().seq;
    engine.purge().await.unwrap();
    assert!(engine.kept_after() >= gone);
    for lost in [1, 0] {
        let matcher = Matcher::start(engine.clone()).await.unwrap();
        assert_eq!(matcher.stats().lost, lost);
        assert!(matcher.reached(engine.durable()).await);
        matcher.close().await;
    }
    // What comes then is matched.
    let matcher = Matcher::start(engine.clone()).await.unwrap();
    let put = document(id, 9, &[Random(77).vector()]);
    let seq = engine.put_documents(TENANT, library, vec![put]).await.unwrap().seq;
    assert!(matcher.reached(seq).await);
    let noted = noted_after(&engine, library, engine.kept_after()).await;
    assert_eq!(noted.iter().map(|(_seq, passage)| passage.seq).collect::<Vec<_>>(), [seq]);
    close((engine, matcher)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_that_come_with_the_passages_they_match_miss_none() {
    // Each time nothing is loaded when the query and the passage come, close upon each other.
    for seed in 1..=20 {
        let disk = MemoryDisk::new();
        let running = open(&disk).await;
        let engine = &running.0;
        let library = library(engine, Metric::Cosine).await;
        let first = wanted(Random(5).vector(), 0.01, None);
        engine.add_standing_query(TENANT, library, first).await.unwrap();
        let vector = Random(seed).vector();
        let query = engine.add_standing_query(TENANT, library, wanted(vector.clone(), 0.1, None));
        let put = document(DocumentId::from_bytes([1; 16]), 7, &[vector]);
        let put = engine.put_documents(TENANT, library, vec![put]);
        let (query, put) = tokio::join!(query, put);
        let (query, put) = (query.unwrap(), put.unwrap());
        assert!(running.1.reached(query.seq.max(put.seq)).await);
        let noted = noted(engine, library).await;
        let found = noted.iter().any(|(_seq, passage)| {
            passage.queries.iter().any(|matched| matched.id == query.value.id)
        });
        assert_eq!(found, query.seq < put.seq, "{} {}", query.seq, put.seq);
        close(running).await;
    }
}
