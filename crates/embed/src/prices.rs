//! What embedding costs with each model.

use std::collections::BTreeMap;

use crate::models::{ModelSpec, ProviderKind};

/// Picodollars (millionths of a millionth of a US dollar) that a token costs: the unit in which no
/// price of up to six decimals, in dollars for a million tokens, loses anything for a single token.
type PicoPerToken = u64;

/// Picodollars for one token of a price of one dollar for a million tokens.
const PICO_PER_DOLLAR_A_MILLION: u64 = 1_000_000;

/// The highest price that can be set, in dollars for a million tokens.
pub const PRICE_MAX: u64 = 1_000_000;

/// The decimals of a price.
const DECIMALS: usize = 6;

/// Prices of the models that are known by name, in thousandths of a dollar for a million tokens, as
/// the providers' public lists had them in November 2025.
const KNOWN: &[(ProviderKind, &str, u64)] = &[
    (ProviderKind::Cohere, "embed-english-v3.0", 100),
    (ProviderKind::Cohere, "embed-multilingual-v3.0", 100),
    (ProviderKind::Cohere, "embed-english-light-v3.0", 100),
    (ProviderKind::Cohere, "embed-multilingual-light-v3.0", 100),
    (ProviderKind::Cohere, "embed-v4.0", 120),
    (ProviderKind::OpenAi, "text-embedding-3-small", 20),
    (ProviderKind::OpenAi, "text-embedding-3-large", 130),
    (ProviderKind::OpenAi, "text-embedding-ada-002", 100),
];

/// Of those, the ones whose tokens of pictures have a price of their own.
const KNOWN_OF_PICTURES: &[(ProviderKind, &str, u64)] =
    &[(ProviderKind::Cohere, "embed-v4.0", 470)];

/// What a token costs with each model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prices {
    texts: BTreeMap<(ProviderKind, String), PicoPerToken>,
    /// Where another one holds for pictures.
    pictures: BTreeMap<(ProviderKind, String), PicoPerToken>,
}

/// A text that is no price.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no price: write PROVIDER/MODEL=USD for a million tokens, with at most {DECIMALS} decimals, as in openai/text-embedding-3-small=0.02, or PROVIDER/MODEL=USD/USD where tokens of pictures have a price of their own"
)]
pub struct PriceError {
    /// As it was given.
    pub text: String,
}

impl Default for Prices {
    /// Those of the models that are known by name.
    fn default() -> Self {
        let price = |&(provider, model, thousandths): &(ProviderKind, &str, u64)| {
            ((provider, model.to_owned()), thousandths * (PICO_PER_DOLLAR_A_MILLION / 1000))
        };
        Self {
            texts: KNOWN.iter().map(price).collect(),
            pictures: KNOWN_OF_PICTURES.iter().map(price).collect(),
        }
    }
}

impl Prices {
    /// Sets the price that `text` says, as in `openai/text-embedding-3-small=0.02`.
    pub fn set(&mut self, text: &str) -> Result<(), PriceError> {
        let wrong = || PriceError { text: text.chars().take(200).collect() };
        // Names of models may have slashes and equals signs in them.
        let (name, price) = text.rsplit_once('=').ok_or_else(wrong)?;
        let (provider, model) = name.split_once('/').ok_or_else(wrong)?;
        let provider = provider.trim().parse().map_err(|_unknown| wrong())?;
        let (model, price) = (model.trim(), price.trim());
        if model.is_empty() || provider == ProviderKind::Local {
            return Err(wrong());
        }
        let (texts, pictures) = match price.split_once('/') {
            None => (price, None),
            Some((texts, pictures)) => (texts.trim(), Some(pictures.trim())),
        };
        let texts = pico_per_token(texts).ok_or_else(wrong)?;
        let pictures = pictures.map(|price| pico_per_token(price).ok_or_else(wrong)).transpose()?;
        let model = (provider, model.to_owned());
        match pictures {
            Some(price) => self.pictures.insert(model.clone(), price),
            None => self.pictures.remove(&model),
        };
        self.texts.insert(model, texts);
        Ok(())
    }

    /// As [`Prices::pico_per_token`], of a picture's token: the price of a text's where it has none of
    /// its own.
    pub fn pico_per_picture_token(&self, model: &ModelSpec) -> Option<u64> {
        let wanted = (model.provider, model.model.as_str());
        found(&self.pictures, wanted).or_else(|| self.pico_per_token(model))
    }

