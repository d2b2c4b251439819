//! What stops a command. A rule that the tree breaks is not an error but a [`crate::tidy::Finding`].

use std::path::{Path, PathBuf};

/// Why a command could not be carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line is not one of those in the usage text.
    #[error("{0}")]
    Usage(String),
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// A program could not be started.
    #[error("cannot start `{program}`: {source}")]
    Start { program: String, source: std::io::Error },
    /// A program whose output was needed ended with a failure.
    #[error("`{program}` failed: {detail}")]
    Failed { program: String, detail: String },
    /// A TOML file does not parse, or has not the shape expected of it.
    #[error("{}: {source}", path.display())]
    Toml { path: PathBuf, source: toml::de::Error },
    /// Output of cargo that was expected to be JSON is not, or has another shape.
    #[error("output of `{program}`: {source}")]
    Json { program: String, source: serde_json::Error },
    /// deny.toml names a licence that SPDX does not know.
    #[error("deny.toml: licence `{name}`: {reason}")]
    Licence { name: String, reason: String },
    /// What was asked for is not in the workspace.
    #[error("{0}")]
    Absent(String),
    /// Something that was run or checked did not pass; what and why is printed already.
    #[error("{0}")]
    NotPassed(String),
}

impl Error {
    /// An I/O error with the path it happened at.
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }
}
