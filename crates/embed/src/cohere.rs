//! Cohere's embedding call, in the shape of its first and of its second version; of pictures always in
//! that of the second (<https://docs.cohere.com/reference/embed>), which other servers speak, too.

use serde::{Deserialize, Serialize};

use crate::config::{CohereConfig, CohereVersion};
use crate::error::OpenError;
use crate::models::{self, ModelSpec, ProviderKind, Shortening};
use crate::provider::{
    BoxFuture, CallError, InputType, PICTURES_OF_A_CALL, PictureLimits, Provider, ProviderAnswer,
    ProviderLimits, cut,
};
use crate::remote::Endpoint;

/// Texts in one call, as documented.
const TEXTS_PER_CALL: usize = 96;

/// Characters of one text that are taken; what is beyond the model's tokens is cut off there.
const CHARS_PER_TEXT: usize = 524_288;

/// Keeps a call's body within what gateways take.
const TOKENS_PER_CALL: u64 = 262_144;

/// Pictures in one call, as documented.
const PICTURES_PER_CALL: usize = 1;

/// Bytes of one picture, as documented.
const BYTES_PER_PICTURE: usize = 5 << 20;

#[derive(Debug)]
pub(crate) struct Cohere {
    endpoint: Endpoint,
    version: CohereVersion,
}

impl Cohere {
    pub(crate) fn new(config: &CohereConfig, http: reqwest::Client) -> Result<Self, OpenError> {
        let (path, scheme) = match config.api_version {
            // The oldest clients write the scheme in capitals.
            CohereVersion::V1 => ("v1/embed", "BEARER"),
            CohereVersion::V2 => ("v2/embed", "Bearer"),
        };
        let endpoint = Endpoint::new(
            http,
            ProviderKind::Cohere,
            (&config.base_url, path),
            Some((scheme, &config.api_key)),
        )?;
        Ok(Cohere { endpoint, version: config.api_version })
    }
}

#[derive(Serialize)]
struct V1Request<'a> {
    model: &'a str,
    texts: &'a [String],
    truncate: &'static str,
    compression: Option<&'static str>,
    input_type: &'static str,
}

#[derive(Serialize)]
struct V2Request<'a> {
    model: &'a str,
    input_type: &'static str,
    texts: &'a [String],
    embedding_types: [&'static str; 1],
    truncate: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dimension: Option<u32>,
}

#[derive(Serialize)]
struct PicturesRequest<'a> {
    model: &'a str,
    input_type: &'static str,
    images: &'a [String],
    embedding_types: [&'static str; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dimension: Option<u32>,
}

#[derive(Deserialize)]
struct Answer<E> {
    embeddings: E,
    #[serde(default)]
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct ByType {
    float: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    billed_units: Option<BilledUnits>,
}

#[derive(Deserialize)]
struct BilledUnits {
    /// A count, which some gateways write as `12.0`.
    #[serde(default)]
    input_tokens: Option<f64>,
    /// Those of pictures; models of the third generation count pictures instead.
    #[serde(default)]
    image_tokens: Option<f64>,
}

impl Provider for Cohere {
    fn limits(&self) -> ProviderLimits {
        ProviderLimits {
            texts_per_call: TEXTS_PER_CALL,
            tokens_per_call: TOKENS_PER_CALL,
            tokens_per_text: 128_000,
            chars_per_text: Some(CHARS_PER_TEXT),
            bytes_per_token: 4,
        }
    }

    fn variant(&self) -> String {
        variant(&self.endpoint)
    }

    fn embed<'a>(
        &'a self,
        model: &'a ModelSpec,
        input: InputType,
        texts: &'a [String],
    ) -> BoxFuture<'a, Result<ProviderAnswer, CallError>> {
        Box::pin(async move {
            let (mut vectors, meta) = match self.version {
                CohereVersion::V1 => self.v1(model, input, texts).await?,
                CohereVersion::V2 => self.v2(model, input, texts).await?,
            };
            for vector in &mut vectors {
                cut(vector, model.dimension);
            }
            Ok(ProviderAnswer { vectors, tokens: tokens(meta) })
        })
    }
}