    /// Picodollars that a token costs; `None` if that is not known. The model inside this process
    /// costs nothing.
    pub fn pico_per_token(&self, model: &ModelSpec) -> Option<u64> {
        match model.provider {
            ProviderKind::Local => Some(0),
            ProviderKind::Cohere | ProviderKind::OpenAi => {
                found(&self.texts, (model.provider, model.model.as_str()))
            }
        }
    }
}

fn found(
    prices: &BTreeMap<(ProviderKind, String), PicoPerToken>,
    wanted: (ProviderKind, &str),
) -> Option<PicoPerToken> {
    let found = prices.iter().find(|((kind, name), _)| (*kind, name.as_str()) == wanted);
    found.map(|(_model, price)| *price)
}

/// A price in dollars for a million tokens, written as a decimal number.
pub(crate) fn pico_per_token(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty()
        || !digits(whole)
        || !digits(fraction)
        || fraction.len() > DECIMALS
    {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: u64 = format!("{fraction:0<DECIMALS$}").parse().ok()?;
    let price = whole.checked_mul(PICO_PER_DOLLAR_A_MILLION)?.checked_add(fraction)?;
    (price <= PRICE_MAX * PICO_PER_DOLLAR_A_MILLION).then_some(price)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(provider: ProviderKind, model: &str) -> ModelSpec {
        ModelSpec { provider, model: model.to_owned(), dimension: 8 }
    }

    #[test]
    fn a_price_is_exact_for_a_single_token() {
        let mut prices = Prices::default();
        let small = model(ProviderKind::OpenAi, "text-embedding-3-small");
        assert_eq!(prices.pico_per_token(&small), Some(20_000));
        prices.set("openai/text-embedding-3-small=0.000001").unwrap();
        assert_eq!(prices.pico_per_token(&small), Some(1));
        prices.set(" cohere/a/b=c = 12.5").unwrap();
        assert_eq!(prices.pico_per_token(&model(ProviderKind::Cohere, "a/b=c")), Some(12_500_000));
        prices.set("openai/free=0").unwrap();
        assert_eq!(prices.pico_per_token(&model(ProviderKind::OpenAi, "free")), Some(0));
        assert_eq!(prices.pico_per_token(&model(ProviderKind::OpenAi, "other")), None);
        assert_eq!(prices.pico_per_token(&model(ProviderKind::Local, "any")), Some(0));
    }

    #[test]
    fn every_known_remote_model_has_a_price() {
        let prices = Prices::default();
        for known in crate::models::KNOWN {
            let price = prices.pico_per_token(&model(known.provider, known.name));
            assert_eq!(
                price,
                price.filter(|&it| (it > 0) == (known.provider != ProviderKind::Local))
            );
            assert!(price.is_some(), "{}", known.name);
        }
    }

    #[test]
    fn pictures_may_have_a_price_of_their_own() {
        let mut prices = Prices::default();
        let both = |prices: &Prices, model: &ModelSpec| {
            (prices.pico_per_token(model), prices.pico_per_picture_token(model))
        };
        let [older, newer] =
            ["embed-english-v3.0", "embed-v4.0"].map(|name| model(ProviderKind::Cohere, name));
        assert_eq!(both(&prices, &older), (Some(100_000), Some(100_000)));
        assert_eq!(both(&prices, &newer), (Some(120_000), Some(470_000)));
        prices.set("cohere/embed-english-v3.0 = 1 / 2.5").unwrap();
        assert_eq!(both(&prices, &older), (Some(1_000_000), Some(2_500_000)));
        // Whoever sets one price means it for all.
        prices.set("cohere/embed-v4.0=3").unwrap();
        assert_eq!(both(&prices, &newer), (Some(3_000_000), Some(3_000_000)));
        let unknown = model(ProviderKind::OpenAi, "other");
        assert_eq!(both(&prices, &unknown), (None, None));
    }

    #[test]
    fn what_is_no_price_is_refused() {
        for text in [
            "",
            "=",
            "openai/x",
            "x=1",
            "openai/=1",
            "openai/x=",
            "openai/x=-1",
            "openai/x=1e3",
            "openai/x=+1",
            "openai/x=0.0000001",
            "openai/x=.",
            "openai/x=1.2.3",
            "nobody/x=1",
            "local/x=1",
            "openai/x=99999999999999999999",
            "openai/x=1000001",
            "openai/x=1/",
            "openai/x=/1",
            "openai/x=1/2/3",
        ] {
            let error = Prices::default().set(text).unwrap_err();
            assert!(error.to_string().contains("PROVIDER/MODEL=USD"), "{text}");
        }
    }
}
