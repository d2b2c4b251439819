use std::time::Duration;

use arrwdb_engine::embed::deterministic::DeterministicProvider;
use arrwdb_engine::embed::http::{HttpOptions, http_client};
use arrwdb_engine::embed::{EmbedConfig, EmbedParts, Embedder, LocalSource, TokioTimer};
use arrwdb_engine::state::{Custom, DocumentId, Filter, IndexSpec, Language, Metric};
use arrwdb_engine::{Content, EngineConfig, EngineParts, NewLibrary, PutChunk, PutDocument};
use arrwdb_feed::FeedConfig;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::routes::SocketBounds;

/// What a client of a live query has.
fn apply(list: &mut Vec<Value>, changes: &[Change]) {
    let gone: Vec<usize> = changes.iter().filter_map(|change| change.from).collect();
    let mut place = 0;
    list.retain(|_| {
        place += 1;
        !gone.contains(&place)
    });
    for change in changes {
        if let (Some(rank), Some(result)) = (change.rank, &change.result) {
            list.insert(rank - 1, serde_json::from_str(result.get()).unwrap());
        }
    }
}

fn values(rendered: &[Rendered]) -> Vec<Value> {
    rendered.iter().map(|it| serde_json::from_str(it.json.get()).unwrap()).collect()
}

fn rendered((id, text): (u8, u8)) -> Rendered {
    let json = serde_json::value::to_raw_value(&json!({"id": id, "text": text})).unwrap();
    let digest = Sha256::digest(json.get().as_bytes()).into();
    Rendered { shown: Shown { chunk: ChunkId::from_bytes([id; 16]), digest }, json }
}

proptest! {
    /// Lists with repeated ids too: places say what is meant where ids do not.
    #[test]
    fn v7_differences_lead_from_any_list_to_any_other(
        old in prop::collection::vec((0..9_u8, 0..3_u8), 0..12),
        new in prop::collection::vec((0..9_u8, 0..3_u8), 0..12),
    ) {
        let (old, new): (Vec<_>, Vec<_>) =
            (old.into_iter().map(rendered).collect(), new.into_iter().map(rendered).collect());
        let shown: Vec<Shown> = old.iter().map(|it| it.shown).collect();
        let changes = differences(&shown, &new);
        let mut list = values(&old);
        apply(&mut list, &changes);
        prop_assert_eq!(list, values(&new));
        prop_assert_eq!(changes.is_empty(), shown == new.iter().map(|it| it.shown).collect::<Vec<_>>());
    }
}

#[test]
fn v7_one_that_enters_moves_nobody_else() {
    let old: Vec<Rendered> = [(1, 0), (2, 0), (3, 0)].into_iter().map(rendered).collect();
    let new: Vec<Rendered> = [(4, 0), (1, 0), (3, 1)].into_iter().map(rendered).collect();
    let shown: Vec<Shown> = old.iter().map(|it| it.shown).collect();
    let changes = differences(&shown, &new);
    let kinds: Vec<_> = changes.iter().map(|it| (it.kind, it.from, it.rank)).collect();
    let wanted = [
        (Kind::Leave, Some(2), None),
        (Kind::Enter, None, Some(1)),
        (Kind::Move, Some(3), Some(3)),
    ];
    assert_eq!(kinds, wanted);
}

const TENANT: TenantId = TenantId::DEFAULT;