impl Cohere {
    async fn v1(
        &self,
        model: &ModelSpec,
        input: InputType,
        texts: &[String],
    ) -> Result<(Vec<Vec<f32>>, Option<Meta>), CallError> {
        let request = V1Request {
            model: &model.model,
            texts,
            truncate: "END",
            compression: None,
            input_type: input_type(input),
        };
        let answer: Answer<Vec<Vec<f32>>> = self.endpoint.post(&request, texts).await?;
        Ok((answer.embeddings, answer.meta))
    }

    async fn v2(
        &self,
        model: &ModelSpec,
        input: InputType,
        texts: &[String],
    ) -> Result<(Vec<Vec<f32>>, Option<Meta>), CallError> {
        let request = V2Request {
            model: &model.model,
            input_type: input_type(input),
            texts,
            embedding_types: ["float"],
            truncate: "END",
            output_dimension: output_dimension(model),
        };
        let answer: Answer<ByType> = self.endpoint.post(&request, texts).await?;
        Ok((answer.embeddings.float, answer.meta))
    }
}

/// Cohere as one who takes pictures.
#[derive(Debug)]
pub(crate) struct CoherePictures {
    endpoint: Endpoint,
}

impl CoherePictures {
    pub(crate) fn new(config: &CohereConfig, http: reqwest::Client) -> Result<Self, OpenError> {
        let place = (&*config.base_url, "v2/embed");
        let key = Some(("Bearer", &config.api_key));
        Ok(CoherePictures { endpoint: Endpoint::new(http, ProviderKind::Cohere, place, key)? })
    }
}

impl Provider for CoherePictures {
    fn limits(&self) -> ProviderLimits {
        ProviderLimits { texts_per_call: PICTURES_PER_CALL, ..PICTURES_OF_A_CALL }
    }

    fn pictures(&self) -> Option<PictureLimits> {
        Some(PictureLimits { bytes_per_picture: BYTES_PER_PICTURE, fetches: false })
    }

    fn variant(&self) -> String {
        variant(&self.endpoint)
    }

    fn embed<'a>(
        &'a self,
        model: &'a ModelSpec,
        _input: InputType,
        pictures: &'a [String],
    ) -> BoxFuture<'a, Result<ProviderAnswer, CallError>> {
        Box::pin(async move {
            let request = PicturesRequest {
                model: &model.model,
                input_type: "image",
                images: pictures,
                embedding_types: ["float"],
                output_dimension: output_dimension(model),
            };
            let answer: Answer<ByType> =
                self.endpoint.post_pictures(&request, (ProviderKind::Cohere, pictures)).await?;
            let mut vectors = answer.embeddings.float;
            for vector in &mut vectors {
                cut(vector, model.dimension);
            }
            Ok(ProviderAnswer { vectors, tokens: tokens(answer.meta) })
        })
    }
}

/// Both versions of the call give the same vectors; a stand-in for Cohere may give others.
fn variant(endpoint: &Endpoint) -> String {
    let host = endpoint.host();
    let is_cohere = [".cohere.ai", ".cohere.com"].iter().any(|name| host.ends_with(name));
    if is_cohere { String::new() } else { host.to_owned() }
}

/// The dimension to ask for: only the fourth generation computes shorter vectors; of the others we cut.
fn output_dimension(model: &ModelSpec) -> Option<u32> {
    let known = models::find(ProviderKind::Cohere, &model.model);
    let computes = known.is_some_and(|known| matches!(known.shortening, Shortening::Listed(_)));
    computes.then_some(model.dimension)
}

fn input_type(input: InputType) -> &'static str {
    match input {
        InputType::Document => "search_document",
        InputType::Query => "search_query",
    }
}

fn tokens(meta: Option<Meta>) -> Option<u64> {
    let billed = meta?.billed_units?;
    let counts = [billed.input_tokens, billed.image_tokens];
    let tokens = counts.into_iter().flatten().reduce(|sum, count| sum + count)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked, and a count has no fraction"
    )]
    (0.0..1e15).contains(&tokens).then_some(tokens as u64)
}
