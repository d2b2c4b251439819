//! Vectors of texts seen before, within a run and across runs.

use std::path::Path;
use std::time::Duration;

use arrwdb_embed::deterministic::vector_of;
use arrwdb_embed::{
    CacheConfig, EmbedConfig, EmbedError, Embedder, InputType, LocalSource, ModelSpec,
};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::support::{Call, LONG, Told, custom, texts};

async fn open(cache: CacheConfig) -> (Embedder, UnboundedReceiver<Call>) {
    let (provider, calls) = Told::new(8);
    let config = EmbedConfig { cache, ..EmbedConfig::default() };
    (custom(config, provider).await, calls)
}

fn on_disk(dir: &Path) -> CacheConfig {
    CacheConfig { dir: Some(dir.to_owned()), disk_bytes_max: 1 << 20, memory_bytes_max: 1 << 20 }
}

/// Embeds one text, by the provider if it is called for it.
async fn embed(
    (embedder, calls): &mut (Embedder, UnboundedReceiver<Call>),
    model: &ModelSpec,
    input: InputType,
    text: &str,
) {
    let work = embedder.embed(model, input, texts([text]), LONG);
    let answer = async {
        calls.recv().await.expect("a call").finish();
        std::future::pending::<()>().await;
    };
    let vector = tokio::select! {
        vector = work => vector.expect("a vector"),
        () = answer => Vec::new(),
    };
    assert_eq!(vector, vector_of(text, model.dimension));
}

#[tokio::test]
async fn e3_every_part_of_the_key_counts() {
    let mut embedder = open(CacheConfig::default()).await;
    let model = embedder.0.default_model();
    let short = ModelSpec { dimension: 64, ..model.clone() };
    let calls = |embedder: &Embedder| -> u64 {
        embedder.stats().models.iter().map(|(_, stats)| stats.calls).sum()
    };
    let cases = [
        (&model, InputType::Document, "a", 1),
        (&model, InputType::Document, "a", 1),
        (&model, InputType::Query, "a", 2),
        (&short, InputType::Document, "a", 3),
        (&model, InputType::Document, "b", 4),
        (&model, InputType::Query, "a", 4),
        (&short, InputType::Document, "a", 4),
    ];
    for (model, input, text, expected) in cases {
        embed(&mut embedder, model, input, text).await;
        assert_eq!(calls(&embedder.0), expected, "{model:?} {input:?} {text}");
    }
    let stats = embedder.0.stats();
    let (hits, misses) = stats.models.iter().fold((0, 0), |(hits, misses), (_, stats)| {
        (hits + stats.cache_hits, misses + stats.cache_misses)
    });
    assert_eq!((hits, misses), (3, 4));
    assert!(stats.cache_memory_bytes > 3 * 4 * 384);
}

#[tokio::test]
async fn a_cache_of_nothing_keeps_nothing() {
    let nothing = CacheConfig { dir: None, disk_bytes_max: 0, memory_bytes_max: 0 };
    let mut embedder = open(nothing).await;
    let model = embedder.0.default_model();
    for calls in 1..3 {
        embed(&mut embedder, &model, InputType::Query, "a").await;
        assert_eq!(embedder.0.stats().models[0].1.calls, calls);
    }
}

#[tokio::test]
async fn vectors_outlive_the_process() {
    let dir = tempfile::tempdir().expect("directory");
    let mut first = open(on_disk(dir.path())).await;
    let model = first.0.default_model();
    embed(&mut first, &model, InputType::Document, "kept").await;
    first.0.close().await;
    let mut second = open(on_disk(dir.path())).await;
    // The files are read in the background: until then the text is a miss, which is no error.
    while second.0.stats().cache_disk_bytes < 1_536 {
        tokio::task::yield_now().await;
    }
    embed(&mut second, &model, InputType::Document, "kept").await;
    let stats = second.0.stats();
    assert_eq!((stats.models[0].1.calls, stats.models[0].1.cache_hits), (0, 1));
    second.0.close().await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_no_error() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("file");
    std::fs::write(&file, b"not a directory").expect("written");
    let mut embedder = open(on_disk(&file)).await;
    let model = embedder.0.default_model();
    embed(&mut embedder, &model, InputType::Document, "a").await;
    embed(&mut embedder, &model, InputType::Document, "a").await;
    assert_eq!(embedder.0.stats().models[0].1.cache_hits, 1);
    embedder.0.close().await;
}

#[tokio::test(start_paused = true)]
async fn e3_another_number_format_is_another_vector() {
    let (exact, mut exact_calls) = Told::of_variant(8, "f32");
    let (rounded, rounded_calls) = Told::of_variant(8, "bf16");
    let embedder = custom(EmbedConfig::default(), rounded).await;
    let model = embedder.default_model();
    let mut before = (embedder, rounded_calls);
    embed(&mut before, &model, InputType::Document, "a").await;
    let embedder = before.0;
    embedder.replace_local(LocalSource::Custom(exact)).await.expect("replaced");
    let work = embedder.embed(&model, InputType::Document, texts(["a"]), LONG);
    let answer = async { exact_calls.recv().await.expect("a call").finish() };
    let (vector, ()) = tokio::select! {
        both = async { tokio::join!(work, answer) } => both,
        () = tokio::time::sleep(LONG) => panic!("the other format's vector was served"),
    };
    assert_eq!(vector.expect("a vector"), vector_of("a", 384));
}

#[test]
fn e2_the_deadline_counts_while_the_cache_is_read() {
    let dir = tempfile::tempdir().expect("directory");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let config = CacheConfig { memory_bytes_max: 0, ..on_disk(dir.path()) };
        let mut embedder = open(config).await;
        let model = embedder.0.default_model();
        embed(&mut embedder, &model, InputType::Document, "kept").await;
        while embedder.0.stats().cache_disk_bytes < 1_536 {
            tokio::task::yield_now().await;
        }
        // A disk that hangs: the only thread that may block does.
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let hung = tokio::task::spawn_blocking(move || blocked.recv().is_err());
        let deadline = Duration::from_millis(50);
        let late = embedder.0.embed(&model, InputType::Document, texts(["kept"]), deadline);
        let late = tokio::time::timeout(LONG, late).await.expect("the deadline holds");
        assert_eq!(late, Err(EmbedError::Deadline { deadline }));
        drop(release);
        assert!(hung.await.expect("released"));
        embedder.0.close().await;
    });
}
