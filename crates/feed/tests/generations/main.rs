//! Changing the embedding model of a library that is written to, on the real engine, on a disk in
//! memory that loses its power.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod refused;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrwdb_engine::backup::{FolderTarget, RestoreTo, Site, restore, take};
use arrwdb_engine::check::{Silent, check};
use arrwdb_engine::embed::deterministic::DeterministicProvider;
use arrwdb_engine::embed::http::{HttpOptions, http_client};
use arrwdb_engine::embed::{
    BoxFuture, CallError, EmbedConfig, EmbedError, EmbedParts, Embedder, InputType, LocalSource,
    ModelSpec, Provider, ProviderAnswer, ProviderLimits, TokioTimer,
};
use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::{
    Custom, DocumentId, IndexSpec, Language, LibraryId, Metric, Seq, Stage, TenantId,
};
use arrwdb_engine::{
    CarryPair, Content, Embeddings, Engine, EngineConfig, EngineError, EngineParts, Load, Moment,
    NewGeneration, NewLibrary, NewStandingQuery, OsRandom, PutDocument, Query, SearchRequest,
    SystemClock,
};
use arrwdb_feed::{EventTypes, Feed, FeedConfig, Filter, Mirror, Position};
use parking_lot::Mutex;

const TENANT: TenantId = TenantId::DEFAULT;
/// The dimensions of the two models.
const DIMENSIONS: [u32; 2] = [384, 64];

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn config() -> EngineConfig {
    EngineConfig {
        disk_free_bytes_min: 0,
        checkpoint_bytes: 64 << 10,
        ..EngineConfig::new(PathBuf::from("/data"))
    }
}

async fn open(disk: &MemoryDisk) -> Engine {
    open_with(disk, config()).await
}

async fn open_with(disk: &MemoryDisk, config: EngineConfig) -> Engine {
    open_of(disk, config, Arc::new(DeterministicProvider)).await
}

