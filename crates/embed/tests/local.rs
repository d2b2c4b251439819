//! The local model against sentence-transformers' own vectors of 200 varied passages.
//!
//! Needs the model's files: they are taken from the user's cache folder, or fetched into it. A
//! machine that has neither the files nor a way to them fails these tests.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use arrwdb_embed::http::{HttpOptions, http_client};
use arrwdb_embed::local::{Embedded, LocalModel, Precision};
use arrwdb_embed::model_files::{self, FetchOptions, FetchTimeouts, ModelFiles, Source};
use arrwdb_embed::{EmbedConfig, EmbedParts, Embedder, LocalSource, TokioTimer};

const DIMENSION: usize = 384;

fn cache_home() -> PathBuf {
    match std::env::var_os("XDG_CACHE_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache"),
    }
}

/// The model's files, fetched at most once per test process.
fn files() -> &'static ModelFiles {
    static FILES: OnceLock<ModelFiles> = OnceLock::new();
    FILES.get_or_init(|| {
        let dir = model_files::default_dir(&cache_home());
        let options = FetchOptions {
            dir: dir.clone(),
            sources: Source::public(std::env::var("PIP_INDEX_URL").ok().as_deref()),
            http: http_client(&HttpOptions::default()).expect("an HTTP client"),
            timeouts: FetchTimeouts::default(),
            progress: &(),
        };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        if let Err(error) = runtime.block_on(model_files::fetch(options)) {
            panic!("these tests need the model's files: {error}");
        }
        model_files::verify(&dir).expect("the files are the pinned ones")
    })
}

fn model(precision: Precision, threads: usize) -> LocalModel {
    LocalModel::load(files(), precision, threads).expect("the model loads")
}

