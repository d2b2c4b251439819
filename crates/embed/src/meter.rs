//! What embedding uses, told to whoever asked for it: for the bill.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::embedder::Embedder;
use crate::error::EmbedError;
use crate::models::ModelSpec;
use crate::picture::Picture;
use crate::provider::InputType;

/// Bytes reckoned as one token of a text that no provider counted.
const BYTES_PER_TOKEN: u64 = 4;

/// Tokens reckoned for a picture that no provider counted: at the price of a text's token, that is
/// what Cohere charges for one of its third generation, which it counts by the piece.
pub(crate) const PICTURE_TOKENS: u64 = 1_000;

/// What a call used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Texts, or pictures, that a provider embedded.
    pub texts: u64,
    /// Their tokens as the provider counted them, or the estimate where it does not say. A call that
    /// several requests shared is divided among them by estimate, and the sum stays the provider's.
    pub tokens: u64,
    /// Texts whose vector was found in the cache.
    pub cached_texts: u64,
    /// Their tokens, by estimate.
    pub cached_tokens: u64,
}

/// Told what one caller's texts use, and asked before a provider is called for them.
///
/// It is told of what a provider was paid for, whatever came of it: also when the caller has left
/// meanwhile, or got an error because another part of its texts failed. Calls that failed count
/// nothing. Of the cache it is told when the caller gets all of its vectors.
pub trait Meter: Send + Sync + fmt::Debug {
    /// This was used.
    fn used(&self, usage: Usage);

    /// Whether a provider may be called. Asked when texts are not in the cache, and again for every
    /// part of a large request; texts are refused with [`EmbedError::NotAllowed`] where it may not.
    fn may_call(&self) -> bool;
}

/// An embedder whose calls are told to a meter.
#[derive(Clone, Debug)]
pub struct Metered<'a> {
    pub(crate) embedder: &'a Embedder,
    pub(crate) meter: Arc<dyn Meter>,
}

impl Metered<'_> {
    /// As [`Embedder::embed`].
    pub async fn embed(
        &self,
        model: &ModelSpec,
        input: InputType,
        texts: Vec<String>,
        deadline: Duration,
    ) -> Result<Vec<f32>, EmbedError> {
        let work = (model, input, texts);
        self.embedder.embed_metered(work, deadline, Some(&self.meter)).await
    }

    /// As [`Embedder::embed_pictures`].
    pub async fn embed_pictures(
        &self,
        model: &ModelSpec,
        input: InputType,
        pictures: Vec<Picture>,
        deadline: Duration,
    ) -> Result<Vec<f32>, EmbedError> {
        let work = (model, input, pictures);
        self.embedder.embed_pictures_metered(work, deadline, Some(&self.meter)).await
    }
}

/// About how many tokens a text has.
pub(crate) fn tokens_estimated(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX).div_ceil(BYTES_PER_TOKEN).max(1)
}

/// Divides `total` among those who have a part in it of `weights`: in proportion, the sum exact.
pub(crate) fn divided(total: u64, weights: &[u64]) -> Vec<u64> {
    let sum: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
    let (mut before, mut until) = (0, 0_u128);
    weights
        .iter()
        .map(|&weight| {
            until += u128::from(weight);
            let upto = (u128::from(total) * until).checked_div(sum).unwrap_or(0);
            let upto = u64::try_from(upto).unwrap_or(u64::MAX);
            std::mem::replace(&mut before, upto).abs_diff(upto)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_divided_sums_up_to_the_whole(
            total: u64,
            weights in prop::collection::vec(1_u64..1_000_000, 1..40),
        ) {
            let parts = divided(total, &weights);
            prop_assert_eq!(parts.iter().map(|&part| u128::from(part)).sum::<u128>(), u128::from(total));
            let sum: u64 = weights.iter().sum();
            for (part, weight) in parts.iter().zip(&weights) {
                let fair = u128::from(total) * u128::from(*weight) / u128::from(sum);
                prop_assert!(u128::from(*part).abs_diff(fair) <= 1, "{part} of {fair}");
            }
        }
    }

    #[test]
    fn nobody_has_a_part_of_nothing() {
        assert_eq!(divided(9, &[]), [0; 0]);
        assert_eq!(divided(9, &[0, 0]), [0, 0]);
        assert_eq!(divided(0, &[1, 2]), [0, 0]);
        assert_eq!(divided(10, &[1, 1, 1]), [3, 3, 4]);
    }

    #[test]
    fn every_text_has_a_token() {
        assert_eq!([tokens_estimated("a"), tokens_estimated("five!")], [1, 2]);
    }
}
