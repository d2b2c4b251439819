//! What a library is, fixed at its creation except for its name, description, language and index.

use arrwdb_index::analysis::Language;
use arrwdb_index::{IndexSpec, Metric};

use crate::ids::{LibraryId, TenantId, Timestamp};
use crate::limits::LIBRARY_NAME_CHARS_MAX;

/// Which model made, or makes, a library's vectors.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelName {
    /// `local`, `cohere` or `openai`.
    pub provider: String,
    /// The provider's name of the model.
    pub model: String,
}

/// What is wrong with the name of a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    /// Too short or too long.
    #[error("must have 1 to {LIBRARY_NAME_CHARS_MAX} characters; it has {chars}")]
    Length {
        /// How many characters it has.
        chars: usize,
    },
    /// Nothing to see.
    #[error("must not be blank")]
    Blank,
    /// It would break logs, metrics and terminals.
    #[error("must not have control characters; character {position} is one")]
    Control {
        /// Which character, from 0.
        position: usize,
    },
}

/// Checks the name of a library: people have to recognise it, and it is shown in one line.
pub fn check_library_name(name: &str) -> Result<(), NameFault> {
    let chars = name.chars().count();
    if !(1..=LIBRARY_NAME_CHARS_MAX).contains(&chars) {
        return Err(NameFault::Length { chars });
    }
    if let Some(position) = name.chars().position(char::is_control) {
        return Err(NameFault::Control { position });
    }
    if name.trim().is_empty() { Err(NameFault::Blank) } else { Ok(()) }
}

/// A library as the catalog knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibrarySpec {
    /// Its id.
    pub id: LibraryId,
    /// The tenant it belongs to.
    pub tenant: TenantId,
    /// Name, 1 to [`crate::limits::LIBRARY_NAME_CHARS_MAX`] characters; need not be unique.
    pub name: String,
    /// Description, where given.
    pub description: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// What its segments are searched by. Can change.
    pub index: IndexSpec,
    /// How distances are measured.
    pub metric: Metric,
    /// Embedding model of its texts.
    pub model: ModelName,
    /// Dimension of its vectors, 1 to [`crate::limits::DIMENSIONS_MAX`].
    pub dimension: u32,
    /// The library whose standing queries it holds, if it is a companion: nobody reaches it by its
    /// id, and it is deleted with that library.
    pub companion_of: Option<LibraryId>,
    /// The library whose documents it holds with vectors of another model, if it is a generation of
    /// it ([`crate::Generations`]): nobody reaches it by its id, and it is deleted with that library.
    pub generation_of: Option<LibraryId>,
    /// What its texts and the words that it is asked for are taken for. Can change.
    pub language: Language,
}

impl LibrarySpec {
    /// Whether it is a library of somebody, and no part of one.
    pub fn is_whole(&self) -> bool {
        self.companion_of.is_none() && self.generation_of.is_none()
    }
}