fn golden() -> (Vec<String>, Vec<f32>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let passages = std::fs::read_to_string(folder.join("passages.jsonl")).expect("passages");
    let passages: Vec<String> =
        passages.lines().map(|line| serde_json::from_str(line).expect("a string")).collect();
    let vectors = std::fs::read(folder.join("vectors.f32")).expect("vectors");
    let (chunks, _) = vectors.as_chunks::<4>();
    let vectors: Vec<f32> = chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    assert_eq!((passages.len(), vectors.len()), (200, 200 * DIMENSION));
    (passages, vectors)
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn worst_cosine(texts: &[String], vectors: &[f32], reference: &[f32]) -> (f64, String) {
    let rows = vectors.chunks_exact(DIMENSION).zip(reference.chunks_exact(DIMENSION));
    rows.zip(texts)
        .map(|((ours, theirs), text)| (cosine(ours, theirs), text.chars().take(60).collect()))
        .min_by(|(a, _), (b, _)| a.total_cmp(b))
        .expect("passages")
}

fn embed(model: &LocalModel, texts: &[String]) -> Embedded {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    model.embed(&texts).expect("texts are embedded")
}

fn m1_check(precision: Precision, bound: f64) {
    let (texts, reference) = golden();
    let embedded = embed(&model(precision, 2), &texts);
    let (cosine, text) = worst_cosine(&texts, &embedded.vectors, &reference);
    assert!(cosine >= bound, "{precision:?}: cosine {cosine} of {text:?}");
    for row in embedded.vectors.chunks_exact(DIMENSION) {
        assert!((dot(row, row) - 1.0).abs() < 1e-5, "a unit vector");
    }
    assert!(embedded.truncated >= 10, "some passages are too long: {}", embedded.truncated);
}

#[test]
fn m1_f32_vectors_are_the_references() {
    m1_check(Precision::F32, 0.99999);
}

#[test]
fn m1_bf16_vectors_are_the_references() {
    m1_check(Precision::Bf16, 0.9998);
}

#[test]
fn m2_neither_batches_nor_threads_change_a_vector() {
    let (texts, _) = golden();
    for precision in [Precision::F32, Precision::Bf16] {
        let one = model(precision, 1);
        let together = embed(&model(precision, 3), &texts);
        for (number, text) in texts.iter().enumerate().step_by(9) {
            let alone = embed(&one, std::slice::from_ref(text));
            let row = &together.vectors[number * DIMENSION..][..DIMENSION];
            let cosine = cosine(&alone.vectors, row);
            assert!(cosine > 0.999_99, "{precision:?}: cosine {cosine} of {text:?}");
        }
    }
}

#[test]
fn no_texts_and_empty_texts_are_fine() {
    let model = model(Precision::Auto, 2);
    assert_eq!(model.embed(&[]).expect("nothing").vectors, Vec::<f32>::new());
    let embedded = model.embed(&["", "  \n"]).expect("empty texts");
    assert_eq!((embedded.tokens, embedded.truncated), (4, 0));
    assert!(cosine(&embedded.vectors[..DIMENSION], &embedded.vectors[DIMENSION..]) > 0.999_99);
}

#[test]
fn every_sequence_length_works() {
    let model = model(Precision::Auto, 1);
    let reference = self::model(Precision::F32, 1);
    for words in (1..=256).step_by(5) {
        let text = "word ".repeat(words);
        assert_eq!(model.count_tokens(&text).expect("a count"), words + 2);
        let ours = model.embed(&[&text]).expect("a vector");
        assert_eq!(ours.tokens, (words as u64 + 2).min(256));
        assert_eq!(ours.truncated, u32::from(words > 254));
        let exact = reference.embed(&[&text]).expect("a vector");
        assert!(cosine(&ours.vectors, &exact.vectors) > 0.9995, "{words} words");
    }
}

#[test]
fn m3_the_end_of_a_long_text_is_not_read_and_its_beginning_counts() {
    let model = model(Precision::Auto, 1);
    let prose = "The ship, sailing north; caf\u{e9}s [SEP] na\u{ef}ve e\u{301}t\u{e9} 3.14! ";
    let ideographs = "\u{4e16}\u{754c}\u{3002}\u{6771}\u{4eac}";
    let wide = format!("{}{}", " \n\u{a0}".repeat(9_000), prose.repeat(60));
    let word = format!("{} {}", "x".repeat(30_000), prose.repeat(60));
    for text in [prose.repeat(3_000), ideographs.repeat(8_000), wide, word] {
        let ours = model.embed(&[&text]).expect("a vector");
        assert_eq!((ours.tokens, ours.truncated), (256, 1));
        // Whatever follows changes nothing, and what stands at the beginning does.
        let longer = model.embed(&[&format!("{text} and so on")]).expect("a vector");
        assert_eq!(ours.vectors, longer.vectors);
        let other = model.embed(&[&format!("Bread and butter. {text}")]).expect("a vector");
        assert_ne!(ours.vectors, other.vectors);
        assert!(model.count_tokens(&text).expect("a count") > 256);
    }
    // The reference's own vectors of passages longer than the model takes hold in `m1`.
    let blank = format!("short{}", " ".repeat(100_000));
    let ours = model.embed(&[&blank]).expect("a vector");
    assert_eq!((ours.tokens, ours.truncated), (3, 0));
}

#[test]
fn a_model_that_is_not_the_published_one_is_not_used() {
    let dir = tempfile::tempdir().expect("directory");
    for path in [&files().model, &files().tokenizer] {
        let name = path.file_name().expect("a name");
        std::fs::copy(path, dir.path().join(name)).expect("copied");
    }
    // One weight of the last tensor: a file that loads, of a model that nobody published.
    let path = dir.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).expect("read");
    *bytes.last_mut().expect("bytes") ^= 1;
    std::fs::write(&path, bytes).expect("written");
    let found = model_files::locate(dir.path()).expect("located").expect("files of the right size");
    assert!(LocalModel::load(&found, Precision::Auto, 1).is_ok(), "it would load");
    let parts = EmbedParts {
        local: LocalSource::Files(found),
        http: http_client(&HttpOptions::default()).expect("an HTTP client"),
        timer: std::sync::Arc::new(TokioTimer::new()),
        random: std::sync::Arc::new(|| 0),
    };
    let builder = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let opened =
        builder.expect("a runtime").block_on(Embedder::open(EmbedConfig::default(), parts));
    let status = opened.expect("open").status();
    assert!(!status.ready);
    let note = status.note.expect("a reason");
    assert!(note.contains("arrwdb model fetch"), "{note}");
}
