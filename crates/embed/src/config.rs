//! What an embedder is told: plain structs, filled in by whoever read the environment.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::local::Precision;
use crate::models::ProviderKind;

/// A key that is never shown: its `Debug` prints `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes charge of a key.
    pub fn new(value: impl Into<String>) -> Self {
        Secret(value.into())
    }

    /// The key itself, for the header it is sent in and nothing else.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

/// Which of Cohere's two embedding calls is used.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum CohereVersion {
    /// `POST /v1/embed`, as the oldest clients call it. Has no `output_dimension`, so a model of
    /// the fourth generation gives only its full dimension, cut here.
    #[default]
    V1,
    /// `POST /v2/embed`.
    V2,
}

/// How to reach Cohere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CohereConfig {
    /// Sent as a bearer token.
    pub api_key: Secret,
    /// Scheme, host and optional path before `/v1/embed`.
    pub base_url: String,
    /// Which call is used for texts.
    pub api_version: CohereVersion,
    /// Whether pictures are embedded, by the second version of the call.
    pub pictures: bool,
}

impl CohereConfig {
    /// Where Cohere is unless `CO_API_URL` says otherwise.
    pub const BASE_URL: &'static str = "https://api.cohere.ai";

    /// Cohere itself, by the call of the oldest clients.
    pub fn new(api_key: Secret) -> Self {
        CohereConfig {
            api_key,
            base_url: Self::BASE_URL.to_owned(),
            api_version: CohereVersion::default(),
            pictures: false,
        }
    }
}

/// Whose call a server like OpenAI's speaks where it makes vectors of pictures, too.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PictureCall {
    /// Jina's: `/embeddings` whose `input` has an object for each picture.
    Jina,
    /// vLLM's: `/embeddings` with `messages` in place of `input`, one input a call.
    Vllm,
    /// Voyage's: `/multimodalembeddings`.
    Voyage,
}

/// A word that names no call for pictures.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown call for pictures {0:?}; known: jina, vllm, voyage")]
pub struct UnknownPictureCall(pub String);

impl FromStr for PictureCall {
    type Err = UnknownPictureCall;

    fn from_str(word: &str) -> Result<Self, UnknownPictureCall> {
        match word {
            "jina" => Ok(PictureCall::Jina),
            "vllm" => Ok(PictureCall::Vllm),
            "voyage" => Ok(PictureCall::Voyage),
            _ => Err(UnknownPictureCall(word.to_owned())),
        }
    }
}

/// How to reach OpenAI or a server that speaks its embeddings call (Ollama, vLLM, TEI, ...).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenAiConfig {
    /// Everything before `/embeddings`, as in `https://api.openai.com/v1`.
    pub base_url: String,
    /// Sent as a bearer token; servers at home often want none.
    pub api_key: Option<Secret>,
    /// The model used when a library names none.
    pub model: String,
    /// Sent as `dimensions` with `model`, and the dimension its vectors then have.
    pub dimensions: Option<u32>,
    /// How pictures are embedded, if they are. Texts go the same way, so that one model's vectors of
    /// both are in one space.
    pub pictures: Option<PictureCall>,
}

impl OpenAiConfig {
    /// Where OpenAI is.
    pub const BASE_URL: &'static str = "https://api.openai.com/v1";
    /// The model used when nothing else is said.
    pub const MODEL: &'static str = "text-embedding-3-small";

    /// OpenAI itself with its small model.
    pub fn new(api_key: Secret) -> Self {
        OpenAiConfig {
            base_url: Self::BASE_URL.to_owned(),
            api_key: Some(api_key),
            model: Self::MODEL.to_owned(),
            dimensions: None,
            pictures: None,
        }
    }
}

/// Where vectors of texts seen before are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// The directory of the cache's files; `None` keeps vectors in memory only. Safe to delete
    /// while no process uses it.
    pub dir: Option<PathBuf>,
    /// The most bytes its files take together. 0 keeps nothing on disk.
    pub disk_bytes_max: u64,
    /// The most bytes of vectors kept in memory. 0 together with no files switches the cache off.
    pub memory_bytes_max: u64,
}

impl Default for CacheConfig {
    /// In memory only, 32 MiB: about 20,000 vectors of 384 dimensions.
    fn default() -> Self {
        CacheConfig { dir: None, disk_bytes_max: 512 << 20, memory_bytes_max: 32 << 20 }
    }
}

/// Every bound on the work of an embedder (E2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbedLimits {
    /// Calls to one remote provider at the same time, and as many of pictures. The local model always
    /// has one.
    pub calls_concurrent_max: usize,
    /// Texts admitted to one provider and not answered yet, and as many pictures; beyond it callers
    /// get `Busy`.
    pub queue_texts_max: usize,
    /// How long a batch may wait for more texts while another call of its provider is running.
    /// An idle provider is never made to wait.
    pub batch_window: Duration,
    /// Tries after the first that failed in a way that may pass.
    pub retries_max: u32,
    /// The wait before the first retry; it doubles with each one, half of it at random.
    pub backoff_min: Duration,
    /// The longest wait between two tries that nobody asked for.
    pub backoff_max: Duration,
    /// The longest one remote call may take.
    pub call_timeout: Duration,
    /// Tokens, by estimate, that each thread of the local model computes in one piece: how long a
    /// query may have to wait behind documents.
    pub local_piece_tokens_max: u32,
}

impl Default for EmbedLimits {
    fn default() -> Self {
        EmbedLimits {
            calls_concurrent_max: 4,
            queue_texts_max: 8_192,
            batch_window: Duration::from_millis(5),
            retries_max: 4,
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(10),
            call_timeout: Duration::from_secs(30),
            local_piece_tokens_max: 512,
        }
    }
}

/// Everything an embedder is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbedConfig {
    /// The default provider; `None` is Cohere if it is configured, else local.
    pub provider: Option<ProviderKind>,
    /// The default provider's model; `None` is that provider's usual one.
    pub model: Option<String>,
    /// The dimension of the default model's vectors; `None`, or more than the model has, is all
    /// of them.
    pub dimension: Option<u32>,
    /// The number format the local model computes with.
    pub precision: Precision,
    /// Threads the local model computes on, at least 1.
    pub threads: usize,
    /// Cohere, if there is a key.
    pub cohere: Option<CohereConfig>,
    /// OpenAI or a server like it.
    pub openai: Option<OpenAiConfig>,
    /// Vectors of texts seen before.
    pub cache: CacheConfig,
    /// Bounds.
    pub limits: EmbedLimits,
}

impl Default for EmbedConfig {
    /// The local model on one thread, nothing remote, a cache in memory.
    fn default() -> Self {
        EmbedConfig {
            provider: None,
            model: None,
            dimension: None,
            precision: Precision::Auto,
            threads: 1,
            cohere: None,
            openai: None,
            cache: CacheConfig::default(),
            limits: EmbedLimits::default(),
        }
    }
}
