//! What the embedder asks of a provider, and the values that go back and forth.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::error::EmbedError;
use crate::models::ModelSpec;

/// A boxed future, so that providers can be trait objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a text is for. Some models embed questions and passages differently.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InputType {
    /// A passage to be found.
    Document,
    /// A question to find passages with.
    Query,
}

/// How much a provider takes in one call.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ProviderLimits {
    /// Texts in one call, at least 1.
    pub texts_per_call: usize,
    /// Tokens of all texts of one call together. A single text may exceed it and goes alone.
    pub tokens_per_call: u64,
    /// Tokens of one text that count; what is beyond is cut off by the model.
    pub tokens_per_text: u64,
    /// Unicode scalar values of one text; more is refused. `None` leaves it to the provider.
    pub chars_per_text: Option<usize>,
    /// UTF-8 bytes reckoned as one token when calls are put together: 1 never underestimates,
    /// 4 fits English. At least 1.
    pub bytes_per_token: u64,
}

/// What a provider of pictures takes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct PictureLimits {
    /// Bytes of one picture, decoded.
    pub bytes_per_picture: usize,
    /// Whether it fetches pictures of `http` and `https` URLs. Else only `data:` URLs are taken.
    pub fetches: bool,
}

/// Bytes of all pictures of one call together, as their URLs have them.
const PICTURES_BYTES_PER_CALL: u64 = 20 << 20;

/// How many pictures make a call: as many as fit by their bytes, which stand for tokens here.
pub(crate) const PICTURES_OF_A_CALL: ProviderLimits = ProviderLimits {
    texts_per_call: 1,
    tokens_per_call: PICTURES_BYTES_PER_CALL,
    tokens_per_text: u64::MAX,
    chars_per_text: None,
    bytes_per_token: 1,
};

/// A provider's answer to one call.
#[derive(Clone, Debug, PartialEq)]
pub struct ProviderAnswer {
    /// One vector per text, in the order of the texts.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens that the provider counted, if it says. A count that cannot be that of the texts is
    /// not believed.
    pub tokens: Option<u64>,
}

/// Something that turns texts into vectors.
///
/// A provider is called with non-blank texts within its [`ProviderLimits`]; it need not check its
/// own vectors (E1 is kept by the embedder), retry, cache or bound its concurrency.
pub trait Provider: Send + Sync + fmt::Debug {
    /// How much one call takes.
    fn limits(&self) -> ProviderLimits;

    /// What it takes, if it takes pictures: then the texts that it is called with are their URLs.
    fn pictures(&self) -> Option<PictureLimits> {
        None
    }

    /// What a vector depends on beside model, dimension and input type: the server, the number
    /// format. The cache never serves one variant's vector for another (E3). Empty where there
    /// is nothing of the kind.
    fn variant(&self) -> String {
        String::new()
    }

    /// Embeds `texts` (at least one). Dropping the future abandons the call.
    fn embed<'a>(
        &'a self,
        model: &'a ModelSpec,
        input: InputType,
        texts: &'a [String],
    ) -> BoxFuture<'a, Result<ProviderAnswer, CallError>>;
}

/// Why one call failed, and whether another try may help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    /// What the caller is told if this was the last try.
    pub error: EmbedError,
    /// What another try is good for.
    pub retry: Retry,
}

/// What another try of a failed call is good for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It would fail again.
    Never,
    /// One of the texts is at fault: the others may do without it.
    Apart,
    /// It may succeed later; the provider did not say when.
    Backoff,
    /// It may succeed after that time, says the provider.
    After(std::time::Duration),
}

impl CallError {
    /// A failure that another try would repeat.
    pub fn fatal(error: EmbedError) -> Self {
        CallError { error, retry: Retry::Never }
    }
}

/// Cuts a vector to its first `dimension` values and makes its length 1 again. Shorter vectors
/// and those of length 0 stay as they are: E1 tells on them.
pub(crate) fn cut(vector: &mut Vec<f32>, dimension: u32) {
    let wanted = usize::try_from(dimension).unwrap_or(usize::MAX);
    if vector.len() <= wanted {
        return;
    }
    vector.truncate(wanted);
    let norm = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if norm > 0.0 && norm.is_finite() {
        for value in vector {
            #[expect(clippy::cast_possible_truncation, reason = "a vector is f32 by definition")]
            let scaled = (f64::from(*value) / norm) as f32;
            *value = scaled;
        }
    }
}