async fn open_of(disk: &MemoryDisk, config: EngineConfig, provider: Arc<dyn Provider>) -> Engine {
    let parts = EmbedParts {
        local: LocalSource::Custom(provider),
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
    Engine::open(config, parts).await.unwrap()
}

async fn library(engine: &Engine) -> LibraryId {
    let new = NewLibrary {
        name: "of two models".into(),
        description: None,
        index: IndexSpec::default(),
        metric: Metric::Cosine,
        language: Language::default(),
        embedding_provider: None,
        embedding_model: None,
        embedding_dimension: Some(DIMENSIONS[0]),
    };
    engine.create_library(TENANT, new).await.unwrap().value.id
}

fn id(n: u64) -> DocumentId {
    DocumentId::from_bytes((u128::from(n) + 1).to_be_bytes())
}

fn document(n: u64, text: &str) -> PutDocument {
    PutDocument {
        id: Some(id(n)),
        title: format!("title {n}"),
        author: None,
        document_type: None,
        source_url: None,
        tags: vec!["tag".into()],
        custom: Custom::new(),
        created_at: None,
        content: Content::Texts(vec![text.into(), format!("and more of {text}")]),
        vectors: Vec::new(),
    }
}

/// A model of another dimension than the library has.
async fn other_model(engine: &Engine, library: LibraryId) -> NewGeneration {
    let now = engine.embeddings(TENANT, library, None).await.unwrap().active.dimension;
    let other = DIMENSIONS.into_iter().find(|dimension| *dimension != now);
    NewGeneration { embedding_dimension: other, made_by: "a test".into(), ..Default::default() }
}

/// Carries what is missing, and prepares the generation.
async fn fill(engine: &Engine, pair: &CarryPair) -> Result<(), EngineError> {
    let mut cursor = None;
    loop {
        let unit = engine.uncarried(pair, (cursor, 3)).await?;
        engine.carry(pair, &mut Load::of(unit.missing)).await?;
        cursor = unit.next;
        if cursor.is_none() {
            break;
        }
    }
    engine.caught_up(pair).await?;
    engine.prepare_generation(TENANT, pair).await.map(drop)
}

async fn make(engine: &Engine, library: LibraryId) -> Result<(), EngineError> {
    let new = other_model(engine, library).await;
    let pair = engine.begin_generation(TENANT, library, &new).await?.value;
    fill(engine, &pair).await
}

/// The first text of every document, which is what its vectors are of.
async fn texts(engine: &Engine, library: LibraryId) -> BTreeMap<DocumentId, String> {
    let snapshot = engine.library(TENANT, library, None).await.unwrap();
    let dimension = snapshot.spec().dimension as usize;
    let page = snapshot.documents_after(None, 10_000, Embeddings::Included).unwrap();
    let mut texts = BTreeMap::new();
    for document in page.documents {
        assert!(document.chunks.iter().all(|chunk| chunk.embedding.len() == dimension));
        texts.insert(document.id, document.chunks[0].text.clone());
    }
    texts
}

/// A text is found by itself: its vector and the query's are of one model.
async fn finds(engine: &Engine, library: LibraryId, n: u64, text: &str) {
    let request = SearchRequest::new(Query::Text(text.into()), 1);
    let answer = engine.search(TENANT, library, request, None).await.unwrap();
    let distance = answer.hits[0].distance.unwrap();
    assert!(distance.abs() < 1e-5, "{text}: {distance}");
    assert_eq!((answer.hits[0].document_id, &*answer.hits[0].chunk.text), (id(n), text));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_is_changed_rolled_back_and_changed_for_good() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let mirror = Mirror::start(engine.clone());
    let feed = Feed::start(engine.clone(), FeedConfig::default()).await.unwrap();
    let library = library(&engine).await;
    let put = |n: u64, text: &'static str| {
        let engine = engine.clone();
        async move { engine.put_documents(TENANT, library, vec![document(n, text)]).await.unwrap() }
    };
    let before = put(0, "one thing before").await.seq;
    put(1, "another of that time").await;
    make(&engine, library).await.unwrap();
    put(2, "something in between").await;
    engine.delete_documents(TENANT, library, vec![id(1)]).await.unwrap();
    let refused = engine.roll_back_generation(TENANT, library).await.unwrap_err();
    assert!(matches!(refused, EngineError::Generation(_)), "{refused}");
    let active = engine.activate_generation(TENANT, library).await.unwrap();
    assert_eq!((active.value.id, active.value.dimension), (library, DIMENSIONS[1]));
    let gone = engine.library(TENANT, library, Moment::as_of(before)).await.unwrap_err();
    assert!(matches!(gone, EngineError::HistoryGone { oldest, .. } if oldest == active.seq));
    put(3, "a thing written afterwards").await;
    for (n, text) in [(0, "one thing before"), (2, "something in between")] {
        finds(&engine, library, n, text).await;
    }
    finds(&engine, library, 3, "a thing written afterwards").await;
    let expected = [0, 2, 3].map(id);
    assert_eq!(texts(&engine, library).await.into_keys().collect::<Vec<_>>(), expected);

    // Back, with what was written since, and there again; then the first one is removed for good.
    engine.roll_back_generation(TENANT, library).await.unwrap();
    finds(&engine, library, 3, "a thing written afterwards").await;
    put(4, "written to the first again").await;
    engine.activate_generation(TENANT, library).await.unwrap();
    finds(&engine, library, 4, "written to the first again").await;
    let generation = engine.embeddings(TENANT, library, None).await.unwrap();
    let stage = generation.other.map(|other| (other.stage, other.vectors.generation));
    assert_eq!(stage, Some((Stage::Previous, library)));
    engine.discard_generation(TENANT, library, None).await.unwrap();
    assert!(engine.embeddings(TENANT, library, None).await.unwrap().other.is_none());
    mirror.close().await;

    let told = everybody_is_told_once_and_in_order((&engine, &feed), library).await;
    feed.close().await;
    engine.close().await.unwrap();
    let engine = open(&disk).await;
    let feed = Feed::start(engine.clone(), FeedConfig::default()).await.unwrap();
    let again = everybody_is_told_once_and_in_order((&engine, &feed), library).await;
    assert_eq!(again, told, "F5: read from files they are the same");
    assert_eq!(texts(&engine, library).await.len(), 4);
    finds(&engine, library, 4, "written to the first again").await;
    assert_eq!(engine.health().libraries, 1);
    feed.close().await;
    engine.close().await.unwrap();
    a_generation_goes_with_its_library(&disk, library).await;
}

