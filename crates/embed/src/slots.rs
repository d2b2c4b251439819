//! The providers' lanes, as the configuration describes them.

use std::sync::Arc;

use crate::cohere::{Cohere, CoherePictures};
use crate::config::{EmbedConfig, EmbedLimits};
use crate::embedder::LocalSource;
use crate::error::OpenError;
use crate::lane::{Lane, LaneLimits, LaneParts};
use crate::local::{LocalModel, Precision};
use crate::local_provider;
use crate::model_files::ModelFiles;
use crate::openai::{OpenAi, OpenAiPictures};

/// A provider's lane, or why there is none.
pub(crate) type Slot = Result<Lane, String>;

/// The local model's lane.
pub(crate) async fn local_slot(
    source: LocalSource,
    config: &EmbedConfig,
    shared: &LaneParts,
) -> Result<Slot, OpenError> {
    let model = match source {
        LocalSource::Unavailable(reason) => return Ok(Err(reason)),
        LocalSource::Custom(provider) => {
            return Ok(Ok(Lane::new(provider, lane_limits(&config.limits), shared.clone())));
        }
        LocalSource::Ready(model) => model,
        LocalSource::Files(files) => match load(files, config.precision, config.threads).await {
            Ok(model) => Arc::new(model),
            Err(reason) => {
                tracing::warn!(%reason, "the local model cannot be used");
                return Ok(Err(reason));
            }
        },
    };
    let threads = u64::try_from(config.threads.max(1)).unwrap_or(1);
    let piece_tokens_max = u64::from(config.limits.local_piece_tokens_max).saturating_mul(threads);
    let provider = Arc::new(local_provider::start(&model, piece_tokens_max)?);
    Ok(Ok(Lane::new(provider, lane_limits(&config.limits), shared.clone())))
}

/// Reads the model's files on a thread that may block, if they are the pinned ones: vectors of
/// another model under this one's name would never be found out.
async fn load(
    files: ModelFiles,
    precision: Precision,
    threads: usize,
) -> Result<LocalModel, String> {
    let load = move || {
        files.verify().map_err(|error| error.to_string())?;
        LocalModel::load(&files, precision, threads).map_err(|error| error.to_string())
    };
    tokio::task::spawn_blocking(load).await.map_err(|error| error.to_string())?
}

/// Cohere's lane.
pub(crate) fn cohere_slot(
    config: &EmbedConfig,
    http: &reqwest::Client,
    shared: &LaneParts,
) -> Result<Slot, OpenError> {
    let Some(cohere) = &config.cohere else {
        return Ok(Err("COHERE_API_KEY is not set".to_owned()));
    };
    let provider = Arc::new(Cohere::new(cohere, http.clone())?);
    Ok(Ok(Lane::new(provider, remote_limits(&config.limits), shared.clone())))
}

/// The lane of OpenAI or a server like it.
pub(crate) fn openai_slot(
    config: &EmbedConfig,
    http: &reqwest::Client,
    shared: &LaneParts,
) -> Result<Slot, OpenError> {
    let Some(openai) = &config.openai else {
        return Ok(Err("no OpenAI-compatible server is configured".to_owned()));
    };
    let provider = Arc::new(OpenAi::new(openai, http.clone())?);
    Ok(Ok(Lane::new(provider, remote_limits(&config.limits), shared.clone())))
}

/// The lane of pictures at Cohere.
pub(crate) fn cohere_pictures_slot(
    config: &EmbedConfig,
    http: &reqwest::Client,
    shared: &LaneParts,
) -> Result<Slot, OpenError> {
    let Some(cohere) = &config.cohere else {
        return Ok(Err("COHERE_API_KEY is not set".to_owned()));
    };
    if !cohere.pictures {
        return Ok(Err("set COHERE_IMAGES to true".to_owned()));
    }
    let provider = Arc::new(CoherePictures::new(cohere, http.clone())?);
    Ok(Ok(Lane::new(provider, remote_limits(&config.limits), shared.clone())))
}

/// The lane of pictures at a server like OpenAI's.
pub(crate) fn openai_pictures_slot(
    config: &EmbedConfig,
    http: &reqwest::Client,
    shared: &LaneParts,
) -> Result<Slot, OpenError> {
    let Some(openai) = &config.openai else {
        return Ok(Err("no OpenAI-compatible server is configured".to_owned()));
    };
    if openai.pictures.is_none() {
        let reason = "set OPENAI_IMAGES to whose call its server speaks (jina, vllm or voyage)";
        return Ok(Err(reason.to_owned()));
    }
    let provider = Arc::new(OpenAiPictures::new(openai, http.clone())?);
    Ok(Ok(Lane::new(provider, remote_limits(&config.limits), shared.clone())))
}

/// The bounds of a lane whose calls go over the network.
fn remote_limits(limits: &EmbedLimits) -> LaneLimits {
    LaneLimits {
        calls_max: limits.calls_concurrent_max,
        call_timeout: Some(limits.call_timeout),
        ..lane_limits(limits)
    }
}

/// The bounds of a lane whose calls are computed here, one at a time.
fn lane_limits(limits: &EmbedLimits) -> LaneLimits {
    LaneLimits {
        calls_max: 1,
        queue_texts_max: limits.queue_texts_max,
        batch_window: limits.batch_window,
        retries_max: limits.retries_max,
        backoff_min: limits.backoff_min,
        backoff_max: limits.backoff_max,
        call_timeout: None,
    }
}
