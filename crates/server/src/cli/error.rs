//! Why a command failed, by what its user can do about it.

use std::io;
use std::path::PathBuf;

use arrwdb_engine::check::CheckError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Nothing answers at the server's address.
    #[error(
        "nothing answers at {server} ({reason})\n\
         Start a server with `arrwdb serve`, or name another one with --server URL or ARRWDB_SERVER."
    )]
    Unreachable {
        /// The address asked.
        server: String,
        /// What the connection said.
        reason: String,
    },
    /// The address is not one of an HTTP server.
    #[error("{server:?} is not a server's URL: {reason}")]
    ServerUrl {
        /// The address given.
        server: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server refused a request.
    #[error("the server refused to {doing}: {detail} (HTTP {status})")]
    Refused {
        /// What was asked of it.
        doing: String,
        /// Status of the answer.
        status: u16,
        /// What the server said.
        detail: String,
    },
    /// The server's answer broke off or was not what the API promises.
    #[error("the server's answer to {doing} could not be read: {reason}")]
    Answer {
        /// What was asked of it.
        doing: String,
        /// What went wrong.
        reason: String,
    },
    /// No library has that name or id.
    #[error("there is no library {wanted:?}; {known}")]
    NoLibrary {
        /// The name or id given.
        wanted: String,
        /// A sentence that lists the libraries there are.
        known: String,
    },
    /// A library has to be named.
    #[error("which library? Name one with --library; {known}")]
    WhichLibrary {
        /// A sentence that lists the libraries there are.
        known: String,
    },
    /// Several libraries share the name.
    #[error("{count} libraries are named {name:?}; give the id of one: {ids}")]
    AmbiguousLibrary {
        /// The shared name.
        name: String,
        /// How many share it.
        count: usize,
        /// Their ids.
        ids: String,
    },
    /// A file or folder cannot be used.
    #[error("{}: {source}", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The demo's directory already holds something.
    #[error("{} is not empty; the demo wants an empty directory of its own", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// Standard output or standard error is gone.
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
    /// The HTTP client or the server inside the demo could not be set up.
    #[error("{0}")]
    Setup(String),
    /// The model's files are not there, not right or cannot be fetched.
    #[error("{0}")]
    Model(String),
    /// A data directory could not be checked, or not be repaired.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// A backup or a restore did not happen.
    #[error("{0}")]
    Backup(String),
}

impl CliError {
    /// Whether the reader of standard output has simply left, as `| head` does.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, CliError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// A [`CliError::File`] about `path`.
    pub(crate) fn file(path: impl Into<PathBuf>, source: io::Error) -> CliError {
        CliError::File { path: path.into(), source }
    }
}
