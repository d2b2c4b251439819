//! From what is asked for to the model that is used.

use arrwdb_embed::deterministic::DeterministicProvider;
use arrwdb_embed::{
    CohereConfig, EmbedConfig, EmbedError, Embedder, LocalSource, ModelRequest, ModelSpec,
    OpenAiConfig, OpenError, ProviderKind, Secret, TokioTimer,
};
use std::sync::Arc;

use crate::support::{LONG, custom, parts, texts};

fn spec(provider: ProviderKind, model: &str, dimension: u32) -> ModelSpec {
    ModelSpec { provider, model: model.to_owned(), dimension }
}

fn ask(provider: Option<ProviderKind>, model: &str, dimension: Option<u32>) -> ModelRequest {
    let model = Some(model.to_owned()).filter(|model| !model.is_empty());
    ModelRequest { provider, model, dimension }
}

async fn open(config: EmbedConfig) -> Embedder {
    custom(config, Arc::new(DeterministicProvider)).await
}

fn with_cohere() -> EmbedConfig {
    let cohere = Some(CohereConfig::new(Secret::new("key")));
    EmbedConfig { cohere, ..EmbedConfig::default() }
}

#[tokio::test]
async fn the_default_is_local_or_cohere_if_there_is_a_key() {
    let local = open(EmbedConfig::default()).await.default_model();
    assert_eq!(local, spec(ProviderKind::Local, "all-MiniLM-L6-v2", 384));
    let cohere = open(with_cohere()).await.default_model();
    assert_eq!(cohere, spec(ProviderKind::Cohere, "embed-english-v3.0", 1_024));
}

#[tokio::test]
async fn a_configured_dimension_beyond_the_model_means_all_of_it() {
    let config = EmbedConfig { dimension: Some(4_000), ..with_cohere() };
    assert_eq!(open(config).await.default_model().dimension, 1_024);
    let config = EmbedConfig { dimension: Some(1_024), ..EmbedConfig::default() };
    assert_eq!(open(config).await.default_model().dimension, 384);
}

#[tokio::test]
async fn cohere_settings_without_a_key_leave_the_local_model_in_use_and_say_so() {
    let config = EmbedConfig {
        model: Some("embed-english-v3.0".to_owned()),
        dimension: Some(1_024),
        ..EmbedConfig::default()
    };
    let embedder = open(config).await;
    assert_eq!(embedder.default_model().dimension, 384);
    let status = embedder.status();
    assert!(status.ready);
    assert!(status.note.is_some_and(|note| note.contains("embed-english-v3.0")));
}

#[tokio::test]
async fn a_named_provider_without_its_settings_starts_and_is_not_ready() {
    let config = EmbedConfig { provider: Some(ProviderKind::Cohere), ..EmbedConfig::default() };
    let embedder = open(config).await;
    let status = embedder.status();
    assert!(!status.ready);
    assert_eq!(status.note.as_deref(), Some("COHERE_API_KEY is not set"));
    let model = embedder.default_model();
    let failed = embedder.embed(&model, arrwdb_embed::InputType::Query, texts(["a"]), LONG).await;
    assert_eq!(
        failed,
        Err(EmbedError::NotConfigured {
            provider: ProviderKind::Cohere,
            reason: "COHERE_API_KEY is not set".to_owned(),
        })
    );
}

#[tokio::test]
async fn a_local_model_can_come_later() {
    let config = EmbedConfig::default();
    let source = LocalSource::Unavailable("downloading".to_owned());
    let parts = parts(source, Arc::new(TokioTimer::new()));
    let embedder = Embedder::open(config, parts).await.expect("open");
    assert_eq!(embedder.status().note.as_deref(), Some("downloading"));
    let source = LocalSource::Custom(Arc::new(DeterministicProvider));
    embedder.replace_local(source).await.expect("replaced");
    assert!(embedder.status().ready);
    let model = embedder.default_model();
    let vector = embedder.embed(&model, arrwdb_embed::InputType::Query, texts(["a"]), LONG).await;
    assert_eq!(vector.expect("a vector").len(), 384);
}

