//! A library whose embedding model is changed while it is written to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arrwdb_engine::embed::deterministic::DeterministicProvider;
use arrwdb_engine::embed::http::{HttpOptions, http_client};
use arrwdb_engine::embed::{
    BoxFuture, CallError, EmbedConfig, EmbedError, EmbedParts, Embedder, InputType, LocalSource,
    ModelSpec, Provider, ProviderAnswer, ProviderLimits, TokioTimer,
};
use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::{Custom, LibraryId, Seq};
use arrwdb_engine::{
    Content, DocumentPatch, Embeddings, Engine, EngineError, EngineParts, Load, NewGeneration,
    PutChunk, PutDocument, Subject,
};
use tokio::sync::Notify;

use crate::subject::*;

/// Documents of these tests.
const DOCUMENTS: u8 = 5;

/// Carries everything again and again until it is told to stop: what follows the log does less.
async fn carry(engine: Engine, library: LibraryId, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::SeqCst) {
        let Some(pair) = engine.carry_pair(library) else { return };
        let durable = engine.durable();
        engine.applied(Subject::Library(pair.from), durable).await;
        let carried = async {
            engine.carry(&pair, &mut Load::of((0..DOCUMENTS).map(id))).await?;
            engine.carried(&pair, durable, false).await
        };
        match carried.await {
            // Refused where it goes the other way by now.
            Ok(()) | Err(EngineError::Generation(_) | EngineError::Busy { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        tokio::task::yield_now().await;
    }
}

/// Writes until it is told to stop; the last version of each document.
async fn write(engine: Engine, library: LibraryId, stop: Arc<AtomicBool>) -> Vec<Option<u64>> {
    let mut last = vec![None; usize::from(DOCUMENTS)];
    let mut version = 0;
    while !stop.load(Ordering::SeqCst) {
        let n = u8::try_from(version % u64::from(DOCUMENTS)).unwrap();
        let mut put = of_text(&text(n, version, 0));
        put.id = Some(id(n));
        match engine.put_documents(TENANT, library, vec![put]).await {
            Ok(written) => {
                assert!(written.value[0].is_ok(), "{:?}", written.value[0]);
                last[usize::from(n)] = Some(version);
                version += 1;
            }
            // Until the upkeep has made room.
            Err(EngineError::Busy { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n5_what_is_acknowledged_is_in_the_active_generation_after_every_switch() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let library = library(&engine).await;
    let new = NewGeneration { embedding_dimension: Some(16), ..NewGeneration::default() };
    let pair = engine.begin_generation(TENANT, library, &new).await.unwrap().value;
    let stop = Arc::new(AtomicBool::new(false));
    let carrying = tokio::spawn(carry(engine.clone(), library, stop.clone()));
    let writing = tokio::spawn(write(engine.clone(), library, stop.clone()));
    engine.caught_up(&pair).await.unwrap();
    engine.prepare_generation(TENANT, &pair).await.unwrap();
    for turn in 0..6 {
        let switched = if turn % 2 == 0 {
            engine.activate_generation(TENANT, library).await.unwrap()
        } else {
            engine.roll_back_generation(TENANT, library).await.unwrap()
        };
        assert_eq!(switched.value.dimension, if turn % 2 == 0 { 16 } else { DIMENSION });
    }
    stop.store(true, Ordering::SeqCst);
    let last = writing.await.unwrap();
    carrying.await.unwrap();
    let crashed = open(&disk.crash(|| false)).await;
    for engine in [&engine, &crashed] {
        let snapshot = engine.library(TENANT, library, None).await.unwrap();
        for (n, version) in (0..DOCUMENTS).zip(&last) {
            let found = snapshot.document(id(n), arrwdb_engine::Embeddings::Included).unwrap();
            let found = found.map(|document| document.chunks[0].text.clone());
            assert_eq!(found, version.map(|version| text(n, version, 0)), "{n}");
        }
        assert_eq!(snapshot.spec().dimension, DIMENSION);
    }
    crashed.close().await.unwrap();
    engine.close().await.unwrap();
}

/// Changes every document in turn until it is told to stop; how often it did.
async fn patch(engine: Engine, library: LibraryId, stop: Arc<AtomicBool>) -> Vec<u64> {
    let mut counts = vec![0; usize::from(DOCUMENTS)];
    for turn in 0_u64.. {
        // Each at least once, however soon the switches are through.
        if turn >= u64::from(DOCUMENTS) && stop.load(Ordering::SeqCst) {
            break;
        }
        let at = usize::try_from(turn % u64::from(DOCUMENTS)).unwrap();
        let mut custom = Custom::new();
        custom.insert(format!("change {}", counts[at]), true.into());
        let patch = DocumentPatch { metadata: Some(Some(custom)), ..DocumentPatch::default() };
        let n = u8::try_from(at).unwrap();
        match engine.patch_document(TENANT, library, (id(n), patch)).await {
            Ok(_written) => counts[at] += 1,
            // Until the upkeep has made room.
            Err(EngineError::Busy { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n5_a_change_of_metadata_is_in_the_active_generation_after_every_switch() {
    let disk = MemoryDisk::new();
    let engine = open(&disk).await;
    let library = library(&engine).await;
    for n in 0..DOCUMENTS {
        let mut put = of_text(&text(n, 0, 0));
        put.id = Some(id(n));
        engine.put_documents(TENANT, library, vec![put]).await.unwrap();
    }
    let new = NewGeneration { embedding_dimension: Some(16), ..NewGeneration::default() };
    let pair = engine.begin_generation(TENANT, library, &new).await.unwrap().value;
    let stop = Arc::new(AtomicBool::new(false));
    let carrying = tokio::spawn(carry(engine.clone(), library, stop.clone()));
    engine.caught_up(&pair).await.unwrap();
    engine.prepare_generation(TENANT, &pair).await.unwrap();
    let patching = tokio::spawn(patch(engine.clone(), library, stop.clone()));
    for turn in 0..4 {
        if turn % 2 == 0 {
            engine.activate_generation(TENANT, library).await.unwrap();
        } else {
            engine.roll_back_generation(TENANT, library).await.unwrap();
        }
    }
    stop.store(true, Ordering::SeqCst);
    let counts = patching.await.unwrap();
    carrying.await.unwrap();
    let snapshot = engine.library(TENANT, library, None).await.unwrap();
    for (n, count) in (0..DOCUMENTS).zip(counts) {
        let found = snapshot.document(id(n), Embeddings::Omitted).unwrap().unwrap();
        assert_eq!(found.metadata.custom.len() as u64, count, "{n}");
        assert_eq!(found.chunks[0].text, text(n, 0, 0));
    }
    engine.close().await.unwrap();
}

/// Never answers for this text.
const HELD: &str = "held";
/// Takes no text that begins so.
const REFUSED: &str = "refused";

/// Says that it was asked for the text that it does not answer for.
#[derive(Debug)]
struct Holding(Arc<Notify>);

impl Provider for Holding {
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
        if texts.iter().any(|text| text == HELD) {
            self.0.notify_one();
            return Box::pin(std::future::pending());
        }
        if texts.iter().any(|text| text.starts_with(REFUSED)) {
            let error = EmbedError::Provider { status: Some(422), detail: "not this".into() };
            return Box::pin(std::future::ready(Err(CallError::fatal(error))));
        }
        DeterministicProvider.embed(model, input, texts)
    }
}

async fn open_holding(disk: &MemoryDisk, asked: Arc<Notify>) -> Engine {
    let local = EmbedParts {
        local: LocalSource::Custom(Arc::new(Holding(asked))),
        http: http_client(&HttpOptions::default()).unwrap(),
        timer: Arc::new(TokioTimer::new()),
        random: Arc::new(|| 7),
    };
    let embedder = Embedder::open(EmbedConfig::default(), local).await.unwrap();
    Engine::open(config(), EngineParts { embedder, ..parts(disk).await }).await.unwrap()
}

/// A document of which the provider is not asked for a vector when it is put.
fn with_vector(n: u8, text: &str) -> PutDocument {
    let (text, embedding) = (text.to_owned(), Some(vector(n, 0, 0)));
    let chunk = PutChunk { text, embedding, ..PutChunk::default() };
    PutDocument { id: Some(id(n)), content: Content::Chunks(vec![chunk]), ..of_text("") }
}

/// Returns once nothing was written for a while.
async fn until_quiet(written: &AtomicU64) {
    let mut before = None;
    loop {
        let now = written.load(Ordering::SeqCst);
        if before == Some(now) {
            return;
        }
        before = Some(now);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_that_fails_leaves_callers_the_vectors_that_they_sent() {
    let asked = Arc::new(Notify::new());
    let engine = open_holding(&MemoryDisk::new(), asked.clone()).await;
    let library = library(&engine).await;
    engine.put_documents(TENANT, library, vec![with_vector(40, HELD)]).await.unwrap();
    let new = NewGeneration { embedding_dimension: Some(16), ..NewGeneration::default() };
    let pair = engine.begin_generation(TENANT, library, &new).await.unwrap().value;
    engine.prepare_generation(TENANT, &pair).await.unwrap();
    // Whatever comes counts as carried, and somebody carries and does not come to an end: writers are
    // stopped, and the switch waits.
    engine.carried(&pair, Seq::new(u64::MAX), false).await.unwrap();
    let carrier = engine.clone();
    let carrying = tokio::spawn(async move { carrier.carry(&pair, &mut Load::of([id(40)])).await });
    asked.notified().await;
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writing = tokio::spawn({
        let (engine, stop, count) = (engine.clone(), stop.clone(), count.clone());
        async move {
            while !stop.load(Ordering::SeqCst) {
                put(&engine, library, 3, count.load(Ordering::SeqCst)).await;
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let switcher = engine.clone();
    let switching =
        tokio::spawn(async move { switcher.activate_generation(TENANT, library).await });
    until_quiet(&count).await;
    stop.store(true, Ordering::SeqCst);
    assert!(!writing.is_finished(), "it waits for the switch");
    engine.discard_generation(TENANT, library, None).await.unwrap();
    carrying.abort();
    let refused = switching.await.unwrap().unwrap_err();
    assert!(matches!(refused, EngineError::Generation(_)), "{refused}");
    writing.await.unwrap();
    // Compared bit for bit with what was sent.
    let version = count.load(Ordering::SeqCst) - 1;
    assert_eq!(versions(&engine, library).await[3], Some(version));
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_the_other_model_refuses_is_named_and_holds_up_no_other() {
    let engine = open_holding(&MemoryDisk::new(), Arc::default()).await;
    let library = library(&engine).await;
    let texts = ["one", "refused: two", "three", "refused: four", "five"];
    let documents = (0..).zip(texts).map(|(n, text)| with_vector(n, text)).collect();
    engine.put_documents(TENANT, library, documents).await.unwrap();
    let new = NewGeneration { embedding_dimension: Some(16), ..NewGeneration::default() };
    let pair = engine.begin_generation(TENANT, library, &new).await.unwrap().value;
    // There is no document 9: that is known without the model.
    let mut load = Load::of([9, 0, 1, 2, 3, 4].map(id));
    engine.carry(&pair, &mut load).await.unwrap();
    assert_eq!((load.carried.documents, load.left), (3, Vec::new()));
    let refused: Vec<_> =
        load.refused.into_iter().map(|(id, error)| (id, error.to_string())).collect();
    assert_eq!(refused.iter().map(|(id, _why)| *id).collect::<Vec<_>>(), [1, 3].map(id));
    assert!(refused[0].1.contains("not this"), "{refused:?}");
    let shown = engine.carrying_error(&pair).unwrap();
    assert!(shown.contains(&id(1).to_string()) && shown.contains("2 in all"), "{shown}");
    let lacking = engine.uncarried(&pair, (None, 10)).await.unwrap();
    assert_eq!(lacking.missing, [1, 3].map(id));
    // A switch says so at once, and stops nobody.
    engine.carried(&pair, engine.durable(), false).await.unwrap();
    engine.prepare_generation(TENANT, &pair).await.unwrap();
    engine.carried(&pair, engine.durable(), false).await.unwrap();
    let refused = engine.activate_generation(TENANT, library).await.unwrap_err().to_string();
    assert_eq!(refused, shown);
    // Mended, it goes on with what is left.
    for n in [1, 3] {
        put(&engine, library, n, 0).await;
    }
    let mut load = Load::of([1, 3].map(id));
    engine.carry(&pair, &mut load).await.unwrap();
    assert_eq!((load.carried.documents, load.left), (2, Vec::new()));
    assert_eq!(engine.carrying_error(&pair), None);
    engine.carried(&pair, engine.durable(), false).await.unwrap();
    engine.activate_generation(TENANT, library).await.unwrap();
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n5_a_read_that_began_before_a_switch_has_what_was_written_after_it() {
    let engine = open(&MemoryDisk::new()).await;
    let library = library(&engine).await;
    let new = NewGeneration { embedding_dimension: Some(16), ..NewGeneration::default() };
    let pair = engine.begin_generation(TENANT, library, &new).await.unwrap().value;
    let prepared = engine.prepare_generation(TENANT, &pair).await.unwrap();
    engine.carried(&pair, prepared.seq, false).await.unwrap();
    // The switch is one record, and the document another one: nobody carries it back.
    let wanted = Seq::new(engine.durable().get() + 2);
    let mut reading = std::pin::pin!(engine.library(TENANT, library, Some(wanted)));
    tokio::select! {
        biased;
        _read = &mut reading => panic!("it is not there yet"),
        () = std::future::ready(()) => {}
    }
    engine.activate_generation(TENANT, library).await.unwrap();
    let document = PutDocument { id: Some(id(3)), ..of_text("written with the other model") };
    engine.put_documents(TENANT, library, vec![document]).await.unwrap();
    assert!(engine.durable() >= wanted);
    let snapshot = reading.await.unwrap();
    assert_eq!(snapshot.spec().dimension, 16);
    assert!(snapshot.document(id(3), arrwdb_engine::Embeddings::Included).unwrap().is_some());
    engine.close().await.unwrap();
}
