//! The bodies of OpenAI's embeddings call, and of what others made of it for pictures
//! ([`PictureCall`](crate::PictureCall)):
//!
//! - Jina (<https://api.jina.ai/docs>) and servers like it: an element of `input` may be an object, a
//!   picture is `{"image": ...}`, a URL or plain base64.
//! - vLLM (<https://docs.vllm.ai/en/stable/models/pooling_models/embed/>, "Multi-modal inputs"):
//!   `messages` in place of `input`, written as in a chat, which all together are one input. Texts go
//!   the same way, as its examples have it: the chat template is part of what a model was trained on.
//! - Voyage (<https://docs.voyageai.com/reference/multimodal-embeddings-api>): a call of its own for
//!   models of both, `multimodalembeddings`. A request has pictures of one kind of URL only, so that
//!   each goes by itself here.

use serde::Serialize;

use crate::picture::{data_of, is_data_url};

/// What a call is for.
#[derive(Clone, Copy)]
pub(super) enum Content<'a> {
    Texts(&'a [String]),
    /// As their URLs.
    Pictures(&'a [String]),
}

/// The body of a call.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Request<'a> {
    /// OpenAI's, and Jina's.
    Input {
        input: Input<'a>,
        model: &'a str,
        encoding_format: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        dimensions: Option<u32>,
    },
    /// vLLM's, of one input.
    Messages {
        messages: [Message<'a>; 1],
        model: &'a str,
        encoding_format: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        dimensions: Option<u32>,
    },
    /// Voyage's.
    Inputs {
        inputs: Vec<VoyageInput<'a>>,
        model: &'a str,
        input_type: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        output_dimension: Option<u32>,
    },
}

#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Input<'a> {
    Texts(&'a [String]),
    Pictures(Vec<JinaPicture<'a>>),
}

#[derive(Serialize)]
pub(super) struct JinaPicture<'a> {
    image: &'a str,
}

#[derive(Serialize)]
pub(super) struct Message<'a> {
    role: &'static str,
    content: [MessagePart<'a>; 1],
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum MessagePart<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: MessageUrl<'a> },
}

#[derive(Serialize)]
struct MessageUrl<'a> {
    url: &'a str,
}

#[derive(Serialize)]
pub(super) struct VoyageInput<'a> {
    content: [VoyagePart<'a>; 1],
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum VoyagePart<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: &'a str },
    ImageBase64 { image_base64: &'a str },
}

impl<'a> Input<'a> {
    pub(super) fn of(content: Content<'a>) -> Self {
        match content {
            Content::Texts(texts) => Input::Texts(texts),
            // Its examples have base64 without what stands before it in a `data:` URL.
            Content::Pictures(urls) => Input::Pictures(
                urls.iter().map(|url| JinaPicture { image: data_of(url).unwrap_or(url) }).collect(),
            ),
        }
    }
}

impl<'a> Message<'a> {
    /// The one input of a call: that there is one is a matter of `limits`.
    pub(super) fn of(content: Content<'a>) -> Self {
        let (Content::Texts(inputs) | Content::Pictures(inputs)) = content;
        let input = inputs.first().map_or("", String::as_str);
        let part = match content {
            Content::Texts(_) => MessagePart::Text { text: input },
            Content::Pictures(_) => MessagePart::ImageUrl { image_url: MessageUrl { url: input } },
        };
        Message { role: "user", content: [part] }
    }
}

impl<'a> VoyageInput<'a> {
    pub(super) fn all(content: Content<'a>) -> Vec<Self> {
        let text = |text: &'a String| VoyagePart::Text { text };
        let picture = |url: &'a String| {
            if is_data_url(url) {
                VoyagePart::ImageBase64 { image_base64: url }
            } else {
                VoyagePart::ImageUrl { image_url: url }
            }
        };
        let input = |part| VoyageInput { content: [part] };
        match content {
            Content::Texts(texts) => texts.iter().map(text).map(input).collect(),
            Content::Pictures(urls) => urls.iter().map(picture).map(input).collect(),
        }
    }
}
