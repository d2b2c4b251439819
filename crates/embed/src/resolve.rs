//! From what is asked for to the model that is used.

use crate::config::{EmbedConfig, OpenAiConfig};
use crate::error::EmbedError;
use crate::models::{
    self, COHERE_MODEL, DIMENSION_MAX, LOCAL_MODEL, ModelRequest, ModelSpec, ProviderKind,
};

/// Knows which models the configuration makes available.
#[derive(Debug)]
pub(crate) struct Resolver {
    cohere: bool,
    /// The configured OpenAI model and its dimension, where that is said.
    openai: Option<(String, Option<u32>)>,
}

impl Resolver {
    pub(crate) fn new(config: &EmbedConfig) -> Self {
        // The general dimension is the default provider's, whichever that is.
        let general = config.dimension.filter(|_| config.provider == Some(ProviderKind::OpenAi));
        let stated = |openai: &OpenAiConfig| openai.dimensions.or(general);
        Resolver {
            cohere: config.cohere.is_some(),
            openai: config.openai.as_ref().map(|openai| (openai.model.clone(), stated(openai))),
        }
    }

    /// The default model, and what the operator should know about how it was chosen.
    ///
    /// With no provider named, a `model` (and the `dimension` that goes with it) that is another
    /// provider's is passed over: settings written for Cohere must not stop a server that has no
    /// Cohere key from starting with its local model.
    pub(crate) fn default(
        &self,
        config: &EmbedConfig,
    ) -> Result<(ModelSpec, Option<String>), EmbedError> {
        let chosen = config.provider.unwrap_or(if self.cohere {
            ProviderKind::Cohere
        } else {
            ProviderKind::Local
        });
        let foreign = config.model.as_ref().filter(|model| {
            config.provider.is_none()
                && models::find(chosen, model).is_none()
                && ProviderKind::ALL.iter().any(|&other| models::find(other, model).is_some())
        });
        if let Some(model) = foreign {
            let spec = self.configured(chosen, None, None)?;
            let note = format!(
                "the configured model {model} is not one of the {chosen} provider's, which is \
                 used because no other is set up: its model is {}",
                spec.model
            );
            return Ok((spec, Some(note)));
        }
        let spec = self.configured(chosen, config.model.as_deref(), config.dimension)?;
        Ok((spec, None))
    }

    /// A configured model: a dimension of more than it has means all it has.
    fn configured(
        &self,
        provider: ProviderKind,
        model: Option<&str>,
        dimension: Option<u32>,
    ) -> Result<ModelSpec, EmbedError> {
        let name = model.unwrap_or_else(|| self.usual(provider));
        match models::find(provider, name) {
            Some(known) => {
                let stated = dimension.or_else(|| self.stated(provider, name));
                known.spec(stated.map(|dimension| dimension.min(known.dimension)))
            }
            None => self.unknown(provider, name, dimension),
        }
    }

    /// What a library that asks for `request` gets.
    pub(crate) fn resolve(
        &self,
        default: &ModelSpec,
        request: ModelRequest,
    ) -> Result<ModelSpec, EmbedError> {
        let ModelRequest { provider, model, dimension } = request;
        let provider = match (provider, &model) {
            (Some(provider), _) => provider,
            (None, None) => default.provider,
            (None, Some(model)) => self.owner(default, model)?,
        };
        let is_default = provider == default.provider
            && model.as_ref().is_none_or(|model| *model == default.model);
        if is_default && dimension.is_none_or(|dimension| dimension == default.dimension) {
            return Ok(default.clone());
        }
        let name = match &model {
            Some(model) => model.as_str(),
            None if is_default => default.model.as_str(),
            None => self.usual(provider),
        };
        let dimension = dimension.or_else(|| self.stated(provider, name));
        match models::find(provider, name) {
            Some(known) => known.spec(dimension),
            None => self.unknown(provider, name, dimension),
        }
    }

    /// Whose model `name` is, when nobody is named.
    fn owner(&self, default: &ModelSpec, name: &str) -> Result<ProviderKind, EmbedError> {
        let first = std::iter::once(default.provider);
        if name == default.model {
            return Ok(default.provider);
        }
        first
            .chain(ProviderKind::ALL)
            .find(|&provider| models::find(provider, name).is_some())
            .or_else(|| self.openai.is_some().then_some(ProviderKind::OpenAi))
            .ok_or_else(|| EmbedError::UnknownModel {
                model: name.to_owned(),
                known: models::names(None),
            })
    }

    /// The model a provider uses when none is named.
    fn usual(&self, provider: ProviderKind) -> &str {
        match provider {
            ProviderKind::Local => LOCAL_MODEL,
            ProviderKind::Cohere => COHERE_MODEL,
            ProviderKind::OpenAi => {
                self.openai.as_ref().map_or(OpenAiConfig::MODEL, |(model, _)| model.as_str())
            }
        }
    }

    /// The dimension that the configuration states for a model.
    fn stated(&self, provider: ProviderKind, name: &str) -> Option<u32> {
        let (model, dimension) = self.openai.as_ref()?;
        (provider == ProviderKind::OpenAi && model == name).then_some(*dimension)?
    }

    /// A model that only an OpenAI-compatible server may have.
    fn unknown(
        &self,
        provider: ProviderKind,
        name: &str,
        dimension: Option<u32>,
    ) -> Result<ModelSpec, EmbedError> {
        if provider != ProviderKind::OpenAi {
            let known = models::names(Some(provider));
            return Err(EmbedError::UnknownModel { model: name.to_owned(), known });
        }
        let model = name.to_owned();
        match dimension.or_else(|| self.stated(provider, name)) {
            Some(dimension) if (1..=DIMENSION_MAX).contains(&dimension) => {
                Ok(ModelSpec { provider, model, dimension })
            }
            Some(dimension) => Err(EmbedError::DimensionUnsupported {
                model,
                dimension,
                supported: format!("1 to {DIMENSION_MAX}"),
            }),
            None => Err(EmbedError::DimensionUnknown { model }),
        }
    }
}
