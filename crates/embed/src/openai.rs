//! The embeddings call of OpenAI, which many servers speak, and what some of them made of it for
//! pictures: see [`request`].

mod request;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::config::{OpenAiConfig, PictureCall};
use crate::error::{EmbedError, OpenError};
use crate::models::{self, ModelSpec, ProviderKind, Shortening};
use crate::picture::PICTURE_BYTES_MAX;
use crate::provider::{
    BoxFuture, CallError, InputType, PICTURES_OF_A_CALL, PictureLimits, Provider, ProviderAnswer,
    ProviderLimits, cut,
};
use crate::remote::Endpoint;
use request::{Content, Input, Message, Request, VoyageInput};

/// OpenAI's own limits, as documented: inputs and summed tokens of one request, tokens of one
/// input.
const OPENAI_TEXTS_PER_CALL: usize = 2_048;
const TOKENS_PER_CALL: u64 = 300_000;
const TOKENS_PER_TEXT: u64 = 8_192;

/// Inputs of one request to any other server: text-embeddings-inference refuses more unless it is
/// told otherwise, and a model on a CPU needs its time for them.
const OTHER_TEXTS_PER_CALL: usize = 32;

#[derive(Debug)]
pub(crate) struct OpenAi {
    endpoint: Endpoint,
    host: Host,
    /// How it takes pictures, and texts with them.
    call: Option<PictureCall>,
    /// The configured model and the `dimensions` to be sent with it.
    shortened: Option<(String, u32)>,
}

/// Whose server it is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Host {
    OpenAi,
    Other,
}

impl OpenAi {
    pub(crate) fn new(config: &OpenAiConfig, http: reqwest::Client) -> Result<Self, OpenError> {
        let path = match config.pictures {
            None | Some(PictureCall::Jina | PictureCall::Vllm) => "embeddings",
            Some(PictureCall::Voyage) => "multimodalembeddings",
        };
        let endpoint = Endpoint::new(
            http,
            ProviderKind::OpenAi,
            (&config.base_url, path),
            config.api_key.as_ref().map(|key| ("Bearer", key)),
        )?;
        let host = if endpoint.host() == "api.openai.com" { Host::OpenAi } else { Host::Other };
        let shortened = config.dimensions.map(|dimensions| (config.model.clone(), dimensions));
        Ok(OpenAi { endpoint, host, call: config.pictures, shortened })
    }

    /// The `dimensions` to send: only where the model is asked for other than its full vectors.
    fn dimensions(&self, model: &ModelSpec) -> Option<u32> {
        let configured = self.shortened.as_ref().is_some_and(|(name, dimensions)| {
            *name == model.model && *dimensions == model.dimension
        });
        let shorter = models::find(ProviderKind::OpenAi, &model.model).is_some_and(|known| {
            known.shortening == Shortening::Asked && known.dimension != model.dimension
        });
        (configured || shorter).then_some(model.dimension)
    }
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Item>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    index: Option<usize>,
    embedding: Embedding,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    total_tokens: Option<u64>,
    #[serde(default)]
    prompt_tokens: Option<u64>,
}

/// A vector, sent as numbers or as the base64 of little-endian floats.
struct Embedding(Vec<f32>);

impl<'de> Deserialize<'de> for Embedding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EmbeddingVisitor)
    }
}

struct EmbeddingVisitor;

impl<'de> Visitor<'de> for EmbeddingVisitor {
    type Value = Embedding;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of numbers or base64")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Embedding, A::Error> {
        // The hint is the sender's: it is not trusted with memory.
        let hint = items.size_hint().unwrap_or(0).min(4_096);
        let mut vector = Vec::with_capacity(hint);
        while let Some(value) = items.next_element()? {
            vector.push(value);
        }
        Ok(Embedding(vector))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Embedding, E> {
        let bytes = STANDARD.decode(text).map_err(E::custom)?;
        let (values, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(E::custom("base64 of a broken float"));
        }
        Ok(Embedding(values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()))
    }
}

impl Provider for OpenAi {
    fn limits(&self) -> ProviderLimits {
        ProviderLimits {
            texts_per_call: match (self.call, self.host) {
                (Some(PictureCall::Vllm), _) => 1,
                (_, Host::OpenAi) => OPENAI_TEXTS_PER_CALL,
                (_, Host::Other) => OTHER_TEXTS_PER_CALL,
            },
            tokens_per_call: TOKENS_PER_CALL,
            tokens_per_text: TOKENS_PER_TEXT,
            chars_per_text: None,
            // A request over the limit fails whole, and no byte is more than a token.
            bytes_per_token: 1,
        }
    }

