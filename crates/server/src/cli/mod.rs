//! The command line: everything `arrwdb` does besides serving.
//!
//! `import`, `search` and `export` are HTTP clients of a running server, so that the server is the
//! only process that ever opens the data directory. `demo` starts a server in this process and
//! then talks to it the same way. `model` touches the model's files alone, and `check` a data
//! directory that no server has open. `backup` reads the data directory from outside, and
//! `restore` makes one that no server has open yet.
//!
//! What a program may want to read goes to standard output; progress, remarks and errors go to
//! standard error. Memory is bounded by the streams in flight, never by the size of what is moved,
//! except for one id and hash per document already in the library.
//!
//! - **U2** Importing twice changes nothing: a document's id follows from where it came from, and a
//!   document whose content hash the server already holds is not sent.

mod args;
mod backup;
mod check;
mod client;
mod demo;
mod demo_corpus;
mod error;
mod export;
mod html;
mod import;
mod item;
mod library;
mod lines;
mod markdown;
mod model;
mod passage;
mod plain;
mod progress;
mod read;
mod search;
mod source;
mod terminal;
mod upload;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

pub use args::{
    Arguments, BackupArgs, CheckArgs, Command, DemoArgs, ExportArgs, ImportArgs, ModelAction,
    ModelArgs, RestoreArgs, SearchArgs, ServeArgs, ServerArgs,
};
pub use check::COULD_NOT_CHECK;
pub use demo::{DemoServer, DemoSite};
pub use error::CliError;
pub use model::{BarProgress, ModelSite};
pub use progress::{Bars, ByteBar};
pub use terminal::{Colour, Terminal};

/// What a command may know of the process it runs in; `main` gathers it once.
#[derive(Debug)]
pub struct Surroundings {
    /// Where answers and remarks go.
    pub terminal: Terminal,
    /// Where the local model's files belong and where they can be had.
    pub model: ModelSite,
    /// The data directory that the settings name.
    pub data_dir: PathBuf,
    /// Whether the settings embed with the local model, so that `demo` needs its files.
    pub model_is_used: bool,
    /// Cargo's home (`$CARGO_HOME` or `~/.cargo`), where the demo looks for documentation.
    pub cargo_home: Option<PathBuf>,
    /// The directory the command was started in.
    pub working_dir: PathBuf,
    /// The directory for temporary files.
    pub temp_dir: PathBuf,
    /// The variables of the environment that tell AWS tools of a store and its credentials.
    pub aws: BTreeMap<String, String>,
}

/// Runs a command other than `serve`; `demo_server` is called by `demo` alone.
///
/// The exit code is a failure when a document could not be imported; every other failure is an
/// error. [`CliError::is_closed_pipe`] says when an error needs no words.
pub async fn run(
    command: Command,
    mut surroundings: Surroundings,
    demo_server: DemoServer,
) -> Result<ExitCode, CliError> {
    let done = |()| ExitCode::SUCCESS;
    let terminal = &mut surroundings.terminal;
    match command {
        Command::Serve(_) => Err(CliError::Setup("serve is not a client's command".to_owned())),
        Command::Demo(args) => demo::run(args, &mut surroundings, demo_server).await.map(done),
        Command::Import(args) => import::run(args, terminal).await,
        Command::Search(args) => search::run(args, terminal).await.map(done),
        Command::Export(args) => export::run(args, terminal).await.map(done),
        Command::Check(args) => check::run(&args, &surroundings.data_dir, terminal),
        Command::Model(args) => model::run(args, &surroundings.model, terminal).await.map(done),
        Command::Backup(args) => backup::run(args, &mut surroundings).await.map(done),
        Command::Restore(args) => backup::restore(args, &mut surroundings).await.map(done),
    }
}
