//! Text to vectors: splitter, local model, remote providers, batching, cache and cost; pictures to
//! vectors, by providers that take them; and passages ranked by a model ([`Reranker`]).
//!
//! [`Embedder`] is the whole of it for a caller: [`Embedder::resolve`] fixes a library's model,
//! [`Embedder::embed`] turns texts into vectors, [`Embedder::embed_pictures`] pictures. What it promises:
//!
//! - E1: vectors are finite, of the model's dimension, and none is all zeros.
//! - E2: concurrency, queues, retries and waiting are bounded; deadlines hold.
//! - E3: a cached vector is found by provider, model, input type, dimension and hash of the text or
//!   picture, by which of these it is, and by what else it depends on ([`Provider::variant`]: number
//!   format, server). Of a picture that only its URL is known of, which may be another one tomorrow,
//!   no vector is kept.

mod cache;
mod cohere;
mod config;
pub mod deterministic;
mod embedder;
mod error;
pub mod http;
mod lane;
pub mod local;
mod local_provider;
mod meter;
pub mod model_files;
mod models;
mod openai;
mod picture;
mod prices;
mod provider;
mod remote;
mod rerank;
mod resolve;
mod slots;
pub mod splitter;
mod stats;
mod thread;
mod timer;

pub use cache::{CacheFile, FILE_NAMES as CACHE_FILE_NAMES, check_file as check_cache_file};
pub use config::{
    CacheConfig, CohereConfig, CohereVersion, EmbedConfig, EmbedLimits, OpenAiConfig, PictureCall,
    Secret, UnknownPictureCall,
};
pub use embedder::{EmbedParts, EmbedStatus, Embedder, LocalSource};
pub use error::{EmbedError, OpenError};
pub use meter::{Meter, Metered, Usage};
pub use models::{
    COHERE_MODEL, DIMENSION_MAX, LOCAL_MODEL, ModelRequest, ModelSpec, ProviderKind,
    UnknownProvider,
};
pub use picture::{
    PICTURE_BYTES_MAX, PICTURE_LINK_BYTES_MAX, PICTURE_URL_BYTES_MAX, Picture, PictureFault,
    is_data_url,
};
pub use prices::{PRICE_MAX, PriceError, Prices};
pub use provider::{
    BoxFuture, CallError, InputType, PictureLimits, Provider, ProviderAnswer, ProviderLimits, Retry,
};
pub use rerank::{
    RerankConfig, RerankError, RerankKind, RerankLimits, RerankMeter, RerankOpenError, RerankPrice,
    RerankStats, RerankUsage, Reranker, UnknownReranker,
};
pub use stats::{EmbedStats, ModelStats};
pub use timer::{Random, Timer, TokioTimer};