    fn variant(&self) -> String {
        // Two servers may know different models by one name, and a text in a chat is another one.
        match (self.call, self.host) {
            (Some(PictureCall::Vllm), _) => format!("{} messages", self.endpoint.address()),
            (_, Host::OpenAi) => String::new(),
            (_, Host::Other) => self.endpoint.address(),
        }
    }

    fn embed<'a>(
        &'a self,
        model: &'a ModelSpec,
        input: InputType,
        texts: &'a [String],
    ) -> BoxFuture<'a, Result<ProviderAnswer, CallError>> {
        Box::pin(async move {
            let dimensions = self.dimensions(model);
            let request = self.request((model, dimensions), input, Content::Texts(texts));
            let answer: Answer = self.endpoint.post(&request, texts).await?;
            answered(answer, texts.len(), dimensions)
        })
    }
}

impl OpenAi {
    fn request<'a>(
        &self,
        (model, dimensions): (&'a ModelSpec, Option<u32>),
        input: InputType,
        content: Content<'a>,
    ) -> Request<'a> {
        // A quarter of the bytes; other servers may not know it.
        let encoding_format = if self.host == Host::OpenAi { "base64" } else { "float" };
        let model = model.model.as_str();
        match self.call {
            None | Some(PictureCall::Jina) => {
                let input = Input::of(content);
                Request::Input { input, model, encoding_format, dimensions }
            }
            Some(PictureCall::Vllm) => {
                let messages = [Message::of(content)];
                Request::Messages { messages, model, encoding_format, dimensions }
            }
            Some(PictureCall::Voyage) => {
                let inputs = VoyageInput::all(content);
                let input_type = match input {
                    InputType::Document => "document",
                    InputType::Query => "query",
                };
                Request::Inputs { inputs, model, input_type, output_dimension: dimensions }
            }
        }
    }
}

/// A server like OpenAI's as one that takes pictures.
#[derive(Debug)]
pub(crate) struct OpenAiPictures {
    server: OpenAi,
}

impl OpenAiPictures {
    pub(crate) fn new(config: &OpenAiConfig, http: reqwest::Client) -> Result<Self, OpenError> {
        Ok(OpenAiPictures { server: OpenAi::new(config, http)? })
    }
}

impl Provider for OpenAiPictures {
    fn limits(&self) -> ProviderLimits {
        // Jina takes several, but does not say which of them it refuses.
        ProviderLimits { texts_per_call: 1, ..PICTURES_OF_A_CALL }
    }

    fn pictures(&self) -> Option<PictureLimits> {
        Some(PictureLimits { bytes_per_picture: PICTURE_BYTES_MAX, fetches: true })
    }

    fn variant(&self) -> String {
        self.server.variant()
    }

    fn embed<'a>(
        &'a self,
        model: &'a ModelSpec,
        input: InputType,
        pictures: &'a [String],
    ) -> BoxFuture<'a, Result<ProviderAnswer, CallError>> {
        Box::pin(async move {
            let server = &self.server;
            let dimensions = server.dimensions(model);
            let content = Content::Pictures(pictures);
            let request = server.request((model, dimensions), input, content);
            let answer: Answer =
                server.endpoint.post_pictures(&request, (ProviderKind::OpenAi, pictures)).await?;
            answered(answer, pictures.len(), dimensions)
        })
    }
}

/// The vectors of an answer; cut to `dimensions` if so many were asked for, as a server that does not
/// know how to be asked answers with the full ones.
fn answered(
    answer: Answer,
    count: usize,
    dimensions: Option<u32>,
) -> Result<ProviderAnswer, CallError> {
    let tokens = answer.usage.and_then(|usage| usage.total_tokens.or(usage.prompt_tokens));
    let mut vectors = in_order(answer.data, count)?;
    if let Some(dimensions) = dimensions {
        for vector in &mut vectors {
            cut(vector, dimensions);
        }
    }
    Ok(ProviderAnswer { vectors, tokens })
}

/// The vectors in the order of the texts, whatever the order of the answer.
fn in_order(items: Vec<Item>, count: usize) -> Result<Vec<Vec<f32>>, CallError> {
    let odd = |detail: String| CallError::fatal(EmbedError::Provider { status: None, detail });
    if items.len() != count {
        return Err(odd(format!("{} vectors came for {count} texts", items.len())));
    }
    let mut vectors: Vec<Option<Vec<f32>>> = vec![None; count];
    for (position, item) in items.into_iter().enumerate() {
        let index = item.index.unwrap_or(position);
        match vectors.get_mut(index) {
            Some(place @ None) => *place = Some(item.embedding.0),
            Some(Some(_)) => return Err(odd(format!("two vectors came for text {index}"))),
            None => return Err(odd(format!("a vector came for text {index} of {count}"))),
        }
    }
    // As many vectors as places and none twice: none is missing.
    Ok(vectors.into_iter().flatten().collect())
}
