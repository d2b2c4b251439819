//! The local model as a provider.

use std::sync::Arc;

use crate::error::OpenError;
use crate::local::{LocalModel, Precision};
use crate::provider::ProviderLimits;
use crate::thread::{Compute, ThreadProvider};

/// Texts of one piece: bounds the work on many tiny texts, whose tokens hardly count.
const TEXTS_PER_PIECE: usize = 64;

struct LocalCompute(Arc<LocalModel>);

impl Compute for LocalCompute {
    fn dimension(&self) -> usize {
        self.0.dimension()
    }

    fn variant(&self) -> &'static str {
        match self.0.precision() {
            Precision::F32 => "f32",
            Precision::Auto | Precision::Bf16 => "bf16",
        }
    }

    fn compute(&mut self, texts: &[&str]) -> Result<(Vec<f32>, u64), String> {
        let embedded = self.0.embed(texts).map_err(|error| error.to_string())?;
        if embedded.truncated > 0 {
            tracing::debug!(texts = embedded.truncated, "texts were cut to the model's length");
        }
        Ok((embedded.vectors, embedded.tokens))
    }
}

/// Starts the thread that computes with `model`, at most `piece_tokens_max` tokens (by estimate)
/// at a time.
pub(crate) fn start(
    model: &Arc<LocalModel>,
    piece_tokens_max: u64,
) -> Result<ThreadProvider, OpenError> {
    let limits = ProviderLimits {
        texts_per_call: TEXTS_PER_PIECE,
        tokens_per_call: piece_tokens_max,
        tokens_per_text: u64::try_from(model.max_tokens()).unwrap_or(u64::MAX),
        // The tokenizer reads a text to its end before it is cut to what the model takes.
        chars_per_text: Some(524_288),
        bytes_per_token: 4,
    };
    ThreadProvider::start(LocalCompute(Arc::clone(model)), limits)
}
