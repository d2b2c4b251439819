//! What can go wrong between a text and its vector, by what the caller can do about it.

use std::time::Duration;

use crate::models::ProviderKind;

/// Why texts were not embedded. No variant ever carries a key or the text itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmbedError {
    /// A text is empty or white space; nothing was embedded.
    #[error("text {index} is blank")]
    BlankText {
        /// Position in the request, from 0.
        index: usize,
    },
    /// A text is longer than its provider takes; nothing was embedded.
    #[error("text {index} has {chars} characters; {provider} takes at most {chars_max}")]
    TextTooLong {
        /// Position in the request, from 0.
        index: usize,
        /// Unicode scalar values in the text.
        chars: usize,
        /// The most the provider takes.
        chars_max: usize,
        /// Who refused.
        provider: ProviderKind,
    },
    /// No provider has a model of that name.
    #[error("unknown embedding model {model:?}; known: {}", known.join(", "))]
    UnknownModel {
        /// The name asked for.
        model: String,
        /// The names that would have been taken.
        known: Vec<String>,
    },
    /// The model has no vectors of that dimension.
    #[error("{model} has no vectors of {dimension} dimensions; it has {supported}")]
    DimensionUnsupported {
        /// The model's name.
        model: String,
        /// The dimension asked for.
        dimension: u32,
        /// The dimensions it has, in words.
        supported: String,
    },
    /// The name is not known here, so its dimension has to be said.
    #[error("the dimension of embedding model {model:?} is not known: it has to be given")]
    DimensionUnknown {
        /// The name asked for.
        model: String,
    },
    /// The provider is not set up, or its model is not (yet) there; an operator has to act.
    #[error("embedding with {provider} is not available: {reason}")]
    NotConfigured {
        /// The provider that was to be used.
        provider: ProviderKind,
        /// What is missing.
        reason: String,
    },
    /// The provider is not set up to make vectors of pictures, or cannot; an operator has to act.
    #[error("{provider} makes no vectors of pictures here: {reason}")]
    NoPictures {
        /// The provider that was to be used.
        provider: ProviderKind,
        /// What is missing.
        reason: String,
    },
    /// The provider takes other pictures than this; nothing was embedded.
    #[error("{provider} takes no such picture: {detail}")]
    PictureUnfit {
        /// Who would refuse.
        provider: ProviderKind,
        /// What it takes.
        detail: String,
    },
    /// Too many texts are waiting; nothing was queued.
    #[error("too many texts are waiting to be embedded: try again in {retry_after:?}")]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// The provider refused for its rate limit, and the deadline left no time to wait for it.
    #[error("the embedding provider's rate limit is reached: try again in {retry_after:?}")]
    RateLimited {
        /// When to try again, as far as the provider said.
        retry_after: Duration,
    },
    /// The caller's deadline passed first.
    #[error("no vectors within {deadline:?}: send fewer texts at a time, or try again later")]
    Deadline {
        /// The time that was allowed.
        deadline: Duration,
    },
    /// The provider could not be reached, failed, or answered something else than vectors.
    #[error("the embedding provider failed: {detail}")]
    Provider {
        /// Its HTTP status, if there was an answer.
        status: Option<u16>,
        /// What happened, at most a few hundred characters.
        detail: String,
    },
    /// E1: the provider's vectors are not of the model's dimension.
    #[error("the embedding provider sent vectors of {got} dimensions instead of {expected}")]
    WrongDimension {
        /// The model's dimension.
        expected: u32,
        /// The length of the vector that came.
        got: usize,
    },
    /// E1: a vector holds NaN or an infinity, or is all zeros.
    #[error("the embedding provider sent a vector that is not finite or is all zeros")]
    NotFinite {
        /// Position of its text in the request, from 0.
        index: usize,
    },
    /// Whoever pays does not want a provider to be called; see [`Meter::may_call`](crate::Meter).
    #[error("the embedding provider may not be called")]
    NotAllowed,
    /// The embedder was closed.
    #[error("the embedder is closed")]
    Closed,
}

impl EmbedError {
    /// Whether a text is at fault, so that others may fare better without it.
    pub fn is_of_a_text(&self) -> bool {
        match self {
            Self::BlankText { .. }
            | Self::TextTooLong { .. }
            | Self::PictureUnfit { .. }
            | Self::NotFinite { .. } => true,
            // Too large, and what providers say of texts that they will not look at.
            Self::Provider { status, detail: _ } => matches!(status, Some(413 | 422 | 498)),
            Self::UnknownModel { .. }
            | Self::DimensionUnsupported { .. }
            | Self::DimensionUnknown { .. }
            | Self::NotConfigured { .. }
            | Self::NoPictures { .. }
            | Self::Busy { .. }
            | Self::RateLimited { .. }
            | Self::Deadline { .. }
            | Self::WrongDimension { .. }
            | Self::NotAllowed
            | Self::Closed => false,
        }
    }

    /// Whether the provider says of one text what it, or another one, says of every request that it
    /// does not like: OpenAI answers 400 for a text that is too long, and for a model's wrong name.
    pub fn is_doubtful(&self) -> bool {
        matches!(self, Self::Provider { status: Some(400), detail: _ })
    }
}

/// Why an embedder could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configured default model or dimension does not exist.
    #[error("the configured embedding model cannot be used: {0}")]
    Model(#[from] EmbedError),
    /// A provider's base URL is not an absolute `http` or `https` URL.
    #[error("{provider} has no usable base URL: {reason}")]
    BaseUrl {
        /// The provider.
        provider: ProviderKind,
        /// What is wrong with it.
        reason: String,
    },
    /// A provider's key cannot be sent in a header.
    #[error("the key of {provider} holds characters that cannot be sent")]
    Key {
        /// The provider.
        provider: ProviderKind,
    },
    /// A limit is zero, or smaller than what it has to hold.
    #[error("embedding limit {name} is {value}; at least {min} is needed")]
    Limit {
        /// The limit's name.
        name: &'static str,
        /// Its value.
        value: usize,
        /// The least value.
        min: usize,
    },
    /// The thread of the local model could not be started.
    #[error("the local model's thread could not be started: {0}")]
    Thread(#[source] std::io::Error),
}