/// Across the switches.
async fn everybody_is_told_once_and_in_order(
    (engine, feed): (&Engine, &Feed),
    library: LibraryId,
) -> Vec<(Position, &'static str)> {
    let durable = engine.durable();
    let types = EventTypes::parse("document.*,library.updated").unwrap();
    let filter = Filter { types, library: Some(library), ..Filter::of(TENANT) };
    let mut events = feed.subscribe(filter, Some(Position::START)).unwrap();
    let mut told = Vec::new();
    // All that there is: one that comes twice would be among the last.
    feed.reached(durable).await;
    while let Some(mut delivery) = events.try_next().await.unwrap() {
        while let Some(event) = delivery.next() {
            assert_eq!(event.library(), Some(library));
            told.push((event.position(), event.event_type().name()));
        }
    }
    assert!(told.is_sorted());
    let names: Vec<&str> = told.iter().map(|(_position, name)| *name).collect();
    let (added, updated) = ("document.added", "library.updated");
    let expected =
        [added, added, added, "document.deleted", updated, added, updated, added, updated];
    assert_eq!(names, expected);
    told
}

async fn a_generation_goes_with_its_library(disk: &MemoryDisk, library: LibraryId) {
    let engine = open(disk).await;
    let mirror = Mirror::start(engine.clone());
    make(&engine, library).await.unwrap();
    engine.delete_library(TENANT, library).await.unwrap();
    assert_eq!(engine.carry_pairs(), []);
    mirror.close().await;
    engine.close().await.unwrap();
    let engine = open(disk).await;
    assert!(engine.catalog().iter().next().is_none(), "nothing is left");
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_library_with_standing_queries_or_a_second_generation_is_refused() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let mirror = Mirror::start(engine.clone());
    let library = library(&engine).await;
    let query = NewStandingQuery {
        name: "a query".into(),
        query: Query::Text("something".into()),
        distance_threshold: 0.5,
        filter: arrwdb_engine::state::Filter::default(),
    };
    let query = engine.add_standing_query(TENANT, library, query.clone()).await.unwrap().value;
    make(&engine, library).await.unwrap();
    let second = make(&engine, library).await.unwrap_err();
    assert!(matches!(second, EngineError::Generation(_)), "{second}");
    let refused = engine.activate_generation(TENANT, library).await.unwrap_err();
    assert!(refused.to_string().contains("1 standing queries"), "{refused}");
    // Nobody is kept from writing by what was refused.
    engine.put_documents(TENANT, library, vec![document(0, "a text")]).await.unwrap();
    engine.delete_standing_query(TENANT, library, query.id).await.unwrap();
    engine.activate_generation(TENANT, library).await.unwrap();
    let again = NewStandingQuery {
        name: "a query".into(),
        query: Query::Text("something".into()),
        distance_threshold: 0.5,
        filter: arrwdb_engine::state::Filter::default(),
    };
    let again = engine.add_standing_query(TENANT, library, again).await.unwrap().value;
    assert_eq!(again.vector.len(), DIMENSIONS[1] as usize);
    let page = engine.standing_queries(TENANT, library, (None, 10), None).await.unwrap();
    assert_eq!(page.total, 1);
    let hidden = engine.embeddings(TENANT, library, None).await.unwrap().active.generation;
    let found = engine.library(TENANT, hidden, None).await.unwrap_err();
    assert!(matches!(found, EngineError::LibraryNotFound(_)), "a generation is nobody's");
    mirror.close().await;
    engine.close().await.unwrap();
}

