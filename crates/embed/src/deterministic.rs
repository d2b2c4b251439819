//! An embedder for tests and simulations: vectors from a hash of the text's words.
//!
//! Configuration cannot reach it; it has to be handed in as
//! [`LocalSource::Custom`](crate::LocalSource). Equal texts have equal vectors on every machine,
//! and texts that share words are nearer than texts that do not, so ranking can be tested.

use crate::models::ModelSpec;
use crate::provider::{BoxFuture, CallError, InputType, Provider, ProviderAnswer, ProviderLimits};

/// Hashes words into vectors of whatever dimension the model asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeterministicProvider;

impl Provider for DeterministicProvider {
    fn limits(&self) -> ProviderLimits {
        ProviderLimits {
            texts_per_call: 64,
            tokens_per_call: 16_384,
            tokens_per_text: 512,
            chars_per_text: None,
            bytes_per_token: 4,
        }
    }

    fn variant(&self) -> String {
        "deterministic".to_owned()
    }

    fn embed<'a>(
        &'a self,
        model: &'a ModelSpec,
        _input: InputType,
        texts: &'a [String],
    ) -> BoxFuture<'a, Result<ProviderAnswer, CallError>> {
        let vectors = texts.iter().map(|text| vector_of(text, model.dimension)).collect();
        Box::pin(std::future::ready(Ok(ProviderAnswer { vectors, tokens: None })))
    }
}

/// The vector of `text`: `dimension` small whole numbers, the same on every machine. Never all
/// zeros. Linear in words times dimension.
pub fn vector_of(text: &str, dimension: u32) -> Vec<f32> {
    let width = usize::try_from(dimension).unwrap_or(usize::MAX);
    let mut sums = vec![0_i16; width];
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    for word in words {
        let mut state = word_seed(&word.to_lowercase());
        for sum in &mut sums {
            // Values from -3 to 3: a vector is a sum of its words' random directions.
            *sum = sum.saturating_add(i16::from(next(&mut state) % 7) - 3);
        }
    }
    if sums.iter().all(|&sum| sum == 0)
        && let Some(first) = sums.first_mut()
    {
        *first = 1;
    }
    sums.into_iter().map(f32::from).collect()
}

/// FNV-1a over the word's bytes.
fn word_seed(word: &str) -> u64 {
    word.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The top byte of the next number of a `SplitMix64` sequence.
fn next(state: &mut u64) -> u8 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed.to_be_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cosine(a: &[f32], b: &[f32]) -> f32 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    #[test]
    fn texts_that_share_words_are_nearer() {
        let query = vector_of("red apple", 64);
        let near = vector_of("a Red apple on the table", 64);
        let far = vector_of("seven ships sailed north", 64);
        assert!(cosine(&query, &near) > cosine(&query, &far) + 0.2);
    }

    #[test]
    fn e1_any_text_and_dimension_gives_a_usable_vector() {
        for dimension in [1, 2, 384, 4_096] {
            for text in ["", "...", "a", "the quick brown fox"] {
                let vector = vector_of(text, dimension);
                assert_eq!(vector.len(), dimension as usize);
                assert!(vector.iter().any(|&value| value.abs() > 0.0), "{text:?} {dimension}");
            }
        }
    }
}