struct World {
    _dir: TempDir,
    engine: Engine,
    feed: Feed,
    library: LibraryId,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let parts = EmbedParts {
            local: LocalSource::Custom(Arc::new(DeterministicProvider)),
            http: http_client(&HttpOptions::default()).unwrap(),
            timer: Arc::new(TokioTimer::new()),
            random: Arc::new(|| 7),
        };
        let embedder = Embedder::open(EmbedConfig::default(), parts).await.unwrap();
        let config = EngineConfig::new(dir.path().to_owned());
        let engine = Engine::open(config, EngineParts::system(embedder)).await.unwrap();
        let new = NewLibrary {
            name: "watched".into(),
            description: None,
            index: IndexSpec::default(),
            metric: Metric::L2,
            language: Language::default(),
            embedding_provider: None,
            embedding_model: None,
            embedding_dimension: Some(2),
        };
        let library = engine.create_library(TENANT, new).await.unwrap().value.id;
        let feed = Feed::start(engine.clone(), FeedConfig::default()).await.unwrap();
        Self { _dir: dir, engine, feed, library }
    }

    fn live(&self) -> LiveQueries {
        let sockets = Arc::new(Sockets::new(SocketBounds {
            connections: 1,
            requests: 1,
            searches: 1,
            message_bytes: 1,
        }));
        LiveQueries::new(self.feed.clone(), self.engine.clone(), (TENANT, self.library), sockets)
    }

    async fn begin(&self, live: &mut LiveQueries, wanted: Wanted) -> (Seq, Vec<Value>) {
        let beginning = live.begin().unwrap();
        let answer = wanted.search(&self.engine, (TENANT, self.library), None).await.unwrap();
        let seq = answer.seq;
        let rendered = render(answer).unwrap();
        let list = values(&rendered);
        live.add("w".to_owned(), wanted, (beginning, seq, &rendered));
        (seq, list)
    }
}

/// A document of two chunks at whole numbers from the origin, all different distances.
fn document(n: u64, place: u64) -> PutDocument {
    let chunk = |at: u64| PutChunk {
        text: format!("{n} at {at}"),
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        embedding: Some(vec![at as f32, 1.0]),
        ..PutChunk::default()
    };
    PutDocument {
        id: Some(DocumentId::from_bytes([u8::try_from(n).unwrap(); 16])),
        title: format!("document {n}"),
        author: None,
        document_type: None,
        source_url: None,
        tags: Vec::new(),
        custom: Custom::new(),
        created_at: None,
        content: Content::Chunks(vec![chunk(place), chunk(place + 1)]),
        vectors: Vec::new(),
    }
}

/// What a search at some time has to find: the texts of the nearest.
fn nearest(places: &BTreeMap<u64, u64>, k: usize, threshold: f32) -> Vec<String> {
    let chunks = places.iter().flat_map(|(n, place)| [(*place, *n), (*place + 1, *n)]);
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let mut near: Vec<(u64, u64)> = chunks.filter(|(at, _)| *at as f32 <= threshold).collect();
    near.sort_unstable();
    near.into_iter().take(k).map(|(at, n)| format!("{n} at {at}")).collect()
}

fn texts(list: &[Value]) -> Vec<String> {
    list.iter().map(|it| it["text"].as_str().unwrap().to_owned()).collect()
}

/// What was there after each record, by its number: where each document is.
type History = BTreeMap<Seq, BTreeMap<u64, u64>>;

/// Puts and deletes at random.
async fn write(engine: Engine, library: LibraryId, seed: u64) -> History {
    let mut random = seed;
    let mut next = move |below: u64| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut history = History::from([(Seq::START, BTreeMap::new())]);
    let mut places = BTreeMap::new();
    for _write in 0..120 {
        let n = next(20);
        let seq = if next(3) == 0 {
            places.remove(&n);
            let id = DocumentId::from_bytes([u8::try_from(n).unwrap(); 16]);
            engine.delete_documents(TENANT, library, vec![id]).await.unwrap().seq
        } else {
            // A document has places of its own: no distance is there twice.
            let place = next(4) * 40 + n * 2;
            places.insert(n, place);
            let written = engine.put_documents(TENANT, library, vec![document(n, place)]).await;
            written.unwrap().seq
        };
        history.insert(seq, places.clone());
        if next(4) == 0 {
            // Waits for nothing: a writer that is slower than queries are looked at, now and then.
            tokio::time::sleep(Duration::from_millis(next(30))).await;
        }
    }
    history
}

/// The model of these libraries.
fn model() -> ModelName {
    ModelName { provider: "local".into(), model: "all-MiniLM-L6-v2".into() }
}