/// Writes of many, while the model changes again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_come_at_a_switch_are_made_anew_and_none_is_lost() {
    const WRITERS: u64 = 4;
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let mirror = Mirror::start(engine.clone());
    let library = library(&engine).await;
    make(&engine, library).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (engine, stop) = (engine.clone(), stop.clone());
            tokio::spawn(async move {
                let mut written = BTreeMap::new();
                for version in 0_u64.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let n = writer * 1000 + version % 7;
                    if version % 5 == 4 {
                        engine.delete_documents(TENANT, library, vec![id(n)]).await.unwrap();
                        written.remove(&n);
                    } else {
                        let text = format!("number {n} of writer {writer} version {version}");
                        let put = vec![document(n, &text)];
                        let done = engine.put_documents(TENANT, library, put).await.unwrap();
                        assert!(done.value[0].is_ok(), "{:?}", done.value[0]);
                        written.insert(n, text);
                    }
                }
                written
            })
        })
        .collect();
    for _turn in 0..4 {
        engine.activate_generation(TENANT, library).await.unwrap();
        engine.roll_back_generation(TENANT, library).await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    let mut expected = BTreeMap::new();
    for writer in writers {
        expected.extend(writer.await.unwrap());
    }
    let by_id: BTreeMap<DocumentId, String> =
        expected.iter().map(|(n, text)| (id(*n), text.clone())).collect();
    assert_eq!(texts(&engine, library).await, by_id);
    engine.activate_generation(TENANT, library).await.unwrap();
    assert_eq!(texts(&engine, library).await, by_id);
    for (n, text) in &expected {
        finds(&engine, library, *n, text).await;
    }
    mirror.close().await;
    engine.close().await.unwrap();
}

/// What was acknowledged, and what may have been written besides.
#[derive(Default)]
struct Known {
    texts: BTreeMap<u64, String>,
    doubt: Option<(u64, Option<String>)>,
    /// The power failed: nothing that comes now counts.
    over: bool,
}

fn with(texts: &BTreeMap<u64, String>, change: &(u64, Option<String>)) -> BTreeMap<u64, String> {
    let mut texts = texts.clone();
    match &change.1 {
        Some(text) => texts.insert(change.0, text.clone()),
        None => texts.remove(&change.0),
    };
    texts
}

/// Writes until the power fails, one after the other.
async fn write(engine: Engine, library: LibraryId, known: Arc<Mutex<Known>>, seed: u64) {
    let mut random = Random(seed);
    for version in 0_u64.. {
        let n = random.below(12);
        // Words that tell which number is which: the embedder does not see their order.
        let text = (random.below(4) > 0).then(|| format!("document n{n} of s{seed}, v{version}"));
        {
            let mut known = known.lock();
            if known.over {
                return;
            }
            known.doubt = Some((n, text.clone()));
        }
        let done = match &text {
            Some(text) => {
                let put = engine.put_documents(TENANT, library, vec![document(n, text)]).await;
                put.and_then(|written| {
                    written.value.into_iter().collect::<Result<Vec<_>, _>>().map(drop)
                })
            }
            None => engine.delete_documents(TENANT, library, vec![id(n)]).await.map(drop),
        };
        let mut known = known.lock();
        if known.over {
            return;
        }
        match done {
            Ok(()) => {
                let change = known.doubt.take().unwrap();
                known.texts = with(&known.texts, &change);
            }
            Err(error) => panic!("nothing failed yet: {error}"),
        }
    }
}

