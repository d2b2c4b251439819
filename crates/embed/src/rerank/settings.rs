//! What a reranker is told: which server, which model, and the bounds of the work.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::config::Secret;
use crate::prices::pico_per_token;

/// Who ranks passages: what call a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RerankKind {
    /// `POST /v2/rerank`, as Cohere, vLLM and others have it.
    Cohere,
    /// `POST /v1/rerank`, as Jina, llama.cpp, Infinity and others have it.
    Jina,
    /// `POST /v1/rerank`, as Voyage has it.
    Voyage,
    /// `POST /rerank` of Text Embeddings Inference.
    Tei,
}

impl RerankKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Cohere, Self::Jina, Self::Voyage, Self::Tei];

    /// Its name in settings and bills.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cohere => "cohere",
            Self::Jina => "jina",
            Self::Voyage => "voyage",
            Self::Tei => "tei",
        }
    }

    /// Where the service is; one at home has no usual place.
    pub fn usual_url(self) -> Option<&'static str> {
        match self {
            Self::Cohere => Some("https://api.cohere.ai"),
            Self::Jina => Some("https://api.jina.ai"),
            Self::Voyage => Some("https://api.voyageai.com"),
            Self::Tei => None,
        }
    }

    /// The model that is asked unless another is named. TEI has only the one that it serves.
    pub fn usual_model(self) -> &'static str {
        match self {
            Self::Cohere => COHERE_RERANK_MODEL,
            Self::Jina => "jina-reranker-v2-base-multilingual",
            Self::Voyage => "rerank-2.5",
            Self::Tei => "tei",
        }
    }

    /// Passages that a server takes in one call.
    pub(super) fn passages_per_call(self) -> usize {
        match self {
            Self::Cohere | Self::Jina | Self::Voyage => 1_000,
            // What TEI takes unless it is told otherwise.
            Self::Tei => 32,
        }
    }

    /// Whether a search is billed by passages rather than by tokens.
    pub(super) fn is_billed_by_units(self) -> bool {
        self == Self::Cohere
    }
}

impl fmt::Display for RerankKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A name that no reranking server has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown reranking provider {0:?}; known: cohere, jina, voyage, tei")]
pub struct UnknownReranker(pub String);

impl FromStr for RerankKind {
    type Err = UnknownReranker;

    fn from_str(name: &str) -> Result<Self, UnknownReranker> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| UnknownReranker(name.to_owned()))
    }
}

/// Cohere's model that is asked unless another is named.
const COHERE_RERANK_MODEL: &str = "rerank-v3.5";

/// What Cohere's public list said of that model in November 2025: two dollars for a thousand search
/// units, in picodollars for one.
const COHERE_RERANK_PICO: u64 = 2_000_000_000;

/// How to reach a model that ranks passages, and how much it may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RerankConfig {
    /// What call the server speaks.
    pub kind: RerankKind,
    /// Scheme, host and optional path before that of the call.
    pub base_url: String,
    /// Sent as a bearer token; servers at home often want none.
    pub api_key: Option<Secret>,
    /// The model.
    pub model: String,
    /// How long ranking may take in all, retries included.
    pub deadline: Duration,
    /// Picodollars that it costs; `None` if that is not known.
    pub price: Option<RerankPrice>,
    /// Bounds.
    pub limits: RerankLimits,
}

impl RerankConfig {
    /// How long ranking may take unless something else is said.
    pub const DEADLINE: Duration = Duration::from_secs(10);

    /// The usual model of a kind at this place.
    pub fn new(kind: RerankKind, base_url: String) -> Self {
        let model = kind.usual_model().to_owned();
        Self {
            kind,
            base_url,
            api_key: None,
            price: RerankPrice::known(kind, &model),
            model,
            deadline: Self::DEADLINE,
            limits: RerankLimits::default(),
        }
    }
}

/// Picodollars that one of what is billed costs: a search unit (a query with up to 100 passages) at
/// Cohere, a token elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RerankPrice(pub(super) u64);

impl RerankPrice {
    /// That of a model that is known by name. A server at home is free.
    pub fn known(kind: RerankKind, model: &str) -> Option<Self> {
        match kind {
            RerankKind::Cohere if model == COHERE_RERANK_MODEL => Some(Self(COHERE_RERANK_PICO)),
            RerankKind::Tei => Some(Self(0)),
            RerankKind::Cohere | RerankKind::Jina | RerankKind::Voyage => None,
        }
    }

    /// That which `text` says: US dollars for a thousand search units at Cohere, for a million tokens
    /// elsewhere, with at most six decimals; `None` if it is no such number.
    pub fn read(kind: RerankKind, text: &str) -> Option<Self> {
        let pico = pico_per_token(text.trim())?;
        let units = if kind.is_billed_by_units() { 1_000 } else { 1 };
        Some(Self(pico.checked_mul(units)?))
    }
}

/// Every bound on the work of a reranker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RerankLimits {
    /// Calls at the same time; further ones wait.
    pub calls_concurrent_max: usize,
    /// Bytes of passages that are being ranked or wait for it; beyond it callers get `Busy`.
    pub waiting_bytes_max: usize,
    /// Tries after the first that failed in a way that may pass.
    pub retries_max: u32,
    /// The wait before the first retry; it doubles with each one, half of it at random.
    pub backoff_min: Duration,
    /// The longest wait between two tries that nobody asked for.
    pub backoff_max: Duration,
    /// The longest one call may take.
    pub call_timeout: Duration,
}

impl Default for RerankLimits {
    fn default() -> Self {
        Self {
            calls_concurrent_max: 4,
            waiting_bytes_max: 64 << 20,
            retries_max: 4,
            backoff_min: Duration::from_millis(250),
            backoff_max: Duration::from_secs(5),
            call_timeout: Duration::from_secs(30),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_of_a_search_unit_or_of_a_token() {
        let read = |kind, text| RerankPrice::read(kind, text).map(|price| price.0);
        assert_eq!(read(RerankKind::Cohere, "2.00"), Some(COHERE_RERANK_PICO));
        assert_eq!(read(RerankKind::Jina, " 0.05 "), Some(50_000));
        assert_eq!(read(RerankKind::Voyage, "0"), Some(0));
        for text in ["", "free", "-1", "1e3", "1.0000001", "1000001"] {
            assert_eq!(read(RerankKind::Cohere, text), None, "{text}");
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for kind in RerankKind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        let error = "Cohere".parse::<RerankKind>().unwrap_err();
        assert!(error.to_string().ends_with("known: cohere, jina, voyage, tei"), "{error}");
    }
}
