//! The models that are known by name: whose they are and which dimensions they have.

use std::fmt;
use std::str::FromStr;

use crate::error::EmbedError;

/// Who embeds.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProviderKind {
    /// The model inside this process.
    Local,
    /// Cohere.
    Cohere,
    /// OpenAI or a server that speaks its call.
    OpenAi,
}

impl ProviderKind {
    /// Every provider.
    pub const ALL: [ProviderKind; 3] =
        [ProviderKind::Local, ProviderKind::Cohere, ProviderKind::OpenAi];

    /// The name in configuration and stored specifications: `local`, `cohere`, `openai`.
    pub fn name(self) -> &'static str {
        match self {
            ProviderKind::Local => "local",
            ProviderKind::Cohere => "cohere",
            ProviderKind::OpenAi => "openai",
        }
    }
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A word that names no provider.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown embedding provider {0:?}; known: local, cohere, openai")]
pub struct UnknownProvider(pub String);

impl FromStr for ProviderKind {
    type Err = UnknownProvider;

    fn from_str(word: &str) -> Result<Self, UnknownProvider> {
        ProviderKind::ALL
            .into_iter()
            .find(|kind| kind.name() == word)
            .ok_or_else(|| UnknownProvider(word.to_owned()))
    }
}

/// A model, whose it is, and the dimension of its vectors: what a library is created with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelSpec {
    /// Who embeds.
    pub provider: ProviderKind,
    /// The model's name as the provider knows it.
    pub model: String,
    /// Values per vector, 1 to [`DIMENSION_MAX`].
    pub dimension: u32,
}

/// What a library asks for; anything left out is the default's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelRequest {
    /// Who embeds.
    pub provider: Option<ProviderKind>,
    /// The model's name.
    pub model: Option<String>,
    /// Values per vector.
    pub dimension: Option<u32>,
}

/// The most values a vector may have.
pub const DIMENSION_MAX: u32 = 4_096;

/// The name of the model inside this process.
pub const LOCAL_MODEL: &str = "all-MiniLM-L6-v2";

/// Cohere's model when nothing else is said.
pub const COHERE_MODEL: &str = "embed-english-v3.0";

/// Which dimensions below its full one a model gives.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shortening {
    /// The first n values, made length 1 again here.
    Cut,
    /// Only these, which the provider computes when asked.
    Listed(&'static [u32]),
    /// Any, which the provider computes when asked.
    Asked,
    /// None.
    Fixed,
}

/// A model known by name.
#[derive(Debug)]
pub(crate) struct KnownModel {
    pub(crate) provider: ProviderKind,
    pub(crate) name: &'static str,
    pub(crate) dimension: u32,
    pub(crate) shortening: Shortening,
}

const COHERE_V4_DIMENSIONS: &[u32] = &[256, 512, 1_024, 1_536];

/// Every model known by name.
pub(crate) const KNOWN: &[KnownModel] = &[
    known(ProviderKind::Local, LOCAL_MODEL, 384, Shortening::Cut),
    known(ProviderKind::Cohere, COHERE_MODEL, 1_024, Shortening::Cut),
    known(ProviderKind::Cohere, "embed-multilingual-v3.0", 1_024, Shortening::Cut),
    known(ProviderKind::Cohere, "embed-english-light-v3.0", 384, Shortening::Cut),
    known(ProviderKind::Cohere, "embed-multilingual-light-v3.0", 384, Shortening::Cut),
    known(ProviderKind::Cohere, "embed-v4.0", 1_536, Shortening::Listed(COHERE_V4_DIMENSIONS)),
    known(ProviderKind::OpenAi, "text-embedding-3-small", 1_536, Shortening::Asked),
    known(ProviderKind::OpenAi, "text-embedding-3-large", 3_072, Shortening::Asked),
    known(ProviderKind::OpenAi, "text-embedding-ada-002", 1_536, Shortening::Fixed),
];

const fn known(
    provider: ProviderKind,
    name: &'static str,
    dimension: u32,
    shortening: Shortening,
) -> KnownModel {
    KnownModel { provider, name, dimension, shortening }
}

/// The known model of that name.
pub(crate) fn find(provider: ProviderKind, name: &str) -> Option<&'static KnownModel> {
    // The hub's full name of the local model is what people copy.
    let name = match provider {
        ProviderKind::Local => name.strip_prefix("sentence-transformers/").unwrap_or(name),
        ProviderKind::Cohere | ProviderKind::OpenAi => name,
    };
    KNOWN.iter().find(|known| known.provider == provider && known.name == name)
}

/// The names of a provider's known models.
pub(crate) fn names(provider: Option<ProviderKind>) -> Vec<String> {
    KNOWN
        .iter()
        .filter(|known| provider.is_none_or(|provider| known.provider == provider))
        .map(|known| known.name.to_owned())
        .collect()
}

impl KnownModel {
    /// The model with vectors of `dimension` values, or of all it has.
    pub(crate) fn spec(&self, dimension: Option<u32>) -> Result<ModelSpec, EmbedError> {
        let dimension = dimension.unwrap_or(self.dimension);
        if !self.has(dimension) {
            return Err(EmbedError::DimensionUnsupported {
                model: self.name.to_owned(),
                dimension,
                supported: self.supported(),
            });
        }
        Ok(ModelSpec { provider: self.provider, model: self.name.to_owned(), dimension })
    }

    fn has(&self, dimension: u32) -> bool {
        match self.shortening {
            Shortening::Cut | Shortening::Asked => (1..=self.dimension).contains(&dimension),
            Shortening::Listed(listed) => listed.contains(&dimension),
            Shortening::Fixed => dimension == self.dimension,
        }
    }

    fn supported(&self) -> String {
        match self.shortening {
            Shortening::Cut | Shortening::Asked => format!("1 to {}", self.dimension),
            Shortening::Listed(listed) => {
                listed.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
            }
            Shortening::Fixed => self.dimension.to_string(),
        }
    }
}