/// The next thing that can be done with a library's models.
async fn act(
    engine: Engine,
    library: LibraryId,
    discard: bool,
) -> Result<&'static str, EngineError> {
    let now = engine.embeddings(TENANT, library, None).await?;
    let Some(other) = now.other else {
        make(&engine, library).await?;
        return Ok("made");
    };
    assert!(!other.broken);
    let pair = engine.carry_pair(library).unwrap();
    match other.stage {
        _ if discard => {
            engine.discard_generation(TENANT, library, None).await?;
            Ok("discarded")
        }
        Stage::Building => {
            fill(&engine, &pair).await?;
            Ok("filled")
        }
        Stage::Prepared => {
            engine.activate_generation(TENANT, library).await?;
            Ok("activated")
        }
        Stage::Previous => {
            engine.roll_back_generation(TENANT, library).await?;
            Ok("rolled back")
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f8_whenever_the_power_fails_nothing_is_lost_and_both_models_have_the_same() {
    let mut did: BTreeMap<&'static str, u32> = BTreeMap::new();
    for seed in 1..=6_u64 {
        let mut random = Random(seed * 104_729);
        let mut disk = MemoryDisk::new();
        let mut engine = open(&disk).await;
        let library = library(&engine).await;
        let mut texts_known = BTreeMap::new();
        for round in 0..10_u64 {
            let mirror = Mirror::start(engine.clone());
            let known =
                Arc::new(Mutex::new(Known { texts: texts_known, doubt: None, over: false }));
            let writing =
                tokio::spawn(write(engine.clone(), library, known.clone(), seed * 100 + round + 1));
            let acting = tokio::spawn(act(engine.clone(), library, random.below(6) == 0));
            // Somewhere on the way: after so many more records, or when it is done.
            let target = Seq::new(engine.durable().get() + 1 + random.below(120));
            engine.advanced_past(target).await.unwrap();
            let crashed = {
                let mut known = known.lock();
                known.over = true;
                disk.crash(|| random.below(2) == 1)
            };
            let finished = acting.is_finished();
            let acted = acting.await.unwrap();
            if finished {
                *did.entry(acted.unwrap()).or_default() += 1;
            }
            writing.await.unwrap();
            mirror.close().await;
            drop(engine.close().await);
            disk = crashed;
            engine = open(&disk).await;
            let known = std::mem::take(&mut *known.lock());
            let found = texts(&engine, library).await;
            let by_id = |texts: &BTreeMap<u64, String>| -> BTreeMap<DocumentId, String> {
                texts.iter().map(|(n, text)| (id(*n), text.clone())).collect()
            };
            texts_known = match &known.doubt {
                Some(change) if found == by_id(&with(&known.texts, change)) => {
                    with(&known.texts, change)
                }
                _ => known.texts.clone(),
            };
            assert_eq!(found, by_id(&texts_known), "seed {seed}, round {round}");
        }
        both_have(&engine, library, &texts_known, seed).await;
        engine.close().await.unwrap();
    }
    for action in ["made", "activated", "rolled back"] {
        assert!(did.contains_key(action), "{did:?}");
    }
}

/// Whichever is looked at.
async fn both_have(engine: &Engine, library: LibraryId, known: &BTreeMap<u64, String>, seed: u64) {
    let mirror = Mirror::start(engine.clone());
    for _model in 0..2 {
        while act(engine.clone(), library, false).await.unwrap() != "activated" {}
        let found = texts(engine, library).await;
        assert_eq!(found.len(), known.len(), "seed {seed}");
        for (n, text) in known {
            assert_eq!(found.get(&id(*n)), Some(text), "seed {seed}");
            finds(engine, library, *n, text).await;
        }
        act(engine.clone(), library, false).await.unwrap();
        assert_eq!(texts(engine, library).await, found, "seed {seed}: rolled back");
    }
    mirror.close().await;
}

/// The files in which these bytes are.
fn holders(disk: &MemoryDisk, bytes: &[u8]) -> Vec<PathBuf> {
    let (mut dirs, mut found) = (vec![PathBuf::from("/data")], Vec::new());
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_leaves_nothing_of_a_deleted_text_in_either_generation() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let mirror = Mirror::start(engine.clone());
    let library = library(&engine).await;
    engine.put_documents(TENANT, library, vec![document(0, "what stays")]).await.unwrap();
    engine.put_documents(TENANT, library, vec![document(1, "what is secret")]).await.unwrap();
    make(&engine, library).await.unwrap();
    engine.close_libraries().await;
    engine.delete_documents(TENANT, library, vec![id(1)]).await.unwrap();
    assert!(holders(&disk, b"what is secret").len() > 1, "in the files of both");
    engine.purge().await.unwrap();
    assert_eq!(holders(&disk, b"what is secret"), Vec::<PathBuf>::new());
    assert!(!holders(&disk, b"what stays").is_empty());
    // It goes on from there, after a crash as well.
    engine.put_documents(TENANT, library, vec![document(2, "a third text")]).await.unwrap();
    let crashed = disk.crash(|| false);
    mirror.close().await;
    engine.close().await.unwrap();
    let engine = open(&crashed).await;
    engine.put_documents(TENANT, library, vec![document(3, "a fourth")]).await.unwrap();
    let mirror = Mirror::start(engine.clone());
    engine.activate_generation(TENANT, library).await.unwrap();
    assert_eq!(texts(&engine, library).await.len(), 3);
    finds(&engine, library, 2, "a third text").await;
    engine.purge().await.unwrap();
    engine.roll_back_generation(TENANT, library).await.unwrap();
    assert_eq!(texts(&engine, library).await.len(), 3);
    mirror.close().await;
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_and_a_backup_have_both_generations_in_them() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let mirror = Mirror::start(engine.clone());
    let library = library(&engine).await;
    for n in 0..9 {
        let put = vec![document(n, &format!("text number {n}"))];
        engine.put_documents(TENANT, library, put).await.unwrap();
    }
    make(&engine, library).await.unwrap();
    engine.activate_generation(TENANT, library).await.unwrap();
    engine.close_libraries().await;
    engine.put_documents(TENANT, library, vec![document(9, "in the log only")]).await.unwrap();
    let pair = engine.carry_pair(library).unwrap();
    engine.caught_up(&pair).await.unwrap();
    let target = FolderTarget::new(Arc::new(disk.clone()), PathBuf::from("/backup"));
    let site = |disk: &MemoryDisk| Site {
        disk: Arc::new(disk.clone()),
        dir: PathBuf::from("/data"),
        clock: Arc::new(SystemClock),
        random: Arc::new(OsRandom),
    };
    take(&site(&disk), &target, &()).unwrap();
    mirror.close().await;
    engine.close().await.unwrap();
    let report = check(Arc::new(disk.clone()), Path::new("/data"), &Silent).unwrap();
    assert!(report.findings.kept.is_empty(), "{:?}", report.findings.kept);

    let copy = MemoryDisk::new();
    restore(&target, &site(&copy), RestoreTo::Newest, &()).unwrap();
    let engine = open(&copy).await;
    let mirror = Mirror::start(engine.clone());
    assert_eq!(texts(&engine, library).await.len(), 10);
    finds(&engine, library, 9, "in the log only").await;
    engine.roll_back_generation(TENANT, library).await.unwrap();
    finds(&engine, library, 9, "in the log only").await;
    mirror.close().await;
    engine.close().await.unwrap();
}

/// Its second model does not answer, where it is told not to, and takes no text that begins so.
#[derive(Debug, Clone, Default)]
struct Moody {
    down: Arc<AtomicBool>,
    /// It says nothing at all, instead of that it is down.
    mute: Arc<AtomicBool>,
}

const REFUSED: &str = "too long";

impl Provider for Moody {
    fn limits(&self) -> ProviderLimits {
        DeterministicProvider.limits()
    }

    fn variant(&self) -> String {
        DeterministicProvider.variant()
    }

    fn embed<'a>(
        &'a self,
        model: &'a ModelSpec,
        input: InputType,
        texts: &'a [String],
    ) -> BoxFuture<'a, Result<ProviderAnswer, CallError>> {
        let second = model.dimension == DIMENSIONS[1];
        let status = match second {
            true if self.mute.load(Ordering::SeqCst) => return Box::pin(std::future::pending()),
            true if self.down.load(Ordering::SeqCst) => 500,
            // As servers do that say the same of every request that they do not like.
            true if texts.iter().any(|text| text.starts_with(REFUSED)) => 400,
            _ => return DeterministicProvider.embed(model, input, texts),
        };
        let error = EmbedError::Provider { status: Some(status), detail: "not now".into() };
        Box::pin(std::future::ready(Err(CallError::fatal(error))))
    }
}