/// Every list that a client has is what was right at its number.
async fn random_history(seed: u64) {
    let world = World::new().await;
    let mut live = world.live();
    let (k, threshold) = (7, 60.0);
    let wanted = Wanted {
        vector: vec![0.0, 1.0],
        model: model(),
        k,
        threshold: Some(threshold),
        filter: Filter::default(),
    };
    let (seq, mut list) = world.begin(&mut live, wanted.clone()).await;
    let mut seen = vec![(seq, texts(&list))];
    let mut writing = Box::pin(write(world.engine.clone(), world.library, seed));
    let mut history = None;
    let right = |history: &History, seq: Seq| {
        let (_, places) = history.range(..=seq).next_back().unwrap();
        nearest(places, k, threshold)
    };
    loop {
        let last = |history: &History| right(history, Seq::new(u64::MAX)) == texts(&list);
        if history.as_ref().is_some_and(last) {
            break;
        }
        tokio::select! {
            done = &mut writing, if history.is_none() => history = Some(done),
            push = live.next(true) => {
                assert!(push.ended.is_none());
                apply(&mut list, &push.changes);
                seen.push((Seq::new(push.seq.unwrap()), texts(&list)));
            }
            () = tokio::time::sleep(Duration::from_secs(30)) => panic!("nothing was pushed"),
        }
    }
    assert!(seen.len() > 5, "{} pushes", seen.len());
    assert!(seen.is_sorted_by_key(|(seq, _)| *seq));
    let history = history.unwrap();
    for (seq, texts) in seen {
        assert_eq!(texts, right(&history, seq), "at {seq}");
    }
    drop(live);
    world.feed.close().await;
    world.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn v7_what_a_client_has_is_what_a_search_finds_whatever_happens() {
    for seed in 1..4 {
        random_history(seed).await;
    }
}

#[tokio::test]
async fn a_query_of_a_library_that_is_gone_ends_and_says_so() {
    let world = World::new().await;
    let mut live = world.live();
    let wanted = Wanted {
        vector: vec![0.0, 1.0],
        model: model(),
        k: 3,
        threshold: None,
        filter: Filter::default(),
    };
    world.begin(&mut live, wanted.clone()).await;
    assert!(!live.is_idle());
    let written = world.engine.put_documents(TENANT, world.library, vec![document(1, 1)]).await;
    written.unwrap();
    assert_eq!(live.next(true).await.changes.len(), 2);
    // The same name again takes the place of the first, which is told nothing more.
    world.begin(&mut live, Wanted { k: 1, ..wanted }).await;
    world
        .engine
        .delete_documents(TENANT, world.library, vec![DocumentId::from_bytes([1; 16])])
        .await
        .unwrap();
    let push = live.next(true).await;
    assert_eq!((push.changes.len(), push.changes[0].kind), (1, Kind::Leave));
    assert!(live.remove("w") && !live.remove("w"));
    assert!(live.is_idle(), "nobody follows for nothing");
    world
        .begin(
            &mut live,
            Wanted {
                vector: vec![0.0, 1.0],
                model: model(),
                k: 1,
                threshold: None,
                filter: Filter::default(),
            },
        )
        .await;
    world.engine.delete_library(TENANT, world.library).await.unwrap();
    let push = live.next(true).await;
    assert_eq!((push.ended, push.seq), (Some(true), None));
    assert_eq!(push.error.unwrap(), format!("Library {} not found", world.library));
    assert!(live.is_idle());
    world.feed.close().await;
    world.engine.close().await.unwrap();
}

#[tokio::test]
async fn a_socket_has_no_more_queries_than_it_may() {
    let world = World::new().await;
    let mut live = world.live();
    for _query in 0..SOCKET_WATCHES_MAX {
        live.begin().unwrap();
    }
    let detail = live.begin().unwrap_err().detail().to_owned();
    assert!(detail.contains("unwatch"), "{detail}");
    live.give_up();
    live.begin().unwrap();
    world.feed.close().await;
    world.engine.close().await.unwrap();
}
