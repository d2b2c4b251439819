//! Pictures that vectors are to be made of: whether the model of a field makes them, and what to say
//! where it does not.

use arrwdb_embed::{EmbedError, InputType, ModelSpec, Picture, ProviderKind, is_data_url};
use arrwdb_state::{Custom, FieldSpec, LibrarySpec, VectorValue};

use crate::engine::Inner;
use crate::error::EngineError;
use crate::fields::as_library;
use crate::search::model_of;

/// The key of a vector's metadata that says where its picture is.
pub(crate) const IMAGE_URL: &str = "image_url";

/// Notes in metadata where a vector's picture is, unless that says so already. A `data:` URL is the
/// picture itself, which belongs elsewhere.
pub fn note_picture(custom: &mut Custom, image_url: String) {
    if !is_data_url(&image_url) {
        custom.entry(IMAGE_URL).or_insert_with(|| image_url.into());
    }
}

/// What the metadata of a vector is when it is changed: `given`, or what it `has`, and where its new
/// picture is.
pub(crate) fn changed_metadata(
    has: &Custom,
    given: Option<&Custom>,
    image_url: Option<&str>,
) -> Custom {
    let mut custom = given.unwrap_or(has).clone();
    if let Some(url) = image_url {
        if given.is_none() {
            // Of the picture before.
            custom.remove(IMAGE_URL);
        }
        note_picture(&mut custom, url.to_owned());
    }
    custom
}

/// Refuses a picture for a passage.
pub(crate) fn not_of_passages() -> EngineError {
    EngineError::Invalid {
        field: "/image_url".into(),
        detail: "passages are made of texts: put the picture into a vector field, such as `image`"
            .into(),
    }
}

impl Inner {
    /// Refuses a picture that the field makes no vector of.
    pub(crate) fn check_picture(
        &self,
        (library, spec): (&LibrarySpec, &FieldSpec),
        picture: &Picture,
        pointer: &str,
    ) -> Result<(), EngineError> {
        if spec.model.is_none() {
            return Err(self.no_model_of_pictures(&spec.name, pointer));
        }
        let model = model_of(&as_library(library, spec), &format!("{pointer}/embedding"))?;
        let checked = self.parts.embedder.check_picture(&model, picture);
        checked.map_err(|error| refused(error, pointer, "embedding"))
    }

    /// The vector of a picture that is looked for.
    pub(crate) async fn embedded_picture(
        self: &std::sync::Arc<Self>,
        library: &LibrarySpec,
        picture: &Picture,
        pointer: &str,
    ) -> Result<Vec<f32>, EngineError> {
        let field = format!("{pointer}/{IMAGE_URL}");
        let model: ModelSpec = model_of(library, &field)?;
        let checked = self.parts.embedder.check_picture(&model, picture);
        checked.map_err(|error| refused(error, pointer, IMAGE_URL))?;
        let pictures = (InputType::Query, vec![picture.clone()]);
        self.embed_pictures(library, &field, pictures).await
    }

    /// What to say of a picture for a field that has no model.
    pub(crate) fn no_model_of_pictures(&self, name: &str, pointer: &str) -> EngineError {
        let takers = self.parts.embedder.picture_providers();
        let takers: Vec<&str> = takers.into_iter().map(ProviderKind::name).collect();
        let who = if takers.is_empty() {
            "none is set up for that: see COHERE_IMAGES and OPENAI_IMAGES".to_owned()
        } else {
            format!("here that is {}", takers.join(", "))
        };
        EngineError::Invalid {
            field: format!("{pointer}/embedding"),
            detail: format!(
                "is required: the vector field `{name}` has no embedding model. Give the vector of the \
                 picture here, or put the picture into a field that is declared with a model of a \
                 provider which makes vectors of pictures ({who})"
            ),
        }
    }
}

/// What the embedder says of a picture, at the field that is missing or wrong.
fn refused(error: EmbedError, pointer: &str, missing: &str) -> EngineError {
    match &error {
        EmbedError::PictureUnfit { .. } => EngineError::Invalid {
            field: format!("{pointer}/{IMAGE_URL}"),
            detail: error.to_string(),
        },
        EmbedError::NoPictures { .. } if missing == IMAGE_URL => EngineError::Invalid {
            field: format!("{pointer}/{IMAGE_URL}"),
            detail: format!("{error}, or give the vector of the picture as embedding"),
        },
        EmbedError::NoPictures { .. } => EngineError::Invalid {
            field: format!("{pointer}/{missing}"),
            detail: format!("is required: {error}, or give the vector of the picture here"),
        },
        EmbedError::BlankText { .. }
        | EmbedError::TextTooLong { .. }
        | EmbedError::UnknownModel { .. }
        | EmbedError::DimensionUnsupported { .. }
        | EmbedError::DimensionUnknown { .. }
        | EmbedError::NotConfigured { .. }
        | EmbedError::Busy { .. }
        | EmbedError::RateLimited { .. }
        | EmbedError::Deadline { .. }
        | EmbedError::Provider { .. }
        | EmbedError::WrongDimension { .. }
        | EmbedError::NotFinite { .. }
        | EmbedError::NotAllowed
        | EmbedError::Closed => EngineError::Embedding(error),
    }
}

/// What a vector is given by.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    Value(&'a VectorValue),
    Picture(&'a Picture),
    Text(&'a str),
}

impl<'a> Source<'a> {
    /// A picture goes before the text, which describes it then.
    pub(crate) fn of(
        value: Option<&'a VectorValue>,
        picture: Option<&'a Picture>,
        text: &'a str,
    ) -> Self {
        match (value, picture) {
            (Some(value), _) => Source::Value(value),
            (None, Some(picture)) => Source::Picture(picture),
            (None, None) => Source::Text(text),
        }
    }
}
