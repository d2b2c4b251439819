//! What can go wrong when a model ranks passages.

use std::time::Duration;

use super::RerankKind;

/// Why passages were not ranked. No variant ever carries a key, the query or a passage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RerankError {
    /// There is no model to ask, or another one than was asked for; an operator has to act.
    #[error("reranking by a model is not available: {reason}")]
    NotConfigured {
        /// What is missing.
        reason: String,
    },
    /// Too many passages wait already; nothing was asked.
    #[error("too many passages are waiting to be ranked: try again in {retry_after:?}")]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// The provider refused for its rate limit, and the deadline left no time to wait for it.
    #[error("the reranking provider's rate limit is reached: try again in {retry_after:?}")]
    RateLimited {
        /// When to try again, as far as the provider said.
        retry_after: Duration,
    },
    /// The deadline passed first.
    #[error(
        "passages were not ranked within {deadline:?}: ask for fewer candidates, or try again later"
    )]
    Deadline {
        /// The time that was allowed.
        deadline: Duration,
    },
    /// The provider could not be reached, failed, or answered something else than a score for every
    /// passage.
    #[error("the reranking provider failed: {detail}")]
    Provider {
        /// Its HTTP status, if there was an answer.
        status: Option<u16>,
        /// What happened, at most a few hundred characters.
        detail: String,
    },
    /// Whoever pays does not want the provider to be called.
    #[error("the reranking provider may not be called")]
    NotAllowed,
    /// The reranker was closed.
    #[error("the reranker is closed")]
    Closed,
}

/// Why a reranker could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RerankOpenError {
    /// The base URL is not an absolute `http` or `https` URL.
    #[error("the reranking provider {provider} has no usable URL: {reason}")]
    BaseUrl {
        /// The provider.
        provider: RerankKind,
        /// What is wrong with it.
        reason: String,
    },
    /// The key cannot be sent in a header.
    #[error("the key of the reranking provider {provider} holds characters that cannot be sent")]
    Key {
        /// The provider.
        provider: RerankKind,
    },
}