/// Asks for a switch until it is made.
async fn activated(engine: &Engine, library: LibraryId) {
    let asked = async {
        while let Err(error) = engine.activate_generation(TENANT, library).await {
            assert!(matches!(error, EngineError::Generation(_)), "{error}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_mins(1), asked).await.unwrap();
}

/// A provider that is down keeps neither what was deleted nor the log; what it did not make is made
/// when it can be, also where the server died in between.
async fn purged_while_the_model(is: impl Fn(&Moody) -> &Arc<AtomicBool>) {
    let (disk, moody) = (MemoryDisk::new(), Moody::default());
    let engine = open_of(&disk, config(), Arc::new(moody.clone())).await;
    let mirror = Mirror::start(engine.clone());
    let library = library(&engine).await;
    for n in 0..3 {
        let put = vec![document(n, "what is secret")];
        engine.put_documents(TENANT, library, put).await.unwrap();
    }
    make(&engine, library).await.unwrap();
    is(&moody).store(true, Ordering::SeqCst);
    engine.put_documents(TENANT, library, vec![document(0, "a new text")]).await.unwrap();
    engine.put_documents(TENANT, library, vec![document(5, "what is added")]).await.unwrap();
    let deleted = vec![id(1), id(2)];
    engine.delete_documents(TENANT, library, deleted).await.unwrap();
    engine.close_libraries().await;
    assert!(!holders(&disk, b"what is secret").is_empty());
    engine.purge().await.unwrap();
    assert_eq!(holders(&disk, b"what is secret"), Vec::<PathBuf>::new());
    let other = engine.embeddings(TENANT, library, None).await.unwrap().other.unwrap();
    assert_eq!((other.vectors.documents, other.missing_documents), (0, 2));
    let refused = engine.activate_generation(TENANT, library).await.unwrap_err().to_string();
    assert!(refused.contains("2 documents") && refused.contains("try again"), "{refused}");
    assert!([0, 5].iter().any(|n| refused.contains(&id(*n).to_string())), "{refused}");

    let crashed = disk.crash(|| false);
    mirror.close().await;
    engine.close().await.unwrap();
    let engine = open_of(&crashed, config(), Arc::new(moody.clone())).await;
    let mirror = Mirror::start(engine.clone());
    is(&moody).store(false, Ordering::SeqCst);
    activated(&engine, library).await;
    assert_eq!(texts(&engine, library).await.len(), 2);
    finds(&engine, library, 0, "a new text").await;
    finds(&engine, library, 5, "what is added").await;
    mirror.close().await;
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_waits_for_no_model_that_is_down() {
    purged_while_the_model(|moody| &moody.down).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_waits_for_no_model_that_does_not_answer() {
    purged_while_the_model(|moody| &moody.mute).await;
}

/// The server rests for longer than the log is kept, or nobody carries for so long.
async fn broken(engine: Engine, disk: &MemoryDisk, library: LibraryId) -> Engine {
    engine.close().await.unwrap();
    // Nothing is kept of the log, and much comes.
    let config = EngineConfig {
        feed_retention: std::time::Duration::ZERO,
        log_file_bytes: 64 << 10,
        ..config()
    };
    let engine = open_with(disk, config).await;
    let before = engine.kept_after();
    for n in 0..200 {
        let put = vec![document(n % 5, &"many words ".repeat(50))];
        engine.put_documents(TENANT, library, put).await.unwrap();
        engine.close_libraries().await;
    }
    until_trimmed(&engine, before).await;
    let now = engine.embeddings(TENANT, library, None).await.unwrap().other.unwrap();
    assert!(now.broken);
    engine
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f8_what_others_write_while_a_library_rests_loses_nothing_of_it() {
    let config = || EngineConfig {
        feed_retention: std::time::Duration::ZERO,
        log_file_bytes: 64 << 10,
        ..config()
    };
    let disk = MemoryDisk::new();
    let engine = open_with(&disk, config()).await;
    let mirror = Mirror::start(engine.clone());
    let resting = library(&engine).await;
    engine.put_documents(TENANT, resting, vec![document(0, "one thing")]).await.unwrap();
    make(&engine, resting).await.unwrap();
    engine.put_documents(TENANT, resting, vec![document(1, "another")]).await.unwrap();
    engine.caught_up(&engine.carry_pair(resting).unwrap()).await.unwrap();
    let new = NewLibrary {
        name: "of somebody else".into(),
        description: None,
        index: IndexSpec::default(),
        metric: Metric::Cosine,
        language: Language::default(),
        embedding_provider: None,
        embedding_model: None,
        embedding_dimension: Some(DIMENSIONS[0]),
    };
    let other = engine.create_library(TENANT, new).await.unwrap().value.id;
    let before = engine.durable();
    for n in 0..200 {
        let put = vec![document(n % 5, &"many words ".repeat(50))];
        engine.put_documents(TENANT, other, put).await.unwrap();
        engine.close_libraries().await;
    }
    until_trimmed(&engine, before).await;
    engine.put_documents(TENANT, resting, vec![document(2, "after that")]).await.unwrap();
    // It is in a file, so that the last record that is known of it is one that is in the log.
    engine.close_libraries().await;
    let crashed = disk.crash(|| false);
    mirror.close().await;
    engine.close().await.unwrap();
    let engine = open_with(&crashed, config()).await;
    let now = engine.embeddings(TENANT, resting, None).await.unwrap().other.unwrap();
    assert!(!now.broken);
    let mirror = Mirror::start(engine.clone());
    engine.activate_generation(TENANT, resting).await.unwrap();
    assert_eq!(texts(&engine, resting).await.len(), 3);
    finds(&engine, resting, 2, "after that").await;
    mirror.close().await;
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_removes_vectors_that_can_only_be_discarded() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let library = library(&engine).await;
    let put = vec![document(7, "what is secret")];
    engine.put_documents(TENANT, library, put).await.unwrap();
    let mirror = Mirror::start(engine.clone());
    make(&engine, library).await.unwrap();
    mirror.close().await;
    engine.delete_documents(TENANT, library, vec![id(7)]).await.unwrap();
    let engine = broken(engine, &disk, library).await;
    assert!(!holders(&disk, b"what is secret").is_empty(), "in the file of the second");
    engine.purge().await.unwrap();
    assert_eq!(holders(&disk, b"what is secret"), Vec::<PathBuf>::new());
    assert!(engine.embeddings(TENANT, library, None).await.unwrap().other.is_none());
    assert_eq!(texts(&engine, library).await.len(), 5);
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_gone_from_the_log_before_it_was_carried_is_known_and_can_be_discarded() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let library = library(&engine).await;
    let mirror = Mirror::start(engine.clone());
    make(&engine, library).await.unwrap();
    mirror.close().await;
    // Nobody carries: who asks for a switch is told, and nobody has to wait for long.
    engine.put_documents(TENANT, library, vec![document(0, "a text")]).await.unwrap();
    engine.delete_documents(TENANT, library, vec![id(0)]).await.unwrap();
    let refused = engine.activate_generation(TENANT, library);
    let refused = refused.await.unwrap_err();
    assert!(refused.to_string().contains("try again"), "{refused}");
    let engine = broken(engine, &disk, library).await;
    let refused = engine.activate_generation(TENANT, library).await.unwrap_err();
    assert!(refused.to_string().contains("discard them"), "{refused}");
    let mirror = Mirror::start(engine.clone());
    engine.discard_generation(TENANT, library, None).await.unwrap();
    make(&engine, library).await.unwrap();
    engine.activate_generation(TENANT, library).await.unwrap();
    assert_eq!(texts(&engine, library).await.len(), 5);
    mirror.close().await;
    engine.close().await.unwrap();
}

/// Waits until the upkeep has trimmed the log.
async fn until_trimmed(engine: &Engine, before: Seq) {
    let trimmed = async {
        while engine.kept_after() <= before {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_mins(1), trimmed).await.unwrap();
}