#[tokio::test]
async fn a_wrong_configured_model_is_refused_at_the_start() {
    let refused = async |provider, model: &str| {
        let model = Some(model.to_owned());
        let config = EmbedConfig { provider: Some(provider), model, ..EmbedConfig::default() };
        let parts = parts(
            LocalSource::Custom(Arc::new(DeterministicProvider)),
            Arc::new(TokioTimer::new()),
        );
        match Embedder::open(config, parts).await {
            Err(OpenError::Model(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        refused(ProviderKind::Local, "embed-v4.0").await,
        EmbedError::UnknownModel {
            model: "embed-v4.0".to_owned(),
            known: vec!["all-MiniLM-L6-v2".to_owned()],
        }
    );
    assert_eq!(
        refused(ProviderKind::OpenAi, "my-model").await,
        EmbedError::DimensionUnknown { model: "my-model".to_owned() }
    );
}

#[tokio::test]
async fn a_library_gets_what_it_asks_for() {
    let openai = OpenAiConfig { model: "nomic".to_owned(), ..OpenAiConfig::new(Secret::new("k")) };
    let config = EmbedConfig { openai: Some(openai), ..with_cohere() };
    let embedder = open(config).await;
    let check = |request: ModelRequest, expected: ModelSpec| {
        assert_eq!(embedder.resolve(request.clone()), Ok(expected), "{request:?}");
    };
    let (local, cohere, openai) = (ProviderKind::Local, ProviderKind::Cohere, ProviderKind::OpenAi);
    check(ask(None, "", None), spec(cohere, "embed-english-v3.0", 1_024));
    check(ask(None, "", Some(512)), spec(cohere, "embed-english-v3.0", 512));
    check(ask(None, "embed-v4.0", None), spec(cohere, "embed-v4.0", 1_536));
    check(ask(None, "embed-v4.0", Some(512)), spec(cohere, "embed-v4.0", 512));
    check(ask(Some(local), "", None), spec(local, "all-MiniLM-L6-v2", 384));
    check(
        ask(None, "sentence-transformers/all-MiniLM-L6-v2", None),
        spec(local, "all-MiniLM-L6-v2", 384),
    );
    check(ask(None, "text-embedding-3-large", None), spec(openai, "text-embedding-3-large", 3_072));
    check(ask(None, "bge-m3", Some(1_024)), spec(openai, "bge-m3", 1_024));
    check(ask(Some(openai), "", Some(768)), spec(openai, "nomic", 768));
}

#[tokio::test]
async fn a_library_is_told_what_there_is() {
    let embedder = open(with_cohere()).await;
    let check = |request: ModelRequest, words: &str| {
        let refused = embedder.resolve(request).expect_err("refused").to_string();
        assert_eq!(refused, words);
    };
    check(
        ask(Some(ProviderKind::Local), "bert", None),
        "unknown embedding model \"bert\"; known: all-MiniLM-L6-v2",
    );
    check(
        ask(None, "embed-v4.0", Some(300)),
        "embed-v4.0 has no vectors of 300 dimensions; it has 256, 512, 1024, 1536",
    );
    check(
        ask(None, "", Some(1_025)),
        "embed-english-v3.0 has no vectors of 1025 dimensions; it has 1 to 1024",
    );
    check(
        ask(None, "", Some(0)),
        "embed-english-v3.0 has no vectors of 0 dimensions; it has 1 to 1024",
    );
    check(
        ask(Some(ProviderKind::OpenAi), "bge-m3", None),
        "the dimension of embedding model \"bge-m3\" is not known: it has to be given",
    );
    let unknown = embedder.resolve(ask(None, "bert", None));
    assert!(matches!(unknown, Err(EmbedError::UnknownModel { .. })), "{unknown:?}");
}

#[test]
fn a_secret_is_never_shown() {
    let config = with_cohere();
    let shown = format!("{config:?}");
    assert!(shown.contains("api_key: ***"), "{shown}");
    assert!(!shown.contains("\"key\""), "{shown}");
}
